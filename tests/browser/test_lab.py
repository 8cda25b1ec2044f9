"""The notebooks in a real JupyterLab: they open, run from top to bottom, and their widgets answer the keyboard."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hands import OVAL, explore, stroke
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PatienceError

WIDGET_NOTEBOOKS = ("02_indicator_design",)


# JupyterLab puts a long notebook's cells on the page bit by bit: what is said of all cells is said of `count` of them.
PROMPTS = ("[...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt')]"
           ".map(prompt => prompt.textContent)")
CLEARED = f"count => {{ const said = {PROMPTS}; return said.length == count && !said.some(text => /[*\\d]/.test(text)); }}"
STARTED = f"() => {PROMPTS}.some(text => /[*\\d]/.test(text))"
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
FINISHED = (f"count => {{ const said = {PROMPTS}; return document.querySelector(`{ERROR}`) || "
            "said.length == count && said.every(text => /\\d/.test(text)); }")


def open_notebook(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}lab/workspaces/{Path(name).stem}/tree/{name}")
    expect(page.locator(".jp-NotebookPanel:visible .jp-Notebook")).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=60_000)


def choose(page: Page, menu: str, entry: str, *, until: str, count: int) -> None:
    """A menu's entry. JupyterLab drops a choice made while it still settles, so it is made again until the page shows it."""
    for patience in (5_000, 10_000, 20_000, 40_000):
        page.get_by_role("menuitem", name=menu, exact=True).click()
        page.get_by_role("menuitem", name=re.compile(f"^{entry}")).click()
        try:
            page.wait_for_function(until, arg=count, timeout=patience)
            return
        except PatienceError:
            continue
    raise AssertionError(f"{menu} > {entry} did nothing; the prompts read {page.evaluate(PROMPTS)}")


def run_all(page: Page, notebook: Path, *, patience: int = 300) -> None:
    """Clear all outputs, run all cells, and wait until each has its number, or one fails, for so many seconds."""
    count = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    choose(page, "Edit", "Clear Outputs of All Cells", until=CLEARED, count=count)
    choose(page, "Run", "Run All Cells", until=STARTED, count=count)
    page.wait_for_function(FINISHED, arg=count, timeout=1000 * patience)
    assert page.locator(ERROR).all_text_contents() == []


def run_notebook(lab: tuple[str, Path], page: Page, notebook: Path, *, patience: int = 300) -> None:
    """Run a copy of `notebook` from top to bottom in JupyterLab, and stay there."""
    address, folder = lab
    shutil.copy(notebook, folder)
    open_notebook(page, address, notebook.name)
    run_all(page, folder / notebook.name, patience=patience)


@pytest.mark.parametrize("name", WIDGET_NOTEBOOKS)
def test_a_notebook_runs_and_its_slider_answers_the_keyboard(lab, seen, root: Path, name: str):
    page = seen.page
    run_notebook(lab, page, root / f"notebooks/{name}.ipynb")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    slider = page.locator(".widget-slider [role=slider], .noUi-handle").first
    slider.scroll_into_view_if_needed(timeout=60_000)
    slider.focus()
    readout = page.locator(".widget-html-content caption").first
    for keys, alpha in ((["ArrowRight"], "0.01"), (["ArrowRight"] * 4, "0.05"), (["End"], "0.2"), (["Home"], "0")):
        for key in keys:
            page.keyboard.press(key)
        expect(readout).to_contain_text(f"alpha {alpha}:", timeout=10_000)
    page.locator(".widget-toggle-button", has_text=re.compile("^4$")).press("Space")
    expect(readout).to_contain_text("male:female 4,", timeout=10_000)


def widget_cells(notebook: Path, *wanted: str) -> dict:
    """The notebook with its setup and the code cells that hold one of `wanted`: a whole run is left to nbval."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["cells"] = [cell for cell in content["cells"] if cell["cell_type"] == "code" and (
        "setup" in cell["metadata"].get("tags", []) or any(words in "".join(cell["source"]) for words in wanted))]
    return content


def test_the_alpha_explorer_and_the_panel_of_notebook_04_answer(lab, seen, root: Path):
    address, folder = lab
    content = widget_cells(root / "notebooks/04_generation.ipynb", "gallery = load_gallery()",
                           "AlphaExplorer(gallery, studio)", "ReconstructionPanel(gallery, studio)")
    (folder / "04_widgets.ipynb").write_text(json.dumps(content), encoding="utf-8")
    page = seen.page
    open_notebook(page, address, "04_widgets.ipynb")
    run_all(page, folder / "04_widgets.ipynb")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    explore(page)
    page.get_by_role("button", name="generate").click()
    expect(page.get_by_text("4 drawn by the base model")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="sketch", exact=True).click()
    expect(page.get_by_text("no stroke on it")).to_be_visible(timeout=30_000)
    stroke(page, page.locator("canvas:visible").last, OVAL)
    expect(page.get_by_text("What the model gets of your sketch")).to_be_visible(timeout=30_000)


EXPLORERS = {
    "DatasetMixer": "from debiaslib.widgets.mixer import DatasetMixer\nDatasetMixer()",
    "TrainingExplorer": """\
from debiaslib.widgets.training import TrainingExplorer
TrainingExplorer(*(pd.read_csv(RESULTS / f"full-pool/{name}.csv") for name in ("cells", "curves")))""",
    "MetricExplorer": """\
from debiaslib import claims
from debiaslib.widgets.metrics import MetricExplorer
MetricExplorer(pd.read_csv(RESULTS / "full-pool/cells.csv"), confusion=claims.read_confusion())""",
    "ShiftExplorer": """\
from debiaslib.widgets.rebalance import ShiftExplorer, shift_path
targets = {share: [1 - share, share] for share in (0.3, 0.5, 0.7)}
ShiftExplorer(shift_path(lambda wanted, shift: ([600 - 200 * shift, 400 + 200 * shift], 1 + shift), targets, shifts=[0, 0.5, 1],
                         names=["younger", "older"]), target=0.5, shift=0.5)""",
    "AuditExplorer": """\
from debiaslib.audit_results import read_pictures, tidy
from debiaslib.widgets.audit import AuditExplorer
AuditExplorer(pd.concat([tidy(part).assign(set=name) for name, part in read_pictures(RESULTS / "audit").groupby("set", sort=False)]))""",
    "BudgetExplorer": """\
from debiaslib.widgets.budget import BudgetExplorer
BudgetExplorer(pd.read_csv(next((RESULTS / "sd15_budget").glob("*.csv"))), scatter=0.03, recalls=(0.85, 0.83))""",
}


def test_each_slider_of_the_other_widgets_is_answered(lab, seen, root: Path):
    address, folder = lab
    setup = "import pandas as pd\nfrom debiaslib.presets import data_root\nRESULTS = data_root() / 'results'"
    cells = [{"cell_type": "code", "execution_count": None, "id": f"cell-{number}", "metadata": {}, "outputs": [], "source": source}
             for number, source in enumerate([setup, *EXPLORERS.values()])]
    kernel = json.loads((root / "notebooks/00_tour.ipynb").read_text(encoding="utf-8"))["metadata"]["kernelspec"]
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "explorers.ipynb").write_text(json.dumps(content), encoding="utf-8")
    page = seen.page
    open_notebook(page, address, "explorers.ipynb")
    run_all(page, folder / "explorers.ipynb")
    for number, name in enumerate(EXPLORERS, start=1):
        cell = page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(number)
        handles = cell.locator(".noUi-handle")
        expect(handles.first, name).to_be_visible(timeout=60_000)
        for place in range(handles.count()):
            move(cell, handles.nth(place))


def move(cell: Locator, handle: Locator) -> None:
    """One step by keyboard, up or, at the upper end, down; the reading must change."""
    reading, last = cell.locator(".widget-html-content"), cell.locator(".widget-html-content").all_inner_texts()
    handle.scroll_into_view_if_needed(timeout=60_000)
    handle.focus()
    for key in ("ArrowRight", "ArrowLeft"):
        handle.press(key)
        for _ in range(30):
            if reading.all_inner_texts() != last:
                return
            cell.page.wait_for_timeout(100)
    raise AssertionError(f"{handle.get_attribute('aria-valuetext')}: the reading stays {last}")

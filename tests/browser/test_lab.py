"""The notebooks in a real JupyterLab: they open, run from top to bottom, and their widgets answer the keyboard."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hands import explore
from playwright.sync_api import Page, expect
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


def run_all(page: Page, notebook: Path) -> None:
    """Clear all outputs, run all cells, and wait until each has its number, or one fails."""
    count = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    choose(page, "Edit", "Clear Outputs of All Cells", until=CLEARED, count=count)
    choose(page, "Run", "Run All Cells", until=STARTED, count=count)
    page.wait_for_function(FINISHED, arg=count, timeout=300_000)
    assert page.locator(ERROR).all_text_contents() == []


@pytest.mark.parametrize("name", WIDGET_NOTEBOOKS)
def test_a_notebook_runs_and_its_slider_answers_the_keyboard(lab, seen, root: Path, name: str):
    address, folder = lab
    shutil.copy(root / f"notebooks/{name}.ipynb", folder)
    page = seen.page
    open_notebook(page, address, f"{name}.ipynb")
    run_all(page, folder / f"{name}.ipynb")
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

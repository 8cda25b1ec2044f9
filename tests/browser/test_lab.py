"""The notebooks in a real JupyterLab: they open, run from top to bottom, and their widgets answer the keyboard."""

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

WIDGET_NOTEBOOKS = ("02_indicator_design",)


def open_notebook(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}lab/tree/{name}?reset")
    expect(page.locator(".jp-NotebookPanel:visible .jp-Notebook")).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=60_000)


def run_all(page: Page) -> None:
    """Clear all outputs, run all cells, and wait until each has its number."""
    for menu, entry in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
        page.get_by_role("menuitem", name=menu, exact=True).click()
        page.get_by_role("menuitem", name=re.compile(f"^{entry}")).click()
    page.wait_for_function(
        """() => { const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
                   return prompts.length && prompts.every(prompt => /\\d/.test(prompt.textContent)); }""", timeout=300_000)


@pytest.mark.parametrize("name", WIDGET_NOTEBOOKS)
def test_a_notebook_runs_and_its_slider_answers_the_keyboard(lab, seen, root: Path, name: str):
    address, folder = lab
    shutil.copy(root / f"notebooks/{name}.ipynb", folder)
    page = seen.page
    open_notebook(page, address, f"{name}.ipynb")
    run_all(page)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    slider = page.locator(".widget-slider [role=slider], .noUi-handle").first
    slider.scroll_into_view_if_needed()
    slider.focus()
    readout = page.locator(".widget-html-content caption").first
    for keys, alpha in ((["ArrowRight"], "0.01"), (["ArrowRight"] * 4, "0.05"), (["End"], "0.2"), (["Home"], "0")):
        for key in keys:
            page.keyboard.press(key)
        expect(readout).to_contain_text(f"alpha {alpha}:", timeout=10_000)
    page.locator(".widget-toggle-button", has_text=re.compile("^4$")).press("Space")
    expect(readout).to_contain_text("male:female 4,", timeout=10_000)

"""The whole course by hand, slowly: every notebook run in JupyterLab, every slider moved, every exercise solved and missolved.

`make test-slow` runs it: a quarter of an hour. The quick tests beside it move the same widgets without the notebooks.
"""

import ast
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from test_lab import ERROR, run_notebook

NOTEBOOKS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "notebooks").glob("0*.ipynb"))
SOLUTION = re.compile(r"^# <solution>\n(.*?)^# </solution>\n(.*?)(?=^# %%)", re.MULTILINE | re.DOTALL)
EXERCISE = re.compile(r'check\("(\w+)\.(\w+)"')


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_newcomer_gets_through(lab, seen, root: Path, name: str):
    page = seen.page
    run_notebook(lab, page, root / f"notebooks/{name}.ipynb", patience=900)
    cells = page.locator(".jp-NotebookPanel:visible .jp-CodeCell")
    for place in range(cells.count()):
        if cells.nth(place).locator(".noUi-handle").count():
            move_all(cells.nth(place))
    exercises = solutions(root / f"notebooks/src/{name}.py")
    assert len(exercises) >= 2
    for exercise, solved in exercises.items():
        cell = cells.filter(has_text=f'check("{exercise}", answer)')
        for answer, word in mistakes(root / "tests/unit/answers", exercise):
            answered(page, cell, f'{answer}\ncheck("{exercise}", answer)', "Not yet. ", word)
        answered(page, cell, solved, "Right. ", "")
    assert page.locator(ERROR).all_text_contents() == []


def solutions(source: Path) -> dict[str, str]:
    """What readers are to find, by the exercise's name: the whole cell."""
    cells = ["".join(parts) for parts in SOLUTION.findall(source.read_text(encoding="utf-8") + "# %%")]
    return {".".join(EXERCISE.search(cell).groups()): cell.strip() for cell in cells}


def mistakes(folder: Path, exercise: str) -> list[tuple[str, str]]:
    """Code that gives a wrong answer, and a word of its hint, for each mistake that is known of."""
    source = (folder / f"{exercise.split('.')[0]}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    lists = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id in ("WRONG", "RIGHT")]
    before = "".join(f"{ast.unparse(node)}\n" for node in tree.body[1:] if node not in lists)
    wrong = next(node for node in lists if node.targets[0].id == "WRONG")
    rows = [row.elts for row in wrong.value.elts]
    return [(f"{before}answer = {ast.unparse(answer)}", word.value) for name, answer, word in rows if name.value == exercise]


def answered(page: Page, cell: Locator, code: str, verdict: str, word: str) -> None:
    """Write `code` into the cell, run it, and wait for the verdict below."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(code)
    page.keyboard.press("Control+Enter")
    output = cell.locator(".jp-OutputArea-output").first
    expect(output, code).to_contain_text(verdict, timeout=20_000)
    expect(output, code).to_contain_text(word, timeout=20_000)


def move_all(cell: Locator) -> None:
    """Each slider a step by keyboard; what is shown must change, unless a button has to be pressed for that."""
    handles, alive = cell.locator(".noUi-handle"), bool(cell.get_by_role("button", name="generate").count())
    for place in range(handles.count()):
        handle, before = handles.nth(place), (reading(cell), handles.nth(place).get_attribute("aria-valuetext"))
        handle.scroll_into_view_if_needed(timeout=60_000)
        handle.focus()
        for key in ("ArrowRight", "ArrowLeft"):
            handle.press(key)
            cell.page.wait_for_timeout(700)
            if handle.get_attribute("aria-valuetext") != before[1]:
                break
        assert handle.get_attribute("aria-valuetext") != before[1], before[1]
        alive |= reading(cell) != before[0]
    assert alive, cell.inner_text()[:400]


def reading(cell: Locator) -> list[str]:
    """What a widget shows beside its controls: words and pictures."""
    pictures = cell.locator(".jp-OutputArea img, .jp-OutputArea canvas").evaluate_all("all => all.map(one => one.src || '')")
    return cell.locator(".widget-html-content, .widget-html").all_inner_texts() + pictures

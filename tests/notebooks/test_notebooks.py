"""The notebooks as they ship: in step with their sources, run to the end, clean, and with exercises that can be solved."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib
import pytest

import debiaslib

FOLDER = Path(debiaslib.__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted((FOLDER / "src").glob("*.py"))
FEWEST_CELLS = 15

pytestmark = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


@pytest.fixture
def shipped(builder, source: Path):
    """The notebook that readers open."""
    return builder.nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def numbered(text: str) -> list[str]:
    return re.findall(r"^\d+\. ", text, re.MULTILINE)


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_is_in_step_with_its_source(builder, shipped, source: Path):
    fresh = builder.convert(source.read_text(encoding="utf-8"))
    assert builder.differences(shipped, fresh, outputs=False) == [], f"run `python notebooks/build.py {source.stem}`"


def test_its_cells_are_short_and_compared(builder, source: Path):
    text = source.read_text(encoding="utf-8")
    assert builder.source_problems(builder.convert(text)) == []
    assert [line for line in builder.source_problems(builder.convert(text, solutions=True)) if "lines" in line] == []
    assert "shared/" not in text


def test_every_cell_was_run_and_shows_nothing_that_does_not_belong(builder, shipped, source: Path):
    assert len(builder.code_cells(shipped)) >= FEWEST_CELLS
    assert builder.output_problems(shipped) == []


def test_what_is_not_compared_is_listed(builder, source: Path):
    listed = (FOLDER / "ignored.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in listed if source.stem in line] == \
        [line for line in builder.ignored_list(FOLDER).splitlines() if source.stem in line]


def test_readers_do_not_find_the_solutions(builder, shipped, source: Path):
    text = source.read_text(encoding="utf-8")
    regions = [match[0].splitlines()[1:-1] for match in builder.SOLUTION.finditer(text)]
    assert len(regions) >= 2
    content = {line.strip() for cell in shipped.cells for line in cell.source.splitlines()}
    assert [line for region in regions for line in region if line.strip() and line.strip() in content] == []
    assert "<solution>" not in json.dumps(shipped)


def test_untouched_exercises_are_not_attempted_and_solutions_are_right(builder, shipped, source: Path, monkeypatch):
    stubs = [cell for cell in builder.code_cells(shipped) if "exercise" in builder.tags(cell)]
    assert [cell for cell in stubs if not printed(cell).startswith("Not attempted yet")] == []
    monkeypatch.chdir(FOLDER)
    names: dict = {}
    cells = builder.code_cells(builder.convert(source.read_text(encoding="utf-8"), solutions=True))
    with matplotlib.rc_context():
        verdicts = [_verdict(cell, names) for cell in cells if {"setup", "exercise"} & builder.tags(cell)]
    assert [said for said in verdicts if said and not said.startswith("Right. ")] == []
    assert len([said for said in verdicts if said]) == len(stubs) >= 2


def test_it_follows_the_template(shipped, source: Path):
    text = prose(shipped)
    assert re.match(rf"# {source.stem[:2]} · .+\?\n", text), "the title is the number and one question"
    places = [text.index(word) for word in ("You will be able to", "**Time**", "## Setup", "**By hand**", "### Exercise 1",
                                            "## Quiz", "## Recap", "## Limits")]
    assert places == sorted(places)
    assert text.count("### Exercise") >= 2 and text.count("<details>") >= 3 and "**Predict first.**" in text
    objectives = numbered(text[places[0]:places[1]])
    assert len(objectives) >= 3 and numbered(text[places[-2]:places[-1]]) == objectives, "the recap answers each objective"


def _verdict(cell, names: dict) -> str:
    """Run a setup cell, or an exercise with its solution, in `names`; returns what the check said of the solution."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(cell.source, cell.source.partition("\n")[0], "exec"), names)
    return said.getvalue() if "exercise" in cell.metadata.get("tags", []) else ""

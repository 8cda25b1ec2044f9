"""The course as web pages: every notebook is there, with its pictures and readings, and no link leads nowhere."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

import debiaslib

FOLDER = Path(debiaslib.__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def book():
    spec = importlib.util.spec_from_file_location("book", FOLDER / "book.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["book"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(book, tmp_path_factory) -> dict[str, str]:
    written = book.write_book(FOLDER, tmp_path_factory.mktemp("book"))
    assert book.broken_links(written) == []
    return {page.stem: page.read_text(encoding="utf-8") for page in written}


def test_every_notebook_has_its_page_and_the_index_leads_there(pages):
    names = [path.stem for path in FOLDER.glob("[0-9][0-9]_*.ipynb")]
    assert {*names, "index", "glossary", "instructors"} == set(pages)
    assert [name for name in names if f'href="{name}.html"' not in pages["index"]] == []


def test_pictures_and_widgets_need_no_kernel(pages):
    page = pages["02_indicator_design"]
    assert page.count("data:image/png;base64") >= 5
    assert "share of men aimed at" in page, "the widget's static reading"


def test_every_picture_has_words(book, pages):
    assert [name for name, page in pages.items() if book.UNDESCRIBED in page] == []
    assert "Figure 1 of the section 3. Weights from a density" in pages["02_indicator_design"]


def test_a_picture_is_described_by_its_section_and_keeps_words_of_its_own(book):
    picture = f'<img alt="{book.UNDESCRIBED}"/>'
    first = f'<h2>1. Look<a href="#x">¶</a></h2>{picture}{picture}<img alt="mine"/>'
    page = book.described(first + '<h2>2. Count</h2><img src="x"/>')
    assert re.findall('alt="([^"]*)"', page) == [
        "Figure 1 of the section 1. Look", "Figure 2 of the section 1. Look", "mine", "Figure 1 of the section 2. Count"]


def test_links_that_lead_nowhere_are_found(book, tmp_path):
    here, there = tmp_path / "here.html", tmp_path / "there.html"
    here.write_text('<a href="there.html#end">x</a><a href="gone.html">y</a><a href="https://example.org/">z</a>')
    there.write_text('<p id="start"><a href="#start">top</a>')
    assert book.broken_links([here, there]) == ["here.html: there.html#end: no such place on that page", "here.html: gone.html: no such page"]


def test_links_between_notebooks_become_links_between_pages(book):
    assert book.relinked("[a](02_x.ipynb#y) [b](glossary.md) [c](https://example.org/a.md)") == \
        "[a](02_x.html#y) [b](glossary.html) [c](https://example.org/a.md)"


def numbers(text: str) -> str:
    """Written one way: 1,640 as 1640 and 0.41 as .41."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r"(?<![\d.])0(?=\.\d)", "", text))


def said_in(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
    shown += [text for cell in cells for output in cell.get("outputs", []) for kind, text in output.get("data", {}).items() if kind.startswith("text")]
    return "\n".join("".join(part) for part in [*(cell["source"] for cell in cells), *shown])


def forms(number: str) -> list[str]:
    """A figure as it is, and 13.7 % as .137 too."""
    return [number.removesuffix(" %"), *([f"{float(number[:-2]) / 100:.4f}".rstrip("0")[1:]] if number.endswith(" %") else [])]


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_the_figures_for_instructors_are_those_of_the_notebooks(notebook):
    """A notebook that is built anew may say something else: then the page for instructors must, too."""
    page = (FOLDER / "instructors.md").read_text(encoding="utf-8")
    part = next(part for part in re.split(r"\n(?=\*\*0\d · |## )", page) if part.startswith(f"**{notebook.stem[:2]} · "))
    named = [(FOLDER.parent / name).read_text(encoding="utf-8") for name in re.findall(r"`(data/\S+\.md)`", part)]
    known = numbers("\n".join([said_in(notebook), *named]))
    told = re.findall(r"(?<![\w.])\.\d+|\d+(?:\.\d+)? %|\d*\.\d+|\d{3,}", re.sub(r"\$[^$]*\$", "", numbers(part)))
    assert told and [number for number in told if not any(re.search(rf"(?<![\d.]){re.escape(form)}(?!\d)", known) for form in forms(number))] == []

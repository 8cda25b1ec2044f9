"""The course as web pages: `python notebooks/book.py [--out DIR]`. Nothing is run; outputs are those in the notebooks.

Each notebook becomes a page, with its pictures inside it, each with its place in words, and its widgets as the static
reading that they carry; glossary and instructors' page beside them, `index.html` in front. Then every link between the
pages is followed. nbconvert does the work: the pages need no build of their own, which is why this is no Jupyter Book.
Formulas are drawn by MathJax, which the reader's browser fetches. Exit codes: 0 all well, 1 a link leads nowhere.
"""

import argparse
import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html_mistune
from nbconvert.utils.base import NbConvertBase
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
UNDESCRIBED = "No description has been provided for this image"      # nbconvert's words where a picture has none
TITLE = "Bias in face generators: see it, measure it, reduce it"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>body{{font:17px/1.6 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse}}th,td{{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}}
a{{color:#0057a3}}.anchor-link{{display:none}}code{{background:#f4f4f4;padding:0 .2rem}}</style>
<script type="text/x-mathjax-config">MathJax.Hub.Config({{tex2jax:{{inlineMath:[["$","$"]]}}}})</script>
<script async src="{mathjax}"></script>{body}</html>"""


def write_book(folder: Path, out: Path) -> list[Path]:
    """Write the pages of the notebooks and the Markdown files in `folder` to `out`; returns them, the index first."""
    out.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(config=_static())
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    pages = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source)
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": heading(notebook)}})
        pages.append(_write(out / f"{path.stem}.html", described(body)))
    notes = [path for path in sorted(folder.glob("*.md")) if path.stem in ("glossary", "instructors")]
    for path in notes:
        text = path.read_text(encoding="utf-8")
        pages.append(_page(out / f"{path.stem}.html", path.stem, markdown2html_mistune(relinked(text))))
    return [_page(out / "index.html", TITLE, index(notebooks, notes)), *pages]


def index(notebooks: list[Path], notes: list[Path]) -> str:
    """The front page: a line a notebook, its question and its objectives."""
    rows = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        number, _, question = heading(notebook).partition(" · ")
        goals = re.findall(r"^\d+\. (.+?)[;.]?$", notebook.cells[0].source.replace("\n   ", " "), re.MULTILINE)
        rows.append(f'<tr><td>{number}</td><td><a href="{path.stem}.html">{html.escape(question)}</a><br>'
                    f"<small>{'; '.join(map(_inline, goals))}.</small></td></tr>")
    links = " · ".join(f'<a href="{path.stem}.html">{path.stem}</a>' for path in notes)
    return f"<h1>{TITLE}</h1><p>Read it here; to run it, get the kit. {links}</p><table>{''.join(rows)}</table>"


def heading(notebook: nbformat.NotebookNode) -> str:
    """A notebook's first heading, as in "03 · What does alpha do to training?"."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def relinked(text: str) -> str:
    """Links between notebooks and notes as links between pages."""
    return re.sub(r"\]\(([\w./-]+)\.(?:ipynb|md)(#[^)]*)?\)", lambda found: f"]({found[1]}.html{found[2] or ''})", text)


def described(page: str) -> str:
    """The page with an alternative text for each figure that has none: its number in its section, and the section's heading."""
    soup = BeautifulSoup(page, "html.parser")
    section, number = "", 0
    for element in soup.select("h1, h2, img"):
        if element.name != "img":
            section, number = element.get_text().rstrip("¶ "), 0
        elif element.get("alt", UNDESCRIBED) == UNDESCRIBED:
            number += 1
            element["alt"] = f"Figure {number} of the section {section}"
    return str(soup)


def broken_links(pages: list[Path]) -> list[str]:
    """Links from a page to a page or a place that is not there, a line each. Addresses on the web are not visited."""
    found = {page: _Links(page.read_text(encoding="utf-8")) for page in pages}
    problems = []
    for page, links in found.items():
        for target in links.targets:
            (name, _, place), quoted = unquote(target).partition("#"), target.partition("#")[2]
            there = page.parent / name if name else page
            if there not in found and not there.exists():
                problems.append(f"{page.name}: {target}: no such page")
            elif place and there in found and not {place, quoted} & found[there].places:
                problems.append(f"{page.name}: {target}: no such place on that page")
    return problems


class _Links(HTMLParser):
    """Where a page's links lead within the book, and the places that links can lead to."""

    def __init__(self, text: str):
        super().__init__()
        self.targets, self.places = [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places.update(filter(None, (given.get("id"), given.get("name"))))
        target = given.get("href") if tag == "a" else given.get("src") if tag == "img" else None
        if target and not re.match(r"[a-z]+:|//", target):
            self.targets.append(target)


def _static() -> Config:
    """Widgets show the plain HTML that they carry: there is no kernel behind a page."""
    config = Config()
    config.HTMLExporter.theme = "light"
    kinds = NbConvertBase().display_data_priority
    config.NbConvertBase.display_data_priority = [kind for kind in kinds if kind != WIDGET_VIEW]
    return config


def _inline(text: str) -> str:
    return re.sub(r"^<p>|</p>$", "", markdown2html_mistune(text).strip())


def _page(path: Path, title: str, body: str) -> Path:
    return _write(path, PAGE.format(title=html.escape(title), body=body, mathjax=HTMLExporter().mathjax_url))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Write the book and follow its links."""
    parser = argparse.ArgumentParser(prog="python notebooks/book.py", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE, help="holds the notebooks; default this file's folder")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs/book", help="default runs/book")
    args = parser.parse_args(arguments)
    pages = write_book(args.folder, args.out)
    problems = broken_links(pages)
    print("\n".join(problems) or f"{len(pages)} pages, every link between them leads somewhere: {pages[0]}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())

"""Build the notebooks: `python notebooks/build.py [NAME ...] [--check]`.

A notebook is written as py:percent text in `src`, its solutions inside. Building takes the solutions out, runs every cell
on one thread, looks for what does not belong in an output, and writes `NAME.ipynb` beside this file. With `--check` nothing
is written: a line a notebook says whether a rebuild would differ. Exit codes: 0 all well, 1 something differs or is amiss.

Cell tags that matter, and what an exercise looks like:
    setup                 run before an exercise whose solution is tested, so quick
    exercise              the lines from `# <solution>` to `# </solution>` become `answer = ...`
    solution              a whole cell that readers do not get
    nbval-ignore-output   not compared, with `reason="..."` beside it; at most one cell in ten
"""

import argparse
import json
import os
import re
import sys
import time
from copy import deepcopy
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
STUB = "answer = ..."
SOLUTION = re.compile(r"^# <solution>\n.*?^# </solution>$", re.MULTILINE | re.DOTALL)
MOST_LINES, MOST_IGNORED = 15, 0.1
IGNORE, FORBIDDEN_TAGS = "nbval-ignore-output", {"nbval-skip", "raises-exception"}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW, WIDGET_STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
# One thread, since two differ from one in the fourth decimal; as in tests/conftest.py, which nbval's kernels inherit.
KERNEL_ENVIRONMENT = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE")}
AMISS = {
    "a warning": re.compile(r"\b\w*Warning:"),
    "a machine path": re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work|usr|opt|var|mnt|private)/\w|\b[A-Z]:\\"
                                 r"|site-packages"),
    "a timestamp": re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d{1,2}:\d\d:\d\d\b"),
    "an object address": re.compile(r"\b0x[0-9a-fA-F]{6,}\b|<(?:function|bound method|built-in)"),
}


def convert(text: str, *, solutions: bool = False) -> NotebookNode:
    """The notebook of py:percent `text`, not run; without its solutions unless they are asked for.

    Cell ids are their places, so that the same text gives the same bytes. Raises ValueError where a solution's marks do
    not pair up, or an exercise has none.
    """
    notebook = jupytext.reads(text, fmt="py:percent")
    if not solutions:
        notebook.cells = [_stubbed(cell) for cell in notebook.cells if "solution" not in tags(cell)]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if not key.startswith("lines_to_")})
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode, *, folder: Path) -> NotebookNode:
    """The notebook with its outputs, run in `folder` from top to bottom; nothing in it tells when or where it was run."""
    ran = deepcopy(notebook)
    client = NotebookClient(ran, timeout=300, kernel_name="python3", record_timing=False, coalesce_streams=True,
                            extra_arguments=["--log-level=40"], resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | KERNEL_ENVIRONMENT)
    ran.metadata.get("language_info", {}).pop("version", None)
    for before, cell in zip(notebook.cells, ran.cells, strict=True):
        cell.metadata = before.metadata
    return _with_plain_widget_names(ran)


def source_problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook before it is run, a line each."""
    code = code_cells(notebook)
    found = []
    for number, cell in enumerate(code, start=1):
        lines = len(cell.source.splitlines())
        if lines > MOST_LINES:
            found.append(f"code cell {number} has {lines} lines, more than {MOST_LINES}")
        if FORBIDDEN_TAGS & tags(cell) or re.search(r"^\s*#+\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.MULTILINE):
            found.append(f"code cell {number} escapes the comparison: only the tag {IGNORE} with a reason may")
        if IGNORE in tags(cell) and len(str(cell.metadata.get("reason", "")).split()) < 4:
            found.append(f'code cell {number} is tagged {IGNORE} without a reason="..." of some words')
    count = sum(IGNORE in tags(cell) for cell in code)
    if count > MOST_IGNORED * len(code):
        found.append(f"{count} of {len(code)} code cells are not compared, more than one in ten")
    return found


def output_problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook that was run: cells not run or out of order, and outputs that do not belong."""
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        if cell.execution_count != number:
            found.append(f"code cell {number} has execution count {cell.execution_count}: run all, in order, once")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"code cell {number} ends in {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"code cell {number} writes to stderr: {output.text.strip()[:80]!r}")
        said = json.dumps(texts(cell), ensure_ascii=False).replace("\\\\", "\\")
        found += [f"code cell {number} shows {name}: {match[0]!r}" for name, pattern in AMISS.items()
                  if (match := pattern.search(said))]
    return found


def differences(old: NotebookNode, new: NotebookNode, *, outputs: bool = True) -> list[str]:
    """Where two notebooks differ: sources, tags and, if asked for, what was printed. Pictures are never compared."""
    if len(old.cells) != len(new.cells):
        return [f"{len(old.cells)} cells, and {len(new.cells)} after a rebuild"]
    found = []
    for number, (before, after) in enumerate(zip(old.cells, new.cells, strict=True)):
        if any(before.get(key) != after.get(key) for key in ("cell_type", "source", "metadata", "id")):
            found.append(f"cell {number} differs from its source")
        elif outputs and after.cell_type == "code" and IGNORE not in tags(after) and texts(before) != texts(after):
            found.append(f"cell {number} gives another output")
    return found


def texts(cell: NotebookNode) -> list[dict[str, str]]:
    """What a code cell printed and displayed, by kind; without pictures, and without widgets' random names."""
    shown = []
    for output in cell.outputs:
        data = {output.get("name", output.output_type): output.text} if "text" in output else output.get("data", {})
        kinds = [kind for kind in data if not kind.startswith("image/") and kind != WIDGET_VIEW]
        shown.append({kind: data[kind] for kind in kinds})
    return shown


def tags(cell: NotebookNode) -> set[str]:
    """A cell's tags."""
    return set(cell.metadata.get("tags", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """A notebook's code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def ignored_list(folder: Path) -> str:
    """A table of every cell whose output is not compared, with its reason: the content of `ignored.md`."""
    lines = ["# Cells whose output is not compared", "",
             "Written by `build.py`. Every other cell's output is checked by nbval.", "",
             "| notebook | code cell | reason |", "|---|---|---|"]
    for source in sorted((folder / "src").glob("*.py")):
        for number, cell in enumerate(code_cells(convert(source.read_text(encoding="utf-8"))), start=1):
            if IGNORE in tags(cell):
                lines.append(f"| {source.stem} | {number} | {cell.metadata.get('reason', '')} |")
    return "\n".join(lines) + "\n"


def build(source: Path, *, check: bool = False) -> list[str]:
    """Build the notebook of `src/NAME.py`, or with `check` only compare it; returns what is amiss, a line each."""
    target = source.parents[1] / f"{source.stem}.ipynb"
    try:
        notebook = convert(source.read_text(encoding="utf-8"))
        found = source_problems(notebook)
        if not found:
            notebook = execute(notebook, folder=target.parent)
            found = output_problems(notebook)
    except CellExecutionError as error:
        print(re.sub(r"\x1b\[[\d;]*m", "", error.traceback), file=sys.stderr)
        return [f"{error.ename}: {error.evalue}"]
    except (ValueError, CellTimeoutError, DeadKernelError) as error:
        return [" ".join(str(error).split())]
    if check and not found:
        found = differences(nbformat.read(target, as_version=4), notebook) if target.exists() else ["was never built"]
    elif not found:
        _write(target, nbformat.writes(notebook) + "\n")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Build or check the notebooks named, or all of them."""
    parser = argparse.ArgumentParser(prog="python notebooks/build.py", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 00_tour; default all")
    parser.add_argument("--check", action="store_true", help="write nothing, say what a rebuild would change")
    parser.add_argument("--folder", type=Path, default=HERE, help="holds src/ and the notebooks; default this file's folder")
    args = parser.parse_args(arguments)
    sources = sorted((args.folder / "src").glob("*.py"))
    unknown = set(args.names) - {source.stem for source in sources}
    if unknown:
        known = ", ".join(source.stem for source in sources)
        parser.error(f"no source {args.folder / 'src' / min(unknown)}.py. There are {known}.")
    amiss = False
    for source in sources:
        if args.names and source.stem not in args.names:
            continue
        began = time.perf_counter()
        found = build(source, check=args.check)
        amiss |= bool(found)
        outcome = "; ".join(found) or ("in step" if args.check else "built")
        print(f"{source.stem}: {outcome} ({time.perf_counter() - began:.0f} s)", flush=True)
    if not args.check:
        _write(args.folder / "ignored.md", ignored_list(args.folder))
    return int(amiss)


def _stubbed(cell: NotebookNode) -> NotebookNode:
    """The cell as readers get it."""
    if cell.cell_type != "code":
        return cell
    cell.source, count = SOLUTION.subn(STUB, cell.source)
    if "solution>" in cell.source or not count == cell.source.count(STUB) == ("exercise" in tags(cell)):
        first = cell.source.partition("\n")[0]
        raise ValueError(f"the cell {first!r}: an exercise holds one `# <solution>` and one `# </solution>`, none of its own "
                         f"`{STUB}`, and no other cell holds any")
    return cell


def _with_plain_widget_names(notebook: NotebookNode) -> NotebookNode:
    """Widgets numbered as they were made, in place of their random names."""
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    text = json.dumps(notebook)
    for number, name in enumerate(state):
        text = text.replace(name, f"{number:032x}")
    return nbformat.from_dict(json.loads(text))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())

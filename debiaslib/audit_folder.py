"""The folder of an audit: whose it is, and its tables, figures and summary, each written whole."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from debiaslib.atomic import replacing, write_whole
from debiaslib.errors import InputError

RECORD, SUMMARY = "audit.json", "summary.md"


def claim(out: Path, settings: dict, *, overwrite: bool) -> None:
    """Make `out` the folder of the audit of these settings; the same again continues, and one never finished gives way.

    Raises InputError when `out` holds a finished audit of other settings, or files of another kind, and `overwrite` is off.
    """
    record = out / RECORD
    found = json.loads(record.read_text())["settings"] if record.exists() else None
    strange = found is None and out.is_dir() and any(out.iterdir())
    finished = (out / SUMMARY).exists() and found != settings
    if (strange or finished) and not overwrite:
        holds = "other files" if strange else "an audit made with other settings"
        raise InputError(f"{out}: holds {holds}. Give another --out, or --overwrite.")
    if finished:
        (out / SUMMARY).unlink()  # what follows may be killed, and is then not finished
    write_whole(record, (json.dumps({"settings": settings}, indent=1) + "\n").encode())


def settings_of(args: argparse.Namespace) -> dict:
    """The options that decide what an audit says, as JSON can hold them."""
    options = {name: value for name, value in vars(args).items() if name not in ("out", "overwrite")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


def write_results(out: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Figure], summary: str) -> None:
    """`NAME.csv`, `NAME.png` and, last, `summary.md`, each whole or not at all; figures are closed."""
    for name, table in tables.items():
        write_whole(out / f"{name}.csv", table.round(5).to_csv(index=False).encode())
    for name, figure in figures.items():
        with replacing(out / f"{name}.png") as partial:
            figure.savefig(partial, format="png", dpi=120, bbox_inches="tight")
        plt.close(figure)
    write_whole(out / SUMMARY, summary.encode())

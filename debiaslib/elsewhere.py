"""Where nobody looked: a sweep's pictures read for other attributes: `python -m debiaslib.elsewhere SWEEP`.

An indicator that names no group acts on all of them. This reads every picture of every finished cell once more, for perceived
age (`older`: 40 and above) and apparent skin tone (`dark`: ITA below 10 degrees), and writes beside the sweep

    second_older.csv, second_dark.csv    the sweep's rows with that attribute in the place of gender, for `claims` and reports
    joint.csv                            the share of each combination of the three, and its distance to the training faces' own

Everything is perceived, and `dark` is the colour of cheeks in a picture, light included (see `attributes`).
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from debiaslib import sweep
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing
from debiaslib.attributes import ATTRIBUTES, AttributeJudge, BundledJudge
from debiaslib.fairness import fairness_discrepancy
from debiaslib.measure import open_pictures

SECOND = ("older", "dark")
COMBINATIONS = tuple("".join(f"{'+' if there else '-'}{name} " for name, there in zip(ATTRIBUTES, signs, strict=True)).strip()
                     for signs in itertools.product((False, True), repeat=len(ATTRIBUTES)))
"""Such as "+male -older +dark", in the order of a binary number."""


def read_elsewhere(out: Path, *, judge: AttributeJudge | None = None, progress: bool = True) -> dict[str, pd.DataFrame]:
    """Read the cells of the sweep in `out` and write the tables; returns them by name. Cells that were read are not read again.

    Raises InputError where `out` has no finished cell, or a cell's pictures are gone.
    """
    rows = sweep.finished_cells(out)
    judge = judge or BundledJudge()
    read = {cell: _scores(cell, judge) for cell in tqdm(rows, desc="elsewhere", disable=not progress)}
    tables = {f"second_{name}": pd.DataFrame([second_row(row, read[cell], name) for cell, row in rows.items()]) for name in SECOND}
    tables["joint"] = pd.DataFrame([_joint_row(row, read[cell]) for cell, row in rows.items()])
    for name, table in tables.items():
        with replacing(out / f"{name}.csv") as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    return tables


def second_row(row: dict, scores: pd.DataFrame, attribute: str) -> dict:
    """A sweep's row with `attribute` in the place of gender: `male_share` is the share that has it, of those decided.

    Corrected figures are left out: how this judge errs on these pictures was not measured.
    """
    seen = scores[attribute].dropna()
    share = float((seen > 0.5).mean()) if len(seen) else float("nan")
    gone = {name: None for name in row if name.startswith(("fd", "male_share_", "p_eff"))}
    return row | gone | {"attribute": attribute, "male_share": share, "abstained": len(scores) - len(seen), "fd": abs(share - 0.5)}


def joint_shares(scores: pd.DataFrame) -> np.ndarray:
    """The share of each of `COMBINATIONS`, (8,), among pictures that were decided on for all three attributes."""
    seen = (scores[list(ATTRIBUTES)].dropna() > 0.5).to_numpy()
    return np.bincount(seen @ (4, 2, 1), minlength=8) / max(1, len(seen))


def _joint_row(row: dict, scores: pd.DataFrame) -> dict:
    shares = joint_shares(scores)
    told = {name: row[name] for name in ("indicator", "ratio", "alpha", "seed", "n")}
    even = {"fd_even": fairness_discrepancy(shares), "least": shares.min(), "most": shares.max()}
    return told | even | dict(zip(COMBINATIONS, shares.tolist(), strict=True))


def _scores(cell: Path, judge: AttributeJudge) -> pd.DataFrame:
    kept = cell / "attributes.csv"
    if kept.exists():
        return pd.read_csv(kept)
    scores = judge.score(np.concatenate(list(open_pictures(cell / "samples"))))
    with replacing(kept) as partial:
        scores.to_csv(partial, index=False, float_format="%.5f")
    return scores


def main(arguments: list[str] | None = None) -> int:
    """Read a sweep for other attributes."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.elsewhere", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    args = parser.parse_args(arguments)
    tables = read_elsewhere(args.sweep, progress=sys.stderr.isatty())
    for name in SECOND:
        means = tables[f"second_{name}"].groupby(["ratio", "indicator", "alpha"])[["male_share", "abstained"]].mean()
        print(means.rename(columns={"male_share": f"share {name}"}).round(3).to_string(), end="\n\n")
    print(tables["joint"].groupby(["ratio", "indicator", "alpha"])[["fd_even", "least", "most"]].mean().round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(guarded("elsewhere", main))

"""How finely can a share of men be read at all? Several readers of the same pictures, and how much of their scatter is each one's own.

One reader x_i of many sets j says t_j + b_i + e_ij: the share that is there, an offset, and an error of its own that no number of pictures
takes away, for a model repeats its faces and a reader its mistakes about them. Nobody knows t_j; but in the difference of two
readers it cancels, and what is left scatters by s_i^2 + s_k^2. With three readers or more the s_i follow (Gray and Allan 1974, "A method
for estimating the frequency stability of an individual oscillator", the three-cornered hat). Errors that readers share stay
unseen, so each s_i is a lower bound.

`python -m debiaslib.resolution SWEEP` reads every finished cell's pictures with three judges and, where `unlabelled.csv` lies beside them, takes
the reading without labels as a fourth; it writes `resolution.csv` there.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from tqdm.auto import tqdm

from debiaslib import attributes, sweep
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing
from debiaslib.errors import InputError
from debiaslib.fairness import Interval
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.measure import open_pictures
from debiaslib.presets import one_thread
from debiaslib.two_judges import read_cell

KEY = ["indicator", "ratio", "alpha", "seed"]


def own_scatter(readings: pd.DataFrame, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
    """Each reader's own standard deviation, by name, from `readings` (sets, readers) of shares in [0, 1].

    Non-negative least squares on the variances of all differences, intervals by bootstrap over the sets. Raises InputError with
    fewer than three readers or eight sets, or a reading that is missing.
    """
    if readings.shape[1] < 3 or len(readings) < 8 or readings.isna().any(axis=None):
        raise InputError(f"readings of shape {readings.shape}: give three readers or more of eight sets or more, none missing.")
    rows, generator = readings.to_numpy(float), np.random.default_rng(seed)
    found = _scatter(rows)
    again = np.array([_scatter(rows[generator.integers(len(rows), size=len(rows))]) for _ in range(draws)])
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: Interval(*map(float, three), level, "n-cornered hat, bootstrap over sets", len(rows))
            for name, *three in zip(readings.columns, found, low, high, strict=True)}


def _scatter(rows: np.ndarray) -> np.ndarray:
    pairs = list(combinations(range(rows.shape[1]), 2))
    apart = np.array([np.var(rows[:, one] - rows[:, other], ddof=1) for one, other in pairs])
    design = np.array([[float(reader in pair) for reader in range(rows.shape[1])] for pair in pairs])
    return np.sqrt(nnls(design, apart)[0])


def fair_reading(own: float, *, pictures: int, recalls: float = 1.0) -> float:
    """The FD (tv, two classes) that a truly even model is read at on average: its share is counted in so many `pictures` and its
    reader errs by `own`; both are divided by `recalls`, a0 + a1 - 1, where FD is judge-corrected."""
    if pictures < 1 or not 0 < recalls <= 1 or own < 0:
        raise InputError(f"own {own:g}, pictures {pictures}, recalls {recalls:g}: give own >= 0, a picture or more, and recalls in (0, 1].")
    return float(np.sqrt(2 / np.pi * (0.25 / pictures + own**2)) / recalls)


def read_resolution(out: Path, *, progress: bool = True) -> pd.DataFrame:
    """The share of men in each finished cell of the sweep in `out`, by every reader; writes `resolution.csv`.

    A row a cell: indicator, ratio, alpha, seed, a column a judge, of the pictures that the first two decided on, and `unnamed`, the reading
    without labels held against its reference, if `unlabelled.csv` has one for every cell. Raises InputError where no cell is done.
    """
    soft, tuned = Judge(JudgeConfig(gender="soft", age=False)), attributes.get_judge("tuned", attributes=("male",))
    rows = [{name: row[name] for name in KEY} | _shares(cell, soft, tuned)
            for cell, row in tqdm(sweep.finished_cells(out).items(), desc="resolution", disable=not progress)]
    table = pd.DataFrame(rows)
    if (out / "unlabelled.csv").exists():
        blind = pd.read_csv(out / "unlabelled.csv")
        rarer = 0.5 + blind["in_drawn"] - blind["in_reference"]
        blind["unnamed"] = rarer.where(blind["ratio"] < 1, 1 - rarer)
        table = table.merge(blind[[*KEY, "unnamed"]], on=KEY, how="left").dropna(axis=1)
    with replacing(out / "resolution.csv") as whole:
        table.to_csv(whole, index=False, float_format="%.4f")
    return table


def _shares(cell: Path, soft: Judge, tuned: attributes.AttributeJudge) -> dict[str, float]:
    words = read_cell(cell, soft)
    decided = words.isin(["Man", "Woman"]).all(axis=1).to_numpy()
    pictures = np.concatenate(list(open_pictures(cell / "samples")))[decided]
    shares = (words[decided] == "Man").mean().rename({"first": "bundled", "second": "soft"})
    return shares.to_dict() | {"tuned": float((tuned.score(pictures)["male"] > 0.5).mean())}


def main(arguments: list[str] | None = None) -> int:
    """Read a sweep with every reader, and tell how far each errs by itself."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.resolution", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    args = parser.parse_args(arguments)
    with one_thread():
        table = read_resolution(args.sweep, progress=sys.stderr.isatty())
    readers = table.drop(columns=KEY)
    print(readers.describe().loc[["mean", "std"]].round(3).to_string())
    for name, own in own_scatter(readers).items():
        print(f"{name}: errs by {own.estimate:.3f} [{own.low:.3f}, {own.high:.3f}] of its own, {len(readers)} trainings")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("resolution", main))

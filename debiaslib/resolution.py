"""How finely can a share of men be read at all? Several readers of the same pictures, and how far each errs by itself.

Of set j reader i says x_ij = t_j + b_i + e_ij: the share that is there, the reader's offset, and its error in this set. A model repeats
its faces and a reader its mistakes about them, so that more pictures do not take it away. Nobody knows t_j; but in the difference of
two readers it cancels, and what is left scatters by s_i^2 + s_k^2. With three readers or more the s_i follow (Gray and Allan 1974, "A
method for estimating the frequency stability of an individual oscillator", the three-cornered hat). Errors that all readers share stay
unseen, and what some of them share makes these look better and is charged to the others.

`python -m debiaslib.resolution SWEEP` has three judges read every finished cell, and, where the sweep had a --reference and its training faces
were not even, the unnamed groups of `unlabelled` as a fourth; it writes `resolution.csv` there.
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
from debiaslib.controls import read_sweep
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.measure import open_pictures
from debiaslib.presets import Preset, get_preset, one_thread
from debiaslib.rarity import even_shares
from debiaslib.two_judges import read_cell
from debiaslib.unlabelled import embedded, groups_of


def own_scatter(readings: pd.DataFrame, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
    """Each reader's own standard deviation, by name, from `readings` (sets, readers) of shares in [0, 1]; each set counted once.

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


def fair_reading(own: float, *, pictures: int, confusion: Confusion) -> float:
    """The judge-corrected FD (tv, two classes) at which a truly even model is read on average, if the judge's offset is known.

    `own` is the judge's own scatter over sets of so many `pictures`. Part of it are mistakes about single pictures, which are in the count
    already: a share of 1/2 is counted with variance 1 / (4 n), mistakes included. Raises InputError for a negative scatter or no picture.
    """
    if pictures < 1 or own < 0:
        raise InputError(f"own {own:g}, pictures {pictures}: give own >= 0 and a picture or more.")
    wrong = np.mean([1 - confusion.recall_men, 1 - confusion.recall_women])
    beyond = max(0.0, own**2 - wrong * (1 - wrong) / pictures)
    return float(np.sqrt(2 / np.pi * (0.25 / pictures + beyond)) / (1 - 2 * wrong))


def shared_chance(decisions: pd.DataFrame) -> float:
    """How alike models draw that start from the same noise: the mean correlation of `decisions` (pictures, models) over pairs of them.

    1 is a man, 0 a woman, NaN neither; row i is what became of the same start. Shares of n pictures then err together by
    sqrt(this / (4 n)) near one half, which the scatter between such models does not show. Raises InputError with fewer than two models.
    """
    told = decisions.loc[:, decisions.nunique() > 1]  # a model of one gender alone has no correlation
    if told.shape[1] < 2:
        raise InputError(f"decisions of {told.shape[1]} model: give two or more, drawn from the same sampling seeds.")
    return float(np.nanmean(told.corr().to_numpy()[np.triu_indices(told.shape[1], 1)]))


def read_decisions(out: Path) -> list[pd.DataFrame]:
    """What the sweep's own judge said of every picture, a table (pictures, cells) a training seed that has two different models."""
    by_seed = {}
    for cell, row in sweep.finished_cells(out).items():
        words = pd.read_csv(cell / "judged.csv", keep_default_na=False)["perceived"]
        by_seed.setdefault(row["seed"], {})[cell.name] = words.map({"Man": 1.0, "Woman": 0.0})
    models = [pd.DataFrame(found).T.drop_duplicates().T for found in by_seed.values()]  # alpha 0 is one training, whatever the indicator
    return [found for found in models if found.shape[1] > 1]


def read_resolution(out: Path, *, progress: bool = True) -> pd.DataFrame:
    """The share of men in each finished cell of the sweep in `out`, by every reader; writes `resolution.csv`.

    A row a cell: indicator, ratio, alpha, seed, and of the pictures that the first two judges decided on a column a judge and `unnamed`, the
    same by the unnamed groups, moved so that what `rarity.even_shares` calls even is one half (empty where there was no reference, or
    the training faces were even). Cells that were read are not read again. Raises InputError where no cell is done.
    """
    soft, tuned = Judge(JudgeConfig(gender="soft", age=False)), attributes.get_judge("tuned", attributes=("male",))
    cells, rows, (name, config) = sweep.finished_cells(out), [], read_sweep(out)
    for cell, row in tqdm(cells.items(), desc="resolution", disable=not progress):
        words = read_cell(cell, soft)
        decided = words.isin(["Man", "Woman"]).all(axis=1).to_numpy()
        said = (words[decided] == "Man").mean().rename({"first": "bundled", "second": "soft"}).to_dict()
        rows.append(sweep.key_of(row) | said | {"tuned": (_tuned(cell, tuned)[decided] > 0.5).mean(),
                                                                "unnamed": _unnamed(get_preset(name), config, cell, row, decided)})
    table = pd.DataFrame(rows)
    with replacing(out / "resolution.csv") as whole:
        table.to_csv(whole, index=False, float_format="%.4f")
    return table


def _tuned(cell: Path, judge: attributes.AttributeJudge) -> np.ndarray:
    """The tuned judge's chance of a man in each picture, (n,), kept in the cell."""
    kept = cell / "tuned.csv"
    if not kept.exists():
        scores = judge.score(np.concatenate(list(open_pictures(cell / "samples"))))
        with replacing(kept) as whole:
            scores[["male"]].to_csv(whole, index=False, float_format="%.5f")
    return pd.read_csv(kept)["male"].to_numpy()


def _unnamed(preset: Preset, config: sweep.SweepConfig, cell: Path, row: dict, decided: np.ndarray) -> float:
    if config.reference is None or row["ratio"] == 1:
        return float("nan")
    found, training, reference = groups_of(preset, config, row["ratio"], row["seed"])
    drawn = found.proportions(embedded(cell, count=len(decided), size=preset.image_size)[decided])
    rarer = 0.5 + (drawn - even_shares(reference, count=config.reference_size))[training.argmin()]
    return float(rarer if row["ratio"] < 1 else 1 - rarer)


def main(arguments: list[str] | None = None) -> int:
    """Read a sweep with every reader, and tell how far each errs by itself."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.resolution", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    args = parser.parse_args(arguments)
    with one_thread():
        table = read_resolution(args.sweep, progress=sys.stderr.isatty())
    readers = table.drop(columns=list(sweep.KEY)).drop_duplicates()  # alpha 0 of two indicators is one training
    readers = readers.dropna(axis=1) if readers["unnamed"].isna().all() else readers.dropna()
    print(f"{readers.describe().loc[['mean', 'std']].round(3).to_string()}\n{len(readers)} of {len(table)} rows, which every reader has read")
    if alike := [shared_chance(decisions) for decisions in read_decisions(args.sweep)]:
        print(f"two models that start from the same noise: what they make of it correlates {np.mean(alike):.2f} ({len(alike)} training seeds)")
    for name, own in own_scatter(readers).items():
        print(f"{name}: errs by {own.estimate:.3f} [{own.low:.3f}, {own.high:.3f}] of its own")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("resolution", main))

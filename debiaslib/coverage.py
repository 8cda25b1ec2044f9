"""How often the intervals hold the truth: simulated populations, judges of known error, on a grid of n and of shares.

`python -m debiaslib.coverage --out DIR` writes the grid as `coverage.csv`, what made it as `coverage.json` beside it, and
the figure. Wilson's interval and its fold are enumerated, no chance left; the others are simulated, and their coverage has
an interval of its own. The tests run the same experiments, a few points of the grid each.
"""

import argparse
import functools
import hashlib
import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from tqdm.auto import tqdm

from debiaslib import fairness, fairness_report
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval

SIZES = 50, 200, 800, 5000
SHARES = .02, .1, .3, .45, .5, .7, .9, .98
PAIRS = (.5, .5), (.5, .6), (.3, .4), (.1, .3), (.3, .7), (.36, .58), (.02, .1), (.98, .98)
"""Of two models: both fair, one fair, on one side of parity, on both, near the ends."""
JUDGES = (.8, .9), (.65, .75)
"""Recalls of men and of women: about those of the shipped judge on soft faces, and a poor one."""
AUDITED = 450
"""Labelled faces of each gender that the judge's recalls were counted on."""
SPREAD = .03
"""Standard deviation of the true share between trainings."""
CLASSES_JUDGE = np.array([[.85, .1, .05], [.1, .8, .1], [.02, .08, .9]])
"""How a judge of three classes reads: a row a true class."""
NOMINAL = .95
CASE = ("interval", "n", "share", "other", "recall_men", "recall_women")
COLUMNS = (*CASE, "repeats", "covered", "low", "high", "nominal", "bias", "bias_se")


@dataclass(frozen=True)
class Case:
    """Samples of `n` decided pictures from populations of these true shares of men, read without error or with `recalls`."""

    n: int
    shares: tuple[float, ...]
    recalls: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trials:
    """`intervals`, a row a sample, a column each of `truths`; `chance` (samples,) of each where all are enumerated."""

    truths: tuple[float, ...]
    intervals: Sequence[Sequence[Interval]]
    chance: np.ndarray | None = None


@dataclass(frozen=True)
class Experiment:
    """`run(case, repeats=, draws=, generator=)` tries the intervals of these `names`, on a grid of `shares` and `judges`."""

    names: tuple[str, ...]
    run: Callable[..., Trials]
    shares: tuple[tuple[float, ...], ...] = tuple((share,) for share in SHARES)
    judges: tuple[tuple[float, float] | None, ...] = (None,)

    def cases(self) -> Iterator[Case]:
        """Every point of its grid."""
        return (Case(n, shares, judge) for judge in self.judges for n in SIZES for shares in self.shares)


def one_share(case: Case, **_) -> Trials:
    """Wilson's interval and FD's, of all counts that hold all but 1e-6 of the binomial."""
    n, (share,) = case.n, case.shares
    counts = np.arange(stats.binom.ppf(5e-7, n, share), stats.binom.ppf(1 - 5e-7, n, share) + 1).astype(int)
    chance = stats.binom.pmf(counts, n, share)
    intervals = [(_wilson(int(k), n), fairness.discrepancy_interval([k, n - k])) for k in counts]
    return Trials((share, abs(share - .5)), intervals, chance / chance.sum())


def corrected_share(case: Case, *, repeats: int, draws: int, generator: np.random.Generator) -> Trials:
    """The share and FD with the judge's error taken out, the judge audited anew each time."""
    share, intervals = case.shares[0], []
    for seed, men in enumerate(generator.binomial(case.n, read_share(share, case.recalls), repeats)):
        read = men, case.n, audit(generator, case.recalls)
        intervals.append([of(*read, draws=draws, seed=seed)
                          for of in (fairness.corrected_share_interval, fairness.corrected_discrepancy)])
    return Trials((share, abs(share - .5)), intervals)


def unpaired(case: Case, *, repeats: int, generator: np.random.Generator, **_) -> Trials:
    """The difference of two models' FD, and of their shares, from Wilson's intervals."""
    pairs = [[_wilson(int(k), case.n) for k in row] for row in generator.binomial(case.n, case.shares, (repeats, 2))]
    return Trials((_fd_difference(case.shares), case.shares[0] - case.shares[1]),
                  [(fairness.discrepancy_difference(*pair), fairness.amplification_interval(*pair)) for pair in pairs])


def one_judge(case: Case, *, repeats: int, draws: int, generator: np.random.Generator) -> Trials:
    """The difference of two models' FD, read by one judge whose error is taken out: across .5 its errors add up."""
    read = generator.binomial(case.n, [read_share(share, case.recalls) for share in case.shares], (repeats, 2))
    intervals = []
    for seed, row in enumerate(read):
        judge, pair = audit(generator, case.recalls), [(men, case.n) for men in row]
        intervals.append([fairness.corrected_difference(*pair, judge, draws=draws, seed=seed)])
    return Trials((_fd_difference(case.shares),), intervals)


def paired(case: Case, *, repeats: int, draws: int, generator: np.random.Generator) -> Trials:
    """The difference of two models' FD with the same seeds: every other picture comes from the same chance in both."""
    intervals = []
    for seed in range(repeats):
        first, fresh = generator.random((2, case.n))
        second = np.where(generator.random(case.n) < .5, first, fresh)
        words = (np.where(x < share, "Man", "Woman").tolist() for x, share in zip((first, second), case.shares, strict=True))
        intervals.append([fairness.paired_difference(*words, draws=draws, seed=seed)])
    return Trials((_fd_difference(case.shares),), intervals)


def trainings(case: Case, *, repeats: int, draws: int, generator: np.random.Generator, seeds: int = 3) -> Trials:
    """The mean share and the mean FD over training seeds, whose true shares scatter about the case's by `SPREAD`."""
    quantiles = stats.norm.ppf((np.arange(20_000) + .5) / 20_000)
    truths, intervals = np.clip(case.shares[0] + SPREAD * quantiles, 0, 1), []
    for seed in range(repeats):
        true = np.clip(case.shares[0] + SPREAD * generator.standard_normal(seeds), 0, 1)
        judge = audit(generator, case.recalls) if case.recalls else None
        runs = [(int(men), case.n) for men in generator.binomial(case.n, read_share(true, case.recalls))]
        intervals.append([fairness_report.mean_over_seeds(runs, quantity=what, confusion=judge, draws=draws, seed=seed)
                          for what in ("share", "fd")])
    return Trials((float(truths.mean()), float(np.abs(truths - .5).mean())), intervals)


def three_classes(case: Case, *, repeats: int, draws: int, generator: np.random.Generator) -> Trials:
    """The share of the first of three classes and their FD, a judge's error taken out; `shares` are all three."""
    shares, intervals = np.array(case.shares), []
    for seed, counts in enumerate(generator.multinomial(case.n, shares @ CLASSES_JUDGE, repeats)):
        read = counts, np.stack([generator.multinomial(AUDITED, row) for row in CLASSES_JUDGE])
        first = fairness.corrected_share_intervals(*read, draws=draws, seed=seed)[0]
        intervals.append((first, fairness.corrected_discrepancy_interval(*read, draws=draws, seed=seed)))
    return Trials((case.shares[0], fairness.fairness_discrepancy(shares)), intervals)


EXPERIMENTS: dict[str, Experiment] = {
    "one_share": Experiment(("share", "FD"), one_share),
    "corrected_share": Experiment(("corrected share", "corrected FD"), corrected_share, judges=JUDGES),
    "unpaired": Experiment(("FD difference", "share difference"), unpaired, PAIRS),
    "paired": Experiment(("paired FD difference",), paired, PAIRS),
    "one_judge": Experiment(("corrected FD difference",), one_judge, PAIRS, JUDGES[:1]),
    "trainings_3": Experiment(("share of 3 trainings", "FD of 3 trainings"), trainings, judges=(None, JUDGES[0])),
    "trainings_5": Experiment(("share of 5 trainings", "FD of 5 trainings"), functools.partial(trainings, seeds=5),
                              judges=(None, JUDGES[0])),
    "three_classes": Experiment(("corrected share of three", "corrected FD of three"), three_classes,
                                ((1 / 3, 1 / 3, 1 / 3), (.6, .3, .1), (.9, .1, 0.)))}
"""What can be tried, by name. A further interval is a function that returns `Trials`, entered here."""


def audit(generator: np.random.Generator, recalls: tuple[float, float], n: int = AUDITED) -> Confusion:
    """A judge of these recalls, as `n` labelled faces of each gender show it."""
    men, women = (int(generator.binomial(n, recall)) for recall in recalls)
    return Confusion(men_read_man=men, men_read_woman=n - men, women_read_man=n - women, women_read_woman=women)


def read_share(share: float | np.ndarray, recalls: tuple[float, float] | None) -> float | np.ndarray:
    """The share that a judge of these recalls reads as men, where `share` are; without recalls, the share itself."""
    return share if recalls is None else share * recalls[0] + (1 - share) * (1 - recalls[1])


def holds(interval: Interval, truth: float) -> bool:
    """Whether the interval holds the truth, to rounding."""
    return interval.low - 1e-9 <= truth <= interval.high + 1e-9


def try_case(name: str, case: Case, *, repeats: int, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One point of an experiment's grid: a row an interval, the columns of `grid`."""
    generator = np.random.default_rng([seed, case.n, *(round(1000 * share) for share in case.shares)])
    trials = EXPERIMENTS[name].run(case, repeats=repeats, draws=draws, generator=generator)
    shares = (*case.shares, np.nan)[:2]
    rows = []
    for index, (interval, truth) in enumerate(zip(EXPERIMENTS[name].names, trials.truths, strict=True)):
        found = [row[index] for row in trials.intervals]
        figures = _figures([holds(one, truth) for one in found], [one.estimate - truth for one in found], trials.chance)
        rows.append((interval, case.n, *shares, *(case.recalls or (np.nan, np.nan)), *figures))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def grid(names: Sequence[str] = (), *, repeats: int = 1000, draws: int = 2000, seed: int = 0,
         progress: bool = False) -> pd.DataFrame:
    """The experiments of those names (by default all) on their whole grids: a row a case and interval.

    Columns: interval, n, share, other (the second model's or class's share), recall_men and recall_women of the judge (empty
    where nobody misreads), repeats (0: enumerated), covered in [0, 1] with its Monte Carlo interval low and high (Wilson's
    at .95), nominal, bias (mean estimate less truth) and bias_se, its standard error. `draws` is the intervals' own number
    of random draws. Raises InputError on an unknown name, or fewer than two repeats.
    """
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise InputError(f"experiment {unknown[0]!r}: unknown. Choose among {', '.join(EXPERIMENTS)}.")
    if repeats < 2 or draws < 2:
        raise InputError(f"{repeats} repeats of {draws} draws: give two or more of both.")
    cases = [(name, case) for name in names or EXPERIMENTS for case in EXPERIMENTS[name].cases()]
    return pd.concat([try_case(name, case, repeats=repeats, draws=draws, seed=seed)
                      for name, case in tqdm(cases, unit="case", disable=not progress)], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row an interval and judge: cases, mean coverage, the least with its n and share, cases surely below and above.

    Surely: the coverage's own interval lies on one side of nominal, which of cases exactly at nominal 1 in 40 does.
    """
    rows = []
    for key, part in table.groupby(["interval", "recall_men"], sort=False, dropna=False):
        least = part.loc[part["covered"].idxmin()]
        rows.append((*key, len(part), part["covered"].mean(), *least[["covered", "n", "share"]],
                     (part["high"] < part["nominal"] - 1e-9).sum(), (part["low"] > part["nominal"] + 1e-9).sum()))
    return pd.DataFrame(rows, columns=["interval", "recall_men", "cases", "mean", "least", "n", "share", "below", "above"])


def figure(table: pd.DataFrame) -> Figure:
    """Coverage against share: a row of panels an interval, a column an n, a colour a judge; the dashed line is nominal."""
    judges = ["no judge (or that of three classes)" if men != men else f"recalls {men:g}, {women:g}"
              for men, women in zip(table["recall_men"], table["recall_women"], strict=True)]
    at = [f"{share:.2g}" if other != other else f"{share:.2g}, {other:.2g}"
          for share, other in zip(table["share"], table["other"], strict=True)]
    shown, colours = table.assign(judge=judges, at=at), dict(zip(dict.fromkeys(judges), sns.color_palette("colorblind"),
                                                                       strict=False))
    names, sizes = [*dict.fromkeys(table["interval"])], sorted({*table["n"]})
    drawn, axes = plt.subplots(len(names), len(sizes), squeeze=False, sharey=True, sharex="row", layout="constrained",
                               figsize=(2.4 * len(sizes) + 0.8, 1.4 * len(names) + 0.8))
    for line, name in zip(axes, names, strict=True):
        line[0].set_ylabel(textwrap.fill(name, 16), fontsize=7)
        for axis, n in zip(line, sizes, strict=True):
            _draw_points(axis, shown[(shown["interval"] == name) & (shown["n"] == n)], colours)
    for axis, n in zip(axes[0], sizes, strict=True):
        axis.set_title(f"n = {n}", fontsize=8)
    handles = {name: handle for axis in drawn.axes
               for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawn.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False,
                 title="coverage against the true share (of both models), with its own 95 % interval", title_fontsize=8)
    sns.despine(drawn)
    return drawn


def write(table: pd.DataFrame, out: Path, *, settings: dict, overwrite: bool = False) -> None:
    """`coverage.csv`, `coverage.json` (what made it) and `coverage.png` into the folder `out`.

    Raises InputError where a table lies there already, unless `overwrite`.
    """
    path = out / "coverage.csv"
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already. Choose another --out, or give --overwrite.")
    data, picture = table.to_csv(index=False, float_format="%.5g").encode(), io.BytesIO()
    drawn = figure(table)
    drawn.savefig(picture, format="png", dpi=80)
    plt.close(drawn)
    grids = {"sizes": SIZES, "shares": SHARES, "pairs": PAIRS, "judges": JUDGES, "audited": AUDITED, "spread": SPREAD}
    beside = {"command": "python -m debiaslib.coverage", "settings": settings | grids,
              "sha256": hashlib.sha256(data).hexdigest(),
              "versions": {name: version(name) for name in ("numpy", "scipy", "statsmodels")}}
    write_whole(path, data)
    write_whole(out / "coverage.json", (json.dumps(beside, indent=1) + "\n").encode())
    write_whole(out / "coverage.png", picture.getvalue())


@functools.cache
def _wilson(k: int, n: int) -> Interval:
    return fairness.share_interval(k, n)


def _fd_difference(shares: tuple[float, ...]) -> float:
    return abs(shares[0] - .5) - abs(shares[1] - .5)


def _figures(held: Sequence[bool], off: Sequence[float], chance: np.ndarray | None) -> tuple[float, ...]:
    """The columns from repeats to bias_se."""
    if chance is not None:
        covered = float(chance @ held)
        return 0, covered, covered, covered, NOMINAL, float(chance @ off), 0.0
    covered = fairness.share_interval(int(np.sum(held)), len(held))
    return (len(held), covered.estimate, covered.low, covered.high, NOMINAL, float(np.mean(off)),
            float(np.std(off, ddof=1) / np.sqrt(len(off))))


def _draw_points(axis: Axes, cases: pd.DataFrame, colours: dict[str, tuple]) -> None:
    axis.axhline(NOMINAL, color="0.4", linewidth=0.8, linestyle="--")
    axis.tick_params(axis="both", labelsize=6)
    axis.tick_params(axis="x", labelrotation=40)
    for judge, part in cases.groupby("judge", sort=False):
        errors = np.clip([part["covered"] - part["low"], part["high"] - part["covered"]], 0, None)
        axis.errorbar(part["at"], part["covered"], yerr=errors, fmt="o", markersize=3, color=colours[judge], label=judge)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m debiaslib.coverage`; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.coverage",
                                     description="How often the intervals hold the truth, in simulation.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where coverage.csv goes")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"some of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--repeats", type=int, default=1000, metavar="N", help="samples a case; default %(default)s")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="of each interval; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="also where a table lies already")
    args = parser.parse_args(argv)
    settings = {"repeats": args.repeats, "draws": args.draws, "seed": args.seed}
    table = grid(args.only, **settings, progress=True)
    write(table, args.out, settings=settings | {"experiments": args.only or [*EXPERIMENTS]}, overwrite=args.overwrite)
    print(summary(table).to_string(index=False, float_format="%.3f", na_rep=""))
    return 0


if __name__ == "__main__":
    from debiaslib.__main__ import guarded

    sys.exit(guarded("coverage", main))

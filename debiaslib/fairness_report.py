"""Fairness of more than one thing at once: several attributes, several training runs, and a report that prints itself.

One training run is one draw: another seed gives another share. What a method does is told by several runs, and its doubt
has three parts: the runs differ, each is known from a sample of pictures only, and the judge's own errors are known from a
sample of labelled faces. `mean_over_seeds` and `reduction_over_seeds` carry all three. A *run* is, for every function here,
the judge's decisions picture by picture ("Man", "Woman", or "" for an abstention), or the two counts (men read, decided).
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from debiaslib import fairness
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval

Run = Sequence[str] | tuple[float, float]


@dataclass(frozen=True)
class FairnessReport:
    """All that one sample says of one attribute; made by `fairness_report`, shown by a notebook as a table.

    `shares`, and `corrected_shares` where the judge's confusion is known, hold an interval a class; `fd` and `corrected_fd`
    the discrepancy; `null_band` what a fair model's FD stays below in a share `level` of samples of this size.
    """

    classes: tuple[str, ...]
    counts: tuple[float, ...]
    abstained: int
    target: tuple[float, ...]
    norm: str
    level: float
    shares: tuple[Interval, ...]
    fd: Interval
    null_band: float
    corrected_shares: tuple[Interval, ...] | None = None
    corrected_fd: Interval | None = None

    @classmethod
    def from_decisions(cls, decisions: Sequence[str], classes: Sequence[str] = ("Man", "Woman"),
                       **options) -> "FairnessReport":
        """The report of a judge's decisions, "" an abstention; `options` are `fairness_report`'s."""
        counts = fairness.count_classes(decisions, classes)
        return fairness_report(counts, classes=classes, abstained=len(decisions) - int(counts.sum()), **options)

    @property
    def decided(self) -> float:
        return sum(self.counts)

    @property
    def n(self) -> float:
        """Pictures judged, decided or not."""
        return self.decided + self.abstained

    def frame(self) -> pd.DataFrame:
        """Tidy: `measure, label, n, target, estimate, low, high, method`, one row a figure."""
        per_class = list(zip(self.classes, self.counts, self.target, strict=True))
        rows = [("share", *known, share) for known, share in zip(per_class, self.shares, strict=True)]
        rows += [("corrected share", *known, share)
                 for known, share in zip(per_class, self.corrected_shares or (), strict=bool(self.corrected_shares))]
        whole = ("", self.decided, 0.0)  # FD measures the distance to the target: the wanted distance is 0
        rows += [(name, *whole, fd) for name, fd in (("fd", self.fd), ("corrected fd", self.corrected_fd)) if fd]
        return pd.DataFrame([(*known, i.estimate, i.low, i.high, i.method) for *known, i in rows],
                            columns=["measure", "label", "n", "target", "estimate", "low", "high", "method"])

    def __str__(self) -> str:
        width = max(map(len, self.classes)) + 2
        lines = [f"{row.measure:<17}{row.label:<{width}}{_spread(row)}" for row in self.frame().itertuples()]
        return "\n".join([self._headline(), *lines, self._verdict()])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in ("measure", "class", "count", "target", "estimate"))
        rows = "".join(f'<tr><th scope="row">{row.measure}</th><td>{html.escape(row.label)}</td><td>{row.n:g}</td>'
                       f"<td>{row.target:.3g}</td><td>{_spread(row)}</td></tr>" for row in self.frame().itertuples())
        return (f"<table><caption>{html.escape(self._headline())}</caption><thead><tr>{head}</tr></thead>"
                f"<tbody>{rows}</tbody></table><p>{html.escape(self._verdict())}</p>")

    def _headline(self) -> str:
        return (f"{self.n:g} pictures, {self.decided:g} decided, {self.abstained} abstained; FD norm {self.norm}, intervals "
                f"at {self.level:g}, classes as perceived")

    def _verdict(self) -> str:
        place = "inside" if self.fd.estimate <= self.null_band else "outside"
        return (f"FD {self.fd.estimate:.3f} is {place} the null band: a fair model stays at or below {self.null_band:.3f} "
                f"in {self.level:.0%} of samples of this size.")


@dataclass(frozen=True)
class Equivalence:
    """Whether a mean share over training runs is as good as the target: two one-sided tests (TOST, Schuirmann 1987).

    `interval` is the mean share's at level 1 - 2 * .05 = .90, `equivalent` whether it lies within `target` +- `margin`.
    """

    interval: Interval
    target: float
    margin: float

    @property
    def equivalent(self) -> bool:
        return self.target - self.margin < self.interval.low and self.interval.high < self.target + self.margin

    def __str__(self) -> str:
        low, high = self.target - self.margin, self.target + self.margin
        verdict = "lies within" if self.equivalent else "is not shown to lie within"
        share = self.interval
        return (f"mean share {share.estimate:.3f} [{share.low:.3f}, {share.high:.3f}] over {share.n} runs {verdict} "
                f"{low:.3f} to {high:.3f}")


@dataclass(frozen=True)
class Trend:
    """How FD moves along alpha: the mean `slope` a unit of alpha, and the one-sided `p_falling` that nothing falls."""

    slope: Interval
    p_falling: float


class _Figures(NamedTuple):
    """What runs show: each one's share less the target, `point` (S,) and over `draws` (D or 1, S) of the judge's recalls;
    the sampling `variance` (S,); every picture's `marks` (S, n) on its run's share, None where only counts are known."""

    point: np.ndarray
    draws: np.ndarray
    variance: np.ndarray
    marks: np.ndarray | None

    @property
    def side(self) -> int:
        """The side of the target on which the mean lies."""
        return -1 if self.point.mean() < 0 else 1


def fairness_report(counts: Sequence[float], *, classes: Sequence[str] = ("Man", "Woman"), abstained: int = 0,
                    target: Sequence[float] | None = None, norm: str = "tv",
                    confusion: Confusion | Sequence[Sequence[float]] | None = None, level: float = 0.95) -> FairnessReport:
    """The report of one sample from its `counts` (K,), hard or soft, of `classes` (decisions: `fairness.count_classes`).

    `abstained` pictures are told, and count nowhere else. `confusion`: a `Confusion`, or (K, K) counts, a row a true class.
    """
    fairness._places(classes)
    counts = fairness._counts(counts)
    if len(counts) != len(classes) or abstained < 0:
        raise InputError(f"{len(counts)} counts of {len(classes)} classes, {abstained} abstained: give one count a class, "
                         "in order, and abstentions of at least 0.")
    wanted, n = fairness._target(target, len(counts)), float(counts.sum())
    corrected = {} if confusion is None else {
        "corrected_shares": fairness.corrected_share_intervals(counts, confusion, level=level),
        "corrected_fd": fairness.corrected_discrepancy_interval(counts, confusion, target=wanted, norm=norm, level=level)}
    return FairnessReport(tuple(classes), tuple(counts.tolist()), abstained, tuple(wanted.tolist()), norm, level,
                          tuple(fairness.share_interval(k, n, level=level) for k in counts.tolist()),
                          fairness.discrepancy_interval(counts, target=wanted, norm=norm, level=level),
                          fairness.null_band(round(n), target=wanted, norm=norm, level=level), **corrected)


def joint_counts(decisions: pd.DataFrame, classes: Mapping[str, Sequence[str]]) -> pd.Series:
    """The contingency table of several attributes: how often each combination occurs, 0 where it never does.

    `decisions` holds a row a picture and a column an attribute, `classes` each attribute's classes. A picture on which the
    judge abstained ("") in any attribute counts nowhere. Index: one level an attribute. Raises InputError on other words.
    """
    cells = pd.MultiIndex.from_product(classes.values(), names=list(classes))
    missing = [name for name in classes if name not in decisions]
    if missing or len(classes) < 2:
        raise InputError(f"no column {', '.join(missing) or 'to combine'}: name two attributes at least.")
    for name, words in classes.items():
        fairness._check_words(decisions[name], fairness._places(words))
    return decisions.groupby(list(classes), observed=True).size().reindex(cells, fill_value=0).rename("n")


def subgroup_shares(counts: pd.Series, *, target: pd.Series | None = None, level: float = 0.95) -> pd.DataFrame:
    """The subgroups behind `joint_measures`: one row a combination, its `n`, `share`, `low`, `high` (Wilson), `target`."""
    n, wanted = fairness._counts(counts).sum(), _joint_target(counts, target)
    found = [fairness.share_interval(k, n, level=level) for k in counts]
    rows = [(k, i.estimate, i.low, i.high, t) for k, i, t in zip(counts, found, wanted, strict=True)]
    return pd.DataFrame(rows, counts.index, ["n", "share", "low", "high", "target"]).reset_index()


def joint_measures(counts: pd.Series, *, target: pd.Series | None = None, norm: str = "tv",
                   level: float = 0.95) -> pd.DataFrame:
    """How far attribute combinations are from fair, and each attribute beside them: parity in each is not parity in all.

    `counts` as from `joint_counts`; `target` the shares wanted, with the same index, by default all alike. Returns a tidy
    frame `measure, attributes, value, low, high, n`: "fd" of the combinations (with norm "tv" their total variation) and
    of each attribute, against the target's own marginal, with `discrepancy_interval`; "kl" = sum p log(p / target) in nats;
    "max-min share" over the combinations; "smallest subgroup" in pictures. KL: a combination that never occurs adds 0, so
    it stays finite; one that occurs though its target is 0 makes it infinite. Sampling alone lifts KL of a fair model to
    about (cells - 1) / 2n. Measures without an interval hold NaN there.
    """
    wanted, n, joint = _joint_target(counts, target), float(fairness._counts(counts).sum()), " x ".join(counts.index.names)
    parts = {joint: (counts, wanted)}
    for name in counts.index.names:
        parts[name] = tuple(cells.groupby(level=name, sort=False).sum() for cells in (counts, wanted))
    found = {name: fairness.discrepancy_interval(k, target=t, norm=norm, level=level) for name, (k, t) in parts.items()}
    rows = [("fd", name, i.estimate, i.low, i.high, n) for name, i in found.items()]
    others = {"kl": stats.entropy(counts / n, wanted), "max-min share": np.ptp(counts) / n,
              "smallest subgroup": counts.min()}
    rows += [(name, joint, float(value), np.nan, np.nan, n) for name, value in others.items()]
    return pd.DataFrame(rows, columns=["measure", "attributes", "value", "low", "high", "n"])


def mean_over_seeds(runs: Sequence[Run], *, quantity: str = "share", confusion: Confusion | None = None, target: float = 0.5,
                    classes: tuple[str, str] = ("Man", "Woman"), level: float = 0.95, draws: int = 10_000,
                    seed: int = 0) -> Interval:
    """The mean share (or the mean FD, "tv") over training runs, with all that seeds, samples and the judge leave open.

    `runs` holds one run a training seed, two at least. `quantity` is "share" (of the first class) or "fd" (|share -
    `target`|, averaged over the runs: what one more run is expected to show). With a `confusion` every share is corrected,
    by the same draw of the judge's recalls in all runs. `n` is the number of runs.

    Student's t on the runs' own figures and no bootstrap, which covers .75 of the time with three runs and .83 with five
    (simulated, at .95); the price is width. It is never narrower than the pooled sampling error, for three runs may agree
    by luck. Runs that share their sampling seeds (those of a sweep do within a training seed) have sampling noise in common that does not show
    between them: given as decisions, in the seeds' order, their covariance is added (simulated .96 to .99); counts tell nothing of
    it (down to .77 with five runs). Noise lifts every FD near 0, never lowers it: the high end of a mean FD stands on it,
    the low end on the signed deviations, whose mean is no larger and unbiased.
    Simulated coverage at .95, 3 and 5 runs that scatter by .03, 50 to 5000 pictures (1000 repeats, `debiaslib.coverage`): with a
    judge .95 to 1; without .92 and more from .1 to .9, but .88 to .94 at .02 and .98, where runs cannot scatter evenly.

    Raises InputError on fewer than two runs, a run without a decided picture, or a judge at chance.
    """
    if quantity not in ("share", "fd"):
        raise InputError(f"quantity {quantity!r}: unknown. Choose share or fd.")
    found = _figures(runs, confusion, target, classes, draws, seed)
    sampling = _sampling(found.variance, found.marks)
    if quantity == "share":
        lowest, highest, low, high, offset = found.draws, found.draws, 0.0, 1.0, target
    else:
        lowest, highest, low, high, offset = found.side * found.draws, np.abs(found.draws), 0.0, max(target, 1 - target), 0.0
    point = (found.point if quantity == "share" else np.abs(found.point)).mean()
    ends = _end(lowest, sampling, (1 - level) / 2, draws, seed), _end(highest, sampling, (1 + level) / 2, draws, seed)
    estimate, low, high = (float(x) for x in np.clip(np.array([point, *ends]) + offset, low, high))
    return Interval(estimate, low, high, level, "t over training runs", len(runs))


def reduction_over_seeds(runs_a: Sequence[Run], runs_b: Sequence[Run], *, confusion: Confusion | None = None,
                         target: float = 0.5, classes: tuple[str, str] = ("Man", "Woman"), level: float = 0.95,
                         draws: int = 10_000, seed: int = 0) -> Interval:
    """How much lower FD ("tv") is with b than with a, averaged over training seeds: run i of both has the same seed.

    Above 0 throughout: b is fairer, beyond what seeds, samples and the judge leave open. As `mean_over_seeds`, of the
    differences within each seed, so that what a and b share cancels; decisions in the order of the same sampling seeds
    carry their pairing picture by picture, counts are taken as sampled apart. Simulated coverage at .95, from a mean
    share of .3 with a standard deviation of .04, runs of 50 and of 800 pictures: .94 to 1.
    """
    if len(runs_a) != len(runs_b):
        raise InputError(f"{len(runs_a)} and {len(runs_b)} runs: give one a training seed, the same seeds for both.")
    a, b = (_figures(runs, confusion, target, classes, draws, seed) for runs in (runs_a, runs_b))
    paired = a.marks is not None and b.marks is not None and a.marks.shape == b.marks.shape
    marks = a.side * a.marks - b.side * b.marks if paired else None
    variance = marks.var(axis=1, ddof=1) / marks.shape[1] if paired else a.variance + b.variance
    sampling = _sampling(variance, marks)
    low = _end(a.side * a.draws - np.abs(b.draws), sampling, (1 - level) / 2, draws, seed)
    high = _end(np.abs(a.draws) - b.side * b.draws, sampling, (1 + level) / 2, draws, seed)
    estimate = float((np.abs(a.point) - np.abs(b.point)).mean())
    method = "t over training seeds, paired" + (" by picture" if paired else "")
    return Interval(estimate, min(low, estimate), max(high, estimate), level, method, len(runs_a))


def equivalence(runs: Sequence[Run], *, margin: float = 0.05, target: float = 0.5, confusion: Confusion | None = None,
                classes: tuple[str, str] = ("Man", "Woman"), draws: int = 10_000, seed: int = 0) -> Equivalence:
    """Is the mean share over training runs within `target` +- `margin`? Two one-sided tests at .05 each.

    Not to be told from the target is no proof of being near it; this is: the 90 % interval of `mean_over_seeds` lies
    inside. A mean lets one run too high make up for one too low: read it beside the mean FD. Simulated, runs of 800
    pictures: claimed in .02 to .04 where the truth lies on the edge, .55; where it is .5, in .84 (three runs) and 1 (five)
    without scatter between runs, in .49 and .92 with a standard deviation of .02.
    """
    if not 0 < margin < 0.5:
        raise InputError(f"margin {margin}: lies between 0 and .5, for instance .05.")
    interval = mean_over_seeds(runs, confusion=confusion, classes=classes, level=0.9, draws=draws, seed=seed)
    return Equivalence(interval, target, margin)


def trend(table: pd.DataFrame, *, value: str = "fd", over: str = "alpha", by: str = "seed", level: float = 0.95,
          permutations: int = 9_999, seed: int = 0) -> Trend:
    """Does FD fall along alpha? `table` has a row a run, with the columns named by `value`, `over` and `by`.

    Not every seed needs every alpha, two at least. The statistic is the least-squares slope within training seeds. Its
    p-value comes from permuting each seed's values among its alphas: exact where alpha changes nothing, and what a seed's
    runs have in common stays. Not Jonckheere's or Page's test, which see ranks only, while alpha is a dose and the slope
    has a unit; not the t of the seeds' slopes, which has two degrees of freedom with three seeds: simulated power .69
    against .43, with five .87 against .76, and both claim a fall .05 of the time where there is none. The slope's interval
    is that t. Raises InputError on missing columns, or fewer than two seeds with two alphas.
    """
    missing = [name for name in (value, over, by) if name not in table]
    if missing:
        raise InputError(f"no column {', '.join(missing)}: give a row a run, with its {by}, {over} and {value}.")
    groups = [part for _, part in table.dropna(subset=[value]).groupby(by) if part[over].nunique() > 1]
    if len(groups) < 2:
        raise InputError(f"{len(groups)} {by}s with two or more values of {over}: a trend needs two at least.")
    generator, doses = np.random.default_rng(seed), [part[over] - part[over].mean() for part in groups]
    found = np.array([dose @ part[value] for dose, part in zip(doses, groups, strict=True)])
    shuffled = sum(generator.permuted(np.tile(part[value], (permutations, 1)), axis=1) @ dose.to_numpy()
                   for dose, part in zip(doses, groups, strict=True))
    slopes = found / [dose @ dose for dose in doses]
    margin = special.stdtrit(len(slopes) - 1, (1 + level) / 2) * stats.sem(slopes)
    method = f"t over the slopes of {len(slopes)} {by}s"
    mean = float(slopes.mean())
    slope = Interval(mean, float(mean - margin), float(mean + margin), level, method, len(slopes))
    return Trend(slope, float((1 + (shuffled <= found.sum() + 1e-12).sum()) / (permutations + 1)))


def _joint_target(counts: pd.Series, target: pd.Series | None) -> pd.Series:
    if target is not None and not target.index.sort_values().equals(counts.index.sort_values()):
        raise InputError("target: give a share for every combination, with the same index as the counts.")
    shares = None if target is None else target.reindex(counts.index)
    return pd.Series(fairness._target(shares, len(counts)), counts.index)


def _figures(runs: Sequence[Run], confusion: Confusion | None, target: float, classes: tuple[str, str], draws: int,
             seed: int) -> _Figures:
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run: how runs differ shows in two or more. One has fairness.discrepancy_interval.")
    men, decided, marks = _read(runs, classes)
    exact = drawn = (1.0, 1.0)
    if confusion is not None:
        exact = confusion.recall_men, confusion.recall_women
        drawn = confusion.draw_recalls(draws, np.random.default_rng(seed))
        fairness._check_judge(*exact)
    (point,), corrected = (fairness._unmixed(men / decided, *(np.reshape(recall, (-1, 1)) for recall in recalls))
                           for recalls in (exact, drawn))
    smooth, scale = (men + 0.5) / (decided + 1), exact[0] + exact[1] - 1
    variance = smooth * (1 - smooth) / decided / scale**2
    return _Figures(point - target, corrected - target, variance, marks if marks is None else marks / scale)


def _read(runs: Sequence[Run], classes: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Of the first class and decided, each (S,); and every picture's mark on its run's share (S, n), None of mere counts."""
    runs = [list(run) for run in runs]
    counted = [len(run) == 2 and not isinstance(run[0], str) for run in runs]
    counts = np.array([(run[0], run[1] - run[0]) if known else fairness.count_classes(run, classes)
                       for run, known in zip(runs, counted, strict=True)], float)
    men, decided = counts[:, 0], counts.sum(axis=1)
    if counts.min() < 0 or decided.min() < 1:
        raise InputError("runs: give (men read, decided), 0 <= men read <= decided, and one decided picture in each run.")
    if any(counted) or len({len(run) for run in runs}) > 1:
        return men, decided, None
    words = np.array(runs)
    shares = (men / decided)[:, None]
    marks = np.where(words == "", 0.0, (words == classes[0]) - shares) * words.shape[1] / decided[:, None]
    return men, decided, marks


def _sampling(variance: np.ndarray, marks: np.ndarray | None) -> tuple[float, float]:
    """The sampling variance of the mean over runs: the runs' own, and what shared sampling seeds make common to them."""
    own = variance.sum() / len(variance)**2
    if marks is None:
        return float(own), 0.0
    runs, n = marks.shape
    alone = marks.var(axis=1, ddof=1).sum() / runs**2 / n
    return float(own), max(0.0, float(marks.mean(axis=0).var(ddof=1) / n - alone))


def _end(values: np.ndarray, sampling: tuple[float, float], quantile: float, draws: int, seed: int) -> float:
    """One end of the interval for the mean over runs of `values` (draws or 1, S): t between runs, never below sampling."""
    if not 0 < quantile < 1:
        raise InputError("level: lies between 0 and 1, for instance .95.")
    (own, common), runs, generator = sampling, values.shape[1], np.random.default_rng([seed, 1])
    uniform = generator.permutation((np.arange(draws) + 0.5) / draws)  # strata: no simulation noise where the judge is exact
    between = special.stdtrit(runs - 1, uniform) * values.std(axis=1, ddof=1) / np.sqrt(runs)
    within = special.ndtri(uniform) * np.sqrt(own)
    error = np.where(np.abs(between) > np.abs(within), between, within) + np.sqrt(common) * generator.standard_normal(draws)
    return float(np.quantile(values.mean(axis=1) + error, quantile))


def _spread(row: NamedTuple) -> str:
    return f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]"

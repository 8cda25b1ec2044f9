"""How far from fair, and how sure: fairness discrepancy, null band, intervals, a judge's error corrected.

The share of class k in a sample is p_k, the share wanted is t_k. The *fairness discrepancy* is FD = ||p - t||, with
norm "tv" (total variation, half the L1: |p - .5| for two classes) or "l2" (Choi et al. 2020, "Fair Generative Modeling
via Weak Supervision"; for two classes sqrt(2) times the other). FD is never negative, so noise alone lifts it: a fair
model reads above 0, and every figure here comes with an interval that knows this.

One attribute of one sample is measured here. Several attributes at once, several training runs, and the report of a
sample that prints itself are in `debiaslib.fairness_report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from debiaslib.errors import InputError

NORMS = ("tv", "l2")
CHANCE = 0.05
"""A judge whose two recalls add up to 1 + this or less tells men from women no better than a coin: no correction. For K
classes: the smallest singular value of the matrix of its rates, which for two classes is about the same number."""
EM_STEPS = 20_000
"""An upper bound that is hardly ever met: EM stops where nothing moves by more than 1e-13."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval at `level`; `n` counts the decided pictures (or the pairs) it rests on."""

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: float


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How a judge read faces of known label, as counts, abstentions left out."""

    men_read_man: int
    men_read_woman: int
    women_read_man: int
    women_read_woman: int

    def __post_init__(self) -> None:
        counts = (self.men_read_man, self.men_read_woman, self.women_read_man, self.women_read_woman)
        if min(counts) < 0 or not sum(counts[:2]) or not sum(counts[2:]):
            raise InputError(f"confusion {counts} (men read man, woman; women read man, woman): counts are at least 0, and "
                             "one man and one woman or more were read. Measure the judge on labelled faces first.")

    @classmethod
    def of(cls, matrix: Sequence[Sequence[int]]) -> "Confusion":
        """From counts (2, 2), as `matrix` gives them: a row a known label (men, women), a column a reading (man, woman)."""
        (men_man, men_woman), (women_man, women_woman) = np.asarray(matrix, int).tolist()
        return cls(men_read_man=men_man, men_read_woman=men_woman, women_read_man=women_man, women_read_woman=women_woman)

    @property
    def matrix(self) -> np.ndarray:
        """The counts as (2, 2): a row a known label (men, women), a column a reading (man, woman)."""
        return np.array([[self.men_read_man, self.men_read_woman], [self.women_read_man, self.women_read_woman]], float)

    @property
    def recall_men(self) -> float:
        """The share of men who are read as men, among those whom the judge decided on."""
        return self.men_read_man / (self.men_read_man + self.men_read_woman)

    @property
    def recall_women(self) -> float:
        """The share of women who are read as women, among those whom the judge decided on."""
        return self.women_read_woman / (self.women_read_man + self.women_read_woman)

    def draw_recalls(self, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The men's recall and the women's, each (draws,), from their Beta posteriors under Jeffreys' prior."""
        return (generator.beta(self.men_read_man + 0.5, self.men_read_woman + 0.5, draws),
                generator.beta(self.women_read_woman + 0.5, self.women_read_man + 0.5, draws))


def count_classes(decisions: Sequence[str], classes: Sequence[str] = ("Man", "Woman")) -> np.ndarray:
    """Hard counts: how often each of the K `classes` was decided, int (K,) in their order, 0 for one that never occurs.

    A decision "" is an abstention and counts nowhere. Raises InputError on any other word.
    """
    index = _places(classes)
    _check_words(decisions, index)
    return np.bincount([index[word] for word in decisions], minlength=len(index))[:-1]


def soft_counts(probabilities: Sequence[Sequence[float]]) -> np.ndarray:
    """Soft counts: the sum of each class's probability, float (K,); divided by their own sum they are mean probabilities.

    `probabilities` (N, K) are a classifier's, a row a picture, a row of NaN where it abstained. A class nobody is read as
    still gathers probability, so that soft shares lie nearer to each other than hard ones: say which were used. An interval
    from soft counts is too wide rather than too narrow, as a probability varies less than a decision. Raises InputError
    unless each row is made of shares that add up to 1 (within .001).
    """
    rows = np.asarray(probabilities, float)
    decided = rows[~np.isnan(rows).any(axis=1)] if rows.ndim == 2 else rows
    if decided.ndim != 2 or decided.shape[1] < 2 or not len(decided):
        raise InputError(f"probabilities of shape {rows.shape}: give a row a picture, one decided, a column a class.")
    if decided.min() < 0 or np.abs(decided.sum(axis=1) - 1).max() > 1e-3:
        raise InputError("probabilities: each row holds numbers of at least 0 that add up to 1. Put them through a softmax.")
    return decided.sum(axis=0)


def fairness_discrepancy(counts: Sequence[float], *, target: Sequence[float] | None = None, norm: str = "tv") -> float:
    """FD = ||p - target|| of K classes, in [0, 1) for "tv".

    `counts` (K,) are counts or shares, hard or soft; a class that never occurs is given as 0, never left out. `target`
    (K,) are the shares wanted, by default all alike. Raises InputError on fewer than two classes, a negative or missing
    number, or a target that does not add up to 1.
    """
    counts = _counts(counts)
    return float(_distance(counts / counts.sum(), _target(target, len(counts)), norm))


def null_band(n: int, *, classes: int = 2, target: Sequence[float] | None = None, norm: str = "tv", level: float = 0.95,
              draws: int = 20_000, seed: int = 0) -> float:
    """What FD a perfectly fair model stays below, or at, in a share `level` of samples of `n` decided pictures.

    Two classes: exact, from the binomial. More: `draws` multinomial samples. With two even classes and "tv":
    n = 100 gives .10, 800 .035, 5000 .014. Raises InputError when n is below 1.
    """
    _check(n=n, level=level)
    shares = _target(target, classes if target is None else len(target))
    if len(shares) == 2:
        first = np.arange(n + 1)
        found = _distance(np.stack([first, n - first], axis=-1) / n, shares, norm)
        order = np.argsort(found, kind="stable")
        reached = np.cumsum(stats.binom.pmf(first, n, shares[0])[order])
        # Both sides of the target give the same FD: the first of such a pair must not close the band before the second.
        band = found[order][min(np.searchsorted(reached, level), n)]
    else:
        samples = np.random.default_rng(seed).multinomial(n, shares, draws)
        band = np.quantile(_distance(samples / n, shares, norm), level, method="inverted_cdf")
    return float(band)


def share_interval(k: float, n: float, *, level: float = 0.95) -> Interval:
    """Wilson's interval (1927) for a share k / n, by statsmodels. Raises InputError unless 0 <= k <= n and n > 0."""
    from statsmodels.stats.proportion import proportion_confint

    _check(n=n, level=level)
    if not 0 <= k <= n:
        raise InputError(f"{k} of {n}: a part cannot be below 0 or above the whole. Check the counts.")
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    return Interval(k / n, float(low), float(high), level, "Wilson", n)


def discrepancy_interval(counts: Sequence[float], *, target: Sequence[float] | None = None, norm: str = "tv",
                         level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """FD with an interval that respects its upward bias near zero; the low end is 0 where a fair model is not excluded.

    Two classes: the image of Wilson's interval under |p - target|. More: for any target the reverse triangle inequality
    gives |FD(sample) - FD(population)| <= ||p_hat - p||; the interval is FD plus and minus the `level` quantile of that
    distance, from `draws` multinomial samples (parametric bootstrap, half a count added to each class). It covers at least
    at its level, and more than that the more classes there are. `counts` (K,) are counts, not shares.
    """
    counts = _counts(counts)
    shares, n = _target(target, len(counts)), float(counts.sum())
    if n <= 1 and (counts % 1).any():
        raise InputError(f"{counts.tolist()} look like shares: an interval depends on how many were counted. Give counts.")
    if len(counts) == 2:
        return _folded(share_interval(counts[0], n, level=level), shares[0], norm=norm)
    _check(n=n, level=level)
    estimate = fairness_discrepancy(counts, target=shares, norm=norm)
    population = (counts + 0.5) / (n + len(counts) / 2)
    samples = np.random.default_rng(seed).multinomial(round(n), population, draws) / round(n)
    margin = float(np.quantile(_distance(samples, population, norm), level))
    return _around(estimate, margin, shares, norm, level, "parametric bootstrap, reverse triangle", n)


def corrected_share(men_read: float, decided: float, *, recall_men: float, recall_women: float) -> float:
    """The share of men among the decided pictures, the judge's error taken out (Teo et al. 2023, CLEAM).

    p* = (p_hat - (1 - a0)) / (a0 + a1 - 1), clipped to [0, 1]; p_hat = men_read / decided, a1 the men's recall, a0 the
    women's. Raises InputError when the judge is at chance (a0 + a1 <= 1.05).
    """
    _check(n=decided)
    if not 0 <= men_read <= decided:
        raise InputError(f"{men_read} of {decided}: a part cannot be below 0 or above the whole. Check the counts.")
    _check_judge(recall_men, recall_women)
    return float(np.clip(_unmixed(men_read / decided, recall_men, recall_women), 0, 1))


def corrected_share_interval(men_read: float, decided: float, confusion: Confusion, *, level: float = 0.95,
                             draws: int = 20_000, seed: int = 0) -> Interval:
    """`corrected_share` with an interval that carries both doubts: the sample's, and the judge's own.

    p_hat, a1 and a0 are drawn independently from their Beta posteriors (Jeffreys' prior, one half on either side), the
    correction is applied to each draw, and the interval holds its central `level`.
    """
    estimate = corrected_share(men_read, decided, recall_men=confusion.recall_men, recall_women=confusion.recall_women)
    generator = np.random.default_rng(seed)
    read = generator.beta(men_read + 0.5, decided - men_read + 0.5, draws)
    corrected = _unmixed(read, *confusion.draw_recalls(draws, generator))
    low, high = np.clip(np.quantile(corrected, [(1 - level) / 2, (1 + level) / 2]), 0, 1)
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), level,
                    "CLEAM, Beta posteriors", decided)


def corrected_discrepancy(men_read: float, decided: float, confusion: Confusion, *, target: float = 0.5,
                          level: float = 0.95, draws: int = 20_000, seed: int = 0) -> Interval:
    """FD ("tv") of men and women, the judge's error taken out: `corrected_share_interval` under |p - target|.

    `target` is the men's share wanted. This speaks of the decided pictures: where a judge abstains more often on one
    gender, that gender is missing here. Raises InputError when the judge is at chance.
    """
    share = corrected_share_interval(men_read, decided, confusion, level=level, draws=draws, seed=seed)
    return _folded(share, target)


def corrected_shares(counts: Sequence[float], confusion: "Confusion | Sequence[Sequence[float]]") -> np.ndarray:
    """The true shares of K classes, the judge's error taken out: CLEAM for any K, float (K,).

    `counts` (K,) are the decided readings, `confusion` (K, K) how the judge read pictures of known class (counts, a row a
    true class, a column a reading), or a `Confusion`. Solves p M = p_hat, M the confusion's rates, on the simplex by
    maximum likelihood. Where plain inversion stays on the simplex it is the maximum, for it fits exactly; else EM
    (Dempster, Laird and Rubin 1977) climbs from the clipped inverse. Likelihood and not least squares, since a rare
    reading is surer than a common one and the likelihood weighs it so; for two classes both are `corrected_share`. Raises
    InputError when two classes are read too much alike (see `CHANCE`).
    """
    counts = _counts(counts)
    judge, read = _rates(_judge(confusion, len(counts))), counts / counts.sum()
    inverse = np.linalg.solve(judge.T, read)
    if inverse.min() >= 0:
        return inverse
    shares = np.maximum(inverse, 1e-12)
    for _ in range(EM_STEPS):
        mix, before = shares @ judge, shares
        shares = shares * (judge @ np.divide(read, mix, out=np.zeros_like(mix), where=mix > 0))
        shares /= shares.sum()
        if np.abs(shares - before).max() < 1e-13:
            break
    return shares


def corrected_share_intervals(counts: Sequence[float], confusion: "Confusion | Sequence[Sequence[float]]", *,
                              level: float = 0.95, draws: int = 20_000, seed: int = 0) -> tuple[Interval, ...]:
    """`corrected_shares`, an interval each: `corrected_share_interval` for K classes, both doubts carried.

    The shares read and every row of the confusion are drawn from their Dirichlet posteriors (Jeffreys' prior, one half a
    class), the plain inverse is taken of each draw, its central `level` kept and only then clipped to [0, 1]: to force
    each draw onto the simplex first would push the interval off a true share of 0. Each interval holds its level by
    itself, not all of them at once. One that shrinks to a point at 0 or 1 says that the confusion does not fit these
    pictures: even the judge's mistakes should have given more readings, or fewer.
    """
    estimates, n = corrected_shares(counts, confusion), float(np.sum(counts))
    _check(n=n, level=level)
    drawn = _draw_shares(counts, confusion, draws, seed)
    lows, highs = np.clip(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0), 0, 1)
    return tuple(Interval(float(p), float(min(low, p)), float(max(high, p)), level, "CLEAM, Dirichlet posteriors", n)
                 for p, low, high in zip(estimates, lows, highs, strict=True))


def corrected_discrepancy_interval(counts: Sequence[float], confusion: "Confusion | Sequence[Sequence[float]]", *,
                                   target: Sequence[float] | None = None, norm: str = "tv", level: float = 0.95,
                                   draws: int = 20_000, seed: int = 0) -> Interval:
    """FD of K classes, the judge's error taken out, with an interval: `discrepancy_interval` of the corrected shares.

    Two classes: the corrected share's interval under |p - target|, as `corrected_discrepancy`. More: FD plus and minus the
    `level` quantile of the distance between the shares drawn (see `corrected_share_intervals`) and their centre.
    """
    counts = _counts(counts)
    shares = _target(target, len(counts))
    if len(counts) == 2:
        first = corrected_share_intervals(counts, confusion, level=level, draws=draws, seed=seed)[0]
        return _folded(first, shares[0], norm=norm)
    _check(n=float(counts.sum()), level=level)
    estimate = fairness_discrepancy(corrected_shares(counts, confusion), target=shares, norm=norm)
    drawn = _draw_shares(counts, confusion, draws, seed)
    centre = np.linalg.solve(_rates(_judge(confusion, len(counts))).T, counts / counts.sum())
    margin = float(np.quantile(_distance(drawn, centre, norm), level))
    method = "CLEAM, Dirichlet posteriors, reverse triangle"
    return _around(estimate, margin, shares, norm, level, method, float(counts.sum()))


def discrepancy_difference(share_a: Interval, share_b: Interval, *, target: float = 0.5) -> Interval:
    """FD ("tv") of model a minus FD of model b, two classes, from the intervals of their shares alone: unpaired.

    For published tables, and for models sampled apart; `paired_difference` is sharper where seeds are shared. The shares'
    intervals (`share_interval`) are taken as independent and combined by Newcombe's square roots (1998, method 10), once
    for each pair of sides of `target`, as in `paired_difference`. Shares that one judge's recalls corrected are not
    independent: `corrected_difference`. Raises InputError when the levels differ.
    """
    a, b = (_shifted(share, target) for share in (share_a, share_b))
    signed = np.array([[_apart(x, y) for y in (b, _mirrored(b))] for x in (a, _mirrored(a))])
    low, high = signed.min(axis=1).max(axis=0)
    estimate = abs(a.estimate) - abs(b.estimate)
    return Interval(estimate, float(low), float(high), a.level, "Newcombe, both sides of the target", min(a.n, b.n))


def corrected_difference(read_a: tuple[float, float], read_b: tuple[float, float], confusion: Confusion, *,
                         target: float = 0.5, level: float = 0.95, draws: int = 20_000, seed: int = 0) -> Interval:
    """FD ("tv") of model a minus FD of model b, sampled apart, the error of the judge that read both taken out.

    `read_a` and `read_b` are (men read, decided). Both shares are corrected with the same draw of the judge's recalls
    (`corrected_share_interval` draws them for one share): what is unknown of the judge mostly cancels where the two lie on
    one side of `target`, and adds up where they lie on both. Percentiles are combined as in `paired_difference`.
    Simulated coverage at .95, 743 and 586 pictures, recalls of .85 and .83 from 424 faces each (400 repeats): .93 to 1.
    Raises InputError when the judge is at chance.
    """
    generator = np.random.default_rng(seed)
    points = [corrected_share(*read, recall_men=confusion.recall_men, recall_women=confusion.recall_women) - target
              for read in (read_a, read_b)]
    recalls = confusion.draw_recalls(draws, generator)
    a, b = (np.clip(_unmixed(generator.beta(men + 0.5, decided - men + 0.5, draws), *recalls), 0, 1) - target
            for men, decided in (read_a, read_b))
    estimate, (low, high) = abs(points[0]) - abs(points[1]), _signed_ends(a, b, level)
    return Interval(estimate, min(low, estimate), max(high, estimate), level, "CLEAM, one judge for both",
                    min(read_a[1], read_b[1]))


def paired_difference(decisions_a: Sequence[str], decisions_b: Sequence[str], *, classes: tuple[str, str] = ("Man", "Woman"),
                      confusion: Confusion | None = None, target: float = 0.5, level: float = 0.95, draws: int = 10_000,
                      seed: int = 0) -> Interval:
    """FD ("tv") of model a minus FD of model b, sampled with the same seeds: above 0, b is the fairer.

    `decisions_a[i]` and `decisions_b[i]` are what the judge said of seed i: one of the two `classes`, or "" where it
    abstained. Each FD is that of the model's own decided pictures, against a share `target` of the first class. Seeds are
    resampled with both their pictures (bootstrap), so that what the two have in common cancels, and abstentions are part
    of the chance. With a `confusion` both shares are corrected (see `corrected_share`), the judge's recalls drawn anew
    each time, the same for both models. `n` is the number of seeds.

    A bootstrapped FD is biased upward near 0, and plain percentiles of the difference then cover only .87. Signed
    deviations x are not: |x_a| - |x_b| is the largest over the sign of x_a of the smallest over that of x_b of their
    signed difference, and the percentile intervals of these four are combined in the same way (simulated: .93 to 1).
    Raises InputError when the two differ in length or hold other words, a model has no decided picture, or the judge is
    at chance.
    """
    cells, generator = _joint_counts(decisions_a, decisions_b, classes), np.random.default_rng(seed)
    n = int(cells.sum())
    # Resampling seeds is drawing the joint table of both decisions anew: the same distribution, at a fraction of the cost.
    tables = generator.multinomial(n, cells.ravel() / n, draws).reshape(draws, *cells.shape)
    exact = drawn = (1.0, 1.0)
    if confusion is not None:
        exact, drawn = (confusion.recall_men, confusion.recall_women), confusion.draw_recalls(draws, generator)
        _check_judge(*exact)
    estimate = np.subtract(*(abs(_first_share(cells.sum(axis), exact) - target) for axis in (1, 0)))
    a, b = (_first_share(tables.sum(axis), drawn) - target for axis in (2, 1))
    return Interval(float(estimate), *_signed_ends(a, b, level), level, "paired bootstrap over seeds", n)


def amplification(share_samples: float | np.ndarray, share_training: float | np.ndarray) -> float | np.ndarray:
    """Bias amplification: the share in the samples minus the share in the training data; numbers or arrays in [0, 1]."""
    both = np.stack(np.broadcast_arrays(np.asarray(share_samples, float), np.asarray(share_training, float)))
    if not ((both >= 0) & (both <= 1)).all():
        raise InputError(f"shares {share_samples} and {share_training}: both lie in [0, 1]. Divide counts by their sum.")
    difference = both[0] - both[1]
    return difference if difference.ndim else float(difference)


def amplification_interval(share_samples: Interval, share_training: Interval | float) -> Interval:
    """`amplification` with an interval: a share in the samples minus the share in the training data.

    `share_samples` is the share's interval (`share_interval`, or `corrected_share_interval` where a judge read the samples
    and the training labels are known). `share_training` is a number where the whole training set was counted, or an
    interval where a sample of it was. Two Wilson intervals give Newcombe's interval (1998, method 10), statsmodels'
    "newcomb". Above 0 throughout: the model amplifies. Raises InputError when the levels differ.
    """
    if not isinstance(share_training, Interval):
        share = float(share_training)
        share_training = Interval(share, share, share, share_samples.level, "counted", share_samples.n)
    estimate = amplification(share_samples.estimate, share_training.estimate)
    method = f"Newcombe ({share_samples.method}; {share_training.method})"
    return Interval(estimate, *_apart(share_samples, share_training), share_samples.level, method, share_samples.n)


def _distance(shares: np.ndarray, target: np.ndarray, norm: str) -> np.ndarray:
    """FD of shares (..., K), as (...)."""
    if norm not in NORMS:
        raise InputError(f"norm {norm!r}: unknown. Choose one of {', '.join(NORMS)}.")
    difference = shares - target
    distance = np.abs(difference).sum(-1) / 2 if norm == "tv" else np.sqrt((difference**2).sum(-1))
    return np.round(distance, 12)  # so that equal distances on both sides of the target compare as equal


def _folded(share: Interval, target: float, *, norm: str = "tv") -> Interval:
    """The image of a share's interval under |p - target|, which is FD for two classes."""
    def image(p: float) -> float:
        return float(_distance(np.array([p, 1 - p]), np.array([target, 1 - target]), norm))

    straddles = share.low <= target <= share.high
    low, high = sorted((image(share.low), image(share.high)))
    method = f"{share.method}, folded at the target"
    return Interval(image(share.estimate), 0.0 if straddles else low, high, share.level, method, share.n)


def _around(estimate: float, margin: float, target: np.ndarray, norm: str, level: float, method: str, n: float) -> Interval:
    """FD plus and minus `margin`, within what FD can be."""
    most = float(_distance(np.eye(len(target)), target, norm).max())
    return Interval(estimate, max(0.0, estimate - margin), min(most, estimate + margin), level, method, n)


def _shifted(share: Interval, by: float) -> Interval:
    return Interval(share.estimate - by, share.low - by, share.high - by, share.level, share.method, share.n)


def _mirrored(share: Interval) -> Interval:
    return Interval(-share.estimate, -share.high, -share.low, share.level, share.method, share.n)


def _apart(a: Interval, b: Interval) -> tuple[float, float]:
    """The ends of a - b for independent a and b, from their own ends (Newcombe 1998; Zou and Donner 2008)."""
    if a.level != b.level:
        raise InputError(f"intervals at levels {a.level} and {b.level}: give both at the same one.")
    difference = a.estimate - b.estimate
    return (difference - float(np.hypot(a.estimate - a.low, b.high - b.estimate)),
            difference + float(np.hypot(a.high - a.estimate, b.estimate - b.low)))


def _signed_ends(a: np.ndarray, b: np.ndarray, level: float) -> tuple[float, float]:
    """The ends of |a| - |b| from draws of the signed a and b (see `paired_difference`)."""
    signed = np.stack([[a - b, a + b], [-a - b, -a + b]])
    ends = np.nanquantile(signed, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    low, high = ends.min(axis=2).max(axis=1)
    return float(low), float(high)


def _judge(confusion: "Confusion | Sequence[Sequence[float]]", classes: int) -> np.ndarray:
    """The confusion's counts (K, K), a row a true class."""
    counts = confusion.matrix if isinstance(confusion, Confusion) else np.asarray(confusion, float)
    if counts.shape != (classes, classes):
        raise InputError(f"confusion of shape {counts.shape} for {classes} classes: give a row and a column for each.")
    if not np.isfinite(counts).all() or counts.min() < 0 or counts.sum(axis=1).min() < 1:
        raise InputError("confusion: give counts of at least 0 and one labelled picture or more of each class.")
    return counts


def _rates(judge: np.ndarray) -> np.ndarray:
    rates = judge / judge.sum(axis=1, keepdims=True)
    weakest = np.linalg.svd(rates, compute_uv=False).min()
    if weakest <= CHANCE:
        raise InputError(f"the judge is at chance between two classes or more (smallest singular value {weakest:.3f}, at "
                         f"most {CHANCE}): merge classes it mistakes for each other, or use one that reads them better.")
    return rates


def _draw_shares(counts: Sequence[float], confusion: "Confusion | Sequence[Sequence[float]]", draws: int,
                 seed: int) -> np.ndarray:
    """Corrected shares (draws, K) before any constraint, from Dirichlet posteriors of the readings and of the judge."""
    generator, counts = np.random.default_rng(seed), _counts(counts)
    read = generator.dirichlet(counts + 0.5, draws)
    rates = np.stack([generator.dirichlet(row + 0.5, draws) for row in _judge(confusion, len(counts))], axis=1)
    return np.linalg.solve(rates.transpose(0, 2, 1), read[..., None])[..., 0]


def _unmixed(read: np.ndarray | float, men: np.ndarray | float, women: np.ndarray | float) -> np.ndarray | float:
    # A draw in which the judge is at chance says nothing: the floor sends it to an end of [0, 1], its sign unturned.
    return (read - (1 - women)) / np.maximum(women + men - 1, CHANCE)


def _first_share(counts: np.ndarray, recalls: tuple) -> np.ndarray:
    """The first class's share among the decided, corrected, from counts (..., 3) whose last are the abstentions."""
    with np.errstate(invalid="ignore"):
        return np.clip(_unmixed(counts[..., 0] / (counts[..., 0] + counts[..., 1]), *recalls), 0, 1)


def _joint_counts(decisions_a: Sequence[str], decisions_b: Sequence[str], classes: tuple[str, str]) -> np.ndarray:
    """How often each pair of decisions occurs, int (3, 3): first class, second, abstained."""
    if len(decisions_a) != len(decisions_b) or not len(decisions_a):
        raise InputError(f"{len(decisions_a)} and {len(decisions_b)} decisions: give one a seed, the same seeds for both.")
    if len(classes) != 2:
        raise InputError(f"classes {list(classes)}: a pair of models is compared on two classes, by two different names.")
    index = _places(classes)
    _check_words((*decisions_a, *decisions_b), index)
    cells = np.zeros((len(index), len(index)), int)
    np.add.at(cells, ([index[word] for word in decisions_a], [index[word] for word in decisions_b]), 1)
    if not cells[:-1].sum() or not cells[:, :-1].sum():
        raise InputError("a model has no decided picture, so no share. Look at its pictures, or lower the threshold.")
    return cells


def _places(classes: Sequence[str]) -> dict[str, int]:
    """Each class's place, the abstention's last."""
    if len(classes) < 2 or len({*classes, ""}) != len(classes) + 1:
        raise InputError(f"classes {list(classes)}: give two at least, all different, none of them ''.")
    return {name: place for place, name in enumerate((*classes, ""))}


def _check_words(decisions: Sequence[str], index: Mapping[str, int]) -> None:
    unknown = sorted({str(word) for word in decisions if word not in index})
    if unknown:
        known = ", ".join(name for name in index if name)
        raise InputError(f"decision {unknown[0]!r}: unknown. Give one of {known}, or '' for an abstention.")


def _counts(counts: Sequence[float]) -> np.ndarray:
    counts = np.asarray(counts, float)
    if counts.ndim != 1 or len(counts) < 2:
        raise InputError(f"counts of shape {counts.shape}: give one number a class, two at least, 0 where none occurs.")
    if not np.isfinite(counts).all() or counts.min() < 0 or counts.sum() <= 0:
        raise InputError(f"counts {counts.tolist()}: give finite numbers of at least 0, not all of them 0.")
    return counts


def _target(target: Sequence[float] | None, classes: int) -> np.ndarray:
    if target is None:
        return np.full(classes, 1 / classes)
    shares = np.asarray(target, float)
    if shares.shape != (classes,) or not np.isfinite(shares).all() or shares.min() < 0 or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"target {shares.tolist()}: give {classes} shares of at least 0 that add up to 1, in their order.")
    return shares


def _check(*, n: float, level: float = 0.95) -> None:
    if not n >= 1:
        raise InputError(f"n = {n}: nothing was counted. Judge at least one picture in which a face is found.")
    if not 0 < level < 1:
        raise InputError(f"level {level}: lies between 0 and 1, for instance .95.")


def _check_judge(recall_men: float, recall_women: float) -> None:
    if not (0 <= recall_men <= 1 and 0 <= recall_women <= 1):
        raise InputError(f"recalls {recall_men} (men) and {recall_women} (women): both lie in [0, 1].")
    if recall_men + recall_women <= 1 + CHANCE:
        raise InputError(f"the judge is at chance: recall {recall_men:.2f} for men and {recall_women:.2f} for women add up "
                         f"to {recall_men + recall_women:.2f}, at most {1 + CHANCE}. Use a judge that reads these better.")

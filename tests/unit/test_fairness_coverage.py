"""Intervals against known truth: simulated populations, judges of known error, and how often the interval holds the truth.

Wilson's interval and FD's are enumerated, no chance left, and with the corrected ones looked at on the whole grid (n = 50 to
5000, shares .02 to .98). The others take a few points of it by default, and as few repeats as show a fault;
DEBIASLIB_WIDE=1000 runs all of it with that many repeats, in many minutes. Tolerances are three standard errors of the
simulation.
"""

import functools
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib import fairness, fairness_report
from debiaslib.fairness import Confusion

WIDE = int(os.environ.get("DEBIASLIB_WIDE", 0))
ALL_SIZES = 50, 200, 800, 5000
ALL_SHARES = .02, .1, .3, .45, .5, .7, .9, .98
SIZES = ALL_SIZES if WIDE else (50, 800)
REPEATS = WIDE or 80
RECALLS = (.8, .9)
JUDGE_3 = np.array([[.85, .1, .05], [.1, .8, .1], [.02, .08, .9]])


def least(level=.95, repeats=REPEATS):
    return level - 3 * np.sqrt(level * (1 - level) / repeats)


def audit(generator, recalls=RECALLS, n=450):
    a, b = (int(generator.binomial(n, recall)) for recall in recalls)
    return Confusion(men_read_man=a, men_read_woman=n - a, women_read_man=n - b, women_read_woman=b)


def read_share(share):
    return share * RECALLS[0] + (1 - share) * (1 - RECALLS[1])


def holds(interval, truth):
    return interval.low - 1e-9 <= truth <= interval.high + 1e-9


@functools.cache
def wilson(k, n):
    return fairness.share_interval(k, n)


def window(n, share):
    """The counts that hold all but 1e-6 of the binomial, and their probabilities."""
    counts = np.arange(stats.binom.ppf(5e-7, n, share), stats.binom.ppf(1 - 5e-7, n, share) + 1).astype(int)
    return counts, stats.binom.pmf(counts, n, share)


@pytest.mark.parametrize("n", ALL_SIZES)
@pytest.mark.parametrize("share", ALL_SHARES)
def test_share_and_discrepancy_intervals_cover_exactly_enumerated(n, share):
    """No simulation. Wilson's dips to .92 at extreme shares of small samples (Brown, Cai and DasGupta 2001)."""
    counts, chance = window(n, share)
    floor = .92 + .01 * (.1 < share < .9)
    assert sum(p for k, p in zip(counts, chance, strict=True) if holds(wilson(int(k), n), share)) >= floor
    folded = [holds(fairness.discrepancy_interval([k, n - k]), abs(share - .5)) for k in counts]
    assert chance @ folded >= floor


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [.7, .3, 0], [.5, .1, .1, .1, .1, .05, .05]])
@pytest.mark.parametrize("norm", fairness.NORMS)
def test_discrepancy_interval_of_many_classes_covers_at_least(shares, norm):
    generator, truth = np.random.default_rng(0), fairness.fairness_discrepancy(shares, norm=norm)
    samples = generator.multinomial(100, shares, REPEATS)
    covered = [holds(fairness.discrepancy_interval(counts, norm=norm, draws=500), truth) for counts in samples]
    assert np.mean(covered) >= least()


@pytest.mark.parametrize("n", ALL_SIZES)
@pytest.mark.parametrize("share", ALL_SHARES)
def test_corrected_intervals_cover(n, share):
    generator, covered = np.random.default_rng(7), []
    for men in generator.binomial(n, read_share(share), REPEATS):
        confusion = audit(generator)
        interval = fairness.corrected_share_interval(men, n, confusion, draws=1000)
        covered.append((holds(interval, share), holds(fairness._folded(interval, .5), abs(share - .5))))
    assert (np.mean(covered, axis=0) >= least()).all()


def test_folding_the_corrected_share_is_the_corrected_discrepancy():
    confusion = audit(np.random.default_rng(0))
    folded = fairness._folded(fairness.corrected_share_interval(90, 200, confusion), .5)
    assert folded == fairness.corrected_discrepancy(90, 200, confusion)


@pytest.mark.parametrize("share", [.2, .5, .8])
def test_signed_corrected_discrepancy_is_unbiased(share):
    """Before folding: the mean of p* - .5 over samples of 400 is the truth, to three standard errors of the simulation."""
    generator = np.random.default_rng(3)
    men = generator.binomial(400, read_share(share), 2000)
    signed = np.array([fairness.corrected_share(k, 400, recall_men=RECALLS[0], recall_women=RECALLS[1]) for k in men]) - .5
    assert abs(signed.mean() - (share - .5)) < 3 * signed.std() / np.sqrt(len(signed))
    audits = [audit(generator) for _ in men]
    signed = np.array([fairness.corrected_share(k, 400, recall_men=judge.recall_men, recall_women=judge.recall_women)
                       for k, judge in zip(men, audits, strict=True)]) - .5
    assert abs(signed.mean() - (share - .5)) < 3 * signed.std() / np.sqrt(len(signed)) + .002  # a ratio: O(1/450)


@pytest.mark.parametrize("share", [.1, .3, .7])
def test_corrected_discrepancy_away_from_parity_is_unbiased_and_as_read_is_not(share):
    generator, truth = np.random.default_rng(31), abs(share - .5)
    men = generator.binomial(800, read_share(share), 1000)
    found = np.array([fairness.fairness_discrepancy([p, 1 - p]) for p in (
        fairness.corrected_share(k, 800, recall_men=RECALLS[0], recall_women=RECALLS[1]) for k in men)])
    error = 3 * found.std() / np.sqrt(len(found))
    assert abs(found.mean() - truth) < error
    assert abs(np.abs(men / 800 - .5).mean() - truth) > error


def test_corrected_shares_of_three_classes_are_unbiased():
    generator, shares = np.random.default_rng(37), np.array([.5, .3, .2])
    counts = generator.multinomial(500, shares @ JUDGE_3, 2000)
    found = np.array([fairness.corrected_shares(row, 10**9 * JUDGE_3) for row in counts])
    assert (np.abs(found.mean(axis=0) - shares) < 3 * found.std(axis=0) / np.sqrt(len(found))).all()


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [.6, .3, .1], [.9, .1, 0]])
def test_corrected_intervals_of_three_classes_cover(shares):
    generator, covered, truth = np.random.default_rng(11), [], fairness.fairness_discrepancy(shares)
    for counts in generator.multinomial(500, shares @ JUDGE_3, REPEATS):
        judge = np.stack([generator.multinomial(300, row) for row in JUDGE_3])
        each = fairness.corrected_share_intervals(counts, judge, draws=600)
        whole = fairness.corrected_discrepancy_interval(counts, judge, draws=600)
        covered.append([*(holds(i, share) for i, share in zip(each, shares, strict=True)), holds(whole, truth)])
    assert (np.mean(covered, axis=0) >= least()).all()


@pytest.mark.parametrize("shares", [(.7, .6), (.7, .5), (.5, .5), (.3, .7), *([(.02, .1), (.98, .98)] if WIDE else [])])
@pytest.mark.parametrize("n", SIZES if WIDE else (400,))
def test_paired_difference_covers_also_where_one_model_is_even(shares, n):
    generator, covered = np.random.default_rng(3), []
    truth = abs(shares[0] - .5) - abs(shares[1] - .5)
    for _ in range(REPEATS):
        first, fresh = generator.random((2, n))
        second = np.where(generator.random(n) < .5, first, fresh)
        words = (np.where(x < share, "Man", "Woman").tolist() for x, share in zip((first, second), shares, strict=True))
        covered.append(holds(fairness.paired_difference(*words, draws=800), truth))
    assert np.mean(covered) >= least(.93 if n < 100 else .95)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shares", [(.5, .5), (.36, .58), (.02, .1), (.7, .4)])
def test_unpaired_differences_cover(n, shares):
    generator, repeats = np.random.default_rng(5), WIDE or 400
    pairs = [[wilson(int(k), n) for k in row] for row in generator.binomial(n, shares, (repeats, 2))]
    truth = abs(shares[0] - .5) - abs(shares[1] - .5)
    assert np.mean([holds(fairness.discrepancy_difference(a, b), truth) for a, b in pairs]) >= least(.95, repeats)
    apart = [fairness.amplification_interval(a, b) for a, b in pairs]
    assert np.mean([holds(i, shares[0] - shares[1]) for i in apart]) >= least(.94, repeats)


@pytest.mark.parametrize("n", SIZES if WIDE else (400,))
@pytest.mark.parametrize("shares", [(.3, .7), (.3, .4), (.5, .6), (.1, .3), (.5, .5)])
def test_differences_read_by_one_judge_cover(n, shares):
    """Across .5 the judge's error adds up, on one side it cancels: taken as independent, the former was too narrow."""
    generator, covered = np.random.default_rng(29), []
    truth = abs(shares[0] - .5) - abs(shares[1] - .5)
    for men in generator.binomial(n, [read_share(share) for share in shares], (REPEATS, 2)):
        found = fairness.corrected_difference(*((k, n) for k in men), audit(generator), draws=1000)
        covered.append(holds(found, truth))
    assert np.mean(covered) >= least(.93 if n < 100 else .95)


def training_runs(generator, mean, spread, *, seeds, n, judge):
    """Counts of `seeds` runs whose true shares scatter about `mean`, read by a judge of known error (or a perfect one)."""
    true = np.clip(mean + spread * generator.standard_normal(seeds), 0, 1)
    return [(int(k), n) for k in generator.binomial(n, read_share(true) if judge else true)]


def mean_discrepancy(mean, spread):
    return np.abs(stats.norm.ppf((np.arange(20_000) + .5) / 20_000) * spread + mean - .5).mean()


@pytest.mark.parametrize("judge", [False, True])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("mean", "spread"), [(.5, 0), (.52, .03), (.3, .05), (.8, 0), (.1, .02)][:None if WIDE else 2])
@pytest.mark.parametrize("n", SIZES if WIDE else (800,))
def test_intervals_over_training_seeds_cover(judge, seeds, mean, spread, n):
    generator, covered = np.random.default_rng(13), []
    truths = mean, mean_discrepancy(mean, spread), mean_discrepancy(.3, .04) - mean_discrepancy(mean, spread)
    for _ in range(REPEATS):
        options = {"confusion": audit(generator) if judge else None, "draws": 500}
        base, runs = (training_runs(generator, *of, seeds=seeds, n=n, judge=judge) for of in ((.3, .04), (mean, spread)))
        found = (*(fairness_report.mean_over_seeds(runs, quantity=what, **options) for what in ("share", "fd")),
                 fairness_report.reduction_over_seeds(base, runs, **options))
        covered.append([holds(i, truth) for i, truth in zip(found, truths, strict=True)])
    assert (np.mean(covered, axis=0) >= least()).all()


@pytest.mark.parametrize("seeds", [3, 5])
def test_runs_that_share_their_sampling_seeds_are_covered_when_decisions_are_given(seeds):
    """Half of what makes a picture a man's is its sampling seed: counts of such runs under-cover, decisions do not."""
    generator, covered, n = np.random.default_rng(17), [], 400
    for _ in range(REPEATS):
        scores = np.sqrt(.8) * generator.standard_normal(n) + np.sqrt(.2) * generator.standard_normal((seeds, n))
        runs = np.where(scores < 0, "Man", "Woman").tolist()
        counts = [(run.count("Man"), n) for run in runs]
        covered.append([holds(fairness_report.mean_over_seeds(x, draws=500), .5) for x in (runs, counts)])
    with_decisions, with_counts = np.mean(covered, axis=0)
    assert with_decisions >= least()
    assert with_counts < with_decisions


@pytest.mark.parametrize("seeds", [3, 5])
def test_equivalence_errs_in_at_most_one_of_twenty_at_its_edge(seeds):
    generator = np.random.default_rng(19)
    samples = [[training_runs(generator, mean, .01, seeds=seeds, n=800, judge=False) for _ in range(REPEATS)]
               for mean in (.55, .5)]
    edge, even = ([fairness_report.equivalence(runs, draws=500) for runs in of] for of in samples)
    assert np.mean([found.equivalent for found in edge]) <= .05 + 3 * np.sqrt(.05 * .95 / REPEATS)
    assert np.mean([found.equivalent for found in even]) > .5


def test_trend_finds_a_fall_and_claims_none_where_there_is_none():
    generator, alphas, repeats = np.random.default_rng(23), np.array([0, .01, .05, .1]), WIDE or 40
    found = {}
    for slope in (0, -1):
        tables = [pd.DataFrame({"seed": np.repeat(range(3), 4), "alpha": np.tile(alphas, 3),
                                "fd": np.tile(.25 + slope * alphas, 3) + .03 * generator.standard_normal(12)})
                  for _ in range(repeats)]
        found[slope] = np.mean([fairness_report.trend(table, permutations=199).p_falling <= .05 for table in tables])
    assert found[0] <= .05 + 3 * np.sqrt(.05 * .95 / repeats)
    assert found[-1] > .7

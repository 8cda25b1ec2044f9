"""FD, null band, intervals and correction: published numbers, other libraries, simulated populations of known truth."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from debiaslib import fairness
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion

PUBLISHED = {.36: .14, .39: .11, .58: .08, .60: .10, .52: .02, .45: .05, .53: .03, .80: .30, .89: .39, .64: .14, .90: .40}
JUDGE = Confusion(men_read_man=410, men_read_woman=40, women_read_man=36, women_read_woman=414)


def simulated_confusion(generator, *, men=.8, women=.9, n=450):
    a, b = generator.binomial(n, men), generator.binomial(n, women)
    return Confusion(men_read_man=a, men_read_woman=n - a, women_read_man=n - b, women_read_woman=b)


@pytest.mark.parametrize(("share", "published"), PUBLISHED.items())
def test_published_shares_give_the_published_discrepancies(share, published):
    assert fairness.fairness_discrepancy([share, 1 - share]) == pytest.approx(published)


def test_both_norms_and_any_target():
    assert fairness.fairness_discrepancy([30, 70], norm="l2") == pytest.approx(np.sqrt(2) * .2)
    assert fairness.fairness_discrepancy([3, 7], target=[.3, .7]) == 0
    assert fairness.fairness_discrepancy([5, 5, 0, 0]) == pytest.approx(.5)
    assert fairness.fairness_discrepancy([1, 0, 0, 0], norm="l2") == pytest.approx(np.sqrt(.75**2 + 3 / 16))


def test_a_class_that_never_occurs_counts():
    assert fairness.fairness_discrepancy([10, 10, 0]) > fairness.fairness_discrepancy([10, 10]) == 0


@pytest.mark.parametrize(("n", "known"), [(100, .10), (800, .035), (5000, .014)])
def test_null_band_at_known_sizes(n, known):
    assert round(fairness.null_band(n), 3) == known


@pytest.mark.parametrize("target", [None, [.3, .7]])
def test_null_band_of_two_classes_is_the_smallest_that_holds_its_level(target):
    n, share = 200, .5 if target is None else target[0]
    band = fairness.null_band(n, target=target)
    found = np.abs(np.arange(n + 1) / n - share)
    chance = stats.binom.pmf(np.arange(n + 1), n, share)
    assert chance[found <= band + 1e-9].sum() >= .95 > chance[found < band - 1e-9].sum()


def test_null_band_of_many_classes_holds_its_level_and_repeats():
    band = fairness.null_band(300, classes=5)
    fresh = np.random.default_rng(99).multinomial(300, [.2] * 5, 4000) / 300
    below = (np.abs(fresh - .2).sum(1) / 2 <= band + 1e-9).mean()
    assert below == pytest.approx(.95, abs=.02)  # 4000 draws: three standard errors are .01, ties add some
    assert band == fairness.null_band(300, classes=5)


@pytest.mark.parametrize(("k", "n"), [(0, 30), (15, 30), (288, 800), (800, 800)])
def test_share_interval_is_statsmodels_wilson(k, n):
    found = fairness.share_interval(k, n, level=.9)
    assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, alpha=.1, method="wilson"))
    assert found.estimate == k / n
    assert found.method == "Wilson"


def test_discrepancy_interval_folds_wilson_at_the_target():
    below, across, above = (fairness.discrepancy_interval([k, 800 - k]) for k in (288, 404, 512))
    share = fairness.share_interval(288, 800)
    assert (below.low, below.high) == pytest.approx((.5 - share.high, .5 - share.low))
    assert across.low == 0
    assert (above.low, above.high) == pytest.approx((below.low, below.high))
    doubled = fairness.discrepancy_interval([288, 512], norm="l2")
    assert (doubled.low, doubled.high) == pytest.approx((np.sqrt(2) * below.low, np.sqrt(2) * below.high))


@pytest.mark.parametrize("n", [50, 200, 800, 5000])
@pytest.mark.parametrize("share", [.02, .2, .45, .5, .7, .98])
def test_discrepancy_interval_of_two_classes_covers(n, share):
    """Exact coverage, no simulation. Wilson's own dips to .92 at extreme shares of small samples (Brown et al. 2001)."""
    middle, width = round(n * share), int(6 * np.sqrt(n * share * (1 - share))) + 6
    counts = np.arange(max(0, middle - width), min(n, middle + width) + 1)
    found = [fairness.discrepancy_interval([k, n - k]) for k in counts]
    covered = np.array([i.low - 1e-9 <= abs(share - .5) <= i.high + 1e-9 for i in found])
    assert (stats.binom.pmf(counts, n, share) * covered).sum() >= .92 + .01 * (.1 < share < .9)


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [.7, .3, 0], [.4, .35, .25], [.5, .1, .1, .1, .1, .05, .05]])
@pytest.mark.parametrize("norm", fairness.NORMS)
def test_discrepancy_interval_of_many_classes_covers_at_least(shares, norm):
    generator, truth = np.random.default_rng(0), fairness.fairness_discrepancy(shares, norm=norm)
    samples = generator.multinomial(100, shares, 200)
    found = [fairness.discrepancy_interval(counts, norm=norm, draws=500) for counts in samples]
    covered = np.mean([i.low - 1e-9 <= truth <= i.high + 1e-9 for i in found])
    assert covered >= .95 - 3 * np.sqrt(.95 * .05 / 200)


def test_correction_undoes_a_known_judge():
    read = .3 * .8 + .7 * (1 - .9)
    assert fairness.corrected_share(1000 * read, 1000, recall_men=.8, recall_women=.9) == pytest.approx(.3)
    assert fairness.corrected_share(0, 100, recall_men=.8, recall_women=.9) == 0
    assert fairness.corrected_share(100, 100, recall_men=.8, recall_women=.9) == 1
    assert fairness.corrected_share(25, 100, recall_men=1, recall_women=1) == .25


@pytest.mark.parametrize("share", [.05, .3, .5, .8])
def test_corrected_intervals_cover_and_the_corrected_share_is_unbiased(share):
    """600 simulated audits and samples of 400: three standard errors of the coverage are .027."""
    generator, found = np.random.default_rng(7), []
    for confusion in (simulated_confusion(generator) for _ in range(600)):
        men = generator.binomial(400, share * .8 + (1 - share) * .1)
        found.append((fairness.corrected_share_interval(men, 400, confusion, draws=1000),
                      fairness.corrected_discrepancy(men, 400, confusion, draws=1000)))
    assert np.mean([i.estimate for i, _ in found]) == pytest.approx(share, abs=.01)
    assert np.mean([i.low <= share <= i.high for i, _ in found]) == pytest.approx(.95, abs=.035)
    assert np.mean([i.low <= abs(share - .5) <= i.high for _, i in found]) >= .95 - .035


def test_corrected_interval_carries_the_judges_own_doubt():
    tenth = Confusion(men_read_man=41, men_read_woman=4, women_read_man=4, women_read_woman=41)
    wide, narrow = (fairness.corrected_discrepancy(300, 800, confusion) for confusion in (tenth, JUDGE))
    plain = fairness.discrepancy_interval([300, 500])
    assert wide.high - wide.low > narrow.high - narrow.low > plain.high - plain.low
    assert narrow.low <= narrow.estimate <= narrow.high
    assert narrow == fairness.corrected_discrepancy(300, 800, JUDGE)


def test_perfect_judge_leaves_the_plain_interval():
    perfect = Confusion(men_read_man=10**6, men_read_woman=0, women_read_man=0, women_read_woman=10**6)
    corrected, plain = fairness.corrected_discrepancy(288, 800, perfect), fairness.discrepancy_interval([288, 512])
    assert corrected.estimate == pytest.approx(plain.estimate, abs=1e-6)
    assert (corrected.low, corrected.high) == pytest.approx((plain.low, plain.high), abs=.002)


def test_chance_level_judge_is_refused_with_its_numbers():
    with pytest.raises(InputError, match=r"at chance: recall 0\.60 for men and 0\.40 for women"):
        fairness.corrected_share(50, 100, recall_men=.6, recall_women=.4)


def test_paired_difference_agrees_with_resampling_seeds_one_by_one():
    generator = np.random.default_rng(1)
    a = generator.choice(["Man", "Woman", ""], 400, p=[.2, .7, .1])
    b = np.where(generator.random(400) < .6, a, generator.choice(["Man", "Woman", ""], 400, p=[.4, .55, .05]))
    found = fairness.paired_difference(a, b)
    rows = generator.integers(400, size=(4000, 400))
    parts = [np.abs((x[rows] == "Man").sum(1) / (x[rows] != "").sum(1) - .5) for x in (a, b)]
    assert (found.low, found.high) == pytest.approx(np.quantile(parts[0] - parts[1], [.025, .975]), abs=.006)
    estimate = np.subtract(*(abs((x == "Man").sum() / (x != "").sum() - .5) for x in (a, b)))
    assert found.estimate == pytest.approx(estimate)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(2)
    a = generator.choice(["Man", "Woman"], 800, p=[.25, .75])
    b = np.where(generator.random(800) < .9, a, "Man")
    paired, shuffled = fairness.paired_difference(a, b), fairness.paired_difference(a, generator.permutation(b))
    assert paired.estimate == shuffled.estimate
    assert paired.high - paired.low < .6 * (shuffled.high - shuffled.low)


@pytest.mark.parametrize("shares", [(.7, .6), (.25, .25), (.7, .5), (.5, .8), (.3, .7)])
def test_paired_difference_covers_also_where_one_model_is_even(shares):
    """400 pairs of samples from shared uniforms: three standard errors of the coverage are .033."""
    generator, covered = np.random.default_rng(3), []
    truth = abs(shares[0] - .5) - abs(shares[1] - .5)
    for first, fresh in generator.random((400, 2, 500)):
        second = np.where(generator.random(500) < .5, first, fresh)
        words = (np.where(draw < share, "Man", "Woman") for draw, share in zip((first, second), shares, strict=True))
        found = fairness.paired_difference(*words, draws=800)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= .95 - .033


def test_paired_difference_of_two_even_models_claims_nothing():
    generator = np.random.default_rng(6)
    found = [fairness.paired_difference(*generator.choice(["Man", "Woman"], (2, 300)), draws=500) for _ in range(200)]
    assert np.mean([i.low > 0 or i.high < 0 for i in found]) <= .05


def test_paired_difference_takes_the_judges_error_out():
    generator = np.random.default_rng(8)
    truth = generator.random((2, 4000)) < np.array([[.2], [.4]])
    read = np.where(truth, generator.random(truth.shape) < .8, generator.random(truth.shape) < .1)
    a, b = np.where(read, "Man", "Woman")
    judge = Confusion(men_read_man=360, men_read_woman=90, women_read_man=45, women_read_woman=405)
    plain, corrected = fairness.paired_difference(a, b), fairness.paired_difference(a, b, confusion=judge)
    assert corrected.estimate == pytest.approx(plain.estimate / .7) == pytest.approx(.2, abs=.04)
    assert corrected.low < .2 < corrected.high
    assert corrected.high - corrected.low > (plain.high - plain.low) / .7


def test_published_step_from_alpha_zero_is_significant_once_and_not_twice():
    """S1 at ratio 0.25, 800 pictures a model, paired at random: .14 to .08 is clear of zero, .14 to .11 is not."""
    base, other, third = (np.random.default_rng(4).permutation(["Man"] * k + ["Woman"] * (800 - k)) for k in (288, 464, 312))
    shuffled = np.random.default_rng(5).permutation
    assert fairness.paired_difference(base, shuffled(other)).low > 0
    found = fairness.paired_difference(base, shuffled(third))
    assert found.low < 0 < found.estimate == pytest.approx(.03)


def test_amplification_is_the_difference_of_shares():
    assert fairness.amplification(.9, .8) == pytest.approx(.1)
    np.testing.assert_allclose(fairness.amplification(np.array([.2, .8]), .5), [-.3, .3])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fairness.fairness_discrepancy([5]), "two at least"),
    (lambda: fairness.fairness_discrepancy([5, -1]), "at least 0"),
    (lambda: fairness.fairness_discrepancy([0, 0]), "not all of them 0"),
    (lambda: fairness.fairness_discrepancy([1, float("nan")]), "finite"),
    (lambda: fairness.fairness_discrepancy([1, 1], norm="l1"), "Choose one of tv, l2"),
    (lambda: fairness.fairness_discrepancy([1, 1], target=[.5, .6]), "add up to 1"),
    (lambda: fairness.fairness_discrepancy([1, 1], target=[.2, .3, .5]), "give 2 shares"),
    (lambda: fairness.null_band(0), "at least one picture"),
    (lambda: fairness.null_band(10, level=95), "between 0 and 1"),
    (lambda: fairness.share_interval(5, 4), "above the whole"),
    (lambda: fairness.discrepancy_interval([.4, .6]), "look like shares"),
    (lambda: fairness.corrected_share(5, 0, recall_men=1, recall_women=1), "n = 0"),
    (lambda: fairness.corrected_share(5, 9, recall_men=90, recall_women=91), r"lie in \[0, 1\]"),
    (lambda: Confusion(men_read_man=0, men_read_woman=0, women_read_man=1, women_read_woman=1), "labelled faces"),
    (lambda: fairness.paired_difference(["Man"], []), "same seeds"),
    (lambda: fairness.paired_difference(["Man"], ["man"]), "'man'"),
    (lambda: fairness.paired_difference(["Man"], [""]), "no decided picture"),
    (lambda: fairness.paired_difference(["a"], ["b"], classes=("a", "b", "c")), "two classes"),
    (lambda: fairness.amplification(80, .5), "Divide counts"),
])
def test_wrong_input_is_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as told:
        call()
    assert "\n" not in str(told.value)

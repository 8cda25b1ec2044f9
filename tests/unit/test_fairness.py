"""FD, null band, intervals, correction, runs and reports: published numbers, other libraries, known answers.

How often the intervals hold the truth is in test_fairness_coverage.py.
"""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.proportion import confint_proportions_2indep, multinomial_proportions_confint, proportion_confint

from debiaslib import fairness, fairness_report
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion

JUDGE = Confusion(men_read_man=410, men_read_woman=40, women_read_man=36, women_read_woman=414)


CHANCE = Confusion(men_read_man=6, men_read_woman=4, women_read_man=6, women_read_woman=4)
THREE = np.array([[85, 10, 5], [10, 80, 10], [2, 8, 90]])


def test_published_shares_give_the_published_discrepancies(root):
    """To the two printed decimals, twelve of twelve: but for ratio 4, alpha .01, where .89 is printed beside .40."""
    table = pd.read_csv(root / "data/published/s1_table.csv")
    found = np.array([fairness.fairness_discrepancy([share, 1 - share]) for share in table["male_share"]])
    off = ~np.isclose(found, table["fd"], atol=1e-9)
    assert table[off][["ratio", "alpha", "male_share", "fd"]].to_numpy().tolist() == [[4, .01, .89, .40]]
    assert found[off] == pytest.approx([.39])


def test_published_step_has_an_interval_also_without_its_pictures(root):
    """S1 at ratio 0.25, 800 pictures a model, from the printed shares: .14 to .08 is clear of zero, .14 to .11 is not."""
    table = pd.read_csv(root / "data/published/s1_table.csv").set_index(["ratio", "alpha"])["male_share"]
    start, best, first = (fairness.share_interval(round(800 * table[.25, alpha]), 800) for alpha in (0, .05, .01))
    found = fairness.discrepancy_difference(start, best)
    assert found.estimate == pytest.approx(.06)
    assert (found.low, found.high) == pytest.approx((.06 - 1.96 * .0244, .06 + 1.96 * .0244), abs=.002)
    assert found.low > 0 > fairness.discrepancy_difference(start, first).low


def test_hard_counts_name_every_class_and_leave_abstentions_out():
    assert fairness.count_classes(["Woman", "", "Man", "Woman"]).tolist() == [1, 2]
    assert fairness.count_classes(["b", "b"], classes=("a", "b", "c")).tolist() == [0, 2, 0]
    assert fairness.count_classes(pd.Series(["a", ""]), ("a", "b")).tolist() == [1, 0]


def test_soft_counts_are_mean_probabilities_times_the_decided():
    rows = [[.9, .1, 0], [.6, .4, 0], [np.nan] * 3]
    np.testing.assert_allclose(fairness.soft_counts(rows), [1.5, .5, 0])
    assert fairness.fairness_discrepancy(fairness.soft_counts(rows)) < fairness.fairness_discrepancy([2, 0, 0])


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


def test_correction_undoes_a_known_judge():
    read = .3 * .8 + .7 * (1 - .9)
    assert fairness.corrected_share(1000 * read, 1000, recall_men=.8, recall_women=.9) == pytest.approx(.3)
    assert fairness.corrected_share(0, 100, recall_men=.8, recall_women=.9) == 0
    assert fairness.corrected_share(100, 100, recall_men=.8, recall_women=.9) == 1
    assert fairness.corrected_share(25, 100, recall_men=1, recall_women=1) == .25


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


def test_one_judge_for_both_models_agrees_with_two_intervals_where_the_judge_is_sure():
    sure = Confusion.of(10**7 * np.array([[8, 2], [1, 9]]))
    for a, b in ((200, 350), (200, 600), (400, 420)):
        apart = fairness.discrepancy_difference(*(fairness.corrected_share_interval(k, 800, sure) for k in (a, b)))
        found = fairness.corrected_difference((a, 800), (b, 800), sure)
        assert (found.estimate, found.low, found.high) == pytest.approx((apart.estimate, apart.low, apart.high), abs=.006)


def test_a_judges_doubt_cancels_on_one_side_of_parity_and_adds_up_across_it():
    few = Confusion.of([[80, 20], [10, 90]])
    for pair, narrower in (((250, 350), True), ((250, 600), False)):
        apart = fairness.discrepancy_difference(*(fairness.corrected_share_interval(k, 800, few) for k in pair))
        found = fairness.corrected_difference(*((k, 800) for k in pair), few)
        assert (found.high - found.low < apart.high - apart.low) is narrower
        back = fairness.corrected_difference(*((k, 800) for k in pair[::-1]), few)
        assert (back.estimate, -back.high, -back.low) == pytest.approx((-found.estimate, found.low, found.high), abs=.01)


def test_amplification_is_the_difference_of_shares():
    assert fairness.amplification(.9, .8) == pytest.approx(.1)
    np.testing.assert_allclose(fairness.amplification(np.array([.2, .8]), .5), [-.3, .3])


def test_published_cleam_example():
    """Teo, Abdollahzadeh and Cheung 2023, StyleGAN2 and gender. Printed: errors of 4.98 % before and .62 % after (abstract),
    the corrected share .638; the classifier's accuracies are the authors' code's. Truth and reading follow from the errors.
    """
    recalls = {"recall_men": .9471627486437613, "recall_women": .9829294755877035}
    truth = .638 / (1 - .0062)
    read = truth * (1 - .0498)
    assert (round(truth, 3), round(read, 3)) == (.642, .610)
    assert fairness.corrected_share(1000 * read, 1000, **recalls) == pytest.approx(.638, abs=.0005)


def test_correction_of_many_classes_undoes_a_known_judge():
    rates = THREE / THREE.sum(1, keepdims=True)
    for shares in ([.2, .3, .5], [1, 0, 0], [.7, .3, 0]):
        np.testing.assert_allclose(fairness.corrected_shares(1000 * np.array(shares) @ rates, THREE), shares, atol=1e-6)


@pytest.mark.parametrize("counts", [[700, 200, 3], [0, 0, 50], [10, 1, 300], [990, 60, 0]])
def test_correction_of_many_classes_is_the_maximum_of_the_likelihood(counts):
    rates = THREE / THREE.sum(1, keepdims=True)
    found = fairness.corrected_shares(counts, THREE)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)

    def loss(p):
        return -np.sum(np.array(counts) * np.log(p @ rates)) / sum(counts)

    other = optimize.minimize(loss, [1 / 3] * 3, method="SLSQP", bounds=[(0, 1)] * 3, options={"ftol": 1e-14},
                              constraints={"type": "eq", "fun": lambda p: p.sum() - 1})
    assert loss(found) <= other.fun + 1e-9
    np.testing.assert_allclose(found, other.x, atol=1e-3)


@pytest.mark.parametrize("men", [5, 288, 500, 795])
def test_many_classes_agree_with_two(men):
    old = fairness.corrected_share_interval(men, 800, JUDGE)
    new = fairness.corrected_share_intervals([men, 800 - men], JUDGE)
    assert new[0].estimate == pytest.approx(old.estimate, abs=1e-9)
    assert (new[0].low, new[0].high) == pytest.approx((old.low, old.high), abs=.003)
    assert new[1].estimate == pytest.approx(1 - new[0].estimate)
    old = fairness.corrected_discrepancy(men, 800, JUDGE, target=.4)
    new = fairness.corrected_discrepancy_interval([men, 800 - men], JUDGE.matrix, target=[.4, .6])
    assert (new.estimate, new.low, new.high) == pytest.approx((old.estimate, old.low, old.high), abs=.003)


def test_corrected_interval_of_many_classes_carries_the_judges_own_doubt():
    narrow, wide = (fairness.corrected_discrepancy_interval([300, 400, 100], THREE * k) for k in (100, 1))
    plain = fairness.discrepancy_interval([300, 400, 100])
    assert wide.high - wide.low > narrow.high - narrow.low > plain.high - plain.low


def test_amplification_interval_is_newcombes_of_statsmodels():
    found = fairness.amplification_interval(fairness.share_interval(640, 800), fairness.share_interval(70, 100))
    assert (found.low, found.high) == pytest.approx(confint_proportions_2indep(640, 800, 70, 100, method="newcomb"))
    assert found.estimate == pytest.approx(.1)


def test_amplification_over_a_counted_training_set_has_the_samples_doubt_alone():
    share = fairness.corrected_share_interval(640, 800, JUDGE)
    found = fairness.amplification_interval(share, .8)
    assert (found.low, found.high) == pytest.approx((share.low - .8, share.high - .8))


def test_independent_difference_agrees_with_newcombe_where_both_lie_on_one_side():
    a, b = fairness.share_interval(640, 800), fairness.share_interval(560, 800)
    found = fairness.discrepancy_difference(a, b)
    assert (found.low, found.high) == pytest.approx(confint_proportions_2indep(640, 800, 560, 800, method="newcomb"))


def test_fairlearn_reads_the_same_shares_and_the_same_gap_between_groups():
    from fairlearn import metrics
    generator = np.random.default_rng(0)
    group, read = generator.choice(["a", "b"], 300), generator.choice(["Man", "Woman"], 300, p=[.3, .7])
    frame = metrics.MetricFrame(metrics=metrics.selection_rate, y_true=read == "Man", y_pred=read == "Man",
                                sensitive_features=group)
    shares = {name: fairness.share_interval(*_counted(read[group == name])).estimate for name in ("a", "b")}
    assert frame.by_group.to_dict() == pytest.approx(shares)
    gap = metrics.demographic_parity_difference(read == "Man", read == "Man", sensitive_features=group)
    assert abs(fairness.amplification(shares["a"], shares["b"])) == pytest.approx(gap)


def _counted(read):
    men, women = fairness.count_classes(read)
    return men, men + women


def attributes():
    """Both attributes even, and yet no young woman and no old man."""
    return pd.DataFrame({"gender": ["Man"] * 50 + ["Woman"] * 50 + ["", "Man"],
                         "age": ["young"] * 50 + ["old"] * 50 + ["old", ""]})


def test_parity_in_each_attribute_is_not_parity_in_all():
    counts = fairness_report.joint_counts(attributes(), {"gender": ["Man", "Woman"], "age": ["young", "old"]})
    assert counts.to_dict() == {("Man", "young"): 50, ("Man", "old"): 0, ("Woman", "young"): 0, ("Woman", "old"): 50}
    found = fairness_report.joint_measures(counts).set_index(["measure", "attributes"])["value"]
    assert found["fd", "gender"] == found["fd", "age"] == 0
    assert found["fd", "gender x age"] == pytest.approx(.5)
    assert found["kl", "gender x age"] == pytest.approx(np.log(2))
    assert found["max-min share", "gender x age"] == .5
    assert found["smallest subgroup", "gender x age"] == 0


def test_joint_measures_stand_against_any_target_and_its_own_marginals():
    counts = fairness_report.joint_counts(attributes(), {"gender": ["Man", "Woman"], "age": ["young", "old"]})
    found = fairness_report.joint_measures(counts, target=(counts / 100)[::-1]).set_index("measure")
    assert (found.loc["fd", "value"] == 0).all() and found.loc["kl", "value"] == 0
    impossible = pd.Series([0, .5, .25, .25], counts.index)
    found = fairness_report.joint_measures(counts, target=impossible).set_index(["measure", "attributes"])["value"]
    assert found["kl", "gender x age"] == np.inf
    assert found["fd", "age"] == pytest.approx(.25)


def test_subgroups_have_their_sizes_and_wilsons_intervals():
    counts = fairness_report.joint_counts(attributes(), {"gender": ["Man", "Woman"], "age": ["young", "old"]})
    frame = fairness_report.subgroup_shares(counts)
    assert frame.columns.tolist() == ["gender", "age", "n", "share", "low", "high", "target"]
    assert frame["n"].tolist() == [50, 0, 0, 50]
    np.testing.assert_allclose(frame[["low", "high"]].iloc[0], proportion_confint(50, 100, method="wilson"))


def test_mean_over_seeds_is_students_interval_of_the_runs():
    shares = np.array([.2, .35, .4])
    found = fairness_report.mean_over_seeds([(800 * share, 800) for share in shares])
    known = stats.t.interval(.95, 2, shares.mean(), stats.sem(shares))
    assert (found.low, found.high) == pytest.approx((known[0], known[1]), abs=1e-3)
    folded = fairness_report.mean_over_seeds([(800 * share, 800) for share in shares], quantity="fd")
    assert (folded.low, folded.high) == pytest.approx((max(0, .5 - known[1]), .5 - known[0]), abs=1e-3)


def test_runs_that_agree_by_luck_keep_the_sampling_error():
    found = fairness_report.mean_over_seeds([(240, 800)] * 3)
    assert (found.low, found.high) == pytest.approx(proportion_confint(720, 2400), abs=1e-3)


def test_mean_over_seeds_takes_the_judges_error_out_and_carries_its_doubt():
    runs = [(240, 800), (260, 800), (250, 800)]
    plain, corrected = (fairness_report.mean_over_seeds(runs, confusion=judge) for judge in (None, JUDGE))
    share = fairness.corrected_share(750, 2400, recall_men=JUDGE.recall_men, recall_women=JUDGE.recall_women)
    assert corrected.estimate == pytest.approx(share)
    assert corrected.high - corrected.low > (plain.high - plain.low) / (JUDGE.recall_men + JUDGE.recall_women - 1)


def test_shared_sampling_seeds_widen_the_interval_and_sharpen_the_difference():
    generator = np.random.default_rng(0)
    common = generator.random(800)
    a, b = (np.where(common < share, "Man", "Woman") for share in (.25, .4))
    runs, other = ([np.where(generator.random(800) < .1, "Man", x) for _ in range(3)] for x in (a, b))
    counts = [((run == "Man").sum(), 800) for run in runs]
    by_picture, by_count = (fairness_report.mean_over_seeds(x) for x in (runs, counts))
    assert by_picture.estimate == by_count.estimate
    assert by_picture.high - by_picture.low > 1.2 * (by_count.high - by_count.low)
    assert by_picture.high - by_picture.low > .8 * 2 * 1.96 * np.sqrt(.33 * .67 / 800)
    paired, shifted = (fairness_report.reduction_over_seeds(runs, x) for x in (other, [np.roll(run, 1) for run in other]))
    assert paired.estimate == pytest.approx(shifted.estimate)
    assert paired.high - paired.low < .9 * (shifted.high - shifted.low)
    assert paired.low > 0


def test_reduction_over_seeds_is_students_interval_of_the_differences():
    before, after = np.array([.2, .25, .22]), np.array([.3, .4, .36])
    found = fairness_report.reduction_over_seeds(*([(10_000 * share, 10_000) for share in x] for x in (before, after)))
    known = stats.ttest_rel(after, before).confidence_interval()
    assert found.estimate == pytest.approx((after - before).mean())
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-3)


def test_equivalence_is_shown_by_near_runs_and_not_by_few_pictures():
    near = fairness_report.equivalence([(398, 800), (405, 800), (401, 800)])
    few = fairness_report.equivalence([(24, 50), (26, 50), (25, 50)])
    far = fairness_report.equivalence([(440, 800), (445, 800), (450, 800)])
    assert (near.equivalent, few.equivalent, far.equivalent) == (True, False, False)
    assert near.interval.level == .9
    assert "lies within 0.450 to 0.550" in str(near) and "is not shown" in str(far)


def trend_table(fall, seeds=3):
    noise = np.random.default_rng(1).standard_normal((seeds, 4)) * .01
    rows = [(seed, alpha, .3 - fall * alpha + noise[seed, place])
            for seed in range(seeds) for place, alpha in enumerate((0, .01, .05, .1))]
    return pd.DataFrame(rows, columns=["seed", "alpha", "fd"])


def test_trend_tells_the_slope_and_whether_it_falls():
    falling, rising = (fairness_report.trend(trend_table(fall)) for fall in (2, -2))
    assert falling.slope.estimate == pytest.approx(-2, abs=.15)
    assert falling.slope.high < 0 < rising.slope.low
    assert falling.p_falling < .001 and rising.p_falling > .99
    first = stats.linregress(*trend_table(2)[trend_table(2)["seed"] == 0][["alpha", "fd"]].to_numpy().T).slope
    twice = trend_table(2)[trend_table(2)["seed"] == 0]
    both = pd.concat([twice, twice.assign(seed=1)])
    assert fairness_report.trend(both).slope.estimate == pytest.approx(first)


def test_trend_takes_seeds_with_end_points_only():
    table = trend_table(2, seeds=5)
    table = table[(table["seed"] < 3) | table["alpha"].isin([0, .1])]
    found = fairness_report.trend(table)
    assert found.slope.n == 5 and found.p_falling < .001


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_prints_itself_and_gives_a_tidy_frame():
    report = fairness_report.fairness_report([288, 512], abstained=20, confusion=JUDGE)
    assert (report.n, report.decided, report.null_band) == (820, 800, fairness.null_band(800))
    frame = report.frame()
    assert frame["measure"].tolist() == ["share", "share", "corrected share", "corrected share", "fd", "corrected fd"]
    assert frame.loc[4, "estimate"] == pytest.approx(.14)
    assert frame.loc[5, "estimate"] == pytest.approx(fairness.corrected_discrepancy(288, 800, JUDGE).estimate)
    assert "820 pictures, 800 decided, 20 abstained" in str(report)
    assert "FD 0.140 is outside the null band" in str(report)
    decisions = ["Man"] * 288 + ["Woman"] * 512 + [""] * 20
    assert report == fairness_report.FairnessReport.from_decisions(decisions, confusion=JUDGE)
    page = Tags()
    page.feed(report._repr_html_())
    tags = [tag for tag, _ in page.seen]
    assert not page.open and tags.count("caption") == 1 and "script" not in tags
    assert {attrs.get("scope") for tag, attrs in page.seen if tag == "th"} == {"col", "row"}
    assert "0.360 [0.327, 0.394]" in page.text


def test_report_of_many_classes_any_target_and_names_that_look_like_markup():
    report = fairness_report.fairness_report([30, 50, 0], classes=("<b>", "b", "c"), target=[.5, .25, .25], norm="l2")
    assert report.corrected_fd is None and len(report.frame()) == 4
    assert report.fd == fairness.discrepancy_interval([30, 50, 0], target=[.5, .25, .25], norm="l2")
    assert "<b>" not in report._repr_html_() and "&lt;b&gt;" in report._repr_html_()


def test_shares_of_many_classes_are_each_statsmodels():
    report = fairness_report.fairness_report([30, 50, 20], classes=("a", "b", "c"))
    wide = multinomial_proportions_confint([30, 50, 20], method="goodman")  # simultaneous, so wider
    for share, k, (low, high) in zip(report.shares, (30, 50, 20), wide, strict=True):
        assert (share.low, share.high) == pytest.approx(proportion_confint(k, 100, method="wilson"))
        assert low < share.low and share.high < high


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
    (lambda: fairness.corrected_difference((5, 10), (5, 10), Confusion.of([[5, 5], [5, 5]])), "at chance"),
    (lambda: fairness.corrected_difference((5, 10), (11, 10), JUDGE), "above the whole"),
    (lambda: fairness.corrected_share(5, 0, recall_men=1, recall_women=1), "n = 0"),
    (lambda: fairness.corrected_share(5, 9, recall_men=90, recall_women=91), r"lie in \[0, 1\]"),
    (lambda: Confusion(men_read_man=0, men_read_woman=0, women_read_man=1, women_read_woman=1), "labelled faces"),
    (lambda: fairness.paired_difference(["Man"], []), "same seeds"),
    (lambda: fairness.paired_difference(["Man"], ["man"]), "'man'"),
    (lambda: fairness.paired_difference(["Man"], [""]), "no decided picture"),
    (lambda: fairness.paired_difference(["a"], ["b"], classes=("a", "b", "c")), "two classes"),
    (lambda: fairness.amplification(80, .5), "Divide counts"),
    (lambda: fairness.count_classes(["Man", "man"]), "'man': unknown"),
    (lambda: fairness.count_classes(["a"], ("a", "a")), "all different"),
    (lambda: fairness.soft_counts([[.5, .6]]), "softmax"),
    (lambda: fairness.soft_counts([.5, .5]), "a row a picture"),
    (lambda: fairness.corrected_shares([5, 5, 5], JUDGE), "for 3 classes"),
    (lambda: fairness.corrected_shares([5, 5], [[0, 0], [1, 9]]), "labelled picture"),
    (lambda: fairness.corrected_shares([5, 5], [[6, 4], [6, 4]]), "at chance between"),
    (lambda: fairness.amplification_interval(*(fairness.share_interval(1, 9, level=x) for x in (.9, .95))), "levels"),
    (lambda: fairness_report.mean_over_seeds([(5, 9)]), "1 run"),
    (lambda: fairness_report.mean_over_seeds([(5, 9)] * 2, quantity="sd"), "Choose share or fd"),
    (lambda: fairness_report.mean_over_seeds([(9, 5)] * 2), "0 <= men read"),
    (lambda: fairness_report.mean_over_seeds([["", ""], ["Man", ""]]), "one decided picture"),
    (lambda: fairness_report.mean_over_seeds([(5, 9)] * 2, level=95), "between 0 and 1"),
    (lambda: fairness_report.mean_over_seeds([(5, 9)] * 2, confusion=CHANCE), "at chance"),
    (lambda: fairness_report.reduction_over_seeds([(5, 9)] * 2, [(5, 9)] * 3), "same seeds for both"),
    (lambda: fairness_report.equivalence([(5, 9)] * 2, margin=5), "between 0 and .5"),
    (lambda: fairness_report.trend(trend_table(1), value="kid"), "no column kid"),
    (lambda: fairness_report.trend(trend_table(1, seeds=1)), "two at least"),
    (lambda: fairness_report.joint_counts(attributes(), {"gender": ["Man", "Woman"]}), "two attributes"),
    (lambda: fairness_report.joint_counts(attributes(), {"gender": ["Man", "Woman"], "age": ["young", "aged"]}), "'old'"),
    (lambda: fairness_report.fairness_report([5, 5, 5]), "3 counts of 2 classes"),
])
def test_wrong_input_is_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as told:
        call()
    assert "\n" not in str(told.value)


def test_a_confusion_is_its_matrix():
    assert Confusion.of(JUDGE.matrix) == JUDGE

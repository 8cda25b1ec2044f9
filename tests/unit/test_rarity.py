"""Rarity without labels: toys whose truth is known, and what the weights must never do."""

import numpy as np
import pytest

from debiaslib import rarity
from debiaslib.errors import InputError


def two_groups(share: float, *, count: int = 400, gap: float = 6.0, width: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian groups `gap` deviations apart on the first axis; a share of the first."""
    generator = np.random.default_rng(seed)
    first = np.arange(count) < round(share * count)
    rows = generator.normal(size=(count, width)) * np.array([1.0, 1.0, 1.0] + [0.2] * (width - 3))
    rows[:, 0] += gap * first
    return rows, first


@pytest.mark.parametrize("share", [0.1, 0.2, 0.8])
def test_density_moves_a_skewed_set_towards_even(share):
    rows, first = two_groups(share, gap=4)
    aimed = rarity.weighted_share(rarity.density_values(rows), first)
    assert abs(aimed - 0.5) < 0.6 * abs(share - 0.5)


def test_density_with_exponent_equal_to_dimension_is_uniform_over_the_line():
    """One axis, two uniform blocks of equal length, one nine times as dense: weights even them out exactly, edges aside."""
    first = np.linspace(0, 1, 900)
    rows = np.concatenate([first, np.linspace(5, 6, 100)])[:, None]
    config = rarity.DensityConfig(dims=1, neighbours=0.02, exponent=1.0, most=50)
    aimed = rarity.weighted_share(rarity.density_values(rows, config=config), np.arange(1000) < 900)
    assert aimed == pytest.approx(0.5, abs=0.03)


def test_density_leaves_one_gaussian_cloud_even_between_its_halves():
    rows, _ = two_groups(0.0, count=1000)
    aimed = [rarity.weighted_share(rarity.density_values(rows), rows[:, axis] > 0) for axis in range(3)]
    assert np.allclose(aimed, 0.5, atol=0.08)


def test_given_axes_say_what_counts_as_apart():
    """The few differ along the second axis alone; far more variance lies along the first, which they share."""
    rows, few = two_groups(0.2, gap=4)
    rows[:, 3] = 20 * np.random.default_rng(3).normal(size=len(rows))
    one = rarity.DensityConfig(dims=1, exponent=1.0)
    seen, blind = (rarity.weighted_share(rarity.density_values(rows, axes=np.eye(10)[[axis]], config=one), few) for axis in (0, 3))
    assert seen > 0.3 and blind == pytest.approx(0.2, abs=0.05)
    assert rarity.weighted_share(rarity.density_values(rows, config=one), few) == pytest.approx(blind, abs=0.01)


def test_axes_that_merely_turn_the_space_change_no_weight():
    rows, _ = two_groups(0.2)
    turned, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    assert np.allclose(rarity.density_values(rows, axes=np.eye(10)[:3]), rarity.density_values(rows, axes=turned @ np.eye(10)[:3]))


def test_faces_alike_along_the_axes_weigh_alike():
    rows = np.random.default_rng(0).normal(size=(30, 4)) * [0, 0, 1, 1]
    assert np.allclose(rarity.density_values(rows, axes=np.eye(4)[:2]), 1)


def test_axes_of_another_representation_are_refused():
    with pytest.raises(InputError, match="width 10 and axes of width 128"):
        rarity.density_values(two_groups(0.2)[0], axes=np.eye(128))


@pytest.mark.parametrize("count", [100, 400, 2000])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_reference_reaches_its_mix_and_does_not_overshoot_with_more_faces(share, count):
    rows, first = two_groups(share, count=count)
    reference, _ = two_groups(0.5, count=100, seed=1)
    aimed = rarity.weighted_share(rarity.reference_values(rows, reference), first)
    assert aimed == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.6, 2.0])
def test_how_sets_are_told_apart_is_the_f_of_a_regression_on_the_axes(shift):
    """Hotelling's T^2 of two samples is the F test of a linear regression of which sample a row is from (Fisher 1936)."""
    rows, reference = np.random.default_rng(2).normal(size=(2, 80, 5))
    rows[:, 0] += shift
    design = np.c_[np.ones(160), np.concatenate([rows, reference])[:, :3]]
    which = np.r_[np.ones(80), np.zeros(80)]
    left = which - design @ np.linalg.lstsq(design, which, rcond=None)[0]
    explained = 1 - left @ left / (160 * which.var())
    told = (explained / 3) / ((1 - explained) / (160 - 3 - 1))
    three = rarity.ReferenceConfig(apart_dims=3, chance=0.5)
    assert rarity.told_apart(rows, reference, np.eye(5), config=three) == pytest.approx(np.clip(told - 0.5, 0, 1))


def test_a_set_is_told_apart_from_another_mix_and_hardly_from_its_like():
    apart = {share: [rarity.told_apart(two_groups(share, count=100, seed=seed)[0], two_groups(0.5, count=100, seed=seed + 1)[0], np.eye(10))
                     for seed in range(0, 60, 2)] for share in (0.2, 0.5, 0.8)}
    assert np.mean(apart[0.2]) > 0.99 and np.mean(apart[0.8]) > 0.99 and np.mean(apart[0.5]) < 0.4


@pytest.mark.parametrize(("offset", "told"), [(0.0, 0), (0.3, 1)])
def test_where_neither_set_varies_any_difference_is_sure(offset, told):
    rows, reference = np.random.default_rng(2).normal(size=(2, 80, 6)) * [1, 1, 0, 1, 1, 1]
    reference[:, 2] += offset
    assert rarity.told_apart(rows, reference, np.eye(6)) == told


def test_reference_weights_are_the_true_ratio_of_two_known_mixtures():
    """Along the axis both sets are mixtures of N(0, 1) and N(6, 1): .2 and .5 of the second. The ratio is known."""
    rows, first = two_groups(0.2, count=4000, width=1)
    reference, _ = two_groups(0.5, count=4000, width=1, seed=1)
    values = rarity.reference_values(rows, reference)
    assert np.median(values[first]) == pytest.approx(0.5 / 0.2, rel=0.05)
    assert np.median(values[~first]) == pytest.approx(0.5 / 0.8, rel=0.05)


@pytest.mark.parametrize("gap", [3.0, 6.0])
@pytest.mark.parametrize("share, drawn_share", [(0.2, 0.35), (0.8, 0.6), (0.8, 0.75)])
def test_components_read_the_mix_of_any_set_without_a_label(share, drawn_share, gap):
    rows, reference, drawn = (two_groups(part, count=400, gap=gap, seed=seed)[0] for seed, part in enumerate((share, 0.5, drawn_share)))
    found = rarity.find_components(rows, reference)
    turned = found.axis[0] < 0  # nobody says which group is which
    for part, truth in ((rows, share), (reference, 0.5), (drawn, drawn_share)):
        assert found.proportions(part)[0 if turned else 1] == pytest.approx(truth, abs=0.06)


def test_further_faces_of_any_mix_say_where_the_groups_lie():
    """Two groups 2.8 deviations apart in 128 dimensions: a hundred faces a set tell them apart badly, six hundred more well."""
    def faces(share: float, seed: int, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
        first = np.arange(count) < round(share * count)
        rows = np.random.default_rng(seed).normal(scale=0.5, size=(count, 128))
        rows[:, 0] += 1.4 * first
        return rows, first
    away, right = {"alone": [], "more": []}, {"alone": [], "more": []}
    for seed in range(0, 40, 4):
        (rows, _), (reference, _), (drawn, first) = (faces(share, seed + number) for number, share in enumerate((0.2, 0.5, 0.4)))
        for name, more in (("alone", None), ("more", faces(0.65, seed + 3, count=600)[0])):
            found = rarity.find_components(rows, reference, more=more)
            group = 0 if found.axis[0] < 0 else 1  # nobody says which is which
            away[name].append(abs(found.proportions(drawn)[group] - 0.4))
            right[name].append(((found.members(drawn, found.proportions(drawn))[:, group] > 0.5) == first).mean())
    assert np.mean(right["more"]) > 0.85 > 0.8 > np.mean(right["alone"])
    assert np.mean(away["more"]) < 0.06 < 0.1 < np.mean(away["alone"])


def test_further_faces_are_of_the_same_representation():
    rows, reference, more = two_groups(0.2)[0], two_groups(0.5)[0], two_groups(0.5, width=4)[0]
    with pytest.raises(InputError, match="one representation"):
        rarity.find_components(rows, reference, more=more)


@pytest.mark.parametrize("first, second, part", [(0.6, 0.4, 0.5), (0.4, 0.6, 0.5), (0.6, 0.6, 0.5), (0.5, 0.5, 0.5), (0.9, 0.3, 0.66),
                                                 (0.9, 0.6, 1.0), (0.45, 0.1, 0.0), (0.52, 0.51, 0.52)])
def test_the_mix_lies_where_the_line_between_two_readings_is_even(first, second, part):
    """Readings close together say little, so the part stays near half; far apart they are taken at their word."""
    assert rarity.mixing_part(first, second, even=0.5) == pytest.approx(part, abs=0.011)


@pytest.mark.parametrize("beside", [-0.04, 0.04])
@pytest.mark.parametrize("first, second", [(0.6, 0.4), (0.35, 0.6)])
def test_a_mix_that_was_tried_says_how_far_it_lies_beside_the_line(first, second, beside):
    def drawn(part):
        return first + part * (second - first) + beside
    part = rarity.mixing_part(first, second, even=0.5)
    again = rarity.mixing_part(first, second, even=0.5, tried=(part, drawn(part)))
    assert abs(drawn(again) - 0.5) < 0.35 * abs(drawn(part) - 0.5)


def test_what_was_tried_and_drew_even_is_kept():
    assert rarity.mixing_part(0.6, 0.45, even=0.52, tried=(0.3, 0.52)) == 0.3
    assert rarity.mixing_part(0.5, 0.5, even=0.5, tried=(0.4, 0.7)) == 0.4, "two alike: no mix of them would be better"


def test_mixing_by_readings_that_err_ends_nearer_even_than_either_training_or_half_of_both():
    """Trainings miss by the same training faces (.04) and by chance (.04); readings by the faces (.03) and by counting (.02)."""
    draw = np.random.default_rng(0).normal
    common, chance, seen, counted = (draw(scale=scale, size=(4000, 2)) for scale in (0.04, 0.04, 0.03, 0.02))
    first = 0.5 + common[:, 0] + chance[:, 0]
    read = first + seen[:, 0] + counted[:, 0]
    second = first - chance[:, 0] + chance[:, 1] - 2 * 0.78 * (read - 0.5)
    reread = second + seen[:, 0] + counted[:, 1]
    part = np.array([rarity.mixing_part(*pair, even=0.5) for pair in zip(read, reread, strict=True)])
    missed = {"first": first, "half": (first + second) / 2, "mix": first + part * (second - first), "second": second}
    missed = {name: np.abs(share - 0.5).mean() for name, share in missed.items()}
    assert missed["mix"] < min(missed["half"], missed["first"], missed["second"]) and missed["mix"] < 0.75 * missed["first"]


@pytest.mark.parametrize("read, even", [(0.47, 0.5), (0.55, 0.5), (0.30, 0.35), (0.8, 0.75)])
def test_even_is_one_half_unless_the_reference_says_otherwise(read, even):
    """100 faces are counted to within .05: nearer to one half a reading is noise, further off the groups are not those of a half."""
    assert rarity.even_shares(np.array([read, 1 - read]), count=100) == pytest.approx([even, 1 - even])
    assert rarity.even_shares(np.array([read, 1 - read]), count=10**8) == pytest.approx([read, 1 - read], abs=1e-3)


def test_a_pair_of_trainings_lies_far_enough_apart_to_mix():
    """The first drew even, or nearly: the second still goes past even, away from where the first seemed to lie."""
    rows, first = two_groups(0.3)
    reference, drawn = two_groups(0.5, seed=1)[0], two_groups(0.51, seed=2)[0]
    before = rarity.reference_values(rows, reference)
    moved = [rarity.weighted_share(rarity.recalibrated_values(before, faces=rows, reference=reference, drawn=drawn, least=least), first)
             - rarity.weighted_share(before, first) for least in (0.0, 0.15)]
    assert moved[0] * moved[1] > 0 and abs(moved[0]) < 0.06 and abs(moved[1]) == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("share, missed", [(0.2, 0.1), (0.8, 0.15), (0.8, -0.1)])
def test_recalibrated_values_take_off_twice_what_was_missed(share, missed):
    rows, first = two_groups(share)
    reference, _ = two_groups(0.5, seed=1)
    drawn, _ = two_groups(0.5 + missed, seed=2)
    before = rarity.reference_values(rows, reference)
    after = rarity.recalibrated_values(before, faces=rows, reference=reference, drawn=drawn)
    moved = rarity.weighted_share(after, first) - rarity.weighted_share(before, first)
    assert moved == pytest.approx(-2 * missed, abs=0.07) and after.mean() == pytest.approx(1)


def test_recalibrating_goes_no_further_than_the_faces_do():
    rows, first = two_groups(0.5)
    reference, _ = two_groups(0.9, seed=1)
    drawn, _ = two_groups(0.05, seed=2)
    after = rarity.recalibrated_values(np.ones(400), faces=rows, reference=reference, drawn=drawn)
    assert 0.85 < rarity.weighted_share(after, first) <= 1 and after.min() >= 0 and after.max() <= 8


def test_an_axis_that_tells_the_sets_apart_and_not_the_groups_is_not_taken():
    """In 128 dimensions 100 faces can be told from 100 others whatever they show; such an axis once gave weights of nothing."""
    def faces(share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.arange(100) < round(100 * share)
        rows = np.random.default_rng(seed).normal(scale=0.5, size=(100, 128))
        rows[:, 0] += 2 * first
        return rows, first

    (rows, first), (reference, _) = faces(0.8, 5000), faces(0.5, 5001)
    careless = rarity.reference_values(rows, reference, config=rarity.ReferenceConfig(least=0))
    assert rarity.weighted_share(careless, first) > 0.7 > 0.62 > rarity.weighted_share(rarity.reference_values(rows, reference), first)


def test_strays_are_no_faces():
    generator = np.random.default_rng(0)
    faces, other = generator.normal(size=(80, 6)), generator.normal(loc=8, size=(60, 6))
    probability = rarity.face_probability(np.concatenate([faces, other[:4]]), other[4:])
    assert probability[:80].min() > 0.8 and probability[80:].max() < 0.3


def test_values_have_mean_one_and_keep_to_the_limit():
    values = rarity.clipped(np.r_[np.ones(99), 1e6], most=8)
    assert values.mean() == pytest.approx(1) and values.max() <= 8.001 and values.min() > 0


def test_effective_share_and_top_share_of_known_weights():
    assert rarity.effective_share(np.ones(10)) == 1
    assert rarity.effective_share(np.r_[np.ones(5), np.zeros(5)]) == pytest.approx(0.5)
    assert rarity.top_share(np.r_[np.full(99, 1.0), 99.0]) == pytest.approx(0.5)
    assert rarity.weighted_share([3, 1, 1, 1], [True, False, False, False]) == pytest.approx(0.5)


def test_equal_faces_weigh_the_same():
    assert np.allclose(rarity.density_values(np.ones((20, 3))), 1)


@pytest.mark.parametrize("rows, said", [(np.ones((3, 4)), "shape \\(3, 4\\)"), (np.full((20, 4), np.nan), "finite"), (np.ones(20), "\\(20,\\)")])
def test_too_few_or_broken_features_are_refused(rows, said):
    with pytest.raises(InputError, match=said):
        rarity.density_values(rows)


def test_a_reference_in_another_representation_is_refused():
    with pytest.raises(InputError, match="one representation"):
        rarity.reference_values(np.random.default_rng(0).normal(size=(20, 4)), np.ones((20, 5)))

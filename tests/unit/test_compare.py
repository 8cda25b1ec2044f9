"""Folders side by side, quality within groups, composition alone, and the scales a published figure may have."""

import json

import numpy as np
import pandas as pd
import pytest
from painted import confusion_table, paint, toy_extractor

from debiaslib import compare, fairness, measure, quality
from debiaslib.errors import InputError
from debiaslib.quality import Features

pytestmark = pytest.mark.usefixtures("toys")

LABELS = ["Male"] * 20 + ["Female"] * 20


def features_of(pool, *, recipe="r", source="a"):
    pool = np.asarray(pool, np.float32)
    return Features("toy", recipe, pool, pool[:, :3], source)


def people(generator, men, women, *, apart=4., shift=0., dimension=6):
    """Two clouds `apart`; the second is the women's. `shift` moves both away from where the reference has them."""
    pool = generator.normal(size=(men + women, dimension)) + shift
    pool[men:, 0] += apart
    return features_of(pool), ["Man"] * men + ["Woman"] * women


@pytest.fixture
def balanced():
    return people(np.random.default_rng(0), 150, 150)


def test_quality_within_groups_is_that_of_each_group_and_their_mean(balanced):
    reference, _ = balanced
    labels = ["Male"] * 150 + ["Female"] * 150
    ours, perceived = people(np.random.default_rng(1), 60, 30)
    perceived[:5] = [""] * 5
    table = compare.quality_by_group(ours, perceived, reference, labels, halves=10).set_index("group")
    assert list(table.index) == ["Man", "Woman", "average"]
    assert table["n"].tolist() == [55, 30, 85]
    men = ours.pool[5:60], reference.pool[:150]
    assert (table.loc["Man", "density"], table.loc["Man", "coverage"]) == quality.density_coverage(*men)
    found = quality.kernel_distance_interval(*men)
    ends = table.loc["Man", ["kid", "kid_low", "kid_high"]].tolist()
    assert ends == pytest.approx([found.estimate, found.low, found.high])
    for metric in compare.METRICS:
        assert table.loc["average", metric] == pytest.approx(table[metric][:2].mean())
        assert (table[f"{metric}_low"] <= table[metric]).all()
        assert (table[f"{metric}_high"] >= table[metric]).all()
    assert table.loc["average", "kid_high"] - table.loc["average", "kid"] < (
        table.loc["Woman", "kid_high"] - table.loc["Woman", "kid"])


def test_a_group_that_hardly_occurs_leaves_no_average(balanced):
    reference, words = balanced
    ours, perceived = people(np.random.default_rng(2), 40, 3)
    table = compare.quality_by_group(ours, perceived, reference, words, halves=5).set_index("group")
    assert np.isfinite(table.loc["Man", "kid"])
    assert table.loc[["Woman", "average"], list(compare.METRICS)].isna().all(axis=None)


def test_equal_numbers_take_the_number_out_of_coverage(balanced):
    reference, words = balanced
    few, many = (people(np.random.default_rng(3), n, n) for n in (30, 140))
    raw = [compare.quality_by_group(*one, reference, words, halves=3)["coverage"].iloc[-1] for one in (few, many)]
    equal = [compare.quality_by_group(*one, reference, words, halves=3, per_group=30)["coverage"].iloc[-1]
             for one in (few, many)]
    assert raw[1] - raw[0] > .2
    assert abs(equal[1] - equal[0]) < .1


def test_a_change_for_the_worse_is_seen_and_no_change_passes(balanced):
    reference, words = balanced
    before = people(np.random.default_rng(4), 100, 60)
    same, worse = people(np.random.default_rng(5), 60, 100), people(np.random.default_rng(6), 60, 100, shift=1.)
    good = compare.group_change(*same, *before, reference, words, halves=12).set_index("metric")
    bad = compare.group_change(*worse, *before, reference, words, halves=12).set_index("metric")
    assert good["no_worse"].all()
    assert not bad["no_worse"].any()
    assert bad.loc["kid", "low"] > 0
    assert bad.loc["coverage", "high"] < 0


def test_composition_alone_moves_a_distance_to_a_balanced_reference(balanced):
    """The same pictures in other proportions: the plain distances praise parity, those within groups do not care."""
    reference, words = balanced
    ours = people(np.random.default_rng(7), 150, 150)
    curve = compare.composition_curve(*ours, reference, words, shares=(.1, .3, .5, .9), n=120, repeats=4)
    mean = curve.groupby("share")[["frechet", "kid", "group_kid"]].mean()
    assert mean["frechet"].idxmin() == mean["kid"].idxmin() == .5
    assert mean.loc[.1, "frechet"] > 3 * mean.loc[.5, "frechet"]
    assert mean.loc[.1, "kid"] > 3 * mean.loc[.3, "kid"]
    assert mean["group_kid"].abs().max() < .05 * mean.loc[.1, "kid"]


def test_candidates_of_the_puzzle_are_the_distances_they_say():
    generator = np.random.default_rng(8)
    ours, theirs = (Features("toy", "r", generator.normal(size=(90, 12)).astype(np.float32) + i,
                             generator.normal(size=(90, 7)).astype(np.float32), str(i)) for i in range(2))
    pixels = tuple(np.full((90, 4, 4, 3), level, np.uint8) for level in (51, 102))
    table = compare.scale_candidates(ours, theirs, stem=(ours.pool, theirs.pool), pixels=pixels, fits=(.1, .2))
    values = table.set_index("candidate")["value"]
    whole = quality.frechet_distance(ours.pool, theirs.pool)
    assert values["Frechet, pooled features"] == values["Frechet, first layer"] == pytest.approx(whole)
    assert values["Frechet, per dimension (over D)"] == pytest.approx(whole / 12)
    assert values["Frechet, mean colour in [0, 1]"] == pytest.approx(3 * .2**2)
    assert values["Frechet, 2 principal components"] < values["Frechet, 8 principal components"] < whole
    assert table.set_index("candidate")["fits"].to_dict()["Frechet, mean colour in [0, 1]"]
    assert (table["fits"] == table["value"].between(.1, .2)).all()
    assert (table["n"] == 90).all()


def test_the_first_layer_is_the_networks_own():
    coarse = np.random.default_rng(9).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    network = quality.read_efficientnet_lite0().eval()
    import torch

    with torch.no_grad():
        pixels = (torch.from_numpy(quality.resized(coarse, 224)) - 127) / 128
        expected = network._swish(network._bn0(network._conv_stem(pixels))).mean(dim=(2, 3))
    np.testing.assert_allclose(compare.stem_features(coarse), expected, atol=1e-5)


def test_the_puzzles_table_is_written_with_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setitem(quality.EXTRACTORS, "efficientnet-lite0", toy_extractor)
    monkeypatch.setattr(quality, "load_stem", toy_extractor)
    samples, real = (paint(tmp_path / name, men=12, women=12, size=16) for name in ("samples", "real"))
    table = compare.fid_puzzle(samples, reference=real, out=tmp_path / "puzzle.csv", n=12, size=16)
    read = pd.read_csv(tmp_path / "puzzle.csv")
    assert list(read.columns) == ["pair", "candidate", "dimension", "value", "n", "m", "fits", "brackets"]
    assert read.groupby("pair")[["n", "m"]].first().to_dict("index") == {
        "generated": {"n": 12, "m": 24}, "real": {"n": 12, "m": 12}}
    np.testing.assert_allclose(read["value"], table["value"], rtol=1e-5)
    told = json.loads((tmp_path / "puzzle.json").read_text())
    assert told["published_range"] == [.014, .043]
    assert "compare.fid_puzzle('samples', reference='real', out='puzzle.csv', n=12" in told["command"]
    assert str(tmp_path) not in json.dumps(told)
    values = read.pivot(index="candidate", columns="pair", values="value")
    spans = (values["real"] <= .014) & (values["generated"] >= .043)
    assert (read["brackets"] == read["candidate"].map(spans)).all()
    with pytest.raises(InputError, match=r"puzzle\.csv: exists"):
        compare.fid_puzzle(samples, reference=real, out=tmp_path / "puzzle.csv")


@pytest.fixture
def reference(tmp_path):
    return paint(tmp_path / "reference", men=20, women=20, gender=LABELS)


@pytest.fixture
def folders(tmp_path):
    """Two models on the same seeds, in another order; a third without seeds or names in common."""
    a = paint(tmp_path / "a", men=30, women=10, prompt="a face", seed=range(40))
    b = paint(tmp_path / "b", men=20, women=20, prompt="a face", seed=[*range(39, -1, -1)])
    return [a, b, paint(tmp_path / "c", men=12, women=14, suffix="bmp")]


def test_a_row_a_folder_with_the_figures_of_measure(folders, reference):
    table = compare.compare_folders(folders, reference=reference, extractor="toy", names=["a", "b", "c"])
    assert list(table.index) == ["a", "b", "c"]
    for folder, name in zip(folders, table.index, strict=True):
        single = measure.measure(folder, reference=reference, extractor="toy")
        for column in ("n", "fd", "fd_low", "fd_high", "male_share", "frechet", "kid", "coverage"):
            assert table.loc[name, column] == pytest.approx(single[column]), (name, column)
        assert table.attrs["warnings"][name] == single["warnings"]
    assert table.attrs["distance"] == "Frechet distance"
    assert table["pairs"].tolist() == [0, 40, 0]
    assert table.loc[["a", "c"], ["fd_change", "kid_change"]].isna().all(axis=None)
    assert "<table" in table._repr_html_()


def test_changes_are_paired_by_seed(folders, reference):
    table = compare.compare_folders(folders[:2], reference=reference, extractor="toy", names=["a", "b"])
    judged = [["Man"] * 30 + ["Woman"] * 10, (["Man"] * 20 + ["Woman"] * 20)[::-1]]
    expected = fairness.paired_difference(*judged)
    row = table.loc["b"]
    assert row["fd_change"] == pytest.approx(-expected.estimate) == pytest.approx(0 - .25)
    assert (row["fd_change_low"], row["fd_change_high"]) == pytest.approx((-expected.high, -expected.low), abs=.03)
    features = [quality.extract(measure.open_pictures(folder), extractor=toy_extractor()) for folder in folders[:2]]
    real = quality.extract(measure.open_pictures(reference), extractor=toy_extractor())
    kid = quality.kernel_distance_difference(features[1].pool[::-1], features[0].pool, real.pool)
    assert (row["kid_change"], row["kid_change_low"]) == pytest.approx((kid.estimate, kid.low))


def test_without_seeds_the_names_pair_and_the_correction_is_carried(tmp_path, reference):
    pair = [paint(tmp_path / name, men=men, women=40 - men) for name, men in (("d", 30), ("e", 24))]
    (pair[1] / "images" / "039.png").unlink()
    table = compare.compare_folders(pair, reference=reference, extractor="toy", confusion=confusion_table())
    row = table.iloc[1]
    assert row["pairs"] == 39
    assert np.isfinite(row["fd_corrected_change"])
    assert row["fd_corrected_change"] < row["fd_change"] < 0


def test_group_averages_are_at_equal_numbers(folders, reference):
    table = compare.compare_folders(folders[:2], reference=reference, extractor="toy", names=["a", "b"])
    assert np.isfinite(table[["group_kid", "group_density", "group_coverage"]]).all(axis=None)
    one = measure.measure_parts(folders[0], reference=reference, extractor="toy")
    real = measure.open_reference(reference, size=8, extractor=toy_extractor())
    expected = compare.quality_by_group(one.features, one.rows["perceived"], real.features, real.labels, per_group=10,
                                        halves=2)
    assert table.loc["a", "group_kid"] == pytest.approx(expected["kid"].iloc[-1])


def test_a_reference_without_labels_gives_no_group_figures(folders, tmp_path):
    plain = paint(tmp_path / "plain", men=20, women=20)
    table = compare.compare_folders(folders[:1], reference=plain, extractor="toy")
    assert table[["group_kid", "group_density", "group_coverage"]].isna().all(axis=None)


@pytest.mark.parametrize(("call", "message"), [
    (lambda ours, words: compare.quality_by_group(ours, words[:3], ours, words), "3 perceived words for 300 pictures"),
    (lambda ours, words: compare.quality_by_group(ours, words, ours, [""] * 300), "no label in the reference"),
    (lambda ours, words: compare.quality_by_group(ours, words, features_of(ours.pool, recipe="s"), words), "same extractor"),
    (lambda ours, words: compare.composition_curve(ours, words, ours, ["Man"] * 300), "two labels"),
    (lambda ours, words: compare.composition_curve(ours, words, ours, words, n=400), "share 0.1 of 400 needs 40 and 360"),
    (lambda ours, words: compare.compare_folders([], reference="r"), "give one folder at least"),
    (lambda ours, words: compare.compare_folders(["a", "a"], reference="r"), "2 folders and 1 different names"),
])
def test_wrong_input_is_told_in_one_line(balanced, call, message):
    with pytest.raises(InputError, match=message) as told:
        call(*balanced)
    assert "\n" not in str(told.value)

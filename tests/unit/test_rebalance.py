"""Rebalancing, on a generator whose truth is known: attributes are linear in its latents and painted into its pictures."""

import argparse
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import attributes, fairness, latent_regions, rebalance, rebalance_compare
from debiaslib.errors import InputError
from debiaslib.latent_generators import gaussian_latents
from debiaslib.quality import Extractor
from debiaslib.rebalance import Cells, RebalanceConfig, Rebalancer, read_target

DIM, SIDE = 8, 16
NORMALS = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]])
OFFSETS = np.array([0.3, -0.8, -1.2])
"""Sides: .62, .21 and .12 are positive; the first two go together."""
CONFIG = RebalanceConfig(fit_samples=1200, codes=120, calibration=100, chunk=200, least_codes=30)


class ToyGenerator:
    """Paints sigmoid(3 t_k) into the k-th channel of the left half; the other latents are the texture of the right one."""

    name, latent_dim, image_size = "toy", DIM, SIDE

    def sample_latents(self, n, seed):
        return gaussian_latents(n, DIM, seed=seed)

    def decode(self, latents):
        images = np.empty((len(latents), SIDE, SIDE, 3))
        images[:, :, :SIDE // 2] = 255 / (1 + np.exp(-3 * (latents @ NORMALS.T + OFFSETS)))[:, None, None]
        texture = np.resize(latents[:, 3:].T, (SIDE * 24, len(latents))).T.reshape(-1, SIDE, SIDE // 2, 3)
        images[:, :, SIDE // 2:] = 127 + 40 * texture
        return np.clip(images.round(), 0, 255).astype(np.uint8)


class ToyJudge:
    """Reads the painted score; with `blind`, abstains on that share of the pictures, at random but always on the same
    ones."""

    attributes = ("male", "older", "dark")

    def __init__(self, name="toy", blind=0.0, noise=0.0, die_after=None):
        self.name, self.blind, self.noise, self.calls, self.die_after = name, blind, noise, 0, die_after

    def score(self, images, *, progress=False):
        self.calls += len(images)
        if self.die_after is not None and self.calls > self.die_after:
            raise KeyboardInterrupt
        scores = images[:, :, :SIDE // 2].mean(axis=(1, 2)) / 255
        chance = np.random.default_rng(int(images[0].sum())).random((len(images), 2))
        scores = np.clip(scores + self.noise * (chance[:, :1] - 0.5), 0, 1)
        scores[chance[:, 1] < self.blind] = np.nan
        return pd.DataFrame(scores, columns=self.attributes)


class OtherGenerator(ToyGenerator):
    def decode(self, latents):
        return 255 - super().decode(latents)


def fitted(attributes=("male", "older"), target=None, *, judge=None, config=CONFIG, work=None):
    cells, shares = read_target(attributes, target)
    return Rebalancer.fit(ToyGenerator(), judge or ToyJudge(), cells, config=config, work=work), shares


@pytest.fixture(scope="module")
def two():
    return fitted()


def judged(images, cells, shares, *, judge=None):
    return rebalance.distance_to_target(rebalance.read_scores(judge or ToyJudge(), images, cells.attributes), cells, shares)


def test_cells_are_named_and_found():
    cells = Cells({"male": (0.5,), "older": (0.25, 0.5, 0.75)})
    assert len(cells) == 8 and cells.names[0] == "male=0,older=0-0.25" and cells.names[-1] == "male=1,older=0.75-1"
    scores = np.array([[0.2, 0.1], [0.9, 0.6], [0.55, 0.1], [np.nan, 0.1], [0.5, 0.75], [1.0, 1.0]])
    assert cells.index(scores).tolist() == [0, 6, 4, -1, 7, 7]
    assert cells.index(scores, confidence=0.8).tolist() == [0, 6, -1, -1, -1, 7]
    assert cells.counts(scores).tolist() == [1, 0, 0, 0, 1, 0, 1, 2]


def test_the_boundary_is_the_known_normal(two):
    found, _ = two
    for boundary, normal in zip(found.boundaries, NORMALS, strict=False):
        assert boundary.normal @ normal > 0.98
        assert boundary.accuracy > 0.9


def test_conditional_edits_change_one_attribute_and_leave_the_other(two):
    found, _ = two
    directions = latent_regions.conditional_directions(found.boundaries)
    codes = np.random.default_rng(0).normal(size=(20, DIM))
    before = latent_regions.projections(codes, found.boundaries)
    after = latent_regions.projections(codes + 2 * directions[0], found.boundaries)
    assert np.allclose(after - before, [2, 0])
    wanted = np.random.default_rng(1).normal(size=(20, 2))
    assert np.allclose(latent_regions.projections(latent_regions.shift(codes, found.boundaries, wanted), found.boundaries), wanted)


def test_two_attributes_are_balanced_without_asking_the_judge(two):
    found, shares = two
    judge = ToyJudge()
    plain = judged(ToyGenerator().decode(gaussian_latents(1000, DIM, seed=9)), found.cells, shares)
    images, rows = found.sample(ToyGenerator(), 1000, shares, seed=9)
    assert judge.calls == 0
    assert plain["kl"] > 0.2
    assert judged(images, found.cells, shares)["kl"] < 0.05 * plain["kl"]
    assert rows["combination"].nunique() == 4 and rows["seed"].tolist() == list(range(9, 1009))


def test_pictures_stay_as_diverse(two):
    found, shares = two
    codes = found.latents(found.plan(2000, shares), seed=0)
    assert np.allclose(codes[:, 3:].std(axis=0), 1, atol=0.12)


def test_a_small_subgroup_is_reached():
    found, shares = fitted(("male", "older", "dark"), {"male=0,older=1,dark=1": 1.0})
    cell = found.cells.names.index("male=0,older=1,dark=1")
    assert found.record["cells"][found.cells.names[cell]]["samples"] < 0.02 * CONFIG.fit_samples
    images, _ = found.sample(ToyGenerator(), 300, shares)
    counts = found.cells.counts(rebalance.read_scores(ToyJudge(), images, found.cells.attributes))
    assert counts[cell] / 300 > 0.8


@pytest.mark.parametrize("target", [{"male=1,older=1": 0.7, "male=0,older=0": 0.3}, {"male": 0.2, "older": 0.9}])
def test_any_target_is_met(two, target):
    found, _ = two
    shares = read_target(("male", "older"), target)[1]
    images, _ = found.sample(ToyGenerator(), 1000, shares)
    assert judged(images, found.cells, shares)["fd"] < 0.1


@pytest.mark.parametrize("wish", ["uniform", {"beta": [4, 4]}, [0.1, 0.8, 0.1]])
def test_a_continuous_target_is_met(wish):
    cells, shares = read_target(("male",), {"male": wish})
    found = Rebalancer.fit(ToyGenerator(), ToyJudge(), cells, config=CONFIG)
    plain = judged(ToyGenerator().decode(gaussian_latents(1000, DIM, seed=3)), cells, shares)
    reached = judged(found.sample(ToyGenerator(), 1000, shares)[0], cells, shares)
    assert reached["kl"] < 0.2 * plain["kl"] and reached["fd"] < 0.12


def test_leaks_between_cells_are_weighed_out():
    transition = np.array([[0.9, 0.1], [0.4, 0.6]])
    weights = latent_regions.mixing_weights(transition, np.array([0.5, 0.5]), most=4)
    assert np.allclose(weights @ transition, [0.5, 0.5], atol=1e-3)
    assert np.allclose(latent_regions.mixing_weights(np.eye(2), np.array([0.3, 0.7])), [0.3, 0.7])


def test_kernels_keep_what_a_mean_and_a_spread_lose():
    """Codes on a ring: a normal fills its hole, kernels leave it empty; the mean and the spread stay either way."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, 300)
    codes = np.stack([2 * np.cos(angles), 2 * np.sin(angles)], axis=1) + random.normal(0, 0.1, (300, 2))
    drawn = {width: latent_regions.kernel_mixture(codes, bandwidth=width).place(random.random(4000), random.normal(size=(4000, 2)))
             for width in (0.3, 1)}
    inside = {width: (np.linalg.norm(part, axis=1) < 1).mean() for width, part in drawn.items()}
    assert inside[0.3] < 0.02 < 0.15 < inside[1]
    for part in drawn.values():
        assert np.allclose(part.mean(axis=0), codes.mean(axis=0), atol=0.1)
        assert np.allclose(part.std(axis=0), codes.std(axis=0), atol=0.1)


def test_kernels_stand_where_codes_were_shifted_and_normals_where_plain_samples_sufficed():
    found, _ = fitted(config=dataclasses.replace(CONFIG, plain=1.0, bandwidth=0.4, codes=100))
    by = dict(zip(found.cells.names, found.mixtures, strict=True))
    shifted = {name: told["shifted"] > 0 for name, told in found.record["cells"].items()}
    assert len(set(shifted.values())) == 2, "some combinations are rare, some are not"
    for name, rare in shifted.items():
        assert (len(by[name].weights) == found.record["cells"][name]["confirmed"]) == rare, name


def test_kernels_balance_too_and_come_back_from_disk(tmp_path):
    found, shares = fitted(config=dataclasses.replace(CONFIG, bandwidth=0.5))
    plain = judged(ToyGenerator().decode(gaussian_latents(1000, DIM, seed=9)), found.cells, shares)
    images, _ = found.sample(ToyGenerator(), 1000, shares, seed=9)
    assert judged(images, found.cells, shares)["kl"] < 0.05 * plain["kl"]
    found.save(tmp_path)
    assert np.array_equal(Rebalancer.load(tmp_path).sample(ToyGenerator(), 20, shares)[0], found.sample(ToyGenerator(), 20, shares)[0])


# --- judges that confirm together -------------------------------------------------------------------------------------

class Slanted(ToyJudge):
    """Reads the painted score with an error of its own: a linear function of the texture, the same for the same picture."""

    def __init__(self, name, place, *, size=2.5):
        super().__init__(name)
        self.place, self.size = place, size

    def score(self, images, *, progress=False):
        scores = super().score(images)
        slant = images[:, 0, SIDE // 2:].reshape(len(images), -1)[:, self.place] / 127.0 - 1
        logits = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / np.clip(1 - scores, 1e-6, 1)) + self.size * np.asarray(slant)[:, None]
        return 1 / (1 + np.exp(-logits))


def test_a_committee_is_the_mean_and_silent_where_one_is():
    images = ToyGenerator().decode(gaussian_latents(200, DIM, seed=0))
    members = ToyJudge("plain"), ToyJudge("blind", blind=0.3), Slanted("slanted", 0)
    read = [judge.score(images) for judge in members]
    together = attributes.Committee(members)
    scores = together.score(images)
    silent = read[1]["male"].isna()
    assert together.name == "plain+blind+slanted" and together.calls == 200 and 30 < silent.sum() < 90
    assert scores.isna().all(axis=1).equals(silent) and scores[silent].isna().all(axis=None)
    assert np.allclose(scores[~silent], np.mean(read, axis=0)[~silent])
    pair = [judge.score(images)["male"] for judge in (members[0], members[2])]
    sure = attributes.Committee(members[::2]).score(images)["male"] >= 0.75
    assert sure.any() and (np.minimum(*pair)[sure] >= 0.5).all()


def test_two_that_confirm_find_what_a_third_sees_better_than_one_does():
    """Each errs by a latent of its own; a boundary that follows one judge follows its error, too."""
    cells, shares = read_target(("male", "older"))
    one, other = Slanted("one", 0), Slanted("other", 1)
    alone, both = (Rebalancer.fit(ToyGenerator(), judge, cells, config=dataclasses.replace(CONFIG, confidence=0.75))
                   for judge in (one, attributes.Committee([one, other])))
    for ours, theirs, normal in zip(alone.boundaries, both.boundaries, NORMALS, strict=False):
        assert theirs.normal @ normal > ours.normal @ normal
    assert both.record["judge"] == "one+other"
    third = [judged(found.sample(ToyGenerator(), 1000, shares)[0], cells, shares, judge=ToyJudge("third"))["kl"]
             for found in (alone, both)]
    plain = judged(ToyGenerator().decode(gaussian_latents(1000, DIM, seed=9)), cells, shares)["kl"]
    assert third[1] < 0.2 * plain


def test_who_confirmed_never_scores():
    class Networked(ToyJudge):
        def __init__(self, name, *networks):
            super().__init__(name)
            self.networks = networks

    one, two, three = Networked("a", "x"), Networked("b", "y"), Networked("c", "y", "z")
    rebalance.check_apart(attributes.Committee([one, two]), ToyJudge("d"))
    for confirming, scoring, said in ((one, one, "x would"), (two, three, "y would"),
                                      (attributes.Committee([one, two]), three, "'a.b' confirmed, and y would")):
        with pytest.raises(InputError, match=f"{said} confirm and score"):
            rebalance.check_apart(confirming, scoring)
    with pytest.raises(InputError, match="committee b.c: its members share a network"):
        attributes.Committee([two, three])
    blind = Networked("e", "w")
    blind.attributes = ("smiling",)
    with pytest.raises(InputError, match="nothing that all its members see"):
        attributes.Committee([one, blind])


def test_saved_and_loaded_it_draws_the_same(two, tmp_path):
    found, shares = two
    found.save(tmp_path)
    again = Rebalancer.load(tmp_path)
    assert again.record == json.loads(json.dumps(found.record)) and again.cells == found.cells
    ours, theirs = (r.sample(ToyGenerator(), 20, shares)[0] for r in (found, again))
    assert np.array_equal(ours, theirs)
    assert not list(tmp_path.glob("*.p*kl*"))


def test_a_picture_depends_on_its_seed_and_cell_alone(two):
    found, _ = two
    plan = np.array([0, 1, 2, 3, 3])
    whole = found.latents(plan, seed=5)
    assert np.allclose(found.latents(plan[2:], seed=7), whole[2:])


def test_a_killed_fit_continues(tmp_path):
    whole, _ = fitted()
    with pytest.raises(KeyboardInterrupt):
        fitted(judge=ToyJudge(die_after=1000), work=tmp_path)
    judge = ToyJudge()
    found, _ = fitted(judge=judge, work=tmp_path)
    assert judge.calls == whole.record["calls"] - 1000
    assert np.allclose(found.transition, whole.transition) and found.record["calls"] == whole.record["calls"]
    for ours, theirs in zip(found.mixtures, whole.mixtures, strict=True):
        assert np.allclose(ours.means, theirs.means)
    judge = ToyJudge(name="another")
    fitted(judge=judge, work=tmp_path)
    assert judge.calls == whole.record["calls"]


def test_half_a_chunk_is_judged_again(tmp_path):
    fitted(work=tmp_path)
    next(iter(sorted(tmp_path.glob("*.safetensors")))).write_bytes(b"half")
    judge = ToyJudge()
    fitted(judge=judge, work=tmp_path)
    assert 0 < judge.calls <= CONFIG.chunk


def test_abstentions_are_left_out_and_counted():
    found, shares = fitted(judge=ToyJudge(blind=0.3))
    assert 0.2 < found.record["abstained"] / CONFIG.fit_samples < 0.4
    told = judged(found.sample(ToyGenerator(), 500, shares)[0], found.cells, shares, judge=ToyJudge(blind=0.3))
    assert told["abstained"] > 80 and told["kl"] < 0.05


def test_where_the_judge_abstains_more_more_is_drawn():
    class Shy(ToyJudge):
        """Sees no face in half of the pictures on the positive side."""

        def score(self, images, *, progress=False):
            scores = super().score(images)
            chance = np.random.default_rng(int(images.sum()) % 2**32).random(len(images))
            return scores.mask((scores["male"] > 0.5) & (chance < 0.5))

    found, shares = fitted(judge=Shy())
    weights = dict(zip(found.cells.names, found.weights(shares), strict=True))
    assert weights["male=1,older=0"] + weights["male=1,older=1"] > 0.58
    assert judged(found.sample(ToyGenerator(), 800, shares)[0], found.cells, shares, judge=Shy())["fd"] < 0.1


@pytest.mark.parametrize("target, said", [
    ({"male=1,older=2": 1.0}, "male=1,older=2.*there is not"),
    ({"male=1,older=1": 0.4}, "add up to 0.4"),
    ({"tall": 0.4}, "'tall'.*male, older"),
    ({"male": 1.4}, "1.4 is above 1"),
    ({"male": "half"}, "'half' is no share"),
    ({"male": [0.2, 0.2]}, "add up to 0.4"),
    ({"male": {"beta": [1]}}, "is no share"),
    ({"male=1,older=1": float("nan")}, "nan is no share"),
    ({"male": {"beta": ["x", 1]}}, "'x' is no share"),
    ({"male": {"beta": [None, 1]}}, "None is no share"),
    ({"male": {"beta": [True, 1]}}, "True is no share"),
    ({"male": {"beta": [[1], [2]]}}, r"\[1\] is no share"),
    ({"male": {"beta": "ab"}}, "is no share"),
    ({"male": {"beta": {"a": 1}}}, "is no share"),
    ({"male": {"beta": [1, float("inf")]}}, "inf is no share"),
    ({"male": {"beta": [0, 1]}}, "a beta distribution of 0 and 1"),
    ({"male": {"beta": [1e300, 1e300]}}, "a beta distribution of 1e.300"),
    ({"male": {"gamma": [1, 1]}}, "is no share"),
    ({"male": {}}, "{} is no share"),
    ({"male": None}, "None is no share"),
    ({"male": [0.5, "x"]}, "'x' is no share"),
    ({"male": [0.5, [0.5]]}, "is no share"),
    ({"male": [1]}, "is no share"),
    ({"male": 10**400}, r"10{79}\.\.\. is no share"),
    ({"male=1,older=1": 10**400}, "is no share"),
    ({"male=1,older=1": {"beta": [1, 1]}}, "is no share"),
])
def test_targets_that_make_no_sense(target, said):
    with pytest.raises(InputError, match=said):
        read_target(("male", "older"), target)


def test_order_and_spaces_of_a_combination_do_not_matter():
    shares = read_target(("male", "older"), {"older=1, male=0": 0.25, "male=1,older=1": 0.75})[1]
    assert shares.tolist() == [0, 0.25, 0, 0.75]


def test_attributes_nobody_can_see_or_that_are_missing():
    with pytest.raises(InputError, match="'smiling'.*'toy' cannot see it.*male, older, dark"):
        fitted(("smiling",))
    with pytest.raises(InputError, match="name one at least"):
        read_target(())


def test_a_combination_that_never_occurs():
    class Never(ToyJudge):
        def score(self, images, *, progress=False):
            scores = super().score(images)
            both = (scores["male"] < 0.5) & (scores["older"] > 0.5)
            return scores.mask(both)

    found, shares = fitted(judge=Never())
    with pytest.raises(InputError, match=r"male=0,older=1: 0 of 1200 samples.*0 of \d+ shifted.*share 0"):
        found.sample(ToyGenerator(), 10, shares)
    rest = read_target(("male", "older"), {"male=1,older=1": 0.5, "male=0,older=0": 0.5})[1]
    assert len(found.sample(ToyGenerator(), 10, rest)[0]) == 10


def test_so_few_codes_that_no_mixture_can_be_fitted():
    with pytest.raises(InputError, match="no combination of male, older had 2000 confirmed codes among 1200 samples"):
        fitted(config=dataclasses.replace(CONFIG, least_codes=2000))


def test_boundaries_that_separate_nothing():
    class Chance(ToyJudge):
        def score(self, images, *, progress=False):
            self.calls += len(images)
            return pd.DataFrame(np.random.default_rng(self.calls).random((len(images), 3)), columns=self.attributes)

    said = r"'male': its boundary separates nothing \(balanced accuracy 0\.[45]\d+ on 300 held-out"
    with pytest.raises(InputError, match=said):
        fitted(judge=Chance(), config=dataclasses.replace(CONFIG, least_accuracy=0.6))


def test_one_sided_samples():
    class Everyone(ToyJudge):
        def score(self, images, *, progress=False):
            return super().score(images).assign(male=0.9)

    with pytest.raises(InputError, match="'male': 1200 of 1200 decided samples are on its positive side"):
        fitted(judge=Everyone())


@pytest.mark.parametrize("blind, said", [
    (1.0, "'male': the judge abstained on 1200 of 1200 samples.*10 decided ones.*is there a face"),
    (0.99, r"'male': the judge abstained on 11\d\d of 1200 samples"),
])
def test_a_judge_that_is_silent(blind, said):
    with pytest.raises(InputError, match=said):
        fitted(judge=ToyJudge(blind=blind))


def test_attributes_that_are_one():
    class Same(ToyJudge):
        def score(self, images, *, progress=False):
            scores = super().score(images)
            return scores.assign(older=scores["male"])

    with pytest.raises(InputError, match="'male' and 'older' have one boundary"):
        fitted(judge=Same())


def test_another_generator_is_told_apart(two):
    found, shares = two
    with pytest.raises(InputError, match="other pictures from the same latents"):
        found.sample(OtherGenerator(), 10, shares)


@pytest.mark.parametrize("changes", [{"fit_samples": 10}, {"confidence": 1.0}, {"components": 0}, {"covariance": "full"},
                                     {"calibration": -3}, {"plain": 1.5}, {"bandwidth": 1.5}, {"margin": -1.5}, {"seed": -1}])
def test_configurations_that_cannot_work(changes):
    with pytest.raises(InputError, match=f"{next(iter(changes))} .*{next(iter(changes.values()))}"):
        RebalanceConfig(**changes)


def test_a_folder_without_a_rebalancer(tmp_path):
    with pytest.raises(InputError, match="no readable rebalancer"):
        Rebalancer.load(tmp_path)


# --- the methods side by side -----------------------------------------------------------------------------------------

def pixels_extractor():
    def model(pixels):
        flat = pixels[:, :, ::2, ::2].reshape(len(pixels), -1)
        return flat, flat
    return Extractor("pixels", "1", SIDE, model)


@pytest.fixture(scope="module")
def table(two):
    found, shares = two
    told = rebalance_compare.compare_methods(ToyGenerator(), found, shares, ToyJudge(), ToyJudge("second", noise=0.1), n=400,
                                             extractor=pixels_extractor(),
                                             embed=lambda images: images.reshape(len(images), -1) / 255)
    return told.set_index("method")


def test_every_method_is_told_with_what_it_brings_and_costs(table, two):
    assert list(table.index) == ["no change", "rejection sampling", "boundary edit", "mixtures"]
    assert not table.drop(columns="identity_change").isna().any().any()
    assert table.loc["mixtures", "calls"] == 0 and table.loc["mixtures", "calls_fitting"] == two[0].record["calls"]
    assert table.loc["no change", "identity_change"] == 0 < table.loc["boundary edit", "identity_change"] < 1
    assert np.isnan(table.loc["mixtures", "identity_change"])


def test_mixtures_and_rejection_agree_that_it_can_be_balanced(table):
    before = table.loc["no change", "kl_scoring"]
    assert table.loc["rejection sampling", "kl_confirming"] < 1e-6
    assert table.loc[["rejection sampling", "mixtures"], "kl_scoring"].max() < 0.2 * before
    assert table.loc["rejection sampling", "calls"] > 1500


def test_quality_stays_where_plain_sampling_has_it(table):
    assert table.loc["mixtures", "recall"] > 0.8 * table.loc["no change", "recall"]
    assert 0.9 < table.loc["mixtures", "spread_ratio"] < 1.4  # the rare colours lie apart, balanced or not


def test_quality_is_read_against_pictures_that_no_method_draws(two):
    """Rejection goes on through the seeds until all is found; the reference must lie beyond."""
    found, shares = two
    read = []

    def features(images):
        read.append({image.tobytes() for image in images})
        return images[:, ::4, ::4].reshape(len(images), -1) / 255

    methods = {"no change": rebalance_compare.plain(ToyGenerator()),
               "rejection sampling": rebalance_compare.rejection(ToyGenerator(), found, shares, ToyJudge())}
    rebalance_compare.read_methods(ToyGenerator(), found, shares, ToyJudge(), ToyJudge("second"), n=60, methods=methods,
                                   extractor=features, seed=rebalance_compare.SCORED_FROM)
    reference, plain, rejected = read
    assert len(reference) == len(plain) == 60 and not reference & plain and not reference & rejected
    assert plain & rejected, "rejection begins at the same seeds"


def test_rejection_gives_up_on_what_never_comes(two):
    found, _ = two
    judge, target = ToyJudge(), np.eye(4)[1]
    drawn = rebalance_compare.rejection(ToyGenerator(), found, target, judge, limit=2)(400, 0)
    assert drawn.calls == judge.calls == 800 and 0 < len(drawn.images) < 400


def test_edits_know_no_bins_and_prompts_no_toys(two):
    cells, shares = read_target(("male",), {"male": "uniform"})
    found = dataclasses.replace(two[0], cells=cells)
    with pytest.raises(InputError, match="two sides"):
        rebalance_compare.boundary_edit(ToyGenerator(), found, shares)
    with pytest.raises(InputError, match="'toy' knows no prompt"):
        rebalance_compare.prompt_mixing(ToyGenerator(), two[0], shares)


def test_an_edit_within_some_latents_leaves_the_others(two):
    found, shares = two
    kept = []

    class Spy(ToyGenerator):
        def decode(self, latents):
            kept.append(latents)
            return super().decode(latents)

    drawn = rebalance_compare.boundary_edit(Spy(), found, shares, columns=slice(0, 3), margin=0.5)(200, 0)
    assert np.allclose(kept[0][:, 3:], gaussian_latents(200, DIM, seed=0)[:, 3:], atol=1e-5)
    assert judged(drawn.images, found.cells, shares)["kl"] < 0.05
    with pytest.raises(InputError, match="hardly touch"):
        rebalance_compare.boundary_edit(Spy(), found, shares, columns=slice(6, 8))(10, 0)


def test_an_edit_within_h_space_is_called_what_it_is(two):
    class Behind(ToyGenerator):
        noise_dim = 2

    found, shares = two
    assert rebalance_compare.H_EDIT == "h-space boundary edit" and rebalance_compare.H_EDIT in rebalance_compare.FITTED
    names = {kind: list(rebalance_compare.default_methods(kind(), found, shares, ToyJudge()))
             for kind in (ToyGenerator, Behind)}
    assert set(names[Behind]) - set(names[ToyGenerator]) == {rebalance_compare.H_EDIT}
    assert not [name for name in names[Behind] if "guidance" in name], "nothing here predicts or guides"


def test_prompts_say_the_combination():
    found = argparse.Namespace(cells=Cells({"male": (0.5,), "older": (0.5,)}))
    assert rebalance_compare.combination_prompts(found)["male=0,older=1"] == "an elderly woman's face"
    assert rebalance_compare.combination_prompts(argparse.Namespace(cells=Cells({"dark": (0.5,)}))) == {}


def test_amplification_against_known_data():
    scores = pd.DataFrame({"male": [0.9] * 70 + [0.1] * 30 + [np.nan] * 5})
    row = rebalance_compare.amplification(scores, {"male": 0.5}).iloc[0]
    assert row["share"] == 0.7 and row["n"] == 100 and row["abstained"] == 5
    assert row["amplification"] == pytest.approx(0.2) and 0 < row["amplification_low"] < 0.2 < row["amplification_high"]
    wilson = fairness.share_interval(70, 100)
    assert (row["low"], row["high"]) == (wilson.low, wilson.high)
    with pytest.raises(InputError, match="dark"):
        rebalance_compare.amplification(scores, {"dark": 0.5})


# --- the verb ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(attributes, "get_judge", lambda name, **options: ToyJudge(name))
    monkeypatch.setattr(rebalance, "get_generator", lambda name, **options: ToyGenerator())
    monkeypatch.setattr(rebalance, "RebalanceConfig", lambda **more: dataclasses.replace(CONFIG, calibration=40, **more))
    monkeypatch.setattr(rebalance.RebalanceConfig, "fit_samples", 800, raising=False)


def run(out, *more, target='{"male": 0.5}'):
    parser = argparse.ArgumentParser()
    rebalance.add_arguments(parser)
    return rebalance.run(parser.parse_args(["--generator", "toy", "--attributes", "male,older", "--target", target,
                                            "-n", "40", "--fit-samples", "800", "--score-samples", "40", "--judge", "bundled",
                                            "--score-with", "heads", "--out", str(out), *more]))


def test_the_verb_writes_what_it_promises_and_continues(toys, tmp_path, capsys):
    assert run(tmp_path / "a") == 0
    out, rows = tmp_path / "a", pd.read_csv(tmp_path / "a/metadata.csv")
    assert list(rows) == ["file_name", "combination", "seed"] and len(rows) == 40
    report = json.loads((out / "rebalance.json").read_text())
    assert report["calls_while_sampling"] == 0 and set(report["readings"]) == {"bundled", "heads"}
    assert report["readings"]["heads"]["after"]["kl"] < report["readings"]["heads"]["before"]["kl"]
    words = (out / "summary.md").read_text()
    assert "cannot be concluded" in words and "took no part" in words
    table = pd.read_csv(out / "shares.csv").set_index(["judge", "pictures", "combination"])
    assert len(table) == 2 * 2 * 4 and (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()
    for (judge, when), part in table.groupby(level=["judge", "pictures"]):
        told = report["readings"][judge][when]
        assert part["count"].tolist() == told["counts"] and (part["n"] == told["n"]).all()
        assert set(part["role"]) == {"confirmed" if judge == "bundled" else "took no part"}
    assert table.groupby(["judge", "pictures"])["wanted"].sum().round(4).eq(1).all()
    assert np.asarray(Image.open(out / "shares.png").convert("L")).std() > 10
    pictures = {name: np.asarray(Image.open(out / name)) for name in rows["file_name"]}
    (out / "images/00007.png").unlink()
    (out / "metadata.csv").unlink()
    assert run(out) == 0
    assert all(np.array_equal(picture, np.asarray(Image.open(out / name))) for name, picture in pictures.items())
    assert json.loads((out / "rebalance.json").read_text())["pictures_drawn_now"] == 1
    assert "KL to target" in capsys.readouterr().out
    with pytest.raises(InputError, match="other settings.*--overwrite"):
        run(out, target='{"male": 0.3}')
    assert run(out, "--overwrite", target='{"male": 0.3}') == 0
    assert not list(tmp_path.rglob("*.partial"))


def test_the_verb_refuses_what_it_cannot_do(toys, tmp_path):
    with pytest.raises(InputError, match="confirm and score"):
        run(tmp_path / "a", "--score-with", "bundled")
    with pytest.raises(InputError, match="neither a JSON object"):
        run(tmp_path / "a", target="nowhere.json")
    with pytest.raises(InputError, match="a list"):
        (tmp_path / "list.json").write_text("[1]")
        run(tmp_path / "a", target=str(tmp_path / "list.json"))
    with pytest.raises(InputError, match="at least 1"):
        run(tmp_path / "a", "-n", "0")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/holiday.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        run(tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["holiday.txt"]


# --- figures that ship ------------------------------------------------------------------------------------------------

def test_no_picture_is_read_twice_and_a_killed_run_goes_on(tmp_path):
    images = ToyGenerator().decode(gaussian_latents(30, DIM, seed=0))
    first = rebalance_compare.KeptJudge(ToyJudge(), tmp_path)
    told = first.score(images[:20])
    assert first.calls == first.judge.calls == 20 and first.spared == 0
    second = rebalance_compare.KeptJudge(ToyJudge(), tmp_path)
    again = second.score(images)
    assert second.judge.calls == 10 and second.calls == 30
    assert np.array_equal(again[:20], told) and np.allclose(again, ToyJudge().score(images))
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])  # a full disk
    third = rebalance_compare.KeptJudge(ToyJudge(), tmp_path)
    assert np.array_equal(third.score(images), again) and third.judge.calls == 30


def test_the_same_picture_twice_in_a_batch_is_read_once(tmp_path):
    images = np.repeat(ToyGenerator().decode(gaussian_latents(3, DIM, seed=0)), 2, axis=0)
    judge = rebalance_compare.KeptJudge(ToyJudge(), tmp_path)
    assert np.array_equal(judge.score(images)[::2], judge.score(images)[1::2]) and judge.judge.calls == 3


def test_how_much_of_the_divergence_is_gone():
    even, before = np.full(4, 0.25), np.array([700, 100, 150, 50])
    cut = rebalance_compare.cut_interval(before, np.array([260, 240, 255, 245]), even)
    assert 0.99 < cut.estimate < 1 and cut.low < cut.estimate <= cut.high <= 1
    assert rebalance_compare.cut_interval(before, before, even).estimate == 0
    assert rebalance_compare.cut_interval(before, np.array([900, 40, 40, 20]), even).high < 0
    few = rebalance_compare.cut_interval(before // 10, np.array([26, 24, 26, 24]), even)
    assert few.high - few.low > 2 * (cut.high - cut.low)


def test_what_an_ideal_sampler_would_be_seen_to_cut():
    even = np.full(4, 0.25)
    for n, before in ((300, 0.03), (2000, 0.03), (2000, 0.3)):
        found = rebalance_compare.ideal_cut(n, before, even)
        assert found.estimate == pytest.approx(1 - 3 / (2 * n) / before, abs=0.1 * 3 / (2 * n) / before)
        assert found.low < found.estimate < found.high <= 1 and found.n == n
    assert rebalance_compare.ideal_cut(300, 0.03, even).low < 0.6, "300 pictures cannot show 80 % of .03 gone for sure"


def test_what_an_erring_judge_reads_of_a_set_that_is_even(monkeypatch):
    known = {"male": fairness.Confusion(men_read_man=90, men_read_woman=10, women_read_woman=90, women_read_man=10),
             "older": fairness.Confusion(men_read_man=50, men_read_woman=50, women_read_woman=80, women_read_man=20)}
    monkeypatch.setattr(rebalance_compare, "photograph_confusion", lambda name, *, judge: known[name])
    assert attributes.evaluation("heads") and not attributes.evaluation("bundled"), "whose errors ship"
    cells, even = read_target(("male", "older"))
    read = np.array([0.65, 0.35])  # older: (.5 + .2) / 2; men are misread as often as women
    assert rebalance_compare.even_reading(cells, even, "heads") == pytest.approx((read * np.log(read / 0.5)).sum())
    assert rebalance_compare.even_reading(*read_target(("male",)), "heads-dlib") == pytest.approx(0, abs=1e-12)
    assert np.isnan(rebalance_compare.even_reading(cells, even, "bundled"))
    assert np.isnan(rebalance_compare.even_reading(*read_target(("male",), {"male": "uniform"}), "heads"))


def test_near_twins_are_seen():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6))
    twins = np.repeat(features[:100], 2, axis=0) + random.normal(0, 0.01, (200, 6))
    assert rebalance_compare._nearest(twins) < 0.1 * rebalance_compare._nearest(features)
    assert np.isnan(rebalance_compare._nearest(features[:1]))


def test_the_confusion_on_photographs_is_that_of_the_record():
    found = rebalance_compare.photograph_confusion("male")
    assert found.men_read_man + found.men_read_woman == found.women_read_man + found.women_read_woman == 450
    assert 0.85 < found.recall_men < 1 and 0.85 < found.recall_women < 1


@pytest.fixture
def tools(tmp_path):
    def pixels(images):
        return images[:, ::2, ::2].reshape(len(images), -1) / 255

    judges = {name: rebalance_compare.KeptJudge(ToyJudge(name, noise=noise), tmp_path / name)
              for name, noise in (("bundled", 0), ("heads", 0.1))}
    return rebalance_compare.Instruments(judges, pixels, pixels)


def test_the_command_writes_tidy_tables_and_keeps_other_runs(tools, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rebalance_compare, "load_instruments", lambda work: tools)
    monkeypatch.setattr(rebalance_compare, "get_generator", lambda name, **options: ToyGenerator())
    options = ["--generator", "toy", "-n", "120", "--fit-samples", "800", "--codes", "80", "--calibration", "40",
               "--limit", "3", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert rebalance_compare.main([*options, "--attributes", "male,older,dark", "--run", "three", "--draws", "50"]) == 0
    assert rebalance_compare.main([*options, "--attributes", "male", "--run", "one", "--target", '{"male": 0.3}']) == 0
    tables = {name: pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in rebalance_compare.TABLES}
    assert all(set(table["run"]) == {"three", "one"} for name, table in tables.items() if name != "subgroups")
    assert set(tables["subgroups"]["run"]) == {"three"} and (tables["subgroups"]["shown"] > 60).all()
    before = tables["comparison"].set_index(["run", "method"])
    assert before.loc[("three", "mixtures"), "kl_cut_scoring"] > 0.8
    assert before.loc[("three", "no change"), "kl_cut_scoring"] == 0
    shares = tables["shares"].groupby(["run", "method", "judge"])
    assert (shares["count"].sum() == shares["n"].first()).all() and np.allclose(shares["target"].sum(), 1)
    assert tables["generators"]["amplification"].isna().all(), "nobody stated what a toy was trained on"
    record = json.loads((tmp_path / "out/three.json").read_text())
    assert record["drawn"]["n"] == 50 and record["fit"]["calls"] > 800 and str(tmp_path) not in json.dumps(record)
    assert rebalance_compare.main([*options, "--attributes", "male", "--run", "one", "--target", '{"male": 0.3}']) == 0
    stable = [column for column in tables["comparison"] if "seconds" not in column]
    assert pd.read_csv(tmp_path / "out/comparison.csv")[stable].equals(tables["comparison"][stable])
    assert "kl_cut_scoring" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    options = ["--attributes", "male", "--run", "x", "--out", str(tmp_path)]
    assert rebalance_compare.main([*options, "--target", '{"old": 1}']) == 2
    assert "neither one of the attributes" in capsys.readouterr().err


def test_each_judge_says_how_often_a_subgroup_came_before():
    class Generous(ToyJudge):
        """Sees the rare combination three times as often as the judge that confirms."""

        def score(self, images, *, progress=False):
            scores = super().score(images).assign(dark=lambda rows: np.where(rows["dark"] > 0.02, 0.9, 0.1))
            scores.iloc[::10] = np.nan
            return scores

    found, _ = fitted(("male", "older", "dark"), {"male=0,older=1,dark=1": 1.0})
    judges = ToyJudge("confirms"), Generous("scores")
    rows = rebalance_compare.subgroup_rows(ToyGenerator(), found, judges, n=40).set_index(["combination", "judge"])
    plain = ToyGenerator().decode(gaussian_latents(CONFIG.fit_samples, DIM, seed=0))
    for (name, judge), row in rows.iterrows():
        one = judges[judge == "scores"]
        counts = found.cells.counts(rebalance.read_scores(one, plain, found.cells.attributes))
        assert row["samples"] == counts[found.cells.names.index(name)] and row["samples_decided"] == counts.sum()
    name = rows.index[0][0]
    assert rows.loc[(name, "confirms"), "samples"] == found.record["cells"][name]["samples"]
    assert rows.loc[(name, "scores"), "samples_decided"] == 1080 < rows.loc[(name, "confirms"), "samples_decided"]


def test_only_some_methods(tools, two, tmp_path):
    target = read_target(("male", "older"))
    options = {"config": CONFIG, "n": 100, "work": tmp_path / "work"}
    tables, _ = rebalance_compare.measure_run(ToyGenerator(), target, tools, only=["mixtures"], **options)
    assert tables["comparison"]["method"].tolist() == ["no change", "mixtures"]
    assert tables["comparison"]["nearest_ratio"].between(0.5, 1.5).all()
    again, record = rebalance_compare.measure_run(ToyGenerator(), target, tools, only=["mixtures"], confirm="heads",
                                                  score_with="bundled", **options)
    both = [table["comparison"].set_index("method") for table in (tables, again)]
    assert both[0].loc["no change", "kl_scoring"] == both[1].loc["no change", "kl_confirming"]
    assert list(record["judges"]) == ["heads", "bundled"]
    with pytest.raises(InputError, match="heads would confirm and score"):
        rebalance_compare.measure_run(ToyGenerator(), target, tools, confirm="bundled+heads", **options)
    with pytest.raises(InputError, match="judge 'oracle': there is none"):
        rebalance_compare.measure_run(ToyGenerator(), target, tools, confirm="bundled+oracle", **options)
    with pytest.raises(InputError, match="method 'magic': here there are no change"):
        rebalance_compare.measure_run(ToyGenerator(), target, tools, only=["magic"], **options)

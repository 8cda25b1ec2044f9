"""Distribution guidance: its gradient is right, it brings a batch's shares to the target, and it asks no judge."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from debiaslib import rebalance_compare
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig
from debiaslib.h_guidance import GuidanceConfig, GuidedGenerator, Head, Predictor, fit_heads, fit_predictor, read_h
from debiaslib.latent_generators import (
    DiffusionGenerator,
    HSpaceGenerator,
    TorchGenerator,
    draw_images,
    draw_latents,
    hooked,
)
from debiaslib.rebalance import Cells

CELLS = Cells({"male": (0.5,)})
CONFIG = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=40, precision="fp32")
FIT = GuidanceConfig(samples=120, components=4, penalty=1.0)
APART = 3.0
"""Between the two groups' means, in standard deviations: the best rule is right with probability Phi(1.5) = .933."""


class Planted(HSpaceGenerator):
    """The same noise for every picture: what tells them apart is one direction of h-space, and so the truth is known."""

    def sample_latents(self, n, seed):
        latents = super().sample_latents(n, seed)
        latents[:, :self.noise_dim] = super().sample_latents(1, 0)[:, :self.noise_dim]
        return latents


class LikenessJudge:
    """Sees as "male" what is more like `axis` (H, H, 3) than the `middle`; counts what it is asked."""

    name, attributes = "likeness", ("male",)

    def __init__(self, axis=0, middle=0.0):
        self.calls, self.axis, self.middle = 0, axis, middle

    def likeness(self, images):
        return (images.astype(float) * self.axis).mean((1, 2, 3))

    def score(self, images, *, progress=False):
        self.calls += len(images)
        return pd.DataFrame({"male": np.where(self.likeness(images) > self.middle, 0.9, 0.1)})


def groups(n, *, share, seed=0, steps=2, dim=6):
    """h of n pictures, float (steps, n, dim), and whether each is of the second group, which lies APART along axis 0."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < share).astype(int)
    h = random.standard_normal((steps, n, dim))
    h[..., 0] += APART * (labels - 0.5)
    return h, labels


@pytest.fixture(scope="module")
def known():
    h, labels = groups(4000, share=0.5)
    return fit_heads(h, labels, CELLS, config=GuidanceConfig(components=6, penalty=1.0))


def head(random, *, cells=3, dim=5, rank=4):
    axes = np.linalg.qr(random.standard_normal((dim, rank)))[0].T
    return Head(random.standard_normal(dim), axes, random.uniform(0.5, 2, rank), random.standard_normal((cells, rank)),
                random.standard_normal(cells), 1.0)


@pytest.mark.parametrize("target", [[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
def test_the_gradient_is_that_of_the_divergence(target):
    random = np.random.default_rng(0)
    one, h = head(random), random.standard_normal((7, 5))
    codes = torch.tensor((h - one.center) @ one.axes.T / one.spread, requires_grad=True)
    p = torch.softmax(codes @ torch.tensor(one.weights).T + torch.tensor(one.offsets), 1).mean(0)
    q = torch.tensor(target, dtype=torch.float64)
    torch.special.entr(q).neg().sub(q * p.log()).sum().backward()
    assert np.allclose(one.gradient(h, np.array(target)), 7 * codes.grad.numpy(), atol=1e-12)
    moved = (h + one.moves(h, np.array(target), gamma=0.3) - one.center) @ one.axes.T / one.spread
    assert np.allclose(moved, (codes - 0.3 * 7 * codes.grad).detach().numpy())


def test_the_predictor_is_as_good_as_can_be(known):
    assert np.allclose(known.accuracy, norm.cdf(APART / 2), atol=0.02) and known.held_out == 1000 and known.calls == 4000
    h, labels = groups(4000, share=0.5, seed=1)
    p = known.heads[0].probabilities(h[0])
    assert np.allclose(p.sum(1), 1) and abs(p[:, 1].mean() - labels.mean()) < 0.02


@pytest.mark.parametrize("share, wanted", [(0.5, 0.2), (0.8, 0.5), (0.1, 0.5)])
def test_steps_bring_the_batch_to_the_target(known, share, wanted):
    h, target = groups(400, share=share, seed=2)[0][0], np.array([1 - wanted, wanted])
    for _ in range(20):
        h = h + known.heads[0].moves(h, target, gamma=0.5)
    assert abs((h[:, 0] > 0).mean() - wanted) < 0.04
    others = groups(400, share=share, seed=2)[0][0][:, 1:]
    assert np.abs(h[:, 1:] - others).mean() < 0.2, "what is not of the attribute hardly changes"


def test_nothing_moves_at_the_target_and_the_sure_hardly_ever(known):
    h = groups(400, share=0.5, seed=3)[0][0]
    p = known.heads[0].probabilities(h).mean(0)
    assert np.abs(known.heads[0].moves(h, p, gamma=1.0)).max() < 1e-9
    moves = np.linalg.norm(known.heads[0].moves(h, np.array([0.8, 0.2]), gamma=1.0), axis=1)
    unsure = np.abs(h[:, 0]) < 0.3
    assert moves[unsure].mean() > 5 * moves[np.abs(h[:, 0]) > 2].mean()


def test_gamma_means_the_same_in_a_batch_of_any_size(known):
    h, target = groups(50, share=0.5, seed=4)[0][0], np.array([0.8, 0.2])
    once, twice = (known.heads[0].moves(part, target, gamma=1.0) for part in (h, np.tile(h, (2, 1))))
    assert np.allclose(once, twice[:50]) and np.allclose(once, twice[50:])


def test_more_than_two_combinations():
    random, cells = np.random.default_rng(0), Cells({"male": (0.5,), "older": (0.5,)})
    labels, target = random.integers(0, 4, 2000), np.array([0.4, 0.3, 0.2, 0.1])
    h = random.standard_normal((1, 2000, 5)) + 3 * np.eye(4, 5)[labels]
    found = fit_heads(h, labels, cells, config=GuidanceConfig(components=5, penalty=1.0))
    batch = h[0, :500]
    for _ in range(30):
        batch = batch + found.heads[0].moves(batch, target, gamma=0.3)
    shares = np.bincount(found.heads[0].probabilities(batch).argmax(1), minlength=4) / 500
    assert found.accuracy[0] > 0.8 and np.abs(shares - target).max() < 0.06


# --- in a U-Net -------------------------------------------------------------------------------------------------------

@pytest.fixture
def guided(small_pipe):
    """A generator whose pictures differ by a planted direction, a judge that sees it in half of them, and a predictor."""
    generator = Planted(small_pipe, directions=10 * np.eye(1, 32, dtype=np.float32), config=CONFIG)
    ends = draw_latents(generator, 2, seed=0)
    ends[:, -1] = 1, -1
    more, less = draw_images(generator, ends).astype(float)
    judge = LikenessJudge(more - less)
    judge.middle = float(np.median(judge.likeness(draw_images(generator, draw_latents(generator, 80, seed=900)))))
    return generator, judge, fit_predictor(generator, judge, CELLS, config=FIT)


def male(judge, images):
    return (judge.score(images)["male"] > 0.5).mean()


def test_pictures_go_where_they_are_wanted_and_no_judge_is_asked(guided):
    generator, judge, predictor = guided
    assert predictor.calls == judge.calls == FIT.samples and (predictor.accuracy > 0.9).all()
    latents, shares = draw_latents(generator, 80, seed=5000), {}
    for wanted in (0.1, 0.9):
        images = draw_images(GuidedGenerator(generator, predictor, [1 - wanted, wanted], gamma=3.0), latents)
        assert judge.calls == FIT.samples + 80 * len(shares)
        shares[wanted] = male(judge, images)
    plain = male(judge, draw_images(generator, latents))
    assert shares[0.1] + 0.1 < plain < shares[0.9] - 0.1
    assert not generator.pipe.unet.mid_block._forward_hooks


def test_a_gamma_of_zero_is_plain_sampling_and_batches_repeat(guided):
    generator, _, predictor = guided
    latents = draw_latents(generator, 50, seed=3)
    still, moved, again = (draw_images(GuidedGenerator(generator, predictor, [0.9, 0.1], gamma=gamma), latents)
                           for gamma in (0, 2.0, 2.0))
    assert np.array_equal(still, draw_images(generator, latents))
    assert np.array_equal(moved, again) and not np.array_equal(moved, still)
    alone = draw_images(GuidedGenerator(generator, predictor, [0.9, 0.1], gamma=2.0), latents[40:])
    assert np.abs(alone.astype(int) - moved[40:]).max() <= 1, "a batch does not know of others"


def test_a_fit_repeats(guided):
    generator, judge, predictor = guided
    again = fit_predictor(generator, judge, CELLS, config=FIT)
    assert all(np.array_equal(one.weights, two.weights) and np.array_equal(one.axes, two.axes)
               for one, two in zip(predictor.heads, again.heads, strict=True))


def test_h_is_that_of_the_prompt_and_of_each_step(small_pipe):
    generator, seen = DiffusionGenerator(small_pipe, config=CONFIG), []
    latents = draw_latents(generator, 50, seed=0)
    h, images = read_h(generator, latents)
    assert h.shape == (2, 50, 32 * 4 * 4) and np.array_equal(images, draw_images(generator, latents))
    with hooked(small_pipe.unet.mid_block, lambda module, inputs, output: seen.append(output.flatten(1).numpy())):
        draw_images(generator, latents[:40])
    assert len(seen) == 2 and np.allclose(h[:, :40], np.stack(seen)[:, 40:])
    free = DiffusionGenerator(small_pipe, config=replace(CONFIG, guidance=1.0))
    assert np.allclose(read_h(free, latents)[0][0], h[0], atol=1e-4), "the first step is the same without guidance"


def test_the_head_sees_what_the_generator_adds_to_h_space(small_pipe):
    generator = HSpaceGenerator(small_pipe, directions=np.eye(1, 32), config=CONFIG)
    latents = draw_latents(generator, 10, seed=0)
    moved = read_h(generator, latents)[0][0].reshape(10, 32, 16)
    coefficients, latents[:, -1] = latents[:, -1].copy(), 0
    added = moved - read_h(generator, latents)[0][0].reshape(10, 32, 16)
    assert np.allclose(added[:, 0], coefficients[:, None], atol=1e-4) and np.abs(added[:, 1:]).max() < 1e-4


def test_it_is_compared_like_the_others(guided):
    generator, judge, _ = guided
    found = SimpleNamespace(cells=CELLS, record={})
    method, record = rebalance_compare.distribution_guidance(generator, found, np.array([0.9, 0.1]), judge, config=FIT)
    asked, drawn = judge.calls, method(40, 7)
    assert judge.calls == asked and drawn.calls == 0 and drawn.calls_fitting == FIT.samples and drawn.paired
    assert record["gamma"] == FIT.gamma and len(record["balanced_accuracy"]) == 2 and record["calls"] == FIT.samples
    rows = rebalance_compare.compare_methods(generator, found, np.array([0.9, 0.1]), judge, judge, n=40, methods={
        rebalance_compare.GUIDANCE: method}, extractor=lambda images: images[:, ::8, ::8].reshape(len(images), -1) / 255.0)
    assert rows["calls_fitting"][0] == FIT.samples and rows["calls"][0] == 0


# --- what cannot be done ----------------------------------------------------------------------------------------------

WITHOUT_WEIGHTS = SimpleNamespace(name="a stub", latent_dim=4, image_size=8, config=CONFIG)
"""What is refused before anything is drawn needs no U-Net."""


@pytest.mark.parametrize("target", [[0.5, 0.6], [1.2, -0.2], [1.0], [0.2, 0.3, 0.5], [np.nan, 1.0]])
def test_targets_that_are_none(known, target):
    with pytest.raises(InputError, match="the predictor knows 2 combinations"):
        GuidedGenerator(WITHOUT_WEIGHTS, known, np.array(target), gamma=1.0)


@pytest.mark.parametrize("gamma", [-1, np.inf, np.nan])
def test_gammas_that_are_none(known, gamma):
    with pytest.raises(InputError, match="gamma"):
        GuidedGenerator(WITHOUT_WEIGHTS, known, [0.5, 0.5], gamma=gamma)


def test_a_predictor_of_other_steps(known):
    short = Predictor(known.heads[:1], known.held_out, known.calls)
    with pytest.raises(InputError, match="heads for 1 steps, generator 'a stub' takes 2"):
        GuidedGenerator(WITHOUT_WEIGHTS, short, [0.5, 0.5], gamma=1.0)


def test_samples_that_show_one_side_or_nothing(small_pipe):
    generator = DiffusionGenerator(small_pipe, config=CONFIG)
    with pytest.raises(InputError, match="combination male=1: 0 of 120 samples show it"):
        fit_predictor(generator, LikenessJudge(middle=1e6), CELLS, config=FIT)
    with pytest.raises(InputError, match=r"male=0: 0 of 100 samples show it \(100 undecided\)"):
        fit_heads(np.zeros((1, 100, 3)), np.full(100, -1), CELLS)


def test_generators_and_judges_that_do_not_fit(small_pipe):
    toy = TorchGenerator(torch.nn.Identity(), latent_shape=(3, 4, 4), image_size=4, name="toy", device="cpu")
    with pytest.raises(InputError, match="'toy' has no U-Net"):
        fit_predictor(toy, LikenessJudge(), CELLS)
    with pytest.raises(InputError, match="'older': the judge 'likeness' cannot see it"):
        fit_predictor(DiffusionGenerator(small_pipe, config=CONFIG), LikenessJudge(), Cells({"older": (0.5,)}))


@pytest.mark.parametrize("changes", [{"samples": 10}, {"components": 0}, {"held_out": 1.0}, {"gamma": -1.0},
                                     {"penalty": 0.0}, {"seed": -1}, {"gamma": np.nan}])
def test_configurations_that_cannot_work(changes):
    with pytest.raises(InputError, match="give"):
        GuidanceConfig(**changes)

"""The family behind one interface: the equations hold, controls hold no information, and what is missing is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from debiaslib import indicators, rarity
from debiaslib.errors import InputError
from debiaslib.indicators import Batch, Evidence, build_indicator

WEIGHTING = ["density", "reference", "recalibrated", "oracle", "random"]


@pytest.fixture
def evidence():
    """60 faces, 12 of them in a group of its own; natural pictures far from both; an even reference."""
    generator = np.random.default_rng(0)
    is_male = np.arange(60) < 12
    faces, reference = generator.normal(size=(60, 8)), generator.normal(size=(40, 8))
    faces[is_male, 0] += 6
    reference[::2, 0] += 6
    drawn = generator.normal(size=(50, 8))
    drawn[::2, 0] += 6
    return Evidence(embedding=faces, natural=generator.normal(loc=-9, size=(40, 8)), reference=reference, decoded=(faces, reference),
                    drawn=drawn, axes=np.eye(8), is_male=is_male)


def batch(count: int = 6, natural: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    predicted, noise = (torch.randn(count + natural, 4, 8, 8, generator=generator) for _ in range(2))
    return Batch(predicted=predicted.requires_grad_(), noise=noise, is_face=torch.arange(count + natural) < count)


@pytest.mark.parametrize("name", indicators.INDICATORS)
def test_at_alpha_zero_every_indicator_is_plain_denoising(name, evidence):
    indicator = build_indicator(name, alpha=0.0)
    indicator.study(evidence)
    seen = batch()
    assert indicator.loss(seen)[0].item() == pytest.approx((seen.predicted - seen.noise).square().mean().item(), rel=1e-5)
    assert np.allclose(indicator.weights(60), 1) and not indicator.needs_natural


@pytest.mark.parametrize("alpha, strength", [(0.01, 0.1), (0.05, 0.5), (0.1, 1.0), (0.7, 1.0)])
def test_weights_are_their_formula(alpha, strength, evidence):
    indicator = build_indicator("oracle", alpha=alpha)
    indicator.study(evidence)
    value = np.where(evidence.is_male, 1 / 0.2, 1 / 0.8) / 2
    assert indicator.weights(60) == pytest.approx(1 + strength * (value - 1))


@pytest.mark.parametrize("name", WEIGHTING)
def test_weights_are_positive_with_mean_one(name, evidence):
    indicator = build_indicator(name, alpha=0.1)
    indicator.study(evidence)
    weights = indicator.weights(60)
    assert weights.min() >= 0 and weights.mean() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name, low, high", [("density", 0.3, 0.7), ("reference", 0.4, 0.6), ("recalibrated", 0.55, 0.7),
                                             ("oracle", 0.4999, 0.5001), ("random", 0.1, 0.3)])
def test_the_share_aimed_at(name, low, high, evidence):
    """From .2: the label-free ones on their way to even, or past it on purpose, the oracle there, the control where it began (on average)."""
    aimed = []
    for seed in range(20 if name == "random" else 1):
        indicator = build_indicator(name, alpha=0.1, seed=seed)
        indicator.study(evidence)
        aimed.append(rarity.weighted_share(indicator.weights(60), evidence.is_male))
    assert low < np.mean(aimed) < high


@pytest.mark.parametrize("name", ["reference", "recalibrated"])
def test_an_even_set_is_left_as_it_is_where_the_ratio_alone_would_not(name):
    """Sixty even faces differ from sixty others by chance alone, but along some axis they always do."""
    kept, alone = [], []
    for seed in range(8):
        generator, is_male = np.random.default_rng(seed), np.arange(60) % 2 < 1
        rows, reference, drawn = generator.normal(size=(3, 60, 8))
        for part in (rows, reference, drawn):
            part[is_male, 0] += 6
        indicator = build_indicator(name, alpha=0.1)
        indicator.study(Evidence(embedding=rows, natural=generator.normal(loc=-9, size=(40, 8)), reference=reference, drawn=drawn,
                                 decoded=(rows, reference), axes=np.eye(8)))
        kept.append(rarity.effective_share(indicator.weights(60)))
        alone.append(rarity.effective_share(rarity.reference_values(rows, reference)))
    assert np.mean(kept) > 0.9 > np.mean(alone)


def test_random_deals_out_the_weights_of_density(evidence):
    dealt, meant = build_indicator("random", alpha=0.1, seed=3), build_indicator("density", alpha=0.1, seed=3)
    dealt.study(evidence), meant.study(evidence)
    assert np.allclose(np.sort(dealt.weights(60)), np.sort(meant.weights(60))) and not np.allclose(dealt.weights(60), meant.weights(60))


@pytest.mark.parametrize("name", ["density", "reference", "recalibrated", "random"])
def test_label_free_indicators_do_not_read_labels(name, evidence):
    blind = replace(evidence, is_male=None)
    seeing, blindfold = build_indicator(name, alpha=0.1), build_indicator(name, alpha=0.1)
    seeing.study(evidence), blindfold.study(blind)
    assert np.array_equal(seeing.weights(60), blindfold.weights(60)) and "is_male" not in indicators.INDICATORS[name].needs


@pytest.mark.parametrize("name, said", [("density", "face embeddings"), ("reference", "--reference"), ("oracle", "gender labels"),
                                        ("recalibrated", "trained with `reference`")])
def test_what_is_missing_is_said(name, said, evidence):
    with pytest.raises(InputError, match=said):
        build_indicator(name, alpha=0.1).study(Evidence(natural=evidence.natural, embedding=evidence.embedding if name[:2] == "re" else None))


@pytest.mark.parametrize("name", indicators.INDICATORS)
def test_light(name):
    assert sum(weight.numel() for weight in build_indicator(name, alpha=0.1).parameters()) <= 300_000


def test_literal_reaches_the_prediction_and_learns_faces():
    indicator = build_indicator("literal", alpha=0.1)
    seen = batch(count=4, natural=2)
    loss, logs = indicator.loss(seen)
    loss.backward()
    assert seen.predicted.grad[4:].abs().sum() > 0, "natural pictures reach the loss through the cross-entropy alone"
    assert set(logs) == {"denoising", "indicator", "indicator_accuracy"}


@pytest.mark.parametrize("name, alpha", [("none", -0.1), ("density", 1.5)])
def test_alpha_outside_its_range_is_refused(name, alpha):
    with pytest.raises(InputError, match="outside"):
        build_indicator(name, alpha=alpha)

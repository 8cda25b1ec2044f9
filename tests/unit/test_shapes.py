"""Shapes of the label-free weight: known answers on points whose crowd and minority are known."""

import numpy as np
import pytest

from debiaslib import shapes
from debiaslib.errors import InputError
from debiaslib.rarity import effective_share, weighted_share


def crowd(*, few: float, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two groups far apart in one of three directions, `few` of them in the second."""
    generator = np.random.default_rng(seed)
    minority = np.arange(count) < round(few * count)
    return generator.normal(size=(count, 3)) + np.outer(minority, [4.0, 0, 0]), minority


def test_every_shape_favours_the_few_and_the_sharper_ones_cost_more():
    own, minority = crowd(few=0.2)
    drawn, _ = crowd(few=0.15, seed=1)
    table = shapes.compare_shapes(own, drawn, np.random.default_rng(2).normal(20, 1, size=(50, 3)), minority, axes=np.eye(3)).set_index("shape")
    assert (table["p_eff"] > 0.2).all()
    powers = table.loc[["tempered (exponent 1.5)", "even over the space (3)", "as used (3.5)"]]
    assert powers["p_eff"].is_monotonic_increasing and powers["ess"].is_monotonic_decreasing
    assert table["ess"].between(0, 1).all() and table["top_share"].between(0, 1).all()


def test_iterating_once_is_the_power_of_the_dimensions():
    own, _ = crowd(few=0.2)
    once, power = shapes.iterated(own, rounds=1), shapes.power(3.0)(own, own)
    # the neighbourhood counts the face itself here and not there
    assert np.corrcoef(once, power)[0, 1] > 0.99


def test_iterated_weights_leave_an_even_line_alone():
    ring = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    even = np.stack([np.cos(ring), np.sin(ring)], axis=1)
    assert np.allclose(shapes.iterated(even), 1, atol=1e-6)


def test_every_round_costs_effective_sample():
    own, _ = crowd(few=0.2)
    costs = [effective_share(shapes.iterated(own, rounds=rounds)) for rounds in (1, 2, 5)]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize("favoured", [True, False])
def test_whom_the_model_draws_seldom_weighs_more(favoured):
    own, minority = crowd(few=0.5)
    drawn, few = crowd(few=0.1 if favoured else 0.9, seed=3)
    share = weighted_share(shapes.among_drawn(own, drawn), minority)
    assert share > 0.6 if favoured else share < 0.4


def test_a_sweep_without_plain_trainings_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sweep.json"):
        shapes.read_plain(tmp_path)

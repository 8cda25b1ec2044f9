"""How far readers err by themselves: known scatters are found again, and bad readings are refused."""

import numpy as np
import pandas as pd
import pytest

from debiaslib import resolution
from debiaslib.errors import InputError


def readings(own, *, count=400, seed=0):
    """Sets of very different shares, read by readers of known scatter and offset."""
    generator = np.random.default_rng(seed)
    share = generator.uniform(0.2, 0.8, size=count)
    return pd.DataFrame({f"reader{number}": share + 0.03 * number + generator.normal(scale=scale, size=count)
                         for number, scale in enumerate(own)})


@pytest.mark.parametrize("own", [(0.02, 0.03, 0.04), (0.01, 0.03, 0.03, 0.05)])
def test_each_readers_own_scatter_is_found_whatever_the_shares_and_offsets(own):
    found = resolution.own_scatter(readings(own), draws=200)
    for truth, interval in zip(own, found.values(), strict=True):
        assert interval.estimate == pytest.approx(truth, abs=0.004) and interval.low < truth < interval.high


def test_three_readers_are_the_three_cornered_hat():
    """Gray and Allan's closed form: s_1^2 = (v_12 + v_13 - v_23) / 2."""
    table = readings((0.02, 0.03, 0.04), count=50)
    a, b, c = (table[name] for name in table)
    expected = np.sqrt((np.var(a - b, ddof=1) + np.var(a - c, ddof=1) - np.var(b - c, ddof=1)) / 2)
    assert resolution.own_scatter(table, draws=10)["reader0"].estimate == pytest.approx(expected)


def test_a_reader_that_never_errs_has_no_scatter_below_zero():
    found = resolution.own_scatter(readings((0.0, 0.03, 0.03), count=30, seed=3), draws=50)
    assert found["reader0"].low >= 0 and found["reader0"].estimate < 0.02


@pytest.mark.parametrize("own, pictures, recalls", [(0.0, 800, 1.0), (0.02, 800, 0.87)])
def test_what_an_even_model_reads_is_what_simulation_says(own, pictures, recalls):
    generator = np.random.default_rng(0)
    read = generator.binomial(pictures, 0.5, size=200_000) / pictures + generator.normal(scale=own, size=200_000)
    assert resolution.fair_reading(own, pictures=pictures, recalls=recalls) == pytest.approx(np.abs(read - 0.5).mean() / recalls, rel=0.02)


@pytest.mark.parametrize("table", [readings((0.1, 0.1)), readings((0.1, 0.1, 0.1), count=5),
                                   readings((0.1, 0.1, 0.1), count=20).assign(reader1=float("nan"))])
def test_too_little_to_tell_is_refused(table):
    with pytest.raises(InputError, match="three readers"):
        resolution.own_scatter(table)
    with pytest.raises(InputError, match="recalls"):
        resolution.fair_reading(0.1, pictures=800, recalls=0)

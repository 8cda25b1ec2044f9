"""How far readers err by themselves: known scatters are found again, and bad readings are refused."""

import numpy as np
import pandas as pd
import pytest

from debiaslib import resolution
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion


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


@pytest.mark.parametrize("beyond", [0.0, 0.02])
def test_what_an_even_model_reads_is_what_simulation_says(beyond):
    """Pictures are men or not by chance, the judge is wrong about one in ten, and about the whole set by `beyond`."""
    generator, count, sets = np.random.default_rng(0), 800, 50_000
    men = generator.binomial(count, 0.5, size=sets)
    read = (generator.binomial(men, 0.9) + generator.binomial(count - men, 0.1)) / count + generator.normal(scale=beyond, size=sets)
    own = np.std(read - (0.1 + 0.8 * men / count))  # as against a reader that sees each man
    confusion = Confusion(men_read_man=90, men_read_woman=10, women_read_man=10, women_read_woman=90)
    found = resolution.fair_reading(own, pictures=count, confusion=confusion)
    assert found == pytest.approx(np.abs((read - 0.1) / 0.8 - 0.5).mean(), rel=0.03)


@pytest.mark.parametrize("table", [readings((0.1, 0.1)), readings((0.1, 0.1, 0.1), count=5),
                                   readings((0.1, 0.1, 0.1), count=20).assign(reader1=float("nan"))])
def test_too_little_to_tell_is_refused(table):
    with pytest.raises(InputError, match="three readers"):
        resolution.own_scatter(table)


def test_no_picture_says_nothing():
    with pytest.raises(InputError, match="a picture or more"):
        resolution.fair_reading(0.1, pictures=0, confusion=Confusion(men_read_man=9, men_read_woman=1, women_read_man=1, women_read_woman=9))

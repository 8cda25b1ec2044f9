"""How far readers err by themselves: known scatters are found again, and bad readings are refused."""

import json

import numpy as np
import pandas as pd
import pytest

from debiaslib import resolution, unlabelled
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.rarity import Components


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


def test_models_that_start_alike_draw_alike():
    """Half of what decides comes from the start, half from the model: the tetrachoric correlation of .5 is one of 1/3 between yes and no."""
    generator = np.random.default_rng(0)
    start, own = generator.normal(size=(200_000, 1)), generator.normal(size=(200_000, 3))
    drawn = pd.DataFrame(start + own > 0).astype(float)
    assert resolution.shared_chance(drawn) == pytest.approx(1 / 3, abs=0.01)
    assert resolution.shared_chance(drawn.mask(generator.random(drawn.shape) < 0.1)) == pytest.approx(1 / 3, abs=0.01), "undecided ones say nothing"
    assert resolution.shared_chance(pd.DataFrame(own > 0).astype(float)) == pytest.approx(0, abs=0.01)
    assert resolution.shared_chance(drawn.assign(men_alone=1.0)) == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(InputError, match="two or more"):
        resolution.shared_chance(drawn[[0]].assign(men_alone=1.0))


def test_decisions_stand_side_by_side_for_models_of_one_training_seed(tmp_path):
    for name, row, words in (("none-a", {"indicator": "none", "alpha": 0.0, "seed": 3}, ["Man", "Woman", "no face"]),
                             ("density-a", {"indicator": "density", "alpha": 0.0, "seed": 3}, ["Man", "Woman", "no face"]),
                             ("density-b", {"indicator": "density", "alpha": 0.1, "seed": 3}, ["Woman", "", "Man"]),
                             ("none-c", {"indicator": "none", "alpha": 0.0, "seed": 4}, ["Man"] * 3)):
        cell = tmp_path / "cells" / name
        cell.mkdir(parents=True)
        (cell / "row.json").write_text(json.dumps(row | {"ratio": 0.25}))
        pd.DataFrame({"perceived": words}).to_csv(cell / "judged.csv", index=False)
    (found,) = resolution.read_decisions(tmp_path)
    told = {name.split("-")[1]: words.tolist() for name, words in found.items()}  # a, whichever indicator it goes by, and b
    assert told == {"a": pytest.approx([1, 0, np.nan], nan_ok=True), "b": pytest.approx([0, np.nan, 1], nan_ok=True)}


@pytest.mark.parametrize("ratio, unnamed", [(0.25, 0.3), (4.0, 0.7), (1.0, None)])
def test_a_sweep_is_read_by_all_on_the_pictures_that_two_judges_decided_on(tmp_path, monkeypatch, ratio, unnamed):
    """Twelve pictures, of which either judge leaves one out; what lies in the cell already is not read again."""
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": {"preset": "tiny", "faces": "pool", "reference": "somewhere"}}))
    cell = tmp_path / "cells/none"
    cell.mkdir(parents=True)
    (cell / "row.json").write_text(json.dumps({"indicator": "none", "ratio": ratio, "alpha": 0.0, "seed": 0}))
    key = Judge(JudgeConfig(gender="soft", age=False)).key.replace(" ", "_")
    pd.DataFrame({"perceived": ["unsure"] + ["Man"] * 5 + ["Woman"] * 6}).to_csv(cell / "judged.csv", index=False)
    pd.DataFrame({"perceived": ["Man"] * 3 + ["Woman"] * 8 + ["no face"]}).to_csv(cell / f"judged_{key}.csv", index=False)
    pd.DataFrame({"male": [1.0] + [0.9] * 7 + [0.1] * 3 + [1.0]}).to_csv(cell / "tuned.csv", index=False)
    np.save(cell / unlabelled.KEPT.format(count=12), np.r_[5, np.full(7, -2.0), np.full(3, 2.0), 5][:, None])
    groups = Components(origin=np.zeros(1), axis=np.ones(1), centres=np.array([-2.0, 2.0]), deviation=0.5)
    monkeypatch.setattr(resolution, "groups_of", lambda *_: (groups, np.array([0.8, 0.2]), np.array([0.5, 0.5])))
    row = resolution.read_resolution(tmp_path, progress=False).iloc[0]
    assert (row["bundled"], row["soft"], row["tuned"]) == pytest.approx((0.5, 0.2, 0.7))
    assert pd.isna(row["unnamed"]) if unnamed is None else row["unnamed"] == pytest.approx(unnamed, abs=1e-6)
    assert (tmp_path / "resolution.csv").exists()

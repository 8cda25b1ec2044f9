"""How the settings of `reference` were chosen: many draws of toys whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from painted import paint

from debiaslib import face_axes, reference_settings
from debiaslib.errors import InputError


def people(count: int, *, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Labels and embeddings of as many men as women, who lie apart along the first shipped axis."""
    is_male = np.arange(count) % 2 < 1
    rows = np.random.default_rng(seed).normal(size=(count, 128)) * 0.3 + np.outer(is_male, 2 * face_axes.load_axes()[0])
    return pd.DataFrame({"gender": np.where(is_male, "Male", "Female")}), rows


@pytest.fixture(scope="module")
def table():
    natural = np.random.default_rng(9).normal(5, 1, size=(50, 128))
    return reference_settings.try_settings(people(160, seed=0), people(120, seed=1), natural, draws=4, size=60)


def test_a_row_a_share_and_setting(table):
    assert len(table) == len(reference_settings.SHARES) * (1 + len(reference_settings.GRID)) and set(table["draws"]) == {4}
    assert (table["missed"] >= (table["p_eff"] - 0.5).abs() - 1e-9).all() and table["apart"].between(0, 1).all()


def test_skewed_sets_are_weighed_as_before_and_even_ones_less(table):
    of = table.set_index("share")
    used, whole = (of[(of["dims"] == dims) & (of["chance"] == chance)] for dims, chance in ((5, 0.5), (reference_settings.TAKEN_WHOLE, 0.0)))
    for share in (0.2, 0.8):
        assert used["apart"][share] == 1 and used["p_eff"][share] == pytest.approx(whole["p_eff"][share]) == pytest.approx(0.5, abs=0.13)
    assert used["apart"][0.5] < 0.5 and used["ess"][0.5] > whole["ess"][0.5]


def test_too_few_faces_are_told():
    with pytest.raises(InputError, match="largest size this ratio allows"):
        reference_settings.try_settings(people(60, seed=0), people(120, seed=1), np.ones((20, 128)), draws=1)


def test_faces_without_a_reference_are_told_before_anything_is_written(tmp_path):
    paint(tmp_path / "faces", men=6, women=6, size=32, gender=["Male"] * 6 + ["Female"] * 6, split=["finetune", "pretrain"] * 6)
    with pytest.raises(InputError, match="no row of split 'reference'"):
        reference_settings.main(["--faces", str(tmp_path / "faces"), "--out", str(tmp_path / "settings.csv")])
    assert not (tmp_path / "settings.csv").exists()

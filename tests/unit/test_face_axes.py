"""The axes of the face embedding: written as they were found, refused when altered; and what settings along them aim at."""

import shutil

import numpy as np
import pandas as pd
import pytest
from painted import paint

from debiaslib import density_settings, face_axes
from debiaslib.errors import InputError


def test_the_shipped_axes_are_eight_and_at_right_angles():
    axes = face_axes.load_axes()
    assert axes.shape == (8, 128) and np.allclose(axes @ axes.T, np.eye(8), atol=1e-5)


def test_axes_are_those_along_which_rows_differ_most():
    rows = np.random.default_rng(0).normal(size=(500, 12)) * np.r_[9.0, 1, 5, np.full(9, 0.1)]
    axes, explained = face_axes.fit_axes(rows, count=3)
    assert np.abs(axes).argmax(axis=1).tolist() == [0, 2, 1] and (np.diff(explained) < 0).all()
    with pytest.raises(InputError, match="2 faces for 3 axes"):
        face_axes.fit_axes(rows[:2], count=3)


def test_what_is_written_is_what_was_found(tmp_path):
    """safetensors writes an array as it lies in memory, and scikit-learn's components may lie in columns."""
    paint(tmp_path / "faces", men=8, women=8, size=32, mood=["calm"] * 16)
    told = ["--faces", str(tmp_path / "faces"), "--split", "", "--size", "32", "--out", str(tmp_path / "axes")]
    assert face_axes.main(told) == 0
    axes = face_axes.load_axes(tmp_path / "axes")
    assert np.allclose(axes @ axes.T, np.eye(8), atol=1e-4)
    card = (tmp_path / "axes/README.md").read_text()
    assert "all 16 faces" in card and str(tmp_path) not in card
    assert "`faces`" in card and "FairFace" not in card, "whose faces they are is for the user to say"
    with pytest.raises(InputError, match="--size 8"):
        face_axes.main([*told, "--size", "8"])
    with pytest.raises(InputError, match="there already"):
        face_axes.main(told)
    assert face_axes.main([*told, "--overwrite"]) == 0


def test_altered_or_missing_axes_are_refused(tmp_path):
    shutil.copytree(face_axes.data_root() / face_axes.FOLDER, tmp_path / "axes")
    path = tmp_path / "axes" / face_axes.FILE
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="differs from its hash"):
        face_axes.load_axes(tmp_path / "axes")
    (tmp_path / "axes/manifest.json").unlink()
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no axes"):
        face_axes.load_axes(tmp_path / "axes")
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        face_axes.load_axes(tmp_path / "axes")


@pytest.fixture(scope="module")
def toy():
    """400 faces whose genders lie apart along the first shipped axis, natural pictures far from both, and their labels."""
    generator, axes = np.random.default_rng(0), face_axes.load_axes()
    is_male = np.arange(400) < 200
    rows = generator.normal(size=(400, 128)) * 0.3 + np.outer(is_male, 3 * axes[0])
    return pd.DataFrame({"gender": np.where(is_male, "Male", "Female")}), rows, generator.normal(5, 1, size=(50, 128))


def test_settings_are_tried_on_many_draws_and_none_that_cannot_be_drawn(toy):
    table = density_settings.try_settings(*toy, others={"turned": np.eye(8, 128)}, draws={100: 3, 500: 2})
    assert set(table["axes"]) == {density_settings.OWN, density_settings.SHIPPED, "turned"} and set(table["n"]) == {100}
    used = table[(table["axes"] == "shipped") & (table["dims"] == 3) & (table["neighbours"] == 0.15) & (table["exponent"] == 3.5)]
    aimed = used.set_index("ratio")["p_eff"]
    assert 0.3 < aimed[0.25] < 0.7 and aimed[1] == pytest.approx(0.5, abs=0.1) and 0.3 < aimed[4] < 0.7
    assert table["missed"].between(0, 0.5).all() and (table["missed"] >= (table["p_eff"] - 0.5).abs() - 1e-9).all()


def test_too_few_faces_for_any_set_are_told(toy):
    frame, rows, natural = toy
    with pytest.raises(InputError, match="20 men and 20 women to draw training sets from"):
        density_settings.try_settings(frame.iloc[180:220].reset_index(drop=True), rows[180:220], natural)


def test_the_nearest_to_even_comes_first_unless_it_costs_too_much():
    rows = [{"axes": "a", "dims": 3, "neighbours": 0.1, "exponent": e, "n": 100, "ratio": r, "missed": m, "ess": s}
            for e, m, s in ((3, 0.2, 0.6), (4, 0.1, 0.45), (5, 0.05, 0.2)) for r in (0.25, 1, 4)]
    assert density_settings.nearest_to_even(pd.DataFrame(rows))["exponent"].tolist() == [4, 3]


def test_axes_of_several_mixes_want_enough_of_either(toy):
    frame, rows, _ = toy
    is_male = (frame["gender"] == "Male").to_numpy()
    found = density_settings.axes_of_mixes(rows, is_male, count=200)
    assert "of 200 faces, 20% men" in found and all(axes.shape == (8, 128) for axes in found.values())
    with pytest.raises(InputError, match="200 faces of one gender .* 560 are needed"):
        density_settings.axes_of_mixes(rows, is_male)


def test_a_folder_with_too_few_faces_is_told_before_anything_is_written(tmp_path):
    paint(tmp_path / "faces", men=6, women=6, size=32, gender=["Male"] * 6 + ["Female"] * 6, split=["finetune", "pretrain"] * 6)
    with pytest.raises(InputError, match="3 faces of one gender"):
        density_settings.main(["--faces", str(tmp_path / "faces"), "--out", str(tmp_path / "settings.csv")])
    assert not (tmp_path / "settings.csv").exists()


def test_missing_axes_have_no_hash(tmp_path, monkeypatch):
    assert len(face_axes.axes_hash()) == 64
    monkeypatch.setenv("DEBIASLIB_DATA", str(tmp_path))
    assert face_axes.axes_hash() is None

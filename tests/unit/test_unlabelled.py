"""Reading a mix without labels: what a sweep has to have."""

import json

import numpy as np
import pandas as pd
import pytest

from debiaslib import unlabelled
from debiaslib.errors import InputError
from debiaslib.rarity import Components


def _sweep(folder, *, reference: str | None) -> None:
    settings = {"preset": "tiny", "faces": "pool", "reference": reference}
    (folder / "sweep.json").write_text(json.dumps({"settings": settings}))


def test_a_folder_without_a_sweep_or_a_reference_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sweep.json"):
        unlabelled.read_unlabelled(tmp_path)
    _sweep(tmp_path, reference=None)
    with pytest.raises(InputError, match="no --reference"):
        unlabelled.read_unlabelled(tmp_path)


@pytest.mark.parametrize("ratio, judged", [(0.25, 0.3), (4.0, 0.7)])
def test_rows_speak_of_the_group_that_is_rarer_in_training(tmp_path, monkeypatch, ratio, judged):
    _sweep(tmp_path, reference="somewhere")
    cell = tmp_path / "cells/none"
    cell.mkdir(parents=True)
    row = {"indicator": "none", "ratio": ratio, "alpha": 0.0, "seed": 0, "male_share": 0.3}
    (cell / "row.json").write_text(json.dumps(row))
    np.save(cell / unlabelled.KEPT.format(count=10), np.r_[np.full(7, -2.0), np.full(3, 2.0)][:, None])
    groups = Components(origin=np.zeros(1), axis=np.ones(1), centres=np.array([-2.0, 2.0]), deviation=0.5)
    monkeypatch.setattr(unlabelled, "groups_of", lambda *_: (groups, np.array([0.8, 0.2]), np.array([0.5, 0.5])))
    table = unlabelled.read_unlabelled(tmp_path, count=10, progress=False)
    assert table.loc[0, "in_drawn"] == pytest.approx(0.3, abs=1e-6) and table.loc[0, "judged"] == pytest.approx(judged)
    assert (tmp_path / "unlabelled.csv").exists()


def test_faces_of_known_mix_are_read(tmp_path, monkeypatch, capsys):
    """Men lie at 2 and women at -2: read as they are mixed, whichever group is rarer in training; the reference's reading stands beside."""
    _sweep(tmp_path, reference="somewhere")
    look = pd.DataFrame({"file_name": [str(number) for number in range(60)], "gender": ["Male", "Female"] * 30})
    place = np.where(look["gender"] == "Male", 2.0, -2.0)[:, None]
    stubs = {"read_metadata": look.assign(split="evaluate"), "training_rows": look, "read_pixels": np.zeros((60, 64, 64, 3), np.uint8),
             "embed_decoded": place}
    for name, found in stubs.items():
        monkeypatch.setattr(unlabelled, name, lambda *_, found=found, **__: found)
    monkeypatch.setattr(unlabelled.sweep, "base_pipeline", lambda *_: None)
    groups = Components(origin=np.zeros(1), axis=np.ones(1), centres=np.array([-2.0, 2.0]), deviation=0.5)
    training = {0.25: np.array([0.8, 0.2]), 4.0: np.array([0.2, 0.8])}
    monkeypatch.setattr(unlabelled, "groups_of", lambda _, __, ratio, ___: (groups, training[ratio], np.array([0.45, 0.55])))
    table = unlabelled.read_known(tmp_path, seeds=[0, 1], count=30, progress=False)
    assert len(table) == 2 * 2 * 3 and table["read"].to_numpy() == pytest.approx(table["men"].to_numpy(), abs=1e-6)
    assert set(table["reference"]) == {0.55} and (tmp_path / "known.csv").exists()
    monkeypatch.setattr(unlabelled, "read_known", lambda *_, **__: table)
    assert unlabelled.main([str(tmp_path), "--known", "2"]) == 0
    assert "-0.05" in capsys.readouterr().out, "held against its reading, all would be read .05 too low"
    assert unlabelled.guarded("unlabelled", lambda: unlabelled.main([str(tmp_path), "--known", "1"])) == 2


def test_faces_without_splits_are_no_trial(tmp_path, monkeypatch):
    _sweep(tmp_path, reference="somewhere")
    monkeypatch.setattr(unlabelled, "read_metadata", lambda *_: pd.DataFrame({"file_name": ["0"]}))
    with pytest.raises(InputError, match="no column split"):
        unlabelled.read_known(tmp_path, seeds=[0, 1])


def test_even_training_faces_have_no_rarer_group(tmp_path):
    _sweep(tmp_path, reference="somewhere")
    (tmp_path / "cells/none").mkdir(parents=True)
    (tmp_path / "cells/none/row.json").write_text(json.dumps({"indicator": "none", "ratio": 1.0, "alpha": 0.0, "seed": 0}))
    with pytest.raises(InputError, match="all training faces there were even"):
        unlabelled.read_unlabelled(tmp_path)

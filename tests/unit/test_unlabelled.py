"""Reading a mix without labels: what a sweep has to have."""

import json

import numpy as np
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

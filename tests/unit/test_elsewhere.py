"""A sweep read for other attributes: shares as a judge whose rule is known sees them, cells read once."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import elsewhere
from debiaslib.attributes import ATTRIBUTES
from debiaslib.errors import InputError


class ColourJudge:
    """A toy whose truth is known: red is a man's, green an old one's, blue a dark one's; black is no face."""

    name, attributes = "colour", ATTRIBUTES

    def __init__(self):
        self.calls = 0

    def score(self, images, *, progress=False):
        self.calls += len(images)
        means = images.reshape(len(images), -1, 3).mean(1) / 255
        return pd.DataFrame(means, columns=list(ATTRIBUTES)).where(pd.Series(means.max(1) > 0))


@pytest.fixture
def out(tmp_path):
    for alpha, colours in ((0.0, [(255, 0, 0)] * 6 + [(0, 255, 255)] * 2 + [(0, 0, 0)] * 2), (0.1, [(255, 255, 0)] * 5 + [(0, 0, 255)] * 5)):
        cell = tmp_path / f"cells/density-ratio4-alpha{alpha:g}-seed0"
        (cell / "samples/images").mkdir(parents=True)
        names = [f"images/{number:05d}.png" for number in range(len(colours))]
        for name, colour in zip(names, colours, strict=True):
            Image.new("RGB", (16, 16), colour).save(cell / "samples" / name)
        pd.DataFrame({"file_name": names}).to_csv(cell / "samples/metadata.csv", index=False)
        row = {"indicator": "density", "ratio": 4, "alpha": alpha, "seed": 0, "n": 10, "male_share": 0.9, "abstained": 0, "fd": 0.4,
               "fd_corrected": 0.41, "fd_low": 0.3, "face_rate": 0.8}
        (cell / "row.json").write_text(json.dumps(row))
    return tmp_path


def test_shares_are_those_of_the_pictures(out):
    tables = elsewhere.read_elsewhere(out, judge=ColourJudge(), progress=False)
    older, dark = (tables[f"second_{name}"].set_index("alpha") for name in ("older", "dark"))
    assert older.loc[0.0, "male_share"] == 0.25 and older.loc[0.0, "abstained"] == 2 and older.loc[0.1, "male_share"] == 0.5
    assert dark.loc[0.0, "male_share"] == 0.25 and dark.loc[0.1, "fd"] == 0
    assert older["fd_corrected"].isna().all() and older["face_rate"].eq(0.8).all()
    joint = tables["joint"].set_index("alpha")
    assert joint.loc[0.0, "+male -older -dark"] == 0.75 and joint.loc[0.0, "-male +older +dark"] == 0.25
    assert joint.loc[0.0, "fd_even"] == pytest.approx(0.75) and joint.loc[0.1, "most"] == 0.5
    assert sorted(path.name for path in out.glob("*.csv")) == ["joint.csv", "second_dark.csv", "second_older.csv"]


def test_cells_are_read_once(out):
    judge = ColourJudge()
    first = elsewhere.read_elsewhere(out, judge=judge, progress=False)
    again = elsewhere.read_elsewhere(out, judge=judge, progress=False)
    assert judge.calls == 20
    pd.testing.assert_frame_equal(first["joint"], again["joint"], atol=1e-4)


def test_combinations_are_named_in_their_order():
    assert elsewhere.COMBINATIONS[0] == "-male -older -dark" and elsewhere.COMBINATIONS[6] == "+male +older -dark"
    scores = pd.DataFrame({"male": [0.9, np.nan], "older": [0.9, 0.9], "dark": [0.1, 0.9]})
    assert elsewhere.joint_shares(scores).tolist() == [0, 0, 0, 0, 0, 0, 1, 0]


def test_no_cell_is_said(tmp_path):
    with pytest.raises(InputError, match="no finished cell"):
        elsewhere.read_elsewhere(tmp_path)

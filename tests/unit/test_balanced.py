"""The balanced set: the pool's own pictures where it kept them, the others from their own seeds, and never half of it."""

import json

import numpy as np
import pytest

from debiaslib import balanced
from debiaslib.errors import InputError
from debiaslib.faces import read_metadata, read_pixels
from debiaslib.presets import data_root
from debiaslib.subgroups import read_prompts


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Drawing without a model: a picture is the colour of its seed. The list holds the seeds that were drawn."""
    drawn: list[int] = []

    def draw_asked(pipe, kinds: list[str], asked: np.ndarray, seeds: np.ndarray, config) -> np.ndarray:
        assert len(asked) == len(seeds) and max(asked) < len(kinds)
        drawn.extend(seeds)
        return np.stack([np.full((64, 64, 3), seed % 251, np.uint8) for seed in seeds])

    monkeypatch.setattr(balanced, "load_pipeline", lambda model: None)
    monkeypatch.setattr(balanced, "draw_asked", draw_asked)
    return drawn


def test_the_candidates_are_those_that_the_pool_was_chosen_from():
    frame = balanced.candidates(7)
    pool = read_metadata(data_root() / "faces")
    assert {*zip(pool["prompt"], pool["seed"], strict=True)} <= {*zip(frame["prompt"], frame["seed"], strict=True)}
    assert frame["seed"].is_unique and len(frame) == 3430


def test_it_is_balanced():
    asked = read_prompts(balanced.candidates(2)["prompt"])
    counts = asked.groupby(["gender", "race", "age"]).size().unstack()
    assert counts.shape == (14, 4) and (counts.nunique() == 1).all()
    assert (counts["middle-aged"] == 2 * counts["young"]).all(), "two of the five age bands have that word"


def test_pictures_are_the_pools_where_it_has_them_and_else_drawn_from_their_seed(drawn, tmp_path):
    frame = balanced.draw_balanced(tmp_path / "set", chunks=1)
    pool = read_metadata(data_root() / "faces").set_index(["prompt", "seed"])["file_name"]
    kept, missing = frame[frame["kept"]], frame[~frame["kept"]]
    first = kept.iloc[0]
    source = data_root() / "faces" / pool[first["prompt"], first["seed"]]
    assert (tmp_path / "set" / first["file_name"]).read_bytes() == source.read_bytes()
    assert sorted(drawn) == sorted(missing["seed"]) and len(frame) == 490 and 0 < len(missing) < 200
    colours = read_pixels(tmp_path / "set", list(missing["file_name"][:3]), size=64).mean(axis=(1, 2, 3))
    assert colours == pytest.approx((missing["seed"][:3] % 251).to_numpy(), abs=1)
    record = json.loads((tmp_path / "set/balanced.json").read_text())
    assert record["pictures"] == 490 and len(record["pixels_sha256"]) == 64


def test_killed_and_run_again_it_draws_what_is_missing(drawn, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(balanced, "draw_asked", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            balanced.draw_balanced(tmp_path / "set", chunks=1)
    frame = balanced.draw_balanced(tmp_path / "set", chunks=1)
    first = len(drawn)
    (tmp_path / "set" / frame.loc[~frame["kept"], "file_name"].iloc[5]).unlink()
    balanced.draw_balanced(tmp_path / "set", chunks=1)
    assert len(drawn) == first + 1


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        balanced.draw_balanced(tmp_path, chunks=1)
    with pytest.raises(InputError, match="chunks 0"):
        balanced.draw_balanced(tmp_path / "set", chunks=0)

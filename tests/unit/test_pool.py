"""The pool: selection by the stated rules, balanced and spread, whatever was drawn."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from debiaslib import pool
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, sample

CONFIG = pool.PoolConfig(finetune=6, reference=2, evaluate=4)


@pytest.fixture
def drawn():
    generator = np.random.default_rng(0)
    rows = [{"asked": word, "perceived": word, "prompt": f"{word} {number % 5}", "seed": seed,
             "kept": generator.random() < 0.8, "face": True, "perceived_age": 30.0}
            for seed, (word, number) in enumerate((word, number) for word in ("Man", "Woman") for number in range(40))]
    return pd.DataFrame(rows)


def test_equal_numbers_in_every_split(drawn):
    chosen = pool.select(drawn, CONFIG)
    counts = chosen.groupby(["split", "perceived"]).size().unstack()
    assert counts.loc[["finetune", "reference", "evaluate"]].to_numpy().tolist() == [[6, 6], [2, 2], [4, 4]]
    assert chosen["kept"].all() and chosen["seed"].is_unique


def test_prompts_take_turns(drawn):
    """No prompt gives more than one picture above another, as long as it has them."""
    shares = pool.select(drawn, CONFIG).groupby("prompt").size()
    assert shares.max() - shares.min() <= 1


def test_every_prompt_names_one_gender_and_both_get_the_same_words():
    asked = pool.prompts()
    women, men = ({prompt.replace("woman", "*").replace("man", "*") for gender, prompt in asked if gender == name}
                  for name in ("Female", "Male"))
    assert women == men


def test_datasheet_counts_what_was_drawn(drawn):
    text = pool.datasheet(drawn, pool.select(drawn, CONFIG), config=CONFIG, model_hash="abc", command="x")
    kept = drawn[drawn["asked"] == "Man"]["kept"].sum()
    assert f"| Man | 40 | 40 | {kept} |" in text and "24 pictures" in text


def test_written_pool_is_an_imagefolder_with_hashes(drawn, tmp_path):
    from debiaslib.faces import load_faces
    drawn = drawn.assign(p_man=0.9, confidence=0.9, face_score=1.0)
    chosen = pool.select(drawn, CONFIG)
    pictures = np.random.default_rng(0).integers(0, 256, (len(drawn), 8, 8, 3), dtype=np.uint8)
    pool.write_pool(chosen, pictures, tmp_path)
    frame, pixels = load_faces(tmp_path, split="evaluate", size=8)
    assert len(frame) == 8 and pixels.shape == (8, 8, 8, 3)
    assert set(frame["perceived_gender"]) == {"Man", "Woman"}


# --- drawing ----------------------------------------------------------------------------------------------------------

DRAW = pool.PoolConfig(finetune=20, reference=5, evaluate=5, draws_a_prompt=1, steps=1, batch=10)
"""Thirty faces of each gender; a chunk is one picture of each of a gender's 35 prompts."""


class Sees:
    """A judge that counts its calls, and sees every man but only every third woman."""

    def __init__(self):
        self.calls = 0

    def judge(self, images: np.ndarray) -> pd.DataFrame:
        self.calls += 1
        brightness = images.reshape(len(images), -1).mean(1)
        third = np.arange(len(images)) % 3 == 0
        woman = third & self.is_woman
        return pd.DataFrame({"face": True, "face_score": brightness, "p_man": np.where(woman, 0.1, 0.9), "confidence": 0.9,
                             "perceived": np.where(woman, "Woman", "Man"), "abstained": "", "perceived_age": brightness})


@pytest.fixture
def judge(small_pipe, monkeypatch: pytest.MonkeyPatch) -> Sees:
    """The small pipeline and a judge that counts instead of the real ones."""
    judge = Sees()
    draw = pool.draw_asked

    def draw_and_tell(pipe, kinds, *rest):
        judge.is_woman = "woman" in kinds[0]
        return draw(pipe, kinds, *rest)

    monkeypatch.setattr(pool, "_tools", lambda model: (small_pipe, judge))
    monkeypatch.setattr(pool, "draw_asked", draw_and_tell)
    return judge


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder that has the weight files a chunk's key is made of."""
    folder = tmp_path / "model/unet"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder.parent)


@contextmanager
def in_this_process(workers: int) -> Callable:
    yield map


def make(weights: str, out: Path, **options) -> pd.DataFrame:
    return pool.make_pool(weights, out=out, **{"config": DRAW, "workers": 1, "progress": False, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_drawing_stops_as_soon_as_each_gender_has_enough(judge, weights, tmp_path):
    frame = make(weights, tmp_path / "pool")
    assert frame.groupby("asked").size().to_dict() == {"Man": 35, "Woman": 105}, "women need three chunks"
    assert judge.calls == 4
    table = pd.read_csv(tmp_path / "pool/metadata.csv")
    assert list(table) == ["file_name", "prompt", "seed", "perceived_gender", "p_man", "confidence", "perceived_age",
                           "face_score", "split"]
    assert table.groupby(["split", "perceived_gender"]).size().unstack().to_numpy().tolist() == [[5, 5], [20, 20], [5, 5]]
    assert table["seed"].is_unique and table["seed"].is_monotonic_increasing
    assert {path.name for path in tmp_path.iterdir()} == {"model", "pool"}, "no working folder is left"


def test_a_picture_can_be_drawn_again_from_its_prompt_and_seed(judge, weights, small_pipe, tmp_path):
    chunk = pool.Chunk(model=weights, config=DRAW, work=tmp_path, key="", gender="Male", number=1)
    rows, pictures = pool.draw_chunk(chunk).read()
    row = rows.iloc[17]
    config = SampleConfig(prompt=row["prompt"], seed=int(row["seed"]), steps=1, guidance=2.0, batch=1)
    again = next(sample(small_pipe, n=1, config=config))
    assert np.abs(again[0].astype(int) - pictures[17]).max() <= 1


def test_a_killed_run_continues_and_the_pool_is_the_same(judge, weights, tmp_path, monkeypatch):
    make(weights, tmp_path / "whole")
    judge.calls, draw = 0, pool.draw_asked

    def die_in_the_third(*args):
        if judge.calls == 2:
            raise KeyboardInterrupt
        return draw(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "draw_asked", die_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            make(weights, tmp_path / "killed")
    assert not (tmp_path / "killed").exists()
    make(weights, tmp_path / "killed")
    assert judge.calls == 4, "what was drawn is not drawn again"
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_the_number_of_workers_does_not_change_the_pool(judge, weights, tmp_path, monkeypatch):
    make(weights, tmp_path / "one")
    monkeypatch.setattr(pool, "_map", in_this_process)
    make(weights, tmp_path / "three", workers=3)
    assert files(tmp_path / "three") == files(tmp_path / "one")


def test_chunks_of_another_model_are_drawn_anew(judge, weights, tmp_path):
    key = pool._key(weights, DRAW)
    more = pool.replace(DRAW, finetune=500)
    assert pool._key(weights, more) == key, "how many are wanted does not change what is drawn"
    (Path(weights) / "unet/model.safetensors").write_bytes(b"other")
    assert pool._key(weights, DRAW) != key
    chunk = pool.draw_chunk(pool.Chunk(model=weights, config=DRAW, work=tmp_path, key=key, gender="Male", number=0))
    assert chunk.is_drawn() and not pool.replace(chunk, key="other").is_drawn()


def test_a_model_too_weak_a_pool_that_exists_and_a_model_that_does_not(judge, weights, tmp_path):
    with pytest.raises(InputError, match="2 chunks of Woman did not give 30 faces.*Train the model further"):
        make(weights, tmp_path / "pool", config=pool.replace(DRAW, most_chunks=2))
    (tmp_path / "pool").mkdir()
    with pytest.raises(InputError, match="exists.*--overwrite"):
        make(weights, tmp_path / "pool")
    with pytest.raises(InputError, match="no pipeline's weights"):
        make(str(tmp_path), tmp_path / "other")


def test_a_pool_is_replaced_whole(judge, weights, tmp_path):
    make(weights, tmp_path / "pool")
    before = files(tmp_path / "pool")
    (tmp_path / "pool/images/99999.jpg").write_bytes(b"of an older pool")
    make(weights, tmp_path / "pool", overwrite=True)
    assert files(tmp_path / "pool") == before

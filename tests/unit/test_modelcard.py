"""The model card holds the model to its goals and says where it falls short."""

import json

import pandas as pd
import pytest

from debiaslib import modelcard
from debiaslib.errors import InputError

FIGURES = {
    "settings": {"n": 400, "steps": 25, "guidance": 2.0, "seed": 0}, "face_rate_real": 0.96,
    "recall": {"photograph": {"Male": [0.95, 0.93, 0.97], "Female": [0.92, 0.9, 0.94]},
               "autoencoder": {"Male": [0.92, 0.9, 0.94], "Female": [0.91, 0.88, 0.93]}},
    "prompts": {"a human face": {"face_rate": 0.95, "male_share": [0.4, 0.35, 0.45]},
                "a woman's face": {"face_rate": 0.80, "male_share": [0.1, 0.07, 0.13]},
                "a man's face": {"face_rate": 0.95, "male_share": [0.95, 0.92, 0.97]}},
    "kid": {"tiny-sd": 0.02, "gan-face-generate": 0.05},
    "copies": {"pixels": {"samples": 2.0, "strangers": 1.5, "median_ratio": 1.1, "passes": True}},
}


def test_each_goal_is_met_or_missed_by_its_own_number():
    reached = {what: done for what, _, _, done in modelcard.goals(FIGURES)}
    assert not reached["autoencoder's cost in the judge's recall, men"] and reached["autoencoder's cost in the judge's recall, women"]
    assert reached["face found, 'a human face'"] and not reached['face found, "a woman\'s face"']
    assert reached['"a woman\'s face" read as woman'] and reached['"a man\'s face" read as man']
    assert reached["KID to real faces (EfficientNet-Lite0) against a DCGAN's"]


def test_card_names_what_was_missed_and_where_the_data_came_from(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    curves = {"autoencoder": {"config": {"steps": 10}, "curve": []}, "decoder": {"config": {"steps": 5}, "curve": []},
              "denoiser": {"config": {"steps": 100}, "curve": [{"step": step, "loss": 0.5} for step in range(0, 100, 10)]}}
    (tmp_path / "training.json").write_text(json.dumps(curves))
    modelcard.write_card(tmp_path, FIGURES, command="x")
    text = (tmp_path / "README.md").read_text()
    assert "**no**" in text and "FairFace" in text and "CC BY 4.0" in text and "0.40 perceived men" in text
    assert (tmp_path / "manifest.json").exists()


def test_recall_table_reads_the_confusion():
    counts = pd.DataFrame({"condition": ["photograph"] * 2, "gender": ["Male", "Female"], "race": ["all"] * 2, "n": [100, 100],
                           "read_man": [90, 5], "read_woman": [5, 90], "no_face": [5, 5], "low_confidence": [0, 0], "judge": ["x"] * 2})
    table = modelcard.recall_table(counts)
    assert table["photograph"]["Male"][0] == pytest.approx(90 / 95, abs=1e-4)
    assert table["photograph"]["Male"][1] < 90 / 95 < table["photograph"]["Male"][2]


def test_the_card_leaves_other_judges_and_conditions_in_the_confusion(tmp_path):
    rows = pd.DataFrame({"judge": ["a", "a", "b"], "condition": ["photograph", "blur", "photograph"], "n": [1, 2, 3]})
    rows.to_csv(tmp_path / "counts.csv", index=False)
    modelcard._keep_confusion(pd.DataFrame({"judge": ["a"], "condition": ["photograph"], "n": [9]}), tmp_path / "counts.csv")
    assert sorted(pd.read_csv(tmp_path / "counts.csv").itertuples(index=False, name=None)) == [
        ("a", "blur", 2), ("a", "photograph", 9), ("b", "photograph", 3)]


def test_the_other_generator_draws_what_its_weights_say():
    pytest.importorskip("gan_face_generate")
    faces = modelcard.gan_faces(3)
    assert faces.shape == (3, 64, 64, 3) and faces.std() > 20
    assert (modelcard.gan_faces(3) == faces).all() and (modelcard.gan_faces(3, seed=1) != faces).any()


def test_the_other_generator_s_weights_are_checked(monkeypatch):
    pytest.importorskip("gan_face_generate")
    monkeypatch.setattr(modelcard, "GAN_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the weights"):
        modelcard.gan_faces(1)

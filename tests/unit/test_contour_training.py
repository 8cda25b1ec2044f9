"""The ControlNet: mute before training, resumable to the bit, plain diffusers on disk; lines vary; methods are compared."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import ControlNetModel
from painted import PaintedJudge
from safetensors.torch import load_file

from debiaslib import checkpoints, contour_training, contours
from debiaslib.contour_training import (
    ContourConfig,
    LineSource,
    build_controlnet,
    compare_methods,
    summarise,
    train_contour,
)
from debiaslib.contours import Contour, as_drawing
from debiaslib.errors import InputError
from debiaslib.fairness import share_interval
from debiaslib.generate import SampleConfig
from debiaslib.pretrain import DenoiserConfig, build_unet

CONFIG = ContourConfig(embedding=(8, 8, 8), batch=2, steps=4, warmup=1)
LABELS = pd.DataFrame({"gender": ["Male", "Female"] * 3, "age": ["20-29"] * 6, "race": ["White"] * 6})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def square(side=32):
    lines = np.zeros((side, side), np.uint8)
    lines[8, 8:24] = lines[23, 8:24] = lines[8:24, 8] = lines[8:24, 23] = 255
    return Contour(lines=lines, drawing=as_drawing(lines), origin="drawing")


def test_an_untrained_controlnet_changes_nothing_exactly(small_pipe):
    controlnet = build_controlnet(small_pipe, CONFIG).eval()
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 16)
    with torch.no_grad():
        down, middle = controlnet(noisy, 500, text, torch.rand(2, 3, 32, 32), return_dict=False)
        alone = small_pipe.unet(noisy, 500, text).sample
        guided = small_pipe.unet(noisy, 500, text, down_block_additional_residuals=down,
                                 mid_block_additional_residual=middle).sample
        read = controlnet.controlnet_cond_embedding(torch.rand(2, 3, 32, 32))
    assert torch.equal(alone, guided)
    assert read.std() > 0.1, "mute, but not deaf: behind two zeros in a row it would take long to begin"


def test_killed_training_ends_like_an_unbroken_one(small_pipe, pixels, tmp_path, monkeypatch):
    def train(name):
        return train_contour(small_pipe, pixels, LABELS, config=CONFIG, checkpoint=tmp_path / name, progress=False,
                             save_every=3)

    before = {name: weight.clone() for name, weight in small_pipe.unet.state_dict().items()}
    train("whole.safetensors")
    real = checkpoints.step_generator

    def killed(seed, step):
        if step == 3:
            raise KeyboardInterrupt
        return real(seed, step)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "step_generator", killed)
        train("killed.safetensors")
    trained = train("killed.safetensors")
    whole, again = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "killed.safetensors")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)
    assert any(weight.any() for weight in trained.controlnet_mid_block.parameters()), "it has begun to speak"
    after = small_pipe.unet.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items()), "the U-Net is frozen"


def test_a_checkpoint_of_another_base_is_refused(small_pipe, pixels, tmp_path):
    def train():
        train_contour(small_pipe, pixels, LABELS, config=dataclasses.replace(CONFIG, steps=1),
                      checkpoint=tmp_path / "contour.safetensors", progress=False)

    train()
    with torch.no_grad():
        small_pipe.unet.conv_out.bias += 1
    with pytest.raises(InputError, match="another base model"):
        train()


def test_saved_folder_is_plain_diffusers_hashed_and_small(small_pipe, tmp_path):
    controlnet = build_controlnet(small_pipe, CONFIG)
    contour_training.save_controlnet(controlnet, tmp_path / "contour", record={"curve": []}, card="a card")
    loaded = ControlNetModel.from_pretrained(tmp_path / "contour", torch_dtype=torch.float16)
    assert tuple(loaded.config.conditioning_embedding_out_channels) == CONFIG.embedding
    assert torch.equal(loaded.conv_in.weight, controlnet.conv_in.weight.half())
    assert set(json.loads((tmp_path / "contour/manifest.json").read_text())) == {
        "config.json", "diffusion_pytorch_model.safetensors", "training.json", "README.md"}
    assert str(tmp_path) not in (tmp_path / "contour/config.json").read_text()


def test_the_tiny_presets_controlnet_stays_below_ten_megabytes():
    pipe = type("Pipe", (), {"unet": build_unet(DenoiserConfig())})
    weights = sum(weight.numel() for weight in build_controlnet(pipe, ContourConfig()).parameters())
    assert 2 * weights < 10e6


def test_lines_depend_on_the_generator_alone_and_vary(pixels):
    source = LineSource(grey=contours.to_grey(pixels), landmarks=np.random.default_rng(1).random((6, 468, 2)))

    def draw(seed):
        return contour_training.random_lines(source, np.zeros(20, int), config=CONFIG, generator=np.random.default_rng(seed))

    first = draw(0)
    assert first.shape == (20, 32, 32) and first.dtype == np.uint8 and np.array_equal(first, draw(0))
    assert len({lines.tobytes() for lines in first}) > 15, "one face, drawn in many ways"


def test_methods_are_compared_and_an_untrained_controlnet_is_the_prompt_alone(small_pipe, monkeypatch):
    monkeypatch.setattr(contour_training, "identity_spread", lambda pixels: float(pixels.std()))
    config = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=2, precision="fp32")
    untrained = build_controlnet(small_pipe, CONFIG).eval()
    rows = compare_methods(small_pipe, untrained, [square(), square()], seeds=3, config=config, judge=PaintedJudge())
    assert len(rows) == 3 * 2 * 3 and rows.groupby("method").size().eq(6).all()
    prompt, control = (rows[rows["method"] == name].reset_index(drop=True) for name in ("prompt", "controlnet"))
    pd.testing.assert_series_equal(prompt["chamfer"], control["chamfer"])
    table = summarise(rows).set_index("method")
    assert table.loc["prompt", "f1"] == pytest.approx(prompt["f1"].mean()) and (table["n"] == 6).all()
    with pytest.raises(InputError, match="'magic'.*controlnet"):
        compare_methods(small_pipe, None, [square()], seeds=1, config=config, methods=("magic",), judge=PaintedJudge())


def rows_of(shares, seeds=4):
    """Judged rows: contour i with `shares[i]` men among its pictures."""
    constant = {"method": "controlnet", "chamfer": 2.0, "face": True, "abstained": "", "spread": 0.7}
    men = [round(share * seeds) for share in shares]
    return pd.concat([pd.DataFrame({**constant, "contour": i, "seed": range(seeds), "f1": 0.5 + 0.01 * i,
                                    "perceived": ["Man"] * count + ["Woman"] * (seeds - count)})
                      for i, count in enumerate(men)], ignore_index=True)


def test_pictures_of_one_contour_count_as_one_when_they_agree():
    alike, mixed = (summarise(rows_of(shares)).iloc[0] for shares in ([1, 0] * 8, [0.5] * 16))
    assert alike.male_share == mixed.male_share == 0.5 and alike.decided == 64
    assert alike.share_low == pytest.approx(share_interval(8, 16).low), "16 contours, not 64 pictures"
    assert mixed.share_low == pytest.approx(share_interval(32, 64).low)
    assert alike.f1_low < alike.f1 < alike.f1_high and np.isnan(alike.chamfer_low), "no spread, no interval"


def test_nothing_decided_is_no_share():
    rows = rows_of([1, 0]).assign(abstained="no face", perceived="", face=False)
    found = summarise(rows).iloc[0]
    assert found.decided == 0 and np.isnan(found.male_share) and found.face_rate == 0 and found.abstained == 8


def test_command_line_trains_and_writes_a_folder(small_pipe, pixels, tmp_path, monkeypatch):
    frame = LABELS.assign(file_name=[f"{i}.png" for i in range(6)], split="pretrain")
    monkeypatch.setattr(contour_training, "load_pipeline", lambda model: small_pipe)
    monkeypatch.setattr(contour_training, "load_faces", lambda data, size: (frame, pixels))
    command = ["--data", str(tmp_path / "faces.zip"), "--out", str(tmp_path / "out"), "--work", str(tmp_path),
               "--steps", "1", "--batch", "2"]
    assert contour_training.main(command) == 0
    assert ControlNetModel.from_pretrained(tmp_path / "out") and "tiny-contour" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(InputError, match="--overwrite"):
        contour_training.main(command)


def test_landmarks_of_another_set_are_refused(tmp_path):
    np.savez(tmp_path / "points.npz", landmarks=np.zeros((3, 468, 2), np.float16))
    assert contour_training.read_landmarks(tmp_path / "points.npz", rows=[0, 2]).shape == (2, 468, 2)
    for rows, name in (([3], "points.npz"), ([0], "absent.npz")):
        with pytest.raises(InputError, match=name):
            contour_training.read_landmarks(tmp_path / name, rows=rows)

"""The controls of a sweep: made from its own alpha-0 runs, each what it says, and read by the claim's conditions."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import controls, presets, sweep
from debiaslib.errors import InputError


@pytest.fixture
def preset(small_pipe, tmp_path):
    small_pipe.save_pretrained(tmp_path / "model")
    return dataclasses.replace(presets.PRESETS["tiny"], source=str(tmp_path / "model"), image_size=32, train_steps=8, batch=4,
                               sample_steps=2, sample_batch=3, learning_rate=3e-2)


@pytest.fixture
def finished(preset, tmp_path):
    """A sweep of one ratio and seed, on noise with labels."""
    (tmp_path / "faces/images").mkdir(parents=True)
    generator, rows = np.random.default_rng(0), []
    for number in range(24):
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"faces/images/{number:02d}.png")
        rows.append({"file_name": f"images/{number:02d}.png", "gender": ["Male", "Female"][number % 2],
                     "split": "finetune" if number < 20 else "evaluate"})
    pd.DataFrame(rows).to_csv(tmp_path / "faces/metadata.csv", index=False)
    config = sweep.SweepConfig(faces=str(tmp_path / "faces"), ratios=(0.25,), alphas=(0.0,), indicators=("none",), train_size=10, n=3,
                               seeds=(2,))
    sweep.sweep(preset, config=config, out=tmp_path / "out", progress=False)
    return tmp_path / "out"


def pictures(folder):
    found = []
    for path in sorted((folder / "samples/images").glob("*.png")):
        with Image.open(path) as picture:
            found.append(np.asarray(picture, int))
    return np.stack(found)


def test_each_control_is_what_it_says_and_is_made_once(finished, preset, monkeypatch):
    pipe = sweep.base_pipeline(preset)
    before = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    alone = controls.make_controls(finished, preset=preset, only=["base"], progress=False)
    assert alone["control"].tolist() == ["base"] and not (finished / "controls/scale-.3-ratio0.25-seed2").exists()
    rows = controls.make_controls(finished, preset=preset, progress=False)
    assert all((weight == before[name]).all() for name, weight in pipe.unet.state_dict().items()), "the base is left as it was"
    table = rows.set_index("control")
    assert list(table.index) == list(controls.MADE) and list(table["train_steps"]) == [0, 8, 2, 8]
    start = pictures(finished / "cells/none-ratio0.25-alpha0-seed2")
    drawn = {name: pictures(finished / "controls" / folder) for name, folder in
             {"base": "base", "scale .3": "scale-.3-ratio0.25-seed2", "noise-damaged": "noise-damaged-ratio0.25-seed2"}.items()}
    away = {name: np.abs(found - start).mean() for name, found in drawn.items()}
    seeds = {name: pd.read_csv(finished / folder / "samples/metadata.csv")["seed"].min() for name, folder in
             {"start": "cells/none-ratio0.25-alpha0-seed2", "scale .3": "controls/scale-.3-ratio0.25-seed2", "base": "controls/base"}.items()}
    assert seeds["scale .3"] == seeds["start"] > seeds["base"] == sweep.SweepConfig(faces="").sample_seed
    assert 0 < away["scale .3"] < away["base"], "an adapter turned down starts from the same noise and lies near it"
    assert np.std(drawn["noise-damaged"] - start) > 15
    assert table.loc["noise-damaged", "fit_loss"] == pd.read_csv(finished / "cells.csv")["fit_loss"].item()
    assert table["fit_loss"].nunique() == 4
    assert list(pd.read_csv(finished / "controls.csv").columns) == ["control", *sweep.COLUMNS, *sweep.MORE]
    for name in ("generate", "finetune", "damage"):
        monkeypatch.setattr(controls, name, lambda *args, **options: pytest.fail("done already"))
    pd.testing.assert_frame_equal(controls.make_controls(finished, preset=preset, progress=False), rows)


def test_an_unknown_control_is_named(finished, preset):
    with pytest.raises(InputError, match="control 'half': no such control"):
        controls.make_controls(finished, preset=preset, only=["base", "half"], progress=False)
    with pytest.raises(InputError, match="no finished run at alpha 0 of these --ratios and --seeds. There is ratio"):
        controls.make_controls(finished, preset=preset, ratios=[0.2], progress=False)


def test_no_sweep_and_no_start_are_said(tmp_path):
    with pytest.raises(InputError, match="no sweep.json"):
        controls.make_controls(tmp_path / "nowhere")
    settings = {"preset": "tiny", "faces": "pool", "alphas": [0.1], "training": {"averaged": 0.5}}
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings}))
    name, config = controls.read_sweep(tmp_path)
    assert name == "tiny" and config.alphas == (0.1,) and config.faces == str(presets.data_root() / "faces")
    with pytest.raises(InputError, match="--alphas 0"):
        controls.make_controls(tmp_path)

"""Galleries: adapters switched and blended, a cache made of a sweep over the pool, and of nothing else."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from debiaslib import gallery as galleries
from debiaslib.errors import InputError
from debiaslib.finetune import ADAPTER_FILE
from debiaslib.gallery import AlphaSwitch, GalleryConfig, Studio, blend, load_gallery, main, make_gallery, same_seed_grid
from debiaslib.generate import SampleConfig, sample

CONFIG = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=2, precision="fp32")
RATIOS, ALPHAS = (0.25, 4.0), (0.0, 0.05, 0.1)
WANTED = GalleryConfig(indicator="density", ratios=RATIOS, seeds=2, between=1)


def save_adapter(pipe, folder, *, seed):
    """A LoRA of random weights, written as training writes it."""
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"]), adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in pipe.unet.named_parameters():
        if "lora" in name:
            weight.data = torch.randn(weight.shape, generator=generator)
    layers = get_peft_model_state_dict(pipe.unet, adapter_name="made")
    pipe.save_lora_weights(folder, unet_lora_layers=layers, weight_name=ADAPTER_FILE)
    pipe.unet.delete_adapters("made")


@pytest.fixture
def files(small_pipe, tmp_path):
    """An adapter for each alpha."""
    for number, alpha in enumerate(ALPHAS):
        save_adapter(small_pipe, tmp_path / f"adapter{alpha:g}", seed=number)
    small_pipe.unload_lora_weights()
    return {alpha: tmp_path / f"adapter{alpha:g}" for alpha in ALPHAS}


def draw(pipe):
    return np.concatenate(list(sample(pipe, n=2, config=CONFIG))).astype(int)


# Adapters on one pipeline ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("alpha", "weights"), [
    (0.05, {0.05: 1}), (0, {0: 1}), (0.06, {0.05: 0.8, 0.1: 0.2}), (0.01, {0: 0.8, 0.05: 0.2}), (None, {}),
])
def test_an_alpha_is_one_adapter_or_two_neighbours_that_add_up_to_one(alpha, weights):
    found = blend(ALPHAS[::-1], alpha)
    assert found.weights == pytest.approx(weights)
    assert found.interpolated == (len(weights) == 2) == ("interpolated" in str(found))


@pytest.mark.parametrize(("trained", "alpha", "said"), [(ALPHAS, 0.2, "from 0 to 0.1"), (ALPHAS[1:], 0.0, "from 0.05"),
                                                        ((), 0.1, "none at all")])
def test_an_alpha_without_an_adapter_is_told(trained, alpha, said):
    with pytest.raises(InputError, match=f"no adapter for it.*{said}"):
        blend(trained, alpha)


def test_switching_gives_what_each_adapter_alone_gives(small_pipe, files):
    base, alone = draw(small_pipe), {}
    for alpha, folder in files.items():
        small_pipe.load_lora_weights(str(folder), weight_name=ADAPTER_FILE, adapter_name="only")
        alone[alpha] = draw(small_pipe)
        small_pipe.unload_lora_weights()
    switch = AlphaSwitch(small_pipe, files)
    for alpha in (0.1, 0.0, None, 0.05, None, 0.1):
        switch.use(alpha)
        expected = base if alpha is None else alone[alpha]
        assert np.abs(draw(small_pipe) - expected).max() <= 1
    assert np.abs(alone[0.0] - alone[0.1]).max() > 1 < np.abs(alone[0.0] - base).max()


def test_blending_averages_the_adapters_matrices(small_pipe, files):
    switch = AlphaSwitch(small_pipe, files)
    x = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    layer = next(module for name, module in small_pipe.unet.named_modules() if name.endswith("attn1.to_q"))
    given = {}
    for alpha in (0.05, 0.06, 0.1):
        switch.use(alpha)
        given[alpha] = layer(x[:, :layer.in_features]).detach()
    torch.testing.assert_close(given[0.06], 0.8 * given[0.05] + 0.2 * given[0.1])


def test_a_grid_has_the_same_noise_in_a_column(small_pipe, files):
    switch = AlphaSwitch(small_pipe, files)
    grid = same_seed_grid(switch, alphas=[None, 0.05], seeds=[7, 3], config=CONFIG)
    assert grid.shape == (2, 2, 32, 32, 3)
    switch.use(None)
    again = np.concatenate(list(sample(small_pipe, n=1, config=CONFIG, seeds=[3])))
    assert np.abs(grid[0, 1].astype(int) - again[0]).max() <= 1


# The cache that ships --------------------------------------------------------------------------------------------------

@pytest.fixture
def sweep(small_pipe, files, tmp_path, monkeypatch):
    """A finished sweep of painted pictures, and the small pipeline in place of the preset's."""
    monkeypatch.setattr(galleries, "load_pipeline", lambda preset: small_pipe)
    for number, (ratio, alpha) in enumerate(product(RATIOS, ALPHAS)):
        cell = tmp_path / f"sweep/cells/density-ratio{ratio:g}-alpha{alpha:g}-seed0"
        (cell / "samples/images").mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (32, 32), (40 * number, 100 * index, 7)).save(cell / f"samples/images/{index:05d}.png")
        settings = {"prompt": "a human face", "steps": 2, "guidance": 2.0, "negative_prompt": "", "seed": 50, "batch": 9}
        (cell / "samples/generate.json").write_text(json.dumps({"settings": settings}))
        pd.DataFrame({"perceived": ["Man", ""], "abstained": ["", "no face"]}).to_csv(cell / "judged.csv", index=False)
        row = dict.fromkeys(galleries.FROM_ROW, 0.25) | {"indicator": "density", "ratio": ratio, "alpha": alpha, "seed": 0,
                                                         "n": 200, "face_rate": 0.9, "faces": "pool", "preset": "tiny"}
        (cell / "row.json").write_text(json.dumps(row))
        (cell / ADAPTER_FILE).write_bytes((files[alpha] / ADAPTER_FILE).read_bytes())
    return tmp_path / "sweep"


def test_a_gallery_holds_the_sweep_s_pictures_figures_and_readings(sweep, tmp_path):
    made = make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    assert made.ratios == RATIOS and made.seeds == (50, 51) and made.indicator == "density" and made.size == 32
    assert made.alphas(4.0) == ALPHAS and made.alphas(0.25) == (0.0, 0.025, 0.05, 0.075, 0.1)
    assert made.pictures(4.0)[1, 2, 0, 0].tolist() == [200, 100, 7]  # the sixth cell, its second picture, lossless
    row = made.measured(ratio=4.0, alpha=0.05)
    assert row["face_rate"] == 0.9 and row["face_low"] < 0.9 < row["face_high"] and row["male_share"] == 0.25
    assert made.measured(ratio=0.25, alpha=0.025) is None
    assert len(made.readings) == 12 and made.readings["seed"].tolist()[:2] == [50, 51]
    assert made.readings["abstained"].tolist()[:2] == ["", "no face"]
    with pytest.raises(InputError, match="ratio 9: not in this gallery.*0.25, 4"):
        made.alphas(9)


def test_its_adapters_are_the_sweep_s_at_half_the_size(sweep, small_pipe, files, tmp_path):
    made = make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    assert made.adapter_ratio == 0.25 and tuple(made.adapters) == ALPHAS
    half, whole = (folder / ADAPTER_FILE for folder in (made.adapters[0.1], files[0.1]))
    assert half.stat().st_size < 0.75 * whole.stat().st_size
    small_pipe.unload_lora_weights()
    switch = AlphaSwitch(small_pipe, {0.1: made.adapters[0.1]} | {0.5: files[0.1]})
    assert {weight.dtype for name, weight in small_pipe.unet.named_parameters() if "lora" in name} == {torch.float32}
    drawn = same_seed_grid(switch, alphas=[0.1, 0.5], seeds=[1], config=CONFIG).astype(int)
    assert np.abs(drawn[0] - drawn[1]).mean() < 1


def test_faces_in_between_are_drawn_by_the_blend(sweep, small_pipe, tmp_path):
    made = make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    small_pipe.unload_lora_weights()
    again = same_seed_grid(AlphaSwitch(small_pipe, made.adapters), alphas=[0.075], seeds=made.seeds, config=CONFIG)
    assert np.abs(made.pictures(0.25)[:, 3].astype(int) - again[0]).max() <= 1


@pytest.mark.parametrize(("change", "said"), [
    ({"faces": "fairface"}, "trained on 'fairface'.*face pool alone"), ({"indicator": "literal"}, "no finished cell"),
])
def test_only_finished_cells_of_the_pool_are_taken(sweep, tmp_path, change, said):
    for path in sweep.glob("cells/*ratio4*/row.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=said):
        make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists() and not list(tmp_path.glob("gallery*"))


def test_what_cannot_be_used_is_told(sweep, tmp_path, monkeypatch):
    path = next(sweep.glob("cells/*ratio4-alpha0.1*")) / "samples/generate.json"
    other = json.loads(path.read_text())
    path.write_text(json.dumps({"settings": other["settings"] | {"seed": 9}}))
    with pytest.raises(InputError, match="drawn in another way"):
        make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    path.write_text(json.dumps(other))
    monkeypatch.setattr(galleries, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="would take .* MB"):
        make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    with pytest.raises(InputError, match="00002.png: missing"):
        make_gallery(sweep, config=GalleryConfig(indicator="density", seeds=3), out=tmp_path / "gallery")
    with pytest.raises(InputError, match="no gallery there.*python -m debiaslib.gallery"):
        load_gallery(tmp_path / "gallery")


def test_the_command_makes_one_and_overwrites_only_when_told(sweep, tmp_path, capsys):
    command = ["--sweep", str(sweep), "--indicator", "density", "--ratio", "4", "--seeds", "2", "--between", "0", "--out",
               str(tmp_path / "gallery")]
    assert main(command) == 0
    assert "ratio 4: alpha 0, 0.05, 0.1; adapters of ratio 4" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists.*--overwrite"):
        main(command)
    assert main([*command, "--overwrite"]) == 0


def test_a_changed_file_is_noticed(sweep, tmp_path):
    made = make_gallery(sweep, config=GalleryConfig(indicator="density", ratios=(4.0,), seeds=1, between=0),
                        out=tmp_path / "gallery")
    made.sprite(4.0).write_bytes(b"something else")
    with pytest.raises(InputError, match="differs from its hash"):
        load_gallery(made.folder)


def test_a_studio_draws_by_seed_and_alpha_and_counts_steps(sweep, small_pipe, tmp_path):
    small_pipe.unload_lora_weights()
    made = make_gallery(sweep, config=WANTED, out=tmp_path / "gallery")
    small_pipe.unload_lora_weights()
    studio, told = Studio(made), []
    drawn = studio.draw(seeds=[50, 51, 9], config=studio.config(batch=2), alpha=0.075,
                        on_step=lambda done, of: told.append((done, of)))
    assert np.abs(drawn[:2].astype(int) - made.pictures(0.25)[:, 3]).max() <= 1
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(InputError, match="no adapter for it"):
        studio.draw(seeds=[1], config=studio.config(), alpha=0.3)


def test_a_studio_that_was_warmed_has_its_pipeline_and_one_that_cannot_be_says_so_when_it_draws(small_pipe, monkeypatch):
    calls = []
    monkeypatch.setattr(galleries, "load_pipeline", lambda preset: calls.append(preset) or small_pipe)
    studio = Studio(None)
    studio.warm()
    assert studio.draw(seeds=[1], config=CONFIG).shape == (1, 32, 32, 3) and len(calls) == 1

    def missing(preset):
        raise InputError("no weights")

    monkeypatch.setattr(galleries, "load_pipeline", missing)
    studio = Studio(None)
    studio.warm()
    with pytest.raises(InputError, match="no weights"):
        studio.draw(seeds=[1], config=CONFIG)


def test_the_gallery_that_ships_is_of_the_pool_and_small():
    shipped = load_gallery()
    assert sum(path.stat().st_size for path in shipped.folder.rglob("*") if path.is_file()) < galleries.MOST_BYTES
    trained = shipped.shares.query("ratio == @shipped.adapter_ratio")["alpha"]
    assert set(shipped.adapters) == set(trained) and 0 in shipped.adapters
    for ratio in shipped.ratios:
        assert shipped.pictures(ratio).shape[:2] == (len(shipped.seeds), len(shipped.alphas(ratio)))
    counted = shipped.readings.groupby(["ratio", "alpha"])["perceived"].apply(
        lambda said: (said == "Man").sum() / (said != "").sum())
    for row in shipped.shares.itertuples():
        assert counted[row.ratio, row.alpha] == pytest.approx(row.male_share, abs=1e-4)

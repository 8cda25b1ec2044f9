"""Stable Diffusion v1.5 without its weights: the published shape, and the `sd15` preset's every path through it.

Quick tests run the same blocks a tenth as wide. `python -m pytest -m slow` runs the true widths: 8 GB, some minutes.
"""

import dataclasses
import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from safetensors.torch import load_file

from debiaslib import __main__ as cli
from debiaslib import finetune, presets, report, sweep, true_shape
from debiaslib.errors import InputError

SIZE = 64
ATTENTIONS = 32  # two in each of 16 transformer blocks: 6 on the way down, 1 in the middle, 9 on the way up


@pytest.fixture(scope="session")
def narrow(tmp_path_factory):
    """A folder with the narrow pipeline."""
    return true_shape.write_pipeline(tmp_path_factory.mktemp("narrow") / "sd15", shape=true_shape.NARROW, image_size=SIZE)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A folder with the pipeline at its true widths."""
    return true_shape.write_pipeline(tmp_path_factory.mktemp("published") / "sd15", image_size=SIZE, dtype="bf16")


@pytest.fixture
def face_set(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    generator = np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(16)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / name)
    pd.DataFrame({"file_name": names, "gender": ["Male", "Female"] * 8}).to_csv(folder / "metadata.csv", index=False)
    return folder


def use(monkeypatch, folder, **changes):
    """The preset `sd15` with that folder behind it, at a few pixels and steps."""
    settings = {"source": str(folder), "image_size": SIZE, "train_steps": 2, "accumulation": 2, "sample_steps": 1}
    preset = dataclasses.replace(presets.PRESETS["sd15"], **settings | changes)
    monkeypatch.setitem(presets.PRESETS, "sd15", preset)
    monkeypatch.setattr(finetune, "fit_loss", functools.partial(finetune.fit_loss, draws=4))
    return preset


# --- the shape --------------------------------------------------------------------------------------------------------

def test_published_shape_has_the_published_number_of_weights():
    with torch.device("meta"):
        parts = true_shape.build_parts()
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def test_narrow_is_the_same_in_all_but_width():
    with torch.device("meta"):
        wide, narrow = (true_shape.build_parts(shape) for shape in (true_shape.PUBLISHED, true_shape.NARROW))
    for name in wide:
        wide_names, narrow_names = ([key for key, _ in parts[name].named_parameters()] for parts in (wide, narrow))
        assert wide_names == narrow_names


def test_the_tokenizer_has_the_published_size_length_and_ends():
    tokenizer = true_shape.build_tokenizer()
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    ids = tokenizer("a human face, Zebra 7", padding="max_length", max_length=77, truncation=True).input_ids
    assert len(ids) == 77 and ids[0] == 49406 and ids[-1] == 49407
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "ahumanface,zebra7"


def test_a_seed_gives_the_same_weights_and_leaves_the_callers_chance_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pipes = [true_shape.build_pipeline(true_shape.NARROW, image_size=SIZE, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, again, other = (pipe.unet.conv_out.weight for pipe in pipes)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_folder_is_plain_diffusers_in_the_wanted_precision(tmp_path, capsys):
    out = tmp_path / "model"
    assert cli.guarded("true_shape", lambda: true_shape.main(["--out", str(out), "--narrow", "--image-size", "64"])) == 0
    assert "it draws noise" in capsys.readouterr().out and "draws noise" in (out / "README.md").read_text()
    assert load_file(out / "unet/diffusion_pytorch_model.safetensors")["conv_in.weight"].dtype == torch.bfloat16
    pipe = StableDiffusionPipeline.from_pretrained(out, safety_checker=None)
    assert type(pipe.scheduler).__name__ == "PNDMScheduler" and pipe.unet.config.sample_size == 8
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_killed_run_left_is_cleared_away(tmp_path, overwrite):
    out, left = tmp_path / "model", tmp_path / "model.partial"
    for folder in (left, *([out] if overwrite else [])):
        (folder / "unet").mkdir(parents=True)
        (folder / "unet/half.safetensors").write_bytes(b"half")
    true_shape.write_pipeline(out, shape=true_shape.NARROW, image_size=SIZE, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == [out] and not list(out.rglob("half*"))


@pytest.mark.parametrize(("argv", "message"), [
    (["--out", "{here}"], "exists. Give another --out, or --overwrite"),
    (["--out", "{here}/new", "--image-size", "100"], "give a multiple of 64"),
])
def test_wrong_input_is_told_in_one_line(argv, message, tmp_path, capsys):
    argv = [part.format(here=tmp_path) for part in argv]
    assert cli.guarded("true_shape", lambda: true_shape.main([*argv, "--narrow"])) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_attention_is_torchs_own():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**true_shape.NARROW.unet)
    processors = unet.attn_processors.values()
    assert len(processors) == ATTENTIONS and all(isinstance(each, AttnProcessor2_0) for each in processors)


# --- memory -----------------------------------------------------------------------------------------------------------

def test_live_bytes_counts_what_is_alive():
    with true_shape.LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[10:].view(-1)
        assert live.now == 4000
        second = (view + 1).double()
        assert live.now == 4000 + 8 * 990 and live.most == live.now + 4 * 990
        del second
        assert live.now == 4000
        del first
        assert live.now == 4000, "a view keeps the whole"
        del view
    assert live.now == 0


def test_live_bytes_sees_what_the_backward_pass_keeps():
    weight = torch.ones(1000, requires_grad=True)
    with true_shape.LiveBytes() as live:
        value = weight
        for _ in range(5):
            value = value.sigmoid()
        assert live.now == 5 * 4000, "sigmoid keeps its result for its gradient"
        value.sum().backward()
        del value
    assert live.now == 4000, "the gradient"


def test_checkpointing_takes_less_memory():
    preset = dataclasses.replace(presets.PRESETS["sd15"], image_size=128)
    count = functools.partial(true_shape.training_memory, preset, shape=true_shape.NARROW)
    usual, lean = count(checkpointing=False), count(checkpointing=True)
    assert lean["step"] < usual["step"] and lean["weights"] == usual["weights"]


def test_memory_is_told_in_words(capsys):
    assert true_shape.main(["--memory", "--narrow", "--image-size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["training", "training with --checkpointing", "drawing 8 at once"]
    assert all("GB (weights" in line for line in lines)


# --- arithmetic and the budget -----------------------------------------------------------------------------------------

def test_operations_of_a_layer_are_counted_as_by_hand():
    layer, latents = (torch.nn.Conv2d(32, 16, 3, padding=1, device="meta"), torch.empty(1, 32, 8, 8, device="meta"))
    assert true_shape._counted(lambda: layer(latents)) == 2 * 9 * 32 * 16 * 8 * 8


def test_frozen_weights_spare_a_third_of_a_training_step():
    preset = dataclasses.replace(presets.PRESETS["sd15"], image_size=128)
    usual, twice = (true_shape.operations(preset, shape=true_shape.NARROW, checkpointing=each) for each in (False, True))
    assert 2 <= usual["train"] / usual["unet"] < 2.3 and 0.5 < (twice["train"] - usual["train"]) / usual["unet"] <= 1
    assert twice["decode"] == usual["decode"] and twice["unet"] == usual["unet"]


def test_pictures_are_encoded_as_many_at_once_as_the_budget_says(narrow):
    pipe = presets.load_pipeline(str(narrow), device="cpu")
    met = []
    pipe.vae.encoder.register_forward_hook(lambda _module, inputs, _output: met.append(len(inputs[0])))
    for side in (64, 128, 320):
        presets.encode_latents(pipe.vae, np.zeros((true_shape.encoded_at_once(side, side), side, side, 3), np.uint8))
        presets.encode_latents(pipe.vae, np.zeros((true_shape.encoded_at_once(side, side) + 1, side, side, 3), np.uint8))
    full = [true_shape.encoded_at_once(side, side) for side in (64, 128, 320)]
    assert met == [count for each in full for count in (each, each, 1)] and full == [32, 8, 1]


def test_the_budget_is_written_with_its_command(tmp_path, capsys):
    out = tmp_path / "new/budget.csv"
    written = true_shape.write_budget(out, sizes=(64, 128), shape=true_shape.NARROW)
    table, told = pd.read_csv(out), json.loads(out.with_suffix(".json").read_text())
    assert table["image_size"].tolist() == [64, 64, 128, 128] and table["checkpointing"].tolist() == [False, True] * 2
    assert np.allclose(table.drop(columns="checkpointing"), written.drop(columns="checkpointing"), atol=1)
    assert (table["encode"] > 0).all() and table["train"].is_monotonic_increasing
    assert told["command"].startswith("python -m debiaslib.true_shape --budget") and told["settings"]["rank"] == 8
    assert str(tmp_path) not in out.with_suffix(".json").read_text()


# --- the preset's paths -----------------------------------------------------------------------------------------------

def train(face_set, out, *more):
    return cli.main(["train", "--preset", "sd15", "--faces", str(face_set), "--train-size", "8", "--alpha", "0.1",
                     "--out", str(out), *more])


def check_every_path(face_set, tmp_path, monkeypatch):
    """Train, load by plain diffusers, draw, sweep."""
    out = tmp_path / "adapter"
    assert train(face_set, out) == 0
    adapter = load_file(out / finetune.ADAPTER_FILE)
    assert len(adapter) == ATTENTIONS * 2 * 2, "two factors for to_q and to_v of every attention"
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert cli.main(["generate", "--model", str(out), "-n", "2", "--out", str(tmp_path / "drawn")]) == 0
    assert cli.main(["generate", "--model", "sd15", "-n", "2", "--out", str(tmp_path / "plain")]) == 0
    drawn, plain = (np.stack([np.asarray(Image.open(tmp_path / name / f"images/{index:05d}.png")) for index in range(2)])
                    for name in ("drawn", "plain"))
    assert drawn.shape == plain.shape == (2, SIZE, SIZE, 3)
    monkeypatch.setattr(sweep, "instruments", lambda preset, config: {})
    monkeypatch.setattr(sweep, "figures_of", lambda folder, preset, instruments: dict.fromkeys(("fd", "face_rate"), 0.5))
    monkeypatch.setattr(report, "write_report", lambda out, table: None)
    grid = sweep.SweepConfig(faces=str(face_set), ratios=(1.0,), alphas=(0.1,), train_size=8, n=2)
    try:
        table = sweep.sweep(presets.PRESETS["sd15"], config=grid, out=tmp_path / "sweep", progress=False)
    finally:
        sweep.base_pipeline.cache_clear()
        sweep.training_set.cache_clear()
    assert table["preset"].tolist() == ["sd15"] and table["train_steps"].tolist() == [2]


def test_every_path_narrow(narrow, face_set, tmp_path, monkeypatch):
    use(monkeypatch, narrow)
    check_every_path(face_set, tmp_path, monkeypatch)


@pytest.mark.slow
def test_every_path_at_the_true_widths(published, face_set, tmp_path, monkeypatch):
    use(monkeypatch, published)
    check_every_path(face_set, tmp_path, monkeypatch)


@pytest.mark.slow
def test_training_and_drawing_fit_a_card_of_12_gigabytes():
    for checkpointing in (False, True):
        counted = true_shape.training_memory(checkpointing=checkpointing)
        assert sum(counted.values()) < 9e9, "room is left for the CUDA context and what allocation wastes"
    assert sum(true_shape.drawing_memory().values()) < 10e9


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_checkpointing_and_weights_held_in_half_change_nothing(narrow, tmp_path, monkeypatch, precision):
    """The same adapter to the bit: with activations computed twice, and with autocast's casting done once or every time."""
    preset = use(monkeypatch, narrow)
    pipe = presets.load_pipeline(preset)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    data = finetune.prepare_set(pipe, pixels, natural=pixels[:2])
    config = finetune.FinetuneConfig.of(preset, indicator="literal", alpha=0.1, precision=precision, learning_rate=1e-3,
                                        batch=2)
    before = [weight.clone() for weight in pipe.unet.parameters()]
    runs = {"usual": (False, finetune.frozen_factors), "checkpointing": (True, finetune.frozen_factors),
            "cast each time": (False, lambda unet: [])}
    for name, (checkpointing, frozen) in runs.items():
        monkeypatch.setattr(finetune, "frozen_factors", frozen)
        finetune.finetune(pipe, data, config=dataclasses.replace(config, checkpointing=checkpointing), out=tmp_path / name,
                          progress=False)
        assert all(map(torch.equal, pipe.unet.parameters(), before)), "left as it was"
    usual, *others = (load_file(tmp_path / name / finetune.ADAPTER_FILE) for name in runs)
    assert all(torch.equal(usual[key], other[key]) for other in others for key in usual)
    assert any(tensor.abs().max() > 0 for key, tensor in usual.items() if "lora_B" in key or "lora.up" in key)


def test_records_do_not_lose_the_settings(narrow, face_set, tmp_path, monkeypatch, capsys):
    """A finished run is recognised, also one from before a setting existed."""
    use(monkeypatch, narrow)
    assert train(face_set, tmp_path / "out", "--indicator", "none") == 0
    record = tmp_path / "out" / finetune.RECORD_FILE
    content = json.loads(record.read_text())
    del content["config"]["checkpointing"]
    record.write_text(json.dumps(content))
    assert train(face_set, tmp_path / "out", "--indicator", "none") == 0
    assert "already trained" in capsys.readouterr().out


def test_unknown_size_is_refused():
    with pytest.raises(InputError, match="multiple of 64"):
        true_shape.build_parts(image_size=32)

"""The training loop: resumable, paired across alpha, and its adapters belong to plain diffusers."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from debiaslib import __main__ as cli
from debiaslib import finetune, presets
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, sample
from debiaslib.indicators import Batch, Evidence, build_indicator, needs_of

CONFIG = finetune.FinetuneConfig(indicator="literal", alpha=0.1, steps=4, batch=4, accumulation=1, learning_rate=1e-2,
                                 lora_rank=4, lora_alpha=16, prompt="a human face", natural_count=6, precision="fp32")


def weights(folder):
    return load_file(folder / finetune.ADAPTER_FILE)


def test_adapter_loads_in_plain_diffusers_and_draws_the_same(small_pipe, data, tmp_path):
    small_pipe.save_pretrained(tmp_path / "base")
    finetune.finetune(small_pipe, data, config=CONFIG, out=tmp_path / "run", progress=False)
    settings = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=2, precision="fp32")
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "base", safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    before = np.concatenate(list(sample(plain, n=2, config=settings)))
    plain.load_lora_weights(tmp_path / "run")
    after = np.concatenate(list(sample(plain, n=2, config=settings)))
    assert (before != after).any()
    config = plain.unet.peft_config["default_0"]
    assert config.lora_alpha / config.r == 4, "lora_alpha is lost: diffusers would scale the adapter by 1"


@pytest.mark.parametrize(("rank", "lora_alpha"), [(4, 16), (4, 4), (2, 7)])
def test_plain_diffusers_computes_what_the_trained_model_computed(small_pipe, data, tmp_path, monkeypatch, rank, lora_alpha):
    """The U-Net's output with the adapter as it was trained, before saving, against the saved one in a fresh pipeline."""
    small_pipe.save_pretrained(tmp_path / "base")
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([1, 400, 999]),
              torch.randn(3, 5, small_pipe.unet.config.cross_attention_dim, generator=generator))
    before = output_of(small_pipe.unet, inputs)
    trained, save = [], finetune.save_adapter

    def see_and_save(unet, *rest):
        trained.append(output_of(unet, inputs))
        save(unet, *rest)

    monkeypatch.setattr(finetune, "save_adapter", see_and_save)
    config = dataclasses.replace(CONFIG, lora_rank=rank, lora_alpha=lora_alpha)
    finetune.finetune(small_pipe, data, config=config, out=tmp_path / "run", progress=False)
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "base", safety_checker=None)
    plain.load_lora_weights(tmp_path / "run")
    torch.testing.assert_close(output_of(plain.unet, inputs), trained[0], atol=1e-5, rtol=1e-5)
    assert (trained[0] - before).abs().max() > 1e-2, "the adapter must do something for this to mean anything"
    torch.testing.assert_close(output_of(small_pipe.unet, inputs), before, msg="the pipeline is left without the adapter")


@torch.no_grad()
def output_of(unet: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    noisy, timesteps, context = inputs
    return unet.eval()(noisy, timesteps, context).sample


def test_killed_run_ends_like_an_unbroken_one(small_pipe, data, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, averaged=0.75)  # the mean spans the kill
    finetune.finetune(small_pipe, data, config=config, out=tmp_path / "whole", progress=False)
    real_update = finetune.update

    def killed(run, step):
        if step == 3:
            raise KeyboardInterrupt
        return real_update(run, step)
    monkeypatch.setattr(finetune, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(small_pipe, data, config=config, out=tmp_path / "killed", progress=False, save_every=2)
    assert not getattr(small_pipe.unet, "peft_config", {}), "whatever happens, the pipeline is left without the adapter"
    monkeypatch.setattr(finetune, "update", real_update)
    for other in ({"config": dataclasses.replace(config, alpha=0.05)}, {"config": config, "told": {"subset": {"ratio": 4.0}}}):
        with pytest.raises(InputError, match="belongs to a training of other settings"):
            finetune.finetune(small_pipe, data, out=tmp_path / "killed", **other)
    record = finetune.finetune(small_pipe, data, config=config, out=tmp_path / "killed", progress=False)
    assert [row["step"] for row in record["curve"]] == [0, 1, 2, 3]
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert not (tmp_path / "killed" / "checkpoint.safetensors").exists()


def test_an_indicator_that_lacks_something_leaves_the_pipeline_as_it_was(small_pipe, data, tmp_path):
    blind = dataclasses.replace(data, evidence=Evidence())
    for _ in range(2):
        with pytest.raises(InputError, match="face embeddings"):
            finetune.finetune(small_pipe, blind, config=dataclasses.replace(CONFIG, indicator="density"), out=tmp_path / "run")
    assert not getattr(small_pipe.unet, "peft_config", {})


def test_what_is_told_of_a_run_is_in_its_record(small_pipe, data, tmp_path):
    record = finetune.finetune(small_pipe, data, config=CONFIG, out=tmp_path, told={"preset": "tiny"}, progress=False)
    assert record["preset"] == json.loads((tmp_path / finetune.RECORD_FILE).read_text())["preset"] == "tiny"


def test_a_finished_training_by_other_weights_is_not_taken_for_this_one(tmp_path):
    config = dataclasses.replace(CONFIG, indicator="reference")
    record = {"config": dataclasses.asdict(config), "subset": {"source": "faces"}, "adapter_sha256": "", **finetune.weighed_by("reference")}
    (tmp_path / finetune.ADAPTER_FILE).touch()
    (tmp_path / finetune.RECORD_FILE).write_text(json.dumps(record))
    assert finetune._finished(tmp_path, config, {"source": str(Path("faces").absolute())}, overwrite=False), "a path is where it leads"
    (tmp_path / finetune.RECORD_FILE).write_text(json.dumps(record | {"density_ratio": {}}))
    with pytest.raises(InputError, match="finished run of other settings"):
        finetune._finished(tmp_path, config, {"source": "faces"}, overwrite=False)


@pytest.mark.parametrize(("needs", "size", "reference_size", "said"), [("density", 8, 100, "--train-size 8"), ("reference", 20, 6, "--reference-size 6")])
def test_sets_too_small_to_be_rare_in_are_told_early(needs, size, reference_size, said):
    finetune.check_sizes(needs_of(["none", "oracle", "literal"]), size=2, reference_size=2)
    with pytest.raises(InputError, match=said):
        finetune.check_sizes(needs_of([needs]), size=size, reference_size=reference_size)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(InputError, match="seed .*: give a whole number"):
        dataclasses.replace(CONFIG, seed=seed)


def test_the_same_training_gives_the_same_file(small_pipe, data, tmp_path):
    """peft keeps the adapted layers as a set, safetensors its metadata in an order of chance."""
    names = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
    for turn, targets in enumerate((names, names[::-1])):
        config = dataclasses.replace(CONFIG, lora_targets=targets, steps=1)
        finetune.finetune(small_pipe, data, config=config, out=tmp_path / str(turn), progress=False)
    first, second = ((tmp_path / turn / finetune.ADAPTER_FILE).read_bytes() for turn in "01")
    assert first == second


# --- several processes ------------------------------------------------------------------------------------------------

SHARED_OUT = {"literal": (8, 1), "oracle": (1, 2)}
"""Batch and accumulation for two indicators: a batch cut in two, and two whole batches."""

LAUNCHED = """
import dataclasses, sys
from debiaslib import __main__ as cli, presets
folder, out, *trainings = sys.argv[1:]
presets.bf16_pays = lambda device: False
for training in trainings:
    indicator, batch, accumulation = training.split()
    presets.PRESETS["tiny"] = dataclasses.replace(presets.PRESETS["tiny"], source=f"{folder}/model", image_size=32,
                                                  train_steps=3, batch=int(batch), accumulation=int(accumulation))
    assert not cli.main(["train", "--faces", f"{folder}/faces", "--train-size", "10", "--alpha", "0.1",
                         "--indicator", indicator, "--out", f"{out}/{indicator}"])
"""


@pytest.fixture
def on_disk(small_pipe, tmp_path):
    """A saved pipeline and a face set."""
    small_pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "faces").mkdir()
    generator = np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "faces" / name)
    frame = pd.DataFrame({"file_name": names, "gender": ["Male", "Female"] * 10})
    frame.to_csv(tmp_path / "faces/metadata.csv", index=False)
    return tmp_path


def launch(folder, out, *, processes):
    """What `accelerate launch` does: as many processes, each told its rank and where to meet the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    trainings = [f"{indicator} {batch} {accumulation}" for indicator, (batch, accumulation) in SHARED_OUT.items()]
    command = [sys.executable, "-c", LAUNCHED, str(folder), str(out), *trainings]
    ranks = [os.environ | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes), "MASTER_PORT": port,
                           "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
             for rank in map(str, range(processes))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=env, **pipes) for env in ranks]
    told = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * processes, told
    return [shown for shown, _ in told]


def test_two_processes_train_the_adapters_that_one_trains(on_disk, monkeypatch):
    monkeypatch.setattr(presets, "bf16_pays", lambda device: False)
    for indicator, (batch, accumulation) in SHARED_OUT.items():
        preset = dataclasses.replace(presets.PRESETS["tiny"], source=str(on_disk / "model"), image_size=32, train_steps=3,
                                     batch=batch, accumulation=accumulation)
        monkeypatch.setitem(presets.PRESETS, "tiny", preset)
        assert cli.main(["train", "--faces", str(on_disk / "faces"), "--train-size", "10", "--alpha", "0.1",
                         "--indicator", indicator, "--out", str(on_disk / "one" / indicator)]) == 0
    first, second = launch(on_disk, on_disk / "two", processes=2)
    assert first.count("3 steps") == 2 and not second, "the first process alone reports"
    for indicator in SHARED_OUT:
        one, two = (on_disk / name / indicator for name in ("one", "two"))
        assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
        for name, expected in weights(one).items():
            torch.testing.assert_close(weights(two)[name], expected, rtol=1e-3, atol=1e-5)
        curves = [json.loads((folder / finetune.RECORD_FILE).read_text())["curve"] for folder in (one, two)]
        for row, other in zip(*curves, strict=True):
            assert row == pytest.approx(other, abs=2e-4)


@pytest.mark.parametrize(("processes", "batch", "accumulation"), [(1, 16, 1), (2, 16, 1), (2, 1, 4), (3, 16, 4), (8, 2, 4)])
def test_every_face_of_an_update_is_some_processs_own(processes, batch, accumulation):
    config = dataclasses.replace(CONFIG, batch=batch, accumulation=accumulation)
    seen = []
    for rank in range(processes):
        turns, mine = finetune._portions(SimpleNamespace(num_processes=processes, process_index=rank), config)
        seen += [(turn, face) for turn in turns for face in range(batch)[mine]]
    assert sorted(seen) == [(turn, face) for turn in range(accumulation) for face in range(batch)]


def test_more_processes_than_faces_are_refused():
    config = dataclasses.replace(CONFIG, batch=1, accumulation=4)
    with pytest.raises(InputError, match="8 processes: cannot share out updates of 4 times 1 faces"):
        finetune._portions(SimpleNamespace(num_processes=8, process_index=0), config)


def test_alpha_changes_nothing_but_the_loss(small_pipe, data):
    """Runs that differ in alpha see the same faces, noise, timesteps and dropped prompts."""
    index = torch.arange(CONFIG.batch)
    drawn = [finetune._draw(data, CONFIG, torch.Generator().manual_seed(3), index=index, needs_natural=needed)
             for needed in (False, True)]
    for plain, mixed in zip(*drawn, strict=True):
        assert torch.equal(plain, mixed[:len(plain)])


@pytest.mark.parametrize("seed", [0, 1])
def test_faces_come_up_as_often_as_they_weigh(seed):
    """Every epoch gives face i its chances_i rounded up or down, on average chances_i; wherever a batch begins or ends."""
    chances = np.random.default_rng(seed).exponential(size=50)
    chances /= chances.mean()
    drawn = torch.cat([finetune.faces_drawn(chances, seed=seed, first=16 * step, count=16) for step in range(1250)])
    counts = np.stack([np.bincount(epoch, minlength=50) for epoch in drawn.view(-1, 50).numpy()])
    assert (np.abs(counts - chances) < 1 + 1e-9).all()
    assert counts.mean(0) == pytest.approx(chances, abs=0.1)
    whole = finetune.faces_drawn(chances, seed=seed, first=0, count=20_000)
    assert torch.equal(drawn, whole)


def test_equal_faces_take_turns():
    drawn = finetune.faces_drawn(np.ones(10), seed=3, first=0, count=30).view(3, 10)
    assert all(torch.equal(epoch.sort().values, torch.arange(10)) for epoch in drawn)
    assert not torch.equal(drawn[0], drawn[1])


def test_timesteps_cover_the_schedule_and_are_each_uniform():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([finetune._timesteps(16, generator) for _ in range(2000)])
    assert (drawn.sort(1).values // 62.5 == torch.arange(16)).float().mean() > 0.99
    assert drawn[:, 0].float().mean().item() == pytest.approx(499.5, abs=20)
    assert 0 <= drawn.min() and drawn.max() <= 999
    alone = torch.cat([finetune._timesteps(1, generator) for _ in range(2000)])
    assert alone.float().std().item() == pytest.approx(1000 / 12**0.5, rel=0.05)


def test_weights_are_drawn_and_not_multiplied(small_pipe, data):
    """Whatever the weights, each draw's loss counts alike."""
    evidence = dataclasses.replace(data.evidence, is_male=np.arange(10) < 5)
    run = finetune.begin(small_pipe, dataclasses.replace(data, evidence=evidence),
                         config=dataclasses.replace(CONFIG, indicator="oracle"))
    try:
        assert run.chances == pytest.approx(np.ones(10))
        seen = Batch(predicted=torch.ones(3, 4, 8, 8), noise=torch.zeros(3, 4, 8, 8), is_face=torch.ones(3, dtype=bool))
        assert run.indicator.loss(seen)[0].item() == pytest.approx(1)
    finally:
        finetune.end(run)


@pytest.mark.parametrize("averaged", [0.0, 0.5])
def test_the_adapter_is_the_mean_of_the_last_ones(small_pipe, data, tmp_path, averaged):
    """Runs of 3 and of 4 steps end at the two adapters that a run of 4 averages over its second half."""
    ends = []
    for steps in (3, 4):
        config = dataclasses.replace(CONFIG, steps=steps)
        finetune.finetune(small_pipe, data, config=config, out=tmp_path / f"last{steps}", progress=False)
        ends.append(weights(tmp_path / f"last{steps}"))
    finetune.finetune(small_pipe, data, config=dataclasses.replace(CONFIG, averaged=averaged), out=tmp_path / "mean",
                      progress=False)
    mean = weights(tmp_path / "mean")
    for name, found in mean.items():
        expected = (ends[0][name] + ends[1][name]) / 2 if averaged else ends[1][name]
        torch.testing.assert_close(found, expected)


def test_literal_at_alpha_zero_is_the_control(small_pipe, data, tmp_path):
    for name in ("literal", "none"):
        config = dataclasses.replace(CONFIG, indicator=name, alpha=0.0)
        finetune.finetune(small_pipe, data, config=config, out=tmp_path / name, progress=False)
    literal, none = weights(tmp_path / "literal"), weights(tmp_path / "none")
    assert all(torch.equal(literal[name], none[name]) for name in none)


def test_literal_loss_is_the_published_one():
    indicator = build_indicator("literal", alpha=0.3, latent_channels=4)
    predicted, noise = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    is_face = torch.tensor([True, True, True, True, False])
    loss, _ = indicator.loss(Batch(predicted=predicted, noise=noise, is_face=is_face))
    entropy = torch.nn.CrossEntropyLoss()(indicator.classifier(predicted), is_face.long())
    expected = 0.7 * torch.nn.MSELoss()(predicted[:4], noise[:4]) + 0.3 * entropy
    torch.testing.assert_close(loss, expected)


def test_literal_is_light_and_its_gradient_reaches_the_prediction():
    indicator = build_indicator("literal", alpha=0.3, latent_channels=4)
    assert sum(weight.numel() for weight in indicator.parameters()) <= 300_000
    predicted = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss, _ = indicator.loss(Batch(predicted=predicted, noise=torch.randn(2, 4, 8, 8), is_face=torch.tensor([True, False])))
    loss.backward()
    assert predicted.grad[1].abs().sum() > 0, "the natural picture must reach the loss through the cross-entropy"


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        build_indicator("literal", alpha=alpha, latent_channels=4)


def test_fit_loss_weighs_groups_equally(small_pipe, data):
    """Two men among ten faces count as much as the eight women."""
    prompt = finetune.encode_prompts(small_pipe, "a human face")[:1]
    arguments = (small_pipe.unet, data, prompt, small_pipe.scheduler)
    both = finetune.fit_loss(*arguments, draws=200)
    unlabelled = dataclasses.replace(data, evidence=Evidence())
    one_group = finetune.fit_loss(small_pipe.unet, unlabelled, prompt, small_pipe.scheduler, draws=200)
    assert both == pytest.approx(one_group, rel=0.1) and both != one_group


SECOND = dataclasses.replace(CONFIG, indicator="recalibrated")


def _first_training(folder, *, model=None, config=None, **changes):
    (folder / "samples/images").mkdir(parents=True)
    (folder / finetune.ADAPTER_FILE).write_bytes(b"weights")
    told = dataclasses.asdict(dataclasses.replace(CONFIG, **{"indicator": "reference"} | (config or {})))
    record = {"config": told, "subset": {"ratio": 0.25, "seed": 0}, **finetune.weighed_by("reference")}
    (folder / finetune.RECORD_FILE).write_text(json.dumps(record | changes))
    Image.fromarray(np.full((64, 64, 3), 7, np.uint8)).save(folder / "samples/images/0.png")
    (folder / "samples/metadata.csv").write_text("file_name,prompt,seed\nimages/0.png,a human face,0\n")
    drawn_by = model or presets.sha256(folder / finetune.ADAPTER_FILE)
    (folder / "samples/generate.json").write_text(json.dumps({"settings": {"model": f"{folder}@{drawn_by[:12]}"}}))
    return folder


def test_a_first_training_and_its_pictures_are_asked_for_early(tmp_path):
    needs, given = needs_of(["recalibrated"]), {"ratio": 0.25, "seed": 0}
    for first in (None, tmp_path):
        with pytest.raises(InputError, match="--indicator reference"):
            finetune.check_first(needs, first, given, config=SECOND)
    finetune.check_first(needs_of(["reference"]), None, given, config=SECOND)
    good = _first_training(tmp_path / "good")
    finetune.check_first(needs, good, given, config=SECOND)
    assert (finetune.load_drawn(good, image_size=64) == 7).all()


@pytest.mark.parametrize("changes, told", [({"config": {"indicator": "density"}}, "not trained by"), ({"part": 0.5}, "not trained by"),
                                           ({"subset": {"ratio": 4.0, "seed": 0}}, "another ratio"), ({"model": "0" * 64}, "another model"),
                                           ({"config": {"alpha": 0.0}}, "another alpha"), ({"density_ratio": {}}, "another density_ratio")])
def test_what_cannot_be_a_first_training_is_refused_before_the_second(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        finetune.check_first(needs_of(["recalibrated"]), _first_training(tmp_path / "first", **changes), {"ratio": 0.25, "seed": 0},
                             config=SECOND)


@pytest.mark.parametrize("splits, expected", [(None, 30), (["pretrain"] * 12 + ["evaluate"] * 18, 12)])
def test_unlabelled_faces_come_from_the_split_pretrain_if_there_is_one(tmp_path, splits, expected):
    for number in range(30):
        Image.fromarray(np.full((64, 64, 3), number, np.uint8)).save(tmp_path / f"{number:02d}.png")
    frame = pd.DataFrame({"file_name": [f"{number:02d}.png" for number in range(30)]})
    frame.assign(**({"split": splits} if splits else {})).to_csv(tmp_path / "metadata.csv", index=False)
    drawn = finetune.load_unlabelled(tmp_path, image_size=64)
    assert len(drawn) == expected and drawn.max() < expected and len({face.max() for face in drawn}) == expected
    frame[:5].to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(InputError, match="--unlabelled"):
        finetune.load_unlabelled(tmp_path, image_size=64)

"""Between two trainings: the mix is exact, plain diffusers draws it, and a reading says where it lies."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from debiaslib import __main__ as cli
from debiaslib import finetune, mixing, presets
from debiaslib.errors import InputError
from debiaslib.generate import load_adapter
from debiaslib.indicators import Evidence

CONFIG = finetune.FinetuneConfig(indicator="none", alpha=0.0, steps=4, batch=4, accumulation=1, learning_rate=1e-2,
                                 lora_rank=4, lora_alpha=16, prompt="a human face", natural_count=6, precision="fp32")


@pytest.fixture
def two(small_pipe, data, tmp_path):
    for name, seed in (("one", 0), ("other", 5)):
        finetune.finetune(small_pipe, data, config=dataclasses.replace(CONFIG, seed=seed), out=tmp_path / name, progress=False)
    return tmp_path / "one", tmp_path / "other"


def predicted(pipe, weighted):
    """The U-Net's output with adapters by folder, each as strong as `weighted` says."""
    names = [f"part{number}" for number in range(len(weighted))]
    latents, times = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 600])
    prompt = finetune.encode_prompts(pipe, "a human face")[:1].expand(2, -1, -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)  # two adapters are what is meant
        for name, folder in zip(names, weighted, strict=True):
            load_adapter(pipe, folder, name=name)
    pipe.set_adapters(names, adapter_weights=list(weighted.values()))
    try:
        with torch.no_grad():
            return pipe.unet(latents, times, prompt).sample
    finally:
        pipe.delete_adapters(names)


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_plain_diffusers_draws_of_the_mix_what_both_adapters_draw_together(small_pipe, data, two, tmp_path, part):
    one, other = two
    record = mixing.mix_adapters(small_pipe, data, first=one, second=other, part=part, out=tmp_path / "mix")
    assert not getattr(small_pipe.unet, "peft_config", {}), "the pipeline is left without the adapter"
    both = predicted(small_pipe, {one: 1 - part, other: part})
    torch.testing.assert_close(predicted(small_pipe, {tmp_path / "mix": 1.0}), both, rtol=1e-4, atol=1e-5)
    assert (predicted(small_pipe, {one: 1.0}) - predicted(small_pipe, {other: 1.0})).abs().max() > 1e-3, "the two differ"
    assert all(weight.shape[0] == 8 for name, weight in load_file(tmp_path / "mix" / finetune.ADAPTER_FILE).items() if ".lora_A." in name)
    assert record == json.loads((tmp_path / "mix/run.json").read_text()) and record["part"] == part


def test_the_fit_of_the_mix_is_its_own(small_pipe, data, two, tmp_path):
    """At either end it is that training's."""
    for part, end in ((0.0, two[0]), (1.0, two[1])):
        found = mixing.mix_adapters(small_pipe, data, first=two[0], second=two[1], part=part, out=tmp_path / f"mix{part}")
        assert found["fit_loss"] == pytest.approx(json.loads((end / "run.json").read_text())["fit_loss"], rel=1e-3)


def test_adapters_of_two_shapes_are_refused(small_pipe, data, two, tmp_path):
    finetune.finetune(small_pipe, data, config=dataclasses.replace(CONFIG, lora_rank=2), out=tmp_path / "small", progress=False)
    with pytest.raises(InputError, match="another shape"):
        mixing.mix_adapters(small_pipe, data, first=tmp_path / "small", second=two[1], part=0.5, out=tmp_path / "mix")
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize("first, second, part", [(0.35, 0.65, 0.5), (0.4, 0.7, 0.34), (0.3, 0.5, 0.93)])
def test_the_part_is_read_off_pictures_without_labels(first, second, part):
    """Two groups far apart on one axis; the reference holds half of each."""
    def rows(share, seed, count=300):
        drawn = np.random.default_rng(seed).normal(size=(count, 6))
        drawn[:, 0] += 6 * (np.arange(count) < round(share * count))
        return drawn
    evidence = Evidence(decoded=(rows(0.2, 0), rows(0.5, 1)), drawn=rows(first, 2))
    found = mixing.read_part(evidence, rows(second, 3))
    assert (found.first, found.second, found.even) == pytest.approx((first, second, 0.5), abs=0.02)
    assert found.part == pytest.approx(part, abs=0.06)


def test_what_a_mix_draws_moves_the_part():
    """The first mix would be half of both; its pictures show too many, so less of the second, which has more, goes into the next."""
    def rows(share, seed, count=400):
        drawn = np.random.default_rng(seed).normal(size=(count, 6))
        drawn[:, 0] += 6 * (np.arange(count) < round(share * count))
        return drawn
    evidence = Evidence(decoded=(rows(0.2, 0), rows(0.5, 1)), drawn=rows(0.4, 2))
    found = mixing.read_part(evidence, rows(0.6, 3), tried=(0.5, rows(0.55, 4)))
    assert (found.tried, found.seen) == pytest.approx((0.5, 0.55), abs=0.02) and 0.2 < found.part < 0.35
    assert mixing.read_part(evidence, rows(0.6, 3)).seen is None


def test_further_faces_help_to_read():
    """Groups so close in so many dimensions that a hundred faces a set mislead; 600 more do not."""
    def rows(share, seed, count=100):
        drawn = np.random.default_rng(seed).normal(scale=0.5, size=(count, 128))
        drawn[:, 0] += 1.4 * (np.arange(count) < round(share * count))
        return drawn
    missed = {"alone": [], "more": []}
    for seed in range(0, 50, 5):
        alone = Evidence(decoded=(rows(0.2, seed), rows(0.5, seed + 1)), drawn=rows(0.4, seed + 2, 400))
        for name, evidence in (("alone", alone), ("more", dataclasses.replace(alone, more=rows(0.6, seed + 3, 600)))):
            missed[name].append(abs(mixing.read_part(evidence, rows(0.6, seed + 4, 400)).first - 0.4))
    assert np.median(missed["more"]) < 0.05 < 0.1 < np.median(missed["alone"])  # one start in ten is too far off for either


def test_from_the_command_line(small_pipe, tmp_path, monkeypatch, capsys):
    """reference, its pictures, recalibrated, its pictures, the mix, its pictures, a better mix: seven commands, and each says what it lacks."""
    small_pipe.save_pretrained(tmp_path / "model")
    tiny = dataclasses.replace(presets.PRESETS["tiny"], source=str(tmp_path / "model"), image_size=32, train_steps=2, batch=4,
                               sample_steps=2, sample_batch=6)
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny)
    faces, generator = tmp_path / "faces", np.random.default_rng(0)
    (faces / "images").mkdir(parents=True)
    for number in range(24):
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(faces / f"images/{number:02d}.png")
    pd.DataFrame({"file_name": [f"images/{number:02d}.png" for number in range(24)], "gender": ["Male", "Female"] * 12}).to_csv(
        faces / "metadata.csv", index=False)
    one, other, mix = (str(tmp_path / name) for name in ("one", "other", "mix"))
    train = ["train", "--faces", str(faces), "--ratio", "0.25", "--train-size", "10", "--alpha", ".1", "--reference", str(faces),
             "--reference-size", "10", "--unlabelled", str(faces)]
    def draw(folder):
        return ["generate", "--model", folder, "-n", "12", "--steps", "2", "--out", f"{folder}/samples"]
    assert cli.main([*train, "--indicator", "reference", "--out", one]) == 0
    assert cli.main(["mix", one, "--out", mix]) == 2 and "no training by `recalibrated`" in capsys.readouterr().err
    assert cli.main(draw(one)) == 0
    assert cli.main([*train, "--indicator", "recalibrated", "--first", one, "--out", other]) == 0
    assert cli.main(["mix", other, "--out", mix]) == 2 and "other/samples: no such folder" in capsys.readouterr().err
    assert cli.main(draw(other)) == 0
    assert cli.main(["mix", other, "--out", mix]) == 0 and "two unnamed groups" in capsys.readouterr().out
    record = json.loads((tmp_path / "mix/run.json").read_text())
    assert 0 <= record["part"] <= 1 and record["readings"]["part"] == pytest.approx(record["part"], abs=1e-4)
    assert cli.main(["mix", other, "--out", mix]) == 0 and "nothing to do" in capsys.readouterr().out
    assert cli.main(["mix", other, "--out", one, "--overwrite"]) == 2 and "goes into the mix" in capsys.readouterr().err
    assert cli.main(["mix", mix, "--out", other]) == 2 and "no training by `recalibrated`" in capsys.readouterr().err
    assert cli.main([*train, "--indicator", "recalibrated", "--first", one, "--out", mix]) == 2, "a mix is no training"
    even = str(tmp_path / "even")
    assert cli.main(["mix", other, "--tried", one, "--out", even]) == 2 and "holds no mix of" in capsys.readouterr().err
    assert cli.main(["mix", other, "--tried", mix, "--out", even]) == 2 and "mix/samples: no such folder" in capsys.readouterr().err
    assert cli.main(draw(mix)) == 0
    assert cli.main(["mix", other, "--tried", mix, "--out", mix, "--overwrite"]) == 2 and "goes into the mix" in capsys.readouterr().err
    assert cli.main(["mix", other, "--tried", mix, "--out", even]) == 0 and "of the second it made up" in capsys.readouterr().out
    assert json.loads((tmp_path / "even/run.json").read_text())["readings"]["tried"] == pytest.approx(record["part"], abs=1e-4)
    assert cli.main(["mix", other, "--tried", mix, "--out", even]) == 0 and "nothing to do" in capsys.readouterr().out
    assert cli.main(["mix", other, "--out", even]) == 2 and "holds another adapter" in capsys.readouterr().err
    assert cli.main(draw(even)) == 0

"""Generation: seeds decide, batches do not; a killed run continues; bad requests get one clear line."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from debiaslib.contour_training import ContourConfig, build_controlnet, save_controlnet
from debiaslib.contours import Contour, as_drawing, dimmed
from debiaslib.errors import InputError
from debiaslib.finetune import FinetuneConfig, add_adapter
from debiaslib.generate import (
    ControlGuide,
    ImageGuide,
    PromptCut,
    SampleConfig,
    add_arguments,
    cut_off,
    generate,
    load_controlnet,
    load_model,
    merged,
    noise_latents,
    run,
    sample,
)
from debiaslib.presets import encode_latents, get_preset

CONFIG = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=2, precision="fp32")


def draw(pipe, n=3, **changes):
    return np.concatenate(list(sample(pipe, n=n, config=dataclasses.replace(CONFIG, **changes))))


def test_a_picture_depends_on_its_seed_and_not_on_its_batch(small_pipe):
    together, alone = draw(small_pipe, batch=3), draw(small_pipe, batch=1)
    assert together.shape == (3, 32, 32, 3) and together.dtype == np.uint8
    assert np.abs(together.astype(int) - alone).max() <= 1
    shifted = draw(small_pipe, n=2, seed=1)
    assert np.abs(shifted.astype(int) - together[1:]).max() <= 1


def test_agrees_with_a_plain_pipeline_call(small_pipe):
    ours = draw(small_pipe, n=1)
    theirs = small_pipe("a human face", num_inference_steps=2, guidance_scale=2.0, negative_prompt="", output_type="np",
                        latents=noise_latents(small_pipe, [0])).images
    assert np.abs(ours.astype(float) - theirs * 255).max() <= 1


@pytest.fixture
def adapted(small_pipe):
    """The pipeline with an adapter that changes its pictures; without it afterwards."""
    add_adapter(small_pipe.unet, FinetuneConfig.of(get_preset("tiny"))).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in small_pipe.unet.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.05, generator=generator)
    yield small_pipe
    small_pipe.unet.delete_adapters("default")


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_merged_weights_draw_the_same_and_leave_nothing_behind(adapted, scale):
    adapted.set_adapters(["default"], adapter_weights=scale)
    before, apart = {name: weight.clone() for name, weight in adapted.unet.named_parameters()}, draw(adapted)
    with merged(adapted):
        together = draw(adapted)
    assert np.abs(together.astype(int) - apart).max() <= 1
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.unet.named_parameters())
    np.testing.assert_array_equal(draw(adapted), apart)
    adapted.disable_lora()
    with merged(adapted):
        plain = draw(adapted)
    assert np.abs(plain.astype(int) - apart).max() > 10
    adapted.enable_lora()


def test_an_adapter_that_was_taken_off_is_not_missed(small_pipe):
    add_adapter(small_pipe.unet, FinetuneConfig.of(get_preset("tiny")))
    small_pipe.unet.eval().delete_adapters("default")
    with merged(small_pipe):
        assert draw(small_pipe, n=1).shape == (1, 32, 32, 3)


def test_killed_generation_continues(small_pipe, tmp_path):
    generate(small_pipe, n=3, config=CONFIG, out=tmp_path / "whole")
    generate(small_pipe, n=3, config=CONFIG, out=tmp_path / "killed")
    (tmp_path / "killed/images/00002.png").unlink()
    (tmp_path / "killed/metadata.csv").unlink()
    frame = generate(small_pipe, n=3, config=CONFIG, out=tmp_path / "killed")
    assert frame.seed.tolist() == [0, 1, 2]
    for name in frame.file_name:
        pictures = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("whole", "killed")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_other_settings_do_not_overwrite(small_pipe, tmp_path):
    generate(small_pipe, n=1, config=CONFIG, out=tmp_path)
    with pytest.raises(InputError, match="other settings.*--overwrite"):
        generate(small_pipe, n=1, config=dataclasses.replace(CONFIG, steps=3), out=tmp_path)
    generate(small_pipe, n=1, config=dataclasses.replace(CONFIG, steps=3), out=tmp_path, overwrite=True)


def test_overwriting_keeps_no_picture_that_somebody_else_drew(small_pipe, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"images/{number:05d}.png")
    generate(small_pipe, n=2, config=CONFIG, out=tmp_path, overwrite=True)
    assert all(len(Image.open(path).getcolors(2000)) > 1 for path in sorted(tmp_path.glob("images/*.png")))


def test_an_adapter_that_does_not_say_its_preset_is_refused(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="does not say on which preset"):
        load_model(tmp_path)


def test_a_folder_of_the_user_is_left_alone(small_pipe, tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        generate(small_pipe, n=1, config=CONFIG, out=tmp_path)


@pytest.mark.parametrize("changes", [{"prompt": " "}, {"steps": 0}, {"batch": 0}])
def test_requests_that_cannot_be_met(small_pipe, changes):
    with pytest.raises(InputError):
        draw(small_pipe, **changes)


def test_noise_is_the_generator_s_own():
    class Pipe:
        unet = torch.nn.Module()
    Pipe.unet.config = type("Config", (), {"sample_size": 4, "in_channels": 2})()
    expected = torch.randn((2, 4, 4), generator=torch.Generator().manual_seed(7))
    assert torch.equal(noise_latents(Pipe, [7])[0], expected)


# Lines to follow -------------------------------------------------------------------------------------------------------

def square_contour(side=32):
    lines = np.zeros((side, side), np.uint8)
    lines[8, 8:24] = lines[23, 8:24] = lines[8:24, 8] = lines[8:24, 23] = 255
    return Contour(lines=lines, drawing=as_drawing(lines), origin="drawing")


def speaking_controlnet(pipe):
    """One whose zero convolutions are not zero any more."""
    controlnet = build_controlnet(pipe, ContourConfig(embedding=(8, 8, 8))).eval()
    with torch.no_grad():
        for weight in [*controlnet.controlnet_down_blocks.parameters(), *controlnet.controlnet_mid_block.parameters()]:
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=0.2)
    return controlnet


def drawn_by(pipe, guide, n=3, **changes):
    return np.concatenate(list(sample(pipe, n=n, config=dataclasses.replace(CONFIG, **changes), guide=guide))).astype(int)


def test_guided_pictures_depend_on_seed_and_contour_not_on_batch(small_pipe):
    control = ControlGuide(contour=square_contour(), controlnet=speaking_controlnet(small_pipe))
    for guide in (control, ImageGuide(contour=square_contour(), strength=0.5)):
        together, alone = drawn_by(small_pipe, guide, batch=3), drawn_by(small_pipe, guide, batch=1)
        assert np.abs(together - alone).max() <= 1
        assert np.abs(together - drawn_by(small_pipe, None)).max() > 1, "the lines matter"


def test_scale_zero_and_strength_one_are_the_prompt_alone(small_pipe):
    plain = drawn_by(small_pipe, None)
    silent = ControlGuide(contour=square_contour(), controlnet=speaking_controlnet(small_pipe), scale=0.0)
    assert np.array_equal(drawn_by(small_pipe, silent), plain), "the same noise for the same seeds"
    noise = [torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    _, inputs = ImageGuide(contour=square_contour()).attach(small_pipe)
    drawn = [torch.randn((1, 4, 8, 8), generator=generator) for generator in inputs([0, 1])["generator"]]
    assert torch.equal(torch.cat(noise), torch.cat(drawn))
    assert torch.equal(torch.cat(noise), noise_latents(small_pipe, [0, 1]))


def test_image_to_image_agrees_with_a_plain_pipeline_call(small_pipe):
    guide = ImageGuide(contour=square_contour(), strength=0.5)
    pipe = StableDiffusionImg2ImgPipeline(**small_pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    start = encode_latents(pipe.vae, dimmed(square_contour().drawing)[None])
    theirs = pipe("a human face", image=start, strength=0.5, num_inference_steps=2, guidance_scale=2.0, negative_prompt="",
                  generator=torch.Generator().manual_seed(5), output_type="np").images
    assert np.abs(drawn_by(small_pipe, guide, n=1, seed=5) - theirs * 255).max() <= 1


def test_killed_guided_generation_continues_and_another_contour_does_not_mix_in(small_pipe, tmp_path):
    guide = ControlGuide(contour=square_contour(), controlnet=speaking_controlnet(small_pipe))

    def make(folder, guide):
        return generate(small_pipe, n=3, config=CONFIG, out=tmp_path / folder, guide=guide)

    make("whole", guide)
    make("killed", guide)
    (tmp_path / "killed/images/00001.png").unlink()
    (tmp_path / "killed/images/00002.png").unlink()
    frame = make("killed", guide)
    for name in frame.file_name:
        pictures = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("whole", "killed")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
    kept = json.loads((tmp_path / "whole/generate.json").read_text())["settings"]["guide"]
    assert kept["contour_sha256"] == square_contour().sha256 and kept["method"] == "controlnet" and kept["scale"] == 1.0
    other = dataclasses.replace(guide.contour, lines=guide.contour.lines.T[::-1] // 2)
    for changed in (dataclasses.replace(guide, contour=other), dataclasses.replace(guide, scale=0.5), None):
        with pytest.raises(InputError, match="other settings"):
            make("whole", changed)


def test_contours_of_another_size_and_odd_strengths_are_refused(small_pipe):
    with pytest.raises(InputError, match=r"\(64, 64\).*32 px"):
        drawn_by(small_pipe, ImageGuide(contour=square_contour(64)))
    with pytest.raises(InputError, match="strength 1.5"):
        drawn_by(small_pipe, ImageGuide(contour=square_contour(), strength=1.5))
    with pytest.raises(InputError, match=r"strength 0.3: of 2 steps none would be taken. Give 0.5 or more"):
        drawn_by(small_pipe, ImageGuide(contour=square_contour(), strength=0.3))


def test_a_prompt_too_long_is_told_what_was_cut(small_pipe):
    assert cut_off(small_pipe, "a human face") == ""
    words = "a human face " * 12
    assert cut_off(small_pipe, words) == "a human face a human face"
    with pytest.warns(PromptCut, match="32 tokens.*cut: 'a human face a human face'"):
        draw(small_pipe, n=1, prompt=words)


@pytest.fixture
def call(small_pipe, tmp_path, monkeypatch):
    """`debiaslib generate` with options, into a folder of that name."""
    monkeypatch.setattr("debiaslib.generate.load_model", lambda model: (small_pipe, get_preset("tiny")))

    def run_with(*options, out="faces"):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return run(parser.parse_args(["-n", "1", "--steps", "2", "--out", str(tmp_path / out), *options]))

    return run_with


def test_command_line_follows_a_sketch(small_pipe, call, tmp_path, capsys):
    save_controlnet(speaking_controlnet(small_pipe), tmp_path / "net", record={})
    Image.fromarray(square_contour(64).drawing).save(tmp_path / "lines.png")
    Image.new("RGBA", (64, 64)).save(tmp_path / "empty.png")
    lines, empty = str(tmp_path / "lines.png"), str(tmp_path / "empty.png")
    assert call("--sketch", lines, "--controlnet", str(tmp_path / "net")) == 0
    assert "after a drawing (controlnet)" in capsys.readouterr().out
    assert call("--contour", lines, "--method", "image-to-image", "--prompt", "a face " * 40, out="other") == 0
    assert "debiaslib generate: prompt: longer than the 32 tokens" in capsys.readouterr().err
    for options, words in ((("--sketch", empty), "empty"), (("--method", "controlnet"), "Give --contour"), (("--strength", ".5"), "Give --contour"),
                           (("--contour", lines, "--method", "image-to-image", "--control-scale", "2"), "--control-scale 2.0: is for --method controlnet"),
                           (("--sketch", lines, "--strength", ".5"), "--strength 0.5: is for --method image-to-image"),
                           (("--sketch", lines, "--style", "canny"), "--style canny: is for a photograph"), (("--seed", "-1"), "seed -1"),
                           (("--sketch", lines, "--controlnet", str(tmp_path)), "no usable ControlNet")):
        with pytest.raises(InputError, match=words):
            call(*options, out="third")
    assert not (tmp_path / "third").exists()


def test_a_model_that_was_trained_anew_is_another(call, tmp_path):
    weights = tmp_path / "mine/unet/diffusion_pytorch_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"first")
    assert call("--model", str(tmp_path / "mine")) == 0
    weights.write_bytes(b"second")
    with pytest.raises(InputError, match="other settings"):
        call("--model", str(tmp_path / "mine"), "-n", "2")


def test_command_line_draws_as_many_at_once_as_it_is_told(call, tmp_path):
    drawn = {}
    for batch in (1, 2, 3):
        assert call("-n", "3", "--batch", str(batch), out=f"by{batch}") == 0
        assert json.loads((tmp_path / f"by{batch}/generate.json").read_text())["settings"]["batch"] == batch
        drawn[batch] = np.stack([np.asarray(Image.open(path)) for path in sorted(tmp_path.glob(f"by{batch}/images/*.png"))])
    assert drawn[1].shape == (3, 32, 32, 3)
    for batch in (2, 3):
        assert np.abs(drawn[batch].astype(int) - drawn[1]).max() <= 1
    for options, words in ((("--batch", "0"), "batch 0: must be at least 1"), (("--batch", "-4"), "batch -4"),
                           (("--steps", "0"), "at least 1")):
        with pytest.raises(InputError, match=words):
            call(*options, out="none")
    assert not (tmp_path / "none").exists()


# Seeds of one's own, and steps that are told ----------------------------------------------------------------------------

def test_seeds_may_be_chosen_and_must_suffice(small_pipe):
    chosen = np.concatenate(list(sample(small_pipe, n=3, config=CONFIG, seeds=[4, 0, 9]))).astype(int)
    assert np.abs(chosen[1:2] - draw(small_pipe, n=1)).max() <= 1
    assert np.abs(chosen[2:] - draw(small_pipe, n=1, seed=9)).max() <= 1
    with pytest.raises(InputError, match="seeds: 2 for 3 pictures"):
        next(sample(small_pipe, n=3, config=CONFIG, seeds=[4, 0]))


@pytest.mark.parametrize("guided", [False, True])
def test_every_step_is_told_and_any_may_be_the_last(small_pipe, guided):
    guide = ImageGuide(contour=square_contour(), strength=1.0) if guided else None
    told = []
    list(sample(small_pipe, n=3, config=CONFIG, guide=guide, on_step=lambda done, of: told.append((done, of))))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(sample(small_pipe, n=3, config=CONFIG, on_step=stop))
    assert np.abs(draw(small_pipe).astype(int) - draw(small_pipe)).max() == 0, "the pipeline can be used again"


def test_a_controlnet_that_does_not_ship_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_DATA", str(tmp_path))
    with pytest.raises(InputError, match="models/tiny-contour: no usable ControlNet there .there is no such folder"):
        load_controlnet("models/tiny-contour")

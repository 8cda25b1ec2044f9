"""Generation: seeds decide, batches do not; a killed run continues; bad requests get one clear line."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, generate, noise_latents, sample

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


def test_a_folder_of_the_user_is_left_alone(small_pipe, tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        generate(small_pipe, n=1, config=CONFIG, out=tmp_path)


@pytest.mark.parametrize("changes", [{"prompt": " "}, {"steps": 0}])
def test_requests_that_cannot_be_met(small_pipe, changes):
    with pytest.raises(InputError):
        draw(small_pipe, **changes)


def test_noise_is_the_generator_s_own():
    class Pipe:
        unet = torch.nn.Module()
    Pipe.unet.config = type("Config", (), {"sample_size": 4, "in_channels": 2})()
    expected = torch.randn((2, 4, 4), generator=torch.Generator().manual_seed(7))
    assert torch.equal(noise_latents(Pipe, [7])[0], expected)

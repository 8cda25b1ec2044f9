"""Generators with latents: the same latents give the same pictures, and what is wrong with one is said at the border."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline

from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, sample
from debiaslib.latent_generators import (
    DiffusionGenerator,
    HSpaceGenerator,
    TorchGenerator,
    draw_images,
    draw_latents,
    gaussian_latents,
    get_generator,
    h_directions,
    load_dcgan,
)

CONFIG = SampleConfig(prompt="a human face", steps=2, guidance=2.0, batch=3, precision="fp32")


class Painter(torch.nn.Module):
    """Latents (n, 12) as 2 x 2 pictures, after `change`."""

    def __init__(self, change=torch.tanh, size=2):
        super().__init__()
        self.change, self.size = change, size

    def forward(self, latents):
        return self.change(latents.view(len(latents), 3, self.size, self.size))


def painter(change=torch.tanh, **options):
    settings = {"latent_shape": (12,), "image_size": 2, "device": "cpu"} | options
    return TorchGenerator(Painter(change), **settings)


def test_a_latent_depends_on_its_seed_alone():
    whole = gaussian_latents(5, 7, seed=3)
    assert whole.dtype == np.float32 and np.array_equal(gaussian_latents(2, 7, seed=6), whole[3:])
    assert gaussian_latents(0, 7, seed=0).shape == (0, 7)


def test_a_torch_module_becomes_pictures():
    generator = painter(batch=2)
    latents = draw_latents(generator, 5, seed=0)
    images = draw_images(generator, latents)
    expected = np.tanh(latents.reshape(5, 3, 2, 2)).transpose(0, 2, 3, 1)
    assert images.dtype == np.uint8 and np.abs(images / 127.5 - 1 - expected).max() < 0.005
    assert draw_images(generator, latents[:0]).shape == (0, 2, 2, 3)


def test_another_range_and_another_sampler():
    generator = painter(torch.sigmoid, output_range=(0, 1), sampler=lambda n, seed: np.zeros((n, 12), np.float32))
    assert np.abs(draw_images(generator, draw_latents(generator, 3, seed=0)).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("change, said", [
    (lambda x: x * 100, r"values from -\d+\.\d\d to \d+\.\d\d, expected -1 to 1"),
    (lambda x: torch.where(x > 0, torch.nan, x), "of 120 values are NaN or infinite"),
    (lambda x: x[:, :1], r"returned \(10, 1, 2, 2\) where pictures \(10, 3, 2, 2\)"),
    (lambda x: [x], "returned list"),
])
def test_modules_that_return_something_else(change, said):
    generator = painter(change)
    with pytest.raises(InputError, match=said):
        draw_images(generator, draw_latents(generator, 10, seed=0))


def test_a_range_upside_down():
    with pytest.raises(InputError, match="lower end first"):
        painter(output_range=(1, 0))


class Foreign:
    """A generator of the user's own, with a fault."""

    name, latent_dim, image_size = "foreign", 4, 8

    def __init__(self, latents=None, images=None):
        self.latents, self.images = latents, images

    def sample_latents(self, n, seed):
        return np.zeros((n, 4), np.float32) if self.latents is None else self.latents

    def decode(self, latents):
        return np.zeros((len(latents), 8, 8, 3), np.uint8) if self.images is None else self.images


@pytest.mark.parametrize("latents, said", [
    (np.zeros((2, 5), np.float32), r"float32 \(2, 5\), expected float32 \(2, 4\)"),
    (np.zeros((2, 4), int), r"int64 \(2, 4\)"),
    (np.full((2, 4), np.nan, np.float32), "8 of 8 latents are NaN"),
])
def test_latents_that_are_none(latents, said):
    with pytest.raises(InputError, match=said):
        draw_latents(Foreign(latents=latents), 2, seed=0)


@pytest.mark.parametrize("images, said", [
    (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\), expected \(2, 8, 8, 3\)"),
    (np.full((2, 8, 8, 3), 0.5), "float64 from 0.50 to 0.50, expected uint8"),
    (np.zeros((1, 8, 8, 3), np.uint8), r"shape \(1, 8, 8, 3\)"),
])
def test_pictures_that_are_none(images, said):
    with pytest.raises(InputError, match=said):
        draw_images(Foreign(images=images), np.zeros((2, 4), np.float32))


def test_diffusion_draws_what_generate_draws(small_pipe):
    generator = DiffusionGenerator(small_pipe, config=CONFIG)
    latents = draw_latents(generator, 4, seed=5)
    assert latents.shape == (4, generator.latent_dim)
    theirs = np.concatenate(list(sample(small_pipe, n=9, config=CONFIG, skip=5)))
    assert np.abs(draw_images(generator, latents).astype(int) - theirs).max() <= 1


def test_h_space_coefficients_of_zero_are_the_plain_model(small_pipe):
    plain = DiffusionGenerator(small_pipe, config=CONFIG)
    directions = h_directions(plain, count=2, samples=6)
    generator = HSpaceGenerator(small_pipe, directions=directions, config=CONFIG)
    latents = draw_latents(generator, 4, seed=0)
    assert latents.shape == (4, plain.latent_dim + 2)
    moved = draw_images(generator, latents)
    latents[:, -2:] = 0
    still = draw_images(generator, latents)
    assert np.abs(still.astype(int) - draw_images(plain, latents[:, :-2])).max() <= 1
    assert np.abs(moved.astype(int) - still).max() > 0
    latents[:2, -2:] = 5
    one = draw_images(generator, latents)
    assert np.abs(one[2:].astype(int) - still[2:]).max() <= 1 < np.abs(one[:2].astype(int) - still[:2]).max()
    assert not small_pipe.unet.mid_block._forward_hooks


def test_a_row_of_h_space_latents_depends_on_its_seed_alone(small_pipe):
    generator = HSpaceGenerator(small_pipe, directions=np.eye(3, 32), config=CONFIG, spread=2.0)
    whole = draw_latents(generator, 300, seed=10)
    assert np.array_equal(draw_latents(generator, 2, seed=12), whole[2:4])
    assert draw_latents(generator, 0, seed=0).shape == (0, generator.latent_dim)
    coefficients = whole[:, -3:]
    assert len(np.unique(coefficients[:, 0])) == 300 and np.allclose(coefficients.std(axis=0), 2, atol=0.3)
    assert np.abs(np.corrcoef(whole[:, [0, 1, 2, -3, -2, -1]].T)[:3, 3:]).max() < 0.2, "a stream of its own"


@pytest.mark.parametrize("clips", [None, True])
def test_a_pipeline_of_another_scheduler_warns_of_nothing(small_pipe, clips, caplog):
    steps = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = PNDMScheduler(**steps, skip_prk_steps=True) if clips is None else DDIMScheduler(**steps, clip_sample=False)
    pipe = StableDiffusionPipeline(**small_pipe.components | {"scheduler": scheduler}, requires_safety_checker=False)
    if clips:
        scheduler.register_to_config(clip_sample=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator = DiffusionGenerator(pipe, config=CONFIG)
    assert generator.pipe.scheduler.config.clip_sample is False and "clip_sample" not in caplog.text
    assert draw_images(generator, draw_latents(generator, 2, seed=0)).shape == (2, 32, 32, 3)


def test_directions_of_the_wrong_width(small_pipe):
    with pytest.raises(InputError, match=r"\(2, 5\).*\(R, 32\)"):
        HSpaceGenerator(small_pipe, directions=np.ones((2, 5)), config=CONFIG)


def test_generators_by_name(small_pipe, tmp_path):
    small_pipe.save_pretrained(tmp_path)
    generator = get_generator(str(tmp_path), prompt="a man's face", steps=1, guidance=1.0)
    assert generator.config.prompt == "a man's face" and generator.image_size == 32
    assert draw_images(generator, draw_latents(generator, 1, seed=0)).shape == (1, 32, 32, 3)
    with pytest.raises(InputError, match="no prompt, steps or guidance"):
        get_generator("dcgan", steps=3)
    with pytest.raises(InputError, match="'nowhere'.*dcgan, tiny, tiny-h"):
        get_generator("nowhere")


@pytest.mark.skipif(importlib.util.find_spec("gan_face_generate") is None, reason="the extra `gan` is not installed")
def test_the_dcgan_draws_its_own_faces():
    generator = load_dcgan(device="cpu")
    latents = draw_latents(generator, 3, seed=0)
    assert latents.shape == (3, 100)
    images = draw_images(generator, latents)
    assert images.shape == (3, 64, 64, 3) and images.std() > 30
    assert np.abs(draw_images(generator, latents[1:2]).astype(int)[0] - images[1]).max() <= 1


def test_without_the_extra_it_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"debiaslib\[gan\]"):
        get_generator("dcgan")

"""The tiny model's training: resumable to the bit, and its output is plain diffusers."""

import json
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from debiaslib import autoencoder, checkpoints, pretrain
from debiaslib.captions import NEUTRAL_PROMPT, caption, caption_words, random_caption
from debiaslib.errors import InputError
from debiaslib.presets import encode_latents, to_images

AUTOENCODER = autoencoder.AutoencoderConfig(channels=(8, 8, 16), batch=2, steps=4, adversary_from=2)
DECODER = autoencoder.SharpenConfig(batch=2, steps=4, adversary_from=2)
DENOISER = pretrain.DenoiserConfig(channels=(32, 32), layers=1, head_width=16, text_width=16, text_layers=1, batch=2, steps=4)
LABELS = pd.DataFrame({"gender": ["Male", "Female"] * 3, "age": ["20-29"] * 6, "race": ["White"] * 6})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def same_file(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(monkeypatch, module, name, step):
    """Let `module.name` raise like a kill when the (seed, step) generator of `step` is asked for."""
    real = getattr(module, name)

    def killed(seed, at):
        if at == step:
            raise KeyboardInterrupt
        return real(seed, at)
    monkeypatch.setattr(module, name, killed)


def ends_alike(train, folder, monkeypatch):
    """Whether `train(name of a checkpoint)`, killed at step 3 and run again, leaves what an unbroken run leaves."""
    train("whole.safetensors")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, checkpoints, "step_generator", 3)
        train("killed.safetensors")
    train("killed.safetensors")
    return same_file(folder / "whole.safetensors", folder / "killed.safetensors")


def test_killed_autoencoder_ends_like_an_unbroken_one(pixels, tmp_path, monkeypatch):
    train = lambda name: autoencoder.train_autoencoder(pixels, config=AUTOENCODER, checkpoint=tmp_path / name, progress=False, save_every=3)
    assert ends_alike(train, tmp_path, monkeypatch)


def test_a_sharpened_decoder_keeps_the_latents_and_a_killed_run_ends_like_an_unbroken_one(pixels, tmp_path, monkeypatch):
    def train(name):
        torch.manual_seed(0)
        vae = autoencoder.build_autoencoder(AUTOENCODER, image_size=32).eval()
        before = encode_latents(vae, pixels)
        vae = autoencoder.sharpen_decoder(vae, pixels, config=DECODER, checkpoint=tmp_path / name, progress=False, save_every=2)
        assert torch.equal(encode_latents(vae, pixels), before), "a trained U-Net would not fit any more"

    assert ends_alike(train, tmp_path, monkeypatch)


def test_killed_denoiser_ends_like_an_unbroken_one(small_pipe, pixels, tmp_path, monkeypatch):
    train = lambda name: pretrain.train_denoiser(small_pipe.vae, pixels, LABELS, config=DENOISER, checkpoint=tmp_path / name,
                                                 progress=False, save_every=3)
    assert ends_alike(train, tmp_path, monkeypatch)


def test_standardised_latents_rebuild_the_same_faces(small_pipe, pixels):
    vae = small_pipe.vae
    with torch.no_grad():
        before = vae.decode(vae.encode(to_images(pixels)).latent_dist.mean).sample
        autoencoder.standardise_latents(vae, pixels)
        after = vae.decode(vae.encode(to_images(pixels)).latent_dist.mean).sample
    latents = encode_latents(vae, pixels)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_saved_pipeline_is_plain_diffusers_and_hashed(small_pipe, tmp_path):
    pretrain.save_pipeline(small_pipe, tmp_path / "model", curves={})
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert {type(part).__module__.split(".")[0] for part in (loaded.vae, loaded.unet, loaded.text_encoder)} <= {"diffusers", "transformers"}
    manifest = json.loads((tmp_path / "model/manifest.json").read_text())
    assert "unet/diffusion_pytorch_model.safetensors" in manifest and "vae/config.json" in manifest


@pytest.mark.parametrize(("labels", "text"), [
    ({}, NEUTRAL_PROMPT), ({"gender": "Male"}, "a man's face"), ({"gender": "Female"}, "a woman's face"),
    ({"gender": "Female", "age": "60-69", "race": "Latino_Hispanic"}, "an elderly Latino woman's face"),
    ({"race": "Black", "portrait": True}, "a portrait of a Black person")])
def test_captions_read_well(labels, text):
    assert caption(**labels) == text


def test_words_drop_at_random():
    """Half the captions name a gender, a tenth is empty, and the neutral prompt occurs."""
    generator = random.Random(0)
    texts = Counter(random_caption({"gender": "Male", "age": "20-29", "race": "White"}, generator=generator) for _ in range(4000))
    assert sum(count for text, count in texts.items() if "man" in text.replace("human", "")) / 3600 == pytest.approx(0.5, abs=0.03)
    assert texts[""] / 4000 == pytest.approx(0.1, abs=0.02)
    assert texts[NEUTRAL_PROMPT] > 0


def test_tokenizer_knows_every_caption_word_and_spells_others(small_pipe):
    words = caption_words()
    assert {"woman", "'s", "southeast", "-"} <= set(words)
    assert all(len(small_pipe.tokenizer(word).input_ids) == 3 for word in words), "start, the word, end"
    ids = small_pipe.tokenizer("a zebra").input_ids
    assert small_pipe.tokenizer.decode(ids, skip_special_tokens=True).strip() == "a zebra"


def test_checkpoints_made_from_other_faces_are_not_continued(pixels, tmp_path):
    pretrain._claim(tmp_path, pixels)
    pretrain._claim(tmp_path, pixels)
    with pytest.raises(InputError, match=f"made from {len(pixels)} other faces, these are {len(pixels) - 1}"):
        pretrain._claim(tmp_path, pixels[1:])

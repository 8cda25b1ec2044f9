"""A Stable Diffusion pipeline of a few thousand random weights (every code path, no training), and painted instruments."""

import numpy as np
import pytest
import torch
from painted import PaintedJudge, toy_extractor

from debiaslib import autoencoder, finetune, measure, pretrain, quality


@pytest.fixture
def small_pipe():
    torch.manual_seed(0)
    vae = autoencoder.build_autoencoder(autoencoder.AutoencoderConfig(channels=(8, 8, 16)), image_size=32)
    config = pretrain.DenoiserConfig(channels=(32, 32), layers=1, head_width=16, text_width=16, text_layers=1)
    tokenizer = pretrain.build_tokenizer(config)
    pipe = pretrain.assemble_pipeline(vae, pretrain.build_unet(config, latent_size=8), pretrain.build_text_encoder(config, tokenizer), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def data(small_pipe):
    """Ten faces and six natural pictures of noise, two of the faces men: what a training is made of, without its meaning."""
    generator = np.random.default_rng(0)
    faces, natural = (generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for count in (10, 6))
    return finetune.prepare_set(small_pipe, faces, natural=natural, is_male=np.arange(10) < 2)


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "_default_judge", PaintedJudge)
    monkeypatch.setitem(quality.EXTRACTORS, "toy", toy_extractor)
    monkeypatch.setattr(quality, "default_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(measure, "CONFUSION_FILE", tmp_path / "absent.csv")

"""Presets and weights: what is found, what is refused, and how a picture becomes latents."""

import json
import types

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from debiaslib import presets
from debiaslib.errors import InputError


def test_pixels_survive_the_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    images = presets.to_images(pixels)
    assert images.shape == (3, 3, 8, 8) and images.min() >= -1 and images.max() <= 1
    assert (presets.to_pixels(images) == pixels).all()


def test_unknown_preset_names_those_there_are():
    with pytest.raises(InputError, match="tiny, sd15"):
        presets.get_preset("huge")


def test_a_saved_pipeline_loads_and_draws_nothing_to_the_screen(small_pipe, tmp_path, capfd):
    small_pipe.save_pretrained(tmp_path / "model")
    capfd.readouterr()
    pipe = presets.load_pipeline(tmp_path / "model")
    assert not "".join(capfd.readouterr()).strip()
    assert torch.equal(next(pipe.unet.parameters()), next(small_pipe.unet.parameters()))


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_weights_are_refused_by_name(small_pipe, tmp_path, damage):
    small_pipe.save_pretrained(tmp_path)
    presets.write_manifest(tmp_path)
    victim = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    if damage == "missing":
        victim.unlink()
    else:
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(bytes(data))
    with pytest.raises(InputError, match="vae/diffusion_pytorch_model.safetensors"):
        presets.load_pipeline(tmp_path)


def test_a_folder_without_a_pipeline_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="debiaslib doctor"):
        presets.load_pipeline(tmp_path)


def test_manifest_lists_every_file_but_itself(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("x")
    entries = json.loads(presets.write_manifest(tmp_path).read_text())
    assert list(entries) == ["a/b.txt"] and entries["a/b.txt"]["bytes"] == 1
    presets.write_manifest(tmp_path)
    presets.check_manifest(tmp_path)


def test_latents_carry_the_scaling_factor(small_pipe):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    plain = presets.encode_latents(small_pipe.vae, pixels, batch=2)
    small_pipe.vae.register_to_config(scaling_factor=0.5)
    torch.testing.assert_close(presets.encode_latents(small_pipe.vae, pixels), plain * 0.5)


@pytest.mark.parametrize(("groups", "device", "layout"), [
    (4, "cpu", torch.channels_last), (8, "cpu", torch.contiguous_format), (8, "cuda", torch.channels_last)])
def test_narrow_groups_keep_their_layout_on_a_cpu(groups, device, layout):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.GroupNorm(groups, 64))
    assert presets.fastest_layout(network, torch.device(device)) == layout


@pytest.mark.parametrize(("side", "factor", "name"), [(16, 4, "tiny"), (64, 8, "sd15"), (96, 8, "sd15"), (4, 8, "tiny")])
def test_a_folder_gets_the_settings_of_the_preset_of_its_size(side: int, factor: int, name: str):
    pipe = types.SimpleNamespace(vae_scale_factor=factor, unet=types.SimpleNamespace(config=types.SimpleNamespace(sample_size=side)))
    assert presets.preset_of(pipe).name == name


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_broken_manifest_is_bad_input(tmp_path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="manifest.json: .*Restore it"):
        presets.check_manifest(tmp_path)


def test_one_thread_holds_for_torch_and_numpy_and_is_given_back():
    before = [pool["num_threads"] for pool in threadpool_info()], torch.get_num_threads()
    with presets.one_thread():
        assert torch.get_num_threads() == 1 and {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert ([pool["num_threads"] for pool in threadpool_info()], torch.get_num_threads()) == before

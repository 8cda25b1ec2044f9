"""Presets: which weights and settings stand behind the same code. Presets are data; nothing asks for one by name."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from debiaslib.atomic import read_record, write_whole
from debiaslib.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that differs between a laptop and a GPU.

    `source` is a folder under the data root or a hub id; learning rate and steps of `sd15` are S1's own, those of `tiny`
    are explained in its entry below; `averaged` is `FinetuneConfig`'s. `sample_steps` and `guidance` are the sampling
    defaults, `controlnet` is what contours go through, a folder or hub id as well. With `checkpointing` training computes
    activations twice instead of keeping them: less memory, more time, the same adapter.
    """

    name: str
    source: str
    revision: str | None = None
    image_size: int
    prompt: str = "a human face"
    sample_steps: int
    guidance: float
    sample_batch: int
    controlnet: str
    lora_rank: int = 8
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = ("to_q", "to_v")
    learning_rate: float
    averaged: float = 0.0
    train_steps: int
    batch: int
    accumulation: int
    checkpointing: bool = False


PRESETS = {
    # S1 shows 4 faces an update, 4,000 times, at rate 1e-5, to the attention of a network of 860 M weights. The tiny U-Net
    # has 200 times fewer and attends only where its latents are 8 x 8. Tried from a base of .51 perceived men on 100
    # FairFace faces with 20 % men (one seed, 200 pictures): S1's layers alone reach .43 after 240 updates at 3e-3 and go no
    # further; with the convolutions .36 after 200 updates at 1e-3 and .25 at 3e-3 (with 80 % men .73). So the adapter is
    # wider here, the rate higher and the steps fewer: a study of what alpha does needs a model that has learned its skew.
    # At such a rate the last adapter is a matter of luck: with faces weighed evenly (`oracle`, 20 % men, one seed, 400
    # pictures) the corrected share of men is .71, .47, .60 and .71 after 120, 140, 150 and 160 updates. So the one that is
    # kept is the mean over the second half; it also draws better faces (.985 against .94 found) and fits better.
    "tiny": Preset(name="tiny", source="models/tiny-sd", image_size=64, sample_steps=25, guidance=2.0, sample_batch=50,
                   controlnet="models/tiny-contour",
                   lora_targets=("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2"),
                   learning_rate=3e-3, averaged=0.5, train_steps=160, batch=16, accumulation=1),
    # Fits a card of 12 GB without checkpointing: training takes 4 GB, drawing 7.5 GB, beside 1 GB for CUDA itself and what
    # allocation wastes; `python -m debiaslib.true_shape --memory` counts it.
    "sd15": Preset(name="sd15", source="stable-diffusion-v1-5/stable-diffusion-v1-5",
                   revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14", image_size=512, sample_steps=40, guidance=7.5,
                   sample_batch=8, controlnet="lllyasviel/control_v11p_sd15_scribble", learning_rate=1e-5,
                   train_steps=4000, batch=1, accumulation=4),
}


def data_root() -> Path:
    """The kit's `data` folder: `DEBIASLIB_DATA` if set, else beside the package."""
    return Path(os.environ.get("DEBIASLIB_DATA") or Path(__file__).resolve().parents[1] / "data")


def get_preset(name: str) -> Preset:
    """The preset of that name. Raises InputError naming those there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r}: no such preset. Choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_of(pipe: StableDiffusionPipeline) -> Preset:
    """The preset whose settings fit a pipeline: the widest whose pictures are no larger than this one draws by default."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    fitting = [preset for preset in PRESETS.values() if preset.image_size <= side] or [PRESETS["tiny"]]
    return max(fitting, key=lambda preset: preset.image_size)


def load_pipeline(preset: Preset | str | Path, *, device: str | torch.device | None = None) -> StableDiffusionPipeline:
    """The pipeline of a preset, a pipeline folder or a hub id, ready on `device` (GPU if there is one), in fp32.

    Local folders come first; a folder listed in a manifest is checked against its hashes before anything is read.
    Raises InputError when weights are missing or altered.
    """
    if not isinstance(preset, Preset):
        preset = PRESETS.get(str(preset)) or Preset(**{**vars(PRESETS["tiny"]), "name": str(preset), "source": str(preset)})
    folder = next((path for path in (data_root() / preset.source, Path(preset.source)) if path.is_dir()), None)
    if folder is not None:
        check_manifest(folder)
    try:
        with quiet_loading():
            pipe = StableDiffusionPipeline.from_pretrained(
                str(folder or preset.source), revision=None if folder else preset.revision, use_safetensors=True,
                safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{folder or preset.source}: no usable pipeline there ({reason}). "
                         "`debiaslib doctor` lists which weights were found and how to get the others.") from None
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device or default_device())
    pipe.unet.to(memory_format=fastest_layout(pipe.unet, pipe.device))
    return pipe


@contextmanager
def quiet_loading():
    """Keep diffusers and transformers from drawing bars, and from warning of what we leave out on purpose, as they load."""
    states = [(library, library.get_verbosity(), library.is_progress_bar_enabled())
              for library in (diffusers_logging, transformers_logging)]
    try:
        for library, _, _ in states:
            library.set_verbosity_error()
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library, verbosity, bars in states:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def default_device() -> torch.device:
    """The CUDA device of this process (a launcher numbers them, else the first), or the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")


def bf16_pays(device: torch.device) -> bool:
    """Whether `device` multiplies in bfloat16 in hardware; elsewhere it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def in_bf16(device: torch.device, *, precision: str = "auto") -> bool:
    """Whether to multiply in bfloat16: where `precision` is "bf16", or "auto" and the hardware has it; not with "fp32"."""
    return precision == "bf16" or (precision == "auto" and bf16_pays(device))


def fastest_layout(network: torch.nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, in which convolutions are up to a fifth faster; not on a CPU where a group normalisation has fewer than 16
    channels a group, for which kernels there take thirty times as long."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]
    narrow = any(norm.num_channels < 16 * norm.num_groups for norm in norms)
    return torch.contiguous_format if device.type == "cpu" and narrow else torch.channels_last


def check_seed(seed: int) -> None:
    """Raise InputError unless every generator takes this seed, and the sampling seeds that follow from it."""
    if not 0 <= seed < 2**60:
        raise InputError(f"seed {seed}: give a whole number from 0 on, of 18 digits at most, as must be what follows from it.")


@contextmanager
def one_thread() -> Iterator[None]:
    """torch and numpy on one thread of the CPU: results do not depend on how many there are (two differ in the fourth decimal), and
    nobody waits for whoever else needs a core (small matrices on two threads took ten times as long on a busy machine). A GPU does not mind."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fast_precision(device: torch.device, *, precision: str = "auto"):
    """Autocast to bfloat16 where `in_bf16` says so; elsewhere all stays as it is."""
    with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(device, precision=precision)):
        yield


def to_images(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """float (N, 3, H, W) in [-1, 1] (clipped) to uint8 (N, H, W, 3)."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def encode_latents(vae, pixels: np.ndarray, *, batch: int | None = None, progress: bool = False) -> torch.Tensor:
    """Posterior means times the scaling factor, float32 (N, C, h, w) on the CPU, of uint8 (N, H, W, 3) pictures.

    `batch` pictures at once: by default 32 of 64 px, and of larger ones so many fewer that they need no more memory.
    """
    batch = batch or encoded_at_once(*pixels.shape[1:3])
    parts = []
    for start in tqdm(range(0, len(pixels), batch), desc="encode", disable=not progress):
        images = to_images(pixels[start:start + batch]).to(vae.device)
        parts.append(vae.encode(images).latent_dist.mean.float().cpu() * vae.config.scaling_factor)
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(vae, latents: torch.Tensor) -> np.ndarray:
    """The pictures uint8 (N, H, W, 3) of float (N, C, h, w) latents, as `encode_latents` gives them."""
    at_once = encoded_at_once(*(side * 2 ** (len(vae.config.block_out_channels) - 1) for side in latents.shape[2:]))
    return np.concatenate([to_pixels(vae.decode(part.to(vae.device) / vae.config.scaling_factor).sample)
                           for part in latents.split(at_once)])


def encoded_at_once(height: int, width: int) -> int:
    """How many pictures `encode_latents` takes at once: 32 of 64 px, and of larger ones so many fewer."""
    return max(1, 32 * 64**2 // max(64**2, height * width))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> Path:
    """Write `manifest.json` in `folder`: SHA-256 and size of every other file under it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = {path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files}
    target = folder / "manifest.json"
    write_whole(target, (json.dumps(entries, indent=1) + "\n").encode())
    return target


def check_manifest(folder: Path) -> None:
    """Compare every file of `folder` with its `manifest.json`, if it has one. Raises InputError at the first difference."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return
    for name, entry in read_record(manifest).items():
        path = folder / name
        if not path.exists():
            raise InputError(f"{path}: missing, though {manifest} lists it. Restore it (`git checkout {path}`) "
                             "or pretrain anew.")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise InputError(f"{path}: differs from its hash in {manifest}. Restore it (`git checkout {path}`), "
                             "or if you changed it on purpose, delete the manifest.")

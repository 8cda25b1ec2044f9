"""Generators with latents, from anywhere, behind one small protocol: latents in, pictures out, nothing random in between.

A DCGAN, a Stable Diffusion under deterministic DDIM (its starting noise is the latent, with or without coefficients along
directions of the U-Net's middle block), any torch module. What a generator returns is checked where it enters the kit.
"""

import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from tqdm.auto import tqdm

from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, encode, load_model, noise_latents
from debiaslib.presets import default_device, fast_precision, to_pixels

DCGAN_LATENTS, DCGAN_SIZE = 100, 64
H_DIRECTIONS, H_SAMPLES = 16, 100
CODE = 1_000_003
"""Keeps the streams of h-space coefficients apart from those of other numbers of the same seeds."""


class LatentGenerator(Protocol):
    """What rebalancing needs of a generator. Row i of `sample_latents(n, seed)` depends on `seed + i` alone."""

    name: str
    latent_dim: int
    image_size: int

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        """float32 (n, latent_dim) from the generator's own distribution."""

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """uint8 (n, image_size, image_size, 3) RGB of float32 (n, latent_dim); the same latents give the same pictures."""


def gaussian_latents(n: int, dim: int, *, seed: int) -> np.ndarray:
    """Standard normal float32 (n, dim), row i from seed `seed + i`: a picture is the same in every batch and number."""
    rows = [torch.randn(dim, generator=torch.Generator().manual_seed(seed + index)) for index in range(n)]
    return torch.stack(rows).numpy() if rows else np.empty((0, dim), np.float32)


class TorchGenerator:
    """Any torch module that turns latents (n, *latent_shape) into float pictures (n, 3, H, H) within `output_range`.

    Latents are standard normal unless `sampler(n, seed)` draws others, float32 (n, latent_dim). The module is moved to
    `device` (the first GPU, else the CPU) and set to eval; it must not draw random numbers. Raises InputError when it
    returns another shape, a number that is not finite, or values outside `output_range`.
    """

    def __init__(self, module: torch.nn.Module, *, latent_shape: Sequence[int], image_size: int, name: str = "",
                 output_range: tuple[float, float] = (-1.0, 1.0), batch: int = 100,
                 sampler: Callable[[int, int], np.ndarray] | None = None, device: str | torch.device | None = None):
        if not output_range[0] < output_range[1]:
            raise InputError(f"output_range {output_range}: give the lower end first, for instance (-1, 1).")
        self.name, self.image_size, self.batch = name or type(module).__name__, image_size, batch
        self.latent_shape, self.latent_dim = tuple(latent_shape), int(np.prod(latent_shape))
        self.output_range, self._sampler = output_range, sampler
        self.device = torch.device(device or default_device())
        self.module = module.to(self.device).eval()

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        """See `LatentGenerator`."""
        return self._sampler(n, seed) if self._sampler else gaussian_latents(n, self.latent_dim, seed=seed)

    @torch.no_grad()
    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See `LatentGenerator`."""
        parts = [self._pictures(self.module(part.to(self.device).view(len(part), *self.latent_shape)), len(part))
                 for part in torch.from_numpy(np.ascontiguousarray(latents, np.float32)).split(self.batch)]
        return np.concatenate(parts)

    def _pictures(self, images: torch.Tensor, n: int) -> np.ndarray:
        wanted, (low, high) = (n, 3, self.image_size, self.image_size), self.output_range
        if not isinstance(images, torch.Tensor) or tuple(images.shape) != wanted:
            came = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            raise InputError(f"generator {self.name!r}: the module returned {came} where pictures {wanted} were expected. "
                             "Check image_size and latent_shape, or wrap the module.")
        if not torch.isfinite(images).all():
            raise InputError(f"generator {self.name!r}: {int((~torch.isfinite(images)).sum())} of {images.numel()} values "
                             "are NaN or infinite. Check its weights, and that it runs in float32.")
        least, most, slack = float(images.min()), float(images.max()), 0.01 * (high - low)
        if least < low - slack or most > high + slack:
            raise InputError(f"generator {self.name!r}: values from {least:.2f} to {most:.2f}, expected {low:g} to "
                             f"{high:g}. Give its true output_range.")
        return to_pixels((images.float() - low) / (high - low) * 2 - 1)


def load_dcgan(*, device: str | torch.device | None = None) -> TorchGenerator:
    """The DCGAN of the optional package `gan-face-generate` (MIT; trained on DigiFace-1M's rendered faces: research only).

    Its torch file is opened by its hash and with `weights_only`. Raises InputError when it is missing or altered.
    """
    from debiaslib.modelcard import GAN_SHA256

    spec = importlib.util.find_spec("gan_face_generate")
    if spec is None:
        raise InputError("generator 'dcgan': gan-face-generate is not installed. Get it with: pip install 'debiaslib[gan]', "
                         "or take --generator tiny.")
    from gan_face_generate.models import Generator

    weights = (Path(spec.origin).parent / "weights.tar").read_bytes()
    if hashlib.sha256(weights).hexdigest() != GAN_SHA256:
        raise InputError("gan-face-generate: not the weights that this kit knows. Install gan-face-generate 1.1.1 again.")
    network = Generator(0, 3, DCGAN_LATENTS, DCGAN_SIZE)
    network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu")["netG_state_dict"])
    return TorchGenerator(network, latent_shape=(DCGAN_LATENTS, 1, 1), image_size=DCGAN_SIZE, name="dcgan", device=device)


class DiffusionGenerator:
    """A Stable Diffusion pipeline under deterministic DDIM: the latent is its starting noise, flattened.

    Prompt, steps and guidance are those of `config`; latents of seed s are the noise from which `generate` draws picture s.
    """

    def __init__(self, pipe: StableDiffusionPipeline, *, config: SampleConfig, name: str = "tiny", progress: bool = False):
        self.name, self.config, self.progress = name, config, progress
        scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)  # latents are not in [-1, 1]
        self.pipe = StableDiffusionPipeline(**pipe.components | {"scheduler": scheduler}, requires_safety_checker=False)
        self.pipe.set_progress_bar_config(disable=True)
        side = pipe.unet.config.sample_size
        self._shape = (pipe.unet.config.in_channels, side, side)
        self.noise_dim = self.latent_dim = int(np.prod(self._shape))
        self.image_size = side * pipe.vae_scale_factor
        self._encoded = encode(self.pipe, [config.prompt], config=config)

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        """See `LatentGenerator`."""
        if not n:
            return np.empty((0, self.noise_dim), np.float32)
        return noise_latents(self.pipe, range(seed, seed + n)).flatten(1).numpy()

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See `LatentGenerator`."""
        starts = range(0, len(latents), self.config.batch)
        parts = [self._draw(latents[start:start + self.config.batch])
                 for start in tqdm(starts, desc=self.name, disable=not self.progress, leave=False)]
        return np.concatenate(parts)

    @torch.no_grad()
    def _draw(self, latents: np.ndarray) -> np.ndarray:
        noise = torch.from_numpy(np.ascontiguousarray(latents[:, :self.noise_dim], np.float32)).view(-1, *self._shape)
        embeds, negative = (part if part is None else part.expand(len(noise), -1, -1) for part in self._encoded)
        with fast_precision(self.pipe.device, precision=self.config.precision):
            images = self.pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, num_inference_steps=self.config.steps,
                               latents=noise.to(self.pipe.device), guidance_scale=self.config.guidance, eta=0.0,
                               output_type="pt").images
        return to_pixels(images * 2 - 1)


class HSpaceGenerator(DiffusionGenerator):
    """The same, with coefficients along directions of the U-Net's middle block behind the noise in each latent.

    `directions` float32 (R, C): an offset of the middle block's C channels at every place and step for a coefficient of 1
    (h-space, Kwon et al. 2023). Coefficients are drawn from N(0, 1) times `spread`; 0 is the plain model.
    """

    def __init__(self, pipe: StableDiffusionPipeline, *, directions: np.ndarray, config: SampleConfig, spread: float = 1.0,
                 name: str = "tiny-h", progress: bool = False):
        super().__init__(pipe, config=config, name=name, progress=progress)
        channels = pipe.unet.config.block_out_channels[-1]
        if directions.ndim != 2 or directions.shape[1] != channels or not np.isfinite(directions).all():
            raise InputError(f"directions of shape {directions.shape}: give finite (R, {channels}), a row a direction. "
                             "`h_directions` finds them.")
        self.directions, self.spread = torch.from_numpy(directions.astype(np.float32)), spread
        self.latent_dim = self.noise_dim + len(directions)

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        """See `LatentGenerator`."""
        rows = [np.random.default_rng([CODE, seed + row]).standard_normal(len(self.directions)) for row in range(n)]
        coefficients = np.reshape(rows, (n, len(self.directions))) * self.spread
        return np.concatenate([super().sample_latents(n, seed), coefficients.astype(np.float32)], axis=1)

    def _draw(self, latents: np.ndarray) -> np.ndarray:
        offsets = torch.from_numpy(np.ascontiguousarray(latents[:, self.noise_dim:], np.float32)) @ self.directions

        def add(module, inputs, output):  # with guidance the batch holds every picture twice
            repeats = len(output) // len(offsets)
            return output + offsets.repeat(repeats, 1)[:, :, None, None].to(output)

        with hooked(self.pipe.unet.mid_block, add):
            return super()._draw(latents)


def h_directions(generator: DiffusionGenerator, *, count: int = H_DIRECTIONS, samples: int = H_SAMPLES,
                 seed: int = 0) -> np.ndarray:
    """The `count` main directions of the middle block, float32 (count, C): principal components, one standard deviation
    long.

    The block is read at every step of `samples` pictures and averaged over places and steps.
    """
    read: list[torch.Tensor] = []
    latents, means = generator.sample_latents(samples, seed), []

    def note(module, inputs, output):
        read.append(output.float().mean((2, 3)).cpu())

    with hooked(generator.pipe.unet.mid_block, note):
        for start in range(0, samples, generator.config.batch):
            part = latents[start:start + generator.config.batch]
            generator.decode(part)
            means.append(torch.stack([step[-len(part):] for step in read]).mean(0))
            read.clear()
    centred = torch.cat(means) - torch.cat(means).mean(0)
    _, scales, axes = torch.linalg.svd(centred / max(1, samples - 1) ** 0.5, full_matrices=False)
    return (scales[:count, None] * axes[:count]).numpy()


def load_hspace(pipe: StableDiffusionPipeline, *, config: SampleConfig, count: int = H_DIRECTIONS, samples: int = H_SAMPLES,
                seed: int = 0, progress: bool = False) -> HSpaceGenerator:
    """`HSpaceGenerator` along the main directions that the pipeline's own pictures of `config` show."""
    plain = DiffusionGenerator(pipe, config=config)
    return HSpaceGenerator(pipe, directions=h_directions(plain, count=count, samples=samples, seed=seed), config=config,
                           progress=progress)


def get_generator(name: str, *, prompt: str | None = None, steps: int | None = None, guidance: float | None = None,
                  progress: bool = False) -> LatentGenerator:
    """"dcgan", "tiny-h" (with h-space directions), a preset such as "tiny", a pipeline folder or one that `train` wrote.

    Prompt, steps and guidance are for diffusion alone; None means the preset's own. Raises InputError for others.
    """
    if name == "dcgan":
        if any(option is not None for option in (prompt, steps, guidance)):
            raise InputError("generator 'dcgan' knows no prompt, steps or guidance. Leave them out, or take --generator "
                             "tiny.")
        return load_dcgan()
    hspace = name.endswith("-h") and not Path(name).exists()
    try:
        pipe, preset = load_model(name.removesuffix("-h") if hspace else name)
    except InputError as error:
        raise InputError(f"generator {name!r}: {error} Known by name: dcgan, tiny, tiny-h.") from None
    config = SampleConfig.of(preset, prompt=prompt, steps=steps, guidance=guidance)
    if hspace:
        return load_hspace(pipe, config=config, progress=progress)
    return DiffusionGenerator(pipe, config=config, name=name, progress=progress)


def with_prompt(generator: DiffusionGenerator, prompt: str) -> DiffusionGenerator:
    """The same pipeline and settings with another prompt."""
    return DiffusionGenerator(generator.pipe, config=replace(generator.config, prompt=prompt), name=generator.name)


def draw_latents(generator: LatentGenerator, n: int, *, seed: int) -> np.ndarray:
    """`generator.sample_latents`, checked at the border: finite float32 (n, latent_dim), or InputError saying what came."""
    latents = np.asarray(generator.sample_latents(n, seed))
    if latents.shape != (n, generator.latent_dim) or not np.issubdtype(latents.dtype, np.floating):
        raise InputError(f"generator {generator.name!r}: sample_latents({n}, {seed}) returned {latents.dtype} "
                         f"{latents.shape}, expected float32 {(n, generator.latent_dim)}. Check its latent_dim.")
    if not np.isfinite(latents).all():
        raise InputError(f"generator {generator.name!r}: {int((~np.isfinite(latents)).sum())} of {latents.size} latents "
                         "are NaN or infinite. Check its sample_latents.")
    return latents.astype(np.float32, copy=False)


def draw_images(generator: LatentGenerator, latents: np.ndarray) -> np.ndarray:
    """`generator.decode`, checked at the border: uint8 (n, H, H, 3) in 0 to 255, or InputError saying what came."""
    wanted = (len(latents), generator.image_size, generator.image_size, 3)
    if not len(latents):
        return np.empty(wanted, np.uint8)
    images = np.asarray(generator.decode(latents))
    if images.shape != wanted:
        raise InputError(f"generator {generator.name!r}: decode returned pictures of shape {images.shape}, expected "
                         f"{wanted}: (n, H, H, 3). Check its image_size, and that channels come last.")
    if images.dtype != np.uint8:
        spread = f"from {np.nanmin(images):.2f} to {np.nanmax(images):.2f}" if images.size else "empty"
        raise InputError(f"generator {generator.name!r}: decode returned {images.dtype} {spread}, expected uint8 in 0 to "
                         "255. Scale and round its pictures first; TorchGenerator does it for torch modules.")
    return images


@contextmanager
def hooked(module: torch.nn.Module, function: Callable) -> Iterator[None]:
    """`function(module, inputs, output)` after every pass of `module`. The innermost is called first: what a generator puts
    there itself is there before others read it."""
    handle = module.register_forward_hook(function, prepend=True)
    try:
        yield
    finally:
        handle.remove()

"""The tiny model's autoencoder: trained once, its latents standardised, its decoder sharpened on its own."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from debiaslib import checkpoints
from debiaslib.descent import Shadow, cosine, descend, set_rate
from debiaslib.presets import encode_latents, to_images


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Training of the autoencoder: L1 and gradient loss first, then an adversary's features and verdict as well.

    A judge must be able to read what the autoencoder passes on; pixel losses alone leave it soft, and soft faces read
    as women (see `judges`). The patch adversary and the matching of its features (Wang et al. 2018, pix2pixHD) restore
    the detail without borrowing any judge.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    latent_channels: int = 4
    batch: int = 16
    steps: int = 2000
    adversary_from: int = 1000
    learning_rate: float = 8e-4
    adversary_rate: float = 4e-4
    kl_weight: float = 1e-4
    gradient_weight: float = 1.0
    feature_weight: float = 0.2
    adversary_weight: float = 0.004
    seed: int = 0


def build_autoencoder(config: AutoencoderConfig, *, image_size: int = 64) -> AutoencoderKL:
    """An untrained `AutoencoderKL`, 4x down: images (N, 3, 64, 64) in [-1, 1] to latents (N, 4, 16, 16)."""
    depth = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth, up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=config.channels, layers_per_block=1, latent_channels=config.latent_channels,
        norm_num_groups=8, sample_size=image_size, scaling_factor=1.0, mid_block_add_attention=False)


class PatchAdversary(torch.nn.Module):
    """A small patch discriminator; returns its verdict map and its features, coarse to fine."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.blocks = torch.nn.ModuleList(
            torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairs)
        self.verdict = torch.nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for block in self.blocks:
            images = F.leaky_relu(block(images), 0.2)
            features.append(images)
        return self.verdict(images), features


def train_autoencoder(pixels: np.ndarray, *, config: AutoencoderConfig, checkpoint: Path, progress: bool = True,
                      save_every: int = 100) -> AutoencoderKL:
    """Train on uint8 (N, 64, 64, 3) faces; continues from `checkpoint` if it exists. Returns the autoencoder in fp32."""
    torch.manual_seed(config.seed)
    vae = build_autoencoder(config, image_size=pixels.shape[1]).to(memory_format=torch.channels_last)
    adversary = PatchAdversary().to(memory_format=torch.channels_last)
    modules = {"vae": vae, "adversary": adversary}
    optimizers = {"vae_adam": torch.optim.AdamW(vae.parameters(), config.learning_rate, betas=(0.9, 0.99),
                                                weight_decay=1e-4),
                  "adversary_adam": torch.optim.AdamW(adversary.parameters(), config.adversary_rate, betas=(0.5, 0.99))}

    def step_of(step: int) -> dict[str, float]:
        set_rate(optimizers["vae_adam"], config.learning_rate * cosine(step, config.steps))
        return _autoencoder_step(vae, adversary, optimizers, pixels, config, step)

    _train(step_of, name="autoencoder", config=config, checkpoint=checkpoint, modules=modules, optimizers=optimizers,
           progress=progress, save_every=save_every)
    return vae.eval().to(memory_format=torch.contiguous_format)


def _train(step_of: Callable[[int], dict[str, float]], *, name: str, config, checkpoint: Path, modules: dict,
           optimizers: dict, progress: bool, save_every: int) -> None:
    """Take the steps that `checkpoint` has not seen; keep it, and every twentieth step's losses in it, up to date."""
    start, notes = checkpoints.load(checkpoint, modules=modules, optimizers=optimizers)
    curve = notes.get("curve", [])
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc=name, disable=not progress)
    for step in bar:
        losses = step_of(step)
        if step % 20 == 0:
            curve.append({"step": step, **losses})
            bar.set_postfix(losses)
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            checkpoints.save(checkpoint, step=step + 1, modules=modules, optimizers=optimizers,
                             notes={"config": asdict(config), "curve": curve})


def _random_batch(pixels: np.ndarray, size: int, generator: torch.Generator) -> torch.Tensor:
    index = torch.randint(len(pixels), (size,), generator=generator).numpy()
    images = to_images(pixels[index])
    flip = torch.rand(size, generator=generator) < 0.5
    images[flip] = images[flip].flip(-1)
    return images.contiguous(memory_format=torch.channels_last)


def _autoencoder_step(vae, adversary, optimizers, pixels, config, step) -> dict[str, float]:
    generator = checkpoints.step_generator(config.seed, step)
    images = _random_batch(pixels, config.batch, generator)
    with torch.autocast(images.device.type, torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        rebuilt = vae.decode(posterior.sample(generator)).sample
    rebuilt = rebuilt.float()
    losses = {"l1": F.l1_loss(rebuilt, images), "gradient": _gradient_loss(rebuilt, images)}
    losses["kl"] = posterior.kl().mean() / posterior.mean[0].numel()
    total = losses["l1"] + config.gradient_weight * losses["gradient"] + config.kl_weight * losses["kl"]
    adversarial = step >= config.adversary_from
    if adversarial:
        losses |= _adversary_losses(adversary, rebuilt, images)
        total = total + config.feature_weight * losses["feature"] + config.adversary_weight * losses["verdict"]
    descend(optimizers["vae_adam"], total, vae)
    if adversarial:
        losses["adversary"] = _adversary_step(adversary, optimizers["adversary_adam"], images, rebuilt.detach())
    return _told(losses, rebuilt, images)


def _adversary_losses(adversary, rebuilt: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far the adversary's features of the rebuilt pictures lie from the pictures', and its verdict."""
    with torch.autocast(images.device.type, torch.bfloat16):
        verdict, fake = adversary(rebuilt)
        with torch.no_grad():
            _, real = adversary(images)
    return {"feature": sum(F.l1_loss(f.float(), r.float()) for f, r in zip(fake, real, strict=True)),
            "verdict": -verdict.float().mean()}


def _told(losses: dict[str, torch.Tensor], rebuilt: torch.Tensor, images: torch.Tensor) -> dict[str, float]:
    losses["psnr"] = 10 * torch.log10(4 / F.mse_loss(rebuilt.detach(), images))
    return {name: round(float(value.detach()), 5) for name, value in losses.items()}


def _adversary_step(adversary, optimizer, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    with torch.autocast(real.device.type, torch.bfloat16):
        verdict_real, verdict_fake = adversary(real)[0], adversary(fake)[0]
    loss = F.relu(1 - verdict_real.float()).mean() + F.relu(1 + verdict_fake.float()).mean()
    descend(optimizer, loss, adversary)
    return loss.detach()


def _gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 between horizontal and vertical finite differences: edges weigh as much as surfaces."""
    horizontal = F.l1_loss(a[..., 1:] - a[..., :-1], b[..., 1:] - b[..., :-1])
    return horizontal + F.l1_loss(a[..., 1:, :] - a[..., :-1, :], b[..., 1:, :] - b[..., :-1, :])


def standardise_latents(vae: AutoencoderKL, pixels: np.ndarray) -> AutoencoderKL:
    """Fold each latent channel's mean and deviation into the autoencoder's 1x1 convolutions, in place.

    Afterwards the latents of `pixels` (uint8 (N, H, W, 3)) have mean 0 and deviation 1 in every channel, so that
    `scaling_factor` is 1 and plain diffusers needs no shift of its own. What the autoencoder rebuilds is unchanged.
    """
    latents = encode_latents(vae, pixels)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    with torch.no_grad():
        quant, back = vae.quant_conv, vae.post_quant_conv
        quant.weight[:channels] /= deviation[:, None, None, None]
        quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
        quant.bias[channels:] -= 2 * deviation.log()
        back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
        back.weight *= deviation[None, :, None, None]
    return vae


@dataclass(frozen=True, kw_only=True)
class SharpenConfig:
    """A second turn for the decoder alone, the latents staying as they are, so that a trained U-Net still fits.

    The adversary's weight is set anew at each step so that its gradient in the last layer is `balance` times that of the
    other losses (Esser et al. 2021, VQGAN). `noise` is added to the latents (deviation 1), as generated ones are never quite
    right.
    """

    batch: int = 16
    steps: int = 1500
    learning_rate: float = 4e-4
    adversary_rate: float = 4e-4
    adversary_from: int = 100
    feature_weight: float = 1.0
    balance: float = 0.5
    noise: float = 0.05
    ema_decay: float = 0.998
    seed: int = 1


def sharpen_decoder(vae: AutoencoderKL, pixels: np.ndarray, *, config: SharpenConfig, checkpoint: Path,
                    progress: bool = True, save_every: int = 100) -> AutoencoderKL:
    """Train the decoder on uint8 (N, H, W, 3) faces against a patch adversary, encoder frozen; continues from `checkpoint`.

    Returns the autoencoder with the averaged (EMA) decoder, in fp32.
    """
    torch.manual_seed(config.seed)
    vae.requires_grad_(False)
    decoder = torch.nn.ModuleDict({"decoder": vae.decoder, "back": vae.post_quant_conv}).requires_grad_(True)
    adversary = PatchAdversary()
    average = EMAModel(decoder.parameters(), decay=config.ema_decay, use_ema_warmup=True)
    modules = {"decoder": decoder, "adversary": adversary, "average": Shadow(average)}
    optimizers = {"decoder_adam": torch.optim.AdamW(decoder.parameters(), config.learning_rate, betas=(0.5, 0.99)),
                  "adversary_adam": torch.optim.AdamW(adversary.parameters(), config.adversary_rate, betas=(0.5, 0.99))}

    def step_of(step: int) -> dict[str, float]:
        set_rate(optimizers["decoder_adam"], config.learning_rate * cosine(step, config.steps))
        losses = _sharpen_step(vae, decoder, adversary, optimizers, pixels, config, step)
        average.optimization_step = step  # a checkpoint does not hold the average's own count
        average.step(decoder.parameters())
        return losses

    _train(step_of, name="decoder", config=config, checkpoint=checkpoint, modules=modules, optimizers=optimizers,
           progress=progress, save_every=save_every)
    average.copy_to(decoder.parameters())
    return vae.eval()


def _sharpen_step(vae, decoder, adversary, optimizers, pixels, config, step) -> dict[str, float]:
    generator = checkpoints.step_generator(config.seed, step)
    images = _random_batch(pixels, config.batch, generator).contiguous()
    with torch.autocast(images.device.type, torch.bfloat16):
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean.float()
        blurred = latents + config.noise * torch.randn(latents.shape, generator=generator).to(latents)
        rebuilt = vae.decode(blurred).sample.float()
    losses = {"l1": F.l1_loss(rebuilt, images), "gradient": _gradient_loss(rebuilt, images)}
    total = losses["l1"] + losses["gradient"]
    seen = _adversary_losses(adversary, rebuilt, images)  # also while it does not count yet: its spectral norms settle
    if step >= config.adversary_from:
        losses |= seen
        total = total + config.feature_weight * losses["feature"]
        last = vae.decoder.conv_out.weight
        pull, push = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (total, losses["verdict"]))
        losses["adversary_weight"] = config.balance * pull / (push + 1e-6)
        total = total + losses["adversary_weight"].clamp(max=10) * losses["verdict"]
    descend(optimizers["decoder_adam"], total, decoder)
    losses["adversary"] = _adversary_step(adversary, optimizers["adversary_adam"], images, rebuilt.detach())
    return _told(losses, rebuilt, images)

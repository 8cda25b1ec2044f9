"""The indicators: what reads the latent side of training, and how its value enters the loss.

An indicator is built for one training run, sees a whole batch of predictions and returns the loss to descend. None of
them is told a gender. The strength of an indicator is alpha, 0 <= alpha <= 1; at alpha = 0 all of them are plain
denoising. Notation: eps is the noise added to the latents, eps_hat the U-Net's prediction of it, both (N, C, h, w).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from debiaslib.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What an indicator sees: predictions and noise (N, C, h, w) in fp32; is_face (N,) bool; faces come first."""

    predicted: torch.Tensor
    noise: torch.Tensor
    is_face: torch.Tensor

    def denoising_losses(self) -> torch.Tensor:
        """Mean squared error of each face, (number of faces,)."""
        error = (self.predicted - self.noise)[self.is_face]
        return error.square().mean(dim=(1, 2, 3))


class NoIndicator(torch.nn.Module):
    """The control: L = MSE(eps_hat, eps) over faces."""

    name = "none"
    needs_natural = False

    def __init__(self, *, alpha: float, latent_channels: int):
        super().__init__()
        self.alpha = alpha

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss to descend and what to log."""
        denoising = batch.denoising_losses().mean()
        return denoising, {"denoising": float(denoising.detach())}


class LiteralIndicator(torch.nn.Module):
    """S1 to the letter: L = (1 - alpha) MSE(eps_hat, eps) + alpha CE(C(eps_hat), y), y = face or other.

    C is a small convolutional network on the U-Net's prediction at the step's one random timestep. Its cross-entropy
    reaches the adapter through eps_hat: the two are trained together, in one optimiser, towards the same goal (Huang et
    al. 2025, arXiv 2503.12536, and the published code). Natural pictures enter the cross-entropy only.
    """

    name = "literal"

    def __init__(self, *, alpha: float, latent_channels: int, width: int = 32):
        super().__init__()
        self.alpha = alpha
        self.needs_natural = alpha > 0
        self.classifier = torch.nn.Sequential(
            torch.nn.Conv2d(latent_channels, width, 3, padding=1), torch.nn.SiLU(),
            torch.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), torch.nn.SiLU(),
            torch.nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), torch.nn.SiLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2 * width, 2))

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss to descend and what to log."""
        denoising = batch.denoising_losses().mean()
        if not self.needs_natural:
            return denoising, {"denoising": float(denoising.detach())}
        logits = self.classifier(batch.predicted)
        target = batch.is_face.long()
        entropy = F.cross_entropy(logits, target)
        accuracy = (logits.argmax(1) == target).float().mean()
        total = (1 - self.alpha) * denoising + self.alpha * entropy
        return total, {"denoising": float(denoising.detach()), "indicator": float(entropy.detach()), "indicator_accuracy": float(accuracy)}


INDICATORS = {kind.name: kind for kind in (NoIndicator, LiteralIndicator)}


def build_indicator(name: str, *, alpha: float, latent_channels: int) -> torch.nn.Module:
    """The indicator of that name. Raises InputError for an unknown name or an alpha outside [0, 1]."""
    if name not in INDICATORS:
        raise InputError(f"indicator {name!r}: no such indicator. Choose one of {', '.join(INDICATORS)}.")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha {alpha}: outside [0, 1]. It weighs the indicator against denoising; S1 used 0, .01, .05 and .1.")
    return INDICATORS[name](alpha=alpha, latent_channels=latent_channels)

"""The indicators: what reads the latent side of training, and how its value enters the loss.

One interface: an indicator is built for one training run, may study the training set once (`study`), then sees each batch
of predictions and returns the loss to descend. Its strength is alpha, 0 <= alpha <= 1; at alpha = 0 all of them are plain
denoising. Notation: eps is the noise added to the latents, eps_hat the U-Net's prediction of it, both (N, C, h, w); MSE_i
is the squared error of face i, averaged over its latent; v_i is the value of face i, v > 0, of mean 1.

`literal` follows S1 (Huang et al. 2025). `density`, `reference`, `oracle` and `random` weigh the faces instead,

    L = mean_i w_i MSE_i,    w_i = 1 + s (v_i - 1),    s = min(1, KAPPA alpha),

so that S1's alpha of .1 is full strength and no weight is ever negative. None but `oracle` is told a gender. The mean is
taken by drawing: face i comes up w_i times an epoch, with other noise and another timestep each time, and every draw counts
alike. That descends the same L as factors w_i on evenly drawn faces would, with less noise in the gradient: with `density`
from 20 % men its variance is .42 of theirs, with `oracle` .85 (24 batches of 16 each).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from debiaslib import rarity
from debiaslib.errors import InputError

KAPPA = 10.0


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


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What `study` may look at: face embeddings (N, D) of the training faces, (M, D) of natural pictures, (R, D) of a
    reference; `axes` (K, D) along which faces differ most in that embedding; `decoded`, the training faces' and the reference's
    after a pass through the autoencoder; `more`, of further faces of any mix after such a pass, which nothing needs and
    `recalibrated` sees better with; `drawn` (K, D) of pictures of a model trained with `reference`; is_male (N,) bool, for
    `oracle` alone. What was not asked for (`needs`) is None."""

    embedding: np.ndarray | None = None
    natural: np.ndarray | None = None
    reference: np.ndarray | None = None
    axes: np.ndarray | None = None
    decoded: tuple[np.ndarray, np.ndarray] | None = None
    more: np.ndarray | None = None
    drawn: np.ndarray | None = None
    is_male: np.ndarray | None = None


class NoIndicator(torch.nn.Module):
    """The control: L = mean_i MSE_i over faces."""

    name = "none"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, alpha: float, latent_channels: int = 4, seed: int = 0):
        super().__init__()
        self.alpha, self.seed = alpha, seed

    @property
    def needs_natural(self) -> bool:
        """Whether natural pictures join the batches."""
        return False

    def study(self, evidence: Evidence) -> None:
        """Look at the training set once, before training."""

    def weights(self, count: int) -> np.ndarray:
        """How often each of `count` training faces comes up an epoch, on average: mean 1."""
        return np.ones(count)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss to descend and what to log."""
        denoising = batch.denoising_losses().mean()
        return denoising, {"denoising": float(denoising.detach())}


class LiteralIndicator(NoIndicator):
    """S1 to the letter: L = (1 - alpha) MSE(eps_hat, eps) + alpha CE(C(eps_hat), y), y = face or other.

    C is a small convolutional network on the U-Net's prediction at the step's one random timestep. Its cross-entropy
    reaches the adapter through eps_hat: the two are trained together, in one optimiser, towards the same goal (Huang et
    al. 2025, arXiv 2503.12536, and the published code). Natural pictures enter the cross-entropy only.
    """

    name = "literal"

    def __init__(self, *, alpha: float, latent_channels: int = 4, seed: int = 0, width: int = 32):
        super().__init__(alpha=alpha, latent_channels=latent_channels, seed=seed)
        self.classifier = torch.nn.Sequential(
            torch.nn.Conv2d(latent_channels, width, 3, padding=1), torch.nn.SiLU(),
            torch.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), torch.nn.SiLU(),
            torch.nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), torch.nn.SiLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2 * width, 2))

    @property
    def needs_natural(self) -> bool:
        """Natural pictures are what the classifier tells faces from."""
        return self.alpha > 0

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


class WeightingIndicator(NoIndicator):
    """What the weighting indicators share: L = mean_i w_i MSE_i, w_i = 1 + s (v_i - 1), s = min(1, KAPPA alpha)."""

    def __init__(self, *, alpha: float, latent_channels: int = 4, seed: int = 0):
        super().__init__(alpha=alpha, latent_channels=latent_channels, seed=seed)
        self.strength = min(1.0, KAPPA * alpha)
        self.value = np.ones(0)

    def values(self, evidence: Evidence) -> np.ndarray:
        """v (N,) > 0; made to have mean 1 by `study`."""
        raise NotImplementedError

    def study(self, evidence: Evidence) -> None:
        """Value every training face, once. Raises InputError when something that it needs is missing."""
        if not self.strength:
            return
        missing = sorted(name for name in self.needs if getattr(evidence, name) is None)
        if missing:
            raise InputError(f"indicator {self.name!r}: needs {' and '.join(WANTED[name] for name in missing)}.")
        values = self.values(evidence)
        self.value = values / values.mean()

    def weights(self, count: int) -> np.ndarray:
        """How often each of `count` training faces comes up an epoch, on average: mean 1."""
        return 1 + self.strength * (self.value - 1) if self.strength else np.ones(count)


class DensityIndicator(WeightingIndicator):
    """Label-free: v_i = min(1, 2 p(face | x_i)) r_i^c, r_i the distance to the k-th neighbour along three axes of a face embedding.

    Sparse regions of the embedding weigh more (Amini et al. 2019 weigh by a variational autoencoder's latent density; here a
    k-NN density in a representation that separates people, see `rarity`, along the axes in which people differ most, see
    `face_axes`). p(face | x) keeps strays out. No group is named:
    the density is continuous, which is what non-binary means here.
    """

    name = "density"
    needs = frozenset({"embedding", "natural", "axes"})

    def values(self, evidence: Evidence) -> np.ndarray:
        """Rarity, strays kept out."""
        return rarity.density_values(evidence.embedding, axes=evidence.axes) * rarity.face_gate(evidence.embedding, evidence.natural)


class ReferenceIndicator(WeightingIndicator):
    """v_i = 1 + t (r(x_i) / (1 - r(x_i)) - 1), r / (1 - r) the odds of having come from a small balanced reference without labels on its images.

    The odds are a density ratio (Choi et al. 2020, "Fair Generative Modeling via Weak Supervision"), estimated so that it is
    calibrated by construction, see `rarity.reference_values`; t in [0, 1] says how surely reference and training faces differ at all
    (`rarity.told_apart`), so that faces of a balanced mix are left alone, provided that both sets are from one source. Time-dependent ratios
    (TIW-DSM, Kim et al. 2024) are not this.
    """

    name = "reference"
    needs = frozenset({"embedding", "natural", "reference", "axes"})

    def values(self, evidence: Evidence) -> np.ndarray:
        """The density ratio as far as it is sure, strays kept out."""
        sets = evidence.embedding, evidence.reference
        values = 1 + rarity.told_apart(*sets, evidence.axes) * (rarity.reference_values(*sets) - 1)
        return values * rarity.face_gate(evidence.embedding, evidence.natural)


class RecalibratedIndicator(ReferenceIndicator):
    """`reference`, and then again: a first training's own pictures tell by how much it missed even.

    v_i = (the reference's v_i) (1 - q_i + u q_i), q_i the chance of face i to be of the second of two unnamed groups, u such
    that v aims past even by twice what the first training missed, by .15 at least (`rarity.recalibrated_values`), and again as far as
    reference and training faces surely differ. It costs a second
    training and 1,600 pictures, of both trainings and of a mix that is tried: they say where between both the mix lies that is
    kept (`mixing`).
    """

    name = "recalibrated"
    needs = ReferenceIndicator.needs | {"decoded", "drawn"}

    def values(self, evidence: Evidence) -> np.ndarray:
        """The first training's values, recalibrated."""
        faces, reference = evidence.decoded
        values, sure = super().values(evidence), rarity.told_apart(evidence.embedding, evidence.reference, evidence.axes)
        again = rarity.recalibrated_values(values, faces=faces, reference=reference, drawn=evidence.drawn, more=evidence.more)
        return values / values.mean() + sure * (again - values / values.mean())


class OracleIndicator(WeightingIndicator):
    """Told the groups: v_i = 1 / (2 p_g) for a face of group g, of share p_g. An upper bound, not a method."""

    name = "oracle"
    needs = frozenset({"is_male"})

    def values(self, evidence: Evidence) -> np.ndarray:
        """The inverse share of each face's own group."""
        male = np.asarray(evidence.is_male, bool)
        share = np.where(male, male.mean(), 1 - male.mean())
        return 1 / share


class RandomIndicator(DensityIndicator):
    """A control: the very weights of `density`, dealt out to the faces by chance. The same sizes, no information."""

    name = "random"

    def values(self, evidence: Evidence) -> np.ndarray:
        """The density's values in another order."""
        return np.random.default_rng(self.seed).permutation(super().values(evidence))


INDICATORS = {kind.name: kind for kind in (NoIndicator, LiteralIndicator, DensityIndicator, ReferenceIndicator,
                                           RecalibratedIndicator, OracleIndicator, RandomIndicator)}
WANTED = {"embedding": "face embeddings of the training faces", "natural": "embeddings of natural pictures",
          "reference": "a small balanced set of faces without labels (--reference DIR|ZIP)",
          "axes": "the axes along which faces differ (data/models/face-axes)",
          "decoded": "a small balanced set of faces without labels (--reference DIR|ZIP)",
          "drawn": "a model trained with `reference` and pictures that it drew (--first DIR)",
          "is_male": "gender labels on the training faces (a column `gender` in metadata.csv)"}


def build_indicator(name: str, *, alpha: float, latent_channels: int = 4, seed: int = 0) -> NoIndicator:
    """The indicator of that name. Raises InputError for an unknown name or an alpha outside [0, 1]."""
    if name not in INDICATORS:
        raise InputError(f"indicator {name!r}: no such indicator. Choose one of {', '.join(INDICATORS)}.")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha {alpha}: outside [0, 1]. It weighs the indicator against denoising; S1 used 0, .01, .05 and .1.")
    return INDICATORS[name](alpha=alpha, latent_channels=latent_channels, seed=seed)


def needs_of(names: tuple[str, ...] | list[str]) -> frozenset[str]:
    """Everything that the indicators of these names want to look at."""
    return frozenset().union(*(INDICATORS[name].needs for name in names))

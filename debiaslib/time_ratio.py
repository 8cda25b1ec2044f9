"""Ratios that depend on time: a small set that is balanced as a whole speaks at every noise level (TIW-DSM).

Kim et al. 2024, "Training Unbiased Diffusion Models From Biased Dataset" (ICLR, arXiv 2403.01189). For noised latents
x_t = a_t x_0 + s_t eps, a_t^2 = abar_t, s_t^2 = 1 - abar_t, let w_t(x_t) = p_ref,t(x_t) / p_bias,t(x_t). TIW-DSM minimises

    E_t E_bias w_t(x_t) || score(x_t, t) - grad log p(x_t | x_0) - grad log w_t(x_t) ||^2,

at its least where score = grad log p_ref,t. With score = -eps_hat / s_t and grad log p(x_t | x_0) = -eps / s_t that is

    E_t E_bias w_t(x_t) || eps_hat - eps + s_t grad log w_t(x_t) ||^2        (the paper's weighting over t aside):

eps becomes eps - s_t grad log w_t. The weight, a function of what the network sees, leaves the minimiser where it is: the
correction alone leads to p_ref, the weight alone to p_bias. (Weights w(x_0), as those of `reference`, do move it.)

w_t comes from no discriminator on 100 + 100 faces, which it would learn by heart. `rarity` finds two components of a face
embedding, of which pool, training set and reference hold shares tau, pi and rho. They are distilled into q(x_t), the chance
of component 1 given noised latents, on a large pool of unlabelled faces. The pool's mix is neither set's; where the
components are the same,

    w_t = (rho_1/tau_1 q + rho_0/tau_0 (1 - q)) / (pi_1/tau_1 q + pi_0/tau_0 (1 - q)).

At strength s the reference is (1 - s) p_bias + s p_ref, of share (1 - s) pi + s rho, and w_t becomes 1 + s (w_t - 1).
`python -m debiaslib.time_ratio_study` measures what all this is worth.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf

from debiaslib import rarity
from debiaslib.errors import InputError
from debiaslib.indicators import KAPPA, Batch, NoIndicator

VARIANTS = {"weights": (True, False), "correction": (False, True), "both": (True, True)}
"""Which halves of TIW-DSM are used: time-dependent weights, corrected targets."""


@dataclass(frozen=True, kw_only=True)
class Mixes:
    """The share of component 1 in the pool (tau), the training set (pi) and the reference (rho), each inside (0, 1)."""

    pool: float
    biased: float
    reference: float

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 < share < 1:
                raise InputError(f"mix of the {name} set, {share:g}: give a share between 0 and 1, ends left out.")

    def towards(self, strength: float) -> "Mixes":
        """With a reference only `strength` of the way, in [0, 1], from the training set's mix."""
        there = self.biased + strength * (self.reference - self.biased)
        return Mixes(pool=self.pool, biased=self.biased, reference=there)

    def log_ratio(self, logit: torch.Tensor) -> torch.Tensor:
        """log w of the pool's logit of component 1, any shape."""
        def against_pool(share: float) -> torch.Tensor:
            zero = torch.full_like(logit, np.log((1 - share) / (1 - self.pool)))
            return torch.logaddexp(logit + np.log(share / self.pool), zero)

        return against_pool(self.reference) - against_pool(self.biased)


def components(training: np.ndarray, reference: np.ndarray, pool: np.ndarray, *,
               config: rarity.ReferenceConfig | None = None) -> tuple[np.ndarray, Mixes]:
    """Each pool face's chance of being of component 1, (P,), and the three mixes, from embeddings (N, D), (M, D), (P, D).

    The axis and the two Gaussians along it are those of `rarity.reference_values`, which training set and reference decide;
    the pool only finds its own mix of them. No label enters. Raises InputError for fewer than 10 rows, or other widths.
    """
    config = config or rarity.ReferenceConfig()
    sets = training, reference, pool
    if len({part.shape[1:] for part in sets}) > 1 or min(map(len, sets)) < 10:
        raise InputError(f"embeddings of shapes {training.shape}, {reference.shape} and {pool.shape}: give 10 faces or more "
                         "of each, in one representation.")
    found, mix = rarity.weighed_components(training, reference, config=config)
    share = np.clip(found.proportions(pool), 1e-3, 1 - 1e-3)
    biased, shared = (mix[:, 1] + config.floor) / (1 + 2 * config.floor)
    return found.members(pool, share)[:, 1], Mixes(pool=float(share[1]), biased=float(biased), reference=float(shared))


class LinearStudent(torch.nn.Module):
    """The logit of component 1 given x_t, in closed form: linear discriminant analysis at every noise level at once.

    If latents are N(mu_k, S) in component k, noised ones are N(a mu_k, a^2 S + s^2 I). With d = mu_1 - mu_0, m their mean,

        l_t(x) = c_t a d' (a^2 S + s^2 I)^-1 (x - a m) + log tau odds,    S = V diag(lambda) V' diagonalised once.

    mu_k and S are those of the pool, weighed with its chances; S is shrunk (Ledoit and Wolf 2004), and c_t <= 1 takes off
    what chance adds to a difference of means: c_t = 1 - (1/n_0 + 1/n_1) sum_j a^2 lambda_j / (a^2 lambda_j + s^2) / D_t^2,
    D_t the Mahalanobis distance of the means.
    """

    def __init__(self, latents: torch.Tensor, chance: np.ndarray, alphas: torch.Tensor):
        """latents (P, C, h, w) of the pool, chance (P,) of component 1, alphas (T,) = abar_t."""
        super().__init__()
        rows, part = latents.flatten(1).double().numpy(), np.stack([1 - chance, chance])
        count = part.sum(1)
        means = part @ rows / count[:, None]
        centred = [np.sqrt(weight)[:, None] * (rows - mean) for weight, mean in zip(part, means, strict=True)]
        scatter, _ = ledoit_wolf(np.sqrt(2) * np.concatenate(centred), assume_centered=True)  # it divides by 2 P rows
        spread, axes = np.linalg.eigh(scatter)
        found = {"axes": axes, "spread": spread, "along": (means[1] - means[0]) @ axes, "middle": means.mean(0) @ axes}
        for name, value in found.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        self.register_buffer("alphas", alphas)
        alpha, noised = alphas[:, None], alphas[:, None] * self.spread + 1 - alphas[:, None]
        by_chance = (alpha * self.spread / noised).sum(1) * (1 / count).sum()
        distance = (alpha * self.along.square() / noised).sum(1).clamp(min=1e-12)
        self.register_buffer("kept", (1 - by_chance / distance).clamp(min=0))
        self.prior = float(np.log(count[1] / count[0]))

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Logits (N,) of latents (N, C, h, w) noised to timesteps (N,)."""
        alpha = self.alphas[timesteps, None]
        gain = alpha.sqrt() * self.along / (alpha * self.spread + 1 - alpha)
        inside = noisy.flatten(1) @ self.axes - alpha.sqrt() * self.middle
        return self.kept[timesteps] * (gain * inside).sum(1) + self.prior


class ConvStudent(torch.nn.Module):
    """The same logit from a small convolutional network that is told the time: .12 M parameters for latents 4 x 16 x 16."""

    def __init__(self, *, channels: int = 4, side: int = 16, widths: tuple[int, int, int] = (48, 64, 96)):
        super().__init__()
        before = (channels, *widths)
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(before[i], before[i + 1], 3, stride=1 if i == 0 else 2, padding=1) for i in range(3))
        self.time = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2 * sum(widths)))
        self.out = torch.nn.Linear(widths[-1] * (side // 4) ** 2, 1)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Logits (N,) of latents (N, C, h, w) noised to timesteps (N,)."""
        angle = timesteps[:, None].float() * torch.logspace(0, -4, 16, device=noisy.device)
        told = self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, :, None, None]
        for layer in self.convolutions:
            scale, shift, told = told.tensor_split((layer.out_channels, 2 * layer.out_channels), 1)
            noisy = F.silu(layer(noisy) * (1 + scale) + shift)
        return self.out(noisy.flatten(1))[:, 0]

    def distil(self, latents: torch.Tensor, chance: np.ndarray, alphas: torch.Tensor, *, steps: int = 600, batch: int = 64,
               rate: float = 2e-3, decay: float = 0.1, seed: int = 0) -> "ConvStudent":
        """Regress the pool's chances (P,) on its noised latents (P, C, h, w), mirrored at random.

        Cross-entropy with a chance for a target is least at the mean chance given x_t.
        """
        generator, goal = torch.Generator().manual_seed(seed), torch.as_tensor(chance, dtype=torch.float32)
        optimizer = torch.optim.AdamW(self.parameters(), rate, weight_decay=decay)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for _ in range(steps):
            chosen = torch.randint(len(latents), (batch,), generator=generator)
            mirrored = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
            clean = torch.where(mirrored, latents[chosen], latents[chosen].flip(3))
            timesteps = torch.randint(len(alphas), (batch,), generator=generator)
            logit = self(noised(clean, timesteps, alphas, generator), timesteps)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logit, goal[chosen]).backward()
            optimizer.step()
            plan.step()
        return self.eval().requires_grad_(False)


def noised(clean: torch.Tensor, timesteps: torch.Tensor, alphas: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """x_t of latents (N, C, h, w) at timesteps (N,)."""
    alpha = alphas[timesteps, None, None, None]
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn(clean.shape, generator=generator)


def ratio_and_slope(student: torch.nn.Module, mixes: Mixes, noisy: torch.Tensor,
                    timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """w_t (N,) and grad log w_t (N, C, h, w) at latents (N, C, h, w) noised to timesteps (N,)."""
    with torch.enable_grad():
        place = noisy.detach().requires_grad_()
        log_ratio = mixes.log_ratio(student(place, timesteps))
        slope, = torch.autograd.grad(log_ratio.sum(), place)
    return log_ratio.detach().exp(), slope


class TimeRatioIndicator(NoIndicator):
    """TIW-DSM, or half of it: L = mean_i w_i mean (eps_hat - eps + s_t grad log w_t)^2, at strength min(1, KAPPA alpha).

    w_i = min(w_t, `most`), as `rarity` clips: where a set is taken to hold next to nobody of a component, w_t has hardly a
    bound. `Batch` does not say which x_t and t a prediction is of, so this stands in for the scheduler that noises the
    latents. `seconds` adds up what w_t and its slope took.
    """

    name = "time-ratio"

    def __init__(self, student: torch.nn.Module, mixes: Mixes, scheduler, *, variant: str = "both", alpha: float = 0.1,
                 most: float = rarity.ReferenceConfig.most):
        super().__init__(alpha=alpha)
        if variant not in VARIANTS:
            raise InputError(f"variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
        self.student, self.mixes, self.scheduler = student, mixes.towards(min(1.0, KAPPA * alpha)), scheduler
        self.weighs, self.corrects = VARIANTS[variant]
        self.most, self.seconds = most, 0.0

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the scheduler does, noted."""
        self.seen = self.scheduler.add_noise(latents, noise, timesteps), timesteps
        return self.seen[0]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss to descend and what to log: denoising, mean weight, root mean square of the correction (noise has 1)."""
        (noisy, timesteps), began = self.seen, time.perf_counter()
        weight, slope = ratio_and_slope(self.student, self.mixes, noisy, timesteps)
        change = (1 - self.scheduler.alphas_cumprod[timesteps, None, None, None]).sqrt() * slope
        self.seconds += time.perf_counter() - began
        goal = batch.noise - change if self.corrects else batch.noise
        error = (batch.predicted - goal).square().mean((1, 2, 3)) * (weight.clamp(max=self.most) if self.weighs else 1)
        told = {"denoising": batch.denoising_losses().mean(), "weight": weight.mean(),
                "correction": change.square().mean().sqrt()}
        return error[batch.is_face].mean(), {name: float(value.detach()) for name, value in told.items()}

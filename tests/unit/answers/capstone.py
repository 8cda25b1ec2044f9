"""How people answer the exercises of notebook 08: what is right, and each mistake with words that only its hint holds."""

import math

import torch
from scipy import stats

from debiaslib import true_shape


def held_by_adam(steps=1):
    """Bytes for each weight of a small layer, its gradient and Adam's moments, as torch itself holds them."""
    layer = torch.nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.Adam(layer.parameters())
    for _ in range(steps):
        layer(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    return (layer.weight.nbytes + layer.weight.grad.nbytes + moments) / layer.weight.numel()


def unet_weights():
    with torch.device("meta"):
        return sum(weight.numel() for weight in true_shape.build_parts()["unet"].parameters())


def pictures_exactly(p, q):
    """With the normal's own quantiles in place of 1.96 and .84."""
    reach = 1.96 + round(stats.norm.ppf(0.8), 2)
    return reach**2 * (p * (1 - p) + q * (1 - q)) / (abs(p - 0.5) - abs(q - 0.5)) ** 2


def pictures(p, q, *, reach=2.8, fall=None):
    fall = abs(p - 0.5) - abs(q - 0.5) if fall is None else fall
    return reach**2 * (p * (1 - p) + q * (1 - q)) / fall**2


GB = unet_weights() / 1e9
WRONG = [
    ("capstone.full_training", 4 * GB, "the weights alone. What"),
    ("capstone.full_training", 8 * GB, "plain gradient descent"),
    ("capstone.full_training", 12 * GB, "and *two* moments"),
    ("capstone.full_training", 20 * GB, "one too many"),
    ("capstone.full_training", 16 * (GB + 0.2067), "stay as they are"),
    ("capstone.full_training", 16e9 * GB, "Right in bytes"),
    ("capstone.full_training", 4e9 * GB, "Those are bytes"),
    ("capstone.full_training", 16e9 * GB / 2**30, "GiB"),
    ("capstone.full_training", 2 * GB, "Four numbers of four bytes"),
    ("capstone.card_speed", 8 * (41 * 0.803 + 2.51) / 60, "asked twice a step"),
    ("capstone.card_speed", 8 * (80 * 0.803 + 2.51) / 60, "one time more"),
    ("capstone.card_speed", 8 * 82 * 0.803 / 60, "Who decodes"),
    ("capstone.card_speed", (82 * 0.803 + 2.51) / 60, "There were eight"),
    ("capstone.card_speed", 8 * (82 * 0.803 + 2.51), "all of it"),
    ("capstone.card_speed", 8 * 0.803 / 60, "a single call"),
    ("capstone.card_speed", 60 / 547, "Upside down"),
    ("capstone.card_speed", 7.5, "seconds a picture"),
    ("capstone.card_speed", 100, "one decoding at 2.51"),
    ("capstone.pictures", lambda p, q: pictures(p, q, fall=p - q), "it crosses one"),
    ("capstone.pictures", lambda p, q: pictures(p, q, reach=1.96), "every second time"),
    ("capstone.pictures", lambda p, q: pictures(p, q, reach=0.84), "The .84 alone"),
    ("capstone.pictures", lambda p, q: math.sqrt(pictures(p, q)), "did not square"),
    ("capstone.pictures", lambda p, q: 2.8**2 * p * (1 - p) / (abs(p - 0.5) - abs(q - 0.5)) ** 2, "Add its variance"),
    ("capstone.pictures", lambda p, q: 2 * pictures(p, q), "both models together"),
    ("capstone.pictures", lambda p, q: pictures(p, q) * (abs(p - 0.5) - abs(q - 0.5)), "comes in squared"),
    ("capstone.pictures", lambda p, q: pictures(p, q, reach=math.sqrt(2.8)), "as the fall is"),
    ("capstone.pictures", lambda p, q: 800.0, "over the squared fall"),
]

RIGHT = [
    ("capstone.full_training", held_by_adam() * GB),
    ("capstone.full_training", 13.75),
    ("capstone.full_training", 13.8),
    ("capstone.card_speed", 8 * (82 * 0.80327 + 2.5145) / 60),
    ("capstone.card_speed", 9.11),
    ("capstone.pictures", pictures_exactly),
    ("capstone.pictures", lambda p, q: math.ceil(pictures(p, q))),
    ("capstone.pictures", lambda p, q: round(pictures(p, q))),
]

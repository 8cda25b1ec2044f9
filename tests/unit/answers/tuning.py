"""How people answer the exercises of notebook 03: what is right, and each mistake with words that only its hint holds."""

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model

from debiaslib.indicators import KAPPA
from debiaslib.rarity import weighted_share


def strength(alpha):
    return min(1, KAPPA * alpha)


def adapter_of(inputs, outputs, *, rank):
    """What peft puts beside one layer."""
    layer = inject_adapter_in_model(LoraConfig(r=rank, target_modules=["0"]), torch.nn.Sequential(torch.nn.Linear(inputs, outputs)))
    return [weight for name, weight in layer.named_parameters() if "lora" in name]

WRONG = [
    ("tuning.adapter_weights", 320 * 320, "the layer itself, which does not learn"),
    ("tuning.adapter_weights", 8 * 320, "Count both"),
    ("tuning.adapter_weights", 64, "Neither A nor B"),
    ("tuning.adapter_weights", 320 * 320 + 8 * 640, "You added"),
    ("tuning.adapter_weights", 8 * 320 * 320, "the product"),
    ("tuning.adapter_weights", 0.05, "How many are they"),
    ("tuning.adapter_weights", 10_000, "together"),
    ("tuning.men_a_batch", 3.2, "without weights"),
    ("tuning.men_a_batch", 8, "full strength"),
    ("tuning.men_a_batch", 16 * 0.2 * (1 + 0.05 * 1.5), "You took alpha"),
    ("tuning.men_a_batch", 0.35, "of 16 faces is it"),
    ("tuning.men_a_batch", 35, "an epoch of 100"),
    ("tuning.men_a_batch", 4, "does not multiply"),
    ("tuning.men_a_batch", 7, "First the strength"),
]

RIGHT = [
    ("tuning.adapter_weights", 5120),
    ("tuning.adapter_weights", sum(weight.numel() for weight in adapter_of(320, 320, rank=8))),
    ("tuning.men_a_batch", 5.6),
    ("tuning.men_a_batch", 16 * weighted_share(1 + strength(0.05) * (np.where(np.arange(100) < 20, 2.5, 0.625) - 1), np.arange(100) < 20)),
]

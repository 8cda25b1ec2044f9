"""Small steps that every training here shares: a clipped update, a falling rate, averaged weights in a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from diffusers.training_utils import EMAModel


def descend(optimizer, loss: torch.Tensor, module: torch.nn.Module) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if PartialState().num_processes > 1:
        average_gradients(module)
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def average_gradients(module: torch.nn.Module) -> None:
    """The mean gradient over processes, in one message (DDP would want a forward of the whole, which a ModuleDict lacks)."""
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    mean = reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="mean")
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def cosine(step: int, steps: int, warmup: int = 50) -> float:
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(1.0, step / steps))))


@contextmanager
def training_attention(*networks: torch.nn.Module) -> Iterator[None]:
    """Plain attention on CPUs: over the tiny model's 64 places a step takes a sixth less than with torch's fused kernel."""
    before = [(network, dict(network.attn_processors)) for network in networks if network.device.type == "cpu"]
    try:
        for network, _ in before:
            network.set_default_attn_processor()
        yield
    finally:
        for network, processors in before:
            network.set_attn_processor(processors)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class Shadow(torch.nn.Module):
    """The averaged parameters as a module, so that one checkpoint file holds them too."""

    def __init__(self, average: EMAModel):
        super().__init__()
        average.shadow_params = [torch.nn.Parameter(p, requires_grad=False) for p in average.shadow_params]
        self.params = torch.nn.ParameterList(average.shadow_params)

"""Checkpoints in safetensors: what a killed run needs to continue as if nothing had happened.

accelerate's own `save_state` writes pickles (optimiser, random states), which this kit never does. Random numbers need
no saving here: every training step draws from a generator seeded by `(seed, step)`, see `step_generator`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialized

from debiaslib.atomic import replacing
from debiaslib.errors import InputError


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator that depends on `(seed, step)` alone, so that a resumed run draws what the first would have drawn."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def save(path: Path, *, step: int, modules: Mapping[str, torch.nn.Module],
         optimizers: Mapping[str, torch.optim.Optimizer] | None = None, notes: Mapping | None = None) -> None:
    """Write modules, Adam states and the step to one file, atomically.

    `notes` is any JSON-serialisable mapping (configuration, curves) kept in the file's metadata.
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in (optimizers or {}).items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"step": str(step), "notes": json.dumps(dict(notes or {}))})


def save_file(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """As safetensors' own, which writes under a name of chance beside `path`, where a process that is killed leaves it."""
    path.write_bytes(serialized(dict(tensors), metadata=dict(metadata)))


def load(path: Path, *, modules: Mapping[str, torch.nn.Module],
         optimizers: Mapping[str, torch.optim.Optimizer] | None = None) -> tuple[int, dict]:
    """Restore what `save` wrote; returns `(step, notes)`, or `(0, {})` when there is no file.

    Raises RuntimeError (from torch) when the file belongs to another configuration.
    """
    if not path.exists():
        return 0, {}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    for name, module in modules.items():
        module.load_state_dict(_under(tensors, name))
    for name, optimizer in (optimizers or {}).items():
        _restore_optimizer(optimizer, _under(tensors, name))
    return int(metadata["step"]), json.loads(metadata["notes"])


def notes(path: Path) -> dict:
    """The notes alone (configuration, curves) of what `save` wrote."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["notes"])


def check_settings(path: Path, settings: Mapping, *, option: str) -> None:
    """Raise InputError where the checkpoint in `path` is of a training of other settings; `option` leads elsewhere."""
    settings = json.loads(json.dumps(dict(settings)))
    if path.exists() and notes(path).get("config", settings) != settings:
        raise InputError(f"{path}: belongs to a training of other settings. Give another {option}, or delete it.")


def _under(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, torch.Tensor]) -> None:
    state: dict[int, dict] = {}
    for key, value in flat.items():
        index, field = key.split("/", 1)
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

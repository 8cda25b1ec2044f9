"""The one training loop: a LoRA adapter on the U-Net, an indicator in the loss, accelerate underneath, resumable."""

import argparse
import json
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from debiaslib import checkpoints, faces, rarity
from debiaslib.atomic import read_record, write_whole
from debiaslib.descent import training_attention
from debiaslib.errors import InputError
from debiaslib.face_axes import axes_hash, load_axes
from debiaslib.face_embedding import embed_faces
from debiaslib.indicators import INDICATORS, WANTED, Batch, Evidence, NoIndicator, build_indicator, needs_of
from debiaslib.presets import (
    Preset,
    check_seed,
    data_root,
    decode_latents,
    encode_latents,
    fast_precision,
    get_preset,
    in_bf16,
    load_pipeline,
    sha256,
)

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
RECORD_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
SAMPLES = "samples"
"""Where a training's own pictures lie in its folder."""
MORE_FACES = 600
"""How many unlabelled faces are looked at."""

EPOCHS = 500_009
"""Keeps the random numbers of epochs apart from those of steps."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One training run. Defaults are S1's (METHOD in the README) where the preset does not say otherwise.

    `natural_share` is the number of natural pictures for every face of a batch; they reach the indicator and never the
    denoising loss. `prompt_dropout` keeps the unconditional branch of classifier-free guidance in training. The adapter is
    the mean of those after the last `averaged` part of the updates (Polyak and Juditsky 1992); 0 is the last one alone.
    """

    indicator: str = "literal"
    alpha: float = 0.0
    steps: int
    batch: int
    accumulation: int
    learning_rate: float
    lora_rank: int
    lora_alpha: int
    lora_targets: tuple[str, ...] = ("to_q", "to_v")
    prompt: str
    natural_share: float = 0.25
    natural_count: int = 100
    averaged: float = 0.0
    weight_decay: float = 1e-2
    clip_value: float = 1.0
    prompt_dropout: float = 0.1
    precision: str = "auto"
    checkpointing: bool = False
    seed: int = 0

    @classmethod
    def of(cls, preset: Preset, **changes) -> "FinetuneConfig":
        """The preset's settings, with changes; a change of None means the preset's own."""
        settings = {"steps": preset.train_steps, "batch": preset.batch, "accumulation": preset.accumulation,
                    "learning_rate": preset.learning_rate, "lora_rank": preset.lora_rank, "lora_alpha": preset.lora_alpha,
                    "lora_targets": preset.lora_targets, "averaged": preset.averaged, "checkpointing": preset.checkpointing,
                    "prompt": preset.prompt}
        return cls(**settings | {name: value for name, value in changes.items() if value is not None})

    def __post_init__(self):
        check_seed(self.seed)
        if self.steps < 1 or not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"steps {self.steps} and learning rate {self.learning_rate:g}: at least one step, at a rate above 0.")


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Latents of the training faces, both as they are and mirrored, and of the natural pictures.

    faces: float32 (2, N, C, h, w); natural: float32 (M, C, h, w); `evidence` is what indicators may study. Its is_male, bool
    (N,) or None, serves reports and the group-wise fit as well; no indicator but `oracle` reads it.
    """

    faces: torch.Tensor
    natural: torch.Tensor
    evidence: Evidence = Evidence()
    embed_s: float = 0.0

    @property
    def is_male(self) -> np.ndarray | None:
        """The training faces' group, if it is known."""
        return self.evidence.is_male


def prepare_set(pipe: StableDiffusionPipeline, pixels: np.ndarray, *, natural: np.ndarray,
                is_male: np.ndarray | None = None, needs: frozenset[str] = frozenset(), reference: np.ndarray | None = None,
                more: np.ndarray | None = None, drawn: np.ndarray | None = None, progress: bool = False) -> TrainingSet:
    """Encode uint8 (N, H, W, 3) faces and (M, H, W, 3) natural pictures once, so that training never runs the autoencoder.

    `needs` names what the indicators want to study (`indicators.needs_of`); `reference` is uint8 (R, H, W, 3) or None, and so
    are `more` faces of any mix and the pictures that a first training has `drawn`.
    """
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    both = torch.stack([encode_latents(pipe.vae, part, progress=progress) for part in (pixels, mirrored)])
    began = time.perf_counter()
    wanted = {"embedding": pixels, "natural": natural, "reference": reference, "drawn": drawn}
    found = {name: embed_faces(part) for name, part in wanted.items() if name in needs and part is not None}
    if "axes" in needs:
        found["axes"] = load_axes()
    if "decoded" in needs and reference is not None:
        found |= {"decoded": (embed_latents(pipe, both[0]), embed_decoded(pipe, reference)),
                  "more": None if more is None else embed_decoded(pipe, more)}
    return TrainingSet(faces=both, natural=encode_latents(pipe.vae, natural), evidence=Evidence(**found, is_male=is_male),
                       embed_s=time.perf_counter() - began if found else 0.0)


def embed_latents(pipe: StableDiffusionPipeline, latents: torch.Tensor) -> np.ndarray:
    """Embeddings (N, D) of the faces that the decoder makes of latents (N, C, h, w), as generated ones come out of it."""
    return embed_faces(decode_latents(pipe.vae, latents))


def embed_decoded(pipe: StableDiffusionPipeline, pixels: np.ndarray) -> np.ndarray:
    """The same of uint8 (N, H, W, 3) faces, after a pass through the whole autoencoder."""
    return embed_latents(pipe, encode_latents(pipe.vae, pixels))


def finetune(pipe: StableDiffusionPipeline, data: TrainingSet, *, config: FinetuneConfig, out: Path, told: dict | None = None,
             progress: bool = True, save_every: int = 200) -> dict:
    """Train an adapter and write it to `out` as `pytorch_lora_weights.safetensors`, which plain diffusers loads.

    A killed run continues from its last checkpoint and ends as it would have ended. `pipe` is left without the adapter, whatever
    happens. Returns the record that `run.json` holds: configuration, what else is `told` of the run (its preset, its faces), curve,
    fit to the training faces, seconds. Raises InputError when the checkpoint in `out` is of another configuration, or of a run of
    which something else was told.
    """
    settings = asdict(config) | weighed_by(config.indicator) | (told or {})
    checkpoints.check_settings(out / CHECKPOINT_FILE, settings, option="--out")
    run = begin(pipe, data, config=config)
    try:
        return _descend(run, out=out, settings=settings, told=told or {}, progress=progress, save_every=save_every)
    finally:
        end(run)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training under way: `begin` makes it, `update` takes it a step further, `end` takes the adapter off again."""

    unet: torch.nn.Module
    indicator: NoIndicator
    optimizer: torch.optim.Optimizer
    weights: list[torch.nn.Parameter]
    data: TrainingSet
    prompts: torch.Tensor
    scheduler: object
    chances: np.ndarray
    config: FinetuneConfig
    state: PartialState


def begin(pipe: StableDiffusionPipeline, data: TrainingSet, *, config: FinetuneConfig) -> Run:
    """Put a fresh adapter on `pipe`, let the indicator study the set, and encode the prompt, once.

    Under `accelerate launch` or `torchrun` every process makes the same run. Raises InputError when an update has too few
    faces for them.
    """
    torch.manual_seed(config.seed)
    state = launched()
    _portions(state, config)
    unet = add_adapter(pipe.unet, config)
    indicator = build_indicator(config.indicator, alpha=config.alpha, latent_channels=data.faces.shape[2], seed=config.seed)
    try:
        indicator.study(data.evidence)
    except BaseException:
        take_off(unet)
        raise
    indicator.to(unet.device)
    weights = [weight for module in (unet, indicator) for weight in module.parameters() if weight.requires_grad]
    if state.num_processes > 1:
        for weight in weights:
            weight.data.copy_(broadcast(weight.data))
    optimizer = torch.optim.AdamW(weights, config.learning_rate, betas=(0.9, 0.999), weight_decay=config.weight_decay,
                                  fused=True)
    return Run(unet=unet, indicator=indicator, optimizer=optimizer, weights=weights, data=data, scheduler=pipe.scheduler,
               chances=indicator.weights(data.faces.shape[1]), config=config, state=state,
               prompts=encode_prompts(pipe, config.prompt).to(unet.device))


def launched() -> PartialState:
    """The processes of this run, as the launcher told them; one, if there was none.

    Not an Accelerator: that fixes a precision for the life of the process, which is ours to choose.
    """
    return PartialState(cpu=not torch.cuda.is_available())


def end(run: Run) -> None:
    """Take the adapter off; the U-Net is as it was before `begin`."""
    take_off(run.unet)


def take_off(unet: torch.nn.Module) -> None:
    """Undo `add_adapter`."""
    unet.eval().disable_gradient_checkpointing()
    unet.delete_adapters("default")


def _descend(run: Run, *, out: Path, settings: dict, told: dict, progress: bool, save_every: int) -> dict:
    began, checkpoint, config, data = time.perf_counter(), out / CHECKPOINT_FILE, run.config, run.data
    adapter = torch.nn.ParameterList(weight for weight in run.unet.parameters() if weight.requires_grad)
    average, late = AveragedModel(adapter), config.steps - round(config.averaged * config.steps)
    state = {"modules": {"adapter": _AdapterState(run.unet), "average": average, "indicator": run.indicator},
             "optimizers": {"adam": run.optimizer}}
    start, notes = checkpoints.load(checkpoint, **state)
    curve, spent = notes.get("curve", []), notes.get("seconds", 0.0)
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="fine-tune", leave=False,
               disable=not (progress and run.state.is_main_process))
    with multiplied_as_held(run.unet, config):
        for step in bar:
            logs = update(run, step)
            if step >= late:
                average.update_parameters(adapter)
            curve.append({"step": step, **{name: round(value, 5) for name, value in logs.items()}})
            bar.set_postfix({name: f"{value:.3f}" for name, value in logs.items()})
            if run.state.is_main_process and (step + 1) % save_every == 0 and step + 1 < config.steps:
                seconds = spent + time.perf_counter() - began
                checkpoints.save(checkpoint, step=step + 1, notes={"config": settings, "curve": curve, "seconds": seconds}, **state)
    if average.n_averaged:
        adapter.load_state_dict(average.module.state_dict())
    seconds = spent + time.perf_counter() - began
    fit = fit_loss(run.unet, data, run.prompts[:1], run.scheduler, precision=config.precision)
    record = {"config": asdict(config), **weighed_by(config.indicator), **told, "train_s": round(seconds, 2), "embed_s": round(data.embed_s, 2),
              "fit_loss": round(fit, 5), **_weighing(run.indicator.weights(data.faces.shape[1]), data.is_male),
              "curve": curve}
    if run.state.is_main_process:
        save_adapter(run.unet, out, record)
        checkpoint.unlink(missing_ok=True)
    return record


def frozen_factors(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    """What autocast casts and training leaves alone: the frozen weights of convolutions and linear layers."""
    layers = [module for module in unet.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    return [weight for layer in layers for weight in layer.parameters(recurse=False) if not weight.requires_grad]


@contextmanager
def multiplied_as_held(unet: torch.nn.Module, config: FinetuneConfig) -> Iterator[None]:
    """Hold the `frozen_factors` in bfloat16 for a while, if training multiplies in it.

    Autocast would cast each of them anew at every step, to these very numbers: the results are the same to the bit. On a GPU
    the originals wait in main memory.
    """
    frozen, device, originals = frozen_factors(unet), unet.device, []
    try:
        for weight in frozen if in_bf16(device, precision=config.precision) else ():
            originals.append(weight.data.cpu())
            weight.data = weight.data.to(torch.bfloat16)
        yield
    finally:
        for weight, original in zip(frozen, originals, strict=False):
            weight.data = original.to(device)


def weighed_by(indicator: str) -> dict:
    """What decides the weights beyond a training's own settings: a training of before is not continued with others."""
    if "axes" not in (needs := needs_of([indicator])):
        return {}
    name, config = ("density_ratio", rarity.ReferenceConfig()) if "reference" in needs else ("density", rarity.DensityConfig())
    return {name: asdict(config) | {"axes": axes_hash()}}


def _weighing(weights: np.ndarray, is_male: np.ndarray | None) -> dict[str, float | None]:
    """What the weights do to the set: effective sample size over N, weight on the top 1 %, share of men that is aimed at."""
    return {"ess": round(rarity.effective_share(weights), 4), "top_share": round(rarity.top_share(weights), 4),
            "p_eff": None if is_male is None else round(rarity.weighted_share(weights, is_male), 4)}


def add_adapter(unet: torch.nn.Module, config: FinetuneConfig) -> torch.nn.Module:
    """Freeze `unet`, give it a fresh LoRA adapter, which changes nothing yet, and return it in training mode."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(config.lora_targets),
                                init_lora_weights="gaussian"))
    for layer in unet.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.cast_input_dtype_enabled = False  # to fp32, only for autocast to cast it back to these very numbers
    if config.checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train()


class _AdapterState:
    """The adapter's weights alone behind the two calls a checkpoint makes of a module."""

    def __init__(self, unet: torch.nn.Module):
        self._weights = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self._weights)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if state.keys() != self._weights.keys():
            raise InputError("checkpoint: belongs to another adapter shape. Give another --out, or delete that checkpoint.")
        for name, weight in self._weights.items():
            weight.copy_(state[name])


@torch.no_grad()
def encode_prompts(pipe: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    """Text embeddings of the prompt and of the empty prompt, (2, length, width)."""
    tokens = pipe.tokenizer([prompt, ""], padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True,
                            return_tensors="pt").input_ids
    return pipe.text_encoder(tokens.to(pipe.text_encoder.device))[0].float()


def update(run: Run, step: int) -> dict[str, float]:
    """One update over `accumulation` batches; returns what is logged. Every random number depends on (seed, step) only, so
    that runs which differ in alpha or indicator see the same faces, noise and timesteps, and a resumed run the same as an
    unbroken one. Several processes share an update out among themselves, so that it is the same whatever their number."""
    config, device = run.config, run.unet.device
    generator = checkpoints.step_generator(config.seed, step)
    turns, mine = _portions(run.state, config)
    totals: dict[str, float] = {}
    for turn in range(config.accumulation):
        chosen = faces_drawn(run.chances, seed=config.seed, first=(step * config.accumulation + turn) * config.batch,
                             count=config.batch)
        drawn = _draw(run.data, config, generator, index=chosen, needs_natural=run.indicator.needs_natural)
        if turn not in turns:
            continue
        share = drawn[1][mine].sum().item() / config.batch / config.accumulation
        latents, is_face, noise, timesteps, dropped = (part[mine].to(device) for part in drawn)
        with training_attention(run.unet):  # the backward pass too: checkpointing computes forward passes in it
            with fast_precision(device, precision=config.precision):
                noisy = run.scheduler.add_noise(latents, noise, timesteps)
                predicted = run.unet(noisy, timesteps, run.prompts[dropped]).sample
            loss, logs = run.indicator.loss(Batch(predicted=predicted.float(), noise=noise, is_face=is_face))
            (loss * share).backward()
        totals = {name: totals.get(name, 0.0) + value * share for name, value in logs.items()}
    if run.state.num_processes > 1:
        totals = _add_up(run.weights, totals)
    torch.nn.utils.clip_grad_value_(run.weights, config.clip_value)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return totals


def _portions(state: PartialState, config: FinetuneConfig) -> tuple[range, slice]:
    """Which of an update's batches are this process's, and which part of each: whole batches as far as they go round."""
    count, rank = state.num_processes, state.process_index
    groups = math.gcd(count, config.accumulation)
    if count // groups > config.batch:
        raise InputError(f"{count} processes: cannot share out updates of {config.accumulation} times {config.batch} faces "
                         "among them. Launch fewer.")
    return range(rank % groups, config.accumulation, groups), slice(rank // groups, None, count // groups)


def _add_up(weights: list[torch.nn.Parameter], totals: dict[str, float]) -> dict[str, float]:
    """Gradients and logs summed over the processes, in one message."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), gradients[0].new_tensor(list(totals.values()))])
    *summed, logs = reduce(flat, "sum").split([*(gradient.numel() for gradient in gradients), len(totals)])
    for gradient, total in zip(gradients, summed, strict=True):
        gradient.copy_(total.view_as(gradient))
    return dict(zip(totals, logs.tolist(), strict=True))


def faces_drawn(chances: np.ndarray, *, seed: int, first: int, count: int) -> torch.Tensor:
    """Which training faces come up at places `first` to `first + count` of a run, int64 (count,).

    An epoch is N draws in which face i comes up chances_i times, rounded up or down by systematic resampling (Kitagawa 1996)
    with mean chances_i, shuffled. Equal chances make a data loader's shuffled epochs. `chances` (N,) > 0, of mean 1.
    """
    size = len(chances)
    return torch.cat([_epoch(chances, seed, number)[max(0, first - number * size):first + count - number * size]
                      for number in range(first // size, (first + count - 1) // size + 1)])


def _epoch(chances: np.ndarray, seed: int, number: int) -> torch.Tensor:
    generator = checkpoints.step_generator(seed, EPOCHS + number)
    places = np.arange(len(chances)) + 1 - torch.rand(1, generator=generator).item()
    order = torch.randperm(len(chances), generator=generator)
    rows = np.searchsorted(np.cumsum(chances[order.numpy()]), places).clip(max=len(chances) - 1)
    return order[torch.as_tensor(rows)][torch.randperm(len(chances), generator=generator)]


def _draw(data: TrainingSet, config: FinetuneConfig, generator: torch.Generator, *, index: torch.Tensor,
          needs_natural: bool) -> tuple[torch.Tensor, ...]:
    """Faces first, natural pictures after them: the faces' numbers are the same whether or not others follow."""
    count = config.batch
    flips = torch.randint(2, (count,), generator=generator)
    latents = data.faces[flips, index]
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = _timesteps(count, generator)
    dropped = (torch.rand(count, generator=generator) < config.prompt_dropout).long()
    others = _others(config, generator) if needs_natural else 0
    if others:
        chosen = data.natural[torch.randint(len(data.natural), (others,), generator=generator)]
        latents, noise = torch.cat([latents, chosen]), torch.cat([noise, torch.randn(chosen.shape, generator=generator)])
        timesteps = torch.cat([timesteps, _timesteps(others, generator)])
        dropped = torch.cat([dropped, torch.zeros(others, dtype=torch.long)])
    is_face = torch.arange(len(latents)) < count
    return latents, is_face, noise, timesteps, dropped


def _timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Each uniform over the 1,000, together one in every `count`-th part of them: what a face will be is decided early, and
    a batch without early timesteps would say nothing of it. One alone is drawn as in S1."""
    parts = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return (parts * (1000 / count)).long().clamp(max=999)


def _others(config: FinetuneConfig, generator: torch.Generator) -> int:
    """How many natural pictures join this batch: the share of the faces, its fraction by chance (S1's batch is one face)."""
    exact = config.batch * config.natural_share
    return int(exact) + int(torch.rand(1, generator=generator).item() < exact - int(exact))


@torch.no_grad()
def fit_loss(unet: torch.nn.Module, data: TrainingSet, prompt: torch.Tensor, scheduler, *, draws: int | None = None,
             batch: int = 100, precision: str = "auto") -> float:
    """Denoising loss on the training faces themselves: fixed noise and timesteps, averaged within groups, then over them.

    Faces take turns until there are `draws`: by default 400, or one each if there are more. It tells how much a run has
    adapted: an adapter that learnt less looks fairer when the base model was fair.
    """
    unet.eval()
    generator = torch.Generator().manual_seed(20_250)
    count, at_once = data.faces.shape[1], max(1, 100 * 16**2 // math.prod(data.faces.shape[3:]))
    draws = draws or max(400, count)
    index = torch.arange(draws) % count
    losses = []
    for part in index.split(batch):
        latents = data.faces[0, part]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (len(part),), generator=generator)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        for few in torch.arange(len(part)).split(at_once):
            with fast_precision(unet.device, precision=precision):
                predicted = unet(noisy[few].to(unet.device), timesteps[few].to(unet.device),
                                 prompt.expand(len(few), -1, -1)).sample
            losses.append((predicted.float().cpu() - noise[few]).square().mean((1, 2, 3)))
    losses = torch.cat(losses).numpy()
    group = np.zeros(draws, bool) if data.is_male is None else data.is_male[index.numpy()]
    return float(np.mean([losses[group == value].mean() for value in np.unique(group)]))


def save_adapter(unet: torch.nn.Module, out: Path, record: dict) -> None:
    """Adapter and record, each atomically. The metadata carries lora_alpha: else diffusers would assume alpha = rank."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "adapter.partial"
    shutil.rmtree(partial, ignore_errors=True)
    StableDiffusionPipeline.save_lora_weights(
        partial, unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict())
    _put_in_order(partial / ADAPTER_FILE)
    os.replace(partial / ADAPTER_FILE, out / ADAPTER_FILE)
    partial.rmdir()
    write_json(out / RECORD_FILE, record)


def ended(out: Path) -> dict | None:
    """The record of the training that ended in `out`; None if none did. A kill right then may have left its checkpoint, of
    no more use."""
    record = out / RECORD_FILE
    if not record.exists():
        return None
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return read_record(record)


def _put_in_order(path: Path) -> None:
    """Sort what the safetensors file at `path` says of itself, in place: peft and safetensors leave it in an order of
    chance, and the same training is to give the same file. Tensors stay where they are."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        told = json.loads(header["__metadata__"]["lora_adapter_metadata"])
        told = {name: sorted(value) if name.endswith("target_modules") else value for name, value in told.items()}
        header["__metadata__"]["lora_adapter_metadata"] = json.dumps(told, indent=2, sort_keys=True)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()
        if len(text) <= size:  # it always is: the same words
            file.seek(8)
            file.write(text.ljust(size))


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def training_rows(source: Path | str, *, split: str | None) -> pd.DataFrame:
    """The labelled faces of `source`: those of `split`, if there is such a column. Raises InputError for none, or bad labels."""
    frame = faces.read_metadata(source)
    if split and "split" in frame:
        frame = frame[frame["split"] == split]
    if frame.empty:
        raise InputError(f"{source}: no row of split {split!r}. Give --split, or '' for all rows." if split else
                         f"{source}: {faces.METADATA} has no rows, so there are no faces.")
    try:
        faces.gender_of(frame)
    except InputError as error:
        raise InputError(f"{source}/{faces.METADATA}: {error}") from None
    return frame


def load_training_faces(source: Path | str, *, split: str | None, ratio: float, size: int, seed: int,
                        image_size: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Exactly `size` faces of male:female `ratio`: frame, uint8 (size, H, W, 3), is_male (size,)."""
    frame = training_rows(source, split=split)
    frame = frame.iloc[faces.draw_subset(frame, ratio=ratio, size=size, seed=seed)]
    pixels = faces.read_pixels(source, frame["file_name"].tolist(), size=image_size)
    return frame, pixels, faces.gender_of(frame)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib train`."""
    parser.add_argument("--preset", default="tiny", help="tiny (two CPU cores) or sd15 (one GPU); default tiny")
    parser.add_argument("--faces", type=Path, default=None, metavar="DIR|ZIP",
                        help="ImageFolder with metadata.csv; default the face pool")
    parser.add_argument("--split", default="finetune",
                        help="rows of this split only, if there is such a column; default finetune")
    parser.add_argument("--ratio", type=float, default=1.0, help="male:female of the training set: .25 is 20:80; default 1")
    parser.add_argument("--train-size", type=int, default=100, help="faces in the training set; default 100, as in S1")
    parser.add_argument("--alpha", type=float, default=0.0,
                        help="intensity of the indicator, 0 to 1; S1 used 0, .01, .05, .1")
    parser.add_argument("--indicator", default="literal", choices=sorted(INDICATORS),
                        help="what reads the latents; default literal")
    add_reference(parser)
    parser.add_argument("--first", type=Path, default=None, metavar="DIR",
                        help="for the indicator `recalibrated`: the folder of a training by `reference` on the same faces, with "
                             "pictures that `generate --model DIR -n 400 --seed 1000000 --out DIR/samples` drew with it (other seeds "
                             "than those that you measure later); `mix` then finds the place between both")
    parser.add_argument("--steps", type=int, default=None, help="updates; default the preset's")
    parser.add_argument("--learning-rate", type=float, default=None, help="default the preset's")
    parser.add_argument("--checkpointing", action="store_true", default=None,
                        help="compute activations twice instead of keeping them: less memory, more time, the same adapter")
    parser.add_argument("--seed", type=int, default=0, help="of subset, weights, noise and timesteps; default 0")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where adapter and run.json go")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished run of other settings in --out")


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Options that `train` and `sweep` share: the balanced reference, and faces of any mix."""
    parser.add_argument("--reference", type=Path, default=None, metavar="DIR|ZIP",
                        help="a small balanced face set for the indicator `reference`, the same kind of pictures as the training faces: "
                             "what else differs would be weighed as well; its labels only serve to draw it evenly")
    parser.add_argument("--unlabelled", type=Path, default=None, metavar="DIR|ZIP",
                        help=f"faces of any mix, whose labels nobody reads ({MORE_FACES} rows of split pretrain, if there is such a "
                             "column): with them `recalibrated` tells groups apart that it has no name for")
    parser.add_argument("--reference-size", type=int, default=100, help="faces drawn from it, half and half; default 100")


def check_reference(needs: frozenset[str], source: Path | None) -> None:
    """Refuse early what would fail late: an indicator that needs a reference where none is given."""
    if "reference" in needs and source is None:
        raise InputError(f"indicator 'reference': needs {WANTED['reference']}.")


def led(given: dict) -> dict:
    """What a training was given, its paths by where they lead, whatever folder the command was run in."""
    return {name: str(Path(value).absolute()) if name in ("source", "reference", "unlabelled", "first") else value for name, value in given.items()}


def check_sizes(needs: frozenset[str], *, size: int, reference_size: int) -> None:
    """Refuse early what would fail late: sets in which nobody can be told to be rare."""
    if "embedding" in needs and size < 10:
        raise InputError(f"--train-size {size}: an indicator that weighs faces by the others' wants 10 or more.")
    if "reference" in needs and reference_size < 10:
        raise InputError(f"--reference-size {reference_size}: 10 or more are wanted to compare with.")


def check_first(needs: frozenset[str], first: Path | None, given: dict, *, config: FinetuneConfig) -> None:
    """Refuse early what cannot be a first training: none, one without pictures, by another indicator, on other faces, or with other
    settings than `config`, those of the second."""
    if "drawn" not in needs:
        return
    if first is None or not (first / ADAPTER_FILE).exists():
        found = "" if first is None else f" {first} holds no adapter."
        raise InputError(f"indicator 'recalibrated': needs {WANTED['drawn']}.{found} Train with --indicator reference --out DIR, "
                         "then `debiaslib generate --model DIR -n 400 --seed 1000000 --out DIR/samples`.")
    record = read_record(first / RECORD_FILE)
    if record["config"]["indicator"] != "reference" or "part" in record:
        raise InputError(f"{first}: was not trained by `reference`. Give --first a training with --indicator reference.")
    asked = asdict(replace(config, indicator="reference")) | weighed_by("reference")
    before, given = led(record.get("subset", {})), led(given)
    other = [name for name, value in before.items() if name not in ("unlabelled", "first") and given.get(name) != value]
    other += [name for name, value in json.loads(json.dumps(asked)).items() if (record["config"] | record).get(name) != value]
    if other:
        raise InputError(f"{first}: was trained with another {', '.join(other)}. Train it again with what this training is given.")
    drawn_names(first)


def load_drawn(model: Path, *, image_size: int) -> np.ndarray:
    """The pictures uint8 (K, H, W, 3) that the adapter in `model` drew, from its `samples`. Raises as `drawn_names` does."""
    return faces.read_pixels(model / SAMPLES, drawn_names(model), size=image_size)


def drawn_names(model: Path) -> list[str]:
    """The files in `samples` that the adapter in `model` drew. Raises InputError where there are none, or another adapter's."""
    samples = model / SAMPLES
    names = faces.read_metadata(samples)["file_name"].tolist()
    note = samples / "generate.json"
    if note.exists() and sha256(model / ADAPTER_FILE)[:12] not in read_record(note)["settings"]["model"]:
        raise InputError(f"{samples}: drawn by another model than the one in {model} now. Draw them anew with `debiaslib generate "
                         f"--model {model} --overwrite`.")
    return names


def load_reference(source: Path | str | None, *, size: int, seed: int, image_size: int) -> np.ndarray | None:
    """`size` faces of the reference, evenly drawn, as uint8 (size, H, W, 3): the split `reference`, if there is one.

    A set without a gender column is taken to be balanced already (balance by construction) and drawn from as it is.
    """
    if source is None:
        return None
    frame = faces.read_metadata(source)
    if "split" in frame and (frame["split"] == "reference").any():
        frame = frame[frame["split"] == "reference"]
    if {"gender", "perceived_gender"} & set(frame):
        try:
            rows = faces.draw_subset(frame, ratio=1.0, size=size, seed=seed)
        except InputError as error:
            raise InputError(f"--reference {source}, --reference-size {size}: {error}") from None
    else:
        if len(frame) < size:
            raise InputError(f"{source}: {len(frame)} faces, but a reference of {size} was asked for. "
                             "Give --reference-size.")
        rows = np.random.default_rng(seed).choice(len(frame), size, replace=False)
    return faces.read_pixels(source, frame.iloc[rows]["file_name"].tolist(), size=image_size)


def load_unlabelled(source: Path | str | None, *, image_size: int) -> np.ndarray | None:
    """`MORE_FACES` faces of `source`, or all if there are fewer, uint8 (N, H, W, 3); of split `pretrain`, if there is one.

    Raises InputError for fewer than 10: they are to say where groups lie.
    """
    if source is None:
        return None
    frame = faces.read_metadata(source)
    if "split" in frame and (frame["split"] == "pretrain").any():
        frame = frame[frame["split"] == "pretrain"]
    if len(frame) < 10:
        raise InputError(f"{source}: {len(frame)} faces. Give --unlabelled 10 or more, {MORE_FACES} are better.")
    names = frame["file_name"].sample(min(MORE_FACES, len(frame)), random_state=0)
    return faces.read_pixels(source, names.tolist(), size=image_size)


def load_set(pipe: StableDiffusionPipeline, preset: Preset, given: dict, *, needs: frozenset[str], config: FinetuneConfig,
             progress: bool = False) -> tuple[pd.DataFrame, TrainingSet]:
    """The frame of the training faces and what is trained on, from what `run.json` says was `given`."""
    size = preset.image_size
    frame, pixels, is_male = load_training_faces(image_size=size, **{name: given[name] for name in ("source", "split", "ratio", "size", "seed")})
    reference = load_reference(given.get("reference"), size=given.get("reference_size", 0), seed=given["seed"], image_size=size)
    natural = faces.natural_images(size=size, count=config.natural_count, seed=0)
    drawn = load_drawn(Path(given["first"]), image_size=size) if "drawn" in needs else None
    return frame, prepare_set(pipe, pixels, natural=natural, is_male=is_male, needs=needs, reference=reference, drawn=drawn,
                              more=load_unlabelled(given.get("unlabelled"), image_size=size), progress=progress)


def run(args: argparse.Namespace) -> int:
    """`debiaslib train`."""
    preset = get_preset(args.preset)
    source = args.faces or data_root() / "faces"
    config = FinetuneConfig.of(preset, indicator=args.indicator, alpha=args.alpha, steps=args.steps, seed=args.seed,
                               learning_rate=args.learning_rate, checkpointing=args.checkpointing)
    build_indicator(config.indicator, alpha=config.alpha)
    needs = needs_of([config.indicator])
    check_reference(needs, args.reference)
    check_sizes(needs, size=args.train_size, reference_size=args.reference_size)
    subset = {"source": str(source), "split": args.split, "ratio": args.ratio, "size": args.train_size, "seed": args.seed}
    given = subset | ({"reference": str(args.reference), "reference_size": args.reference_size} if args.reference else {})
    given |= {"unlabelled": str(args.unlabelled)} if args.unlabelled and "decoded" in needs else {}
    given = led(given | ({"first": str(args.first)} if "drawn" in needs and args.first else {}))
    check_first(needs, args.first, given, config=config)
    faces.draw_subset(training_rows(source, split=args.split), ratio=args.ratio, size=args.train_size, seed=args.seed)
    if _finished(args.out, config, given, overwrite=args.overwrite):
        print(f"{args.out}: already trained with these settings; nothing to do (--overwrite trains again).")
        return 0
    if args.overwrite:
        (args.out / CHECKPOINT_FILE).unlink(missing_ok=True)
    pipe = load_pipeline(preset)
    frame, data = load_set(pipe, preset, given, needs=needs, config=config, progress=sys.stderr.isatty())
    record = finetune(pipe, data, config=config, out=args.out, told={"preset": preset.name, "subset": given}, progress=sys.stderr.isatty())
    if not launched().is_main_process:
        return 0
    record |= {"adapter_sha256": sha256(args.out / ADAPTER_FILE), "command": "debiaslib " + shlex.join(sys.argv[1:])}
    write_json(args.out / RECORD_FILE, record)
    write_whole(args.out / "training_faces.csv", frame.to_csv(index=False).encode())
    men, women = data.is_male.sum(), (~data.is_male).sum()
    print(f"{args.out / ADAPTER_FILE}: {men} men and {women} women, {config.steps} steps in "
          f"{record['train_s']:.0f} s, fit {record['fit_loss']:.4f}; weights: effective sample {record['ess']:.2f}, "
          f"male share aimed at {record['p_eff']:.2f}")
    return 0


def _finished(out: Path, config: FinetuneConfig, subset: dict, *, overwrite: bool) -> bool:
    """Whether `out` holds this very run; InputError if it holds another one."""
    found, asked = None if overwrite else ended(out), json.loads(json.dumps(asdict(config)))
    if found is None:
        return False
    other = any(asked.get(name) != value for name, value in found["config"].items()) or led(found.get("subset", subset)) != led(subset)
    other |= any(found.get(name) != value for name, value in weighed_by(config.indicator).items())
    if other or "part" in found:  # the latter of a mix of two trainings
        raise InputError(f"{out}: holds a finished run of other settings. Give another --out, or --overwrite.")
    return "adapter_sha256" in found and (out / ADAPTER_FILE).exists()

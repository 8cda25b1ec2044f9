"""Benchmarks: what is done here against what a user would otherwise run, measured side by side, in turn.

`python -m debiaslib.bench` writes a table with the columns name, ours, other, ratio, goal (medians of seconds, or bytes;
ratio = ours / other, to be at most goal) and beside it a JSON file with the machine, the versions and what each row did.
Both sides run in this process and on one thread, except where processes are what a row is about. A further row is a
function that returns an `Outcome`, entered in `ROWS`.
"""

import argparse
import copy
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from threadpoolctl import threadpool_limits

from debiaslib import faces, finetune, measure, quality
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.finetune import FinetuneConfig, TrainingSet
from debiaslib.generate import SampleConfig, encode, generate, noise_latents
from debiaslib.indicators import Evidence, build_indicator
from debiaslib.presets import (
    PRESETS,
    Preset,
    data_root,
    default_device,
    fast_precision,
    get_preset,
    in_bf16,
    load_pipeline,
    one_thread,
    quiet_loading,
    to_images,
    to_pixels,
)

COLUMNS = ("name", "ours", "other", "ratio", "goal")
VERSIONS = ("torch", "numpy", "diffusers", "peft", "accelerate", "onnxruntime", "clean-fid", "torch-fidelity", "deepface")


@dataclass(frozen=True)
class Outcome:
    """Seconds (or bytes) of ours and of the other, medians of several turns; `notes` says what was compared, as JSON can
    hold it."""

    ours: float
    other: float
    notes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the table: how to measure it at a `scale` of its full counts, and what its ratio should at most be."""

    measure: Callable[..., Outcome]
    goal: float


def alternate(ours: Callable[[], object], other: Callable[[], object], *, repeats: int) -> Outcome:
    """Time both in turn, `repeats` times each, so that what else the machine does falls on both.

    The medians are of seconds as the clock on the wall counts them; the notes hold the processor's too, which other work on
    the machine does not lengthen.
    """
    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "other": []}
    for _ in range(repeats):
        for name, action in (("ours", ours), ("other", other)):
            wall, cpu = time.perf_counter(), time.process_time()
            action()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = ({name: statistics.median(pair[i] for pair in pairs) for name, pairs in taken.items()} for i in (0, 1))
    notes = {"repeats": repeats, "cpu_ours": cpu["ours"], "cpu_other": cpu["other"],
             "cpu_ratio": cpu["ours"] / max(cpu["other"], 1e-9)}
    return Outcome(wall["ours"], wall["other"], notes)


def metrics_libraries(*, scale: float = 1.0, repeats: int = 3,
                      extractor: str | quality.Extractor = "efficientnet-lite0") -> Outcome:
    """Every metric of 800 pictures against 3,000 (64 px PNG): one feature pass of ours, against clean-fid and then
    torch-fidelity, each with a pass of its own, with the same extractor and resizing.

    Ours: Frechet distance, KID with interval, precision, recall, density, coverage, Inception Score. Theirs: Frechet
    distance by clean-fid; KID, precision, recall and Inception Score by torch-fidelity (as many KID subsets as ours).
    """
    extractor = quality.load_extractor(extractor) if isinstance(extractor, str) else extractor
    counts = [max(quality.FEWEST, round(n * scale)) for n in (800, 3000)]
    with tempfile.TemporaryDirectory() as place:
        folders = [_write_pictures(Path(place) / name, count, seed) for seed, (name, count)
                   in enumerate(zip(("samples", "reference"), counts, strict=True))]
        kept: dict[str, dict] = {}
        outcome = alternate(lambda: kept.update(ours=_our_metrics(folders, extractor)),
                            lambda: kept.update(other=_their_metrics(folders, extractor)), repeats=repeats)
    agree = {name: [kept["ours"][name], kept["other"][name]] for name in kept["other"]}
    return Outcome(outcome.ours, outcome.other, outcome.notes | {"pictures": counts, "ours_and_other": agree})


def judge_loop(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Judging 800 faces (64 px) in batches, against a loop over `DeepFace.analyze`: the same detector, weights and answers.

    The notes say what share of our time is the detector's: it is dlib's in both and cannot be made faster here.
    """
    from debiaslib.judges import Judge, JudgeConfig

    images = _pictures(max(2, round(800 * scale)))
    fast, slow = (Judge(JudgeConfig(age=False, fast=quick)) for quick in (True, False))
    for judge in (fast, slow):  # load the networks before the clock starts
        judge.judge(images[:2])
    kept: dict[str, pd.DataFrame] = {}

    def loop() -> None:
        kept["other"] = pd.concat([slow.judge(image[None]) for image in images], ignore_index=True)

    outcome = alternate(lambda: kept.update(ours=fast.judge(images)), loop, repeats=repeats)
    both = kept["ours"], kept["other"]
    words = ["perceived", "abstained"]
    detector = alternate(lambda: fast.score_faces(images), lambda: fast.read(images), repeats=repeats)
    cpu = detector.notes["cpu_ours"], detector.notes["cpu_other"]
    return Outcome(outcome.ours, outcome.other, outcome.notes | {
        "pictures": len(images), "same_answers": bool((both[0][words] == both[1][words]).all(axis=None)),
        "largest_difference_p_man": float((both[0]["p_man"] - both[1]["p_man"]).abs().max()),
        "detector_share_of_ours": cpu[0] / sum(cpu),
        "cpu_ratio_without_detector": cpu[1] / max(outcome.notes["cpu_other"] - cpu[0], 1e-9)})


def indicator_step_tiny(*, scale: float = 1.0, repeats: int = 3, indicator: str = "density") -> Outcome:
    """A training step of the tiny preset with an indicator at full strength, against one without."""
    return _indicator_step(load_pipeline("tiny"), get_preset("tiny"), indicator, steps=5 * repeats)


def literal_step_tiny(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The same with S1's own indicator, which passes a natural picture through the denoiser for every four faces. The notes
    tell what a picture of the step costs, where only the classifier itself remains."""
    found = indicator_step_tiny(repeats=repeats, indicator="literal")
    extra = 1 + FinetuneConfig.of(get_preset("tiny")).natural_share
    return _with_notes(found, cpu_ratio_a_picture=found.notes["cpu_ratio"] / extra)


def indicator_step_sd15(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The same at Stable Diffusion v1.5's shape, random weights: at 512 px on a GPU, at 64 px on a CPU (7 GB of memory).

    Fewer pixels make the indicator's part larger, not smaller: it does not shrink with them.
    """
    from debiaslib import true_shape

    device = default_device()
    preset = replace(PRESETS["sd15"], image_size=512 if device.type == "cuda" else 64)
    pipe = true_shape.build_pipeline(image_size=preset.image_size).to(device)
    return _indicator_step(pipe, preset, "density", steps=repeats)


def indicator_training_tiny(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """A whole training of the tiny preset, 100 faces, all preparation and the report included: `density` against `none`."""
    pipe, preset = load_pipeline("tiny"), get_preset("tiny")
    pixels, natural = _pictures(100), faces.natural_images(size=preset.image_size, count=100, seed=0)

    def train(indicator: str) -> None:
        config = FinetuneConfig.of(preset, indicator=indicator, alpha=0.1, steps=max(1, round(preset.train_steps * scale)))
        data = finetune.prepare_set(pipe, pixels, natural=natural, needs=finetune.needs_of([indicator]))
        with tempfile.TemporaryDirectory() as place:
            finetune.finetune(pipe, data, config=config, out=Path(place), progress=False)

    return alternate(lambda: train("density"), lambda: train("none"), repeats=repeats)


def train_loop(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """100 faces encoded and the preset's steps taken, against the loop of diffusers' LoRA example: peft, accelerate, a
    DataLoader, pictures and prompt encoded at every step. The same batch, adapter, rate and precision. The notes compare
    once with that loop fed latents and text embeddings made beforehand, as ours are (of which it makes half as many: it
    does not mirror)."""
    pipe, pixels, config = _loop_settings(scale)

    def ours() -> None:
        _our_loop(pipe, pixels, config)

    outcome = alternate(ours, lambda: _plain_loop(pipe, pixels, config), repeats=repeats)
    cached = alternate(ours, lambda: _plain_loop(pipe, pixels, config, cached=True), repeats=1)
    return _with_notes(outcome, steps=config.steps, ratio_to_cached=cached.ours / cached.other,
                       cpu_ratio_to_cached=cached.notes["cpu_ratio"])


def train_loop_memory(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The most memory of a process that runs the one or the other of `train_loop`, in bytes."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        ours, plain, idle = (fresh.apply(peak_memory, (loop, scale / 4)) for loop in ("ours", "plain", "none"))
    return Outcome(ours, plain, {"before_the_loop": idle})


def generate_bare(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """`generate`, pictures written as PNG, against its U-Net and decoder calls alone: 50 at once, 12 steps, guidance 2."""
    pipe, config = load_pipeline("tiny"), _drawing(scale)
    n = config.batch
    encoded = torch.cat([part.expand(n, -1, -1) for part in encode(pipe, [config.prompt], config=config)])
    latents = noise_latents(pipe, range(n))

    @torch.no_grad()
    def bare() -> None:
        with fast_precision(pipe.device):
            for _ in range(config.steps):
                predicted = pipe.unet(torch.cat([latents, latents]), 500, encoded).sample
            to_pixels(pipe.vae.decode(predicted[:n]).sample)

    return _with_notes(alternate(lambda: _draw(pipe, n, config), bare, repeats=repeats), pictures=n, steps=config.steps)


def generate_loop(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """`generate` of a batch against a loop that calls the pipeline for one picture after another."""
    pipe, config = load_pipeline("tiny"), _drawing(scale)
    n = config.batch

    def loop() -> None:
        with tempfile.TemporaryDirectory() as place, fast_precision(pipe.device):
            for seed in range(n):
                pipe(config.prompt, num_inference_steps=config.steps, guidance_scale=config.guidance,
                     generator=torch.Generator().manual_seed(seed)).images[0].save(Path(place) / f"{seed}.png")

    return _with_notes(alternate(lambda: _draw(pipe, n, config), loop, repeats=repeats), pictures=n, steps=config.steps)


def two_processes(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """A sweep of 4 cells by two worker processes, against one process pinned to one core. Workers are started before."""
    _sweep(cells=2, workers=2, scale=scale)  # workers start, and load what they need

    def pinned() -> None:
        with _one_core():
            _sweep(cells=4, workers=1, scale=scale)

    return alternate(lambda: _sweep(cells=4, workers=2, scale=scale), pinned, repeats=repeats)


def growth_n(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Seconds a picture when 4 batches are drawn, against when one is."""
    pipe, config = load_pipeline("tiny"), replace(_drawing(scale), steps=2)
    many, one = 4 * config.batch, config.batch
    found = alternate(lambda: _draw(pipe, many, config), lambda: _draw(pipe, one, config), repeats=repeats)
    return _each(found, many, one)


def growth_resolution(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Seconds a pixel of a training step at 128 px, against 64 px: what attention, which grows with their square, adds."""
    with _begun(load_pipeline("tiny"), get_preset("tiny")) as run:
        large = replace(run, data=_random_set(2 * run.unet.config.sample_size))
        return _each(alternate(_stepper(large), _stepper(run), repeats=3 * repeats), 128**2, 64**2)


def growth_cells(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Seconds a cell of a sweep of 6, against one of 2."""
    _sweep(cells=1, workers=1, scale=scale)  # instruments are loaded
    found = alternate(lambda: _sweep(cells=6, workers=1, scale=scale), lambda: _sweep(cells=2, workers=1, scale=scale),
                      repeats=repeats)
    return _each(found, 6, 2)


ROWS: dict[str, Row] = {
    "indicator_step_tiny": Row(indicator_step_tiny, 1.05), "literal_step_tiny": Row(literal_step_tiny, 1.05),
    "indicator_step_sd15": Row(indicator_step_sd15, 1.02), "indicator_training_tiny": Row(indicator_training_tiny, 1.10),
    "train_loop": Row(train_loop, 1.0), "train_loop_memory": Row(train_loop_memory, 1.0),
    "generate_bare": Row(generate_bare, 1.05), "generate_loop": Row(generate_loop, 1.0),
    "two_processes": Row(two_processes, 1 / 1.6), "growth_n": Row(growth_n, 1.05),
    "growth_resolution": Row(growth_resolution, 1.1), "growth_cells": Row(growth_cells, 1.05),
    "metrics_libraries": Row(metrics_libraries, 0.5), "judge_loop": Row(judge_loop, 0.2)}
"""The benchmarks by name."""


def bench(names: Sequence[str] = (), *, out: Path, scale: float = 1.0, repeats: int = 3) -> pd.DataFrame:
    """Measure the rows of those names (by default all) and write `out` and its JSON file after each.

    A row that `out` holds from before and that is not measured again stays. Raises InputError on an unknown name, or a
    scale or number of repeats that is not above 0.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise InputError(f"benchmark {unknown[0]!r}: unknown. Choose among {', '.join(ROWS)}.")
    if not 0 < scale <= 1 or repeats < 1:
        raise InputError(f"scale {scale:g} and {repeats} repeats: a scale is above 0 and at most 1, repeats are at least 1.")
    table, sidecar = _read(out)
    for name in names or ROWS:
        row = ROWS[name]
        with one_thread(), threadpool_limits(1):
            found = row.measure(scale=scale, repeats=repeats)
        table.loc[name] = [found.ours, found.other, found.ours / found.other, row.goal]
        sidecar["rows"][name] = {"scale": scale, **found.notes}
        _write(out, table, sidecar | {"machine": _machine()})
    return table.rename_axis("name").reset_index()


def _with_notes(outcome: Outcome, **notes) -> Outcome:
    return replace(outcome, notes=outcome.notes | notes)


def _each(outcome: Outcome, ours: int, other: int) -> Outcome:
    """Seconds for one of `ours` things, and for one of `other` things."""
    cpu_ratio = outcome.notes["cpu_ratio"] * other / ours
    return Outcome(outcome.ours / ours, outcome.other / other,
                   outcome.notes | {"counts": [ours, other], "cpu_ratio": cpu_ratio})


@contextmanager
def _one_core() -> Iterator[None]:
    """This process on one core, where the system lets it choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _indicator_step(pipe: StableDiffusionPipeline, preset: Preset, indicator: str, *, steps: int) -> Outcome:
    """A step of one and the same adapter with the indicator at alpha = .1, against one without."""
    with _begun(pipe, preset) as run:
        judge = build_indicator(indicator, alpha=0.1).to(run.unet.device)
        judge.study(run.data.evidence)
        weights = [*run.weights, *judge.parameters()]
        optimizer = torch.optim.AdamW(weights, run.config.learning_rate)
        other = replace(run, indicator=judge, weights=weights, optimizer=optimizer)
        return alternate(_stepper(other), _stepper(run), repeats=steps)


@contextmanager
def _begun(pipe: StableDiffusionPipeline, preset: Preset) -> Iterator[finetune.Run]:
    """A training without indicator, on random latents, ready for its steps."""
    config = FinetuneConfig.of(preset, indicator="none")
    run = finetune.begin(pipe, _random_set(pipe.unet.config.sample_size), config=config)
    try:
        with finetune.multiplied_as_held(run.unet, config):
            yield run
    finally:
        finetune.end(run)


def _stepper(run: finetune.Run) -> Callable[[], object]:
    """Takes the next step of `run` at each call; the first is taken already, for what only a first step does."""
    steps = itertools.count()

    def step() -> None:
        finetune.update(run, next(steps))
        if run.unet.device.type == "cuda":
            torch.cuda.synchronize()

    step()
    return step


def _random_set(side: int, *, channels: int = 4) -> TrainingSet:
    """Latents and embeddings of 100 faces and 100 natural pictures, drawn by chance: a step takes as long with them."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 100, channels, side, side, generator=generator)
    embedding, natural = torch.randn(2, 100, 128, generator=generator).numpy()
    return TrainingSet(faces=latents[:2], natural=latents[2],
                       evidence=Evidence(embedding=embedding, natural=natural + 3))


def _loop_settings(scale: float) -> tuple[StableDiffusionPipeline, np.ndarray, FinetuneConfig]:
    config = FinetuneConfig.of(get_preset("tiny"), indicator="none")
    return load_pipeline("tiny"), _pictures(100), replace(config, steps=max(2, round(config.steps * scale)))


def _our_loop(pipe: StableDiffusionPipeline, pixels: np.ndarray, config: FinetuneConfig) -> None:
    """Preparation and steps, without the report that follows a training."""
    run = finetune.begin(pipe, finetune.prepare_set(pipe, pixels, natural=pixels[:1]), config=config)
    with finetune.multiplied_as_held(run.unet, config):
        for step in range(config.steps):
            finetune.update(run, step)
    finetune.end(run)


def _plain_loop(pipe: StableDiffusionPipeline, pixels: np.ndarray, config: FinetuneConfig, *, cached: bool = False) -> None:
    """diffusers' `train_text_to_image_lora.py` without what is not about training: logs, validation, saving."""
    from accelerate import Accelerator
    from diffusers.training_utils import cast_training_params

    pipe = copy.deepcopy(pipe)
    half = in_bf16(pipe.device, precision=config.precision)
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", gradient_accumulation_steps=config.accumulation)
    unet = pipe.unet.requires_grad_(False)
    with quiet_loading():
        pipe.to(dtype=torch.bfloat16 if half else torch.float32)
    unet.add_adapter(LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, init_lora_weights="gaussian",
                                target_modules=list(config.lora_targets)))
    cast_training_params(unet, torch.float32)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, config.learning_rate, weight_decay=config.weight_decay)
    pairs = torch.utils.data.TensorDataset(*_loop_data(pipe, pixels, config, cached=cached))
    loader = torch.utils.data.DataLoader(pairs, shuffle=True, batch_size=config.batch)
    unet, optimizer, loader = accelerator.prepare(unet.train(), optimizer, loader)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for pictures, prompts in itertools.islice(batches, config.steps * config.accumulation):
        with accelerator.accumulate(unet):
            latents, context = (pictures, prompts) if cached else _encode_both(pipe, pictures, prompts)
            noise, timesteps = torch.randn_like(latents), torch.randint(1000, (len(latents),), device=latents.device)
            predicted = unet(pipe.scheduler.add_noise(latents, noise, timesteps), timesteps, context, return_dict=False)[0]
            accelerator.backward(torch.nn.functional.mse_loss(predicted.float(), noise.float()))
            if accelerator.sync_gradients:
                accelerator.clip_grad_value_(weights, config.clip_value)
            optimizer.step()
            optimizer.zero_grad()


def _loop_data(pipe: StableDiffusionPipeline, pixels: np.ndarray, config: FinetuneConfig, *,
               cached: bool) -> list[torch.Tensor]:
    """Pictures and token ids, or what they are encoded to."""
    tokens = pipe.tokenizer([config.prompt] * len(pixels), padding="max_length", truncation=True,
                            max_length=pipe.tokenizer.model_max_length, return_tensors="pt").input_ids
    images = to_images(pixels)
    return [part.clone() for part in _encode_both(pipe, images, tokens)] if cached else [images, tokens]


@torch.no_grad()
def _encode_both(pipe: StableDiffusionPipeline, images: torch.Tensor,
                 tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    latents = pipe.vae.encode(images.to(pipe.vae.device, pipe.vae.dtype)).latent_dist.sample()
    return latents * pipe.vae.config.scaling_factor, pipe.text_encoder(tokens.to(pipe.text_encoder.device))[0]


def peak_memory(loop: str, scale: float) -> int:
    """The most bytes that this process has held so far, once the loop `ours` or `plain` has run; `none`: without one."""
    import resource

    torch.set_num_threads(1)
    settings = _loop_settings(scale)
    {"ours": _our_loop, "plain": _plain_loop, "none": lambda *_: None}[loop](*settings)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _drawing(scale: float) -> SampleConfig:
    return SampleConfig.of(get_preset("tiny"), steps=12, guidance=2.0, batch=max(2, round(50 * scale)))


def _draw(pipe: StableDiffusionPipeline, n: int, config: SampleConfig) -> None:
    with tempfile.TemporaryDirectory() as place:
        generate(pipe, n=n, config=config, out=Path(place) / "drawn")


def _sweep(*, cells: int, workers: int, scale: float) -> None:
    """That many cells of the face pool, a few steps and pictures each."""
    from debiaslib.sweep import SweepConfig, sweep

    config = SweepConfig(faces=str(data_root() / "faces"), ratios=(1.0,), train_size=20, indicators=("none",),
                         alphas=tuple(index / 100 for index in range(cells)), train_steps=max(1, round(20 * scale)),
                         n=max(10, round(40 * scale)), sample_steps=4)
    with tempfile.TemporaryDirectory() as place:
        sweep(get_preset("tiny"), config=config, out=Path(place), workers=workers, progress=False)


def _our_metrics(folders: Sequence[Path], extractor: quality.Extractor) -> dict:
    return quality.compare(*(quality.extract(measure.open_pictures(folder), extractor=extractor) for folder in folders))


def _their_metrics(folders: Sequence[Path], extractor: quality.Extractor) -> dict:
    """What clean-fid and torch-fidelity say, under our names for it."""
    import cleanfid.fid
    import torch_fidelity
    from cleanfid.resize import make_resizer

    side = extractor.size
    features = [cleanfid.fid.get_folder_features(
        str(folder), lambda batch: torch.from_numpy(extractor.model(batch.float().numpy())[0]), num_workers=0, verbose=False,
        batch_size=50, device=torch.device("cpu"), custom_fn_resize=make_resizer("PIL", False, "bicubic", (side, side)))
        for folder in folders]
    with quality.cleanfid_noise():
        frechet = cleanfid.fid.fid_from_feats(*features)
    fewest = min(map(len, features))
    with _registered(extractor) as name:
        found = torch_fidelity.calculate_metrics(
            input1=str(folders[0]), input2=str(folders[1]), cuda=False, isc=True, kid=True, prc=True, verbose=False,
            cache=False, feature_extractor=name, feature_layer_isc="logits", feature_layer_kid="pool",
            feature_layer_prc="pool", kid_subsets=10, kid_subset_size=min(1000, fewest), save_cpu_ram=True, batch_size=50)
    return {"frechet": float(frechet), "precision": found["precision"], "recall": found["recall"],
            "kid": found["kernel_inception_distance_mean"], "is_mean": found["inception_score_mean"]}


@contextmanager
def _registered(extractor: quality.Extractor) -> Iterator[str]:
    """The same network and resizing in torch-fidelity's form, under a name in its registry while this lasts."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    class Shared(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "pool", "logits"

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = extractor.model(quality.resized(pixels.permute(0, 2, 3, 1).numpy(), extractor.size))
            known = dict(zip(("pool", "logits"), map(torch.from_numpy, found), strict=True))
            return tuple(known[name] for name in self.features_list)

    name = f"debiaslib {extractor.name}"
    register_feature_extractor(name, Shared)
    try:
        yield name
    finally:
        del FEATURE_EXTRACTORS_REGISTRY[name]


def _pictures(count: int) -> np.ndarray:
    """That many faces of the pool that ships, uint8 (count, 64, 64, 3); mirrored ones follow where it has too few."""
    names = list(faces.read_metadata(data_root() / "faces")["file_name"])
    pixels = faces.read_pixels(data_root() / "faces", names[:count], size=64)
    while len(pixels) < count:
        pixels = np.concatenate([pixels, pixels[:count - len(pixels), :, ::-1]])
    return pixels


def _write_pictures(folder: Path, count: int, seed: int) -> Path:
    """PNG files of faces with a little noise, so that no two are the same."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for index, pixels in enumerate(_pictures(count)):
        noisy = np.clip(pixels + generator.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index:05d}.png")
    return folder


def _read(out: Path) -> tuple[pd.DataFrame, dict]:
    table = pd.DataFrame(columns=list(COLUMNS[1:]), dtype=float)
    if out.exists():
        table = pd.read_csv(out, index_col="name").reindex(columns=list(COLUMNS[1:])).astype(float)
    beside = out.with_suffix(".json")
    return table, {"rows": json.loads(beside.read_text())["rows"] if beside.exists() else {}}


def _write(out: Path, table: pd.DataFrame, sidecar: dict) -> None:
    write_whole(out, table.rename_axis("name").to_csv(float_format="%.6g").encode())
    write_whole(out.with_suffix(".json"), (json.dumps(sidecar, indent=1) + "\n").encode())


def _machine() -> dict:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "load": load,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": 1, "python": platform.python_version(),
            "versions": {name: version(name) for name in VERSIONS}}


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m debiaslib.bench`; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.bench",
                                     description="Ours against what else there is, in seconds.")
    parser.add_argument("--rows", "--only", nargs="+", action="extend", default=[], metavar="NAME",
                        help=f"some of {', '.join(ROWS)}; default all")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.csv"), metavar="CSV", help="default %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, metavar="PART", help="part of the full counts; default all")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns a row; default %(default)s")
    parser.add_argument("--quick", action="store_true",
                        help="one turn at a quarter of the counts: whether it works, not how fast")
    args = parser.parse_args(argv)
    scale, repeats = (0.25, 1) if args.quick else (args.scale, args.repeats)
    table = bench(args.rows, out=args.out, scale=scale, repeats=repeats)
    print(table.to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    from debiaslib.__main__ import guarded

    sys.exit(guarded("bench", main))

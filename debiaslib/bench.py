"""Benchmarks: what is done here against what a user would otherwise run, measured side by side, in turn.

`python -m debiaslib.bench` writes a table with the columns name, ours, other, ratio, goal (medians of seconds, or bytes;
ratio = ours / other, to be at most goal) and beside it a JSON file with the machine, the versions and what each row did.
Both sides run in this process and on one thread, except where processes or memory are what a row is about and where a
row says so. A further row is a function that returns an `Outcome`, entered in `ROWS`.
"""

import argparse
import copy
import functools
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
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image

from debiaslib import faces, finetune, measure, quality
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.face_axes import load_axes
from debiaslib.finetune import FinetuneConfig, TrainingSet
from debiaslib.generate import SampleConfig, encode, generate, noise_latents
from debiaslib.indicators import Evidence, build_indicator
from debiaslib.presets import (
    PRESETS,
    Preset,
    data_root,
    default_device,
    fast_precision,
    fastest_layout,
    get_preset,
    in_bf16,
    load_pipeline,
    one_thread,
    quiet_loading,
    to_images,
    to_pixels,
)

if TYPE_CHECKING:
    from debiaslib.judges import Judge

T = TypeVar("T")
METRIC_SIZES = 5000, 10_000, 20_000, 50_000
"""Pictures that metrics are timed with; the second is where `neighbour_scores` begins to draw."""
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
    """Judging 800 faces (64 px) in batches, against a loop over plain `DeepFace.analyze`: the same detector, weights and
    answers.

    DeepFace has no such detector, so both sides look for faces with dlib's, and that is nearly all of our time: the ratio
    cannot fall below `detector_share_of_other`, however fast the reading is. `ratio_without_detector` compares the reading
    alone. DeepFace opens its network with a thread a core, ours has one.
    """
    from debiaslib.judges import Judge, JudgeConfig

    images = _pictures(max(2, round(800 * scale)))
    fast, plain = (Judge(JudgeConfig(age=False, fast=quick)) for quick in (True, False))
    for judge in (fast, plain):  # load the networks before the clock starts
        judge.judge(images[:2])
    kept: dict[str, pd.DataFrame] = {}
    outcome = alternate(lambda: kept.update(ours=fast.judge(images)),
                        lambda: kept.update(other=_analyze_loop(plain, images)), repeats=repeats)
    ours, other = kept["ours"], kept["other"]
    words = ["perceived", "abstained"]
    reading = alternate(lambda: fast.read(images), lambda: plain.analyze(images), repeats=repeats)
    return _with_notes(
        outcome, pictures=len(images), same_answers=bool((ours[words] == other[words]).all(axis=None)),
        largest_difference_p_man=float((ours["p_man"] - other["p_man"]).abs().max()),
        detector_share_of_ours=1 - reading.notes["cpu_ours"] / outcome.notes["cpu_ours"],
        detector_share_of_other=1 - reading.notes["cpu_other"] / outcome.notes["cpu_other"],
        ratio_without_detector=reading.ours / reading.other, cpu_ratio_without_detector=reading.notes["cpu_ratio"])


def indicator_step_tiny(*, scale: float = 1.0, repeats: int = 3, indicator: str = "density") -> Outcome:
    """A training step of the tiny preset with an indicator at full strength, against one without.

    `density` costs nothing a step: it acts by which faces are drawn, by their chances, and its loss is the plain one. What
    it costs is the look at the faces before the first step, which `indicator_training_tiny` counts.
    """
    return _indicator_step(load_pipeline("tiny"), get_preset("tiny"), indicator, steps=5 * repeats)


def literal_step_tiny(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The same with S1's own indicator, which passes a natural picture through the denoiser for every four faces and so
    costs about a quarter more. The notes tell what a picture of the step costs, where only the classifier itself remains."""
    return indicator_step_tiny(repeats=repeats, indicator="literal")


def indicator_step_sd15(*, scale: float = 1.0, repeats: int = 3, indicator: str = "density") -> Outcome:
    """`indicator_step_tiny` at Stable Diffusion v1.5's shape, random weights: at 512 px on a GPU, at 64 px on a CPU (7 GB of
    memory).

    Fewer pixels make the indicator's part larger, not smaller: it does not shrink with them.
    """
    pipe, preset = _true_shape()
    return _indicator_step(pipe, preset, indicator, steps=repeats)


def literal_step_sd15(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """`literal_step_tiny` at that shape. A batch is one face here, which a natural picture joins with chance .25, so that
    steps differ: the notes count the pictures of those that were timed."""
    return indicator_step_sd15(repeats=3 * repeats, indicator="literal")


def indicator_training_tiny(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """A whole training of the tiny preset, 100 faces, all preparation and the report included: `density` against `none`.
    Here `density` pays: it embeds the faces and measures how rare each is."""
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
    """The most memory of a process that runs the one or the other of `train_loop`, in bytes. Most of it is the libraries and
    the pipeline, which both hold: the notes compare what comes on top of them."""
    works = [functools.partial(_train_alone, loop, scale / 4) for loop in (_our_loop, _plain_alone, None)]
    return _on_top(*_most_memory(works, repeats=repeats))


def generate_memory(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The most memory of a process that draws 800 pictures, against one that draws 200, in batches of 50 both: it is not to
    grow with their number. (From the first batch to the second it does, by what the allocator keeps.) In bytes; the notes
    compare what comes on top of libraries and pipeline."""
    works = [functools.partial(_draw_alone, batches, scale) for batches in (16, 4, 0)]
    return _on_top(*_most_memory(works, repeats=repeats))


def generate_bare(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """`generate`, pictures written as PNG, against its U-Net and decoder calls alone: 50 at once, 12 steps, guidance 2."""
    return _against_bare(load_pipeline("tiny"), _drawing(scale), repeats=repeats)


def generate_bare_sd15(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """The same at Stable Diffusion v1.5's shape, random weights, 8 at once, guidance 7.5: at 512 px in 40 steps on a GPU, at
    64 px in 16 steps on a CPU (5 GB of memory), where reading the prompt, once, counts for more."""
    pipe, preset = _true_shape()
    config = SampleConfig.of(preset, steps=None if pipe.device.type == "cuda" else 16)
    return _against_bare(pipe, replace(config, batch=max(1, round(config.batch * scale))), repeats=repeats)


def first_picture(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Seconds until a studio that has loaded its weights, in a fresh process, has drawn its first picture in 20 steps.

    Nothing is compared: `other` is what such a wait may last, 3 seconds. The notes tell the loading, which the panel begins
    before anybody asks.
    """
    took = [apart(_first_picture) for _ in range(repeats)]
    loading, drawing = (statistics.median(part) for part in zip(*took, strict=True))
    return Outcome(drawing, 3.0, {"repeats": repeats, "steps": 20, "other_is": "an allowance, not measured",
                                  "loading_s": loading})


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
    """A sweep of 4 cells by two worker processes, against one process pinned to one core. Each side has a turn before the
    clock starts, in which workers start and both load what they keep for the next."""
    def pair() -> None:
        _sweep(cells=4, workers=2, scale=scale)

    def pinned() -> None:
        with _one_core():
            _sweep(cells=4, workers=1, scale=scale)

    pair()
    pinned()
    found = alternate(pair, pinned, repeats=repeats)
    return replace(found, notes={"repeats": repeats, "cells": 4})  # the workers' processor time is not in this process's


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
    """Seconds a cell of a sweep of 6, against one of 2. Each sweep loads its instruments, once."""
    _sweep(cells=1, workers=1, scale=scale)  # what only the first sweep of a process does
    found = alternate(lambda: _sweep(cells=6, workers=1, scale=scale), lambda: _sweep(cells=2, workers=1, scale=scale),
                      repeats=repeats)
    return _each(found, 6, 2)


def growth_metrics(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Seconds a picture of all metrics from features of 50,000 pictures and as many of reference, against 10,000 and 10,000.

    Features are drawn by chance (1280, and 1000 logits): the feature pass, which is linear, is left out. The notes hold the
    processor's seconds of each metric at each number, and the exponents of n that they grow with up to 10,000 and beyond.
    Neighbours are quadratic until `neighbour_scores` draws 10,000, and KID's interval until it draws 4,000.
    """
    sizes = [max(quality.FEWEST, round(n * scale)) for n in METRIC_SIZES]
    turns = [{n: _metric_seconds(n) for n in sizes} for _ in range(repeats)]
    wall, cpu = ({n: {name: statistics.median(turn[n][name][i] for turn in turns) for name in turns[0][n]} for n in sizes}
                 for i in (0, 1))
    seconds = pd.DataFrame(cpu)
    slopes = {part: {name: float(np.polyfit(np.log(ns), np.log(seconds.loc[name, ns].to_numpy() + 1e-4), 1)[0])
                     for name in seconds.index} for part, ns in (("to_10000", sizes[:2]), ("beyond", sizes[1:]))}
    each = [[sum(found[n].values()) / n for n in (sizes[-1], sizes[1])] for found in (wall, cpu)]
    return Outcome(*each[0], {"repeats": repeats, "counts": [sizes[-1], sizes[1]], "cpu_ratio": each[1][0] / each[1][1],
                              "exponents": slopes, "cpu_seconds": {str(n): found for n, found in cpu.items()}})


def growth_metrics_memory(*, scale: float = 1.0, repeats: int = 3) -> Outcome:
    """Bytes a picture that a process comes to hold on top of its libraries with the metrics of 50,000 and 50,000 pictures,
    against 10,000 and 10,000. The features themselves are 18 kB of them."""
    many, few = (max(quality.FEWEST, round(n * scale)) for n in (METRIC_SIZES[-1], METRIC_SIZES[1]))
    works = [functools.partial(_compare_alone, n) for n in (many, few, quality.FEWEST)]
    held = _on_top(*_most_memory(works, repeats=repeats)).notes
    ours, other = held["ours_on_top"] / many, held["other_on_top"] / few
    return Outcome(ours, other, held | {"counts": [many, few]})


ROWS: dict[str, Row] = {
    "indicator_step_tiny": Row(indicator_step_tiny, 1.05), "literal_step_tiny": Row(literal_step_tiny, 1.05),
    "indicator_step_sd15": Row(indicator_step_sd15, 1.02), "literal_step_sd15": Row(literal_step_sd15, 1.02),
    "indicator_training_tiny": Row(indicator_training_tiny, 1.10), "train_loop": Row(train_loop, 1.0),
    "train_loop_memory": Row(train_loop_memory, 1.0), "generate_bare": Row(generate_bare, 1.05),
    "generate_bare_sd15": Row(generate_bare_sd15, 1 / 0.85 if default_device().type == "cuda" else 1.05),
    "generate_loop": Row(generate_loop, 1.0), "generate_memory": Row(generate_memory, 1.02),
    "first_picture": Row(first_picture, 1.0),
    "two_processes": Row(two_processes, 1 / 1.6), "growth_n": Row(growth_n, 1.05),
    "growth_resolution": Row(growth_resolution, 1.1), "growth_cells": Row(growth_cells, 1.05),
    "growth_metrics": Row(growth_metrics, 1.05), "growth_metrics_memory": Row(growth_metrics_memory, 1.05),
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
        with one_thread():
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
    """A step of one and the same adapter with the indicator at alpha = .1, against one without; how many pictures pass the
    U-Net is counted, in median steps."""
    with _begun(pipe, preset) as run:
        judge = build_indicator(indicator, alpha=0.1).to(run.unet.device)
        judge.study(run.data.evidence)
        weights = [*run.weights, *judge.parameters()]
        optimizer = torch.optim.AdamW(weights, run.config.learning_rate, fused=True)
        guided = replace(run, indicator=judge, weights=weights, optimizer=optimizer,
                         chances=judge.weights(run.data.faces.shape[1]))
        ours, other, pictures = _stepper(guided), _stepper(run), []
        count = run.unet.register_forward_pre_hook(lambda _unet, inputs: pictures.append(len(inputs[0])))
        found = alternate(ours, other, repeats=steps)
        count.remove()
    many, few = np.median(np.reshape(pictures, (steps, 2, -1)).sum(axis=2), axis=0)
    return _with_notes(found, pictures_a_face=many / few, cpu_ratio_a_picture=found.notes["cpu_ratio"] * few / many)


def _true_shape() -> tuple[StableDiffusionPipeline, Preset]:
    """The preset `sd15` with random weights on this machine's device: at 512 px on a GPU, at 64 px on a CPU."""
    from debiaslib import true_shape

    device = default_device()
    preset = replace(PRESETS["sd15"], image_size=512 if device.type == "cuda" else 64)
    pipe = true_shape.build_pipeline(image_size=preset.image_size).to(device)
    pipe.unet.to(memory_format=fastest_layout(pipe.unet, device))
    return pipe, preset


def _analyze_loop(judge: "Judge", images: np.ndarray) -> pd.DataFrame:
    """What one would write without this package: dlib's detector and `DeepFace.analyze`, one picture after another.

    `Judge.analyze` is that loop, DeepFace's folder of weights being named once and not at every picture.
    """
    found = ~np.isnan(judge.score_faces(images))
    p_man = np.array([answer["gender"]["Man"] for answer in judge.analyze(images)]) / 100
    sure = np.maximum(p_man, 1 - p_man) >= judge.config.min_confidence
    return pd.DataFrame({
        "p_man": p_man, "perceived": np.where(found & sure, np.where(p_man > 0.5, "Man", "Woman"), ""),
        "abstained": np.where(found, np.where(sure, "", "low confidence"), "no face")})


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
                       evidence=Evidence(embedding=embedding, natural=natural + 3, axes=load_axes()))


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


def _plain_loop(pipe: StableDiffusionPipeline, pixels: np.ndarray, config: FinetuneConfig, *, cached: bool = False,
                spare: bool = True) -> None:
    """diffusers' `train_text_to_image_lora.py` without what is not about training: logs, validation, saving. The pipeline
    stays as it is, unless it is not to be spared."""
    from accelerate import Accelerator
    from diffusers.training_utils import cast_training_params

    pipe = copy.deepcopy(pipe) if spare else pipe
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


_plain_alone = functools.partial(_plain_loop, spare=False)
"""The plain loop as it holds its memory: without a second pipeline."""


def _train_alone(loop: Callable[..., None] | None, scale: float) -> None:
    """What `train_loop_memory` runs in a process of its own; without a loop, all that comes before it."""
    settings = _loop_settings(scale)
    if loop:
        loop(*settings)


def _draw_alone(batches: int, scale: float) -> None:
    """What `generate_memory` runs in a process of its own: that many batches, few steps, which do not matter here."""
    pipe, config = load_pipeline("tiny"), replace(_drawing(scale), steps=2)
    if batches:
        _draw(pipe, batches * config.batch, config)


def _most_memory(works: Sequence[Callable[[], None]], *, repeats: int) -> list[float]:
    """The most bytes that a fresh process holds which does each of these, medians of several."""
    turns = [[apart(functools.partial(peak_memory, work)) for work in works] for _ in range(repeats)]
    return [statistics.median(each) for each in zip(*turns, strict=True)]


def _on_top(ours: float, other: float, before: float) -> Outcome:
    """Bytes of ours and of the other, and of what either holds before it begins."""
    return Outcome(ours, other, {"before": before, "ours_on_top": ours - before, "other_on_top": other - before,
                                 "ratio_on_top": (ours - before) / max(other - before, 1)})


def apart(work: Callable[[], T]) -> T:
    """What `work` returns in a process of its own, which starts anew."""
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        return fresh.apply(work)


def peak_memory(work: Callable[[], None]) -> int:
    """Do the work, on one thread; the most bytes that this process has held until then.

    Linux tells it in /proc. Its `getrusage` would not do: that begins with the peak of the process which started this one.
    """
    torch.set_num_threads(1)
    work()
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _drawing(scale: float) -> SampleConfig:
    return SampleConfig.of(get_preset("tiny"), steps=12, guidance=2.0, batch=max(2, round(50 * scale)))


def _draw(pipe: StableDiffusionPipeline, n: int, config: SampleConfig) -> None:
    with tempfile.TemporaryDirectory() as place:
        generate(pipe, n=n, config=config, out=Path(place) / "drawn")


def _against_bare(pipe: StableDiffusionPipeline, config: SampleConfig, *, repeats: int) -> Outcome:
    """`generate` of one batch against the network calls that it cannot do without."""
    n, device = config.batch, pipe.device
    encoded = torch.cat([part.expand(n, -1, -1) for part in encode(pipe, [config.prompt], config=config)])
    latents = noise_latents(pipe, range(n)).to(device)
    pipe.scheduler.set_timesteps(config.steps)  # some schedulers call the U-Net once more than there are steps
    timesteps = pipe.scheduler.timesteps.tolist()

    @torch.no_grad()
    def bare() -> None:
        with fast_precision(device, precision=config.precision):
            for timestep in timesteps:
                predicted = pipe.unet(torch.cat([latents, latents]), timestep, encoded).sample
            to_pixels(pipe.vae.decode(predicted[:n]).sample)

    def drawn() -> None:
        _draw(pipe, n, config)

    for side in (drawn, bare):  # what only a first call does
        side()
    found = alternate(drawn, bare, repeats=repeats)
    return _with_notes(found, pictures=n, steps=config.steps, unet_calls=len(timesteps), pictures_a_second=n / found.ours,
                       image_size=pipe.unet.config.sample_size * pipe.vae_scale_factor,
                       bf16=in_bf16(device, precision=config.precision))


def _first_picture() -> tuple[float, float]:
    """Seconds a new studio takes to load, and then to draw."""
    from debiaslib.gallery import Studio, load_gallery

    began = time.perf_counter()
    studio = Studio(load_gallery())
    _ = studio.switch
    loaded = time.perf_counter()
    studio.draw(seeds=(1,), config=studio.config(steps=20), alpha=None)
    return loaded - began, time.perf_counter() - loaded


def _sweep(*, cells: int, workers: int, scale: float) -> None:
    """That many cells of the face pool, a few steps and pictures each."""
    from debiaslib.sweep import SweepConfig, sweep

    config = SweepConfig(faces=str(data_root() / "faces"), ratios=(1.0,), train_size=20, indicators=("none",),
                         alphas=tuple(index / 100 for index in range(cells)), train_steps=max(1, round(20 * scale)),
                         n=max(10, round(40 * scale)), sample_steps=4)
    with tempfile.TemporaryDirectory() as place:
        sweep(get_preset("tiny"), config=config, out=Path(place), workers=workers, progress=False)


def _synthetic(n: int, seed: int) -> quality.Features:
    """Features and logits of that many pictures, drawn by chance."""
    pool, logits = (np.random.default_rng(seed).standard_normal((n, width), np.float32) for width in (1280, 1000))
    return quality.Features("synthetic", "", pool, logits, str(seed))


def _metric_seconds(n: int) -> dict[str, tuple[float, float]]:
    """Seconds of the wall and of the processor for each part of `quality.compare`, n pictures against n of reference."""
    ours, reference = _synthetic(n, 0), _synthetic(n, 1)
    pair, found = (ours.pool, reference.pool), {}
    works = {"frechet": functools.partial(quality.frechet_distance, *pair),
             "kid": functools.partial(quality.kernel_distance, *pair),
             "kid_interval": functools.partial(quality.kernel_distance_interval, *pair),
             "neighbours": functools.partial(quality.neighbour_scores, *pair),
             "inception_score": functools.partial(quality.inception_score, ours.logits)}
    for name, work in works.items():
        once = alternate(work, lambda: None, repeats=1)
        found[name] = once.ours, once.notes["cpu_ours"]
    return found


def _compare_alone(n: int) -> None:
    """What `growth_metrics_memory` runs in a process of its own."""
    quality.compare(_synthetic(n, 0), _synthetic(n, 1))


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
    """The same network and clean-fid's own resizing in torch-fidelity's form, under a name in its registry while this
    lasts."""
    from cleanfid.resize import make_resizer
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    resize = make_resizer("PIL", False, "bicubic", (extractor.size, extractor.size))

    class Shared(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "pool", "logits"

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            large = np.stack([resize(image) for image in pixels.permute(0, 2, 3, 1).numpy()]).transpose(0, 3, 1, 2)
            found = extractor.model(np.ascontiguousarray(large))
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

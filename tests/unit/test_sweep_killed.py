"""A sweep that is killed (SIGKILL: no handler runs, nothing is tidied) at any moment ends as an undisturbed one does.

Every try is a process of its own, forked from one that has imported everything already, so that the kill falls into the
work: somewhere between its first moment and the time that the whole of it takes.
"""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from painted import PaintedJudge, paint, toy_extractor
from PIL import Image
from safetensors.torch import load_file

from debiaslib import finetune, presets, quality, sweep

SECONDS = ["train_s", "generate_s", "embed_s"]
PATIENCE = 120
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}
pytestmark = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork here")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A tiny sweep, which leaves a checkpoint after every second step. It may kill itself before the file operation of a
    number, those of the folder `out` counted from 0."""

    preset: presets.Preset
    config: sweep.SweepConfig
    out: Path
    kill_before: int | None = None

    def __call__(self) -> None:
        """Run it in this process, which is there for nothing else, with instruments that load at once."""
        torch.set_num_threads(1)
        sweep.Judge = lambda _config: PaintedJudge()
        sweep.finetune = functools.partial(finetune.finetune, save_every=2)
        quality.EXTRACTORS["toy"] = toy_extractor
        quality.default_cache = lambda: self.out.parent / "cache"
        if self.kill_before is not None:
            sys.addaudithook(functools.partial(self.killed_before, itertools.count()))
        sweep.sweep(self.preset, config=self.config, out=self.out, progress=False)

    def killed_before(self, numbers: Iterator[int], event: str, args: tuple) -> None:
        """What Python calls before it opens, renames, makes or removes a file."""
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if (writes or event in CHANGES) and str(args[0]).startswith(str(self.out)) and next(numbers) == self.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def work(small_pipe, tmp_path) -> Work:
    small_pipe.save_pretrained(tmp_path / "model")
    paint(tmp_path / "faces", men=10, women=10, size=32, gender=["Male"] * 10 + ["Female"] * 10)
    preset = dataclasses.replace(presets.PRESETS["tiny"], source=str(tmp_path / "model"), image_size=32, train_steps=6,
                                 batch=4, sample_steps=2, sample_batch=3)
    config = sweep.SweepConfig(faces=str(tmp_path / "faces"), ratios=(1.0,), alphas=(0.0, 0.1), train_size=10, n=6,
                               extractor="toy")
    return Work(preset=preset, config=config, out=tmp_path / "whole" / "sweep")


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Where processes are forked from one that has imported the package and has no thread running."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["debiaslib.sweep", "pytest"])
    warm = context.Process(target=time.sleep, args=(0,))
    warm.start()
    warm.join(PATIENCE)
    return context


def run(forks: ForkServerContext, work: Work, *, kill_after: float | None = None) -> bool:
    """Whether it was killed, by itself or by us; otherwise it came to its end, without an error."""
    process = forks.Process(target=work)
    process.start()
    process.join(PATIENCE if kill_after is None else kill_after)
    process.kill()
    process.join(PATIENCE)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def killed(forks: ForkServerContext, work: Work, *, times: int, seconds: float, seed: int) -> Iterator[Path]:
    """Kill `times` tries, each at a random moment of `seconds`, and let the last one end. Yields the folder of every sweep
    that is through: one may come to its end before its next kill, and then another is begun."""
    generator, places, count = np.random.default_rng(seed), itertools.count(), 0
    place = lambda: dataclasses.replace(work, out=work.out.parents[1] / f"killed-{next(places)}" / "sweep")  # noqa: E731
    current = place()
    while count < times:
        if run(forks, current, kill_after=generator.uniform(0, seconds)):
            count += 1
        else:
            yield current.out
            current = place()
    assert not run(forks, current)
    yield current.out


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


def assert_same(out: Path, whole: Path) -> None:
    """The same files, tables, adapters to the bit, and pictures but for the rounding of another batch."""
    assert files(out.parent) == files(whole.parent), "orphans, or something is missing"
    for name in ("table1.csv", "cells.csv", "curves.csv"):
        tables = [pd.read_csv(folder / name).drop(columns=SECONDS, errors="ignore") for folder in (out, whole)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    for adapter in whole.rglob(finetune.ADAPTER_FILE):
        found, expected = load_file(out / adapter.relative_to(whole)), load_file(adapter)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    for picture in whole.rglob("*.png"):
        found, expected = (np.asarray(Image.open(path), int) for path in (out / picture.relative_to(whole), picture))
        assert np.abs(found - expected).max() <= 1


def check(forks: ForkServerContext, work: Work, *, times: int, seed: int) -> None:
    began = time.perf_counter()
    assert not run(forks, work)
    seconds = time.perf_counter() - began
    for out in killed(forks, work, times=times, seconds=seconds, seed=seed):
        assert_same(out, work.out)


def test_killed_three_times(forks, work):
    check(forks, work, times=3, seed=0)


@pytest.mark.slow
def test_killed_fifty_times(forks, work):
    check(forks, work, times=50, seed=1)


@pytest.mark.slow
def test_killed_before_every_single_file_operation(forks, work):
    """Moments that chance hardly finds: between a file that is written and the one that says so."""
    work = dataclasses.replace(work, config=dataclasses.replace(work.config, alphas=(0.1,), n=3))
    assert not run(forks, work)
    for number in itertools.count():
        killed = dataclasses.replace(work, out=work.out.parents[1] / f"killed-{number}" / "sweep", kill_before=number)
        if not run(forks, killed):
            break
        assert not run(forks, dataclasses.replace(killed, kill_before=None)), f"stuck after operation {number}"
        assert_same(killed.out, work.out)
    assert number > 40, "so many at least"

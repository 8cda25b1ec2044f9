"""A sweep on several machines: Dask's processes give the rows of one, whatever dies is continued, nobody works on the same
cell twice at once, and what is missing is told in a line. The machines are processes of this one."""

import argparse
import dataclasses
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from painted import PaintedJudge, paint, toy_extractor

from debiaslib import presets, quality, sweep
from debiaslib.errors import InputError

SECONDS = ["train_s", "generate_s", "embed_s"]
NOWHERE = "tcp://127.0.0.1:9"
needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None,
                                reason="distributed is not installed: it comes with the extra `cluster`")


def dask_setup(_worker) -> None:
    """What every worker calls as it starts: instruments that load at once."""
    sweep.Judge = lambda _config: PaintedJudge()
    quality.EXTRACTORS["toy"] = toy_extractor


def loads() -> tuple[int, int]:
    """How often this process has loaded the model, and how often it had it at hand."""
    info = sweep.base_pipeline.cache_info()
    return info.misses, info.hits


@pytest.fixture
def place(small_pipe, tmp_path, monkeypatch) -> Path:
    """The current folder, with a model and faces; the paths below are relative to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sweep, "Judge", lambda _config: PaintedJudge())
    monkeypatch.setitem(quality.EXTRACTORS, "toy", toy_extractor)
    small_pipe.save_pretrained(tmp_path / "model")
    paint(tmp_path / "faces", men=10, women=10, size=32, gender=["Male"] * 10 + ["Female"] * 10)
    return tmp_path


@pytest.fixture
def preset(place) -> presets.Preset:
    return dataclasses.replace(presets.PRESETS["tiny"], source=str(place / "model"), image_size=32, train_steps=4, batch=4,
                               sample_steps=2, sample_batch=3)


@pytest.fixture
def config(place) -> sweep.SweepConfig:
    return sweep.SweepConfig(faces="faces", ratios=(0.25, 1.0), alphas=(0.0, 0.1), train_size=10, n=6, extractor="toy")


@contextmanager
def dask(place: Path, command: str, *options: str) -> Iterator[subprocess.Popen]:
    """`dask scheduler` or `dask worker` with a scheduler file, elsewhere than in `place`, until the end of the block."""
    (place / "elsewhere").mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{command}", "--scheduler-file", str(place / "scheduler.json"),
         "--host", "127.0.0.1", "--no-dashboard", *options], cwd=place / "elsewhere", env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def cluster(place: Path, *, workers: int):
    """The scheduler and a client of it, once the workers are there."""
    from distributed import Client

    one_each = ("--nthreads", "1", "--memory-limit", "0", "--nworkers", str(workers), "--preload", "test_sweep_cluster")
    with dask(place, "scheduler", "--port", "0") as scheduler, dask(place, "worker", *one_each):
        while not (place / "scheduler.json").exists() and scheduler.poll() is None:
            time.sleep(0.1)
        with Client(scheduler_file=str(place / "scheduler.json")) as client:
            client.wait_for_workers(workers, timeout=120)
            yield scheduler, client


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(*(table.drop(columns=SECONDS, errors="ignore") for table in (found, expected)))


@needs_dask
def test_workers_elsewhere_give_the_rows_of_one_process(preset, config, place):
    here = sweep.sweep(preset, config=config, out=Path("here"), progress=False)
    with cluster(place, workers=2) as (_, client):
        there = sweep.sweep(preset, config=config, out=Path("there"), scheduler="scheduler.json", progress=False)
        loaded, at_hand = zip(*client.run(loads).values(), strict=True)
        assert set(loaded) == {1} and sum(loaded) + sum(at_hand) >= 4, "each ran cells, and loaded its model once"
    assert_same(there, here)
    again = sweep.sweep(preset, config=config, out=Path("there"), scheduler=NOWHERE, progress=False)
    assert_same(again, there)


@needs_dask
@pytest.mark.slow
def test_a_sweep_whose_scheduler_dies_is_continued(preset, config, place, monkeypatch):
    whole = sweep.sweep(preset, config=config, out=Path("whole"), progress=False)
    real = sweep.write_table
    with cluster(place, workers=1) as (scheduler, client):
        address = client.scheduler.address

        def after_the_first_cell(out):
            real(out)
            if sweep.finished(out):
                scheduler.kill()
        monkeypatch.setattr(sweep, "write_table", after_the_first_cell)
        with pytest.raises(InputError, match="died.*continues where it stopped"):
            sweep.sweep(preset, config=config, out=Path("killed"), scheduler=address, progress=False)
    monkeypatch.setattr(sweep, "write_table", real)
    assert 1 <= len(sweep.finished(Path("killed"))) < 4
    assert_same(sweep.sweep(preset, config=config, out=Path("killed"), progress=False), whole)


@needs_dask
def test_workers_of_several_threads_are_refused_and_so_are_none(preset, config):
    from distributed import LocalCluster

    place = {"protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    for count, words in ((1, "workers of 2 threads"), (0, "no workers")):
        with LocalCluster(n_workers=count, threads_per_worker=2, processes=False, **place) as local:
            with pytest.raises(InputError, match=f"{words}.*--nthreads 1"):
                sweep.sweep(preset, config=config, out=Path("out"), scheduler=local.scheduler_address, progress=False)


@needs_dask
@pytest.mark.parametrize("address", [NOWHERE, "nonsense://x", "no-such-scheduler.json", "faces/metadata.csv"])
def test_an_address_where_nobody_answers(preset, config, address):
    began = time.perf_counter()
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        sweep.sweep(preset, config=config, out=Path("out"), scheduler=address, progress=False)
    assert time.perf_counter() - began < 30


def test_without_distributed_it_is_told_how_to_get_it(preset, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install 'distributed>="):
        sweep.sweep(preset, config=config, out=Path("out"), scheduler=NOWHERE, progress=False)


def test_workers_here_or_a_scheduler_not_both(capsys):
    parser = argparse.ArgumentParser()
    sweep.add_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--out", "out", "--workers", str(sweep.default_workers()), "--scheduler", NOWHERE])
    assert "not allowed with" in capsys.readouterr().err


def test_a_worker_that_does_not_see_the_folder_says_so(preset, config, tmp_path):
    cell = sweep.cells(config)[0]
    with pytest.raises(InputError, match="not to be seen from the worker"):
        sweep._run_cell(preset, config, cell, tmp_path / "there/cells" / cell.folder)
    assert not (tmp_path / "there").exists()


def test_two_sweeps_in_one_folder_are_refused(preset, config, tmp_path):
    with sweep._alone(tmp_path / "out"), pytest.raises(InputError, match="another sweep is at work there"):
        sweep.sweep(preset, config=config, out=tmp_path / "out", progress=False)


def test_a_cell_that_another_process_is_at_is_waited_for_and_not_run_again(preset, config, tmp_path):
    cell = sweep.cells(config)[0]
    folder = tmp_path / "cells" / cell.folder
    folder.mkdir(parents=True)
    (tmp_path / "sweep.json").write_text("{}")
    with FileLock(folder / ".lock"):
        waiting = threading.Thread(target=sweep._run_cell, args=(preset, config, cell, folder))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        (folder / "row.json").write_text("its row")
    waiting.join(60)
    assert not waiting.is_alive() and (folder / "row.json").read_text() == "its row"
    assert {path.name for path in folder.iterdir()} == {".lock", "row.json"}

"""A disk that fills up, a process that is killed: one clear line, nothing lost, and the next run carries on.

Linux's /dev/full refuses every byte as a full disk does; a link to it stands where a file is about to be written. Only
safetensors, which writes elsewhere and renames, would replace the link: its error is raised in its own words.
"""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from debiaslib import __main__ as cli
from debiaslib import autoencoder, checkpoints, finetune, generate, pool, presets, pretrain, report, sweep

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")

AUTOENCODER = autoencoder.AutoencoderConfig(channels=(8, 8, 16), batch=2, steps=4, adversary_from=2)
DECODER = autoencoder.SharpenConfig(batch=2, steps=4, adversary_from=2)
DENOISER = pretrain.DenoiserConfig(channels=(32, 32), layers=1, head_width=16, text_width=16, text_layers=1, batch=2,
                                   steps=4)


@pytest.fixture
def face_set(tmp_path: Path) -> Path:
    """Noise pictures with labels: what they show does not matter here."""
    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [f"images/{number:02d}.png" for number in range(24)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name)
    pd.DataFrame({"file_name": names, "gender": ["Male", "Female"] * 12, "age": "20-29", "race": "White",
                  "split": ["finetune"] * 20 + ["evaluate"] * 4}).to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def tiny(small_pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `tiny` is the small pipeline; checkpoints come every second step."""
    small_pipe.save_pretrained(tmp_path / "model")
    preset = dataclasses.replace(presets.PRESETS["tiny"], source=str(tmp_path / "model"), image_size=32, train_steps=6,
                                 batch=4, sample_steps=1, sample_batch=2)
    monkeypatch.setitem(presets.PRESETS, "tiny", preset)
    often = functools.partial(finetune.finetune, save_every=2)
    monkeypatch.setattr(finetune, "finetune", often)
    monkeypatch.setattr(sweep, "finetune", often)


def clog(path: Path) -> Path:
    """A link to /dev/full at `path`: writing there finds the disk full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(FULL)
    return path


@contextmanager
def full_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, call: int, member: str = "") -> Iterator[None]:
    """The `call`-th time that `owner.name` writes (to `member` of the first path among its arguments), the disk is full."""
    real, count = getattr(owner, name), iter(range(1, 1000))

    def write(*args, **options):
        if next(count) < call:
            return real(*args, **options)
        target = next(each for each in args if isinstance(each, Path)) / member
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"half a file")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write)
        yield


def says_full(capsys: pytest.CaptureFixture, where: str) -> bool:
    """One line on stderr that says what happened, where, and what to do."""
    shown = capsys.readouterr().err
    [line] = [line for line in shown.splitlines() if line.startswith("debiaslib ")]
    assert "Traceback" not in shown
    return "the disk is full" in line and where in line and "run the same command again: it continues" in line


def files(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file()}


# --- train ------------------------------------------------------------------------------------------------------------

def train(face_set: Path, out: Path) -> int:
    return cli.main(["train", "--faces", str(face_set), "--ratio", "1", "--train-size", "10", "--alpha", "0.1",
                     "--out", str(out)])


def same_adapter(a: Path, b: Path) -> bool:
    a, b = (load_file(folder / finetune.ADAPTER_FILE) for folder in (a, b))
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_train_keeps_its_last_checkpoint(face_set, tmp_path, monkeypatch, capsys):
    assert train(face_set, tmp_path / "whole") == 0
    out = tmp_path / "out"
    with full_at(monkeypatch, checkpoints, "save_file", call=2):
        assert train(face_set, out) == 2
    assert says_full(capsys, str(out / "checkpoint.safetensors"))
    assert list(files(out)) == ["checkpoint.safetensors"]
    assert len(checkpoints.notes(out / "checkpoint.safetensors")["curve"]) == 2
    steps, real = [], finetune.update
    monkeypatch.setattr(finetune, "update", lambda run, step: steps.append(step) or real(run, step))
    assert train(face_set, out) == 0
    assert steps == [2, 3, 4, 5] and same_adapter(out, tmp_path / "whole")


def test_train_without_room_for_the_adapter(face_set, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    with full_at(monkeypatch, finetune.StableDiffusionPipeline, "save_lora_weights", call=1, member=finetune.ADAPTER_FILE):
        assert train(face_set, out) == 2
    assert says_full(capsys, "")
    assert not (out / finetune.ADAPTER_FILE).exists() and not (out / finetune.RECORD_FILE).exists()
    assert checkpoints.notes(out / "checkpoint.safetensors")["curve"], "the training is not lost"
    assert train(face_set, out) == 0
    assert (out / finetune.ADAPTER_FILE).exists() and not (out / "adapter.partial").exists()


def test_train_without_room_for_its_record(face_set, tmp_path, capsys):
    clog(tmp_path / "out/run.json.partial")
    assert train(face_set, tmp_path / "out") == 2
    assert says_full(capsys, str(tmp_path / "out/run.json"))
    assert not list(tmp_path.glob("out/run.json*"))
    assert train(face_set, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["preset"] == "tiny"


# --- generate ---------------------------------------------------------------------------------------------------------

def draw(out: Path) -> int:
    return cli.main(["generate", "-n", "5", "--seed", "3", "--out", str(out)])


@pytest.mark.parametrize("name", ["images/00003.png", "metadata.csv"])
def test_generate_keeps_what_is_drawn(tmp_path, capsys, name):
    assert draw(tmp_path / "whole") == 0
    out = tmp_path / "out"
    clog(out / f"{name}.partial")
    generate.write_json(out / "generate.json", json.loads((tmp_path / "whole/generate.json").read_text()))
    assert draw(out) == 2
    assert says_full(capsys, str(out / name))
    kept = files(out, "*.png")
    assert len(kept) == (3 if name.startswith("images") else 5) and not (out / "metadata.csv").exists()
    written = {name: (out / name).stat().st_mtime_ns for name in kept}
    assert draw(out) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == written, "what was drawn is not drawn again"
    assert files(out, "*.png") == files(tmp_path / "whole", "*.png")
    assert (out / "metadata.csv").read_text() == (tmp_path / "whole/metadata.csv").read_text()


# --- pretrain ---------------------------------------------------------------------------------------------------------

def pretrain_small(face_set: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    for name in ("train_autoencoder", "sharpen_decoder", "train_denoiser"):
        monkeypatch.setattr(pretrain, name, functools.partial(getattr(pretrain, name), save_every=2))
    return cli.guarded("pretrain", lambda: pretrain.pretrain(
        face_set, out=folder / "model", work=folder / "work", split="finetune", image_size=32, autoencoder=AUTOENCODER,
        decoder=DECODER, denoiser=DENOISER, progress=False) is None)


@pytest.mark.parametrize("call, stage", [(2, "autoencoder"), (4, "decoder"), (6, "denoiser")])
def test_pretrain_keeps_the_last_checkpoint_of_its_stage(face_set, tmp_path, monkeypatch, capsys, call, stage):
    """Files are written in the order autoencoder 2, 4, decoder 2, 4, denoiser 2, 4."""
    assert pretrain_small(face_set, tmp_path / "whole", monkeypatch) == 0
    checkpoint = tmp_path / f"out/work/{stage}.safetensors"
    with full_at(monkeypatch, checkpoints, "save_file", call=call):
        assert pretrain_small(face_set, tmp_path / "out", monkeypatch) == 2
    assert says_full(capsys, str(checkpoint))
    with checkpoints.safe_open(checkpoint, framework="pt") as file:
        assert file.metadata()["step"] == "2"
    assert not (tmp_path / "out/model").exists() and not list(tmp_path.rglob("*.safetensors.partial"))
    assert pretrain_small(face_set, tmp_path / "out", monkeypatch) == 0
    for name in ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "out/model" / name).read_bytes() == (tmp_path / "whole/model" / name).read_bytes()


def test_pretrain_replaces_a_model_by_a_whole_one_only(small_pipe, tmp_path, monkeypatch, capsys):
    pretrain.save_pipeline(small_pipe, tmp_path / "out", curves={})
    before = files(tmp_path / "out")
    save = functools.partial(pretrain.save_pipeline, small_pipe, tmp_path / "out", curves={"new": 1})
    with full_at(monkeypatch, pretrain, "write_manifest", call=1, member="manifest.json.partial"):
        assert cli.guarded("pretrain", lambda: save() or 0) == 2
    assert says_full(capsys, "") and files(tmp_path / "out") == before
    assert cli.guarded("pretrain", lambda: save() or 0) == 0
    assert json.loads((tmp_path / "out/training.json").read_text()) == {"new": 1}


# --- sweep ------------------------------------------------------------------------------------------------------------

def run_sweep(face_set: Path, out: Path) -> int:
    return cli.main(["sweep", "--faces", str(face_set), "--ratios", "1", "--alphas", "0", "0.1", "--train-size", "10",
                     "-n", "2", "--train-steps", "2", "--workers", "1", "--out", str(out)])


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps without judge, features and report: what they write is at stake, not what it says."""
    figures = dict.fromkeys(("face_rate", "male_share", "fd", "fd_low", "fd_high", "fd_corrected"), 0.5)
    monkeypatch.setattr(sweep, "instruments", lambda preset, config: {})
    monkeypatch.setattr(sweep, "figures_of", lambda folder, preset, instruments: figures)
    monkeypatch.setattr(report, "write_report", lambda out, table: None)


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "table1.csv").drop(columns=["train_s", "generate_s"])


def test_sweep_keeps_its_finished_cells(face_set, blind, tmp_path, capsys):
    assert run_sweep(face_set, tmp_path / "whole") == 0
    out = tmp_path / "out"
    cell = out / "cells" / sweep.Cell(indicator="literal", ratio=1.0, alpha=0.1, seed=0).folder
    clog(cell / "row.json.partial")
    assert run_sweep(face_set, out) == 2
    assert says_full(capsys, str(cell / "row.json"))
    assert len(table(out)) == 1, "the first cell's row is on disk"
    first = (out / "table1.csv").read_bytes()
    clog(out / "table1.csv.partial")
    assert run_sweep(face_set, out) == 2
    assert says_full(capsys, "table1.csv") and (out / "table1.csv").read_bytes() == first
    assert run_sweep(face_set, out) == 0
    pd.testing.assert_frame_equal(table(out), table(tmp_path / "whole"), rtol=1e-4)


# --- pool -------------------------------------------------------------------------------------------------------------

class SeesWhatWasAsked:
    """A judge that reads even pictures as women and odd ones as men."""

    def judge(self, images: np.ndarray) -> pd.DataFrame:
        word = np.where(np.arange(len(images)) % 2 == 0, "Woman", "Man")
        return pd.DataFrame({"face": True, "face_score": 1.0, "p_man": 0.5, "confidence": 0.9, "perceived": word,
                             "abstained": "", "perceived_age": 30.0})


def test_pool_keeps_its_chunks(small_pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "_tools", lambda model: (small_pipe, SeesWhatWasAsked()))
    config = pool.PoolConfig(finetune=10, reference=2, evaluate=2, draws_a_prompt=1, steps=1)
    make = lambda out: cli.guarded("pool", lambda: pool.make_pool(  # noqa: E731
        str(tmp_path / "model"), out=out, config=config, workers=1, progress=False) is None)
    assert make(tmp_path / "whole") == 0
    clog(tmp_path / "out.partial/chunks/Male-000.npz.partial")
    assert make(tmp_path / "out") == 2
    assert says_full(capsys, "Male-000.npz")
    assert list(files(tmp_path / "out.partial")) == ["chunks/Female-000.npz"] and not (tmp_path / "out").exists()
    chunk = (tmp_path / "out.partial/chunks/Female-000.npz").stat().st_mtime_ns
    with full_at(monkeypatch, pool, "write_manifest", call=1, member="manifest.json.partial"):
        assert make(tmp_path / "out") == 2
    assert says_full(capsys, "") and not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial/chunks/Female-000.npz").stat().st_mtime_ns == chunk, "not drawn again"
    assert make(tmp_path / "out") == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


# --- killed for real --------------------------------------------------------------------------------------------------

def test_a_process_killed_while_it_writes_leaves_the_last_checkpoint(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
import torch
from debiaslib import checkpoints
path, network = Path(sys.argv[1]), torch.nn.Linear(2, 2)
checkpoints.save(path, step=1, modules={"net": network})
def half(tensors, target, metadata):
    target.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save_file = half
checkpoints.save(path, step=2, modules={"net": network})
"""
    path = tmp_path / "c.safetensors"
    outcome = subprocess.run([sys.executable, "-c", script, str(path)], check=False, env=os.environ)
    assert outcome.returncode == -signal.SIGKILL
    network = torch.nn.Linear(2, 2)
    assert checkpoints.load(path, modules={"net": network})[0] == 1
    checkpoints.save(path, step=2, modules={"net": network})
    assert checkpoints.load(path, modules={"net": network})[0] == 2 and list(tmp_path.glob("c.*")) == [path]

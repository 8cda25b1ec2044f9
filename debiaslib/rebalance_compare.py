"""What rebalancing is worth: how much a generator amplifies a bias, and every way to balance it on one generator and budget.

Every method is asked for the same number of pictures from the same seeds and read by the same two judges, the one that
confirmed codes while fitting and the one that took no part; what it cost is told beside what it brought.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist

from debiaslib import captions, quality
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval, amplification_interval, corrected_share_interval, share_interval
from debiaslib.latent_generators import DiffusionGenerator, LatentGenerator, draw_images, draw_latents, with_prompt
from debiaslib.rebalance import Rebalancer, conditional_directions, distance_to_target, projections, quotas, read_scores

KNOWN_SHARES = {"tiny": {"male": 0.5165, "older": 0.3152}}
"""The positive side's share among the labelled faces that a generator was trained on: for `tiny` the `pretrain` split of
FairFace (13,860 faces; older: 40 and above). Of `dcgan` nothing is stated: DigiFace-1M comes without such labels."""

FITTED = ("mixtures", "boundary edit", "h-space guidance")
"""Methods that need the fit, and so its judge calls."""

DRAWS_LIMIT = 20
"""Rejection sampling gives up on the combinations still missing after this many times as many pictures as were asked for."""

WORDS = {"male": {"gender": ("Female", "Male")}, "older": {"age": ("20-29", "60-69")}}
"""What an attribute's sides are called in captions. Skin tone has no word of its own, and ethnicity does not stand in for
it."""


@dataclass(frozen=True)
class Drawn:
    """Pictures uint8 (n, H, H, 3) of one method and the judge calls while sampling. `paired`: row i comes from the plain
    picture i."""

    images: np.ndarray
    calls: int = 0
    paired: bool = False


Method = Callable[[int, int], Drawn]
"""(n, seed) to pictures."""


def amplification(scores: pd.DataFrame, known: Mapping[str, float | Interval], *,
                  confusions: Mapping[str, Confusion] | None = None, level: float = 0.95) -> pd.DataFrame:
    """How much a generator amplifies each attribute: its share in judged samples minus the share in its training data.

    `scores` (N rows, a column an attribute) are probabilities of the positive side, NaN an abstention; `known` the share in
    the data, counted (a number) or sampled (an interval). A confusion of the judge takes its error out (CLEAM). Columns:
    attribute, share, low, high (Wilson), data_share, amplification, amplification_low, amplification_high, n, abstained,
    corrected. Raises InputError for an attribute without scores.
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
        found = amplification_interval(share, data)
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
            methods["h-space guidance"] = boundary_edit(generator, found, target, margin=margin, columns=slice(noise, None))
    if isinstance(generator, DiffusionGenerator) and combination_prompts(found):
        methods["prompt mixing"] = prompt_mixing(generator, found, target)
    return methods | {"mixtures": mixtures(generator, found, target)}


# --- the comparison ---------------------------------------------------------------------------------------------------

def compare_methods(generator: LatentGenerator, found: Rebalancer, target: np.ndarray, judge, second, *, n: int = 800,
                    seed: int = 0, methods: Mapping[str, Method] | None = None,
                    extractor: str | quality.Extractor = "efficientnet-lite0",
                    embed: Callable[[np.ndarray], np.ndarray] | None = None) -> pd.DataFrame:
    """One row a method: distances to the target by both judges, quality, diversity, identity kept, and costs.

    `judge` confirmed while `found` was fitted, `second` took no part. Columns: method, n; for each judge, as suffixes
    `_confirming` and `_scoring`: kl, fd, fd_low, fd_high, abstained; kid, precision, recall, density, coverage against n
    plain pictures of other seeds (so that "no change" says what sampling alone does); spread (mean distance of two pictures'
    features) and spread_ratio to the plain ones'; identity_change (mean distance of the face embedding `embed` to the plain
    picture of the same seed over that between two plain pictures: 0 the same, 1 a stranger; NaN where nothing is paired);
    seconds and cpu_seconds a thousand pictures, calls a thousand pictures and calls_fitting.
    """
    methods = methods or default_methods(generator, found, target, judge)
    extractor = quality.load_extractor(extractor) if isinstance(extractor, str) else extractor
    base = plain(generator)(n, seed).images
    reference = quality.extract(plain(generator)(n, seed + n).images, extractor=extractor)
    known = None if embed is None else embed(base)
    rows = []
    for name, method in methods.items():
        began = time.perf_counter(), time.process_time()
        drawn = method(n, seed)
        spent = [now - then for now, then in zip((time.perf_counter(), time.process_time()), began, strict=True)]
        row = {"method": name, "n": len(drawn.images)}
        for one, role in ((judge, "confirming"), (second, "scoring")):
            told = distance_to_target(read_scores(one, drawn.images, found.cells.attributes), found.cells, target)
            row |= {f"{key}_{role}": told[key] for key in ("kl", "fd", "fd_low", "fd_high", "abstained")}
        row |= _quality(quality.extract(drawn.images, extractor=extractor), reference)
        row["identity_change"] = _identity_change(known, embed, drawn) if embed else np.nan
        per = 1000 / len(drawn.images)
        row |= {"seconds": spent[0] * per, "cpu_seconds": spent[1] * per, "calls": drawn.calls * per,
                "calls_fitting": found.record.get("calls", 0) if name in FITTED else 0}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(spread_ratio=table["spread"] / _spread(reference.pool))


def _quality(features: quality.Features, reference: quality.Features) -> dict[str, float]:
    scores = quality.neighbour_scores(features.pool, reference.pool)
    return {"kid": quality.kernel_distance(features.pool, reference.pool), **scores, "spread": _spread(features.pool)}


def _spread(features: np.ndarray, *, most: int = 1000) -> float:
    """Mean Euclidean distance between two of the pictures."""
    return float(pdist(features[:most]).mean())


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


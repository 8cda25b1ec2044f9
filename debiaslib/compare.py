"""Side by side: any number of folders, quality within each perceived group, what a change of composition alone does.

A distance to a balanced reference improves when a model merely draws more women, though no picture is better. So quality
is measured within each perceived group against the reference's faces of that label, and averaged over the groups.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from debiaslib import fairness, measure, quality
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.faces import IS_MALE
from debiaslib.quality import Features

if TYPE_CHECKING:
    from debiaslib.judges import Judge

METRICS = ("kid", "density", "coverage")
AVERAGE = "average"
WORSE = {"kid": 1, "density": -1, "coverage": -1}
"""The direction in which each is worse."""

PUZZLE = (0.014, 0.043)
"""The range of the "FID" that S1 prints (800 pictures a model)."""

RESULT_COLUMNS = ("n", "face_rate", "abstained", "male_share", "male_share_low", "male_share_high", "fd", "fd_low",
                  "fd_high", "null_band", "fd_corrected", "fd_corrected_low", "fd_corrected_high", "frechet", "kid",
                  "kid_low", "kid_high", "precision", "recall", "density", "coverage", "is_mean", "is_std")

ONE_ERROR = 0.6826894921370859
"""The level of an interval whose half width is one standard error."""


def compare_folders(folders: Sequence[Path | str], *, reference: Path | str | Features | measure.Reference,
                    names: Sequence[str] | None = None, judge: "Judge | None" = None,
                    extractor: str | quality.Extractor = "efficientnet-lite0", size: int | None = None,
                    level: float = 0.95, progress: bool = False, **options) -> pd.DataFrame:
    """Measure any number of folders with the same instruments; a row a folder, the first one the baseline.

    `names` are the rows' index, by default the paths. `size` in pixels is by default the first folder's own. `options`
    go to `measure.measure` (confusion, condition, reference_split, cache).

    Columns: those of `measure` that are numbers (`RESULT_COLUMNS`); group_kid, group_density, group_coverage, averaged over
    perceived groups at equal numbers in all folders (NaN without a labelled reference); then what changes from the first
    folder: pairs (pictures in common, by seed or else by file name) and fd_change, fd_corrected_change (where the same
    confusion of the judge fits both) and kid_change, each with _low and _high at `level`, over those pairs. Above 0 a folder
    is less fair, or farther from the reference, than the first. `attrs` holds the judge, the extractor, what its Frechet
    distance may be called, the reference, and each folder's warnings.
    Raises InputError as `measure.measure` does, and when no folder is given or names do not fit.
    """
    names = [str(folder) for folder in folders] if names is None else list(names)
    if not folders or len(set(names)) != len(folders):
        raise InputError(f"{len(folders)} folders and {len(set(names))} different names: give one folder at least, "
                         "each with a name of its own.")
    extractor = quality.load_extractor(extractor) if isinstance(extractor, str) else extractor
    judge = measure._default_judge() if judge is None else judge
    size = size or measure.open_pictures(folders[0]).size
    opened = measure.open_reference(reference, split=options.pop("reference_split", None), size=size, extractor=extractor,
                                    cache=options.pop("cache", None), progress=progress)
    found = [measure.measure_parts(folder, reference=opened, judge=judge, extractor=extractor, size=size, level=level,
                                   progress=progress, **options) for folder in folders]
    rows = [{name: one.result[name] for name in RESULT_COLUMNS} for one in found]
    for row, one, groups in zip(rows, found, _group_averages(found, opened), strict=True):
        row |= groups | _changes(one, found[0], opened, level)
    table = pd.DataFrame(rows, index=pd.Index(names, name="folder")).astype(float)
    table = table.astype({"n": int, "abstained": int, "pairs": int})
    table.attrs = {"judge": judge.identity, "extractor": extractor.name, "distance": quality.distance_name(extractor.name),
                   "reference": found[0].result["reference"],
                   "warnings": {name: one.result["warnings"] for name, one in zip(names, found, strict=True)}}
    return table


def quality_by_group(features: Features, perceived: Sequence[str], reference: Features, labels: Sequence[str], *,
                     per_group: int | None = None, level: float = 0.95, halves: int = 40, seed: int = 0) -> pd.DataFrame:
    """KID, density and coverage of the pictures perceived as each group, against the reference's faces of that label.

    `perceived` and `labels` have a word a row; "Man" and "Male" are the same group, "" (abstained) is none. A group is one
    of the reference's. Returns group, n, n_reference and each metric with _low and _high at `level`, a row a group and a
    last one, "average": every group counts alike, however many pictures it has. NaN where a group has less than
    `quality.FEWEST` pictures, and so in the average. KID's interval is its jackknife's, the others' `half_sample_error`'s.

    Coverage grows with the number of pictures: to compare models, give `per_group`, at most so many of each group, drawn.
    Raises InputError when words and rows differ in number or the extractors differ, or no label is left.
    """
    parts = _split_groups(features, perceived, reference, labels, per_group=per_group, seed=seed)
    rows = []
    for group, (pool, real) in parts.items():
        values, errors = _scores(pool, real), _errors([pool], real, halves=halves, seed=seed)
        rows.append((group, len(pool), len(real), values, errors))
    values, errors = (np.array([row[i] for row in rows]) for i in (3, 4))
    mean = (AVERAGE, sum(row[1] for row in rows), sum(row[2] for row in rows), values.mean(axis=0),
            np.sqrt((errors**2).sum(axis=0)) / len(rows))
    return pd.DataFrame([_group_row(*row, level=level) for row in [*rows, mean]])


def group_change(features: Features, perceived: Sequence[str], baseline: Features, baseline_perceived: Sequence[str],
                 reference: Features, labels: Sequence[str], *, tolerance: float = 0.1, level: float = 0.95,
                 halves: int = 40, seed: int = 0) -> pd.DataFrame:
    """What changes within groups, averaged over them, from `baseline` to `features`, at equal numbers in both.

    Returns metric, baseline, value, change (value - baseline), low, high and no_worse: at most `tolerance` of the
    baseline's value worse, or the interval includes no loss. The reference is shared, so its chance mostly cancels; a seed
    may be perceived as another group in the other model, so pictures are not paired.
    """
    sizes = [_smallest_group(words, labels) for words in (perceived, baseline_perceived)]
    options = {"per_group": min(sizes), "seed": seed}
    new = _split_groups(features, perceived, reference, labels, **options)
    old = _split_groups(baseline, baseline_perceived, reference, labels, **options)
    values, before = (np.mean([_scores(*part) for part in parts.values()], axis=0) for parts in (new, old))
    errors = [_errors([pool, old[group][0]], real, halves=halves, seed=seed) for group, (pool, real) in new.items()]
    error, rows = np.sqrt((np.array(errors)**2).sum(axis=0)) / len(new), []
    for metric, value, start, spread in zip(METRICS, values, before, error, strict=True):
        change = quality.interval_of(value - start, spread, level=level, n=min(sizes), method="halves")
        loss, sign = WORSE[metric] * (value - start), WORSE[metric]
        includes_none = change.low <= 0 if sign > 0 else change.high >= 0
        rows.append((metric, start, value, value - start, change.low, change.high,
                     bool(loss <= tolerance * abs(start) or includes_none)))
    return pd.DataFrame(rows, columns=["metric", "baseline", "value", "change", "low", "high", "no_worse"])


def composition_curve(features: Features, perceived: Sequence[str], reference: Features, labels: Sequence[str], *,
                      shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), n: int = 200, repeats: int = 5,
                      seed: int = 0) -> pd.DataFrame:
    """The same pictures drawn in other proportions: what composition alone does to a distance.

    `n` pictures are drawn of those perceived as one of two groups, a `shares` of them of the first ("Man" before "Woman"),
    `repeats` times. Returns share, repeat, frechet, kid (against the whole reference) and group_kid (within groups,
    averaged): where the reference is balanced the first two are lowest near .5, and the last is level. With 800 FairFace
    faces, KID falls from .0089 (a share of .9) to .0026 (.5), the Frechet distance from 19.7 to 16.0, and the KID within
    groups stays at .0025. Where one group is drawn worse than the other, the plain distances rather praise a
    model for drawing less of it.
    Raises InputError when there are not two groups, or not enough pictures for a share.
    """
    whole = _split_groups(features, perceived, reference, labels, per_group=None, seed=seed)
    if len(whole) != 2:
        raise InputError(f"groups {', '.join(whole)}: a share is of the first of two. Give a reference with two labels.")
    (first, _), (second, _) = whole.values()
    generator, rows = np.random.default_rng(seed), []
    for share in shares:
        wanted = round(share * n), n - round(share * n)
        if wanted[0] > len(first) or wanted[1] > len(second) or min(wanted) < quality.FEWEST:
            raise InputError(f"share {share:g} of {n} needs {wanted[0]} and {wanted[1]} pictures, of {len(first)} and "
                             f"{len(second)} there are, {quality.FEWEST} at least of each. Give another share or n.")
        for repeat in range(repeats):
            parts = [pool[generator.permutation(len(pool))[:size]]
                     for pool, size in zip((first, second), wanted, strict=True)]
            within = [_kid(part, real) for part, (_, real) in zip(parts, whole.values(), strict=True)]
            drawn = np.concatenate(parts)
            rows.append((share, repeat, quality.frechet_distance(drawn, reference.pool), _kid(drawn, reference.pool),
                         float(np.mean(within))))
    return pd.DataFrame(rows, columns=["share", "repeat", "frechet", "kid", "group_kid"])


def scale_candidates(features: Features, reference: Features, *, stem: tuple[np.ndarray, np.ndarray] | None = None,
                     pixels: tuple[np.ndarray, np.ndarray] | None = None,
                     fits: tuple[float, float] = PUZZLE) -> pd.DataFrame:
    """What a "FID" of .014 might be: one pair of picture sets on every scale that a tool may print.

    `stem` are features of the network's first layer (see `stem_features`), `pixels` the pictures themselves, uint8. Returns
    candidate, dimension, value, n, m and fits: whether the value lies in the range `fits`, by default that of S1's table.
    That a value fits shows a scale to be possible, not that it was used.
    """
    quality.check_same_extractor(features, reference)
    pair, n, m = (features.pool, reference.pool), len(features), len(reference)
    rows = [("KID", pair[0].shape[1], quality.kernel_distance_interval(*pair).estimate)]
    for name, change in _CANDIDATES.items():
        rows.append((f"Frechet, {name}", *_changed_frechet(change, pair)))
    logits = features.logits, reference.logits
    rows.append(("Frechet, logits", *_changed_frechet(_same, logits)))
    rows.append(("Frechet, class probabilities", *_changed_frechet(_softmax, logits)))
    if stem is not None:
        rows.append(("Frechet, first layer", *_changed_frechet(_same, stem)))
    if pixels is not None:
        colours = [part.mean(axis=(1, 2)) / 255 for part in pixels]
        rows.append(("Frechet, mean colour in [0, 1]", *_changed_frechet(_same, colours)))
    low, high = fits
    return pd.DataFrame([(*row, n, m, low <= row[2] <= high) for row in rows],
                        columns=["candidate", "dimension", "value", "n", "m", "fits"])


def fid_puzzle(samples: Path | str, *, reference: Path | str, out: Path | str, n: int = 800, size: int = 64, seed: int = 0,
               overwrite: bool = False, progress: bool = False) -> pd.DataFrame:
    """`scale_candidates` on two pairs of sets, as a table in `out` with a JSON file beside it that says how it was made.

    Pair "generated": `n` of the `samples` against the reference (its split "evaluate", if there is one), both at `size`
    px. Pair "real": one half of the reference against the other, which no model can beat. The column `brackets` says of a
    candidate whether the published range lies between its two values. Raises InputError when `out` exists and `overwrite`
    is not set.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists. Give another name, or overwrite=True.")
    split = measure._usual_split(Path(reference))
    ours, real = measure.open_pictures(samples, size=size), measure.open_pictures(reference, split=split, size=size)
    order = [np.random.default_rng(seed).permutation(len(part)) for part in (ours, real)]
    pixels = [np.concatenate(list(part)) for part in (ours, real)]
    pixels = [pixels[0][order[0][:n]], pixels[1][order[1]]]
    network, first_layer = quality.load_extractor("efficientnet-lite0"), quality.load_stem()
    features = [quality.extract(part, extractor=network, progress=progress) for part in pixels]
    stem = [quality.extract(part, extractor=first_layer, progress=progress).pool for part in pixels]
    half = len(pixels[1]) // 2
    pairs = {"generated": [(part[0], part[1]) for part in (features, stem, pixels)],
             "real": [(part[1][:half], part[1][half:]) for part in (features, stem, pixels)]}
    table = pd.concat([scale_candidates(*whole, stem=first, pixels=colours).assign(pair=name)
                       for name, (whole, first, colours) in pairs.items()], ignore_index=True)
    ends = table.pivot(index="candidate", columns="pair", values="value")
    table["brackets"] = table["candidate"].map((ends["real"] <= PUZZLE[0]) & (ends["generated"] >= PUZZLE[1]))
    table = table[["pair", "candidate", "dimension", "value", "n", "m", "fits", "brackets"]]
    told = {"command": f"python -c \"from debiaslib import compare; compare.fid_puzzle({_short(samples)!r}, reference="
                       f"{_short(reference)!r}, out={_short(out)!r}, n={n}, size={size}, seed={seed})\"",
            "extractor": network.name, "reference_split": split, "published_range": list(PUZZLE),
            "pairs": {"generated": "samples against the reference", "real": "half of the reference against the other"}}
    write_table(table, out, told)
    return table


def _short(path: Path | str) -> str:
    """A path as it was given; an absolute one, which says something of the machine, by its name alone."""
    return Path(path).name if Path(path).is_absolute() else Path(path).as_posix()


def write_table(table: pd.DataFrame, out: Path, told: dict, *, float_format: str = "%.6g") -> None:
    """A table as CSV, and what there is to tell of it as JSON of the same name beside it, each written whole."""
    for path, text in ((out, table.to_csv(index=False, float_format=float_format)),
                       (out.with_suffix(".json"), json.dumps(told, indent=1) + "\n")):
        write_whole(path, text.encode())


def stem_features(images: quality.Images, *, progress: bool = False) -> np.ndarray:
    """EfficientNet-Lite0's first layer, averaged over the picture: float32 (N, 32) of uint8 (N, H, W, 3) RGB.

    It stands in for the 64 features of Inception's first pooling layer, which clean-fid's and pytorch-fid's network
    offers as its smallest.
    """
    return quality.extract(images, extractor=quality.load_stem(), progress=progress).pool


def _same(part: np.ndarray, _reference: np.ndarray) -> np.ndarray:
    return part


def _softmax(part: np.ndarray, _reference: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(part.astype(float), axis=1)


def _principal(dimension: int) -> Callable:
    def change(part: np.ndarray, reference: np.ndarray) -> np.ndarray:
        centred = reference - reference.mean(axis=0)
        return (part - reference.mean(axis=0)) @ np.linalg.svd(centred, full_matrices=False)[2][:dimension].T

    return change


def _unit_length(part: np.ndarray, _reference: np.ndarray) -> np.ndarray:
    return part / np.linalg.norm(part, axis=1, keepdims=True)


def _over_dimension(part: np.ndarray, _reference: np.ndarray) -> np.ndarray:
    return part / np.sqrt(part.shape[1])


def _over_variance(part: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return part / np.sqrt(reference.var(axis=0).sum())


_CANDIDATES = {"pooled features": _same, "64 principal components": _principal(64), "8 principal components": _principal(8),
               "2 principal components": _principal(2), "per dimension (over D)": _over_dimension,
               "over the reference's total variance": _over_variance, "features of unit length": _unit_length}


def _changed_frechet(change: Callable, pair: Sequence[np.ndarray]) -> tuple[int, float]:
    """Dimension and distance of both sets after `change(part, reference)`."""
    parts = [change(part.astype(float), pair[1].astype(float)) for part in pair]
    return parts[0].shape[1], quality.frechet_distance(*parts)


def _word(word: str) -> str:
    """The judge's word for a label: "Male" and "man" are "Man"."""
    is_male = IS_MALE.get(str(word).strip().lower())
    return str(word) if is_male is None else "Man" if is_male else "Woman"


def _words(words: Sequence[str], rows: int, what: str) -> np.ndarray:
    if len(words) != rows:
        raise InputError(f"{len(words)} {what} for {rows} pictures: give a word a picture, '' where there is none.")
    return np.array([_word(word) for word in words], dtype=object)


def _split_groups(features: Features, perceived: Sequence[str], reference: Features, labels: Sequence[str], *,
                  per_group: int | None, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each of the reference's groups: the pooled features perceived as it (`per_group` at most) and labelled with it."""
    quality.check_same_extractor(features, reference)
    seen, known = _words(perceived, len(features), "perceived words"), _words(labels, len(reference), "labels")
    groups = sorted(set(known) - {""})
    if not groups:
        raise InputError("no label in the reference: quality within groups needs one a picture. Give a labelled reference.")
    out = {}
    for group in groups:
        rows = np.flatnonzero(seen == group)
        if per_group is not None and per_group < len(rows):
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:per_group])
        out[group] = features.pool[rows], reference.pool[known == group]
    return out


def _smallest_group(perceived: Sequence[str], labels: Sequence[str]) -> int:
    seen = [_word(word) for word in perceived]
    return min(seen.count(group) for group in {_word(label) for label in labels} - {""})


def _kid(pool: np.ndarray, real: np.ndarray) -> float:
    return quality.kernel_distance_interval(pool, real).estimate


def _scores(pool: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`METRICS`, as (3,); NaN where there are too few pictures."""
    if min(len(pool), len(real)) < quality.FEWEST:
        return np.full(len(METRICS), np.nan)
    return np.array([_kid(pool, real), *quality.density_coverage(pool, real)])


def _errors(pools: list[np.ndarray], real: np.ndarray, *, halves: int, seed: int) -> np.ndarray:
    """Standard errors of `METRICS` (3,) for one pool, or of the difference of two against the same reference."""
    if min(map(len, [*pools, real])) < 2 * quality.FEWEST:
        return np.full(len(METRICS), np.nan)

    def balls(*rows: np.ndarray) -> np.ndarray:
        held = [np.array(quality.density_coverage(pool[row], real[rows[-1]]))
                for pool, row in zip(pools, rows[:-1], strict=True)]
        return held[0] - held[1] if len(held) > 1 else held[0]

    spread = quality.half_sample_error(balls, tuple(map(len, [*pools, real])), repeats=halves, seed=seed)
    if len(pools) > 1:
        kid = quality.kernel_distance_difference(*pools, real, paired=False, level=ONE_ERROR)
    else:
        kid = quality.kernel_distance_interval(*pools, real, level=ONE_ERROR)
    return np.array([(kid.high - kid.low) / 2, *spread])


def _group_row(group: str, n: int, n_reference: int, values: np.ndarray, errors: np.ndarray, *, level: float) -> dict:
    row = {"group": group, "n": n, "n_reference": n_reference}
    for metric, value, error in zip(METRICS, values, errors, strict=True):
        ends = {"kid": (-np.inf, np.inf), "density": (0, np.inf), "coverage": (0, 1)}[metric]
        found = quality.interval_of(value, error, level=level, n=n, method="", least=ends[0], most=ends[1])
        row |= {metric: value, f"{metric}_low": found.low, f"{metric}_high": found.high}
    return row


def _group_averages(found: list[measure.Measured], reference: measure.Reference) -> list[dict[str, float]]:
    """`METRICS` averaged over groups, at the same number of pictures of every group and folder."""
    names = [f"group_{metric}" for metric in METRICS]
    if reference.labels is None:
        return [dict.fromkeys(names, np.nan) for _ in found]
    fewest = min(_smallest_group(one.rows["perceived"], reference.labels) for one in found)
    out = []
    for one in found:
        parts = _split_groups(one.features, one.rows["perceived"], reference.features, reference.labels,
                              per_group=max(fewest, 1), seed=0)
        out.append(dict(zip(names, np.mean([_scores(*part) for part in parts.values()], axis=0), strict=True)))
    return out


def _changes(one: measure.Measured, first: measure.Measured, reference: measure.Reference, level: float) -> dict[str, float]:
    """FD and KID of `one` less those of `first`, on the pictures that they have in common."""
    rows = _pairs(one.pictures, first.pictures)
    pairs = 0 if one is first else len(rows[0])
    found: dict[str, fairness.Interval | None] = dict.fromkeys(("fd", "fd_corrected", "kid"))
    if pairs >= 3:
        words = [part.rows["perceived"].to_numpy()[row] for part, row in zip((one, first), rows, strict=True)]
        if all((word != "").any() for word in words):
            found["fd"] = fairness.paired_difference(*words, level=level)
        if found["fd"] and one.confusion and one.confusion == first.confusion:
            with contextlib.suppress(InputError):  # the judge is at chance there: no figure
                found["fd_corrected"] = fairness.paired_difference(*words, confusion=one.confusion, level=level)
        pools = [part.features.pool[row] for part, row in zip((one, first), rows, strict=True)]
        found["kid"] = quality.kernel_distance_difference(*pools, reference.features.pool, level=level)
    return {"pairs": pairs} | {f"{name}_change{end}": getattr(interval, part, np.nan) for name, interval in found.items()
                               for end, part in (("", "estimate"), ("_low", "low"), ("_high", "high"))}


def _pairs(one: measure.Pictures, other: measure.Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that belong together: the same seed, or where there are no seeds the same file name."""
    keys = [_keys(pictures) for pictures in (one, other)]
    if keys[0].name != keys[1].name or keys[0].duplicated().any() or keys[1].duplicated().any():
        return np.empty(0, int), np.empty(0, int)
    where = pd.Series(np.arange(len(keys[1])), index=keys[1])
    common = np.flatnonzero(keys[0].isin(where.index))
    return common, where[keys[0].iloc[common]].to_numpy()


def _keys(pictures: measure.Pictures) -> pd.Series:
    if pictures.frame is not None and "seed" in pictures.frame:
        return pictures.frame["seed"].reset_index(drop=True)
    return pd.Series(pictures.names, name="file_name")

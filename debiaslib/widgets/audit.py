"""Whom does a classifier fail? Its threshold of confidence and the noise of the truth, against its error by subgroup."""

from functools import partial
from html import escape

import ipywidgets
import numpy as np
import pandas as pd

from debiaslib.audit import holm
from debiaslib.errors import InputError
from debiaslib.plots import GROUP_COLOURS
from debiaslib.subgroups import SUBGROUP
from debiaslib.widgets.parts import Explorer, need_columns, row_of, table_of

COLUMNS = ("set", "classifier", "score", "truth", SUBGROUP)
WIDTH = 260
"""Pixels of the axis from 0 to the largest error that is drawn."""


def true_error(error: float, noise: float) -> float:
    """The error against the truth itself, of one measured against labels wrong at random: (error - noise) / (1 - 2 noise).

    Labels are wrong with probability `noise` below .5, whoever is in the picture and whatever the classifier says. Then
    error = e (1 - noise) + (1 - e) noise; turned round, and cut to [0, 1].
    """
    if not 0 <= noise < 0.5:
        raise InputError(f"noise {noise:g}: give a share from 0 to below one half. Labels that are wrong half of the time "
                         "teach nothing.")
    return float(np.clip((error - noise) / (1 - 2 * noise), 0, 1))


def errors_at(readings: pd.DataFrame, *, threshold: float = 0.5, noise: float = 0.0, by: str = SUBGROUP) -> pd.DataFrame:
    """Error by group if the classifier answers only where max(score, 1 - score) is at least `threshold`.

    `readings` are those of one classifier and set (score, NaN: no answer; truth; the grouping `by`). Returns group, n,
    decided, wrong, error with low and high (Wilson, 95 %), corrected (`true_error`), p (Fisher's exact test against all
    others) and p_holm, a row a group by name, NaN where nothing was decided.
    """
    from scipy.stats import fisher_exact
    from statsmodels.stats.proportion import proportion_confint

    score = readings["score"].to_numpy(float)
    decided = np.fmax(score, 1 - score) >= threshold
    wrong = decided & ((score > 0.5) != (readings["truth"].to_numpy(float) > 0.5))
    counts = pd.DataFrame({"group": readings[by].to_numpy(), "n": 1, "decided": decided, "wrong": wrong})
    table = counts.groupby("group").sum().astype(int).reset_index()
    some = table["decided"] > 0
    table["error"] = (table["wrong"] / table["decided"]).where(some)
    low, high = proportion_confint(table["wrong"], table["decided"].clip(lower=1), method="wilson")
    table["low"], table["high"] = np.where(some, low, np.nan), np.where(some, high, np.nan)
    table["corrected"] = [true_error(error, noise) if np.isfinite(error) else np.nan for error in table["error"]]
    whole = table[["wrong", "decided"]].sum()
    table["p"] = [fisher_exact([[row.wrong, row.decided - row.wrong],
                                [whole.wrong - row.wrong, whole.decided - row.decided - whole.wrong + row.wrong]]).pvalue
                  if row.decided else np.nan for row in table.itertuples()]
    return table.assign(p_holm=holm(table["p"]))


def reading(readings: pd.DataFrame, *, faces: str, classifier: str, threshold: float, noise: float) -> str:
    """`errors_at` of one set and classifier as an HTML table: bars with intervals, and the error without the noise.

    Raises InputError when a column is missing, or that classifier did not read that set.
    """
    need_columns("readings", readings, COLUMNS)
    rows = readings[(readings["set"] == faces) & (readings["classifier"] == classifier)]
    if rows.empty:
        raise InputError(f"{classifier} did not read the set {faces!r}. Choose another set or classifier.")
    table = errors_at(rows, threshold=threshold, noise=noise).sort_values("error", ascending=False, kind="stable")
    most = float(np.nanmax([*table["high"].dropna(), 0.05]))
    heads = ("subgroup", "silent", f"error (axis: 0 to {most:.2f})", "measured [95 %]", "noise taken out", "differs")
    return table_of(_caption(table, faces, classifier, threshold, noise), heads, (_row(row, most) for row in table.itertuples()))


def _caption(table: pd.DataFrame, faces: str, classifier: str, threshold: float, noise: float) -> str:
    n, decided, wrong = (int(table[name].sum()) for name in ("n", "decided", "wrong"))
    alone, after = int((table["p"] < 0.05).sum()), int((table["p_holm"] < 0.05).sum())
    error = f"wrong on {wrong / decided:.3f} of {decided} decided" if decided else "nothing decided"
    return (f"{escape(classifier)} on {escape(faces)}: answers at a confidence of {threshold:.2f} or more; {error}, silent "
            f"on {1 - decided / n:.3f} of {n}. Truth wrong in {noise:.2f}. Groups that differ from the rest: {alone} by 5 % "
            f"each, {after} after Holm.")


def _row(row, most: float) -> str:
    colour = GROUP_COLOURS.get(str(row.group).split()[-1].capitalize(), (0.4, 0.4, 0.4))
    paint = "rgb({:.0f},{:.0f},{:.0f})".format(*(255 * part for part in colour)) if not isinstance(colour, str) else colour
    silent = f"{1 - row.decided / row.n:.2f} of {row.n}"
    if not row.decided:
        cells = (escape(str(row.group)), silent, "", "no answer", "", "")
    else:
        places = [round(WIDTH * value / most) for value in (row.low, row.high, row.error)]
        bar = (f'<div style="position:relative; width:{WIDTH}px; height:12px; border-left:1px solid currentColor" '
               f'aria-hidden="true"><div style="position:absolute; left:{places[0]}px; width:'
               f'{max(1, places[1] - places[0])}px; top:5px; height:2px; background:{paint}"></div>'
               f'<div style="position:absolute; left:{places[2] - 3}px; width:7px; top:2px; height:8px; '
               f'background:{paint}"></div></div>')
        flag = "yes, after Holm" if row.p_holm < 0.05 else "only by itself" if row.p < 0.05 else ""
        cells = (escape(str(row.group)), silent, bar, f"{row.error:.3f} [{row.low:.3f}, {row.high:.3f}]",
                 f"{row.corrected:.3f}", flag)
    return row_of(cells, padding=2)


class AuditExplorer(Explorer):
    """Buttons for the set and the classifier, sliders for the threshold and the truth's noise, above a `reading`.

    `readings`: set, classifier, score, truth and subgroup, a row a picture and classifier.
    """

    def __init__(self, readings: pd.DataFrame):
        sets, names = (list(dict.fromkeys(readings[name])) for name in ("set", "classifier"))
        super().__init__(partial(reading, readings), {
            "faces": ipywidgets.ToggleButtons(options=sets, description="faces"),
            "classifier": ipywidgets.ToggleButtons(options=names, description="classifier"),
            "threshold": _slider("confidence", least=0.5, most=0.95, step=0.05),
            "noise": _slider("truth wrong", least=0.0, most=0.2, step=0.01)})

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(faces={self.faces.value!r}, classifier={self.classifier.value!r}, "
                f"threshold={self.threshold.value:.2f}, noise={self.noise.value:.2f})")


def _slider(name: str, *, least: float, most: float, step: float) -> ipywidgets.SelectionSlider:
    values = [round(least + step * place, 2) for place in range(round((most - least) / step) + 1)]
    return ipywidgets.SelectionSlider(options=[(f"{value:.2f}", value) for value in values], description=name)

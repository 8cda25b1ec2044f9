"""What alpha did to a sweep's trainings: their curves, and what the models drew. A slider for alpha, all trained before."""

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
import pandas as pd

from debiaslib.errors import InputError
from debiaslib.widgets.parts import Explorer, alpha_and_ratio

CURVES = {"denoising": "denoising loss", "cross_entropy": "cross-entropy", "indicator_accuracy": "indicator's accuracy"}
DRAWN = {"male_share": "read as men, of those decided", "fd_corrected": "FD, corrected for the judge",
         "face_rate": "a face was found", "fit_loss": "denoising loss on the training faces afterwards"}
_WIDTH, _HEIGHT, _NOW, _ZERO = 300, 90, "#0072B2", "#999999"


def training_reading(rows: pd.DataFrame, curves: pd.DataFrame, *, ratio: float, alpha: float) -> str:
    """The trainings of one ratio at alpha beside alpha 0, as HTML: a curve for each that was logged, and what was drawn.

    `rows` are a sweep's `cells.csv`, `curves` its `curves.csv`; means over training seeds. Raises InputError where there
    is no such run.
    """
    chosen, control = (rows[np.isclose(rows["ratio"], ratio) & np.isclose(rows["alpha"], level)] for level in (alpha, 0))
    if chosen.empty or control.empty:
        raise InputError(f"no run of ratio {ratio:g} at alpha {alpha:g} and 0. Give values that the sweep holds.")
    lines = [(_curve(curves, ratio, alpha, name), _curve(curves, ratio, 0, name)) for name in CURVES]
    limits = [_limits(curves[name]) for name in CURVES]
    pictures = "".join(_picture(title, now, zero, limit)
                       for (now, zero), title, limit in zip(lines, CURVES.values(), limits, strict=True) if len(now))
    body = "".join(_row(title, chosen[name].mean(), control[name].mean()) for name, title in DRAWN.items())
    return (f'<div style="font-size:14px"><p style="margin:4px 0">male:female {ratio:g}, alpha {alpha:g}: trained '
            f"{_times(chosen)}, {int(chosen['n'].iloc[0])} faces drawn of each model. Grey: alpha 0.</p>"
            f'<div>{pictures}</div><table style="border-collapse:collapse">{body}</table></div>')


class TrainingExplorer(Explorer):
    """A slider for alpha and buttons for the ratio above a `training_reading` of a finished sweep's `rows` and `curves`."""

    def __init__(self, rows: pd.DataFrame, curves: pd.DataFrame):
        alphas, ratios = (sorted(set(rows[name])) for name in ("alpha", "ratio"))
        super().__init__(partial(training_reading, rows, curves), alpha_and_ratio(alphas=alphas, ratios=ratios, alpha=alphas[-1]))


def _curve(curves: pd.DataFrame, ratio: float, alpha: float, name: str) -> pd.Series:
    mine = curves[np.isclose(curves["ratio"], ratio) & np.isclose(curves["alpha"], alpha)]
    return mine.groupby("step")[name].mean().dropna()


def _limits(values: pd.Series) -> tuple[float, float]:
    """One scale for all alphas, so that a curve that moves has moved."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _picture(title: str, now: pd.Series, zero: pd.Series, limits: tuple[float, float]) -> str:
    lines = "".join(_line(series, limits, colour) for series, colour in ((zero, _ZERO), (now, _NOW)) if len(series))
    told = f"{title}: {now.iloc[0]:.2f}, later {now.iloc[-1]:.2f} (update {now.index[-1]:g})"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(told)}" width="{_WIDTH}" '
            f'height="{_HEIGHT + 22}" style="margin-right:16px"><text x="0" y="13" font-size="12" fill="currentColor">{escape(told)}</text>'
            f'<g transform="translate(0,20)"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="currentColor" '
            f'stroke-opacity=".3"/>{lines}</g></svg>')


def _line(series: pd.Series, limits: tuple[float, float], colour: str) -> str:
    across = (series.index - series.index[0]) / max(1, series.index[-1] - series.index[0]) * (_WIDTH - 8) + 4
    up = _HEIGHT - 4 - (series.to_numpy() - limits[0]) / (limits[1] - limits[0]) * (_HEIGHT - 8)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _row(title: str, now: float, zero: float) -> str:
    return (f'<tr><th style="text-align:left; padding:2px 12px 2px 0; font-weight:normal">{escape(title)}</th>'
            f'<td>{now:.3f}</td><td style="padding-left:12px; color:{_ZERO}">{zero:.3f}</td></tr>')


def _times(rows: Sequence) -> str:
    return "once" if len(rows) == 1 else f"{len(rows)} times"

"""What alpha does to an indicator's weights, before any training: a slider for alpha above the share that they aim at."""

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
import pandas as pd

from debiaslib.errors import InputError
from debiaslib.indicators import KAPPA
from debiaslib.rarity import effective_share, top_share, weighted_share
from debiaslib.widgets.parts import Explorer

COLUMNS = ("ratio", "indicator", "alpha", "p_eff", "ess")
_BAR, _MARK = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by every kind of eye


def alpha_path(values: np.ndarray, member: np.ndarray, *, alphas: Sequence[float]) -> pd.DataFrame:
    """What weights w = 1 + min(1, KAPPA alpha) (v - 1) do along alpha: columns alpha, p_eff, ess, top_share, a row an alpha.

    `values` v (N,) > 0 are scaled to mean 1; `member`, bool (N,), is the group whose share p_eff is. `ess` is a share of N.
    """
    values = np.asarray(values, float) / np.mean(values)
    weights = [1 + min(1.0, KAPPA * alpha) * (values - 1) for alpha in alphas]
    return pd.DataFrame([{"alpha": alpha, "p_eff": weighted_share(weight, member), "ess": effective_share(weight),
                          "top_share": top_share(weight)} for alpha, weight in zip(alphas, weights, strict=True)])


def reading(paths: pd.DataFrame, *, ratio: float, alpha: float) -> str:
    """The rows of one ratio and alpha as an HTML table: a bar of p_eff with a mark at one half, and both numbers.

    `paths` has the columns ratio, indicator, alpha, p_eff and ess; indicators keep their order. Raises InputError when a
    column is missing or there is no such row.
    """
    missing = [column for column in COLUMNS if column not in paths]
    if missing:
        raise InputError(f"paths: no column {missing[0]!r} among {', '.join(map(str, paths))}. Give {', '.join(COLUMNS)}.")
    rows = paths[np.isclose(paths["ratio"], ratio) & np.isclose(paths["alpha"], alpha)]
    if rows.empty:
        raise InputError(f"paths: no row of ratio {ratio:g} and alpha {alpha:g}. Give values that it holds.")
    heads = ("indicator", "share of men aimed at", "p_eff", "effective sample size")
    head = "".join(f'<th style="text-align:left; padding:2px 12px 2px 0">{name}</th>' for name in heads)
    body = "".join(_row(row.indicator, row.p_eff, row.ess) for row in rows.itertuples())
    strength = min(1.0, KAPPA * alpha)
    caption = f"male:female {ratio:g}, alpha {alpha:g}: strength {strength:.1f}. The upright line is one half."
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


class WeightExplorer(Explorer):
    """A slider for alpha and buttons for the ratio above a `reading`; everything was computed beforehand, in `paths`."""

    def __init__(self, paths: pd.DataFrame):
        alphas, ratios = (list(dict.fromkeys(paths[name])) for name in ("alpha", "ratio"))
        super().__init__(partial(reading, paths), alphas=alphas, ratios=ratios, alpha=alphas[0])


def _row(indicator: str, p_eff: float, ess: float) -> str:
    bar = (f'<div style="position:relative; width:240px; height:12px; border:1px solid currentColor" aria-hidden="true">'
           f'<div style="width:{100 * p_eff:.0f}%; height:100%; background:{_BAR}"></div>'
           f'<div style="position:absolute; left:50%; top:-3px; width:2px; height:18px; background:{_MARK}"></div></div>')
    cells = (escape(indicator), bar, f"{p_eff:.2f}", f"{100 * ess:.0f} of 100 faces")
    return "<tr>" + "".join(f'<td style="text-align:left; padding:3px 12px 3px 0">{cell}</td>' for cell in cells) + "</tr>"

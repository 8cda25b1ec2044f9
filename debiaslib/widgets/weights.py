"""What alpha does to an indicator's weights, before any training: a slider for alpha above the share that they aim at."""

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
import pandas as pd

from debiaslib.errors import InputError
from debiaslib.indicators import KAPPA
from debiaslib.rarity import effective_share, top_share, weighted_share
from debiaslib.widgets.parts import Explorer, alpha_and_ratio, marked_bar, need_columns, row_of, table_of

COLUMNS = ("ratio", "indicator", "alpha", "p_eff", "ess")


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
    need_columns("paths", paths, COLUMNS)
    rows = paths[np.isclose(paths["ratio"], ratio) & np.isclose(paths["alpha"], alpha)]
    if rows.empty:
        raise InputError(f"paths: no row of ratio {ratio:g} and alpha {alpha:g}. Give values that it holds.")
    caption = f"male:female {ratio:g}, alpha {alpha:g}: strength {min(1.0, KAPPA * alpha):.1f}. The upright line is one half."
    return table_of(caption, ("indicator", "share of men aimed at", "p_eff", "effective sample size"),
                    (row_of((escape(row.indicator), marked_bar(row.p_eff, 0.5), f"{row.p_eff:.2f}",
                             f"{100 * row.ess:.0f} of 100 faces")) for row in rows.itertuples()))


class WeightExplorer(Explorer):
    """A slider for alpha and buttons for the ratio above a `reading`; everything was computed beforehand, in `paths`."""

    def __init__(self, paths: pd.DataFrame):
        alphas, ratios = (list(dict.fromkeys(paths[name])) for name in ("alpha", "ratio"))
        super().__init__(partial(reading, paths), alpha_and_ratio(alphas=alphas, ratios=ratios, alpha=alphas[0]))

"""How far to shift, and towards which share: a slider and buttons above the distribution that latents then reach."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.widgets.parts import Explorer, buttons_of, marked_bar, need_columns, row_of, slider_of, table_of

COLUMNS = ("target", "shift", "combination", "wanted", "reached", "kl", "outlying")
Draw = Callable[[np.ndarray, float], tuple[np.ndarray, float]]
"""Wanted shares (cells,) and a shift to the counts (cells,) that come of them, and how far out the latents lie."""


def shift_path(draw: Draw, targets: Mapping[float, Sequence[float]], *, shifts: Sequence[float],
               names: Sequence[str]) -> pd.DataFrame:
    """What `draw` reaches for every target share and shift, a row a combination.

    `targets` maps what the slider shows to the wanted shares (cells,). Columns: target, shift, combination, wanted, reached,
    kl (reached to wanted, in nats, the same in a block) and outlying. Raises InputError when names and shares do not fit.
    """
    rows = []
    for target, wanted in targets.items():
        wanted = np.asarray(wanted, float)
        if wanted.shape != (len(names),) or abs(wanted.sum() - 1) > 1e-6:
            raise InputError(f"target {target:g}: {wanted.size} shares that add up to {wanted.sum():.3g} for {len(names)} "
                             "combinations. Give one a combination, together 1.")
        for shift in shifts:
            counts, outlying = draw(wanted, shift)
            kl, reached = float(stats.entropy(counts, wanted)), np.asarray(counts) / np.sum(counts)
            rows += [(target, shift, name, *pair, kl, outlying)
                     for name, *pair in zip(names, wanted, reached, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reading(paths: pd.DataFrame, *, target: float, shift: float) -> str:
    """One target and shift as an HTML table: a bar of what was reached with a mark at what was wanted, and both numbers.

    Raises InputError when a column is missing or there is no such row.
    """
    need_columns("paths", paths, COLUMNS)
    rows = paths[np.isclose(paths["target"], target) & np.isclose(paths["shift"], shift)]
    if rows.empty:
        raise InputError(f"paths: no row of target {target:g} and shift {shift:g}. Give values that it holds.")
    first = rows.iloc[0]
    caption = (f"shift {shift:g}: KL to the target {first['kl']:.3f} nats; latents lie {first['outlying']:.2f} times as far "
               "out as plain ones.")
    return table_of(caption, ("combination", "share reached (mark: wanted)", "reached", "wanted"),
                    (row_of((escape(row.combination), marked_bar(row.reached, row.wanted), f"{row.reached:.2f}",
                             f"{row.wanted:.2f}")) for row in rows.itertuples()))


class ShiftExplorer(Explorer):
    """A slider for the wanted share and buttons for the shift above a `reading`; everything was computed beforehand."""

    def __init__(self, paths: pd.DataFrame, *, share_of: str = "share wanted", target: float | None = None,
                 shift: float | None = None):
        targets, shifts = (list(dict.fromkeys(paths[name])) for name in ("target", "shift"))
        self.paths, wanted = paths, slider_of(share_of, targets, targets[0] if target is None else target)
        wanted.style = {"description_width": "initial"}
        super().__init__(lambda **values: reading(self.paths, **values),
                         {"target": wanted, "shift": buttons_of("shift", shifts, shifts[0] if shift is None else shift)})

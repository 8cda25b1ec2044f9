"""How far to shift, and towards which share: a slider and buttons above the distribution that latents then reach."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets
import numpy as np
import pandas as pd
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.widgets.parts import WithReading, said

COLUMNS = ("target", "shift", "combination", "wanted", "reached", "kl", "outlying")
_BAR, _MARK = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by every kind of eye
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
    missing = [column for column in COLUMNS if column not in paths]
    if missing:
        raise InputError(f"paths: no column {missing[0]!r} among {', '.join(map(str, paths))}. Give {', '.join(COLUMNS)}.")
    rows = paths[np.isclose(paths["target"], target) & np.isclose(paths["shift"], shift)]
    if rows.empty:
        raise InputError(f"paths: no row of target {target:g} and shift {shift:g}. Give values that it holds.")
    head = "".join(f'<th style="text-align:left; padding:2px 12px 2px 0">{name}</th>'
                   for name in ("combination", "share reached (mark: wanted)", "reached", "wanted"))
    body = "".join(_row(row.combination, row.reached, row.wanted) for row in rows.itertuples())
    first = rows.iloc[0]
    caption = (f"shift {shift:g}: KL to the target {first['kl']:.3f} nats; latents lie {first['outlying']:.2f} times as far "
               "out as plain ones.")
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


class ShiftExplorer(WithReading):
    """A slider for the wanted share and buttons for the shift above a `reading`; everything was computed beforehand."""

    def __init__(self, paths: pd.DataFrame, *, share_of: str = "share wanted", target: float | None = None,
                 shift: float | None = None):
        targets, shifts = (list(dict.fromkeys(paths[name])) for name in ("target", "shift"))
        self.paths = paths
        self.target = ipywidgets.SelectionSlider(options=[(f"{value:g}", value) for value in targets],
                                                 value=targets[0] if target is None else target, description=share_of,
                                                 style={"description_width": "initial"})
        self.shift = ipywidgets.ToggleButtons(options=[(f"{value:g}", value) for value in shifts], description="shift",
                                              value=shifts[0] if shift is None else shift, style={"button_width": "4em"})
        self.readout = ipywidgets.HTML()
        super().__init__([self.target, self.shift, self.readout])
        for control in (self.target, self.shift):
            control.observe(self._show, names="value")
        self._show()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(target={self.target.value:g}, shift={self.shift.value:g})"

    def _show(self, _change: dict | None = None) -> None:
        try:
            self.readout.value = reading(self.paths, target=self.target.value, shift=self.shift.value)
        except InputError as error:
            self.readout.value = said(str(error), ok=False)


def _row(name: str, reached: float, wanted: float) -> str:
    bar = (f'<div style="position:relative; width:240px; height:12px; border:1px solid currentColor" aria-hidden="true">'
           f'<div style="width:{100 * reached:.0f}%; height:100%; background:{_BAR}"></div>'
           f'<div style="position:absolute; left:{100 * wanted:.0f}%; top:-3px; width:2px; height:18px; background:{_MARK}">'
           "</div></div>")
    cells = (escape(name), bar, f"{reached:.2f}", f"{wanted:.2f}")
    return "<tr>" + "".join(f'<td style="text-align:left; padding:3px 12px 3px 0">{cell}</td>' for cell in cells) + "</tr>"

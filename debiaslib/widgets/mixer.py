"""Who is in a training set: a slider for the ratio, counts by perceived gender and age, and faces of the set."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd

from debiaslib.errors import InputError
from debiaslib.faces import draw_subset, read_metadata
from debiaslib.presets import data_root
from debiaslib.widgets.parts import WithReading, file_uri, need_columns

RATIOS = (1 / 9, 0.25, 0.5, 1.0, 2.0, 4.0, 9.0)
SIZES = (50, 100, 200, 400)
BANDS = ((0, 20, "to 19"), (20, 40, "20 to 39"), (40, 60, "40 to 59"), (60, 200, "60 and older"))
GENDERS = {"Man": "#0173b2", "Woman": "#de8f05"}
"""Perceived gender, in the colours of `plots.GROUP_COLOURS`."""
SHOWN = 20
COLUMNS = ("file_name", "perceived_gender", "perceived_age")


def mix(pool: pd.DataFrame, *, ratio: float, size: int, seed: int = 0) -> pd.DataFrame:
    """The rows of a training set with male:female = `ratio`, as `faces.draw_subset` draws it.

    `pool` has the columns file_name, perceived_gender and perceived_age. Raises InputError when one is missing, or the pool
    cannot give such a set (saying which size it can).
    """
    need_columns("pool", pool, COLUMNS)
    pool = pool.reset_index(drop=True)
    return pool.iloc[draw_subset(pool, ratio=ratio, size=size, seed=seed, column="perceived_gender")]


def count_bands(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts by perceived age band (index) and perceived gender (columns Man, Woman), every cell present."""
    bands = pd.cut(rows["perceived_age"], [start for start, *_ in BANDS] + [BANDS[-1][1]], right=False,
                   labels=[name for *_, name in BANDS])
    counts = pd.crosstab(bands, rows["perceived_gender"], dropna=False)
    return counts.reindex(index=[name for *_, name in BANDS], columns=list(GENDERS), fill_value=0)


def mixture(pool: pd.DataFrame, chosen: pd.DataFrame, *, folder: Path, ratio: float, shown: int = SHOWN) -> str:
    """Who is in the set, and of how many, as HTML: a table with bars, and `shown` faces in the set's own proportions."""
    here, there = count_bands(chosen), count_bands(pool)
    lines = "".join(_line(band, here.loc[band], there.loc[band], most=int(here.to_numpy().max())) for band in here.index)
    total = _line("all", here.sum(), there.sum(), most=0)
    heads = "".join(f'<th style="text-align:left; padding-right:12px">{head}</th>'
                    for head in ("perceived age", "read as men: in the set, of the pool", "read as women"))
    men = int(here["Man"].sum())
    caption = f"male:female {ratio:g}: {len(chosen)} faces, {men} read as men, {len(chosen) - men} as women, of {len(pool)}"
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}{total}</tbody></table>"
            f'<div style="max-width:680px; line-height:0; margin-top:6px">{_faces(pick(chosen, shown), folder)}</div>')


def pick(chosen: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows spread evenly over the set ordered by perceived gender and age: the set's own proportions."""
    ordered = chosen.sort_values(["perceived_gender", "perceived_age", "file_name"])
    return ordered.iloc[np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)]


def _line(band: str, here: pd.Series, there: pd.Series, *, most: int) -> str:
    cells = []
    for gender, colour in GENDERS.items():
        width = 120 * int(here[gender]) / most if most else 0
        bar = f'<span style="display:inline-block; height:10px; width:{width:.0f}px; background:{colour}"></span>'
        cells.append(f"{bar} {here[gender]} of {there[gender]}")
    style = "text-align:left; padding:2px 12px 2px 0"
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in (band, *cells)) + "</tr>"


def _faces(rows: pd.DataFrame, folder: Path) -> str:
    parts = []
    for row in rows.itertuples():
        words = f"read as a {row.perceived_gender.lower()} of {row.perceived_age:.0f} years"
        parts.append(f'<img src="{file_uri(folder / row.file_name)}" width="64" height="64" alt="{escape(words)}" '
                     f'style="border-bottom:4px solid {GENDERS[row.perceived_gender]}; margin:1px" title="{escape(words)}">')
    return "".join(parts)


class DatasetMixer(WithReading):
    """A slider for male:female above who is then in the set, of the kit's face pool or of another folder of faces.

    `split` chooses rows where the pool has such a column. Raises InputError when the folder is none of faces.
    """

    def __init__(self, folder: Path | str | None = None, *, split: str = "finetune", ratios: Sequence[float] = RATIOS):
        self.folder = data_root() / "faces" if folder is None else Path(folder)
        pool = read_metadata(self.folder)
        self.pool = pool[pool["split"] == split].reset_index(drop=True) if "split" in pool else pool
        self.ratio = ipywidgets.SelectionSlider(options=[(f"{ratio:.3g}", ratio) for ratio in ratios], value=1.0,
                                                description="men : women")
        self.size = ipywidgets.SelectionSlider(options=SIZES, value=100, description="faces")
        self.seed = ipywidgets.BoundedIntText(value=0, min=0, max=10_000, description="seed", layout={"width": "160px"})
        self.readout = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.ratio, self.size, self.seed]), self.readout])
        for control in (self.ratio, self.size, self.seed):
            control.observe(self._show, names="value")
        self._show()

    def __repr__(self) -> str:
        return f"DatasetMixer(ratio={self.ratio.value:.3g}, size={self.size.value})"

    def _show(self, _change: dict | None = None) -> None:
        ratio = self.ratio.value
        try:
            chosen = mix(self.pool, ratio=ratio, size=self.size.value, seed=self.seed.value)
            self.readout.value = mixture(self.pool, chosen, folder=self.folder, ratio=round(ratio, 3))
        except InputError as error:
            self.readout.value = f'<span role="alert"><b>Not yet.</b> {escape(str(error))}</span>'

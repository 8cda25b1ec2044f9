"""Figures that say the same thing the same way everywhere: colour-blind safe, parity and alpha = 0 always visible."""

import textwrap
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from debiaslib import claims

PALETTE = sns.color_palette("colorblind")
GROUP_COLOURS = {"Man": PALETTE[0], "Woman": PALETTE[1], "": PALETTE[7]}
INDICATOR_STYLES = {"literal": (PALETTE[3], "s"), "density": (PALETTE[2], "o"), "reference": (PALETTE[4], "^"),
                    "recalibrated": (PALETTE[5], "<"), "oracle": ("0.15", "D"), "random": (PALETTE[9], "v"), "none": (PALETTE[7], "P")}
"""Colour and marker, the same in every figure; none of the groups' colours."""
READINGS = {"corrected": ("fd_corrected", "FD (tv), judge-corrected"), "as read": ("fd", "FD (tv), as read")}


def picture_grid(rows: list[list[np.ndarray]], *, row_names: list[str], column_names: list[str], title: str,
                 scale: float = 0.85) -> Figure:
    """Pictures in rows and columns with their names, each uint8 (H, W, 3); one seed along a row is the usual use."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), squeeze=False, layout="constrained",
                                figsize=(scale * len(rows[0]) + 0.6, scale * len(rows) + 0.7))
    for line, row in enumerate(rows):
        for place, picture in enumerate(row):
            axis = axes[line, place]
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            sns.despine(ax=axis, left=True, bottom=True)
            if line == 0:
                axis.set_title(column_names[place], fontsize=8)
            if place == 0:
                axis.set_ylabel(row_names[line], fontsize=7)
    figure.suptitle(textwrap.fill(title, 14 * len(rows[0])), fontsize=9)
    return figure


def same_seed_figure(samples: dict[tuple[float, float], Path], *, seeds: int = 6, first_seed: int = 0) -> Figure:
    """S1's figure: a block a ratio, alpha along the columns, one seed a row.

    `samples` maps (ratio, alpha) to a folder with `images/00000.png` ... drawn from the same seeds.
    """
    ratios, alphas = (sorted({key[index] for key in samples}) for index in (0, 1))
    rows, blank = [], None
    for number in range(seeds):
        row = []
        for ratio in ratios:
            for alpha in alphas:
                picture = _picture(samples.get((ratio, alpha)), number)
                blank = np.full_like(picture, 255) if picture is not None else blank
                row.append(picture)
        rows.append(row)
    rows = [[blank if picture is None else picture for picture in row] for row in rows]
    columns = [f"ratio {ratio:g}\n$\\alpha$ = {alpha:g}" if alpha == alphas[0] else f"$\\alpha$ = {alpha:g}"
               for ratio in ratios for alpha in alphas]
    return picture_grid(rows, row_names=[f"seed {first_seed + number}" for number in range(seeds)], column_names=columns,
                        title=f"The same seed along each row, the same training faces within a ratio; {claims.mapping()}")


def _picture(folder: Path | None, number: int) -> np.ndarray | None:
    path = folder / f"images/{number:05d}.png" if folder else None
    return np.asarray(Image.open(path)) if path and path.exists() else None


def discrepancy_figure(curves: pd.DataFrame, runs: pd.DataFrame, *, published: pd.DataFrame | None = None) -> Figure:
    """FD against alpha: a line an indicator, a column of panels a male:female ratio, a row a reading.

    `curves` as from `claims.curves`: means over training seeds with their intervals, judge-corrected (above) and as read.
    `runs` are the sweep's rows: every training seed's own FD is a faint point. Drawn into every panel are parity (FD = 0),
    the null band that a single fair run stays in 95 % of the time, and alpha = 0, where all indicators are plain
    fine-tuning. `published` (ratio, alpha, fd) stands among the figures as read: it is not corrected.
    """
    runs = runs[runs["control"].fillna("") == ""] if "control" in runs else runs
    readings = [name for name in READINGS if name in {*curves["reading"]}] or ["as read"]
    ratios, alphas = (sorted(runs[name].dropna().unique().tolist()) for name in ("ratio", "alpha"))
    figure, axes = plt.subplots(len(readings), len(ratios), squeeze=False, sharex=True, sharey=True, layout="constrained",
                                figsize=(max(4.5, 2.9 * len(ratios)), 2.5 * len(readings) + 1))
    for line, reading in zip(axes, readings, strict=True):
        column, name = READINGS[reading]
        chosen = curves[curves["reading"] == reading]
        line[0].set_ylabel(name)
        for axis, ratio in zip(line, ratios, strict=True):
            _frame_panel(axis, alphas, band=chosen["band"].max(), reading=reading)
            _draw_lines(axis, chosen[chosen["ratio"] == ratio], runs[runs["ratio"] == ratio], alphas, column=column)
            if published is not None and reading == "as read":
                _draw_published(axis, published[published["ratio"] == ratio], alphas)
    for axis, ratio in zip(axes[0], ratios, strict=True):
        axis.set_title(f"male:female {ratio:g}")
    for axis in axes[-1]:
        axis.set_xlabel("alpha")
    _legend(figure)
    sns.despine(figure)
    return figure


def _frame_panel(axis: Axes, alphas: list[float], *, band: float, reading: str) -> None:
    """What a line is read against: parity, the null band and alpha = 0. Alphas stand at equal distances, in their order."""
    if np.isfinite(band):
        axis.axhspan(0, band, color="0.9", label=f"a fair run, {reading}, 95 % of the time: to {band:.3f}")
    axis.axhline(0, color="0.3", linewidth=0.8, label="parity (FD = 0)")
    if 0 in alphas:
        axis.axvline(alphas.index(0), color="0.6", linewidth=0.8, linestyle=":", label="alpha = 0: plain fine-tuning")
    axis.set(xticks=range(len(alphas)), xticklabels=[f"{alpha:g}" for alpha in alphas], xlim=(-0.4, len(alphas) - 0.6))


def _draw_lines(axis: Axes, curves: pd.DataFrame, runs: pd.DataFrame, alphas: list[float], *, column: str) -> None:
    """A line an indicator with its intervals, and its training seeds behind it; side by side where they would overlap."""
    names = list(dict.fromkeys(curves["indicator"]))
    for number, name in enumerate(names):
        colour, marker = INDICATOR_STYLES.get(name, (PALETTE[6], "X"))
        aside = 0.12 * (number - (len(names) - 1) / 2)
        means = curves[curves["indicator"] == name].sort_values("alpha")
        errors = np.clip([means["fd"] - means["low"], means["high"] - means["fd"]], 0, None)
        if column in runs:
            own = runs[(runs["indicator"] == name) & runs[column].notna()]
            axis.scatter(_places(own["alpha"], alphas, aside), own[column], s=14, color=colour, alpha=0.35, linewidths=0,
                         label="one training seed")
        start = curves[curves["alpha"] == 0].head(1)  # at alpha 0 all are one model, whoever trained it
        if 0 not in set(means["alpha"]) and len(start):
            axis.plot([alphas.index(0), *_places(means["alpha"][:1], alphas, aside)], [*start["fd"], *means["fd"][:1]], color=colour)
        axis.errorbar(_places(means["alpha"], alphas, aside), means["fd"], yerr=errors, color=colour, marker=marker,
                      markersize=5, capsize=3, label=name)


def _draw_published(axis: Axes, published: pd.DataFrame, alphas: list[float]) -> None:
    shown = published[published["alpha"].isin(alphas)].sort_values("alpha")
    axis.plot(_places(shown["alpha"], alphas, 0.0), shown["fd"], "x--", color="0.45", label="published (one run a point)")


def _places(values: Iterable[float], alphas: list[float], aside: float) -> list[float]:
    return [alphas.index(value) + aside for value in values]


def _legend(figure: Figure) -> None:
    """One entry a name, gathered from all panels and put under them."""
    found = {}
    for axis in figure.axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(3, figure.axes[0].get_gridspec().ncols), fontsize=7,
                  frameon=False, title=f"alpha: {claims.mapping()}", title_fontsize=8)

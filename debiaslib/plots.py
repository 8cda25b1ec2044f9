"""Figures that say the same thing the same way everywhere: colour-blind safe, parity and alpha = 0 always visible."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

PALETTE = sns.color_palette("colorblind")
GROUP_COLOURS = {"Man": PALETTE[0], "Woman": PALETTE[1], "": PALETTE[7]}


def picture_grid(rows: list[list[np.ndarray]], *, row_names: list[str], column_names: list[str], title: str, scale: float = 0.85) -> Figure:
    """Pictures in rows and columns with their names; each picture uint8 (H, W, 3). Same seed along a row is the usual use."""
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
                        title="The same seed along each row, the same training faces within a ratio")


def _picture(folder: Path | None, number: int) -> np.ndarray | None:
    path = folder / f"images/{number:05d}.png" if folder else None
    return np.asarray(Image.open(path)) if path and path.exists() else None


def discrepancy_figure(table: pd.DataFrame, *, band: float, published: pd.DataFrame | None = None) -> Figure:
    """FD against alpha, a panel a ratio, with 95 % intervals, parity (FD = 0) and the null band of a fair model drawn in."""
    ratios, alphas = sorted(table["ratio"].unique()), sorted(table["alpha"].unique())
    place = {alpha: number for number, alpha in enumerate(alphas)}
    figure, axes = plt.subplots(1, len(ratios), squeeze=False, sharey=True, layout="constrained", figsize=(2.9 * len(ratios), 3.2))
    for axis, ratio in zip(axes[0], ratios, strict=True):
        axis.axhspan(0, band, color="0.9", label=f"a fair model in 95 % of samples (FD to {band:.3f})")
        axis.axhline(0, color="0.3", linewidth=0.8)
        for colour, (indicator, rows) in zip(PALETTE, table[table["ratio"] == ratio].groupby("indicator"), strict=False):
            rows = rows.sort_values(["alpha", "seed"])
            errors = np.clip([rows["fd"] - rows["fd_low"], rows["fd_high"] - rows["fd"]], 0, None)
            axis.errorbar(rows["alpha"].map(place), rows["fd"], yerr=errors, fmt="o-", color=colour, capsize=3, label=indicator)
        if published is not None:
            rows = published[(published["ratio"] == ratio) & published["alpha"].isin(alphas)].sort_values("alpha")
            axis.plot(rows["alpha"].map(place), rows["fd"], "x--", color="0.45", label="published (one run a point)")
        axis.set(title=f"male:female {ratio:g}", xlabel="alpha", xticks=range(len(alphas)), xticklabels=[f"{a:g}" for a in alphas])
    axes[0][0].set_ylabel("Fairness Discrepancy (tv)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    sns.despine(figure)
    return figure

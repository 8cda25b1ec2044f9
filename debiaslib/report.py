"""What a sweep leaves for people: `fig2.png`, `fig_fd.png` and a self-contained `report.html`."""

import base64
import html
import json
import os
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from debiaslib import fairness, plots
from debiaslib.presets import data_root

TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.82rem;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd}th{background:#f4f4f4}
img{max-width:100%}code{background:#f4f4f4;padding:0 .2rem}.small{font-size:.85rem;color:#555}</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
<h2>What the numbers say</h2><ul>{% for line in findings %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>Table 1</h2>{{ table }}
<p class="small">FD is |p<sub>man</sub> &minus; .5| over the pictures the judge decided (total variation, two classes), with its 95&nbsp;% interval from
sampling alone: one training run a cell says nothing of the spread between runs. A perfectly fair model stays below {{ band }} at n = {{ n }} in
95&nbsp;% of samples. <i>FD corrected</i> takes the judge's own error out (CLEAM){{ correction }}. Frechet distance and KID are on EfficientNet-Lite0
features and are no FID; face rate counts pictures in which dlib finds a face; the judge abstains without a face or without confidence.</p>
<h2>Fairness against alpha</h2><img alt="FD against alpha, a panel a ratio, intervals and null band drawn" src="{{ figure_fd }}">
{% if figure_2 %}<h2>The same seeds across alpha</h2><img alt="Generated faces, one seed a row, alpha along the columns" src="{{ figure_2 }}">{% endif %}
<h2>The published table, for comparison</h2>{{ published }}
<p class="small">Huang, Tsao, Su and Chiang 2025 (arXiv 2503.12536): Stable Diffusion v1.5, CelebAMask-HQ, 800 pictures a cell, one training run a cell.
Their column "FID" lies near .02, which a pool3 FID at this sample size cannot; it is shown as printed. Other model, other faces, other judge: compare the
direction, not the numbers.</p>
<h2>Limits</h2><p>For understanding and reducing bias in generators, not for identifying people or deciding about them. Every gender here is <b>perceived</b>: what
a classifier reads into a picture that shows nobody. It knows two words; it cannot know how anyone identifies. The generated faces are samples of a small
model trained on FairFace (K&auml;rkk&auml;inen and Joo 2021, CC BY 4.0).</p>
<p class="small">Made with <code>{{ command }}</code> on {{ machine }}.</p></html>"""

SHOWN = ["indicator", "ratio", "alpha", "seed", "face_rate", "abstained", "male_share", "fd", "fd_low", "fd_high", "fd_corrected", "frechet", "kid",
         "density", "coverage", "is_mean", "is_std", "fit_loss", "train_s", "generate_s"]


def write_report(out: Path, table: pd.DataFrame) -> Path:
    """Write figures and `report.html` for the sweep in `out`; returns the report's path."""
    record = json.loads((out / "sweep.json").read_text())
    published = pd.read_csv(data_root() / "published/s1_table.csv")
    n = int(table["n"].iloc[0])
    band = fairness.null_band(n)
    figure_fd = _save(plots.discrepancy_figure(table, band=band, published=published), out / "fig_fd.png")
    figure_2 = _same_seed_rows(out, table, record["settings"])
    page = jinja2.Template(TEMPLATE).render(
        title="Fairness and quality across alpha", lead=_lead(table), findings=[html.escape(line) for line in findings(out, table)],
        table=table[SHOWN].to_html(index=False, na_rep="", float_format=lambda value: f"{value:.3f}", border=0),
        band=f"{band:.3f}", n=n, correction="" if table["fd_corrected"].notna().any() else "; empty: the confusion of this judge is not known",
        figure_fd=_embed(figure_fd), figure_2=figure_2 and _embed(figure_2),
        published=published.to_html(index=False, border=0), command=html.escape(record["command"]),
        machine=html.escape(f"{record['machine']['system']}, {record['machine']['cores']} cores"))
    partial = out / "report.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, out / "report.html")
    return out / "report.html"


def findings(out: Path, table: pd.DataFrame) -> list[str]:
    """A sentence a ratio and indicator: which alphas differ from alpha = 0 by the interval paired over sampling seeds."""
    lines = []
    for (ratio, indicator, seed), rows in table.groupby(["ratio", "indicator", "seed"]):
        base = rows[rows["alpha"] == 0]
        if base.empty or rows["fd"].isna().any():
            lines.append(f"Ratio {ratio:g}, {indicator}, training seed {seed}: no comparison (no alpha 0, or a cell in which the judge decided nothing).")
            continue
        start = _decisions(out, base.iloc[0])
        parts = [_difference(start, _decisions(out, row), row) for _, row in rows[rows["alpha"] > 0].iterrows()]
        lines.append(f"Ratio {ratio:g}, {indicator}, training seed {seed}: FD at alpha 0 is {base['fd'].iloc[0]:.3f} "
                     f"({base['fd_low'].iloc[0]:.3f} to {base['fd_high'].iloc[0]:.3f}), face rate {base['face_rate'].iloc[0]:.3f}. "
                     + " ".join(parts))
    return lines


def _difference(start: list[str], other: list[str], row: pd.Series) -> str:
    gap = fairness.paired_difference(start, other)
    verdict = "lower" if gap.low > 0 else "higher" if gap.high < 0 else "not told apart"
    return (f"Alpha {row['alpha']:g}: FD {row['fd']:.3f}, {verdict} (reduction {gap.estimate:+.3f}, 95 % {gap.low:+.3f} to {gap.high:+.3f}), "
            f"face rate {row['face_rate']:.3f}.")


def _decisions(out: Path, row: pd.Series) -> list[str]:
    from debiaslib.sweep import Cell
    cell = Cell(indicator=row["indicator"], ratio=float(row["ratio"]), alpha=float(row["alpha"]), seed=int(row["seed"]))
    return pd.read_csv(out / "cells" / cell.folder / "judged.csv", keep_default_na=False)["perceived"].tolist()


def _same_seed_rows(out: Path, table: pd.DataFrame, settings: dict) -> Path:
    from debiaslib.sweep import Cell
    first = table[(table["indicator"] == table["indicator"].iloc[0]) & (table["seed"] == table["seed"].iloc[0])]
    samples = {(row.ratio, row.alpha): out / "cells" / Cell(indicator=row.indicator, ratio=row.ratio, alpha=row.alpha, seed=row.seed).folder / "samples"
               for row in first.itertuples()}
    return _save(plots.same_seed_figure(samples, first_seed=settings["sample_seed"]), out / "fig2.png")


def _lead(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return (f"{len(table)} fine-tuned models of the preset {first['preset']!r}, each trained on {first['n_train']} faces ({first['faces']}) for "
            f"{first['train_steps']} steps, then judged on {first['n']} pictures of the neutral prompt ({first['sample_steps']} steps, guidance "
            f"{first['guidance']:g}), the same seeds for every model.")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=170)
    plt.close(figure)
    return path


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

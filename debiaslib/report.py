"""What a sweep leaves for people: `fig2.png`, `fig_fd.png` and a self-contained `report.html`."""

import argparse
import base64
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from debiaslib import claims, plots
from debiaslib.atomic import replacing, write_whole
from debiaslib.errors import InputError
from debiaslib.presets import data_root

TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:.82rem;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}th{background:#f4f4f4}
caption{text-align:left;font-weight:600;padding:.3rem 0}td.pass{color:#00634a}td.fail{color:#a33400;font-weight:600}
td.not-shown{color:#555}.claim td:nth-child(3){white-space:nowrap;text-align:left}.claim th{text-align:left}
summary{cursor:pointer;padding:.2rem 0}
details caption{display:none}
img{max-width:100%}code{background:#f4f4f4;padding:0 .2rem}.small{font-size:.85rem;color:#555}</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
<p class="small"><b>Alpha</b> is the indicator's intensity in the loss; {{ mapping }}. At alpha 0 every indicator is plain
fine-tuning.</p>
<h2>What the numbers say</h2><ul>{% for line in findings %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>Does it debias?</h2>
<p>A claim of debiasing holds only if all eight conditions pass. <i>Fail</i>: these runs speak against it. <i>Not shown</i>:
they are too few, or a figure was not measured; that carries no claim either. A + marks what says more than the claim needs.
Where training faces are balanced (male:female 1) there is no bias to remove: read <i>balanced</i> there, for harm.</p>
{{ summary }}
{% for claim in claims %}<details{% if loop.first %} open{% endif %}>
<summary>{{ claim.verdict }}</summary>{{ claim._repr_html_()|safe }}</details>
{% endfor %}
<h2>Fairness against alpha</h2>
<img alt="FD against alpha, a panel a ratio: intervals, training seeds, parity and null band drawn" src="{{ figure_fd }}">
<p class="small">FD is |p<sub>man</sub> &minus; .5| over the pictures the judge decided (total variation, two classes): 0 is
parity. Intervals are at 95&nbsp;%, over training seeds and sampling; with a single training seed from sampling alone, which
says nothing of the spread between runs. <i>Corrected</i> takes the judge's own error out (CLEAM){{ correction }}.</p>
<h2>Table 1, beside the published one</h2>{{ beside }}
<p class="small">Means over training seeds; weighting indicators: see their strength. Published: Huang, Tsao, Su and Chiang
2025 (arXiv 2503.12536), one indicator (here <code>literal</code>), Stable Diffusion v1.5, CelebAMask-HQ, 800 pictures a
cell, one training run a cell, FD as read. Their "FID" lies near .02, which a pool3 FID at this sample size cannot; it is
shown as printed. Other model, other faces, other judge: compare the direction, not the numbers. Frechet distance and KID
here are on EfficientNet-Lite0 features and are no FID; they move with composition alone. Face rate counts pictures in which
dlib finds a face; the judge abstains without a face or without confidence.</p>
<details><summary>Every run</summary>{{ table }}</details>
{% if figure_2 %}<h2>The same seeds across alpha</h2><p>{{ drawn }}</p>
<img alt="Generated faces, one seed a row, alpha along the columns" src="{{ figure_2 }}">{% endif %}
<h2>Limits</h2>
<p>For understanding and reducing bias, not for identifying people or deciding about them. Every gender here is
<b>perceived</b>: what a classifier reads into a picture that shows nobody. It knows two words; it cannot know how anyone
identifies. The reader's own photographs stay on the reader's machine: training and judging run there, and this page holds
figures and generated pictures only.{% if tiny %} The generated faces are samples of a small model trained on FairFace
(K&auml;rkk&auml;inen and Joo 2021, CC BY 4.0).{% endif %}</p>
<p class="small">Made with <code>{{ command }}</code> on {{ machine }}.</p></html>"""

SHOWN = ("indicator", "control", "ratio", "alpha", "strength", "seed", "face_rate", "abstained", "male_share", "fd",
         "fd_low", "fd_high", "fd_corrected", "frechet", "kid", "density", "coverage", *claims.WORSE, "is_mean", "is_std",
         "fit_loss", "p_eff", "ess", "train_s", "generate_s")
MEANS = {"n": "pictures", "male_share": "men's share", "fd": "FD as read", "fd_corrected": "FD corrected",
         "face_rate": "face rate", "frechet": "Frechet", "kid": "KID", "is_mean": "IS", "fit_loss": "fit loss"}
PUBLISHED = {"male_share": "men's share", "fd": "FD", "fid_as_published": "\"FID\"", "is_mean": "IS"}


def write_report(out: Path, table: pd.DataFrame, *, controls: pd.DataFrame | None = None, second: pd.DataFrame | None = None,
                 frozen: str | None = None) -> Path:
    """Write `fig_fd.png`, `fig2.png` and `report.html` for the sweep in `out`; returns the report's path.

    `table` holds the sweep's rows; `controls`, `second` and `frozen` are what `claims.check` takes. Where the cells' own
    judgements lie in `out`, runs are compared picture by picture, else by their counts.
    """
    record = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    published, decisions = pd.read_csv(data_root() / "published/s1_table.csv"), judged_words(out)
    found = claims.survey(table, controls=controls, second=second, frozen=frozen, decisions=decisions)
    curves = claims.curves(table, decisions=decisions)
    figure_fd = _save(plots.discrepancy_figure(curves, table, published=published), out / "fig_fd.png")
    figure_2, drawn = _same_seed_rows(out, table, record["settings"])
    page = _template().render(
        title="Fairness and quality across alpha", lead=_lead(table), mapping=claims.mapping(), figure_fd=_embed(figure_fd),
        findings=findings(table, decisions=decisions), claims=[conditions for _, conditions in found],
        summary=_table(claims.summary_frame(found)), beside=_table(beside_published(table, published)),
        correction="" if "corrected" in {*curves["reading"]} else "; missing: the confusion of this judge is not known",
        table=_table(_every_run(table)), figure_2=figure_2 and _embed(figure_2), drawn=drawn,
        tiny=record["settings"]["preset"] == "tiny", command=record["command"],
        machine=f"{record['machine']['system']}, {record['machine']['cores']} cores")
    write_whole(out / "report.html", page.encode())
    return out / "report.html"


def findings(table: pd.DataFrame, *, decisions: claims.Decisions | None = None) -> list[str]:
    """A sentence a ratio and indicator: which alphas differ from alpha = 0, by intervals paired over training seeds."""
    changes, lines = claims.changes(table, decisions=decisions), []
    rates = table.groupby(["indicator", "ratio", "alpha"])["face_rate"].mean()
    for (ratio, indicator), rows in changes.groupby(["ratio", "indicator"], sort=True):
        steps = [f"alpha {row.alpha:g}: {row.fd:.3f}, {_verdict(row)} (reduction {row.reduction:+.3f}, 95 % {row.low:+.3f} "
                 f"to {row.high:+.3f}; face rate {rates.loc[indicator, ratio, row.alpha]:.3f})" for row in rows.itertuples()]
        most = rows["seeds"].max()
        seeds = f"up to {most} training seeds" if most > 1 else "one training seed, so nothing of the spread between runs"
        start = rows["start"].iloc[-1]
        lines.append(f"Ratio {ratio:g}, {indicator} ({seeds}): FD at alpha 0 is {start:.3f}; {'; '.join(steps)}.")
    return lines or ["No comparison: no run above alpha 0 has a paired one at alpha 0 in which the judge decided anything."]


def _verdict(row) -> str:
    return "lower" if row.low > 0 else "higher" if row.high < 0 else "not told apart"


def beside_published(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 1: means over training seeds, a row an indicator, ratio and alpha; the published figures of that cell beside."""
    keys, plain = ["indicator", "ratio", "alpha"], table[table["control"].fillna("") == ""] if "control" in table else table
    groups = plain.groupby(keys)
    ours = groups[[name for name in MEANS if name in plain]].mean().rename(columns=MEANS)
    ours.insert(0, "seeds", groups.size())
    strengths = [claims.strength(name, alpha) for name, _, alpha in ours.index]
    ours.insert(0, "strength", pd.Series(strengths, ours.index, dtype=float))
    theirs = published.set_index(["ratio", "alpha"])[list(PUBLISHED)].rename(columns=PUBLISHED)
    theirs = theirs.reindex([(ratio, alpha) for _, ratio, alpha in ours.index]).set_axis(ours.index)
    return pd.concat({"these runs": ours, "published": theirs}, axis=1).reset_index()


def judged_words(out: Path) -> claims.Decisions:
    """What the judge said of a run's pictures, in the order of the sampling seeds; None where `out` does not hold it."""
    from debiaslib.sweep import Cell

    @functools.cache
    def read(folder: str) -> list[str] | None:
        path = out / "cells" / folder / "judged.csv"
        return pd.read_csv(path, keep_default_na=False)["perceived"].tolist() if path.exists() else None

    def words(row: pd.Series) -> Sequence[str] | None:
        if row["control"]:
            return None
        cell = Cell(indicator=row["indicator"], ratio=float(row["ratio"]), alpha=float(row["alpha"]), seed=int(row["seed"]))
        return read(cell.folder)

    return words


def _every_run(table: pd.DataFrame) -> pd.DataFrame:
    strengths = [claims.strength(name, alpha) for name, alpha in zip(table["indicator"], table["alpha"], strict=True)]
    table = table.assign(strength=pd.Series(strengths, table.index, dtype=float))
    return table[[name for name in SHOWN if name in table and table[name].notna().any()]]


def _same_seed_rows(out: Path, table: pd.DataFrame, settings: dict) -> tuple[Path | None, str]:
    """`fig2.png` of the first indicator's first training seed, and what it shows; an old one where the pictures are gone."""
    from debiaslib.sweep import Cell
    name, seed = table.iloc[0][["indicator", "seed"]]
    first = table[(table["indicator"] == name) & (table["seed"] == seed)]
    cells = [Cell(indicator=name, ratio=row.ratio, alpha=row.alpha, seed=seed) for row in first.itertuples()]
    samples = {(cell.ratio, cell.alpha): out / "cells" / cell.folder / "samples" for cell in cells}
    told, figure = f"Indicator {name}, training seed {seed}.", out / "fig2.png"
    if any((folder / "images/00000.png").exists() for folder in samples.values()):
        return _save(plots.same_seed_figure(samples, first_seed=settings["sample_seed"] + settings.get("seeds_apart", 0) * seed), figure), told
    return (figure, told) if figure.exists() else (None, "")


def _lead(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return (f"{len(table)} fine-tuned models of the preset {first['preset']!r}, each trained on {first['n_train']} faces "
            f"({first['faces']}) for {first['train_steps']} steps, then judged on {first['n']} pictures of the neutral "
            f"prompt ({first['sample_steps']} steps, guidance {first['guidance']:g}), the same sampling seeds for all models of one training seed.")


def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True).from_string(TEMPLATE)


def _table(frame: pd.DataFrame) -> str:
    return Markup(frame.to_html(index=False, na_rep="", float_format=lambda value: f"{value:.4g}", border=0))


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=170, format="png")
    plt.close(figure)
    return path


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _rows(path: Path | None) -> pd.DataFrame | None:
    try:
        return None if path is None else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable table ({error}). Give the CSV of a sweep's rows.") from None


def main(arguments: list[str] | None = None) -> int:
    """Write a sweep's report anew, with what became known after it."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.report", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="DIR", help="a sweep's folder: table1.csv and sweep.json")
    parser.add_argument("--controls", type=Path, metavar="CSV", help="rows of control runs, named in the column `control`")
    parser.add_argument("--second", type=Path, nargs="+", metavar="CSV", help="the same runs read for other attributes")
    parser.add_argument("--frozen", metavar="TEXT", help="where the settings were chosen, in words")
    args = parser.parse_args(arguments)
    cells = args.sweep / "cells.csv"
    second = None if args.second is None else pd.concat([_rows(path) for path in args.second], ignore_index=True)
    if not (args.sweep / "sweep.json").exists():
        raise InputError(f"{args.sweep}: no sweep.json. Give the folder that `debiaslib sweep` wrote.")
    table = _rows(cells if cells.exists() else args.sweep / "table1.csv")
    if table.empty:
        raise InputError(f"{args.sweep}: no finished cell yet. Run `debiaslib sweep` again with the same settings: it goes on where it stopped.")
    print(write_report(args.sweep, table, controls=_rows(args.controls), second=second, frozen=args.frozen))
    return 0


if __name__ == "__main__":
    from debiaslib.__main__ import guarded
    sys.exit(guarded("report", main))

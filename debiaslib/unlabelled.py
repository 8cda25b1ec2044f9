"""How mixed are a model's pictures, told without a label and without a classifier of gender?

A small balanced reference and the training faces differ in their mix of groups that nobody names. `rarity.find_components` finds
two such groups in face embeddings; how much of each is in the pictures that a model drew is then read off. The judge's word
stands beside it, which knows the groups by name and took no part.

`python -m debiaslib.unlabelled SWEEP` reads a sweep that had a --reference, and writes `unlabelled.csv` there. With --known it
reads real faces of known mix instead, those that the sweep compares quality with, and writes `known.csv`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from debiaslib import rarity, sweep
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing
from debiaslib.controls import read_sweep
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.faces import draw_subset, read_metadata, read_pixels
from debiaslib.finetune import embed_decoded, training_rows
from debiaslib.measure import open_pictures
from debiaslib.presets import Preset, get_preset, one_thread

KEPT = "embedding_{count}.npy"
KNOWN = 0.4, 0.5, 0.6
"""Shares of men in sets of real faces that are read for a trial."""


def read_unlabelled(out: Path, *, count: int = 200, progress: bool = True) -> pd.DataFrame:
    """The share of the group that the training faces have less of, in each finished cell of the sweep in `out`.

    A row a cell whose training faces were not even: indicator, ratio, alpha, seed, in_training, in_reference, in_drawn (of `count`
    pictures, by `Components.proportions`), judged (the judge's share of the gender that is rarer in training, uncorrected).
    Writes `unlabelled.csv`; what is embedded is not embedded again. Raises InputError where there is no sweep, no finished cell, or
    the sweep had no reference, or only training faces that were even.
    """
    (preset, config), rows = _with_reference(out), []
    cells = {cell: row for cell, row in sweep.finished_cells(out).items() if row["ratio"] != 1}
    if not cells:
        raise InputError(f"{out}: all training faces there were even, so that no group is the rarer one. Run the sweep with other --ratios.")
    for cell, row in tqdm(cells.items(), desc="unlabelled", disable=not progress):
        found, training, reference = groups_of(preset, config, row["ratio"], row["seed"])
        drawn = found.proportions(embedded(cell, count=count, size=preset.image_size))
        rare = training.argmin()
        rows.append(sweep.key_of(row) | {
            "in_training": training[rare], "in_reference": reference[rare], "in_drawn": drawn[rare],
            "judged": row["male_share"] if row["ratio"] < 1 else 1 - row["male_share"]})
    table = pd.DataFrame(rows)
    with replacing(out / "unlabelled.csv") as whole:
        table.to_csv(whole, index=False, float_format="%.4f")
    return table


def read_known(out: Path, *, seeds: Sequence[int], count: int = 400, progress: bool = True) -> pd.DataFrame:
    """How well real faces of known mix are read by the groups that the sweep in `out` would find for training seeds `seeds`.

    Sets of `count` faces of the sweep's `reference_split`, which holds none to train on, as the decoder draws them. A row a seed,
    ratio (.25 and 4) and share: ratio, seed, `men` (the true share), `read` (that share by `Components.proportions`),
    `reference` (the same of the balanced reference, where one half is true) and `even` (what `rarity.even_shares` makes of that). Writes
    `known.csv`. Raises InputError where there is no sweep, it had no reference, or its faces no splits or too few faces.
    """
    (preset, config), rows = _with_reference(out), []
    source = config.compare_with or config.faces
    if "split" not in read_metadata(source):
        raise InputError(f"{source}: no column split, and faces to train on would be read as well. Give a sweep of faces with splits.")
    look = training_rows(source, split=config.reference_split).reset_index(drop=True)
    features = embed_decoded(sweep.base_pipeline(preset), read_pixels(source, look["file_name"].tolist(), size=preset.image_size))
    for seed, ratio in tqdm(list(product(seeds, (0.25, 4.0))), desc="known", disable=not progress):
        found, training, reference = groups_of(preset, config, ratio, seed)
        men = training.argmin() if ratio < 1 else training.argmax()
        for share in KNOWN:
            some = features[draw_subset(look, ratio=share / (1 - share), size=count, seed=seed)]
            rows.append({"ratio": ratio, "seed": seed, "men": share, "read": found.proportions(some)[men], "reference": reference[men],
                         "even": rarity.even_shares(reference, count=config.reference_size)[men]})
    table = pd.DataFrame(rows)
    with replacing(out / "known.csv") as whole:
        table.to_csv(whole, index=False, float_format="%.4f")
    return table


def _with_reference(out: Path) -> tuple[Preset, sweep.SweepConfig]:
    name, config = read_sweep(out)
    if config.reference is None:
        raise InputError(f"{out}: that sweep had no --reference, and balance has to come from somewhere.")
    return get_preset(name), config


@lru_cache(maxsize=1)
def groups_of(preset: Preset, config: sweep.SweepConfig, ratio: float, seed: int) -> tuple[rarity.Components, np.ndarray, np.ndarray]:
    """The groups of one training set, and their shares in it and in its reference; once for the cells that share it."""
    data = sweep.training_set(preset, replace(config, indicators=("recalibrated",)), ratio, seed)
    faces, reference = data.evidence.decoded
    found = rarity.find_components(faces, reference, more=data.evidence.more)
    return found, found.proportions(faces), found.proportions(reference)


def embedded(cell: Path, *, count: int, size: int) -> np.ndarray:
    """Embeddings (count, D) of the cell's first pictures, kept there."""
    kept = cell / KEPT.format(count=count)
    if not kept.exists():
        pictures = np.concatenate(list(open_pictures(cell / "samples", size=size)))[:count]
        with replacing(kept) as whole, open(whole, "wb") as file:
            np.save(file, embed_faces(pictures))
    return np.load(kept)


def main(arguments: list[str] | None = None) -> int:
    """Read a sweep without labels, and hold it against the judge."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.unlabelled", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    parser.add_argument("--count", type=int, default=None, help="pictures of each cell, default 200, or faces of a known mix, default 400")
    parser.add_argument("--known", type=int, default=None, metavar="N", help="read faces of known mix with the groups of training seeds 0 to N - 1")
    args = parser.parse_args(arguments)
    if args.known is not None:
        return _known(args.sweep, args.known, args.count or 400)
    with one_thread():
        table = read_unlabelled(args.sweep, count=args.count or 200, progress=sys.stderr.isatty())
    by = table.groupby(["indicator", "ratio", "alpha"])[["in_training", "in_reference", "in_drawn", "judged"]].mean().round(3)
    together = np.corrcoef(table["in_drawn"], table["judged"])[0, 1] if len(table) > 2 else float("nan")
    print(f"{by.to_string()}\n\ncorrelation of in_drawn with the judge's word, {len(table)} cells: {together:.3f}")
    return 0


def _known(out: Path, seeds: int, count: int) -> int:
    if seeds < 2:
        raise InputError(f"--known {seeds}: give 2 training seeds or more.")
    with one_thread():
        table = read_known(out, seeds=range(seeds), count=count, progress=sys.stderr.isatty())
    held = {"as read": 0.5, "held against what is even": table["even"], "held against the reference": table["reference"]}
    errors = pd.DataFrame({name: table["read"] - even + 0.5 - table["men"] for name, even in held.items()})
    by = errors.groupby([table["ratio"], table["seed"]]).mean()
    print(f"{by.describe().loc[['mean', 'std']].round(4).to_string()}\n{len(by)} training sets, {len(KNOWN)} shares each; errors of the share of men")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("unlabelled", main))

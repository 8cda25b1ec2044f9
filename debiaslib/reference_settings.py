"""How the settings of `reference` were chosen: what its weights aim at before any training, from training faces of eleven mixes.

A hundred faces that are balanced can be told from a hundred others by something, whatever either shows, so a density ratio shifts
even a balanced training set, and nobody can know in which direction. `rarity.told_apart` takes the ratio only as far as both sets surely
differ. How many axes it should look along, and what counts as sure, was tried here on thirty training sets a mix that no training uses.
Gender labels serve to make the mixes and to read off p_eff, so the choice took labels; the weights take none.

`python -m debiaslib.reference_settings --faces ZIP --out CSV` takes training sets from split `finetune` and references from split `reference`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from debiaslib import faces, rarity
from debiaslib.__main__ import guarded
from debiaslib.compare import write_table
from debiaslib.density_settings import FIRST_SEED, embedded, one_set
from debiaslib.face_axes import axes_hash, load_axes
from debiaslib.finetune import training_rows
from debiaslib.presets import one_thread
from debiaslib.rarity import ReferenceConfig

SHARES = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
"""Of men in the training set."""
DRAWS, SIZE = 30, 100
"""How many training sets a share, and how many faces in each and in its reference."""
TAKEN_WHOLE = 0
"""What `dims` says of the ratio as it is, told apart or not."""
GRID = [ReferenceConfig(apart_dims=dims, chance=chance) for dims in (3, 4, 5, 6, 8) for chance in (0.5, 1.0)]


def try_settings(training: tuple[pd.DataFrame, np.ndarray], reference: tuple[pd.DataFrame, np.ndarray], natural: np.ndarray, *,
                 draws: int = DRAWS, size: int = SIZE, progress: bool = False) -> pd.DataFrame:
    """A row a share of men and setting, first the ratio taken whole (`dims` 0).

    Columns: share, dims, chance, draws, apart (mean of `told_apart`), p_eff, sd, missed (mean |p_eff - .5|), ess.

    `training` and `reference` are labels and embeddings (N, D), `natural` (M, D) embeddings of pictures of no face. Raises InputError
    where the faces cannot give a training set or reference of `size`.
    """
    (frame, rows), (balanced, others), axes = training, reference, load_axes()
    is_male, lines = faces.gender_of(frame), []
    for share, number in tqdm([(share, number) for share in SHARES for number in range(draws)], desc="settings", disable=not progress):
        chosen, gate = one_set(frame, rows, natural, size=size, ratio=share / (1 - share), seed=FIRST_SEED + number)
        seen = rows[chosen], others[faces.draw_subset(balanced, ratio=1.0, size=size, seed=FIRST_SEED + number)]
        ratio = rarity.reference_values(*seen)
        for config in [replace(GRID[0], apart_dims=TAKEN_WHOLE), *GRID]:
            apart = rarity.told_apart(*seen, axes, config=config) if config.apart_dims else 1.0
            values = (1 + apart * (ratio - 1)) * gate
            lines.append({"share": share, "dims": config.apart_dims, "chance": config.chance if config.apart_dims else 0.0, "apart": apart,
                          "p_eff": rarity.weighted_share(values, is_male[chosen]), "ess": rarity.effective_share(values)})
    return summarised(pd.DataFrame(lines))


def summarised(trials: pd.DataFrame) -> pd.DataFrame:
    """Means over the draws, and the scatter of what the weights aim at, a row a share and setting."""
    grouped = trials.assign(missed=(trials["p_eff"] - 0.5).abs()).groupby(["share", "dims", "chance"])
    table = grouped[["apart", "p_eff", "missed", "ess"]].mean()
    return table.assign(draws=grouped.size(), sd=grouped["p_eff"].std(ddof=0)).reset_index()


def main(arguments: list[str] | None = None) -> int:
    """Try the settings and write the table."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.reference_settings", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled faces with splits finetune and reference")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(arguments)
    frames = [training_rows(args.faces, split=split) for split in ("finetune", "reference")]
    with one_thread():
        rows, natural = embedded(args.faces, frames)
        table = try_settings(*zip(frames, rows, strict=True), natural, progress=sys.stderr.isatty())
    told = {"command": f"python -m debiaslib.reference_settings --faces {args.faces.name} --out CSV", "faces": [len(frame) for frame in frames],
            "axes_sha256": axes_hash(), "first_seed": FIRST_SEED}
    write_table(table, args.out, told, float_format="%.4f")
    print(table.pivot_table(index=["dims", "chance"], columns="share", values="missed").round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(guarded("reference_settings", main))

"""How the settings of `density` were chosen: what its weights aim at before any training, over many training sets.

One draw of a hundred faces says little: what the weights aim at scatters by .07 to .10 from draw to draw. So each setting is tried on sixty, and
the one was taken whose p_eff is nearest to one half on average over the three mixes, among those that keep an effective sample of .4.
Gender labels serve to read off p_eff, so the choice took labels; the weights take none.

`python -m debiaslib.density_settings --faces ZIP --out CSV` takes training sets from split `finetune` and tries axes found in split `pretrain`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from debiaslib import faces, rarity
from debiaslib.__main__ import guarded
from debiaslib.compare import write_table
from debiaslib.errors import InputError
from debiaslib.face_axes import axes_hash, fit_axes, load_axes
from debiaslib.face_embedding import embed_faces
from debiaslib.finetune import training_rows
from debiaslib.presets import get_preset, one_thread
from debiaslib.rarity import DensityConfig
from debiaslib.representations import draw

RATIOS, FIRST_SEED = (0.25, 1.0, 4.0), 100
"""Training sets of these seeds and up were never trained on."""
DRAWS = {100: 60, 500: 20, 1000: 10}
"""How many training sets of a size."""
OWN, SHIPPED = "the training faces' own", "shipped"
GRID = {OWN: [DensityConfig(dims=dims, neighbours=0.1, exponent=exponent) for dims in (2, 3, 4, 6) for exponent in (3.0, 4.5, 6.0, 9.0)],
        SHIPPED: [DensityConfig(dims=dims, neighbours=part, exponent=exponent) for dims in (3, 4, 5, 6) for part in (0.1, 0.15, 0.2)
                  for exponent in (3.0, 3.5, 4.0, 4.5, 5.0, 6.0)]}
BEFORE = DensityConfig(dims=3, neighbours=0.1, exponent=4.5)
"""What was used, along a training set's own components, before axes shipped."""


def axes_of_mixes(embeddings: np.ndarray, is_male: np.ndarray, *, count: int = 700, seed: int = 0) -> dict[str, np.ndarray]:
    """Axes found among `count` of the embeddings (N, D) with a fifth to four fifths of men, and among few faces of any mix.

    Raises InputError where there are too few of either for that.
    """
    fewest = min(is_male.sum(), (~is_male).sum())
    if fewest < round(0.8 * count):
        raise InputError(f"{fewest} faces of one gender among those that axes are to be found in: {round(0.8 * count)} are needed, for mixes of a "
                         "fifth to four fifths.")
    generator, found = np.random.default_rng(seed), {}
    for share in (0.2, 0.35, 0.65, 0.8):
        found[f"of {count} faces, {share:.0%} men"] = fit_axes(embeddings[draw(is_male, n=count, share=share, seed=generator)])[0]
    return found | {f"of {few} faces": fit_axes(embeddings[generator.choice(len(embeddings), few, replace=False)])[0] for few in (100, 400)}


def plan(others: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray | None, DensityConfig, int]]:
    """Name of the axes, axes, settings and size: the grid with 100 faces; what is used and what was, with more; other axes."""
    own, shipped, used = None, load_axes(), DensityConfig()
    for name, axes in ((OWN, own), (SHIPPED, shipped)):
        yield from ((name, axes, config, 100) for config in GRID[name])
    for size in (500, 1000):
        yield from ((OWN, own, BEFORE, size), (SHIPPED, shipped, used, size))
    yield from ((name, axes, used, 100) for name, axes in others.items())


def aims(rows: np.ndarray, is_male: np.ndarray, gate: np.ndarray, *, axes: np.ndarray | None, config: DensityConfig) -> tuple[float, float]:
    """p_eff and effective sample of the weights of a training set (N, D); strays are kept out by `gate` (N,)."""
    values = rarity.density_values(rows, axes=axes, config=config) * gate
    return rarity.weighted_share(values, is_male), rarity.effective_share(values)


def try_settings(frame: pd.DataFrame, embeddings: np.ndarray, natural: np.ndarray, *, others: dict[str, np.ndarray] | None = None,
                 draws: dict[int, int] | None = None, progress: bool = False) -> pd.DataFrame:
    """A row a setting and mix, for as many sizes as there are faces for.

    Columns: axes, dims, neighbours, exponent, n, ratio, draws, p_eff, sd, missed (mean |p_eff - .5|), ess.

    `frame` has the labels of the training faces, `embeddings` (N, D) theirs, `natural` (M, D) those of pictures of no face. Raises
    InputError where there are too few faces for any size.
    """
    is_male, draws, lines = faces.gender_of(frame), draws or DRAWS, []
    sets = {(size, ratio): [one_set(frame, embeddings, natural, size=size, ratio=ratio, seed=FIRST_SEED + seed) for seed in range(count)]
            for size, count in draws.items() for ratio in RATIOS if _enough(is_male, size, ratio)}
    if not sets:
        raise InputError(f"{is_male.sum()} men and {(~is_male).sum()} women to draw training sets from: sets of {min(draws)} need four fifths of "
                         "that of either.")
    for name, axes, config, size in tqdm(list(plan(others or {})), desc="settings", disable=not progress):
        for ratio in RATIOS:
            found = np.array([aims(embeddings[chosen], is_male[chosen], gate, axes=axes, config=config)
                              for chosen, gate in sets.get((size, ratio), [])])
            if len(found):
                share, kept = found.T
                lines.append({"axes": name, "dims": config.dims, "neighbours": config.neighbours, "exponent": config.exponent, "n": size,
                              "ratio": ratio, "draws": len(found), "p_eff": share.mean(), "sd": share.std(), "missed": np.abs(share - 0.5).mean(),
                              "ess": kept.mean()})
    return pd.DataFrame(lines)


def one_set(frame: pd.DataFrame, embeddings: np.ndarray, natural: np.ndarray, *, size: int, ratio: float,
            seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (size,) of a training set, and how far each of its faces is let in (size,), strays hardly."""
    chosen = faces.draw_subset(frame, ratio=ratio, size=size, seed=seed)
    return chosen, rarity.face_gate(embeddings[chosen], natural)


def _enough(is_male: np.ndarray, size: int, ratio: float) -> bool:
    return bool((faces.counts_at(ratio, size) <= [is_male.sum(), (~is_male).sum()]).all())


def nearest_to_even(table: pd.DataFrame, *, least: float = 0.4) -> pd.DataFrame:
    """Settings of 100 faces, best first: `missed` on average over the mixes, where the skewed mixes keep an effective sample
    of `least`, to two digits."""
    table = table[table["n"] == 100]
    settings = table.groupby(["axes", "dims", "neighbours", "exponent"], sort=False)
    ranked = pd.DataFrame({"missed": settings["missed"].mean(), "ess": table[table["ratio"] != 1].groupby(settings.keys, sort=False)["ess"].min()})
    return ranked[ranked["ess"].round(2) >= least].sort_values("missed").reset_index()


def embedded(source: Path, frames: list[pd.DataFrame]) -> tuple[list[np.ndarray], np.ndarray]:
    """Embeddings (N, D) of the faces of each frame, read as the tiny preset reads them, and (100, D) of pictures of no face."""
    size = get_preset("tiny").image_size
    pixels = (faces.read_pixels(source, frame["file_name"].tolist(), size=size) for frame in frames)
    found = [embed_faces(part, progress=sys.stderr.isatty()) for part in pixels]
    return found, embed_faces(faces.natural_images(size=size, count=100, seed=0))


def main(arguments: list[str] | None = None) -> int:
    """Try the settings and write the table."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.density_settings", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled faces with splits finetune and pretrain")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(arguments)
    frame, further = training_rows(args.faces, split="finetune"), training_rows(args.faces, split="pretrain")
    further = further.sample(min(2000, len(further)), random_state=0)
    with one_thread():
        (own, more), natural = embedded(args.faces, [frame, further])
        others = axes_of_mixes(more, faces.gender_of(further))
        table = try_settings(frame, own, natural, others=others, progress=sys.stderr.isatty())
    told = {"command": f"python -m debiaslib.density_settings --faces {args.faces.name} --out CSV", "faces": len(frame),
            "axes_sha256": axes_hash(), "first_seed": FIRST_SEED}
    write_table(table, args.out, told, float_format="%.4f")
    print(nearest_to_even(table[table["axes"].isin(GRID)]).head(12).round(3).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("density_settings", main))

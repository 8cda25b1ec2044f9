"""Stronger shapes of the label-free weight, side by side: what each aims at before any training, and what it costs.

Every shape is a function of coordinates along the axes of `face_axes` alone; gender labels serve to read off p_eff. Besides powers of the
distance to a neighbour there are weights iterated until the weighted set is even, and the density of the model's own pictures
in place of the training faces': who is rare among what a plainly trained model draws?

`python -m debiaslib.shapes SWEEP --out CSV` reads the plain trainings (alpha 0) of a finished sweep.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors
from tqdm.auto import tqdm

from debiaslib import faces, rarity
from debiaslib.__main__ import guarded
from debiaslib.compare import write_table
from debiaslib.controls import read_sweep
from debiaslib.errors import InputError
from debiaslib.face_axes import load_axes
from debiaslib.face_embedding import embed_faces
from debiaslib.finetune import load_training_faces
from debiaslib.measure import open_pictures
from debiaslib.presets import get_preset, one_thread
from debiaslib.rarity import DensityConfig, clipped, density_values
from debiaslib.sweep import finished_cells

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Coordinates of the training faces (N, K) and of pictures that a plain training drew (M, K), to weights (N,) of mean 1."""


def power(exponent: float) -> Shape:
    """The distance to the k-th neighbour, to a power: below the number of dimensions tempered, above it sharpened."""
    return lambda own, drawn: density_values(own, config=DensityConfig(exponent=exponent))


def iterated(own: np.ndarray, drawn: np.ndarray | None = None, *, rounds: int = 5, config: DensityConfig | None = None) -> np.ndarray:
    """v <- v r(v)^K, r(v)_i the distance within which a share `neighbours` of all *weight* lies around face i.

    A fixed point is a weighted set that is even over the space it fills; one round is `power(K)`.
    """
    config = config or DensityConfig()
    far = np.linalg.norm(own[:, None] - own, axis=2)
    order, values = far.argsort(axis=1), np.ones(len(own))
    for _ in range(rounds):
        around = np.cumsum(values[order], axis=1) >= config.neighbours * values.sum()
        radius = np.take_along_axis(far, np.take_along_axis(order, around.argmax(axis=1)[:, None], axis=1), axis=1)[:, 0]
        values = clipped(values * (radius / radius.max()) ** own.shape[1], most=config.most)
    return values


def among_drawn(own: np.ndarray, drawn: np.ndarray, *, config: DensityConfig | None = None) -> np.ndarray:
    """r_i^exponent with r_i the distance from training face i to its k-th neighbour among pictures that a model drew.

    Whom the model draws seldom comes up more often. It takes a first training, and pictures of it.
    """
    config = config or DensityConfig()
    k = max(2, round(config.neighbours * len(drawn)))
    radius = NearestNeighbors(n_neighbors=k).fit(drawn).kneighbors(own)[0][:, -1]
    return clipped((radius / radius.max()) ** config.exponent, most=config.most)


SHAPES: dict[str, Shape] = {"tempered (exponent 1.5)": power(1.5), "even over the space (3)": power(3.0), "as used (3.5)": power(3.5),
                            "sharpened (7)": power(7.0), "iterated": iterated, "among the model's own": among_drawn}


def compare_shapes(own: np.ndarray, drawn: np.ndarray, natural: np.ndarray, is_male: np.ndarray, *, axes: np.ndarray) -> pd.DataFrame:
    """A row a shape: shape, p_eff, ess, top_share, of faces (N, D) with `is_male` bool (N,); strays are kept out as in training.

    `drawn` (M, D) are pictures of a plain training on them, `natural` (R, D) pictures of no face; distances are taken along `axes` (K, D).
    """
    gate, rows = rarity.face_gate(own, natural), []
    placed = [rarity.along(part, axes) for part in (own, drawn)]
    for name, shape in SHAPES.items():
        values = shape(*placed) * gate
        rows.append({"shape": name, "p_eff": rarity.weighted_share(values, is_male), "ess": rarity.effective_share(values),
                     "top_share": rarity.top_share(values)})
    return pd.DataFrame(rows)


def read_plain(out: Path, *, drawn: int = 400, progress: bool = True) -> pd.DataFrame:
    """`compare_shapes` for every plain training (alpha 0, indicator none) of the sweep in `out`, with columns ratio and seed.

    Raises InputError where there is none, or its training faces have no gender labels.
    """
    name, config = read_sweep(out)
    size = get_preset(name).image_size
    plain = {cell: row for cell, row in finished_cells(out).items() if row["indicator"] == "none" and row["alpha"] == 0}
    if not plain:
        raise InputError(f"{out}: no plain training. Run the sweep with --indicators none --alphas 0.")
    natural, tables = embed_faces(faces.natural_images(size=size, count=100, seed=0)), []
    axes = load_axes()[:DensityConfig().dims]
    for cell, row in tqdm(plain.items(), desc="shapes", disable=not progress):
        _, pixels, is_male = load_training_faces(config.faces, split=config.split, ratio=row["ratio"], size=config.train_size,
                                                 seed=row["seed"], image_size=size)
        pictures = np.concatenate(list(open_pictures(cell / "samples")))[:drawn]
        table = compare_shapes(embed_faces(pixels), embed_faces(pictures), natural, is_male, axes=axes)
        tables.append(table.assign(ratio=row["ratio"], seed=row["seed"]))
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> int:
    """Compare the shapes on a sweep's plain trainings."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.shapes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    parser.add_argument("--drawn", type=int, default=400, help="pictures of each plain training to look at; default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(arguments)
    with one_thread():
        table = read_plain(args.sweep, drawn=args.drawn, progress=sys.stderr.isatty())
    settings = json.loads((args.sweep / "sweep.json").read_text())["settings"]
    told = {"command": f"python -m debiaslib.shapes SWEEP --drawn {args.drawn} --out CSV", "faces": Path(settings["faces"]).name,
            "train_size": settings["train_size"]}
    write_table(table, args.out, told, float_format="%.4f")
    print(table.groupby(["ratio", "shape"], sort=False)[["p_eff", "ess", "top_share"]].mean().round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(guarded("shapes", main))

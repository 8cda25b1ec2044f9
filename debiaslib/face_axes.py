"""The axes along which faces differ most in the face embedding: found once, among thousands of faces of any mix, no label read.

A hundred training faces say who among them lies apart, but too little about which differences matter in people at large: their own
leading components turn from draw to draw. These do not turn; they depend on who was in the set that they were found in
less than on its being another one (`data/results/density_settings.csv` has both in numbers). They ship with the kit, a few kilobytes:

`python -m debiaslib.face_axes --faces ZIP --split pretrain --out data/models/face-axes`
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.decomposition import PCA

from debiaslib import faces
from debiaslib.__main__ import guarded
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.presets import check_manifest, data_root, one_thread, sha256, write_manifest

FOLDER, FILE, COUNT = "models/face-axes", "axes.safetensors", 8
CARD = """# face-axes: along which axes faces differ most

The {count} leading principal components of dlib's face embedding (CC0), orthonormal rows of `axes` ({count}, 128) in `{file}`, found among
all {faces} faces of {source}, aligned, at {size} pixels. No label
was read. They hold {explained} of the embedding's variance, in that order. No photograph and nobody's embedding is in here.

In this kit: the indicator `density` measures distances along the first three (`rarity.density_values`), where a training set's own
components would turn with every draw of a hundred faces.

What they cannot know: a difference between people that the embedding does not hold, or that is small in it beside others. Their
order is that of these faces, and of whoever chose them.

`{command}`
"""


def fit_axes(embeddings: np.ndarray, *, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """The `count` leading axes (count, D) of embeddings (N, D), rows of length 1, and the share of the variance along each (count,).

    Raises InputError with fewer rows than axes.
    """
    if len(embeddings) < count:
        raise InputError(f"{len(embeddings)} faces for {count} axes: give a thousand or more.")
    basis = PCA(count, random_state=0).fit(np.asarray(embeddings, float))
    return np.ascontiguousarray(basis.components_, np.float32), basis.explained_variance_ratio_  # safetensors writes memory as it lies


def load_axes(folder: Path | None = None) -> np.ndarray:
    """The axes that ship with the kit, float32 (8, 128). Raises InputError when they are missing or altered."""
    folder = folder or data_root() / FOLDER
    if not (folder / FILE).exists():
        raise InputError(f"{folder / FILE}: missing. Restore it (`git checkout -- data/models`).")
    check_manifest(folder)
    try:
        return load_file(folder / FILE)["axes"]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{folder / FILE}: holds no axes ({error}). Restore it (`git checkout -- data/models`).") from None


def axes_hash() -> str | None:
    """SHA-256 of the axes that ship with the kit; None where they are missing. For records: weights along other axes are other weights."""
    path = data_root() / FOLDER / FILE
    return sha256(path) if path.exists() else None


def main(arguments: list[str] | None = None) -> int:
    """Find the axes of a folder of faces and write them with card and manifest."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.face_axes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="aligned faces, a thousand or more; no label is read")
    parser.add_argument("--split", default="pretrain", help="rows of this split, '' for all; default %(default)s")
    parser.add_argument("--source", default=None, metavar="TEXT", help="whose faces they are, with their licence, for the card; default the file's name")
    parser.add_argument("--size", type=int, default=64, help="side in pixels at which they are read; default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="write over axes that are there")
    args = parser.parse_args(arguments)
    if args.size < 16:
        raise InputError(f"--size {args.size}: no face is to be seen at that. Give 64, the side of the tiny model's pictures.")
    if (args.out / FILE).exists() and not args.overwrite:
        raise InputError(f"{args.out / FILE}: there already. Give --overwrite, or another --out.")
    with one_thread():
        frame = faces.rows_of_split(faces.read_metadata(args.faces), args.split, args.faces)
        rows = embed_faces(faces.read_pixels(args.faces, frame["file_name"].tolist(), size=args.size), progress=sys.stderr.isatty())
        axes, explained = fit_axes(rows)
    write_whole(args.out / FILE, save({"axes": axes}))
    source = args.source or f"`{args.faces.name}`{f', split `{args.split}`' if args.split else ''}"
    command = (f"python -m debiaslib.face_axes --faces {args.faces.name} --split {args.split} --size {args.size}"
               f"{' --source TEXT' if args.source else ''} --out DIR")
    write_whole(args.out / "README.md", CARD.format(count=COUNT, file=FILE, faces=f"{len(rows):,}", source=source, size=args.size, command=command,
                                                    explained=", ".join(f"{part:.3f}" for part in explained)).encode())
    write_manifest(args.out)
    print(f"{args.out / FILE}: {COUNT} axes among {len(rows):,} faces, sha256 {sha256(args.out / FILE)[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("face_axes", main))

"""The balanced set for audits: the face pool before anything was selected, so no judge has had a say in it.

The pool that ships kept only pictures on which a judge agreed with the prompt; audited on it, that judge looks perfect.
Its prompts and seeds are known, so what was turned away can be drawn again. `python -m debiaslib.balanced --out DIR` puts
both together: every gender, age and ethnicity word equally often.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing, write_whole
from debiaslib.errors import InputError
from debiaslib.faces import read_metadata, read_pixels
from debiaslib.pool import ASKED, PoolConfig, draw_asked, plan
from debiaslib.presets import data_root, load_pipeline, one_thread
from debiaslib.quality import image_hash

RECORD = "balanced.json"


def candidates(chunks: int, config: PoolConfig | None = None) -> pd.DataFrame:
    """prompt, seed and file_name of the first `chunks` rounds of the pool's drawing, kept or not, a row a picture."""
    config, rows = config or PoolConfig(), []
    for number, gender in product(range(chunks), ASKED):
        kinds, asked, seeds = plan(gender, number, config)
        rows += zip(np.take(kinds, asked), seeds, strict=True)
    frame = pd.DataFrame(rows, columns=["prompt", "seed"])
    return frame.assign(file_name=[f"images/{index:05d}.jpg" for index in range(len(frame))])


def draw_balanced(out: Path, *, chunks: int, pool: Path | None = None, model: str = "tiny", overwrite: bool = False,
                  progress: bool = False) -> pd.DataFrame:
    """Write the candidates to `out`, an ImageFolder, 70 prompts of 7 `chunks` pictures each; returns its metadata.

    Pictures that `pool` holds are copied, the others drawn, each from its own seed, and coded as the pool's are (JPEG,
    quality 95). The column `kept` says which the pool kept. Killed and run again it continues. Raises InputError when
    `chunks` is below 1, or `out` holds other things and `overwrite` is off.
    """
    if chunks < 1:
        raise InputError(f"chunks {chunks}: at least 1.")
    pool, config = pool or data_root() / "faces", PoolConfig()
    settings = {"chunks": chunks, "model": model, "pool": Path(pool).name}
    _claim(out, settings, overwrite=overwrite)
    frame = candidates(chunks, config)
    known = read_metadata(pool).set_index(["prompt", "seed"])["file_name"]
    frame["kept"] = [pair in known.index for pair in zip(frame["prompt"], frame["seed"], strict=True)]
    for row in frame[frame["kept"]].itertuples():
        if not (out / row.file_name).exists():
            write_whole(out / row.file_name, (pool / known[row.prompt, row.seed]).read_bytes())
    missing = frame[[not (out / name).exists() for name in frame["file_name"]]]
    _draw_missing(missing, out, model, config, progress=progress)
    write_whole(out / "metadata.csv", frame.to_csv(index=False).encode())
    pixels = image_hash(read_pixels(out, list(frame["file_name"]), size=64))
    record = {"settings": settings, "command": f"python -m debiaslib.balanced --out DIR --chunks {chunks}",
              "pictures": len(frame), "kept": int(frame["kept"].sum()), "seeds": [int(frame["seed"].min()),
              int(frame["seed"].max())], "steps": config.steps, "guidance": config.guidance, "pixels_sha256": pixels}
    write_whole(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return frame


def _claim(out: Path, settings: dict, *, overwrite: bool) -> None:
    record = out / RECORD
    found = json.loads(record.read_text())["settings"] if record.exists() else None
    if found == settings:
        return
    if (found is not None or (out.is_dir() and any(out.iterdir()))) and not overwrite:
        raise InputError(f"{out}: holds something else. Give another --out, or --overwrite.")
    for picture in (out / "images").glob("*.jpg"):
        picture.unlink()
    write_whole(record, (json.dumps({"settings": settings}) + "\n").encode())


def _draw_missing(missing: pd.DataFrame, out: Path, model: str, pool: PoolConfig, *, progress: bool) -> None:
    if missing.empty:
        return
    pipe = load_pipeline(model)
    for start in tqdm(range(0, len(missing), pool.batch), desc="pictures", disable=not progress):
        part = missing.iloc[start:start + pool.batch]
        asked, kinds = pd.factorize(part["prompt"])
        for picture, name in zip(draw_asked(pipe, list(kinds), asked, part["seed"].to_numpy(), pool), part["file_name"],
                                 strict=True):
            with replacing(out / name) as partial:
                Image.fromarray(picture).save(partial, format="JPEG", quality=95, subsampling=0)


def main(arguments: list[str] | None = None) -> int:
    """Write the balanced set into `--out`."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.balanced", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="an ImageFolder: images/ and metadata.csv")
    add("--chunks", type=int, default=4, help="of 490 pictures, 7 a prompt; default %(default)s")
    add("--overwrite", action="store_true", help="replace what --out holds")
    args = parser.parse_args(arguments)
    with one_thread():
        frame = draw_balanced(args.out, chunks=args.chunks, overwrite=args.overwrite, progress=sys.stderr.isatty())
    print(f"{args.out}: {len(frame)} pictures of {frame['prompt'].nunique()} prompts, "
          f"{int(frame['kept'].sum())} of them in the pool")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("balanced", main))

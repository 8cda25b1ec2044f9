"""The face pool that ships: samples of the tiny model, judged, selected by stated rules, with a datasheet.

`python -m debiaslib.pool --out DIR` draws it; no photograph is involved. Killed and run again, it continues.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from debiaslib.__main__ import guarded
from debiaslib.atomic import publish, replacing
from debiaslib.captions import caption
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, denoise, encode
from debiaslib.judges import Judge
from debiaslib.presets import data_root, get_preset, load_pipeline, sha256, write_manifest

AGES = ("20-29", "30-39", "40-49", "50-59", "60-69")
RACES = ("White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino_Hispanic")
ASKED = {"Female": "Woman", "Male": "Man"}
"""A face set's label, and the judge's word for it."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How many faces of each perceived gender go into each split, and what is asked of one.

    A face is kept when dlib finds it, the judge is at least `min_confidence` sure, and what it reads agrees with the
    prompt's word. Prompts go round every age band and ethnicity word, so that one gender holds as many kinds as the other.
    """

    finetune: int = 820
    reference: int = 100
    evaluate: int = 300
    min_confidence: float = 0.8
    draws_a_prompt: int = 7
    most_chunks: int = 120
    steps: int = 25
    guidance: float = 2.0
    batch: int = 49
    seed: int = 500_000

    @property
    def wanted(self) -> int:
        """Faces of each perceived gender."""
        return self.finetune + self.reference + self.evaluate


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The unit of drawing, and of what a killed run may lose: `draws_a_prompt` pictures of every prompt of one gender."""

    model: str
    config: PoolConfig
    work: Path
    key: str
    gender: str
    number: int

    @property
    def file(self) -> Path:
        """Where its pictures and rows are kept."""
        return self.work / f"{self.gender}-{self.number:03d}.npz"

    def is_drawn(self) -> bool:
        """Whether `file` holds this very chunk, not one of another model or configuration."""
        if not self.file.exists():
            return False
        with np.load(self.file) as kept:
            return str(kept["key"]) == self.key

    def read(self) -> tuple[pd.DataFrame, np.ndarray]:
        """One row a picture (prompt, asked, seed, the judge's columns, kept), and the pictures, uint8 (N, H, W, 3)."""
        with np.load(self.file) as kept:
            columns = {name: kept[name] for name in kept.files if name not in ("key", "pictures")}
            return pd.DataFrame(columns), kept["pictures"]


def prompts() -> list[tuple[str, str]]:
    """(gender, prompt) for every gender, age band and ethnicity word, the genders in turn."""
    return [(gender, caption(gender=gender, age=age, race=race))
            for age, race, gender in product(AGES, RACES, ASKED)]


def plan(gender: str, number: int, config: PoolConfig) -> tuple[list[str], np.ndarray, np.ndarray]:
    """What chunk `number` of a gender asks for: its prompts, and of each picture the number of its prompt and its seed (N,)."""
    kinds = [prompt for who, prompt in prompts() if who == gender]
    asked = np.repeat(np.arange(len(kinds)), config.draws_a_prompt)
    first = config.seed + len(asked) * (len(ASKED) * number + list(ASKED).index(gender))
    return kinds, asked, np.arange(len(asked)) + first


@cache
def _tools(model: str) -> tuple[StableDiffusionPipeline, Judge]:
    """Pipeline and judge, once a worker, on one thread: two such workers draw faster than one on two threads."""
    torch.set_num_threads(1)
    return load_pipeline(model), Judge()


def draw_chunk(chunk: Chunk) -> Chunk:
    """Draw and judge one chunk into its file, unless it lies there already. Seeds do not depend on who draws when."""
    if not chunk.is_drawn():
        pipe, judge = _tools(chunk.model)
        config, (kinds, asked, seeds) = chunk.config, plan(chunk.gender, chunk.number, chunk.config)
        pictures = draw_asked(pipe, kinds, asked, seeds, config)
        rows = judge.judge(pictures).assign(prompt=np.take(kinds, asked), asked=ASKED[chunk.gender], seed=seeds)
        rows["kept"] = rows["face"] & (rows["confidence"] >= config.min_confidence) & (rows["perceived"] == rows["asked"])
        columns = {name: np.array(rows[name].tolist()) for name in rows}  # plain types: nothing is pickled
        with replacing(chunk.file) as partial, open(partial, "wb") as file:
            np.savez(file, key=chunk.key, pictures=pictures, **columns)
    return chunk


def draw_asked(pipe, kinds: list[str], asked: np.ndarray, seeds: np.ndarray, config: PoolConfig) -> np.ndarray:
    """uint8 (N, H, W, 3): picture i of prompt `kinds[asked[i]]` from `seeds[i]`, several prompts in a batch."""
    settings = SampleConfig(prompt="", steps=config.steps, guidance=config.guidance, batch=config.batch)
    encoded = encode(pipe, kinds, config=settings)
    parts = np.split(np.arange(len(asked)), range(config.batch, len(asked), config.batch))
    return np.concatenate([denoise(pipe, tuple(text if text is None else text[asked[part]] for text in encoded),
                                   seeds=seeds[part].tolist(), config=settings) for part in parts])


def draw_candidates(model: str, config: PoolConfig, *, work: Path, workers: int = 2,
                    progress: bool = True) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw chunk after chunk into `work`, until each perceived gender has enough faces to keep.

    Returns the rows of `Chunk.read` and their pictures: of each gender the first chunks that suffice, whoever drew them, so
    that the number of workers, or a kill, changes nothing. Raises InputError when `most_chunks` are not enough: the model is
    then too weak for a pool.
    """
    start = Chunk(model=model, config=config, work=work, key=_key(model, config), gender="", number=0)
    drawn = {gender: [] for gender in ASKED}
    kept = dict.fromkeys(ASKED, 0)
    with _map(workers) as each, tqdm(total=len(ASKED) * config.wanted, desc="faces kept", disable=not progress) as bar:
        while lacking := [gender for gender in ASKED if kept[gender] < config.wanted]:
            for chunk in each(draw_chunk, _next_chunks(start, lacking, drawn, workers)):
                if kept[chunk.gender] >= config.wanted:
                    continue  # one more than was needed: two workers drew of one gender
                drawn[chunk.gender].append(chunk.read())
                kept[chunk.gender] += int(drawn[chunk.gender][-1][0]["kept"].sum())
                bar.n = sum(min(count, config.wanted) for count in kept.values())
                bar.refresh()
    rows, pictures = zip(*(part for gender in ASKED for part in drawn[gender]), strict=True)
    return pd.concat(rows, ignore_index=True), np.concatenate(pictures)


def _next_chunks(start: Chunk, lacking: list[str], drawn: dict[str, list], workers: int) -> list[Chunk]:
    """One for each gender that lacks faces, or one for each worker where that is more."""
    if worn := [gender for gender in lacking if len(drawn[gender]) >= start.config.most_chunks]:
        raise InputError(f"{start.model}: {start.config.most_chunks} chunks of {ASKED[worn[0]]} did not give "
                         f"{start.config.wanted} faces to keep. Train the model further, or ask for fewer.")
    ahead = max(1, workers // len(lacking))
    return [replace(start, gender=gender, number=len(drawn[gender]) + more) for more in range(ahead) for gender in lacking]


def _key(model: str, config: PoolConfig) -> str:
    """What decides a chunk: weights and settings, but not how many faces are wanted."""
    settings = asdict(replace(config, finetune=0, reference=0, evaluate=0, most_chunks=0))
    hashes = [sha256(path) for path in _weights(model)]
    return hashlib.sha256(json.dumps([settings, hashes], sort_keys=True).encode()).hexdigest()


def _weights(model: str) -> list[Path]:
    """Every weight file of a preset's or a folder's pipeline, the U-Net's first."""
    folder = data_root() / get_preset("tiny").source if model == "tiny" else Path(model)
    found = sorted(folder.glob("*/*.safetensors"), key=lambda path: (path.parent.name != "unet", path))
    if not found:
        raise InputError(f"{folder}: no pipeline's weights in it. Give --model a pipeline folder, or restore it.")
    return found


@contextmanager
def _map(workers: int) -> Iterator[Callable]:
    """`map` over worker processes, or the plain one for a single worker; results come in order."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield executor.map


def select(frame: pd.DataFrame, config: PoolConfig) -> pd.DataFrame:
    """The rows that go into the pool: equal numbers of each perceived gender, spread over prompts, with a split each."""
    parts = []
    for _, rows in frame[frame["kept"]].groupby("perceived"):
        turn = rows.groupby("prompt").cumcount()  # the first of every prompt, then the second of every prompt ...
        rows = rows.assign(turn=turn).sort_values(["turn", "seed"]).head(config.wanted)
        order = np.random.default_rng(config.seed).permutation(config.wanted)
        split = np.repeat(["finetune", "reference", "evaluate"], [config.finetune, config.reference, config.evaluate])
        parts.append(rows.assign(split=split[order]))
    return pd.concat(parts).sort_values("seed").drop(columns="turn")


def write_pool(chosen: pd.DataFrame, pictures: np.ndarray, out: Path) -> None:
    """Write pictures (JPEG, quality 95, full colour resolution) and `metadata.csv`."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{number:05d}.jpg" for number in range(len(chosen))]
    for name, index in zip(names, chosen.index, strict=True):
        Image.fromarray(pictures[index]).save(out / name, quality=95, subsampling=0)
    table = pd.DataFrame({"file_name": names, "prompt": chosen["prompt"], "seed": chosen["seed"],
                          "perceived_gender": chosen["perceived"], "p_man": chosen["p_man"].round(4),
                          "confidence": chosen["confidence"].round(4), "perceived_age": chosen["perceived_age"].round(1),
                          "face_score": chosen["face_score"].round(3), "split": chosen["split"]})
    table.to_csv(out / "metadata.csv", index=False)


def datasheet(frame: pd.DataFrame, chosen: pd.DataFrame, *, config: PoolConfig, model_hash: str, command: str) -> str:
    """The datasheet (Gebru et al. 2021) with the counts of this very draw."""
    kept = frame.groupby("asked").agg(drawn=("kept", "size"), face=("face", "sum"), kept=("kept", "sum"))
    lines = [f"| {name} | {row.drawn} | {row.face} | {row.kept} |" for name, row in kept.iterrows()]
    ages = chosen.groupby("perceived")["perceived_age"].describe()[["25%", "50%", "75%"]].round(0).astype(int)
    spread = [f"| {name} | {row['25%']} | {row['50%']} | {row['75%']} |" for name, row in ages.iterrows()]
    splits = chosen.groupby(["split", "perceived"]).size().unstack()
    shares = [f"| {name} | {row['Man']} | {row['Woman']} |" for name, row in splits.iterrows()]
    return DATASHEET.format(count=len(chosen), drawn=len(frame), kept="\n".join(lines), ages="\n".join(spread),
                            splits="\n".join(shares), confidence=config.min_confidence, model=model_hash, command=command)


DATASHEET = """# Datasheet: the face pool

After Gebru et al., *Datasheets for Datasets* (2021).

## Motivation
A set of faces to learn with that holds no photograph: every notebook and every default of the kit trains and measures on it.

## Composition
{count} pictures of 64 x 64 pixels, each drawn by the kit's own tiny Stable Diffusion (`data/models/tiny-sd`) \
from a prompt and a seed.
They show nobody. `metadata.csv` gives prompt, seed, perceived gender with probability, the judge's confidence, \
perceived age, and the split.

| split | perceived men | perceived women |
|---|---|---|
{splits}

Perceived age in years, quartiles:

| | 25 % | median | 75 % |
|---|---|---|---|
{ages}

## Collection
`{command}`, model U-Net sha256 `{model}`. Prompts went round every age band and ethnicity word for women and men alike.

| asked for | drawn | face found | kept |
|---|---|---|---|
{kept}

Kept were pictures in which dlib finds a face, the judge is at least {confidence:.0%} sure, and what it reads agrees \
with the prompt. {drawn} were drawn.
The selection makes the pool *easier to judge than life*: faces the judge finds ambiguous are missing, androgynous ones \
above all. It makes ratios exact; it
is no picture of any population.

## Preprocessing and labelling
JPEG, quality 95, 4:4:4. Labels are a classifier's reading (*perceived*), never anyone's own word. \
The classifier knows two gender words.

## Uses
For learning about, measuring and reducing bias in generators. Not for identifying or judging people, \
not for training a classifier of people.

## Distribution and maintenance
Ships with the kit under CC BY 4.0. The model behind it was trained on FairFace (Kärkkäinen and Joo, WACV 2021, \
CC BY 4.0). `manifest.json` holds the hashes.
"""


def make_pool(model: str, *, out: Path, config: PoolConfig, workers: int = 2, overwrite: bool = False,
              progress: bool = True) -> pd.DataFrame:
    """Draw, select and write the pool to `out`; returns the rows of everything that was drawn.

    The work lies in `out` + ".partial" until it is whole, and a killed run continues from there. Raises InputError when
    `out` exists, unless `overwrite`.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists. Give another --out, or --overwrite to replace it when the new pool is whole.")
    work = out.resolve().with_name(out.name + ".partial")
    frame, pictures = draw_candidates(model, config, work=work / "chunks", workers=workers, progress=progress)
    chosen = select(frame, config)
    shutil.rmtree(work / "pool", ignore_errors=True)
    write_pool(chosen, pictures, work / "pool")
    model_hash = sha256(_weights(model)[0])[:16]
    sheet = datasheet(frame, chosen, config=config, model_hash=model_hash, command="python -m debiaslib.pool")
    (work / "pool/datasheet.md").write_text(sheet, encoding="utf-8")
    write_manifest(work / "pool")
    publish(work / "pool", out)
    shutil.rmtree(work)
    return frame


def main(arguments: list[str] | None = None) -> int:
    """Draw the pool into `--out`."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.pool", description=__doc__)
    parser.add_argument("--out", type=Path, default=data_root() / "faces", metavar="DIR", help="default the pool that ships")
    parser.add_argument("--model", default="tiny", help="tiny, or a pipeline folder; default tiny")
    parser.add_argument("--workers", type=int, default=2,
                        help="processes of one thread each; they do not change the pool; default %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: at least 1.")
    config = PoolConfig()
    frame = make_pool(args.model, out=args.out, config=config, workers=args.workers, overwrite=args.overwrite)
    print(f"{args.out}: {len(ASKED) * config.wanted} faces of {len(frame)} drawn")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("pool", main))

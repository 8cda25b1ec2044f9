"""The face pool that ships: samples of the tiny model, judged, selected by stated rules, with a datasheet.

`python -m debiaslib.pool --out DIR` draws it; no photograph is involved.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from debiaslib.captions import caption
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig, sample
from debiaslib.judges import Judge
from debiaslib.presets import data_root, get_preset, load_pipeline, sha256, write_manifest

AGES = ("20-29", "30-39", "40-49", "50-59", "60-69")
RACES = ("White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino_Hispanic")


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
    draws_a_prompt: int = 50
    steps: int = 25
    guidance: float = 2.0
    seed: int = 500_000

    @property
    def wanted(self) -> int:
        """Faces of each perceived gender."""
        return self.finetune + self.reference + self.evaluate


def prompts() -> list[tuple[str, str]]:
    """(gender, prompt) for every gender, age band and ethnicity word, the genders in turn."""
    return [(gender, caption(gender=gender, age=age, race=race))
            for age, race, gender in product(AGES, RACES, ("Female", "Male"))]


@cache
def _tools(model: str) -> tuple[StableDiffusionPipeline, Judge]:
    """Pipeline and judge, once a worker, on one thread: two such workers draw faster than one on two threads."""
    torch.set_num_threads(1)
    return load_pipeline(model), Judge()


def draw_prompt(model: str, config: PoolConfig, gender: str, prompt: str, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw and judge one prompt's pictures: one row a picture (prompt, seed, the judge's columns, kept), uint8 (N, H, W, 3)."""
    pipe, judge = _tools(model)
    settings = SampleConfig(prompt=prompt, steps=config.steps, guidance=config.guidance, batch=config.draws_a_prompt, seed=seed)
    pixels = next(sample(pipe, n=config.draws_a_prompt, config=settings))
    rows = judge.judge(pixels).assign(prompt=prompt, asked="Man" if gender == "Male" else "Woman", seed=np.arange(len(pixels)) + seed)
    rows["kept"] = rows["face"] & (rows["confidence"] >= config.min_confidence) & (rows["perceived"] == rows["asked"])
    return rows, pixels


def draw_candidates(model: str, config: PoolConfig, *, workers: int = 2, progress: bool = True) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw prompt after prompt and round after round, until each perceived gender has enough faces to keep.

    Returns the rows of `draw_prompt` and their pictures. Raises InputError when twelve rounds are not enough: the model is
    then too weak for a pool.
    """
    rows, pictures, jobs = [], [], prompts()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        for number in range(12):
            seeds = config.seed + config.draws_a_prompt * np.arange(number * len(jobs), (number + 1) * len(jobs))
            drawn = executor.map(draw_prompt, repeat(model), repeat(config), *zip(*jobs, strict=True), seeds.tolist())
            for found, pixels in tqdm(drawn, desc=f"round {number + 1}", total=len(jobs), disable=not progress):
                rows.append(found)
                pictures.append(pixels)
            frame = pd.concat(rows, ignore_index=True)
            if frame[frame["kept"]].groupby("asked").size().reindex(["Man", "Woman"], fill_value=0).min() >= config.wanted:
                return frame, np.concatenate(pictures)
    raise InputError(f"twelve rounds gave {frame['kept'].sum()} faces to keep of {len(frame)}: train the model further, or ask for fewer.")


def select(frame: pd.DataFrame, config: PoolConfig) -> pd.DataFrame:
    """The rows that go into the pool: equal numbers of each perceived gender, spread over prompts, with a split each."""
    parts = []
    for group, rows in frame[frame["kept"]].groupby("perceived"):
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
    table = pd.DataFrame({"file_name": names, "prompt": chosen["prompt"], "seed": chosen["seed"], "perceived_gender": chosen["perceived"],
                          "p_man": chosen["p_man"].round(4), "confidence": chosen["confidence"].round(4),
                          "perceived_age": chosen["perceived_age"].round(1), "face_score": chosen["face_score"].round(3),
                          "split": chosen["split"]})
    table.to_csv(out / "metadata.csv", index=False)


def datasheet(frame: pd.DataFrame, chosen: pd.DataFrame, *, config: PoolConfig, model_hash: str, command: str) -> str:
    """The datasheet (Gebru et al. 2021) with the counts of this very draw."""
    kept = frame.groupby("asked").agg(drawn=("kept", "size"), face=("face", "sum"), kept=("kept", "sum"))
    lines = [f"| {name} | {row.drawn} | {row.face} | {row.kept} |" for name, row in kept.iterrows()]
    ages = chosen.groupby("perceived")["perceived_age"].describe()[["25%", "50%", "75%"]].round(0).astype(int)
    spread = [f"| {name} | {row['25%']} | {row['50%']} | {row['75%']} |" for name, row in ages.iterrows()]
    splits = chosen.groupby(["split", "perceived"]).size().unstack()
    shares = [f"| {name} | {row['Man']} | {row['Woman']} |" for name, row in splits.iterrows()]
    return DATASHEET.format(count=len(chosen), drawn=len(frame), kept="\n".join(lines), ages="\n".join(spread), splits="\n".join(shares),
                            confidence=config.min_confidence, model=model_hash, command=command)


DATASHEET = """# Datasheet: the face pool

After Gebru et al., *Datasheets for Datasets* (2021).

## Motivation
A set of faces to learn with that holds no photograph: every notebook and every default of the kit trains and measures on it.

## Composition
{count} pictures of 64 x 64 pixels, each drawn by the kit's own tiny Stable Diffusion (`data/models/tiny-sd`) from a prompt and a seed.
They show nobody. `metadata.csv` gives prompt, seed, perceived gender with probability, the judge's confidence, perceived age, and the split.

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

Kept were pictures in which dlib finds a face, the judge is at least {confidence:.0%} sure, and what it reads agrees with the prompt. {drawn} were drawn.
The selection makes the pool *easier to judge than life*: faces the judge finds ambiguous are missing, androgynous ones above all. It makes ratios exact; it
is no picture of any population.

## Preprocessing and labelling
JPEG, quality 95, 4:4:4. Labels are a classifier's reading (*perceived*), never anyone's own word. The classifier knows two gender words.

## Uses
For learning about, measuring and reducing bias in generators. Not for identifying or judging people, not for training a classifier of people.

## Distribution and maintenance
Ships with the kit under CC BY 4.0. The model behind it was trained on FairFace (Kärkkäinen and Joo, WACV 2021, CC BY 4.0). `manifest.json` holds the hashes.
"""


def main(arguments: list[str] | None = None) -> int:
    """Draw the pool into `--out`."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.pool", description=__doc__)
    parser.add_argument("--out", type=Path, default=data_root() / "faces")
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args(arguments)
    preset, config = get_preset("tiny"), PoolConfig()
    frame, pictures = draw_candidates(args.model, config, progress=sys.stderr.isatty())
    chosen = select(frame, config)
    write_pool(chosen, pictures, args.out)
    weights = next((data_root() / preset.source if args.model == "tiny" else Path(args.model)).glob("unet/*.safetensors"))
    sheet = datasheet(frame, chosen, config=config, model_hash=sha256(weights)[:16], command="python -m debiaslib.pool")
    (args.out / "datasheet.md").write_text(sheet, encoding="utf-8")
    write_manifest(args.out)
    print(f"{args.out}: {len(chosen)} faces of {len(frame)} drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())

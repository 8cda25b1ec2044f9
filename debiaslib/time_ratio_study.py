"""Does TIW-DSM help? `python -m debiaslib.time_ratio_study` reads w_t on training sets, trains with it, draws and judges.

Its tables: `ratios.csv` has a row for each training set and timestep, `cells.csv` one for each training. Labels serve the
readings alone.
"""

import argparse
import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.optim.swa_utils import AveragedModel

from debiaslib import faces, finetune, rarity
from debiaslib.__main__ import guarded
from debiaslib.atomic import read_record, replacing
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.fairness_report import mean_over_seeds, reduction_over_seeds
from debiaslib.generate import SampleConfig, sample
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.presets import data_root, encode_latents, get_preset, load_pipeline, sha256
from debiaslib.time_ratio import (
    VARIANTS,
    ConvStudent,
    LinearStudent,
    Mixes,
    TimeRatioIndicator,
    components,
    noised,
    ratio_and_slope,
)

STUDENTS = ("linear", "conv")
TIMESTEPS = (1, 100, 200, 400, 600, 800, 999)
"""Where w_t is read."""
CELL = ["variant", "student", "ratio", "seed"]
"""What names a training."""
READ = {"M": "Man", "W": "Woman", "-": ""}
"""What the letters of the column `decisions` stand for; the last is an abstention."""
SETTINGS = {"train_size": 100, "reference_size": 100, "alpha": 0.1, "sample_steps": 12, "sample_seed": 10_000}


def fit_student(kind: str, latents: torch.Tensor, chance: np.ndarray, alphas: torch.Tensor, *,
                seed: int = 0) -> torch.nn.Module:
    """The student of that kind, "linear" or "conv", of the pool's latents and its chances (P,) of component 1."""
    if kind not in STUDENTS:
        raise InputError(f"student {kind!r}: choose one of {', '.join(STUDENTS)}.")
    if kind == "linear":
        return LinearStudent(latents, chance, alphas)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = ConvStudent(channels=latents.shape[1], side=latents.shape[3])
    return student.distil(latents, chance, alphas, seed=seed)


def readings(student: torch.nn.Module, mixes: Mixes, latents: torch.Tensor, is_male: np.ndarray, drawn: np.ndarray,
             alphas: torch.Tensor, *, copies: int = 8) -> list[dict[str, float]]:
    """What w_t says of a training set, a row a timestep. This reads labels, bool (N,), and nothing else does.

    latents (N, C, h, w) are those of the whole split, `drawn` (n,) the training faces among them, noised `copies` times
    each. `auc`: how well the logit tells perceived gender over the split; `correction`: root mean square of
    s_t grad log w_t, where noise has 1.
    """
    rows, generator = [], torch.Generator().manual_seed(0)
    for timestep in TIMESTEPS:
        every = torch.full((len(latents),), timestep)
        area = roc_auc_score(is_male, student(noised(latents, every, alphas, generator), every).numpy())
        every = torch.full((copies * len(drawn),), timestep)
        noisy = noised(latents[drawn].repeat(copies, 1, 1, 1), every, alphas, generator)
        weight, slope = ratio_and_slope(student, mixes, noisy, every)
        change = (1 - alphas[timestep]).sqrt() * slope
        rows.append({"timestep": timestep, "auc": max(area, 1 - area),
                     "p_eff": rarity.weighted_share(weight.numpy(), np.tile(is_male[drawn], copies)),
                     "ess": rarity.effective_share(weight.numpy()), "mean_weight": float(weight.mean()),
                     "correction": float(change.square().mean().sqrt())})
    return rows


def train(pipe, data: finetune.TrainingSet, indicator: TimeRatioIndicator, *,
          config: finetune.FinetuneConfig) -> dict[str, float]:
    """Train as `finetune.finetune` does, leave the adapter on `pipe.unet`, and return fit and seconds, those of w_t apart.

    The faces drawn, their noise and timesteps are those of plain training.
    """
    began, run = time.perf_counter(), finetune.begin(pipe, data, config=config)
    run = replace(run, indicator=indicator, scheduler=indicator)
    adapter = torch.nn.ParameterList(weight for weight in run.unet.parameters() if weight.requires_grad)
    average, first = AveragedModel(adapter), config.steps - round(config.averaged * config.steps)
    with finetune.multiplied_as_held(run.unet, config):
        for step in range(config.steps):
            finetune.update(run, step)
            if step >= first:
                average.update_parameters(adapter)
    if average.n_averaged:
        adapter.load_state_dict(average.module.state_dict())
    seconds = time.perf_counter() - began
    fit = finetune.fit_loss(run.unet, data, run.prompts[:1], pipe.scheduler)
    run.unet.disable_gradient_checkpointing()
    return {"fit_loss": fit, "train_s": seconds, "ratio_s": indicator.seconds}


def figures(judged: pd.DataFrame) -> dict[str, float | str]:
    """Share of men among the decided, face rate, and every picture's decision as a letter of `READ`."""
    letters = {word: letter for letter, word in READ.items()}
    decisions = judged["perceived"].fillna("").map(letters).str.cat()
    decided = max(1, len(decisions) - decisions.count("-"))
    return {"male_share": decisions.count("M") / decided, "face_rate": judged["face"].mean(), "decisions": decisions}


class Study:
    """Training sets of any ratio and seed: what w_t knows of each, and what trainings with it draw."""

    def __init__(self, source: Path, pool: Path, *, student: str, n: int, progress: bool = False):
        self.preset, self.source, self.student, self.n = get_preset("tiny"), source, student, n
        self.pipe, self.judge = load_pipeline(self.preset), Judge(JudgeConfig(age=False))
        self.alphas, size = self.pipe.scheduler.alphas_cumprod, self.preset.image_size
        pixels = faces.read_pixels(pool, faces.read_metadata(pool)["file_name"].tolist(), size=size)
        began = time.perf_counter()
        self.pool = encode_latents(self.pipe.vae, pixels, progress=progress)
        self.encode_s, began = time.perf_counter() - began, time.perf_counter()
        self.embedding = embed_faces(pixels, progress=progress)
        self.embed_s = time.perf_counter() - began
        self.frame, pixels = faces.load_faces(source, split="finetune", size=size)
        self.is_male, self.latents = faces.gender_of(self.frame), encode_latents(self.pipe.vae, pixels, progress=progress)

    def prepare(self, ratio: float, seed: int) -> tuple[finetune.TrainingSet, torch.nn.Module, Mixes, list[dict]]:
        """A training set, student and mixes for it, and the readings' rows: the embedding's own ratio first."""
        subset = {"size": SETTINGS["train_size"], "ratio": ratio, "seed": seed}
        side, drawn = self.preset.image_size, faces.draw_subset(self.frame, **subset)
        _, pixels, is_male = finetune.load_training_faces(self.source, split="finetune", image_size=side, **subset)
        reference = finetune.load_reference(self.source, size=SETTINGS["reference_size"], seed=seed, image_size=side)
        data = finetune.prepare_set(self.pipe, pixels, natural=faces.natural_images(size=side, count=100, seed=0),
                                    is_male=is_male, needs=frozenset({"embedding", "reference"}), reference=reference)
        began, seen = time.perf_counter(), (data.evidence.embedding, data.evidence.reference)
        chance, mixes = components(*seen, self.embedding)
        student = fit_student(self.student, self.pool, chance, self.alphas, seed=seed)
        taken, values = time.perf_counter() - began, rarity.reference_values(*seen)
        own = {"p_eff": rarity.weighted_share(values, is_male), "ess": rarity.effective_share(values)}
        known = {"ratio": ratio, "seed": seed, **{f"mix_{name}": value for name, value in vars(mixes).items()}}
        rows = readings(student, mixes, self.latents, self.is_male, drawn, self.alphas)
        return data, student, mixes, [known | {"source": "embedding"} | own,
                                      *(known | {"source": self.student, "student_s": taken} | row for row in rows)]

    def cell(self, variant: str, ratio: float, seed: int, prepared: tuple) -> dict:
        """Train, draw, judge: a row."""
        data, student, mixes, _ = prepared
        indicator = TimeRatioIndicator(student, mixes, self.pipe.scheduler, variant=variant, alpha=SETTINGS["alpha"])
        config = finetune.FinetuneConfig.of(self.preset, indicator="none", seed=seed)
        sampling = SampleConfig.of(self.preset, steps=SETTINGS["sample_steps"], seed=SETTINGS["sample_seed"])
        try:
            record = train(self.pipe, data, indicator, config=config)
            judged = self.judge.judge(np.concatenate(list(sample(self.pipe, n=self.n, config=sampling))))
        finally:
            self.pipe.unet.delete_adapters("default")
        return {"variant": variant, "student": self.student, "ratio": ratio, "seed": seed, "n": self.n, **record,
                **figures(judged)}


def beside(sweep: Path, ratio: float, seed: int, n: int) -> list[dict]:
    """The same training set in a finished sweep, plain and with other indicators: the first `n` of the same pictures."""
    rows = []
    for name, alpha in (("none", "0"), ("reference", "0.1"), ("oracle", "0.1")):
        folder = sweep / "cells" / f"{name}-ratio{ratio:g}-alpha{alpha}-seed{seed}"
        if (folder / "row.json").exists():
            record, judged = read_record(folder / "row.json"), pd.read_csv(folder / "judged.csv").head(n)
            told = {key: record[key] for key in ("fit_loss", "train_s")}
            rows.append({"variant": name, "student": "", "ratio": ratio, "seed": seed, "n": n, **told, **figures(judged)})
    return rows


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a variant and ratio: perceived male share, and how far its distance to one half falls below that of `none`.

    Intervals are those of `fairness_report`: over trainings, paired picture by picture, not corrected for the judge's
    error. With one training there are none.
    """
    rows = []
    for (ratio, variant, student), group in cells.groupby(["ratio", "variant", "student"]):
        plain = cells[(cells["variant"] == "none") & (cells["ratio"] == ratio) & cells["seed"].isin(group["seed"])]
        runs, base = ([[READ[letter] for letter in run] for run in part.sort_values("seed")["decisions"]]
                      for part in (group, plain))
        row = {"ratio": ratio, "variant": variant, "student": student, "trainings": len(group),
               "male_share": group["male_share"].mean()}
        if len(runs) > 1:
            share = mean_over_seeds(runs)
            row |= {"share_low": share.low, "share_high": share.high}
        if len(runs) > 1 and len(base) == len(runs) and variant != "none":
            fall = reduction_over_seeds(base, runs)
            row |= {"fd_fall": fall.estimate, "fall_low": fall.low, "fall_high": fall.high}
        rows.append(row | {"face_rate": group["face_rate"].mean(), "fit_loss": group["fit_loss"].mean()})
    return pd.DataFrame(rows)


def _table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype={"student": str}) if path.exists() else pd.DataFrame()
    return table.fillna({"student": ""}) if "student" in table else table


def _add(path: Path, rows: list[dict]) -> None:
    """Put rows into a table, in order; of the same row twice the later one stays."""
    table = pd.concat([_table(path), pd.DataFrame(rows)], ignore_index=True)
    keys = [name for name in ("ratio", "seed", "source", "variant", "student", "timestep") if name in table]
    with replacing(path) as partial:
        table.drop_duplicates(keys, keep="last").sort_values(keys).to_csv(partial, index=False, float_format="%.5g")


def _note(out: Path, study: Study) -> None:
    """Command, settings and hashes beside the tables; of paths the names alone."""
    path = out / "time_ratio.json"
    before = read_record(path) if path.exists() else {}
    words = (Path(word).name if "/" in word else word for word in sys.argv[1:])
    commands = [*before.get("commands", []), "python -m debiaslib.time_ratio_study " + " ".join(words)]
    model = data_root() / study.preset.source / "unet/diffusion_pytorch_model.safetensors"
    finetune.write_json(path, {
        "commands": list(dict.fromkeys(commands)), "faces": study.source.name, "pool": len(study.pool),
        "settings": SETTINGS | {"steps": study.preset.train_steps, "batch": study.preset.batch, "n": study.n,
                                "guidance": study.preset.guidance, "prompt": study.preset.prompt},
        "judge": study.judge.identity, "encode_pool_s": round(study.encode_s, 1), "embed_pool_s": round(study.embed_s, 1),
        "sha256": {"unet": sha256(model), **{table.name: sha256(table) for table in sorted(out.glob("*.csv"))}}})


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.time_ratio_study", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled, with a split `finetune`")
    parser.add_argument("--pool", type=Path, default=data_root() / "faces", metavar="DIR|ZIP",
                        help="faces to distil on, labels unread; default the face pool")
    parser.add_argument("--student", default="linear", choices=STUDENTS, help="how w_t is distilled; default linear")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS),
                        help="what to train; none: only read w_t; default all")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 4.0], help="male:female; default .25 4")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("-n", type=int, default=200, help="faces drawn of each training; default 200")
    parser.add_argument("--beside", type=Path, default=None, metavar="SWEEP", help="take this sweep's same cells in")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="continued, if tables are there already")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Read, train, draw, judge; a row is written as soon as it is there, and run again, the command continues."""
    args = build_parser().parse_args(arguments)
    path, progress = args.out / "cells.csv", sys.stderr.isatty()
    study = Study(args.faces, args.pool, student=args.student, n=args.n, progress=progress)
    for seed, ratio in itertools.product(args.seeds, args.ratios):
        cells = _table(path)
        done = set(cells[CELL].itertuples(index=False, name=None)) if len(cells) else set()
        if args.beside and ("none", "", ratio, seed) not in done:
            _add(path, beside(args.beside, ratio, seed, args.n))
        todo = [variant for variant in args.variants if (variant, args.student, ratio, seed) not in done]
        if todo or not args.variants:
            prepared = study.prepare(ratio, seed)
            _add(args.out / "ratios.csv", prepared[-1])
        for variant in todo:
            _add(path, [study.cell(variant, ratio, seed, prepared)])
    _note(args.out, study)
    if len(cells := _table(path)):
        print(summary(cells).round(3).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("time_ratio_study", main))

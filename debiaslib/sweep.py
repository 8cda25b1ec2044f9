"""The grid of runs behind Table 1: train, generate, judge, measure, one row a cell; killed and run again, it continues."""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from debiaslib import compare, faces, measure, quality
from debiaslib.atomic import read_record, replacing
from debiaslib.errors import InputError
from debiaslib.finetune import (
    ADAPTER_FILE,
    RECORD_FILE,
    FinetuneConfig,
    TrainingSet,
    add_reference,
    check_reference,
    ended,
    finetune,
    load_reference,
    load_training_faces,
    prepare_set,
    training_rows,
    write_json,
)
from debiaslib.generate import SampleConfig, generate, load_adapter
from debiaslib.indicators import INDICATORS, build_indicator, needs_of
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.presets import Preset, data_root, get_preset, load_pipeline, one_thread, sha256

COLUMNS = ("preset", "faces", "indicator", "ratio", "n_train", "alpha", "seed", "train_steps", "sample_steps", "guidance", "n",
           "face_rate", "abstained", "male_share", "fd", "fd_low", "fd_high", "fd_corrected", "frechet", "kid", "density", "coverage",
           "is_mean", "is_std", "fit_loss", "p_eff", "ess", "train_s", "generate_s")

MORE = ("top_share", "embed_s", "male_share_low", "male_share_high", "fd_corrected_low", "fd_corrected_high", "kid_low", "kid_high",
        *(f"{name}_within{end}" for name in compare.METRICS for end in ("", "_low", "_high")))
"""What `cells.csv` tells beyond `table1.csv`."""

CURVE = ("indicator", "ratio", "alpha", "seed", "step", "denoising", "cross_entropy", "indicator_accuracy")
"""What `curves.csv` tells of the trainings; the last two of `literal` alone."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The grid. Every cell of the same ratio and seed sees the same training faces, noise and sampling seeds."""

    faces: str
    split: str = "finetune"
    compare_with: str | None = None
    reference_split: str = "evaluate"
    ratios: tuple[float, ...] = (0.25, 1.0, 4.0)
    train_size: int = 100
    reference: str | None = None
    reference_size: int = 100
    alphas: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1)
    indicators: tuple[str, ...] = ("literal",)
    seeds: tuple[int, ...] = (0,)
    n: int = 200
    train_steps: int | None = None
    sample_steps: int | None = None
    guidance: float | None = None
    sample_seed: int = 10_000
    extractor: str = "efficientnet-lite0"

    def __post_init__(self) -> None:
        for name in ("ratios", "alphas", "indicators", "seeds"):
            if not getattr(self, name):
                raise InputError(f"--{name}: empty. Give at least one.")
        for indicator in self.indicators:
            for alpha in self.alphas:
                build_indicator(indicator, alpha=alpha)
        check_reference(needs_of(self.indicators), self.reference)
        if self.n < 2:
            raise InputError(f"-n {self.n}: give at least 2 pictures a cell; 800 is what S1 used.")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid."""

    indicator: str
    ratio: float
    alpha: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of the cell, and of its folder."""
        return f"{self.indicator}-ratio{self.ratio:g}-alpha{self.alpha:g}-seed{self.seed}"


def cells(config: SweepConfig) -> list[Cell]:
    """Every cell, those that share training faces side by side."""
    return [Cell(indicator=indicator, ratio=ratio, alpha=alpha, seed=seed) for ratio in config.ratios for seed in config.seeds
            for indicator in config.indicators for alpha in config.alphas]


def source_name(source: str | Path) -> str:
    """What the column `faces` says: pool, fairface, or the folder's name."""
    if Path(source).resolve() == (data_root() / "faces").resolve():
        return "pool"
    return "fairface" if Path(source).stem.startswith("fairface") else Path(source).stem


def from_the_kit(config: SweepConfig) -> SweepConfig:
    """A grid read back from `sweep.json`, where the face pool goes by its name."""
    return replace(config, faces=str(data_root() / "faces")) if config.faces == "pool" else config


def sweep(preset: Preset, *, config: SweepConfig, out: Path, workers: int = 1, progress: bool = True) -> pd.DataFrame:
    """Run every cell that has no row yet and write `table1.csv` after each; returns the table, one row a cell in `out`.

    `out/cells/NAME` keeps each cell's adapter, pictures, judgements and row. With several `workers` each is a process of one
    thread, which on a CPU is faster than one process of several; cells do not depend on each other, so the rows are the same
    whatever their number. Raises InputError when `out` belongs to another grid, or the faces cannot give a training set.
    """
    todo, rows = cells(config), training_rows(config.faces, split=config.split)
    for ratio in config.ratios:  # fail before the first hour, not after it
        faces.draw_subset(rows, ratio=ratio, size=config.train_size, seed=config.seeds[0])
    _claim(out, preset, config)
    missing = [cell for cell in todo if not (_folder(out, cell) / "row.json").exists()]
    write_table(out)
    jobs = (delayed(_run_cell)(preset, config, cell, _folder(out, cell)) for cell in missing)
    with tqdm(total=len(todo), initial=len(todo) - len(missing), desc="sweep", unit="cell", disable=not progress) as bar:
        for cell in Parallel(n_jobs=min(workers, max(1, len(missing))), return_as="generator_unordered")(jobs):
            bar.update()
            bar.set_postfix_str(cell.folder)
            write_table(out)
    return pd.read_csv(out / "table1.csv")


def _folder(out: Path, cell: Cell) -> Path:
    return out / "cells" / cell.folder


def _claim(out: Path, preset: Preset, config: SweepConfig) -> None:
    """Note whose folder this is, or refuse it. Other ratios, alphas, indicators or seeds may be asked for, one command after
    another; other settings not."""
    record, commands = out / "sweep.json", []
    told = {"faces": "pool"} if source_name(config.faces) == "pool" else {}  # where the kit lies says nothing of the sweep
    training = asdict(FinetuneConfig.of(preset, steps=config.train_steps))
    training = {name: value for name, value in training.items() if name not in ("indicator", "alpha", "seed")}
    settings = json.loads(json.dumps({"preset": preset.name, **asdict(config), **told, "training": training}))
    if record.exists():
        before = read_record(record)
        found, commands = before["settings"], before["command"].splitlines()
        grid = ("ratios", "alphas", "indicators", "seeds")
        default = asdict(SweepConfig(faces=""))  # of a setting that is younger than the record
        if any(found.get(name, default.get(name)) != value for name, value in settings.items() if name not in grid):
            raise InputError(f"{out}: holds a sweep of other settings. Give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}
    commands = list(dict.fromkeys([*commands, "debiaslib " + " ".join(sys.argv[1:])]))
    write_json(record, {"command": "\n".join(commands), "settings": settings, "machine": machine})


@lru_cache(maxsize=1)
def base_pipeline(preset: Preset) -> StableDiffusionPipeline:
    """Loaded once a worker."""
    return load_pipeline(preset)


@lru_cache(maxsize=1)
def training_set(preset: Preset, config: SweepConfig, ratio: float, seed: int) -> TrainingSet:
    """Encoded once a worker for the cells that share it, which come one after another."""
    _, pixels, is_male = load_training_faces(config.faces, split=config.split, ratio=ratio, size=config.train_size, seed=seed,
                                             image_size=preset.image_size)
    natural = faces.natural_images(size=preset.image_size, count=FinetuneConfig.of(preset).natural_count, seed=0)
    reference = load_reference(config.reference, size=config.reference_size, seed=seed, image_size=preset.image_size)
    return prepare_set(base_pipeline(preset), pixels, natural=natural, is_male=is_male, needs=needs_of(config.indicators), reference=reference)


@lru_cache(maxsize=1)
def instruments(preset: Preset, config: SweepConfig) -> dict:
    """Judge, extractor and the reference's features, loaded once a worker."""
    extractor = quality.load_extractor(config.extractor)
    source = config.compare_with or config.faces
    split = config.reference_split if "split" in faces.read_metadata(source) else None
    reference = measure.open_reference(source, split=split, size=preset.image_size, extractor=extractor)
    return {"judge": Judge(JudgeConfig(age=False)), "extractor": extractor, "reference": reference}


def _run_cell(preset: Preset, config: SweepConfig, cell: Cell, folder: Path) -> Cell:
    """Train, draw, judge, measure: what of it is done already is not done again."""
    with one_thread():
        pipe = base_pipeline(preset)
        training = FinetuneConfig.of(preset, indicator=cell.indicator, alpha=cell.alpha, seed=cell.seed, steps=config.train_steps)
        record = ended(folder) or finetune(
            pipe, training_set(preset, config, cell.ratio, cell.seed), config=training, out=folder, progress=False)
        sampling = SampleConfig.of(preset, steps=config.sample_steps, guidance=config.guidance, seed=config.sample_seed)
        load_adapter(pipe, folder)
        try:
            generate(pipe, n=config.n, config=sampling, out=folder / "samples", model=sha256(folder / ADAPTER_FILE), progress=False)
        finally:
            pipe.unload_lora_weights()
        figures = figures_of(folder, preset, instruments(preset, config))
    row = settings_of(preset, config) | asdict(cell) | figures | {"train_steps": training.steps} | {
        name: record[name] for name in ("fit_loss", "p_eff", "ess", "top_share", "embed_s", "train_s")}
    row["generate_s"] = json.loads((folder / "samples/generate.json").read_text())["seconds"]
    write_json(folder / "row.json", {name: row.get(name) for name in COLUMNS + MORE})
    return cell


def settings_of(preset: Preset, config: SweepConfig) -> dict:
    """What every row of a sweep has in common."""
    sampling = SampleConfig.of(preset, steps=config.sample_steps, guidance=config.guidance)
    return {"preset": preset.name, "faces": source_name(config.faces), "n_train": config.train_size,
            "sample_steps": sampling.steps, "guidance": sampling.guidance}


def figures_of(folder: Path, preset: Preset, tools: dict) -> dict:
    """What `measure` says of the cell's pictures, and the quality within each perceived group, averaged over the groups."""
    measured = measure.measure_parts(folder / "samples", judged=folder / "judged.csv", size=preset.image_size, **tools)
    labels, within = tools["reference"].labels, {}
    if labels is not None:
        table = compare.quality_by_group(measured.features, measured.rows["perceived"], tools["reference"].features, labels)
        average = table.set_index("group").loc[compare.AVERAGE]
        within = {f"{name}_within{end}": average[f"{name}{end}"] for name in compare.METRICS for end in ("", "_low", "_high")}
    return measured.result | {name: None if pd.isna(value) else float(value) for name, value in within.items()}


def finished(out: Path) -> dict[Path, dict]:
    """The row of every cell in `out` that is done, whichever grid asked for it, by its folder and in a table's order."""
    rows = {path.parent: json.loads(path.read_text()) for path in (out / "cells").glob("*/row.json")}
    return dict(sorted(rows.items(), key=lambda item: (item[1]["ratio"], item[1]["seed"],
                                                       list(INDICATORS).index(item[1]["indicator"]), item[1]["alpha"])))


def write_table(out: Path) -> None:
    """`table1.csv`, `cells.csv` with more columns and `curves.csv`, from every cell in `out` that is done."""
    rows = finished(out)
    tables = {"table1.csv": pd.DataFrame(rows.values(), columns=list(COLUMNS)),
              "cells.csv": pd.DataFrame(rows.values(), columns=list(COLUMNS + MORE)),
              "curves.csv": pd.DataFrame([line for cell, row in rows.items() for line in _curve(cell, row)], columns=list(CURVE))}
    for name, table in tables.items():
        with replacing(out / name) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")


def _curve(cell: Path, row: dict, *, every: int = 10) -> list[dict]:
    """A cell's training, a line of means every `every` updates."""
    logged = pd.DataFrame(json.loads((cell / RECORD_FILE).read_text())["curve"])
    means = logged.groupby(logged["step"] // every * every).mean().drop(columns="step").reset_index()
    return [{name: row[name] for name in ("indicator", "ratio", "alpha", "seed")} | line
            for line in means.rename(columns={"indicator": "cross_entropy"}).to_dict("records")]


def default_workers() -> int:
    """One for a GPU, else one a core, at most four: each holds a model in memory."""
    return 1 if torch.cuda.is_available() else max(1, min(4, os.cpu_count() or 1))


def _numbers(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib sweep`."""
    default = SweepConfig(faces="")
    parser.add_argument("--preset", default="tiny", help="tiny or sd15; default tiny")
    parser.add_argument("--faces", type=Path, default=None, metavar="DIR|ZIP", help="training faces; default the face pool that ships")
    parser.add_argument("--split", default=default.split, help="rows to train on, if there is such a column; default %(default)s")
    parser.add_argument("--ratios", type=_numbers, nargs="+", default=default.ratios, help="male:female; default .25 1 4")
    parser.add_argument("--train-size", type=int, default=default.train_size, help="training faces a cell; default %(default)s")
    add_reference(parser)
    parser.add_argument("--alphas", type=_numbers, nargs="+", default=default.alphas, help="default 0 .01 .05 .1")
    parser.add_argument("--indicators", nargs="+", choices=sorted(INDICATORS), default=default.indicators, help="default literal")
    parser.add_argument("--seeds", type=int, nargs="+", default=default.seeds, help="training seeds; default 0")
    parser.add_argument("-n", type=int, default=default.n, help="pictures a cell; default %(default)s, 800 for the full table")
    parser.add_argument("--train-steps", type=int, default=None, help="default the preset's")
    parser.add_argument("--sample-steps", type=int, default=None, help="default the preset's")
    parser.add_argument("--guidance", type=float, default=None, help="default the preset's")
    parser.add_argument("--extractor", default=default.extractor, choices=quality.EXTRACTORS,
                        help="the feature network of quality figures; default %(default)s")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes of one thread each; default %(default)s here")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="table1.csv, fig2.png, report.html and a folder a cell")


def run(args: argparse.Namespace) -> int:
    """`debiaslib sweep`."""
    from debiaslib.report import write_report
    config = SweepConfig(faces=str(args.faces or data_root() / "faces"), split=args.split, ratios=tuple(args.ratios),
                         train_size=args.train_size, reference=None if args.reference is None else str(args.reference),
                         reference_size=args.reference_size, alphas=tuple(args.alphas), indicators=tuple(args.indicators),
                         seeds=tuple(args.seeds), n=args.n, train_steps=args.train_steps, sample_steps=args.sample_steps,
                         guidance=args.guidance, extractor=args.extractor)
    table = sweep(get_preset(args.preset), config=config, out=args.out, workers=args.workers, progress=sys.stderr.isatty())
    write_report(args.out, pd.read_csv(args.out / "cells.csv"))
    print(table[["indicator", "ratio", "alpha", "seed", "face_rate", "male_share", "fd", "fd_low", "fd_high", "fd_corrected"]]
          .to_string(index=False, float_format="%.3f"))
    print(f"\n{args.out / 'table1.csv'}\n{args.out / 'fig2.png'}\n{args.out / 'report.html'}")
    return 0

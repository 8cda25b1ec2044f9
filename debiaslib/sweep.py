"""The grid of runs behind Table 1: train, generate, judge, measure, one row a cell; killed and run again, it continues."""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from debiaslib import compare, faces, measure, quality
from debiaslib.atomic import read_record, replacing
from debiaslib.cluster import spread
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.finetune import (
    ADAPTER_FILE,
    RECORD_FILE,
    SAMPLES,
    FinetuneConfig,
    TrainingSet,
    add_reference,
    check_reference,
    check_sizes,
    embed_decoded,
    ended,
    finetune,
    load_reference,
    load_training_faces,
    load_unlabelled,
    prepare_set,
    training_rows,
    weighed_by,
    write_json,
)
from debiaslib.generate import SampleConfig, generate, load_adapter
from debiaslib.indicators import INDICATORS, build_indicator, needs_of
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.mixing import mix_adapters, read_part
from debiaslib.presets import Preset, check_seed, data_root, get_preset, load_pipeline, one_thread, sha256

COLUMNS = ("preset", "faces", "indicator", "ratio", "n_train", "alpha", "seed", "train_steps", "sample_steps", "guidance", "n",
           "face_rate", "abstained", "male_share", "fd", "fd_low", "fd_high", "fd_corrected", "frechet", "kid", "density", "coverage",
           "is_mean", "is_std", "fit_loss", "p_eff", "ess", "train_s", "generate_s")

MORE = ("top_share", "embed_s", "male_share_low", "male_share_high", "fd_corrected_low", "fd_corrected_high", "kid_low", "kid_high",
        *(f"{name}_within{end}" for name in compare.METRICS for end in ("", "_low", "_high")))
"""What `cells.csv` tells beyond `table1.csv`."""

KEY = ("indicator", "ratio", "alpha", "seed")
"""What tells one cell from another."""

CURVE = (*KEY, "step", "denoising", "cross_entropy", "indicator_accuracy")
"""What `curves.csv` tells of the trainings; the last two of `literal` alone."""

POOL = "pool"
"""How a sweep's settings call the kit's own faces."""

SOURCES = ("faces", "compare_with", "reference", "unlabelled")
"""The settings of a sweep that are paths."""

READINGS = "readings.json"
"""What was read of the pictures of a cell that has two trainings."""
LOOKED_AT = {"first": 400, "second": 400, "between": 800}
"""The two trainings and the mix that is tried, and how many pictures each draws to be looked at."""
SEEDS_APART, LOOKS = 100_000, 4
"""How far the sampling seeds of one set of pictures lie from those of the next, and how many sets a training seed may have: those
that are measured, and three to be looked at."""

TURN = threading.Lock()
"""A process runs one cell at a time: threads would share its model."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The grid. Every cell of the same ratio and seed sees the same training faces, noise and sampling seeds.

    Another training seed has other sampling seeds (`sampling_seed`): models that start from the same noise err together, which the
    scatter between them does not show (what two models make of one start correlates .4 to .8 in the kit's evidence).
    """

    faces: str
    split: str = "finetune"
    compare_with: str | None = None
    reference_split: str = "evaluate"
    ratios: tuple[float, ...] = (0.25, 1.0, 4.0)
    train_size: int = 100
    reference: str | None = None
    reference_size: int = 100
    unlabelled: str | None = None
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
        for seed in self.seeds:
            check_seed(seed)
            check_seed(sampling_seed(self, seed))
        if self.n < 2:
            raise InputError(f"-n {self.n}: give at least 2 pictures a cell; 800 is what S1 used.")
        if self.sample_steps is not None and self.sample_steps < 1:
            raise InputError(f"--sample-steps {self.sample_steps}: at least 1.")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise InputError(f"--guidance {self.guidance}: must be a number, 1 for none.")
        check_sizes(needs_of(self.indicators), size=self.train_size, reference_size=self.reference_size)


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


def sampling_seed(config: SweepConfig, seed: int) -> int:
    """The first sampling seed of the pictures that are measured, for this training seed; the next ones follow."""
    return config.sample_seed + LOOKS * SEEDS_APART * seed


def source_name(source: str | Path) -> str:
    """What the column `faces` says: pool, fairface, or the folder's name."""
    if is_pool(source):
        return POOL
    return "fairface" if Path(source).stem.startswith("fairface") else Path(source).stem


def is_pool(source: str | Path) -> bool:
    """Whether these are the kit's own faces, wherever the kit lies; a folder of yours that is called pool is not."""
    return Path(source).resolve() == (data_root() / "faces").resolve()


def from_the_kit(config: SweepConfig) -> SweepConfig:
    """A grid read back from `sweep.json`, where the face pool goes by its name."""
    return replace(config, faces=str(data_root() / "faces")) if config.faces == POOL else config


def sweep(preset: Preset, *, config: SweepConfig, out: Path, workers: int = 1, scheduler: str | None = None,
          progress: bool = True) -> pd.DataFrame:
    """Run every cell that has no row yet and write `table1.csv` after each; returns the table, one row a cell in `out`.

    `out/cells/NAME` keeps each cell's adapter, pictures, judgements and row. With several `workers` each is a process of one
    thread, which on a CPU is faster than one process of several; cells do not depend on each other, so the rows are the same
    whatever their number. With a `scheduler`, the address or file of a Dask scheduler, its workers run the cells; they see
    `out` and the faces under the same paths. Raises InputError when `out` belongs to another grid or another sweep is at work
    there, when the faces cannot give a training set, and when scheduler or workers cannot be reached or die.
    """
    todo, rows = cells(config), training_rows(config.faces, split=config.split)
    for ratio in config.ratios:  # fail before the first hour, not after it
        faces.draw_subset(rows, ratio=ratio, size=config.train_size, seed=config.seeds[0])
    compared_with(config)
    with _alone(out):
        _claim(out, preset, config)
        missing = _missing(out, todo)
        write_table(out)
        jobs = [(preset, _anywhere(config), cell, _folder(out.absolute(), cell)) for cell in missing]
        with tqdm(total=len(todo), initial=len(todo) - len(missing), desc="sweep", unit="cell", disable=not progress) as bar:
            for cell in spread(_run_cell, jobs, workers=workers, scheduler=scheduler):
                bar.update()
                bar.set_postfix_str(cell.folder)
                write_table(out)
        if unseen := len(_missing(out, todo)):
            raise InputError(f"{out}: {unseen} rows of workers are not to be seen from here. Network disks may show them a minute "
                             "later: run the same command again. If that does not help, --out is not on a disk that all share.")
        write_table(out)
    return pd.read_csv(out / "table1.csv")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold `out`, or refuse it when another sweep does, on whichever machine of those that share the disk. A kill lets go."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"{out}: another sweep is at work there. Wait for its end, or give another --out; several machines "
                         "share one sweep with --scheduler.") from None


def _anywhere(config: SweepConfig) -> SweepConfig:
    """Paths that workers elsewhere understand: absolute ones, but the face pool goes by its name, wherever their kit lies."""
    paths = {name: getattr(config, name) for name in SOURCES if getattr(config, name)}
    pool = {"faces": POOL} if is_pool(config.faces) else {}
    return replace(config, **{name: str(Path(path).absolute()) for name, path in paths.items()} | pool)


def _folder(out: Path, cell: Cell) -> Path:
    return out / "cells" / cell.folder


def _missing(out: Path, todo: list[Cell]) -> list[Cell]:
    return [cell for cell in todo if not (_folder(out, cell) / "row.json").exists()]


def _claim(out: Path, preset: Preset, config: SweepConfig) -> None:
    """Note whose folder this is, or refuse it. Other ratios, alphas, indicators or seeds may be asked for, one command after
    another; other settings not."""
    record, commands, settings = out / "sweep.json", [], _settings(preset, config)
    if record.exists():
        before = read_record(record)
        found, commands = before["settings"], before["command"].splitlines()
        grid = {"ratios", "alphas", "indicators", "seeds"} | _nobodys(out)
        default = asdict(SweepConfig(faces=""))  # of a setting that is younger than the record
        other = [name for name, value in settings.items() if name not in grid
                 and _leading_to(name, found.get(name, default.get(name))) != _leading_to(name, value)]
        if other:
            earlier = ", which an earlier kit did not have" * bool({"seeds_apart", *_weighing()} & set(other) - set(found))
            raise InputError(f"{out}: holds a sweep of other settings ({', '.join(other)}{earlier}). Give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}
    commands = list(dict.fromkeys([*commands, "debiaslib " + shlex.join(sys.argv[1:])]))
    write_json(record, {"command": "\n".join(commands), "settings": settings, "machine": machine})


def _settings(preset: Preset, config: SweepConfig) -> dict:
    training = asdict(FinetuneConfig.of(preset, steps=config.train_steps))
    training = {name: value for name, value in training.items() if name not in ("indicator", "alpha", "seed")}
    return json.loads(json.dumps({"preset": preset.name, **asdict(_anywhere(config)), "training": training,
                                  "correction": measure.GENERATED,  # rows of different corrections are never mixed, and
                                  "seeds_apart": LOOKS * SEEDS_APART,  # neither are those of shared sampling seeds with others,
                                  **_weighing()}))  # or of other weights


def _weighing() -> dict:
    """What decides the weights of any indicator."""
    return {name: what for kind in INDICATORS for name, what in weighed_by(kind).items()}


def _nobodys(out: Path) -> set[str]:
    """What decides the weights of indicators of which `out` has no cell yet."""
    there = [kind for kind in INDICATORS if any(out.glob(f"cells/{kind}-*"))]
    return set(_weighing()) - {name for kind in there for name in weighed_by(kind)}


def _leading_to(name: str, value: object) -> object:
    """A setting, and where it is a path, the place that it leads to."""
    return Path(value).absolute() if name in SOURCES and value else value


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
    needs = needs_of(config.indicators)
    data = prepare_set(base_pipeline(preset), pixels, natural=natural, is_male=is_male, needs=needs, reference=reference)
    more = further_faces(preset, config.unlabelled) if config.unlabelled and "decoded" in needs else None
    return replace(data, evidence=replace(data.evidence, more=more))


@lru_cache(maxsize=1)
def further_faces(preset: Preset, source: str) -> np.ndarray:
    """Embeddings of unlabelled faces, which all training sets share."""
    return embed_decoded(base_pipeline(preset), load_unlabelled(source, image_size=preset.image_size))


@lru_cache(maxsize=1)
def instruments(preset: Preset, config: SweepConfig) -> dict:
    """Judge, extractor and the reference's features, loaded once a worker."""
    extractor = quality.load_extractor(config.extractor)
    source, split = compared_with(config)
    reference = measure.open_reference(source, split=split, size=preset.image_size, extractor=extractor)
    return {"judge": Judge(JudgeConfig(age=False)), "extractor": extractor, "reference": reference}


def compared_with(config: SweepConfig) -> tuple[str, str | None]:
    """The faces that quality is compared with, and their split, None where there is no such column. Raises InputError where it has no rows."""
    source = config.compare_with or config.faces
    frame = faces.read_metadata(source)
    if "split" not in frame:
        return source, None
    if not (frame["split"] == config.reference_split).any():
        there = ", ".join(sorted(set(frame["split"].dropna())))
        raise InputError(f"{source}: no row of split {config.reference_split!r} to compare with; there are {there}. "
                         "Name one with --reference-split, or other faces with --compare-with.")
    return source, config.reference_split


def _run_cell(preset: Preset, config: SweepConfig, cell: Cell, folder: Path) -> Cell:
    """Run the cell, unless or until another process does: one that a stopped sweep has left behind ends its cell first."""
    if not (folder.parents[1] / "sweep.json").exists():
        raise InputError(f"{folder.parents[1]}: not to be seen from the worker on {platform.node()}. Give an --out on a disk that "
                         "all machines see under the same path.")
    folder.mkdir(parents=True, exist_ok=True)
    with TURN, FileLock(folder / ".lock"), one_thread():
        if not (folder / "row.json").exists():
            _measure_cell(preset, from_the_kit(config), cell, folder)
    return cell


def _measure_cell(preset: Preset, config: SweepConfig, cell: Cell, folder: Path) -> None:
    """Train, draw, judge, measure: what of it is done already is not done again."""
    pipe = base_pipeline(preset)
    training = FinetuneConfig.of(preset, indicator=cell.indicator, alpha=cell.alpha, seed=cell.seed, steps=config.train_steps)
    sampling = SampleConfig.of(preset, steps=config.sample_steps, guidance=config.guidance,
                               seed=sampling_seed(config, cell.seed))
    data = training_set(preset, config, cell.ratio, cell.seed)
    twice = "drawn" in INDICATORS[cell.indicator].needs and cell.alpha > 0
    record = ended(folder) if (folder / READINGS).exists() or not twice else None
    if record is None:
        told = {"preset": preset.name}
        record = (_train_twice(pipe, data, training, folder, sampling, told) if twice else
                  finetune(pipe, data, config=training, out=folder, told=told, progress=False))
    _draw(pipe, folder, n=config.n, sampling=sampling)
    figures = figures_of(folder, preset, instruments(preset, config))
    row = settings_of(preset, config) | asdict(cell) | figures | {"train_steps": training.steps} | {
        name: record[name] for name in ("fit_loss", "p_eff", "ess", "top_share", "embed_s", "train_s")}
    row["train_s"] = round(row["train_s"] + sum(_drawing_s(folder / part) for part in list(LOOKED_AT) * twice), 2)
    row["generate_s"] = _drawing_s(folder)
    write_json(folder / "row.json", {name: row.get(name) for name in COLUMNS + MORE})


def _train_twice(pipe: StableDiffusionPipeline, data: TrainingSet, training: FinetuneConfig, folder: Path, sampling: SampleConfig,
                 told: dict) -> dict:
    """A training by `reference`, another that aims past even, a mix of both that is tried, and a better one."""
    (first, second, between), looked = (folder / part for part in LOOKED_AT), []
    for out, indicator in ((first, "reference"), (second, training.indicator)):
        if ended(out) is None:
            finetune(pipe, data, config=replace(training, indicator=indicator), out=out, told=told, progress=False)
        looked.append(_look(pipe, out, sampling))
        data = replace(data, evidence=replace(data.evidence, drawn=looked[0]))
    tried = ended(between) or mix_adapters(pipe, data, first=first, second=second, out=between,
                                           part=read_part(data.evidence, looked[1]).part)
    found = read_part(data.evidence, looked[1], tried=(tried["part"], _look(pipe, between, sampling)))
    write_json(folder / READINGS, asdict(found))
    return mix_adapters(pipe, data, first=first, second=second, part=found.part, out=folder)


def _look(pipe: StableDiffusionPipeline, model: Path, sampling: SampleConfig) -> np.ndarray:
    """Embeddings (N, D) of pictures that this part of a cell draws, of other sampling seeds than any other part."""
    number = 1 + list(LOOKED_AT).index(model.name)
    _draw(pipe, model, n=LOOKED_AT[model.name], sampling=replace(sampling, seed=sampling.seed + number * SEEDS_APART))
    return embed_faces(np.concatenate(list(measure.open_pictures(model / SAMPLES))))


def _draw(pipe: StableDiffusionPipeline, folder: Path, *, n: int, sampling: SampleConfig) -> None:
    """`n` pictures of the adapter in `folder`, into its `samples`."""
    load_adapter(pipe, folder)
    try:
        generate(pipe, n=n, config=sampling, out=folder / SAMPLES, model=sha256(folder / ADAPTER_FILE), progress=False)
    finally:
        pipe.unload_lora_weights()


def _drawing_s(folder: Path) -> float:
    return json.loads((folder / SAMPLES / "generate.json").read_text())["seconds"]


def settings_of(preset: Preset, config: SweepConfig) -> dict:
    """What every row of a sweep has in common."""
    sampling = SampleConfig.of(preset, steps=config.sample_steps, guidance=config.guidance)
    return {"preset": preset.name, "faces": source_name(config.faces), "n_train": config.train_size,
            "sample_steps": sampling.steps, "guidance": sampling.guidance}


def figures_of(folder: Path, preset: Preset, tools: dict) -> dict:
    """What `measure` says of the cell's pictures, and the quality within each perceived group, averaged over the groups."""
    measured = measure.measure_parts(folder / SAMPLES, judged=folder / "judged.csv", size=preset.image_size, **tools)
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


def finished_cells(out: Path) -> dict[Path, dict]:
    """`finished`, for those who read a sweep on: raises InputError where no cell is done."""
    if not (rows := finished(out)):
        raise InputError(f"{out}: no finished cell. Give the folder that `debiaslib sweep` wrote.")
    return rows


def write_table(out: Path) -> None:
    """`table1.csv`, `cells.csv` with more columns and `curves.csv`, from every cell in `out` that is done; `readings.csv` of those that
    looked at their own pictures."""
    rows = finished(out)
    tables = {"table1.csv": pd.DataFrame(rows.values(), columns=list(COLUMNS)),
              "cells.csv": pd.DataFrame(rows.values(), columns=list(COLUMNS + MORE)),
              "curves.csv": pd.DataFrame([line for cell, row in rows.items() for line in _curve(cell, row)], columns=list(CURVE))}
    if read := [key_of(row) | read_record(cell / READINGS) for cell, row in rows.items() if (cell / READINGS).exists()]:
        tables["readings.csv"] = pd.DataFrame(read)
    for name, table in tables.items():
        with replacing(out / name) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")


def _curve(cell: Path, row: dict, *, every: int = 10) -> list[dict]:
    """A cell's training, a line of means every `every` updates."""
    logged = pd.DataFrame(json.loads((cell / RECORD_FILE).read_text())["curve"])
    means = logged.groupby(logged["step"] // every * every).mean().drop(columns="step").reset_index()
    return [key_of(row) | line for line in means.rename(columns={"indicator": "cross_entropy"}).to_dict("records")]


def key_of(row: dict) -> dict:
    """What tells this row's cell from another."""
    return {name: row[name] for name in KEY}


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
    parser.add_argument("--compare-with", type=Path, default=None, metavar="DIR|ZIP",
                        help="faces that the quality of the pictures is compared with; default --faces")
    parser.add_argument("--reference-split", default=default.reference_split,
                        help="their rows, none of them trained on, if there is such a column; default %(default)s")
    add_reference(parser)
    parser.add_argument("--alphas", type=_numbers, nargs="+", default=default.alphas, help="default 0 .01 .05 .1")
    parser.add_argument("--indicators", nargs="+", choices=sorted(INDICATORS), default=default.indicators, help="default literal")
    parser.add_argument("--seeds", type=int, nargs="+", default=default.seeds, help="training seeds, each with sampling seeds of its own; default 0")
    parser.add_argument("-n", type=int, default=default.n, help="pictures a cell; default %(default)s, 800 for the full table")
    parser.add_argument("--train-steps", type=int, default=None, help="default the preset's")
    parser.add_argument("--sample-steps", type=int, default=None, help="default the preset's")
    parser.add_argument("--guidance", type=float, default=None, help="default the preset's")
    parser.add_argument("--extractor", default=default.extractor, choices=quality.EXTRACTORS,
                        help="the feature network of quality figures; default %(default)s")
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument("--workers", type=int, help=f"processes of one thread each; default {default_workers()} here")
    spread.add_argument("--scheduler", metavar="ADDRESS|FILE",
                        help="instead of --workers: spread the cells over a Dask cluster on any number of machines. tcp://HOST:PORT, "
                             "which `dask scheduler` tells, or its scheduler file. Start every worker with `dask worker --nthreads "
                             "1 --memory-limit 0 ADDRESS`; --out, --faces and --reference lie on a disk that all machines see "
                             "under the same path, and so does what --unlabelled names")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="table1.csv, fig2.png, report.html and a folder a cell")


def run(args: argparse.Namespace) -> int:
    """`debiaslib sweep`."""
    from debiaslib.report import write_report
    config = SweepConfig(faces=str(args.faces or data_root() / "faces"), split=args.split, ratios=tuple(args.ratios),
                         compare_with=None if args.compare_with is None else str(args.compare_with), reference_split=args.reference_split,
                         train_size=args.train_size, reference=None if args.reference is None else str(args.reference),
                         reference_size=args.reference_size, unlabelled=None if args.unlabelled is None else str(args.unlabelled),
                         alphas=tuple(args.alphas), indicators=tuple(args.indicators), seeds=tuple(args.seeds), n=args.n,
                         train_steps=args.train_steps, sample_steps=args.sample_steps, guidance=args.guidance, extractor=args.extractor)
    workers = default_workers() if args.workers is None else args.workers
    table = sweep(get_preset(args.preset), config=config, out=args.out, workers=workers, scheduler=args.scheduler,
                  progress=sys.stderr.isatty())
    write_report(args.out, pd.read_csv(args.out / "cells.csv"))
    print(table[["indicator", "ratio", "alpha", "seed", "face_rate", "male_share", "fd", "fd_low", "fd_high", "fd_corrected"]]
          .to_string(index=False, float_format="%.3f"))
    print(f"\n{args.out / 'table1.csv'}\n{args.out / 'fig2.png'}\n{args.out / 'report.html'}")
    return 0

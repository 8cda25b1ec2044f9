"""Same-seed faces along alpha: adapters switched and blended on one pipeline, and a small cache of such faces that ships.

`python -m debiaslib.gallery --sweep runs/pool-density --indicator density --ratio .25 4 --out data/gallery` makes the cache
from a finished sweep. Only adapters that were trained on the face pool are taken: what is kept comes from no photograph.
"""

import argparse
import json
import shutil
import shlex
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from debiaslib.__main__ import guarded
from debiaslib.atomic import publish
from debiaslib.errors import InputError
from debiaslib.fairness import share_interval
from debiaslib.finetune import ADAPTER_FILE
from debiaslib.generate import Guide, OnStep, SampleConfig, load_adapter, load_controlnet, sample
from debiaslib.presets import Preset, check_manifest, data_root, get_preset, load_pipeline, one_thread, write_manifest

FOLDER = "gallery"
"""Where the cache lies, under the data root."""
RECORD, SHARES, READINGS = "gallery.json", "shares.csv", "readings.csv"
MOST_BYTES = 6_000_000
"""The cache ships with the kit, so it stays small."""
FROM_ROW = ("indicator", "ratio", "alpha", "seed", "n", "face_rate", "abstained", "male_share", "male_share_low",
            "male_share_high", "fd", "fd_low", "fd_high", "fd_corrected", "fd_corrected_low", "fd_corrected_high")


# Adapters on one pipeline ----------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class Blend:
    """An alpha as weights of trained adapters: one of weight 1, or two neighbours of it; none for the base model."""

    alpha: float | None
    weights: Mapping[float, float]

    @property
    def interpolated(self) -> bool:
        """Whether nothing was trained at this alpha."""
        return len(self.weights) > 1

    def __str__(self) -> str:
        if self.alpha is None:
            return "the base model, no adapter"
        if not self.interpolated:
            return f"alpha {self.alpha:g}"
        parts = " + ".join(f"{weight:.2f} x the adapter of {alpha:g}" for alpha, weight in self.weights.items())
        return f"alpha {self.alpha:g}, interpolated: {parts}"


def blend(trained: Sequence[float], alpha: float | None) -> Blend:
    """Linear weights of the two `trained` alphas around `alpha`; of one alone where it was trained itself.

    An adapter's effect on a weight is a matrix B A that is added to it, so weighting adapters averages these matrices. What
    they draw need not lie in between. Raises InputError below the smallest and above the largest.
    """
    if alpha is None:
        return Blend(alpha=None, weights={})
    known = np.array(sorted(trained), float)
    if not len(known) or not known[0] <= alpha <= known[-1]:
        there = f"They reach from {known[0]:g} to {known[-1]:g}." if len(known) else "There is none at all."
        raise InputError(f"alpha {alpha:g}: no adapter for it, nor one on either side to interpolate between. {there}")
    if alpha in known:
        return Blend(alpha=alpha, weights={float(alpha): 1.0})
    above = int(np.searchsorted(known, alpha))
    low, high = known[above - 1:above + 1].tolist()
    share = (alpha - low) / (high - low)
    return Blend(alpha=alpha, weights={low: 1 - share, high: share})


class AlphaSwitch:
    """Adapters, one an alpha, loaded once on one pipeline by peft; `use` makes one of them, or a blend of two, active."""

    def __init__(self, pipe: StableDiffusionPipeline, files: Mapping[float, Path]):
        self.pipe, self.alphas = pipe, tuple(sorted(files))
        for alpha in self.alphas:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)  # several are what we want
                load_adapter(pipe, files[alpha], name=_name(alpha))

    def use(self, alpha: float | None) -> Blend:
        """Switch to `alpha`; None is the base model. Raises InputError where there is no adapter for it (see `blend`)."""
        found = blend(self.alphas, alpha)
        if found.weights:
            self.pipe.enable_lora()
            self.pipe.set_adapters([_name(known) for known in found.weights], list(found.weights.values()))
        elif self.alphas:
            self.pipe.disable_lora()
        return found


def _name(alpha: float) -> str:
    """peft's names hold no dots."""
    return f"alpha_{alpha:g}".replace(".", "p")


class Studio:
    """One pipeline with a gallery's adapters, loaded at first use and shared by widgets: one drawing at a time."""

    def __init__(self, gallery: "Gallery | None" = None, *, preset: str = "tiny"):
        self.gallery, self.preset = gallery, get_preset(preset)
        self.alphas = tuple(sorted(gallery.adapters)) if gallery else ()
        self._lock = threading.Lock()

    @cached_property
    def switch(self) -> AlphaSwitch:
        """The pipeline with its adapters."""
        return AlphaSwitch(load_pipeline(self.preset), self.gallery.adapters if self.gallery else {})

    @cached_property
    def controlnet(self) -> ControlNetModel:
        """The preset's ControlNet. Raises InputError where there is none."""
        return load_controlnet(self.preset.controlnet)

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.preset.image_size

    def warm(self) -> None:
        """Load the pipeline beside whatever else is done, so that the first drawing need not; what fails is told there."""
        def load() -> None:
            with self._lock, suppress(Exception):
                _ = self.switch

        threading.Thread(target=load, daemon=True).start()

    def draw(self, *, seeds: Sequence[int], config: SampleConfig, alpha: float | None = None, guide: Guide | None = None,
             on_step: OnStep | None = None) -> np.ndarray:
        """A picture a seed, uint8 (len(seeds), H, W, 3), by the adapter of `alpha` (None: by the base model).

        Raises InputError as `blend` and `sample` do.
        """
        with self._lock, one_thread():
            self.switch.use(alpha)
            return np.concatenate(list(sample(self.switch.pipe, n=len(seeds), config=config, seeds=seeds, guide=guide,
                                              on_step=on_step)))

    def config(self, **changes) -> SampleConfig:
        """How the gallery was drawn, in fp32, so that the same seed gives the same picture on every machine; or changed."""
        settings = self.gallery.sampling if self.gallery else {}
        return SampleConfig.of(self.preset, **settings | {"precision": "fp32"} | changes)


def same_seed_grid(switch: AlphaSwitch, *, alphas: Sequence[float | None], seeds: Sequence[int],
                   config: SampleConfig) -> np.ndarray:
    """Pictures uint8 (len(alphas), len(seeds), H, W, 3): a row an alpha (None: the base model), a column a seed."""
    rows = []
    for alpha in alphas:
        switch.use(alpha)
        rows.append(np.concatenate(list(sample(switch.pipe, n=len(seeds), config=config, seeds=seeds))))
    return np.stack(rows)


# The cache that ships --------------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Faces drawn beforehand, what was measured of their models, and the adapters of one ratio.

    `columns`: by ratio, the alphas that were drawn. `shares`: a row a ratio and trained alpha, the figures of `FROM_ROW`,
    and the face rate's interval. `readings`: a row a measured picture: ratio, alpha, seed, perceived, abstained.
    """

    folder: Path
    indicator: str
    seeds: tuple[int, ...]
    size: int
    sampling: Mapping[str, float | str]
    adapter_ratio: float
    adapters: Mapping[float, Path]
    columns: Mapping[float, tuple[float, ...]]
    shares: pd.DataFrame
    readings: pd.DataFrame

    @property
    def ratios(self) -> tuple[float, ...]:
        """Male:female in the training sets, in the order they were asked for."""
        return tuple(self.columns)

    def alphas(self, ratio: float) -> tuple[float, ...]:
        """The alphas drawn for a ratio, those in between included. Raises InputError for a ratio that is not there."""
        if ratio not in self.columns:
            there = ", ".join(f"{known:g}" for known in self.ratios)
            raise InputError(f"ratio {ratio:g}: not in this gallery. Choose among {there}.")
        return self.columns[ratio]

    def sprite(self, ratio: float) -> Path:
        """The file with a ratio's faces: a row a seed, a column an alpha."""
        self.alphas(ratio)
        return self.folder / _sprite_name(ratio)

    def pictures(self, ratio: float) -> np.ndarray:
        """The same as uint8 (seeds, alphas, H, W, 3)."""
        with Image.open(self.sprite(ratio)) as image:
            grid = np.asarray(image.convert("RGB"))
        rows, columns = (length // self.size for length in grid.shape[:2])
        return grid.reshape(rows, self.size, columns, self.size, 3).swapaxes(1, 2)

    def measured(self, *, ratio: float, alpha: float) -> pd.Series | None:
        """The row of `shares`, or None at an alpha in between, where nothing was trained or measured."""
        found = self.shares[np.isclose(self.shares["ratio"], ratio) & np.isclose(self.shares["alpha"], alpha)]
        return None if found.empty else found.iloc[0]


def load_gallery(folder: Path | str | None = None) -> Gallery:
    """The gallery that ships, or another. Raises InputError when there is none or a file differs from its hash."""
    folder = data_root() / FOLDER if folder is None else Path(folder)
    if not (folder / RECORD).exists():
        raise InputError(f"{folder}: no gallery there. Make one with `python -m debiaslib.gallery --sweep DIR "
                         f"--indicator NAME --out {folder}`.")
    check_manifest(folder)
    record = json.loads((folder / RECORD).read_text())
    columns = {float(ratio): tuple(alphas) for ratio, alphas in record["columns"].items()}
    adapters = {float(alpha): folder / name for alpha, name in record["adapters"].items()}
    return Gallery(folder=folder, indicator=record["indicator"], seeds=tuple(record["seeds"]), size=record["size"],
                   sampling=record["sampling"], adapter_ratio=record["adapter_ratio"], adapters=adapters, columns=columns,
                   shares=pd.read_csv(folder / SHARES),
                   readings=pd.read_csv(folder / READINGS, keep_default_na=False))


@dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """What to take from a sweep. `seeds` pictures a cell: the first ones, no selection. The adapters of the first ratio
    ship; for that ratio `between` alphas between two trained ones are drawn as well, by interpolation."""

    indicator: str
    ratios: tuple[float, ...] = (0.25, 4.0)
    training_seed: int = 0
    seeds: int = 8
    between: int = 1


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A finished cell of a sweep."""

    folder: Path
    row: Mapping

    @property
    def alpha(self) -> float:
        return float(self.row["alpha"])

    @property
    def sampling(self) -> dict:
        settings = json.loads((self.folder / "samples/generate.json").read_text())["settings"]
        return {name: settings[name] for name in ("prompt", "steps", "guidance", "negative_prompt", "seed")}

    def pictures(self, count: int) -> np.ndarray:
        paths = [self.folder / f"samples/images/{number:05d}.png" for number in range(count)]
        if lacking := [path for path in paths if not path.exists()]:
            raise InputError(f"{lacking[0]}: missing. Run the sweep again: it draws what is missing.")
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    def figures(self) -> dict:
        faces = share_interval(round(self.row["face_rate"] * self.row["n"]), self.row["n"])
        return {name: self.row[name] for name in FROM_ROW} | {"face_low": faces.low, "face_high": faces.high}

    def readings(self) -> pd.DataFrame:
        read = pd.read_csv(self.folder / "judged.csv", keep_default_na=False)[["perceived", "abstained"]]
        seeds = self.sampling["seed"] + np.arange(len(read))
        return pd.DataFrame({"ratio": self.row["ratio"], "alpha": self.alpha, "seed": seeds}).join(read)


def read_cells(sweep: Path, *, ratio: float, config: GalleryConfig) -> list[_Cell]:
    """The finished cells of one ratio and training seed, by alpha.

    Raises InputError when there are none, or when one was trained on anything but the face pool.
    """
    found = []
    for path in sorted((sweep / "cells").glob("*/row.json")):
        row = json.loads(path.read_text())
        if (row["indicator"], row["ratio"], row["seed"]) == (config.indicator, ratio, config.training_seed):
            found.append(_Cell(folder=path.parent, row=row))
    if not found:
        raise InputError(f"{sweep}: no finished cell of indicator {config.indicator!r}, ratio {ratio:g} and training seed "
                         f"{config.training_seed}. Finish the sweep, or name others.")
    for cell in found:
        if cell.row["faces"] != "pool":
            raise InputError(f"{cell.folder}: trained on {cell.row['faces']!r}. Pictures and adapters that are kept come "
                             "from the face pool alone: give a sweep over data/faces.")
    return sorted(found, key=lambda cell: cell.alpha)


def make_gallery(sweep: Path, *, config: GalleryConfig, out: Path, overwrite: bool = False) -> Gallery:
    """Write the gallery of a sweep to `out`, at once or not at all.

    Raises InputError when `out` exists and `overwrite` is off, a cell is missing or was not trained on the pool, cells were
    sampled in different ways, or the whole would be larger than `MOST_BYTES`.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists. Give another --out, or --overwrite.")
    cells = {ratio: read_cells(sweep, ratio=ratio, config=config) for ratio in config.ratios}
    every = [cell for group in cells.values() for cell in group]
    sampling = _common_sampling(every)
    first_seed, preset = sampling.pop("seed"), get_preset(every[0].row["preset"])
    seeds = list(range(first_seed, first_seed + config.seeds))
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        adapters = _write_adapters(cells[config.ratios[0]], work)
        drawn = {ratio: {cell.alpha: cell.pictures(config.seeds) for cell in group} for ratio, group in cells.items()}
        how = SampleConfig.of(preset, **sampling, precision="fp32")
        drawn[config.ratios[0]] |= _drawn_between(adapters, work, seeds=seeds, between=config.between, sampling=how,
                                                  preset=preset)
        columns = {ratio: _write_sprite(pictures, work / _sprite_name(ratio)) for ratio, pictures in drawn.items()}
        _write_tables(every, work)
        size = drawn[config.ratios[0]][0.0 if 0.0 in adapters else min(adapters)].shape[1]
        record = {"command": "python -m debiaslib.gallery " + shlex.join(sys.argv[1:]), "indicator": config.indicator,
                  "config": asdict(config), "seeds": seeds, "size": size, "sampling": sampling, "columns": columns,
                  "adapter_ratio": config.ratios[0], "adapters": adapters}
        (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _check_size(work)
        write_manifest(work)
        publish(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return load_gallery(out)


def _common_sampling(cells: Sequence[_Cell]) -> dict:
    first = cells[0].sampling
    for cell in cells:
        if cell.sampling != first:
            raise InputError(f"{cell.folder}: drawn in another way than {cells[0].folder}, so the same seed is not the same "
                             "noise. Give cells of one sweep.")
    return first


def _write_adapters(cells: Sequence[_Cell], work: Path) -> dict[float, str]:
    """Each cell's adapter in half precision, with the settings that its file carries; names by alpha."""
    names = {}
    for cell in cells:
        source, name = cell.folder / ADAPTER_FILE, f"adapters/alpha{cell.alpha:g}"
        (work / name).mkdir(parents=True)
        with safe_open(source, "pt") as file:
            carried = file.metadata()
        half = {key: weight.to(torch.float16).contiguous() for key, weight in load_file(source).items()}
        save_file(half, work / name / ADAPTER_FILE, metadata=carried)
        names[cell.alpha] = name
    return names


def _drawn_between(adapters: Mapping[float, str], work: Path, *, seeds: Sequence[int], between: int, sampling: SampleConfig,
                   preset: Preset) -> dict[float, np.ndarray]:
    """Pictures uint8 (seeds, H, W, 3) at `between` alphas between each two trained ones."""
    known, steps = sorted(adapters), np.arange(1, between + 1) / (between + 1)
    wanted = [round(low + float(step) * (high - low), 4) for low, high in pairwise(known) for step in steps]
    if not wanted:
        return {}
    switch = AlphaSwitch(load_pipeline(preset), {alpha: work / name for alpha, name in adapters.items()})
    grid = same_seed_grid(switch, alphas=wanted, seeds=seeds, config=sampling)
    return dict(zip(wanted, grid, strict=True))


def _write_sprite(pictures: Mapping[float, np.ndarray], path: Path) -> list[float]:
    """A row a seed, a column an alpha, lossless; returns the alphas."""
    alphas = sorted(pictures)
    grid = np.stack([pictures[alpha] for alpha in alphas], axis=1)  # (seeds, alphas, H, W, 3)
    rows, columns, side = grid.shape[:3]
    sheet = grid.swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    Image.fromarray(np.ascontiguousarray(sheet)).save(path, format="WEBP", lossless=True, method=6)
    return alphas


def _write_tables(cells: Sequence[_Cell], work: Path) -> None:
    pd.DataFrame([cell.figures() for cell in cells]).to_csv(work / SHARES, index=False, float_format="%.6g")
    pd.concat([cell.readings() for cell in cells]).to_csv(work / READINGS, index=False, float_format="%.6g")


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise InputError(f"the gallery would take {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}. "
                         "Give fewer ratios or --seeds.")


def _sprite_name(ratio: float) -> str:
    return f"faces-ratio{ratio:g}.webp"


def main(arguments: list[str] | None = None) -> int:
    """Make a gallery of a sweep."""
    default = GalleryConfig(indicator="")
    parser = argparse.ArgumentParser(prog="python -m debiaslib.gallery", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True, metavar="DIR", help="a finished sweep over the face pool")
    parser.add_argument("--indicator", required=True, help="whose cells")
    parser.add_argument("--ratio", type=float, nargs="+", default=default.ratios,
                        help="male:female; the adapters of the first one ship; default .25 4")
    parser.add_argument("--training-seed", type=int, default=default.training_seed, help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=default.seeds, help="faces an alpha; default %(default)s")
    parser.add_argument("--between", type=int, default=default.between,
                        help="alphas interpolated between two trained ones; default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"the kit's own is data/{FOLDER}")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    args = parser.parse_args(arguments)
    config = GalleryConfig(indicator=args.indicator, ratios=tuple(args.ratio), training_seed=args.training_seed,
                           seeds=args.seeds, between=args.between)
    gallery = make_gallery(args.sweep, config=config, out=args.out, overwrite=args.overwrite)
    told = "; ".join(f"ratio {ratio:g}: alpha {', '.join(f'{alpha:g}' for alpha in gallery.alphas(ratio))}"
                     for ratio in gallery.ratios)
    print(f"{args.out}: {len(gallery.seeds)} seeds; {told}; adapters of ratio {gallery.adapter_ratio:g}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("gallery", main))

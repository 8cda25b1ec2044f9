"""The runs that must fail if a claim of debiasing is to stand: `python -m debiaslib.controls SWEEP`.

Beside the indicators `random` and `none`, which a sweep runs itself, `claims` asks for four ways of looking fair without being
fairer, each made from a finished sweep's trainings at alpha 0 and measured with the sweep's own instruments:

    base                    the model before any fine-tuning
    scale .3                the alpha-0 adapter turned down
    quarter of the steps    the alpha-0 training broken off
    noise-damaged           the alpha-0 pictures under Gaussian noise

A killed run continues. Rows go to `SWEEP/controls.csv`, pictures to `SWEEP/controls`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from debiaslib import sweep
from debiaslib.__main__ import guarded
from debiaslib.atomic import read_record, replacing
from debiaslib.errors import InputError
from debiaslib.finetune import ADAPTER_FILE, RECORD_FILE, FinetuneConfig, encode_prompts, finetune, fit_loss, write_json
from debiaslib.generate import SampleConfig, generate, load_adapter
from debiaslib.presets import Preset, get_preset, one_thread, sha256

MADE = ("base", "scale .3", "quarter of the steps", "noise-damaged")
SCALE, PART, NOISE = 0.3, 4, 16.0
"""The adapter's part that is left; the steps' divisor; the noise's standard deviation in grey levels of 255. At 16 a third of
the faces are lost, and from 20 % men the share that is read reaches one half; at 40 no face is left to be read."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control beside the alpha-0 run `start` of a sweep."""

    name: str
    ratio: float
    seed: int
    start: Path

    @property
    def folder(self) -> str:
        """Its place in `SWEEP/controls`. The base has no training, so it is drawn once, from the sampling seeds of training seed 0."""
        slug = self.name.replace(" ", "-")
        return slug if self.name == "base" else f"{slug}-ratio{self.ratio:g}-seed{self.seed}"


def make_controls(out: Path, *, preset: Preset | None = None, ratios: Sequence[float] | None = None,
                  seeds: Sequence[int] | None = None, only: Sequence[str] = MADE, progress: bool = True) -> pd.DataFrame:
    """Draw and measure the controls of the sweep in `out`, by default all beside every training; returns all rows there are.

    `preset` is by default the one that the sweep names. Columns: those of `cells.csv` and `control`. Raises InputError where
    `out` holds no sweep, or none of the trainings asked for is done at alpha 0.
    """
    named, config = read_sweep(out)
    if unknown := sorted({*only} - {*MADE}):
        raise InputError(f"control {unknown[0]!r}: no such control. Choose among {', '.join(MADE)}.")
    preset, todo = preset or get_preset(named), controls(out, ratios=ratios, seeds=seeds, only=only)
    if not todo:
        there = sorted({(control.ratio, control.seed) for control in controls(out)})
        if there:
            told = ", ".join(f"ratio {ratio:g} seed {seed}" for ratio, seed in there)
            raise InputError(f"{out}: no finished run at alpha 0 of these --ratios and --seeds. There is {told}.")
        raise InputError(f"{out}: no finished run at alpha 0, and the controls are made from those. Run the sweep with "
                         "--alphas 0.")
    for control in tqdm(todo, desc="controls", disable=not progress):
        row = out / "controls" / control.folder / f"row-ratio{control.ratio:g}-seed{control.seed}.json"
        if not row.exists():
            with one_thread():
                write_json(row, _row(preset, config, control, row.parent))
        table = _write_table(out)
    return table


def _write_table(out: Path) -> pd.DataFrame:
    rows = [json.loads(path.read_text()) for path in (out / "controls").glob("*/row-*.json")]
    rows.sort(key=lambda row: (row["ratio"], row["seed"], MADE.index(row["control"])))
    table = pd.DataFrame(rows, columns=["control", *sweep.COLUMNS, *sweep.MORE])
    with replacing(out / "controls.csv") as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    return table


def read_sweep(out: Path) -> tuple[str, sweep.SweepConfig]:
    """The preset's name and the grid of the sweep in `out`. Raises InputError where there is none."""
    try:
        settings = json.loads((out / "sweep.json").read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{out}: no sweep.json ({error}). Give the folder that `debiaslib sweep` wrote.") from None
    known = {field.name: settings[field.name] for field in fields(sweep.SweepConfig) if field.name in settings}
    config = sweep.SweepConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
    return settings["preset"], sweep.from_the_kit(config)


def controls(out: Path, *, ratios: Sequence[float] | None = None, seeds: Sequence[int] | None = None,
             only: Sequence[str] = MADE) -> list[Control]:
    """The controls of a sweep, those of one training side by side."""
    starts = {(row["ratio"], row["seed"]): folder for folder, row in sweep.finished(out).items() if row["alpha"] == 0
              and (ratios is None or row["ratio"] in ratios) and (seeds is None or row["seed"] in seeds)}
    return [Control(name=name, ratio=ratio, seed=seed, start=folder)
            for (ratio, seed), folder in sorted(starts.items()) for name in MADE if name in only]


def _row(preset: Preset, config: sweep.SweepConfig, control: Control, folder: Path) -> dict:
    """The control's row. The base is drawn and measured once; how well it fits is measured for each training set."""
    start, figures = json.loads((control.start / "row.json").read_text()), folder / "figures.json"
    with _model(preset, config, control, folder) as (pipe, model):
        fit = start["fit_loss"] if control.name == "noise-damaged" else _fit(pipe, preset, config, control)
        if control.name == "noise-damaged":
            damage(control.start / "samples", folder / "samples")
        elif not figures.exists():
            sampling = SampleConfig.of(preset, steps=config.sample_steps, guidance=config.guidance,
                                       seed=config.sample_seed if control.name == "base" else _sampling_seed(control.start))
            generate(pipe, n=config.n, config=sampling, out=folder / "samples", model=model)
    if not figures.exists():
        measured = sweep.figures_of(folder, preset, sweep.instruments(preset, config))
        write_json(figures, {name: measured[name] for name in (*sweep.COLUMNS, *sweep.MORE) if name in measured})
    steps = {"base": 0, "quarter of the steps": start["train_steps"] // PART}.get(control.name, start["train_steps"])
    return {"control": control.name, "indicator": "none", "ratio": control.ratio, "alpha": 0.0, "seed": control.seed,
            **json.loads(figures.read_text()), **sweep.settings_of(preset, config), "train_steps": steps, "fit_loss": fit}


def _sampling_seed(start: Path) -> int:
    """The first sampling seed of the run that a control stands beside."""
    return read_record(start / sweep.SAMPLES / "generate.json")["settings"]["seed"]


@contextmanager
def _model(preset: Preset, config: sweep.SweepConfig, control: Control, folder: Path) -> Iterator[tuple]:
    """The pipeline as the control wants it, and a hash of what was put on it; as it was afterwards."""
    pipe, adapter = sweep.base_pipeline(preset), control.start
    if control.name == "quarter of the steps":
        adapter = folder
        if not (folder / RECORD_FILE).exists():
            steps = FinetuneConfig.of(preset, steps=config.train_steps).steps // PART
            training = FinetuneConfig.of(preset, indicator="none", seed=control.seed, steps=steps)
            finetune(pipe, _training_set(preset, config, control), config=training, out=folder, told={"preset": preset.name}, progress=False)
    if control.name == "base":
        yield pipe, ""
        return
    load_adapter(pipe, adapter)
    if control.name == "scale .3":
        pipe.set_adapters(pipe.get_active_adapters(), adapter_weights=SCALE)
    try:
        yield pipe, f"{sha256(adapter / ADAPTER_FILE)} {control.name}"
    finally:
        pipe.unload_lora_weights()


def _training_set(preset: Preset, config: sweep.SweepConfig, control: Control):
    return sweep.training_set(preset, replace(config, indicators=("none",)), control.ratio, control.seed)


def _fit(pipe, preset: Preset, config: sweep.SweepConfig, control: Control) -> float:
    data = _training_set(preset, config, control)
    return round(fit_loss(pipe.unet, data, encode_prompts(pipe, preset.prompt)[:1], pipe.scheduler), 5)


def damage(samples: Path, out: Path) -> None:
    """The pictures of an ImageFolder under Gaussian noise of `NOISE` grey levels, the same names; what is there is kept."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted((samples / "images").glob("*.png"))):
        if not (out / "images" / path.name).exists():
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            noise = np.random.default_rng(number).normal(scale=NOISE, size=pixels.shape)
            pixels = np.clip(pixels + noise, 0, 255).round().astype(np.uint8)
            with replacing(out / "images" / path.name) as partial:
                Image.fromarray(pixels).save(partial, format="PNG")
    with replacing(out / "metadata.csv") as partial:
        partial.write_bytes((samples / "metadata.csv").read_bytes())


def main(arguments: list[str] | None = None) -> int:
    """Make a sweep's controls."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.controls", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    parser.add_argument("--ratios", type=float, nargs="+", default=None, help="beside trainings of these; default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="beside trainings of these; default all")
    parser.add_argument("--only", nargs="+", default=MADE, choices=MADE, metavar="CONTROL",
                        help="these alone; a claim asks for all beside three trainings or more, and for `base` beside each. One or more of "
                             + ", ".join(f'"{name}"' for name in MADE))
    args = parser.parse_args(arguments)
    table = make_controls(args.sweep, ratios=args.ratios, seeds=args.seeds, only=args.only, progress=sys.stderr.isatty())
    shown = table[["control", "ratio", "seed", "face_rate", "male_share", "fd", "fd_corrected", "fit_loss"]]
    print(shown.to_string(index=False, float_format="%.3f"))
    print(f"\n{args.sweep / 'controls.csv'}: give it to `python -m debiaslib.report {args.sweep} --controls`.")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("controls", main))

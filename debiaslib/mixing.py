"""Between two trainings: one adapter, mixed of both, that draws as evenly as a reading without labels can tell.

`recalibrated` trains twice. The first training misses even; the second aims past it by twice as much (as far as training faces and
reference surely differ), so that even lies between the two. Where, the pictures of both say: two unnamed groups
(`rarity.find_components`) are counted in them, and a balanced reference says what even is. A mix does not draw quite what lies between the two, so its own pictures are counted as well, and it is
mixed anew. The mix of two low-rank adapters is one of twice the rank, exactly, and plain diffusers loads it.
"""

import argparse
import shlex
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file

from debiaslib import rarity
from debiaslib.atomic import read_record
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.finetune import (
    ADAPTER_FILE,
    RECORD_FILE,
    FinetuneConfig,
    TrainingSet,
    add_adapter,
    check_first,
    encode_prompts,
    ended,
    fit_loss,
    load_drawn,
    load_set,
    save_adapter,
    take_off,
)
from debiaslib.indicators import Evidence, needs_of
from debiaslib.presets import get_preset, load_pipeline, sha256


@dataclass(frozen=True)
class Readings:
    """The share of one of two unnamed groups in the pictures of either training, the share that is `even`, and the `part` of the second
    training that belongs in the mix. Where a mix was looked at, its part (`tried`) and the share in its pictures (`seen`)."""

    first: float
    second: float
    even: float
    part: float
    tried: float | None = None
    seen: float | None = None


def read_part(evidence: Evidence, again: np.ndarray, *, tried: tuple[float, np.ndarray] | None = None) -> Readings:
    """Where between two trainings even lies. `evidence.drawn` are embeddings of the first one's pictures, `again` of the second's,
    and `tried` the part of a mix and embeddings of its pictures.

    Of the two groups it speaks of the one that the training faces have less of.
    """
    training, reference = evidence.decoded
    found = rarity.find_components(training, reference, more=evidence.more)
    rare = int(found.proportions(training).argmin())
    first, second = (float(found.proportions(part)[rare]) for part in (evidence.drawn, again))
    even = float(rarity.even_shares(found.proportions(reference), count=len(reference))[rare])
    mix = None if tried is None else (tried[0], float(found.proportions(tried[1])[rare]))
    return Readings(first, second, even, rarity.mixing_part(first, second, even=even, tried=mix), *(mix or ()))


def mix_adapters(pipe: StableDiffusionPipeline, data: TrainingSet, *, first: Path, second: Path, part: float, out: Path,
                 notes: dict | None = None) -> dict:
    """Write to `out` (1 - part) of the adapter in `first` with `part` of the one in `second`, and its record, which it returns.

    W + s ((1 - part) B1 A1 + part B2 A2) is one adapter of twice the rank, for A side by side times B side by side is the sum of both
    products. (peft's `add_weighted_adapter` does so too, to models that it has wrapped; diffusers' are not.) The record is that of
    the second training with the fit of the mix, the seconds of both, whose adapters were `mixed`, and `notes`. Raises InputError
    where the two have different shapes.
    """
    before, record = (read_record(folder / RECORD_FILE) for folder in (first, second))
    ours = trained_as(record)
    one, other = (load_file(folder / ADAPTER_FILE) for folder in (first, second))
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        raise InputError(f"{first}: its adapter has another shape than that in {second}. Train both with the same --preset.")
    both = {name.removeprefix("unet."): torch.cat([one[name], other[name]]) if ".lora_A." in name else
            torch.cat([(1 - part) * one[name], part * other[name]], 1) for name in one}
    unet = add_adapter(pipe.unet, replace(ours, lora_rank=2 * ours.lora_rank, lora_alpha=2 * ours.lora_alpha))
    try:
        set_peft_model_state_dict(unet, both)
        prompt = encode_prompts(pipe, ours.prompt)[:1].to(unet.device)
        fit = fit_loss(unet, data, prompt, pipe.scheduler, precision=ours.precision)
        record |= {"fit_loss": round(fit, 5), "train_s": round(before["train_s"] + record["train_s"], 2), "part": round(part, 4),
                   "mixed": sources(first, second)}
        for name in ("adapter_sha256", "command"):  # of the second training
            record.pop(name, None)
        save_adapter(unet, out, record | (notes or {}))
    finally:
        take_off(unet)
    return record | (notes or {})


def sources(*folders: Path) -> list[str]:
    """The hashes of the adapters in these folders."""
    return [sha256(folder / ADAPTER_FILE) for folder in folders]


def trained_as(record: dict) -> FinetuneConfig:
    """The settings of a training, from its record."""
    return FinetuneConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in record["config"].items()})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib mix`."""
    parser.add_argument("second", type=Path, metavar="DIR",
                        help="the folder of a training by `recalibrated`, with pictures that `generate --model DIR -n 400 --seed 2000000 "
                             "--out DIR/samples` drew with it; the first training is the one that it was given")
    parser.add_argument("--tried", type=Path, metavar="DIR",
                        help="an earlier mix of the same two, with pictures that `generate --model DIR -n 800 --seed 3000000 --out "
                             "DIR/samples` drew with it: what they miss even by is taken off in this mix")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where adapter and run.json go")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")


def run(args: argparse.Namespace) -> int:
    """`debiaslib mix`."""
    record = ended(args.second) or {}
    given = dict(record.get("subset", {}))
    if "first" not in given or "part" in record:
        raise InputError(f"{args.second}: holds no training by `recalibrated`. Run `debiaslib train --indicator recalibrated --first DIR` "
                         "before this.")
    began, first, needs = time.perf_counter(), Path(given["first"]), needs_of(["recalibrated"])
    check_first(needs, first, given, config=trained_as(record))
    folders, preset = [folder for folder in (first, args.second, args.tried) if folder], get_preset(record["preset"])
    parts = [_part_of(folder, first, args.second) for folder in folders[2:]]
    if _mixed_already(args.out, folders, overwrite=args.overwrite):
        print(f"{args.out}: mixed already of these; nothing to do (--overwrite mixes again).")
        return 0
    looked = [embed_faces(load_drawn(folder, image_size=preset.image_size)) for folder in folders[1:]]
    pipe = load_pipeline(preset)
    _, data = load_set(pipe, preset, given, needs=needs, config=trained_as(record), progress=sys.stderr.isatty())
    found = read_part(data.evidence, looked[0], tried=(parts[0], looked[1]) if parts else None)
    notes = {"readings": asdict(found), "mixed": sources(*folders), "command": "debiaslib " + shlex.join(sys.argv[1:])}
    mixed = mix_adapters(pipe, data, first=first, second=args.second, part=found.part, out=args.out, notes=notes)
    print(f"{args.out / ADAPTER_FILE}: {_told(found, *map(len, looked))}; so {found.part:.2f} of the second goes into the mix. "
          f"Fit {mixed['fit_loss']:.4f}; {time.perf_counter() - began:.0f} s")
    return 0


def _part_of(mix: Path, first: Path, second: Path) -> float:
    """The part of the second training in an earlier mix. Raises InputError where it is no mix of these two."""
    record = ended(mix) or {}
    if record.get("mixed", [])[:2] != sources(first, second):
        raise InputError(f"{mix}: holds no mix of {first} and {second}. Give --tried what `debiaslib mix {second} --out DIR` wrote.")
    return float(record["part"])


def _told(found: Readings, pictures: int, of_mix: int = 0) -> str:
    told = (f"of two unnamed groups the one that is rarer in training makes up {found.first:.3f} of the first training's pictures, "
            f"{found.second:.3f} of the second's ({pictures} of them: +-{0.5 / pictures ** 0.5:.3f} by counting), where {found.even:.3f} "
            "is even")
    return f"{told}; with {found.tried:.2f} of the second it made up {found.seen:.3f} of {of_mix}" if of_mix else told


def _mixed_already(out: Path, folders: list[Path], *, overwrite: bool) -> bool:
    """Whether `out` holds the mix of these; InputError if it holds something else, or is one of them."""
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise InputError(f"{out}: holds what goes into the mix. Give another --out.")
    found = None if overwrite else ended(out)
    if found is not None and found.get("mixed") != sources(*folders):
        raise InputError(f"{out}: holds another adapter. Give another --out, or --overwrite.")
    return found is not None

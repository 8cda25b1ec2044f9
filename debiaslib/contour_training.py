"""A small ControlNet for the tiny preset, trained on lines of faces, and how well it follows them.

`python -m debiaslib.contour_training --data ZIP --model data/models/tiny-sd --out data/models/tiny-contour --work DIR`
trains it; every stage checkpoints and resumes. The result is a plain diffusers `ControlNetModel` folder.
"""

import argparse
import copy
import hashlib
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from diffusers.training_utils import EMAModel, compute_snr
from scipy.stats import bootstrap
from tqdm.auto import tqdm

from debiaslib import checkpoints, fairness
from debiaslib.__main__ import guarded
from debiaslib.atomic import publish
from debiaslib.captions import random_caption
from debiaslib.contours import (
    FACE_LINES,
    Contour,
    as_drawing,
    canny_lines,
    chamfer_distance,
    draw_lines,
    edge_agreement,
    identity_spread,
    landmark_lines,
    scribble_lines,
    to_grey,
)
from debiaslib.descent import Shadow, descend, set_rate, training_attention
from debiaslib.errors import InputError
from debiaslib.faces import load_faces
from debiaslib.generate import ControlGuide, Guide, ImageGuide, SampleConfig, sample
from debiaslib.presets import get_preset, load_pipeline, quiet_loading, write_manifest
from debiaslib.pretrain import latents_of, learning_level, read_names

METHODS = ("prompt", "image-to-image", "controlnet")
"""What `compare_methods` sets side by side; "prompt" follows no lines: its agreement with them is chance."""


@dataclass(frozen=True, kw_only=True)
class ContourConfig:
    """Training of the ControlNet: its base's U-Net and text encoder stay as they are.

    `embedding` are the channels of the network that reads the lines: one halving between two of them, so three for an
    autoencoder that is 4x down (Stable Diffusion's has four for 8x). Timesteps are drawn as in T2I-Adapter (Mou et al.
    2024): t = (1 - u^3) T, since shape is settled while there is much noise. `landmarks` is the share of pictures that get
    face-mesh lines, where there are any; of the others `scribbles` are scribbled and the rest drawn by Canny.
    """

    embedding: tuple[int, ...] = (16, 16, 32)
    batch: int = 32
    steps: int = 3000
    learning_rate: float = 1e-3
    warmup: int = 50
    cooldown: float = 0.3
    snr_gamma: float = 5.0
    ema_decay: float = 0.998
    landmarks: float = 0.4
    scribbles: float = 0.4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LineSource:
    """What lines are drawn from: grey pictures uint8 (N, H, W), landmarks (N, 468, 2) in shares of the side, or None."""

    grey: np.ndarray
    landmarks: np.ndarray | None = None


def build_controlnet(pipe: StableDiffusionPipeline, config: ContourConfig) -> ControlNetModel:
    """A ControlNet that starts as a copy of the U-Net's encoder, behind zero convolutions: at first it is mute.

    The network that reads the lines starts at full strength (He et al. 2015) and not behind one more zero convolution, as
    diffusers has it: a zero before and a zero behind open each other slowly, and here there are a few thousand steps.
    """
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=config.embedding)
    for layer in controlnet.controlnet_cond_embedding.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.zeros_(layer.bias)
    return controlnet


def train_contour(pipe: StableDiffusionPipeline, pixels: np.ndarray, labels: pd.DataFrame, *, config: ContourConfig,
                  checkpoint: Path, landmarks: np.ndarray | None = None, progress: bool = True,
                  save_every: int = 200) -> ControlNetModel:
    """Train on lines of `pixels`, uint8 (N, H, W, 3), with captions from `labels`; continues from `checkpoint`.

    Returns the ControlNet with the averaged (EMA) weights. Raises InputError when `checkpoint` was begun on another base.
    """
    torch.manual_seed(config.seed)
    controlnet = build_controlnet(pipe, config).to(pipe.device, memory_format=torch.channels_last).train()
    pipe.unet.requires_grad_(False).to(memory_format=torch.channels_last)
    average = EMAModel(controlnet.parameters(), decay=config.ema_decay, min_decay=0.0, use_ema_warmup=True)
    adam = torch.optim.AdamW(controlnet.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    kept = {"modules": {"controlnet": controlnet, "average": Shadow(average)}, "optimizers": {"adam": adam}}
    base = base_hash(pipe)
    if checkpoint.exists() and checkpoints.notes(checkpoint)["base"] != base:
        raise InputError(f"{checkpoint}: was begun on another base model. Give another --work, or delete it.")
    start, notes = checkpoints.load(checkpoint, **kept)
    average.optimization_step, curve = start, notes.get("curve", [])
    latents = latents_of(pipe.vae, pixels, cache=checkpoint.with_name("latents.safetensors"), progress=progress)
    source, records = LineSource(grey=to_grey(pixels), landmarks=landmarks), labels.to_dict("records")
    running = curve[-1]["loss"] if curve else None
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="contour", disable=not progress)
    for step in bar:
        set_rate(adam, config.learning_rate * learning_level(step, config))
        loss = _step(pipe, controlnet, latents, source, records, adam, config, step)
        average.step(controlnet.parameters())
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if step % 50 == 0:
            curve.append({"step": step, "loss": round(running, 5)})
            bar.set_postfix(loss=f"{running:.4f}")
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            checkpoints.save(checkpoint, step=step + 1, **kept,
                             notes={"config": asdict(config), "curve": curve, "base": base})
    average.copy_to(controlnet.parameters())
    return controlnet.eval()


def base_hash(pipe: StableDiffusionPipeline) -> str:
    """A short hash of the U-Net's weights, which a ControlNet is made for."""
    digest = hashlib.sha256()
    for name, weight in sorted(pipe.unet.state_dict().items()):
        digest.update(name.encode() + weight.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _step(pipe, controlnet, latents, source, records, optimizer, config, step) -> float:
    """One update; faces, lines, captions, noise and timesteps depend on (seed, step) alone."""
    generator = checkpoints.step_generator(config.seed, step)
    index = torch.randint(latents.shape[1], (config.batch,), generator=generator)
    flips = torch.randint(2, (config.batch,), generator=generator)
    clean = latents[flips, index].to(pipe.device)
    noise = torch.randn(clean.shape, generator=generator).to(pipe.device)
    total = pipe.scheduler.config.num_train_timesteps
    late = 1 - torch.rand(config.batch, generator=generator) ** 3
    timesteps = (late * total).long().clamp(max=total - 1).to(pipe.device)
    chooser = random.Random(f"{config.seed}/{step}")
    tokens = pipe.tokenizer([random_caption(records[i], generator=chooser) for i in index.tolist()], padding="max_length",
                            max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids
    lines = random_lines(source, index.numpy(), config=config, generator=np.random.default_rng([config.seed, step]))
    lines[flips.numpy() == 1] = lines[flips.numpy() == 1][:, :, ::-1]
    predicted = predict(pipe, controlnet, pipe.scheduler.add_noise(clean, noise, timesteps), timesteps, tokens, lines)
    snr = compute_snr(pipe.scheduler, timesteps)
    loss = ((predicted.float() - noise).square().mean((1, 2, 3)) * (snr.clamp(max=config.snr_gamma) / snr)).mean()
    descend(optimizer, loss, controlnet)
    return float(loss.detach())


def predict(pipe: StableDiffusionPipeline, controlnet: ControlNetModel, noisy: torch.Tensor, timesteps: torch.Tensor,
            tokens: torch.Tensor, lines: np.ndarray) -> torch.Tensor:
    """The noise that U-Net and ControlNet see in latents (N, C, h, w), given token ids and lines, uint8 (N, H, W)."""
    device = pipe.device
    condition = torch.from_numpy(lines).to(device)[:, None].expand(-1, 3, -1, -1).float() / 255
    condition, noisy = (part.contiguous(memory_format=torch.channels_last) for part in (condition, noisy))
    with torch.autocast(device.type, torch.bfloat16), training_attention(controlnet, pipe.unet):
        with torch.no_grad():
            text = pipe.text_encoder(tokens.to(device))[0]
        down, middle = controlnet(noisy, timesteps, text, condition, return_dict=False)
        return pipe.unet(noisy, timesteps, text, down_block_additional_residuals=down,
                         mid_block_additional_residual=middle).sample


# Lines as people draw them ---------------------------------------------------------------------------------------------

def random_lines(source: LineSource, index: np.ndarray, *, config: ContourConfig,
                 generator: np.random.Generator) -> np.ndarray:
    """Lines uint8 (len(index), H, W) of the pictures at `index`: each drawn in a way of its own, then made less perfect."""
    return np.stack([vary_lines(_draw_one(source, at, config, generator), generator=generator) for at in index])


def _draw_one(source: LineSource, at: int, config: ContourConfig, generator: np.random.Generator) -> np.ndarray:
    grey = source.grey[at:at + 1]
    if source.landmarks is not None and generator.random() < config.landmarks:
        kept = [part for part in FACE_LINES if generator.random() < 0.9] or ["oval"]
        width = generator.uniform(0.7, 2)
        return landmark_lines(source.landmarks[at:at + 1], size=grey.shape[1], width=width, parts=kept)[0]
    if generator.random() < config.scribbles:
        sigma = generator.uniform(1, 2.5) * grey.shape[1] / 64
        return scribble_lines(grey, sigma=sigma, contrast=generator.uniform(0.15, 0.5))[0]
    return canny_lines(grey, keep=generator.uniform(0.04, 0.2), blur=generator.uniform(0.4, 1.2))[0]


def vary_lines(lines: np.ndarray, *, generator: np.random.Generator) -> np.ndarray:
    """One line drawing, uint8 (H, W), as an unsteady hand draws it: strokes missing, bent, thicker or thinner, soft."""
    if generator.random() < 0.4:
        lines = _drop_strokes(lines, generator.uniform(0, 0.5), generator)
    if generator.random() < 0.6:
        lines = _bend(lines, generator.uniform(0, 1.2) * len(lines) / 64, generator)
    if generator.random() < 0.35:
        lines = cv2.dilate(lines, np.ones((2, 2), np.uint8), iterations=int(generator.integers(1, 3)))
    if generator.random() < 0.3:
        lines = cv2.GaussianBlur(lines, (0, 0), generator.uniform(0.3, 0.7))
    return lines


def _drop_strokes(lines: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Without some of its connected strokes, and without what lies in one rectangle."""
    count, strokes = cv2.connectedComponents(lines)
    kept = np.where((generator.random(count) >= share)[strokes], lines, 0).astype(np.uint8)
    top, left = generator.integers(0, len(lines), 2)
    height, width = generator.integers(0, len(lines) // 2, 2)
    kept[top:top + height, left:left + width] = 0
    return kept


def _bend(lines: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Displaced smoothly by `most` pixels (the standard deviation at five by five points)."""
    side = len(lines)
    field = cv2.resize(generator.normal(0, most, (5, 5, 2)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    down, across = np.mgrid[:side, :side].astype(np.float32)
    return cv2.remap(lines, across + field[..., 0], down + field[..., 1], cv2.INTER_LINEAR)


# How well lines are followed -------------------------------------------------------------------------------------------

def compare_methods(pipe: StableDiffusionPipeline, controlnet: ControlNetModel, contours: Sequence[Contour], *, seeds: int,
                    config: SampleConfig, methods: Sequence[str] = METHODS, style: str = "canny", scale: float = 1.0,
                    strength: float = 0.98, judge=None, progress: bool = False) -> pd.DataFrame:
    """Pictures after each contour by each method, `seeds` of them (a count), measured and judged.

    Methods share a contour's seeds; contours do not share any (they go on from `config.seed`), or a share of men would rest
    on the few people that a few seeds draw. A picture's own lines are drawn in `style` and held against the contour's.
    Returns a row a picture: method, contour, seed, precision, recall, f1, chamfer (pixels of 64), the columns of `Judge.judge`,
    and spread, the `identity_spread` of that contour's pictures. `judge` is a `judges.Judge` (None: the usual one). `summarise` makes a row a method of it.
    """
    from debiaslib.judges import Judge, JudgeConfig  # late: DeepFace's environment is set there

    judge = judge or Judge(JudgeConfig(age=False))
    guides = {"prompt": lambda contour: None,
              "image-to-image": lambda contour: ImageGuide(contour=contour, strength=strength),
              "controlnet": lambda contour: ControlGuide(contour=contour, controlnet=controlnet, scale=scale)}
    if unknown := sorted(set(methods) - set(guides)):
        raise InputError(f"method {unknown[0]!r}: there is none of that name. Choose among {', '.join(guides)}.")
    parts = []
    for method in methods:
        for number, contour in enumerate(tqdm(contours, desc=method, disable=not progress, leave=False)):
            mine = replace(config, seed=config.seed + number * seeds)
            drawn = _draw(pipe, guides[method](contour), seeds, mine)
            read = judge.judge(drawn).assign(spread=identity_spread(drawn))
            parts.append(pd.DataFrame({"method": method, "contour": number, "seed": mine.seed + np.arange(seeds),
                                       **_agreement(drawn, contour, style)}).join(read))
    return pd.concat(parts, ignore_index=True)


def _draw(pipe: StableDiffusionPipeline, guide: Guide | None, n: int, config: SampleConfig) -> np.ndarray:
    return np.concatenate(list(sample(pipe, n=n, config=config, guide=guide)))


def _agreement(pixels: np.ndarray, contour: Contour, style: str) -> dict[str, list[float]]:
    lines = draw_lines(pixels, style=style)
    found = pd.DataFrame([edge_agreement(drawn, contour.lines) for drawn in lines])
    return {**found.to_dict("list"), "chamfer": [chamfer_distance(drawn, contour.lines) for drawn in lines]}


def summarise(rows: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """One row a method from the rows of `compare_methods`, with intervals at `level`.

    f1 and chamfer: the mean over contours, its percentile bootstrap over them. face_rate: of all pictures. male_share: of
    the decided ones, Wilson's interval at the effective number of pictures (Kish 1965: a contour's pictures are alike).
    fd: |male_share - .5|. spread: the mean over contours.
    """
    return pd.DataFrame([_summary(method, part, level, seed) for method, part in rows.groupby("method", sort=False)])


def _summary(method: str, rows: pd.DataFrame, level: float, seed: int) -> dict:
    out = {"method": method, "contours": rows["contour"].nunique(), "n": len(rows)}
    for name in ("f1", "chamfer"):
        means = rows.groupby("contour")[name].mean().to_numpy()
        out |= {name: means.mean(), f"{name}_low": np.nan, f"{name}_high": np.nan}
        if len(means) > 1 and means.std():
            found = bootstrap((means,), np.mean, n_resamples=2000, confidence_level=level, method="percentile",
                              rng=np.random.default_rng(seed)).confidence_interval
            out |= {f"{name}_low": found.low, f"{name}_high": found.high}
    out |= {"face_rate": rows["face"].mean(), "abstained": int((rows["abstained"] != "").sum())}
    return out | _share(rows, level) | {"spread": rows["spread"].mean()}


def _share(rows: pd.DataFrame, level: float) -> dict[str, float]:
    decided = rows[rows["abstained"] == ""]
    if decided.empty:
        return dict.fromkeys(("decided", "male_share", "share_low", "share_high", "fd"), np.nan) | {"decided": 0}
    men = decided["perceived"].eq("Man")
    share, groups = men.mean(), men.groupby(decided["contour"])
    size = len(decided) / groups.ngroups
    expected = share * (1 - share) / size  # variance of the contours' shares if their pictures were independent
    effect = max(1.0, min(size, groups.mean().var(ddof=0) / expected)) if expected and groups.ngroups > 1 else 1.0
    found = fairness.share_interval(share * len(decided) / effect, len(decided) / effect, level=level)
    return {"decided": len(decided), "male_share": share, "share_low": found.low, "share_high": found.high,
            "fd": abs(share - 0.5)}


# The command -----------------------------------------------------------------------------------------------------------

def read_landmarks(path: Path, *, rows: Sequence[int], side: int = 128) -> np.ndarray:
    """Landmarks float32 (len(rows), 468, 2) in shares of the side, from the .npz beside a face set (pixels of `side`)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            points = file["landmarks"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no landmarks can be read there ({error}). Train without, or give --landmarks.") from None
    if points.ndim != 3 or points.shape[1:] != (468, 2) or max(rows) >= len(points):
        raise InputError(f"{path}: landmarks of shape {points.shape}, but (faces, 468, 2) are wanted, in the rows' order.")
    return points[rows].astype(np.float32) / side


def save_controlnet(controlnet: ControlNetModel, out: Path, *, record: dict, card: str = "") -> None:
    """Write it to `out` in half precision with `training.json`, `README.md` and a manifest, in place of what was there."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet_loading():
        copy.deepcopy(controlnet).to(dtype=torch.float16, memory_format=torch.contiguous_format).save_pretrained(partial)
    (partial / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(card, encoding="utf-8")
    write_manifest(partial)
    publish(partial, out)


def examine(pipe: StableDiffusionPipeline, controlnet: ControlNetModel, drawings: dict[str, np.ndarray], *, seeds: int = 4,
            progress: bool = False) -> pd.DataFrame:
    """`summarise` for each kind of lines, uint8 (K, H, W) by name, under the preset's settings: the card's table."""
    config, tables = SampleConfig.of(get_preset("tiny")), []
    for kind, lines in drawings.items():
        contours = [Contour(lines=one, drawing=as_drawing(one), origin="drawing") for one in lines]
        rows = compare_methods(pipe, controlnet, contours, seeds=seeds, config=config, progress=progress)
        tables.append(summarise(rows).assign(lines=kind))
    return pd.concat(tables, ignore_index=True)


def write_card(figures: pd.DataFrame | None, *, steps: int, base: str, curve: Sequence[dict]) -> str:
    """The model card: what it is, what it was trained on, how well it follows lines, what it is not for."""
    rows = [] if figures is None else [
        f"| {row.lines} | {row.method} | {row.f1:.3f} [{row.f1_low:.3f}, {row.f1_high:.3f}] | {row.chamfer:.2f} "
        f"| {row.face_rate:.3f} | {row.male_share:.2f} [{row.share_low:.2f}, {row.share_high:.2f}] | {row.spread:.3f} "
        f"| {row.contours} x {row.n // row.contours} |" for row in figures.itertuples()]
    losses = [f"| {point['step']} | {point['loss']:.4f} |" for point in curve[::max(1, len(curve) // 8)]]
    table = "\n".join([FIGURES, *rows]) if rows else "Not measured: the face set has no `evaluate` rows."
    return CARD.format(steps=steps, base=base, losses="\n".join(losses), table=table)


FIGURES = """Lines of `evaluate` faces, which it was not trained on, half of them labelled male; "prompt" follows no lines,
so its agreement is chance. F1 of lines within 1.5 px and the chamfer distance in px, both of 64, against Canny's lines of
each output; 95 % intervals.

| lines | method | F1 | chamfer | face rate | perceived men | identity spread | contours x seeds |
|---|---|---|---|---|---|---|---|"""

CARD = """---
license: cc-by-4.0
library_name: diffusers
---
# tiny-contour: a ControlNet for tiny-sd

A plain diffusers `ControlNetModel` for 64 x 64 faces: white lines on black in, a face along these lines out. It belongs to
the U-Net `{base}`.

## Data and licence
Trained on lines of the `pretrain` faces of **FairFace** (Kärkkäinen and Joo, WACV 2021, CC BY 4.0): Canny's edges at random
thresholds, scribbles, and face-mesh landmarks joined by lines, with strokes left out, bent, thickened and softened at
random, so that a hand's drawing is in range. Weights: CC BY 4.0, with this attribution.

## Training
{steps} steps with `python -m debiaslib.contour_training`, the U-Net frozen. Settings and curve are in `training.json`.

| step | denoising loss (min-SNR weighted, running mean) |
|---|---|
{losses}

## Figures
{table}

## Limits
A line drawing says much about a face and nothing of a colour: what the lines leave open comes from the base model, its bias
included. Lines drawn from dark or blurred photographs are worse ones. For understanding and reducing bias; not for
identifying people, deciding about them, or deceiving anyone.
"""


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, write."""
    args = _parser().parse_args(arguments)
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists. Give another --out, or --overwrite ({args.work} is continued from).")
    pipe, config = load_pipeline(args.model), ContourConfig(steps=args.steps, batch=args.batch, seed=args.seed)
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    frame, pixels = load_faces(args.data, size=size)
    points = args.landmarks or args.data.with_name(f"{args.data.stem}_landmarks.npz")
    landmarks = read_landmarks(points, rows=range(len(frame))) if args.landmarks or points.exists() else None
    left_out = read_names(args.exclude) if args.exclude else []
    in_split = frame["split"].eq(args.split) if "split" in frame else True
    chosen = np.flatnonzero(in_split & ~frame["file_name"].isin(left_out))
    if not len(chosen):
        raise InputError(f"{args.data}: no row of split {args.split!r}. Give another --split.")
    checkpoint = args.work / "contour.safetensors"
    controlnet = train_contour(pipe, pixels[chosen], frame.iloc[chosen], config=config, checkpoint=checkpoint,
                               landmarks=None if landmarks is None else landmarks[chosen], progress=args.progress)
    figures = _figures(pipe, controlnet, frame, pixels, landmarks, contours=args.contours, progress=args.progress)
    measured = None if figures is None else json.loads(figures.to_json(orient="records"))
    record = checkpoints.notes(checkpoint) | {"faces": len(chosen), "landmarks": landmarks is not None, "figures": measured}
    save_controlnet(controlnet, args.out, record=record,
                    card=write_card(figures, steps=config.steps, base=record["base"], curve=record["curve"]))
    print(f"{args.out}: a ControlNetModel; try `debiaslib generate --sketch PNG --controlnet {args.out} --out faces`.")
    return 0


def _figures(pipe, controlnet, frame: pd.DataFrame, pixels: np.ndarray, landmarks: np.ndarray | None, *, contours: int,
             progress: bool) -> pd.DataFrame | None:
    """On `evaluate` faces, as many of each label; none where there are no such faces."""
    held = frame[frame["split"] == "evaluate"] if "split" in frame else frame[:0]
    chosen = held.groupby("gender").head(contours // 2).index.to_numpy()
    if not len(chosen):
        return None
    drawings = {"Canny": canny_lines(pixels[chosen])}
    if landmarks is not None:
        drawings["landmarks"] = landmark_lines(landmarks[chosen], size=pixels.shape[1])
    return examine(pipe, controlnet, drawings, progress=progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m debiaslib.contour_training", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR|ZIP", help="faces with labels in metadata.csv")
    parser.add_argument("--landmarks", type=Path, metavar="NPZ", help="default NAME_landmarks.npz beside NAME.zip, if any")
    parser.add_argument("--model", default="tiny", help="the pipeline it is made for; default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the ControlNet folder to write")
    parser.add_argument("--work", type=Path, default=Path("runs/contour"), metavar="DIR",
                        help="checkpoints; default %(default)s")
    parser.add_argument("--split", default="pretrain", help="rows to train on; default %(default)s")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="a text file of file names, one a line: not trained on")
    parser.add_argument("--steps", type=int, default=ContourConfig.steps, help="default %(default)s; more continues")
    parser.add_argument("--batch", type=int, default=ContourConfig.batch, help="default %(default)s")
    parser.add_argument("--contours", type=int, default=20, help="how many to measure on, 0 for none; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=sys.stderr.isatty(), help="show bars")
    return parser


if __name__ == "__main__":
    sys.exit(guarded("contour_training", main))

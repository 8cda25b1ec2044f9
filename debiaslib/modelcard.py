"""Measure the tiny model by judges that had no part in its training, and write its model card.

`python -m debiaslib.modelcard --faces ZIP` needs the labelled real faces; users without them read the card.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from debiaslib import fairness, judges, quality
from debiaslib.atomic import write_whole
from debiaslib.copies import copy_test, pixel_vectors
from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces
from debiaslib.faces import load_faces, natural_images
from debiaslib.generate import SampleConfig, sample
from debiaslib.presets import data_root, get_preset, load_pipeline, sha256, to_pixels, write_manifest

PROMPTS = ("a human face", "a woman's face", "a man's face")
GAN_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"


def gan_faces(n: int, *, seed: int = 0) -> np.ndarray:
    """Samples of the DCGAN that `gan-face-generate` carries (trained on DigiFace-1M's rendered faces), uint8 (n, 64, 64, 3).

    The package's torch file is opened by its hash and with `weights_only`. Raises InputError when it is missing or altered.
    """
    spec = importlib.util.find_spec("gan_face_generate")
    if spec is None:
        raise InputError("gan-face-generate is not installed. Get it with: pip install gan-face-generate.")
    from gan_face_generate.models import Generator
    weights = (Path(spec.origin).parent / "weights.tar").read_bytes()
    if hashlib.sha256(weights).hexdigest() != GAN_SHA256:
        raise InputError("gan-face-generate: not the weights that this kit knows. Install gan-face-generate 1.1.1 again.")
    network = Generator(0, 3, 100, 64).eval()
    network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu")["netG_state_dict"])
    noise = torch.randn(n, 100, 1, 1, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return np.concatenate([to_pixels(network(part)) for part in noise.split(100)])


def examine(pipe, confusion: pd.DataFrame, real: np.ndarray, training: np.ndarray, *, n: int = 400, steps: int = 25,
            guidance: float = 2.0, seed: int = 0, embedded: np.ndarray | None = None, pixels_only: bool = False,
            progress: bool = False) -> dict:
    """Every figure of the card. `confusion` is the judge's audit, `real` the faces never trained on, `training` those trained on.

    `embedded` may hold the training faces' embeddings, float32 (M, 128), computed before;
    `pixels_only` leaves that half of the copy test out, and the card says so.
    """
    judge = judges.Judge(judges.JudgeConfig(age=False))
    drawn = {prompt: draw(pipe, prompt, n=n, steps=steps, guidance=guidance, seed=seed) for prompt in PROMPTS}
    rows = {prompt: judge.judge(pixels) for prompt, pixels in drawn.items()}
    real_rows = judge.judge(real)
    reference = quality.extract(real)
    distances = {name: quality.kernel_distance(quality.extract(pixels).pool, reference.pool, subsets=20)
                 for name, pixels in (("tiny-sd", drawn[PROMPTS[0]]), ("gan-face-generate", gan_faces(n)))}
    copies = np.concatenate([drawn[PROMPTS[0]], draw(pipe, PROMPTS[0], n=1000 - n, steps=steps, guidance=guidance, seed=seed + n)])
    tests = {"pixels": copy_test(pixel_vectors(copies), pixel_vectors(real), pixel_vectors(training))}
    if not pixels_only:
        embedded = embed_faces(training, progress=progress) if embedded is None else embedded
        tests["embedding"] = copy_test(embed_faces(copies), embed_faces(real), embedded)
    return {"settings": {"n": n, "steps": steps, "guidance": guidance, "seed": seed}, "judge": judge.identity,
            "recall": recall_table(confusion), "face_rate_real": float(real_rows["face"].mean()),
            "face_rate_natural": float(judge.judge(natural_images(size=real.shape[1], count=200, seed=1))["face"].mean()),
            "prompts": {prompt: _reading(table) for prompt, table in rows.items()}, "kid": distances,
            "copies": tests}


def draw(pipe, prompt: str, *, n: int, steps: int, guidance: float, seed: int) -> np.ndarray:
    """uint8 (n, H, W, 3) pictures of one prompt."""
    config = SampleConfig(prompt=prompt, steps=steps, guidance=guidance, batch=50, seed=seed)
    return np.concatenate(list(sample(pipe, n=n, config=config)))


def recall_table(confusion: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Recall by condition and gender over all races, with Wilson intervals."""
    table = judges.recalls(confusion[confusion["race"] == "all"].drop(columns="judge"))
    return {condition: {row.gender: [round(row.recall, 4), round(row.low, 4), round(row.high, 4)] for row in part.itertuples()}
            for condition, part in table.groupby("condition", sort=False)}


def _reading(rows: pd.DataFrame) -> dict:
    counts = judges.summary(rows)
    decided = counts["read_man"] + counts["read_woman"]
    share = fairness.share_interval(counts["read_man"], decided)
    return counts | {"face_rate": float(rows["face"].mean()), "male_share": [share.estimate, share.low, share.high]}


def goals(figures: dict) -> list[tuple[str, str, str, bool]]:
    """(what, measured, goal, reached) for each figure the tiny model is held to."""
    photograph, rebuilt = figures["recall"]["photograph"], figures["recall"]["autoencoder"]
    lines = [(f"autoencoder's cost in the judge's recall, {name}", f"{photograph[sex][0] - rebuilt[sex][0]:+.3f}", "at most .02",
              photograph[sex][0] - rebuilt[sex][0] <= 0.02) for sex, name in (("Male", "men"), ("Female", "women"))]
    floor = 0.95 * figures["face_rate_real"]
    for prompt, reading in figures["prompts"].items():
        lines.append((f"face found, {prompt!r}", f"{reading['face_rate']:.3f}", f"at least {floor:.3f}", reading["face_rate"] >= floor))
    for prompt, sex, word in ((PROMPTS[1], "Female", "woman"), (PROMPTS[2], "Male", "man")):
        reading = figures["prompts"][prompt]
        share = reading["male_share"][0] if word == "man" else 1 - reading["male_share"][0]
        floor = 0.95 * photograph[sex][0]
        lines.append((f"{prompt!r} read as {word}", f"{share:.3f}", f"at least {floor:.3f}", share >= floor))
    kid = figures["kid"]
    lines.append(("KID to real faces (EfficientNet-Lite0) against a DCGAN's", f"{kid['tiny-sd']:.4f} / {kid['gan-face-generate']:.4f}",
                  "at most half", kid["tiny-sd"] <= kid["gan-face-generate"] / 2))
    for space, result in figures["copies"].items():
        lines.append((f"copy test, {space}, 1st percentile", f"{result['samples']:.3f}", f"at least {result['strangers']:.3f}", result["passes"]))
    if "embedding" not in figures["copies"]:
        lines.append(("copy test, face embedding", "not run yet", "not closer than strangers", False))
    return lines


def write_card(folder: Path, figures: dict, *, command: str) -> None:
    """Write `README.md` (the card) beside the weights and renew the manifest."""
    training = json.loads((folder / "training.json").read_text())
    curve = training["denoiser"]["curve"]
    steps = {name: part["config"]["steps"] for name, part in training.items() if "config" in part}
    neutral = figures["prompts"][PROMPTS[0]]["male_share"]
    rows = "\n".join(f"| {what} | {measured} | {goal} | {'yes' if reached else '**no**'} |" for what, measured, goal, reached in goals(figures))
    losses = "\n".join(f"| {point['step']} | {point['loss']:.4f} |" for point in curve[:: max(1, len(curve) // 8)])
    recall = "\n".join(f"| {condition} | {part['Male'][0]:.3f} [{part['Male'][1]:.3f}, {part['Male'][2]:.3f}] | "
                       f"{part['Female'][0]:.3f} [{part['Female'][1]:.3f}, {part['Female'][2]:.3f}] |" for condition, part in figures["recall"].items())
    (folder / "README.md").write_text(CARD.format(
        rows=rows, losses=losses, recall=recall, **steps, share=neutral[0], low=neutral[1],
        high=neutral[2], command=command, unet=sha256(folder / "unet/diffusion_pytorch_model.safetensors")[:16], **figures["settings"]), encoding="utf-8")
    write_manifest(folder)


CARD = """---
license: cc-by-4.0
library_name: diffusers
pipeline_tag: text-to-image
---
# tiny-sd: a Stable Diffusion small enough for two CPU cores

A plain diffusers `StableDiffusionPipeline` for 64 x 64 faces: `AutoencoderKL` (4x down, 4 channels), `UNet2DConditionModel` (64, 128),
`CLIPTextModel` and `CLIPTokenizer` with a vocabulary of their own, `DDIMScheduler` with Stable Diffusion v1.5's noise schedule. Epsilon prediction.
It stands in for Stable Diffusion v1.5 where no GPU is, behind the same calls.

## Data and licence
Trained on the `pretrain` split (13,860 aligned adult faces) of **FairFace** (Kärkkäinen and Joo, WACV 2021, CC BY 4.0), 52 % of them labelled male. Captions
name gender, age band and ethnicity as the data set labels them, each word left out at random half the time. Weights: CC BY 4.0, with this attribution.
FairFace holds some pictures twice: seven of the `pretrain` photographs have a near twin in `evaluate` (`data/fairface_twins.txt`). The autoencoder and the first
2,500 steps of the U-Net have seen them, the later steps have not.

## Training
`python -m debiaslib pretrain --data fairface_aligned_128px.zip --exclude data/fairface_twins.txt --out data/models/tiny-sd` does the same from the start. Here it was
continued several times: {autoencoder} steps of the autoencoder (batch 16; its cosine schedule was shortened twice on the way), {decoder} steps of its decoder
alone against a patch adversary (batch 16), {denoiser} steps of U-Net and text encoder (batch 64, min-SNR weights, EMA .999, the rate falling to nothing over the last
fifth). Curves are in `training.json`.

| step | denoising loss (min-SNR weighted, running mean) |
|---|---|
{losses}

## Figures
By judges that had no part in the training; {steps} steps, guidance {guidance}, {n} pictures a prompt, seed {seed}. U-Net `{unet}`. Made with `{command}`.

| what | measured | goal | reached |
|---|---|---|---|
{rows}

The judge's recall on real `evaluate` faces (900), and on the same faces made as soft as generated ones, 95 % Wilson intervals:

| condition | men read as men | women read as women |
|---|---|---|
{recall}

## Bias of the neutral prompt
"a human face" gives {share:.2f} perceived men [{low:.2f}, {high:.2f}] of the pictures the judge decided, from data with .52. Measured, not mended: it is the
course's first exhibit.

## Limits
Small, blurred at times, and trained on one data set's idea of faces and of words for people. Two gender words, a few ethnicity words: labels of strangers by
strangers. For understanding and reducing bias; not for identifying people, deciding about them, or deceiving anyone. It shows nobody.
"""


def _keep_confusion(confusion: pd.DataFrame, path: Path) -> None:
    """Put these counts in the place of older ones of the same judge and condition; others, `judge_audit`'s, stay."""
    if path.exists():
        old, new = pd.read_csv(path), set(zip(confusion["judge"], confusion["condition"], strict=True))
        stay = [pair not in new for pair in zip(old["judge"], old["condition"], strict=True)]
        confusion = pd.concat([old[stay], confusion], ignore_index=True)
    write_whole(path, confusion.to_csv(index=False).encode())


def main(arguments: list[str] | None = None) -> int:
    """Measure and write card, figures and the judge's confusion."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.modelcard", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled real faces with the splits pretrain and evaluate")
    parser.add_argument("--embedded", type=Path, default=None, metavar="NPY", help="embeddings of the pretrain faces, computed before")
    parser.add_argument("--pixels-only", action="store_true", help="leave the face-embedding half of the copy test out")
    parser.add_argument("-n", type=int, default=400, help="pictures a prompt; default %(default)s")
    args = parser.parse_args(arguments)
    preset = get_preset("tiny")
    folder, results = data_root() / preset.source, data_root() / "results"
    frame, real = load_faces(args.faces, split="evaluate", size=preset.image_size)
    _, training = load_faces(args.faces, split="pretrain", size=preset.image_size)
    embedded = None if args.embedded is None else np.load(args.embedded, allow_pickle=False)
    pipe = load_pipeline(preset)
    results.mkdir(parents=True, exist_ok=True)
    confusion = judges.audit(judges.Judge(judges.JudgeConfig(age=False)), frame, real, pipe, progress=sys.stderr.isatty())
    _keep_confusion(confusion, results / "judge_confusion.csv")
    figures = examine(pipe, confusion, real, training, n=args.n, embedded=embedded,
                      pixels_only=args.pixels_only, progress=sys.stderr.isatty())
    (results / "tiny_sd_figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_card(folder, figures, command=f"python -m debiaslib.modelcard --faces {args.faces.name} -n {args.n}" + " --pixels-only" * args.pixels_only)
    for what, measured, goal, reached in goals(figures):
        print(f"{'reached' if reached else 'MISSED ':8} {what}: {measured} ({goal})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

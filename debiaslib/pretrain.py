"""The tiny Stable Diffusion: autoencoder, then denoiser and text encoder, from labelled faces.

Every stage checkpoints and resumes. The result is a plain diffusers `StableDiffusionPipeline` folder.
"""

import argparse
import copy
import hashlib
import json
import os
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from safetensors import safe_open
from safetensors.torch import save as serialized
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from debiaslib import checkpoints
from debiaslib.atomic import read_record, write_whole
from debiaslib.autoencoder import AutoencoderConfig, SharpenConfig, sharpen_decoder, standardise_latents, train_autoencoder
from debiaslib.captions import byte_pairs, caption_words, random_caption
from debiaslib.descent import Shadow, descend, set_rate, training_attention
from debiaslib.errors import InputError
from debiaslib.faces import load_faces, read_metadata
from debiaslib.presets import encode_latents, fast_precision, sha256, write_manifest


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Training of the U-Net and text encoder: epsilon prediction, min-SNR weights (Hang et al. 2023), EMA.

    The learning rate stays level and falls to nothing over the last `cooldown` (a share of `steps`), so that a run that is
    continued with more steps has lost little (Hägele et al. 2024, "Scaling laws beyond fixed training durations").
    """

    channels: tuple[int, ...] = (64, 128)
    layers: int = 1
    head_width: int = 32
    text_width: int = 128
    text_layers: int = 2
    text_length: int = 32
    batch: int = 64
    steps: int = 8000
    learning_rate: float = 5e-4
    warmup: int = 200
    cooldown: float = 0.2
    snr_gamma: float = 5.0
    ema_decay: float = 0.999
    seed: int = 0


def build_tokenizer(config: DenoiserConfig) -> CLIPTokenizer:
    """A CLIP tokenizer with a vocabulary of its own: every word of the captions is one token, other words are spelt."""
    vocabulary, merges = byte_pairs(caption_words())
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=config.text_length)


def build_text_encoder(config: DenoiserConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIP text model: token ids (N, text_length) to hidden states (N, text_length, text_width)."""
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=2 * config.text_width,
        num_hidden_layers=config.text_layers, num_attention_heads=4, max_position_embeddings=config.text_length,
        projection_dim=config.text_width, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))


def build_unet(config: DenoiserConfig, *, latent_size: int = 16, latent_channels: int = 4) -> UNet2DConditionModel:
    """An untrained U-Net of Stable Diffusion's kind: plain convolutions at full size, cross-attention below it.

    Four groups a normalisation: in channels_last, CPU kernels take thirty times as long with fewer than 16 channels a group.
    """
    below = len(config.channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_size, in_channels=latent_channels, out_channels=latent_channels, layers_per_block=config.layers,
        block_out_channels=config.channels, down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * below,
        up_block_types=("CrossAttnUpBlock2D",) * below + ("UpBlock2D",), cross_attention_dim=config.text_width,
        attention_head_dim=[width // config.head_width for width in config.channels], norm_num_groups=4)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion v1.5's noise schedule, under DDIM whose first step is the noisiest that was trained.

    (Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed": "trailing" steps.)
    """
    return DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                         clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
                         timestep_spacing="trailing")


def train_denoiser(vae: AutoencoderKL, pixels: np.ndarray, labels: pd.DataFrame, *, config: DenoiserConfig, checkpoint: Path,
                   progress: bool = True, save_every: int = 100) -> StableDiffusionPipeline:
    """Train U-Net and text encoder on the latents of `pixels` with captions from `labels`; continues from `checkpoint`.

    Returns the pipeline with the averaged (EMA) weights.
    """
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(config)
    model = torch.nn.ModuleDict({"unet": build_unet(config, latent_channels=vae.config.latent_channels),
                                 "text_encoder": build_text_encoder(config, tokenizer)})
    model = model.to(vae.device, memory_format=torch.channels_last)
    average = EMAModel(model.parameters(), decay=config.ema_decay, min_decay=0.0, use_ema_warmup=False)
    shadow = Shadow(average)
    optimizers = {"adam": torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)}
    modules = {"model": model, "average": shadow}
    start, notes = checkpoints.load(checkpoint, modules=modules, optimizers=optimizers)
    average.optimization_step = start
    latents = latents_of(vae, pixels, cache=checkpoint.with_name("latents.safetensors"), progress=progress)
    records, scheduler, curve = labels.to_dict("records"), build_scheduler(), notes.get("curve", [])
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="denoiser", disable=not progress)
    running = None
    for step in bar:
        set_rate(optimizers["adam"], config.learning_rate * learning_level(step, config))
        loss = _denoiser_step(model, tokenizer, scheduler, latents, records, optimizers["adam"], config, step)
        average.step(model.parameters())
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if step % 50 == 0:
            curve.append({"step": step, "loss": round(running, 5)})
            bar.set_postfix(loss=f"{running:.4f}")
        if PartialState().is_main_process and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            checkpoints.save(checkpoint, step=step + 1, modules=modules, optimizers=optimizers,
                             notes={"config": asdict(config), "curve": curve})
    average.copy_to(model.parameters())
    return assemble_pipeline(vae, model["unet"], model["text_encoder"], tokenizer)


def learning_level(step: int, config: DenoiserConfig) -> float:
    """The share of the full learning rate at `step`, in (0, 1]: a warm-up, a level stretch, a fall to nothing."""
    falling = max(1.0, config.cooldown * config.steps)
    return min(1.0, (step + 1) / config.warmup, (config.steps - step) / falling)


def latents_of(vae: AutoencoderKL, pixels: np.ndarray, *, cache: Path, progress: bool) -> torch.Tensor:
    """Latents (2, N, C, h, w) of the faces and of their mirror images, kept in `cache` for the next resume."""
    key = hashlib.sha256(pixels.tobytes())
    for weight in vae.state_dict().values():
        key.update(weight.cpu().contiguous().numpy().tobytes())
    if cache.exists():
        with safe_open(cache, framework="pt") as file:
            if file.metadata()["key"] == key.hexdigest():
                return file.get_tensor("latents")
    vae = vae.to(memory_format=torch.contiguous_format)  # several times faster than channels_last with few channels a group
    both = [np.ascontiguousarray(part) for part in (pixels, pixels[:, :, ::-1])]
    with fast_precision(vae.device):
        latents = torch.stack([encode_latents(vae, part, progress=progress) for part in both]).contiguous()
    write_whole(cache, serialized({"latents": latents}, metadata={"key": key.hexdigest()}))
    return latents


def assemble_pipeline(vae, unet, text_encoder, tokenizer) -> StableDiffusionPipeline:
    """The parts as a plain `StableDiffusionPipeline`, in evaluation mode, without a safety checker (it has no weights here)."""
    return StableDiffusionPipeline(vae=vae.eval(), unet=unet.eval(), text_encoder=text_encoder.eval(), tokenizer=tokenizer,
                                   scheduler=build_scheduler(), safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)


def _denoiser_step(model, tokenizer, scheduler, latents, records, optimizer, config, step) -> float:
    """One update. The whole batch is drawn by (seed, step); under `accelerate launch` each process takes its part of it."""
    state = PartialState()
    generator = checkpoints.step_generator(config.seed, step)
    device = model["unet"].device
    index = torch.randint(latents.shape[1], (config.batch,), generator=generator)
    flips = torch.randint(2, (config.batch,), generator=generator)
    clean = latents[flips, index].to(device)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    timesteps = torch.randint(1000, (config.batch,), generator=generator).to(device)
    chooser = random.Random(f"{config.seed}/{step}")
    tokens = tokenizer([random_caption(records[i], generator=chooser) for i in index.tolist()], padding="max_length",
                       max_length=config.text_length, truncation=True, return_tensors="pt").input_ids.to(device)
    mine = slice(state.process_index, None, state.num_processes)
    clean, noise, timesteps, tokens = clean[mine], noise[mine], timesteps[mine], tokens[mine]
    noisy = scheduler.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16), training_attention(model["unet"]):
        context = model["text_encoder"](tokens)[0]
        predicted = model["unet"](noisy, timesteps, context).sample
    snr = compute_snr(scheduler, timesteps)
    weights = snr.clamp(max=config.snr_gamma) / snr
    loss = ((predicted.float() - noise).square().mean((1, 2, 3)) * weights).mean()
    descend(optimizer, loss, model)
    return float(loss.detach())


def pretrain(source: Path | str, *, out: Path, work: Path, split: str | None = "pretrain", exclude: Path | None = None,
             image_size: int = 64, autoencoder: AutoencoderConfig, decoder: SharpenConfig, denoiser: DenoiserConfig,
             progress: bool = True) -> StableDiffusionPipeline:
    """All stages on the faces of `source`, from and to checkpoints in `work`; writes the pipeline to `out` in half precision.

    `exclude` lists faces that are not trained on, see `read_names`. `out` also gets `training.json` (configurations, curves,
    what was excluded) and a manifest of hashes. Raises InputError for a listed name that is not among the faces.
    """
    left_out = read_names(exclude) if exclude else []
    frame, pixels = load_faces(source, split=split, size=image_size)
    if lacking := [name for name in ("gender", "age", "race") if name not in frame]:
        raise InputError(f"{source}/metadata.csv: no column `{lacking[0]}` among {', '.join(frame)}. Captions are made of gender, "
                         "age and race.")
    if strangers := sorted(set(left_out) - set(frame["file_name"])):
        raise InputError(f"{exclude}: {strangers[0]} is not among the {len(frame)} faces of {source} to train on. Mend the list.")
    kept = ~frame["file_name"].isin(left_out).to_numpy()
    frame, pixels = frame[kept].reset_index(drop=True), pixels[kept]
    _claim(work, pixels)
    vae = train_autoencoder(pixels, config=autoencoder, checkpoint=work / "autoencoder.safetensors", progress=progress)
    vae = standardise_latents(vae, pixels[:2000])
    vae = sharpen_decoder(vae, pixels, config=decoder, checkpoint=work / "decoder.safetensors", progress=progress)
    pipe = train_denoiser(vae, pixels, frame, config=denoiser, checkpoint=work / "denoiser.safetensors", progress=progress)
    curves = {name: checkpoints.notes(work / f"{name}.safetensors") for name in ("autoencoder", "decoder", "denoiser")}
    excluded = {"excluded": {"faces": int((~kept).sum()), "list_sha256": sha256(exclude)}} if exclude else {}
    save_pipeline(pipe, out, curves=curves | excluded)
    return pipe


def _claim(work: Path, pixels: np.ndarray) -> None:
    """Mark the checkpoints in `work` as made from these faces. Raises InputError if they were made from others."""
    mark, told = work / "faces.json", {"faces": len(pixels), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    if not mark.exists():
        write_whole(mark, (json.dumps(told) + "\n").encode())
    elif (found := read_record(mark)) != told:
        raise InputError(f"{work}: its checkpoints were made from {found['faces']} other faces, these are {told['faces']}. "
                         "Continue with the same --data, --split and --exclude, or give another --work.")


def read_names(path: Path) -> list[str]:
    """The file names in a text file, one a line; empty lines and what follows a # are skipped. Raises InputError if unreadable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Give a text file with one file name a line.") from None
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def save_pipeline(pipe: StableDiffusionPipeline, out: Path, *, curves: dict) -> None:
    """Write the pipeline in half precision with `training.json` and a manifest, replacing what was there at once."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy.deepcopy(pipe).to(dtype=torch.float16).save_pretrained(partial, safe_serialization=True)
    (partial / "training.json").write_text(json.dumps(curves, indent=1) + "\n")
    card = out / "README.md"
    if card.exists():
        shutil.copy(card, partial / card.name)
    write_manifest(partial)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib pretrain`."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR|ZIP", help="faces with gender, age, race in metadata.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pipeline folder to write")
    parser.add_argument("--split", default="pretrain", help="rows of this split only, if there is such a column; default pretrain")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="a text file of file names, one a line: faces not to train on")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), metavar="DIR", help="checkpoints; default runs/pretrain")
    parser.add_argument("--autoencoder-steps", type=int, default=AutoencoderConfig.steps, help="default %(default)s")
    parser.add_argument("--decoder-steps", type=int, default=SharpenConfig.steps, help="of the decoder alone; default %(default)s")
    parser.add_argument("--denoiser-steps", type=int, default=DenoiserConfig.steps, help="default %(default)s; more continues")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")


def run(args: argparse.Namespace) -> int:
    """`debiaslib pretrain`."""
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists. Give another --out, or --overwrite (checkpoints in {args.work} are kept and continued).")
    split = args.split if "split" in read_metadata(args.data) else None
    pretrain(args.data, out=args.out, work=args.work, split=split, exclude=args.exclude, progress=sys.stderr.isatty(),
             autoencoder=AutoencoderConfig(steps=args.autoencoder_steps, adversary_from=args.autoencoder_steps // 2, seed=args.seed),
             decoder=SharpenConfig(steps=args.decoder_steps, seed=args.seed + 1),
             denoiser=DenoiserConfig(steps=args.denoiser_steps, seed=args.seed))
    print(f"{args.out}: a StableDiffusionPipeline; try `debiaslib generate --model {args.out} --out faces`.")
    return 0

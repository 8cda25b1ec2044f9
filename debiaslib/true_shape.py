"""Stable Diffusion v1.5 at its true shape with random weights: every code path of the preset `sd15`, without its 4 GB.

The published configurations are written out below. What is made of them is a plain diffusers pipeline that trains, saves,
loads and draws like the real one, and draws noise. CLIP's published vocabulary is not part of this package; a vocabulary
of our own stands in for it, of the same size, length (77) and special tokens, which spells any text.

`python -m debiaslib.true_shape --out DIR` writes one; `--memory` counts what training and drawing need on a card, `--budget
FILE` writes a table of it, and of the arithmetic, for several sizes of picture.
"""

import argparse
import json
import shutil
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from debiaslib.atomic import publish, replacing, write_whole
from debiaslib.captions import byte_pairs, caption_words
from debiaslib.errors import InputError
from debiaslib.finetune import FinetuneConfig, add_adapter, frozen_factors
from debiaslib.presets import PRESETS, Preset, encoded_at_once, fast_precision, quiet_loading

BUDGET_SIZES = (256, 384, 512, 768)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CARD = "Random weights in the shape of Stable Diffusion v1.5, made by `python -m debiaslib.true_shape`. It draws noise.\n"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The configurations of a Stable Diffusion pipeline's parts."""

    unet: dict
    vae: dict
    text_encoder: dict
    scheduler: dict


PUBLISHED = Shape(
    unet=dict(
        sample_size=64, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
        act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8),
    vae=dict(
        sample_size=512, in_channels=3, out_channels=3, latent_channels=4, layers_per_block=2, norm_num_groups=32,
        act_fn="silu", down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), scaling_factor=0.18215),
    text_encoder=dict(
        vocab_size=49408, max_position_embeddings=77, hidden_size=768, intermediate_size=3072, projection_dim=768,
        num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0,
        initializer_range=0.02, initializer_factor=1.0, bos_token_id=0, eos_token_id=2, pad_token_id=1),
    scheduler=dict(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon"))
"""As published with `stable-diffusion-v1-5/stable-diffusion-v1-5`."""

NARROW = replace(
    PUBLISHED,
    unet=PUBLISHED.unet | dict(block_out_channels=(32, 64, 128, 128), cross_attention_dim=96),
    vae=PUBLISHED.vae | dict(block_out_channels=(32, 64, 128, 128)),
    text_encoder=PUBLISHED.text_encoder | dict(hidden_size=96, intermediate_size=384, projection_dim=96))
"""The same blocks, a tenth as wide: what quick tests run."""


def build_parts(shape: Shape = PUBLISHED, *, image_size: int = 512) -> dict[str, torch.nn.Module]:
    """The three networks, untrained, for pictures of `image_size` px, a multiple of 64 (or InputError).

    Their weights are on the device, and of the kind, that is current (`torch.device("meta")`, `FakeTensorMode`).
    """
    if image_size < 64 or image_size % 64:
        raise InputError(f"image size {image_size}: the U-Net halves its latents thrice; give a multiple of 64.")
    return {"unet": UNet2DConditionModel(**shape.unet | {"sample_size": image_size // 8}),
            "vae": AutoencoderKL(**shape.vae | {"sample_size": image_size}),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**shape.text_encoder))}


def build_tokenizer(shape: Shape = PUBLISHED) -> CLIPTokenizer:
    """A stand-in for CLIP's: as many tokens, the special ones last, but another vocabulary, most of it unused."""
    pairs, merges = byte_pairs(caption_words())
    start, stop, *spelt = pairs
    size = shape.text_encoder["vocab_size"] - 2
    tokens = [*spelt, *(f"<unused {index}>" for index in range(len(spelt), size)), start, stop]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=merges,
                         model_max_length=shape.text_encoder["max_position_embeddings"])


def build_pipeline(shape: Shape = PUBLISHED, *, image_size: int = 512, seed: int = 0) -> StableDiffusionPipeline:
    """The whole pipeline in fp32, its weights random but for `seed`: 4.3 GB as published, 60 MB narrow."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = build_parts(shape, image_size=image_size)
    pipe = StableDiffusionPipeline(**{name: part.eval() for name, part in parts.items()}, tokenizer=build_tokenizer(shape),
                                   scheduler=PNDMScheduler(**shape.scheduler), safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_pipeline(out: Path, *, shape: Shape = PUBLISHED, image_size: int = 512, seed: int = 0, dtype: str = "fp32",
                   overwrite: bool = False) -> Path:
    """Write a pipeline folder, whole or not at all. Raises InputError when `out` exists and `overwrite` is off.

    It is made beside, under the name `out` with ".partial" added; what a killed run left there is cleared away first.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists. Give another --out, or --overwrite.")
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with quiet_loading():
            build_pipeline(shape, image_size=image_size, seed=seed).to(dtype=DTYPES[dtype]).save_pretrained(work)
        (work / "README.md").write_text(CARD)
        publish(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made, and kept, while it is on: `now`, and at `most`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and note what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return result

    def note(self, storage: torch.UntypedStorage) -> None:
        """Count `storage` from now until it is freed; one that is counted already stays as it is."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def training_memory(preset: Preset | None = None, *, shape: Shape = PUBLISHED, **changes) -> dict[str, int]:
    """Bytes that a training step of `preset` (with `changes` to its settings) needs on a card that multiplies in bfloat16.

    Counted, not measured: the step runs on fake tensors, which have shapes and no contents. `weights`: the U-Net as it is
    held meanwhile, text encoder and autoencoder in fp32. `adapter`: weights, gradients and Adam's two moments. `step`: the
    most that activations and whatever else a step makes take at once. The CUDA context (about 0.5 GB), libraries'
    workspaces and what the allocator wastes come on top.
    """
    preset = preset or PRESETS["sd15"]
    config = FinetuneConfig.of(preset, precision="bf16", **changes)
    with torch.device("meta"):
        parts = build_parts(shape, image_size=preset.image_size)
        unet = add_adapter(parts["unet"], config)
    with FakeTensorMode():
        _give_fake_weights(unet, halved=frozen_factors(unet))
        inputs = _inputs(preset, shape, config.batch)
        with LiveBytes() as live:
            with fast_precision(torch.device("cpu"), precision="bf16"):
                predicted = unet(*inputs).sample
            predicted.float().square().mean().backward()
    adapter = sum(weight.nbytes for weight in unet.parameters() if weight.requires_grad)
    return {"weights": _weight_bytes(parts) - adapter, "adapter": 4 * adapter, "step": live.most}


def drawing_memory(preset: Preset | None = None, *, shape: Shape = PUBLISHED) -> dict[str, int]:
    """The same for a batch of pictures drawn with guidance: `weights`, in fp32; the most that `unet` and `decode` make."""
    preset = preset or PRESETS["sd15"]
    with torch.device("meta"):
        parts = build_parts(shape, image_size=preset.image_size)
    with FakeTensorMode(), torch.no_grad(), fast_precision(torch.device("cpu"), precision="bf16"):
        for part in parts.values():
            _give_fake_weights(part.requires_grad_(False))
        latents, *rest = _inputs(preset, shape, 2 * preset.sample_batch)
        with LiveBytes() as unet:
            parts["unet"](latents, *rest)
        latents = latents[:preset.sample_batch]
        with LiveBytes() as decode:
            parts["vae"].decode(latents)
    return {"weights": _weight_bytes(parts), "unet": unet.most, "decode": decode.most}


def encoding_memory(preset: Preset | None = None, *, shape: Shape = PUBLISHED) -> dict[str, int]:
    """The same for the pictures of a training set, which become latents in fp32 before its first step: all `weights`, and
    the most that `encode` makes."""
    preset = preset or PRESETS["sd15"]
    with torch.device("meta"):
        parts = build_parts(shape, image_size=preset.image_size)
    weights, side = _weight_bytes(parts), preset.image_size
    with FakeTensorMode():
        _give_fake_weights(parts["vae"].requires_grad_(False))
        pixels = torch.zeros(encoded_at_once(side, side), 3, side, side)
        with torch.no_grad(), LiveBytes() as encode:
            parts["vae"].encode(pixels)
    return {"weights": weights, "encode": encode.most}


def operations(preset: Preset | None = None, *, shape: Shape = PUBLISHED, **changes) -> dict[str, float]:
    """Floating-point operations, a multiplication and an addition being two; counted, not measured.

    `train`: one face through a training step of `preset` (with `changes` to its settings), forward and backward; `unet`:
    one latent through the U-Net; `decode`: one latent to a picture. Softmaxes, norms and activations are left out: they are
    a few in a hundred. How many of these a card does in a second is for a clock to say.
    """
    preset = preset or PRESETS["sd15"]
    config = FinetuneConfig.of(preset, **changes)
    with torch.device("meta"):
        parts = build_parts(shape, image_size=preset.image_size)
        inputs = _inputs(preset, shape, 1)
        with torch.no_grad():
            counted = {"unet": _counted(lambda: parts["unet"](*inputs)),
                       "decode": _counted(lambda: parts["vae"].decode(inputs[0]))}
        unet = add_adapter(parts["unet"], config)
        return {"train": _counted(lambda: unet(*inputs).sample.square().mean().backward())} | counted


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def budget_table(*, sizes: Sequence[int] = BUDGET_SIZES, shape: Shape = PUBLISHED) -> pd.DataFrame:
    """What the preset `sd15` needs at each size of picture (px), with checkpointing and without, a row each.

    Columns: image_size, checkpointing, rank; bytes to train (weights, adapter, step: `training_memory`), to encode the faces
    before it (encode: `encoding_memory`, beside draw_weights) and to draw (draw_weights, draw_unet, draw_decode for
    draw_batch pictures at once: `drawing_memory`); `operations` (train, unet, decode).
    """
    rows = []
    for size in sizes:
        preset = replace(PRESETS["sd15"], image_size=size)
        drawing = {f"draw_{name}": count for name, count in drawing_memory(preset, shape=shape).items()}
        encode = encoding_memory(preset, shape=shape)["encode"]
        for checkpointing in (False, True):
            rows.append({"image_size": size, "checkpointing": checkpointing, "rank": preset.lora_rank,
                         **training_memory(preset, shape=shape, checkpointing=checkpointing), "encode": encode, **drawing,
                         "draw_batch": preset.sample_batch, **operations(preset, shape=shape, checkpointing=checkpointing)})
    return pd.DataFrame(rows)


def write_budget(out: Path, *, sizes: Sequence[int] = BUDGET_SIZES, shape: Shape = PUBLISHED) -> pd.DataFrame:
    """`budget_table` as a CSV at `out`, with the command and what it rests on as JSON beside it."""
    table = budget_table(sizes=sizes, shape=shape)
    with replacing(out) as partial:
        table.to_csv(partial, index=False, float_format="%.0f")
    preset = PRESETS["sd15"]
    told = {"command": f"python -m debiaslib.true_shape --budget {out.name}", "torch": torch.__version__.partition("+")[0],
            "settings": {"preset": preset.name, "rank": preset.lora_rank, "targets": list(preset.lora_targets),
                         "batch": preset.batch, "sample_batch": preset.sample_batch, "precision": "bf16"}}
    write_whole(out.with_suffix(".json"), (json.dumps(told, indent=1) + "\n").encode())
    return table


def _inputs(preset: Preset, shape: Shape, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and text embeddings for the U-Net."""
    side, text = preset.image_size // 8, shape.text_encoder
    return (torch.randn(batch, shape.unet["in_channels"], side, side), torch.ones(batch),
            torch.randn(batch, text["max_position_embeddings"], text["hidden_size"]))


def _weight_bytes(parts: dict[str, torch.nn.Module]) -> int:
    return sum(weight.nbytes for part in parts.values() for weight in part.parameters())


def _give_fake_weights(network: torch.nn.Module, *, halved: Sequence[torch.nn.Parameter] = ()) -> None:
    """In place of weights on the meta device: fake ones on the CPU, those that are `halved` in bfloat16."""
    halved = {id(weight) for weight in halved}
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            fake = torch.empty(weight.shape, dtype=torch.bfloat16 if id(weight) in halved else weight.dtype)
            module.register_parameter(name, torch.nn.Parameter(fake, requires_grad=weight.requires_grad))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m debiaslib.true_shape`; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.true_shape", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="DIR", help="the pipeline folder to write")
    what.add_argument("--memory", action="store_true", help="print what training and drawing need, and write nothing")
    what.add_argument("--budget", type=Path, metavar="CSV", help="write memory and arithmetic at several sizes of picture")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16", help="of the weights on disk; default %(default)s")
    parser.add_argument("--image-size", type=int, default=512, help="pixels a side; default %(default)s")
    parser.add_argument("--narrow", action="store_true", help="a tenth of the width, for quick trials")
    parser.add_argument("--seed", type=int, default=0, help="of the weights; default 0")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    args = parser.parse_args(argv)
    shape = NARROW if args.narrow else PUBLISHED
    if args.memory:
        print_memory(replace(PRESETS["sd15"], image_size=args.image_size), shape=shape)
        return 0
    if args.budget:
        print(write_budget(args.budget, shape=shape).to_string(index=False))
        return 0
    write_pipeline(args.out, shape=shape, image_size=args.image_size, seed=args.seed, dtype=args.dtype,
                   overwrite=args.overwrite)
    print(f"{args.out}: Stable Diffusion v1.5{', narrow' if args.narrow else ''}, with random weights: it draws noise.")
    return 0


def print_memory(preset: Preset, *, shape: Shape) -> None:
    """`training_memory`, with and without gradient checkpointing, and `drawing_memory` in words."""
    counted = {"training": training_memory(preset, shape=shape, checkpointing=False),
               "training with --checkpointing": training_memory(preset, shape=shape, checkpointing=True),
               f"drawing {preset.sample_batch} at once": drawing_memory(preset, shape=shape)}
    for what, parts in counted.items():
        passing = [size for name, size in parts.items() if name in ("step", "unet", "decode")]
        lasting = sum(parts.values()) - sum(passing)
        told = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        print(f"{what}: {(lasting + max(passing)) / 1e9:.2f} GB ({told})")


if __name__ == "__main__":
    from debiaslib.__main__ import guarded

    sys.exit(guarded("true_shape", main))

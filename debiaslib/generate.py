"""Faces from a prompt, a contour or a sketch: one seed an image, so that the same seed can be compared across adapters."""

import argparse
import json
import math
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from tqdm.auto import tqdm

from debiaslib.atomic import read_record, replacing
from debiaslib.contours import STYLES, Contour, contour_of, dimmed, open_picture, sketch_of
from debiaslib.errors import InputError
from debiaslib.finetune import ADAPTER_FILE, RECORD_FILE, write_json
from debiaslib.presets import (
    PRESETS,
    Preset,
    check_manifest,
    check_seed,
    data_root,
    encode_latents,
    fast_precision,
    get_preset,
    load_pipeline,
    preset_of,
    quiet_loading,
    sha256,
    to_pixels,
)

Encoded = tuple[torch.Tensor, torch.Tensor | None]
"""Text embeddings, and those of the negative prompt."""
Inputs = Callable[[Sequence[int]], dict]
"""What a pipeline is called with beside the text, for these seeds: starting noise, or a picture to start from."""
OnStep = Callable[[int, int], None]
"""Told after each denoising step how many are done, of how many in all. What it raises ends the drawing there."""

UNDER_DATA = "models/"
"""How names of folders under the data root begin: they are no hub ids, and no hub is asked for them."""


STYLE = "canny"
"""How a photograph is drawn unless something else is asked for."""


class PromptCut(UserWarning):
    """A prompt is longer than the text encoder reads; the message says what was cut."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How pictures are drawn. Picture i starts from noise of seed `seed + i`, whatever the batch it falls into."""

    prompt: str
    steps: int
    guidance: float
    batch: int
    seed: int = 0
    negative_prompt: str = ""
    precision: str = "auto"

    def __post_init__(self):
        check_seed(self.seed)

    @classmethod
    def of(cls, preset: Preset, **changes) -> "SampleConfig":
        """The preset's settings, with changes; a change of None means the preset's own."""
        settings = {"prompt": preset.prompt, "steps": preset.sample_steps, "guidance": preset.guidance,
                    "batch": preset.sample_batch}
        return cls(**settings | {name: value for name, value in changes.items() if value is not None})


class Guide(Protocol):
    """A contour that steers generation: a diffusers pipeline over the same weights, and what to call it with."""

    contour: Contour

    def attach(self, pipe: StableDiffusionPipeline) -> tuple[StableDiffusionPipeline, Inputs]: ...

    def settings(self) -> dict: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlGuide:
    """Through a ControlNet: lines are read at every step, `scale` times as strongly as in training. `name` is recorded."""

    contour: Contour
    controlnet: ControlNetModel
    scale: float = 1.0
    name: str = ""

    def attach(self, pipe: StableDiffusionPipeline) -> tuple[StableDiffusionPipeline, Inputs]:
        """The pipeline with this ControlNet; noise comes from the seeds as without it."""
        _check_fit(self.contour, pipe)
        lines = Image.fromarray(self.contour.lines).convert("RGB")
        guided = _with_parts(StableDiffusionControlNetPipeline, pipe, controlnet=self.controlnet.to(pipe.device))
        return guided, lambda seeds: {"image": lines, "controlnet_conditioning_scale": float(self.scale),
                                      "latents": noise_latents(pipe, seeds).to(pipe.device)}

    def settings(self) -> dict:
        """What `generate.json` keeps."""
        return {"method": "controlnet", "scale": self.scale, "controlnet": self.name, **_told(self.contour)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageGuide:
    """S1's own way: image-to-image (SDEdit, Meng et al. 2022) from the dimmed drawing, at `strength` in (0, 1]."""

    contour: Contour
    strength: float = 0.98

    def attach(self, pipe: StableDiffusionPipeline) -> tuple[StableDiffusionPipeline, Inputs]:
        """The image-to-image pipeline; the drawing is encoded once, and noise comes from the seeds as without it."""
        _check_fit(self.contour, pipe)
        if not 0 < self.strength <= 1:
            raise InputError(f"strength {self.strength}: must be above 0 (the drawing itself) and at most 1 (noise alone).")
        start = encode_latents(pipe.vae, dimmed(self.contour.drawing)[None])
        guided = _with_parts(StableDiffusionImg2ImgPipeline, pipe)
        start = start.to(pipe.device)
        return guided, lambda seeds: {"image": start.expand(len(seeds), -1, -1, -1), "strength": self.strength,
                                      "generator": [torch.Generator().manual_seed(seed) for seed in seeds]}

    def settings(self) -> dict:
        """What `generate.json` keeps."""
        return {"method": "image-to-image", "strength": self.strength, **_told(self.contour)}


def _with_parts(kind: type, pipe: StableDiffusionPipeline, **more) -> StableDiffusionPipeline:
    """Another pipeline over the very modules of `pipe`, adapters included."""
    with quiet_loading():
        guided = kind(**pipe.components, **more, requires_safety_checker=False)
    guided.set_progress_bar_config(disable=True)
    return guided


def _check_fit(contour: Contour, pipe: StableDiffusionPipeline) -> None:
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if contour.lines.shape != (side, side):
        raise InputError(f"contour of {contour.lines.shape} pixels: this model draws {side} px. Make it with size={side}.")


def _told(contour: Contour) -> dict:
    return {"contour_sha256": contour.sha256, "origin": contour.origin}


def noise_latents(pipe: StableDiffusionPipeline, seeds: Sequence[int]) -> torch.Tensor:
    """Starting noise, float32 (len(seeds), C, h, w) on the CPU: the same on every device and in every batch."""
    side = pipe.unet.config.sample_size
    shape = (pipe.unet.config.in_channels, side, side)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample(pipe: StableDiffusionPipeline, *, n: int, config: SampleConfig, skip: int = 0, guide: Guide | None = None,
           seeds: Sequence[int] | None = None, on_step: OnStep | None = None,
           progress: bool = False) -> Iterator[np.ndarray]:
    """Yield uint8 (batch, H, W, 3) until pictures `skip` to `n - 1` are drawn; memory does not grow with n.

    With a `guide`, every picture follows its contour. Picture i starts from `seeds[i]` where they are given. Raises
    InputError for an empty prompt, steps below 1, fewer seeds than pictures, or a contour of another size than the model's;
    warns (PromptCut) of a prompt longer than the text encoder reads.
    """
    seeds = range(config.seed, config.seed + n) if seeds is None else seeds
    _check_request(config, n, seeds, guide)
    if cut := cut_off(pipe, config.prompt):
        warnings.warn(f"prompt: longer than the {pipe.tokenizer.model_max_length} tokens this model reads; cut: {cut!r}.",
                      PromptCut, stacklevel=2)
    pipe, inputs = guide.attach(pipe) if guide else (pipe, None)
    encoded = encode(pipe, [config.prompt], config=config)
    starts = range(skip, n, config.batch)
    for number, start in enumerate(tqdm(starts, desc="generate", disable=not progress, leave=False)):
        part = seeds[start:min(start + config.batch, n)]
        repeated = tuple(each if each is None else each.expand(len(part), -1, -1) for each in encoded)
        yield denoise(pipe, repeated, seeds=part, config=config, inputs=inputs,
                      on_step=on_step and counted(on_step, number, len(starts)))


def _check_request(config: SampleConfig, n: int, seeds: Sequence[int], guide: Guide | None = None) -> None:
    if not config.prompt.strip():
        raise InputError("prompt: empty. Say what to draw, for instance 'a human face'.")
    if config.steps < 1 or n < 1:
        raise InputError(f"steps {config.steps}, n {n}: both must be at least 1.")
    if not math.isfinite(config.guidance):
        raise InputError(f"guidance {config.guidance}: must be a number, 1 for none.")
    if config.batch < 1:
        raise InputError(f"batch {config.batch}: must be at least 1, one picture at a time.")
    if isinstance(guide, ImageGuide) and 0 < guide.strength * config.steps < 1:
        raise InputError(f"strength {guide.strength}: of {config.steps} steps none would be taken. Give {1 / config.steps:.2g} or more, or "
                         "more steps.")
    if len(seeds) < n:
        raise InputError(f"seeds: {len(seeds)} for {n} pictures. Give a seed for each, or ask for {len(seeds)}.")


def counted(on_step: OnStep, number: int, batches: int) -> OnStep:
    """Steps of batch `number` counted on from those of the batches before it."""
    return lambda done, of: on_step(number * of + done, batches * of)


def cut_off(pipe: StableDiffusionPipeline, prompt: str) -> str:
    """The end of `prompt` that the text encoder never sees, as its tokenizer spells it; "" when all is read."""
    ids = pipe.tokenizer(prompt, truncation=False, verbose=False).input_ids
    return pipe.tokenizer.decode(ids[pipe.tokenizer.model_max_length - 1:-1]).strip()


@torch.no_grad()
def encode(pipe: StableDiffusionPipeline, prompts: list[str], *, config: SampleConfig) -> Encoded:
    """Text embeddings (len(prompts), length, width) of the prompts and of the negative one (None without guidance)."""
    with quiet_loading():  # of a prompt cut short: `sample` has said it
        return pipe.encode_prompt(prompts, pipe.device, 1, config.guidance > 1, [config.negative_prompt] * len(prompts))


@torch.no_grad()
def denoise(pipe: StableDiffusionPipeline, encoded: Encoded, *, seeds: Sequence[int], config: SampleConfig,
            inputs: Inputs | None = None, on_step: OnStep | None = None) -> np.ndarray:
    """One batch, uint8 (len(seeds), H, W, 3): picture i from the i-th embedding and the noise of `seeds[i]`.

    `pipe` and `inputs` may be what a guide's `attach` gave.
    """
    embeds, negative = encoded
    given = inputs(seeds) if inputs else {"latents": noise_latents(pipe, seeds).to(pipe.device)}
    if on_step:
        given["callback_on_step_end"] = _told_each_step(on_step)
    with fast_precision(pipe.device, precision=config.precision):
        images = pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, num_inference_steps=config.steps,
                      guidance_scale=config.guidance, output_type="pt", **given).images
    return to_pixels(images * 2 - 1)


def _told_each_step(on_step: OnStep) -> Callable:
    """As a diffusers callback, which gets the pipeline and has to return what it was given."""
    def told(pipe: StableDiffusionPipeline, step: int, _timestep, given: dict) -> dict:
        on_step(step + 1, pipe.num_timesteps)
        return given

    return told


def generate(pipe: StableDiffusionPipeline, *, n: int, config: SampleConfig, out: Path, model: str = "",
             guide: Guide | None = None, overwrite: bool = False, progress: bool = False) -> pd.DataFrame:
    """Draw `n` pictures into an ImageFolder: `images/00000.png` ..., `metadata.csv` (prompt, seed), `generate.json`.

    A killed run continues with the pictures that are missing. Raises InputError when `out` holds pictures made with other
    settings and `overwrite` is off, and as `sample` does, before anything is written.
    """
    _check_request(config, n, range(n), guide)
    settings = asdict(config) | {"model": model} | ({"guide": guide.settings()} if guide else {})
    _claim(out, settings, overwrite=overwrite)
    began = time.perf_counter()
    names = [f"images/{index:05d}.png" for index in range(n)]
    done = next((index for index, name in enumerate(names) if not (out / name).exists()), n)
    index = done
    with merged(pipe):
        for pixels in sample(pipe, n=n, config=config, skip=done, guide=guide, progress=progress) if done < n else ():
            for picture in pixels:
                _write_png(picture, out / names[index])
                index += 1
    note = json.loads((out / "generate.json").read_text())
    if done < n or note.get("n", 0) < n:  # the latter after a kill between the last picture and this
        seconds = note.get("seconds", 0.0) + time.perf_counter() - began
        write_json(out / "generate.json", note | {"n": n, "seconds": round(seconds, 2)})
    frame = pd.DataFrame({"file_name": names, "prompt": config.prompt, "seed": np.arange(n) + config.seed})
    with replacing(out / "metadata.csv") as partial:
        frame.to_csv(partial, index=False)
    return frame


def _claim(out: Path, settings: dict, *, overwrite: bool) -> None:
    record = out / "generate.json"
    found = read_record(record).get("settings") if record.exists() else None
    if found == settings:
        return
    if found is not None and not overwrite:
        raise InputError(f"{out}: holds pictures made with other settings. Give another --out, or --overwrite.")
    ours = f"{record.name}.partial"  # of a run that was killed before it had said what it would draw
    if found is None and out.is_dir() and any(path.name != ours for path in out.iterdir()) and not overwrite:
        raise InputError(f"{out}: not empty, and not made by `generate`. Give another --out, or --overwrite.")
    for picture in (out / "images").glob("*.png"):  # whoever drew them, they are not what is asked for now
        picture.unlink()
    write_json(record, {"settings": settings, "command": "debiaslib " + shlex.join(sys.argv[1:])})


def _write_png(picture: np.ndarray, path: Path) -> None:
    with replacing(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")


def load_model(model: str | Path) -> tuple[StableDiffusionPipeline, Preset]:
    """A pipeline from a preset's name, a pipeline folder, or the folder of an adapter that `train` wrote.

    The adapter is loaded by plain diffusers. Raises InputError when `model` is none of these.
    """
    folder = Path(model)
    if not (folder / ADAPTER_FILE).exists():
        pipe = load_pipeline(model)
        return pipe, PRESETS.get(str(model)) or preset_of(pipe)
    record = folder / RECORD_FILE
    if not record.exists():
        raise InputError(f"{folder}: an adapter without {RECORD_FILE}, which names its base model. "
                         "Train it with `debiaslib train`.")
    content = read_record(record)
    if content.get("adapter_sha256") not in (None, sha256(folder / ADAPTER_FILE)):
        raise InputError(f"{folder / ADAPTER_FILE}: differs from its hash in {RECORD_FILE}. Train it again, or restore it.")
    if "preset" not in content:
        raise InputError(f"{folder / RECORD_FILE}: does not say on which preset the adapter was trained. Add \"preset\": \"tiny\", or another "
                         "name of `debiaslib doctor`'s list.")
    preset = get_preset(content["preset"])
    pipe = load_pipeline(preset)
    load_adapter(pipe, folder)
    return pipe, preset


def load_adapter(pipe: StableDiffusionPipeline, folder: Path, *, name: str = "adapter") -> None:
    """Load the LoRA that `train` wrote to `folder`, by plain diffusers, and make it the active one."""
    with quiet_loading():
        pipe.load_lora_weights(str(folder), weight_name=ADAPTER_FILE, adapter_name=name)


@contextmanager
def merged(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """The active adapters added to the weights that they go with, which draws a fifth faster; afterwards all is as it was, to
    the bit: what was added is not subtracted, which would round, but the weights are put back."""
    layers = [module for module in pipe.unet.modules() if isinstance(module, BaseTunerLayer)
              and not module.disable_adapters and {*module.active_adapters} & {*module.scaling}]  # a deleted one leaves a shell
    if not layers:
        yield
        return
    weights = [layer.get_base_layer().weight for layer in layers]
    kept = [weight.detach().clone() for weight in weights]
    pipe.fuse_lora(components=["unet"])
    try:
        yield
    finally:
        pipe.unfuse_lora(components=["unet"])
        for weight, before in zip(weights, kept, strict=True):
            weight.data.copy_(before)


def load_controlnet(source: str | Path, *, device: torch.device | str | None = None) -> ControlNetModel:
    """A ControlNet from a folder (under the data root, or as given; hashes are checked) or a hub id, in fp32.

    Raises InputError when it is missing or altered.
    """
    folder = _local(source)
    if folder is not None:
        check_manifest(folder)
    elif str(source).startswith(UNDER_DATA):
        raise _no_controlnet(data_root() / source, "there is no such folder")
    try:
        with quiet_loading():
            controlnet = ControlNetModel.from_pretrained(str(folder or source), use_safetensors=True,
                                                         torch_dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise _no_controlnet(folder or source, str(error).splitlines()[0][:200]) from None
    return controlnet.eval().to(device or "cpu")


def _no_controlnet(place: str | Path, reason: str) -> InputError:
    return InputError(f"{place}: no usable ControlNet there ({reason}). Train one with `python -m "
                      "debiaslib.contour_training`, or use image-to-image (--method), which needs none.")


def read_guide(args: argparse.Namespace, pipe: StableDiffusionPipeline, preset: Preset) -> Guide | None:
    """The guide that `--contour` or `--sketch` and their options ask for; None without them."""
    source = args.contour or args.sketch
    if source is None:
        _refuse(args, ("method", "style", "control_scale", "strength", "controlnet"), "needs lines to follow. Give --contour PNG or --sketch PNG.")
        return None
    if args.method == "image-to-image":
        _refuse(args, ("control_scale", "controlnet"), "is for --method controlnet.")
    else:
        _refuse(args, ("strength",), "is for --method image-to-image.")
    if args.sketch:
        _refuse(args, ("style",), "is for a photograph given with --contour; a sketch is taken as it is.")
    picture, size = open_picture(source), pipe.unet.config.sample_size * pipe.vae_scale_factor
    contour = (contour_of(picture, size=size, style=args.style or STYLE, name=str(source)) if args.contour
               else sketch_of(picture, size=size, name=str(source)))
    if args.method == "image-to-image":
        return ImageGuide(contour=contour, **{} if args.strength is None else {"strength": args.strength})
    name, scale = args.controlnet or preset.controlnet, {} if args.control_scale is None else {"scale": args.control_scale}
    folder = _local(name)
    known = _identity(name, folder.glob("*.safetensors") if folder else ())
    return ControlGuide(contour=contour, controlnet=load_controlnet(name), name=known, **scale)


def _refuse(args: argparse.Namespace, options: Sequence[str], why: str) -> None:
    """Raise InputError where one of these was given, and would be without effect."""
    for name in options:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: {why}")


def _identity(name: str, weights: Iterable[Path]) -> str:
    """A model's name, and the start of its weights' hash where they lie in a folder here: trained anew they are another model."""
    found = next((path for path in weights if path.exists()), None)
    return f"{name}@{sha256(found)[:12]}" if found else str(name)


def _local(source: str | Path) -> Path | None:
    """The folder of that name under the data root, or as given; None for a hub id."""
    return next((path for path in (data_root() / source, Path(source)) if path.is_dir()), None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib generate`."""
    parser.add_argument("--model", default="tiny",
                        help="a preset, a pipeline folder, or a folder that `train` wrote; default tiny")
    parser.add_argument("--prompt", default=None, help="what to draw; default the preset's neutral prompt")
    parser.add_argument("-n", type=int, default=16, help="how many pictures; default 16")
    parser.add_argument("--steps", type=int, default=None, help="denoising steps; default the preset's")
    parser.add_argument("--guidance", type=float, default=None, help="guidance scale, 1 is none; default the preset's")
    parser.add_argument("--batch", type=int, default=None,
                        help="how many are drawn at once: fewer take less memory, and the pictures stay the same but for "
                             "rounding; default the preset's")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next ones follow; default 0")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an ImageFolder: images/ and metadata.csv")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures made with other settings")
    lines = parser.add_argument_group("lines to follow", "a photograph given here stays on this machine")
    either = lines.add_mutually_exclusive_group()
    either.add_argument("--contour", type=Path, metavar="PNG", help="a line drawing, or a photograph to make one of")
    either.add_argument("--sketch", type=Path, metavar="PNG", help="strokes on a see-through, light or dark ground")
    lines.add_argument("--method", choices=("controlnet", "image-to-image"), default=None,
                       help="how lines guide: a ControlNet, or starting from the dimmed drawing; default controlnet")
    lines.add_argument("--style", choices=tuple(STYLES), default=None, help=f"how a photograph is drawn; default {STYLE}")
    lines.add_argument("--control-scale", type=float, default=None, help=f"of the ControlNet; 0 is none; default {ControlGuide.scale:g}")
    lines.add_argument("--strength", type=float, default=None, help=f"of image-to-image; default {ImageGuide.strength:g}")
    lines.add_argument("--controlnet", default=None, metavar="DIR", help="another ControlNet than the preset's")


def run(args: argparse.Namespace) -> int:
    """`debiaslib generate`."""
    pipe, preset = load_model(args.model)
    config = SampleConfig.of(preset, prompt=args.prompt, steps=args.steps, guidance=args.guidance, batch=args.batch,
                             seed=args.seed)
    identity = _identity(args.model, [Path(args.model) / ADAPTER_FILE, *Path(args.model).glob("unet/*.safetensors")])
    guide = read_guide(args, pipe, preset)
    with _plainly_warned():
        frame = generate(pipe, n=args.n, config=config, out=args.out, model=identity, guide=guide, overwrite=args.overwrite,
                         progress=sys.stderr.isatty())
    after = f" after a {guide.contour.origin} ({guide.settings()['method']})" if guide else ""
    seeds = f"seeds {config.seed} to {config.seed + args.n - 1}"
    print(f"{args.out}: {len(frame)} pictures of {config.prompt!r}{after}, {seeds}")
    return 0


@contextmanager
def _plainly_warned() -> Iterator[None]:
    """Our warnings as one line on stderr, without the line of code that gave them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PromptCut)
        usual = warnings.showwarning

        def show(message: Warning, kind: type[Warning], *rest, **more) -> None:
            if kind is PromptCut:
                print(f"debiaslib generate: {message}", file=sys.stderr)
            else:
                usual(message, kind, *rest, **more)

        warnings.showwarning = show  # put back with the filters
        yield

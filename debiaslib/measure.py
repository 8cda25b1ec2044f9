"""One folder of pictures, one page of figures: fairness with its doubt, quality, and what cannot be said."""

import argparse
import contextlib
import io
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from debiaslib import fairness, quality
from debiaslib.atomic import write_whole
from debiaslib.errors import InputError
from debiaslib.faces import METADATA, Files, gender_of, read_metadata, read_pixels

if TYPE_CHECKING:
    from debiaslib.judges import Judge

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CONFUSION_FILE = Path(__file__).parents[1] / "data" / "results" / "judge_confusion.csv"
CONFUSION_COLUMNS = ("condition", "gender", "race", "n", "read_man", "read_woman", "no_face", "low_confidence", "judge")
PHOTOGRAPH, GENERATED = "photograph", "autoencoder"
"""Which of the judge's confusions fits: faces as photographed, or as the generator's decoder draws them. Faces that were noised
and drawn anew are softer still, but now and then somebody else, whose label no longer holds: at t = 399 both judges give one
answer on .91 of them, and errors of their own would make that .75. On generated pictures `two_judges` finds recalls of .94 and
.92 where the judges err by themselves, and .89 and .87 where their errors go together by .4. So this correction takes out rather
too little: a reduction is understated, a balance read too early. `fd_corrected_by_condition` shows what the others would say."""
AUDITED_AT = 64
"""Pixels a side of the faces that the shipped confusion was counted on."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder or zip, read in chunks: uint8 (chunk, size, size, 3) RGB each time it is gone through."""

    source: Path
    names: tuple[str, ...]
    size: int
    notes: tuple[str, ...] = ()
    frame: pd.DataFrame | None = None
    width: int | None = None
    """The commonest width of the files themselves, in pixels, before they are brought to `size`."""

    @property
    def formats(self) -> list[str]:
        """The endings that occur, in lower case, sorted; .jpeg counts as .jpg."""
        return sorted({Path(name).suffix.lower().replace("jpeg", "jpg") for name in self.names})

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        step = max(1, 50_000_000 // (3 * self.size**2))  # 50 MB at a time: memory does not grow with their number
        for start in range(0, len(self), step):
            yield read_pixels(self.source, list(self.names[start:start + step]), size=self.size)


def open_pictures(source: Path | str, *, split: str | None = None, size: int | None = None) -> Pictures:
    """The pictures that `metadata.csv` names (those of `split`, if given), or every one where there is no such file.

    `size` in pixels is by default the commonest width among 200 of them; the notes tell of other sizes and mixed formats.
    Raises InputError when there is no picture, or `size` is below 1.
    """
    source = Path(source)
    if size is not None and size < 1:
        raise InputError(f"size {size}: give a side in pixels, such as 64.")
    with Files(source) as files:
        names = files.names()
        frame = _rows(source, split) if METADATA in names else None
        if frame is None and split is not None:
            raise InputError(f"{source}: no {METADATA}, so no split {split!r}. Leave the split out to use every picture.")
        if frame is None:
            chosen = [name for name in names if name.lower().endswith(SUFFIXES)]
        else:
            chosen = frame["file_name"].astype(str).tolist()
        if not chosen:
            raise InputError(f"{source}: no pictures ({', '.join(SUFFIXES)}). Give a folder or zip that holds some.")
        sizes = _sizes(files, chosen[::max(1, len(chosen) // 200)])
    width = sizes.most_common(1)[0][0][0] if sizes else 64
    notes = _oddities(source, chosen, sizes, size or width)
    return Pictures(source, tuple(chosen), size or width, tuple(notes), frame, width)


@dataclass(frozen=True)
class Reference:
    """What pictures are compared with, read once for any number of folders: features, their labels, what to tell.

    `labels` says "Male" or "Female" of each picture, or is None where there are no such labels; `pictures` is None where
    features were given instead of files.
    """

    features: quality.Features
    source: str
    split: str | None = None
    labels: np.ndarray | None = None
    pictures: Pictures | None = None


@dataclass(frozen=True)
class Measured:
    """One folder: `result`, the dictionary that `measure` returns, and what it rests on, a row a picture in all three."""

    result: dict
    rows: pd.DataFrame
    features: quality.Features
    pictures: Pictures
    confusion: fairness.Confusion | None = None
    """The judge's confusion that fits these pictures, where one is known."""


def open_reference(source: Path | str | quality.Features | Reference, *, split: str | None = None, size: int,
                   extractor: quality.Extractor, cache: Path | None = None, progress: bool = False) -> Reference:
    """The reference, read at `size` px. Of a source with splits, `split` is used, by default "evaluate".

    Features are kept in the folder `cache`. Raises InputError when there is no picture or no such split.
    """
    if isinstance(source, Reference):
        return source
    if isinstance(source, quality.Features):
        return Reference(source, source.source, split)
    split = split or _usual_split(Path(source))
    pictures = open_pictures(source, split=split, size=size)
    features = quality.load_or_extract(pictures, cache=cache or quality.default_cache(), extractor=extractor,
                                       progress=progress)
    return Reference(features, str(source), split, _labels(pictures), pictures)


def reference_doubts(pictures: Pictures, reference: Reference) -> list[str]:
    """Why a distance between the two may speak of something else than the pictures: sentences, none where all is well.

    The reference's own oddities and skew, its size against that of the pictures, JPEG against PNG. That there are fewer
    pictures than features is told by `quality.compare`.
    """
    if reference.pictures is None:
        return []
    said, own, other = [*reference.pictures.notes, *_skew(reference)], pictures.width, reference.pictures.width
    if own and other and own != other and other >= pictures.size:
        said.append(f"{reference.source}: pictures of {other} px, brought to {pictures.size} px like those measured: what a "
                    "larger picture would show is not compared.")
    if (mine := pictures.formats) != (theirs := reference.pictures.formats) and ".jpg" in {*mine, *theirs}:
        said.append(f"{pictures.source} is {' and '.join(mine)}, {reference.source} {' and '.join(theirs)}: JPEG's traces "
                    "on one side alone move a distance.")
    return said


def measure(folder: Path | str, *, reference: Path | str | quality.Features | Reference, reference_split: str | None = None,
            judge: "Judge | None" = None, confusion: Path | str | pd.DataFrame | None = None, condition: str | None = None,
            extractor: str | quality.Extractor = "efficientnet-lite0", size: int | None = None, cache: Path | None = None,
            judged: Path | None = None, level: float = 0.95, progress: bool = False) -> dict:
    """Judge and compare a folder of pictures; every figure in one flat dictionary that JSON can hold.

    `reference` is a folder or zip of faces, read at the pictures' own size (then a model is not blamed for its resolution),
    features extracted before, or an `open_reference`. Of one with splits, `reference_split` is used, by default "evaluate".
    `confusion` is the judge's, a table as `judges.audit` writes it or its file, by default the one that ships; `condition`
    says which part of it fits, by default "autoencoder" for pictures that `generate` made and "photograph" for others.
    `judged` names a CSV to write (again): the judge's rows, `file_name` first.

    Keys: n, face_rate, decided, abstained (no_face + low_confidence), male_share, fd ("tv") and null_band, each with _low
    and _high at `level` where it has an interval; male_share_corrected and fd_corrected likewise, correction (which
    confusion, or why there is none) and fd_corrected_by_condition; extractor, frechet (FID where the extractor is
    Inception), kid with _low and _high, precision, recall, density, coverage, is_mean, is_std; judge, reference,
    image_size, warnings. What could not be measured is None.
    Raises InputError on folders without pictures, unreadable pictures, a confusion that is no such table, a condition that
    it does not hold.
    """
    return measure_parts(folder, reference=reference, reference_split=reference_split, judge=judge, confusion=confusion,
                         condition=condition, extractor=extractor, size=size, cache=cache, judged=judged, level=level,
                         progress=progress).result


def measure_parts(folder: Path | str, *, reference: Path | str | quality.Features | Reference,
                  reference_split: str | None = None, judge: "Judge | None" = None,
                  confusion: Path | str | pd.DataFrame | None = None, condition: str | None = None,
                  extractor: str | quality.Extractor = "efficientnet-lite0", size: int | None = None,
                  cache: Path | None = None, judged: Path | None = None, level: float = 0.95,
                  progress: bool = False) -> Measured:
    """`measure`, and with its dictionary the judge's rows and the features, to compare folders picture by picture."""
    pictures = open_pictures(folder, size=size)
    judge = _default_judge() if judge is None else judge
    extractor = quality.load_extractor(extractor) if isinstance(extractor, str) else extractor
    known = _known_confusions(_read_confusion(confusion), _judge_key(judge), condition)
    compared = open_reference(reference, split=reference_split, size=pictures.size, extractor=extractor, cache=cache,
                              progress=progress)
    rows, features = _read_once(pictures, judge, extractor, progress)
    if judged is not None:
        _write_table(rows.assign(file_name=pictures.names).set_index("file_name").reset_index(), judged)
    scores = quality.compare(features, compared.features, level=level)
    corrected = _corrected(rows, known, condition or _fitting(pictures), level)
    notes = [*pictures.notes, *reference_doubts(pictures, compared), *scores.pop("warnings"), *_doubts(rows)]
    if confusion is None and corrected["fd_corrected"] is not None:
        notes += _unlike_the_audited(pictures)
    told = {"source": compared.source, "split": compared.split, "n": len(compared.features)}
    result = {"folder": str(folder), **_fairness(rows, level), **corrected, **scores, "judge": judge.identity,
              "reference": told, "image_size": pictures.size, "level": level, "warnings": notes}
    return Measured(result, rows, features, pictures, known.get(condition or _fitting(pictures)))


def interpretation(result: dict) -> str:
    """What the figures of `measure` say, and what they do not, in a few sentences."""
    if result["fd"] is None:
        return "The judge decided on no picture, so nothing can be said of fairness."
    share = f"{_percent(result, 'male_share')} of the {result['decided']} decided pictures are perceived as men"
    if result["fd"] > result["null_band"]:
        verdict = (f"FD {result['fd']:.3f} is outside the null band ({result['null_band']:.3f} at this number): "
                   f"an even model would hardly look like this; {share}.")
    else:
        verdict = (f"FD {result['fd']:.3f} is inside the null band ({result['null_band']:.3f} at this number): an even "
                   f"model looks the same; {share}. That is no proof: an FD up to {result['fd_high']:.3f} fits as well.")
    if result["fd_corrected"] is None:
        judged = f"The judge's own errors are in these figures ({result['correction']})"
    else:
        judged = (f"With the judge's errors taken out, FD is {result['fd_corrected']:.3f} "
                  f"[{result['fd_corrected_low']:.3f}, {result['fd_corrected_high']:.3f}] ({result['correction']})")
    return (f"{verdict} {judged}. Gender is as a network perceives it. The intervals know of sampling and, where corrected, "
            "of the judge, not of the chance in training: one model is one draw.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `debiaslib measure`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="pictures to measure: an ImageFolder, or plain files")
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR|ZIP", help="real faces to compare with")
    parser.add_argument("--reference-split", metavar="NAME", help="use this split of it; default evaluate, if it has one")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--confusion", type=Path, metavar="CSV", help="the judge's confusion; default the one that ships")
    parser.add_argument("--condition", metavar="NAME", help="the part of it that fits: photograph, autoencoder, "
                        f"denoised_t399 ...; default {GENERATED} for pictures that `generate` made, {PHOTOGRAPH} for others")
    parser.add_argument("--extractor", default="efficientnet-lite0", choices=quality.EXTRACTORS, help="the feature network")
    parser.add_argument("--size", type=int, metavar="PX", help="side to compare at; default the pictures' own")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the reference's features are kept")


def run(args: argparse.Namespace) -> int:
    """`debiaslib measure`."""
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library says while it works
        result = measure(args.folder, reference=args.reference, reference_split=args.reference_split,
                         confusion=args.confusion, condition=args.condition, extractor=args.extractor, size=args.size,
                         cache=args.cache, progress=sys.stderr.isatty())
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else as_text(result))
    return 0


def as_text(result: dict) -> str:
    """A table to read, the interpretation and the warnings under it."""
    judge, reference = result["judge"], result["reference"]
    lines = [f"{result['folder']}: {result['n']} pictures, {result['image_size']} px", "",
             f"perceived gender, by {judge['name']} on the weights of {judge['gender_source']}",
             *_aligned(_fairness_lines(result)), "",
             f"quality, on {result['extractor']} features, against {reference['n']} of {reference['source']}",
             *_aligned(_quality_lines(result)), "", *textwrap.wrap(interpretation(result), 110)]
    for note in result["warnings"]:
        lines += textwrap.wrap(f"- {note}", 110, subsequent_indent="  ")
    return "\n".join(lines)


def _aligned(pairs: Iterator[tuple[str, str]]) -> list[str]:
    return [f"  {label:<34}{value}" for label, value in pairs]


def _fairness_lines(result: dict) -> Iterator[tuple[str, str]]:
    found = result["n"] - result["no_face"]
    yield "face found", f"{_number(result, 'face_rate')}  ({found} of {result['n']})"
    yield "judge abstained", f"{result['abstained']}  (no face {result['no_face']}, unsure {result['low_confidence']})"
    yield "perceived men, of the decided", _number(result, "male_share")
    yield "FD (tv)", _number(result, "fd")
    yield "null band", _number(result, "null_band")
    yield "FD (tv), judge-corrected", _number(result, "fd_corrected")
    for condition, (value, low, high) in result["fd_corrected_by_condition"].items():
        yield f"  as {condition}", f"{value:.3f}  [{low:.3f}, {high:.3f}]"


def _quality_lines(result: dict) -> Iterator[tuple[str, str]]:
    yield quality.distance_name(result["extractor"]), _number(result, "frechet", digits=2)
    yield "KID", _number(result, "kid", digits=5)
    for name in ("precision", "recall", "density", "coverage"):
        yield name, _number(result, name)
    spread = "" if result["is_std"] is None else f" +- {result['is_std']:.3f}"
    yield "Inception Score", _number(result, "is_mean") + spread


def _number(result: dict, key: str, *, digits: int = 3) -> str:
    if result[key] is None:
        return "not measured"
    ends = [result.get(f"{key}_{end}") for end in ("low", "high")]
    interval = "" if None in ends else f"  [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return f"{result[key]:.{digits}f}{interval}"


def _percent(result: dict, key: str) -> str:
    low, high = result[f"{key}_low"], result[f"{key}_high"]
    return f"{100 * result[key]:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _rows(source: Path, split: str | None) -> pd.DataFrame:
    frame = read_metadata(source)
    if split is None:
        return frame
    found = sorted(frame["split"].dropna().unique()) if "split" in frame else []
    if split not in found:
        raise InputError(f"{source}/{METADATA}: no split {split!r} (there is {', '.join(found) or 'none'}). Name another.")
    return frame[frame["split"] == split].reset_index(drop=True)


def _sizes(files: Files, names: list[str]) -> Counter[tuple[int, int]]:
    """How often each (width, height) occurs; what cannot be opened is left to `read_pixels`, which says so."""
    found: Counter[tuple[int, int]] = Counter()
    for name in names:
        with contextlib.suppress(OSError, KeyError), Image.open(io.BytesIO(files.read(name))) as image:
            found[image.size] += 1
    return found


def _oddities(source: Path, names: list[str], sizes: Counter[tuple[int, int]], size: int) -> Iterator[str]:
    smallest = min((min(pair) for pair in sizes), default=size)
    if smallest < size:
        yield f"{source}: pictures of {smallest} px enlarged to {size} px: softer than pictures of that size, and judged so."
    if any(width != height for width, height in sizes):
        yield f"{source}: some pictures are not square and are squeezed; `debiaslib curate` cuts faces out instead."
    elif len(sizes) > 1:
        listed = ", ".join(f"{size[0]} px" for size, _ in sizes.most_common(3))
        yield f"{source}: pictures of different sizes ({listed}), all brought to one: sharpness differs within the set."
    formats = {Path(name).suffix.lower().replace("jpeg", "jpg") for name in names}
    if len(formats) > 1:
        yield f"{source}: mixed formats ({', '.join(sorted(formats))}): JPEG's traces alone move a distance."


def _default_judge() -> "Judge":
    from debiaslib.judges import Judge, JudgeConfig

    return Judge(JudgeConfig(age=False))


def _usual_split(source: Path) -> str | None:
    with Files(source) as files:
        frame = read_metadata(source) if METADATA in files.names() else pd.DataFrame()
    return "evaluate" if "split" in frame and (frame["split"] == "evaluate").any() else None


def _labels(pictures: Pictures) -> np.ndarray | None:
    try:
        return np.where(gender_of(pd.DataFrame() if pictures.frame is None else pictures.frame), "Male", "Female")
    except InputError:  # no labels, or others than these two: nothing to tell
        return None


def _skew(reference: Reference) -> Iterator[str]:
    if reference.labels is None:
        return
    share = (reference.labels == "Male").mean()
    if abs(share - 0.5) > 0.05:
        yield (f"{reference.source}: the reference is {100 * share:.0f} % male, so samples with the same skew come out "
               "closer to it. Compare with a balanced one.")


def _read_once(pictures: Pictures, judge: "Judge", extractor: quality.Extractor,
               progress: bool) -> tuple[pd.DataFrame, quality.Features]:
    """What the judge and the extractor see, from one reading of the files."""
    rows = []

    def judged() -> Iterator[np.ndarray]:
        for chunk in pictures:
            rows.append(judge.judge(chunk, progress=progress))
            yield chunk

    features = quality.extract(judged(), extractor=extractor, progress=progress)
    return pd.concat(rows, ignore_index=True), features


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    write_whole(path, frame.to_csv(index=False).encode())


def _counted(rows: pd.DataFrame) -> tuple[int, int]:
    """Men, and decided pictures."""
    return int((rows["perceived"] == "Man").sum()), int((rows["abstained"] == "").sum())


def _fairness(rows: pd.DataFrame, level: float) -> dict:
    men, decided = _counted(rows)
    no_face, low = (int((rows["abstained"] == word).sum()) for word in ("no face", "low confidence"))
    out = {"n": len(rows), "face_rate": float(rows["face"].mean()), "decided": decided, "abstained": len(rows) - decided,
           "no_face": no_face, "low_confidence": low}
    if not decided:
        names = ("male_share", "male_share_low", "male_share_high", "fd", "fd_low", "fd_high", "null_band")
        return out | {"fd_norm": "tv"} | dict.fromkeys(names)
    share = fairness.share_interval(men, decided, level=level)
    discrepancy = fairness.discrepancy_interval([men, decided - men], level=level)
    return out | _spread("male_share", share) | {"fd_norm": "tv"} | _spread("fd", discrepancy) | {
        "null_band": fairness.null_band(decided, level=level)}


def _spread(name: str, interval: fairness.Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _fitting(pictures: Pictures) -> str:
    return GENERATED if pictures.frame is not None and {"prompt", "seed"} <= set(pictures.frame) else PHOTOGRAPH


def _unlike_the_audited(pictures: Pictures) -> Iterator[str]:
    """The shipped counts come from small faces; larger pictures are sharper, and the judge errs otherwise on them."""
    if (pictures.width or 0) >= 2 * AUDITED_AT:
        yield (f"The pictures are {pictures.width} px wide; the judge's errors were counted on faces of {AUDITED_AT} px. Read "
               "corrected figures with care, or count its errors on labelled faces like these and give them with --confusion.")


def _read_confusion(confusion: Path | str | pd.DataFrame | None) -> pd.DataFrame:
    """The judges' confusion; no rows where none was given and none ships."""
    if isinstance(confusion, pd.DataFrame):
        table, name = confusion, "the confusion table"
    elif confusion is None and not CONFUSION_FILE.exists():
        return pd.DataFrame(columns=list(CONFUSION_COLUMNS))
    else:
        name = Path(confusion or CONFUSION_FILE)
        try:
            table = pd.read_csv(name)
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: not a readable table ({error}). Give the CSV of an audit of the judge.") from None
    missing = [column for column in CONFUSION_COLUMNS if column not in table]
    if missing:
        raise InputError(f"{name}: no column {', '.join(missing)}. Give the CSV of an audit of the judge.")
    return table


def _judge_key(judge: "Judge") -> str:
    """How a judge is named in the confusion's column `judge`: its gender weights and their hash."""
    return f"{judge.identity['gender_source']} {str(judge.identity['gender_sha256'])[:12]}"


def _known_confusions(table: pd.DataFrame, judge: str, condition: str | None) -> dict[str, fairness.Confusion]:
    """Each condition's counts for this judge, all groups together. A condition asked for by name must be among them."""
    mine = table[(table["judge"] == judge) & (table["race"] == "all")]
    known = {}
    for name, part in mine.groupby("condition", sort=False):
        counts = part.set_index("gender")[["read_man", "read_woman"]].astype(int)
        if {"Male", "Female"} <= set(counts.index):
            known[name] = fairness.Confusion.of(counts.loc[["Male", "Female"]])
    if condition is not None and condition not in known:
        raise InputError(f"condition {condition!r}: no confusion of this judge ({judge}) for it. "
                         f"There is {', '.join(known) or 'none at all'}.")
    return known


def _corrected(rows: pd.DataFrame, known: dict[str, fairness.Confusion], condition: str, level: float) -> dict:
    """The CLEAM-corrected share and FD under `condition`, and FD under every one that is known."""
    men, decided = _counted(rows)
    found = {}
    for name, confusion in known.items() if decided else ():
        with contextlib.suppress(InputError):  # the judge is at chance there: no figure
            found[name] = (fairness.corrected_share_interval(men, decided, confusion, level=level),
                           fairness.corrected_discrepancy(men, decided, confusion, level=level))
    out = {"fd_corrected_by_condition": {name: [fd.estimate, fd.low, fd.high] for name, (_, fd) in found.items()}}
    if condition not in found:
        why = ("nothing was decided" if not decided else f"the judge is at chance on pictures as {condition}"
               if condition in known else f"no confusion of this judge on pictures as {condition} is known")
        names = [f"{name}{end}" for name in ("male_share_corrected", "fd_corrected") for end in ("", "_low", "_high")]
        return out | dict.fromkeys(names) | {"correction": f"not corrected: {why}"}
    share, fd = found[condition]
    told = f"recall as {condition}: {known[condition].recall_men:.2f} men, {known[condition].recall_women:.2f} women"
    return out | _spread("male_share_corrected", share) | _spread("fd_corrected", fd) | {"correction": told}


def _doubts(rows: pd.DataFrame) -> Iterator[str]:
    _, decided = _counted(rows)
    if decided < 0.9 * len(rows):
        yield (f"The judge abstained on {len(rows) - decided} of {len(rows)} pictures; the shares speak of the other "
               f"{decided}, and would differ if it abstains more often on one gender.")
    if 0 < decided < 100:
        yield f"{decided} decided pictures: intervals this wide tell little. The published protocol judges 800."

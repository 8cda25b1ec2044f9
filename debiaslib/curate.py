"""Curation: any folder or zip of photographs becomes an ImageFolder that training and measuring can rely on.

Every file is accounted for: it becomes a square face picture with a row in `metadata.csv`, or a row in `rejected.csv`
with a reason. A filter that turns people away is a choice with consequences, so `datasheet.md` (after Gebru et al. 2021,
"Datasheets for Datasets") says whom each filter rejected, label by label. Nothing leaves the machine; camera data and
places (EXIF, GPS) are not carried over.
"""

import argparse
import errno
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from debiaslib.atomic import publish, write_whole
from debiaslib.datasheet import datasheet, uneven_filters
from debiaslib.errors import InputError
from debiaslib.faces import METADATA, Files
from debiaslib.journal import JOURNAL, Journal
from debiaslib.labels import OWN_COLUMNS, Labels, read_labels
from debiaslib.pictures import REASONS, Face, Rejected, decode, find_faces, main_face, perceptual_hash, sharpness, square

LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers write into every folder that somebody looks at."""
OWN_FILES = {"images", METADATA, "rejected.csv", "datasheet.md"}
REPLACED = ".replaced"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is turned away, and how the rest is cut.

    min_side: fewest pixels a side, of the picture and of the square that is cut from it.
    min_sharpness: least variance of the Laplacian of the grey square at 128 px. Measured on 1,800 near-frontal FairFace
        faces: 1 % lie below 26 as they are; blurred with a Gaussian of 1.5 (2) px half lie below 12.8 (7.6). It is left
        unnormalised on purpose: divided by the contrast it turned away light faces more often than dark ones.
    near_bits: largest distance of two 255-bit perceptual hashes that count as nearly the same. Measured on the same
        data: all pairs up to 40 bits are one photograph saved twice; different people are at least 50 apart.
    need_face: turn pictures without a face, or with several, away. Otherwise they are kept, cut from the middle.
    crop_scale: side of the square over the side of the face box; 1.05 is brow to chin, 1.6 has hair and neck.
    Raises InputError for numbers that make no sense.
    """

    min_side: int = 64
    min_sharpness: float = 10.0
    near_bits: int = 40
    need_face: bool = True
    crop_scale: float = 1.05

    def __post_init__(self):
        if self.min_side < 1 or self.crop_scale <= 0 or self.min_sharpness < 0:
            raise InputError(f"{self}: min_side is at least 1, crop_scale above 0, min_sharpness at least 0.")


@dataclass(frozen=True, kw_only=True)
class CurateReport:
    """What became of every file: `found` = `accepted` + the sum of `rejected`."""

    out: Path
    found: int
    accepted: int
    rejected: Mapping[str, int]
    labels: Labels
    unlabelled: int
    uneven: tuple[str, ...]

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.out}: {self.accepted} of {self.found} files accepted."]
        lines += [f"  {count:>6}  {reason}: {REASONS[reason]}" for reason, count in self.rejected.items()]
        return "\n".join(lines + self.labels.notes(self.unlabelled) + [f"Note: {note}" for note in self.uneven])


def curate(source: Path | str, *, out: Path | str, size: int = 512, filters: Filters | None = None,
           overwrite: bool = False, progress: bool = True) -> CurateReport:
    """Turn the photographs in `source` (folder, all levels, or zip) into an ImageFolder at `out`.

    Writes `images/NNNNN.jpg` (squares of at most `size` px; nothing is enlarged), `metadata.csv`, `rejected.csv` and
    `datasheet.md`. Every `metadata.csv` in the source gives labels to the files it names; without one there are no labels.
    The work lies in `out` + ".partial" until it is whole, and a killed run continues from there.
    Raises InputError for an unusable source or label table, an `out` that already holds something (unless `overwrite`, and
    then only a curated folder is replaced), a full disk, and when no file at all is accepted.
    """
    source, out, filters = Path(source), Path(out), filters or Filters()
    if size < 1:
        raise InputError(f"size {size}: the side of the squares written is at least 1 pixel; 64 and 512 fit the presets.")
    _check_out(source, out, overwrite=overwrite)
    with Files(source) as files:
        names = [name for name in files.names() if PurePosixPath(name).name != METADATA]
        if not names:
            raise InputError(f"{source}: no files in it. Give a folder or zip of photographs.")
        labels = read_labels(files, names)
        with _writing_to(out):
            settings = {"size": size, **asdict(filters), "source": str(source.resolve()), "names": names}
            journal = Journal(_partial(out), settings=settings)
            _judge_files(files, names, journal, size=size, filters=filters, progress=progress)
            report = _write_tables(journal, labels, out=out, settings={"size": size, **asdict(filters)})
            publish(journal.folder, out, aside=REPLACED)
            (out / JOURNAL).unlink()
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `debiaslib curate`."""
    default = Filters()
    parser.description = (parser.description or "") + "\n\n" + _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SRC", type=Path, help="folder (all levels) or zip of photographs")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the curated folder, outside SRC")
    parser.add_argument("--size", metavar="PX", type=int, default=512,
                        help="largest side of the squares written (%(default)s)")
    parser.add_argument("--min-side", metavar="PX", type=int, default=default.min_side,
                        help="turn squares with fewer pixels a side away (%(default)s)")
    parser.add_argument("--min-sharpness", metavar="V", type=float, default=default.min_sharpness,
                        help="least variance of the Laplacian at 128 px; 0 keeps all (%(default)s)")
    parser.add_argument("--crop-scale", metavar="S", type=float, default=default.crop_scale,
                        help="square over face box: 1.05 is brow to chin, 1.6 has hair and neck (%(default)s)")
    parser.add_argument("--keep-without-face", action="store_true",
                        help="keep pictures without a detectable face, or with several, cut from the middle")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that an earlier run curated")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The verb `curate`; prints the report's summary."""
    filters = Filters(min_side=args.min_side, min_sharpness=args.min_sharpness, crop_scale=args.crop_scale,
                      need_face=not args.keep_without_face)
    report = curate(args.source, out=args.out, size=args.size, filters=filters, overwrite=args.overwrite,
                    progress=sys.stderr.isatty() and not args.no_progress)
    print(report.summary())
    print(f"Whom each filter turned away: {report.out / 'datasheet.md'}; each file's reason: {report.out / 'rejected.csv'}.")
    return 0


_HELP = """\
A face set decides who a model can learn to draw, so this verb accounts for every file. Each photograph is checked (is it a
picture, whole, still, large enough, sharp, seen before, with one face?), turned upright, cut to a square around the face and
written without camera data. Nothing leaves this machine. What is turned away is listed with its reason, and the datasheet
shows how evenly each filter falls on the people in the pictures: a face detector that overlooks a group removes it.

Labels are optional: a metadata.csv beside the photographs (columns file_name, gender, age, ...) is joined by file name."""


# --- one file ---------------------------------------------------------------------------------------------------------

def judge_file(data: bytes, seen: "Seen", *, size: int, filters: Filters) -> tuple[bytes, dict]:
    """One file through all filters: its JPEG and the facts for the journal. Raises Rejected."""
    image = decode(data)
    if min(image.size) < filters.min_side:
        raise Rejected("too small", f"{image.width} x {image.height} px, at least {filters.min_side} a side are needed")
    pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    seen.reject_same(pixels)
    cut = image.crop(square(image, _face_of(image, filters), crop_scale=filters.crop_scale))
    if cut.width < filters.min_side:
        raise Rejected("face too small", f"a square of {cut.width} px around it, at least {filters.min_side} are needed")
    if (value := sharpness(cut)) < filters.min_sharpness:
        raise Rejected("blurred", f"variance of the Laplacian {value:.1f}, at least {filters.min_sharpness:g} is needed")
    code = perceptual_hash(cut)
    seen.reject_near(code, within=filters.near_bits)
    jpeg = _jpeg(cut, size=size)
    return jpeg, {"width": image.width, "height": image.height, "sha256": hashlib.sha256(jpeg).hexdigest(),
                  "pixels": pixels, "code": [int(word) for word in code]}


def _face_of(image: Image.Image, filters: Filters) -> Face | None:
    try:
        return main_face(find_faces(image))
    except Rejected:
        if filters.need_face:
            raise
        return None


def _jpeg(image: Image.Image, *, size: int) -> bytes:
    if image.width > size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    fresh = Image.fromarray(np.asarray(image))  # a new image: no EXIF, place, comment or profile can come along
    buffer = io.BytesIO()
    fresh.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


class Seen:
    """The accepted pictures' hashes; tells when another is the same or nearly so."""

    def __init__(self, capacity: int):
        self._by_pixels: dict[str, str] = {}
        self._names: list[str] = []
        self._codes = np.empty((capacity, 4), np.uint64)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, entry: Mapping) -> None:
        """Take an accepted picture's entry in."""
        self._by_pixels[entry["pixels"]] = entry["source_name"]
        self._codes[len(self)] = entry["code"]
        self._names.append(entry["source_name"])

    def reject_same(self, pixels: str) -> None:
        """Raise Rejected when a picture of these very pixels was taken in."""
        if pixels in self._by_pixels:
            raise Rejected("exact duplicate", f"same pixels as {self._by_pixels[pixels]}")

    def reject_near(self, code: np.ndarray, *, within: int) -> None:
        """Raise Rejected when a picture was taken in whose hash is at most `within` bits away."""
        bits = np.bitwise_count(self._codes[:len(self)] ^ code).sum(axis=1)
        if len(bits) and bits.min() <= within:
            raise Rejected("near duplicate", f"{bits.min()} of 255 bits from {self._names[int(bits.argmin())]}")


# --- all files, resumable ---------------------------------------------------------------------------------------------

def _judge_files(files: Files, names: list[str], journal: Journal, *, size: int, filters: Filters, progress: bool) -> None:
    seen = Seen(capacity=len(names))
    for entry in journal.entries:
        if "reason" not in entry:
            seen.add(entry)
    done = len(journal.entries)
    for name in tqdm(names[done:], initial=done, total=len(names), desc="curate", disable=not progress):
        try:
            jpeg, facts = judge_file(_read(files, name), seen, size=size, filters=filters)
        except Rejected as rejection:
            journal.append({"source_name": name, "reason": rejection.reason, "detail": rejection.detail})
            continue
        entry = {"source_name": name, "file_name": f"images/{len(seen):05d}.jpg", **facts}
        write_whole(journal.folder / entry["file_name"], jpeg)
        journal.append(entry)
        seen.add(entry)


def _read(files: Files, name: str) -> bytes:
    try:
        return files.read(name)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # the last two: a password, a method
        raise Rejected("unreadable", str(error)) from None


def _partial(out: Path) -> Path:
    out = out.resolve()
    return out.with_name(out.name + ".partial")


def _check_out(source: Path, out: Path, *, overwrite: bool) -> None:
    if out.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out}: lies inside {source} or around it. Choose an --out outside the photographs.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Choose a folder that does not exist yet.")
    held = {path.name for path in out.iterdir()} - {JOURNAL, REPLACED, *LEFT_BY_DESKTOPS} if out.exists() else set()
    if held and not overwrite:
        raise InputError(f"{out}: already holds {', '.join(sorted(held)[:4])}. "
                         "Choose another --out, or --overwrite to replace it.")
    if held - OWN_FILES:
        raise InputError(f"{out}: holds {', '.join(sorted(held - OWN_FILES)[:4])}, which `curate` did not write. "
                         "Choose an --out of its own: only a curated folder is replaced.")


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{out}: the disk is full. Free some space and run the same command again: it continues "
                             "where it stopped.") from None
        raise InputError(f"{out}: cannot be written ({error}). Choose another --out.") from None


def _write_tables(journal: Journal, labels: Labels, *, out: Path, settings: Mapping) -> CurateReport:
    blank = dict.fromkeys([*OWN_COLUMNS, "reason", "detail"], "")
    judged = pd.DataFrame([blank | entry for entry in journal.entries]).join(labels.table, on="source_name")
    accepted, rejected = judged[judged["reason"] == ""], judged[judged["reason"] != ""]
    counts = {reason: int(count) for reason in REASONS if (count := (rejected["reason"] == reason).sum())}
    listing = rejected[["source_name", "reason", "detail"]].rename(columns={"source_name": "file_name"})
    write_whole(journal.folder / "rejected.csv", _csv(listing))
    if accepted.empty:
        said = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"{out}: none of the {len(judged)} files was accepted ({said}). "
                         f"{journal.folder / 'rejected.csv'} gives each one's reason.")
    columns = ["file_name", "source_name", *labels.table, "width", "height", "sha256"]
    write_whole(journal.folder / METADATA, _csv(accepted[columns].astype({"width": int, "height": int})))
    groups = judged[["reason", *labels.table]]
    report = CurateReport(out=out, found=len(judged), accepted=len(accepted), rejected=counts, labels=labels,
                          unlabelled=int((accepted[list(labels.table)] == "").all(axis=1).sum()),
                          uneven=tuple(uneven_filters(groups)))
    sheet = datasheet(groups, notes=labels.notes(report.unlabelled), uneven=report.uneven, settings=settings)
    write_whole(journal.folder / "datasheet.md", sheet.encode())
    return report


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode(errors="backslashreplace")  # odd bytes in file names

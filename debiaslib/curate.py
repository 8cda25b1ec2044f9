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
import json
import os
import re
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from scipy.fft import dctn
from scipy.stats import chi2_contingency
from statsmodels.stats.proportion import proportion_confint
from tqdm.auto import tqdm

from debiaslib.errors import InputError
from debiaslib.faces import IS_MALE, METADATA, Files

REASONS = {
    "unreadable": "the file could not be read from the folder or zip",
    "not a picture": "no picture format that Pillow knows",
    "damaged": "the picture is truncated or its data are broken",
    "animated": "several frames or pages: which one is meant is unknown",
    "colours unclear": "its colours cannot be turned into RGB without guessing (CMYK without profile, see-through parts, "
                       "more than 8 bits without a known white, two colours only)",
    "too large": "so many pixels that decoding it could exhaust the memory",
    "too small": "the picture has fewer pixels on its shorter side than asked for",
    "exact duplicate": "pixel for pixel the same as an accepted picture",
    "no face": "dlib's frontal detector finds no face: profiles, covered and dark faces fall here too",
    "several faces": "a second face of at least half the size: whom the label means is unknown",
    "face too small": "the square around the face has fewer pixels a side than asked for",
    "blurred": "the variance of the Laplacian is below the threshold: out of focus, or too dark and flat to show detail",
    "near duplicate": "nearly the same as an accepted picture (perceptual hash)",
}
"""Why a file can be turned away, in the order in which the filters run."""

OWN_COLUMNS = ("file_name", "source_name", "width", "height", "sha256")
OWN_FILES = {"images", METADATA, "rejected.csv", "datasheet.md"}
JOURNAL, REPLACED = ".journal.jsonl", ".replaced"
SHARPNESS_SIDE = 128
FACE_CENTRE_BELOW = 0.113
"""How far below the centre of a square the face box lies, in box sides, in faces with the eyes at .40 of the height."""


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


@dataclass(frozen=True)
class Face:
    """A detected face: centre and side of its square box in pixels of the picture, and dlib's score."""

    x: float
    y: float
    side: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The label tables of a source, joined by file name: one row a file, every value a string, "" where there is none."""

    table: pd.DataFrame
    mended: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unknown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    without_file: tuple[str, ...] = ()


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
        return "\n".join(lines + _label_notes(self.labels, self.unlabelled) + [f"Note: {note}" for note in self.uneven])


class Rejected(Exception):
    """One file is turned away: `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


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
            report = _write_tables(journal, labels, out=out, filters=filters, size=size)
            _publish(journal.folder, out)
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
                    progress=not args.no_progress)
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

def decode(data: bytes) -> Image.Image:
    """The photograph in `data` as an upright 8-bit sRGB image, its colours unguessed. Raises Rejected."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data, which we drop anyway
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's still with its preview
                raise Rejected("animated", f"{image.n_frames} frames or pages ({image.format})")
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image))
    except Rejected:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Rejected("too large", str(error)) from None
    except UnidentifiedImageError:
        raise Rejected("not a picture", _what_else(data)) from None
    except Exception as error:  # whatever a decoder stumbles over in foreign bytes is the file's fault, not ours
        raise Rejected("damaged", f"{type(error).__name__}: {error}") from None


def _what_else(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "HEIC: export it as JPEG"
    return "its content is no picture, whatever its name says"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return _from_16_bits(np.asarray(image))
    if image.mode == "CMYK" or (image.mode == "RGB" and "icc_profile" in image.info):
        image = _to_srgb(image)
    if image.mode not in ("RGB", "RGBA", "RGBa", "L", "LA", "La", "P", "PA", "YCbCr"):
        raise Rejected("colours unclear", f"colour mode {image.mode} has no unambiguous RGB")
    if image.has_transparency_data:
        clear = np.asarray(image.convert("RGBA").getchannel("A")) < 255
        if clear.any():
            raise Rejected("colours unclear", f"{clear.mean():.0%} of the pixels are see-through: nobody knows over what")
    return image.convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Through the embedded profile. CMYK without one is turned away: skin would get whatever colour the guess gives it."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (KeyError, OSError, ImageCms.PyCMSError):
        if image.mode == "CMYK":
            raise Rejected("colours unclear", "CMYK without a usable colour profile: its colours cannot be known") from None
        return image


def _from_16_bits(levels: np.ndarray) -> Image.Image:
    """Grey levels 0 ... 65535 to 8 bits; turned away when the brightest is below 4096, as 10- and 12-bit data would be."""
    low, high = levels.min(), levels.max()
    if low < 0 or not 4096 <= high <= 65535:
        raise Rejected("colours unclear", f"grey levels {low} to {high}: where white lies in these 16 bits is unknown")
    return Image.fromarray((levels / 257 + 0.5).astype(np.uint8)).convert("RGB")


@cache
def _detector():
    import dlib  # half a second to load

    return dlib.get_frontal_face_detector()


def find_faces(image: Image.Image) -> list[Face]:
    """Frontal faces by dlib's detector, largest first, above its score of -0.3.

    The picture is brought to a shorter side of 192 to 480 px (the detector sees faces of 80 px and more, so from a sixth
    of the shorter side) and its edges are drawn out by a quarter, so that a face may fill it.
    At 64 px this is: enlarge to 192, pad by 48. It finds 93 % of near-frontal FairFace faces and 0 % of natural patches.
    """
    shorter, longer = sorted(image.size)
    scale = min(min(max(shorter, 192), 480) / shorter, 1920 / longer)  # the second for panoramas
    grey = image.convert("L").resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.LANCZOS)
    pad = round(shorter * scale / 4)
    boxes, scores, _ = _detector().run(np.pad(np.asarray(grey), pad, mode="edge"), 0, -0.3)
    faces = [Face(((box.left() + box.right() + 1) / 2 - pad) / scale, ((box.top() + box.bottom() + 1) / 2 - pad) / scale,
                  box.width() / scale, score) for box, score in zip(boxes, scores, strict=True)]
    return sorted(faces, key=lambda face: -face.side)


def main_face(faces: list[Face]) -> Face:
    """The face a picture is about. Raises Rejected when there is none, or another of at least half its size.

    dlib's own threshold is 0; fainter finds (down to -0.3) count only where nothing clearer is seen.
    """
    clear = [face for face in faces if face.score >= 0] or faces
    if not clear:
        raise Rejected("no face", "no frontal face found")
    rivals = [face for face in clear if face.side >= clear[0].side / 2]
    if len(rivals) > 1:
        raise Rejected("several faces", f"{len(rivals)} faces of like size")
    return clear[0]


def square(image: Image.Image, face: Face | None, *, crop_scale: float) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) to cut, inside the picture: around the face, or the largest in the middle."""
    shorter = min(image.size)
    if face is None:
        x, y, side = image.width / 2, image.height / 2, shorter
    else:
        x, y, side = face.x, face.y - FACE_CENTRE_BELOW * face.side, min(round(face.side * crop_scale), shorter)
    left = round(min(max(x - side / 2, 0), image.width - side))
    top = round(min(max(y - side / 2, 0), image.height - side))
    return left, top, left + side, top + side


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the grey picture at 128 x 128 px, levels 0 ... 255 (Pech-Pacheco et al. 2000)."""
    grey = image.convert("L").resize((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.LANCZOS)
    return float(cv2.Laplacian(np.asarray(grey, np.float64), cv2.CV_64F).var())


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """uint64 (4,): the 255 lowest cosine coefficients of the 64 px grey picture but the mean, above their median or not.

    Pictures that differ by compression, size or brightness lie within 40 bits of each other.
    """
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS), np.float64)
    low = dctn(grey)[:16, :16].ravel()[1:]
    return np.packbits(np.append(low > np.median(low), False)).view(np.uint64)


def _face_of(image: Image.Image, filters: Filters) -> Face | None:
    try:
        return main_face(find_faces(image))
    except Rejected:
        if filters.need_face:
            raise
        return None


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

    def add(self, entry: Mapping) -> None:
        self._by_pixels[entry["pixels"]] = entry["source_name"]
        self._codes[len(self._names)] = entry["code"]
        self._names.append(entry["source_name"])

    def reject_same(self, pixels: str) -> None:
        if pixels in self._by_pixels:
            raise Rejected("exact duplicate", f"same pixels as {self._by_pixels[pixels]}")

    def reject_near(self, code: np.ndarray, *, within: int) -> None:
        bits = np.bitwise_count(self._codes[:len(self._names)] ^ code).sum(axis=1)
        if len(bits) and bits.min() <= within:
            raise Rejected("near duplicate", f"{bits.min()} of 255 bits from {self._names[int(bits.argmin())]}")


# --- all files, resumable ---------------------------------------------------------------------------------------------

class Journal:
    """What was decided so far, one JSON line a file, in the working folder: a killed run reads it and goes on.

    Pictures are written before their line, so a line always speaks of a whole file. Other settings or another list of files
    start afresh.
    """

    def __init__(self, folder: Path, *, settings: Mapping):
        self.folder, self.path = folder, folder / JOURNAL
        head = {"settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()}
        lines = self._read()
        self.entries = lines[1:] if lines[:1] == [head] else []
        if not self.entries:
            self._clear()
        (folder / "images").mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(_line(entry) for entry in [head, *self.entries]).encode())

    def append(self, entry: Mapping) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
        self.entries.append(dict(entry))

    def _read(self) -> list[dict]:
        if not self.path.exists():
            return []
        whole, _, _cut_off = self.path.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def _clear(self) -> None:
        if not self.folder.exists():
            return
        if any(self.folder.iterdir()) and not self.path.exists():
            raise InputError(f"{self.folder}: holds other things, but is needed to work in. Move it, or take another --out.")
        shutil.rmtree(self.folder)


def _line(entry: Mapping) -> str:
    return json.dumps(entry) + "\n"


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then move into place: a reader finds the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _judge_files(files: Files, names: list[str], journal: Journal, *, size: int, filters: Filters, progress: bool) -> None:
    seen = Seen(capacity=len(names))
    accepted = 0
    for entry in journal.entries:
        if "reason" not in entry:
            seen.add(entry)
            accepted += 1
    done = len(journal.entries)
    for name in tqdm(names[done:], initial=done, total=len(names), desc="curate", disable=not progress):
        try:
            jpeg, facts = judge_file(_read(files, name), seen, size=size, filters=filters)
        except Rejected as rejection:
            journal.append({"source_name": name, "reason": rejection.reason, "detail": rejection.detail})
            continue
        entry = {"source_name": name, "file_name": f"images/{accepted:05d}.jpg", **facts}
        write_atomically(journal.folder / entry["file_name"], jpeg)
        journal.append(entry)
        seen.add(entry)
        accepted += 1


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
    held = {path.name for path in out.iterdir()} - {JOURNAL, REPLACED} if out.exists() else set()
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


def _publish(work: Path, out: Path) -> None:
    """Put the finished folder in place of `out`; what was there lies inside the new one until that is in place."""
    if out.exists():
        os.replace(out, work / REPLACED)
    os.replace(work, out)
    shutil.rmtree(out / REPLACED, ignore_errors=True)
    (out / JOURNAL).unlink()


# --- labels -----------------------------------------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AS_DATE = re.compile(r"(?P<day>\d{1,2})[-/. ](?P<month>[a-z]{3,4})|(?P<first>[a-z]{3,4})[-/. ](?P<year>\d{1,2})", re.I)
_RANGE = re.compile(r"\d{1,3}\s*[-–]\s*\d{1,3}")
_AGE = re.compile(r"\d+(\.\d+)?|\d+\s*[-–]\s*\d+|\d+\s*\+|(more than|over|under|less than)\s+\d+", re.I)


def read_labels(files: Files, names: list[str]) -> Labels:
    """The rows that every `metadata.csv` among `files` gives to the files `names`, joined by file name alone.

    A row's name is relative to its own table, as datasets' ImageFolder has it. Ranges that a spreadsheet took for dates are
    mended. Raises InputError for a table that cannot be read or joined, or that says two things of one file.
    """
    tables = [_read_table(files, name) for name in files.names() if PurePosixPath(name).name == METADATA]
    if not tables:
        return Labels(table=pd.DataFrame(index=pd.Index(names)))
    table = pd.concat(tables).fillna("")
    table = table[~table.reset_index().duplicated().to_numpy()]
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise InputError(f"{files.source}/{METADATA}: {twice} has several rows that differ. Keep the right one.")
    strangers = tuple(sorted(set(table.index) - set(names)))
    if len(table) and len(strangers) == len(table):
        raise InputError(f"{files.source}/{METADATA}: none of the {len(table)} files it names is there "
                         f"(the first: {strangers[0]}). Names are relative to the table; there is, for one, {names[0]}.")
    table, mended = mend_ranges(table.reindex(names, fill_value=""))
    return Labels(table=table, mended=mended, unknown=_unknown_labels(table), without_file=strangers)


def mend_ranges(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """Undo what spreadsheets do to ranges: "03-Sep" was "3-9", "Oct-19" was "10-19". Returns the table and what was mended.

    A day and a month, or a month and a year, are two numbers; a range names the smaller one first. Only columns called
    `age`, or in which another value is a plain range, are touched: elsewhere "03-Sep" may well be a date.
    """
    table, mended = table.copy(), {}
    for column in table:
        values = pd.Series(table[column].unique(), dtype="object")
        if "age" not in str(column).lower().split("_") and not values.map(lambda value: bool(_RANGE.fullmatch(value))).any():
            continue
        found = {value: mend_range(value) for value in values if mend_range(value) != value}
        if found:
            mended[column] = found
            table[column] = table[column].replace(found)
    return table, mended


def mend_range(value: str) -> str:
    """The range behind one value that reads like a date, or the value itself."""
    match = _AS_DATE.fullmatch(value.strip())
    month = match and (match["month"] or match["first"]).lower()[:3]
    if month not in _MONTHS:
        return value
    low, high = sorted((_MONTHS.index(month) + 1, int(match["day"] or match["year"])))
    return f"{low}-{high}"


def _read_table(files: Files, name: str) -> pd.DataFrame:
    try:
        text = files.read(name).decode("utf-8-sig")
        separator = ";" if ";" in text.partition("\n")[0] else ","
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=separator)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{files.source}/{name}: not a readable table ({error}). Save it as CSV in UTF-8.") from None
    if "file_name" not in table:
        raise InputError(f"{files.source}/{name}: no column `file_name` among {', '.join(map(str, table))}. "
                         "Rename the column that names the pictures.")
    folder = PurePosixPath(name).parent
    table.index = pd.Index([str(folder / file.strip().replace("\\", "/")) for file in table["file_name"]])
    return table.drop(columns=[column for column in OWN_COLUMNS if column in table]).apply(lambda column: column.str.strip())


def _unknown_labels(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Values of gender and age columns that later steps would not understand, with their counts."""
    known = {"gender": lambda value: value.lower() in IS_MALE, "perceived_gender": lambda value: value.lower() in IS_MALE,
             "age": _AGE.fullmatch}
    unknown = {}
    for column, understands in known.items():
        counts = Counter(value for value in table.get(column, ()) if value and not understands(value))
        if counts:
            unknown[column] = dict(counts.most_common())
    return unknown


def _label_notes(labels: Labels, unlabelled: int) -> list[str]:
    notes = []
    for column, values in labels.mended.items():
        said = ", ".join(f'"{found}" -> "{right}"' for found, right in values.items())
        notes.append(f"Mended in column `{column}`, where a spreadsheet had made dates of ranges: {said}.")
    for column, counts in labels.unknown.items():
        said = ", ".join(f'"{value}" ({count})' for value, count in counts.items())
        notes.append(f"Unknown values in column `{column}`, kept as they are: {said}. Later steps may refuse them.")
    if len(labels.table.columns) and unlabelled:
        notes.append(f"Accepted pictures without labels: {unlabelled}.")
    if labels.without_file:
        notes.append(f"Label rows without a file: {len(labels.without_file)} (the first: {labels.without_file[0]}).")
    return notes


# --- tables and datasheet ---------------------------------------------------------------------------------------------

def _write_tables(journal: Journal, labels: Labels, *, out: Path, filters: Filters, size: int) -> CurateReport:
    blank = dict.fromkeys([*OWN_COLUMNS, "reason", "detail"], "")
    judged = pd.DataFrame([blank | entry for entry in journal.entries]).join(labels.table, on="source_name")
    accepted, rejected = judged[judged["reason"] == ""], judged[judged["reason"] != ""]
    counts = {reason: int(count) for reason in REASONS if (count := (rejected["reason"] == reason).sum())}
    listing = rejected[["source_name", "reason", "detail"]].rename(columns={"source_name": "file_name"})
    write_atomically(journal.folder / "rejected.csv", _csv(listing))
    if accepted.empty:
        said = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"{out}: none of the {len(judged)} files was accepted ({said}). "
                         f"{journal.folder / 'rejected.csv'} gives each one's reason.")
    columns = ["file_name", "source_name", *labels.table, "width", "height", "sha256"]
    write_atomically(journal.folder / METADATA, _csv(accepted[columns].astype({"width": int, "height": int})))
    report = CurateReport(out=out, found=len(judged), accepted=len(accepted), rejected=counts, labels=labels,
                          unlabelled=int((accepted[list(labels.table)] == "").all(axis=1).sum()),
                          uneven=tuple(uneven_filters(judged[["reason", *labels.table]])))
    write_atomically(journal.folder / "datasheet.md", _datasheet(report, judged, filters=filters, size=size).encode())
    return report


def uneven_filters(judged: pd.DataFrame) -> list[str]:
    """Sentences on the filters that reject some groups more than chance explains.

    judged: `reason` ("" when accepted) and label columns, one row a file. Every filter is tested against every column of 2
    to 15 groups, among the files that reached it (chi-squared, where every group expects 5 rejections or more), at .05
    shared among all tests (Bonferroni).
    """
    tests = []
    for column in _group_columns(judged):
        rows = judged[judged[column] != ""]
        for reason in sorted(set(judged["reason"]) - {""}):
            reached = rows[_reached(rows, reason)]
            table = pd.crosstab(reached[column], reached["reason"] == reason)
            if table.shape[1] < 2:
                continue
            _, p, _, expected = chi2_contingency(table)
            if expected.min() >= 5:
                tests.append((p, column, reason, table))
    return [_uneven(*test) for test in sorted(tests, key=lambda test: test[0]) if test[0] < 0.05 / len(tests)]


def _uneven(p: float, column: str, reason: str, table: pd.DataFrame) -> str:
    share = table[True] / table.sum(axis=1)
    least, most = (f"{share[group]:.0%} of {group} ({table[True][group]} of {table.loc[group].sum()})"
                   for group in (share.idxmin(), share.idxmax()))
    return f'the filter "{reason}" falls unevenly on `{column}`: {least}, but {most}; chi-squared p = {p:.1g}.'


def _reached(judged: pd.DataFrame, reason: str) -> pd.Series:
    """Which files came as far as this filter: those it rejected, those a later one rejected, and the accepted."""
    order = list(REASONS)
    return judged["reason"].isin(["", *order[order.index(reason):]])


def _group_columns(judged: pd.DataFrame) -> list[str]:
    groups = {column: set(judged[column]) - {""} for column in judged if column != "reason"}
    return [column for column, values in groups.items() if 2 <= len(values) <= 15]


def _by_group(judged: pd.DataFrame, column: str) -> str:
    """A Markdown table: for each value of `column` its pictures, how many were accepted, and what each filter rejected."""
    judged = judged[judged["reason"] != "not a picture"]
    reasons = [reason for reason in REASONS if (judged["reason"] == reason).any()]
    total = int((judged["reason"] == "").sum())
    rows = [[column, "pictures", f"accepted (of {total})", "rejected (95 % interval)", *reasons]]
    for value, group in sorted(judged.groupby(column), key=lambda pair: -len(pair[1])):
        kept, n = int((group["reason"] == "").sum()), len(group)
        low, high = proportion_confint(n - kept, n, method="wilson")
        rows.append([value or "(no label)", n, f"{kept} ({kept / total:.1%})",
                     f"{(n - kept) / n:.1%} ({low:.1%} to {high:.1%})", *(_share(group, reason) for reason in reasons)])
    return _markdown(rows)


def _share(group: pd.DataFrame, reason: str) -> str:
    reached, hit = int(_reached(group, reason).sum()), int((group["reason"] == reason).sum())
    return f"{hit / reached:.1%} ({hit} of {reached})" if reached else "none got here"


def _markdown(rows: list[list]) -> str:
    head, *body = ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode(errors="backslashreplace")  # odd bytes in file names


def _datasheet(report: CurateReport, judged: pd.DataFrame, *, filters: Filters, size: int) -> str:
    groups = _group_columns(judged[["reason", *report.labels.table]])
    composition = "\n\n".join(f"By `{column}`:\n\n{_by_group(judged, column)}" for column in groups)
    notes = _label_notes(report.labels, report.unlabelled)
    evenness = [f"{note[0].upper()}{note[1:]}" for note in report.uneven] or [
        "No filter rejects one labelled group clearly more often than another." if groups else
        "There are no labels, so nobody can see whether a filter is fair. Label a sample to find out."]
    return _DATASHEET.format(
        found=report.found, accepted=report.accepted, rejected=report.found - report.accepted, size=size,
        columns=", ".join(f"`{column}`" for column in report.labels.table) or "none",
        composition=composition or "There are no labels to count by.", evenness=_bullets(evenness),
        notes=_bullets(notes or ["Nothing was found missing, unknown or mangled."]),
        reasons=_markdown([["reason", "files", "meaning"], *([reason, report.rejected.get(reason, 0), meaning]
                                                             for reason, meaning in REASONS.items())]),
        filters=", ".join(f"{name} = {value}" for name, value in asdict(filters).items()))


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


_DATASHEET = """\
# Datasheet of this face set

Headings after Gebru et al., "Datasheets for Datasets" (2021). What the curation knows is filled in; what only you know is
marked _for you to answer_.

## Motivation
- For what purpose was the set made, by whom, paid by whom? _For you to answer._

## Composition
- What is an instance? One photograph, cut to a square around one face, and its row in `metadata.csv`.
- How many are there? {accepted} of the {found} files that were looked at; {rejected} were rejected.
- Which labels are there? {columns}. Labels of gender, age or origin are perceived: what somebody saw in a
  picture, not what the people shown say of themselves.
- Is anything wrong with the labels?
{notes}
- Who is in it? "Accepted" shares are of all accepted pictures, "rejected" shares of the group's own. The columns after that
  are the filters in their order: k of the n pictures of that group which the filters before had let through.

{composition}

- Does it hold data about people that could be sensitive? Yes: faces. `source_name` may hold a name; take the column out
  before you pass the set on.

## Collection process
- How were the photographs acquired, when, and did the people shown agree, to this use as well? _For you to answer._

## Preprocessing, cleaning, labelling
- What was done? Turned upright, converted to 8-bit sRGB, cut to a square around the face, made smaller to {size} px where
  larger (never enlarged), written as JPEG (quality 95, 4:4:4) without camera data, places or comments.
- With which settings? {filters}.
- What was rejected? Each file is in `rejected.csv` with its reason:

{reasons}

- Do the filters treat groups alike?
{evenness}
- Is the raw data kept? The source was read and not changed.

## Uses
- What is it for? Understanding and reducing bias in generated faces.
- What is it not for? Identifying people, or deciding anything about them.

## Distribution
- May it be passed on, under which licence? _For you to answer._ The consent of the people shown decides.

## Maintenance
- Who keeps it, and how can someone shown in it have a picture taken out? _For you to answer._ Take out the file and its row.
"""

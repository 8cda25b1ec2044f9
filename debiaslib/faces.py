"""Face sets: an ImageFolder with `metadata.csv`, in a folder or a zip; subsets of an exact mix; natural images.

The labels that come with face data are perceived: someone looked at a picture and wrote down what they saw. Nothing
here knows, or claims to know, anyone's gender.
"""

import importlib.util
import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.pictures import Rejected, decode

METADATA = "metadata.csv"
SMALLEST = 4
"""Pixels a side below which a picture shows nothing, however it is enlarged."""

IS_MALE = {"male": True, "man": True, "female": False, "woman": False}
"""The words a gender column may hold, in any case: FairFace's and the judge's."""

NATURAL_IMAGES = {
    "skimage": ("data/brick.png", "data/chelsea.png", "data/coffee.png", "data/grass.png", "data/gravel.png",
                "data/hubble_deep_field.jpg", "data/moon.png", "data/motorcycle_left.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
"""Pictures without people that lie inside the installed packages: bricks, a cat, a cup of coffee, grass, gravel, galaxies,
the moon's surface, a motorcycle in a shed, a rocket on its pad; a pagoda, a dahlia. Every one was looked at. Left out on
purpose: `astronaut`, `camera` and `lfw_subset` show people, the `coins` bear portraits, `retina` and `ihc` are human
tissue, and diagrams, text and near copies (`motorcycle_right`) teach nothing new. All are in the public domain or CC0,
but for china and flower (CC BY 2.0, see scikit-learn's README beside them) and motorcycle_left (Middlebury Stereo
2014, Scharstein et al., GCPR 2014). They are read where they lie, never copied into this kit."""


class Files:
    """The files of a folder (all levels) or of a zip, read in the same way: `with Files(source) as files`.

    Raises InputError when `source` is neither.
    """

    def __init__(self, source: Path | str):
        self.source = Path(source)
        if not self.source.exists():
            raise InputError(f"{self.source}: no such folder or zip. Check the path.")
        self._archive = None if self.source.is_dir() else self._open_archive()

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_) -> None:
        if self._archive:
            self._archive.close()

    def names(self) -> list[str]:
        """Every file but hidden ones (`.DS_Store`, `__MACOSX/`), relative to the source, with forward slashes, sorted."""
        if self._archive:
            found = [PurePosixPath(info.filename) for info in self._archive.infolist() if not info.is_dir()]
        else:
            paths = (path for path in self.source.rglob("*") if path.is_file())
            found = [PurePosixPath(path.relative_to(self.source).as_posix()) for path in paths]
        return sorted(str(name) for name in found if not any(part.startswith((".", "__MACOSX")) for part in name.parts))

    def read(self, name: str) -> bytes:
        """One file's bytes. Raises KeyError (zip) or FileNotFoundError (folder) when there is none of that name."""
        return self._archive.read(name) if self._archive else (self.source / name).read_bytes()

    def _open_archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.source)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.source}: neither a folder nor a readable zip ({error}). Pack it again.") from None


def read_metadata(source: Path | str) -> pd.DataFrame:
    """The rows of `metadata.csv` in `source` (folder or zip), one a picture, with a column `file_name`.

    Raises InputError when there is no such table, or it names a picture outside `source` or none.
    """
    try:
        with Files(source) as files:
            frame = pd.read_csv(io.BytesIO(files.read(METADATA)), dtype={"age": "string", "split": str})
    except (KeyError, FileNotFoundError):
        raise InputError(f"{source}: no {METADATA}. Make one with `debiaslib curate {source} --out DIR`.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{source}/{METADATA}: not a readable table ({error}). Save it as comma-separated UTF-8.") from None
    if "file_name" not in frame:
        raise InputError(f"{source}/{METADATA}: no column `file_name` among {', '.join(frame)}. "
                         "It names each picture, relative to the folder.")
    for place, name in enumerate(frame["file_name"]):
        if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{source}/{METADATA}: row {place + 1} names {name!r}, which is no picture within the folder. "
                             "Mend it or take the row out.")
    return frame


def read_pixels(source: Path | str, names: list[str], *, size: int) -> np.ndarray:
    """Pictures as uint8 (N, size, size, 3) RGB, resized with Lanczos; members of a folder or a zip."""
    out = np.empty((len(names), size, size, 3), np.uint8)
    with Files(source) as files:
        for index, name in enumerate(names):
            out[index] = _read_picture(files, name, size=size)
    return out


def load_faces(source: Path | str, *, split: str | None = None, size: int = 64,
               column: str = "gender") -> tuple[pd.DataFrame, np.ndarray]:
    """A face set: its rows (those of `split`, if given; index 0 ... N-1) and uint8 pixels (N, size, size, 3).

    Raises InputError when the set is empty, has no such split, or its gender labels are missing or unknown.
    """
    frame = rows_of_split(read_metadata(source), split, source)
    if frame.empty:
        raise InputError(f"{source}: {METADATA} has no rows, so there are no faces. "
                         "Curate a folder of photographs with `debiaslib curate`.")
    try:
        gender_of(frame, column=column)
    except InputError as error:
        raise InputError(f"{source}/{METADATA}: {error}") from None
    return frame, read_pixels(source, list(frame.file_name), size=size)


def gender_of(frame: pd.DataFrame, *, column: str = "gender") -> np.ndarray:
    """Who is labelled male, bool (N,), from `column`; `perceived_gender` stands in where there is no `gender`.

    Words are those of `IS_MALE`, in any case. Raises InputError for a missing column (listing those present) and for any
    other value, an empty one included (naming it, how often it occurs, and where first).
    """
    if column == "gender" and column not in frame:
        column = "perceived_gender" if "perceived_gender" in frame else column
    if column not in frame:
        raise InputError(f"no column `{column}` among {', '.join(map(str, frame))}. "
                         f"Add one that says {_words()} for every picture.")
    words = frame[column].astype("string").fillna("").str.strip()
    is_male = words.str.lower().map(IS_MALE)
    unknown = words[is_male.isna()]
    if len(unknown):
        raise InputError(f"column `{column}` holds {_unknown_values(unknown, frame)}. Known words are {_words()}: "
                         "mend these rows or take them out.")
    return is_male.to_numpy(bool)


def draw_subset(frame: pd.DataFrame, *, ratio: float, size: int, seed: int, column: str = "gender") -> np.ndarray:
    """Positions (sorted int array, `size` of them) of a training set in which male : female = `ratio`.

    0.25 is 20:80 of 100, 4 is 80:20; counts are the nearest whole numbers. One permutation a gender, drawn from `seed`, is
    cut to length, so a smaller set is part of every larger one of the same ratio and seed.
    Raises InputError when the faces cannot give exactly that, saying what they can.
    """
    if not (np.isfinite(ratio) and ratio > 0 and size >= 1):
        raise InputError(f"ratio {ratio:g} and size {size}: a ratio (males per female) is above 0, a size at least 1.")
    is_male = gender_of(frame, column=column)
    have = np.array([is_male.sum(), (~is_male).sum()])
    need = counts_at(ratio, size)
    if not need.all():
        raise InputError(f"ratio {ratio:g} with {size} faces: comes to {need[0]} male and {need[1]} female. "
                         "Give a larger size, or a ratio nearer to 1.")
    if (need > have).any():
        sizes = np.arange(1, have.sum() + 1)
        largest = sizes[(counts_at(ratio, sizes) <= have).all(-1)].max(initial=0)
        raise InputError(f"ratio {ratio:g} with {size} faces needs {need[0]} male and {need[1]} female, "
                         f"but there are {have[0]} male and {have[1]} female. "
                         f"The largest size this ratio allows is {largest}.")
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(np.flatnonzero(group)) for group in (is_male, ~is_male)]
    return np.sort(np.concatenate([order[:count] for order, count in zip(orders, need, strict=True)]))


def natural_images(*, size: int, count: int, seed: int) -> np.ndarray:
    """The "other" class: uint8 (count, size, size, 3), squares cut from `NATURAL_IMAGES`.

    Picture, place, scale (log-uniform from `size` pixels to the whole shorter side) and mirroring are drawn from `seed`;
    the first k of a longer series are the series of k. No network is used.
    """
    pictures = [_installed_picture(package, path) for package, paths in NATURAL_IMAGES.items() for path in paths]
    generator = np.random.default_rng(seed)
    out = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        out[index] = _random_square(pictures[generator.integers(len(pictures))], size, generator)
    return out


def _read_picture(files: Files, name: str, *, size: int) -> np.ndarray:
    try:
        image = decode(files.read(name))
    except (KeyError, FileNotFoundError):
        raise InputError(f"{files.source}/{name}: {METADATA} names this picture, but it is not there. "
                         "Put it back or take its row out.") from None
    except (Rejected, OSError) as error:
        said = f"{error.reason} ({error.detail})" if isinstance(error, Rejected) else f"not readable ({error})"
        raise InputError(f"{files.source}/{name}: {said}. Run `debiaslib curate` to sort such files out.") from None
    if min(image.size) < SMALLEST:
        raise InputError(f"{files.source}/{name}: {image.width} x {image.height} pixels, at least {SMALLEST} a side are needed. "
                         "Run `debiaslib curate` to sort such files out.")
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def rows_of_split(frame: pd.DataFrame, split: str | None, source: Path | str) -> pd.DataFrame:
    """The rows of `frame`, read from `source`, that belong to `split`, index 0 ... N-1; all where it is None or empty. Raises InputError for none."""
    if not split:
        return frame
    if "split" not in frame:
        raise InputError(f"{source}/{METADATA}: no column `split` among {', '.join(frame)}, so there is no split `{split}`. "
                         "Leave the split out to use every row.")
    rows = frame[frame["split"] == split].reset_index(drop=True)
    if rows.empty:
        counts = ", ".join(f"{name} ({count})" for name, count in frame["split"].value_counts().items())
        raise InputError(f"{source}/{METADATA}: no rows of split `{split}`. There are {counts}.")
    return rows


def _unknown_values(unknown: pd.Series, frame: pd.DataFrame) -> str:
    """`"X" in 3 rows (a.jpg, b.jpg, ...)`, the commonest values first."""
    names = frame["file_name"] if "file_name" in frame else pd.Series(frame.index.astype(str), frame.index)
    said = []
    for value, count in unknown.value_counts().head(5).items():
        where = names[unknown.index[unknown == value]].astype(str)
        said.append(f'"{value}" in {count} row{"s" * (count > 1)} ({", ".join(where.head(3))}{", ..." * (count > 3)})')
    return "; ".join(said)


def _words() -> str:
    return "/".join(word.capitalize() for word in IS_MALE)


def counts_at(ratio: float, size: int | np.ndarray) -> np.ndarray:
    """Whole numbers (..., 2) of male and female faces nearest to `ratio` among `size`; a half goes to the men."""
    male = np.floor(np.asarray(size) * ratio / (1 + ratio) + 0.5).astype(int)
    return np.stack([male, size - male], axis=-1)


def _installed_picture(package: str, path: str) -> Image.Image:
    # Without importing the package: scikit-image's own loaders may reach for the network, a file beside it cannot.
    folder = Path(importlib.util.find_spec(package).origin).parent
    with Image.open(folder / path) as image:
        return image.convert("RGB")


def _random_square(picture: Image.Image, size: int, generator: np.random.Generator) -> np.ndarray:
    longest = min(picture.size)
    side = int(round(np.exp(generator.uniform(np.log(min(size, longest)), np.log(longest)))))
    left, top = (int(generator.integers(length - side + 1)) for length in picture.size)
    square = picture.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    pixels = np.asarray(square)
    return pixels[:, ::-1] if generator.random() < 0.5 else pixels

"""Files that are there whole or not at all, whenever a run is killed or the disk fills up."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debiaslib.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. It is moved into place at the end, or removed if anything goes wrong.

    A reader finds the old file or the new one, never half of one. Parent folders are made. An error that does not say which
    file it is about (those of a full disk do not) is told.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if getattr(error, "filename", None) is None:
            error.filename = str(path)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, at once or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def read_record(path: Path) -> dict:
    """The JSON object in `path`, which this kit wrote. Raises InputError when it is broken or something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Restore it, or delete it if its folder may be made anew.") from None
    if not isinstance(record, dict):
        raise InputError(f"{path}: holds no record. Restore it, or delete it if its folder may be made anew.")
    return record


def publish(work: Path, out: Path, *, aside: str = ".replaced") -> None:
    """Put the finished folder `work` in place of `out`; what was there lies inside the new one until that is in place, and comes
    back where that fails."""
    try:
        if out.exists():
            os.replace(out, work / aside)
        os.replace(work, out)
    except BaseException:
        if not out.exists() and (work / aside).exists():
            os.replace(work / aside, out)
        raise
    shutil.rmtree(out / aside, ignore_errors=True)

"""Label tables of a face set: read, joined to its files by name, and mended where a spreadsheet mangled them."""

import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pandas as pd

from debiaslib.errors import InputError
from debiaslib.faces import IS_MALE, METADATA, Files

OWN_COLUMNS = ("file_name", "source_name", "width", "height", "sha256")
"""What curation itself says of a picture; labels under these names are dropped."""
KEPT_APART = ("reason", "detail", "pixels", "code")
"""What its journal says besides; labels under these names get `label_` before them."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AS_DATE = re.compile(r"(?P<day>\d{1,2})[-/. ](?P<month>[a-z]{3,4})|(?P<first>[a-z]{3,4})[-/. ](?P<year>\d{1,2})", re.I)
_RANGE = re.compile(r"\d{1,3}\s*[-–]\s*\d{1,3}")
_AGE = re.compile(r"\d+(\.\d+)?|\d+\s*[-–]\s*\d+|\d+\s*\+|(more than|over|under|less than)\s+\d+", re.I)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The label tables of a source, joined by file name: one row a file, every value a string, "" where there is none."""

    table: pd.DataFrame
    mended: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unknown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    without_file: tuple[str, ...] = ()

    def notes(self, unlabelled: int) -> list[str]:
        """What a reader should know of them, in sentences; `unlabelled` accepted pictures have no label."""
        notes = []
        for column, values in self.mended.items():
            said = ", ".join(f'"{found}" -> "{right}"' for found, right in values.items())
            notes.append(f"Mended in column `{column}`, where a spreadsheet had made dates of ranges: {said}.")
        for column, counts in self.unknown.items():
            said = ", ".join(f'"{value}" ({count})' for value, count in counts.items())
            notes.append(f"Unknown values in column `{column}`, kept as they are: {said}. Later steps may refuse them.")
        if len(self.table.columns) and unlabelled:
            notes.append(f"Accepted pictures without labels: {unlabelled}.")
        if self.without_file:
            notes.append(f"Label rows without a file: {len(self.without_file)} (the first: {self.without_file[0]}).")
        return notes


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
    table = table.rename(columns={column: f"label_{column}" for column in KEPT_APART})
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

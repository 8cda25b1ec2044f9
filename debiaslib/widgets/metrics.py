"""Fairness as it is read: what the number of pictures, the judge's errors and the true share do to FD and to its doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

import ipywidgets
import numpy as np
import pandas as pd

from debiaslib import fairness
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval
from debiaslib.widgets.parts import WithReading

SIZES = (2, 10, 50, 100, 200, 400, 800, 1600, 5000)
SAMPLES = 20
AUDITED = 424
"""Labelled faces of each gender that recalls set by hand are taken as known from: about as many as the shipped judge's."""
NEEDED = ("ratio", "alpha", "n", "abstained", "male_share")
MADE_UP = "made up"
_BLUE, _MARK, _BAND = "#0072B2", "#D55E00", "#dddddd"  # Okabe and Ito's blue and vermilion: told apart by every kind of eye
_CELL = 'style="text-align:left; padding:3px 14px 3px 0"'


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a judge's counts of one model say. `truth` is the true share of men where somebody made it up, else None.

    `corrected` is None where nothing can be corrected; `problems` says in words what is wrong, a sentence each.
    """

    men: int
    decided: int
    confusion: Confusion
    truth: float | None = None
    share: Interval | None = None
    fd: Interval | None = None
    band: float | None = None
    corrected: Interval | None = None
    problems: tuple[str, ...] = ()


def confusion_of(recall_men: float, recall_women: float, *, audited: int = AUDITED) -> Confusion:
    """The counts of a judge with these recalls in [0, 1], known from `audited` labelled faces of each gender."""
    if not (0 <= recall_men <= 1 and 0 <= recall_women <= 1):
        raise InputError(f"recalls {recall_men} (men) and {recall_women} (women): both lie in [0, 1].")
    men, women = round(recall_men * audited), round(recall_women * audited)
    return Confusion(men_read_man=men, men_read_woman=audited - men, women_read_man=audited - women, women_read_woman=women)


def made_up(*, n: int, share: float, confusion: Confusion, sample: int = 0) -> Reading:
    """The reading of `n` decided pictures of a model whose true share of men is `share`.

    `sample` 0 gives the count to be expected, any other number one that chance might give, always the same for that
    number. Raises InputError on n below 1 or a share outside [0, 1]; extremes within that are told in `problems`.
    """
    if n < 1 or not 0 <= share <= 1:
        raise InputError(f"n = {n} and share {share}: give one picture or more, and a share in [0, 1].")
    chance = float(np.clip(share * confusion.recall_men + (1 - share) * (1 - confusion.recall_women), 0, 1))
    men = round(n * chance) if sample == 0 else int(np.random.default_rng(sample).binomial(n, chance))
    return read_counts(men, n, confusion=confusion, truth=share)


def read_row(row: pd.Series, *, confusion: Confusion) -> Reading:
    """The reading of a sweep's row (`n`, `abstained`, `male_share`), whose true share nobody knows."""
    decided = int(row["n"] - row["abstained"])
    return read_counts(round(row["male_share"] * decided) if decided else 0, decided, confusion=confusion)


def read_counts(men: int, decided: int, *, confusion: Confusion, truth: float | None = None) -> Reading:
    """Share, FD, null band and corrected FD of `men` read among `decided` pictures, and what is wrong with them."""
    if not decided:
        return Reading(men=0, decided=0, confusion=confusion, truth=truth,
                       problems=("The judge decided on no picture, so there is no share and no FD.",))
    corrected = None
    if not _at_chance(confusion):
        corrected = fairness.corrected_discrepancy(men, decided, confusion)
    band = fairness.null_band(decided)
    return Reading(men=men, decided=decided, confusion=confusion, truth=truth, band=band, corrected=corrected,
                   share=fairness.share_interval(men, decided), fd=fairness.discrepancy_interval([men, decided - men]),
                   problems=tuple(_problems(men, decided, confusion, truth, band, corrected)))


def verdict(reading: Reading) -> str:
    """What may be said of this reading, in a sentence or two."""
    if reading.fd is None:
        return "Nothing can be said."
    inside = reading.fd.estimate <= reading.band
    said = [f"As read, FD lies {'inside' if inside else 'outside'} the null band: an even model that is read without error "
            f"{'looks the same' if inside else 'hardly ever looks like this'}."]
    if reading.corrected is not None:
        even = reading.corrected.low == 0
        said.append(f"With the judge's errors taken out, an even model is {'not ruled out' if even else 'ruled out'}.")
    if reading.truth is not None and reading.corrected is not None:
        true = abs(reading.truth - 0.5)
        held = [f"the interval {name}" for name, found in (("as read", reading.fd), ("corrected", reading.corrected))
                if found.low - 1e-9 <= true <= found.high + 1e-9]
        said.append(f"The true FD of {true:.3f} lies in {' and in '.join(held) or 'neither interval'}.")
    return " ".join(said)


def readout(reading: Reading, *, title: str = "") -> str:
    """The reading as HTML: a table of figures with their intervals, what they say, what is wrong, and the `picture`.

    Where no script runs and no picture is shown, table and sentences say it all.
    """
    told = (f"{reading.decided} decided pictures; the judge's recall is {reading.confusion.recall_men:.3f} of men and "
            f"{reading.confusion.recall_women:.3f} of women")
    head = "".join(f'<th scope="col" {_CELL}>{name}</th>' for name in ("", "estimate", "95 % interval"))
    body = "".join(f'<tr><th scope="row" {_CELL}>{name}</th><td {_CELL}>{value}</td><td {_CELL}>{ends}</td></tr>'
                   for name, value, ends in _lines(reading))
    wrong = "".join(f'<li style="color:#a33400">{escape(problem)}</li>' for problem in reading.problems)
    shown = f'<p><img alt="{escape(_described(reading))}" src="{picture_address(reading)}"></p>' if reading.fd else ""
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{escape(title + ': ' if title else '')}{told}.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{shown}<p>{escape(verdict(reading))}</p>" + (f"<ul>{wrong}</ul>" if wrong else ""))


def picture(reading: Reading) -> str:
    """FD as read and corrected as an SVG, on one axis from 0 to .5: a point and its interval each, the null band grey,
    the true FD (where it is known) a dashed line."""
    rows = [("as read", reading.fd, 38)] + ([("corrected", reading.corrected, 74)] if reading.corrected else [])
    parts = [f"<rect x='{_x(0)}' y='20' width='{_x(reading.band) - _x(0):.1f}' height='36' fill='{_BAND}'/>",
             f"<line x1='{_x(0)}' y1='96' x2='{_x(0.5)}' y2='96' stroke='#333'/>"]
    for tick in (0, 0.1, 0.2, 0.3, 0.4, 0.5):
        parts.append(f"<line x1='{_x(tick)}' y1='96' x2='{_x(tick)}' y2='100' stroke='#333'/>"
                     f"<text x='{_x(tick)}' y='113' text-anchor='middle'>{tick:g}</text>")
    parts.append(f"<text x='{_x(0.25)}' y='130' text-anchor='middle'>FD (tv); grey: the null band</text>")
    if reading.truth is not None:
        true = _x(abs(reading.truth - 0.5))
        parts.append(f"<line x1='{true}' y1='14' x2='{true}' y2='96' stroke='{_MARK}' stroke-dasharray='5 3'/>"
                     f"<text x='{true}' y='11' text-anchor='middle' fill='{_MARK}'>true</text>")
    for name, found, y in rows:
        parts.append(f"<text x='8' y='{y + 4}'>{name}</text>"
                     f"<line x1='{_x(found.low)}' y1='{y}' x2='{_x(found.high)}' y2='{y}' stroke='{_BLUE}'/>"
                     f"<circle cx='{_x(found.estimate)}' cy='{y}' r='5' fill='{_BLUE}'/>")
    return ("<svg xmlns='http://www.w3.org/2000/svg' width='480' height='138' viewBox='0 0 480 138' stroke-width='2' "
            f"font-family='sans-serif' font-size='12'><rect width='480' height='138' fill='white'/>{''.join(parts)}</svg>")


def picture_address(reading: Reading) -> str:
    """The `picture` as a data address: text in an `img`, so that what shows no pictures shows their description instead."""
    return "data:image/svg+xml;utf8," + quote(picture(reading), safe=" ='/:;,.()-")


class MetricExplorer(WithReading):
    """Sliders for the number of pictures, the true share, the judge's recalls and chance, above a `readout`.

    `rows` are a sweep's: the slider "row" walks along them, and then counts are a row's own and only the recalls can be
    moved. Moving the number, the share or the sample leads back to what is made up. `confusion` is the judge's, and the
    recalls begin there; once they are moved they are taken as known from `AUDITED` faces of each gender.
    """

    def __init__(self, rows: pd.DataFrame, *, confusion: Confusion):
        missing = [name for name in NEEDED if name not in rows]
        if missing:
            raise InputError(f"rows: no column {missing[0]!r}. Give the rows of a sweep's table1.csv.")
        self.rows, self.confusion = rows.reset_index(drop=True), confusion
        self.row = ipywidgets.SelectionSlider(options=[(MADE_UP, -1), *zip(_names(self.rows), self.rows.index, strict=True)],
                                              description="row", **_LOOK)
        self.n = ipywidgets.SelectionSlider(options=SIZES, value=800, description="pictures", **_LOOK)
        self.share = _slider("true share of men", 0.5)
        self.recall_men = _slider("recall of men", round(confusion.recall_men, 2))
        self.recall_women = _slider("recall of women", round(confusion.recall_women, 2))
        self.sample = ipywidgets.IntSlider(0, 0, SAMPLES, description="sample (0: expected)", **_LOOK)
        self._start = self.recall_men.value, self.recall_women.value
        self.readout = ipywidgets.HTML(self._now())
        controls = self.row, self.n, self.share, self.recall_men, self.recall_women, self.sample
        super().__init__([*controls, self.readout])
        for control in (self.n, self.share, self.sample):
            control.observe(self._make_up, names="value")
        for control in (self.row, self.recall_men, self.recall_women):
            control.observe(self._show, names="value")

    @property
    def reading(self) -> Reading:
        """What the controls stand for."""
        recalls = self.recall_men.value, self.recall_women.value
        confusion = self.confusion if recalls == self._start else confusion_of(*recalls)
        if self.row.value >= 0:
            return read_row(self.rows.loc[self.row.value], confusion=confusion)
        return made_up(n=self.n.value, share=self.share.value, confusion=confusion, sample=self.sample.value)

    def __repr__(self) -> str:
        values = {name: getattr(self, name).value for name in ("n", "share", "recall_men", "recall_women", "sample")}
        told = ", ".join(f"{name}={value:g}" for name, value in values.items())
        return f"MetricExplorer(row={self.row.label!r}, {told})"

    def _now(self) -> str:
        title = self.row.label if self.row.value >= 0 else f"made up, {self.share.value:.0%} men"
        return readout(self.reading, title=title)

    def _make_up(self, change: dict) -> None:
        if self.row.value >= 0:
            self.row.value = -1  # which shows
        else:
            self._show(change)

    def _show(self, _change: dict) -> None:
        self.readout.value = self._now()


_LOOK = {"style": {"description_width": "11em"}, "layout": {"width": "40em"}}


def _slider(name: str, value: float) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(value, min=0, max=1, step=0.01, readout_format=".2f", description=name, **_LOOK)


def _names(rows: pd.DataFrame) -> Sequence[str]:
    """A name a row: its ratio and alpha, and its indicator and training seed where the table has several."""
    names = [f"ratio {row.ratio:g}, alpha {row.alpha:g}" for row in rows.itertuples()]
    for column in ("indicator", "seed"):
        if column in rows and rows[column].nunique() > 1:
            names = [f"{name}, {column} {value}" for name, value in zip(names, rows[column], strict=True)]
    if len(set(names)) < len(names):
        names = [f"{place + 1}: {name}" for place, name in enumerate(names)]
    return names


def _at_chance(confusion: Confusion) -> bool:
    return confusion.recall_men + confusion.recall_women <= 1 + fairness.CHANCE


def _problems(men: int, decided: int, confusion: Confusion, truth: float | None, band: float,
              corrected: Interval | None) -> Sequence[str]:
    both, said = confusion.recall_men + confusion.recall_women, []
    if band >= 0.5:
        said.append(f"{_pictures(decided)} too few: an even model may read any FD there is, up to .5.")
    elif decided < 100:
        said.append(f"{_pictures(decided)} few: an even model reads an FD of up to {band:.3f} by chance alone.")
    if both < 1 - fairness.CHANCE:
        said.append(f"The recalls add up to {both:.2f}, below 1: this judge takes men for women and women for men more "
                    "often than a coin would. Nothing is corrected with it.")
    elif corrected is None:
        said.append(f"The recalls add up to {both:.2f}, hardly more than 1: this judge says \"man\" as readily of women as "
                    "of men, so its reading says nothing of who was drawn. There is no corrected FD.")
    else:
        said += _overruns(men / decided, confusion, corrected)
    if truth in (0, 1):
        said.append(f"Everybody is a {'man' if truth else 'woman'}: the true FD is .5, the largest there is, and chance can "
                    "only lower it.")
    return said


def _overruns(read: float, confusion: Confusion, corrected: Interval) -> Sequence[str]:
    """Readings that this judge would not give of any model, but for chance."""
    least, most = 1 - confusion.recall_women, confusion.recall_men
    if least <= read <= most:
        return []
    bound, who = (least, "nobody") if read < least else (most, "everybody")
    shrunk = " The interval has shrunk to a point: this confusion does not fit these pictures." \
        if corrected.low == corrected.high else ""
    return [f"A share of {read:.3f} was read as men, but of pictures where {who} is a man this judge reads {bound:.3f} so: "
            f"the corrected share is cut off at {0 if read < least else 1}.{shrunk}"]


def _lines(reading: Reading) -> Sequence[tuple[str, str, str]]:
    """Name, estimate and interval of every figure there is."""
    lines = [] if reading.truth is None else [("true FD", f"{abs(reading.truth - 0.5):.3f}", "made up, so known")]
    if reading.fd is None:
        return lines
    lines += [(f"read as men ({reading.men} of {reading.decided})", f"{reading.share.estimate:.3f}", _ends(reading.share)),
              ("FD as read", f"{reading.fd.estimate:.3f}", _ends(reading.fd)),
              ("null band at this number", f"{reading.band:.3f}", "an even model stays below")]
    found = reading.corrected
    return [*lines, ("FD corrected", "none", "the judge is at chance") if found is None else
            ("FD corrected", f"{found.estimate:.3f}", _ends(found))]


def _pictures(number: int) -> str:
    return "1 picture is" if number == 1 else f"{number} pictures are"


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _described(reading: Reading) -> str:
    told = "; ".join(f"{name}: {value}, {ends}" for name, value, ends in _lines(reading))
    return f"FD on a line from 0 to .5. {told}."


def _x(fd: float) -> float:
    """Where an FD lies in the picture, in its pixels."""
    return round(92 + 720 * fd, 1)

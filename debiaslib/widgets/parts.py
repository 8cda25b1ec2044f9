"""What several widgets share: work that runs beside the kernel and can be stopped, and pictures as PNG and HTML."""

import base64
import io
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from debiaslib.errors import InputError
from debiaslib.generate import OnStep, PromptCut

Work = Callable[[OnStep], str]
"""Does something, tells `OnStep` how far it is, and returns what to say at the end."""
FRAME = (213, 94, 0)
"""Okabe and Ito's vermilion, around what is chosen."""
BAR, MARK = "#0072B2", "#D55E00"
"""Okabe and Ito's blue and vermilion: told apart by every kind of eye."""
MARGIN, HEAD = 40, 30
"""Pixels left of a grid and above it, for its names; a name above may have two lines."""


class Stopped(Exception):
    """Somebody pressed stop."""


class Runner(ipywidgets.VBox):
    """Two buttons, go and stop, a bar and a line of words. Work runs in a thread, so the kernel answers meanwhile.

    Whatever goes wrong is said in words, and another attempt can be made. `wait` blocks until the work is done.
    """

    def __init__(self, label: str, work: Work, *, hint: str = ""):
        self.work = work
        self.go = ipywidgets.Button(description=label, button_style="primary", tooltip=hint)
        self.stop = ipywidgets.Button(description="stop", disabled=True, tooltip="after the present step")
        self.bar = ipywidgets.IntProgress(value=0, max=1, layout={"width": "180px"})
        self.status = ipywidgets.HTML(said(hint))
        super().__init__([ipywidgets.HBox([self.go, self.stop, self.bar]), self.status])
        self._asked, self._thread = threading.Event(), None
        self.go.on_click(lambda _button: self.start())
        self.stop.on_click(lambda _button: self._asked.set())

    @property
    def running(self) -> bool:
        """Whether work is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, unless work is under way already."""
        if self.running:
            return
        self._asked.clear()
        self.go.disabled, self.stop.disabled, self.bar.value = True, False, 0
        self.status.value = said("Starting ...")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Until the work under way is done, or `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", PromptCut)
                words, ok = self.work(self._step), True
            words = " ".join([words, *(f"Note: {note.message}" for note in caught if note.category is PromptCut)])
        except Stopped:
            words, ok = f"Stopped after {self.bar.value} of {self.bar.max} steps. Nothing was drawn.", True
        except InputError as error:
            words, ok = str(error), False
        except Exception as error:  # the kernel and the widget live on, whatever it was
            words, ok = f"A fault of the kit, not of yours: {type(error).__name__}: {error}", False
        self.status.value = said(words, ok=ok)
        self.go.disabled, self.stop.disabled = False, True

    def _step(self, done: int, of: int) -> None:
        if self._asked.is_set():
            raise Stopped
        self.bar.max, self.bar.value = of, done
        self.status.value = said(f"Step {done} of {of}")


class WithReading(ipywidgets.VBox):
    """Controls above a `readout`, their present reading as HTML, which viewers that draw no widgets show instead."""

    readout: ipywidgets.HTML

    def _repr_mimebundle_(self, **options) -> dict:
        """The widget, and beside it its present reading, for viewers that draw no widgets."""
        return super()._repr_mimebundle_(**options) | {"text/html": self.readout.value}


class Explorer(WithReading):
    """Controls above what `read` says of their values, which it takes by the controls' names; each is an attribute as well.

    What `read` cannot give is said in words in its place.
    """

    def __init__(self, read: Callable[..., str], controls: Mapping[str, ipywidgets.ValueWidget]):
        self.read, self.controls, self.readout = read, dict(controls), ipywidgets.HTML()
        for name, control in self.controls.items():
            setattr(self, name, control)
        super().__init__([*self.controls.values(), self.readout])
        for control in self.controls.values():
            control.observe(self._show, names="value")
        self._show()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value:g}' for name, value in self.values.items())})"

    @property
    def values(self) -> dict:
        """What the controls say, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _show(self, _change: dict | None = None) -> None:
        try:
            self.readout.value = self.read(**self.values)
        except InputError as error:
            self.readout.value = said(str(error), ok=False)


def slider_of(name: str, values: Sequence[float], value: float) -> ipywidgets.SelectionSlider:
    """A slider that stops at `values`, as short as they can be written."""
    return ipywidgets.SelectionSlider(options=[(f"{each:g}", each) for each in values], value=value, description=name)


def buttons_of(name: str, values: Sequence[float], value: float) -> ipywidgets.ToggleButtons:
    """A button for each of a few `values`."""
    return ipywidgets.ToggleButtons(options=[(f"{each:g}", each) for each in values], value=value, description=name,
                                    style={"button_width": "4em"})


def alpha_and_ratio(*, alphas: Sequence[float], ratios: Sequence[float], alpha: float) -> dict[str, ipywidgets.ValueWidget]:
    """The controls of whatever was computed for several alphas and mixes."""
    return {"alpha": slider_of("alpha", alphas, alpha), "ratio": buttons_of("men : women", ratios, ratios[0])}


def need_columns(what: str, table: pd.DataFrame, columns: Sequence[str], *, give: str | None = None) -> None:
    """Raises InputError where `table` lacks one of `columns`, and says to `give` these, or something better."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{what}: no column {missing[0]!r} among {', '.join(map(str, table))}. "
                         f"Give {give or ', '.join(columns)}.")


def table_of(caption: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    """An HTML table; `rows` as `row_of` makes them, all of it ready as HTML."""
    head = "".join(f'<th style="text-align:left; padding:2px 12px 2px 0">{name}</th>' for name in heads)
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def row_of(cells: Iterable[str], *, padding: int = 3) -> str:
    """A row of HTML cells, `padding` pixels above and below."""
    style = f"text-align:left; padding:{padding}px 12px {padding}px 0"
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in cells) + "</tr>"


def marked_bar(part: float, mark: float) -> str:
    """A bar filled to `part` of 1, with an upright line at `mark`."""
    return (f'<div style="position:relative; width:240px; height:12px; border:1px solid currentColor" aria-hidden="true">'
            f'<div style="width:{100 * part:.0f}%; height:100%; background:{BAR}"></div>'
            f'<div style="position:absolute; left:{100 * mark:.0f}%; top:-3px; width:2px; height:18px; background:{MARK}">'
            "</div></div>")


def picture_box(*, shown: bool = True) -> ipywidgets.Image:
    """An `Image` for PNGs that keeps its own size, and fits a narrow page."""
    layout = {"align_self": "flex-start", "max_width": "100%"} | ({} if shown else {"display": "none"})
    return ipywidgets.Image(format="png", layout=layout)


def said(words: str, *, ok: bool = True) -> str:
    """A line for people; what they have to mend is marked by a word and not by colour alone."""
    if ok:
        return f'<span role="status">{escape(words)}</span>'
    return f'<span role="alert" style="color:#9a3b00"><b>Not yet.</b> {escape(words)}</span>'


def to_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as a PNG, quickly rather than small."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """A picture's bytes for an `src` attribute; `kind` as in "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def file_uri(path: Path) -> str:
    """A picture file's own bytes for an `src` attribute: the same on every machine."""
    kind = {".jpg": "jpeg"}.get(path.suffix, path.suffix[1:])
    return data_uri(path.read_bytes(), kind)


def labelled_grid(pictures: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], chosen: int | None = None,
                  gap: int = 2) -> np.ndarray:
    """uint8 (R, C, H, W, 3) as one picture with names, and a frame around the `chosen` column."""
    side = pictures.shape[2] + gap
    sheet = Image.new("RGB", (MARGIN + side * len(columns) + gap, HEAD + side * len(rows) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for line, row in enumerate(rows):
        draw.text((2, HEAD + side * line + side // 2 - 6), row, fill="black", font=font)
        for place in range(len(columns)):
            sheet.paste(Image.fromarray(pictures[line, place]), (MARGIN + gap + side * place, HEAD + gap + side * line))
    for place, name in enumerate(columns):
        draw.text((MARGIN + gap + side * place, 2), name, fill="black", font=font)
    if chosen is not None:
        left = MARGIN + side * chosen
        draw.rectangle((left, HEAD, left + side + gap - 1, HEAD + side * len(rows) + gap - 1), outline=FRAME, width=gap)
    return np.asarray(sheet)

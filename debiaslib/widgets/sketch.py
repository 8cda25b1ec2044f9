"""A pad to draw a face on: brush, eraser, undo and clear, over nothing, over a line face, or over a face to trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import ipywidgets
import numpy as np
import traitlets
from ipycanvas import MultiCanvas, hold_canvas

from debiaslib.contours import scribble_lines

SIDE = 320
"""Pixels of the pad."""
BLANK, LINE_FACE = "nothing", "a line face"


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """One movement of the brush: points in pixels of the pad, and its width; with `erase` it takes ink away."""

    points: tuple[tuple[float, float], ...]
    width: int
    erase: bool = False


def ink_of(strokes: Sequence[Stroke], *, ground: np.ndarray | None = None, side: int = SIDE) -> np.ndarray:
    """What strokes leave on a pad, in their order: uint8 (side, side, 4), black, as opaque as there is ink.

    `ground`, uint8 (h, w), are lines that lie there before the first stroke, 255 where there is ink.
    """
    ink = np.zeros((side, side), np.uint8) if ground is None else cv2.resize(ground, (side, side))
    for stroke in strokes:
        points = np.round(np.array(stroke.points) * 16).astype(np.int32)  # OpenCV's fixed point: a sixteenth of a pixel
        cv2.polylines(ink, [np.concatenate([points, points[-1:]])], False, 0 if stroke.erase else 255, stroke.width,
                      cv2.LINE_AA, 4)
    out = np.zeros((side, side, 4), np.uint8)
    out[..., 3] = ink
    return out


def line_face(side: int = SIDE) -> np.ndarray:
    """A plain face in lines, uint8 (side, side), 255 on 0, placed like this kit's faces: eyes at .30 and .70 of the width
    and .40 of the height."""
    lines = np.zeros((side, side), np.uint8)

    def arc(x: float, y: float, wide: float, high: float, start: int = 0, end: int = 360) -> None:
        centre, axes = (round(x * side), round(y * side)), (round(wide * side), round(high * side))
        cv2.ellipse(lines, centre, axes, 0, start, end, 255, max(2, side // 64), cv2.LINE_AA)

    arc(0.5, 0.5, 0.42, 0.5, 20, 160)
    for eye in (0.3, 0.7):
        arc(eye, 0.4, 0.085, 0.035)
        arc(eye, 0.33, 0.12, 0.06, 200, 340)
    arc(0.5, 0.56, 0.07, 0.05, 10, 170)
    arc(0.5, 0.7, 0.16, 0.07, 10, 170)
    arc(0.5, 0.71, 0.16, 0.02, 180, 360)
    return lines


class SketchPad(ipywidgets.VBox):
    """A pad and its tools. `strokes` and `ground` hold the drawing; whatever changes them redraws the pad.

    `faces`: names and pictures uint8 (H, W, 3) that can lie under the pad, faintly, to be traced.
    """

    strokes = traitlets.Tuple()
    ground = traitlets.Any(None, allow_none=True)

    def __init__(self, faces: Mapping[str, np.ndarray] | None = None):
        self.faces = dict(faces or {})
        self.pad = MultiCanvas(2, width=SIDE, height=SIDE, layout={"border": "1px solid #888", "width": f"{SIDE}px"})
        self.base = ipywidgets.Dropdown(options=[BLANK, LINE_FACE, *self.faces], description="draw on")
        self.trace = ipywidgets.Button(description="use its lines", disabled=True, tooltip="lines of the face underneath")
        self.tool = ipywidgets.ToggleButtons(options=["brush", "eraser"], style={"button_width": "5em"})
        self.width = ipywidgets.IntSlider(value=6, min=2, max=24, description="width")
        self.undo = ipywidgets.Button(description="undo")
        self.clear = ipywidgets.Button(description="clear")
        super().__init__([ipywidgets.HBox([self.base, self.trace]), self.pad, ipywidgets.HBox([self.tool, self.width]),
                          ipywidgets.HBox([self.undo, self.clear])])
        self._under_way: list[tuple[float, float]] = []
        self._listen()

    @property
    def picture(self) -> np.ndarray:
        """The drawing, uint8 (SIDE, SIDE, 4), as `contours.sketch_of` takes it."""
        return ink_of(self.strokes, ground=self.ground)

    def press(self, x: float, y: float) -> None:
        """The brush comes down at a place of the pad, in pixels."""
        self._under_way = [(x, y)]

    def move(self, x: float, y: float) -> None:
        """The brush moves; nothing happens while it is up."""
        if not self._under_way:
            return
        top, last = self.pad[1], self._under_way[-1]
        with hold_canvas():
            top.line_width, top.line_cap, top.stroke_style = self.width.value, "round", "black"
            top.global_composite_operation = "destination-out" if self._erasing else "source-over"
            top.stroke_line(*last, x, y)
            top.global_composite_operation = "source-over"
        self._under_way.append((x, y))

    def lift(self) -> None:
        """The brush leaves the pad: its movement becomes a stroke."""
        if self._under_way:
            points, self._under_way = tuple(self._under_way), []
            self.strokes = (*self.strokes, Stroke(points=points, width=self.width.value, erase=self._erasing))

    @property
    def _erasing(self) -> bool:
        return self.tool.value == "eraser"

    def _listen(self) -> None:
        self.pad.on_mouse_down(self.press)
        self.pad.on_mouse_move(self.move)
        for leave in (self.pad.on_mouse_up, self.pad.on_mouse_out):
            leave(lambda x, y: self.lift())
        self.pad.on_touch_start(lambda touches: self.press(*touches[0][:2]))
        self.pad.on_touch_move(lambda touches: self.move(*touches[0][:2]))
        self.pad.on_touch_end(lambda touches: self.lift())
        self.pad.on_client_ready(self._redraw)  # a page that opens later gets an empty pad
        self.observe(lambda change: self._redraw(), names=["strokes", "ground"])
        self.base.observe(self._change_base, names="value")
        self.trace.on_click(lambda _button: setattr(self, "ground", scribble_lines(self.faces[self.base.value][None])[0]))
        self.undo.on_click(lambda _button: self._undo())
        self.clear.on_click(lambda _button: self._clear())

    def _undo(self) -> None:
        if self.strokes:
            self.strokes = self.strokes[:-1]
        else:
            self.ground = None

    def _clear(self) -> None:
        self.strokes, self.ground = (), None

    def _change_base(self, _change: dict) -> None:
        self.trace.disabled = self.base.value not in self.faces
        self.ground = line_face() if self.base.value == LINE_FACE else None
        self._redraw()

    def _redraw(self) -> None:
        with hold_canvas():
            under, top = self.pad[0], self.pad[1]
            under.fill_style = "white"
            under.fill_rect(0, 0, SIDE, SIDE)
            if self.base.value in self.faces:
                under.put_image_data(_faint(self.faces[self.base.value]))
            top.clear()
            top.put_image_data(self.picture)


def _faint(face: np.ndarray) -> np.ndarray:
    """A face as it lies under the pad: large and half as strong, uint8 (SIDE, SIDE, 3)."""
    large = cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return (255 - (255 - large.astype(np.uint16)) // 2).astype(np.uint8)

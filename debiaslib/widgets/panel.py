"""Faces from a prompt, from a contour, or from your own strokes: the panel that the notebooks and the app show."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import ipywidgets
import numpy as np

from debiaslib.contours import (
    STYLES,
    Contour,
    canny_lines,
    chamfer_distance,
    contour_of,
    edge_agreement,
    open_picture,
    sketch_of,
)
from debiaslib.errors import InputError
from debiaslib.gallery import Gallery, Studio, blend, load_gallery
from debiaslib.generate import ControlGuide, Guide, ImageGuide, OnStep, PromptCut, counted
from debiaslib.widgets.alpha import name_of, static_grid
from debiaslib.widgets.parts import Runner, labelled_grid, picture_box, said, to_png
from debiaslib.widgets.sketch import SketchPad

PURPOSE = """<p><b>What this is for:</b> to see how a small face generator works, and whom it draws when nobody says whom.
Every face it draws is nobody's. <b>What it is not for:</b> identifying people, judging them, deciding about them, or passing
its pictures off as somebody. A photograph that you give it <b>stays on this machine</b>: it is turned into lines in memory,
is not stored, and goes nowhere.</p>"""
SOURCES = ("prompt alone", "contour of a picture", "sketch")
METHODS = {"ControlNet": ("ControlNet",), "image-to-image": ("image-to-image",), "both": ("ControlNet", "image-to-image")}
MOST = 8
"""Pictures at once."""
BASE = "base model"
"""On the alpha slider, where no adapter is to be used."""
LIMIT = """<small style="display:block; line-height:1.4">PNG, JPEG or alike, up to 50 MB (10 MB in a JupyterLab that
<code>make lab</code> did not open). What is larger never arrives: see which file is named beside its lines.</small>"""
"""Beside the upload. What the server does not let through, the kernel never hears of, so it cannot say so."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to draw: a picture a seed and alpha (None: the base model), by each of `methods` where there is a contour
    (`strength` is image-to-image's, `scale` the ControlNet's; `origin` says in words where the contour comes from)."""

    prompt: str
    seeds: tuple[int, ...]
    steps: int = 20
    guidance: float = 2.0
    alphas: tuple[float | None, ...] = (None,)
    contour: Contour | None = None
    origin: str = ""
    methods: tuple[str, ...] = ("ControlNet",)
    strength: float = 0.98
    scale: float = 1.0


def read_seeds(text: str, *, n: int) -> tuple[int, ...]:
    """n seeds from what was typed: one number is the first of n in a row, several are taken as they are.

    Raises InputError for anything that is no whole number from 0, and for a list shorter than n.
    """
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() and int(word) < 2**63 for word in words):
        raise InputError(f"seeds {text!r}: give one whole number, the first of {n}, or a list such as 3, 8, 12.")
    seeds = tuple(int(word) for word in words)
    if len(seeds) == 1:
        return tuple(range(seeds[0], seeds[0] + n))
    if len(seeds) < n:
        raise InputError(f"seeds: {len(seeds)} for {n} pictures. Give a seed for each, one number alone, or ask for fewer.")
    return seeds[:n]


def draw_request(studio: Studio, request: Request, *, on_step: OnStep | None = None) -> dict[str, np.ndarray]:
    """Pictures uint8 (alphas, seeds, H, W, 3) by the way they were made: "prompt" alone, or one entry a method.

    Raises InputError as `Studio.draw` does, and where a method needs a ControlNet that is not there.
    """
    guides = {name: _guide(studio, request, name) for name in request.methods} if request.contour else {"prompt": None}
    config = studio.config(prompt=request.prompt, steps=request.steps, guidance=request.guidance, batch=MOST)
    ways, found = list(product(guides, request.alphas)), {name: [] for name in guides}
    with warnings.catch_warnings():
        for number, (name, alpha) in enumerate(ways):
            told = on_step and counted(on_step, number, len(ways))
            found[name].append(studio.draw(seeds=request.seeds, config=config, alpha=alpha, guide=guides[name],
                                           on_step=told))
            warnings.simplefilter("ignore", PromptCut)  # once is enough
    return {name: np.stack(drawn) for name, drawn in found.items()}


def _guide(studio: Studio, request: Request, method: str) -> Guide:
    if method == "image-to-image":
        return ImageGuide(contour=request.contour, strength=request.strength)
    return ControlGuide(contour=request.contour, controlnet=studio.controlnet, scale=request.scale)


def agreement_table(pictures: Mapping[str, np.ndarray], request: Request) -> str:
    """How well what `draw_request` gave follows the contour, as HTML: the mean over seeds and their range, a row a method
    and alpha."""
    rows = []
    for name, alpha in product(pictures, request.alphas):
        lines = canny_lines(pictures[name][request.alphas.index(alpha)])
        f1 = np.array([edge_agreement(drawn, request.contour.lines)["f1"] for drawn in lines])
        chamfer = np.array([chamfer_distance(drawn, request.contour.lines) for drawn in lines])
        way = name if len(request.alphas) == 1 else f"{name}, {_column(alpha)}"
        rows.append(f"<tr><td>{way}</td><td>{_ranged(f1)}</td><td>{_ranged(chamfer)}</td></tr>")
    heads = "".join(f'<th style="text-align:left; padding-right:12px">{head}</th>'
                    for head in ("method", "edge F1 (1 is all)", "chamfer distance, pixels of 64"))
    caption = "agreement of the drawn face's lines with the given ones: mean, and range over seeds"
    return (f'<table style="border-spacing:8px 2px"><caption style="text-align:left">{caption}</caption>'
            f"<tr>{heads}</tr>{''.join(rows)}</table>")


def _ranged(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def result_grid(pictures: Mapping[str, np.ndarray], request: Request) -> np.ndarray:
    """What `draw_request` gave as one picture uint8 (H, W, 3), at twice the size: a row a method, a column a seed; of
    several alphas a column each, and a row a seed (a method after the other)."""
    short = {"ControlNet": "Contr.", "image-to-image": "img2img"}
    if len(request.alphas) == 1:
        grid = np.concatenate(list(pictures.values()))
        rows, columns = [short.get(name, name) for name in pictures], [f"seed {seed}" for seed in request.seeds]
    else:
        grid = np.concatenate([drawn.swapaxes(0, 1) for drawn in pictures.values()])
        rows = [f"{short[name]}\nseed\n{seed}" if request.contour else f"seed\n{seed}"
                for name, seed in product(pictures, request.seeds)]
        columns = [_column(alpha) for alpha in request.alphas]
    return labelled_grid(grid.repeat(2, axis=2).repeat(2, axis=3), rows=rows, columns=columns)


def _column(alpha: float | None) -> str:
    return BASE if alpha is None else f"alpha {alpha:g}"


def _size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} KB"


class ReconstructionPanel(ipywidgets.VBox):
    """Prompt, contour or sketch in, faces out. Drawing runs beside the kernel, a step at a time, and can be stopped."""

    def __init__(self, gallery: Gallery | None = None, studio: Studio | None = None):
        self.gallery = gallery or load_gallery()
        self.studio = studio or Studio(self.gallery)
        self.studio.warm()
        self._make_controls()
        self._make_lines()
        self.runner = Runner("generate", self._work, hint="Choose, then press generate.")
        self.result, self.agreement = picture_box(shown=False), ipywidgets.HTML()
        settings = [ipywidgets.HBox([self.seeds, self.n]), ipywidgets.HBox([self.steps, self.guidance]),
                    ipywidgets.HBox([self.alpha, self.every])]
        super().__init__([ipywidgets.HTML(PURPOSE), self.prompt, *settings, self.source, self.lines_box, self.runner,
                          self.result, self.agreement])

    def __repr__(self) -> str:
        return f"ReconstructionPanel({self.source.value}, prompt {self.prompt.value!r})"

    def _repr_mimebundle_(self, **options) -> dict:
        """The widget; and for viewers that draw none what it is for, and faces drawn beforehand."""
        ratio = self.gallery.ratios[0]
        told = f"<p>No kernel runs here, so nothing is drawn now. Faces drawn before, trained at male:female {ratio:g}:</p>"
        faces = static_grid(self.gallery, ratio=ratio, alpha=self.gallery.alphas(ratio)[0])
        return super()._repr_mimebundle_(**options) | {"text/html": PURPOSE + told + faces}

    def request(self) -> Request:
        """What the controls say. Raises InputError for seeds or lines that cannot be used."""
        seeds, (contour, origin) = read_seeds(self.seeds.value, n=self.n.value), self.contour()
        one = None if self.alpha.value == BASE else self.alpha.value
        return Request(prompt=self.prompt.value, seeds=seeds, steps=self.steps.value, guidance=self.guidance.value,
                       alphas=(None, *self.studio.alphas) if self.every.value else (one,), contour=contour, origin=origin,
                       methods=METHODS[self.method.value], strength=self.strength.value, scale=self.scale.value)

    def contour(self) -> tuple[Contour | None, str]:
        """The lines to follow, of the model's size, and in words whose they are, a file with its size, so that none is
        taken for another; (None, "") with the prompt alone. Raises InputError where there are none."""
        if self.source.value == SOURCES[0]:
            return None, ""
        if self.source.value == SOURCES[2]:
            return sketch_of(self.pad.picture, size=self.studio.size), "your sketch"
        if not self.upload.value:
            raise InputError("contour: no picture yet. Choose a file, or sketch one.")
        file = self.upload.value[0]
        name, content = file["name"], bytes(file["content"])
        contour = contour_of(open_picture(name, content=content), size=self.studio.size, style=self.style.value, name=name)
        return contour, f"{name} ({_size(len(content))})"

    def _work(self, on_step: OnStep) -> str:
        try:
            request = self.request()
            pictures = draw_request(self.studio, request, on_step=on_step)
        except Exception:  # the Runner says which; beside its words older faces would pass for an answer
            self.result.layout.display, self.agreement.value = "none", ""
            raise
        self.result.value, self.result.layout.display = to_png(result_grid(pictures, request)), None
        self.agreement.value = agreement_table(pictures, request) if request.contour else ""
        by = (blend(self.studio.alphas, request.alphas[0]) if len(request.alphas) == 1
              else "each of " + ", ".join(map(_column, request.alphas)))
        lines = f" Lines: {request.origin}." if request.contour else ""
        return f"{len(request.seeds)} drawn by {by}.{lines} Steps: {request.steps}."

    def _make_controls(self) -> None:
        wide = {"width": "460px"}
        self.prompt = ipywidgets.Text(value=self.studio.preset.prompt, description="prompt", layout=wide)
        self.seeds = ipywidgets.Text(value="1", description="seeds", placeholder="first, or a list")
        self.n = ipywidgets.IntSlider(value=4, min=1, max=MOST, description="pictures")
        self.steps = ipywidgets.IntSlider(value=20, min=1, max=50, description="steps")
        self.guidance = ipywidgets.FloatSlider(value=self.studio.preset.guidance, min=1, max=8, step=0.5,
                                               description="guidance")
        known = self.gallery.alphas(self.gallery.adapter_ratio) if self.studio.alphas else ()
        options = [(BASE, BASE), *((name_of(self.gallery, alpha), alpha) for alpha in known)]
        self.alpha = ipywidgets.SelectionSlider(options=options, description="alpha", layout=wide)
        self.every = ipywidgets.Checkbox(description="every alpha", indent=False,
                                         layout={"width": "auto", "margin": "2px 2px 2px 16px"},
                                         tooltip="the base model and each trained alpha, the same seeds: a column each")
        ipywidgets.dlink((self.every, "value"), (self.alpha, "disabled"))
        self.source = ipywidgets.ToggleButtons(options=SOURCES, description="follow", style={"button_width": "13em"})

    def _make_lines(self) -> None:
        faces = self.gallery.pictures(self.gallery.ratios[0])[:, 0]
        self.pad = SketchPad({f"the face of seed {seed}": face
                              for seed, face in zip(self.gallery.seeds, faces, strict=True)})
        self.upload = ipywidgets.FileUpload(accept="image/*", description="a picture")
        self.style = ipywidgets.Dropdown(options=list(STYLES), description="drawn by")
        self.method = ipywidgets.ToggleButtons(options=list(METHODS), description="by", style={"button_width": "10em"})
        self.strength = ipywidgets.FloatSlider(value=0.98, min=0.05, max=1, step=0.01, description="strength")
        self.scale = ipywidgets.FloatSlider(value=1.0, min=0, max=2, step=0.1, description="control")
        self.lines, self.lines_said = ipywidgets.Image(format="png", width=128, height=128), ipywidgets.HTML()
        self.lines_box = ipywidgets.HBox(layout={"display": "none"})
        self.photo = ipywidgets.VBox([self.upload, ipywidgets.HTML(LIMIT, layout={"width": "310px"}), self.style])
        self.ways = ipywidgets.VBox([self.method, self.scale, self.strength, self.lines_said, self.lines],
                                    layout={"margin": "0 0 0 16px"})
        for control in (self.source, self.upload, self.style):
            control.observe(self._show_lines, names="value")
        self.pad.observe(self._show_lines, names=["strokes", "ground"])

    def _show_lines(self, _change: dict | None = None) -> None:
        """The tools of the chosen source, and the lines that the model will get."""
        self.lines_box.layout.display = "none" if self.source.value == SOURCES[0] else None
        tools = self.pad if self.source.value == SOURCES[2] else self.photo
        if self.source.value != SOURCES[0] and (not self.lines_box.children or self.lines_box.children[0] is not tools):
            self.lines_box.children = (tools, self.ways)
        try:
            contour, origin = self.contour()
            words, ok = f"What the model gets of {origin}:", True
        except InputError as error:
            contour, words, ok = None, str(error), False
        self.lines.layout.display = None if contour else "none"
        if contour:
            self.lines.value = to_png(contour.lines[..., None].repeat(3, axis=-1))
        self.lines_said.value = said(words, ok=ok)

"""Who appears as alpha grows: faces of the same seeds under a slider, and what was measured of the model that drew them."""

from collections.abc import Sequence
from html import escape

import ipywidgets
import numpy as np
import pandas as pd

from debiaslib.errors import InputError
from debiaslib.fairness import null_band
from debiaslib.gallery import Gallery, Studio, blend, load_gallery
from debiaslib.generate import OnStep
from debiaslib.widgets.parts import Runner, file_uri, labelled_grid, picture_box, to_png

_BAR, _MARK, _DOUBT = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's, told apart by every kind of eye
VIEWS = ("all alphas", "this alpha")


def alpha_reading(gallery: Gallery, *, ratio: float, alpha: float) -> str:
    """What was measured at one ratio and alpha, as HTML: perceived shares and face rate with intervals, and FD.

    At an alpha in between nothing was trained or measured, and it says so. Raises InputError for a ratio or alpha that
    the gallery does not hold.
    """
    if alpha not in gallery.alphas(ratio):
        there = ", ".join(f"{known:g}" for known in gallery.alphas(ratio))
        raise InputError(f"alpha {alpha:g}: no faces of it at ratio {ratio:g}. Choose among {there}.")
    row = gallery.measured(ratio=ratio, alpha=alpha)
    caption = f"male:female {ratio:g}, alpha {alpha:g}: indicator {escape(gallery.indicator)}"
    return _table(f"{caption}, {row['n']:.0f} faces", _measured(row)) if row is not None \
        else _table(caption, _in_between(gallery, ratio, alpha))


def _measured(row: pd.Series) -> str:
    decided = row["n"] - row["abstained"]
    shares = [("read as men, of the decided", *row[["male_share", "male_share_low", "male_share_high"]]),
              ("read as women, of the decided", *(1 - row[["male_share", "male_share_high", "male_share_low"]])),
              ("a face at all, of all drawn", *row[["face_rate", "face_low", "face_high"]])]
    lines = [_line(name, _bar(share, low, high, mark=0.5 if number < 2 else None), _numbers(share, low, high))
             for number, (name, share, low, high) in enumerate(shares)]
    fd = f"{_numbers(*row[['fd', 'fd_low', 'fd_high']])}; a fair model stays below {null_band(int(decided)):.3f}"
    corrected = _numbers(*row[["fd_corrected", "fd_corrected_low", "fd_corrected_high"]])
    abstained = f"on {row['abstained']:.0f} of {row['n']:.0f} faces"
    return "".join([*lines, _line("FD as read", "", fd), _line("FD, judge-corrected", "", corrected),
                    _line("the judge abstained", "", abstained)])


def _in_between(gallery: Gallery, ratio: float, alpha: float) -> str:
    trained = gallery.shares.loc[np.isclose(gallery.shares["ratio"], ratio), "alpha"].tolist()
    neighbours = blend(trained, alpha).weights
    shares = [gallery.measured(ratio=ratio, alpha=known)["male_share"] for known in neighbours]
    between = " and ".join(f"{share:.2f} at alpha {known:g}" for known, share in zip(neighbours, shares, strict=True))
    return (_line("interpolated", "", "nothing was trained here: two adapters, weighted " +
                  " and ".join(f"{weight:.2f}" for weight in neighbours.values()))
            + _line("read as men, of the decided", "", f"not measured; {between}"))


def _numbers(share: float, low: float, high: float) -> str:
    return "not known" if pd.isna(share) else f"{share:.2f} ({low:.2f} to {high:.2f})"


def _bar(share: float, low: float, high: float, *, mark: float | None) -> str:
    parts = [f'<div style="width:{100 * share:.1f}%; height:100%; background:{_BAR}"></div>',
             f'<div style="position:absolute; left:{100 * low:.1f}%; width:{100 * (high - low):.1f}%; top:4px; height:4px; '
             f'background:{_DOUBT}"></div>']
    if mark is not None:
        parts.append(f'<div style="position:absolute; left:{100 * mark:.0f}%; top:-3px; width:2px; height:18px; '
                     f'background:{_MARK}"></div>')
    return (f'<div style="position:relative; width:220px; height:12px; border:1px solid currentColor" aria-hidden="true">'
            f'{"".join(parts)}</div>')


def _line(name: str, bar: str, numbers: str) -> str:
    cells = f'<td style="{_CELL}">{name}</td>'
    if bar:
        return f'<tr>{cells}<td style="{_CELL}">{bar}</td><td style="{_CELL}">{numbers}</td></tr>'
    return f'<tr>{cells}<td style="{_CELL}" colspan="2">{numbers}</td></tr>'


_CELL = "text-align:left; padding:3px 12px 3px 0"


def _table(caption: str, body: str) -> str:
    note = "95 % intervals of one training run; the upright line is one half"
    return (f'<table style="border-collapse:collapse; font-size:14px"><caption style="text-align:left; padding-bottom:4px">'
            f"{caption}</caption><tbody>{body}</tbody></table><small>{note}</small>")


def grid_of(gallery: Gallery, *, ratio: float, alpha: float, view: str = VIEWS[0]) -> np.ndarray:
    """The gallery's faces as one picture uint8 (H, W, 3): seeds along the rows; all alphas, `alpha` framed, or it alone
    (then seeds lie side by side)."""
    alphas, pictures = gallery.alphas(ratio), gallery.pictures(ratio)
    place, seeds = alphas.index(alpha), [str(seed) for seed in gallery.seeds]
    if view == VIEWS[0]:
        return labelled_grid(pictures, rows=seeds, columns=[name_of(gallery, each).replace(" ", "\n") for each in alphas],
                             chosen=place)
    return labelled_grid(pictures[None, :, place], rows=[name_of(gallery, alpha).replace(" ", "\n")], columns=seeds)


def name_of(gallery: Gallery, alpha: float) -> str:
    """An alpha as it is shown: an interpolated one with a mark."""
    return f"{alpha:g}" if alpha in set(gallery.shares["alpha"]) else f"{alpha:g} (interp.)"


def static_grid(gallery: Gallery, *, ratio: float, alpha: float) -> str:
    """The same as plain HTML around the gallery's own file, for viewers that draw no widgets."""
    alphas = gallery.alphas(ratio)
    share, place, width = 100 / len(alphas), alphas.index(alpha), gallery.size * len(alphas)
    style = f"display:inline-block; width:{share:.4f}%; text-align:center; vertical-align:bottom"
    heads = "".join(f'<span style="{style}">{name_of(gallery, each).replace(" ", "<br>")}</span>' for each in alphas)
    frame = (f'<div style="position:absolute; top:0; bottom:0; left:{share * place:.4f}%; width:{share:.4f}%; '
             f'box-sizing:border-box; border:2px solid {_MARK}"></div>')
    words = f"faces of seeds {gallery.seeds[0]} to {gallery.seeds[-1]}, a row a seed, a column an alpha"
    return (f'<div style="width:{width}px; font-size:10px">{heads}<div style="position:relative">'
            f'<img src="{file_uri(gallery.sprite(ratio))}" width="{width}" alt="{words}">{frame}</div></div>')


class AlphaExplorer(ipywidgets.VBox):
    """A slider for alpha over faces that were drawn beforehand, and a button that draws new ones now.

    Moving the slider shows the gallery's faces and figures at once. `draw live` draws other seeds at the slider's alpha
    with the adapters that ship; it reports each step and can be stopped.
    """

    def __init__(self, gallery: Gallery | None = None, studio: Studio | None = None):
        self.gallery = gallery or load_gallery()
        self.studio = studio or Studio(self.gallery)
        ratio = self.gallery.ratios[0]
        self.alpha = ipywidgets.SelectionSlider(options=self._options(ratio), description="alpha")
        self.ratio = ipywidgets.ToggleButtons(options=[(f"{each:g}", each) for each in self.gallery.ratios],
                                              description="men : women", style={"button_width": "4em"})
        self.view = ipywidgets.ToggleButtons(options=VIEWS, description="show", style={"button_width": "7em"})
        self.picture, self.readout = picture_box(), ipywidgets.HTML()
        self.first = ipywidgets.BoundedIntText(value=1, min=0, max=2**31, description="first seed",
                                               layout={"width": "180px"})
        self.live = Runner("draw live", self._draw, hint="Eight new seeds at this alpha, in some seconds.")
        self.drawn = picture_box(shown=False)
        super().__init__([self.alpha, self.ratio, self.view, self.readout, self.picture,
                          ipywidgets.HBox([self.first, self.live]), self.drawn])
        self._shown: dict[tuple, bytes] = {}
        self.ratio.observe(self._change_ratio, names="value")
        for control in (self.alpha, self.view):
            control.observe(self._show, names="value")
        self._show()

    def __repr__(self) -> str:
        return f"AlphaExplorer(alpha={self.alpha.value:g}, ratio={self.ratio.value:g})"

    def _repr_mimebundle_(self, **options) -> dict:
        """The widget, and beside it its present reading and the faces, for viewers that draw no widgets."""
        faces = static_grid(self.gallery, ratio=self.ratio.value, alpha=self.alpha.value)
        return super()._repr_mimebundle_(**options) | {"text/html": self.readout.value + faces}

    def _options(self, ratio: float) -> Sequence[tuple[str, float]]:
        return [(name_of(self.gallery, alpha), alpha) for alpha in self.gallery.alphas(ratio)]

    def _change_ratio(self, _change: dict) -> None:
        options, before = self._options(self.ratio.value), self.alpha.value
        nearest = min((alpha for _, alpha in options), key=lambda alpha: abs(alpha - before))
        with self.hold_trait_notifications():
            self.alpha.unobserve(self._show, names="value")
            self.alpha.options = options
            self.alpha.value = nearest
            self.alpha.observe(self._show, names="value")
        self._show()

    def _show(self, _change: dict | None = None) -> None:
        at = {"ratio": self.ratio.value, "alpha": self.alpha.value}
        key = (*at.values(), self.view.value)
        if key not in self._shown:
            self._shown[key] = to_png(grid_of(self.gallery, **at, view=self.view.value))
        self.readout.value, self.picture.value = alpha_reading(self.gallery, **at), self._shown[key]

    def _draw(self, on_step: OnStep) -> str:
        ratio, alpha = self.ratio.value, self.alpha.value
        if ratio != self.gallery.adapter_ratio:
            raise InputError(f"male:female {ratio:g}: the adapters that ship are those of {self.gallery.adapter_ratio:g}. "
                             "Choose that, or make a gallery of this ratio first.")
        seeds = [self.first.value + number for number in range(8)]
        pixels = self.studio.draw(seeds=seeds, config=self.studio.config(batch=8), alpha=alpha, on_step=on_step)
        self.drawn.value = to_png(labelled_grid(pixels[None], rows=["now"], columns=[str(seed) for seed in seeds]))
        self.drawn.layout.display = None
        return f"Drawn now, seeds {seeds[0]} to {seeds[-1]}: {blend(self.studio.alphas, alpha)}."

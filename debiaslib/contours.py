"""Lines: a photograph or a sketch to a condition image, face-mesh landmarks to lines, and how well two contours agree.

A *condition image* has white lines on black, as ControlNet's scribble models expect (Zhang, Rao and Agrawala, ICCV 2023,
"Adding conditional control to text-to-image diffusion models"). Pixel distances are stated for pictures of 64 px.
"""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import pdist

from debiaslib.errors import InputError
from debiaslib.face_embedding import embed_faces

MAX_PIXELS = 25_000_000
"""The most pixels of a picture that is opened here: a canvas has less than one million, a phone's photograph twelve."""
MIN_SIDE = 16
FAINT, MOSTLY = 0.12, 0.45
"""Ink fainter than the first (a share of full contrast) is no stroke; more of the picture than the second is no drawing."""
NOISE = 24
"""Gradients below this (of Sobel's filter, on grey levels 0 ... 255) are no edges, whatever else is in the picture."""
TOLERANCE = 1.5
"""Pixels of 64 within which a line is the same. At 2, aligned faces that follow nothing reach an F1 of .6 by chance."""
STATED_FOR = 64
"""The side, in pixels, for which tolerances and distances are stated; other sides are scaled to it."""

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
        148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10)
FACE_LINES = {
    "oval": OVAL,
    "right eye, lower lid": (33, 7, 163, 144, 145, 153, 154, 155, 133),
    "right eye, upper lid": (33, 246, 161, 160, 159, 158, 157, 173, 133),
    "left eye, lower lid": (263, 249, 390, 373, 374, 380, 381, 382, 362),
    "left eye, upper lid": (263, 466, 388, 387, 386, 385, 384, 398, 362),
    "right brow": (70, 63, 105, 66, 107),
    "left brow": (300, 293, 334, 296, 336),
    "nose, bridge": (168, 6, 197, 195, 5, 4),
    "nose, base": (48, 64, 98, 97, 2, 326, 327, 294, 278),
    "lips, upper edge": (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    "lips, lower edge": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    "lips, upper seam": (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    "lips, lower seam": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
}
"""Paths over MediaPipe's 468 face-mesh points (Kartynnik et al. 2019): what a hand draws first."""


# From pictures to lines ------------------------------------------------------------------------------------------------

def canny_lines(images: np.ndarray, *, keep: float = 0.15, blur: float = 0.6) -> np.ndarray:
    """Canny's edges (1986, by OpenCV): uint8 (N, H, W, 3) or grey (N, H, W) to uint8 (N, H, W), 255 on 0, one pixel wide.

    `keep` is the share of pixels whose gradient counts as strong, `blur` a Gaussian's sigma in pixels beforehand. Thresholds
    follow each picture's own gradients: fixed ones draw bright faces and leave dark ones blank.
    """
    grey = to_grey(images)
    if blur > 0:
        grey = [cv2.GaussianBlur(picture, (0, 0), blur) for picture in grey]
    return np.stack([_canny(picture, keep) for picture in grey])


def _canny(grey: np.ndarray, keep: float) -> np.ndarray:
    across, down = (cv2.Sobel(grey, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    high = max(NOISE, float(np.quantile(np.hypot(across, down, dtype=np.float32), 1 - keep)))
    return cv2.Canny(across, down, 0.4 * high, high, L2gradient=True)


def scribble_lines(images: np.ndarray, *, sigma: float | None = None, contrast: float = 0.2) -> np.ndarray:
    """Strokes like a felt pen's: where a picture is darker than its surroundings. Shapes as for `canny_lines`.

    The difference of Gaussians of XDoG (Winnemöller et al. 2012) as in the annotator of ControlNet's scribble model: `sigma`
    is that of the wider one in pixels (None: a 40th of the side), `contrast` the least difference, in standard deviations of
    the picture's grey levels.
    """
    grey = to_grey(images)
    wide = sigma or grey.shape[1] / 40
    darker = np.stack([cv2.GaussianBlur(picture, (0, 0), wide).astype(np.float32) - picture for picture in grey])
    least = np.maximum(4, contrast * grey.std(axis=(1, 2), keepdims=True))
    return np.where(darker > least, 255, 0).astype(np.uint8)


STYLES: dict[str, Callable[..., np.ndarray]] = {"canny": canny_lines, "scribble": scribble_lines}
"""Ways to draw a photograph."""


def draw_lines(images: np.ndarray, *, style: str = "canny", **options) -> np.ndarray:
    """Line drawings uint8 (N, H, W), white on black, of uint8 (N, H, W, 3). Raises InputError for unknown styles."""
    if style not in STYLES:
        raise InputError(f"line style {style!r}: there is none of that name. Choose one of {', '.join(STYLES)}.")
    return STYLES[style](images, **options)


def landmark_lines(landmarks: np.ndarray, *, size: int, width: float = 1.0,
                   parts: Sequence[str] = tuple(FACE_LINES)) -> np.ndarray:
    """The face's outline and features as smooth lines: landmarks (N, 468, 2), x and y in shares of the side, in MediaPipe's
    order, to uint8 (N, size, size). `width` is in pixels, `parts` are keys of `FACE_LINES`."""
    out = np.zeros((len(landmarks), size, size), np.uint8)
    fine = max(1, round(256 / size))  # lines narrower than a pixel are drawn finer and shrunk
    for picture, points in zip(out, landmarks, strict=True):
        large = np.zeros((size * fine, size * fine), np.uint8)
        paths = [np.round(points[list(FACE_LINES[part])] * size * fine).astype(np.int32) for part in parts]
        cv2.polylines(large, paths, False, 255, thickness=max(1, round(width * fine)))
        picture[:] = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    return out


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) RGB to uint8 (N, H, W); what is grey already stays. Raises InputError for anything else."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise InputError(f"pictures of {images.dtype}, shape {images.shape}: give uint8 (N, H, W, 3) RGB or (N, H, W) grey.")
    return images if images.ndim == 3 else np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in images])


# From files and canvases to condition images ---------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True, eq=False)
class Contour:
    """What guides a generation: `lines`, uint8 (H, H), white on black, and `drawing`, uint8 (H, H, 3), the same as a person
    sees it, dark (or coloured) on white. `origin` is "photograph" or "drawing"."""

    lines: np.ndarray
    drawing: np.ndarray
    origin: str

    @property
    def sha256(self) -> str:
        """Of the lines and the drawing: what is recorded beside pictures made from them."""
        return hashlib.sha256(self.lines.tobytes() + self.drawing.tobytes()).hexdigest()


def open_picture(path: Path | str, *, content: bytes | None = None) -> np.ndarray:
    """A PNG (or any picture Pillow reads), upright, as uint8 (H, W, 4) RGBA; with `content`, that of an uploaded file.

    Raises InputError when it cannot be read, is smaller than 16 px a side, or has more than 25 million pixels: that is read
    from its header, before anything is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs: the cap below is stricter
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                _check_size(image.size, path)
                return np.array(ImageOps.exif_transpose(image).convert("RGBA"))
    except InputError:  # of the size: a ValueError, like those below
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give a PNG with lines, or a photograph.") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"{path}: not a picture that can be read. Save it again as PNG.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: far more than the {MAX_PIXELS // 10**6} million pixels that are opened here. "
                         "Make it smaller.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: damaged ({str(error)[:100]}). Save it again as PNG.") from None


def _check_size(size: tuple[int, int], path: Path | str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels, more than the {MAX_PIXELS // 10**6} million opened here. "
                         "Make it smaller: 512 x 512 is plenty.")
    if min(size) < MIN_SIDE:
        raise InputError(f"{path}: {width} x {height} pixels are too few to draw on. Give {MIN_SIDE} or more a side.")


def contour_of(picture: np.ndarray, *, size: int, style: str = "canny", name: str = "contour") -> Contour:
    """The contour of uint8 (H, W, 3 or 4): a line drawing is taken as it is, a photograph is drawn in `style`.

    What is not square is padded. Raises InputError when no line is found.
    """
    ink, rgb = find_ink(picture)
    if 0 < (ink > FAINT).mean() <= MOSTLY and _is_drawing(ink):
        return sketch_of(picture, size=size, name=name)
    scale = size / max(rgb.shape[:2])
    shape = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    lines = _squared(draw_lines(small[None], style=style)[0], ground=0)
    if not lines.any():
        raise InputError(f"{name}: no line found in it ({style}). Give a photograph with more contrast, or a drawing.")
    return Contour(lines=lines, drawing=as_drawing(lines), origin="photograph")


def sketch_of(canvas: np.ndarray, *, size: int, name: str = "sketch") -> Contour:
    """The contour of a drawing canvas, uint8 (H, W, 3 or 4): strokes on a see-through, light or dark ground, any size.

    Raises InputError when there are no strokes, or so many that it is no line drawing.
    """
    ink, rgb = find_ink(canvas)
    inked = (ink > FAINT).mean()
    if not inked:
        raise InputError(f"{name}: empty, there is no stroke on it. Draw a few lines first.")
    if inked > MOSTLY:
        raise InputError(f"{name}: {inked:.0%} of it differs from its ground, so it is no line drawing. "
                         "Give a photograph as --contour instead.")
    ink, rgb = _squared(ink, ground=0), _squared(rgb, ground=255)
    lines = _shrink_lines(ink, size)
    return Contour(lines=lines, drawing=_in_colour(lines, ink, rgb), origin="drawing")


def _in_colour(lines: np.ndarray, ink: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Lines (size, size) on white, uint8 (size, size, 3), in the colours of the strokes; light strokes become black."""
    size, weight = len(lines), ink[..., None] ** 2  # soft edges hold some of the ground
    kernel = (2 * (len(ink) // size) + 3,) * 2  # as far as thickened lines reach beyond their strokes
    near, amount = (_resized(cv2.blur(part, kernel), size) for part in (rgb * weight, weight.repeat(3, axis=-1)))
    colours = near / np.maximum(amount, 1e-6)
    colours[colours.mean(-1) > 160] = 0
    share = lines[..., None] / 255
    return (255 * (1 - share) + colours.clip(0, 255) * share).round().astype(np.uint8)


def find_ink(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much ink lies on each pixel, float32 (H, W) in [0, 1], and the colours, uint8 (H, W, 3), of uint8 (H, W, 3 or 4).

    Where at least half is see-through, that is the ground and opacity is ink. Otherwise the ground is the median colour of
    the opaque part, and ink is the largest difference from it in any channel, full where it is largest.
    """
    rgb, alpha = picture[..., :3], picture[..., 3] if picture.shape[-1] == 4 else np.full(picture.shape[:2], 255, np.uint8)
    if (alpha < 128).mean() >= 0.5:
        return alpha.astype(np.float32) / 255, np.ascontiguousarray(rgb)
    ground = np.median(rgb[alpha >= 128], axis=0)
    rgb = np.where(alpha[..., None] < 128, ground, rgb).astype(np.uint8)
    difference = np.abs(rgb.astype(np.float32) - ground).max(-1)
    strongest = difference.max()
    return difference / strongest if strongest >= 255 * FAINT else np.zeros_like(difference), rgb


def _is_drawing(ink: np.ndarray) -> bool:
    """Few tones: at most a sixth of the pixels lie between ground and ink. In photographs far more do."""
    return bool(((ink > FAINT) & (ink < 0.6)).mean() < 1 / 6 and (ink <= FAINT / 2).mean() > 0.5)


def _shrink_lines(ink: np.ndarray, size: int) -> np.ndarray:
    """Ink (H, H) as uint8 (size, size) lines. Strokes that would end up thinner than a pixel are thickened before."""
    mask = (ink > 0.4).astype(np.uint8)
    mask = mask if mask.any() else (ink > FAINT).astype(np.uint8)
    scale = len(mask) / size
    width = 4 * cv2.distanceTransform(mask, cv2.DIST_L2, 3)[mask > 0].mean() - 2  # depths rise from 1 to half the width
    lack = round(scale - width)
    if lack > 0:
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (lack + 1, lack + 1)))
    return _resized(mask * np.uint8(255), size)


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    way = cv2.INTER_AREA if len(picture) > size else cv2.INTER_LINEAR
    return cv2.resize(picture, (size, size), interpolation=way)


def _squared(picture: np.ndarray, *, ground: float) -> np.ndarray:
    """Padded on both sides to a square."""
    height, width = picture.shape[:2]
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    pads = ((above, side - height - above), (left, side - width - left), (0, 0))
    return np.pad(picture, pads[:picture.ndim], constant_values=ground)


def as_drawing(lines: np.ndarray) -> np.ndarray:
    """White on black (..., H, W) to the dark-on-white picture (..., H, W, 3) that a person draws."""
    return np.repeat(255 - lines[..., None], 3, axis=-1)


def dimmed(drawing: np.ndarray) -> np.ndarray:
    """S1's preparation of a drawn face, uint8 (H, W, 3), for image-to-image: brightness .7, contrast .5, colour 2.0."""
    image = Image.fromarray(drawing)
    for enhance, factor in ((ImageEnhance.Brightness, 0.7), (ImageEnhance.Contrast, 0.5), (ImageEnhance.Color, 2.0)):
        image = enhance(image).enhance(factor)
    return np.array(image)  # a copy: Pillow's own memory is not to be written to


# How well two contours agree -------------------------------------------------------------------------------------------

def edge_agreement(drawn: np.ndarray, wanted: np.ndarray, *, tolerance: float = TOLERANCE) -> dict[str, float]:
    """Precision, recall and F1 of lines within `tolerance` pixels (of 64), as boundaries are scored (Martin et al. 2004).

    Both are uint8 (H, W), lines where above 127. precision: share of `drawn` with a wanted line near; recall: share of
    `wanted` with a drawn one near; 0 where there is nothing to find it in.
    """
    (drawn, near_drawn), (wanted, near_wanted) = _distances(drawn), _distances(wanted)
    precision = float((near_wanted[drawn] <= tolerance).mean()) if drawn.any() else 0.0
    recall = float((near_drawn[wanted] <= tolerance).mean()) if wanted.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def chamfer_distance(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Symmetric chamfer distance in pixels (of 64): the mean over both ways of the mean distance to the nearest line.

    uint8 (H, W) each, lines where above 127 (Barrow et al. 1977). Without lines on one side it is the picture's diagonal.
    """
    (drawn, near_drawn), (wanted, near_wanted) = _distances(drawn), _distances(wanted)
    if not drawn.any() or not wanted.any():
        return float(STATED_FOR * np.hypot(*drawn.shape) / drawn.shape[0])
    return float((near_wanted[drawn].mean() + near_drawn[wanted].mean()) / 2)


def _distances(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines are, and every pixel's distance to the nearest one in pixels of 64 (infinite without any)."""
    here = lines > 127
    if not here.any():
        return here, np.full(here.shape, np.inf)
    return here, distance_transform_edt(~here) * STATED_FOR / here.shape[0]


def identity_spread(pixels: np.ndarray) -> float:
    """Mean distance between all pairs of uint8 (N, H, H, 3) aligned faces in dlib's embedding, as spread as identities are.

    dlib calls two pictures the same person below .6. NaN for a single picture.
    """
    return float(pdist(embed_faces(pixels)).mean()) if len(pixels) > 1 else float("nan")

"""How people answer the exercises of notebook 01: what is right, and each mistake with words that only its hint holds."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.faces import draw_subset
from debiaslib.pictures import sharpness


def laplacian_of_dimmed(light):
    """The package's sharpness of tiles whose grey levels are multiplied by `light` and stay whole numbers."""
    tiles = np.random.default_rng(0).integers(0, 20, (128, 128)) * 10.0
    return sharpness(Image.fromarray((tiles * light).round().astype(np.uint8)))


def largest_subset(men, women, *, ratio):
    """What `draw_subset` can give: it refuses one face more."""
    frame = pd.DataFrame({"gender": ["Male"] * men + ["Female"] * women})
    with pytest.raises(InputError, match="largest size") as refusal:
        draw_subset(frame, ratio=ratio, size=men + women, seed=0)
    return int(re.search(r"allows is (\d+)", str(refusal.value))[1])


WRONG = [
    ("curation.reached", 9 / 120, "everybody who was there"),
    ("curation.reached", 9 / (120 - 6 - 24 - 9 - 5), "accepted in the end"),
    ("curation.reached", 9 / (120 - 6 - 24 - 5), "comes later"),
    ("curation.reached", 9 / (120 - 6 - 24 - 9), "both together"),
    ("curation.reached", 9 / (120 - 6), "Only the damaged"),
    ("curation.reached", 9 / (6 + 24 + 9 + 5), "all rejections"),
    ("curation.reached", (6 + 24 + 9 + 5) / 120, "all filters together"),
    ("curation.reached", 1 - 9 / 90, "it let through"),
    ("curation.reached", 10, "per cent"),
    ("curation.reached", 0.5, "Follow the 120"),
    ("curation.dimmed", lambda value, light: value * light, "variance of differences"),
    ("curation.dimmed", lambda value, light: value, "The focus has not changed"),
    ("curation.dimmed", lambda value, light: value / light, "You divided"),
    ("curation.dimmed", lambda value, light: value / light**2, "the direction is not"),
    ("curation.dimmed", lambda value, light: value * light**0.5, "took the root"),
    ("curation.dimmed", lambda value, light: value * (1 - light) ** 2, "not what was taken away"),
    ("curation.dimmed", lambda value, light: value - light, "by a factor"),
    ("curation.dimmed", lambda value, light: 0.0, "variance of such"),
    ("curation.largest", 48 + 90, "one man to two women"),
    ("curation.largest", 2 * 48, "*even* subset"),
    ("curation.largest", 90 + 90 / 4, "upside down"),
    ("curation.largest", 112, "upside down"),
    ("curation.largest", 113, "upside down"),
    ("curation.largest", 90 + 4 * 90, "whoever is scarce"),
    ("curation.largest", 48 + 4 * 48, "every man four women"),
    ("curation.largest", 48 / 4, "in all"),
    ("curation.largest", 48, "count as well"),
    ("curation.largest", 4 * 48, "four times the men"),
    ("curation.largest", 48 / 0.75, "one in *five*"),
    ("curation.largest", 59, "if there are women enough"),
]

RIGHT = [
    ("curation.reached", 9 / (120 - 6 - 24)),
    ("curation.reached", np.float32(0.1)),
    ("curation.dimmed", lambda value, light: value * light * light),
    ("curation.dimmed", lambda value, light: value * laplacian_of_dimmed(light) / laplacian_of_dimmed(1)),
    ("curation.largest", largest_subset(48, 90, ratio=4)),
    ("curation.largest", 60.0),
]

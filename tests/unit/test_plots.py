"""Figures are tested by their artists: what is drawn, not how it looks."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def table():
    rows = [{"ratio": ratio, "alpha": alpha, "indicator": "literal", "seed": 0, "fd": 0.2 - alpha, "fd_low": 0.1, "fd_high": 0.3}
            for ratio in (0.25, 4.0) for alpha in (0.0, 0.1)]
    return pd.DataFrame(rows)


def test_a_panel_a_ratio_with_band_and_points(table):
    figure = plots.discrepancy_figure(table, band=0.07, published=pd.DataFrame({"ratio": [4.0, 4.0], "alpha": [0.0, 0.05], "fd": [0.3, 0.1]}))
    assert [axis.get_title() for axis in figure.axes] == ["male:female 0.25", "male:female 4"]
    for axis in figure.axes:
        assert axis.patches[0].get_height() == pytest.approx(0.07)
        assert axis.containers[0].lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.1])
    published = [line for line in figure.axes[1].lines if line.get_label().startswith("published")][0]
    assert published.get_xdata().tolist() == [0], "an alpha that was not run has no place on the axis"


def test_same_seed_rows_stand_ratio_by_alpha(tmp_path):
    """Pictures land in the column of their ratio and alpha, in the row of their seed; a missing one stays white."""
    samples = {}
    for number, key in enumerate([(0.25, 0.0), (0.25, 0.1), (4.0, 0.0)]):
        samples[key] = tmp_path / str(number)
        (samples[key] / "images").mkdir(parents=True)
        for seed in range(2):
            Image.fromarray(np.full((4, 4, 3), 10 * number + seed, np.uint8)).save(samples[key] / f"images/{seed:05d}.png")
    figure = plots.same_seed_figure(samples, seeds=2, first_seed=7)
    shown = [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes]
    assert shown == [0, 10, 20, 255, 1, 11, 21, 255]
    assert figure.axes[0].get_ylabel() == "seed 7"

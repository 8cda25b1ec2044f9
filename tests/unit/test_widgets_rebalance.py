"""The shift widget: its numbers are those that were drawn, the HTML says them, and moving a control changes what is read."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.widgets.rebalance import ShiftExplorer, reading, shift_path

NAMES = ("male=0", "male=1")
TARGETS = {0.5: (0.5, 0.5), 0.9: (0.1, 0.9)}


def half_way(wanted: np.ndarray, shift: float) -> tuple[np.ndarray, float]:
    """Without a shift .2 of 1000 are men; a shift of 1 reaches the target."""
    shares = (1 - shift) * np.array([0.8, 0.2]) + shift * wanted
    return (1000 * shares).round(), 1 + shift


@pytest.fixture
def paths() -> pd.DataFrame:
    return shift_path(half_way, TARGETS, shifts=[0, 0.5, 1], names=NAMES)


def numbers(html: str) -> list[str]:
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in re.findall(r"<tr>(<td.*?)</tr>", html)]


def test_the_path_holds_what_was_drawn_and_how_far_off_it_is(paths: pd.DataFrame):
    assert len(paths) == 2 * 3 * 2
    part = paths[(paths["target"] == 0.9) & (paths["shift"] == 0.5)]
    assert part["reached"].tolist() == [0.45, 0.55] and part["wanted"].tolist() == [0.1, 0.9]
    assert part["kl"].tolist() == pytest.approx([stats.entropy([0.45, 0.55], [0.1, 0.9])] * 2)
    assert part["outlying"].tolist() == [1.5, 1.5]


def test_the_reading_says_it(paths: pd.DataFrame):
    html = reading(paths, target=0.9, shift=0)
    assert numbers(html) == ["male=0 0.80 0.10", "male=1 0.20 0.90"]
    assert f"KL to the target {stats.entropy([0.8, 0.2], [0.1, 0.9]):.3f}" in html and "1.00 times as far" in html
    assert "KL to the target 0.000" in reading(paths, target=0.5, shift=1)


def test_a_name_is_text_and_no_markup(paths: pd.DataFrame):
    assert "<b>" not in reading(paths.assign(combination="<b>male"), target=0.5, shift=0)


def test_what_does_not_fit_is_said(paths: pd.DataFrame):
    with pytest.raises(InputError, match="no column 'kl'"):
        reading(paths.drop(columns="kl"), target=0.5, shift=0)
    with pytest.raises(InputError, match="no row of target 0.5 and shift 7"):
        reading(paths, target=0.5, shift=7)
    with pytest.raises(InputError, match="add up to 0.9"):
        shift_path(half_way, {0.5: (0.5, 0.4)}, shifts=[0], names=NAMES)


def test_moving_a_control_changes_the_reading(paths: pd.DataFrame):
    explorer = ShiftExplorer(paths, shift=0)
    assert explorer.readout.value == reading(paths, target=0.5, shift=0)
    explorer.shift.value = 1
    assert explorer.readout.value == reading(paths, target=0.5, shift=1)
    explorer.target.value = 0.9
    assert numbers(explorer.readout.value) == ["male=0 0.10 0.10", "male=1 0.90 0.90"]


def test_what_cannot_be_read_is_said_in_its_place(paths: pd.DataFrame):
    explorer = ShiftExplorer(paths)
    explorer.paths = paths.drop(columns="wanted")
    explorer.shift.value = 1
    assert 'role="alert"' in explorer.readout.value and "no column" in explorer.readout.value


def test_without_a_kernel_the_reading_is_still_there(paths: pd.DataFrame):
    explorer = ShiftExplorer(paths, target=0.9, shift=0.5)
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.readout.value and repr(explorer) == "ShiftExplorer(target=0.9, shift=0.5)"
    assert bundle["text/plain"] == repr(explorer) and "application/vnd.jupyter.widget-view+json" in bundle

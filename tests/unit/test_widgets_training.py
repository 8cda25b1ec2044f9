"""The training explorer: its reading follows the sweep's rows, and the controls move it."""

import re

import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.widgets.training import TrainingExplorer, training_reading

ROWS = pd.DataFrame([{"ratio": ratio, "alpha": alpha, "seed": seed, "n": 800, "male_share": 0.3 + alpha + seed / 10, "fd_corrected": 0.2,
                      "face_rate": 0.9, "fit_loss": 0.15} for ratio in (0.25, 4.0) for alpha in (0.0, 0.1) for seed in (0, 1)])
CURVES = pd.DataFrame([{"ratio": ratio, "alpha": alpha, "seed": seed, "step": step, "denoising": 0.2 - step / 1000 + alpha,
                        "cross_entropy": 0.7 - step / 200 if alpha else None, "indicator_accuracy": 0.5 + step / 100 if alpha else None}
                       for ratio in (0.25, 4.0) for alpha in (0.0, 0.1) for seed in (0, 1) for step in (0, 10, 20)])


def test_the_reading_tells_means_beside_alpha_zero():
    told = training_reading(ROWS, CURVES, ratio=4.0, alpha=0.1)
    assert "trained 2 times, 800 faces" in told
    assert re.search(r"read as men.*?<td>0\.450</td>.*?0\.350", told)
    assert "denoising loss: 0.30, later 0.28 (update 20)" in told and "cross-entropy: 0.70, later 0.60" in told


def test_what_was_not_logged_is_not_drawn():
    assert training_reading(ROWS, CURVES, ratio=4.0, alpha=0).count("<svg") == 1
    assert training_reading(ROWS, CURVES, ratio=4.0, alpha=0.1).count("<svg") == 3


def test_lines_stay_inside_their_frame():
    for x, y in re.findall(r"([\d.]+),([\d.]+)", " ".join(re.findall(r'points="([^"]+)"', training_reading(ROWS, CURVES, ratio=4, alpha=0.1)))):
        assert 0 <= float(x) <= 300 and 0 <= float(y) <= 90


def test_a_run_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no run of ratio 2 at alpha 0.1"):
        training_reading(ROWS, CURVES, ratio=2, alpha=0.1)


def test_the_controls_move_the_reading():
    explorer = TrainingExplorer(ROWS, CURVES)
    assert repr(explorer) == "TrainingExplorer(alpha=0.1, ratio=0.25)"
    explorer.alpha.value, explorer.ratio.value = 0, 4.0
    assert explorer.readout.value == training_reading(ROWS, CURVES, ratio=4.0, alpha=0)
    assert explorer._repr_mimebundle_()["text/html"] == explorer.readout.value


def test_a_gap_in_the_grid_is_said_in_the_widget():
    explorer = TrainingExplorer(ROWS[(ROWS["ratio"] < 1) | (ROWS["alpha"] == 0)], CURVES)
    explorer.ratio.value = 4.0
    assert 'role="alert"' in explorer.readout.value and "no run of ratio 4 at alpha 0.1" in explorer.readout.value

"""The budget: its numbers are the counts', growth is as it must be, what it promises is what a simulation finds."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from debiaslib import fairness, presets, true_shape
from debiaslib.errors import InputError
from debiaslib.widgets.budget import COLUMNS, OVERHEAD, BudgetExplorer, Plan, hours, least_fall, memory, reading, work


@pytest.fixture
def table() -> pd.DataFrame:
    """Round numbers, twice as much for checkpointing's arithmetic and half for its memory."""
    rows = [{"image_size": size, "checkpointing": twice, "rank": 8, "weights": 2e9, "adapter": 16e6,
             "step": (1 - twice / 2) * 2e9, "encode": 1.5e9, "draw_weights": 4e9, "draw_unet": 1e9, "draw_decode": 3e9,
             "draw_batch": 8, "train": (1 + twice) * 1.5e12, "unet": 0.8e12, "decode": 2e12}
            for size in (256, 512) for twice in (False, True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def lines(html: str) -> dict[str, str]:
    """What is told of each figure."""
    rows = re.findall(r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", html)
    return {name: " ".join(re.sub(r"<[^>]*>", " ", rest).split()) for name, rest in rows}


def test_memory_adds_up_what_was_counted(table: pd.DataFrame):
    need = memory(table, Plan())
    assert need == {"encode": OVERHEAD + 4e9 + 1.5e9, "train": OVERHEAD + 2e9 + 16e6 + 2e9, "draw": OVERHEAD + 4e9 + 3e9,
                    "file": 4e6}
    assert memory(table, Plan(rank=32))["train"] - need["train"] == 48e6
    assert memory(table, Plan(checkpointing=True))["train"] == need["train"] - 1e9


def test_the_adapter_is_as_large_as_counted_at_another_rank():
    preset = replace(presets.PRESETS["sd15"], image_size=64)
    eight, other = (true_shape.training_memory(preset, shape=true_shape.NARROW, lora_rank=rank) for rank in (8, 32))
    assert other["adapter"] == 4 * eight["adapter"] and other["weights"] == eight["weights"]


def test_a_picture_takes_the_unet_twice_a_step_and_one_step_more(table: pd.DataFrame):
    plan = Plan(pictures=10, updates=100, natural=0.25)
    assert work(table, plan) == {"train": 100 * 4 * 1.25 * 1.5e12, "draw": 10 * (82 * 0.8e12 + 2e12)}
    spent = hours(table, replace(plan, settings=3, trainings=2, speed=1))
    assert spent["draw"] == pytest.approx(6 * 10 * 67.6 / 3600)


def test_the_published_sampler_calls_the_unet_once_more_than_asked():
    pipe = true_shape.build_pipeline(true_shape.NARROW, image_size=64)
    calls = []
    pipe.unet.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    pipe("a face", num_inference_steps=4, guidance_scale=7.5, output_type="latent")
    assert calls == [2] * 5


def test_the_fall_that_is_promised_is_found_4_of_5_times():
    n, generator = 400, np.random.default_rng(0)
    fall = least_fall(pictures=n)
    counts = generator.binomial(n, [0.25, 0.25 + fall], (400, 2))
    spans = [[fairness.share_interval(k, n) for k in pair] for pair in counts]
    found = np.mean([fairness.discrepancy_difference(*pair).low > 0 for pair in spans])
    assert 0.78 < found < 0.92, "shares away from one half vary less, so a little more often"


def test_scatter_between_trainings_counts_and_a_worse_judge_hides_more():
    assert least_fall(pictures=400) == pytest.approx(2 * least_fall(pictures=1600))
    assert least_fall(pictures=400, recalls=(0.75, 0.75)) == pytest.approx(2 * least_fall(pictures=400))
    endless = least_fall(pictures=10**9, trainings=5, scatter=0.05)
    assert endless == pytest.approx((2.7764 + 0.9410) * 0.05 * (2 / 5) ** 0.5, rel=1e-3)
    assert least_fall(pictures=800, trainings=5, scatter=0.05) < least_fall(pictures=800, trainings=3, scatter=0.05)


def test_what_makes_no_sense_is_refused(table: pd.DataFrame):
    with pytest.raises(InputError, match="a judge above chance"):
        least_fall(pictures=100, recalls=(0.5, 0.5))
    with pytest.raises(InputError, match="at least one of each"):
        least_fall(pictures=0)
    with pytest.raises(InputError, match="no row of 640 px. There are 256, 512"):
        memory(table, Plan(image_size=640))
    with pytest.raises(InputError, match="no column 'decode'.*true_shape --budget"):
        hours(table.drop(columns="decode"), Plan())


def test_the_reading_says_what_fits_and_what_one_training_cannot_tell(table: pd.DataFrame):
    said = lines(reading(table, Plan(card=6)))
    assert said["memory to train"] == "5.0 GB fits into 6 GB"
    assert said["memory to draw 8 at once"] == "8.0 GB does NOT fit into 6 GB"
    assert said["adapter, each"] == "4.0 MB rank 8; 12 models in all"
    assert said["a fair model reads FD up to"].startswith(f"{fairness.null_band(800):.3f} on 800 pictures")
    assert "the luck of one training is not in it" in said["least fall of FD that is found"]
    assert "sampling alone" not in lines(reading(table, Plan(trainings=3), scatter=0.05))["least fall of FD that is found"]
    hopeless = lines(reading(table, Plan(pictures=10, trainings=2), scatter=0.2))
    assert hopeless["least fall of FD that is found"].startswith("none")


def test_times_are_told_in_fitting_units(table: pd.DataFrame):
    units = [lines(reading(table, Plan(speed=speed)))["drawing"].split()[1] for speed in (1, 10, 400)]
    assert units == ["days", "hours", "minutes"]


def test_moving_a_control_changes_the_reading(table: pd.DataFrame):
    explorer = BudgetExplorer(table, scatter=0.05, recalls=(0.85, 0.83))
    assert explorer.readout.value == reading(table, Plan(), scatter=0.05, recalls=(0.85, 0.83))
    explorer.controls["pictures"].value, explorer.controls["trainings"].value = 1600, 5
    explorer.controls["checkpointing"].value = True
    expected = Plan(pictures=1600, trainings=5, checkpointing=True)
    assert explorer.plan == expected
    assert explorer.readout.value == reading(table, expected, scatter=0.05, recalls=(0.85, 0.83))


def test_without_a_kernel_the_reading_is_still_there(table: pd.DataFrame):
    explorer = BudgetExplorer(table, plan=Plan(card=24, pictures=250))
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.readout.value and "fits into 24 GB" in bundle["text/html"]
    assert bundle["text/plain"].startswith("BudgetExplorer(card=24, speed=10, image_size=512")
    assert "pictures=250" in bundle["text/plain"]


def test_every_control_is_moved_by_keyboard_and_has_a_name(table: pd.DataFrame):
    for control in BudgetExplorer(table).controls.values():
        assert type(control).__name__ in ("SelectionSlider", "Checkbox") and control.description


def test_the_table_that_ships_is_the_presets(root):
    path = root / "data/results/sd15_budget/budget.csv"
    shipped = pd.read_csv(path)
    row = shipped[(shipped["image_size"] == 512) & ~shipped["checkpointing"]].iloc[0]
    assert row["rank"] == presets.PRESETS["sd15"].lora_rank and row["draw_batch"] == presets.PRESETS["sd15"].sample_batch
    need = memory(shipped, Plan())
    assert max(need["encode"], need["train"], need["draw"]) < 12e9

"""The benchmark's table, its resuming, and rows at a few pictures and steps: that both sides do the same work."""

import dataclasses
import json
import time

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib import bench, finetune, presets
from debiaslib.errors import InputError
from debiaslib.quality import Extractor

needs_pool = pytest.mark.skipif(not (bench.data_root() / "faces" / "metadata.csv").exists(), reason="no face pool here")


@pytest.fixture
def rows(monkeypatch):
    def fixed(ours, other):
        return lambda *, scale, repeats: bench.Outcome(ours, other, {"told": repeats})

    found = {"first": bench.Row(fixed(1., 4.), .5), "second": bench.Row(fixed(3., 2.), 1.)}
    monkeypatch.setattr(bench, "ROWS", found)
    return found


def test_the_table_and_what_stands_beside_it(rows, tmp_path):
    out = tmp_path / "runs" / "bench.csv"
    bench.bench(out=out, scale=.5, repeats=2)
    table = pd.read_csv(out)
    assert tuple(table.columns) == bench.COLUMNS
    assert table.values.tolist() == [["first", 1, 4, .25, .5], ["second", 3, 2, 1.5, 1]]
    beside = json.loads(out.with_suffix(".json").read_text())
    assert beside["rows"]["second"] == {"scale": .5, "told": 2}
    assert {"cores", "threads", "versions"} <= set(beside["machine"])
    assert not list(out.parent.glob("*.partial"))


def test_one_row_anew_leaves_the_others(rows, tmp_path):
    out = tmp_path / "bench.csv"
    bench.bench(out=out)
    rows["first"] = bench.Row(lambda **_: bench.Outcome(2., 4.), .5)
    table = bench.bench(["first"], out=out).set_index("name")
    assert table["ratio"].to_dict() == {"first": .5, "second": 1.5}
    assert set(json.loads(out.with_suffix(".json").read_text())["rows"]) == {"first", "second"}


def test_the_command_prints_the_table(rows, tmp_path, capsys):
    assert bench.main(["--only", "second", "--out", str(tmp_path / "b.csv")]) == 0
    assert "1.500" in capsys.readouterr().out


def test_rows_are_chosen_and_quick_is_one_turn(rows, tmp_path):
    out = tmp_path / "b.csv"
    assert bench.main(["--rows", "first", "second", "--quick", "--out", str(out)]) == 0
    beside = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert beside == {name: {"scale": .25, "told": 1} for name in ("first", "second")}


def test_every_row_of_the_plan_is_there():
    assert {"indicator_step_tiny", "indicator_step_sd15", "indicator_training_tiny", "train_loop", "train_loop_memory",
            "generate_bare", "generate_loop", "two_processes", "growth_n", "growth_resolution", "growth_cells",
            "judge_loop", "metrics_libraries"} <= set(bench.ROWS)
    assert bench.ROWS["indicator_step_sd15"].goal == 1.02 and bench.ROWS["two_processes"].goal == pytest.approx(1 / 1.6)


def test_growth_is_told_for_one_of_each():
    found = bench._each(bench.Outcome(8., 2., {"cpu_ratio": 4.}), 16, 4)
    assert (found.ours, found.other, found.notes["cpu_ratio"]) == (.5, .5, 1)


def test_medians_of_turns_in_alternation():
    turns = []
    found = bench.alternate(lambda: turns.append("ours"), lambda: (turns.append("other"), time.sleep(.02)), repeats=3)
    assert turns == ["ours", "other"] * 3
    assert found.other >= .02 > found.ours
    assert found.notes["cpu_other"] < .02


def small_network(pixels):
    """30 features and 4 "logits" of a picture of 16 px."""
    cells = pixels.reshape(len(pixels), 3, 4, 4, 4, 4).mean(axis=(3, 5)).reshape(len(pixels), -1) / 32
    return cells[:, :30], cells[:, 30:34]


@needs_pool
def test_both_sides_of_the_metrics_agree():
    """A few pictures and a toy of a network: time says nothing here, agreement does."""
    found = bench.metrics_libraries(scale=.05, repeats=1, extractor=Extractor("toy", "1", 16, small_network))
    for name, (ours, other) in found.notes["ours_and_other"].items():
        assert ours == pytest.approx(other, rel=1e-4, abs=1e-6), name
    assert found.notes["pictures"] == [40, 150]


@needs_pool
def test_both_judges_give_the_same_answers():
    found = bench.judge_loop(scale=.01, repeats=1)
    assert found.notes["same_answers"]
    assert found.notes["largest_difference_p_man"] < 1e-4
    assert 0 < found.notes["detector_share_of_ours"] < 1


# --- the loops ----------------------------------------------------------------------------------------------------------

SETTINGS = finetune.FinetuneConfig(indicator="none", steps=3, batch=2, accumulation=1, learning_rate=1e-2, lora_rank=2,
                                   lora_alpha=4, prompt="a human face", precision="fp32")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def tiny(small_pipe, monkeypatch):
    """The small pipeline where the preset `tiny` is asked for."""
    preset = dataclasses.replace(presets.PRESETS["tiny"], image_size=32, batch=2, train_steps=2)
    monkeypatch.setitem(presets.PRESETS, "tiny", preset)
    monkeypatch.setattr(bench, "load_pipeline", lambda name: small_pipe)
    return small_pipe


@pytest.mark.parametrize("cached", [False, True])
def test_the_plain_loop_trains_as_many_weights_as_ours(small_pipe, pixels, monkeypatch, cached):
    """Both take every step of the same size, and leave the pipeline as it was."""
    before = [weight.clone() for weight in small_pipe.unet.parameters()]
    sizes: dict[str, list[int]] = {}

    class Counted(torch.optim.AdamW):
        def step(self, *args, **options):
            weights = [weight.numel() for group in self.param_groups for weight in group["params"]]
            sizes.setdefault(loop, []).append(sum(weights))
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Counted)
    loop = "ours"
    bench._our_loop(small_pipe, pixels, SETTINGS)
    loop = "plain"
    bench._plain_loop(small_pipe, pixels, SETTINGS, cached=cached)
    assert sizes["ours"] == sizes["plain"] and len(sizes["ours"]) == SETTINGS.steps and sizes["ours"][0] > 0
    after = list(small_pipe.unet.parameters())
    assert len(before) == len(after) and all(map(torch.equal, before, after))


@pytest.mark.parametrize("row", ["indicator_step_tiny", "literal_step_tiny", "growth_resolution"])
def test_rows_about_steps_run(tiny, row):
    found = bench.ROWS[row].measure(repeats=1)
    assert found.ours > 0 and found.other > 0 and found.notes["cpu_ratio"] > 0
    assert not hasattr(tiny.unet, "peft_config") or not tiny.unet.peft_config, "the adapter is taken off"


@pytest.mark.parametrize("row", ["generate_bare", "generate_loop", "growth_n"])
def test_rows_about_drawing_run(tiny, row):
    found = bench.ROWS[row].measure(scale=.04, repeats=1)
    assert found.ours > 0 and found.other > 0


@pytest.mark.parametrize(("call", "message"), [
    (lambda out: bench.bench(["nobody"], out=out), "'nobody': unknown. Choose among indicator_step_tiny, "),
    (lambda out: bench.bench(out=out, scale=0), "a scale is above 0"),
    (lambda out: bench.bench(out=out, repeats=0), "repeats are at least 1"),
])
def test_wrong_input_is_told_in_one_line(call, message, tmp_path):
    with pytest.raises(InputError, match=message):
        call(tmp_path / "b.csv")

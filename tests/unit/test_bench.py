"""The benchmark's table, its resuming, and rows at a few pictures and steps: that both sides do the same work."""

import dataclasses
import functools
import json
import time

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib import bench, finetune, gallery, presets, true_shape
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
            "literal_step_tiny", "literal_step_sd15", "generate_bare", "generate_bare_sd15", "generate_memory",
            "first_picture", "generate_loop", "two_processes", "growth_n", "growth_resolution", "growth_cells",
            "growth_metrics", "growth_metrics_memory", "judge_loop", "metrics_libraries"} <= set(bench.ROWS)
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
    assert 0 < found.notes["detector_share_of_other"] < 1 and found.notes["detector_share_of_ours"] < 1
    assert 0 < found.notes["ratio_without_detector"]


@needs_pool
def test_the_loop_over_deepface_says_what_the_judge_says():
    """With its three kinds of answer, though it is put together another way."""
    from debiaslib.judges import Judge, JudgeConfig

    natural = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    images = np.concatenate([bench._pictures(10), natural])
    judge = Judge(JudgeConfig(age=False, min_confidence=.99))
    found, expected = bench._analyze_loop(judge, images), judge.judge(images)
    pd.testing.assert_frame_equal(found, expected[list(found)])
    assert {"no face", "low confidence"} <= set(found["abstained"])


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


@pytest.mark.parametrize("spare", [True, False])
def test_the_plain_loop_spares_the_pipeline_if_asked(small_pipe, pixels, spare):
    bench._plain_loop(small_pipe, pixels, SETTINGS, spare=spare)
    assert bool(getattr(small_pipe.unet, "peft_config", None)) != spare


@pytest.mark.parametrize("row", ["indicator_step_tiny", "literal_step_tiny", "growth_resolution"])
def test_rows_about_steps_run(tiny, row):
    found = bench.ROWS[row].measure(repeats=1)
    assert found.ours > 0 and found.other > 0 and found.notes["cpu_ratio"] > 0
    assert not hasattr(tiny.unet, "peft_config") or not tiny.unet.peft_config, "the adapter is taken off"


def met(monkeypatch) -> tuple[list[finetune.Run], list[int]]:
    """The runs that take steps, and how many pictures each passes through the U-Net."""
    runs, sizes, real = [], [], finetune.update

    def update(run, step):
        hook = run.unet.register_forward_pre_hook(lambda _unet, inputs: sizes.append(len(inputs[0])))
        runs.append(run)
        try:
            return real(run, step)
        finally:
            hook.remove()

    monkeypatch.setattr(finetune, "update", update)
    return runs, sizes


def test_a_step_with_density_draws_faces_by_their_chances(tiny, monkeypatch):
    runs, sizes = met(monkeypatch)
    bench.indicator_step_tiny(repeats=1)
    guided, plain = runs[:2]
    assert guided.indicator.name == "density" and guided.chances.std() > 0 and (plain.chances == 1).all()
    assert guided.chances.mean() == pytest.approx(1) and len(set(sizes)) == 1, "as many pictures with it as without"
    assert [run.optimizer.defaults["fused"] for run in runs[:2]] == [True, True], "one and the same optimiser"


@pytest.mark.parametrize(("row", "expected"), [("literal_step_tiny", 1.25), ("indicator_step_tiny", 1.0)])
def test_a_step_with_literal_passes_more_pictures(tiny, monkeypatch, row, expected):
    """A natural one for every four faces."""
    monkeypatch.setitem(presets.PRESETS, "tiny", dataclasses.replace(presets.PRESETS["tiny"], batch=4))
    found = bench.ROWS[row].measure(repeats=1)
    assert found.notes["pictures_a_face"] == expected
    assert found.notes["cpu_ratio_a_picture"] == pytest.approx(found.notes["cpu_ratio"] / expected)


@pytest.fixture
def narrow(monkeypatch):
    """Stable Diffusion v1.5's shape, a tenth as wide, where the true one is asked for."""
    build = lambda *, image_size: real(true_shape.NARROW, image_size=image_size)  # noqa: E731
    real = true_shape.build_pipeline
    monkeypatch.setattr(true_shape, "build_pipeline", build)


def test_steps_at_the_true_shape(narrow):
    """Whose batch is one face: a natural picture joins some of a step's four."""
    found = bench.literal_step_sd15(repeats=1)
    assert found.ours > 0 and found.other > 0 and found.notes["repeats"] == 3
    assert found.notes["pictures_a_face"] in (1, 1.25, 1.5, 1.75, 2)


def test_bare_calls_are_as_many_as_the_pipelines_own(narrow, monkeypatch):
    """PNDM, the published scheduler, calls the U-Net once more than there are steps."""
    pipe, _ = bench._true_shape()
    calls = []
    pipe.unet.register_forward_pre_hook(lambda _unet, inputs: calls.append(len(inputs[0])))
    monkeypatch.setattr(bench, "_true_shape", lambda: (pipe, presets.PRESETS["sd15"]))
    found = bench.generate_bare_sd15(scale=.25, repeats=1)
    assert found.notes["unet_calls"] == 17 and calls == [4] * 4 * 17, "generate and bare, before the clock starts and after"
    assert found.notes["pictures_a_second"] == pytest.approx(2 / found.ours)


@pytest.mark.parametrize("row", ["generate_bare", "generate_loop", "growth_n"])
def test_rows_about_drawing_run(tiny, row):
    found = bench.ROWS[row].measure(scale=.04, repeats=1)
    assert found.ours > 0 and found.other > 0


def test_how_metrics_grow_is_told_for_each(monkeypatch):
    """Of seconds that are known: one metric linear, one quadratic up to 10,000 and constant beyond."""
    known = lambda n: {"linear": (n / 1e4, n / 1e4), "capped": (min(n, 10_000)**2 / 1e8,) * 2}  # noqa: E731
    monkeypatch.setattr(bench, "_metric_seconds", known)
    found = bench.growth_metrics(repeats=2)
    assert (found.ours, found.other) == pytest.approx((6 / 50_000, 2 / 10_000))
    assert found.notes["exponents"]["to_10000"] == pytest.approx({"linear": 1, "capped": 2}, abs=.01)
    assert found.notes["exponents"]["beyond"] == pytest.approx({"linear": 1, "capped": 0}, abs=.01)


def test_every_part_of_compare_is_timed(monkeypatch):
    monkeypatch.setattr(bench, "METRIC_SIZES", (12, 16, 20, 24))
    found = bench.growth_metrics(repeats=1)
    assert {*found.notes["cpu_seconds"]["24"]} == {"frechet", "kid", "kid_interval", "neighbours", "inception_score"}
    assert found.ours > 0 and found.other > 0 and found.notes["counts"] == [24, 16]


def test_memory_of_metrics_is_told_for_one_picture(monkeypatch):
    held = iter([5e6, 2e6, 1e6])
    monkeypatch.setattr(bench, "apart", lambda work: next(held))
    found = bench.growth_metrics_memory(repeats=1)
    assert (found.ours, found.other) == (4e6 / 50_000, 1e6 / 10_000)


def hold(count: int) -> None:
    """That many bytes, for a moment."""
    assert np.ones(count, np.uint8).sum() == count


def test_memory_is_that_of_the_process_itself():
    """What the process has held that starts another one is not counted there."""
    here = bench.peak_memory(functools.partial(hold, 2**30))
    assert here > 2**30
    assert bench.apart(functools.partial(bench.peak_memory, functools.partial(hold, 1))) < here - 2**29


def test_rows_about_memory_compare_what_comes_on_top(tiny, monkeypatch):
    """Run in this process, which has held what it has held: nothing comes on top."""
    monkeypatch.setattr(bench, "apart", lambda work: work())
    monkeypatch.setattr(bench, "in_bf16", lambda *_, **__: False)  # accelerate knows one precision a process
    for row in ("train_loop_memory", "generate_memory"):
        found = bench.ROWS[row].measure(scale=.04, repeats=1)
        slack = 2**22  # Linux adds up pages core by core: the most that it tells may fall by some
        assert min(found.ours, found.other) + slack >= found.notes["before"] > 0
    found = bench._on_top(14., 24., 4.)
    assert found.notes == {"before": 4, "ours_on_top": 10, "other_on_top": 20, "ratio_on_top": .5}


@pytest.mark.skipif(not (bench.data_root() / gallery.FOLDER / gallery.RECORD).exists(), reason="no gallery here")
def test_the_first_picture_is_held_against_an_allowance(monkeypatch):
    monkeypatch.setattr(bench, "apart", lambda work: work())
    found = bench.first_picture(repeats=1)
    assert found.ours > 0 and found.other == 3 and found.notes["loading_s"] > 0


def test_two_processes_are_both_warm_before_the_clock_starts(monkeypatch):
    turns = []
    monkeypatch.setattr(bench, "_sweep", lambda *, cells, workers, scale: turns.append((cells, workers)))
    bench.two_processes(repeats=1)
    assert turns == [(4, 2), (4, 1)] * 2


@pytest.mark.parametrize(("call", "message"), [
    (lambda out: bench.bench(["nobody"], out=out), "'nobody': unknown. Choose among indicator_step_tiny, "),
    (lambda out: bench.bench(out=out, scale=0), "a scale is above 0"),
    (lambda out: bench.bench(out=out, repeats=0), "repeats are at least 1"),
])
def test_wrong_input_is_told_in_one_line(call, message, tmp_path):
    with pytest.raises(InputError, match=message):
        call(tmp_path / "b.csv")

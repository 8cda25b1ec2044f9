"""The sweep: killed and run again it ends with the table of an undisturbed run, and it refuses what it cannot do, early."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import presets, report, sweep
from debiaslib.errors import InputError
from debiaslib.generate import SampleConfig

TIMES = ["train_s", "generate_s"]


@pytest.fixture
def preset(small_pipe, tmp_path):
    small_pipe.save_pretrained(tmp_path / "model")
    return dataclasses.replace(presets.PRESETS["tiny"], source=str(tmp_path / "model"), image_size=32, train_steps=2, batch=4,
                               sample_steps=2, sample_batch=3)


@pytest.fixture
def face_set(tmp_path):
    """Noise pictures with labels: the machinery does not care, and the judge abstains."""
    (tmp_path / "faces/images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(24):
        name = f"images/{number:02d}.png"
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "faces" / name)
        rows.append({"file_name": name, "gender": ["Male", "Female"][number % 2], "split": "finetune" if number < 20 else "evaluate"})
    pd.DataFrame(rows).to_csv(tmp_path / "faces/metadata.csv", index=False)
    return str(tmp_path / "faces")


@pytest.fixture
def config(face_set):
    return sweep.SweepConfig(faces=face_set, ratios=(0.25, 1.0), alphas=(0.0, 0.1), train_size=10, n=3)


def test_killed_sweep_ends_like_an_undisturbed_one(preset, config, tmp_path, monkeypatch):
    whole = sweep.sweep(preset, config=config, out=tmp_path / "whole", progress=False)
    assert list(whole.columns) == list(sweep.COLUMNS) and len(whole) == 4
    assert whole["p_eff"].tolist() == [0.2, 0.2, 0.5, 0.5] and set(whole["ess"]) == {1}
    real, calls = sweep.generate, []

    def killed(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)
    monkeypatch.setattr(sweep, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(preset, config=config, out=tmp_path / "killed", progress=False)
    assert len(pd.read_csv(tmp_path / "killed/table1.csv")) == 2, "finished rows are on disk"
    again = sweep.sweep(preset, config=config, out=tmp_path / "killed", progress=False)
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), whole.drop(columns=TIMES), rtol=1e-4)
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_two_processes_give_the_rows_of_one(preset, config, tmp_path):
    """Each cell is idempotent and on one thread: who runs it does not matter."""
    one = sweep.sweep(preset, config=config, out=tmp_path / "one", progress=False)
    two = sweep.sweep(preset, config=config, out=tmp_path / "two", workers=2, progress=False)
    pd.testing.assert_frame_equal(two.drop(columns=TIMES), one.drop(columns=TIMES))


def test_indicators_share_training_set_and_seeds(preset, config, face_set, tmp_path):
    grid = dataclasses.replace(config, ratios=(0.25,), indicators=("density", "oracle", "reference"), reference=face_set, reference_size=10)
    table = sweep.sweep(preset, config=grid, out=tmp_path / "out", progress=False).set_index(["indicator", "alpha"])
    assert set(table.xs(0.0, level="alpha")["p_eff"]) == {0.2} and table.loc[("oracle", 0.1), "p_eff"] == 0.5
    assert table.loc[("density", 0.1), "ess"] < 1
    base = table.xs(0.0, level="alpha")
    assert base["fit_loss"].nunique() == 1, "at alpha 0 the indicators are one and the same run"


def test_sampling_seeds_are_one_training_seeds_own(preset, config, tmp_path):
    """Models of one training seed start from the same noise, whatever alpha; those of another from other noise."""
    table = sweep.sweep(preset, config=dataclasses.replace(config, seeds=(0, 3)), out=tmp_path / "out", progress=False)
    def drawn(row):
        cell = sweep.Cell(indicator=row.indicator, ratio=row.ratio, alpha=row.alpha, seed=row.seed)
        return set(pd.read_csv(tmp_path / "out/cells" / cell.folder / "samples/metadata.csv")["seed"])
    by_seed = {seed: [drawn(row) for row in rows.itertuples()] for seed, rows in table.groupby("seed")}
    assert all(each == sets[0] for sets in by_seed.values() for each in sets) and not by_seed[0][0] & by_seed[3][0]
    assert min(by_seed[0][0]) == config.sample_seed == sweep.sampling_seed(config, 0)


@pytest.mark.parametrize("call, part", [(2, "first"), (3, "second"), (4, "between")])
def test_recalibrated_trains_twice_and_goes_on_where_it_was_killed(preset, config, face_set, tmp_path, monkeypatch, call, part):
    monkeypatch.setattr(sweep, "LOOKED_AT", {"first": 12, "second": 12, "between": 14})
    grid = dataclasses.replace(config, ratios=(0.25,), alphas=(0.1,), indicators=("reference", "recalibrated"), reference=face_set,
                               reference_size=10, unlabelled=face_set)
    whole = sweep.sweep(preset, config=grid, out=tmp_path / "whole", progress=False)
    first, real, calls = tmp_path / "whole/cells/recalibrated-ratio0.25-alpha0.1-seed0/first", sweep.generate, []
    looked = [pd.read_csv(folder / "samples/metadata.csv")["seed"] for folder in (first.parent, *map(first.parent.joinpath, sweep.LOOKED_AT))]
    assert [len(seeds) for seeds in looked[1:]] == [12, 12, 14]
    assert pd.concat(looked).is_unique, "what is looked at says nothing of the pictures that are measured"
    readings, tried = (json.loads((first.parent / name).read_text()) for name in ("readings.json", "between/run.json"))
    assert json.loads((first.parent / "run.json").read_text())["part"] == pytest.approx(readings["part"], abs=1e-4)
    told = pd.read_csv(tmp_path / "whole/readings.csv")
    assert told.loc[0, ["indicator", "seed"]].tolist() == ["recalibrated", 0] and told.loc[0, "seen"] == pytest.approx(readings["seen"])
    assert readings["tried"] == pytest.approx(tried["part"], abs=1e-4) and 0 <= readings["seen"] <= 1
    adapter = (first / "pytorch_lora_weights.safetensors").read_bytes()
    assert adapter == (tmp_path / "whole/cells/reference-ratio0.25-alpha0.1-seed0/pytorch_lora_weights.safetensors").read_bytes()

    def killed(*args, **options):
        calls.append(options["out"])
        if len(calls) == call:  # after a training, while its pictures are drawn
            raise KeyboardInterrupt
        return real(*args, **options)
    monkeypatch.setattr(sweep, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(preset, config=grid, out=tmp_path / "killed", progress=False)
    assert calls[-1].parent.name == part
    again = sweep.sweep(preset, config=grid, out=tmp_path / "killed", progress=False)
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), whole.drop(columns=TIMES), rtol=1e-4)


def test_a_reference_is_asked_for_before_any_work(face_set):
    with pytest.raises(InputError, match="--reference"):
        sweep.SweepConfig(faces=face_set, indicators=("reference",))


def test_report_holds_table_and_pictures_and_no_path(preset, config, tmp_path):
    table = sweep.sweep(preset, config=config, out=tmp_path / "out", progress=False)
    page = report.write_report(tmp_path / "out", table).read_text()
    assert page.count("data:image/png;base64") == 2 and "perceived" in page and "not for identifying people" in page
    assert (tmp_path / "out/fig2.png").exists()


@pytest.fixture
def finished(tmp_path):
    """A finished sweep's folder with rows of known figures, and no cells: 2 indicators, 3 seeds, 800 pictures a model."""
    rows = []
    for indicator, shares in {"literal": (0.3, 0.3, 0.3), "density": (0.3, 0.36, 0.42)}.items():
        for alpha, share in zip((0.0, 0.05, 0.1), shares, strict=True):
            for seed in range(3):
                men = round(720 * (share + 0.004 * (seed - 1)))
                rows.append({"preset": "tiny", "faces": "pool", "indicator": indicator, "ratio": 0.25, "n_train": 100,
                             "alpha": alpha, "seed": seed, "train_steps": 120, "sample_steps": 20, "guidance": 2.0, "n": 800,
                             "face_rate": 0.9, "abstained": 80, "male_share": men / 720, "fd": abs(men / 720 - 0.5),
                             "fit_loss": 0.16, "kid": 0.01})
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "table1.csv", index=False)
    record = {"command": "debiaslib sweep <somewhere>", "settings": {"preset": "tiny", "sample_seed": 0},
              "machine": {"system": "Linux", "cores": 2}}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    return tmp_path, table


def test_report_answers_the_claim_condition_by_condition(finished):
    out, table = finished
    page = report.write_report(out, table, frozen="on <finetune> faces").read_text()
    for text in ("the claim does not hold", "controls fail", "not run: random, none, noise-damaged",
                 "3 of 5 paired training seeds",
                 "strength = min(1, 10 alpha)", "not for identifying people or deciding about them", "perceived",
                 "own photographs stay on the reader's machine",
                 "Declared: on &lt;finetune&gt; faces", "debiaslib sweep &lt;somewhere&gt;"):
        assert text in page, text
    assert page.count("data:image/png;base64") == 1, "no pictures are left to show"
    assert "src=\"http" not in page and "<link" not in page and "<script" not in page, "one file, nothing fetched"


def test_report_can_be_written_anew_with_what_became_known(finished, capsys):
    out, table = finished
    control = table[(table["indicator"] == "literal") & (table["alpha"] == 0)].assign(control="scale .3")
    control.to_csv(out / "controls.csv", index=False)
    assert report.main([str(out), "--controls", str(out / "controls.csv"), "--frozen", "on finetune faces"]) == 0
    assert "scale .3 moves FD by" in (out / "report.html").read_text() and "report.html" in capsys.readouterr().out
    with pytest.raises(InputError, match="not a readable table"):
        report.main([str(out), "--second", str(out / "none.csv")])


def test_findings_say_which_alphas_differ(finished):
    _, table = finished
    density, literal = report.findings(table)
    assert density.startswith("Ratio 0.25, density (up to 3 training seeds)") and density.count(", lower (reduction +") == 2
    assert literal.count("not told apart") == 2 and "face rate 0.900" in literal
    alone = report.findings(table[table["seed"] == 0])
    assert "one training seed" in alone[0]
    assert report.findings(table[table["alpha"] > 0])[0].startswith("No comparison")


def test_the_published_figures_stand_beside_the_same_cell(finished):
    _, table = finished
    published = pd.read_csv(presets.data_root() / "published/s1_table.csv")
    found = report.beside_published(table, published).set_index(["indicator", "alpha"])
    assert found["published", "FD"].loc["density"].tolist() == [0.14, 0.08, 0.10]
    assert found["these runs", "seeds"].tolist() == [3] * 6
    assert found["these runs", "strength"].loc["density"].tolist() == [0, 0.5, 1]
    assert found["these runs", "strength"].loc["literal"].isna().all(), "the literal loss has no such strength"
    assert found["these runs", "men's share"].loc["density", 0.1].item() == pytest.approx(0.42, abs=0.001)


def test_judged_words_are_read_from_the_cells(tmp_path):
    cell = sweep.Cell(indicator="density", ratio=0.25, alpha=0.1, seed=2)
    (tmp_path / "cells" / cell.folder).mkdir(parents=True)
    pd.DataFrame({"perceived": ["Man", "", "Woman"]}).to_csv(tmp_path / "cells" / cell.folder / "judged.csv", index=False)
    words = report.judged_words(tmp_path)
    row = pd.Series(dataclasses.asdict(cell) | {"control": ""})
    assert words(row) == ["Man", "", "Woman"]
    assert words(pd.Series({**row, "seed": 3})) is None
    assert words(pd.Series({**row, "control": "base"})) is None


def test_same_settings_only(preset, config, tmp_path):
    sweep._claim(tmp_path / "out", preset, config)
    sweep._claim(tmp_path / "out", preset, dataclasses.replace(config, ratios=(4.0,)))
    with pytest.raises(InputError, match="other settings"):
        sweep._claim(tmp_path / "out", preset, dataclasses.replace(config, n=5))


def test_a_setting_younger_than_the_folder_is_taken_as_it_was(preset, config, tmp_path):
    sweep._claim(tmp_path, preset, config)
    record = json.loads((tmp_path / "sweep.json").read_text())
    del record["settings"]["extractor"]
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="other settings"):
        sweep._claim(tmp_path, preset, dataclasses.replace(config, extractor="inception-v3"))
    sweep._claim(tmp_path, preset, config)


@pytest.mark.parametrize("noted", ["correction", "seeds_apart"])
def test_rows_of_another_kind_are_not_continued(preset, config, tmp_path, noted):
    sweep._claim(tmp_path, preset, config)
    record = json.loads((tmp_path / "sweep.json").read_text())
    del record["settings"][noted]  # as folders of before it was noted
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="other settings"):
        sweep._claim(tmp_path, preset, config)


@pytest.mark.parametrize(("noted", "setting", "kind", "refused"), [
    ("density", "exponent", "density", True), ("density", "exponent", "random", True), ("density", "exponent", "reference", False),
    ("density_ratio", "chance", "reference", True), ("density_ratio", "chance", "recalibrated", True), ("density_ratio", "chance", "oracle", False)])
def test_weights_of_an_earlier_kit_are_not_continued(preset, config, tmp_path, noted, setting, kind, refused):
    """Only where there are such cells: what decides the weights of other indicators does not matter."""
    plain = dataclasses.replace(config, indicators=("oracle",), alphas=(0.1,))
    sweep._claim(tmp_path, preset, plain)
    record = json.loads((tmp_path / "sweep.json").read_text())
    record["settings"][noted][setting] = 4.5
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    (tmp_path / "cells" / f"{kind}-ratio0.25-alpha0.1-seed0").mkdir(parents=True)
    if refused:
        with pytest.raises(InputError, match=rf"other settings \({noted}\)"):
            sweep._claim(tmp_path, preset, plain)
    else:
        sweep._claim(tmp_path, preset, plain)


def test_a_date_may_be_a_seed():
    config = sweep.SweepConfig(faces="", seeds=(20261130,))
    assert SampleConfig(prompt="a face", steps=1, guidance=1, batch=1, seed=sweep.sampling_seed(config, 20261130)).seed > 20261130


def test_a_users_folder_called_pool_is_no_pool_of_the_kit(config, tmp_path, preset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = dataclasses.replace(config, faces="pool")
    assert sweep.from_the_kit(sweep._anywhere(mine)).faces == str(tmp_path / "pool")
    kits = dataclasses.replace(config, faces=str(presets.data_root() / "faces"))
    assert sweep._anywhere(kits).faces == sweep.POOL and sweep.from_the_kit(sweep._anywhere(kits)).faces == kits.faces


def test_faces_without_a_split_to_compare_with_are_told_before_any_training(preset, config, tmp_path):
    with pytest.raises(InputError, match="no row of split 'judged' to compare with; there are evaluate, finetune. Name one with --reference-split"):
        sweep.sweep(preset, config=dataclasses.replace(config, reference_split="judged"), out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_report_of_a_sweep_without_a_finished_cell_says_so(preset, config, tmp_path):
    sweep._claim(tmp_path, preset, config)
    sweep.write_table(tmp_path)
    with pytest.raises(InputError, match="no finished cell yet"):
        report.main([str(tmp_path)])


def test_a_ratio_that_the_faces_cannot_give_fails_before_any_training(preset, config, tmp_path):
    with pytest.raises(InputError, match="largest size this ratio allows"):
        sweep.sweep(preset, config=dataclasses.replace(config, train_size=18), out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists(), "the mended command would find a folder of other settings"


@pytest.mark.parametrize("changes", [{"alphas": (0.0, 1.5)}, {"indicators": ("magic",)}, {"ratios": ()}, {"n": 1}, {"seeds": (-1,)}, {"seeds": (2**55,)},
                                     {"sample_steps": 0}, {"guidance": float("nan")}, {"indicators": ("density",), "train_size": 8}])
def test_grids_that_make_no_sense(changes):
    with pytest.raises(InputError):
        sweep.SweepConfig(faces="", **changes)


def test_published_table_follows_from_its_shares():
    """The published FD is |male share - .5|, to the printed digits (.89 gives .39, printed .40)."""
    published = pd.read_csv(presets.data_root() / "published/s1_table.csv")
    assert (np.abs(published["male_share"] - 0.5) - published["fd"]).abs().max() <= 0.0101


def test_cells_are_named_apart(config):
    names = [cell.folder for cell in sweep.cells(config)]
    assert len(set(names)) == len(names) == 4
    assert json.dumps(names) and not any(Path(name).is_absolute() for name in names)

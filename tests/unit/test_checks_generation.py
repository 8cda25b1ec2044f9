"""The checks of notebook 04: right is right, and a hint of its own for each likely mistake."""

import numpy as np
import pytest

from debiaslib.checks_generation import EXERCISES, check
from debiaslib.contours import edge_agreement
from debiaslib.errors import InputError
from debiaslib.gallery import blend

WRONG = [
    ("generation.guided", lambda u, c, s: c + s * (c - u), "Some papers"),
    ("generation.guided", lambda u, c, s: s * c, "difference"),
    ("generation.guided", lambda u, c, s: s * (c - u), "by itself"),
    ("generation.guided", lambda u, c, s: s * u + (1 - s) * c, "changed places"),
    ("generation.guided", lambda u, c, s: u + s * (u - c), "The sign"),
    ("generation.guided", lambda u, c, s: (u + s * c) / (1 + s), "never leaves"),
    ("generation.guided", lambda u, c, s: u, "Try a scale of 0"),
    ("generation.weight_above", lambda low, high, a: 1 - (a - low) / (high - low), "*lower*"),
    ("generation.weight_above", lambda low, high, a: a / high, "where the low alpha is 0"),
    ("generation.weight_above", lambda low, high, a: (a - low) / high, "where the stretch ends"),
    ("generation.weight_above", lambda low, high, a: a - low, "units of alpha"),
    ("generation.weight_above", lambda low, high, a: (a - low) / (high + low), "not their sum"),
    ("generation.weight_above", lambda low, high, a: 1 / 2, "very middle"),
    ("generation.weight_above", lambda low, high, a: 1, "a straight line between"),
    ("generation.agreement", 30 / 40, "eyebrow"),
    ("generation.agreement", 36 / 60, "full of lines"),
    ("generation.agreement", (30 / 40 + 36 / 60) / 2, "*harmonic*"),
    ("generation.agreement", 66 / 100, "pooled"),
    ("generation.agreement", 30 / 40 * 36 / 60, "without its factor"),
    ("generation.agreement", 2 * 30 / 40 * 36 / 60, "numerator"),
    ("generation.agreement", 30 / 60, "own line"),
    ("generation.agreement", 66.67, "per cent"),
    ("generation.agreement", 0.1, "F1 = 2 P R"),
]


def two_lines():
    """Forty drawn pixels of which thirty lie on the wanted line of sixty, which has thirty-six near: by hand."""
    drawn, wanted = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    wanted[10, :60], drawn[10, :30], drawn[40, :10] = 255, 255, 255
    return drawn, wanted


def by_the_gallery(low, high, alpha):
    return blend([low, high], alpha).weights.get(high, 0.0)


@pytest.mark.parametrize(("name", "answer"), [
    ("generation.guided", lambda u, c, s: (1 - s) * u + s * c), ("generation.weight_above", by_the_gallery),
    ("generation.agreement", 2 / (40 / 30 + 60 / 36)), ("generation.agreement", 0.667),
])
def test_right_answers_are_right(name, answer, capsys):
    check(name, answer)
    assert capsys.readouterr().out.startswith("Right. ")


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_plausible_mistake_gets_its_own_hint(name, answer, word, capsys):
    check(name, answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet. ") and word in said
    others = [EXERCISES[name].verdict(given) for other, given, hint in WRONG if other == name and hint != word]
    assert not [hint for hint in others if word in hint]


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_knows_three_mistakes_and_none_is_right(name, capsys):
    exercise = EXERCISES[name]
    hints = [exercise.verdict(mistake.answer) for mistake in exercise.mistakes]
    assert len(hints) >= 3 and hints == [f"Not yet. {mistake.hint}" for mistake in exercise.mistakes]
    check(name, ...)
    assert capsys.readouterr().out.startswith("Not attempted yet")


def test_the_library_s_f1_is_the_one_asked_for():
    found = edge_agreement(*two_lines(), tolerance=0)
    assert found["precision"] == 30 / 40 and found["recall"] == 30 / 60
    assert found["f1"] == pytest.approx(2 * 0.75 * 0.5 / 1.25)


def test_an_exercise_that_does_not_exist_is_told():
    with pytest.raises(InputError, match="no such exercise"):
        check("generation.nothing", 1)

"""Exercise checks: what was not tried, what is right, and a hint of its own for each likely mistake."""

import pkgutil
from importlib import import_module

import answers
import pytest

from debiaslib import checks
from debiaslib.checks.exercise import ROUNDED, Number
from debiaslib.errors import InputError

PARTS = [import_module(f"answers.{found.name}") for found in pkgutil.iter_modules(answers.__path__)]
RIGHT = [given for part in PARTS for given in part.RIGHT]
WRONG = [given for part in PARTS for given in part.WRONG]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_are_right(name: str, answer, capsys):
    checks.check(name, answer)
    assert capsys.readouterr().out.startswith("Right. ")


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_plausible_mistake_gets_its_own_hint(name: str, answer, word: str, capsys):
    checks.check(name, answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet. ") and word in said
    others = [checks.EXERCISES[name].verdict(given) for other, given, hint in WRONG if other == name and hint != word]
    assert not [hint for hint in others if word in hint]


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_every_exercise_knows_three_mistakes_and_none_is_right(name: str, capsys):
    exercise = checks.EXERCISES[name]
    hints = [exercise.verdict(mistake.answer) for mistake in exercise.mistakes]
    assert len(hints) >= 3 and hints == [f"Not yet. {mistake.hint}" for mistake in exercise.mistakes]
    assert len({*hints, exercise.otherwise}) == len(hints) + 1
    assert name in {given for given, *_ in WRONG} and name in {given for given, _ in RIGHT}


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_an_untouched_stub_is_not_a_mistake(name: str, capsys):
    checks.check(name, ...)
    assert capsys.readouterr().out.startswith("Not attempted yet")


@pytest.mark.parametrize("name", [name for name, exercise in checks.EXERCISES.items() if isinstance(exercise, Number)])
def test_a_right_answer_that_was_rounded_is_right_or_told_so(name: str):
    exercise = checks.EXERCISES[name]
    rounded = round(exercise.right, 2 if abs(exercise.right) < 10 else 0)
    assert exercise.verdict(rounded).startswith("Right. ") or exercise.verdict(rounded) == f"Not yet. {ROUNDED}"


@pytest.mark.parametrize(("answer", "word"), [
    ("0.226", "not '0.226'"), (True, "not True"), (None, "not a NoneType"), ([0.226, 0.1], "not a list"),
    (float("nan"), "finite"), (float("inf"), "finite"), ((0.226,), "not a tuple"), (abs, "builtin_function"),
])
def test_an_answer_of_another_kind_is_told_what_is_wanted(answer, word: str):
    said = checks.EXERCISES["tour.abstentions"].verdict(answer)
    assert said.startswith("Not yet. Give one number") and word in said


@pytest.mark.parametrize(("function", "word"), [
    (lambda share, men, women: None, "Is there a `return`"),
    (lambda share: share, "stops with TypeError"),
    (lambda share, men, women: share / 0, "stops with ZeroDivisionError: "),
    (lambda share, men, women: [share], "return one number, not a list"),
])
def test_a_function_that_fails_is_told_with_what(function, word: str):
    said = checks.EXERCISES["tour.share_read"].verdict(function)
    assert said.startswith("Not yet. With the arguments 0.5, 0.9, 0.8 your function") and word in said


def test_an_exercise_that_does_not_exist_is_an_error_that_names_those_that_do():
    with pytest.raises(InputError, match="no such exercise. There are tour.abstentions"):
        checks.check("tour.abstention", 1)

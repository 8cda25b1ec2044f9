"""What an exercise is: its right answer, the wrong ones that people arrive at, and a hint for each.

A hint points at the step where the ways parted, and gives nothing away. Answers are numbers or functions; a function is
called with a few inputs, and right and wrong functions are told apart by what they return.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDED = "Nearly: that is the right number, rounded too far. Give one digit more."
NOT_ATTEMPTED = "Not attempted yet: put your answer in place of the three dots, then run this cell again."


class _Unreadable(Exception):
    """The answer is of a kind that cannot be compared; the message is the hint."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong answer that somebody has a reason to give, the hint for whoever had it, and its own tolerance where needed."""

    answer: Any
    hint: str
    tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise(ABC):
    """An exercise: `right` and every mistake's `answer` are of the kind asked for; `praise` says what has been learnt,
    `otherwise` is the hint for a wrong answer that nobody foresaw; numbers agree within `tolerance`."""

    right: Any
    mistakes: tuple[Mistake, ...]
    praise: str
    otherwise: str
    tolerance: float = 1e-3

    @abstractmethod
    def numbers(self, answer: Any) -> tuple[float, ...]:
        """The answer as numbers to compare. Raises _Unreadable with a hint when it is of another kind."""

    def agree(self, given: Sequence[float], known: Any, *, tolerance: float | None = None) -> bool:
        """Whether the numbers `given` are those of a `known` answer, within a tolerance."""
        return bool(np.allclose(given, self.numbers(known), rtol=0, atol=self.tolerance if tolerance is None else tolerance))

    def verdict(self, answer: Any) -> str:
        """What to tell whoever gave `answer`; `...` stands for none yet."""
        if answer is ...:
            return NOT_ATTEMPTED
        try:
            given = self.numbers(answer)
        except _Unreadable as reason:
            return f"Not yet. {reason}"
        if self.agree(given, self.right):
            return f"Right. {self.praise}"
        hints = (mistake.hint for mistake in self.mistakes if self.agree(given, mistake.answer, tolerance=mistake.tolerance))
        return f"Not yet. {next(hints, self.unforeseen(given))}"

    def unforeseen(self, given: Sequence[float]) -> str:
        """The hint for numbers that no known mistake gives."""
        return self.otherwise


class Number(Exercise):
    """The answer is one number."""

    def numbers(self, answer: Any) -> tuple[float, ...]:
        """The number itself."""
        return (_finite(answer, "Give one number"),)

    def unforeseen(self, given: Sequence[float]) -> str:
        """A right answer that was rounded is told apart from a wrong one."""
        rounded = round(self.right, 2 if abs(self.right) < 10 else 0)
        return ROUNDED if math.isclose(given[0], rounded) else self.otherwise


@dataclass(frozen=True, kw_only=True)
class Function(Exercise):
    """The answer is a function; `tries` are the arguments that it is called with."""

    tries: tuple[tuple[float, ...], ...]

    def numbers(self, answer: Any) -> tuple[float, ...]:
        """What the function returns for each of `tries`."""
        if not callable(answer):
            raise _Unreadable("Give the function itself: its name, without brackets after it.")
        return tuple(self._call(answer, arguments) for arguments in self.tries)

    def _call(self, function: Callable, arguments: tuple[float, ...]) -> float:
        called = f"With the arguments {', '.join(f'{value:g}' for value in arguments)}"
        try:
            returned = function(*arguments)
        except Exception as error:  # whatever a learner's own code does, the notebook goes on
            raise _Unreadable(f"{called} your function stops with {type(error).__name__}: {error}.") from None
        if returned is None:
            raise _Unreadable(f"{called} your function returns nothing. Is there a `return`?")
        return _finite(returned, f"{called} your function is to return one number")


def _finite(answer: Any, wanted: str) -> float:
    """The answer as a float. Raises _Unreadable, beginning with what is `wanted`, when it is not one finite number."""
    if isinstance(answer, bool | str):
        raise _Unreadable(f"{wanted}, not {answer!r}.")
    try:
        value = float(answer)
    except (TypeError, ValueError):
        raise _Unreadable(f"{wanted}, not a {type(answer).__name__}.") from None
    if not math.isfinite(value):
        raise _Unreadable(f"{wanted} that is finite, not {value}.")
    return value

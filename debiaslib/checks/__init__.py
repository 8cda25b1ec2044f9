"""Exercise checks: `check("tour.abstentions", answer)` says "Not attempted yet", "Right", or a hint for that mistake.

`exercise` says what an exercise is; every other module holds those of one notebook. The tests ask each for its hints.
"""

from typing import Any

from debiaslib.checks import auditing, capstone, curation, generation, indicator, metrics, rebalancing, tour, tuning
from debiaslib.checks.exercise import Exercise
from debiaslib.errors import InputError

PARTS = (tour, curation, indicator, tuning, generation, metrics, rebalancing, auditing, capstone)
EXERCISES: dict[str, Exercise] = {name: exercise for part in PARTS for name, exercise in part.EXERCISES.items()}


def check(name: str, answer: Any) -> None:
    """Print "Not attempted yet", "Right" or a hint for `answer` to the exercise `name`.

    Raises InputError when there is no such exercise.
    """
    if name not in EXERCISES:
        raise InputError(f"exercise {name!r}: no such exercise. There are {', '.join(EXERCISES)}.")
    print(EXERCISES[name].verdict(answer))

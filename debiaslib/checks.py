"""Exercise checks: `check("tour.abstentions", answer)` says "Not attempted yet", "Right", or a hint for that mistake.

An exercise knows its right answer and the wrong ones that people arrive at, each with a hint that points at the step where
the ways parted, and gives nothing away. Answers are numbers or functions; a function is called with a few inputs, and right
and wrong functions are told apart by what they return. Add an exercise to `EXERCISES`; the tests then ask for its hints.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from debiaslib.errors import InputError

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
        return f"Not yet. {next(hints, self.otherwise)}"


class Number(Exercise):
    """The answer is one number."""

    def numbers(self, answer: Any) -> tuple[float, ...]:
        """The number itself."""
        return (_finite(answer, "Give one number"),)


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


def check(name: str, answer: Any) -> None:
    """Print "Not attempted yet", "Right" or a hint for `answer` to the exercise `name`.

    Raises InputError when there is no such exercise.
    """
    if name not in EXERCISES:
        raise InputError(f"exercise {name!r}: no such exercise. There are {', '.join(EXERCISES)}.")
    print(EXERCISES[name].verdict(answer))


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


# 00 tour. Of 200 faces the judge read 52 as men and 138 as women, and abstained on 10.
_ABSTENTIONS = Number(
    right=abs(52 / 190 - 0.5),
    mistakes=(
        Mistake(answer=abs(52 / 200 - 0.5),
                hint="You divided by every face that was drawn. The judge decided on fewer: an abstention says neither man "
                     "nor woman, so it has no place in the whole that the share is a part of."),
        Mistake(answer=abs(62 / 200 - 0.5),
                hint="You counted the abstentions as men. The judge said nothing about these pictures."),
        Mistake(answer=abs(57 / 200 - 0.5),
                hint="You gave half of the abstentions to each side. That makes the model look fairer than what was seen: "
                     "leave them out of the share, and report their number beside it."),
        Mistake(answer=52 / 190, hint="That is the men's share, and well divided. How far is it from one half?"),
        Mistake(answer=138 / 190, hint="That is the women's share, and well divided. How far is it from one half?"),
        Mistake(answer=52 / 190 - 0.5, hint="Nearly: a discrepancy is a distance, and distances are never negative."),
        Mistake(answer=86 / 190,
                hint="That is the difference between the two shares, or the L1 distance. Total variation is half of it."),
        Mistake(answer=math.sqrt(2) * abs(52 / 190 - 0.5),
                hint="That is the distance with norm \"l2\". Here the norm is \"tv\"."),
        Mistake(answer=100 * abs(52 / 190 - 0.5), tolerance=0.1,
                hint="Right in per cent. A discrepancy is told as a share, between 0 and 1."),
    ),
    praise="Abstentions are left out of the share, and reported beside it.",
    otherwise="First decide how many faces the share is a part of; then take the men's share of them; "
              "then its distance from one half.",
)

# 00 tour. The smallest of 100, 200, 400 ... 12800 faces at which an FD of .02 lies outside the null band.
_SAMPLE_SIZE = Number(
    right=3200,
    mistakes=(
        Mistake(answer=100,
                hint="With 100 faces even a fair model reads up to .10. Ask `null_band` for each size in turn."),
        Mistake(answer=800,
                hint="With 800 faces the standard error of a share is below .02, but chance goes further than one standard "
                     "error: the null band at 800 is wider. Ask `null_band`."),
        Mistake(answer=1600,
                hint="Close. At 1600 the null band still reaches above .02, so a fair model could have done it."),
        Mistake(answer=6400, hint="At 6400 it does lie outside, but there is a smaller size on the list where it does."),
        Mistake(answer=12800, hint="At 12800 it does lie outside, but there are smaller sizes on the list where it does."),
    ),
    praise="Half the discrepancy takes four times the faces: chance shrinks with the square root of n.",
    otherwise="Pick a size from the list. Compare `null_band(size)` with .02, beginning with the smallest.",
    tolerance=0.5,
)

# 00 tour. The share read as men, given the true share and the judge's recalls.
_SHARE_READ = Function(
    right=lambda share, men, women: share * men + (1 - share) * (1 - women),
    mistakes=(
        Mistake(answer=lambda share, men, women: share * men,
                hint="These are the men who are read as men. Who else is read as a man?"),
        Mistake(answer=lambda share, men, women: share * men + (1 - share) * women,
                hint="That is how often the judge is right. You want how often it says \"Man\": of the women, count those "
                     "whom it misreads."),
        Mistake(answer=lambda share, men, women: share * women + (1 - share) * (1 - men),
                hint="The two recalls have changed places: `recall_men` is the share of men who are read as men."),
        Mistake(answer=lambda share, men, women: share,
                hint="That is the true share. A judge that errs will read another one."),
        Mistake(answer=lambda share, men, women: (share - (1 - women)) / (men + women - 1),
                hint="That is the way back, from the share that was read to the true one, and notebook 05 will need it. "
                     "Here go forward, from the true share to what is read."),
        Mistake(answer=lambda share, men, women: share * (1 - men) + (1 - share) * women,
                hint="That is the share read as women."),
    ),
    praise="A fair model can read unfair, and an unfair one fair. Notebook 05 turns your formula round to correct for it.",
    otherwise="Two kinds of faces are read as men: men who are recognised, and women who are not. Add the two shares.",
    tries=((0.5, 0.9, 0.8), (0.2, 0.78, 0.89), (1.0, 0.7, 0.95)),
)

# 01 dataset curation. Of 120 files of a group 6 are damaged, 24 without a face, 9 blurred, 5 near duplicates, in this order.
_REACHED = Number(
    right=9 / 90,
    mistakes=(
        Mistake(answer=9 / 120,
                hint="You divided by everybody who was there. Some had left before: the blur filter never saw the damaged "
                     "files, nor those without a face."),
        Mistake(answer=9 / 76,
                hint="You divided by those who were accepted in the end. The blurred ones came as far as the filter too, "
                     "and so did those whom a later filter turned away."),
        Mistake(answer=9 / 85,
                hint="You took the near duplicates away as well. Their filter comes later: they passed this one."),
        Mistake(answer=9 / 81,
                hint="That compares those turned away with those let through. A share is a part of the whole: both "
                     "together."),
        Mistake(answer=9 / 114, hint="Only the damaged files are gone in your sum. Which other filter comes before?"),
        Mistake(answer=9 / 44,
                hint="That is the blur filter's part of all rejections. It says how the work was divided among the filters, "
                     "and not how severe this one is."),
        Mistake(answer=44 / 120, hint="That is the share that all filters together turned away. Ask for one of them."),
        Mistake(answer=81 / 90, hint="That is the share it let through, and well divided. How many did it turn away?"),
        Mistake(answer=10, hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    praise="A filter is judged by whom it saw. By the whole folder, a filter late in the row looks kinder than it is.",
    otherwise="Follow the 120 along the filters: how many are left when the blur filter begins? That is what its share is "
              "a part of.",
)

# 01 dataset curation. The variance of the Laplacian of a picture whose grey levels are all multiplied by `light`.
_DIMMED = Function(
    right=lambda value, light: value * light**2,
    mistakes=(
        Mistake(answer=lambda value, light: value * light,
                hint="So much do the *differences* between pixels shrink. Sharpness is the variance of differences: what "
                     "does a variance do when everything in it is multiplied by one number?"),
        Mistake(answer=lambda value, light: value,
                hint="The focus has not changed, and one would wish that sharpness had not either. But this one is measured "
                     "in grey levels, and there are fewer of them now."),
        Mistake(answer=lambda value, light: value / light,
                hint="You divided: less light would make the picture sharper. In the dark, are two neighbouring pixels "
                     "further apart in grey level, or nearer?"),
        Mistake(answer=lambda value, light: value / light**2,
                hint="The square is right and the direction is not: with less light all differences shrink."),
        Mistake(answer=lambda value, light: value * math.sqrt(light),
                hint="You took the root. A standard deviation is the root of a variance; how do the two scale?"),
        Mistake(answer=lambda value, light: value * (1 - light) ** 2,
                hint="`light` is what is left of the light, and not what was taken away."),
        Mistake(answer=lambda value, light: value - light,
                hint="Light works by a factor: every grey level is multiplied by it, nothing is taken away."),
    ),
    praise="With 60 % of the light little more than a third of the sharpness is left, and nobody has touched the focus.",
    otherwise="Every grey level, and so every difference between neighbours, is multiplied by `light`. Sharpness is a "
              "variance of such differences.",
    tries=((36.0, 0.5), (20.0, 0.6), (12.0, 1.0), (15.0, 1.2)),
)

# 01 dataset curation. The largest subset with four men to a woman, of 48 men and 90 women.
_LARGEST = Number(
    right=60,
    mistakes=(
        Mistake(answer=138, hint="So many faces are there. Used all together they have about one man to two women."),
        Mistake(answer=96, hint="That is the largest *even* subset. Here four men are wanted for each woman."),
        Mistake(answer=112.5, tolerance=0.6,
                hint="The ratio is upside down: that is the largest set with four women to each man. Male:female 4 means "
                     "four men to a woman."),
        Mistake(answer=450,
                hint="For 90 women there would have to be 360 men. There are 48: begin with whoever is scarce."),
        Mistake(answer=240, hint="You gave every man four women. It is the other way round: one woman to four men."),
        Mistake(answer=12, hint="So many women go with 48 men. How many faces is that in all?"),
        Mistake(answer=48, hint="So many men there are, and all are used. The women beside them count as well."),
        Mistake(answer=192, hint="That is four times the men. Four men go with *one* woman, so how many women go with 48?"),
        Mistake(answer=64, hint="You took a quarter of the men twice over, or a quarter of the whole for the women. With "
                                "four men to a woman, women are one in *five*."),
    ),
    praise="Whoever is scarce decides: 78 of the 90 women stay out. More women would not help, more men would.",
    otherwise="All 48 men can be used, if there are women enough. With four men to a woman, how many women go with 48 men? "
              "Add the two.",
    tolerance=0.5,
)

# 02 indicator design. Of 100 faces 20 are men; a man weighs 2.5, a woman 1. The share of men that the loss aims at.
_SHARE_AIMED_AT = Number(
    right=50 / 130,
    mistakes=(
        Mistake(answer=0.2,
                hint="That is the share in the set, where every face counts alike. Here a man counts 2.5 times."),
        Mistake(answer=50 / 100,
                hint="You divided the men's weight by the number of faces. Divide it by all the weight there is: the "
                     "men's and the women's."),
        Mistake(answer=2.5 / 3.5, hint="You weighed one man against one woman. How many of each are there?"),
        Mistake(answer=50 / 80,
                hint="That is the men's weight for each unit of the women's. A share is a part of the whole."),
        Mistake(answer=80 / 130, hint="That is the women's share, and well computed. What is left for the men?"),
        Mistake(answer=100 * 50 / 130, tolerance=0.1, hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    praise="Two and a half times the weight is still not enough: even shares would take four times, which is 80 / 20.",
    otherwise="Add up the weight of the men. Add up the weight of everybody. Divide.",
)

# 02 indicator design. The weight of a face in the loss, given alpha and its value v.
_WEIGHT = Function(
    right=lambda alpha, v: 1 + min(1, 10 * alpha) * (v - 1),
    mistakes=(
        Mistake(answer=lambda alpha, v: 1 + 10 * alpha * (v - 1),
                hint="Right up to alpha = .1. Beyond it your strength goes above 1, and a face of small value gets a "
                     "negative weight: the model would be trained to draw it badly."),
        Mistake(answer=lambda alpha, v: 1 + alpha * (v - 1),
                hint="You took alpha itself for the strength. S1's alphas end at .1, and there the strength is to be full."),
        Mistake(answer=lambda alpha, v: min(1, 10 * alpha) * v,
                hint="At alpha = 0 this is 0 for every face, so nothing would be learnt. What should the weight be then?"),
        Mistake(answer=lambda alpha, v: 1 + min(1, 10 * alpha) * v,
                hint="The mean weight has grown above 1, which is a higher learning rate in disguise. By how much "
                     "does a face differ from the average face, whose value is 1?"),
        Mistake(answer=lambda alpha, v: v + min(1, 10 * alpha) * (1 - v),
                hint="The ends have changed places: your weight is v at alpha = 0, and 1 at full strength."),
        Mistake(answer=lambda alpha, v: v, hint="That is full strength, whatever alpha is."),
        Mistake(answer=lambda alpha, v: 1 + max(1, 10 * alpha) * (v - 1),
                hint="Strength is the *smaller* of 1 and ten times alpha. Yours is never below 1."),
        Mistake(answer=lambda alpha, v: v ** min(1, 10 * alpha),
                hint="That is called tempering, and people do use it. But the mean weight is no longer 1. Read the "
                     "formula once more: v is not raised to any power."),
    ),
    praise="At alpha = 0 everybody counts alike, at .1 and beyond a face counts v, and the mean stays 1 all the way.",
    otherwise="Write s for the strength, between 0 and 1. The weight is 1 where s = 0 and v where s = 1, and a straight "
              "line between the two.",
    tries=((0.0, 3.0), (0.02, 4.0), (0.05, 0.2), (0.1, 0.5), (0.3, 2.5)),
)

# 02 indicator design. The effective sample size of n faces, a share p of them men, once the oracle has evened them out.
_EVENING = Function(
    right=lambda n, p: n * 4 * p * (1 - p),
    mistakes=(
        Mistake(answer=lambda n, p: 4 * p * (1 - p),
                hint="That is the effective sample size as a share of n. How many faces is it?"),
        Mistake(answer=lambda n, p: n, hint="So many faces are there. Unequal weights make them worth fewer."),
        Mistake(answer=lambda n, p: 2 * min(p, 1 - p) * n,
                hint="So many are left when you throw out faces of the larger group until the shares are even. The "
                     "oracle keeps them all, with less weight, and that is worth more."),
        Mistake(answer=lambda n, p: min(p, 1 - p) * n,
                hint="That is the size of the smaller group. The larger one goes on teaching too, with less weight."),
        Mistake(answer=lambda n, p: 2 * p * (1 - p) * n,
                hint="Half of it is missing. Did you take 1 / p for the oracle's weight in one place and 1 / (2 p) in "
                     "another?"),
        Mistake(answer=lambda n, p: n / (4 * p * (1 - p)),
                hint="Upside down: that is more faces than you have. The square of the sum goes above the line."),
        Mistake(answer=lambda n, p: n * (p**2 + (1 - p) ** 2),
                hint="You took the groups' shares for their weights. The oracle's weights are the shares' inverses."),
    ),
    praise="From 20 : 80, even shares cost about a third of the faces. From 5 : 95 they cost four fifths.",
    otherwise="There are n p men of weight 1 / (2 p), and n (1 - p) women of weight 1 / (2 (1 - p)). Add up the weights, "
              "then their squares; the sum of the weights is n.",
    tries=((100, 0.2), (1000, 0.8), (60, 0.5), (400, 0.05)),
)

# 03 fine-tuning. Rank 8 on a layer of 320 x 320.
_ADAPTER_WEIGHTS = Number(
    right=8 * (320 + 320),
    mistakes=(
        Mistake(answer=320 * 320, hint="That is the layer itself, which does not learn. Only A and B do."),
        Mistake(answer=8 * 320, hint="That is A alone, or B alone. Count both."),
        Mistake(answer=8 * 8, hint="Neither A nor B is 8 x 8: each has 320 on its other side, where it meets the layer's input or "
                                   "output."),
        Mistake(answer=320 * 320 + 8 * 640, hint="You added the layer itself. It stays as it is: count what learns."),
        Mistake(answer=8 * 320 * 320, hint="That is the product of all three numbers. A is 8 x 320 and B is 320 x 8: two small "
                                           "matrices."),
        Mistake(answer=(8 * 640) / (320 * 320), tolerance=1e-4,
                hint="That is the share of the layer's own weights. How many are they?"),
    ),
    praise="5,120 beside 102,400: one twentieth. At rank 160 the adapter would have as many weights as the layer.",
    otherwise="A is 8 x 320 and B is 320 x 8. How many numbers do both hold together?",
)

# 20 men and 80 women, batches of 16, the oracle's values 2.5 and .625, alpha .05.
_MEN_A_BATCH = Number(
    right=16 * (20 * 1.75) / 100,
    tolerance=5e-3,
    mistakes=(
        Mistake(answer=16 * 0.2, hint="That is a batch without weights, alpha 0. Alpha is .05: what is the strength s?"),
        Mistake(answer=16 * 0.5, hint="That is full strength, alpha .1 and beyond. Here alpha is .05: what is the strength s?"),
        Mistake(answer=16 * 0.2 * (1 + 0.05 * 1.5),
                hint="You took alpha for the strength. The strength is s = min(1, 10 alpha)."),
        Mistake(answer=0.35, hint="That is the share of a batch, and right. How many of 16 faces is it?"),
        Mistake(answer=20 * 1.75, tolerance=0.05,
                hint="That is how often men come up in an epoch of 100 draws. A batch has 16."),
        Mistake(answer=16 * 0.2 * 2.5 * 0.5, hint="The strength does not multiply the value: w = 1 + s (v - 1)."),
    ),
    praise="Men come up 35 times in 100 draws, so 5.6 times in 16. At alpha 0 it is 3.2, at full strength 8.",
    otherwise="First the strength, s = min(1, 10 alpha). Then a man's weight, 1 + s (v - 1). Weights have mean 1, so 20 men come "
              "up 20 times that weight in 100 draws. Of 16?",
)


# 05 metric analysis. Of 800 pictures the judge abstained on 50 and read 300 as men; recalls .85 (men), .83 (women).
_TRUE_SHARE = Number(
    right=(300 / 750 - 0.17) / 0.68,
    mistakes=(
        Mistake(answer=300 / 750,
                hint="That is the share as it was read, and well divided. The judge's errors are still in it."),
        Mistake(answer=(300 / 750 - 0.15) / 0.68,
                hint="The recalls have changed places. What is taken away is what *women* add to the men who were read: "
                     "1 - .83. The share and the recalls must speak of the same class."),
        Mistake(answer=300 / 750 / 0.85,
                hint="You brought back the men who were missed, and kept the women who were read as men. Take those away "
                     "first."),
        Mistake(answer=(300 / 800 - 0.17) / 0.68,
                hint="You divided by every picture. The recalls speak of decided faces, and so must the share."),
        Mistake(answer=(450 / 750 - 0.15) / 0.68,
                hint="That is the women's share, and well corrected. What is left for the men?"),
        Mistake(answer=300 / 750 - 0.17,
                hint="You took the misread women away. What is left has shrunk, for the judge tells the two apart only in "
                     "part: stretch it by what it is worth, .85 + .83 - 1."),
        Mistake(answer=300 / 750 * 0.85 + 450 / 750 * 0.17,
                hint="You went forward, from a true share to what is read, and so put the errors in twice. Turn the formula "
                     "round."),
        Mistake(answer=0.5 - (300 / 750 - 0.17) / 0.68, hint="That is the corrected FD, and right. Asked for is the share."),
        Mistake(answer=100 * (300 / 750 - 0.17) / 0.68, tolerance=0.1,
                hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    praise="As read the model is .10 from even, corrected .16: a judge that errs on both sides makes bias look smaller.",
    otherwise="Which share of the decided was read as men? Take away the part that comes from misread women if all were "
              "women, 1 - a0; divide by a0 + a1 - 1.",
)

# 05 metric analysis. The standard error of the difference of two shares p and q, from n pictures each, sampled apart.
_STANDARD_ERROR = Function(
    right=lambda p, q, n: math.sqrt((p * (1 - p) + q * (1 - q)) / n),
    mistakes=(
        Mistake(answer=lambda p, q, n: math.sqrt(p * (1 - p) / n) + math.sqrt(q * (1 - q) / n),
                hint="You added standard errors. Chance that is independent adds up in squares: add the variances, then "
                     "take the root."),
        Mistake(answer=lambda p, q, n: (p * (1 - p) + q * (1 - q)) / n,
                hint="That is the variance of the difference. One step is missing."),
        Mistake(answer=lambda p, q, n: math.sqrt(p * (1 - p) / n),
                hint="So uncertain is the first share alone. The second was counted on a sample as well."),
        Mistake(answer=lambda p, q, n: math.sqrt(abs(p * (1 - p) - q * (1 - q)) / n),
                hint="You took one variance from the other. Then two equally uncertain shares would differ for certain."),
        Mistake(answer=lambda p, q, n: math.sqrt((p * (1 - p) + q * (1 - q)) / (2 * n)),
                hint="Each share has n pictures of its own: n is not shared out among them, nor put together."),
        Mistake(answer=lambda p, q, n: 1.96 * math.sqrt((p * (1 - p) + q * (1 - q)) / n),
                hint="That is half the width of a 95 % interval. Leave the 1.96 out."),
        Mistake(answer=lambda p, q, n: math.sqrt(2 * ((p + q) / 2) * (1 - (p + q) / 2) / n),
                hint="You pooled the two shares, as for a test that they are equal. For an interval each keeps its own "
                     "variance."),
        Mistake(answer=lambda p, q, n: p - q, hint="That is the difference itself. How far may chance move it?"),
    ),
    praise="The difference of two models is less certain than either model: by a factor of about 1.4.",
    otherwise="The variance of one share is p (1 - p) / n. Two samples that know nothing of each other: add the two "
              "variances, and take the root of the sum.",
    tries=((0.36, 0.39, 800), (0.2, 0.5, 100), (0.6, 0.3, 5000), (0.5, 0.5, 50)),
)

# 05 metric analysis. Three training runs read .10, .16 and .22: half the width of the mean's 95 % interval, by Student's t.
_TRAINING_SEEDS = Number(
    right=4.302653 * 0.06 / math.sqrt(3),
    mistakes=(
        Mistake(answer=1.96 * 0.06 / math.sqrt(3),
                hint="You took 1.96 from the normal distribution, as if the spread of the runs were known. It is guessed "
                     "from three of them, and Student's t pays for that."),
        Mistake(answer=0.06,
                hint="That is the standard deviation of the runs: how far one run strays. Asked for is their mean."),
        Mistake(answer=0.06 / math.sqrt(3), hint="That is the standard error of the mean. An interval of 95 % is wider."),
        Mistake(answer=3.182446 * 0.06 / math.sqrt(3),
                hint="You looked up t at 3 degrees of freedom. Three runs have two: one goes into their own mean."),
        Mistake(answer=4.302653 * 0.06,
                hint="So uncertain is a single run. The mean of three is less so, by the root of three."),
        Mistake(answer=4.302653 * 0.06 * math.sqrt(2 / 3) / math.sqrt(3),
                hint="Your standard deviation divides by 3. A sample of three divides by 2 (`ddof=1`)."),
        Mistake(answer=2.919986 * 0.06 / math.sqrt(3),
                hint="That t leaves 5 % on one side, and its interval holds 90 %. For 95 % leave 2.5 % on each side."),
        Mistake(answer=2 * 4.302653 * 0.06 / math.sqrt(3), hint="That is the whole width. Give half of it."),
    ),
    praise="A mean of .16, give or take .15: three runs that look much alike do not even exclude an FD of .02.",
    otherwise="The standard deviation of the three (ddof=1), over the root of three, times Student's t at 2 degrees of "
              "freedom that leaves 2.5 % on each side.",
    tolerance=5e-4,
)

EXERCISES: dict[str, Exercise] = {
    "tour.abstentions": _ABSTENTIONS,
    "tour.sample_size": _SAMPLE_SIZE,
    "tour.share_read": _SHARE_READ,
    "curation.reached": _REACHED,
    "curation.dimmed": _DIMMED,
    "curation.largest": _LARGEST,
    "indicator.share_aimed_at": _SHARE_AIMED_AT,
    "indicator.weight": _WEIGHT,
    "indicator.evening": _EVENING,
    "tuning.adapter_weights": _ADAPTER_WEIGHTS,
    "tuning.men_a_batch": _MEN_A_BATCH,
    "metrics.true_share": _TRUE_SHARE,
    "metrics.standard_error": _STANDARD_ERROR,
    "metrics.training_seeds": _TRAINING_SEEDS,
}

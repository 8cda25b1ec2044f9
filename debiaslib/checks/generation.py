"""The exercises of notebook 04."""

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# The guess under guidance `scale`, from the guess without the prompt and the one with it.
_GUIDED = Function(
    right=lambda without, prompted, scale: without + scale * (prompted - without),
    mistakes=(
        Mistake(answer=lambda without, prompted, scale: prompted + scale * (prompted - without),
                hint="Some papers count this way, from the prompted guess. Here a scale of 1 is to give the prompted guess "
                     "itself, and 0 the one without a prompt."),
        Mistake(answer=lambda without, prompted, scale: scale * prompted,
                hint="You made the prompted guess longer. It is the *difference* that the prompt makes which is stretched."),
        Mistake(answer=lambda without, prompted, scale: scale * (prompted - without),
                hint="That is the step by itself. From where is it taken?"),
        Mistake(answer=lambda without, prompted, scale: prompted + scale * (without - prompted),
                hint="The two have changed places: yours goes away from the prompt as the scale grows."),
        Mistake(answer=lambda without, prompted, scale: without - scale * (prompted - without),
                hint="The sign: yours goes away from the prompt."),
        Mistake(answer=lambda without, prompted, scale: (without + scale * prompted) / (1 + scale),
                hint="An average never leaves the stretch between the two. Guidance above 1 does, and that is its point."),
    ),
    praise="At 1 it is the prompted guess, above 1 it goes past it: that is why one speaks of extrapolation.",
    otherwise="Try a scale of 0: the guess without a prompt. Try 1: the prompted guess. Then a straight line through both.",
    tries=((1.0, 3.0, 2.0), (0.5, -0.5, 0.0), (2.0, 1.0, 1.0), (-1.0, 2.0, 7.5)),
)

# The weight of the adapter of the larger alpha, for an alpha between two trained ones.
_WEIGHT_ABOVE = Function(
    right=lambda low, high, alpha: (alpha - low) / (high - low),
    mistakes=(
        Mistake(answer=lambda low, high, alpha: (high - alpha) / (high - low),
                hint="That is the weight of the *lower* adapter: yours is 1 where alpha is the low one."),
        Mistake(answer=lambda low, high, alpha: alpha / high,
                hint="Right where the low alpha is 0. Otherwise your weight is not 0 at the low end."),
        Mistake(answer=lambda low, high, alpha: (alpha - low) / high,
                hint="You divided by where the stretch ends. How long is it?"),
        Mistake(answer=lambda low, high, alpha: alpha - low,
                hint="That is how far you have come, in units of alpha. Which part of the whole stretch is it?"),
        Mistake(answer=lambda low, high, alpha: (alpha - low) / (high + low),
                hint="The length of a stretch is a difference of its ends, not their sum."),
        Mistake(answer=lambda low, high, alpha: 0.5,
                hint="Half of each only in the very middle."),
    ),
    praise="And the other adapter gets the rest, so that the two weights add up to 1.",
    otherwise="It is 0 at the low alpha, 1 at the high one, and a straight line between.",
    tries=((0.01, 0.05, 0.02), (0.05, 0.1, 0.06), (0.0, 0.01, 0.0025), (0.05, 0.1, 0.1)),
)

# 30 of the 40 drawn pixels lie near the wanted line, 36 of the 60 wanted ones near the drawn line. F1?
_AGREEMENT = Number(
    right=2 * 0.75 * 0.6 / (0.75 + 0.6),
    mistakes=(
        Mistake(answer=0.75, hint="That is precision. Whoever draws one eyebrow right, and nothing else, has it too."),
        Mistake(answer=0.6, hint="That is recall. A picture full of lines has it for nothing."),
        Mistake(answer=(0.75 + 0.6) / 2,
                hint="That is the plain mean. F1 is the *harmonic* one, which is nearer to the smaller of the two."),
        Mistake(answer=(30 + 36) / (40 + 60),
                hint="You pooled the pixels of both lines: whichever has more of them then decides."),
        Mistake(answer=0.75 * 0.6, hint="The product is the upper half of the formula, without its factor of 2. And below?"),
        Mistake(answer=2 * 0.75 * 0.6, hint="That is the numerator. It is to be divided by the sum of the two."),
        Mistake(answer=30 / 60, hint="That divides one line's pixels by the other's. Each count belongs to its own line."),
        Mistake(answer=66.7, tolerance=0.1, hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    praise="Too many lines lower precision, too few lower recall, and F1 forgives neither.",
    otherwise="Precision is a share of the drawn pixels, recall one of the wanted ones; F1 = 2 P R / (P + R).",
)

EXERCISES: dict[str, Exercise] = {
    "generation.guided": _GUIDED,
    "generation.weight_above": _WEIGHT_ABOVE,
    "generation.agreement": _AGREEMENT,
}

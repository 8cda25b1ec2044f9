"""The exercises of notebook 05."""

import math

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# Of 800 pictures the judge abstained on 50 and read 300 as men; recalls .85 (men), .83 (women).
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

# The standard error of the difference of two shares p and q, from n pictures each, sampled apart.
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

# Three training runs read .10, .16 and .22: half the width of the mean's 95 % interval, by Student's t.
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
    "metrics.true_share": _TRUE_SHARE,
    "metrics.standard_error": _STANDARD_ERROR,
    "metrics.training_seeds": _TRAINING_SEEDS,
}

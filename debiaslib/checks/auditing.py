"""The exercises of notebook 07."""

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# Five groups, p = .30, .008, .20, .009, .60: Holm's corrected p of the group with .009.
_HOLM = Number(
    right=0.04,
    mistakes=(
        Mistake(answer=0.009, hint="That is its p as if it were the only group that was looked at. Five were."),
        Mistake(answer=0.045, hint="You multiplied by 5, which is Bonferroni's way, and right for the smallest p alone. "
                                   "Holm asks less of the second one."),
        Mistake(answer=0.036, hint="Its own product is right. But a group with a larger p must not come out better than one "
                                   "with a smaller p: what did that one get?"),
        Mistake(answer=0.027, hint="You counted the tests that are left *after* this one. It is itself among those still "
                                   "standing."),
        Mistake(answer=0.0225, hint="That is the way of Benjamini and Hochberg, which bounds the share of false alarms "
                                    "among the alarms. Holm bounds the chance of any."),
        Mistake(answer=0.018, hint="You multiplied by the place. The smallest p gets the largest factor, not the smallest."),
    ),
    tolerance=4e-4,
    praise="Both of the small ones get .04. At 5 % either may still be called different, by a hair.",
    otherwise="Sort the five. Multiply the smallest by 5, the next by 4, and so on; then let none be below the one before "
              "it.",
)

# The error measured against labels that are wrong at random with probability noise.
_MEASURED = Function(
    right=lambda error, noise: error * (1 - noise) + (1 - error) * noise,
    mistakes=(
        Mistake(answer=lambda error, noise: error + noise,
                hint="Where classifier *and* label are wrong, they agree, and nothing is counted. You counted those, and "
                     "counted them twice."),
        Mistake(answer=lambda error, noise: error + noise - error * noise,
                hint="That is the chance that at least one of the two is wrong. Where both are, they agree, and nothing is "
                     "counted as an error."),
        Mistake(answer=lambda error, noise: error * (1 - noise),
                hint="Those are the errors that a right label shows. A wrong label also makes errors of right answers."),
        Mistake(answer=lambda error, noise: (1 - error) * noise,
                hint="Those are the right answers that a wrong label calls wrong. Where are the true errors that the label "
                     "shows?"),
        Mistake(answer=lambda error, noise: error * noise,
                hint="That is how often both are wrong. What is counted is how often *exactly one* of them is."),
        Mistake(answer=lambda error, noise: (error - noise) / (1 - 2 * noise),
                hint="You went back, from what is measured to the truth. Go forward here."),
        Mistake(answer=lambda error, noise: abs(error - noise),
                hint="That is the least that could be measured, if both were wrong together as often as can be. Here they "
                     "know nothing of each other."),
    ),
    tries=((0.1, 0.05), (0.3, 0.2), (0.02, 0.1), (0.5, 0.01)),
    praise="Even a perfect classifier is measured as wrong as its labels are: with error 0 the noise is all that is read.",
    otherwise="An error is counted where classifier and label part: one is wrong and the other is right. Two ways; add "
              "their chances.",
)

# Measured .12 against labels wrong in .06 of cases, at random: the true error.
_TRUE_ERROR = Number(
    right=0.06 / 0.88,
    mistakes=(
        Mistake(answer=0.06, hint="You took the noise away, and that is the larger part of it. But noise also hides true "
                                  "errors: what is left has shrunk, so stretch it."),
        Mistake(answer=0.06 / 0.94, hint="Stretch by 1 - 2 times the noise, for noise does two things: it adds false errors "
                                         "and hides true ones."),
        Mistake(answer=0.12 / 0.94, hint="You brought the hidden errors back, and left the false ones in. They are more."),
        Mistake(answer=0.12 * 0.94 + 0.88 * 0.06, hint="You went forward, as if .12 were the truth, and put the noise in "
                                                       "twice."),
        Mistake(answer=0.12 * 0.94, hint="That only makes the figure a little smaller. Write what is measured as a formula "
                                         "of the true error, and solve it."),
        Mistake(answer=0.18, hint="Noise at random raises a small error. So the true one lies *below* .12."),
        Mistake(answer=100 * 0.06 / 0.88, tolerance=0.1, hint="Right in per cent. Give it as a share, between 0 and 1."),
    ),
    tolerance=5e-4,
    praise="Nearly half of what was measured was the labels' doing, if they are wrong at random.",
    otherwise="Measured = e (1 - noise) + (1 - e) noise. Put in .12 and .06, and solve for e.",
)

EXERCISES: dict[str, Exercise] = {
    "auditing.holm": _HOLM,
    "auditing.measured_error": _MEASURED,
    "auditing.true_error": _TRUE_ERROR,
}

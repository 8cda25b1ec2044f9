"""The exercises of notebook 02."""

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# Of 100 faces 20 are men; a man weighs 2.5, a woman 1. The share of men that the loss aims at.
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

# The weight of a face in the loss, given alpha and its value v.
_WEIGHT = Function(
    right=lambda alpha, v: 1 + min(1, 10 * alpha) * (v - 1),
    mistakes=(
        Mistake(answer=lambda alpha, v: 1 + 10 * alpha * (v - 1),
                hint="Right up to alpha = .1. Beyond it your strength goes above 1, and a face of small value gets a "
                     "negative weight: the model would be trained to draw it badly."),
        Mistake(answer=lambda alpha, v: 1 + alpha * (v - 1),
                hint="You took alpha itself for the strength. The published alphas end at .1, and there the strength is to "
                     "be full."),
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

# The effective sample size of n faces, a share p of them men, once the oracle has evened them out.
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

EXERCISES: dict[str, Exercise] = {
    "indicator.share_aimed_at": _SHARE_AIMED_AT,
    "indicator.weight": _WEIGHT,
    "indicator.evening": _EVENING,
}

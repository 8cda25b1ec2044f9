"""The exercises of notebook 03."""

from debiaslib.checks.exercise import Exercise, Mistake, Number

# Rank 8 on a layer of 320 x 320.
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

EXERCISES: dict[str, Exercise] = {
    "tuning.adapter_weights": _ADAPTER_WEIGHTS,
    "tuning.men_a_batch": _MEN_A_BATCH,
}

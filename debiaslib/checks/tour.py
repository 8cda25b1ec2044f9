"""The exercises of notebook 00."""

import math

from debiaslib.checks.exercise import Exercise, Function, Mistake, Number

# Of 200 faces the judge read 52 as men and 138 as women, and abstained on 10.
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

# The smallest of 100, 200, 400 ... 12800 faces at which an FD of .02 lies outside the null band.
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

# The share read as men, given the true share and the judge's recalls.
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

EXERCISES: dict[str, Exercise] = {
    "tour.abstentions": _ABSTENTIONS,
    "tour.sample_size": _SAMPLE_SIZE,
    "tour.share_read": _SHARE_READ,
}

"""The exercises of notebook 06."""

import math

from debiaslib.checks.exercise import Exercise, Function, Mistake


def _kl(p: float, t: float) -> float:
    return p * math.log(p / t) + (1 - p) * math.log((1 - p) / (1 - t))


# KL(p || t) of two classes in nats: p the share read, t the share wanted.
_DIVERGENCE = Function(
    right=_kl,
    mistakes=(
        Mistake(answer=lambda p, t: _kl(t, p),
                hint="You averaged over the target. Here the pictures do the averaging: their shares stand in front of the "
                     "logarithm, and above the line within it."),
        Mistake(answer=lambda p, t: p * math.log(p / t),
                hint="That is the first class's part. The other class, 1 - p, has one of its own."),
        Mistake(answer=lambda p, t: _kl(p, t) / math.log(2),
                hint="Right in bits. Asked for are nats: the natural logarithm."),
        Mistake(answer=lambda p, t: -_kl(p, t),
                hint="The sign is turned: a distribution cannot be nearer to another than to itself, so KL is never below "
                     "0."),
        Mistake(answer=lambda p, t: abs(p - t),
                hint="That is FD, a difference of shares. KL compares by ratio, and takes the logarithm."),
        Mistake(answer=lambda p, t: -p * math.log(p) - (1 - p) * math.log(1 - p),
                hint="That is the entropy of the shares read. The target does not occur in it yet."),
    ),
    praise="KL grows slowly near the target and steeply far from it: .6 for .5 reads .020, .9 for .5 reads .368.",
    otherwise="For each of the two classes: its share among the pictures, times the logarithm of that share over the share "
              "wanted. Then add up.",
    tries=((0.6, 0.5), (0.9, 0.5), (0.3, 0.4), (0.2, 0.7)),
    tolerance=5e-4,
)

# The length of the conditional step that changes t1 by 1 and t2 not at all; the unit normals' cosine is c.
_STEP = Function(
    right=lambda c: 1 / math.sqrt(1 - c * c),
    mistakes=(
        Mistake(answer=lambda c: 1.0,
                hint="One is enough along the normal itself, and that step drags the other attribute along by c."),
        Mistake(answer=lambda c: math.sqrt(1 - c * c),
                hint="That is the length of n1 - c n2, before it is scaled. Walk it once: t1 has changed by 1 - c^2 only."),
        Mistake(answer=lambda c: 1 / (1 - c * c),
                hint="That is the factor by which n1 - c n2 has to be scaled. The vector that it scales is not of length "
                     "1."),
        Mistake(answer=lambda c: 1 / (1 - c),
                hint="At c = -.5 yours is shorter than at 0. Two normals that point apart are as much in each other's way "
                     "as two that point together."),
        Mistake(answer=lambda c: 1 + c,
                hint="You added the two distances. What is asked is one straight step, at right angles to n2."),
        Mistake(answer=lambda c: 1 - c * c,
                hint="So far does t1 move along n1 - c n2. Asked is how long a step must be for t1 to move by 1."),
    ),
    praise="At a cosine of .8 the step is 1.67 times as long: what goes together is dear to take apart, and at 1 "
           "impossible.",
    otherwise="The step points along n1 - c n2, which n2 does not feel. How long is that vector, and by how much does t1 "
              "change along it? Scale until that is 1.",
    tries=((0.0,), (0.5,), (-0.5,), (0.8,)),
)

# Rejection sampling: n pictures, K combinations alike, the rarest of which makes up a share p of plain pictures.
_CALLS = Function(
    right=lambda n, K, p: n / (K * p),
    mistakes=(
        Mistake(answer=lambda n, K, p: n / p,
                hint="So many it takes for n pictures of the rarest combination alone. It needs to fill only its own part "
                     "of the n."),
        Mistake(answer=lambda n, K, p: n / K,
                hint="So many pictures of the rarest are wanted. How many plain ones must be looked at until they have "
                     "come?"),
        Mistake(answer=lambda n, K, p: n * p,
                hint="So many of the rarest are among n plain pictures: fewer than wanted, so n will not do."),
        Mistake(answer=lambda n, K, p: n,
                hint="A judge that looks at n pictures can throw none away."),
        Mistake(answer=lambda n, K, p: n / (1 - p),
                hint="You divided by the share of everything else. What one waits for is the rarest."),
        Mistake(answer=lambda n, K, p: n * K * p,
                hint="That is turned round: the rarer the combination, the longer one has to wait."),
    ),
    praise="It grows with 1/p. 10,000 pictures of eight combinations, the rarest 1 %: 125,000 calls, and again for the next "
           "10,000.",
    otherwise="Of the rarest combination n / K pictures are wanted, and one plain picture in 1 / p is of it.",
    tries=((800, 4, 0.1), (10_000, 8, 0.01), (100, 2, 0.3)),
    tolerance=1e-2,
)

EXERCISES: dict[str, Exercise] = {
    "rebalancing.divergence": _DIVERGENCE,
    "rebalancing.step": _STEP,
    "rebalancing.calls": _CALLS,
}

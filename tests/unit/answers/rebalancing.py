"""How people answer the exercises of notebook 06: what is right, and each mistake with words that only its hint holds."""

import numpy as np
from scipy import stats


def two(share):
    return [share, 1 - share]


WRONG = [
    ("rebalancing.divergence", lambda p, t: stats.entropy(two(t), two(p)), "averaged over the target"),
    ("rebalancing.divergence", lambda p, t: p * np.log(p / t), "the first class's part"),
    ("rebalancing.divergence", lambda p, t: stats.entropy(two(p), two(t), base=2), "Right in bits"),
    ("rebalancing.divergence", lambda p, t: -stats.entropy(two(p), two(t)), "The sign is turned"),
    ("rebalancing.divergence", lambda p, t: abs(p - t), "That is FD"),
    ("rebalancing.divergence", lambda p, t: stats.entropy(two(p)), "the entropy of the shares read"),
    ("rebalancing.divergence", lambda p, t: 0.7, "Then add up"),
    ("rebalancing.step", lambda c: 1, "drags the other attribute"),
    ("rebalancing.step", lambda c: np.linalg.norm(np.array([1, 0]) - c * np.array([c, np.sqrt(1 - c**2)])), "Walk it once"),
    ("rebalancing.step", lambda c: 1 / (1 - c**2), "has to be scaled"),
    ("rebalancing.step", lambda c: 1 / (1 - c), "shorter than at 0"),
    ("rebalancing.step", lambda c: 1 + c, "added the two distances"),
    ("rebalancing.step", lambda c: 1 - c**2, "how long a step must be"),
    ("rebalancing.step", lambda c: 7, "which n2 does not feel"),
    ("rebalancing.calls", lambda n, K, p: n / p, "its own part"),
    ("rebalancing.calls", lambda n, K, p: n / K, "until they have come"),
    ("rebalancing.calls", lambda n, K, p: n * p, "fewer than wanted"),
    ("rebalancing.calls", lambda n, K, p: n, "throw none away"),
    ("rebalancing.calls", lambda n, K, p: n / (1 - p), "everything else"),
    ("rebalancing.calls", lambda n, K, p: n * K * p, "turned round"),
    ("rebalancing.calls", lambda n, K, p: 1, "one plain picture in 1 / p"),
]

RIGHT = [
    ("rebalancing.divergence", lambda p, t: stats.entropy(two(p), two(t))),
    ("rebalancing.divergence", lambda p, t: sum(a * np.log(a / b) for a, b in zip(two(p), two(t), strict=True))),
    ("rebalancing.step", lambda c: (1 - c**2) ** -0.5),
    ("rebalancing.step", lambda c: np.linalg.norm(np.linalg.pinv([[1, 0], [c, np.sqrt(1 - c**2)]])[:, 0])),
    ("rebalancing.calls", lambda n, K, p: n / K / p),
]

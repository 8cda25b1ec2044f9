"""How people answer the exercises of notebook 00: what is right, and each mistake with words that only its hint holds."""

import numpy as np
import torch

from debiaslib.fairness import fairness_discrepancy, null_band


def share_read(share, recall_men, recall_women):
    return share * recall_men + (1 - share) * (1 - recall_women)


SIZES = [100 * 2**power for power in range(8)]

WRONG = [
    ("tour.abstentions", abs(52 / 200 - 0.5), "divided by every face"),
    ("tour.abstentions", abs((52 + 10) / 200 - 0.5), "abstentions as men"),
    ("tour.abstentions", abs((52 + 5) / 200 - 0.5), "half of the abstentions"),
    ("tour.abstentions", 52 / (52 + 138), "That is the men's share"),
    ("tour.abstentions", 138 / (52 + 138), "That is the women's share"),
    ("tour.abstentions", 52 / 190 - 0.5, "never negative"),
    ("tour.abstentions", abs(52 - 138) / 190, "half of it"),
    ("tour.abstentions", fairness_discrepancy([52, 138], norm="l2"), "l2"),
    ("tour.abstentions", 22.6, "per cent"),
    ("tour.abstentions", 0.5, "First decide"),
    ("tour.sample_size", 100, "up to .10"),
    ("tour.sample_size", 800, "standard error"),
    ("tour.sample_size", 1600, "Close"),
    ("tour.sample_size", 6400, "a smaller size"),
    ("tour.sample_size", 12800, "smaller sizes"),
    ("tour.sample_size", 2401, "from the list"),
    ("tour.sample_size", SIZES, "not a list"),
    ("tour.share_read", lambda p, men, women: p * men, "Who else"),
    ("tour.share_read", lambda p, men, women: p * men + (1 - p) * women, "how often the judge is right"),
    ("tour.share_read", lambda p, men, women: share_read(p, women, men), "changed places"),
    ("tour.share_read", lambda p, men, women: p, "That is the true share"),
    ("tour.share_read", lambda p, men, women: (p - 1 + women) / (men + women - 1), "the way back"),
    ("tour.share_read", lambda p, men, women: 1 - share_read(p, men, women), "read as women"),
    ("tour.share_read", lambda p, men, women: 0.5, "Two kinds"),
    ("tour.share_read", share_read(0.5, 0.9, 0.8), "without brackets"),
]

RIGHT = [
    ("tour.abstentions", fairness_discrepancy([52, 138])),
    ("tour.abstentions", 0.226),
    ("tour.abstentions", np.float32(0.2263)),
    ("tour.abstentions", torch.tensor(0.2263)),
    ("tour.sample_size", next(n for n in SIZES if null_band(n) < 0.02)),
    ("tour.share_read", share_read),
    ("tour.share_read", lambda *given: np.float64(share_read(*given))),
]

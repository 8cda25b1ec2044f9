"""How people answer the exercises of notebook 02: what is right, and each mistake with words that only its hint holds."""

import numpy as np

from debiaslib.indicators import KAPPA, build_indicator
from debiaslib.rarity import effective_share, weighted_share


def strength(alpha):
    return min(1, KAPPA * alpha)


def weight_of_an_indicator(alpha, v):
    """The package's own, for one face of value v among others whose mean value is 1."""
    indicator = build_indicator("oracle", alpha=alpha)
    indicator.value = np.array([v, 2.0 - v])
    return indicator.weights(2)[0]


def worth(n, p):
    """The effective sample size of the oracle's weights, by Kish's formula."""
    is_male = np.arange(n) < round(p * n)
    return n * effective_share(np.where(is_male, 1 / (2 * p), 1 / (2 * (1 - p))))


WRONG = [
    ("indicator.share_aimed_at", 0.2, "the share in the set"),
    ("indicator.share_aimed_at", 2.5 * 20 / 100, "the number of faces"),
    ("indicator.share_aimed_at", 2.5 / (2.5 + 1), "How many of each"),
    ("indicator.share_aimed_at", 2.5 * 20 / 80, "a part of the whole"),
    ("indicator.share_aimed_at", 80 / (80 + 2.5 * 20), "the women's share"),
    ("indicator.share_aimed_at", 38.5, "per cent"),
    ("indicator.share_aimed_at", 0.9, "Add up"),
    ("indicator.weight", lambda alpha, v: 1 + 10 * alpha * (v - 1), "negative"),
    ("indicator.weight", lambda alpha, v: 1 + alpha * (v - 1), "alpha itself"),
    ("indicator.weight", lambda alpha, v: min(1, alpha) * (v - 1) + 1, "alpha itself"),
    ("indicator.weight", lambda alpha, v: strength(alpha) * v, "nothing would be learnt"),
    ("indicator.weight", lambda alpha, v: 1 + strength(alpha) * v, "in disguise"),
    ("indicator.weight", lambda alpha, v: strength(alpha) + (1 - strength(alpha)) * v, "changed places"),
    ("indicator.weight", lambda alpha, v: v, "whatever alpha is"),
    ("indicator.weight", lambda alpha, v: 1 + max(1, 10 * alpha) * (v - 1), "never below 1"),
    ("indicator.weight", lambda alpha, v: v ** strength(alpha), "tempering"),
    ("indicator.weight", lambda alpha, v: 1, "a straight line"),
    ("indicator.evening", lambda n, p: worth(n, p) / n, "as a share of n"),
    ("indicator.evening", lambda n, p: n, "worth fewer"),
    ("indicator.evening", lambda n, p: 2 * n * min(p, 1 - p), "throw out"),
    ("indicator.evening", lambda n, p: n * min(p, 1 - p), "the smaller group"),
    ("indicator.evening", lambda n, p: 2 * n * p * (1 - p), "Half of it"),
    ("indicator.evening", lambda n, p: n**2 / worth(n, p), "Upside down"),
    ("indicator.evening", lambda n, p: n * (p * p + (1 - p) * (1 - p)), "for their weights"),
    ("indicator.evening", lambda n, p: 0.5, "their squares"),
]

RIGHT = [
    ("indicator.share_aimed_at", weighted_share(np.where(np.arange(100) < 20, 2.5, 1), np.arange(100) < 20)),
    ("indicator.share_aimed_at", 0.385),
    ("indicator.weight", lambda alpha, v: 1 + strength(alpha) * (v - 1)),
    ("indicator.weight", lambda alpha, v: (1 - strength(alpha)) + strength(alpha) * v),
    ("indicator.weight", weight_of_an_indicator),
    ("indicator.evening", lambda n, p: worth(n, p)),
    ("indicator.evening", lambda n, p: 4 * n * (p - p * p)),
]

"""How people answer the exercises of notebook 05: what is right, and each mistake with words that only its hint holds."""

import numpy as np
from scipy import stats

from debiaslib.fairness import corrected_share


def share_read(share, recall_men, recall_women):
    return share * recall_men + (1 - share) * (1 - recall_women)


def error_of(p, n):
    """The standard error of a share."""
    return np.sqrt(p * (1 - p) / n)


RUNS = [0.10, 0.16, 0.22]

WRONG = [
    ("metrics.true_share", 300 / 750, "as it was read"),
    ("metrics.true_share", (0.4 - (1 - 0.85)) / (0.85 + 0.83 - 1), "the same class"),
    ("metrics.true_share", 0.4 / 0.85, "brought back"),
    ("metrics.true_share", (300 / 800 - (1 - 0.83)) / 0.68, "every picture"),
    ("metrics.true_share", (0.6 - (1 - 0.85)) / 0.68, "the women's share"),
    ("metrics.true_share", 0.4 - (1 - 0.83), "stretch it"),
    ("metrics.true_share", share_read(0.4, 0.85, 0.83), "went forward"),
    ("metrics.true_share", 0.162, "the corrected FD"),
    ("metrics.true_share", 33.8, "per cent"),
    ("metrics.true_share", 0.7, "a0 + a1 - 1"),
    ("metrics.standard_error", lambda p, q, n: error_of(p, n) + error_of(q, n), "in squares"),
    ("metrics.standard_error", lambda p, q, n: error_of(p, n) ** 2 + error_of(q, n) ** 2, "One step is missing"),
    ("metrics.standard_error", lambda p, q, n: error_of(p, n), "the first share alone"),
    ("metrics.standard_error", lambda p, q, n: abs(error_of(p, n) ** 2 - error_of(q, n) ** 2) ** 0.5, "for certain"),
    ("metrics.standard_error", lambda p, q, n: np.hypot(error_of(p, 2 * n), error_of(q, 2 * n)), "shared out"),
    ("metrics.standard_error", lambda p, q, n: 1.96 * np.hypot(error_of(p, n), error_of(q, n)), "Leave the 1.96 out"),
    ("metrics.standard_error", lambda p, q, n: 2**0.5 * error_of((p + q) / 2, n), "pooled"),
    ("metrics.standard_error", lambda p, q, n: p - q, "the difference itself"),
    ("metrics.standard_error", lambda p, q, n: 0.5, "the root of the sum"),
    ("metrics.training_seeds", 1.96 * np.std(RUNS, ddof=1) / 3**0.5, "the normal distribution"),
    ("metrics.training_seeds", np.std(RUNS, ddof=1), "how far one run strays"),
    ("metrics.training_seeds", stats.sem(RUNS), "the standard error of the mean"),
    ("metrics.training_seeds", stats.t.ppf(0.975, 3) * stats.sem(RUNS), "3 degrees of freedom"),
    ("metrics.training_seeds", stats.t.ppf(0.975, 2) * np.std(RUNS, ddof=1), "single run"),
    ("metrics.training_seeds", stats.t.ppf(0.975, 2) * np.std(RUNS) / 3**0.5, "divides by 2"),
    ("metrics.training_seeds", stats.t.ppf(0.95, 2) * stats.sem(RUNS), "holds 90 %"),
    ("metrics.training_seeds", 2 * stats.t.ppf(0.975, 2) * stats.sem(RUNS), "the whole width"),
    ("metrics.training_seeds", 0.5, "times Student's t"),
]

RIGHT = [
    ("metrics.true_share", corrected_share(300, 750, recall_men=0.85, recall_women=0.83)),
    ("metrics.true_share", 0.338),
    ("metrics.standard_error", lambda p, q, n: np.hypot(error_of(p, n), error_of(q, n))),
    ("metrics.standard_error", lambda p, q, n: np.sqrt(p / n - p * p / n + q / n - q * q / n)),
    ("metrics.training_seeds", stats.t.ppf(0.975, 2) * stats.sem(RUNS)),
    ("metrics.training_seeds", 0.149),
    ("metrics.training_seeds", np.ptp(stats.t.interval(0.95, 2, np.mean(RUNS), stats.sem(RUNS))) / 2),
]

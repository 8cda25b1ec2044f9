"""How people answer the exercises of notebook 07: what is right, and each mistake with words that only its hint holds."""

import numpy as np
from statsmodels.stats.multitest import multipletests

from debiaslib.widgets.audit import true_error

P = [0.30, 0.008, 0.20, 0.009, 0.60]


def counted(error, noise):
    """How often exactly one of the two is wrong, by adding up the four cases."""
    return sum(chance for classifier, label, chance in
               ((False, False, (1 - error) * (1 - noise)), (True, False, error * (1 - noise)),
                (False, True, (1 - error) * noise), (True, True, error * noise)) if classifier != label)


WRONG = [
    ("auditing.holm", P[3], "the only group"),
    ("auditing.holm", multipletests(P, method="bonferroni")[1][3], "Bonferroni's way"),
    ("auditing.holm", 4 * P[3], "what did that one get"),
    ("auditing.holm", 3 * P[3], "still standing"),
    ("auditing.holm", multipletests(P, method="fdr_bh")[1][3], "Benjamini and Hochberg"),
    ("auditing.holm", 2 * P[3], "by the place"),
    ("auditing.holm", 0.5, "Sort the five"),
    ("auditing.measured_error", lambda error, noise: error + noise, "counted them twice"),
    ("auditing.measured_error", lambda error, noise: 1 - (1 - error) * (1 - noise), "at least one of the two"),
    ("auditing.measured_error", lambda error, noise: error - error * noise, "that a right label shows"),
    ("auditing.measured_error", lambda error, noise: noise - error * noise, "that a wrong label calls wrong"),
    ("auditing.measured_error", lambda error, noise: error * noise, "how often both are wrong"),
    ("auditing.measured_error", lambda error, noise: (error - noise) / (1 - 2 * noise), "You went back"),
    ("auditing.measured_error", lambda error, noise: abs(error - noise), "the least that could be measured"),
    ("auditing.measured_error", lambda error, noise: 0.7, "Two ways"),
    ("auditing.true_error", 0.12 - 0.06, "the larger part of it"),
    ("auditing.true_error", (0.12 - 0.06) / (1 - 0.06), "adds false errors"),
    ("auditing.true_error", 0.12 / (1 - 0.06), "left the false ones in"),
    ("auditing.true_error", counted(0.12, 0.06), "put the noise in"),
    ("auditing.true_error", 0.12 * (1 - 0.06), "a little smaller"),
    ("auditing.true_error", 0.12 + 0.06, "raises a small error"),
    ("auditing.true_error", 6.8, "per cent"),
    ("auditing.true_error", 0.5, "solve for e"),
]

RIGHT = [
    ("auditing.holm", multipletests(P, method="holm")[1][3]),
    ("auditing.holm", 0.04),
    ("auditing.measured_error", counted),
    ("auditing.measured_error", lambda error, noise: error + noise - 2 * error * noise),
    ("auditing.true_error", true_error(0.12, 0.06)),
    ("auditing.true_error", np.float64(0.068)),
]

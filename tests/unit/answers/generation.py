"""How people answer the exercises of notebook 04: what is right, and each mistake with words that only its hint holds."""

from debiaslib.gallery import blend


def by_the_gallery(low, high, alpha):
    """The weight that the gallery itself gives the upper adapter."""
    return blend([low, high], alpha).weights.get(high, 0.0)


WRONG = [
    ("generation.guided", lambda u, c, s: c + s * (c - u), "Some papers"),
    ("generation.guided", lambda u, c, s: s * c, "difference"),
    ("generation.guided", lambda u, c, s: s * (c - u), "by itself"),
    ("generation.guided", lambda u, c, s: s * u + (1 - s) * c, "changed places"),
    ("generation.guided", lambda u, c, s: u + s * (u - c), "The sign"),
    ("generation.guided", lambda u, c, s: (u + s * c) / (1 + s), "never leaves"),
    ("generation.guided", lambda u, c, s: u, "Try a scale of 0"),
    ("generation.weight_above", lambda low, high, a: 1 - (a - low) / (high - low), "*lower*"),
    ("generation.weight_above", lambda low, high, a: a / high, "where the low alpha is 0"),
    ("generation.weight_above", lambda low, high, a: (a - low) / high, "where the stretch ends"),
    ("generation.weight_above", lambda low, high, a: a - low, "units of alpha"),
    ("generation.weight_above", lambda low, high, a: (a - low) / (high + low), "not their sum"),
    ("generation.weight_above", lambda low, high, a: 1 / 2, "very middle"),
    ("generation.weight_above", lambda low, high, a: 1, "a straight line between"),
    ("generation.agreement", 30 / 40, "eyebrow"),
    ("generation.agreement", 36 / 60, "full of lines"),
    ("generation.agreement", (30 / 40 + 36 / 60) / 2, "*harmonic*"),
    ("generation.agreement", 66 / 100, "pooled"),
    ("generation.agreement", 30 / 40 * 36 / 60, "without its factor"),
    ("generation.agreement", 2 * 30 / 40 * 36 / 60, "numerator"),
    ("generation.agreement", 30 / 60, "own line"),
    ("generation.agreement", 66.67, "per cent"),
    ("generation.agreement", 0.1, "F1 = 2 P R"),
]

RIGHT = [
    ("generation.guided", lambda u, c, s: (1 - s) * u + s * c),
    ("generation.weight_above", by_the_gallery),
    ("generation.agreement", 2 / (40 / 30 + 60 / 36)),
    ("generation.agreement", 0.667),
]

"""Exercise checks: what was not tried, what is right, and a hint of its own for each likely mistake."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from scipy import stats

from debiaslib import checks
from debiaslib.errors import InputError
from debiaslib.faces import draw_subset
from debiaslib.fairness import corrected_share, fairness_discrepancy, null_band
from debiaslib.indicators import KAPPA, build_indicator
from debiaslib.pictures import sharpness
from debiaslib.rarity import effective_share, weighted_share

SIZES = [100 * 2**power for power in range(8)]


def share_read(share, recall_men, recall_women):
    return share * recall_men + (1 - share) * (1 - recall_women)


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


def adapter_of(inputs, outputs, *, rank):
    """What peft puts beside one layer."""
    layer = inject_adapter_in_model(LoraConfig(r=rank, target_modules=["0"]), torch.nn.Sequential(torch.nn.Linear(inputs, outputs)))
    return [weight for name, weight in layer.named_parameters() if "lora" in name]


def laplacian_of_dimmed(light):
    """The package's sharpness of tiles whose grey levels are multiplied by `light` and stay whole numbers."""
    tiles = np.random.default_rng(0).integers(0, 20, (128, 128)) * 10.0
    return sharpness(Image.fromarray((tiles * light).round().astype(np.uint8)))


def largest_subset(men, women, *, ratio):
    """What `draw_subset` can give: it refuses one face more."""
    frame = pd.DataFrame({"gender": ["Male"] * men + ["Female"] * women})
    with pytest.raises(InputError, match="largest size") as refusal:
        draw_subset(frame, ratio=ratio, size=men + women, seed=0)
    return int(re.search(r"allows is (\d+)", str(refusal.value))[1])


RUNS = [0.10, 0.16, 0.22]


def error_of(p, n):
    """The standard error of a share."""
    return np.sqrt(p * (1 - p) / n)


# How people really get there: each wrong answer as it would be typed, and a word that only its hint holds.
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
    ("curation.reached", 9 / 120, "everybody who was there"),
    ("curation.reached", 9 / (120 - 6 - 24 - 9 - 5), "accepted in the end"),
    ("curation.reached", 9 / (120 - 6 - 24 - 5), "comes later"),
    ("curation.reached", 9 / (120 - 6 - 24 - 9), "both together"),
    ("curation.reached", 9 / (120 - 6), "Only the damaged"),
    ("curation.reached", 9 / (6 + 24 + 9 + 5), "all rejections"),
    ("curation.reached", (6 + 24 + 9 + 5) / 120, "all filters together"),
    ("curation.reached", 1 - 9 / 90, "it let through"),
    ("curation.reached", 10, "per cent"),
    ("curation.reached", 0.5, "Follow the 120"),
    ("curation.dimmed", lambda value, light: value * light, "variance of differences"),
    ("curation.dimmed", lambda value, light: value, "The focus has not changed"),
    ("curation.dimmed", lambda value, light: value / light, "You divided"),
    ("curation.dimmed", lambda value, light: value / light**2, "the direction is not"),
    ("curation.dimmed", lambda value, light: value * light**0.5, "took the root"),
    ("curation.dimmed", lambda value, light: value * (1 - light) ** 2, "not what was taken away"),
    ("curation.dimmed", lambda value, light: value - light, "by a factor"),
    ("curation.dimmed", lambda value, light: 0.0, "variance of such"),
    ("curation.largest", 48 + 90, "one man to two women"),
    ("curation.largest", 2 * 48, "*even* subset"),
    ("curation.largest", 90 + 90 / 4, "upside down"),
    ("curation.largest", 112, "upside down"),
    ("curation.largest", 113, "upside down"),
    ("curation.largest", 90 + 4 * 90, "whoever is scarce"),
    ("curation.largest", 48 + 4 * 48, "every man four women"),
    ("curation.largest", 48 / 4, "in all"),
    ("curation.largest", 48, "count as well"),
    ("curation.largest", 4 * 48, "four times the men"),
    ("curation.largest", 48 / 0.75, "one in *five*"),
    ("curation.largest", 59, "if there are women enough"),
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
    ("metrics.true_share", 300 / 750, "as it was read"),
    ("metrics.true_share", (0.4 - (1 - 0.85)) / (0.85 + 0.83 - 1), "the same class"),
    ("tuning.adapter_weights", 320 * 320, "the layer itself, which does not learn"),
    ("tuning.adapter_weights", 8 * 320, "Count both"),
    ("tuning.adapter_weights", 64, "Neither A nor B"),
    ("tuning.adapter_weights", 320 * 320 + 8 * 640, "You added"),
    ("tuning.adapter_weights", 8 * 320 * 320, "the product"),
    ("tuning.adapter_weights", 0.05, "How many are they"),
    ("tuning.adapter_weights", 10_000, "together"),
    ("tuning.men_a_batch", 3.2, "without weights"),
    ("tuning.men_a_batch", 8, "full strength"),
    ("tuning.men_a_batch", 16 * 0.2 * (1 + 0.05 * 1.5), "You took alpha"),
    ("tuning.men_a_batch", 0.35, "of 16 faces is it"),
    ("tuning.men_a_batch", 35, "an epoch of 100"),
    ("tuning.men_a_batch", 4, "does not multiply"),
    ("tuning.men_a_batch", 7, "First the strength"),
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
    ("tour.abstentions", fairness_discrepancy([52, 138])),
    ("tour.abstentions", 0.226),
    ("tour.abstentions", np.float32(0.2263)),
    ("tour.abstentions", torch.tensor(0.2263)),
    ("tour.sample_size", next(n for n in SIZES if null_band(n) < 0.02)),
    ("tour.share_read", share_read),
    ("tour.share_read", lambda *given: np.float64(share_read(*given))),
    ("curation.reached", 9 / (120 - 6 - 24)),
    ("curation.reached", np.float32(0.1)),
    ("curation.dimmed", lambda value, light: value * light * light),
    ("curation.dimmed", lambda value, light: value * laplacian_of_dimmed(light) / laplacian_of_dimmed(1)),
    ("curation.largest", largest_subset(48, 90, ratio=4)),
    ("curation.largest", 60.0),
    ("indicator.share_aimed_at", weighted_share(np.where(np.arange(100) < 20, 2.5, 1), np.arange(100) < 20)),
    ("indicator.share_aimed_at", 0.385),
    ("indicator.weight", lambda alpha, v: 1 + strength(alpha) * (v - 1)),
    ("indicator.weight", lambda alpha, v: (1 - strength(alpha)) + strength(alpha) * v),
    ("indicator.weight", weight_of_an_indicator),
    ("indicator.evening", lambda n, p: worth(n, p)),
    ("indicator.evening", lambda n, p: 4 * n * (p - p * p)),
    ("tuning.adapter_weights", 5120),
    ("tuning.adapter_weights", sum(weight.numel() for weight in adapter_of(320, 320, rank=8))),
    ("tuning.men_a_batch", 5.6),
    ("tuning.men_a_batch", 16 * weighted_share(1 + strength(0.05) * (np.where(np.arange(100) < 20, 2.5, 0.625) - 1), np.arange(100) < 20)),
    ("metrics.true_share", corrected_share(300, 750, recall_men=0.85, recall_women=0.83)),
    ("metrics.true_share", 0.338),
    ("metrics.standard_error", lambda p, q, n: np.hypot(error_of(p, n), error_of(q, n))),
    ("metrics.standard_error", lambda p, q, n: np.sqrt(p / n - p * p / n + q / n - q * q / n)),
    ("metrics.training_seeds", stats.t.ppf(0.975, 2) * stats.sem(RUNS)),
    ("metrics.training_seeds", 0.149),
    ("metrics.training_seeds", np.ptp(stats.t.interval(0.95, 2, np.mean(RUNS), stats.sem(RUNS))) / 2),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_are_right(name: str, answer, capsys):
    checks.check(name, answer)
    assert capsys.readouterr().out.startswith("Right. ")


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_plausible_mistake_gets_its_own_hint(name: str, answer, word: str, capsys):
    checks.check(name, answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet. ") and word in said
    others = [checks.EXERCISES[name].verdict(given) for other, given, hint in WRONG if other == name and hint != word]
    assert not [hint for hint in others if word in hint]


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_every_exercise_knows_three_mistakes_and_none_is_right(name: str, capsys):
    exercise = checks.EXERCISES[name]
    hints = [exercise.verdict(mistake.answer) for mistake in exercise.mistakes]
    assert len(hints) >= 3 and hints == [f"Not yet. {mistake.hint}" for mistake in exercise.mistakes]
    assert len({*hints, exercise.otherwise}) == len(hints) + 1
    assert name in {given for given, *_ in WRONG} and name in {given for given, _ in RIGHT}


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_an_untouched_stub_is_not_a_mistake(name: str, capsys):
    checks.check(name, ...)
    assert capsys.readouterr().out.startswith("Not attempted yet")


@pytest.mark.parametrize(("answer", "word"), [
    ("0.226", "not '0.226'"), (True, "not True"), (None, "not a NoneType"), ([0.226, 0.1], "not a list"),
    (float("nan"), "finite"), (float("inf"), "finite"), ((0.226,), "not a tuple"), (abs, "builtin_function"),
])
def test_an_answer_of_another_kind_is_told_what_is_wanted(answer, word: str):
    said = checks.EXERCISES["tour.abstentions"].verdict(answer)
    assert said.startswith("Not yet. Give one number") and word in said


@pytest.mark.parametrize(("function", "word"), [
    (lambda share, men, women: None, "Is there a `return`"),
    (lambda share: share, "stops with TypeError"),
    (lambda share, men, women: share / 0, "stops with ZeroDivisionError: "),
    (lambda share, men, women: [share], "return one number, not a list"),
])
def test_a_function_that_fails_is_told_with_what(function, word: str):
    said = checks.EXERCISES["tour.share_read"].verdict(function)
    assert said.startswith("Not yet. With the arguments 0.5, 0.9, 0.8 your function") and word in said


def test_an_exercise_that_does_not_exist_is_an_error_that_names_those_that_do():
    with pytest.raises(InputError, match="no such exercise. There are tour.abstentions"):
        checks.check("tour.abstention", 1)

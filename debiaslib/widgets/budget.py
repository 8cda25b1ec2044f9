"""What an experiment on Stable Diffusion v1.5 takes and what it can show, before anything is run: memory, hours, doubt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import inf

import ipywidgets
import numpy as np
import pandas as pd
from scipy import stats

from debiaslib.errors import InputError
from debiaslib.fairness import null_band
from debiaslib.widgets.parts import Explorer, need_columns, slider_of

COLUMNS = ("image_size", "checkpointing", "rank", "weights", "adapter", "step", "encode", "draw_weights", "draw_unet",
           "draw_decode", "draw_batch", "train", "unet", "decode")
OVERHEAD = 1e9
"""Bytes for CUDA itself and what allocation wastes, on top of what is counted."""
LEAST_CHANCE, LEVEL = 0.8, 0.95


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An experiment: `settings` (mixes times alphas times indicators), `trainings` of each, `pictures` drawn of each model.

    `card` is the graphics memory in GB, `speed` the arithmetic it keeps up, in 10^12 operations a second. `updates` times
    `faces` are shown in a training (S1: 4,000 times 4), and `natural` other pictures for every face.
    """

    image_size: int = 512
    rank: int = 8
    checkpointing: bool = False
    card: int = 12
    speed: float = 10
    settings: int = 12
    trainings: int = 1
    pictures: int = 800
    updates: int = 4000
    faces: int = 4
    natural: float = 0.25
    sample_steps: int = 40

    @property
    def models(self) -> int:
        """How many are trained and drawn from."""
        return self.settings * self.trainings


def memory(table: pd.DataFrame, plan: Plan) -> dict[str, float]:
    """Bytes to encode the training faces, to train and to draw on a card, with CUDA's own share, from the counts in `table`.

    `table` is `true_shape.budget_table`'s. The adapter's part grows with the rank; what a step makes hardly does (counted:
    1.39 GB at rank 8, 1.41 at 64). Raises InputError where a column or the size of picture is missing.
    """
    row = _row(table, plan)
    adapter = row["adapter"] * plan.rank / row["rank"]
    return {"encode": OVERHEAD + row["draw_weights"] + row["encode"],
            "train": OVERHEAD + row["weights"] + adapter + row["step"],
            "draw": OVERHEAD + row["draw_weights"] + max(row["draw_unet"], row["draw_decode"]), "file": adapter / 4}


def work(table: pd.DataFrame, plan: Plan) -> dict[str, float]:
    """Operations of one training and of the pictures of one model.

    A picture takes the U-Net twice a step, with the prompt and without, and the published sampler (PNDM) one step more than
    it is asked for.
    """
    row = _row(table, plan)
    shown = plan.updates * plan.faces * (1 + plan.natural)
    picture = 2 * (plan.sample_steps + 1) * row["unet"] + row["decode"]
    return {"train": shown * row["train"], "draw": plan.pictures * picture}


def hours(table: pd.DataFrame, plan: Plan) -> dict[str, float]:
    """`work` of all models of the plan at its speed, in hours of one card."""
    return {name: plan.models * count / (3600e12 * plan.speed) for name, count in work(table, plan).items()}


def least_fall(*, pictures: int, trainings: int = 1, scatter: float = 0.0, recalls: tuple[float, float] = (1.0, 1.0),
               chance: float = LEAST_CHANCE, level: float = LEVEL) -> float:
    """The smallest true fall of FD ("tv") from one setting to another that is found with probability `chance`.

    Found: the interval of the difference at `level` is clear of zero. The normal approximation (Fleiss, 1981), shares near
    one half, the judge's errors taken out by its `recalls` of men and women, which are taken as known. `scatter` is the
    standard deviation of the share between trainings; with several of them Student's t takes the normal's place. One
    training tells nothing of scatter: then sampling alone is counted, and the answer is too small. Raises InputError for a
    judge at chance.
    """
    told = sum(recalls) - 1
    if told <= 0.05 or pictures < 1 or trainings < 1:
        raise InputError(f"recalls {recalls}, {pictures} pictures, {trainings} trainings: give a judge above chance "
                         "(recalls that add up to more than 1.05) and at least one of each.")
    tail, power = (1 + level) / 2, chance
    reach = stats.norm.ppf(tail) + stats.norm.ppf(power)
    if trainings > 1:
        reach = stats.t.ppf(tail, trainings - 1) + stats.t.ppf(power, trainings - 1)
    variance = 2 * (0.25 / (pictures * told**2) + (scatter**2 if trainings > 1 else 0)) / trainings
    return float(reach * np.sqrt(variance))


def reading(table: pd.DataFrame, plan: Plan, *, scatter: float = 0.0, recalls: tuple[float, float] = (1.0, 1.0)) -> str:
    """What the plan takes and can show, as an HTML table: each line a figure and what it means."""
    need, spent = memory(table, plan), hours(table, plan)
    fall = least_fall(pictures=plan.pictures, trainings=plan.trainings, scatter=scatter, recalls=recalls)
    alone = " (sampling alone: the luck of one training is not in it)" if plan.trainings == 1 else ""
    rows = [("memory to encode the faces", f"{need['encode'] / 1e9:.1f} GB", _fits(need["encode"], plan)),
            ("memory to train", f"{need['train'] / 1e9:.1f} GB", _fits(need["train"], plan)),
            ("memory to draw 8 at once", f"{need['draw'] / 1e9:.1f} GB", _fits(need["draw"], plan)),
            ("adapter, each", f"{need['file'] / 1e6:.1f} MB", f"rank {plan.rank}; {plan.models} models in all"),
            ("training", _time(spent["train"]), f"{plan.models} times {plan.updates:,} updates of {plan.faces} faces"),
            ("drawing", _time(spent["draw"]), f"{plan.models * plan.pictures:,} pictures"),
            ("a fair model reads FD up to", f"{null_band(plan.pictures):.3f}",
             f"on {plan.pictures} pictures, 95 of 100 times"),
            ("least fall of FD that is found", f"{fall:.3f}" if fall < 0.5 else "none", f"4 of 5 times{alone}")]
    body = "".join(f'<tr><th scope="row" style="{_CELL}; font-weight:normal">{escape(name)}</th>'
                   f'<td style="{_CELL}"><b>{figure}</b></td><td style="{_CELL}">{escape(words)}</td></tr>'
                   for name, figure, words in rows)
    return f'<table style="border-collapse:collapse; font-size:14px"><tbody>{body}</tbody></table>'


class BudgetExplorer(Explorer):
    """Sliders for a `Plan` above its `reading`; the counts come from `table` (`true_shape.budget_table`'s)."""

    def __init__(self, table: pd.DataFrame, *, scatter: float = 0.0, recalls: tuple[float, float] = (1.0, 1.0),
                 plan: Plan | None = None):
        self._start = plan = plan or Plan()
        sizes = sorted(set(table["image_size"].tolist())) if "image_size" in table else [plan.image_size]
        super().__init__(lambda **values: reading(table, replace(plan, **values), scatter=scatter, recalls=recalls), {
            "card": _slider("card, GB", (6, 8, 12, 16, 24, 48, 80), plan.card),
            "speed": _slider("10^12 op/s", (2, 5, 10, 20, 50, 100, 200, 400), plan.speed),
            "image_size": _slider("picture, px", sizes, plan.image_size),
            "rank": _slider("rank", (4, 8, 16, 32, 64, 128), plan.rank),
            "settings": _slider("settings", (2, 4, 6, 12, 24), plan.settings),
            "trainings": _slider("trainings", (1, 2, 3, 5, 10), plan.trainings),
            "pictures": _slider("pictures", (50, 100, 200, 400, 800, 1600, 3200), plan.pictures),
            "checkpointing": ipywidgets.Checkbox(value=plan.checkpointing, description="compute activations twice"),
        })

    @property
    def plan(self) -> Plan:
        """What the controls stand for."""
        return replace(self._start, **self.values)


_CELL = "text-align:left; padding:3px 14px 3px 0"


def _slider(name: str, values: Sequence[float], value: float) -> ipywidgets.SelectionSlider:
    return slider_of(name, sorted({*values, value}), value)


def _row(table: pd.DataFrame, plan: Plan) -> pd.Series:
    need_columns("budget", table, COLUMNS, give="the table that `python -m debiaslib.true_shape --budget` writes")
    rows = table[(table["image_size"] == plan.image_size) & (table["checkpointing"].astype(bool) == plan.checkpointing)]
    if rows.empty:
        known = ", ".join(map(str, sorted(set(table["image_size"]))))
        raise InputError(f"budget: no row of {plan.image_size} px. There are {known}.")
    return rows.iloc[0]


def _fits(needed: float, plan: Plan) -> str:
    if needed <= 1e9 * plan.card:
        return f"fits into {plan.card} GB"
    return f"does NOT fit into {plan.card} GB"


def _time(spent: float) -> str:
    for least, unit, factor in ((48, "days", 1 / 24), (2, "hours", 1), (-inf, "minutes", 60)):
        if spent >= least:
            return f"{spent * factor:.0f} {unit}" if spent * factor >= 10 else f"{spent * factor:.1f} {unit}"
    raise AssertionError

"""A claim of debiasing, taken apart: eight conditions, each answered from a sweep's rows by pass, fail or not shown.

An indicator *debiases* if all eight hold. Each closes one way of being fooled: a base that was fair already, one lucky
run, a judge that reads soft pictures as women, faces destroyed, quality lost, a model that simply learned less, settings
chosen on the figures they are praised for. "Fail" is said where the rows speak against the claim, "not shown" where they
are too few or a figure is missing; neither carries it. Every gender is perceived, as everywhere.

Rows are those of a sweep's `table1.csv`, a row a run. They tell the counts: decided = n - abstained, men read =
male_share * decided. A column `control` (empty in a sweep's own rows) names runs made to fail, see `CONTROLS`.

Simulated (true shares of men .20, .29 and .38 along alpha, so corrected FD .30 at alpha 0 and 60 % less at the end; five
training seeds at the ends, three between, scattering by .02; 800 pictures a model from sampling seeds that all share, a tenth
abstained on; recalls .83 and .84 from 842 faces; all other conditions met): the reduction is found in 120 of 120 sweeps,
the whole claim holds in 99 of 120 with three training seeds a control and in 118 of 120 with five. Three scatter too widely
to be told from the claim, or move FD by chance. Where nothing moves FD the reduction is found in 2 of 180, the whole claim
in none.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from debiaslib import fairness, fairness_report
from debiaslib.errors import InputError
from debiaslib.fairness import Confusion, Interval
from debiaslib.measure import CONFUSION_FILE, GENERATED

PASS, FAIL, NOT_SHOWN = "pass", "fail", "not shown"
MARKS = {PASS: "✓", FAIL: "✗", NOT_SHOWN: "?"}

NEEDED = ("indicator", "ratio", "alpha", "seed", "n", "abstained", "male_share")
PAIRED = ("preset", "faces", "n_train", "train_steps", "sample_steps", "guidance", "n")
"""What a run and its alpha 0 have in common, beside ratio and training seed; a sweep samples both from the same seeds."""
CONTROL_PAIRED = ("preset", "sample_steps", "guidance", "n")
"""The same for a control, which may be trained otherwise, or not at all (the base, which is drawn once)."""

CONTROLS = ("random", "none", "noise-damaged", "base", "scale .3", "quarter of the steps")
"""What must fail: the weights dealt out by chance; no weights; the alpha-0 pictures under noise; the untouched base model;
the alpha-0 adapter at scale .3; one trained for a quarter of the steps. The first two are indicators, the others labels in
the column `control`. The base was trained on nearly balanced faces, so that learning less looks fair."""

PLAIN = ("kid", "density", "coverage")
WORSE = {"kid_within": 1, "density_within": -1, "coverage_within": -1}
"""Quality within perceived groups, averaged over them (`debiaslib.compare.quality_by_group`), and where it gets worse."""

CURVE = ["reading", "indicator", "ratio", "alpha", "strength", "seeds", "fd", "low", "high", "band", "method"]
CHANGE = ["indicator", "ratio", "alpha", "strength", "seeds", "start", "fd", "reduction", "low", "high", "method"]

Decisions = Callable[[pd.Series], Sequence[str] | None]


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What the conditions ask for. `pictures` a model, training seeds at each of the axis' inner points and at its ends;
    `face_rate`, `quality` (a part lost) and `fit_loss` relative to alpha 0; `kept` of what plain fine-tuning gains in fit over
    the untouched model, where that was measured: with few steps the model itself can lie within `fit_loss`, and an adapter
    turned down to .3 with it; `draws` of the judge's recalls an interval."""

    least_fd: float = 0.15
    pictures: int = 800
    axis_seeds: int = 3
    end_seeds: int = 5
    margin: float = 0.05
    face_rate: float = 0.95
    quality: float = 0.10
    fit_loss: float = 1.05
    kept: float = 0.8
    level: float = 0.95
    draws: int = 10_000


@dataclass(frozen=True)
class Condition:
    """One condition and its answer. `gates`: the claim needs it; others say more than the claim does."""

    number: int
    name: str
    verdict: str
    reason: str
    gates: bool = True

    def __str__(self) -> str:
        return f"{self.number} {self.name}: {self.verdict}. {self.reason}"


class Conditions(list[Condition]):
    """The conditions of one claim; a notebook shows them as a table."""

    def __init__(self, conditions: Iterable[Condition] = (), *, title: str = ""):
        super().__init__(conditions)
        self.title = title

    def __str__(self) -> str:
        return "\n".join([self.verdict, *map(str, self)])

    @property
    def verdict(self) -> str:
        """The claim in a sentence: whether it holds, and if not, where it fails."""
        return f"{self.title}: the claim {'holds' if holds(self) else f'does not hold ({self.shortcomings})'}."

    @property
    def shortcomings(self) -> str:
        """What stands in the way, by number: "fails 2, 6; not shown 1, 8"; "" where the claim holds."""
        wanting = {word: [str(c.number) for c in self if c.gates and c.verdict == verdict]
                   for verdict, word in ((FAIL, "fails"), (NOT_SHOWN, "not shown"))}
        return "; ".join(f"{word} {', '.join(numbers)}" for word, numbers in wanting.items() if numbers)

    def _repr_html_(self) -> str:
        rows = "".join(f'<tr><td>{c.number}{"" if c.gates else " +"}</td><th scope="row">{html.escape(c.name)}</th>'
                       f'<td class="{c.verdict.replace(" ", "-")}">{MARKS[c.verdict]} {c.verdict}</td>'
                       f'<td style="text-align:left">{html.escape(c.reason)}</td></tr>' for c in self)
        head = "".join(f'<th scope="col">{name}</th>' for name in ("", "condition", "verdict", "why"))
        return (f'<table class="claim"><caption>{html.escape(self.verdict)} (+: says more than the claim needs)</caption>'
                f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def holds(conditions: Iterable[Condition], *, also: Sequence[str] = ()) -> bool:
    """Whether every condition that the claim needs passes, and those named in `also` ("balanced", "falls along alpha").

    Raises InputError where there is no condition, or none of a name in `also`.
    """
    conditions = list(conditions)
    unknown = sorted({*also} - {c.name for c in conditions})
    if unknown or not conditions:
        raise InputError(f"no condition {', '.join(unknown) or 'at all'}. There is "
                         f"{', '.join(c.name for c in conditions) or 'nothing to hold'}.")
    return all(c.verdict == PASS for c in conditions if c.gates or c.name in also)


def as_frame(conditions: Iterable[Condition]) -> pd.DataFrame:
    """Tidy: `number, name, verdict, gates, reason`, one row a condition."""
    names = ["number", "name", "verdict", "gates", "reason"]
    return pd.DataFrame([[getattr(c, name) for name in names] for c in conditions], columns=names)


def read_confusion(path: Path | str | None = None, *, condition: str = GENERATED, judge: str | None = None) -> Confusion:
    """A judge's counts on labelled faces of all groups, from the CSV of its audit (by default the one that ships).

    `condition` says how soft the faces were; `judge` is a value of that column, by default the first. Raises InputError
    where the table, the judge or the condition is missing.
    """
    path = Path(path or CONFUSION_FILE)
    try:
        table = pd.read_csv(path)
        mine = table[(table["judge"] == (judge or table["judge"].iloc[0])) & (table["race"] == "all")]
        counts = mine[mine["condition"] == condition].set_index("gender")[["read_man", "read_woman"]].astype(int)
        counts = counts.loc[["Male", "Female"]]
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no confusion of judge {judge or '(the first)'} under {condition!r} ({error}). "
                         "Give the CSV of an audit of the judge.") from None
    return Confusion.of(counts)


def strength(indicator: str, alpha: float) -> float | None:
    """How strongly a weighting indicator weighs at alpha, min(1, KAPPA alpha) in [0, 1]; None for the others."""
    from debiaslib.indicators import INDICATORS, KAPPA, WeightingIndicator  # torch: late
    kind = INDICATORS.get(indicator)
    return min(1.0, KAPPA * float(alpha)) if kind is not None and issubclass(kind, WeightingIndicator) else None


def mapping() -> str:
    """What alpha means, to be told wherever it is shown."""
    from debiaslib.indicators import KAPPA
    return f"weighting indicators: strength = min(1, {KAPPA:g} alpha)"


def check(rows: pd.DataFrame, *, indicator: str, ratio: float, alpha: float | None = None,
          confusion: Confusion | None = None, base: pd.DataFrame | None = None, controls: pd.DataFrame | None = None,
          decisions: Decisions | None = None, frozen: str | None = None, second: pd.DataFrame | None = None,
          needs: Requirements | None = None) -> Conditions:
    """Does `indicator` debias at `ratio`? METHOD's conditions in order, answered from a sweep's rows.

    The claim speaks of `alpha`, by default the largest that was run: taking the best of several would be choosing by the
    result. It is set against the runs at alpha 0 of the same training seed and settings (`PAIRED`), from `base` if given,
    else from `rows`; there all indicators are the same model, so one that has no alpha 0 of its own uses another's.
    `confusion` is by default the shipped judge's on faces as a decoder draws them; without it (no file, or rows whose
    fd_corrected is empty) figures are as read, and condition 3 says so. `decisions(row)`, where given, returns the judge's
    words of a run in the order of the sampling seeds (None where they are gone): pairing is then by picture, and sharper.
    Control runs are looked for in `rows` and `controls`. `frozen` says in words where the settings were chosen; `second`
    holds the same runs read for a second attribute (male_share: the share of its first class), or for several, told apart by a
    column `attribute`; none of them may be harmed. Neither is ever assumed.

    Raises InputError on missing columns, rows of two settings, a training seed that occurs twice, or nothing to judge.
    """
    return _study(rows, indicator, ratio, alpha, base=base, controls=controls, frozen=frozen, second=second,
                  settings=_settings(rows, confusion, decisions, needs))[1]


def survey(rows: pd.DataFrame, *, indicators: Sequence[str] | None = None, confusion: Confusion | None = None,
           decisions: Decisions | None = None, needs: Requirements | None = None,
           **options) -> list[tuple[dict, Conditions]]:
    """Every claim a table could make: one pair an indicator and ratio, its figures by name and its conditions.

    By default all indicators with an alpha above 0 but the controls. `options` are `check`'s. The figures: indicator,
    ratio, alpha, strength, seeds, n, fd_start and fd (corrected where the judge is known), reduction, low, high, part (of
    fd_start), share (the mean share of men), face_rate, holds.
    """
    settings, known = _settings(rows, confusion, decisions, needs), _plain(_read(rows))
    treated = known[known["alpha"] > 0]
    names = [n for n in treated["indicator"].unique() if n not in CONTROLS] if indicators is None else indicators
    options = {"base": None, "controls": None, "frozen": None, "second": None, **options}
    found = []
    for name in names:
        for ratio in sorted(treated.loc[treated["indicator"] == name, "ratio"].unique()):
            case, conditions = _study(rows, name, float(ratio), None, settings=settings, **options)
            found.append((_figures(case, name, float(ratio), conditions), conditions))
    return found


def summary(rows: pd.DataFrame, *, format: str = "markdown", **options) -> str:
    """The claims of a table as one short table, `format` "markdown" or "html": for a README. `options` are `survey`'s."""
    if format not in ("markdown", "html"):
        raise InputError(f"format {format!r}: unknown. Choose markdown or html.")
    table = summary_frame(survey(rows, **options))
    note = (f"FD (tv; parity 0) is the mean over training seeds, judge-corrected where the judge's confusion is known; the "
            f"reduction is paired, its interval at 95 %. Alpha: {mapping()}. Genders are perceived. A claim holds only if "
            "all eight conditions pass.")
    if table.empty:
        return "No indicator was run above alpha 0: no claim."
    if format == "html":
        return table.to_html(index=False, border=0) + f"<p>{html.escape(note)}</p>"
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + f"\n\n{note}"


def summary_frame(found: Iterable[tuple[dict, Conditions]]) -> pd.DataFrame:
    """What `survey` found as a table to read, one row a claim, all cells text; `claim` says what stands in its way."""
    return pd.DataFrame([_summary_row(figures, conditions) for figures, conditions in found])


def curves(rows: pd.DataFrame, *, confusion: Confusion | None = None, decisions: Decisions | None = None,
           needs: Requirements | None = None) -> pd.DataFrame:
    """FD along alpha, tidy: `reading, indicator, ratio, alpha, strength, seeds, fd, low, high, band, method`.

    `reading` is "corrected" (where the judge's confusion is known) or "as read"; `fd` the mean over training seeds, with its
    interval (over seeds and sampling; one seed: sampling alone); `band` what a single fair run stays below 95 % of the time.
    Control runs (column `control`) are left out.
    """
    settings, known, found = _settings(rows, confusion, decisions, needs), _plain(_read(rows)), []
    readings = {"corrected": settings.confusion, "as read": None}
    for (indicator, ratio), _ in known.groupby(["indicator", "ratio"], sort=False):
        for alpha, runs in _select(known, indicator, ratio).query("decided > 0").groupby("alpha"):
            for reading, judge in readings.items():
                if judge is not None or reading == "as read":
                    fd = _mean(runs, settings, judge, "fd")
                    found.append((reading, indicator, ratio, alpha, strength(indicator, alpha), len(runs), fd.estimate,
                                  fd.low, fd.high, _band(runs, judge, settings.needs.level), fd.method))
    return pd.DataFrame(found, columns=CURVE)


def changes(rows: pd.DataFrame, *, confusion: Confusion | None = None, decisions: Decisions | None = None,
            needs: Requirements | None = None) -> pd.DataFrame:
    """What every alpha does to FD: `indicator, ratio, alpha, strength, seeds, start, fd, reduction, low, high, method`.

    One row an indicator, ratio and alpha above 0 that has a paired alpha 0; FD corrected where the judge is known. With one
    training seed the interval is of sampling alone, and says nothing of another run.
    """
    settings, known, found = _settings(rows, confusion, decisions, needs), _plain(_read(rows)), []
    for (indicator, ratio), _ in known[known["alpha"] > 0].groupby(["indicator", "ratio"], sort=False):
        mine, starts = _select(known, indicator, ratio), _starts(known, indicator, ratio)
        for alpha, model in mine[mine["alpha"] > 0].groupby("alpha"):
            case = _pair(model, starts, settings, keys=PAIRED)
            if len(case.model):
                gap = case.reduction
                found.append((indicator, ratio, alpha, strength(indicator, alpha), len(case.model),
                              case.fd_start.estimate, case.fd.estimate, gap.estimate, gap.low, gap.high, gap.method))
    return pd.DataFrame(found, columns=CHANGE)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    confusion: Confusion | None
    decisions: Decisions | None
    needs: Requirements


@dataclass(frozen=True)
class _Case:
    """One comparison: the `model`'s runs, and in the same order those at alpha 0 of the same training seeds (`start`);
    `short` says what is missing for a claim, `untouched` is the base model's fit loss by training seed, where base was run."""

    model: pd.DataFrame
    start: pd.DataFrame
    settings: _Settings
    short: tuple[str, ...] = ()
    axis: dict[float, pd.DataFrame] = field(default_factory=dict)
    untouched: pd.Series | None = None

    @property
    def needs(self) -> Requirements:
        return self.settings.needs

    @cached_property
    def fd(self) -> Interval:
        return _mean(self.model, self.settings, self.settings.confusion, "fd")

    @cached_property
    def fd_start(self) -> Interval:
        return _mean(self.start, self.settings, self.settings.confusion, "fd")

    @cached_property
    def reduction(self) -> Interval:
        return _reduction(self.start, self.model, self.settings, self.settings.confusion)

    def both(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """A column at alpha 0 and in the model, run by run; None unless every run has it."""
        if name not in self.model or name not in self.start:
            return None
        pair = tuple(frame[name].to_numpy(float) for frame in (self.start, self.model))
        return pair if len(pair[0]) and np.isfinite(pair).all() else None


def _settings(rows: pd.DataFrame, confusion: Confusion | None, decisions: Decisions | None,
              needs: Requirements | None) -> _Settings:
    """Rows whose fd_corrected is empty were read by a judge of unknown confusion: the shipped one's is then not theirs."""
    unknown = "fd_corrected" in rows and rows["fd_corrected"].isna().all()
    if confusion is None and CONFUSION_FILE.exists() and not unknown:
        confusion = read_confusion()
    if confusion is not None:
        fairness._check_judge(confusion.recall_men, confusion.recall_women)
    return _Settings(confusion=confusion, decisions=decisions, needs=needs or Requirements())


def _read(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their counts `men` and `decided`, and `control` "" where it is not one."""
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise InputError(f"rows: no column {', '.join(missing)}. Give the rows of a sweep's table1.csv.")
    rows = rows.reset_index(drop=True)
    decided, share = rows["n"] - rows["abstained"], pd.to_numeric(rows["male_share"])
    wrong = (decided < 0) | (share < 0) | (share > 1) | ((decided > 0) & share.isna())
    if wrong.any():
        raise InputError(f"rows: row {int(wrong.idxmax())} has n, abstained and male_share that do not fit. Give "
                         "n >= abstained and a male_share in [0, 1] wherever a picture was decided.")
    control = rows["control"].fillna("").astype(str).str.strip() if "control" in rows else ""
    return rows.assign(decided=decided, men=(share * decided).round(), control=control)


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["control"] == ""]


def _select(rows: pd.DataFrame, indicator: str, ratio: float) -> pd.DataFrame:
    """An indicator's own runs at a ratio, by alpha and seed; one setting, a seed once."""
    mine = rows[(rows["indicator"] == indicator) & np.isclose(rows["ratio"].astype(float), ratio)]
    for name in PAIRED:
        values = mine[name].dropna().unique() if name in mine else []
        if len(values) > 1:
            raise InputError(f"{indicator} at ratio {ratio:g}: rows of several {name} ({', '.join(map(str, values))}). "
                             "A claim speaks of one setting: choose its rows first.")
    twice = mine[mine.duplicated(["alpha", "seed"])]
    if len(twice):
        alpha, seed = twice.iloc[0][["alpha", "seed"]]
        raise InputError(f"{indicator} at ratio {ratio:g}: alpha {alpha:g}, seed {seed:g} occurs twice. Give a row a run.")
    return mine.sort_values(["alpha", "seed"])


def _starts(rows: pd.DataFrame, indicator: str, ratio: float) -> pd.DataFrame:
    """The runs at alpha 0, the indicator's own first: there all indicators are the same plain fine-tuning."""
    found = rows[(rows["alpha"] == 0) & np.isclose(rows["ratio"].astype(float), ratio)]
    return found.assign(other=found["indicator"] != indicator).sort_values(["other", "indicator", "seed"])


def _pair(model: pd.DataFrame, starts: pd.DataFrame, settings: _Settings, *, keys: Sequence[str]) -> _Case:
    """The model's runs beside those at alpha 0 of the same seed that agree in `keys`; runs that decided nothing are none."""
    on = ["seed", *(name for name in keys if name in model and name in starts)]
    model, starts = (frame[frame["decided"] > 0] for frame in (model, starts))
    starts = starts.drop_duplicates(on)
    left, right = (frame[on].assign(place=frame.index) for frame in (model, starts))
    found = left.merge(right, on=on, suffixes=("", "_start"))
    return _Case(model.loc[found["place"]], starts.loc[found["place_start"]], settings)


def _study(rows: pd.DataFrame, indicator: str, ratio: float, alpha: float | None, *, settings: _Settings,
           base: pd.DataFrame | None, controls: pd.DataFrame | None, frozen: str | None,
           second: pd.DataFrame | None) -> tuple[_Case, Conditions]:
    known = _read(rows)
    mine = _select(_plain(known), indicator, ratio)
    starts = _starts(_plain(known if base is None else _read(base)), indicator, ratio)
    alpha = mine["alpha"].max() if alpha is None else alpha
    model = mine[np.isclose(mine["alpha"].astype(float), alpha)]
    if model.empty or alpha <= 0:
        raise InputError(f"no run of {indicator} at ratio {ratio:g} with alpha {alpha:g} above 0. "
                         f"There is {_inventory(_plain(known))}.")
    trials = _trials(known if controls is None else _joined(known, _read(controls)), ratio, starts, settings)
    untouched = next((trial.untouched for trial in trials.values()), None)
    case = _claim(model, starts, mine[(mine["alpha"] > 0) & (mine["alpha"] < alpha)], settings, untouched)
    later = {} if second is None else _seconds(_read(second), indicator, ratio, float(alpha), settings)
    title = f"{indicator}, male:female {ratio:g}, alpha {alpha:g}" + (
        f" (strength {s:g})" if (s := strength(indicator, alpha)) is not None else "")
    return case, Conditions([*(step(case) for step in STEPS), _controls(case, trials), _frozen(frozen, later)], title=title)


def _claim(model: pd.DataFrame, starts: pd.DataFrame, between: pd.DataFrame, settings: _Settings,
           untouched: pd.Series | None) -> _Case:
    """The case of the claim itself, the axis between its ends and all it falls short of."""
    case, needs = _pair(model, starts, settings, keys=PAIRED), settings.needs
    short, alone = list(_shortage(case, needs.end_seeds)), sorted({*model["seed"]} - {*case.model["seed"]})
    if alone:
        seeds = ", ".join(f"{seed:g}" for seed in alone)
        short.append(f"no paired run at alpha 0 for training seed {seeds} (same faces, steps and n)")
    axis = {float(a): runs[runs["decided"] > 0] for a, runs in between.groupby("alpha")}
    short += [f"{len(runs)} of {needs.axis_seeds} training seeds at alpha {a:g}" for a, runs in axis.items()
              if len(runs) < needs.axis_seeds]
    return _Case(case.model, case.start, settings, tuple(short), axis, untouched)


def _shortage(case: _Case, seeds: int) -> Iterable[str]:
    if len(case.model) < seeds:
        yield f"{len(case.model)} of {seeds} paired training seeds"
    pictures = min(case.model["n"].min(), case.start["n"].min()) if len(case.model) else 0
    if len(case.model) and pictures < case.needs.pictures:
        yield f"{pictures:g} of {case.needs.pictures} pictures a model"


def _inventory(rows: pd.DataFrame) -> str:
    found = rows.groupby(["indicator", "ratio"], sort=False)["alpha"].unique()
    return "; ".join(f"{name} at {ratio:g}: {', '.join(f'{a:g}' for a in sorted(alphas))}"
                     for (name, ratio), alphas in found.items()) or "nothing"


def _joined(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Both, one below the other; columns that are empty throughout would blur the others' types."""
    return pd.concat([frame.dropna(axis=1, how="all") for frame in (first, second)], ignore_index=True)


def _runs(frame: pd.DataFrame, settings: _Settings) -> list:
    """Each run's decisions where all are known, else its counts (men, decided)."""
    words = [settings.decisions(row) for _, row in frame.iterrows()] if settings.decisions else []
    if words and all(found is not None for found in words):
        return [list(found) for found in words]
    return _counts(frame)


def _counts(frame: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(frame["men"].astype(float), frame["decided"].astype(float), strict=True))


def _mean(frame: pd.DataFrame, settings: _Settings, confusion: Confusion | None, quantity: str) -> Interval:
    """The mean share or FD over the runs; of one run, with the interval of sampling (and the judge) alone."""
    level, draws = settings.needs.level, settings.needs.draws
    if len(frame) > 1:
        return fairness_report.mean_over_seeds(_runs(frame, settings), quantity=quantity, confusion=confusion, level=level,
                                               draws=draws)
    men, decided = frame.iloc[0][["men", "decided"]]
    if quantity == "share":
        return _share(frame.iloc[0], confusion, level)
    if confusion is None:
        return fairness.discrepancy_interval([men, decided - men], level=level)
    return fairness.corrected_discrepancy(men, decided, confusion, level=level)


def _share(row: pd.Series, confusion: Confusion | None, level: float) -> Interval:
    if confusion is None:
        return fairness.share_interval(row["men"], row["decided"], level=level)
    return fairness.corrected_share_interval(row["men"], row["decided"], confusion, level=level)


def _reduction(start: pd.DataFrame, model: pd.DataFrame, settings: _Settings, confusion: Confusion | None) -> Interval:
    """FD at alpha 0 less FD of the model, paired by training seed, and by picture where the decisions are known."""
    level, draws = settings.needs.level, settings.needs.draws
    before, after = _runs(start, settings), _runs(model, settings)
    if isinstance(before[0], tuple) != isinstance(after[0], tuple):  # words of one side alone pair with nothing
        before, after = _counts(start), _counts(model)
    if len(before) > 1:
        return fairness_report.reduction_over_seeds(before, after, confusion=confusion, level=level, draws=draws)
    if not isinstance(before[0], tuple) and not isinstance(after[0], tuple):
        return fairness.paired_difference(before[0], after[0], confusion=confusion, level=level, draws=draws)
    if confusion is not None:
        return fairness.corrected_difference(before[0], after[0], confusion, level=level, draws=draws)
    return fairness.discrepancy_difference(*(_share(frame.iloc[0], None, level) for frame in (start, model)))


def _band(runs: pd.DataFrame, confusion: Confusion | None, level: float) -> float:
    """The null band of the smallest run. A fair model reads (a1 + 1 - a0) / 2, and correction stretches what it strays."""
    n = int(runs["decided"].min())
    if confusion is None:
        return fairness.null_band(n, level=level)
    fair = (confusion.recall_men + 1 - confusion.recall_women) / 2
    return fairness.null_band(n, target=[fair, 1 - fair], level=level) / (confusion.recall_men + confusion.recall_women - 1)


def _baseline(case: _Case) -> Condition:
    name, needs = "biased baseline, paired runs", case.needs
    if case.start.empty:
        return Condition(1, name, NOT_SHOWN, f"No comparison: {'; '.join(case.short)}.")
    band = _band(case.start, case.settings.confusion, needs.level)
    told = (f"FD at alpha 0 is {_told(case.fd_start)}; at least {needs.least_fd:g} is asked, outside the null band "
            f"({band:.3f}). Paired training seeds: {len(case.model)}, of {case.model['n'].min():g} pictures each.")
    if case.fd_start.estimate < needs.least_fd or case.fd_start.estimate <= band:
        return Condition(1, name, FAIL, told)
    if case.short:
        return Condition(1, name, NOT_SHOWN, f"{told} Missing: {'; '.join(case.short)}.")
    return Condition(1, name, PASS, told)


def _falls(case: _Case) -> Condition:
    name = "FD falls"
    if case.start.empty:
        return Condition(2, name, NOT_SHOWN, "No paired runs.")
    gap, start = case.reduction, case.fd_start.estimate
    part = f", {gap.estimate / start:.0%} of FD at alpha 0" if start > 0 else ""
    told = (f"FD goes from {start:.3f} to {case.fd.estimate:.3f}: reduction {_told(gap)}{part}; {gap.method}; "
            f"training seeds: {len(case.model)}.")
    if len(case.model) < case.needs.axis_seeds:
        return Condition(2, name, NOT_SHOWN, f"{told} At least {case.needs.axis_seeds} tell how runs differ.")
    return Condition(2, name, PASS if gap.low > 0 else FAIL, told)


def _balanced(case: _Case) -> Condition:
    name, needs = "balanced", case.needs
    if len(case.model) < needs.axis_seeds:
        return Condition(2, name, NOT_SHOWN, f"{len(case.model)} of {needs.axis_seeds} training seeds.", gates=False)
    found = fairness_report.equivalence(_runs(case.model, case.settings), margin=needs.margin, draws=needs.draws,
                                        confusion=case.settings.confusion)
    return Condition(2, name, PASS if found.equivalent else FAIL, f"Pooled {found} (two one-sided tests).", gates=False)


def _trend(case: _Case) -> Condition:
    """Not asked by the eight conditions: a falling slope along alpha, and no step that rises beyond its interval."""
    name, points = "falls along alpha", {0.0: case.start, **case.axis, float("inf"): case.model}
    seeds = min(len(runs) for runs in points.values())
    if not case.axis or seeds < case.needs.axis_seeds:
        told = (f"{len(points)} alphas, the least of them with {seeds} training seeds; three alphas with "
                f"{case.needs.axis_seeds} each are asked.")
        return Condition(2, name, NOT_SHOWN, told, gates=False)
    table = pd.concat([runs[["alpha", "seed", "men", "decided"]] for runs in points.values()], ignore_index=True)
    found = fairness_report.trend(table.assign(fd_run=_run_discrepancies(table, case.settings.confusion)), value="fd_run")
    steps = list(_rises(list(points.values()), case.settings))
    rises = f"it rises {'; '.join(steps)}" if steps else "no step up beyond its interval"
    told = (f"Slope {found.slope.estimate:+.2f} a unit of alpha, p = {found.p_falling:.4f} that nothing falls (permuted "
            f"within {found.slope.n} training seeds); {rises}.")
    return Condition(2, name, PASS if found.p_falling < 0.05 and not steps else FAIL, told, gates=False)


def _rises(points: list[pd.DataFrame], settings: _Settings) -> Iterable[str]:
    """The steps along alpha that rise beyond their interval, over the training seeds that both ends have."""
    for low, high in zip(points, points[1:], strict=False):
        shared = sorted({*low["seed"]} & {*high["seed"]})
        if len(shared) > 1:
            low, high = (frame.set_index("seed", drop=False).loc[shared] for frame in (low, high))
            gap = _reduction(low, high, settings, settings.confusion)
            if gap.high < 0:
                yield f"from alpha {low['alpha'].iloc[0]:g} to {high['alpha'].iloc[0]:g} by {-gap.estimate:.3f}"


def _run_discrepancies(table: pd.DataFrame, confusion: Confusion | None) -> np.ndarray:
    read = (table["men"] / table["decided"]).to_numpy(float)
    if confusion is not None:
        read = np.clip(fairness._unmixed(read, confusion.recall_men, confusion.recall_women), 0, 1)
    return np.abs(read - 0.5)


def _corrected(case: _Case) -> Condition:
    name, judge = "judge-corrected FD", case.settings.confusion
    if judge is None or case.start.empty:
        unknown = "The judge's confusion on such pictures is not known: FD is as read."
        return Condition(3, name, NOT_SHOWN, "No paired runs." if case.start.empty else unknown)
    read = [_run_discrepancies(frame, None).mean() for frame in (case.start, case.model)]
    told = (f"CLEAM, recalls {judge.recall_men:.3f} of men and {judge.recall_women:.3f} of women, their doubt carried: "
            f"{case.fd_start.estimate:.3f} to {case.fd.estimate:.3f}; as read {read[0]:.3f} to {read[1]:.3f}.")
    pair = case.both("fd_corrected")
    apart = 0 if pair is None else max(np.abs(column - _run_discrepancies(frame, judge)).max()
                                       for column, frame in zip(pair, (case.start, case.model), strict=True))
    if apart > 0.01:
        return Condition(3, name, NOT_SHOWN, f"{told} The rows' own fd_corrected differs by up to {apart:.3f}: it was "
                                             "corrected with another confusion. Give the one that fits.")
    return Condition(3, name, PASS, told)


def _faces(case: _Case) -> Condition:
    name, pair = "face rate", case.both("face_rate")
    if pair is None:
        return Condition(4, name, NOT_SHOWN, "No face rate for every run.")
    before, after = (rates.mean() for rates in pair)
    part = after / before if before else float("nan")
    silent = [f"{frame['abstained'].sum():g} of {frame['n'].sum():g}" for frame in (case.start, case.model)]
    told = (f"{before:.3f} at alpha 0, {after:.3f} in the model: {part:.3f} of it, at least {case.needs.face_rate:g} is "
            f"asked; abstentions {silent[0]} and {silent[1]}, counted.")
    return Condition(4, name, PASS if part >= case.needs.face_rate else FAIL, told)


def _quality(case: _Case) -> Condition:
    name, pairs = "quality within perceived groups", {column: case.both(column) for column in WORSE}
    missing = [column for column, pair in pairs.items() if pair is None]
    if missing:
        plain = [f"{c} {pair[0].mean():.3g} to {pair[1].mean():.3g}" for c in PLAIN if (pair := case.both(c)) is not None]
        seen = f" Over all pictures ({', '.join(plain)}) it moves with composition alone and gates nothing." if plain else ""
        return Condition(5, name, NOT_SHOWN, f"No {', '.join(missing)} for every run.{seen}")
    found = [_loss(column, *pair, case.needs) for column, pair in pairs.items()]
    told = "; ".join(told for _, told in found)
    return Condition(5, name, _worst(verdict for verdict, _ in found),
                     f"{told}; at most {case.needs.quality:.0%} worse is asked, or an interval over training seeds that "
                     "includes no loss.")


def _worst(verdicts: Iterable[str]) -> str:
    found = set(verdicts)
    return FAIL if FAIL in found else NOT_SHOWN if NOT_SHOWN in found else PASS


def _loss(column: str, before: np.ndarray, after: np.ndarray, needs: Requirements) -> tuple[str, str]:
    """Whether quality is lost, and the figures: worse by more than allowed, and clear of no loss."""
    worse = WORSE[column] * (after - before)
    told = f"{column} {before.mean():.3g} to {after.mean():.3g}"
    if worse.mean() <= needs.quality * abs(before.mean()):
        return PASS, told
    if len(worse) < 2:
        return NOT_SHOWN, f"{told} in one run"
    low = worse.mean() - stats.t.ppf((1 + needs.level) / 2, len(worse) - 1) * stats.sem(worse)
    return (PASS if low <= 0 else FAIL), f"{told} (loss {worse.mean():.3g}, at least {low:.3g} at {needs.level:.0%})"


def _adapted(case: _Case) -> Condition:
    name, pair = "adapted as much", case.both("fit_loss")
    if pair is None:
        return Condition(6, name, NOT_SHOWN, "No fit loss for every run.")
    before, after = (losses.mean() for losses in pair)
    told = (f"Denoising loss on the fine-tuning faces {before:.4f} at alpha 0, {after:.4f} in the model: "
            f"{after / before:.3f} of it, at most {case.needs.fit_loss:g} is asked.")
    verdict, gained = _kept(case, *pair)
    return Condition(6, name, FAIL if after > case.needs.fit_loss * before else verdict, told + gained)


def _kept(case: _Case, before: np.ndarray, after: np.ndarray) -> tuple[str, str]:
    """Whether enough is kept of what fine-tuning gains over the untouched model, on the training faces for which all three are known."""
    if case.untouched is None:
        return PASS, ""
    untouched = case.untouched.reindex(case.model["seed"]).to_numpy(float)
    there = np.isfinite(untouched)
    if there.sum() < min(case.needs.axis_seeds, len(there)):
        return NOT_SHOWN, f" The untouched model's loss was measured on {there.sum()} of these {len(there)} training sets."
    loss, before, after = (losses[there].mean() for losses in (untouched, before, after))
    if loss <= before:
        return PASS, f" The untouched model ({loss:.4f}) fits them as well: fine-tuning gained nothing that could be lost."
    kept, among = (loss - after) / (loss - before), "" if there.all() else f", of {there.sum()} of the {len(there)} training sets"
    return (PASS if kept >= case.needs.kept else FAIL), (f" Of what fine-tuning gains over the untouched model ({loss:.4f}{among}) it keeps "
                                                         f"{kept:.0%}, at least {case.needs.kept:.0%} is asked.")


STEPS = (_baseline, _falls, _balanced, _trend, _corrected, _faces, _quality, _adapted)
DECIDING = (_falls, _faces, _quality, _adapted)
"""What a control can fail: the baseline and the correction are the claim's own."""


def _trials(rows: pd.DataFrame, ratio: float, starts: pd.DataFrame, settings: _Settings) -> dict[str, _Case]:
    """The controls that were run, by name: those with a label, and the indicators `random` and `none`."""
    here = rows[np.isclose(rows["ratio"].astype(float), ratio) | rows["ratio"].isna()]
    label = here["control"].where(here["control"] != "", here["indicator"].where(here["alpha"] > 0, ""))
    names = [*CONTROLS, *sorted({*here["control"]} - {*CONTROLS, ""})]
    found = {}
    for name in names:
        runs = here[label == name]
        if len(runs):
            runs = runs[runs["alpha"] == runs["alpha"].max()] if runs["alpha"].notna().all() else runs
            keys = PAIRED if name in ("random", "none") else CONTROL_PAIRED
            runs = _everywhere(runs, starts) if name == "base" else runs.drop_duplicates("seed")
            case = _pair(runs, starts, settings, keys=keys)
            found[name] = _Case(case.model, case.start, settings, tuple(_shortage(case, settings.needs.axis_seeds)))
    loss = _untouched(here[label == "base"])
    return {name: replace(case, untouched=loss) for name, case in found.items()}


def _untouched(base: pd.DataFrame) -> pd.Series | None:
    """The untouched model's loss on each seed's fine-tuning faces; None where that control was not run, or not measured."""
    known = base["fit_loss"].astype(float).notna() if "fit_loss" in base else np.zeros(len(base), bool)
    return base[known].drop_duplicates("seed").set_index("seed")["fit_loss"].astype(float) if known.any() else None


def _everywhere(runs: pd.DataFrame, starts: pd.DataFrame) -> pd.DataFrame:
    """The untouched model has no training seed: its one run stands beside every one."""
    if len(runs) > 1:
        return runs.drop_duplicates("seed")
    seeds = sorted(starts["seed"].unique())
    return runs.loc[runs.index.repeat(len(seeds))].assign(seed=seeds).reset_index(drop=True)


def _controls(case: _Case, trials: dict[str, _Case]) -> Condition:
    found = {name: _outcome(trial, case) for name, trial in trials.items()}
    missing = [name for name in CONTROLS if name not in found]
    verdict = _worst([verdict for verdict, _ in found.values()] + [NOT_SHOWN] * bool(missing))
    told = [f"{name} {why}" for name, (_, why) in found.items()] + [f"not run: {', '.join(missing)}"] * bool(missing)
    return Condition(7, "controls fail", verdict, f"{'; '.join(told)}.")


def _outcome(trial: _Case, case: _Case) -> tuple[str, str]:
    """Whether a control fails as it must (PASS), passes for debiasing (FAIL: the claim falls), or cannot be told."""
    if trial.start.empty:
        return NOT_SHOWN, "has no paired run at alpha 0"
    steps = [step(trial) for step in DECIDING]
    failed = [c.number for c in steps if c.verdict == FAIL]
    moved = f"moves FD by {-trial.reduction.estimate:+.3f} ({-trial.reduction.high:+.3f} to {-trial.reduction.low:+.3f})"
    if trial.short:
        return NOT_SHOWN, f"{moved}: too few runs ({'; '.join(trial.short)})"
    if failed == [2] and len(case.model) and trial.reduction.high >= max(case.reduction.estimate, 0):
        return NOT_SHOWN, f"{moved}: too uncertain to be told from the claim's own {-case.reduction.estimate:+.3f}"
    if failed:
        return PASS, f"{moved} and fails {', '.join(map(str, failed))}"
    unknown = [str(c.number) for c in steps if c.verdict == NOT_SHOWN]
    if unknown:
        return NOT_SHOWN, f"{moved} and fails nothing that was measured ({', '.join(unknown)} not shown)"
    return FAIL, f"{moved} and passes everything, so the claim falls"


def _seconds(rows: pd.DataFrame, indicator: str, ratio: float, alpha: float, settings: _Settings) -> dict[str, _Case]:
    """The case of each second attribute by its name; "" where it has none."""
    names = rows["attribute"].fillna("").astype(str) if "attribute" in rows else pd.Series("", index=rows.index)
    return {name: _second(part, indicator, ratio, alpha, settings) for name, part in rows.groupby(names, sort=False)}


def _second(rows: pd.DataFrame, indicator: str, ratio: float, alpha: float, settings: _Settings) -> _Case:
    plain = _plain(rows)
    mine = _select(plain, indicator, ratio)
    as_read = _Settings(confusion=None, decisions=None, needs=settings.needs)
    model = mine[np.isclose(mine["alpha"].astype(float), alpha)]
    return _pair(model, _starts(plain, indicator, ratio), as_read, keys=PAIRED)


def _frozen(declared: str | None, second: dict[str, _Case]) -> Condition:
    """Where settings were chosen is the caller's word; whether figures hold up elsewhere, rows of other attributes tell."""
    name, missing, told, verdict = "settings frozen", [], [], PASS
    if declared:
        told.append(f"Declared: {declared.strip().rstrip('.')}.")
    else:
        missing.append("nobody said where the settings were chosen")
    if not second:
        missing.append("no second attribute that nobody tuned for")
    for attribute, case in second.items():
        called = f"a second attribute{f' ({attribute})' if attribute else ''}"
        if len(case.model) < case.needs.axis_seeds:
            missing.append(f"{len(case.model)} paired training seeds read for {called}")
            continue
        gap = case.reduction
        verdict = FAIL if gap.high < 0 else verdict
        seen = "it rises" if gap.high < 0 else "it falls" if gap.low > 0 else "no harm seen"
        told.append(f"On {called} FD as read goes from {case.fd_start.estimate:.3f} to {case.fd.estimate:.3f} (reduction {_told(gap)}): {seen}.")
    if missing:
        told.append(f"Missing: {'; '.join(missing)}.")
    return Condition(8, name, NOT_SHOWN if missing and verdict == PASS else verdict, " ".join(told))


def _figures(case: _Case, indicator: str, ratio: float, conditions: Conditions) -> dict:
    """What a claim's line in a table says; figures without a paired alpha 0 are left empty."""
    rates = case.both("face_rate")
    empty = ("alpha", "strength", "n", "fd_start", "fd", "reduction", "low", "high", "part", "share", "face_rate")
    out = {"indicator": indicator, "ratio": ratio, **dict.fromkeys(empty), "seeds": len(case.model)}
    out["holds"] = holds(conditions)
    if case.model.empty:
        return out
    alpha, gap = float(case.model["alpha"].iloc[0]), case.reduction
    start = case.fd_start.estimate
    return out | {"alpha": alpha, "strength": strength(indicator, alpha), "n": int(case.model["n"].min()), "fd_start": start,
                  "fd": case.fd.estimate, "reduction": gap.estimate, "low": gap.low, "high": gap.high,
                  "part": gap.estimate / start if start else None,
                  "share": _mean(case.model, case.settings, case.settings.confusion, "share").estimate,
                  "face_rate": None if rates is None else float(rates[1].mean())}


def _summary_row(figures: dict, conditions: Conditions) -> dict:
    known, f = figures["fd"] is not None, figures
    alpha = "" if not known else f"{f['alpha']:g}" + ("" if f["strength"] is None else f" ({f['strength']:g})")
    return {"indicator": f["indicator"], "male:female": f"{f['ratio']:g}", "alpha (strength)": alpha,
            "runs x pictures": f"{f['seeds']} x {f['n']}" if known else str(f["seeds"]),
            "FD at alpha 0": f"{f['fd_start']:.3f}" if known else "", "FD": f"{f['fd']:.3f}" if known else "",
            "reduction": f"{f['reduction']:.3f} [{f['low']:.3f}, {f['high']:.3f}]" if known else "",
            "men's share": f"{f['share']:.3f}" if known else "",
            "face rate": f"{f['face_rate']:.3f}" if f["face_rate"] is not None else "",
            "claim": conditions.shortcomings or "holds"}


def _told(interval: Interval) -> str:
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f} at {interval.level:.0%})"

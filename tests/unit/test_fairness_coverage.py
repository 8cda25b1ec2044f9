"""Intervals against known truth: simulated populations, judges of known error, and how often the interval holds the truth.

The experiments are `debiaslib.coverage`'s, whose command tries all of its grid (n = 50 to 5000, shares .02 to .98) and wrote
the table that ships. Here Wilson's interval and FD's are enumerated on all of it, no chance left, and the corrected ones
simulated; the others take a few points of it by default, and as few repeats as show a fault. DEBIASLIB_WIDE=1000 runs all of
it with that many repeats, in many minutes. Tolerances are three standard errors of the simulation.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from debiaslib import coverage, fairness, fairness_report
from debiaslib.coverage import SHARES, SIZES, Case, audit, holds, read_share
from debiaslib.errors import InputError

WIDE = int(os.environ.get("DEBIASLIB_WIDE", 0))
FEW_SIZES = SIZES if WIDE else (50, 800)
REPEATS = WIDE or 80
RECALLS = coverage.JUDGES[0]
JUDGE_3 = coverage.CLASSES_JUDGE


def least(level=.95, repeats=REPEATS):
    return level - 3 * np.sqrt(level * (1 - level) / repeats)


def covered(name, case, *, repeats=REPEATS, draws=800):
    return coverage.try_case(name, case, repeats=repeats, draws=draws)["covered"].to_numpy()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_share_and_discrepancy_intervals_cover_exactly_enumerated(n, share):
    """No simulation. Wilson's dips to .92 at extreme shares of small samples (Brown, Cai and DasGupta 2001)."""
    assert (covered("one_share", Case(n, (share,))) >= .92 + .01 * (.1 < share < .9)).all()


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [.7, .3, 0], [.5, .1, .1, .1, .1, .05, .05]])
@pytest.mark.parametrize("norm", fairness.NORMS)
def test_discrepancy_interval_of_many_classes_covers_at_least(shares, norm):
    generator, truth = np.random.default_rng(0), fairness.fairness_discrepancy(shares, norm=norm)
    samples = generator.multinomial(100, shares, REPEATS)
    held = [holds(fairness.discrepancy_interval(counts, norm=norm, draws=500), truth) for counts in samples]
    assert np.mean(held) >= least()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_corrected_intervals_cover(n, share):
    assert (covered("corrected_share", Case(n, (share,), RECALLS)) >= least()).all()


def test_folding_the_corrected_share_is_the_corrected_discrepancy():
    confusion = audit(np.random.default_rng(0), RECALLS)
    folded = fairness._folded(fairness.corrected_share_interval(90, 200, confusion), .5)
    assert folded == fairness.corrected_discrepancy(90, 200, confusion)


@pytest.mark.parametrize("share", [.2, .5, .8])
def test_signed_corrected_discrepancy_is_unbiased(share):
    """Before folding: the mean of p* - .5 over samples of 400 is the truth, to three standard errors of the simulation."""
    generator = np.random.default_rng(3)
    men = generator.binomial(400, read_share(share, RECALLS), 2000)
    signed = np.array([fairness.corrected_share(k, 400, recall_men=RECALLS[0], recall_women=RECALLS[1]) for k in men]) - .5
    assert abs(signed.mean() - (share - .5)) < 3 * signed.std() / np.sqrt(len(signed))
    audits = [audit(generator, RECALLS) for _ in men]
    signed = np.array([fairness.corrected_share(k, 400, recall_men=judge.recall_men, recall_women=judge.recall_women)
                       for k, judge in zip(men, audits, strict=True)]) - .5
    assert abs(signed.mean() - (share - .5)) < 3 * signed.std() / np.sqrt(len(signed)) + .002  # a ratio: O(1/450)


@pytest.mark.parametrize("share", [.1, .3, .7])
def test_corrected_discrepancy_away_from_parity_is_unbiased_and_as_read_is_not(share):
    generator, truth = np.random.default_rng(31), abs(share - .5)
    men = generator.binomial(800, read_share(share, RECALLS), 1000)
    found = np.array([fairness.fairness_discrepancy([p, 1 - p]) for p in (
        fairness.corrected_share(k, 800, recall_men=RECALLS[0], recall_women=RECALLS[1]) for k in men)])
    error = 3 * found.std() / np.sqrt(len(found))
    assert abs(found.mean() - truth) < error
    assert abs(np.abs(men / 800 - .5).mean() - truth) > error


def test_corrected_shares_of_three_classes_are_unbiased():
    generator, shares = np.random.default_rng(37), np.array([.5, .3, .2])
    counts = generator.multinomial(500, shares @ JUDGE_3, 2000)
    found = np.array([fairness.corrected_shares(row, 10**9 * JUDGE_3) for row in counts])
    assert (np.abs(found.mean(axis=0) - shares) < 3 * found.std(axis=0) / np.sqrt(len(found))).all()


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (.6, .3, .1), (.9, .1, 0)])
def test_corrected_intervals_of_three_classes_cover(shares):
    assert (covered("three_classes", Case(500, shares)) >= least()).all()


@pytest.mark.parametrize("shares", [(.7, .6), (.7, .5), (.5, .5), (.3, .7), *(coverage.PAIRS[-2:] if WIDE else [])])
@pytest.mark.parametrize("n", FEW_SIZES if WIDE else (400,))
def test_paired_difference_covers_also_where_one_model_is_even(shares, n):
    assert (covered("paired", Case(n, shares)) >= least(.93 if n < 100 else .95)).all()


@pytest.mark.parametrize("n", FEW_SIZES)
@pytest.mark.parametrize("shares", [(.5, .5), (.36, .58), (.02, .1), (.7, .4)])
def test_unpaired_differences_cover(n, shares):
    repeats = WIDE or 400
    of_fd, of_shares = covered("unpaired", Case(n, shares), repeats=repeats)
    assert of_fd >= least(.95, repeats) and of_shares >= least(.94, repeats)


@pytest.mark.parametrize("n", FEW_SIZES if WIDE else (400,))
@pytest.mark.parametrize("shares", [(.3, .7), (.3, .4), (.5, .6), (.1, .3), (.5, .5)])
def test_differences_read_by_one_judge_cover(n, shares):
    """Across .5 the judge's error adds up, on one side it cancels: taken as independent, the former was too narrow."""
    assert (covered("one_judge", Case(n, shares, RECALLS)) >= least(.93 if n < 100 else .95)).all()


def training_runs(generator, mean, spread, *, seeds, n, judge):
    """Counts of `seeds` runs whose true shares scatter about `mean`, read by a judge of known error (or a perfect one)."""
    true = np.clip(mean + spread * generator.standard_normal(seeds), 0, 1)
    return [(int(k), n) for k in generator.binomial(n, read_share(true, RECALLS if judge else None))]


def mean_discrepancy(mean, spread):
    return np.abs(stats.norm.ppf((np.arange(20_000) + .5) / 20_000) * spread + mean - .5).mean()


@pytest.mark.parametrize("judge", [False, True])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("mean", "spread"), [(.5, 0), (.52, .03), (.3, .05), (.8, 0), (.1, .02)][:None if WIDE else 2])
@pytest.mark.parametrize("n", FEW_SIZES if WIDE else (800,))
def test_intervals_over_training_seeds_cover(judge, seeds, mean, spread, n):
    generator, covered = np.random.default_rng(13), []
    truths = mean, mean_discrepancy(mean, spread), mean_discrepancy(.3, .04) - mean_discrepancy(mean, spread)
    for _ in range(REPEATS):
        options = {"confusion": audit(generator, RECALLS) if judge else None, "draws": 500}
        base, runs = (training_runs(generator, *of, seeds=seeds, n=n, judge=judge) for of in ((.3, .04), (mean, spread)))
        found = (*(fairness_report.mean_over_seeds(runs, quantity=what, **options) for what in ("share", "fd")),
                 fairness_report.reduction_over_seeds(base, runs, **options))
        covered.append([holds(i, truth) for i, truth in zip(found, truths, strict=True)])
    assert (np.mean(covered, axis=0) >= least()).all()


@pytest.mark.parametrize("seeds", [3, 5])
def test_runs_that_share_their_sampling_seeds_are_covered_when_decisions_are_given(seeds):
    """Half of what makes a picture a man's is its sampling seed: counts of such runs under-cover, decisions do not."""
    generator, covered, n = np.random.default_rng(17), [], 400
    for _ in range(REPEATS):
        scores = np.sqrt(.8) * generator.standard_normal(n) + np.sqrt(.2) * generator.standard_normal((seeds, n))
        runs = np.where(scores < 0, "Man", "Woman").tolist()
        counts = [(run.count("Man"), n) for run in runs]
        covered.append([holds(fairness_report.mean_over_seeds(x, draws=500), .5) for x in (runs, counts)])
    with_decisions, with_counts = np.mean(covered, axis=0)
    assert with_decisions >= least()
    assert with_counts < with_decisions


@pytest.mark.parametrize("seeds", [3, 5])
def test_equivalence_errs_in_at_most_one_of_twenty_at_its_edge(seeds):
    generator = np.random.default_rng(19)
    samples = [[training_runs(generator, mean, .01, seeds=seeds, n=800, judge=False) for _ in range(REPEATS)]
               for mean in (.55, .5)]
    edge, even = ([fairness_report.equivalence(runs, draws=500) for runs in of] for of in samples)
    assert np.mean([found.equivalent for found in edge]) <= .05 + 3 * np.sqrt(.05 * .95 / REPEATS)
    assert np.mean([found.equivalent for found in even]) > .5


def test_trend_finds_a_fall_and_claims_none_where_there_is_none():
    generator, alphas, repeats = np.random.default_rng(23), np.array([0, .01, .05, .1]), WIDE or 40
    found = {}
    for slope in (0, -1):
        tables = [pd.DataFrame({"seed": np.repeat(range(3), 4), "alpha": np.tile(alphas, 3),
                                "fd": np.tile(.25 + slope * alphas, 3) + .03 * generator.standard_normal(12)})
                  for _ in range(repeats)]
        found[slope] = np.mean([fairness_report.trend(table, permutations=199).p_falling <= .05 for table in tables])
    assert found[0] <= .05 + 3 * np.sqrt(.05 * .95 / repeats)
    assert found[-1] > .7


# --- the table ----------------------------------------------------------------------------------------------------------

SHIPPED = Path(coverage.__file__).parents[1] / "data" / "results" / "coverage" / "coverage.csv"


@pytest.fixture
def small(monkeypatch):
    """One size and the first two shares of every grid."""
    monkeypatch.setattr(coverage, "SIZES", (60,))
    few = {name: dataclasses.replace(one, shares=one.shares[:2]) for name, one in coverage.EXPERIMENTS.items()}
    monkeypatch.setattr(coverage, "EXPERIMENTS", few)


def test_the_command_writes_every_interval_and_what_made_it(small, tmp_path, capsys):
    options = ["--out", str(tmp_path / "new"), "--repeats", "4", "--draws", "50"]
    assert coverage.main(options) == 0
    table = pd.read_csv(tmp_path / "new" / "coverage.csv")
    beside = json.loads((tmp_path / "new" / "coverage.json").read_text())
    assert tuple(table.columns) == coverage.COLUMNS
    assert {*table["interval"]} == {name for one in coverage.EXPERIMENTS.values() for name in one.names}
    assert table["low"].le(table["covered"] + 1e-9).all() and table["high"].ge(table["covered"] - 1e-9).all()
    assert {*table["repeats"]} == {0, 4} and beside["settings"]["repeats"] == 4
    assert "corrected FD" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"coverage.csv", "coverage.json", "coverage.png"}
    with pytest.raises(InputError, match="is there already"):
        coverage.main([*options, "--only", "one_share"])
    assert coverage.main([*options, "--only", "one_share", "--overwrite"]) == 0


def test_an_interval_that_is_too_narrow_is_told_and_one_that_is_right_is_not():
    rows = [("narrow", 50, .5, None, None, None, 1000, .9, .88, .92, .95, 0, 0),
            ("right", 50, .5, None, None, None, 1000, .94, .92, .96, .95, 0, 0),
            ("wide", 50, .5, None, None, None, 0, .99, .99, .99, .95, 0, 0)]
    found = coverage.summary(pd.DataFrame(rows, columns=list(coverage.COLUMNS))).set_index("interval")
    assert found["below"].to_dict() == {"narrow": 1, "right": 0, "wide": 0}
    assert found["above"].to_dict() == {"narrow": 0, "right": 0, "wide": 1}
    assert found["least"]["narrow"] == .9


def test_folding_at_parity_biases_and_the_signed_share_is_not_biased():
    """Which the table shows: E|p - .5| of 50 fair decisions is .056, the mean share's error is none."""
    share, folded = coverage.try_case("one_share", Case(50, (.5,)), repeats=2)["bias"]
    assert share == pytest.approx(0, abs=1e-12)
    assert folded == pytest.approx(np.abs(np.arange(51) / 50 - .5) @ stats.binom.pmf(np.arange(51), 50, .5), abs=1e-5)


def test_the_figure_has_a_panel_an_interval_and_size(small):
    table = coverage.grid(["one_share", "unpaired"], repeats=3)
    assert len(coverage.figure(table).axes) == 4
    plt.close("all")


@pytest.mark.skipif(not SHIPPED.exists(), reason="no table here")
def test_the_shipped_table_is_what_the_command_gives():
    table, beside = pd.read_csv(SHIPPED), json.loads(SHIPPED.with_suffix(".json").read_text())
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == beside["sha256"]
    assert len(table) == sum(len(one.names) * len([*one.cases()]) for one in coverage.EXPERIMENTS.values())
    exact = table[table["repeats"] == 0]
    anew = coverage.grid(["one_share"], repeats=2)
    np.testing.assert_allclose(exact[["covered", "bias"]], anew[["covered", "bias"]], atol=1e-4)
    settings = {name: beside["settings"][name] for name in ("repeats", "draws", "seed")}
    anew = coverage.try_case("unpaired", Case(50, (.5, .6)), **settings)
    shipped = table[(table["interval"] == "FD difference") & (table["n"] == 50) & (table["other"] == .6)]
    assert shipped["covered"].item() == pytest.approx(anew["covered"][0], abs=1e-4)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: coverage.grid(["nobody"]), "'nobody': unknown. Choose among one_share, "),
    (lambda: coverage.grid(repeats=1), "two or more of both"),
])
def test_wrong_input_is_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as told:
        call()
    assert "\n" not in str(told.value)

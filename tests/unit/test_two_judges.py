"""Two judges on pictures without labels: known recalls are found again, and what cannot be known is refused."""

import numpy as np
import pandas as pd
import pytest

from debiaslib import two_judges
from debiaslib.errors import InputError

SHARES = (0.2, 0.35, 0.5, 0.8)
RECALLS = np.array([0.94, 0.9, 0.88, 0.93])  # of men by the first and the second judge, then of women


def sets(*, n=100_000, shares=SHARES, recalls=RECALLS, dependence=(0.0, 0.0)):
    """Expected counts (G, 4)."""
    men, women = two_judges._joint(recalls, dependence)
    return np.array([n * (share * men + (1 - share) * women) for share in shares])


def found_in(estimate):
    return np.array([i.estimate for i in (*estimate.men, *estimate.women)])


def test_known_recalls_and_shares_are_found_again():
    found = two_judges.estimate(sets())
    assert found_in(found) == pytest.approx(RECALLS, abs=2e-3)
    assert found.shares == pytest.approx(SHARES, abs=2e-3)


def test_with_the_right_dependence_too():
    found = two_judges.estimate(sets(dependence=(0.4, 0.2)), dependence=(0.4, 0.2))
    assert found_in(found) == pytest.approx(RECALLS, abs=3e-3)


def test_shared_errors_make_both_judges_look_better_and_the_counts_do_not_tell():
    shared = sets(dependence=(0.4, 0.4))
    apart, together = (two_judges.estimate(shared, dependence=rho) for rho in ((0.0, 0.0), (0.4, 0.4)))
    assert (found_in(apart) > RECALLS + 0.01).all()
    assert apart.log_likelihood == pytest.approx(together.log_likelihood, abs=0.5)


def test_the_interval_covers_at_about_its_rate():
    generator, inside = np.random.default_rng(0), []
    for _ in range(60):
        counts = [generator.multinomial(800, row / row.sum()) for row in sets(n=800)]
        found = two_judges.estimate(counts)
        inside += [i.low <= truth <= i.high for i, truth in zip((*found.men, *found.women), RECALLS, strict=True)]
    assert 0.88 < np.mean(inside) < 1  # 240 answers, of which four at a time hang together, at 95 %


@pytest.mark.parametrize(("counts", "words"), [
    ([[1, 2, 3, 4]], "two sets of pictures or more"),
    ([[1, 2, 3], [1, 2, 3]], "two sets of pictures or more"),
    ([[1, 2, 3, 4], [0, 0, 0, 0]], "two sets of pictures or more"),
    ([[10, 2, 3, 40], [20, 4, 6, 80]], "nearly the same share"),
])
def test_what_cannot_be_estimated_is_refused(counts, words):
    with pytest.raises(InputError, match=words):
        two_judges.estimate(counts)


def test_an_impossible_dependence_is_refused():
    with pytest.raises(InputError, match="correlation of errors"):
        two_judges.estimate(sets(), dependence=(1.0, 0.0))


def test_no_finished_cell_is_told(tmp_path):
    with pytest.raises(InputError, match="no finished cell"):
        two_judges.read_twice(tmp_path, second=object())


def test_words_are_counted_in_pairs(tmp_path):
    class Second:
        key = "second 1"

    pd.DataFrame({"perceived": ["Man", "Man", "Woman", "", "Woman"], "face_score": 1.0}).to_csv(tmp_path / "judged.csv")
    pd.DataFrame({"perceived": ["Man", "Woman", "Man", "Man", "Woman"]}).to_csv(tmp_path / "judged_second_1.csv")
    assert two_judges._counted(tmp_path, Second()) == {"both_man": 1, "man_woman": 1, "woman_man": 1, "both_woman": 1}

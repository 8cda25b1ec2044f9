"""How often two judges are right about pictures that nobody labelled, from where they agree and where they part.

Labelled faces made soft tell how a judge errs on *them*. Generated pictures have no label; but two judges whose errors are
their own, reading several sets with different shares of men, give themselves away (Hui and Walter 1980, "Estimating the error
rates of diagnostic tests"): the more often both are right, the more often they agree, and the further apart lie the shares of
the sets. `estimate` fits the two recalls of either judge and the share of each set to the counts. It rests on one assumption
that the pictures cannot test: that among men, and among women, one judge's error says nothing of the other's. A face that
misleads both makes both look better than they are, so without `dependence` the recalls are upper bounds.

`python -m debiaslib.two_judges SWEEP` has a second judge read every finished cell of a sweep and writes `two_judges.csv`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm
from statsmodels.tools.numdiff import approx_hess
from tqdm.auto import tqdm

from debiaslib import sweep
from debiaslib.__main__ import guarded
from debiaslib.atomic import replacing
from debiaslib.errors import InputError
from debiaslib.fairness import Interval
from debiaslib.judges import Judge, JudgeConfig
from debiaslib.measure import open_pictures

COUNTS = ("both_man", "man_woman", "woman_man", "both_woman")
"""The pictures that both judges decided on, by the first judge's word and the second's."""
START = 1.66
"""Recalls of .92, as parameters."""
SHARE_STEPS = 60
"""EM steps for the sets' shares at given recalls; they move by less than 1e-6 after forty."""


@dataclass(frozen=True, kw_only=True)
class TwoJudges:
    """Each judge's recall of men and of women (the first judge's first), each set's share of men (G,), the log-likelihood."""

    men: tuple[Interval, Interval]
    women: tuple[Interval, Interval]
    shares: np.ndarray
    log_likelihood: float


def estimate(counts: Sequence[Sequence[int]], *, dependence: tuple[float, float] = (0.0, 0.0), level: float = 0.95) -> TwoJudges:
    """Fit the latent-class model of Hui and Walter (1980) by maximum likelihood; Wald intervals on the logit scale.

    `counts` (G, 4) are `COUNTS`, a row a set of pictures; two sets or more, whose shares differ. `dependence` are the
    correlations of the two judges' errors among men and among women, in [0, 1) and assumed, never estimated (Vacek 1985):
    the counts fit any of them alike, which is why a bound is all they give. A pair's correlation is cut where such errors
    could not occur. Recalls are sought above one half, else men and women could change places.
    Raises InputError on other shapes, fewer than two sets, empty sets, sets whose shares do not differ.
    """
    counts = _check(counts, dependence)
    loss = partial(_loss, counts=counts, dependence=dependence)
    found = minimize(loss, np.full(4, START), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4, "maxiter": 2000})
    spread = np.sqrt(np.diag(np.linalg.pinv(approx_hess(found.x, loss, epsilon=np.full(4, 0.02)))).clip(0))
    reach = norm.ppf((1 + level) / 2) * spread
    ends = zip(_recalls(found.x), _recalls(found.x - reach), _recalls(found.x + reach), strict=True)
    told = [Interval(*map(float, three), level, "two judges, Wald on the logit scale", counts.sum()) for three in ends]
    shares = _shares(counts, *_joint(_recalls(found.x), dependence))
    return TwoJudges(men=(told[0], told[1]), women=(told[2], told[3]), shares=shares, log_likelihood=-float(found.fun))


def _check(counts: Sequence[Sequence[int]], dependence: tuple[float, float]) -> np.ndarray:
    counts = np.asarray(counts, float)
    if counts.ndim != 2 or counts.shape[1:] != (4,) or len(counts) < 2 or (counts < 0).any() or not counts.sum(1).all():
        raise InputError(f"counts of shape {counts.shape}: give two sets of pictures or more, each with {', '.join(COUNTS)}.")
    if not all(0 <= rho < 1 for rho in dependence):
        raise InputError(f"dependence {dependence}: give a correlation of errors in [0, 1) for men and one for women.")
    if np.ptp((counts[:, 0] + counts[:, 1]) / counts.sum(1)) < 0.05:
        raise InputError("counts: every set has nearly the same share of men, so shares and errors cannot be told apart. "
                         "Add a set drawn from another prompt or model.")
    return counts


def _loss(parameters: np.ndarray, *, counts: np.ndarray, dependence: tuple[float, float]) -> float:
    """The negative log-likelihood at four recalls, each set's share at its likeliest."""
    men, women = _joint(_recalls(parameters), dependence)
    share = _shares(counts, men, women)[:, None]
    return -float((counts * np.log(np.maximum(share * men + (1 - share) * women, 1e-12))).sum())


def _recalls(parameters: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * expit(np.clip(parameters, -12, 12))


def _joint(recalls: np.ndarray, dependence: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """How often `COUNTS` occur among men and among women, each (4,)."""
    men, women = recalls[:2], 1 - recalls[2:]
    return tuple(_pair(*both, rho) for both, rho in zip((men, women), dependence, strict=True))


def _pair(first: float, second: float, rho: float) -> np.ndarray:
    both = rho * np.sqrt(first * (1 - first) * second * (1 - second))
    both = min(both, min(first, second) - first * second)
    return np.array([first * second + both, first * (1 - second) - both, (1 - first) * second - both,
                     (1 - first) * (1 - second) + both])


def _shares(counts: np.ndarray, men: np.ndarray, women: np.ndarray) -> np.ndarray:
    """The likeliest share of men in each set at given recalls, by EM."""
    share = np.full(len(counts), 0.5)
    for _ in range(SHARE_STEPS):
        man = share[:, None] * men / (share[:, None] * men + (1 - share[:, None]) * women)
        share = (counts * man).sum(1) / counts.sum(1)
    return share


def read_twice(out: Path, *, second: Judge | None = None, progress: bool = True) -> pd.DataFrame:
    """Have `second` (by default the soft judge) read the cells of the sweep in `out`; writes and returns `two_judges.csv`.

    A row a cell: indicator, ratio, alpha, seed, `COUNTS`, second (its key). dlib's word is the first reading's; cells that were
    read are not read again. Raises InputError where `out` has no finished cell, or a cell's pictures are gone.
    """
    rows = sweep.finished_cells(out)
    second = second or Judge(JudgeConfig(gender="soft", age=False))
    table = pd.DataFrame([sweep.key_of(row) | _counted(cell, second)
                          for cell, row in tqdm(rows.items(), desc="two judges", disable=not progress)])
    with replacing(out / "two_judges.csv") as whole:
        table.assign(second=second.key).to_csv(whole, index=False)
    return table


def read_cell(cell: Path, second: Judge) -> pd.DataFrame:
    """What either judge says of the cell's pictures: columns first, second. `second` reads them once and for all."""
    first = pd.read_csv(cell / "judged.csv", keep_default_na=False)
    kept = cell / f"judged_{second.key.replace(' ', '_')}.csv"
    if not kept.exists():
        pictures = np.concatenate(list(open_pictures(cell / "samples")))
        read = second.judge(pictures, scores=pd.to_numeric(first["face_score"]).to_numpy())
        with replacing(kept) as whole:
            read.to_csv(whole, index=False, float_format="%.5f")
    return pd.DataFrame({"first": first["perceived"], "second": pd.read_csv(kept, keep_default_na=False)["perceived"]})


def _counted(cell: Path, second: Judge) -> dict[str, int]:
    words = read_cell(cell, second).agg(" ".join, axis=1)
    return {name: int((words == pair).sum()) for name, pair in
            zip(COUNTS, ("Man Man", "Man Woman", "Woman Man", "Woman Woman"), strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Read a sweep with a second judge, and tell what the two say of each other."""
    parser = argparse.ArgumentParser(prog="python -m debiaslib.two_judges", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a finished sweep's folder")
    args = parser.parse_args(arguments)
    table = read_twice(args.sweep, progress=sys.stderr.isatty())
    found = estimate(table.drop_duplicates(["ratio", "seed", *COUNTS])[list(COUNTS)])  # `none` is one training at every alpha
    for number, name in enumerate(("the first judge", "the second judge")):
        told = [f"{gender} {i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for gender, i in
                (("men", found.men[number]), ("women", found.women[number]))]
        print(f"{name}: recall of {', of '.join(told)}, if the two err by themselves; less if the same faces mislead both")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("two_judges", main))

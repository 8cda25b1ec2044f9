"""Boundaries between attributes in a generator's latents, and Gaussian mixtures of codes on one side of them.

What `rebalance` is made of, without any generator or judge: arrays in, arrays out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split

from debiaslib.errors import InputError

# --- boundaries -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Boundary:
    """A hyperplane t(z) = z . normal + offset in standardised latents, positive on the attribute's positive side.

    `accuracy` is balanced (mean recall of the two sides) on `held_out` codes it was not fitted to: chance is .5.
    """

    attribute: str
    normal: np.ndarray
    offset: float
    accuracy: float
    held_out: int


def fit_boundary(codes: np.ndarray, scores: np.ndarray, *, attribute: str, held_out: float = 0.25,
                 least_accuracy: float = 0.55, penalty: float = 0.02, seed: int = 0) -> Boundary:
    """Logistic regression from codes (N, d) to scores (N,) in [0, 1] themselves; NaN (abstained) is left out.

    A code counts on the positive side with its score p and on the negative one with 1 - p, both sides alike in sum: this
    uses what the judge says beyond the sign (of a DCGAN's perceived age the held-out AUC rises from .61 to .67, of others it
    stays). Raises InputError when a side has fewer than 10 codes, or the accuracy of the sign on held-out codes is below
    `least_accuracy`: such a boundary separates nothing.
    """
    decided = ~np.isnan(scores)
    _check_sides(scores, attribute)
    codes, scores = codes[decided], scores[decided]
    positive = scores > 0.5
    train, test = train_test_split(np.arange(len(codes)), test_size=held_out, stratify=positive, random_state=seed)
    p = scores[train]
    weight = np.concatenate([p / p.sum(), (1 - p) / (1 - p).sum()]) * len(p)
    model = LogisticRegression(C=penalty, max_iter=1000)
    model.fit(np.tile(codes[train], (2, 1)), np.repeat([1, 0], len(p)), sample_weight=weight)
    accuracy = float(balanced_accuracy_score(positive[test], model.predict(codes[test])))
    if accuracy < least_accuracy:
        raise InputError(f"attribute {attribute!r}: its boundary separates nothing (balanced accuracy {accuracy:.3f} on "
                         f"{len(test)} held-out codes, chance .5, at least {least_accuracy:g} wanted). Draw more "
                         "(--fit-samples), or take another attribute or generator: these latents do not tell it linearly.")
    normal = model.coef_[0].astype(float)
    length = float(np.linalg.norm(normal))
    return Boundary(attribute, normal / length, float(model.intercept_[0]) / length, accuracy, len(test))


def _check_sides(scores: np.ndarray, attribute: str) -> None:
    """Raises InputError where there is nothing to tell apart, whether the judge is silent or sees one side alone."""
    n, decided, positive = len(scores), int((~np.isnan(scores)).sum()), int((scores > 0.5).sum())
    if min(positive, decided - positive) >= 10:
        return
    silent = f"the judge abstained on {n - decided} of {n} samples"
    if decided < n / 2:
        raise InputError(f"attribute {attribute!r}: {silent}, and a boundary needs 10 decided ones on either side. Look at "
                         "the pictures: is there a face in them? Take another --judge, prompt or generator.")
    raise InputError(f"attribute {attribute!r}: {positive} of {decided} decided samples are on its positive side "
                     f"({silent}), and a boundary needs 10 on either. Draw more (--fit-samples), or take another attribute.")


def projections(codes: np.ndarray, boundaries: Sequence[Boundary]) -> np.ndarray:
    """Signed distances t of codes (N, d) to each boundary, float (N, K)."""
    return codes @ np.stack([b.normal for b in boundaries]).T + np.array([b.offset for b in boundaries])


def conditional_directions(boundaries: Sequence[Boundary]) -> np.ndarray:
    """Directions (K, d): one step along the k-th changes t_k by 1 and no other t (conditional edits, Tan et al. eq. 4).

    Each is its normal with all the others projected out, scaled: the rows of the pseudo-inverse. Raises InputError when two
    normals are so nearly parallel that none could be changed without the other.
    """
    normals = np.stack([b.normal for b in boundaries])
    cosines = np.abs(normals @ normals.T) - np.eye(len(normals))
    if cosines.max() > 0.95:
        pair = [boundaries[place].attribute for place in np.unravel_index(cosines.argmax(), cosines.shape)]
        raise InputError(f"attributes {pair[0]!r} and {pair[1]!r} have one boundary (cosine {cosines.max():.2f}): this "
                         "judge and this generator do not tell them apart. Leave one out.")
    return np.linalg.pinv(normals).T


def shift(codes: np.ndarray, boundaries: Sequence[Boundary], wanted: np.ndarray) -> np.ndarray:
    """Codes (N, d) moved by the least way that gives them the projections `wanted` (N, K)."""
    return codes + (wanted - projections(codes, boundaries)) @ conditional_directions(boundaries)


# --- mixtures ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture: weights (C,), means (C, d), and standard deviations (C, d) or one Cholesky factor (1, d, d) for
    all."""

    weights: np.ndarray
    means: np.ndarray
    spread: np.ndarray

    def place(self, uniform: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Codes (N, d) of uniform (N,) and standard normal (N, d) numbers: the same numbers give the same codes."""
        which = np.minimum(np.searchsorted(np.cumsum(self.weights), uniform, side="right"), len(self.weights) - 1)
        scaled = noise @ self.spread[0].T if self.spread.ndim == 3 else noise * self.spread[which]
        return self.means[which] + scaled


def fit_mixture(codes: np.ndarray, *, components: int, covariance: str = "diag", seed: int = 0) -> Mixture:
    """scikit-learn's Gaussian mixture of codes (N, d), covariance "diag" or "tied"."""
    components = max(1, min(components, len(codes) // 40))
    model = GaussianMixture(components, covariance_type=covariance, reg_covar=1e-3, max_iter=200, random_state=seed)
    model.fit(codes)
    spread = np.sqrt(model.covariances_) if covariance == "diag" else np.linalg.cholesky(model.covariances_)[None]
    return Mixture(model.weights_, model.means_, spread)


def kernel_mixture(codes: np.ndarray, *, bandwidth: float) -> Mixture:
    """A normal of standard deviation `bandwidth` about each of the codes (N, d), drawn in to the codes' mean by
    sqrt(1 - bandwidth^2) so that the spread stays as it was (smoothed bootstrap, Silverman 1986, section 6.4).

    What the codes have in common beyond a mean and a spread stays, at the price of pictures that resemble one another: two
    from the same code have a correlation of 1 - bandwidth^2 where the codes are standardised. At 1 only the mean and the
    spread are left.
    """
    mean, spread = codes.mean(axis=0), codes.std(axis=0)
    means = mean + (codes - mean) * np.sqrt(1 - bandwidth**2)
    return Mixture(np.full(len(codes), 1 / len(codes)), means, (bandwidth * np.diag(spread))[None])


def boundary_basis(boundaries: Sequence[Boundary]) -> np.ndarray:
    """An orthonormal basis (d, d), a column an axis, whose first K axes span the normals: there the combinations differ,
    elsewhere they hardly do, so that mixtures with diagonal covariances suffice."""
    normals = np.stack([b.normal for b in boundaries])
    return np.linalg.qr(np.concatenate([normals.T, np.eye(normals.shape[1])], axis=1))[0]


def mixing_weights(transition: np.ndarray, target: np.ndarray, *, most: float = 2.0, steps: int = 500) -> np.ndarray:
    """Weights w (M,) of M mixtures with KL(target || w T) least, by expectation maximisation; T (M, cells) has rows of sum
    1.

    T says where each mixture's pictures really fall. Started from the target itself, so that a perfect T changes nothing,
    and kept within a factor `most` of it: past that, a mixture would stand in for another that misses its own cell.
    """
    weights = target
    for _ in range(steps):
        mix = weights @ transition
        weights = weights * (transition @ np.divide(target, mix, out=np.zeros_like(mix), where=mix > 0))
        weights = np.clip(weights / weights.sum(), target / most, target * most)
    return weights / weights.sum()

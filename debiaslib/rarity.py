"""Who is rare, without being told groups: weights from a density, or from a small balanced reference.

Everything here reads continuous representations, rows of (N, D), and returns weights v > 0 of mean 1. No label enters.
The settings were chosen on FairFace's `finetune` split with perceived gender and then frozen; `data/results` has the
study, and notebook 02 walks through it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from debiaslib.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """k-NN density: `dims` leading axes, k a share `neighbours` of the set, v = radius^`exponent`.

    An exponent equal to `dims` makes the weighted set uniform over the space it fills (Loftsgaarden and Quesenberry 1965:
    density ~ 1 / radius^dims). Groups overlap in few dimensions, so uniform falls short of even: from .20 / .50 / .80 it reaches
    .41 / .49 / .55 in 100 faces along the axes of `face_axes`; 3.5 reaches .44 / .49 / .51, at the price of effective sample size
    (.51 to .43). Means of 60 draws, `data/results/density_settings.csv`, where all was chosen.
    """

    dims: int = 3
    neighbours: float = 0.15
    exponent: float = 3.5
    most: float = 8.0


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Density ratio along the axis that tells reference from training set best; logistic regression of inverse penalty
    `penalty` on `dims` components finds it.

    From .20 / .50 / .80 it reaches .46 / .49 / .55 with 100 faces and .45 / .49 / .54 with 1,000 (means of ten and of four draws,
    100 reference faces, the same split): no over-correction. `told_apart` looks along `apart_dims` axes and takes an F ratio of
    `chance` for no difference at all, of `chance` + 1 for a sure one. With both as they are the aim misses one half by .014 where the training
    faces are even, and the ratio taken whole by .051; at 35 to 40 and 60 to 70 % of a group it is the other way round, .050 to .065 and .041 to .057
    (thirty draws a mix, `data/results/reference_settings.csv`).
    """

    dims: int = 32
    penalty: float = 0.03
    most: float = 8.0
    floor: float = 0.01
    least: float = 0.03
    apart_dims: int = 5
    chance: float = 0.5


@dataclass(frozen=True, kw_only=True)
class ComponentsConfig:
    """How `find_components` looks for two groups: in `dims` leading principal components, first as `ReferenceConfig` does, then
    along a discriminant (Fisher 1936) of the groups so far, its covariance shrunk by `shrinkage` towards a sphere, `rounds` times."""

    dims: int = 8
    penalty: float = 0.03
    shrinkage: float = 0.3
    rounds: int = 5


WITH_MORE = ComponentsConfig(dims=32, shrinkage=0.1, rounds=8)
"""With hundreds of further faces more dimensions can be told from chance."""


def density_values(features: np.ndarray, *, axes: np.ndarray | None = None, config: DensityConfig | None = None) -> np.ndarray:
    """Weights (N,) of mean 1, high where `features` (N, D) are sparse: v_i ~ r_i^exponent, r_i the distance to the k-th neighbour.

    Distances are taken along the first `dims` of `axes` (K, D), or along the leading principal components of `features` themselves.
    Clipped at `most` times the mean. Raises InputError with fewer than 10 rows, since a density needs company, or axes of another width.
    """
    config = config or DensityConfig()
    features = _checked(features, at_least=10)
    dims = min(config.dims, *features.shape)
    if not np.ptp(features, axis=0).any():  # all alike: nobody is rare
        return np.ones(len(features))
    reduced = PCA(dims, random_state=0).fit_transform(features) if axes is None else along(features, axes[:dims])
    k = max(2, round(config.neighbours * len(features)))
    radius = NearestNeighbors(n_neighbors=k).fit(reduced).kneighbors()[0][:, -1]
    if not radius.any():  # alike along these axes
        return np.ones(len(features))
    return clipped((radius / radius.max()) ** config.exponent, most=config.most)


def along(features: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The coordinates (N, K) of `features` (N, D) along `axes` (K, D). Raises InputError when widths differ."""
    if features.shape[1] != axes.shape[1]:
        raise InputError(f"features of width {features.shape[1]} and axes of width {axes.shape[1]}: both of one representation are wanted.")
    return features @ np.asarray(axes, float).T


def reference_values(features: np.ndarray, reference: np.ndarray, *, config: ReferenceConfig | None = None) -> np.ndarray:
    """Weights (N,) of mean 1: the density ratio of `reference` (M, D) to `features` (N, D), along the axis where they differ.

    A classifier's odds r / (1 - r) are the usual ratio (Choi et al. 2020), but log-linear odds favour extremes within every
    group, and over-correct as N grows. Two sets that differ in their mix alone differ along the axis between the groups, where
    both are mixtures of the same two components with proportions pi and rho of their own. Then the ratio is bounded and
    calibrated by construction, v(x) = sum_k p(k | x) rho_k / pi_k, and close to 1 where nothing differs. Nobody says what the
    components are. Where one component has less than a share `least` of the training set, the axis tells the sets apart and not groups
    within them; then those of `find_components` are taken, unless they are no better. Raises InputError with fewer than 10
    rows in either set, or different widths.
    """
    config = config or ReferenceConfig()
    features, reference = _two_sets(features, reference)
    reduced, in_reference, axis, _ = _contrast(features, reference, dims=config.dims, penalty=config.penalty)
    members, mix = _two_components(reduced @ axis, in_reference.astype(int))
    members = members[~in_reference]
    if mix[0].min() < config.least:
        found = find_components(features, reference)
        others = np.stack([found.proportions(features), found.proportions(reference)])
        if others.min() >= config.least:
            members, mix = found.members(features, others[0]), others
    ratio = (mix[1] + config.floor) / (mix[0] + config.floor)
    return clipped(members @ ratio, most=config.most)


def told_apart(features: np.ndarray, reference: np.ndarray, axes: np.ndarray, *, config: ReferenceConfig | None = None) -> float:
    """How surely `reference` (M, D) differs from `features` (N, D) at all: 0 where chance may have made the whole difference, 1 where hardly.

    A ratio of two small sets finds some axis along which they differ, even where both are of the same mix, and what weighs by it then shifts the
    training set anywhere. Hotelling's T^2 (1931) along the leading `axes` (K, D), as an F ratio, is about 1 between two samples of the same
    people, and less where both were drawn to the same quota; from one half to three halves the answer rises from 0 to 1. It speaks of any difference:
    two sets of one mix from two cameras surely differ. Raises InputError where widths differ, or with fewer than 10 rows.
    """
    from statsmodels.stats.multivariate import test_mvmean_2indep

    config = config or ReferenceConfig()
    both = [along(rows, axes[: config.apart_dims]) for rows in _two_sets(features, reference)]
    flat = sum(rows.var(axis=0) for rows in both) == 0  # neither varies there: any difference is sure, and T^2 is none
    if flat.any():
        return float((both[0].mean(0) != both[1].mean(0))[flat].any())
    return float(np.clip(test_mvmean_2indep(*both).statistic - config.chance, 0, 1))


@dataclass(frozen=True)
class Components:
    """Two groups that nobody named: one Gaussian each, of one variance, along `axis` (D,) through `origin` (D,)."""

    origin: np.ndarray
    axis: np.ndarray
    centres: np.ndarray
    deviation: float

    def members(self, rows: np.ndarray, proportions: np.ndarray) -> np.ndarray:
        """p(group | row), (N, 2), of rows (N, D) in a set where the groups have these proportions (2,)."""
        likelihood = proportions * self._likelihoods(rows)
        return likelihood / likelihood.sum(1, keepdims=True)

    def proportions(self, rows: np.ndarray, *, rounds: int = 300) -> np.ndarray:
        """The likeliest proportions (2,) of the groups in a set of rows (N, D), by EM.

        This reads the mix of a set without a label: of 100 training faces, or of pictures that a model drew.
        """
        likelihood, found = self._likelihoods(rows), np.full(2, 0.5)
        for _ in range(rounds):
            members = found * likelihood
            found = (members / members.sum(1, keepdims=True)).mean(0)
        return found

    def _likelihoods(self, rows: np.ndarray) -> np.ndarray:
        distance = (((rows - self.origin) @ self.axis)[:, None] - self.centres) ** 2 / (2 * self.deviation**2)
        return np.exp(distance.min(1, keepdims=True) - distance)


def weighed_components(features: np.ndarray, reference: np.ndarray, *, config: ReferenceConfig | None = None) -> tuple[Components, np.ndarray]:
    """The two groups that `reference_values` weighs by, and their proportions (2, 2): in `features` (N, D), and in `reference` (M, D).

    Raises as `reference_values` does.
    """
    config = config or ReferenceConfig()
    features, reference = _two_sets(features, reference)
    reduced, in_reference, axis, basis = _contrast(features, reference, dims=config.dims, penalty=config.penalty)
    sets = in_reference.astype(int)
    members, mix = _two_components(reduced @ axis, sets)
    return _along(axis, reduced, members, share=0.5 / np.bincount(sets)[sets], basis=basis), mix


def find_components(features: np.ndarray, reference: np.ndarray, *, more: np.ndarray | None = None,
                    config: ComponentsConfig | None = None) -> Components:
    """The two groups whose mix differs between `features` (N, D) and `reference` (M, D). Raises as `reference_values` does.

    A contrast between the sets starts it; after that the groups found so far define the axis, no longer the sets. `more` (K, D),
    faces of a mix that nobody knows, then say where the groups lie in all people, and no longer in two hundred (`WITH_MORE`).
    """
    config = config or ComponentsConfig()
    features, reference = _two_sets(features, reference)
    reduced, in_reference, axis, basis = _contrast(features, reference, dims=config.dims, penalty=config.penalty)
    sets = in_reference.astype(int)
    members, _ = _two_components(reduced @ axis, sets)
    found = _settled(reduced, members, sets, share=0.5 / np.bincount(sets)[sets], basis=basis, config=config)
    return found if more is None else _among_more(found, [features, reference, _two_sets(features, more)[1]])


def _among_more(found: Components, parts: list[np.ndarray]) -> Components:
    """The same two groups, sought again in all of `parts` together, where every face counts alike."""
    rows, sets = np.concatenate(parts), np.repeat(range(len(parts)), [len(part) for part in parts])
    basis = PCA(min(WITH_MORE.dims, *rows.shape), random_state=0).fit(rows)
    basis.components_ /= basis.transform(rows).std(0).max()
    members = np.concatenate([found.members(part, found.proportions(part)) for part in parts])
    return _settled(basis.transform(rows), members, sets, share=np.full(len(rows), 1 / len(rows)), basis=basis, config=WITH_MORE)


def _settled(reduced: np.ndarray, members: np.ndarray, sets: np.ndarray, *, share: np.ndarray, basis: PCA,
             config: ComponentsConfig) -> Components:
    """Discriminant and mixture in turn, from `members` (N, 2) of rows that count `share` (N,) each."""
    for _ in range(config.rounds):
        axis = _discriminant(reduced, members * share[:, None], shrinkage=config.shrinkage)
        members, _ = _two_components(reduced @ axis, sets, share=share, members=members)
    return _along(axis, reduced, members, share=share, basis=basis)


def _along(axis: np.ndarray, reduced: np.ndarray, members: np.ndarray, *, share: np.ndarray, basis: PCA) -> Components:
    """The groups of these `members` (N, 2) along `axis` of the components of `basis`, as Gaussians."""
    weight, scores = members * share[:, None], (reduced @ axis)[:, None]
    centres = (weight * scores).sum(0) / weight.sum(0)
    deviation = float(np.sqrt((weight * (scores - centres) ** 2).sum() / weight.sum()))
    return Components(origin=basis.mean_, axis=axis @ basis.components_, centres=centres, deviation=deviation)


def even_shares(read: np.ndarray, *, count: int) -> np.ndarray:
    """What proportions (2,) of two unnamed groups are even, where a balanced reference of `count` faces is read as `read` (2,).

    One half of each, or as near to it as the reading allows, give or take the error of counting, 1 / (2 sqrt count). The groups of
    which a training set has too few and too many are half and half in a balanced reference. What is read of it scatters by half of that error,
    and to hold other readings against it would carry this into each of them (`known.csv` of the kit's evidence). Only a reading
    that counting does not explain says that other groups were found than the balanced ones: so where the training set is even already.
    """
    error = 0.5 / np.sqrt(count)
    return np.clip(0.5, read - error, read + error)


def recalibrated_values(values: np.ndarray, *, faces: np.ndarray, reference: np.ndarray, drawn: np.ndarray,
                        more: np.ndarray | None = None, times: float = 2.0, least: float = 0.15, most: float = ReferenceConfig.most) -> np.ndarray:
    """Weights (N,) that aim past even by `times` what a model trained with `values` (N,) missed it, by `least` at any rate.

    A loss that aims at one half does not draw one half. `drawn` (K, D) are pictures of a model trained with `values`; the mix
    of groups in them, less what the balanced `reference` (M, D) says is even (`even_shares`), is taken off what `values` aim at for
    the training `faces` (N, D), group by group (raking: Deming and Stephan 1940). Twice, so that what lies between both models, see
    `mixing_part`, is even; and so far apart that their mix has where to move. All are of one kind, pictures that came
    out of the model's decoder, and so are `more` faces of `find_components`. Raises as `reference_values` does.
    """
    found = find_components(faces, reference, more=more)
    second = found.members(faces, found.proportions(faces))[:, 1]
    missed = (found.proportions(drawn) - even_shares(found.proportions(reference), count=len(reference)))[1]
    aimed = np.clip(values @ second / values.sum() - np.copysign(max(times * abs(missed), least), missed), 0.05, 0.95)

    def weighed(log_odds: float) -> np.ndarray:
        return clipped(values * (1 - second + second * np.exp(log_odds)), most=most)

    def beyond(log_odds: float) -> float:
        return weighed(log_odds) @ second / len(second) - aimed

    ends = (-8.0, 8.0)
    if beyond(ends[0]) >= 0 or beyond(ends[1]) <= 0:  # further than these faces go
        return weighed(min(ends, key=lambda end: abs(beyond(end))))
    return weighed(brentq(beyond, *ends))


def mixing_part(first: float, second: float, *, even: float, tried: tuple[float, float] | None = None, doubt: float = 0.08) -> float:
    """How much of the second of two models belongs in their mix, in [0, 1], for it to draw a group as often as `even` says.

    `first` and `second` are the shares that the two draw. Between them the share moves nearly in a line, x = first + part (second -
    first). But a reading errs, and half of each is where chance in two trainings cancels best: so part minimises (x - even)^2 +
    doubt^2 (part - 1/2)^2. A mix lies a little beside that line, too. Where one was `tried` (its part, and the share that it draws), the
    line is shifted to go through it, and the doubt is about leaving its part instead of 1/2. The doubt is a setting, made for readings that
    err by .04 (`recalibrated`, seeds 0 to 9 of the kit's evidence).
    """
    gap, (part, share) = second - first, tried or (0.5, (first + second) / 2)
    return float(np.clip(part - (share - even) * gap / (gap**2 + doubt**2), 0, 1))


def _two_sets(features: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, reference = _checked(features, at_least=10), _checked(reference, at_least=10)
    if features.shape[1] != reference.shape[1]:
        raise InputError(f"features of width {features.shape[1]} and a reference of width {reference.shape[1]}: "
                         "use one representation for both.")
    return features, reference


def _contrast(features: np.ndarray, reference: np.ndarray, *, dims: int, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, PCA]:
    """Both sets in their leading components, which are the reference's, the axis that tells them apart, and the components,
    scaled alike."""
    rows = np.concatenate([features, reference])
    in_reference = np.arange(len(rows)) >= len(features)
    basis = PCA(min(dims, features.shape[1], len(rows) - 1), random_state=0).fit(rows)
    basis.components_ /= basis.transform(features).std(0).max()
    reduced = basis.transform(rows)
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=2000).fit(reduced, in_reference)
    return reduced, in_reference, model.coef_[0], basis


def _discriminant(rows: np.ndarray, members: np.ndarray, *, shrinkage: float) -> np.ndarray:
    """Fisher's axis between two groups of weighted members (N, 2), the covariance within them shrunk towards a sphere."""
    centres = members.T @ rows / members.sum(0)[:, None]
    within = sum((weight[:, None] * (rows - centre)).T @ (rows - centre) for weight, centre in zip(members.T, centres, strict=True))
    sphere = np.trace(within) / len(within) * np.eye(len(within))
    return np.linalg.solve((1 - shrinkage) * within + shrinkage * sphere, centres[1] - centres[0])


def _two_components(scores: np.ndarray, sets: np.ndarray, *, share: np.ndarray | None = None, members: np.ndarray | None = None,
                    rounds: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """EM for two Gaussians of one variance whose proportions differ between the `sets` (N,) of whole numbers.

    Row i counts `share` (N,), by default so that all sets count alike; `members` (N, 2) are where to begin. Returns
    p(component | score), (N, 2), and the proportions (sets, 2). scikit-learn's mixtures know one set only.
    """
    count = sets.max() + 1
    share = 1 / count / np.bincount(sets)[sets] if share is None else share
    centre, deviation, mix = np.quantile(scores, [0.2, 0.8]), max(scores.std() / 2, 1e-9), np.full((count, 2), 0.5)
    if members is not None:
        centre, deviation, mix = _moments(scores, sets, members, share)
    for _ in range(rounds):
        distance = ((scores[:, None] - centre) / deviation) ** 2 / 2
        likelihood = mix[sets] * np.exp(distance.min(1, keepdims=True) - distance)
        members = likelihood / likelihood.sum(1, keepdims=True)
        centre, deviation, mix = _moments(scores, sets, members, share)
    return members, mix


def _moments(scores: np.ndarray, sets: np.ndarray, members: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Centres (2,), the common deviation and each set's proportions (sets, 2) of two components with these members (N, 2)."""
    weight = members * share[:, None]
    centre = weight.T @ scores / np.maximum(weight.sum(0), 1e-12)
    deviation = max(np.sqrt((weight * (scores[:, None] - centre) ** 2).sum()), 1e-9)
    return centre, deviation, np.stack([members[sets == number].mean(0) for number in range(sets.max() + 1)])


def face_probability(features: np.ndarray, other: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """p(face | features), (N,), out of fold: logistic regression of `features` (N, D) against `other` (M, D), natural pictures.

    What is no face lies far from all faces and would be taken for the rarest of them; multiplied by this it weighs nothing.
    A stray among the faces is labelled a face, so it must not be judged by a fit that has seen it.
    """
    features, other = _checked(features, at_least=10), _checked(other, at_least=10)
    rows, label = np.concatenate([features, other]), np.arange(len(features) + len(other)) < len(features)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return cross_val_predict(model, rows, label, cv=folds, method="predict_proba")[: len(features), 1]


def face_gate(features: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 for what is more likely a face than a natural picture (M, D), falling to 0 for what surely is none; (N,)."""
    return np.minimum(1, 2 * face_probability(features, other))


def clipped(values: np.ndarray, *, most: float) -> np.ndarray:
    """Values scaled to mean 1 with none above `most`: what is cut off is shared out again until both hold."""
    values = np.asarray(values, float)
    values = values / values.mean()
    for _ in range(50):
        values = np.minimum(values, most)
        values = values / values.mean()
        if values.max() <= most * (1 + 1e-9):
            break
    return values


def effective_share(values: np.ndarray) -> float:
    """Effective sample size over N, (sum v)^2 / (N sum v^2), in (0, 1] (Kish 1965)."""
    values = np.asarray(values, float)
    return float(values.sum() ** 2 / (len(values) * np.square(values).sum()))


def top_share(values: np.ndarray, *, part: float = 0.01) -> float:
    """The share of all weight that lies on the heaviest `part` of the rows (one row at least), in [0, 1]."""
    values = np.sort(np.asarray(values, float))
    return float(values[-max(1, round(part * len(values))):].sum() / values.sum())


def weighted_share(values: np.ndarray, member: np.ndarray) -> float:
    """p_eff = sum(v a) / sum(v): the share of a group, bool (N,), that a weighted objective aims at. It needs group labels."""
    values = np.asarray(values, float)
    return float(values[np.asarray(member, bool)].sum() / values.sum())


def _checked(features: np.ndarray, *, at_least: int) -> np.ndarray:
    features = np.asarray(features, float)
    if features.ndim != 2 or len(features) < at_least or not np.isfinite(features).all():
        raise InputError(f"features of shape {features.shape}: give finite numbers (N, D) of {at_least} faces or more.")
    return features

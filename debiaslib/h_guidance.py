"""Distribution guidance: the shares of a whole batch are steered while it is drawn, in the middle block of the U-Net.

After Parihar et al. 2024, "Balancing Act: Distribution-Guided Debiasing in Diffusion Models" (CVPR, arXiv 2402.18206). At
each denoising step t a small head, the *attribute distribution predictor*, reads h_i of every picture i of a batch (h-space,
the middle block's output) and says how likely each combination is; the mean over the N pictures is the predicted
distribution p. Before the U-Net goes on, h moves down the gradient of a divergence between p and the wanted q:

    s_i = softmax(W_t c_i + b_t),   p = mean_i s_i,   L = KL(q || p),   c_i <- c_i - gamma N dL/dc_i

where c is h in the coordinates of its main components, each of standard deviation 1. The head is linear, so the gradient is
closed form: N dL/dz_ik = s_ik (sum_j s_ij q_j / p_j - q_k / p_k) for the logits z = W_t c + b_t. Pictures that the head is
sure of hardly move, and none does where p is q. A judge labels the samples that the heads are fitted on; while sampling it
is not asked.

Where this differs from the paper: L is a chi-squared distance there (KL also knows targets of 0); the factor N lets gamma
mean the same in batches of any size; and the step is taken in c instead of h itself, along directions in which the model's
own pictures differ.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from debiaslib.errors import InputError
from debiaslib.latent_generators import DiffusionGenerator, draw_images, draw_latents, hooked
from debiaslib.rebalance import Cells, read_scores

LEAST_OF_A_CELL = 10
"""A head is fitted where the judge saw this many samples of each combination."""


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """`samples` plain pictures of seeds from `seed` on are judged and fitted to, but for a share `held_out`; `components` of
    h are read, `penalty` is scikit-learn's C. `gamma` scales each step: standard deviations of h to a unit of the gradient.

    Of `tiny-h` towards one man in five, 200 pictures of seeds apart from all that is reported: with a gamma of 0, 5, 7 and
    10 the judge that labelled reads .42, .26, .23 and .19 men.
    """

    samples: int = 1500
    gamma: float = 10.0
    components: int = 64
    penalty: float = 0.03
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 100 or self.components < 1 or self.seed < 0 or not 0 < self.held_out < 1:
            raise InputError(f"samples {self.samples}, components {self.components}, seed {self.seed}, held_out "
                             f"{self.held_out:g}: give 100 samples or more, 1 component or more, a seed of 0 or more, a "
                             "share between 0 and 1.")
        if not 0 <= self.gamma < np.inf or not 0 < self.penalty < np.inf:
            raise InputError(f"gamma {self.gamma:g}, penalty {self.penalty:g}: give a gamma of 0 (no guidance) or more, a "
                             "penalty above 0.")


@dataclass(frozen=True)
class Head:
    """The predictor at one step: codes (h - center) @ axes.T / spread and their logits, codes @ weights.T + offsets.

    center (D,), axes (R, D) of length 1, spread (R,), weights (K, R), offsets (K,). `accuracy` is balanced, on samples that
    the head was not fitted to: chance is 1 / K.
    """

    center: np.ndarray
    axes: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    accuracy: float

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """How likely each combination is, float (N, K), of features (N, D). Their mean is the batch's predicted p."""
        codes = (features - self.center) @ self.axes.T / self.spread
        return softmax(codes @ self.weights.T + self.offsets, axis=1)

    def gradient(self, features: np.ndarray, target: np.ndarray) -> np.ndarray:
        """N dL/dc, float (N, R), of L = KL(target (K,) || p) at features (N, D)."""
        sides = self.probabilities(features)
        ratio = target / np.maximum(sides.mean(axis=0), 1e-6)
        return (sides * (sides @ ratio[:, None] - ratio)) @ self.weights

    def moves(self, features: np.ndarray, target: np.ndarray, *, gamma: float) -> np.ndarray:
        """What a step against the gradient adds to features (N, D), in their own units."""
        return -gamma * self.gradient(features, target) * self.spread @ self.axes


@dataclass(frozen=True)
class Predictor:
    """The attribute distribution predictor: a head a step, fitted on `calls` judged samples but for `held_out` of them."""

    heads: tuple[Head, ...]
    held_out: int
    calls: int

    @property
    def accuracy(self) -> np.ndarray:
        """Balanced accuracy of each step's head on what was held out, float (T,)."""
        return np.array([head.accuracy for head in self.heads])

    def check_target(self, target: np.ndarray) -> np.ndarray:
        """The target as float (K,). Raises InputError when it is none for these combinations."""
        target, cells = np.asarray(target, float), len(self.heads[0].weights)
        if target.shape != (cells,) or not np.isfinite(target).all() or target.min() < 0 or abs(target.sum() - 1) > 1e-6:
            raise InputError(f"target {target.round(4).tolist()}: the predictor knows {cells} combinations. Give a share of "
                             "0 or more for each, adding up to 1.")
        return target


class GuidedGenerator:
    """A diffusion generator under distribution guidance. A picture depends on the others in its batch (`config.batch` of the
    generator) and is the same whenever the whole batch is; with gamma 0 it is the generator's own, to the bit.

    With classifier-free guidance the head reads the half that follows the prompt, and both halves move alike.
    """

    def __init__(self, generator: DiffusionGenerator, predictor: Predictor, target: np.ndarray, *, gamma: float):
        if not 0 <= gamma < np.inf:
            raise InputError(f"gamma {gamma:g}: give 0 (no guidance) or more.")
        if len(predictor.heads) != generator.config.steps:
            raise InputError(f"the predictor has heads for {len(predictor.heads)} steps, generator {generator.name!r} takes "
                             f"{generator.config.steps}. Fit one for this generator.")
        self.generator, self.predictor, self.gamma = generator, predictor, gamma
        self.target = predictor.check_target(target)
        self.name, self.latent_dim, self.image_size = generator.name, generator.latent_dim, generator.image_size

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        """See `LatentGenerator`."""
        return self.generator.sample_latents(n, seed)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See `LatentGenerator`; no judge is asked."""
        step = _steps(self.generator)

        def steer(module, inputs, output):
            head, features = self.predictor.heads[next(step)], _features(output, self.generator)
            moves = torch.from_numpy(head.moves(features, self.target, gamma=self.gamma)).to(output)
            return output + moves.repeat(len(output) // len(moves), 1).view_as(output)

        with hooked(self.generator.pipe.unet.mid_block, steer):
            return self.generator.decode(latents)


def read_h(generator: DiffusionGenerator, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """h at every step, flattened, float32 (T, N, D), and the pictures uint8 (N, H, H, 3) of latents (N, d)."""
    read: list[list[np.ndarray]] = [[] for _ in range(generator.config.steps)]
    step = _steps(generator)
    with hooked(generator.pipe.unet.mid_block, lambda module, inputs, output: read[next(step)].append(
            _features(output, generator))):
        images = draw_images(generator, latents)
    return np.stack([np.concatenate(parts) for parts in read]), images


def _steps(generator: DiffusionGenerator) -> Iterator[int]:
    """0, 1, ..., steps - 1 for each batch: deterministic sampling passes the U-Net once a step."""
    return itertools.cycle(range(generator.config.steps))


def _features(output: torch.Tensor, generator: DiffusionGenerator) -> np.ndarray:
    halves = 2 if generator.config.guidance > 1 else 1
    return output.chunk(halves)[-1].float().flatten(1).cpu().numpy()


def fit_predictor(generator: DiffusionGenerator, judge, cells: Cells, *, config: GuidanceConfig | None = None) -> Predictor:
    """Draw samples, note h at every step, have the judge label the pictures, fit a head a step.

    `judge` is an `AttributeJudge`; samples it abstains on are left out. Raises InputError for a generator without a U-Net,
    an attribute the judge cannot see, or a combination that hardly occurs.
    """
    config = config or GuidanceConfig()
    if not isinstance(generator, DiffusionGenerator):
        raise InputError(f"generator {generator.name!r} has no U-Net to guide. Leave distribution guidance out.")
    unseen = [name for name in cells.attributes if name not in judge.attributes]
    if unseen:
        raise InputError(f"attribute {unseen[0]!r}: the judge {judge.name!r} cannot see it. It sees "
                         f"{', '.join(judge.attributes)}.")
    features, images = read_h(generator, draw_latents(generator, config.samples, seed=config.seed))
    labels = cells.index(read_scores(judge, images, cells.attributes))
    return fit_heads(features, labels, cells, config=config)


def fit_heads(features: np.ndarray, labels: np.ndarray, cells: Cells, *, config: GuidanceConfig | None = None) -> Predictor:
    """Logistic regression a step from main components of features (T, N, D) to each picture's combination, int (N,).

    -1 is an unknown one. Raises InputError when a combination has fewer than `LEAST_OF_A_CELL` pictures.
    """
    config, decided = config or GuidanceConfig(), labels >= 0
    counts = np.bincount(labels[decided], minlength=len(cells))
    if counts.min() < LEAST_OF_A_CELL:
        raise InputError(f"combination {cells.names[counts.argmin()]}: {counts.min()} of {len(labels)} samples show it "
                         f"({(~decided).sum()} undecided), and a predictor needs {LEAST_OF_A_CELL} of each. Judge more "
                         "samples, or take another attribute.")
    known = labels[decided]
    train, test = train_test_split(np.arange(len(known)), test_size=config.held_out, stratify=known,
                                   random_state=config.seed)
    heads = tuple(_fit_head(part[train], known[train], part[test], known[test], config) for part in features[:, decided])
    return Predictor(heads, len(test), len(labels))


def _fit_head(train: np.ndarray, labels: np.ndarray, test: np.ndarray, held_out: np.ndarray, config: GuidanceConfig) -> Head:
    components = PCA(min(config.components, *train.shape), svd_solver="randomized", random_state=config.seed).fit(train)
    spread = np.sqrt(components.explained_variance_) + 1e-6
    model = LogisticRegression(C=config.penalty, max_iter=1000).fit(components.transform(train) / spread, labels)
    accuracy = balanced_accuracy_score(held_out, model.predict(components.transform(test) / spread))
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # of two combinations scikit-learn keeps the second one's logit alone
        weights, offsets = np.concatenate([0 * weights, weights]), np.concatenate([0 * offsets, offsets])
    return Head(components.mean_, components.components_, spread, weights, offsets, float(accuracy))

"""Time-dependent ratios against a mixture whose truth is known at every noise level: signs, priors, halves of the loss."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from debiaslib import time_ratio, time_ratio_study
from debiaslib.errors import InputError
from debiaslib.indicators import Batch
from debiaslib.presets import get_preset

CENTRES, WIDTH = np.array([-1.5, 1.5]), 0.5
ALPHAS = torch.linspace(0.9999, 0.01, 1000)
TIMESTEP = 500


def draw(share: float, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """From the mixture in which `share` are of component 1: x_0 and the component, both (count,)."""
    generator = np.random.default_rng(seed)
    part = (generator.random(count) < share).astype(int)
    return CENTRES[part] + WIDTH * generator.normal(size=count), part


def noise_wanted(places: np.ndarray, share: float, *, timestep: int = TIMESTEP) -> np.ndarray:
    """-s_t d/dx log p_t of that mixture, noised: the eps_hat of its exact score."""
    alpha = float(ALPHAS[timestep])
    variance = alpha * WIDTH**2 + 1 - alpha
    parts = [weight * norm.pdf(places, np.sqrt(alpha) * centre, np.sqrt(variance))
             for weight, centre in zip((1 - share, share), CENTRES, strict=True)]
    slopes = [-(places - np.sqrt(alpha) * centre) / variance for centre in CENTRES]
    return -np.sqrt(1 - alpha) * sum(part * slope for part, slope in zip(parts, slopes, strict=True)) / sum(parts)


@pytest.fixture(scope="module")
def student() -> time_ratio.LinearStudent:
    """Fitted to a pool of another mix (.65) with the truth known: equal Gaussians, so that it is exact at every t."""
    x, part = draw(0.65, 40_000, seed=0)
    return time_ratio.LinearStudent(torch.tensor(x, dtype=torch.float32)[:, None, None, None], part.astype(float), ALPHAS)


MIXES = time_ratio.Mixes(pool=0.65, biased=0.2, reference=0.5)


def noised_biased(count: int = 200_000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_t (N, 1, 1, 1) of the biased mixture, its noise, its timesteps."""
    x = torch.tensor(draw(0.2, count, seed=1)[0], dtype=torch.float32)[:, None, None, None]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    alpha = ALPHAS[TIMESTEP]
    return alpha.sqrt() * x + (1 - alpha).sqrt() * noise, noise, torch.full((count,), TIMESTEP)


def minimiser(noisy: torch.Tensor, goal: torch.Tensor, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares eps_hat(x_t) as a step function: bins' centres and weighted means of the goal."""
    place, edges = noisy.flatten().numpy(), np.linspace(-1.6, 1.6, 17)
    where = np.digitize(place, edges)
    bins = range(1, len(edges))
    at = np.array([np.average(place[where == i], weights=weight[where == i]) for i in bins])
    return at, np.array([np.average(goal.flatten().numpy()[where == i], weights=weight[where == i]) for i in bins])


def test_ratio_is_the_true_one_though_the_pool_has_another_mix(student):
    for timestep in (0, 300, 900):
        alpha, places = float(ALPHAS[timestep]), np.linspace(-2, 2, 9)
        deviation = np.sqrt(alpha * WIDTH**2 + 1 - alpha)
        zero, one = (norm.pdf(places, np.sqrt(alpha) * centre, deviation) for centre in CENTRES)
        truth = (0.5 * zero + 0.5 * one) / (0.8 * zero + 0.2 * one)
        noisy = torch.tensor(places, dtype=torch.float32)[:, None, None, None]
        times, uncorrected = torch.full((9,), timestep), time_ratio.Mixes(pool=0.5, biased=0.2, reference=0.5)
        found, _ = time_ratio.ratio_and_slope(student, MIXES, noisy, times)
        assert found.numpy() == pytest.approx(truth, rel=0.04)
        naive, _ = time_ratio.ratio_and_slope(student, uncorrected, noisy, times)
        assert np.abs(naive.numpy() / truth - 1).max() > 0.1, "forgetting the pool's mix must show"


@pytest.mark.parametrize(("variant", "share"), [("correction", 0.5), ("both", 0.5), ("weights", 0.2)])
def test_correction_leads_to_the_reference_and_weights_alone_to_the_biased_score(student, variant, share):
    """E[eps - s grad log w | x_t] is the reference's noise, weighed or not; weighing alone leaves the biased one."""
    noisy, noise, timesteps = noised_biased()
    weight, slope = time_ratio.ratio_and_slope(student, MIXES, noisy, timesteps)
    weighs, corrects = time_ratio.VARIANTS[variant]
    goal = noise - (1 - ALPHAS[TIMESTEP]).sqrt() * slope if corrects else noise
    places, found = minimiser(noisy, goal, weight.numpy() if weighs else np.ones(len(noisy)))
    assert found == pytest.approx(noise_wanted(places, share), abs=0.05)
    assert np.abs(noise_wanted(places, 0.5) - noise_wanted(places, 0.2)).max() > 0.25, "the two must be told apart"


def test_the_other_sign_leads_away_from_the_reference(student):
    noisy, noise, timesteps = noised_biased()
    _, slope = time_ratio.ratio_and_slope(student, MIXES, noisy, timesteps)
    places, found = minimiser(noisy, noise + (1 - ALPHAS[TIMESTEP]).sqrt() * slope, np.ones(len(noisy)))
    assert np.abs(found - noise_wanted(places, 0.5)).max() > 0.4


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_mixes_reference_and_biased_set(strength):
    logit = torch.linspace(-6, 6, 25)
    full, part = MIXES.log_ratio(logit).exp(), MIXES.towards(strength).log_ratio(logit).exp()
    assert torch.allclose(part, 1 + strength * (full - 1), atol=1e-5)


def test_weights_have_mean_one_over_the_biased_set(student):
    noisy, _, timesteps = noised_biased()
    weight, _ = time_ratio.ratio_and_slope(student, MIXES, noisy, timesteps)
    assert float(weight.mean()) == pytest.approx(1, abs=0.02)


def test_indicator_takes_the_target_that_the_toy_wants(student):
    noisy, noise, timesteps = noised_biased(1000)
    _, slope = time_ratio.ratio_and_slope(student, MIXES, noisy, timesteps)
    scheduler = SimpleNamespace(add_noise=lambda *_: noisy, alphas_cumprod=ALPHAS)
    indicator = time_ratio.TimeRatioIndicator(student, MIXES, scheduler, variant="correction")
    indicator.add_noise(noisy, noise, timesteps)
    wanted = noise - (1 - ALPHAS[TIMESTEP]).sqrt() * slope
    loss, logs = indicator.loss(Batch(predicted=wanted, noise=noise, is_face=torch.ones(1000, dtype=torch.bool)))
    assert float(loss) == pytest.approx(0, abs=1e-10) and logs["denoising"] > 0.001 and logs["correction"] > 0.03


def test_a_weight_is_clipped_and_a_correction_is_not():
    """A training set read as .001 of component 1: w_t goes up to 500."""
    noise, seen = torch.zeros(2, 1, 1, 1), torch.tensor([10.0, -10.0])[:, None, None, None]
    scheduler = SimpleNamespace(add_noise=lambda *_: seen, alphas_cumprod=ALPHAS)
    extreme = time_ratio.Mixes(pool=0.5, biased=0.001, reference=0.5)
    indicator = time_ratio.TimeRatioIndicator(lambda x, t: x.flatten(), extreme, scheduler, variant="weights", most=8)
    indicator.add_noise(seen, noise, torch.tensor([500, 500]))
    batch = Batch(predicted=torch.ones(2, 1, 1, 1), noise=noise, is_face=torch.ones(2, dtype=torch.bool))
    loss, logs = indicator.loss(batch)
    assert float(loss) == pytest.approx((8 + 0.5) / 2, abs=0.01) and logs["weight"] > 100


def test_linear_student_keeps_little_of_a_difference_made_by_chance():
    rows = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    chance = np.random.default_rng(0).random(300).round()
    nothing = time_ratio.LinearStudent(rows, chance, ALPHAS)
    rows[:, 0, 0, 0] += 4 * torch.tensor(chance, dtype=torch.float32)
    something = time_ratio.LinearStudent(rows, chance, ALPHAS)
    assert nothing.kept.max() < 0.4 and something.kept[0] > 0.8


def test_conv_student_learns_a_plain_difference_and_stays_small():
    generator = torch.Generator().manual_seed(0)
    chance = (torch.rand(200, generator=generator) < 0.6).float()
    latents = 0.3 * torch.randn(200, 4, 8, 8, generator=generator) + 2 * (chance - 0.5)[:, None, None, None]
    torch.manual_seed(0)
    student = time_ratio.ConvStudent(side=8, widths=(8, 8, 8))
    student.distil(latents, chance.numpy(), ALPHAS, steps=80, batch=32, rate=1e-2)
    early = student(latents, torch.full((200,), 5))
    assert ((early > 0) == (chance > 0.5)).float().mean() > 0.95
    assert sum(weight.numel() for weight in time_ratio.ConvStudent().parameters()) <= 300_000


def embeddings(share: float, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    first = np.arange(count) < round(share * count)
    rows = generator.normal(size=(count, 12)) * 0.5
    rows[:, 0] += 4 * first
    return rows, first


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_components_find_the_mixes_of_all_three_sets_without_labels(share):
    (training, _), (reference, _) = embeddings(0.2, 200, seed=0), embeddings(0.5, 200, seed=1)
    pool, first = embeddings(share, 2000, seed=2)
    chance, mixes = time_ratio.components(training, reference, pool)
    flipped = mixes.biased > 0.5  # which of the two is called 1 means nothing
    found = [1 - mix if flipped else mix for mix in (mixes.biased, mixes.reference, mixes.pool)]
    assert found == pytest.approx([0.2, 0.5, share], abs=0.04)
    assert (((chance > 0.5) ^ flipped) == first).mean() > 0.98


def test_readings_say_what_a_good_ratio_does_to_a_skewed_set(student):
    """Men are component 1, one in five of the training set: hardly noised w aims at one half, strongly noised at the set."""
    x, part = draw(0.2, 2000, seed=3)
    latents = torch.tensor(x, dtype=torch.float32)[:, None, None, None]
    rows = time_ratio_study.readings(student, MIXES, latents, part == 1, np.arange(500), ALPHAS)
    assert [row["timestep"] for row in rows] == list(time_ratio_study.TIMESTEPS)
    assert rows[0]["p_eff"] == pytest.approx(0.5, abs=0.04) and rows[0]["auc"] > 0.99
    assert rows[-1]["p_eff"] < 0.3 and rows[-1]["ess"] > 0.95 and rows[-1]["auc"] < rows[0]["auc"]


def test_summary_pairs_trainings_with_the_plain_ones():
    def row(variant: str, seed: int, men: int) -> dict:
        judged = pd.DataFrame({"face": True, "perceived": ["Man"] * men + ["Woman"] * (98 - men) + [""] * 2})
        told = {"variant": variant, "student": "", "ratio": 0.25, "seed": seed, "fit_loss": 0.15}
        return told | time_ratio_study.figures(judged)

    cells = pd.DataFrame([row("none", 0, 20), row("none", 1, 24), row("both", 0, 47), row("both", 1, 50)])
    found = time_ratio_study.summary(cells).set_index("variant")
    assert found.loc["both", "male_share"] == pytest.approx(48.5 / 98)
    assert found.loc["both", "fd_fall"] == pytest.approx((29 + 25 - 2 - 1) / 98 / 2, abs=1e-3)
    assert found.loc["both", "fall_low"] < found.loc["both", "fd_fall"] < found.loc["both", "fall_high"]
    assert np.isnan(found.loc["none", "fd_fall"])


class FakeStudy:
    """Trains nothing; counts what it is asked for."""

    def __init__(self, source, pool, *, student, n, progress):
        self.source, self.student, self.n, self.asked = source, student, n, []
        self.preset, self.judge, self.pool = get_preset("tiny"), SimpleNamespace(identity={"name": "fake"}), range(7)
        self.encode_s = self.embed_s = 1.0

    def prepare(self, ratio, seed):
        known = {"ratio": ratio, "seed": seed, "mix_pool": 0.5}
        rows = [known | {"source": "embedding"}, known | {"source": self.student, "timestep": 1, "auc": 0.9}]
        return None, None, None, rows

    def cell(self, variant, ratio, seed, prepared):
        self.asked.append((variant, ratio, seed))
        decisions = "MWW-" if variant == "weights" else "MW-M"
        return {"variant": variant, "student": self.student, "ratio": ratio, "seed": seed, "n": 4, "male_share": 0.5,
                "face_rate": 1.0, "fit_loss": 0.15, "decisions": decisions}


def test_the_command_continues_where_it_stopped_and_notes_no_paths(tmp_path, monkeypatch, capsys):
    made: list[FakeStudy] = []
    monkeypatch.setattr(time_ratio_study, "Study", lambda *given, **more: made.append(FakeStudy(*given, **more)) or made[-1])
    asked = ["--faces", "/somewhere/faces.zip", "--ratios", "4", "--seeds", "0", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["x", *asked])
    for variants in (["weights"], ["weights", "both"]):
        assert time_ratio_study.main([*asked, "--variants", *variants]) == 0
    assert time_ratio_study.main([*asked, "--student", "conv", "--variants"]) == 0
    first, second, third = (study.asked for study in made)
    assert first == [("weights", 4.0, 0), ("weights", 4.0, 1)]
    assert second == [("both", 4.0, 0), ("both", 4.0, 1)] and not third
    cells, ratios = (pd.read_csv(tmp_path / f"out/{name}.csv") for name in ("cells", "ratios"))
    assert len(cells) == 4 and set(ratios["source"]) == {"embedding", "linear", "conv"} and len(ratios) == 6
    record = (tmp_path / "out/time_ratio.json").read_text()
    assert "faces.zip" in record and "somewhere" not in record
    assert "both" in capsys.readouterr().out


def test_bad_input_is_refused_in_one_line():
    rows = np.zeros((20, 5))
    cases = [lambda: time_ratio.Mixes(pool=0.5, biased=1.0, reference=0.5),
             lambda: time_ratio.components(rows, rows, np.zeros((20, 4))),
             lambda: time_ratio.components(rows[:5], rows, rows),
             lambda: time_ratio.TimeRatioIndicator(torch.nn.Identity(), MIXES, None, variant="neither"),
             lambda: time_ratio_study.fit_student("deep", torch.zeros(20, 4, 8, 8), np.zeros(20), ALPHAS)]
    for case in cases:
        with pytest.raises(InputError) as caught:
            case()
        assert "\n" not in str(caught.value)

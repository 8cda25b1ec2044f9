"""The audit of super-resolution: what changes nothing flips nobody, what changes everything flips all."""

import argparse

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from debiaslib import audit, subgroups, superres
from debiaslib.errors import InputError
from debiaslib.superres import NetworkConfig, SearchConfig


def faces(n: int = 40, side: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth pictures, half of them bright."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 60, (n, 4, 4, 3))
    low[::2] += 150
    return np.stack([np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC))
                     for picture in low])


class BrightnessJudge:
    """`male` is how bright a picture is; it abstains on black ones."""

    name, attributes = "brightness", ("male",)

    def __init__(self):
        self.calls = 0

    def score(self, images: np.ndarray, *, progress: bool = False) -> pd.DataFrame:
        self.calls += len(images)
        mean = images.mean(axis=(1, 2, 3)) / 255
        return pd.DataFrame({"male": np.where(mean == 0, np.nan, mean)})


class Squares:
    """A generator with four latents: the brightness of four quarters, and nothing random."""

    name, latent_dim, image_size = "squares", 4, 64

    def sample_latents(self, n: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        quarters = np.clip(128 + 60 * latents, 0, 255).reshape(-1, 2, 2)
        return np.repeat(np.repeat(quarters, 32, 1), 32, 2)[..., None].repeat(3, -1).astype(np.uint8)


GROUPS = pd.DataFrame({"race": ["a", "b", "b", "a"] * 10})


def table_of(methods: dict, **options) -> pd.DataFrame:
    return superres.audit_superres(faces(), GROUPS, methods, [BrightnessJudge()], scales=(4,), **options)


def test_identity_flips_nobody_and_a_negative_flips_all():
    originals = faces()
    table = table_of({"identity": lambda small, scale: originals, "negative": lambda small, scale: 255 - originals})
    whole = table[table["by"] == "all"].set_index("method")
    assert whole.loc["identity", ["flips", "rate", "lost"]].tolist() == [0, 0, 0]
    assert whole.loc["negative", "rate"] == 1 and whole.loc["negative", "excess_low"] > 0.9
    assert np.isnan(whole.loc["identity", "gap_psnr"])  # infinite
    assert whole.loc["jpeg 90", "scale"] == 1 and whole.loc["identity", "floor"] == whole.loc[
        ["jpeg 90", "shift 1 px"], "rate"].max()


def test_flips_are_counted_by_subgroup_and_by_who_was_seen_before():
    originals = faces()
    turned = np.where((GROUPS["race"] == "b").to_numpy()[:, None, None, None], 255 - originals, originals)
    dimmed = (originals * 0.5).astype(np.uint8)
    table = table_of({"turned": lambda small, scale: turned, "dimmed": lambda small, scale: dimmed})
    rate = table.set_index(["method", "by", "group"])["rate"]
    assert rate["turned", "race", "a"] == 0 and rate["turned", "race", "b"] == 1
    assert rate["dimmed", "seen before", "Man"] == 1 and rate["dimmed", "seen before", "Woman"] == 0
    assert rate["dimmed", "all", "all"] == 0.5


def test_faces_that_are_lost_are_counted_and_are_no_flips():
    black = faces()
    black[:10] = 0
    table = table_of({"black": lambda small, scale: black})
    whole = table[(table["method"] == "black") & (table["by"] == "all")].iloc[0]
    assert (whole["lost"], whole["n"], whole["flips"]) == (10, 30, 0)


def test_intervals_cover_a_known_flip_rate():
    hits = []
    for seed in range(40):
        turned = np.random.default_rng(seed).random(80) < 0.2
        rows = {"judge": "toy", "attribute": "male", "picture": np.arange(80), "before": 0.9, "gap_psnr": 1.0}
        readings = pd.concat([pd.DataFrame({**rows, "method": "shift 1 px", "scale": 1, "after": 0.9}),
                              pd.DataFrame({**rows, "method": "coin", "scale": 2, "after": np.where(turned, 0.1, 0.9)})])
        table = superres.flip_rates(readings).set_index(["method", "by"])
        row = table.loc[("coin", "all")]
        hits.append((row["low"] <= 0.2 <= row["high"], row["excess_low"] <= 0.2 <= row["excess_high"]))
    assert (np.mean(hits, axis=0) >= 0.85).all()


def test_bicubic_is_pils():
    small = superres.reduce(faces(3), 4)
    assert small.shape == (3, 16, 16, 3)
    expected = Image.fromarray(faces(3)[1]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(small[1], np.asarray(expected))
    assert np.array_equal(superres.bicubic(small, 4)[1], np.asarray(expected.resize((64, 64), Image.Resampling.BICUBIC)))


def test_psnr_is_scikit_images():
    from skimage.metrics import peak_signal_noise_ratio

    one, other = faces(4), faces(4, seed=1)
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(one, other, strict=True)]
    assert np.allclose(superres.psnr(one, other), expected, atol=1e-3) and np.isinf(superres.psnr(one, one)).all()


def test_disturbances_change_little():
    pictures = faces(4)
    for name, changed in superres.disturbances(pictures).items():
        assert changed.shape == pictures.shape and changed.dtype == np.uint8, name
        assert 25 < superres.psnr(pictures, changed).min() and not np.array_equal(changed, pictures), name


def test_the_network_starts_as_bicubic_learns_and_resumes(tmp_path):
    config = NetworkConfig(channels=8, blocks=1, steps=60, batch=8, learning_rate=3e-3)
    pictures = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3)).repeat(2, 1).repeat(2, 2).astype(np.uint8)  # squares
    small = superres.reduce(pictures, 2)
    untrained = superres.train_network(pictures, 2, config=NetworkConfig(channels=8, blocks=1, steps=0),
                                       checkpoint=tmp_path / "none.safetensors")
    plain = superres.network_enlarger({2: untrained})(small, 2)
    assert np.abs(plain.astype(int) - superres.bicubic(small, 2)).max() <= 1
    network = superres.train_network(pictures, 2, config=config, checkpoint=tmp_path / "net.safetensors")
    learned = superres.network_enlarger({2: network})(small, 2)
    assert superres.psnr(pictures, learned).mean() > superres.psnr(pictures, plain).mean() + 0.5
    again = superres.train_network(pictures, 2, config=config, checkpoint=tmp_path / "net.safetensors")
    assert np.array_equal(superres.network_enlarger({2: again})(small, 2), learned)
    with pytest.raises(InputError, match="a network of other settings"):
        superres.train_network(pictures, 2, config=NetworkConfig(channels=4), checkpoint=tmp_path / "net.safetensors")


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    config, pictures = NetworkConfig(channels=8, blocks=1, steps=110, batch=4), faces(20, side=16)
    whole = superres.train_network(pictures, 2, config=config, checkpoint=tmp_path / "whole.safetensors")
    loss, calls = superres.F.l1_loss, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 105:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(superres.F, "l1_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        superres.train_network(pictures, 2, config=config, checkpoint=tmp_path / "part.safetensors")
    monkeypatch.undo()
    resumed = superres.train_network(pictures, 2, config=config, checkpoint=tmp_path / "part.safetensors")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert np.array_equal(one.detach().numpy(), other.detach().numpy())


def test_the_search_finds_the_latent_of_what_the_generator_can_draw():
    generator = Squares()
    wanted = generator.decode(generator.sample_latents(6, 99))
    config = SearchConfig(bank=200, rounds=40, moves=8)
    found = superres.search_enlarger(generator, config=config)(superres.reduce(wanted, 8), 8)
    first = superres.search_enlarger(generator, config=SearchConfig(bank=200, rounds=0))(superres.reduce(wanted, 8), 8)
    assert superres.psnr(wanted, found).mean() > superres.psnr(wanted, first).mean() + 3
    assert np.array_equal(found, superres.search_enlarger(generator, config=config)(superres.reduce(wanted, 8), 8))


def test_neighbours_keep_their_length():
    latents = Squares().sample_latents(5, 0)
    moved = superres.neighbours(latents, moves=3, reach=0.5, generator=np.random.default_rng(0))
    assert moved.shape == (5, 3, 4)
    assert np.allclose(np.linalg.norm(moved, axis=-1), np.linalg.norm(latents, axis=1)[:, None], rtol=1e-5)


@pytest.mark.parametrize("call, said", [
    (lambda: superres.reduce(faces(1), 3), "scale 3: pictures of 64 x 64 px"),
    (lambda: superres.reduce(faces(1), 1), "Give one of 2 or more"),
    (lambda: superres.network_enlarger({})(faces(1), 2), "no network was trained for it"),
    (lambda: superres.search_enlarger(Squares())(faces(1, side=8), 4), "draws 64 px, 4 times 8 px is 32"),
    (lambda: table_of({"half": lambda small, scale: small}), "method 'half': returned uint8 of shape"),
    (lambda: table_of({"float": lambda small, scale: faces() / 255}), "method 'float': returned float64"),
    (lambda: superres.read_superres(faces(), GROUPS[1:], {}, []), "40 pictures and 39 rows"),
])
def test_what_cannot_be_enlarged(call, said):
    with pytest.raises(InputError, match=said):
        call()


def picture_set(folder, n: int = 24):
    (folder / "images").mkdir(parents=True)
    rows = []
    for index, picture in enumerate(faces(n)):
        rows.append((f"images/{index}.png", f"a young {subgroups.RACES[index % 3]} {'woman' if index % 2 else 'man'}'s face",
                     "evaluate" if index < 6 else "finetune"))
        Image.fromarray(picture).save(folder / rows[-1][0])
    pd.DataFrame(rows, columns=["file_name", "prompt", "split"]).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_the_verb_writes_tables_figures_networks_and_a_summary(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(superres, "get_judge", lambda name, attributes: BrightnessJudge())
    monkeypatch.setattr(superres, "identity_distance", lambda one, other: np.zeros(len(one)))
    monkeypatch.setattr(superres, "get_generator", lambda name: Squares())
    monkeypatch.setattr(superres, "NetworkConfig", lambda seed: NetworkConfig(channels=4, blocks=1, steps=3, seed=seed))
    monkeypatch.setattr(superres, "SearchConfig", lambda seed: SearchConfig(bank=20, rounds=2, seed=seed))
    parser = argparse.ArgumentParser()
    audit.add_arguments(parser)
    source, out = picture_set(tmp_path / "faces"), tmp_path / "out"
    words = ["superres", "--faces", str(source), "--split", "evaluate", "--train", str(source), "--out", str(out),
             "--methods", "bicubic", "network", "latent-search"]
    assert audit.run(parser.parse_args([*words, "--scales", "2", "8"])) == 0
    table = pd.read_csv(out / "flips.csv")
    assert set(table["method"]) == {"jpeg 90", "shift 1 px", "bicubic", "network", "latent search"}
    assert {"gap_psnr", "gap_identity"} <= {*table} and (table.query("by == 'all'")["n"] == 6).all()
    assert len([*out.glob("network_2x_*.safetensors")]) == 1 and (out / "flips_before.png").exists()
    summary = (out / "summary.md").read_text()
    assert "What cannot be concluded" in summary and "DigiFace-1M" in summary and str(out) in capsys.readouterr().out
    with pytest.raises(InputError, match="made with other settings"):
        audit.run(parser.parse_args([*words, "--scales", "2"]))
    with pytest.raises(InputError, match="scale 3"):
        audit.run(parser.parse_args([*words, "--scales", "3", "--overwrite"]))
    with pytest.raises(InputError, match="no pictures of split 'nowhere'"):
        audit.run(parser.parse_args([*words, "--split", "nowhere"]))


def test_audited_pictures_are_not_trained_on(tmp_path):
    source = picture_set(tmp_path / "faces")
    whole = superres.training_faces(source, split="finetune", avoid=set())
    assert len(whole) == 18 and len(superres.training_faces(source, split="finetune", avoid={"images/7.png"})) == 17
    with pytest.raises(InputError, match="are left to train on"):
        superres.training_faces(source, split="evaluate", avoid=set())

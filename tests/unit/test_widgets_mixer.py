"""The dataset mixer: who is in the set at a ratio, counted, shown, and told when there are too few."""

import re

import pandas as pd
import pytest
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.faces import draw_subset
from debiaslib.widgets.mixer import DatasetMixer, count_bands, mix, mixture, pick
from debiaslib.widgets.parts import file_uri

AGES = (5, 19, 20, 39, 40, 59, 60, 80)


@pytest.fixture
def pool(tmp_path):
    """Sixteen faces, one of each gender and age, and as many of another split."""
    rows = [{"file_name": f"images/{split}{gender}{age}.png", "perceived_gender": gender, "perceived_age": float(age),
             "split": split} for split in ("finetune", "evaluate") for gender in ("Man", "Woman") for age in AGES]
    (tmp_path / "images").mkdir()
    for number, row in enumerate(rows):
        Image.new("RGB", (8, 8), (7 * number, 0, 0)).save(tmp_path / row["file_name"])
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    return frame[frame["split"] == "finetune"].reset_index(drop=True)


def cells(html):
    rows = re.findall(r"<tr>(<td.*?)</tr>", html)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]


@pytest.mark.parametrize(("ratio", "size", "men"), [(1, 8, 4), (0.25, 10, 2), (4, 10, 8), (3, 4, 3)])
def test_the_set_has_the_ratio_and_is_the_one_that_training_draws(pool, ratio, size, men):
    chosen = mix(pool, ratio=ratio, size=size, seed=3)
    assert len(chosen) == size and (chosen["perceived_gender"] == "Man").sum() == men
    assert chosen.index.tolist() == draw_subset(pool, ratio=ratio, size=size, seed=3, column="perceived_gender").tolist()


def test_ages_fall_into_their_bands(pool):
    counts = count_bands(pool)
    assert counts.to_numpy().tolist() == [[2, 2]] * 4
    assert count_bands(pool[pool["perceived_age"] == 20]).loc["20 to 39"].tolist() == [1, 1]
    assert count_bands(pool[:0]).to_numpy().sum() == 0


def test_the_table_counts_the_set_and_the_pool(pool, tmp_path):
    chosen = mix(pool, ratio=4, size=10)
    html = mixture(pool, chosen, folder=tmp_path, ratio=4)
    assert "male:female 4: 10 faces, 8 read as men, 2 as women, of 16" in html
    assert cells(html)[0].startswith("to 19 2 of 2") and cells(html)[-1] == "all 8 of 8 2 of 8"


def test_faces_are_shown_in_the_set_s_proportions_from_their_own_files(pool, tmp_path):
    chosen = mix(pool, ratio=4, size=10)
    shown = pick(chosen, 5)
    assert (shown["perceived_gender"] == "Man").sum() == 4 and len(pick(chosen, 99)) == 10
    html = mixture(pool, chosen, folder=tmp_path, ratio=4, shown=5)
    assert html.count("<img") == 5
    assert all(file_uri(tmp_path / name) in html for name in shown["file_name"])
    assert 'alt="read as a man of 5 years"' in html


def test_what_cannot_be_mixed_is_told(pool):
    with pytest.raises(InputError, match="The largest size this ratio allows is 10"):
        mix(pool, ratio=4, size=12)
    with pytest.raises(InputError, match="no column 'perceived_age'"):
        mix(pool.drop(columns="perceived_age"), ratio=1, size=4)


def test_moving_a_control_changes_the_reading(pool, tmp_path):
    mixer = DatasetMixer(tmp_path, ratios=(0.25, 1.0, 4.0))
    mixer.size.options = (5, 10, 12)
    mixer.size.value = 10
    mixer.ratio.value = 4.0
    expected = mixture(pool, mix(mixer.pool, ratio=4, size=10), folder=tmp_path, ratio=4)
    assert mixer.readout.value == expected
    mixer.seed.value = 5
    assert mixer.readout.value == mixture(pool, mix(mixer.pool, ratio=4, size=10, seed=5), folder=tmp_path, ratio=4)
    mixer.size.value = 12
    assert "Not yet." in mixer.readout.value and "largest size" in mixer.readout.value
    mixer.size.value = 5
    assert "male:female 4: 5 faces" in mixer.readout.value


def test_without_a_kernel_the_reading_is_still_there(pool, tmp_path):
    mixer = DatasetMixer(tmp_path, ratios=(1.0,))
    bundle = mixer._repr_mimebundle_()
    assert bundle["text/html"] == mixer.readout.value and bundle["text/plain"] == "DatasetMixer(ratio=1, size=100)"


def test_the_pool_that_ships_gives_every_ratio():
    mixer = DatasetMixer()
    for _, ratio in mixer.ratio.options:
        mixer.ratio.value = ratio
        assert "100 faces" in mixer.readout.value and len(mixer.readout.value) < 500_000

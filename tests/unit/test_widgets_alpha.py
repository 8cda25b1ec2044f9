"""The alpha explorer: the gallery's faces and figures at once, new faces on demand, and words for what cannot be."""

import io
import re
import threading
import time

import numpy as np
import pytest
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.gallery import Studio, load_gallery
from debiaslib.widgets.alpha import VIEWS, AlphaExplorer, alpha_reading, grid_of, static_grid
from debiaslib.widgets.parts import HEAD, MARGIN, Runner, Stopped, file_uri, labelled_grid


@pytest.fixture(scope="module")
def gallery():
    return load_gallery()


@pytest.fixture
def between(gallery):
    """An alpha that was interpolated."""
    return next(alpha for alpha in gallery.alphas(gallery.adapter_ratio) if alpha not in gallery.adapters)


class Painter(Studio):
    """Paints each seed's number, a step at a time, instead of drawing."""

    def draw(self, *, seeds, config, alpha=None, guide=None, on_step=None):
        for step in range(config.steps):
            on_step(step + 1, config.steps)
        return np.stack([np.full((64, 64, 3), seed, np.uint8) for seed in seeds])


def plain(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


# Pure functions --------------------------------------------------------------------------------------------------------

def test_the_reading_says_the_row_s_shares_with_intervals_and_the_face_rate(gallery):
    row = gallery.shares.iloc[1]
    said = plain(alpha_reading(gallery, ratio=row["ratio"], alpha=row["alpha"]))
    assert f"male:female {row['ratio']:g}, alpha {row['alpha']:g}: indicator {gallery.indicator}" in said
    assert f"{row['n']:.0f} faces" in said
    men, women = row["male_share"], 1 - row["male_share"]
    assert f"read as men, of the decided {men:.2f} ({row['male_share_low']:.2f} to {row['male_share_high']:.2f})" in said
    assert f"read as women, of the decided {women:.2f} ({1 - row['male_share_high']:.2f} to " in said
    assert f"a face at all, of all drawn {row['face_rate']:.2f} ({row['face_low']:.2f} to {row['face_high']:.2f})" in said
    assert f"abstained on {row['abstained']:.0f} of {row['n']:.0f}" in said and "a fair model stays below 0.0" in said


def test_in_between_nothing_is_claimed_to_be_measured(gallery, between):
    said = plain(alpha_reading(gallery, ratio=gallery.adapter_ratio, alpha=between))
    assert "interpolated" in said and "not measured" in said and "a face at all" not in said


@pytest.mark.parametrize(("ratio", "alpha", "said"), [(0.123, 0, "ratio 0.123: not in this gallery"),
                                                      (None, 0.7, "alpha 0.7: no faces of it")])
def test_what_is_not_there_is_told(gallery, ratio, alpha, said):
    with pytest.raises(InputError, match=said):
        alpha_reading(gallery, ratio=ratio or gallery.adapter_ratio, alpha=alpha)


def test_the_grid_holds_the_sprite_s_pixels_and_frames_the_chosen_alpha(gallery):
    ratio = gallery.adapter_ratio
    alphas, pictures = gallery.alphas(ratio), gallery.pictures(ratio)
    whole = grid_of(gallery, ratio=ratio, alpha=alphas[1])
    side = gallery.size + 2
    assert (whole[HEAD + 2:HEAD + 66, MARGIN + 2:MARGIN + 66] == pictures[0, 0]).all()
    assert (whole[60, MARGIN + side] == (213, 94, 0)).all() and (whole[60, MARGIN] == 255).all()
    alone = grid_of(gallery, ratio=ratio, alpha=alphas[1], view=VIEWS[1])
    assert (alone[HEAD + 2:HEAD + 66, MARGIN + 2 + side:][:, :64] == pictures[1, 1]).all()


def test_names_stand_beside_the_pictures():
    grid = labelled_grid(np.zeros((2, 3, 8, 8, 3), np.uint8), rows=["a", "b"], columns=["x", "y", "z"])
    assert grid[:HEAD].min() < 128 and grid[HEAD:, :MARGIN].min() < 128
    assert (grid[HEAD + 2:HEAD + 10, MARGIN + 2:MARGIN + 10] == 0).all()


# The widget ------------------------------------------------------------------------------------------------------------

def test_moving_a_control_shows_that_reading_and_those_faces(gallery):
    explorer = AlphaExplorer(gallery)
    for ratio in gallery.ratios:
        explorer.ratio.value = ratio
        for alpha in gallery.alphas(ratio):
            explorer.alpha.value = alpha
            assert explorer.readout.value == alpha_reading(gallery, ratio=ratio, alpha=alpha)
            assert (opened(explorer.picture.value) == grid_of(gallery, ratio=ratio, alpha=alpha)).all()
    explorer.view.value = VIEWS[1]
    assert (opened(explorer.picture.value) == grid_of(gallery, ratio=ratio, alpha=alpha, view=VIEWS[1])).all()


def test_an_interpolated_alpha_carries_the_word_on_the_slider(gallery, between):
    options = dict((alpha, name) for name, alpha in AlphaExplorer(gallery).alpha.options)
    assert options[between] == f"{between:g} (interp.)" and options[0] == "0"


def test_another_ratio_keeps_the_nearest_alpha(gallery, between):
    explorer = AlphaExplorer(gallery)
    explorer.alpha.value = between
    other = next(ratio for ratio in gallery.ratios if ratio != gallery.adapter_ratio)
    explorer.ratio.value = other
    assert explorer.alpha.value == min(gallery.alphas(other), key=lambda alpha: abs(alpha - between))
    assert explorer.readout.value == alpha_reading(gallery, ratio=other, alpha=explorer.alpha.value)


def test_the_slider_answers_from_the_cache_within_150_ms(gallery):
    explorer = AlphaExplorer(gallery)
    took = []
    for _, alpha in explorer.alpha.options[1:]:
        began = time.thread_time()
        explorer.alpha.value = alpha
        took.append(time.thread_time() - began)
    assert np.median(took) < 0.15


def test_drawing_live_shows_new_seeds_and_what_drew_them(gallery, between):
    explorer = AlphaExplorer(gallery, Painter(gallery))
    explorer.alpha.value, explorer.first.value = between, 30
    explorer.live.go.click()
    explorer.live.wait(20)
    assert "seeds 30 to 37" in explorer.live.status.value and "interpolated" in explorer.live.status.value
    assert (opened(explorer.drawn.value)[HEAD + 2:HEAD + 66, MARGIN + 2:MARGIN + 66] == 30).all()
    assert explorer.drawn.layout.display is None


def test_a_ratio_without_adapters_is_told_in_the_widget(gallery):
    explorer = AlphaExplorer(gallery, Painter(gallery))
    explorer.ratio.value = next(ratio for ratio in gallery.ratios if ratio != gallery.adapter_ratio)
    explorer.live.go.click()
    explorer.live.wait(20)
    assert "the adapters that ship are those of" in explorer.live.status.value and not explorer.live.go.disabled


def test_without_a_kernel_reading_and_faces_are_still_there(gallery):
    explorer = AlphaExplorer(gallery)
    bundle = explorer._repr_mimebundle_()
    faces = static_grid(gallery, ratio=explorer.ratio.value, alpha=0.0)
    assert bundle["text/html"] == explorer.readout.value + faces and file_uri(gallery.sprite(explorer.ratio.value)) in faces
    assert "application/vnd.jupyter.widget-view+json" in bundle and "AlphaExplorer(alpha=0" in bundle["text/plain"]


# Work beside the kernel ------------------------------------------------------------------------------------------------

def test_work_leaves_the_kernel_free_and_can_be_stopped_in_the_middle():
    reached, go_on = threading.Event(), threading.Event()

    def work(on_step):
        for step in range(5):
            on_step(step + 1, 5)
            reached.set()
            go_on.wait(10)
        return "all done"

    runner = Runner("go", work)
    runner.go.click()
    assert reached.wait(10) and runner.running and runner.go.disabled and not runner.stop.disabled
    runner.start()  # a second press does nothing
    runner.stop.click()
    go_on.set()
    runner.wait(10)
    assert "Stopped after 1 of 5 steps" in runner.status.value and not runner.go.disabled and runner.stop.disabled
    runner.go.click()
    runner.wait(10)
    assert "all done" in runner.status.value and runner.bar.value == runner.bar.max == 5


@pytest.mark.parametrize(("error", "said"), [(InputError("seeds: <none>. Give one."), "seeds: &lt;none&gt;. Give one."),
                                             (ZeroDivisionError("by 0"), "A fault of the kit, not of yours"),
                                             (Stopped(), "Stopped after 0")])
def test_whatever_goes_wrong_is_said_and_may_be_tried_again(error, said):
    def work(on_step):
        raise error

    runner = Runner("go", work)
    runner.go.click()
    runner.wait(10)
    assert said in runner.status.value and not runner.go.disabled and runner.stop.disabled

"""Lines: known drawings give known measures, any canvas becomes a condition image, and bad ones are told apart."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import debiaslib
from debiaslib import contours
from debiaslib.contours import (
    canny_lines,
    chamfer_distance,
    contour_of,
    edge_agreement,
    open_picture,
    scribble_lines,
    sketch_of,
)
from debiaslib.errors import InputError

SHARED = Path(debiaslib.__file__).parents[2] / "shared/data"


def stroke(side=64, column=20, width=1):
    lines = np.zeros((side, side), np.uint8)
    lines[side // 8:-side // 8, column:column + width] = 255
    return lines


def disc(side=64, ground=200, inside=60):
    picture = np.full((side, side, 3), ground, np.uint8)
    cv2.circle(picture, (side // 2, side // 2), side // 3, (inside,) * 3, -1)
    return picture


def canvas(ink, *, ground, side=256, alpha=False):
    """Two strokes of colour `ink`, 6 px wide, on `ground` (see-through if `alpha`)."""
    picture = np.full((side, side, 4), (*ground, 0 if alpha else 255), np.uint8)
    for place in (slice(60, 66), slice(190, 196)):
        picture[40:-40, place] = (*ink, 255)
    return picture


@pytest.mark.parametrize(("shift", "f1", "chamfer"), [(0, 1, 0), (2, 1, 2), (3, 0, 3), (10, 0, 10)])
def test_a_shifted_line_is_as_far_away_as_it_was_shifted(shift, f1, chamfer):
    assert edge_agreement(stroke(column=20 + shift), stroke(column=20), tolerance=2)["f1"] == f1
    assert chamfer_distance(stroke(column=20 + shift), stroke(column=20)) == pytest.approx(chamfer)


def test_distances_are_stated_for_64_pixels():
    assert chamfer_distance(stroke(128, 46), stroke(128, 40)) == pytest.approx(3)
    assert edge_agreement(stroke(128, 44), stroke(128, 40), tolerance=2)["f1"] == 1


def test_precision_and_recall_tell_too_much_from_too_little():
    both = stroke(column=10) | stroke(column=50)
    found = edge_agreement(both, stroke(column=10))
    assert (found["precision"], found["recall"]) == (0.5, 1) and found["f1"] == pytest.approx(2 / 3)
    assert edge_agreement(stroke(column=10), both)["recall"] == 0.5


def test_chamfer_is_symmetric_and_nothing_is_as_far_as_can_be():
    a, b = stroke(column=10), stroke(column=10) | stroke(column=30)
    assert chamfer_distance(a, b) == chamfer_distance(b, a) == pytest.approx((0 + 10) / 2)
    empty = np.zeros_like(a)
    assert chamfer_distance(a, empty) == pytest.approx(64 * 2 ** 0.5)
    assert edge_agreement(empty, a) == {"precision": 0, "recall": 0, "f1": 0}


def test_canny_finds_the_edge_of_a_disc_however_dark_it_is():
    circle = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 21, 255, 1)
    for picture in (disc(), disc(ground=70, inside=50), disc(ground=60, inside=200)):
        assert edge_agreement(canny_lines(picture[None])[0], circle, tolerance=2)["f1"] == 1
    assert not canny_lines(np.full((1, 64, 64, 3), 90, np.uint8)).any()


def test_scribble_draws_what_is_darker_than_around_it():
    picture = np.full((1, 64, 64, 3), 200, np.uint8)
    picture[0, 10:54, 30:33] = 40
    lines = scribble_lines(picture)[0]
    assert (lines[10:54, 30:33] == 255).all() and not lines[:, :26].any() and set(np.unique(lines)) == {0, 255}


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (200, 30, 30)


@pytest.mark.parametrize("drawn", [canvas(BLACK, ground=WHITE), canvas(WHITE, ground=BLACK), canvas(RED, ground=WHITE),
                                   canvas(BLACK, ground=BLACK, alpha=True), canvas(WHITE, ground=BLACK, alpha=True),
                                   canvas(BLACK, ground=WHITE)[..., :3]])
def test_strokes_on_any_ground_give_the_same_lines(drawn):
    sketch = sketch_of(drawn, size=64)
    wanted = stroke(column=15, width=2) | stroke(column=48, width=2)
    assert sketch.lines.shape == (64, 64) and sketch.lines.dtype == np.uint8
    assert edge_agreement(sketch.lines, wanted, tolerance=1.5)["f1"] > 0.95
    assert sketch.drawing[0, 0].tolist() == [255, 255, 255], "dark on white, for image-to-image"
    assert sketch.drawing[32, 14:17].min() < 120


def test_colours_are_kept_for_image_to_image():
    drawing = sketch_of(canvas((200, 30, 30), ground=(255, 255, 255)), size=64).drawing
    red, green, _ = drawing[32, 14:17].astype(int).T
    assert (red - green).max() > 80


@pytest.mark.parametrize(("side", "width"), [(64, 1), (512, 1), (512, 8), (1000, 3)])
def test_thin_strokes_of_large_canvases_survive(side, width):
    picture = np.repeat(255 - stroke(side, side // 3, width)[..., None], 3, -1)
    sketch = sketch_of(picture, size=64)
    lines = sketch.lines
    assert lines[32].max() > 127 and sketch.drawing[32].min() < 128, "still seen"
    assert 0.5 < (lines[32] / 255).sum() < 3, "about a pixel wide"


def test_what_is_not_square_is_padded_not_stretched():
    picture = np.full((100, 300, 3), 255, np.uint8)
    cv2.circle(picture, (150, 50), 40, (0, 0, 0), 6)
    rows, columns = np.nonzero(sketch_of(picture, size=96).lines > 127)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1 and abs(rows.mean() - 47.5) < 1


@pytest.mark.parametrize("blank", [np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 4), np.uint8),
                                   np.full((64, 64, 4), 255, np.uint8), np.full((64, 64, 3), 250, np.uint8)])
def test_an_empty_sketch_is_told(blank):
    with pytest.raises(InputError, match="sketch: empty.*Draw"):
        sketch_of(blank, size=64)


def test_a_photograph_is_no_sketch_but_makes_a_contour():
    photograph = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    photograph = cv2.resize(photograph, (128, 128), interpolation=cv2.INTER_CUBIC)
    with pytest.raises(InputError, match="--contour"):
        sketch_of(photograph, size=64)
    made = contour_of(photograph, size=64)
    assert made.origin == "photograph" and made.lines.any() and (made.drawing[..., 0] == 255 - made.lines).all()


def test_a_drawing_given_as_contour_is_not_outlined_once_more():
    drawn = canvas((0, 0, 0), ground=(255, 255, 255))
    made = contour_of(drawn, size=64)
    assert made.origin == "drawing" and made.sha256 == sketch_of(drawn, size=64).sha256
    assert made.sha256 != sketch_of(np.roll(drawn, 20, axis=1), size=64).sha256


def test_a_blank_photograph_and_an_unknown_style_are_told():
    with pytest.raises(InputError, match="no line found"):
        contour_of(np.full((64, 64, 3), 90, np.uint8), size=64)
    with pytest.raises(InputError, match="canny, scribble"):
        contours.draw_lines(disc()[None], style="oil")


def test_dimming_is_s1_s(tmp_path):
    """Brightness .7 takes white to 178; contrast .5 halves the way to the mean grey; colour 2.0 leaves grey as it is."""
    drawing = np.full((10, 10, 3), 255, np.uint8)
    drawing[:5] = 0
    dim = contours.dimmed(drawing)
    mean = 178 / 2
    assert dim[9, 9, 0] == pytest.approx((178 + mean) / 2, abs=1) and dim[0, 0, 0] == pytest.approx(mean / 2, abs=1)


def test_files_that_cannot_be_opened(tmp_path):
    def told(name, data):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            open_picture(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
        return str(caught.value)

    Image.fromarray(disc()).save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    assert open_picture(tmp_path / "good.png").shape == (64, 64, 4)
    assert "not a picture" in told("words.png", b"hello")
    assert "damaged" in told("half.png", good[:len(good) // 2])
    with pytest.raises(InputError, match="no such file"):
        open_picture(tmp_path / "absent.png")
    Image.new("1", (6000, 6000)).save(tmp_path / "huge.png")
    assert "6000 x 6000" in told("huge.png", (tmp_path / "huge.png").read_bytes())
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    assert "million" in told("bomb.png", (tmp_path / "bomb.png").read_bytes())
    Image.new("L", (9, 9)).save(tmp_path / "dot.png")
    assert "too few" in told("dot.png", (tmp_path / "dot.png").read_bytes())


def test_an_uploaded_file_s_bytes_open_as_the_file_does(tmp_path):
    Image.new("RGB", (20, 24), (1, 2, 3)).save(tmp_path / "me.png")
    content = (tmp_path / "me.png").read_bytes()
    assert (open_picture("me.png", content=content) == open_picture(tmp_path / "me.png")).all()
    with pytest.raises(InputError, match="me.png: not a picture"):
        open_picture("me.png", content=b"nothing of the kind")


def test_landmark_lines_lie_where_the_eyes_are():
    path = SHARED / "fairface_aligned_128px_landmarks.npz"
    if not path.exists():
        pytest.skip("no landmarks beside this checkout")
    points = np.load(path)["landmarks"][:8].astype(np.float32) / 128
    eyes = contours.landmark_lines(points, size=64, parts=[part for part in contours.FACE_LINES if "lid" in part])
    for lines in eyes:
        rows, columns = np.nonzero(lines > 60)
        left, right = columns[columns < 32], columns[columns >= 32]
        found = np.array([rows.mean(), left.mean(), right.mean()]) / 64
        assert np.abs(found - [0.40, 0.30, 0.70]).max() < 0.06


def test_identity_spread_is_the_mean_distance_of_pairs(monkeypatch):
    monkeypatch.setattr(contours, "embed_faces", lambda pixels: pixels.reshape(len(pixels), -1).astype(np.float32))
    pixels = np.zeros((3, 1, 1, 3), np.uint8)
    pixels[1, 0, 0, 0], pixels[2, 0, 0, 0] = 3, 9
    assert contours.identity_spread(pixels) == pytest.approx((3 + 9 + 6) / 3)
    assert np.isnan(contours.identity_spread(pixels[:1]))

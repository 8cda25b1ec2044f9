"""The panel: prompt, contour or sketch to faces, and clear words for whatever cannot be drawn."""

import io
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from debiaslib.contour_training import ContourConfig, build_controlnet
from debiaslib.contours import sketch_of
from debiaslib.errors import InputError
from debiaslib.finetune import ADAPTER_FILE
from debiaslib.gallery import AlphaSwitch, Studio, load_gallery
from debiaslib.generate import PromptCut
from debiaslib.widgets.panel import (
    METHODS,
    MOST,
    PURPOSE,
    SOURCES,
    ReconstructionPanel,
    Request,
    agreement_table,
    draw_request,
    read_seeds,
    result_grid,
)
from debiaslib.widgets.sketch import BLANK, LINE_FACE, SIDE, SketchPad, Stroke, ink_of, line_face

FACE = Stroke(points=((90, 60), (230, 60), (230, 250), (90, 250), (90, 60)), width=8)


class SmallStudio(Studio):
    """Over a pipeline of a few thousand random weights, 32 px."""

    size = 32

    def __init__(self, pipe, files=()):
        super().__init__(None)
        self.switch = AlphaSwitch(pipe, dict(files))
        self.alphas = self.switch.alphas


@pytest.fixture
def studio(small_pipe):
    return SmallStudio(small_pipe)


@pytest.fixture
def adapted(small_pipe, tmp_path):
    """A studio with adapters of random weights for alpha 0 and 0.1."""
    files = {alpha: tmp_path / f"alpha{alpha:g}" for alpha in (0.0, 0.1)}
    torch.manual_seed(0)
    for folder in files.values():
        small_pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
        small_pipe.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(small_pipe.unet),
                                     weight_name=ADAPTER_FILE)
        small_pipe.unet.delete_adapters("default")
    small_pipe.unload_lora_weights()
    return SmallStudio(small_pipe, files)


@pytest.fixture
def panel(studio):
    shown = ReconstructionPanel(load_gallery(), studio)
    shown.steps.value, shown.n.value = 2, 2
    return shown


def press(panel):
    """Press generate; what the panel then says."""
    panel.runner.go.click()
    panel.runner.wait(60)
    return panel.runner.status.value


def file_of(picture, name="me.png"):
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return {"name": name, "type": "image/png", "size": 1, "content": memoryview(stream.getvalue()),
            "last_modified": datetime.now(UTC)}


def give(panel, *files):
    """As an upload does, whose trait takes files from the browser only."""
    panel.upload.set_trait("value", files)


# Pure functions --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "n", "seeds"), [("7", 3, (7, 8, 9)), ("3, 8 12", 3, (3, 8, 12)), ("3 8 12", 2, (3, 8)),
                                                  (" 0 ", 1, (0,))])
def test_seeds_as_typed(text, n, seeds):
    assert read_seeds(text, n=n) == seeds


@pytest.mark.parametrize(("text", "said"), [("", "give one whole number"), ("two", "give one whole number"),
                                            ("-3", "give one whole number"), ("3, 5", "2 for 4 pictures"),
                                            ("9" * 30, "give one whole number"), ("٣", "give one whole number")])
def test_seeds_that_cannot_be_read_or_are_too_few(text, said):
    with pytest.raises(InputError, match=said):
        read_seeds(text, n=4)


def test_strokes_leave_ink_and_the_eraser_takes_it_away():
    line = Stroke(points=((40, 160), (280, 160)), width=10)
    ink = ink_of([line])[..., 3]
    assert ink[160, 160] == 255 and ink[100, 100] == 0 and 8 < (ink[:, 160] > 127).sum() < 14
    rubbed = ink_of([line, Stroke(points=((160, 100), (160, 220)), width=30, erase=True)])[..., 3]
    assert rubbed[160, 160] == 0 and rubbed[160, 60] == 255
    dot = ink_of([Stroke(points=((50, 50),), width=12)])[..., 3]
    assert dot[50, 50] == 255 and not ink_of([])[..., 3].any()


def test_the_line_face_is_a_sketch_with_eyes_where_the_kit_s_faces_have_them():
    lines = sketch_of(ink_of([], ground=line_face()), size=64).lines
    for x in (0.3, 0.7):
        around = lines[22:30, round(64 * x) - 6:round(64 * x) + 6]
        assert (around > 127).sum() > 8
    assert (lines > 127).mean() < 0.3


def test_each_method_gives_a_picture_a_seed_and_steps_count_through(studio):
    studio.controlnet = build_controlnet(studio.switch.pipe, ContourConfig(embedding=(8, 8, 8))).eval()
    told = []
    request = Request(prompt="a human face", seeds=(1, 5), steps=2, contour=sketch_of(ink_of([FACE]), size=32),
                      methods=METHODS["both"], strength=1.0)
    found = draw_request(studio, request, on_step=lambda done, of: told.append((done, of)))
    assert list(found) == ["ControlNet", "image-to-image"] and told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(pixels.shape == (1, 2, 32, 32, 3) for pixels in found.values())
    alone = draw_request(studio, Request(prompt="a human face", seeds=(1, 5), steps=2))["prompt"]
    assert np.abs(found["ControlNet"].astype(int) - alone).max() <= 1, "untrained, a ControlNet is mute"


def test_every_alpha_is_a_column_of_the_same_seeds(adapted):
    told, alphas = [], (None, 0.0, 0.1)
    request = Request(prompt="a human face with a hat", seeds=(3, 7), steps=2, alphas=alphas)
    found = draw_request(adapted, request, on_step=lambda done, of: told.append((done, of)))["prompt"]
    assert found.shape == (3, 2, 32, 32, 3) and told == [(done, 6) for done in range(1, 7)]
    for alpha, drawn in zip(alphas, found.astype(int), strict=True):
        alone = draw_request(adapted, replace(request, alphas=(alpha,)))["prompt"][0]
        assert np.abs(drawn - alone).max() <= 1
    assert all(np.abs(found[one].astype(int) - found[other]).max() > 1 for one, other in ((0, 1), (0, 2), (1, 2)))
    grid = result_grid({"prompt": found}, request)
    for row, column in product(range(2), range(3)):
        top, left = 32 + 66 * row, 42 + 66 * column
        np.testing.assert_array_equal(grid[top:top + 64:2, left:left + 64:2], found[column, row])


def test_every_alpha_after_a_contour_has_its_agreement(adapted):
    request = Request(prompt="a human face", seeds=(3,), steps=1, alphas=(None, 0.1), strength=1.0,
                      contour=sketch_of(ink_of([FACE]), size=32), methods=("image-to-image",))
    table = agreement_table(draw_request(adapted, request), request)
    assert "image-to-image, base model" in table and "image-to-image, alpha 0.1" in table


def test_a_prompt_that_is_cut_is_told_once(adapted):
    with pytest.warns(PromptCut) as notes:
        draw_request(adapted, Request(prompt="a human face " * 40, seeds=(1,), steps=1, alphas=(None, 0.0, 0.1)))
    assert len(notes) == 1


# The pad ---------------------------------------------------------------------------------------------------------------

def test_a_mouse_draws_a_stroke_undo_and_clear_take_it_back():
    pad = SketchPad()
    pad.move(5, 5)  # before the brush is down
    for place in ((10, 10), (50, 60), (90, 10)):
        (pad.press if place == (10, 10) else pad.move)(*place)
    pad.lift()
    pad.lift()
    assert pad.strokes == (Stroke(points=((10, 10), (50, 60), (90, 10)), width=6),)
    pad.tool.value = "eraser"
    pad.press(1, 1)
    pad.lift()
    assert pad.strokes[1].erase
    pad.undo.click()
    assert len(pad.strokes) == 1 and pad.picture[60, 50, 3] == 255
    pad.base.value = LINE_FACE
    pad.clear.click()
    pad.undo.click()
    assert pad.strokes == () and pad.ground is None and not pad.picture.any()


def test_a_face_underneath_is_traced_only_on_request():
    face = np.full((64, 64, 3), 200, np.uint8)
    face[20:24, 16:48] = 40
    pad = SketchPad({"a face": face})
    assert pad.trace.disabled
    pad.base.value = "a face"
    assert not pad.picture.any() and not pad.trace.disabled
    pad.trace.click()
    assert pad.picture[110, 160, 3] > 0
    pad.base.value = BLANK
    assert pad.ground is None and pad.trace.disabled
    pad.base.value = LINE_FACE
    assert pad.picture[..., 3].any() and pad.picture.shape == (SIDE, SIDE, 4)


# The widget ------------------------------------------------------------------------------------------------------------

def test_a_prompt_becomes_pictures(panel):
    assert "2 drawn by the base model, no adapter. Steps: 2." in press(panel)
    assert Image.open(io.BytesIO(panel.result.value)).size[0] > 128 and panel.result.layout.display is None
    assert panel.agreement.value == ""


def test_a_sketch_becomes_pictures_with_their_agreement(panel):
    panel.source.value, panel.method.value = SOURCES[2], "image-to-image"
    assert "no stroke on it" in panel.lines_said.value and panel.lines.layout.display == "none"
    panel.pad.strokes = (FACE,)
    assert "What the model gets of your sketch" in panel.lines_said.value and panel.lines.layout.display is None
    assert "2 drawn by the base model, no adapter. Lines: your sketch. Steps: 2." in press(panel)
    assert "image-to-image" in panel.agreement.value and "edge F1" in panel.agreement.value


def test_a_photograph_becomes_lines(panel):
    panel.source.value, panel.method.value = SOURCES[1], "image-to-image"
    assert "no picture yet" in panel.lines_said.value
    shades = np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8)
    shades[12:36, 12:36] += 120
    give(panel, file_of(Image.fromarray(shades)))
    assert "What the model gets of me.png (" in panel.lines_said.value
    panel.style.value = "scribble"
    assert "Lines: me.png (" in press(panel) and "KB)" in panel.runner.status.value


def test_what_is_drawn_from_is_named_with_its_size_so_that_none_is_taken_for_another(panel):
    panel.source.value, panel.method.value = SOURCES[1], "image-to-image"
    assert "up to 50 MB" in panel.photo.children[1].value
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    noise[100:300, 100:300] //= 8
    give(panel, file_of(Image.fromarray(noise), name="<b>large</b>.png"))
    assert "of &lt;b&gt;large&lt;/b&gt;.png (0." in panel.lines_said.value and "MB):" in panel.lines_said.value
    assert "&lt;b&gt;large&lt;/b&gt;.png (0." in press(panel)
    give(panel, file_of(Image.new("RGB", (8, 8)), name="small.png"))
    assert "small.png: 8 x 8 pixels are too few" in panel.lines_said.value and "large" not in panel.lines_said.value
    assert panel.result.layout.display is None
    assert "small.png: 8 x 8" in press(panel)
    assert panel.result.layout.display == "none" and panel.agreement.value == "", "faces of another picture are no answer"


def test_bad_input_is_told_in_the_panel_and_the_next_attempt_works(panel, monkeypatch):
    panel.prompt.value = "  "
    assert "Not yet" in press(panel) and "prompt: empty" in panel.runner.status.value
    panel.prompt.value = "a human face " * 60
    assert "longer than the" in press(panel) and "cut:" in panel.runner.status.value
    assert "Not yet" not in panel.runner.status.value
    panel.prompt.value, panel.seeds.value = "a human face", "3"
    panel.n.value, panel.seeds.value = 4, "3, 5"
    assert "2 for 4 pictures" in press(panel)
    panel.seeds.value, panel.source.value = "3", SOURCES[2]
    assert "no stroke on it" in press(panel)
    panel.source.value = SOURCES[1]
    assert "no picture yet" in press(panel)
    give(panel, file_of(Image.new("RGB", (6000, 6000)), name="wall.png"))
    assert "wall.png: 6000 x 6000 pixels, more than the 25 million" in press(panel)
    give(panel, {**file_of(Image.new("RGB", (20, 20)), name="song.mp3"), "content": memoryview(b"ID3 nothing to see")})
    assert "song.mp3: not a picture" in press(panel)
    panel.source.value = SOURCES[0]
    assert "4 drawn by" in press(panel)


def test_without_a_controlnet_it_says_what_to_do(panel):
    panel.studio.preset = replace(panel.studio.preset, controlnet="models/none-of-this-name")
    panel.source.value, panel.pad.strokes = SOURCES[2], (FACE,)
    assert "no usable ControlNet" in press(panel) and "which needs none" in panel.runner.status.value


def test_an_alpha_without_an_adapter_is_told(panel):
    panel.alpha.options = [("0.3", 0.3)]
    assert "alpha 0.3: no adapter for it" in press(panel)


def test_every_alpha_is_one_choice_beside_the_slider(adapted):
    panel = ReconstructionPanel(load_gallery(), adapted)
    panel.steps.value, panel.n.value, panel.every.value = 2, 2, True
    assert panel.alpha.disabled
    assert "2 drawn by each of base model, alpha 0, alpha 0.1. Steps: 2." in press(panel)
    assert panel.runner.bar.value == panel.runner.bar.max == 6
    assert Image.open(io.BytesIO(panel.result.value)).size == (42 + 3 * 66, 32 + 2 * 66)
    panel.every.value = False
    assert not panel.alpha.disabled and "2 drawn by the base model" in press(panel)


def test_it_can_be_stopped_in_the_middle_and_used_again(panel):
    panel.steps.value, panel.n.value = 50, MOST
    panel.runner.go.click()
    until = time.monotonic() + 60
    while panel.runner.bar.value < 1 and time.monotonic() < until:
        time.sleep(0.01)
    panel.runner.stop.click()
    panel.runner.wait(60)
    assert "Stopped after" in panel.runner.status.value and panel.result.value == b""
    panel.steps.value = 1
    assert "8 drawn by" in press(panel)


def test_rapid_changes_leave_it_whole(panel):
    for _ in range(3):
        for source in SOURCES:
            panel.source.value = source
            panel.alpha.index = len(panel.alpha.options) - 1
            panel.guidance.value, panel.n.value = panel.guidance.max, 1
    panel.source.value = SOURCES[0]
    assert "1 drawn by" in press(panel)


def test_it_says_what_it_is_for_and_that_photographs_stay_here(panel):
    for words in ("identifying people", "judging them", "stays on this machine"):
        assert words in PURPOSE
    assert panel.children[0].value == PURPOSE
    static = panel._repr_mimebundle_()["text/html"]
    assert PURPOSE in static and "<img" in static and "No kernel runs here" in static

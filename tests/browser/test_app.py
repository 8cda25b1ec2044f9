"""The app in Voila: no code shown, a stroke by mouse becomes a face, extremes and haste do no harm."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hands import OVAL, explore, slider, stroke
from PIL import Image
from playwright.sync_api import Page, expect

WHOLE_LINE = ((0.1, 0.5), (0.9, 0.5))
SHOTS = os.environ.get("DEBIASLIB_SCREENSHOTS")
"""A folder to leave screenshots in, for people to look at."""


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


@pytest.fixture
def page(app: str, seen) -> Page:
    seen.page.goto(app, timeout=120_000)
    expect(seen.page.get_by_role("button", name="generate")).to_be_visible(timeout=120_000)
    return seen.page


def test_the_app_from_first_look_to_a_face_after_one_s_own_strokes(page: Page, tmp_path: Path):
    expect(page.get_by_text("stays on this machine")).to_be_visible()
    expect(page.get_by_text("not for", exact=False).first).to_be_visible()
    assert page.get_by_text("load_gallery").count() == 0, "no code is shown"
    _prompt(page)
    _alpha(page)
    _picture(page, tmp_path)
    _sketch(page)
    _tools(page)
    _extremes(page)
    explore(page, last=True)
    _live(page)


def generated(page: Page, words: str) -> None:
    """Press generate, and wait until the panel says so."""
    page.get_by_role("button", name="generate").click()
    expect(page.get_by_text(words).last).to_be_visible(timeout=60_000)  # the preview may say the same


def press(page: Page, name: str, *keys: str) -> None:
    """Keys on the slider of that name, once it takes them: the kernel may have disabled it, and lets go a moment later."""
    handle = slider(page, name)
    target = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]")
    expect(target).not_to_have_attribute("disabled", re.compile(""), timeout=30_000)
    handle.focus()
    for key in keys:
        page.keyboard.press(key)


def _prompt(page: Page) -> None:
    """A picture from a prompt; an empty prompt is told, and may be mended."""
    prompt = page.locator(".widget-text input").first
    prompt.fill("")
    prompt.press("Tab")
    generated(page, "prompt: empty")
    prompt.fill("a human face")
    prompt.press("Tab")
    generated(page, "4 drawn by the base model")
    shoot(page, "app-prompt")


def _alpha(page: Page) -> None:
    """The slider's adapter draws; and every one of them, a column each."""
    press(page, "steps", "Home", "ArrowRight")
    press(page, "alpha", "End")
    generated(page, "4 drawn by alpha 0.1. Steps: 2.")
    every = page.get_by_role("checkbox", name="every alpha")
    every.check()
    generated(page, "4 drawn by each of base model, alpha 0, alpha 0.01, alpha 0.05, alpha 0.1. Steps: 2.")
    shoot(page, "app-every-alpha")
    every.uncheck()
    _back_to_base(page)


def _back_to_base(page: Page) -> None:
    """The kernel lets go of the slider, which is drawn anew then and may lose a key that comes at that moment: so, until it is there."""
    readout = slider(page, "alpha").locator("xpath=ancestor::*[contains(@class, 'widget-inline-hbox')]").locator(".widget-readout")
    for _ in range(10):
        press(page, "alpha", "Home")
        try:
            return expect(readout).to_have_text("base model", timeout=3_000)
        except AssertionError:
            continue
    expect(readout).to_have_text("base model")


def _picture(page: Page, folder: Path) -> None:
    """A small picture, one larger than a server takes by itself, and what is none: each is named."""
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    pixels[500:1500, 500:1500] //= 8
    files = {name: folder / f"{name}.png" for name in ("small", "large", "broken")}
    Image.fromarray(pixels).save(files["large"], compress_level=0)
    Image.fromarray(pixels).resize((100, 100)).save(files["small"])
    files["broken"].write_bytes(b"no picture at all")
    assert files["large"].stat().st_size > 11_000_000
    page.get_by_role("button", name="contour of a picture").click()
    expect(page.get_by_text("no picture yet")).to_be_visible(timeout=30_000)
    for name, words in (("small", "What the model gets of small.png ("), ("large", "What the model gets of large.png (1"),
                        ("broken", "broken.png: not a picture that can be read")):
        with page.expect_file_chooser() as chosen:
            page.get_by_role("button", name="a picture (").click()
        chosen.value.set_files(files[name])
        expect(page.get_by_text(words)).to_be_visible(timeout=60_000)
        generated(page, "Not yet. broken.png" if name == "broken" else f"Lines: {name}.png (")
        shoot(page, f"app-{name}-picture")


def _sketch(page: Page) -> None:
    """An empty pad is told; a stroke with the mouse, another undone, and the lines reach the model."""
    page.get_by_role("button", name="sketch", exact=True).click()
    expect(page.get_by_text("no stroke on it").first).to_be_visible(timeout=30_000)
    pad = page.locator("canvas").last
    stroke(page, pad, OVAL)
    expect(page.get_by_text("What the model gets")).to_be_visible(timeout=30_000)
    stroke(page, pad, [(0.1, 0.1), (0.9, 0.9)])
    page.get_by_role("button", name="undo").click()
    generated(page, "Lines: your sketch.")
    expect(page.get_by_text("edge F1")).to_be_visible()
    pad.scroll_into_view_if_needed()
    shoot(page, "app-sketch")


def _tools(page: Page) -> None:
    """Clear, the eraser over a whole stroke, and the lines of a face underneath."""
    pad, clear = page.locator("canvas").last, page.get_by_role("button", name="clear")
    empty, lines = page.get_by_text("no stroke on it"), page.get_by_text("What the model gets")
    clear.click()
    expect(empty).to_be_visible(timeout=30_000)
    stroke(page, pad, WHOLE_LINE)
    expect(lines).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="eraser").click()
    press(page, "width", "End")
    stroke(page, pad, WHOLE_LINE)
    expect(empty).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="brush").click()
    page.locator(".widget-dropdown:visible", has_text="draw on").locator("select").select_option(index=2)
    page.get_by_role("button", name="use its lines").click()
    expect(lines).to_be_visible(timeout=30_000)
    shoot(page, "app-traced")
    clear.click()
    expect(empty).to_be_visible(timeout=30_000)
    stroke(page, pad, OVAL)
    expect(lines).to_be_visible(timeout=30_000)


def _extremes(page: Page) -> None:
    """Every slider to both ends in haste, then a generation that is stopped in the middle; the kernel lives on."""
    for name in ("pictures", "guidance", "control", "strength", "steps"):
        press(page, name, "End", "Home", "End", "Home", "End")
    page.get_by_role("button", name="generate").click()
    page.get_by_role("button", name="stop").first.click()
    expect(page.get_by_text("Stopped after")).to_be_visible(timeout=60_000)
    press(page, "steps", "Home")
    generated(page, "8 drawn by the base model")


def _live(page: Page) -> None:
    """The explorer's own button draws new seeds by the adapter under its slider."""
    page.get_by_role("button", name="draw live").click()
    expect(page.get_by_text("Drawn now, seeds 1 to 8: alpha 0.1.")).to_be_visible(timeout=60_000)
    shoot(page, "app-explorer")

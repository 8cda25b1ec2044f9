"""The app in Voila: no code shown, a stroke by mouse becomes a face, extremes and haste do no harm."""

import os
from pathlib import Path

import pytest
from hands import explore, slider
from playwright.sync_api import Locator, Page, expect

SHOTS = os.environ.get("DEBIASLIB_SCREENSHOTS")
"""A folder to leave screenshots in, for people to look at."""


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def stroke(page: Page, pad: Locator, places: list[tuple[float, float]]) -> None:
    """Drag the mouse through places of the pad, in shares of its side."""
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


@pytest.fixture
def page(app: str, seen) -> Page:
    seen.page.goto(app, timeout=120_000)
    expect(seen.page.get_by_role("button", name="generate")).to_be_visible(timeout=120_000)
    return seen.page


def test_the_app_from_first_look_to_a_face_after_one_s_own_strokes(page: Page):
    expect(page.get_by_text("stays on this machine")).to_be_visible()
    expect(page.get_by_text("not for", exact=False).first).to_be_visible()
    assert page.get_by_text("load_gallery").count() == 0, "no code is shown"
    _prompt(page)
    _sketch(page)
    _extremes(page)
    explore(page, last=True)
    page.get_by_role("button", name="draw live").scroll_into_view_if_needed()
    shoot(page, "app-explorer")


def _prompt(page: Page) -> None:
    """A picture from a prompt; an empty prompt is told, and may be mended."""
    generate, prompt = page.get_by_role("button", name="generate"), page.locator(".widget-text input").first
    prompt.fill("")
    prompt.press("Tab")
    generate.click()
    expect(page.get_by_text("prompt: empty")).to_be_visible(timeout=30_000)
    prompt.fill("a human face")
    prompt.press("Tab")
    generate.click()
    expect(page.get_by_text("4 drawn by the base model")).to_be_visible(timeout=60_000)
    shoot(page, "app-prompt")


def _sketch(page: Page) -> None:
    """An empty pad is told; a stroke with the mouse, another undone, and the lines reach the model."""
    page.get_by_role("button", name="sketch", exact=True).click()
    expect(page.get_by_text("no stroke on it").first).to_be_visible(timeout=30_000)
    pad = page.locator("canvas").last
    stroke(page, pad, [(0.3, 0.2), (0.7, 0.2), (0.8, 0.5), (0.7, 0.8), (0.5, 0.95), (0.3, 0.8), (0.2, 0.5), (0.3, 0.2)])
    expect(page.get_by_text("What the model gets")).to_be_visible(timeout=30_000)
    stroke(page, pad, [(0.1, 0.1), (0.9, 0.9)])
    page.get_by_role("button", name="undo").click()
    page.get_by_role("button", name="generate").click()
    expect(page.get_by_text("edge F1")).to_be_visible(timeout=60_000)
    pad.scroll_into_view_if_needed()
    shoot(page, "app-sketch")


def _extremes(page: Page) -> None:
    """Every slider to both ends in haste, then a generation that is stopped in the middle; the kernel lives on."""
    for name in ("pictures", "guidance", "control", "strength", "steps"):
        handle = slider(page, name)
        handle.focus()
        for key in ("End", "Home", "End", "Home", "End"):
            page.keyboard.press(key)
    page.get_by_role("button", name="generate").click()
    page.get_by_role("button", name="stop").first.click()
    expect(page.get_by_text("Stopped after")).to_be_visible(timeout=60_000)
    slider(page, "steps").focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="generate").click()
    expect(page.get_by_text("8 drawn by the base model")).to_be_visible(timeout=60_000)

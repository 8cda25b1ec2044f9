"""What a hand does to the widgets, in JupyterLab and in Voila alike."""

import re
from collections.abc import Sequence

from playwright.sync_api import Locator, Page, expect

OVAL = ((0.3, 0.2), (0.7, 0.2), (0.8, 0.5), (0.7, 0.8), (0.5, 0.95), (0.3, 0.8), (0.2, 0.5), (0.3, 0.2))


def stroke(page: Page, pad: Locator, places: Sequence[tuple[float, float]]) -> None:
    """Drag the mouse through places of the pad, in shares of its side."""
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def slider(page: Page, name: str, *, last: bool = False) -> Locator:
    """The handle of the slider with that description."""
    found = page.locator(".widget-inline-hbox", has=page.locator(".widget-label", has_text=re.compile(f"^{name}$")))
    return (found.last if last else found.first).locator(".noUi-handle")


def explore(page: Page, *, last: bool = False) -> None:
    """Move the alpha explorer by keyboard, to its ends and fast, and wait for the kernel's reading each time.

    `last`: it stands below a panel that has a slider of the same name.
    """
    handle = slider(page, "alpha", last=last)
    handle.scroll_into_view_if_needed(timeout=60_000)
    handle.focus()
    caption = page.locator(".widget-html-content caption", has_text="indicator").first
    page.keyboard.press("Home")
    expect(caption).to_contain_text("alpha 0:", timeout=10_000)
    page.keyboard.press("ArrowRight")
    expect(caption).not_to_contain_text("alpha 0:", timeout=10_000)
    second = caption.inner_text()
    page.keyboard.press("End")
    expect(caption).not_to_have_text(second, timeout=10_000)
    largest = caption.inner_text()
    for key in ["ArrowLeft"] * 9 + ["ArrowRight"] * 9 + ["Home", "End", "Home", "ArrowRight"]:  # faster than anybody
        page.keyboard.press(key)
    expect(caption).to_have_text(second, timeout=10_000)
    page.keyboard.press("End")
    expect(caption).to_have_text(largest, timeout=10_000)

"""A browser, and what the tests share."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

HTML = ROOT / "notebooks/html"
PAGES = sorted(path.stem for path in HTML.glob("*.html"))
LIMIT = 10 * 60_000  # milliseconds for one step of a page: for one that hangs, not for a slow machine
SMALLEST = 50  # pixels, of a picture that shows something
ALL_DRAWN = """[...document.querySelectorAll('.interactive')]
    .every(figure => figure.querySelector('.live svg'))"""

# Without these Chromium asks its maker's hosts for updates and more.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    path = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if path is None:
        pytest.fail("no Chromium here: install one, or name it: CHROMIUM=/path/to/chrome make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


def open_page(browser, name, width, scheme, scripts=True):
    """The page, and what it should not have done: what it asked of the network, and what went wrong."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts)
    page = context.new_page()
    page.set_default_timeout(LIMIT)
    page.set_default_navigation_timeout(LIMIT)
    wrong = []
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(f"asked for {r.url}"))
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.goto((HTML / f"{name}.html").as_uri())
    if scripts:
        page.wait_for_function(ALL_DRAWN)
    return page, wrong


def pictures_shown(page):
    """The sizes of the pictures in a page, whose own scripts do not run."""
    boxes = [picture.bounding_box() for picture in page.locator("img, svg").all()]
    return [box for box in boxes if box and min(box["width"], box["height"]) > SMALLEST]

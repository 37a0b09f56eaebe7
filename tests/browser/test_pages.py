"""The exported report, opened from disk."""

import nbformat
import pytest
from conftest import ROOT

HTML = ROOT / "notebooks/html"
# Not of what is drawn within them, such as the tiles of a gallery.
SIZES_OF_PICTURES = """[...document.querySelectorAll('svg, img')].filter(picture => !picture.parentElement.closest('svg'))
    .map(picture => picture.getBoundingClientRect()).map(box => [box.width, box.height])"""
PAGES = sorted(path.stem for path in HTML.glob("*.html"))


def open_page(browser, name, width, scheme):
    """The page, and what it should not have done: what it asked of the network, and what went wrong."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong = []
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(f"asked for {r.url}"))
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.goto((HTML / f"{name}.html").as_uri())
    return page, wrong


def figures_promised(name):
    notebook = nbformat.read(HTML / f"{name}.ipynb", as_version=4)
    return sum("figure" in cell.metadata.get("tags", []) for cell in notebook.cells)


def test_there_is_a_report():
    assert "index" in PAGES and len(PAGES) > 1, "make report first"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_everything_and_asks_for_nothing(browser, name, width, scheme):
    page, wrong = open_page(browser, name, width, scheme)
    sizes = page.evaluate(SIZES_OF_PICTURES)
    assert sizes and all(width > 50 and height > 50 for width, height in sizes)
    if name == "index":
        links = page.locator(".reports h2 a").all()
        assert len(links) == len(PAGES) - 1
        assert [link.get_attribute("href") for link in links] == [f"{page}.html" for page in PAGES if page != "index"]
    else:
        shown = page.locator(".tag-figure").filter(has=page.locator("svg, img")).count()
        assert shown == figures_promised(name) > 0
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"the page is {overflow} px wider than the screen"
    assert wrong == []


def test_the_index_leads_to_a_report_and_back(browser):
    page, wrong = open_page(browser, "index", 1440, "light")
    page.locator(".reports h2 a").first.click()
    page.wait_for_url("**/Apartat_*.html")
    page.get_by_role("link", name="Tots els apartats").click()
    page.wait_for_url("**/index.html")
    assert wrong == []


def test_the_code_can_be_hidden(browser):
    page, _ = open_page(browser, next(name for name in PAGES if name != "index"), 1440, "light")
    code = page.locator(".code").first
    assert code.is_visible()
    page.get_by_label("Amaga el codi").check()
    assert not code.is_visible()

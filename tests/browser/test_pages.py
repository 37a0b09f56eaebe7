"""The exported report, opened from disk."""

import nbformat
import pytest
from conftest import ROOT
from playwright.sync_api import expect

HTML = ROOT / "notebooks/html"
LIMIT = 10 * 60_000  # milliseconds for one step of a page: for one that hangs, not for a slow machine
# Not of what is drawn within them, such as the tiles of a gallery.
SIZES_OF_PICTURES = """[...document.querySelectorAll('svg, img')]
    .filter(picture => !picture.parentElement.closest('svg, .interactive .still'))
    .map(picture => picture.getBoundingClientRect()).map(box => [box.width, box.height])"""
ALL_DRAWN = """[...document.querySelectorAll('.interactive')]
    .every(figure => figure.querySelector('.live svg'))"""
# Where the lines and the markers of a chart are, without its axes and legend.
MARKS = """figure => JSON.stringify(
    [...figure.querySelectorAll('.live svg .mark-line path, .live svg .mark-symbol.role-mark path')]
        .map(mark => [mark.getAttribute('d'), mark.getAttribute('transform')]))"""
OTHER_MARKS = f"""([figure, before]) => {{
    const marks = ({MARKS})(figure);
    return marks !== before && marks !== '[]';
}}"""
PAGES = sorted(path.stem for path in HTML.glob("*.html"))


def open_page(browser, name, width, scheme):
    """The page, and what it should not have done: what it asked of the network, and what went wrong."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(LIMIT)
    page.set_default_navigation_timeout(LIMIT)
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
    page.wait_for_function(ALL_DRAWN)
    sizes = page.evaluate(SIZES_OF_PICTURES)
    assert sizes and all(width > 50 and height > 50 for width, height in sizes)
    if name == "index":
        links = page.locator(".report h2 a").all()
        assert len(links) == len(PAGES) - 1
        assert [link.get_attribute("href") for link in links] == [f"{page}.html" for page in PAGES if page != "index"]
        for question in page.locator(".question").all():
            label = question.get_attribute("id")
            assert question.locator("svg, img, table").count(), label
            assert question.locator(".prose").count(), label
    else:
        shown = page.locator(".tag-figure").filter(has=page.locator("svg, img")).count()
        assert shown == figures_promised(name) > 0
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"the page is {overflow} px wider than the screen"
    assert wrong == []


def test_the_index_leads_to_a_report_and_back(browser):
    page, wrong = open_page(browser, "index", 1440, "light")
    page.locator(".report h2 a").first.click()
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


def test_the_reader_chooses_k_and_data_on_the_chart_of_recall_and_speed(browser):
    page, wrong = open_page(browser, "Apartat_D", 1440, "light")
    figure = page.locator(".interactive").first
    figure.locator(".live svg").wait_for()
    assert not figure.locator(".still").is_visible()
    controls = figure.locator("select").all()
    assert controls and figure.evaluate(MARKS) != "[]"
    for select in controls:
        options = [option.get_attribute("value") for option in select.locator("option").all()]
        assert len(options) > 1, select.evaluate("select => select.labels[0].innerText")
        before, chosen = figure.evaluate(MARKS), select.input_value()
        select.select_option(next(option for option in options if option != chosen))
        page.wait_for_function(OTHER_MARKS, arg=[figure.element_handle(), before])
    marker = figure.locator(".live svg .mark-symbol.role-mark path").first
    marker.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for()
    assert all(word in tooltip.inner_text() for word in ["índex", "paràmetres", "recall", "consultes/s"])
    assert wrong == []


def test_the_reader_tries_k_on_the_chart_of_accuracy(browser):
    page, wrong = open_page(browser, "Apartat_A", 390, "dark")
    figure = page.locator(".interactive").first
    figure.locator(".live svg").wait_for()
    said = figure.locator(".live svg .mark-text.role-mark")
    before = said.text_content()
    slider = figure.locator("input[type=range]")
    slider.fill("1" if slider.input_value() != "1" else "2")
    expect(said).not_to_have_text(before, timeout=LIMIT)
    assert f"k = {slider.input_value()}," in said.text_content()
    assert wrong == []


def test_without_scripts_the_still_charts_are_shown(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((HTML / "Apartat_D.html").as_uri())
    assert page.locator(".interactive .still").first.is_visible()

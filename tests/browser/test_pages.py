"""The exported report, opened from disk."""

import nbformat
import pytest
from conftest import HTML, LIMIT, PAGES, open_page
from playwright.sync_api import expect

# Not of what is drawn within them, such as the tiles of a gallery.
SIZES_OF_PICTURES = """[...document.querySelectorAll('svg, img')]
    .filter(picture => !picture.parentElement.closest('svg, .interactive .still'))
    .map(picture => picture.getBoundingClientRect()).map(box => [box.width, box.height])"""
# Where the lines and the markers of a chart are, without its axes and legend.
MARKS = """figure => JSON.stringify(
    [...figure.querySelectorAll('.live svg .mark-line path, .live svg .mark-symbol.role-mark path')]
        .map(mark => [mark.getAttribute('d'), mark.getAttribute('transform')]))"""
OTHER_MARKS = f"""([figure, before]) => {{
    const marks = ({MARKS})(figure);
    return marks !== before && marks !== '[]';
}}"""


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


NOTEBOOKS = [name for name in PAGES if name != "index"]


def test_the_code_is_the_readers_choice(browser):
    page, wrong = open_page(browser, NOTEBOOKS[0], 1440, "light")
    shown, hidden = page.locator("div.code").first, page.locator("details.code").first
    assert shown.is_visible() and hidden.is_visible()
    assert not hidden.locator("pre").is_visible(), "the code of a sentence is opened by who wants it"
    hidden.locator("summary").click()
    assert "prose(" in hidden.locator("pre").inner_text()
    page.get_by_label("Amaga el codi").check()
    assert not shown.is_visible() and not hidden.is_visible()
    assert wrong == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_is_nowhere_cut_off(browser, name, width):
    page, _ = open_page(browser, name, width, "light")
    for hidden in page.locator("details").all():
        hidden.evaluate("details => details.open = true")
    cut = "[...document.querySelectorAll('pre')].filter(pre => pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.innerText)"
    assert page.evaluate(cut) == []
    page.context.close()


def test_code_is_copied(browser):
    page, wrong = open_page(browser, NOTEBOOKS[0], 1440, "light")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = page.locator("div.code").first
    code.hover()
    code.get_by_role("button", name="Copia").click()
    expect(code.get_by_role("button")).to_have_text("Copiat")
    assert page.evaluate("navigator.clipboard.readText()").strip() == code.locator("pre").inner_text().strip()
    assert wrong == []


def test_on_a_phone_a_chart_is_as_wide_as_the_page_or_large(browser):
    page, _ = open_page(browser, NOTEBOOKS[-1], 390, "light")
    wider = """[...document.querySelectorAll('figure')].filter(figure => figure.scrollWidth > figure.clientWidth + 1)
        .map(figure => figure.outerHTML.slice(0, 200))"""
    assert page.evaluate(wider) == []
    figure = page.locator("figure.wide:not(.interactive)").first
    button = page.locator("figure.wide:not(.interactive) + button.enlarge").first
    button.click()
    assert figure.evaluate("figure => figure.scrollWidth > figure.clientWidth")
    button.click()
    assert page.evaluate(wider) == []


def test_the_reader_chooses_k_and_data_on_the_chart_of_recall_and_speed(browser):
    page, wrong = open_page(browser, "Apartat_D", 1440, "light")
    figure = page.locator(".interactive", has=page.locator("select")).filter(has_text="consultes/s").last
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


def test_a_point_of_the_map_shows_its_picture(browser):
    page, wrong = open_page(browser, "Apartat_D", 1440, "light")
    figure = page.locator(".interactive", has=page.locator("svg image")).first
    picture = figure.locator(".live svg image")
    shown = picture.get_attribute("href")
    assert shown.startswith("data:image/")
    figure.locator(".live svg .mark-symbol.role-mark path").nth(5_000).hover(force=True)
    expect(picture).not_to_have_attribute("href", shown, timeout=LIMIT)
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


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_every_figure_is_shown(browser, name):
    page, _ = open_page(browser, name, 1440, "light", scripts=False)
    figures = page.locator("figure.wide").all()
    assert figures
    for figure in figures:
        box = figure.locator("svg, img").first.bounding_box()
        assert box["width"] > 50 and box["height"] > 50, figure.inner_html()[:200]
    assert not page.locator("button").count()

"""Pages for everyone: what axe-core and html-validate find, what a screen reader is told, what a keyboard reaches."""

import json
import subprocess

import pytest
from conftest import HTML, PAGES, ROOT, open_page

TOOLS = ROOT / ".tools/npm/node_modules"
AXE = (TOOLS / "axe-core/axe.min.js").read_text(encoding="utf-8")
# Each violation, with the first places where it stands.
VIOLATIONS = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map(violation =>
    [violation.id, violation.nodes.length, violation.nodes.slice(0, 3).map(node => node.html.slice(0, 200))])"""
# The rules that html-validate recommends are its standard ones and some of style. Inline style is meant: SVG and tables have it.
RULES = {"root": True, "extends": ["html-validate:recommended"], "rules": {"no-inline-style": "off"}}
# Pictures that stand for themselves: not the tiles of a gallery, nor what a scripted chart draws (Vega says what that is).
NAMELESS = """[...document.querySelectorAll('main svg, main img')]
    .filter(picture => !picture.parentElement.closest('svg, .live'))
    .filter(picture => !picture.alt && !(picture.getAttribute('role') === 'img' && picture.querySelector(':scope > title')?.textContent.trim()))
    .map(picture => picture.outerHTML.slice(0, 200))"""
TABLES = """[...document.querySelectorAll('main .cell table, main .question .wide > table')]
    .filter(table => !table.caption?.innerText.trim() || [...table.tHead.rows[0].querySelectorAll('th')].some(head => head.scope !== 'col'))
    .map(table => table.outerHTML.slice(0, 200))"""
# What scrolls to the side must take the focus, or hold something that does.
UNREACHABLE = """[...document.querySelectorAll('body *')]
    .filter(element => element.scrollWidth > element.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(element).overflowX))
    .filter(element => element.tabIndex < 0 && !element.querySelector('a, button, input, select, [tabindex]'))
    .map(element => element.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser, name, width, scheme):
    page, _ = open_page(browser, name, width, scheme)
    for hidden in page.locator("details").all():
        hidden.evaluate("details => details.open = true")
    page.evaluate(AXE)
    assert page.evaluate(VIOLATIONS) == []
    assert page.evaluate(UNREACHABLE) == []
    page.context.close()


def test_html_validate_finds_nothing(tmp_path):
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    command = [TOOLS / ".bin/html-validate", "--config", tmp_path / "rules.json", *(HTML / f"{name}.html" for name in PAGES)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_is_told_what_is_there(browser, name):
    page, _ = open_page(browser, name, 1440, "light")
    assert page.evaluate(NAMELESS) == [], "a picture says what it shows"
    assert page.evaluate(TABLES) == [], "a table has a caption, and its heads say that they are heads of columns"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(heading => +heading.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:])), levels
    assert page.locator("html").get_attribute("lang") == "ca"
    if name != "index":
        english = page.locator("[lang=en]", has_text="English summary")
        assert english.count() == 1
    page.context.close()

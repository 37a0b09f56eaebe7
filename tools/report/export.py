"""An executed notebook as one HTML file that needs nothing but itself, and the page that reads as one report."""

import functools
import html
import json
import re
from pathlib import Path

import jinja2
import nbformat
import vl_convert
from latex2mathml.converter import convert as to_mathml
from mistune.plugins.table import render_table
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from .check import VEGA_LITE, text_of

TEMPLATES = Path(__file__).resolve().parent.parent / "template"
VEGA_LITE_VERSION = "6.4"


class Renderer(IPythonRenderer):
    """Formulas become MathML, which a browser draws by itself: MathJax would come from the network."""

    def inline_math(self, body: str) -> str:
        return to_mathml(body)

    def block_math(self, body: str) -> str:
        return formula(to_mathml(body, display="block"))

    def latex_environment(self, name: str, body: str) -> str:
        return formula(to_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block"))

    def table(self, text: str) -> str:
        return wide(render_table(self, text))


def formula(mathml: str) -> str:
    """A formula of its own line; on a narrow screen it scrolls, by the keyboard too."""
    return f'<div class="formula" tabindex="0">{mathml}</div>'


def wide(table: str) -> str:
    """A table, which scrolls on a narrow screen, by the keyboard too."""
    return f'<div class="wide" tabindex="0">{table}</div>'


def markdown(source: str) -> str:
    return MarkdownWithMath(Renderer(escape=False, exclude_anchor_links=True)).render(source)


def highlight_css() -> str:
    """Colours of the code, for light and for dark."""
    # Of Pygments' styles these are the ones whose every colour has a contrast of 4.5 with our paper.
    light = HtmlFormatter(style="xcode", nobackground=True).get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def css() -> str:
    return (TEMPLATES / "report.css").read_text(encoding="utf-8") + highlight_css()


def fragment(svg: str) -> str:
    """An SVG document as a part of an HTML page."""
    return re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL).strip()


def inside_script(text: str) -> str:
    """Text that may stand in a script element: nothing in it ends that."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", text, flags=re.IGNORECASE)


@functools.cache
def script(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, and what draws the charts of a page with them."""
    bundle = vl_convert.javascript_bundle(vl_version=VEGA_LITE_VERSION)
    return inside_script(bundle + "\n" + script("interactive.js"))


def finished(page: str) -> str:
    """The page with its scripts; Vega, which is large, only if it has a chart that needs it."""
    scripts = f"<script>{script('page.js')}</script>"
    if 'class="wide interactive"' in page:
        scripts += f"\n<script>{vega()}</script>"
    return page.replace("</body>", f"{scripts}\n</body>")


def drawing(output: NotebookNode) -> str:
    """A figure's HTML: the still form, over it the interactive one where there is one; nothing if the output is no SVG."""
    svg = text_of(output, "image/svg+xml")
    spec = output.get("data", {}).get(VEGA_LITE)
    if not svg:
        return ""
    if not spec:
        return f'<figure class="wide" tabindex="0">{fragment(svg)}</figure>'
    # JSON has no "<" but in strings, where it may be written so.
    data = json.dumps(spec, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<figure class="wide interactive" tabindex="0"><div class="still">{fragment(svg)}</div><div class="live"></div>'
        f'<script type="application/json">{data}</script></figure>'
    )


class Exporter(HTMLExporter):
    """nbconvert's, but for the pass through BeautifulSoup, which would write `<meta/>` and look for JupyterLab's classes."""

    def from_notebook_node(self, nb: NotebookNode, resources: dict | None = None, **options) -> tuple[str, dict]:
        lexer = nb.metadata.get("language_info", {}).get("pygments_lexer", "rust")
        self.register_filter("highlight_code", Highlight2HTML(pygments_lexer=lexer, parent=self))
        return TemplateExporter.from_notebook_node(self, nb, resources, **options)


def export(notebook: NotebookNode, name: str) -> str:
    """The notebook as an HTML page. `name` titles it where it has no heading."""
    seen = set()
    for cell in notebook.cells:
        answers = [tag for tag in cell.metadata.get("tags", []) if tag.startswith("answer-") and tag not in seen]
        seen.update(answers)
        cell.metadata["report_ids"] = answers
    exporter = Exporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={"report_markdown": markdown, "report_figure": drawing, "report_wide": wide},
    )
    page, _ = exporter.from_notebook_node(
        notebook,
        resources={"report": {"title": summary(notebook, name)["title"], "css": css()}},
    )
    return finished(page)


def summary(notebook: NotebookNode, name: str) -> dict:
    """What the page of the whole report says of a notebook: title, first paragraph, and its questions with their answers."""
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#\s+(.+)$", prose, re.MULTILINE)
    paragraphs = re.findall(r"<p>.*?</p>", markdown(prose), re.DOTALL)
    return {
        "title": plain(markdown(heading[1])) if heading else name,
        "paragraph": paragraphs[0] if paragraphs else "",
        "questions": questions(notebook, prose),
    }


def questions(notebook: NotebookNode, prose: str) -> list[dict[str, str]]:
    """The questions that the notebook asks ("- **A1.** …"), each with the outputs of the cells tagged `answer-A1`."""
    found = []
    for label, text in re.findall(r"^- \*\*([A-D]\d)\.\*\* (.+?)(?=\n\s*\n|\n- |\Z)", prose, re.MULTILINE | re.DOTALL):
        cells = [cell for cell in notebook.cells if f"answer-{label}" in cell.metadata.get("tags", [])]
        answer = "\n".join(filter(None, (shown(output) for cell in cells for output in cell.outputs)))
        found.append({"label": label, "text": re.sub(r"</?p>", "", markdown(text)).strip(), "answer": answer})
    return found


def shown(output: NotebookNode) -> str:
    """An output as a part of a page: a figure, prose or a table."""
    if figure := drawing(output):
        return figure
    if prose := text_of(output, "text/markdown"):
        return f'<div class="prose">{markdown(prose)}</div>'
    table = text_of(output, "text/html")
    return wide(table) if table else ""


def plain(fragment_of_html: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", fragment_of_html)).strip()


def index(executed: list[Path]) -> str:
    """The report as one page: `executed` are the executed notebooks, NAME.html lies beside each."""
    reports = [
        {"link": f"{path.stem}.html", **summary(nbformat.read(path, as_version=4), path.stem)} for path in executed
    ]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("index.html.j2").render(reports=reports, css=css())
    return finished(page)

"""An executed notebook as one HTML file that needs nothing but itself, and the page that lists them."""

import html
import re
from pathlib import Path

import jinja2
import nbformat
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from .check import text_of

TEMPLATES = Path(__file__).resolve().parent.parent / "template"


class Renderer(IPythonRenderer):
    """Formulas become MathML, which a browser draws by itself: MathJax would come from the network."""

    def inline_math(self, body: str) -> str:
        return to_mathml(body)

    def block_math(self, body: str) -> str:
        return to_mathml(body, display="block")

    def latex_environment(self, name: str, body: str) -> str:
        return to_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")


def markdown(source: str) -> str:
    return MarkdownWithMath(Renderer(escape=False, exclude_anchor_links=True)).render(source)


def highlight_css() -> str:
    """Colours of the code, for light and for dark."""
    light = HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def fragment(svg: str) -> str:
    """An SVG document as a part of an HTML page."""
    return re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL).strip()


def export(notebook: NotebookNode, name: str) -> str:
    """The notebook as an HTML page. `name` titles it where it has no heading."""
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={"report_markdown": markdown, "report_svg": fragment},
    )
    page, _ = exporter.from_notebook_node(
        notebook,
        resources={"report": {"title": summary(notebook, name)["title"], "css": css()}},
    )
    return page


def css() -> str:
    return (TEMPLATES / "report.css").read_text(encoding="utf-8") + highlight_css()


def summary(notebook: NotebookNode, name: str) -> dict[str, str]:
    """Title, first paragraph and first figure of a notebook, for the page that lists them."""
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#\s+(.+)$", prose, re.MULTILINE)
    paragraphs = re.findall(r"<p>.*?</p>", markdown(prose), re.DOTALL)
    return {
        "title": plain(markdown(heading[1])) if heading else name,
        "paragraph": paragraphs[0] if paragraphs else "",
        "figure": next(filter(None, map(figure, outputs_of(notebook))), ""),
    }


def plain(fragment_of_html: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", fragment_of_html)).strip()


def outputs_of(notebook: NotebookNode):
    return (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)


def figure(output: NotebookNode) -> str:
    if svg := text_of(output, "image/svg+xml"):
        return fragment(svg)
    found = re.search(r"<svg\b.*?</svg>|<img\b[^>]*>", text_of(output, "text/html"), re.DOTALL)
    if found:
        return found[0]
    for mime in ("image/png", "image/jpeg"):
        if data := text_of(output, mime):
            return f'<img src="data:{mime};base64,{html.escape(data)}" alt="">'
    return ""


def index(executed: list[Path]) -> str:
    """The page that lists the reports: `executed` are the executed notebooks, NAME.html lies beside each."""
    reports = [
        {"link": f"{path.stem}.html", **summary(nbformat.read(path, as_version=4), path.stem)} for path in executed
    ]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template("index.html.j2").render(reports=reports, css=css())

"""The executed notebooks as one HTML page that loads nothing."""

import base64
import hashlib
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from nbformat import NotebookNode
from PIL import Image, ImageDraw

from roadseg.analysis.tables import write_together
from roadseg.config.study import Study
from roadseg.errors import InputError
from roadseg.report.notebooks import CHAPTERS, read

HERE = Path(__file__).parent
HIDDEN = {"parameters", "injected-parameters", "setup"}  # tags of cells


@dataclass
class Part:
    """A chapter, with its sections of the appendix, or one of those."""

    title: str = ""
    cells: list[NotebookNode] = field(default_factory=list)
    appendix: list["Part"] = field(default_factory=list)
    html: str = ""

    @property
    def anchor(self) -> str:
        """What a link to it ends with; nbconvert gives a heading the same."""
        return self.title.replace(" ", "-")


def render(study: Study, executed: Path, target: Path) -> None:
    """Join a study's executed notebooks and write them as one HTML file that loads nothing.

    Parameters
    ----------
    study : its title becomes the page's
    executed : folder of the executed notebooks; the chapters go into `report` at its cell tagged
        `chapters`. A cell tagged `appendix` is the heading of a section that goes to the end of
        the page, folded; one tagged `margin` is a note beside the text
    target : the HTML file; the first picture of a cell tagged `picture-NAME` goes beside it, as
        NAME.png, the table of a cell tagged `table-NAME` as NAME.md

    Raises
    ------
    InputError : a notebook is missing, or has Markdown that cannot be shown
    """
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import InvalidNotebook
    from pygments.formatters import HtmlFormatter

    cells = []
    for cell in read(executed / "report.ipynb").cells:
        if "chapters" in _tags(cell):
            for name in CHAPTERS:
                cells += read(executed / f"{name}.ipynb").cells
        else:
            cells.append(cell)
    cells = [cell for cell in cells if not HIDDEN & {*_tags(cell)}]
    side_files = {target.with_name(name): content for name, content in _side_files(cells)}
    exporter = HTMLExporter(
        template_file=str(HERE / "cells.html.j2"), filters={"markdown2html": _markdown},
        exclude_input_prompt=True, exclude_output_prompt=True,
    )  # fmt: skip
    chapters = _chapters(cells)
    try:
        for part in (each for chapter in chapters for each in (chapter, *chapter.appendix)):
            notebook = NotebookNode(nbformat=4, nbformat_minor=5, metadata={}, cells=part.cells)
            part.html, _ = exporter.from_notebook_node(notebook)
    except InvalidNotebook as problem:
        raise InputError(f"{executed}: Markdown that cannot be shown ({problem}).") from None
    script = (HERE / "page.js").read_text()
    page = Environment(loader=FileSystemLoader(HERE), trim_blocks=True).get_template("page.html.j2")
    content = page.render(
        title=study.title,
        chapters=chapters,
        appendix=[chapter for chapter in chapters if chapter.appendix],
        style=(HERE / "page.css").read_text(),
        pygments=HtmlFormatter(style="friendly").get_style_defs(".highlight"),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_together({**side_files, target: content.encode()})


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _chapters(cells: list[NotebookNode]) -> list[Part]:
    """Return the chapters that level-1 headings begin; the first may have no heading."""
    chapters = [Part()]
    part = chapters[-1]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
        heading = cell.cell_type == "markdown" and cell.source.startswith(("# ", "## "))
        if heading:
            first, _, rest = cell.source.partition("\n")
            marks, _, title = first.partition(" ")
            if marks == "#":
                chapters.append(Part(title.strip()))
            part = chapters[-1]
            if "appendix" in _tags(cell):
                part = Part(title.strip())
                chapters[-1].appendix.append(part)
                cell.source = rest
        part.cells.append(cell)
    return [chapter for chapter in chapters if chapter.cells]


def _side_files(cells: list[NotebookNode]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files that tags of cells ask for.

    The pipeline waits for each: a picture that a study has not got says so.
    """
    for cell in cells:
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        for tag in _tags(cell):
            kind, _, name = tag.partition("-")
            if kind == "picture":
                pictures = [base64.b64decode(d["image/png"]) for d in outputs if "image/png" in d]
                yield f"{name}.png", next(iter(pictures), None) or _no_picture()
            if kind == "table" and (tables := [d for d in outputs if "text/markdown" in d]):
                yield f"{name}.md", (tables[0]["text/markdown"] + "\n").encode()


def _no_picture() -> bytes:
    picture, packed = Image.new("RGB", (360, 60), "white"), io.BytesIO()
    ImageDraw.Draw(picture).text((20, 20), "This study has no such figure.", "black")
    picture.save(packed, "PNG")
    return packed.getvalue()


def _markdown(source: str) -> str:
    """Return Markdown as HTML; what it has of HTML itself is shown, and not obeyed."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_html(self, text: str) -> str:
            return html.escape(text)

        def block_html(self, text: str) -> str:
            return f"<p>{html.escape(text)}</p>\n"

        def block_mermaidjs(self, code: str) -> str:  # a script's, which the page has not got
            return f"<pre>{html.escape(code)}</pre>\n"

    renderer = Renderer(escape=False, allow_harmful_protocols=False)
    return MarkdownWithMath(renderer=renderer).render(source)

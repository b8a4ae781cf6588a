"""The executed notebooks as one HTML page that loads nothing."""

import base64
import hashlib
import html
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image, ImageDraw

from roadseg.analysis.tables import write_together
from roadseg.config.study import Study
from roadseg.errors import InputError
from roadseg.report.notebooks import CHAPTERS, read

HERE = Path(__file__).parent
HIDDEN = {"parameters", "injected-parameters", "setup"}  # tags of cells


@dataclass(eq=False)
class Part:
    """A chapter, with its sections of the appendix, or one of those."""

    title: str = ""
    anchor: str = ""
    cells: list[NotebookNode] = field(default_factory=list)
    appendix: list["Part"] = field(default_factory=list)
    html: str = ""


class Anchors(Counter):
    """What links to headings end with; no two are the same."""

    def add(self, title: str) -> str:
        """Return the anchor of a heading: its words, joined by dashes."""
        anchor = re.sub(r"\W+", "-", title).strip("-") or "section"
        self[anchor] += 1
        return anchor if self[anchor] == 1 else self.add(f"{anchor}-{self[anchor]}")


def render(study: Study, executed: Path, target: Path) -> None:
    """Join a study's executed notebooks and write them as one HTML file that loads nothing.

    Parameters
    ----------
    study : its title becomes the page's
    executed : folder of the executed notebooks; the chapters go into `report` at its cell tagged
        `chapters`. One tagged `appendix` whose Markdown begins with `## ` begins a section that
        goes to the end of the page, folded; one tagged `margin` is a note beside the text, one
        tagged `front` has the page's title, abstract and, last, a line of small print
    target : the HTML file; the first picture of a cell tagged `picture-NAME` goes beside it, as
        NAME.png, the table of a cell tagged `table-NAME` as NAME.md

    Raises
    ------
    InputError : a notebook is missing, or has Markdown that cannot be shown
    """
    notebooks = [[]]
    for cell in read(executed / "report.ipynb").cells:
        if "chapters" in _tags(cell):
            notebooks += [read(executed / f"{name}.ipynb").cells for name in CHAPTERS] + [[]]
        else:
            notebooks[-1].append(cell)
    notebooks = [[cell for cell in cells if not HIDDEN & {*_tags(cell)}] for cells in notebooks]
    files = {target.with_name(name): data for name, data in _side_files(sum(notebooks, []))}
    anchors, numbers = Anchors(top=1, appendix=1), Counter()
    exporter = HTMLExporter(
        template_file=str(HERE / "cells.html.j2"), exclude_input_prompt=True,
        exclude_output_prompt=True, filters={"markdown2html": partial(_markdown, anchors=anchors)},
    )  # fmt: skip
    try:
        chapters = _chapters(notebooks, anchors)
        folded = [part for chapter in chapters for part in chapter.appendix]
        for part in (*chapters, *folded):
            notebook = NotebookNode(nbformat=4, nbformat_minor=4, metadata={}, cells=part.cells)
            content, _ = exporter.from_notebook_node(notebook)
            part.html = _numbered(content, "A" if part in folded else "", numbers, anchors)
    except InvalidNotebook as problem:
        raise InputError(f"{executed}: Markdown that cannot be shown ({problem}).") from None
    script = (HERE / "page.js").read_text()
    page = Environment(loader=FileSystemLoader(HERE), trim_blocks=True).get_template("page.html.j2")
    content = page.render(
        title=study.title, chapters=chapters, has_appendix=bool(folded),
        style=(HERE / "page.css").read_text(), script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    write_together({**files, target: content.encode()})


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _chapters(notebooks: list[list[NotebookNode]], anchors: Anchors) -> list[Part]:
    """Return the chapters that level-1 headings begin; the first may have no heading."""
    chapters = [Part()]
    for cells in notebooks:
        part = chapters[-1]
        for cell in cells:
            first, _, rest = cell.source.partition("\n")
            marks = first.partition(" ")[0] if cell.cell_type == "markdown" else ""
            folded = marks == "##" and "appendix" in _tags(cell)
            if folded or (marks == "#" and "front" not in _tags(cell)):
                title = _plain(_markdown(first))
                part = Part(title, anchors.add(title))
                (chapters[-1].appendix if folded else chapters).append(part)
                cell.source = rest
            elif marks == "##":
                part = chapters[-1]
            if cell.source.strip():
                part.cells.append(cell)
    return chapters if chapters[0].cells or chapters[0].appendix else chapters[1:]


def _numbered(content: str, letter: str, numbers: Counter, anchors: Anchors) -> str:
    """Return HTML whose figures and tables with captions have numbers, which can be linked to."""
    # a style sheet could count them too, but would begin anew in each part that is folded
    first, *figures = re.split(r'(?=<figure class="(?:chart|photo|table)\b)', content)
    for place, figure in enumerate(figures):
        if "<figcaption><b>" in figure:
            kind = "Table" if figure.startswith('<figure class="table') else "Figure"
            numbers[kind, letter] += 1
            label = f"{kind} {letter}{numbers[kind, letter]}"
            anchor = anchors.add(label)
            link = f'<figcaption><a class="label" href="#{anchor}">{label}</a> <b>'
            figure = figure.replace("<figure", f'<figure id="{anchor}"', 1)
            figures[place] = figure.replace("<figcaption><b>", link, 1)
    return "".join((first, *figures))


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


class _Renderer(IPythonRenderer):
    """Markdown as HTML, whose headings can be linked to; HTML in it is shown, and not obeyed."""

    def __init__(self, anchors: Anchors):
        super().__init__(escape=False, allow_harmful_protocols=False)
        self.anchors = anchors

    def heading(self, text: str, level: int, **_) -> str:
        anchor = self.anchors.add(_plain(text))
        link = f'<a class="anchor-link" href="#{anchor}" aria-label="link to this"></a>'
        return f'<h{level} id="{anchor}">{text}{link}</h{level}>\n'

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>{text}</table></div>\n'

    def inline_html(self, text: str) -> str:
        return html.escape(text)

    def block_html(self, text: str) -> str:
        return f"<p>{html.escape(text)}</p>\n"

    def block_mermaidjs(self, code: str) -> str:
        return f"<pre>{html.escape(code)}</pre>\n"  # its script is not in the page


def _markdown(source: str, anchors: Anchors | None = None) -> str:
    """Return Markdown as HTML; what it has of HTML itself is shown, and not obeyed."""
    renderer = _Renderer(Anchors() if anchors is None else anchors)
    return MarkdownWithMath(renderer=renderer).render(source)


def _plain(content: str) -> str:
    """Return the text of HTML."""
    return html.unescape(re.sub("<[^>]*>", "", content)).strip()

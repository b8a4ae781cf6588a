"""The executed notebooks as one HTML page that loads nothing."""

import base64
import hashlib
import html
import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from nbformat import NotebookNode
from PIL import Image, ImageDraw

from roadseg.analysis.tables import write_together
from roadseg.config.study import Study
from roadseg.errors import InputError
from roadseg.report.notebooks import CHAPTERS, read

# So many colours at most, of so many pixels at least, stay exact.
MAX_FLAT_COLOURS, MIN_FLAT_PIXELS = 128, 150


def render(study: Study, executed: Path, target: Path) -> None:
    """Join a study's executed notebooks and write them as one HTML file that loads nothing.

    Parameters
    ----------
    study : its title becomes the page's
    executed : folder of the executed notebooks; the chapters go into `report` at its cell tagged
        `chapters`
    target : the HTML file; the first picture of a cell tagged `picture-NAME` goes beside it, as
        NAME.png, the table of a cell tagged `table-NAME` as NAME.md

    Raises
    ------
    InputError : a notebook is missing, or has Markdown that cannot be shown
    """
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import InvalidNotebook
    from pygments.formatters import HtmlFormatter

    report = read(executed / "report.ipynb")
    cells = []
    for cell in report.cells:
        if "chapters" in cell.metadata.get("tags", []):
            for name in CHAPTERS:
                cells += read(executed / f"{name}.ipynb").cells
        else:
            cells.append(cell)
    hidden = {"parameters", "injected-parameters", "setup"}
    report.cells = [cell for cell in cells if not hidden & set(cell.metadata.get("tags", []))]
    pictures = []
    for number, cell in enumerate(report.cells):
        cell.id = f"cell-{number}"
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures += [data for data in shown if "image/png" in data]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        packed = pool.map(compress_png, [data["image/png"] for data in pictures], chunksize=4)
        for data, png in zip(pictures, packed, strict=True):
            data["image/png"] = png
    exporter = HTMLExporter(
        template_file=str(Path(__file__).with_name("page.html.j2")), exclude_input_prompt=True,
        exclude_output_prompt=True, filters={"markdown2html": _markdown},
    )  # fmt: skip
    script = Path(__file__).with_name("page.js").read_text()
    resources = {
        "title": study.title,
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "sections": list(_headings(report.cells)),
        "pygments": HtmlFormatter(style="friendly").get_style_defs(".highlight"),
    }
    side_files = {target.with_name(name): content for name, content in _side_files(report.cells)}
    try:
        page, _ = exporter.from_notebook_node(report, resources)
    except InvalidNotebook as problem:
        raise InputError(f"{executed}: Markdown that cannot be shown ({problem}).") from None
    write_together({**side_files, target: page.encode()})


def _side_files(cells: list[NotebookNode]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files that tags of cells ask for.

    The pipeline waits for each: a picture that a study has not got says so.
    """
    for cell in cells:
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        for tag in cell.metadata.get("tags", []):
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


def compress_png(png: str) -> str:
    """Return a picture with at most 256 colours, a third of the size and hardly another sight.

    Colours of larger areas, as those of classes and of lines, stay exactly what they are.

    Parameters
    ----------
    png : a PNG file, as base64 text
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    counts, colours = zip(*picture.getcolors(picture.width * picture.height), strict=True)
    counts, colours = np.array(counts), np.array(colours, np.uint8)
    order = np.argsort(-counts, kind="stable")
    flat = order[:MAX_FLAT_COLOURS]
    flat = flat[counts[flat] >= MIN_FLAT_PIXELS]  # in no palette of the others
    rest = np.setdiff1d(order, flat)
    places = np.zeros(1 << 24, np.uint8)  # of each colour, in the palette
    places[_packed_colours(colours[flat])] = np.arange(len(flat))
    palette = colours[flat].ravel().tolist()
    if len(rest):
        # The palette is made for the colours and not for the pixels, of which there are a hundred
        # times as many; less than proportional to them, so that small areas keep their colour.
        repeats = np.ceil(np.power(counts[rest], 0.7)).astype(int)
        quantised = Image.fromarray(np.repeat(colours[rest], repeats, axis=0)[None]).quantize(
            256 - len(flat), Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
        )
        chosen = np.asarray(quantised)[0, np.cumsum(repeats) - 1]
        places[_packed_colours(colours[rest])] = len(flat) + chosen
        palette += quantised.getpalette()[: 3 * (256 - len(flat))]
    shown = Image.fromarray(places[_packed_colours(np.asarray(picture))])
    shown.putpalette(palette)
    packed = io.BytesIO()
    shown.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def _packed_colours(colours: np.ndarray) -> np.ndarray:
    """Return colours uint8 (..., 3) as one number each, below 2^24."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _headings(cells: list[NotebookNode]) -> Iterator[tuple[int, str, str]]:
    """Yield (level, text, anchor) of each heading in the Markdown cells, as nbconvert names it."""
    for cell in cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith(("# ", "## ")):
                    marks, _, text = line.partition(" ")
                    yield len(marks), text.strip(), text.strip().replace(" ", "-")

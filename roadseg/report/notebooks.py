"""Running notebooks safely, and rendering the executed ones as one HTML report."""

import base64
import contextlib
import hashlib
import html
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# jsonschema would build a grammar of internationalised addresses, which takes two seconds each time
# and which notebooks do not need; it goes on without.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat  # noqa: E402
import numpy as np  # noqa: E402
from jupyter_client.manager import KernelManager  # noqa: E402
from nbformat import NotebookNode  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

from roadseg.config.study import ROOT, Plan  # noqa: E402
from roadseg.errors import InputError, nearest  # noqa: E402

SILENT = 120  # seconds; papermill would wait for four, which a busy machine may need
FLAT, FLAT_PIXELS = 128, 150  # so many colours at most, of so many pixels at least, stay exact
CHAPTERS = ("1_data", "2_baseline", "3_fcn", "4_tricks", "5_networks", "6_failures")


def strip(source: Path, target: Path) -> None:
    """Write a copy of a notebook without outputs, so that saving one in JupyterLab is no change."""
    notebook = _read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", {})}
    _write(notebook, target)


def execute(source: Path, target: Path, parameters: dict, *, echo: bool = False) -> None:
    """Execute a notebook with papermill, and write it when it has come to its end.

    Parameters
    ----------
    source : notebook with exactly one cell tagged `parameters`
    target : written without times and random ids, so equal results give equal bytes
    parameters : name -> value; each name must occur in the tagged cell
    echo : whether what the notebook prints is printed here as well, line by line

    Raises
    ------
    InputError : the notebook does not take these parameters, or a cell failed; the notebook as
        far as it came is kept beside `target` and named
    KeyboardInterrupt : Ctrl-C, when the cell that runs has saved what it has
    """
    # papermill only warns where this or a parameter is wrong, and goes on with the defaults.
    notebook = _read(source)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(
            f"{source}: has {len(tagged)} cells tagged 'parameters'; it needs exactly one."
        )
    os.environ["PYTHONWARNINGS"] = "ignore"  # the kernel's: a report is no place for them
    # newer kernels complain about a local connection in plain text
    kernel = KernelManager(
        kernel_name="python3", transport_encryption="auto",
        client_class="jupyter_client.asynchronous.AsyncKernelClient",  # one that sees it die
    )  # fmt: skip
    # It comes up while papermill is imported, and leaves its user's history alone.
    kernel.start_kernel(cwd=str(ROOT), extra_arguments=["--HistoryManager.hist_file=:memory:"])
    try:
        with _passed_on(kernel):
            _execute(source, target, parameters, kernel, echo)
    except TimeoutError:  # an OSError too
        raise InputError(
            f"{source.name}: for {SILENT} s nothing was heard of what a cell put out, as on a "
            "machine that is too busy. Call again when it is less so."
        ) from None
    except OSError as problem:
        raise InputError(
            f"{target.parent}: cannot be written ({problem.strerror or problem}). Make room, or "
            "let it be written there, and call again."
        ) from None
    finally:
        # Killed: a kernel that is asked to leave takes two seconds for it.
        kernel.shutdown_kernel(now=True)


def leave_out(source: Path, target: Path, why: str) -> None:
    """Write a notebook's heading and, in place of the rest, why it is left out (Markdown)."""
    notebook = _read(source)
    heading = notebook.cells[0]
    heading.source = heading.source.splitlines()[0]
    heading.metadata, heading.id = {"tags": []}, "cell-0"
    reason = nbformat.v4.new_markdown_cell(why, id="cell-1")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    reason.metadata = {"tags": [tag for tag in tags if tag.startswith("picture-")]}
    notebook.cells = [heading, reason]
    _write(notebook, target)


@contextlib.contextmanager
def _passed_on(kernel: KernelManager):
    """Let Ctrl-C interrupt the kernel, which lives in a process group of its own, and wait for it.

    Only the main thread can do that; in another one the caller ends the process, and the kernel
    notices.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []

    def interrupt(*_) -> None:
        pressed.append(1)
        if len(pressed) > 1:  # no more patience
            raise KeyboardInterrupt
        print("stopping when the state is saved; once more: at once", file=sys.stderr)
        os.killpg(kernel.provisioner.pgid, signal.SIGINT)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _execute(
    source: Path, target: Path, parameters: dict, kernel: KernelManager, echo: bool
) -> None:
    """Execute a notebook in a running kernel."""
    import papermill

    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise InputError(f"{source}: takes no parameter {name!r}.{nearest(name, known)}")

    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                str(source), str(failed), parameters,
                kernel_name="python3", km=kernel, progress_bar=False, iopub_timeout=SILENT,
                stdout_file=sys.stdout if echo else None,
            )  # fmt: skip
    except PapermillExecutionError as problem:
        if problem.ename == "KeyboardInterrupt":
            failed.unlink()
            raise KeyboardInterrupt from None
        cause = (
            problem.evalue
            if problem.ename == "InputError"
            else (f"{problem.ename}: {problem.evalue}")
        )
        raise InputError(
            f"{source.name}, cell {problem.exec_count}: {cause}\n"
            f"The notebook as far as it came: {failed}"
        ) from None
    except DeadKernelError:
        raise InputError(
            f"{source.name}: its kernel died, most often for want of memory (lower batch_size or "
            f"data: size) or in a library's crash.\nThe notebook as far as it came: {failed}"
        ) from None
    notebook = _read(failed)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("metadata", {}).pop("execution", None)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    _write(notebook, target)
    failed.unlink()


def render(plan: Plan, executed: Path, target: Path) -> None:
    """Join a study's executed notebooks and write them as one HTML file that loads nothing.

    Parameters
    ----------
    plan : the study; its title becomes the page's
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

    from roadseg.analysis.tables import (
        write_together,  # and pandas, which training does not wait for
    )

    report = _read(executed / "report.ipynb")
    cells = []
    for cell in report.cells:
        if "chapters" in cell.metadata.get("tags", []):
            for name in CHAPTERS:
                cells += _read(executed / f"{name}.ipynb").cells
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
        packed = pool.map(smaller, [data["image/png"] for data in pictures], chunksize=4)
        for data, png in zip(pictures, packed, strict=True):
            data["image/png"] = png
    exporter = HTMLExporter(
        template_file=str(Path(__file__).with_name("page.html.j2")), exclude_input_prompt=True,
        exclude_output_prompt=True, filters={"markdown2html": _markdown},
    )  # fmt: skip
    script = Path(__file__).with_name("page.js").read_text()
    resources = {
        "title": plan.title,
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "sections": list(_headings(report.cells)),
        "pygments": HtmlFormatter(style="friendly").get_style_defs(".highlight"),
    }
    beside = {target.with_name(name): content for name, content in _beside(report.cells)}
    try:
        page, _ = exporter.from_notebook_node(report, resources)
    except InvalidNotebook as problem:
        raise InputError(f"{executed}: Markdown that cannot be shown ({problem}).") from None
    write_together({**beside, target: page.encode()})


def _beside(cells: list[NotebookNode]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files that tags of cells ask for.

    The pipeline waits for each: a picture that a study has not got says so.
    """
    for cell in cells:
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        for tag in cell.metadata.get("tags", []):
            kind, _, name = tag.partition("-")
            if kind == "picture":
                drawn = [base64.b64decode(d["image/png"]) for d in shown if "image/png" in d]
                yield f"{name}.png", next(iter(drawn), None) or _no_picture()
            if kind == "table" and (told := [d for d in shown if "text/markdown" in d]):
                yield f"{name}.md", (told[0]["text/markdown"] + "\n").encode()


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


def smaller(png: str) -> str:
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
    flat = order[:FLAT][counts[order[:FLAT]] >= FLAT_PIXELS]  # in no palette of the others
    rest = np.setdiff1d(order, flat)
    places = np.zeros(1 << 24, np.uint8)  # of each colour, in the palette
    places[_packed(colours[flat])] = np.arange(len(flat))
    palette = colours[flat].ravel().tolist()
    if len(rest):
        # The palette is made for the colours and not for the pixels, of which there are a hundred
        # times as many; less than proportional to them, so that small areas keep their colour.
        often = np.ceil(np.power(counts[rest], 0.7)).astype(int)
        few = Image.fromarray(np.repeat(colours[rest], often, axis=0)[None]).quantize(
            256 - len(flat), Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
        )
        chosen = np.asarray(few)[0, np.cumsum(often) - 1]
        places[_packed(colours[rest])] = len(flat) + chosen
        palette += few.getpalette()[: 3 * (256 - len(flat))]
    shown = Image.fromarray(places[_packed(np.asarray(picture))])
    shown.putpalette(palette)
    packed = io.BytesIO()
    shown.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def _packed(colours: np.ndarray) -> np.ndarray:
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


def _read(file: Path) -> NotebookNode:
    try:
        return nbformat.read(file, as_version=4)
    except FileNotFoundError:
        raise InputError(f"{file}: no such notebook.") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as problem:
        raise InputError(f"{file}: not a notebook ({problem}).") from None


def _write(notebook: NotebookNode, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    nbformat.write(notebook, partial)
    partial.replace(target)

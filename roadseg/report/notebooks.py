"""Running notebooks safely, with papermill."""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from jupyter_client.manager import KernelManager

from roadseg.config import paths
from roadseg.errors import InputError, nearest

if TYPE_CHECKING:  # nbformat takes two seconds to import, in which a kernel can start
    from nbformat import NotebookNode

REPEAT_SECONDS = 2  # from one interrupt to the next
SILENCE_TIMEOUT = 120  # seconds; papermill would wait for four, which a busy machine may need
CHAPTERS = ("1_data", "2_baseline", "3_fcn", "4_tricks", "5_networks", "6_failures")


def strip(source: Path) -> "NotebookNode":
    """Return a notebook without outputs, so that saving one in JupyterLab is no change."""
    notebook = read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", {})}
    return notebook


def execute(
    source: Path,
    target: Path,
    parameters: dict,
    *,
    echo: bool = False,
    kernels: list[KernelManager] | None = None,
) -> None:
    """Execute a notebook with papermill, and write it when it has come to its end.

    Parameters
    ----------
    source : notebook with exactly one cell tagged `parameters`; its outputs are left out
    target : written without times and random ids, so equal results give equal bytes
    parameters : name -> value; each name must occur in the tagged cell
    echo : whether what the notebook prints is printed here as well, line by line
    kernels : receives the notebook's kernel once it is started. Who runs several notebooks in
        threads can end one by `kill_kernel`; here that is an InputError

    Raises
    ------
    InputError : the notebook does not take these parameters, or a cell failed; the notebook as
        far as it came is kept beside `target` and named
    KeyboardInterrupt : Ctrl-C, when the cell that runs has saved what it has
    """
    os.environ["PYTHONWARNINGS"] = "ignore"  # the kernel's: a report is no place for them
    # newer kernels complain about a local connection in plain text
    kernel = KernelManager(
        kernel_name="python3", transport_encryption="auto",
        client_class="jupyter_client.asynchronous.AsyncKernelClient",  # one that sees it die
    )  # fmt: skip
    python_path = [str(paths.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    running = []  # cells
    try:
        with _forwarded_interrupts(kernel, running):
            # It starts while papermill is imported, and leaves its user's history alone.
            kernel.start_kernel(
                cwd=str(paths.ROOT), extra_arguments=["--HistoryManager.hist_file=:memory:"],
                # in a copy of the project the copy's own code, whatever the environment names first
                env=os.environ | {"PYTHONPATH": os.pathsep.join(python_path)},
            )  # fmt: skip
            if kernels is not None:
                kernels.append(kernel)
            _execute(source, target, parameters, kernel, echo, running)
    except TimeoutError:  # an OSError too
        raise InputError(
            f"{source.name}: for {SILENCE_TIMEOUT} s nothing was heard of what a cell put out, as "
            "on a machine that is too busy. Call again when it is less so."
        ) from None
    except OSError as problem:
        raise InputError(
            f"{target.parent}: cannot be written ({problem.strerror or problem}). Free disk "
            "space, or fix the permissions, and run it again."
        ) from None
    finally:
        # Killed: a kernel that is asked to leave takes two seconds for it.
        if kernel.has_kernel:
            kernel.shutdown_kernel(now=True)


def kill_kernel(kernel: KernelManager) -> None:
    """Kill a kernel; who executes a notebook in it, in another thread, hears of that."""
    process = getattr(kernel.provisioner, "process", None)
    if process is not None and process.poll() is None:
        process.kill()


def write_placeholder(source: Path, target: Path, why: str) -> None:
    """Write a notebook's heading and, in place of the rest, why it is left out (Markdown)."""
    from nbformat.v4 import new_markdown_cell

    notebook = strip(source)
    heading = notebook.cells[0]
    heading.source = heading.source.splitlines()[0]
    heading.metadata = {"tags": []}
    reason = new_markdown_cell(why, id="cell-1")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    reason.metadata = {"tags": [tag for tag in tags if tag.startswith("picture-")]}
    notebook.cells = [heading, reason]
    _write(notebook, target)


@contextlib.contextmanager
def _forwarded_interrupts(kernel: KernelManager, running: list):
    """Let Ctrl-C interrupt the kernel, which lives in a process group of its own, and wait for it.

    A kernel hears it within a cell only, and a library that is being imported may swallow it: it is
    repeated until the cell ends. While no cell is `running`, this ends at once.

    Only the main thread can do that; in another one the caller ends the process, and the kernel
    notices.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    presses = []

    def interrupt(*_) -> None:
        presses.append(1)
        if len(presses) > 1 or not running:  # no more patience, or nothing to wait for
            raise KeyboardInterrupt
        print("stopping when the state is saved; once more: at once", file=sys.stderr)
        os.killpg(kernel.provisioner.pgid, signal.SIGINT)
        threading.Thread(target=repeat, daemon=True).start()

    def repeat() -> None:
        process = kernel.provisioner.process
        while running:
            time.sleep(REPEAT_SECONDS)
            process.send_signal(signal.SIGINT)  # nothing, once it has ended

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        running.clear()
        signal.signal(signal.SIGINT, before)


def _execute(
    source: Path,
    target: Path,
    parameters: dict,
    kernel: KernelManager,
    echo: bool,
    running: list,
) -> None:
    """Execute a notebook in a running kernel; `running` has the cell."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # papermill only warns where this or a parameter is wrong, and goes on with the defaults.
    stripped = strip(source)
    tagged = [cell for cell in stripped.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(
            f"{source}: has {len(tagged)} cells tagged 'parameters'; it needs exactly one."
        )
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise InputError(f"{source}: takes no parameter {name!r}.{nearest(name, known)}")
    failed = target.with_suffix(".failed.ipynb")
    # Of this process: another one may execute it as well.
    working_copy = target.with_suffix(f".{os.getpid()}.ipynb")
    for leftover in target.parent.glob(f"{target.stem}.*.ipynb"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)
    _write(stripped, working_copy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                str(working_copy), str(working_copy), parameters,
                kernel_name="python3", km=kernel, progress_bar=False, iopub_timeout=SILENCE_TIMEOUT,
                stdout_file=sys.stdout if echo else None,
                on_cell_execute=lambda **_: running.append(1),
                on_cell_executed=lambda **_: running.clear(),
            )  # fmt: skip
    except PapermillExecutionError as problem:
        if problem.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        working_copy.replace(failed)
        cause = (
            problem.evalue
            if problem.ename == "InputError"
            else (f"{problem.ename}: {problem.evalue}")
        )
        raise InputError(
            f"{source.name}, cell {problem.exec_count}: {cause}\n"
            f"The notebook as far as it came: {failed}"
        ) from None
    except RuntimeError:  # of a kernel that has died or does not answer
        working_copy.replace(failed)
        raise InputError(
            f"{source.name}: its kernel died, most often for want of memory (lower batch_size or "
            f"data: size) or in a library's crash.\nThe notebook as far as it came: {failed}"
        ) from None
    else:
        notebook = read(working_copy)
        failed.unlink(missing_ok=True)
    finally:
        working_copy.unlink(missing_ok=True)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("metadata", {}).pop("execution", None)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    _write(notebook, target)


def read(file: Path) -> "NotebookNode":
    """Return a notebook; the InputError of one that cannot be read names it."""
    import nbformat

    try:
        return nbformat.read(file, as_version=4)
    except FileNotFoundError:
        raise InputError(f"{file}: no such notebook.") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as problem:
        raise InputError(f"{file}: not a notebook ({problem}).") from None


def _write(notebook: "NotebookNode", target: Path) -> None:
    import nbformat

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        nbformat.write(notebook, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)

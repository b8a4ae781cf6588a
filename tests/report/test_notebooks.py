"""Notebooks are stripped, executed, left out and stopped."""

import signal
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from roadseg.errors import InputError
from roadseg.report import notebooks


def write_notebook(file, *cells):
    """Write a notebook of code cells, saved with an output of each; the first has the parameters."""
    made = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                source, execution_count=7, outputs=[nbformat.v4.new_output("stream", text="an old output")]
            )
            for source in cells
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "p", "language": "python"},
            "language_info": {"name": "python", "version": "3.1"},
        },
    )
    made.cells[0].metadata = {"tags": ["parameters"], "collapsed": True}
    nbformat.write(made, file)


def test_stripped_it_is_the_same_however_it_was_saved(tmp_path):
    source = tmp_path / "a.ipynb"
    write_notebook(source, "steps = 1", "print(steps)")
    before = source.read_bytes()
    stripped = notebooks.strip(source)
    assert source.read_bytes() == before
    assert [cell.source for cell in stripped.cells] == ["steps = 1", "print(steps)"]
    assert [cell.id for cell in stripped.cells] == ["cell-0", "cell-1"]
    assert all(not cell.outputs and cell.execution_count is None for cell in stripped.cells)
    assert stripped.cells[0].metadata == {"tags": ["parameters"]} and stripped.cells[1].metadata == {}
    assert list(stripped.metadata) == ["kernelspec"]
    write_notebook(source, "steps = 1", "print(steps)")  # cells get other random ids
    assert source.read_bytes() != before and notebooks.strip(source) == stripped


def test_it_is_executed_from_where_it_lies_without_what_was_saved_in_it(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "print(10 // steps)")
    before = source.read_bytes()
    notebooks.execute(source, target, {"steps": 2})
    executed = target.read_text()
    assert '"5\\n"' in executed and "an old output" not in executed
    assert source.read_bytes() == before and list(target.parent.iterdir()) == [target]


def test_control_c_reaches_the_cell_that_runs_and_waits_for_it(tmp_path):
    source = tmp_path / "a.ipynb"
    saves = (
        "import pathlib, time\n"
        "try:\n    pathlib.Path(folder, 'begun').touch()\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    pathlib.Path(folder, 'saved').touch()\n    raise"
    )
    write_notebook(source, "folder = ''", "1", saves)
    code = (
        "import sys; from pathlib import Path; from roadseg.report.notebooks import execute;"
        "execute(Path(sys.argv[1]), Path(sys.argv[2]), {'folder': sys.argv[3]})"
    )
    command = [sys.executable, "-c", code, source, tmp_path / "out.ipynb", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (tmp_path / "saved").exists() and "stopping when the state is saved" in errors
    assert "KeyboardInterrupt" in errors and not (tmp_path / "out.ipynb").exists()


def test_what_is_left_out_keeps_its_heading_and_says_why(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# Tricks\n\nMany."), nbformat.v4.new_code_cell("1 / 0")]
    cells[1].metadata["tags"] = ["picture-ladder", "setup"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    notebooks.write_placeholder(source, target, "None was tried.")
    heading, reason = nbformat.read(target, as_version=4).cells
    assert (heading.source, reason.source) == ("# Tricks", "None was tried.")
    assert reason.metadata["tags"] == ["picture-ladder"]


def test_who_runs_it_in_a_thread_can_stop_it(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    begun = tmp_path / "begun"
    write_notebook(source, "steps = 1", f"open({str(begun)!r}, 'w').close()", "import time; time.sleep(300)")
    kernels, raised = [], []

    def run():
        with pytest.raises(InputError, match="its kernel died") as caught:
            notebooks.execute(source, target, {}, kernels=kernels)
        raised.append(caught)

    thread = threading.Thread(target=run)
    thread.start()
    patience = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    (kernel,) = kernels
    kernel.shutdown_kernel(now=True)
    thread.join(60)
    assert raised and not thread.is_alive() and not target.exists()

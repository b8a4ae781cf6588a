"""Pages of prose, with sections that benchmarks write: docs/performance.md and others."""

import datetime
from pathlib import Path

import pandas as pd
import torch

from roadseg.training.device import default_device, device_name, precision_on

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"


def conditions() -> str:
    """Return in one line what figures of this run hold for."""
    device = default_device()
    return (
        f"{device_name(device)}, {precision_on(device)} by default, torch {torch.__version__}, "
        f"{datetime.date.today().isoformat()}."
    )


def section(name: str, text: str, file: Path | None = None) -> None:
    """Put text between a page's marks of this name, and print it."""
    file = file or PAGE
    page = file.read_text()
    begin, end = f"<!-- {name}: written by a benchmark -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not end_mark:
        raise SystemExit(f"{file}: has no section {name!r}; it needs the lines\n{begin}{end}")
    partial = file.with_suffix(".partial")
    partial.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")
    partial.replace(file)
    print(f"\n{text.strip()}\n")


def table(rows: list[dict]) -> str:
    """Return rows as a Markdown table."""
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)

"""Tables as HTML and as Markdown."""

import re

import numpy as np
import pandas as pd

from roadseg.report import findings
from roadseg.report.tables import Table

FRAME = pd.DataFrame({
    "network": ["a <b>", "c"], "mIoU %": [12.34, 45.6], "change": [-0.04, np.nan],
    "95 % CI": ["1 to 2", "none"], "verdict": ["helps", "no effect found"], "ms": [1234.4, 0.0123],
})  # fmt: skip


def table(**settings):
    formats = {"mIoU %": ".1f", "change": "+.1f", "ms": "3g", "elsewhere": ".2f"}
    return Table(FRAME, formats, best=["mIoU %"], bars=["mIoU %"], right=["95 % CI"], **settings)


def test_numbers_stand_at_the_right_and_the_best_is_bold():
    html = table().html()
    first, second = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    assert re.findall(r'<td class="number"[^>]*>(.*?)</td>', first) == ["12.3", "0.0", "1 to 2", "1,234"]
    assert re.findall(r'<td class="number"[^>]*>(.*?)</td>', second) == ["<b>45.6</b>", "", "none", "0.0123"]
    assert "a &lt;b&gt;" in first and "--share: 27%" in first and "--share: 100%" in second
    assert '<th scope="col" class="number">mIoU %</th>' in html and '<th scope="col">network</th>' in html


def test_verdicts_have_a_dot_of_their_kind():
    html = table().html()
    assert '<span class="verdict helps">helps</span>' in html
    assert '<span class="verdict none">no effect found</span>' in html


def test_a_lone_row_is_not_the_best():
    assert "<b>" not in Table(FRAME.head(1), {"mIoU %": ".1f"}, best=["mIoU %"]).html()


def test_it_comes_as_html_with_its_caption_and_as_markdown():
    shown = table(wide=True).titled("All <of> them.", "Each & every.")._repr_mimebundle_()
    assert "<b>All &lt;of&gt; them.</b> Each &amp; every." in shown["text/html"]
    assert '<figure class="table">' in shown["text/html"] and '<table class="wide">' in shown["text/html"]
    lines = shown["text/markdown"].splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "a <b>", "12.3", "0.0", "1 to 2", "helps", "1,234"
    ]  # fmt: skip
    assert re.fullmatch(r"\|:-+\|-+:\|-+:\|-+:\|:-+\|-+:\|", lines[1])


def test_what_the_mark_means_is_said_where_it_is_seen():
    marked = Table(FRAME.assign(network=["a" + findings.MARK, "b"])).titled("all of them.")
    assert (marked.title, marked.caption) == ("All of them.", findings.MARK_MEANS)
    assert Table(FRAME).titled("All.", "Each.").caption == "Each."

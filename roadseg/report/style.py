"""How figures look: colours, fonts, one width; a chart with its title and caption."""

import base64
import html
import io
import re
import textwrap
import unicodedata
import warnings

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

WIDTH = 6.5  # inches of every chart, which are as many as the page's column of text has
FONT = 8.5  # points, of everything in a chart but what stands in cells

# Okabe & Ito 2008, distinguishable with every common kind of colour vision. These three stand for
# verdicts and for nothing else.
HELPS, HURTS, UNDECIDED = "#009E73", "#D55E00", "#8A8F98"
VERDICTS = {"helps": HELPS, "better": HELPS, "hurts": HURTS, "worse": HURTS}
BLUE, SOFT = "#0072B2", "#5B6675"
PALETTE = [BLUE, "#E69F00", "#CC79A7", "#56B4E9", "#1C2430", "#8B5A2B", "#7B61C9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]

plt.rcParams.update(
    {
        "axes.axisbelow": True, "axes.edgecolor": "#C4CAD2", "axes.grid": True,
        "axes.labelsize": FONT, "axes.prop_cycle": plt.cycler(color=PALETTE),
        "axes.spines.right": False, "axes.spines.top": False, "axes.titlelocation": "left",
        "axes.titlesize": FONT, "axes.titleweight": "bold", "figure.constrained_layout.use": True,
        "figure.dpi": 96, "font.size": FONT, "grid.color": "#E6E9ED", "grid.linewidth": 0.8,
        "legend.borderaxespad": 0, "legend.columnspacing": 1.4, "legend.fontsize": FONT,
        "legend.frameon": False, "legend.handlelength": 1.6, "svg.fonttype": "none",
        "svg.hashsalt": "roadseg", "text.parse_math": False,  # names may hold $
        "xtick.color": SOFT, "xtick.labelcolor": "black", "xtick.labelsize": FONT,
        "ytick.color": SOFT, "ytick.labelcolor": "black", "ytick.labelsize": FONT,
    }
)  # fmt: skip
warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has other fonts


class Chart(Figure):
    """A figure that notebooks and the page show as SVG, with its title, caption and content."""

    title = caption = alt = ""
    with_png = False

    def titled(self, title: str, caption: str = "", *, with_png: bool = False) -> "Chart":
        """Set the finding as the title and a caption that explains the chart; return it.

        `with_png` keeps a PNG beside the SVG, for files that cannot show one.
        """
        self.title, self.caption, self.with_png = title, caption, with_png
        return self

    def described(self, alt: str) -> "Chart":
        """Set what the chart shows, in words for who cannot see it, and return it."""
        self.alt = alt
        return self

    def svg(self) -> str:
        """Return the chart as SVG to stand in a page: its text is text, its ground transparent."""
        file = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        self.savefig(file, format="svg", transparent=True, metadata=metadata)
        drawing = file.getvalue().partition("<svg")[2]
        drawing = re.sub(r"<style.*?</style>", "", drawing, count=1, flags=re.S)  # of a whole page
        label = f' role="img" aria-label="{html.escape(self.alt)}"'
        return "<svg" + label + drawing

    def png(self) -> bytes:
        """Return a PNG of two dots for each of the page's pixels."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=192)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        shown = {
            "text/html": figure_html("chart", self.svg(), self.title, self.caption),
            "text/plain": f"{self.title}\n{self.alt}",
        }
        if self.with_png:
            shown["image/png"] = base64.b64encode(self.png()).decode()
        return shown


def figure_html(kind: str, content: str, title: str, caption: str) -> str:
    """Return a figure of the page: content (HTML), a title and a caption (plain text)."""
    words = f"<b>{html.escape(title)}</b> {html.escape(caption)}" if title or caption else ""
    return (
        f'<figure class="{kind}"><div class="scroll">{content}</div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def subplots(height: float, *arguments, **settings):
    """As plt.subplots with a Chart as wide as all; closed, so that a notebook shows it once."""
    figure, axes = plt.subplots(*arguments, FigureClass=Chart, figsize=(WIDTH, height), **settings)
    plt.close(figure)
    return figure, axes


def legend_above(chart: Chart, handles, labels, columns: int = 4) -> None:
    """Put a legend above the axes, in as many columns as fit, and let the chart grow by it."""
    labels = [wrap(label, 56) for label in labels]
    for count in range(min(columns, len(labels)), 0, -1):
        legend = chart.legend(handles, labels, loc="outside upper left", ncols=count)
        box = legend.get_window_extent()
        if box.width <= chart.bbox.width - 8 or count == 1:
            chart.set_figheight(chart.get_figheight() + box.height / chart.dpi + 0.05)
            break
        legend.remove()


def log_axis(axis, label: str, most: int = 6) -> None:
    """Make a log x axis with three labels at least and, for them not to meet, `most` at most."""
    axis.set(xscale="log", xlabel=label)
    low, high = axis.get_xlim()
    locators = [LogLocator(subs=subs, numticks=99) for subs in ((1, 2, 5), (1, 3), (1,))]
    locators += [MaxNLocator(count) for count in range(3, 9)]
    options = [
        [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        for locator in locators
    ]
    options.insert(3, options[2][:: -(-len(options[2]) // most) or 1])
    ticks = next(option for option in options if 3 <= len(option) <= most)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(short_number)


def short_number(value: float, _position=None) -> str:
    """Return a number with k, M or G for thousands, millions and thousands of millions."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def text_width(text: str) -> int:
    """Return how many letters a line is as wide as; those of East Asia count as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrap(name: str, width: int = 32, whole_words: bool = False) -> str:
    """Break a name into lines of at most so many letters' width; longer words only if allowed."""
    name = str(name)
    letters = max(width * len(name) // max(text_width(name), 1), 1)
    return textwrap.fill(name, letters, break_long_words=not whole_words)


def values_text(names, values, unit: str = "", write=None) -> str:
    """Return names with their values, for a chart in words; `write` makes a text of a value."""
    write = write or (lambda value: f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}")
    pairs = [(name, value) for name, value in zip(names, values, strict=True) if value == value]
    return ", ".join(f"{name} {write(value)}{unit}" for name, value in pairs) + "."

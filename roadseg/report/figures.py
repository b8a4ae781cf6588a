"""Figures from tables and arrays. Reads no files."""

import base64
import html
import io
import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator
from PIL import Image

from roadseg.analysis.intervals import MIN_SEEDS
from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.data.survey import percent

# Okabe & Ito 2008, distinguishable with every common kind of colour vision.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
VERDICTS = {name: PALETTE[2] for name in ("helps", "better")}
VERDICTS |= {name: PALETTE[1] for name in ("hurts", "worse")}
UNDECIDED = "#999999"
MAX_CONFUSED = 24  # classes of a confusion matrix
GROUPS = [PALETTE[number] for number in (0, 4, 3, 5, 6)]  # none that stands for a verdict
sns.set_theme(style="whitegrid", palette=PALETTE, font_scale=0.9)
plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "svg.hashsalt": "roadseg"})
plt.rcParams["text.parse_math"] = False  # names of classes and files may hold $


class Drawing(Figure):
    """A figure that notebooks show sharply, and with its content in words for who cannot see it."""

    alt = ""

    def with_alt_text(self, alt: str) -> "Drawing":
        """Set what the figure shows, in words, and return it."""
        self.alt = alt
        return self

    def png(self) -> bytes:
        """Return a PNG of twice the dots that the figure is shown with; the page packs it again."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=2 * self.dpi, pil_kwargs={"compress_level": 1})
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        png = self.png()
        width, height = Image.open(io.BytesIO(png)).size
        images = [image for axis in self.axes for image in axis.images]
        photo = any(i.get_array().ndim == 3 or i.get_cmap().name == "gray" for i in images)
        about = {
            "alt": self.alt, "width": width // 2, "height": height // 2,
            "kind": "photo" if photo else "chart",
        }  # fmt: skip
        shown = {"image/png": base64.b64encode(png).decode(), "text/plain": self.alt}
        return shown, {"image/png": about}


def _subplots(*arguments, **settings):
    """As plt.subplots, but closed: a notebook shows the returned figure once, not twice."""
    figure, axes = plt.subplots(*arguments, FigureClass=Drawing, **settings)
    plt.close(figure)
    return figure, axes


def _values_text(names, values, unit: str = "") -> str:
    """Return names with their values, for the words of a figure."""
    pairs = [(name, value) for name, value in zip(names, values, strict=True) if value == value]
    return (
        ", ".join(
            f"{name} {f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'}{unit}"
            for name, value in pairs
        )
        + "."
    )


def paint(labels: np.ndarray, scenes: Scenes) -> np.ndarray:
    """Colour labels uint8 (H, W); return RGB uint8 (H, W, 3), black where not labelled."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(scenes.colours)] = scenes.colours
    table[UNLABELLED] = 0
    return table[labels]


def samples(scenes: Scenes, chosen: list[int], columns: int = 2) -> Drawing:
    """Show images with their labels painted over, side by side with the plain image."""
    rows = -(-len(chosen) // columns)
    height, width = scenes.labels.shape[1:]
    figure, axes = _subplots(
        rows * 2, columns, figsize=(4 * columns, rows * 2 * 4 * height / width), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, index in enumerate(chosen):
        row, column = 2 * (place // columns), place % columns
        # 32 levels per colour look the same and halve the report's largest picture
        image = scenes.images[index].transpose(1, 2, 0) // 8 * 8 + 4
        axes[row, column].imshow(image, interpolation="nearest")
        axes[row + 1, column].imshow(paint(scenes.labels[index], scenes), interpolation="nearest")
    figure.tight_layout(pad=0.3, w_pad=1.2)
    _class_legend(figure, scenes)
    return figure.with_alt_text(
        f"{len(chosen)} images of the data set, each above its labels in the classes' colours."
    )


def _class_legend(figure: Figure, scenes: Scenes) -> None:
    patches = [
        Patch(color=np.array(colour) / 255, label=name)
        for name, colour in zip(scenes.classes, scenes.colours, strict=True)
    ]
    patches.append(Patch(color="black", label="not labelled"))
    figure.legend(
        handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=7, frameon=False,
        fontsize=8,
    )  # fmt: skip


def legend(scenes: Scenes) -> HTML:
    """Return the colours of the classes as a line of text."""
    shown = [*zip(scenes.classes, scenes.colours, strict=True), ("not labelled", (0, 0, 0))]
    box = "display: inline-block; width: 0.8em; height: 0.8em; margin: 0 0.35em 0 0"
    parts = [
        f'<span style="display: inline-block; margin-right: 1rem"><i style="{box}; background: '
        f'rgb({red} {green} {blue})"></i>{html.escape(name)}</span>'
        for name, (red, green, blue) in shown
    ]
    return HTML(f'<p class="legend">{"".join(parts)}</p>')


def class_shares(shares: pd.DataFrame) -> Drawing:
    """Show the share of labelled pixels (log scale), from frequent to rare in the first split.

    `shares` has the index class and one column per split; a share of 0 is marked as absent.
    """
    order = shares.sort_values(list(shares.columns), ascending=False, kind="stable")
    place = np.arange(len(order))
    figure, axis = _subplots(figsize=(6, 0.8 + 0.2 * len(order)))
    smallest = order[order > 0].min().min()
    absent = smallest / 4
    for number, (split, column) in enumerate(order.items()):
        style = {"marker": "os^D"[number], "color": PALETTE[number], "markersize": 5}
        occurs = column > 0
        axis.plot(column[occurs], place[occurs], linestyle="", label=split, **style)
        beside = np.full((~occurs).sum(), absent * 1.35 ** (number - 1))
        axis.plot(beside, place[~occurs], linestyle="", markerfacecolor="white", **style)
    axis.set(xscale="log", xlabel="share of the labelled pixels (log scale)",
             ylim=(len(order) - 0.5, -0.5))  # fmt: skip
    axis.set_yticks(place, order.index, fontsize=8)
    _log_ticks(axis, lambda value, _: f"{100 * value:g} %")
    if (order == 0).any(axis=None):
        axis.axvline(smallest / 2, color="grey", linewidth=0.8, linestyle=":")
        axis.text(absent, -0.65, "absent", ha="center", va="bottom", fontsize=8, color="grey")
        axis.set_xlim(left=absent / 2)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(shares.columns),
                frameon=False, fontsize=8, borderaxespad=0, handletextpad=0.1)  # fmt: skip
    return figure.with_alt_text(
        "Shares of the labelled pixels in "
        + f"{order.columns[0]}: "
        + _values_text(order.index, 100 * order.iloc[:, 0], " %")
    )


PANEL = 1.52  # inches that a panel of `positions` is wide


def positions(grids: np.ndarray, classes: tuple[str, ...], columns: int = 5) -> Drawing:
    """Show where each class sits: float (K, rows, columns), shares of the pixels of each cell.

    Each panel has its own scale, from white for none to its highest share, which its title tells.
    Classes that never occur have no panel.
    """
    known = np.nan_to_num(grids)
    occurs = np.flatnonzero(known.max(axis=(1, 2)) > 0)
    columns = min(columns, len(occurs))
    rows = -(-len(occurs) // columns)
    height = PANEL * grids.shape[1] / grids.shape[2]
    figure, axes = _subplots(
        rows, columns, squeeze=False, figsize=(PANEL * columns, rows * (height + 0.2))
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, number in zip(axes.flat, occurs, strict=False):
        highest = known[number].max()
        axis.imshow(grids[number], cmap="Blues", vmin=0, vmax=highest, aspect="auto",
                    interpolation="nearest")  # fmt: skip
        axis.set_title(f"{classes[number]}: {percent(highest)}", fontsize=8, pad=2)
        axis.set_axis_on()
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    figure.tight_layout(pad=0.2, w_pad=0.6, h_pad=0.5)
    return figure.with_alt_text(
        "Where in the image each class sits; its highest share of a cell: "
        + _values_text(
            [classes[number] for number in occurs], 100 * known[occurs].max((1, 2)), " %"
        )
    )


def object_sizes(sizes: pd.DataFrame) -> Drawing:
    """Show how large the pieces of each class are, on a log scale.

    Columns of `sizes`: class, pieces (how many), and in pixels low, median, high (5, 50 and 95 % of
    the pieces are smaller) and half (half of the pixels lie in smaller pieces), by which the rows
    are in order.
    """
    order = sizes.sort_values("half", kind="stable")
    figure, axis = _subplots(figsize=(6, 0.8 + 0.2 * len(order)))
    for place, row in enumerate(order.itertuples()):
        axis.plot([row.low, row.high], [place, place], color=PALETTE[5], linewidth=3)
        axis.plot(row.median, place, "o", color=PALETTE[0], markersize=5)
        axis.plot(row.half, place, "D", color=PALETTE[1], markersize=4.5)
    labels = [
        f"{name} ({count})" for name, count in zip(order["class"], order["pieces"], strict=True)
    ]
    axis.set_yticks(range(len(order)), labels, fontsize=8)
    axis.set(xscale="log", xlabel="pixels per piece (log scale); in brackets: pieces",
             ylim=(-0.6, len(order) - 0.4))  # fmt: skip
    _log_ticks(axis, lambda value, _: f"{value:,.0f}".replace(",", " "))
    meanings = ["5 to 95 % of the pieces", "median", "half of the pixels are in smaller ones"]
    axis.legend(
        axis.lines[:3], meanings[: len(axis.lines)], loc="lower left", bbox_to_anchor=(0, 1),
        ncols=3, frameon=False, fontsize=8, borderaxespad=0, columnspacing=1.2,
    )  # fmt: skip
    return figure.with_alt_text(
        "Half of a class's pixels lie in pieces of at most so many pixels: "
        + _values_text(order["class"], order["half"])
    )


def _log_ticks(axis, formatter) -> None:
    """Label the powers of ten of a log x axis, or 1, 2, 5 if it holds less than two of them."""
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
    axis.xaxis.set_major_formatter(formatter)
    axis.xaxis.set_minor_formatter("")


def suspects(rows: pd.DataFrame, splits: dict[str, Scenes]) -> Drawing:
    """Show images with the boundaries of their labels; darkened where not labelled.

    Parameters
    ----------
    rows : columns split, index (position in the split), name and words (what is suspicious)
    splits : name -> scenes
    """
    height, width = splits["train"].labels.shape[1:]
    step = max(round(width / 240), 1)  # pictures are grey and small, to keep the report small
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    size = (3.4 * columns, lines * (3.4 * height / width + 0.42))
    figure, axes = _subplots(lines, columns, squeeze=False, figsize=size)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows.itertuples(), strict=False):
        scenes = splits[row.split]
        labels = scenes.labels[row.index][::step, ::step]
        grey = scenes.images[row.index].mean(0)[::step, ::step]
        grey = np.where(labels == UNLABELLED, 0.4 * grey, 30 + 0.88 * grey)
        axis.imshow(grey // 32, cmap="gray", vmin=0, vmax=7.5, interpolation="nearest")
        axis.add_collection(
            LineCollection(_outlines(labels), colors="#FF8A1F", linewidths=0.7, antialiaseds=False)
        )
        name = row.name if len(row.name) <= 50 else f"…{row.name[-49:]}"
        axis.set_title(f"{row.split}: {name}\n{row.words}", fontsize=8, pad=3)
    figure.tight_layout(pad=0.2, w_pad=0.8, h_pad=0.8)
    return figure.with_alt_text(
        f"{len(rows)} images with the outlines of their labels: "
        f"{', '.join(rows['name'].astype(str))}."
    )


def _outlines(labels: np.ndarray) -> list[list[tuple[float, float]]]:
    """Return the pixel edges between two labelled classes of labels (H, W), as lines."""
    known = labels != UNLABELLED
    down = (labels[1:] != labels[:-1]) & known[1:] & known[:-1]
    right = (labels[:, 1:] != labels[:, :-1]) & known[:, 1:] & known[:, :-1]
    edges = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(down)]
    edges += [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(right)]
    return edges


def split_distances(distances: pd.DataFrame) -> Drawing:
    """Show each image's distance from the nearest train image, one row per split, with medians.

    `distances` has the columns split and distance; rows without a distance are left out.
    """
    known = distances.dropna(subset="distance")
    names = list(dict.fromkeys(known["split"]))
    figure, axis = _subplots(figsize=(6, 0.6 + 0.45 * len(names)))
    for place, (colour, name) in enumerate(zip(PALETTE, names, strict=False)):
        split_values = known["distance"][known["split"] == name].to_numpy()
        axis.eventplot(split_values, lineoffsets=place, linelengths=0.5, linewidths=0.6,
                       colors=colour, antialiaseds=False)  # fmt: skip
        middle = np.median(split_values)
        axis.plot([middle, middle], [place - 0.38, place + 0.38], color="black", linewidth=2)
        axis.annotate(f"median {middle:.1f}", (middle, place - 0.38), xytext=(0, 1), ha="center",
                      textcoords="offset points", fontsize=8)  # fmt: skip
    texts = ["train, to another" if name == "train" else name for name in names]
    axis.set_yticks(range(len(names)), texts)
    highest = max(known["distance"].max(), 1)
    axis.set(xlabel="distance from the nearest train image (grey levels)",
             xlim=(-0.02 * highest, 1.04 * highest), ylim=(len(names) - 0.4, -0.75))  # fmt: skip
    return figure.with_alt_text(
        "Median distance from the nearest train image, in grey levels: "
        + _values_text(
            names, [known["distance"][known["split"] == name].median() for name in names]
        )
    )


def curves(table: pd.DataFrame, arms: dict[str, str]) -> Drawing:
    """Show training loss and val mIoU against steps: each arm's mean, and a band over its seeds.

    `arms` maps the name to show to the arm's name in `table`. The band reaches from the lowest seed
    to the highest; the names stand in the order of the last val scores.
    """
    figure, (left, right) = _subplots(1, 2, figsize=(10, max(3.4, 0.9 + 0.21 * len(arms))))
    last = {}
    for number, (name, arm) in enumerate(arms.items()):
        arm_rows = table[table["arm"] == arm]
        colour = PALETTE[:7][number % 7]  # the eighth, yellow, is too light for a line
        style = {"color": colour, "linestyle": ["-", "--", ":", "-."][number // 7 % 4]}
        for axis, column, scale in ((left, "loss", 1), (right, "val_miou", 100)):
            wide = arm_rows.pivot(index="step", columns="run", values=column).dropna() * scale
            if wide.shape[1] > 1:
                axis.fill_between(wide.index, wide.min(axis=1), wide.max(axis=1), color=colour,
                                  alpha=1.1 / (3 + len(arms)), linewidth=0)  # fmt: skip
            (line,) = axis.plot(wide.index, wide.mean(axis=1), linewidth=1.8, **style)
        last[line] = (wide.mean(axis=1).iloc[-1] if len(wide) else -np.inf, name)
    left.set(xlabel="step", ylabel="loss (nats per pixel)", ylim=(0, None))
    right.set(xlabel="step", ylabel="mIoU on val (%)")
    figure.tight_layout()
    order = sorted(last, key=lambda line: last[line][0], reverse=True)
    right.legend(
        order, [textwrap.fill(last[line][1], 30) for line in order], fontsize=8, frameon=False,
        handlelength=2.6, loc="upper left", bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip
    return figure.with_alt_text(
        "Curves of loss and val mIoU over the steps. Last val mIoU: "
        + _values_text([last[line][1] for line in order], [last[line][0] for line in order], " %")
    )


def _colours(n: int) -> list:
    return PALETTE[:n] if n <= len(PALETTE) else sns.color_palette("husl", n)


def intervals(arms: pd.DataFrame) -> Drawing:
    """Show test mIoU of each arm with its 95 % CI; columns arm, test_miou, low, high."""
    figure, axis = _subplots(figsize=(7, 0.6 + 0.42 * len(arms)))
    position = np.arange(len(arms))[::-1]
    score, low, high = (100 * arms[name] for name in ("test_miou", "low", "high"))
    axis.errorbar(score, position, xerr=[score - low, high - score], fmt="o", capsize=4)
    for y, x in zip(position, score, strict=True):
        axis.annotate(f"{x:.1f}", (x, y), xytext=(0, 6), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
    axis.set_yticks(position, arms["arm"])
    axis.set(xlabel="mIoU on test (%), with 95 % CI", ylim=(-0.6, len(arms) - 0.2))
    return figure.with_alt_text("Test mIoU: " + _values_text(arms["arm"], score, " %"))


def lengths(arms: pd.DataFrame) -> Drawing:
    """Show test mIoU against the number of training steps, a line for each label.

    Columns of `arms`: label, steps, test_miou, low, high.
    """
    figure, axis = _subplots(figsize=(7, 3.6))
    for colour, (label, rows) in zip(PALETTE, arms.groupby("label", sort=False), strict=False):
        rows = rows.sort_values("steps")
        score, low, high = (100 * rows[name] for name in ("test_miou", "low", "high"))
        axis.errorbar(rows["steps"], score, yerr=[score - low, high - score], fmt="o-", capsize=4,
                      color=colour, label=label)  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps := sorted(arms["steps"].unique()), [f"{n}" for n in steps])
    axis.set(xlabel="training steps", ylabel="test mIoU (%), 95 % CI")
    axis.legend(frameon=False, fontsize=8)
    return figure.with_alt_text(
        "Test mIoU in percent by training steps: "
        + _values_text(
            [f"{r.label}, {r.steps}" for r in arms.itertuples()], 100 * arms["test_miou"]
        )
    )


def differences(rows: list[pd.Series]) -> Drawing:
    """Show paired differences with their intervals: rows of `Results.comparisons`."""
    figure, axis = _subplots(figsize=(7, 0.7 + 0.42 * len(rows)))
    position = np.arange(len(rows))[::-1]
    for y, row in zip(position, rows, strict=True):
        colour = VERDICTS.get(row.verdict, UNDECIDED)
        axis.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=2)
        axis.plot(100 * row.difference, y, "o", color=colour)
        _plot_samples(axis, row, y, colour)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(position, [f"{row.arm} − {row.against}" for row in rows])
    note = _interval_note(rows)
    axis.set(xlabel=f"difference in test mIoU (points), {note}", ylim=(-0.6, len(rows) - 0.4))
    return figure.with_alt_text(
        "Paired differences in test mIoU: "
        + _values_text(
            [f"{row.arm} minus {row.against}" for row in rows],
            [100 * row.difference for row in rows],
            " points",
        )
    )


def _samples(row) -> np.ndarray:
    """Return the single differences, in points, that a comparison without an interval has."""
    text = getattr(row, "samples", "")  # NaN, read from a table, where it has none
    return 100 * np.array(text.split() if isinstance(text, str) else [], float)


def _plot_samples(axis, row, y: float, colour: str) -> None:
    if len(samples := _samples(row)):
        axis.plot(samples, np.full(len(samples), y), ".", color=colour, markersize=5, zorder=3)


def _interval_note(rows) -> str:
    """Return what is drawn beside differences, in words."""
    rows = list(rows)
    lacking = [row for row in rows if len(_samples(row))]
    if not lacking:
        return "95 % CI" if any(np.isfinite(row.low) for row in rows) else "no interval"
    single = "seeds" if lacking[0].seeds < MIN_SEEDS else "blocks of test images"
    return f"dots: single {single}" if len(lacking) == len(rows) else (
        f"95 % CI or dots for single {single}"
    )  # fmt: skip


def waterfall(
    arms: pd.DataFrame,
    rows: pd.DataFrame | list[pd.Series],
    reference: pd.DataFrame | None = None,
    top: str = "all of them",
) -> Drawing:
    """Show a ladder as steps from its first arm to its last, coloured by their verdicts.

    Parameters
    ----------
    arms : rows of `Results.arms`, from the first rung to the last: columns arm, test_miou
    rows : a comparison per rung with the rung before: columns trick, difference, low, high, verdict
    reference : another ladder for a panel beside it, without intervals: columns trick (the first
        row is its start), miou, source
    top : what the last bar is called
    """
    rows = pd.DataFrame(rows)
    scores = 100 * arms["test_miou"].to_numpy(float)
    names = [arms["arm"].iloc[0], *rows["trick"], top]
    others = [] if reference is None else [*reference["trick"], "all of them"]
    deepest = max(len(names), len(others))
    row_height = 0.16 + 0.13 * max(_wrap(name).count("\n") + 1 for name in names + others)
    figure, axes = _subplots(
        1, 2 if others else 1, squeeze=False, width_ratios=[1.2, 1] if others else [1],
        figsize=(10 if others else 8, 1.15 + row_height * deepest),
    )  # fmt: skip
    axis = axes[0, 0]
    steps, low, high = (100 * rows[name].to_numpy(float) for name in ("difference", "low", "high"))
    colours = [VERDICTS.get(verdict, UNDECIDED) for verdict in rows["verdict"]]
    samples = [_samples(row) for row in rows.itertuples()]
    _steps(axis, names, scores[0], steps, colours, low, high, samples)
    known = np.isfinite(low).any()
    axis.set_title(
        f"This study: {_interval_note(rows.itertuples())}", fontsize=9, loc="left", pad=20
    )
    seen = [verdict for verdict in ("helps", "hurts") if (rows["verdict"] == verdict).any()]
    keys = {verdict: VERDICTS[verdict] for verdict in seen}
    keys["no effect found" if known else "not known"] = UNDECIDED
    axis.legend(
        [Patch(color=colour) for colour in keys.values()], keys, loc="lower left",
        bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2,
        borderpad=0, handlelength=1, columnspacing=1.2,
    )  # fmt: skip
    if others:
        scores = 100 * reference["miou"].to_numpy(float)
        nothing = np.full(len(scores) - 1, np.nan)
        colours = [PALETTE[5]] * len(nothing)
        none = [nothing[:0]] * len(nothing)
        _steps(axes[0, 1], others, scores[0], np.diff(scores), colours, nothing, nothing, none)
        title = f"Course study ({reference['source'].iloc[0]})"
        axes[0, 1].set_title(title, fontsize=9, loc="left", pad=20)
        axes[0, 1].annotate("one run each, no intervals", (0, 1), xytext=(0, 4), fontsize=8,
                            xycoords="axes fraction", textcoords="offset points")  # fmt: skip
    figure.tight_layout(w_pad=2)
    for axis, rungs in zip(axes.flat, (names, others), strict=False):
        box = axis.get_position()  # rows of both panels are equally high
        height = box.height * len(rungs) / deepest
        axis.set_position([box.x0, box.y1 - height, box.width, height])
    return figure.with_alt_text(
        "A ladder of tricks, each with the points of mIoU it adds: "
        + _values_text(rows["trick"], 100 * rows["difference"])
    )


def _steps(axis, names, start, steps, colours, low, high, samples) -> None:
    """Draw a ladder's panel: a bar, a floating step per rung with its whisker, and a bar."""
    before = start + np.concatenate([[0], np.cumsum(steps)])
    samples = [x + each for x, each in zip(before, samples, strict=False)]
    ends = np.concatenate([before, before[:-1] + low, before[:-1] + high, *samples])
    smallest, largest = np.nanmin(ends), np.nanmax(ends)
    room = max(largest - smallest, 2)
    left = max(smallest - 0.12 * room, 0) if smallest >= 0 else smallest - 0.12 * room
    foot = max(left, 0)
    axis.barh([0, len(names) - 1], before[[0, -1]] - foot, 0.62, foot, color=PALETTE[0])
    for y, value in ((0, before[0]), (len(names) - 1, before[-1])):
        _label_right(axis, value, y, f"{value:.1f}")
    for y, (x, step, colour) in enumerate(zip(before, steps, colours, strict=False), start=1):
        axis.barh(y, step, 0.62, x, color=colour, edgecolor=colour, linewidth=1.5)
        interval = x + low[y - 1], x + high[y - 1]
        if np.isfinite(interval).all():
            axis.plot(interval, (y, y), color="black", linewidth=1, marker="|", markersize=5)
        axis.plot(samples[y - 1], np.full(len(samples[y - 1]), y), "k.", markersize=5)
        _label_right(axis, np.nanmax([x, x + step, *interval, *samples[y - 1]]), y, _signed(step))
    for y, x in enumerate(before):
        axis.plot((x, x), (y + 0.31, y + 0.69), color="black", linewidth=0.6)
    axis.set_yticks(range(len(names)), [_wrap(name) for name in names], fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(False, axis="y")
    cut = "; the axis does not start at 0" if left > 0 else ""
    axis.set(ylim=(len(names) - 0.5, -0.5), xlim=(left, largest + 0.2 * room))
    axis.set_xlabel(f"mIoU on test (%){cut}", fontsize=8)


def _label_right(axis, x, y, text) -> None:
    axis.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)


def _wrap(name: str) -> str:
    return textwrap.fill(str(name), 34)


def _signed(points: float) -> str:
    """Return points with sign and one decimal, and a bare 0.0 for what rounds to it."""
    text = f"{points:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def forest(
    groups: dict[str, pd.DataFrame | list[pd.Series]], band: float = np.nan, meaning: str = ""
) -> Drawing:
    """Show what each trick does in several comparisons: one marker and interval per group.

    Parameters
    ----------
    groups : what to call a group -> its comparisons: trick, difference, low, high, verdict
    band : half the width of a light band around zero, as a fraction like the differences
    meaning : what the band is, in words
    """
    groups = {title: pd.DataFrame(rows) for title, rows in groups.items() if len(rows)}
    tricks = {}
    for title, rows in groups.items():
        for name in rows["trick"]:
            tricks.setdefault(name, []).append(title)
    line = 1 / (max(map(len, tricks.values())) + 1)  # a trick has a height of 1, 0.17 inches a line
    figure, axis = _subplots(figsize=(8, 1.1 + len(tricks) * 0.17 / line))
    for colour, (title, rows) in zip(itertools.cycle(GROUPS), groups.items(), strict=False):
        for row in rows.itertuples():
            trick_groups = tricks[row.trick]
            y = list(tricks).index(row.trick) + line * (
                trick_groups.index(title) - (len(trick_groups) - 1) / 2
            )
            low, high = 100 * row.low, 100 * row.high
            words = _signed(100 * row.difference)
            if np.isfinite([low, high]).all():
                axis.plot([low, high], [y, y], color=colour, linewidth=1.6)
                words += f" ({_signed(low)} to {_signed(high)})"
            _plot_samples(axis, row, y, colour)
            axis.plot(
                100 * row.difference, y, "o", color=colour, markersize=5.5, markeredgewidth=1.4,
                markerfacecolor=colour if row.verdict in VERDICTS else "white",
            )  # fmt: skip
            axis.text(1.015, y, words, fontsize=7.5, va="center", color="0.25",
                      transform=axis.get_yaxis_transform())  # fmt: skip
        axis.plot([], [], "o-", color=colour, markersize=5.5, label=title)
    if band > 0:
        axis.axvspan(-100 * band, 100 * band, color="0.9", linewidth=0, label=meaning, zorder=0)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.grid(False, axis="y")
    for y in range(1, len(tricks)):
        axis.axhline(y - 0.5, color="0.85", linewidth=0.6)
    axis.set_yticks(range(len(tricks)), [_wrap(name) for name in tricks], fontsize=8)
    axis.set_ylim(len(tricks) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    note = _interval_note(row for rows in groups.values() for row in rows.itertuples())
    axis.set_xlabel(
        f"difference in test mIoU (points), {note}; filled: an effect after the correction",
        fontsize=8,
    )
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8,
                borderaxespad=0.2)  # fmt: skip
    return figure.with_alt_text(
        " ".join(
            f"{title}, change of mIoU in points: "
            + _values_text(rows["trick"], 100 * rows["difference"])
            for title, rows in groups.items()
        )
    )


def class_gains(table: pd.DataFrame) -> Drawing:
    """Show what each trick does to each class, in points of IoU; framed where an effect was seen.

    Columns of `table`: trick, class, pixel_share (which orders the classes), difference
    (a fraction), verdict. What is not known stays white.
    """
    wide = 100 * table.pivot(index="trick", columns="class", values="difference")
    seen = table.pivot(index="trick", columns="class", values="verdict").isin(list(VERDICTS))
    shares = table.groupby("class")["pixel_share"].max().sort_values(ascending=False, kind="stable")
    columns = [name for name in shares.index if wide[name].notna().any()]
    tricks = list(dict.fromkeys(table["trick"]))
    wide, seen = wide.loc[tricks, columns], seen.loc[tricks, columns]
    order = "classes, from frequent to rare"
    tall = len(columns) > 20  # with so many classes in a row the values would be too small to read
    if tall:
        wide, seen = wide.T, seen.T
    size = (max(5.0, 2.2 + 0.46 * wide.shape[1]), max(1.0, 0.2 + 0.4 * len(wide)))
    figure, axis = _subplots(figsize=size)
    largest = max(np.nanmax(np.abs(wide.to_numpy()), initial=0), 1)
    scale = LinearSegmentedColormap.from_list("effects", [PALETTE[1], "white", PALETTE[0]])
    mesh = axis.pcolormesh(
        wide, cmap=scale, vmin=-largest, vmax=largest, edgecolors="white", linewidth=1
    )
    for (y, x), value in np.ndenumerate(wide.to_numpy()):
        if np.isfinite(value):
            text = _signed(value) if abs(value) < 9.95 else f"{value:+.0f}".replace("-", "−")
            axis.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7.5,
                      color="white" if abs(value) > 0.75 * largest else "black",
                      weight="bold" if seen.iat[y, x] else "normal")  # fmt: skip
        if seen.iat[y, x]:
            axis.add_patch(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, fill=False, linewidth=1.6,
                                     edgecolor="black"))  # fmt: skip
    names = [[_wrap(name) for name in labels] for labels in (wide.columns, wide.index)]
    axis.set_xticks(np.arange(wide.shape[1]) + 0.5, names[0], rotation=50, ha="right", fontsize=8,
                    rotation_mode="anchor")  # fmt: skip
    axis.set_yticks(np.arange(len(wide)) + 0.5, names[1], fontsize=8)
    axis.set_ylim(len(wide), 0)
    axis.grid(False)
    sns.despine(ax=axis, left=True, bottom=True)
    (axis.set_ylabel if tall else axis.set_xlabel)(order, fontsize=8)
    axis.set_title("points of IoU; framed: an effect was seen after the correction", fontsize=9,
                   loc="left")  # fmt: skip
    figure.colorbar(mesh, ax=axis, pad=0.015, fraction=0.03).ax.tick_params(labelsize=8)
    return figure.with_alt_text(
        f"What {len(tricks)} tricks change about the IoU of {len(columns)} classes, in points; "
        f"the largest change is {largest:.1f}."
    )


def class_iou(
    classes: pd.DataFrame,
    arms: dict[str, str],
    reference: dict[str, dict[str, float]] | None = None,
) -> Drawing:
    """Show IoU per class as bars with 95 % CIs, classes from frequent to rare.

    Parameters
    ----------
    classes : columns arm, class, iou, low, high, pixel_share
    arms : the name to show -> the arm's name in `classes`
    reference : what others report, shown as marks: a name -> class -> IoU (0..1)
    """
    shown_rows = classes[classes["arm"].isin(arms.values()) & classes["iou"].notna()]
    order = list(
        shown_rows.sort_values("pixel_share", ascending=False, kind="stable")["class"].unique()
    )
    places, width = np.arange(len(order)), 0.84 / len(arms)
    wide = 1.4 + len(order) * (0.34 + 0.13 * len(arms))
    figure, axis = _subplots(figsize=(min(max(6.0, wide), 10.0), 3.6))
    for number, (colour, (name, arm)) in enumerate(
        zip(_colours(len(arms)), arms.items(), strict=True)
    ):
        rows = shown_rows[shown_rows["arm"] == arm].set_index("class").reindex(order)
        score, low, high = (100 * rows[column] for column in ("iou", "low", "high"))
        at = places + (number - (len(arms) - 1) / 2) * width
        axis.bar(at, score, width, color=colour, label=name, linewidth=0)
        known = low.notna()
        axis.vlines(at[known], low[known], high[known], color="0.25", linewidth=1)
    for marker, (name, reported) in zip("D^s", (reference or {}).items(), strict=False):
        values = [100 * reported.get(each, np.nan) for each in order]
        axis.plot(places, values, marker, color="black", markerfacecolor="white", label=name,
                  markersize=5)  # fmt: skip
    axis.set_xticks(places, [_wrap(name) for name in order], rotation=50, ha="right", fontsize=8,
                    rotation_mode="anchor")  # fmt: skip
    axis.grid(False, axis="x")
    axis.set(ylabel="IoU on test (%), 95 % CI", ylim=(0, 100), xlim=(-0.6, len(order) - 0.4))
    axis.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4,
                borderaxespad=0.2)  # fmt: skip
    means = [100 * shown_rows.loc[shown_rows["arm"] == arm, "iou"].mean() for arm in arms.values()]
    return figure.with_alt_text(
        "IoU of each class on test. Mean: " + _values_text(arms, means, " %")
    )


MEASURES = {
    "gmacs": "multiply-adds per image (10⁹)",
    "latency_ms": "latency of one image (ms)",
    "parameters": "parameters",
}
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


def _styles(names: list[str]) -> dict[str, dict]:
    """Return each name's colour and marker: no two of up to 56 names share both."""
    colours = PALETTE[:7]  # the eighth, yellow, is too light
    return {
        name: {"color": colours[n % 7], "marker": MARKERS[(n + 2 * (n // 7)) % len(MARKERS)]}
        for n, name in enumerate(names)
    }


def _cost_axis(axis, label: str) -> None:
    axis.set(xscale="log", xlabel=f"{label}, log scale")
    low, high = axis.get_xlim()
    subs = (1, 2, 5) if high / low < 100 else (1,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(_short)
    axis.xaxis.set_minor_formatter("")


def _short(value: float, _position=None) -> str:
    """Return a number with k or M for thousands and millions."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def pareto_fronts(table: pd.DataFrame) -> Drawing:
    """Show test mIoU against each measure of cost, and the front that val scores choose.

    `table` holds the rows of `Results.pareto` of one question. The staircase is what the best
    affordable network, chosen on val, scores on test; those on it are filled.
    """
    measures = list(dict.fromkeys(table["measure"]))
    cheap_first = table[table["measure"] == measures[0]].sort_values("cost", kind="stable")
    styles = _styles(list(cheap_first["label"]))  # as in all figures of these networks
    figure, axes = _subplots(
        1, len(measures), figsize=(3.1 * len(measures), 3.6), sharey=True, squeeze=False
    )
    for axis, measure in zip(axes[0], measures, strict=True):
        measure_rows = table[table["measure"] == measure].sort_values("cost")
        for row in measure_rows.itertuples():
            y, style = 100 * row.test_miou, styles[row.label]
            axis.errorbar(
                row.cost, y, yerr=[[y - 100 * row.low], [100 * row.high - y]], capsize=2,
                linewidth=1, linestyle="", markersize=7, **style,
                markerfacecolor=style["color"] if row.pareto_optimal else "white",
            )  # fmt: skip
        chosen = measure_rows[measure_rows["pareto_optimal"]]
        costs = [*chosen["cost"], measure_rows["cost"].max() * 1.15]
        axis.step(costs, 100 * np.array([*chosen["test_miou"], chosen["test_miou"].iloc[-1]]),
                  where="post", color=UNDECIDED, linewidth=1.4, zorder=0)  # fmt: skip
        _cost_axis(axis, MEASURES[measure])
        axis.xaxis.label.set_fontsize(8.5)
        axis.margins(x=0.12)
    axes[0][0].set_ylabel("mIoU on test (%), 95 % CI")
    handles = [
        plt.Line2D([], [], linestyle="", markersize=7, label=name, **style)
        for name, style in styles.items()
    ]
    figure.tight_layout()
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="upper center",
                  bbox_to_anchor=(0.5, 0.01), ncols=min(len(handles), 6))  # fmt: skip
    return figure.with_alt_text(
        "Test mIoU against three measures of cost. Test mIoU: "
        + _values_text(
            styles,
            [100 * table.loc[table["label"] == n, "test_miou"].iloc[0] for n in styles],
            " %",
        )
    )


def accuracy_cost(
    arms: pd.DataFrame,
    reference: pd.DataFrame | None = None,
    split: str = "test",
    runs: pd.DataFrame | None = None,
) -> Drawing:
    """Show test mIoU against multiply-adds, and beside it what a reference reports.

    Parameters
    ----------
    arms : columns label, test_miou, low, high, seeds, gmacs; with `runs` also arm
    runs : columns arm, test_miou: shown for arms without an interval
    reference : columns network, encoder_pretrained, decoder_pretrained, miou, gmacs
    split : what the scores are called, where there are no test images
    """
    panels = 1 if reference is None else 2
    figure, axes = _subplots(1, panels, figsize=(2.5 + 3.7 * panels, 4.4), squeeze=False)
    left = axes[0][0]
    for row in arms.itertuples():
        y = 100 * row.test_miou
        error = [[y - 100 * row.low], [100 * row.high - y]]
        left.errorbar(row.gmacs, y, yerr=error, fmt="o", capsize=3, color=PALETTE[0])
        if runs is not None and np.isnan(row.low) and row.seeds > 1:
            scores = 100 * runs.loc[runs["arm"] == row.arm, "test_miou"]
            left.plot([row.gmacs] * len(scores), scores, "_", color=PALETTE[0], markersize=10)
    seed_note = "one seed" if (arms["seeds"] == 1).all() else "means over seeds"
    interval_note = "95 % CIs"
    if arms["low"].isna().all():
        dashes = "dashes are single runs, " if runs is not None and seed_note != "one seed" else ""
        interval_note = f"{dashes}no intervals"
    left.set(ylabel=f"mIoU on {split} (%)", title=f"here: {seed_note}, {interval_note}")
    if reference is not None:
        right, shown = axes[0][1], set()
        for row in reference.itertuples():
            kind = (
                "pre-trained whole" if row.decoder_pretrained != "no"
                else "pre-trained encoder" if row.encoder_pretrained != "no" else "from scratch"
            )  # fmt: skip
            colour = {"from scratch": 1, "pre-trained encoder": 2, "pre-trained whole": 3}[kind]
            right.plot(row.gmacs, 100 * row.miou, "D", color=PALETTE[colour],
                       label=None if kind in shown else kind)  # fmt: skip
            shown.add(kind)
        right.set(title="arXiv 2206.12571, as reported: one run each", ylabel="mIoU (%)")
        right.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16),
                     ncols=3, columnspacing=1.0, handletextpad=0.2)  # fmt: skip
    for axis in axes[0]:
        axis.margins(x=0.4, y=0.12)
        _cost_axis(axis, MEASURES["gmacs"])
        axis.set_ylim(top=min(axis.get_ylim()[1], 102))
        axis.title.set_fontsize(9)
    figure.tight_layout()
    _annotate_points(left, arms["gmacs"], 100 * arms["test_miou"], arms["label"])
    if reference is not None:
        _annotate_points(right, reference["gmacs"], 100 * reference["miou"], reference["network"])
    return figure.with_alt_text(
        f"{split.capitalize()} mIoU against multiply-adds. "
        + _values_text(
            [f"{row.label} at {row.gmacs:.3g} billion" for row in arms.itertuples()],
            100 * arms["test_miou"],
            " %",
        )
    )


def _annotate_points(axis, xs, ys, names, size: float = 7.5) -> None:
    """Write names beside points, each at the first of some places where it meets nothing."""
    figure = axis.figure
    figure.canvas.draw()
    points = axis.transData.transform(np.column_stack([xs, ys]))
    scale, frame = figure.dpi / 72, axis.get_window_extent()
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    line = {"arrowstyle": "-", "color": UNDECIDED, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    for x_data, y_data, (x, y), name in zip(xs, ys, points, names, strict=True):
        wide, tall = 0.6 * size * scale * len(name), 1.25 * size * scale
        places = [
            (x + across if right else x - across - wide, y + up * tall - tall / 2)
            for up, across in itertools.product(
                (0, 0.8, -0.8, 1.6, -1.6, 2.5, -2.5, 3.5, -3.5), (8, 3)
            )
            for right in (True, False)
        ]
        boxes = [(left, low, left + wide, low + tall) for left, low in places]
        inside = [b for b in boxes if frame.x0 <= b[0] and b[2] <= frame.x1]
        free = [b for b in inside if not any(_overlap(b, other) for other in taken)]
        box = (free or inside or boxes)[0]
        taken.append(box)
        offset = ((box[0] - x) / scale, ((box[1] + box[3]) / 2 - y) / scale)
        far = abs(offset[1]) > size  # then a line says whose name it is
        axis.annotate(name, (x_data, y_data), xytext=offset, textcoords="offset points",
                      va="center", fontsize=size, arrowprops=line if far else None)  # fmt: skip


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def class_table(classes: pd.DataFrame, arms: dict[str, str]) -> Drawing:
    """Show IoU of each class and network in a heat map, classes from frequent to rare.

    `arms` maps the name to show to the arm's name in `classes`.
    """
    shown_rows = classes[classes["arm"].isin(arms.values()) & classes["iou"].notna()]
    order = shown_rows.sort_values("pixel_share", ascending=False)["class"].drop_duplicates()
    wide = shown_rows.pivot(index="class", columns="arm", values="iou")
    wide = 100 * wide.loc[order, [*arms.values()]]
    figure, axis = _subplots(figsize=(2 + 0.75 * len(arms), 1 + 0.27 * len(wide)))
    best = wide.eq(wide.max(axis=1), axis=0)
    sns.heatmap(wide, cmap="Blues", vmin=0, vmax=100, cbar=False, ax=axis, linewidths=0.5)
    for (y, x), value in np.ndenumerate(wide.to_numpy()):
        axis.text(
            x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=7.5,
            color="white" if value > 60 else "black",
            weight="bold" if best.iat[y, x] and value >= 0.5 else "normal",
        )  # fmt: skip
    axis.set_xticks(np.arange(len(arms)) + 0.5, [*arms], rotation=50, ha="right", fontsize=8,
                    rotation_mode="anchor")  # fmt: skip
    axis.set_yticks(np.arange(len(wide)) + 0.5, wide.index, fontsize=8, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.set_title(
        "IoU on test (%), mean over seeds; bold: the class's best", fontsize=9, loc="left"
    )
    return figure.with_alt_text(
        "IoU on test of each class and network, the mean over classes: "
        + _values_text(arms, [wide[arm].mean() for arm in arms.values()], " %")
    )


def searches(table: pd.DataFrame, labels: dict[str, str]) -> Drawing:
    """Show what each learning rate of the searches scored on val; the chosen one is filled.

    `table` is `Results.searches`; `labels` maps its arms to the names to show.
    """
    styles = _styles(list(labels.values()))
    figure, axis = _subplots(figsize=(6.4, 3.6))
    for arm, name in labels.items():
        trials, style = table[table["arm"] == arm], styles[name]
        axis.plot(trials["lr"], 100 * trials["val_miou"], markerfacecolor="white", linewidth=1.2,
                  label=name, **style)  # fmt: skip
        chosen = trials[trials["chosen"].astype(bool)]
        axis.plot(chosen["lr"], 100 * chosen["val_miou"], linestyle="", markersize=9, **style)
    axis.set(xscale="log", xlabel="learning rate (log scale)", ylabel="mIoU on val (%)")
    rates = sorted(table["lr"].unique())
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.xaxis.set_minor_formatter("")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure.with_alt_text(
        "Val mIoU at each learning rate that was tried; chosen: "
        + _values_text(
            labels.values(),
            [
                table.loc[(table["arm"] == arm) & table["chosen"].astype(bool), "lr"].max()
                for arm in labels
            ],
        )
    )


def effective_fields(maps: dict[str, np.ndarray], sides: dict[str, float]) -> Drawing:
    """Show how much each pixel sways the output in the middle, one picture per network.

    Parameters
    ----------
    maps : name -> float (H, W), from `cost.effective_field`
    sides : name -> side of the square that holds most of it, in pixels
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    height, width = next(iter(maps.values())).shape
    figure, axes = _subplots(
        rows, columns, squeeze=False, figsize=(3.5 * columns, rows * (3.5 * height / width + 0.35))
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, field) in zip(axes.flat, maps.items(), strict=False):
        # the square root, since a few pixels in the middle outshine all others
        axis.imshow(np.sqrt(field), cmap="magma")
        side = sides[name]
        corner = (width // 2 - side / 2, height // 2 - side / 2)
        axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2))
        axis.set(xlim=(0, width - 1), ylim=(height - 1, 0))
        axis.set_title(f"{name}: {side:.0f} px", fontsize=8)
    figure.tight_layout(pad=0.4)
    return figure.with_alt_text(
        "Effective receptive field around the centre pixel; the side that holds most: "
        + _values_text(maps, [sides[name] for name in maps], " pixels")
    )


def close_ups(
    scenes: Scenes, windows: dict[str, tuple[int, int, int]], size: tuple[int, int],
    predicted: dict[str, np.ndarray],
) -> Drawing:  # fmt: skip
    """Show windows of test images: image, truth, and what each network makes of them.

    Parameters
    ----------
    scenes : the split that was predicted
    windows : name -> (image, top, left)
    size : (height, width) of a window
    predicted : name -> uint8 (N, H, W)
    """
    height, width = size
    rows = [("image", None), ("truth", scenes.labels), *predicted.items()]
    inches, label = 2.3, 1.3
    figure, axes = _subplots(
        len(rows), len(windows), squeeze=False,
        figsize=(inches * len(windows) + label, len(rows) * (inches * height / width + 0.05) + 0.2),
    )  # fmt: skip
    for place, ((name, labels), axis_row) in enumerate(zip(rows, axes, strict=True)):
        for axis, (title, (index, top, left)) in zip(axis_row, windows.items(), strict=True):
            part = np.s_[top : top + height, left : left + width]
            picture = (
                scenes.images[index].transpose(1, 2, 0)[part]
                if labels is None
                else paint(labels[index][part], scenes)
            )
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if not place:
                axis.set_title(title, fontsize=9)
        axis_row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    _class_legend(figure, scenes)
    return figure.with_alt_text(
        f"Windows of test images ({', '.join(windows)}): image, truth and the predictions of "
        f"{', '.join(predicted)}."
    )


def predictions(
    scenes: Scenes, chosen: list[int], predicted: dict[str, np.ndarray], *, errors: bool = False
) -> Drawing:
    """Show image, truth and predictions, one column per image.

    Parameters
    ----------
    scenes : the split that was predicted
    chosen : positions of the images to show
    predicted : name -> uint8 (N, H, W)
    errors : also show, under each prediction, its wrong pixels in the colour of the class they
        were taken for
    """
    rows = [("image", None), ("truth", scenes.labels)]
    for name, labels in predicted.items():
        rows.append((name, labels))
        if errors:
            truth = scenes.labels
            rows.append((f"{name}: errors", _errors(labels, truth, chosen)))
    height, width = scenes.labels.shape[1:]
    inches = 3.6
    figure, axes = _subplots(
        len(rows), len(chosen), squeeze=False,
        figsize=(inches * len(chosen), len(rows) * (inches * height / width + 0.05)),
    )  # fmt: skip
    for (name, labels), axis_row in zip(rows, axes, strict=True):
        for axis, index in zip(axis_row, chosen, strict=True):
            picture = (
                scenes.images[index].transpose(1, 2, 0)
                if labels is None
                else paint(labels[index], scenes)
            )
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        axis_row[0].set_ylabel(name, fontsize=8)
    figure.tight_layout(pad=0.3)
    _class_legend(figure, scenes)
    return figure.with_alt_text(
        f"{len(chosen)} images: the image, the truth and the predictions of {', '.join(predicted)}."
    )


def _errors(predicted: np.ndarray, truth: np.ndarray, chosen: list[int]) -> dict[int, np.ndarray]:
    return {
        index: np.where(
            (predicted[index] != truth[index]) & (truth[index] != UNLABELLED),
            predicted[index],
            UNLABELLED,
        )
        for index in chosen
    }


def confusion(counts: np.ndarray, classes: tuple[str, ...]) -> Drawing:
    """Show counts (K, K) as shares of each true class, in percent.

    Of more classes than can be read, those that most pixels are confused with, and the rest as one.
    """
    totals, found = counts.sum(1), np.diagonal(counts)
    columns, shares = list(classes), counts / np.maximum(totals, 1)[:, None]
    rows = np.flatnonzero(totals > 0)
    if len(classes) > MAX_CONFUSED:
        wrong = np.where(totals > 0, totals + counts.sum(0) - 2 * found, -1)
        rows = np.sort(np.argsort(-wrong, kind="stable")[: min(MAX_CONFUSED, len(rows))])
        others = np.setdiff1d(np.arange(len(classes)), rows)
        columns = [*(classes[k] for k in rows), f"{len(others)} others"]
        shares = np.column_stack([shares[:, rows], shares[:, others].sum(1)])
    percents, names = 100 * shares[rows], [classes[k] for k in rows]
    figure, axis = _subplots(figsize=(8, 0.8 + 0.34 * len(rows)))
    sns.heatmap(
        percents, annot=np.where(percents >= 1, np.round(percents).astype(int).astype(str), ""),
        fmt="", cmap="Blues", vmin=0, vmax=100, cbar=False, annot_kws={"fontsize": 7}, ax=axis,
        xticklabels=columns, yticklabels=names,
    )  # fmt: skip
    axis.set(xlabel="predicted class (% of the true class)", ylabel="true class")
    plt.setp(axis.get_xticklabels(), rotation=50, ha="right", rotation_mode="anchor")
    return figure.with_alt_text(
        "Which share of each true class was found: "
        + _values_text(names, 100 * found[rows] / totals[rows], " %")
    )


def reliability(table: pd.DataFrame, arms: dict[str, str]) -> Drawing:
    """Show how often networks are right when they are so sure; on the diagonal, as often as said.

    Parameters
    ----------
    table : columns arm, above (the bin's lower end), pixels, right, confidence (its sum)
    arms : the name to show -> the arm's name in `table`
    """
    figure, (left, right) = _subplots(1, 2, figsize=(9, 3.8), width_ratios=[1, 1])
    left.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle="--")
    left.annotate("as right as it is sure", (60, 60), rotation=45, rotation_mode="anchor",
                  fontsize=7.5, color="0.4", xytext=(-4, 5),
                  textcoords="offset points")  # fmt: skip
    styles, surest = _styles(list(arms)), {}
    for name, arm in arms.items():
        bins = table[(table["arm"] == arm) & (table["pixels"] > 0)]
        pixels = bins["pixels"].sum()
        surest[name] = 100 * bins["correct"].iloc[-1] / bins["pixels"].iloc[-1]
        enough = bins[bins["pixels"] >= pixels * 1e-4]  # fewer say little, and draw the eye
        left.plot(100 * enough["confidence"] / enough["pixels"],
                  100 * enough["correct"] / enough["pixels"],
                  linewidth=1.2, markersize=4, label=name, **styles[name])  # fmt: skip
        right.plot(100 * bins["confidence"] / bins["pixels"], 100 * bins["pixels"] / pixels,
                   linewidth=1.2, markersize=4, **styles[name])  # fmt: skip
    left.set(xlabel="confidence (%, mean of a bin)", ylabel="accuracy (%)",
             xlim=(0, 101), ylim=(0, 101), aspect="equal")  # fmt: skip
    right.set(
        xlabel="confidence (%)", ylabel="share of test pixels (%)", xlim=(0, 101), ylim=(0, None)
    )
    figure.tight_layout()
    figure.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.01),
                  ncols=min(len(arms), 5))  # fmt: skip
    return figure.with_alt_text(
        "How often networks are right when they are so sure; where they are surest: "
        + _values_text(surest, surest.values(), " %")
    )


def boundaries(arms: pd.DataFrame) -> Drawing:
    """Show boundary IoU beside mIoU; columns label, test_miou, boundary_iou (mean over classes)."""
    arms = arms[arms["boundary_iou"].notna()]
    figure, axis = _subplots(figsize=(7, 0.9 + 0.36 * len(arms)))
    place = np.arange(len(arms))[::-1]
    for y, row in zip(place, arms.itertuples(), strict=True):
        near, all_over = 100 * row.boundary_iou, 100 * row.test_miou
        axis.plot([near, all_over], [y, y], color="0.8", linewidth=2, zorder=1)
        axis.plot(all_over, y, "o", color=PALETTE[0], label="mIoU" if y == place[0] else None)
        axis.plot(near, y, "D", color=PALETTE[1], markersize=5,
                  label="boundary IoU" if y == place[0] else None)  # fmt: skip
        for x in (near, all_over):
            axis.annotate(f"{x:.1f}", (x, y), xytext=(0, 6), textcoords="offset points",
                          ha="center", fontsize=7.5)  # fmt: skip
    axis.set_yticks(place, [_wrap(name) for name in arms["label"]], fontsize=8)
    axis.set(xlabel="on test (%), mean over classes and seeds", ylim=(-0.6, len(arms) - 0.2))
    axis.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2,
                borderaxespad=0.2)  # fmt: skip
    return figure.with_alt_text(
        "Boundary IoU on test: " + _values_text(arms["label"], 100 * arms["boundary_iou"], " %")
    )


def feature_maps(maps: list[np.ndarray], columns: int = 6) -> Drawing:
    """Show the channels that differ most within an image, one row per stage, each on its own scale.

    `maps` has one array float (C, h, w) per stage.
    """
    height, width = maps[0].shape[1:]
    inches = 1.45
    figure, axes = _subplots(
        len(maps), columns, squeeze=False,
        figsize=(inches * columns, len(maps) * (inches * height / width + 0.28)),
    )  # fmt: skip
    descriptions = []
    for number, (stage, row) in enumerate(zip(maps, axes, strict=True), start=1):
        spread = stage.std(axis=(1, 2))
        silent = int((spread == 0).sum())
        for axis in row:
            axis.set_axis_off()
        for axis, channel in zip(row, np.argsort(-spread, kind="stable")[:columns], strict=False):
            axis.imshow(stage[channel], cmap="magma", interpolation="nearest", aspect="auto")
        words = f"pooling {number}: {len(stage)} channels of {stage.shape[1]} × {stage.shape[2]}"
        row[0].set_title(f"{words}, {silent} of them flat", fontsize=8, loc="left", pad=2)
        descriptions.append(f"{words}, {silent} flat")
    figure.subplots_adjust(
        0, 0, 1, 1, wspace=0.03, hspace=0.2
    )  # titles reach over their neighbours
    return figure.with_alt_text(f"Feature maps after each pooling: {'; '.join(descriptions)}.")


def layer_costs(table: pd.DataFrame) -> Drawing:
    """Show multiply-adds and parameters of each layer that has weights, as shares in percent."""
    layers = table[table["parameters"] > 0]
    figure, axis = _subplots(figsize=(8, 3))
    place = np.arange(len(layers))
    for offset, column, name in (
        (-0.2, "gmacs", "multiply-adds"),
        (0.2, "parameters", "parameters"),
    ):
        axis.bar(place + offset, 100 * layers[column] / layers[column].sum(), 0.4, label=name)
    axis.set_xticks(place, layers["layer"], rotation=50, ha="right", rotation_mode="anchor")
    axis.set(ylabel="share of the network (%)")
    axis.legend()
    return figure.with_alt_text(
        "Each layer's share of the multiply-adds: "
        + _values_text(layers["layer"], 100 * layers["gmacs"] / layers["gmacs"].sum(), " %")
    )


def receptive_field(table: pd.DataFrame, scenes: Scenes, index: int) -> Drawing:
    """Draw on an image what one value in its middle sees, after each pooling and at the end."""
    height, width = scenes.labels.shape[1:]
    figure, axis = _subplots(figsize=(8, 8 * height / width))
    axis.imshow(scenes.images[index].transpose(1, 2, 0))
    shown = table[(table["kind"] == "MaxPool2d") | (table.index == table.index[-1])]
    for number, (colour, row) in enumerate(
        zip(_colours(len(shown)), shown.itertuples(), strict=True), start=1
    ):
        after = f"pooling {number}" if row.kind == "MaxPool2d" else "the last layer"
        side = row.receptive_field
        corner = (width / 2 - side / 2, height / 2 - side / 2)
        axis.add_patch(
            plt.Rectangle(
                corner,
                side,
                side,
                fill=False,
                edgecolor=colour,
                linewidth=2,
                label=f"after {after}: {side} px",
            )  # fmt: skip
        )
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure.with_alt_text(
        "Squares on an image: what one value sees, up to "
        f"{table['receptive_field'].iloc[-1]} pixels wide at the last layer."
    )


class Table(HTML):
    """A table as HTML, and as Markdown for pages that take that."""

    def __init__(self, frame: pd.DataFrame, wide: bool = False, caption: str = ""):
        classes = "wide" if wide else None
        content = frame.to_html(index=False, border=0, na_rep="", classes=classes)
        if caption:
            head, _, body = content.partition(">")
            content = f"{head}><caption>{html.escape(caption)}</caption>{body}"
        super().__init__(content)
        self.frame = frame

    def _repr_markdown_(self) -> str:
        return self.frame.to_markdown(index=False, disable_numparse=True)


def table(
    frame: pd.DataFrame,
    decimals: dict[str, int] | None = None,
    *,
    wide: bool = False,
    caption: str = "",
) -> Table:
    """Return a table for the report, with so many decimals in the columns that `decimals` names.

    A wide one keeps its rows low and is moved sideways. A caption is plain text.
    """
    shown = frame.copy()
    for column, places in (decimals or {}).items():
        shown[column] = shown[column].map(lambda value, places=places: f"{value:.{places}f}")
    return Table(shown, wide, caption)


def collapsible(title: str, content: HTML) -> HTML:
    """Return what is shown only after a click on its title."""
    return HTML(f"<details><summary>{html.escape(title)}</summary>{content.data}</details>")


def comparison_sliders(
    scenes: Scenes, chosen: dict[str, int], predicted: np.ndarray, network: str
) -> HTML:
    """Return pictures for the report, each with a divider that can be moved over the prediction.

    To the left of the divider is the image or the truth, to the right what was predicted, or of
    that only what is wrong, in the colours of the classes it was taken for. Where scripts do not
    run, and on paper, the divider stays in the middle.

    Parameters
    ----------
    scenes : the split that was predicted
    chosen : what to call a picture -> its position
    predicted : uint8 (N, H, W)
    network : whose prediction it is
    """
    parts = []
    for title, index in chosen.items():
        truth, labels = scenes.labels[index], predicted[index]
        wrong = (labels != truth) & (truth != UNLABELLED)
        share = 100 * wrong.sum() / max((truth != UNLABELLED).sum(), 1)
        layers = {  # from the lowest to the highest
            "prediction": (paint(labels, scenes), f"Prediction of {network}: {share:.0f} % wrong."),
            "errors": (
                paint(np.where(wrong, labels, UNLABELLED), scenes),
                "What of that is wrong.",
            ),
            "truth": (paint(truth, scenes), "Truth."),
            "image": (scenes.images[index].transpose(1, 2, 0), f"Image {scenes.names[index]}."),
        }
        images = "".join(
            f'<img class="{layer}" alt="{html.escape(words)}" '
            f'src="{_source(picture, "JPEG" if layer == "image" else "PNG")}">'
            for layer, (picture, words) in layers.items()
        )
        switches = "".join(
            f'<label><input type="checkbox" class="{name}"> {words}</label>'
            for name, words in (("left", "truth on the left"), ("only", "errors on the right"))
        )
        parts.append(
            f'<figure class="compare"><div class="layers">{images}</div>'
            f'<input type="range" value="50" aria-label="divider: {html.escape(title)}">'
            f"<figcaption>{html.escape(title)}<br>{switches}</figcaption></figure>"
        )
    return HTML(f'<div class="comparison">{"".join(parts)}</div>')


def _source(picture: np.ndarray, kind: str = "PNG") -> str:
    """Return a picture uint8 (H, W, 3) as the address of an image that is in the page itself."""
    file, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(picture))
    if kind == "PNG":  # of labels: as many colours as classes
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(file, kind, optimize=True, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"

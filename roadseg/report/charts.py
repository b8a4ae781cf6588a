"""Charts from tables: a function takes rows and returns a `Chart`; none reads a file.

Scores and differences come as fractions, as tables have them, and are drawn in percent or points.
"""

import itertools
import textwrap

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle

from roadseg.report.style import (
    BLUE,
    FONT,
    MARKERS,
    PALETTE,
    UNDECIDED,
    VERDICTS,
    Chart,
    legend_above,
    log_axis,
    subplots,
    values_text,
)

ROW = 0.235  # inches of height for a row of text
CELL = FONT - 1  # points of numbers in cells
MAX_CONFUSED = 24  # classes of a confusion matrix
MEASURES = {
    "gmacs": "multiply-adds per image (10⁹)",
    "latency_ms": "latency of one image (ms)",
    "parameters": "parameters",
}


def network_styles(names) -> dict[str, dict]:
    """Return each network's colour and marker; of 56 names no two share both."""
    return {
        name: {"color": PALETTE[n % 7], "marker": MARKERS[(n + 2 * (n // 7)) % len(MARKERS)]}
        for n, name in enumerate(dict.fromkeys(names))
    }


def signed(points: float) -> str:
    """Return points with a sign and one decimal, and a bare 0.0 for what rounds to it."""
    text = f"{points:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def _wrap(name: str, width: int = 32) -> str:
    return textwrap.fill(str(name), width)


def _rows(axis, names, *, size: float = FONT) -> None:
    """Name the rows of a chart, from the top."""
    axis.set_yticks(range(len(names)), [_wrap(name) for name in names], fontsize=size)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _height(names) -> float:
    """Return the inches that rows with these names need."""
    return sum(ROW + 0.13 * _wrap(name).count("\n") for name in names)


# The data.


def class_shares(shares: pd.DataFrame) -> Chart:
    """Show the share of the labelled pixels that each class has, from frequent to rare.

    `shares` has the index class and a column per split; a share of 0 is marked as absent.
    """
    order = shares.sort_values(list(shares.columns), ascending=False, kind="stable")
    place = np.arange(len(order))
    chart, axis = subplots(0.75 + ROW * len(order))
    absent = order[order > 0].min().min() / 4
    handles = []
    for number, (_, column) in enumerate(order.items()):
        style = {"marker": "os^D"[number], "color": PALETTE[number], "linestyle": ""}
        occurs = column > 0
        handles += axis.plot(column[occurs], place[occurs], **style)
        beside = np.full((~occurs).sum(), absent * 1.35 ** (number - 1))
        axis.plot(beside, place[~occurs], markerfacecolor="white", **style)
    _rows(axis, order.index)
    if (order == 0).any(axis=None):
        axis.set_xlim(left=absent / 2)
        axis.annotate("hollow: absent", (absent, 1), xycoords=("data", "axes fraction"),
                      ha="center", va="bottom", color="#5B6675")  # fmt: skip
    log_axis(axis, "share of the labelled pixels (log scale)")
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    legend_above(chart, handles, list(order.columns))
    return chart.described(
        f"Shares of the labelled pixels in {order.columns[0]}: "
        + values_text(order.index, 100 * order.iloc[:, 0], " %")
    )


def positions(grids: np.ndarray, classes: tuple[str, ...], columns: int = 5) -> Chart:
    """Show where each class sits: float (K, rows, columns), shares of the pixels of each cell.

    Each panel has its own scale, from white for none to the share in its title.
    """
    known = np.nan_to_num(grids)
    occurs = np.flatnonzero(known.max(axis=(1, 2)) > 0)
    lines = -(-len(occurs) // columns)
    height = 1.25 * grids.shape[1] / grids.shape[2] + 0.25
    chart, axes = subplots(0.1 + lines * height, lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, number in zip(axes.flat, occurs, strict=False):
        highest = known[number].max()
        axis.imshow(grids[number], cmap="Blues", vmin=0, vmax=highest, interpolation="nearest")
        axis.set_title(f"{_wrap(classes[number], 14)} {100 * highest:.0f} %", weight="normal",
                       pad=2, fontsize=CELL)  # fmt: skip
    return chart.described(
        "Where in the image each class sits; its highest share of a cell: "
        + values_text([classes[n] for n in occurs], 100 * known[occurs].max((1, 2)), " %")
    )


def object_sizes(sizes: pd.DataFrame) -> Chart:
    """Show how large the pieces of each class are: rows of `survey.sizes`."""
    order = sizes.sort_values("half", kind="stable", ascending=False)
    chart, axis = subplots(0.75 + ROW * len(order))
    for place, row in enumerate(order.itertuples()):
        axis.plot([row.low, row.high], [place, place], color=PALETTE[3], linewidth=3)
        axis.plot(row.median, place, "o", color=BLUE)
        axis.plot(row.half, place, "D", color=PALETTE[1], markersize=5)
    names = zip(order["class"], order["pieces"], strict=True)
    _rows(axis, [f"{name} ({count})" for name, count in names])
    log_axis(axis, "pixels per piece (log scale); in brackets: pieces")
    meanings = ["5 to 95 % of the pieces", "median piece", "half of the pixels in smaller ones"]
    legend_above(chart, axis.lines[:3], meanings[: len(axis.lines)])
    return chart.described(
        "Half of a class's pixels lie in pieces of at most so many pixels: "
        + values_text(order["class"], order["half"])
    )


def split_distances(distances: pd.DataFrame) -> Chart:
    """Show each image's distance from the nearest training image: columns split, distance."""
    known = distances.dropna(subset="distance")
    names = list(dict.fromkeys(known["split"]))
    medians = [known["distance"][known["split"] == name].median() for name in names]
    chart, axis = subplots(0.7 + 0.34 * len(names))
    for place, (name, middle) in enumerate(zip(names, medians, strict=True)):
        values = known["distance"][known["split"] == name].to_numpy()
        axis.plot(values, np.full(len(values), place), "|", color=PALETTE[place], markersize=13)
        axis.plot(middle, place + 0.32, "^", color="black", markersize=5)
    _rows(axis, ["train, to another" if name == "train" else name for name in names])
    axis.set(xlabel="distance from the nearest training image (grey levels); triangle: median",
             xlim=(0, None))  # fmt: skip
    return chart.described(
        "Median distance from the nearest training image, in grey levels: "
        + values_text(names, medians)
    )


# Training.


def curves(table: pd.DataFrame, arms: dict[str, str], batch: dict[str, float] | None = None):
    """Show training loss and val mIoU: each arm's mean, and a band over its seeds.

    Parameters
    ----------
    table : `Results.curves`
    arms : the name to show -> the arm's name in `table`; of more than five, five from the best to
        the worst by their last score on val
    batch : arm -> epochs per step, to show epochs; else steps
    """
    last = table.dropna(subset="val_miou").groupby("arm")["val_miou"].last()
    ranked = sorted(arms, key=lambda name: -last.get(arms[name], -1))
    shown = [ranked[n] for n in np.unique(np.linspace(0, len(ranked) - 1, 5).round().astype(int))]
    chart, (left, right) = subplots(2.75, 1, 2)
    for colour, name in zip(PALETTE, shown, strict=False):
        rows = table[table["arm"] == arms[name]]
        for axis, column, scale in ((left, "loss", 1), (right, "val_miou", 100)):
            wide = rows.pivot(index="step", columns="run", values=column).dropna() * scale
            at = wide.index * (batch[arms[name]] if batch else 1)
            axis.plot(at, wide.mean(axis=1), color=colour, linewidth=1.6)
            if wide.shape[1] > 1:
                axis.fill_between(at, wide.min(axis=1), wide.max(axis=1), color=colour,
                                  alpha=0.18, linewidth=0)  # fmt: skip
    unit = "epochs" if batch else "steps"
    left.set(xlabel=unit, ylabel="loss (nats per pixel)", ylim=(0, None))
    right.set(xlabel=unit, ylabel="mIoU on val (%)")
    legend_above(chart, left.lines, shown, columns=3)
    return chart.described(
        "Curves of loss and val mIoU. Last val mIoU: "
        + values_text(shown, [100 * last.get(arms[name], np.nan) for name in shown], " %")
    )


# Scores and differences.


def intervals(rows: pd.DataFrame) -> Chart:
    """Show test mIoU with its 95 % CI; columns label, test_miou, low, high."""
    chart, axis = subplots(0.55 + 1.15 * _height(rows["label"]))
    for y, row in enumerate(rows.itertuples()):
        x, low, high = 100 * row.test_miou, 100 * row.low, 100 * row.high
        axis.plot([low, high], [y, y], color=BLUE, linewidth=2)
        axis.plot(x, y, "o", color=BLUE)
        _label(axis, np.nanmax([x, high]), y, f"{x:.1f}")
    _rows(axis, rows["label"])
    axis.set_xlabel("mIoU on test (%), with 95 % CI")
    axis.margins(x=0.12)
    return chart.described(
        "Test mIoU: " + values_text(rows["label"], 100 * rows["test_miou"], " %")
    )


def _label(axis, x, y, text) -> None:
    """Write a value to the right of what is drawn up to x."""
    axis.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center")


def lengths(arms: pd.DataFrame) -> Chart:
    """Show test mIoU against training steps, a line for each label.

    Columns of `arms`: label, steps, test_miou, low, high.
    """
    chart, axis = subplots(2.75)
    handles, labels = [], list(dict.fromkeys(arms["label"]))
    for number, label in enumerate(labels):
        rows = arms[arms["label"] == label].sort_values("steps")
        score, low, high = (100 * rows[name] for name in ("test_miou", "low", "high"))
        at = rows["steps"] * 1.03 ** (number - (len(labels) - 1) / 2)  # whiskers side by side
        handles += axis.plot(at, score, "o-", color=PALETTE[number])
        axis.vlines(at, low, high, color=PALETTE[number])
    steps = sorted(arms["steps"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [f"{n}" for n in steps])
    axis.set(xlabel="training steps (log scale)", ylabel="mIoU on test (%), 95 % CI")
    legend_above(chart, handles, labels)
    names = [f"{row.label}, {row.steps} steps" for row in arms.itertuples()]
    return chart.described("Test mIoU in percent: " + values_text(names, 100 * arms["test_miou"]))


def _samples(row) -> np.ndarray:
    """Return the single differences, in points, that a comparison without an interval has."""
    text = getattr(row, "samples", "")  # NaN, read from a table, where it has none
    return 100 * np.array(text.split() if isinstance(text, str) else [], float)


def ladder(
    start: tuple[str, float], rows: pd.DataFrame, reference: pd.DataFrame | None = None
) -> Chart:
    """Show a ladder as steps from its first arm to its last, coloured by their verdicts.

    Parameters
    ----------
    start : name and test mIoU of the first arm
    rows : a comparison per rung with the rung before: columns label, difference, low, high, verdict
    reference : another ladder for a panel below it, one run each: columns trick (the first row is
        its start), miou, source
    """
    own = [start[0], *rows["label"], "with all of them"]
    others = [] if reference is None else [*reference["trick"], "with all of them"]
    heights = [_height(names) for names in (own, others) if names]
    chart, axes = subplots(
        0.9 + 0.35 * len(heights) + 1.1 * sum(heights), len(heights), 1, squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    _draw_steps(axes[0, 0], own, start[1], rows)
    shown = [verdict for verdict in ("helps", "hurts") if (rows["verdict"] == verdict).any()]
    colours = [VERDICTS[verdict] for verdict in shown] + [UNDECIDED]
    unknown = "no effect found" if rows["low"].notna().any() else "not known"
    legend_above(chart, [Patch(color=colour) for colour in colours], [*shown, unknown])
    if others:
        changes = np.diff(reference["miou"])
        other_rows = pd.DataFrame({"difference": changes, "low": np.nan, "high": np.nan,
                                   "verdict": ""})  # fmt: skip
        _draw_steps(axes[1, 0], others, reference["miou"].iloc[0], other_rows)
        source = reference["source"].iloc[0]
        axes[0, 0].set_title("this study")
        axes[1, 0].set_title(f"{source}: other data and network, one run each")
    return chart.described(
        "A ladder of tricks, each with the points of mIoU it adds: "
        + values_text(rows["label"], 100 * rows["difference"])
    )


def _draw_steps(axis, names, start, rows) -> None:
    """Draw a bar for the start, a floating step with its interval per rung, and a bar for the end."""
    steps, low, high = (100 * rows[name].to_numpy(float) for name in ("difference", "low", "high"))
    before = 100 * start + np.concatenate([[0], np.cumsum(steps)])
    samples = [x + _samples(row) for x, row in zip(before, rows.itertuples(), strict=False)]
    ends = np.concatenate([before, before[:-1] + low, before[:-1] + high, *samples])
    room = max(np.nanmax(ends) - np.nanmin(ends), 2)
    left = np.nanmin(ends) - 0.12 * room
    left = max(left, 0) if np.nanmin(ends) >= 0 else left
    foot = max(left, 0)
    axis.barh([0, len(names) - 1], before[[0, -1]] - foot, 0.62, foot, color="#3B4452")
    for y in (0, -1):
        _label(axis, before[y], y % len(names), f"{before[y]:.1f}")
    for y, (x, step, row) in enumerate(zip(before, steps, rows.itertuples(), strict=False), 1):
        colour = VERDICTS.get(row.verdict, UNDECIDED)
        axis.barh(y, step, 0.62, x, color=colour, edgecolor=colour)
        interval = x + low[y - 1], x + high[y - 1]
        if np.isfinite(interval).all():
            axis.plot(interval, (y, y), color="black", linewidth=1, marker="|", markersize=6)
        axis.plot(samples[y - 1], np.full(len(samples[y - 1]), y), "k.", markersize=5)
        _label(axis, np.nanmax([x, x + step, *interval, *samples[y - 1]]), y, signed(step))
    for y, x in enumerate(before):
        axis.plot((x, x), (y + 0.31, y + 0.69), color="black", linewidth=0.6)
    _rows(axis, names)
    cut = "; the axis does not start at 0" if left > 0 else ""
    axis.set(xlim=(left, np.nanmax(ends) + 0.16 * room), xlabel=f"mIoU on test (%){cut}")


def forest(groups: dict[str, pd.DataFrame], band: float = np.nan, meaning: str = "") -> Chart:
    """Show what each trick does in several comparisons: one marker and interval per group.

    Parameters
    ----------
    groups : what to call a group -> its comparisons: label, difference, low, high, verdict
    band : half the width of a light band around zero, as a fraction like the differences
    meaning : what the band is, in words
    """
    groups = {title: rows for title, rows in groups.items() if len(rows)}
    labels = dict.fromkeys(label for rows in groups.values() for label in rows["label"])
    line = 1 / (len(groups) + 0.6)  # a trick has a height of 1
    chart, axis = subplots(1.0 + len(labels) * max(0.2 / line, ROW))
    handles = []
    for place, (title, rows) in enumerate(groups.items()):
        colour = PALETTE[place % 7]
        for row in rows.itertuples():
            y = list(labels).index(row.label) + line * (place - (len(groups) - 1) / 2)
            axis.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6)
            axis.plot(_samples(row), np.full(len(_samples(row)), y), ".", color=colour)
            axis.plot(100 * row.difference, y, "o", color=colour,
                      markerfacecolor=colour if row.verdict in VERDICTS else "white")  # fmt: skip
        handles += axis.plot([], [], "o-", color=colour, label=title)
    names = list(groups)
    if band > 0:
        handles.append(axis.axvspan(-100 * band, 100 * band, color="#EEF0F3", zorder=0))
        names.append(meaning)
    axis.axvline(0, color="black", linewidth=0.8)
    for y in range(1, len(labels)):
        axis.axhline(y - 0.5, color="#E6E9ED", linewidth=0.8)
    _rows(axis, labels)
    axis.set_xlabel("change of test mIoU (points), 95 % CI; filled: a verdict after correction")
    legend_above(chart, handles, names, columns=3)
    return chart.described(
        " ".join(
            f"{title}, change of mIoU in points: "
            + values_text(rows["label"], 100 * rows["difference"])
            for title, rows in groups.items()
        )
    )


# Classes.


def class_effects(table: pd.DataFrame, limit: float) -> Chart:
    """Show what each trick does to each class, in points of IoU; framed where it has a verdict.

    Parameters
    ----------
    table : columns label, class, pixel_share (orders the classes), difference, verdict
    limit : the change that has the strongest colour, the same for all charts of a page
    """
    wide = 100 * table.pivot(index="label", columns="class", values="difference")
    judged = table.pivot(index="label", columns="class", values="verdict").isin(list(VERDICTS))
    shares = table.groupby("class")["pixel_share"].max().sort_values(ascending=False, kind="stable")
    columns = [name for name in shares.index if wide[name].notna().any()]
    labels = list(dict.fromkeys(table["label"]))
    wide, judged = wide.loc[labels, columns], judged.loc[labels, columns]
    if len(columns) > 16:  # with so many classes in a row the values would be too small to read
        wide, judged = wide.T, judged.T
    scale = LinearSegmentedColormap.from_list("effects", ["#B2550E", "white", BLUE])
    texts = wide.map(lambda value: "" if np.isnan(value) else
                     signed(value) if abs(value) < 9.95 else f"{value:+.0f}".replace("-", "−"))  # fmt: skip
    chart, axis = _cells(wide, texts, judged, cmap=scale, vmin=-100 * limit, vmax=100 * limit)
    for y, x in np.argwhere(judged.to_numpy()):
        axis.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, linewidth=1.4))
    return chart.described(
        f"What {len(labels)} changes do to the IoU of {len(columns)} classes, in points; "
        f"the largest is {np.nanmax(np.abs(wide.to_numpy()), initial=0):.1f}."
    )


def class_iou(classes: pd.DataFrame, arms: dict[str, str], reference: dict | None = None) -> Chart:
    """Show IoU of each class and network, classes from frequent to rare; bold: the class's best.

    Parameters
    ----------
    classes : columns arm, class, iou, pixel_share
    arms : the name to show -> the arm's name in `classes`
    reference : what others report: name -> class -> IoU (0..1); rows of their own
    """
    rows = classes[classes["arm"].isin(arms.values()) & classes["iou"].notna()]
    order = rows.sort_values("pixel_share", ascending=False)["class"].drop_duplicates()
    wide = rows.drop_duplicates(["arm", "class"]).pivot(index="arm", columns="class", values="iou")
    wide = 100 * wide.loc[list(arms.values()), order].set_axis(list(arms))
    for name, reported in (reference or {}).items():
        wide.loc[f"{name}, published"] = [100 * reported.get(each, np.nan) for each in order]
    best = wide.eq(wide.max())
    wide = wide.T if len(order) > 16 else wide
    best = best.T if len(order) > 16 else best
    texts = wide.map(lambda value: "" if np.isnan(value) else f"{value:.0f}")
    chart, _ = _cells(wide, texts, best & (wide >= 0.5), cmap="Blues", vmin=0, vmax=100)
    return chart.described(
        "IoU on test of each class and network, the mean over classes: "
        + values_text(arms, [100 * rows.loc[rows["arm"] == arm, "iou"].mean()
                             for arm in arms.values()], " %")
    )  # fmt: skip


def _cells(wide: pd.DataFrame, texts: pd.DataFrame, bold: pd.DataFrame, **scale):
    """Draw a table of coloured cells, with names of columns above them."""
    columns = [_wrap(name, 14) for name in wide.columns]
    longest = max(len(line) for name in columns for line in name.splitlines())
    chart, axis = subplots(0.25 + 0.058 * longest + 0.27 * len(wide))
    image = axis.imshow(wide.to_numpy(float), aspect="auto", interpolation="nearest", **scale)
    red, green, blue, _ = np.moveaxis(image.cmap(image.norm(wide.to_numpy(float))), -1, 0)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    for (y, x), text in np.ndenumerate(texts.to_numpy()):
        axis.text(x, y, text, ha="center", va="center", fontsize=CELL,
                  color="white" if dark[y, x] and text else "black",
                  weight="bold" if bold.iat[y, x] else "normal")  # fmt: skip
    _rows(axis, wide.index)
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(columns)), columns, rotation=90, va="bottom")
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return chart, axis


def confusion(counts: np.ndarray, classes: tuple[str, ...]) -> Chart:
    """Show counts (K, K), row truth, as shares of each true class, in percent.

    Of more classes than can be read, those that most pixels are confused with, and the rest as one.
    """
    totals, hits = counts.sum(1), np.diagonal(counts)
    columns, shares = list(classes), counts / np.maximum(totals, 1)[:, None]
    rows = np.flatnonzero(totals > 0)
    if len(classes) > MAX_CONFUSED:
        wrong = np.where(totals > 0, totals + counts.sum(0) - 2 * hits, -1)
        rows = np.sort(np.argsort(-wrong, kind="stable")[: min(MAX_CONFUSED, len(rows))])
        others = np.setdiff1d(np.arange(len(classes)), rows)
        columns = [*(classes[k] for k in rows), f"{len(others)} others"]
        shares = np.column_stack([shares[:, rows], shares[:, others].sum(1)])
    names = [classes[k] for k in rows]
    wide = pd.DataFrame(100 * shares[rows], names, columns)
    texts = wide.map(lambda value: f"{value:.0f}" if value >= 1 else "")
    chart, _ = _cells(wide, texts, wide < 0, cmap="Blues", vmin=0, vmax=100)
    return chart.described(
        "Which share of each true class was recognised: "
        + values_text(names, 100 * hits[rows] / totals[rows], " %")
    )


# Cost.


def accuracy_cost(
    arms: pd.DataFrame, styles: dict[str, dict], published: pd.DataFrame | None = None,
    split: str = "test",
) -> Chart:  # fmt: skip
    """Show mIoU against multiply-adds, with what others report in grey.

    Parameters
    ----------
    arms : columns label, network (a key of `styles`), test_miou, low, high, gmacs, and samples,
        the scores of single runs, where there is no interval
    published : columns network, miou, gmacs
    split : what the scores are called
    """
    chart, axis = subplots(3.5)
    points = [(row.gmacs, 100 * row.test_miou, row.label) for row in arms.itertuples()]
    for row in arms.itertuples():
        style = styles[row.network]
        axis.vlines(row.gmacs, 100 * row.low, 100 * row.high, color=style["color"], linewidth=1.6)
        if np.isnan(row.low) and len(row.samples) > 1:
            axis.plot([row.gmacs] * len(row.samples), 100 * np.array(row.samples), "_",
                      color=style["color"], markersize=10)  # fmt: skip
        axis.plot(row.gmacs, 100 * row.test_miou, linestyle="", markersize=7, **style)
    if published is not None and len(published):
        axis.plot(published["gmacs"], 100 * published["miou"], "D", color="#B4BBC4", markersize=5)
        points += [(r.gmacs, 100 * r.miou, r.network) for r in published.itertuples()]
    axis.margins(x=0.22, y=0.12)
    log_axis(axis, f"{MEASURES['gmacs']}, log scale", most=6)
    axis.set_ylabel(f"mIoU on {split} (%)")
    axis.set_ylim(top=min(axis.get_ylim()[1], 102))
    _name_points(chart, axis, points, grey=len(arms))
    return chart.described(
        f"{split.capitalize()} mIoU against multiply-adds: "
        + values_text([f"{name} at {x:.3g} billion" for x, _, name in points],
                      [y for _, y, _ in points], " %")
    )  # fmt: skip


def _name_points(chart: Chart, axis, points, grey: int, size: float = FONT - 0.5) -> None:
    """Write names beside points, each at the first of some places where it meets nothing."""
    chart.canvas.draw()
    pixels = axis.transData.transform([point[:2] for point in points])
    dots, frame = chart.dpi / 72, axis.get_window_extent()
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]
    taken += [
        (box.x0 - 2, box.y0, box.x1 + 2, box.y1)
        for box in (lines.get_window_extent() for lines in axis.collections)
    ]  # of intervals
    line = {"arrowstyle": "-", "color": UNDECIDED, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    for number, ((x_data, y_data, name), (x, y)) in enumerate(zip(points, pixels, strict=True)):
        wide, tall = 0.6 * size * dots * len(name), 1.25 * size * dots
        ups = (0, 0.8, -0.8, 1.6, -1.6, 2.5, -2.5, 3.5, -3.5, 4.5, -4.5, 6, -6)
        places = [
            (x + across if right else x - across - wide, y + up * tall - tall / 2)
            for up, across in itertools.product(ups, (8, 3))
            for right in (True, False)
        ]
        boxes = [(left, low, left + wide, low + tall) for left, low in places]
        inside = [b for b in boxes if frame.x0 <= b[0] and b[2] <= frame.x1 and b[1] >= frame.y0]
        free = [b for b in inside if not any(_overlap(b, other) for other in taken)]
        box = (free or inside or boxes)[0]
        taken.append(box)
        offset = ((box[0] - x) / dots, ((box[1] + box[3]) / 2 - y) / dots)
        far = abs(offset[1]) > size  # then a line says whose name it is
        axis.annotate(name, (x_data, y_data), xytext=offset, textcoords="offset points",
                      va="center", fontsize=size, arrowprops=line if far else None,
                      color="#5B6675" if number >= grey else "black")  # fmt: skip


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def pareto_fronts(table: pd.DataFrame, styles: dict[str, dict]) -> Chart:
    """Show test mIoU against each measure of cost, and the front that val scores choose.

    `table` holds the rows of `Results.pareto` of one question, with the column `title`, a key of
    `styles`. The staircase is what the best affordable network, chosen on val, scores on test;
    those on it are filled.
    """
    measures = list(dict.fromkeys(table["measure"]))
    names = table[table["measure"] == measures[0]].sort_values("cost")["title"]
    lines = -(-len(names) // 3)
    chart, axes = subplots(2.8 + 0.19 * lines, 1, len(measures), sharey=True, squeeze=False)
    handles = {}
    for axis, measure in zip(axes[0], measures, strict=True):
        rows = table[table["measure"] == measure].sort_values("cost")
        for row in rows.itertuples():
            style = styles[row.title]
            axis.vlines(row.cost, 100 * row.low, 100 * row.high, color=style["color"])
            (handles[row.title],) = axis.plot(
                row.cost, 100 * row.test_miou, linestyle="", markersize=7, **style,
                markerfacecolor=style["color"] if row.pareto_optimal else "white",
            )  # fmt: skip
        chosen = rows[rows["pareto_optimal"]]
        costs = [*chosen["cost"], rows["cost"].max() * 1.15]
        scores = [*chosen["test_miou"], chosen["test_miou"].iloc[-1]]
        axis.step(costs, 100 * np.array(scores), where="post", color=UNDECIDED, zorder=0)
        axis.margins(x=0.14)
        log_axis(axis, MEASURES[measure], most=3)
    axes[0][0].set_ylabel("mIoU on test (%), 95 % CI")
    legend_above(chart, [handles[name] for name in names], list(names), columns=3)
    scores = table.drop_duplicates("title").set_index("title")["test_miou"]
    return chart.described(
        "Test mIoU against measures of cost: " + values_text(names, 100 * scores[names], " %")
    )


def searches(table: pd.DataFrame, labels: dict[str, str], styles: dict[str, dict]) -> Chart:
    """Show what each learning rate of the searches scored on val; the chosen one is filled.

    `table` is `Results.searches`; `labels` maps its arms to the names to show, keys of `styles`.
    """
    chart, axis = subplots(2.9)
    handles = []
    for arm, name in labels.items():
        trials, style = table[table["arm"] == arm], styles[name]
        handles += axis.plot(trials["lr"], 100 * trials["val_miou"], markerfacecolor="white",
                             linewidth=1.2, **style)  # fmt: skip
        chosen = trials[trials["chosen"].astype(bool)]
        axis.plot(chosen["lr"], 100 * chosen["val_miou"], linestyle="", markersize=9, **style)
    rates = sorted(table["lr"].unique())
    axis.set(xscale="log", xlabel="learning rate (log scale)", ylabel="mIoU on val (%)")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_xticks([], minor=True)
    legend_above(chart, handles, list(labels.values()), columns=3)
    rows = table[table["chosen"].astype(bool)].set_index("arm")["lr"]
    return chart.described(
        "Val mIoU at each learning rate that was tried; chosen: "
        + values_text(labels.values(), [rows.get(arm, np.nan) for arm in labels])
    )


def layer_costs(table: pd.DataFrame) -> Chart:
    """Show multiply-adds and parameters of each layer that has weights, as shares in percent."""
    layers = table[table["parameters"] > 0]
    chart, axis = subplots(3)
    place = np.arange(len(layers))
    columns = {"multiply-adds": "gmacs", "parameters": "parameters"}
    for offset, (name, column) in zip((-0.2, 0.2), columns.items(), strict=True):
        share = 100 * layers[column] / layers[column].sum()
        axis.bar(place + offset, share, 0.4, label=name)
    axis.set_xticks(place, layers["layer"], rotation=90)
    axis.set_ylabel("share of the network (%)")
    axis.grid(False, axis="x")
    legend_above(chart, *axis.get_legend_handles_labels())
    return chart.described(
        "Each layer's share of the multiply-adds: "
        + values_text(layers["layer"], 100 * layers["gmacs"] / layers["gmacs"].sum(), " %")
    )


# Failures.


def reliability(table: pd.DataFrame, arms: dict[str, str], styles: dict[str, dict]) -> Chart:
    """Show accuracy minus confidence, and how many pixels have which confidence.

    Parameters
    ----------
    table : columns arm, above (the bin's lower end), pixels, correct, confidence (its sum)
    arms : the name to show, a key of `styles` -> the arm's name in `table`
    """
    chart, (left, right) = subplots(2.9, 1, 2)
    left.axhline(0, color="black", linewidth=0.8)
    handles = []
    for name, arm in arms.items():
        bins = table[(table["arm"] == arm) & (table["pixels"] > 0)]
        confidence = 100 * bins["confidence"] / bins["pixels"]
        gap = 100 * bins["correct"] / bins["pixels"] - confidence
        enough = bins["pixels"] >= 1e-3 * bins["pixels"].sum()  # fewer say little, draw the eye
        handles += left.plot(confidence[enough], gap[enough], linewidth=1.2, markersize=4,
                             **styles[name])  # fmt: skip
        right.plot(confidence, 100 * bins["pixels"] / bins["pixels"].sum(), linewidth=1.2,
                   markersize=4, **styles[name])  # fmt: skip
    left.set(xlabel="confidence (%)", ylabel="accuracy − confidence (points)", xlim=(0, 101))
    right.set(xlabel="confidence (%)", ylabel="share of test pixels (%)", xlim=(0, 101),
              ylim=(0, None))  # fmt: skip
    legend_above(chart, handles, list(arms), columns=3)
    return chart.described(
        f"Accuracy minus confidence, and the distribution of confidence, of {', '.join(arms)}."
    )


def boundaries(arms: pd.DataFrame) -> Chart:
    """Show boundary IoU beside mIoU; columns label, test_miou, boundary_iou (mean over classes)."""
    rows = arms[arms["boundary_iou"].notna()]
    chart, axis = subplots(0.75 + 1.1 * _height(rows["label"]))
    for y, row in enumerate(rows.itertuples()):
        near, whole = 100 * row.boundary_iou, 100 * row.test_miou
        axis.plot([near, whole], [y, y], color="#C4CAD2", linewidth=2, zorder=1)
        (boundary,) = axis.plot(near, y, "D", color=PALETTE[1], markersize=5)
        (mean,) = axis.plot(whole, y, "o", color=BLUE)
        _label(axis, max(near, whole), y, f"{whole:.1f}")
        axis.annotate(f"{near:.1f}", (min(near, whole), y), xytext=(-6, 0), va="center",
                      textcoords="offset points", ha="right")  # fmt: skip
    _rows(axis, rows["label"])
    axis.margins(x=0.15)
    axis.set_xlabel("on test (%), mean over classes and seeds")
    if len(rows):
        legend_above(chart, [boundary, mean], ["boundary IoU", "mIoU"])
    return chart.described(
        "Boundary IoU on test: " + values_text(rows["label"], 100 * rows["boundary_iou"], " %")
    )

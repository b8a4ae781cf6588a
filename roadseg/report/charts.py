"""Charts from tables: a function takes rows and returns a `Chart`; none reads a file.

Scores and differences come as fractions, as tables have them, and are drawn in percent or points.
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from roadseg.report.style import (
    BLUE,
    FONT,
    MARKERS,
    PALETTE,
    SOFT,
    UNDECIDED,
    VERDICTS,
    WIDTH,
    Chart,
    legend_above,
    log_axis,
    subplots,
    text_width,
    values_text,
    wrap,
)

ROW = 0.21  # inches of height for a row of text
CELL = 8  # points of numbers in cells
CELLS = LinearSegmentedColormap.from_list("cells", ["white", "#70B4E2"])  # black is read on all
MOST = 20  # columns of cells in which two digits have room
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


def signed(points: float, decimal: bool = True) -> str:
    """Return points with a sign, with one decimal or none, and a bare 0.0 for what rounds to it."""
    text = f"{points:+.{int(decimal)}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def _rows(axis, names, places=None, width: int = 38) -> None:
    """Name the rows of a chart, from the top; without `places` they are one apart."""
    names = [wrap(name, width) for name in names]
    axis.set_yticks(range(len(names)) if places is None else places, names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)
    # the font that measures has no letters of East Asia, which are wider than it thinks
    lines = [line for name in names for line in name.split("\n")]
    lacking = max((text_width(line) - len(line) for line in lines), default=0)
    room = 0.4 * FONT / 72 / WIDTH * lacking
    axis.figure.get_layout_engine().set(rect=(room, 0, 1 - room, 1))


def _height(names, row: float = ROW, width: int = 38) -> float:
    """Return the inches that rows with these names need, as high as the longest of them."""
    breaks = max((wrap(name, width).count("\n") for name in names), default=0)
    return len(names) * (row + 0.15 * breaks)


def _percents(names, fractions) -> str:
    return values_text(names, 100 * np.array(fractions), " %", "{:.1f}".format)


def _label(axis, x, y, text) -> None:
    """Write a value to the right of what is drawn up to x."""
    axis.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center")


def _samples(row) -> np.ndarray:
    """Return the single differences, in points, that a comparison without an interval has."""
    text = getattr(row, "samples", "")  # NaN, read from a table, where it has none
    return 100 * np.array(text.split() if isinstance(text, str) else [], float)


# The data.


def class_shares(shares: pd.DataFrame) -> Chart:
    """Show the share of the labelled pixels that each class has, from frequent to rare.

    `shares` has the index class and a column per split; hollow at the left: a share of 0.
    """
    order = shares.sort_values(list(shares.columns), ascending=False, kind="stable")
    chart, axis = subplots(0.5 + _height(order.index))
    absent = order[order > 0].min().min() / 2.5
    handles, labels = [], list(order.columns)
    for number, column in enumerate(order.columns):
        place = np.arange(len(order)) + 0.24 * (number - (len(order.columns) - 1) / 2)
        style = {"marker": MARKERS[number], "color": PALETTE[number], "linestyle": ""}
        occurs = order[column] > 0
        handles += axis.plot(order[column][occurs], place[occurs], markersize=5, **style)
        if not occurs.all():
            axis.plot(np.full((~occurs).sum(), absent), place[~occurs], markersize=5,
                      markerfacecolor="white", **style)  # fmt: skip
    if (order == 0).any(axis=None):
        handles.append(Line2D([], [], color=SOFT, marker="o", mfc="white", linestyle=""))
        labels.append("absent")
        axis.set_xlim(left=absent / 1.5)
    _rows(axis, order.index)
    log_axis(axis, "share of the labelled pixels (log scale)")
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    legend_above(chart, handles, labels)
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
    titles = [f"{wrap(classes[n], 14)} {100 * known[n].max():.0f} %" for n in occurs]
    height = 1.2 * grids.shape[1] / grids.shape[2] + 0.24
    height += 0.14 * max(title.count("\n") for title in titles)
    chart, axes = subplots(0.05 + lines * height, lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, number, title in zip(axes.flat, occurs, titles, strict=False):
        grid = known[number]
        axis.imshow(grid, cmap="Blues", vmin=0, vmax=grid.max(), interpolation="none")
        axis.set_title(title, weight="normal", pad=2, fontsize=CELL)
    return chart.described(
        "Where in the image each class sits; its highest share of a cell: "
        + values_text([classes[n] for n in occurs], 100 * known[occurs].max((1, 2)), " %")
    )


def object_sizes(sizes: pd.DataFrame) -> Chart:
    """Show how large the pieces of each class are: rows of `survey.sizes`."""
    order = sizes.sort_values("half", kind="stable", ascending=False)
    names = [f"{c} ({n})" for c, n in zip(order["class"], order["pieces"], strict=True)]
    chart, axis = subplots(0.5 + _height(names))
    for place, row in enumerate(order.itertuples()):
        axis.plot([row.low, row.high], [place, place], color=PALETTE[3], linewidth=3)
        axis.plot(row.median, place, "o", color=BLUE)
        axis.plot(row.half, place, "D", color=PALETTE[1], markersize=5)
    _rows(axis, names)
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
    chart, axis = subplots(0.5 + 0.34 * len(names))
    for place, (name, middle) in enumerate(zip(names, medians, strict=True)):
        values = known["distance"][known["split"] == name].to_numpy()
        axis.plot(values, np.full(len(values), place), "|", color=PALETTE[place % 7], markersize=13,
                  alpha=0.6)  # fmt: skip
        axis.plot(middle, place + 0.35, "^", color="black", markersize=5)
    _rows(axis, ["train, to another" if name == "train" else name for name in names])
    axis.set(xlabel="distance from the nearest training image (grey levels); triangle: median",
             xlim=(0, None))  # fmt: skip
    return chart.described(
        "Median distance from the nearest training image, in grey levels: "
        + values_text(names, medians)
    )


# Training.


def curves(
    table: pd.DataFrame,
    arms: dict[str, str],
    batch: dict[str, float] | None = None,
    styles: dict[str, dict] | None = None,
) -> Chart:
    """Show training loss and val mIoU: each arm's mean, and a band over its seeds.

    Parameters
    ----------
    table : `Results.curves`: columns run, arm, step, loss (nats per pixel), val_miou (0..1)
    arms : the name to show -> the arm's name in `table`; of more than five, five from the best to
        the worst by their last score on val
    batch : arm -> epochs per step, to show epochs; else steps
    styles : of the arms by the names to show, where each is of another network
    """
    scored = table.dropna(subset="val_miou")
    last = scored.groupby(["arm", "run"])["val_miou"].last().groupby("arm").mean()
    ranked = sorted(arms, key=lambda name: -last.get(arms[name], -1))
    shown = [ranked[n] for n in np.unique(np.linspace(0, len(ranked) - 1, 5).round().astype(int))]
    chart, (left, right) = subplots(2.4, 1, 2)
    for colour, name in zip(PALETTE, shown, strict=False):
        colour = styles[name]["color"] if styles else colour
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
        + _percents(shown, [last.get(arms[name], np.nan) for name in shown])
    )


# Scores and differences.


def intervals(rows: pd.DataFrame) -> Chart:
    """Show test mIoU with its 95 % CI; columns label, test_miou, low, high."""
    chart, axis = subplots(0.5 + _height(rows["label"], 0.27))
    for y, row in enumerate(rows.itertuples()):
        x, low, high = 100 * row.test_miou, 100 * row.low, 100 * row.high
        axis.plot([low, high], [y, y], color=BLUE, linewidth=2)
        axis.plot(x, y, "o", color=BLUE)
        _label(axis, np.nanmax([x, high]), y, f"{x:.1f}")
    _rows(axis, rows["label"])
    interval = ", with 95 % CI" if rows["low"].notna().any() else ""
    axis.set_xlabel(f"mIoU on test (%){interval}")
    axis.margins(x=0.12)
    return chart.described("Test mIoU: " + _percents(rows["label"], rows["test_miou"]))


def lengths(arms: pd.DataFrame) -> Chart:
    """Show test mIoU against training steps, a line for each label.

    Columns of `arms`: label, steps, test_miou, low, high.
    """
    chart, axis = subplots(2.5)
    handles, labels = [], list(dict.fromkeys(arms["label"]))
    steps = sorted(arms["steps"].unique())
    apart = (steps[-1] / steps[0]) ** 0.012  # draws whiskers side by side
    for number, label in enumerate(labels):
        rows = arms[arms["label"] == label].sort_values("steps")
        score, low, high = (100 * rows[name] for name in ("test_miou", "low", "high"))
        at = rows["steps"] * apart ** (number - (len(labels) - 1) / 2)
        handles += axis.plot(at, score, "o-", color=PALETTE[number % 7])
        axis.vlines(at, low, high, color=PALETTE[number % 7])
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [f"{n}" for n in steps])
    interval = ", 95 % CI" if arms["low"].notna().any() else ""
    axis.set(xlabel="training steps (log scale)", ylabel=f"mIoU on test (%){interval}")
    legend_above(chart, handles, labels)
    names = [f"{row.label}, {row.steps} steps" for row in arms.itertuples()]
    return chart.described("Test mIoU: " + _percents(names, arms["test_miou"]))


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
    heights = [_height(names, 0.25) for names in (own, others) if names]
    inches = sum(heights) + 0.5 + (0.85 if others else 0)
    chart, axes = subplots(inches, len(heights), 1, squeeze=False, height_ratios=heights)
    _draw_steps(axes[0, 0], own, start[1], rows)
    shown = [verdict for verdict in ("helps", "hurts") if (rows["verdict"] == verdict).any()]
    patches = [Patch(color=VERDICTS[verdict]) for verdict in shown]
    if rows["low"].notna().any():
        patches, shown = [*patches, Patch(color=UNDECIDED)], [*shown, "no effect found"]
    if others or rows["low"].isna().any():
        patches.append(Patch(facecolor="white", edgecolor=SOFT))
        shown.append("one run each: no verdict")
    legend_above(chart, patches, shown)
    if others:
        changes = np.diff(reference["miou"])
        other_rows = pd.DataFrame({"difference": changes, "low": np.nan, "high": np.nan,
                                   "verdict": ""})  # fmt: skip
        _draw_steps(axes[1, 0], others, reference["miou"].iloc[0], other_rows)
        source = reference["source"].iloc[0]
        axes[0, 0].set_title("this study")
        axes[1, 0].set_title(f"\n{source}: other data and network, one run each")
    return chart.described(
        f"A ladder of tricks from {100 * start[1]:.1f} % mIoU, each with the points it adds: "
        + values_text(rows["label"], 100 * rows["difference"], write=signed)
    )


def _draw_steps(axis, names, start, rows) -> None:
    """Draw a bar for the start, a floating step and its interval per rung, a bar for the end."""
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
        _label(axis, max(before[y], foot), y % len(names), f"{before[y]:.1f}".replace("-", "−"))
    for y, (x, step, row) in enumerate(zip(before, steps, rows.itertuples(), strict=False), 1):
        interval = x + low[y - 1], x + high[y - 1]
        known = np.isfinite(interval).all()
        colour = VERDICTS.get(row.verdict, UNDECIDED)
        axis.barh(y, step, 0.62, x, color=colour if known else "white",
                  edgecolor=colour if known else SOFT)  # fmt: skip
        if known:
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
    places, starts, edges, end, gap = {}, {}, [], 0, 0.7  # in lines from the top
    for label in dict.fromkeys(label for rows in groups.values() for label in rows["label"]):
        titles = [title for title, rows in groups.items() if (rows["label"] == label).any()]
        places |= {(title, label): end + n for n, title in enumerate(titles)}
        starts[label] = end
        edges.append(end - (1 + gap) / 2)
        end += len(titles) + gap
    inches = max(0.17, _height(starts) / len(starts) / (1 + gap))
    chart, axis = subplots(0.5 + inches * end)
    handles = []
    for number, (title, rows) in enumerate(groups.items()):
        colour = PALETTE[number % 7]
        for row in rows.itertuples():
            y, samples = places[title, row.label], _samples(row)
            axis.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.6)
            axis.plot(samples, np.full(len(samples), y), ".", color=colour, markersize=5)
            axis.plot(100 * row.difference, y, "o", color=colour,
                      markerfacecolor=colour if row.verdict in VERDICTS else "white")  # fmt: skip
        handles += axis.plot([], [], "o-", color=colour)
    names = list(groups)
    if band > 0:
        handles.append(axis.axvspan(-100 * band, 100 * band, color="#EEF0F3", zorder=0))
        names.append(meaning)
    axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    _rows(axis, starts, list(starts.values()))
    axis.hlines(edges[1:], 0, 1, color="#E6E9ED", linewidth=0.8, zorder=0,
                transform=axis.get_yaxis_transform())  # fmt: skip
    axis.set_ylim(end - (1 + gap) / 2, edges[0])
    axis.set_xlabel("change of test mIoU (points), 95 % CI; filled: a verdict")
    legend_above(chart, handles, names, columns=3)
    return chart.described(
        " ".join(
            f"{title}, change of mIoU in points: "
            + values_text(rows["label"], 100 * rows["difference"], write=signed)
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
    if len(columns) > MOST:  # with so many classes in a row the values would be too small to read
        wide, judged = wide.T, judged.T
    scale = LinearSegmentedColormap.from_list("effects", ["#E89B62", "white", "#70B4E2"])
    decimals = wide.shape[1] <= 12
    texts = wide.map(lambda value: signed(value, decimals and abs(value) < 9.95))
    chart, axis = _cells(wide, texts, judged, cmap=scale, vmin=-100 * limit, vmax=100 * limit)
    for y, x in np.argwhere(judged.to_numpy()):
        axis.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, linewidth=1.3))
    judged_rows = table[table["verdict"].isin(list(VERDICTS))]
    names = list(judged_rows["label"] + " on " + judged_rows["class"])
    found = values_text(names, 100 * judged_rows["difference"], write=signed)
    return chart.described(
        f"What {len(labels)} changes do to the IoU of {len(columns)} classes, in points; "
        f"the largest is {np.nanmax(np.abs(wide.to_numpy()), initial=0):.1f}. "
        + (f"With a verdict: {found}" if names else "None has a verdict.")
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
    best = wide.eq(wide.max()) & (wide >= 0.5) & (len(wide) > 1)
    if len(order) > MOST:
        wide, best = wide.T, best.T
    chart, _ = _cells(wide, wide.map("{:.0f}".format), best, cmap=CELLS, vmin=0, vmax=100)
    return chart.described(
        "IoU on test of each class and network, the mean over classes: "
        + _percents(arms, [rows.loc[rows["arm"] == arm, "iou"].mean() for arm in arms.values()])
    )


def _cells(wide: pd.DataFrame, texts: pd.DataFrame, bold: pd.DataFrame, note: str = "", **scale):
    """Draw a table of coloured cells, with the names of its columns above and a note below."""
    note = note or ("–: not measured" if wide.isna().any(axis=None) else "")
    letter = 0.6 * FONT  # points that a letter is wide
    count = max(wide.shape[1], 6)  # a single cell is not as wide as the page
    width = 32 if count <= 12 else 18
    beside = max(text_width(line) for name in wide.index for line in wrap(name, width).split("\n"))
    cell = (72 * WIDTH - letter * beside - 30) / count
    letters = max(int(cell / letter), 1)
    columns = [wrap(name, letters, whole_words=True).split("\n") for name in wide.columns]
    lying = all(text_width(line) <= letters for name in columns for line in name)
    if not lying:  # upright, in as many lines as a cell has room for
        most = max(int(cell / (1.4 * FONT)), 1)
        columns = [
            next(lines for width in itertools.count(14)
                 if len(lines := wrap(name, width).split("\n")) <= most)
            for name in wide.columns
        ]  # fmt: skip
    longest = letter * max(text_width(line) for name in columns for line in name)
    above = 1.3 * FONT * max(map(len, columns)) if lying else longest
    row = 0.18 if len(wide) > 12 else ROW
    chart, axis = subplots((0.35 if note else 0.15) + above / 72 + _height(wide.index, row, width))
    edges = [np.arange(size + 1) - 0.5 for size in wide.shape[::-1]]
    axis.pcolormesh(*edges, wide.to_numpy(float), edgecolor="white", linewidth=1, **scale)
    for (y, x), text in np.ndenumerate(texts.to_numpy()):
        axis.text(x, y, "–" if "nan" in text else text, ha="center", va="center", fontsize=CELL,
                  in_layout=False, weight="bold" if bold.iat[y, x] else "normal")  # fmt: skip
    _rows(axis, wide.index, width=width)
    axis.set(xlim=(-0.5, count - 0.5), xlabel=note)
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(columns)), ["\n".join(name) for name in columns],
                    rotation=0 if lying else 90)  # fmt: skip
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return chart, axis


def confusion(counts: np.ndarray, classes: tuple[str, ...]) -> Chart:
    """Show counts of pixels (K, K), row truth, as shares of each true class, in percent.

    Of more classes than can be read: those of most errors, and all others as one column.
    """
    totals, hits = counts.sum(1), np.diagonal(counts)
    columns, shares = list(classes), counts / np.maximum(totals, 1)[:, None]
    rows = np.flatnonzero(totals > 0)
    if len(classes) >= MOST:
        wrong = np.where(totals > 0, totals + counts.sum(0) - 2 * hits, -1)
        rows = np.sort(np.argsort(-wrong, kind="stable")[: min(MOST - 1, len(rows))])
        others = np.setdiff1d(np.arange(len(classes)), rows)
        columns = [*(classes[k] for k in rows), f"{len(others)} others"]
        shares = np.column_stack([shares[:, rows], shares[:, others].sum(1)])
    names = [classes[k] for k in rows]
    wide = pd.DataFrame(100 * shares[rows], names, columns)
    texts = wide.map(lambda value: f"{value:.0f}" if value >= 1 else "")
    note = "rows: truth; columns: prediction; empty: under 1 %"
    chart, _ = _cells(wide, texts, wide < 0, note, cmap=CELLS, vmin=0, vmax=100)
    return chart.described(
        "Which share of each true class was recognised: "
        + _percents(names, hits[rows] / totals[rows])
    )


# Cost.


def accuracy_cost(
    arms: pd.DataFrame, styles: dict[str, dict], published: pd.DataFrame | None = None,
    split: str = "test",
) -> Chart:  # fmt: skip
    """Show mIoU against multiply-adds, with what others report in grey.

    Names that do not fit beside their points go to a legend; what others report lacks them.

    Parameters
    ----------
    arms : columns label, network (a key of `styles`), test_miou, low, high, gmacs, and samples,
        the scores of single runs, where there is no interval
    published : columns network, miou, gmacs
    split : what the scores are called
    """
    chart, axis = subplots(3)
    points, handles = [], []
    for row in arms.itertuples():
        style, score = styles[row.network], 100 * row.test_miou
        ends = 100 * np.array([row.low, row.high])
        axis.vlines(row.gmacs, *ends, color=style["color"], linewidth=1.6)
        if np.isnan(row.low) and len(row.samples) > 1:
            ends = 100 * np.array([min(row.samples), max(row.samples)])
            axis.plot([row.gmacs] * len(row.samples), 100 * np.array(row.samples), "_",
                      color=style["color"], markersize=10)  # fmt: skip
        handles += axis.plot(row.gmacs, score, linestyle="", markersize=7, **style)
        ends = np.where(np.isnan(ends), score, ends)
        points.append((row.gmacs, score, str(row.label), *ends))
    if published is not None and len(published):
        axis.plot(published["gmacs"], 100 * published["miou"], "D", color="#B4BBC4", markersize=5)
        points += [(row.gmacs, 100 * row.miou, str(row.network), 100 * row.miou, 100 * row.miou)
                   for row in published.itertuples()]  # fmt: skip
    axis.margins(x=0.15, y=0.12)
    log_axis(axis, f"{MEASURES['gmacs']}, log scale")
    axis.set_ylabel(f"mIoU on {split} (%)")
    axis.set_ylim(top=min(axis.get_ylim()[1], 102))
    for height in (3, 3.5, 4.5):  # inches
        chart.set_figheight(height)
        nameless = _name_points(chart, axis, points, range(len(points)), grey=len(arms))
        if not nameless:
            break
    if nameless and min(nameless) < len(arms):
        legend_above(chart, handles, list(arms["label"]), columns=3)
        _name_points(chart, axis, points, range(len(arms), len(points)), grey=len(arms))
    return chart.described(
        f"{split.capitalize()} mIoU against multiply-adds: "
        + _percents([f"{name} at {x:.3g} billion" for x, _, name, *_ in points],
                    [y / 100 for _, y, *_ in points])
    )  # fmt: skip


def _name_points(chart: Chart, axis, points, numbers, grey: int) -> list[int]:
    """Write names beside points, where they meet nothing; return those that have no such place.

    Parameters
    ----------
    points : x, y, name, and the ends of the interval, in data coordinates
    numbers : which of the points to name
    grey : the number of the first point whose name is grey
    """
    for text in [*axis.texts]:
        text.remove()
    chart.draw_without_rendering()  # the layout decides where things are
    dot, frame, nameless, lines = chart.dpi / 72, axis.get_window_extent(), [], []
    pixels, lows, highs = (
        axis.transData.transform([(point[0], point[n]) for point in points]) for n in (1, 3, 4)
    )
    # what a point takes with its interval, and then the names; 4.5 points are half a marker
    taken = [Bbox([np.minimum(low, xy) - 4.5 * dot, np.maximum(high, xy) + 4.5 * dot])
             for xy, low, high in zip(pixels, lows, highs, strict=True)]  # fmt: skip
    for number in numbers:
        xy, own = pixels[number], taken[number]
        text = axis.annotate(
            wrap(points[number][2], 24), points[number][:2], xytext=(0, 0), ha="center",
            va="center", textcoords="offset points", in_layout=False,
            color=SOFT if number >= grey else "black",
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.7, "shrinkA": 1,
                        "shrinkB": 4},
        )  # fmt: skip
        half = Text.get_window_extent(text).size / 2 + 1.5
        beside, far = half[0] + 6 * dot, half[0] + 36 * dot
        near = [(beside, 0), (-beside, 0), (0, own.y1 - xy[1] + half[1] + dot),
                (0, own.y0 - xy[1] - half[1] - dot)]  # fmt: skip
        across = (beside, -beside, half[0] / 2, -half[0] / 2, far, -far)
        around = itertools.product(across, np.arange(-9, 10) * half[1])
        around = sorted(around, key=lambda offset: np.hypot(offset[0] / 2, offset[1]))
        others = [box for box in taken if box is not own]
        for offset in (*near, *around):
            box = Bbox([xy + offset - half, xy + offset + half])
            line = None if offset in near else Path([xy + offset, xy])  # says whose name it is
            if (
                (Bbox.union([frame, box]).extents == frame.extents).all()
                and not any(map(box.overlaps, taken))
                and not any(other.intersects_bbox(box, filled=False) for other in lines)
                and not (line and any(line.intersects_bbox(b, filled=False) for b in others))
            ):
                text.set_position(np.array(offset) / dot)
                text.arrow_patch.set_visible(line is not None)
                lines += [line] if line else []
                taken.append(box)
                break
        else:
            text.remove()
            nameless.append(number)
    return nameless


def pareto_fronts(table: pd.DataFrame, styles: dict[str, dict]) -> Chart:
    """Show test mIoU against each measure of cost, and the front that val scores choose.

    `table` holds the rows of `Results.pareto` of one question, with the column `title`, a key of
    `styles`. The staircase is what the best affordable network, chosen on val, scores on test;
    those on it are filled.
    """
    measures = list(dict.fromkeys(table["measure"]))
    names = table[table["measure"] == measures[0]].sort_values("cost")["title"]
    chart, axes = subplots(2.7, 1, len(measures), sharey=True, squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        rows = table[table["measure"] == measure].sort_values("cost")
        for row in rows.itertuples():
            style = styles[row.title]
            axis.vlines(row.cost, 100 * row.low, 100 * row.high, color=style["color"])
            inside = style["color"] if row.pareto_optimal else "white"
            axis.plot(row.cost, 100 * row.test_miou, linestyle="", markersize=7,
                      markerfacecolor=inside, **style)  # fmt: skip
        chosen = rows[rows["pareto_optimal"]]
        costs = [*chosen["cost"], rows["cost"].max() * 1.15]
        scores = [*chosen["test_miou"], chosen["test_miou"].iloc[-1]]
        (front,) = axis.step(costs, 100 * np.array(scores), where="post", color=SOFT, zorder=0)
        axis.margins(x=0.14)
        log_axis(axis, MEASURES[measure], most=4)
    interval = ", 95 % CI" if table["low"].notna().any() else ""
    axes[0, 0].set_ylabel(f"mIoU on test (%){interval}")
    handles = [Line2D([], [], linestyle="", markersize=7, **styles[name]) for name in names]
    legend_above(chart, [*handles, front], [*names, "Pareto front on val (filled)"])
    scores = table.drop_duplicates("title").set_index("title")["test_miou"]
    return chart.described("Test mIoU against measures of cost: " + _percents(names, scores[names]))


def searches(table: pd.DataFrame, labels: dict[str, str], styles: dict[str, dict]) -> Chart:
    """Show what each learning rate of the searches scored on val; the chosen one is filled.

    `table` is `Results.searches`; `labels` maps its arms to the names to show, keys of `styles`.
    """
    chart, axis = subplots(2.6)
    handles = []
    for arm, name in labels.items():
        trials, style = table[table["arm"] == arm], styles[name]
        handles += axis.plot(trials["lr"], 100 * trials["val_miou"], markersize=5,
                             markerfacecolor="white", linewidth=1.2, **style)  # fmt: skip
        chosen = trials[trials["chosen"].astype(bool)]
        axis.plot(chosen["lr"], 100 * chosen["val_miou"], linestyle="", markersize=8, **style)
    rates = sorted(table["lr"].unique())
    axis.set_ylabel("mIoU on val (%)")
    log_axis(axis, "learning rate (log scale)")
    if 1 < len(rates) < 6:
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    legend_above(chart, handles, list(labels.values()), columns=3)
    rows = table[table["chosen"].astype(bool)].set_index("arm")["lr"]
    return chart.described(
        "Val mIoU at each learning rate that was tried; chosen: "
        + values_text(labels.values(), [rows.get(arm, np.nan) for arm in labels])
    )


def layer_costs(table: pd.DataFrame) -> Chart:
    """Show multiply-adds and parameters of each layer that has weights, as shares in percent."""
    layers = table[table["parameters"] > 0]
    chart, axis = subplots(0.5 + _height(layers["layer"], 0.27))
    columns = {"multiply-adds": "gmacs", "parameters": "parameters"}
    for offset, colour, column in zip((-0.18, 0.18), PALETTE, columns.values(), strict=False):
        share = 100 * layers[column] / layers[column].sum()
        axis.barh(np.arange(len(layers)) + offset, share, 0.36, color=colour)
    _rows(axis, layers["layer"])
    axis.set_xlabel("share of the network (%)")
    legend_above(chart, axis.containers, list(columns))
    return chart.described(
        "Each layer's share of the multiply-adds: "
        + values_text(layers["layer"], 100 * layers["gmacs"] / layers["gmacs"].sum(), " %")
    )


# Failures.


def reliability(table: pd.DataFrame, arms: dict[str, str], styles: dict[str, dict]) -> Chart:
    """Show accuracy minus confidence, and the share of pixels of at most each confidence.

    Parameters
    ----------
    table : columns arm, above (the bin's lower end), pixels, correct, confidence (its sum)
    arms : the name to show, a key of `styles` -> the arm's name in `table`
    """
    chart, (left, right) = subplots(2.6, 1, 2)
    left.axhline(0, color="black", linewidth=0.8)
    handles, means = [], []
    for name, arm in arms.items():
        bins = table[table["arm"] == arm].sort_values("above")
        shares = 100 * bins["pixels"] / bins["pixels"].sum()
        enough = bins[shares >= 0.1]  # fewer pixels say little, and draw the eye
        confidence = 100 * enough["confidence"] / enough["pixels"]
        gap = 100 * enough["correct"] / enough["pixels"] - confidence
        style = {"linewidth": 1.2, "markersize": 4, **styles[name]}
        handles += left.plot(confidence, gap, **style)
        right.plot([*100 * bins["above"], 100], [0, *shares.cumsum()], **style)
        totals = bins[["correct", "confidence", "pixels"]].sum()
        means.append(100 * (totals["correct"] - totals["confidence"]) / totals["pixels"])
    left.set(xlabel="confidence (%)", ylabel="accuracy − confidence (points)", xlim=(0, 101))
    right.set(xlabel="confidence (%)", ylabel="test pixels of at most that (%)",
              xlim=(0, 101), ylim=(0, 101))  # fmt: skip
    legend_above(chart, handles, list(arms), columns=3)
    return chart.described(
        "Accuracy minus confidence, in points: " + values_text(arms, means, write=signed)
    )


def boundaries(arms: pd.DataFrame) -> Chart:
    """Show boundary IoU beside mIoU; columns label, test_miou, boundary_iou (mean over classes)."""
    rows = arms[arms["boundary_iou"].notna()]
    chart, axis = subplots(0.5 + _height(rows["label"], 0.27))
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
    legend_above(chart, [boundary, mean], ["boundary IoU", "mIoU"])
    return chart.described(
        "Boundary IoU on test: " + _percents(rows["label"], rows["boundary_iou"])
    )

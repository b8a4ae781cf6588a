import base64
import functools
import itertools
from unittest import mock
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import same_color
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from roadseg.config.paths import ROOT
from roadseg.report import charts, style

pytestmark = pytest.mark.filterwarnings("ignore:Glyph|constrained_layout")
HARD = ["$x_1$ <b>bold & \"plain\"</b> a class whose", "Straße, Gehweg und Fußgängerüberweg, naß",
        "歩道 sidewalk 道路標識", "AVeryLongCamelCaseNameWithoutAnySpaceInIt"]  # fmt: skip
REFERENCE = pd.read_csv(ROOT / "data" / "reference_ladder.csv")
PUBLISHED = pd.read_csv(ROOT / "data" / "reference.csv")
FOUND = ["helps", "hurts", "no effect found"]


def names(count, long=False):
    return [f"{HARD[n % 4][:37]}-{n}" if long else f"class-{n}" for n in range(count)]


def comparisons(labels, step=0.012, margin=0.01, verdicts=FOUND, samples=np.nan):
    """Return comparisons with differences of both signs."""
    differences = [step * (n + 1) * (-1) ** (n // 2) for n in range(len(labels))]
    return pd.DataFrame(
        {"label": labels, "difference": differences, "low": np.array(differences) - margin,
         "high": np.array(differences) + margin, "samples": samples,
         "verdict": [verdicts[n % len(verdicts)] for n in range(len(labels))]}
    )  # fmt: skip


def scores(labels, low=0.3, high=0.5, margin=0.02, costs=(0.05, 5)):
    """Return arms with what the charts of scores and costs read."""
    n = len(labels)
    miou = np.linspace(low, high, n)
    return pd.DataFrame(
        {"label": labels, "network": labels, "test_miou": miou, "low": miou - margin,
         "high": miou + margin, "gmacs": np.geomspace(*costs, n), "boundary_iou": miou / 2,
         "samples": [[value - 0.01, value + 0.02] for value in miou]}
    )  # fmt: skip


def one_seed(table, samples=None):
    table = table.assign(low=np.nan, high=np.nan)
    return table if samples is None else table.assign(samples=samples)


def curve_table(arms, seeds=3):
    return pd.DataFrame(
        [
            {"run": f"{arm}-s{seed}", "arm": arm, "step": step, "loss": 1 + (number + seed) / step,
             "val_miou": number / 100 + seed / 50 if step % 20 == 0 else np.nan}
            for number, arm in enumerate(arms)
            for seed in range(seeds)
            for step in (10, 20, 30, 40)
        ]
    )  # fmt: skip


def per_class(labels, classes, step=0.01):
    """Return rows for charts of effects and of IoU."""
    return pd.DataFrame(
        [
            {"label": label, "class": name, "pixel_share": 0.5**c, "difference": step * (c - t),
             "verdict": FOUND[(c + t) % 3], "arm": label, "iou": (t + c) % 7 / 7}
            for t, label in enumerate(labels)
            for c, name in enumerate(classes)
        ]
    )  # fmt: skip


def shares(classes, absent=0, splits=("train", "val", "test")):
    table = np.geomspace(0.4, 1e-5, len(classes))[:, None] * np.linspace(1, 0.7, len(splits))
    table[len(classes) - absent :, 1:] = 0
    return pd.DataFrame(table, classes, splits)


def sizes(classes):
    half = np.geomspace(2e4, 90, len(classes))
    return pd.DataFrame({"class": classes, "pieces": 1234, "low": half / 30, "median": half / 8,
                         "high": half * 2, "half": half})  # fmt: skip


def distances(splits, spread=10.0):
    values = np.linspace(30, 30 + spread, 12)
    return pd.DataFrame(
        {"split": np.repeat(splits, 12),
         "distance": np.concatenate([values + 5 * n for n, _ in enumerate(splits)])}
    )  # fmt: skip


def pareto(labels, spread=30.0):
    costs, miou = np.geomspace(1, spread, len(labels)), np.linspace(0.3, 0.4, len(labels))
    return pd.DataFrame(
        [
            {"measure": measure, "title": label, "cost": cost * unit, "test_miou": score,
             "low": score - 0.02, "high": score + 0.02, "pareto_optimal": n % 2 == 0}
            for measure, unit in (("gmacs", 0.06), ("latency_ms", 7.3), ("parameters", 9.7e5))
            for n, (label, cost, score) in enumerate(zip(labels, costs, miou, strict=True))
        ]
    )  # fmt: skip


def rates(arms, lrs=(0.001, 0.002, 0.004)):
    return pd.DataFrame(
        [{"arm": arm, "lr": lr, "val_miou": 0.2 + 0.01 * (n + k), "chosen": lr == lrs[-1]}
         for n, arm in enumerate(arms) for k, lr in enumerate(lrs)]
    )  # fmt: skip


def layers(labels):
    size = np.linspace(1, 5, len(labels))
    return pd.DataFrame({"layer": labels, "gmacs": size / 100, "parameters": 1000 * size**3})


def bins(arms):
    above = np.linspace(0, 0.9, 10)
    return pd.concat(
        pd.DataFrame({"arm": arm, "above": above, "pixels": [1, *[5000 + n] * 9],
                      "correct": [1, *(5000 * (above[1:] - 0.02 * n))],
                      "confidence": (above + 0.05) * [1, *[5000 + n] * 9]})
        for n, arm in enumerate(arms)
    )  # fmt: skip


def counts(classes, absent=0):
    table = np.random.default_rng(0).integers(1, 100, (classes, classes))
    table += 900 * np.eye(classes, dtype=int)
    table[classes - absent :] = 0
    return table


def same(labels):
    return {label: label for label in labels}


def styled(chart, labels, *more, **settings):
    return chart(*more, charts.network_styles(labels), **settings)


def forest(groups, labels, **settings):
    tables = {title: comparisons(labels, **settings) for title in groups}
    return charts.forest(tables, 0.01, "two single runs that differ only in their seed")


def several(labels, steps, **settings):
    return pd.concat([scores([label] * 3, **settings).assign(steps=steps) for label in labels])


GROUPS = ["on the ladder", "alone", "left out of all of them", "alone, from ImageNet weights",
          "left out, twice as long"]  # fmt: skip
SIZED = {  # name -> chart of some names, how many it usually has, and how many long ones at most
    "shares": (lambda n: charts.class_shares(shares(n, len(n) // 12)), 11, 65),
    "positions": (lambda n: charts.positions(np.ones((len(n), 12, 24)), n), 11, 14),
    "sizes": (lambda n: charts.object_sizes(sizes(n)), 11, 19),
    "curves": (lambda n: charts.curves(curve_table(n), same(n)), 9, 9),
    "intervals": (lambda n: charts.intervals(scores(n)), 6, 12),
    "lengths": (lambda n: charts.lengths(several(n, [40, 80, 160])), 2, 3),
    "ladder": (lambda n: charts.ladder(("fcn", 0.3), comparisons(n)), 6, 10),
    "two ladders": (lambda n: charts.ladder((n[0], 0.9), comparisons(n, 1e-3, 4e-3), REFERENCE), 6, 10),
    "forest": (lambda n: forest(GROUPS[:2], n), 6, 12),
    "effects": (lambda n: charts.class_effects(per_class(n[:5], n), 0.2), 11, 65),
    "effects, rows": (lambda n: charts.class_effects(per_class(["a"], n), 0.2), 11, 16),
    "iou": (lambda n: charts.class_iou(per_class(n[:5], n), same(n[:5]), {"FC-DenseNet103": {n[0]: 0.7}}), 11, 30),
    "confusion": (lambda n: charts.confusion(counts(len(n), len(n) // 9), n), 11, 65),
    "cost": (lambda n: styled(charts.accuracy_cost, n, scores(n)), 5, 12),
    "pareto": (lambda n: styled(charts.pareto_fronts, n, pareto(n)), 5, 12),
    "searches": (lambda n: styled(charts.searches, n, rates(n), same(n)), 3, 12),
    "layers": (lambda n: charts.layer_costs(layers(n)), 11, 20),
    "reliability": (lambda n: styled(charts.reliability, n, bins(n), same(n)), 4, 12),
    "boundaries": (lambda n: charts.boundaries(scores(n)), 6, 12),
}  # fmt: skip
CASES = {
    f"{title} of {count}, {'long' if long else 'short'}": functools.partial(draw, names(count, long))
    for title, (draw, usual, most) in SIZED.items()
    for count, long in ((1, False), (usual, False), (most, True))
} | {
    "alike shares": lambda: charts.class_shares(shares(names(3)).clip(0.3) + 0.1),
    "distances": lambda: charts.split_distances(distances(["train", "val", "test"])),
    "equal distances": lambda: charts.split_distances(distances(["train"], 0)),
    "curves of one run": lambda: charts.curves(curve_table(["a"], 1), {"a": "a"}, {"a": 0.03}),
    "score of one seed": lambda: charts.intervals(one_seed(scores(["a"]))),
    "wide intervals": lambda: charts.intervals(scores(names(3), 0, 0.05, 0.2)),
    "lengths of one seed": lambda: charts.lengths(one_seed(several(["a"], [12000, 12500, 13000]))),
    "ladder of one seed": lambda: charts.ladder(("a", 0.3), one_seed(comparisons(["b"]), "0.001 0.03"), REFERENCE),
    "ladder of equals": lambda: charts.ladder(("a", 0.3), comparisons(names(3), 0, 0)),
    "ladder below 0": lambda: charts.ladder(("a", 0.02), comparisons(names(10), -0.05, 0.2)),
    "forest of one seed": lambda: charts.forest({"alone": one_seed(comparisons(["a"]), "0.01 0.02")}),
    "forest of equals": lambda: forest(["alone"], names(2), step=0, margin=0),
    "large forest": lambda: forest(GROUPS, names(20, True)),
    "effects, absent classes": lambda: charts.class_effects(
        per_class(names(4), names(11)).assign(difference=[0.1, np.nan, *[-0.02] * 9] * 4), 0.2),
    "iou, absent classes": lambda: charts.class_iou(
        per_class(names(4), names(3)).assign(iou=[0.5, np.nan, np.nan, 0.5] * 3), same(names(4))),
    "no effects": lambda: charts.class_effects(per_class(["a"], names(11), 0), 0.2),
    "cost of one seed": lambda: styled(charts.accuracy_cost, ["a"], one_seed(scores(["a"]))),
    "cost beside others": lambda: styled(
        charts.accuracy_cost, names(5), scores(names(5)), published=PUBLISHED, split="val"),
    "cost, alike": lambda: styled(
        charts.accuracy_cost, names(8), scores(names(8), 0.4, 0.401, 0.005, (1, 1.008))),
    "pareto, alike": lambda: styled(charts.pareto_fronts, names(4), pareto(names(4), 1.008)),
    "pareto, wide": lambda: styled(charts.pareto_fronts, names(4), pareto(names(4), 3e4)),
    "many rates": lambda: styled(charts.searches, ["a"], rates(["a"], np.geomspace(1e-5, 1, 17)), same(["a"])),
}  # fmt: skip


def drawn(chart):
    """Draw a chart; return its texts, lines, collections of lines, and patches, as they were drawn."""
    found = []

    def watch(kind):
        draw = kind.draw

        def spy(artist, renderer, *rest):
            found.append(artist)
            return draw(artist, renderer, *rest)

        return mock.patch.object(kind, "draw", spy)

    FigureCanvasAgg(chart)  # a closed figure has none that draws
    with watch(Text), watch(Line2D), watch(LineCollection), watch(Rectangle), watch(FancyArrowPatch):
        chart.canvas.draw()
    return [artist for artist in dict.fromkeys(found) if artist.get_visible()]


def pieces(artist, dots):
    """Return what is drawn of an artist: (markers as boxes, lines as paths), in pixels."""
    if isinstance(artist, LineCollection):
        return [], [artist.get_transform().transform_path(path) for path in artist.get_paths()]
    path = artist.get_transform().transform_path(artist.get_path())
    if isinstance(artist, FancyArrowPatch) or (isinstance(artist, Rectangle) and not artist.get_fill()):
        return [], [path]
    if isinstance(artist, Rectangle):
        return [path.get_extents()], []
    points = path.vertices[np.isfinite(path.vertices).all(axis=1)]
    half = artist.get_markersize() * dots / 2
    wide = 0 if artist.get_marker() == "|" else half
    tall = 0 if artist.get_marker() == "_" else half
    marked = artist.get_marker() not in ("None", "", None)
    boxes = [Bbox([p - (wide, tall), p + (wide, tall)]) for p in points] if marked else []
    return boxes, [path] if artist.get_linestyle() != "None" and len(points) > 1 else []


def faults(chart, slack=0.5, gap=3):
    """Return what a reader would stumble over: texts that meet something, or are cut.

    Texts may reach `slack` pixels into what is drawn; two on one line are `gap` apart. Numbers of
    a heat map lie in their cells.
    """
    artists, page = drawn(chart), chart.bbox.padded(slack)
    texts = [artist for artist in artists if isinstance(artist, Text) and artist.get_text().strip()]
    extents = [Text.get_window_extent(text) for text in texts]  # of a note without its arrow
    aside = {chart.patch, *(axis.patch for axis in chart.axes)}
    aside |= {line for axis in chart.axes for line in (*axis.get_xgridlines(), *axis.get_ygridlines())}
    found, parts = [], []  # parts: artist, its box, and the line itself if it is one
    for artist in [a for a in artists if a not in aside and not isinstance(a, Text)]:
        filled, lines = pieces(artist, chart.dpi / 72)
        parts += [(artist, box, None) for box in filled]
        parts += [(artist, line.get_extents(), line) for line in lines]
    places = np.array([box.extents for _, box, _ in parts]).reshape(-1, 4)
    for text, box in zip(texts, extents, strict=True):
        inner, name = box.padded(-slack), text.get_text()
        found += [] if contains(page, box) else [f"{name!r} lies outside"]
        near = (places[:, :2] <= inner.max).all(1) & (places[:, 2:] >= inner.min).all(1)
        for artist, _, line in (parts[n] for n in np.flatnonzero(near)):
            met = line is None or line.intersects_bbox(inner, filled=False)
            if met and artist is not getattr(text, "arrow_patch", None):
                found.append(f"{name!r} over {type(artist).__name__}")
        if text.axes and any(isinstance(c, QuadMesh) for c in text.axes.collections):
            corners = text.axes.transData.transform(text.get_position() + np.array([[-0.5], [0.5]]))
            cell = Bbox([corners.min(0), corners.max(0)]).padded(slack)
            inside = text not in text.axes.texts or contains(cell, box)
            found += [] if inside else [f"{name!r} leaves its cell"]
    room = np.array([(0, gap / 2) if text.get_rotation() else (gap / 2, 0) for text in texts]) - slack / 2
    ends = np.array([box.extents for box in extents]) + np.hstack([-room, room])
    meet = (ends[:, None, :2] < ends[None, :, 2:]).all(2)
    return found + [f"{texts[a].get_text()!r} over {texts[b].get_text()!r}"
                    for a, b in np.argwhere(np.triu(meet & meet.T, 1))]  # fmt: skip


def contains(outer, inner):
    return outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1


@pytest.mark.parametrize("case", CASES)
def test_nothing_meets_a_text_and_none_is_cut(case):
    chart = CASES[case]()
    assert not faults(chart)
    assert chart.get_figwidth() == style.WIDTH and chart.alt


@pytest.mark.parametrize("draw", [
    lambda axis: [axis.text(0.5, 0.5, "one"), axis.text(0.51, 0.5, "other")],
    lambda axis: [axis.text(0.5, 0.5, "name", va="center"), axis.plot(0.52, 0.5, "o")],
    lambda axis: [axis.text(0.5, 0.5, "name"), axis.plot([0.51, 0.51], [0, 1])],
    lambda axis: [axis.text(0.5, 0.5, "name"), axis.vlines(0.51, 0, 1)],
    lambda axis: [axis.text(0.5, 0.5, "name"), axis.barh(0.5, 1, 0.5)],
    lambda axis: axis.text(0.99, 0.5, "a long name that is cut", in_layout=False),
    lambda axis: [axis.pcolormesh(np.ones((9, 9))), axis.text(3.5, 3.5, "over the edge of its cell")],
    lambda axis: axis.set_xticks([0.5, 0.52], ["tick", "tick"]),
])  # fmt: skip
def test_the_measure_finds_what_is_wrong_and_nothing_that_is_not_drawn(draw):
    chart, axis = style.subplots(2)
    axis.set_xticks([0.5, 9], ["half", "not within the limits, and much too long"])
    axis.set(xlim=(0, 1), ylim=(0, 1))
    for x, text in ((0.1, "seen"), (0.1, " "), (0.5, "")):
        axis.text(x, 0.9, text)
    axis.text(0.1, 0.9, "hidden", visible=False)
    assert not faults(chart)
    draw(axis)
    assert faults(chart)


def marked(axis, markers="osD^v"):
    """Return the points of an axis that have these markers, as an array (n, 2)."""
    lines = [line for line in axis.lines if str(line.get_marker()) in markers]
    return np.concatenate([np.column_stack(line.get_data(orig=False)).astype(float) for line in lines])


def spans(axis):
    """Return both ends of each horizontal interval."""
    return [tuple(x) for x, y in (line.get_data() for line in axis.lines) if len(x) == 2 and y[0] == y[1]]


def written(axis):
    return [text.get_text() for text in axis.texts]


def bars(axis):
    """Return (left, right, colour) of each bar, from the top."""
    patches = sorted(axis.patches, key=lambda patch: patch.get_y())
    return [(*sorted((p.get_x(), p.get_x() + p.get_width())), p.get_facecolor()) for p in patches]


def keys(chart):
    return [text.get_text() for text in chart.legends[0].get_texts()]


def test_a_ladder_s_steps_add_up_and_have_their_verdicts_colours():
    rows = comparisons(names(3))
    chart = charts.ladder(("fcn", 0.3), rows)
    (axis,) = chart.axes
    start, *steps, end = bars(axis)
    np.testing.assert_allclose([step[:2] for step in steps], [(30, 31.2), (31.2, 33.6), (30, 33.6)])
    assert (start[1], end[1]) == pytest.approx((30, 30)) and start[0] == end[0] == axis.get_xlim()[0]
    for step, colour in zip(steps, (style.HELPS, style.HURTS, style.UNDECIDED), strict=True):
        assert same_color(step[2], colour)
    np.testing.assert_allclose(spans(axis), [(30.2, 32.2), (32.6, 34.6), (29, 31)])
    assert written(axis) == ["30.0", "30.0", "+1.2", "+2.4", "−3.6"]
    assert all(text in chart.alt for text in ("class-0 +1.2", "class-2 −3.6", "30.0"))


def test_a_ladder_below_zero_keeps_its_bars_at_zero():
    (axis,) = charts.ladder(("fcn", 0.05), comparisons(["a"], -0.29)).axes
    assert bars(axis)[0][0] == bars(axis)[-1][1] == 0 and bars(axis)[-1][0] == pytest.approx(-24)


def test_the_reference_ladder_is_a_panel_of_its_own_without_intervals():
    own, other = charts.ladder(("fcn", 0.3), comparisons(names(2)), REFERENCE).axes
    assert len(spans(own)) == 2 and not spans(other)
    assert len(bars(other)) == len(REFERENCE) + 1
    assert bars(other)[-1][1] == pytest.approx(100 * REFERENCE["miou"].iloc[-1])


def test_without_an_interval_each_seed_is_a_dot():
    rows = one_seed(comparisons(["a"]), "0.001 0.03")
    for chart, start in ((charts.ladder(("fcn", 0.3), rows), 30), (charts.forest({"alone": rows}), 0)):
        np.testing.assert_allclose(marked(chart.axes[0], ".")[:, 0], [start + 0.1, start + 3])


def test_a_forest_has_a_marker_per_group_and_fills_verdicts():
    groups = {"ladder": comparisons(["a", "b", "c"]), "alone": comparisons(["c"]), "none": comparisons([])}
    chart = charts.forest(groups, 0.02, "band")
    (axis,) = chart.axes
    lines = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]
    x, y = np.transpose([line.get_xydata()[0] for line in lines])
    np.testing.assert_allclose(x, [1.2, 2.4, -3.6, 1.2])
    assert list(y) == sorted(y)  # rows are in the order of the tables
    assert [line.get_markerfacecolor() == "white" for line in lines] == [False, False, True, False]
    assert keys(chart) == ["ladder", "alone", "band"] and "alone" in chart.alt
    band = axis.patches[0]
    assert (band.get_x(), band.get_width()) == pytest.approx((-2, 4))


def test_intervals_and_boundaries_have_the_values_of_the_table():
    rows = scores(names(3))
    chart = charts.intervals(rows)
    np.testing.assert_allclose(marked(chart.axes[0]), [(30, 0), (40, 1), (50, 2)])
    np.testing.assert_allclose(spans(chart.axes[0]), [(28, 32), (38, 42), (48, 52)])
    assert written(chart.axes[0]) == ["30.0", "40.0", "50.0"] and "class-1 40.0 %" in chart.alt
    rows.loc[1, "boundary_iou"] = np.nan
    (axis,) = charts.boundaries(rows).axes
    np.testing.assert_allclose(marked(axis), [(15, 0), (30, 0), (25, 1), (50, 1)])


def test_shares_go_from_frequent_to_rare_and_mark_what_is_absent():
    table = shares(names(3)).iloc[::-1]
    table.iloc[0, 2] = 0
    chart = charts.class_shares(table)
    (axis,) = chart.axes
    train, _, test, absent = axis.lines
    np.testing.assert_allclose(train.get_xdata(), table["train"][::-1])
    assert len(test.get_xdata()) == 2 and absent.get_markerfacecolor() == "white"
    assert axis.get_xlim()[0] < absent.get_xdata()[0] < table[table > 0].min().min()
    assert "class-0 40 %" in chart.alt


def test_what_the_data_are_like_is_drawn_as_it_is():
    rows = sizes(names(2))
    (axis,) = charts.object_sizes(rows).axes
    np.testing.assert_allclose(marked(axis)[:, 0], rows[["median", "half"]].to_numpy().ravel())
    chart = charts.split_distances(distances(["train", "test"]))
    np.testing.assert_allclose(marked(chart.axes[0], "^")[:, 0], [35, 40])
    grids = np.stack([np.zeros((2, 3)), np.full((2, 3), 0.5)])
    panels = [axis for axis in charts.positions(grids, names(2)).axes if axis.images]
    assert len(panels) == 1 and panels[0].get_title("left") == "class-1 50 %"


def test_curves_are_five_at_most_from_the_best():
    table = curve_table(names(9), 2)
    table.loc[table["run"] == "class-8-s1", "val_miou"] = np.nan
    chart = charts.curves(table, {name.upper(): name for name in [*names(9), "gone"]}, dict.fromkeys(names(9), 0.5) | {"gone": 1})
    left, right = chart.axes
    assert len(left.lines) == len(right.lines) == 5
    shown = keys(chart)
    assert shown[0] == "CLASS-7" and shown[-1] == "GONE" and "CLASS-7 8.0 %" in chart.alt
    np.testing.assert_allclose(right.lines[0].get_xydata(), [(10, 8), (20, 8)])  # epochs, mean
    band = right.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((7, 9))


def test_lengths_are_a_line_per_label():
    rows = pd.concat([scores([label] * 2).assign(steps=[160, 40]) for label in ("plain", "flip")])
    (axis,) = charts.lengths(rows).axes
    for line in axis.lines:
        np.testing.assert_allclose(line.get_xdata(), [40, 160], rtol=0.05)
        np.testing.assert_allclose(line.get_ydata(), [50, 30])


def test_class_effects_frame_exactly_what_was_judged():
    table = per_class(["b", "a"], names(4))
    table.loc[table["class"] == "class-1", "difference"] = np.nan
    table["verdict"] = "no effect found"
    table.loc[[2, 4], "verdict"] = "helps", "hurts"  # of b on class-2, and of a on class-0
    chart = charts.class_effects(table, 0.5)
    (axis,) = chart.axes
    frames = [np.round(patch.get_center()) for patch in axis.patches]
    np.testing.assert_array_equal(frames, [(1, 0), (0, 1)])
    assert written(axis) == ["0.0", "+2.0", "+3.0", "−1.0", "+1.0", "+2.0"]
    assert [text.get_text() for text in axis.texts if text.get_weight() == "bold"] == ["+2.0", "−1.0"]
    assert axis.collections[0].get_clim() == (-50, 50)
    assert "b on class-2 +2.0" in chart.alt and "a on class-0 −1.0" in chart.alt


def test_class_iou_marks_the_best_of_each_class():
    chart = charts.class_iou(per_class(["x", "y"], names(3)), {"X": "x", "Y": "y"}, {"Z": {"class-0": 0.5}})
    (axis,) = chart.axes
    bold = [(*text.get_position(), text.get_text()) for text in axis.texts if text.get_weight() == "bold"]
    assert bold == [(1, 1, "29"), (2, 1, "43"), (0, 2, "50")]
    assert "X 14.3 %" in chart.alt


def test_a_large_confusion_matrix_folds_the_rest_and_adds_up():
    table = counts(65, 3)
    (axis,) = charts.confusion(table, names(65)).axes
    values = axis.collections[0].get_array()
    assert values.shape == (charts.MOST - 1, charts.MOST)
    np.testing.assert_allclose(values.sum(1), 100)
    (axis,) = charts.confusion(table[:5, :5], names(5)).axes
    shown = axis.collections[0].get_array()
    np.testing.assert_allclose(shown, 100 * table[:5, :5] / table[:5, :5].sum(1, keepdims=True))


def test_points_of_cost_and_accuracy_are_the_table_s():
    arms = scores(names(3))
    chart = styled(charts.accuracy_cost, names(3), arms, published=PUBLISHED)
    np.testing.assert_allclose(marked(chart.axes[0]), [
        *zip(arms["gmacs"], 100 * arms["test_miou"], strict=True),
        *zip(PUBLISHED["gmacs"], 100 * PUBLISHED["miou"], strict=True),
    ])  # fmt: skip
    assert "class-1 at 0.5 billion 40.0 %" in chart.alt
    chart = styled(charts.pareto_fronts, names(3), pareto(names(3)))
    assert len(chart.axes) == 3 and keys(chart)[:3] == names(3)
    np.testing.assert_allclose(marked(chart.axes[0])[:, 1], [30, 35, 40])
    stairs = next(line for line in chart.axes[0].lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_allclose(stairs.get_ydata(), [30, 40, 40])  # not the second, which is off it


def test_searches_fill_the_chosen_rate_and_layers_have_shares():
    line, chosen = styled(charts.searches, ["a"], rates(["a"]), same(["a"])).axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [(0.001, 20), (0.002, 21), (0.004, 22)])
    assert chosen.get_xydata().tolist() == [[0.004, 22]]
    assert line.get_markerfacecolor() == "white" != chosen.get_markerfacecolor()
    table = pd.concat([layers(names(3)), layers(["relu"]).assign(parameters=0)])
    (axis,) = charts.layer_costs(table).axes
    widths = [[bar.get_width() for bar in container] for container in axis.containers]
    np.testing.assert_allclose(np.sum(widths, 1), 100)
    np.testing.assert_allclose(widths[0], [100 / 9, 300 / 9, 500 / 9])


def test_reliability_leaves_bins_of_few_pixels_out_at_the_left():
    table = bins(["a"])
    chart = styled(charts.reliability, ["a"], table, {"a": "a"})
    left, right = (axis.lines[-1] for axis in chart.axes)
    np.testing.assert_allclose(left.get_xdata(), 100 * table["above"][1:] + 5)
    np.testing.assert_allclose(left.get_ydata(), -5)
    np.testing.assert_allclose(right.get_ydata()[[1, 2, -1]], 100 * np.array([1, 5001, 45001]) / 45001)
    assert "a −5.0" in chart.alt


def test_styles_are_distinct():
    styles = charts.network_styles(names(56))
    assert len({tuple(look.values()) for look in styles.values()}) == 56


@pytest.mark.parametrize("points, text", [(0.02, "0.0"), (-0.04, "0.0"), (-1.26, "−1.3"), (3, "+3.0")])
def test_a_difference_that_rounds_to_zero_has_no_sign(points, text):
    assert charts.signed(points) == text


@pytest.mark.parametrize("most", [4, 5, 6])
def test_a_log_axis_has_at_least_three_labels(most):
    for low, factor in itertools.product((3e-6, 0.7, 1.1e6), (1.01, 1.3, 2.2, 5, 40, 1e3, 1e9)):
        _, axis = style.subplots(1)
        axis.set(xscale="log", xlim=(low, low * factor))
        style.log_axis(axis, "")
        style.log_axis(axis, "", most)
        assert 3 <= len(axis.get_xticks()) <= most, (low, factor)


@pytest.mark.parametrize("case", ["boundaries of 12, long", "two ladders of 6, short", "effects of 11, short", "cost of 5, short", "positions of 1, short"])
def test_svg_is_xml_with_text_and_a_description(case):
    svg = CASES[case]().svg()
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label") == CASES[case]().alt
    assert "<style" not in svg and "<b>" not in svg
    assert root.find(".//{http://www.w3.org/2000/svg}text") is not None
    assert svg == CASES[case]().svg()


def test_a_chart_shows_itself_with_title_and_caption():
    before = plt.get_fignums()
    chart = CASES["distances"]().titled("a <b> title", "a & caption", with_png=True)
    bundle = chart._repr_mimebundle_()
    assert "a &lt;b&gt; title" in bundle["text/html"] and "a &amp; caption" in bundle["text/html"]
    assert bundle["text/html"].count("<svg") == 1 and chart.alt in bundle["text/plain"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "image/png" not in CASES["distances"]()._repr_mimebundle_()
    assert plt.get_fignums() == before

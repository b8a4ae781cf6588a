import base64
import io
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from roadseg.config.paths import ROOT
from roadseg.data.scenes import CITYSCAPES
from roadseg.report import figures
from roadseg.report.page import compress_png

GREEN, VERMILION, GREY = figures.PALETTE[2], figures.PALETTE[1], figures.UNDECIDED


def comparison(trick, difference, verdict, margin=0.01):
    return {
        "question": "s", "trick": trick, "arm": f"with-{trick}", "against": "before",
        "difference": difference, "low": difference - margin, "high": difference + margin,
        "verdict": verdict,
    }  # fmt: skip


def ladder(steps, start=0.3, margin=0.01):
    """Return arms and comparisons of a ladder with these (difference, verdict) steps."""
    rows = [comparison(f"trick-{n}", *step, margin) for n, step in enumerate(steps)]
    scores = start + np.cumsum([0, *(difference for difference, _ in steps)])
    arms = ["fcn-8s", *(row["arm"] for row in rows)]
    return pd.DataFrame({"arm": arms, "test_miou": scores}), pd.DataFrame(rows)


STEPS = [(0.031, "helps"), (-0.02, "hurts"), (0.004, "no effect found")]
REFERENCE = pd.read_csv(ROOT / "data" / "reference_ladder.csv")


def bars(axis):
    """Return (left end, right end, colour) of each bar, from top to bottom."""
    rectangles = sorted((p for p in axis.patches if isinstance(p, Rectangle)), key=lambda p: p.get_y())
    return [
        (*sorted((p.get_x(), p.get_x() + p.get_width())), colors.to_hex(p.get_facecolor(), False))
        for p in rectangles
    ]


def whiskers(axis):
    return [line for line in axis.lines if line.get_marker() == "|"]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def boxes(figure):
    """Return the places of all texts of a figure, drawn."""
    canvas = FigureCanvasAgg(figure)  # a closed figure has none that draws
    canvas.draw()
    renderer = canvas.get_renderer()
    extents = []
    for axis in figure.axes:
        legend = axis.get_legend()
        texts = [*axis.texts, axis.xaxis.label, axis.yaxis.label, axis.title, axis._left_title]
        texts += legend.get_texts() if legend else []
        for which, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            for tick, label in zip(which.get_ticklocs(), which.get_ticklabels(), strict=True):
                texts += [label] if min(low, high) <= tick <= max(low, high) else []  # else not drawn
        extents += [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
    return extents


def overlaps(figure):
    def both(a, b):  # a pixel of slack: boxes are a little larger than the letters
        return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1

    pairs = itertools.combinations(boxes(figure), 2)
    return [(one, other) for (one, a), (other, b) in pairs if both(a, b)]


def same_colour(colour, expected):
    return colors.to_hex(colour, False) == colors.to_hex(expected, False)


def test_a_waterfall_has_a_step_per_rung_in_the_colour_of_its_verdict():
    figure = figures.waterfall(*ladder(STEPS))
    (axis,) = figure.axes
    start, *steps, end = bars(axis)
    step_colours = [colour for *_, colour in steps]
    assert [c.upper() for c in step_colours] == [GREEN, VERMILION, GREY]
    assert np.allclose([ends[:2] for ends in steps], [(30, 33.1), (31.1, 33.1), (31.1, 31.5)])
    assert start[1] == pytest.approx(30) and end[1] == pytest.approx(31.5)
    assert {"30.0", "+3.1", "−2.0", "+0.4", "31.5"} == set(texts(axis))
    # each interval stands around the end of its step
    ends = [tuple(line.get_xdata()) for line in whiskers(axis)]
    assert np.allclose(ends, [(32.1, 34.1), (30.1, 32.1), (30.5, 32.5)])
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["fcn-8s", "trick-0", "trick-1", "trick-2", "all of them"]
    keys = [text.get_text() for text in axis.get_legend().get_texts()]
    assert keys == ["helps", "hurts", "no effect found"]


def test_lengths_are_a_line_for_each_label():
    arms = pd.DataFrame(
        {"label": ["plain", "plain", "flip", "flip"], "steps": [40, 160, 160, 40],
         "test_miou": [0.2, 0.3, 0.35, 0.15], "low": [0.1, 0.2, 0.3, 0.1], "high": [0.3, 0.4, 0.4, 0.2]}
    )  # fmt: skip
    (axis,) = figures.lengths(arms).axes
    plain, flip = (container[0] for container in axis.containers)
    np.testing.assert_allclose(plain.get_xydata(), [[40, 20], [160, 30]])
    np.testing.assert_allclose(flip.get_xydata(), [[40, 15], [160, 35]])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["plain", "flip"]


def test_what_cannot_be_known_has_no_whisker():
    arms, rows = ladder(STEPS)
    rows.loc[1, ["low", "high"]] = np.nan
    assert len(whiskers(figures.waterfall(arms, rows).axes[0])) == 2
    arms, rows = ladder([(0.02, "no effect found")])
    rows[["low", "high"]] = np.nan
    (axis,) = figures.waterfall(arms, rows).axes
    assert not whiskers(axis) and "no interval" in axis.get_title("left")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["not known"]


def test_where_there_is_no_interval_each_seed_is_a_dot():
    arms, rows = ladder([(0.02, "no effect found")])
    rows = rows.assign(low=np.nan, high=np.nan, seeds=2, samples="0.01 0.03")
    (axis,) = figures.waterfall(arms, rows).axes
    start = 100 * arms.test_miou.iloc[0]
    dots = [line for line in axis.lines if line.get_marker() == "." and len(line.get_xdata())]
    np.testing.assert_allclose(dots[0].get_xdata(), [start + 1, start + 3])
    assert "single seeds" in axis.get_title("left")
    for figure in (figures.forest({"alone": rows}), figures.differences([row for _, row in rows.iterrows()])):
        dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
        np.testing.assert_allclose(dots[0].get_xdata(), [1, 3])
        assert "single seeds" in figure.axes[0].get_xlabel()


def test_the_course_ladder_stands_beside_it_without_intervals():
    study, course = figures.waterfall(*ladder(STEPS), REFERENCE).axes
    assert not whiskers(course) and len(whiskers(study)) == len(STEPS)
    assert len(bars(course)) == len(REFERENCE) + 1
    assert {"61.4", "+6.9", "+0.3", "78.5", "one run each, no intervals"} <= set(texts(course))
    assert REFERENCE["source"].iloc[0] in course.get_title("left")
    # rows of both panels are equally high, and start at the same height
    heights = [axis.get_position().height / len(bars(axis)) for axis in (study, course)]
    assert heights[0] == pytest.approx(heights[1])
    assert study.get_position().y1 == pytest.approx(course.get_position().y1)


def test_the_course_ladder_is_the_one_that_was_reported():
    assert list(REFERENCE.columns) == ["trick", "miou", "source"]
    scores = [0.6141, 0.6831, 0.7234, 0.7467, 0.7598, 0.7812, 0.7845]
    assert list(REFERENCE["miou"]) == scores
    assert set(REFERENCE["source"]) == {"arXiv 2206.12571"}


@pytest.mark.parametrize("rungs", [1, 2, 9, 20])
@pytest.mark.parametrize("step", [0.012, -0.012, 0.0])
def test_no_texts_of_a_waterfall_overlap_and_none_leaves_its_panel(rungs, step):
    arms, rows = ladder([(step, "no effect found")] * rungs)
    rows.loc[0, "trick"] = "-".join(["a-rather-long-name"] * 3)
    figure = figures.waterfall(arms, rows, REFERENCE)
    assert not overlaps(figure)
    for axis in figure.axes:
        panel = axis.get_window_extent()
        for text in axis.texts[:-1]:
            assert text.get_window_extent().x1 <= panel.x1, text.get_text()


def test_a_ladder_that_falls_to_zero_keeps_its_bars_at_zero():
    (axis,) = figures.waterfall(*ladder([(-0.29, "hurts")], margin=0.05)).axes
    assert bars(axis)[0][0] == bars(axis)[-1][0] == 0
    assert axis.get_xlim()[0] < -4 and "start" not in axis.get_xlabel()
    (axis,) = figures.waterfall(*ladder(STEPS)).axes
    assert axis.get_xlim()[0] > 0 and "does not start at 0" in axis.get_xlabel()


def markers(axis):
    return [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]


def test_a_forest_fills_the_markers_whose_verdict_is_an_effect():
    groups = {
        "on the ladder": [comparison("a", 0.03, "helps"), comparison("b", 0.001, "no effect found")],
        "alone": pd.DataFrame([comparison("b", -0.03, "hurts")]),
        "nowhere": [],
    }
    figure = figures.forest(groups, 0.015, "two runs apart")
    (axis,) = figure.axes
    drawn = markers(axis)
    assert np.allclose([line.get_xdata()[0] for line in drawn], [3, 0.1, -3])
    hollow = [same_colour(line.get_markerfacecolor(), "white") for line in drawn]
    assert hollow == [False, True, False]
    assert same_colour(drawn[0].get_color(), drawn[1].get_color())
    assert not same_colour(drawn[0].get_color(), drawn[2].get_color())
    # a trick that was tried in one place stands in the middle of its row
    heights = [line.get_ydata()[0] for line in drawn]
    assert heights[0] == 0 and heights[1] < 1 < heights[2]
    keys = [text.get_text() for text in axis.get_legend().get_texts()]
    assert keys == ["on the ladder", "alone", "two runs apart"]
    assert "+3.0 (+2.0 to +4.0)" in texts(axis)
    assert not overlaps(figure)


def test_a_forest_without_intervals_or_band():
    row = comparison("a", 0.03, "no effect found", np.nan)
    (axis,) = figures.forest({"on the ladder": [row]}).axes
    assert texts(axis) == ["+3.0"] and not axis.patches
    assert len(axis.lines) == 3  # marker, entry of the legend, zero


@pytest.mark.parametrize("tricks, places", [(1, 1), (12, 3), (20, 5)])
def test_no_texts_of_a_forest_overlap(tricks, places):
    rows = [comparison(f"trick-{n}", 0.01 * (-1) ** n, "no effect found") for n in range(tricks)]
    figure = figures.forest({f"place {n}": rows for n in range(places)}, 0.01, "band")
    assert len(markers(figure.axes[0])) == tricks * places
    assert not overlaps(figure)


def class_table(tricks, classes):
    rows = [
        comparison(f"trick-{t}", 0.01 * (c - t), "no effect found")
        | {"class": f"class-{c}", "pixel_share": 0.5 ** (classes - c)}
        for t in range(tricks)
        for c in range(classes)
    ]
    return pd.DataFrame(rows)


def test_class_gains_frame_what_was_seen_on_a_symmetric_scale():
    table = class_table(2, 4)
    table.loc[3, ["difference", "verdict"]] = 0.12, "helps"
    table.loc[4, "verdict"] = "hurts"
    table.loc[table["class"] == "class-1", "difference"] = np.nan
    figure = figures.class_gains(table)
    axis = figure.axes[0]
    # rare classes last; the class that nothing is known about is left out
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["class-3", "class-2", "class-0"]
    assert texts(axis) == ["+12", "+2.0", "0.0", "+2.0", "+1.0", "−1.0"]
    assert axis.collections[0].get_clim() == pytest.approx((-12, 12))
    frames = [(round(p.get_x()), round(p.get_y())) for p in axis.patches]
    assert frames == [(0, 0), (2, 1)]
    bold = [text.get_text() for text in axis.texts if text.get_weight() == "bold"]
    assert bold == ["+12", "−1.0"]


@pytest.mark.parametrize("tricks, classes", [(1, 2), (2, 11), (12, 19), (14, 40)])
def test_no_texts_of_class_gains_overlap(tricks, classes):
    figure = figures.class_gains(class_table(tricks, classes))
    axis = figure.axes[0]
    assert len(axis.texts) == tricks * classes
    # turned labels lie side by side though their boxes do not
    turned = {label.get_text() for label in axis.get_xticklabels()}
    assert not [pair for pair in overlaps(figure) if not turned & set(pair)]
    assert bool(axis.get_ylabel()) == (classes > 20)  # many classes go down, not across


def curve_table(arms, seeds):
    return pd.DataFrame(
        [
            {
                "run": f"{arm}-s{seed}", "arm": arm, "seed": seed, "step": step, "loss": 1 / step,
                "val_miou": number / 100 + seed / 50 if step % 20 == 0 else np.nan,
            }
            for number, arm in enumerate(arms)
            for seed in range(seeds)
            for step in (10, 20, 30, 40)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("count, seeds", [(1, 1), (3, 3), (12, 2), (20, 1)])
def test_curves_have_a_line_per_arm_and_a_band_over_its_seeds(count, seeds):
    arms = [f"arm-{n}" for n in range(count)]
    figure = figures.curves(curve_table(arms, seeds), {f"shown {arm}": arm for arm in arms})
    for axis in figure.axes:
        assert len(axis.lines) == count
        assert len(axis.collections) == (count if seeds > 1 else 0)
        looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
        assert len(looks) == count
    legend = figure.axes[1].get_legend()
    # named from the best to the worst, as the lines end
    assert [t.get_text() for t in legend.get_texts()] == [f"shown {arm}" for arm in arms[::-1]]
    assert list(figure.axes[1].lines[0].get_xdata()) == [20, 40]
    if seeds > 1:
        band = figure.axes[1].collections[0].get_paths()[0].get_extents()
        assert (band.y0, band.y1) == pytest.approx((0, 2 * (seeds - 1)))
    assert not overlaps(figure)


def test_an_arm_without_a_curve_does_no_harm():
    figure = figures.curves(curve_table(["a"], 2), {"a": "a", "b": "b"})
    assert [t.get_text() for t in figure.axes[1].get_legend().get_texts()] == ["a", "b"]


def test_differences_know_the_verdicts_of_tricks_and_of_networks():
    verdicts = ["helps", "hurts", "no effect found", "better", "worse", "no difference found"]
    rows = [pd.Series(comparison("a", 0.01, verdict)) for verdict in verdicts]
    (axis,) = figures.differences(rows).axes
    line_colours = [line.get_color() for line in axis.lines if line.get_marker() == "o"]
    assert line_colours == [GREEN, VERMILION, GREY, GREEN, VERMILION, GREY]


def test_figures_come_closed():
    before = plt.get_fignums()
    arms, rows = ladder(STEPS)
    figures.waterfall(arms, rows, REFERENCE)
    figures.forest({"on the ladder": rows})
    figures.class_gains(class_table(2, 3))
    figures.curves(curve_table(["a"], 1), {"a": "a"})
    assert plt.get_fignums() == before


def front_rows(names, costs, scores):
    on = [not any(c <= cost and s > score for c, s in zip(costs, scores, strict=True))
          for cost, score in zip(costs, scores, strict=True)]  # fmt: skip
    return pd.DataFrame([
        {"question": "s", "arm": n, "label": n, "measure": measure, "cost": cost * factor,
         "val_miou": score, "test_miou": score, "low": score - 0.02, "high": score + 0.02,
         "pareto_optimal": on_front, "pareto_share": 0.5}
        for measure, factor in (("gmacs", 0.1), ("latency_ms", 3), ("parameters", 1e6))
        for n, cost, score, on_front in zip(names, costs, scores, on, strict=True)
    ])  # fmt: skip


def test_fronts_fill_what_is_on_them_and_step_up_from_one_to_the_next():
    table = front_rows(["a", "b", "c"], [1, 2, 4], [0.2, 0.1, 0.4])
    figure = figures.pareto_fronts(table)
    assert len(figure.axes) == 3
    left = figure.axes[0]
    points = {float(line.get_xdata()[0]): line for line in left.lines if line.get_marker() in "os^"}
    filled = {x: line.get_markerfacecolor() != "white" for x, line in points.items()}
    assert filled == pytest.approx({0.1: True, 0.2: False, 0.4: True})
    stairs = next(line for line in left.lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_allclose(stairs.get_ydata(), [20, 40, 40])
    np.testing.assert_allclose(stairs.get_xdata()[:2], [0.1, 0.4])


def test_thirty_networks_have_thirty_looks():
    looks = figures._styles([f"n{i}" for i in range(30)])
    assert len({(m["color"], m["marker"]) for m in looks.values()}) == 30


def test_accuracy_and_cost_stand_beside_the_course_s():
    arms = front_rows(["a", "b"], [1, 2], [0.2, 0.3]).query("measure == 'gmacs'")
    reference = pd.read_csv(ROOT / "data" / "reference.csv")
    arms = arms.assign(seeds=3)
    alone = figures.accuracy_cost(arms.assign(gmacs=arms.cost))
    assert len(alone.axes) == 1 and alone.axes[0].get_title() == "here: means over seeds, 95 % CIs"
    lone = figures.accuracy_cost(arms.assign(gmacs=arms.cost, seeds=1, low=np.nan, high=np.nan))
    assert lone.axes[0].get_title() == "here: one seed, no intervals"
    figure = figures.accuracy_cost(arms.assign(gmacs=arms.cost), reference)
    right = figure.axes[1]
    shown = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines)
    np.testing.assert_allclose(
        shown, sorted(zip(reference.gmacs, 100 * reference.miou, strict=True))
    )
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["from scratch", "pre-trained encoder", "pre-trained whole"]


def test_the_class_table_marks_the_best_of_each_class():
    classes = pd.DataFrame({
        "arm": ["x", "x", "y", "y"], "class": ["road", "pole"] * 2, "iou": [0.9, 0.1, 0.8, 0.3],
        "pixel_share": [0.7, 0.1] * 2,
    })  # fmt: skip
    axis = figures.class_table(classes, {"first": "x", "second": "y"}).axes[0]
    weights = {t.get_text(): t.get_weight() for t in axis.texts}
    assert weights == {"90": "bold", "80": "normal", "10": "normal", "30": "bold"}
    assert [t.get_text() for t in axis.get_xticklabels()] == ["first", "second"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["road", "pole"]


def test_searches_fill_the_chosen_rate():
    table = pd.DataFrame({
        "arm": ["x"] * 3, "lr": [0.1, 0.2, 0.4], "val_miou": [0.2, 0.3, np.nan],
        "chosen": [False, True, False],
    })  # fmt: skip
    axis = figures.searches(table, {"x": "name"}).axes[0]
    line, chosen = axis.lines
    np.testing.assert_allclose(line.get_ydata(), [20, 30, np.nan])
    assert list(chosen.get_xdata()) == [0.2] and list(chosen.get_ydata()) == [30]


def test_what_is_collapsible_is_there():
    html = figures.collapsible("title", figures.table(pd.DataFrame({"a": [1]}))).data
    assert html.startswith("<details><summary>title</summary><table")


def test_no_names_of_points_overlap():
    reference = pd.read_csv(ROOT / "data" / "reference.csv")
    arms = front_rows(["one", "another", "third"], [1, 1.05, 1.1], [0.2, 0.201, 0.3])
    arms = arms.query("measure == 'gmacs'")
    figure = figures.accuracy_cost(arms.assign(gmacs=arms.cost, seeds=3), reference)
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes:
        extents = [Text.get_window_extent(text) for text in axis.texts]  # without its line
        names = [text.get_text() for text in axis.texts]
        assert len(names) in (3, 14)
        for (a, one), (b, other) in itertools.combinations(zip(names, extents, strict=True), 2):
            assert not one.overlaps(other), (a, b)
        frame = axis.get_window_extent()
        assert all(frame.x0 <= e.x0 and e.x1 <= frame.x1 for e in extents)


def test_a_report_s_pictures_are_smaller_and_look_alike():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(200), np.arange(300)) // 4
    picture = np.stack([smooth, smooth[::-1], rng.integers(0, 8, smooth.shape)], 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    before = base64.b64encode(file.getvalue()).decode()
    after = compress_png(before)
    assert len(after) < len(before)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(after))).convert("RGB"))
    assert shown.shape == picture.shape
    assert np.abs(shown.astype(int) - picture).mean() < 6


def test_a_small_area_keeps_its_colour():
    """Beside many colours more often: a traffic sign is as yellow as its class."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 200, (300, 400, 3), np.uint8) // 3 + 60
    picture[100:110, 100:110] = yellow = (220, 220, 0)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    after = compress_png(base64.b64encode(file.getvalue()).decode())
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(after))).convert("RGB"))
    assert np.abs(shown[100:110, 100:110].astype(int) - yellow).max() <= 2


def test_class_colours_stay_apart_beside_photographs():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (300, 400, 3), np.uint8)
    colours = list(CITYSCAPES.values())
    for i, colour in enumerate(colours):
        picture[30:40, 20 * i : 20 * i + 15] = colour  # of so few pixels each, as in a legend
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    after = compress_png(base64.b64encode(file.getvalue()).decode())
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(after))).convert("RGB"))
    for i, colour in enumerate(colours):
        assert (shown[30:40, 20 * i : 20 * i + 15] == colour).all(), i


def test_a_divider_has_all_layers_and_shows_what_is_wrong(scenes):
    split = scenes["test"]
    predicted = np.array(split.labels)
    predicted[predicted == 255] = 0  # what has no label is neither right nor wrong
    first = np.argwhere(split.labels[1] != 255)[0]
    taken = (split.labels[1][tuple(first)] + 1) % len(split.classes)
    predicted[1][tuple(first)] = taken
    page = figures.comparison_sliders(split, {"worst <b>": 1}, predicted, "a & b").data
    assert "worst &lt;b&gt;" in page and "Prediction of a &amp; b: 0 % wrong." in page
    sources = dict(re.findall(r'<img class="(\w+)" alt="[^"]*" src="data:image/\w+;base64,([^"]+)"', page))
    assert list(sources) == ["prediction", "errors", "truth", "image"]
    layers = {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
        for name, text in sources.items()
    }
    np.testing.assert_array_equal(layers["truth"], figures.paint(split.labels[1], split))
    assert any(split.colours[taken])  # a class that is not black
    assert tuple(layers["errors"][tuple(first)]) == tuple(split.colours[taken])
    assert np.argwhere(layers["errors"].any(-1)).tolist() == [first.tolist()]
    plain = split.images[1].transpose(1, 2, 0).astype(float)
    assert np.abs(layers["image"] - plain).mean() < 12  # a JPEG


def test_figures_say_what_they_show():
    figure = figures.waterfall(*ladder([(0.02, "helps"), (-0.01, "hurts")]))
    shown, about = figure._repr_mimebundle_()
    assert about["image/png"]["alt"] == figure.alt
    assert figure.alt.endswith("it adds: trick-0 2, trick-1 -1.")
    assert about["image/png"]["kind"] == "chart"
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
    assert picture.width // 2 == about["image/png"]["width"]


def test_a_confusion_matrix_by_hand():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])  # the second is not in the truth
    (axis,) = figures.confusion(counts, ("road", "bus", "car")).axes
    np.testing.assert_allclose(axis.collections[0].get_array(), [[80, 20, 0], [25, 0, 75]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["road", "car"]


def test_a_confusion_matrix_of_many_classes_has_the_most_confused():
    counts = 1000 * np.eye(65, dtype=int)
    confused = np.arange(3, 65, 2)[: figures.MAX_CONFUSED]
    counts[confused, 0] = 10  # taken for the first, which is the most confused of all
    (axis,) = figures.confusion(counts, tuple(f"class {k}" for k in range(65))).axes
    shown = [0, *confused[:-1]]
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"class {k}" for k in shown]
    assert axis.get_xticklabels()[-1].get_text() == "41 others"
    shares = np.asarray(axis.collections[0].get_array())
    np.testing.assert_allclose(shares.sum(1), 100)

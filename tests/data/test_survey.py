"""What is found out about scenes: by hand, on corrupted labels, and on odd sets of images."""

import ast
import dataclasses
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.display import Markdown

from roadseg.config.paths import ROOT
from roadseg.data import survey, synthetic
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.data.survey import Alignment
from roadseg.report import load

VOID = 255


def make(labels, images=None, classes=3, names=None, sequences=None) -> Scenes:
    labels = np.asarray(labels, np.uint8)
    n, height, width = labels.shape
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (n, 3, height, width))
    return Scenes(
        images=np.asarray(images, np.uint8),
        labels=labels,
        names=tuple(names or (f"i{number}" for number in range(n))),
        sequences=tuple(sequences or (f"s{number}" for number in range(n))),
        classes=tuple("abcdefghijklmnopqrs"[:classes]),
        colours=tuple((k, k, k) for k in range(classes)),
        digest="0" * 64,
    )


@pytest.fixture(scope="module")
def streets() -> Scenes:
    drawn = [synthetic.scene(5, number, (64, 192)) for number in range(30)]
    images = [image.transpose(2, 0, 1) for image, _ in drawn]
    scenes = make([labels for _, labels in drawn], images, classes=len(CITYSCAPES))
    return scenes


def test_shares_by_hand():
    table = survey.shares(make([[[0, 0, 2, VOID]], [[0, VOID, VOID, VOID]]]))
    assert table.pixels.tolist() == [3, 0, 1] and table.pixels.dtype == np.int64
    assert table.share.tolist() == [0.75, 0, 0.25]
    assert table.index.tolist() == ["a", "b", "c"]
    assert survey.shares(make([[[VOID, VOID]]])).share.tolist() == [0, 0, 0]


def test_positions_by_hand():
    labels = [[[0, 1, VOID, VOID], [0, 0, VOID, VOID]], [[2, 2, VOID, VOID], [0, 0, VOID, VOID]]]
    grid = survey.positions(make(labels), 1, 2)
    assert grid.shape == (3, 1, 2)
    assert grid[:, 0, 0].tolist() == [5 / 8, 1 / 8, 2 / 8]
    assert np.isnan(grid[:, 0, 1]).all()


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 7), (16, 48), (5, 5)])
def test_positions_add_up(streets, rows, columns):
    grid = survey.positions(streets, rows, columns)
    known = ~np.isnan(grid[0])
    assert known.any() and np.allclose(grid.sum(0)[known], 1)
    if rows == columns == 1:
        assert np.allclose(grid[:, 0, 0], survey.shares(streets).share)


def test_objects_by_hand():
    labels = [
        [[0, 0, 1, VOID], [1, 0, 1, 1], [VOID, 1, 0, 1]],
        [[VOID, VOID, VOID, VOID]] * 3,
    ]
    pieces = survey.objects(make(labels))
    listed = sorted(zip(pieces["class"], pieces["area"], pieces["index"], strict=True))
    # pixels that meet at a corner only are two pieces
    assert listed == [("a", 1, 0), ("a", 3, 0), ("b", 1, 0), ("b", 1, 0), ("b", 4, 0)]
    assert survey.objects(make(labels), min_pixels=3)["area"].tolist() == [3, 4]
    assert pieces["class"].cat.categories.tolist() == ["a", "b", "c"]
    nothing = survey.objects(make([[[VOID]]]))
    assert len(nothing) == 0 and len(survey.sizes(nothing)) == 0


def test_objects_hold_every_labelled_pixel(streets):
    pieces = survey.objects(streets)
    sums = pieces.groupby("class", observed=False)["area"].sum()
    assert sums.tolist() == survey.shares(streets).pixels.tolist()


def test_sizes_by_hand():
    labels = np.full((1, 20, 20), 1)
    labels[0, 1, 1], labels[0, 1, 5:7], labels[0, 5:10, 5:10] = 0, 0, 0
    table = survey.sizes(survey.objects(make(labels))).set_index("class")
    assert table.loc["a", "pieces"] == 3 and table.loc["a", "median"] == 2
    assert table.loc["a", "half"] == 25 and table.loc["b", "half"] == 400 - 28
    assert table.index.tolist() == ["a", "b"]


def patches(height=60, width=80):
    """Labels in patches, and an image whose edges are their boundaries."""
    labels = (np.arange(height)[:, None] // 12 + np.arange(width) // 16) % 3
    image = np.random.default_rng(1).normal(60 + 60 * labels, 6)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2), labels.astype(np.uint8)


def test_boundary_contrast_knows_edges():
    image, labels = patches()
    contrast = survey.boundary_contrast(image, labels)
    assert 0.35 < contrast < 1
    assert survey.boundary_contrast(image, np.roll(labels, (5, 5), (0, 1))) < 0.1
    assert survey.boundary_contrast(image.transpose(2, 0, 1), labels) == contrast
    assert survey.boundary_contrast(image[..., 0], labels) == contrast
    # light and contrast of the image do not count, as long as nothing is rounded away
    dark = 40 + image // 2
    assert survey.boundary_contrast(2 * (dark // 2), labels) == pytest.approx(contrast, abs=0.03)


def test_boundary_contrast_is_zero_by_chance():
    rng = np.random.default_rng(2)
    _, labels = patches()
    contrasts = [
        survey.boundary_contrast(rng.integers(0, 256, (60, 80, 3), np.uint8), labels)
        for _ in range(30)
    ]
    assert abs(np.mean(contrasts)) < 0.01
    assert survey.boundary_contrast(np.zeros((60, 80, 3), np.uint8), labels) == 0


@pytest.mark.parametrize(
    "labels",
    [np.full((6, 8), 1), np.full((6, 8), VOID), np.array([[0, VOID], [VOID, 1]]), np.array([[2]])],
)
def test_no_boundary_has_no_contrast(labels):
    labels = labels.astype(np.uint8)
    image = np.zeros((*labels.shape, 3), np.uint8)
    assert np.isnan(survey.boundary_contrast(image, labels))


def test_contrast_of_all_boundary_is_a_number():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (30, 40)).astype(np.uint8)
    assert abs(survey.boundary_contrast(rng.integers(0, 256, (30, 40, 3), np.uint8), labels)) < 0.1
    assert np.isfinite(survey.boundary_contrast(np.zeros((1, 2, 3), np.uint8), labels[:1, :2]))


def shifted(labels, index, rng):
    step = round(0.05 * labels.shape[2])
    moved = np.full_like(labels[index], VOID)
    moved[:, step:] = labels[index, :, :-step]
    return moved


def swapped(labels, index, rng):
    return labels[(index + 11) % len(labels)]


def mirrored(labels, index, rng):
    return labels[index, :, ::-1]


def salted(labels, index, rng):
    spots = rng.random(labels.shape[1:]) < 0.01
    return np.where(spots, rng.integers(0, 19, labels.shape[1:]), labels[index])


@pytest.mark.parametrize("corrupt", [shifted, swapped, mirrored, salted])
def test_corrupted_labels_come_out_on_top(streets, corrupt):
    rng = np.random.default_rng(4)
    for chosen in ([3], [20], [0, 29]):
        labels = np.array(streets.labels)
        for index in chosen:
            labels[index] = corrupt(streets.labels, index, rng)
        table = survey.suspects(make(labels, streets.images, classes=19))
        assert set(table["index"].head(len(chosen))) == set(chosen)
        assert table["sign"][0] == ("specks" if corrupt is salted else "boundaries")
        assert sorted(table["index"]) == list(range(30)) and table["z"].is_monotonic_decreasing


def test_sound_labels_do_not_stand_out(streets):
    table = survey.suspects(streets)
    assert (table["z"] < survey.UNUSUAL).all()
    assert np.isfinite(table[["value", "typical", "z"]]).all(axis=None)
    assert not table["words"].str.contains("nan").any()


@pytest.mark.parametrize(
    "labels",
    [
        [np.zeros((6, 8))],  # one image, one class
        [np.zeros((6, 8)), np.full((6, 8), VOID)],
        [np.eye(8)[:6]] * 5,  # all alike
    ],
)
def test_nothing_stands_out_in_small_sets(labels):
    table = survey.suspects(make(labels, np.zeros((len(labels), 3, 6, 8))))
    assert len(table) == len(labels) and (table["z"] == 0).all()
    assert np.isfinite(table[["value", "typical"]]).all(axis=None)


def fit(images, labels):
    alignment = Alignment()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        alignment.add(number, *survey.thumbnail(image, label))
    return alignment.fit()


@pytest.mark.parametrize("count", [9, 12, 29])
def test_labels_of_the_neighbouring_file_are_found(streets, count):
    images, labels = streets.images, streets.labels
    for start in range(0, 30 - count, 4):
        here, after = slice(start, start + count), slice(start + 1, start + count + 1)
        aligned = fit(images[here], labels[here])
        assert aligned.file == "own" and aligned.images == count - 1 and aligned.share < 0.2
        assert fit(images[here], labels[after]).file == "previous"
        assert fit(images[after], labels[here]).file == "next"
    assert survey.align(streets).file == "own"


def test_an_alignment_needs_enough_that_differs(streets):
    few = fit(streets.images[:8], streets.labels[:8])
    assert few.file == "own" and np.isnan(few.share) and few.images == 7
    alike = fit(streets.images, [streets.labels[0]] * 30)
    assert alike.file == "own" and alike.images == 0
    assert fit(streets.images, np.full_like(streets.labels, VOID)).images == 0
    assert fit([], []).file == "own"


def test_an_alignment_compares_only_neighbours_of_one_size(streets):
    alignment = Alignment()
    for index in (0, 1, 2, 4, 5, 6):  # 3 is of another split, or could not be read
        alignment.add(index, streets.images[index], streets.labels[index])
    assert alignment.fit().images == 4
    alignment.add(7, streets.images[7][:, :50], streets.labels[7][:50])
    assert alignment.fit().images == 4


def test_thumbnails_by_hand():
    image = np.zeros((5, 7, 3), np.uint8)
    image[:2, :2] = [[[3, 6, 9], [12, 12, 12]], [[0, 0, 0], [30, 0, 0]]]
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    grey, small = survey.thumbnail(image, labels, height=2)
    assert grey.shape == small.shape == (2, 3) and grey.dtype == np.uint8
    assert grey[0, 0] == (6 + 12 + 0 + 10) // 4 and small.tolist() == [[8, 10, 12], [22, 24, 26]]
    grey, same = survey.thumbnail(image.transpose(2, 0, 1), labels)
    assert grey[0].tolist() == [6, 12, 0, 0, 0, 0, 0] and (same == labels).all()
    assert survey.thumbnail(image[..., 0], labels)[0][1, 1] == 30


def test_the_split_table_by_hand():
    splits = {
        "train": make([[[0, 0]], [[0, 1]]], sequences=["A", "B"]),
        "val": make([[[0, 1]]], sequences=["B"]),
        "test": make([[[2, 2]], [[2, VOID]], [[2, 2]]], sequences=["B", "C", "D"]),
    }
    table = survey.split_table(splits)
    assert table.images.tolist() == [2, 1, 3] and table.sequences.tolist() == [2, 1, 3]
    assert table.shared.isna().tolist() == [True, False, False]
    assert table.shared.tolist()[1:] == [1, 1]
    assert table.class_distance.tolist() == [0, 0.25, 1]
    assert table.largest.tolist() == [1 / 2, 1, 1 / 3]


def test_split_distances_by_hand():
    pictures = np.random.default_rng(6).integers(0, 200, (4, 3, 24, 32))
    half = pictures[1].copy()
    half[:, :, :16] += 8
    splits = {
        "train": make(np.zeros((3, 24, 32)), pictures[:3]),
        "val": make(np.zeros((1, 24, 32)), [pictures[2] + 50]),  # brighter, else the same
        "test": make(np.zeros((2, 24, 32)), [half, pictures[3]], names=["x", "y"]),
    }
    table = survey.split_distances(splits)
    assert table.split.tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert (table.distance[:3] > survey.COPY).all() and (table.nearest[:3] != table.name[:3]).all()
    assert table.distance[3] == pytest.approx(0, abs=1e-4) and table.nearest[3] == "i2"
    assert table.distance[4] == pytest.approx(4, abs=1e-4) and table.nearest[4] == "i1"
    assert table.name[4] == "x" and table.distance[5] > survey.COPY


def test_a_single_training_image_has_no_neighbour():
    one = make(np.zeros((1, 5, 3)))
    table = survey.split_distances({"train": one, "test": one})
    assert np.isnan(table.distance[0]) and table.nearest[0] == ""
    assert table.distance[1] == 0 and table.nearest[1] == "i0"


def road(count, seed, classes=2, void=False, height=24, width=40):
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, height, width))
    labels[:, height // 2 :] = 1
    if classes > 2:
        labels[:, 3:9, 5:15] = rng.integers(0, classes, (count, 1, 1))
    if void:
        labels[:, :2] = VOID
    images = rng.integers(0, 100, (count, 3, height, width)) + 40 * np.minimum(labels, 3)[:, None]
    return labels, images


ODD = {
    "one image each, two classes": [make(*road(1, seed), classes=2) for seed in range(3)],
    "one class": [make(np.zeros((2, 20, 30)), classes=1) for _ in range(3)],
    "absent classes, one video": [
        make(*road(n, n, 4, True), classes=6, sequences=["A"] * n) for n in (12, 9, 3)
    ],
    "copies": [make(*road(4, 1), classes=2) for _ in range(3)],
    "nothing but specks": [make(np.indices((4, 12, 16)).sum(0) % 2, classes=2) for _ in range(3)],
    "tiny": [make([[[0, 1], [1, 0]]], classes=2) for _ in range(3)],
}


@pytest.mark.parametrize("tested", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_the_chapter_suits_odd_sets(name, tested, monkeypatch):
    """Every cell runs, and every sentence is one."""
    splits = dict(zip(("train", "val", "test"), ODD[name], strict=True))
    odd_study = SimpleNamespace(prepared=None, data={"source": "odd", "block": 1})
    results = SimpleNamespace(prior=pd.DataFrame({"test_miou": [0.1]}), finished=lambda study: study)
    monkeypatch.setattr(load, "load_resolved", lambda name: odd_study)
    monkeypatch.setattr(load.Results, "read", lambda study: results)
    monkeypatch.setattr(load, "empty_chapters", lambda study, results: {})
    monkeypatch.setattr(load, "test_is_val", lambda folder: not tested)
    monkeypatch.setattr(Scenes, "load", lambda folder, split: splits[split])
    space, shown = {}, []
    for cell in nbformat.read(ROOT / "notebooks/1_data.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            *lines, last = ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M)).body
            with np.errstate(invalid="raise", divide="raise"):
                exec(compile(ast.Module(lines, []), "cell", "exec"), space)
                if isinstance(last, ast.Expr):
                    shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), space))
                else:
                    exec(compile(ast.Module([last], []), "cell", "exec"), space)
    texts = [output.data for output in shown if isinstance(output, Markdown)]
    titles = [output.title for output in shown if hasattr(output, "title")]
    assert len(texts) == 4 and len(titles) == 7 and all(titles)
    assert not re.search(r"\b(nan|inf|None|NA)\b", " ".join(texts + titles)), texts + titles
    assert (" test images" in texts[0]) == tested
    for output in shown:
        if hasattr(output, "title"):
            assert output._repr_mimebundle_()["text/html"].startswith("<figure")


def test_the_location_prior_is_each_pixel_s_most_frequent_class():
    """The last pixel is nowhere labelled: there it is the most frequent class of all, 2."""
    train = make([[[0, 1, VOID]], [[0, 2, VOID]], [[1, 2, VOID]], [[2, 2, VOID]]])
    prior = survey.location_prior(train)
    assert prior.tolist() == [[0, 2, 2]]


def test_percent_keeps_two_digits():
    written = [survey.percent(share) for share in (0, 1, 0.995, 0.0567, 0.00123, 0.0000314)]
    assert written == ["0 %", "100 %", "100 %", "5.7 %", "0.12 %", "0.0031 %"]


def test_windows_look_where_most_poles_people_and_road_edges_are():
    labels = np.zeros((3, 40, 60), np.uint8)  # all sky
    labels[0, :, 50:52] = 1  # a pole at the right
    labels[1, 25:35, 5:9] = 2  # a person
    labels[2, 30:, :] = 3  # road, whose edge is a line
    labels[2, 30:, :] = 3
    classes = ("sky", "Pole", "person", "road")
    scenes = Scenes(np.zeros((3, 3, 40, 60), np.uint8), labels, tuple("abc"), tuple("abc"), classes,
                    ((0, 0, 0),) * 4, "")  # fmt: skip
    windows = survey.close_up_windows(scenes, (16, 24))
    assert list(windows) == ["poles", "people", "road edges"]
    (pole, _, left), (person, top, _), (road, road_top, _) = windows.values()
    assert (pole, person, road) == (0, 1, 2)
    assert left <= 50 and left + 24 >= 52 and top <= 25 and top + 16 >= 35
    assert road_top <= 30 < road_top + 16
    other = dataclasses.replace(scenes, classes=("w", "x", "y", "z"))
    assert list(survey.close_up_windows(other, (16, 24))) == ["y", "x", "z"]  # from the rarest


def test_window_sums_by_brute_force():
    mask = np.random.default_rng(0).random((9, 12)) < 0.4
    sums = survey._window_sums(mask, (4, 5))
    assert sums.shape == (6, 8)
    for top, left in np.ndindex(sums.shape):
        assert sums[top, left] == mask[top : top + 4, left : left + 5].sum()

import numpy as np
import pytest

from roadseg.data.synthetic import BUILDING, CAR, ROAD, SKY, VEGETATION, scene

CLASSES, UNLABELLED = 19, 255


@pytest.fixture(scope="module")
def scenes():
    return [scene(0, index) for index in range(60)]


def test_a_scene_depends_on_its_arguments_alone():
    first = scene(3, 5, (64, 192))
    scene(3, 6, (64, 192))
    np.random.seed(1)
    again = scene(3, 5, (64, 192))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("other", [(4, 5), (3, 6), (5, 3)])
def test_another_seed_or_index_is_another_scene(other):
    image, labels = scene(3, 5, (64, 192))
    other_image, other_labels = scene(*other, (64, 192))
    assert np.mean(image != other_image) > 0.5
    assert np.mean(labels != other_labels) > 0.05


@pytest.mark.parametrize("size", [(32, 32), (64, 192), (97, 211), (128, 384), (200, 90)])
def test_shapes_types_and_range(size):
    for index in range(3):
        image, labels = scene(1, index, size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8
        assert labels.shape == size and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(CLASSES), UNLABELLED}
        assert image.std() > 10


def test_class_shares_are_those_of_a_street(scenes):
    counts = sum(np.bincount(labels.ravel(), minlength=256) for _, labels in scenes)
    share = counts / counts.sum()
    bounds = {ROAD: (0.2, 0.35), VEGETATION: (0.15, 0.35), SKY: (0.08, 0.25),
              BUILDING: (0.1, 0.25), CAR: (0.04, 0.1)}  # fmt: skip
    for label, (low, high) in bounds.items():
        assert low < share[label] < high, label
    assert (counts[:CLASSES] > 0).sum() >= 16
    assert share[UNLABELLED] < 0.05


def test_sky_lies_above_road(scenes):
    for _, labels in scenes:
        rows = np.arange(len(labels))[:, None] + np.zeros_like(labels, int)
        assert rows[labels == SKY].mean() < rows[labels == ROAD].mean()
        assert (labels[0] != ROAD).all() and (labels[-1] != SKY).all()


def test_image_edges_follow_label_edges(scenes):
    across, inside = [], []
    for image, labels in scenes[:20]:
        step = np.abs(np.diff(image.astype(int), axis=1)).sum(2)
        border = labels[:, 1:] != labels[:, :-1]
        across.append(step[border].mean())
        inside.append(step[~border].mean())
    assert np.mean(across) > 2 * np.mean(inside)


def test_no_class_is_told_by_its_mean_colour(scenes):
    seen = {label: [] for label in (ROAD, BUILDING, VEGETATION, SKY, CAR)}
    for image, labels in scenes:
        for label, colours in seen.items():
            if (labels == label).any():
                colours.append(image[labels == label].mean(0))
    middles = {label: np.mean(colours, 0) for label, colours in seen.items()}
    wrong = sum(
        min(middles, key=lambda other: np.linalg.norm(middles[other] - colour)) != label
        for label, colours in seen.items()
        for colour in colours
    )
    assert wrong > 0.15 * sum(map(len, seen.values()))


@pytest.mark.parametrize("size", [(31, 100), (100, 8)])
def test_too_small_a_size_is_an_error(size):
    with pytest.raises(ValueError, match="at least 32 pixels"):
        scene(0, 0, size)

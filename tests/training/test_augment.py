import pytest
import torch

from roadseg.training.augment import _grid, augment, hue_rotations


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    g = rng(5)
    labels = torch.randint(0, 19, (6, 24, 40), generator=g, dtype=torch.uint8)
    labels[:, :2] = 255
    images = labels[:, None].repeat(1, 3, 1, 1)  # each pixel carries its own label
    return images, labels


def test_neutral_is_absent(batch):
    images, labels = augment(*batch, rng())
    assert images is batch[0] and labels is batch[1]


def test_flip_moves_labels_with_pixels(batch):
    images, labels = augment(*batch, rng(), flip=1.0)
    assert torch.equal(images, batch[0].flip(-1)) and torch.equal(labels, batch[1].flip(-1))
    images, labels = augment(*batch, rng(), flip=0.5)
    flipped = [torch.equal(y, x.flip(-1)) for x, y in zip(batch[1], labels, strict=True)]
    same = [torch.equal(y, x) for x, y in zip(batch[1], labels, strict=True)]
    assert any(flipped) and any(same) and all(a != b for a, b in zip(flipped, same, strict=True))


def test_zoom_invents_no_class_and_marks_the_outside_unlabelled():
    labels = torch.full((8, 30, 50), 4, dtype=torch.uint8)
    images = torch.full((8, 3, 30, 50), 200, dtype=torch.uint8)
    images, moved = augment(images, labels, rng(), scale_jitter=2.0)
    assert set(moved.unique().tolist()) == {4, 255}
    assert moved.dtype == torch.uint8
    inside = moved == 4
    outside_far = torch.nn.functional.max_pool2d(inside[:, None].float(), 3, 1, 1)[:, 0] == 0
    assert (images.permute(0, 2, 3, 1)[outside_far] - 118).abs().max() < 1e-3
    kept = inside.flatten(1).float().mean(1)
    assert kept.min() >= 0.24 and kept.max() == 1  # zoomed out by two at most keeps a quarter


def test_zoom_moves_labels_with_pixels():
    """A white square labelled 1 on black labelled 0 stays labelled 1 where it stays white."""
    labels = torch.zeros(16, 60, 60, dtype=torch.uint8)
    labels[:, 20:40, 20:40] = 1
    images = (labels[:, None] * 255).repeat(1, 3, 1, 1)
    images, moved = augment(images, labels, rng(), scale_jitter=1.7, flip=0.5, mean=0.0)
    white = images[:, 0] > 127.5
    known = moved != 255
    assert (white == (moved == 1))[known].float().mean() > 0.995
    area = (moved == 1).flatten(1).sum(1) / 20**2  # factors of both sides between 1 / 1.7 and 1.7
    assert 0.9 / 1.7**2 < area.min() < 0.7 and 1.4 < area.max() < 1.1 * 1.7**2


def test_colour_changes_no_label_and_stays_in_range(batch):
    images, labels = augment(*batch, rng(), colour_jitter=0.5)
    assert torch.equal(labels, batch[1])
    assert images.min() == 0 and images.max() == 255  # what is beyond is cut off
    assert (images.flatten(1) != batch[0].flatten(1)).any(1).all()


def test_same_generator_same_result(batch):
    options = {"flip": 0.5, "scale_jitter": 1.5, "colour_jitter": 0.2, "hue_jitter": 20, "size_jitter": 1.5}
    a, b, c = (augment(*batch, rng(seed), **options) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert a[0].shape != c[0].shape or not torch.equal(a[0], c[0])


@pytest.mark.parametrize("options", [{}, {"scale_jitter": 1.1}])
def test_a_crop_of_less_than_a_pixel_is_one(batch, options):
    images, labels = augment(*batch, rng(), crop=0.01, **options)
    assert images.shape == (6, 3, 1, 1) and labels.shape == (6, 1, 1)


def test_one_trick_more_leaves_the_draws_of_the_others(batch):
    """Every number is drawn whatever is asked for, so arms of one seed stay paired."""
    plain, _ = augment(*batch, rng(1), flip=0.5)
    first = rng(1)
    augment(*batch, first, flip=0.5)
    second = rng(1)
    augment(*batch, second, flip=0.5, scale_jitter=2.0, colour_jitter=0.3, hue_jitter=20, crop=0.5,
            size_jitter=1.5)  # fmt: skip
    assert torch.equal(first.get_state(), second.get_state())


def test_a_crop_is_a_window_of_the_image(batch):
    """Pixels are not resampled: each crop occurs in its image, with its labels."""
    images, labels = batch
    cropped, moved = augment(images, labels, rng(), crop=0.5)
    h, w = round(0.5 * labels.shape[1]), round(0.5 * labels.shape[2])
    assert cropped.shape[-2:] == moved.shape[-2:] == (h, w)
    for image, label, small, seen in zip(images, labels, cropped, moved, strict=True):
        windows = label.unfold(0, h, 1).unfold(1, w, 1)
        y, x = (windows == seen).all(-1).all(-1).nonzero()[0].tolist()
        assert torch.equal(image[:, y : y + h, x : x + w], small)
    again, _ = augment(images, labels, rng(1), crop=0.5)
    assert not torch.equal(again, cropped)


def test_crops_reach_every_edge():
    labels = torch.arange(40).view(1, 4, 10).repeat(300, 1, 1).to(torch.uint8)
    images = labels[:, None].repeat(1, 3, 1, 1)
    _, moved = augment(images, labels, rng(), crop=0.5)
    assert set(moved[:, 0, 0].tolist()) == {10 * y + x for y in range(3) for x in range(6)}


def test_a_whole_batch_changes_its_size_and_labels_go_along():
    labels = torch.zeros(2, 60, 80, dtype=torch.uint8)
    labels[:, :, 40:] = 1
    images = (labels[:, None] * 255).repeat(1, 3, 1, 1)
    sizes = set()
    generator = rng()
    for _ in range(20):
        resized, moved = augment(images, labels, generator, size_jitter=2.0)
        h, w = moved.shape[1:]
        sizes.add((h, w))
        assert resized.shape == (2, 3, h, w) and w / h == pytest.approx(80 / 60, rel=0.05)
        assert 30 <= h <= 120
        assert set(moved.unique().tolist()) == {0, 1}  # all of it stays in view
        white = resized[:, 0] > 127.5
        assert (white == (moved == 1)).float().mean() > 0.97
    assert len(sizes) > 10


def test_hue_turns_about_the_grey_axis():
    grey = torch.full((1, 3, 2, 2), 90.0)
    same, _ = augment(grey, torch.zeros(1, 2, 2, dtype=torch.uint8), rng(), hue_jitter=180)
    torch.testing.assert_close(same, grey)
    third = hue_rotations(torch.tensor([2 * torch.pi / 3]))[0]
    torch.testing.assert_close(third @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    turned = hue_rotations(torch.tensor([0.7, -1.2]))
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)


def test_colour_is_brightness_contrast_saturation_and_hue_in_this_order():
    """One matrix does what the four do one after the other, where nothing is cut off."""
    images = torch.randint(90, 130, (5, 3, 9, 7), generator=rng(), dtype=torch.uint8)
    labels = torch.zeros(5, 9, 7, dtype=torch.uint8)
    recoloured, _ = augment(images, labels, rng(3), colour_jitter=0.3, hue_jitter=30)
    draws = rng(3)
    torch.rand(5 + 5 + 10, generator=draws)  # mirrored, zoom, corner
    factors = 1 + (torch.rand(5, 3, generator=draws) * 2 - 1) * 0.3
    turns = hue_rotations((torch.rand(5, generator=draws) * 2 - 1) * torch.pi / 6)
    for image, (brightness, contrast, saturation), turn, one in zip(
        images, factors, turns, recoloured, strict=True
    ):
        x = image.double() * brightness
        x = x.mean() + (x - x.mean()) * contrast
        x = x.mean(0) + (x - x.mean(0)) * saturation
        x = torch.einsum("ij,jhw->ihw", turn.double(), x)
        torch.testing.assert_close(one, x.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [[1, 1], [5, 8], [64, 192]])
def test_the_grid_is_torch_s(size):
    chance = torch.Generator().manual_seed(0)
    scale, shift = (2 * torch.rand(3, 2, generator=chance) - 1 for _ in range(2))
    theta = torch.zeros(3, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale[:, 0], scale[:, 1], shift
    expected = torch.nn.functional.affine_grid(theta, [3, 1, *size], False)
    torch.testing.assert_close(_grid(scale, shift, size), expected, rtol=0, atol=1e-6)

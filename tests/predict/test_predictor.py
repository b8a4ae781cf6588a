import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strongest import Strongest, about, stripes, thirds

from roadseg.errors import InputError
from roadseg.predict import predictor as module
from roadseg.predict.predictor import Predictor, enlarge
from roadseg.predict.weights import Weights


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (200, 90), (7, 300), (1, 1), (24, 33)])
def test_labels_have_the_picture_s_own_size(strongest, size):
    labels = strongest(stripes(*size))
    assert labels.shape == size and labels.dtype == np.uint8
    # but for the seams, which resizing blurs
    assert (labels == thirds(*size)).mean() > 0.85


def test_confidence_is_the_mean_probability_of_the_labels(strongest):
    p = np.exp(22) / (np.exp(22) + 2 * np.exp(2))
    assert strongest.predict(stripes(24, 32)).confidence == pytest.approx(p)


def test_pictures_are_brought_to_the_training_height(monkeypatch, strongest):
    seen = []
    monkeypatch.setattr(
        strongest, "_probabilities", lambda x: seen.append(x.shape[2:]) or torch.ones(1, 3, *x.shape[2:])
    )
    for size in [(48, 64), (48, 68), (48, 96), (100, 100), (10, 20)]:
        strongest(np.zeros((*size, 3), np.uint8))
    # nearly its shape: its size; another shape: its height, the shape kept
    assert seen == [(24, 32), (24, 32), (24, 48), (24, 24), (24, 48)]
    seen.clear()
    for height in (0, 12):
        strongest.height = height
        strongest(np.zeros((48, 64, 3), np.uint8))
    assert seen == [(48, 64), (12, 16)]


def test_tiles_come_to_the_whole(monkeypatch):
    """Of a network that sees single pixels, tiles and their blending change nothing."""
    predictor = Predictor(Weights(about(), Strongest(), ""), torch.device("cpu"), height=0)
    picture = np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8)
    whole, sizes = predictor.predict(picture), []
    for name, value in {"MAX_PIXELS": 1000, "TILE": (64, 80), "OVERLAP": 16}.items():
        monkeypatch.setattr(module, name, value)
    compute = predictor._probabilities
    monkeypatch.setattr(predictor, "_probabilities", lambda x: sizes.append(x.shape[2:]) or compute(x))
    tiled = predictor.predict(picture)
    assert set(sizes) == {(64, 80)} and len(sizes) > 8
    assert (tiled.labels == whole.labels).mean() > 0.9999  # two channels may be alike
    assert tiled.confidence == pytest.approx(whole.confidence)


def test_tiles_are_blended_without_an_edge(monkeypatch):
    """What differs from tile to tile changes gradually from one to the next."""
    for name, value in {"MAX_PIXELS": 10, "TILE": (8, 40), "OVERLAP": 16}.items():
        monkeypatch.setattr(module, name, value)
    predictor = Predictor(Weights(about(), Strongest(), ""), torch.device("cpu"), height=0)
    answers = iter([0.0, 1.0])
    monkeypatch.setattr(
        predictor, "_probabilities", lambda x: torch.full((1, 1, *x.shape[2:]), next(answers))
    )
    (band,) = predictor._bands(torch.zeros(3, 8, 64, dtype=torch.uint8))
    row = band[0, 0]
    assert (row[:24] == 0).all() and (row[40:] == 1).all()
    assert (row.diff() >= 0).all() and row.diff().max() < 0.1


@given(
    st.integers(1, 40), st.integers(1, 30), st.integers(1, 200), st.integers(1, 60),
    st.lists(st.integers(1, 39), max_size=4),
)  # fmt: skip
def test_enlarging_by_bands_is_bilinear_interpolation(h, w, height, width, cuts):
    x = torch.rand(2, h, w, generator=torch.Generator().manual_seed(h * w))
    edges = [0, *sorted({c for c in cuts if c < h}), h]
    bands = [x[:, a:b] for a, b in zip(edges, edges[1:], strict=False)]
    made = torch.cat(list(enlarge(bands, (h, w), (height, width))), 1)
    expected = F.interpolate(x[None], (height, width), mode="bilinear")[0]
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


@given(st.integers(1, 5000), st.integers(200, 1024))
def test_tiles_cover_all_and_overlap(length, tile):
    starts = module._starts(length, tile)
    assert starts[0] == 0 and starts[-1] + tile >= length
    assert all(0 < b - a <= tile - module.OVERLAP + 1 for a, b in zip(starts, starts[1:], strict=False))


def test_it_takes_paths_pictures_and_arrays(strongest, tmp_path):
    picture = Image.fromarray(stripes(24, 32))
    file = tmp_path / "street.png"
    picture.save(file)
    masks = strongest([file, str(file), picture, np.asarray(picture)])
    assert len(masks) == 4 and all((mask == thirds(24, 32)).all() for mask in masks)
    assert strongest(np.zeros((24, 32), np.uint8)).shape == (24, 32)
    with pytest.raises(InputError, match="uint8"):
        strongest(np.zeros((24, 32, 3)))


def test_a_turned_photo_is_seen_upright(strongest, tmp_path):
    picture, exif = Image.fromarray(stripes(32, 24)), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    labels = strongest(tmp_path / "turned.png")
    assert labels.shape == (24, 32)
    assert labels[0, 16] == 0 and labels[12, 16] == 1 and labels[-1, 16] == 2


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "deep", "several", "folder", "gone"])
def test_what_is_no_picture_is_named(kind, strongest, tmp_path):
    file = tmp_path / "thing.png"
    if kind in ("empty", "text"):
        file.write_bytes(b"a text" * (kind == "text"))
    elif kind == "cut":
        Image.fromarray(stripes(90, 90)).save(file)
        file.write_bytes(file.read_bytes()[:100])
    elif kind == "deep":
        Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(file)
    elif kind == "several":
        frames = [Image.new("RGB", (9, 9), (n, 0, 0)) for n in range(3)]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(InputError, match="thing.png"):
        strongest(file)


def test_mirror_images_count_where_the_arm_is_tested_so():
    class LeftOnly(Strongest):
        def forward(self, images):
            logits = torch.zeros(len(images), 3, *images.shape[2:])
            logits[:, 0, :, :4] = 5
            return logits

    weights = Weights(about(recipe={"test_flip": True, "precision": "fp32"}), LeftOnly(), "")
    labels = Predictor(weights, torch.device("cpu"))(np.zeros((24, 32, 3), np.uint8))
    confidence = Predictor(weights, torch.device("cpu")).predict(np.zeros((24, 32, 3), np.uint8))
    sure = np.exp(5) / (np.exp(5) + 2)
    expected = (8 * (sure + 1 / 3) / 2 + 24 / 3) / 32  # both edges, each by one of the two
    assert (labels[:, :4] == 0).all() and confidence.confidence == pytest.approx(expected, rel=1e-5)

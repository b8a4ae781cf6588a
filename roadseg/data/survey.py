"""What a set of scenes holds, and whether its labels can be trusted: from images and labels alone.

Every function goes through the images once, one at a time.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from roadseg.data.scenes import UNLABELLED, Scenes

SPECK = 2  # a connected piece of so many pixels or fewer is a speck
UNUSUAL = 3.5  # the robust z-score from which a value is unusual (Iglewicz & Hoaglin 1993)
COPY = 1.0  # images that differ by fewer grey levels are all but copies
# Label files are off by one if in this share of at least so many images a neighbour's fit better.
SHIFTED, MIN_IMAGES = 0.8, 8


def percent(share: float) -> str:
    """Write a share with two significant digits: 0.123 -> '12 %', 0.00123 -> '0.12 %'.

    >>> percent(0.995), percent(0.0000314)
    ('100 %', '0.0031 %')
    """
    value = 100 * share
    digits = 1 - int(np.floor(np.log10(value))) if value > 0 else 0
    return f"{value:.{max(digits, 0)}f} %"


def class_pixels(scenes: Scenes) -> np.ndarray:
    """Count the pixels of each label value: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for labels in scenes.labels:
        counts += np.bincount(labels.ravel(), minlength=256)
    return counts


def shares(scenes: Scenes) -> pd.DataFrame:
    """Count the labelled pixels of each class.

    Returns
    -------
    one row per class, in the order of `scenes.classes`, index "class": pixels (int64) and share
    (float, of all labelled pixels; 0 if there are none)
    """
    pixels = class_pixels(scenes)[: len(scenes.classes)]
    return pd.DataFrame(
        {"pixels": pixels, "share": pixels / max(pixels.sum(), 1)},
        index=pd.Index(scenes.classes, name="class"),
    )


def cells(scenes: Scenes) -> tuple[int, int]:
    """Return the rows and columns of a grid of about square cells, for `positions`."""
    height, width = scenes.labels.shape[1:]
    rows = min(12, height)
    return rows, min(round(rows * width / height), width)


def positions(scenes: Scenes, rows: int, columns: int) -> np.ndarray:
    """Divide the image into a grid and tell what fills each cell.

    Parameters
    ----------
    scenes : images of H × W pixels
    rows, columns : the grid, at most H and W

    Returns
    -------
    float (K, rows, columns): the share of a cell's labelled pixels, over all images, that have
    this class; NaN in cells without labelled pixels
    """
    height, width = scenes.labels.shape[1:]
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    cell = (row[:, None] * columns + column) * 256
    counts = np.zeros(rows * columns * 256, np.int64)
    for labels in scenes.labels:
        counts += np.bincount((cell + labels).ravel(), minlength=len(counts))
    counts = counts.reshape(rows, columns, 256)[..., : len(scenes.classes)].transpose(2, 0, 1)
    total = counts.sum(0)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def location_prior(train: Scenes) -> np.ndarray:
    """Return the class that is most frequent at each pixel of some scenes, int64 (H, W).

    Where no image has a label, it is the most frequent class of all.
    """
    counts = np.zeros((len(train.classes), *train.labels.shape[1:]), np.int64)
    for labels in train.labels:
        for k in range(len(counts)):
            counts[k] += labels == k
    best = counts.argmax(0)
    best[counts.sum(0) == 0] = counts.sum((1, 2)).argmax()
    return best


def objects(scenes: Scenes, min_pixels: int = 1) -> pd.DataFrame:
    """List the connected pieces of each class.

    A piece is a set of pixels of one class that hang together by their sides. Objects of one class
    that touch count as one, and an object behind a pole counts as two.

    Parameters
    ----------
    scenes : the images
    min_pixels : pieces of fewer pixels are left out

    Returns
    -------
    one row per piece: class (categorical, in the order of `scenes.classes`), area (int64, pixels)
    and index (int64, position of the image)
    """
    pieces = [np.zeros((3, 0), np.int64)]
    for index, labels in enumerate(scenes.labels):
        for number, areas in _component_areas(labels, len(scenes.classes)):
            areas = areas[areas >= min_pixels]
            pieces.append(
                np.stack([np.full_like(areas, number), areas, np.full_like(areas, index)])
            )
    numbers, areas, indices = np.concatenate(pieces, axis=1)
    classes = pd.Categorical.from_codes(numbers, scenes.classes)
    return pd.DataFrame({"class": classes, "area": areas, "index": indices})


def sizes(pieces: pd.DataFrame) -> pd.DataFrame:
    """Sum the sizes of each class's pieces up.

    Parameters
    ----------
    pieces : what `objects` returns

    Returns
    -------
    one row per class that occurs, in the order of the classes: class, pieces (how many), low,
    median and high (pixels; 5, 50 and 95 % of the pieces are smaller) and half (pixels; half of the
    class's pixels lie in pieces of at most that size)
    """
    rows = []
    for name, group in pieces.groupby("class", observed=True)["area"]:
        areas = np.sort(group.to_numpy())
        low, median, high = np.quantile(areas, [0.05, 0.5, 0.95])
        half = areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)]
        rows.append((name, len(areas), low, median, high, int(half)))
    return pd.DataFrame(rows, columns=["class", "pieces", "low", "median", "high", "half"])


def _component_areas(labels: np.ndarray, classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each class that occurs in labels (H, W), with the areas of its pieces, int64."""
    shifted = np.where(labels < classes, labels.astype(np.int32) + 1, 0)
    for number, box in enumerate(ndimage.find_objects(shifted, classes)):
        if box is not None:
            pieces, _ = ndimage.label(labels[box] == number)
            yield number, np.bincount(pieces.ravel())[1:]


def boundary_contrast(image: np.ndarray, labels: np.ndarray) -> float:
    """Tell how well the boundaries between labelled classes sit on the edges of the image.

    Each pixel's edge strength (Sobel's gradient of the grey image) is replaced by its rank: the
    share of the image's pixels that are weaker. The score is the mean rank on the boundaries minus
    the mean rank three to five pixels beside them. Ranks make images of different light, contrast
    and texture comparable, and the pixels beside make up for edges being where things are.

    Boundaries put anywhere get 0; careful labels of street scenes get 0.15 to 0.4.

    Parameters
    ----------
    image : uint8 (H, W, 3), (3, H, W) or grey (H, W)
    labels : uint8 (H, W), 255 where not labelled

    Returns
    -------
    the score, from -1 to 1; NaN where no two labelled classes touch
    """
    boundary = _boundaries(labels)
    if not boundary.any():
        return float("nan")
    edge_rank = _edge_rank(_grey(image, labels.shape))
    beside = _dilated(boundary, 5) & ~_dilated(boundary, 2) & (labels != UNLABELLED)
    return float(edge_rank[boundary].mean() - (edge_rank[beside].mean() if beside.any() else 0.5))


def _boundaries(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels beside, above or below one of another class: bool (H, W)."""
    boundaries = np.zeros(labels.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        known = (labels[one] != UNLABELLED) & (labels[other] != UNLABELLED)
        differ = known & (labels[one] != labels[other])
        boundaries[one] |= differ
        boundaries[other] |= differ
    return boundaries


def _dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Mark all that is at most so many rows and columns from a marked pixel: bool (H, W)."""
    return ndimage.maximum_filter(mask.view(np.uint8), 2 * pixels + 1).view(bool)


def _grey(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W), (H, W, 3) or (3, H, W) as the sum of its channels: int16 (H, W)."""
    if image.ndim == 2:
        return image.astype(np.int16)
    red, green, blue = np.moveaxis(image, -1, 0) if image.shape[:2] == shape else image
    return red.astype(np.int16) + green + blue


def _edge_rank(grey: np.ndarray) -> np.ndarray:
    """Return the share of pixels whose gradient is weaker, ties half: float32 (H, W)."""
    across, down = (ndimage.sobel(grey, axis, mode="nearest") for axis in (1, 0))
    strength = np.abs(across) + np.abs(down)
    counts = np.bincount(strength.ravel())
    return ((np.cumsum(counts) - counts / 2) / grey.size).astype(np.float32)[strength]


def suspects(scenes: Scenes) -> pd.DataFrame:
    """Rank the images by how suspicious their labels are, the most suspicious first.

    There are two signs. Each is judged against the other images of the set by a robust z-score: the
    distance from the median, in units of 1.4826 × the median of all such distances.

    - "boundaries": `boundary_contrast` is low. So it is if labels are shifted, mirrored or those of
      another image, but also if the image is dark, blurred or its objects are hard to tell apart.
    - "specks": many connected pieces have at most `SPECK` pixels (z of the square root, as these
      are counts). So it is with noise and after careless resizing, but also behind bare trees.

    Returns
    -------
    one row per image: name, index, sign (the one with the higher z), value (the contrast, or the
    number of specks), typical (its median), z (`UNUSUAL` and more deserve a look) and words
    """
    contrast, specks = np.zeros(len(scenes)), np.zeros(len(scenes))
    for index, (image, labels) in enumerate(zip(scenes.images, scenes.labels, strict=True)):
        contrast[index] = boundary_contrast(image, labels)
        specks[index] = sum(
            (areas <= SPECK).sum() for _, areas in _component_areas(labels, len(scenes.classes))
        )
    # Floors under the spread, so that in a set of nearly equal images small differences stay small.
    boundary_z = np.nan_to_num(-_robust_z(contrast, 0.02), nan=-np.inf)
    speck_z = _robust_z(np.sqrt(specks), 0.5)
    table = pd.DataFrame(
        {
            "name": scenes.names,
            "index": np.arange(len(scenes)),
            "sign": np.where(boundary_z >= speck_z, "boundaries", "specks"),
            "value": np.where(boundary_z >= speck_z, contrast, specks),
            "typical": np.where(boundary_z >= speck_z, _median(contrast), _median(specks)),
            "z": np.maximum(boundary_z, speck_z),
        }
    )
    table["words"] = [
        f"boundaries fit the edges with {row.value:.2f} (typical: {row.typical:.2f})"
        if row.sign == "boundaries"
        else f"{row.value:.0f} specks (typical: {row.typical:.0f})"
        for row in table.itertuples()
    ]
    return table.sort_values("z", ascending=False, kind="stable", ignore_index=True)


def _median(values: np.ndarray) -> float:
    """Return the median of the values that are numbers; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _robust_z(values: np.ndarray, floor: float) -> np.ndarray:
    """Return each value's distance from the median in robust standard deviations >= `floor`."""
    distance = values - _median(values)
    return distance / np.fmax(1.4826 * _median(np.abs(distance)), floor)


class Fit(NamedTuple):
    """Whose labels fit the images.

    Attributes
    ----------
    file : "own", or "previous" or "next" if the labels of that file fit better
    share : of the images, those that fit the labels of a neighbouring file better than their own;
        NaN of fewer than `MIN_IMAGES`
    images : how many images that rests on
    """

    file: str
    share: float
    images: int


class Alignment:
    """Find label files that belong to the image before or after, as after one lost file.

    `add` the files in their order, then ask for the `fit`. Each image is compared with its own
    labels and with those of its neighbours, where these differ: a neighbour's labels fit better if
    the image's edges have a higher mean rank (as in `boundary_contrast`) on boundaries that only
    the neighbour has than on those that only its own labels have. An image whose boundaries are the
    neighbour's tells nothing and does not count.
    """

    def __init__(self):
        self._last = None
        self._votes = {"previous": [], "next": []}  # of each image: does the neighbour fit better?

    def add(self, number: int, image: np.ndarray, labels: np.ndarray) -> None:
        """Take a file.

        Parameters
        ----------
        number : of the file in their order; it is compared with the one before, if that was the
            last to be added and has the same size
        image : uint8 (H, W), (H, W, 3) or (3, H, W); a `thumbnail` is enough
        labels : uint8 (H, W), 255 where not labelled
        """
        rank, boundary = _edge_rank(_grey(image, labels.shape)), _boundaries(labels)
        if self._last and self._last[0] == number - 1 and self._last[1].shape == rank.shape:
            _, last_rank, last_boundary = self._last
            only_last, only_this = last_boundary & ~boundary, boundary & ~last_boundary
            if only_last.any() and only_this.any():
                better = rank[only_last].mean() > rank[only_this].mean()
                self._votes["previous"].append(better)
                better = last_rank[only_this].mean() > last_rank[only_last].mean()
                self._votes["next"].append(better)
        self._last = number, rank, boundary

    def fit(self) -> Fit:
        """Return the verdict on the files so far."""
        images = len(self._votes["next"])
        if images < MIN_IMAGES:
            return Fit("own", float("nan"), images)
        share, file = max((float(np.mean(votes)), file) for file, votes in self._votes.items())
        return Fit(file if share >= SHIFTED else "own", share, images)


def align(scenes: Scenes) -> Fit:
    """Return the verdict of `Alignment` on all images of a split, in their order."""
    alignment = Alignment()
    for number, (image, labels) in enumerate(zip(scenes.images, scenes.labels, strict=True)):
        alignment.add(number, *thumbnail(image, labels))
    return alignment.fit()


def thumbnail(
    image: np.ndarray, labels: np.ndarray, height: int = 120
) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image and its labels by a whole number, to `height` pixels or a little more.

    Parameters
    ----------
    image : uint8 (H, W, 3), (3, H, W) or grey (H, W)
    labels : uint8 (H, W)
    height : of the thumbnail; what has less is not shrunk

    Returns
    -------
    grey uint8 (h, w), each pixel the mean of a square, and labels uint8 (h, w), each pixel the one
    in the middle of the square
    """
    step = max(min(labels.shape[0] // height, labels.shape[1]), 1)
    h, w = labels.shape[0] // step, labels.shape[1] // step
    channels = 1 if image.ndim == 2 else 3
    grey = _grey(image, labels.shape)[: h * step, : w * step].astype(np.float32)
    small = grey.reshape(h, step, w, step).mean((1, 3)) / channels
    middle = step // 2
    return small.astype(np.uint8), labels[middle : h * step : step, middle : w * step : step]


def split_table(splits: Mapping[str, Scenes]) -> pd.DataFrame:
    """Tell what the split of a data set does.

    Parameters
    ----------
    splits : name -> scenes; one is "train"

    Returns
    -------
    one row per split: split, images, sequences (videos), shared (Int64: how many of these train
    has too; missing for train), largest (share of images of the largest one) and class_distance
    (total variation distance of its class shares from train's: the share of pixels that would have
    to change their class, 0 to 1)
    """
    reference = shares(splits["train"])["share"]
    known = set(splits["train"].sequences)
    rows = [
        {
            "split": name,
            "images": len(scenes),
            "sequences": len(set(scenes.sequences)),
            "shared": pd.NA if name == "train" else len(known & set(scenes.sequences)),
            "largest": max(Counter(scenes.sequences).values()) / len(scenes),
            "class_distance": (shares(scenes)["share"] - reference).abs().sum() / 2,
        }
        for name, scenes in splits.items()
    ]
    return pd.DataFrame(rows).astype({"shared": "Int64"})


def split_distances(splits: Mapping[str, Scenes]) -> pd.DataFrame:
    """Tell how far each image is from the nearest other train image.

    Images are compared as grey thumbnails of 12 × 16 values, each with its mean taken away: the
    distance is the mean absolute difference in grey levels (0 to 255). For train images themselves
    it is that to the nearest other one. What lies below `COPY` is all but a copy.

    Parameters
    ----------
    splits : name -> scenes; one is "train"

    Returns
    -------
    one row per image: split, index, name, distance and nearest (name of the train image); distance
    is NaN and nearest "" for the only image of a train split
    """
    train = _miniatures(splits["train"])
    rows = []
    for split, scenes in splits.items():
        miniatures = train if split == "train" else _miniatures(scenes)
        for index, (name, miniature) in enumerate(zip(scenes.names, miniatures, strict=True)):
            distances = np.abs(train - miniature).mean(1)
            if split == "train":
                distances[index] = np.inf
            nearest = int(distances.argmin())
            exists = np.isfinite(distances[nearest])
            rows.append(
                {
                    "split": split,
                    "index": index,
                    "name": name,
                    "distance": float(distances[nearest]) if exists else np.nan,
                    "nearest": splits["train"].names[nearest] if exists else "",
                }
            )
    return pd.DataFrame(rows)


def _miniatures(scenes: Scenes, rows: int = 12, columns: int = 16) -> np.ndarray:
    """Shrink images to grey thumbnails of mean zero: float32 (N, rows × columns)."""
    height, width = scenes.labels.shape[1:]
    top = np.arange(min(rows, height)) * height // min(rows, height)
    left = np.arange(min(columns, width)) * width // min(columns, width)
    pixels = np.outer(np.diff(top, append=height), np.diff(left, append=width))
    miniatures = np.zeros((len(scenes), pixels.size), np.float32)
    for index, image in enumerate(scenes.images):
        grey = image.sum(0, dtype=np.int64) / 3
        cells = np.add.reduceat(np.add.reduceat(grey, top, axis=0), left, axis=1) / pixels
        miniatures[index] = (cells - cells.mean()).ravel()
    return miniatures


# What one looks at closely in road scenes, by the names that data sets give such classes.
CLOSE_UP_CLASSES = {
    "poles": ("pole", "column_pole", "polegroup", "pole-like"),
    "people": ("person", "pedestrian", "rider", "bicyclist", "people", "human"),
}
ROADS = ("road", "street", "lane")


def close_up_windows(scenes: Scenes, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    """Return where to look closely: the windows with most poles, people and road edges.

    Each is in another image, while there are. For data without classes of these names, the windows
    with most of the rarest classes.

    Parameters
    ----------
    scenes : the split to look through
    size : (height, width) of a window, no larger than the images

    Returns
    -------
    name -> (image, top, left)
    """
    names = [name.lower() for name in scenes.classes]
    classes = {
        title: [names.index(name) for name in known if name in names]
        for title, known in CLOSE_UP_CLASSES.items()
    }
    roads = [names.index(name) for name in ROADS if name in names]
    pixels = class_pixels(scenes)
    classes = {title: known for title, known in classes.items() if pixels[known].any()}
    if not classes:
        rare = [k for k in np.argsort(pixels[: len(names)]) if pixels[k]][:3]
        classes, roads = {scenes.classes[k]: [k] for k in rare}, []
    candidates = {title: [] for title in [*classes, *(["road edges"] if roads else [])]}
    for labels in scenes.labels:
        for title, rows in candidates.items():
            if title in classes:
                mask = np.isin(labels, classes[title])
            else:
                road = np.isin(labels, roads)
                mask = road & ndimage.binary_dilation(~road & (labels != UNLABELLED))
            sums = _window_sums(mask, size)
            top, left = np.unravel_index(sums.argmax(), sums.shape)
            rows.append((int(sums.max()), int(top), int(left)))
    windows, used_images = {}, set()
    for title, rows in candidates.items():
        order = sorted(range(len(rows)), key=lambda i: rows[i][0], reverse=True)
        index = next((i for i in order if i not in used_images), order[0])
        windows[title] = (index, *rows[index][1:])
        used_images.add(index)
    return windows


def _window_sums(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the sum of a mask (H, W) over each window, int (H - h + 1, W - w + 1)."""
    height, width = size
    total = np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    return (
        total[height:, width:] - total[:-height, width:]
        - total[height:, :-width] + total[:-height, :-width]
    )  # fmt: skip

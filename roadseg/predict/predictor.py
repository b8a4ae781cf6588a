"""One network, any picture: labels of the picture's own size, at a memory that does not grow."""

import math
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from roadseg.data.images import FORMATS
from roadseg.errors import InputError
from roadseg.predict.weights import Weights, load_weights
from roadseg.training.device import default_device, keep_freed_memory, precision_on
from roadseg.training.evaluate import averaged_probabilities

# Of what the network sees at once; larger pictures are seen in tiles, which overlap.
MAX_PIXELS, TILE, OVERLAP = 2**20, (768, 1024), 128
STRIP = 64  # rows that are brought to the picture's size at once
ALIKE = 1.1  # shapes whose widths differ by less, for their height, count as equal
Picture = str | Path | BytesIO | Image.Image | np.ndarray


class Prediction(NamedTuple):
    """Attributes.

    labels : uint8 (H, W), the class of each pixel
    confidence : mean probability of these classes
    """

    labels: np.ndarray
    confidence: float


class Predictor:
    """Predicts pictures of any size, one at a time.

    The picture is brought to the height of the images that the network was trained on, its shape
    kept, and the probabilities are brought back to the picture's size, bilinearly. A picture of
    nearly the training images' shape is brought to their size. What is still larger than a million
    pixels is predicted in overlapping tiles, whose probabilities are blended.

    Parameters
    ----------
    weights : what to predict with
    device : the GPU, if there is one, else the CPU
    height : what to bring pictures to in place of the training height; 0 keeps their own size

    >>> masks = Predictor.load("synthetic/with-final")(["street.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self, weights: Weights, device: torch.device | None = None, height: int | None = None
    ):
        self.device = device or default_device()
        if self.device.type == "cpu":
            keep_freed_memory()
        if height is not None and weights.is_exported:
            raise InputError("height: an exported file brings pictures to its own; leave it out.")
        self.weights = weights.to(self.device, memory_format=torch.channels_last)
        self.about, self.height = weights.about, height

    @classmethod
    def load(cls, name: str, threads: int = 0, **options) -> "Predictor":
        """Return a predictor with the weights of a name; for both see `weights.load_weights`."""
        return cls(load_weights(name, threads), **options)

    def __call__(self, images: Picture | Iterable[Picture]) -> np.ndarray | list[np.ndarray]:
        """Return the labels uint8 (H, W) of a picture, or a list of those of several.

        Parameters
        ----------
        images : paths, Pillow images, or arrays uint8 (H, W, 3) or (H, W)
        """
        if isinstance(images, Picture):
            return self.predict(images).labels
        return [self.predict(image).labels for image in images]

    @torch.inference_mode()
    def predict(self, image: Picture) -> Prediction:
        """Predict one picture.

        Raises
        ------
        InputError : it cannot be read as one
        """
        picture = as_picture(image)
        size, seen = picture.size[::-1], self._seen_size(*picture.size[::-1])
        if seen != size:
            smaller = seen[0] * seen[1] < size[0] * size[1]
            # as the training images were
            method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
            picture = picture.resize(seen[::-1], method)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        labels, total, first = np.empty(size, np.uint8), 0.0, 0
        for rows in enlarge(self._bands(x), seen, size):
            confidence, classes = rows.max(0)
            labels[first : first + len(classes)] = classes.to(torch.uint8).cpu().numpy()
            total += confidence.sum(dtype=torch.float64).item()
            first += len(classes)
        return Prediction(labels, total / labels.size)

    def _seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a picture is brought to."""
        if self.height == 0:
            return height, width
        trained_height, trained_width = self.about.size
        if (
            self.height is None
            and 1 / ALIKE < width / height / trained_width * trained_height < ALIKE
        ):
            return trained_height, trained_width
        seen = self.height or trained_height
        return seen, max(round(width * seen / height), 1)

    def _bands(self, x: Tensor) -> Iterator[Tensor]:
        """Yield probabilities (K, h, W) of an image uint8 (3, H, W), from the top, by tiles.

        Where tiles overlap, each counts by its distance from its own edge there. What is yielded is
        overwritten by what follows.
        """
        height, width = x.shape[1:]
        tile = (height, width) if height * width <= MAX_PIXELS else TILE
        tile_height, tile_width = (min(t, side) for t, side in zip(tile, x.shape[1:], strict=True))
        tops, lefts = _starts(height, tile_height), _starts(width, tile_width)
        total = weight = None
        for top, below in zip(tops, [*tops[1:], height], strict=True):
            for left in lefts:
                window = x[:, top : top + tile_height, left : left + tile_width]
                p = self._probabilities(window[None])[0]
                if total is None:
                    total = p.new_zeros(len(p), tile_height, width)
                    weight = p.new_zeros(tile_height, width)
                ramp = torch.outer(
                    _ramp(tile_height, top > 0, top + tile_height < height),
                    _ramp(tile_width, left > 0, left + tile_width < width),
                ).to(p.device)
                total[:, :, left : left + tile_width] += ramp * p
                weight[:, left : left + tile_width] += ramp
            done = below - top
            yield total[:, :done].div_(weight[:done])
            if below == height:
                return
            for each in (total, weight):  # in place: of a wide picture they are most of the memory
                rest = each[..., done:, :].clone()
                each.zero_()[..., : rest.shape[-2], :] = rest

    def _probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities float32 (N, K, H, W) of images uint8 (N, 3, H, W)."""
        recipe = self.weights.recipe
        x = images.to(self.device).contiguous(memory_format=torch.channels_last)
        bf16 = precision_on(self.device, recipe.precision) == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return averaged_probabilities(
                self.weights, x, recipe.test_scales, flip=recipe.test_flip
            )


def as_picture(image: Picture) -> Image.Image:
    """Return a picture as RGB, upright.

    Raises
    ------
    InputError : it is none, holds several, or has more than 8 bits per channel
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise InputError(
                f"an array of {image.dtype} {image.shape}: give uint8 (height, width, 3) or "
                "(height, width)."
            )
        return Image.fromarray(image).convert("RGB")
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image).convert("RGB")
    name = f"{image}: " if isinstance(image, str | Path) else ""
    try:
        with Image.open(image, formats=FORMATS) as picture:
            deep = picture.mode.startswith(("I", "F")) or ";16" in str(picture.tile)
            several = getattr(picture, "is_animated", False)
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as problem:  # of many kinds, by what is wrong and by format
        cause = getattr(problem, "strerror", None) or str(problem).split("\n")[0][:80]
        if isinstance(problem, UnidentifiedImageError):
            cause = f"it is no picture, or broken; known kinds: {', '.join(FORMATS)}"
        raise InputError(f"{name}cannot be read ({cause}).") from None
    if deep or several:
        what = "more than 8 bits per channel" if deep else "several pictures"
        raise InputError(f"{name}has {what}; save it as one of 8 bits.")
    return upright


def enlarge(
    bands: Iterable[Tensor], seen: tuple[int, int], size: tuple[int, int]
) -> Iterator[Tensor]:
    """Bring an array to another size, a few rows at a time, bilinearly, as `F.interpolate` does.

    Parameters
    ----------
    bands : float (K, h, W), one below the other
    seen : height and width of all of them
    size : height and width to bring them to

    Returns
    -------
    Yields float (K, h, W), one below the other
    """
    if seen == size:
        yield from bands
        return
    y = ((torch.arange(size[0]) + 0.5) * seen[0] / size[0] - 0.5).clamp(0, seen[0] - 1)
    above = y.long()
    below = (above + 1).clamp(max=seen[0] - 1)
    kept, top, first = None, 0, 0  # rows that are there, the number of the first, the next to make
    for band in bands:
        rows = band if kept is None else torch.cat([kept, band], 1)
        end = top + rows.shape[1]
        stop = int(torch.searchsorted(below, end)) if end < seen[0] else size[0]
        for start in range(first, stop, STRIP):
            chosen = slice(start, min(start + STRIP, stop))
            share = (y - above)[chosen, None].to(rows)
            at = (above[chosen] - top).to(rows.device), (below[chosen] - top).to(rows.device)
            strip = torch.lerp(rows[:, at[0]], rows[:, at[1]], share)
            yield F.interpolate(strip[None], (strip.shape[1], size[1]), mode="bilinear")[0]
        kept, top, first = rows[:, -1:].clone(), end - 1, stop


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin that cover a length and overlap by `OVERLAP` or more."""
    if length <= tile:
        return [0]
    number = math.ceil((length - OVERLAP) / (tile - OVERLAP))
    return [round(i * (length - tile) / (number - 1)) for i in range(number)]


def _ramp(length: int, rises: bool, falls: bool) -> Tensor:
    """Return weights that rise from 0 to 1 within `OVERLAP` of either end, if asked to."""
    distance = (torch.arange(length) + 0.5) / OVERLAP
    ramp = torch.ones(length)
    ramp = ramp.minimum(distance) if rises else ramp
    return ramp.minimum(distance.flip(0)) if falls else ramp

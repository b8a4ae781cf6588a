"""Random changes to a batch of images and labels together, on the device that holds them."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from roadseg.data.scenes import UNLABELLED


def augment(
    images: Tensor,
    labels: Tensor,
    rng: Generator,
    *,
    flip: float = 0.0,
    scale_jitter: float = 1.0,
    colour_jitter: float = 0.0,
    hue_jitter: float = 0.0,
    crop: float = 1.0,
    size_jitter: float = 1.0,
    mean: float = 118.0,
) -> tuple[Tensor, Tensor]:
    """Flip, zoom, crop and recolour each image of a batch; at the defaults, return it unchanged.

    Every random number is drawn on the CPU from `rng`, whatever is asked for, so that one seed
    gives the same changes on every device, and one change more leaves the others as they were.

    Parameters
    ----------
    images : uint8 or float (N, 3, H, W) in 0..255
    labels : integer (N, H, W)
    rng : generator on the CPU
    flip : probability of mirroring left and right
    scale_jitter : largest zoom factor, either way; the factor is log-uniform in
        [1 / scale_jitter, scale_jitter] and the window that stays in view is chosen at random.
        What is zoomed out of is filled with `mean` and is not labelled
    colour_jitter : strength s; brightness, contrast and saturation are each multiplied by a
        factor uniform in [1 - s, 1 + s]
    hue_jitter : largest angle in degrees, either way, that the colours turn about the grey axis
    crop : height and width of the window that is returned, as a share of the image's; where it
        lies is random
    size_jitter : the whole batch is resized by one factor, log-uniform in
        [1 / size_jitter, size_jitter]
    mean : grey value of the filling

    Returns
    -------
    images float (N, 3, h, w) in 0..255 (or the images themselves, if nothing is asked for),
    labels (N, h, w) like the input's; h and w are H and W but for `crop` and `size_jitter`.
    Brightness, contrast, saturation and hue act in this order, and as one matrix: what leaves
    0..255 is cut off once, at the end
    """
    n, height, width = labels.shape
    # Not waited for: a GPU still works on the step before.
    send = partial(torch.Tensor.to, device=images.device, non_blocking=True)
    mirrored = torch.rand(n, generator=rng) < flip
    zoom = torch.exp((torch.rand(n, generator=rng) * 2 - 1) * math.log(scale_jitter))
    corner = torch.rand(n, 2, generator=rng) * 2 - 1
    factors = 1 + (torch.rand(n, 3, generator=rng) * 2 - 1) * colour_jitter
    angles = (torch.rand(n, generator=rng) * 2 - 1) * math.radians(hue_jitter)
    resize = math.exp((float(torch.rand(1, generator=rng)) * 2 - 1) * math.log(size_jitter))

    if scale_jitter > 1 or size_jitter > 1:
        # Output pixel at p reads the input at p * view + shift; the shift keeps the window inside
        # the image (or the image inside the window).
        view = crop / zoom
        scale = torch.stack([torch.where(mirrored, -1, 1) * view, view], 1)
        shift = corner * (1 - view).abs()[:, None]
        size = [max(round(crop * resize * side), 1) for side in (height, width)]
        grid = _grid(send(scale), send(shift), size)
        images = F.grid_sample(images.float() - mean, grid, align_corners=False) + mean
        shifted = labels[:, None].float() - UNLABELLED  # so that the zero filling is UNLABELLED
        shifted = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)[:, 0]
        labels = (shifted + UNLABELLED).to(labels.dtype)
    else:
        if flip:
            flipped = send(mirrored)
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
            labels = torch.where(flipped[:, None, None], labels.flip(-1), labels)
        if crop < 1:
            images, labels = _windows(images, labels, crop, (corner + 1) / 2)

    if colour_jitter or hue_jitter:
        brightness, contrast, _ = send(factors).unbind(1)
        grey = images.mean((1, 2, 3), dtype=torch.float32) * brightness * (1 - contrast)
        matrices = send(colour_matrices(factors, angles))
        recoloured = torch.baddbmm(grey[:, None, None], matrices, images.flatten(2).float())
        images = recoloured.clamp(0, 255).view_as(images)
    return images, labels


def _grid(scale: Tensor, shift: Tensor, size: list[int]) -> Tensor:
    """Return where `F.grid_sample` reads for each output pixel, float (N, H, W, 2).

    `F.affine_grid` gives the same, by a matrix product that takes five times as long: there is no
    rotation here, so that a row of x and a column of y say it all.

    Parameters
    ----------
    scale, shift : float (N, 2), x and y, on the range -1 to 1 from edge to edge
    size : height and width
    """
    grid = scale.new_empty(len(scale), *size, 2)
    for axis, side in enumerate(size[::-1]):
        middles = torch.linspace(-1, 1, side, device=scale.device) * (side - 1) / side
        at = middles * scale[:, axis, None] + shift[:, axis, None]
        grid[..., axis] = at[:, None, :] if axis == 0 else at[:, :, None]
    return grid


def _windows(images: Tensor, labels: Tensor, share: float, where: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a window out of each image, without resampling; `where` (N, 2) in [0, 1] is x and y."""
    height, width = (max(round(share * side), 1) for side in labels.shape[1:])
    free = torch.tensor([labels.shape[2] - width, labels.shape[1] - height])
    corners = (where * (free + 1)).long().minimum(free).tolist()
    cut = [
        (image[:, y : y + height, x : x + width], label[y : y + height, x : x + width])
        for image, label, (x, y) in zip(images, labels, corners, strict=True)
    ]
    return torch.stack([image for image, _ in cut]), torch.stack([label for _, label in cut])


def colour_matrices(factors: Tensor, angles: Tensor) -> Tensor:
    """Return what multiplies the RGB colours of each image, float (N, 3, 3).

    Contrast turns about the image's mean grey; what that adds is not in here, as it is grey and so
    passes saturation and hue as it is.

    Parameters
    ----------
    factors : float (N, 3), of brightness, contrast and saturation (about each pixel's own grey)
    angles : float (N,), radians, see `hue_rotations`
    """
    brightness, contrast, saturation = factors[:, :, None, None].unbind(1)
    to_grey = torch.full((3, 3), 1 / 3)
    saturate = saturation * torch.eye(3) + (1 - saturation) * to_grey
    return brightness * contrast * hue_rotations(angles) @ saturate


def hue_rotations(angles: Tensor) -> Tensor:
    """Return matrices (N, 3, 3) that turn RGB colours about the grey axis by angles (N,), radians.

    Source
    ------
    Rodrigues' rotation formula with the axis (1, 1, 1) / sqrt(3): greys stay, and so does the sum
    of the three channels.
    """
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return cos * torch.eye(3) + sin * cross + (1 - cos) / 3

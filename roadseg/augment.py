"""Random changes to a batch of images and labels together, on the device that holds them."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from roadseg.data import UNLABELLED


def augment(
    images: Tensor,
    labels: Tensor,
    rng: Generator,
    *,
    flip: float = 0.0,
    scale_jitter: float = 1.0,
    colour_jitter: float = 0.0,
    mean: float = 118.0,
) -> tuple[Tensor, Tensor]:
    """Flip, zoom and recolour each image of a batch; at the defaults, return it unchanged.

    Every random number is drawn on the CPU from `rng`, so that one seed gives the same changes on
    every device.

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
    mean : grey value of the filling

    Returns
    -------
    images float (N, 3, H, W) in 0..255 (or the images themselves, if nothing is asked for),
    labels like the input's
    """
    n = len(images)
    mirrored = torch.rand(n, generator=rng) < flip
    zoom = torch.exp((torch.rand(n, generator=rng) * 2 - 1) * math.log(scale_jitter))
    corner = torch.rand(n, 2, generator=rng) * 2 - 1
    factors = 1 + (torch.rand(n, 3, generator=rng) * 2 - 1) * colour_jitter

    if scale_jitter > 1:
        # Output pixel at p reads the input at p / zoom + shift; the shift keeps the window inside
        # the image (or the image inside the window).
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0] = torch.where(mirrored, -1, 1) / zoom
        theta[:, 1, 1] = 1 / zoom
        theta[:, :, 2] = corner * (1 - 1 / zoom).abs()[:, None]
        grid = F.affine_grid(theta.to(images.device), [n, 1, *images.shape[-2:]], False)
        images = F.grid_sample(images.float() - mean, grid, align_corners=False) + mean
        shifted = labels[:, None].float() - UNLABELLED  # so that the zero filling is UNLABELLED
        shifted = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)[:, 0]
        labels = (shifted + UNLABELLED).to(labels.dtype)
    elif flip:
        pick = mirrored.to(images.device)
        images = torch.where(pick[:, None, None, None], images.flip(-1), images)
        labels = torch.where(pick[:, None, None], labels.flip(-1), labels)

    if colour_jitter:
        brightness, contrast, saturation = factors.to(images.device).view(n, 3, 1, 1, 1).unbind(1)
        images = images.float() * brightness
        average = images.mean(dim=(1, 2, 3), keepdim=True)
        images = average + (images - average) * contrast
        grey = images.mean(dim=1, keepdim=True)
        images = (grey + (images - grey) * saturation).clamp(0, 255)
    return images, labels

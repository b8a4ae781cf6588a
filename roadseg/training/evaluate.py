"""What a network predicts for scenes, counted: for the curve of a training as for its scores."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.data.scenes import Scenes, read
from roadseg.models.segmenter import Segmenter
from roadseg.training.device import precision_on
from roadseg.training.metrics import count

TEST_BATCH = 8  # images that are predicted at once


@torch.no_grad()
def evaluate(
    network: Segmenter,
    scenes: Scenes,
    device: torch.device,
    *,
    precision: str = "auto",
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    keep: Callable[[Tensor, Tensor, Tensor], object] | None = None,
) -> np.ndarray:
    """Predict every scene at full size, and count.

    Parameters
    ----------
    precision : 'bf16', 'fp32' or 'auto', see `device.precision_on`
    scales, flip : sizes and mirror images over which probabilities are averaged
    keep : receives predictions int64, their probability float32 and labels uint8, all (n, H, W) on
        the device, of some scenes after the other

    Returns
    -------
    int64 (N, K, K) per image, row truth, column prediction
    """
    network.eval()
    counts = []
    bf16 = precision_on(device, precision) == "bf16"
    for first in range(0, len(scenes), TEST_BATCH):
        rows = slice(first, first + TEST_BATCH)
        x = torch.from_numpy(read(scenes.images, rows)).to(device)
        y = torch.from_numpy(read(scenes.labels, rows)).to(device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            if single_pass := scales == (1.0,) and not flip:
                scores = network(x)
            else:
                scores = averaged_probabilities(network, x, scales, flip=flip)
        predicted = scores.argmax(1)
        counts.append(count(predicted, y, len(scenes.classes)).cpu().numpy())
        if keep:
            probabilities = scores.float().softmax(1) if single_pass else scores
            keep(predicted, probabilities.amax(1), y)
    return np.concatenate(counts)


def averaged_probabilities(
    network: Callable[[Tensor], Tensor], images: Tensor, scales: tuple[float, ...], *, flip: bool
) -> Tensor:
    """Return class probabilities float (N, K, H, W), averaged over sizes and mirror images.

    Parameters
    ----------
    network : images (N, 3, h, w) -> logits (N, K, h, w)
    images : (N, 3, H, W), uint8 or float in 0..255
    scales : factors on the images' size
    flip : whether each size is also seen mirrored

    Source
    ------
    Chen et al. 2018 (DeepLab), section 4.1, averages as here; there the maximum is taken for
    multi-scale inputs in training.
    """
    size, total = images.shape[-2:], 0.0
    for scale in scales:
        x = images.float()
        if scale != 1:
            small = [max(round(scale * side), 1) for side in size]
            x = F.interpolate(x, size=small, mode="bilinear", antialias=scale < 1)
        for mirrored in (False, True) if flip else (False,):
            logits = network(x.flip(-1) if mirrored else x).float()
            logits = logits.flip(-1) if mirrored else logits
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=size, mode="bilinear")
            total = total + logits.softmax(1)
    return total / (len(scales) * (2 if flip else 1))

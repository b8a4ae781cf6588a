"""Networks whose predictions can be told by looking at the picture."""

import numpy as np
from torch import nn

from roadseg.predict.weights import About

CLASSES = ["red", "green", "blue"]
COLOURS = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]


class Strongest(nn.Module):
    """A network that sees each pixel's strongest channel: logits are a tenth of the values."""

    body = None

    def forward(self, images):
        return images.float() / 10


def about(**changes) -> About:
    return About(**{
        "name": "tests/strongest/0", "recipe": {"network": "fcn8s:tu-test_resnet", "precision": "fp32"},
        "classes": CLASSES, "colours": COLOURS, "values": [7, 8, 9], "size": [24, 32], **changes,
    })  # fmt: skip


def stripes(height: int, width: int) -> np.ndarray:
    """A picture whose left third is red, whose middle is green, and whose right third is blue."""
    picture = np.full((height, width, 3), 20, np.uint8)
    for channel in range(3):
        picture[:, channel * width // 3 : (channel + 1) * width // 3, channel] = 220
    return picture


def thirds(height: int, width: int) -> np.ndarray:
    """The labels of `stripes`."""
    return stripes(height, width).argmax(2).astype(np.uint8)

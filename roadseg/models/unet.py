"""The plain U-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """The plain U-Net, with batch normalisation and padded convolutions.

    Parameters
    ----------
    classes : number of classes K
    width : factor on the channel counts 64, 128, 256, 512, 1024

    Source
    ------
    Ronneberger et al. 2015, figure 1. As in MMSegmentation, which the course study used:
    convolutions are padded, upsampling is bilinear with a 1x1 convolution, and a 3x3 convolution
    comes before the class scores. We keep odd sizes by padding images to the stride.
    """

    stride = 16
    encoder_parts = ("down.",)

    def __init__(self, classes: int, *, width: float = 1.0):
        super().__init__()
        widths = [max(1, round(channels * width)) for channels in (64, 128, 256, 512, 1024)]
        self.down = nn.ModuleList(
            nn.Sequential(_conv_norm(before, after), _conv_norm(after, after))
            for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # from coarse to fine
        self.narrow = nn.ModuleList(_conv_norm(before, after, 1) for before, after in steps)
        self.up = nn.ModuleList(
            nn.Sequential(_conv_norm(2 * after, after), _conv_norm(after, after))
            for _, after in steps
        )
        self.scores = nn.Sequential(
            _conv_norm(widths[0], widths[0]), nn.Conv2d(widths[0], classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W)."""
        maps = []
        for stage, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if stage else x)
            maps.append(x)
        for narrow, block, skip in zip(self.narrow, self.up, maps[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, narrow(x)], 1))
        return self.scores(x)


def _conv_norm(before: int, after: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )

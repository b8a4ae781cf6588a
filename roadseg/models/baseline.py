"""The course study's baseline."""

import torch.nn.functional as F
from torch import Tensor, nn

from roadseg.errors import InputError


class Baseline(nn.Module):
    """The course study's baseline: encoder, two wide convolutions, upsampled class scores.

    Four blocks of 3x3 convolutions (64, 64 | 128 | 256 | 512 channels) with ReLU, each followed
    by 2x2 max-pooling in ceil mode; a 3x3 convolution to 2048 channels without padding and two
    1x1 convolutions, with 2-D dropout between, give class scores at 1/16 of the size.

    Parameters
    ----------
    classes : number of classes K
    width : factor on every channel count except 3 and K
    unpool : False, three bias-free transposed convolutions (kernel 4, stride 2) act on the class
        scores and the caller resizes the rest of the way: the network that the study's parameter
        and multiply-add counts belong to. True, the decoder its text describes: the encoder's
        pooling positions are undone stage by stage from 1/16 to full size, with a 3x3 convolution
        after each step. How wide those are the text leaves open; ours mirror the encoder.
    batch_norm : normalise after each 3x3 convolution of the blocks and of the unpooling decoder,
        and after the two wide ones
    residual : add each block's input to its output, through a 1x1 convolution that fits the
        channels (He et al. 2016, eq. 2)

    Source
    ------
    arXiv 2206.12571, section on the baseline, and the course's code.
    """

    encoder_parts = ("blocks.", "shortcuts.")
    sixteenth_into = "scores"  # the module that reads the features at 1/16 of the size

    def __init__(
        self,
        classes: int,
        *,
        width: float = 1.0,
        unpool: bool = False,
        batch_norm: bool = False,
        residual: bool = False,
    ):
        super().__init__()
        c64, c128, c256, c512, c2048 = (
            max(1, round(channels * width)) for channels in (64, 128, 256, 512, 2048)
        )
        relu = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(_conv(3, c64), relu, _conv(c64, c64), relu),
                nn.Sequential(_conv(c64, c128), relu),
                nn.Sequential(_conv(c128, c256), relu),
                nn.Sequential(_conv(c256, c512), relu),
            ]
        )
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True, return_indices=unpool)
        self.scores = nn.Sequential(
            nn.Conv2d(c512, c2048, 3), relu, nn.Dropout2d(),
            nn.Conv2d(c2048, c2048, 1), relu, nn.Dropout2d(),
            nn.Conv2d(c2048, c512 if unpool else classes, 1),
        )  # fmt: skip
        pairs = [(3, c64), (c64, c128), (c128, c256), (c256, c512)]
        if unpool:
            self.unpool = nn.MaxUnpool2d(2, stride=2)
            widths = [c512, c256, c128, c64, classes]
            self.decoder = nn.ModuleList(
                _conv(before, after) for before, after in zip(widths[:-1], widths[1:], strict=True)
            )
        else:
            self.unpool = None
            self.decoder = nn.Sequential(
                *(nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False) for _ in range(3))
            )
        # Made last, so that the weights above start as they do without.
        self.shortcuts = (
            nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in pairs)
            if residual
            else None
        )
        if batch_norm:
            self.blocks = nn.ModuleList(map(_with_batch_norm, self.blocks))
            self.scores = _with_batch_norm(self.scores)
            if unpool:
                for stage, convolution in enumerate(self.decoder[:-1]):
                    norm = nn.BatchNorm2d(convolution.out_channels)
                    self.decoder[stage] = nn.Sequential(convolution, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, h, w); h and w are near the full size, or equal to it (unpool)."""
        if min(x.shape[-2:]) < 33:
            raise InputError(
                f"image size {x.shape[-2]} x {x.shape[-1]}: the baseline needs at least 33 pixels "
                "each way, since its unpadded 3x3 convolution works at 1/16 of the size."
            )
        steps = []
        for stage, block in enumerate(self.blocks):
            features = block[:-1](x)  # up to its last ReLU, which comes after the sum
            x = block[-1](features + self.shortcuts[stage](x) if self.shortcuts else features)
            size = x.shape[-2:]
            x = self.pool(x)
            if self.unpool:
                x, indices = x
                steps.append((indices, size))
        if not self.unpool:
            return self.decoder(self.scores(x))
        x = F.pad(self.scores(x), (1, 1, 1, 1))  # the border that the 3x3 convolution took away
        for stage, convolution in enumerate(self.decoder):
            indices, size = steps.pop()
            x = convolution(self.unpool(x, indices, output_size=size))
            if stage < len(self.decoder) - 1:
                x = F.relu(x)
        return x


def _with_batch_norm(chain: nn.Sequential) -> nn.Sequential:
    """Return a chain of convolutions with batch normalisation before each ReLU."""
    channels, layers = 0, []
    for layer in chain:
        if isinstance(layer, nn.ReLU):
            layers.append(nn.BatchNorm2d(channels))
        channels = getattr(layer, "out_channels", channels)
        layers.append(layer)
    return nn.Sequential(*layers)


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)

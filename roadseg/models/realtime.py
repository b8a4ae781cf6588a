"""Two networks made for real time, light enough to be trained from scratch: DABNet and LMFFNet.

Both keep most of their work at 1/8 of the size, where blocks of increasing dilation look far
without further downsampling, and put the image itself, shrunk, beside the features of each stage.
They share three convolutions at half size, batch normalisation with PReLU, and two downsamplings.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DABNet(nn.Module):
    """Depth-wise asymmetric bottlenecks at 1/4 and 1/8 of the size, and class scores at 1/8.

    With 19 classes it has the paper's 0.76 M parameters. With 11, an image of 360 x 480 takes
    3.36 * 10^9 multiply-adds; the 3.42 in published tables is what fvcore counts, normalisation
    and interpolation included.

    Parameters
    ----------
    classes : number of classes K
    width : factor on the channel counts 32, 64 and 128, see `_narrowest`

    Source
    ------
    Li et al. 2019 (arXiv 1907.11357), section 3, and its authors' code, which ours follows layer
    by layer. From there we have the places of normalisation, class scores without bias, and He's
    initialisation, which their training applies. We deviate in `width`, and in leaving the last
    resizing, from 1/8, to the caller.
    """

    stride = 8
    dilations = (2,) * 3, (4, 4, 8, 8, 16, 16)  # of the blocks at 1/4, and at 1/8

    def __init__(self, classes: int, *, width: float = 1.0):
        super().__init__()
        c = _narrowest(width)
        self.stem, self.halve, self.stages = _trunk(c, DAB, self.dilations)
        self.join = nn.ModuleList(_norm(channels + 3) for channels in (c, 4 * c, 8 * c))
        self.scores = _pointwise(8 * c + 3, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H / 8, W / 8) for images (N, 3, H, W), multiples of 8."""
        half, *smaller = _shrunk(x)
        x = self.join[0](torch.cat([self.stem(x), half], 1))
        for halve, stage, join, image in zip(
            self.halve, self.stages, self.join[1:], smaller, strict=True
        ):
            start = halve(x)
            x = join(torch.cat([stage(start), start, image], 1))
        return self.scores(x)


class DAB(nn.Module):
    """A bottleneck whose two branches, near and far, are depth-wise 3x1 and 1x3 convolutions.

    A 3x3 convolution halves the channels, the branches are added, a 1x1 convolution brings the
    channels back, and the input is added.

    Parameters
    ----------
    channels : of input and output; even
    dilation : of the far branch

    Source
    ------
    Li et al. 2019, section 3.1.
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        half = channels // 2
        self.narrow = nn.Sequential(_norm(channels), _conv(channels, half))
        self.near, self.far = (
            nn.Sequential(_depthwise(half, d, (3, 1)), _depthwise(half, d, (1, 3)))
            for d in (1, dilation)
        )
        self.widen = nn.Sequential(_norm(half), _pointwise(half, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        y = self.narrow(x)
        return x + self.widen(self.near(y) + self.far(y))


class LMFFNet(nn.Module):
    """Split-extract-merge bottlenecks, fused with attention, and a decoder that reads two scales.

    What a stage starts from, weighted by attention to channels, goes with what it makes, and with
    the shrunk image, through a 1x1 convolution (feature fusion module B; A, before the first stage,
    has no attention). The paper's LMFFNet-3-8: with 19 classes it has its 1.35 M parameters. With
    11, an image of 360 x 480 takes 5.38 * 10^9 multiply-adds; the 5.43 in published tables is what
    fvcore counts, normalisation and interpolation included.

    Parameters
    ----------
    classes : number of classes K
    width : factor on the channel counts 16, 32, 64 and 128, see `_narrowest`

    Source
    ------
    Shi et al. 2022 (IEEE TNNLS), section III, and its authors' code, which ours follows layer by
    layer. From there we have the places of normalisation, class scores without bias, and He's
    initialisation of convolutions, which their training applies. We deviate in `width`, and in
    leaving the last resizing, from 1/4, to the caller.
    """

    stride = 8
    dilations = (2,) * 3, (4, 4, 8, 8, 16, 16, 32, 32)  # of the blocks at 1/4, and at 1/8

    def __init__(self, classes: int, *, width: float = 1.0):
        super().__init__()
        c = _narrowest(width)
        self.stem, self.halve, self.stages = _trunk(c, SEMB, self.dilations)
        self.attend = nn.ModuleList(_PMCA(channels) for channels in (2 * c, 4 * c))
        self.fuse = nn.ModuleList(
            nn.Sequential(_norm(channels), _pointwise(channels, channels))
            for channels in (c + 3, 4 * c + 3, 8 * c + 3)
        )
        self.decoder = _MAD((4 * c + 3, 8 * c + 3), (c // 2, c), classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H / 4, W / 4) for images (N, 3, H, W), multiples of 8."""
        half, *smaller = _shrunk(x)
        maps = [self.fuse[0](torch.cat([self.stem(x), half], 1))]
        for halve, stage, attend, fuse, image in zip(
            self.halve, self.stages, self.attend, self.fuse[1:], smaller, strict=True
        ):
            start = halve(maps[-1])
            maps.append(fuse(torch.cat([stage(start), attend(start), image], 1)))
        return self.decoder(*maps[1:])


class SEMB(nn.Module):
    """Split-extract-merge: one half of narrowed channels looks near, the other one far.

    A 3x3 convolution halves the channels, each half of these has a depth-wise 3x3 convolution of
    its own, another 3x3 convolution merges both, a 1x1 convolution brings the channels back, and
    the input is added.

    Parameters
    ----------
    channels : of input and output; a multiple of 4
    dilation : of the far half

    Source
    ------
    Shi et al. 2022, section III.
    """

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.narrow = _conv(channels, half)
        self.near, self.far = (_depthwise(quarter, d) for d in (1, dilation))
        self.widen = nn.Sequential(_conv(half, half), _pointwise(half, channels))
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        near, far = self.narrow(x).chunk(2, 1)
        y = self.widen(torch.cat([self.near(near), self.far(far)], 1))
        return self.norm(x + y)


class _PMCA(nn.Module):
    """Partition-merge channel attention: a weight in (0, 1) for each channel of each image.

    It is made from the channel's mean plus a learned sum of its means over the four quarters.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.merge = nn.Conv2d(channels, channels, 2, groups=channels, bias=False)
        self.weigh = nn.Sequential(
            nn.Linear(channels, channels // 8, bias=False),
            nn.PReLU(),
            nn.Linear(channels // 8, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        quarters = self.merge(F.adaptive_avg_pool2d(x, 2))
        means = quarters + x.mean((2, 3), keepdim=True)
        return x * self.weigh(means.flatten(1))[..., None, None]


class _MAD(nn.Module):
    """Multiscale attention decoder: scores at 1/8, times a weight in (0, 1) per class at 1/4.

    Parameters
    ----------
    channels : of the maps at 1/4 and at 1/8
    narrow : how many of each the weights are made from
    classes : number of classes K
    """

    def __init__(self, channels: tuple[int, int], narrow: tuple[int, int], classes: int):
        super().__init__()
        self.narrow = nn.ModuleList(map(_pointwise, channels, narrow))
        self.weigh = nn.Sequential(
            _depthwise(sum(narrow)), _pointwise(sum(narrow), classes), nn.Sigmoid()
        )
        self.scores = nn.Sequential(_depthwise(channels[1]), _pointwise(channels[1], classes))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        both = torch.cat([self.narrow[0](fine), _doubled(self.narrow[1](coarse))], 1)
        return _doubled(self.scores(coarse)) * self.weigh(both)


class _Halve(nn.Module):
    """A strided 3x3 convolution beside 2x2 max-pooling (Paszke et al. 2016, figure 2a)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.new = nn.Conv2d(before, after - before, 3, stride=2, padding=1, bias=False)
        self.norm = _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.new(x), F.max_pool2d(x, 2)], 1))


def _narrowest(width: float) -> int:
    """Return the channels that stand for 32: even, and at least 4; the others are multiples."""
    return max(4, 2 * round(16 * width))


def _trunk(
    c: int, block: type[nn.Module], dilations: tuple[tuple[int, ...], ...]
) -> tuple[nn.Sequential, nn.ModuleList, nn.ModuleList]:
    """Return what both networks share: the stem, the downsamplings, and two stages of blocks.

    The stem's three 3x3 convolutions, the first of which halves the image's size, have c channels;
    the stages, at 1/4 and 1/8, a block of 2c and of 4c for each of their dilations. Downsamplings
    read three channels more: the shrunk image's.
    """
    stem = nn.Sequential(_conv(3, c, stride=2), _conv(c, c), _conv(c, c))
    halve = nn.ModuleList([_Halve(c + 3, 2 * c), _conv(4 * c + 3, 4 * c, stride=2)])
    stages = nn.ModuleList(
        nn.Sequential(*(block(channels, dilation) for dilation in of_stage))
        for channels, of_stage in zip((2 * c, 4 * c), dilations, strict=True)
    )
    return stem, halve, stages


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def _conv(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, *_norm(after))


def _depthwise(channels: int, dilation: int = 1, kernel: tuple[int, int] = (3, 3)) -> nn.Sequential:
    convolution = nn.Conv2d(
        channels, channels, kernel, padding="same", dilation=dilation, groups=channels, bias=False
    )
    return nn.Sequential(convolution, *_norm(channels))


def _pointwise(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 1, bias=False)


def _shrunk(images: Tensor) -> list[Tensor]:
    """Return images at 1/2, 1/4 and 1/8 of their size, by means of 3x3 pixels, again and again."""
    sizes = []
    for _ in range(3):
        images = F.avg_pool2d(images, 3, stride=2, padding=1)
        sizes.append(images)
    return sizes


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _initialise(network: nn.Module) -> None:
    """Draw the weights of all convolutions anew, as He et al. 2015 (arXiv 1502.01852) do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)

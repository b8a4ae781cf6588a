"""The networks: the course baseline, FCN, and any segmentation-models-pytorch network by name.

A *body* maps normalised float images to logits at any resolution. `Segmenter` wraps every body in
the same way: it normalises, pads to the body's stride, and returns logits of the images' own size.
"""

import difflib

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from roadseg.recipe import InputError, nearest

# ImageNet statistics in units of 0..255. Constants, because the library's own look-up asks a hub.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class Segmenter(nn.Module):
    """A body with its normalisation and size handling.

    Parameters
    ----------
    body : module, float (N, 3, H, W) -> logits float (N, K, h, w)
    stride : images are padded at the right and bottom, with the mean colour, to a multiple of it
    """

    def __init__(self, body: nn.Module, stride: int):
        super().__init__()
        self.body = body
        self.stride = stride
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float (N, K, H, W) for images (N, 3, H, W), uint8 or float in 0..255."""
        height, width = images.shape[-2:]
        x = (images.float() - self.mean) / self.std
        right, bottom = -width % self.stride, -height % self.stride
        x = F.pad(x, (0, right, 0, bottom))
        logits = self.body(x)
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


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

    Source
    ------
    arXiv 2206.12571, section on the baseline, and the course's code.
    """

    def __init__(self, classes: int, *, width: float = 1.0, unpool: bool = False):
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

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, h, w); h and w are near the full size, or equal to it (unpool)."""
        if min(x.shape[-2:]) < 33:
            raise InputError(
                f"image size {x.shape[-2]} x {x.shape[-1]}: the baseline needs at least 33 pixels "
                "each way, since its unpadded 3x3 convolution works at 1/16 of the size."
            )
        steps = []
        for block in self.blocks:
            x = block(x)
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


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


class FCN(nn.Module):
    """Fully convolutional network with skip connections over any encoder.

    Class scores at 1/32 are upsampled by two and added to scores from the encoder's 1/16 map
    (FCN-16s), then likewise to those of its 1/8 map (FCN-8s). The last upsampling is bilinear.

    Parameters
    ----------
    encoder_name : an encoder of segmentation-models-pytorch; built without weights
    classes : number of classes K
    stride : 32, 16 or 8, the resolution of the finest scores
    fc_channels : width of the convolutional fc6 (7x7) and fc7 (1x1) of the paper, which belong
        to VGG-16 (4096); 0 leaves them out, as is usual over residual encoders

    Source
    ------
    Long, Shelhamer, Darrell 2015, section 4. We deviate in training all skips at once from the
    start, hence scores are not initialised to zero; in reading the encoder's last map *before*
    each pooling; and in padding fc6 by 3 instead of the image by 100.
    """

    def __init__(self, encoder_name: str, classes: int, *, stride: int, fc_channels: int = 0):
        super().__init__()
        self.encoder = get_encoder(encoder_name, weights=None)
        channels = self.encoder.out_channels  # at 1/1, 1/2, ..., 1/32
        self.fc = nn.Identity()
        if fc_channels:
            self.fc = nn.Sequential(
                nn.Conv2d(channels[5], fc_channels, 7, padding=3), nn.ReLU(True), nn.Dropout2d(),
                nn.Conv2d(fc_channels, fc_channels, 1), nn.ReLU(True), nn.Dropout2d(),
            )  # fmt: skip
        levels = {32: [5], 16: [5, 4], 8: [5, 4, 3]}[stride]
        self.levels = levels
        self.scores = nn.ModuleList(
            nn.Conv2d(fc_channels if fc_channels and level == 5 else channels[level], classes, 1)
            for level in levels
        )
        self.upsample = nn.ModuleList(_bilinear_upsampling(classes) for _ in range(len(levels) - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H / stride, W / stride)."""
        features = self.encoder(x)
        scores = self.scores[0](self.fc(features[5]))
        for upsample, score, level in zip(
            self.upsample, self.scores[1:], self.levels[1:], strict=True
        ):
            scores = upsample(scores) + score(features[level])
        return scores


def _bilinear_upsampling(classes: int) -> nn.ConvTranspose2d:
    """Return a learnable x2 upsampling that starts as bilinear interpolation of each class."""
    layer = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(classes), range(classes)] = row[:, None] * row
    return layer


def build(name: str, classes: int) -> Segmenter:
    """Build a network by name, with random weights.

    Parameters
    ----------
    name : 'baseline', 'baseline-unpool' (either with ':WIDTH', a factor such as 0.25),
        'fcn32s:ENCODER', 'fcn16s:ENCODER', 'fcn8s:ENCODER', or 'smp:ARCHITECTURE:ENCODER'
    classes : number of classes K >= 2

    Raises
    ------
    InputError : an unknown name, with the nearest known ones
    """
    check_name(name)
    kind, *rest = name.split(":")
    if kind in ("baseline", "baseline-unpool"):
        width = float(rest[0]) if rest else 1.0
        return Segmenter(Baseline(classes, width=width, unpool=kind != "baseline"), stride=1)
    if kind == "smp":
        architecture, encoder = rest
        body = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, classes=classes
        )
        return Segmenter(body, stride=32)
    (encoder,) = rest
    stride = int(kind.removeprefix("fcn").removesuffix("s"))
    fc_channels = 4096 if encoder.startswith("vgg") else 0
    return Segmenter(FCN(encoder, classes, stride=stride, fc_channels=fc_channels), stride=32)


FORMS = {
    "baseline": "baseline[:WIDTH]",
    "baseline-unpool": "baseline-unpool[:WIDTH]",
    "fcn32s": "fcn32s:ENCODER",
    "fcn16s": "fcn16s:ENCODER",
    "fcn8s": "fcn8s:ENCODER",
    "smp": "smp:ARCHITECTURE:ENCODER",
}


def check_name(name: str) -> None:
    """Raise InputError, naming the nearest known names, unless `build` knows this network."""
    kind, *rest = name.split(":")
    if kind not in FORMS:
        close = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f" Did you mean {FORMS[close[0]]!r}?" if close else ""
        raise InputError(f"network {name!r}: unknown.{hint} Known: {', '.join(FORMS.values())}.")
    wanted = FORMS[kind]
    if kind.startswith("baseline"):
        try:
            fits = len(rest) <= 1 and all(0 < float(width) <= 4 for width in rest)
        except ValueError:
            fits = False
        if not fits:
            raise InputError(f"network {name!r}: write {wanted}, WIDTH a factor in (0, 4].")
        return
    if len(rest) != wanted.count(":"):
        raise InputError(f"network {name!r}: write {wanted}.")
    if kind == "smp" and rest[0] not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise InputError(
            f"network {name!r}: unknown architecture {rest[0]!r}."
            + nearest(rest[0], smp.MODEL_ARCHITECTURES_MAPPING)
        )
    encoder = rest[-1]
    known = smp.encoders.encoders
    if encoder.startswith("tu-"):  # any of timm's networks
        known = [f"tu-{model}" for model in timm.list_models()]
    if encoder not in known:
        raise InputError(
            f"network {name!r}: unknown encoder {encoder!r}." + nearest(encoder, known)
        )

"""The networks by name: baseline, U-Net, FCN, real-time ones, any of segmentation-models-pytorch.

A *body* maps normalised float images to logits at any resolution. `Segmenter` wraps every body in
the same way: it normalises, pads to the body's stride, and returns logits of the images' own size.
"""

import difflib
from collections.abc import Callable
from functools import partial

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from roadseg.errors import InputError, nearest
from roadseg.models.realtime import DABNet, LMFFNet

# ImageNet statistics in units of 0..255. Constants, because the library's own look-up asks a hub.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class DilatedDepthwise(nn.Conv2d):
    """A grouped convolution of dilated rows, which a CPU computes in fp32 under autocast too.

    In bf16 and channels_last the gradient of its weights holds what memory held before, now wrong
    and now not finite, from some 20 rows on: torch 2.15 with oneDNN on AVX-512 with bf16.
    `test_gradients_do_not_depend_on_what_memory_held` sees it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return what nn.Conv2d does."""
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Segmenter(nn.Module):
    """A body with its normalisation and size handling.

    Parameters
    ----------
    body : module, float (N, 3, H, W) -> logits float (N, K, h, w)
    stride : images are padded at the right and bottom, with the mean colour, to a multiple of it
    auxiliary : None, or a head that maps the body's features at 1/16 of the size to logits: the
        fifth map of an encoder of segmentation-models-pytorch, or the baseline's last pooled one
    """

    def __init__(self, body: nn.Module, stride: int, auxiliary: nn.Module | None = None):
        super().__init__()
        self.body = body
        for module in body.modules():
            if type(module) is nn.Conv2d and module.groups > 1 and module.dilation[0] > 1:
                module.__class__ = DilatedDepthwise
        self.stride = stride
        self.auxiliary = auxiliary
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float (N, K, H, W) for images (N, 3, H, W), uint8 or float in 0..255."""
        x = self._padded(images)
        return self._full_size(self.body(x), x, images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the auxiliary head's, both float (N, K, H, W)."""
        x, features = self._padded(images), []
        # Caught on their way, so that every body keeps its own forward pass.
        if isinstance(self.body, Baseline):
            hook = self.body.scores.register_forward_pre_hook(
                lambda _module, inputs: features.append(inputs[0])
            )
        else:
            hook = self.body.encoder.register_forward_hook(
                lambda _module, _inputs, maps: features.append(maps[4])
            )
        try:
            logits = self.body(x)
        finally:
            hook.remove()
        extra = self.auxiliary(features[0])
        return self._full_size(logits, x, images), self._full_size(extra, x, images)

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = (images.float() - self.mean) / self.std
        return F.pad(x, (0, -width % self.stride, 0, -height % self.stride))

    def _full_size(self, logits: Tensor, x: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


class FCNHead(nn.Sequential):
    """The auxiliary head: a 3x3 convolution to a quarter of the channels, and class scores.

    Source
    ------
    Zhao et al. 2017 (PSPNet), section 3.3 for the idea; the head is FCNHead of MMSegmentation, with
    one convolution, as in the course study.
    """

    def __init__(self, channels: int, classes: int):
        between = max(channels // 4, 1)
        super().__init__(
            nn.Conv2d(channels, between, 3, padding=1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(between, classes, 1),
        )


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
            self.blocks = nn.ModuleList(map(_normalised, self.blocks))
            self.scores = _normalised(self.scores)
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
            made = block[:-1](x)  # up to its last ReLU, which comes after the sum
            x = block[-1](made + self.shortcuts[stage](x) if self.shortcuts else made)
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


def _normalised(chain: nn.Sequential) -> nn.Sequential:
    """Return a chain of convolutions with batch normalisation before each ReLU."""
    channels, made = 0, []
    for layer in chain:
        if isinstance(layer, nn.ReLU):
            made.append(nn.BatchNorm2d(channels))
        channels = getattr(layer, "out_channels", channels)
        made.append(layer)
    return nn.Sequential(*made)


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


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


def build(
    name: str,
    classes: int,
    *,
    batch_norm: bool = False,
    residual: bool = False,
    dropout: float = 0.0,
    auxiliary: bool = False,
) -> Segmenter:
    """Build a network by name, with random weights.

    What the options add is made after the rest: one seed gives the rest the same weights with and
    without.

    Parameters
    ----------
    name : 'baseline', 'baseline-unpool', 'unet', 'dabnet', 'lmffnet' (each also with ':WIDTH', a
        factor on its channels such as 0.25), 'fcn32s:ENCODER', 'fcn16s:ENCODER', 'fcn8s:ENCODER',
        or 'smp:ARCHITECTURE:ENCODER', with DeepLabV3 and DeepLabV3+ also 'smp:...:STRIDE', where
        the encoder stops getting coarser: 8 or 16
    classes : number of classes K >= 2
    batch_norm, residual : see `Baseline`, and for the baselines only
    dropout : probability of dropping a channel of what the last score layer reads (in an FCN, of
        the coarsest one), in training; for all but the baselines
    auxiliary : add a head for `Segmenter.with_auxiliary`

    Raises
    ------
    InputError : an unknown name, with the nearest known ones; no features for an auxiliary head,
        or no score layer for dropout
    """
    check_name(name)
    kind, *rest = name.split(":")
    width = float(rest[0]) if kind in WIDE and rest else 1.0
    if kind in ("baseline", "baseline-unpool"):
        body = Baseline(
            classes, width=width, unpool=kind != "baseline", batch_norm=batch_norm,
            residual=residual,
        )  # fmt: skip
        stride, channels = 1, body.scores[0].in_channels
    elif kind in WIDE:
        body = {"unet": UNet, "dabnet": DABNet, "lmffnet": LMFFNet}[kind](classes, width=width)
        stride, head = body.stride, None
    elif kind == "smp":
        architecture, encoder, *at = rest
        options = {"encoder_output_stride": int(at[0])} if at else {}
        if encoder.startswith("tu-swin"):  # made for one size, unless told
            options["strict_img_size"] = False
        body = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, classes=classes, **options
        )
        stride, head = 32, getattr(body, "segmentation_head", None)
    else:
        (encoder,) = rest
        skips = int(kind.removeprefix("fcn").removesuffix("s"))
        fc_channels = 4096 if encoder.startswith("vgg") else 0
        body = FCN(encoder, classes, stride=skips, fc_channels=fc_channels)
        stride, head = 32, body.scores[0]
    if stride > 1:
        maps = getattr(getattr(body, "encoder", None), "out_channels", ())
        if auxiliary and (len(maps) < 5 or not maps[4]):
            raise InputError(
                f"aux_weight: {name!r} has no features at 1/16 of the size; set it to 0."
            )
        channels = maps[4] if auxiliary else 0
        if dropout and head is None:
            raise InputError(
                f"dropout: {name!r} has no score layer to drop channels of; set it to 0."
            )
        if dropout:
            # A hook, so that the weights keep their names with and without.
            head.register_forward_pre_hook(partial(_drop_channels, dropout))
    head = FCNHead(channels, classes) if auxiliary else None
    return Segmenter(body, stride, head)


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that `make` builds, on the meta device: shapes without numbers."""
    try:
        with torch.device("meta"):
            return make()
    except RuntimeError:  # some encoders compute with numbers while they are built
        return make().to("meta")


def _drop_channels(share: float, layer: nn.Module, inputs: tuple) -> Tensor:
    return F.dropout2d(inputs[0], share, layer.training)


def load_encoder(network: Segmenter, weights: str, name: str) -> None:
    """Put an encoder's published weights into a network, from the cache or a download.

    Parameters
    ----------
    network : one with an encoder of segmentation-models-pytorch
    weights : their name there, such as 'imagenet'
    name : the network's name, which holds the encoder's

    Raises
    ------
    InputError : they cannot be had
    """
    kind, *rest = name.split(":")
    encoder = rest[1] if kind == "smp" else rest[0]
    try:
        donor = get_encoder(encoder, weights=weights).state_dict()
        network.body.encoder.load_state_dict(donor)
    except Exception as problem:  # a library's own, of any kind: no network, no such weights
        cause = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise InputError(
            f"pretrained: hub:{weights}: no such weights could be loaded for {encoder} "
            f"({cause}). Without a network, put the encoder's state dict into a file and set "
            "pretrained: file:PATH."
        ) from None


def check_hub(weights: str, network: str) -> None:
    """Raise InputError unless a network's encoder is published with weights of this name."""
    kind, *rest = network.split(":")
    if kind in WIDE:
        raise InputError(f"hub:{weights}: {network!r} has no published weights; leave it out.")
    encoder = rest[0] if kind != "smp" else rest[1]
    if encoder.startswith("tu-"):  # timm's have one set each, whatever the name
        known = ["imagenet"] if timm.is_model_pretrained(encoder.removeprefix("tu-")) else []
    else:
        known = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    if weights not in known:
        raise InputError(f"hub:{weights}: {encoder} has no such weights.{nearest(weights, known)}")


WHOLE = ("dabnet", "lmffnet")  # networks without an encoder that could be taken out
WIDE = ("baseline", "baseline-unpool", "unet", "dabnet", "lmffnet")
FORMS = {
    **{kind: f"{kind}[:WIDTH]" for kind in WIDE},
    "fcn32s": "fcn32s:ENCODER",
    "fcn16s": "fcn16s:ENCODER",
    "fcn8s": "fcn8s:ENCODER",
    "smp": "smp:ARCHITECTURE:ENCODER",
}
STRIDED = ("deeplabv3", "deeplabv3plus")


def check_name(name: str) -> None:
    """Raise InputError, naming the nearest known names, unless `build` knows this network."""
    kind, *rest = name.split(":")
    if kind not in FORMS:
        close = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f" Did you mean {FORMS[close[0]]!r}?" if close else ""
        raise InputError(f"network {name!r}: unknown.{hint} Known: {', '.join(FORMS.values())}.")
    wanted = FORMS[kind]
    if kind in WIDE:
        try:
            fits = len(rest) <= 1 and all(0 < float(width) <= 4 for width in rest)
        except ValueError:
            fits = False
        if not fits:
            raise InputError(f"network {name!r}: write {wanted}, WIDTH a factor in (0, 4].")
        return
    strided = kind == "smp" and len(rest) == 3 and rest[0] in STRIDED
    if strided and rest.pop() not in ("8", "16"):
        raise InputError(f"network {name!r}: write {wanted}:STRIDE, STRIDE 8 or 16.")
    if len(rest) != wanted.count(":"):
        also = f" ({' and '.join(STRIDED)} also with :STRIDE)" if kind == "smp" else ""
        raise InputError(f"network {name!r}: write {wanted}{also}.")
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

"""The networks by name: our own, and those of segmentation-models-pytorch and torchvision."""

import difflib
from collections.abc import Callable
from functools import partial

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from roadseg.errors import InputError, nearest
from roadseg.models.baseline import Baseline
from roadseg.models.fcn import FCN
from roadseg.models.pretrained import WITH_WIDTH
from roadseg.models.realtime import DABNet, LMFFNet
from roadseg.models.segmenter import FCNHead, Segmenter
from roadseg.models.tv import BACKBONES, TorchvisionNetwork
from roadseg.models.unet import UNet

WITHOUT_ENCODER = ("dabnet", "lmffnet")  # networks without an encoder that could be taken out
FORMS = {
    **{kind: f"{kind}[:WIDTH]" for kind in WITH_WIDTH},
    "fcn32s": "fcn32s:ENCODER",
    "fcn16s": "fcn16s:ENCODER",
    "fcn8s": "fcn8s:ENCODER",
    "fcn4s": "fcn4s:ENCODER",
    "tv": "tv:NETWORK",
    "smp": "smp:ARCHITECTURE:ENCODER",
}
# Architectures of segmentation-models-pytorch that take one more number, and which ones.
SMP_OPTIONS = {
    "deeplabv3": ("STRIDE", (8, 16)),
    "deeplabv3plus": ("STRIDE", (8, 16)),
    "fpn": ("CHANNELS", tuple(range(32, 513, 32))),
}


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
        'fcn4s:ENCODER', 'tv:NETWORK' (see `tv.BACKBONES`), or 'smp:ARCHITECTURE:ENCODER', with
        DeepLabV3 and DeepLabV3+ also 'smp:...:STRIDE', where the encoder stops getting coarser: 8
        or 16; with FPN also 'smp:fpn:ENCODER:CHANNELS', the width of its maps (256, and 128 in the
        last ones, if not given)
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
    width = float(rest[0]) if kind in WITH_WIDTH and rest else 1.0
    if kind in ("baseline", "baseline-unpool"):
        body = Baseline(
            classes, width=width, unpool=kind != "baseline", batch_norm=batch_norm,
            residual=residual,
        )  # fmt: skip
        stride, channels = 1, body.scores[0].in_channels
    elif kind in WITH_WIDTH:
        body = {"unet": UNet, "dabnet": DABNet, "lmffnet": LMFFNet}[kind](classes, width=width)
        stride, head = body.stride, None
    elif kind == "smp":
        architecture, encoder, *option = rest
        options = {}
        if option and architecture == "fpn":
            options = {
                "decoder_pyramid_channels": int(option[0]),
                "decoder_segmentation_channels": int(option[0]),
            }
        elif option:
            options = {"encoder_output_stride": int(option[0])}
        if encoder.startswith("tu-swin"):  # made for one size, unless told
            options["strict_img_size"] = False
        body = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, classes=classes, **options
        )
        stride, head = 32, getattr(body, "segmentation_head", None)
    elif kind == "tv":
        body = TorchvisionNetwork(rest[0], classes)
        stride, head = body.stride, body.score_layer
    else:
        (encoder,) = rest
        skips = int(kind.removeprefix("fcn").removesuffix("s"))
        fc_channels = 4096 if encoder.startswith("vgg") else 0
        body = FCN(encoder, classes, stride=skips, fc_channels=fc_channels)
        stride, head = 32, body.scores[0]
    if stride > 1:
        maps = getattr(getattr(body, "encoder", None), "out_channels", ())
        sixteenth = maps[4] if len(maps) > 4 else getattr(body, "auxiliary_channels", 0)
        if auxiliary and not sixteenth:
            raise InputError(
                f"aux_weight: {name!r} has no features at 1/16 of the size; set it to 0."
            )
        channels = sixteenth
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
        with torch.device("meta"), _MetaInitialisation():
            return make()
    except RuntimeError:  # some encoders compute with numbers while they are built
        return make().to("meta")


# What initialisations write with. On the meta device there is nothing to write, and torch takes
# seconds for it.
INITIALISERS = {
    getattr(Tensor, name)
    for name in ("normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")
}


class _MetaInitialisation(TorchFunctionMode):
    """On the meta device, gives SegFormer's encoders the few numbers that they are built by."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function in INITIALISERS and arguments[0].is_meta:
            return arguments[0]
        if function is torch.linspace:
            options = {"device": "cpu", **options}
        return function(*arguments, **options)


def _drop_channels(share: float, layer: nn.Module, inputs: tuple) -> Tensor:
    return F.dropout2d(inputs[0], share, layer.training)


def check_name(name: str) -> None:
    """Raise InputError, naming the nearest known names, unless `build` knows this network."""
    kind, *rest = name.split(":")
    if kind not in FORMS:
        close = difflib.get_close_matches(kind, FORMS, n=1)
        hint = f" Did you mean {FORMS[close[0]]!r}?" if close else ""
        raise InputError(f"network {name!r}: unknown.{hint} Known: {', '.join(FORMS.values())}.")
    form = FORMS[kind]
    if kind in WITH_WIDTH:
        try:
            is_valid = len(rest) <= 1 and all(0 < float(width) <= 4 for width in rest)
        except ValueError:
            is_valid = False
        if not is_valid:
            raise InputError(f"network {name!r}: write {form}, WIDTH a factor in (0, 4].")
        return
    if kind == "smp" and len(rest) == 3 and rest[0] in SMP_OPTIONS:
        option, choices = SMP_OPTIONS[rest[0]]
        if rest.pop() not in map(str, choices):
            known = " or ".join(map(str, choices))
            if len(choices) > 2:
                known = f"a multiple of {choices[0]} up to {choices[-1]}"
            raise InputError(f"network {name!r}: write {form}:{option}, {option} {known}.")
    if len(rest) != form.count(":"):
        options = ", ".join(f"{a} also with :{option}" for a, (option, _) in SMP_OPTIONS.items())
        raise InputError(
            f"network {name!r}: write {form}{f' ({options})' if kind == 'smp' else ''}."
        )
    if kind == "smp" and rest[0] not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise InputError(
            f"network {name!r}: unknown architecture {rest[0]!r}."
            + nearest(rest[0], smp.MODEL_ARCHITECTURES_MAPPING)
        )
    if kind == "tv":
        if rest[0] not in BACKBONES:
            raise InputError(
                f"network {name!r}: torchvision has no network {rest[0]!r}."
                + nearest(rest[0], BACKBONES)
            )
        return
    encoder = rest[-1]
    known = smp.encoders.encoders
    if encoder.startswith("tu-"):  # any of timm's networks
        known = [f"tu-{model}" for model in timm.list_models()]
    if encoder not in known:
        raise InputError(
            f"network {name!r}: unknown encoder {encoder!r}." + nearest(encoder, known)
        )

"""Published weights of encoders: `pretrained: hub:NAME`."""

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import get_encoder

from roadseg.errors import InputError, nearest
from roadseg.models.segmenter import Segmenter

# Networks whose names hold no encoder, but may hold a width.
WIDE = ("baseline", "baseline-unpool", "unet", "dabnet", "lmffnet")


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

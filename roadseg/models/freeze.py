"""Parts of a pre-trained encoder that keep their weights."""

from math import log2

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from roadseg.errors import InputError
from roadseg.models.segmenter import Segmenter

PROBE = 64  # pixels: enough for a map at 1/32


def freeze(network: Segmenter, stages: int, norm: bool) -> None:
    """Freeze the first stages of a network's encoder, and its batch normalisation if asked to.

    What is frozen gets no gradient and stays in eval mode: batch normalisation uses the statistics
    that the weights came with. Nothing before the first trained layer is kept for the backward
    pass, which saves its time and memory.

    Parameters
    ----------
    network : one whose encoder has its weights
    stages : a stage is what makes a map half as large as the one before, as in
        segmentation-models-pytorch: with n of them, all that the map at 1 / 2**n of the size is
        computed from keeps its weights. In a ResNet 1 is the stem, 2 adds the first of its four
        layers; in an EfficientNet 1 is the stem and the first block
    norm : whether batch normalisation in all of the encoder is frozen, scale and shift included

    Raises
    ------
    InputError : the network has no encoder, or its encoder no such map or no batch normalisation
    """
    if not stages and not norm:
        return
    encoder = encoder_of(network, "freeze_stages" if stages else "freeze_norm")
    frozen = []
    if norm:
        frozen += [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
        if not frozen:
            raise InputError("freeze_norm: this encoder has no batch normalisation; leave it out.")
    if stages:
        used = {id(p) for p in _used_parameters(encoder, stages)}
        frozen += [
            module for module in encoder.modules()
            if (weights := list(module.parameters())) and all(id(p) in used for p in weights)
        ]  # fmt: skip
    for module in frozen:
        module.requires_grad_(False)
    network.frozen = frozen
    network.train(network.training)


def encoder_of(network: Segmenter, hyperparameter: str) -> nn.Module:
    """Return a network's encoder; an InputError, that names what asks for it, if it has none."""
    encoder = getattr(network.body, "encoder", None)
    if encoder is None:
        raise InputError(f"{hyperparameter}: this network has no encoder; leave it out.")
    return encoder


def _used_parameters(encoder: nn.Module, stages: int) -> list[Tensor]:
    """Return the parameters that an encoder's map at 1 / 2**stages of the size depends on."""
    training = encoder.training
    encoder.eval()  # which draws no random numbers, and keeps the statistics
    parameters = list(encoder.parameters())
    device = parameters[0].device
    feature_map = _maps(encoder, torch.zeros(1, 3, PROBE, PROBE, device=device)).get(stages)
    encoder.train(training)
    if feature_map is None or not feature_map.requires_grad:
        raise InputError(
            f"freeze_stages: {stages}: the encoder has no map of its own at 1/{2**stages} of the "
            "size; choose another number."
        )
    gradients = torch.autograd.grad(feature_map.sum(), parameters, allow_unused=True)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]


def _maps(encoder: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """Return the last of an encoder's maps at each resolution: n -> that at 1 / 2**n."""
    if isinstance(encoder, IntermediateLayerGetter):  # torchvision's; it returns a few of them
        maps = []
        for module in encoder.values():
            maps.append(x := module(x))
    else:
        maps = encoder(x)
    return {
        round(log2(PROBE / feature_map.shape[-1])): feature_map
        for feature_map in maps
        if feature_map.numel()
    }

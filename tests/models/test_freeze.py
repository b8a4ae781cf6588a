"""Frozen parts of an encoder: which they are, and that they stay as they were."""

import pytest
import torch
from torch import nn

from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.models.freeze import freeze

LITE = "tu-tf_efficientnet_lite0"


def frozen_names(network) -> set[str]:
    return {name for name, p in network.body.encoder.named_parameters() if not p.requires_grad}


def names(network, *prefixes: str) -> set[str]:
    return {n for n, _ in network.body.encoder.named_parameters() if n.startswith(prefixes)}


@pytest.mark.parametrize(
    ("network", "stages", "prefixes"),
    [
        (f"fcn8s:{LITE}", 1, ("model.conv_stem.", "model.bn1.", "model.blocks.0.")),
        (f"fcn8s:{LITE}", 2, ("model.conv_stem.", "model.bn1.", "model.blocks.0.", "model.blocks.1.")),
        ("smp:unet:resnet18", 1, ("conv1.", "bn1.")),
        ("smp:unet:resnet18", 3, ("conv1.", "bn1.", "layer1.", "layer2.")),
        ("tv:fcn_resnet50", 2, ("conv1.", "bn1.", "layer1.")),
    ],
)  # fmt: skip
def test_stages_end_where_maps_do(network, stages, prefixes):
    segmenter = build(network, 4)
    state = torch.get_rng_state()
    before = {n: v.clone() for n, v in segmenter.state_dict().items()}
    freeze(segmenter, stages, norm=False)
    assert frozen_names(segmenter) == names(segmenter, *prefixes)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], v) for n, v in segmenter.state_dict().items())


def test_what_is_frozen_does_not_move_and_the_rest_does():
    network = build(f"fcn8s:{LITE}", 4).train()
    freeze(network, 2, norm=False)
    network.eval()
    network.train()  # as after each scoring
    before = {n: v.clone() for n, v in network.body.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.rand(2, 3, 64, 64) * 255).square().mean().backward()
    optimizer.step()
    after = network.body.encoder.state_dict()
    kept = names(network, "model.conv_stem", "model.bn1", "model.blocks.0.", "model.blocks.1.")
    statistics = {n for n in before if "running" in n and n.startswith(("model.bn1", "model.blocks.0.", "model.blocks.1."))}  # fmt: skip
    for name in kept | statistics:
        assert torch.equal(before[name], after[name]), name
    moved = [n for n in after if n.startswith("model.blocks.2") and "num_batches" not in n]
    assert moved and all(not torch.equal(before[n], after[n]) for n in moved)


def test_frozen_batch_norm_is_all_of_the_encoder_s():
    network = build("smp:unet:resnet18", 4).train()
    freeze(network, 0, norm=True)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            inside = name.startswith("body.encoder.")
            assert module.training != inside and module.weight.requires_grad != inside


@pytest.mark.parametrize(
    ("network", "stages", "message"),
    [
        ("baseline:0.1", 2, "has no encoder"),
        ("dabnet:0.25", 1, "has no encoder"),
        ("smp:segformer:mit_b0", 1, "no map of its own at 1/2"),
    ],
)
def test_what_cannot_be_frozen_is_said(network, stages, message):
    with pytest.raises(InputError, match=message):
        freeze(build(network, 4), stages, norm=False)


def test_an_encoder_without_batch_norm_has_none_to_freeze():
    with pytest.raises(InputError, match="has no batch normalisation"):
        freeze(build("smp:segformer:mit_b0", 4), 0, norm=True)

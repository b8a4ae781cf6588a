"""Torchvision's networks, against torchvision's own forward pass."""

import pytest
import torch
import torchvision
from torch.nn import functional as F

from roadseg.errors import InputError
from roadseg.models.build import build, check_name
from roadseg.models.tv import BACKBONES

SMALL = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_torchvision_s(name):
    torch.manual_seed(0)
    ours = build(f"tv:{name}", 5).eval()
    torch.manual_seed(0)
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    theirs = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=5, **options
    ).eval()
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        expected = theirs((images - ours.mean) / ours.std)["out"]
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_the_auxiliary_head_changes_nothing_else_and_reads_torchvision_s_map():
    name = "tv:deeplabv3_mobilenet_v3_large"
    torch.manual_seed(0)
    plain = build(name, 4).eval()
    torch.manual_seed(0)
    network = build(name, 4, auxiliary=True).eval()
    weights = network.state_dict()
    assert all(torch.equal(v, weights[n]) for n, v in plain.state_dict().items())
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        logits, extra = network.with_auxiliary(images)
        maps = network.body.encoder((images - network.mean) / network.std)
        expected = F.interpolate(network.auxiliary(maps["aux"]), size=(64, 64), mode="bilinear")
        torch.testing.assert_close(extra, expected)
        torch.testing.assert_close(logits, network(images))


def test_what_has_no_auxiliary_head_or_score_layer_says_so():
    with pytest.raises(InputError, match="aux_weight"):
        build("tv:lraspp_mobilenet_v3_large", 4, auxiliary=True)
    with pytest.raises(InputError, match="dropout"):
        build("tv:lraspp_mobilenet_v3_large", 4, dropout=0.1)


def test_names():
    for name in BACKBONES:
        check_name(f"tv:{name}")
    with pytest.raises(InputError, match="Did you mean 'fcn_resnet50'"):
        check_name("tv:fcn_resnet5")

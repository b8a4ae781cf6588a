import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from roadseg.analysis import cost
from roadseg.models.realtime import DAB, SEMB, DABNet, LMFFNet

NETWORKS = [DABNet, LMFFNet]
def on_meta(network, classes):
    with torch.device("meta"):
        return network(classes)


@pytest.mark.parametrize(("network", "millions"), [(DABNet, 0.76), (LMFFNet, 1.35)])
def test_parameters_are_the_papers(network, millions):
    """With the 19 classes of Cityscapes."""
    assert round(cost.parameters(on_meta(network, 19)) / 1e6, 2) == millions


@pytest.mark.parametrize(("network", "published"), [(DABNet, 3.42), (LMFFNet, 5.43)])
def test_multiply_adds_are_the_published_ones(network, published):
    """With CamVid's 11 classes; fvcore adds 2 per normalised and 4 per interpolated value."""
    body, size = on_meta(network, 11), (360, 480)
    counted = cost.multiply_adds(body, size)
    assert counted == pytest.approx(published, rel=0.03)
    table = cost.layer_table(body, size)
    normed = table[table.kind == "BatchNorm2d"]
    more = 2 * (normed.channels * normed.height * normed.width).sum()
    more += 4 * 11 * 360 * 480
    if network is LMFFNet:
        more += 4 * (32 + 11) * 90 * 120
    assert round(counted + more / 1e9, 2) == published


@pytest.mark.parametrize(
    ("network", "dilations"),
    [(DABNet, [4, 4, 8, 8, 16, 16]), (LMFFNet, [4, 4, 8, 8, 16, 16, 32, 32])],
)
def test_stages_are_the_papers(network, dilations):
    """Three blocks at 1/4 with dilation 2, and then these at 1/8; half of their depth-wise
    convolutions are dilated, and nothing else is."""
    table = cost.layer_table(on_meta(network, 19), (512, 1024))
    layers = table[table.kind == "Conv2d"]
    each = 2 if network is DABNet else 1  # 3x1 and 1x3, or 3x3
    far = layers[layers.layer.str.contains("far")]
    assert far.dilation.tolist() == [d for d in [2, 2, 2, *dilations] for _ in range(each)]
    assert far.height.tolist() == each * 3 * [128] + each * len(dilations) * [64]
    near = layers[layers.layer.str.contains("near")]
    assert len(near) == len(far) and near.channels.tolist() == far.channels.tolist()
    assert (layers.drop(far.index).dilation == 1).all()
    # channels: three at half size, then what each downsampling makes beside its max-pooling
    assert layers.channels[:3].tolist() == [32] * 3
    assert layers[layers.stride == 2].channels.tolist() == [32, 64 - 35, 128]


def test_blocks_look_as_far_as_their_dilation():
    """A 3x3 convolution and the dilated one; of SEM-B also the 3x3 convolution that merges."""
    for block, by_hand in [(DAB(8, 5), 1 + 2 + 2 * 5), (SEMB(8, 5), 1 + 2 + 2 * 5 + 2)]:
        network = nn.Sequential(nn.Conv2d(3, 8, 1), block)
        field = cost.effective_field(network, torch.rand(2, 3, 32, 32), device=torch.device("cpu"))
        assert np.ptp(field.sum(0).nonzero()) + 1 == by_hand


@pytest.mark.parametrize("network", NETWORKS)
def test_it_learns_a_batch_from_scratch(network):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 64)
    labels = F.interpolate(images, scale_factor=1 / 8, mode="area").argmax(1)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    body = network(3, width=0.25)
    optimizer = torch.optim.Adam(body.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        logits = F.interpolate(body(images), size=(32, 64), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-5:]) < 0.3 * losses[0]


@pytest.mark.parametrize("channels", [4, 16])
def test_blocks_add_their_input(channels):
    """With nothing from their branches, they hand it on."""
    x = torch.randn(2, channels, 6, 7)
    for block in (DAB(channels, 2), SEMB(channels, 2)):
        nn.init.zeros_(block.widen[-1].weight)
        expected = x if isinstance(block, DAB) else block.norm(x)
        torch.testing.assert_close(block(x), expected)

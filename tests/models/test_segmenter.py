import pytest
import segmentation_models_pytorch as smp
import torch
from timm.layers import Conv2dSame
from torch import nn

from roadseg.models.build import build
from roadseg.models.segmenter import MEAN, STD, GroupedInFp32, Segmenter


def test_normalisation_is_part_of_the_network():
    network = build("baseline:0.1", 3)
    network.body = torch.nn.Identity()
    pixel = torch.tensor(MEAN).view(1, 3, 1, 1) + 2 * torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(network(pixel), torch.full((1, 3, 1, 1), 2.0))
    black = network(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(black, -torch.tensor(MEAN) / torch.tensor(STD))


def test_padding_does_not_reach_the_logits_of_smp_networks():
    """At sizes the library accepts, our network is the library's, and nothing else."""
    network = build("smp:unet:resnet18", 4).eval()
    images = torch.rand(1, 3, 64, 96) * 255
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=4).eval()
    theirs.load_state_dict(network.body.state_dict())
    x = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(x))


def test_the_auxiliary_head_sees_the_features_at_a_sixteenth():
    network = build("fcn8s:tu-resnet10t", 5, auxiliary=True).eval()
    images = torch.rand(1, 3, 64, 96) * 255
    x = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        features = network.body.encoder(x)[4]
        assert features.shape[-2:] == (4, 6)
        small = network.auxiliary(features)
        expected = torch.nn.functional.interpolate(small, size=(64, 96), mode="bilinear")
        main, extra = network.with_auxiliary(images)
        torch.testing.assert_close(extra, expected)
        torch.testing.assert_close(main, network(images))


@pytest.mark.parametrize("bias", [False, True])
def test_grouped_convolutions_give_way_to_ones_with_the_same_parameters(bias):
    twice = nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, bias=bias)
    strided = nn.Conv2d(
        4, 8, (3, 1), stride=2, padding=(2, 0), dilation=(2, 1), groups=4, bias=bias
    )
    same = Conv2dSame(4, 4, 3, stride=2, groups=4, bias=bias)
    others = [nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, groups=4)]  # fast in bf16
    body = nn.Sequential(twice, nn.ReLU(), nn.ModuleList([twice, strided, same, *others]))
    strided.weight.requires_grad_(False)
    names, state = list(body.state_dict()), torch.get_rng_state()
    held = dict(body.named_parameters())
    network = Segmenter(body, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(network.body.state_dict()) == names
    assert all(held[n] is p for n, p in network.body.named_parameters())
    first, _, (again, second, third, *rest) = network.body
    assert first is again and rest == others
    x = torch.rand(2, 4, 9, 7)
    for before, after in ((twice, first), (strided, second), (same, third)):
        assert type(after) is GroupedInFp32 and type(before) is not GroupedInFp32
        assert torch.equal(after(x), before(x))


@pytest.mark.parametrize("options", [
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 5, "padding": 2, "stride": 2, "bias": False},
    {"kernel_size": (7, 3), "padding": (1, 4), "stride": (3, 2), "dilation": (1, 2)},
    {"kernel_size": 5, "padding": "same"},
    {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
])  # fmt: skip
def test_gradients_of_large_depthwise_kernels_are_torch_s(options):
    torch.manual_seed(0)
    theirs = nn.Conv2d(6, 6, groups=6, **options).double()
    ours = GroupedInFp32.of(theirs)
    x = torch.randn(3, 6, 13, 12, dtype=torch.double, requires_grad=True)
    parameters = list(theirs.parameters())
    weights = torch.randn_like(theirs(x))
    expected = torch.autograd.grad((theirs(x) * weights).sum(), [x, *parameters])
    gradients = torch.autograd.grad((ours(x) * weights).sum(), [x, *parameters])
    for ours_, theirs_ in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours_, theirs_)


def test_weights_without_a_normalisation_had_imagenet_s():
    network, other = build("baseline:0.05", 3), build("baseline:0.05", 3)
    network.normalise_by([1, 2, 3], [4, 5, 6])
    older = {n: v for n, v in other.state_dict().items() if n not in ("mean", "std")}
    network.load_state_dict(older)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(STD))

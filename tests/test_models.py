import pytest
import segmentation_models_pytorch as smp
import torch

from roadseg import cost
from roadseg.models import MEAN, STD, Baseline, build, check_name
from roadseg.recipe import InputError

NAMES = [
    "baseline:0.1",
    "baseline-unpool:0.1",
    "fcn32s:tu-resnet10t",
    "fcn16s:tu-resnet10t",
    "fcn8s:tu-resnet10t",
    "fcn8s:mobilenet_v2",
    "smp:unet:resnet18",
    "smp:deeplabv3plus:resnet18",
    "smp:segformer:mit_b0",
]


def test_the_baseline_is_the_course_study_s():
    network = build("baseline", 19)
    assert cost.parameters(network) == 15_279_747
    assert cost.multiply_adds(network, (375, 1242)) == pytest.approx(67.003, rel=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_any_size_in_logits_of_that_size_out_and_gradients_everywhere(name):
    network = build(name, 5).eval()
    for size in [(64, 64), (51, 83)]:
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            assert network(images).shape == (2, 5, *size)
    network.train()(torch.rand(2, 3, 70, 90) * 255).sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without


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


def test_unpooling_brings_the_full_size_back():
    body = Baseline(7, width=0.1, unpool=True).eval()
    with torch.no_grad():
        assert body(torch.zeros(1, 3, 61, 119)).shape == (1, 7, 61, 119)
    assert Baseline(7, width=0.1).eval()(torch.zeros(1, 3, 61, 119)).shape[-2:] != (61, 119)


def test_fcn8s_over_vgg16_has_the_paper_s_parameters():
    with torch.device("meta"):
        network = build("fcn8s:vgg16", 21)
    # 134.5 M in the published comparison tables for FCN-8s
    assert cost.parameters(network) / 1e6 == pytest.approx(134.5, abs=0.3)


def test_fcn_starts_as_bilinear_upsampling_of_its_scores():
    body = build("fcn8s:tu-resnet10t", 3).body.eval()
    scores = torch.rand(1, 3, 6, 9)
    upsampled = body.upsample[0](scores)
    expected = torch.nn.functional.interpolate(scores, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(upsampled[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_skips_reach_the_scores():
    """FCN-8s differs from FCN-32s exactly by two more score layers and two upsamplings."""
    names = {n: set(dict(build(n, 3).named_parameters())) for n in NAMES[2:5]}
    extra = names["fcn8s:tu-resnet10t"] - names["fcn32s:tu-resnet10t"]
    assert extra == {
        f"body.{part}" for part in (
            "scores.1.weight", "scores.1.bias", "scores.2.weight", "scores.2.bias",
            "upsample.0.weight", "upsample.1.weight",
        )
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fcn8:resnet18", "network 'fcn8:resnet18': unknown. Did you mean 'fcn8s:ENCODER'?"),
        ("smp:unte:resnet18", "network 'smp:unte:resnet18': unknown architecture 'unte'."
         " Did you mean 'unet'"),
        ("smp:unet:resnet19", "network 'smp:unet:resnet19': unknown encoder 'resnet19'."
         " Did you mean 'resnet1"),
        ("smp:unet", "network 'smp:unet': write smp:ARCHITECTURE:ENCODER."),
        ("baseline:wide", "network 'baseline:wide': write baseline[:WIDTH]"),
        ("baseline:0", "network 'baseline:0': write baseline[:WIDTH]"),
        ("fcn8s:tu-resnet10", "network 'fcn8s:tu-resnet10': unknown encoder 'tu-resnet10'."
         " Did you mean 'tu-resnet10t'"),
    ],
)  # fmt: skip
def test_unknown_networks_name_the_nearest(name, message):
    for check in (check_name, lambda n: build(n, 3)):
        with pytest.raises(InputError) as caught:
            check(name)
        assert str(caught.value).startswith(message)


def test_an_image_too_small_for_the_baseline_is_refused():
    with pytest.raises(InputError, match="32 x 64: the baseline needs at least 33 pixels"):
        build("baseline:0.1", 3)(torch.zeros(1, 3, 32, 64))

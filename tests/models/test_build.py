import re
from functools import partial

import pytest
import torch

from roadseg.config import study
from roadseg.errors import InputError
from roadseg.models.build import build, check_name, on_meta

NAMES = [
    "baseline:0.1", "baseline-unpool:0.1", "fcn32s:tu-resnet10t", "fcn8s:mobilenet_v2",
    "smp:deeplabv3plus:tu-test_resnet:8", "smp:fpn:tu-test_resnet:32", "smp:segformer:mit_b0",
    "smp:segformer:tu-swin_tiny_patch4_window7_224", "smp:unetplusplus:tu-test_resnet",
    "smp:pspnet:tu-test_resnet", "tv:lraspp_mobilenet_v3_large", "unet:0.1", "dabnet:0.25", "lmffnet:0.25",
]  # fmt: skip
OPTIONS = [
    ("baseline:0.1", {"batch_norm": True}), ("baseline:0.1", {"residual": True}),
    ("baseline-unpool:0.1", {"batch_norm": True, "residual": True, "auxiliary": True}),
    ("fcn8s:tu-resnet10t", {"dropout": 0.3, "auxiliary": True}),
    ("smp:unet:resnet18", {"dropout": 0.3, "auxiliary": True}),
    ("smp:segformer:mit_b0", {"dropout": 0.3, "auxiliary": True}),
    ("smp:deeplabv3plus:resnet18", {"auxiliary": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), *OPTIONS])
def test_any_size_in_logits_of_that_size_out_and_gradients_everywhere(name, options):
    network = build(name, 5, **options).eval()
    for size in [(64, 64), (51, 83)]:
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            assert network(images).shape == (2, 5, *size)
    images = torch.rand(2, 3, 70, 90) * 255
    network.train()
    outputs = network.with_auxiliary(images) if network.auxiliary else (network(images),)
    assert all(logits.shape == (2, 5, 70, 90) for logits in outputs)
    sum(logits.sum() for logits in outputs).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


LISTED = study.load("params.yaml").networks.values()


@pytest.mark.parametrize("name", [entry.network for entry in LISTED])
def test_every_network_of_the_list_takes_odd_sizes_and_a_step(name):
    """Without numbers, so that the largest can be tested too: shapes, and a gradient everywhere."""
    network = on_meta(partial(build, name, 7)).train()
    images = torch.zeros(2, 3, 131, 197, device="meta")
    logits = network(images)
    assert logits.shape == (2, 7, 131, 197)
    torch.nn.functional.cross_entropy(logits, images[:, 0].long()).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    torch.optim.AdamW(network.parameters()).step()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fcn8:resnet18", "'fcn8s:ENCODER'"), ("dabnt", "'dabnet[:WIDTH]'"), ("smp:unte:resnet18", "'unet'"),
        ("smp:unet:resnet19", "'resnet1"), ("fcn8s:tu-resnet10", "'tu-resnet10t'"),
        ("smp:unet", "smp:ARCHITECTURE:ENCODER"), ("smp:unet:resnet18:8", "smp:ARCHITECTURE:ENCODER"),
        ("smp:fpn:resnet18:48", "CHANNELS a multiple of 32"), ("baseline:wide", "baseline[:WIDTH]"),
        ("baseline:0", "baseline[:WIDTH]"), ("smp:deeplabv3plus:resnet18:4", "STRIDE 8 or 16"),
    ],
)  # fmt: skip
def test_unknown_networks_name_the_nearest(name, nearest):
    for check in (check_name, lambda n: build(n, 3)):
        with pytest.raises(InputError, match=re.escape(nearest)) as caught:
            check(name)
        assert name in str(caught.value)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_leave_the_other_weights_as_they_were(name, options):
    """Two arms of one seed, with and without, start from the same weights."""
    starts = []
    for chosen in ({}, options):
        torch.manual_seed(7)
        network = build(name, 5, **chosen)
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
        layers = [m.weight for m in network.body.modules() if isinstance(m, kinds)]
        starts.append(layers)
    plain, changed = starts
    known = {tuple(w.flatten()[:50].tolist()) for w in changed}
    assert all(tuple(w.flatten()[:50].tolist()) in known for w in plain)


def test_dropout_acts_in_training_alone_and_on_whole_channels():
    network = build("fcn8s:tu-resnet10t", 5, dropout=0.5)
    read, made = [], []
    network.body.scores[0].register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0]))
    network.body.encoder.register_forward_hook(lambda _m, _i, maps: made.append(maps[5]))
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64) * 255)
        network.eval()(torch.rand(1, 3, 64, 64) * 255)
    alive = (made[0].flatten(2) != 0).any(2)
    kept = (read[0].flatten(2) != 0).any(2)
    assert 0.4 < kept[alive].float().mean() < 0.6 and not kept[~alive].any()
    torch.testing.assert_close(read[0][kept], 2 * made[0][kept])
    torch.testing.assert_close(read[1], made[1])
    assert list(network.state_dict()) == list(build("fcn8s:tu-resnet10t", 5).state_dict())


@pytest.mark.parametrize("name", ["fcn8s:mobilenet_v2", "smp:deeplabv3plus:tu-test_resnet:8",
                                  "smp:segformer:mit_b0", "dabnet:0.25", "lmffnet:0.25"])  # fmt: skip
def test_gradients_do_not_depend_on_what_memory_held(name):
    """Where bf16 is native: kernels that read what nobody wrote give other gradients each time."""
    torch.manual_seed(0)
    network = build(name, 5).to(memory_format=torch.channels_last).eval()  # no dropout
    images = torch.randint(0, 256, (2, 3, 192, 256), dtype=torch.uint8)
    gradients = []
    for poison in (0.0, float("nan"), 1e30):
        for size in (1 << n for n in range(8, 23)):
            torch.full((size,), poison)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        logits.float().square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for other in gradients[1:]:
        for first, again in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(again, first, rtol=0.02, atol=1e-4 * float(first.abs().max()))

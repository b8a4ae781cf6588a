import copy
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import nn

from roadseg.analysis import cost
from roadseg.models.build import build

CPU = torch.device("cpu")
SWIN = "smp:unet:tu-swin_tiny_patch4_window7_224"
KINDS = [
    "baseline:0.25", "baseline-unpool:0.25", "fcn32s:tu-resnet10t", "fcn8s:resnet18", "unet:0.25",
    "smp:unet:resnet18", "smp:pspnet:resnet18", "smp:deeplabv3plus:resnet18", "smp:fpn:resnet18",
    "smp:segformer:mit_b0", SWIN,
]  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    """Networks by name, each built once; not to be changed."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = build(name, 11).eval()
        return made[name]

    return get


def test_known_layers_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1))
    assert cost.parameters(network) == 3 * 8 * 9 + 8 + 8 * 2 + 2
    by_hand = (3 * 8 * 9 * 10 * 12 + 8 * 2 * 5 * 6) / 1e9
    assert cost.multiply_adds(network, (10, 12)) == pytest.approx(by_hand)
    table = cost.layer_table(network, (10, 12))
    assert table.gmacs.sum() == pytest.approx(by_hand)
    assert table.receptive_field.tolist() == [3, 4, 4]
    assert table[["height", "width"]].values.tolist() == [[10, 12], [5, 6], [5, 6]]


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.Conv2d(3, 6, (3, 5), stride=2, padding=1, groups=3), 6 * (3 * 5) * (5 * 5)),
        (nn.Conv2d(3, 4, 3, dilation=2), 4 * (3 * 9) * (6 * 8)),
        (nn.ConvTranspose2d(3, 5, 4, stride=2, bias=False), (3 * 10 * 12) * (5 * 16)),
        (nn.Linear(12, 7), (3 * 10) * 12 * 7),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)), 0),
    ],
)
def test_multiply_adds_of_single_layers_by_hand(layer, by_hand):
    for device in ("cpu", "meta"):
        assert round(1e9 * cost.multiply_adds(layer.to(device), (10, 12))) == by_hand
        assert round(1e9 * cost.layer_table(layer, (10, 12)).gmacs.sum()) == by_hand


class Tokens(nn.Module):
    """Self-attention over an image's pixels, by torch's fused operator or in explicit products."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.into = nn.Conv2d(3, 12, 1)
        if kind == "module":
            self.attention = nn.MultiheadAttention(12, 4, batch_first=True)
        elif kind == "encoder":
            self.attention = nn.TransformerEncoderLayer(12, 4, dim_feedforward=20, batch_first=True)
        else:
            self.three = nn.Linear(12, 36)

    def forward(self, x):
        x = self.into(x).flatten(2).mT
        if self.kind == "module":
            return self.attention(x, x, x, need_weights=False)[0]
        if self.kind == "encoder":
            return self.attention(x)
        query, key, value = self.three(x).unflatten(2, (3, 4, 3)).permute(2, 0, 3, 1, 4)
        if self.kind == "fused":
            return F.scaled_dot_product_attention(query, key, value)
        if self.kind == "einsum":
            weights = torch.einsum("bhqd,bhkd->bhqk", query, key).softmax(-1)
            return torch.einsum("bhqk,bhkd->bhqd", weights, value)
        return (query @ key.mT).softmax(-1) @ value


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", ["products", "fused", "einsum", "module", "encoder"])
def test_attention_by_hand(kind, device):
    """Both products of 4 heads with 3 channels each: every token of 5 x 8 with every other."""
    tokens = 5 * 8
    into, three, products = tokens * 3 * 12, tokens * 12 * 36, 2 * 4 * tokens * tokens * 3
    outwards = tokens * 12 * 12 if kind in ("module", "encoder") else 0
    wide = 2 * tokens * 12 * 20 if kind == "encoder" else 0
    network = Tokens(kind).eval().to(device)
    by_hand = into + three + products + outwards + wide
    assert round(1e9 * cost.multiply_adds(network, (5, 8))) == by_hand
    table = cost.layer_table(network, (5, 8))
    assert round(1e9 * table.gmacs.sum()) == by_hand
    assert table.parameters.sum() == cost.parameters(network)
    beside = table[table.kind == "matrix products"]
    assert len(beside) == 1
    if kind in ("products", "fused", "einsum"):
        assert round(1e9 * beside.gmacs.item()) == products and beside.layer.item() == ""


@pytest.mark.parametrize("name", KINDS)
def test_the_layer_table_adds_up_exactly(name, networks):
    network, size = copy.deepcopy(networks(name)).to("meta"), (64, 96)
    table = cost.layer_table(network, size)
    total = cost.multiply_adds(network, size)
    assert round(1e9 * table.gmacs.sum()) == round(1e9 * total)
    assert table.parameters.sum() == cost.parameters(network)
    is_chain = name.startswith("baseline")
    assert table.receptive_field.notna().all() if is_chain else table.receptive_field.isna().all()
    products = {"smp:segformer:mit_b0": 8, SWIN: 12}  # one for each block
    assert (table.kind == "matrix products").sum() == products.get(name, 0)


@pytest.mark.parametrize("name", ["baseline-unpool:0.1", "fcn8s:tu-resnet10t", "smp:segformer:mit_b0"])
def test_counts_on_the_meta_device_are_those_of_the_cpu(name, networks):
    here, size = networks(name), (64, 64)
    there = copy.deepcopy(here).to("meta")
    assert cost.parameters(there) == cost.parameters(here)
    assert cost.multiply_adds(there, size) == cost.multiply_adds(here, size)
    tables = [cost.layer_table(network, size).fillna(-1) for network in (here, there)]
    assert tables[0].equals(tables[1])


class Odd(nn.Module):
    """A layer that runs twice, one whose weights belong to it too, one that never runs."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 1)
        self.tied = nn.Conv2d(3, 3, 1)
        self.tied.weight = self.twice.weight
        self.never = nn.Linear(5, 7)

    def forward(self, x):
        return self.tied(self.twice(self.twice(x)))


def test_layers_that_run_twice_or_never_or_share_weights():
    table = cost.layer_table(Odd(), (4, 6))
    assert table.layer.tolist() == ["twice", "twice", "tied", "never"]
    assert table.parameters.tolist() == [12, 0, 3, 42]
    assert (1e9 * table.gmacs).round().tolist() == [216, 216, 216, 0]
    assert table.height.tolist()[:3] == [4, 4, 4] and np.isnan(table.height[3])
    assert table.receptive_field.tolist() == [1, 1, 1, 1]


def test_the_layer_table_leaves_whole_numbers_whole():
    table = cost.layer_table(build("baseline:0.05", 2, batch_norm=True), (64, 64))
    norm, conv = table[table.kind == "BatchNorm2d"], table[table.kind == "Conv2d"]
    assert norm.kernel.isna().all() and (norm.gmacs == 0).all() and (norm.parameters > 0).all()
    assert all(isinstance(side, int) for side in conv.kernel)
    assert table.width.dtype == int and table.receptive_field.iloc[-1] == 108
    plain = cost.layer_table(build("baseline:0.05", 2), (64, 64))
    assert plain.kernel.dtype == int and plain.receptive_field.iloc[-1] == 108


def test_dilation_widens_the_receptive_field():
    chain = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, dilation=4))
    assert cost.layer_table(chain, (32, 32)).receptive_field.tolist() == [3, 3 + 8 * 2]


@pytest.mark.parametrize("name", [k for k in KINDS if not k.startswith("baseline-unpool")])
def test_a_second_counter_agrees(name, networks):
    """The course study's, fvcore, held to the operators that we count."""
    images = torch.zeros(1, 3, 64, 96)
    analysis = FlopCountAnalysis(networks(name), images)
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    counts = analysis.by_operator()
    kept = sum(counts[kind] for kind in ("conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum"))
    assert round(1e9 * cost.multiply_adds(networks(name), (64, 96))) == kept
    assert not any("attention" in name for name in analysis.unsupported_ops())


@pytest.mark.parametrize(
    ("name", "size", "reported", "within"),
    [
        ("baseline", (375, 1242), 67.003, 0.005),
        ("smp:segformer:mit_b0", (384, 1248), 15.579, 0.04),
        ("smp:segformer:mit_b2", (384, 1248), 50.633, 0.04),
        ("smp:segformer:mit_b5", (384, 1248), 150, 0.04),
    ],
)  # fmt: skip
def test_multiply_adds_of_the_course_study(name, size, reported, within):
    network = build(name, 19).to("meta")
    assert cost.multiply_adds(network, size) == pytest.approx(reported, rel=within)


def test_receptive_field_of_the_baseline_against_its_gradient():
    """What moves the score grid's middle value is as wide as the table says."""
    network = build("baseline:0.05", 2).eval()
    table = cost.layer_table(network, (180, 180))
    convolutions = table[table.kind == "Conv2d"]
    body = network.body
    for module in body.modules():  # every path must count: no ReLU off, no maximum that hides
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)
            nn.init.constant_(module.bias, 0.1)
    reach = torch.zeros(1, 3, 180, 180)
    x = torch.rand(1, 3, 180, 180, requires_grad=True)
    with torch.no_grad():
        for _ in range(30):  # max-pooling lets one pixel of four through; shuffle which
            noise = torch.rand(1, 3, 180, 180)
            with torch.enable_grad():
                y = x * 0 + noise
                y.retain_grad()
                out = y
                for block in body.blocks:
                    out = body.pool(block(out))
                score = body.scores(out)
                score[0, 0, score.shape[2] // 2, score.shape[3] // 2].backward()
            reach += y.grad.abs()
    columns = (reach[0].sum((0, 1)) > 0).nonzero()
    seen = int(columns.max() - columns.min()) + 1
    assert convolutions.receptive_field.iloc[-1] == 80
    assert 76 <= seen <= 80


def test_receptive_field_of_the_unpooling_decoder_by_hand():
    """3x3 convolutions at each of four scales add two pixels of that scale to the scores' 80."""
    table = cost.layer_table(build("baseline-unpool:0.05", 2), (96, 96))
    assert table.receptive_field.iloc[-1] == 80 + 2 * 8 + 2 * 4 + 2 * 2 + 2 * 1


def test_the_effective_field_of_one_convolution_is_its_kernel():
    network = nn.Conv2d(3, 2, 3, padding=1)
    field = cost.effective_field(network, torch.rand(4, 3, 9, 12), device=CPU)
    by_hand = np.zeros((9, 12))
    by_hand[3:6, 5:8] = network.weight.detach().sum(0).abs().sum(0)  # over classes, then colours
    np.testing.assert_allclose(field, by_hand / by_hand.sum(), atol=1e-7)
    assert cost.field_side(field, 1.0) == 3
    assert network.weight.grad is None and network.bias.grad is None


def test_the_effective_field_lies_in_the_theoretical_one():
    network = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Upsample(scale_factor=4, mode="bilinear"),
    )  # fmt: skip
    images = torch.randint(0, 256, (5, 3, 96, 128), dtype=torch.uint8)
    field = cost.effective_field(network, images, device=CPU)
    assert field.shape == (96, 128) and field.sum() == pytest.approx(1) and (field >= 0).all()
    side = 3 + 2 * 2 + 2 * 4 + 4 * 2  # stem, pooling, convolution, interpolation: at most
    for axis in (0, 1):
        seen = field.sum(axis).nonzero()[0]
        assert seen[-1] - seen[0] + 1 <= side < 40
    assert not network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not cost.effective_field(nn.Sequential(network, nn.Threshold(1e9, 0)), images, device=CPU).any()


def test_the_side_that_holds_a_share():
    field = np.zeros((11, 31))
    field[5, 15], field[5, 14], field[2, 15], field[5, 30] = 0.5, 0.25, 0.125, 0.125
    shares = {0.5: 1, 0.6: 3, 0.75: 3, 0.8: 7, 0.95: 31, 1.0: 31}
    assert {share: cost.field_side(field, share) for share in shares} == shares


WEIGHTS = 4 * (3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 4 * 9 + 4)
IMAGE, WIDE, NARROW = (4 * 16 * 16 * channels for channels in (3, 8, 4))


def three(*between: nn.Module) -> nn.Sequential:
    channels = [3, 8, 8, 4]
    layers = (nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels[:-1], channels[1:]))  # noqa: B905
    return nn.Sequential(*(layer for conv in layers for layer in (conv, *between)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_memory_of_a_chain_by_hand(device):
    def peak(network, **options):
        return cost.peak_memory(network, (16, 16), device=torch.device(device), **options) * 2**20

    # while the second convolution runs: the image, what it reads, what it writes
    assert peak(three()) == WEIGHTS + IMAGE + 2 * WIDE
    assert peak(three(), batch=5) == WEIGHTS + 5 * (IMAGE + 2 * WIDE)
    assert peak(three(nn.ReLU(inplace=True))) == WEIGHTS + IMAGE + 2 * WIDE  # needs none of its own
    assert peak(three(nn.ReLU())) == WEIGHTS + IMAGE + 2 * WIDE
    # Backward, in the second convolution: the output, what it read, both gradients, and those of
    # the weights so far; the sum and its gradient are single numbers.
    weights = 4 * (8 * 8 * 9 + 8 + 8 * 4 * 9 + 4)
    forward = IMAGE + WIDE + NARROW + 2 * 4
    assert peak(three(), training=True) == WEIGHTS + forward + 2 * WIDE + weights


def test_peak_memory_leaves_the_network_as_it_was():
    network = build("baseline:0.05", 2, batch_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cost.peak_memory(network, (64, 64), device=CPU, batch=2, training=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters()) and network.training
    inference = cost.peak_memory(network, (64, 64), device=CPU)
    halved = cost.peak_memory(network, (64, 64), device=CPU, bf16=True)
    assert 4 * cost.parameters(network) / 2**20 < inference
    assert halved != inference


def test_latencies_are_positive_and_ordered():
    networks = {name: build(name, 2) for name in ("baseline:0.05", "baseline:0.5")}
    timed = cost.latencies(networks, (96, 96), device=torch.device("cpu"), bf16=False, repeats=5)
    assert all(0 < t["latency_ms"] <= t["latency_ms_p95"] for t in timed.values())
    assert timed["baseline:0.05"]["latency_ms"] < timed["baseline:0.5"]["latency_ms"]


class Sleeper(nn.Module):
    """Takes some seconds for any pass and some by the batch's square; holds so many images."""

    def __init__(self, seconds, squared=0.0, most=64):
        super().__init__()
        self.times, self.most, self.batches, self.joules = (seconds, squared), most, [], 0.0

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("so many do not fit")
        self.batches.append(len(x))
        self.joules += 1 + 2 * len(x)
        time.sleep(self.times[0] + self.times[1] * len(x) ** 2)


def measure(network, **options) -> dict:
    return cost.throughput(network, (4, 4), device=CPU, bf16=False, **options)


def test_throughput_is_that_of_the_best_batch(monkeypatch):
    network = Sleeper(0.01, most=4)  # the more at a time, the better, as far as they fit
    monkeypatch.setattr(cost, "energy_meter", lambda _device: lambda: network.joules)
    monkeypatch.setattr(cost, "METER_SECONDS", 0.5)
    began = time.perf_counter()
    best = measure(network, seconds=2.0)
    assert network.batches[-10:] == [4] * 10 and time.perf_counter() - began > 0.8
    assert best["best_batch"] == 4 and 100 < best["images_per_second"] <= 400
    assert best["joules_per_image"] == (1 + 2 * 4) / 4
    assert measure(Sleeper(0.01), largest=2, seconds=1.0)["best_batch"] == 2
    with pytest.raises(torch.OutOfMemoryError):
        measure(Sleeper(0.01, most=0))


def test_throughput_stops_where_larger_batches_do_not_pay_or_time_is_up(monkeypatch):
    monkeypatch.setattr(cost, "energy_meter", lambda _device: None)
    lone = Sleeper(0.0, 0.02)
    best = measure(lone, seconds=2.0)
    assert best["best_batch"] == 1 and set(lone.batches) == {1, 2}
    assert 10 < best["images_per_second"] <= 50 and np.isnan(best["joules_per_image"])
    slow = Sleeper(0.3)
    assert measure(slow, seconds=0.1)["best_batch"] == 1
    assert slow.batches == [1, 1]  # to warm up, and timed once


def test_throughput_of_a_network_is_positive():
    best = measure(nn.Conv2d(3, 2, 3), largest=4, seconds=0.3)
    assert best["images_per_second"] > 0 and best["best_batch"] in (1, 2, 4)


def test_pooled_maps_are_what_the_poolings_give():
    torch.manual_seed(0)
    for unpool in ("", "-unpool"):
        network = build(f"baseline{unpool}:0.05", 3).eval()
        image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
        maps = cost.pooled_maps(network, image)
        assert [m.shape[1:] for m in maps] == [(24, 32), (12, 16), (6, 8), (3, 4)]
        x = (image[None].float() - network.mean) / network.std
        by_hand = torch.nn.functional.max_pool2d(network.body.blocks[0](x), 2, ceil_mode=True)
        np.testing.assert_allclose(maps[0], by_hand[0].detach().numpy(), rtol=1e-5)
        assert not any(module._forward_hooks for module in network.modules())

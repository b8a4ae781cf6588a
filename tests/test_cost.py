import pytest
import torch
from torch import nn

from roadseg import cost
from roadseg.models import build


def test_known_layers_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1))
    assert cost.parameters(network) == 3 * 8 * 9 + 8 + 8 * 2 + 2
    by_hand = (3 * 8 * 9 * 10 * 12 + 8 * 2 * 5 * 6) / 1e9
    assert cost.multiply_adds(network, (10, 12)) == pytest.approx(by_hand)
    table = cost.layer_table(network, (10, 12))
    assert table.gmacs.sum() == pytest.approx(by_hand)
    assert table.receptive_field.tolist() == [3, 4, 4]
    assert table[["height", "width"]].values.tolist() == [[10, 12], [5, 6], [5, 6]]


@pytest.mark.parametrize("name", ["baseline:0.25", "baseline-unpool:0.25", "fcn8s:resnet18"])
def test_layer_table_adds_up_to_the_other_counter(name):
    network = build(name, 11)
    table = cost.layer_table(network, (64, 96))
    assert table.gmacs.sum() == pytest.approx(cost.multiply_adds(network, (64, 96)), rel=1e-6)


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


def test_latencies_are_positive_and_ordered():
    networks = {name: build(name, 2) for name in ("baseline:0.05", "baseline:0.5")}
    timed = cost.latencies(networks, (96, 96), device=torch.device("cpu"), bf16=False, repeats=5)
    assert all(0 < t["latency_ms"] <= t["latency_ms_p95"] for t in timed.values())
    assert timed["baseline:0.05"]["latency_ms"] < timed["baseline:0.5"]["latency_ms"]

import pytest
import torch

from roadseg.analysis import cost
from roadseg.errors import InputError
from roadseg.models.baseline import Baseline
from roadseg.models.build import build


def test_the_baseline_is_the_course_study_s():
    network = build("baseline", 19)
    assert cost.parameters(network) == 15_279_747
    assert cost.multiply_adds(network, (375, 1242)) == pytest.approx(67.003, rel=0.005)


def test_unpooling_brings_the_full_size_back():
    body = Baseline(7, width=0.1, unpool=True).eval()
    with torch.no_grad():
        assert body(torch.zeros(1, 3, 61, 119)).shape == (1, 7, 61, 119)
    assert Baseline(7, width=0.1).eval()(torch.zeros(1, 3, 61, 119)).shape[-2:] != (61, 119)


def test_an_image_too_small_for_the_baseline_is_refused():
    with pytest.raises(InputError, match="32 x 64: the baseline needs at least 33 pixels"):
        build("baseline:0.1", 3)(torch.zeros(1, 3, 32, 64))


def test_batch_norm_comes_before_each_relu_of_the_baseline():
    body = Baseline(5, width=0.1, batch_norm=True)
    for chain in [*body.blocks, body.scores]:
        kinds = [type(layer).__name__ for layer in chain]
        assert all(kinds[i - 1] == "BatchNorm2d" for i, kind in enumerate(kinds) if kind == "ReLU")
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in body.modules()) == 7


def test_a_residual_block_adds_its_input():
    body = Baseline(5, width=0.1, residual=True).eval()
    for block in body.blocks:  # blocks that give zero: only the shortcuts are left
        for layer in block:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.zeros_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
    seen = []
    body.pool.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        body(x)
        torch.testing.assert_close(seen[0], torch.relu(body.shortcuts[0](x)))
        assert (seen[3] > 0).any()

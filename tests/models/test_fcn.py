import pytest
import torch

from roadseg.analysis import cost
from roadseg.models.build import build


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

import math

import pytest
import torch
import torch.nn.functional as F

from roadseg.losses import segmentation_loss


def test_equals_mean_cross_entropy_over_labelled_pixels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 8, 9), torch.randint(0, 5, (2, 8, 9))
    labels[0, :3] = 255
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    assert segmentation_loss(logits, labels).item() == pytest.approx(expected.item(), abs=1e-6)


def test_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    assert segmentation_loss(logits, torch.tensor([[[1]]])).item() == pytest.approx(
        -math.log(3 / 4)
    )


def test_unlabelled_pixels_have_no_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    segmentation_loss(logits, torch.tensor([[[0, 255], [255, 2]]])).backward()
    assert (logits.grad[0, :, 0, 1] == 0).all() and (logits.grad[0, :, 0, 0] != 0).any()


def test_no_labelled_pixel_is_zero_not_nan():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 2, 300, 300, dtype=torch.bfloat16)
    loss = segmentation_loss(logits, torch.zeros(1, 300, 300, dtype=torch.int64))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), abs=1e-5)

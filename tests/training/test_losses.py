import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score
from torchvision.ops import sigmoid_focal_loss

from roadseg.training.losses import (
    balanced_weights,
    distillation_loss,
    hard_pixels,
    power_weights,
    segmentation_loss,
)

TERMS = {
    "class_weights": torch.tensor([0.2, 1.0, 3.0, 0.5, 0.3]), "label_smoothing": 0.1,
    "focal_gamma": 2.0, "ohem_threshold": 0.3, "dice_weight": 1.0, "lovasz_weight": 1.0,
}  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 8, 9), torch.randint(0, 5, (2, 8, 9))
    labels[0, :3] = 255
    return logits, labels


@pytest.mark.parametrize(
    "options", [{}, {"weight": TERMS["class_weights"]}, {"label_smoothing": 0.1},
                {"weight": TERMS["class_weights"], "label_smoothing": 0.1}],
)  # fmt: skip
def test_cross_entropy_weights_and_smoothing_are_torch_s(batch, options):
    expected = F.cross_entropy(*batch, ignore_index=255, **options)
    ours = {{"weight": "class_weights"}.get(name, name): value for name, value in options.items()}
    assert segmentation_loss(*batch, **ours).item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_single_pixel_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    loss = segmentation_loss(logits, torch.tensor([[[1]]]))
    assert loss.item() == pytest.approx(-math.log(3 / 4))


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 2, 300, 300, dtype=torch.bfloat16)
    loss = segmentation_loss(logits, torch.zeros(1, 300, 300, dtype=torch.int64))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_focal_over_two_classes_is_the_sigmoid_one_of_torchvision():
    torch.manual_seed(1)
    logit, labels = torch.randn(3, 6, 7), torch.randint(0, 2, (3, 6, 7))
    logits = torch.stack([torch.zeros_like(logit), logit], 1)
    expected = sigmoid_focal_loss(logit, labels.float(), alpha=-1, gamma=2.0, reduction="mean")
    loss = segmentation_loss(logits, labels, focal_gamma=2.0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_hard_pixels_by_hand():
    probability = torch.tensor([[[0.1, 0.4, 0.6, 0.9, 0.2]]])
    labelled = torch.tensor([[[True, True, True, True, False]]])
    below = hard_pixels(probability, labelled, 0.5, 1)
    assert below.tolist() == [[[True, True, False, False, False]]]
    assert hard_pixels(probability, labelled, 0.4, 1).sum() == 1  # at the threshold is not below
    at_least = hard_pixels(probability, labelled, 0.5, 3)  # the threshold would keep two
    assert at_least.tolist() == [[[True, True, True, False, False]]]
    assert hard_pixels(probability, labelled, 0.05, 100).sum() == 4  # no more than there are
    assert hard_pixels(probability, ~labelled & False, 0.5, 3).sum() == 0


def test_ohem_is_the_mean_over_the_hard_pixels(batch):
    logits, labels = batch
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    hard = each[(labels != 255) & (torch.exp(-each) < 0.3)]
    assert 1 < len(hard) < (labels != 255).sum()
    loss = segmentation_loss(logits, labels, ohem_threshold=0.3, ohem_kept=1)
    assert loss.item() == pytest.approx(hard.mean().item(), abs=1e-6)
    # as in MMSegmentation, the least number counts per image of the batch, over the batch
    kept = segmentation_loss(logits, labels, ohem_threshold=0.01, ohem_kept=10)
    hardest = each[labels != 255].sort(descending=True).values[:20]
    assert kept.item() == pytest.approx(hardest.mean().item(), abs=1e-6)


def test_dice_by_hand():
    """One image of four pixels: class 0 twice, class 1 once, one pixel not labelled."""
    p = torch.tensor([0.8, 0.6, 0.3, 0.5])  # of class 0
    logits = torch.stack([p.log(), (1 - p).log()]).view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 255]]])
    dice_0 = 2 * (0.8 + 0.6) / ((0.8 + 0.6 + 0.3) + 2)
    dice_1 = 2 * 0.7 / ((0.2 + 0.4 + 0.7) + 1)
    plain = segmentation_loss(logits, labels)
    loss = segmentation_loss(logits, labels, dice_weight=1.0) - plain
    assert loss.item() == pytest.approx(1 - (dice_0 + dice_1) / 2, abs=1e-5)


def test_lovasz_of_certain_predictions_is_one_minus_the_mean_jaccard_index(batch):
    """The extension equals the set function at its corners (Berman et al. 2018, section 2.2)."""
    logits, labels = batch
    certain = 1e4 * F.one_hot(logits.argmax(1), 5).permute(0, 3, 1, 2).float()
    plain = segmentation_loss(certain, labels)
    loss = segmentation_loss(certain, labels, lovasz_weight=1.0) - plain
    known = labels != 255
    expected = 1 - jaccard_score(labels[known], logits.argmax(1)[known], average="macro")
    assert loss.item() == pytest.approx(expected, abs=2e-3)  # the sum is of thousands


def test_neutral_terms_equal_absent_ones(batch):
    neutral = {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0,
               "ohem_threshold": 1.0, "dice_weight": 0.0, "lovasz_weight": 0.0}  # fmt: skip
    assert torch.equal(segmentation_loss(*batch, **neutral), segmentation_loss(*batch))
    assert set(neutral) == set(TERMS)
    for name, value in TERMS.items():
        extra = {"ohem_kept": 5} if name == "ohem_threshold" else {}
        changed = segmentation_loss(*batch, **{name: value}, **extra)
        assert not torch.isclose(changed, segmentation_loss(*batch)), name


@pytest.mark.parametrize("terms", [{}, *({name: TERMS[name]} for name in TERMS), TERMS])
def test_unlabelled_pixels_have_no_gradient_and_a_batch_of_them_costs_nothing(batch, terms):
    logits, labels = batch
    logits.requires_grad_()
    segmentation_loss(logits, labels, **terms).backward()
    assert (logits.grad[0, :, :3] == 0).all() and (logits.grad != 0).any()
    assert torch.isfinite(logits.grad).all()
    logits.grad = None
    loss = segmentation_loss(logits, torch.full_like(labels, 255), **terms)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_power_weights_by_hand():
    pixels = np.array([16, 4, 0])
    np.testing.assert_allclose(power_weights(pixels, 0.5), [2 / 3, 4 / 3, 0.0])
    np.testing.assert_allclose(power_weights(pixels, 1.0), balanced_weights(pixels, 1.0))
    np.testing.assert_allclose(power_weights(np.array([1, 4]), 0.5), [4 / 3, 2 / 3])


def test_balanced_weights_by_hand():
    pixels = np.array([1, 3, 0])
    inverse = balanced_weights(pixels, 1.0)
    np.testing.assert_allclose(inverse, [1.5, 0.5, 0.0])
    # beta 0.5: effective numbers 1 and 1 + 1/2 + 1/4
    half = balanced_weights(pixels, 0.5)
    np.testing.assert_allclose(half[0] / half[1], 1.75)
    np.testing.assert_allclose(half[:2].mean(), 1)
    almost = balanced_weights(np.array([10**6, 10**3]), 1e-9)
    np.testing.assert_allclose(almost, [1, 1], rtol=1e-6)
    near = balanced_weights(np.array([10**6, 10**3]), 1 - 1e-12)
    np.testing.assert_allclose(near, balanced_weights(np.array([10**6, 10**3]), 1.0), rtol=1e-4)


def test_distillation_by_hand_and_by_scipy():
    from scipy.special import rel_entr, softmax

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 2, 3, 4, 5))
    flat = [softmax(x.reshape(6, -1) / 4.0, axis=1) for x in (student, teacher)]
    expected = 16 * rel_entr(flat[1], flat[0]).sum() / 6
    logits = torch.tensor(student, requires_grad=True)
    teacher_tensor = torch.tensor(teacher, requires_grad=True)
    loss = distillation_loss(logits, teacher_tensor, 4.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert teacher_tensor.grad is None and (logits.grad != 0).any()
    # adding a constant to a class's map says nothing about where the class is
    shifted = distillation_loss(logits + 3.0, teacher_tensor, 4.0)
    assert shifted.item() == pytest.approx(expected, rel=1e-4)
    assert distillation_loss(teacher_tensor, teacher_tensor, 4.0).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_of_one_class_is_zero_with_every_term(batch):
    labels = batch[1].where(batch[1] == 255, 0)
    logits = torch.randn(2, 1, 8, 9, requires_grad=True)
    loss = segmentation_loss(logits, labels, ohem_threshold=0.3, dice_weight=1.0, lovasz_weight=1.0)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()

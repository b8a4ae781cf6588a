"""What training minimises."""

import numpy as np
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss
from torch import Tensor

from roadseg.data.scenes import UNLABELLED

DICE = DiceLoss("multiclass", from_logits=True, ignore_index=UNLABELLED)
LOVASZ = LovaszLoss("multiclass", ignore_index=UNLABELLED, from_logits=True)


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    ohem_threshold: float = 1.0,
    ohem_kept: int = 10000,
    dice_weight: float = 0.0,
    lovasz_weight: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the labelled pixels of the batch, with optional terms.

    Parameters
    ----------
    logits : float (N, K, H, W)
    labels : int64 (N, H, W), classes 0..K-1, 255 where not labelled
    class_weights : float (K,), factor on the cross-entropy of each class's pixels; the mean is
        then the weighted one, as torch's
    label_smoothing : share of the target that is spread over all classes
    focal_gamma : exponent g; each pixel's cross-entropy is multiplied by (1 - p) ** g, where p is
        the probability of its class
    ohem_threshold : pixels whose class has less probability than this are kept, the easier ones
        are left out of the mean; 1 keeps all
    ohem_kept : with a threshold below 1, so many pixels per image are kept at least, the hardest
        of the batch
    dice_weight : weight of 1 - Dice, summed over the batch, averaged over all K classes
    lovasz_weight : weight of the Lovasz extension of 1 - IoU, of all pixels of the batch, averaged
        over the classes that occur in `labels`

    Returns
    -------
    float32 scalar, in nats per pixel while only the cross-entropy is on; 0, with zero gradients,
    where no pixel is labelled (a crop may show none, and the mean over none would poison the
    weights with NaN)

    Source
    ------
    Szegedy et al. 2016, section 7 (smoothing). Lin et al. 2017, eq. 4, without alpha, over a
    softmax. Shrivastava et al. 2016 (hard examples), per pixel as in Wu et al. 2016. Milletari et
    al. 2016 and Berman et al. 2018, alg. 1, by segmentation-models-pytorch.
    """
    labelled = labels != UNLABELLED
    if not (label_smoothing or focal_gamma or ohem_threshold < 1 or class_weights is not None):
        loss = cross_entropy(logits, labels, reduction="sum") / labelled.sum().clamp(min=1)
    else:
        per_pixel = cross_entropy(
            logits, labels, weight=class_weights, label_smoothing=label_smoothing
        )
        if focal_gamma or ohem_threshold < 1:
            # of the pixel's own class; smoothing and class weights are apart from it
            probability = torch.exp(-cross_entropy(logits, labels))
        if focal_gamma:
            per_pixel = per_pixel * (1 - probability).clamp(min=0) ** focal_gamma
        kept = labelled
        if ohem_threshold < 1:
            kept = hard_pixels(probability.detach(), labelled, ohem_threshold, ohem_kept)
        weights = kept.float()
        if class_weights is not None:
            weights = weights * class_weights[labels.where(labelled, 0)]
        loss = (per_pixel * kept).sum() / weights.sum().clamp(min=1e-6)
    if dice_weight or lovasz_weight:
        # both libraries' terms are NaN or an error where nothing is labelled, or of one class
        has_target = bool(labelled.any()) and logits.shape[1] > 1
        if dice_weight and has_target:
            loss = loss + dice_weight * DICE(logits.float(), labels)
        if lovasz_weight and has_target:
            loss = loss + lovasz_weight * LOVASZ(logits.float(), labels)
    return loss


def cross_entropy(logits: Tensor, labels: Tensor, *, reduction: str = "none", **options) -> Tensor:
    """Return torch's cross-entropy, float32 (N, H, W) in nats or their sum; 0 where not labelled.

    Parameters
    ----------
    logits, labels : see `segmentation_loss`
    options : torch's `weight` and `label_smoothing`
    """
    return F.cross_entropy(
        logits.float(), labels, ignore_index=UNLABELLED, reduction=reduction, **options
    )


def hard_pixels(probability: Tensor, labelled: Tensor, threshold: float, kept: int) -> Tensor:
    """Choose the pixels that hard example mining keeps.

    Parameters
    ----------
    probability : float (N, H, W), of each pixel's own class
    labelled : bool (N, H, W)
    threshold : probabilities below it are hard
    kept : pixels per image that are kept at least, the hardest of the batch as a whole

    Returns
    -------
    bool (N, H, W)
    """
    candidates = probability[labelled]
    min_kept = min(kept * len(labelled), candidates.numel())
    if min_kept:
        # the `min_kept` least probable pixels are those up to the min_kept-th smallest value
        threshold = max(
            threshold,
            float(candidates.kthvalue(min_kept).values.nextafter(candidates.new_ones(()) * 2)),
        )
    return labelled & (probability < threshold)


def balanced_weights(pixels: np.ndarray, beta: float) -> np.ndarray:
    """Return a weight per class that grows with its rarity, float (K,), of mean 1.

    The weight is one over the effective number of samples (1 - beta ** n) / (1 - beta), where n is
    the class's number of labelled pixels; 0 for a class that has none.

    Parameters
    ----------
    pixels : int (K,), labelled pixels of each class in the training images
    beta : in (0, 1]; towards 0 all weights are alike, at 1, the limit, they are inverse frequencies

    Source
    ------
    Cui et al. 2019, eq. 2 and section 3.3, which counts images; here a sample is a pixel. The mean
    is taken over the classes that occur.
    """
    occurs = pixels > 0
    n = np.maximum(pixels, 1).astype(np.float64)
    number = n if beta == 1 else -np.expm1(n * np.log(beta)) / (1 - beta)
    weights = np.where(occurs, 1 / number, 0.0)
    return weights / weights[occurs].mean()


def power_weights(pixels: np.ndarray, power: float) -> np.ndarray:
    """Return a weight per class, its number of pixels to the minus `power`: float (K,), of mean 1.

    At 1/2 that is the square root of the inverse frequency: between no weights, at 0, and inverse
    frequencies, at 1. A class that does not occur has 0, and is left out of the mean.

    Parameters
    ----------
    pixels : int (K,), labelled pixels of each class in the training images
    power : in (0, 1]

    Source
    ------
    Mahajan et al. 2018 sample classes by the square root of their frequency, after Mikolov et al.
    2013, section 2.3; here it weighs them.
    """
    occurs = pixels > 0
    weights = np.where(occurs, np.maximum(pixels, 1).astype(np.float64) ** -power, 0.0)
    return weights / weights[occurs].mean()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence between two networks' maps of where each class is: channel-wise distillation.

    Each class's logits become, by a softmax over the positions of an image, a distribution of
    where the class is. The loss is the Kullback-Leibler divergence from the student's to the
    teacher's, times temperature squared, averaged over classes and images.

    Parameters
    ----------
    student, teacher : float (N, K, H, W); no gradient goes to the teacher
    temperature : divides the logits before the softmax

    Returns
    -------
    float32 scalar in nats

    Source
    ------
    Shu et al. 2021, eq. 4 to 6, on the logits.
    """
    student_map = (student.float().flatten(2) / temperature).log_softmax(-1)
    teacher_map = (teacher.detach().float().flatten(2) / temperature).log_softmax(-1)
    divergence = F.kl_div(student_map, teacher_map, reduction="sum", log_target=True)
    return temperature**2 * divergence / (student.shape[0] * student.shape[1])

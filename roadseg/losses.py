"""What training minimises."""

import torch.nn.functional as F
from torch import Tensor

from roadseg.data import UNLABELLED


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels of the batch.

    Parameters
    ----------
    logits : float (N, K, H, W)
    labels : int64 (N, H, W), classes 0..K-1, 255 where not labelled

    Returns
    -------
    float32 scalar in nats per pixel; 0, with zero gradients, where no pixel is labelled (a crop
    may show none, and the mean over none would poison the weights with NaN)
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)

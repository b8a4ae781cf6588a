"""The segmentation networks of torchvision, as bodies."""

import torchvision
from torch import Tensor, nn

# Each network's encoder, by the name that torchvision's classifiers have.
BACKBONES = {
    "fcn_resnet50": "resnet50",
    "fcn_resnet101": "resnet101",
    "deeplabv3_resnet50": "resnet50",
    "deeplabv3_resnet101": "resnet101",
    "deeplabv3_mobilenet_v3_large": "mobilenet_v3_large",
    "lraspp_mobilenet_v3_large": "mobilenet_v3_large",
}


class TorchvisionNetwork(nn.Module):
    """A segmentation network of torchvision, without its last upsampling.

    Parameters
    ----------
    name : one of BACKBONES; built without weights
    classes : number of classes K

    Attributes
    ----------
    encoder : maps images to its maps by name: 'out' and 'aux', or 'high' and 'low'
    auxiliary_channels : those of 'aux', which torchvision's auxiliary head reads; 0 without one

    Source
    ------
    torchvision.models.segmentation: FCN (Long et al. 2015) and DeepLabV3 (Chen et al. 2017) over
    dilated ResNets and MobileNetV3, LR-ASPP (Howard et al. 2019).
    """

    def __init__(self, name: str, classes: int):
        super().__init__()
        self.lraspp = name.startswith("lraspp")
        options = {} if self.lraspp else {"aux_loss": True}
        model = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes, **options
        )
        self.encoder, self.classifier = model.backbone, model.classifier
        self.auxiliary_channels = 0 if self.lraspp else model.aux_classifier[0].in_channels
        self.stride = 8 if "resnet" in name else 16

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H / 8, W / 8), or at 1/16 over MobileNetV3."""
        maps = self.encoder(x)
        return self.classifier(maps if self.lraspp else maps["out"])

    @property
    def score_layer(self) -> nn.Module | None:
        """The last convolution, or None where two are added."""
        return None if self.lraspp else self.classifier[-1]

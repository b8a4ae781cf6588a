"""Fully convolutional networks: FCN-32s, FCN-16s, FCN-8s and FCN-4s."""

import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn


class FCN(nn.Module):
    """Fully convolutional network with skip connections over any encoder.

    Class scores at 1/32 are upsampled by two and added to scores from the encoder's 1/16 map
    (FCN-16s), then likewise to those of its 1/8 map (FCN-8s) and of its 1/4 map (FCN-4s). The last
    upsampling is bilinear.

    Parameters
    ----------
    encoder_name : an encoder of segmentation-models-pytorch; built without weights
    classes : number of classes K
    stride : 32, 16, 8 or 4, the resolution of the finest scores
    fc_channels : width of the convolutional fc6 (7x7) and fc7 (1x1) of the paper, which belong
        to VGG-16 (4096); 0 leaves them out, as is usual over residual encoders

    Source
    ------
    Long, Shelhamer, Darrell 2015, section 4, which stops at FCN-8s. We deviate in training all
    skips at once from the start, hence scores are not initialised to zero; in reading the encoder's
    last map *before* each pooling; and in padding fc6 by 3 instead of the image by 100.
    """

    def __init__(self, encoder_name: str, classes: int, *, stride: int, fc_channels: int = 0):
        super().__init__()
        self.encoder = get_encoder(encoder_name, weights=None)
        channels = self.encoder.out_channels  # at 1/1, 1/2, ..., 1/32
        self.fc = nn.Identity()
        if fc_channels:
            self.fc = nn.Sequential(
                nn.Conv2d(channels[5], fc_channels, 7, padding=3), nn.ReLU(True), nn.Dropout2d(),
                nn.Conv2d(fc_channels, fc_channels, 1), nn.ReLU(True), nn.Dropout2d(),
            )  # fmt: skip
        levels = {32: [5], 16: [5, 4], 8: [5, 4, 3], 4: [5, 4, 3, 2]}[stride]
        self.levels = levels
        self.scores = nn.ModuleList(
            nn.Conv2d(fc_channels if fc_channels and level == 5 else channels[level], classes, 1)
            for level in levels
        )
        self.upsample = nn.ModuleList(_bilinear_upsampling(classes) for _ in range(len(levels) - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H / stride, W / stride)."""
        features = self.encoder(x)
        scores = self.scores[0](self.fc(features[5]))
        for upsample, score, level in zip(
            self.upsample, self.scores[1:], self.levels[1:], strict=True
        ):
            scores = upsample(scores) + score(features[level])
        return scores


def _bilinear_upsampling(classes: int) -> nn.ConvTranspose2d:
    """Return a learnable x2 upsampling that starts as bilinear interpolation of each class."""
    layer = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(classes), range(classes)] = row[:, None] * row
    return layer

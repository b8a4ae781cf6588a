"""What every network is: a body with its normalisation and size handling.

A *body* maps normalised float images to logits at any resolution. `Segmenter` wraps every body in
the same way: it normalises, pads to the body's stride, and returns logits of the images' own size.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

# ImageNet statistics in units of 0..255. Constants, because the library's own look-up asks a hub.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class Segmenter(nn.Module):
    """A body with its normalisation and size handling.

    Parameters
    ----------
    body : module, float (N, 3, H, W) -> logits float (N, K, h, w)
    stride : images are padded at the right and bottom, with the mean colour, to a multiple of it
    auxiliary : None, or a head that maps the body's features at 1/16 of the size to logits: what
        the part of the body that its `sixteenth_into` names reads, or else the fifth map of its
        encoder, of segmentation-models-pytorch; of torchvision's, the map that is called 'aux'

    Images are normalised as ImageNet's by default; weights that expect something else bring it
    along, here and in the state dict.
    """

    def __init__(self, body: nn.Module, stride: int, auxiliary: nn.Module | None = None):
        super().__init__()
        self.body = body
        _replace_grouped(self)
        self.stride = stride
        self.auxiliary = auxiliary
        self.frozen: list[nn.Module] = []  # see `freeze.py`
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # weights that were saved without their normalisation had ImageNet's
        for name, values in (("mean", MEAN), ("std", STD)):
            state_dict.setdefault(prefix + name, torch.tensor(values).view(1, 3, 1, 1))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def normalise_by(self, mean: Iterable[float], std: Iterable[float]) -> None:
        """Set what images in 0..255 are normalised by, one number per channel each."""
        self.mean.copy_(torch.tensor(list(mean)).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(list(std)).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "Segmenter":
        """Set training or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float (N, K, H, W) for images (N, 3, H, W), uint8 or float in 0..255."""
        x = self._padded(images)
        return self._full_size(self.body(x), x, images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the auxiliary head's, both float (N, K, H, W)."""
        x, features = self._padded(images), []
        # Caught on their way, so that every body keeps its own forward pass.
        if reader := getattr(self.body, "sixteenth_into", ""):
            hook = self.body.get_submodule(reader).register_forward_pre_hook(
                lambda _module, inputs: features.append(inputs[0])
            )
        else:
            hook = self.body.encoder.register_forward_hook(
                lambda _module, _inputs, maps: features.append(
                    maps["aux"] if isinstance(maps, dict) else maps[4]
                )
            )
        try:
            logits = self.body(x)
        finally:
            hook.remove()
        extra = self.auxiliary(features[0])
        return self._full_size(logits, x, images), self._full_size(extra, x, images)

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = (images.float() - self.mean) / self.std
        return F.pad(x, (0, -width % self.stride, 0, -height % self.stride))

    def _full_size(self, logits: Tensor, x: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if logits.shape[-2:] != x.shape[-2:]:
            # Channels first: a row of few classes is too short for a CPU's vectors, here and in
            # the softmax that follows.
            logits = logits.contiguous()
            logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


class FCNHead(nn.Sequential):
    """The auxiliary head: a 3x3 convolution to a quarter of the channels, and class scores.

    Source
    ------
    Zhao et al. 2017 (PSPNet), section 3.3 for the idea; the head is FCNHead of MMSegmentation, with
    one convolution, as in the course study.
    """

    def __init__(self, channels: int, classes: int):
        between = max(channels // 4, 1)
        super().__init__(
            nn.Conv2d(channels, between, 3, padding=1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(between, classes, 1),
        )


class GroupedInFp32(nn.Conv2d):
    """A grouped convolution that a CPU computes in fp32 under autocast too.

    In bf16 the gradient of its weights takes two to four times as long, and most of a step of a
    network made for phones (docs/performance.md); only depthwise 3 x 3 without stride or dilation
    is faster in bf16. With dilated rows it is wrong as well: in channels_last it holds what memory
    held before, now wrong and now not finite, from some 20 rows on (torch 2.15 with oneDNN on
    AVX-512 with bf16); `test_gradients_do_not_depend_on_what_memory_held` sees it. The gradient of
    the weights of larger depthwise kernels is slow in fp32 too, hence `_Depthwise`.
    """

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "GroupedInFp32":
        """Return one with a convolution's settings and its very parameters, but without hooks."""
        replacement = cls(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size,
            stride=convolution.stride, padding=convolution.padding, dilation=convolution.dilation,
            groups=convolution.groups, bias=convolution.bias is not None,
            padding_mode=convolution.padding_mode, device="meta",  # which draws no random numbers
        )  # fmt: skip
        replacement.weight, replacement.bias = convolution.weight, convolution.bias
        replacement.same = isinstance(convolution, Conv2dSame)
        depthwise = replacement.in_channels == replacement.out_channels == replacement.groups
        zeros = replacement.padding_mode == "zeros" and not isinstance(replacement.padding, str)
        replacement.large = depthwise and zeros and max(replacement.kernel_size) > 3
        return replacement.train(convolution.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution that it stands for does, in the input's precision."""
        if self.same:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            wide = x.to(self.weight.dtype)
            if self.large and self.weight.requires_grad and torch.is_grad_enabled():
                y = _Depthwise.apply(wide, self.weight, self.stride, self.padding, self.dilation)
                y = y if self.bias is None else y + self.bias[:, None, None]
            else:
                y = super().forward(wide)
            return y.to(x.dtype)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weights' gradient is computed as a depthwise convolution too.

    It is that of the input with the output's gradient. Each image's channel is its own group there,
    and what the kernel strides over, the gradient is dilated by. oneDNN, which torch asks on a CPU,
    has no fast kernel of its own for it unless that of the convolution is 3 x 3.
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding, dilation):
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.dilation = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = torch.nn.grad.conv2d_input(
                x.shape, weight, gradient, ctx.stride, ctx.padding, ctx.dilation, len(weight)
            )
        if ctx.needs_input_grad[1]:
            images, channels, height, width = x.shape
            # channels last: each pixel holds the channels of all images
            pixels = x.permute(2, 3, 0, 1).reshape(1, height, width, images * channels)
            kernels = gradient.reshape(images * channels, 1, *gradient.shape[-2:])
            of_weight = F.conv2d(
                pixels.permute(0, 3, 1, 2), kernels, None, ctx.dilation, ctx.padding, ctx.stride,
                images * channels,
            )  # fmt: skip
            # a stride may leave rows and columns that no kernel reached
            of_weight = of_weight[..., : weight.shape[-2], : weight.shape[-1]]
            of_weight = of_weight.reshape(images, *weight.shape).sum(0)
        return of_x, of_weight, None, None, None


def _slow_in_bf16(convolution: nn.Conv2d) -> bool:
    is_plain = max(convolution.kernel_size) <= 3 and max(convolution.stride) == 1
    is_plain = is_plain and max(convolution.dilation) == 1
    depthwise = convolution.groups == convolution.in_channels
    return convolution.groups > 1 and not (depthwise and is_plain)


def _replace_grouped(network: nn.Module) -> None:
    """Put a GroupedInFp32 in the place of each convolution that is one."""
    replacements = {}  # a convolution that has two places stays one
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if type(module) in (nn.Conv2d, Conv2dSame) and _slow_in_bf16(module):
            if module not in replacements:
                replacements[module] = GroupedInFp32.of(module)
            network.set_submodule(name, replacements[module])

"""Trained networks as one file for other programs: ONNX and torch.export, with all that they need.

What is exported takes pictures of any number and size, and does what `Predictor` does around the
network: it brings them to the training height, normalises and pads them, and brings probabilities
back to their size. Pictures are made smaller by an antialiased bilinear filter there, where
`Predictor` takes means of boxes, as training images were made.
"""

import copy
import dataclasses
import functools
import json
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim

from roadseg.config import paths
from roadseg.data import synthetic
from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.models.segmenter import GroupedInFp32
from roadseg.predict.exported import IMAGES, METADATA, NEEDED, PROBABILITIES
from roadseg.predict.weights import SUFFIXES, About, Weights, load_weights, pack
from roadseg.training.files import write_whole

OPSET = 20
LABELS = "labels"
COMPARED = 20  # test images on which an exported network is compared with ours
CALIBRATED = 20  # training images that the ranges of 8-bit numbers are taken from
KEPT = 4  # first convolutions that stay in fp32: 8 bits cost most of their accuracy there


class Deployable(nn.Module):
    """A network with what stands around it: images uint8 (N, 3, H, W), RGB, of any size.

    Returns
    -------
    labels uint8 (N, H, W); probabilities float32 (N, K, H, W)
    """

    def __init__(self, weights: Weights):
        super().__init__()
        self.network = simplified(weights.network)
        self.height, self.flip = weights.about.size[0], weights.recipe.test_flip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and probabilities."""
        height, width = images.shape[-2:]
        seen = self.height, (width * self.height + height // 2) // height
        x = F.interpolate(images.float(), seen, mode="bilinear", antialias=True)
        p = _softmax(self.network(x))
        if self.flip:
            p = (p + _softmax(self.network(x.flip(-1))).flip(-1)) / 2
        p = F.interpolate(p, (height, width), mode="bilinear")
        return p.argmax(1).to(torch.uint8), p


def _softmax(logits: Tensor) -> Tensor:
    """Return probabilities over the classes: onnxruntime's own takes five times as long."""
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


class _Sum(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return functools.reduce(torch.add, maps)


def simplified(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose convolutions are torch's own, and whose sums are additions.

    Those that pad by the size of their input ("same", as TensorFlow does) get the padding of maps
    that their stride divides: `Segmenter` sees to it that all are.
    """
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, MergeBlock) and module.policy == "add":
            network.set_submodule(name, _Sum())  # maps are stacked there, to be summed up
        if not isinstance(module, Conv2dSame | GroupedInFp32):
            continue
        plain = nn.Conv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride,
            module.padding, module.dilation, module.groups, module.bias is not None,
            module.padding_mode, device="meta",
        )  # fmt: skip
        plain.weight, plain.bias = module.weight, module.bias
        if isinstance(module, Conv2dSame) or module.same:
            sides = zip(module.kernel_size, module.stride, module.dilation, strict=True)
            rows, columns = (max(d * (k - 1) + 1 - s, 0) for k, s, d in sides)
            plain.padding = (0, 0)
            edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            plain = nn.Sequential(nn.ZeroPad2d(edges), plain)
        network.set_submodule(name, plain)
    return network.eval()


def export(name: str, target: Path, *, int8: bool = False) -> None:
    """Write a trained network into one file, and print how far its predictions agree with ours.

    Parameters
    ----------
    name : a finished run, or a name in models/, see `weights.load_weights`
    target : .onnx, .pt2 (torch.export), or .pt (our own, small)
    int8 : of ONNX: 8-bit weights and activations, whose ranges are taken from training images

    Raises
    ------
    InputError : no such weights, another ending, packages or data that are not there, weights that
        are tested at several scales
    """
    ending = target.suffix.lower()
    if ending not in SUFFIXES or (int8 and ending != ".onnx"):
        raise InputError(
            f"--to {target}: give a file that ends with .onnx, .pt2 or .pt; --int8 is for .onnx."
        )
    weights = load_weights(name)
    if weights.is_exported:
        raise InputError(f"{name}: is an exported file already; name the run it came from.")
    if weights.recipe.test_scales != (1.0,) and ending != ".pt":
        raise InputError(
            f"{name}: is tested at several scales, which {ending} cannot hold; name an arm that is "
            "not."
        )
    test_images, kind = _test_images(weights.about)
    train_images = _images(weights.about, "train") if int8 else None
    target.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".pt":
        pack(weights, target)
    else:
        with TemporaryDirectory() as folder:
            made = Path(folder) / f"network{ending}"
            if ending == ".pt2":
                _write_pt2(weights, made)
            else:
                _write_onnx(weights, made, train_images)
            write_whole(target, made.read_bytes())
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    largest, equal = compare(weights, load_weights(str(target)), test_images)
    print(
        f"On {len(test_images)} {kind}, against the network as it was trained: probabilities "
        f"differ by at most {largest:.2g}, {100 * equal:.3f} % of the labels are equal."
    )


def _images(about: About, split: str) -> np.ndarray:
    """Return the images uint8 (N, 3, H, W) of a split of the study that weights come from."""
    study = about.name.split("/")[0]
    return Scenes.load(paths.ROOT / "data/prepared" / study, split).images


def _test_images(about: About) -> tuple[np.ndarray, str]:
    """Return images to compare networks on, and what they are: test images, or drawn scenes."""
    try:
        return _images(about, "test")[:COMPARED], "test images"
    except InputError:  # weights that somebody else trained
        size = tuple(max(side, 32) for side in about.size)  # less cannot be drawn
        drawn = [synthetic.scene(0, i, size)[0] for i in range(COMPARED // 4)]
        return np.stack(drawn).transpose(0, 3, 1, 2), "drawn scenes"


def compare(one: Weights, other: Weights, images: np.ndarray) -> tuple[float, float]:
    """Return how far two networks agree on some images uint8 (N, 3, H, W), one after the other.

    Returns
    -------
    The largest difference of a probability; the share of the pixels that get the same label
    """
    largest, equal = 0.0, []
    for image in images:
        x = torch.from_numpy(np.array(image))[None]
        with torch.inference_mode():
            p, q = (weights(x).float().softmax(1) for weights in (one, other))
        largest = max(largest, (p - q).abs().max().item())
        equal.append((p.argmax(1) == q.argmax(1)).float().mean().item())
    return largest, float(np.mean(equal))


def _exported_program(weights: Weights) -> torch.export.ExportedProgram:
    """Return the program of `Deployable`, for any number of images of any size."""
    example = torch.zeros((2, 3, *weights.about.size), dtype=torch.uint8)
    sides = {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}
    with torch.no_grad():
        return torch.export.export(
            Deployable(weights), (example,), dynamic_shapes={IMAGES: sides}, strict=False
        )


def _write_pt2(weights: Weights, file: Path) -> None:
    about = {METADATA: json.dumps(dataclasses.asdict(weights.about))}
    torch.export.save(_exported_program(weights), file, extra_files=about)


def _write_onnx(weights: Weights, file: Path, calibrate_on: np.ndarray | None) -> None:
    """Write ONNX; in 8 bits, if given images uint8 (N, 3, H, W) to take the ranges from."""
    try:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quant_pre_process,
            quantize_static,
        )
    except ImportError:
        raise InputError(NEEDED) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _exported_program(weights), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[IMAGES], output_names=[LABELS, PROBABILITIES],
        )  # fmt: skip
    program.save(file)
    if calibrate_on is not None:

        class Images(CalibrationDataReader):
            """Hands out some images, evenly spaced."""

            def __init__(self):
                self.left = list(calibrate_on[:: max(len(calibrate_on) // CALIBRATED, 1)])

            def get_next(self) -> dict | None:
                return {IMAGES: np.array(self.left.pop())[None]} if self.left else None

        quant_pre_process(str(file), str(file), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(file).graph.node if node.op_type == "Conv"]
        quantize_static(
            str(file), str(file), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[*convolutions[:KEPT], convolutions[-1]],
        )  # fmt: skip
    model = onnx.load(file)
    for number, name in enumerate(("batch", "height", "width")):
        side = model.graph.input[0].type.tensor_type.shape.dim[(0, 2, 3)[number]]
        side.dim_param = name
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(dataclasses.asdict(weights.about))
    onnx.save(model, file)

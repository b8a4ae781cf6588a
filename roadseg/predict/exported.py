"""Networks in files that `export.py` wrote, for ONNX and torch.export, to predict with."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from roadseg.errors import InputError

METADATA = "roadseg"  # under which these files say what the network is
IMAGES, PROBABILITIES = "images", "probabilities"
NEEDED = "ONNX needs more packages. Run: python -m pip install -e '.[export]'"


class OnnxNetwork(nn.Module):
    """A network in ONNX, run by onnxruntime: images uint8 (N, 3, H, W) -> log probabilities."""

    def __init__(self, session):
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, float32 (N, K, H, W)."""
        pixels = images.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        (p,) = self.session.run([PROBABILITIES], {IMAGES: pixels})
        return torch.from_numpy(p).log().to(images.device)


class ExportedNetwork(nn.Module):
    """A network that torch.export wrote: what `OnnxNetwork` is of ONNX."""

    def __init__(self, program: torch.export.ExportedProgram):
        super().__init__()
        # Without guards: those on sizes only say how tensors would lie in memory. As a function,
        # since such a module has no training mode to leave.
        self.compute = program.module(check_guards=False).forward

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, float32 (N, K, H, W)."""
        return self.compute(images.round().clamp(0, 255).to(torch.uint8))[1].log()


def load_exported(file: Path, threads: int = 0) -> tuple[dict, nn.Module]:
    """Return what a file says of its network, and the network.

    Parameters
    ----------
    threads : that one call of an ONNX file takes; 0 for all cores

    Raises
    ------
    InputError : packages are missing
    """
    if file.suffix.lower() == ".pt2":
        extra = {METADATA: ""}
        network = ExportedNetwork(torch.export.load(file, extra_files=extra))
        about = extra[METADATA]
    else:
        try:
            import onnxruntime
        except ImportError:
            raise InputError(NEEDED) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        network = OnnxNetwork(session)
        about = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return json.loads(about) if about else {}, network

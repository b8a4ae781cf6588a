"""What a network costs: parameters, multiply-adds, latency, receptive field.

One multiply-add counts as one (MAC). Counted are convolutions and matrix products; normalisation,
activations, pooling and interpolation are left out.
"""

import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

COUNTED = (nn.Conv2d, nn.ConvTranspose2d)
POOLS = (nn.MaxPool2d, nn.MaxUnpool2d)


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@torch.no_grad()
def multiply_adds(network: nn.Module, size: tuple[int, int]) -> float:
    """Return multiply-adds in units of 10^9 for one image of `size` (height, width).

    Source
    ------
    torch's own counter, which counts two operations per multiply-add; halved here. The course
    study counted with fvcore, which adds normalisation and interpolation.
    """
    device = next(network.parameters()).device
    network.eval()
    # Explicit matrix products: fused attention counts as zero on the CPU in some torch versions.
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        network(torch.zeros(1, 3, *size, device=device))
    return counter.get_total_flops() / 2e9


@torch.no_grad()
def layer_table(network: nn.Module, size: tuple[int, int]) -> pd.DataFrame:
    """Return one row per convolution and pooling, in the order they run.

    Columns: layer, kind, kernel, stride, channels, height, width (of the output), parameters,
    gmacs (10^9), and receptive_field: how many input pixels, each way, one output value can see.
    That column holds for a chain of layers, such as the baseline, without branches.

    Source
    ------
    Dumoulin & Visin 2016 for the arithmetic. A transposed convolution of kernel k and stride s
    reads ceil(k / s) neighbouring inputs. Max-unpooling reads one, and where it was: the path
    through the pooling positions is left out.
    """
    rows, hooks = [], []
    device = next(network.parameters()).device

    def note(name):
        def hook(layer, inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            kernel, stride = _first(layer.kernel_size), _first(layer.stride)
            weights = getattr(layer, "weight", None)
            positions = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            gmacs = 0.0
            if weights is not None:
                gmacs = weights.numel() * positions.shape[-2] * positions.shape[-1] / 1e9
            rows.append(
                {
                    "layer": name,
                    "kind": type(layer).__name__,
                    "kernel": kernel,
                    "stride": stride,
                    "channels": output.shape[1],
                    "height": output.shape[2],
                    "width": output.shape[3],
                    "parameters": sum(p.numel() for p in layer.parameters()),
                    "gmacs": gmacs,
                }
            )

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, COUNTED + POOLS):
            hooks.append(layer.register_forward_hook(note(name.removeprefix("body."))))
    try:
        network.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    table = pd.DataFrame(rows)
    return table.assign(receptive_field=receptive_fields(table))


def receptive_fields(table: pd.DataFrame) -> list[int]:
    """Return the receptive field after each layer of a chain, in input pixels."""
    field, jump, fields = 1.0, 1.0, []
    for row in table.itertuples():
        if row.kind == "ConvTranspose2d":
            field += (-(-row.kernel // row.stride) - 1) * jump
            jump /= row.stride
        elif row.kind == "MaxUnpool2d":
            jump /= row.stride
        else:
            field += (row.kernel - 1) * jump
            jump *= row.stride
        fields.append(round(field))
    return fields


def _first(value) -> int:
    return value[0] if isinstance(value, tuple) else value


@torch.no_grad()
def latencies(
    networks: dict[str, nn.Module],
    size: tuple[int, int],
    *,
    device: torch.device,
    bf16: bool,
    repeats: int = 20,
) -> dict[str, dict[str, float]]:
    """Time one image at a time, in milliseconds: the median and the 95th percentile.

    The networks take turns, so that a machine that slows down slows all of them.

    Parameters
    ----------
    networks : moved to `device`, channels last
    size : (height, width)
    device : where they run
    bf16 : whether under bf16 autocast
    repeats : timed passes of each network, after five that are not

    Returns
    -------
    name -> {"latency_ms": median, "latency_ms_p95": 95th percentile}
    """
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last).eval()
    image = torch.zeros(1, 3, *size, device=device).to(memory_format=torch.channels_last)
    times = {name: [] for name in networks}
    for _ in range(5 + repeats):
        for name, network in networks.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                network(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(1000 * (time.perf_counter() - started))
    percentiles = {name: np.percentile(taken[5:], [50, 95]) for name, taken in times.items()}
    return {
        name: {"latency_ms": float(median), "latency_ms_p95": float(high)}
        for name, (median, high) in percentiles.items()
    }

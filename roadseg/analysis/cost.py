"""What a network costs: parameters, multiply-adds, memory, time, energy, and what it sees.

One multiply-add counts as one (MAC), as most papers report it under the name of FLOPs. Counted are
convolutions, transposed ones included, and matrix products: fully connected layers and both
products of attention. Left out is what is cheap beside them: normalisation, activations, softmax,
pooling, interpolation, additions and biases. The course study used fvcore, which counts
normalisation, adaptive pooling and interpolation too, and leaves fused attention out.

Networks are counted, timed and looked through in eval mode, and left in it.
"""

import copy
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from roadseg.training.energy import energy_meter

PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
POOLS = (nn.MaxPool2d, nn.MaxUnpool2d, nn.AvgPool2d)
GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
CHAIN = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, *POOLS)  # whose fields are arithmetic
MIB = 2**20
METER_SECONDS = 3.0  # a meter that is renewed ten times a second errs by a few percent then


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@torch.no_grad()
def multiply_adds(network: nn.Module, size: tuple[int, int]) -> float:
    """Return multiply-adds in units of 10^9 for one image of `size` (height, width).

    A network on the meta device is counted without computing anything.

    Source
    ------
    torch's own counter, which counts two operations per multiply-add; halved here. Of a transposed
    convolution it counts each input value times each weight that meets it.
    """
    image = torch.zeros(1, 3, *size, device=_device(network))
    with _counter() as counter:
        network.eval()(image)
    return counter.get_total_flops() / 2e9


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    """Count, with all attention in explicit products: some fused kernels would count as zero."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def layer_table(network: nn.Module, size: tuple[int, int]) -> pd.DataFrame:
    """Return one row per layer that has weights or pools, in the order they run.

    Parameters and multiply-adds add up to those of the network: what a module computes beside its
    layers, such as the products of attention, has a row of kind 'matrix products'. A layer that
    runs twice has two rows and its parameters in the first; one that never runs comes last.

    Parameters
    ----------
    network : on any device, meta included
    size : of one image (height, width)

    Returns
    -------
    Columns layer, kind (class), kernel, stride, dilation (the larger of two sides), channels,
    height, width (of the output; tokens have channels alone), parameters, gmacs (10^9), and
    receptive_field: how many input pixels, each way, one output value can see. That one holds for
    a chain of layers, such as the baseline, and is missing for any other network.
    """
    names = {module: name.removeprefix("body.") for name, module in network.named_modules()}
    # The parameters of each module itself, shared ones at its first owner.
    parameter_counts, counted = {}, set()
    for module in names:
        new = [p for p in module.parameters(recurse=False) if p.requires_grad and p not in counted]
        parameter_counts[module] = sum(p.numel() for p in new)
        counted.update(new)
    listed = {
        m for m, count in parameter_counts.items() if count or isinstance(m, POOLS + GLOBAL_POOLS)
    }
    rows, running, total, chain = [], [], 0, True

    def attribute_flops():
        """Give what was counted since the last call to the innermost module that runs."""
        nonlocal total
        new = counter.get_total_flops() - total
        total += new
        if new:
            module, row = running[-1]
            if not row:
                row |= _row(names[module], module)
                if not isinstance(module, PRODUCTS):
                    row["kind"] = "matrix products"
                rows.append(row)
            row["gmacs"] += new / 2e9

    def enter(module, _inputs):
        attribute_flops()
        running.append((module, {}))

    def leave(module, _inputs, output):
        nonlocal chain
        attribute_flops()
        _, row = running.pop()
        if not row and module in listed:
            row |= _row(names[module], module)
            rows.append(row)
        if row:
            row |= {"parameters": parameter_counts.pop(module, 0), **_grid(module, output)}
            chain &= isinstance(module, CHAIN)

    hooks = [module.register_forward_pre_hook(enter) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    image = torch.zeros(1, 3, *size, device=_device(network), requires_grad=True)
    detached = {name: weights.detach() for name, weights in network.named_parameters()}
    try:
        with _counter() as counter, torch.enable_grad():
            # The image alone has a gradient, so that its graph tells a chain from branches.
            output = torch.func.functional_call(network.eval(), detached, (image.clone(),))
    finally:
        for hook in hooks:
            hook.remove()
    rows += [
        {**_row(names[module], module), "parameters": count}
        for module, count in parameter_counts.items()
        if count
    ]
    # Objects, so that a missing number does not turn its column into fractions.
    table = pd.DataFrame(rows, columns=list(_row("", network)), dtype=object)
    fields = receptive_fields(table) if chain and _is_chain(output) else np.nan
    table = table.assign(receptive_field=fields)
    complete = table.columns[table.notna().all()].drop(["layer", "kind", "gmacs"])
    return table.astype({"gmacs": float, **dict.fromkeys(complete, int)})


def _row(name: str, module: nn.Module) -> dict:
    """Return a layer's row, without what only its run tells."""
    window = [np.nan, np.nan, np.nan]
    if hasattr(module, "kernel_size"):
        window = [module.kernel_size, module.stride, getattr(module, "dilation", 1)]
        window = [max(side) if isinstance(side, tuple | list) else side for side in window]
    return {
        "layer": name,
        "kind": type(module).__name__,
        **dict(zip(("kernel", "stride", "dilation"), window, strict=True)),
        **dict.fromkeys(("channels", "height", "width"), np.nan),
        "parameters": 0,
        "gmacs": 0.0,
    }


def _grid(module: nn.Module, output) -> dict[str, int]:
    """Return the size of a module's output."""
    if isinstance(output, tuple | list):
        output = output[0]
    if not isinstance(output, Tensor):
        return {}
    if isinstance(module, nn.LayerNorm):  # of tokens, or of maps in disguise
        return {"channels": module.normalized_shape[-1]}
    if output.ndim < 4 or isinstance(module, nn.Linear):
        return {"channels": output.shape[-1]}
    return dict(zip(("channels", "height", "width"), output.shape[1:], strict=True))


def _is_chain(output) -> bool:
    """Whether a result depends on the network's input along a single path."""
    node = output.grad_fn if isinstance(output, Tensor) else None
    if node is None:
        return False
    while node is not None:
        before = [other for other, _ in node.next_functions if other is not None]
        if len(before) > 1:
            return False
        node = before[0] if before else None
    return True


def receptive_fields(table: pd.DataFrame) -> list[int]:
    """Return the receptive field after each layer of a chain, in input pixels.

    Source
    ------
    Dumoulin & Visin 2016 for the arithmetic. A transposed convolution of kernel k and stride s
    reads ceil(k / s) neighbouring inputs. Max-unpooling reads one, and where it was: the path
    through the pooling positions is left out. So is resizing outside of layers.
    """
    field, jump, fields = 1.0, 1.0, []
    for row in table.itertuples():
        if not pd.isna(row.kernel):  # normalisation reads one value
            extent = row.dilation * (row.kernel - 1) + 1
            if row.kind == "ConvTranspose2d":
                field += (-(-extent // row.stride) - 1) * jump
                jump /= row.stride
            elif row.kind == "MaxUnpool2d":
                jump /= row.stride
            else:
                field += (extent - 1) * jump
                jump *= row.stride
        fields.append(round(field))
    return fields


def effective_field(network: nn.Module, images: Tensor, *, device: torch.device) -> np.ndarray:
    """Return how much each input pixel sways the output in the middle: float (H, W), sum 1.

    The absolute gradient of the logits there, summed over classes before and over colours after,
    as a mean over images. All zero if the output does not depend on the images.

    Parameters
    ----------
    network : with its trained weights; moved to `device`; its weights gather no gradients
    images : (N, 3, H, W), uint8 or float, as the network takes them
    device : where it runs, one image at a time

    Source
    ------
    Luo et al. 2016, section 3.
    """
    network.to(device).eval()
    total = torch.zeros(images.shape[-2:], device=device, dtype=torch.float64)
    for image in images:
        x = image[None].float().to(device).requires_grad_()
        with torch.enable_grad():
            logits = network(x.clone())  # a copy, since a layer may work in place
            middle = logits[..., logits.shape[-2] // 2, logits.shape[-1] // 2].sum()
        (gradient,) = torch.autograd.grad(middle, x)
        total += gradient[0].abs().sum(0)
    field = total.cpu().numpy()
    return field / field.sum() if field.any() else field


@torch.inference_mode()
def pooled_maps(network: nn.Module, image: Tensor) -> list[np.ndarray]:
    """Return what a network's max-poolings give for one image: float (C, h, w) each, in order.

    Parameters
    ----------
    network : with its trained weights, on the CPU
    image : (3, H, W), uint8 or float, as the network takes them
    """
    pooled = []

    def keep(_module, _inputs, output) -> None:
        maps = output[0] if isinstance(output, tuple) else output  # with the places, to undo it
        pooled.append(maps[0].float().numpy().copy())  # a later layer may work in place

    hooks = [
        module.register_forward_hook(keep)
        for module in network.modules()
        if isinstance(module, nn.MaxPool2d)
    ]
    try:
        network.eval()(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    return pooled


def field_side(field: np.ndarray, share: float = 0.95) -> int:
    """Return the side of the smallest square around the middle that holds `share` of a field.

    Parameters
    ----------
    field : float (H, W), from `effective_field`; its middle is pixel (H // 2, W // 2)
    share : in (0, 1]

    Returns
    -------
    an odd number of pixels; where the square leaves the image, it holds what is inside
    """
    rows, columns = (np.abs(np.arange(side) - side // 2) for side in field.shape)
    rings = np.maximum(rows[:, None], columns)
    inside = np.bincount(rings.ravel(), field.ravel()).cumsum()
    return 2 * int(np.searchsorted(inside, share * inside[-1])) + 1


def peak_memory(
    network: nn.Module,
    size: tuple[int, int],
    *,
    device: torch.device,
    batch: int = 1,
    bf16: bool = False,
    training: bool = False,
) -> float:
    """Return the most memory that one pass needs at a time, weights included, in MiB.

    On CUDA it is what the allocator handed out at most, kernels' workspaces included, less what
    was there before. Elsewhere it is the bytes of all tensors alive at most, whatever the
    allocator makes of them; kernels' own workspaces are left out.

    Parameters
    ----------
    network : stays as it is; a copy is run
    size : (height, width)
    device : where; the meta device gives about what the CPU does, without computing anything
    batch : images at a time
    bf16 : whether under bf16 autocast
    training : forward and backward in training mode, gradients included, without what loss
        function and optimizer need
    """

    def run_pass():
        images = torch.zeros(batch, 3, *size, device=device)
        images = images.to(memory_format=torch.channels_last)
        with torch.set_grad_enabled(training), _autocast(device, bf16):
            output = model_copy(images)
        if training:
            output.sum().backward()

    cuda = device.type == "cuda"
    other_bytes = torch.cuda.memory_allocated(device) if cuda else 0
    model_copy = (
        copy.deepcopy(network).to(device, memory_format=torch.channels_last).train(training)
    )
    if not cuda:
        with _LiveTensorTracker() as tracker:
            for tensor in (*model_copy.parameters(), *model_copy.buffers()):
                tracker.track(tensor)
            run_pass()
        return tracker.peak / MIB
    weights = torch.cuda.memory_allocated(device) - other_bytes
    run_pass()  # libraries get workspaces that they keep
    model_copy.zero_grad()
    torch.cuda.synchronize(device)
    idle_bytes = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run_pass()
    return (torch.cuda.max_memory_allocated(device) - idle_bytes + weights) / MIB


class _LiveTensorTracker(TorchDispatchMode):
    """Follow the bytes of the tensors that operators make, until the last user lets go of them."""

    def __init__(self):
        super().__init__()
        self.storages, self.current, self.peak = {}, 0, 0

    def track(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, for as long as it lives."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # the address, of which no two live at a time

        def free(_):
            del self.storages[key]
            self.current -= size

        if key not in self.storages:
            self.storages[key] = weakref.ref(storage, free)
            self.current += size
            self.peak = max(self.peak, self.current)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.track(value)
        return result


def _autocast(device: torch.device, bf16: bool) -> torch.autocast:
    return torch.autocast("cuda" if device.type == "cuda" else "cpu", torch.bfloat16, enabled=bf16)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            _synchronise(device)
            started = time.perf_counter()
            with _autocast(device, bf16):
                network(image)
            _synchronise(device)
            times[name].append(1000 * (time.perf_counter() - started))
    percentiles = {
        name: np.percentile(milliseconds[5:], [50, 95]) for name, milliseconds in times.items()
    }
    return {
        name: {"latency_ms": float(median), "latency_ms_p95": float(high)}
        for name, (median, high) in percentiles.items()
    }


@torch.no_grad()
def throughput(
    network: nn.Module,
    size: tuple[int, int],
    *,
    device: torch.device,
    bf16: bool,
    largest: int = 64,
    seconds: float = 10.0,
) -> dict[str, float]:
    """Measure images per second at the batch where they are most, and the energy they take there.

    Batches of 1, 2, 4, ... are tried until one brings less than 5 % more images per second, memory
    or time do not suffice, or the largest is reached. Each has one pass to warm up and at least one
    that is timed, so that a single pass of a slow network may take longer than `seconds`.

    Parameters
    ----------
    network : moved to `device`, channels last
    size : (height, width)
    device : where it runs; images are there already
    bf16 : whether under bf16 autocast
    largest : batch to try, a power of two
    seconds : for all batches together, evenly shared; a batch that would exceed it is not begun.
        Where there is an energy meter, the best batch then runs for `METER_SECONDS` seconds more

    Returns
    -------
    images_per_second, best_batch, joules_per_image: NaN where no meter tells, see `energy_meter`

    Raises
    ------
    torch.OutOfMemoryError : a single image does not fit
    """
    network.to(device, memory_format=torch.channels_last).eval()
    joules = energy_meter(device)
    # Noise, since a GPU needs less energy to multiply zeros.
    noise = 255 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def make_batch(batch: int) -> Tensor:
        images = noise.expand(batch, -1, -1, -1).to(device)
        return images.contiguous(memory_format=torch.channels_last)

    def time_passes(images: Tensor, passes: int) -> float:
        _synchronise(device)
        started = time.perf_counter()
        for _ in range(passes):
            with _autocast(device, bf16):
                network(images)
        _synchronise(device)
        return time.perf_counter() - started

    share = seconds / largest.bit_length()
    started = time.perf_counter()
    best = {"images_per_second": 0.0}
    batch = 1
    while batch <= largest:
        passes = 1
        try:
            images = make_batch(batch)
            time_passes(images, 1)
            elapsed = time_passes(images, 1)
            if elapsed < share / 2:
                passes = int(share / elapsed)
                elapsed = time_passes(images, passes)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            break
        image_count = passes * batch
        improves = image_count / elapsed > 1.05 * best["images_per_second"]
        if image_count / elapsed > best["images_per_second"]:
            best = {"images_per_second": image_count / elapsed, "best_batch": batch}
        batch *= 2
        next_seconds = 2 * batch * elapsed / image_count  # to warm up, and to be timed once
        if not improves or time.perf_counter() - started + next_seconds > seconds:
            break
    joules_per_image = float("nan")
    if joules:
        batch = best["best_batch"]
        images, passes = (
            make_batch(batch),
            int(METER_SECONDS * best["images_per_second"] / batch) + 1,
        )
        before = joules()
        time_passes(images, passes)
        joules_per_image = (joules() - before) / (passes * batch)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return best | {"joules_per_image": joules_per_image}

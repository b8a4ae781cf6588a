"""The energy that a device takes, where its driver reports it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def spending(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Give a dict; at the end it has the `joules` of what was done meanwhile.

    They are those of the whole device, other processes' included; None where no driver reports
    it.
    """
    spent, joules = {}, energy_meter(device)
    before = _read_meter(joules)
    yield spent
    after = _read_meter(joules)
    spent["joules"] = None if before is None or after is None else round(after - before, 1)


def _read_meter(joules: Callable[[], float] | None) -> float | None:
    try:
        return joules() if joules else None
    except Exception:  # a driver's own, of any kind: a training does not end by that
        return None


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """Return a function that gives the joules consumed so far, or None where no driver does.

    It asks NVIDIA's driver for what the card consumed, if the package nvidia-ml-py is there; the
    driver renews that number some ten times a second. A start value has no meaning: take
    differences. On a CPU there is none: counters of processors include what other runs take.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # By its id, since CUDA_VISIBLE_DEVICES changes CUDA's order and not the driver's.
        identity = torch.cuda.get_device_properties(device).uuid
        card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1000

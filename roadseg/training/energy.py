"""The energy that a device takes, where its driver tells."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

OFTEN = 20.0  # seconds between two looks at a meter, whose counter may start again in minutes


@contextmanager
def spending(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Give a dict; at the end it has the `seconds` and `joules` of what was done meanwhile.

    Joules are those of the whole device, other processes' included; None where no driver tells.
    """
    spent, began, joules = {}, time.perf_counter(), energy_meter(device)
    looks, ended = [], threading.Event()

    def look() -> None:
        try:
            looks.append(joules())
            while not ended.wait(OFTEN):
                looks.append(joules())
            looks.append(joules())
        except Exception:  # a driver's own, of any kind: what it told so far is not all
            looks.clear()

    looking = threading.Thread(target=look, daemon=True)
    if joules:
        looking.start()
    try:
        yield spent
    finally:
        ended.set()
        if joules:
            looking.join()
    spent["seconds"] = round(time.perf_counter() - began, 2)
    spent["joules"] = round(looks[-1] - looks[0], 1) if looks else None


def energy_meter(
    device: torch.device, *, folder: Path = Path("/sys/class/powercap")
) -> Callable[[], float] | None:
    """Return a function that tells the joules consumed so far, or None where no driver tells.

    On CUDA it asks the driver for what the card consumed, if the package nvidia-ml-py is there; the
    driver renews that number some ten times a second. On the CPU it reads the counters of whole
    processor packages (RAPL) in Linux, of Intel and AMD, which are readable by root alone; they
    include what other processes use, and the function has to be called at least once per overflow
    (minutes). A start value has no meaning: take differences.

    Parameters
    ----------
    device : what consumes
    folder : where the kernel shows the counters of processors
    """
    if device.type == "cuda":
        return _card_meter(device)
    if device.type == "cpu":
        return _package_meter(folder)
    return None


def _card_meter(device: torch.device) -> Callable[[], float] | None:
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


def _package_meter(folder: Path) -> Callable[[], float] | None:
    try:
        packages = [
            package
            for package in sorted(folder.glob("intel-rapl:*"))
            if (package / "name").read_text().startswith("package")  # parts of it are beside it
        ]
        ranges = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        last = [int((package / "energy_uj").read_text()) for package in packages]
    except (OSError, ValueError):
        return None
    if not packages:
        return None
    total = 0

    def joules() -> float:
        nonlocal total
        for i, package in enumerate(packages):
            now = int((package / "energy_uj").read_text())
            total += (now - last[i]) % ranges[i]  # the counter starts again at its range
            last[i] = now
        return total / 1e6

    return joules

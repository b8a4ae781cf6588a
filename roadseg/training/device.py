"""The device that is at hand: its name, its precision, its memory."""

import contextlib
import ctypes
import platform
import resource
import sys

import torch


def precision_on(device: torch.device, precision: str = "auto") -> str:
    """Resolve 'auto': bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bf16" if native else "fp32"


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's and the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def peak_memory(device: torch.device) -> int:
    """Return MiB: what the GPU's allocator held at most, or the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors, for the next step to use again.

    By default glibc gives that of large ones back at once, and each step waits for Linux to clear
    pages anew. Elsewhere nothing is changed.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, man mallopt
    with contextlib.suppress(OSError, AttributeError):
        library, largest = ctypes.CDLL("libc.so.6"), (1 << 31) - 1
        # Older ones allow 32 MiB; and either alone would be worse than none.
        if library.mallopt(mmap_threshold, largest) or library.mallopt(mmap_threshold, 1 << 25):
            library.mallopt(trim_threshold, largest)

"""What is told of a device, and how memory is held there."""

from types import SimpleNamespace

import pytest
import torch

from roadseg.training import device
from roadseg.training.device import keep_freed_memory, precision_on


@pytest.mark.parametrize(("allows", "expected"), [(1 << 31, [(-3, 2**31 - 1), (-1, 2**31 - 1)]),
                                                (1 << 25, [(-3, 2**31 - 1), (-3, 1 << 25), (-1, 2**31 - 1)]),
                                                (0, [(-3, 2**31 - 1), (-3, 1 << 25)])])  # fmt: skip
def test_memory_is_held_as_far_as_the_c_library_allows(monkeypatch, allows, expected):
    """Where it allows nothing, its threshold for giving memory back stays as it is, too."""
    calls = []

    def mallopt(parameter, value):
        calls.append((parameter, value))
        return int(value <= allows)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda _name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert calls == expected
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _name: SimpleNamespace())  # musl has none
    keep_freed_memory()


def test_precision_is_the_one_asked_for_or_what_the_device_computes_natively(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for native in (True, False):
        able = {"avx512_bf16": native, "amx_bf16": False}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        for where in (cpu, cuda):
            assert precision_on(where) == ("bf16" if native else "fp32")
            assert [precision_on(where, requested) for requested in ("fp32", "bf16")] == ["fp32", "bf16"]

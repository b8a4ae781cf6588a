"""The energy of a graphics card, as its driver tells it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from toys import CPU

from roadseg.training import energy
from roadseg.training.energy import energy_meter, spending


class NVMLError(Exception):
    pass


@pytest.fixture
def driver(monkeypatch):
    """One for two cards, the first of which is too old to tell; CUDA has them the other way round."""

    def consumed(card):
        if card == "GPU-old":
            raise NVMLError("not supported")
        return {"GPU-1234-ab": 5_500}[card]

    module = SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=consumed,
    )  # fmt: skip
    cards = {"cuda:0": "1234-ab", "cuda:1": "old"}
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=cards[str(device)])
    )
    return module


def test_it_is_that_of_the_card_that_computes_if_its_driver_tells(driver, monkeypatch):
    assert energy_meter(torch.device("cuda:0"))() == 5.5
    assert energy_meter(torch.device("cuda:1")) is None and energy_meter(CPU) is None

    def fail():
        raise NVMLError("no driver")

    monkeypatch.setattr(driver, "nvmlInit", fail)
    assert energy_meter(torch.device("cuda:0")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert energy_meter(torch.device("cuda:0")) is None


@pytest.mark.parametrize(
    ("readings", "joules"),
    [([3.0, 10.26], 7.3), ([3.0, NVMLError("lost")], None), ([NVMLError("lost"), 3.0], None)],
)
def test_what_is_spent_meanwhile_is_reported_at_the_end(monkeypatch, readings, joules):
    """A driver that fails costs the number, and not the training."""
    readings = iter(readings)

    def ask():
        value = next(readings)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(energy, "energy_meter", lambda _: ask)
    with spending(torch.device("cuda")) as spent:
        assert not spent
    assert spent["joules"] == joules

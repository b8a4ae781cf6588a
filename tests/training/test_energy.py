import os
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from roadseg.training import energy
from roadseg.training.energy import energy_meter

CPU = torch.device("cpu")


def counter(folder, name, kind, microjoules, most=1_000_000):
    (folder / name).mkdir(exist_ok=True)
    for file, value in (("name", kind), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / name / file).write_text(f"{value}\n")


def test_the_processor_s_counters_add_up_and_start_again(tmp_path):
    counter(tmp_path, "intel-rapl:0", "package-0", 900_000)
    counter(tmp_path, "intel-rapl:1", "package-1", 0, most=5_000_000)
    counter(tmp_path, "intel-rapl:0:0", "core", 7)  # part of the first
    counter(tmp_path, "intel-rapl:2", "psys", 7)  # the whole machine
    joules = energy_meter(CPU, folder=tmp_path)
    assert joules() == 0
    counter(tmp_path, "intel-rapl:0", "package-0", 950_000)
    counter(tmp_path, "intel-rapl:0:0", "core", 500_000)
    counter(tmp_path, "intel-rapl:2", "psys", 500_000)
    assert joules() == pytest.approx(0.05)
    counter(tmp_path, "intel-rapl:0", "package-0", 100_000)  # over its range: 50 000 and 100 000 more
    counter(tmp_path, "intel-rapl:1", "package-1", 4_000_000)
    assert joules() == pytest.approx(0.05 + 0.15 + 4)
    assert joules() == pytest.approx(0.05 + 0.15 + 4)


def test_no_meter_where_no_driver_tells(tmp_path, monkeypatch):
    assert energy_meter(CPU, folder=tmp_path / "none") is None
    assert energy_meter(torch.device("meta"), folder=tmp_path) is None
    counter(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0/energy_uj").chmod(0)
    if not os.access(tmp_path / "intel-rapl:0/energy_uj", os.R_OK):  # root reads all the same
        assert energy_meter(CPU, folder=tmp_path) is None
    (tmp_path / "intel-rapl:0/energy_uj").unlink()
    assert energy_meter(CPU, folder=tmp_path) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert energy_meter(torch.device("cuda")) is None


def test_a_card_s_meter_asks_for_the_card_that_computes(monkeypatch):
    class NVMLError(Exception):
        pass

    def energy(card):
        if card == "GPU-old":
            raise NVMLError("not supported")
        return {"GPU-1234-ab": 5_500}[card]

    driver = SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )  # fmt: skip
    cards = {"cuda:0": "old", "cuda:1": "1234-ab"}
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=cards[str(device)])
    )
    assert energy_meter(torch.device("cuda:1"))() == 5.5
    assert energy_meter(torch.device("cuda:0")) is None


def test_what_a_block_takes_is_told_and_the_meter_looked_at_meanwhile(monkeypatch):
    looks = []
    monkeypatch.setattr(energy, "OFTEN", 0.01)
    monkeypatch.setattr(energy, "energy_meter", lambda _device: lambda: looks.append(1) or 7.0 * len(looks))
    with energy.spending(CPU) as spent:
        time.sleep(0.2)
        assert not spent
    assert len(looks) > 3 and spent["joules"] == 7.0 * (len(looks) - 1)
    assert 0.2 <= spent["seconds"] < 2
    after = len(looks)
    time.sleep(0.05)
    assert len(looks) <= after + 1
    monkeypatch.setattr(energy, "energy_meter", lambda _device: None)
    with energy.spending(CPU) as spent:
        pass
    assert spent["joules"] is None

"""Time each network of the embedded study: a training step and a single image, on this device.

Prints one row per network: the median and the 95th percentile in milliseconds, in an order that
alternates between networks, so that a machine that slows down slows all of them.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch

from roadseg import cost, study
from roadseg.losses import segmentation_loss
from roadseg.models import build
from roadseg.train import default_device, device_name, precision_on


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    plan = study.load(options.params)
    size, device = tuple(plan.data["size"]), default_device()
    bf16 = precision_on(device) == "bf16"
    batch = next(iter(plan.arms.values())).batch_size
    names = list(dict.fromkeys(recipe.network for recipe in plan.arms.values()))
    networks = {
        name: build(name, 19).to(device, memory_format=torch.channels_last) for name in names
    }
    optimizers = {name: torch.optim.Adam(net.parameters()) for name, net in networks.items()}
    x = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, device=device)
    y = torch.randint(0, 19, (batch, *size), device=device)
    times = {name: [] for name in names}
    for _ in range(options.rounds + 2):
        for name, network in networks.items():
            network.train()
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(x)
            segmentation_loss(logits, y).backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - started))
    rows = []
    timed = cost.latencies(networks, size, device=device, bf16=bf16)
    for name in networks:
        median, high = np.percentile(times[name][2:], [50, 95])
        rows.append(
            {
                "network": name,
                "step_ms": median,
                "step_ms_p95": high,
                **timed[name],
            }
        )
    print(
        f"{device_name(device)}, torch {torch.__version__}, {precision_on(device)}, "
        f"{size[0]} x {size[1]}, batch {batch}, {options.rounds} rounds"
    )
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    main()

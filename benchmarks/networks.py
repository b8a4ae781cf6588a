"""What a training step of each listed network costs at 360 x 480: time, memory, multiply-adds."""

import time

import page
import torch

from roadseg.analysis.cost import multiply_adds, parameters, peak_memory
from roadseg.config.study import load
from roadseg.models.build import build, on_meta
from roadseg.training.device import keep_freed_memory
from roadseg.training.losses import segmentation_loss
from roadseg.training.workers import run_jobs

SIZE, BATCH, CLASSES = (360, 480), 4, 11
STEPS = 3  # timed after one that warms up; the fastest counts


def step_ms(name: str, batch: int) -> float:
    """Return the milliseconds of one training step, on one thread, in bf16 by autocast."""
    keep_freed_memory()
    network = build(name, CLASSES).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    images = torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch, *SIZE))
    taken = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        optimizer.zero_grad(set_to_none=True)
        segmentation_loss(logits, labels).backward()
        optimizer.step()
        taken.append(1e3 * (time.perf_counter() - began))
    return min(taken[1:])


def row(name: str, network: str) -> dict:
    """Return a network's row."""
    empty = on_meta(lambda: build(network, CLASSES))
    gmacs = multiply_adds(empty, SIZE)
    meta = torch.device("meta")
    memory = peak_memory(empty, SIZE, device=meta, batch=BATCH, training=True)
    batch = BATCH if gmacs < 30 else 2  # batch normalisation needs two
    (ended,) = run_jobs(
        {name: lambda _: step_ms(network, batch)}, torch.device("cpu"), print
    ).values()
    if ended.how != "done":
        raise SystemExit(f"{name}: {ended.value}")
    print(f"{name}: {ended.value:.0f} ms", flush=True)
    return {
        "network": name,
        "parameters, M": f"{parameters(empty) / 1e6:.2f}",
        "multiply-adds, 10⁹": f"{gmacs:.2f}",
        "memory of a step, GiB": f"{memory / 1024:.2f}",
        "step, ms an image": f"{ended.value / batch:.0f}",
    }


def main() -> None:
    """Write the page's section."""
    listed = {name: network.network for name, network in load().networks.items()}
    rows = [row(name, network) for name, network in listed.items()]
    rows.sort(key=lambda row_cells: float(row_cells["multiply-adds, 10⁹"]))
    conditions = (
        f"{page.conditions()} One thread, {SIZE[0]} x {SIZE[1]}, {CLASSES} classes, batch {BATCH}, "
        "timed with batch 2 from 30 · 10⁹ multiply-adds on; forwards, backwards and AdamW, the "
        f"fastest of {STEPS}. Memory is that of all tensors alive at a time, in fp32, "
        "without what AdamW keeps."
    )
    text = f"{conditions}\n\n{page.table(rows)}"
    page.section("networks", text, page.PAGE.with_name("weights.md"))


if __name__ == "__main__":
    main()

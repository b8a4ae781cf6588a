"""The loop, visible once: a recipe and scenes in, a record out.

Only this file wires a recipe's knobs to the machinery.
"""

import dataclasses
import datetime
import hashlib
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from roadseg.augment import augment
from roadseg.data import Scenes
from roadseg.losses import segmentation_loss
from roadseg.metrics import Confusion, count
from roadseg.models import Segmenter, build
from roadseg.recipe import InputError, Recipe

CURVE_POINTS = 8  # how often the val score is taken during training, evenly spaced


@dataclass(frozen=True)
class Record:
    """What one run left behind.

    Attributes
    ----------
    recipe : the settings
    about : digest, data digest, device, versions, precision, seconds, memory
    curve : one row per epoch: step, loss (mean, nats per pixel), lr, val_miou (where it was taken)
    counts : 'val' and 'test', int64 (N, K, K) per image
    """

    recipe: Recipe
    about: dict
    curve: pd.DataFrame
    counts: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a record; the InputError of a missing one says how to make it."""
        if not (folder / "record.json").is_file():
            raise InputError(f"{folder}: holds no finished run. Run 'make report' first.")
        record = json.loads((folder / "record.json").read_text())
        with np.load(folder / "counts.npz") as counts:
            counts = {split: counts[split].astype(np.int64) for split in counts.files}
        curve = pd.read_csv(folder / "curve.csv")
        return cls(Recipe.of(record["recipe"]), record["about"], curve, counts)


def stream(seed: int, purpose: str) -> int:
    """Return the seed of a named random stream.

    Each purpose has its own stream, so that one draw more for a new augmentation leaves weights
    and batch order as they were: two runs of one seed are paired.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:7], "big")


def batches(n: int, size: int, rng: Generator) -> Iterator[Tensor]:
    """Yield indices int64 (size,) for ever: each of 0..n-1 once, shuffled, before any twice."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(n, generator=rng)])
        yield queue[:size]
        queue = queue[size:]


def lr_factor(step: int, recipe: Recipe) -> float:
    """Return the factor on `lr` at a step (0-based): linear warm-up, then fixed or poly decay.

    Source
    ------
    Chen et al. 2018 (DeepLab), section 4.1: (1 - step / steps) ** power. With warm-up, the decay
    starts where the warm-up ends.
    """
    if step < recipe.warmup_steps:
        return (step + 1) / (recipe.warmup_steps + 1)
    if recipe.schedule == "fixed":
        return 1.0
    done = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    return (1 - done) ** recipe.poly_power


def precision_on(device: torch.device, precision: str = "auto") -> str:
    """Resolve 'auto': bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = getattr(torch.cpu, "get_capabilities", dict)()
        native = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    return "bf16" if native else "fp32"


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    recipe: Recipe,
    scenes: Scenes,
    val: Scenes,
    *,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> tuple[Segmenter, pd.DataFrame, float]:
    """Train the network that `recipe` describes.

    Parameters
    ----------
    recipe : the run's settings
    scenes : what it learns from; held on the device as uint8
    val : scored for the curve only, never to choose a checkpoint
    device : where it runs
    say : receives one line per epoch

    Returns
    -------
    network : at the last step, in eval mode
    curve : see `Record`
    seconds : time spent in training steps, without scoring

    Raises
    ------
    InputError : the loss is not finite any more
    """
    bf16 = precision_on(device, recipe.precision) == "bf16"
    torch.manual_seed(stream(recipe.seed, "init"))
    network = build(recipe.network, len(scenes.classes))
    network = network.to(device, memory_format=torch.channels_last).train()
    torch.manual_seed(stream(recipe.seed, "dropout"))
    order = Generator().manual_seed(stream(recipe.seed, "order"))
    chance = Generator().manual_seed(stream(recipe.seed, "augment"))

    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    optimizer = kind(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(s, recipe))
    images = torch.from_numpy(np.array(scenes.images)).to(device)
    labels = torch.from_numpy(np.array(scenes.labels)).to(device)
    epoch_steps = -(-len(scenes) // recipe.batch_size)

    curve, losses, seconds = [], [], 0.0
    started = time.perf_counter()
    feed = batches(len(scenes), recipe.batch_size, order)
    for step, chosen in zip(range(1, recipe.steps + 1), feed, strict=False):
        chosen = chosen.to(device)
        x, y = augment(
            images[chosen], labels[chosen], chance,
            flip=recipe.flip, scale_jitter=recipe.scale_jitter, colour_jitter=recipe.colour_jitter,
        )  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(x)
        loss = segmentation_loss(logits, y.long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        lr = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())  # read once per epoch: reading makes a GPU wait

        if step % epoch_steps == 0 or step == recipe.steps:
            mean_loss = torch.stack(losses).mean().item()
            seconds += time.perf_counter() - started
            if not np.isfinite(mean_loss):
                raise InputError(
                    f"the loss is not finite by step {step} (lr {lr:g}); lower lr, or lengthen "
                    "warmup_steps."
                )
            row = {"step": step, "loss": mean_loss, "lr": lr, "val_miou": np.nan}
            taken = sum(np.isfinite(earlier["val_miou"]) for earlier in curve)
            if step * CURVE_POINTS >= recipe.steps * (taken + 1) or step == recipe.steps:
                counts, _ = evaluate(network, val, device, recipe)
                row["val_miou"] = Confusion(counts.sum(0)).miou
            curve.append(row)
            say(_line(row, recipe, epoch_steps, seconds))
            network.train()
            losses, started = [], time.perf_counter()
    return network.eval(), pd.DataFrame(curve), seconds


def _line(row: dict, recipe: Recipe, epoch_steps: int, seconds: float) -> str:
    """Return one epoch's progress."""
    epochs = -(-recipe.steps // epoch_steps)
    val = "" if np.isnan(row["val_miou"]) else f"   val mIoU {row['val_miou']:.3f}"
    return (
        f"epoch {-(-row['step'] // epoch_steps):>4}/{epochs}   step {row['step']:>5}/{recipe.steps}"
        f"   loss {row['loss']:.3f}   lr {row['lr']:.2e}   {seconds:6.1f} s{val}"
    )


@torch.no_grad()
def evaluate(
    network: Segmenter, scenes: Scenes, device: torch.device, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every scene at full size, and count.

    Returns
    -------
    counts : int64 (N, K, K) per image, row truth, column prediction
    predictions : uint8 (N, H, W)
    """
    network.eval()
    counts, predictions = [], []
    bf16 = precision_on(device, recipe.precision) == "bf16"
    for first in range(0, len(scenes), 8):
        x = torch.from_numpy(np.array(scenes.images[first : first + 8])).to(device)
        y = torch.from_numpy(np.array(scenes.labels[first : first + 8])).to(device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            best = network(x).argmax(1)
        counts.append(count(best, y, len(scenes.classes)).cpu().numpy())
        predictions.append(best.to(torch.uint8).cpu().numpy())
    return np.concatenate(counts), np.concatenate(predictions)


def run(
    recipe: Recipe,
    prepared: Path,
    folder: Path,
    *,
    device: torch.device | None = None,
    say: Callable[[str], None] = print,
) -> Record:
    """Train one recipe on prepared scenes, score it once on val and test, and write its record.

    Parameters
    ----------
    recipe : the run's settings
    prepared : folder of the prepared scenes
    folder : receives record.json, curve.csv, counts.npz, predictions.npz (test, uint8 (N, H, W))
        and weights.pt; it appears when all of them are written, an old one is replaced then
    """
    device = device or default_device()
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val", "test")}
    say(f"{recipe.network}, seed {recipe.seed}, {recipe.steps} steps, on {device_name(device)}")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    network, curve, seconds = train(recipe, splits["train"], splits["val"], device=device, say=say)
    scored = {split: evaluate(network, splits[split], device, recipe) for split in ("val", "test")}
    height, width = splits["train"].labels.shape[1:]
    about = {
        "digest": recipe.digest,
        "data_digest": splits["train"].digest,
        "train_images": len(splits["train"]),
        "height": height,
        "width": width,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision_on(device, recipe.precision),
        "seconds": round(seconds, 2),
        "images_per_second": round(recipe.steps * recipe.batch_size / seconds, 2),
        "peak_memory_mib": peak_memory(device),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm")},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    work = folder.with_name(folder.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    content = {"recipe": dataclasses.asdict(recipe), "about": about}
    (work / "record.json").write_text(json.dumps(content, indent=1) + "\n")
    curve.to_csv(work / "curve.csv", index=False)
    np.savez_compressed(
        work / "counts.npz", **{s: c.astype(np.int32) for s, (c, _) in scored.items()}
    )
    np.savez_compressed(work / "predictions.npz", test=scored["test"][1])
    torch.save(network.state_dict(), work / "weights.pt")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return Record.read(folder)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's and the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """Return MiB: what the GPU's allocator held at most, or the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20

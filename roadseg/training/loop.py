"""The loop, visible once: a recipe and scenes in, a trained network out.

This file wires a recipe's hyperparameters to the machinery; `warm_start.py` those that say where
it starts from.
"""

import hashlib
import itertools
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor
from torch.optim.swa_utils import AveragedModel

from roadseg.config.recipe import Recipe
from roadseg.data.scenes import Scenes, check_unchanged, read, stamp
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.models.freeze import encoder_of, freeze
from roadseg.models.segmenter import Segmenter
from roadseg.training.augment import augment
from roadseg.training.batches import iterate_batches, order
from roadseg.training.checkpoints import Checkpoints
from roadseg.training.device import keep_freed_memory, precision_on
from roadseg.training.evaluate import evaluate
from roadseg.training.losses import (
    balanced_weights,
    distillation_loss,
    power_weights,
    segmentation_loss,
)
from roadseg.training.metrics import Confusion


class Diverged(InputError):
    """The loss is not finite any more."""


CURVE_POINTS = 8  # how often the val score is taken during training, evenly spaced


def stream(seed: int, purpose: str) -> int:
    """Return the seed of a named random stream.

    Each purpose has its own stream, so that one draw more for a new augmentation leaves weights
    and batch order as they were: two runs of one seed are paired.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:7], "big")


def lr_factor(step: int, recipe: Recipe) -> float:
    """Return the factor on `lr` at a step (0-based): linear warm-up, then the schedule.

    Source
    ------
    Chen et al. 2018 (DeepLab), section 4.1: (1 - step / steps) ** power. Loshchilov & Hutter 2017,
    eq. 5: half a cosine, `cycles` times, each as long as the others (T_mult = 1, minimum 0). With
    warm-up, either starts where the warm-up ends.
    """
    if step < recipe.warmup_steps:
        return (step + 1) / (recipe.warmup_steps + 1)
    done = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    if recipe.schedule == "poly":
        return (1 - done) ** recipe.poly_power
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * (done * recipe.cycles % 1))) / 2
    return 1.0


def make_network(recipe: Recipe, classes: int) -> Segmenter:
    """Build the network that a recipe describes, with random weights."""
    return build(
        recipe.network, classes, batch_norm=recipe.batch_norm, residual=recipe.residual,
        dropout=recipe.dropout, auxiliary=recipe.aux_weight > 0,
    )  # fmt: skip


def parameter_groups(network: Segmenter, recipe: Recipe) -> list[dict]:
    """Return the trained parameters for the optimiser; the encoder's apart if it has its own rate.

    Raises
    ------
    InputError : the recipe gives a rate to the encoder of a network that has none
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if recipe.encoder_lr == 1:
        return [{"params": trained}]
    encoder = {id(p) for p in encoder_of(network, "encoder_lr").parameters()}
    encoder_parameters = [p for p in trained if id(p) in encoder]
    other_parameters = [p for p in trained if id(p) not in encoder]
    return [
        {"params": other_parameters},
        {"params": encoder_parameters, "lr": recipe.lr * recipe.encoder_lr},
    ]


@torch.no_grad()
def ema_update(decay: float, averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
    """Move an exponential moving average on, in place; `n` weights were averaged before.

    It is the weighted mean of all weights so far: the first ones count as much as their age allows,
    and no more, however short the training is.

    Source
    ------
    Kingma & Ba 2015, section 3: the average that starts at 0, divided by 1 - decay ** (n + 1).
    """
    share = (1 - decay) / (1 - decay ** (n + 1))  # on the device, which need not wait for it
    for mean, new in zip(averaged, current, strict=True):
        mean.lerp_(new, share) if mean.is_floating_point() else mean.copy_(new)


def labelled_pixels(scenes: Scenes) -> np.ndarray:
    """Return the number of pixels of each class, int64 (K,), read a few images at a time."""
    counts = np.zeros(256, np.int64)
    for first in range(0, len(scenes), 64):
        labels = read(scenes.labels, slice(first, first + 64))
        counts += np.bincount(labels.ravel(), minlength=256)
    return counts[: len(scenes.classes)]


def train(
    recipe: Recipe,
    scenes: Scenes,
    val: Scenes,
    *,
    device: torch.device,
    start: Callable[[Segmenter], None] | None = None,
    teacher: Segmenter | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Segmenter, pd.DataFrame, float]:
    """Train the network that `recipe` describes.

    With `checkpoints` it goes on from the newest state there and ends, on a CPU bit for bit, where
    it would have ended without the stop.

    Parameters
    ----------
    recipe : the run's settings
    scenes : what it learns from
    val : scored for the curve only, never to choose a checkpoint
    device : where it runs
    start : changes the network's first weights, if given
    teacher : network whose logits the recipe's distillation aims at
    checkpoints : where its state is saved now and then
    say : receives one line per epoch

    Returns
    -------
    network : at the last step, or its moving average, in eval mode
    curve : one row per epoch: step, loss (mean, nats per pixel), lr, val_miou (where it was taken)
    seconds : time spent in training steps, without scoring and saving

    Raises
    ------
    Diverged : the loss is not finite any more
    InputError : a file of the scenes was changed meanwhile
    """
    files = stamp(scenes, val)
    if device.type == "cpu":
        keep_freed_memory()
    bf16 = precision_on(device, recipe.precision) == "bf16"
    torch.manual_seed(stream(recipe.seed, "init"))
    network = make_network(recipe, len(scenes.classes))
    if start:
        start(network)
    freeze(network, recipe.freeze_stages, recipe.freeze_norm)
    network = network.to(device, memory_format=torch.channels_last).train()
    averaged = None
    if recipe.ema_decay:
        update = partial(ema_update, recipe.ema_decay)
        averaged = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    torch.manual_seed(stream(recipe.seed, "dropout"))
    augment_rng = Generator().manual_seed(stream(recipe.seed, "augment"))

    class_weights = None
    if recipe.class_balance:
        class_weights = balanced_weights(labelled_pixels(scenes), recipe.class_balance)
    if recipe.class_power:
        class_weights = power_weights(labelled_pixels(scenes), recipe.class_power)
    if class_weights is not None:
        class_weights = torch.from_numpy(class_weights).float().to(device)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    groups = parameter_groups(network, recipe)
    optimizer = optimizer_class(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(s, recipe))
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if averaged:
        parts["averaged"] = averaged
    epoch_steps = -(-len(scenes) // recipe.batch_size)

    done, curve, losses, seconds = 0, [], [], 0.0
    if checkpoints and (state := checkpoints.newest()):
        done, curve, losses, seconds = (state[n] for n in ("step", "curve", "losses", "seconds"))
        losses = list(losses.to(device))
        for name, part in parts.items():
            part.load_state_dict(state[name])
        _set_rng_states(state["random"], augment_rng, device)
        say(f"goes on after step {done}")
    batches = iterate_batches(scenes, recipe.batch_size, _order_stream(recipe), device, first=done)
    started = time.perf_counter()
    for step, (images, labels) in zip(range(done + 1, recipe.steps + 1), batches, strict=False):
        x, y = augment(
            images, labels, augment_rng,
            flip=recipe.flip, scale_jitter=recipe.scale_jitter, colour_jitter=recipe.colour_jitter,
            hue_jitter=recipe.hue_jitter, crop=recipe.crop, size_jitter=recipe.size_jitter,
        )  # fmt: skip
        x, y = x.contiguous(memory_format=torch.channels_last), y.long()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            if recipe.aux_weight:
                logits, auxiliary_logits = network.with_auxiliary(x)
            else:
                logits = network(x)
        loss = segmentation_loss(
            logits, y, class_weights=class_weights, label_smoothing=recipe.label_smoothing,
            focal_gamma=recipe.focal_gamma, ohem_threshold=recipe.ohem_threshold,
            ohem_kept=recipe.ohem_kept, dice_weight=recipe.dice_weight,
            lovasz_weight=recipe.lovasz_weight,
        )  # fmt: skip
        if recipe.aux_weight:
            loss = loss + recipe.aux_weight * segmentation_loss(auxiliary_logits, y)
        if recipe.distill_weight:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                teacher_logits = teacher(x)
            distill_loss = distillation_loss(logits, teacher_logits, recipe.distill_temperature)
            loss = loss + recipe.distill_weight * distill_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        lr = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        if averaged:
            averaged.update_parameters(network)
        losses.append(loss.detach())  # read once per epoch: reading makes a GPU wait

        if step % epoch_steps == 0 or step == recipe.steps:
            mean_loss = torch.stack(losses).mean().item()
            seconds += time.perf_counter() - started
            _check_finite(losses, step, recipe, scenes)
            row = {"step": step, "loss": mean_loss, "lr": lr, "val_miou": np.nan}
            scores_taken = sum(np.isfinite(earlier["val_miou"]) for earlier in curve)
            if step * CURVE_POINTS >= recipe.steps * (scores_taken + 1) or step == recipe.steps:
                eval_network = averaged.module if averaged else network
                counts = evaluate(eval_network, val, device, precision=recipe.precision)
                row["val_miou"] = Confusion(counts.sum(0)).miou
            curve.append(row)
            say(_progress_line(row, recipe, epoch_steps, seconds))
            network.train()
            losses, started = [], time.perf_counter()

        if checkpoints and checkpoints.due and step < recipe.steps:
            seconds += time.perf_counter() - started
            _check_finite(losses, step, recipe, scenes)
            check_unchanged(files, scenes, val)
            state = {name: part.state_dict() for name, part in parts.items()}
            loss_tensor = torch.stack(losses) if losses else torch.empty(0)
            state |= {"curve": curve, "losses": loss_tensor, "seconds": seconds}
            checkpoints.save(step, state | {"random": _rng_states(augment_rng, device)})
            started = time.perf_counter()
    check_unchanged(files, scenes, val)
    eval_network = averaged.module if averaged else network
    return eval_network.eval(), pd.DataFrame(curve), seconds


def _order_stream(recipe: Recipe) -> Generator:
    """Return the random stream that batches are drawn by."""
    return Generator().manual_seed(stream(recipe.seed, "order"))


def _rng_states(augment_rng: Generator, device: torch.device) -> list[Tensor]:
    """Return the states of all random streams that a training moves on, apart from the order's.

    The order's is where so many batches take it.
    """
    states = [augment_rng.get_state(), torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_rng_states(states: list[Tensor], augment_rng: Generator, device: torch.device) -> None:
    """Put the random streams where `_rng_states` saw them."""
    augment_rng.set_state(states[0])
    torch.set_rng_state(states[1])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[2], device)


def _check_finite(losses: list[Tensor], step: int, recipe: Recipe, scenes: Scenes) -> None:
    """Raise Diverged if one of the losses of the steps up to `step` is not finite."""
    if not losses or (finite := torch.stack(losses).isfinite()).all():
        return
    first = step - len(losses) + 1 + finite.tolist().index(False)
    chosen = order(len(scenes), recipe.batch_size, _order_stream(recipe))
    images = next(itertools.islice(chosen, first - 1, None)).tolist()
    image_names = [scenes.names[i] for i in images[:8]] + ["..."] * (len(images) > 8)
    lr = recipe.lr * lr_factor(first - 1, recipe)
    raise Diverged(
        f"the loss is not finite at step {first}: lr {lr:.3g}, images {', '.join(image_names)}. "
        "Lower lr, or lengthen warmup_steps; if it is always these images, look at their labels."
    )


def _progress_line(row: dict, recipe: Recipe, epoch_steps: int, seconds: float) -> str:
    """Return one epoch's progress."""
    epochs = -(-recipe.steps // epoch_steps)
    val = "" if np.isnan(row["val_miou"]) else f"   val mIoU {row['val_miou']:.3f}"
    return (
        f"epoch {-(-row['step'] // epoch_steps):>4}/{epochs}   step {row['step']:>5}/{recipe.steps}"
        f"   loss {row['loss']:.3f}   lr {row['lr']:.2e}   {seconds:6.1f} s{val}"
    )

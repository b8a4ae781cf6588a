"""Timing in turn, so that a machine that slows down slows every contender."""

import time
from collections.abc import Callable

import numpy as np
import torch


def timed(contenders: dict[str, Callable], rounds: int) -> dict[str, np.ndarray]:
    """Return seconds (rounds,) of each contender, called in turn; a first round is not counted.

    A contender that returns a float has timed itself, without what comes before its first step.
    """
    seconds = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, contender in contenders.items():
            started = time.perf_counter()
            returned = contender()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            took = time.perf_counter() - started
            seconds[name].append(returned if isinstance(returned, float) else took)
    return {name: np.array(each[1:]) for name, each in seconds.items()}


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Return the median and, in brackets, the quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"

"""Scores of any weights on the test images of any prepared study, at any size."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tabulate import tabulate

from roadseg.config import paths
from roadseg.config.study import Study
from roadseg.data.check import header_size
from roadseg.data.datasets import find_source
from roadseg.data.prepare import prepare
from roadseg.data.scenes import Scenes, data_digest, test_is_val
from roadseg.errors import InputError
from roadseg.predict.weights import About, Weights, load_weights
from roadseg.training import metrics
from roadseg.training.device import default_device, device_name, precision_on
from roadseg.training.files import work_folder, write_whole
from roadseg.training.score import calibration_error, score_split

MAX_SIDE = 8192  # pixels


@dataclass(frozen=True)
class Scores:
    """What weights score on a split.

    Attributes
    ----------
    about : weights, study, split, images, size, device, precision
    overall : mIoU, boundary mIoU, pixel accuracy and expected calibration error, in 0..1
    classes : one row per class: IoU, boundary IoU, precision and recall in 0..1, NaN where a class
        has no pixels in the truth (of precision: in the predictions), and its pixels in the truth
    """

    about: dict
    overall: dict[str, float]
    classes: pd.DataFrame

    def __str__(self) -> str:
        """Return a table of the classes, and the overall scores above it."""
        percent = 100 * self.classes.drop(columns="pixels")
        overall = ", ".join(f"{name} {100 * value:.2f} %" for name, value in self.overall.items())
        head = ", ".join(f"{key} {value}" for key, value in self.about.items())
        table = tabulate(percent, headers="keys", floatfmt=".2f", missingval="-")
        return f"{head}\n{overall}\n{table.replace(' nan', '   -')}"

    def write(self, file: Path) -> None:
        """Write all of it as JSON, whole or not at all."""
        rows = self.classes.astype(object).where(self.classes.notna(), None)
        content = {"about": self.about, "overall": self.overall, "classes": rows.to_dict("index")}
        write_whole(file, (json.dumps(content, indent=1) + "\n").encode())


def evaluate(name: str, study: Study, size: list[str] | None = None) -> Scores:
    """Score weights on a study's test images, with the study's metrics.

    Parameters
    ----------
    name : see `weights.load_weights`
    size : height and width, or ['own'] for the size that most files have; None for the study's

    Raises
    ------
    InputError : no such weights, or of other classes than the study's; no data; a bad size
    """
    weights = load_weights(name)
    pixels = _pixels(size, study)
    if pixels is None or list(pixels) == list(study.data["size"]):
        return _score(weights, study, study.prepared)
    work_folder().mkdir(exist_ok=True)
    with TemporaryDirectory(dir=work_folder()) as folder:
        prepared = Path(folder) / "prepared"
        source = find_source(study.data | {"size": list(pixels)}, paths.ROOT)
        prepare(study.arrays | {"size": list(pixels)}, source, prepared)
        return _score(weights, study, prepared)


def _pixels(size: list[str] | None, study: Study) -> tuple[int, int] | None:
    """Return the height and width that are asked for."""
    if size is None:
        return None
    if size == ["own"]:
        if study.data["source"] == "synthetic":
            return tuple(study.data["size"])
        return header_size(find_source(study.data, paths.ROOT))
    if len(size) != 2 or not all(
        s.isascii() and s.isdigit() and 0 < int(s) <= MAX_SIDE for s in size
    ):
        raise InputError(
            f"--size {' '.join(size)}: give height and width in pixels, up to {MAX_SIDE}, or own."
        )
    return int(size[0]), int(size[1])


def _score(weights: Weights, study: Study, prepared: Path) -> Scores:
    """Score weights on the test split of prepared data."""
    test = Scenes.load(prepared, "test")
    _check_classes(weights.about, study, test)
    device = default_device()
    counts, boundary, calibration = score_split(
        weights.to(device), test, device, **weights.recipe.testing
    )
    confusion, boundary = metrics.Confusion(counts.sum(0)), metrics.iou_of_sums(boundary.sum(0))
    hits, truth, predicted = metrics.class_sums(confusion.counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        classes = pd.DataFrame(
            {
                "IoU": confusion.iou,
                "boundary IoU": boundary,
                "precision": hits / predicted,
                "recall": hits / truth,
                "pixels": truth,
            },
            index=pd.Index(test.classes, name="class"),
        )
    overall = {
        "mIoU": confusion.miou,
        "boundary mIoU": float(np.nanmean(boundary)),
        "accuracy": confusion.accuracy,
        "expected calibration error": calibration_error(calibration),
    }
    height, width = test.labels.shape[1:]
    about = {
        "weights": weights.about.name,
        "study": study.name,
        "split": "val" if test_is_val(prepared) else "test",
        "images": len(test),
        "size": f"{height} x {width}",
        "data": data_digest(prepared)[:12],
        "device": device_name(device),
        "precision": precision_on(device, weights.recipe.precision),
    }
    return Scores(about, overall, classes)


def _check_classes(about: About, study: Study, test: Scenes) -> None:
    """Raise InputError unless the weights' classes are the study's."""
    if about.classes == list(test.classes):
        return
    names = {"weights": set(about.classes), "study": set(test.classes)}
    only = {
        kind: ", ".join(sorted(mine - names[other])) or "none"
        for (kind, mine), other in zip(names.items(), ("study", "weights"), strict=True)
    }
    raise InputError(
        f"{about.name}: has {len(about.classes)} classes, and {study.name} {len(test.classes)}, in "
        f"another order or with other names: only the weights have {only['weights']}; only the "
        f"study has {only['study']}. Name weights that were trained on these classes."
    )

"""The run store: finished trainings and their scores, under digests of all that decides them.

    work/runs/<training key>/              weights, curve, record, and while it trains checkpoints
    work/runs/<training key>/scores/<key>/ what testing the weights came to

A training is found again by all studies and questions that ask for it. What testing alone decides
(test images, several scales, the code that scores) has a key of its own, so that a change of it
trains nothing. Device and number of threads are in the record and in no key.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from roadseg import code
from roadseg.config.recipe import Recipe
from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.models.segmenter import Segmenter
from roadseg.training.device import precision_on
from roadseg.training.files import (
    folder_size,
    remove_leftovers,
    unwritable,
    work_folder,
    write_whole,
)
from roadseg.training.loop import Diverged, make_network
from roadseg.training.warm_start import start_digest

# Taken when a process starts, as its code is.
TRAINING_CODE, EVALUATION_CODE = code.digest(*code.TRAINING), code.digest(*code.EVALUATION)
VERSIONS = ("torch", "torchvision", "segmentation-models-pytorch", "timm")
RECORDS = ("training.json", "failed.json")  # of a training that is finished
SCORES = ("counts.npz", "reliability.csv", "predictions.npz")


def runs_folder() -> Path:
    """Return the folder of all trainings."""
    return work_folder() / "runs"


def key_of(decided_by: dict) -> str:
    """Return the key, twelve hex digits, of all that decides a training or its scores."""
    return hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:12]


def training_decided_by(
    recipe: Recipe, train: Scenes, val: Scenes, device: torch.device
) -> dict[str, object]:
    """Return all that decides a training, apart from chance.

    Parameters
    ----------
    recipe : its learning rate is the one that is used, and no search's start
    """
    training_recipe = recipe.training.at_lr(recipe.lr).changed({"precision": "auto"})
    height, width = train.labels.shape[1:]
    return {
        "recipe": training_recipe.differences(),
        "train": train.digest,
        "val": val.digest,
        "images": [len(train), len(val)],
        "size": [height, width],
        "classes": len(train.classes),
        "start": start_digest(recipe),
        "precision": precision_on(device, recipe.precision),
        "code": TRAINING_CODE,
        **{name: version(name) for name in VERSIONS},
    }


def scores_decided_by(
    recipe: Recipe, val: Scenes, test: Scenes, device: torch.device
) -> dict[str, object]:
    """Return all that decides the scores of given weights."""
    return {
        "test_scales": list(recipe.test_scales),
        "test_flip": recipe.test_flip,
        "val": val.digest,
        "test": test.digest,
        "images": [len(val), len(test)],
        "size": list(test.labels.shape[1:]),
        "precision": precision_on(device, recipe.precision),
        "code": EVALUATION_CODE,
    }


@dataclass(frozen=True)
class Training:
    """The place in the store of one training, finished or not."""

    decided_by: dict

    @cached_property
    def key(self) -> str:
        """The name of its folder."""
        return key_of(self.decided_by)

    @cached_property
    def key_without_code(self) -> str:
        """The key of all that decides it but the training code: what `adopt` may keep it for."""
        return key_of({**self.decided_by, "code": ""})

    @property
    def on_each_precision(self) -> "list[Training]":
        """It, and what it would be on a device of the other precision."""
        return [Training({**self.decided_by, "precision": p}) for p in ("bf16", "fp32")]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return runs_folder() / self.key

    def about(self) -> dict | None:
        """Return what its record says, or None if it is not finished.

        Raises
        ------
        Diverged : it is finished, and its loss did not stay finite
        """
        if (failed := self._read_record("failed.json")) is not None:
            raise Diverged(failed["why"])
        record = self._read_record("training.json")
        return None if record is None else record["about"]

    def _read_record(self, name: str) -> dict | None:
        """Return a record of this training; None if it is half removed, or another's."""
        record = _read_json(self.folder / name)
        return record if record and record["decided_by"] == self.decided_by else None

    @property
    def is_finished(self) -> bool:
        """Whether it is in the store, whatever its loss did."""
        return any(self._read_record(name) for name in RECORDS)

    @property
    def is_whole(self) -> bool:
        """Whether it is finished, and its weights are what was kept.

        Raises
        ------
        Diverged : as `about` does
        """
        about = self.about()
        try:
            with open(self.folder / "weights.pt", "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return False
        return (
            about is not None
            and about["weights"] == digest
            and (self.folder / "curve.csv").is_file()
        )

    @property
    def has_weights(self) -> bool:
        """Whether it is whole, and its loss stayed finite."""
        try:
            return self.is_whole
        except Diverged:
            return False

    def curve(self) -> pd.DataFrame:
        """Return its curve: step, loss, lr, val_miou."""
        return pd.read_csv(self.folder / "curve.csv")

    def network(self, recipe: Recipe, device: torch.device) -> Segmenter:
        """Return the trained network in eval mode."""
        weights = torch.load(self.folder / "weights.pt", weights_only=True, map_location="cpu")
        network = make_network(recipe, self.decided_by["classes"])
        network.load_state_dict(weights)
        return network.to(device, memory_format=torch.channels_last).eval()

    def keep(self, network: Segmenter, curve: pd.DataFrame, recipe: Recipe, about: dict) -> dict:
        """Write a finished training in place of its checkpoints; return what its record says.

        Whoever calls has the right to train it. Killed at any moment, this leaves checkpoints from
        which it can be written again, or all of it.

        Raises
        ------
        InputError : it cannot be written
        """
        packed = io.BytesIO()  # torch's own writer calls a full disk an internal error
        torch.save(network.state_dict(), packed)
        about = about | {"weights": hashlib.sha256(packed.getbuffer()).hexdigest()}
        shutil.rmtree(self.folder / "scores", ignore_errors=True)  # of weights before these
        files = {"curve.csv": curve.to_csv(index=False).encode(), "weights.pt": packed.getbuffer()}
        self._write(files | {"training.json": self._record(recipe, about=about)})
        return about

    def keep_failure(self, recipe: Recipe, why: str) -> None:
        """Write that its loss did not stay finite: a result, which no second try would change."""
        self._write({"failed.json": self._record(recipe, why=why)})

    def _record(self, recipe: Recipe, **content) -> bytes:
        record = {"decided_by": self.decided_by, "recipe": dataclasses.asdict(recipe)}
        return _json_text(record | content).encode()

    def _write(self, files: dict[str, bytes]) -> None:
        """Write files, the last of which makes it finished, and remove its checkpoints."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_whole(self.folder / name, content)
        except OSError as problem:
            raise unwritable(self.folder, problem) from None
        self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove what only an unfinished training needs."""
        for file in [*self.folder.glob("step-*.pt"), *self.folder.glob("*.partial")]:
            file.unlink(missing_ok=True)

    def scores(self, decided_by: dict) -> Path:
        """Return the folder of its scores under given settings of testing."""
        return self.folder / "scores" / key_of(decided_by)

    def has_scores(self, decided_by: dict) -> bool:
        """Return whether its scores under given settings of testing are there, all of them."""
        return all((self.scores(decided_by) / name).is_file() for name in SCORES)


def training_of(recipe: Recipe, splits: dict[str, Scenes], device: torch.device) -> Training:
    """Return the place of a recipe's training."""
    return Training(training_decided_by(recipe, splits["train"], splits["val"], device))


def all_trainings() -> Iterator[Training]:
    """Yield every finished training of the store."""
    for name in RECORDS:
        for file in sorted(runs_folder().glob(f"*/{name}")):
            record = _read_json(file)
            if record is not None and key_of(record["decided_by"]) == file.parent.name:
                yield Training(record["decided_by"])


def trainings_by_code() -> dict[str, dict[str, Training]]:
    """Return the finished trainings: digest of their code -> `key_without_code` -> training.

    The code that trained last comes first.
    """
    by_code = defaultdict(dict)
    for training in sorted(all_trainings(), key=lambda t: -t.folder.stat().st_mtime):
        by_code[training.decided_by["code"]][training.key_without_code] = training
    return dict(by_code)


def rewrite_key(folder: Path, decided_by: dict, adopted_from: str) -> None:
    """Let the record in a folder be of another key: what it holds came to the same."""
    file = folder / "training.json"
    record = json.loads(file.read_text())
    file.unlink()  # a link to the old one, maybe
    record["about"] |= {
        "training": key_of(decided_by),
        "code": decided_by["code"],
        "adopted_from": adopted_from,
    }
    file.write_text(_json_text(record | {"decided_by": decided_by}))


def export(training: Training, scores: Path, recipe: Recipe, about: dict, folder: Path) -> None:
    """Copy a run out of the store, as one record.

    Parameters
    ----------
    folder : receives record.json, curve.csv, weights.pt, counts.npz, reliability.csv and
        predictions.npz (test, uint8 (N, H, W)); it must be there
    """
    for file in (*(training.folder / name for name in ("curve.csv", "weights.pt")),
                 *(scores / name for name in SCORES)):  # fmt: skip
        shutil.copyfile(file, folder / file.name)
    record = {"recipe": dataclasses.asdict(recipe), "about": about}
    (folder / "record.json").write_text(_json_text(record))


def export_failure(recipe: Recipe, why: str, folder: Path) -> None:
    """Write that a run's loss did not stay finite into its folder, which must be there."""
    failed = {"recipe": dataclasses.asdict(recipe), "why": why}
    (folder / "failed.json").write_text(_json_text(failed))


@dataclass(frozen=True)
class Record:
    """What one run left behind, as it was copied out of the store.

    Attributes
    ----------
    recipe : the settings
    about : digest, data digest, device, versions, precision, seconds, memory
    curve : one row per epoch: step, loss (mean, nats per pixel), lr, val_miou (where it was taken)
    counts : 'val' and 'test', int64 (N, K, K) per image
    boundary : of test, int64 (N, 3, K) per image, see `score.boundary_sums`
    reliability : of test, float64 (3, BINS), see `score.reliability`
    """

    recipe: Recipe
    about: dict
    curve: pd.DataFrame
    counts: dict[str, np.ndarray]
    boundary: np.ndarray
    reliability: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a record; the InputError of a missing one says how to make it."""
        if not (folder / "record.json").is_file():
            raise InputError(f"{folder}: holds no finished run. Run 'make report' first.")
        record = json.loads((folder / "record.json").read_text())
        with np.load(folder / "counts.npz") as counts:
            counts = {split: counts[split].astype(np.int64) for split in counts.files}
        boundary = counts.pop("boundary")
        curve = pd.read_csv(folder / "curve.csv")
        reliability = np.loadtxt(folder / "reliability.csv", delimiter=",", skiprows=1).T
        recipe = Recipe.of(record["recipe"])
        return cls(recipe, record["about"], curve, counts, boundary, reliability)


def failure(folder: Path) -> str:
    """Return why a run, given by its folder, was trained and has no record; '' otherwise."""
    file = folder / "failed.json"
    return json.loads(file.read_text())["why"] if file.is_file() else ""


def prune(
    keep: Callable[[Training], bool],
    keep_unfinished: Callable[[str], bool],
    scores: dict[str, set[str]],
) -> tuple[int, int]:
    """Remove trainings that nobody wants; return how many, and how many bytes were freed.

    Parameters
    ----------
    keep : whether to keep a finished training
    keep_unfinished : whether to keep the checkpoints under a key; those in use stay
    scores : key of a training -> keys of its scores that are wanted, the others are removed; of
        other trainings all stay
    """
    finished = {training.key: training for training in all_trainings()}
    unwanted = []
    for folder in runs_folder().glob("*/"):
        training = finished.get(folder.name)
        wanted = keep(training) if training else keep_unfinished(folder.name)
        if not wanted and "." not in folder.name:
            unwanted.append(folder)
    old_scores = [
        folder
        for key, wanted in scores.items()
        for folder in (runs_folder() / key / "scores").glob("*/")
        if folder.name not in wanted
    ]
    size = remove_leftovers(runs_folder(), "*.partial")
    for folder in [*unwanted, *old_scores]:
        key = folder.relative_to(runs_folder()).parts[0]
        with contextlib.suppress(Timeout), FileLock(runs_folder() / f"{key}.lock", timeout=0):
            size += folder_size(folder)
            shutil.rmtree(folder, ignore_errors=True)
    for training in finished.values():  # one that was killed when it had ended
        with contextlib.suppress(Timeout), FileLock(f"{training.folder}.lock", timeout=0):
            training.remove_checkpoints()
    return sum(not folder.is_dir() for folder in unwanted), size


def _read_json(file: Path) -> dict | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):  # not there, or half removed
        return None


def _json_text(content: dict) -> str:
    return json.dumps(content, indent=1) + "\n"

"""Pictures, folders and videos in; label images, overlays and a table out."""

import csv
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from glob import glob
from io import BytesIO, StringIO
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from roadseg.data.findings import printable
from roadseg.data.layout import IMAGE_ENDINGS, find_files
from roadseg.errors import InputError
from roadseg.predict import video
from roadseg.predict.predictor import Prediction, Predictor, as_picture
from roadseg.predict.weights import About
from roadseg.training.files import write_whole

TABLE = "predictions.csv"
OWN_COLUMNS = ("file", "state", "settings", "pictures", "seconds", "confidence")


@dataclass(frozen=True)
class Input:
    """A file to predict.

    Attributes
    ----------
    file : where it is
    name : its path below the folder that was given, without ending: that of what comes out
    """

    file: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it holds pictures that follow one another."""
        return self.file.suffix.lower() in video.ENDINGS

    @property
    def state(self) -> str:
        """What changes when the file does."""
        about = self.file.stat()
        return f"{about.st_size}-{about.st_mtime_ns}"


@dataclass(frozen=True)
class Output:
    """What is written of each input, and where.

    Attributes
    ----------
    folder : of `labels/`, `overlays/` and the table
    opacity : of the classes' colours over the picture, in 0..1; 0 writes no overlays
    original : whether label images have the data set's own values in place of 0, 1, 2, ...
    """

    folder: Path
    opacity: float = 0.5
    original: bool = False

    def files(self, each: Input) -> list[Path]:
        """Return the files that are written of an input: labels, and the overlay if asked for."""
        endings = {"labels": (".png", ".mkv"), "overlays": (".jpg", ".mp4")}
        return [
            self.folder / kind / f"{each.name}{endings[kind][each.is_video]}"
            for kind in ("labels", *["overlays"] * (self.opacity > 0))
        ]


def predict_files(
    predictor: Predictor, names: list[str], output: Output, say: Callable[[str], None] = print
) -> bool:
    """Predict files, and write what comes of them; what is there already from before is kept.

    Pictures are predicted several at a time, one on each core. A file that cannot be read is named,
    and the others go on.

    Parameters
    ----------
    names : files, folders, which are searched, or patterns with *

    Returns
    -------
    Whether all of them were predicted

    Raises
    ------
    InputError : no such files; an output that would take the place of an input; a folder with what
        other weights or settings came to
    """
    inputs = find_inputs(names)
    _check_output(predictor.about, inputs, output)
    table = Table(predictor, output)
    left = sorted((each for each in inputs if not table.has(each)), key=lambda e: e.is_video)
    if len(left) < len(inputs):
        say(f"{len(inputs) - len(left)} of {len(inputs)} are in {table.file} already.")
    is_gpu, problems = predictor.device.type == "cuda", []
    cores = 1 if is_gpu else os.cpu_count() or 1
    # One core for each picture: within one, the many small steps share cores badly.
    threads = {} if cores == 1 else {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(cores, **threads) as pool:
        run = partial(_in_order, pool, 2 * cores)
        pictures = [each for each in left if not each.is_video]
        rows = run(partial(_try, partial(_predict_picture, predictor, output)), pictures)
        for each, row in zip(pictures, _progress(rows, len(pictures), "pictures"), strict=True):
            table.add(each, row) if isinstance(row, dict) else problems.append(row)
        for each in left[len(pictures) :]:
            row = _try(partial(_predict_video, predictor, output, run), each)
            table.add(each, row) if isinstance(row, dict) else problems.append(row)
    table.finish(inputs)
    for problem in problems:
        say(printable(str(problem)))
    say(f"{len(inputs) - len(problems)} of {len(inputs)} predicted: {output.folder}")
    return not problems


def _try(function: Callable, each: Input) -> dict | InputError:
    try:
        return function(each)
    except InputError as problem:
        return problem


def _in_order(
    pool: ThreadPoolExecutor, window: int, function: Callable, items: Iterable
) -> Iterator:
    """Yield a function's results in order; no more than `window` items are taken ahead."""
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for job in pending:
            job.cancel()


def _progress(items: Iterable, total: int | None, unit: str) -> tqdm:
    return tqdm(items, total=total, unit=f" {unit}", disable=None if total != 0 else True)


# What goes in ------------------------------------------------------------------------------------


def find_inputs(names: list[str]) -> list[Input]:
    """Return the pictures and videos that files, folders and patterns name, each once.

    Raises
    ------
    InputError : there are none, or two that would be written to one file
    """
    inputs: dict[Path, Input] = {}
    for name in names:
        matches = [name] if os.path.exists(name) else sorted(glob(name, recursive=True))
        if not matches:
            raise InputError(f"{name}: no such file or folder.")
        for path in map(Path, matches):
            folder, inside = path.parent, [path.name]
            if path.is_dir():
                known = (*IMAGE_ENDINGS, *video.ENDINGS)
                folder = path
                inside = [n for n in find_files(path) if Path(n).suffix.lower() in known]
                if not inside and path == Path(name):
                    raise InputError(
                        f"{name}: holds no pictures or videos. Known endings: {', '.join(known)}."
                    )
            for inner in inside:
                each = Input(folder / inner, str(Path(inner).with_suffix("")))
                inputs.setdefault(each.file.resolve(), each)
    first: dict[tuple[str, bool], Input] = {}
    for each in inputs.values():
        twin = first.setdefault((each.name.casefold(), each.is_video), each)
        if twin is not each:
            raise InputError(
                f"{twin.file} and {each.file}: would be written to one file, {each.name}. Predict "
                "them into two folders."
            )
    return list(inputs.values())


def _check_output(about: About, inputs: list[Input], output: Output) -> None:
    """Raise InputError where an output would be an input, or cannot hold the values asked for."""
    taken = {each.file.resolve() for each in inputs}
    for file in (file for each in inputs for file in output.files(each)):
        if file.resolve() in taken:
            raise InputError(
                f"{file}: is an input, and would be overwritten; choose another --out."
            )
    if not output.original:
        return
    if about.values is None:
        raise InputError(
            f"--values original: the label files that {about.name} was trained on have no number "
            "or colour for each class; leave it out."
        )
    if any(each.is_video for each in inputs) and np.max(about.values, initial=256) > 255:
        raise InputError("--values original: a label video cannot hold them; leave it out.")


# What comes out ----------------------------------------------------------------------------------


class Table:
    """What was predicted, a row for each file: written line by line, and in order at the end.

    Raises
    ------
    InputError : it holds what other weights or settings came to
    """

    def __init__(self, predictor: Predictor, output: Output):
        self.file, self.output = output.folder / TABLE, output
        self.columns = [*OWN_COLUMNS, *(f"{name} %" for name in predictor.about.classes)]
        decides = [predictor.weights.digest, predictor.height, output.opacity, output.original]
        self.settings = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
        self.rows = {}
        if self.file.is_file():
            with open(self.file, newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
            self.rows = {row["file"]: row for row in rows}  # without half of a last line
        if any(row["settings"] != self.settings for row in self.rows.values()):
            raise InputError(
                f"{self.file}: was written with other weights or settings; choose another --out, "
                "or remove the folder."
            )
        output.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.rows.values())

    def has(self, each: Input) -> bool:
        """Return whether a file was predicted, is what it was, and all that came of it is there."""
        row = self.rows.get(str(each.file), {})
        written = all(file.is_file() for file in self.output.files(each))
        return written and row.get("state") == each.state

    def add(self, each: Input, row: dict) -> None:
        """Add a file's row, whole."""
        row = {"file": str(each.file), "state": each.state, "settings": self.settings} | row
        self.rows[row["file"]] = row
        with open(self.file, "a", newline="") as file:
            file.write(self._lines([row]))

    def finish(self, inputs: list[Input]) -> None:
        """Write the rows in the order of the inputs, and after them those of other calls."""
        names = dict.fromkeys([*(str(each.file) for each in inputs), *self.rows])
        self._write(self.rows[name] for name in names if name in self.rows)

    def _write(self, rows: Iterable[dict]) -> None:
        head = dict(zip(self.columns, self.columns, strict=True))
        write_whole(self.file, self._lines([head, *rows]).encode())

    def _lines(self, rows: Iterable[dict]) -> str:
        text = StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


class Tally:
    """Sums up what is predicted of a file."""

    def __init__(self, classes: list[str]):
        self.classes, self.started = classes, perf_counter()
        self.pixels, self.confidence = np.zeros(len(classes), np.int64), []

    def add(self, prediction: Prediction) -> None:
        """Add a picture."""
        self.pixels += np.bincount(prediction.labels.ravel(), minlength=len(self.classes))
        self.confidence.append(prediction.confidence)

    def row(self) -> dict:
        """Return pictures, seconds for each, mean confidence, and percentages of the classes."""
        number, shares = len(self.confidence), 100 * self.pixels / self.pixels.sum()
        return {
            "pictures": number,
            "seconds": f"{(perf_counter() - self.started) / number:.3f}",
            "confidence": f"{np.mean(self.confidence):.4f}",
            **{f"{name} %": f"{x:.3f}" for name, x in zip(self.classes, shares, strict=True)},
        }


def _predict_picture(predictor: Predictor, output: Output, each: Input) -> dict:
    """Predict a picture and write what comes of it; return its row of the table."""
    tally, about = Tally(predictor.about.classes), predictor.about
    picture = as_picture(each.file)
    prediction = predictor.predict(picture)
    tally.add(prediction)
    made = [(label_image(prediction.labels, about, output.original), "PNG", {})]
    if output.opacity:
        painted = paint(np.asarray(picture), prediction.labels, about, output.opacity)
        made.append((Image.fromarray(painted), "JPEG", {"quality": 92}))
    for file, (image, kind, options) in zip(output.files(each), made, strict=True):
        content = BytesIO()
        image.save(content, kind, **options)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content.getvalue())
    return tally.row()


def _predict_video(predictor: Predictor, output: Output, run: Callable, each: Input) -> dict:
    """Predict a video and write what comes of it; return its row of the table."""
    tally, about = Tally(predictor.about.classes), predictor.about
    values = np.array(about.values if output.original else range(len(about.classes)), np.uint8)

    def predict(frame: np.ndarray) -> tuple[np.ndarray, Prediction]:
        return frame, predictor.predict(frame)

    def predict_all(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        predicted = run(predict, frames)
        for frame, prediction in _progress(predicted, video.frame_count(each.file), "frames"):
            tally.add(prediction)
            painted = [paint(frame, prediction.labels, about, output.opacity)] * bool(
                output.opacity
            )
            yield values[prediction.labels], *painted

    video.write_video(each.file, output.files(each), predict_all)
    return tally.row()


def label_image(labels: np.ndarray, about: About, original: bool = False) -> Image.Image:
    """Return labels uint8 (H, W) as an image with the classes' colours.

    Parameters
    ----------
    original : write the data set's own values: up to 255 they have a palette too, larger ones have
        16 bits, and colours are RGB
    """
    values = np.array(about.values if original else range(len(about.classes)))
    if values.ndim == 2 or values.max() < 256:
        values = values.astype(np.uint8)
    picture = Image.fromarray(
        values.astype(values.dtype if values.itemsize == 1 else "<u2")[labels]
    )
    if picture.mode == "L":
        palette = np.zeros((256, 3), np.uint8)
        palette[values] = about.colours
        picture.putpalette(palette.tobytes())
    return picture


def paint(picture: np.ndarray, labels: np.ndarray, about: About, opacity: float) -> np.ndarray:
    """Return a picture uint8 (H, W, 3) under the colours of its classes."""
    colours = np.array(about.colours, np.float32)[labels]
    return ((1 - opacity) * picture + opacity * colours).round().astype(np.uint8)

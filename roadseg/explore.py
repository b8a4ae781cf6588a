"""Widgets to look around in what a study left; `notebooks/explore.ipynb` shows them."""

import html
import io
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from roadseg.config import paths
from roadseg.config.study import Study
from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.errors import InputError
from roadseg.predict.files import paint as blend
from roadseg.predict.predictor import Predictor, as_picture
from roadseg.report.pictures import legend, paint
from roadseg.report.style import PALETTE
from roadseg.training import metrics

ALL = "all classes"
MAX_SIDE = 1024  # pixels of a side of an image that is predicted, to be shown


def finished_runs(study: Study) -> dict[str, Path]:
    """Return the folder of each run of the study that has come to its end.

    Raises
    ------
    InputError : none has
    """
    folders = {
        f"{arm}-s{seed}": study.run_folder(arm, seed)
        for arm in study.arms
        for seed in study.seeds_of(arm)
    }
    folders = {run: f for run, f in folders.items() if (f / "predictions.npz").is_file()}
    if not folders:
        raise InputError(f"{study.name}: no finished run. Run 'make report' first.")
    return folders


def overlay(
    image: np.ndarray, labels: np.ndarray, scenes: Scenes, opacity: float, only: str = ALL
) -> np.ndarray:
    """Paint labels over an image.

    Parameters
    ----------
    image : uint8 (3, H, W)
    labels : uint8 (H, W), 255 where nothing is painted
    scenes : whose classes and colours these are
    opacity : of the colours, 0..1
    only : name of the one class to paint

    Returns
    -------
    RGB uint8 (H, W, 3)
    """
    shown = labels != UNLABELLED
    if only != ALL:
        shown = labels == scenes.classes.index(only)
    plain = image.transpose(1, 2, 0).astype(np.float64)
    mixed = (1 - opacity) * plain + opacity * paint(labels, scenes)
    return np.where(shown[..., None], mixed, plain).round().astype(np.uint8)


def difference_map(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colour where two predictions (H, W) differ: blue where the first alone is right, orange where
    the second is, grey where both are wrong, white where both are right. RGB uint8 (H, W, 3).
    """
    colours = [tuple(bytes.fromhex(name[1:])) for name in PALETTE[:2]]
    table = np.array([(150, 150, 150), colours[0], colours[1], (255, 255, 255)], np.uint8)
    kind = (first == truth) + 2 * (second == truth).astype(int)
    return np.where((truth == UNLABELLED)[..., None], 0, table[kind]).astype(np.uint8)


def compare_runs(study: Study) -> widgets.Box:
    """Return widgets that show a test image, its truth and what two runs make of it."""
    runs, scenes = finished_runs(study), Scenes.load(study.prepared, "test")
    names, last = list(runs), len(scenes) - 1
    first = widgets.Dropdown(options=names, value=names[0], description="run")
    fcn = study.fcn and f"{list(study.fcn.arms)[-1]}-s{study.seeds[0]}"
    other = fcn if fcn in runs else names[-1]
    second = widgets.Dropdown(options=names, value=other, description="compare with")
    index = widgets.IntSlider(min=0, max=last, value=last // 2, description="image")
    only = widgets.Dropdown(options=[ALL, *scenes.classes], description="class")
    opacity = widgets.FloatSlider(min=0, max=1, step=0.05, value=0.6, description="opacity")
    titles = ["image", "truth", "run", "beside", "where they differ"]
    pictures = {title: _picture() for title in titles}
    summary = widgets.HTML()

    def show(_=None) -> None:
        n, image, truth = index.value, scenes.images[index.value], scenes.labels[index.value]
        predicted = [_predictions(runs[run.value])[n] for run in (first, second)]
        shown = [
            image.transpose(1, 2, 0),
            *(overlay(image, e, scenes, opacity.value, only.value) for e in (truth, *predicted)),
            difference_map(*predicted, truth),
        ]
        for title, picture in zip(titles, shown, strict=True):
            pictures[title].value = _png(picture)
        lines = [f"<b>{html.escape(scenes.names[n])}</b>"]
        for run, labels in zip((first, second), predicted, strict=True):
            lines.append(_score_line(run.value, labels, truth, scenes, only.value))
        lines.append(f"blue: {html.escape(first.value)} alone is right; orange: "
                     f"{html.escape(second.value)} alone; white: both; grey: neither")  # fmt: skip
        summary.value = "<br>".join(lines)

    for control in (first, second, index, only, opacity):
        control.observe(show, "value")
    show()
    controls = widgets.HBox([widgets.VBox([first, second]), widgets.VBox([index, only, opacity])])
    columns = [widgets.VBox([widgets.Label(title), pictures[title]]) for title in titles]
    layout = widgets.Layout(flex_flow="row wrap")
    key = widgets.HTML(legend(scenes).data)
    return widgets.VBox([controls, summary, widgets.Box(columns, layout=layout), key])


def predict(study: Study) -> widgets.Box:
    """Return widgets that let a run predict an image of one's own."""
    runs, scenes = finished_runs(study), Scenes.load(study.prepared, "test")
    run = widgets.Dropdown(options=list(runs), description="run")
    upload = widgets.FileUpload(accept="image/*", description="choose an image")
    path = widgets.Text(placeholder="or its path, such as data/mine.jpg", description="file",
                        continuous_update=False)  # fmt: skip
    opacity = widgets.FloatSlider(min=0, max=1, step=0.05, value=0.6, description="opacity")
    pictures, summary = widgets.HBox([_picture(), _picture()]), widgets.HTML()
    pictures.layout.display = "none"
    given = {}

    def show(_=None) -> None:
        if not given:
            return
        try:
            image = as_picture(io.BytesIO(given["content"]))
        except InputError as problem:
            summary.value = html.escape(f"{given['name']}: {problem}")
            return
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        arm, _, seed = run.value.rpartition("-s")
        predictor = _predictor(f"{study.name}/{arm}/{seed}")
        labels, about = predictor(image), predictor.about
        painted = blend(np.asarray(image), labels, about, opacity.value)
        for picture, shown in zip(pictures.children, (image, painted), strict=True):
            picture.value = _png(np.asarray(shown))
        pictures.layout.display = ""
        shares = np.bincount(labels.ravel(), minlength=len(scenes.classes)) / labels.size
        most = [f"{html.escape(scenes.classes[k])} {100 * shares[k]:.0f} %" for k in
                np.argsort(-shares)[:5] if shares[k]]  # fmt: skip
        summary.value = f"{html.escape(given['name'])}: " + ", ".join(most)

    def take(change) -> None:
        for file in change["new"]:
            given.update(name=file["name"], content=bytes(file["content"]))
        show()

    def read(change) -> None:
        try:
            file = paths.ROOT / Path(change["new"]).expanduser()
            given.update(name=change["new"], content=file.read_bytes())
        except OSError as problem:
            summary.value = html.escape(
                f"{change['new']}: {problem.strerror}; give the path of a file."
            )
            return
        show()

    upload.observe(take, "value")
    path.observe(read, "value")
    run.observe(show, "value")
    opacity.observe(show, "value")
    top = widgets.HBox([run, upload, path, opacity], layout=widgets.Layout(flex_flow="row wrap"))
    key = widgets.HTML(legend(scenes).data)
    return widgets.VBox([top, summary, pictures, key])


@lru_cache(4)
def _predictor(name: str) -> Predictor:
    return Predictor.load(name)


def _predictions(folder: Path) -> np.ndarray:
    file = folder / "predictions.npz"
    return _read(file, file.stat().st_mtime_ns)


@lru_cache(8)
def _read(file: Path, _changed: int) -> np.ndarray:
    with np.load(file) as stored:
        return stored["test"]


def _score_line(run: str, labels: np.ndarray, truth: np.ndarray, scenes: Scenes, only: str) -> str:
    """Return a run's scores on one image in words."""
    both = (torch.from_numpy(np.array(each, np.int64))[None] for each in (labels, truth))
    counts = metrics.count(*both, len(scenes.classes))[0].numpy()
    score = f"mIoU {100 * metrics.miou(counts):.1f} %"
    if only != ALL:
        iou = metrics.iou(counts)[scenes.classes.index(only)]
        here = "does not occur here" if np.isnan(iou) else f"{100 * iou:.1f} %"
        score += f", {html.escape(only)}: {here}"
    return f"{html.escape(run)}: {score}"


def _picture() -> widgets.Image:
    return widgets.Image(format="png", layout=widgets.Layout(width="380px", margin="2px"))


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")
    return file.getvalue()

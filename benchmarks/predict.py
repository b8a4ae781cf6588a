"""How fast pictures are predicted, files in and files out, and what 8 bits cost.

Contenders are called in turn. `python benchmarks/predict.py WEIGHTS STUDY [FOLDER]`: what to
predict with, what to score on, and pictures in place of the study's test images.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import page
import torch
from PIL import Image
from turns import spread, timed

from roadseg.config.study import load
from roadseg.data.scenes import Scenes
from roadseg.predict.evaluate import evaluate
from roadseg.predict.export import export
from roadseg.predict.files import Output, predict_files
from roadseg.predict.predictor import Predictor
from roadseg.predict.weights import load_weights

PICTURES, ROUNDS = 48, 5


def plain_loop(weights, files: list[Path], out: Path) -> None:
    """Predict as one writes it down first: one picture after the other, in fp32."""
    out.mkdir(exist_ok=True)
    with torch.inference_mode():
        for file in files:
            image = np.asarray(Image.open(file).convert("RGB"))
            x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
            labels = weights(x).argmax(1)[0].to(torch.uint8).numpy()
            Image.fromarray(labels).save(out / f"{file.stem}.png")


def main() -> None:
    """Write the page's section."""
    name, study = sys.argv[1], load(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = sorted(Path(sys.argv[3]).glob("*.png"))[:PICTURES] if sys.argv[3:] else []
        if not files:
            for n, image in enumerate(Scenes.load(study.prepared, "test").images[:PICTURES]):
                files.append(root / f"{n:03d}.png")
                Image.fromarray(image.transpose(1, 2, 0)).save(files[-1])
        with Image.open(files[0]) as picture:
            size = f"{picture.height} x {picture.width}"
        with contextlib.redirect_stdout(io.StringIO()):
            export(name, root / "whole.onnx")
            export(name, root / "int8.onnx", int8=True)
        sources = {
            "`predict`": name,
            "`predict`, ONNX": root / "whole.onnx",
            "`predict`, ONNX in 8 bits": root / "int8.onnx",
        }
        predictors = {
            label: Predictor.load(str(file), threads=1) for label, file in sources.items()
        }
        weights, calls = load_weights(name), 0

        def ours(predictor: Predictor) -> None:
            nonlocal calls
            calls += 1
            out = Output(root / f"out{calls}", opacity=0)
            predict_files(predictor, list(map(str, files)), out, say=lambda _: None)

        contenders = {"a plain loop, fp32": lambda: plain_loop(weights, files, root / "plain")}
        contenders |= {label: (lambda p=p: ours(p)) for label, p in predictors.items()}
        seconds = timed(contenders, ROUNDS)
        reference = seconds["a plain loop, fp32"]
        rows = []
        for label, taken in seconds.items():
            scores = evaluate(str(sources.get(label, name)), study)
            split = scores.about["split"]
            rows.append(
                {
                    "": label,
                    "pictures/s": spread(len(files) / taken, 1),
                    "times the plain loop": spread(reference / taken),
                    "mIoU, %": f"{100 * scores.overall['mIoU']:.2f}",
                }
            )
    text = (
        f"{page.conditions()} `{weights.recipe.network}`, {len(files)} pictures of {size}, "
        f"decoding and writing included, no overlays; {ROUNDS} rounds in turn, medians and "
        f"quartiles. mIoU on {split} images of `{study.name}`."
    )
    page.section("predict", f"{text}\n\n{page.table(rows)}")


if __name__ == "__main__":
    main()

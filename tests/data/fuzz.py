"""Feeds the readers what nobody would write; each call reads it, or refuses it with one message.

`test_hostile.py` does so briefly. For long, by hand, with coverage as the guide:

    python -m pip install atheris
    PYTHONPATH=. python tests/data/fuzz.py --seconds 200           # all, into docs/reliability.md
    PYTHONPATH=. python tests/data/fuzz.py labels --seconds 200    # or another of TARGETS

It tells the number of inputs tried; one that crashed is left as `crash-...` in this folder.
"""

import argparse
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # first, since only what is imported here is watched
    import atheris

    with atheris.instrument_imports(include=["PIL", "ruamel", "roadseg"]):
        import PIL.Image  # noqa: F401
        import ruamel.yaml  # noqa: F401

        import roadseg.data.check
        import roadseg.data.datasets  # noqa: F401

import numpy as np
from PIL import Image

from roadseg.config import study
from roadseg.config.paths import ROOT
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder
from roadseg.data.images import check_item
from roadseg.data.layout import Item, Source, make_coding
from roadseg.data.polygons import draw_coco, read_coco, read_labelme
from roadseg.errors import InputError

CLASSES = {"road": (1, 2, 3), "sky": (4, 5, 6)}
CODINGS = [
    make_coding("ids", [[0], [1]], [255], colours={colour: name for name, colour in CLASSES.items()}),
    make_coding("colours", [[colour] for colour in CLASSES.values()], "rest"),
]
GOOD = """\
images: images
labels: labels
values: ids
classes: {road: [0, 7], sky: 1}
unlabelled: [255]
colours: {road: [128, 64, 128], sky: '#4682b4'}
sequence: "(.+)_"
splits: {train: [a], val: 0.5, test: c}
"""
SETTINGS = """\
study: small
title: Small
root: .
folder: .
data: {source: synthetic, path: roadseg, size: [64, 96], seed: 0, block: 1, counts: {train: 6, val: 2, test: 4}}
seeds: [0, 1]
base: {steps: 40, batch_size: 2, lr: 0.001, test_scales: [1.0, 1.25], schedule: fixed}
questions:
  fcn: {asks: "Which?", networks: [baseline, fcn-8s]}
  ladder: {asks: "What?", start: fcn-8s, ladder: [mirror, dice]}
  needed: {asks: "What?", start: fcn-8s, leave_one_out: [mirror, dice]}
  noise: {asks: "How much?", start: fcn-8s, noise: [0, 1, 2]}
"""
TRICKS = """\
mirror: {set: {flip: 0.5}, idea: mirrors, source: "2015"}
dice: {set: {dice_weight: 1.0}}
"""
REMARKS = "- Nothing was tuned,\n  nor will it be.\n- Two.\n"


def label_images() -> list[bytes]:
    """Valid files of all formats and modes that are read, small."""
    ids = np.arange(63, dtype=np.uint8).reshape(9, 7) % 2
    palette = Image.fromarray(ids)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    see_through = palette.copy()
    see_through.info["transparency"] = bytes([255, 0])
    images = [Image.fromarray(ids), Image.fromarray(ids > 0), palette, see_through]
    images += [Image.fromarray(ids.astype(np.uint16)), palette.convert("RGB")]
    images += [palette.convert(mode) for mode in ("RGBA", "LA")]
    files = []
    for image in images:
        for form in ("PNG", "TIFF", "BMP", "WEBP", "PPM", "JPEG"):
            out = io.BytesIO()
            try:
                image.save(out, form)
            except OSError:  # not a mode of this format
                continue
            files.append(out.getvalue())
    for form, more in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        out = io.BytesIO()
        images[0].save(out, form, save_all=True, append_images=images[:1] * 2, **more)
        files.append(out.getvalue())
    for settings in ({"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}):
        out = io.BytesIO()
        images[0].save(out, "TIFF", **settings)
        files.append(out.getvalue())
    return files


def sealed(data: bytes) -> bytes:
    """Return a PNG with right checksums, so that faults are found behind them."""
    data, place = bytearray(data), 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + struct.unpack_from(">I", data, place)[0]
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)


# Each takes bytes and an empty folder, and returns what came of them; any exception is a fault.


def labels(data: bytes, folder: Path) -> str:
    """A file of any content as label image, and as image."""
    (folder / "x.png").write_bytes(sealed(data))
    item = Item("x", "x", folder / "x.png", folder / "x.png")
    refused = False
    for coding in CODINGS:
        checked = check_item(Source(folder, CLASSES, {}, coding), item, (8, 8))
        assert (checked.labels is None) == bool(checked.findings)
        if checked.labels is not None:
            assert checked.labels.shape == (8, 8) and checked.image.shape == (3, 8, 8)
            assert np.isin(checked.labels, [0, 1, 255]).all()
        refused = checked.labels is None
    return "refused" if refused else "read"


def description(data: bytes, folder: Path) -> str:
    """A dataset.yaml of any content, beside three pairs."""
    for kind in ("images", "labels"):
        (folder / kind / "c").mkdir(parents=True)
        for name in ("a_1", "b_1", "c/d_1"):
            (folder / kind / f"{name}.png").touch()
    (folder / DESCRIPTION).write_bytes(data)
    try:
        open_folder(folder)
    except InputError:
        return "refused"
    return "read"


def outlines(data: bytes, folder: Path) -> str:
    """A file of any content as labelme's JSON, and as COCO's."""
    file, faults = folder / "x.json", []
    file.write_bytes(data)
    coding = make_coding("labelme", [["road"], ["sky"]], "rest", rest=0)
    labels, _ = read_labelme(file, coding, (9, 7), lambda *fault, **_: faults.append(fault))
    assert (labels is None) == bool(faults)
    annotations, findings = read_coco(file, "x.json", coding)
    for annotation in annotations.values():
        drawn, _ = draw_coco(annotation, coding)
        assert drawn.shape == annotation.size
    return "refused" if faults and findings else "read"


def settings(data: bytes, folder: Path) -> str:
    """A params.yaml of any content, with the project's catalogue."""
    return load(folder, {"params.yaml": data})


def catalogue(data: bytes, folder: Path) -> str:
    """A tricks.yaml of any content, on top of the project's own."""
    return load(folder, {"params.yaml": SETTINGS.encode(), "tricks.yaml": data})


def remarks(data: bytes, folder: Path) -> str:
    """A remarks.md of any content."""
    return load(folder, {"params.yaml": SETTINGS.encode(), "remarks.md": data})


def load(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in {"tricks.yaml": TRICKS.encode(), **files}.items():
        (folder / name).write_bytes(content)
    try:
        study.load(folder / "params.yaml")
    except InputError:
        return "refused"
    return "read"


OUTLINES = [
    {"imageHeight": 9, "imageWidth": 7, "shapes": [
        {"label": "road", "points": [[1, 1], [5.5, 1], [3, 6]]},
        {"label": "sky", "shape_type": "circle", "points": [[3, 3], [5, 3]]},
        {"label": "dog", "shape_type": "rectangle", "points": [[0, 0], [2, 2]]},
    ]},
    {"images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 7}],
     "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "sky"}],
     "annotations": [
         {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5.5, 1, 3, 6]]},
         {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [9, 7], "counts": [9, 9, 45]}},
         {"id": 3, "image_id": 1, "category_id": 2, "segmentation": {"size": [9, 7], "counts": "99]1"}},
     ]},
]  # fmt: skip
TARGETS = {
    "labels": (labels, label_images),
    "outlines": (outlines, lambda: [json.dumps(content).encode() for content in OUTLINES]),
    "description": (description, lambda: [GOOD.encode()]),
    "settings": (settings, lambda: [SETTINGS.encode()]),
    "catalogue": (catalogue, lambda: [TRICKS.encode()]),
    "remarks": (remarks, lambda: [REMARKS.encode()]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, "all"], nargs="?", default="all")
    parser.add_argument("--seconds", type=int, default=200)
    options = parser.parse_args()
    if options.target == "all":
        return write(options.seconds)
    target, seeds = TARGETS[options.target]
    Image.MAX_IMAGE_PIXELS = 10**6  # large ones only take longer
    counts: Counter = Counter()
    place = Path(tempfile.mkdtemp())
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        folder = place / "one"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        sys.stdout = io.StringIO()
        try:
            counts[target(data, folder)] += 1
        finally:
            sys.stdout = sys.__stdout__
        if time.monotonic() > end:
            print(f"{counts.total()} inputs: {json.dumps(counts)}", flush=True)
            shutil.rmtree(place)
            os._exit(0)

    end = time.monotonic() + options.seconds
    atheris.Setup([sys.argv[0], str(corpus), "-timeout=20", "-rss_limit_mb=4000"], one)
    atheris.Fuzz()


def write(seconds: int) -> None:
    """Do all, one after the other, each in a process of its own, and write the page's section."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import page

    rows = []
    for name, (target, _) in TARGETS.items():
        command = [sys.executable, __file__, name, "--seconds", str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        match = re.search(r"(\d+) inputs: (.*)", done.stdout)
        counts = json.loads(match[2]) if match else {}
        rows.append({
            "reader": target.__doc__.rstrip("."),
            "inputs": f"{int(match[1]):,}" if match else "ended early",
            "read": f"{counts.get('read', 0):,}", "refused": f"{counts.get('refused', 0):,}",
            "crashes": "0" if match else "1",
        })  # fmt: skip
    text = f"{page.conditions()} atheris, {seconds} s each.\n\n{page.table(rows)}"
    page.section("fuzz", text, ROOT / "docs/reliability.md")


if __name__ == "__main__":
    main()

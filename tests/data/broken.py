"""A good data set, and ways to break it: each is, or makes, a function of its folder."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from roadseg.data.dataset_yaml import DESCRIPTION

NAMES = [f"{drive}_{frame:02d}" for drive in ("east", "north", "west") for frame in range(4)]
GOOD = """\
images: images
labels: labels
classes: [road, building, sky]
sequence: "(.+)_"
splits: {train: [north], val: [east], test: [west]}
"""
COLOURS = np.array([(128, 64, 128), (70, 70, 70), (70, 130, 180)], np.uint8)
COLOURED = """\
images: images
labels: labels
values: colours
classes:
  road: [128, 64, 128]
  building: '#464646'
  sky: [70, 130, 180]
sequence: "(.+)_"
splits: {train: [north], val: [east], test: [west]}
"""


def save(picture, file: Path, **settings) -> None:
    """Write an image or array, and the folders that it lies in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.astype(np.uint8))
    picture.save(file, **settings)


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 40 x 60 with a road below, a building and the sky, and its labels."""
    rng = np.random.default_rng(index)
    labels = np.full((40, 60), 2, np.uint8)
    labels[24:] = 0
    left, right = sorted(rng.integers(0, 60, 2))
    labels[rng.integers(4, 20) : 24, left : right + 8] = 1
    image = COLOURS[labels] + rng.integers(0, 40, (40, 60, 3), np.uint8)
    return image, labels


def good(folder: Path) -> Path:
    """Write twelve pairs of three drives and their description."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index, name in enumerate(NAMES):
        image, labels = scene(index)
        Image.fromarray(image).save(folder / f"images/{name}.png")
        Image.fromarray(labels).save(folder / f"labels/{name}.png")
    (folder / DESCRIPTION).write_text(GOOD)
    return folder


def coloured(folder: Path) -> None:
    """Turn the label images into colours, and describe them so."""
    for name in NAMES:
        put(folder, name, COLOURS[get(folder, name)])
    (folder / DESCRIPTION).write_text(COLOURED)


def get(folder: Path, name: str) -> np.ndarray:
    return np.array(Image.open(folder / f"labels/{name}.png"))


def get_ids(name: str) -> np.ndarray:
    return scene(NAMES.index(name))[1]


def put(folder: Path, name: str, labels: np.ndarray, **settings) -> None:
    Image.fromarray(labels).save(folder / f"labels/{name}.png", **settings)


def picture(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / f"images/{name}.png")


def save_png(file: Path, values: np.ndarray, depth: int, kind: int = 0) -> None:
    """Write a PNG of 4 or 16 bits, grey (kind 0) or RGB (kind 2): Pillow reads these only."""
    if depth == 4:
        rows = values[:, 0::2] << 4 | values[:, 1::2]
    else:
        rows = values.reshape(len(values), -1).astype(">u2").view(np.uint8)
    rows = np.hstack([np.zeros((len(rows), 1), np.uint8), rows.astype(np.uint8)])
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    packed = zlib.compress(rows.tobytes())
    for name, content in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + content))
        data += struct.pack(">I", len(content)) + name + content + check
    file.write_bytes(data)


# Ways to break any folder.


def in_text(file: str, old: str, new: str):
    """Replace something in a text file."""

    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return spoil


def described(old: str, new: str):
    """Replace something in the description."""
    return in_text(DESCRIPTION, old, new)


def written(file: str, content: bytes):
    """Give a file other content."""
    return lambda folder: (folder / file).write_bytes(content)


def without(*files: str):
    """Take files out."""
    return lambda folder: [(folder / file).unlink() for file in files]


def renamed(file: str, name: str):
    """Give a file or folder another name."""
    return lambda folder: (folder / file).rename((folder / file).with_name(name))


def after(*steps):
    """Do one after the other."""
    return lambda folder: [step(folder) for step in steps]


# Ways to break the folder above.


def relabelled(name: str, change, *, first=None):
    """Change a label array, after a first step."""
    return after(first or (lambda folder: None), lambda folder: put(folder, name, change(get(folder, name))))


def resaved(name: str, mode: str | None = None, **settings):
    """Save a label image otherwise, under the same name."""

    def spoil(folder: Path) -> None:
        image = Image.fromarray(get(folder, name))
        image = image.convert(mode) if mode else image
        image.save(folder / f"labels/{name}.png", **settings)

    return spoil


def reimaged(change, ending: str = ".png", **settings):
    """Save the image north_01 changed, and perhaps in another format."""

    def spoil(folder: Path) -> None:
        image = change(picture(folder, "north_01"))
        (folder / "images/north_01.png").unlink()
        image.save(folder / f"images/north_01{ending}", **settings)

    return spoil


def out_of_range(folder: Path) -> None:
    labels = get(folder, "west_02")
    labels[:2] = 31
    labels[5, :3] = 200
    put(folder, "west_02", labels)


def smoothed(folder: Path) -> None:
    coloured(folder)
    image = Image.fromarray(COLOURS[get_ids("north_00")])
    image.resize((80, 50), Image.Resampling.BILINEAR).resize((60, 40)).save(
        folder / "labels/north_00.png"
    )


def palette_in_another_order(folder: Path) -> None:
    (folder / DESCRIPTION).write_text(
        GOOD + "colours: {road: [128, 64, 128], building: [70, 70, 70], sky: [70, 130, 180]}\n"
    )
    image = Image.fromarray(get_ids("east_01"), "P")
    image.putpalette(COLOURS[[1, 0, 2]].tobytes())
    image.save(folder / "labels/east_01.png")


def turned(folder: Path) -> None:
    about = Image.Exif()
    about[0x0112] = 6
    reimaged(lambda image: image, ".jpg", exif=about)(folder)


def truncated(folder: Path) -> None:
    file = folder / "images/west_00.png"
    file.write_bytes(file.read_bytes()[:-2000])


def all_labels_named_otherwise(folder: Path) -> None:
    for file in list((folder / "labels").iterdir()):
        file.rename(file.with_stem(file.stem + "_mask"))


def same_image_in_two_splits(folder: Path) -> None:
    shutil.copy(folder / "images/north_02.png", folder / "images/west_01.png")


def no_images(folder: Path) -> None:
    for file in (folder / "images").iterdir():
        file.unlink()


def labels_of_the_next_file(folder: Path) -> None:
    """Every label file has the name of the image before its own."""
    for before, name in zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True):
        put(folder, before, get_ids(name))


def mask_of_0_and_255(folder: Path) -> None:
    """A road mask as many tools write it; 255 means not labelled, unless the description says else."""
    for name in NAMES:
        put(folder, name, np.where(get(folder, name) == 0, 255, 0).astype(np.uint8))
    described("[road, building, sky]", "[other, road]")(folder)


def colour_without_quotes(folder: Path) -> None:
    coloured(folder)
    described("'#464646'", "#464646")(folder)


def in_folders(folder: Path) -> None:
    """The drives as folders: north/00.png; `west` has no number 77, `north` has."""
    for kind in ("images", "labels"):
        for name in NAMES:
            drive, frame = name.split("_")
            frame = "77" if name == "north_03" else frame if drive != "west" else f"1{frame}"
            (folder / kind / drive).mkdir(exist_ok=True)
            (folder / f"{kind}/{name}.png").rename(folder / f"{kind}/{drive}/{frame}.png")
    described('"(.+)_"', "folder")(folder)
    described("train: [north], val: [east], test: [west]", "val: [east], test: test.txt")(folder)


other_size = relabelled("east_03", lambda labels: labels[:-1])
turned_labels = relabelled("east_03", lambda labels: labels.T)
colours_for_ids = relabelled("east_01", lambda labels: COLOURS[labels])
jpeg_labels = resaved("north_00", format="JPEG")
sixteen_bit_image = reimaged(lambda image: Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257))
pointer_for_labels = written(  # what a clone without Git LFS has in place of a file
    "labels/north_00.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:abab\nsize 1234\n"
)
several = after(out_of_range, truncated, other_size)

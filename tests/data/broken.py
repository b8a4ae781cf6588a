"""Ways to break a good data set, each as a function of its folder; what `test_broken.py` builds."""

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


def put(folder: Path, name: str, labels: np.ndarray, **settings) -> None:
    Image.fromarray(labels).save(folder / f"labels/{name}.png", **settings)


def picture(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / f"images/{name}.png")


def described(old: str, new: str):
    """A case: the description with one thing changed."""

    def spoil(folder: Path) -> None:
        text = (folder / DESCRIPTION).read_text()
        assert old in text
        (folder / DESCRIPTION).write_text(text.replace(old, new))

    return spoil


def saved(mode: str, ending: str = ".png", **settings):
    """A case: one image saved in another mode."""

    def spoil(folder: Path) -> None:
        image = picture(folder, "north_01")
        (folder / "images/north_01.png").unlink()
        image.convert(mode).save(folder / f"images/north_01{ending}", **settings)

    return spoil


def out_of_range(folder: Path) -> None:
    labels = get(folder, "west_02")
    labels[:2] = 31
    labels[5, :3] = 200
    put(folder, "west_02", labels)


def every_label_out_of_range(folder: Path) -> None:
    for name in NAMES:
        put(folder, name, get(folder, name) + 30)


def smoothed(folder: Path) -> None:
    coloured(folder)
    image = Image.fromarray(COLOURS[get_ids("north_00")])
    image.resize((80, 50), Image.Resampling.BILINEAR).resize((60, 40)).save(
        folder / "labels/north_00.png"
    )


def get_ids(name: str) -> np.ndarray:
    return scene(NAMES.index(name))[1]


def unknown_colour(folder: Path) -> None:
    coloured(folder)
    rgb = get(folder, "north_00")
    rgb[0, :5] = (1, 2, 3)
    put(folder, "north_00", rgb)


def colours_for_ids(folder: Path) -> None:
    put(folder, "east_01", COLOURS[get_ids("east_01")])


def palette_in_another_order(folder: Path) -> None:
    (folder / DESCRIPTION).write_text(
        GOOD + "colours: {road: [128, 64, 128], building: [70, 70, 70], sky: [70, 130, 180]}\n"
    )
    image = Image.fromarray(get_ids("east_01"), "P")
    image.putpalette(COLOURS[[1, 0, 2]].tobytes())
    image.save(folder / "labels/east_01.png")


def sixteen_bit_labels(folder: Path) -> None:
    Image.fromarray(get_ids("east_01").astype(np.uint16) * 1000).save(folder / "labels/east_01.png")


def transparent_labels(folder: Path) -> None:
    rgba = np.dstack([COLOURS[get_ids("north_00")], np.full((40, 60), 128, np.uint8)])
    coloured(folder)
    put(folder, "north_00", rgba)


def jpeg_labels(folder: Path) -> None:
    file = folder / "labels/north_00.png"
    Image.open(file).save(file, format="JPEG")


def lossy_webp_labels(folder: Path) -> None:
    file = folder / "labels/north_00.png"
    Image.open(file).save(file, format="WEBP", quality=80)


def jpeg_in_tiff_labels(folder: Path) -> None:
    file = folder / "labels/north_00.png"
    Image.open(file).convert("L").save(file, format="TIFF", compression="jpeg", quality=95)


def pointer_for_labels(folder: Path) -> None:
    """What a clone without Git LFS has in place of a file."""
    (folder / "labels/north_00.png").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 1234\n"
    )


def gif_labels(folder: Path) -> None:
    file = folder / "labels/north_00.png"
    Image.open(file).save(file, format="GIF")


def float_labels(folder: Path) -> None:
    file = folder / "labels/north_00.png"
    Image.fromarray(get_ids("north_00").astype(np.float32)).save(file, format="TIFF")


def other_size(folder: Path) -> None:
    put(folder, "east_03", get(folder, "east_03")[:-1])


def turned_labels(folder: Path) -> None:
    put(folder, "east_03", get(folder, "east_03").T)


def exif(folder: Path) -> None:
    image = picture(folder, "north_01")
    (folder / "images/north_01.png").unlink()
    about = Image.Exif()
    about[0x0112] = 6
    image.save(folder / "images/north_01.jpg", exif=about)


def sixteen_bit_image(folder: Path) -> None:
    image = np.array(picture(folder, "north_01").convert("L")).astype(np.uint16) * 257
    Image.fromarray(image).save(folder / "images/north_01.png")


def transparent_image(folder: Path) -> None:
    rgba = np.dstack([scene(99)[0], np.full((40, 60), 7, np.uint8)])
    Image.fromarray(rgba).save(folder / "images/north_01.png")


def several_pictures(folder: Path) -> None:
    image = picture(folder, "north_01")
    (folder / "images/north_01.png").unlink()
    image.save(folder / "images/north_01.tif", save_all=True, append_images=[image, image])


def truncated(folder: Path) -> None:
    file = folder / "images/west_00.png"
    file.write_bytes(file.read_bytes()[:-2000])


def truncated_labels(folder: Path) -> None:
    file = folder / "labels/west_00.png"
    file.write_bytes(file.read_bytes()[:60])


def empty_file(folder: Path) -> None:
    (folder / "images/west_00.png").write_bytes(b"")


def text_file(folder: Path) -> None:
    (folder / "images/west_00.png").write_text("<html>404</html>")


def bomb(folder: Path) -> None:
    Image.new("1", (20000, 10000)).save(folder / "images/west_00.png")


def label_missing(folder: Path) -> None:
    (folder / "labels/north_02.png").unlink()


def label_with_another_ending(folder: Path) -> None:
    (folder / "labels/north_02.png").rename(folder / "labels/north_02.bmp")


def image_missing(folder: Path) -> None:
    (folder / "images/north_02.png").unlink()


def all_labels_named_otherwise(folder: Path) -> None:
    for file in list((folder / "labels").iterdir()):
        file.rename(file.with_stem(file.stem + "_mask"))


def two_of_one_name(folder: Path) -> None:
    picture(folder, "north_02").save(folder / "images/north_02.bmp")


def same_image_in_two_splits(folder: Path) -> None:
    shutil.copy(folder / "images/north_02.png", folder / "images/west_01.png")


def same_pixels_in_another_format(folder: Path) -> None:
    picture(folder, "north_02").save(folder / "images/west_01.bmp")
    (folder / "images/west_01.png").unlink()


def nothing_labelled_in_val(folder: Path) -> None:
    for name in NAMES[:4]:
        put(folder, name, np.full((40, 60), 255, np.uint8))


def no_images(folder: Path) -> None:
    for file in (folder / "images").iterdir():
        file.unlink()


def list_with_an_unknown_name(folder: Path) -> None:
    (folder / "test.txt").write_text("/gone/images/west_00.png\nwset_01\n")
    described("test: [west]", "test: test.txt")(folder)


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


def sixteen_bit_rgb_image(folder: Path) -> None:
    """Twelve bits in sixteen, as cameras write them: by its high bytes it is nearly black."""
    image = np.array(picture(folder, "north_01")).astype(np.uint16) * 16
    save_png(folder / "images/north_01.png", image, 16, 2)


def sixteen_bit_rgb_labels(folder: Path) -> None:
    """Ids as 16-bit RGB grey: by their high bytes they are all zero."""
    labels = np.repeat(get(folder, "north_01")[..., None], 3, 2).astype(np.uint16)
    save_png(folder / "labels/north_01.png", labels, 16, 2)


def sixteen_bit_grey_for_colours(folder: Path) -> None:
    coloured(folder)
    labels = np.full((40, 60), 70, np.uint16)
    Image.fromarray(labels).save(folder / "labels/north_01.png")


def large_but_not_a_bomb(folder: Path) -> None:
    """More pixels than Pillow likes, fewer than it refuses."""
    Image.new("1", (10000, 10000)).save(folder / "images/west_00.png")


def one_label_and_another_image_missing(folder: Path) -> None:
    (folder / "labels/north_02.png").unlink()
    (folder / "images/west_03.png").unlink()


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


def list_with_another_folder(folder: Path) -> None:
    in_folders(folder)
    (folder / "test.txt").write_text("west/100.png\n/x/west/77.png\n")


def list_with_a_name_of_two(folder: Path) -> None:
    in_folders(folder)
    (folder / "test.txt").write_text("west\n00.png\n")


def several(folder: Path) -> None:
    out_of_range(folder)
    truncated(folder)
    other_size(folder)

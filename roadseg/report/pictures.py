"""Pictures of the page: photographs, label maps and heat maps, in rows with a word under each."""

import base64
import html
import io

import matplotlib
import numpy as np
from IPython.display import HTML
from PIL import Image, ImageDraw, ImageFont

from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.report.style import PALETTE, figure_html

WRONG = (240, 80, 72)  # wrong pixels of an error map
OUTLINE = (255, 138, 31)  # of labels, drawn into a photograph
PNG_WIDTH, PNG_GAP = 300, 10  # pixels of a picture, and between two


class Pictures:
    """A grid of pictures for notebooks and the page.

    Parameters
    ----------
    pictures : (uint8 (H, W, 3), the word under it), row by row; None for an empty place
    columns : of the grid
    """

    title = caption = ""
    with_png = False

    def __init__(self, pictures: list[tuple[np.ndarray | None, str]], columns: int):
        self.pictures, self.columns = pictures, columns

    def titled(self, title: str, caption: str = "", *, with_png: bool = False) -> "Pictures":
        """Set the finding as the title and a caption that explains the pictures; return them.

        `with_png` keeps all of them as one PNG too, for files that cannot show HTML.
        """
        self.title, self.caption, self.with_png = title, caption, with_png
        return self

    def html(self) -> str:
        """Return the grid alone, as HTML."""
        cells = "".join(
            f'<div class="picture">{_image(picture, words)}<span>{html.escape(words)}</span></div>'
            if picture is not None
            else "<div></div>"
            for picture, words in self.pictures
        )
        # styled here too, since JupyterLab has not got the page's style sheet
        grid = "display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 0.4rem"
        style = f"--columns: {self.columns}; {grid}"
        many = " many" if self.columns > 3 else ""
        return f'<div class="gallery{many}" style="{style}">{cells}</div>'

    def png(self) -> bytes:
        """Return the grid as one PNG."""
        height, width = self.pictures[0][0].shape[:2]
        size = (PNG_WIDTH, round(PNG_WIDTH * height / width))
        step = size[0] + PNG_GAP, size[1] + 30
        rows = -(-len(self.pictures) // self.columns)
        sheet = Image.new("RGB", (self.columns * step[0] - PNG_GAP, rows * step[1]), "white")
        font, draw = ImageFont.load_default(16), ImageDraw.Draw(sheet)
        for place, (picture, words) in enumerate(self.pictures):
            if picture is None:
                continue
            left, top = place % self.columns * step[0], place // self.columns * step[1]
            sheet.paste(_as_image(picture).resize(size, _resampling(picture)), (left, top))
            draw.text((left, top + size[1] + 4), words, "black", font)
        file = io.BytesIO()
        sheet.quantize(256, Image.Quantize.MEDIANCUT).save(file, "PNG", optimize=True)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        wide = " wide" if self.columns > 4 else ""
        shown = {
            "text/html": figure_html(f"photo{wide}", self.html(), self.title, self.caption),
            "text/plain": f"{self.title}\n{', '.join(words for _, words in self.pictures)}",
        }
        if self.with_png:
            shown["image/png"] = base64.b64encode(self.png()).decode()
        return shown


def _as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture))


def _is_flat(picture: np.ndarray) -> bool:
    """Return whether a picture has few colours, as label maps do, so that PNG suits it."""
    return _as_image(picture).getcolors(256) is not None


def _resampling(picture: np.ndarray) -> Image.Resampling:
    return Image.Resampling.NEAREST if _is_flat(picture) else Image.Resampling.BICUBIC


def _image(picture: np.ndarray, words: str, kind: str = "") -> str:
    """Return a picture uint8 (H, W, 3) as an HTML image that is in the page itself."""
    file, image, flat = io.BytesIO(), _as_image(picture), _is_flat(picture)
    if flat:
        image.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", optimize=True, quality=85)
    source = f"data:image/{'png' if flat else 'jpeg'};base64,"
    classes = " ".join(filter(None, [kind, "labels" if flat else ""]))
    return (
        f'<img class="{classes}" width="{image.width}" height="{image.height}" '
        f'alt="{html.escape(words)}" src="{source}{base64.b64encode(file.getvalue()).decode()}">'
    )


def photo(scenes: Scenes, index: int) -> np.ndarray:
    """Return an image as RGB uint8 (H, W, 3)."""
    return np.asarray(scenes.images[index]).transpose(1, 2, 0)


def paint(labels: np.ndarray, scenes: Scenes) -> np.ndarray:
    """Colour labels uint8 (H, W); return RGB uint8 (H, W, 3), black where not labelled."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(scenes.colours)] = scenes.colours
    table[UNLABELLED] = 0
    return table[labels]


def legend(scenes: Scenes) -> HTML:
    """Return the colours of the classes as a line of text."""
    shown = [*zip(scenes.classes, scenes.colours, strict=True), ("not labelled", (0, 0, 0))]
    box = "display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.35em"
    parts = [
        f'<span style="display: inline-block; margin-right: 1rem"><i style="{box}; background: '
        f'rgb({red} {green} {blue})"></i>{html.escape(name)}</span>'
        for name, (red, green, blue) in shown
    ]
    return HTML(f'<p class="legend">{"".join(parts)}</p>')


def samples(scenes: Scenes, chosen: list[int]) -> Pictures:
    """Show images, and under each row of them their labels."""
    images = [(photo(scenes, index), str(scenes.names[index])) for index in chosen]
    labels = [(paint(scenes.labels[index], scenes), "its labels") for index in chosen]
    return Pictures(images + labels, len(chosen))


def error_map(scenes: Scenes, index: int, predicted: np.ndarray) -> np.ndarray:
    """Return an image in dark grey with the wrong pixels of a prediction (H, W) in red."""
    truth = scenes.labels[index]
    grey = 30 + 0.45 * photo(scenes, index).mean(-1, keepdims=True)
    wrong = (predicted != truth) & (truth != UNLABELLED)
    return np.where(wrong[..., None], WRONG, grey).astype(np.uint8)


def one_street(scenes: Scenes, index: int, predicted: dict[str, np.ndarray]) -> Pictures:
    """Show an image, its truth and predictions in a row, and below each prediction its errors.

    `predicted` maps what to call a prediction to its labels uint8 (H, W).
    """
    truth = scenes.labels[index]
    labelled = max((truth != UNLABELLED).sum(), 1)
    first = [(photo(scenes, index), "image"), (paint(truth, scenes), "truth")]
    first += [(paint(labels, scenes), name) for name, labels in predicted.items()]
    second = [(None, ""), (None, "")]
    for labels in predicted.values():
        wrong = ((labels != truth) & (truth != UNLABELLED)).sum() / labelled
        second.append((error_map(scenes, index, labels), f"{100 * wrong:.0f} % wrong"))
    return Pictures(first + second, len(first))


def predictions(scenes: Scenes, chosen: list[int], predicted: dict[str, np.ndarray]) -> Pictures:
    """Show images in a row, below them their truth and what each network predicts.

    `predicted` maps a network to uint8 (N, H, W).
    """
    rows = [(photo(scenes, index), str(scenes.names[index])) for index in chosen]
    rows += [(paint(scenes.labels[index], scenes), "truth") for index in chosen]
    for name, labels in predicted.items():
        rows += [(paint(labels[index], scenes), name) for index in chosen]
    return Pictures(rows, len(chosen))


def close_ups(
    scenes: Scenes,
    windows: dict[str, tuple[int, int, int]],
    size: tuple[int, int],
    predicted: dict[str, np.ndarray],
) -> Pictures:
    """Show windows of test images: image, truth, and what each network predicts.

    Parameters
    ----------
    windows : name -> (image, top, left)
    size : (height, width) of a window
    predicted : network -> uint8 (N, H, W)
    """
    parts = [
        (index, np.s_[top : top + size[0], left : left + size[1]])
        for index, top, left in windows.values()
    ]
    rows = [
        (photo(scenes, index)[part], name)
        for name, (index, part) in zip(windows, parts, strict=True)
    ]
    rows += [(paint(scenes.labels[index][part], scenes), "truth") for index, part in parts]
    for name, labels in predicted.items():
        rows += [(paint(labels[index][part], scenes), name) for index, part in parts]
    return Pictures(rows, len(parts))


def suspects(rows, splits: dict[str, Scenes]) -> Pictures:
    """Show images in grey with the outlines of their labels; dark where not labelled.

    `rows` has the columns split, index (position in the split), name and words (what is unusual).
    """
    shown = []
    for row in rows.itertuples():
        scenes = splits[row.split]
        labels = scenes.labels[row.index]
        grey = photo(scenes, row.index).mean(-1)
        grey = np.where(labels == UNLABELLED, 0.4 * grey, 30 + 0.88 * grey)[..., None]
        picture = np.where(_outlines(labels)[..., None], OUTLINE, grey).astype(np.uint8)
        shown.append((picture, f"{row.split}: {row.name[-50:]}. {row.words}"))
    return Pictures(shown, 2)


def _outlines(labels: np.ndarray) -> np.ndarray:
    """Return, bool (H, W), the pixels above or left of an edge between two labelled classes."""
    known, edge = labels != UNLABELLED, np.zeros(labels.shape, bool)
    edge[:-1] |= (labels[1:] != labels[:-1]) & known[1:] & known[:-1]
    edge[:, :-1] |= (labels[:, 1:] != labels[:, :-1]) & known[:, 1:] & known[:, :-1]
    return edge


def receptive_field(layers, scenes: Scenes, index: int) -> Pictures:
    """Draw on an image what one value in its middle sees, after each pooling and at the end.

    `layers` is `cost.layer_table` of a chain of layers.
    """
    shown = layers[(layers["kind"] == "MaxPool2d") | (layers.index == layers.index[-1])]
    height, width = scenes.labels.shape[1:]
    scale = max(round(624 / width), 1)
    picture = Image.fromarray(photo(scenes, index).repeat(scale, 0).repeat(scale, 1))
    draw, words = ImageDraw.Draw(picture), []
    for number, row in enumerate(shown.itertuples(), start=1):
        half = scale * row.receptive_field / 2
        x, y = scale * width / 2, scale * height / 2
        colour = PALETTE[(number - 1) % len(PALETTE)]
        draw.rectangle((x - half, y - half, x + half, y + half), outline=colour, width=3)
        after = f"pooling {number}" if row.kind == "MaxPool2d" else "the last layer"
        words.append(f"after {after} {row.receptive_field}")
    return Pictures([(np.asarray(picture), f"side in pixels {', '.join(words)}")], 1)


def feature_maps(maps: list[np.ndarray], columns: int = 6) -> Pictures:
    """Show the channels that differ most within an image, one row per stage, each on its own scale.

    `maps` has one array float (C, h, w) per stage.
    """
    shown = []
    for number, stage in enumerate(maps, start=1):
        spread = stage.std(axis=(1, 2))
        for channel in np.argsort(-spread, kind="stable")[:columns]:
            words = f"pooling {number}, channel {channel}"
            flat = " (constant)" if not spread[channel] else ""
            shown.append((_heat(stage[channel]), words + flat))
    return Pictures(shown, columns)


def effective_fields(fields: dict[str, np.ndarray], sides: dict[str, float]) -> Pictures:
    """Show how much each pixel influences the output in the middle, one picture per network.

    Parameters
    ----------
    fields : network -> float (H, W), from `cost.effective_field`
    sides : network -> side of the square that holds most of it, in pixels, drawn in white
    """
    shown = []
    for name, field in fields.items():
        # the square root, since a few pixels in the middle outshine all others
        picture = Image.fromarray(_heat(np.sqrt(field)))
        y, x, half = field.shape[0] // 2, field.shape[1] // 2, sides[name] / 2
        ImageDraw.Draw(picture).rectangle((x - half, y - half, x + half, y + half), outline="white")
        shown.append((np.asarray(picture), f"{name}: {sides[name]:.0f} px"))
    return Pictures(shown, min(3, len(shown)))


def _heat(values: np.ndarray) -> np.ndarray:
    """Return float (H, W) in colours, from black for the lowest to yellow: uint8 (H, W, 3)."""
    low, high = values.min(), values.max()
    share = (values - low) / (high - low or 1)
    return (255 * matplotlib.colormaps["magma"](share)[..., :3]).astype(np.uint8)


def sliders(
    scenes: Scenes, chosen: dict[str, int], predicted: np.ndarray, network: str
) -> "Sliders":
    """Show images with a divider: left of it the image or the truth, right of it the prediction.

    Parameters
    ----------
    chosen : what to call a picture -> its position
    predicted : uint8 (N, H, W)
    network : whose prediction it is
    """
    return Sliders([_slider(scenes, *each, predicted, network) for each in chosen.items()])


class Sliders:
    """Pictures with dividers, for notebooks and the page."""

    title = caption = ""

    def __init__(self, parts: list[str]):
        self.parts = parts

    def titled(self, title: str, caption: str = "") -> "Sliders":
        """Set the finding as the title and a caption that explains the pictures; return them."""
        self.title, self.caption = title, caption
        return self

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        content = f'<div class="comparison">{"".join(self.parts)}</div>'
        shown = figure_html("photo wide", content, self.title, self.caption)
        return {"text/html": shown, "text/plain": self.title}


def _slider(scenes: Scenes, title: str, index: int, predicted: np.ndarray, network: str) -> str:
    truth, labels = scenes.labels[index], predicted[index]
    layers = {  # from the lowest to the highest
        "prediction": (paint(labels, scenes), f"Prediction of {network}"),
        "errors": (error_map(scenes, index, labels), "What of that is wrong, in red"),
        "truth": (paint(truth, scenes), "Truth"),
        "image": (photo(scenes, index), f"Image {scenes.names[index]}"),
    }
    images = "".join(_image(picture, words, kind) for kind, (picture, words) in layers.items())
    switches = "".join(
        f'<label><input type="checkbox" class="{name}"> {words}</label>'
        for name, words in (("left", "truth on the left"), ("only", "errors in red on the right"))
    )
    return (
        f'<figure class="compare"><div class="layers">{images}</div>'
        f'<input type="range" value="50" aria-label="divider: {html.escape(title)}">'
        f"<figcaption>{html.escape(title)}<br>{switches}</figcaption></figure>"
    )

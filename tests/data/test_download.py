"""Fetching, against a server on this machine that misbehaves on demand."""

import dataclasses
import hashlib
import io
import json
import random
import re
import shutil
import socket
import stat
import struct
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from roadseg.data import download as module
from roadseg.data.download import ARCHIVES, CHUNK, Archive, fetch, tree_digest
from roadseg.errors import InputError

noise = random.Random(0)
FILES = {
    "top/README": b"not of the set",
    "top/set/list.txt": b"train/0.png\n",
    **{f"top/set/train/{i}.png": noise.randbytes(100_000) for i in range(3)},
}
HAND = "put the folder train and list.txt into {}"


def zipped(files: dict) -> bytes:
    """A zip of {name or ZipInfo: content}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ZIP = zipped(FILES)
TREE = sha256(
    b"".join(
        f"{sha256(FILES[f'top/set/train/{i}.png'])}  ./train/{i}.png\n".encode() for i in range(3)
    )
)
SET = Archive(
    url="http://127.0.0.1:9/never-asked.zip",
    folder="top/set",
    holds={"train/*.png": 3, "list.txt": 1},
    licence="CC0",
    about="noise",
    sha256=None,
    tree_sha256=None,
    by_hand=HAND.format("{target}"),
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        site, here = self.server.site, SimpleNamespace(headers=dict(self.headers), sent=0)
        site.asked.append(here)
        self.close_connection = True
        if self.path in site.redirects:
            return self.answer(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
        if site.status:
            return self.answer(site.status, {"Content-Length": "0"})
        body, status, headers = site.body, 200, dict(site.validators)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        guard = self.headers.get("If-Range")
        if asked and site.ranges and (site.careless or guard in site.validators.values()):
            start = int(asked[1])
            if start >= len(body):
                return self.answer(
                    416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}
                )
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        if site.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body) + site.overstated)
        self.answer(status, headers)
        cut = site.cuts.pop(0) if site.cuts else None
        body = body[:cut]
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if site.chunked else piece)
            here.sent += len(piece)
        if site.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        if cut is not None and site.stall:
            site.wake.wait(5)

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def site():
    """A server with one file, and the switches of its behaviour."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}/set.zip",
        body=ZIP,
        validators={"ETag": '"one"'},
        ranges=True,
        careless=False,  # sends ranges whatever If-Range says
        chunked=False,
        overstated=0,  # bytes announced that do not exist
        cuts=[],  # per request: bytes before the connection is cut
        stall=False,  # instead of cutting, send nothing more
        status=None,
        redirects={},
        asked=[],
        wake=threading.Event(),
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.site
    server.site.wake.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0, 0, 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "data/raw"


def left(raw: Path) -> list[str]:
    return sorted(path.name for path in raw.iterdir()) if raw.exists() else []


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


PLACED = {name.removeprefix("top/set/"): data for name, data in FILES.items() if "set" in name}
PARTIAL = ["set.zip.partial", "set.zip.partial.json"]


def refusal(raw: Path, url: str | None, name: str = "set", archive=SET) -> str:
    with pytest.raises(InputError) as caught:
        fetch(name, raw, url=url, archive=archive)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def gone(raw: Path, site, problem: str) -> str:
    """The message when a download was found bad and removed."""
    return (
        f"{site.url}: {problem}. Nothing was unpacked to {raw}/set and the download was removed; "
        "run the command again, or name a mirror with --url."
    )


def elsewhere(raw: Path) -> str:
    return f"name a mirror with --url, or {HAND.format(raw / 'set')}."


# ---- downloading


def test_a_whole_download_is_placed_and_leaves_nothing_else(site, raw, capsys):
    assert fetch("set", raw, url=site.url, archive=SET) == raw / "set"
    assert tree(raw / "set") == PLACED
    assert left(raw) == ["set"]
    assert "Range" not in site.asked[0].headers and len(site.asked) == 1
    assert site.asked[0].headers["Accept-Encoding"] == "identity"
    (raw.parent / "plain").touch()
    assert (raw / "set/list.txt").stat().st_mode == (raw.parent / "plain").stat().st_mode
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "set: noise",
        "set: licence CC0",
        f"set: from {site.url}",
        "set: 0.0 MB here, 0.3 MB in all",
        f"set: sha256 of the zip file {sha256(ZIP)}; none is published to compare with, so only "
        "the zip's own checksums and the number of files were checked",
        f"set: placed at {raw}/set",
    ]
    assert err == ""  # no bar where there is no terminal


def test_the_archive_names_the_place(site, raw):
    fetch("set", raw, archive=dataclasses.replace(SET, url=site.url))
    assert tree(raw / "set") == PLACED


@pytest.mark.parametrize("checked", ["sha256", "tree_sha256"])
def test_known_checksums_are_compared_and_said(site, raw, capsys, checked):
    digest = {"sha256": sha256(ZIP), "tree_sha256": TREE}[checked]
    fetch("set", raw, url=site.url, archive=dataclasses.replace(SET, **{checked: digest}))
    what = {"sha256": "zip file", "tree_sha256": "images"}[checked]
    assert f"set: sha256 of the {what} {digest}, as it should be\n" in capsys.readouterr().out


def test_chunked_answers_and_redirects(site, raw):
    site.chunked, site.redirects = True, {"/moved": site.url}
    fetch("set", raw, url=site.url.replace("set.zip", "moved"), archive=SET)
    assert tree(raw / "set") == PLACED


@pytest.mark.parametrize(
    "validators",
    [{"ETag": '"one"'}, {"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_connection_goes_on_where_it_stopped(site, raw, capsys, validators, chunked):
    site.validators, site.cuts, site.chunked = validators, [200_000, 50_000], chunked
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED and left(raw) == ["set"]
    first, second, third = site.asked
    assert "Range" not in first.headers
    starts = [int(re.fullmatch(r"bytes=(\d+)-", a.headers["Range"])[1]) for a in (second, third)]
    assert 200_000 - CHUNK < starts[0] <= 200_000
    assert starts[0] <= starts[1] <= starts[0] + 50_000
    for later in (second, third):
        assert later.headers["If-Range"] == list(validators.values())[-1]
    assert third.sent == len(ZIP) - starts[1]
    # what is sent twice is less than one chunk per cut
    assert len(ZIP) <= sum(a.sent for a in site.asked) < len(ZIP) + 2 * CHUNK
    assert capsys.readouterr().out.count("set: connection closed; trying again in 0 s\n") == 2


def test_cut_for_good_keeps_the_part_and_the_next_call_goes_on(site, raw):
    site.cuts = [150_000, 0, 0, 0]
    message = refusal(raw, site.url)
    have = (raw / PARTIAL[0]).stat().st_size
    assert 150_000 - CHUNK < have <= 150_000
    assert message == (
        f"{site.url}: broke off 4 times (connection closed); run the command again, and it goes on "
        f"after the {have} bytes that are here."
    )
    assert left(raw) == PARTIAL
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED and left(raw) == ["set"]
    assert site.asked[-1].headers["Range"] == f"bytes={have}-"
    assert site.asked[-1].sent == len(ZIP) - have


def test_more_is_announced_than_comes(site, raw):
    site.overstated, site.ranges = 10, False
    message = refusal(raw, site.url)
    assert message.startswith(f"{site.url}: broke off 4 times (connection closed); run the command")
    assert len(site.asked) == 4 and left(raw) == PARTIAL


def test_a_library_that_does_not_mind_missing_bytes(site, raw, monkeypatch):
    def get(*arguments, **options):
        answer = requests.get(*arguments, **options)
        answer.raw.enforce_content_length = False
        return answer

    names = ("ConnectionError", "RequestException", "Response")
    lax = SimpleNamespace(get=get, **{name: getattr(requests, name) for name in names})
    monkeypatch.setattr(module, "requests", lax)
    site.cuts = [200_000]
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED
    assert [a.headers.get("Range") for a in site.asked] == [None, "bytes=200000-"]


def test_a_stalled_connection_times_out(site, raw, monkeypatch, capsys):
    monkeypatch.setattr(module, "TIMEOUT", (1, 0.2))
    site.cuts, site.stall = [100_000], True
    fetch("set", raw, url=site.url, archive=SET)
    assert "set: no answer in time; trying again in 0 s\n" in capsys.readouterr().out
    assert tree(raw / "set") == PLACED


def interrupted(site, raw, **changes) -> int:
    """Leave a part behind; return its size."""
    site.cuts = [150_000, 0, 0, 0]
    for name, value in changes.items():
        setattr(site, name, value)
    refusal(raw, site.url)
    site.asked.clear()
    return (raw / PARTIAL[0]).stat().st_size


def test_a_server_without_ranges_is_asked_for_the_rest_and_sends_all(site, raw):
    have = interrupted(site, raw, ranges=False)
    fetch("set", raw, url=site.url, archive=SET)
    assert [a.headers["Range"] for a in site.asked] == [f"bytes={have}-"]
    assert site.asked[0].sent == len(ZIP) and tree(raw / "set") == PLACED


def test_a_server_that_names_no_version_is_asked_for_all(site, raw):
    site.cuts = [150_000, 0, 0, 0]
    site.validators = {}
    assert refusal(raw, site.url) == (
        f"{site.url}: broke off 4 times (connection closed); run the command again, and it starts "
        "anew."
    )
    fetch("set", raw, url=site.url, archive=SET)
    assert not any("Range" in a.headers for a in site.asked)
    assert tree(raw / "set") == PLACED


@pytest.mark.parametrize("careless", [False, True])
def test_a_file_that_changed_meanwhile_is_fetched_anew(site, raw, careless):
    have = interrupted(site, raw)
    other = {**FILES, "top/set/train/0.png": noise.randbytes(100_000)}
    site.body, site.validators, site.careless = zipped(other), {"ETag": '"two"'}, careless
    fetch("set", raw, url=site.url, archive=SET)
    assert (raw / "set/train/0.png").read_bytes() == other["top/set/train/0.png"]
    assert site.asked[0].headers["If-Range"] == '"one"'
    assert site.asked[0].headers["Range"] == f"bytes={have}-"
    # the guard makes one request of it; where the server ignores that, a second one asks for all
    assert ["Range" in a.headers for a in site.asked] == ([True, False] if careless else [True])


def test_an_answer_to_another_range_is_not_appended(site, raw):
    """Equal validator, other size: a server whose tags say nothing."""
    interrupted(site, raw)
    site.body, site.careless = zipped({**FILES, "top/more": b"x" * 99}), True
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED and len(site.asked) == 2


def test_a_file_that_became_shorter_than_the_part(site, raw):
    interrupted(site, raw, careless=True)
    small = zipped({**FILES, **{f"top/set/train/{i}.png": b"small" for i in range(3)}})
    site.body = small
    fetch("set", raw, url=site.url, archive=SET)  # 416, then all of it
    assert [a.sent for a in site.asked] == [0, len(small)]
    assert (raw / "set/train/2.png").read_bytes() == b"small"


def test_a_part_of_another_address_is_not_used(site, raw):
    interrupted(site, raw)
    fetch("set", raw, url=site.url + "?mirror", archive=SET)
    assert "Range" not in site.asked[0].headers and tree(raw / "set") == PLACED


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": 1, "validator": 2, "size": "x"}'])
def test_a_part_whose_note_is_damaged_is_not_used(site, raw, note):
    interrupted(site, raw)
    (raw / PARTIAL[1]).write_text(note)
    fetch("set", raw, url=site.url, archive=SET)
    assert "Range" not in site.asked[0].headers and tree(raw / "set") == PLACED


def test_a_complete_part_is_not_fetched_again(site, raw, monkeypatch):
    site.chunked = True  # the size is known at the end only
    monkeypatch.setattr(module, "_place", lambda job: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch("set", raw, url=site.url, archive=SET)
    assert json.loads((raw / PARTIAL[1]).read_text()) == {
        "url": site.url, "validator": '"one"', "size": len(ZIP),
    }  # fmt: skip
    monkeypatch.undo()
    fetch("set", raw, url=site.url, archive=SET)
    assert len(site.asked) == 1 and left(raw) == ["set"]


@pytest.mark.parametrize("moment", ["download", "unpacking"])
def test_control_c_keeps_what_was_downloaded(site, raw, monkeypatch, moment):
    def interrupt(*_):
        raise KeyboardInterrupt

    if moment == "download":
        site.cuts = [150_000]
        monkeypatch.setattr(module.time, "sleep", interrupt)
    else:
        monkeypatch.setattr(module, "_miscount", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("set", raw, url=site.url, archive=SET)
    assert left(raw) == PARTIAL
    monkeypatch.undo()
    fetch("set", raw, url=site.url, archive=SET)
    expected = {"download": [False, True], "unpacking": [False]}[moment]
    assert ["Range" in a.headers for a in site.asked] == expected
    assert tree(raw / "set") == PLACED and left(raw) == ["set"]


# ---- answers that are not the file


@pytest.mark.parametrize(
    "status, words",
    [
        (404, "404 Not Found"),
        (500, "500 Internal Server Error"),
        (204, "204 No Content"),
        (403, "403 Forbidden"),
    ],
)
def test_other_statuses(site, raw, status, words):
    site.status = status
    assert refusal(raw, site.url) == f"{site.url}: the server answered {words}; {elsewhere(raw)}"
    assert left(raw) == [] and len(site.asked) == 1


def test_a_failing_server_does_not_cost_the_part(site, raw):
    have = interrupted(site, raw)
    site.status = 503
    refusal(raw, site.url)
    site.status, site.body = None, b"<!doctype html>log in" * 9999
    site.validators = {}
    refusal(raw, site.url)
    assert (raw / PARTIAL[0]).stat().st_size == have and left(raw) == PARTIAL


def test_a_web_page_instead_of_the_file(site, raw):
    login = site.url.replace("set.zip", "login")
    site.redirects, site.body = {"/set.zip": login}, b"\n<!DOCTYPE html><title>log in</title>"
    assert refusal(raw, site.url) == (
        f"{site.url}: a web page came from {login}, not a zip file; {elsewhere(raw)}"
    )
    assert left(raw) == []


@pytest.mark.parametrize("body, what", [(b"Rar!" + ZIP[4:], "something else"), (b"", "nothing")])
def test_something_else_instead_of_a_zip(site, raw, body, what):
    site.body = body
    assert refusal(raw, site.url) == (
        f"{site.url}: {what} came from {site.url}, not a zip file; {elsewhere(raw)}"
    )
    assert left(raw) == []


def test_a_refused_connection_is_one_sentence(raw):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # bound, but nobody listens
        assert refusal(raw, f"http://127.0.0.1:{port}/set.zip") == (
            f"http://127.0.0.1:{port}/set.zip cannot be reached (Connection refused); without a "
            f"network, put the folder train and list.txt into {raw}/set."
        )
    assert left(raw) == []


def test_a_server_that_does_not_speak_https(site, raw):
    url = site.url.replace("http:", "https:")
    assert re.fullmatch(
        rf"{url} cannot be reached \([a-zA-Z ]+\); without a network, .* into {raw}/set\.",
        refusal(raw, url),
    )


def test_a_name_that_does_not_resolve(raw, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refusal(raw, "https://host.invalid/a.zip") == (
        "https://host.invalid/a.zip cannot be reached (Temporary failure in name resolution); "
        f"without a network, put the folder train and list.txt into {raw}/set."
    )


@pytest.mark.parametrize(
    "name, words",
    [("camvid", ["trainannot", "val.txt"]), ("kitti", ["data_semantics.zip", "image_2"])],
)
def test_real_sets_say_what_to_put_where(raw, name, words):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        message = refusal(raw, url, name, None)
    assert all(word in message for word in words) and message.endswith(f"{raw / name}.")
    assert message.count(". ") == 0 and "\n" not in message


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip", "", "http://", "https:///a"]
)
def test_other_kinds_of_address(raw, url):
    assert refusal(raw, url) == (
        f"--url: {url!r} is not allowed; it must begin with https:// or http://."
    )
    assert left(raw) == []


@pytest.mark.parametrize(
    "url", ["http://[::1/a.zip", "http://host:99999/a.zip", "http://.host/a", "http://a b/"]
)
def test_an_address_that_is_none(raw, url):
    message = refusal(raw, url)
    assert url in message and message.endswith(f"{HAND.format(raw / 'set')}.")


def test_redirects_to_nowhere(site, raw):
    for place in ("file:///etc/passwd", site.url):
        site.redirects = {"/set.zip": place}
        message = refusal(raw, site.url)
        assert message.startswith(f"{site.url}: cannot be fetched (")
        assert message.endswith(f"); {elsewhere(raw)}")
    assert left(raw) == []


def test_unknown_names(raw):
    assert refusal(raw, None, "camvd", None) == (
        "'camvd': nothing to fetch by this name. Did you mean 'camvid'? Known: camvid, kitti."
    )
    assert refusal(raw, None, "synthetic", None) == (
        "'synthetic': nothing to fetch by this name. Known: camvid, kitti."
    )


# ---- content that is not what it should be


def test_wrong_checksum(site, raw):
    archive = dataclasses.replace(SET, sha256="0" * 64)
    assert refusal(raw, site.url, archive=archive) == gone(
        raw, site, f"set.zip.partial has sha256 {sha256(ZIP)}, wanted is {'0' * 64}"
    )
    assert left(raw) == []


def test_wrong_images(site, raw):
    archive = dataclasses.replace(SET, tree_sha256="0" * 64)
    assert refusal(raw, site.url, archive=archive) == gone(
        raw, site, f"set.zip.partial has images of sha256 {TREE}, wanted is {'0' * 64}"
    )
    assert left(raw) == []


def test_too_few_files(site, raw):
    archive = dataclasses.replace(SET, holds={"list.txt": 1, "train/*.png": 4})
    assert refusal(raw, site.url, archive=archive) == gone(
        raw, site, "in set.zip.partial, train/*.png matches 3 files instead of 4"
    )
    assert left(raw) == []


@pytest.mark.parametrize("size", [2, 200_000, len(ZIP) - 10])
def test_a_truncated_zip(site, raw, size):
    site.body = ZIP[:size]
    assert refusal(raw, site.url) == gone(
        raw, site, "set.zip.partial is damaged or cut short (File is not a zip file)"
    )
    assert left(raw) == []


def test_no_zip_after_all(site, raw):
    site.body = b"PK" + bytes(500)
    assert refusal(raw, site.url) == gone(
        raw, site, "set.zip.partial is damaged or cut short (File is not a zip file)"
    )


def test_damaged_bytes(site, raw):
    at = ZIP.index(b"top/set/train/1.png") + 50_000
    site.body = ZIP[:at] + bytes([ZIP[at] ^ 1]) + ZIP[at + 1 :]
    assert refusal(raw, site.url) == gone(
        raw,
        site,
        "member 'top/set/train/1.png' is damaged (Bad CRC-32 for file 'top/set/train/1.png')",
    )
    assert left(raw) == []


def test_damage_anywhere_is_refused_or_harmless(site, raw):
    """Random damage to a small zip: one message, or the right files; never a traceback."""
    small = {name: data[:40] for name, data in FILES.items()}
    whole, luck = zipped(small), random.Random(1)
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(luck.choice([1, 2, 8])):
            damaged[luck.randrange(2, len(whole))] = luck.randrange(256)
        site.body = bytes(damaged)
        try:
            fetch("set", raw, url=site.url, archive=SET)
        except InputError:
            assert left(raw) == []
        else:
            for name, content in tree(raw / "set").items():
                assert small.get(f"top/set/{name}", content) == content
            shutil.rmtree(raw / "set")
        assert [p.name for p in raw.parent.iterdir()] == ["raw"]


def member(name: str, *, mode: int = 0, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, system
    return info


def rewritten(name: str, becomes: str) -> bytes:
    """A zip whose writer would not have written this name."""
    files = {**FILES, f"top/set/{name}": b"x"}
    return zipped(files).replace(f"top/set/{name}".encode(), f"top/set/{becomes}".encode())


PATH = "has no plain relative path"
UNPRINTABLE = "has characters in its name that cannot be printed"
SPECIAL = "is a link or another special file"
BAD_MEMBERS = {
    "../x": PATH,
    "train/../../x": PATH,
    "..": PATH,
    "train/..": PATH,
    "train//x": PATH,
    "./x": PATH,
    "C:/x": PATH,
    "C:x": PATH,
    "train\\x": PATH,
    "..\\x": PATH,
    "/etc/x": PATH,
    "//host/x": PATH,
    "a\nb": UNPRINTABLE,
    "a\x1b[31mb": UNPRINTABLE,
    "a\u202eb": UNPRINTABLE,
    "x" * 256: "has a name of more than 255 bytes",
    "ä" * 128: "has a name of more than 255 bytes",
    "LIST.TXT": "is there twice",
    "Train/0.png": "is there twice",
    "train/0.png/x": "lies where another one does",
    "train/0.png/x/y": "lies where another one does",
}


def check_member(site, raw, folder, name, fault):
    before = tree(raw.parent.parent)
    archive = dataclasses.replace(SET, folder=folder)
    assert refusal(raw, site.url, archive=archive) == gone(raw, site, f"member {name!r} {fault}")
    assert left(raw) == [] and tree(raw.parent.parent) == before


@pytest.mark.parametrize("name", BAD_MEMBERS, ids=ascii)
@pytest.mark.parametrize("prefix", ["top/set/", ""])
def test_members_that_are_refused(site, raw, name, prefix):
    files = {f"{prefix}{n.removeprefix('top/set/')}": d for n, d in FILES.items()}
    site.body = zipped({**files, member(f"{prefix}{name}"): b"x"})
    check_member(site, raw, prefix.removesuffix("/"), f"{prefix}{name}", BAD_MEMBERS[name])


def test_a_name_that_ends_at_a_nul(site, raw):
    site.body = rewritten("a.png_b", "a.png\0b")
    check_member(site, raw, "top/set", "top/set/a.png", UNPRINTABLE)


def test_accents_written_in_two_ways_are_one_name(site, raw):
    site.body = zipped({**FILES, "top/set/\u00e9": b"1", "top/set/e\u0301": b"2"})
    check_member(site, raw, "top/set", "top/set/e\u0301", "is there twice")


def test_the_same_name_twice(site, raw):
    with pytest.warns(UserWarning, match="Duplicate"):
        site.body = zipped({**FILES, member("top/set/list.txt"): b"other"})
    check_member(site, raw, "top/set", "top/set/list.txt", "is there twice")


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR]
)
@pytest.mark.parametrize("system", [0, 3])
def test_links_and_special_files(site, raw, kind, system):
    site.body = zipped(
        {**FILES, member("top/set/x", mode=kind | 0o777, system=system): b"/etc/passwd"}
    )
    check_member(site, raw, "top/set", "top/set/x", SPECIAL)


def test_what_lies_outside_of_the_folder_is_neither_written_nor_minded(site, raw):
    site.body = zipped(
        {**FILES, member("../x"): b"1", member("top/link", mode=stat.S_IFLNK): b"/etc"}
    )
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw.parent.parent) == {f"data/raw/set/{n}": d for n, d in PLACED.items()}


def test_folders_of_their_own_and_modes(site, raw):
    """Entries for folders, and modes that a zip asks for: folders are made, modes are not."""
    files = {
        member("top/set/", mode=stat.S_IFDIR | 0o700): b"",
        member("top/set/train/", mode=stat.S_IFDIR): b"",
    }
    files |= {member(n, mode=stat.S_IFREG | 0o6777): d for n, d in FILES.items()}
    site.body = zipped(files)
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED
    assert not any(p.stat().st_mode & 0o6111 for p in (raw / "set").rglob("*") if p.is_file())


def edited(content: bytes, name: str, *, local: dict, central: dict) -> bytes:
    """A zip with fields {offset: (format, value)} changed in both headers of a member."""
    content = bytearray(content)
    first = content.index(name.encode()) - 30
    second = content.rindex(name.encode()) - 46
    for at, fields in ((first, local), (second, central)):
        for offset, (kind, value) in fields.items():
            struct.pack_into(kind, content, at + offset, value)
    return bytes(content)


def test_a_member_before_the_beginning(site, raw):
    """A directory that claims to begin later moves the members to negative places."""
    content = bytearray(ZIP)
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 16, struct.unpack_from("<I", content, end + 16)[0] + 500)
    site.body = bytes(content)
    check_member(site, raw, "top/set", "top/set/list.txt", "begins before the zip file does")


def test_an_encrypted_member(site, raw):
    flag = ("<H", 1)
    site.body = edited(ZIP, "top/set/train/1.png", local={6: flag}, central={8: flag})
    check_member(site, raw, "top/set", "top/set/train/1.png", "is encrypted")


def test_another_packing(site, raw):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr("top/set/list.txt", b"x")
    site.body = out.getvalue()
    check_member(site, raw, "top/set", "top/set/list.txt", "is not packed by deflate")


@pytest.mark.parametrize("declared", [10, 30_000_001])
@pytest.mark.parametrize("forged", [False, True])
def test_a_bomb_with_a_lying_header(site, raw, monkeypatch, declared, forged):
    """Its true size is found while unpacking, and not much more than declared is written."""
    content, name = bytes(30_000_000), "top/set/bomb"
    packed = zipped({**FILES, member(name): content})
    size = ("<I", declared)
    crc = ("<I", zipfile.crc32(content[:declared]))
    site.body = edited(packed, name, local={22: size} | ({14: crc} if forged else {}),
                       central={24: size} | ({16: crc} if forged else {}))  # fmt: skip
    sizes, remove = [], shutil.rmtree

    def watch(folder, **options):
        sizes.extend(p.stat().st_size for p in Path(folder).rglob("bomb"))
        remove(folder, **options)

    monkeypatch.setattr(module.shutil, "rmtree", watch)
    check_member(site, raw, "top/set", name, f"does not unpack to the {declared} bytes it declares")
    assert len(sizes) == 1 and sizes[0] <= (declared if declared > 10 else 2 * CHUNK)


def test_too_many_files(site, raw, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 4)  # as many as there are
    fetch("set", raw, url=site.url, archive=SET)
    shutil.rmtree(raw / "set")
    monkeypatch.setattr(module, "MAX_FILES", 3)
    check_member(site, raw, "top/set", "top/set/train/2.png", "is one more than the 3 allowed")


def test_too_large_when_unpacked(site, raw, monkeypatch):
    site.body = zipped({**FILES, "top/set/zeros": bytes(2_000_000)})
    monkeypatch.setattr(module, "MAX_BYTES", 2_000_000)
    check_member(
        site, raw, "top/set", "top/set/zeros", "makes it more than the 2000000 bytes allowed"
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_to_download(site, raw, monkeypatch, chunked):
    monkeypatch.setattr(module, "MAX_BYTES", 200_000)
    site.chunked = chunked
    assert refusal(raw, site.url) == gone(
        raw, site, "the file has more than the 200000 bytes allowed"
    )
    assert left(raw) == []


# ---- places


def test_a_set_that_is_there_is_left_alone_without_a_request(site, raw, capsys):
    fetch("set", raw, url=site.url, archive=SET)
    (raw / "set/mine").write_text("notes")
    capsys.readouterr()
    assert fetch("set", raw, url=site.url, archive=SET) == raw / "set"
    assert capsys.readouterr().out == "set: nothing to do, it is there already\n"
    assert len(site.asked) == 1 and tree(raw / "set") == {**PLACED, "mine": b"notes"}


def make_folder(place: Path):
    (place / "train").mkdir(parents=True)
    (place / "train/mine.png").write_bytes(b"mine")


def make_empty_folder(place: Path):
    place.mkdir(parents=True)


def make_file(place: Path):
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")


def make_link(place: Path):
    make_folder(place.parent.parent / "elsewhere")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(place.parent.parent / "elsewhere")


def make_broken_link(place: Path):
    place.parent.mkdir(parents=True)
    place.symlink_to("nowhere")


@pytest.mark.parametrize(
    "make", [make_folder, make_empty_folder, make_file, make_link, make_broken_link]
)
def test_something_else_in_its_place_is_not_touched(site, raw, make):
    make(raw / "set")
    link = (raw / "set").readlink() if (raw / "set").is_symlink() else None
    before, found = tree(raw.parent), int(make in (make_folder, make_link))
    assert refusal(raw, site.url) == (
        f"{raw}/set: is there already, but train/*.png matches {found} files instead of 3; move it "
        "away and run the command again."
    )
    assert tree(raw.parent) == before and left(raw) == ["set"] and not site.asked
    assert link is None or (raw / "set").readlink() == link


def test_a_link_to_a_complete_set_will_do(site, raw, tmp_path):
    fetch("set", tmp_path / "other", url=site.url, archive=SET)
    raw.mkdir(parents=True)
    (raw / "set").symlink_to(tmp_path / "other/set")
    assert fetch("set", raw, url=site.url, archive=SET) == raw / "set"
    assert (raw / "set").is_symlink() and len(site.asked) == 1


def test_what_a_killed_call_left_is_cleared(site, raw):
    make_folder(raw / ".set.partial")
    fetch("set", raw, url=site.url, archive=SET)
    assert left(raw) == ["set"] and tree(raw / "set") == PLACED


def test_no_space_for_the_download(site, raw, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    assert refusal(raw, site.url) == (
        f"{raw}: the download takes 0.3 MB and 0.2 MB are free; make room and run the command again."
    )
    assert left(raw) == []


def test_what_is_here_needs_no_space_again(site, raw, monkeypatch):
    interrupted(site, raw)
    free = iter([200_000, 400_000])  # before the download, before unpacking
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED


def test_no_space_to_unpack_keeps_the_download(site, raw, monkeypatch):
    site.body = zipped({**FILES, "top/set/zeros": bytes(2_000_000)})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert refusal(raw, site.url) == (
        f"{raw}: unpacking takes 2.3 MB and 1.0 MB are free; make room and run the command again."
    )
    assert left(raw) == PARTIAL
    monkeypatch.undo()
    fetch("set", raw, url=site.url, archive=SET)
    assert len(site.asked) == 1 and left(raw) == ["set"]


def test_a_folder_that_cannot_be_written(site, raw):
    raw.parent.mkdir(parents=True)
    raw.write_text("a file")
    assert refusal(raw, site.url) == (
        f"{raw}: cannot be written (File exists); mend that and run the command again."
    )


# ---- the digest and the real sets


def test_the_digest_is_what_the_shell_prints(tmp_path):
    for name in ("b.png", "a/x.png", "a-b.png", "a/B.png", "ä.png", "skip.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    command = "find . -name '*.png' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    shell = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert f"{tree_digest(tmp_path)}  -\n" == shell.stdout


def test_real_camvid_is_what_the_archive_promises(camvid, capsys, tmp_path):
    (tmp_path / "camvid").symlink_to(camvid)
    assert tree_digest(camvid) == ARCHIVES["camvid"].tree_sha256
    assert fetch("camvid", tmp_path) == tmp_path / "camvid"
    assert capsys.readouterr().out == "camvid: nothing to do, it is there already\n"


def test_what_the_archives_hold():
    assert ARCHIVES["camvid"].holds == {
        "train/*.png": 367, "trainannot/*.png": 367, "train.txt": 1,
        "val/*.png": 101, "valannot/*.png": 101, "val.txt": 1,
        "test/*.png": 233, "testannot/*.png": 233, "test.txt": 1,
    }  # fmt: skip
    assert ARCHIVES["kitti"].holds == {
        "training/image_2/*.png": 200,
        "training/semantic/*.png": 200,
    }
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://") and archive.licence.startswith("CC BY-NC")
        assert sum(archive.holds.values()) < module.MAX_FILES

"""Downloads, from a server on this machine that misbehaves on demand."""

import dataclasses
import hashlib
import io
import random
import socket
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from roadseg.data import download as module
from roadseg.data.download import ARCHIVES, Archive, fetch, tree_digest
from roadseg.errors import InputError

noise = random.Random(0)
FILES = {
    "top/README": b"not of the set",
    "top/set/list.txt": b"train/0.png\n",
    **{f"top/set/train/{i}.png": noise.randbytes(100_000) for i in range(3)},
}
PLACED = {name.removeprefix("top/set/"): data for name, data in FILES.items() if "set" in name}


def zipped(files: dict) -> bytes:
    """A zip of {name: content}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
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
    url="http://127.0.0.1:9/nobody-listens.zip",
    folder="top/set",
    expected_counts={"train/*.png": 3, "list.txt": 1},
    licence="CC0",
    about="noise",
    sha256=None,
    tree_sha256=None,
    manual_steps="put the folder train and list.txt into {target}",
)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests += 1
        cut = site.cuts.pop(0) if site.cuts else None
        self.send_response(site.status)
        self.send_header("Content-Length", str(len(site.body)))
        self.end_headers()
        self.wfile.write(site.body[:cut])


@pytest.fixture
def site(monkeypatch):
    """A server with one file, and the switches of its behaviour."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = SimpleNamespace(
        url=f"http://127.0.0.1:{server.server_port}/set.zip",
        body=ZIP,
        status=200,
        cuts=[],  # for each request: bytes before the connection is cut
        requests=0,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "data/raw"


def left(raw: Path) -> list[str]:
    return sorted(path.name for path in raw.iterdir()) if raw.exists() else []


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(raw: Path, url: str | None, archive: Archive = SET) -> str:
    with pytest.raises(InputError) as caught:
        fetch("set", raw, url=url, archive=archive)
    return str(caught.value)


def test_a_download_is_placed_and_leaves_nothing_else(site, raw, capsys):
    assert fetch("set", raw, archive=dataclasses.replace(SET, url=site.url)) == raw / "set"
    assert tree(raw / "set") == PLACED
    assert left(raw) == ["set"]
    printed = capsys.readouterr().out
    assert SET.licence in printed and site.url in printed and sha256(ZIP) in printed


def test_what_is_there_is_not_asked_for_again(site, raw):
    fetch("set", raw, url=site.url, archive=SET)
    assert fetch("set", raw, url=site.url, archive=SET) == raw / "set"
    assert site.requests == 1


def test_a_cut_connection_is_tried_again(site, raw):
    site.cuts = [1000, 0]
    fetch("set", raw, url=site.url, archive=SET)
    assert tree(raw / "set") == PLACED and site.requests == 3


def test_a_connection_that_is_cut_each_time(site, raw):
    site.cuts = [1000] * 9
    message = refusal(raw, site.url)
    assert site.url in message and SET.manual_steps.format(target=raw / "set") in message
    assert left(raw) == []


@pytest.mark.parametrize("known", ["sha256", "tree_sha256"])
def test_checksums_are_compared(site, raw, known):
    right = {"sha256": sha256(ZIP), "tree_sha256": TREE}[known]
    wrong = dataclasses.replace(SET, **{known: "0" * 64})
    assert right in refusal(raw, site.url, wrong)
    assert left(raw) == []
    fetch("set", raw, url=site.url, archive=dataclasses.replace(SET, **{known: right}))
    assert tree(raw / "set") == PLACED


def test_other_answers(site, raw):
    site.status = 404
    assert "404 Not Found" in refusal(raw, site.url)
    site.status, site.body = 200, b"<!DOCTYPE html><title>log in</title>"
    assert "not a zip file" in refusal(raw, site.url)
    site.body = b""
    assert "not a zip file" in refusal(raw, site.url)
    assert left(raw) == []


def test_no_connection(raw, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # but does not listen
        message = refusal(raw, f"http://127.0.0.1:{bound.getsockname()[1]}/set.zip")
    assert "Connection refused" in message and SET.manual_steps.format(target=raw / "set") in message


@pytest.mark.parametrize("url", ["ftp://host/set.zip", "set.zip", "https:///set.zip", "http://[/"])
def test_addresses_that_are_none(raw, url):
    assert url in refusal(raw, url)


def test_unknown_names(raw):
    with pytest.raises(InputError, match="Did you mean 'camvid'"):
        fetch("camvit", raw)


@pytest.mark.parametrize("size", [len(ZIP) // 2, len(ZIP) - 10])
def test_a_truncated_zip(site, raw, size):
    site.body = ZIP[:size]
    assert "Nothing was unpacked" in refusal(raw, site.url)
    assert left(raw) == []


def test_damage_anywhere_is_refused_or_harmless(site, raw):
    small = {"top/set/list.txt": b"a", **{f"top/set/train/{i}.png": b"image" for i in range(3)}}
    whole = zipped(small)
    for place in random.Random(1).sample(range(len(whole)), 60):
        site.body = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        try:
            fetch("set", raw, url=site.url, archive=SET)
        except InputError:
            assert left(raw) == []
        else:
            contents = {name: data for name, data in tree(raw / "set").items() if name != "set"}
            assert all(data in (b"a", b"image") for data in contents.values())
            assert left(raw) == ["set"]
            for file in sorted((raw / "set").rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            (raw / "set").rmdir()


def test_too_few_files(site, raw):
    site.body = zipped({name: data for name, data in FILES.items() if "2.png" not in name})
    assert "train/*.png matches 2 files instead of 3" in refusal(raw, site.url)
    assert left(raw) == []


def test_members_stay_below_the_folder(site, raw):
    site.body = zipped(FILES | {"top/set/../../../../outside": b"x", "/top/set/outside": b"x"})
    fetch("set", raw, url=site.url, archive=SET)
    written = [path for path in raw.parent.parent.rglob("outside") if path.is_file()]
    assert all(path.is_relative_to(raw / "set") for path in written)
    assert left(raw) == ["set"]


def test_more_than_there_is_room_for(site, raw, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "make room" in refusal(raw, site.url)
    assert left(raw) == ["set.zip"]
    monkeypatch.undo()
    fetch("set", raw, url=site.url, archive=SET)  # from the file that is there
    assert site.requests == 1 and left(raw) == ["set"]


def test_more_than_any_set_has(site, raw, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    assert "allowed" in refusal(raw, site.url)
    assert left(raw) == []


@pytest.mark.parametrize("moment", ["download", "unpacking"])
def test_ctrl_c_places_nothing(site, raw, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if moment == "download":
        monkeypatch.setattr(requests.models.Response, "iter_content", interrupt)
    else:
        monkeypatch.setattr(module, "_miscount", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("set", raw, url=site.url, archive=SET)
    assert left(raw) == {"download": [], "unpacking": ["set.zip"]}[moment]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_something_else_in_its_place_is_not_touched(site, raw, kind):
    raw.mkdir(parents=True)
    place = raw / "set"
    {"folder": place.mkdir, "file": place.touch, "link": lambda: place.symlink_to("no")}[kind]()
    assert f"{place}: is there already" in refusal(raw, site.url)
    assert site.requests == 0 and left(raw) == ["set"]


def test_a_folder_that_cannot_be_written(site, raw):
    raw.parent.mkdir(parents=True)
    raw.write_text("a file")
    assert "cannot be written" in refusal(raw, site.url)


def test_the_digest_is_what_the_shell_prints(tmp_path):
    for name in ("b.png", "a/x.png", "a-b.png", "a/B.png", "ä.png", "skip.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    command = "find . -name '*.png' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    shell = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert f"{tree_digest(tmp_path)}  -\n" == shell.stdout


def test_real_camvid_is_what_the_archive_promises(camvid, tmp_path):
    (tmp_path / "camvid").symlink_to(camvid)
    assert tree_digest(camvid) == ARCHIVES["camvid"].tree_sha256
    assert fetch("camvid", tmp_path) == tmp_path / "camvid"

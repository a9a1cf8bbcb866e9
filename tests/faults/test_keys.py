"""Key files as people write and lose them, under a server of two HTTP processes."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import make_key
from tests.support import HTTP, http_processes_of, metric, wait_for

GRACE_S = 3.0
FAILING = "saddlepoint_api_keys_failing_since_timestamp_seconds"


def statuses(server: Any, key: str) -> set[int]:
    """What each of the two HTTP processes says to a key."""
    found = set()
    pids = http_processes_of(server)
    for pid in pids:
        others = [other for other in pids if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            headers = {"authorization": f"Bearer {key}"}
            url = server.url + "/v1/models"
            found.add(HTTP.get(url, headers=headers).status_code)
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    return folder / "keys"


@pytest.fixture
def start(tiny_repository: Path, start_server: Callable[..., Any], path: Path) -> Callable[[], Any]:
    """A server with the key file, and metrics for everyone."""
    from tests.conftest import free_port

    def start() -> Any:
        port = free_port()
        flags = ("--api-keys", str(path), "--api-processes", "2", "--metrics-port", str(port))
        server = start_server(tiny_repository, *flags, "--keys-grace-s", str(GRACE_S))
        server.scrape = Scraped(f"http://127.0.0.1:{port}")
        return server

    return start


class Scraped:
    """The port of the metrics, as `metric` asks it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> httpx.Response:
        return HTTP.get(self._url + path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_another_system(path: Path, start: Callable[[], Any], encoding: str) -> None:
    key = make_key(path, "alice")
    hashed = path.read_text().split()[1]
    text = f"alice {hashed} \t \r\n\r\n# a comment\r\nbob sha256:{'ab' * 32} # no newline"
    path.write_bytes(text.encode(encoding))
    server = start()
    assert statuses(server, key) == {200}
    path.write_bytes(text.replace("alice", "carol").encode("utf-8-sig"))
    assert statuses(server, key) == {200}
    assert metric(server.scrape, FAILING) == 0


def remove(path: Path) -> None:
    path.unlink()


def close_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff\xfe\x80garbage")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_wrong_line(path: Path) -> None:
    path.write_text("dave sha256:" + "cd" * 32 + "\nalice is welcome\n")


def for_all_to_write(path: Path) -> None:
    path.chmod(0o666)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    "spoil",
    [
        remove,
        close_folder,
        become_a_folder,
        become_a_pipe,
        garbage,
        empty,
        one_wrong_line,
        for_all_to_write,
        a_loop,
    ],
)
def test_a_file_that_cannot_be_read_any_more(
    path: Path, start: Callable[[], Any], spoil: Callable[[Path], None]
) -> None:
    key = make_key(path, "alice")
    content = path.read_text()
    server = start()
    spoiled = time.time()
    spoil(path)
    wait_for(lambda: metric(server.scrape, FAILING) > 0)
    assert abs(metric(server.scrape, FAILING) - spoiled) < 10
    # A passing trouble locks nobody out.
    assert 200 in statuses(server, key)
    wait_for(lambda: "the API keys can't be read" in server.log.read_text())
    wait_for(lambda: statuses(server, key) == {401}, timeout_s=GRACE_S + 15)
    assert time.time() - spoiled >= GRACE_S
    assert server.get("/readyz").status_code == 503
    assert server.get("/livez").status_code == 200
    # Whatever it was, a good file ends it.
    if path.parent.exists():
        shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_text(content)
    wait_for(lambda: statuses(server, key) == {200})
    wait_for(lambda: metric(server.scrape, FAILING) == 0)
    assert server.get("/readyz").status_code == 200


def test_a_file_that_may_not_be_read_any_more(
    path: Path, tiny_repository: Path, start_server: Callable[..., Any]
) -> None:
    """Root may read everything, so the server is a root that lacks this right."""
    if os.geteuid():
        pytest.skip("needs root to give a right up")
    prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    key = make_key(path, "alice")
    flags = ("--api-keys", str(path), "--keys-grace-s", "1")
    server = start_server(tiny_repository, *flags, prefix=prefix)
    path.chmod(0o000)
    wait_for(lambda: "Permission denied" in server.log.read_text())
    wait_for(lambda: statuses(server, key) == {401})
    path.chmod(0o644)
    wait_for(lambda: statuses(server, key) == {200})


def in_place(path: Path, text: str) -> None:
    with path.open("r+") as file:
        file.truncate()
        file.flush()
        file.write(text)


def in_place_with_the_old_time(path: Path, text: str) -> None:
    before = path.stat()
    in_place(path, text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_rename(path: Path, text: str) -> None:
    new = path.with_name(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("change", [in_place, in_place_with_the_old_time, by_rename])
def test_a_changed_file_is_followed(
    path: Path, start: Callable[[], Any], change: Callable[[Path, str], None]
) -> None:
    """Of the same length, many times, as fast as it is noticed."""
    one = make_key(path, "alice")
    text_one = path.read_text()
    path.unlink()
    two = make_key(path, "alice")
    text_two = path.read_text()
    server = start()
    for _ in range(3):
        change(path, text_one)
        wait_for(lambda: statuses(server, one) == {200} and statuses(server, two) == {401})
        change(path, text_two)
        wait_for(lambda: statuses(server, one) == {401} and statuses(server, two) == {200})


def test_a_mounted_secret_is_followed(path: Path, start: Callable[[], Any], tmp_path: Path) -> None:
    """As a kubelet writes it: keys -> ..data/keys, ..data -> a folder with a date."""
    folder = path.parent
    one, two = make_key(tmp_path / "one", "alice"), make_key(tmp_path / "two", "alice")
    first, second = folder / "..2026_01", folder / "..2026_02"
    for version, source in ((first, "one"), (second, "two")):
        version.mkdir()
        shutil.copy(tmp_path / source, version / "keys")
    data = folder / "..data"
    data.symlink_to(first.name)
    path.symlink_to("..data/keys")
    server = start()
    assert statuses(server, one) == {200}
    temporary = folder / "..data_tmp"
    temporary.symlink_to(second.name)
    temporary.rename(data)
    shutil.rmtree(first)
    wait_for(lambda: statuses(server, one) == {401} and statuses(server, two) == {200})


def test_the_last_key_can_be_taken_away(path: Path, start: Callable[[], Any]) -> None:
    """By the command: that is no damage, and holds at once."""
    from serving.keys.__main__ import main

    key = make_key(path, "alice")
    server = start()
    assert main(["remove", str(path), "alice"]) == 0
    wait_for(lambda: statuses(server, key) == {401}, timeout_s=GRACE_S - 0.5)
    assert metric(server.scrape, FAILING) == 0

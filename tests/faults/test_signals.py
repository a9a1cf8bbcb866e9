"""Signals that a server gets, by purpose or by mistake, at any time of its life."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.client import LOST, Load, run
from tests.conftest import free_port
from tests.serving.conftest import make_key
from tests.serving.process.test_lifecycle import processes_of
from tests.support import HTTP, http_processes_of, wait_for, workers_of

pytestmark = pytest.mark.chaos

STRAY = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGWINCH,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
)


async def _load_while(server: Any, act: Callable[[], None], after_s: float) -> Load:
    load, numbers = Load(server.url), itertools.count()

    def body() -> bytes:
        return json.dumps({"model": "grey", "seeds": [next(numbers)] * 4}).encode()

    loops = [asyncio.create_task(load.closed_loop(body)) for _ in range(8)]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(act)
    await asyncio.sleep(after_s)
    load.going = False
    await asyncio.gather(*loops)
    return load


@pytest.mark.parametrize("whom", ["main", "http", "worker", "all"])
def test_stray_signals_do_no_harm(
    tiny_repository: Path, start_server: Callable[..., Any], whom: str
) -> None:
    server = start_server(tiny_repository, "--api-processes", "2")
    https, workers = http_processes_of(server), workers_of(server)
    pids = {"main": [server.process.pid], "http": https, "worker": workers}
    chosen = pids[whom] if whom in pids else [*pids["main"], *https, *workers]

    def send() -> None:
        for number in STRAY:
            for pid in chosen:
                os.kill(pid, number)
            time.sleep(0.02)

    load = run(_load_while(server, send, after_s=1.0))
    assert load.fates == {200: len(load.answers)}
    assert (http_processes_of(server), workers_of(server)) == (https, workers)
    for _ in range(10):
        assert server.get("/readyz").status_code == 200
    assert server.stop() == 0, server.log.read_text()


def test_sigquit_drains(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tiny_repository)
    group = server.process.pid

    def quit_all() -> None:
        os.killpg(group, signal.SIGQUIT)  # as a terminal does

    load = run(_load_while(server, quit_all, after_s=3.0))
    assert server.process.wait(30) == 0, server.log.read_text()
    assert load.count(200) > 20
    assert load.count(LOST) == 0, load.fates
    assert not list(tmp_path.glob("saddlepoint-*"))
    wait_for(lambda: not processes_of(group))


def test_sighup_rereads_the_keys(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    old = make_key(keys, "old")
    flags = ("--api-keys", str(keys), "--api-processes", "2", "--reload-interval-s", "0")
    server = start_server(tiny_repository, *flags)
    new = make_key(keys, "new")
    server.process.send_signal(signal.SIGHUP)

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return HTTP.get(server.url + "/v1/models", headers=headers).status_code

    wait_for(lambda: all(status(new) == 200 for _ in range(6)))
    # A look that was asked for says this, in each HTTP process; that of every second says nothing.
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log.read_text().count("read again: 2 are valid, as before") >= 2)
    assert status(old) == 200
    assert server.process.poll() is None


def test_sighup_looks_at_the_repository_that_is_never_looked_at(
    tmp_path: Path, make_bundle: Callable[..., Any], start_server: Callable[..., Any]
) -> None:
    from models.repository import Repository

    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle())
    server = start_server(repository.root, "--reload-interval-s", "0")
    repository.publish("tiny", make_bundle(weights_seed=1))
    assert server.generate(seeds=[1]).headers["x-model-version"] == "1"
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.generate(seeds=[1]).headers["x-model-version"] == "2")


def test_the_folder_of_a_server_that_was_killed_goes_with_the_next_start(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    foreign = tmp_path / "saddlepoint-notes"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("not a server's")
    alive = start_server(tiny_repository, environ=environ)
    (of_alive,) = set(tmp_path.glob("saddlepoint-*")) - {foreign}
    dead = start_server(tiny_repository, environ=environ)
    (of_dead,) = set(tmp_path.glob("saddlepoint-*")) - {foreign, of_alive}
    os.killpg(dead.process.pid, signal.SIGKILL)
    dead.process.wait()
    assert of_dead.exists()
    following = start_server(tiny_repository, environ=environ)
    assert not of_dead.exists()
    assert of_alive.exists()
    assert (foreign / "mine.txt").exists()
    assert alive.generate(model="grey", seeds=[1]).status_code == 200
    assert following.stop() == alive.stop() == 0
    assert list(tmp_path.glob("saddlepoint-*")) == [foreign]


def test_children_of_a_killed_server_end_and_keep_its_folder_till_then(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tiny_repository)
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not processes_of(server.process.pid))
    start_server(tiny_repository)
    assert len(list(tmp_path.glob("saddlepoint-*"))) == 1


@pytest.mark.parametrize(
    ("number", "tenths"),
    [
        *((signal.SIGTERM, 3), (signal.SIGINT, 7), (signal.SIGQUIT, 11), (signal.SIGTERM, 15)),
        *((signal.SIGINT, 19), (signal.SIGQUIT, 23), (signal.SIGTERM, 27), (signal.SIGINT, 31)),
    ],
)
def test_a_signal_while_it_starts(
    tiny_repository: Path, number: int, tenths: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whenever it comes, it ends all of it, soon, and leaves nothing."""
    tmp_path = tmp_path_factory.mktemp("s")  # a short name: sockets have 107 bytes for theirs
    arguments = ["--repository", str(tiny_repository), "--port", str(free_port())]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.run", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            start_new_session=True,
        )
    try:
        time.sleep(tenths / 10)
        os.killpg(process.pid, number)
        code = process.wait(60)
        # Before the first line of ours the interpreter ends as it likes.
        log_text = (tmp_path / "log").read_text()
        assert code in (0, -number) or (code == 1 and number == signal.SIGINT), log_text
        assert code == 0 or not (tmp_path / "log").read_text().count("INFO")
        wait_for(lambda: not processes_of(process.pid))
        assert not list(tmp_path.glob("saddlepoint-*"))
        assert "Traceback" not in log_text or code != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_sighup_while_it_starts_ends_nothing(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tiny_repository, ready=False)
    wait_for(lambda: bool(list(tmp_path.glob("saddlepoint-*"))))
    for _ in range(25):
        os.killpg(server.process.pid, signal.SIGHUP)
        time.sleep(0.1)
    server.wait_until("/readyz", 200)
    assert "starting it again" not in server.log.read_text()

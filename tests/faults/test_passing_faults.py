"""Faults that pass: a slow copy, no descriptors, no memory, storage that is away for a while."""

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.faults.test_model_failures import assert_fit_for_clients
from tests.support import metric, wait_for, workers_of

INTERVAL = ("--reload-interval-s", "0.2", "--cache-bytes", "0")
SOON_S = 40
FAILING = "saddlepoint_loop_failing_since_timestamp_seconds"
REFUSED = "saddlepoint_model_refused_since_timestamp_seconds"


@pytest.fixture
def repository(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle(weights_seed=1))
    return repository


def version_of(server: Any, **request: Any) -> str:
    response = server.generate(model="tiny", seeds=[1], **request)
    assert response.status_code == 200, response.text
    return str(response.headers["x-model-version"])


def elsewhere(bundle: Bundle, folder: Path, version: int) -> Path:
    """A published version's folder, as another machine has it."""
    other = Repository(folder)
    for _ in range(version):
        published = other.publish("tiny", bundle)
    return published.path


@pytest.mark.parametrize("first", ["manifest.json", "model.onnx"])
def test_a_slow_copy_is_served_when_it_is_complete(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    start_server: Callable[..., Any],
    first: str,
) -> None:
    server = start_server(repository.root, *INTERVAL)
    source = elsewhere(make_bundle(weights_seed=5), tmp_path / "elsewhere", 2)
    target = repository.root / "tiny" / "2"
    target.mkdir()
    (repository.root / "tiny" / "CURRENT").write_text("2\n")
    names = sorted(os.listdir(source), key=lambda name: name != first)
    for name in names:
        content = (source / name).read_bytes()
        half = len(content) // 2
        with (target / name).open("wb") as file:
            for part in (content[:half], content[half:]):
                file.write(part)
                file.flush()
                time.sleep(0.5)  # longer than a look
                assert version_of(server) in ("1", "2")
    wait_for(lambda: version_of(server) == "2", SOON_S)
    assert metric(server, REFUSED) == 0


def limit(pid: int, what: int, soft: int) -> None:
    _, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))


@contextlib.contextmanager
def limited(pid: int, what: int, value: int) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    try:
        limit(pid, what, value)
    except PermissionError:
        pytest.skip("prlimit is not permitted here")
    try:
        yield
    finally:
        limit(pid, what, before[0])


def used_memory(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


@pytest.mark.parametrize("what", ["descriptors", "memory"])
def test_what_a_worker_lacks_for_a_while_is_not_remembered_for_ever(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    what: str,
) -> None:
    server = start_server(repository.root, *INTERVAL)
    (worker,) = workers_of(server)
    limits = {
        "descriptors": (resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{worker}/fd")) + 1),
        "memory": (resource.RLIMIT_AS, used_memory(worker) + (4 << 20)),
    }
    bundle = make_bundle(weights_seed=5, z_dim=1024, size=64, channels=3)
    with limited(worker, *limits[what]):
        repository.publish("tiny", bundle)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert server.generate(model="tiny", seeds=[1]).status_code == 200
    wait_for(lambda: version_of(server) == "2", SOON_S)
    assert workers_of(server) == [worker]


def test_no_descriptors_in_an_http_process(
    repository: Repository, make_bundle: Callable[..., Bundle], start_server: Callable[..., Any]
) -> None:
    """It could not read a version by number; it can afterwards."""
    from tests.support import http_processes_of

    repository.publish("tiny", make_bundle(weights_seed=5))
    server = start_server(repository.root, *INTERVAL)
    (process,) = http_processes_of(server)
    num = len(os.listdir(f"/proc/{process}/fd"))
    with limited(process, resource.RLIMIT_NOFILE, num + 1):  # one for the connection itself
        answer = server.generate(model="tiny", seeds=[1], version=1)
        assert answer.status_code in (200, 503)
        assert_fit_for_clients(answer.text, repository.root)
    wait_for(lambda: version_of(server, version=1) == "1", 10)


AWAY: dict[str, Callable[[Path], None]] = {
    "renamed": lambda root: None,
    "an empty folder in its place": lambda root: root.mkdir(),
}


@pytest.mark.parametrize("kind", AWAY)
def test_storage_that_goes_away_costs_nothing_that_is_loaded(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    kind: str,
) -> None:
    repository.publish("tiny", make_bundle(weights_seed=2))
    server = start_server(repository.root, *INTERVAL)
    assert version_of(server, version=1) == "1"
    away = repository.root.with_name("away")
    repository.root.rename(away)
    AWAY[kind](repository.root)
    wait_for(lambda: metric(server, FAILING) > 0)
    for _ in range(5):
        assert version_of(server) == "2"
        assert version_of(server, version=1) == "1"
        assert server.get("/readyz").status_code == 200
    log = server.log.read_text()
    assert log.count("what is loaded is kept") >= 1
    assert log.count("repository failed, and is tried again") == 1

    if repository.root.exists():
        repository.root.rmdir()
    away.rename(repository.root)
    wait_for(lambda: metric(server, FAILING) == 0, SOON_S)
    wait_for(lambda: "repository works again" in server.log.read_text())
    repository.publish("tiny", make_bundle(weights_seed=3))
    wait_for(lambda: version_of(server) == "3", SOON_S)


def test_a_worker_that_starts_while_the_storage_is_away(
    repository: Repository, start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, *INTERVAL)
    away = repository.root.with_name("away")
    repository.root.rename(away)
    os.kill(workers_of(server)[0], 9)
    server.wait_until("/readyz", 503)
    time.sleep(1)
    away.rename(repository.root)
    server.wait_until("/readyz", 200)
    assert version_of(server) == "1"


POWERS = "-dac_override,-dac_read_search"
PLAIN = ("setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}")


@pytest.fixture
def without_powers(tmp_path: Path) -> tuple[str, ...]:
    """Permissions hold for this server, also where it is root's."""
    if os.geteuid() != 0:
        return ()
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    try:
        done = subprocess.run([*PLAIN, "ls", str(folder)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("setpriv is not here")
    if "Permission denied" not in done.stderr:
        pytest.skip("root's powers can't be given up here")
    return PLAIN


@pytest.mark.parametrize("part", [".", "tiny", "tiny/1"])
def test_a_folder_that_cannot_be_read_for_a_while(
    repository: Repository,
    make_bundle: Callable[..., Bundle],
    start_server: Callable[..., Any],
    without_powers: tuple[str, ...],
    part: str,
) -> None:
    server = start_server(repository.root, *INTERVAL, prefix=without_powers)
    assert version_of(server) == "1"
    folder = repository.root / part
    mode = folder.stat().st_mode
    folder.chmod(0)
    try:
        wait_for(lambda: metric(server, FAILING) > 0 or metric(server, REFUSED) > 0)
        for _ in range(5):
            assert version_of(server) == "1"
            assert server.get("/readyz").status_code == 200
    finally:
        folder.chmod(mode)
    wait_for(lambda: metric(server, FAILING) == 0 and metric(server, REFUSED) == 0, SOON_S)
    repository.publish("tiny", make_bundle(weights_seed=3))
    wait_for(lambda: version_of(server) == "2", SOON_S)


def test_since_when_a_model_is_refused_is_shown(
    repository: Repository, make_bundle: Callable[..., Bundle], start_server: Callable[..., Any]
) -> None:
    server = start_server(repository.root, *INTERVAL)
    assert metric(server, REFUSED) == 0
    began = time.time()
    broken = repository.publish("tiny", make_bundle(weights_seed=2), make_current=False)
    whole = broken.model_path.read_bytes()
    broken.model_path.write_bytes(whole[:-1])
    (repository.root / "tiny" / "CURRENT").write_text("2\n")
    wait_for(lambda: metric(server, REFUSED) > 0)
    since = metric(server, REFUSED)
    assert began - 1 < since < time.time()
    time.sleep(2)  # other tries
    assert metric(server, REFUSED) == since
    broken.model_path.write_bytes(whole)
    wait_for(lambda: version_of(server) == "2", SOON_S)
    wait_for(lambda: metric(server, REFUSED) == 0)

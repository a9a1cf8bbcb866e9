"""Following a key file: which keys are valid after each change, and when all are refused."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from serving.errors import SettingsError
from serving.http.auth import AccessControl
from serving.http.rate_limit import RateLimiter
from serving.process import key_watch
from serving.process.key_watch import KeyFile, KeyWatch

GRACE_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Watched:
    """A key file, who follows it, and a clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("alice", "aa")
        self.access = AccessControl({}, RateLimiter(-1))
        file = KeyFile.read(path)
        self.access.replace(file.keys)
        self.watch = KeyWatch(file, self.access, GRACE_S)

    def write(self, name: str, digest: str) -> None:
        self.path.write_text(f"{name} sha256:{digest * 32}\n")

    @property
    def names(self) -> set[str]:
        """Whose keys are valid."""
        return {key.name for key in self.access._keys.values()}

    async def look(self) -> None:
        """One turn, at once."""
        self.watch.look_now()
        await self.watch._turn()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(key_watch, "time", clock)
    return clock


@pytest.fixture
def watched(tmp_path: Path, clock: Clock) -> Watched:
    return Watched(tmp_path / "keys")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_what_is_in_the_file_is_in_force(watched: Watched) -> None:
    async def main() -> None:
        await watched.look()
        assert watched.names == {"alice"}
        before = watched.path.stat()
        watched.write("carol", "bb")
        os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await watched.look()
        assert watched.names == {"carol"}
        watched.path.write_text("# nobody\n")
        await watched.look()
        assert watched.names == set()
        assert watched.watch.fault is None

    run(main)


def test_a_file_that_cannot_be_used_holds_for_a_while(
    watched: Watched, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        for text in ("garbage\n", "", "  \n", "\ufeff\r\n"):
            watched.path.write_text(text)
            await watched.look()
            clock.now += GRACE_S - 1
            await watched.look()
            assert watched.names == {"alice"}, text
            assert watched.watch.fault is None
            clock.now += 2
            await watched.look()
            assert watched.names == set()
            assert watched.watch.fault is not None
            watched.write("alice", "aa")
            await watched.look()
            assert watched.names == {"alice"}
            assert watched.watch.fault is None

    run(main)
    assert caplog.text.count("every key is refused") == 4


def test_what_is_wrong_is_said_once_for_as_long_as_it_stays_the_same(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        watched.path.unlink()
        for _ in range(5):
            await watched.look()
        watched.path.write_text("garbage\n")
        for _ in range(5):
            await watched.look()

    run(main)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert "No such file" in said[0]
    assert "line 1" in said[1]


def test_nobody_believes_a_file_that_is_being_written(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut between two lines it could be read, and half of the keys would be refused."""
    whole = f"alice sha256:{'aa' * 32}\nbob sha256:{'bb' * 32}\n"
    contents = [whole[:0], whole[:71], whole[:90], whole, whole]
    monkeypatch.setattr(key_watch, "read_key_file", lambda path: contents.pop(0).encode())

    async def main() -> None:
        await watched.look()
        assert watched.names == {"alice", "bob"}

    run(main)


def test_a_file_that_changes_all_the_time_cannot_be_read(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(10_000))
    monkeypatch.setattr(key_watch, "read_key_file", lambda path: b"# %d" % next(numbers))

    async def main() -> None:
        await watched.look()
        assert watched.names == {"alice"}
        assert watched.watch._failing_since is not None

    run(main)


def test_storage_that_does_not_answer_is_a_file_that_cannot_be_read(
    watched: Watched, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_watch, "_TIMEOUT_S", 0.01)
    answers = threading.Event()
    readers = []

    def read(path: Path) -> bytes:
        readers.append(threading.current_thread())
        answers.wait()
        return path.read_bytes()

    monkeypatch.setattr(key_watch, "read_key_file", read)

    async def main() -> None:
        for _ in range(5):
            await watched.look()
        assert len(readers) == 1  # no thread more for each look
        assert watched.names == {"alice"}
        clock.now += GRACE_S
        await watched.look()
        assert watched.names == set()
        answers.set()
        readers[0].join()
        await asyncio.sleep(0.05)
        await watched.look()
        assert watched.names == {"alice"}

    run(main)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(24, "Too many open files"), BaseException("foreign")]
)
def test_after_any_exception_the_grace_holds_and_it_goes_on(
    watched: Watched, clock: Clock, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(path: Path) -> bytes:
        raise error

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(key_watch, "read_key_file", fail)
            with pytest.raises(type(error)):
                await watched.look()
            assert watched.names == {"alice"}
            clock.now += GRACE_S
            with pytest.raises(type(error)):
                await watched.look()
            assert watched.names == set()
        await watched.look()
        assert watched.names == {"alice"}

    run(main)


def test_it_looks_by_itself_until_it_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_watch, "LOOK_S", 0.01)
    watched = Watched(tmp_path / "keys")

    async def main() -> None:
        watching = asyncio.create_task(watched.watch.run())
        watched.write("bob", "bb")
        async with asyncio.timeout(20):
            while watched.names != {"bob"}:
                await asyncio.sleep(0.01)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    run(main)


def test_the_first_read_is_refused_where_it_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    with pytest.raises(SettingsError, match=r"Is a directory|is no file"):
        KeyFile.read(tmp_path / "keys")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="is no file"):
        KeyFile.read(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    assert KeyFile.read(tmp_path / "empty").keys == {}  # warned of, at the start

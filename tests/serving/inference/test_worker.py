"""A worker answers every frame, whatever the repository, a model or the way back raises."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from serving.inference import parking, worker
from serving.inference.frames import (
    Announce,
    Beat,
    Failed,
    FrameProtocol,
    Made,
    Message,
    Parked,
    Refresh,
    Refreshed,
    Run,
)
from serving.inference.loading import Load
from serving.inference.progress import Progress
from serving.inference.worker import Worker
from serving.observability import metrics
from tests.serving.exceptions import KINDS

Z = np.zeros((2, 3), np.float32)


class FakeEngines:
    """Stands for an EngineManager and its engine; what they raise is the test's."""

    root = Path("/repository")
    max_rows = 64
    expected_s = 0.0
    is_steady = True

    def __init__(self) -> None:
        self.loaded = False
        self.errors: list[BaseException] = []
        self.refresh_errors: list[BaseException] = []
        self.num_refreshes = 0
        self.loading = self.troubled = False
        self.faults: dict[str, str] = {}
        self.images: Any = np.ones((2, 1, 1, 1), np.uint8)
        self.pending: Load | None = None
        self.on_load_end: Callable[[], None] = lambda: None
        self.on_make: Callable[[], None] = lambda: None
        self.num_tried = 0

    def announce(self) -> Announce:
        return Announce([], [], "cpu", 1, self.faults, starting=False)

    def get(self, digest: str) -> Any:
        return self if self.loaded or digest == "loaded" else None

    def load(self, name: str, version: int, digest: str) -> Load:
        self._raise(self.errors)
        if self.pending is not None:
            return self.pending
        load = Load()
        load.engine.set_result(self)  # type: ignore[arg-type]
        return load

    def refresh(self, *, again: bool = False, only_troubled: bool = False) -> bool:
        self.num_refreshes += 1
        self._raise(self.refresh_errors)
        return True

    def make(self, *arrays: Any, alone: bool) -> Any:
        self.on_make()
        self._raise(self.errors)
        return self.images

    def try_device(self) -> None:
        self.num_tried += 1
        self._raise(self.errors)

    def padded(self, num_rows: int) -> int:
        return num_rows + 1

    def _raise(self, errors: list[BaseException]) -> None:
        if errors:
            raise errors.pop(0)


class Client:
    """An HTTP process's end of the socket."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.protocol: FrameProtocol

    def make_protocol(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, lambda protocol: None)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self.protocol = protocol

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        self.messages.put_nowait(message)

    async def next(self) -> Message:
        """The next message but announcements, heartbeats and that a batch waits."""
        while True:
            message = await asyncio.wait_for(self.messages.get(), 10)
            if not isinstance(message, Announce | Beat | Parked):
                return message

    def send(self, number: int, digest: str = "d") -> None:
        """Sends a batch of two rows."""
        self.protocol.send(Run(number, "a", 1, digest, 2, 3, has_label=False, has_psi=False), [Z])

    async def run(self, number: int) -> Message:
        """The answer to a batch."""
        self.send(number)
        return await self.next()


@asynccontextmanager
async def connected(
    engines: FakeEngines,
    folder: Path,
    reload_interval_s: float = 0,
    canary_s: float | None = None,
) -> AsyncIterator[Client]:
    path = folder / "socket"
    progress = Progress(timeout_s=60, run_limit_s=60, uses_processors=True)
    serving_worker = Worker(
        engines,  # type: ignore[arg-type]
        progress,
        path=path,
        reload_interval_s=reload_interval_s,
        lanes=1,
        canary_s=canary_s,
    )
    serving = asyncio.create_task(serving_worker.serve())
    client = Client()
    async with asyncio.timeout(5):
        while not path.exists():
            await asyncio.sleep(0)
        await asyncio.get_running_loop().create_unix_connection(client.make_protocol, str(path))
    yield client
    serving_worker.stop()
    client.protocol.transport.close()
    await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_cannot_be_loaded_is_answered_whatever_is_raised(
    tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        async with connected(engines, tmp_path) as client:
            engines.errors.append(KINDS[kind]())
            answer = await client.run(1)
            assert isinstance(answer, Failed)
            assert answer.reason.startswith("version 1 of model 'a' is refused: it can't be loaded")
            engines.loaded = True
            assert isinstance(await client.run(2), Made)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_run_is_answered_in_a_thread_and_in_the_event_loop(
    tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        engines.loaded = True
        reason = "model 'a' (version 1) failed with a batch of 2; the server's log says more"
        by_version = not isinstance(KINDS[kind](), OSError | MemoryError)
        async with connected(engines, tmp_path) as client:
            engines.errors.append(KINDS[kind]())
            assert await client.run(1) == Failed(1, reason, by_version)
            assert isinstance(await client.run(2), Made)  # quick, so from now on in the loop
            engines.errors.append(KINDS[kind]())
            assert await client.run(3) == Failed(3, reason, by_version)
            assert isinstance(await client.run(4), Made)

    asyncio.run(scenario())


def test_a_run_that_cannot_be_counted_is_answered_with_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        engines.loaded = True
        monkeypatch.setattr(metrics, "PADDED_ROWS", None)
        async with connected(engines, tmp_path) as client:
            for number in (1, 2):
                assert isinstance(await client.run(number), Made)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_look_at_the_repository_is_answered_and_not_the_last(
    tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        async with connected(engines, tmp_path, reload_interval_s=60) as client:
            async with asyncio.timeout(5):
                while not engines.num_refreshes:
                    await asyncio.sleep(0)
            engines.refresh_errors.append(KINDS[kind]())
            client.protocol.send(Refresh(7))
            answer = await client.next()
            assert isinstance(answer, Refreshed)
            assert answer.fault.startswith("the repository: it can't be")
            client.protocol.send(Refresh(8))  # which doesn't wait for the pause to end
            assert await client.next() == Refreshed(8, "")

    asyncio.run(scenario())


def test_a_look_that_never_ends_is_said_and_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(worker, "_STORAGE_S", 0.05)
        monkeypatch.setattr(worker, "_LEAVE_BEHIND_S", 0.2)
        engines, let_go = FakeEngines(), threading.Event()
        refresh = engines.refresh

        def hang(**kwargs: Any) -> bool:
            if engines.num_refreshes < 2:
                engines.num_refreshes += 1
                let_go.wait(30)
            return refresh(**kwargs)

        monkeypatch.setattr(engines, "refresh", hang)
        try:
            async with connected(engines, tmp_path, reload_interval_s=0.05) as client:
                client.protocol.send(Refresh(1))
                answer = await client.next()
                assert isinstance(answer, Refreshed)
                assert answer.fault
                async with asyncio.timeout(10):
                    while engines.num_refreshes < 4:
                        await asyncio.sleep(0.01)
                client.protocol.send(Refresh(2))
                assert await client.next() == Refreshed(2, "")
        finally:
            let_go.set()

    asyncio.run(scenario())


def test_who_asked_for_a_refresh_waits_for_the_loads_that_it_began(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        async with connected(engines, tmp_path, reload_interval_s=60) as client:
            engines.loading = True
            client.protocol.send(Refresh(7))
            async with asyncio.timeout(5):
                while engines.num_refreshes < 2:
                    await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            assert not any(isinstance(m, Refreshed) for m in client.messages._queue)  # type: ignore[attr-defined]
            engines.loading = False
            engines.faults = {"a": "corrupt"}
            engines.on_load_end()
            assert await client.next() == Refreshed(7, "")

    asyncio.run(scenario())


def test_images_that_no_frame_holds_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        engines.loaded = True
        async with connected(engines, tmp_path) as client:
            send = FrameProtocol.send

            def send_none(self: FrameProtocol, message: Message, arrays: Any = ()) -> None:
                if isinstance(message, Made):
                    raise OverflowError("too large")
                send(self, message, arrays)

            monkeypatch.setattr(FrameProtocol, "send", send_none)
            answer = await client.run(1)
            assert isinstance(answer, Failed)
            assert "could not be sent" in answer.reason

    asyncio.run(scenario())


def test_an_announcement_that_cannot_be_sent_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        async with connected(engines, tmp_path, reload_interval_s=60) as client:
            send, errors = FrameProtocol.send, [make() for make in [*KINDS.values()][:3]]

            def send_later(self: FrameProtocol, message: Message, arrays: Any = ()) -> None:
                if isinstance(message, Announce) and errors:
                    raise errors.pop()
                send(self, message, arrays)

            monkeypatch.setattr(FrameProtocol, "send", send_later)
            engines.faults = {"a": "corrupt"}
            async with asyncio.timeout(20):
                while not isinstance(message := await client.messages.get(), Announce) or (
                    not message.faults
                ):
                    pass
            assert not errors

    asyncio.run(scenario())


def test_heartbeats_come_while_a_run_takes_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines, let_go = FakeEngines(), threading.Event()
        engines.loaded = True
        engines.on_make = lambda: let_go.wait(30)  # type: ignore[assignment, return-value]
        async with connected(engines, tmp_path) as client:
            client.send(1)
            beats = 0
            async with asyncio.timeout(20):
                while beats < 4:
                    beats += isinstance(await client.messages.get(), Beat)
            let_go.set()
            assert isinstance(await client.next(), Made)

    asyncio.run(scenario())


def test_batches_that_wait_for_a_load_are_bounded_and_take_no_slot(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        engines.pending = Load()
        async with connected(engines, tmp_path) as client:
            num = parking.MAX_ROWS // 2 + 1
            for number in range(num):
                client.send(number)
            parked, refused = set(), set()
            while len(parked) + len(refused) < num:
                message = await asyncio.wait_for(client.messages.get(), 10)
                if isinstance(message, Parked):
                    parked.add(message.batch)
                elif isinstance(message, Failed):
                    refused.add(message.batch)
            assert refused == {num - 1}
            client.send(num, "loaded")
            assert await client.next() == Made(num, (2, 1, 1, 1), mock.ANY)
            engines.pending.engine.set_result(engines)  # type: ignore[arg-type]
            answered = {message.batch for message in [await client.next() for _ in parked]}  # type: ignore[union-attr]
            assert answered == parked

    asyncio.run(scenario())


def test_an_idle_device_is_tried_again_and_again_and_a_busy_one_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines, let_go = FakeEngines(), threading.Event()
        engines.loaded = True
        engines.errors.append(RuntimeError("CUDA failure 1: invalid argument"))
        engines.on_make = lambda: let_go.wait(30)  # type: ignore[assignment, return-value]
        async with connected(engines, tmp_path, canary_s=0.01) as client:
            async with asyncio.timeout(10):
                while engines.num_tried < 3:
                    await asyncio.sleep(0.01)
            client.send(1)
            async with asyncio.timeout(10):
                last = -1  # until a turn or more of it has passed without one
                while last != engines.num_tried:
                    last = engines.num_tried
                    await asyncio.sleep(0.05)
            let_go.set()
            assert isinstance(await client.next(), Made)
            while engines.num_tried == last:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_socket_that_was_removed_is_there_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines = FakeEngines()
        engines.loaded = True
        async with connected(engines, tmp_path) as client:
            path = tmp_path / "socket"
            path.unlink()
            async with asyncio.timeout(10):
                while not path.exists():
                    await asyncio.sleep(0.05)
            assert isinstance(await client.run(1), Made)  # over the connection of before
            other = Client()
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(other.make_protocol, str(path))
            assert isinstance(await other.run(1), Made)
            other.protocol.transport.close()

    asyncio.run(scenario())

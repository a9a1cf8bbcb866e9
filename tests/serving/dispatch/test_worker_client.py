"""The client of a worker: what it holds comes back, whatever ends the connection or a waiter."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.dispatch.batcher import Batcher
from serving.dispatch.worker_client import WorkerClient
from serving.errors import UnavailableProblem
from serving.inference.frames import (
    Announce,
    Beat,
    Failed,
    FrameProtocol,
    Identity,
    Made,
    Message,
    Parked,
    Refresh,
    Refreshed,
    Run,
)

A = Identity("a", 1, "digest", 2, False)
TIMEOUT_S = 1.0


@dataclass
class FakeCatalogue:
    """Takes announcements, or raises what a test has put there."""

    errors: list[BaseException] = field(default_factory=list)
    workers: list[object] = field(default_factory=list)

    def announce(self, worker: object, announce: Announce) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.workers.append(worker)

    def forget(self, worker: object) -> None:
        self.workers.remove(worker)


class FakeServer:
    """The worker's end of the socket; it answers when the test says so."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.refreshes: list[Refresh] = []
        self.protocol: FrameProtocol
        self.came = asyncio.Event()
        self.starting = False
        self.silent = False

    def make_protocol(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, lambda protocol: None)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self.protocol = protocol
        if not self.silent:
            protocol.send(Announce([], [], "cpu", 1, {}, starting=self.starting))

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        if isinstance(message, Run):
            self.runs.append(message)
        elif isinstance(message, Refresh):
            self.refreshes.append(message)
        self.came.set()

    async def next(self) -> None:
        """Waits for the next frame."""
        async with asyncio.timeout(5):
            await self.came.wait()
        self.came.clear()


def make_batcher() -> Batcher:
    return Batcher(
        max_batch_rows=4,
        max_waiting_rows=100,
        on_made=lambda batch, compute_s: None,
        on_load=lambda: None,
        recovery_s=0.05,
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@contextmanager
def failures() -> Iterator[list[dict[str, Any]]]:
    """What the event loop hears of exceptions that nobody caught."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
    yield heard
    assert not heard


class Setup:
    """A client, connected to a fake worker, with a batcher of its own."""

    def __init__(self, folder: Path) -> None:
        self.server, self.batcher = FakeServer(), make_batcher()
        self.catalogue = FakeCatalogue()
        self.client = WorkerClient(
            folder / "worker",
            self.batcher,
            self.catalogue,  # type: ignore[arg-type]
            timeout_s=TIMEOUT_S,
        )
        self._folder = folder

    async def __aenter__(self) -> "Setup":
        loop = asyncio.get_running_loop()
        path = str(self._folder / "worker")
        self.listener = await loop.create_unix_server(self.server.make_protocol, path)
        self.running = asyncio.create_task(self.client.run())
        await until(lambda: self.batcher.workers)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        self.client.close()
        self.listener.close()


def test_a_cancelled_refresh_does_not_keep_batches_from_coming_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        with failures():
            async with Setup(tmp_path) as setup:
                refreshing = asyncio.create_task(setup.client.refresh())
                await setup.server.next()
                ticket = setup.batcher.submit(A, seeds=[1])
                await setup.server.next()
                refreshing.cancel()
                await asyncio.wait([refreshing])
                setup.server.protocol.transport.abort()
                await setup.server.next()  # tried again over the next connection
                image = np.ones((1, 1, 4, 1), np.uint8)
                answer = Made(setup.server.runs[1].batch, image.shape, 0.001)  # type: ignore[arg-type]
                setup.server.protocol.send(answer, [image])
                assert (await asyncio.wait_for(ticket.done, 5) == image).all()
                assert setup.batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_an_answer_to_a_cancelled_refresh_does_not_end_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        with failures():
            async with Setup(tmp_path) as setup:
                refreshing = asyncio.create_task(setup.client.refresh())
                await setup.server.next()
                refreshing.cancel()
                await asyncio.wait([refreshing])
                setup.server.protocol.send(Refreshed(setup.server.refreshes[0].number, ""))
                ticket = setup.batcher.submit(A, seeds=[1])
                await setup.server.next()
                image = np.ones((1, 1, 4, 1), np.uint8)
                answer = Made(setup.server.runs[0].batch, image.shape, 0.001)  # type: ignore[arg-type]
                setup.server.protocol.send(answer, [image])
                assert (await asyncio.wait_for(ticket.done, 5) == image).all()

    asyncio.run(scenario())


def test_a_batch_that_can_not_be_sent_fails_its_own_requests_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Setup(tmp_path) as setup:
            odd = setup.batcher.submit(A._replace(z_dim=-1), seeds=[1])
            other = setup.batcher.submit(A, seeds=[1])
            with pytest.raises(UnavailableProblem, match="could not be sent"):
                await asyncio.wait_for(odd.done, 5)
            await setup.server.next()
            setup.server.protocol.send(Failed(setup.server.runs[0].batch, "out of memory"))
            with pytest.raises(UnavailableProblem, match="out of memory"):
                await asyncio.wait_for(other.done, 5)
            assert setup.client.free_slots == 2  # both batches have given theirs back
            assert setup.batcher.in_flight_rows == 0

    asyncio.run(scenario())


class ForeignError(BaseException):
    """As extension modules raise it."""


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), ForeignError("odd")])
def test_an_announcement_is_taken_up_later_where_it_can_not_be_now(
    tmp_path: Path, error: BaseException
) -> None:
    async def scenario() -> None:
        setup = Setup(tmp_path)
        setup.catalogue.errors.append(error)
        async with setup:
            assert setup.batcher.workers
            assert setup.catalogue.workers == [setup.client]

    asyncio.run(scenario())


def test_a_worker_that_starts_gets_no_batches(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Setup(tmp_path) as setup:
            setup.server.protocol.transport.abort()
            await until(lambda: not setup.batcher.workers)
            setup.server.starting = True
            await until(lambda: setup.client._protocol is not None)
            await asyncio.sleep(0.1)
            assert not setup.batcher.workers
            setup.server.protocol.send(Announce([], [], "cpu", 1, {}, starting=False))
            await until(lambda: setup.batcher.workers)

    asyncio.run(scenario())


def test_a_parked_batch_takes_no_slot(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Setup(tmp_path) as setup:
            slow = [
                setup.batcher.submit(A._replace(digest="slow"), seeds=[n] * 4) for n in range(3)
            ]
            other = setup.batcher.submit(A, seeds=[1])
            await until(lambda: len(setup.server.runs) == 2)
            assert setup.client.free_slots == 0
            parked = 0
            while len(setup.server.runs) < 4:
                for run in setup.server.runs[parked:]:
                    setup.server.protocol.send(Parked(run.batch))
                    parked += 1
                await setup.server.next()
            (run,) = [run for run in setup.server.runs if run.digest == A.digest]
            setup.server.protocol.send(Failed(run.batch, "enough"))
            with pytest.raises(UnavailableProblem, match="enough"):
                await asyncio.wait_for(other.done, 5)
            assert setup.batcher.in_flight_rows == 12
            for run in setup.server.runs:
                setup.server.protocol.send(Failed(run.batch, "refused"))
            for ticket in slow:
                with pytest.raises(UnavailableProblem, match="refused"):
                    await asyncio.wait_for(ticket.done, 5)
            assert setup.client.free_slots == 2
            assert setup.batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_a_worker_without_a_sign_of_life_is_given_up(tmp_path: Path) -> None:
    """It is connected, and takes what it is sent."""

    async def scenario() -> None:
        async with Setup(tmp_path) as setup:
            ticket = setup.batcher.submit(A, seeds=[1])
            refreshing = asyncio.create_task(setup.client.refresh())
            setup.server.silent = True
            await until(lambda: setup.server.runs)
            await asyncio.sleep(TIMEOUT_S / 2)
            assert not ticket.done.done()
            assert setup.batcher.workers
            with pytest.raises(UnavailableProblem):
                await asyncio.wait_for(ticket.done, TIMEOUT_S + 5)
            assert await asyncio.wait_for(refreshing, 5) == ""
            assert setup.batcher.in_flight_rows == 0
            assert not setup.batcher.workers
            assert not setup.catalogue.workers
            setup.server.silent = False
            await until(lambda: setup.batcher.workers)

    asyncio.run(scenario())


def test_heartbeats_keep_a_worker_that_answers_nothing(tmp_path: Path) -> None:
    """A long run is healthy."""

    async def scenario() -> None:
        async with Setup(tmp_path) as setup:
            setup.batcher.submit(A, seeds=[1])
            until_s = asyncio.get_running_loop().time() + 2.5 * TIMEOUT_S
            while asyncio.get_running_loop().time() < until_s:
                setup.server.protocol.send(Beat())
                await asyncio.sleep(TIMEOUT_S / 5)
            assert setup.batcher.workers
            assert setup.batcher.in_flight_rows == 1

    asyncio.run(scenario())


def test_a_failure_to_connect_of_any_kind_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        connect, failed = loop.create_unix_connection, [ValueError("odd")]

        async def create(*args: Any, **kwargs: Any) -> Any:
            if failed:
                raise failed.pop()
            return await connect(*args, **kwargs)

        monkeypatch.setattr(loop, "create_unix_connection", create)
        async with Setup(tmp_path) as setup:
            assert setup.batcher.workers

    asyncio.run(scenario())

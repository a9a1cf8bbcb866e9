"""An inference worker: takes batches off a Unix socket, has them run, sends the images back.

The event loop speaks with the HTTP processes. It listens before anything is loaded, and sends a
heartbeat to everyone who is connected: whoever hears none for a while knows that this process
hangs. Where runs come to no end while the event loop turns, the worker ends itself, and is started
again.
"""

import asyncio
import contextlib
import faulthandler
import functools
import gc
import logging
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from serving.inference.engines import EngineManager
from serving.inference.faults import words_for_clients
from serving.inference.frames import (
    BEAT_S,
    Announce,
    Beat,
    Failed,
    FrameProtocol,
    Message,
    Refresh,
    Refreshed,
    Run,
)
from serving.inference.lanes import Answer, Job, Lanes
from serving.inference.parking import Parking
from serving.inference.progress import Progress
from serving.inference.snapshot import StorageAwayError
from serving.observability import logs
from serving.observability.loops import Loop, ends, in_thread, quietly

logger = logging.getLogger(__name__)

STUCK_EXIT_CODE = 70
"""How a worker ends whose runs don't, or whose device is lost."""

_SOCKET_S = 1.0  # between two looks at whether the socket is there
_STORAGE_S = 10.0  # how long storage may take to answer before that is said
_LEAVE_BEHIND_S = 60.0  # how long a look at the repository is waited for
_MAX_LEFT_BEHIND = 4  # threads that storage may hold up for ever
_LAST_LOOK_PAUSE_S = 5.0  # the longest pause between two looks at storage that is away
_TROUBLED_S = 5.0  # how often a model that is in trouble is looked at where others never are
_LAST_WORDS_S = 2.0


class Worker:
    """Serves one socket until told to stop."""

    def __init__(
        self,
        engines: EngineManager,
        progress: Progress,
        *,
        path: Path,
        reload_interval_s: float,
        lanes: int,
        canary_s: float | None = None,
    ) -> None:
        """Sets up, and runs nothing yet.

        Args:
            engines: versions that are in memory.
            progress: tells whether runs are stuck.
            path: the socket.
            reload_interval_s: 0 looks at the repository once, and then when asked to.
            lanes: batches that are made at once.
            canary_s: how often a device that has nothing to do is tried; None for never.
        """
        self._canary_s = canary_s
        self._engines = engines
        self._progress = progress
        self._path = path
        self._reload_interval_s = reload_interval_s
        self._lanes = Lanes(lanes, progress, self._answer)
        self._parking = Parking(engines, go_on=self._lanes.put, answer=self._send)
        self._frames = Loop("frames")
        self._told: dict[FrameProtocol, Announce | None] = {}  # by connection
        self._asked: list[tuple[FrameProtocol, int, bool]] = []  # to refresh; True: has begun
        self._look: asyncio.Future[bool] | None = None  # under way
        self._look_began = 0.0
        self._left_behind: set[asyncio.Future[bool]] = set()  # looks that storage holds up
        self._looked = self._again = False
        self._server: asyncio.Server | None = None
        self._inode = 0  # of the socket
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._wake: asyncio.Event
        self._stopped: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def run(self) -> None:
        """Serves until SIGTERM has come and every connection is closed, or the parent is gone."""
        uvloop.run(self.serve())

    async def serve(self) -> None:
        """As `run`, in an event loop that runs."""
        gc.freeze()  # as the HTTP processes do
        self._loop = asyncio.get_running_loop()
        self._stopped, self._wake = asyncio.Event(), asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, self.stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._look_again)
        parent = multiprocessing.parent_process()
        if parent is not None:
            self._loop.add_reader(parent.sentinel, self._stopped.set)
        self._engines.on_load_end = self._wake_soon
        self._lanes.start()
        loops: list[Coroutine[Any, Any, None]] = [
            Loop("socket").run(self._listen),
            Loop("heartbeat").run(self._beat),
            Loop("announce").run(self._announce),
            Loop("repository", last_pause_s=_LAST_LOOK_PAUSE_S).run(self._watch, self._sleep),
        ]
        if self._canary_s is not None:
            loops.append(Loop("canary").run(self._try_device))
        self._tasks = [self._loop.create_task(work) for work in loops]
        await self._stopped.wait()
        self._lanes.stop()
        self._parking.stop()
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()

    def stop(self) -> None:
        """Drains: HTTP processes close their ends when they have answered everything."""
        self._stopping = True
        if not self._told:
            self._stopped.set()

    async def _listen(self) -> float:
        """Listens; again where the socket was removed, by who cleans temporary files up."""
        if self._server is None or not self._is_there():
            server = self._server
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.unlink(missing_ok=True)  # left by a worker that was killed
            self._server = await self._loop.create_unix_server(self._connection, str(self._path))
            self._inode = self._path.stat().st_ino
            if server is not None:
                logger.warning("%s was removed, and is there again", self._path)
                server.close()
        return _SOCKET_S

    def _is_there(self) -> bool:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._path.stat().st_ino == self._inode
        return False

    def _connection(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, self._on_lost, self._frames)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self._told[protocol] = None
        with quietly():  # where that fails it is told later, and counted then
            self._tell(protocol, self._engines.announce())

    def _on_lost(self, protocol: FrameProtocol) -> None:
        self._told.pop(protocol, None)
        if self._stopping and not self._told:
            self._stopped.set()

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        match message:
            case Run():
                engine = self._engines.get(message.digest)
                if engine is None:
                    self._parking.add(protocol, message, body)
                else:
                    self._lanes.take(Job(protocol, message, body, engine))
            case Refresh():
                self._asked.append((protocol, message.number, False))
                self._wake.set()
            case _:
                raise AssertionError("an HTTP process says nothing else")

    def _answer(self, protocol: FrameProtocol, answer: Answer) -> None:
        """Sends what became of a batch; says at least that it failed, or ends the connection."""
        try:
            protocol.send(*answer)
        except BaseException as error:
            self._frames.failed(error)
            message = answer[0]
            batch = message.batch if hasattr(message, "batch") else 0
            self._send(protocol, Failed(batch, "the images could not be sent; ask again"))

    def _send(self, protocol: FrameProtocol, message: Message) -> None:
        """Sends a message without a body; ends the connection where that fails."""
        try:
            protocol.send(message)
        except BaseException as error:
            self._frames.failed(error)
            with quietly():
                protocol.transport.abort()  # who sent the batch takes it back

    async def _beat(self) -> float:
        """Tells everyone that this process is alive, unless it only seems to be."""
        for protocol in tuple(self._told):
            with quietly():
                protocol.send(Beat())
        reason = self._progress.check()
        if reason is not None:
            end_at_once(reason)
        return BEAT_S

    async def _try_device(self) -> float:
        """Has an idle device make an image: one that is gone says so only when it is asked.

        An error that the device doesn't survive ends this process (`DeviceOwner`), and a run that
        comes to no end does (`Progress`).
        """
        assert self._canary_s is not None
        if self._lanes.is_idle:
            number = self._progress.begin(0.0)
            try:
                await in_thread(self._engines.try_device, "canary")
            finally:
                self._progress.end(number)
        return self._canary_s

    async def _announce(self) -> float:
        """Tells every HTTP process what there is, unless it was told."""
        announce = self._engines.announce()
        for protocol in tuple(self._told):
            self._tell(protocol, announce)
        return BEAT_S

    def _tell(self, protocol: FrameProtocol, announce: Announce) -> None:
        if self._told.get(protocol) != announce:
            protocol.send(announce)
            self._told[protocol] = announce

    async def _watch(self) -> float:
        """Looks at the repository, and answers who asked for that; gives the pause until the next.

        Raises:
            Exception: it can't be looked at; what is loaded stays.
        """
        self._wake.clear()
        asked, self._asked = self._asked, []
        again, self._again = self._again or not all(begun for _, _, begun in asked), False
        try:
            await self._refresh(again=again)
            await self._announce()
        except BaseException as error:
            if not ends(error):
                words = words_for_clients(error, self._engines.root)
                for protocol, number, _ in asked:
                    self._send(protocol, Refreshed(number, f"the repository: {words}"))
            raise
        if self._engines.loading:
            self._asked = [(protocol, number, True) for protocol, number, _ in asked] + self._asked
        else:
            for protocol, number, _ in asked:
                self._send(protocol, Refreshed(number, ""))
        if self._reload_interval_s:
            return self._reload_interval_s
        return _TROUBLED_S if self._engines.troubled else math.inf

    async def _refresh(self, *, again: bool) -> None:
        """Has a thread look; one that doesn't come back is left behind after a while."""
        if (
            self._look is not None
            and self._loop.time() - self._look_began > _LEAVE_BEHIND_S
            and len(self._left_behind) < _MAX_LEFT_BEHIND
        ):
            self._left_behind.add(self._look)
            self._look.add_done_callback(self._come_back)
            self._look = None
        if self._look is None:
            self._look_began = self._loop.time()
            only_troubled = not self._reload_interval_s and self._looked and not again
            work = functools.partial(
                self._engines.refresh, again=again, only_troubled=only_troubled
            )
            self._look = in_thread(work, "repository")
        done, _ = await asyncio.wait({self._look}, timeout=_STORAGE_S)
        if not done:
            raise StorageAwayError(
                f"{self._engines.root}: the storage has not answered for {_STORAGE_S:g} s; what is "
                "loaded is kept"
            )
        look, self._look = self._look, None
        look.result()
        self._looked = True

    def _look_again(self) -> None:
        """SIGHUP: what was refused is tried again, too."""
        self._again = True
        self._wake.set()

    def _come_back(self, look: "asyncio.Future[bool]") -> None:
        self._left_behind.discard(look)
        if not look.cancelled():
            look.exception()  # asked for, so that asyncio doesn't log it

    async def _sleep(self, pause_s: float) -> None:
        """Waits, but not where somebody asked, or a load has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if pause_s == math.inf else pause_s):
                await self._wake.wait()

    def _wake_soon(self) -> None:
        """Called by a loading thread."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._wake.set)


def end_at_once(reason: str) -> None:
    """Ends this process, whatever its threads do; says why, where that can be said soon."""

    def say() -> None:
        logger.critical("%s: this worker ends, and is started again; its threads:", reason)
        faulthandler.dump_traceback(file=2, all_threads=True)
        logs.close(_LAST_WORDS_S / 2)

    with quietly():
        words = threading.Thread(target=say, daemon=True)
        words.start()
        words.join(_LAST_WORDS_S)
    os._exit(STUCK_EXIT_CODE)

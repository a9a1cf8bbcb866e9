"""Takes connections from listening sockets that several HTTP processes share, in turn.

`Turns` says whose turn it is. Who is woken out of turn wakes the one whose turn it is, and stops to
listen for a moment. After that it takes a connection that still waits: the other may be busy, or
hang. So none waits longer than that for a process that does nothing for it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from serving.connection.connections import RepeatedWarning
from serving.process.turns import Turns

GIVE_WAY_S = 0.005
"""How long a process that is woken out of turn leaves a connection to the one whose turn it is."""
_NO_ROOM_S = 0.1  # after accept() failed for want of descriptors or memory
_MOST_AT_ONCE = 64  # then the loop turns: what has been taken already wants to be answered

logger = logging.getLogger(__name__)

MakeProtocol = Callable[[], asyncio.Protocol]


class Acceptors:
    """All listening sockets in one process; uvicorn closes it as one of asyncio's servers."""

    def __init__(
        self, listeners: Sequence[socket.socket], turns: Turns, make_protocol: MakeProtocol
    ) -> None:
        """Begins to take connections.

        Args:
            listeners: bound and listening; this doesn't close them.
            turns: this process's.
            make_protocol: for a connection.
        """
        self._turns = turns
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._all = [_Acceptor(listener, turns, self._arrive) for listener in listeners]
        self._loop.add_reader(turns.bell, self._hear)

    def close(self) -> None:
        """Takes no more."""
        self._loop.remove_reader(self._turns.bell)
        for acceptor in self._all:
            acceptor.close()

    async def wait_closed(self) -> None:
        """Waits until the connections are made that were taken before."""
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _hear(self) -> None:
        self._turns.hear()
        for acceptor in self._all:
            acceptor.look()

    def _arrive(self, connection: socket.socket) -> None:
        """Makes a connection of an accepted socket; it counts from now on."""
        task = self._loop.create_task(self._make(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        self._turns.set_arriving(len(self._arriving))

    async def _make(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except BaseException:
            connection.close()
            raise

    def _arrived(self, task: "asyncio.Task[None]") -> None:
        self._arriving.discard(task)
        self._turns.set_arriving(len(self._arriving))
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a connection could not be made: %s", error)


class _Acceptor:
    """One listening socket in one process."""

    def __init__(
        self, listener: socket.socket, turns: Turns, arrive: Callable[[socket.socket], None]
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._turns = turns
        self._arrive = arrive
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._failed = RepeatedWarning("connections could not be taken, %d times: %s")
        self._listen()

    def close(self) -> None:
        """Takes no more."""
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._listener)

    def look(self) -> None:
        """It may have become this process's turn."""
        if self._is_closed or not self._turns.is_mine:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._listen()
        self._take()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _rest(self, seconds: float) -> None:
        if self._pause is None:
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(seconds, self._end_rest)

    def _end_rest(self) -> None:
        self._pause = None
        self._listen()
        self._take(out_of_turn=1)

    def _take(self, out_of_turn: int = 0) -> None:
        """Takes what waits, as long as it is this process's turn.

        out_of_turn: how many it takes in any case.
        """
        try:
            for number in range(_MOST_AT_ONCE):
                if number >= out_of_turn and not self._turns.is_mine:
                    self._turns.ring()
                    self._rest(GIVE_WAY_S)
                    return
                self._take_one()
        except (BlockingIOError, InterruptedError):
            pass  # none is left
        except Exception as error:  # of any kind: the loop would call this again at once
            self._failed.count(str(error))
            self._failed.log(self._loop.time())
            self._rest(_NO_ROOM_S)

    def _take_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except ConnectionAbortedError:  # it was reset before it was taken
            return
        self._arrive(connection)

"""The HTTP process's end of the socket to one inference worker.

Connects, sends batches, matches answers to them, and connects again when the connection is lost. A
worker that sends nothing for a while, not even a heartbeat, counts as lost too: what it holds is
tried elsewhere.
"""

import asyncio
import contextlib
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.dispatch.batcher import Batcher
from serving.dispatch.catalogue import Catalogue
from serving.dispatch.futures import set_result
from serving.dispatch.tickets import Batch
from serving.inference.frames import (
    BEAT_S,
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
from serving.inference.progress import MAX_TURN_S
from serving.observability.loops import Loop, ends

logger = logging.getLogger(__name__)

# A batch that lies in the worker's queue while others are computed, so that no lane waits for one.
_QUEUED_AHEAD = 1
_FIRST_RETRY_S = 0.02
_LAST_RETRY_S = 0.5
_LAST_PAUSE_S = 2.0  # the longest between two tries where connecting fails in itself


class WorkerHangsError(Exception):
    """A worker is connected and gives no sign of life."""


class WorkerClient:
    """An inference worker behind a Unix socket, as the batcher's `Worker`."""

    def __init__(
        self, path: Path, batcher: Batcher, catalogue: Catalogue, *, timeout_s: float
    ) -> None:
        """Connects nothing yet.

        Args:
            path: the worker's socket, which need not exist yet.
            batcher: gets the worker while it can be reached, and the answers to its batches.
            catalogue: gets the versions that the worker announces.
            timeout_s: how long the worker may give no sign of life.
        """
        self._path = path
        self._batcher = batcher
        self._catalogue = catalogue
        self._timeout_s = timeout_s
        self._protocol: FrameProtocol | None = None
        self._lost = asyncio.Event()
        self._heard = False  # anything, since the last look
        self._frames = Loop("frames")
        self._announcing = Loop("announce")
        self._untold: Announce | None = None  # what could not be taken up yet
        self._sent: dict[int, Batch] = {}
        self._parked: set[int] = set()
        self._next_id = 0
        self._retry_s = _FIRST_RETRY_S
        self._refreshing: dict[int, asyncio.Future[str]] = {}
        self._joined = False
        self.lanes = 1
        self.device = ""

    @property
    def free_slots(self) -> int:
        """One batch for each lane of the worker, and one ahead, less those that it holds.

        Batches whose version is still being loaded take no slot: other models go on.
        """
        return self.lanes + _QUEUED_AHEAD - len(self._sent) + len(self._parked)

    def send(self, batch: Batch) -> None:
        """Draws the batch's latents and writes it to the socket as one frame."""
        assert self._protocol is not None
        key = batch.key
        if key.part:
            self._send_part(batch)
            return
        label = batch.labels()
        z = batch.z(key.z_dim, scale=not key.has_mapping)
        psi = batch.psi() if key.has_mapping else None
        rows = batch.styled(key.num_styles, key.z_dim) if key.num_styles else None
        more: tuple[npt.NDArray[np.float32] | None, ...]
        more = () if rows is None else (rows.other, rows.take, rows.shift)
        psi = psi if rows is None else rows.psi
        more = (batch.masks(),) if key.num_units else more
        self._next_id += 1
        message = Run(
            batch=self._next_id,
            name=key.name,
            version=key.version,
            digest=key.digest,
            num_rows=batch.num_rows,
            z_dim=key.z_dim,
            has_label=label is not None,
            has_psi=psi is not None,
            num_styles=key.num_styles,
            num_units=key.num_units,
            has_other=rows is not None and rows.other is not None,
            w_dim=0 if rows is None or rows.shift is None else rows.shift.shape[2],
        )
        arrays = [array for array in (label, z, psi, *more) if array is not None]
        self._protocol.send(message, arrays)
        # Last: what raised before takes no slot. No answer can come before this method returns.
        self._sent[self._next_id] = batch

    def _send_part(self, batch: Batch) -> None:
        """Writes a batch for a part of the model, which takes no latents."""
        assert self._protocol is not None
        key, self._next_id = batch.key, self._next_id + 1
        message = Run(
            batch=self._next_id,
            name=key.name,
            version=key.version,
            digest=key.digest,
            num_rows=batch.num_rows,
            z_dim=key.z_dim,
            has_label=False,
            has_psi=False,
            part=key.part,
        )
        self._protocol.send(message, [batch.rows()])
        self._sent[self._next_id] = batch  # last, as in `send`

    async def run(self) -> None:
        """Keeps the connection up until cancelled."""
        await Loop("connection", last_pause_s=_LAST_PAUSE_S).run(self._turn)

    async def _turn(self) -> float:
        """Connects, and returns when the connection is lost; gives the pause until the next try."""
        self._lost.clear()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                await loop.create_unix_connection(self._make_protocol, str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):  # a worker that isn't up yet
            pause_s = self._retry_s
            self._retry_s = min(self._retry_s * 1.5, _LAST_RETRY_S)
            return pause_s
        self._retry_s = _FIRST_RETRY_S
        try:
            await self._attend()
        finally:
            self._give_up()  # however it ended: the next turn has a connection of its own
        return _FIRST_RETRY_S

    async def _attend(self) -> None:
        """Returns when the connection is lost.

        Raises:
            WorkerHangsError: nothing came for too long; the connection is ended.
        """
        loop, silent_s = asyncio.get_running_loop(), 0.0
        self._heard = True
        while not self._lost.is_set():
            then = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._lost.wait()
            # Turns are counted, not time: where this process was stopped itself, no one is late.
            turn_s = min(loop.time() - then, MAX_TURN_S)
            silent_s = 0.0 if self._heard else silent_s + turn_s
            self._heard = False
            if self._untold is not None:
                self._take_up(self._untold)
            if silent_s > self._timeout_s:
                raise WorkerHangsError(
                    f"the worker at {self._path} has given no sign of life for "
                    f"{self._timeout_s:g} s"
                )

    async def refresh(self) -> str:
        """Makes the worker look at the repository; returns when it has announced what it found.

        Returns why it could not look, in words for clients. Empty where it did; and where the
        worker can't be reached, since it looks at the repository when it starts.
        """
        if self._protocol is None:
            return ""
        self._next_id += 1
        number = self._next_id
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._refreshing[number] = done
        try:
            self._protocol.send(Refresh(number))
            return await done
        finally:
            self._refreshing.pop(number, None)

    def close(self) -> None:
        """Ends the connection; the batcher then takes the batches in flight back."""
        if self._protocol is not None:
            self._protocol.transport.close()

    def _make_protocol(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, self._drop, self._frames)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self._protocol = protocol

    def _give_up(self) -> None:
        """Ends the connection, if there is one, and takes back what it held."""
        protocol = self._protocol
        if protocol is not None:
            protocol.transport.abort()
            self._drop(protocol)

    def _drop(self, protocol: FrameProtocol) -> None:
        """The connection is lost, or given up: gives everything back that hung on it."""
        if protocol is not self._protocol:
            return  # it was given up before
        self._protocol, self._untold = None, None
        self._sent, self._parked = {}, set()
        self._lost.set()
        for done in self._refreshing.values():
            set_result(done, "")
        if self._joined:
            self._joined = False
            self._batcher.remove_worker(self)
        try:
            self._catalogue.forget(self)
        except BaseException as error:
            if ends(error):
                raise
            self._announcing.failed(error)

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        if protocol is not self._protocol:
            return
        self._heard = True
        match message:
            case Made() | Failed():
                self._end(message, body)
            case Parked():
                self._park(message.batch)
            case Announce():
                self._take_up(message)
            case Refreshed():
                if done := self._refreshing.get(message.number):  # else its waiter has gone
                    set_result(done, message.fault)
            case Run() | Refresh():
                raise AssertionError("a worker never asks")
            case Beat():
                pass

    def _end(self, message: Made | Failed, body: memoryview) -> None:
        """A batch was answered."""
        self._parked.discard(message.batch)
        batch = self._sent.pop(message.batch, None)
        if batch is None:
            return  # an answer to what nobody has asked
        if isinstance(message, Failed):
            self._batcher.failed(batch, message.reason, by_version=message.by_version)
        else:
            images = np.frombuffer(body, np.uint8).reshape(message.shape)
            self._batcher.made(batch, images, message.compute_s)

    def _park(self, number: int) -> None:
        """A batch waits until its version is loaded, and others may go on."""
        if number in self._sent:
            self._parked.add(number)
            self._batcher.resume()

    def _take_up(self, announce: Announce) -> None:
        """Serves what the worker announces; where that fails, it is tried again."""
        self._untold = announce
        if announce.starting:
            return
        try:
            self._catalogue.announce(self, announce)
        except BaseException as error:
            if ends(error):
                raise
            self._announcing.failed(error)
            return
        self._untold = None
        self._announcing.succeeded()
        self.lanes = announce.lanes
        self.device = announce.device
        if not self._joined:
            self._joined = True
            self._batcher.add_worker(self)

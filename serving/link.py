"""The HTTP process's end of the socket to one inference worker: connect, send, match, reconnect."""

import asyncio
import logging
from pathlib import Path

import numpy as np

from models.errors import ModelError
from serving.batcher import Batcher
from serving.catalogue import Catalogue
from serving.frames import (
    Announce,
    Failed,
    FrameProtocol,
    Made,
    Message,
    Refresh,
    Refreshed,
    Run,
)
from serving.tickets import Batch

logger = logging.getLogger(__name__)

# While the worker makes its batches the next already lies in its queue.
_AHEAD = 1
_FIRST_RETRY_S = 0.02
_LAST_RETRY_S = 0.5


def socket_path(run_folder: Path, worker_id: int) -> Path:
    """Where a worker listens."""
    return run_folder / f"worker-{worker_id}.sock"


def withdrawn_folder(run_folder: Path) -> Path:
    """Where a file NAME says that a model is not to be served, to every worker."""
    return run_folder / "withdrawn"


class WorkerLink:
    """Implements `serving.batcher.Carrier` over a Unix socket."""

    def __init__(self, path: Path, batcher: Batcher, catalogue: Catalogue) -> None:
        """path: where the worker listens; it need not be there yet."""
        self._path = path
        self._batcher = batcher
        self._catalogue = catalogue
        self._protocol: FrameProtocol | None = None
        self._lost = asyncio.Event()
        self._sent: dict[int, Batch] = {}
        self._next_id = 0
        self._refreshing: dict[int, asyncio.Future[None]] = {}
        self._joined = False
        self.lanes = 1

    @property
    def room(self) -> int:
        """Implements `Carrier`."""
        return self.lanes + _AHEAD - len(self._sent)

    def carry(self, batch: Batch) -> None:
        """Implements `Carrier`."""
        assert self._protocol is not None
        manifest = self._catalogue.manifest(batch.key)
        label = batch.labels()
        z = batch.z(manifest.z_dim, scale=not manifest.has_mapping)
        psi = batch.psi() if manifest.has_mapping else None
        self._next_id += 1
        self._sent[self._next_id] = batch
        name, version = batch.key
        message = Run(
            batch=self._next_id,
            name=name,
            version=version,
            num_rows=batch.num_rows,
            z_dim=manifest.z_dim,
            has_label=label is not None,
            has_psi=psi is not None,
        )
        self._protocol.send(message, [array for array in (label, z, psi) if array is not None])

    async def run(self) -> None:
        """Keeps the connection up until cancelled."""
        loop = asyncio.get_running_loop()
        retry_s = _FIRST_RETRY_S
        while True:
            self._lost.clear()
            try:
                await loop.create_unix_connection(self._make_protocol, str(self._path))
            except OSError:
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 1.5, _LAST_RETRY_S)
                continue
            retry_s = _FIRST_RETRY_S
            await self._lost.wait()

    async def refresh(self) -> None:
        """Has the worker look at the repository, and returns when it has announced what it found.

        At once where it can't be reached: it looks when it starts.
        """
        if self._protocol is None:
            return
        self._next_id += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshing[self._next_id] = done
        self._protocol.send(Refresh(self._next_id))
        await done

    def close(self) -> None:
        """Ends the connection; batches in flight fail."""
        if self._protocol is not None:
            self._protocol.transport.close()

    def _make_protocol(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame, self._on_made, self._on_lost)

    def _on_made(self, protocol: FrameProtocol) -> None:
        self._protocol = protocol

    def _on_lost(self, protocol: FrameProtocol) -> None:
        self._protocol = None
        batches, self._sent = list(self._sent.values()), {}
        for done in self._refreshing.values():
            done.set_result(None)
        self._refreshing.clear()
        if self._joined:
            self._joined = False
            self._batcher.leave(self, batches)
        self._lost.set()

    def _on_frame(self, protocol: FrameProtocol, message: Message, body: memoryview) -> None:
        match message:
            case Made():
                images = np.frombuffer(body, np.uint8).reshape(message.shape)
                batch = self._sent.pop(message.batch)
                self._batcher.made(batch, images, message.compute_s)
            case Failed():
                self._batcher.failed(self._sent.pop(message.batch), message.reason)
            case Announce():
                self._on_announce(message)
            case Refreshed():
                self._refreshing.pop(message.number).set_result(None)
            case Run() | Refresh():
                raise AssertionError("a worker never asks")

    def _on_announce(self, announce: Announce) -> None:
        try:
            self._catalogue.announce(announce)
        except ModelError:
            logger.exception("a worker announced a version whose manifest can't be read here")
            return
        self.lanes = announce.lanes
        if not self._joined:
            self._joined = True
            self._batcher.join(self)

"""The LitAPI, and the loop that LitServe runs in each inference worker."""

from pathlib import Path
from queue import Queue
from typing import Any

import litserve
from litserve.loops import LitLoop

from models.bundle import Bundle
from models.repository import Repository
from serving import logs
from serving.devices import num_cpus
from serving.engine import Engine
from serving.exposition import register_process
from serving.link import socket_path, withdrawn_folder
from serving.sessions import Compute
from serving.settings import Settings
from serving.shelf import Shelf
from serving.worker import Worker

MAX_LANES = 8
"""More runs at once only where they are asked for: each needs memory of its own."""


class RowLoop(LitLoop):  # type: ignore[misc]
    """Replaces LitServe's request queue by the worker's own socket: rows, not requests."""

    def __call__(
        self,
        lit_api: litserve.LitAPI,
        device: str,
        worker_id: int,
        request_queue: "Queue[Any]",
        transport: Any,
        workers_setup_status: dict[str, str],
        callback_runner: Any,
    ) -> None:
        """Called by LitServe in the worker process; returns when the worker has drained."""
        assert isinstance(lit_api, GeneratorAPI)
        lit_api.worker(worker_id).run()


class GeneratorAPI(litserve.LitAPI):  # type: ignore[misc]
    """Generators of a model repository."""

    def __init__(self, settings: Settings, run_folder: Path) -> None:
        """run_folder: where sockets lie; private to this server."""
        super().__init__(max_batch_size=settings.max_batch_rows, loop=RowLoop())
        self.settings = settings
        self.run_folder = run_folder

    def setup(self, device: str) -> None:
        """Called by LitServe in the worker process: loads every current version."""
        logs.configure(self.settings, "worker")
        register_process("worker")
        settings = self.settings
        self.compute = compute_of(settings, device)

        def load(bundle: Bundle) -> Engine:
            return Engine(
                bundle, self.compute, max_rows=settings.max_batch_rows, buckets=settings.buckets
            )

        self.shelf = Shelf(
            Repository(settings.repository),
            allowed=settings.models,
            load=load,
            device=device,
            lanes=self.compute.lanes,
            max_loaded=settings.max_loaded,
            withdrawn=withdrawn_folder(self.run_folder),
        )
        self.shelf.refresh()

    def worker(self, worker_id: int) -> Worker:
        """The worker that serves what `setup` loaded."""
        return Worker(
            self.shelf,
            path=socket_path(self.run_folder, worker_id),
            reload_interval_s=self.settings.reload_interval_s,
            lanes=self.compute.lanes,
        )

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Not on this server's road: rows reach the worker by its socket."""
        raise NotImplementedError("rows reach the worker by its socket")


def compute_of(settings: Settings, device: str) -> Compute:
    """How a worker on this device runs its models."""
    if device != "cpu":
        return Compute(
            device=device,
            tf32=settings.cuda_math == "tf32",
            cuda_graphs=settings.cuda_graphs == "auto",
            tensorrt_cache=settings.tensorrt_cache,
        )
    lanes = settings.compute_lanes or min(num_cpus(), MAX_LANES)
    return Compute(device=device, num_threads=settings.compute_threads, lanes=lanes)

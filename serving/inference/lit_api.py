"""The LitAPI of a model repository, and the loop that LitServe runs in each inference worker."""

import os
import signal
from pathlib import Path
from queue import Queue
from typing import Any

import litserve
from litserve.loops import LitLoop

from models.bundle import Bundle
from models.repository import Repository
from serving import signals
from serving.inference.accelerator.choice import claim
from serving.inference.accelerator.owner import DeviceOwner
from serving.inference.devices import num_cpus
from serving.inference.engine import Engine
from serving.inference.engines import EngineManager
from serving.inference.frames import socket_path
from serving.inference.progress import Progress
from serving.inference.refusals import Journal
from serving.inference.sessions import Compute
from serving.inference.withdrawn import Withdrawn
from serving.inference.worker import Worker, end_at_once
from serving.observability import logs
from serving.observability.exposition import register_process
from serving.observability.shared_values import SharedMetrics
from serving.settings import Settings
from serving.shared_file import SharedFile

MAX_LANES = 8
"""The most lanes by default; each needs memory of its own."""
CANARY_S = 10.0
"""How often a GPU that has nothing to do is tried."""


class RowLoop(LitLoop):  # type: ignore[misc]
    """Serves the worker's own socket instead of LitServe's request queue."""

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
        """Serves until the worker has drained; LitServe calls it in the worker process."""
        assert isinstance(lit_api, GeneratorAPI)
        try:
            lit_api.worker(worker_id).run()
        finally:
            logs.close()


class GeneratorAPI(litserve.LitAPI):  # type: ignore[misc]
    """The generators of a model repository."""

    def __init__(
        self,
        settings: Settings,
        *,
        run_folder: Path,
        withdrawn: SharedFile,
        metrics: SharedMetrics,
        visible: tuple[str, ...] = (),
    ) -> None:
        """What workers get to know.

        Args:
            settings: of the server.
            run_folder: where sockets lie; private to this server.
            withdrawn: which models are out of service.
            metrics: where processes show theirs.
            visible: CUDA: the GPUs, as CUDA_VISIBLE_DEVICES calls them, by the device's number.
        """
        super().__init__(max_batch_size=settings.max_batch_rows, loop=RowLoop())
        self.settings = settings
        self.run_folder = run_folder
        self.withdrawn = withdrawn
        self.metrics = metrics
        self.visible = visible

    def setup(self, device: str) -> None:
        """Sets the process up; LitServe calls it in the worker process. Loads nothing yet."""
        logs.configure(self.settings, "worker")
        logs.write_in_thread()
        signals.leave_to_parent(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        signals.release()
        self.metrics.attach_worker(int(os.environ["LITSERVE_WORKER_ID"]))
        register_process("worker")
        if device != "cpu":
            device = claim(self.visible[int(device.rpartition(":")[2])])
            if self.settings.cuda_math == "fp32":
                # TensorRT rounds to TF32 unless it is told not to, and ONNX Runtime has no option.
                os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        self.compute = compute_of(self.settings, device)

    def worker(self, worker_id: int) -> Worker:
        """The worker that serves the repository."""
        settings, compute = self.settings, self.compute
        progress = Progress(
            timeout_s=settings.worker_timeout_s,
            run_limit_s=settings.request_timeout_ms / 1e3 + settings.worker_timeout_s,
            uses_processors=compute.on_cpu,
        )
        owner = None if compute.on_cpu else DeviceOwner(end_at_once, slow=progress.slow)

        def load(bundle: Bundle) -> Engine:
            return Engine(
                bundle,
                compute,
                max_rows=settings.max_batch_rows,
                buckets=settings.buckets,
                owner=owner,
            )

        engines = EngineManager(
            Repository(settings.repository),
            allowed=settings.models,
            load=load,
            device=compute.device,
            lanes=compute.lanes,
            max_loaded=settings.max_loaded,
            withdrawn=Withdrawn(self.withdrawn),
            journal=Journal(self.run_folder / f"loading-{worker_id}.json"),
        )
        return Worker(
            engines,
            progress,
            path=socket_path(self.run_folder, worker_id),
            reload_interval_s=settings.reload_interval_s,
            lanes=compute.lanes,
            canary_s=None if compute.on_cpu else CANARY_S,
        )

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Raises NotImplementedError: rows reach the worker by its socket."""
        raise NotImplementedError("rows reach the worker by its socket")


def compute_of(settings: Settings, device: str) -> Compute:
    """Returns how a worker on this device runs its models."""
    if device != "cpu":
        return Compute(
            device=device,
            math=settings.cuda_math,
            cuda_graphs=settings.cuda_graphs == "auto",
            memory_mb=settings.cuda_memory_mb,
            tensorrt_cache=settings.tensorrt_cache,
        )
    lanes = settings.compute_lanes or min(num_cpus(), MAX_LANES)
    return Compute(device=device, num_threads=settings.compute_threads, lanes=lanes)

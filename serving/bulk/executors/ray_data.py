"""Runs shards on a Ray cluster, with Ray Data: a row is a shard, which an actor makes and writes.

What travels back is a receipt, so no pixel enters the object store. Ray restarts actors that die
and gives their shards to others. It doesn't retry exceptions of functions, and its checkpoints are
not needed: a shard that is there is found by its receipt.

Usage reports to Ray's makers are off, unless RAY_USAGE_STATS_ENABLED says otherwise.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from models.bundle import Bundle
from models.bundle.files import open_regular
from models.errors import ModelError
from serving.bulk.errors import BulkError, ExecutorError, PlanError, TargetError
from serving.bulk.maker import Answerer, Done, Failure, Job, Work, result_of
from serving.bulk.receipts import Receipt
from serving.bulk.storage.store import Store

# A local cluster's object store: receipts need little, and /dev/shm of a container is 64 MiB.
_OBJECT_STORE_BYTES = 80 << 20
_LOCAL = "local"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BundleFiles:
    """A bundle that travels: its files, for nodes that have no repository."""

    path: str
    digest: str
    files: dict[str, bytes]

    @classmethod
    def read(cls, bundle: Bundle) -> "BundleFiles":
        """Reads what a worker needs: the files that the manifest names."""
        files = {}
        for name in (_MANIFEST, *bundle.manifest.files):
            with open_regular(bundle.path / name) as file:
                files[name] = file.read()
        return cls(str(bundle.path.absolute()), bundle.digest, files)

    def open(self) -> Bundle:
        """The bundle where it lies, if this node has it, else in a temporary folder."""
        with contextlib.suppress(ModelError):
            here = Bundle.open(Path(self.path))
            if here.digest == self.digest:
                return here
        folder = Path(tempfile.mkdtemp(prefix="saddlepoint-bundle-"))
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return Bundle.open(folder)


class RowMaker:
    """Ray Data's actor: a row with a shard in, a row with a receipt or an error out.

    Each is one column of bytes, MessagePack: they are no tables.
    """

    def __init__(self, job: Job, files: Any, device: str) -> None:
        """files: `BundleFiles` in the object store; fetched when the first shard comes."""
        self._answer = Answerer(job, lambda: _fetched(files).open(), device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Makes a shard. Never raises: Ray would end the whole run with a trace of its own."""
        work = msgspec.msgpack.decode(row["work"], type=Work)
        return {"answer": _encoded(self._answer(work))}


def _fetched(files: Any) -> BundleFiles:
    import ray

    found: BundleFiles = ray.get(files)
    return found


_Answer = tuple[Done | None, Failure | None]


def _encoded(answer: Done | Failure) -> bytes:
    pair = (answer, None) if isinstance(answer, Done) else (None, answer)
    return msgspec.msgpack.encode(pair)


def _decoded(data: bytes) -> Done | Failure:
    done, failure = msgspec.msgpack.decode(data, type=_Answer)
    answer: Done | Failure | None = done or failure
    assert answer is not None
    return answer


class RayExecutor:
    """Runs shards on actors of a cluster."""

    def __init__(
        self, job: Job, bundle: Bundle, *, address: str, workers: int | None, gpus: float
    ) -> None:
        """Connects to a cluster, or starts one here.

        Args:
            job: what actors are told.
            bundle: the model; its files go to the actors.
            address: "local" starts a cluster of this machine, "auto" finds the one that runs here,
                anything else is its address.
            workers: number of actors; None for one for each CPU (or each share of a GPU).
            gpus: GPUs, or the share of one, that an actor takes; 0 for the CPU.

        Raises:
            PlanError: Ray isn't installed.
            ExecutorError: there is no such cluster, or it has no such device.
        """
        self._ray = _connect(address)
        self._job, self._bundle, self._gpus = job, bundle, gpus
        resources = self._ray.cluster_resources()
        kind, share = ("GPU", gpus) if gpus else ("CPU", 1.0)
        room = int(resources.get(kind, 0) / share)
        if room < (workers or 1):
            self.close()
            raise ExecutorError(
                f"--workers is {workers or 1}, but the Ray cluster has "
                f"{resources.get(kind, 0):g} {kind}s: give fewer, or a larger cluster"
            )
        self.num_workers = workers or room

    def __call__(self, works: Iterator[Work]) -> Iterator[Done]:
        """Runs shards and gives what is done, in any order.

        Raises:
            BulkError: an actor failed, or the cluster was lost.
        """
        rows = [{"work": msgspec.msgpack.encode(work)} for work in works]
        if not rows:
            return
        files = self._ray.put(BundleFiles.read(self._bundle))
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Whoever has finished is told of at once; a slow shard holds nobody up.
        context.execution_options.preserve_order = False
        made = data.from_items(rows, override_num_blocks=len(rows)).map(
            RowMaker,
            fn_constructor_args=(self._job, files, "cuda:0" if self._gpus else "cpu"),
            compute=data.ActorPoolStrategy(size=min(self.num_workers, len(rows))),
            num_cpus=0 if self._gpus else 1,
            num_gpus=self._gpus or None,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
        )
        try:
            for row in made.iter_rows():
                done = result_of(_decoded(row["answer"]))
                check_seen_here(done.receipt, self._job.store)
                yield done
        except (BulkError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:  # Ray's errors share no base
            raise ExecutorError(
                f"Ray: {type(error).__name__}: {error}; finished shards stay: look at the cluster, "
                "then run the same command again"
            ) from error

    def close(self) -> None:
        """Leaves the cluster; ends it if it was started here."""
        self._ray.shutdown()


def check_seen_here(receipt: Receipt, store: Store) -> None:
    """Raises TargetError where a shard lies on another machine, in a folder of the same name."""
    for file in receipt.files:
        if store.entry(file.name, digest=False) is None:
            raise TargetError(
                f"--out is {store.address}: shard {receipt.index} was made, but isn't there; "
                "a folder must be one that all machines of the cluster share: name such a "
                "folder, or a bucket"
            )


def _connect(address: str) -> Any:
    # Read by Ray when it starts a cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PlanError(
            f"--ray is {address}: that needs Ray; install it with "
            "pip install '.[ray]' in Saddlepoint's source folder"
        ) from error
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == _LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address, **options)
    except Exception as error:  # Ray's errors share no base
        raise ExecutorError(
            f"--ray is {address}: no cluster can be reached: {error}; start one with `ray start "
            "--head`, or use --ray local"
        ) from error
    return ray

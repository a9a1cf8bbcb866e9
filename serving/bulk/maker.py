"""Makes shards: a worker's only thing, whichever executor it belongs to.

It holds one ONNX Runtime session with one thread; several workers fill a machine. Every run of the
model has the same number of rows, so a shard's bytes don't depend on where its images begin.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.bundle import Bundle
from models.errors import ModelError
from models.latents import latents
from serving.bulk.errors import ExecutorError, TargetError
from serving.bulk.formats import FORMATS, Batch, Task
from serving.bulk.plan import Plan, Shard
from serving.bulk.receipts import Receipt, holds, read_receipt, write_receipt
from serving.bulk.storage.store import Store
from serving.errors import ServingError
from serving.inference.engine import Engine
from serving.inference.sessions import Compute


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told."""

    plan: Plan
    store: Store
    check_digests: bool = True
    """Whether files that are there already are compared by digest, or by size alone."""


@dataclass(frozen=True)
class Work:
    """A shard to make."""

    shard: Shard
    expected: Receipt | None = None
    """What the manifest of an earlier run says of it."""


@dataclass(frozen=True)
class Done:
    """A finished shard."""

    receipt: Receipt
    made: bool
    """False where it was there already."""


@dataclass(frozen=True)
class Failure:
    """What a worker says where it can't make a shard. kind: "target" or "other"."""

    kind: str
    text: str


def result_of(answer: Done | Failure) -> Done:
    """What a worker has done.

    Raises:
        BulkError: it failed.
    """
    if isinstance(answer, Done):
        return answer
    raise (TargetError if answer.kind == "target" else ExecutorError)(answer.text)


class Answerer:
    """A worker's life, whatever carries its words: a shard in, a receipt or a failure out."""

    def __init__(self, job: Job, open_bundle: Callable[[], Bundle], device: str) -> None:
        """Loads the model when the first shard comes: what fails then is an answer, too.

        Args:
            job: what the run is.
            open_bundle: gives the model.
            device: "cpu" or "cuda:INDEX".
        """
        self._job, self._open_bundle, self._device = job, open_bundle, device
        self._maker: ShardMaker | None = None

    def __call__(self, work: Work) -> Done | Failure:
        """Makes a shard. Never raises an Exception."""
        try:
            if self._maker is None:
                self._maker = ShardMaker(self._job, self._open_bundle(), self._device)
            return self._maker(work)
        except TargetError as error:
            return Failure("target", str(error))
        except (ModelError, ServingError) as error:
            return Failure("other", str(error))
        except Exception as error:  # a runtime's errors share no base
            text = f"shard {work.shard.index}: {type(error).__name__}: {error}"
            return Failure("other", text)


class ShardMaker:
    """Makes shards of one plan, or finds that they are there."""

    def __init__(self, job: Job, bundle: Bundle, device: str) -> None:
        """Loads and verifies the model. device: "cpu" or "cuda:INDEX".

        Raises:
            BundleError: the model can't be used.
            DeviceError: it did not come up on the device.
        """
        self._job = job
        self._engine = load(bundle, job.plan.batch_rows, device)

    def __call__(self, work: Work) -> Done:
        """Makes a shard, unless it is there with the right digests.

        Raises:
            TargetError: it can't be written.
        """
        plan, store = self._job.plan, self._job.store
        index = work.shard.index
        receipt = work.expected or read_receipt(plan, index, store)
        if receipt is not None and holds(plan, receipt, store, digests=self._job.check_digests):
            return Done(receipt, made=False)
        files = FORMATS[plan.format].write(
            Task(plan, index, store), batches(plan, work.shard, self._engine)
        )
        receipt = Receipt(index=index, num_images=plan.size_of(index), files=tuple(files))
        write_receipt(plan, receipt, store)
        return Done(receipt, made=True)


def load(bundle: Bundle, batch_rows: int, device: str) -> Engine:
    """The model with one thread, at one number of rows."""
    compute = Compute(device=device, num_threads=1)
    return Engine(bundle, compute, max_rows=batch_rows, buckets=(batch_rows,))


def batches(plan: Plan, shard: Shard, engine: Engine) -> Iterator[Batch]:
    """A shard's images, run by run."""
    manifest = engine.bundle.manifest
    seeds = shard.seeds()
    labels = shard.labels(plan.labels, seeds)
    psi = np.full(plan.batch_rows, plan.truncation, np.float32)
    for start in range(0, len(seeds), plan.batch_rows):
        rows = slice(start, start + plan.batch_rows)
        z = latents(seeds[rows], manifest.z_dim)
        if not manifest.has_mapping and plan.truncation != 1.0:
            z *= psi[: len(z), None]  # as the server does
        label = None if labels is None else labels[rows]
        images = engine(z, label, psi[: len(z)] if manifest.has_mapping else None)
        yield Batch(seeds[rows], label, images)


Executor = Callable[[Iterator[Work]], Iterator[Done]]
"""Runs shards on workers; gives what is done in any order.

Raises:
    BulkError: the run can't go on.
"""

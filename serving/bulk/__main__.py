"""Many images into files: `python -m serving.bulk MODEL --seeds 0-999999 --out DIR`.

The same command goes on where a killed run ended. The same plan gives the same bytes, however many
workers make it and wherever they run.

Exit codes: 0 done; 2 an option or the plan is wrong, nothing was written; 3 no such model, or no
such device; 4 the model can't be used; 5 the place can't be written; 6 workers failed; 130, 143
stopped by a signal.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from models.errors import ModelError
from models.stdout import closed_pipe_ignored
from serving.bulk.arguments import PROG, parser
from serving.bulk.errors import BulkError, PlanError
from serving.bulk.executors.local import LocalExecutor
from serving.bulk.maker import Executor, Job, Work
from serving.bulk.manifest import PLAN, check_place, claim, finish, read_manifest
from serving.bulk.plan import shards
from serving.bulk.planning import Cost, Prepared, prepare, try_out
from serving.bulk.progress import Progress, duration, size
from serving.bulk.receipts import Receipt, holds
from serving.bulk.storage.addresses import open_store
from serving.bulk.storage.store import Store
from serving.errors import ServingError
from serving.inference.accelerator.choice import choose_devices, take
from serving.inference.devices import num_cpus

_SPARE = 1.05  # of the disk: the estimate is by the first images
_TERMINATED = 143


@closed_pipe_ignored
def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Runs the command and returns its exit code; prog: how it was called."""
    options = parser((__doc__ or "").replace(PROG, prog), prog).parse_args(argv)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return run(options)
    except (BulkError, ModelError, ServingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C, with workers told and half-written files removed."""
    raise SystemExit(_TERMINATED)


def run(options: argparse.Namespace) -> int:
    """Plans, tells what it will take, makes the shards, and writes the manifest.

    Raises:
        BulkError, ModelError, ServingError: it can't be done.
    """
    # Libraries in worker processes would otherwise start a thread a core each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepared = prepare(options)
    store = open_store(options.out)
    check_place(prepared.plan, store)
    devices = _devices(options)
    # Ray gives GPUs out itself, of those that this process sees.
    here = take(devices[0]) if options.ray is None else devices[0].partition(":")[0]
    cost = try_out(prepared, "cuda:0" if here == "cuda" else here)
    print(describe(prepared, cost, len(devices), on_ray=options.ray is not None))
    check_room(prepared, cost, store)
    if options.dry_run:
        return 0
    job = Job(prepared.plan, store, check_digests=options.check == "digest")
    if options.ray is None:
        return carry_out(prepared, job, LocalExecutor(job, prepared.bundle, devices))
    from serving.bulk.executors.ray_data import RayExecutor

    executor = RayExecutor(
        job,
        prepared.bundle,
        address=options.ray,
        workers=options.workers,
        gpus=1 / options.workers_per_gpu if options.device == "cuda" else 0.0,
    )
    try:
        return carry_out(prepared, job, executor)
    finally:
        executor.close()


def carry_out(prepared: Prepared, job: Job, executor: Executor) -> int:
    """Makes all shards and the manifest; returns the exit code."""
    store = job.store
    claim(prepared.plan, store)
    try:
        return _make(prepared, job, executor)
    finally:
        store.sweep()
        store.unlock()


def _make(prepared: Prepared, job: Job, executor: Executor) -> int:
    plan, store = prepared.plan, job.store
    earlier = read_manifest(plan, store)
    works = (
        Work(shard, earlier.get(shard.index))
        for shard in shards(plan, prepared.seeds, prepared.listed)
    )
    progress = Progress(plan.num_images)
    receipts: list[Receipt] = []
    try:
        for done in executor(works):
            receipts.append(done.receipt)
            progress.add(done.receipt.num_images, made=done.made)
    finally:
        progress.end()
    manifest = finish(plan, prepared.bundle, receipts, store)
    there = f", {progress.found:,} were there" if progress.found else ""
    print(
        f"{progress.made:,} images made in {duration(progress.seconds)} "
        f"({progress.images_per_s:,.0f} a second){there}: {size(manifest.num_bytes)} in "
        f"{store.address}"
    )
    return 0


def check_room(prepared: Prepared, cost: Cost, store: Store) -> None:
    """Raises PlanError where what is still to be made is more than the disk has left."""
    free = store.free_bytes()
    if free is None:
        return
    plan = prepared.plan
    needed = plan.num_images * cost.image_bytes * _SPARE
    if needed <= free:
        return
    missing = plan.num_images
    if store.read(PLAN) is not None:  # some may be there
        missing = sum(plan.size_of(index) for index in _missing(prepared, store))
    needed = missing * cost.image_bytes * _SPARE
    if needed > free:
        raise PlanError(
            f"--out is {store.address}: {missing:,} images take about {size(needed)}, free are "
            f"{size(free)}; free some space, name another place, or ask for fewer images"
        )


def _missing(prepared: Prepared, store: Store) -> Iterator[int]:
    from serving.bulk.receipts import read_receipt

    plan = prepared.plan
    earlier = read_manifest(plan, store)
    for index in range(plan.num_shards):
        receipt = earlier.get(index) or read_receipt(plan, index, store)
        if receipt is None or not holds(plan, receipt, store, digests=False):
            yield index


def describe(prepared: Prepared, cost: Cost, num_workers: int, *, on_ray: bool) -> str:
    """The plan in words, with the size and time to expect."""
    plan = prepared.plan
    image = plan.image
    kind = f"{plan.format} of {plan.image_format}" if plan.image_format else plan.format
    rate = cost.images_per_s * num_workers
    where = "a worker of this machine" if on_ray else f"{num_workers} workers"
    if on_ray:
        rate = cost.images_per_s
    return "\n".join(
        (
            f"{plan.num_images:,} images {image.width}x{image.height}x{image.channels} of "
            f"{plan.model}, version {plan.version} ({plan.bundle_digest[:12]})",
            f"  {kind}: {plan.num_shards:,} shards of up to {plan.shard_images:,} images, plan "
            f"{plan.digest[:12]}",
            f"  about {size(plan.num_images * cost.image_bytes)}, and "
            f"{duration(plan.num_images / rate)} with {where} ({rate:,.0f} images/s)",
        )
    )


def _devices(options: argparse.Namespace) -> list[str]:
    """The device of every local worker."""
    found = choose_devices(options.device)
    if found.kind == "cpu":
        return ["cpu"] * (options.workers or num_cpus())
    num = options.workers or found.num * options.workers_per_gpu
    return [f"cuda:{found.visible[index % found.num]}" for index in range(num)]


if __name__ == "__main__":
    sys.exit(main())

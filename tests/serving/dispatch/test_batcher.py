"""The batcher against workers played by the test: every row once, in its place, in any order."""

import asyncio
import contextlib
import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.latents import latents
from serving.dispatch.batcher import BULK_SHARE, Batcher
from serving.dispatch.tickets import Batch, Ticket
from serving.errors import ClientGoneError, OverloadedProblem, UnavailableProblem
from serving.shared_counts import SharedCounts
from serving.shared_file import SharedFile

Z_DIM = 2


ROW_S = 0.001


@dataclass(eq=False)
class FakeWorker:
    """A worker whose batches are answered when the test says so."""

    batcher: Batcher
    capacity: int = 2
    held: list[Batch] = field(default_factory=list)
    sent: list[Batch] = field(default_factory=list)
    lanes: int = 1
    device: str = "cpu"
    refuses: list[BaseException] = field(default_factory=list)
    """What its next sends raise."""

    @property
    def free_slots(self) -> int:
        return self.capacity - len(self.held)

    def send(self, batch: Batch) -> None:
        if self.refuses:
            raise self.refuses.pop()
        self.held.append(batch)
        self.sent.append(batch)

    def answer(self, index: int = 0) -> None:
        batch = self.held.pop(index)
        self.batcher.made(batch, image_of(batch.z(Z_DIM, scale=True)), ROW_S * batch.num_rows)


def image_of(z: np.ndarray) -> np.ndarray:
    """A 'model': each row's image is its first latent's bytes."""
    return z[:, :1].copy().view(np.uint8).reshape(len(z), 1, 4, 1)


def make_batcher(
    max_batch_rows: int = 4,
    max_waiting_rows: int = 1000,
    recovery_s: float = 0.05,
    admitted: SharedCounts | None = None,
) -> Batcher:
    return Batcher(
        max_batch_rows=max_batch_rows,
        max_waiting_rows=max_waiting_rows,
        on_made=lambda batch, compute_s: None,
        on_load=lambda: None,
        recovery_s=recovery_s,
        admitted=admitted,
    )


async def turn() -> None:
    """Lets the loop run what is due."""
    for _ in range(3):
        await asyncio.sleep(0)


requests = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 11), st.booleans(), st.booleans()),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60)
@given(requests, st.integers(1, 6), st.lists(st.integers(0, 3), max_size=60), st.booleans())
def test_every_row_is_made_once_whatever_the_order(
    asked: list[tuple[str, int, bool, bool]],
    max_batch_rows: int,
    order: list[int],
    two_workers: bool,
) -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows)
        workers = [FakeWorker(batcher) for _ in range(1 + two_workers)]
        for worker in workers:
            batcher.add_worker(worker)
        tickets: list[tuple[Ticket, np.ndarray]] = []
        seed = 0
        for name, num_rows, by_latents, interrupt in asked:
            seeds = list(range(seed, seed + num_rows))
            seed += num_rows
            z = latents(seeds, Z_DIM)
            rows = {"z": z} if by_latents else {"seeds": seeds}
            tickets.append((batcher.submit((name, 1), **rows), z))  # type: ignore[arg-type]
            if interrupt:
                await turn()
        await turn()
        for choice in order:
            worker = workers[choice % len(workers)]
            if worker.held:
                worker.answer(choice % len(worker.held))
                await turn()
        while busy := [worker for worker in workers if worker.held]:
            busy[0].answer()
            await turn()
        for ticket, z in tickets:
            assert (await ticket.done == image_of(z)).all()
        sent = [batch for worker in workers for batch in worker.sent]
        assert all(1 <= batch.num_rows <= max_batch_rows for batch in sent)
        assert sum(batch.num_rows for batch in sent) == seed
        assert all(len({p.ticket.key for p in batch.pieces}) == 1 for batch in sent)
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_what_one_turn_reads_leaves_in_one_batch() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=64)
        worker = FakeWorker(batcher)
        batcher.add_worker(worker)
        for seed in range(10):
            batcher.submit(("a", 1), seeds=[seed])
        await turn()
        assert [batch.num_rows for batch in worker.held] == [10]

    asyncio.run(scenario())


def test_models_take_turns() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        worker = FakeWorker(batcher, capacity=1)
        batcher.add_worker(worker)
        batcher.submit(("busy", 1), seeds=list(range(40)))
        batcher.submit(("other", 1), seeds=[1])
        for _ in range(3):
            await turn()
            worker.answer()
        names = [batch.key[0] for batch in worker.sent]
        assert names[:3] == ["busy", "other", "busy"]

    asyncio.run(scenario())


def test_psi_scales_only_its_own_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher()
        worker = FakeWorker(batcher)
        batcher.add_worker(worker)
        half = batcher.submit(("a", 1), seeds=[1], psi=0.5)
        whole = batcher.submit(("a", 1), seeds=[1])
        await turn()
        worker.answer()
        z = latents([1], Z_DIM)
        assert (await half.done == image_of(z * np.float32(0.5))).all()
        assert (await whole.done == image_of(z)).all()

    asyncio.run(scenario())


def test_rows_beyond_the_bound_are_refused_with_a_time_to_come_back() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4, max_waiting_rows=10)
        worker = FakeWorker(batcher, capacity=1)
        batcher.add_worker(worker)
        batcher.submit(("a", 1), seeds=list(range(10)))
        with pytest.raises(OverloadedProblem, match="10 images wait, 10 may, 1 more") as refused:
            batcher.submit(("a", 1), seeds=[1])
        ((name, value),) = refused.value.headers
        assert name == b"retry-after"
        assert int(value) >= 1
        await turn()  # four leave, and are not made yet
        with pytest.raises(OverloadedProblem, match="10 images wait"):
            batcher.submit(("a", 1), seeds=[1])
        worker.answer()
        batcher.submit(("a", 1), seeds=[1, 2, 3, 4])

    asyncio.run(scenario())


def test_the_bound_is_of_all_processes_together() -> None:
    """Also of rows that are restarted, cancelled or fail: what was booked is given back."""

    async def scenario() -> None:
        file = SharedFile("rows")
        one, other = (
            make_batcher(max_waiting_rows=10, admitted=SharedCounts(file, index, 2))
            for index in range(2)
        )
        workers = [FakeWorker(batcher, capacity=1) for batcher in (one, other)]
        one.add_worker(workers[0])
        other.add_worker(workers[1])
        one.submit(("a", 1), seeds=list(range(8)))
        with pytest.raises(OverloadedProblem, match="8 images wait, 10 may, 3 more"):
            other.submit(("a", 1), seeds=[1, 2, 3])
        ticket = other.submit(("a", 1), seeds=[1, 2])
        with pytest.raises(OverloadedProblem, match="10 images wait"):
            one.submit(("a", 1), seeds=[1])
        other.cancel(ticket, ClientGoneError())
        await turn()
        one.remove_worker(workers[0])  # four were in flight, and wait again
        with pytest.raises(OverloadedProblem, match="8 images wait"):
            other.submit(("a", 1), seeds=[1, 2, 3])
        workers[0] = FakeWorker(one)
        one.add_worker(workers[0])
        await turn()
        while workers[0].held:
            workers[0].answer()
            await turn()
        other.submit(("a", 1), seeds=list(range(10)))
        os.close(file.descriptor)

    asyncio.run(scenario())


def test_what_waits_is_shared_between_the_lanes() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=64)
        workers = [FakeWorker(batcher, capacity=3, lanes=2), FakeWorker(batcher)]
        for worker in workers:
            batcher.add_worker(worker)
        first = batcher.submit(("a", 1), seeds=list(range(10)))
        await turn()
        assert [batch.num_rows for batch in workers[0].sent] == [10]  # nobody knows how long
        workers[0].answer()
        await first.done
        big = batcher.submit(("a", 1), seeds=list(range(10, 40)))
        for _ in range(3):
            await turn()
        sent = [batch.num_rows for worker in workers for batch in worker.held]
        assert sent == [6] * 5  # three in the making, two ahead; none would go unanswered
        while busy := [worker for worker in workers if worker.held]:
            busy[0].answer()
        assert (await big.done == image_of(latents(list(range(10, 40)), Z_DIM))).all()
        await turn()
        batcher.submit(("a", 1), seeds=[1, 2])  # 2 ms of work: not worth it
        await turn()
        assert [batch.num_rows for worker in workers for batch in worker.held] == [2]

    asyncio.run(scenario())


def test_without_a_worker_a_request_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(UnavailableProblem):
            make_batcher().submit(("a", 1), seeds=[1])

    asyncio.run(scenario())


def test_a_cancelled_ticket_frees_its_unsent_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        worker = FakeWorker(batcher, capacity=1)
        batcher.add_worker(worker)
        ticket = batcher.submit(("a", 1), seeds=list(range(10)))
        other = batcher.submit(("a", 1), seeds=[7])
        await turn()
        assert batcher.cancel(ticket, TimeoutError()) == 6
        assert batcher.waiting_rows == 1
        with pytest.raises(TimeoutError):
            await ticket.done
        worker.answer()  # the rows that were sent come back to nobody
        await turn()
        worker.answer()
        assert (await other.done == image_of(latents([7], Z_DIM))).all()

    asyncio.run(scenario())


def test_a_dead_workers_rows_are_tried_once_on_another() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        dying, living = FakeWorker(batcher, capacity=1), FakeWorker(batcher, capacity=1)
        batcher.add_worker(dying)
        batcher.add_worker(living)
        ticket = batcher.submit(("a", 1), seeds=list(range(8)))  # half on each
        await turn()
        assert dying.held
        assert living.held
        batcher.remove_worker(dying)
        await turn()
        while living.held:
            living.answer()
            await turn()
        assert (await ticket.done == image_of(latents(list(range(8)), Z_DIM))).all()

    asyncio.run(scenario())


def test_when_the_last_worker_dies_the_next_one_makes_its_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        dying = FakeWorker(batcher)
        batcher.add_worker(dying)
        tickets = [batcher.submit(("a", 1), seeds=[seed] * 3) for seed in range(5)]
        await turn()
        batcher.remove_worker(dying)
        late = batcher.submit(("a", 1), seeds=[99])
        living = FakeWorker(batcher)
        batcher.add_worker(living)
        await turn()
        while living.held:
            living.answer()
            await turn()
        for seed, ticket in enumerate(tickets):
            assert (await ticket.done == image_of(latents([seed] * 3, Z_DIM))).all()
        assert (await late.done == image_of(latents([99], Z_DIM))).all()
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_a_request_that_kills_two_workers_is_not_tried_again() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        poison = None
        for _ in range(2):
            worker = FakeWorker(batcher)
            batcher.add_worker(worker)
            poison = poison or batcher.submit(("a", 1), seeds=list(range(8)))  # two batches
            await turn()
            assert len(worker.held) == 2
            batcher.remove_worker(worker)
        assert poison is not None
        with pytest.raises(UnavailableProblem, match="not tried again"):
            await poison.done
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_when_no_worker_comes_back_nothing_hangs() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        worker = FakeWorker(batcher, capacity=1)
        batcher.add_worker(worker)
        tickets = [batcher.submit(("a", 1), seeds=[seed] * 3) for seed in range(5)]
        await turn()
        batcher.remove_worker(worker)
        for ticket in tickets:
            with pytest.raises(UnavailableProblem, match="not back"):
                await asyncio.wait_for(ticket.done, 5)
        assert batcher.waiting_rows == batcher.in_flight_rows == 0
        with pytest.raises(UnavailableProblem):
            batcher.submit(("a", 1), seeds=[1])

    asyncio.run(scenario())


def test_bulk_rows_wait_for_the_others_but_are_never_starved() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=1)
        worker = FakeWorker(batcher, capacity=1)
        batcher.add_worker(worker)
        bulk = batcher.submit(("a", 1), seeds=[7] * 3, bulk=True)
        for seed in range(2 * BULK_SHARE):
            batcher.submit(("a", 1), seeds=[seed])
        await turn()
        while worker.held:
            worker.answer()
            await turn()
        turns = [batch.pieces[0].ticket is bulk for batch in worker.sent]
        assert sum(turns[:BULK_SHARE]) == 1
        assert sum(turns[: 2 * BULK_SHARE]) == 2
        assert sum(turns) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [ValueError("odd"), AssertionError(), asyncio.CancelledError()])
def test_a_batch_that_cannot_be_sent_comes_back_and_others_go_on(error: BaseException) -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        worker = FakeWorker(batcher, capacity=1, refuses=[error])
        batcher.add_worker(worker)
        refused = batcher.submit(("a", 1), seeds=list(range(6)))
        other = batcher.submit(("b", 1), seeds=[7])
        await turn()
        worker.answer()
        with pytest.raises(UnavailableProblem, match="could not be sent"):
            await asyncio.wait_for(refused.done, 1)
        assert (await other.done == image_of(latents([7], Z_DIM))).all()
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_a_failure_of_an_earlier_attempt_does_not_end_the_retry() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        dying, failing = FakeWorker(batcher, capacity=1), FakeWorker(batcher, capacity=1)
        batcher.add_worker(dying)
        batcher.add_worker(failing)
        ticket = batcher.submit(("a", 1), seeds=list(range(8)))  # half on each
        await turn()
        batcher.remove_worker(dying)
        batcher.failed(failing.held.pop(), "out of memory")
        await turn()
        while failing.held:
            failing.answer()
            await turn()
        assert (await ticket.done == image_of(latents(list(range(8)), Z_DIM))).all()
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_the_death_of_a_worker_with_an_earlier_attempt_does_not_end_the_retry() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        workers = [FakeWorker(batcher, capacity=1) for _ in range(2)]
        for worker in workers:
            batcher.add_worker(worker)
        ticket = batcher.submit(("a", 1), seeds=list(range(8)))  # half on each
        await turn()
        for worker in workers:  # the second one held nothing of the second attempt
            batcher.remove_worker(worker)
        living = FakeWorker(batcher)
        batcher.add_worker(living)
        await turn()
        while living.held:
            living.answer()
            await turn()
        assert (await ticket.done == image_of(latents(list(range(8)), Z_DIM))).all()

    asyncio.run(scenario())


def test_images_of_the_wrong_number_fail_the_batch() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        worker = FakeWorker(batcher)
        batcher.add_worker(worker)
        tickets = [batcher.submit(("a", 1), seeds=[seed] * 3) for seed in range(2)]
        await turn()
        for batch in list(worker.held):
            batcher.made(batch, np.zeros((1, 1, 4, 1), np.uint8), ROW_S)
        for ticket in tickets:
            with pytest.raises(UnavailableProblem, match="could not be used"):
                await asyncio.wait_for(ticket.done, 1)
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_an_answer_that_comes_twice_is_counted_once() -> None:
    async def scenario() -> None:
        batcher = make_batcher()
        worker = FakeWorker(batcher)
        batcher.add_worker(worker)
        ticket = batcher.submit(("a", 1), seeds=[1, 2])
        await turn()
        (batch,) = worker.held
        worker.answer()
        batcher.failed(batch, "too late")
        batcher.made(batch, image_of(batch.z(Z_DIM, scale=True)), ROW_S)
        assert (await ticket.done == image_of(latents([1, 2], Z_DIM))).all()
        assert batcher.in_flight_rows == 0

    asyncio.run(scenario())


class Scene:
    """A batcher and its workers, to which things happen; each takes a number to choose by."""

    def __init__(self) -> None:
        self.batcher = make_batcher(max_batch_rows=3, recovery_s=0.001)
        self.workers: list[FakeWorker] = []
        self.tickets: list[Ticket] = []
        self.ended: list[Batch] = []

    def submit(self, number: int) -> None:
        key, bulk = ("ab"[number % 2], 1), number % 3 == 0
        with contextlib.suppress(UnavailableProblem):
            ticket = self.batcher.submit(key, seeds=list(range(1 + number)), bulk=bulk)
            self.tickets.append(ticket)

    def cancel(self, number: int) -> None:
        if self.tickets:
            self.batcher.cancel(self.tickets[number % len(self.tickets)], TimeoutError())

    def abort(self, number: int) -> None:
        """As uvicorn's shutdown does, behind the batcher's back."""
        if self.tickets:
            self.tickets[number % len(self.tickets)].done.cancel()

    def take_back(self, number: int) -> Batch | None:
        """A batch that a worker has done with."""
        holding = [worker for worker in self.workers if worker.held]
        if not holding:
            return None
        held = holding[number % len(holding)].held
        self.ended.append(held.pop(number % len(held)))
        return self.ended[-1]

    def made(self, number: int) -> None:
        if batch := self.take_back(number):
            self.batcher.made(batch, image_of(batch.z(Z_DIM, scale=True)), ROW_S)

    def made_too_few(self, number: int) -> None:
        if batch := self.take_back(number):
            self.batcher.made(batch, np.zeros((0, 1, 4, 1), np.uint8), ROW_S)

    def failed(self, number: int) -> None:
        if batch := self.take_back(number):
            self.batcher.failed(batch, "failed")

    def failed_again(self, number: int) -> None:
        if self.ended:
            self.batcher.failed(self.ended[number % len(self.ended)], "again")

    def refuse(self, number: int) -> None:
        if self.workers:
            error = (OSError, asyncio.CancelledError)[number % 2]()
            self.workers[number % len(self.workers)].refuses.append(error)

    def add_worker(self, number: int) -> None:
        self.workers.append(FakeWorker(self.batcher))
        self.batcher.add_worker(self.workers[-1])

    def remove_worker(self, number: int) -> None:
        if self.workers:
            self.batcher.remove_worker(self.workers.pop(number % len(self.workers)))

    def check_books(self) -> None:
        unsent = sum(ticket.num_rows - ticket.num_sent for ticket in self.tickets)
        assert self.batcher.waiting_rows == unsent
        held = sum(batch.num_rows for worker in self.workers for batch in worker.held)
        assert self.batcher.in_flight_rows == held

    async def end(self) -> None:
        """The last worker goes, and none comes back."""
        while self.workers:
            self.remove_worker(0)
        async with asyncio.timeout(5):
            if self.tickets:
                await asyncio.wait([ticket.done for ticket in self.tickets])
            while self.batcher.waiting_rows:
                await asyncio.sleep(0.001)
        for ticket in self.tickets:
            ended = ticket.done
            assert ended.cancelled() or ended.exception() or len(ended.result()) == ticket.num_rows


EVENTS = [name for name in vars(Scene) if name not in ("take_back", "check_books", "end")]
EVENTS = [name for name in EVENTS if not name.startswith("_")]
events = st.lists(st.tuples(st.sampled_from([*EVENTS, "turn"]), st.integers(0, 11)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(events)
def test_whatever_happens_nothing_stays_booked_and_every_ticket_ends(
    happened: list[tuple[str, int]],
) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.add_worker(0)
        for event, number in happened:
            if event == "turn":
                await turn()
            else:
                getattr(scene, event)(number)
            scene.check_books()
        await scene.end()
        scene.check_books()

    asyncio.run(scenario())

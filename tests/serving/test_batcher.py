"""The batcher against workers played by hand: every row once, in its place, in any order."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.latents import latents
from serving.batcher import BULK_SHARE, Batcher
from serving.errors import OverloadedProblem, UnavailableProblem
from serving.tickets import Batch, Ticket

Z_DIM = 2


ROW_S = 0.001


@dataclass
class Hand:
    """A carrier whose batches are answered when the test says so."""

    batcher: Batcher
    capacity: int = 2
    held: list[Batch] = field(default_factory=list)
    carried: list[Batch] = field(default_factory=list)
    lanes: int = 1

    @property
    def room(self) -> int:
        return self.capacity - len(self.held)

    def carry(self, batch: Batch) -> None:
        self.held.append(batch)
        self.carried.append(batch)

    def answer(self, index: int = 0) -> None:
        batch = self.held.pop(index)
        self.batcher.made(batch, image_of(batch.z(Z_DIM, scale=True)), ROW_S * batch.num_rows)


def image_of(z: np.ndarray) -> np.ndarray:
    """A 'model': each row's image is its first latent's bytes."""
    return z[:, :1].copy().view(np.uint8).reshape(len(z), 1, 4, 1)


def make_batcher(max_batch_rows: int = 4, max_waiting_rows: int = 1000) -> Batcher:
    return Batcher(
        max_batch_rows=max_batch_rows,
        max_waiting_rows=max_waiting_rows,
        on_made=lambda batch, compute_s: None,
        on_load=lambda: None,
        recovery_s=0.05,
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
        hands = [Hand(batcher) for _ in range(1 + two_workers)]
        for hand in hands:
            batcher.join(hand)
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
            hand = hands[choice % len(hands)]
            if hand.held:
                hand.answer(choice % len(hand.held))
                await turn()
        while busy := [hand for hand in hands if hand.held]:
            busy[0].answer()
            await turn()
        for ticket, z in tickets:
            assert (await ticket.done == image_of(z)).all()
        carried = [batch for hand in hands for batch in hand.carried]
        assert all(1 <= batch.num_rows <= max_batch_rows for batch in carried)
        assert sum(batch.num_rows for batch in carried) == seed
        assert all(len({p.ticket.key for p in batch.pieces}) == 1 for batch in carried)
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_what_one_turn_reads_leaves_in_one_batch() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=64)
        hand = Hand(batcher)
        batcher.join(hand)
        for seed in range(10):
            batcher.submit(("a", 1), seeds=[seed])
        await turn()
        assert [batch.num_rows for batch in hand.held] == [10]

    asyncio.run(scenario())


def test_models_take_turns() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        hand = Hand(batcher, capacity=1)
        batcher.join(hand)
        batcher.submit(("busy", 1), seeds=list(range(40)))
        batcher.submit(("other", 1), seeds=[1])
        for _ in range(3):
            await turn()
            hand.answer()
        names = [batch.key[0] for batch in hand.carried]
        assert names[:3] == ["busy", "other", "busy"]

    asyncio.run(scenario())


def test_psi_scales_only_its_own_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher()
        hand = Hand(batcher)
        batcher.join(hand)
        half = batcher.submit(("a", 1), seeds=[1], psi=0.5)
        whole = batcher.submit(("a", 1), seeds=[1])
        await turn()
        hand.answer()
        z = latents([1], Z_DIM)
        assert (await half.done == image_of(z * np.float32(0.5))).all()
        assert (await whole.done == image_of(z)).all()

    asyncio.run(scenario())


def test_rows_beyond_the_bound_are_refused_with_a_time_to_come_back() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4, max_waiting_rows=10)
        hand = Hand(batcher, capacity=1)
        batcher.join(hand)
        batcher.submit(("a", 1), seeds=list(range(10)))
        with pytest.raises(OverloadedProblem, match="10 images wait, 10 may, 1 more") as refused:
            batcher.submit(("a", 1), seeds=[1])
        ((name, value),) = refused.value.headers
        assert name == b"retry-after"
        assert int(value) >= 1
        await turn()  # four leave, and are not made yet
        with pytest.raises(OverloadedProblem, match="10 images wait"):
            batcher.submit(("a", 1), seeds=[1])
        hand.answer()
        batcher.submit(("a", 1), seeds=[1, 2, 3, 4])

    asyncio.run(scenario())


def test_what_waits_is_shared_between_the_lanes() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=64)
        hands = [Hand(batcher, capacity=3, lanes=2), Hand(batcher)]
        for hand in hands:
            batcher.join(hand)
        first = batcher.submit(("a", 1), seeds=list(range(10)))
        await turn()
        assert [batch.num_rows for batch in hands[0].carried] == [10]  # nobody knows how long
        hands[0].answer()
        await first.done
        big = batcher.submit(("a", 1), seeds=list(range(10, 40)))
        for _ in range(3):
            await turn()
        carried = [batch.num_rows for hand in hands for batch in hand.held]
        assert carried == [6] * 5  # three in the making, two ahead; none would go unanswered
        while busy := [hand for hand in hands if hand.held]:
            busy[0].answer()
        assert (await big.done == image_of(latents(list(range(10, 40)), Z_DIM))).all()
        await turn()
        batcher.submit(("a", 1), seeds=[1, 2])  # 2 ms of work: not worth it
        await turn()
        assert [batch.num_rows for hand in hands for batch in hand.held] == [2]

    asyncio.run(scenario())


def test_without_a_worker_a_request_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(UnavailableProblem):
            make_batcher().submit(("a", 1), seeds=[1])

    asyncio.run(scenario())


def test_a_cancelled_ticket_frees_its_unsent_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        hand = Hand(batcher, capacity=1)
        batcher.join(hand)
        ticket = batcher.submit(("a", 1), seeds=list(range(10)))
        other = batcher.submit(("a", 1), seeds=[7])
        await turn()
        assert batcher.cancel(ticket, TimeoutError()) == 6
        assert batcher.waiting_rows == 1
        with pytest.raises(TimeoutError):
            await ticket.done
        hand.answer()  # the rows that were sent come back to nobody
        await turn()
        hand.answer()
        assert (await other.done == image_of(latents([7], Z_DIM))).all()

    asyncio.run(scenario())


def test_a_dead_workers_rows_are_tried_once_on_another() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        dying, living = Hand(batcher, capacity=1), Hand(batcher, capacity=1)
        batcher.join(dying)
        batcher.join(living)
        ticket = batcher.submit(("a", 1), seeds=list(range(8)))  # half on each
        await turn()
        assert dying.held
        assert living.held
        batcher.leave(dying, dying.held)
        await turn()
        while living.held:
            living.answer()
            await turn()
        assert (await ticket.done == image_of(latents(list(range(8)), Z_DIM))).all()

    asyncio.run(scenario())


def test_when_the_last_worker_dies_the_next_one_makes_its_rows() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        dying = Hand(batcher)
        batcher.join(dying)
        tickets = [batcher.submit(("a", 1), seeds=[seed] * 3) for seed in range(5)]
        await turn()
        batcher.leave(dying, dying.held)
        late = batcher.submit(("a", 1), seeds=[99])
        living = Hand(batcher)
        batcher.join(living)
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
            hand = Hand(batcher)
            batcher.join(hand)
            poison = poison or batcher.submit(("a", 1), seeds=list(range(8)))  # two batches
            await turn()
            assert len(hand.held) == 2
            batcher.leave(hand, hand.held)
        assert poison is not None
        with pytest.raises(UnavailableProblem, match="not tried again"):
            await poison.done
        assert batcher.waiting_rows == batcher.in_flight_rows == 0

    asyncio.run(scenario())


def test_when_no_worker_comes_back_nothing_hangs() -> None:
    async def scenario() -> None:
        batcher = make_batcher(max_batch_rows=4)
        hand = Hand(batcher, capacity=1)
        batcher.join(hand)
        tickets = [batcher.submit(("a", 1), seeds=[seed] * 3) for seed in range(5)]
        await turn()
        batcher.leave(hand, hand.held)
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
        hand = Hand(batcher, capacity=1)
        batcher.join(hand)
        bulk = batcher.submit(("a", 1), seeds=[7] * 3, bulk=True)
        for seed in range(2 * BULK_SHARE):
            batcher.submit(("a", 1), seeds=[seed])
        await turn()
        while hand.held:
            hand.answer()
            await turn()
        turns = [batch.pieces[0].ticket is bulk for batch in hand.carried]
        assert sum(turns[:BULK_SHARE]) == 1
        assert sum(turns[: 2 * BULK_SHARE]) == 2
        assert sum(turns) == 3

    asyncio.run(scenario())

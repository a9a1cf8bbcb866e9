"""A generation tells one outcome, whatever happens to its images, its client and its deadline."""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.generator import Images
from models.image_metadata import with_metadata
from serving.dispatch.batcher import Batcher
from serving.dispatch.catalogue import Served
from serving.dispatch.tickets import Batch, Ticket
from serving.encoding.bodies import Alone, Array, Listed, Tiled
from serving.encoding.formats import FORMATS, Format
from serving.errors import ClientGoneError, DeadlineProblem, UnavailableProblem
from serving.http.context import RequestContext
from serving.http.messages import Message, Request, Response
from serving.requests.deadlines import Scheduling
from serving.requests.generate import Order
from serving.settings import Settings
from tests.support import make_service


class FakeBundle:
    """Counts how often its digest is asked for."""

    def __init__(self, name: str) -> None:
        self.manifest: Any = type(
            "FakeManifest", (), {"name": name, "version": 1, "z_dim": 4, "has_mapping": False}
        )
        self.num_asked = 0

    @property
    def digest(self) -> str:
        self.num_asked += 1
        return "abc"


class FakeWorker:
    lanes = 1
    free_slots = 100

    def __init__(self) -> None:
        self.held: list[Batch] = []

    def send(self, batch: Batch) -> None:
        self.held.append(batch)


class Setup:
    """A service with a worker that answers when the test says so."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = Settings(repository=folder, **settings)
        self.service = make_service(given, folder)
        self.batcher: Batcher = self.service.batcher
        self.worker = FakeWorker()
        self.batcher.add_worker(self.worker)
        self.bundle = FakeBundle("grey")
        self.served = Served(self.bundle)  # type: ignore[arg-type]
        self.outcomes: list[Any] = []

    def order(self, num_rows: int = 1, encoding: Any = None) -> Order:
        encoding = encoding or Alone(FORMATS["png"])
        return Order(self.served, list(range(num_rows)), None, None, 1.0, encoding)

    def context(self) -> RequestContext:
        return self.service.recorder.begin("/v1/generate", "POST", lambda name: None)

    def start(self, order: Order, timeout_ms: int = 5000) -> Any:
        scheduling = Scheduling(timeout_ms, bulk=False)
        return self.service.start(order, scheduling, self.context(), self.outcomes.append)

    def answer(self, side: int = 2) -> None:
        for batch in self.worker.held:
            self.batcher.made(batch, np.zeros((batch.num_rows, side, side, 1), np.uint8), 0.001)
        self.worker.held.clear()

    async def outcome(self) -> Any:
        async with asyncio.timeout(5):
            while not self.outcomes:
                await asyncio.sleep(0)
        for _ in range(20):  # is there a second one?
            await asyncio.sleep(0)
        (outcome,) = self.outcomes
        return outcome


def run(folder: Path, scenario: Any, **settings: Any) -> None:
    async def main() -> None:
        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        setup = Setup(folder, **settings)
        try:
            await scenario(setup)
        finally:
            setup.service.encoder.shut_down()
        assert setup.batcher.waiting_rows == 0
        assert not raised

    asyncio.run(main())


def test_images_are_encoded_once_they_are_there(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        setup.start(setup.order())
        await asyncio.sleep(0)
        setup.answer()
        outcome = await setup.outcome()
        assert outcome.body.startswith(b"\x89PNG")

    run(tmp_path, scenario)


def test_large_images_are_encoded_in_a_thread(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        setup.start(setup.order())
        await asyncio.sleep(0)
        setup.answer(side=1000)
        assert (await setup.outcome()).body.startswith(b"\x89PNG")

    run(tmp_path, scenario)


@pytest.mark.parametrize("side", [2, 1000])
@pytest.mark.parametrize("first_leaves", [False, True])
def test_an_image_that_is_made_and_not_yet_kept_is_not_made_again(
    tmp_path: Path, side: int, first_leaves: bool
) -> None:
    """Whenever the second request comes: a turn of the event loop may lie between any two steps."""

    async def scenario(setup: Setup) -> None:
        num_made = num_late = 0

        def answer() -> None:
            nonlocal num_made
            num_made += len(setup.worker.held)
            setup.answer(side)

        first = setup.start(setup.order())
        await asyncio.sleep(0)
        answer()
        async with asyncio.timeout(30):
            while not setup.outcomes:
                setup.start(setup.order())
                num_late += 1
                if first_leaves:
                    first.leave()
                await asyncio.sleep(0)
                answer()
            while len(setup.outcomes) <= num_late:
                await asyncio.sleep(0)
                answer()
        assert num_made == 1
        bodies = {outcome.body for outcome in setup.outcomes if isinstance(outcome, Response)}
        assert len(bodies) == 1
        assert len(setup.service._single_flight) == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize("side", [2, 1000])
def test_a_defect_of_an_encoder_is_the_outcome(tmp_path: Path, side: int) -> None:
    def broken(image: Images) -> bytes:
        raise RuntimeError("odd")

    async def scenario(setup: Setup) -> None:
        setup.start(setup.order(encoding=Alone(Format("png", "image/png", broken, 9))))
        await asyncio.sleep(0)
        setup.answer(side)
        assert isinstance(await setup.outcome(), RuntimeError)

    run(tmp_path, scenario)


def test_at_the_deadline_what_is_not_sent_is_dropped(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        setup.worker.free_slots = 0
        setup.start(setup.order(3), timeout_ms=1)
        assert isinstance(await setup.outcome(), DeadlineProblem)
        assert setup.batcher.waiting_rows == 0
        setup.answer()
        assert len(setup.outcomes) == 1

    run(tmp_path, scenario)


@pytest.mark.parametrize("reason", ["deadline", "client"])
def test_what_is_being_encoded_is_given_up_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async def scenario(setup: Setup) -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def encode(*_: Any) -> Response:
            began.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.set()
            raise AssertionError

        monkeypatch.setattr(setup.service.encoder, "encode_in_thread", encode)
        monkeypatch.setattr(setup.service.encoder, "is_small", lambda *_: False)
        generation = setup.start(setup.order())
        await asyncio.sleep(0)
        setup.answer()
        await asyncio.wait_for(began.wait(), 5)
        if reason == "client":
            generation.leave()
        else:
            generation.expire(Scheduling(5000, bulk=False))
        kind = DeadlineProblem if reason == "deadline" else ClientGoneError
        assert isinstance(await setup.outcome(), kind)
        await asyncio.wait_for(cancelled.wait(), 5)

    run(tmp_path, scenario)


def test_a_client_that_leaves_is_an_outcome_and_its_rows_are_dropped(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        generation = setup.start(setup.order(3, Listed(FORMATS["png"])))
        generation.leave()
        generation.leave()
        assert isinstance(await setup.outcome(), ClientGoneError)

    run(tmp_path, scenario)


def test_images_that_come_after_a_shutdown_cancelled_them_harm_nobody(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        tickets: list[Ticket] = []
        submit = setup.batcher.submit

        def remember(*arguments: Any, **words: Any) -> Ticket:
            tickets.append(submit(*arguments, **words))
            return tickets[-1]

        setup.batcher.submit = remember  # type: ignore[method-assign]
        setup.start(setup.order())
        await asyncio.sleep(0)
        tickets[0].done.cancel()
        setup.answer()
        assert isinstance(await setup.outcome(), UnavailableProblem)

    run(tmp_path, scenario)


def request_of(setup: Setup, messages: "asyncio.Queue[Message]") -> Request:
    return Request({}, messages.get, setup.context(), 1.0)


def test_make_ends_with_its_client(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        request = request_of(setup, messages)
        scheduling = Scheduling(5000, bulk=False)
        order = setup.order(3, Array())
        making = asyncio.create_task(setup.service.make(order, scheduling, request))
        await messages.put({"type": "http.request"})
        await messages.put({"type": "http.disconnect"})
        with pytest.raises(ClientGoneError):
            await asyncio.wait_for(making, 5)

    run(tmp_path, scenario)


def test_make_that_is_cancelled_drops_its_rows(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        setup.worker.free_slots = 0
        request = request_of(setup, asyncio.Queue())
        scheduling = Scheduling(5000, bulk=False)
        making = asyncio.create_task(setup.service.make(setup.order(), scheduling, request))
        await asyncio.sleep(0)
        assert setup.batcher.waiting_rows == 1
        making.cancel()  # as uvicorn does when its shutdown takes too long
        with pytest.raises(asyncio.CancelledError):
            await making
        assert setup.batcher.waiting_rows == 0

    run(tmp_path, scenario)


def test_the_keys_of_the_images_are_made_once(tmp_path: Path) -> None:
    """For the cache, single flight and the cache again, which all look the image up."""

    async def scenario(setup: Setup) -> None:
        _ = setup.served.headers, setup.served.identity  # they have the digest too
        before = setup.bundle.num_asked
        setup.start(setup.order())
        await asyncio.sleep(0)
        setup.answer()
        await setup.outcome()
        assert setup.bundle.num_asked - before == 2  # once for the keys, once for the file's words

    run(tmp_path, scenario)


def test_images_of_a_batch_are_encoded_together(tmp_path: Path) -> None:
    """The bytes are those of each alone; who has left meanwhile is left out, and faults are one's
    own."""
    together: list[int] = []

    def encode_many(images: Images) -> list[bytes]:
        together.append(len(images))
        return FORMATS["png"].encode_all(images)

    def broken(images: Images) -> list[bytes]:
        raise RuntimeError("odd")

    async def scenario(setup: Setup) -> None:
        png = replace(FORMATS["png"], encode_many=encode_many)
        setup.start(setup.order(1, Alone(png)))
        setup.start(setup.order(2, Listed(png)))
        setup.start(setup.order(2, Tiled(png)))  # as one image: another kind
        leaving = setup.start(setup.order(1, Alone(png)))
        odd = Format("odd", "image/odd", lambda image: broken(image)[0], 9, encode_many=broken)
        setup.start(setup.order(1, Alone(odd)))
        setup.start(setup.order(1, Alone(odd)))
        await asyncio.sleep(0)
        (batch,) = setup.worker.held
        images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), np.uint8)
        setup.batcher.made(batch, images, 0.001)
        for _ in range(20):
            if together:
                break
            await asyncio.sleep(0)
            if not leaving.ended:
                leaving.leave()
        for _ in range(20):
            await asyncio.sleep(0)
        assert together == [3]
        left, first, second, third, fourth, fifth = setup.outcomes
        assert isinstance(left, ClientGoneError)
        assert isinstance(fourth, RuntimeError)
        assert isinstance(fifth, RuntimeError)
        alone = FORMATS["png"].encode
        order = setup.order(1)
        assert with_metadata(alone(images[0]), "png", order.provenance(0)) == first.body
        assert (
            base64.b64encode(with_metadata(alone(images[2]), "png", setup.order(2).provenance(1)))
            in second.body
        )
        assert third.media_type == "image/png"

    run(tmp_path, scenario, cache_bytes=0)


def test_an_answer_that_can_not_be_given_harms_no_other(tmp_path: Path) -> None:
    async def scenario(setup: Setup) -> None:
        handler = asyncio.get_running_loop().get_exception_handler()
        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: raised.append(told))
        context, scheduling = setup.context(), Scheduling(5000, bulk=False)

        def refuse(outcome: Any) -> None:
            raise ValueError("odd")

        setup.service.start(setup.order(), scheduling, context, refuse)
        setup.start(setup.order())
        await asyncio.sleep(0)
        setup.answer()
        assert (await setup.outcome()).body.startswith(b"\x89PNG")
        assert isinstance(raised[0]["exception"], ValueError)
        asyncio.get_running_loop().set_exception_handler(handler)

    run(tmp_path, scenario, cache_bytes=0)

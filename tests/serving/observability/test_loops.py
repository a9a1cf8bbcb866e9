"""A loop goes on whatever a turn raises, says it once, and does so where it can't be said."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from serving.observability import loops, metrics
from serving.observability.loops import Loop, SaidOnce, in_thread
from tests.serving.exceptions import KINDS


class Turns:
    """A turn that fails some times with an error, then goes well some times, then ends."""

    def __init__(self, *errors: BaseException, num_good: int = 2) -> None:
        self.errors, self.num_good = list(errors), num_good
        self.num = 0

    def __call__(self) -> bool:
        self.num += 1
        if self.errors:
            raise self.errors.pop(0)
        self.num_good -= 1
        return self.num_good > 0

    async def turn(self) -> float | None:
        return 0.0 if self() else None


def value(metric: Any, name: str) -> float:
    return float(metric.labels(name)._value.get())


@pytest.fixture(params=["asyncio", "thread"])
def run(request: pytest.FixtureRequest) -> Callable[[Loop, Turns], None]:
    """Runs a loop to its end, in either way."""

    def in_asyncio(loop: Loop, turns: Turns) -> None:
        asyncio.run(loop.run(turns.turn))

    def in_a_thread(loop: Loop, turns: Turns) -> None:
        thread = threading.Thread(target=loop.run_in_thread, args=(turns,))
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    return in_asyncio if request.param == "asyncio" else in_a_thread


def quick(name: str) -> Loop:
    return Loop(name, first_pause_s=0.001, last_pause_s=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_whatever_is_raised(
    run: Callable[[Loop, Turns], None], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop, turns = quick(f"test {kind}"), Turns(*[KINDS[kind]() for _ in range(3)])
    before = value(metrics.LOOP_FAILURES, loop.name)
    with caplog.at_level(logging.INFO):
        run(loop, turns)
    assert turns.num == 5
    assert value(metrics.LOOP_FAILURES, loop.name) == before + 3
    assert value(metrics.LOOP_FAILING_SINCE, loop.name) == math.inf
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "is tried again" in text]) == 1
    assert len([text for text in said if "works again, after 3 failures" in text]) == 1


def test_another_cause_is_said_again(
    run: Callable[[Loop, Turns], None], caplog: pytest.LogCaptureFixture
) -> None:
    run(quick("test"), Turns(OSError("a"), OSError("a"), OSError("b"), ValueError("b")))
    said = [text for record in caplog.records if "tried again" in (text := record.getMessage())]
    assert [text.rpartition("again: ")[2] for text in said] == [
        "OSError: a",
        "OSError: b",
        "ValueError: b",
    ]


def test_failing_since_is_shown_while_it_fails() -> None:
    loop = Loop("test since")
    loop.failed(OSError("a"))
    since = value(metrics.LOOP_FAILING_SINCE, loop.name)
    assert since == loop.failing_since
    loop.failed(OSError("b"))
    assert value(metrics.LOOP_FAILING_SINCE, loop.name) == since
    loop.succeeded()
    assert loop.failing_since is None


def test_pauses_double_and_begin_anew() -> None:
    loop = Loop("test pauses", first_pause_s=1, last_pause_s=5)
    assert [loop.failed(OSError()) for _ in range(5)] == [1, 2, 4, 5, 5]
    loop.succeeded()
    assert loop.failed(OSError()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_while_a_failure_is_told_ends_nothing(
    run: Callable[[Loop, Turns], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise KINDS[kind]()

    loop, turns = quick("test"), Turns(ValueError(), ValueError())
    for name in ("error", "info"):
        monkeypatch.setattr(loops.logger, name, fail)
    for metric in (metrics.LOOP_FAILURES, metrics.LOOP_FAILING_SINCE):
        monkeypatch.setattr(metric, "labels", fail)
    run(loop, turns)
    assert turns.num == 4
    quick("test another")


def test_it_ends_when_it_is_cancelled_and_only_then() -> None:
    async def scenario() -> None:
        turns = 0

        async def turn() -> float:
            nonlocal turns
            turns += 1
            if turns < 3:
                raise asyncio.CancelledError  # of something that it waited for
            await asyncio.sleep(3600)
            return 0.0

        task = asyncio.create_task(quick("test").run(turn))
        while turns < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_the_end_of_the_process_is_not_held_up(error: BaseException) -> None:
    with pytest.raises(type(error)):
        asyncio.run(quick("test").run(Turns(error).turn))


def test_a_thread_is_not_ended_by_what_looks_like_an_end() -> None:
    turns = Turns(SystemExit(3), KeyboardInterrupt())
    quick("test").run_in_thread(turns)
    assert turns.num == 4


def test_causes_are_bounded_and_said_again_after_a_while() -> None:
    said = SaidOnce(most=2, again_s=3600)
    assert [said.is_new(cause) for cause in ("a", "a", "b", "c", "a")] == [1, 0, 1, 1, 1]
    assert SaidOnce(again_s=0).is_new("a")
    again = SaidOnce(again_s=0)
    assert [again.is_new("a"), again.is_new("a")] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_thread_raises_comes_to_who_waits(kind: str) -> None:
    async def scenario() -> None:
        def work() -> None:
            raise KINDS[kind]()

        with pytest.raises(type(KINDS[kind]())):
            await in_thread(work, "test")
        assert await in_thread(lambda: 7, "test") == 7

    asyncio.run(scenario())


def test_a_thread_that_ends_when_nobody_waits_disturbs_nobody() -> None:
    let_go = threading.Event()

    async def scenario() -> None:
        waiting = asyncio.ensure_future(in_thread(lambda: let_go.wait(20), "test"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        let_go.set()
        await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_thread_cannot_end_the_event_loop() -> None:
    async def scenario() -> None:
        def work() -> None:
            raise SystemExit(3)

        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            await in_thread(work, "test")

    asyncio.run(scenario())

"""What requests hold in memory, and who waits for room."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.http.memory import Hold, Memory


def test_who_does_not_fit_waits_and_begins_when_there_is_room() -> None:
    memory = Memory(100)
    first, second = Hold(memory), Hold(memory)
    begun: list[int] = []
    assert first.wait_for(80, lambda: begun.append(1))
    assert not second.wait_for(80, lambda: begun.append(2))
    assert (memory.held_bytes, memory.is_short, begun) == (80, True, [])
    first.resize(30)
    assert begun == []
    first.resize(20)
    assert (begun, memory.held_bytes, memory.is_short) == ([2], 100, False)


def test_one_request_alone_may_hold_more() -> None:
    memory = Memory(100)
    hold, other = Hold(memory), Hold(memory)
    assert hold.try_add(60)
    assert hold.wait_for(500, lambda: None)
    assert memory.held_bytes == 500  # instead of what it held
    assert not other.try_add(1)
    hold.release()
    assert other.try_add(1)


def test_who_came_first_goes_first_and_what_is_small_before() -> None:
    memory = Memory(6400)
    holds = [Hold(memory) for _ in range(4)]
    begun: list[int] = []
    assert holds[0].wait_for(6000, lambda: None)
    assert not holds[1].wait_for(5000, lambda: begun.append(1))
    assert not holds[2].wait_for(300, lambda: begun.append(2))  # there is room, but not its turn
    assert holds[3].wait_for(100, lambda: begun.append(3))
    holds[0].release()
    assert begun == [1, 2]


def test_who_leaves_waits_no_more() -> None:
    memory = Memory(100)
    holds = [Hold(memory) for _ in range(3)]
    begun: list[int] = []
    assert holds[0].wait_for(60, lambda: None)
    assert not holds[1].wait_for(90, lambda: begun.append(1))
    assert not holds[2].wait_for(40, lambda: begun.append(2))
    holds[1].release()
    assert begun == [2]
    holds[1].release()
    assert holds[1].wait_for(1000, lambda: begun.append(1))  # it counts nothing any more
    assert memory.held_bytes == 100


def test_what_a_thread_works_with_is_held_until_it_ends() -> None:
    memory = Memory(100)
    hold = Hold(memory)
    hold.wait_for(50, lambda: None)
    hold.keep()
    hold.release()
    assert memory.held_bytes == 50
    hold.unkeep()
    assert memory.held_bytes == 0


@given(st.data())
def test_at_the_end_nothing_is_held_and_nobody_waits(data: Any) -> None:
    memory = Memory(1000)
    holds = [Hold(memory) for _ in range(5)]
    waiting: set[Hold] = set()
    for _ in range(data.draw(st.integers(0, 30))):
        hold = data.draw(st.sampled_from(holds))
        size = data.draw(st.integers(0, 900))
        action = data.draw(st.sampled_from(["add", "wait", "resize", "keep", "unkeep", "release"]))
        if action == "add":
            hold.try_add(size)
        elif action == "wait" and hold not in waiting:
            if not hold.wait_for(size, lambda hold=hold: waiting.discard(hold)):
                waiting.add(hold)
        elif action == "resize":
            hold.resize(size)
        elif action in ("keep", "unkeep", "release"):
            getattr(hold, action)()
            if action == "release":
                waiting.discard(hold)
        assert memory.held_bytes == sum(each.num_bytes for each in holds) >= 0
    for hold in holds:
        hold.unkeep()
        hold.release()
    assert (memory.held_bytes, memory.is_short) == (0, False)

"""Who is the last of the HTTP processes to have a model, when they come at once."""

import os

from serving.process.readiness import StartupBarrier
from serving.shared_file import SharedFile


def test_the_last_one_is_told_and_all_know() -> None:
    file = SharedFile("started")
    barriers = [StartupBarrier(file, index, 3) for index in range(3)]
    assert [barriers[index].arrive() for index in (2, 0)] == [False, False]
    assert not any(barrier.all_arrived() for barrier in barriers)
    assert not barriers[0].arrive()  # once more doesn't count twice
    assert barriers[1].arrive()
    assert all(barrier.all_arrived() for barrier in barriers)


def test_of_several_processes_exactly_one_is_told() -> None:
    num = 6
    for _ in range(20):
        file = SharedFile("started")
        start, go = os.pipe()
        end, finish = os.pipe()
        answers, answer = os.pipe()
        children = []
        for index in range(num):
            if not (child := os.fork()):
                os.close(finish)
                os.read(start, 1)
                os.write(answer, b"x" if StartupBarrier(file, index, num).arrive() else b"-")
                os.read(end, 1)  # the lock lives as long as the process
                os._exit(0)
            children.append(child)
        os.write(go, b"g" * num)
        told = b""
        while len(told) < num:
            told += os.read(answers, num)
        assert told.count(b"x") == 1
        for descriptor in (finish, end, go, start):
            os.close(descriptor)
        for child in children:
            os.waitpid(child, 0)
        os.close(answers)
        os.close(answer)

"""Models out of service, as all processes of a server see them."""

import fcntl
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.errors import UnavailableProblem
from serving.inference import withdrawn
from serving.inference.withdrawn import Withdrawn
from serving.shared_file import SharedFile

ROOT = Path(__file__).parents[3]


def test_names_come_and_go_for_everyone() -> None:
    file = SharedFile("withdrawn")
    one, other = Withdrawn(file), Withdrawn(file)
    assert one.names() == frozenset()
    one.add("tiny")
    other.add("grey")
    one.add("tiny")
    assert one.names() == other.names() == {"tiny", "grey"}
    other.remove("tiny")
    other.remove("never there")
    assert one.names() == {"grey"}
    assert "grey" in one
    assert "tiny" not in one
    one.remove("grey")
    assert other.names() == frozenset()


def change(own: Withdrawn, number: int) -> None:
    for turn in range(50):
        own.add(f"model-{number}-{turn}")
        own.remove(f"model-{number}-{turn - 1}")


def test_processes_and_threads_that_change_it_at_once_lose_nothing() -> None:
    file = SharedFile("withdrawn")
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=change, args=(Withdrawn(file), number)) for number in range(3)]
    for process in processes:
        process.start()
    names = set()
    reader = Withdrawn(file)
    while any(process.is_alive() for process in processes):
        names |= reader.names()
    threads = [threading.Thread(target=change, args=(reader, number)) for number in range(3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.names() == {f"model-{number}-49" for number in range(5)}
    assert all(name.startswith("model-") for name in names)


def test_a_process_that_was_stopped_while_it_changed_it_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(withdrawn, "_WAIT_S", 0.05)
    file = SharedFile("withdrawn")
    own = Withdrawn(file)
    own.add("tiny")
    script = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
"""
    number = str(file.descriptor)
    with subprocess.Popen(
        [sys.executable, "-c", script, number],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(file.descriptor,),
    ) as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "locked\n"
        with pytest.raises(UnavailableProblem, match="ask again in a moment"):
            own.add("grey")
        assert own.names() == {"tiny"}
        stopped.communicate("go on\n")
    own.add("grey")
    assert own.names() == {"tiny", "grey"}


def test_half_a_write_is_not_believed() -> None:
    file = SharedFile("withdrawn")
    own = Withdrawn(file)
    own.add("tiny")
    whole = os.pread(file.descriptor, 1000, 0)
    os.pwrite(file.descriptor, whole[:-3] + b"xyz", 0)
    assert own.names() == {"tiny"}  # as it was known last
    os.pwrite(file.descriptor, whole, 0)
    assert Withdrawn(file).names() == {"tiny"}


def test_where_it_cannot_be_written_down_that_is_said(tmp_path: Path) -> None:
    file = SharedFile("withdrawn")
    own = Withdrawn(file)
    read_only = os.open(f"/proc/self/fd/{file.descriptor}", os.O_RDONLY)
    os.dup2(read_only, file.descriptor)
    os.close(read_only)
    with pytest.raises((UnavailableProblem, OSError)):
        own.add("tiny")
    assert own.names() == frozenset()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.lockf(file.descriptor, fcntl.LOCK_EX)

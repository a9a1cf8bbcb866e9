"""Tests marked `alone` run while no other worker's test does, and wait for their turn in order."""

import fcntl
import threading
from pathlib import Path

from tests.conftest import pytest_collection_modifyitems, turn
from tests.support import wait_for


def is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_who_wants_to_be_alone_waits_for_all_and_is_overtaken_by_nobody(tmp_path: Path) -> None:
    order: list[str] = []

    def take(name: str, *, alone: bool) -> threading.Thread:
        def run() -> None:
            with turn(tmp_path, alone=alone):
                order.append(name)
                assert is_locked(tmp_path / "room")

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with turn(tmp_path, alone=False):
        take("beside", alone=False).join()
        threads = [take("alone", alone=True)]
        wait_for(lambda: is_locked(tmp_path / "door"))
        threads.append(take("after", alone=False))
        assert order == ["beside"]
    for thread in threads:
        thread.join()
    assert order == ["beside", "alone", "after"]
    assert not is_locked(tmp_path / "room")


def test_they_come_last() -> None:
    class Marked:
        def __init__(self, name: str) -> None:
            self.name = name

        def get_closest_marker(self, name: str) -> object:
            return name if self.name.startswith(name) else None

    items = [Marked(name) for name in ("alone 1", "a", "alone 2", "b")]
    pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.name for item in items] == ["a", "b", "alone 1", "alone 2"]

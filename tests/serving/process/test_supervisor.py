"""The end of a server, as its first process brings it about."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from serving.process.supervisor import Server


@pytest.mark.parametrize("ends", [True, False])
def test_what_the_dead_have_counted_is_moved_by_one_thread_at_a_time(ends: bool) -> None:
    """The supervisor's last turn may be in the midst of it; where it hangs, nobody else does it."""
    stop, released = threading.Event(), threading.Event()

    def last_turn() -> None:
        stop.wait(30)
        released.wait(0.3 if ends else 30)

    supervisor = threading.Thread(target=last_turn)
    forgotten: list[tuple[int, bool]] = []
    server: Any = Server.__new__(Server)
    server.uvicorn_graceful_timeout = 0.0
    server.inference_workers = server._workers = []
    server._shutdown_event = stop
    server._orders = SimpleNamespace(told_by=None)
    server._drain_delay_s = 0.0
    metrics = SimpleNamespace(forget=lambda pid: forgotten.append((pid, supervisor.is_alive())))
    server._shared = SimpleNamespace(metrics=metrics)
    server._supervisor = supervisor
    process = SimpleNamespace(
        pid=7, terminate=lambda: None, join=lambda *timeout: None, is_alive=lambda: False
    )
    supervisor.start()
    server._perform_graceful_shutdown(None, {0: process})
    released.set()
    supervisor.join()
    assert forgotten == ([(7, False)] if ends else [])

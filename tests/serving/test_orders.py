"""What the first process hears of signals, and what its children don't lose."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import wait_for

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.chaos

PREAMBLE = """
import os, signal, sys, time
from serving import signals
from serving.signals import Orders

orders = Orders()
orders.listen()
"""


def run(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_the_first_signal_asks_and_the_second_ends() -> None:
    ran = run(
        """
orders.end_at_once = lambda: print("cleaned up", flush=True)
os.kill(os.getpid(), signal.SIGQUIT)
assert orders.stop.is_set()
assert orders.told_by == signal.SIGQUIT
orders.stop.wait()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""
    )
    assert (ran.returncode, ran.stdout) == (128 + signal.SIGTERM, "cleaned up\n"), ran.stderr


def test_a_hangup_is_told_once_for_all_that_came() -> None:
    ran = run(
        """
assert not orders.take_hangups()
for _ in range(100_000):
    signal.raise_signal(signal.SIGHUP)
assert orders.take_hangups()
while orders.take_hangups():
    pass
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPROF, signal.SIGIO):
    signal.raise_signal(number)
assert not orders.stop.is_set()
"""
    )
    assert ran.returncode == 0, ran.stderr


def test_a_child_hears_what_came_before_it_had_handlers_and_ignores_its_parents() -> None:
    ran = run(
        """
with signals.held():
    if not (child := os.fork()):
        while signal.SIGTERM not in signal.sigpending():
            time.sleep(0.01)
        heard = []
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        signals.leave_to_parent(signal.SIGQUIT, signal.SIGHUP)
        signals.release()
        assert heard == [signal.SIGTERM], heard
        signal.raise_signal(signal.SIGINT)  # the handler that it inherited is the parent's
        assert not orders.stop.is_set()
        os._exit(7)
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    os.kill(child, number)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
os.kill(os.getpid(), signal.SIGTERM)  # held back no longer here
assert orders.stop.is_set()
"""
    )
    assert ran.returncode == 0, ran.stderr


WITH_TERMINAL = (
    PREAMBLE
    + """
print("ready", flush=True)
while not orders.stop.is_set():
    if orders.take_hangups():
        print("again", flush=True)
    time.sleep(0.01)
sys.exit(int(orders.told_by))
"""
)


def started_on_a_terminal(tmp_path: Path, prefix: str = "") -> tuple[int, int, Path]:
    """A process with a terminal of its own; gives its number, the terminal's end, its output."""
    output = tmp_path / "output"
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests with nohup
        os.environ["PYTHONPATH"] = str(ROOT)
        script = f"{prefix} exec '{sys.executable}' -c \"$SCRIPT\" > '{output}' 2>&1"
        os.environ["SCRIPT"] = WITH_TERMINAL
        os.execv("/bin/sh", ["sh", "-c", script])
    wait_for(lambda: output.exists() and "ready" in output.read_text())
    return pid, terminal, output


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    pid, terminal, output = started_on_a_terminal(tmp_path)
    os.kill(pid, signal.SIGHUP)  # the terminal is there still
    wait_for(lambda: "again" in output.read_text())
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == signal.SIGTERM


def test_a_terminal_that_is_gone_a_moment_after_the_signal() -> None:
    ran = run(
        """
signals._has_terminal = lambda: True
orders._ends_with_terminal = True
signal.raise_signal(signal.SIGHUP)
assert orders.take_hangups() and not orders.stop.is_set()
signals._has_terminal = lambda: False
assert not orders.take_hangups() and orders.told_by == signal.SIGTERM
assert not orders.take_hangups()  # a second SIGTERM would have ended this process
"""
    )
    assert ran.returncode == 0, ran.stderr


def test_it_outlives_the_terminal_where_that_is_wanted(tmp_path: Path) -> None:
    pid, terminal, output = started_on_a_terminal(tmp_path, prefix="trap '' HUP;")
    os.close(terminal)
    time.sleep(0.2)
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: "again" in output.read_text())
    os.kill(pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == signal.SIGINT

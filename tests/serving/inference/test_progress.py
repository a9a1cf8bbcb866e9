"""A worker that computes for long is told apart from one that is stuck."""

from dataclasses import dataclass, field

from serving.inference.progress import Progress


@dataclass
class Machine:
    """A clock, and what the process has used of the processors."""

    now: float = 100.0
    used_s: float = 0.0
    progress: Progress = field(init=False)

    def start(self, *, uses_processors: bool = True) -> Progress:
        self.progress = Progress(
            timeout_s=10,
            run_limit_s=40,
            uses_processors=uses_processors,
            clock=lambda: self.now,
            processors=lambda: self.used_s,
        )
        return self.progress

    def turns(self, seconds: float, *, busy: float = 0.0) -> str | None:
        """Half-second turns of the event loop, until one of them says that the worker is stuck."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            self.used_s += 0.5 * busy
            if reason := self.progress.check():
                return reason
        return None


def test_no_run_is_never_stuck() -> None:
    machine = Machine()
    machine.start()
    assert machine.turns(1000) is None


def test_a_run_that_uses_no_processor_is_stuck_after_the_timeout() -> None:
    machine = Machine()
    machine.start().begin(0.0)
    assert machine.turns(9.5) is None
    assert machine.turns(1.5) == "its runs have neither ended nor computed for 10 s"


def test_a_run_that_computes_is_healthy_until_nobody_waits() -> None:
    machine = Machine()
    machine.start().begin(0.0)
    assert machine.turns(39, busy=1.0) is None
    assert "nobody waits any more" in (machine.turns(2, busy=1.0) or "")


def test_a_run_that_was_expected_to_last_may_last() -> None:
    machine = Machine()
    machine.start().begin(30.0)
    assert machine.turns(30 * 8 + 39, busy=1.0) is None
    assert machine.turns(2, busy=1.0) is not None


def test_runs_that_end_are_progress_though_they_wait() -> None:
    machine = Machine()
    progress = machine.start()
    for _ in range(10):
        number = progress.begin(0.0)
        assert machine.turns(8) is None
        progress.end(number)
    assert machine.turns(100) is None


def test_on_a_gpu_only_the_limit_counts() -> None:
    machine = Machine()
    machine.start(uses_processors=False).begin(0.0)
    assert machine.turns(39) is None
    assert machine.turns(2) is not None


def test_a_machine_that_stood_still_makes_nobody_late() -> None:
    machine = Machine()
    machine.start().begin(0.0)
    machine.now += 3600
    assert machine.progress.check() is None
    assert machine.turns(8) is None

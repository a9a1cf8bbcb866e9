"""The thread that has a device: it survives what work raises, and tells a lost device."""

import pytest

from serving.inference.accelerator.owner import DeviceOwner
from serving.inference.progress import MAX_SLOW_S, Progress
from tests.serving.exceptions import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_work_that_raises_is_its_callers_alone(kind: str) -> None:
    lost: list[str] = []
    owner = DeviceOwner(lost.append)

    def fail() -> None:
        raise KINDS[kind]()

    with pytest.raises(type(KINDS[kind]())):
        owner.call(fail)
    owner.post(fail)
    assert owner.call(lambda: owner.call(lambda: 3)) == 3  # and its own work may call it
    assert not lost


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("CUDA error 719", True),
        ("CUDA failure 999: unknown error", True),
        ("CUDA error: unspecified launch failure", True),
        ("CUDA failure 214: uncorrectable ECC error encountered", True),
        ("CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable", True),
        ("CUDA failure 900: operation not permitted when stream is capturing", False),
        ("CUDA failure 2: out of memory", False),
        ("CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED", False),
        ("Node (/conv/Conv_700) failed: CUDA failure 1: invalid argument", False),
    ],
)
def test_errors_that_a_process_does_not_survive(text: str, is_lost: bool) -> None:
    lost: list[str] = []
    owner = DeviceOwner(lost.append)

    def fail() -> None:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            raise ValueError("a batch failed") from error

    with pytest.raises(ValueError, match="a batch failed"):
        owner.call(fail)
    assert bool(lost) is is_lost


def test_runs_may_wait_for_a_step_of_a_load_and_it_has_a_bound_itself() -> None:
    now = 0.0
    progress = Progress(timeout_s=10, run_limit_s=40, uses_processors=False, clock=lambda: now)
    owner = DeviceOwner(lambda reason: None, slow=progress.slow)

    def turns(seconds: float) -> str | None:
        nonlocal now
        for _ in range(int(seconds)):
            now += 1.0
            if reason := progress.check():
                return reason
        return None

    number = progress.begin(0.0)
    assert owner.call_slow(lambda: turns(600)) is None
    assert turns(39) is None
    assert "nobody waits any more" in (turns(2) or "")
    progress.end(number)
    assert "a step of loading" in (owner.call_slow(lambda: turns(MAX_SLOW_S + 2)) or "")

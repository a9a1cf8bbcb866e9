"""Signals at any moment: what they would lose is saved, and the next start goes on from there.

SURVIVAL_SIGNALS sets how many random moments are tried with real processes.
"""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.repository import Repository
from tests.support import wait_for
from tests.training.runs.test_survival import code_of, flat, start
from training.engine.checkpoint import Checkpoints
from training.run import main
from training.runs import interruption as module
from training.runs.interruption import SIGNALS, InterruptedRun, Interruption

pytestmark = pytest.mark.filterwarnings("ignore:This process")  # of fork() beside threads
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
# Without looks: their moments depend on the time that they take.
LENGTH = ["--total-kimg", "0.096", "--tick-kimg", "0.032", "--evaluate-kimg", "0"]
NUM_SIGNALS = int(os.environ.get("SURVIVAL_SIGNALS", "4"))


def words(folder: Path, *more: str) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    return ["digits", *TINY, *LENGTH, *places, "--resume", "auto", *more]


def result(folder: Path) -> list[Any]:
    """What a training came to: its run, its state, its published model, and how it ended."""
    (run,) = (folder / "runs").iterdir()
    repository = Repository(folder / "models")
    bundle = repository.bundle("digits")
    assert repository.versions("digits") == [1]
    assert "Published digits version 1" in (run / "ended.txt").read_text()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    metrics = [line.rpartition(", ")[0] for line in lines]  # less the speed
    model = hashlib.sha256(bundle.model_path.read_bytes()).hexdigest()
    figures = [(metric.name, metric.value) for metric in bundle.manifest.metrics]
    state = flat(Checkpoints(run / "checkpoints").latest().content)
    return [run.name, state, model, figures, metrics]


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """The tests may run under nohup, which a training respects."""
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, old)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The result of a training that no signal met."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(words(folder)) == 0
    return result(folder)


def test_a_signal_in_every_step_of_a_run_loses_nothing(
    whole: list[Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One run goes on through all of them; each number is a signal in another step."""

    def met_by(number: signal.Signals, *, lost: bool = False) -> Callable[..., Any]:
        def met(*given: Any, **named: Any) -> Any:
            try:
                signal.raise_signal(number)
            except InterruptedRun:
                if not lost:
                    raise
            raise RuntimeError("what a library may make of it")

        return met

    def publish(*given: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return Repository.publish(*given, **named)

    steps: list[tuple[str, signal.Signals, Callable[..., Any]]] = [
        ("training.runs.pipeline.load", signal.SIGTERM, met_by(signal.SIGTERM)),
        ("training.runs.trainer.fit", signal.SIGHUP, pipeline_stops_in(2)),
        ("torch.onnx.export", signal.SIGTERM, met_by(signal.SIGTERM)),
        ("torch.onnx.export", signal.SIGUSR1, met_by(signal.SIGUSR1, lost=True)),
        ("training.runs.ending.model.evaluate", signal.SIGINT, met_by(signal.SIGINT)),
    ]
    for where, number, met in steps:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, met)
            assert main(words(tmp_path)) == 128 + number, where
        assert not list(tmp_path.glob("runs/*/ended.txt")), where
        assert number.name in capfd.readouterr().err
    # What has come as far as publishing is published, and the work is done.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.runs.ending.publication.Repository",
            type("Met", (Repository,), {"publish": publish}),
        )
        assert main(words(tmp_path)) == 0
    assert result(tmp_path) == whole


def pipeline_stops_in(steps: int) -> Callable[..., bool]:
    """A fit in whose n-th step SIGHUP comes."""
    from training.runs.trainer import fit

    def met(stepper: Any, hooks: Any) -> bool:
        step, count = stepper.step, 0

        def counted() -> None:
            nonlocal count
            step()
            count += 1
            if count == steps:
                signal.raise_signal(signal.SIGHUP)

        stepper.step = counted
        return fit(stepper, hooks)

    return met


@pytest.mark.slow
def test_a_signal_at_random_moments_of_real_processes_loses_nothing(
    whole: list[Any], tmp_path: Path
) -> None:
    moments = random.Random(0)
    log = tmp_path / "log"
    began = time.monotonic()
    assert code_of(start(log, words(tmp_path / "timed"))) == 0, log.read_text()
    length_s = time.monotonic() - began
    met = 0
    for index in range(NUM_SIGNALS):
        folder, number = tmp_path / str(index), SIGNALS[index % len(SIGNALS)]
        pid = start(log, words(folder))
        time.sleep(moments.uniform(0.02, length_s))  # the moment is the experiment's
        os.kill(pid, number)
        code = code_of(pid)
        assert code in (0, 128 + number), (index, code, log.read_text())
        met += code != 0
        if code != 0:
            assert not list(folder.glob("runs/*/ended.txt"))
            assert code_of(start(log, words(folder))) == 0, log.read_text()
        if (folder / "runs" / "00001-digits").exists():
            # The signal came before the first step: there was nothing to go on from.
            assert not Checkpoints(folder / "runs/00000-digits/checkpoints").paths()
            for path in sorted((folder / "runs").iterdir())[:1]:
                path.rename(tmp_path / f"empty-{index}")
        assert result(folder)[1:] == whole[1:], log.read_text()
    print(f"{met} of {NUM_SIGNALS} signals met a run of {length_s:.1f} s")
    assert met


def test_a_second_one_ends_a_process_that_does_not_come_back_to_python(tmp_path: Path) -> None:
    def busy() -> None:
        with Interruption().handled() as interruption, interruption.deferred():
            (tmp_path / "busy").touch()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes, in one call
        os._exit(1)

    log = tmp_path / "log"
    pid = start(log, [], busy)
    wait_for((tmp_path / "busy").exists)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: "stopping after this step" in log.read_text())
    os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    assert code_of(pid) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    assert "SIGTERM again: ended at once" in log.read_text()


def test_where_nothing_is_left_to_save_it_waits_for_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENOUGH_S", 0.2)

    def busy() -> None:
        with Interruption(is_restarted=True).handled():
            (tmp_path / "busy").touch()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

    pid = start(tmp_path / "log", [], busy)
    wait_for((tmp_path / "busy").exists)
    os.kill(pid, signal.SIGTERM)
    assert code_of(pid) == 128 + signal.SIGTERM


def test_which_signal_is_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def after(first: signal.Signals, second: signal.Signals, passed_s: float) -> bool:
        interruption = Interruption()
        assert interruption.seen(first, 100.0)
        return interruption.seen(second, 100.0 + passed_s) is None

    term, hup, ctrl_c, usr1 = signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1
    assert after(term, term, 0.01)
    assert after(ctrl_c, ctrl_c, 0.01)
    # A terminal that closes sends two, and systemd SIGHUP behind SIGTERM.
    assert not after(hup, hup, 0.01)
    assert not after(term, hup, 0.01)
    assert after(hup, hup, 2.0)
    assert after(usr1, term, 2.0)
    # torchrun passes on what the terminal sent to its processes already.
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not after(ctrl_c, ctrl_c, 0.5)
    assert after(ctrl_c, ctrl_c, 6.0)


def test_nohup_keeps_a_run_beyond_its_terminal() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption().handled() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.signal is None
    finally:
        signal.signal(signal.SIGHUP, old)


def test_nothing_that_expects_failures_swallows_it() -> None:
    assert not issubclass(InterruptedRun, Exception)

    def expecting_failures() -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
        except Exception:
            pytest.fail("swallowed")

    with Interruption().handled() as interruption, pytest.raises(InterruptedRun):
        expecting_failures()
    # A finaliser loses any exception; the next step finds the signal.
    with pytest.raises(InterruptedRun):
        interruption.check()
    assert interruption.exit_code == 0

"""A real training, read by somebody while it trains and while it ends."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.support import HTTP
from training.cli.command import parse
from training.run import main
from training.runs.interruption import Interruption
from training.runs.pipeline import Pipeline
from training.runs.prometheus.metrics import PREFIX, RunMetrics

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
SHORT = ["--total-kimg", "0.064", "--tick-kimg", "0.032", "--evaluation", "none"]


def words(folder: Path) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    return ["digits", *TINY, *SHORT, "--evaluate-kimg", "0.064", *places]


def test_a_training_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, running = RunMetrics(), []

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(PREFIX + name, labels)

    def watched(tick: Callable[..., None]) -> Callable[..., None]:
        def ticked(*given: object) -> None:
            running.append(value("running"))
            tick(*given)

        return ticked

    monkeypatch.setattr(metrics, "tick", watched(metrics.tick))
    command = parse(words(tmp_path))
    Pipeline.open(command, Interruption(), io.StringIO(), metrics=metrics).run()
    assert running == [1, 1]
    assert value("running") == 0
    assert value("images") == value("images_wanted") == 64
    assert value("ticks_total") == 2
    assert value("info", run="00000-digits", recipe="digits", model="digits") == 1
    assert value("loss", player="D", term="r1") is not None
    assert value("quality", figure="coverage") is not None
    assert value("quality_bound", figure="coverage", of="real") is not None


def test_the_option_opens_the_port_and_closes_it(tmp_path: Path) -> None:
    port = free_port()
    options = ["--metrics-port", str(port)]
    with pytest.MonkeyPatch.context() as patched:
        texts: list[str] = []

        def run(pipeline: Pipeline) -> None:
            texts.append(HTTP.get(f"http://127.0.0.1:{port}/metrics").text)
            pipeline.journal.close()
            assert pipeline.lock is not None
            pipeline.lock.close()

        patched.setattr(Pipeline, "run", run)
        assert main([*words(tmp_path), *options]) == 0
        assert main([*words(tmp_path), *options]) == 0  # the port is free again
    assert len(texts) == 2
    assert f'{PREFIX}info{{model="digits",recipe="digits",run="00000-digits"}} 1.0' in texts[0]

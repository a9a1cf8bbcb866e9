"""What a training tells Prometheus, and when."""

import math
import time

import pytest
from prometheus_client import CollectorRegistry

from tests.conftest import free_port
from tests.support import HTTP
from training.errors import ConfigError
from training.runs.prometheus.endpoint import endpoint
from training.runs.prometheus.metrics import PREFIX, RunMetrics
from training.watchdog.detectors import DETECTORS


def value(metrics: RunMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def test_numbers_that_an_alert_compares_are_there_from_the_start() -> None:
    metrics = RunMetrics()
    for name in ("running", "images", "images_per_second", "ticks_total"):
        assert value(metrics, name) == 0
    for failure in DETECTORS:
        assert value(metrics, "watchdog_alarms_total", failure=failure) == 0
        assert value(metrics, "watchdog_rescues_total", failure=failure) == 0
    assert value(metrics, "loss", player="D", term="r1") is None


def test_a_tick_has_losses_scores_and_quality_by_label() -> None:
    metrics = RunMetrics()
    losses = {"loss_D.adversarial": 1.25, "loss_D.r1": 0.5, "loss_G.adversarial": math.nan}
    look = {"quality.coverage": 0.4, "quality.coverage.floor": 0.9, "quality.coverage.ceiling": 0}
    before = time.time()
    metrics.tick(123.0, losses | look | {"scores.real": 2.0, "scores.fake": -3.0, "D_real": 0.6})
    assert value(metrics, "images_per_second") == 123
    assert value(metrics, "ticks_total") == 1
    assert before <= (value(metrics, "last_tick_timestamp_seconds") or 0) <= time.time()
    assert value(metrics, "loss", player="D", term="r1") == 0.5
    assert math.isnan(value(metrics, "loss", player="G", term="adversarial") or 0)
    assert value(metrics, "score", images="real") == 2
    assert value(metrics, "score", images="generated") == -3
    assert value(metrics, "quality", figure="coverage") == 0.4
    assert value(metrics, "quality_bound", figure="coverage", of="real") == 0.9
    assert value(metrics, "quality_bound", figure="coverage", of="noise") == 0


def test_progress_has_a_time_and_goes_back_after_a_rescue() -> None:
    metrics = RunMetrics()
    metrics.begin(run="00000-digits", recipe="digits", model="sevens")
    metrics.wanted(70_000)
    before = time.time()
    metrics.running(True)
    assert (value(metrics, "last_progress_timestamp_seconds") or 0) >= before
    metrics.progress(5000, 60.0)
    metrics.alarm("collapse")
    metrics.rescue("collapse")
    metrics.progress(2000, math.inf)
    metrics.running(False)
    named = {"run": "00000-digits", "recipe": "digits", "model": "sevens"}
    assert value(metrics, "info", **named) == 1
    assert value(metrics, "images") == 2000
    assert value(metrics, "images_wanted") == 70_000
    assert value(metrics, "time_left_seconds") == math.inf
    assert value(metrics, "running") == 0
    assert value(metrics, "watchdog_alarms_total", failure="collapse") == 1
    assert value(metrics, "watchdog_rescues_total", failure="collapse") == 1


def test_the_port_answers_within_the_block_and_a_taken_one_is_named() -> None:
    metrics, port = RunMetrics(), free_port()
    with endpoint("127.0.0.1", port, metrics.registry):
        reply = HTTP.get(f"http://127.0.0.1:{port}/metrics")
        assert reply.status_code == 200
        assert f"\n{PREFIX}running 0.0\n" in reply.text
        taken = endpoint("127.0.0.1", port, metrics.registry)
        with (
            pytest.raises(ConfigError, match=f"metrics_port is {port}.*in use.*--metrics-port"),
            taken,
        ):
            pass
    with endpoint("127.0.0.1", port, metrics.registry):  # free again
        pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with (
        pytest.raises(ConfigError, match=rf"metrics_port is {port}, allowed: 0 \.\. 65535"),
        endpoint("127.0.0.1", port, CollectorRegistry()),
    ):
        pass

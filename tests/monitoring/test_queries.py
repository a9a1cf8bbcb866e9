"""What the autoscalers ask Prometheus, answered for servers in every state, by promtool."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import ROOT, load

SERIES = dict[str, str]


def keda() -> str:
    """The query by how busy the workers are."""
    triggers = load(ROOT / "k8s/components/keda/scaled-object.yaml")["spec"]["triggers"]
    (query,) = (t["metadata"]["query"] for t in triggers if t["name"] == "workers-busy")
    return str(query)


def adapter() -> str:
    """The same for each pod, as prometheus-adapter fills its template in."""
    rules = load(ROOT / "k8s/components/hpa/prometheus-adapter.yaml")["rules"]["custom"]
    (rule,) = (r for r in rules if r["name"]["as"] == "saddlepoint_workers_busy")
    query = str(rule["metricsQuery"]).replace("<<.Series>>", "saddlepoint_worker_lanes")
    query = query.replace("<<.LabelMatchers>>", 'namespace="saddlepoint"')
    return query.replace("<<.GroupBy>>", "pod")


def lanes(pod: str, values: str) -> SERIES:
    return {f'saddlepoint_worker_lanes{{namespace="saddlepoint",pod="{pod}"}}': values}


def compute(pod: str, values: str) -> SERIES:
    labels = f'namespace="saddlepoint",pod="{pod}",model="digits",version="1"'
    return {f"saddlepoint_compute_seconds_sum{{{labels}}}": values}


IDLE = lanes("idle", "2+0x20")
BUSY = lanes("busy", "2+0x20") | compute("busy", "0+15x20")  # 1 s a second, of two lanes: half
DEAD = lanes("dead", "0+0x20") | compute("dead", "0+15x20")
NEW = lanes("new", "_x18 2+0x2") | compute("new", "_x18 0.5+0x2")


@pytest.mark.parametrize(
    ("series", "total", "by_pod"),
    [
        pytest.param(IDLE, 0, {"idle": 0}, id="idle, before the first batch"),
        pytest.param(BUSY, 0.5, {"busy": 0.5}, id="busy"),
        pytest.param(BUSY | IDLE, 0.5, {"busy": 0.5, "idle": 0}, id="one of two"),
        pytest.param(BUSY | DEAD, 0.5, {"busy": 0.5}, id="the other's worker is down"),
        pytest.param(DEAD, 0, {}, id="all workers are down"),
        pytest.param(BUSY | NEW, 0.5, {"busy": 0.5, "new": 0}, id="a pod that has just come"),
        pytest.param({}, None, {}, id="no server at all: nothing is known"),
    ],
)
def test_how_busy_the_workers_are(
    series: SERIES,
    total: float | None,
    by_pod: dict[str, float],
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    answers: list[tuple[str, list[dict[str, Any]]]] = [
        (keda(), [] if total is None else [{"labels": "{}", "value": total}]),
        (
            adapter(),
            [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in by_pod.items()],
        ),
    ]
    history = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": v} for name, v in series.items()],
                "promql_expr_test": [
                    {"expr": query, "eval_time": "5m", "exp_samples": samples}
                    for query, samples in answers
                ],
            }
        ],
    }
    file = tmp_path / "history.yaml"
    file.write_text(yaml.safe_dump(history))
    tested = subprocess.run(
        [tool("promtool"), "test", "rules", file], capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_no_template_is_left() -> None:
    assert not re.search("<<|>>", adapter())

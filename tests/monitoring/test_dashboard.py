"""The dashboards ask for what there is: metrics and labels of a real server, or recorded series."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.observability.metrics import DESCRIBED
from tests.monitoring.conftest import MONITORING, ROOT
from tests.monitoring.promql import groupings_of, labels_of, metrics_of
from training.runs.prometheus.metrics import RunMetrics

# What Prometheus adds to each series: namespace by the operator or by compose's own configuration.
ADDED = {"namespace", "job", "instance"}
# Not the server's own: Prometheus' word on a scrape, kube-state-metrics' on Jobs, CronJobs, pods
# and Deployments, the kubelet's on volumes.
FOREIGN = {
    "up": {"pod"},
    "kube_job_failed": {"job_name", "condition"},
    "kube_job_status_start_time": {"job_name"},
    "kube_job_status_completion_time": {"job_name"},
    "kube_cronjob_spec_suspend": {"cronjob"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_deployment_status_replicas_unavailable": {"deployment"},
    "kube_pod_container_status_restarts_total": {"pod", "container"},
    "kubelet_volume_stats_available_bytes": {"persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"persistentvolumeclaim"},
}


SERVER, TRAINING = "dashboard.json", "training-dashboard.json"


def dashboard(name: str = SERVER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / name).read_text())
    return found


def queries(name: str = SERVER) -> Iterator[tuple[str, str]]:
    """Title and expression, Grafana's own variable replaced."""
    for panel in dashboard(name)["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def recorded(all_rules: list[dict[str, Any]]) -> set[str]:
    return {rule["record"] for rule in all_rules if "record" in rule}


def labels_by_series() -> dict[str, set[str]]:
    """What the pages of metrics promise, by the names under which Prometheus stores it."""
    found = dict(FOREIGN) | training_series()
    for entry in DESCRIBED:
        if entry.kind == "histogram":
            found |= {f"{entry.name}_{part}": set(entry.labels) for part in ("sum", "count")}
            found[f"{entry.name}_bucket"] = {*entry.labels, "le"}
        else:
            found[entry.name] = set(entry.labels)
    return found


def training_series() -> dict[str, set[str]]:
    """Of a training; the PodMonitor adds the pod."""
    return {entry.name: {*entry.labels, "pod"} for entry in RunMetrics().described}


@pytest.mark.parametrize(
    ("expr", "metrics", "labels", "groupings"),
    [
        ("up == 0", {"up"}, set(), set()),
        ('absent(up{job="a b{c}"} == 1)', {"up"}, {("up", "job")}, set()),
        ("sum by (a, b) (rate(x_total[5m])) / 1e3", {"x_total"}, set(), {"a", "b"}),
        (
            "a:b:c{d=~\"e\",f!='1'} or 0 * g",
            {"a:b:c", "g"},
            {("a:b:c", "d"), ("a:b:c", "f")},
            set(),
        ),
        ("a and on (b) c unless ignoring (d) e offset 5m", set("ace"), set(), {"b", "d"}),
        ("time() - max without (pid) (started)", {"started"}, set(), {"pid"}),
    ],
)
def test_names_are_found(
    expr: str, metrics: set[str], labels: set[tuple[str, str]], groupings: set[str]
) -> None:
    assert metrics_of(expr) == metrics
    assert set(labels_of(expr)) == labels
    assert groupings_of(expr) == groupings


def test_it_asks_only_for_what_a_server_exports(
    server: Any, all_rules: list[dict[str, Any]]
) -> None:
    families = text_string_to_metric_families(server.get("/metrics").text)
    served = {f.name + ("_total" if f.type == "counter" else "") for f in families}
    stored = labels_by_series().keys() - FOREIGN.keys() - training_series().keys()
    exported = {
        name for name in stored if name in served or re.sub(r"_[a-z]+$", "", name) in served
    }
    asked = {name for _, expr in queries() for name in metrics_of(expr)}
    assert len(asked) > 25
    assert asked <= exported | recorded(all_rules), asked - exported - recorded(all_rules)
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            series = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert series, variable
            assert series[1] in exported
            assert series[2] in ADDED


def test_it_shows_all_that_a_server_exports() -> None:
    """Directly or as recorded series: what is counted and never shown is of no use to a person."""
    text = (MONITORING / "dashboard.json").read_text()
    text += (MONITORING / "prometheus-rule.yaml").read_text()
    assert [entry.name for entry in DESCRIBED if entry.name not in text] == []


def test_labels_are_those_of_the_metrics(all_rules: list[dict[str, Any]]) -> None:
    known = labels_by_series()
    exprs = [expr for name in (SERVER, TRAINING) for _, expr in queries(name)]
    exprs += [rule["expr"] for rule in all_rules]
    for expr in exprs:
        for metric, label in labels_of(expr):
            if ":" in metric:
                assert label in ADDED, expr
            else:
                assert label in known[metric] | ADDED, expr
        named = [known[name] for name in metrics_of(expr) if ":" not in name]
        assert groupings_of(expr) <= ADDED.union(*named), expr


def test_rules_are_made_of_what_there_is(all_rules: list[dict[str, Any]]) -> None:
    known = labels_by_series().keys() | recorded(all_rules)
    for rule in all_rules:
        assert metrics_of(rule["expr"]) <= known, rule


@pytest.mark.parametrize("name", [SERVER, TRAINING])
def test_each_query_is_promql(name: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    rules = [{"record": f"query{i}", "expr": expr} for i, (_, expr) in enumerate(queries(name))]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", [SERVER, TRAINING])
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    panels = dashboard(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_training_s_shows_all_that_a_training_exports_and_nothing_else() -> None:
    asked = {name for _, expr in queries(TRAINING) for name in metrics_of(expr)}
    assert asked == training_series().keys() | {"up"}
    for variable in dashboard(TRAINING)["templating"]["list"][1:]:
        series = re.fullmatch(r"label_values\((\w+), (namespace|pod)\)", variable["query"]["query"])
        assert series, variable
        assert series[1] in training_series()


def test_the_page_of_a_training_s_metrics_has_each_with_its_labels() -> None:
    page = (ROOT / "docs/training-metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*)\. \|$", page, re.M)
    assert [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), about)
        for name, kind, labels, about in rows
    ] == [tuple(entry) for entry in RunMetrics().described]

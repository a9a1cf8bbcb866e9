"""Every alert fires when it should and is silent when it should be; every one has its paragraph."""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.observability.metrics import DESCRIBED
from tests.monitoring.conftest import MONITORING, ROOT, RULE, load
from tests.monitoring.promql import metrics_of
from training.runs.prometheus.metrics import RunMetrics

HISTORIES = sorted(Path(__file__).parent.glob("alerts*.yaml"))
RUNBOOK = ROOT / "docs/runbook.md"


def alerts(all_rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {rule["alert"]: rule for rule in all_rules if "alert" in rule}
    assert len(found) == sum("alert" in rule for rule in all_rules), "two alerts of one name"
    return found


def sections() -> dict[str, str]:
    """The runbook's, by alert."""
    parts = re.split(r"^## (Saddlepoint\w+)\n", RUNBOOK.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_rule_file_is_what_stands_under_spec(rules_file: Path) -> None:
    assert load(rules_file) == load(RULE)["spec"]


def test_promtool_finds_no_fault(rules_file: Path, tool: Callable[[str], str]) -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint-fatal", rules_file],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.stem)
def test_the_histories(
    history: Path, rules_file: Path, tool: Callable[[str], str], tmp_path: Path
) -> None:
    for path in (history, rules_file):
        shutil.copy(path, tmp_path)
    tested = subprocess.run(
        [tool("promtool"), "test", "rules", tmp_path / history.name],
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_has_a_history_that_fires_it_and_one_that_does_not(
    all_rules: list[dict[str, Any]],
) -> None:
    seen = defaultdict(set)
    for history in HISTORIES:
        for test in load(history)["tests"]:
            for case in test.get("alert_rule_test", ()):
                seen[case["alertname"]].add(bool(case.get("exp_alerts")))
    assert seen == {name: {True, False} for name in alerts(all_rules)}


def test_each_recorded_series_is_read_by_somebody(all_rules: list[dict[str, Any]]) -> None:
    recorded = {rule["record"] for rule in all_rules if "record" in rule}
    dashboard = (MONITORING / "dashboard.json").read_text()
    read = set().union(*(metrics_of(rule["expr"]) for rule in all_rules))
    read |= {name for name in recorded if f"{name}{{" in dashboard}
    assert recorded <= read


def test_each_alert_has_its_paragraph_and_each_paragraph_its_alert(
    all_rules: list[dict[str, Any]],
) -> None:
    found = sections()
    assert list(found) == list(alerts(all_rules)), "the same ones in the same order"
    for name, text in found.items():
        assert len(text.split("**See:**")) == len(text.split("**Do:**")) == 2, name
        url = alerts(all_rules)[name]["annotations"]["runbook_url"]
        assert url == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_names_only_metrics_that_there_are() -> None:
    known = {entry.name for entry in (*DESCRIBED, *RunMetrics().described)}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"`(saddlepoint_\w+)", RUNBOOK.read_text()))
    assert named
    assert named <= known


def targets() -> Iterator[tuple[Path, float]]:
    """What the autoscalers of k8s/ aim at, in images that wait of a pod."""
    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            kind = manifest.get("kind") if isinstance(manifest, dict) else None
            if kind == "HorizontalPodAutoscaler":
                for metric in manifest["spec"]["metrics"]:
                    if metric.get("pods", {}).get("metric") == {"name": "saddlepoint_rows_waiting"}:
                        yield path, float(metric["pods"]["target"]["averageValue"])
            elif kind == "ScaledObject":
                for trigger in manifest["spec"]["triggers"]:
                    if "saddlepoint_rows_waiting" in trigger["metadata"]["query"]:
                        yield path, float(trigger["metadata"]["threshold"])


def test_the_queue_is_long_where_the_autoscalers_fail(all_rules: list[dict[str, Any]]) -> None:
    expr = alerts(all_rules)["SaddlepointRowsWaiting"]["expr"]
    match = re.search(r"> 2 \* (\d+)$", expr)
    assert match, expr
    for path, target in targets():
        assert target == float(match[1]), path


def test_requests_for_images_are_those_routes_and_no_probe(
    server: Any, all_rules: list[dict[str, Any]]
) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    by_name = {rule["record"]: rule["expr"] for rule in all_rules if "record" in rule}
    images = {
        *("/v1/generate", "/predict", "/v1/models/{model}/images/{file}"),
        *("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"),
    }
    for record, wanted in (
        ("namespace_job:saddlepoint_image_request_duration_seconds:p50_5m", images),
        ("namespace_job:saddlepoint_image_request_duration_seconds:p99_5m", images),
    ):
        (pattern,) = re.findall(r'route=~"([^"]*)"', by_name[record])
        assert {path for path in paths if re.fullmatch(pattern, path)} == wanted & paths.keys()
        assert wanted - paths.keys() <= {"/predict"}

"""The numbers of k8s/ that decide how it scales: what is simulated is what is shipped.

Where a manifest isn't there, the number that it would have stands here and is used instead.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from _scaling import DOWN, UP, Fallback, Keda, Policy, Rules, Spec

ROOT = Path(__file__).parents[2] / "k8s"
METRIC = "saddlepoint_rows_waiting"
BUSY_METRIC = "saddlepoint_workers_busy"
"""What an adapter's rule may call the share of the time in which workers make images."""
BUSY_TARGET = 0.7
"""What that metric should aim at: docs/scaling.md."""
SPEC = Spec(
    min_replicas=2,
    max_replicas=10,
    target=64,
    up=Rules(
        stabilization_s=0,
        policies=(
            Policy(kind="Percent", value=100, period_s=30),
            Policy(kind="Pods", value=2, period_s=30),
        ),
    ),
    down=Rules(
        stabilization_s=300,
        policies=(Policy(kind="Pods", value=1, period_s=60),),
        select="Min",
    ),
)
FALLBACK = Fallback(failure_threshold=4, replicas=4, behavior="currentReplicasIfHigher")
WINDOW_S = 60.0
POLLING_S = 15.0
SCRAPE_S = 5.0
CPU_REQUEST, CPU_LIMIT = 1.0, 2.0
BOUND_ROWS = 4096


def hpa(root: Path = ROOT) -> tuple[Spec, float, float | None]:
    """The HorizontalPodAutoscaler: spec, window of rows waiting, target of the busy workers."""
    for manifest in _manifests(root, "HorizontalPodAutoscaler"):
        spec = manifest["spec"]
        pods = [metric["pods"] for metric in spec["metrics"] if "pods" in metric]
        targets = {p["metric"]["name"]: p["target"]["averageValue"] for p in pods}
        if METRIC in targets:
            made = _spec(spec, "minReplicas", "maxReplicas", float(targets[METRIC]))
            busy = targets.get(BUSY_METRIC)
            return made, _adapter_window_s(root), None if busy is None else _cores(busy)
    return SPEC, WINDOW_S, None


def keda(root: Path = ROOT) -> tuple[Spec, float, float | None, Keda]:
    """The ScaledObject: spec, window of rows waiting, target of the busy workers, the rest."""
    for manifest in _manifests(root, "ScaledObject"):
        spec = manifest["spec"]
        inner = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        numbers = {**spec, "behavior": inner.get("behavior", {})}
        by_query = {
            trigger["metadata"]["query"]: trigger["metadata"] for trigger in spec["triggers"]
        }
        (waiting,) = (by_query[query] for query in by_query if METRIC in query)
        busy = [float(by_query[q]["threshold"]) for q in by_query if "compute_seconds" in q]
        made = _spec(numbers, "minReplicaCount", "maxReplicaCount", float(waiting["threshold"]))
        given = spec.get("fallback")
        fallback = given and Fallback(
            failure_threshold=given["failureThreshold"],
            replicas=given["replicas"],
            behavior=given.get("behavior", "static"),
        )
        rest = Keda(
            made,
            polling_s=float(spec.get("pollingInterval", 30)),
            cooldown_s=float(spec.get("cooldownPeriod", 300)),
            activation=float(waiting.get("activationThreshold", 0)),
            fallback=fallback or None,
        )
        return made, _window_s(waiting["query"]), busy[0] if busy else None, rest
    return SPEC, WINDOW_S, None, Keda(SPEC, polling_s=POLLING_S, fallback=FALLBACK)


def scrape_s(root: Path = ROOT) -> float:
    """How often Prometheus looks."""
    for manifest in _manifests(root, "ServiceMonitor"):
        (endpoint,) = manifest["spec"]["endpoints"]
        return _seconds(endpoint["interval"])
    return SCRAPE_S


def cpu(root: Path = ROOT) -> tuple[float, float]:
    """Cores that a server's pod asks for, of which CPU utilisation is a share, and may use."""
    for manifest in _manifests(root / "base", "Deployment"):
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        resources = container["resources"]
        return _cores(resources["requests"]["cpu"]), _cores(resources["limits"]["cpu"])
    return CPU_REQUEST, CPU_LIMIT


def bound_rows(root: Path = ROOT) -> int:
    """Images that a server admits; the server's own default where the manifests say nothing."""
    settings = root / "base/serve.env"
    text = settings.read_text() if settings.exists() else ""
    match = re.search(r"^SADDLEPOINT_MAX_WAITING_ROWS=(\d+)$", text, re.M)
    return int(match[1]) if match else BOUND_ROWS


def _manifests(root: Path, kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted(root.rglob("*.yaml")):
        text = path.read_text()
        if re.search(rf"^kind: {kind}$", text, re.M):
            yield from (m for m in yaml.safe_load_all(text) if m and m.get("kind") == kind)


def _spec(manifest: dict[str, Any], least: str, most: str, target: float) -> Spec:
    behavior = manifest.get("behavior", {})
    return Spec(
        min_replicas=int(manifest.get(least, 1)),
        max_replicas=int(manifest[most]),
        target=target,
        up=_rules(behavior.get("scaleUp", {}), UP),
        down=_rules(behavior.get("scaleDown", {}), DOWN),
    )


def _rules(given: dict[str, Any], default: Rules) -> Rules:
    policies = tuple(
        Policy(kind=p["type"], value=int(p["value"]), period_s=float(p["periodSeconds"]))
        for p in given.get("policies", ())
    )
    return Rules(
        stabilization_s=float(given.get("stabilizationWindowSeconds", default.stabilization_s)),
        policies=policies or default.policies,
        select=given.get("selectPolicy", default.select),
    )


def _adapter_window_s(root: Path) -> float:
    """Of prometheus-adapter's rule, which is no manifest: values of its chart."""
    for path in sorted(root.rglob("prometheus-adapter.yaml")):
        for rule in yaml.safe_load(path.read_text())["rules"]["custom"]:
            if rule["name"]["as"] == METRIC:
                return _window_s(rule["metricsQuery"])
    return WINDOW_S


def _window_s(query: str) -> float:
    """Seconds that a query averages over; 0, where it takes the last value."""
    match = re.search(r"avg_over_time\(.*\[(\d+[sm])\]", query)
    return _seconds(match[1]) if match else 0.0


def _cores(quantity: object) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]

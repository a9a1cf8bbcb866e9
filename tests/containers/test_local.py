"""k8s/overlays/local for real: podman plays the rendered Deployment, and an image comes back.

The overlay is the real one but for what would collide with a server of yours on this machine: the
names, the volume and the host port.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle

ROOT = Path(__file__).parents[2]
NAME = "saddlepoint-image-test-serve"
POD = f"{NAME}-pod-0"  # podman's own name for a Deployment's only replica
VOLUME = "saddlepoint-image-test-repository"

pytestmark = pytest.mark.containers

KUSTOMIZATION = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [{local}]
patches:
  - target: {{kind: Deployment, name: saddlepoint-serve}}
    options: {{allowNameChange: true}}
    patch: |-
      - {{op: replace, path: /metadata/name, value: {name}}}
      - op: replace
        path: /spec/template/spec/volumes/0/persistentVolumeClaim/claimName
        value: {volume}
      - {{op: replace, path: /spec/template/spec/containers/0/ports/0/hostPort, value: {port}}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, int]:
    """The rendered overlay and its host port."""
    port = free_port()
    copy = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", copy)
    test = copy / "overlays/test"
    test.mkdir()
    text = KUSTOMIZATION.format(local="../local", name=NAME, volume=VOLUME, port=port)
    (test / "kustomization.yaml").write_text(text)
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else "kubectl"
    rendered = subprocess.run([kubectl, "kustomize", test], capture_output=True, check=True)
    path = tmp_path / "local.yaml"
    path.write_bytes(rendered.stdout)
    return path, port


def test_serves_from_the_rendered_manifests(
    podman: Callable[..., str],
    manifests: tuple[Path, int],
    bundle: Bundle,
    container: Callable[..., Any],
    remove: Callable[[str, str], None],
    figure: Callable[..., None],
) -> None:
    path, port = manifests
    remove("volume", VOLUME)
    remove("pod", POD)
    podman("volume", "create", VOLUME)
    folder = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME))
    shutil.copytree(bundle.path.parents[1], folder, dirs_exist_ok=True)

    podman("kube", "play", path)

    server = container(f"{POD}-serve", f"http://127.0.0.1:{port}")
    figure("k8s_local_ready", server.wait_ready(), "s")
    server.check_image(bundle)
    inspect = ("container", "inspect", "--format")
    assert podman(*inspect, "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}", server.name) == (
        "true 10001:10001"
    )
    podman("pod", "stop", POD)
    assert server.state("ExitCode") == "0", server.logs()

"""k8s/overlays/local for real: podman plays what is rendered, from the training to the drain.

The overlay is the real one but for what would collide with a server of yours on this machine: the
names, the volumes and the host port. podman plays no Jobs, so the Job's pod is played as a pod; it
is started with the Job's own arguments, but for the gate, which so short a training doesn't pass,
and with more that make it short. The tests are chapters of one story and run in their order.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from models.repository import Repository
from tests.k8s.rendering import K8S, kustomize

PREFIX = "saddlepoint-image-test"
SERVE = f"{PREFIX}-serve"
POD = f"{SERVE}-pod-0"  # podman's own name for a Deployment's only replica
TRAIN_POD = f"{PREFIX}-train"
VOLUMES = {name: f"{PREFIX}-{name}" for name in ("model-repository", "runs")}
SHORT = ("--total-kimg", "2", "--tick-kimg", "0.1")
TIMEOUT_S = 700

pytestmark = [pytest.mark.containers, pytest.mark.timeout(2400)]

KUSTOMIZATION = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../local]
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


def wait_for(condition: Callable[[], bool], what: str, said: Any = None) -> float:
    """Returns when the condition holds, with the seconds that it took; said: whose logs to show."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() > begin + TIMEOUT_S:
            pytest.fail(f"not in {TIMEOUT_S} s: {what}\n{said.logs() if said else ''}")
        time.sleep(0.05)
    return time.monotonic() - begin


@dataclass
class Clients:
    """Four that ask for one image after the other, each over a connection of its own."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)
    """Status and version of each answer, in the order they came."""
    lost: list[Exception] = field(default_factory=list)
    """What happened to requests that were not answered."""
    ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def asking(self) -> Iterator["Clients"]:
        threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        seed = number << 32
        while not self.ended.is_set():
            seed += 1  # never one that is in the cache
            body = {"model": "digits", "seeds": [seed], "labels": [number]}
            try:
                answer = httpx.post(
                    f"{self.url}/v1/generate",
                    json=body,
                    headers={"connection": "close"},
                    timeout=30,
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                return  # nobody listens: nothing of ours was begun
            except httpx.TransportError as error:
                self.lost.append(error)
            else:
                self.answers.append((answer.status_code, answer.headers.get("x-model-version", "")))

    def versions(self, last: int) -> set[str]:
        return {version for _, version in self.answers[-last:]}


@dataclass
class Local:
    """The overlay on this machine."""

    podman: Callable[..., str]
    job: Path
    deployment: Path
    url: str

    def train(self, *extra: str, image: str, packages: tuple[Path, str] | None) -> None:
        """Plays the Job's pod."""
        job = yaml.safe_load(self.job.read_text())
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        container["image"] = image
        # podman publishes a container's ports on the host, which a cluster doesn't: the port of the
        # metrics would be one for all pods of this machine.
        container.pop("ports", None)
        ungated = [word for word in container["args"] if not word.startswith("--gate=")]
        container["args"] = [*ungated, *extra]
        for volume in pod["volumes"]:
            if volume["name"] in VOLUMES:
                volume["persistentVolumeClaim"]["claimName"] = VOLUMES[volume["name"]]
        if packages is not None:
            path, inside = packages
            entry = {"name": "packages", "mountPath": inside, "readOnly": True}
            container["volumeMounts"].append(entry)
            pod["volumes"].append({"name": "packages", "hostPath": {"path": str(path)}})
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": TRAIN_POD}, "spec": pod}
        path = self.job.with_name("train-pod.yaml")
        path.write_text(yaml.safe_dump(whole))
        self.podman("kube", "play", "--replace", path)

    def folder(self, volume: str) -> Path:
        """Where a volume lies on the host."""
        shown = self.podman("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUMES[volume])
        return Path(shown)


@pytest.fixture(scope="module")
def local(
    podman: Callable[..., str],
    remove: Callable[[str, str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Local:
    """Everything rendered; the volumes are made by whoever mounts them first."""
    folder = tmp_path_factory.mktemp("local")
    for volume in VOLUMES.values():
        remove("volume", volume)
    remove("pod", POD)
    remove("pod", TRAIN_POD)
    port = free_port()
    copy = folder / "k8s"
    shutil.copytree(K8S, copy)
    test = copy / "overlays/test"
    test.mkdir()
    volume = VOLUMES["model-repository"]
    text = KUSTOMIZATION.format(name=SERVE, volume=volume, port=port)
    (test / "kustomization.yaml").write_text(text)
    documents = list(yaml.safe_load_all(kustomize(test)))
    (job,) = (document for document in documents if document["kind"] == "Job")
    paths = folder / "job.yaml", folder / "local.yaml"
    paths[0].write_text(yaml.safe_dump(job))
    paths[1].write_text(yaml.safe_dump_all(documents))
    return Local(podman, *paths, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def server(local: Local, container: Callable[..., Any]) -> Any:
    """The Deployment's container; it runs from the second chapter on."""
    return container(f"{POD}-serve", local.url)


@pytest.fixture(scope="module")
def training(trainer: Any, container: Callable[..., Any]) -> Callable[..., Any]:
    """training(local, *extra): plays the Job's pod and gives its container."""

    def play(local: Local, *extra: str) -> Any:
        local.train(*extra, image=trainer.image, packages=trainer.packages)
        return container(f"{TRAIN_POD}-train", "")

    return play


def test_an_evicted_training_goes_on_in_the_next_pod(
    local: Local, training: Callable[..., Any], figure: Callable[..., None]
) -> None:
    """SIGTERM at the first checkpoint: saved, and an exit code that says there is more to do."""
    begin = time.monotonic()
    job = training(local, *SHORT)
    runs = local.folder("runs")
    wait_for(lambda: any(runs.glob("*/checkpoints/*.pt")), "a checkpoint", job)
    local.podman("pod", "stop", "--time", "60", TRAIN_POD)
    assert job.state("ExitCode") == "143", job.logs()
    assert not any(local.folder("model-repository").iterdir())

    job = training(local, *SHORT)
    wait_for(lambda: bool(job.state("Status") == "exited"), "its end", job)
    assert job.state("ExitCode") == "0", job.logs()
    assert "resumed at" in job.logs()
    assert Repository(local.folder("model-repository")).versions("digits") == [1]
    figure("k8s_local_train_evict_resume_publish", time.monotonic() - begin, "s")


def test_the_model_goes_over_the_volume_to_the_server(
    local: Local, server: Any, figure: Callable[..., None]
) -> None:
    local.podman("kube", "play", local.deployment)
    figure("k8s_local_ready", server.wait_ready(), "s")
    server.check_image(Repository(local.folder("model-repository")).bundle("digits"))


def test_it_runs_as_the_manifests_say(local: Local, server: Any) -> None:
    inspect = ("container", "inspect", "--format")
    shown = local.podman(*inspect, "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}", server.name)
    assert shown == "true 10001:10001"
    memory = local.podman(*inspect, "{{.HostConfig.Memory}}", server.name)
    assert int(memory) == 1536 << 20


def test_a_killed_container_comes_back(
    local: Local, server: Any, figure: Callable[..., None]
) -> None:
    before = server.state("Pid")
    begin = time.monotonic()
    os.kill(int(before), signal.SIGKILL)  # podman's own kill would count as a wish to stop
    wait_for(lambda: server.state("Pid") not in ("0", before), "its restart")
    server.wait_ready()
    figure("k8s_local_back_after_kill", time.monotonic() - begin, "s")
    server.check_image(Repository(local.folder("model-repository")).bundle("digits"))


def test_a_new_version_and_a_rollback_fail_no_request(
    local: Local, server: Any, training: Callable[..., Any], figure: Callable[..., None]
) -> None:
    """A second Job publishes while clients ask; then CURRENT goes back."""
    repository = Repository(local.folder("model-repository"))
    clients = Clients(local.url)
    with clients.asking():
        job = training(local, "--total-kimg", "0.1", "--seed", "1")
        wait_for(lambda: repository.current("digits").version == 2, "version 2", job)
        taken_s = wait_for(lambda: clients.versions(20) == {"2"}, "its being served")
        figure("k8s_local_new_version_served_after", taken_s, "s")
        repository.rollback("digits")
        taken_s = wait_for(lambda: clients.versions(20) == {"1"}, "the rollback")
        figure("k8s_local_rollback_served_after", taken_s, "s")
    assert clients.lost == []
    assert {status for status, _ in clients.answers} == {200}
    figure("k8s_local_requests_over_two_changes", len(clients.answers), "requests")
    server.check_image(repository.bundle("digits"))


def test_sigterm_answers_what_it_accepted(
    local: Local, server: Any, figure: Callable[..., None]
) -> None:
    clients = Clients(local.url)
    with clients.asking():
        wait_for(lambda: len(clients.answers) > 20, "answers")
        begin = time.monotonic()
        # A kubelet takes the network down last. podman pod stop doesn't: it ends all containers at
        # once, the one that holds the network too.
        local.podman("stop", "--time", "35", server.name)
        figure("k8s_local_drained_after", time.monotonic() - begin, "s")
    assert server.state("ExitCode") == "0", server.logs()
    assert clients.lost == []
    assert {status for status, _ in clients.answers} == {200}


def test_training_says_that_a_volume_is_read_only(
    trainer: Any, remove: Callable[[str, str], None]
) -> None:
    """In the first line, at once, with an exit code that the Job doesn't try again."""
    mounts = ["--tmpfs", "/tmp"]
    for folder, mode in (("model-repository", "ro"), ("runs", "rw")):
        remove("volume", f"{VOLUMES[folder]}-empty")
        mounts += ["--volume", f"{VOLUMES[folder]}-empty:/{folder}:{mode}"]
    if trainer.packages:
        path, inside = trainer.packages
        mounts += ["--volume", f"{path}:{inside}:ro"]
    command = ["podman", "run", "--rm", "--read-only", "--network", "none", *mounts, trainer.image]
    places = ["--runs", "/runs", "--repository", "/model-repository", "--resume", "auto"]
    done = subprocess.run([*command, "digits", *places], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert lines[0].startswith("error: repository is '/model-repository', allowed: a folder that")
    assert done.stdout == ""

"""podman, the image that `make image` built, and a model to serve, from a tiny training."""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.repository import Repository

ROOT = Path(__file__).parents[2]
IMAGE = f"localhost/saddlepoint-serve:{os.environ.get('TAG', 'latest')}"
TRAIN_IMAGE = "localhost/saddlepoint-train:latest"
MOUNTED_TRAIN_IMAGE = "localhost/saddlepoint-train-mounted:latest"
TINY_TRAINING = ("digits", "--total-kimg", "0.5", "--seed", "0")
READY_TIMEOUT_S = 300


def call(*arguments: str | Path) -> str:
    """`podman arguments`: what it prints; fails with its own words."""
    done = subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"podman {' '.join(map(str, arguments))}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def podman() -> Callable[..., str]:
    """Runs podman; fails in words where it can't."""
    if shutil.which("podman") is None:
        pytest.fail("make image-test needs podman; on Debian: apt-get install podman")
    if os.geteuid() != 0:
        pytest.fail("make image-test needs root, for volumes and host ports: run it with sudo")
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode:
        pytest.fail(f"there is no image {IMAGE}: make image")
    return call


@pytest.fixture(scope="module")
def remove(podman: Callable[..., str]) -> Iterator[Callable[[str, str], None]]:
    """remove(kind, name): this thing goes with the module, and now if an earlier run left it."""
    made: list[tuple[str, str]] = []

    def forget(kind: str, name: str) -> None:
        subprocess.run(["podman", kind, "rm", "--force", name], capture_output=True, check=False)

    def register(kind: str, name: str) -> None:
        forget(kind, name)
        made.append((kind, name))

    yield register
    for kind, name in reversed(made):
        forget(kind, name)


@pytest.fixture
def figure(capsys: pytest.CaptureFixture[str]) -> Callable[[str, float, str], None]:
    """Prints one line for a script to read, past pytest's capture."""

    def show(name: str, value: float, unit: str) -> None:
        with capsys.disabled():
            print(f"\nfigure {name} {value:.4g} {unit}")

    return show


@dataclass(frozen=True)
class Trainer:
    """An image that trains, and what must be mounted into it for that."""

    image: str
    packages: tuple[Path, str] | None = None
    """A folder of the host and where it belongs; None for a complete image."""


@pytest.fixture(scope="session")
def trainer(podman: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The train image with TRAIN_IMAGE; else the serving image with the trainer's code in it.

    Its packages are then those of the tests' own environment, mounted: torch with its CUDA makes an
    image of 7 GB, which takes longer to build than everything else here.
    """
    if os.environ.get("TRAIN_IMAGE"):
        return Trainer(TRAIN_IMAGE)
    file = tmp_path_factory.mktemp("trainer") / "Dockerfile"
    file.write_text(
        f"FROM {IMAGE}\nCOPY models /opt/trainer/models\nCOPY training /opt/trainer/training\n"
        'ENV PYTHONPATH=/opt/trainer\nENTRYPOINT ["python", "-m", "training.run"]\nCMD []\n'
    )
    podman("build", "--tag", MOUNTED_TRAIN_IMAGE, "--file", file, ROOT)
    where = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_path('purelib'))"
    version, inside = podman("run", "--rm", "--entrypoint", "python", IMAGE, "-c", where).rsplit(
        maxsplit=1
    )
    if version != str(sys.version_info[:2]):
        pytest.skip(f"the image has Python {version}, the tests another: set TRAIN_IMAGE=1")
    return Trainer(MOUNTED_TRAIN_IMAGE, (Path(sysconfig.get_path("purelib")).resolve(), inside))


@pytest.fixture(scope="session")
def bundle(podman: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A published model: trained here, or by the train image where TRAIN_IMAGE is set."""
    folder = tmp_path_factory.mktemp("trained")
    repository, runs = folder / "model-repository", folder / "runs"
    for path in (repository, runs):
        path.mkdir()
    if os.environ.get("TRAIN_IMAGE"):
        _train_in_container(repository, runs)
    else:
        command = [sys.executable, "-m", "training.run", *TINY_TRAINING]
        command += ["--repository", str(repository), "--runs", str(runs)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Repository(repository).bundle("digits")


def _train_in_container(repository: Path, runs: Path) -> None:
    user = 10001
    mounts: list[str] = []
    for path in (repository, runs):
        os.chown(path, user, user)
        mounts += ["--volume", f"{path}:/{path.name}"]
    hardening = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    network = ("--network", "none", "--tmpfs", "/tmp")
    call("run", "--rm", *hardening, *network, *mounts, TRAIN_IMAGE, *TINY_TRAINING)


@dataclass(frozen=True)
class Container:
    """A server in a container, and the address that the host reaches it at."""

    name: str
    url: str

    def state(self, field: str) -> str:
        """A field of podman's record of it: Status, ExitCode ..."""
        return call("container", "inspect", "--format", f"{{{{.State.{field}}}}}", self.name)

    def wait_ready(self) -> float:
        """Returns when /readyz answers 200, with the seconds that it took."""
        begin = time.monotonic()
        while time.monotonic() < begin + READY_TIMEOUT_S:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK:
                    return time.monotonic() - begin
            except httpx.TransportError:
                assert self.state("Status") == "running", self.logs()
            time.sleep(0.1)
        raise AssertionError(f"not ready after {READY_TIMEOUT_S} s\n{self.logs()}")

    def wait_answer(self, path: str) -> httpx.Response:
        """The first answer that GET path gets."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                return httpx.get(f"{self.url}{path}", timeout=5)
            except httpx.TransportError:
                assert self.state("Status") == "running", self.logs()
                time.sleep(0.1)
        raise AssertionError(f"no answer in {READY_TIMEOUT_S} s\n{self.logs()}")

    def logs(self) -> str:
        """All that it said."""
        command = ["podman", "logs", self.name]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        ).stdout

    def generate(self, **request: object) -> bytes:
        """POST /v1/generate: one image's PNG."""
        answer = httpx.post(f"{self.url}/v1/generate", json=request, timeout=30)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.headers["content-type"] == "image/png"
        return answer.content

    def check_image(self, bundle: Bundle) -> None:
        """It gives the bundle's first golden image, and again the same bytes."""
        golden = bundle.golden
        assert golden.labels is not None
        request = {"seeds": [int(golden.seeds[0])], "labels": [int(golden.labels[0])]}
        png = self.generate(model=bundle.manifest.name, **request)
        image = np.asarray(Image.open(io.BytesIO(png))).astype(int)
        expected = golden.images[0].squeeze().astype(int)
        assert image.shape == expected.shape
        assert np.abs(image - expected).max() <= 2
        assert self.generate(model=bundle.manifest.name, **request) == png


@pytest.fixture(scope="session")
def container() -> type[Container]:
    """To test modules, which can't import this one."""
    return Container


@pytest.fixture
def image() -> str:
    """What `make image` built."""
    return IMAGE

"""requirements/*.txt: whole, hashed, as pyproject.toml asks, and naming no place to fetch from."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}
LOCKS = ["build", "serve-cpu", "serve-cuda", "train-cpu", "train-cuda"]


def locked(name: str) -> dict[str, str]:
    """Package to version."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return {canonicalize_name(k): v for k, v in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}


def asked(extra: str) -> Iterator[Requirement]:
    """What an image with this extra must hold on Linux."""
    project = PROJECT["project"]
    for line in project["dependencies"] + project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            for other in requirement.extras:
                yield from asked(other)
        elif requirement.marker is None or requirement.marker.evaluate(LINUX):
            yield requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_hashed(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    assert len(entries) == len(locked(name)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_names_no_index(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    assert re.search(r"://|--(extra-)?index|--find-links|@ file", text) is None


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("serve-cpu", "serve"),
        ("serve-cpu", "trace"),
        ("serve-cuda", "serve"),
        ("serve-cuda", "trace"),
        ("train-cpu", "train"),
        ("train-cuda", "train"),
    ],
)
def test_meets_what_the_project_asks(name: str, extra: str) -> None:
    versions = locked(name)
    for requirement in asked(extra):
        package = requirement.name
        if name.endswith("-cpu") and package == "onnxruntime-gpu":
            package = "onnxruntime"
        assert package in versions, f"{package} isn't in requirements/{name}.txt: make lock"
        assert versions[package] in requirement.specifier, f"{package}: make lock"


def test_a_client_needs_neither_torch_nor_an_engine() -> None:
    needed = {canonicalize_name(requirement.name) for requirement in asked("client")}
    assert needed == {"httpx", "msgspec", "numpy", "pillow"}


def test_both_serving_images_have_one_engine() -> None:
    cpu, cuda = locked("serve-cpu"), locked("serve-cuda")
    assert cpu.pop("onnxruntime") == cuda.pop("onnxruntime-gpu")
    del cpu["nvidia-ml-py"]  # looks for a driver, and brings none
    nvidia = {package: v for package, v in cuda.items() if package.startswith("nvidia-")}
    assert {k: v for k, v in cuda.items() if k not in nvidia} == cpu
    assert any("cudnn" in package for package in nvidia)


def test_both_training_images_have_the_same_but_what_only_a_gpu_needs() -> None:
    cpu, cuda = locked("train-cpu"), locked("train-cuda")
    assert cpu.pop("onnxruntime") == cuda.pop("onnxruntime-gpu")
    (line,) = re.findall(r"^UNLOADED := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    left_out = set(line.split()) - {"onnxruntime-gpu"}
    assert cuda.keys() - cpu.keys() == left_out
    assert {name: version for name, version in cuda.items() if name not in left_out} == cpu


def test_serving_holds_no_torch() -> None:
    assert "torch" in locked("train-cpu")
    assert (
        not {"torch", "onnx", "pip", "setuptools"}
        & (locked("serve-cpu") | locked("serve-cuda")).keys()
    )


def test_cuda_s_libraries_run_on_the_driver_that_the_pages_name() -> None:
    """Every release of CUDA 13 runs on the driver of the first one, 580; CUDA 14 would not."""
    found = locked("serve-cuda")
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "nvidia-cublas", "nvidia-nvjitlink"):
        assert found[name].startswith("13."), name
    families = {name[-5:] for name in found if re.search(r"^nvidia-.*-cu\d+$", name)}
    assert families == {"-cu13"}
    for page in ("docs/gpu.md", "docs/deployment.md", "compose.gpu.yaml"):
        assert "driver of release 580 or later" in (ROOT / page).read_text()

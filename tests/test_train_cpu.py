"""The trainer's image for CPUs: torch trains without what requirements/train-cpu.txt leaves out."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest

from tests.test_locks import ROOT, locked

SITE = Path(metadata.distribution("torch").locate_file(""))
LOADED = """
import sys, training.run
code = training.run.main(sys.argv[1:])
with open("/proc/self/maps") as maps:
    print(*sorted({line.split()[-1] for line in maps if "/nvidia/" in line}), sep="\\n")
sys.exit(code)
"""
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
SHORT = ["--total-kimg", "0.064", "--tick-kimg", "0.032", "--evaluation", "none", "--device", "cpu"]


def removed() -> list[str]:
    """Patterns of the Dockerfile, below site-packages."""
    found = re.findall(r"/site-packages/(nvidia/\S+)", (ROOT / "Dockerfile").read_text())
    assert found
    return found


def is_left_out(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in removed())


def of_nvidia(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this environment by links, of NVIDIA's those that the image has.

    torch's libraries find NVIDIA's beside torch's folder, so that it and `lib` are folders.
    """
    if not (SITE / "nvidia").is_dir():
        pytest.skip("torch here is built without CUDA: nothing to leave out")
    folder = tmp_path_factory.mktemp("site")
    ours = {"nvidia", "triton", "cuda", "torch"}
    for path in SITE.iterdir():
        if path.name not in ours and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    for inner in ("torch", "torch/lib"):
        (folder / inner).mkdir()
        for path in (SITE / inner).iterdir():
            if path.name != "lib":
                (folder / inner / path.name).symlink_to(path)
    for name in filter(of_nvidia, locked("train-cpu")):
        for file in metadata.distribution(name).files or ():
            if file.parts[0] == "nvidia" and not is_left_out(str(file)):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).symlink_to(SITE / file)
    return folder


@pytest.mark.slow
def test_it_trains_and_exports(site: Path, tmp_path: Path) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    environ = os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOADED, "digits", *TINY, *SHORT, *places],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Published digits version 1" in done.stdout
    loaded = {line.rpartition("/")[2] for line in done.stdout.splitlines() if "/nvidia/" in line}
    there = {path.name for path in (site / "nvidia").rglob("*.so*")}
    assert loaded
    assert loaded <= there, "a library came from elsewhere"

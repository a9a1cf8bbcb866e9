"""The wheels bring every library that ONNX Runtime's CUDA provider needs but the driver's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from serving.inference.devices import CUDA

LOAD = """
import ctypes, sys
from models.bundle.runtime import ort
if sys.argv[1] == "preload":
    ort.preload_dlls()
folder = sys.argv[2]
ctypes.CDLL(f"{folder}/libonnxruntime_providers_shared.so", ctypes.RTLD_GLOBAL)
ctypes.CDLL(f"{folder}/libonnxruntime_providers_cuda.so")
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda that has every function the provider and its libraries ask for."""
    capi = Path(onnxruntime.__file__).parent / "capi"
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built without CUDA")
    if shutil.which("cc") is None or shutil.which("nm") is None:
        pytest.skip("needs a C compiler and nm")
    if not (Path(onnxruntime.__file__).parents[1] / "nvidia/cudnn/lib").is_dir():
        pytest.skip("CUDA's and cuDNN's wheels aren't installed")
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", capi / "libonnxruntime_providers_cuda.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    names = sorted(n for n in wanted if n.startswith("cu") and n[2:3].isupper())  # cuInit ...
    folder = tmp_path_factory.mktemp("driver")
    text = "".join(f"int {name}(void) {{ return 100; }}\n" for name in names)
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, input=text, text=True, check=True)
    return folder


def load(driver: Path, how: str) -> "subprocess.CompletedProcess[str]":
    capi = Path(onnxruntime.__file__).parent / "capi"
    return subprocess.run(
        [sys.executable, "-c", LOAD, how, str(capi)],
        cwd=Path(__file__).parents[4],
        env={"PATH": "/usr/bin", "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_provider_loads_with_the_wheels_and_a_driver(driver: Path) -> None:
    done = load(driver, "preload")
    assert done.returncode == 0, done.stderr
    without = load(driver, "nothing")  # else the test above proves nothing of the wheels
    assert without.returncode != 0
    assert "cannot open shared object file" in without.stderr

"""A driver that a C compiler makes."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def make_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """Makes a folder with a libcuda whose cuInit gives a code, and that counts devices."""
    if Path("/dev/nvidia0").exists() or shutil.which("cc") is None:
        pytest.skip("needs a C compiler, and a machine without a GPU")

    def make(code: int, num: int) -> Path:
        folder = tmp_path_factory.mktemp("driver")
        text = (
            f"int cuInit(unsigned flags) {{ return {code}; }}\n"
            f"int cuDeviceGetCount(int *n) {{ *n = {num}; return 0; }}\n"
        )
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
        subprocess.run(command, input=text, text=True, check=True)
        return folder

    return make

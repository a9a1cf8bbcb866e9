"""TensorRT's libraries are found in their wheel: with pretended ones that a C compiler makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle.runtime import ort
from serving.inference.accelerator import libraries

ROOT = Path(__file__).parents[4]
LOAD = """
import ctypes, sys
from models.bundle.runtime import ort
from serving.inference.accelerator.libraries import preload
ort.preload_dlls = lambda: print("said by ONNX Runtime")
preload(tensorrt=sys.argv[1] == "tensorrt")
ctypes.CDLL(sys.argv[2])
"""


def compiled(path: Path, needs: Path | None = None) -> Path:
    """A shared library that the loader knows by its file's name."""
    command = ["cc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", str(path)]
    linked = [] if needs is None else ["-x", "none", "-Wl,--no-as-needed", str(needs)]
    subprocess.run([*command, f"-Wl,-soname,{path.name}", *linked], check=True)
    return path


def test_tensorrt_is_loaded_from_its_wheel_where_it_is_asked_for(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    wheel = tmp_path / "tensorrt_libs"
    wheel.mkdir()
    (wheel / "__init__.py").write_text("raise RuntimeError('not imported: it would load all')")
    engine = compiled(wheel / "libnvinfer.so.10")
    parser = compiled(wheel / "libnvonnxparser.so.10", engine)
    provider = compiled(tmp_path / "provider.so", parser)

    def load(what: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", LOAD, what, str(provider)],
            cwd=ROOT,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = load("tensorrt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # it may be a log of JSON lines
    assert "said by ONNX Runtime" in done.stderr
    without = load("cuda")  # else the test above proves nothing
    assert "cannot open shared object file" in without.stderr


def test_what_is_not_there_is_said_by_the_provider_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    libraries.preload.__wrapped__(tensorrt=True)

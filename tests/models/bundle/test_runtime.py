"""ONNX Runtime doesn't report home, whichever module of ours is the first to load it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FIRST = (
    "models.repository.__main__",
    "serving.inference.sessions",
    "training.export.exporter",
)

LOAD = """
import importlib, os, sys
importlib.import_module(sys.argv[1])
assert "onnxruntime" in sys.modules
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def load(module: str, home: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    inherited = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, "-c", LOAD, module],
        cwd=ROOT,
        env={**inherited, "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("module", FIRST)
def test_it_leaves_nothing_in_a_fresh_home(tmp_path, module):
    done = load(module, tmp_path)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert [path for path in tmp_path.rglob("*") if "icrosoft" in str(path)] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_who_wants_telemetry_can_have_it(tmp_path):
    assert load("models.bundle.runtime", tmp_path, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"


def test_it_is_imported_in_one_place():
    """Or another place might be the first, where nobody has told it anything."""
    importers = set()
    for room in ("models", "serving", "training"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                else:
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.partition(".")[0] == "onnxruntime" for name in names):
                    importers.add(str(path.relative_to(ROOT)))
    assert importers == {"models/bundle/runtime.py"}

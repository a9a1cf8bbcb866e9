"""On which systems Saddlepoint runs; elsewhere it is refused in words."""

import subprocess
import sys
from pathlib import Path

import pytest

import saddlepoint

ROOT = Path(__file__).parents[1]


def on_windows(program: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program that takes this system for Windows."""
    program = f"import sys; sys.platform = 'win32'; {program}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "program",
    [
        "import models",
        "import setuptools, runpy; runpy.run_path('setup.py')",
        "import saddlepoint; sys.exit(saddlepoint.main(['train']))",
    ],
)
def test_windows_is_refused_in_words(program: str) -> None:
    done = on_windows(program)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "runs on Linux" in last
    assert "WSL 2" in last


def test_the_command_has_one_line_for_it() -> None:
    done = on_windows("import saddlepoint; sys.exit(saddlepoint.main(['train']))")
    assert done.returncode == saddlepoint.USAGE_ERROR
    assert len(done.stderr.splitlines()) == 1

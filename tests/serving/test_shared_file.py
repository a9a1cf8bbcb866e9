"""Memory that processes share, forked and spawned."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.shared_file import SharedFile

ROOT = Path(__file__).parents[2]


def write(file: SharedFile, text: bytes) -> None:
    os.write(file.descriptor, text)


@pytest.mark.parametrize("without_memory_files", [False, True])
def test_forked_processes_have_it(
    monkeypatch: pytest.MonkeyPatch, without_memory_files: bool, tmp_path: Path
) -> None:
    if without_memory_files:

        def refuse(name: str, flags: int) -> int:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "memfd_create", refuse)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = SharedFile("test")
    process = multiprocessing.get_context("fork").Process(target=write, args=(file, b"hello"))
    process.start()
    process.join()
    assert os.pread(file.descriptor, 100, 0) == b"hello"
    assert not os.get_inheritable(file.descriptor)  # to no other program
    assert not list(tmp_path.iterdir())


SPAWNED = """
import multiprocessing, os
from serving.shared_file import SharedFile

def write(file):
    os.write(file.descriptor, b"hello")

if __name__ == "__main__":
    file = SharedFile("test")
    process = multiprocessing.get_context("spawn").Process(target=write, args=(file,))
    process.start()
    process.join()
    print(os.pread(file.descriptor, 100, 0).decode())
"""


def test_spawned_processes_get_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert ran.stdout == "hello\n", ran.stderr

"""What the Makefile would run, as `make -n` says it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def would_run(*words: str, repository: str | None = None) -> list[str]:
    """Its lines that start Python, without the path of it; installing is left out."""
    kept = ("PATH", "HOME")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    environ |= {} if repository is None else {"REPOSITORY": repository}
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.serve", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    lines = (line.removeprefix("exec ").strip() for line in done.stdout.splitlines())
    python = ".venv/bin/python -m "
    runs = [line.removeprefix(python) for line in lines if line.startswith(python)]
    return [line for line in runs if not line.startswith("pip ")]


def test_arguments_of_serve_are_the_servers_alone(tmp_path: Path) -> None:
    train, serve = would_run("serve", f"REPOSITORY={tmp_path}", "ARGS=--api-processes 2")
    assert train == f"training.run digits --repository '{tmp_path}'"
    assert serve.startswith(f"serving.run --repository '{tmp_path}'")
    assert serve.endswith("--api-processes 2")


def test_serve_trains_only_where_nothing_is_published(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "CURRENT").write_text("1\n")
    (serve,) = would_run("serve", f"REPOSITORY={tmp_path}")
    assert serve.startswith("serving.run")


@pytest.mark.parametrize(
    ("words", "repository", "runs"),
    [
        ([], None, "training.run digits"),
        (["REPOSITORY=r"], None, "training.run digits --repository 'r'"),
        (["ARGS=mnist"], "r", "training.run mnist --repository 'r'"),
        (["ARGS=mnist --repository q", "REPOSITORY=r"], None, "training.run mnist --repository q"),
        (["ARGS=--resume runs/00000-mnist"], None, "training.run --resume runs/00000-mnist"),
    ],
)
def test_train_publishes_where_it_is_told(
    words: list[str], repository: str | None, runs: str
) -> None:
    assert would_run("train", *words, repository=repository) == [runs]


def test_bytecode_is_kept_whatever_the_environment_says() -> None:
    """Python takes an empty variable for one that isn't set."""
    show = 'show: ; @echo "<$$PYTHONDONTWRITEBYTECODE>"'
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "--no-print-directory", f"--eval={show}", "show"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.stdout == "<>\n", done.stderr


SOME_TESTS = """
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range({passing_at_second}))
def test_passes_at_the_second_try(number: int) -> None:
    seen = Path(f"seen-{{number}}")
    tried = seen.exists()
    seen.touch()
    assert tried


@pytest.mark.parametrize("number", range({failing}))
def test_fails(number: int) -> None:
    assert False


def test_passes() -> None:
    with open("passed", "a") as file:
        file.write("once")
"""


@pytest.mark.parametrize(
    ("passing_at_second", "failing", "code"), [(0, 0, 0), (2, 0, 0), (1, 1, 2), (3, 0, 2)]
)
def test_a_few_failures_are_tried_once_more_and_must_pass_then(
    tmp_path: Path, passing_at_second: int, failing: int, code: int
) -> None:
    """A fault fails twice; more failures than AGAIN are a fault whatever a second try says."""
    tests = SOME_TESTS.format(passing_at_second=passing_at_second, failing=failing)
    (tmp_path / "test_some.py").write_text(tests)
    bin_folder = tmp_path / "venv" / "bin"
    bin_folder.mkdir(parents=True)
    pytest_command = bin_folder / "pytest"
    pytest_command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pytest -p no:randomly "$@"\n')
    pytest_command.chmod(0o755)
    (bin_folder / "python").symlink_to(sys.executable)
    words = ["VENV=venv", "AGAIN=2", "-o", "venv/.dev", "test"]
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), *words],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "JOBS": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert (tmp_path / "passed").read_text() == "once"
    again = 0 < passing_at_second + failing <= 2
    assert ("again, alone" in done.stdout) == again


def test_every_benchmark_is_run_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    python = bin_folder / "python"
    python.write_text('#!/bin/sh\necho "ran $@"\ncase $1 in */rpc.py) exit 3;; esac\n')
    python.chmod(0o755)
    words = [f"BIN={bin_folder}", "-o", ".venv/.dev", "bench", "ARGS=--quick"]
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), *words], capture_output=True, text=True
    )
    ran = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ran ")]
    folders = ("serving", "training")
    files = [p for name in folders for p in (ROOT / "benchmarks" / name).glob("[!_]*.py")]
    assert sorted(ran) == sorted(str(path.relative_to(ROOT)) for path in files)
    assert "failed: benchmarks/serving/rpc.py" in done.stderr
    assert done.returncode == 2

"""`COMMAND | head`: a reader that goes away is no error of the command."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path

import pytest

import models.repository.__main__
import saddlepoint
import serving.client.__main__
import serving.keys.__main__
import training.data.__main__
import training.evaluate
import training.run
from training.stdout import ClosedPipeIgnored


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIOWrapper]:
    """A standard output whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield stream


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_what_nobody_reads_is_dropped(unread: TextIOWrapper, size: int) -> None:
    with ClosedPipeIgnored():
        print("x" * size)
    print("more")
    unread.flush()  # as Python does at exit, where an error would be printed


def test_other_errors_pass(unread: TextIOWrapper) -> None:
    with pytest.raises(ZeroDivisionError), ClosedPipeIgnored():
        print(1 / 0)


HELP: list[tuple[Callable[[Sequence[str]], int], list[str]]] = [
    (training.run.main, ["--help"]),
    (training.evaluate.main, ["--help"]),
    (training.data.__main__.main, ["audit", "--help"]),
    (models.repository.__main__.main, ["--help"]),
    (models.repository.__main__.main, ["prune", "--help"]),
    (serving.client.__main__.main, ["load", "--help"]),
    (serving.keys.__main__.main, ["--help"]),
    (saddlepoint.main, ["client", "generate", "--help"]),
    *(
        (importlib.import_module(command.module).main, ["--help"])
        for command in saddlepoint.COMMANDS.values()
    ),
]


@pytest.mark.parametrize(("main", "words"), HELP)
def test_help_into_a_closed_pipe_ends_with_0(
    unread: TextIOWrapper, main: Callable[[Sequence[str]], int], words: list[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    assert not code
    unread.flush()


def test_the_list_of_commands_into_a_closed_pipe_ends_with_0(unread: TextIOWrapper) -> None:
    assert saddlepoint.main(["--help"]) == 0
    unread.flush()


@pytest.mark.parametrize("flags", [(), ("-u",)])  # at the end, or at the first print
@pytest.mark.parametrize(
    "words",
    [("serving.run", "--help"), ("serving.keys", "list", "{keys}")],
    ids=lambda words: words[0],
)
def test_what_catches_errors_of_files_ends_with_0_into_a_closed_pipe(
    tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Whether argparse hides such an error differs from one release of Python to the next."""
    keys = tmp_path / "keys"
    assert serving.keys.__main__.main(["add", str(keys), "alice"]) == 0
    reader, writer = os.pipe()
    os.close(reader)
    given = [word.format(keys=keys) for word in words]
    command = [sys.executable, *flags, "-m", *given]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_list_into_a_closed_pipe_ends_with_0(unread: TextIOWrapper) -> None:
    assert training.run.main(["--list"]) == 0
    unread.flush()

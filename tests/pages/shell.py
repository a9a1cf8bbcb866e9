"""A reader's terminal: one bash that runs a page's commands, in a clone of its own."""

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.pages.reading import ROOT
from tests.support import HTTP, wait_for

DEADLINE_S = 600
"""For one command: a machine with other work may be slow."""
FIRST_PORT, PORTS_EACH = 21_000, 200
HURRY = Path(__file__).parent / "hurry"
_SOURCES = (
    *("models", "training", "serving", "saddlepoint.py", "examples", "benchmarks"),
    *("Makefile", "pyproject.toml", "README.md", "docs"),
)
_KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "XDG_CACHE_HOME")


def clone(folder: Path) -> None:
    """Makes a folder look like a new clone in which `make install` was run.

    Sources and packages are links. What commands write lies in the folder itself: their names for
    it, such as runs, are those that .gitignore has.
    """
    folder.mkdir()
    for name in _SOURCES:
        (folder / name).symlink_to(ROOT / name)
    packages = folder / ".venv"
    packages.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name not in (".serve", ".dev"):  # of make: as old as this clone
            (packages / path.name).symlink_to(path)
    (packages / ".serve").touch()


def own_port() -> int:
    """A free port that the system gives to nobody by itself, of this test process alone.

    A page's server is started minutes after its port was chosen, and more than once.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in itertools.count(FIRST_PORT + PORTS_EACH * worker):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


class Shell:
    """A bash in which one command runs after another."""

    def __init__(self, folder: Path, clone: Path) -> None:
        """Starts it.

        Args:
            folder: for the output of commands, and their temporary files.
            clone: where it starts.
        """
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.clone = clone
        self.output = ""
        """Of all commands so far."""
        self._folder = folder
        self._count = 0
        self._started: dict[int, tuple[str, Path]] = {}
        self._server: int | None = None
        temporary = folder / "tmp"
        temporary.mkdir()
        (temporary / ".curlrc").write_text("fail-with-body\n")  # an error is one for curl, too
        self._token = f"{os.getpid()}-{self.port}"
        read, write = os.pipe()
        self._status = read
        variables = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "CURL_HOME": str(temporary),
            "OMP_NUM_THREADS": "1",
            "PAGES_TOKEN": self._token,
            "PORT": str(self.port),  # of `make serve`
            "PYTHONPATH": f"{HURRY}:{clone}",
            "PYTHONUNBUFFERED": "1",
            "SADDLEPOINT_PORT": str(self.port),
            "TMPDIR": str(temporary),
        }
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=clone,
            env=variables,
            stdin=subprocess.PIPE,
            pass_fds=[write],
            start_new_session=True,
            text=True,
        )
        os.close(write)
        self._write = write
        self._tell("set -m")  # Ctrl-C reaches a job in a process group of its own

    def run(self, code: str, *, codes: tuple[int, ...] = (0,)) -> str:
        """Runs a command to its end and gives its output; it must end with one of `codes`."""
        script, output = self._script(code)
        self._tell(f". {script} </dev/null >{output} 2>&1; echo $? >&{self._write}")
        return self._ended(code, output, codes)

    def start(self, code: str, until: Callable[[str], bool]) -> int:
        """Runs a command beside others, and returns when a condition holds of its output.

        until: is given the output so far. Returns the process group, for `stop`.
        """
        script, output = self._script(code)
        self._tell(f". {script} </dev/null >{output} 2>&1 & echo $! >&{self._write}")
        pid = self._answer(code)
        self._started[pid] = (code, output)

        def is_so() -> bool:
            text = output.read_text(errors="replace") if output.exists() else ""
            assert _is_alive(pid), f"it ended before it should:\n{code}{text}"
            return until(text)

        wait_for(is_so, DEADLINE_S)
        return pid

    def stop(self, pid: int, *, codes: tuple[int, ...] = (0,)) -> str:
        """Presses Ctrl-C in the terminal of what `start` gave, and waits for its end."""
        code, output = self._started[pid]
        os.killpg(pid, signal.SIGINT)
        self._tell(f"wait {pid}; echo $? >&{self._write}")
        return self._ended(code, output, codes)

    def serve(self, code: str) -> None:
        """Runs a server in another terminal, which is at the clone; it stops an earlier one."""
        if self._server is not None:
            self.stop(self._server, codes=(0, 2, 130))  # make has codes of its own
        self._server = self.start(f"cd {self.clone}\n{code}", lambda _: self.is_ready())

    def is_ready(self) -> bool:
        """Whether a server of this shell's port can make images."""
        with contextlib.suppress(httpx.TransportError):
            return HTTP.get(f"{self.url}/readyz").status_code == 200
        return False

    def close(self) -> None:
        """Kills everything that was started in it."""
        deadline = time.monotonic() + DEADLINE_S
        while (pids := list(self._left())) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._bash.wait(0.05)
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.close()
        self._bash.wait()
        os.close(self._status)

    def _left(self) -> Iterator[int]:
        """Processes that live and have this shell's token; also those that left its session."""
        token = f"PAGES_TOKEN={self._token}".encode()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if token in environ.read_bytes().split(b"\0"):
                    yield int(environ.parent.name)

    def _script(self, code: str) -> tuple[Path, Path]:
        self._count += 1
        script = self._folder / f"{self._count}.sh"
        script.write_text(code)
        return script, script.with_suffix(".out")

    def _tell(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def _answer(self, code: str) -> int:
        """The number that bash writes next."""
        text, deadline = b"", time.monotonic() + DEADLINE_S
        while not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            is_there = select.select([self._status], [], [], max(left, 0))[0]
            assert is_there, f"no end of {code}"
            piece = os.read(self._status, 100)
            assert piece, f"bash ended at {code}"
            text += piece
        return int(text)

    def _ended(self, code: str, output: Path, codes: tuple[int, ...]) -> str:
        status = self._answer(code)
        text = output.read_text(errors="replace")
        assert status in codes, f"exit code {status}, not one of {codes}:\n{code}\n{text}"
        self.output += text
        return text


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False

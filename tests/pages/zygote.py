"""Runs commands of the pages in processes that have torch and ONNX Runtime imported already.

A page has dozens of commands, and each would import torch for two seconds. `python` in a reader's
`.venv/bin` is instead a script that sends its arguments and streams here; this process forks, and
the child is the command. It may only import: a process that has run a network can't fork.
"""

import contextlib
import importlib
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import httpx

from tests.pages.small import Change, changed

IMPORTED = (
    *("torch", "torchvision", "onnxscript", "onnxruntime", "scipy.linalg", "sklearn.datasets"),
    *("tensorboard.summary.writer.event_file_writer", "torch.onnx", "torch._dynamo", "httpx"),
    *("training.run", "training.evaluate", "training.data.__main__", "training.runs.__main__"),
    *("training.report.__main__", "training.stability.__main__", "serving.bulk.__main__"),
    *("training.interpretation.__main__", "serving.client.__main__", "serving.run"),
    *("serving.keys.__main__", "models.repository.__main__", "models.offline.generate"),
    *("models.offline.interpolate", "training.runs.pipeline", "torch.onnx._internal.exporter"),
)
NUM_STREAMS = 3
CLIENT = """#!{python} -SE
import os, socket, sys
with socket.socket(socket.AF_UNIX) as to:
    to.connect({address!r})
    environ = [f"{{k}}={{v}}" for k, v in os.environ.items() if k.startswith("PAGES_")]
    words = [os.getcwd(), {program!r}, str(len(environ)), *environ, *sys.argv[1:]]
    socket.send_fds(to, ["\\0".join(words).encode()], [0, 1, 2])
    sys.exit(int(to.recv(16) or b"70"))
"""
"""The program of a reader's .venv/bin: the command's exit code, 70 where it died of itself."""


def install(folder: Path, address: Path) -> None:
    """Writes `python`, `saddlepoint` and `torchrun` into a reader's .venv/bin."""
    folder.mkdir(parents=True)
    for program in ("python", "saddlepoint", "torchrun"):
        script = folder / program
        script.write_text(
            CLIENT.format(python=sys.executable, address=str(address), program=program)
        )
        script.chmod(0o755)


def serve(address: str) -> None:
    """Runs what is sent to the socket until its end is closed; each command in a fork."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Reads a command, runs it in a further fork, and sends its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, NUM_STREAMS)
    folder, program, num, *rest = message.decode().split("\0")
    environ, words = rest[: int(num)], rest[int(num) :]
    os.environ.update(pair.split("=", 1) for pair in environ)
    os.chdir(folder)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    try:
        module, change = changed(program, words)
        print(f"pages: {module} {shlex.join(change.words)}", file=sys.stderr, flush=True)
        code = _background(module, change) if change.serves else _waited(module, change)
        code = 0 if code in change.accepts else code
    except BaseException:
        traceback.print_exc()
        code = 70
    connection.sendall(str(code).encode())
    os._exit(0)


def _waited(module: str, change: Change) -> int:
    child = os.fork()
    if child == 0:
        os._exit(_run(module, change))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _run(module: str, change: Change) -> int:
    """The command itself; its exit code."""
    sys.path[0] = str(Path.cwd())
    sys.argv = [module, *change.words]
    if change.stops_at is not None:
        threading.Thread(target=_stop, args=(change.stops_at,), daemon=True).start()
    try:
        if module.endswith(".py"):
            sys.path[0] = str(Path(module).parent.absolute())
            runpy.run_path(module, run_name="__main__")
        else:
            sys.modules.pop(module, None)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


def _background(module: str, change: Change) -> int:
    """Starts a server, and returns when it is ready, or its exit code where it ends before."""
    log = Path(os.environ["PAGES_SERVERS"]).with_suffix(".log")
    with log.open("a") as output:  # not the block's, which ends before
        process = subprocess.Popen(
            [sys.executable, "-m", module, *change.words], stdout=output, stderr=output
        )
    with Path(os.environ["PAGES_SERVERS"]).open("a") as file:
        file.write(f"{process.pid}\n")
    address = f"http://127.0.0.1:{os.environ['PAGES_PORT']}/readyz"
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address).status_code == 200:
                return 0
        time.sleep(0.05)
    print(log.read_text(), file=sys.stderr)
    return process.returncode


def _stop(pattern: str) -> None:
    """Ctrl-C, as soon as a file is there that has a line."""
    while not any(path.stat().st_size for path in Path.cwd().glob(pattern)):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    serve(sys.argv[1])

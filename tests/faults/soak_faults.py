"""What happens to a server in the soak: one function a fault, which undoes what it did.

Another one is another function here.
"""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
from pathlib import Path

from tests.chaos.client import Connection, closing
from tests.faults.small_disk import fill
from tests.faults.soak import Stage, fault, rare_fault
from tests.serving.conftest import make_key
from tests.support import http_processes_of, workers_of

SCOPES = "generate,admin,metrics"
MANY = 2000
STRAY = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGIO, signal.SIGWINCH)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@rare_fault
async def kill_a_worker(stage: Stage) -> None:
    for worker in stage.random.sample(workers_of(stage.server), 1):
        _kill(worker, signal.SIGKILL)
    await asyncio.sleep(1)


@rare_fault
async def kill_all_workers(stage: Stage) -> None:
    for worker in workers_of(stage.server):
        _kill(worker, signal.SIGKILL)
    await asyncio.sleep(2)


@rare_fault
async def stop_a_worker(stage: Stage) -> None:
    """For a moment, or for so long that it is replaced."""
    workers = workers_of(stage.server)
    worker = stage.random.choice(workers) if workers else 0
    if worker:
        _kill(worker, signal.SIGSTOP)
        await asyncio.sleep(stage.random.choice((0.2, 1, 6)))
        _kill(worker, signal.SIGCONT)


@fault
async def stop_an_http_process(stage: Stage) -> None:
    pid = stage.random.choice(http_processes_of(stage.server))
    _kill(pid, signal.SIGSTOP)
    await asyncio.sleep(1)
    _kill(pid, signal.SIGCONT)


@fault
async def publish(stage: Stage) -> None:
    await asyncio.to_thread(stage.publish)
    await asyncio.sleep(0.5)


@fault
async def publish_what_is_corrupt(stage: Stage) -> None:
    """Current for a while, and then mended by a rollback."""
    corrupt = await asyncio.to_thread(stage.publish, make_current=False)
    with corrupt.model_path.open("r+b") as model:
        model.write(b"\0\0\0\0")
    current = stage.repository.root / "soak" / "CURRENT"
    before = current.read_text()
    _write(current, f"{corrupt.manifest.version}\n")
    await asyncio.sleep(1)
    _write(current, before)
    await asyncio.sleep(0.5)


@fault
async def roll_back(stage: Stage) -> None:
    with contextlib.suppress(Exception):  # there is no version before
        await asyncio.to_thread(stage.repository.rollback, "soak")
    await asyncio.sleep(0.5)


@fault
async def replace_the_repository(stage: Stage) -> None:
    """Removed, and published anew under numbers that were given before."""
    with stage.absence():
        await asyncio.to_thread(shutil.rmtree, stage.repository.root / "soak")
        await asyncio.sleep(stage.random.choice((0, 0.5)))
        await asyncio.to_thread(stage.publish)
        await asyncio.sleep(1)


@fault
async def take_the_repository_away(stage: Stage) -> None:
    away = stage.repository.root.with_name("away")
    with stage.absence():
        stage.repository.root.rename(away)
        await asyncio.sleep(1)
        away.rename(stage.repository.root)


@fault
async def unload_and_load(stage: Stage) -> None:
    headers = {"content-type": "application/json", **stage.headers}
    with stage.absence(), closing(Connection(stage.port)) as connection:
        for what in ("unload", "load"):
            path = f"/v2/repository/models/soak/{what}"
            await connection.ask(b"{}", path=path, headers=headers, timeout_s=60)
            await asyncio.sleep(0.3)
        # Whatever else happened meanwhile, it is in service in the end.
        for _ in range(100):
            answer = await connection.ask(b"{}", path=path, headers=headers, timeout_s=60)
            if answer.fate == 200:
                return
            await asyncio.sleep(0.2)


@fault
async def sweep_scratch(stage: Stage) -> None:
    for folder in stage.run_folders():
        shutil.rmtree(folder, ignore_errors=True)
    await asyncio.sleep(1)


@fault
async def sweep_a_part_of_scratch(stage: Stage) -> None:
    for folder in stage.run_folders():
        with contextlib.suppress(OSError):
            entries = list(folder.iterdir())
            for entry in stage.random.sample(entries, (len(entries) + 1) // 2):
                entry.unlink()


@rare_fault
async def fill_the_disk(stage: Stage) -> None:
    if not stage.scratch_is_small:
        return
    filler = await asyncio.to_thread(fill, stage.scratch)
    workers = workers_of(stage.server)
    if workers and stage.random.random() < 0.5:
        _kill(workers[0], signal.SIGKILL)  # its place is taken while the disk is full
    await asyncio.sleep(2)
    filler.unlink()


@fault
async def read_nothing(stage: Stage) -> None:
    """Six clients ask for much, and don't look at it."""
    body = json.dumps({"model": "soak", "seeds": list(range(MANY)), "format": "npy"}).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(_raw(stage, receive_buffer=2048))
            if client is not None:
                _send(client, _head(stage, len(body)) + body)
        await asyncio.sleep(1.5)


@fault
async def end_sending(stage: Stage) -> None:
    """A client that says that it has no more to send still waits for its answer."""
    body = json.dumps({"model": "soak", "seeds": [1]}).encode()
    for _ in range(20):
        with _raw(stage) as client:
            if client is not None:
                _send(client, _head(stage, len(body)) + body)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                    client.settimeout(5)
                    await asyncio.to_thread(client.recv, 4096)


@fault
async def hang_up(stage: Stage) -> None:
    """In the midst of a head, of a body, of the answer."""
    body = json.dumps({"model": "soak", "seeds": list(range(500))}).encode()
    request = _head(stage, len(body)) + body
    for _ in range(20):
        with _raw(stage) as client:
            if client is not None:
                _send(client, request[: stage.random.randrange(len(request) + 1)])
                await asyncio.sleep(0.01)


@fault
async def talk_nonsense(stage: Stage) -> None:
    for _ in range(20):
        with _raw(stage) as client:
            if client is not None:
                _send(client, stage.random.randbytes(stage.random.randrange(1, 3000)))


@fault
async def take_descriptors_away(stage: Stage) -> None:
    """An HTTP process may open no more than it has; meanwhile many come."""
    pid = stage.random.choice(http_processes_of(stage.server))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    num_open = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (num_open + 2, before[1]))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(_raw(stage))
            await asyncio.sleep(1)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@fault
async def change_the_key(stage: Stage) -> None:
    new = stage.keys_path.with_name("new-keys")
    new.unlink(missing_ok=True)
    key = await asyncio.to_thread(make_key, new, "soak", "--scopes", SCOPES)
    new.replace(stage.keys_path)
    await asyncio.sleep(1)
    stage.key = key


@fault
async def spoil_the_key_file(stage: Stage) -> None:
    before = stage.keys_path.read_text()
    stage.keys_path.write_bytes(stage.random.choice((b"", b"\0garbage", before.encode()[:50])))
    await asyncio.sleep(stage.random.choice((0.5, 4)))  # longer than the grace, too
    stage.keys_path.write_text(before)
    await asyncio.sleep(1)


@fault
async def hang_the_terminal_up(stage: Stage) -> None:
    _kill(stage.server.process.pid, signal.SIGHUP)


@fault
async def send_stray_signals(stage: Stage) -> None:
    for pid in stage.processes():
        _kill(pid, stage.random.choice(STRAY))


@fault
async def read_no_log(stage: Stage) -> None:
    stage.log.reads.clear()
    await asyncio.sleep(2)
    stage.log.reads.set()


@fault
async def ask_too_much(stage: Stage) -> None:
    async def one() -> None:
        body = json.dumps({"model": "soak", "seeds": list(range(MANY)), "format": "npy"}).encode()
        with closing(Connection(stage.port)) as connection:
            answer = await connection.ask(body, headers=stage.headers, timeout_s=40)
            stage.answers[answer.fate] += 1

    await asyncio.gather(*(one() for _ in range(30)))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(".new")
    temporary.write_text(text)
    temporary.replace(path)


def _head(stage: Stage, length: int) -> bytes:
    return (
        "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {stage.key}\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


@contextlib.contextmanager
def _raw(stage: Stage, receive_buffer: int = 0):  # type: ignore[no-untyped-def]
    """A connection; None where none can be had."""
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(1)
        try:
            client.connect(("127.0.0.1", stage.port))
        except OSError:
            yield None
        else:
            yield client


def _send(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(data)

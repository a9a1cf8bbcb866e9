"""What faults cost: a worker that hangs or dies, clients that don't read their answers.

    python benchmarks/serving/faults.py [--quick]

Protocol: default settings. `hang` is SIGSTOP of the only worker, `death` SIGKILL: the seconds until
the next image is made, asked for without a pause; `..._of_two` with two workers: the slowest answer
of all, and how many weren't 200. `unread` is six clients that ask for 1,024 images of 256x256 as
npy each (201 MB) and read nothing, for ten seconds: memory of all processes at most, above that at
rest, what the server says that it holds, and the seconds from SIGTERM to the end. Medians over
rounds.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from _harness import Running, figure, make_repository, parser, saddlepoint, scratch_folder

from models.repository import Repository

NUM_CLIENTS, NUM_IMAGES = 6, 1024
UNREAD_S = 10.0


def workers_of(server: Running) -> list[int]:
    """Inference workers; they are spawned, and the HTTP processes forked."""
    found = []
    for pid in server.processes():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def port_of(server: Running) -> int:
    return int(server.url.rpartition(":")[2])


def ask(server: Running, seed: int) -> int:
    """One image; gives the status, or 0 where the connection was lost."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    try:
        connection.request("POST", "/v1/generate", json.dumps({"seeds": [seed]}))
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError:
        return 0
    finally:
        connection.close()


def seconds_to_next_image(server: Running, number: int) -> float:
    """After a signal to a worker."""
    seeds = iter(range(1 << 30))
    while ask(server, next(seeds)) != 200:
        pass
    (worker,) = workers_of(server)
    began = time.monotonic()
    os.kill(worker, number)
    # The first answers may come from what was made before: only a new worker counts.
    while worker in workers_of(server) or ask(server, next(seeds)) != 200:
        pass
    return time.monotonic() - began


def slowest_of_two(server: Running, number: int, seconds: float) -> tuple[float, int]:
    """The slowest answer while one of two workers is stopped or killed, and how many failed."""
    worker = workers_of(server)[0]
    os.kill(worker, number)
    slowest, failed = 0.0, 0
    began = time.monotonic()
    for seed in range(1 << 30):
        if time.monotonic() > began + seconds:
            break
        asked = time.monotonic()
        failed += ask(server, seed) != 200
        slowest = max(slowest, time.monotonic() - asked)
    return slowest, failed


def held_bytes(server: Running) -> float:
    """What the server says."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return sum(
        float(line.split()[1]) for line in lines if line.startswith("saddlepoint_held_bytes ")
    )


@contextlib.contextmanager
def clients_that_do_not_read(server: Running, num: int) -> Iterator[None]:
    body = json.dumps({"seeds": list(range(NUM_IMAGES)), "format": "npy"}).encode()
    head = f"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(num):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port_of(server)))
            client.sendall(head + body)
        yield


def unread(repository: Repository, folder: Path, num: int) -> tuple[float, float, float]:
    """Megabytes above rest, megabytes held as the server says, seconds from SIGTERM to the end."""
    with saddlepoint(repository, folder) as server:
        assert ask(server, 1) == 200
        rest = server.memory_mb()
        most, held = rest, 0.0
        with clients_that_do_not_read(server, num):
            until = time.monotonic() + UNREAD_S
            while time.monotonic() < until:
                most = max(most, server.memory_mb())
                held = max(held, held_bytes(server))
                time.sleep(0.05)
            began = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            while len(server.processes()) and time.monotonic() < began + 60:
                time.sleep(0.01)
            return most - rest, held / 1e6, time.monotonic() - began


def main() -> None:
    """Runs all of them."""
    options = parser(__doc__ or "").parse_args()
    rounds = 1 if options.quick else 3
    with scratch_folder() as folder:
        article = make_repository(folder / "article", "article")
        for name, number in (("hang", signal.SIGSTOP), ("death", signal.SIGKILL)):
            with saddlepoint(article, folder) as server:
                took = [seconds_to_next_image(server, number) for _ in range(rounds)]
            figure(f"{name}_next_image", statistics.median(took), "s")
            with saddlepoint(article, folder, "--workers-per-device", "2") as server:
                while len(workers_of(server)) < 2 or ask(server, 1) != 200:
                    time.sleep(0.1)
                slowest, failed = slowest_of_two(server, number, 15.0)
            figure(f"{name}_of_two_slowest", slowest, "s")
            figure(f"{name}_of_two_failed", failed, "answers")
        album = make_repository(folder / "album", "album")
        for num in (1, NUM_CLIENTS):
            found = [unread(album, folder, num) for _ in range(rounds)]
            for name, values, unit in zip(
                ("memory", "held", "drain"),
                zip(*found, strict=True),
                ("MB", "MB", "s"),
                strict=True,
            ):
                figure(f"unread_{num}_{name}", statistics.median(values), unit)


if __name__ == "__main__":
    main()

"""What the fast path of POST /v1/generate gains: the same server with and without it, alternating.

    python benchmarks/serving/fast_path.py [--quick]

Protocol: two servers of one tree run at once, one with the fast path and one without; each is
loaded in turn for a second while the other one is idle, and the order changes every round. The
generator is as large as the `digits` recipe's, untrained; one seed a POST, each new, no cache, PNG;
wrk with one thread on the same machine, closed loop. `fast_path_ratio_N` is the median
over rounds of requests/s with over requests/s without, at N connections. `fast_path_cpu_ratio_N` is
the HTTP process's CPU time for a request without over the time with: where others use the machine
it says more, since a server that waits for a core is slow by either path.
"""

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from _harness import (
    SEED,
    Running,
    figure,
    free_port,
    make_repository,
    parser,
    scratch_folder,
    started,
    wrk,
)

from models.repository import Repository

WITHOUT = "--without-fast-path"
CONNECTIONS = (1, 8, 64)


@contextlib.contextmanager
def server(repository: Repository, folder: Path, *words: str) -> Iterator[Running]:
    """This script as a server."""
    port = free_port()
    flags = ["--repository", str(repository.root), "--port", str(port), "--cache-bytes", "0"]
    command = [sys.executable, __file__, *(words or ("--with-fast-path",)), *flags]
    url = f"http://127.0.0.1:{port}"
    with started(command, url, "/readyz", folder / f"server-{port}.log") as running:
        yield running


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def http_process(running: Running) -> int:
    """The process that speaks HTTP: LitServe forks it, so it has its parent's command line."""
    own = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    (found,) = [
        pid
        for pid in running.processes()
        if pid != running.pid and Path(f"/proc/{pid}/cmdline").read_bytes() == own
    ]
    return found


def measure(running: Running, connections: int, seconds: float) -> tuple[float, float]:
    """Requests/s, and seconds of the HTTP process's CPU for each."""
    pid = http_process(running)
    before = cpu_s(pid)
    body = f'{{"seeds":[{SEED}]}}'
    url = running.url + "/v1/generate"
    load = wrk(url, body, connections=connections, seconds=seconds)
    if load.num_failed:
        raise SystemExit(f"{load.num_failed} requests failed")
    return load.requests_per_s, (cpu_s(pid) - before) / (load.requests_per_s * seconds)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    seconds, rounds = (1.0, 5) if arguments.quick else (2.0, 25)
    with scratch_folder() as folder:
        repository = make_repository(folder, "digits")
        with server(repository, folder) as short, server(repository, folder, WITHOUT) as long:
            for connections in CONNECTIONS:
                pairs = []
                for number in range(rounds):
                    both = (short, long)
                    order = both if number % 2 else both[::-1]
                    measured = {one.pid: measure(one, connections, seconds) for one in order}
                    pairs.append((measured[short.pid], measured[long.pid]))
                for name, index in (("with", 0), ("without", 1)):
                    rate = statistics.median(pair[index][0] for pair in pairs)
                    figure(f"fast_path_{name}_{connections}", rate, "1/s")
                    cost_s = statistics.median(pair[index][1] for pair in pairs)
                    figure(f"fast_path_{name}_cpu_{connections}", cost_s * 1e6, "us")
                ratio = statistics.median(fast[0] / slow[0] for fast, slow in pairs)
                figure(f"fast_path_ratio_{connections}", ratio, "x")
                cpu = statistics.median(slow[1] / fast[1] for fast, slow in pairs)
                figure(f"fast_path_cpu_ratio_{connections}", cpu, "x")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--with-fast-path"], [WITHOUT]):
        fast_path = sys.argv.pop(1) != WITHOUT
        from serving.run import main as serve

        sys.exit(serve(fast_path=fast_path))
    main()

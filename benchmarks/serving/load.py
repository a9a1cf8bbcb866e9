"""Our server alone: start, memory, idle CPU, one seed a request at 1 to 256 connections.

    python benchmarks/serving/load.py [--quick]

Protocol: the article's generator (100-256-784, untrained), one HTTP process, one CPU worker, PNG;
wrk with one thread on the same machine, closed loop, one seed a request, always the same: without
the cache of encoded images, but for the last figure.
"""

import statistics
import time

from _harness import figure, make_repository, parser, saddlepoint, scratch_folder, wrk

BODY = '{"seeds":[42]}'


def main() -> None:
    arguments = parser(__doc__).parse_args()
    seconds, starts = (2, 2) if arguments.quick else (10, 5)
    with scratch_folder() as folder:
        repository = make_repository(folder, "article")
        ready = []
        for _ in range(starts):
            with saddlepoint(repository, folder) as server:
                ready.append(server.ready_s)
        figure("start_to_ready", statistics.median(ready), "s")
        with saddlepoint(repository, folder) as server:
            before, began = server.cpu_s(), time.monotonic()
            time.sleep(seconds)
            idle = (server.cpu_s() - before) / (time.monotonic() - began)
            figure("idle_cpu", idle * 100, "% of a core")
            for connections in (1, 8, 64, 256):
                url = server.url + "/v1/generate"
                load = wrk(url, BODY, connections=connections, seconds=seconds)
                if load.num_failed:
                    raise SystemExit(f"{load.num_failed} requests failed")
                figure(f"requests_{connections}", load.requests_per_s, "1/s")
                figure(f"p50_{connections}", load.p50_ms, "ms")
                figure(f"p99_{connections}", load.p99_ms, "ms")
            figure("memory", server.memory_mb(), "MB")
        with saddlepoint(repository, folder, "--cache-bytes", str(1 << 20)) as server:
            load = wrk(server.url + "/v1/generate", BODY, connections=64, seconds=seconds)
            figure("requests_64_cached", load.requests_per_s, "1/s")


if __name__ == "__main__":
    main()

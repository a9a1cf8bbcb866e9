"""How many HTTP processes: the same server with one and with as many as it chooses, alternating.

    python benchmarks/serving/processes.py [--quick] [--model article] [--processes 1,auto]
         [--connections 1,8,64,256]

Protocol: the servers are up together and take turns under wrk, one new seed a POST, no cache. For
each number of connections: requests/s and the CPU time of a request in all of a server's processes,
as medians over rounds; ratios are medians of the ratios to the first one within a round. The CPU
time says more on a machine that does something else too.
"""

import contextlib
import statistics

from _harness import SEED, figure, make_repository, parser, saddlepoint, scratch_folder, wrk

CONNECTIONS = "1,8,64,256"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="article", help="of benchmarks/serving/_harness.py")
    arguments.add_argument("--processes", default="1,auto", help="comma separated")
    arguments.add_argument("--connections", default=CONNECTIONS, help="comma separated")
    options = arguments.parse_args()
    seconds, rounds = (1, 5) if options.quick else (3, 9)
    choices = options.processes.split(",")
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        repository = make_repository(folder, options.model)
        servers = {
            choice: stack.enter_context(saddlepoint(repository, folder, "--api-processes", choice))
            for choice in choices
        }
        for number in range(rounds):
            for connections in map(int, options.connections.split(",")):
                for choice in choices if number % 2 else reversed(choices):
                    server = servers[choice]
                    before = server.cpu_s()
                    load = wrk(
                        server.url + "/v1/generate",
                        f'{{"seeds":[{number}{SEED}]}}',
                        connections=connections,
                        seconds=seconds,
                    )
                    cpu_s = (server.cpu_s() - before) / (load.requests_per_s * seconds)
                    found.setdefault((choice, connections), []).append((load.requests_per_s, cpu_s))
        for choice, server in servers.items():
            figure(f"memory_{choice}", server.memory_mb(), "MB")
    for (choice, connections), values in found.items():
        name = f"{choice}_{connections}"
        figure(f"requests_{name}", statistics.median(rate for rate, _ in values), "1/s")
        figure(f"cpu_{name}", statistics.median(cpu for _, cpu in values) * 1e6, "us")
        first = found[choices[0], connections]
        if choice != choices[0]:
            ratios = [rate / one for (rate, _), (one, _) in zip(values, first, strict=True)]
            figure(f"over_{choices[0]}_{name}", statistics.median(ratios), "x")


if __name__ == "__main__":
    main()

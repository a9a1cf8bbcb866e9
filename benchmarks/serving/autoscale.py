"""How the autoscalers of k8s/ behave: simulated, on what a real server was measured to do.

    python benchmarks/serving/autoscale.py [--quick] [--record]

The server's CPU time an image, latency and start are those of `autoscale_trace.json`, which
`--record` makes anew; the numbers of the autoscalers are those of k8s/. A pod makes what its CPU
limit allows by that CPU time: the rate itself was measured too, on cores that others used as well.

Arrivals are Poisson, of one image each, spread evenly at random over the ready pods; their rate is
a step, a ramp, a spike or a plateau, in multiples of what one pod can make. Prometheus scrapes, the
query averages, the controller syncs every 15 s, a pod takes START_S (image pull and scheduling,
assumed) and the measured start to be ready. Lost is what a full pod refuses (429); late is what
takes longer than the objective. Recovered is the time from the beginning of the load until p99 is
within the objective for good; replica is how long pods were there, all together, changes how often
it turned from growing to shrinking or back. Means over seeds.

Compared are: as many servers as can be, HPA and KEDA as they are shipped, HPA without averaging, on
rows waiting alone and with a second metric (how busy the workers are), and HPA on CPU; also on a
server whose limit isn't its CPU: one lane of one thread stands for an accelerator, with the CPU
request as it is and as large as the limit. `blind` is the step while Prometheus doesn't answer,
`idle` is KEDA with no server at all, when the load comes.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _manifests
import numpy as np
from _fleet import Fleet, Pod
from _harness import figure, parser
from _recording import record
from _simulation import LOAD_S, SHAPES, Law, Outcome, simulate

TRACE = Path(__file__).with_name("autoscale_trace.json")
START_S = 20.0


def pod_of(trace: dict[str, Any], *, one_lane: bool = False) -> Pod:
    """A replica that does what the recorded server did, with its cores for itself."""
    measured = trace["one_lane" if one_lane else "all_lanes"]
    worker_s, http_s = measured["worker_cpu_s"], measured["http_cpu_s"]
    _, limit = _manifests.cpu()
    rows_per_s = 1 / worker_s if one_lane else limit / (worker_s + http_s)
    return Pod(
        rows_per_s=rows_per_s,
        latency_s=measured["alone_p50_s"],
        bound_rows=_manifests.bound_rows(),
        in_flight_rows=round(max(in_flight for _, _, in_flight, _ in trace["step"]["samples"])),
        start_s=START_S + trace["ready_s"],
        busy_cores=rows_per_s * (worker_s + http_s),
        idle_cores=measured["idle_cores"],
    )


def laws() -> dict[str, Law]:
    """All that are compared."""
    spec, window_s, busy = _manifests.hpa()
    by_keda, keda_window_s, keda_busy, keda = _manifests.keda()
    given = {"scrape_s": _manifests.scrape_s(), "cpu_request": _manifests.cpu()[0]}
    shipped = Law(spec=spec, window_s=window_s, busy_target=busy, **given)
    return {
        "all": dataclasses.replace(shipped, metric="none"),
        "hpa": shipped,
        "keda": Law(
            spec=by_keda,
            metric="total",
            window_s=keda_window_s,
            busy_target=keda_busy,
            keda=keda,
            **given,
        ),
        "hpa_last": dataclasses.replace(shipped, window_s=0.0),
        "hpa_waiting": dataclasses.replace(shipped, busy_target=None),
        "hpa_busy": dataclasses.replace(shipped, busy_target=_manifests.BUSY_TARGET),
        "cpu": dataclasses.replace(shipped, metric="cpu"),
    }


def mean(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Over seeds."""
    fields = [field.name for field in dataclasses.fields(Outcome)]
    return {name: statistics.fmean(getattr(o, name) for o in outcomes) for name in fields}


UNITS = {
    "recovered_s": "s",
    "lost": "%",
    "late": "%",
    "replica_s": "s",
    "peak": "1",
    "changes": "1",
}


def report(name: str, outcomes: Sequence[Outcome]) -> None:
    """A line a figure."""
    for key, value in mean(outcomes).items():
        unit = UNITS[key]
        figure(f"{name}_{key.removesuffix('_s')}", value * 100 if unit == "%" else value, unit)


def check(trace: dict[str, Any]) -> None:
    """The model's queue beside the recorded one, under the recorded step.

    At the rate that the server had while rows waited: the cores may have been others' as well.
    """
    samples, phases = trace["step"]["samples"], trace["step"]["phases"]
    full = [sample for sample in samples if sample[1] > 0] or samples
    rate = (full[-1][3] - full[0][3]) / (full[-1][0] - full[0][0])
    pod = dataclasses.replace(pod_of(trace), rows_per_s=rate)
    ends = np.cumsum([seconds for _, seconds in phases])
    fleet, peak = Fleet(pod, 1, 0.05, 0), 0.0
    while fleet.now_s < ends[-1]:
        phase = int(np.searchsorted(ends, fleet.now_s, side="right"))
        fleet.step(phases[min(phase, len(phases) - 1)][0])
        peak = max(peak, fleet.admitted)
    recorded = max(waiting + in_flight for _, waiting, in_flight, _ in samples)
    figure("queue_rate", rate, "rows/s")
    figure("queue_peak_recorded", recorded, "rows")
    figure("queue_peak_simulated", peak, "rows")


Run = Callable[[str, str, Law, Pod], None]


def runner(seeds: range, dt_s: float) -> Run:
    """Simulates a law under a shape of load, and reports it as SHAPE_NAME."""

    def run(shape: str, name: str, law: Law, pod: Pod) -> None:
        runs = [simulate(law, pod, shape, seed=seed, dt_s=dt_s) for seed in seeds]
        report(f"{shape}_{name}", runs)

    return run


def compare(trace: dict[str, Any], run: Run) -> None:
    """Every law under every shape of load."""
    usual, one_lane = pod_of(trace), pod_of(trace, one_lane=True)
    given = laws()
    of_limit = dataclasses.replace(given["cpu"], cpu_request=_manifests.cpu()[1])
    for shape in SHAPES:
        for name, law in given.items():
            run(shape, name, law, usual)
        for name, law in (("hpa", given["hpa"]), ("cpu", given["cpu"]), ("cpu_of_limit", of_limit)):
            run(shape, f"accelerator_{name}", law, one_lane)
    for name in ("hpa", "keda"):
        blind = dataclasses.replace(given[name], blind=(LOAD_S - 90.0, LOAD_S + 300.0))
        run("step", f"blind_{name}", blind, usual)
    spec = dataclasses.replace(given["keda"].spec, min_replicas=0)
    run("step", "idle_keda", dataclasses.replace(given["keda"], spec=spec, start=0), usual)


def sweep(trace: dict[str, Any], run: Run) -> None:
    """What other thresholds would do, on rows waiting alone but for the last."""
    pod, shipped = pod_of(trace), laws()["hpa_waiting"]
    spec = shipped.spec

    def both(name: str, law: Law) -> None:
        for shape in ("step", "ramp"):
            run(shape, name, law, pod)

    for target in (16, 64, 256, 512, 1024):
        changed = dataclasses.replace(spec, target=target)
        both(f"target_{target}", dataclasses.replace(shipped, spec=changed))
    for window_s in (0, 30, 60, 120):
        both(f"window_{window_s}", dataclasses.replace(shipped, window_s=window_s))
    for period_s in (15, 30, 60):
        faster = [dataclasses.replace(policy, period_s=period_s) for policy in spec.up.policies]
        up = dataclasses.replace(spec.up, policies=tuple(faster))
        changed = dataclasses.replace(spec, up=up)
        both(f"period_{period_s}", dataclasses.replace(shipped, spec=changed))
    for stabilization_s in (0, 60, 300, 600):
        down = dataclasses.replace(spec.down, stabilization_s=stabilization_s)
        changed = dataclasses.replace(spec, down=down)
        both(f"stabilization_{stabilization_s}", dataclasses.replace(shipped, spec=changed))
    for busy_target in (0.5, 0.6, 0.7, 0.8, 0.9):
        both(f"busy_{busy_target:g}", dataclasses.replace(shipped, busy_target=busy_target))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--record", action="store_true", help=f"measure anew, write {TRACE.name}"
    )
    options = arguments.parse_args()
    if options.record:
        seconds = 4.0 if options.quick else 12.0
        TRACE.write_text(json.dumps(record(seconds), indent=None, separators=(",", ":")) + "\n")
    elif not TRACE.exists():
        sys.exit(f"{TRACE} is missing: run with --record")
    trace = json.loads(TRACE.read_text())
    for name in ("all_lanes", "one_lane"):
        pod = pod_of(trace, one_lane=name == "one_lane")
        figure(f"{name}_recorded", trace[name]["rows_per_s"], "rows/s")
        figure(f"{name}_by_cpu_time", pod.rows_per_s, "rows/s")
        figure(f"{name}_cores", pod.busy_cores, "cores")
        figure(f"{name}_busy", trace[name]["busy"] * 100, "%")
    check(trace)
    seeds, dt_s = (range(1), 0.25) if options.quick else (range(3), 0.1)
    run = runner(seeds, dt_s)
    compare(trace, run)
    if not options.quick:
        sweep(trace, run)


if __name__ == "__main__":
    main()

"""How the autoscalers of k8s/ behave: simulated, on what a real server was measured to do.

    python benchmarks/serving/autoscale.py [--quick] [--record]

The server's CPU time an image, latency and start are those of `autoscale_trace.json`, which
`--record` makes anew; the numbers of the autoscalers are those of k8s/. A pod makes what its CPU
limit allows by that CPU time: the rate itself was measured too, on cores that others used as well.

Arrivals are Poisson, of one image each, spread evenly at random over the ready pods; their rate is
a step, a ramp or a spike, in multiples of what one pod can make. Prometheus scrapes, the query
averages, the controller syncs every 15 s, a pod takes START_S (image pull and scheduling, assumed)
and the measured start to be ready. Lost is what a full pod refuses (429); late is what takes longer
than the objective. Recovered is the time from the beginning of the load until p99 is within the
objective for good; replica is how long pods were there, all together. Means over seeds.

Compared are: as many servers as can be, HPA and KEDA as they are shipped, HPA without averaging, on
rows waiting alone and with a second metric (how busy the workers are), and HPA on CPU; also on a
server whose limit isn't its CPU: one lane of one thread stands for an accelerator, with the CPU
request as it is and as large as the limit. `blind` is the step while Prometheus doesn't answer,
`idle` is KEDA with no server at all, when the load comes.
"""

import dataclasses
import itertools
import json
import statistics
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _manifests
import numpy as np
from _fleet import Fleet, Pod
from _harness import figure, parser
from _recording import record
from _scaling import SYNC_S, Hpa, Keda, Spec, by_pods, by_total

TRACE = Path(__file__).with_name("autoscale_trace.json")
OBJECTIVE_S = 1.0
"""p99 of a request, as the alert SaddlepointLatency has it."""
START_S = 20.0
CPU_TARGET = 0.8
BUSY_TARGET = 0.7
"""Share of the time in which a pod's workers make images: what the second metric aims at."""
LOAD_S = 120.0
"""When the load comes."""
END_S = 1500.0

Rate = Callable[[float], float]


def step(t: float) -> float:
    """From 1.2 pods' worth to 6, for ten minutes."""
    return 6.0 if LOAD_S <= t < LOAD_S + 600 else 1.2


def ramp(t: float) -> float:
    """From 1.2 pods' worth to 8 within ten minutes, and back at once."""
    return 1.2 + 6.8 * (t - LOAD_S) / 600 if LOAD_S <= t < LOAD_S + 600 else 1.2


def spike(t: float) -> float:
    """Eight pods' worth for a minute."""
    return 8.0 if LOAD_S <= t < LOAD_S + 60 else 1.2


SHAPES: dict[str, Rate] = {"step": step, "ramp": ramp, "spike": spike}


@dataclass(frozen=True, kw_only=True)
class Law:
    """One way to scale."""

    spec: Spec
    metric: str = "waiting"
    """waiting (as a Pods metric), total (the same as an External one, by KEDA), cpu or none."""
    busy_target: float | None = None
    """What a second metric aims at, the share of the time in which workers make images."""
    window_s: float = 0.0
    scrape_s: float = 5.0
    cpu_request: float = 1.0
    keda: Keda | None = None
    start: int = 2
    """Replicas at the beginning."""
    blind: tuple[float, float] = (0.0, 0.0)
    """From when to when Prometheus doesn't answer."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of it."""

    recovered_s: float
    lost: float
    late: float
    replica_s: float
    peak: int
    changes: int
    """How often it turned round, from growing to shrinking or back."""


class Observer:
    """What Prometheus has seen of the pods, and what a query of it gives."""

    def __init__(self, law: Law) -> None:
        self._law = law
        length = max(1, round(law.window_s / law.scrape_s))
        self._rows: deque[list[float]] = deque(maxlen=length)
        self._steady: deque[tuple[list[float], list[float]]] = deque(
            maxlen=round(30 / law.scrape_s)
        )

    def scrape(self, fleet: Fleet) -> None:
        """Takes a sample of each ready pod."""
        self._rows.append(list(fleet.rows_waiting()))
        self._steady.append((list(fleet.cores()), list(fleet.busy())))

    def rows(self) -> list[float]:
        """Of each pod, averaged over the window; a pod's average begins with its first sample."""
        return _means(self._rows)

    def cores(self) -> list[float]:
        """Of each pod, over half a minute, as metrics-server has it."""
        return _means([cores for cores, _ in self._steady])

    def busy(self) -> list[float]:
        """rate(saddlepoint_compute_seconds_sum[30s]) over the lanes."""
        return _means([busy for _, busy in self._steady])


def _means(samples: Sequence[list[float]]) -> list[float]:
    """By pod, over the samples that have it."""
    num = len(samples[-1]) if samples else 0
    return [statistics.fmean(s[pod] for s in samples if len(s) > pod) for pod in range(num)]


def wanted(law: Law, seen: Observer, fleet: Fleet) -> int:
    """Replicas that the metrics ask for at a sync: the most that any of them does."""
    current, unready = fleet.replicas, fleet.replicas - int(fleet.ready.sum())
    blind = law.blind[0] <= fleet.now_s < law.blind[1]
    if law.metric == "none":
        return current
    if law.metric == "cpu":
        return by_pods(seen.cores(), unready, current, CPU_TARGET * law.cpu_request)
    if law.metric == "total":
        assert law.keda is not None
        total = law.keda.total(None if blind else sum(seen.rows()), current)
        asked = current if total is None else by_total(total, current, law.spec.target)
    else:
        asked = current if blind else by_pods(seen.rows(), unready, current, law.spec.target)
    if law.busy_target is None or blind:
        return asked
    return max(asked, by_pods(seen.busy(), unready, current, law.busy_target))


def simulate(law: Law, pod: Pod, rate: Rate, *, seed: int, dt_s: float) -> Outcome:
    """One run."""
    law = dataclasses.replace(law, keda=law.keda and dataclasses.replace(law.keda))
    start = law.spec.max_replicas if law.metric == "none" else law.start
    fleet, hpa, seen = Fleet(pod, start, dt_s, seed), Hpa(law.spec), Observer(law)
    replicas = [start]
    scrape, sync = round(law.scrape_s / dt_s), round(SYNC_S / dt_s)
    poll = round(law.keda.polling_s / dt_s) if law.keda is not None else 0
    phase = seed * 7 % sync  # where in its period the controller is when the load comes
    for tick in range(round(END_S / dt_s)):
        if tick % scrape == 0:
            seen.scrape(fleet)
        if law.keda is not None and tick % poll == phase % poll:
            rows = seen.rows()
            answer = sum(rows) if rows else None  # of pods that aren't there, there is no series
            fleet.scale(law.keda.activated(fleet.now_s, fleet.replicas, answer))
        if tick % sync == phase and fleet.replicas:
            fleet.scale(hpa.sync(fleet.now_s, fleet.replicas, wanted(law, seen, fleet)))
        replicas.append(fleet.replicas)
        fleet.step(rate(fleet.now_s) * pod.rows_per_s)
    return _outcome(fleet, replicas)


def _outcome(fleet: Fleet, replicas: list[int]) -> Outcome:
    if not fleet.waits:  # nobody was ever there
        return Outcome(
            recovered_s=END_S - LOAD_S, lost=1.0, late=0.0, replica_s=0.0, peak=0, changes=0
        )
    times = np.concatenate([np.full(len(rows), at) for at, _, rows in fleet.waits])
    seconds = np.concatenate([wait for _, wait, _ in fleet.waits])
    rows = np.concatenate([rows for *_, rows in fleet.waits])
    slow = [
        at
        for at in np.arange(LOAD_S, times[-1], 5.0)
        if _p99(seconds, rows, (times >= at) & (times < at + 5.0)) > OBJECTIVE_S
    ]
    turns = np.sign([b - a for a, b in itertools.pairwise(replicas) if b != a])
    return Outcome(
        recovered_s=slow[-1] + 5.0 - LOAD_S if slow else 0.0,
        lost=fleet.lost / fleet.offered,
        late=float(rows[seconds > OBJECTIVE_S].sum()) / fleet.offered,
        replica_s=fleet.replica_s,
        peak=max(replicas),
        changes=int(np.count_nonzero(np.diff(turns))),
    )


def _p99(seconds: Any, rows: Any, chosen: Any) -> float:
    order = np.argsort(seconds[chosen])
    counted = np.cumsum(rows[chosen][order])
    if not len(counted) or not counted[-1]:
        return 0.0
    return float(seconds[chosen][order][np.searchsorted(counted, 0.99 * counted[-1])])


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
    by_keda, keda_window_s, polling_s, fallback, activation = _manifests.keda()
    given = {"scrape_s": _manifests.scrape_s(), "cpu_request": _manifests.cpu()[0]}
    shipped = Law(spec=spec, window_s=window_s, busy_target=busy, **given)
    keda = Keda(by_keda, polling_s=polling_s, activation=activation, fallback=fallback)
    return {
        "all": dataclasses.replace(shipped, metric="none"),
        "hpa": shipped,
        "keda": Law(spec=by_keda, metric="total", window_s=keda_window_s, keda=keda, **given),
        "hpa_last": dataclasses.replace(shipped, window_s=0.0),
        "hpa_waiting": dataclasses.replace(shipped, busy_target=None),
        "hpa_busy": dataclasses.replace(shipped, busy_target=BUSY_TARGET),
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


def compare(trace: dict[str, Any], seeds: range, dt_s: float) -> None:
    """Every law under every shape of load."""
    usual, one_lane = pod_of(trace), pod_of(trace, one_lane=True)

    def run(name: str, law: Law, pod: Pod, rate: Rate) -> None:
        runs = [simulate(law, pod, rate, seed=s, dt_s=dt_s) for s in seeds]
        report(name, runs)

    for shape, rate in SHAPES.items():
        for name, law in laws().items():
            run(f"{shape}_{name}", law, usual, rate)
        for name in ("hpa", "cpu"):
            run(f"{shape}_accelerator_{name}", laws()[name], one_lane, rate)
        law = dataclasses.replace(laws()["cpu"], cpu_request=_manifests.cpu()[1])
        run(f"{shape}_accelerator_cpu_of_limit", law, one_lane, rate)
    for name in ("hpa", "keda"):
        law = dataclasses.replace(laws()[name], blind=(LOAD_S - 90.0, LOAD_S + 300.0))
        run(f"blind_{name}", law, usual, step)
    keda = laws()["keda"]
    spec = dataclasses.replace(keda.spec, min_replicas=0)
    run("idle_keda", dataclasses.replace(keda, spec=spec, start=0), usual, step)


def sweep(trace: dict[str, Any], seeds: range, dt_s: float) -> None:
    """What other thresholds would do: target, averaging window, stabilisation."""
    pod, shipped = pod_of(trace), laws()["hpa"]

    def run(name: str, law: Law) -> None:
        for shape in ("step", "spike"):
            rate = SHAPES[shape]
            runs = [simulate(law, pod, rate, seed=s, dt_s=dt_s) for s in seeds]
            report(f"{shape}_{name}", runs)

    for target in (16, 32, 64, 128, 256, 512, 1024):
        spec = dataclasses.replace(shipped.spec, target=target)
        run(f"target_{target}", dataclasses.replace(shipped, spec=spec))
    for window_s in (0, 15, 30, 60, 120):
        run(f"window_{window_s}", dataclasses.replace(shipped, window_s=window_s))
    for period_s in (15, 30, 60):
        policies = tuple(
            dataclasses.replace(policy, period_s=period_s) for policy in shipped.spec.up.policies
        )
        up = dataclasses.replace(shipped.spec.up, policies=policies)
        spec = dataclasses.replace(shipped.spec, up=up)
        run(f"period_{period_s}", dataclasses.replace(shipped, spec=spec))
    for stabilization_s in (0, 60, 300, 600):
        down = dataclasses.replace(shipped.spec.down, stabilization_s=stabilization_s)
        spec = dataclasses.replace(shipped.spec, down=down)
        run(f"stabilization_{stabilization_s}", dataclasses.replace(shipped, spec=spec))


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
    compare(trace, seeds, dt_s)
    if not options.quick:
        sweep(trace, seeds, dt_s)


if __name__ == "__main__":
    main()

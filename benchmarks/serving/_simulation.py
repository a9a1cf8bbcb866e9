"""One autoscaler under one load: what Prometheus sees, what the law asks for, what becomes of rows.

Joins the pods (`_fleet`) to the laws (`_scaling`) over the way that a metric takes: scraped every
few seconds, averaged by the query, read at a sync. Knows no manifest and no recording.
"""

import dataclasses
import itertools
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _fleet import Fleet, Pod
from _scaling import SYNC_S, Hpa, Keda, Spec, by_pods, by_total

OBJECTIVE_S = 1.0
"""p99 of a request, as the alert SaddlepointLatency has it."""
CPU_TARGET = 0.8
LOAD_S = 120.0
"""When the load comes."""
END_S = 1500.0
"""Of a run, where ENDS_S names no other."""

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


def plateau(t: float) -> float:
    """From 1.2 pods' worth to 6, for as long as it lasts."""
    return 6.0 if t >= LOAD_S else 1.2


SHAPES: dict[str, Rate] = {"step": step, "ramp": ramp, "spike": spike, "plateau": plateau}
ENDS_S = {"plateau": 3600.0}


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
    if law.metric == "total":
        return max(asked, by_total(sum(seen.busy()), current, law.busy_target))
    return max(asked, by_pods(seen.busy(), unready, current, law.busy_target))


def simulate(law: Law, pod: Pod, shape: str, *, seed: int, dt_s: float) -> Outcome:
    """One run."""
    rate, end_s = SHAPES[shape], ENDS_S.get(shape, END_S)
    law = dataclasses.replace(law, keda=law.keda and dataclasses.replace(law.keda))
    start = law.spec.max_replicas if law.metric == "none" else law.start
    fleet, hpa, seen = Fleet(pod, start, dt_s, seed), Hpa(law.spec), Observer(law)
    replicas = [start]
    scrape, sync = round(law.scrape_s / dt_s), round(SYNC_S / dt_s)
    poll = round(law.keda.polling_s / dt_s) if law.keda is not None else 0
    phase = seed * 7 % sync  # where in its period the controller is when the load comes
    for tick in range(round(end_s / dt_s)):
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
    if not fleet.waits:  # nobody was ever there
        never_s = end_s - LOAD_S
        return Outcome(recovered_s=never_s, lost=1, late=0, replica_s=0, peak=0, changes=0)
    return _outcome(fleet, replicas)


def _outcome(fleet: Fleet, replicas: list[int]) -> Outcome:
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

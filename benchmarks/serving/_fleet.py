"""Replicas of the server as queues: a fluid model with random arrivals, in steps of dt.

Requests of one row arrive as a Poisson process and are spread evenly at random over the pods that
are ready. Each pod makes rows at one rate, first come first served, admits so many and refuses what
is more. A new pod takes its time to start; one that goes makes what it holds. Knows no autoscaler.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What one replica can do, as it was measured."""

    rows_per_s: float
    latency_s: float
    """Of a request that doesn't have to wait."""
    bound_rows: int
    in_flight_rows: int
    """Rows that workers hold when there is more to do: admitted, and not waiting any more."""
    start_s: float
    """From the decision to readiness."""
    busy_cores: float
    idle_cores: float


class Fleet:
    """Pods, and what became of the rows that were sent to them."""

    def __init__(self, pod: Pod, replicas: int, dt_s: float, seed: int) -> None:
        """All of them ready, with nothing to do."""
        self.pod, self.dt_s = pod, dt_s
        self.now_s = 0.0
        self.offered = self.lost = self.replica_s = 0.0
        self._rng = np.random.default_rng(seed)
        self._queues = np.zeros(replicas)
        self._ready_s = np.zeros(replicas)
        self._busy = np.zeros(replicas)
        self._leaving = np.zeros(0)
        self.waits: list[tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
        """Time, seconds until the answer, rows: of each step, by pod."""

    @property
    def replicas(self) -> int:
        """Pods that are there or will be."""
        return len(self._queues)

    @property
    def admitted(self) -> float:
        """Rows that wait or are being made, in all pods."""
        return float(self._queues.sum())

    @property
    def ready(self) -> npt.NDArray[np.bool_]:
        """Which of them take requests."""
        return self._ready_s <= self.now_s

    def rows_waiting(self) -> npt.NDArray[np.float64]:
        """saddlepoint_rows_waiting of each ready pod."""
        return np.maximum(0.0, self._queues[self.ready] - self.pod.in_flight_rows)

    def cores(self) -> npt.NDArray[np.float64]:
        """CPU of each ready pod, in the last step."""
        span = self.pod.busy_cores - self.pod.idle_cores
        return self.pod.idle_cores + self._busy[self.ready] * span

    def busy(self) -> npt.NDArray[np.float64]:
        """Share of the last step in which each ready pod's workers made rows."""
        return self._busy[self.ready]

    def scale(self, replicas: int) -> None:
        """The youngest go first; who comes is ready after `start_s`."""
        num_new = replicas - self.replicas
        if num_new > 0:
            self._queues = np.append(self._queues, np.zeros(num_new))
            self._busy = np.append(self._busy, np.zeros(num_new))
            coming = np.full(num_new, self.now_s + self.pod.start_s)
            self._ready_s = np.append(self._ready_s, coming)
        elif num_new < 0:
            self._leaving = np.append(self._leaving, self._queues[num_new:])
            self._queues, self._busy = self._queues[:num_new], self._busy[:num_new]
            self._ready_s = self._ready_s[:num_new]

    def step(self, rows_per_s: float) -> None:
        """Lets dt pass, with arrivals at this rate."""
        arrived = self._rng.poisson(rows_per_s * self.dt_s)
        self.offered += arrived
        self.replica_s += (self.replicas + len(self._leaving)) * self.dt_s
        made = self.pod.rows_per_s * self.dt_s
        ready = np.flatnonzero(self.ready)
        if len(ready):
            rows = self._rng.multinomial(arrived, np.full(len(ready), 1 / len(ready)))
            queues = self._queues[ready]
            taken = np.minimum(rows, np.maximum(0.0, self.pod.bound_rows - queues))
            self.lost += float(rows.sum() - taken.sum())
            seconds = (queues + taken / 2) / self.pod.rows_per_s + self.pod.latency_s
            self.waits.append((self.now_s, seconds, taken))
            queues = queues + taken
            served = np.minimum(queues, made)
            self._busy[ready] = served / made
            self._queues[ready] = queues - served
        else:
            self.lost += arrived
        self._leaving = np.maximum(0.0, self._leaving - made)
        self._leaving = self._leaving[self._leaving > 0]
        self.now_s += self.dt_s

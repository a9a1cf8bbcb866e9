"""The scaling laws of Kubernetes' HorizontalPodAutoscaler and of KEDA, as they are written.

After Kubernetes' pkg/controller/podautoscaler (replica_calculator.go, horizontal.go) and KEDA's
fallback: how many replicas a metric asks for, how recommendations are stabilised, how far one sync
may go. Knows no server and no clock: times come in seconds, from wherever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.1
"""A ratio of metric to target this near to 1 changes nothing (the controller's default)."""
SYNC_S = 15.0
"""How often the controller looks (its default)."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How far a direction may go in a period."""

    kind: str
    """Pods or Percent."""
    value: int
    period_s: float


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One direction of `behavior`."""

    stabilization_s: float
    policies: tuple[Policy, ...]
    select: str = "Max"
    """Max, Min or Disabled."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a HorizontalPodAutoscaler says, or the one that KEDA makes of a ScaledObject."""

    min_replicas: int
    max_replicas: int
    target: float
    up: Rules
    down: Rules


UP = Rules(
    stabilization_s=0,
    policies=(
        Policy(kind="Percent", value=100, period_s=15),
        Policy(kind="Pods", value=4, period_s=15),
    ),
)
"""What holds where a manifest says nothing, as Kubernetes has it."""
DOWN = Rules(stabilization_s=300, policies=(Policy(kind="Percent", value=100, period_s=15),))
"""The same for the other direction."""


def by_pods(values: Sequence[float], num_unready: int, current: int, target: float) -> int:
    """Replicas that a Pods or Resource metric asks for; no value asks for no change.

    values: of the pods that have one. num_unready: pods that don't yet; counted as idle where the
    others would scale up, left out where they would not.
    """
    if not values:
        return current
    total = sum(values)
    ratio = total / (len(values) * target)
    if not (num_unready and ratio > 1):
        return current if abs(1 - ratio) <= TOLERANCE else _ceil(ratio * len(values))
    num = len(values) + num_unready
    ratio = total / (num * target)
    wanted = _ceil(ratio * num)
    return current if ratio <= 1 + TOLERANCE or wanted < current else wanted


def by_total(total: float, current: int, target: float) -> int:
    """Replicas that an External metric with an AverageValue asks for, as KEDA's is."""
    if abs(1 - total / (current * target)) <= TOLERANCE:
        return current
    return _ceil(total / target)


@dataclass
class Hpa:
    """One autoscaler's memory: what it recommended, and what it did."""

    spec: Spec
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def sync(self, now_s: float, current: int, wanted: int) -> int:
        """Replicas after a sync in which the metrics ask for `wanted`."""
        stable = self._stabilized(now_s, current, wanted)
        if stable > current:
            limit = max(current, self._limit(now_s, current, self.spec.up, +1))
            replicas = min(stable, limit)
        else:
            limit = min(current, self._limit(now_s, current, self.spec.down, -1))
            replicas = max(stable, limit)
        replicas = min(max(replicas, self.spec.min_replicas, 1), self.spec.max_replicas)
        if replicas != current:
            self._changes.append((now_s, replicas - current))
        return replicas

    def _stabilized(self, now_s: float, current: int, wanted: int) -> int:
        """Up by the least, down by the most that was recommended in the direction's window."""
        since = {
            rules: [r for at, r in self._recommended if at > now_s - rules.stabilization_s]
            for rules in (self.spec.up, self.spec.down)
        }
        least = min([wanted, *since[self.spec.up]])
        most = max([wanted, *since[self.spec.down]])
        self._recommended.append((now_s, wanted))
        return min(max(current, least), most)

    def _limit(self, now_s: float, current: int, rules: Rules, sign: int) -> int:
        """How far the policies let it go, counted from where each one's period began."""
        if rules.select == "Disabled":
            return current
        proposed = []
        for policy in rules.policies:
            begin = current - sum(by for at, by in self._changes if at > now_s - policy.period_s)
            if policy.kind == "Pods":
                proposed.append(begin + sign * policy.value)
            else:
                share = begin * (1 + sign * policy.value / 100)
                proposed.append(_ceil(share) if sign > 0 else int(share))
        farthest = max if (rules.select == "Max") == (sign > 0) else min
        return farthest(proposed)


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """What KEDA says while its query fails."""

    failure_threshold: int
    replicas: int
    behavior: str = "static"
    """static, currentReplicas, currentReplicasIfHigher or currentReplicasIfLower."""


@dataclass
class Keda:
    """What KEDA adds: the query's failures, and the way from nothing and back."""

    spec: Spec
    polling_s: float
    cooldown_s: float = 300.0
    activation: float = 0.0
    fallback: Fallback | None = None
    _failures: int = 0
    _active_s: float = 0.0

    def total(self, answer: float | None, current: int) -> float | None:
        """The metric that the autoscaler is given; None, where it gets an error."""
        if answer is not None:
            self._failures = 0
            return answer
        self._failures += 1
        if self.fallback is None or self._failures <= self.fallback.failure_threshold:
            return None
        replicas = {
            "static": self.fallback.replicas,
            "currentReplicas": current,
            "currentReplicasIfHigher": max(current, self.fallback.replicas),
            "currentReplicasIfLower": min(current, self.fallback.replicas),
        }[self.fallback.behavior]
        return replicas * self.spec.target

    def activated(self, now_s: float, current: int, answer: float | None) -> int:
        """At a poll: one replica where there was none and the metric is above the activation."""
        if answer is not None and answer > self.activation:
            self._active_s = now_s
            return max(current, 1)
        idle = now_s - self._active_s > self.cooldown_s
        return 0 if idle and answer is not None and not self.spec.min_replicas else current


def _ceil(value: float) -> int:
    """Up, but for what is only the rounding of a product."""
    return math.ceil(value - 1e-9)

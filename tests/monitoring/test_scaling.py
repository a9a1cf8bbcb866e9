"""The simulated laws are those of Kubernetes and KEDA; simulated pods account for every row."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.settings import Settings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/serving"))
try:
    import _manifests
    from _fleet import Fleet, Pod
    from _scaling import DOWN, UP, Fallback, Hpa, Keda, Policy, Rules, Spec, by_pods, by_total
    from _simulation import Law, Outcome, simulate
finally:
    sys.path.pop(0)

FREE = Rules(stabilization_s=0, policies=(Policy(kind="Percent", value=10_000, period_s=1),))


def spec(**changed: Any) -> Spec:
    return Spec(**{"min_replicas": 1, "max_replicas": 1000, "target": 1, "up": FREE} | changed)


def rules(*policies: tuple[str, int, float], **more: Any) -> Rules:
    made = tuple(Policy(kind=kind, value=value, period_s=s) for kind, value, s in policies)
    return Rules(**{"stabilization_s": 0, "policies": made} | more)


@pytest.mark.parametrize(
    ("values", "unready", "current", "target", "wanted"),
    [
        ([200, 200, 200], 0, 3, 100, 6),  # the documentation: twice the target doubles
        ([50, 50, 50, 50], 0, 4, 100, 2),  # half of it halves
        ([109, 109], 0, 2, 100, 2),  # within the tolerance of 0.1
        ([111, 111], 0, 2, 100, 3),
        ([91], 0, 1, 100, 1),
        ([0, 0], 0, 2, 100, 0),  # the least is another's business
        ([], 3, 3, 100, 3),  # nobody knows: nothing is done
        ([400], 1, 2, 100, 4),  # who isn't ready counts as idle: 400 over two is 200
        ([150], 1, 2, 100, 2),  # 150 over two would scale down: then nothing is done
        ([210, 0], 2, 4, 100, 4),  # less than there are already
        ([40, 40], 2, 4, 100, 1),  # down: who isn't ready is left out
    ],
)
def test_a_metric_of_pods(
    values: list[float], unready: int, current: int, target: float, wanted: int
) -> None:
    assert by_pods(values, unready, current, target) == wanted


@pytest.mark.parametrize(
    ("total", "current", "wanted"), [(640, 2, 10), (130, 2, 2), (142, 2, 3), (0, 5, 0), (65, 4, 2)]
)
def test_a_metric_of_all(total: float, current: int, wanted: int) -> None:
    assert by_total(total, current, 64) == wanted


def test_the_documentation_s_way_down() -> None:
    """80 replicas, 4 pods or 10 % a minute, whichever is more: 10 % until there are 40."""
    hpa = Hpa(spec(down=rules(("Pods", 4, 60), ("Percent", 10, 60))))
    replicas, seen = 80, [80]
    for minute in range(12):
        replicas = hpa.sync(minute * 61.0, replicas, 1)
        seen.append(replicas)
    assert seen[:9] == [80, 72, 64, 57, 51, 45, 40, 36, 32]
    assert seen[9:] == [28, 24, 20, 16]


def test_ways_up() -> None:
    assert Hpa(spec(up=UP, down=DOWN)).sync(0, 1, 100) == 5  # 4 pods are more than 100 %
    assert Hpa(spec(up=UP, down=DOWN)).sync(0, 8, 100) == 16
    assert Hpa(spec(up=rules(("Percent", 900, 60)), down=DOWN)).sync(0, 10, 500) == 100
    both = rules(("Percent", 900, 60), ("Pods", 2, 60), select="Min")
    assert Hpa(spec(up=both, down=DOWN)).sync(0, 10, 500) == 12
    assert Hpa(spec(up=rules(select="Disabled"), down=DOWN)).sync(0, 10, 500) == 10


def test_a_period_counts_what_was_done_in_it() -> None:
    hpa = Hpa(spec(up=rules(("Pods", 2, 60)), down=DOWN))
    assert hpa.sync(0, 2, 9) == 4
    assert hpa.sync(15, 4, 9) == 4
    assert hpa.sync(59, 4, 9) == 4
    assert hpa.sync(60, 4, 9) == 6


def test_down_waits_for_the_most_of_the_window_and_up_for_the_least() -> None:
    hpa = Hpa(spec(down=rules(("Percent", 100, 1), stabilization_s=300)))
    assert [hpa.sync(t, 10, w) for t, w in ((0, 10), (15, 2), (120, 7), (299, 2))] == [10] * 4
    assert hpa.sync(301, 10, 2) == 7
    assert hpa.sync(421, 7, 3) == 3
    slow = Hpa(spec(up=rules(("Percent", 900, 1), stabilization_s=60), down=DOWN))
    assert [slow.sync(t, 2, w) for t, w in ((0, 3), (30, 9), (59, 9))] == [3, 3, 3]
    assert slow.sync(61, 3, 9) == 9


@given(
    wanted=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    least=st.integers(0, 5),
    most=st.integers(5, 20),
)
def test_it_stays_within_its_bounds_and_gets_where_it_is_asked_to(
    wanted: list[int], least: int, most: int
) -> None:
    hpa = Hpa(spec(min_replicas=least, max_replicas=most, up=UP, down=DOWN))
    replicas, now = max(least, 1), 0.0
    for asked in wanted:
        replicas = hpa.sync(now, replicas, asked)
        assert max(least, 1) <= replicas <= most
        now += 15
    for _ in range(60):
        now += 15
        replicas = hpa.sync(now, replicas, wanted[-1])
    assert replicas == min(max(wanted[-1], least, 1), most)


@pytest.mark.parametrize(
    ("behavior", "current", "replicas"),
    [
        ("static", 9, 4),
        ("currentReplicas", 9, 9),
        ("currentReplicasIfHigher", 9, 9),
        ("currentReplicasIfHigher", 2, 4),
        ("currentReplicasIfLower", 9, 4),
    ],
)
def test_keda_s_fallback(behavior: str, current: int, replicas: int) -> None:
    fallback = Fallback(failure_threshold=3, replicas=4, behavior=behavior)
    law = spec(target=64, down=DOWN)
    keda = Keda(law, polling_s=15, fallback=fallback)
    assert [keda.total(None, current) for _ in range(3)] == [None] * 3
    total = keda.total(None, current)
    assert total == 64 * replicas
    assert by_total(total, current, 64) == replicas
    assert keda.total(7.0, current) == 7.0
    assert keda.total(None, current) is None  # it counts anew
    assert [Keda(law, polling_s=15).total(None, 2) for _ in range(9)] == [None] * 9


def test_keda_s_way_from_nothing_and_back() -> None:
    keda = Keda(spec(min_replicas=0, down=DOWN), polling_s=30, cooldown_s=300, activation=5)
    assert keda.activated(0, 0, 5) == 0
    assert keda.activated(30, 0, 6) == 1
    assert keda.activated(330, 4, 0) == 4
    assert keda.activated(331, 4, None) == 4  # no answer is no idleness
    assert keda.activated(331, 4, 0) == 0
    assert keda.activated(360, 0, None) == 0


POD = Pod(
    rows_per_s=100,
    latency_s=0.02,
    bound_rows=400,
    in_flight_rows=50,
    start_s=30,
    busy_cores=2,
    idle_cores=0.1,
)


def run(fleet: Fleet, rows_per_s: float, seconds: float) -> None:
    for _ in range(round(seconds / fleet.dt_s)):
        fleet.step(rows_per_s)


def test_a_pod_with_half_its_load_keeps_nobody_waiting() -> None:
    fleet = Fleet(POD, 2, 0.1, 0)
    run(fleet, 100, 60)
    assert fleet.lost == 0
    assert fleet.rows_waiting().max() == 0
    assert fleet.offered == pytest.approx(6000, abs=4 * math.sqrt(6000))
    assert fleet.replica_s == pytest.approx(120)
    busy = np.concatenate([[wait.max()] for _, wait, _ in fleet.waits])
    assert busy.max() < 0.02 + 0.3  # a burst of one step


def test_a_pod_with_twice_its_load_fills_and_refuses() -> None:
    fleet = Fleet(POD, 1, 0.1, 0)
    run(fleet, 200, 3)
    assert fleet.lost == 0
    assert fleet.rows_waiting().sum() == pytest.approx(300 - 50, abs=100)
    run(fleet, 200, 57)
    assert fleet.admitted == pytest.approx(400, abs=15)
    assert fleet.rows_waiting().sum() == pytest.approx(fleet.admitted - 50)
    made = fleet.offered - fleet.lost - fleet.admitted
    assert made == pytest.approx(6000, abs=15)
    assert fleet.waits[-1][1][0] == pytest.approx(4.0, abs=0.3)
    assert fleet.cores()[0] == pytest.approx(2)
    assert fleet.busy()[0] == pytest.approx(1)


def test_pods_come_late_and_go_with_their_work_done() -> None:
    fleet = Fleet(POD, 1, 0.1, 0)
    fleet.scale(3)
    assert (fleet.replicas, fleet.ready.sum()) == (3, 1)
    run(fleet, 50, 29.5)
    assert fleet.ready.sum() == 1
    run(fleet, 50, 1)
    assert fleet.ready.sum() == 3
    run(fleet, 600, 2)
    waiting = fleet.admitted
    fleet.scale(1)
    before = fleet.replica_s
    run(fleet, 0, 3)
    assert fleet.replicas == 1
    assert fleet.lost == 0
    assert 3 < fleet.replica_s - before < 9, "who goes is there until it has made what it held"
    assert waiting > 300


def test_nobody_there_loses_all() -> None:
    fleet = Fleet(POD, 0, 0.1, 0)
    run(fleet, 100, 5)
    assert fleet.lost == fleet.offered > 400


def simulated(shape: str, **changed: Any) -> Outcome:
    law = Law(**{"spec": _manifests.SPEC, "window_s": 60.0} | changed)
    pod = dataclasses.replace(POD, latency_s=0.05, busy_cores=1.05)
    return simulate(law, pod, shape, seed=1, dt_s=0.5)


def test_as_many_servers_as_can_be_lose_nothing() -> None:
    outcome = simulated("step", metric="none")
    assert (outcome.lost, outcome.late, outcome.peak, outcome.changes) == (0, 0, 10, 0)
    assert outcome.replica_s == pytest.approx(15_000)


def test_the_queue_brings_servers_and_its_end_sends_them_away() -> None:
    outcome = simulated("step")
    assert 30 < outcome.recovered_s < 300
    assert 0 < outcome.lost < 0.2
    assert outcome.peak == 10
    assert outcome.changes == 1
    assert 3_000 < outcome.replica_s < 12_000


def test_the_queue_alone_forgets_a_load_that_stays_and_busy_workers_do_not() -> None:
    alone, busy = simulated("plateau"), simulated("plateau", busy_target=0.7)
    assert alone.changes > 2
    assert busy.changes <= 1  # up too far, down a little, and there it stays
    assert busy.recovered_s < 300 < alone.recovered_s
    keda = Keda(_manifests.SPEC, polling_s=15)
    assert simulated("plateau", metric="total", keda=keda, busy_target=0.7).changes <= 1
    assert busy.late < alone.late
    assert busy.lost <= alone.lost


def test_cpu_that_is_not_the_limit_scales_nothing() -> None:
    """1.05 cores at the most of the 2 that were asked for: never 80 %."""
    outcome = simulated("step", metric="cpu", cpu_request=2.0)
    assert outcome.peak == 2
    assert outcome.lost > 0.3
    assert simulated("step", metric="cpu", cpu_request=1.0).peak > 2


def test_without_prometheus_keda_falls_back_and_without_a_fallback_it_does_not() -> None:
    def blind(fallback: Fallback | None) -> Outcome:
        keda = Keda(_manifests.SPEC, polling_s=15, fallback=fallback)
        return simulated("step", metric="total", keda=keda, blind=(0.0, 1500.0))

    assert blind(_manifests.FALLBACK).peak == 4
    assert blind(None).peak == 2


def test_no_server_has_no_rows_that_wait() -> None:
    law = dataclasses.replace(_manifests.SPEC, min_replicas=0)
    keda = Keda(law, polling_s=15)
    outcome = simulated("step", spec=law, metric="total", keda=keda, start=0)
    assert (outcome.lost, outcome.peak) == (1, 0)


def test_what_is_simulated_is_what_is_shipped(tmp_path: Path) -> None:
    """The numbers that stand in for manifests are theirs; what the manifests say is read."""
    nowhere = tmp_path / "nowhere"
    *hpa, hpa_busy = _manifests.hpa()
    assert hpa == list(_manifests.hpa(nowhere)[:2])
    spec, window_s, keda_busy, keda = _manifests.keda()
    assert (spec, window_s) == _manifests.keda(nowhere)[:2]
    assert keda == _manifests.keda(nowhere)[3]
    assert {hpa_busy, keda_busy} <= {None, _manifests.BUSY_TARGET}
    assert _manifests.scrape_s() == _manifests.scrape_s(nowhere)
    assert _manifests.cpu() == _manifests.cpu(nowhere)
    assert _manifests.bound_rows() == _manifests.bound_rows(nowhere) == Settings().max_waiting_rows


MANIFEST = """
kind: HorizontalPodAutoscaler
spec:
  minReplicas: 3
  maxReplicas: 7
  metrics:
    - type: Pods
      pods: {metric: {name: saddlepoint_rows_waiting}, target: {averageValue: "32"}}
    - type: Pods
      pods: {metric: {name: saddlepoint_workers_busy}, target: {averageValue: 700m}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 600
"""
ADAPTER = """
rules:
  custom:
    - name: {as: saddlepoint_rows_waiting}
      metricsQuery: sum by (<<.GroupBy>>) (avg_over_time(<<.Series>>{<<.LabelMatchers>>}[2m]))
"""


SCALED_OBJECT = """
kind: ScaledObject
spec:
  pollingInterval: 20
  cooldownPeriod: 90
  minReplicaCount: 1
  maxReplicaCount: 6
  fallback: {failureThreshold: 2, replicas: 5}
  triggers:
    - metadata:
        query: sum(saddlepoint_rows_waiting)
        threshold: "16"
        activationThreshold: "3"
    - metadata:
        query: sum(rate(saddlepoint_compute_seconds_sum[30s])) / avg(saddlepoint_worker_lanes)
        threshold: "0.6"
"""


def test_a_scaled_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "scaled-object.yaml").write_text(SCALED_OBJECT)
    read, window_s, busy, keda = _manifests.keda(tmp_path)
    assert (read.min_replicas, read.max_replicas, read.target) == (1, 6, 16)
    assert (read.up, read.down) == (UP, DOWN)
    assert (window_s, busy) == (0, 0.6)
    fallback = Fallback(failure_threshold=2, replicas=5)
    assert keda == Keda(read, polling_s=20, cooldown_s=90, activation=3, fallback=fallback)


def test_manifests_are_read(tmp_path: Path) -> None:
    (tmp_path / "hpa.yaml").write_text(MANIFEST)
    (tmp_path / "prometheus-adapter.yaml").write_text(ADAPTER)
    read, window_s, busy = _manifests.hpa(tmp_path)
    assert (read.min_replicas, read.max_replicas, read.target) == (3, 7, 32)
    assert read.up == UP
    assert (read.down.stabilization_s, read.down.policies) == (600, DOWN.policies)
    assert (window_s, busy) == (120, 0.7)

"""Values of several processes: added up, kept when one dies, in memory that may be short."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PREAMBLE = """
import os, re, resource, signal, sys, threading
from serving.observability import metrics
from serving.observability.exposition import exposition, register_process
from serving.observability.shared_values import SharedMetrics

shared = SharedMetrics(num_http=1, num_workers=1)
shared.attach_main()

def text():
    return exposition(shared)[0].decode()

def child(attach, count):
    '''Another process, that counts and dies at once; gives its number.'''
    pid = os.fork()
    if not pid:
        try:
            attach()
            count()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid

def worker():
    shared.attach_worker(0)

def http():
    shared.attach_http(0)
"""


def run(script: str, tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(PREAMBLE + script)
    ran = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_values_of_processes_become_one(tmp_path: Path) -> None:
    run(
        """
metrics.RELOADS.labels("m", "loaded").inc(2)
metrics.COMPUTE.labels("m", 1).observe(0.003)
metrics.WAITING_ROWS.set(5)
metrics.LANES.set(1)
metrics.LOOP_FAILING_SINCE.labels("a").set(300)
metrics.LOOP_FAILING_SINCE.labels("b").set(float("inf"))

def count():
    metrics.RELOADS.labels("m", "loaded").inc(3)
    metrics.RELOADS.labels("m", "refused").inc(0)
    metrics.COMPUTE.labels("m", 1).observe(0.003)
    metrics.COMPUTE.labels("m", 1).observe(7)
    metrics.WAITING_ROWS.set(7)
    metrics.LANES.set(4)
    metrics.LOOP_FAILING_SINCE.labels("a").set(200)
    register_process("worker")

pid = child(worker, count)
register_process("main")
lines = text().splitlines()
for line in (
    'saddlepoint_model_loads_total{model="m",result="loaded"} 5.0',
    'saddlepoint_model_loads_total{model="m",result="refused"} 0.0',
    'saddlepoint_compute_seconds_count{model="m",version="1"} 3.0',
    'saddlepoint_compute_seconds_sum{model="m",version="1"} 7.006',
    'saddlepoint_compute_seconds_bucket{le="0.002",model="m",version="1"} 0.0',
    'saddlepoint_compute_seconds_bucket{le="0.004",model="m",version="1"} 2.0',
    'saddlepoint_compute_seconds_bucket{le="4.096",model="m",version="1"} 2.0',
    'saddlepoint_compute_seconds_bucket{le="+Inf",model="m",version="1"} 3.0',
    'saddlepoint_rows_waiting 12.0',
    'saddlepoint_worker_lanes 4.0',
    'saddlepoint_loop_failing_since_timestamp_seconds{loop="a"} 200.0',
):
    assert line in lines, (line, text())
assert 'loop="b"' not in text()
started = [line for line in lines if line.startswith("saddlepoint_process_start")]
assert len(started) == 2
assert f'pid="{pid}",role="worker"' in started[1] or f'pid="{pid}",role="worker"' in started[0]
# A child of ours begins at nothing, though it was forked with our counts.
assert text().count("saddlepoint_model_loads_total{") == 2
""",
        tmp_path,
    )


def test_the_dead_keep_what_they_counted(tmp_path: Path) -> None:
    """Ten workers, one after the other, and a scrape that never stops."""
    run(
        """
def count():
    metrics.RELOADS.labels("m", "loaded").inc(3)
    metrics.COMPUTE.labels("m", 1).observe(0.003)
    metrics.WAITING_ROWS.set(7)
    register_process("worker")

child(worker, count)
done, seen = threading.Event(), []

def scrape():
    while not done.is_set():
        found = re.search("loads_total{.*} (.*)", text())
        seen.append(float(found[1]))

thread = threading.Thread(target=scrape)
for number in range(1, 60):
    pid = shared._workers[0].pid()
    before = text()
    shared.forget(pid)
    after = text()
    for line in (
        f'saddlepoint_model_loads_total{{model="m",result="loaded"}} {3.0 * number}',
        f'saddlepoint_compute_seconds_count{{model="m",version="1"}} {float(number)}',
        f'saddlepoint_compute_seconds_bucket{{le="0.002",model="m",version="1"}} 0.0',
    ):
        assert line in before.splitlines(), (line, before)
        assert line in after.splitlines(), (line, after)
    assert "saddlepoint_rows_waiting 7.0" in before
    assert 'role="worker"' in before
    assert "saddlepoint_rows_waiting 0.0" in after
    assert 'role="worker"' not in after
    shared.forget(pid)  # once more changes nothing
    assert text() == after
    if number == 20:
        break
    child(worker, count)
metrics.RELOADS.labels("m", "loaded")
thread.start()
pids = []
segment = shared._workers[0]
for number in range(300):
    segment.begin(1000 + number)
    for key, value, _ in list(shared._dead.read()):
        segment.append(key, 1.0)
    shared.forget(1000 + number)
done.set()
thread.join()
assert len(seen) > 10
# The counts of a process that has just died are there once: never twice, never not at all.
assert seen == sorted(seen), seen
assert seen[-1] <= 360
""",
        tmp_path,
    )


def test_segments_grow(tmp_path: Path) -> None:
    run(
        """
def count():
    for number in range(2000):
        metrics.RELOADS.labels(f"model-{number}-" + "long" * 20, "loaded").inc(number)

pid = child(worker, count)
found = re.findall(r'loads_total{model="model-(\\d+)-(?:long)+",result="loaded"} (.+)', text())
assert sorted((int(n), float(v)) for n, v in found) == [(n, float(n)) for n in range(2000)]
shared.forget(pid)
again = re.findall(r'loads_total{model="model-(\\d+)-(?:long)+",result="loaded"} (.+)', text())
assert sorted(again) == sorted(found)
""",
        tmp_path,
    )


def test_without_memory_a_process_counts_for_itself_and_shows_it_later(tmp_path: Path) -> None:
    output = run(
        """
import logging
from serving.observability import shared_values
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level="INFO")
clock = [1000.0]
shared_values.time.monotonic = lambda: clock[0]
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
names = [f"model-{number}-" + "long" * 20 for number in range(1000)]
for name in names:
    metrics.RELOADS.labels(name, "loaded").inc()
metrics.RELOADS.labels(names[-1], "loaded").inc()

def seen_by_others():
    return sum(b'"loaded"' in key for key, _, _ in shared._main.read())

assert text().count('result="loaded"') == 1000
assert 50 < seen_by_others() < 1000
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
metrics.RELOADS.labels(names[-1], "loaded").inc()
assert 50 < seen_by_others() < 1000
clock[0] += 60
metrics.RELOADS.labels(names[-1], "loaded").inc()
assert seen_by_others() == 1000
assert f'model="{names[-1]}",result="loaded"}} 4.0' in text()
""",
        tmp_path,
    )
    assert output.splitlines() == [
        "ERROR there is no memory for metrics: others don't see all of this process's",
        "INFO all metrics of this process are seen again",
    ]


def test_a_spawned_process_counts_into_its_segment(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(
        """
import json, multiprocessing, re
from serving.observability import metrics
from serving.observability.exposition import exposition
from serving.observability.shared_values import SharedMetrics

def work(shared):
    metrics.RELOADS.labels("before", "loaded").inc(1)  # the models that it loads first
    shared.attach_worker(1)
    metrics.RELOADS.labels("after", "loaded").inc(2)

if __name__ == "__main__":
    shared = SharedMetrics(1, 2)
    shared.attach_main()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(shared,))
    process.start()
    process.join()
    text = exposition(shared)[0].decode()
    print(json.dumps(re.findall('loads_total{model="(.*?)".*} (.*)', text)))
"""
    )
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [["after", "2.0"], ["before", "1.0"]]


@pytest.mark.timeout(10)
def test_who_reads_does_not_wait_for_a_first_process_that_was_stopped() -> None:
    from serving.observability.shared_values import SharedMetrics

    shared = SharedMetrics(1, 1)
    shared._dead.begin(0)
    shared._dead.count_change()  # stopped in the midst of it
    shared.entries()  # comes back, instead of waiting for an even number of changes
    shared._dead.count_change()
    assert shared._dead.num_changes() == 2


@pytest.mark.parametrize("num_bytes", [0, 8, 23, 24, 30])
def test_a_segment_that_has_only_just_begun_is_empty(num_bytes: int) -> None:
    import os

    from serving.observability.segment import Segment

    segment = Segment("test")
    os.ftruncate(segment._file.descriptor, num_bytes)
    assert list(segment.read()) == []
    assert (segment.pid(), segment.num_changes()) == (0, 0)

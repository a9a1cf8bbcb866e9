"""What was counted in memory arrives in the shared metrics as if it had been counted there."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from serving.observability.buffered import BufferedMetrics

BUCKETS = (0.5, 1.0, 2.0)


@given(
    values=st.lists(
        st.floats(0, 4) | st.sampled_from([0.0, *BUCKETS, 1e9, float("inf")]), max_size=40
    ),
    flush_after=st.integers(0, 40),
)
def test_flushing_counts_what_observing_would(values: list[float], flush_after: int) -> None:
    direct, tallied = CollectorRegistry(), CollectorRegistry()
    buffered = BufferedMetrics()
    expected = Histogram("h", "h", ["x"], buckets=BUCKETS, registry=direct).labels("a")
    spread = buffered.histogram(Histogram("h", "h", ["x"], buckets=BUCKETS, registry=tallied), "a")
    counted = Counter("c", "c", registry=direct)
    count = buffered.counter(Counter("c", "c", registry=tallied))
    for index, value in enumerate(values):
        expected.observe(value)
        spread.observe(value)
        counted.inc(2)
        count.pending += 2
        if index == flush_after:
            buffered.flush()
    buffered.flush()

    def lines(registry: CollectorRegistry) -> list[str]:
        text = generate_latest(registry).decode()
        return [line for line in text.splitlines() if "_created" not in line and "_sum" not in line]

    assert lines(tallied) == lines(direct)
    total = tallied.get_sample_value("h_sum", {"x": "a"})
    assert total == direct.get_sample_value("h_sum", {"x": "a"}) or abs(total - sum(values)) < 1e-6

"""Which buckets make a number of rows in the least time.

A run of a fixed shape costs the same whether its rows are wanted or padding. 43 rows in a bucket of
64 waste a third of it; 32 and then 16 waste a tenth, and cost one more launch. What is cheaper is
measured, not assumed: each bucket is timed when a model is loaded.
"""

from collections.abc import Mapping

_GAIN = 0.95
"""Rows are cut only where that takes so much of the time of one run, or less."""


def powers_of_two(max_rows: int) -> tuple[int, ...]:
    """Returns 1, 2, 4 ... and max_rows itself."""
    sizes = [1 << power for power in range(max_rows.bit_length()) if 1 << power < max_rows]
    return (*sizes, max_rows)


def cheapest_cuts(seconds: Mapping[int, float]) -> list[tuple[int, ...]]:
    """For each number of rows from 0 on, the buckets to run one after the other.

    Args:
        seconds: what a run of each bucket takes; keys in rising order.

    Returns:
        At index n buckets that hold n rows or more in all, largest first; one entry for each n up
        to the largest bucket.
    """
    cost, cuts = [0.0], [()]  # type: tuple[list[float], list[tuple[int, ...]]]
    for num in range(1, max(seconds) + 1):
        whole = next(size for size in seconds if size >= num)
        best: float = seconds[whole]
        chosen: tuple[int, ...] = (whole,)
        for size in seconds:
            if size >= num:
                break
            total = seconds[size] + cost[num - size]
            if total < min(best, _GAIN * seconds[whole]):
                best, chosen = total, tuple(sorted((size, *cuts[num - size]), reverse=True))
        cost.append(best)
        cuts.append(chosen)
    return cuts

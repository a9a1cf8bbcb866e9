"""Turns seeds into latent vectors, by an algorithm that must never change.

Seed 42 in a training's sample grid is seed 42 over HTTP in every release. So the algorithm rests on
what NumPy keeps stable: a bit generator's raw stream (NEP 19 excludes `Generator`'s distributions).

    bits = Philox(key=uint64[seed, 0]).random_raw(n)                n = z_dim rounded up to even
    u    = ((bits >> 11) + 0.5) * 2**-53                            in (0, 1)
    z[2i], z[2i+1] = sqrt(-2 ln u[2i]) * (cos, sin)(2 pi u[2i+1])   Box and Muller 1958, in float64

The result is cast to float32 and cut to z_dim. A row depends on its own seed alone, not on the
batch.
"""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from numpy.random import Philox  # `np.random` is only imported, from files, when it is first used

MAX_SEED = 2**64 - 1
_ROWS_AT_A_TIME = 64  # 64 rows x 128 dimensions of float64 stay in a core's second-level cache


_of_thread = threading.local()


def as_seeds(seeds: Iterable[int] | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Converts integers to a uint64 array [N].

    Raises:
        ValueError: a value is not an integer in [0, 2**64 - 1].
    """
    if isinstance(seeds, np.ndarray) and seeds.dtype == np.uint64 and seeds.ndim == 1:
        return seeds
    values = list(seeds)
    for index, seed in enumerate(values):
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise ValueError(f"seeds[{index}] is {seed!r}: a seed is an integer")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seeds[{index}] is {seed}: a seed lies in 0 .. {MAX_SEED}")
    return np.array([int(seed) for seed in values], dtype=np.uint64)


def latents(seeds: Sequence[int] | npt.NDArray[np.uint64], z_dim: int) -> npt.NDArray[np.float32]:
    """Draws standard normal latents, one row a seed.

    Args:
        seeds: N integers in [0, 2**64 - 1].
        z_dim: width of a latent, at least 1.

    Returns:
        z [N, z_dim] float32.

    Raises:
        ValueError: a seed is out of range, or z_dim < 1.
    """
    if z_dim < 1:
        raise ValueError(f"z_dim is {z_dim}: a latent has at least one dimension")
    keys = as_seeds(seeds)
    z = np.empty((len(keys), z_dim + z_dim % 2), dtype=np.float32)
    for start in range(0, len(keys), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        _box_muller(_raw_bits(keys[rows], z.shape[1]), out=z[rows])
    return np.ascontiguousarray(z[:, :z_dim])


def slerp(
    z_0: npt.NDArray[np.float32], z_1: npt.NDArray[np.float32], t: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Interpolates on a great circle (Shoemake 1985), which keeps the norm of a Gaussian latent.

    Args:
        z_0: where t = 0, [z_dim] float32.
        z_1: where t = 1, [z_dim] float32.
        t: positions [T] float64, usually in [0, 1].

    Returns:
        [T, z_dim] float32; on a straight line where the two are (anti)parallel or zero.
    """
    a, b = z_0.astype(np.float64), z_1.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else 1.0
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        weight_0, weight_1 = 1.0 - t, t
    else:
        weight_0, weight_1 = np.sin((1.0 - t) * angle), np.sin(t * angle)
        weight_0, weight_1 = weight_0 / np.sin(angle), weight_1 / np.sin(angle)
    return (weight_0[:, None] * a + weight_1[:, None] * b).astype(np.float32)


def walk(
    waypoints: npt.NDArray[np.float32], num_frames: int, *, loop: bool = False
) -> npt.NDArray[np.float32]:
    """Interpolates from waypoint to waypoint, with equal steps of the segments' parameter.

    Args:
        waypoints: [K, z_dim] float32, K at least 2.
        num_frames: how many, at least K.
        loop: goes on from the last waypoint to the first and ends one step before it, so that a
            repeated animation shows no frame twice.

    Returns:
        [num_frames, z_dim] float32. The first is the first waypoint itself and, without loop, the
        last is the last.

    Raises:
        ValueError: fewer than two waypoints, or fewer frames than waypoints.
    """
    num = len(waypoints)
    if num < 2:
        raise ValueError(f"waypoints has {num} rows: a walk has at least 2")
    if num_frames < num:
        raise ValueError(f"num_frames is {num_frames}: it must be at least the {num} waypoints")
    num_segments = num if loop else num - 1
    steps = num_frames if loop else num_frames - 1
    z = np.empty((num_frames, waypoints.shape[1]), np.float32)
    for frame in range(num_frames):
        segment, part = divmod(frame * num_segments, steps)
        if part == 0:  # exactly there: no rounding
            z[frame] = waypoints[segment % num]
        else:
            ends = waypoints[segment], waypoints[(segment + 1) % num]
            z[frame] = slerp(*ends, np.array([part / steps]))[0]
    return z


def _raw_bits(keys: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.uint64]:
    """The first n raw words of Philox(key=[key, 0]) for each key, [N, n] uint64.

    One generator a thread is given a new key for each seed; a new one for each costs five times as
    much, and a new one for each call as much as five seeds.
    """
    try:
        generator, state, key = _of_thread.philox
    except AttributeError:
        generator = Philox(key=0)
        state = generator.state  # as it begins, whatever is drawn later
        key = state["state"]["key"]
        _of_thread.philox = generator, state, key
    bits = np.empty((len(keys), n), dtype=np.uint64)
    for row, seed in enumerate(keys):
        key[0] = seed
        generator.state = state
        bits[row] = generator.random_raw(n)
    return bits


def _box_muller(bits: npt.NDArray[np.uint64], out: npt.NDArray[np.float32]) -> None:
    # 53 bits and a half: u is never 0, whose logarithm would be infinite.
    u = (bits >> np.uint64(11)).astype(np.float64)
    u += 0.5
    u *= 2.0**-53
    radius = np.log(u[:, 0::2])
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = u[:, 1::2] * (2.0 * np.pi)
    out[:, 0::2] = radius * np.cos(angle)
    out[:, 1::2] = radius * np.sin(angle)

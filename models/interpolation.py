"""A walk through latent space: evenly spaced latents on the great arcs between waypoints."""

import numpy as np
import numpy.typing as npt

from models.latents import slerp


def walk(
    waypoints: npt.NDArray[np.float32], num_frames: int, *, loop: bool = False
) -> npt.NDArray[np.float32]:
    """Latents along the waypoints, at equal steps of the segments' own parameter.

    Args:
        waypoints: [K, z_dim] float32, K at least 2.
        num_frames: how many, at least K.
        loop: goes on from the last waypoint to the first, and ends one step before it, so that
            the walk can be repeated without a frame shown twice.

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

"""The eigenvalues of a game where it stands, in a process of their own beside it.

The games' Jacobian, the operator of a round and the step limit are those of `training.stability`.
Small games are measured whole, others by a Krylov space.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.engine.state import State
from training.errors import TrainingError
from training.lab.clouds import Cloud
from training.lab.parameters import Parameters
from training.lab.snapshots import Content, put_back
from training.stability.analysis import step_limit
from training.stability.field import Linearization
from training.stability.progress import Progress
from training.stability.rounds.round_operator import DenseJacobian, RoundOperator
from training.stability.rounds.stability_region import region_of
from training.stability.run_game import RunGame
from training.stability.spectrum import Complexes, matrix_of, spectra, spectrum

DENSE = 300
"""Parameters up to which the whole Jacobian is computed."""
DRIFT = 1e-3
"""Growth a round that counts as none: what `python -m training.stability spectrum` takes."""
NICE = 10
_NUM = 12  # eigenvalues of each kind, of a game that isn't small
_NUM_VECTORS = 24
_MOST_DRAWN = 200
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a game stands."""

    parameters: Parameters
    content: Content
    round: int
    with_limit: bool
    """Search for the step limit too, which takes longest."""


def serve(asked: Connection) -> None:
    """Measures each place that comes, until the other end is closed: the main of a process."""
    os.nice(NICE)
    torch.set_num_threads(1)
    clouds: dict[tuple[str, str], Cloud] = {}
    while True:
        try:
            place: Place = asked.recv()
        except (EOFError, OSError):
            return
        data = place.parameters.data, place.parameters.points
        if data not in clouds:
            clouds = {data: Cloud(*data)}
        try:
            asked.send(measured(place, clouds[data]))
        except (BrokenPipeError, OSError):
            return


def measured(place: Place, cloud: Cloud) -> dict[str, Any]:
    """The eigenvalues as JSON types; `refused` says in words why there are none."""
    start = time.monotonic()
    found: dict[str, Any] = {"round": place.round}
    try:
        found |= _measured(place, cloud)
    except TrainingError as error:
        found["refused"] = str(error)
    except (FloatingPointError, np.linalg.LinAlgError, RuntimeError) as error:
        found["refused"] = f"the game's derivatives can't be computed here: {error}"
    return {**found, "tookS": round(time.monotonic() - start, 2)}


def _measured(place: Place, cloud: Cloud) -> dict[str, Any]:
    config = place.parameters.config
    state = State.fresh(config, cloud.image_set.shape, torch.device("cpu"))
    put_back(state, place.content)
    game = RunGame(
        folder=Path(),
        config=replace(config, accumulate=1),
        image_set=cloud.image_set,
        state=state,
        checkpoint=Path(),
    )
    game.require_differentiable()
    (batch,) = game.batches(1, game.size_up_to(_BATCH))
    at = game.field(batch).at()
    is_dense = at.size <= DENSE
    played = game.round(_dense(at) if is_dense else at)
    flow, rounds = _eigenvalues(played, is_dense=is_dense)
    region = region_of(played)
    radius = float(np.abs(rounds).max()) ** (1 / played.num_rounds)
    found: dict[str, Any] = {
        "size": at.size,
        "isDense": is_dense,
        "flow": _pairs(_largest(flow)),
        "mu": _pairs(_largest(rounds)),
        "radius": radius,
        "isStable": radius <= 1 + DRIFT,
        "border": [] if region is None else _pairs(region.border),
        "rule": "" if region is None else region.rule,
        "isExact": region is not None and region.is_exact,
        "speed": {p: at.value[at.rows(p)].norm().item() for p in ("G", "D")},
    }
    if place.with_limit:
        limit = step_limit(played, drift=DRIFT, progress=Progress(lambda line: None))
        factor = limit.factor
        if not limit.standing:
            # JSON knows no infinity: 0 stands for no stable factor, -1 for all of them.
            found["limit"] = 0 if factor is None else -1 if np.isinf(factor) else factor
    return found


def _dense(at: Linearization) -> DenseJacobian:
    return DenseJacobian(torch.from_numpy(matrix_of(at.jvp, at.size)), at.sizes)


def _eigenvalues(played: RoundOperator, *, is_dense: bool) -> tuple[Complexes, Complexes]:
    """Of the flow, a round of the present rates, and of the round."""
    size = played.jacobian.size
    if is_dense:
        return _all(played.preconditioned, size), _all(played.apply, played.size)
    options: dict[str, Any] = {"num": _NUM, "num_vectors": _NUM_VECTORS, "refine": False}
    right, large = spectra(played.preconditioned, size, ("LR", "LM"), **options)
    flow = np.unique(np.concatenate([right.values, large.values]).round(12))
    return flow, spectrum(played.apply, played.size, "LM", **options).values


def _all(product: Callable[[torch.Tensor], torch.Tensor], size: int) -> Complexes:
    found: Complexes = np.linalg.eigvals(matrix_of(product, size)).astype(np.complex128)
    return found


def _largest(values: Complexes) -> Complexes:
    """As many as can be told apart in a drawing."""
    return values[np.argsort(-np.abs(values), kind="stable")][:_MOST_DRAWN]


def _pairs(values: Complexes) -> list[list[float]]:
    """[[re, im], ...] of those that are finite."""
    finite = values[np.isfinite(values)]
    return [[float(f"{v.real:.5g}"), float(f"{v.imag:.5g}")] for v in finite]

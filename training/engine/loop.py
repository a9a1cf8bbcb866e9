"""The training loop: round after round, tick after tick.

It asks the device for a value only when the journal wants one, and on the CPU, where asking costs
nothing. It touches no file.
"""

from collections.abc import Callable
from dataclasses import dataclass

from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import NonFiniteError

_VOTE_EVERY = 16  # rounds from one vote of several processes on stopping to the next


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callbacks of the loop, which itself touches no file."""

    should_stop: Callable[[], bool]
    """Is asked after each step whether to end here."""
    should_report: Callable[[], bool]
    """Is asked after each step whether the progress line is due."""
    report: Callable[[int, dict[str, float]], None]
    """Is given cur_nimg and the means since the last tick."""
    tick: Callable[[int, State, dict[str, float]], None]
    """Is called at every tick, numbered from 1, and at the end, with the means since the last; an
    exception from it ends the training there."""
    last_good: Callable[[], str]
    """Returns the name of the checkpoint to go back to."""


def fit(stepper: Stepper, hooks: Hooks) -> bool:
    """Trains until total_kimg images were shown.

    Ticks fall where cur_nimg passes a multiple of tick_kimg, wherever the training was resumed.

    Returns:
        False if it was stopped before the end; the state then stands between two steps.

    Raises:
        NonFiniteError: a loss or gradient was not finite; the weights are those from before it.
    """
    config, state, world = stepper.config, stepper.state, stepper.world
    immediate = state.G.parameters[0].device.type == "cpu"
    vote_every = _VOTE_EVERY if world.size > 1 else 1
    while state.cur_nimg < config.total_nimg:
        tick = state.cur_nimg // config.tick_nimg + 1  # the one under way
        stepper.step()
        ended = state.cur_nimg >= config.total_nimg
        is_tick = ended or state.cur_nimg // config.tick_nimg >= tick
        # All processes must stop in the same round, or those that go on wait for ever.
        votes = state.cur_nimg // config.round_nimg % vote_every == 0
        stopping = votes and world.any(hooks.should_stop())
        if immediate or is_tick or stopping:
            _require_finite(stepper, hooks)
        if is_tick:
            hooks.tick(tick, state, stepper.meters.means())
            stepper.meters.reset()
        elif hooks.should_report():
            hooks.report(state.cur_nimg, stepper.meters.means())
        if stopping and not ended:
            return False
    return True


def _require_finite(stepper: Stepper, hooks: Hooks) -> None:
    non_finite = stepper.non_finite()
    if non_finite is None:
        return
    tick = non_finite.cur_nimg // stepper.config.tick_nimg + 1
    raise NonFiniteError(
        non_finite,
        f"{', '.join(non_finite.terms)} is not finite in tick {tick} "
        f"({non_finite.cur_nimg / 1000:.3f} kimg); "
        f"no weight was updated by it. Last good checkpoint: {hooks.last_good()}. "
        "Lower --optim-D.lr and --optim-G.lr, or add --regularizers r1=1 r2=1",
    )

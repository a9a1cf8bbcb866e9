"""The alternating game: D step, G step, EMA, tick.

Knows no variant by name: losses come from the game, networks from the state. Asks the device for
a value only when the journal wants one, and on the CPU, where asking costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import TrainingConfig
from training.data import Batches, ImageSet
from training.errors import NonFiniteError
from training.game import Game, Losses
from training.guard import Guard, Trip
from training.meters import Meters
from training.play import Batch, rows_are_independent
from training.randomness import key, normal
from training.state import Average, Seat, State


class Stepper:
    """Plays the game one batch at a time."""

    def __init__(self, config: TrainingConfig, state: State, image_set: ImageSet) -> None:
        """state, image_set: on one device."""
        device = image_set.images.device
        self.config = config
        self.state = state
        self.meters = Meters()
        self._batches = Batches(image_set, batch_size=config.batch_size, seed=config.seed)
        self._game = Game(
            config.objective, config.regularizers, joint=rows_are_independent(state.D.network)
        )
        self._average = Average(state.G.network, state.G_ema, config)
        self._noise = torch.Generator(device)
        self._guard = Guard(device, cur_nimg=state.cur_nimg, batch_size=config.batch_size)

    def step(self) -> None:
        """D moves, then G against the new D, on the same latents; then the average follows.

        G's images are made once for both: G stands still while D moves. D gets them detached.
        """
        state = self.state
        batch = self._batch()
        fake_img = self._game.generate(state.G.network, batch)
        losses_D = self._game.judge_D(state.D.network, batch, fake_img.detach())
        self._move(state.D, "D", losses_D)
        losses_G = self._game.judge_G(state.D.network, batch, fake_img)
        self._move(state.G, "G", losses_G)
        state.cur_nimg += self.config.batch_size
        self._average.update(state.cur_nimg)
        self._guard.end_step()

    def trip(self) -> Trip | None:
        """What was not finite since the start, None if all was. Waits for the device."""
        return self._guard.trip()

    def _batch(self) -> Batch:
        config, cur_nimg = self.config, self.state.cur_nimg
        real_img, label = self._batches.at(cur_nimg)
        shape = (config.batch_size, config.network.z_dim)
        return Batch(
            real_img=real_img,
            label=label,
            z=normal(shape, self._noise, key(config.seed, "z", cur_nimg)),
            key=key(config.seed, "layers", cur_nimg),
            step=cur_nimg // config.batch_size,
        )

    def _move(self, seat: Seat, player: str, losses: Losses) -> None:
        gradients = seat.gradients(losses.total)
        names, values = _scalars(player, losses, gradients)
        self._guard.inspect(names, values)
        self.meters.add(names, values)
        seat.move(gradients, self._guard.tripped)


def _scalars(
    player: str, losses: Losses, gradients: tuple[Tensor, ...]
) -> tuple[tuple[str, ...], Tensor]:
    """What the guard looks at and the journal writes of one player's move."""
    scalars = {f"loss_{player}.{name}": term.detach() for name, term in losses.terms.items()}
    scalars[f"gradient_{player}"] = torch.nn.utils.get_total_norm(gradients)
    if player == "D":
        assert losses.play.real_logits is not None
        scalars["D_real"] = losses.play.real_logits.detach().sigmoid().mean()
        scalars["D_fake"] = losses.play.fake_logits.detach().sigmoid().mean()
    return tuple(scalars), torch.stack(list(scalars.values()))


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What happens around the steps; the loop itself touches no file."""

    should_stop: Callable[[], bool]
    """Asked after each step."""
    should_report: Callable[[], bool]
    """Asked after each step: is the progress line due?"""
    report: Callable[[int, dict[str, float]], None]
    """Given cur_nimg and the means since the last tick."""
    tick: Callable[[int, State, dict[str, float]], None]
    """Called at every tick, numbered from 1, and at the end, with the means since the last."""
    last_good: Callable[[], str]
    """Names the checkpoint to go back to."""


def fit(stepper: Stepper, hooks: Hooks) -> bool:
    """Plays until total_kimg.

    Ticks fall where cur_nimg passes a multiple of tick_kimg, wherever the training was resumed.

    Returns:
        False if it was stopped before the end; the state then stands between two steps.

    Raises:
        NonFiniteError: a loss or gradient was; the weights are those from before it.
    """
    config, state = stepper.config, stepper.state
    immediate = state.G.parameters[0].device.type == "cpu"
    while state.cur_nimg < config.total_nimg:
        tick = state.cur_nimg // config.tick_nimg + 1  # the one under way
        stepper.step()
        ended = state.cur_nimg >= config.total_nimg
        is_tick = ended or state.cur_nimg // config.tick_nimg >= tick
        stopping = hooks.should_stop()
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
    trip = stepper.trip()
    if trip is None:
        return
    tick = trip.cur_nimg // stepper.config.tick_nimg + 1
    raise NonFiniteError(
        f"{', '.join(trip.terms)} is not finite in tick {tick} ({trip.cur_nimg / 1000:.3f} kimg); "
        f"no weight was updated by it. Last good checkpoint: {hooks.last_good()}. "
        "Lower --optim-D.lr and --optim-G.lr, or add --regularizers r1=1 r2=1"
    )

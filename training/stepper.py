"""The board: plays the game a round at a time.

Knows no variant by name: losses come from the game, networks from the state, who moves when from
the update. Never asks the device for a value.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from models.networks import Growing
from models.networks.rows import Rows
from training.augment import overfitting
from training.averages import Average, Lookahead
from training.config import TrainingConfig
from training.constraints import CONSTRAINTS
from training.corruption import lens
from training.distributed import World
from training.game import Game, Lens, Losses
from training.guard import Guard, Trip
from training.meters import Meters
from training.play import Batch, rows_are_independent
from training.randomness import key, normal
from training.schedules import Timetable
from training.state import State
from training.updates import UPDATES, Gradients, Hand, Part, Place

_NUM_KEPT = 4096  # calls whose scalars the watchdog may want one by one: bounds their memory


class Deal(Protocol):
    """Where batches come from: `training.data.Batches`, for one."""

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    def at(self, cur_nimg: int) -> tuple[Tensor, Tensor | None]:
        """Images [batch_size, ...] float32 and labels [batch_size] from image number cur_nimg."""
        ...


class Stepper:
    """Plays the game, a round at a time: the board of `training.updates`."""

    def __init__(
        self, config: TrainingConfig, state: State, deal: Deal, world: World | None = None
    ) -> None:
        """state, deal: on one device. world: the processes that play together."""
        self.config = config
        self.state = state
        self.meters = Meters(_NUM_KEPT if config.watchdog.is_on else 0)
        self.world = world or World()
        self._deal = deal
        self._rows = self._own_rows()
        self._timetable = Timetable(config.schedules)
        self._game = Game(
            config.objective,
            config.regularizers,
            joint=rows_are_independent(state.D.network),
            timetable=self._timetable,
            lenses=lenses(config),
        )
        twice = self._game.differentiates_twice
        self._G = config.compute.player(state.G.network, twice=self._game.has_field)
        self._D = config.compute.player(state.D.network, twice=twice)
        self._average = Average(state.G.network, state.G_ema, config)
        self._lookahead = Lookahead(state.parameters(), state.slow, config)
        self._noise = torch.Generator(deal.device)
        self._guard = Guard(deal.device, cur_nimg=state.cur_nimg, round_nimg=config.round_nimg)
        self._play = UPDATES[config.update].play
        self._constraints = [
            (CONSTRAINTS[term.name], term.weight)
            for term in config.regularizers
            if term.name in CONSTRAINTS
        ]
        self._growing = [
            network
            for network in (state.G.network, state.D.network, state.G_ema)
            if isinstance(network, Growing)
        ]
        self._grow()

    def step(self) -> None:
        """One round; then the average follows."""
        state = self.state
        if self._timetable:
            self._set_rates()
        self._play(self)
        state.cur_nimg += self.config.round_nimg
        self._lookahead.update(state.cur_nimg)
        self._average.update(state.cur_nimg)
        self._grow()
        self._guard.end_round()

    def trip(self) -> Trip | None:
        """What was not finite since the start, None if all was. Waits for the device."""
        return self._guard.trip()

    def hands_D(self) -> Iterator[Hand]:
        """See `training.updates.Board`."""
        num = self.config.steps_D
        for index in range(num):
            batch = self._batch(self.state.cur_nimg + index * self.config.batch_size, step_G=0)
            # G's images are made once for both players: G stands still while D moves.
            yield self._hand(batch, for_G=index == num - 1 or self._game.has_field)

    def hands_G(self, last: Hand) -> Iterator[Hand]:
        """See `training.updates.Board`."""
        yield last
        start = self.state.cur_nimg + (self.config.steps_D - 1) * self.config.batch_size
        for index in range(1, self.config.steps_G):
            yield self._hand(self._batch(start, step_G=index, purpose=f"/{index}"))

    def again(self, hand: Hand) -> Hand:
        """See `training.updates.Board`."""
        return Hand([Part(part.batch) for part in hand.parts])

    def gradients(self, player: str, hand: Hand) -> Gradients:
        """See `training.updates.Board`. Averaged over parts and processes, and metered."""
        seat = self.state.seat(player)
        num = len(hand.parts)
        total: list[Tensor] = []
        gradients: Gradients = ()
        names: tuple[str, ...] = ()
        for part in hand.parts:
            losses = self._judge(player, part, keep=num == 1, for_G=hand.for_G)
            gradients = seat.gradients(losses.total)
            used = [gradient for gradient in gradients if gradient is not None]
            names, values = _scalars(player, losses, adaptive=self.config.augment.target > 0)
            each = [values, *used]
            total = list(torch._foreach_add(total, each)) if total else each
        if num > 1:
            torch._foreach_div_(total, float(num))
        values, *mean = self.world.mean(total)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(mean)))
        names, values = (*names, f"gradient_{player}"), torch.cat([values, norm[None]])
        self._guard.inspect(names, values)
        self.meters.add(names, values)
        if "r_t" in names:
            self._adapt(values[names.index("r_t")])
        found = iter(mean)
        return tuple(None if gradient is None else next(found) for gradient in gradients)

    def move(self, player: str, gradients: Gradients) -> None:
        """See `training.updates.Board`."""
        self.state.seat(player).move(gradients, self._guard.tripped)
        if player == "D":
            for constraint, weight in self._constraints:
                constraint.apply(self.state.D.network, weight)

    def place(self) -> Place:
        """See `training.updates.Board`."""
        return [each.detach().clone() for each in self.state.parameters()]

    @torch.no_grad()
    def go_back(self, place: Place) -> None:
        """See `training.updates.Board`."""
        torch._foreach_copy_(self.state.parameters(), place)

    def _judge(self, player: str, part: Part, *, keep: bool, for_G: bool) -> Losses:
        """A player's loss on a part. keep: G's images stay for the other player."""
        game, batch = self._game, part.batch
        fake_img = part.fake_img
        if fake_img is None:
            with torch.set_grad_enabled((keep and for_G) or player == "G" or game.has_field):
                fake_img = game.generate(self._G, batch)
            part.fake_img = fake_img if keep else None
        if player == "D":
            fake_img = fake_img if game.has_field else fake_img.detach()
            return game.judge_D(self._G, self._D, batch, fake_img)
        D = self._D
        if self.config.unrolled_steps:
            network = self.state.D.network
            moving = {name: each for name, each in network.named_parameters() if each.requires_grad}
            bound = self.config.compute.bound(network, moving)
            steps, lr = self.config.unrolled_steps, self.config.unrolled_lr
            D = game.unrolled(self._G, bound, batch, fake_img, steps=steps, lr=lr)
        return game.judge_G(self._G, D, batch, fake_img)

    def _batch(self, cur_nimg: int, *, step_G: int, purpose: str = "") -> Batch:
        """cur_nimg: where the batch starts. step_G: of G's in this round, from 0 on."""
        config = self.config
        real_img, label = self._deal.at(cur_nimg)
        shape = (config.batch_size, config.network.z_dim)
        return Batch(
            real_img=real_img,
            label=label,
            z=normal(shape, self._noise, key(config.seed, f"z{purpose}", cur_nimg)),
            key=key(config.seed, f"layers{purpose}", cur_nimg),
            step_D=cur_nimg // config.batch_size,
            step_G=self.state.cur_nimg // config.round_nimg * config.steps_G + step_G,
            cur_nimg=cur_nimg,
            augment_p=self._augment_p(cur_nimg),
        )

    def _hand(self, batch: Batch, *, for_G: bool = True) -> Hand:
        """This process's rows of a batch, in as many parts as are accumulated."""
        if not self._rows:
            return Hand([Part(batch)], for_G)
        return Hand([Part(_part(batch, rows)) for rows in self._rows], for_G)

    def _own_rows(self) -> list[Rows]:
        """What each of this process's parts is of a batch; none where there is one part."""
        accumulate, total = self.config.accumulate, self.config.batch_size
        num = accumulate * self.world.size
        if num == 1:
            return []
        parts = self.world.parts(accumulate)
        return [Rows.of_part(part, num, total, self._deal.device) for part in parts]

    def _set_rates(self) -> None:
        for name, seat in (("optim_G", self.state.G), ("optim_D", self.state.D)):
            optim, cur_nimg = seat.optim, self.state.cur_nimg
            lr = self._timetable.at(f"{name}.lr", optim.lr, cur_nimg)
            beta1 = self._timetable.at(f"{name}.beta1", optim.betas[0], cur_nimg)
            beta2 = self._timetable.at(f"{name}.beta2", optim.betas[1], cur_nimg)
            seat.set_rates(lr, (beta1, beta2))

    def _augment_p(self, cur_nimg: int) -> Tensor | float:
        augment = self.config.augment
        if augment.target:
            return self.state.augment_p
        return self._timetable.at("augment.probability", augment.probability, cur_nimg)

    def _adapt(self, r_t: Tensor) -> None:
        """Lets augmentation follow how far D overfits."""
        augment, p = self.config.augment, self.state.augment_p
        p.copy_(augment.adapt(p, r_t, self.config.batch_size))
        self.meters.add(("augment_p",), p[None])

    def _grow(self) -> None:
        """Lets networks that grow know where the training is."""
        for network in self._growing:
            network.set_progress(min(self.state.cur_nimg / self.config.total_nimg, 1.0))


def _part(batch: Batch, rows: Rows) -> Batch:
    """Some rows of a batch, with the randomness that they have there."""
    return replace(
        batch,
        real_img=rows.of(batch.real_img),
        label=None if batch.label is None else rows.of(batch.label),
        z=rows.of(batch.z),
        rows=rows,
        whole_img=batch.real_img,
    )


def lenses(config: TrainingConfig) -> tuple[Lens, ...]:
    """What stands between an image and D, nearest to the image first."""
    measurement = (lens(config.corruption),) if config.corruption else ()
    return (*measurement, config.augment.lens()) if config.augment.policy else measurement


def _scalars(player: str, losses: Losses, *, adaptive: bool) -> tuple[tuple[str, ...], Tensor]:
    """What the guard looks at and the journal writes of one player's loss."""
    scalars = {f"loss_{player}.{name}": term.detach() for name, term in losses.terms.items()}
    if player == "D":
        play = losses.play
        assert play.real_logits is not None
        scalars["D_real"] = play.real_logits.detach().sigmoid().mean()
        scalars["D_fake"] = play.fake_logits.detach().sigmoid().mean()
        if adaptive:
            scalars["r_t"] = overfitting(play.real_logits)
    return tuple(scalars), torch.stack(list(scalars.values()))

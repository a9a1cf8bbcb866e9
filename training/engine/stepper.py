"""One round of the game: both players move, then the averages follow.

No variant is known here by name: losses are the game's, networks the state's, and the order of the
moves is the update's. The device is never asked for a value.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from models.networks import Fading
from training.config.training import TrainingConfig
from training.engine.averages import Average, Lookahead
from training.engine.distributed import World
from training.engine.finite_guard import Guard
from training.engine.meters import Meters
from training.engine.round_batches import BatchSource, RoundBatches
from training.engine.state import State
from training.errors import NonFinite
from training.game.forward import rows_are_independent
from training.game.losses import Game, Losses
from training.game.penalties import PATH_DECAY
from training.game.penalty_points import SIDES
from training.game.regularizers import Term
from training.game.updates import (
    UPDATES,
    Gradients,
    MicroBatch,
    RoundBatch,
    Snapshot,
    TrainStep,
)
from training.optim.constraints import CONSTRAINTS
from training.optim.optimizers import set_rates
from training.optim.schedules import Timetable
from training.optim.unrolled import Adam, descent
from training.transforms.augmentation import overfitting
from training.transforms.corruption import measure

_NUM_KEPT = 4096  # calls whose scalars the watchdog may want one by one: bounds their memory


def game_of(config: TrainingConfig, D: torch.nn.Module, terms: tuple[Term, ...]) -> Game:
    """Builds the game of a configuration, with these of its regularisers."""
    augment, timetable = config.augment, Timetable(config.schedules)

    def probability_at(cur_nimg: int) -> float:
        return timetable.at("augment.probability", augment.probability, cur_nimg)

    def measured(img: Tensor, seed: int) -> Tensor:
        return measure(img, config.corruption, seed)

    return Game(
        config.objective,
        terms,
        joint=rows_are_independent(D),
        timetable=timetable,
        measurement=measured if config.corruption else None,
        faded=D.faded if isinstance(D, Fading) else None,
        transforms=(augment.transform(probability_at),) if augment.policy else (),
        packing=config.packing,
    )


class Stepper:
    """Plays a training round by round; the `TrainStep` that its update works with."""

    def __init__(
        self, config: TrainingConfig, state: State, source: BatchSource, world: World | None = None
    ) -> None:
        """state, source: on one device. world: the processes that train together."""
        self.config = config
        self.state = state
        self.meters = Meters(_NUM_KEPT if config.watchdog.is_on else 0)
        self.world = world or World()
        self._batches = RoundBatches(config, source, self.world)
        self._game = game = game_of(config, state.D.network, config.regularizers)
        self._G = config.compute.player(state.G.network, twice=game.twice_through_generator)
        self._D = config.compute.player(state.D.network, twice=game.differentiates_twice)
        self._average = Average(state.G.network, state.G_ema, config, game.timetable)
        self._lookahead = Lookahead(state.parameters(), state.slow, config)
        self._guard = Guard(source.device, cur_nimg=state.cur_nimg, round_nimg=config.round_nimg)
        self._run_round = UPDATES[config.update].run_round
        self._constraints = [
            (CONSTRAINTS[term.name], term.weight)
            for term in config.regularizers
            if term.name in CONSTRAINTS
        ]
        state.grow(config.total_nimg)

    def step(self, run_round: Callable[[TrainStep], None] | None = None) -> None:
        """Plays one round (Goodfellow et al. 2014, alg. 1, in the update's order).

        run_round: an order of moves instead of the configured update's.
        """
        state = self.state
        self._set_rates()
        (run_round or self._run_round)(self)
        state.cur_nimg += self.config.round_nimg
        self._lookahead.update(state.cur_nimg)
        self._average.update(state.cur_nimg)
        state.grow(self.config.total_nimg)
        self._guard.end_round()

    def non_finite(self) -> NonFinite | None:
        """Returns what was not finite since the start, None if all was. Waits for the device."""
        return self._guard.non_finite()

    def batches_D(self) -> Iterator[RoundBatch]:
        """Yields new data and latents for each of D's steps."""
        for index, round_batch in enumerate(self._batches.of_D(self.state), 1):
            # G stands still while D moves, so the last images serve both players: made once, with
            # their graph. Not where G has a batch of its own.
            serves_G = index == self.config.steps_D and not self.config.fresh_batch_G
            round_batch.for_G = serves_G or self._game.has_vector_field
            yield self._with_terms(round_batch)

    def batches_G(self, last: RoundBatch) -> Iterator[RoundBatch]:
        """Yields D's last batch, unless G has its own, then new latents for each step of G."""
        if not self.config.fresh_batch_G:
            yield last
        for round_batch in self._batches.of_G(self.state):
            yield self._with_terms(round_batch)

    def lazy(self, player: str, round_batch: RoundBatch) -> Iterator[RoundBatch]:
        """Yields the batch with latents and draws of its own, where lazy penalties are due."""
        first = round_batch.micro_batches[0].batch
        if self.config.lazy_steps and self._game.due(player, first, "lazy"):
            yield self._batches.afresh(round_batch, player)

    def _with_terms(self, round_batch: RoundBatch) -> RoundBatch:
        if self.config.lazy_steps:
            round_batch.terms = "prompt"
        return round_batch

    def again(self, round_batch: RoundBatch) -> RoundBatch:
        """Returns the batch without G's images, which are then made by G as it is now."""
        return RoundBatch([MicroBatch(part.batch) for part in round_batch.micro_batches])

    def gradients(self, player: str, round_batch: RoundBatch) -> Gradients:
        """Computes a player's gradient: the mean over the batch's parts and all processes."""
        num = len(round_batch.micro_batches)
        total: list[Tensor] = []
        gradients: Gradients = ()
        names: tuple[str, ...] = ()
        for part in round_batch.micro_batches:
            if round_batch.terms == "lazy":
                losses = self._game.losses(player, self._G, self._D, part.batch, part="lazy")
            else:
                losses = self._losses(player, part, round_batch, keep=num == 1)
            gradients = self.state.player(player).gradients(losses.total)
            used = [gradient for gradient in gradients if gradient is not None]
            names, values = self._scalars(player, losses)
            # The scalars travel with the gradients: one sum, one message between processes.
            each = [values, *used]
            total = list(torch._foreach_add(total, each)) if total else each
        if num > 1:
            torch._foreach_div_(total, float(num))
        values, *mean = self.world.mean(total)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(mean)))
        lazy = ".lazy" if round_batch.terms == "lazy" else ""  # the watchdog compares the others
        names, values = (*names, f"gradient_{player}{lazy}"), torch.cat([values, norm[None]])
        # Before anybody moves: the guard's flag is what keeps a bad gradient from the weights.
        self._guard.inspect(names, values)
        self.meters.add(names, values)
        if "r_t" in names:
            step_D = round_batch.micro_batches[0].batch.step_D
            self._adapt(values[names.index("r_t")], step_D)
        if "path_length" in names:
            self.state.path_length.lerp_(values[names.index("path_length")], PATH_DECAY)
        found = iter(mean)
        return tuple(None if gradient is None else next(found) for gradient in gradients)

    def move(self, player: str, gradients: Gradients) -> None:
        """Takes a step of the player's optimiser; after one of D, its constraints are applied."""
        seat = self.state.player(player)
        remembers = bool(seat.last_move)
        before = [each.detach().clone() for each in seat.parameters] if remembers else []
        seat.move(gradients, self._guard.found_inf)
        if player == "D":
            for constraint, weight in self._constraints:
                constraint.apply(self.state.D.network, weight)
        if remembers:
            moves = torch._foreach_sub([each.detach() for each in seat.parameters], before)
            torch._foreach_copy_(seat.last_move, moves)

    @contextmanager
    def ahead(self, player: str) -> Iterator[None]:
        """Lets the player stand further along its last move inside the block."""
        seat = self.state.player(player)
        places = [each.detach() for each in seat.parameters]
        before = [each.clone() for each in places]
        torch._foreach_add_(places, seat.last_move, alpha=self.config.extrapolation - 1)
        try:
            yield
        finally:
            torch._foreach_copy_(places, before)

    def snapshot(self) -> Snapshot:
        """Copies both players' parameters."""
        return [each.detach().clone() for each in self.state.parameters()]

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Writes the copied parameters back."""
        torch._foreach_copy_(self.state.parameters(), snapshot)

    def _losses(
        self, player: str, part: MicroBatch, round_batch: RoundBatch, *, keep: bool
    ) -> Losses:
        """Computes a player's loss on a part. keep: G's images stay for the other player."""
        game, batch, G, D = self._game, part.batch, self._G, self._D
        fake_img = part.fake_img
        if fake_img is None:
            needs_graph = (keep and round_batch.for_G) or player == "G" or game.has_vector_field
            with torch.set_grad_enabled(needs_graph):
                fake_img = game.generate(G, batch)
            part.fake_img = fake_img if keep else None
        if player == "D":
            # Without its graph, or D's backward pass would run through G in vain.
            fake_img = fake_img if game.has_vector_field else fake_img.detach()
        elif self.config.unrolled_steps:
            network = self.state.D.network
            moving = {name: each for name, each in network.named_parameters() if each.requires_grad}
            bound = self.config.compute.bound(network, moving)
            lr, adam = self.config.unrolled_lr, self.config.unrolled_adam
            move = Adam(self.state.D.optimizer, lr) if adam else descent(lr)
            steps = self.config.unrolled_steps
            D = game.unrolled(G, bound, batch, fake_img, steps=steps, move=move)
        return game.losses(player, G, D, batch, fake_img, part=round_batch.terms)

    def _scalars(self, player: str, losses: Losses) -> tuple[tuple[str, ...], Tensor]:
        """Returns what the guard inspects and the journal writes of one player's loss."""
        scalars = {f"loss_{player}.{name}": term.detach() for name, term in losses.terms.items()}
        scalars |= losses.forward.measured
        forward = losses.forward
        if player == "D" and forward.real_logits is not None and "adversarial" in losses.terms:
            for side in SIDES:
                logits = forward.logits[side].detach()
                scalars[f"scores.{side}"] = logits.mean()
                # A critic's score is no probability: its sigmoid would say nothing.
                if self._game.objective.classifier:
                    scalars[f"D_{side}"] = logits.sigmoid().mean()
            if self.config.augment.target:
                scalars["r_t"] = overfitting(forward.real_logits)
        return tuple(scalars), torch.stack(list(scalars.values()))

    def _set_rates(self) -> None:
        """Gives both optimisers the rates that their schedules have come to."""
        timetable, cur_nimg = self._game.timetable, self.state.cur_nimg
        if not timetable:
            return
        for name in "GD":
            player = self.state.player(name)
            rates = player.rates(timetable, name, cur_nimg)
            set_rates(player.optimizer, rates.lr, rates.betas)

    def _adapt(self, r_t: Tensor, step_D: int) -> None:
        """Lets the probability of augmentation follow how far D overfits."""
        augment, p, signs = self.config.augment, self.state.augment_p, self.state.augment_signs
        signs.add_(torch.stack([r_t, torch.ones_like(r_t)]))
        if (step_D + 1) % augment.interval == 0:
            # The number stays on the device: it is asked for nothing.
            p.copy_(augment.adapt(p, signs[0] / signs[1], signs[1] * self.config.batch_size))
            signs.zero_()
        self.meters.add(("augment_p",), p[None])

"""One game: the state and the stepper of a training, with changes while it plays and a way back.

What moves the players is `training.engine.stepper.Stepper`; nothing here computes a loss.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from training.data import Batches
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import NonFinite
from training.game.updates import TrainStep, discriminator_alone, generator_alone
from training.lab.clouds import Cloud
from training.lab.parameters import Parameters
from training.lab.snapshots import Content, content_of, num_bytes, put_back, remember

DIGEST_ROUND = 500
"""The round after which the weights' digest is shown: the same link gives the same one."""
MAX_SNAPSHOTS = 200
SNAPSHOT_ROUNDS = 10
"""Rounds from one snapshot to the next."""
MAX_SNAPSHOT_BYTES = 192 << 20
_CPU = torch.device("cpu")
_ALONE: dict[str, Callable[[TrainStep], None] | None] = {
    "both": None,
    "D": discriminator_alone,
    "G": generator_alone,
}
PLAYERS = tuple(_ALONE)
"""Who may take a step: both in the update's order, or one alone."""


@dataclass(frozen=True)
class _Snapshot:
    round: int
    content: Content
    is_of_its_link: bool


class Game:
    """A game between two rounds."""

    def __init__(self, parameters: Parameters) -> None:
        """Makes data and players.

        Raises:
            ConfigError, DataError: the data or the networks can't be made.
        """
        self.parameters = parameters
        self.cloud = Cloud(parameters.data, parameters.points)
        self._begin()

    def _begin(self) -> None:
        config = self.parameters.config
        self.state = State.fresh(config, self.cloud.image_set.shape, _CPU)
        self.round = 0
        self.digest = ""
        self.is_of_its_link = True
        """False once something was changed, or a player moved alone, in the course of the game."""
        self._snapshots: deque[_Snapshot] = deque(maxlen=MAX_SNAPSHOTS)
        self._make_stepper()
        self._keep()

    def _make_stepper(self) -> None:
        config = self.parameters.config
        batches = Batches(
            self.cloud.image_set, batch_size=config.batch_size, seed=config.seed, mirror=False
        )
        self.stepper = Stepper(config, self.state, batches)

    @property
    def failure(self) -> NonFinite | None:
        """What was not finite, which ends the game until it is reset or goes back."""
        return self.stepper.non_finite()

    @property
    def rounds_kept(self) -> list[int]:
        """The rounds that the game can go back to, the oldest first."""
        return [each.round for each in self._snapshots]

    def step(self, who: str = "both") -> None:
        """Plays a round, or one player's part of it. who: entry of PLAYERS."""
        if who != "both":
            self.is_of_its_link = False
        self.stepper.step(_ALONE[who])
        self.round += 1
        if self.round == DIGEST_ROUND:
            self.digest = digest(self.state)
        if self.round % SNAPSHOT_ROUNDS == 0 or who != "both":
            self._keep()

    def reset(self) -> None:
        """Begins anew from the same seed."""
        self._begin()

    def change(self, parameters: Parameters) -> bool:
        """Goes on with other parameters, or begins anew where they are of the first weights.

        Returns:
            True where it began anew.
        """
        if parameters == self.parameters:
            return False
        before, self.parameters = self.parameters, parameters
        if parameters.begins_anew(before):
            if (parameters.data, parameters.points) != (before.data, before.points):
                try:
                    self.cloud = Cloud(parameters.data, parameters.points)
                except Exception:
                    self.parameters = before
                    raise
            self._begin()
            return True
        if not self.round:
            self._begin()  # nothing was played with the old ones
            return True
        self.is_of_its_link = False
        self._go_on()
        return False

    def back_to(self, number: int) -> None:
        """Goes back to the newest snapshot of that round or an earlier one, and forgets later ones.

        number: of a round; before the oldest snapshot, the oldest is taken.
        """
        while len(self._snapshots) > 1 and self._snapshots[-1].round > number:
            self._snapshots.pop()
        snapshot = self._snapshots[-1]
        put_back(self.state, snapshot.content)
        self.round = snapshot.round
        self.is_of_its_link = snapshot.is_of_its_link and self.is_of_its_link
        if self.round < DIGEST_ROUND:
            self.digest = ""
        self._make_stepper()  # with a guard that has seen nothing yet

    def _go_on(self) -> None:
        """Puts the players, as they stand, under the changed configuration."""
        old, config = self.state, self.parameters.config
        state = State.of(config, old.G.network, old.D.network, _CPU)
        state.G_ema.load_state_dict(old.G_ema.state_dict())
        state.cur_nimg = old.cur_nimg
        if state.slow and old.slow:
            torch._foreach_copy_(state.slow, old.slow)
        for player, before in ((state.G, old.G), (state.D, old.D)):
            if player.optim.method == before.optim.method:
                remember(player, before.state_dict(), before.optim.method)
        self.state = state
        self._make_stepper()

    def _keep(self) -> None:
        content = content_of(self.state)
        self._snapshots.append(_Snapshot(self.round, content, self.is_of_its_link))
        while len(self._snapshots) > max(2, MAX_SNAPSHOT_BYTES // num_bytes(content)):
            self._snapshots.popleft()


def digest(state: State) -> str:
    """sha256 over both players' weights, G's first; equal games have equal ones."""
    found = hashlib.sha256()
    for parameter in state.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()

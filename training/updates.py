"""Updates: who moves when in a round of the game.

An update is a function of the board (`training.loop.Stepper`), which deals batches, computes a
player's gradient and moves it. A new one is one more entry. Knows no loss and no optimiser.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from training.play import Batch

Gradients = tuple[Tensor | None, ...]
"""One for each of a player's parameters; None for one that its loss doesn't depend on."""

Place = list[Tensor]


@dataclass
class Part:
    """Some rows of a batch, and G's images for them."""

    batch: Batch
    fake_img: Tensor | None = None
    """Made when somebody first looks, kept only where the whole batch is one part."""


@dataclass(frozen=True)
class Hand:
    """A batch as it is played: whole, or in parts."""

    parts: list[Part]
    for_G: bool = True
    """True where G's images are wanted with their graph."""


class Board(Protocol):
    """What an update can do."""

    def hands_D(self) -> Iterator[Hand]:
        """One for each step of D in the round; the last one's images serve G too."""
        ...

    def hands_G(self, last: Hand) -> Iterator[Hand]:
        """One for each step of G in the round. last: D's last, the first that G plays."""
        ...

    def again(self, hand: Hand) -> Hand:
        """The same batch, with images of G as it is now."""
        ...

    def gradients(self, player: str, hand: Hand) -> Gradients:
        """The player's loss by its own parameters, where both stand now."""
        ...

    def move(self, player: str, gradients: Gradients) -> None:
        """One step of the player's optimiser, and what its constraints ask for."""
        ...

    def place(self) -> Place:
        """A copy of where both players stand."""
        ...

    def go_back(self, place: Place) -> None:
        """Puts both players there; what their optimisers remember stays."""
        ...


@dataclass(frozen=True, kw_only=True)
class Update:
    """An entry of UPDATES."""

    play: Callable[[Board], None]
    """Plays one round."""
    paper: str
    """Where it is from."""


def alternating(board: Board) -> None:
    """D moves, then G against the new D, on the same latents."""
    for hand in board.hands_D():
        board.move("D", board.gradients("D", hand))
    for hand_G in board.hands_G(hand):
        board.move("G", board.gradients("G", hand_G))


def simultaneous(board: Board) -> None:
    """Both move along the field of the point where both stand."""
    (hand,) = board.hands_D()
    both = [(player, board.gradients(player, hand)) for player in "DG"]
    for player, gradients in both:
        board.move(player, gradients)


def extragradient(board: Board) -> None:
    """A step to look, back, and a step along the field that was seen there, on the same batch."""
    (hand,) = board.hands_D()
    start = board.place()
    both = [(player, board.gradients(player, hand)) for player in "DG"]
    for player, gradients in both:
        board.move(player, gradients)
    seen = board.again(hand)
    ahead = [(player, board.gradients(player, seen)) for player in "DG"]
    board.go_back(start)
    for player, gradients in ahead:
        board.move(player, gradients)


UPDATES: dict[str, Update] = {
    "alternating": Update(
        play=alternating, paper="Goodfellow et al. 2014, arXiv:1406.2661, alg. 1"
    ),
    "simultaneous": Update(
        play=simultaneous, paper="Mescheder et al. 2017, arXiv:1705.10461, alg. 1"
    ),
    "extragradient": Update(
        play=extragradient,
        paper="Korpelevich 1976; Gidel et al. 2019, arXiv:1802.10551, alg. 4, with Adam: alg. 2",
    ),
}

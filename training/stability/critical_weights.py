"""The weight of each penalty at which a run's game is damped critically, for a rescue."""

from collections.abc import Iterable

from training.game.forward import Batch
from training.stability.damping import MOST, At, damping
from training.stability.memory import KRYLOV, Held
from training.stability.opening import difference_on, opened
from training.stability.run_game import RunGame

_NUM = 4


def critical_weights(game: RunGame, penalties: Iterable[str]) -> dict[str, float]:
    """Measures the weights on one batch; those of which no higher one is advised are left out.

    Args:
        game: where a checkpoint stands.
        penalties: names of penalties, looked at one by one.

    Raises:
        StabilityError: the game has no Jacobian there, or more memory is needed than there is.
        FloatingPointError: its derivatives overflow.
    """
    size = game.size_up_to(game.config.batch_size)
    batches = opened(game, held(_NUM), batch_size=size, remedy="set a smaller --batch-size")
    difference_on(game, batches)
    present = {term.name: term.weight for term in game.terms}
    found = {}
    for name in penalties:
        weight = present.get(name, 0.0)
        advice = damping(rounds_at(game, batches[0], name), weight, num=_NUM).advice
        if advice is not None and weight < advice <= MOST * max(weight, 1.0):
            found[name] = float(f"{advice:.3g}")
    return found


def rounds_at(game: RunGame, batch: Batch, name: str) -> At:
    """Returns the function from a penalty's weight to a round of the game with it."""
    return lambda weight: game.round(game.field(batch, {name: weight}).at())


def held(num: int) -> Held:
    """What `damping` holds at once. num: eigenvalues of each kind."""
    # The game at two weights; complex vectors of two kinds, right and left.
    return Held(linearizations=2, vectors=KRYLOV + 8 * num)

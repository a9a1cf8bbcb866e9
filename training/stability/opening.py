"""What every command does before it measures: hold a game's batches, and see that memory is enough.

Each says how many linearisations and vectors it holds at once, so that the need is that of the
command.
"""

from training.game.forward import Batch
from training.game.updates import UPDATES
from training.stability.derivative import require_derivative
from training.stability.field import as_analysed
from training.stability.memory import Held, needed_bytes, require_memory
from training.stability.run_game import RunGame


def opened(
    game: RunGame,
    held: Held,
    *,
    num_batches: int = 1,
    batch_size: int | None = None,
    remedy: str = "set a smaller --batch-size",
) -> list[Batch]:
    """Returns batches of a game that there is memory to measure on.

    Args:
        game: where a checkpoint stands.
        held: what the command holds at once.
        num_batches: disjoint ones.
        batch_size: images in each; the training's if None.
        remedy: for the message.

    Raises:
        StabilityError: there is too little memory.
        ConfigError: the data doesn't give such batches.
    """
    batches = list(game.batches(num_batches, batch_size))
    networks = as_analysed(game.state.G.network), as_analysed(game.state.D.network)
    first = batches[0]
    need = needed_bytes(*networks, first.z, first.label, held, game.config.packing)
    require_memory(need, remedy)
    return batches


def difference_on(game: RunGame, batches: list[Batch]) -> float:
    """Compares products with the Jacobian with finite differences on each batch.

    Returns:
        The largest relative difference.

    Raises:
        StabilityError: the game has no Jacobian on one of them; the message says on which.
    """
    game.require_differentiable()
    largest = 0.0
    for index, batch in enumerate(batches, 1):
        where = f" on batch {index} of {len(batches)}" if len(batches) > 1 else ""
        field = game.field(batch)
        names = [term.name for term in game.terms]
        largest = max(largest, require_derivative(field, field.at(), names, where))
    return largest


def state_vectors(game: RunGame) -> float:
    """Length of the vectors that a round's operator maps, in those of all parameters."""
    remembered = [each.num_remembered for each in game.optimizers.values()]
    return 1 + int(UPDATES[game.config.update].looks_ahead) + max(remembered)

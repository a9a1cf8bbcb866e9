"""The weight of each penalty at which a run's game is damped critically, for a rescue."""

from collections.abc import Iterable

from training.stability.analysis import require_derivative
from training.stability.damping import damping
from training.stability.field import Linearization, as_analysed
from training.stability.memory import needed_bytes, require_memory
from training.stability.run_game import RunGame

_NUM = 4
_MOST = 1e3
"""Times the present weight, or 1 where that is less: beyond, the law is no longer a local one."""


def critical_weights(game: RunGame, penalties: Iterable[str]) -> dict[str, float]:
    """Measures the weights on one batch; those of which no higher one is advised are left out.

    Args:
        game: where a checkpoint stands.
        penalties: names of penalties, looked at one by one.

    Raises:
        StabilityError: the game has no Jacobian there, or more memory is needed than there is.
        FloatingPointError: its derivatives overflow.
    """
    game.require_differentiable()
    (batch,) = game.batches(1, game.size_up_to(game.config.batch_size))
    field = game.field(batch)
    networks = as_analysed(game.state.G.network), as_analysed(game.state.D.network)
    need = needed_bytes(*networks, batch.z, batch.label, field.size, game.config.packing)
    require_memory(need)
    require_derivative(field, field.at())
    present = {term.name: term.weight for term in game.terms}
    found = {}
    for name in penalties:

        def at(weight: float, name: str = name) -> Linearization:
            return game.field(batch, {name: weight}).at()

        weight = present.get(name, 0.0)
        advice = damping(at, weight, num=_NUM).advice
        if advice is not None and weight < advice <= _MOST * max(weight, 1.0):
            found[name] = float(f"{advice:.3g}")
    return found

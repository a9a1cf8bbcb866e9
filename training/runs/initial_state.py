"""The state that a training starts from: untrained networks, or the weights of --init-from."""

from models.networks import ImageShape
from training.cli.command import AUTO, Command
from training.data import ImageSet
from training.engine.distributed import World, span
from training.engine.state import State
from training.engine.transfer import check_network, open_source, start_from
from training.errors import require


def initial_state(command: Command, image_set: ImageSet, world: World) -> tuple[State, list[str]]:
    """Makes the state that a training starts from.

    Args:
        command: its configuration and options.
        image_set: on the device of the training.
        world: the processes of the training.

    Returns:
        The state, and messages on the weights that --init-from gave.

    Raises:
        ConfigError: --init-from is given although a run is resumed.
        CheckpointError: --init-from names no run or bundle, or one of another network.
    """
    state = State.fresh(command.config, image_set.shape, image_set.device)
    messages = _load_weights(command, state, image_set.shape)
    for player in (state.G, state.D):
        span(player.network, world)
    return state, messages


def _load_weights(command: Command, state: State, shape: ImageShape) -> list[str]:
    """Loads the weights of --init-from into a fresh state; returns messages on them."""
    options = command.options
    if options.init_from is None:
        return []
    is_new = options.resume in (None, AUTO)  # a run that auto resumes started with them
    remedy = f"resume={options.resume} continues with the run's own weights: leave one out"
    require(is_new, "init_from", str(options.init_from), "only for a new training", remedy)
    source = open_source(options.init_from)
    check_network(source, command.config.network)
    return start_from(source, state, command.config.network, shape)

"""The model of a run as a bundle: its averaged generator, its figures and its history.

The end of a training and `python -m training.runs export` both come here, so that a model says the
same of itself whichever way it came from.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.bundle.manifest import Metric
from training.cli.command import Command
from training.config.training import to_builtins
from training.data import ImageSet
from training.engine.state import State
from training.evaluation import PLANS, evaluate
from training.evaluation.report import table, warnings
from training.evaluation.verdict import Circumstances, verdict
from training.export.exporter import export
from training.export.manifest_options import public_options
from training.interpretation.part import MAX_COST, DirectionsPart, num_directions
from training.runs.quality import stale_since

Say = Callable[[str], None]


def export_model(
    command: Command,
    state: State,
    image_set: ImageSet,
    *,
    destination: Path,
    weights_nimg: int,
    selected: Sequence[str],
    log: Say,
    say: Say,
) -> Bundle:
    """Exports the averaged generator, and measures it as the command's evaluation says.

    Args:
        command: of the run; its name is the model's.
        state: its G_ema is exported.
        image_set: the run's data.
        destination: the bundle's folder, which must not be there.
        weights_nimg: images shown before these weights were saved.
        selected: lines for the manifest on the choice of these weights; none for the last ones.
        log: gets progress messages.
        say: gets lines on the directions that are found.

    Raises:
        ExportError: the graph can't be made, or differs from torch.
    """
    config = command.config
    plan = PLANS[command.options.evaluation]

    def measure(model_path: Path) -> tuple[Metric, ...]:
        if plan is None:
            return ()
        return evaluate(model_path, config.network.z_dim, image_set, plan, say=log)

    asked = command.options.directions
    cost = config.data.width * config.data.height * config.network.z_dim
    num = num_directions(asked, config.total_kimg, cost)
    if asked is None and cost > MAX_COST:
        say(
            "no directions are looked for: that takes long for such images; --directions 16 does it"
        )
    return export(
        G_ema=state.G_ema,
        z_dim=config.network.z_dim,
        image_set=image_set,
        recipe=config.recipe,
        options=public_options(to_builtins(config))
        | _history(command, state, weights_nimg, selected),
        metrics=measure,
        name=command.name,
        destination=destination,
        parts=[DirectionsPart(num=num, image_set=image_set, say=say)],
    )


def _history(
    command: Command, state: State, weights_nimg: int, selected: Sequence[str]
) -> dict[str, Any]:
    """Rescues, options changed on resuming, the choice: for the manifest and the model card."""
    rescues = [
        f"{rescue.failure} at {rescue.cur_nimg}: {rescue}"
        for rescue in command.rescues
        if rescue.to_nimg < weights_nimg  # a later one has changed nothing of these weights
    ]
    found = {"rescues": rescues, "changes": state.changes, "selected": list(selected)}
    return {name: lines for name, lines in found.items() if lines}


def circumstances(command: Command, state: State, image_set: ImageSet) -> Circumstances:
    """What advice on a run's data and figures depends on."""
    return Circumstances(
        num_images=len(image_set),
        augmented=bool(command.config.augment.policy),
        is_stale=stale_since(state.looks) is not None,
    )


def told(bundle: Bundle, command: Command, around: Circumstances) -> list[str]:
    """A bundle's figures and what they mean, as lines; none where nothing was measured."""
    if command.options.evaluation == "none":
        return []
    metrics = bundle.manifest.metrics
    return [*table(metrics).splitlines(), *warnings(metrics), *verdict(metrics, around)]

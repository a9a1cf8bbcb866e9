"""Publishing a run's bundle: its gates, and a word where it is worse than what it replaces."""

from collections.abc import Callable

from models.bundle import Bundle
from models.bundle.manifest import Manifest
from models.errors import ModelError
from models.repository import Repository
from training.cli.command import Command
from training.data import ImageSet
from training.data.sources import DATASETS
from training.errors import GateError, PublishError, require
from training.evaluation import PLANS, resolve
from training.evaluation.evaluator import protocols
from training.evaluation.gates import (
    check_comparable,
    check_gates,
    check_measured,
    current_of,
    figures_against_current,
    worse_than,
)

Say = Callable[[str], None]


def check_publishable(command: Command, image_set: ImageSet) -> None:
    """Checks, before the training, that its gates can be checked after it.

    Raises:
        ConfigError: a gate's figure will not be measured, or can't be compared with CURRENT's; or
            a name that was not given belongs to a model of other images.
        PublishError: CURRENT can't be read.
    """
    _require_own_name(command, image_set)
    plan = PLANS[command.options.evaluation]
    num_classes = image_set.shape.num_classes
    figures = () if plan is None else resolve(plan, image_set, num_classes=num_classes).figures
    check_measured(command.gates, figures, "choose another --evaluation, or leave the gate out")
    compared = figures_against_current(command.gates, figures)
    if plan is None or not compared or not image_set.fingerprint:  # a placeholder has none
        return
    try:
        current = current_of(Repository(command.options.repository), command.name)
    except ModelError as error:
        raise PublishError(str(error)) from error
    if current is not None:
        schedule = resolve(plan, image_set, num_classes=num_classes)
        alike = protocols(schedule, image_set, compared, num_classes=num_classes)
        check_comparable(command.gates, alike, current)


def publish(command: Command, bundle: Bundle, *, say: Say) -> str:
    """Publishes a run's bundle if its gates hold.

    Args:
        command: the run's.
        bundle: the exported model.
        say: gets lines for the user.

    Returns:
        What was published where, in a sentence.

    Raises:
        GateError: a gate failed; nothing is published.
        PublishError: the repository can't take it.
    """
    root, name, gates = command.options.repository, command.name, command.gates
    repository = Repository(root)
    try:
        current = _current(repository, name, must_be_read=bool(gates))
        for passed in check_gates(gates, bundle.manifest.metrics, current):
            say(passed)
        published = repository.publish(name, bundle)
        is_current = repository.current(name).version == published.manifest.version
    except GateError as error:
        raise GateError(f"{error}; not published, the bundle is in {bundle.path}") from None
    except ModelError as error:
        message = f"{error}; not published, the bundle is in {bundle.path}"
        raise PublishError(message) from error
    manifest = published.manifest
    outcome = f"Published {manifest.name} version {manifest.version} in {root}"
    say(outcome)
    worse = None if current is None else worse_than(manifest.metrics, current)
    if worse and current is not None:
        say(_warning(worse, name, current.version, is_current=is_current))
    return outcome


def _current(repository: Repository, name: str, *, must_be_read: bool) -> Manifest | None:
    """The manifest of CURRENT; None where there is none, or none that can be read and need be."""
    try:
        return current_of(repository, name)
    except ModelError:
        if must_be_read:
            raise
        return None


def _warning(worse: str, name: str, before: int, *, is_current: bool) -> str:
    undo = f"`python -m models.repository promote {name} {before}` serves that one again"
    what = f"it is CURRENT now: {undo}" if is_current else "CURRENT is pinned and stays"
    return f"warning: {worse}; {what}; --gate not-worse keeps such a model out of the repository"


def _require_own_name(command: Command, image_set: ImageSet) -> None:
    """Checks that a name that nobody chose belongs to no model of other images.

    Raises:
        ConfigError: the repository has such a model under it.
    """
    if command.options.name is not None or not image_set.fingerprint:  # a placeholder has none
        return
    try:
        current = current_of(Repository(command.options.repository), command.name)
    except ModelError:  # it is published beside what can't be read
        return
    if current is None or _is_of(current, image_set):
        return
    was = current.dataset
    require(
        False,
        "name",
        command.name,
        "a name of its own, as it was not given and "
        f"{command.options.repository} holds it already with a model of other images "
        f"({was.num_images:,} of {was.name}; these are {len(image_set):,} of {image_set.name})",
        f"give --name {command.name} to publish its next version, or another --name",
    )


def _is_of(manifest: Manifest, image_set: ImageSet) -> bool:
    """True where a model was trained on these images, as far as a manifest tells."""
    was, image, shape = manifest.dataset, manifest.image, image_set.shape
    if was.name != image_set.name or not DATASETS[image_set.name].own:
        return was.name == image_set.name
    form = (image.height, image.channels, len(manifest.labels or ()))
    if form != (shape.resolution, shape.channels, shape.num_classes):
        # In another form the pixels can't be compared.
        return was.num_images == len(image_set)
    return (was.content or was.fingerprint) == image_set.content

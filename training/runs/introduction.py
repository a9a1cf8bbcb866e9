"""What a run says before it begins: what is trained on what, and what the data lacks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from training.cli.command import Command
from training.config.rules import notes
from training.data import ImageSet
from training.data.audit import record
from training.data.decoding import Skipped, is_unread, unread_summary
from training.data.file_names import printable
from training.data.hints import hints
from training.data.sources import DATASETS
from training.data.weights import summary
from training.engine.distributed import World
from training.engine.state import State
from training.evaluation.verdict import advice_on_data
from training.runs.ending.model import circumstances

_NUM_SKIPPED_NAMED = 20
_NUM_CLASSES_NAMED = 10
_NUM_AUDITED = 10_000  # images of a mapped set


def introduction(
    command: Command, state: State, image_set: ImageSet, world: World, folder: Path
) -> Iterator[str]:
    """Yields the lines that a run begins with; audits a new run's own images on the way.

    folder: the run's, which gets the audit's record.
    """
    config, is_new = command.config, not state.cur_nimg
    num_G, num_D = (
        sum(parameter.numel() for parameter in seat.parameters) for seat in (state.G, state.D)
    )
    device = str(image_set.device)
    if image_set.place is not None and not image_set.is_mapped:
        device += ", images on the host"
    place = device if world.size == 1 else f"{world.size} processes ({device})"
    yield (
        f"{config.recipe}: {len(image_set)} images {list(image_set.images.shape[1:])} of "
        f"{_data(command, image_set)}, G {num_G:,} and D {num_D:,} parameters, on "
        f"{place}, in {folder} (look at its samples/)"
    )
    yield from image_set.notes
    yield from _left_out(image_set.skipped)
    if image_set.weights is not None:
        yield summary(image_set.weights.cpu().numpy(), image_set.classes)
    if world.leads and is_new and DATASETS[config.data.dataset].own:
        yield from _audit(command, image_set, folder)
    yield from notes(config)
    yield from hints(image_set)
    yield from advice_on_data(circumstances(command, state, image_set))
    if not is_new:
        yield f"resumed at {state.cur_nimg / 1000:.3f} kimg"
    yield from state.changes


def _data(command: Command, image_set: ImageSet) -> str:
    """The data in words: its name, where people's own lies, and its classes."""
    data, names = command.config.data, image_set.label_names or ()
    own = f" in {printable(str(data.root))}" if DATASETS[data.dataset].own else ""
    more = ", ..." if len(names) > _NUM_CLASSES_NAMED else ""
    first = ", ".join(names[:_NUM_CLASSES_NAMED])
    classes = f", {len(names)} classes ({first}{more})" if names else ""
    return f"{image_set.name}{own}{classes}"


def _left_out(skipped: Sequence[Skipped]) -> Iterator[str]:
    """Says how many files are of formats that can't be read, and names some of the others."""
    for line in unread_summary(skipped):
        yield f"warning: {line}"
    named = [file for file in skipped if not is_unread(file)]
    for file in named[:_NUM_SKIPPED_NAMED]:
        yield f"skipped {file}"
    if more := len(named[_NUM_SKIPPED_NAMED:]):
        yield f"skipped {more:,} more"


def _audit(command: Command, image_set: ImageSet, folder: Path) -> Iterator[str]:
    """Records the audit of the images in the run; yields its lines but those said already."""
    data = command.config.data
    # All in memory, or some of a set that may be larger than it.
    audited = image_set.subset(_NUM_AUDITED) if image_set.is_mapped else image_set.to("cpu")
    said = {f"note: {line}" for line in unread_summary(image_set.skipped)}
    for line in record(audited, str(data.root), folder, background=data.background):
        if line not in said:
            yield line

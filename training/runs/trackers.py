"""Trackers: where a run's numbers and pictures are shown while it goes on.

TensorBoard's files are written by default. Weights & Biases and MLflow are entries beside it: a
class with the four methods of `Tracker` and a line in TRACKERS adds another. Where their servers
are, and who you are there, is said by their own environment variables (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME). A tracker that fails costs the training nothing; what
it missed is given to it later.
"""

import importlib.util
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from training.config.training import flatten
from training.errors import ConfigError
from training.runs.disk.records import RecordFile

PROJECT = "saddlepoint"
_MOST_PARAMETERS = 100  # in one message to MLflow
_MOST_CHARACTERS = 500  # of one parameter of MLflow

_MOST_WAITING = 200  # calls that a failing tracker is given later: a picture is some MiB

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """The run that is tracked."""

    folder: Path
    """The run's."""
    options: Mapping[str, Any]
    """The options of the training, nested, as JSON types."""
    cur_nimg: int
    """Images shown when it starts or is resumed."""


class Tracker(Protocol):
    """Gets the numbers and pictures of one run. It may raise anything."""

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        """Gets the numbers of a tick, named like loss_D/r1."""

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Gets a picture, grey or RGB."""

    def rewind(self, cur_nimg: int) -> None:
        """Is told that what came after cur_nimg will come again."""

    def close(self) -> None:
        """Writes what is still in memory; nothing follows."""


Act = Callable[[Tracker], None]


class TensorBoard:
    """Event files in RUN/events."""

    def __init__(self, run: Tracked) -> None:
        """Opens a file; events after run.cur_nimg, of a killed process, are marked as gone."""
        self._folder = run.folder / "events"
        self._start(run.cur_nimg)

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        """Adds a point to each curve."""
        self._events.scalars(values, cur_nimg)

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Adds a picture."""
        self._events.image(name, picture, cur_nimg)

    def rewind(self, cur_nimg: int) -> None:
        """Starts a file that takes back what came after cur_nimg."""
        old = self._events
        self._start(cur_nimg)  # first: where it can't be opened, the old one goes on
        old.close()

    def _start(self, cur_nimg: int) -> None:
        from training.runs.disk.events import Events  # TensorBoard takes a second to import

        self._events = Events(self._folder, purge_step=cur_nimg)
        self.record = self._events.file

    def close(self) -> None:
        """Closes the file."""
        self._events.close()


class WeightsAndBiases:
    """A run of W&B; with WANDB_MODE=offline in RUN/wandb, for `wandb sync`."""

    def __init__(self, run: Tracked) -> None:
        """Starts a run, or goes on with the one of an earlier process."""
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(run.folder),
            name=run.folder.name,
            id=_remembered(run.folder / "wandb.id", lambda: uuid.uuid4().hex[:16]),
            resume="allow",
            config=dict(run.options),
        )
        # Its own steps may only rise; after a rescue ours don't.
        self._run.define_metric("*", step_metric="cur_nimg")

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        """Adds a point to each curve."""
        self._run.log({**values, "cur_nimg": cur_nimg})

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Adds a picture."""
        self._run.log({name: self._wandb.Image(picture), "cur_nimg": cur_nimg})

    def rewind(self, cur_nimg: int) -> None:
        """Needs nothing: the points come again, at the same images shown."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in the store that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Tracked) -> None:
        """Starts a run, or goes on with the one of an earlier process."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if experiment is None else experiment.experiment_id
        file = run.folder / "mlflow.id"
        is_new = not file.exists()
        self._id = _remembered(
            file, lambda: str(client.create_run(number, run_name=run.folder.name).info.run_id)
        )
        if not is_new:
            client.update_run(self._id, status="RUNNING")
            return
        parameters = [
            Param(key, str(value)[:_MOST_CHARACTERS])
            for key, value in flatten(dict(run.options)).items()
        ]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            client.log_batch(self._id, params=parameters[start : start + _MOST_PARAMETERS])

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        """Adds a point to each curve."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(
            self._id, metrics=[Metric(name, value, now, cur_nimg) for name, value in values.items()]
        )

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Adds a picture."""
        self._client.log_image(self._id, picture, key=name, step=cur_nimg)

    def rewind(self, cur_nimg: int) -> None:
        """Needs nothing: the points come again, at the same images shown."""

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


_NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""The package that each imports."""


def check(names: Iterable[str]) -> None:
    """Checks the names of --track.

    Raises:
        ConfigError: there is no such tracker, or the package that it needs is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"track is {name!r}, allowed: {', '.join(TRACKERS)}; set --track, with several "
                "names or none"
            )
        if importlib.util.find_spec(_NEEDS[name]) is None:
            raise ConfigError(
                f"track is {name!r}, which needs the package {_NEEDS[name]}, not installed here; "
                f"install Saddlepoint's extra {name}, or leave it out of --track"
            )


class Trackers:
    """The trackers of one run, none of which can stop it.

    What one doesn't take, as its disk is full or its server is away, waits and is tried again
    before what comes next, so that its order stays.
    """

    def __init__(self, trackers: Mapping[str, Tracker], say: Say) -> None:
        """trackers: by name. say: gets a line where one begins to fail, and at the end."""
        self._trackers = dict(trackers)
        self._waiting: dict[str, deque[Act]] = {name: deque() for name in self._trackers}
        self._lost = dict.fromkeys(self._trackers, 0)
        self._reasons: dict[str, str] = {}
        self._say = say

    @classmethod
    def open(cls, names: Sequence[str], run: Tracked, *, say: Say) -> "Trackers":
        """Opens the trackers of these names.

        Raises:
            ConfigError: a name is unknown, or a tracker can't be started: before the training,
                somebody is there to correct it.
        """
        check(names)
        opened: dict[str, Tracker] = {}
        for name in names:
            try:
                opened[name] = TRACKERS[name](run)
            except Exception as error:  # each has errors of its own, with no common base
                raise ConfigError(
                    f"track is {name!r}, which can't be started: {_first_line(error)}; correct "
                    "that, or leave it out of --track"
                ) from error
        return cls(opened, say)

    def scalars(self, values: Mapping[str, float], cur_nimg: int) -> None:
        """Gives them the numbers of a tick; a dot in a name becomes a slash, which groups them."""
        slashed = {name.replace(".", "/"): value for name, value in values.items()}
        self._each(lambda tracker: tracker.scalars(slashed, cur_nimg))

    def image(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Gives them a picture."""
        self._each(lambda tracker: tracker.image(name, picture, cur_nimg))

    def rewind(self, cur_nimg: int) -> None:
        """Tells them that what came after cur_nimg will come again."""
        self._each(lambda tracker: tracker.rewind(cur_nimg))

    def close(self) -> None:
        """Tries once more what waits, says what each lacks, and closes them."""
        for name, tracker in self._trackers.items():
            self._try(name)
            lacks = self._lost[name] + len(self._waiting[name])
            if lacks:
                self._say(
                    f"warning: {name} lacks {lacks} of this run's ticks and pictures: "
                    f"{self._reasons[name]}; metrics.jsonl and samples/ have them"
                )
            try:
                tracker.close()
            except Exception as error:  # each has errors of its own, with no common base
                self._say(f"warning: {name} was not closed: {_first_line(error)}")

    def records(self) -> list[RecordFile]:
        """The files that a full disk may delay."""
        found = (getattr(tracker, "record", None) for tracker in self._trackers.values())
        return [record for record in found if isinstance(record, RecordFile)]

    def _each(self, act: Act) -> None:
        for name, waiting in self._waiting.items():
            waiting.append(act)
            if not self._try(name) and len(waiting) > _MOST_WAITING:
                waiting.popleft()
                self._lost[name] += 1

    def _try(self, name: str) -> bool:
        """Gives a tracker what waits, in order; returns False where some of it still does."""
        waiting = self._waiting[name]
        while waiting:
            try:
                waiting[0](self._trackers[name])
            except Exception as error:  # each has errors of its own, with no common base
                reason = _first_line(error)
                if name not in self._reasons:
                    self._say(
                        f"warning: {name} fails, the training goes on and tries again: {reason}"
                    )
                self._reasons[name] = reason
                return False
            waiting.popleft()
        if name in self._reasons and not self._lost[name]:
            del self._reasons[name]
        return True


def _remembered(file: Path, make: Callable[[], str]) -> str:
    """The content of a file, which is made where it isn't there."""
    if not file.exists():
        file.write_text(make() + "\n", encoding="ascii")
    return file.read_text(encoding="ascii").strip()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""The steps of a run, from a command to a published bundle: train, export, evaluate, publish.

RUNS/00000-RECIPE/
  config.json  metrics.jsonl  log.txt  events/    the options and the metrics
  watchdog.json                                   alarms and rescues, if there were any
  samples/                                        a grid per tick, and one of the exported model
  report.html                                     how it went: `training.report`
  checkpoints/  bundle/                           to resume from; to serve
  ended.txt                                       how the run ended; missing while it can be resumed
"""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TextIO

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from training.cli.command import AUTO, Command
from training.config.training import to_builtins
from training.data import ImageSet, load
from training.data.image_set import placeholder
from training.data.images_record import IMAGES, as_recorded, images_record
from training.data.sources import DATASETS
from training.engine.checkpoint import Checkpoints, check
from training.engine.distributed import World
from training.engine.state import State
from training.errors import (
    ExportError,
    PublishError,
    RecordsError,
    TrainingError,
    UnsavedError,
    require,
)
from training.evaluation.looks import FIGURES, HEADLINE, OF_POINTS, Looker
from training.evaluation.metrics.modes import MIXTURES
from training.evaluation.plan import is_mixture
from training.export.onnx_graphs import UInt8Generator
from training.export.torch_generator import TorchGenerator
from training.runs import trackers
from training.runs.disk.room import is_full, with_room
from training.runs.ending.film import FILM, film
from training.runs.ending.model import circumstances, export_model, told
from training.runs.ending.publication import check_publishable, publish
from training.runs.ending.selection import select_weights
from training.runs.folders import (
    as_rescued,
    changed_places,
    check_writable,
    mark_ended,
    open_run,
)
from training.runs.initial_state import initial_state
from training.runs.interruption import InterruptedRun, Interruption
from training.runs.introduction import introduction
from training.runs.journal import Journal, NullJournal
from training.runs.keeping import BEST, LAST, Keeping
from training.runs.neighbours import NAME as NEIGHBOURS
from training.runs.neighbours import neighbours
from training.runs.prometheus.metrics import RunMetrics
from training.runs.quality import Looks
from training.runs.samples import SampleGrid
from training.runs.trainer import Trainer, write_config
from training.stability.soundings import Soundings
from training.stdout import Stream

Report = Callable[[Path, Callable[[str], None]], None]
"""(the run's folder, where to say something)."""


def nothing_reported(folder: Path, say: Callable[[str], None]) -> None:
    """Writes no report."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A run whose data and state are loaded."""

    command: Command
    folder: Path
    """The run's folder."""
    image_set: ImageSet
    state: State
    journal: Journal | NullJournal
    interruption: Interruption
    world: World
    lock: TextIO | None
    """Locks the run until it is closed; None in a process that doesn't lead."""
    report: Report = nothing_reported
    """Writes a page on the run when it has ended, well or not. It may not raise."""

    @classmethod
    def open(
        cls,
        command: Command,
        interruption: Interruption,
        stream: Stream,
        world: World | None = None,
        report: Report = nothing_reported,
        metrics: RunMetrics | None = None,
    ) -> "Pipeline":
        """Checks everything, loads the data, makes or restores the state, and opens a run folder.

        The folder comes last, so that a command that is refused leaves none behind.

        Args:
            command: what to train.
            interruption: handles the signals that end a run.
            stream: for progress and messages.
            world: the processes of this training; a single one by default.
            report: is given the run's folder when it has ended, and where to say so.
            metrics: what Prometheus reads of the run; None where nobody does.

        Raises:
            TrainingError: an option, the data, the network or the checkpoint can't be used.
        """
        _check_options(command)
        command = as_rescued(command)
        config = command.config
        world = world or World()
        every, allowed = command.options.stability_kimg, "0 with several processes"
        require(world.size == 1 or not every, "stability_kimg", every, allowed, "leave it out")
        world.check(config)
        check_writable("runs", command.options.runs)
        check_writable("repository", command.options.repository)
        device = command.device(world)
        config.compute.set_up(device)
        config.check_shape(config.data.shape)  # before images are decoded, for minutes perhaps
        image_set = load(config.data).to(device)
        config.check_shape(image_set.shape)
        check_publishable(command, image_set)
        state, transferred = initial_state(command, image_set, world)
        interruption.check()
        journal: Journal | NullJournal = NullJournal()
        # As a whole or not at all: half a folder could be neither resumed nor explained.
        with interruption.deferred():
            try:
                folder, lock, image_set = open_run(command, state, image_set, stream, world)
                if world.leads:
                    transferred += changed_places(command, folder)
                    write_config(folder, command)
                    journal = Journal(
                        folder,
                        stream,
                        cur_nimg=state.cur_nimg,
                        total_nimg=config.total_nimg,
                        trackers=command.options.track,
                        options=to_builtins(config),
                        metrics=metrics,
                    )
                    named = {"recipe": config.recipe, "model": command.name}
                    journal.metrics.begin(run=folder.name, **named)
                    if DATASETS[config.data.dataset].own and not image_set.is_mapped:
                        journal.files.write(folder / IMAGES, images_record(image_set))
            except OSError as error:
                runs = command.options.resume or command.options.runs
                raise UnsavedError(
                    f"the run can't be written to {runs}: {error}; make room, or name another "
                    "folder with --runs"
                ) from error
        for line in transferred:
            journal.say(line)
        return cls(
            command=command,
            folder=folder,
            image_set=image_set,
            state=state,
            journal=journal,
            interruption=interruption,
            world=world,
            lock=lock,
            report=report,
        )

    @staticmethod
    def dry_run(command: Command) -> None:
        """Makes the checks of `open` without making a folder or downloading data.

        Data that would have to be downloaded is replaced by a placeholder of the same shape.

        Raises:
            TrainingError: `open` would raise it.
        """
        _check_options(command)
        config, options, world = command.config, command.options, World()
        world.check(config)
        check_writable("runs", options.runs)
        check_writable("repository", options.repository)
        command.device(world)
        config.check_shape(config.data.shape)
        is_here = not DATASETS[config.data.dataset].downloads
        image_set = load(config.data) if is_here else placeholder(config.data)
        config.check_shape(image_set.shape)
        check_publishable(command, image_set)
        initial_state(command, image_set, world)
        if options.resume not in (None, AUTO):
            if is_here:
                image_set = as_recorded(image_set, options.resume)
            checkpoint = Checkpoints(options.resume / "checkpoints").latest()
            check(checkpoint, config, image_set.fingerprint if is_here else None)

    def run(self) -> None:
        """Trains, exports, evaluates and publishes.

        Raises:
            TrainingError: a step failed; the run is marked as ended, except where publishing
                failed, which may work later.
            InterruptedRun: a signal came; the state is saved.
        """
        try:
            self.interruption.check()
            lines = introduction(self.command, self.state, self.image_set, self.world, self.folder)
            for line in lines:
                self.journal.say(line)
            trainer = self._trainer()
            trainer.run()
            if self.world.leads:
                replace(self, command=trainer.command, state=trainer.state)._finish(trainer)
                self._report()
        except InterruptedRun:
            self._end_interrupted()
        except Exception as error:
            # Code that a signal met may turn its exception into another one.
            is_told = isinstance(error, (RecordsError, UnsavedError))
            if self.interruption.signal is not None and not is_told:
                self._end_interrupted()
            if isinstance(error, TrainingError):
                self._end_failed(error)
            raise
        finally:
            self.journal.close()
            if self.lock is not None:
                self.lock.close()

    def _end_interrupted(self) -> NoReturn:
        has_begun = bool(Checkpoints(self.folder / "checkpoints").paths())
        folder = shlex.quote(str(self.folder))
        remedy = f"continue with --resume {folder}" if has_begun else "nothing was trained yet"
        self.journal.say(f"Interrupted; {remedy}")
        raise InterruptedRun

    def _end_failed(self, error: TrainingError) -> None:
        self.journal.log(f"error: {error}")
        can_be_repeated = isinstance(error, (PublishError, RecordsError, UnsavedError))
        if self.world.leads and not can_be_repeated:
            mark_ended(self.folder, f"error: {error}")
            self._report()

    def _report(self) -> None:
        # The run has ended: a signal now would only change what it ended with.
        with self.interruption.deferred():
            self.report(self.folder, self.journal.say)

    @property
    def _samples(self) -> SampleGrid:
        return SampleGrid(
            folder=self.folder / "samples",
            z_dim=self.command.config.network.z_dim,
            shape=self.image_set.shape,
            mixture=MIXTURES.get(self.image_set.name),
            files=self.journal.files,
        )

    def _trainer(self) -> Trainer:
        return Trainer(
            command=self.command,
            folder=self.folder,
            image_set=self.image_set,
            state=self.state,
            fresh=lambda command: initial_state(command, self.image_set, self.world)[0],
            samples=self._samples,
            journal=self.journal,
            interruption=self.interruption,
            world=self.world,
            keeping=self._keeping,
            soundings=self._soundings() if self.world.leads else None,
            looks=self._looks() if self.world.leads else None,
        )

    @property
    def _keeping(self) -> Keeping:
        options = self.command.options
        headline = OF_POINTS[0] if is_mixture(self.image_set) else HEADLINE
        return Keeping.parse(options.keep, options.select, headline)

    def _soundings(self) -> Soundings | None:
        every = self.command.options.stability_kimg
        if not every:
            return None
        return Soundings(
            image_set=self.image_set,
            every_nimg=max(1, round(every * 1000)),
            folder=self.folder,
            say=self.journal.say,
        )

    def _looks(self) -> Looks | None:
        """The looks at the images; None where there are to be none, or too few images for any."""
        options = self.command.options
        if options.evaluate_kimg == 0:
            return None
        every = options.evaluate_kimg
        samples = self._samples
        return Looks(
            looker=Looker(self.image_set),
            sampler=lambda state: samples.sampler(TorchGenerator(UInt8Generator(state.G_ema))),
            total_nimg=self.command.config.total_nimg,
            evaluate_nimg=None if every is None else max(1, round(every * 1000)),
            wants_last=every is not None or options.select != LAST,
            say=self.journal.say,
        )

    def _finish(self, trainer: Trainer) -> None:
        """Exports, measures and publishes; says at the end what could not be written.

        Raises:
            RecordsError: the model is published, and a file of the run is missing.
            UnsavedError: the disk is too full for the model.
        """
        try:
            self._film()
            weights_nimg, selected = select_weights(
                self.command,
                self.state,
                self.folder,
                trainer.checkpoints,
                self._keeping.figure,
                {} if trainer.looks is None else trainer.looks.looker.floor,
                say=self.journal.say,
            )
            bundle = with_room(
                lambda: self._export(weights_nimg, selected),
                "the bundle",
                self.interruption,
                self.journal.say,
            )
            self.interruption.check()
            # Once: a signal between the two steps would have it published again on resuming.
            with self.interruption.deferred():
                outcome = with_room(
                    lambda: publish(self.command, bundle, say=self.journal.say),
                    "the published model",
                    self.interruption,
                    self.journal.say,
                )
                mark_ended(self.folder, outcome)
        except (ExportError, OSError) as error:
            if not is_full(error):
                raise
            folder = shlex.quote(str(self.folder))
            message = f"the model was not exported: {error}; make room, then --resume {folder}"
            raise UnsavedError(message) from error
        missing = self.journal.unwritten()
        if trainer.unsaved is not None:
            missing.append(f"the last checkpoint: {trainer.unsaved}")
        if missing:
            raise RecordsError(
                f"the model is published, but files of {self.folder} are missing: "
                f"{'; '.join(missing)}; make room before the next training"
            )

    def _export(self, weights_nimg: int, selected: list[str]) -> Bundle:
        """Exports G_ema, which has the weights of weights_nimg images shown."""
        command, destination = self.command, self.folder / "bundle"
        shutil.rmtree(destination, ignore_errors=True)  # a run resumed after its end has one
        bundle = export_model(
            command,
            self.state,
            self.image_set,
            destination=destination,
            weights_nimg=weights_nimg,
            selected=selected,
            log=self.journal.log,
            say=self.journal.say,
        )
        generate = CpuGenerator(bundle.model_path)
        self._samples.save("samples.png", generate)
        picture = neighbours(self._samples.sampler(generate), self.image_set)
        if picture is not None:
            self._samples.keep(NEIGHBOURS, picture)
        parity = bundle.manifest.parity
        self.journal.say(
            f"Exported: differs from torch by at most {parity.max_abs_diff}/255 "
            f"on {parity.num_seeds} seeds"
        )
        for line in told(bundle, command, circumstances(command, self.state, self.image_set)):
            self.journal.say(line)
        return bundle

    def _film(self) -> None:
        """Writes the grids as a film; on a full disk later, as all files of the run."""
        self.journal.unwritten()  # grids that waited for room are in it
        path = self.folder / "samples" / FILM
        try:
            content = film(path.parent)
        except OSError as error:
            self.journal.say(f"warning: no film of the training: {error}")
            return
        if content is not None:
            self.journal.files.write(path, content)
            if path not in self.journal.files.errors:
                self.journal.say(f"The training as a film: {path}")


def _check_options(command: Command) -> None:
    """Raises ConfigError for an option of this run that can't be met."""
    options = command.options
    Keeping.parse(options.keep, options.select)
    looks = options.evaluate_kimg != 0
    allowed, remedy = "last where evaluate_kimg is 0", "nobody looks at the images: leave it out"
    require(looks or options.select == LAST, "select", options.select, allowed, remedy)
    trackers.check(options.track)
    data, asked = command.config.data.dataset, options.directions or 0
    figures = OF_POINTS if DATASETS[data].points else FIGURES
    known, remedy = (LAST, BEST, *figures), f"looks at {data} have no such figure: choose one"
    require(options.select in known, "select", options.select, ", ".join(known), remedy)
    fits = not asked or not DATASETS[data].points
    require(fits, "directions", asked, f"0 with {data}", "points show nothing: leave it out")

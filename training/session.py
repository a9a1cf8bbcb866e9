"""One run, from a command to a published bundle: fit, export, evaluate, publish.

RUNS/00000-RECIPE/
  config.json  metrics.jsonl  log.txt  events/    the options and the figures
  watchdog.json                                   alarms and rescues, once there is one
  samples/                                        a grid per tick, and the exported model's
  checkpoints/  bundle/                           to resume from; to serve
  ended.txt                                       how it ended, where there is nothing more to do
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from models.bundle import Bundle
from models.errors import ModelError
from models.generator import CpuGenerator
from models.manifest import Metric
from models.repository import Repository
from training.audit import record
from training.checkpoint import Checkpoints, check
from training.command import AUTO, Command, Options
from training.config import to_builtins
from training.contradictions import notes
from training.course import Course, write_config
from training.data import ImageSet, load
from training.data.image_set import stand_in
from training.data.weights import summary
from training.datasets import DATASETS
from training.distributed import World, span
from training.errors import GateError, PublishError, TrainingError, require
from training.evaluation import PLANS, evaluate, resolve
from training.evaluation.judge import protocols
from training.evaluation.report import table, warnings
from training.export import export
from training.gate import (
    check_comparable,
    check_measured,
    current_of,
    figures_against_current,
    judge,
)
from training.interruption import InterruptedRun, Interruption
from training.journal import Journal, Silence
from training.names import printable
from training.runs import as_rescued, check_writable, mark_ended, open_run
from training.samples import save_grid
from training.state import State
from training.transfer import open_source, start_from

_NUM_TOLD = 20  # of the files that could not be used


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run under way."""

    command: Command
    folder: Path
    image_set: ImageSet
    state: State
    journal: Journal | Silence
    interruption: Interruption
    world: World
    lock: TextIO | None
    """Holds the run for the leading process."""

    @classmethod
    def open(
        cls,
        command: Command,
        interruption: Interruption,
        stream: TextIO,
        world: World | None = None,
    ) -> "Session":
        """Loads the data, makes or restores the state, and only then a run folder.

        Raises:
            TrainingError: the data, the network or the checkpoint can't be used.
        """
        command = as_rescued(command)
        config = command.config
        world = world or World()
        world.check(config)
        check_writable("runs", command.options.runs)
        check_writable("repository", command.options.repository)
        device = command.device(world)
        config.compute.set_up(device)
        image_set = load(config.data).to(device)
        config.check_shape(image_set.shape)
        _check_gates(command, image_set)
        state, taken = _fresh(command, image_set, world)
        folder, lock = open_run(command, state, image_set.fingerprint, stream, world)
        journal: Journal | Silence = Silence()
        if world.leads:
            write_config(folder, command)
            journal = Journal(folder, stream, cur_nimg=state.cur_nimg, total_nimg=config.total_nimg)
        for line in taken:
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
        )

    @staticmethod
    def rehearse(command: Command) -> None:
        """Checks all that `open` checks, and begins nothing: no folder, no download.

        Raises:
            TrainingError: as `open`; data that would be downloaded isn't looked at.
        """
        config, options, world = command.config, command.options, World()
        world.check(config)
        check_writable("runs", options.runs)
        check_writable("repository", options.repository)
        command.device(world)
        is_here = not DATASETS[config.data.dataset].downloads
        image_set = load(config.data) if is_here else stand_in(config.data)
        config.check_shape(image_set.shape)
        _check_gates(command, image_set)
        _fresh(command, image_set, world)
        if options.resume not in (None, AUTO):
            checkpoint = Checkpoints(options.resume / "checkpoints").latest()
            check(checkpoint, config, image_set.fingerprint if is_here else None)

    def run(self) -> None:
        """Everything, to the published bundle.

        Raises:
            TrainingError: it can't go on.
            InterruptedRun: a signal came; what was done is saved.
        """
        try:
            self._introduce()
            course = self._course()
            course.run()
            if self.world.leads:
                replace(self, command=course.command, state=course.state)._finish()
        except InterruptedRun:
            self.journal.say(f"Interrupted; continue with --resume {self.folder}")
            raise
        except TrainingError as error:
            self.journal.log(f"error: {error}")
            if self.world.leads and not isinstance(error, PublishError):  # that may pass
                mark_ended(self.folder, f"error: {error}")
            raise
        finally:
            self.journal.close()
            if self.lock is not None:
                self.lock.close()

    def _course(self) -> Course:
        return Course(
            command=self.command,
            folder=self.folder,
            image_set=self.image_set,
            state=self.state,
            fresh=lambda command: _fresh(command, self.image_set, self.world)[0],
            journal=self.journal,
            interruption=self.interruption,
            world=self.world,
        )

    def _finish(self) -> None:
        bundle = self._export()
        self._publish(bundle)

    def _introduce(self) -> None:
        config, image_set = self.command.config, self.image_set
        num_G, num_D = (
            sum(parameter.numel() for parameter in seat.parameters)
            for seat in (self.state.G, self.state.D)
        )
        self.journal.say(
            f"{config.recipe}: {len(image_set)} images {list(image_set.images.shape[1:])} of "
            f"{image_set.name}, G {num_G:,} and D {num_D:,} parameters, on "
            f"{self._place()}, in {self.folder}"
        )
        for skipped in image_set.skipped[:_NUM_TOLD]:
            self.journal.say(f"skipped {skipped}")
        if more := len(image_set.skipped[_NUM_TOLD:]):
            self.journal.say(f"skipped {more:,} more")
        if image_set.weights is not None:
            self.journal.say(summary(image_set.weights.cpu().numpy(), image_set.classes))
        if self.world.leads and not self.state.cur_nimg and DATASETS[config.data.dataset].own:
            line = record(image_set.to("cpu"), str(config.data.root), self.folder)
            self.journal.say(line)
        for line in notes(config):
            self.journal.say(line)
        if self.state.cur_nimg:
            self.journal.say(f"resumed at {self.state.cur_nimg / 1000:.3f} kimg")
        for line in self.state.changes:
            self.journal.say(line)

    def _place(self) -> str:
        device = str(self.image_set.images.device)
        return device if self.world.size == 1 else f"{self.world.size} processes ({device})"

    def _export(self) -> Bundle:
        config = self.command.config
        destination = self.folder / "bundle"
        shutil.rmtree(destination, ignore_errors=True)  # of a run resumed after its end
        bundle = export(
            G_ema=self.state.G_ema,
            z_dim=config.network.z_dim,
            image_set=self.image_set,
            recipe=config.recipe,
            options=_public(to_builtins(config)) | self._history(),
            metrics=self._measure,
            name=self.command.name,
            destination=destination,
        )
        self._save_grid("samples.png", CpuGenerator(bundle.model_path))
        manifest = bundle.manifest
        self.journal.say(
            f"Exported: differs from torch by at most {manifest.parity.max_abs_diff}/255 "
            f"on {manifest.parity.num_seeds} seeds"
        )
        if self.command.options.evaluation != "none":
            for line in [*table(manifest.metrics).splitlines(), *warnings(manifest.metrics)]:
                self.journal.say(line)
        return bundle

    def _history(self) -> dict[str, Any]:
        """What a reader of the model card should know: these options weren't those of the start."""
        told = [
            f"{rescue.failure} at {rescue.cur_nimg}: {rescue}" for rescue in self.command.rescues
        ]
        both = {"rescues": told, "changes": self.state.changes}
        return {name: lines for name, lines in both.items() if lines}

    def _measure(self, model_path: Path) -> tuple[Metric, ...]:
        plan = PLANS[self.command.options.evaluation]
        if plan is None:
            return ()
        z_dim = self.command.config.network.z_dim
        return evaluate(model_path, z_dim, self.image_set, plan, say=self.journal.log)

    def _publish(self, bundle: Bundle) -> None:
        root, name, gates = self.command.options.repository, self.command.name, self.command.gates
        repository = Repository(root)
        try:
            current = current_of(repository, name) if gates else None
            for passed in judge(gates, bundle.manifest.metrics, current):
                self.journal.say(passed)
            published = repository.publish(name, bundle)
        except GateError as error:
            raise GateError(f"{error}; not published, the bundle stands in {bundle.path}") from None
        except ModelError as error:
            message = f"{error}; the bundle stands in {bundle.path}"
            raise PublishError(message) from error
        manifest = published.manifest
        outcome = f"Published {manifest.name} version {manifest.version} in {root}"
        mark_ended(self.folder, outcome)
        self.journal.say(outcome)

    def _save_grid(self, name: str, generate: CpuGenerator) -> None:
        save_grid(
            self.folder / "samples" / name,
            generate,
            z_dim=self.command.config.network.z_dim,
            num_classes=self.image_set.shape.num_classes,
        )


def _check_gates(command: Command, image_set: ImageSet) -> None:
    """Raises ConfigError where a gate could not be judged after the training."""
    plan = PLANS[command.options.evaluation]
    num_classes = image_set.shape.num_classes
    figures = () if plan is None else resolve(plan, image_set, num_classes=num_classes).figures
    check_measured(command.gates, figures, "choose another --evaluation, or leave the gate out")
    compared = figures_against_current(command.gates, figures)
    if plan is None or not compared or not image_set.fingerprint:  # a stand-in's data is unknown
        return
    try:
        current = current_of(Repository(command.options.repository), command.name)
    except ModelError as error:
        raise PublishError(str(error)) from error
    if current is not None:
        schedule = resolve(plan, image_set, num_classes=num_classes)
        alike = protocols(schedule, image_set, compared, num_classes=num_classes)
        check_comparable(command.gates, alike, current)


def _fresh(command: Command, image_set: ImageSet, world: World) -> tuple[State, list[str]]:
    """The state that a training starts from, and what was taken from --init-from."""
    state = State.fresh(command.config, image_set.shape, image_set.images.device)
    taken = _start(command.options, state)
    span(state.G.network, world)
    span(state.D.network, world)
    return state, taken


def _start(options: Options, state: State) -> list[str]:
    """Puts the weights of --init-from into a fresh state, and says what it took."""
    if options.init_from is None:
        return []
    is_new = options.resume in (None, AUTO)  # what auto goes on with began with them
    remedy = f"resume={options.resume} goes on with its own weights: leave one out"
    require(is_new, "init_from", str(options.init_from), "only for a new training", remedy)
    return start_from(open_source(options.init_from), state)


def _public(options: dict[str, Any]) -> dict[str, Any]:
    """The options as a bundle tells them: of a place on this machine, only its name."""
    data = dict(options["data"])
    if words := data.get("weights"):
        data["weights"] = [word if "=" in word else Path(word).name for word in words]
    if data.get("path") is not None:
        data["path"] = printable(Path(data["path"]).name)
    return {**options, "data": data}

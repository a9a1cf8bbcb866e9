"""Trains a run to its end: fits, saves at every tick, watches for failures and rescues.

A rescue loads the last checkpoint from before the failure began, changes one option and trains on.
It counts from the moment that config.json is replaced, which happens as a whole or not at all. A
training that is killed before that moment and resumed meets the same failure and takes the same
rescue. One that is killed after it resumes from the same checkpoint with the changed option.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from models.bundle import sync_folder, write_synced
from training.cli.command import CONFIG, Command
from training.data import Batches, ImageSet
from training.engine.checkpoint import Checkpoints, cur_nimg_of, read, restore
from training.engine.distributed import World
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import NonFiniteError, TrainingError, UnsavedError, WatchdogError
from training.export.onnx_graphs import UInt8Generator
from training.export.torch_generator import TorchGenerator
from training.finite_json import as_json
from training.runs.disk.room import with_room
from training.runs.folders import WATCHDOG
from training.runs.interruption import InterruptedRun, Interruption
from training.runs.journal import Journal, NullJournal, duration
from training.runs.keeping import Keeping
from training.runs.quality import Looks
from training.runs.samples import SampleGrid
from training.stability.critical_weights import critical_weights
from training.stability.run_game import RunGame
from training.stability.soundings import Soundings
from training.watchdog.alarms import AlarmCounter
from training.watchdog.detectors import DETECTORS, Alarm
from training.watchdog.remedies import gradient_penalties
from training.watchdog.watchdog import (
    Rescue,
    Watchdog,
    alarm_of,
    journal_figures,
    remedy_for,
    report,
)

T = TypeVar("T")
PREVIEW = "preview.png"
_LONG_S = 3600.0  # a training that takes longer says so, before somebody waits for it
_PREVIEW_S = 8.0  # from the start; a first tick that comes earlier has a grid of its own


@dataclass(kw_only=True)
class Trainer:
    """A training in progress. A rescue replaces its command and its state."""

    command: Command
    folder: Path
    """The run's folder."""
    image_set: ImageSet
    state: State
    fresh: Callable[[Command], State]
    """Makes the untrained state for a command."""
    samples: SampleGrid
    journal: Journal | NullJournal
    interruption: Interruption
    world: World
    keeping: Keeping
    """Which checkpoints are kept beside the newest."""
    soundings: Soundings | None = None
    """Measures the game's stability; None where it isn't measured, as in other processes."""
    looks: Looks | None = None
    """Looks at the images; None where there are none, or in a process that doesn't lead."""
    seen: list[Alarm] = field(default_factory=list)
    """Alarms that this process saw, in order."""
    unsaved: OSError | None = field(init=False, default=None)
    """Why the last checkpoint was not written; None where it was."""

    def __post_init__(self) -> None:
        """Opens the folder of checkpoints."""
        config = self.command.config
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self._counter = AlarmCounter(total_nimg=config.total_nimg, ignore=config.watchdog.ignore)
        self._start_s = time.monotonic()
        self._has_grid = any(self.samples.folder.glob("samples-*.png"))

    def run(self) -> None:
        """Trains up to total_kimg.

        Raises:
            NonFiniteError: a loss or gradient was not finite, and no rescue follows.
            WatchdogError: another failure showed, and no rescue follows.
            InterruptedRun: a signal came; the state is saved.
            UnsavedError: a signal came, and the state can't be saved.
        """
        start, start_nimg = time.monotonic(), self.state.cur_nimg
        with self.interruption.deferred():
            acts = self.command.config.watchdog.action in ("stop", "rescue")
            if acts and self.world.leads and not self.state.cur_nimg:
                self._save()  # a failure at the very first tick goes back to the untrained state
            while True:
                try:
                    self.journal.metrics.running(True)
                    ended = self._fit()
                except _Failure as failure:
                    self._rescue(failure.alarm, failure)
                except NonFiniteError as error:
                    self._rescue(alarm_of(error.non_finite, self.state), error)
                else:
                    break
            self.journal.metrics.running(False)
            if self.world.leads:
                self._save_last(ended)
        if not ended or self.interruption.signal is not None:
            raise InterruptedRun
        taken_s = time.monotonic() - start
        shown = (self.state.cur_nimg - start_nimg) / 1000
        self.journal.say(f"Trained {shown:.1f} kimg in {duration(taken_s)} ({taken_s:.1f} s)")
        self._say_costs(taken_s)

    def _say_costs(self, taken_s: float) -> None:
        """How much of the time went into looks at the images and into its stability."""
        if self.looks is not None and self.looks.spent_s:
            spent_s, num = self.looks.spent_s, len(self.state.looks)
            what = f"{num} look{'' if num == 1 else 's'} at the images took"
            if not num:
                what = "no look at the images fitted in (see --evaluate-kimg); preparing took"
            self.journal.say(f"{what} {spent_s:.1f} s, {spent_s / taken_s:.1%} of it")
        if self.soundings is not None and self.soundings.spent_s:
            self.journal.say(f"Its stability took {self.soundings.spent_s / taken_s:.1%} of it")

    def _fit(self) -> bool:
        """Trains on with the current command and state. False if a signal stopped it."""
        config = self.command.config
        batches = Batches(
            self.image_set,
            batch_size=config.batch_size,
            seed=config.seed,
            mirror=config.data.mirror,
        )
        stepper = Stepper(config, self.state, batches, self.world)
        watchdog = Watchdog(config, self.image_set, self.state) if config.watchdog.is_on else None

        def tick(number: int, state: State, means: dict[str, float]) -> None:
            if watchdog is not None:
                means = means | journal_figures(watchdog.read(state, means, stepper.meters))
            self._tick(number, means, watchdog)

        hooks = Hooks(
            should_stop=lambda: self.interruption.signal is not None,
            should_report=self.journal.refresh_is_due,
            report=self._report,
            tick=tick,
            last_good=self._last_good,
        )
        return fit(stepper, hooks)

    def _report(self, cur_nimg: int, means: dict[str, float]) -> None:
        """Shows progress; before the first grid of all, a preview of the images as well."""
        self.journal.refresh(cur_nimg, means)
        waited_s = time.monotonic() - self._start_s
        if self.world.leads and not self._has_grid and waited_s >= _PREVIEW_S:
            self._has_grid = True
            self.samples.save(PREVIEW, self._generate())
            path = self.samples.folder / PREVIEW
            self.journal.say(f"first preview of the images, hardly trained yet: {path}")
            if (left_s := self.journal.time_left_s(cur_nimg)) > _LONG_S:
                self.journal.say(
                    f"this takes {duration(left_s)} at this speed; Ctrl-C saves at any time and "
                    "--resume goes on; a smaller --total-kimg or --data.resolution is shorter"
                )

    def _tick(self, number: int, means: dict[str, float], watchdog: Watchdog | None) -> None:
        if self.looks is not None:
            means = means | self.looks.at_tick(self.state)
        if self.soundings is not None:
            means = means | self.soundings.at_tick(self.command.config, self.state)
        if self.world.leads:
            self.journal.tick(number, self.state.cur_nimg, means)
        if watchdog is not None:
            # First, so that a tick whose alarm ends the fit saves no checkpoint.
            self._handle(watchdog.alarms(self.state))
        if self.world.leads:
            self._save(number)

    def _handle(self, alarms: list[Alarm]) -> None:
        """Reports new alarms, and ends the fit where the watchdog stops or rescues."""
        for alarm in alarms:
            if alarm.is_new:
                self.seen.append(alarm)
                self.journal.metrics.alarm(alarm.failure)
                self.journal.say(f"watchdog: {alarm}. To do: {DETECTORS[alarm.failure].advice}")
        if any(alarm.is_new for alarm in alarms):
            self._write_report()
        acts = self.command.config.watchdog.action in ("stop", "rescue")
        # Every process takes part in the vote, with alarms or without, or the others would hang.
        if acts and self.world.any(bool(alarms)):
            raise _Failure(alarms[0]) if alarms else WatchdogError("another process saw a failure")

    def _rescue(self, alarm: Alarm, error: Exception) -> None:
        """Goes back to a good checkpoint and changes one option, or ends the training.

        Raises:
            NonFiniteError, WatchdogError: no rescue is allowed, or none is left to try.
        """
        config, rescues = self.command.config, self.command.rescues
        remedy, path = None, self._good_checkpoint(alarm)
        if config.watchdog.action == "rescue":
            measured = config.watchdog.advice == "measured"
            measure = (lambda: self._damping_weights(path)) if measured else None
            back_nimg = cur_nimg_of(path) if path is not None else 0
            remedy = remedy_for(alarm, config, rescues, measure, cur_nimg=back_nimg)
        if remedy is None:
            if isinstance(error, NonFiniteError):
                raise error
            raise WatchdogError(self._verdict(alarm)) from None
        if isinstance(error, NonFiniteError):
            self.seen.append(alarm)
            self.journal.metrics.alarm(alarm.failure)
            self.journal.say(f"watchdog: {error}")
        original = self.command.original or config
        command = replace(self.command, config=remedy.config, original=original)
        state, fingerprint = self.fresh(command), self.image_set.fingerprint
        if path is None:  # no checkpoint is from before the failure: start again
            path = self._with_room(
                lambda: self.checkpoints.save(state, remedy.config, fingerprint, state.cur_nimg + 1)
            )
        self.checkpoints.drop_after(path)
        restore(read(path), state, remedy.config, fingerprint)
        rescue = Rescue(
            failure=alarm.failure,
            cur_nimg=alarm.cur_nimg,
            before=str(error),
            to_nimg=state.cur_nimg,
            remedy=remedy.name,
            change=remedy.change,
        )
        self.command = replace(command, rescues=(*rescues, rescue))
        self._with_room(lambda: write_config(self.folder, self.command))
        self.state = state
        num, most = len(self.command.rescues), config.watchdog.max_rescues
        self.journal.metrics.rescue(rescue.failure)
        self.journal.say(f"watchdog: rescue {num} of {most}: {rescue}")
        self._with_room(lambda: self.journal.rewind(state.cur_nimg))
        self._write_report()

    def _damping_weights(self, path: Path | None) -> dict[str, float]:
        """The weights that damp the game critically at the checkpoint that a rescue goes back to.

        Measured on the CPU, whatever the training's device: the instrument computes in float64 with
        SciPy. What can't be measured is said, and is left to the fixed factor.
        """
        if path is None:
            self.journal.say("watchdog: no checkpoint to measure a weight at; it is raised tenfold")
            return {}
        config = self.command.config
        try:
            game = RunGame.standing(self.folder, config, self.image_set, read(path))
            found = critical_weights(game, gradient_penalties(config))
        except Exception as error:  # of memory, for instance: the rescue goes on
            told = str(error).strip().partition("\n")[0]
            reason = told if isinstance(error, TrainingError) else f"{type(error).__name__}: {told}"
            self.journal.say(f"watchdog: no weight was measured, it is raised tenfold: {reason}")
            return {}
        told = ", ".join(f"{name}={weight:.3g}" for name, weight in found.items()) or "none"
        self.journal.say(f"watchdog: measured at {path.name}, critical damping: {told}")
        return found

    def _with_room(self, act: Callable[[], T]) -> T:
        """Writes what a rescue stands on, and waits for room on a full disk.

        Raises:
            UnsavedError: it can't be written.
        """
        try:
            return with_room(act, "the rescue", self.interruption, self.journal.say)
        except OSError as error:
            raise UnsavedError(
                f"a rescue can't be written: {error}; make room, then resume"
            ) from error

    def _good_checkpoint(self, alarm: Alarm) -> Path | None:
        """The newest checkpoint from before the failure and before every detector firing now."""
        pending = self._pending_since()
        since = alarm.since_nimg
        return self.checkpoints.before(since if pending is None else min(since, pending))

    def _pending_since(self) -> int | None:
        """Images shown when the detector that has been firing longest began; None for none."""
        if not self.command.config.watchdog.is_on:
            return None
        return self._counter.follow(self.state.history).pending_since()

    def _verdict(self, alarm: Alarm) -> str:
        watchdog, done = self.command.config.watchdog, len(self.command.rescues)
        remedy = f"{DETECTORS[alarm.failure].advice}; or --watchdog.ignore {alarm.failure}"
        if watchdog.action == "rescue":
            remedy = f"rescued {done} times of {watchdog.max_rescues} at most; {remedy}"
        good = self._good_checkpoint(alarm) or "none"
        return f"{alarm}. Checkpoint from before it: {good}. To do: {remedy}"

    def _save(self, tick: int = 0) -> None:
        """Writes a checkpoint and, from the first tick on, a grid.

        A failed write, of a full disk for instance, is reported, and the training goes on: the
        last checkpoint is still there, and the next tick tries again.
        """
        if tick:
            # In thousands, as everywhere, and to the image: ticks may be shorter than a thousand.
            name = f"samples-{self.state.cur_nimg / 1000:010.3f}.png"
            picture = self.samples.save(name, self._generate())
            self._has_grid = True
            self.journal.picture("samples", picture, self.state.cur_nimg)
            self.journal.unwritten()
        try:
            self._save_checkpoint()
        except OSError as error:
            self.unsaved = error
            self.journal.say(
                f"warning: tick {tick} was not saved: {error}; last good checkpoint: "
                f"{self._last_good()}; make room before the next tick"
            )

    def _save_last(self, ended: bool) -> None:
        """Saves the state at the end of the training, unless its last tick did.

        Raises:
            UnsavedError: a signal ended the training, and its state can't be written.
        """
        if ended and self.unsaved is None:
            return
        try:
            if ended:  # there is time to wait for room, since no signal asks to end
                with_room(
                    self._save_checkpoint, "the checkpoint", self.interruption, self.journal.say
                )
            else:
                self._save_checkpoint()
        except OSError as error:
            self.unsaved = error
            if self.interruption.signal is not None:
                raise UnsavedError(
                    f"the state was not saved: {error}; last good checkpoint: "
                    f"{self._last_good()}; make room, then resume from it"
                ) from error
            self.journal.say(f"warning: the last checkpoint was not saved: {error}")

    def _save_checkpoint(self) -> None:
        config, fingerprint = self.command.config, self.image_set.fingerprint

        def kept(numbers: list[int]) -> Collection[int]:
            return self.keeping.kept(numbers, self.state.looks, config.total_nimg)

        self.checkpoints.save(
            self.state, config, fingerprint, pin_nimg=self._pending_since(), keep=kept
        )
        self.unsaved = None

    def _generate(self) -> TorchGenerator:
        return TorchGenerator(UInt8Generator(self.state.G_ema))

    def _last_good(self) -> str:
        paths = self.checkpoints.paths()
        return str(paths[-1]) if paths else "none yet"

    def _write_report(self) -> None:
        if self.world.leads:
            content = report(self.command.config, self.seen, self.command.rescues)
            text = as_json(content) + "\n"
            self.journal.files.write(self.folder / WATCHDOG, text.encode())


class _Failure(Exception):  # noqa: N818 - ends a fit, and becomes a rescue or an error
    """An alarm that ends the fit."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


def write_config(folder: Path, command: Command) -> None:
    """Replaces config.json, as a whole or not at all.

    Raises:
        OSError: it can't be written; the old one is still there.
    """
    path = folder / CONFIG
    temporary = path.with_name(f".{path.name}.tmp")
    write_synced(temporary, command.to_json(folder).encode())
    temporary.replace(path)
    sync_folder(path.parent)

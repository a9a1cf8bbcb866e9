"""The course of a training: played to its end, watched, saved at its ticks, rescued if need be.

A rescue goes back to the last checkpoint from before the failure's first sign, changes one option
and goes on. Its moment of truth is the writing of config.json, whole or not at all: killed before
it, a resumed training sees the same failure again and comes to the same rescue; killed after it,
it goes on with the changed option from the same checkpoint.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.bundle import sync_folder, write_synced
from training.checkpoint import Checkpoints, read, restore
from training.command import CONFIG, Command
from training.data import Batches, ImageSet
from training.distributed import World
from training.errors import NonFiniteError, WatchdogError
from training.interruption import InterruptedRun, Interruption
from training.journal import Journal, Silence, duration
from training.loop import Hooks, fit
from training.samples import TorchGenerator, save_grid
from training.stability.signs import SIGNS, Alarm
from training.stability.streaks import Streaks
from training.stability.watchdog import Rescue, Watchdog, alarm_of, figures, remedy_for, report
from training.state import State
from training.stepper import Stepper

WATCHDOG = "watchdog.json"


@dataclass(kw_only=True)
class Course:
    """A training under way. A rescue changes its command and its state."""

    command: Command
    folder: Path
    image_set: ImageSet
    state: State
    fresh: Callable[[Command], State]
    """Makes the state that the training started from."""
    journal: Journal | Silence
    interruption: Interruption
    world: World
    alarms: list[Alarm] = field(default_factory=list)
    """Those that this process saw, in order."""

    def __post_init__(self) -> None:
        """Finds the checkpoints."""
        config = self.command.config
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self._streaks = Streaks(total_nimg=config.total_nimg, ignore=config.watchdog.ignore)

    def run(self) -> None:
        """Plays to the end.

        Raises:
            NonFiniteError: a loss or gradient was, and it is not to be rescued.
            WatchdogError: another failure showed, likewise.
            InterruptedRun: a signal came; what was done is saved.
        """
        start, start_nimg = time.monotonic(), self.state.cur_nimg
        with self.interruption.deferred():
            acts = self.command.config.watchdog.action in ("stop", "rescue")
            if acts and self.world.leads and not self.state.cur_nimg:
                self._save()  # what the very first tick may have to go back to
            while True:
                try:
                    ended = self._fit()
                except _Failure as failure:
                    self._rescue(failure.alarm, failure)
                except NonFiniteError as error:
                    self._rescue(alarm_of(error.trip, self.state), error)
                else:
                    break
            if not ended and self.world.leads:
                self._save_checkpoint()
        if not ended or self.interruption.signal is not None:
            raise InterruptedRun
        taken_s = time.monotonic() - start
        shown = (self.state.cur_nimg - start_nimg) / 1000
        self.journal.say(f"Trained {shown:.1f} kimg in {duration(taken_s)} ({taken_s:.1f} s)")

    def save_grid(self, name: str, generate: TorchGenerator) -> None:
        """Writes a sample grid into the run's folder."""
        save_grid(
            self.folder / "samples" / name,
            generate,
            z_dim=self.command.config.network.z_dim,
            num_classes=self.image_set.shape.num_classes,
        )

    def _fit(self) -> bool:
        config = self.command.config
        batches = Batches(self.image_set, batch_size=config.batch_size, seed=config.seed)
        stepper = Stepper(config, self.state, batches, self.world)
        watchdog = Watchdog(config, self.image_set) if config.watchdog.is_on else None

        def tick(number: int, state: State, means: dict[str, float]) -> None:
            if watchdog is not None:
                means = means | figures(watchdog.read(state, means, stepper.meters))
            self._tick(number, means, watchdog)

        hooks = Hooks(
            should_stop=lambda: self.interruption.signal is not None,
            should_report=self.journal.refresh_is_due,
            report=self.journal.refresh,
            tick=tick,
            last_good=self._last_good,
        )
        return fit(stepper, hooks)

    def _tick(self, number: int, means: dict[str, float], watchdog: Watchdog | None) -> None:
        if self.world.leads:
            self.journal.tick(number, self.state.cur_nimg, means)
        if watchdog is not None:
            self._heed(watchdog.alarms(self.state))
        if self.world.leads:
            self._save(number)

    def _heed(self, alarms: list[Alarm]) -> None:
        """Says what is new; ends the training where it is told to."""
        for alarm in alarms:
            if alarm.is_new:
                self.alarms.append(alarm)
                self.journal.say(f"watchdog: {alarm}. To do: {SIGNS[alarm.failure].advice}")
        if any(alarm.is_new for alarm in alarms):
            self._write_report()
        acts = self.command.config.watchdog.action in ("stop", "rescue")
        if acts and self.world.any(bool(alarms)):
            raise _Failure(alarms[0]) if alarms else WatchdogError("another process saw a failure")

    def _rescue(self, alarm: Alarm, error: Exception) -> None:
        """Goes back and changes one thing, or raises what ends the training."""
        config, rescues = self.command.config, self.command.rescues
        remedy = None
        if config.watchdog.action == "rescue":
            remedy = remedy_for(alarm, config, rescues)
        if remedy is None:
            if isinstance(error, NonFiniteError):
                raise error
            raise WatchdogError(self._verdict(alarm)) from None
        if isinstance(error, NonFiniteError):
            self.alarms.append(alarm)
            self.journal.say(f"watchdog: {error}")
        path = self._good(alarm)
        command = replace(self.command, config=remedy.config, asked=self.command.asked or config)
        state, fingerprint = self.fresh(command), self.image_set.fingerprint
        if path is None:  # from before the failure nothing is left but the beginning
            path = self.checkpoints.save(state, remedy.config, fingerprint, state.cur_nimg + 1)
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
        write_config(self.folder, self.command)
        self.state = state
        num, most = len(self.command.rescues), config.watchdog.max_rescues
        self.journal.say(f"watchdog: rescue {num} of {most}: {rescue}")
        self.journal.rewind(state.cur_nimg)
        self._write_report()

    def _good(self, alarm: Alarm) -> Path | None:
        """The newest checkpoint from before the failure, and before any sign that shows now."""
        pending = self._pending_since()
        since = alarm.since_nimg
        return self.checkpoints.before(since if pending is None else min(since, pending))

    def _pending_since(self) -> int | None:
        """Images shown when the oldest sign began that shows now."""
        if not self.command.config.watchdog.is_on:
            return None
        return self._streaks.follow(self.state.history).pending_since()

    def _verdict(self, alarm: Alarm) -> str:
        watchdog, done = self.command.config.watchdog, len(self.command.rescues)
        remedy = f"{SIGNS[alarm.failure].advice}; or --watchdog.ignore {alarm.failure}"
        if watchdog.action == "rescue":
            remedy = f"rescued {done} times of {watchdog.max_rescues} at most; {remedy}"
        good = self._good(alarm) or "none"
        return f"{alarm}. Checkpoint from before it: {good}. To do: {remedy}"

    def _save(self, tick: int = 0) -> None:
        """A grid and a checkpoint; without room for them the training goes on."""
        name = f"samples-{self.state.cur_nimg // 1000:06d}.png"
        try:
            if tick:
                self.save_grid(name, TorchGenerator(self.state.G_ema))
            self._save_checkpoint()
        except OSError as error:  # a full disk, say: the last checkpoint stands, training goes on
            self.journal.say(
                f"warning: tick {tick} was not saved: {error}; last good checkpoint: "
                f"{self._last_good()}; make room before the next tick"
            )

    def _save_checkpoint(self) -> None:
        config, fingerprint = self.command.config, self.image_set.fingerprint
        self.checkpoints.save(self.state, config, fingerprint, self._pending_since())

    def _last_good(self) -> str:
        paths = self.checkpoints.paths()
        return str(paths[-1]) if paths else "none yet"

    def _write_report(self) -> None:
        if self.world.leads:
            content = report(self.command.config, self.alarms, self.command.rescues)
            text = json.dumps(content, indent=2) + "\n"
            _replace(self.folder / WATCHDOG, text)


class _Failure(Exception):  # noqa: N818 - ends a fit, and becomes a rescue or an error
    """A sign that showed for its window."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


def write_config(folder: Path, command: Command) -> None:
    """Writes config.json, whole or not at all."""
    _replace(folder / CONFIG, command.to_json())


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write_synced(temporary, text.encode())
    temporary.replace(path)
    sync_folder(path.parent)

"""The metrics of a training: what `--metrics-port` shows of a run while it trains.

Every series is there from the start, so that an alert compares numbers and not what is missing;
what can't be known yet, such as a loss, comes with the first tick. Images shown are a gauge: a
rescue sets them back. This module knows neither networks nor files.
"""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from training.watchdog.detectors import DETECTORS

PREFIX = "saddlepoint_training_"
_BOUNDS = {"floor": "real", "ceiling": "noise"}
"""Ends of a figure's scale: as metrics.jsonl calls them, and as pages do."""
_PLAYERS = {"loss_D": "D", "loss_G": "G"}
_SCORES = {"scores.real": "real", "scores.fake": "generated"}


class Described(NamedTuple):
    """A metric, for pages and tests."""

    name: str
    kind: str
    """gauge or counter."""
    labels: tuple[str, ...]
    about: str


class RunMetrics:
    """The metrics of one run, in a registry of their own."""

    def __init__(self, failures: Iterable[str] = tuple(DETECTORS)) -> None:
        """All is 0; failures: that the watchdog knows."""
        self.registry = CollectorRegistry(auto_describe=True)
        self.described: list[Described] = []
        """Every metric, in the order of a page."""
        self._info = self._gauge(
            "info", "Which training this is: always 1", "run", "recipe", "model"
        )
        self._running = self._gauge("running", "1 while the networks train, else 0")
        self._images = self._gauge("images", "Real images shown to D so far")
        self._wanted = self._gauge("images_wanted", "Real images shown to D at the end")
        self._speed = self._gauge("images_per_second", "Real images a second, of the last tick")
        self._left = self._gauge(
            "time_left_seconds", "Seconds until the last image, as fast as so far"
        )
        self._step = self._gauge(
            "last_progress_timestamp_seconds", "When a step was last seen, at most a minute late"
        )
        self._tick_time = self._gauge("last_tick_timestamp_seconds", "When the last tick ended")
        self._ticks = self._counter("ticks", "Ticks of this process")
        self._losses = self._gauge(
            "loss", "Mean over the last tick, of each term of a player's loss", "player", "term"
        )
        self._scores = self._gauge("score", "Mean of D's raw output, of the last tick", "images")
        self._quality = self._gauge("quality", "A figure of the last look at the images", "figure")
        self._bounds = self._gauge(
            "quality_bound", "The same figure of real images and of noise", "figure", "of"
        )
        self._alarms = self._counter(
            "watchdog_alarms", "Failures that the watchdog saw, of this process", "failure"
        )
        self._rescues = self._counter(
            "watchdog_rescues", "Rescues by the watchdog, of this process", "failure"
        )
        for failure in failures:
            self._alarms.labels(failure)
            self._rescues.labels(failure)

    def begin(self, *, run: str, recipe: str, model: str) -> None:
        """Names the run: its folder, its recipe, and the name to publish under."""
        self._info.labels(run, recipe, model).set(1)

    def wanted(self, num_images: int) -> None:
        """Says how many images the whole training shows."""
        self._wanted.set(num_images)

    def running(self, is_running: bool) -> None:
        """Says that the networks train from now on, or not any more."""
        self._running.set(is_running)
        if is_running:
            self._step.set(time.time())

    def progress(self, cur_nimg: int, time_left_s: float) -> None:
        """Says that a step was seen; time_left_s may be infinite."""
        self._images.set(cur_nimg)
        self._left.set(time_left_s)
        self._step.set(time.time())

    def tick(self, nimg_per_s: float, means: Mapping[str, float]) -> None:
        """Takes the figures of a tick; means: scalars by name, as in metrics.jsonl."""
        self._tick_time.set(time.time())
        self._ticks.inc()
        self._speed.set(nimg_per_s)
        for name, value in means.items():
            part, _, rest = name.partition(".")
            if part in _PLAYERS:
                self._losses.labels(_PLAYERS[part], rest).set(value)
            elif name in _SCORES:
                self._scores.labels(_SCORES[name]).set(value)
            elif part == "quality":
                self._look(rest, value)

    def alarm(self, failure: str) -> None:
        """Counts a failure that the watchdog saw."""
        self._alarms.labels(failure).inc()

    def rescue(self, failure: str) -> None:
        """Counts a rescue."""
        self._rescues.labels(failure).inc()

    def _look(self, name: str, value: float) -> None:
        figure, _, end = name.partition(".")
        if end in _BOUNDS:
            self._bounds.labels(figure, _BOUNDS[end]).set(value)
        elif not end:
            self._quality.labels(figure).set(value)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        self.described.append(Described(PREFIX + name, "gauge", labels, about))
        return Gauge(PREFIX + name, about, labels, registry=self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        self.described.append(Described(f"{PREFIX}{name}_total", "counter", labels, about))
        return Counter(PREFIX + name, about, labels, registry=self.registry)

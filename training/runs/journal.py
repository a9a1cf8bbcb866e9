"""The records of a run: metrics.jsonl, TensorBoard events, the log and the terminal.

On a terminal one line is rewritten as training goes on. Elsewhere every tick prints a line, and so
does every minute without a tick, so that a container's log shows progress. This module writes
named numbers and knows neither networks nor losses.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from training.finite_json import as_json
from training.runs.disk.records import LOST, RecordFile, RunFiles
from training.runs.prometheus.metrics import RunMetrics
from training.runs.trackers import Tracked, Trackers
from training.stdout import Stream

_FIRST_S = 10.0
_REFRESH_S = 0.5
_QUIET_S = 60.0


class Journal:
    """Writes a run's records into its folder, and progress to a stream."""

    def __init__(
        self,
        folder: Path,
        stream: Stream,
        *,
        cur_nimg: int,
        total_nimg: int,
        trackers: Sequence[str] = ("tensorboard",),
        options: Mapping[str, Any] | None = None,
        metrics: RunMetrics | None = None,
    ) -> None:
        """Opens the files.

        Args:
            folder: the run's.
            stream: for the user; a terminal gets a line that is rewritten.
            cur_nimg: images shown when the run starts or resumes. Metrics of later ticks, which a
                killed process may have written, are removed.
            total_nimg: images of the whole training.
            trackers: names in TRACKERS, which are given every tick as well.
            options: of the training, for the trackers.
            metrics: what Prometheus reads; a new one by default, which nobody reads.

        Raises:
            ConfigError: a tracker's package is not installed.
            OSError: a file can't be opened.
        """
        self._folder = folder
        self._stream = stream
        self._live = stream.isatty()
        self._total_nimg = total_nimg
        self.files = RunFiles()
        """Writes the run's other files."""
        self._has_warned = False
        self._lost: dict[Path, str] = {}
        _forget(folder / "metrics.jsonl", cur_nimg)
        self._metrics = RecordFile(folder / "metrics.jsonl")
        self._log = RecordFile(folder / "log.txt")
        run = Tracked(folder=folder, options=options or {}, cur_nimg=cur_nimg)
        self._trackers = Trackers.open(trackers, run, say=self.say)
        self.metrics = metrics or RunMetrics()
        """What Prometheus reads of the run."""
        self.metrics.wanted(total_nimg)
        self.metrics.progress(cur_nimg, math.inf)
        self._start = self._last = (cur_nimg, time.monotonic())
        self._next_refresh = 0.0 if self._live else time.monotonic() + _FIRST_S
        self._width = 0

    def say(self, text: str) -> None:
        """Writes a line to the stream and the log."""
        self._clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()
        self.log(text)

    def log(self, text: str) -> None:
        """Writes a line with the time to the log alone."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n"
        self._log.append(line.encode(errors="backslashreplace"))

    def refresh_is_due(self) -> bool:
        """True when progress should be shown: twice a second on a terminal, else each minute."""
        return time.monotonic() >= self._next_refresh

    def refresh(self, cur_nimg: int, means: dict[str, float]) -> None:
        """Shows progress: rewrites the line of a terminal, or prints a new one elsewhere.

        means: scalars by name, averaged since the last tick.
        """
        self._postpone()
        self.metrics.progress(cur_nimg, self.time_left_s(cur_nimg))
        line = self._line(cur_nimg, means)
        if not self._live:
            self.say(line)
            return
        self._clear()
        self._stream.write(line)
        self._stream.flush()
        self._width = len(line)

    def tick(self, tick: int, cur_nimg: int, means: dict[str, float]) -> None:
        """Writes a tick to metrics.jsonl, TensorBoard, the log and the stream.

        means: scalars by name, averaged since the last tick.
        """
        self.say(self._line(cur_nimg, means))
        self._postpone()
        now = time.monotonic()
        nimg_per_s = _rate(cur_nimg - self._last[0], now - self._last[1])
        self._last = (cur_nimg, now)
        self.metrics.progress(cur_nimg, self.time_left_s(cur_nimg))
        self.metrics.tick(nimg_per_s, means)
        record = {"tick": tick, "cur_nimg": cur_nimg, **means, "nimg_per_s": nimg_per_s}
        self._metrics.append(f"{as_json(record, indent=None)}\n".encode())
        self._trackers.scalars({**means, "nimg_per_s": nimg_per_s}, cur_nimg)
        self.unwritten()

    def picture(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Gives the trackers a picture."""
        self._trackers.image(name, picture, cur_nimg)

    def unwritten(self) -> list[str]:
        """Tries again to write what is left; returns a line for each file that lacks something.

        They are said when they are found, and again when all that was kept is written.
        """
        records = (self._log, self._metrics, *self._trackers.records())
        for record in records:
            record.flush()
        self.files.flush()
        errors = {record.path: record.error for record in records if record.error is not None}
        errors |= self.files.errors
        lines = [f"{path}: {error.strerror or error}" for path, error in errors.items()]
        # Remembered: a rescue replaces the record.
        self._lost |= {record.path: LOST for record in records if record.has_lost}
        lost = [f"{path}: {why}" for path, why in (self._lost | self.files.lost).items()]
        if lines and not self._has_warned:
            self._has_warned = True
            told = "; ".join(lines)
            self.say(f"warning: not written yet, tried again at each tick: {told}; make room")
        elif self._has_warned and not lines:
            self._has_warned = False
            self.say(
                f"what was kept is written now; lost: {'; '.join(lost)}"
                if lost
                else "what could not be written is written now"
            )
        return lines + lost

    def rewind(self, cur_nimg: int) -> None:
        """Removes the metrics of ticks after cur_nimg, which will come again; keeps the log.

        Raises:
            OSError: they can't be written; the file is as it was, and may be rewound again.
        """
        self._metrics.flush()
        _forget(self._folder / "metrics.jsonl", cur_nimg)
        self._metrics.close()
        self._metrics = RecordFile(self._folder / "metrics.jsonl")
        self._trackers.rewind(cur_nimg)
        self._start = self._last = (cur_nimg, time.monotonic())
        self.metrics.progress(cur_nimg, math.inf)

    def close(self) -> None:
        """Closes every file."""
        self._clear()
        self._trackers.close()
        self._metrics.close()
        self._log.close()

    def _line(self, cur_nimg: int, means: dict[str, float]) -> str:
        speed = self._speed(cur_nimg)
        return (
            f"kimg {cur_nimg / 1000:.1f}/{self._total_nimg / 1000:.1f}  {speed:,.0f} images/s  "
            f"loss D {_total(means, 'loss_D.'):.3f} G {_total(means, 'loss_G.'):.3f}  "
            f"{_judgement(means)}  {_quality(means)}left {duration(self.time_left_s(cur_nimg))}"
        )

    def time_left_s(self, cur_nimg: int) -> float:
        """Seconds until the end, at the speed so far; infinite before the first image."""
        speed = self._speed(cur_nimg)
        return (self._total_nimg - cur_nimg) / speed if speed else math.inf

    def _speed(self, cur_nimg: int) -> float:
        return _rate(cur_nimg - self._start[0], time.monotonic() - self._start[1])

    def _postpone(self) -> None:
        self._next_refresh = time.monotonic() + (_REFRESH_S if self._live else _QUIET_S)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class NullJournal:
    """The journal of the processes that don't lead a training: it writes nothing."""

    def __init__(self) -> None:
        """Has no folder."""
        self.files = RunFiles()
        self.metrics = RunMetrics()

    def unwritten(self) -> list[str]:
        """Always empty."""
        return []

    def say(self, text: str) -> None:
        """Drops the line."""

    def log(self, text: str) -> None:
        """Drops the line."""

    def refresh_is_due(self) -> bool:
        """Always False: there is nothing to refresh."""
        return False

    def refresh(self, cur_nimg: int, means: dict[str, float]) -> None:
        """Drops the progress."""

    def tick(self, tick: int, cur_nimg: int, means: dict[str, float]) -> None:
        """Drops the metrics."""

    def time_left_s(self, cur_nimg: int) -> float:
        """Always 0: nobody asks."""
        return 0.0

    def picture(self, name: str, picture: Image.Image, cur_nimg: int) -> None:
        """Drops the picture."""

    def rewind(self, cur_nimg: int) -> None:
        """Has no metrics to remove."""

    def close(self) -> None:
        """Has no files to close."""


def duration(seconds: float) -> str:
    """A duration for people: 42s, 3m05s, 2h07m; a question mark where it isn't finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}h{minutes_left:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _judgement(means: dict[str, float]) -> str:
    """D's probabilities of being real where D is a classifier; elsewhere its raw scores."""
    if "D_real" in means:
        return f"D(real) {means['D_real']:.2f} D(fake) {means['D_fake']:.2f}"
    return f"score real {means['scores.real']:.3g} fake {means['scores.fake']:.3g}"


def _quality(means: dict[str, float]) -> str:
    """The figures of a look, each between those of noise and of real images; empty without one."""
    words = []
    for name, short in (("frechet_distance", "Frechet"), ("coverage", "coverage")):
        value = means.get(f"quality.{name}")
        if value is not None:
            floor, ceiling = (means[f"quality.{name}.{end}"] for end in ("floor", "ceiling"))
            words.append(f"{short} {value:.3g} (noise {ceiling:.3g}, real {floor:.3g})  ")
    return "".join(words)


def _total(means: dict[str, float], prefix: str) -> float:
    return sum(value for name, value in means.items() if name.startswith(prefix))


def _rate(num: int, seconds: float) -> float:
    return num / seconds if seconds > 0 else 0.0


def _forget(path: Path, cur_nimg: int) -> None:
    """Removes the lines of ticks after cur_nimg, which will come again.

    Raises:
        OSError: the file can't be written; it is as it was.
    """
    kept = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if text:
        for line in text.splitlines():
            try:
                is_past = json.loads(line)["cur_nimg"] <= cur_nimg
            except (ValueError, KeyError, TypeError):  # a killed process left half a line
                continue
            if is_past:
                kept.append(line + "\n")
    if (found := "".join(kept)) != text:
        # Not in place: a full disk would cut off what is there.
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(found, encoding="utf-8")
        temporary.replace(path)

"""What a run says of itself: metrics.jsonl, TensorBoard events, the log and the terminal.

On a terminal one line is rewritten as training goes on; elsewhere every tick is a plain line, and
so is every minute without one: a container's log tells that it lives, and how long it will take.
Knows no network and no loss: it writes named numbers.
"""

import json
import math
import time
from pathlib import Path
from typing import TextIO

from torch.utils.tensorboard import SummaryWriter

_REFRESH_S = 0.5
_QUIET_S = 60.0


class Journal:
    """Writes into a run folder, and to a stream for the person who watches."""

    def __init__(self, folder: Path, stream: TextIO, *, cur_nimg: int, total_nimg: int) -> None:
        """cur_nimg: where the run starts; what an earlier, killed process wrote beyond goes."""
        self._folder = folder
        self._stream = stream
        self._live = stream.isatty()
        self._total_nimg = total_nimg
        self._log = (folder / "log.txt").open("a", encoding="utf-8")
        self._metrics, self._events = self._opened(cur_nimg)
        self._start = self._last = (cur_nimg, time.monotonic())
        self._next_refresh = 0.0 if self._live else time.monotonic() + _QUIET_S
        self._width = 0

    def say(self, text: str) -> None:
        """A line for the person and the log."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """A line for the log alone."""
        self._log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
        self._log.flush()

    def refresh_is_due(self) -> bool:
        """True a few times a second on a terminal, a minute after the last line elsewhere."""
        return time.monotonic() >= self._next_refresh

    def refresh(self, cur_nimg: int, means: dict[str, float]) -> None:
        """Rewrites the live line, or writes a plain one."""
        self._postpone()
        line = self._line(cur_nimg, means)
        if not self._live:
            self.say(line)
            return
        self._clear()
        self._stream.write(line)
        self._stream.flush()
        self._width = len(line)

    def tick(self, tick: int, cur_nimg: int, means: dict[str, float]) -> None:
        """Records the means since the last tick."""
        self.say(self._line(cur_nimg, means))
        self._postpone()
        now = time.monotonic()
        nimg_per_s = _rate(cur_nimg - self._last[0], now - self._last[1])
        self._last = (cur_nimg, now)
        record = {"tick": tick, "cur_nimg": cur_nimg, **means, "nimg_per_s": nimg_per_s}
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        for name, value in {**means, "nimg_per_s": nimg_per_s}.items():
            self._events.add_scalar(name.replace(".", "/"), value, cur_nimg)
        self._events.flush()

    def rewind(self, cur_nimg: int) -> None:
        """Goes on from there: the figures beyond will come again, the log stays."""
        self._events.close()
        self._metrics.close()
        self._metrics, self._events = self._opened(cur_nimg)
        self._start = self._last = (cur_nimg, time.monotonic())

    def close(self) -> None:
        """Closes every file."""
        self._clear()
        self._events.close()
        self._metrics.close()
        self._log.close()

    def _opened(self, cur_nimg: int) -> tuple[TextIO, SummaryWriter]:
        events = SummaryWriter(str(self._folder / "events"), purge_step=cur_nimg)
        return _open_metrics(self._folder / "metrics.jsonl", cur_nimg), events

    def _line(self, cur_nimg: int, means: dict[str, float]) -> str:
        speed = _rate(cur_nimg - self._start[0], time.monotonic() - self._start[1])
        left = (self._total_nimg - cur_nimg) / speed if speed else math.inf
        return (
            f"kimg {cur_nimg / 1000:.1f}/{self._total_nimg / 1000:.1f}  {speed:,.0f} images/s  "
            f"loss D {_total(means, 'loss_D.'):.3f} G {_total(means, 'loss_G.'):.3f}  "
            f"D(real) {means['D_real']:.2f} D(fake) {means['D_fake']:.2f}  left {duration(left)}"
        )

    def _postpone(self) -> None:
        self._next_refresh = time.monotonic() + (_REFRESH_S if self._live else _QUIET_S)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class Silence:
    """The journal of a process that doesn't lead: says nothing, writes nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""

    def refresh_is_due(self) -> bool:
        """Never."""
        return False

    def refresh(self, cur_nimg: int, means: dict[str, float]) -> None:
        """Nothing."""

    def tick(self, tick: int, cur_nimg: int, means: dict[str, float]) -> None:
        """Nothing."""

    def rewind(self, cur_nimg: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def duration(seconds: float) -> str:
    """Seconds as people write them: 42s, 3m05s, 2h07m."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}h{minutes_left:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _total(means: dict[str, float], prefix: str) -> float:
    return sum(value for name, value in means.items() if name.startswith(prefix))


def _rate(num: int, seconds: float) -> float:
    return num / seconds if seconds > 0 else 0.0


def _open_metrics(path: Path, cur_nimg: int) -> TextIO:
    """The file, without what lies beyond cur_nimg: those ticks will come again."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                is_past = json.loads(line)["cur_nimg"] <= cur_nimg
            except (ValueError, KeyError, TypeError):  # the last line of a killed process
                continue
            if is_past:
                kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")
    return path.open("a", encoding="utf-8")

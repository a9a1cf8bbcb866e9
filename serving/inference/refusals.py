"""Versions that could not be loaded: why, what was seen of their files, when they are tried again.

No refusal is for ever. What made a load fail may pass: a copy that was under way is complete now,
a process has file descriptors or memory again, storage is back. So a version is tried again at once
when its files are others than those that were seen, and after a while anyway.

A graph can also end the process that loads it: a crash of the runtime, or more memory than there
is. The next worker would load it again and die again, and nothing would be served. So a worker
writes down in its `Journal` what it is about to load, and strikes it out afterwards. What it finds
there from the worker before is tried last, and after a second death with growing pauses.
"""

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.bundle.files import FolderState, state_of
from models.errors import ModelError
from serving.errors import ServingError
from serving.inference.faults import is_passing, words_for_clients
from serving.observability.loops import cause_of, quietly

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0
LAST_PASSING_PAUSE_S = 15.0
"""The longest pause where the system, not the version, was at fault: that can end at any moment."""
_MAX_REMEMBERED = 1024
_FIRST_DEATH_PAUSE_S = 1.0
_SECOND_DEATH_PAUSE_S = 10.0
_LAST_DEATH_PAUSE_S = 3600.0


class RefusedError(ModelError):
    """A version that can't be loaded. `public` says so to clients, without what is the server's."""

    def __init__(self, text: str, public: str) -> None:
        """text: for the log."""
        super().__init__(text)
        self.public = public


@dataclass
class _Refusal:
    error: RefusedError
    seen: FolderState
    num_tries: int
    retry_at: float


class Refusals:
    """The versions of one worker that were refused; any thread may ask."""

    def __init__(self, root: Path) -> None:
        """root: the repository, which clients are not told of."""
        self._root = root
        self._refused: dict[Path, _Refusal] = {}
        self._lock = threading.Lock()

    def check(self, version: Path) -> None:
        """Raises RefusedError where a version was refused, and it is too early for another try.

        version: its folder.
        """
        with self._lock:
            refusal = self._refused.get(version)
        if refusal is None or time.monotonic() >= refusal.retry_at:
            return
        if state_of(version) == refusal.seen:
            # A new one: each raise of the same object would add to its traceback.
            raise RefusedError(str(refusal.error), refusal.error.public)

    def add(
        self,
        version: Path,
        seen: FolderState,
        error: BaseException,
        *,
        pause_s: float | None = None,
    ) -> RefusedError:
        """Remembers that a load failed; gives the error to raise.

        Args:
            version: its folder.
            seen: what that held before the load.
            error: why.
            pause_s: until it is tried again; grows from failure to failure where None.
        """
        refused = _refused(error, self._root)
        with self._lock:
            before = self._refused.get(version)
            again = before is not None and before.seen == seen
            num_tries = before.num_tries + 1 if before is not None and again else 1
            last_s = LAST_PASSING_PAUSE_S if is_passing(error) else LAST_PAUSE_S
            if pause_s is None:
                pause_s = min(FIRST_PAUSE_S * 2.0 ** min(num_tries - 1, 20), last_s)
            self._refused.pop(version, None)
            self._refused[version] = _Refusal(refused, seen, num_tries, time.monotonic() + pause_s)
            while len(self._refused) > _MAX_REMEMBERED:
                del self._refused[next(iter(self._refused))]
        return refused

    def forget(self, version: Path) -> None:
        """It was loaded."""
        with self._lock:
            self._refused.pop(version, None)

    def clear(self) -> None:
        """All may be tried again."""
        with self._lock:
            self._refused.clear()


def _refused(error: BaseException, root: Path) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    text = str(error) if isinstance(error, ModelError | ServingError) else cause_of(error)
    return RefusedError(text, words_for_clients(error, root))


@dataclass(frozen=True)
class Attempt:
    """Loads of one version."""

    version: str
    """Its folder."""
    num_deaths: int
    loading: bool

    @property
    def pause_s(self) -> float:
        """Seconds until it is loaded again."""
        if self.num_deaths < 2:
            return _FIRST_DEATH_PAUSE_S
        return min(_SECOND_DEATH_PAUSE_S * 2.0 ** min(self.num_deaths - 2, 20), _LAST_DEATH_PAUSE_S)


class Journal:
    """One worker's file of attempts; it is of use where it can be written, and missed elsewhere."""

    def __init__(self, file: Path) -> None:
        """Reads what the worker before this one left, if there was one."""
        self._file = file
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}
        for digest, attempt in _read(file).items():
            num_deaths = attempt.num_deaths + attempt.loading
            self._attempts[digest] = replace(attempt, num_deaths=num_deaths, loading=False)
        self._write()

    def suspects(self) -> list[Attempt]:
        """Versions that a worker died with while it loaded them."""
        with self._lock:
            return [attempt for attempt in self._attempts.values() if attempt.num_deaths]

    def begin(self, digest: str, version: Path) -> None:
        """A version is going to be loaded."""
        with self._lock:
            before = self._attempts.get(digest)
            num_deaths = 0 if before is None else before.num_deaths
            self._attempts[digest] = Attempt(str(version), num_deaths, loading=True)
            self._write()

    def end(self, digest: str) -> None:
        """It was loaded, or refused: this process lives."""
        with self._lock:
            self._attempts.pop(digest, None)
            self._write()

    def _write(self) -> None:
        with quietly():
            text = json.dumps({digest: asdict(each) for digest, each in self._attempts.items()})
            temporary = self._file.with_suffix(".new")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._file)


def _read(file: Path) -> dict[str, Attempt]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {digest: Attempt(**entry) for digest, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s can't be read, so nobody knows what was being loaded: %s", file, error)
        return {}

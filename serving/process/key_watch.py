"""Follows the file of API keys while the server runs, whatever becomes of it.

The content is compared, not its times: a file that was replaced, written again in place, or is
reached over another link is noticed. One that can't be read any more is an alarm, in the log and in
the metrics. What was read last holds on for a while, since a file is away for a moment while it is
written; then every key is refused, since one may have been taken away meanwhile.
"""

import asyncio
import contextlib
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

from serving.errors import SettingsError
from serving.http.auth import AccessControl
from serving.keys.key_file import Keys, parse_keys, read_key_file, text_of
from serving.observability import metrics
from serving.observability.loops import Loop, cause_of, ends, in_thread

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the file is looked at: a change of a key takes effect after that long at most."""
_TIMEOUT_S = 10.0
_SETTLE_S = 0.05
_MAX_LOOKS = 10


class KeyFile(NamedTuple):
    """A key file as it was read."""

    path: Path
    data: bytes
    keys: Keys

    @classmethod
    def read(cls, path: Path) -> "KeyFile":
        """Reads it; SettingsError where it can't be used."""
        data = read_key_file(path)
        return cls(path, data, parse_keys(path, data))


class KeyWatch:
    """What an HTTP process knows of the key file."""

    def __init__(self, file: KeyFile, access: AccessControl, grace_s: float) -> None:
        """What is there at the start.

        Args:
            file: what the first process has read: all begin with the same.
            access: takes the keys that are valid.
            grace_s: how long they stay valid when the file can't be read.
        """
        self._file = file
        self._access = access
        self._grace_s = grace_s
        self._reading: asyncio.Future[KeyFile] | None = None
        self._failing_since: float | None = None
        self._complaint = ""
        self._shut = False
        self._asked = asyncio.Event()
        metrics.KEYS_FAILING_SINCE.set(math.inf)

    @property
    def fault(self) -> str | None:
        """Why every key is refused; None where keys are valid."""
        return self._complaint if self._shut else None

    async def run(self) -> None:
        """Looks at the file until cancelled."""
        await Loop("keys", last_pause_s=LOOK_S).run(self._turn)

    def look_now(self) -> None:
        """Has the file read at once, and says what it holds."""
        self._asked.set()

    async def _turn(self) -> float:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), LOOK_S)
        asked = self._asked.is_set()
        self._asked.clear()
        try:
            file = await self._read_in_time()
        except SettingsError as error:
            self._fail(str(error))
        except BaseException as error:
            if not ends(error):
                self._fail(cause_of(error))
            raise
        else:
            self._take(file, asked)
        return 0.0

    async def _read_in_time(self) -> KeyFile:
        if self._reading is None:  # else storage still holds up the last one
            self._reading = in_thread(self._read, "keys")
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait((self._reading,), timeout=_TIMEOUT_S)
        if not self._reading.done():
            raise SettingsError(f"reading {self._file.path} takes longer than {_TIMEOUT_S:g} s")
        reading, self._reading = self._reading, None
        return reading.result()

    def _read(self) -> KeyFile:
        """What the file holds when nobody is writing it: twice the same, or as it was before."""
        path, before = self._file.path, self._file.data
        data = read_key_file(path)
        for _ in range(_MAX_LOOKS):
            if data == before:
                return self._file if data == self._file.data else _parsed(path, data)
            time.sleep(_SETTLE_S)
            before, data = data, read_key_file(path)
        raise SettingsError(f"{path} changes all the time")

    def _take(self, file: KeyFile, asked: bool) -> None:
        changed = file is not self._file or self._failing_since is not None
        self._file = file
        if self._failing_since is not None:
            self._failing_since, self._complaint, self._shut = None, "", False
            metrics.KEYS_FAILING_SINCE.set(math.inf)
        if changed:
            self._access.replace(file.keys)
            logger.info("%d API keys are valid now", _num_in_force(file.keys))
        elif asked:
            num = _num_in_force(file.keys)
            logger.info("the API keys were read again: %d are valid, as before", num)

    def _fail(self, complaint: str) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            metrics.KEYS_FAILING_SINCE.set(time.time())
        left_s = self._failing_since + self._grace_s - now
        if complaint != self._complaint:
            self._complaint = complaint
            fate = f"those read before hold for {left_s:.0f} s more" if left_s > 0 else "none holds"
            logger.error("the API keys can't be read: %s; %s", complaint, fate)
        if left_s <= 0 and not self._shut:
            self._shut = True
            self._access.replace({})
            logger.critical(
                "the API keys can't be read for %g s: every key is refused: %s",
                self._grace_s,
                complaint,
            )


def _num_in_force(keys: Keys) -> int:
    return sum(not key.has_expired() for key in keys.values())


def _parsed(path: Path, data: bytes) -> KeyFile:
    if not text_of(path, data).strip():
        raise SettingsError(f"--api-keys is {path}: it is empty, without even a comment")
    return KeyFile(path, data, parse_keys(path, data))

"""Who may come in, and for how many images: API keys and their rates, the same on either road.

Without a key file everyone may, and the gate costs a look at `closed`. With one, every path needs a
key that isn't in `OPEN`; a path that doesn't exist too.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path

from serving.errors import (
    InvalidRequestProblem,
    RateLimitedProblem,
    SettingsError,
    UnauthorizedProblem,
)
from serving.keys import Key, Keys, digest_of, read_keys
from serving.rates import Rates

logger = logging.getLogger(__name__)

OPEN = frozenset(
    {
        "/livez",
        "/readyz",
        "/health",
        "/v2/health/live",
        "/v2/health/ready",
        "/openapi.json",
    }
)
"""What is answered without a key: probes, which carry none, and the description of the server."""

REREAD_S = 1.0
"""How often the key file is looked at: a key is in force, or isn't any more, after that long."""

Header = Callable[[bytes], bytes | None]


class Gate:
    """The keys in force in this process."""

    def __init__(self, path: Path | None, run_folder: Path) -> None:
        """Reads the keys.

        Args:
            path: the key file; None lets everyone in.
            run_folder: where the HTTP processes share what they share.

        Raises:
            SettingsError: the file can't be used.
        """
        self.closed = path is not None
        self._path = path
        self._keys: Keys = {}
        self._state: tuple[int, ...] | None = None
        self._rates = Rates(run_folder / "rates")
        if path is not None:
            self._state = _state_of(path)
            self._keys = read_keys(path)

    def find(self, header: Header) -> Key | None:
        """The key of a request, by its headers; None where it brings none that is in force."""
        text = header(b"authorization") if self.closed else None
        if text is None:
            return None
        scheme, _, token = text.partition(b" ")
        return self._keys.get(digest_of(token.strip())) if scheme.lower() == b"bearer" else None

    def check(self, header: Header) -> Key | None:
        """The key of a request, by its headers; None where none is needed.

        Raises:
            UnauthorizedProblem: it brings none that is in force.
        """
        key = self.find(header)
        if key is None and self.closed:
            raise _unauthorized(header(b"authorization"))
        return key

    def charge(self, key: Key, num_rows: int) -> None:
        """Takes images from what a key may ask for.

        Raises:
            RateLimitedProblem: it asks too fast.
            InvalidRequestProblem: it may never ask for so many at once.
        """
        if key.rows_per_s is None:
            return
        if num_rows > key.burst:
            raise InvalidRequestProblem(
                f"{num_rows} images are asked for, key {key.name!r} may ask for {key.burst} at "
                "once; split the request"
            )
        wait_s = self._rates.take(key, num_rows)
        if wait_s:
            seconds = math.ceil(wait_s)
            raise RateLimitedProblem(
                f"{num_rows} images are asked for, key {key.name!r} may ask for "
                f"{key.rows_per_s:g} a second and {key.burst} at once; try again in {seconds} s",
                headers=((b"retry-after", b"%d" % seconds),),
            )

    async def watch(self) -> None:
        """Rereads the file whenever it changes, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(REREAD_S)
            await asyncio.to_thread(self.reread, self._path)

    def reread(self, path: Path) -> None:
        """Takes the file's keys if it has changed; where they can't be used, keeps what was."""
        state = _state_of(path)
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = read_keys(path)
        except SettingsError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("%d API keys are in force now", len(self._keys))

    def close(self) -> None:
        """Lets the shared file go."""
        self._rates.close()


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None where it isn't there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev


def _unauthorized(given: bytes | None) -> UnauthorizedProblem:
    challenge = b'Bearer realm="saddlepoint"'
    if given is None:
        detail = "the header Authorization is missing; send Authorization: Bearer KEY"
    else:  # never shown: it may be a key with a typing mistake
        detail = (
            "the header Authorization holds no key that is in force; send Authorization: Bearer "
            "KEY, or ask the operator for a new key"
        )
        challenge += b', error="invalid_token"'
    return UnauthorizedProblem(detail, headers=((b"www-authenticate", challenge),))

"""An API key: whose it is, what it may do, how long, and how much.

A key is 256 random bits, so one round of SHA-256 is enough to store it: the slow hashes that
passwords need make guessing slow, and such a key can't be guessed. For the same reason a key is
looked up by its digest: the time that this takes tells only about digests, and no one can make a
key whose digest begins as wanted.
"""

import dataclasses
import hashlib
import math
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

PREFIX = "sp_"
"""Keys begin with it, so that scanners for leaked secrets find them."""

GENERATE, ADMIN, METRICS = "generate", "admin", "metrics"
SCOPES = (GENERATE, ADMIN, METRICS)
"""What keys may do: make images; load and unload models; read the metrics."""
ALL = frozenset(SCOPES)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LIMIT = re.compile(r"(rows-per-s|burst)=([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_WORD = re.compile(r"(scopes|expires)=(\S+)")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NAMES = "up to 64 letters, digits, dots, hyphens or underscores, a letter or digit first"
_SHAPE = (
    "must be NAME sha256:HEX [scopes=LIST] [expires=TIME] [rows-per-s=NUMBER] [burst=NUMBER]; a "
    f"name has {_NAMES}"
)
MOST = 999_999_999
"""Images, that a limit may have."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key's name, and what it may ask for."""

    name: str
    digest: bytes
    """SHA-256 of the key."""
    rows_per_s: float | None = None
    """Images a second in the long run; None for no limit."""
    burst: int = 0
    """Images that may be asked for at once, if rows_per_s is given."""
    scopes: frozenset[str] = ALL
    """What it may do, of `SCOPES`. Lines of earlier releases name none, and those keys may all."""
    expires: datetime | None = None
    """From then on it is no longer valid; UTC, whole seconds. None for never."""

    @property
    def id(self) -> str:
        """Tells it from other keys of its name; says nothing of the key itself."""
        return self.digest.hex()[:8]

    @property
    def holder(self) -> bytes:
        """32 bytes that all keys of a name have in common: they have one rate together."""
        return hashlib.sha256(self.name.encode("ascii")).digest()

    def has_expired(self, now: datetime | None = None) -> bool:
        """Whether it was valid once, and isn't now."""
        return self.expires is not None and (now or datetime.now(UTC)) >= self.expires

    def line(self) -> str:
        """Returns the key's line in the file."""
        words = [self.name, f"sha256:{self.digest.hex()}", f"scopes={','.join(self.listed_scopes)}"]
        if self.expires is not None:
            words.append(f"expires={self.expires.strftime(_TIME)}")
        if self.rows_per_s is not None:
            rate = f"{self.rows_per_s:f}".rstrip("0").rstrip(".")
            words += [f"rows-per-s={rate}", f"burst={self.burst}"]
        return " ".join(words) + "\n"

    @property
    def listed_scopes(self) -> list[str]:
        """Its scopes in their order."""
        return [scope for scope in SCOPES if scope in self.scopes]


def new_token() -> str:
    """A new key, as a client sends it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> bytes:
    """Returns the SHA-256 of a key, by which it is stored and found."""
    return hashlib.sha256(key).digest()


def parse_line(line: str) -> Key | None:
    """Parses a line of a key file; returns None for an empty line or a comment.

    Raises:
        ValueError: the line is something else.
    """
    words = line.partition("#")[0].split()
    if not words:
        return None
    name, *rest = words
    hashed = _HASH.fullmatch(rest[0]) if rest else None
    if not _NAME.fullmatch(name) or hashed is None:
        raise ValueError(_SHAPE)
    limits: dict[str, float] = {}
    others: dict[str, str] = {}
    for word in rest[1:]:
        if (match := _WORD.fullmatch(word)) and match[1] not in others:
            others[match[1]] = match[2]
            continue
        match = _LIMIT.fullmatch(word)
        if match is None or match[1] in limits or not float(match[2]):
            raise ValueError(
                f"{word!r} is not scopes=LIST, expires=TIME, rows-per-s=NUMBER or burst=NUMBER, "
                "once each, numbers more than 0"
            )
        limits[match[1]] = float(match[2])
    return dataclasses.replace(
        make_key(name, bytes.fromhex(hashed[1]), limits.get("rows-per-s"), limits.get("burst")),
        scopes=parse_scopes(others["scopes"]) if "scopes" in others else ALL,
        expires=parse_time(others["expires"]) if "expires" in others else None,
    )


def make_key(
    name: str, digest: bytes, rows_per_s: float | None = None, burst: float | None = None
) -> Key:
    """Makes a key; burst is rows_per_s, rounded up, if it isn't given.

    Raises:
        ValueError: burst without rows_per_s, or a number that is none of a limit.
    """
    if rows_per_s is None:
        if burst is not None:
            raise ValueError("burst is given without rows-per-s; give both, or none")
        return Key(name, digest)
    for word, number in (("rows-per-s", rows_per_s), ("burst", burst)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ValueError(f"{word} is {number:g}, must be more than 0")
    return Key(name, digest, rows_per_s, math.ceil(rows_per_s if burst is None else burst))


def parse_name(text: str) -> str:
    """A key's name.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name of a key, allowed are {_NAMES}")
    return text


def parse_rate(text: str) -> float:
    """Images a second, as a key's line can have them.

    Raises:
        ValueError: it is no such number.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= MOST or round(rate, 6) != rate:  # NaN is neither
        raise ValueError(
            f"{text[:80]!r} is no rate, allowed are numbers of more than 0, at most {MOST}, with "
            "up to 6 decimals; leave it out for any rate"
        )
    return rate


def parse_burst(text: str) -> int:
    """Images at once.

    Raises:
        ValueError: it is no such number.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ValueError(
            f"{text[:80]!r} is no number of images, allowed are whole numbers 1 .. {MOST}; leave "
            "it out for a second's worth"
        )
    return int(text)


def parse_scopes(text: str) -> frozenset[str]:
    """Scopes, comma separated.

    Raises:
        ValueError: one is unknown, or there is none.
    """
    scopes = frozenset(text.split(","))
    if not scopes <= ALL:
        raise ValueError(f"scopes are {text!r}, allowed are {', '.join(SCOPES)}, comma separated")
    return scopes


def parse_time(text: str) -> datetime:
    """A time of ISO 8601 as UTC in whole seconds; UTC where it names no zone, a day is its begin.

    Raises:
        ValueError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if time.year < 1000:  # strftime would leave its zeros out
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time, write it as 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None
    return time.replace(microsecond=0)

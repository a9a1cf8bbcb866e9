"""API keys in a file: one a line, under a name, hashed. `python -m serving.keys add FILE NAME`.

    # name   hash of the key       most images a second, and at once
    alice    sha256:2bd8...c41a    rows-per-s=100 burst=500
    batch-7  sha256:90c1...77e2

A key is 256 random bits, so one round of SHA-256 is enough to store it: the slow hashes that
passwords need make guessing dear, and there is nothing to guess here. For the same reason a key is
looked up by its digest: whoever measures how long that takes learns about digests, and can't make a
key whose digest begins as they please. The file can be read without telling any key.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SettingsError

PREFIX = "sp_"
"""Keys begin with it, so that scanners for leaked secrets find them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LIMIT = re.compile(r"(rows-per-s|burst)=([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Key:
    """Who may ask, and for how much."""

    name: str
    digest: bytes
    """SHA-256 of the key."""
    rows_per_s: float | None = None
    """Images a second in the long run; None for any number."""
    burst: int = 0
    """Images that may be asked for at once, where rows_per_s is given."""

    def line(self) -> str:
        """The key's line in the file."""
        limits = ""
        if self.rows_per_s is not None:
            rate = f"{self.rows_per_s:f}".rstrip("0").rstrip(".")
            limits = f" rows-per-s={rate} burst={self.burst}"
        return f"{self.name} sha256:{self.digest.hex()}{limits}\n"


Keys = dict[bytes, Key]
"""Keys by digest."""


def digest_of(key: bytes) -> bytes:
    """SHA-256 of a key, as it is kept."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> Keys:
    """The keys of a file.

    Raises:
        SettingsError: it can't be read, others may write to it, or a line is wrong.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--api-keys is {path}: {error}; make one: python -m serving.keys add {path} NAME"
        ) from error
    if mode & _OTHERS_WRITE:
        raise SettingsError(
            f"--api-keys is {path}: others may write to it, and so make keys; chmod go-w {path}"
        )
    keys: Keys = {}
    names = set()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            key = _key(line)
        except ValueError as error:
            raise SettingsError(f"--api-keys is {path}: line {number}: {error}") from None
        if key is None:
            continue
        if key.name in names or key.digest in keys:
            raise SettingsError(
                f"--api-keys is {path}: line {number}: the name {key.name!r} or its hash is there "
                "twice; remove one"
            )
        names.add(key.name)
        keys[key.digest] = key
    return keys


def _key(line: str) -> Key | None:
    """A line's key, or None for an empty line or a comment.

    Raises:
        ValueError: the line is something else.
    """
    words = line.partition("#")[0].split()
    if not words:
        return None
    name, *rest = words
    hashed = _HASH.fullmatch(rest[0]) if rest else None
    if not _NAME.fullmatch(name) or hashed is None:
        raise ValueError(
            "must be NAME sha256:HEX [rows-per-s=NUMBER] [burst=NUMBER]; a name has up to 64 "
            "letters, digits, dots, hyphens or underscores"
        )
    limits: dict[str, float] = {}
    for word in rest[1:]:
        match = _LIMIT.fullmatch(word)
        if match is None or match[1] in limits or not float(match[2]):
            raise ValueError(
                f"{word!r} is not rows-per-s=NUMBER or burst=NUMBER, once each, more than 0"
            )
        limits[match[1]] = float(match[2])
    return make_key(
        name,
        bytes.fromhex(hashed[1]),
        **{word.replace("-", "_"): value for word, value in limits.items()},
    )


def make_key(
    name: str, digest: bytes, rows_per_s: float | None = None, burst: float | None = None
) -> Key:
    """A key; burst is what a second brings where it isn't given.

    Raises:
        ValueError: burst without rows_per_s.
    """
    if rows_per_s is None:
        if burst is not None:
            raise ValueError("burst is given without rows-per-s; give both, or none")
        return Key(name, digest)
    whole = -int(-(rows_per_s if burst is None else burst) // 1)
    return Key(name, digest, rows_per_s, max(1, whole))


def main(argv: Sequence[str] | None = None) -> int:
    """Adds, lists or removes a key; gives the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "list":
            _list(arguments.file)
        else:
            with _alone(arguments.file):
                _add(arguments) if arguments.command == "add" else _remove(arguments)
    except (SettingsError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.keys",
        description="API keys for `python -m serving.run --api-keys FILE`, which rereads the file.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it, this once")
    list_ = commands.add_parser("list", help="names and limits")
    remove = commands.add_parser("remove", help="end a key")
    for command in (add, list_, remove):
        command.add_argument("file", type=Path, help="the file; add makes it")
    for command in (add, remove):
        command.add_argument("name", help="whose key it is; logs show it")
    add.add_argument("--rows-per-s", type=float, help="images a second; any number if absent")
    add.add_argument("--burst", type=int, help="images at once; a second's worth if absent")
    return parser


def _list(path: Path) -> None:
    for key in sorted(read_keys(path).values(), key=lambda key: key.name):
        limit = ""
        if key.rows_per_s is not None:
            limit = f"{key.rows_per_s:g} images/s, {key.burst} at once"
        print(f"{key.name}\t{limit}".rstrip())


def _add(arguments: argparse.Namespace) -> None:
    path, name = arguments.file, arguments.name
    if path.exists() and name in {key.name for key in read_keys(path).values()}:
        raise SettingsError(f"{path} has a key of the name {name!r}; remove it, or choose another")
    token = PREFIX + secrets.token_urlsafe(32)
    key = make_key(name, digest_of(token.encode()), arguments.rows_per_s, arguments.burst)
    if _key(key.line()) != key:
        raise SettingsError(f"--rows-per-s {key.rows_per_s}, --burst {key.burst}: out of range")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _write(path, text + ("\n" if text and not text.endswith("\n") else "") + key.line())
    print(token)


def _remove(arguments: argparse.Namespace) -> None:
    path, name = arguments.file, arguments.name
    known = sorted(key.name for key in read_keys(path).values())
    if name not in known:
        raise SettingsError(f"{path} has no key {name!r}; there are: {', '.join(known) or 'none'}")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    _write(path, "".join(line for line in lines if line.split()[:1] != [name]))


def _write(path: Path, text: str) -> None:
    """Replaces the file in one step; a new one is for its owner alone."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():  # a server of another user or group may still read it
                before = path.stat()
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two commands at once would lose what one of them wrote."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m serving.keys add FILE NAME`: makes, lists and revokes API keys."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from models.stdout import closed_pipe_ignored
from serving.errors import SettingsError
from serving.keys.key import (
    GENERATE,
    SCOPES,
    Key,
    digest_of,
    make_key,
    new_token,
    parse_burst,
    parse_line,
    parse_name,
    parse_rate,
    parse_scopes,
    parse_time,
)
from serving.keys.key_file import alone, read_keys, real_path, remove_keys, text_of, write

PROG = "python -m serving.keys"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_T = TypeVar("_T")


@closed_pipe_ignored
def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Adds, lists or revokes a key; returns the exit code. prog: how it was called."""
    arguments = _parser(prog).parse_args(argv)
    try:
        arguments.file = real_path(arguments.file)
        if arguments.command == "list":
            _list(arguments.file)
        else:
            with alone(arguments.file):
                _add(arguments) if arguments.command == "add" else _revoke(arguments)
    except BrokenPipeError:  # of our own output: what is around this ends it
        raise
    except (SettingsError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="API keys for `python -m serving.run --api-keys FILE`, which rereads the file.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it, this once")
    list_ = commands.add_parser("list", help="names, ids, scopes, expiry and limits")
    revoke = commands.add_parser("revoke", aliases=["remove"], help="end a key")
    for command in (add, list_, revoke):
        command.add_argument("file", type=Path, help="the file; add makes it")
    add.add_argument("name", type=_named(parse_name), help="whose key it is; logs show it")
    revoke.add_argument("name", help="whose, for all keys of the name; or NAME:ID, as list shows")
    add.add_argument(
        "--scopes",
        default=GENERATE,
        help=f"what it may do, comma separated: {', '.join(SCOPES)} (default: {GENERATE})",
    )
    add.add_argument(
        "--expires", help="when it ends: 12h, 30d, 8w from now, or 2027-01-31[T12:00:00Z]"
    )
    add.add_argument(
        "--rows-per-s", type=_named(parse_rate), help="images a second; any number if absent"
    )
    add.add_argument(
        "--burst", type=_named(parse_burst), help="images at once; a second's worth if absent"
    )
    add.add_argument(
        "--another",
        action="store_true",
        help="beside the keys that the name has: to change a key without a pause",
    )
    return parser


def _named(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """A parser whose refusal comes with the argument's name."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _list(path: Path) -> None:
    for key in sorted(read_keys(path).values(), key=lambda key: (key.name, key.id)):
        facts = [f"{key.name}:{key.id}", ",".join(key.listed_scopes)]
        if key.expires is not None:
            verb = "expired" if key.has_expired() else "expires"
            facts.append(f"{verb} {key.expires.isoformat()}")
        if key.rows_per_s is not None:
            facts.append(f"{key.rows_per_s:g} images/s, {key.burst} at once")
        print("\t".join(facts))


def _add(arguments: argparse.Namespace) -> None:
    path, name = arguments.file, arguments.name
    known = list(read_keys(path).values()) if path.exists() else []
    if not arguments.another and name in {key.name for key in known}:
        raise SettingsError(
            f"{path} has a key of the name {name!r}; give it --another, revoke it, or choose "
            "another name"
        )
    token = new_token()
    key = dataclasses.replace(
        make_key(name, digest_of(token.encode()), arguments.rows_per_s, arguments.burst),
        scopes=parse_scopes(arguments.scopes),
        expires=None if arguments.expires is None else _end(arguments.expires),
    )
    assert parse_line(key.line()) == key
    text = text_of(path, path.read_bytes()) if path.exists() else ""
    write(path, text + ("\n" if text and not text.endswith("\n") else "") + key.line())
    print(token)


def _end(text: str) -> datetime:
    """When a new key expires.

    Raises:
        ValueError: that is no time, or has gone by.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    match = re.fullmatch(r"([0-9]{1,5})([hdw])", text)
    if match is not None:
        end = now + timedelta(**{_UNITS[match[2]]: int(match[1])})
    else:
        try:
            end = parse_time(text)
        except ValueError as error:
            raise ValueError(f"--expires: {error}, or from now on as 12h, 30d or 8w") from None
    if end <= now:
        raise ValueError(f"--expires is {text!r}: that has gone by; give a later time")
    return end


def _revoke(arguments: argparse.Namespace) -> None:
    path, wanted = arguments.file, arguments.name
    known = sorted(read_keys(path).values(), key=lambda key: (key.name, key.id))
    revoked = [key for key in known if wanted in (key.name, f"{key.name}:{key.id}")]
    if not revoked:
        there = ", ".join(f"{key.name}:{key.id}" for key in known) or "none"
        raise SettingsError(f"{path} has no key {wanted!r}; there are: {there}")
    remove_keys(path, _digests(revoked))


def _digests(keys: Sequence[Key]) -> frozenset[bytes]:
    return frozenset(key.digest for key in keys)


if __name__ == "__main__":
    sys.exit(main())

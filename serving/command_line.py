"""Reads the settings of a server: from flags, then from the environment; the flag wins.

Kubernetes puts variables for every Service of a namespace into its pods. Those of a Service whose
name begins with `saddlepoint` begin as settings do, and SADDLEPOINT_PORT is both: they are told
apart, and left alone.
"""

import argparse
import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from serving.errors import SettingsError
from serving.settings import AUTO, PREFIX, Settings, flag, shown_default, variable

PROG = "python -m serving.run"

_OF_SERVICE = re.compile(
    PREFIX
    + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def is_of_kubernetes(key: str, value: str) -> bool:
    """Whether a variable is one that Kubernetes makes for a Service, and no setting."""
    if _OF_SERVICE.fullmatch(key):
        return True
    return key.startswith(PREFIX) and key.endswith("PORT") and bool(_ADDRESS.fullmatch(value))


def of_kubernetes(environ: Mapping[str, str]) -> list[str]:
    """The variables of an environment that are left alone for that reason, sorted."""
    return sorted(key for key, value in environ.items() if is_of_kubernetes(key, value))


def parse(
    argv: Sequence[str], environ: Mapping[str, str] | None = None, *, prog: str = PROG
) -> Settings:
    """Reads settings from flags, then from the environment, then takes defaults.

    Args:
        argv: the arguments, without the program's name.
        environ: the environment; os.environ if None.
        prog: how the program was called, for --help.

    Raises:
        SettingsError: a value can't be read or is out of range, or a variable is unknown.
        SystemExit: argparse ends the program (--help, an unknown flag).
    """
    environ = os.environ if environ is None else environ
    parser = _parser(prog)
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    sources = {name: flag(name) for name in given}
    known = {variable(entry.name): entry.name for entry in dataclasses.fields(Settings)}
    for key in sorted(environ):
        if not key.startswith(PREFIX) or is_of_kubernetes(key, environ[key]):
            continue
        if key not in known:
            raise SettingsError(f"{key} is not a setting; known are {', '.join(known)}")
        if known[key] not in given:
            given[known[key]] = environ[key]
            sources[known[key]] = key
    _move_address(given, sources)
    types = get_type_hints(Settings)
    autos = {e.name for e in dataclasses.fields(Settings) if e.metadata["can_be_auto"]}
    values = {
        name: _convert(types[name], text, sources[name], can_be_auto=name in autos)
        for name, text in given.items()
    }
    return Settings(**values)


def _move_address(given: dict[str, str], sources: dict[str, str]) -> None:
    """A repository elsewhere is copied to a folder of its own: below the user's cache.

    Raises:
        SettingsError: two addresses are given.
    """
    address = given.get("repository", "")
    if "://" not in address:
        return
    if given.get("mirror"):
        raise SettingsError(
            f"{sources['repository']} is {address}, and {sources['mirror']} is given too: name "
            "a folder and an address, or an address alone"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
    given["mirror"], sources["mirror"] = address, sources["repository"]
    given["repository"] = str(cache / "saddlepoint" / f"mirror-{name}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serves the generators of a model repository over HTTP.",
        epilog=f"Every flag can be given as {PREFIX}NAME in the environment; the flag wins.",
    )
    for entry in dataclasses.fields(Settings):
        quoted = f" (default: {default})" if (default := shown_default(entry)) else ""
        parser.add_argument(flag(entry.name), help=entry.metadata["help"] + quoted)
    return parser


def _convert(kind: Any, text: str, source: str, *, can_be_auto: bool = False) -> Any:
    if can_be_auto and text == "auto":
        return AUTO
    try:
        if isinstance(kind, UnionType):  # Path | None
            return Path(text) if text else None
        if items := get_args(kind):
            return tuple(items[0](part.strip()) for part in text.split(",") if part.strip())
        if kind is bool:
            return ("false", "true").index(text) == 1
        value: Any = Path(text) if issubclass(kind, Path) else kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except ValueError:
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        allowed = words.get(kind, "whole numbers") + (" or auto" if can_be_auto else "")
        raise SettingsError(f"{source} is {text!r}, must be {allowed}") from None

"""The hosts that may be told when a long job ends: the setting, read once, and what it allows."""

import functools
import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from serving.errors import SettingsError

PORTS = {"http": 80, "https": 443}
"""Of URLs that name none."""
_MAX_PORT = 65535
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_ENTRY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@]+)(?::([0-9]{1,5}))?")

Host = tuple[str, int | None]
"""A name in lower case, or an address, and its port; None for every port."""


@functools.lru_cache(maxsize=8)
def parse_hosts(entries: tuple[str, ...]) -> frozenset[Host]:
    """Parses what --webhook-hosts has.

    Raises:
        SettingsError: an entry is no host.
    """
    return frozenset(_parse(entry) for entry in entries)


def is_allowed(url: str, entries: Sequence[str]) -> bool:
    """Whether a URL is plain, of http or https, and of one of these hosts.

    A port that the URL leaves out is its scheme's.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        name, port = _canonical(parts.hostname or ""), parts.port
    except ValueError:
        return False
    if parts.scheme not in PORTS or not name or "@" in parts.netloc:
        return False
    wanted = {(name, None), (name, PORTS[parts.scheme] if port is None else port)}
    return bool(wanted & parse_hosts(tuple(entries)))


def _parse(entry: str) -> Host:
    match = _ENTRY.fullmatch(entry.lower())
    port = None if match is None or match[2] is None else int(match[2])
    if match is not None and (port is None or 1 <= port <= _MAX_PORT):
        name = match[1]
        if name[0] != "[" and _NAME.fullmatch(name) and ".." not in name:
            return (name, port)
        if name[0] == "[":
            try:
                return (str(ipaddress.IPv6Address(name[1:-1])), port)
            except ValueError:
                pass
    raise SettingsError(
        f"--webhook-hosts has {entry!r}, allowed are host names and addresses without scheme and "
        "path, each alone or with a port of 1 .. 65535, an IPv6 address in brackets: "
        "hooks.example.org, 192.0.2.7:8080, [2001:db8::7]:9000; name every host by itself"
    )


def _canonical(host: str) -> str:
    """A host as `parse_hosts` has it: an IPv6 address may be written in several ways."""
    return str(ipaddress.IPv6Address(host)) if ":" in host else host

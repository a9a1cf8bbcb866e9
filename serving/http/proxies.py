"""Who a client is, where proxies stand between it and the server.

A proxy says in a header whose request it passes on, and so can anybody who connects: it counts
only where the connection comes from an address that the operator trusts. Each proxy appends whom it
heard, so the list is read from its end, and the first address that is no trusted proxy's is the
client's. Only one header is read, since a client can send the one that the proxy doesn't write.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

from serving.errors import SettingsError

UNIX = "unix"
"""Stands for whoever connects by a Unix socket."""
_MOST_HOPS = 16
_MOST_TEXT = 1024  # of Forwarded: to look for its last element takes the square of its length
# A client may send quotes that never end, so the list can't be read from its beginning: they would
# take in what proxies append. Quoted are only addresses and names, none of which has a comma.
_PAIR = r"""[a-zA-Z]+=(?:"[\w.:\[\]-]*"|[\w.:\[\]-]+)"""
_LAST = re.compile(rf"(?:^|,)[ \t]*((?:{_PAIR})(?:[ \t]*;[ \t]*{_PAIR})*)[ \t]*$", re.ASCII)
_FOR = re.compile(r"""(?:^|;)[ \t]*for="?([^";]*)""", re.IGNORECASE)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that are believed."""

    def __init__(self, trusted: tuple[str, ...], header: str) -> None:
        """Sets up.

        Args:
            trusted: addresses and networks (10.0.0.0/8), and `unix`.
            header: x-forwarded-for or forwarded, which they write.

        Raises:
            SettingsError: an entry is none of these.
        """
        self._trusts_unix = UNIX in trusted
        self._networks = [_network(entry) for entry in trusted if entry != UNIX]
        self._header = header.encode("ascii")
        self._hops = _forwarded if header == "forwarded" else _listed

    def client(self, peer: str, header: Callable[[bytes], bytes | None]) -> str:
        """Returns the address of a request's client, as far as it can be known.

        Args:
            peer: who has connected: an address, or `unix`.
            header: gives the value of a header, all lines of it, by its lower-case name.
        """
        if not self._trusts(peer):
            return peer
        client = peer
        for hop in self._hops((header(self._header) or b"").decode("latin-1")):
            address = _address(hop)
            if address is None:  # hidden, or damaged: who stands before it is not known
                break
            client = str(address)
            if not self._trusts(client):
                break
        return client

    def _trusts(self, peer: str) -> bool:
        if peer == UNIX:
            return self._trusts_unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(
            f"--trusted-proxies has {text!r} ({error}), allowed are addresses, networks such as "
            "10.0.0.0/8, and unix"
        ) from None


def _listed(text: str) -> Iterator[str]:
    """The hops of X-Forwarded-For, the nearest first."""
    return (hop.strip() for hop in reversed(text.split(",")[-_MOST_HOPS:]) if hop.strip())


def _forwarded(text: str) -> Iterator[str]:
    """The hops of Forwarded (RFC 7239), the nearest first; empty where an element says none."""
    if len(text) > _MOST_TEXT:
        text = "," + text[-_MOST_TEXT:].partition(",")[2]  # not the rest of an element
    for _ in range(_MOST_HOPS):
        last = _LAST.search(text)
        if last is None:  # at the end, or nothing that a proxy writes
            return
        found = _FOR.search(last[1])
        yield found[1] if found else ""
        text = text[: last.start()]


def _address(hop: str) -> Address | None:
    """The address of a hop, which may have a port: 192.0.2.7:80, [2001:db8::1]:80."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        address = ipaddress.ip_address(hop.partition("%")[0])  # a scope may be any text
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

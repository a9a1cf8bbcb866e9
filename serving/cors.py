"""Which web pages may ask: cross-origin resource sharing, off unless origins are named.

Keys travel in a header that a page must set itself, never in cookies: credentials are not allowed,
and so wildcards are safe where the Fetch standard has them.
"""

from serving.errors import SettingsError

ANY = "*"
_MAX_AGE_S = b"7200"


class Cors:
    """The origins that may ask."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """origins: as checked by `check_origins`; empty: no page of another origin may ask."""
        self.on = bool(origins)
        self._any = ANY in origins
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def headers(self, origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer to a request of this origin carries."""
        if self._any:
            return (
                (b"access-control-allow-origin", b"*"),
                (b"access-control-expose-headers", b"*"),
            )
        if origin not in self._origins or origin is None:
            return ((b"vary", b"origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"*"),
            (b"vary", b"origin"),
        )


def preflight_headers(allow: str) -> tuple[tuple[bytes, bytes], ...]:
    """What the answer to OPTIONS adds; allow: the methods of the route."""
    return (
        (b"access-control-allow-methods", allow.encode("ascii")),
        (b"access-control-allow-headers", b"*, authorization"),  # the one that * doesn't cover
        (b"access-control-max-age", _MAX_AGE_S),
    )


def check_origins(origins: tuple[str, ...]) -> None:
    """Raises SettingsError for what a browser would never send as Origin."""
    for origin in origins:
        scheme, _, host = origin.partition("://")
        plain = host.isascii() and host == host.lower() and not set(host) & set("/?#@ ")
        if origin != ANY and not (scheme in ("http", "https") and host and plain):
            raise SettingsError(
                f"--cors-origins has {origin!r}, allowed are * and origins as browsers send them: "
                "https://example.org, http://localhost:3000 (lower case, no path)"
            )

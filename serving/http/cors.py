"""Cross-origin resource sharing: which web pages may use this server; off unless origins are named.

Keys come in a header that a page must set itself, never in cookies. So credentials are not allowed,
and the wildcards of the Fetch standard are safe.
"""

ANY = "*"
_MAX_AGE_S = b"7200"


class Cors:
    """The origins whose pages may use the server."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """origins: as `Settings` checked them; empty if no page of another origin may ask."""
        self.on = bool(origins)
        self._any = ANY in origins
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def headers(self, origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        """Returns the headers of every response to a request of this origin."""
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
    """Returns the headers that a response to OPTIONS adds; allow: the methods of the route."""
    return (
        (b"access-control-allow-methods", allow.encode("ascii")),
        (b"access-control-allow-headers", b"*, authorization"),  # the one that * doesn't cover
        (b"access-control-max-age", _MAX_AGE_S),
    )

"""API keys and their rates, for both paths of a request.

Without a key file every request is let in. With one, a request needs a key unless its path is in
`OPEN`; a path that doesn't exist needs one too.
"""

import math
from collections.abc import Callable

from serving.errors import (
    InvalidRequestProblem,
    RateLimitedProblem,
    ScopeProblem,
    UnauthorizedProblem,
)
from serving.http.rate_limit import RateLimiter
from serving.keys.key import SCOPES, Key, digest_of
from serving.keys.key_file import Keys

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
"""Paths that need no key: probes, which carry none, and the description of the server."""

_CHALLENGE = b'Bearer realm="saddlepoint"'

Header = Callable[[bytes], bytes | None]


class AccessControl:
    """The API keys that are valid in this process, and what each may still ask for."""

    def __init__(self, keys: Keys | None, rates: RateLimiter) -> None:
        """keys: None lets everyone in. rates: what the keys may still ask for."""
        self.keys_required = keys is not None
        self._keys: Keys = keys or {}
        self._rates = rates

    def replace(self, keys: Keys) -> None:
        """Makes these keys valid, and no others."""
        self._keys = keys

    def find(self, header: Header) -> Key | None:
        """Returns the key of a request, by its headers; None if it has no valid one."""
        key = self._known(header)
        return None if key is None or key.has_expired() else key

    def check(self, header: Header) -> Key | None:
        """Returns the key of a request, by its headers; None if the server needs none.

        Raises:
            UnauthorizedProblem: the request has no valid one.
        """
        key = self.find(header)
        if key is None and self.keys_required:
            raise _unauthorized(header(b"authorization"), self._known(header))
        return key

    def named(self, name: str, scope: str) -> Key | None:
        """A valid key of a name that has a scope; None if there is none.

        A name may have several keys, and not all of them the scope.
        """
        keys = (key for key in self._keys.values() if key.name == name and scope in key.scopes)
        return next((key for key in keys if not key.has_expired()), None)

    def _known(self, header: Header) -> Key | None:
        """The key of a request, valid or expired."""
        text = header(b"authorization") if self.keys_required else None
        if text is None:
            return None
        scheme, _, token = text.partition(b" ")
        return self._keys.get(digest_of(token.strip())) if scheme.lower() == b"bearer" else None

    def charge(self, key: Key, num_rows: int) -> None:
        """Counts images against the rate of a key.

        Raises:
            RateLimitedProblem: the key asks too fast.
            InvalidRequestProblem: the key may never ask for so many at once.
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


def check_scope(key: Key | None, scopes: frozenset[str]) -> None:
    """Lets a key do what any of some scopes allows; None is no key, where none is needed.

    Raises:
        ScopeProblem: it has none of them.
    """
    if key is not None and not key.scopes & scopes:
        needed = " or ".join(scope for scope in SCOPES if scope in scopes)
        raise ScopeProblem(
            f"key {key.name!r} has the scopes {', '.join(key.listed_scopes)}, this needs {needed}; "
            "use another key",
            headers=((b"www-authenticate", _CHALLENGE + b', error="insufficient_scope"'),),
        )


def _unauthorized(given: bytes | None, expired: Key | None) -> UnauthorizedProblem:
    challenge = _CHALLENGE
    if given is None:
        detail = "the header Authorization is missing; send Authorization: Bearer KEY"
    elif expired is not None and expired.expires is not None:
        detail = (
            f"key {expired.name!r} has expired at {expired.expires.isoformat()}; ask the operator "
            "for a new key"
        )
        challenge += b', error="invalid_token"'
    else:  # never shown: it may be a key with a typing mistake
        detail = (
            "the header Authorization holds no valid key; send Authorization: Bearer "
            "KEY, or ask the operator for a new key"
        )
        challenge += b', error="invalid_token"'
    return UnauthorizedProblem(detail, headers=((b"www-authenticate", challenge),))

"""Sends single HTTP requests to one server: the only module that uses httpx.

It also checks what every request needs: the server's URL and the API key.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "serving.client needs httpx: pip install '.[client]' in Saddlepoint's source folder",
        name=error.name,
    ) from error

from serving.client.errors import ForeignAnswerError, InvalidRequestError
from serving.client.responses import Response


class NoResponseError(Exception):
    """The connection failed, or the response was not complete in time."""


class Transport:
    """Connections to one server, kept open between requests."""

    def __init__(self, url: str) -> None:
        """Opens no connection yet.

        Raises:
            InvalidRequestError: no server can have this URL.
        """
        base = parse_url(url)
        # httpx restarts its own time-out with each part of a response; `send` bounds the whole.
        # It reads this system's certificates, which takes 25 ms, where there are any to check.
        self._http = httpx.AsyncClient(base_url=base, timeout=None, verify=base.scheme == "https")

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> Response:
        """Sends a request once and reads the complete response.

        Raises:
            NoResponseError: the connection failed, or timeout_s passed.
            ForeignAnswerError: the body can't be decompressed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                got = await self._http.request(method, path, content=content, headers=headers)
        except TimeoutError:
            raise NoResponseError(f"no complete response within {timeout_s:.3g} s") from None
        except httpx.DecodingError as error:
            raise ForeignAnswerError(
                f"the response does not match its Content-Encoding: {error}; check that the URL "
                "is the server's, and what proxies do on the way"
            ) from error
        except httpx.RequestError as error:
            raise NoResponseError(str(error) or type(error).__name__) from error
        return Response(got.status_code, got.headers, got.content)

    async def save(
        self,
        path: str,
        write: Callable[[bytes], Any],
        *,
        headers: dict[str, str],
        timeout_s: float,
    ) -> Response:
        """Sends a GET once and writes the body of its answer piece by piece.

        timeout_s: for each piece, as the whole may take long.

        Returns:
            The response without its body; of a problem with it, and nothing was written.

        Raises:
            NoResponseError: the connection failed, or nothing came for timeout_s.
        """
        limit = httpx.Timeout(timeout_s)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=limit) as got:
                if got.status_code >= 300:
                    return Response(got.status_code, got.headers, await got.aread())
                async for piece in got.aiter_raw():
                    write(piece)
        except httpx.RequestError as error:
            raise NoResponseError(str(error) or type(error).__name__) from error
        return Response(got.status_code, got.headers, b"")


def parse_url(url: str) -> httpx.URL:
    """Parses the URL of a server, which may have a path.

    Raises:
        InvalidRequestError: no server can have this URL.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _invalid(url, f" ({error})") from None
    if parsed.scheme not in ("http", "https") or not _can_be_resolved(parsed.raw_host):
        raise _invalid(url)
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise _invalid(url, " with a port in 1 .. 65535")
    if parsed.query or parsed.fragment:
        raise _invalid(url, " without ? and #")
    return parsed


def check_key(key: str) -> None:
    """Checks that an HTTP header can carry an API key; the message does not repeat the key.

    Raises:
        InvalidRequestError: it can't.
    """
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidRequestError(
            "the API key must be one or more visible ASCII characters, and nothing else"
        )


def _can_be_resolved(host: bytes) -> bool:
    name = host.decode("ascii")
    try:
        if ":" in name:
            ipaddress.IPv6Address(name)
        else:
            name.encode("idna")  # refuses what the resolver would: labels empty or too long
    except ValueError:
        return False
    return bool(name) and "%20" not in name


def _invalid(url: str, why: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"the URL is {url!r}, must be like http://127.0.0.1:8000{why}")

"""One POST, by HTTP/1.1, to a server that may answer slowly, for ever, or with anything.

Time and bytes are bounded for the whole of it, not for each part, and its end ends the connection:
what is cancelled holds nothing. No redirect is followed. Proxies are those of the environment
(http_proxy, https_proxy, no_proxy).
"""

import asyncio
import base64
import functools
import re
import socket
import ssl
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from serving.observability.loops import in_thread
from serving.webhook_hosts import PORTS

TIMEOUT_S = 10.0
"""For the whole exchange."""
MAX_HEAD_BYTES = 64 << 10
"""That are read of an answer; its body is not."""
_MOST_ADDRESSES = 4
_CONNECT_S = 3.0
"""For one address, so that others of the host have time."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: .*)?\r?\n")


class ExchangeError(Exception):
    """There was no answer."""


async def post(url: str, body: bytes, timeout_s: float = TIMEOUT_S) -> int:
    """Sends JSON; gives the status of the answer.

    Raises:
        ExchangeError: there was none in time, or none of HTTP.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await _post(urlsplit(url), body)
    except (OSError, ValueError, EOFError) as error:
        text = f"it did not answer within {timeout_s:g} s" if limit.expired() else str(error)
        raise ExchangeError(text) from error


async def _post(url: SplitResult, body: bytes) -> int:
    proxy, host = _proxy(url), url.hostname or ""
    port = url.port or PORTS[url.scheme]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = ""
    context = None
    if url.scheme == "https":  # reads certificates from the disk
        context = await in_thread(ssl.create_default_context, "webhook")
    if proxy is None:
        reader, writer = await _connected(host, port, context)
    else:
        reader, writer = await _connected(proxy.hostname or "", proxy.port or 80, None)
    try:
        if proxy is not None and context is not None:
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            writer.write(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n{_login(proxy)}\r\n".encode())
            status = await _status(reader)
            if status != 200:
                raise ValueError(f"the proxy answered {status}")
            await writer.start_tls(context, server_hostname=host)
        elif proxy is not None:
            target, headers = f"{url.scheme}://{url.netloc}{target}", _login(proxy)
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
        )
        writer.write(head.encode("ascii") + body)
        return await _status(reader)
    finally:
        writer.transport.abort()  # close() would wait for the other side


async def _connected(
    host: str, port: int, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # asyncio's own look-up has a thread that the end of a process waits for.
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    addresses = [str(found[4][0]) for found in await in_thread(look_up, "webhook")]
    failed: OSError = OSError("it has no address")
    for address in addresses[:_MOST_ADDRESSES]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await asyncio.open_connection(
                    address,
                    port,
                    ssl=context,
                    server_hostname=None if context is None else host,
                    limit=MAX_HEAD_BYTES,
                )
        except TimeoutError:
            failed = OSError(f"no connection to {address} within {_CONNECT_S:g} s")
        except OSError as error:
            failed = error
    raise failed


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of an answer whose head was read; those that announce another are passed over."""
    num_bytes = status = 0
    while True:
        line = await reader.readline()
        num_bytes += len(line)
        if num_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"the head of its answer has over {MAX_HEAD_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise EOFError("it ended the connection without an answer")
        if status == 0:
            match = _STATUS.fullmatch(line)
            if match is None:
                raise ValueError("its answer is no HTTP/1.1")
            status = int(match[1])
        elif not line.rstrip(b"\r\n"):
            if status >= 200:
                return status
            status = 0


def _proxy(url: SplitResult) -> SplitResult | None:
    found = urllib.request.getproxies().get(url.scheme)
    if not found or urllib.request.proxy_bypass(url.netloc):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http":
        raise ValueError(f"the proxy of {url.scheme} is no http:// URL: set {url.scheme}_proxy")
    return proxy


def _login(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return f"Proxy-Authorization: Basic {base64.b64encode(words).decode('ascii')}\r\n"

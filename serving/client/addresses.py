"""Where a server is: its URL, checked before anything is sent there."""

import ipaddress

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "serving.client needs httpx: pip install 'saddlepoint[client]'", name=error.name
    ) from error

from serving.client.errors import InvalidRequestError


def address_of(url: str) -> httpx.URL:
    """The URL of a server, which may lie below a path.

    Raises:
        InvalidRequestError: nothing can be there.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _refused(url, f" ({error})") from None
    if address.scheme not in ("http", "https") or not _can_be_looked_up(address.raw_host):
        raise _refused(url)
    if address.port is not None and not 1 <= address.port <= 65535:
        raise _refused(url, " with a port in 1 .. 65535")
    if address.query or address.fragment:
        raise _refused(url, " without ? and #")
    return address


def _can_be_looked_up(host: bytes) -> bool:
    name = host.decode("ascii")
    try:
        if ":" in name:
            ipaddress.IPv6Address(name)
        else:
            name.encode("idna")  # refuses what the resolver would: labels empty or too long
    except ValueError:
        return False
    return bool(name) and "%20" not in name


def _refused(url: str, why: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"the URL is {url!r}, must be like http://127.0.0.1:8000{why}")

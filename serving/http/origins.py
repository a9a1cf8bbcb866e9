"""Which web pages may change what is served: none but the server's own, and those that are named.

A page of any origin can make its visitor's browser send a plain POST to a server that only the
visitor reaches: on localhost, or in a company's network. Browsers always say with a POST whose page
it is (Origin, Sec-Fetch-Site), and clients that are no browsers say nothing: those go on working.
A name under the attacker's control can be made to point at this server afterwards (DNS rebinding),
which makes the attacker's page and the server one origin: so a page may only be of a host that
can't be such a name, or that the operator has named.
"""

import ipaddress
from collections.abc import Callable

from serving.errors import ForeignPageProblem, quoted
from serving.http.cors import ANY

_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_FORM = b"application/x-www-form-urlencoded"


class Origins:
    """The pages that may."""

    def __init__(self, cors_origins: tuple[str, ...], allowed_hosts: tuple[str, ...]) -> None:
        """As `Settings` has checked them."""
        named = (origin for origin in cors_origins if origin != ANY)  # every page is no page's name
        self._origins = frozenset(origin.encode("ascii") for origin in named)
        self._hosts = frozenset(host.encode("ascii") for host in allowed_hosts)

    def check(self, header: Callable[[bytes], bytes | None]) -> None:
        """Looks at the headers of a request that would change something.

        Raises:
            ForeignPageProblem: a page of another origin may have sent it.
        """
        origin, site = header(b"origin"), header(b"sec-fetch-site")
        from_browser = origin is not None or site is not None
        self._check_type(header(b"content-type"), from_browser)
        named = origin in self._origins
        if origin is not None:
            host = (header(b"host") or b"").lower()
            if not named and not _is_origin_of(origin, host):
                raise ForeignPageProblem(
                    f"Origin is {quoted(origin)}, Host is {quoted(host)}: pages of other origins "
                    "may not load or unload models; the operator can name the origin in "
                    "--cors-origins"
                )
            self._check_host(host)
        if site is not None and site.lower() == b"cross-site" and not named:
            raise ForeignPageProblem(
                "Sec-Fetch-Site is cross-site: pages of other sites may not load or unload models; "
                "the operator can name the page's origin in --cors-origins"
            )

    def _check_host(self, host: bytes) -> None:
        name = _without_port(host)
        if name in self._hosts or name == b"localhost" or name.endswith(b".localhost"):
            return
        try:
            ipaddress.ip_address(name.strip(b"[]").decode("ascii"))
        except ValueError:
            raise ForeignPageProblem(
                f"Host is {quoted(host)}, a name that somebody may have pointed at this server; "
                "pages may load or unload models where it is an IP address or localhost; the "
                "operator can name it in --allowed-hosts"
            ) from None

    @staticmethod
    def _check_type(given: bytes | None, from_browser: bool) -> None:
        kind = (given or b"").partition(b";")[0].strip().lower()
        if kind in (b"", b"application/json") or kind.endswith(b"+json"):
            return
        if kind == _FORM and not from_browser:
            return  # what curl -d calls everything
        raise ForeignPageProblem(
            f"Content-Type is {quoted(kind)}, must be application/json, or absent: a page of any "
            "origin can send the others"
        )


def _is_origin_of(origin: bytes, host: bytes) -> bool:
    """True where a page of this origin was loaded from this host.

    Either scheme will do: behind a proxy that ends TLS, the server doesn't know the page's.
    """
    scheme, _, authority = origin.lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and _with_port(authority, port) == _with_port(host, port)


def _without_port(host: bytes) -> bytes:
    """A host's name or address; an IPv6 address keeps its brackets."""
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1]
    return host.partition(b":")[0]


def _with_port(host: bytes, default: bytes) -> bytes:
    name = _without_port(host)
    return name + b":" + (host[len(name) + 1 :] or default)

"""The pages for a browser: the playground at /, the API's description at /docs.

Plain files of `serving/web`, read once; nothing is loaded from anywhere else, and a policy says so.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from serving.http import Exchange, Headers, Reply
from serving.router import Route
from serving.validators import matches

_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/web/style.css": ("style.css", "text/css; charset=utf-8"),
    "/web/playground.js": ("playground.js", "text/javascript; charset=utf-8"),
    "/web/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/web/shell.js": ("shell.js", "text/javascript; charset=utf-8"),
}
PATHS = frozenset(_PAGES)
"""What a browser may load without a key: the pages themselves say nothing."""

_POLICY = b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    media_type: str
    headers: Headers


class Site:
    """One handler for all pages."""

    def __init__(self) -> None:
        folder = files("serving") / "web"
        self._pages = {
            path: _page((folder / name).read_bytes(), media_type)
            for path, (name, media_type) in _PAGES.items()
        }

    def routes(self) -> list[Route]:
        """The pages."""
        return [Route(path, {"GET": self.page}) for path in self._pages]

    async def page(self, exchange: Exchange) -> Reply:
        """GET of any page."""
        page = self._pages[exchange.scope["path"]]
        tag = dict(page.headers)[b"etag"]
        if matches(exchange.header(b"if-none-match"), tag):
            return Reply(b"", status=304, headers=page.headers, sized=False)
        return Reply(page.body, page.media_type, headers=page.headers)


def _page(body: bytes, media_type: str) -> _Page:
    tag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
    headers = (
        (b"etag", tag),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return _Page(body, media_type, headers)

"""Serves the pages for a browser: the playground at /, Swagger UI at /docs.

Their files lie in `serving/web`, of which every script and style is served; those of Swagger UI in
the package `fastapi-swagger`, of which nothing else is used. They are read once. The browser may
load nothing from elsewhere: the policy says so, and Swagger UI needs no exception from it.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from serving.api.operations import Operation
from serving.api.router import Route
from serving.http.conditional import matches
from serving.http.messages import Headers, Request, Response

_HTML = "text/html; charset=utf-8"
_CSS = "text/css; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_MEDIA_TYPES = {".css": _CSS, ".js": _SCRIPT}


def _files_of(folder: str) -> dict[str, tuple[str, str]]:
    """Path to file and media type, of all scripts and styles below a folder of ours."""
    package, _, rest = folder.partition("/")
    found: dict[str, tuple[str, str]] = {}
    for entry in sorted((files(package) / rest).iterdir(), key=lambda entry: entry.name):
        name = f"{folder}/{entry.name}"
        media_type = _MEDIA_TYPES.get(entry.name[entry.name.rfind(".") :])
        if entry.is_dir():
            found |= _files_of(name)
        elif media_type:
            found[name.removeprefix(package)] = (name, media_type)
    return found


_PAGES = {
    "/": ("serving/web/index.html", _HTML),
    "/docs": ("serving/web/docs.html", _HTML),
    **_files_of("serving/web"),
    "/web/swagger-ui.css": ("fastapi_swagger/resources/swagger-ui.css", _CSS),
    "/web/swagger-ui-bundle.js": ("fastapi_swagger/resources/swagger-ui-bundle.js", _SCRIPT),
}
PATHS = frozenset(_PAGES)
"""What a browser may load without a key: these files hold no secret."""

_OPERATIONS = {
    path: Operation(
        id=id,
        summary=summary,
        tag="Pages",
        response="The page.",
        content={"text/html": str},
        has_etag=True,
    )
    for path, id, summary in (
        ("/", "playground", "A playground."),
        ("/docs", "docs", "This description, in Swagger UI."),
    )
}
_POLICY = b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    media_type: str
    headers: Headers


class Pages:
    """The handler of all pages."""

    def __init__(self) -> None:
        self._pages = {path: _read(*page) for path, page in _PAGES.items()}

    def routes(self) -> list[Route]:
        """Lists the pages, and the files that they load."""
        return [Route("GET", path, self.page, _OPERATIONS.get(path)) for path in self._pages]

    async def page(self, request: Request) -> Response:
        """Responds with the page at the request's path, or with 304 if the client has it."""
        page = self._pages[request.scope["path"]]
        tag = dict(page.headers)[b"etag"]
        if matches(request.header(b"if-none-match"), tag):
            return Response(b"", status=304, headers=page.headers, sized=False)
        return Response(page.body, page.media_type, headers=page.headers)


def _read(name: str, media_type: str) -> _Page:
    package, _, rest = name.partition("/")
    body = (files(package) / rest).read_bytes()
    tag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
    headers = (
        (b"etag", tag),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return _Page(body, media_type, headers)

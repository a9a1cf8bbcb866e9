"""The head of an HTTP/1 request, read strictly (RFC 9110 and 9112), once for every road.

Whatever two readers could understand in two ways is refused: a proxy in front that reads it the
other way would let one request hide in another. Line ends are CRLF, names are tokens, values hold
no control characters, lines aren't folded, and there is one Host and one way to tell the body's
length.
"""

import functools
import re
from dataclasses import dataclass
from urllib.parse import unquote

from serving.errors import (
    ExpectationProblem,
    LongHeadProblem,
    LongPathProblem,
    NotHttpProblem,
    Problem,
    TransferCodingProblem,
    quoted,
)
from serving.http.messages import CLOSE

MAX_HEAD_BYTES = 32 << 10
"""Of the request line, and of the headers; what nginx reads too."""

HUGE = 10**18
"""Stands for a Content-Length that no counter of bytes could hold."""

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127))
# A control character, a line feed without its carriage return, or the other way round.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
# What browsers leave as it is in a path and query; everything else must come as %XX.
_TARGET = re.compile(rb"[!$-;=?-~]+")
_VERSION = re.compile(rb"HTTP/1\.[0-9]")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
_HOST = re.compile(rb"(?:[A-Za-z0-9!$&'()*+,;=._~%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# Several lines of these are one list (RFC 9110, 5.3).
_LISTS = frozenset(
    (
        *(b"accept", b"accept-encoding", b"connection", b"expect", b"forwarded"),
        *(b"if-none-match", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        b"x-forwarded-for",
    )
)
# A second line of these would leave it open which one counts.
_ONCE = frozenset(
    (
        *(b"authorization", b"content-encoding", b"content-length", b"content-type", b"host"),
        *(b"inference-header-content-length", b"origin"),
    )
)
SLASH = "%2F"
"""A slash within a segment of a path, as a decoded path has it."""


@dataclass(slots=True)
class RequestLine:
    """The first line of a request."""

    method: str
    path: str
    """Decoded but for slashes, without the root path; "*" where the whole server is meant, and
    empty where the root path itself is."""
    raw_path: bytes
    query: bytes
    is_http_1_0: bool
    authority: bytes | None
    """Host and port, where the target is a whole URL."""


@dataclass(slots=True)
class Head:
    """A request's head, and what it says of the connection and of the body."""

    line: RequestLine
    headers: list[tuple[bytes, bytes]]
    """In their order, with lower-case names."""
    fields: dict[bytes, bytes]
    """By name: the first value, and of lists the whole list."""
    keep_alive: bool
    length: int
    """Of the body, in bytes; 0 where it is chunked."""
    chunked: bool
    expects_continue: bool
    """The client waits for 100 before it sends the body."""

    @property
    def has_body(self) -> bool:
        """True where bytes of a body follow."""
        return self.chunked or self.length > 0


def malformed(detail: str) -> NotHttpProblem:
    """What can't be read as HTTP: it is answered 400, and ends the connection."""
    return NotHttpProblem(detail, headers=(CLOSE,))


def find_end(data: bytes, start: int = 0) -> int:
    """Where the blank line after a head begins, or -1 where it has not come yet.

    start: no line ends before it; so much was looked at already.

    Raises:
        Problem: what has come is already too long, or no HTTP.
    """
    end = data.find(b"\r\n\r\n", start, 2 * MAX_HEAD_BYTES + 4)
    if end < 0:
        _check_begun(data, start)
    return end


def read_head(block: bytes, root_path: str = "") -> Head:
    """Reads a head, without the blank line at its end. Heads are shared: nobody may change one.

    root_path: taken off the beginning of paths that have it.

    Raises:
        NotHttpProblem: it breaks a rule of HTTP.
        LongPathProblem: its first line is longer than MAX_HEAD_BYTES.
        LongHeadProblem: the others are, together.
        ExpectationProblem: it expects something else than 100-continue.
        TransferCodingProblem: the body is coded in another way than chunked.
    """
    read = _cached_head if len(block) <= 512 else _read_head
    return read(block, root_path)


def _read_head(block: bytes, root_path: str) -> Head:
    lines = block.split(b"\r\n")
    num_first = len(lines[0])
    if num_first > MAX_HEAD_BYTES:
        raise _long_path()
    if len(block) - num_first > MAX_HEAD_BYTES:
        raise _long_head()
    # Deleting all text leaves the line ends that `split` has found, and nothing else.
    if len(block.translate(None, _TEXT)) != 2 * (len(lines) - 1):
        raise _control(block)
    line = _read_line(lines[0], root_path)
    headers: list[tuple[bytes, bytes]] = []
    fields: dict[bytes, bytes] = {}
    for text in lines[1:]:
        field = _cached_field(text) if len(text) <= 96 else _read_field(text)
        headers.append(field)
        name, value = field
        if name not in fields:
            fields[name] = value
        elif name in _LISTS:
            fields[name] += b", " + value
        elif name in _ONCE:
            raise malformed(f"the header {name.decode()} is there twice; send it once")
    _check_host(line, fields)
    if line.authority is not None:  # RFC 9112, 3.2.2: the header doesn't count then
        fields[b"host"] = line.authority
        headers = [entry for entry in headers if entry[0] != b"host"]
        headers.append((b"host", line.authority))
    length, chunked = _framing(line, fields)
    keep_alive = _keeps_alive(line, fields.get(b"connection"))
    expects = b"expect" in fields and _expects_continue(line, fields[b"expect"])
    return Head(line, headers, fields, keep_alive, length, chunked, expects)


# ... and many of them, whole heads.
_cached_head = functools.lru_cache(maxsize=256)(_read_head)


def check_trailer(line: bytes) -> None:
    """Raises NotHttpProblem where a trailer is no header; what it says is not used."""
    if line.translate(None, _TEXT):
        raise _bad_line(line)
    _read_field(line)


def _check_begun(data: bytes, start: int) -> None:
    """Refuses as soon as it is clear that no good head will come of what has come."""
    if _CONTROL.search(data, max(0, start - 1)) or data[:1].translate(None, _TOKEN):
        raise _control(data)
    first = data.find(b"\r\n")
    if first > MAX_HEAD_BYTES or (first < 0 and len(data) > MAX_HEAD_BYTES):
        # A first line without a space in sight is no request for a long path.
        raise _long_path() if b" " in data[:MAX_HEAD_BYTES] else _control(data)
    if first >= 0 and len(data) - first > MAX_HEAD_BYTES:
        raise _long_head()


def _read_line(line: bytes, root_path: str) -> RequestLine:
    parts = line.split(b" ")
    if len(parts) != 3 or not _VERSION.fullmatch(parts[2]):
        raise malformed(
            f"the first line is {quoted(line)}, must be METHOD PATH HTTP/1.1; this port speaks "
            "HTTP/1.1, without TLS"
        )
    method, target, version = parts
    if not method or method.translate(None, _TOKEN):
        raise malformed(f"the method is {quoted(method)}, must be a word such as GET or POST")
    authority = None
    if not _TARGET.fullmatch(target):
        raise malformed(
            f"the path is {quoted(target)}; send characters other than letters, digits and "
            "punctuation as %XX"
        )
    if absolute := _ABSOLUTE.fullmatch(target):
        authority, target = absolute[1], absolute[2]
        if not target.startswith(b"/"):  # http://host?query
            target = (b"*" if method == b"OPTIONS" and not target else b"/") + target
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        raise malformed(f"the path is {quoted(target)}, must begin with /")
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    path = _unquoted(path) if "%" in path else path
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        path = path[len(root_path) :]
    return RequestLine(
        method=method.decode("ascii"),
        path=path,
        raw_path=raw_path,
        query=query,
        is_http_1_0=version == b"HTTP/1.0",
        authority=authority,
    )


def _unquoted(path: str) -> str:
    """Decodes each segment; a slash in one stays encoded, so that it divides nothing."""
    return "/".join(unquote(segment).replace("/", SLASH) for segment in path.split("/"))


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    """A header's lower-case name, and its value."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, _TOKEN):
        raise _bad_line(line)
    return name.lower(), value.strip(b" \t")


# Clients send most of their headers again and again.
_cached_field = functools.lru_cache(maxsize=1024)(_read_field)


@functools.lru_cache(maxsize=256)
def _is_host(text: bytes) -> bool:
    return len(text) <= 300 and _HOST.fullmatch(text) is not None


def _check_host(line: RequestLine, fields: dict[bytes, bytes]) -> None:
    host = fields.get(b"host")
    if host is None:
        if not line.is_http_1_0:
            raise malformed("the header Host is missing; HTTP/1.1 needs it")
    elif not _is_host(host):
        raise malformed(f"the header Host is {quoted(host)}, must be a host, or HOST:PORT")
    if line.authority is not None and not _is_host(line.authority):
        raise malformed(f"the URL's host is {quoted(line.authority)}, must be HOST or HOST:PORT")


def _framing(line: RequestLine, fields: dict[bytes, bytes]) -> tuple[int, bool]:
    """The body's length, and whether it comes in chunks."""
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise malformed("Content-Length and Transfer-Encoding are both there; send one")
        if line.is_http_1_0:
            raise malformed("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
        codings = [part.strip(b" \t").lower() for part in coding.split(b",")]
        if codings != [b"chunked"]:
            if codings[-1] == b"chunked" and codings.count(b"chunked") == 1 and all(codings):
                raise TransferCodingProblem(
                    f"Transfer-Encoding is {quoted(coding)}, allowed is chunked; compress a body "
                    "with Content-Encoding",
                    headers=(CLOSE,),
                )
            raise malformed(f"Transfer-Encoding is {quoted(coding)}, must be chunked")
        return 0, True
    if length is None:
        return 0, False
    if not length.isdigit():
        raise malformed(f"Content-Length is {quoted(length)}, must be a whole number")
    digits = length.lstrip(b"0")
    return (int(digits or b"0") if len(digits) <= 18 else HUGE), False


def _keeps_alive(line: RequestLine, connection: bytes | None) -> bool:
    if connection is None:
        return not line.is_http_1_0
    tokens = [token.strip(b" \t") for token in connection.lower().split(b",")]
    if b"close" in tokens:
        return False
    return not line.is_http_1_0 or b"keep-alive" in tokens


def _expects_continue(line: RequestLine, expect: bytes) -> bool:
    if line.is_http_1_0:  # RFC 9110, 10.1.1: HTTP/1.0 expects nothing
        return False
    if expect.lower() != b"100-continue":
        raise ExpectationProblem(
            f"Expect is {quoted(expect)}, allowed is 100-continue; leave it out", headers=(CLOSE,)
        )
    return True


def _control(data: bytes) -> Problem:
    found = _CONTROL.search(data)
    if found is not None and b" HTTP/" in data[:MAX_HEAD_BYTES]:
        return malformed(
            f"the head holds the byte {found[0]!r} where none may be; end lines with CR LF, and "
            "send no control characters"
        )
    return malformed(
        f"what came begins with {quoted(data[:16])}; this port speaks HTTP/1.1, without TLS"
    )


def _bad_line(text: bytes) -> Problem:
    if text[:1] in (b" ", b"\t"):
        return malformed("a header goes on in a second line; send it in one")
    name = text.partition(b":")[0]
    if name != name.rstrip(b" \t"):
        return malformed(f"there is a space before the colon of the header {quoted(name.rstrip())}")
    return malformed(f"{quoted(text)} is no header; send NAME: VALUE")


def _long_path() -> Problem:
    return LongPathProblem(
        f"path and query have more than {MAX_HEAD_BYTES} bytes; send them in a body",
        headers=(CLOSE,),
    )


def _long_head() -> Problem:
    return LongHeadProblem(
        f"the headers have more than {MAX_HEAD_BYTES} bytes; send fewer", headers=(CLOSE,)
    )

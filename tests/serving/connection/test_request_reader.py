"""Bytes to requests, however they are cut."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.connection.request_head import MAX_HEAD_BYTES, Head, read_head
from serving.connection.request_reader import RequestReader
from serving.errors import Problem

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nAccept: a\r\nAccept: b\r\n\r\n"
SIZED = b"POST /s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: u\r\n\r\n"
)
EMPTY = b"\r\nPOST /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
REQUESTS = {
    GET: ("/a b", b""),
    SIZED: ("/s", b"hello"),
    CHUNKED: ("/c", b"hello"),
    EMPTY: ("/e", b""),
}


def read(
    pieces: list[bytes], found: list[tuple[str, bytes]] | None = None
) -> list[tuple[str, bytes]]:
    """Paths and bodies of the requests that are complete."""
    reader, found = RequestReader(), [] if found is None else found
    head: Head | None = None
    body = b""
    for piece in pieces:
        reader.feed(piece)
        while True:
            if head is None:
                head, body = reader.read_head(), b""
                if head is None:
                    break
            if reader.body is not None and reader.num_bytes:
                body += b"".join(reader.read_body())
            if reader.body is not None:
                break
            found.append((head.line.path, body))
            head = None
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(ends) if start < stop]


@given(st.lists(st.sampled_from(list(REQUESTS)), max_size=5), st.lists(st.integers(0), max_size=9))
def test_requests_are_the_same_however_they_are_cut(asked: list[bytes], places: list[int]) -> None:
    assert read(cut(b"".join(asked), places)) == [REQUESTS[each] for each in asked]


@given(st.binary(max_size=200), st.sampled_from([b"", *REQUESTS]), st.data())
def test_whatever_comes_is_read_or_is_a_problem(noise: bytes, asked: bytes, data: Any) -> None:
    """And the same one, at once or in pieces."""
    place = data.draw(st.integers(0, len(asked)))
    stream = asked[:place] + noise + asked[place:]
    pieces = cut(stream, data.draw(st.lists(st.integers(0), max_size=4)))
    assert outcome([stream] if stream else []) == outcome(pieces)


def outcome(pieces: list[bytes]) -> tuple[list[tuple[str, bytes]], str]:
    """The requests that were complete, and which problem ended it."""
    found: list[tuple[str, bytes]] = []
    try:
        read(pieces, found)
    except Problem as problem:
        return found, problem.slug
    return found, ""


def test_a_head_says_what_it_says() -> None:
    head = read_head(GET[:-4])
    assert head.line.path == "/a b"
    assert (head.line.raw_path, head.line.query) == (b"/a%20b", b"c=d")
    assert head.fields == {b"host": b"x", b"accept": b"a, b"}
    assert head.headers == [(b"host", b"x"), (b"accept", b"a"), (b"accept", b"b")]
    assert (head.keep_alive, head.has_body, head.expects_continue) == (True, False, False)


def test_a_url_as_target_has_its_own_host() -> None:
    head = read_head(b"GET http://a:1/p HTTP/1.1\r\nHost: b")
    assert head.fields[b"host"] == b"a:1"
    assert head.headers == [(b"host", b"a:1")]
    assert (head.line.path, head.line.raw_path) == ("/p", b"/p")


@pytest.mark.parametrize("extra", [0, 1])
def test_bounds_are_kept_to_the_byte(extra: int) -> None:
    path = b"/" + b"a" * (MAX_HEAD_BYTES - len(b"GET / HTTP/1.1") + extra)
    value = b"a" * (MAX_HEAD_BYTES - len(b"\r\nHost: x\r\nX: ") + extra)
    for data, slug in (
        (b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n", "path-too-long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + value + b"\r\n\r\n", "head-too-long"),
    ):
        assert outcome([data])[1] == (slug if extra else "")


def test_a_head_that_does_not_end_is_refused_before_it_is_kept() -> None:
    for begun in (b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX", b"GET /"):
        reader = RequestReader()
        reader.feed(begun)
        with pytest.raises(Problem):
            feed_for_ever(reader)
        assert reader.num_bytes < 3 * MAX_HEAD_BYTES


def feed_for_ever(reader: RequestReader) -> None:
    for _ in range(MAX_HEAD_BYTES):
        reader.feed(b"a" * 16)
        assert reader.read_head() is None

"""Bodies of multipart/form-data: those that libraries make, and those that nobody should."""

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequestProblem
from serving.http.multipart import MAX_PARTS, Part, is_multipart, parts_of

TYPE = b"multipart/form-data; boundary=b"


def made_by_httpx(
    files: list[tuple[str, tuple[str, bytes]]], data: dict[str, str]
) -> tuple[bytes, bytes]:
    request = httpx.Request("POST", "http://x", files=files, data=data)
    return request.read(), request.headers["content-type"].encode()


@given(
    st.binary(max_size=200),
    st.text(st.characters(codec="ascii", exclude_characters='\r\n"\\'), min_size=1),
)
def test_parts_come_back_as_a_library_sent_them(data: bytes, text: str) -> None:
    body, kind = made_by_httpx([("image", ("a.png", data))], {"model": text})
    assert sorted(parts_of(body, kind)) == [
        Part("image", True, data),
        Part("model", False, text.encode()),
    ]


def test_the_type_is_recognised() -> None:
    assert is_multipart(b"Multipart/Form-Data; boundary=x")
    assert not is_multipart(b"application/json")
    assert not is_multipart(None)


def test_a_quoted_boundary_and_a_name_with_a_quote() -> None:
    body = b'--a b\r\nContent-Disposition: form-data; name="x\\"y"\r\n\r\n1\r\n--a b--\r\n'
    assert parts_of(body, b'multipart/form-data; boundary="a b"') == [Part('x"y', False, b"1")]


HEAD = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "doesn't begin with its boundary"),
        (b"--c\r\n", "doesn't begin with its boundary"),
        (HEAD + b"1", "a part has no end"),
        (HEAD + b"1\r\n--b", "cut off"),
        (b"--b\r\n\r\n1\r\n--b--", "a part has no"),
        (b"--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--", "a part has no name"),
        (b"--b\r\n" + b"x" * 5000 + b"\r\n\r\n1\r\n--b--", "a part has no end, or no name"),
        ((HEAD + b"1\r\n") * (MAX_PARTS + 1) + b"--b--", "more than 256 parts"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestProblem, match=words):
        parts_of(body, TYPE)


@pytest.mark.parametrize("boundary", [b"", b"; boundary=", b"; boundary=" + b"x" * 71])
def test_a_boundary_must_be_there(boundary: bytes) -> None:
    with pytest.raises(InvalidRequestProblem, match=r"must have 1 \.\. 70"):
        parts_of(b"--x", b"multipart/form-data" + boundary)


@given(st.binary(max_size=300))
def test_any_bytes_are_parts_or_words(noise: bytes) -> None:
    for body in (noise, HEAD + noise, HEAD + noise + b"\r\n--b--"):
        with contextlib.suppress(InvalidRequestProblem):
            assert all(isinstance(part, Part) for part in parts_of(body, TYPE))

"""Whose request it is: what proxies say counts where they are trusted, and as far as they are."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import SettingsError
from serving.http.proxies import UNIX, Proxies

TRUSTED = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1")


def client(
    peer: str,
    said: str | None,
    *,
    header: str = "x-forwarded-for",
    trusted: tuple[str, ...] = TRUSTED,
) -> str:
    headers = {} if said is None else {header.encode(): said.encode("latin-1")}
    return Proxies(trusted, header).client(peer, headers.get)


@pytest.mark.parametrize(
    ("peer", "said", "expected"),
    [
        ("10.1.2.3", "203.0.113.7", "203.0.113.7"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("10.1.2.3", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("10.1.2.3", "6.6.6.6, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "203.0.113.7:4711", "203.0.113.7"),
        ("10.1.2.3", "[2001:db9::1]:80", "2001:db9::1"),
        ("10.1.2.3", "2001:db9::1, 2001:db8::7", "2001:db9::1"),
        ("10.1.2.3", "::ffff:203.0.113.7", "203.0.113.7"),
        ("10.1.2.3", "6.6.6.6, unknown", "10.1.2.3"),
        ("10.1.2.3", "6.6.6.6, <script>, 10.0.0.9", "10.0.0.9"),
        ("::ffff:10.1.2.3", "203.0.113.7", "203.0.113.7"),
        ("192.0.2.1", "203.0.113.7", "203.0.113.7"),
        ("192.0.2.2", "203.0.113.7", "192.0.2.2"),
        (UNIX, "203.0.113.7", UNIX),
    ],
)
def test_the_nearest_that_is_no_trusted_proxy(peer: str, said: str | None, expected: str) -> None:
    assert client(peer, said) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ("For=6.6.6.6;proto=http, for=203.0.113.7;by=10.0.0.1", "203.0.113.7"),
        ('proto=https;for="[2001:db9::1]:4711"', "2001:db9::1"),
        ('for="203.0.113.7:80", for=10.0.0.5', "203.0.113.7"),
        ('for="a, for=6.6.6.6"', "10.1.2.3"),
        ("for=_hidden", "10.1.2.3"),
        ("for=6.6.6.6, proto=http", "10.1.2.3"),
        ("xfor=6.6.6.6", "10.1.2.3"),
        # Quotes of the client's, which would pair with the next proxy's.
        ('x=";for=6.6.6.6, for="[2001:db9::1]:1234"', "2001:db9::1"),
        ('x=";for=6.6.6.6, for=203.0.113.7;by="[::1]"', "203.0.113.7"),
        ('for="6.6.6.6, for=203.0.113.7', "203.0.113.7"),
        ('for=6.6.6.6;x="\\", for="203.0.113.7"', "203.0.113.7"),
        ('for=6.6.6.6;x=", for=10.0.0.5', "10.0.0.5"),
        ("for=6.6.6.6," + "x" * 1100 + "for=6.6.6.7, for=10.0.0.5", "10.0.0.5"),
    ],
)
def test_the_standard_header(said: str, expected: str) -> None:
    assert client("10.1.2.3", said, header="forwarded") == expected


def test_a_hostile_list_is_read_at_once() -> None:
    """A head may have 32 KiB; all of such a list took seconds, in the event loop."""
    began = time.process_time()
    assert client("10.1.2.3", '"\\' * 16000 + ", for=203.0.113.7", header="forwarded") == (
        "203.0.113.7"
    )
    assert time.process_time() - began < 0.5


def test_the_header_that_the_proxy_does_not_write_is_not_read() -> None:
    proxies = Proxies(TRUSTED, "forwarded")
    headers = {b"x-forwarded-for": b"6.6.6.6", b"forwarded": b"for=203.0.113.7"}
    assert proxies.client("10.1.2.3", headers.get) == "203.0.113.7"
    assert Proxies(TRUSTED, "x-forwarded-for").client("10.1.2.3", headers.get) == "6.6.6.6"


def test_a_unix_socket_is_trusted_by_name() -> None:
    assert client(UNIX, "203.0.113.7", trusted=(UNIX,)) == "203.0.113.7"
    assert client(UNIX, None, trusted=(UNIX,)) == UNIX


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="--trusted-proxies has"):
        Proxies((entry,), "x-forwarded-for")


@given(
    st.text(st.characters(max_codepoint=255), max_size=100),
    st.sampled_from(["forwarded", "x-forwarded-for"]),
)
def test_whatever_is_said_the_answer_is_an_address(said: str, header: str) -> None:
    found = client("10.1.2.3", said, header=header)
    assert found
    assert set(found) <= set("0123456789abcdef.:%")

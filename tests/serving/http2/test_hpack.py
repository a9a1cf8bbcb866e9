"""Compressed headers, against the examples of RFC 7541, appendix C."""

import pytest

from serving.http2 import huffman
from serving.http2.hpack import MAX_FIELDS_BYTES, Decoder, Fields, HpackError, encode

_GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"))
_HOST = (b":authority", b"www.example.com")
_CUSTOM = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    _HOST,
    (b"custom-key", b"custom-value"),
)
PLAIN = (
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
)
HUFFMAN = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN])
def test_blocks_that_build_on_each_other_are_read(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    cached = (b"cache-control", b"no-cache")
    wanted: list[Fields] = [(*_GET, _HOST), (*_GET, _HOST, cached), _CUSTOM]
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == wanted


def test_the_same_octets_mean_something_else_after_the_table_has_changed() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    for _ in range(2):  # the second time from memory
        assert decoder.decode(b"\xbe") == ((b"a", b"b"),)
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe") == ((b"c", b"d"),)
    assert decoder.decode(b"\xbf") == ((b"a", b"b"),)
    decoder.decode(b"\x20\x82")  # the table is emptied
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_long_blocks_are_not_kept() -> None:
    decoder = Decoder()
    block = encode(((b"a", bytes(2000)),))
    for _ in range(2):
        assert decoder.decode(block) == ((b"a", bytes(2000)),)
    assert not decoder._known


def test_the_oldest_entries_make_room() -> None:
    decoder = Decoder()
    for number in range(100):
        decoder.decode(b"\x40\x03n%02d\x7f\x49" % number + bytes(200))
    (field,) = decoder.decode(b"\xbe")
    assert field == (b"n99", bytes(200))
    with pytest.raises(HpackError):
        decoder.decode(b"\xff\x60")  # index 223
    assert decoder.decode(b"\x82") == ((b":method", b"GET"),)


@pytest.mark.parametrize(
    "block",
    [
        *(b"\x80", b"\xff", b"\xff\xff\xff\xff\xff\xff\x01", b"\x40\x05ab", b"\x40\x01a"),
        *(b"\x82\x20", b"\x3f\xe1\x7f", b"\x00\x82\xff\xff\x00", b"\x00\x81\x00\x00"),
        b"\x00\x01a\x7f\x80\xff\x00" + bytes(MAX_FIELDS_BYTES),
    ],
)
def test_what_is_malformed_is_refused(block: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(block)


def test_what_is_written_is_read() -> None:
    fields = ((b"grpc-status", b"0"), (b"n" * 126, b""), (b"n" * 127, b"v" * 5000))
    assert Decoder().decode(encode(fields)) == fields


def test_every_octet_has_a_code() -> None:
    """Codes of RFC 7541, appendix B: short ones, and the longest."""
    for data, code in ((b"0", "07"), (b"a", "1f"), (b"~", "ffef"), (b"\n", "fffffff3")):
        assert huffman.decode(bytes.fromhex(code)) == data
    with pytest.raises(ValueError, match="end"):
        huffman.decode(bytes.fromhex("fffffffc"))
    with pytest.raises(ValueError, match="cut off"):
        huffman.decode(b"\x1f\xff")

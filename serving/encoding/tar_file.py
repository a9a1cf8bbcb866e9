"""Tar files with the same bytes on every machine: no times, owners or order of a folder in them.

Python's tarfile spends 30 microseconds on a header, as long as making a small image takes. All our
headers are alike but for name, size and checksum, so this fills these into a prepared one (ustar,
POSIX.1-1988).
"""

BLOCK_BYTES = 512
_MAX_NAME_BYTES = 100
_MAX_SIZE = 8**11 - 1


def _prepared() -> bytes:
    header = bytearray(BLOCK_BYTES)
    header[100:108] = b"0000644\0"  # mode
    header[108:116] = header[116:124] = b"0000000\0"  # owner and group: 0
    header[136:148] = b"00000000000\0"  # time of modification: 1970
    header[148:156] = b" " * 8  # the checksum is taken with spaces in its own place
    header[156:157] = b"0"  # a regular file
    header[257:265] = b"ustar\x0000"
    return bytes(header)


_HEADER = _prepared()
_SUM = sum(_HEADER)
_PADDING = [bytes(-size % BLOCK_BYTES) for size in range(BLOCK_BYTES)]
END = bytes(2 * BLOCK_BYTES)
"""What ends an archive."""


def member(name: bytes, data: bytes) -> bytes:
    """A file of an archive: header, content, padding to a multiple of 512 bytes.

    Raises:
        ValueError: the name is longer than 100 bytes, or the file larger than 8 GiB.
    """
    if len(name) > _MAX_NAME_BYTES or len(data) > _MAX_SIZE:
        raise ValueError(f"{name!r} with {len(data)} bytes doesn't fit a ustar header")
    size = b"%011o" % len(data)
    checksum = b"%06o\0 " % (_SUM + sum(name) + sum(size))
    return b"".join(
        (
            name,
            _HEADER[len(name) : 124],
            size,
            _HEADER[135:148],
            checksum,
            _HEADER[156:],
            data,
            _PADDING[len(data) % BLOCK_BYTES],
        )
    )

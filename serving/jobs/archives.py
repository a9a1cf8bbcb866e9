"""Archives that grow file by file, can be cut off after any of them; the same bytes every time.

A zip file ends with a list of its files. It is written when the last one is there, of what stands
before each of them: nothing else has to be kept meanwhile. Files are stored, not compressed: images
are already. (PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3.)
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serving.encoding import tar_file

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_EXTRA64 = struct.Struct("<HHQ")
_LOCAL_MARK = 0x04034B50
_UTF8 = 0x0800
_DATE = (1 << 5) | 1  # 1 January 1980, where MS-DOS begins
_MOST, _MOST16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True)
class Archive:
    """A kind of archive."""

    media_type: str
    member: Callable[[str, bytes], bytes]
    """A file of it, by its name and content."""
    end: Callable[[int], Iterator[bytes]]
    """What follows the last file; its argument is a descriptor of all that is written."""


def _tar_member(name: str, data: bytes) -> bytes:
    return tar_file.member(name.encode("ascii"), data)


def _tar_end(descriptor: int) -> Iterator[bytes]:
    yield tar_file.END


def _zip_member(name: str, data: bytes) -> bytes:
    encoded = name.encode("ascii")
    head = (_LOCAL_MARK, 20, _UTF8, 0, 0, _DATE, zlib.crc32(data), len(data), len(data))
    return _LOCAL.pack(*head, len(encoded), 0) + encoded + data


def _zip_end(descriptor: int) -> Iterator[bytes]:
    start = os.fstat(descriptor).st_size
    offset = num = size = 0
    while offset < start:
        mark, _, flags, _, time, date, crc, packed, length, num_name, num_extra = _LOCAL.unpack(
            os.pread(descriptor, _LOCAL.size, offset)
        )
        if mark != _LOCAL_MARK:
            raise ValueError(f"there is no file of a zip archive at {offset}")
        name = os.pread(descriptor, num_name, offset + _LOCAL.size)
        far = offset >= _MOST
        extra = _EXTRA64.pack(1, 8, offset) if far else b""
        needed = 45 if far else 20
        sizes = (crc, packed, length, num_name, len(extra), 0, 0, 0, 0)
        head = (0x02014B50, needed, needed, flags, 0, time, date)
        entry = _CENTRAL.pack(*head, *sizes, _MOST if far else offset) + name + extra
        yield entry
        size += len(entry)
        num += 1
        offset += _LOCAL.size + num_name + num_extra + packed
    if num >= _MOST16 or start + size >= _MOST:
        yield _END64.pack(0x06064B50, 44, 45, 45, 0, 0, num, num, size, start)
        yield _LOCATOR64.pack(0x07064B50, 0, start + size, 1)
    ends = (min(num, _MOST16), min(num, _MOST16), min(size, _MOST), min(start, _MOST))
    yield _END.pack(0x06054B50, 0, 0, *ends, 0)


ARCHIVES = {
    "tar": Archive("application/x-tar", _tar_member, _tar_end),
    "zip": Archive("application/zip", _zip_member, _zip_end),
}

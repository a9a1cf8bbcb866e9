"""Our tar members are those of Python's tarfile, byte for byte."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.encoding.tar_file import END, member

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-/", min_size=1, max_size=100)


@given(st.dictionaries(names, st.binary(max_size=1100), max_size=4))
def test_tarfile_makes_the_same_bytes(files: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    ours = b"".join(member(name.encode(), data) for name, data in files.items()) + END
    whole = buffer.getvalue()
    assert whole[: len(ours)] == ours
    assert not any(whole[len(ours) :])  # tarfile fills up to 10 KiB


def test_what_a_header_can_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="ustar"):
        member(b"n" * 101, b"")

"""Archives that grow: read back by the standard library, cut off anywhere, large ones too."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from serving.jobs import archives
from serving.jobs.archives import ARCHIVES

FILES = [(f"{i:08d}-{i * 7}.png", bytes([i]) * (i * 100)) for i in range(9)]


def written(path: Path, kind: str, files: list[tuple[str, bytes]]) -> bytes:
    archive = ARCHIVES[kind]
    with path.open("w+b") as file:
        for name, data in files:
            file.write(archive.member(name, data))
        file.flush()
        file.write(b"".join(archive.end(file.fileno())))
    return path.read_bytes()


def read(kind: str, data: bytes) -> list[tuple[str, bytes]]:
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            assert opened.testzip() is None
            return [(name, opened.read(name)) for name in opened.namelist()]
    with tarfile.open(fileobj=io.BytesIO(data)) as opened_tar:
        return [(m.name, opened_tar.extractfile(m).read()) for m in opened_tar]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("num", [0, 1, 9])
def test_files_are_read_as_they_were_written(kind: str, num: int, tmp_path: Path) -> None:
    data = written(tmp_path / "archive", kind, FILES[:num])
    assert read(kind, data) == FILES[:num]
    assert written(tmp_path / "again", kind, FILES[:num]) == data


def test_a_zip_of_more_files_than_its_first_version_could_count(tmp_path: Path) -> None:
    files = [(f"{i:08d}.png", b"x") for i in range(70_000)]
    data = written(tmp_path / "archive", "zip", files)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert len(opened.namelist()) == 70_000
        assert opened.read("00069999.png") == b"x"


def test_a_zip_larger_than_its_first_version_could_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file stands for the images before the last one."""
    path = tmp_path / "archive"
    archive = ARCHIVES["zip"]
    big = (1 << 32) - 100
    with path.open("w+b") as file:
        head = archive.member("big", b"")
        sizes = big.to_bytes(4, "little") * 2
        file.write(head[:18] + sizes + head[26:])
        file.truncate(len(head) + big)
        file.seek(0, io.SEEK_END)
        file.write(archive.member("after", b"content"))
        file.write(archive.member("last", b"more"))
        file.flush()
        file.write(b"".join(archive.end(file.fileno())))
    with zipfile.ZipFile(path) as opened:
        assert opened.namelist() == ["big", "after", "last"]
        assert opened.read("after") == b"content"
        assert opened.read("last") == b"more"


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file, pytest.raises(ValueError, match="no file of a zip archive at 0"):
        list(archives.ARCHIVES["zip"].end(file.fileno()))

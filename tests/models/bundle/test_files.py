import os
import threading

import pytest

from models.bundle.files import IrregularFileError, open_regular, size_of


def test_a_file_is_opened_to_read_or_to_change(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open_regular(path) as file:
        assert size_of(file) == 7
        assert file.read() == b"content"
    with open_regular(path, "r+b") as file:
        file.write(b"C")
    assert path.read_bytes() == b"Content"


@pytest.mark.parametrize("target", ["file", "missing", "/etc/passwd", "/dev/zero"])
def test_a_link_is_not_followed(tmp_path, target):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(IrregularFileError, match="Is a symbolic link, not a file"):
        open_regular(tmp_path / "link")


def test_nor_is_one_that_is_put_there_in_time(tmp_path, monkeypatch):
    """Between the look at what is there and the opening."""
    (tmp_path / "file").write_bytes(b"content")
    path = tmp_path / "link"
    path.symlink_to("file")
    monkeypatch.setattr(type(path), "lstat", type(path).stat)
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    raised = []

    def read():
        try:
            open_regular(tmp_path / "pipe")
        except IrregularFileError as error:
            raised.append(error.strerror)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert raised == ["Is no regular file"]


def test_a_folder_and_what_is_not_there(tmp_path):
    with pytest.raises(IrregularFileError, match="Is a directory"):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")

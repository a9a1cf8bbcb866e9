"""Files of images: whole or not at all, never over another one, a name each."""

from pathlib import Path

import pytest

from models.image_files import (
    RepeatedImageError,
    image_paths,
    require_free,
    whole_file,
    write_file,
)


def test_a_file_and_its_folder_are_made(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "x", b"1")
    write_file(tmp_path / "new" / "x", b"2")
    assert (tmp_path / "new" / "x").read_bytes() == b"2"
    assert (tmp_path / "new" / "x").stat().st_mode & 0o777 == 0o644


def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(TypeError, match="bytes-like"), whole_file(tmp_path / "x") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_file(tmp_path / "x", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    require_free(paths, force=False)
    paths[1].touch()
    with pytest.raises(FileExistsError, match=r"2\.png exists; choose another name, or add"):
        require_free(paths, force=False)
    require_free(paths, force=True)


def test_every_image_has_a_name_of_its_own() -> None:
    folder = Path("out")
    assert image_paths(folder, [1, 2], [7, 8]) == [folder / "1.png", folder / "2.png"]
    twice = [folder / "1-label7.png", folder / "1-label8.png"]
    assert image_paths(folder, [1, 1], [7, 8]) == twice
    with pytest.raises(RepeatedImageError, match=r"names 1\.png 2 times, always the same image"):
        image_paths(folder, [1, 1], None)
    with pytest.raises(RepeatedImageError, match=r"name 1-label7\.png 2 times"):
        image_paths(folder, [1, 1], [7, 7])

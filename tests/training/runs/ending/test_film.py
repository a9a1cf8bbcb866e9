import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.runs.ending import film as module
from training.runs.ending.film import film, grids


def write_grids(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        shade = 250 * index // max(len(names) - 1, 1)
        Image.fromarray(np.full((20, 30), shade, np.uint8)).save(folder / name)


def shades(content: bytes | None) -> list[int]:
    assert content is not None
    with Image.open(io.BytesIO(content)) as picture:
        found = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            found.append(int(np.asarray(picture.convert("L")).mean()))
    return found


def test_the_film_has_the_grids_in_the_order_of_the_training(tmp_path: Path) -> None:
    write_grids(tmp_path, ["samples-000002.png", "samples-000010.500.png", "samples-000200.png"])
    Image.new("L", (30, 20)).save(tmp_path / "samples.png")  # the exported model's
    Image.new("L", (30, 20)).save(tmp_path / "preview.png")
    content = film(tmp_path)
    assert shades(content) == pytest.approx([0, 125, 250], abs=4)
    assert content is not None
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.size, picture.info["loop"]) == ((30, 20), 0)


def test_a_long_training_is_shown_in_so_many_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FRAMES", 4)
    write_grids(tmp_path, [f"samples-{number:06d}.png" for number in range(31)])
    assert shades(film(tmp_path)) == pytest.approx([0, 83, 166, 250], abs=5)


def test_a_damaged_grid_is_an_error_that_the_pipeline_expects(tmp_path: Path) -> None:
    names = ["samples-000001.png", "samples-000002.png"]
    write_grids(tmp_path, names)
    content = bytearray((tmp_path / names[1]).read_bytes())
    content[content.index(b"IDAT") :] = b"\0" * 20
    (tmp_path / names[1]).write_bytes(content)
    with pytest.raises(OSError, match="samples-000002"):
        film(tmp_path)


def test_grids_of_another_size_and_single_ones_make_no_film(tmp_path: Path) -> None:
    assert film(tmp_path) is None
    write_grids(tmp_path, ["samples-000001.png"])
    assert film(tmp_path) is None
    Image.new("L", (8, 8)).save(tmp_path / "samples-000002.png")
    assert film(tmp_path) is None
    assert [path.name for path in grids(tmp_path)] == ["samples-000001.png", "samples-000002.png"]

"""People's own points: a CSV file as a dataset."""

from pathlib import Path

import numpy as np
import pytest

from models.networks.plane import SPAN
from training.data import DataConfig, load
from training.errors import DataError


def config(path: Path) -> DataConfig:
    return DataConfig(dataset="points", path=path, resolution="2x1", conditional=False)


def test_points_are_centred_and_within_what_bytes_show(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y\n0,0\n10,0\n0,10\n\n10,1000\n")
    found = load(config(path))
    seen = found.seen(slice(0, 4)).reshape(-1, 2).numpy()
    assert seen.shape == (4, 2)
    assert np.abs(seen.mean(0)).max() < 1e-6
    assert np.abs(seen).max() <= SPAN
    assert 0 < found.images.min() < found.images.max() < 255
    assert np.allclose(seen[1] - seen[0], (seen[3] - seen[2])[::-1][:2] * [1 / 99, 0], atol=1e-2)


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_point(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("1,2\n3,4\n", encoding="utf-8-sig")
    assert len(load(config(path))) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2\n3,x\n", "line 2 is '3,x', allowed: two finite numbers"),
        ("1,2\n3,4,5\n", "line 2"),
        ("1,2,3\n3,4\n5,6\n", "line 1 is '1,2,3', allowed: two finite numbers"),
        ("nan,1\n3,4\n5,6\n", "line 1"),
        (f"1,2\n{'3' * 200_000},4\n", "it is no CSV file"),
        ("1,2\n1,nan\n", "line 2"),
        ("x,y\n1,2\n", "it holds 1 points, allowed: 2"),
        ("1,2\n1,2\n", "all 2 points are"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, says):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        load(config(path))
    assert says in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv.*--data\.path"):
        load(config(tmp_path / "none.csv"))

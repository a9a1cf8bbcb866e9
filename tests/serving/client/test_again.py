"""An image that is made again, by what its file says: files that say something else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from serving.client.again import made_again
from serving.client.arguments import UsageError

CLIENT: Any = SimpleNamespace(model=lambda name, version: SimpleNamespace(digest="aa"), url="x")


@pytest.mark.parametrize(
    ("name", "altered", "words"),
    [
        ("a.png", {"seed": "one"}, "can't be read: 'one' is neither a seed"),
        ("a.png", {"truncation": "half"}, "can't be read: could not convert"),
        ("a.png", {"label": "seven"}, "can't be read: invalid literal"),
        ("a.png", {"styles": "{"}, "can't be read: "),
        ("a.png", {"version": "\N{SUPERSCRIPT TWO}"}, "it says no model, version or seed"),
        ("a.gif", {}, "no other images"),
    ],
)
def test_what_was_altered_is_refused_in_words(
    tmp_path: Path, name: str, altered: dict[str, str], words: str
) -> None:
    path = tmp_path / name
    Image.new("L", (2, 2)).save(path)
    with pytest.raises(UsageError, match=words):
        made_again(CLIENT, {"model": "grey", "version": "1", "seed": "1"} | altered, path)

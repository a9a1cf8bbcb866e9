"""The styles that a request mixes, without a model."""

from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import InvalidRequestProblem
from serving.requests.styles import StylesRequest, _layers

INFO: Any = SimpleNamespace(num_styles=4)


def test_more_layers_than_there_are_do_not_get_into_files() -> None:
    """They would stand in every image's words, and a JPEG has room for 64 KiB of them."""
    with pytest.raises(InvalidRequestProblem, match="has 5 entries, this model has 4 styles"):
        _layers(StylesRequest(from_=1, layers=[0] * 5), INFO)
    taken = _layers(StylesRequest(from_=1, layers=[3, 0]), INFO)
    assert taken is not None
    assert taken.tolist() == [1, 0, 0, 1]

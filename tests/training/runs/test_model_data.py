"""The data of a published model, found again by its manifest."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from models.bundle import Bundle
from training.runs.model_data import data_of


@pytest.mark.parametrize(("only", "conditional"), [("3", False), ("", True)])
def test_one_class_leaves_nothing_to_tell_apart(
    make_bundle: Callable[..., Bundle], only: str, conditional: bool
) -> None:
    bundle = make_bundle(size=16)
    options = {"data": {"dataset": "digits", "only": only}}
    bundle = replace(bundle, manifest=structs.replace(bundle.manifest, options=options))
    data = data_of(bundle, [], say=print)
    assert (data.only, data.conditional) == (only, conditional)

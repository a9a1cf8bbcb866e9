"""JSON that training writes: any reader takes it, whatever the numbers."""

import ast
import json
import math
from pathlib import Path
from typing import NoReturn

import pytest

from training.finite_json import as_json, restored

_WRITERS = ("json.dump", "json.dumps")
TRAINING = Path(__file__).parents[2] / "training"


def refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


def test_what_is_not_finite_becomes_null_and_is_named() -> None:
    record = {"a": math.inf, "b": [1.0, math.nan], "c": {"d": -math.inf}, "e": (2,)}
    assert json.loads(as_json(record), parse_constant=refuse) == {
        "a": None,
        "b": [1.0, None],
        "c": {"d": None},
        "e": [2],
        "not_finite": {"a": "infinity", "b.1": "not a number", "c.d": "-infinity"},
    }
    assert as_json([math.nan], indent=None) == "[null]"


def test_a_records_own_numbers_come_back() -> None:
    record = {"loss_D.adversarial": math.nan, "a": math.inf, "b": -math.inf, "c": 1.0, "d": None}
    found = restored(json.loads(as_json(record)))
    assert math.isnan(found.pop("loss_D.adversarial"))
    assert found == {"a": math.inf, "b": -math.inf, "c": 1.0, "d": None}


@pytest.mark.parametrize("words", [3, ["a"], {"a": 3, "none": "infinity", "c": "large"}])
def test_foreign_words_change_nothing(words: object) -> None:
    assert restored({"a": None, "not_finite": words}) == {"a": None}


def test_no_module_of_training_writes_json_of_its_own() -> None:
    """json.dumps writes NaN and Infinity, which no other reader takes, unless it is told not to."""
    own = []
    for path in TRAINING.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in _WRITERS:
                continue
            if not any(word.arg == "allow_nan" for word in node.keywords):
                own.append(f"{path.relative_to(TRAINING)}:{node.lineno}")
    assert own == []

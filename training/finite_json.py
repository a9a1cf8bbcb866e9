"""JSON that any reader takes: it knows neither infinity nor NaN, which Python's own writes as such.

Every file and every text of JSON that training writes goes through `as_json`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

NOT_FINITE = "not_finite"
_WORDS = {"infinity": math.inf, "-infinity": -math.inf, "not a number": math.nan}

Record = Mapping[str, Any]


def as_json(record: Any, *, indent: int | None = 2, sort_keys: bool = False) -> str:
    """Returns JSON types as JSON.

    Numbers that aren't finite become null. In a mapping, `not_finite` then says for each by its
    path what it was.
    """
    whole = _finite(record)
    if isinstance(record, Mapping) and (found := dict(_not_finite(record))):
        whole = {**whole, NOT_FINITE: found}
    return json.dumps(whole, indent=indent, sort_keys=sort_keys, allow_nan=False)


def restored(record: Record) -> dict[str, Any]:
    """Returns a record as it was before `as_json`, as far as its own values go, not nested ones."""
    found = dict(record)
    words = found.pop(NOT_FINITE, None)
    for name, word in words.items() if isinstance(words, Mapping) else ():
        if name in found and isinstance(word, str) and word in _WORDS:
            found[name] = _WORDS[word]
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the path and the name of each number that JSON can't write."""
    named = isinstance(value, Mapping)
    if named or isinstance(value, (list, tuple)):
        for name, each in value.items() if named else enumerate(value):
            yield from _not_finite(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, float) and not math.isfinite(value):
        sign = "-" if value < 0 else ""
        yield path, "not a number" if math.isnan(value) else f"{sign}infinity"

"""Which metrics and labels a PromQL expression names. Whether it is PromQL, `promtool` says."""

import re
from collections.abc import Iterator

_WORDS = {
    *("by", "without", "on", "ignoring", "group_left", "group_right"),
    *("and", "or", "unless", "bool", "offset"),
}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^}]*)\}")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def _bare(expr: str) -> str:
    """Without the contents of strings, and without durations."""
    expr = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    return re.sub(r"\[[^\]]*\]", "", expr)


def metrics_of(expr: str) -> set[str]:
    """Names of series; not of functions, labels and keywords."""
    text = _SELECTOR.sub(r" \1 ", _GROUPING.sub(" ", _bare(expr)))
    return {
        match[0]
        for match in _NAME.finditer(text)
        if match[0] not in _WORDS
        and not text[match.end() :].lstrip().startswith("(")
        and not (match.start() and text[match.start() - 1].isdigit())  # 1e3
    }


def labels_of(expr: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that its selector names."""
    for metric, matchers in _SELECTOR.findall(_bare(expr)):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            yield metric, label


def groupings_of(expr: str) -> set[str]:
    """Labels that something is grouped or matched by."""
    return {label for group in _GROUPING.findall(_bare(expr)) for label in _NAME.findall(group)}

"""The orders of paths and of classes."""

import re

_DIGITS = re.compile(r"([0-9]+)")


def by_path(name: str) -> list[str]:
    """A sort key: folder by folder, as text. The order of images in every release."""
    return name.split("/")


def naturally(name: str) -> list[tuple[int, int, str]]:
    """A sort key: numbers in a name count as numbers, so that 2 comes before 10."""
    key = []
    for i, part in enumerate(_DIGITS.split(name)):
        # By length and text, since int() refuses thousands of digits. A number precedes a word.
        digits = part.lstrip("0") if i % 2 else part
        key.append((0, len(digits), digits) if i % 2 else (1, 0, digits))
    return [*key, (2, 0, name)]  # 01 and 1 are different names

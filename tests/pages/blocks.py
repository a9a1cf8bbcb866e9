"""The `sh` blocks of the pages, in the order in which they stand."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)


class Block(NamedTuple):
    """Commands that a reader copies together."""

    line: int
    """Of the page, 1-based."""
    code: str


def blocks(page: Path) -> list[Block]:
    """All of a page."""
    text = page.read_text()
    return [
        Block(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in _FENCE.finditer(text)
    ]


def commands(code: str) -> list[str]:
    """The commands of a block, comments off; what is continued on further lines is one."""
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in code.replace("\\\n", " ").splitlines())
    return [line.strip() for line in lines if line.strip()]

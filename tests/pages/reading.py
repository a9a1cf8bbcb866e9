"""What a page tells its reader to run, in order, and what it shows of the output."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INDENTED = re.compile(r"(?<=\n\n)(?:    \S.*\n)+")


@dataclass(frozen=True)
class Statement:
    """One command of a `sh` block, or a whole `python` block."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        """Where it is, and its code."""
        return f"{self.page}:{self.line}: {self.code.strip()}"


@dataclass(frozen=True)
class Shown:
    """A line of output that a page shows, indented by four spaces."""

    page: str
    line: int
    start: str
    """Its text before the first number or colon: what does not depend on the machine."""


def steps(page: str) -> list[Statement | Shown]:
    """All of a page, from top to bottom; page: a path below the repository's root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[tuple[int, Statement | Shown]] = []
    for block in _BLOCK.finditer(text):
        at = text.count("\n", 0, block.start(2)) + 1
        if block[1] == "sh":
            found += [(line, Statement(page, line, "sh", code)) for line, code in _sh(block[2], at)]
        elif block[1] == "python":
            found.append((at, Statement(page, at, "python", block[2])))
    for block in _INDENTED.finditer(_BLOCK.sub(lambda match: re.sub(r".", "#", match[0]), text)):
        at = text.count("\n", 0, block.start()) + 1
        for line, shown in enumerate(block[0].splitlines(), at):
            if start := re.split(r"[\d:]", shown)[0].strip():
                found.append((line, Shown(page, line, start)))
    return [step for _, step in sorted(found, key=lambda pair: pair[0])]


def statements(page: str) -> list[Statement]:
    """What a page tells its reader to run."""
    return [step for step in steps(page) if isinstance(step, Statement)]


def _sh(block: str, first: int) -> Iterator[tuple[int, str]]:
    """The commands of a block and their lines; one may have several lines."""
    begun, code = first, ""
    for line, text in enumerate(block.splitlines(), first):
        if not code:
            begun = line
            if not text.strip() or text.startswith("#"):
                continue
        code += text + "\n"
        if not text.endswith("\\") and _is_whole(code):
            yield begun, code
            code = ""
    assert not code, f"line {begun}: a command that does not end: {code}"


def _is_whole(code: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", code], capture_output=True).returncode == 0

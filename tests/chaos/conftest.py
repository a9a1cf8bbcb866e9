"""A model that is slow enough to overload, and the table of the promises that were kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.chaos.client import HUNG, LOST, Load


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    num_asked: int
    num_lost: int
    num_late: int
    num_hung: int
    remark: str


_TABLE = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash[_TABLE]
    if not rows:
        return
    terminalreporter.section("promises under stress")
    terminalreporter.line("| what was done | requests | lost | late | hung | seen |")
    terminalreporter.line("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row.what):
        numbers = f"{row.num_asked:,} | {row.num_lost} | {row.num_late} | {row.num_hung}"
        terminalreporter.line(f"| {row.what} | {numbers} | {row.remark} |")


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Writes a line of the table: record(what, load, late=0, remark="")."""

    def write(what: str, load: Load, *, late: int = 0, remark: str = "") -> None:
        numbers = (len(load.answers), load.count(LOST), late, load.count(HUNG))
        pytestconfig.stash[_TABLE].append(Row(what, *numbers, remark))

    return write


@pytest.fixture(scope="session")
def slow_repository(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Path:
    """One model of some milliseconds a batch, so that a Python client can ask for too much."""
    root = tmp_path_factory.mktemp("slow")
    Repository(root).publish("slow", make_bundle(z_dim=1024, size=64, channels=3))
    return root

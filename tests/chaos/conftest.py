"""A model that is slow enough to overload, and the table of the promises that were kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.chaos.client import HUNG, LOST, Load

ROW = "row of the table"
"""A property of a test: it comes with its report, from whichever process ran it."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    rows = {str(row) for report in reports for name, row in report.user_properties if name == ROW}
    if not rows:
        return
    terminalreporter.section("promises under stress")
    terminalreporter.line("| what was done | requests | lost | late | hung | seen |")
    terminalreporter.line("|---|---|---|---|---|---|")
    for row in sorted(rows):
        terminalreporter.line(row)


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Writes a line of the table: record(what, load, late=0, remark="")."""

    def write(what: str, load: Load, *, late: int = 0, remark: str = "") -> None:
        numbers = f"{len(load.answers):,} | {load.count(LOST)} | {late} | {load.count(HUNG)}"
        record_property(ROW, f"| {what} | {numbers} | {remark} |")

    return write


@pytest.fixture(scope="session")
def slow_repository(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Path:
    """One model of some milliseconds a batch, so that a Python client can ask for too much."""
    root = tmp_path_factory.mktemp("slow")
    Repository(root).publish("slow", make_bundle(z_dim=1024, size=64, channels=3))
    return root

"""Options of all commands of a program may stand before and after the command's name."""

import argparse
from collections.abc import Callable

import pytest

from models.command_line import add_to_all
from models.repository.__main__ import _parser as repository_parser
from serving.client.arguments import parser as client_parser
from training.runs.__main__ import _parser as runs_parser


def small() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser()
    commands = whole.add_subparsers()
    for name in ("one", "two"):
        commands.add_parser(name)
    add_to_all(whole, commands, "--number", type=int, default=3, help="any (default: %(default)s)")
    return whole


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("one", 3),
        ("--number 4 one", 4),
        ("one --number 4", 4),
        ("two --number=4", 4),
        ("--number 5 two --number 4", 4),
    ],
)
def test_before_or_after(line: str, number: int) -> None:
    assert small().parse_args(line.split()).number == number


def test_a_wrong_value_is_refused_in_both_places(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("--number x one", "one --number x"):
        with pytest.raises(SystemExit):
            small().parse_args(line.split())
        assert "argument --number: invalid int value: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parser", "command", "option", "name"),
    [
        (lambda: repository_parser("prog"), "list", "--repository elsewhere", "repository"),
        (lambda: client_parser(None), "models", "--url http://127.0.0.1:9", "url"),
        (lambda: client_parser(None), "models", "--timeout-s 7", "timeout_s"),
        (lambda: runs_parser("prog"), "list", "--runs elsewhere", "runs"),
    ],
)
def test_the_programs(
    parser: Callable[[], argparse.ArgumentParser], command: str, option: str, name: str
) -> None:
    before = parser().parse_args([*option.split(), command])
    after = parser().parse_args([command, *option.split()])
    assert getattr(before, name) == getattr(after, name)
    assert getattr(after, name) != getattr(parser().parse_args([command]), name)

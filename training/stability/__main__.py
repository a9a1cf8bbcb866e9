"""`python -m training.stability COMMAND [RUN] [--option value]`: measure how stable a game is.

games compares the instrument with games whose answers are known. The others look at a run's
checkpoint, which they don't change, and keep what they found in RUN/stability for the report.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from models.stdout import closed_pipe_ignored
from training.cli.arguments import nearest, read
from training.errors import ConfigError, StabilityError, TrainingError, require
from training.stability.commands.exponent import ExponentCommand
from training.stability.commands.games import Games
from training.stability.commands.gamma import GammaCommand
from training.stability.commands.path import PathCommand
from training.stability.commands.spectrum import SpectrumCommand

PROG = "python -m training.stability"


class Command(Protocol):
    """A dataclass of options that can be run."""

    needs_run: ClassVar[bool]
    """True where the folder of a run comes first."""

    def run(self, folder: Path, say: Callable[[str], None]) -> str:
        """Returns the text to print. folder: of the run. say: is given lines of progress."""
        ...


COMMANDS: dict[str, type[Any]] = {
    "games": Games,
    "spectrum": SpectrumCommand,
    "exponent": ExponentCommand,
    "gamma": GammaCommand,
    "path": PathCommand,
}


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help(prog))
        return 0 if words else 2
    try:
        command, folder = _parse(words, prog)
        text = _run(command, folder)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


def _run(command: Command, folder: Path) -> str:
    try:
        return command.run(folder, _say)
    except FloatingPointError as error:
        raise StabilityError(
            f"{error}: the game's derivatives overflow at this checkpoint; choose an earlier one "
            "with --checkpoint"
        ) from error


def _parse(words: list[str], prog: str) -> tuple[Command, Path]:
    """Returns the command with its options, and the run's folder."""
    name = words.pop(0)
    remedy = f"{nearest(name, list(COMMANDS))}{prog} --help explains them"
    require(name in COMMANDS, "COMMAND", name, ", ".join(COMMANDS), remedy)
    kind = COMMANDS[name]
    folder, usage = Path(), f"{prog} {name}"
    if kind.needs_run:
        if not {"-h", "--help"} & set(words):
            folder = _folder(words, usage)
        usage += " RUN"
    about = kind.__doc__ or ""
    command: Command = read(kind, words, kind(), prog=usage, description=about)
    return command, folder


def _folder(words: list[str], usage: str) -> Path:
    """Takes the first word, the folder of a run."""
    if not words or words[0].startswith("-"):
        raise ConfigError(
            "RUN is not given, allowed: the folder of a run; put it first: "
            f"{usage} runs/00000-digits"
        )
    return Path(words.pop(0))


def _help(prog: str) -> str:
    width = max(map(len, COMMANDS))
    lines = (
        f"  {name:{width}}  {(kind.__doc__ or '').splitlines()[0]}"
        for name, kind in COMMANDS.items()
    )
    return "\n".join([f"usage: {prog} COMMAND [ARGUMENTS]", "", *lines])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

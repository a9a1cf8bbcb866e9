"""`python -m training.interpretation COMMAND MODEL [--option value]`: look inside a generator.

MODEL is a published model, NAME[@VERSION]; a bundle's folder; or the folder of a run that was
exported. It is not changed.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from models.stdout import closed_pipe_ignored
from training.cli.arguments import nearest, read
from training.errors import ConfigError, TrainingError, require
from training.interpretation.commands import DirectionsCommand, UnitsCommand

PROG = "python -m training.interpretation"


class Command(Protocol):
    """A dataclass of options that can be run."""

    def run(self, model: str, say: Callable[[str], None]) -> str:
        """Returns the text to print. model: the word on the command line. say: for progress."""
        ...


COMMANDS: dict[str, type[Any]] = {"directions": DirectionsCommand, "units": UnitsCommand}


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help(prog))
        return 0 if words else 2
    try:
        command, model = _parse(words, prog)
        text = command.run(model, _say)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


def _parse(words: list[str], prog: str) -> tuple[Command, str]:
    """Returns the command with its options, and the model."""
    name = words.pop(0)
    remedy = f"{nearest(name, list(COMMANDS))}{prog} --help explains them"
    require(name in COMMANDS, "COMMAND", name, ", ".join(COMMANDS), remedy)
    kind, model = COMMANDS[name], ""
    if not {"-h", "--help"} & set(words):
        if not words or words[0].startswith("-"):
            raise ConfigError(
                "MODEL is not given, allowed: NAME[@VERSION], a bundle's folder or a run's; put it "
                f"first: {prog} {name} digits"
            )
        model = words.pop(0)
    about = kind.__doc__ or ""
    command: Command = read(kind, words, kind(), prog=f"{prog} {name} MODEL", description=about)
    return command, model


def _help(prog: str) -> str:
    width = max(map(len, COMMANDS))
    lines = (
        f"  {name:{width}}  {(kind.__doc__ or '').splitlines()[0]}"
        for name, kind in COMMANDS.items()
    )
    return "\n".join([f"usage: {prog} COMMAND MODEL [ARGUMENTS]", "", *lines])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m training.inversion COMMAND MODEL [FILES] [--option value]`: from images to latents.

MODEL is a published model, NAME[@VERSION]; a bundle's folder; or the folder of a run that was
exported. It is not changed: what is made goes into a next version, or into a folder.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.stdout import closed_pipe_ignored
from training.cli.arguments import nearest, peek, read
from training.cli.command import resumed
from training.data import DataConfig
from training.errors import ConfigError, TrainingError, require
from training.interpretation.published import open_model
from training.inversion.calibrate_command import CalibrateCommand
from training.inversion.encoder_command import EncoderCommand
from training.inversion.restore_commands import (
    EditCommand,
    EnlargeCommand,
    FillCommand,
    ProjectCommand,
)
from training.inversion.score_command import ScoreCommand
from training.runs.interruption import InterruptedRun
from training.runs.model_data import data_of

PROG = "python -m training.inversion"
_STOPPED = 130

COMMANDS: dict[str, type[Any]] = {
    "encoder": EncoderCommand,
    "project": ProjectCommand,
    "edit": EditCommand,
    "fill": FillCommand,
    "enlarge": EnlargeCommand,
    "calibrate": CalibrateCommand,
    "score": ScoreCommand,
}


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help(prog))
        return 0 if words else 2
    try:
        text = _run(words, prog)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except InterruptedRun:
        return _STOPPED
    print(text)
    return 0


def _run(words: list[str], prog: str) -> str:
    name = words.pop(0)
    remedy = f"{nearest(name, list(COMMANDS))}{prog} --help explains them"
    require(name in COMMANDS, "COMMAND", name, ", ".join(COMMANDS), remedy)
    kind = COMMANDS[name]
    takes_files = any(each.name == "files" for each in fields(kind))
    usage = f"{prog} {name} MODEL{' FILES' if takes_files else ''}"
    about = kind.__doc__ or ""
    if {"-h", "--help"} & set(words):
        read(kind, words, kind(), prog=usage, description=about)
    model = _taken(words, "MODEL", f"{prog} {name} digits{' photo.png' if takes_files else ''}")
    files = tuple(Path(word) for word in _leading(words)) if takes_files else ()
    default = kind(**{"files": files} if takes_files else {})
    bundle, run = open_model(model, Path(peek(words, "--repository") or default.repository))
    if any(each.name == "data" for each in fields(kind)):
        default = replace(default, data=_data(bundle, run, words))
    command = read(kind, words, default, prog=usage, description=about)
    text: str = command.run(bundle, _say)
    return text


def _data(bundle: Bundle, run: Path | None, words: list[str]) -> DataConfig:
    """The images that the model was trained on, unless the options need none."""
    real = peek(words, "--real")
    if real is not None and not real.strip("0."):
        given = next((word for word in words if word.startswith("--data.")), None)
        if given is not None:
            option = given.partition("=")[0]
            raise ConfigError(
                f"real is {real}, so that the encoder learns from no data, but {option} is given; "
                "leave it out, or give --real more than 0"
            )
        return DataConfig()
    if run is not None and peek(words, "--data.dataset") is None:
        return resumed(run, None).config.data
    return data_of(bundle, words, say=_say)


def _taken(words: list[str], what: str, example: str) -> str:
    if not words or words[0].startswith("-"):
        raise ConfigError(
            f"{what} is not given, allowed: NAME[@VERSION], a bundle's folder or a run's; put it "
            f"first: {example}"
        )
    return words.pop(0)


def _leading(words: list[str]) -> list[str]:
    """Takes the words before the first option."""
    found = []
    while words and not words[0].startswith("-"):
        found.append(words.pop(0))
    return found


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

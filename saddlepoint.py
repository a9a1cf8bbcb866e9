"""The command `saddlepoint COMMAND ...`: every program of this distribution under one name.

A command is the `main` of a module, the same that `python -m MODULE` runs, with the same options.
It is imported by name and only when it is asked for: `saddlepoint --help` is quick, and a part that
isn't installed is named.

`python -m training.run` finds the packages of the working directory first. It fails where a folder
`models` or `training` lies there, as in many repositories of GANs. This command finds ours first,
wherever it is called.
"""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "saddlepoint"
PACKAGES = ("models", "training", "serving")
USAGE_ERROR = 2
_WINDOWS = "error: Saddlepoint runs on Linux; on Windows use WSL 2"


class Command(NamedTuple):
    """A program and what it needs."""

    module: str
    extra: str | None
    """The extra of pyproject.toml that installs what it imports; None where it needs none."""
    about: str


COMMANDS = {
    "train": Command("training.run", "train", "Train a generator, export, measure and publish it."),
    "evaluate": Command("training.evaluate", "train", "Measure how good a published model is."),
    "stability": Command(
        "training.stability.__main__", "train", "Measure how stable the game of a run is."
    ),
    "report": Command(
        "training.report.__main__", "train", "One page on how trainings went, to open in a browser."
    ),
    "lab": Command("training.lab.__main__", "lab", "Watch a GAN's game live, in the browser."),
    "inside": Command(
        "training.interpretation.__main__", "train", "Look inside a model: directions, units."
    ),
    "invert": Command(
        "training.inversion.__main__", "train", "From real images to latents: edit, fill, enlarge."
    ),
    "data": Command("training.data.__main__", "train", "Audit a folder of images, or pack it."),
    "runs": Command(
        "training.runs.__main__", "train", "List, compare, publish and delete trainings."
    ),
    "generate": Command(
        "models.offline.generate", "models", "Images of a model into files, without a server."
    ),
    "interpolate": Command(
        "models.offline.interpolate", "models", "A walk from seed to seed, without a server."
    ),
    "serve": Command("serving.run", "serve", "Serve the models of a repository over HTTP."),
    "client": Command("serving.client.__main__", "client", "Ask a server for images, test it."),
    "bulk": Command("serving.bulk.__main__", "bulk", "Make many images into files; no server."),
    "keys": Command(
        "serving.keys.__main__", None, "Make, list and revoke the API keys of a server."
    ),
    "models": Command(
        "models.repository.__main__", "models", "List, check, choose and remove published models."
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; 2 where there is no such command or part."""
    if sys.platform == "win32":
        print(_WINDOWS, file=sys.stderr)
        return USAGE_ERROR
    words = list(sys.argv[1:] if argv is None else argv)
    name = words.pop(0) if words else ""
    if name in ("-h", "--help"):
        _show(_help())
        return 0
    if name == "--version":
        _show(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        print(_unknown(name), file=sys.stderr)
        return USAGE_ERROR
    _find_own_packages_first()
    if missing := _missing(command):
        print(_not_installed(name, command, missing), file=sys.stderr)
        return USAGE_ERROR
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        print(_not_installed(name, command, [error.name or command.module]), file=sys.stderr)
        return USAGE_ERROR
    exit_code: int = module.main(words, prog=f"{DISTRIBUTION} {name}")
    return exit_code


def _show(text: str) -> None:
    """Prints a text; that nobody reads it to its end, as in `| head`, is no failure.

    `models.stdout` does the same, and isn't imported here: no part of the packages is for `--help`.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more when it exits, which would print an error then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.about}" for name, command in COMMANDS.items())
    return "\n".join(
        [
            f"usage: {DISTRIBUTION} COMMAND [--help] [ARGUMENTS]",
            f"       {DISTRIBUTION} --version",
            "",
            "Trains GANs, exports the generator to ONNX and serves it.",
            "",
            *lines,
            "",
            f"Each explains its options: {DISTRIBUTION} train --help",
        ]
    )


def _unknown(name: str) -> str:
    if not name:
        return _help()
    found = difflib.get_close_matches(name, COMMANDS, n=1)
    near = f"the nearest is {found[0]}" if found else f"{DISTRIBUTION} --help explains them"
    return f"error: COMMAND is {name!r}, allowed: {', '.join(COMMANDS)}; {near}"


def _not_installed(name: str, command: Command, missing: Sequence[str]) -> str:
    extra = f"[{command.extra}]" if command.extra else ""
    return (
        f"error: {DISTRIBUTION} {name} needs {', '.join(missing)}, not installed for "
        f"{sys.executable}; install it from Saddlepoint's source: "
        f"{sys.executable} -m pip install '.{extra}'"
    )


def _missing(command: Command) -> list[str]:
    """Distributions of the command's extra that aren't installed.

    Those that only some platforms need are not looked for: that would take a parser of markers.
    """
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # sources that nobody installed: the import will tell
        return []
    missing = []
    for requirement in required:
        distribution, _, marker = requirement.partition(";")
        if marker.replace('"', "'").strip() == f"extra == '{command.extra}'":
            name = re.split(r"[^\w.-]", distribution, maxsplit=1)[0]
            try:
                metadata.distribution(name)
            except metadata.PackageNotFoundError:
                missing.append(name)
    return missing


def _find_own_packages_first() -> None:
    """Moves folders that hold packages of the same names behind our own.

    They get onto sys.path by `python -m saddlepoint`, which adds the working directory, and by
    PYTHONPATH. A spawned process takes sys.path from this one, so it finds the same packages.
    """
    own = Path(__file__).resolve().parent
    first: list[str] = []
    hiding: list[str] = []
    for entry in sys.path:
        folder = Path(entry).resolve()
        hides = folder != own and any(
            (folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in PACKAGES
        )
        (hiding if hides else first).append(entry)
    # An editable install has no entry of its own: it is found after the whole of sys.path.
    if hiding and str(own) not in first:
        first.append(str(own))
    sys.path[:] = first + hiding


if __name__ == "__main__":
    sys.exit(main())

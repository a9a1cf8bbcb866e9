"""The command line of the repository: `python -m models.repository`.

Exit codes: 0 done; 1 the repository can't do it; 2 wrong usage; 3 no such model or version; 4 a
bundle was refused.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from models.bundle import Bundle
from models.errors import BundleError, ModelError, RepositoryError
from models.generator import CpuGenerator
from models.manifest import encode
from models.repository import Repository

Command = Callable[[Repository, argparse.Namespace], int]


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(Repository(options.repository), options)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.repository",
        description="Named models in numbered versions: look, check, choose what is served.",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model-repository"),
        metavar="DIR",
        help="folder of the models (default: %(default)s)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, model: str, version: str, description: str) -> None:
        """model, version: "one", "optional" or "" for the positional arguments it takes."""
        entry = commands.add_parser(name, help=description, description=description)
        entry.set_defaults(command=command, model=None, version=None)
        if model:
            nargs = "?" if model == "optional" else None
            entry.add_argument("model", nargs=nargs, metavar="NAME", help="name of the model")
        if version:
            nargs = "?" if version == "optional" else None
            entry.add_argument(
                "version", nargs=nargs, type=_version, metavar="VERSION", help="its number"
            )

    add("list", _list, "optional", "", "list models and versions")
    add("show", _show, "one", "optional", "print the manifest of a version (default: CURRENT)")
    add("verify", _verify, "optional", "optional", "check files and golden images (default: all)")
    add("promote", _promote, "one", "one", "serve this version from now on")
    add("pin", _pin, "one", "optional", "keep a version (default: CURRENT) when newer ones come")
    add("rollback", _rollback, "one", "", "serve the version before CURRENT")
    return parser


def _version(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no version: versions are 1, 2, 3 ...")
    return int(text)


def _list(repository: Repository, options: argparse.Namespace) -> int:
    names = _names(repository, options.model)
    print(f"{'MODEL':24} {'VERSION':>7} {'':8} {'EXPORTED':25} FIGURES")
    for name in names:
        current = repository.current(name)
        for version in repository.versions(name):
            mark = ("pinned" if current.pinned else "current") if version == current.version else ""
            print(f"{name:24} {version:>7} {mark:8} {_summary(repository, name, version)}".rstrip())
    return 0


def _summary(repository: Repository, name: str, version: int) -> str:
    try:
        manifest = repository.bundle(name, version).manifest
    except BundleError as error:
        return f"refused: {error}"
    figures = ", ".join(f"{metric.name} {metric.value:.4g}" for metric in manifest.metrics)
    return f"{manifest.created:25} {figures}"


def _show(repository: Repository, options: argparse.Namespace) -> int:
    bundle = repository.bundle(options.model, options.version)
    print(f"{bundle.path} sha256 {bundle.digest}")
    print(encode(bundle.manifest).decode(), end="")
    return 0


def _verify(repository: Repository, options: argparse.Namespace) -> int:
    exit_code = 0
    for name in _names(repository, options.model):
        versions = repository.versions(name) if options.version is None else [options.version]
        for version in versions:
            try:
                difference = verify(repository.bundle(name, version))
            except BundleError as error:
                print(f"{name}/{version} refused: {error}", file=sys.stderr)
                exit_code = error.exit_code
            else:
                print(f"{name}/{version} ok, golden images within {difference}/255")
    return exit_code


def verify(bundle: Bundle) -> int:
    """Checks files and golden images on the CPU; returns the largest difference in 8-bit steps.

    Raises:
        BundleError: the bundle is not to be used.
    """
    bundle.verify_files()
    return bundle.verify_golden(CpuGenerator(bundle.model_path))


def _promote(repository: Repository, options: argparse.Namespace) -> int:
    print(f"{options.model}: {repository.promote(options.model, options.version)}")
    return 0


def _pin(repository: Repository, options: argparse.Namespace) -> int:
    print(f"{options.model}: {repository.pin(options.model, options.version)}")
    return 0


def _rollback(repository: Repository, options: argparse.Namespace) -> int:
    print(f"{options.model}: {repository.rollback(options.model)}")
    return 0


def _names(repository: Repository, name: str | None) -> list[str]:
    if name is not None:
        repository.versions(name)
        return [name]
    names = repository.names()
    if not names:
        raise RepositoryError(
            f"{repository.root}: holds no models; name another folder with --repository DIR, or "
            "publish one with `python -m training.run`"
        )
    return names

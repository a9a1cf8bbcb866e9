"""The command line of the repository: `python -m models.repository`.

Exit codes: 0 done; 1 the repository can't do it; 2 wrong usage; 3 no such model or version; 4 a
bundle was refused. With --json a command prints one object, for programs.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from models.candidate import Candidate
from models.errors import BundleError, ModelError, RepositoryError
from models.listing import State, listed, served, summary
from models.manifest import encode
from models.pruning import prune, remove
from models.repository import Current, Repository, check_name
from models.verification import verify

Command = Callable[[Repository, argparse.Namespace], int]
KEEP = 3


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

    def add(
        name: str, command: Command, model: str, version: str, description: str
    ) -> argparse.ArgumentParser:
        """model, version: "one", "optional" or "" for the positional arguments it takes."""
        entry = commands.add_parser(name, help=description, description=description)
        entry.set_defaults(command=command, model=None, version=None)
        if model:
            nargs = "?" if model == "optional" else None
            entry.add_argument(
                "model", nargs=nargs, type=_name, metavar="NAME", help="name of the model"
            )
        if version:
            nargs = "?" if version == "optional" else None
            entry.add_argument(
                "version", nargs=nargs, type=_version, metavar="VERSION", help="its number"
            )
        entry.add_argument("--json", action="store_true", help="print one JSON object")
        return entry

    add("list", _list, "optional", "", "list models and versions")
    add("show", _show, "one", "optional", "print the manifest of a version (default: CURRENT)")
    add("verify", _verify, "optional", "optional", "check files and golden images (default: all)")
    add("promote", _promote, "one", "one", "serve this version from now on; ends a trial")
    add("pin", _pin, "one", "optional", "keep a version (default: CURRENT) when newer ones come")
    add("rollback", _rollback, "one", "", "serve the version before CURRENT; ends a trial")
    trial = add("canary", _canary, "one", "optional", "have a version make a share of the seeds")
    trial.add_argument(
        "--share", type=_share, metavar="PERCENT", help="of the seeds, 0.000001 .. 100"
    )
    trial.add_argument("--off", action="store_true", help="end the trial")
    words = "remove old versions, but CURRENT, the candidate, what is in use and the newest"
    pruning = add("prune", _prune, "optional", "optional", words)
    pruning.add_argument(
        "--keep",
        type=_keep,
        default=KEEP,
        metavar="N",
        help="newest to keep (default: %(default)s)",
    )
    pruning.add_argument("--dry-run", action="store_true", help="say what would go")
    return parser


def _version(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no version: versions are 1, 2, 3 ...")
    return int(text)


def _keep(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"keep is {text}, must be at least 1: the newest version stays, since its number "
            "would be given again"
        )
    return int(text)


def _name(text: str) -> str:
    try:
        return check_name(text)
    except RepositoryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    try:
        return Candidate(1, float(text)).share_percent
    except (ValueError, RepositoryError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _list(repository: Repository, options: argparse.Namespace) -> int:
    states = [State.of(repository, name) for name in _names(repository, options.model)]
    if options.json:
        _print({"models": [listed(repository, state) for state in states]})
    else:
        print(f"{'MODEL':24} {'VERSION':>7} {'':8} {'EXPORTED':25} FIGURES")
        for state in states:
            for version in state.versions:
                words = f"{state.mark(version):8} {summary(repository, state.name, version)}"
                print(f"{state.name:24} {version:>7} {words}".rstrip())
    return _complain([fault for state in states for fault in state.faults])


def _show(repository: Repository, options: argparse.Namespace) -> int:
    bundle = repository.bundle(options.model, options.version)
    if options.json:
        _print({"path": str(bundle.path), "digest": bundle.digest, "manifest": bundle.manifest})
        return 0
    print(f"{bundle.path} sha256 {bundle.digest}")
    print(encode(bundle.manifest).decode(), end="")
    return 0


def _verify(repository: Repository, options: argparse.Namespace) -> int:
    exit_code = 0
    found: list[dict[str, Any]] = []
    for name in _names(repository, options.model):
        versions = repository.versions(name) if options.version is None else [options.version]
        for version in versions:
            entry = {"model": name, "version": version}
            try:
                difference = verify(repository.bundle(name, version))
            except BundleError as error:
                print(f"{name}/{version} refused: {error}", file=sys.stderr)
                exit_code = error.exit_code
                found.append({**entry, "ok": False, "refused": str(error)})
            else:
                _say(options, f"{name}/{version} ok, golden images within {difference}/255")
                found.append({**entry, "ok": True, "max_abs_diff": difference})
    if options.json:
        _print({"versions": found})
    return exit_code


def _promote(repository: Repository, options: argparse.Namespace) -> int:
    return _chosen(repository, options, repository.promote(options.model, options.version))


def _pin(repository: Repository, options: argparse.Namespace) -> int:
    return _chosen(repository, options, repository.pin(options.model, options.version))


def _rollback(repository: Repository, options: argparse.Namespace) -> int:
    return _chosen(repository, options, repository.rollback(options.model))


def _chosen(repository: Repository, options: argparse.Namespace, current: Current) -> int:
    """Says what is served now."""
    candidate = repository.candidate(options.model)
    if options.json:
        _print(served(options.model, current, candidate))
    else:
        print(f"{options.model}: {current}")
    return 0


def _canary(repository: Repository, options: argparse.Namespace) -> int:
    name = options.model
    if options.off and options.version is None and options.share is None:
        repository.end_candidate(name)
    elif options.off or (options.version is None) != (options.share is None):
        print("error: canary takes VERSION and --share, or --off, or NAME alone", file=sys.stderr)
        return 2
    elif options.version is not None:
        repository.set_candidate(name, Candidate(options.version, options.share))
    current, candidate = repository.current(name), repository.candidate(name)
    if options.json:
        _print(served(name, current, candidate))
    else:
        print(f"{name}: {current}" + ("" if candidate is None else f", candidate {candidate}"))
    return 0


def _prune(repository: Repository, options: argparse.Namespace) -> int:
    if options.version is not None:
        if options.dry_run:
            print("error: --dry-run is for pruning by --keep, not for a VERSION", file=sys.stderr)
            return 2
        remove(repository, options.model, options.version)
        _say(options, f"{options.model}: removed {options.version}")
        if options.json:
            _print({"models": [{"model": options.model, "removed": [options.version]}]})
        return 0
    found: list[dict[str, Any]] = []
    faults: list[ModelError] = []
    # What is run every day may come before the first model: then there is nothing to do.
    early = options.model is None and repository.root.is_dir() and not repository.names()
    if early:
        _say(options, f"{repository.root}: holds no models, nothing to remove")
    for name in () if early else _names(repository, options.model):
        try:
            pruned = prune(repository, name, keep=options.keep, dry_run=options.dry_run)
        except ModelError as error:
            faults.append(error)
            found.append({"model": name, "faults": [str(error)]})
            continue
        found.append({"model": name, **asdict(pruned)})
        verb = "would remove" if options.dry_run else "removed"
        text = f"{name}: {verb} {_numbers(pruned.removed)}; kept {_numbers(pruned.kept)}"
        if pruned.in_use:
            text += f"; in use {_numbers(pruned.in_use)}"
        _say(options, text)
    if options.json:
        _print({"dry_run": options.dry_run, "models": found})
    return _complain(faults)


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def _complain(faults: list[ModelError]) -> int:
    """Says what went wrong with some of the models; returns the exit code."""
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return max((fault.exit_code for fault in faults), default=0)


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(text)


def _print(found: dict[str, Any]) -> None:
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def _names(repository: Repository, name: str | None) -> list[str]:
    if name is not None:
        repository.versions(name)
        return [name]
    fault = repository.fault()
    if fault is not None:
        raise RepositoryError(fault)
    return repository.names()

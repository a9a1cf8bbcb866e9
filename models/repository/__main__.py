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

from models.bundle.manifest import encode
from models.bundle.verification import MAX_BATCH_ROWS, verify
from models.command_line import add_to_all
from models.errors import BundleError, ModelError, RepositoryError
from models.repository.candidate import Candidate
from models.repository.listing import ModelStatus, model_record, status_record, version_summary
from models.repository.pruning import prune
from models.repository.removal import remove
from models.repository.store import Current, Repository, check_name
from models.stdout import closed_pipe_ignored

Command = Callable[[Repository, argparse.Namespace], int]
PROG = "python -m models.repository"
KEEP = 3
_MOST_ROWS = 4096


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs one command and returns the exit code; prog: how it was called."""
    options = _parser(prog).parse_args(argv)
    command: Command = options.command
    try:
        return command(Repository(options.repository), options)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Named models in numbered versions: look, check, choose what is served.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, command: Command, model: str, version: str, description: str
    ) -> argparse.ArgumentParser:
        """Adds a command. model, version: "one", "optional" or "" (it takes none)."""
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
    words = "check files, golden images and batches of many sizes (default: all)"
    verifying = add("verify", _verify, "optional", "optional", words)
    verifying.add_argument(
        "--max-batch-rows",
        type=_rows,
        default=MAX_BATCH_ROWS,
        metavar="N",
        help="largest batch to try, as the server's setting (default: %(default)s)",
    )
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
    removing = add("remove", _remove, "", "", "remove a version, also the newest, or a whole model")
    removing.add_argument(
        "target", type=_target, metavar="NAME[@VERSION]", help="the version, or all of the model"
    )
    removing.add_argument(
        "--force", action="store_true", help="also what is CURRENT, on trial or in use"
    )
    add_to_all(
        *(parser, commands, "--repository"),
        type=Path,
        default=Path("model-repository"),
        metavar="DIR",
        help="folder of the models (default: %(default)s)",
    )
    return parser


def _version(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no version: versions are 1, 2, 3 ...")
    return int(text)


def _keep(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"keep is {text}, must be at least 1: the newest version stays; `remove` takes a whole "
            "model"
        )
    return int(text)


def _rows(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: 1 .. {_MOST_ROWS}")
    return int(text)


def _name(text: str) -> str:
    try:
        return check_name(text)
    except RepositoryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _target(text: str) -> tuple[str, int | None]:
    name, at, version = text.partition("@")
    return _name(name), _version(version) if at else None


def _share(text: str) -> float:
    try:
        return Candidate(1, float(text)).share_percent
    except (ValueError, RepositoryError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _list(repository: Repository, options: argparse.Namespace) -> int:
    models = [ModelStatus.read(repository, name) for name in _names(repository, options.model)]
    if options.json:
        _print({"models": [model_record(repository, model) for model in models]})
    else:
        print(f"{'MODEL':24} {'VERSION':>7} {'':8} {'EXPORTED':25} FIGURES")
        for model in models:
            for version in model.versions:
                words = (
                    f"{model.role(version):8} {version_summary(repository, model.name, version)}"
                )
                print(f"{model.name:24} {version:>7} {words}".rstrip())
    return _report([fault for model in models for fault in model.faults])


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
                bundle = repository.bundle(name, version)
                difference = verify(bundle, max_batch_rows=options.max_batch_rows)
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
    """Prints what is served now."""
    candidate = repository.candidate(options.model)
    if options.json:
        _print(status_record(options.model, current, candidate))
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
        _print(status_record(name, current, candidate))
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
    # A daily job may run before the first model is published: that is no error.
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
    return _report(faults)


def _remove(repository: Repository, options: argparse.Namespace) -> int:
    name, version = options.target
    removed = remove(repository, name, version, force=options.force)
    _say(options, f"{name}: removed {_numbers(removed.versions)}")
    for note in removed.notes:
        _say(options, f"{name}: {note}")
    if options.json:
        _print({"model": name, "removed": removed.versions, "notes": removed.notes})
    return 0


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def _report(faults: list[ModelError]) -> int:
    """Prints the faults of some models and returns the exit code."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

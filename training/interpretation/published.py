"""Published models: opening the one that a word names, and publishing it with further parts."""

import os
import shlex
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from models.bundle import MANIFEST, Bundle
from models.bundle.bundle import write_bundle
from models.bundle.manifest import Metric
from models.bundle.verification import verify
from models.errors import ModelError
from models.repository import Repository
from models.repository.lookup import open_named
from training.cli.command import CONFIG
from training.errors import CheckpointError, ConfigError, ExportError

Say = Callable[[str], None]


def open_model(word: str, repository: Path) -> tuple[Bundle, Path | None]:
    """Opens the bundle that a word names, and gives its run's folder where it names a run.

    Raises:
        CheckpointError: the run was not exported, or there is no such model.
    """
    run = Path(word)
    is_run = (run / CONFIG).is_file()
    if is_run and not (run / "bundle" / MANIFEST).is_file():
        raise CheckpointError(
            f"MODEL is {word!r}, a run without an exported model; export it: "
            + shlex.join(
                ["python", "-m", "training.runs", "export", word, "--out", str(run / "bundle")]
            )
        )
    try:
        bundle = open_named(str(run / "bundle") if is_run else word, repository)
    except ModelError as error:
        raise CheckpointError(f"MODEL is {word!r}: {error}") from error
    return bundle, run if is_run else None


def require_free(
    folder: Path, names: Iterable[str], *, inputs: Iterable[Path] = (), force: bool
) -> None:
    """Refuses files that are there already, before any work is done.

    Args:
        folder: where files of these names are to be written.
        names: the names.
        inputs: what the command reads, which is never overwritten.
        force: other files may be overwritten.

    Raises:
        ConfigError: one is an input, or is there and `force` is False.
    """
    there = [path for path in (folder / name for name in names) if os.path.lexists(path)]
    read = {each.resolve() for each in inputs}
    for path in there:
        if path.resolve() in read:
            raise ConfigError(
                f"out is {str(folder)!r}: {path} is a file that is read, and would be overwritten; "
                "choose another folder with --out"
            )
    if there and not force:
        shown = ", ".join(map(str, there[:3])) + (", ..." if len(there) > 3 else "")
        raise ConfigError(
            f"out is {str(folder)!r}, allowed: a folder without {shown}; choose another with "
            "--out, or overwrite with --force"
        )


def write_files(folder: Path, files: Mapping[str, bytes], say: Say) -> None:
    """Writes files into a folder, each whole or not at all.

    Raises:
        ExportError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)
    except OSError as error:
        raise ExportError(f"out is {str(folder)!r}: {error.strerror}; choose another") from error
    say(f"{', '.join(files)} in {folder}")


def assembled(
    bundle: Bundle,
    files: Mapping[str, bytes],
    folder: Path,
    *,
    metrics: tuple[Metric, ...] = (),
    card: str = "",
    without: Collection[str] = (),
) -> Bundle:
    """Writes a bundle with further files into a new folder; every other file stays as it is.

    Args:
        bundle: the model.
        files: content by name; those of the same names are replaced.
        folder: must not exist.
        metrics: figures that are added; earlier ones of the same names are replaced.
        card: a section in Markdown that is added to the model card; its first line is its heading,
            and an earlier section of this heading is replaced.
        without: names of files that are left out.

    Raises:
        ModelError, OSError: it can't be written.
    """
    names = bundle.manifest.files.keys() - set(without)
    kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    kept = {name: content for name, content in kept.items() if name in names}
    if card:
        kept["card.md"] = _with_section(kept["card.md"].decode(), card).encode()
    measured = {metric.name for metric in metrics}
    figures = (*(m for m in bundle.manifest.metrics if m.name not in measured), *metrics)
    manifest = msgspec.structs.replace(bundle.manifest, files={}, metrics=figures)
    return write_bundle(folder, manifest, {**kept, **files})


def publish(
    bundle: Bundle,
    files: Mapping[str, bytes],
    repository: Repository,
    say: Say,
    *,
    what: str,
    metrics: tuple[Metric, ...] = (),
    card: str = "",
    without: Collection[str] = (),
) -> Bundle:
    """Publishes a bundle with further files as the next version of its name.

    what: the new parts in words, for messages. The other arguments are those of `assembled`.

    Raises:
        ExportError: the bundle doesn't verify with them, or can't be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "bundle")
            whole = assembled(bundle, files, place, metrics=metrics, card=card, without=without)
            verify(whole)
            published = repository.publish(bundle.manifest.name, whole)
    except (ModelError, OSError) as error:
        raise ExportError(f"the model can't be published with its {what}: {error}") from error
    name, version = published.manifest.name, published.manifest.version
    say(f"Published {name} version {version} in {repository.root}")
    return published


def _with_section(text: str, section: str) -> str:
    heading = section.partition("\n")[0] + "\n"
    before, found, rest = text.partition(heading)
    after = rest[at:] if found and (at := rest.find("\n## ")) >= 0 else ""
    return f"{before.rstrip()}\n\n{section.rstrip()}\n{after}"

"""`python -m serving.client COMMAND`: images, animations, models and load tests from a shell.

Exit codes: 0 done; 1 a file is in the way, or the load test saw failures; 2 wrong usage; 3 the
server refused; 4 nobody answered.
"""

import argparse
import asyncio
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.client.clients import Client
from serving.client.errors import ClientError, UnreachableError
from serving.client.load import Loader

_MAX_SEEDS = 1_000_000
_MAX_SEED = 2**64 - 1


class FileError(Exception):
    """A file can't be read or written as asked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.command(options)
        return code
    except UnreachableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except ClientError as error:
        where = "" if error.status is None else f" ({error.status} {error.title})"
        print(f"error{where}: {error.detail}", file=sys.stderr)
        return 3
    except (FileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def seeds_of(text: str) -> list[int]:
    """Seeds as `1-16,42`.

    Raises:
        argparse.ArgumentTypeError: it can't be read, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and int(end) <= _MAX_SEED for end in ends):
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is no seed in 0 .. 2**64 - 1 and no range like 1-16"
            )
        start, stop = int(ends[0]), int(ends[1])
        if stop < start:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} goes backwards")
        if len(seeds) + stop - start + 1 > _MAX_SEEDS:
            raise argparse.ArgumentTypeError(f"more than {_MAX_SEEDS:,} seeds")
        seeds += range(start, stop + 1)
    return seeds


def write_file(path: Path, data: bytes, *, force: bool) -> None:
    """Writes a file whole or not at all.

    Raises:
        FileError: it is there already, and not to be overwritten.
    """
    if path.exists() and not force:
        raise FileError(f"{path} exists; choose another name, or add --force")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def generate(options: argparse.Namespace) -> int:
    """Images into files."""
    labels = options.labels
    fields = {"truncation": options.truncation, "version": options.version}
    wanted = {"model": options.model, **fields}
    if labels is not None and len(labels) == 1:
        labels = labels[0]
    with _client(options) as client:
        if options.grid is not None:
            picture = client.grid(options.seeds, labels=labels, **wanted)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            write_file(options.grid, buffer.getvalue(), force=options.force)
        elif options.npy is not None:
            buffer = io.BytesIO()
            np.save(buffer, client.generate_array(options.seeds, labels=labels, **wanted))
            write_file(options.npy, buffer.getvalue(), force=options.force)
        else:
            _write_all(client, options, labels, wanted)
    return 0


def _write_all(
    client: Client, options: argparse.Namespace, labels: Any, wanted: dict[str, Any]
) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    paths = [options.out / f"{seed}.png" for seed in options.seeds]
    in_the_way = [path for path in paths if path.exists()]
    if in_the_way and not options.force:
        raise FileError(f"{in_the_way[0]} exists; choose another folder, or add --force")
    pictures = client.generate(options.seeds, labels=labels, **wanted)
    for path, picture in zip(paths, pictures, strict=True):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        write_file(path, buffer.getvalue(), force=True)
    print(f"{len(paths)} images in {options.out}")


def interpolate(options: argparse.Namespace) -> int:
    """A walk into a file, whose name says the format."""
    kind = {".webp": "webp", ".gif": "gif", ".png": "strip"}.get(options.out.suffix.lower())
    if kind is None:
        raise FileError(f"--out is {options.out}, must end in .webp, .gif or .png (a strip)")
    fields = ("frames", "loop", "fps", "label", "truncation", "model", "version")
    with _client(options) as client:
        data = client.interpolate(
            options.seeds, format=kind, **{name: getattr(options, name) for name in fields}
        )
    write_file(options.out, data, force=options.force)
    return 0


def models(options: argparse.Namespace) -> int:
    """What is served."""
    with _client(options) as client:
        found = client.models()
    if options.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return 0
    rows = [("MODEL", "VERSION", "OF", "IMAGES", "CLASSES", "DIGEST")]
    for model in found:
        colour = "grey" if model.image.channels == 1 else "RGB"
        size = f"{model.image.width}x{model.image.height} {colour}"
        of = ",".join(map(str, model.versions))
        classes = "-" if model.labels is None else str(len(model.labels))
        rows.append((model.name, str(model.version), of, size, classes, model.digest[:12]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def load(options: argparse.Namespace) -> int:
    """A load test."""
    fields: dict[str, Any] = {"format": "png" if options.seeds_per_request == 1 else "npy"}
    if options.model is not None:
        fields["model"] = options.model
    if options.label is not None:
        fields["labels"] = options.label
    key = _api_key(options)
    loader = Loader(
        options.url,
        fields,
        num_rows=options.seeds_per_request,
        headers=[] if key is None else [f"Authorization: Bearer {key}"],
    )
    measured = asyncio.run(
        loader.run(
            connections=options.connections,
            seconds=options.duration,
            progress=sys.stderr.isatty() or options.progress,
        )
    )
    if options.json:
        print(json.dumps(measured.summary()))
    else:
        for name, value in measured.summary().items():
            print(f"{name:16} {value}")
        print(*measured.histogram(), sep="\n")
    return 1 if measured.failures or not measured.latencies_s else 0


def _client(options: argparse.Namespace) -> Client:
    return Client(options.url, api_key=_api_key(options), timeout_s=options.timeout_s)


def _api_key(options: argparse.Namespace) -> str | None:
    if options.api_key_file is None:
        return None
    key: str = options.api_key_file.read_text(encoding="ascii").strip()
    if not key or not key.isprintable() or " " in key:
        raise FileError(f"{options.api_key_file} must hold one key and nothing else")
    return key


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.client", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="holds the API key")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("generate", help="images into files")
    one.add_argument("--labels", type=_labels, help="a class for all, or one for each: 7 or 0,1,2")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument("--grid", type=Path, metavar="FILE", help="all as one PNG")
    where.add_argument("--npy", type=Path, metavar="FILE", help="all as one array")
    where.add_argument("--out", type=Path, metavar="FOLDER", help="each as SEED.png")
    one.set_defaults(command=generate)
    walk = commands.add_parser("interpolate", help="the way from seed to seed as an animation")
    walk.add_argument("--frames", type=int, default=60, help="default: %(default)s")
    walk.add_argument("--fps", type=float, default=20.0, help="default: %(default)s")
    walk.add_argument("--loop", action="store_true", help="go back to the first seed")
    walk.add_argument("--label", type=int)
    walk.add_argument("--out", type=Path, required=True, help=".webp, .gif, or .png for a strip")
    walk.set_defaults(command=interpolate)
    for command in (one, walk):
        command.add_argument("--seeds", type=seeds_of, required=True, help="1-16,42")
        command.add_argument("--truncation", type=float, default=1.0, help="psi, 0 .. 2")
        command.add_argument("--model")
        command.add_argument("--version", type=int)
        command.add_argument("--force", action="store_true", help="overwrite files")
    listing = commands.add_parser("models", help="what is served")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(command=models)
    test = commands.add_parser("load", help="a closed-loop load test")
    test.add_argument("--connections", type=_count, default=16, help="default: %(default)s")
    test.add_argument("--duration", type=float, default=10.0, help="seconds, default: %(default)s")
    test.add_argument("--seeds-per-request", type=_count, default=1, help="default: %(default)s")
    test.add_argument("--model")
    test.add_argument("--label", type=int)
    test.add_argument("--json", action="store_true", help="one line for scripts")
    test.add_argument("--progress", action="store_true", help="a bar even where it is no terminal")
    test.set_defaults(command=load)
    return parser


def _labels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number in 1 .. 100000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

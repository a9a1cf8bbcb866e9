"""`python -m serving.client COMMAND`: images, animations, models and load tests from a shell.

Exit codes: 0 done; 1 a file is in the way, or the load test saw failures; 2 wrong usage; 3 the
server refused, or another program answered; 4 nobody answered in time.
"""

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.client.arguments import WALK_FORMATS, UsageError, parser
from serving.client.clients import Client
from serving.client.errors import ClientError, InvalidRequestError, UnreachableError
from serving.client.files import FileError, image_paths, write_file
from serving.client.load import Loader


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code."""
    options = parser(__doc__).parse_args(argv)
    try:
        return COMMANDS[options.command](options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ClientError as error:
        answered = " ".join(str(word) for word in (error.status, error.title) if word)
        print(f"error{answered and f' ({answered})'}: {error.detail}", file=sys.stderr)
        return _code(error)
    except (FileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _code(error: ClientError) -> int:
    if isinstance(error, UnreachableError):
        return 4
    noticed_here = isinstance(error, InvalidRequestError) and error.status is None
    return 2 if noticed_here else 3


def generate(options: argparse.Namespace) -> int:
    """Images into files."""
    labels = options.labels
    wanted = {name: getattr(options, name) for name in ("model", "truncation", "version")}
    if labels is not None and len(labels) == 1:
        labels = labels[0]
    elif labels is not None and len(labels) != len(options.seeds):
        raise UsageError(
            f"--labels has {len(labels)} entries, --seeds {len(options.seeds)}; "
            "give one for each, or one for all"
        )
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
    paths = image_paths(options.out, options.seeds, labels if isinstance(labels, list) else None)
    options.out.mkdir(parents=True, exist_ok=True)
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
    kind = WALK_FORMATS[options.out.suffix.lower()]
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
    loader = Loader(
        options.url,
        fields,
        num_rows=options.seeds_per_request,
        timeout_s=options.timeout_s,
        headers=[] if options.api_key is None else [f"Authorization: Bearer {options.api_key}"],
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
    if measured.stopped:
        print(
            f"error: stopped, since asking again changes nothing: {measured.first_failure}",
            file=sys.stderr,
        )
    return 1 if measured.failures or not measured.latencies_s else 0


def _client(options: argparse.Namespace) -> Client:
    return Client(options.url, api_key=options.api_key, timeout_s=options.timeout_s)


COMMANDS = {"generate": generate, "interpolate": interpolate, "models": models, "load": load}


if __name__ == "__main__":
    sys.exit(main())

"""`python -m serving.client COMMAND`: images, animations, long jobs, load tests from a shell.

Exit codes: 0 done; 1 a file exists or can't be written, `show --again` got other pixels, or the
load test had failures; 2 wrong usage; 3 the server refused, or another program answered; 4 no
response, or not in time.
"""

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.grid import png
from models.image_changes import styles_of
from models.image_files import RepeatedImageError, image_paths, require_free, write_file
from models.image_metadata import (
    provenance,
    read_metadata,
    with_metadata,
    written_amounts,
    written_styles,
)
from models.stdout import closed_pipe_ignored
from serving.client import real_image_commands
from serving.client.again import made_again
from serving.client.arguments import PROG, WALK_FORMATS, UsageError, parser
from serving.client.errors import ClientError, InvalidRequestError, UnreachableError
from serving.client.load import Loader
from serving.client.real_image_commands import add_commands
from serving.client.sync_client import Client

_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


@closed_pipe_ignored
def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Runs a command and returns its exit code; prog: how it was called."""
    options = parser((__doc__ or "").replace(PROG, prog), prog, add_commands).parse_args(argv)
    try:
        if options.command in real_image_commands.COMMANDS:
            return real_image_commands.COMMANDS[options.command](options, _client)
        return COMMANDS[options.command](options)
    except (UsageError, RepeatedImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ClientError as error:
        status = " ".join(str(word) for word in (error.status, error.title) if word)
        print(f"error{status and f' ({status})'}: {error.detail}", file=sys.stderr)
        return _code(error)
    except BrokenPipeError:  # of our own output: what is around this ends it
        raise
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _code(error: ClientError) -> int:
    if isinstance(error, UnreachableError):
        return 4
    unsent = isinstance(error, InvalidRequestError) and error.status is None
    return 2 if unsent else 3


def generate(options: argparse.Namespace) -> int:
    """Makes images and writes them into files."""
    labels = options.labels
    names = ("model", "truncation", "directions", "units_off", "version")
    fields = {name: getattr(options, name) for name in names} | {"styles": styles_of(options)}
    if labels is not None and len(labels) == 1:
        labels = labels[0]
    elif labels is not None and len(labels) != len(options.seeds):
        raise UsageError(
            f"--labels has {len(labels)} entries, --seeds {len(options.seeds)}; "
            "give one for each, or one for all"
        )
    one = [path for path in (options.grid, options.npy) if path is not None]
    require_free(one, force=options.force)
    with _client(options) as client:
        if options.grid is not None:
            write_file(options.grid, client.grid_file(options.seeds, labels=labels, **fields))
        elif options.npy is not None:
            buffer = io.BytesIO()
            np.save(buffer, client.generate_array(options.seeds, labels=labels, **fields))
            write_file(options.npy, buffer.getvalue())
        else:
            _write_all(client, options, labels, fields)
    return 0


def _write_all(
    client: Client, options: argparse.Namespace, labels: Any, fields: dict[str, Any]
) -> None:
    paths = image_paths(options.out, options.seeds, labels if isinstance(labels, list) else None)
    require_free(paths, force=options.force)
    answer = client.answer(options.seeds, labels=labels, **fields)
    choice = (options.style_from, options.style_layers, options.style_truncation)
    for row, (path, picture) in enumerate(zip(paths, answer.pictures(), strict=True)):
        told = provenance(
            model=answer.model,
            version=answer.version,
            digest=answer.digest,
            truncation=options.truncation,
            seed=options.seeds[row],
            label=labels[row] if isinstance(labels, list) else labels,
            directions=written_amounts(options.directions or {}),
            styles=written_styles(*choice) if any(each is not None for each in choice) else "",
            units_off=",".join(map(str, sorted(set(options.units_off or ())))),
        )
        write_file(path, with_metadata(png(picture), "png", told))
    print(f"{len(paths)} images in {options.out}")


def interpolate(options: argparse.Namespace) -> int:
    """Makes a walk and writes it into a file, whose suffix chooses the format."""
    kind = WALK_FORMATS[options.out.suffix.lower()]
    fields = ("frames", "loop", "fps", "label", "truncation", "directions", "units_off")
    require_free([options.out], force=options.force)
    with _client(options) as client:
        data = client.interpolate(
            options.seeds,
            format=kind,
            styles=styles_of(options),
            model=options.model,
            version=options.version,
            **{name: getattr(options, name) for name in fields},
        )
    write_file(options.out, data)
    return 0


def show(options: argparse.Namespace) -> int:
    """Prints how an image was made, and has it made again."""
    try:
        told = read_metadata(options.file.read_bytes())
    except ValueError as error:
        raise UsageError(f"FILE is {options.file}: {error}") from error
    if not told:
        raise UsageError(f"FILE is {options.file}: it does not say how it was made")
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        width = max(map(len, told))
        for name, text in told.items():
            print(f"{name:{width}}  {text}")
    if options.again is not None:
        require_free([options.again], force=options.force)
        with _client(options) as client:
            same, data = made_again(client, told, options.file)
        write_file(options.again, data)
        print(f"{options.again}: the pixels are {'the same' if same else 'others'}")
        return 0 if same else 1
    return 0


def models(options: argparse.Namespace) -> int:
    """Prints what is served, as a table or as JSON."""
    with _client(options) as client:
        found = client.models()
    if options.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return 0
    rows = [("MODEL", "VERSION", "OF", "IMAGES", "CLASSES", "DIGEST")]
    for model in found:
        channels = model.image.channels
        colours = _COLOURS.get(channels, f"{channels} channels")
        size = f"{model.image.width}x{model.image.height} {colours}"
        of = ",".join(map(str, model.versions))
        classes = "-" if model.labels is None else str(len(model.labels))
        rows.append((model.name, str(model.version), of, size, classes, model.digest[:12]))
    _print_table(rows)
    return 0


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def submit(options: argparse.Namespace) -> int:
    """Asks for a long job; prints it, or waits for its archive."""
    labels = options.labels
    names = ("count", "truncation", "format", "archive", "webhook", "model", "version")
    if options.out is not None:
        require_free([options.out], force=options.force)
    with _client(options) as client:
        job = client.jobs.submit(
            options.seeds,
            labels=labels[0] if labels is not None and len(labels) == 1 else labels,
            **{name: getattr(options, name) for name in names},
        )
        print(job.id, flush=True)
        return 0 if options.out is None else _fetch(client, job.id, options)


def jobs(options: argparse.Namespace) -> int:
    """Prints how far long jobs are, as a table or as JSON."""
    with _client(options) as client:
        found = client.jobs.all() if options.id is None else [client.jobs.status(options.id)]
    if options.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return 0
    rows = [("JOB", "STATUS", "IMAGES", "MODEL", "ARCHIVE", "PROBLEM")]
    for job in found:
        made, model = f"{job.num_done}/{job.num_images}", f"{job.model}/{job.version}"
        archive = f"{job.archive}, {job.num_bytes} bytes"
        rows.append((job.id, job.status, made, model, archive, job.problem or ""))
    _print_table(rows)
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Waits for a long job and writes its archive into a file."""
    require_free([options.out], force=options.force)
    with _client(options) as client:
        return _fetch(client, options.id, options)


def _fetch(client: Client, id: str, options: argparse.Namespace) -> int:
    job = client.jobs.wait(id)
    if job.status == "failed":
        print(f"error: job {id} has failed: {job.problem}", file=sys.stderr)
        return 3
    client.jobs.save(id, options.out, force=options.force)
    print(f"{job.num_images} images in {options.out}")
    return 0


def cancel(options: argparse.Namespace) -> int:
    """Ends a long job, or removes it with its result."""
    with _client(options) as client:
        job = client.jobs.cancel(options.id)
    print(f"{job.id} was {job.status}, {job.num_done} of {job.num_images} images were made")
    return 0


def load(options: argparse.Namespace) -> int:
    """Runs a load test and prints its figures."""
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
            f"error: stopped early, every further request would fail too: {measured.first_failure}",
            file=sys.stderr,
        )
    return 1 if measured.failures or not measured.latencies_s else 0


def _client(options: argparse.Namespace) -> Client:
    return Client(options.url, api_key=options.api_key, timeout_s=options.timeout_s)


COMMANDS = {
    "generate": generate,
    "interpolate": interpolate,
    "show": show,
    "models": models,
    "submit": submit,
    "jobs": jobs,
    "fetch": fetch,
    "cancel": cancel,
    "load": load,
}


if __name__ == "__main__":
    sys.exit(main())

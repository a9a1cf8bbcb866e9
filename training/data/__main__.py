"""`python -m training.data audit PATH`: what is wrong with a folder of images.

Exit codes: 0 nothing was found, 1 something was, 2 the command line is wrong, 3 the folder can't be
read or holds no usable image.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from models.grid import png
from training.audit import audit, sheet
from training.audit.inspection import MAX_BITS
from training.data import DataConfig, load
from training.errors import ConfigError, DataError, TrainingError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the arguments; exits with 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("audit", help="look for what is wrong with a folder of images")
    command.add_argument("path", type=Path, metavar="PATH", help="the folder")
    command.add_argument(
        "--resolution", type=int, default=64, help="height and width to train at (64)"
    )
    command.add_argument(
        "--channels", type=int, default=3, help="1 for grey, 3 for RGB, as in training (3)"
    )
    command.add_argument(
        "--conditional",
        action="store_true",
        help="the first level of subfolders is classes, as in training with --data.conditional",
    )
    command.add_argument(
        "--bits",
        type=int,
        default=MAX_BITS,
        help=f"bits of 64 that near duplicates' hashes may differ in, 0 .. 16 ({MAX_BITS})",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    command.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet, PNG")
    command.add_argument("--tiles", type=int, default=120, help="pictures on it at most (120)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns the exit code."""
    given = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what the terminal's charset lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for name, low, high in (("bits", 0, 16), ("tiles", 1, 10_000)):
            value = getattr(given, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, allowed: {low} .. {high}; set --{name}")
        config = DataConfig(
            dataset="folder",
            path=given.path,
            resolution=given.resolution,
            channels=given.channels,
            conditional=given.conditional,
        )
        image_set = load(config)
        report = audit(image_set, str(given.path), max_bits=given.bits)
        print(report.text(), end="")
        if given.json is not None:
            _write(given.json, (json.dumps(report.to_builtins(), indent=2) + "\n").encode())
        if given.sheet is not None:
            _write(given.sheet, png(sheet(image_set, report, tiles=given.tiles)))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if report.findings else 0


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}; name another file") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

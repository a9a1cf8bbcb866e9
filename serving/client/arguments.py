"""Parses the command line; a wrong option is reported before any request is sent."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.command_line import add_to_all
from models.image_changes import add_changes
from models.seed_list import seeds_of
from serving.client.errors import InvalidRequestError
from serving.client.transport import check_key, parse_url

PROG = "python -m serving.client"
WALK_FORMATS = {".webp": "webp", ".gif": "gif", ".png": "strip"}


class UsageError(Exception):
    """Two options contradict each other."""


def parser(
    description: str | None,
    prog: str = PROG,
    add_more: Callable[[Any], None] = lambda commands: None,
) -> argparse.ArgumentParser:
    """Builds the parser; the name of the command becomes `command`. add_more: adds commands."""
    whole = argparse.ArgumentParser(prog=prog, description=description)
    default = "default: %(default)s"
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    one = commands.add_parser("generate", help="images into files")
    one.add_argument("--labels", type=_labels, help="a class for all, or one for each: 7 or 0,1,2")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument("--grid", type=Path, metavar="FILE", help="all as one PNG")
    where.add_argument("--npy", type=Path, metavar="FILE", help="all as one array")
    where.add_argument("--out", type=Path, metavar="FOLDER", help="each as SEED.png")
    walk = commands.add_parser("interpolate", help="the way from seed to seed as an animation")
    walk.add_argument("--frames", type=int, default=60, help=default)
    walk.add_argument("--fps", type=_positive, default=20.0, help=default)
    walk.add_argument("--loop", action="store_true", help="go back to the first seed")
    walk.add_argument("--label", type=int)
    walk.add_argument(
        "--out", type=_walk_path, required=True, help=".webp, .gif, or .png for a strip"
    )
    for command in (one, walk):
        command.add_argument("--seeds", type=seeds_of, required=True, help="1-16,42")
        command.add_argument("--truncation", type=_number, default=1.0, help="psi, 0 .. 2")
        command.add_argument(
            "--directions", type=amounts, metavar="NAME:UNITS,...", help="0:1.5,slant:-1"
        )
        command.add_argument("--model")
        command.add_argument("--version", type=int)
        command.add_argument("--force", action="store_true", help="overwrite files")
        add_changes(command)
    shown = commands.add_parser("show", help="how an image was made, from its file alone")
    shown.add_argument("file", type=Path, metavar="FILE", help="a PNG, JPEG or WebP")
    shown.add_argument(
        "--again", type=Path, metavar="NEW", help="have the server make it again, into this file"
    )
    shown.add_argument("--json", action="store_true")
    shown.add_argument("--force", action="store_true", help="overwrite NEW")
    listing = commands.add_parser("models", help="what is served")
    listing.add_argument("--json", action="store_true")
    job = commands.add_parser("submit", help="a long job: any number of images in one archive")
    what = job.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=_ranges, help="1-50000,70000")
    what.add_argument("--count", type=_positive_whole, help="of seeds that the server draws")
    job.add_argument("--labels", type=_labels, help="a class for all, or one for each: 7 or 0,1,2")
    job.add_argument("--truncation", type=_number, default=1.0, help="psi, 0 .. 2")
    job.add_argument("--format", choices=("png", "jpeg", "webp"), default="png", help=default)
    job.add_argument("--archive", choices=("tar", "zip"), default="tar", help=default)
    job.add_argument("--webhook", metavar="URL", help="is told of the end")
    job.add_argument("--model")
    job.add_argument("--version", type=int)
    job.add_argument("--out", type=Path, metavar="FILE", help="wait for it, into this file")
    job.add_argument("--force", action="store_true", help="overwrite FILE")
    seen = commands.add_parser("jobs", help="how far long jobs are")
    seen.add_argument("id", nargs="?", metavar="ID", help="all if left out")
    seen.add_argument("--json", action="store_true")
    fetched = commands.add_parser("fetch", help="wait for a long job, and write its archive")
    fetched.add_argument("id", metavar="ID")
    fetched.add_argument("--out", type=Path, required=True, metavar="FILE")
    fetched.add_argument("--force", action="store_true", help="overwrite FILE")
    ended = commands.add_parser("cancel", help="end a long job, or remove it with its result")
    ended.add_argument("id", metavar="ID")
    test = commands.add_parser("load", help="a closed-loop load test")
    test.add_argument("--connections", type=_count, default=16, help=default)
    test.add_argument("--duration", type=_positive, default=10.0, help=f"seconds, {default}")
    test.add_argument("--seeds-per-request", type=_count, default=1, help=default)
    test.add_argument("--model")
    test.add_argument("--label", type=int)
    test.add_argument("--json", action="store_true", help="one line for scripts")
    test.add_argument("--progress", action="store_true", help="a bar even where it is no terminal")
    add_more(commands)
    server = "the server (default: %(default)s)"
    add_to_all(whole, commands, "--url", type=_url, default="http://127.0.0.1:8000", help=server)
    key = "holds the API key"
    add_to_all(
        whole, commands, "--api-key-file", type=_key, dest="api_key", metavar="FILE", help=key
    )
    wait = "how long to wait for a response (default: %(default)s)"
    add_to_all(whole, commands, "--timeout-s", type=_positive, default=30.0, metavar="S", help=wait)
    return whole


def _url(text: str) -> str:
    try:
        parse_url(text)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(error.detail) from None
    return text


def _key(text: str) -> str:
    try:
        key = Path(text).read_text(encoding="utf-8").strip()
        check_key(key)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{text} is not a text file") from None
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(f"in {text}: {error.detail}") from None
    return key


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def _positive(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number > 0")
    return number


def _walk_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in WALK_FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} must end in .webp, .gif or .png (a strip): the suffix chooses the format"
        )
    return path


def amounts(text: str) -> dict[str, float]:
    """Parses directions and their units."""
    found: dict[str, float] = {}
    for part in text.split(","):
        key, _, units = part.strip().rpartition(":")
        if not key or key in found:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is no direction and its units, such as 0:1.5,slant:-1"
            )
        found[key] = _number(units)
    return found


def _labels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers") from None


def _ranges(text: str) -> str:
    seeds_of(text)  # a mistake is told before anything is sent
    return text


def _positive_whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number > 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in 1 .. 100000")
    return int(text)

"""The command line's options: what is wrong with one is said before anything is asked for."""

import argparse
import math
from pathlib import Path

from serving.client.addresses import address_of
from serving.client.clients import check_key
from serving.client.errors import InvalidRequestError

WALK_FORMATS = {".webp": "webp", ".gif": "gif", ".png": "strip"}
_MAX_SEEDS = 1_000_000
_MAX_SEED = 2**64 - 1


class UsageError(Exception):
    """Options that don't go together."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Reads a command and its options; the command's name is `command`."""
    whole = argparse.ArgumentParser(prog="python -m serving.client", description=description)
    default = "default: %(default)s"
    whole.add_argument("--url", type=_url, default="http://127.0.0.1:8000", help=default)
    whole.add_argument(
        "--api-key-file", type=_key, dest="api_key", metavar="FILE", help="holds the API key"
    )
    whole.add_argument("--timeout-s", type=_positive, default=30.0, help=default)
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
        command.add_argument("--model")
        command.add_argument("--version", type=int)
        command.add_argument("--force", action="store_true", help="overwrite files")
    listing = commands.add_parser("models", help="what is served")
    listing.add_argument("--json", action="store_true")
    test = commands.add_parser("load", help="a closed-loop load test")
    test.add_argument("--connections", type=_count, default=16, help=default)
    test.add_argument("--duration", type=_positive, default=10.0, help=f"seconds, {default}")
    test.add_argument("--seeds-per-request", type=_count, default=1, help=default)
    test.add_argument("--model")
    test.add_argument("--label", type=int)
    test.add_argument("--json", action="store_true", help="one line for scripts")
    test.add_argument("--progress", action="store_true", help="a bar even where it is no terminal")
    return whole


def seeds_of(text: str) -> list[int]:
    """Seeds as `1-16,42`.

    Raises:
        argparse.ArgumentTypeError: it can't be read, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(map(_is_seed, ends)):
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


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= _MAX_SEED


def _url(text: str) -> str:
    try:
        address_of(text)
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
        raise argparse.ArgumentTypeError(f"{text} is no text") from None
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(f"in {text}: {error.detail}") from None
    return key


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return number


def _positive(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number > 0")
    return number


def _walk_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in WALK_FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} must end in .webp, .gif or .png (a strip): the end says the format"
        )
    return path


def _labels(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number in 1 .. 100000")
    return int(text)

"""The command line of `python -m serving.bulk`."""

import argparse
import math
import os
from pathlib import Path

from serving.bulk.formats import FORMATS
from serving.encoding.formats import FORMATS as IMAGE_FORMATS

PROG = "python -m serving.bulk"
MAX_TRUNCATION = 2.0
MAX_WORKERS = 100_000
MAX_SHARD_IMAGES = 10_000_000
DEFAULT_IMAGE_FORMAT = "png"


def parser(description: str | None, prog: str = PROG) -> argparse.ArgumentParser:
    """Builds the parser."""
    whole = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("model", metavar="MODEL", help="a name in the repository, or a bundle")
    whole.add_argument("--out", required=True, metavar="PLACE", help="a folder, or s3://BUCKET/...")
    _add_source(whole)
    _add_content(whole)
    _add_files(whole)
    _add_execution(whole)
    return whole


def _add_source(whole: argparse.ArgumentParser) -> None:
    group = whole.add_argument_group("model")
    group.add_argument(
        "--repository",
        type=Path,
        default=Path(os.environ.get("SADDLEPOINT_REPOSITORY", "model-repository")),
        metavar="DIR",
        help="where named models are; default: %(default)s",
    )
    group.add_argument("--version", type=_positive, help="default: the current one")


def _add_content(whole: argparse.ArgumentParser) -> None:
    group = whole.add_argument_group("images")
    seeds = group.add_mutually_exclusive_group(required=True)
    seeds.add_argument("--seeds", metavar="RANGES", help="0-999999, or 1,5,9-20")
    seeds.add_argument(
        "--seeds-from", type=Path, metavar="FILE", help="a seed or a range each line"
    )
    seeds.add_argument("--count", type=_positive, help="the seeds 0 .. COUNT - 1")
    labels = group.add_mutually_exclusive_group()
    labels.add_argument(
        "--labels", metavar="CLASSES", help="in turn, by the seed: 0,3,5; default: all classes"
    )
    labels.add_argument("--label-weights", metavar="C=W,..", help="drawn by the seed: 0=3,7=1")
    labels.add_argument("--labels-from", type=Path, metavar="FILE", help="a class for each seed")
    group.add_argument(
        "--truncation", type=_truncation, default=1.0, metavar="PSI", help="0 .. 2; default: 1"
    )


def _add_files(whole: argparse.ArgumentParser) -> None:
    group = whole.add_argument_group("files")
    group.add_argument(
        "--format", choices=FORMATS, default="folder", help="default: folder, for few images"
    )
    group.add_argument(
        "--image", choices=IMAGE_FORMATS, help=f"of each image; default: {DEFAULT_IMAGE_FORMAT}"
    )
    group.add_argument(
        "--shard-images", type=_shard_images, help="images of a shard; default: by their size"
    )
    group.add_argument("--batch-rows", type=_positive, help="images of one run; default: by size")


def _add_execution(whole: argparse.ArgumentParser) -> None:
    group = whole.add_argument_group("execution")
    group.add_argument(
        "--workers", type=_workers, help="processes, or actors; default: one for each core"
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="on Ray: auto (the cluster that runs here), local (start one), or its address",
    )
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    group.add_argument(
        "--workers-per-gpu",
        type=_workers,
        default=4,
        help="with --device cuda; one can't encode what a GPU makes; default: %(default)s",
    )
    group.add_argument(
        "--check",
        choices=("digest", "size"),
        default="digest",
        help="how files that are there already are checked; default: %(default)s",
    )
    group.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _workers(text: str) -> int:
    number = _positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_WORKERS}")
    return number


def _shard_images(text: str) -> int:
    number = _positive(text)
    if number > MAX_SHARD_IMAGES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is more than {MAX_SHARD_IMAGES}: a shard is what is made again when it fails"
        )
    return number


def _truncation(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MAX_TRUNCATION:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in 0 .. {MAX_TRUNCATION:g}")
    return number

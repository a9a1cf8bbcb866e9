"""`python -m training.data audit PATH`: find faults in a folder of images.

`python -m training.data pack PATH --to FOLDER`: decode them once, for sets larger than the memory.

Exit codes: 0 packed or nothing was found, 1 something was found, 2 the command line is wrong, 3 the
folder can't be read or holds no usable image, 130 interrupted.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from models.grid import png
from training.data import DataConfig, load
from training.data.audit import audit, sheet
from training.data.audit.inspection import MAX_BITS
from training.data.decoding import FITS, MAX_PIXELS
from training.data.listing.splits import CHOICES
from training.data.pack import pack
from training.errors import ConfigError, DataError, TrainingError
from training.finite_json import as_json
from training.stdout import ClosedPipeIgnored

PROG = "python -m training.data"
_SHOWN = 20  # skipped files that are named


def parse(argv: Sequence[str], *, prog: str = PROG) -> argparse.Namespace:
    """Parses the arguments; exits with 2 where they are wrong, and with 0 after --help."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").replace(PROG, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("audit", help="find faults in a folder of images")
    _add_data_arguments(command)
    command.add_argument(
        "--bits",
        type=int,
        default=MAX_BITS,
        help=f"how many of the 64 bits of near duplicates' hashes may differ, 0 .. 16 ({MAX_BITS})",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    command.add_argument(
        "--sheet", type=Path, metavar="FILE", help="write a contact sheet as a PNG file"
    )
    command.add_argument(
        "--tiles", type=int, default=120, help="pictures on the contact sheet at most (120)"
    )
    command = commands.add_parser(
        "pack", help="decode images once, into one file that trainings map into memory"
    )
    _add_data_arguments(command)
    command.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the folder to make, or the one of a pack that was interrupted, which goes on; "
        "train on it with --data.path FOLDER",
    )
    with ClosedPipeIgnored():
        return parser.parse_args(argv)
    raise SystemExit(0)  # nobody read --help to its end


def _add_data_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the options of the data, which mean what --data.* means in training."""
    fields = DataConfig.__dataclass_fields__
    command.add_argument(
        "path", type=Path, metavar="PATH", help="a folder of images, or a .zip or .tar archive"
    )
    command.add_argument(
        "--resolution",
        default="64",
        metavar="N|WIDTHxHEIGHT",
        help="size to train at: 64 for squares, or 64x96 (64)",
    )
    command.add_argument(
        "--fit",
        default="crop",
        choices=FITS,
        help="how images of another shape come to this one (crop)",
    )
    command.add_argument(
        "--channels",
        type=int,
        default=3,
        help="1 for grey, 3 for RGB, 4 with alpha, as in training (3)",
    )
    command.add_argument(
        "--background", default="grey", help="colour behind transparent places (grey)"
    )
    command.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help=f"width times height of a file at most ({MAX_PIXELS})",
    )
    command.add_argument(
        "--frames",
        default="one",
        help="of animations and files of several pages: one, the first, or all of them (one)",
    )
    command.add_argument(
        "--conditional",
        action="store_true",
        help="take only images that have a class, as in training --data.conditional",
    )
    command.add_argument(
        "--split", default="auto", choices=CHOICES, help="which of train/, val/ and test/ (auto)"
    )
    command.add_argument(
        "--labels",
        default="auto",
        metavar="FILE",
        help="list of labels (.csv, .json, .jsonl), auto or none (auto)",
    )
    command.add_argument(
        "--label-column", default="", metavar="NAME", help="column of that list with the classes"
    )
    command.add_argument(
        "--class-order",
        default=fields["class_order"].default,
        choices=("natural", "text"),
        help="how classes are numbered: 1, 2, 10 (natural) or 1, 10, 2 (text)",
    )


def _data_config(given: argparse.Namespace) -> DataConfig:
    return DataConfig(
        dataset="folder",
        path=given.path,
        resolution=given.resolution,
        fit=given.fit,
        channels=given.channels,
        background=given.background,
        max_pixels=given.max_pixels,
        frames=given.frames,
        conditional=given.conditional,
        split=given.split,
        labels=given.labels,
        label_column=given.label_column,
        class_order=given.class_order,
    )


def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    given = parse(argv, prog=prog)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal's charset may lack a character
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _pack(given) if given.command == "pack" else _audit(given)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _pack(given: argparse.Namespace) -> int:
    config = _data_config(given)
    try:
        header = pack(config, given.to)
    except KeyboardInterrupt:
        print(f"interrupted; run again to go on in {given.to}", file=sys.stderr)
        return 130
    size, skipped = header.nbytes / 2**30, len(header.skipped)
    classes = f", {len(header.classes)} classes" if any(header.classes) else ""
    shown = [f"skipped {name}: {reason}" for name, reason in header.skipped[:_SHOWN]]
    if skipped > _SHOWN:
        shown.append(f"skipped {skipped - _SHOWN:,} more")
    with ClosedPipeIgnored():
        print("\n".join([*header.notes, *shown]), end="\n" if header.notes or shown else "")
        print(
            f"packed {header.num_images:,} images{classes} in {given.to}, {size:.2f} GiB; train "
            f"with {_options_to_train(config, given.to)}"
        )
    return 0


def _options_to_train(config: DataConfig, to: Path) -> str:
    """The options of a training on the packed images: all that it would refuse otherwise."""
    words = ["--data.path", str(to), "--data.resolution", str(config.resolution)]
    words += ["--data.channels", str(config.channels)]
    for name in ("fit", "background", "max_pixels", "frames", "class_order"):
        value = getattr(config, name)
        if value != DataConfig.__dataclass_fields__[name].default:
            words += [f"--data.{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, *(["--data.conditional"] if config.conditional else [])])


def _audit(given: argparse.Namespace) -> int:
    for name, low, high in (("bits", 0, 16), ("tiles", 1, 10_000)):
        value = getattr(given, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}, allowed: {low} .. {high}; set --{name}")
    image_set = load(_data_config(given))
    report = audit(image_set, str(given.path), background=given.background, max_bits=given.bits)
    with ClosedPipeIgnored():
        print("".join(f"{note}\n" for note in image_set.notes) + report.text(), end="")
    if given.json is not None:
        _write(given.json, (as_json(report.to_builtins()) + "\n").encode())
    if given.sheet is not None:
        _write(given.sheet, png(sheet(image_set, report, tiles=given.tiles)))
    return 1 if report.findings else 0


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}; choose another file") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

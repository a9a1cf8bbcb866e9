"""What the commands that make images offline have in common: arguments, the model, files."""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.bundle.directions import DirectionError, parse_amounts
from models.bundle.generator import CpuGenerator, Images
from models.errors import ModelError
from models.image_changes import MOST_TRUNCATION, add_changes, styles_of
from models.image_files import RepeatedImageError
from models.offline.changes import ChangedImages, Changes, UsageError
from models.repository.lookup import open_named
from models.seed_list import seeds_of

_BATCH_ROWS = 64
_NUM_NAMED = 12  # classes in a message


@dataclass(frozen=True, kw_only=True)
class Model:
    """An opened model."""

    bundle: Bundle
    generate: CpuGenerator

    @classmethod
    def open(cls, options: argparse.Namespace) -> "Model":
        """Opens the bundle that the options name.

        Raises:
            ModelError: there is none, or it must not be used.
        """
        bundle = open_named(options.bundle, options.repository)
        generate = CpuGenerator(bundle.model_path, num_threads=options.threads)
        return cls(bundle=bundle, generate=generate)

    def images(
        self,
        z: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None,
        truncation: float,
        changes: Changes,
    ) -> Images:
        """Makes images [N, H, W, C] uint8 of latents [N, z_dim], all at once, as the server does.

        N is that of `batches_of`, so that many images never lie in memory together.

        Args:
            z: the latents.
            labels: [N], where the model takes them.
            truncation: psi; scales z where the model has no mapping network.
            changes: of all images.

        Raises:
            UsageError: the model has no such direction, style or unit.
            ModelError: a part of it can't be read.
        """
        return self._changed.make(z, labels, truncation, changes)

    def words(self, changes: Changes) -> dict[str, str]:
        """The changes, for an image's metadata."""
        return self._changed.words(changes)

    @functools.cached_property
    def _changed(self) -> ChangedImages:
        return ChangedImages(self.bundle, self.generate)

    def labels(self, words: Sequence[str] | None, seeds: Sequence[int]) -> list[int] | None:
        """The label of each seed; None where the model takes none.

        words: classes by number or name, one for all or one for each; None for seed modulo the
            number of classes, as in the model's samples.png.

        Raises:
            UsageError: a class is unknown, or their number is neither 1 nor that of the seeds.
        """
        names = self.bundle.manifest.labels
        if names is None:
            if words is not None:
                raise UsageError(
                    f"--labels is {','.join(words)}, but {self.bundle.manifest.name} has no "
                    "classes; leave it out"
                )
            return None
        if words is None:
            return [seed % len(names) for seed in seeds]
        if len(words) not in (1, len(seeds)):
            raise UsageError(
                f"--labels has {len(words)} entries, --seeds {len(seeds)}; give one for each, or "
                "one for all"
            )
        found = [_label(word, names) for word in words]
        return found * len(seeds) if len(found) == 1 else found


def run(
    act: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
) -> int:
    """Parses, acts and returns the exit code.

    0: done; 1: a file can't be written; 2: wrong usage, or a file is in the way; 3: there is no
    such model; 4: the bundle was refused.
    """
    options = parser.parse_args(argv)
    try:
        act(options)
    except (UsageError, RepeatedImageError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModelError as error:
        print(f"error: BUNDLE is {options.bundle!r}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def parser_of(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that both commands have."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    default = "default: %(default)s"
    parser.add_argument(
        "bundle", metavar="BUNDLE", help="a bundle's folder, or NAME[@VERSION] in --repository"
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model-repository"),
        metavar="DIR",
        help=f"folder of published models ({default})",
    )
    parser.add_argument("--seeds", type=seeds_of, required=True, help="1-16,42")
    parser.add_argument(
        "--truncation", type=_truncation, default=1.0, help=f"psi, 0 .. 2 ({default})"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="0 for one on every core"
    )
    parser.add_argument(
        "--directions",
        type=_amounts,
        metavar="NAME:UNITS,...",
        help="move along the model's directions, by number or name: 0:1.5,slant:-1",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files")
    add_changes(parser)
    return parser


def changes_of(options: argparse.Namespace) -> Changes:
    """What parsed options ask for."""
    return Changes(
        directions=options.directions, styles=styles_of(options), units_off=options.units_off
    )


def batches_of(num: int) -> Iterator[slice]:
    """The rows of each batch, of so many in all."""
    for start in range(0, num, _BATCH_ROWS):
        yield slice(start, min(start + _BATCH_ROWS, num))


def _label(word: str, names: Sequence[str]) -> int:
    if word in names:
        return names.index(word)
    if word.isascii() and word.isdigit() and int(word) < len(names):
        return int(word)
    more = f", ... ({len(names)})" if len(names) > _NUM_NAMED else ""
    raise UsageError(
        f"--labels names {word!r}, allowed: 0 .. {len(names) - 1}, or "
        f"{', '.join(names[:_NUM_NAMED])}{more}"
    )


def _amounts(text: str) -> dict[str, float]:
    try:
        return parse_amounts(text)
    except DirectionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _truncation(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_TRUNCATION:
        raise argparse.ArgumentTypeError(f"{text!r} is no number in 0 .. {MOST_TRUNCATION:g}")
    return value

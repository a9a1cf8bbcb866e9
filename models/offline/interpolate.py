"""`python -m models.offline.interpolate BUNDLE --seeds 1,2,3 --out walk.webp`: from seed to seed.

It needs no server and no torch. Frames are those of the server's /v1/interpolate.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.animation import KINDS, encode_animation, evenly
from models.bundle.generator import Images
from models.grid import grid, png
from models.image_files import require_free, write_file
from models.latents import latents, walk
from models.offline.arguments import Model, batches_of, changes_of, parser_of, run
from models.offline.changes import UsageError
from models.stdout import closed_pipe_ignored

PROG = "python -m models.offline.interpolate"
SUFFIXES = (*(f".{kind}" for kind in KINDS), ".png")
_MOST_FRAMES = 10_000


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    parser = parser_of(prog, "A walk from seed to seed as an animation, without a server.")
    default = "default: %(default)s"
    parser.add_argument("--label", help="the class, by number or name (default: 0)")
    parser.add_argument("--frames", type=int, default=60, help=default)
    parser.add_argument("--fps", type=float, default=20.0, help=default)
    parser.add_argument("--loop", action="store_true", help="go back to the first seed")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".webp, .gif, or .png for a strip"
    )
    return run(_interpolate, parser, argv)


def _interpolate(options: argparse.Namespace) -> None:
    out: Path = options.out
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out is {out}, must end in {', '.join(SUFFIXES)} (a strip)")
    num = len(options.seeds)
    if num < 2:
        raise UsageError("--seeds has 1 seed, a walk has at least 2: --seeds 1,2")
    if not num <= options.frames <= _MOST_FRAMES:
        raise UsageError(
            f"--frames is {options.frames}, allowed: {num} (the seeds) .. {_MOST_FRAMES}"
        )
    if not 0.1 <= options.fps <= 1000:
        raise UsageError(f"--fps is {options.fps:g}, allowed: 0.1 .. 1000")
    require_free([out], force=options.force)
    model = Model.open(options)
    manifest = model.bundle.manifest
    words = [options.label or "0"] if manifest.labels or options.label is not None else None
    chosen = model.labels(words, options.seeds[:1])
    z = walk(latents(options.seeds, manifest.z_dim), options.frames, loop=options.loop)
    labels = None if chosen is None else np.full(len(z), chosen[0], np.int64)
    images = np.concatenate(
        [
            model.images(
                *(z[rows], None if labels is None else labels[rows]),
                *(options.truncation, changes_of(options)),
            )
            for rows in batches_of(len(z))
        ]
    )
    write_file(out, _encoded(images, out.suffix.lower(), options.fps))
    print(f"{len(images)} frames in {out}")


def _encoded(images: Images, suffix: str, fps: float) -> bytes:
    if suffix == ".png":
        return png(grid(images, len(images)))
    return encode_animation(suffix[1:], images, evenly([1000 / fps] * len(images)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m models.offline.generate BUNDLE --seeds 1-16 --out FOLDER`: images into files.

It needs no server and no torch: ONNX Runtime on the CPU. An image is, to the pixel, what a server
answers to its seed, label and truncation. Images are written as they are made, a batch at a time;
those of a grid alone are held together.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.bundle.generator import Images
from models.grid import grid, png
from models.image_files import image_paths, require_free, whole_file, write_file
from models.image_metadata import provenance, with_metadata
from models.latents import latents
from models.offline.arguments import Model, batches_of, changes_of, parser_of, run
from models.stdout import closed_pipe_ignored

PROG = "python -m models.offline.generate"


@closed_pipe_ignored
def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    parser = parser_of(prog, "Images of a model into files, without a server.")
    parser.add_argument(
        "--labels",
        type=lambda text: text.split(","),
        help="a class for all, or one for each, by number or name (default: seed %% classes)",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--grid", type=Path, metavar="FILE", help="all as one PNG")
    where.add_argument("--npy", type=Path, metavar="FILE", help="all as one array")
    where.add_argument("--out", type=Path, metavar="FOLDER", help="each as SEED.png")
    return run(_generate, parser, argv)


def _generate(options: argparse.Namespace) -> None:
    model = Model.open(options)
    seeds: list[int] = options.seeds
    labels = model.labels(options.labels, seeds)
    one = options.grid or options.npy
    differing = labels if options.labels is not None else None
    paths = [one] if one else image_paths(options.out, seeds, differing)
    require_free(paths, force=options.force)
    batches = _batches(model, seeds, labels, options)
    if options.grid:
        write_file(options.grid, png(grid(np.concatenate(list(batches)))))
    elif options.npy:
        _write_array(options.npy, model, len(seeds), batches)
    else:
        rows = iter(range(len(seeds)))
        for batch in batches:
            for image, row in zip(batch, rows, strict=False):
                label = None if labels is None else labels[row]
                told = provenance(
                    model=model.bundle.manifest.name,
                    version=model.bundle.manifest.version,
                    digest=model.bundle.digest,
                    truncation=options.truncation,
                    seed=seeds[row],
                    label=label,
                    **model.words(changes_of(options)),
                )
                picture = png(grid(image[None]))
                write_file(paths[row], with_metadata(picture, "png", told))
    what = options.out or one
    print(f"{len(seeds)} image{'s' if len(seeds) > 1 else ''} in {what}")


def _batches(
    model: Model,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    options: argparse.Namespace,
) -> Iterator[Images]:
    for rows in batches_of(len(seeds)):
        label = None if labels is None else np.array(labels[rows], np.int64)
        z = latents(seeds[rows], model.bundle.manifest.z_dim)
        yield model.images(z, label, options.truncation, changes_of(options))


def _write_array(path: Path, model: Model, num: int, batches: Iterator[Images]) -> None:
    """Writes all as one array [num, H, W, C] uint8."""
    image = model.bundle.manifest.image
    shape = (num, image.height, image.width, image.channels)
    with whole_file(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            file.write(np.ascontiguousarray(batch).data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

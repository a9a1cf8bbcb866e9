"""Which images a run is trained on: a line for each in images.csv, in the order of the training.

The content decides whether data are those of a run, not the names: files that were renamed come in
another order, and are put back into the run's. Where images are missing or new, they are named.
"""

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data import ImageSet
from training.data.image_set import reordered
from training.errors import CheckpointError

IMAGES = "images.csv"
_DIGEST_BYTES = 8  # enough to tell some millions of images apart
_NUM_NAMED = 3


def images_record(image_set: ImageSet) -> bytes:
    """The content of images.csv: digest of the pixels, and name, of each image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("digest", "name"))
    writer.writerows(zip(digests(image_set), names_of(image_set), strict=True))
    return text.getvalue().encode(errors="backslashreplace")


def as_recorded(image_set: ImageSet, run: Path) -> ImageSet:
    """The images in the order of a run; as they are where the run has no record of them.

    Raises:
        CheckpointError: they are not those of the run; the message says how many, and which.
    """
    if image_set.is_mapped:  # packed once, in an order of its own
        return image_set
    rows = recorded_rows(run)
    if rows is None:
        return image_set
    recorded = [digest for digest, _ in rows]
    names = [name for _, name in rows]
    found = digests(image_set)
    if found == recorded:
        return image_set
    places: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(found):
        places[digest].append(index)
    if Counter(found) == Counter(recorded):
        queues = {digest: iter(indices) for digest, indices in places.items()}
        return reordered(image_set, np.array([next(queues[each]) for each in recorded]))
    gone = _missing(recorded, names, found)
    new = _missing(found, names_of(image_set), recorded)
    raise CheckpointError(
        f"the images are not those of {run}: {_told(gone)} of its {len(recorded):,} are gone, "
        f"{_told(new)} of these {len(found):,} are new; restore the folder, or start a new run "
        "without --resume"
    )


def recorded_rows(run: Path) -> list[tuple[str, str]] | None:
    """Digest and name of each image that a run is trained on; None where it has no record."""
    try:
        text = (run / IMAGES).read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        return [(digest, name) for digest, name in rows]
    except (OSError, ValueError, csv.Error):  # of an earlier release, or cut off
        return None


def digests(image_set: ImageSet) -> list[str]:
    """A digest of each image's pixels."""
    pixels = image_set.images.cpu().numpy()
    return [
        hashlib.blake2b(np.ascontiguousarray(each).data, digest_size=_DIGEST_BYTES).hexdigest()
        for each in pixels
    ]


def names_of(image_set: ImageSet) -> list[str]:
    """A name of each image: its file's, or its number."""
    if image_set.origins:
        return [origin.name for origin in image_set.origins]
    return [str(index) for index in range(len(image_set))]


def _missing(digests: Sequence[str], names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Names of the images that the others lack."""
    left = Counter(others)
    missing = []
    for digest, name in zip(digests, names, strict=True):
        if left[digest]:
            left[digest] -= 1
        else:
            missing.append(name)
    return missing


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NUM_NAMED]) + (", ..." if len(names) > _NUM_NAMED else "")
    return f"{len(names):,}" + (f" ({shown})" if names else "")

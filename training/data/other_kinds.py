"""Files that lie among images and are none, such as captions and labels.

They are left out before memory is reserved for the images: a caption for each image would double
what seems to be needed.
"""

import mimetypes
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from training.data.decoding import Encoded, Packed, Skipped
from training.data.decoding.file import NO_IMAGE

_File = Encoded | Packed


def without_other_kinds(files: Sequence[_File]) -> tuple[list[_File], list[Skipped]]:
    """The files that may be images, and the others.

    A name decides, as in `a.txt`; what it calls no image is looked into, as it may be wrong.
    """
    images: list[_File] = []
    others: list[Skipped] = []
    for file in files:
        if _may_be_image(file):
            images.append(file)
        else:
            others.append(Skipped.of(file.name, NO_IMAGE))
    return images, others


def _may_be_image(file: _File) -> bool:
    kind = mimetypes.guess_type(file.name)[0]
    if kind in (None, "application/dicom") or kind.startswith("image/"):
        return True
    if not isinstance(file, Encoded) or not isinstance(file.source, Path):
        return True  # in an archive, where a look costs as much as the decoding
    try:
        with Image.open(file.source):
            return True
    except Exception:  # Pillow's readers may raise anything for what is no image
        return False

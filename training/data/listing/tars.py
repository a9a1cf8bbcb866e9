"""The files of tar archives, WebDataset's shards among them, read one at a time.

In a WebDataset shard the files of an example have one name before the first dot: 000001.jpg is the
image, and 000001.cls (a number) or 000001.json (an object with a label) its class
(https://github.com/webdataset/webdataset). Nothing is extracted. Archives that are packed as a
whole can't be read from the middle, and are refused.
"""

import json
import os
import tarfile
from functools import partial
from pathlib import Path

from training.data.decoding import Skipped
from training.data.file_names import is_image_name
from training.data.listing.labels import label_in
from training.data.listing.member import MAX_FILE_BYTES, Listing, Member, Read
from training.data.listing.order import by_path
from training.data.listing.tree import is_hidden
from training.data.listing.zips import safe_name
from training.errors import DataError

PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_MAX_LABEL_BYTES = {".cls": 4096, ".json": 1 << 20}


def list_tars(root: Path, paths: list[Path], columns: tuple[str, ...]) -> Listing:
    """The files of one or more archives, images with the classes that lie beside them.

    Args:
        root: the archive itself, or the folder of several.
        paths: the archives.
        columns: keys of a JSON object that hold a label.

    Raises:
        DataError: one of them is packed, cut off, or no tar archive.
    """
    members: list[Member] = []
    skipped: list[Skipped] = []
    for path in paths:
        members += _members(path, "" if path == root else f"{path.stem}/", columns, skipped)
    return Listing(members=sorted(members, key=lambda each: by_path(each.name)), skipped=skipped)


def _members(
    path: Path, prefix: str, columns: tuple[str, ...], skipped: list[Skipped]
) -> list[Member]:
    """An archive's files. prefix: of their names, where there are several archives."""
    if path.suffix.lower() in PACKED:
        raise DataError(
            f"data.path is {path}: packed as a whole, so that no image can be read from its "
            "middle; unpack it to a .tar or a folder, or make a .zip of it"
        )
    found: dict[str, Read] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                name = safe_name(info.name)
                if not info.isfile() or any(is_hidden(part) for part in name.split("/")):
                    continue
                if reason := _unusable(info, name) or ("is there twice" if name in found else ""):
                    skipped.append(Skipped.of(prefix + info.name, reason))
                else:
                    found[name] = partial(_read, path, info.offset_data, info.size)
                archive.members = []  # type: ignore[attr-defined]  # a million would fill memory
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(
            f"data.path is {path}: not a whole tar archive ({error}); its end may be missing: copy "
            "it again"
        ) from error
    labels = _labels(found, columns)
    return [
        Member(name=prefix + name, inner=name, source=read, label=labels.get(_example(name), ""))
        for name, read in found.items()
        if is_image_name(name) or _example(name) not in labels
    ]


def _labels(found: dict[str, Read], columns: tuple[str, ...]) -> dict[str, str]:
    """The classes that lie beside images, by the examples' names."""
    examples = {_example(name) for name in found if is_image_name(name)}
    labels: dict[str, str] = {}
    for name, read in found.items():
        example, suffix = _example(name), Path(name).suffix.lower()
        most = _MAX_LABEL_BYTES.get(suffix, 0)
        if example not in examples or not most:
            continue
        try:
            text = read().decode() if _size(read) <= most else ""
            label = (
                text.strip() if suffix == ".cls" else label_in(json.loads(text or "{}"), columns)
            )
        except (ValueError, RecursionError):  # a caption, or anything else that is no label
            continue
        if label:
            labels.setdefault(example, label)
    return labels


def _example(name: str) -> str:
    """The name that the files of an example share: up to the first dot of the file's name."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _unusable(info: tarfile.TarInfo, name: str) -> str:
    if not name:
        return "its name leads out of the archive"
    if info.size > MAX_FILE_BYTES:
        return "larger than 1 GiB, which no image needs"
    return "sparse; pack it again without --sparse" if info.issparse() else ""


def _size(read: Read) -> int:
    assert isinstance(read, partial)
    return int(read.args[2])


def _read(path: Path, offset: int, size: int) -> bytes:
    """A part of a file.

    Raises:
        ValueError: the file ends before it.
    """
    with path.open("rb") as file:
        content = os.pread(file.fileno(), size, offset)
    if len(content) < size:
        raise ValueError(f"truncated: {len(content):,} of {size:,} bytes")
    return content

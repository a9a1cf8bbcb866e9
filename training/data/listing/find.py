"""Finds the images at a path, which is a folder, a zip archive, or tar archives."""

import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.file_names import is_image_name
from training.data.listing.classes import Classes, classify, columns_of
from training.data.listing.member import Listing, Member
from training.data.listing.outputs import without_outputs
from training.data.listing.splits import SPLITS, choose, split_of
from training.data.listing.tars import PACKED, list_tars
from training.data.listing.tree import list_folder, named
from training.data.listing.zips import list_zip
from training.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files that may be images, and their classes."""

    listing: Listing
    classes: Classes


def find(root: Path, *, split: str, labels: str, label_column: str) -> Found:
    """Lists the files of a folder or an archive, without what a training wrote.

    Args:
        root: the folder, .zip or .tar, or a folder of .tar files.
        split: one of `training.data.listing.splits.CHOICES`.
        labels: auto, none, or the path of a list of labels.
        label_column: name of the list's column of labels; empty for the usual ones.

    Raises:
        DataError: the path is none of these, or an archive or list can't be read.
    """
    listing = without_outputs(_listed(root, split, columns_of(label_column)))
    listing, classes = classify(choose(listing, split), labels, label_column)
    return Found(listing=listing, classes=classes)


def _listed(root: Path, split: str, columns: tuple[str, ...]) -> Listing:
    if root.is_dir():
        listing = list_folder(root)
        shards = [member for member in listing.members if member.name.endswith(".tar")]
        if shards and not any(is_image_name(member.name) for member in listing.members):
            return _shards(root, shards, split, columns)
        return _without_archives(listing)
    if not root.is_file():
        raise DataError(
            f"data.path is {root}: not a folder; give one that holds images, or an archive"
        )
    name = root.name.lower()
    if name.endswith(".tar") or name.endswith(PACKED):
        return list_tars(root, [root], columns)
    if name.endswith(".zip") or zipfile.is_zipfile(root):
        return list_zip(root)
    if tarfile.is_tarfile(root):
        return list_tars(root, [root], columns)
    raise DataError(
        f"data.path is {root}: not a folder, and no .zip or .tar archive; give one of images"
    )


def _shards(root: Path, shards: list[Member], split: str, columns: tuple[str, ...]) -> Listing:
    """The files of many tar archives, of the chosen split where their names begin with splits."""
    splits = {shard.name: split_of(_series(shard.name)) for shard in shards}
    found = set(splits.values())
    notes = []
    if "" not in found and split not in ("none", "all"):
        wanted = split if split in SPLITS else "train" if "train" in found else sorted(found)[0]
        left = sorted(name for name in splits if splits[name] != wanted)
        shards = [shard for shard in shards if splits[shard.name] == wanted]
        if not shards:
            raise DataError(
                f"data.split is {split!r}; the archives are of {', '.join(sorted(found))}; name "
                "one of these with --data.split"
            )
        notes = [f"splits: {len(shards)} archives of {wanted} taken"]
        notes[0] += f"; left out: {named(left)}, see --data.split" if left else ""
    paths = [shard.source for shard in shards if isinstance(shard.source, Path)]
    listing = list_tars(root, paths, columns)
    return replace(listing, notes=[*notes, *listing.notes])


def _series(name: str) -> str:
    """The word that a shard's name begins with: train of train-000012.tar or train_0.tar."""
    file = name.rpartition("/")[2].removesuffix(".tar")
    return file.split("-")[0].split("_")[0].split(".")[0]


def _without_archives(listing: Listing) -> Listing:
    """Says which archives lie beside images: their images are not taken."""
    archives = [m.name for m in listing.members if m.name.lower().endswith((".zip", ".tar"))]
    if not archives:
        return listing
    note = f"left out: {named(archives)}, archives: give one as --data.path to train on it"
    kept = [member for member in listing.members if member.name not in set(archives)]
    return replace(listing, members=kept, notes=[*listing.notes, note])

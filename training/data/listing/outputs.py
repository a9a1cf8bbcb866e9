"""What a training wrote is no data: runs and bundles are recognised by what they hold.

A user's images often lie in the working directory, beside or above `runs` and `model-repository`.
Their sample grids would otherwise be trained on, and the data would change with every tick.
"""

import json
from collections import defaultdict
from dataclasses import replace

from training.data.listing.member import Listing, Member
from training.data.listing.tree import named
from training.errors import DataError

PACK, PACKED_IMAGES = "pack.json", "images.bin"
"""Files of packed images; `training.data.pack` writes them."""
_SIGNS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "config.json": ("training", ("log.txt", "metrics.jsonl", "ended.txt"), "a training run"),
    "manifest.json": ("z_dim", ("model.onnx",), "an exported model"),
    PACK: ("num_images", (PACKED_IMAGES,), "packed images"),
}
"""By the file that a folder holds: a key of its JSON, files of which one lies beside it, words."""


def without_outputs(listing: Listing) -> Listing:
    """The listing without runs, bundles and packed images, wherever they lie, and a note on it."""
    folders: dict[str, dict[str, Member]] = defaultdict(dict)
    for member in listing.members:
        folder, _, name = member.name.rpartition("/")
        if name in _SIGNS or name == "CURRENT" or any(name in s[1] for s in _SIGNS.values()):
            folders[folder][name] = member
    found = {
        folder: words for folder, files in folders.items() if folder and (words := _words(files))
    }
    if not found:
        return listing
    pointers = {f"{folder.rpartition('/')[0]}/CURRENT" for folder in found}
    kept = [
        member
        for member in listing.members
        if member.name not in pointers and not any(part in found for part in _above(member.name))
    ]
    notes = [
        f"left out: {named([folder for folder in found if found[folder] == words])}, {words}"
        for words in dict.fromkeys(found.values())
    ]
    return replace(listing, members=kept, notes=[*listing.notes, *notes])


def _words(files: dict[str, Member]) -> str:
    """What a folder with these files is; empty where nothing of ours wrote it."""
    for sign, (key, beside, words) in _SIGNS.items():
        if sign in files and any(name in files for name in beside):
            try:
                record = json.loads(files[sign].read())
            except (DataError, ValueError, RecursionError):
                continue
            if isinstance(record, dict) and key in record:
                return words
    return ""


def _above(name: str) -> list[str]:
    """The folders above a file: a and a/b of a/b/c."""
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]

"""The dataset `folder`: people's own images, in a folder, an archive or packed.

Files that can't be used are reported.
"""

import dataclasses
from pathlib import Path

import numpy as np

from training.data.decoding import Encoded, Packed, Skipped, unread_summary
from training.data.file_names import printable
from training.data.listing import Member, find
from training.data.listing.order import naturally
from training.data.other_kinds import without_other_kinds
from training.data.sources.packed import is_packed, load_packed
from training.data.sources.registry import ImageRequest, Raw, dataset, decoded
from training.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collected:
    """The files of a request, ready to be decoded."""

    encoded: list[Encoded | Packed]
    """A label is the index of its name in label_names."""
    label_names: tuple[str, ...]
    """The classes in their order; last "", for images without one, where they are taken."""
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


@dataset("folder", labelled=True, needs_path=True, own=True)
def folder(request: ImageRequest) -> Raw:
    """Any folder or archive of images; classes are labels or the first level of subfolders."""
    if is_packed(request.root):
        return load_packed(request)
    collected = collect(request)
    raw = decoded(request, collected.encoded, len(collected.encoded), collected.label_names)
    if len(raw.images) == 0:
        all_skipped = [*collected.skipped, *raw.skipped]
        few = [*unread_summary(all_skipped), *map(str, all_skipped[:3])]
        seen = "; ".join(few) or "it holds no files"
        raise DataError(
            f"data.path is {request.root}: no image could be read in it ({seen}); give a folder "
            "of images"
            + (", one subfolder a class, or labels: --data.labels" if request.conditional else "")
        )
    return labelled(request, raw, collected)


def collect(request: ImageRequest) -> Collected:
    """Lists the images of a request and numbers their classes.

    Raises:
        DataError: there is no such folder or archive, or its labels can't be read.
    """
    found = find(
        request.root,
        split=request.split,
        labels=request.labels,
        label_column=request.label_column,
    )
    members, skipped = found.listing.members, list(found.listing.skipped)
    of = {name: printable(label) for name, label in found.classes.of.items()}
    if request.conditional:
        why = f"in no class: {found.classes.why_none}"
        skipped += [Skipped.of(m.name, why) for m in members if m.name not in of]
        members = [member for member in members if member.name in of]
    used = {of.get(member.name, "") for member in members}
    order = sorted(used - {""}, key=naturally if request.class_order == "natural" else None)
    names = (*order, *([""] if "" in used else []))
    index = {name: i for i, name in enumerate(names)}
    listed = [_encoded(member, index[of.get(member.name, "")]) for member in members]
    encoded, others = without_other_kinds(listed)
    return Collected(
        encoded=encoded,
        label_names=names,
        skipped=(*skipped, *others),
        notes=tuple(found.listing.notes),
    )


def _encoded(member: Member, label: int) -> Encoded | Packed:
    if isinstance(member.source, Path):
        return Encoded(member.name, member.source, label)
    return Packed(member.name, member.source, label)


def labelled(request: ImageRequest, raw: Raw, collected: Collected) -> Raw:
    """The dataset with the classes of its images; labels only where they are asked for."""
    assert raw.labels is not None
    names, labels, skipped = collected.label_names, raw.labels, collected.skipped
    classes = tuple(names[label] for label in labels)
    if request.conditional:
        used, labels = np.unique(labels, return_inverse=True)
        skipped += tuple(
            Skipped.of(name, "no image of this class")
            for i, name in enumerate(names)
            if i not in used
        )
        names = tuple(names[i] for i in used)
    return dataclasses.replace(
        raw,
        labels=labels.astype(np.int64) if request.conditional else None,
        label_names=names if request.conditional else None,
        classes=classes if any(classes) else None,
        skipped=(*skipped, *raw.skipped),
        notes=collected.notes,
    )

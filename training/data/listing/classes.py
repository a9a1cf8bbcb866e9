"""The class of each file: from a list of labels, from beside it, or from its folder."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.file_names import is_image_name
from training.data.listing.labels import LABEL_COLUMNS, LISTS, Labels, NoColumnError, read_labels
from training.data.listing.member import Listing, Member
from training.data.listing.tree import named
from training.errors import DataError

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a listing."""

    of: dict[str, str]
    """By a member's name; a member without a class is missing."""
    why_none: str
    """Why a member has none, in words."""


def columns_of(label_column: str) -> tuple[str, ...]:
    """The names that a column of labels may have. label_column: --data.label-column, or empty."""
    return (label_column,) if label_column else LABEL_COLUMNS


def classify(listing: Listing, labels: str, label_column: str) -> tuple[Listing, Classes]:
    """Finds the classes, and returns the listing without the lists that they come from.

    Args:
        listing: in the chosen split.
        labels: auto for a list that is recognised by its name, none, or the list: a file, or a
            member of the listing.
        label_column: name of the column of labels; empty for the usual ones.

    Raises:
        DataError: the list can't be read, or names none of the images.
    """
    columns = columns_of(label_column)
    if labels not in (AUTO, NONE):
        return _listed(listing, [_given(listing, labels)], columns)
    for lists in _recognised(listing) if labels == AUTO else ():
        try:
            return _listed(listing, lists, columns)
        except NoColumnError as error:
            if label_column:
                raise
            listing = replace(listing, notes=[*listing.notes, f"no labels in {error}"])
    members = listing.members
    beside = {member.name: member.label for member in members if member.label}
    if beside:
        return listing, Classes(of=beside, why_none="no .cls or .json with a label beside it")
    folders = {m.name: m.inner.partition("/")[0] for m in members if "/" in m.inner}
    why = "classes are the first level of subfolders"
    return listing, Classes(of=folders, why_none=why)


def _recognised(listing: Listing) -> list[list[Member]]:
    """Lists with a usual name at the top of the data or of its splits, the likeliest first."""
    found = [[m for m in listing.members if m.inner == name] for name in LISTS]
    return [lists for lists in found if lists]


def _given(listing: Listing, labels: str) -> Member:
    """The list that --data.labels names."""
    path = Path(labels)
    if path.is_file():
        return Member(name=labels, inner=labels, source=path)
    for member in listing.members:
        if member.name == labels:
            return member
    raise DataError(
        f"data.labels is {labels!r}: neither a file nor in the data; give the path of a .csv, "
        ".json or .jsonl file"
    )


def _listed(
    listing: Listing, lists: list[Member], columns: tuple[str, ...]
) -> tuple[Listing, Classes]:
    """The classes that lists of one name give, each of them of the split that it lies in."""
    rest = [other for other in listing.members if other.inner not in LISTS and other not in lists]
    found: Labels = {}
    named_in_all: Labels = {}
    unknown: list[str] = []
    for member in lists:
        labels = read_labels(member, columns)
        split = member.name.removesuffix(member.inner)
        here = [other for other in rest if other.name.startswith(split)]
        matched, missing = _match(labels, here)
        found, named_in_all = found | matched, named_in_all | labels
        unknown += missing
    where = lists[0].name if len(lists) == 1 else f"{len(lists)} files {lists[0].inner}"
    if not any(found.values()) and any(named_in_all.values()):
        raise DataError(
            f"{where} names {len(named_in_all):,} files, and none of the {len(rest):,} here (the "
            f"first is {next(iter(named_in_all))!r}); files are named relative to data.path: "
            "correct them, or take the folders with --data.labels none"
        )
    if not any(named_in_all.values()):  # StyleGAN's list of a set without classes
        note = f"no labels in {where}"
        return (
            replace(listing, members=rest, notes=[*listing.notes, note]),
            Classes(of={}, why_none=f"{where} has no labels"),
        )
    note = f"labels: {where}"
    if unknown:
        note += f"; {len(unknown):,} of its {len(named_in_all):,} files aren't here"
        note += f": {named(unknown)}"
    return (
        replace(listing, members=rest, notes=[*listing.notes, note]),
        Classes(
            of={name: label for name, label in found.items() if label},
            why_none=f"{where} gives it none",
        ),
    )


def _match(labels: Labels, members: list[Member]) -> tuple[Labels, list[str]]:
    """Classes by the members' names, and the files that the list names and that aren't there.

    A list names files by their path below the data or the split, or, where that is unique, by the
    file's name with or without its suffix.
    """
    images = [member for member in members if is_image_name(member.name)]
    names: dict[str, str] = {}
    for form in (_stem, _file):
        counts = Counter(form(member.name) for member in images)
        names |= {form(m.name): m.name for m in images if counts[form(m.name)] == 1}
    names |= {member.inner: member.name for member in members}
    names |= {member.name: member.name for member in members}
    found = {names[file]: label for file, label in labels.items() if file in names}
    return found, [file for file in labels if file not in names]


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _stem(name: str) -> str:
    return _file(name).rpartition(".")[0]

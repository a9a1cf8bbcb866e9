"""Splits: train/, val/ and test/ are parts of a dataset, not classes."""

from collections import Counter
from dataclasses import replace

from training.data.file_names import is_image_name
from training.data.listing.member import Listing, Member
from training.data.listing.tree import named
from training.errors import DataError

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
CHOICES = ("auto", "none", "all", *SPLITS)
"""auto: train where folders are splits; none: folders are no splits; all: every split."""

_NAMES = {name: split for split, names in SPLITS.items() for name in names}


def split_of(name: str) -> str:
    """The split that a folder's or an archive's name stands for; empty for none."""
    return _NAMES.get(name.lower(), "")


def choose(listing: Listing, choice: str) -> Listing:
    """Keeps the members of the chosen split, and takes its folder from their inner paths.

    choice: one of CHOICES.

    Raises:
        DataError: the data has no such split.
    """
    if choice == "none":
        return listing
    holding = Counter(_top(member) for member in listing.members if is_image_name(member.name))
    loose = holding.pop("", 0)
    found = {split_of(top) for top in holding}
    is_split = (
        bool(found) and "" not in found and not loose and ("train" in found or len(found) > 1)
    )
    if choice in SPLITS:
        if choice not in found:
            has = ", ".join(sorted(found - {""})) or "none"
            raise DataError(
                f"data.split is {choice!r}; the data's folders hold the splits: {has}; name one "
                f"of these with --data.split, or rename a folder to {choice}"
            )
    elif not is_split:
        mixed = sorted(top for top in holding if split_of(top))
        note = f"{named(mixed)} beside other folders: taken as classes; see --data.split"
        return replace(listing, notes=[*listing.notes, note]) if mixed else listing
    elif choice == "auto":
        choice = "train" if "train" in found else sorted(found)[0]
    tops = {top for top in holding if split_of(top) in ({choice} if choice in SPLITS else found)}
    members = [
        replace(member, inner=member.inner.partition("/")[2])
        for member in listing.members
        if _top(member) in tops
    ]
    beside = [member for member in listing.members if not _top(member)]  # lists of labels
    return replace(
        listing, members=[*members, *beside], notes=[*listing.notes, _note(holding, tops)]
    )


def _note(holding: Counter[str], tops: set[str]) -> str:
    taken = ", ".join(f"{top}/ ({holding[top]:,} files)" for top in sorted(tops))
    others = [f"{top}/ ({num:,})" for top, num in sorted(holding.items()) if top not in tops]
    left = f"; left out: {', '.join(others)}, see --data.split" if others else ""
    return f"splits: {taken} taken{left}"


def _top(member: Member) -> str:
    """The first folder of a member's inner path; empty for none."""
    return member.inner.partition("/")[0] if "/" in member.inner else ""

"""The files of a zip archive, read one at a time; nothing is extracted.

An archive may be a stranger's: names that lead out of it are refused though they could do no harm,
and of a member no more is inflated than an image can need.
"""

import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

from training.data.decoding import Skipped
from training.data.listing.member import MAX_FILE_BYTES, Listing, Member, Read
from training.data.listing.order import by_path
from training.data.listing.tree import is_hidden
from training.errors import DataError

_MAX_RATIO = 1100  # deflate packs zeros 1,032 times as small at most
_ENCRYPTED = 0x1


def list_zip(path: Path) -> Listing:
    """The files of an archive; a folder around all of them is left out of their names.

    Raises:
        DataError: it is no zip archive, or its end is missing.
    """
    try:
        archive = zipfile.ZipFile(path)  # stays open: members are read later
        infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(
            f"data.path is {path}: not a whole zip archive ({error}); its end may be missing: copy "
            "it again"
        ) from error
    found: dict[str, Read] = {}
    skipped: list[Skipped] = []
    for info in infos:
        name = safe_name(info.filename)
        if any(is_hidden(part) for part in name.split("/")):
            continue
        if reason := _unusable(info, name) or ("is there twice" if name in found else ""):
            skipped.append(Skipped.of(info.filename, reason))
        else:
            found[name] = partial(_read, archive, info)
    around = common_folder(list(found))
    names = sorted((name.removeprefix(around) for name in found), key=by_path)
    members = [Member(name=name, inner=name, source=found[around + name]) for name in names]
    return Listing(members=members, skipped=skipped)


def safe_name(name: str) -> str:
    """A member's path with "/" between folders; empty where it leads out of the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or ".." in parts or (parts and parts[0][1:2] == ":")
    return "" if outside else "/".join(parts)


def common_folder(names: list[str]) -> str:
    """The folder that all files lie in and that holds folders only, with "/"; empty for none.

    People pack a folder more often than what it holds.
    """
    tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    if len(tops) != 1 or not all(name.count("/") >= 2 for name in names):
        return ""
    return f"{tops.pop()}/"


def _unusable(info: zipfile.ZipInfo, name: str) -> str:
    if not name:
        return "its name leads out of the archive"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted; pack it again without a password"
    if info.file_size > MAX_FILE_BYTES:
        return "larger than 1 GiB, which no image needs"
    if info.file_size > _MAX_RATIO * max(info.compress_size, 64):
        return "inflates to more than deflate can have packed: an archive bomb"
    return ""


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes, as many as the archive's directory says; threads may share the archive.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with archive.open(info) as file:
            content = file.read(info.file_size)
            if len(content) < info.file_size:
                raise ValueError(f"truncated: {len(content):,} of {info.file_size:,} bytes")
            file.read(1)  # checks the sum
            return content
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(f"damaged in its archive: {error}") from error

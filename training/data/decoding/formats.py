"""Image formats that Pillow doesn't read: those of an extra, and those that are only recognised."""

import contextlib
import importlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from training.data.decoding.images import Skipped

_HEAD_BYTES = 132


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A format that can't be read here."""

    name: str
    remedy: str

    @property
    def reason(self) -> str:
        """Why a file of it is not used."""
        return f"{self.name} can't be read here: {self.remedy}"


HEIC = Unread(name="HEIC", remedy="run `pip install '.[heic]'` in Saddlepoint's source folder")
RAW = Unread(
    name="a camera's raw file",
    remedy="develop it to JPEG, PNG or TIFF first, with darktable-cli for instance",
)
DICOM = Unread(name="DICOM", remedy="run `pip install '.[dicom]'` in Saddlepoint's source folder")
JPEG_XL = Unread(name="JPEG XL", remedy="convert it to PNG first, with djxl for instance")
UNREAD = (HEIC, RAW, DICOM, JPEG_XL)

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_JPEG_XL_HEADS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq"),
    *(".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"),
    *(".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}


def register_heif() -> None:
    """Lets Pillow read HEIC files where the package pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


def is_raw(name: str) -> bool:
    """True for the names of cameras' raw files.

    Many of them are TIFF files, in which Pillow would find the thumbnail.
    """
    return PurePath(name).suffix.lower() in _RAW_SUFFIXES


def unread_format(source: Path | bytes) -> Unread | None:
    """The format of a file that Pillow didn't read, by its first bytes; None if it isn't known."""
    head = source[:_HEAD_BYTES] if isinstance(source, bytes) else _head(source)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return HEIC
    if head[128:132] == b"DICM":
        return DICOM
    return JPEG_XL if head.startswith(_JPEG_XL_HEADS) else None


def is_unread(file: Skipped) -> bool:
    """True for a file of a format that can't be read here."""
    return any(file.reason == form.reason for form in UNREAD)


def unread_summary(skipped: Iterable[Skipped]) -> list[str]:
    """A line for each format that files have which are not used for it, with the remedy."""
    reasons = Counter(file.reason for file in skipped)
    counts = [(form, reasons[form.reason]) for form in UNREAD if reasons[form.reason]]
    return [
        f"{num:,} {'files are' if num > 1 else 'file is'} not used, {form.reason}"
        for form, num in counts
    ]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)

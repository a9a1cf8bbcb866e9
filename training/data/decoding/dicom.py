"""DICOM files, as one more format of Pillow's where the package pydicom is installed.

8 to 16 bits, signed or not, are scaled as the file says (Rescale Slope and Intercept, or its lookup
table), then shown through its first window (PS3.3, C.11.2); without one, from the least to the
largest value. MONOCHROME1, where white is 0, is turned round. Several frames are frames. What an
image shows is for training only, not for diagnosis.
"""

import contextlib
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

FORMAT = "DICOM"
_MAGIC, _MAGIC_AT = b"DICM", 128
_MAX_BITS = 16

Bytes = npt.NDArray[np.uint8]


def register_dicom() -> None:
    """Lets Pillow read DICOM files where pydicom is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pydicom")
        if FORMAT not in Image.OPEN:
            Image.register_open(FORMAT, DicomImageFile, is_dicom)
            Image.register_extension(FORMAT, ".dcm")


def is_dicom(head: bytes) -> bool:
    """True for the first bytes of a file of this format.

    Pillow asks with the first 16 bytes, which say nothing: the reader looks at the rest.
    """
    return len(head) <= _MAGIC_AT or head[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC


class DicomImageFile(ImageFile.ImageFile):
    """A DICOM file; its pixels are 8 bits, grey or RGB, after its own window."""

    format = FORMAT
    format_description = "Digital Imaging and Communications in Medicine"

    def _open(self) -> None:
        assert self.fp is not None
        start = self.fp.read(_MAGIC_AT + 4)
        if start[_MAGIC_AT:] != _MAGIC:
            raise SyntaxError("not a DICOM file")
        self.fp.seek(0)
        pydicom = importlib.import_module("pydicom")
        self._record = pydicom.dcmread(self.fp, force=False)
        record = self._record
        if "PixelData" not in record:
            raise SyntaxError("a DICOM file without pixels")
        bits = int(record.BitsAllocated)
        if bits not in (8, _MAX_BITS):
            raise OSError(f"DICOM of {bits} bits a value; 8 to {_MAX_BITS} are read")
        self._size = (int(record.Columns), int(record.Rows))
        self._mode = "L" if int(record.SamplesPerPixel) == 1 else "RGB"
        self.n_frames = int(record.get("NumberOfFrames", 1) or 1)
        self.is_animated = self.n_frames > 1
        self._frame = 0
        self.tile = []

    def seek(self, frame: int) -> None:
        """Goes to a frame, from 0."""
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"frame {frame} of {self.n_frames}")
        if frame != self._frame:
            self._frame, self._im = frame, None

    def tell(self) -> int:
        """The frame, from 0."""
        return self._frame

    def load(self) -> Any:
        """Decodes the frame."""
        if self._im is None:
            self.im = Image.fromarray(_frame(self._record, self._frame, self.n_frames)).im
        return super().load()


def _frame(record: Any, number: int, total: int) -> Bytes:
    """One frame [H, W] or [H, W, 3]."""
    values = record.pixel_array
    values = values[number] if total > 1 else values
    if int(record.SamplesPerPixel) != 1:
        if record.PhotometricInterpretation != "RGB" or values.dtype != np.uint8:
            raise OSError(
                f"DICOM of {record.PhotometricInterpretation} with {values.dtype}; 8-bit RGB is "
                "read, and grey of 8 to 16 bits"
            )
        colours: Bytes = values
        return colours
    if record.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise OSError(
            f"DICOM of {record.PhotometricInterpretation}, whose values aren't grey; 8-bit RGB is "
            "read, and grey of 8 to 16 bits"
        )
    processing: Any = importlib.import_module("pydicom.pixels")
    scaled = np.asarray(processing.apply_modality_lut(values, record), np.float64)
    # Where people were made anonymous, elements are often left without a value.
    center, width = _first(record.get("WindowCenter")), _first(record.get("WindowWidth"))
    if record.get("VOILUTSequence"):
        seen = np.asarray(processing.apply_voi(scaled.astype(np.int64), record), np.float64)
        shown = seen / (2.0 ** int(record.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif center is not None and width is not None:
        kind = str(record.get("VOILUTFunction") or "LINEAR").upper()
        shown = windowed(scaled, center, width, kind)
    else:
        low, high = float(scaled.min()), float(scaled.max())
        shown = (scaled - low) / ((high - low) or 1.0)
    grey = (shown.clip(0, 1) * 255).round().astype(np.uint8)
    return 255 - grey if record.PhotometricInterpretation == "MONOCHROME1" else grey


def windowed(
    values: npt.NDArray[np.float64], center: float, width: float, kind: str
) -> npt.NDArray[np.float64]:
    """Values through a window, 0 .. 1 within it (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if width <= 0 or (kind == "LINEAR" and width < 1):
        allowed = "1 or more" if kind == "LINEAR" else "above 0"
        raise OSError(f"DICOM with a window of width {width:g}; it must be {allowed}")
    if kind == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if kind == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if kind != "LINEAR":
        raise OSError(
            f"DICOM with the window function {kind!r}; LINEAR, LINEAR_EXACT and SIGMOID are read"
        )
    return (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5


def _first(value: Any) -> float | None:
    """The first of several windows; None where none has a value."""
    if hasattr(value, "__len__") and not isinstance(value, str):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)

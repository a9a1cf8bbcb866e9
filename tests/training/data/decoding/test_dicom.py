"""DICOM files as images: window, rescale, bits, signs, frames; made here by pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data import DataConfig, load
from training.data.decoding import Encoded, Form, decode

pydicom = pytest.importorskip("pydicom")

FORM = Form(height=8, width=8, channels=1)
RAMP = np.arange(64).reshape(8, 8)


def write(path: Path, values: np.ndarray, **fields: Any) -> Path:
    """A file of these values [H, W], [frames, H, W] or [H, W, 3]."""
    record = pydicom.Dataset()
    record.file_meta = pydicom.dataset.FileMetaDataset()
    record.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    record.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    record.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    record.SOPClassUID, record.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    is_colour = values.shape[-1] == 3
    record.SamplesPerPixel = 3 if is_colour else 1
    record.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        record.PlanarConfiguration = 0
    elif values.ndim == 3:
        record.NumberOfFrames = len(values)
    record.Rows, record.Columns = values.shape[:2] if is_colour else values.shape[-2:]
    record.BitsAllocated = record.BitsStored = 8 * values.dtype.itemsize
    record.HighBit = record.BitsStored - 1
    record.PixelRepresentation = int(values.dtype.kind == "i")
    record.PixelData = values.tobytes()
    for name, value in fields.items():
        setattr(record, name, value)
    record.save_as(path, enforce_file_format=True)
    return path


def pixels(path: Path, form: Form = FORM) -> np.ndarray:
    found = decode([Encoded(path.name, path)], form, num=1)
    assert not found.skipped, found.skipped
    return found.images[0].astype(int)


def test_16_bits_through_a_window_after_rescaling(tmp_path: Path) -> None:
    # Hounsfield units 0 .. 63 by slope and intercept; a window of 33 around 32.5.
    stored = (RAMP * 2 + 2048).astype(np.uint16)
    fields = {"RescaleSlope": 0.5, "RescaleIntercept": -1024}
    fields |= {"WindowCenter": [32.5, 1], "WindowWidth": [33, 1]}
    found = pixels(write(tmp_path / "ct.dcm", stored, **fields))[0]
    expected = (((RAMP - 32) / 32 + 0.5).clip(0, 1) * 255).round()
    assert (found == expected).all()


def test_signed_12_bits_without_a_window_are_stretched(tmp_path: Path) -> None:
    stored = (RAMP - 32).astype(np.int16)
    found = pixels(write(tmp_path / "x", stored, BitsStored=12, HighBit=11))[0]
    assert (found == (RAMP / 63 * 255).round()).all()


def test_elements_without_a_value_are_none(tmp_path: Path) -> None:
    empty = {"WindowCenter": None, "WindowWidth": None, "VOILUTFunction": None}
    found = pixels(write(tmp_path / "x.dcm", RAMP.astype(np.uint8), **empty))[0]
    assert (found == (RAMP / 63 * 255).round()).all()
    half = {**empty, "WindowCenter": 32, "WindowWidth": 65}
    found = pixels(write(tmp_path / "y.dcm", RAMP.astype(np.uint8), **half))[0]
    assert (found == (((RAMP - 31.5) / 64 + 0.5).clip(0, 1) * 255).round()).all()


def test_monochrome1_is_turned_round_and_sigmoid_is_one(tmp_path: Path) -> None:
    fields = {"WindowCenter": 32, "WindowWidth": 16, "VOILUTFunction": "SIGMOID"}
    plain = pixels(write(tmp_path / "a.dcm", RAMP.astype(np.uint8), **fields))[0]
    assert (plain == (255 / (1 + np.exp(-4 * (RAMP - 32) / 16))).round()).all()
    fields["PhotometricInterpretation"] = "MONOCHROME1"
    turned = pixels(write(tmp_path / "b.dcm", RAMP.astype(np.uint8), **fields))[0]
    assert (turned == 255 - plain).all()


def test_colours_stay(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    form = Form(height=8, width=8, channels=3)
    found = pixels(write(tmp_path / "c.dcm", rgb), form)
    assert (found == rgb.transpose(2, 0, 1)).all()


def test_a_folder_with_all_frames(tmp_path: Path) -> None:
    write(tmp_path / "volume.dcm", np.stack([RAMP, RAMP[::-1], RAMP * 2]).astype(np.uint16))
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1\2\3")
    data = DataConfig(dataset="folder", path=tmp_path, resolution=8, conditional=False)
    assert len(load(data)) == 1
    found = load(DataConfig(**{**vars(data), "frames": "all"}))
    assert len(found) == 3
    assert [skipped.name for skipped in found.skipped] == ["broken.dcm"]


WRONG = {
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR, whose values"),
    "width": ({"WindowCenter": 1, "WindowWidth": 0}, "window of width 0"),
    "function": (
        {"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
        "function 'CUBIC'",
    ),
    "cut off": ({"PixelData": b"\0" * 6}, ""),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_named(tmp_path: Path, case: str) -> None:
    fields, message = WRONG[case]
    path = write(tmp_path / "x.dcm", RAMP.astype(np.uint8), **fields)
    found = decode([Encoded("x.dcm", path)], FORM, num=1)
    assert len(found.images) == 0
    assert message in found.skipped[0].reason

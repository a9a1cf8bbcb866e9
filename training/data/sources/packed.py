"""Packed images: a folder that `training.data.pack` made, mapped into memory.

    pack.json     what it holds, written last: a folder without it isn't whole
    images.bin    the images one after the other, uint8 [C, H, W] each
    labels.npy    the class of each, an index of pack.json's classes
    files.jsonl   the file of each, an `Origin` a line

The system reads pages of images.bin as they are asked for, so that the set may be larger than the
memory.
"""

import json
import mmap
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training.data.decoding import Form, Origin, Pixels, Skipped
from training.data.listing.outputs import PACK, PACKED_IMAGES
from training.data.sources.registry import ImageRequest, Raw
from training.errors import DataError
from training.finite_json import as_json
from training.memory import available_bytes

LABELS, FILES = "labels.npy", "files.jsonl"
VERSION = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The content of pack.json."""

    version: int
    form: dict[str, Any]
    """The fields of the `Form` that images were decoded to."""
    options: dict[str, Any]
    """The options that chose images and classes, by the fields of `ImageRequest`."""
    num_images: int
    classes: list[str]
    """In their order; "" for images without a class."""
    pixels: str
    """sha256 over images.bin."""
    labelled: str
    """sha256 over images.bin and the labels."""
    notes: list[str]
    skipped: list[tuple[str, str]]
    """Files that could not be used: name and reason."""

    @property
    def nbytes(self) -> int:
        """Bytes of images.bin."""
        return self.num_images * Form(**self.form).nbytes


def is_packed(root: Path) -> bool:
    """True for a folder of packed images that is whole."""
    return os.path.isfile(root / PACK)  # False, too, where it may not be looked at


def record_of(form: Form) -> dict[str, Any]:
    """A form as pack.json has it."""
    record: dict[str, Any] = json.loads(as_json(asdict(form)))
    return record


def options_of(request: ImageRequest) -> dict[str, Any]:
    """The options of a request that choose images and classes."""
    return {
        "split": request.split,
        "labels": request.labels,
        "label_column": request.label_column,
        "class_order": request.class_order,
    }


def load_packed(request: ImageRequest) -> Raw:
    """Maps the images of a packed folder; their labels and names are read.

    Raises:
        DataError: files are missing or damaged, or the request wants another form or other images.
    """
    root = request.root
    header = _header(root)
    _require_fitting(header, request)
    try:
        if (root / PACKED_IMAGES).stat().st_size != header.nbytes:
            raise ValueError(f"{PACKED_IMAGES} has not the {header.nbytes:,} bytes of {PACK}")
        labels = np.load(root / LABELS, allow_pickle=False)
        with (root / FILES).open(encoding="utf-8") as file:
            origins = tuple(Origin(**json.loads(line)) for line in file)
        num = header.num_images
        if labels.shape != (num,) or labels.dtype != np.int64 or len(origins) != num:
            raise ValueError(f"{LABELS} and {FILES} are not of {num:,} images")
        if num and not 0 <= labels.min() <= labels.max() < len(header.classes):
            raise ValueError(f"{LABELS} names classes that {PACK} lacks")
        images = _mapped(root / PACKED_IMAGES, num, request.form)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"data.path is {root}: {error}; copy it again, or pack again") from error
    if request.conditional and "" in header.classes:
        raise DataError(
            f"data.conditional is True; {root} was packed with images without a class; pack again "
            "with --conditional"
        )
    classes = tuple(header.classes[label] for label in labels)
    return Raw(
        images=images,
        labels=labels if request.conditional else None,
        label_names=tuple(header.classes) if request.conditional else None,
        skipped=tuple(Skipped(*pair) for pair in header.skipped),
        origins=origins,
        classes=classes if any(classes) else None,
        notes=tuple(header.notes),
        digest=header.labelled if request.conditional else header.pixels,
        is_mapped=True,
    )


def _mapped(path: Path, num: int, form: Form) -> Pixels:
    shape = (num, form.channels, form.height, form.width)
    if not num:
        return np.empty(shape, dtype=np.uint8)
    images = np.memmap(path, np.uint8, "r", shape=shape)
    # Where all fits, it is read ahead in the background; else whole pages around an image, which
    # are not asked for, would push out those that are.
    fits = images.nbytes < available_bytes() // 2
    images._mmap.madvise(mmap.MADV_WILLNEED if fits else mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return images


def _header(root: Path) -> Header:
    try:
        header = msgspec.json.decode((root / PACK).read_bytes(), type=Header)
        Form(**header.form)
    except (OSError, TypeError, msgspec.MsgspecError) as error:
        raise DataError(f"{root / PACK} can't be read: {error}; pack again") from error
    if header.version != VERSION:
        raise DataError(
            f"{root / PACK} is of version {header.version}, this release reads {VERSION}; pack "
            "again with this release"
        )
    return header


def _require_fitting(header: Header, request: ImageRequest) -> None:
    """Raises DataError where a training asks for what was not packed."""
    wanted, form = record_of(request.form), header.form
    differ = [name for name in wanted if form.get(name) != wanted[name]]
    if differ:
        told = ", ".join(f"{name} {form.get(name)}, not {wanted[name]}" for name in differ)
        size = Form(**form)
        raise DataError(
            f"data.path is {request.root}: packed with {told}; set --data.resolution "
            f"{size.width}x{size.height} --data.channels {size.channels} and the others as they "
            "were, or pack again"
        )
    defaults = {field.name: field.default for field in fields(ImageRequest)}
    for name, value in options_of(request).items():
        packed = header.options.get(name)
        # An order that changes nothing is no difference.
        alike = name == "class_order" and not any(map(_has_digit, header.classes))
        if value not in (packed, defaults[name]) or (name == "class_order" and value != packed):
            if alike:
                continue
            raise DataError(
                f"data.{name} is {value!r}; {request.root} was packed with {packed!r}: leave it "
                f"out, or pack again with --{name.replace('_', '-')} {value}"
            )


def _has_digit(name: str) -> bool:
    return any(char.isdigit() for char in name)

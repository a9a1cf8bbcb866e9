"""Packs images once, so that trainings start at once and the set may be larger than the memory.

Images are decoded to the form of the training and appended to one file, a part of them at a time.
What is on the disk is recorded after each part: a pack that was interrupted goes on from there, and
gives the same bytes. `training.data.sources.packed` reads the result.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle import sync_folder, write_synced
from training.data.config import DataConfig
from training.data.decoding import Decoded, Skipped, decode
from training.data.listing.outputs import PACK, PACKED_IMAGES
from training.data.sources.folder import Collected, collect
from training.data.sources.packed import (
    FILES,
    LABELS,
    VERSION,
    Header,
    is_packed,
    options_of,
    record_of,
)
from training.errors import DataError
from training.finite_json import as_json

PART = 512  # images that are decoded, written and recorded at a time
_JOB, _PARTS, _LOCK = "packing.json", "parts.jsonl", ".lock"
_READ_BYTES = 16 << 20
_SPARE_BYTES = 64 << 20


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A line of parts.jsonl: what a part of the files gave."""

    num_files: int
    """Files up to the end of this part."""
    labels: list[int]
    origins: list[dict[str, Any]]
    skipped: list[tuple[str, str]]


@dataclass
class Progress:
    """Files done, their rate and the time left, at most so often."""

    total: int
    stream: TextIO
    every_s: float
    done_before: int = 0

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._start_s = self._last_s = time.monotonic()

    def show(self, done: int) -> None:
        """Shows it, where it is due: on a terminal in one line that is rewritten."""
        now = time.monotonic()
        if now - self._last_s < self.every_s and done < self.total:
            return
        self._last_s = now
        rate = (done - self.done_before) / max(now - self._start_s, 1e-9)
        left_s = (self.total - done) / max(rate, 1e-9)
        line = f"packed {done:,} of {self.total:,} files, {rate:,.0f}/s, {_duration(left_s)} left"
        live = self.stream.isatty()
        end = "" if live and done < self.total else "\n"
        print(f"\r\033[K{line}" if live else line, end=end, file=self.stream, flush=True)


def pack(config: DataConfig, to: Path, *, stream: TextIO | None = None, part: int = PART) -> Header:
    """Packs a folder's or an archive's images, or goes on with a pack that was interrupted.

    Args:
        config: of the dataset `folder`, as a training would have it.
        to: the folder to make.
        stream: for progress; stderr by default.
        part: images that are recorded at a time.

    Raises:
        DataError: the data can't be read, the folder can't be written or holds something else.
    """
    try:
        if is_packed(to):
            raise DataError(f"to is {to}: packed already; delete it, or choose another folder")
        collected = collect(config.request)
        to.mkdir(parents=True, exist_ok=True)
        with _locked(to):
            _begin(config, collected, to)
            parts = _parts(to)
            _write_images(config, collected, to, parts, stream or sys.stderr, part)
            return _finish(config, collected, to, parts)
    except OSError as error:
        raise DataError(
            f"to is {to}: {error}; make room or choose another folder, and run again: what is "
            "packed stays"
        ) from error


@contextmanager
def _locked(to: Path) -> Iterator[None]:
    """Keeps two processes from packing into one folder."""
    with (to / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"to is {to}: another process packs into it; wait for it") from None
        yield


def _begin(config: DataConfig, collected: Collected, to: Path) -> None:
    """Records what is packed, or checks that the interrupted pack is of the same."""
    request = config.request
    digest = hashlib.sha256()
    for item in collected.encoded:
        digest.update(f"{item.label} {item.name}\n".encode(errors="surrogateescape"))
    job = {
        "form": record_of(request.form),
        "options": options_of(request),
        "conditional": request.conditional,
        "classes": list(collected.label_names),
        "files": digest.hexdigest(),
    }
    file = to / _JOB
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != json.loads(as_json(job)):
            raise DataError(
                f"to is {to}: it holds an unfinished pack of other files, or with other options; "
                "delete it, or choose another folder"
            )
        return
    if foreign := sorted(path.name for path in to.iterdir() if path.name != _LOCK):
        raise DataError(f"to is {to}: not empty, it holds {foreign[0]!r}; choose a new folder")
    needed = len(collected.encoded) * request.form.nbytes + _SPARE_BYTES
    free = shutil.disk_usage(to).free
    if needed > free:
        raise DataError(
            f"to is {to}: {len(collected.encoded):,} images need {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free; choose a smaller --resolution or another disk"
        )
    write_synced(file, as_json(job, indent=None).encode())


def _parts(to: Path) -> list[Part]:
    """The parts that were written whole; what a crash left behind them is cut off."""
    file, parts, whole = to / _PARTS, [], 0
    if not file.exists():
        return []
    with file.open("r+b") as stream:
        for line in stream:
            try:
                parts.append(msgspec.json.decode(line, type=Part))
            except msgspec.MsgspecError:
                break
            whole += len(line)
        stream.truncate(whole)
    return parts


def _write_images(
    config: DataConfig,
    collected: Collected,
    to: Path,
    parts: list[Part],
    stream: TextIO,
    size: int,
) -> None:
    form, items = config.form, collected.encoded
    start = parts[-1].num_files if parts else 0
    num_images = sum(len(part.labels) for part in parts)
    live = stream.isatty()
    progress = Progress(len(items), stream, every_s=0.5 if live else 10.0, done_before=start)
    with (to / PACKED_IMAGES).open("ab") as images, (to / _PARTS).open("ab") as record:
        images.truncate(num_images * form.nbytes)
        images.seek(0, os.SEEK_END)
        while start < len(items):
            chunk = items[start : start + size]
            decoded = decode(chunk, form, num=len(chunk), shows_progress=False)
            _write(images, decoded.images.tobytes())
            start += len(chunk)
            part = _part(decoded, start)
            # After the pixels: a line promises that they are on the disk.
            _write(record, msgspec.json.encode(part) + b"\n")
            parts.append(part)
            progress.show(start)


def _part(decoded: Decoded, num_files: int) -> Part:
    return Part(
        num_files=num_files,
        labels=decoded.labels.tolist(),
        origins=[asdict(origin) for origin in decoded.origins],
        skipped=[(skipped.name, skipped.reason) for skipped in decoded.skipped],
    )


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _finish(config: DataConfig, collected: Collected, to: Path, parts: list[Part]) -> Header:
    """Writes the labels, the names and, last, pack.json."""
    labels = np.array([label for part in parts for label in part.labels], dtype=np.int64)
    if not len(labels):
        seen = [*collected.skipped, *(Skipped(*pair) for part in parts for pair in part.skipped)]
        raise DataError(
            f"data.path is {config.root}: no image could be read in it "
            f"({'; '.join(map(str, seen[:3])) or 'it holds no files'}); give a folder of images"
        )
    used, labels = np.unique(labels, return_inverse=True)
    labels = labels.astype(np.int64)
    classes = [collected.label_names[i] for i in used]
    empty = [name for name in collected.label_names if name and name not in classes]
    skipped = [(each.name, each.reason) for each in collected.skipped]
    if config.conditional:
        skipped += [(name, "no image of this class") for name in empty]
    np.save(to / LABELS, labels)
    with (to / FILES).open("w", encoding="utf-8") as file:
        for part in parts:
            file.writelines(as_json(origin, indent=None) + "\n" for origin in part.origins)
    pixels, labelled = _digests(to / PACKED_IMAGES, labels)
    header = Header(
        version=VERSION,
        form=record_of(config.form),
        options=options_of(config.request),
        num_images=len(labels),
        classes=classes,
        pixels=pixels,
        labelled=labelled,
        notes=list(collected.notes),
        skipped=[*skipped, *(pair for part in parts for pair in part.skipped)],
    )
    for name in (LABELS, FILES):
        _sync(to / name)
    temporary = to / f".{PACK}.tmp"
    write_synced(temporary, msgspec.json.encode(header))
    temporary.replace(to / PACK)
    sync_folder(to)
    for name in (_JOB, _PARTS):
        (to / name).unlink()
    return header


def _digests(images: Path, labels: npt.NDArray[np.int64]) -> tuple[str, str]:
    """sha256 over the pixels, and over pixels and labels: those of the same data in memory."""
    digest = hashlib.sha256()
    with images.open("rb") as file:
        while content := file.read(_READ_BYTES):
            digest.update(content)
    pixels = digest.hexdigest()
    digest.update(np.ascontiguousarray(labels).data)
    return pixels, digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(min(seconds, 1e7)), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}h {minutes:02d}m"
        if hours
        else f"{minutes}m {rest:02d}s"
        if minutes
        else f"{rest}s"
    )

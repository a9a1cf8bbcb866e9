"""TensorBoard's event files, written as records that a full disk delays.

torch's SummaryWriter hands its events to a thread, which dies of a full disk and takes every later
event with it. Here the same bytes go to a `RecordFile`.
"""

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from training.runs.disk.records import RecordFile

_VERSION = "brain.Event:2"
_NUMBERS = itertools.count()  # of the files of this process: two may be opened within a second


class Events:
    """One event file, of scalars by name and step."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Opens a new file in the folder, which is made.

        purge_step: TensorBoard drops the events of other files from this step on.

        Raises:
            OSError: it can't be opened.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self.file = RecordFile(folder / f"events.out.tfevents.{name}")
        self._write(file_version=_VERSION)
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars by name; slashes in names group them."""
        named = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=named))

    def image(self, name: str, picture: Image.Image, step: int) -> None:
        """Writes a picture, as PNG."""
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=len(picture.getbands()),
            encoded_image_string=buffer.getvalue(),
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def _write(self, **content: Any) -> None:
        buffer = io.BytesIO()
        RecordWriter(buffer).write(Event(wall_time=time.time(), **content).SerializeToString())
        self.file.append(buffer.getvalue())

"""Decodes many images in parallel."""

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from models.decoding import alpha
from models.decoding.fitting import fitted
from models.decoding.form import Form
from training.data.decoding.file import Decoder, prepared
from training.data.decoding.images import Decoded, Encoded, Origin, Packed, Pixels, Skipped
from training.data.decoding.memory import reserve
from training.data.decoding.progress import Progress

_CHUNK_SIZE = 1024  # images that are decoded at a time


def decode(
    encoded: Iterable[Encoded | Packed], form: Form, *, num: int, shows_progress: bool = True
) -> Decoded:
    """Decodes images in parallel to one form.

    Args:
        encoded: the images, at most num of them.
        form: what they become.
        num: memory is reserved for so many; more where all frames of a file are used.
        shows_progress: False for a caller that shows its own.

    Raises:
        DataError: the images don't fit into memory.
    """
    images = reserve(num, form)
    labels: list[int] = []
    skipped: list[Skipped] = []
    origins: list[Origin] = []
    progress = Progress(num) if shows_progress else None
    done = 0
    with prepared(form), ThreadPoolExecutor(os.cpu_count()) as pool:
        decoder = Decoder(form)
        for chunk in _chunks(encoded):
            for item, result in zip(chunk, pool.map(decoder.read, chunk), strict=True):
                if isinstance(result, str):
                    skipped.append(Skipped.of(item.name, result))
                    continue
                for picture in result:
                    if len(labels) == len(images):
                        images = _grown(images, form)
                    images[len(labels)] = picture.pixels
                    labels.append(item.label)
                    origins.append(picture.origin)
            done += len(chunk)
            if progress is not None:
                progress.show(done)
    if progress is not None:
        progress.end()
    return Decoded(
        images[: len(labels)], np.array(labels, np.int64), tuple(origins), tuple(skipped)
    )


def fit(images: Pixels, form: Form) -> Pixels:
    """Brings arrays [N, H, W, 1, 3 or 4] uint8 to a form, [N, channels, height, width].

    The result is that of `decode`.

    Raises:
        DataError: the result doesn't fit into memory.
    """
    if images.shape[1:] == (form.height, form.width, form.channels) and images.shape[3] < 4:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    out = reserve(len(images), form)

    def fit_chunk(start: int) -> None:
        for i in range(start, min(start + _CHUNK_SIZE, len(images))):
            image = images[i]
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            out[i] = fitted(alpha.joined(*alpha.separated(picture), form), form)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fit_chunk, range(0, len(images), _CHUNK_SIZE)))
    return out


def _grown(images: Pixels, form: Form) -> Pixels:
    """The images in an array of half as many places more."""
    larger = reserve(len(images) * 3 // 2 + 16, form)
    larger[: len(images)] = images
    return larger


def _chunks(encoded: Iterable[Encoded | Packed]) -> Iterator[list[Encoded | Packed]]:
    iterator = iter(encoded)
    while chunk := list(itertools.islice(iterator, _CHUNK_SIZE)):
        yield chunk

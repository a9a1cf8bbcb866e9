"""Words in image files: written into every format, read back, and the pixels as they were."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.image_metadata import origin, provenance, read_metadata, with_metadata
from models.seed_list import seeds_of, written_seeds

KINDS = {"png": {}, "jpeg": {"quality": 90}, "webp": {"lossless": True}}
WORDS = provenance(
    model="faces-64", version=12, digest="ab" * 32, truncation=0.7, seed=2**64 - 1, label=3
)


def encoded(kind: str, channels: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 13, channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, kind, **KINDS[kind])
    return buffer.getvalue()


PLAIN = {kind: encoded(kind, 1) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_words_are_read_back_and_the_pixels_are_the_same(kind: str, channels: int) -> None:
    if kind == "jpeg" and channels == 4:
        return
    plain = encoded(kind, channels)
    told = with_metadata(plain, kind, WORDS)
    assert read_metadata(told) == WORDS
    assert read_metadata(plain) == {}
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(told)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
    assert told == with_metadata(plain, kind, WORDS)


def test_only_what_is_known_is_said() -> None:
    said = provenance(model="grey", version=1, digest="cd", truncation=1)
    assert said == {"model": "grey", "version": "1", "digest": "cd", "truncation": "1"}


@given(st.floats(0, 2))
def test_truncation_is_read_back_exactly(psi: float) -> None:
    said = provenance(model="grey", version=1, digest="cd", truncation=psi)
    assert float(said["truncation"]) == psi


@given(
    st.sampled_from(sorted(KINDS)),
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.integers(0, 999),
    st.floats(0, 2),
    st.sampled_from(["", "0:1.5,slant:-1"]),
)
def test_a_file_is_the_same_on_the_short_road(
    kind: str, seed: int | None, label: int | None, psi: float, directions: str
) -> None:
    made_by = origin("grey", 3, "cd", psi, directions)
    told = made_by.told(PLAIN[kind], kind, seed, label)
    assert told == with_metadata(PLAIN[kind], kind, made_by.words(seed, label))
    assert read_metadata(told).get("seed") == (None if seed is None else str(seed))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", encoded("png", 1)[:40]])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="can't be read as an image"):
        read_metadata(data)


def test_words_of_somebody_else_are_not_ours() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "JPEG", comment=b"made with love")
    assert read_metadata(buffer.getvalue()) == {}


@given(st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), min_size=1, max_size=30))
def test_a_list_of_seeds_is_read_as_it_was_written(seeds: list[int]) -> None:
    assert seeds_of(written_seeds(seeds)) == seeds


def test_what_a_jpeg_has_no_room_for_is_left_out_and_named() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    fields = {"model": "digits", "seeds": "1-9"}
    fields |= {"units_off": "1," * 40_000, "directions": "x" * 70_000}
    data = with_metadata(buffer.getvalue(), "jpeg", fields)
    told = {"model": "digits", "seeds": "1-9", "left_out": "directions, units_off"}
    assert read_metadata(data) == told
    with Image.open(io.BytesIO(data)) as image:
        image.load()

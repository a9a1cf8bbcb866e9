"""Image files of strangers: the right pixels, or a reason in words; never anything else."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.encoding.pixels import Decoded, RefusedImageError, Wanted, decode

GREY = np.arange(0, 240, 5, np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, 255 - GREY, GREY[::-1]], axis=2)
MAX_PIXELS = 10_000


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def read(data: bytes, channels: int = 3, size: tuple[int, int] = (8, 6), **more: Any) -> Decoded:
    fields = {"field": "image", "max_pixels": MAX_PIXELS} | more
    return decode(data, Wanted(width=size[0], height=size[1], channels=channels, **fields))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, lines: bytes, *more: bytes) -> bytes:
    """A PNG of these lines, each with its filter before it; more: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + end


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_a_format_keeps_comes_back(kind: str) -> None:
    data = saved(Image.fromarray(COLOUR), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(read(data).pixels, COLOUR)


def test_a_grey_image_becomes_what_the_model_makes() -> None:
    data = saved(Image.fromarray(GREY))
    assert np.array_equal(read(data, 1).pixels, GREY[:, :, None])
    assert np.array_equal(read(data, 3).pixels, np.repeat(GREY[:, :, None], 3, axis=2))
    transparent = read(data, 4).pixels
    assert np.array_equal(transparent[:, :, 3], np.full((6, 8), 255))


def test_colours_become_grey_by_their_brightness() -> None:
    found = read(saved(Image.fromarray(COLOUR)), 1).pixels[:, :, 0].astype(float)
    assert np.abs(found - COLOUR @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image(orientation: int) -> None:
    """The file holds the pixels as a camera that was held so has them."""
    upright = COLOUR
    held = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(held)), exif=exif)
    assert np.array_equal(read(data).pixels, upright)


def test_cmyk_becomes_colours() -> None:
    found = read(saved(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), "JPEG", quality=100)).pixels
    assert np.abs(found.astype(int) - [0, 255, 255]).max() <= 4


def test_of_16_bits_the_upper_8() -> None:
    wide = GREY.astype(np.uint16) * 256 + 77
    assert np.array_equal(read(saved(Image.fromarray(wide)), 1).pixels[:, :, 0], GREY)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOUR.astype(np.uint16) * 256)
    assert np.array_equal(read(png_of(8, 6, 16, 2, lines)).pixels, COLOUR)
    assert np.array_equal(read(npy(COLOUR.astype(np.uint16) * 256 + 3)).pixels, COLOUR)
    assert np.array_equal(read(npy(wide.astype(">u2")), 1).pixels[:, :, 0], GREY)


def test_palettes_and_bits_become_what_they_show() -> None:
    palette = Image.fromarray(COLOUR).quantize(256)
    assert np.array_equal(read(saved(palette)).pixels, np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY > 100)
    assert np.array_equal(read(saved(bits), 1).pixels[:, :, 0], np.where(GREY > 100, 255, 0))


def with_hole() -> npt.NDArray[np.uint8]:
    alpha = np.full((6, 8, 1), 255, np.uint8)
    alpha[2:4, 2:5] = 0
    return np.concatenate([COLOUR, alpha], axis=2)


def palette_with_hole() -> bytes:
    image = Image.fromarray((GREY // 5).astype(np.uint8), "L").convert("P")
    return saved(image, transparency=3)


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(with_hole())),
        saved(Image.fromarray(with_hole()).convert("LA")),
        saved(Image.fromarray(with_hole()), "WEBP", lossless=True, exact=True),
        npy(with_hole()),
        palette_with_hole(),
        saved(Image.fromarray(GREY), transparency=35),
        png_of(2, 1, 16, 0, b"\0\x12\x34\x00\x00", chunk(b"tRNS", b"\x12\x34")),
        saved(Image.fromarray(GREY > 100), transparency=0),
    ],
    ids=["RGBA", "LA", "WebP", "npy", "palette", "grey", "16-bits", "1-bit"],
)
def test_transparency_is_refused_or_a_mask(data: bytes) -> None:
    size = (2, 1) if len(data) < 100 and b"IHDR\0\0\0\x02" in data else (8, 6)
    with pytest.raises(RefusedImageError, match="image is transparent in places, the model's"):
        read(data, size=size)
    known = read(data, size=size, alpha="mask").known
    assert known is not None
    assert set(np.unique(known)) == {0, 1}
    assert read(data, 4, size=size).pixels[:, :, 3].min() == 0


def test_the_mask_is_where_alpha_is_0_and_pixels_are_the_files() -> None:
    found = read(saved(Image.fromarray(with_hole())), alpha="mask")
    assert found.known is not None
    assert np.array_equal(found.known == 0, with_hole()[:, :, 3] == 0)
    assert np.array_equal(found.pixels[found.known == 1], COLOUR[found.known == 1])


def test_alpha_that_hides_nothing_is_left_out() -> None:
    image = Image.fromarray(COLOUR).convert("RGBA")
    found = read(saved(image), alpha="mask")
    assert np.array_equal(found.pixels, COLOUR)
    assert found.known is None


def test_another_size_is_refused_or_scaled_as_asked() -> None:
    data = saved(Image.fromarray(COLOUR))
    with pytest.raises(RefusedImageError, match=r"8x6 pixels, the model's images 4x4.*fit: crop"):
        read(data, size=(4, 4))
    assert read(data, size=(4, 4), fit="stretch").pixels.shape == (4, 4, 3)
    wide = np.zeros((4, 12, 1), np.uint8)
    wide[:, 4:8] = 200  # the middle is all that a square keeps
    cropped = read(npy(wide), 1, size=(4, 4), fit="crop").pixels
    assert (cropped == 200).all()


def test_what_cannot_be_seen_has_no_weight_when_scaled() -> None:
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, 3:] = [200, 200, 200, 255]  # black, transparent, beside grey
    found = read(npy(half), size=(4, 4), fit="stretch", alpha="mask")
    assert found.known is not None
    assert found.pixels[found.known == 1].min() >= 195


@pytest.mark.parametrize(("size", "ok"), [((4, 3), True), ((2, 2), False), ((8, 6), False)])
def test_a_small_image_must_be_a_whole_part(size: tuple[int, int], ok: bool) -> None:
    data = npy(np.zeros((size[1], size[0]), np.uint8))
    if ok:
        assert read(data, 1, fit="smaller").pixels.shape == (3, 4, 1)
    elif size == (8, 6):
        assert read(data, 1, fit="smaller").pixels.shape == (6, 8, 1)  # the caller says so
    else:
        with pytest.raises(RefusedImageError, match="that can become 8x6 are 4x3"):
            read(data, 1, fit="smaller")


def webp_that_claims(width: int, height: int) -> bytes:
    body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = b"VP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(frame)) + b"WEBP" + frame


@pytest.mark.parametrize(
    "data",
    [
        png_of(60_000, 60_000, 8, 0, bytes(1000)),
        webp_that_claims(16_000, 16_000),
        saved(Image.new("L", (101, 100)), "JPEG"),
        npy(np.zeros((101, 100), np.uint8)),
        npy(np.zeros((4, 4), np.uint8)).replace(b"(4, 4)", b"(9, 9)"),
    ],
    ids=["png", "webp", "jpeg", "npy", "npy-header"],
)
def test_a_bomb_is_refused_before_it_takes_memory(data: bytes) -> None:
    with pytest.raises(RefusedImageError, match=r"allowed are 1 .. 10000 in all|header says 81"):
        read(data, 1)


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for kind in ("PNG", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(RefusedImageError, match="animation of 2 frames; send one image"):
            read(data, 1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((6, 8), np.float32), "array of float32"),
        (np.zeros((6, 8, 2), np.uint8), "channels must be 1, 3 or 4"),
        (np.zeros((2, 6, 8, 3), np.uint8), "must be uint8 or uint16"),
        (np.zeros((0, 8), np.uint8), "has 8x0 pixels"),
        (np.array([{}], object), "array of object"),
    ],
)
def test_an_array_of_another_kind_is_refused(array: npt.NDArray[Any], words: str) -> None:
    with pytest.raises(RefusedImageError, match=words):
        read(npy(array))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", b"\x93NUMPY", b"RIFF1234WAVE", b"BM"])
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(RefusedImageError, match=r"it is no PNG, JPEG, WebP or npy file|can't be"):
        read(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [13, 20, 30])
def test_words_about_a_damaged_file_name_nothing_of_the_server(kind: str, size: int) -> None:
    with pytest.raises(RefusedImageError, match=r"^image .*(damaged|0x0|allowed)") as caught:
        read(saved(Image.fromarray(COLOUR), kind)[:size])
    assert "object at" not in str(caught.value)
    assert "Bytes" not in str(caught.value)


SEEDS = [
    saved(Image.fromarray(COLOUR)),
    saved(Image.fromarray(with_hole())),
    saved(Image.fromarray(COLOUR).quantize(16), transparency=1),
    saved(Image.fromarray(COLOUR), "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    saved(Image.new("CMYK", (8, 6)), "JPEG"),
    saved(Image.fromarray(COLOUR), "WEBP"),
    saved(Image.fromarray(with_hole()), "WEBP", lossless=True),
    saved(Image.fromarray(GREY.astype(np.uint16) * 200)),
    npy(COLOUR),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with some bytes changed, taken out, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["set", "cut", "double", "end", "insert"]))
        if kind == "set" and data:
            data[at] = draw(st.sampled_from([0, 1, 127, 128, 255, draw(st.integers(0, 255))]))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 32))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        else:
            del data[at:]
    return bytes(data)


@settings(max_examples=300)
@given(damaged(), st.sampled_from([1, 3, 4]), st.sampled_from(["exact", "crop", "smaller"]))
def test_damaged_files_give_pixels_or_words(data: bytes, channels: int, fit: str) -> None:
    """`FUZZ_IMAGES` of them, where it is set: see the bottom of this file."""
    found, words = None, "image "
    try:
        found = read(data, channels, fit=fit, alpha="mask")
    except RefusedImageError as error:
        words = str(error)
    assert words.startswith("image ")
    if found is None:
        return
    assert found.pixels.dtype == np.uint8
    assert found.pixels.ndim == 3
    assert found.pixels.shape[2] == channels


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_file_however_little_of_it_is_decoded(
    orientation: int,
) -> None:
    """JPEG files are decoded at an eighth where that is enough; a mask has the whole size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("L", (640, 480), 7).save(buffer, "JPEG", exif=exif)
    wanted = Wanted(field="image", height=8, width=8, channels=1, fit="crop", max_pixels=1 << 20)
    found = decode(buffer.getvalue(), wanted)
    assert found.pixels.shape == (8, 8, 1)
    assert found.size == ((480, 640) if orientation in (6, 8) else (640, 480))

"""A file is the same pixels to training, to its commands and to the server, or p would not hold."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from models.decoding import colour, icc
from serving.encoding.decoder import Decoder
from serving.encoding.pixels import RefusedImageError, Wanted, decode
from serving.errors import InvalidRequestProblem
from tests.training.data.decoding import pictures
from training.data.decoding import Encoded, Form
from training.data.decoding import decode as trained
from training.errors import ConfigError, DataError
from training.inversion.pictures import Size, read_for_filling, read_images

SIDE = 8
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
GREY = COLOUR[..., 0]
ALPHA = RNG.choice(np.array([0, 1, 90, 127, 128, 200, 254, 255], np.uint8), (SIDE, SIDE))
RGBA = np.dstack([COLOUR, ALPHA])
P3 = icc.profile(icc.P3, None)
GAMMA = (b"gAMA", (100_000).to_bytes(4, "big"))
PLACES = [0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06]
PRIMARIES = (b"cHRM", b"".join(round(place * 100_000).to_bytes(4, "big") for place in PLACES))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    return pictures.saved(image, kind, **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def adobe() -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    return exif.tobytes()


def of_depth(depth: int, key: int | None = None) -> bytes:
    """A grey PNG of every value of this depth, at most of 64; key: the transparent one."""
    top = 2**depth - 1
    values = (np.arange(SIDE * SIDE) * max(1, top // 63) & top).reshape(SIDE, SIDE, 1)
    chunks = [] if key is None else [(b"tRNS", key.to_bytes(2, "big"))]
    return pictures.png(values, colour_type=0, depth=depth, chunks=chunks)


def wide_colours(key: bool) -> bytes:
    values = COLOUR.astype(np.uint16) * 256 + 77
    chunks = [(b"tRNS", values[2, 3].astype(">u2").tobytes())] if key else []
    return pictures.png(values, colour_type=2, depth=16, chunks=chunks)


RGB = Image.fromarray(COLOUR)
LARGE = Image.fromarray(RNG.integers(0, 256, (90, 130, 3), np.uint8))
OPAQUE = {
    "rgb": saved(RGB),
    "grey": saved(Image.fromarray(GREY)),
    "p3": saved(RGB, icc_profile=P3),
    "p3-webp": saved(RGB, "WEBP", lossless=True, icc_profile=P3),
    "p3-grey": saved(Image.fromarray(GREY), icc_profile=P3),
    "p3-palette": saved(RGB.quantize(7), icc_profile=P3),
    "p3-large": saved(LARGE, icc_profile=P3),
    "srgb": saved(RGB, icc_profile=pictures.srgb_profile()),
    "other-values": saved(RGB, icc_profile=pictures.ink_profile()),
    "gamma": pictures.png(COLOUR, colour_type=2, depth=8, chunks=[GAMMA]),
    "primaries": pictures.png(COLOUR, colour_type=2, depth=8, chunks=[GAMMA, PRIMARIES]),
    "adobe": saved(RGB, "JPEG", exif=adobe(), quality=100),
    "grey-16": of_depth(16),
    "grey-4": of_depth(4),
    "grey-1": of_depth(1),
    "rgb-16": wide_colours(key=False),
    "turned": saved(LARGE, exif=turned(6)),
    "turned-jpeg": saved(LARGE, "JPEG", exif=turned(5)),
    "cmyk": saved(RGB.convert("CMYK"), "JPEG", quality=100),
    "palette": saved(RGB.quantize(16)),
    "large": saved(LARGE),
    "large-jpeg": saved(LARGE, "JPEG"),
    "small": saved(Image.fromarray(COLOUR[:4, :4])),
    "opaque-alpha": saved(RGB.convert("RGBA")),
    "xmp": saved(
        RGB, "JPEG", xmp=b'<x tiff:Orientation="3"></x>', quality=100, subsampling="4:4:4"
    ),
}
CLEAR = {
    "rgba": saved(Image.fromarray(RGBA)),
    "rgba-p3": saved(Image.fromarray(RGBA), icc_profile=P3),
    "rgba-webp": saved(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True),
    "grey-alpha": saved(Image.fromarray(RGBA).convert("LA")),
    "rgba-turned": saved(Image.fromarray(RGBA), exif=turned(7)),
    "key-1": of_depth(1, 1),
    "key-1-of-0": of_depth(1, 0),
    "key-2": of_depth(2, 1),
    "key-4": of_depth(4, 3),
    "key-8": of_depth(8, 8),
    "key-16": of_depth(16, 5200),
    "key-16-colours": wide_colours(key=True),
    "palette": saved(RGB.quantize(16), transparency=2),
    "rgba-large": saved(LARGE.convert("RGBA").rotate(30)),
}
FITS: tuple[Literal["crop", "stretch"], ...] = ("crop", "stretch")


def by_training(data: bytes, form: Form) -> Any:
    found = trained([Encoded("x", data)], form, num=1, shows_progress=False)
    assert not found.skipped
    return found.images[0].transpose(1, 2, 0)


def wanted(channels: int, fit: Any = "crop", **more: Any) -> Wanted:
    fields = {"height": SIDE, "width": SIDE, "channels": channels, "max_pixels": 100_000} | more
    return Wanted(field="image", fit=fit, **fields)


@pytest.mark.parametrize("name", OPAQUE)
def test_a_file_is_the_same_pixels_to_training_and_to_the_server(name: str) -> None:
    data = OPAQUE[name]
    for channels in (1, 3, 4):
        for fit in FITS:
            form = Form(height=SIDE, width=SIDE, channels=channels, fit=fit)
            found = decode(data, wanted(channels, fit))
            assert found.known is None
            assert np.array_equal(found.pixels, by_training(data, form)), (channels, fit)


@pytest.mark.parametrize("name", CLEAR)
def test_so_is_one_with_transparency(name: str, tmp_path: Path) -> None:
    """To a model with alpha; and where transparency says what is to be filled."""
    data = CLEAR[name]
    for fit in FITS:
        form = Form(height=SIDE, width=SIDE, channels=4, fit=fit)
        assert np.array_equal(decode(data, wanted(4, fit)).pixels, by_training(data, form))
    if "large" in name:
        return
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for channels in (1, 3):
        images, known = read_for_filling([path], None, Size(SIDE, SIDE, channels))
        found = decode(data, wanted(channels, "exact", alpha="mask"))
        assert found.known is not None
        assert np.array_equal(found.known, known[0])
        assert np.array_equal(found.pixels, images[0])


def test_profiles_are_applied() -> None:
    expected = pictures.as_srgb(COLOUR, "p3")
    found = decode(OPAQUE["p3"], wanted(3)).pixels
    assert np.abs(found - expected).max() <= 1.5
    assert np.abs(COLOUR - expected).max() > 20


@pytest.mark.parametrize(
    ("name", "depth", "key"),
    [
        ("key-1", 1, 1),
        ("key-1-of-0", 1, 0),
        ("key-2", 2, 1),
        ("key-4", 4, 3),
        ("key-8", 8, 8),
        ("key-16", 16, 5200),
    ],
)
def test_a_transparent_value_hides_its_own_pixels(name: str, depth: int, key: int) -> None:
    top = 2**depth - 1
    values = (np.arange(SIDE * SIDE) * max(1, top // 63) & top).reshape(SIDE, SIDE)
    known = decode(CLEAR[name], wanted(1, "exact", alpha="mask")).known
    assert known is not None
    assert np.array_equal(known == 0, values == key)
    assert 0 < (values == key).sum() < values.size


def test_a_transparent_colour_of_16_bits_hides_its_own_pixel() -> None:
    known = decode(CLEAR["key-16-colours"], wanted(3, "exact", alpha="mask")).known
    assert known is not None
    assert np.argwhere(known == 0).tolist() == [[2, 3]]


def test_known_pixels_keep_the_colours_of_the_file(tmp_path: Path) -> None:
    """From alpha 128 a pixel is known; nothing behind it shines through."""
    path = tmp_path / "x.png"
    path.write_bytes(CLEAR["rgba"])
    images, known = read_for_filling([path], None, Size(SIDE, SIDE, 3))
    assert np.array_equal(known[0] == 1, ALPHA >= 128)
    assert np.array_equal(images[0][known[0] == 1], COLOUR[known[0] == 1])
    grey = saved(Image.fromarray(np.dstack([GREY, GREY, GREY, ALPHA])))
    path.write_bytes(grey)
    images, known = read_for_filling([path], None, Size(SIDE, SIDE, 1))
    assert np.array_equal(images[0, ..., 0][known[0] == 1], GREY[known[0] == 1])


def test_two_masks_are_one_too_many(tmp_path: Path) -> None:
    path, mask = tmp_path / "x.png", tmp_path / "mask.png"
    path.write_bytes(CLEAR["rgba"])
    mask.write_bytes(OPAQUE["grey"])
    with pytest.raises(ConfigError, match=r"x\.png is transparent in places, and --mask"):
        read_for_filling([path], mask, Size(SIDE, SIDE, 3))


def damaged(start: int = 128) -> bytes:
    """A profile of which so much is right, and the rest is not."""
    return P3[:start] + bytes(255 - byte for byte in P3[start:])


@pytest.mark.parametrize(
    "profile", [b"garbage" * 40, P3[:150], damaged(), damaged(200)], ids=["no", "cut", "tags", "?"]
)
def test_a_damaged_profile_is_said_at_both_ends(profile: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(RGB, icc_profile=profile))
    with pytest.raises(RefusedImageError, match=r"image has a colour profile that can't be used"):
        decode(path.read_bytes(), wanted(3))
    with pytest.raises(DataError, match=r"x\.png: its colour profile can't be used"):
        read_images([path], Size(SIDE, SIDE, 3), exact=True)


WIDTH, HEIGHT = 3000, 2000
BOUND = WIDTH * HEIGHT


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """A process of the server's, with memory for files of 6 million pixels."""
    made = Decoder(max_pixels=BOUND, timeout_s=60.0, num_processes=1)
    yield made
    made.shut_down()


def at_the_bound(kind: str) -> bytes:
    """A file of as many pixels as are allowed, with all that costs memory; it hardly compresses."""
    few = RNG.integers(0, 256, (40, 30, 4), np.uint8)
    image = Image.fromarray(np.tile(few, (HEIGHT // 40, WIDTH // 30, 1)))
    options: dict[str, Any] = {"icc_profile": P3, "exif": turned(6)}
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(image).astype(np.uint16))
        return buffer.getvalue()
    if kind == "CMYK":
        return saved(image.convert("RGB").convert("CMYK"), "JPEG", exif=turned(6))
    if kind in ("JPEG", "WEBP"):
        mode = "RGB" if kind == "JPEG" else "RGBA"
        return saved(image.convert(mode), kind, quality=30, method=0, **options)
    options |= {"compress_level": 0}
    if kind.startswith("I;16"):
        values = np.asarray(image.convert("L")).astype(np.uint16) * 257
        options |= {"transparency": 257} if kind == "I;16 key" else {}
        return saved(Image.fromarray(values), **options)
    return saved(image.convert(kind), **options)


@pytest.mark.parametrize(
    "kind",
    ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16 key", "JPEG", "CMYK", "WEBP", "npy"],
)
def test_memory_suffices_for_every_kind_of_pixels_at_the_bound(decoder: Decoder, kind: str) -> None:
    target = wanted(3, max_pixels=BOUND, alpha="mask")
    found = decoder.submit(at_the_bound(kind), target).result()
    assert found.pixels.shape == (SIDE, SIDE, 3)


def test_hostile_profiles_cost_no_process(decoder: Decoder) -> None:
    """Sizes and counts that lie, tags over each other, and noise: an answer each, one process."""
    rng = np.random.default_rng(1)
    decoder.submit(OPAQUE["rgb"], wanted(3)).result()
    process = decoder._idle[0]._process
    words = []
    for number in range(24):
        profile = bytearray(P3 if number % 2 else pictures.ink_profile())
        for _ in range(1 + number % 9):
            at = int(rng.integers(128, min(len(profile), 400)))
            profile[at : at + 4] = rng.choice([b"\xff" * 4, b"\0\0\0\1", rng.bytes(4)])
        kind = RGB if number % 2 else RGB.convert("CMYK")
        data = saved(kind, "JPEG", icc_profile=bytes(profile))
        try:
            decoder.submit(data, wanted(3)).result()
        except InvalidRequestProblem as error:
            words.append(error.detail)
    assert len(words) > 3
    assert all("image has a colour profile that can't be used" in each for each in words)
    assert decoder._idle[0]._process is process
    assert process.poll() is None


def test_strangers_profiles_fill_no_memory() -> None:
    """Transforms of large profiles aren't kept; those of small ones are, up to a number."""
    colour._transform.cache_clear()
    large = P3 + bytes(1 << 16)
    data = saved(RGB, icc_profile=large)
    assert np.array_equal(decode(data, wanted(3)).pixels, decode(OPAQUE["p3"], wanted(3)).pixels)
    kept = colour._transform.cache_info()
    assert kept.currsize == 1
    assert kept.maxsize is not None

"""HEIC, cameras' raw files, and files of hundreds of megapixels."""

import sys

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tests.training.data.decoding.pictures import picture, quarters, read, saved
from training.data import DataConfig, load
from training.data.audit import audit
from training.data.decoding import Skipped, unread_summary
from training.data.decoding.formats import HEIC, RAW
from training.errors import DataError

COLOURS = [[200, 60, 30], [40, 150, 90], [60, 70, 220], [250, 250, 250]]


@pytest.fixture
def heic(monkeypatch):
    """A HEIC file; Pillow doesn't read it any more where the package is hidden afterwards."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = saved(picture(COLOURS).resize((64, 64), 0), "HEIF", quality=100, chroma=444)
    ids, opened = list(Image.ID), dict(Image.OPEN)
    yield data
    Image.ID[:], Image.OPEN = ids, opened


def hide(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.OPEN.pop("HEIF", None)
    if "HEIF" in Image.ID:
        Image.ID.remove("HEIF")


def test_heic_with_the_package(heic):
    [(found, origin)] = read(heic)
    assert np.abs(found[1::2, 1::2] - quarters(COLOURS)[1::2, 1::2]).max() < 30
    assert origin.lost == ""


def test_heic_without_the_package_is_named_with_the_remedy(heic, monkeypatch, tmp_path):
    hide(monkeypatch)
    assert read(heic) == HEIC.reason
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(heic)  # by content, whatever the name
    config = DataConfig(
        dataset="folder", path=tmp_path, resolution=8, channels=3, conditional=False
    )
    with pytest.raises(DataError, match=r"3 files are not used.*pip install '\.\[heic\]'"):
        load(config)
    picture(COLOURS).save(tmp_path / "good.png")
    report = audit(load(config), "photos")
    assert report.counts == {"unsupported": 3}
    assert "note: 3 files are not used, HEIC can't be read here: run" in report.text()


def test_raw_files_are_named_not_their_thumbnails_used():
    thumbnail = saved(picture(COLOURS), "TIFF")
    for name in ("a/IMG_1.CR2", "b.nef", "c.ARW", "d.dng"):
        assert read(thumbnail, name=name) == RAW.reason
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[50706] = b"\1\4\0\0"
    assert read(saved(picture(COLOURS), "TIFF", tiffinfo=info), name="x.tif") == RAW.reason


def test_jpeg_xl():
    assert "JPEG XL" in read(b"\xff\x0a" + bytes(40))
    assert "JPEG XL" in read(b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(40))


def test_the_summary_counts():
    files = [Skipped(str(i), RAW.reason) for i in range(1200)] + [Skipped("x", "an empty file")]
    [line] = unread_summary(files)
    assert line.startswith("1,200 files are not used, a camera's raw file can't be read here: dev")
    assert unread_summary(files[-1:]) == []


def test_a_photograph_of_108_megapixels_is_decoded_at_an_eighth():
    data = saved(Image.new("L", (9000, 12000), 77), "JPEG")
    [(found, origin)] = read(data, channels=1)
    assert (found == 77).all()
    assert (origin.width, origin.height) == (9000, 12000)


def test_more_than_max_pixels():
    data = saved(Image.new("L", (100, 90)), "PNG")
    assert not isinstance(read(data, max_pixels=9000), str)
    for bound in (8999, 100):  # Pillow warns above its limit, and refuses at twice
        assert read(data, max_pixels=bound).startswith("9,000 pixels, where --data.max-pixels is")
    before = Image.MAX_IMAGE_PIXELS
    read(data, max_pixels=10)
    assert before == Image.MAX_IMAGE_PIXELS

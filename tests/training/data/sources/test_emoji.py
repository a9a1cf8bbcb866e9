"""The emoji of a font, here one of four pictures that is built for the test."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import DataConfig, load
from training.data.sources import emoji
from training.errors import DataError

COLOURS = {"u1F600": (255, 200, 0, 255), "u1F601": (0, 0, 0, 0), "u1F602": (9, 9, 200, 255)}


def png(colour, size=(17, 16)):
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def font(tmp_path):
    """A font of three colour bitmaps in two strikes, as Noto's: CBDT format 17."""
    builder_of = pytest.importorskip("fontTools.fontBuilder")
    bitmaps = pytest.importorskip("fontTools.ttLib.tables.C_B_D_T_")
    from fontTools.ttLib import newTable
    from fontTools.ttLib.tables._g_l_y_f import Glyph
    from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
    from fontTools.ttLib.tables.E_B_L_C_ import (
        BitmapSizeTable,
        SbitLineMetrics,
        Strike,
        eblc_index_sub_table_1,
    )

    builder = builder_of.FontBuilder(1024, isTTF=True)
    names = [".notdef", *COLOURS]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x1F600 + i: name for i, name in enumerate(COLOURS)})
    builder.setupGlyf({name: Glyph() for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1024, 0)))
    builder.setupHorizontalHeader()
    builder.setupPost()
    locations, data = newTable("CBLC"), newTable("CBDT")
    locations.version = data.version = 3.0
    locations.strikes, data.strikeData = [], []
    for ppem, size in ((20, (5, 4)), (109, (17, 16))):
        strike = Strike()
        table = strike.bitmapSizeTable = BitmapSizeTable()
        lines = SbitLineMetrics()
        for name in ("ascender", "descender", "widthMax", "caretSlopeNumerator"):
            setattr(lines, name, 0)
        for name in ("caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB"):
            setattr(lines, name, 0)
        for name in ("maxBeforeBL", "minAfterBL", "pad1", "pad2"):
            setattr(lines, name, 0)
        table.hori = table.vert = lines
        table.colorRef, table.startGlyphIndex, table.endGlyphIndex = 0, 1, 3
        table.ppemX = table.ppemY = ppem
        table.bitDepth, table.flags = 32, 1
        index = eblc_index_sub_table_1(None, None)
        index.names, index.indexFormat, index.imageFormat = list(COLOURS), 1, 17
        strike.indexSubTables = [index]
        locations.strikes.append(strike)
        pictures = {}
        for name, colour in COLOURS.items():
            glyph = pictures[name] = bitmaps.cbdt_bitmap_format_17(None, None)
            glyph.metrics = SmallGlyphMetrics()
            glyph.metrics.width, glyph.metrics.height = size
            glyph.metrics.BearingX = glyph.metrics.BearingY = glyph.metrics.Advance = 0
            glyph.imageData = png(colour, size)
        data.strikeData.append(pictures)
    builder.font["CBLC"], builder.font["CBDT"] = locations, data
    path = tmp_path / "NotoColorEmoji.ttf"
    builder.save(path)
    return path


def config(path, **options):
    defaults = {"resolution": 16, "channels": 4, "conditional": False}
    return DataConfig(dataset="emoji", path=path, **(defaults | options))


def test_the_largest_pictures_with_their_alpha(font):
    for path in (font, font.parent):
        image_set = load(config(path))
        assert image_set.skipped == ()
        assert [origin.name for origin in image_set.origins] == list(COLOURS)
        assert {(origin.width, origin.height) for origin in image_set.origins} == {(17, 16)}
        assert image_set.images[0, :, 8, 8].tolist() == [255, 200, 0, 255]
        assert (image_set.images[1, 3] == 0).all()


def test_on_a_background(font):
    image_set = load(config(font, channels=3, background="#010203"))
    assert image_set.images[1, :, 3, 3].tolist() == [1, 2, 3]


def test_missing_says_which_package(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "_PLACES", (tmp_path,))
    for path in (None, tmp_path):
        with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji"):
            load(config(path))
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", None)
    with pytest.raises(DataError, match=r"pip install '\.\[emoji\]'"):
        load(config(tmp_path))


def test_a_font_without_pictures_is_refused(font):
    whole = font.read_bytes()
    for content in (b"", b"no font", whole[:200], whole.replace(b"CBDT", b"XXXX")):
        font.write_bytes(content)
        with pytest.raises(DataError, match="no font with colour bitmaps"):
            load(config(font))


@pytest.mark.skipif(
    not any((place / emoji._FONT).is_file() for place in emoji._PLACES), reason="not installed"
)
def test_the_installed_font():
    image_set = load(config(None, resolution=8))
    assert len(image_set) > 3000
    assert image_set.skipped == ()
    assert {(o.width, o.height) for o in image_set.origins} == {(136, 128)}
    assert np.mean([origin.transparent for origin in image_set.origins]) > 0.9
    assert Path(emoji._FONT).suffix == ".ttf"

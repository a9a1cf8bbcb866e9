"""The dataset `emoji`: the pictures of Google's Noto Color Emoji, read from its font.

The font holds one PNG file of 136x128 pixels with transparency for each glyph, in its table CBDT
(OpenType 1.9: colour bitmap data). It is a package of most Linux distributions, under the SIL Open
Font License.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.decoding import Encoded
from training.data.sources.registry import ImageRequest, Raw, dataset, decoded
from training.errors import DataError

_FONT = "NotoColorEmoji.ttf"
_PLACES = (
    Path("/usr/share/fonts/truetype/noto"),  # Debian, Ubuntu
    Path("/usr/share/fonts/noto"),  # Arch
    Path("/usr/share/fonts/google-noto-emoji"),  # Fedora
    Path("/usr/share/fonts/google-noto-emoji-fonts"),
)


@dataset("emoji", labelled=False)
def emoji(request: ImageRequest) -> Raw:
    """About 3,900 emoji of 136x128 pixels with transparency; an installed font has them."""
    try:
        fonts: Any = importlib.import_module("fontTools.ttLib")
    except ImportError as error:
        raise DataError(
            "data.dataset is 'emoji': its font is read by the package fonttools; run "
            "`pip install '.[emoji]'` in Saddlepoint's source folder"
        ) from error
    path = _font(request)
    try:
        with path.open("rb") as file, fonts.TTFont(file, lazy=True) as font:
            encoded = list(_pictures(font))
    except Exception as error:  # fontTools raises almost anything for a damaged font
        raise DataError(
            f"{path}: no font with colour bitmaps (table CBDT) can be read from it "
            f"({type(error).__name__}: {error}); install Debian's package fonts-noto-color-emoji, "
            f"or give another {_FONT} with --data.path"
        ) from error
    return decoded(request, encoded, len(encoded), None)


def _font(request: ImageRequest) -> Path:
    """The font's file: what the user named, or the first place where it is installed."""
    places = (request.root,) if request.is_given else (request.root, *_PLACES)
    for place in places:
        path = place if place.is_file() else place / _FONT
        if path.is_file():
            return path
    raise DataError(
        f"data.dataset is 'emoji': {_FONT} is not in {', '.join(map(str, places))}; install "
        "Debian's package fonts-noto-color-emoji (`apt-get install fonts-noto-color-emoji`), or "
        "give the font or its folder with --data.path"
    )


def _pictures(font: Any) -> Iterator[Encoded]:
    """The PNG files of the largest strike, by the names of their glyphs."""
    strikes = font["CBDT"].strikeData
    sizes = [strike.bitmapSizeTable.ppemY for strike in font["CBLC"].strikes]
    strike = strikes[sizes.index(max(sizes))]
    for name in sorted(strike):
        yield Encoded(name, bytes(strike[name].imageData))

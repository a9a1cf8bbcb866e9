"""Turns a picture as its EXIF data say.

EXIF data are often malformed, and none of that is a reason to lose a photograph: what can't be read
is as if it were not there.
"""

from PIL import ExifTags, Image

_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_METHODS[number] for number in (5, 6, 7, 8))
_SAID_IN_INFO = ("PNG", "JPEG", "MPO", "WEBP")
_SOURCES = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def has_exif(image: Image.Image) -> bool:
    """False for an opened file that surely has neither EXIF nor XMP data: parsing takes time."""
    return image.format not in _SAID_IN_INFO or any(name in image.info for name in _SOURCES)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """The turn or reflection that an opened file's EXIF or XMP data ask for; None for none.

    Pillow turns TIFF files itself when it loads them, so that a loaded one asks for none.
    """
    if not has_exif(image):
        return None
    try:
        return _METHODS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # malformed EXIF data may raise anything
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened file once it is turned."""
    width, height = image.size
    return (height, width) if turn_of(image) in _SIDEWAYS else (width, height)


def load(image: Image.Image) -> None:
    """Loads the pixels, also where what follows them in the file is malformed.

    Raises:
        OSError: the pixels are damaged.
    """
    try:
        image.load()
    except OSError:
        raise
    except Exception:
        # Pillow reads a TIFF file's EXIF data after its pixels: then no tile is left to decode.
        if getattr(image, "tile", None):
            raise
        image.load()

"""From image files and arrays to uint8 pixels of one form, as a viewer shows them.

`decode` takes files, `fit` takes arrays, and a `Form` says what comes out. Files that can't be
decoded are reported. This package knows neither datasets nor where their files lie.
"""

from models.decoding.form import FITS, MAX_PIXELS, Fit, Form, Which
from training.data.decoding.formats import is_unread, unread_summary
from training.data.decoding.images import Decoded, Encoded, Origin, Packed, Pixels, Skipped
from training.data.decoding.memory import reserve
from training.data.decoding.parallel import decode, fit

__all__ = [
    "FITS",
    "MAX_PIXELS",
    "Decoded",
    "Encoded",
    "Fit",
    "Form",
    "Origin",
    "Packed",
    "Pixels",
    "Skipped",
    "Which",
    "decode",
    "fit",
    "is_unread",
    "reserve",
    "unread_summary",
]

"""Conditional requests for images that have a URL (RFC 9110, 8.8 and 13.1.2).

An image's ETag follows from what it is made of, so it is known before the image is made.
"""

import hashlib

from models.image_metadata import METADATA
from serving.encoding.cache import ImageKey
from serving.encoding.formats import ENCODERS


def lifetime(*, pinned: bool, public: bool) -> bytes:
    """Returns the value of Cache-Control.

    Args:
        pinned: the URL names a version, so its image can never change. Otherwise it changes when
            another version becomes current.
        public: every client may have the image, so shared caches may keep it.
    """
    who = b"public" if public else b"private"
    return who + (b", max-age=31536000, immutable" if pinned else b", no-cache")


def etag(key: ImageKey, *, described: bool) -> bytes:
    """Returns a strong entity tag: a hash of everything that the file's bytes depend on.

    described: whether the file says how it was made.
    """
    text = repr((ENCODERS, METADATA if described else 0, *key)).encode()
    return b'"%s"' % hashlib.sha256(text).hexdigest()[:32].encode("ascii")


def matches(if_none_match: bytes | None, tag: bytes) -> bool:
    """Returns whether the client has the image already; compares weakly, as If-None-Match does."""
    if if_none_match is None:
        return False
    held = [part.strip() for part in if_none_match.split(b",")]
    return b"*" in held or any(part.removeprefix(b"W/") == tag for part in held)

"""Validators of images that have a URL (RFC 9110, 8.8 and 13.1.2): known before they are made."""

import hashlib

from serving.cache import ImageKey
from serving.images import ENCODERS


def lifetime(*, pinned: bool, public: bool) -> bytes:
    """The value of Cache-Control.

    Args:
        pinned: a seed of a numbered version, which can never change; otherwise it does when another
            version becomes current.
        public: whoever asks may have it, so that caches may share it.
    """
    who = b"public" if public else b"private"
    return who + (b", max-age=31536000, immutable" if pinned else b", no-cache")


def etag(key: ImageKey) -> bytes:
    """A strong entity tag: everything that the file's bytes depend on, in 16 bytes."""
    text = repr((ENCODERS, *key)).encode()
    return b'"%s"' % hashlib.sha256(text).hexdigest()[:32].encode("ascii")


def matches(if_none_match: bytes | None, tag: bytes) -> bool:
    """True where the client holds the image already; compares weakly, as If-None-Match does."""
    if if_none_match is None:
        return False
    held = [part.strip() for part in if_none_match.split(b",")]
    return b"*" in held or any(part.removeprefix(b"W/") == tag for part in held)

"""Content negotiation by Accept (RFC 9110, 12.5.1): which of the media types on offer is wanted."""

import functools

from serving.errors import NotAcceptableProblem, quoted

ANY = (None, b"*/*")
"""Values of Accept that allow everything: the usual case, which needs no parsing."""

Range = tuple[str, str, float]  # type, subtype, weight
_KEPT_BYTES = 1 << 10


def choose(accept: bytes | None, offered: tuple[str, ...]) -> str:
    """Returns the media type to answer with.

    Args:
        accept: the header's value; None if it is absent.
        offered: the media types that can be given, the preferred one first.

    Raises:
        NotAcceptableProblem: the client accepts none of these.
    """
    if accept in ANY:
        return offered[0]
    accept = accept or b""
    # Long values are not cached: the cache must stay small, and ordinary clients send none.
    choice = _choose if len(accept) <= _KEPT_BYTES else _choose.__wrapped__
    chosen = choice(accept, offered)
    if chosen is None:
        raise NotAcceptableProblem(
            f"Accept is {quoted(accept)}, this request can be answered as {', '.join(offered)}; "
            "accept one of these, or change format or layout"
        )
    return chosen


def takes_coding(accept_encoding: str, coding: str) -> bool:
    """Whether a header Accept-Encoding names a coding, and not to refuse it."""
    for part in accept_encoding.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name == coding:
            return _quality(parameters) > 0
    return False


@functools.lru_cache(512)
def _choose(accept: bytes, offered: tuple[str, ...]) -> str | None:
    ranges = _parse(accept.decode("latin-1"))
    if not ranges:
        return offered[0]  # it can't be parsed: as if it were absent
    weights = [_weight(media_type, ranges) for media_type in offered]
    best = max(weights)
    return offered[weights.index(best)] if best > 0 else None


def _parse(accept: str) -> list[Range]:
    ranges = []
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind, slash, subtype = media_range.partition("/")
        if slash and kind and subtype:
            ranges.append((kind, subtype, _quality(parameters)))
    return ranges


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def _weight(media_type: str, ranges: list[Range]) -> float:
    """Returns the weight of the most specific range that covers a media type; 0 if none does."""
    kind, _, subtype = media_type.partition("/")
    best = (-1, 0.0)
    for range_kind, range_subtype, quality in ranges:
        if (range_kind, range_subtype) == (kind, subtype):
            best = max(best, (2, quality))
        elif (range_kind, range_subtype) == (kind, "*"):
            best = max(best, (1, quality))
        elif (range_kind, range_subtype) == ("*", "*"):
            best = max(best, (0, quality))
    return best[1]

"""The checks of the audit, each a small function from a set of images to findings.

The thresholds are the constants below; docs/data.md explains them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from torch import Tensor

from training.data import ImageSet
from training.data.audit import duplicates
from training.data.audit.report import KINDS, Finding, Report
from training.data.decoding import unread_summary
from training.data.decoding.file import NO_IMAGE
from training.data.decoding.formats import UNREAD
from training.data.file_names import printable

MAX_BITS = 5  # hashes of near duplicates differ in at most so many of 64 bits
MIN_CORRELATION = 0.99  # and their thumbnails correlate at least so much
FLAT = 2  # a flat image's channels span at most so many of 255 steps
FAINT = 32  # a faint image's channels span fewer steps than this
HALF_RANGE = 128  # a set is faint where its median image spans fewer steps than this
SIZE_FACTOR = 4.0  # largest ratio of an image's side to the median side
ASPECT_FACTOR = 2.0  # largest ratio of an aspect ratio to the median: half of the image is cut off
COMMON = 0.5  # other modes are findings where the commonest one has at least this share
IMBALANCE = 3.0  # largest ratio of the largest class to another

_TRUNCATED = ("truncated", "broken data stream", "unexpected end", "incomplete")
_UNPLACED = ("in no class", "no image of this class")  # `training.data.sources.folder`'s reasons


def audit(
    image_set: ImageSet, where: str, *, background: str = "grey", max_bits: int = MAX_BITS
) -> Report:
    """Checks every image of a set.

    Args:
        image_set: as loaded, on the CPU.
        where: the folder, for the report.
        background: the colour that was put behind transparent places, as it was given.
        max_bits: how many bits of near duplicates' hashes may differ, 0 .. 16.
    """
    span = _span(image_set.images)
    flat = span <= FLAT
    findings = [
        *_skipped(image_set),
        *_flat(image_set, flat),
        *_faint(image_set, span),
        *_sizes(image_set),
        *_modes(image_set),
        *_duplicates(image_set, flat, max_bits),
    ]
    classes = dict(sorted(Counter(image_set.classes or ()).items()))
    classes.pop("", None)
    classes = classes if len(classes) > 1 else {}
    findings += _imbalance(classes)
    order = list(KINDS)
    return Report(
        where=printable(where),
        width=image_set.shape.width,
        height=image_set.shape.height,
        num_usable=len(image_set),
        classes=classes,
        modes=dict(Counter(origin.mode for origin in image_set.origins).most_common()),
        sizes=dict(Counter((o.width, o.height) for o in image_set.origins).most_common()),
        notes=(
            *unread_summary(image_set.skipped),
            *_transparency(image_set, background),
            *_frames(image_set),
        ),
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
    )


def _transparency(image_set: ImageSet, background: str) -> Iterator[str]:
    """What became of transparent places, where any image has some."""
    num = sum(origin.transparent for origin in image_set.origins)
    if not num:
        return
    which = f"{num:,} of {len(image_set):,} images are transparent in places"
    if image_set.shape.channels == 4:
        yield f"{which}, which is kept as a fourth channel"
    else:
        yield (
            f"{which}, which lie on {background}; --data.background COLOUR sets another colour, "
            "--data.channels 4 keeps transparency"
        )


def _frames(image_set: ImageSet) -> Iterator[str]:
    """Which of several frames or pages are used, where any file has several."""
    several = [origin for origin in image_set.origins if origin.frame]
    if not several:
        return
    first = f"{several[0].name} ({several[0].frame})"
    if "," in several[0].frame:
        yield (
            f"{len(several):,} with several frames or pages, of which the middle frame or the "
            f"largest page is used: the first is {first}; --data.frames all uses all"
        )
    else:
        yield f"{len(several):,} images are frames or pages of files, such as {first}"


def _skipped(image_set: ImageSet) -> Iterator[Finding]:
    """Files that could not be used; those that are no images by their suffix are one finding."""
    foreign: Counter[str] = Counter()
    first = ""
    unread = {entry.reason for entry in UNREAD}
    for name, reason in ((skipped.name, skipped.reason) for skipped in image_set.skipped):
        suffix = PurePosixPath(name).suffix.lower()
        if reason == NO_IMAGE and suffix and suffix not in Image.registered_extensions():
            first = first or name
            foreign[suffix] += 1
            continue
        kind = "unreadable"
        if reason in unread:
            kind = "unsupported"
        elif any(text in reason.lower() for text in _TRUNCATED):
            kind = "truncated"
        elif any(text in reason for text in _UNPLACED):
            kind = "unplaced"
        yield Finding(kind=kind, name=name, detail=reason)
    if foreign:
        suffixes = ", ".join(f"{num:,} {suffix}" for suffix, num in foreign.most_common())
        files = f"{foreign.total():,} files" if foreign.total() > 1 else "1 file"
        yield Finding(kind="other-file", name=files, detail=f"{suffixes}; the first is {first}")


def _span(images: Tensor) -> np.ndarray:
    """Steps between the darkest and the brightest value, of the channel with the most, [N]."""
    values = images.flatten(2)
    spread = values.amax(2).int() - values.amin(2).int()
    span: np.ndarray = spread.amax(1).numpy()
    return span


def _flat(image_set: ImageSet, flat: np.ndarray) -> Iterator[Finding]:
    for i in np.flatnonzero(flat).tolist():
        colour = image_set.images[i].flatten(1).float().mean(1).round().int().tolist()
        yield _finding(image_set, "constant", i, f"all of it is {tuple(colour)}")


def _faint(image_set: ImageSet, span: np.ndarray) -> Iterator[Finding]:
    """Images of little contrast, and a whole set of little contrast (scaled wrongly, perhaps)."""
    pictures = span[span > FLAT]
    if len(pictures) and np.median(pictures) < HALF_RANGE:
        detail = f"half of them span {np.median(pictures):.0f} of 255 steps or less"
        yield Finding(kind="faint", name="the whole set", detail=detail)
    for i in np.flatnonzero((span > FLAT) & (span < FAINT)).tolist():
        values = image_set.images[i]
        detail = f"values from {values.amin()} to {values.amax()} of 0 to 255"
        yield _finding(image_set, "faint", i, detail)


def _sizes(image_set: ImageSet) -> Iterator[Finding]:
    """Images smaller than the resolution, and images far from the median size or shape."""
    if not image_set.origins:
        return
    sizes = np.array([(origin.width, origin.height) for origin in image_set.origins], np.float64)
    side, aspect = np.log(sizes.prod(1)) / 2, np.log(sizes[:, 0] / sizes[:, 1])
    far = abs(side - np.median(side)) > np.log(SIZE_FACTOR)
    # The absolute value, since portrait beside landscape is no fault.
    skewed = abs(abs(aspect) - np.median(abs(aspect))) > np.log(ASPECT_FACTOR)
    width, height = np.median(sizes, axis=0).astype(int)
    shape = image_set.shape
    least = np.array([shape.width, shape.height])
    for i in range(len(sizes)):
        text = f"{sizes[i, 0]:.0f}x{sizes[i, 1]:.0f}"
        if far[i] or skewed[i]:
            detail = f"{text}, where the median is {width}x{height}"
            yield _finding(image_set, "size", i, detail)
        if (sizes[i] < least).any():
            detail = f"{text}, enlarged to {shape.width}x{shape.height}"
            yield _finding(image_set, "upscaled", i, detail)


def _modes(image_set: ImageSet) -> Iterator[Finding]:
    """Images of another Pillow mode than most, and images that lose something when converted."""
    modes = Counter(origin.mode for origin in image_set.origins)
    if not modes:
        return
    commonest, num = modes.most_common(1)[0]
    rule = num >= COMMON * len(image_set)
    for i, origin in enumerate(image_set.origins):
        detail = origin.mode
        if rule and origin.mode != commonest:
            detail += f", where {num:,} of {len(image_set):,} are {commonest}"
        if origin.lost:
            detail += f": {origin.lost}"
        if detail != origin.mode:
            yield _finding(image_set, "mode", i, detail)


def _duplicates(image_set: ImageSet, flat: np.ndarray, max_bits: int) -> Iterator[Finding]:
    """Every image of a group of duplicates except the first one.

    Flat images are left out, since they resemble every other image of their colour. An image that
    was found by one search is left out of the next.
    """
    candidates = np.flatnonzero(~flat)
    images = image_set.images[candidates]
    number = 0
    single = np.ones(len(candidates), np.bool_)
    for group in duplicates.equal(images):
        single[group[1:]] = False
        yield from _group(image_set, "duplicate", candidates[group], number)
        number += 1
    kept = np.flatnonzero(single)
    for group in duplicates.alike(images[kept], max_bits=max_bits, min_correlation=MIN_CORRELATION):
        single[kept[group[1:]]] = False
        yield from _group(image_set, "near-duplicate", candidates[kept[group]], number)
        number += 1
    kept = np.flatnonzero(single)
    some = images[kept]
    for group in duplicates.mirrored(some, max_bits=max_bits, min_correlation=MIN_CORRELATION):
        yield from _group(image_set, "mirrored", candidates[kept[group]], number)
        number += 1


def _group(image_set: ImageSet, kind: str, group: np.ndarray, number: int) -> Iterator[Finding]:
    first = int(group[0])
    for i in group[1:].tolist():
        finding = _finding(image_set, kind, i, f"as {_name(image_set, first)}")
        yield replace(finding, group=number, twin=first)


def _imbalance(classes: dict[str, int]) -> list[Finding]:
    if not classes:
        return []
    largest = max(classes, key=lambda name: classes[name])
    return [
        Finding(
            kind="imbalance",
            name=name,
            detail=f"{num:,} images, {classes[largest] / num:.1f} times fewer than {largest}",
        )
        for name, num in classes.items()
        if num * IMBALANCE < classes[largest]
    ]


def _finding(image_set: ImageSet, kind: str, i: int, detail: str) -> Finding:
    return Finding(kind=kind, name=_name(image_set, i), detail=detail, index=i)


def _name(image_set: ImageSet, i: int) -> str:
    return image_set.origins[i].name if image_set.origins else f"image {i}"

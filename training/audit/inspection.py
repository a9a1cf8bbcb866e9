"""The audit itself: a set of images to findings, each check a small function.

Thresholds are in one place, below, and docs/data.md says them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from torch import Tensor

from training.audit import duplicates
from training.audit.report import KINDS, Finding, Report
from training.data import ImageSet
from training.decode import NO_IMAGE
from training.names import printable

MAX_BITS = 5  # of the 64 of a hash, for near duplicates
MIN_CORRELATION = 0.99  # of their thumbnails
FLAT = 2  # of 255 steps between the darkest and the brightest value of a channel
FAINT = 32  # of 255 such steps, below which an image hardly uses the range from black to white
HALF_RANGE = 128  # steps below which the set doesn't use most of it, where its median image's are
SIZE_FACTOR = 4.0  # between a side and the median side
ASPECT_FACTOR = 2.0  # between an aspect ratio and the median one: half of the picture is cut off
COMMON = 0.5  # share of the commonest mode from which on the others are findings
IMBALANCE = 3.0  # between the largest class and another

_TRUNCATED = ("truncated", "broken data stream", "unexpected end", "incomplete")
_UNPLACED = ("in no class", "no image of this class")


def audit(image_set: ImageSet, where: str, *, max_bits: int = MAX_BITS) -> Report:
    """Looks at every image.

    Args:
        image_set: as loaded, on the CPU.
        where: the folder, for the report.
        max_bits: how many bits of a near duplicate's hash may differ, 0 .. 16.
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
        resolution=image_set.shape.resolution,
        num_usable=len(image_set),
        classes=classes,
        modes=dict(Counter(origin.mode for origin in image_set.origins).most_common()),
        sizes=dict(Counter((o.width, o.height) for o in image_set.origins).most_common()),
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
    )


def _skipped(image_set: ImageSet) -> Iterator[Finding]:
    foreign: Counter[str] = Counter()
    first = ""
    for name, reason in ((skipped.name, skipped.reason) for skipped in image_set.skipped):
        suffix = PurePosixPath(name).suffix.lower()
        if reason == NO_IMAGE and suffix and suffix not in Image.registered_extensions():
            first = first or name
            foreign[suffix] += 1
            continue
        kind = "unreadable"
        if any(sign in reason.lower() for sign in _TRUNCATED):
            kind = "truncated"
        elif any(sign in reason for sign in _UNPLACED):
            kind = "unplaced"
        yield Finding(kind=kind, name=name, detail=reason)
    if foreign:
        told = ", ".join(f"{num:,} {suffix}" for suffix, num in foreign.most_common())
        files = f"{foreign.total():,} files" if foreign.total() > 1 else "1 file"
        yield Finding(kind="other-file", name=files, detail=f"{told}; the first is {first}")


def _span(images: Tensor) -> np.ndarray:
    """Steps between the darkest and the brightest value of an image's widest channel, [N]."""
    values = images.flatten(2)
    spread = values.amax(2).int() - values.amin(2).int()
    span: np.ndarray = spread.amax(1).numpy()
    return span


def _flat(image_set: ImageSet, flat: np.ndarray) -> Iterator[Finding]:
    for i in np.flatnonzero(flat).tolist():
        colour = image_set.images[i].flatten(1).float().mean(1).round().int().tolist()
        yield _finding(image_set, "constant", i, f"all of it is {tuple(colour)}")


def _faint(image_set: ImageSet, span: np.ndarray) -> Iterator[Finding]:
    """Images of hardly any contrast, and a set whose values were scaled wrongly as a whole."""
    pictures = span[span > FLAT]
    if len(pictures) and np.median(pictures) < HALF_RANGE:
        detail = f"half of them span {np.median(pictures):.0f} of 255 steps or less"
        yield Finding(kind="faint", name="the whole set", detail=detail)
    for i in np.flatnonzero((span > FLAT) & (span < FAINT)).tolist():
        values = image_set.images[i]
        detail = f"values from {values.amin()} to {values.amax()} of 0 to 255"
        yield _finding(image_set, "faint", i, detail)


def _sizes(image_set: ImageSet) -> Iterator[Finding]:
    """Those smaller than the resolution, and those far from the median size or shape."""
    if not image_set.origins:
        return
    sizes = np.array([(origin.width, origin.height) for origin in image_set.origins], np.float64)
    side, aspect = np.log(sizes.prod(1)) / 2, np.log(sizes[:, 0] / sizes[:, 1])
    far = abs(side - np.median(side)) > np.log(SIZE_FACTOR)
    # Taken without its direction: portrait beside landscape is nothing to find.
    skewed = abs(abs(aspect) - np.median(abs(aspect))) > np.log(ASPECT_FACTOR)
    width, height = np.median(sizes, axis=0).astype(int)
    resolution = image_set.shape.resolution
    for i in range(len(sizes)):
        text = f"{sizes[i, 0]:.0f}x{sizes[i, 1]:.0f}"
        if far[i] or skewed[i]:
            detail = f"{text}, where the median is {width}x{height}"
            yield _finding(image_set, "size", i, detail)
        if sizes[i].min() < resolution:
            detail = f"{text}, enlarged to {resolution}x{resolution}"
            yield _finding(image_set, "upscaled", i, detail)


def _modes(image_set: ImageSet) -> Iterator[Finding]:
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
    """Every image of a group but its first; flat ones are like all others of their colour."""
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

"""Finds duplicates: images equal in every pixel, almost the same pictures, and mirror images.

Two pictures are almost the same if their 64-bit difference hashes (dHash, Krawetz 2013) differ in
few bits and their thumbnails correlate; the second test is needed since flat pictures have similar
hashes. Hashes that differ in at most d bits are equal in at least one of d + 1 parts (pigeonhole),
so that only hashes with an equal part are compared. Time and memory therefore grow with the number
of images and not with its square, unless most of them look alike.
"""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

BITS = 64
_SIDE = 16
_CHUNK_SIZE = 2048

Index = npt.NDArray[np.int64]


def equal(images: Tensor) -> list[Index]:
    """Finds groups of images with the same pixels.

    images: [N, C, H, W] uint8. Returns the ascending indices of each group of two or more.
    """
    digests: dict[bytes, list[int]] = {}
    for i, image in enumerate(images.numpy()):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        digests.setdefault(digest, []).append(i)
    return [np.array(group) for group in digests.values() if len(group) > 1]


def alike(images: Tensor, *, max_bits: int, min_correlation: float) -> list[Index]:
    """Finds groups of images that are almost the same picture.

    Args:
        images: [N, C, H, W] uint8.
        max_bits: how many of the hash's 64 bits may differ, 0 .. 16.
        min_correlation: lowest correlation of the thumbnails' pixels.

    Returns:
        The ascending indices of each group of two or more; each member resembles the first one.

    Raises:
        ValueError: max_bits is out of range.
    """
    if not 0 <= max_bits <= 16:
        raise ValueError(f"max_bits is {max_bits}, allowed are 0 .. 16")
    if len(images) < 2:
        return []
    hashes, thumbnails = _sketch(images)
    distinct, inverse = np.unique(hashes, return_inverse=True)
    component = _components(distinct, max_bits)[inverse]
    groups = []
    for members in _partition(component):
        groups += list(_confirm(members, hashes, thumbnails, max_bits, min_correlation))
    return sorted(groups, key=lambda group: int(group[0]))


def mirrored(images: Tensor, *, max_bits: int, min_correlation: float) -> list[Index]:
    """Finds groups whose members are almost the mirror image of the group's first image.

    An image is in one group at most. Two symmetric pictures that are almost the same would be found
    here, too: leave out what `alike` finds. The arguments and the result are those of `alike`.
    """
    num = len(images)
    if num < 2:
        return []
    hashes, thumbnails = _sketch(images)
    turned_hashes, turned_thumbnails = _sketch(images, turned=True)
    distinct, inverse = np.unique(np.concatenate([hashes, turned_hashes]), return_inverse=True)
    component = _components(distinct, max_bits)[inverse]
    single = np.ones(num, np.bool_)
    groups = []
    for members in _partition(component):
        turned = members[members >= num] - num
        for first in members[members < num].tolist() if len(turned) else ():
            rest = turned[(turned > first) & single[turned]]
            near = np.bitwise_count(turned_hashes[rest] ^ hashes[first]) <= max_bits
            like = near & (turned_thumbnails[rest] @ thumbnails[first] >= min_correlation)
            if single[first] and like.any():
                single[rest[like]] = False
                groups.append(np.array([first, *rest[like]]))
    return sorted(groups, key=lambda group: int(group[0]))


def difference_hash(grey: Tensor) -> npt.NDArray[np.uint64]:
    """The 64-bit difference hash: for each of 8x8 places, is it darker than its right neighbour?

    grey: [N, 1, H, W] float32, any range. Returns [N].
    """
    small = interpolate(grey, (8, 9), mode="area")[:, 0]
    bits = (small[:, :, :-1] < small[:, :, 1:]).flatten(1).numpy()
    packed: npt.NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return packed


def _sketch(
    images: Tensor, *, turned: bool = False
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Hashes [N] and thumbnails [N, 256] of mean 0 and length 1; turned: of the mirror images."""
    hashes, thumbnails = [], []
    for start in range(0, len(images), _CHUNK_SIZE):
        some = images[start : start + _CHUNK_SIZE]
        grey = some.float().mean(1, keepdim=True)
        grey = grey.flip(3) if turned else grey
        hashes.append(difference_hash(grey))
        small = interpolate(grey, (_SIDE, _SIDE), mode="area").flatten(1)
        small = small - small.mean(1, keepdim=True)
        thumbnails.append(torch.nn.functional.normalize(small, dim=1).numpy())
    return np.concatenate(hashes), np.concatenate(thumbnails)


def _components(hashes: npt.NDArray[np.uint64], max_bits: int) -> Index:
    """Connected components of the graph whose edges join hashes at most max_bits apart.

    hashes: [N], no two equal. Returns a number for each hash, equal within a component.
    """
    root = np.arange(len(hashes))
    for a, b in _near(hashes, max_bits):
        _unite(root, a, b)
    return root


def _unite(root: Index, a: Index, b: Index) -> None:
    """Joins the components of a[i] and b[i], in place (union-find for all pairs at once).

    root[root] == root holds before and after.
    """
    while (apart := root[a] != root[b]).any():
        a, b = a[apart], b[apart]
        # Several pairs may have one root: each takes the smallest, and the loop repeats the others.
        np.minimum.at(root, np.maximum(root[a], root[b]), np.minimum(root[a], root[b]))
        while (root[root] != root).any():
            root[:] = root[root]


def _near(hashes: npt.NDArray[np.uint64], max_bits: int) -> Iterator[tuple[Index, Index]]:
    """Pairs of indices whose hashes differ in at most max_bits, in chunks; some come twice."""
    bounds = np.linspace(0, BITS, max_bits + 2).astype(int).tolist()
    for low, high in itertools.pairwise(bounds):
        mask = np.uint64((1 << high) - (1 << low))
        for bucket in _partition(hashes & mask):
            for start in range(0, len(bucket), _CHUNK_SIZE):
                some = bucket[start : start + _CHUNK_SIZE]
                for other in range(start, len(bucket), _CHUNK_SIZE):
                    rest = bucket[other : other + _CHUNK_SIZE]
                    differ = np.bitwise_count(hashes[some][:, None] ^ hashes[rest])
                    a, b = np.nonzero(differ <= max_bits)
                    yield some[a], rest[b]


def _partition(keys: npt.NDArray[np.generic]) -> Iterator[Index]:
    """The ascending indices of each key that occurs at least twice."""
    order = np.argsort(keys, kind="stable")
    borders = np.flatnonzero(np.diff(keys[order].astype(np.uint64))) + 1
    for start, end in zip([0, *borders], [*borders, len(order)], strict=True):
        if end - start > 1:
            yield order[start:end]


def _confirm(
    members: Index,
    hashes: npt.NDArray[np.uint64],
    thumbnails: npt.NDArray[np.float32],
    max_bits: int,
    min_correlation: float,
) -> Iterator[Index]:
    """Splits candidates into groups whose members resemble the first, which has the lowest index.

    A component may be a long chain of pictures whose ends have little in common.
    """
    rest = members
    while len(rest) > 1:
        first = rest[0]
        near = np.bitwise_count(hashes[rest] ^ hashes[first]) <= max_bits
        like = near & (thumbnails[rest] @ thumbnails[first] >= min_correlation)
        like[0] = True  # itself
        if like.sum() > 1:
            yield rest[like]
        rest = rest[~like]

"""Images that are there twice: equal in every pixel, almost the same picture, or its mirror image.

Almost: a 64-bit difference hash that differs in few bits (dHash, Krawetz 2013), confirmed by the
correlation of small thumbnails, since flat pictures have hashes alike. Hashes within d bits of each
other are equal in at least one of d + 1 parts (pigeonhole), so only those that share a part are
compared: what is needed grows with the number of images, not with its square, unless most of them
look alike.
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
_AT_A_TIME = 2048

Index = npt.NDArray[np.int64]


def equal(images: Tensor) -> list[Index]:
    """Groups of images with the same pixels.

    images: [N, C, H, W] uint8. Returns indices, ascending, of each group of two or more.
    """
    digests: dict[bytes, list[int]] = {}
    for i, image in enumerate(images.numpy()):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        digests.setdefault(digest, []).append(i)
    return [np.array(group) for group in digests.values() if len(group) > 1]


def alike(images: Tensor, *, max_bits: int, min_correlation: float) -> list[Index]:
    """Groups of images that are almost the same picture.

    Args:
        images: [N, C, H, W] uint8.
        max_bits: how many of the hash's 64 bits may differ, 0 .. 16.
        min_correlation: of the thumbnails' pixels, at least.

    Returns:
        Indices, ascending, of each group of two or more; each member is like the group's first.
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
    """Groups of images whose others are almost the first as a mirror shows it; as `alike`.

    An image is in one group at most. Pictures that are symmetric, and alike, would be found too:
    leave out what `alike` finds.
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
    """One bit for each of 8x8 places: is the picture darker than one step to the right?

    grey: [N, 1, H, W] float32, any range. Returns [N].
    """
    small = interpolate(grey, (8, 9), mode="area")[:, 0]
    bits = (small[:, :, :-1] < small[:, :, 1:]).flatten(1).numpy()
    packed: npt.NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return packed


def _sketch(
    images: Tensor, *, turned: bool = False
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Hashes [N], and thumbnails [N, 256] of mean 0 and length 1; turned: of the mirror images."""
    hashes, thumbnails = [], []
    for start in range(0, len(images), _AT_A_TIME):
        some = images[start : start + _AT_A_TIME]
        grey = some.float().mean(1, keepdim=True)
        grey = grey.flip(3) if turned else grey
        hashes.append(difference_hash(grey))
        small = interpolate(grey, (_SIDE, _SIDE), mode="area").flatten(1)
        small = small - small.mean(1, keepdim=True)
        thumbnails.append(torch.nn.functional.normalize(small, dim=1).numpy())
    return np.concatenate(hashes), np.concatenate(thumbnails)


def _components(hashes: npt.NDArray[np.uint64], max_bits: int) -> Index:
    """A number for each of the distinct hashes: the same for those that a chain of near ones joins.

    hashes: [N], no two equal.
    """
    root = np.arange(len(hashes))
    for a, b in _near(hashes, max_bits):
        _unite(root, a, b)
    return root


def _unite(root: Index, a: Index, b: Index) -> None:
    """Gives a[i] and b[i] one root, in place; root[root] == root before and after."""
    while (apart := root[a] != root[b]).any():
        a, b = a[apart], b[apart]
        np.minimum.at(root, np.maximum(root[a], root[b]), np.minimum(root[a], root[b]))
        while (root[root] != root).any():
            root[:] = root[root]


def _near(hashes: npt.NDArray[np.uint64], max_bits: int) -> Iterator[tuple[Index, Index]]:
    """Pairs of indices whose hashes differ in at most max_bits, in portions, some of them twice."""
    bounds = np.linspace(0, BITS, max_bits + 2).astype(int).tolist()
    for low, high in itertools.pairwise(bounds):
        mask = np.uint64((1 << high) - (1 << low))
        for bucket in _partition(hashes & mask):
            for start in range(0, len(bucket), _AT_A_TIME):
                some = bucket[start : start + _AT_A_TIME]
                for other in range(start, len(bucket), _AT_A_TIME):
                    rest = bucket[other : other + _AT_A_TIME]
                    differ = np.bitwise_count(hashes[some][:, None] ^ hashes[rest])
                    a, b = np.nonzero(differ <= max_bits)
                    yield some[a], rest[b]


def _partition(keys: npt.NDArray[np.generic]) -> Iterator[Index]:
    """Indices of equal keys, ascending, where there are at least two."""
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
    """Splits candidates into groups whose members are each like the first, the lowest index."""
    rest = members
    while len(rest) > 1:
        first = rest[0]
        near = np.bitwise_count(hashes[rest] ^ hashes[first]) <= max_bits
        like = near & (thumbnails[rest] @ thumbnails[first] >= min_correlation)
        like[0] = True  # itself
        if like.sum() > 1:
            yield rest[like]
        rest = rest[~like]

"""Concepts that can be measured on an image: its shape, its colours, what a classifier says.

A shape is measured on ink: how far a pixel lies from the background, which is what most of the
border shows. No threshold is set, so each measure is a smooth function of the pixels. After
Morpho-MNIST (Castro et al. 2019), whose measures need a skeleton; here the outline stands for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.data import ImageSet

Images = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
Concept = Callable[[Images], Values]
"""Images [N, H, W, C] uint8 to a number each, [N]."""

MIN_ACCURACY = 0.8
"""Of a classifier on images that it has not seen; below it, its logits are no evidence."""
_MAX_IMAGES = 2000
_MAX_SIDE = 16
_MAX_CLASSES = 64
_CHUNK_VALUES = 2**24  # that are made float at a time


def measure(images: Images, classes: Mapping[str, Concept]) -> dict[str, Values]:
    """Measures every concept on images [N, H, W, C] uint8; classes: from `class_logits`."""
    found = {**shapes(ink(images)), **colours(images)}
    return found | {name: concept(images) for name, concept in classes.items()}


def names_of(channels: int, classes: Mapping[str, Concept]) -> tuple[str, ...]:
    """The concepts that `measure` gives, in its order. channels: 1, 3 or 4."""
    return (*measure(np.zeros((1, 4, 4, channels), np.uint8), {}), *classes)


def grey(images: Images) -> Values:
    """Brightness of each pixel in [0, 1], [N, H, W]: ITU-R BT.601 of RGB."""
    values = images.astype(np.float64) / 255
    if images.shape[3] == 1:
        return values[..., 0]
    luma: Values = values[..., :3] @ np.array([0.299, 0.587, 0.114])
    return luma


def ink(images: Images) -> Values:
    """How far each pixel lies from the background, in [0, 1], [N, H, W]; alpha where there is any.

    The background is the median of the image's border.
    """
    if images.shape[3] == 4:
        alpha: Values = images[..., 3].astype(np.float64) / 255
        return alpha
    values = grey(images)
    border = [values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]]
    background = np.median(np.concatenate(border, axis=1), axis=1)
    distance: Values = np.abs(values - background[:, None, None])
    return distance


def shapes(mask: Values) -> dict[str, Values]:
    """Measures of a shape [N, H, W] in [0, 1]; lengths are in pixels.

    thickness is twice the area by the outline, length half the outline: those of a stroke. slant
    is how far it leans to the right for each pixel upwards. Without ink all are 0.
    """
    height, width = mask.shape[1:]
    area = mask.sum((1, 2))
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(padded, axis=1)[:, :, :-1], np.diff(padded, axis=2)[:, :-1]
    outline = np.sqrt(down**2 + right**2).sum((1, 2))
    y, x = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    center_y, center_x = _ratio((mask.sum(2) @ y), area), _ratio((mask.sum(1) @ x), area)
    dy, dx = y[None] - center_y[:, None], x[None] - center_x[:, None]
    yy = _ratio((mask.sum(2) * dy**2).sum(1), area)
    xx = _ratio((mask.sum(1) * dx**2).sum(1), area)
    yx = _ratio(np.einsum("nyx,ny,nx->n", mask, dy, dx), area)
    half = mask.sum(2), mask.sum(1)
    return {
        "area": area,
        "thickness": _ratio(2 * area, outline),
        "length": outline / 2,
        "slant": _ratio(-yx, yy),
        "width": np.sqrt(xx),
        "height": np.sqrt(yy),
        "position to the right": center_x,
        "position upwards": -center_y,
        "ink in the upper half": _ratio(half[0][:, : height // 2].sum(1), area),
        "ink in the left half": _ratio(half[1][:, : width // 2].sum(1), area),
    }


def colours(images: Images) -> dict[str, Values]:
    """Brightness, contrast and, of RGB, saturation and warmth: red less blue. Means over pixels."""
    values = grey(images)
    found = {"brightness": values.mean((1, 2)), "contrast": values.std((1, 2))}
    if images.shape[3] > 1:
        rgb = images[..., :3].astype(np.float64) / 255
        found["saturation"] = (rgb.max(3) - rgb.min(3)).mean((1, 2))
        found["warmth"] = (rgb[..., 0] - rgb[..., 2]).mean((1, 2))
    return found


def class_logits(image_set: ImageSet) -> dict[str, Concept]:
    """How much an image looks like each class, as a linear classifier of small pixels says.

    Empty where the data has no classes or too many, or where the classifier, on a third of the
    images that it has not seen, is right in less than MIN_ACCURACY of them.
    """
    names = image_set.label_names
    if names is None or image_set.labels is None or not 2 <= len(names) <= _MAX_CLASSES:
        return {}
    from sklearn.linear_model import LogisticRegression  # slow to import

    some = image_set.subset(_MAX_IMAGES)
    assert some.labels is not None
    images = some.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    pixels, labels = _small(images), some.labels.cpu().numpy()
    is_held_out = np.arange(len(pixels)) % 3 == 0
    if len(np.unique(labels[~is_held_out])) < len(names):
        return {}
    model = LogisticRegression(C=0.1, max_iter=300)
    model.fit(pixels[~is_held_out], labels[~is_held_out])
    if model.score(pixels[is_held_out], labels[is_held_out]) < MIN_ACCURACY:
        return {}
    weight, bias = model.coef_, model.intercept_
    if len(names) == 2:
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    return {f"like {_word(name)}": _Logit(weight[i], bias[i]) for i, name in enumerate(names)}


class _Logit:
    """One output of a linear classifier."""

    def __init__(self, weight: Values, bias: float) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, images: Images) -> Values:
        found: Values = _small(images) @ self._weight + self._bias
        return found


def _small(images: Images) -> Values:
    """Pixels [N, F] in [0, 1], averaged down to _MAX_SIDE a side at most."""
    size = max(1, _CHUNK_VALUES // math.prod(images.shape[1:]))
    parts = [_averaged(images[i : i + size]) for i in range(0, len(images), size)]
    return np.concatenate(parts)


def _averaged(images: Images) -> Values:
    num, height, width, channels = images.shape
    factor = -(-max(height, width) // _MAX_SIDE)
    rows, columns = max(1, height // factor), max(1, width // factor)
    values = images.astype(np.float64) / 255
    if factor > 1 and min(height, width) >= factor:
        values = values[:, : rows * factor, : columns * factor]
        values = values.reshape(num, rows, factor, columns, factor, channels).mean((2, 4))
    return values.reshape(num, -1)


def _ratio(above: Values, below: Values) -> Values:
    """Above / below; 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-9)


def _word(name: str) -> str:
    """A class's name without the signs that separate directions in a request."""
    return "".join(" " if sign in ":,&=\n" else sign for sign in name)[:60]


def spearman(amounts: Values, values: Sequence[Values]) -> Values:
    """Spearman's rank correlation of amounts [N] with M measures of [N] each: [M].

    0 for a measure that is the same for all images.
    """
    ranks = _ranks(amounts)
    found = np.zeros(len(values))
    for i, each in enumerate(values):
        other = _ranks(each)
        if other.std() > 0 and ranks.std() > 0:
            found[i] = np.corrcoef(ranks, other)[0, 1]
    return found


def _ranks(values: Values) -> Values:
    """Ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2)[inverse]
    return ranks

"""Finds the directions of a generator, what they change, and names where the evidence allows.

Any family: eigenvectors of E[J^T J] in z, shared over the classes of a conditional model and of
each class. Where there is a mapping network also in w: those of the style layers' weights (SeFa,
Shen and Zhou 2021, eq. 5) and of w's covariance (GANSpace, Haerkoenen et al. 2020).

A direction is where the pixels move most, not what an image means: a name is given only where a
measured concept follows the amount, over many images, with a rank correlation above MIN_EVIDENCE.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bundle.directions import (
    OF_CLASS,
    SHARED,
    Directions,
    DirectionSet,
    Floats,
    GoldenSteps,
)
from models.bundle.generator import Generate, Images
from models.latents import latents
from models.networks import Mapped
from training.export.onnx_graphs import to_bytes
from training.interpretation.concepts import Concept, measure, names_of, spearman
from training.interpretation.jacobian import (
    Eigen,
    Make,
    eigen,
    num_latents,
    pixel_change,
    pooled,
    second_moment,
)
from training.interpretation.style_directions import pca, sefa

NUM = 16
"""Directions of a set that are kept; 4 of each class."""
MIN_EVIDENCE = 0.6
"""The least |Spearman correlation| of a concept that names a direction."""
MAX_CLASSES = 32
"""Models of more classes have shared directions only."""
_OF_CLASS = 4
_RANGE = 2.0  # units either way in which the evidence is measured
_AMOUNTS = np.array([-3, -2, -1, 0, 1, 2, 3], np.float32)
_FIRST_SEED = 2**32  # beside the seeds that people look at
_MOST_IMAGES, _LEAST_IMAGES, _IMAGE_WORK = 512, 64, 2**22  # a direction's; pixels
_PICTURE_SIDE = 64
_BATCH_PIXELS = 2**22
_GOLDEN_SEEDS = 4


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A generator whose directions are looked for."""

    G: nn.Module
    """(z, label or None) to images in [-1, 1]; in evaluation mode, on any device."""
    z_dim: int
    num_classes: int
    classes: Mapping[str, Concept]
    """Concepts that only this data has, from `class_logits`."""

    def seeds(self, num: int) -> npt.NDArray[np.uint64]:
        """Seeds that nothing else uses."""
        return np.arange(_FIRST_SEED, _FIRST_SEED + num, dtype=np.uint64)

    def z(self, num: int) -> Tensor:
        """Latents [num, z_dim] on the generator's device, of its type."""
        some = next(self.G.parameters())
        return torch.from_numpy(latents(self.seeds(num), self.z_dim)).to(some.device, some.dtype)

    def labels(self, num: int, of_class: int | None = None) -> Tensor | None:
        """[num] labels in turn, or all of one class; None where the model takes none."""
        if not self.num_classes:
            return None
        place = next(self.G.parameters()).device
        if of_class is not None:
            return torch.full((num,), of_class, device=place)
        return torch.arange(num, device=place) % self.num_classes


def find_directions(
    subject: Subject, generate: Generate, *, num: int = NUM, latents_each: int | None = None
) -> Directions:
    """Finds directions, measures them, and makes their golden images.

    Args:
        subject: the generator.
        generate: the exported model, for golden images.
        num: the most directions of a set, at least 1.
        latents_each: latents that E[J^T J] is a mean over; by default 256, fewer of large images.
    """
    search = _Search(subject, num, latents_each)
    sets, moments = {}, None
    if 0 < subject.num_classes <= MAX_CLASSES:
        sets[OF_CLASS], moments = search.of_classes()
    sets = {SHARED: search.shared(moments), **sets, **search.in_w()}
    channels = search.spread.channels
    return Directions(
        sets=sets,
        concepts=names_of(channels, subject.classes),
        amounts=_AMOUNTS,
        golden=_golden(subject, sets[SHARED], generate),
        protocol={
            "latents": search.num_latents,
            "images": search.num_images,
            "largest amount of the evidence": _RANGE,
            "pixel standard deviation": search.spread.sigma,
        },
    )


@dataclass(frozen=True)
class _Spread:
    """What the images of a generator look like, and how much their pixels vary."""

    shape: tuple[int, int, int]
    """Channels, height, width."""
    sigma: float
    """The pixels' standard deviation over the latents of a class, root mean square."""
    num_pooled: int
    """Values of an image as `pooled` leaves it."""

    @property
    def channels(self) -> int:
        return self.shape[0]


class _Search:
    """One search: its numbers of latents and images, and the sets."""

    def __init__(self, subject: Subject, num: int, latents_each: int | None) -> None:
        self._subject = subject
        self._num = num
        self.spread = _spread(subject)
        num_pixels = math.prod(self.spread.shape)
        found = latents_each or num_latents(subject.z_dim, self.spread.num_pooled)
        each = max(1, subject.num_classes) if subject.num_classes <= MAX_CLASSES else 1
        self._of_class = max(min(found, 16), found // each)
        self.num_latents = self._of_class * each if subject.num_classes else found
        few = max(_LEAST_IMAGES, min(_MOST_IMAGES, _IMAGE_WORK // num_pixels))
        self.num_images = min(few, max(_LEAST_IMAGES, 2 * found))

    def of_classes(self) -> tuple[DirectionSet, list[Tensor]]:
        """The set of each class's own directions, and the classes' E[J^T J]."""
        subject, moments, sets = self._subject, [], []
        for label in range(subject.num_classes):
            labels = subject.labels(self._of_class, label)
            moments.append(second_moment(subject.G, subject.z(self._of_class), labels))
            found = eigen(moments[-1], min(_OF_CLASS, self._num))
            sets.append(self._measured(subject.G, found, self._lengths(found.values), label))
        few = min(each.num for each in sets)
        joined = {
            name: np.stack([getattr(each, name)[:few] for each in sets])
            for name in ("steps", "eigenvalues", "names", "evidence", "pictures")
        }
        return DirectionSet(**joined), moments

    def shared(self, moments: Sequence[Tensor] | None) -> DirectionSet:
        """The set of all classes. moments: of each class, where they are known."""
        subject, num = self._subject, self.num_latents
        if moments is None:
            moment = second_moment(subject.G, subject.z(num), subject.labels(num))
        else:
            moment = torch.stack(list(moments)).mean(0)
        found = eigen(moment, self._num)
        return self._measured(subject.G, found, self._lengths(found.values))

    def in_w(self) -> dict[str, DirectionSet]:
        """The sets of a model with a mapping network; no others have any."""
        G, subject = self._subject.G, self._subject
        if not isinstance(G, Mapped):
            return {}
        mapping, synthesis = G.mapping, G.synthesis

        def make(w: Tensor, label: Tensor | None) -> Tensor:
            img: Tensor = synthesis(w)
            return img

        with torch.no_grad():
            w = mapping(subject.z(self.num_latents), subject.labels(self.num_latents))
        sets = {}
        for name, found in (
            ("sefa", sefa(synthesis, w.shape[1], self._num)),
            ("pca", pca(mapping, subject.z(4096), subject.labels(4096), self._num)),
        ):
            change = pixel_change(make, w, found.vectors.to(w), None)
            sets[name] = self._measured(make, found, self._lengths(change), through=mapping)
        return sets

    def _lengths(self, change: Tensor) -> Tensor:
        """The length of one unit. change: E|J u|^2 of the directions u of length 1."""
        whole = self.spread.sigma * math.sqrt(self.spread.num_pooled)
        return whole / change.clamp(min=1e-12).sqrt()

    def _measured(
        self,
        make: Make,
        found: Eigen,
        lengths: Tensor,
        of_class: int | None = None,
        through: nn.Module | None = None,
    ) -> DirectionSet:
        """Measures directions on images. through: a mapping network between z and their space."""
        # A unit longer than a latent leads to where the model never was; one is always kept.
        dim = self._subject.z_dim
        kept = max(1, int((lengths <= math.sqrt(dim)).sum())) if through is None else len(lengths)
        vectors = found.vectors[:kept] * lengths[:kept, None]
        rng = np.random.default_rng(0)
        amounts = rng.uniform(-_RANGE, _RANGE, self.num_images)
        evidence, pictures = [], []
        for step in vectors:
            images = self._images(make, step, amounts, of_class, through)
            values = list(measure(images, self._subject.classes).values())
            evidence.append(spearman(amounts, values))
            one = self._images(make, step, _AMOUNTS, of_class, through, same=True)
            pictures.append(_reduced(one))
        rho = np.array(evidence)
        concepts = names_of(self.spread.channels, self._subject.classes)
        names, signs = name(rho, concepts)
        for i in np.flatnonzero(signs < 0):  # so that more of a named direction is more of its name
            pictures[i] = pictures[i][::-1]
        return DirectionSet(
            steps=(vectors.cpu().double().numpy() * signs[:, None]).astype(np.float32),
            eigenvalues=found.values[:kept].numpy().astype(np.float32),
            names=np.array(names, np.str_),
            evidence=(rho * signs[:, None]).astype(np.float32),
            pictures=np.stack(pictures),
        )

    @torch.no_grad()
    def _images(
        self,
        make: Make,
        step: Tensor,
        amounts: npt.NDArray[np.floating],
        of_class: int | None,
        through: nn.Module | None,
        *,
        same: bool = False,
    ) -> Images:
        """An image [N, H, W, C] for each amount; same: all of the first seed."""
        subject, num = self._subject, len(amounts)
        z, label = subject.z(num), subject.labels(num, of_class)
        if same:
            z = z[:1].expand(num, -1)
            label = None if label is None else label[:1].expand(num)
        at = z if through is None else through(z, label)
        at = at + torch.from_numpy(np.asarray(amounts, np.float64)).to(at)[:, None] * step.to(at)
        size = max(1, _BATCH_PIXELS // math.prod(self.spread.shape))
        parts = [
            to_bytes(make(at[i : i + size], None if label is None else label[i : i + size]))
            for i in range(0, num, size)
        ]
        images: Images = torch.cat(parts).cpu().numpy()
        return images


def name(rho: npt.NDArray[np.floating], concepts: Sequence[str]) -> tuple[list[str], Floats]:
    """Names directions by what follows them; rho [K, M]: each concept's correlation.

    A name is given once, to the direction that it fits best. Others, and those that nothing follows
    by more than MIN_EVIDENCE, have none.

    Returns:
        K names, and K signs: -1 where the concept falls as the amount rises.
    """
    names, signs = [""] * len(rho), np.ones(len(rho), np.float32)
    for flat in np.argsort(-np.abs(rho), axis=None, kind="stable"):
        row, column = divmod(int(flat), len(concepts))
        if not abs(rho[row, column]) > MIN_EVIDENCE:
            break
        if not names[row] and concepts[column] not in names:
            names[row], signs[row] = concepts[column], np.sign(rho[row, column])
    return names, signs


@torch.no_grad()
def _spread(subject: Subject) -> _Spread:
    num = 256
    z, variance = subject.z(num), []
    for label in range(min(max(1, subject.num_classes), MAX_CLASSES)):
        labels = subject.labels(num, label) if subject.num_classes else None
        one = subject.G(z[:1], None if labels is None else labels[:1])
        size = max(1, _BATCH_PIXELS // one.numel())
        parts = [
            pooled(subject.G(z[i : i + size], None if labels is None else labels[i : i + size]))
            for i in range(0, num, size)
        ]
        variance.append(torch.cat(parts).double().var(0, correction=0).mean())
    shape = (one.shape[1], one.shape[2], one.shape[3])
    sigma = float(torch.stack(variance).mean().sqrt())
    return _Spread(shape, sigma, pooled(one).numel())


def _golden(subject: Subject, shared: DirectionSet, generate: Generate) -> GoldenSteps:
    """Seeds 0, 1, 2 ..., each one unit along the direction of its number, in turn."""
    seeds = np.arange(_GOLDEN_SEEDS, dtype=np.uint64)
    amounts = np.zeros((len(seeds), shared.num), np.float32)
    amounts[np.arange(len(seeds)), np.arange(len(seeds)) % shared.num] = 1
    z = latents(seeds, subject.z_dim)
    z += (amounts.astype(np.float64) @ shared.steps).astype(np.float32)
    num = np.uint64(max(1, subject.num_classes))
    labels = (seeds % num).astype(np.int64) if subject.num_classes else None
    images = generate(z, labels, np.ones(len(z), np.float32))
    return GoldenSteps(seeds=seeds, labels=labels, amounts=amounts, images=images)


def _reduced(images: Images) -> Images:
    """Images [N, H, W, C] averaged down to _PICTURE_SIDE a side at most."""
    factor = -(-max(images.shape[1:3]) // _PICTURE_SIDE)
    if factor == 1:
        return images
    img = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    small = functional.avg_pool2d(img, factor, ceil_mode=True).round().byte()
    reduced: Images = small.permute(0, 2, 3, 1).numpy()
    return reduced

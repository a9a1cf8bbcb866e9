"""What is to be made: everything that the files' bytes depend on, and nothing else.

A plan's digest names its files and stands for it: two runs with the same plan give the same bytes,
however many workers made them and wherever. So neither workers nor paths are part of it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.manifest import ImageSpec
from serving.bulk.labels import LabelRule
from serving.bulk.seeds import Range, Seeds, expand

SCHEMA_VERSION = 1
_MAX_WRITTEN_RANGES = 1000

Device = Literal["cpu", "cuda"]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The content of plan.json."""

    schema_version: int
    model: str
    version: int
    bundle_digest: str
    image: ImageSpec
    class_names: tuple[str, ...]
    """Of a conditional model; else empty."""
    num_images: int
    seeds: tuple[str, ...]
    """The ranges, or nothing where they are too many to write down."""
    seeds_sha256: str
    labels: LabelRule | None
    truncation: float
    format: str
    """Of the shards: folder, tar, parquet or npy."""
    image_format: str
    """Of each image: png, jpeg or webp; empty for npy."""
    shard_images: int
    batch_rows: int
    """Rows of every run of the model; the last batch of a shard is padded to it."""
    device: Device
    """Processors round differently, so a plan begun on one kind is finished on it."""
    encoders: int
    """Version of what makes the bytes of images and shards."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(encode(self)).hexdigest()

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        return -(-self.num_images // self.shard_images)

    def size_of(self, index: int) -> int:
        """Images of a shard."""
        return min(self.shard_images, self.num_images - index * self.shard_images)

    def shard_name(self, index: int) -> str:
        """Name of a shard's files without their suffix."""
        width = max(5, len(str(self.num_shards - 1)))
        return f"{self.model}-{self.digest[:12]}-{index:0{width}d}"


@dataclass(frozen=True)
class Shard:
    """A piece of work: which images. It is what travels to a worker."""

    index: int
    ranges: tuple[Range, ...]
    listed: tuple[int, ...] | None = None
    """A label for each seed, where the plan's rule is `listed`."""

    def seeds(self) -> npt.NDArray[np.uint64]:
        """Its seeds, [N] uint64."""
        return expand(self.ranges)

    def labels(
        self, rule: LabelRule | None, seeds: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64] | None:
        """A label for each of its seeds, [N] int64; None where the model takes none."""
        if rule is None:
            return None
        return rule.of(seeds) if self.listed is None else np.array(self.listed, np.int64)


def shards(plan: Plan, seeds: Seeds, listed: npt.NDArray[np.int64] | None) -> Iterator[Shard]:
    """The shards of a plan, one after the other."""
    for index in range(plan.num_shards):
        begin = index * plan.shard_images
        end = begin + plan.size_of(index)
        labels = None if listed is None else tuple(map(int, listed[begin:end]))
        yield Shard(index, seeds.part(begin, end), labels)


def written(seeds: Seeds) -> tuple[str, ...]:
    """The seeds as a plan records them."""
    return tuple(seeds.texts()) if len(seeds.ranges) <= _MAX_WRITTEN_RANGES else ()


def encode(plan: Plan) -> bytes:
    """Indented JSON in UTF-8 with a final newline."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"

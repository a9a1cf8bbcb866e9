"""From options to a plan: opens the model, reads seeds and labels, tries out what it will cost."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import MANIFEST, Bundle
from models.repository import Repository
from serving.bulk.arguments import DEFAULT_IMAGE_FORMAT
from serving.bulk.errors import PlanError
from serving.bulk.formats import ENCODERS, FORMATS, encoder
from serving.bulk.labels import LabelRule, cycled, read_labels, weighted
from serving.bulk.maker import batches, load
from serving.bulk.plan import SCHEMA_VERSION, Plan, Shard, written
from serving.bulk.seeds import Seeds, make_seeds, parse_seeds, read_seeds
from serving.encoding.formats import ENCODERS as IMAGE_ENCODERS
from serving.encoding.formats import FORMATS as IMAGE_FORMATS

_MAX_SHARD_IMAGES = 10_000
_SHARD_PIXEL_BYTES = 256 << 20
_FEW_SHARDS = 64  # of a small plan, so that several workers have something to do
_MIN_SHARD_IMAGES = 1000
_MAX_BATCH_ROWS = 64
_BATCH_PIXEL_BYTES = 16 << 20

Listed = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Prepared:
    """A plan with what it takes to carry it out."""

    plan: Plan
    bundle: Bundle
    seeds: Seeds
    listed: Listed


@dataclass(frozen=True)
class Cost:
    """What a plan takes, by its first images."""

    image_bytes: float
    """Of an image in its files, on average."""
    images_per_s: float
    """Of one worker here."""


def prepare(options: argparse.Namespace) -> Prepared:
    """Makes the plan of a command line.

    Raises:
        PlanError: an option can't be used.
        ModelError: there is no such model, or it can't be read.
    """
    bundle = find_bundle(options)
    manifest = bundle.manifest
    seeds = _seeds(options)
    rule, listed = _labels(options, bundle, len(seeds))
    shard_format = FORMATS[options.format]
    shard_format.check()
    if not shard_format.has_images and options.image is not None:
        raise PlanError(
            f"--image is {options.image}, but --format {options.format} holds no image files; "
            "leave it out"
        )
    image_format = (options.image or DEFAULT_IMAGE_FORMAT) if shard_format.has_images else ""
    image = manifest.image
    if image_format and image.channels == 4 and not IMAGE_FORMATS[image_format].has_alpha:
        raise PlanError(
            f"--image is {image_format}, which holds no transparency, and the images have it; "
            f"choose one of {', '.join(n for n, f in IMAGE_FORMATS.items() if f.has_alpha)}"
        )
    if image_format and max(image.height, image.width) > IMAGE_FORMATS[image_format].max_side:
        raise PlanError(
            f"--image is {image_format}, which has at most {IMAGE_FORMATS[image_format].max_side} "
            f"pixels a side; the images are {image.width}x{image.height}: choose another"
        )
    pixel_bytes = image.height * image.width * image.channels
    plan = Plan(
        schema_version=SCHEMA_VERSION,
        model=manifest.name,
        version=manifest.version,
        bundle_digest=bundle.digest,
        image=image,
        class_names=manifest.labels or (),
        num_images=len(seeds),
        seeds=written(seeds),
        seeds_sha256=seeds.digest,
        labels=rule,
        truncation=options.truncation,
        format=options.format,
        image_format=image_format,
        shard_images=options.shard_images or _shard_images(len(seeds), pixel_bytes),
        batch_rows=options.batch_rows
        or max(1, min(_MAX_BATCH_ROWS, _BATCH_PIXEL_BYTES // pixel_bytes)),
        device=options.device,
        encoders=100 * ENCODERS + IMAGE_ENCODERS,
    )
    return Prepared(plan, bundle, seeds, listed)


def find_bundle(options: argparse.Namespace) -> Bundle:
    """The bundle of a folder, or of a name in the repository.

    Raises:
        PlanError: --version is given with a folder.
        ModelError: there is none, or it can't be read.
    """
    path = Path(options.model)
    if "/" in options.model or (path / MANIFEST).is_file():
        if options.version is not None:
            raise PlanError(
                f"--version is {options.version}, but {options.model} is a bundle, which is one "
                "version; leave it out, or name a model of --repository"
            )
        return Bundle.open(path)
    return Repository(options.repository).bundle(options.model, options.version)


def try_out(prepared: Prepared, device: str) -> Cost:
    """Loads and verifies the model, and makes one run of it.

    Raises:
        BundleError: the model can't be used.
        PlanError: its images can't be encoded.
    """
    plan = prepared.plan
    engine = load(prepared.bundle, plan.batch_rows, device)
    num = min(plan.batch_rows, plan.size_of(0))
    listed = prepared.listed
    labels = None if listed is None else tuple(map(int, listed[:num]))
    few = Shard(0, prepared.seeds.part(0, num), labels)
    image = plan.image
    next(batches(plan, few, engine))  # the first run allocates
    began = time.perf_counter()
    (batch,) = batches(plan, few, engine)
    num_bytes = batch.images.nbytes
    try:
        if plan.image_format:
            num_bytes = sum(map(len, encoder(plan)(batch.images)))
    except (OSError, ValueError, KeyError) as error:
        raise PlanError(
            f"--image is {plan.image_format}: images of {image.channels} channels can't be encoded "
            f"so ({error}); choose another"
        ) from error
    seconds = time.perf_counter() - began
    per_image = num_bytes / num + FORMATS[plan.format].overhead_bytes(plan)
    return Cost(per_image, num / seconds)


def _shard_images(num_images: int, pixel_bytes: int) -> int:
    most = max(1, min(_MAX_SHARD_IMAGES, _SHARD_PIXEL_BYTES // pixel_bytes))
    wanted = max(_MIN_SHARD_IMAGES, -(-num_images // _FEW_SHARDS))
    return min(most, wanted)


def _seeds(options: argparse.Namespace) -> Seeds:
    if options.seeds is not None:
        return parse_seeds(options.seeds)
    if options.seeds_from is not None:
        return read_seeds(options.seeds_from)
    return make_seeds([(0, options.count - 1)], option="--count")


def _labels(
    options: argparse.Namespace, bundle: Bundle, num: int
) -> tuple[LabelRule | None, Listed]:
    names = bundle.manifest.labels
    given = {
        "--labels": options.labels,
        "--label-weights": options.label_weights,
        "--labels-from": options.labels_from,
    }
    if names is None:
        for option, value in given.items():
            if value is not None:
                raise PlanError(
                    f"{option} is given, but model {bundle.manifest.name!r} takes no labels; "
                    "leave it out"
                )
        return None, None
    if options.labels_from is not None:
        return read_labels(options.labels_from, num, names)
    if options.label_weights is not None:
        return weighted(options.label_weights, names), None
    return cycled(options.labels, names), None

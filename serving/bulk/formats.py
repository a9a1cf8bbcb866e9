"""What the files of a shard look like: a registry. A new format is one new entry.

A format writes batches of images as they are made, so a shard never lies in memory whole. The bytes
depend on the plan alone: no times, no names of machines, the order of the seeds.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle.generator import Images
from models.image_metadata import origin
from serving.bulk.errors import PlanError
from serving.bulk.plan import Plan
from serving.bulk.storage.store import Store, StoredFile
from serving.encoding import tar_file
from serving.encoding.formats import FORMATS as IMAGE_FORMATS
from serving.encoding.formats import SUFFIXES

ENCODERS = 1
"""Version of the shards' formats; to be raised when they give other bytes than before."""
IMAGES = "images"
DATA = "data"
INDEX = "index"
_ROW_GROUP_BYTES = 32 << 20
_ROW_GROUP_IMAGES = 4096


@dataclass(frozen=True)
class Batch:
    """Images of one run. seeds [N] uint64, labels [N] int64 or None, images [N, H, W, C] uint8."""

    seeds: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64] | None
    images: Images


@dataclass(frozen=True)
class Task:
    """A shard that is being written: where, and of how many images."""

    plan: Plan
    index: int
    store: Store

    @property
    def num_images(self) -> int:
        """Images of the shard."""
        return self.plan.size_of(self.index)

    @property
    def name(self) -> str:
        """Name of its files without their suffix."""
        return self.plan.shard_name(self.index)


@dataclass(frozen=True)
class Format:
    """A format of shards."""

    name: str
    write: Callable[[Task, Iterable[Batch]], list[StoredFile]]
    """Writes a shard and returns the files that the manifest lists."""
    overhead_bytes: Callable[[Plan], int]
    """About what it adds to an image."""
    layout: Callable[[Plan], str]
    """Where what lies, in words for the dataset card."""
    has_images: bool = True
    """Whether it holds image files, and so an image format can be chosen."""
    listed: Callable[[bytes], Iterator[StoredFile]] | None = None
    """Further files that a listed file lists itself, of its content."""
    hub_suffix: str = ""
    """Of the files that a dataset hub reads as a table; empty where it reads none."""
    check: Callable[[], None] = lambda: None
    """Raises PlanError where what it needs isn't installed."""


def encoder(plan: Plan) -> Callable[[Images], list[bytes]]:
    """The function from images [N, H, W, C] to the bytes of their files."""
    return IMAGE_FORMATS[plan.image_format].encode_all


def suffix(plan: Plan) -> str:
    """Suffix of image files; the shortest of those in use."""
    return min((s for s, name in SUFFIXES.items() if name == plan.image_format), key=len)


def key_width(plan: Plan) -> int:
    """Digits of a sample's key: enough for the largest seed, so that keys sort as numbers."""
    largest = max((int(text.rpartition("-")[2]) for text in plan.seeds), default=2**64 - 1)
    return len(str(largest))


def class_folder(plan: Plan, label: int | None) -> str:
    """Folder of a class: its number, so that folders sort as classes do, and its name."""
    if label is None:
        return "all"
    number = f"{label:0{len(str(len(plan.class_names) - 1))}d}"
    name = re.sub(r"[^\w.-]+", "-", plan.class_names[label]).strip("-.")
    return number if name in ("", str(label)) else f"{number}-{name}"


def _rows(
    batch: Batch, encode: Callable[[Images], list[bytes]]
) -> Iterator[tuple[int, int | None, bytes]]:
    """Seed, label and file of each image."""
    num = len(batch.seeds)
    labels = [None] * num if batch.labels is None else batch.labels.tolist()
    return zip(batch.seeds.tolist(), labels, encode(batch.images), strict=True)


def _write_folder(task: Task, batches: Iterable[Batch]) -> list[StoredFile]:
    """An image file each, in a folder of its class: what torchvision's ImageFolder reads."""
    plan, store = task.plan, task.store
    encode, end = encoder(plan), suffix(plan)
    made_by = origin(plan.model, plan.version, plan.bundle_digest, plan.truncation)
    folders: dict[int | None, str] = {}
    part = task.name.rpartition("-")[2]
    entries: list[bytes] = []
    for batch in batches:
        for seed, label, data in _rows(batch, encode):
            if label not in folders:
                folders[label] = f"{IMAGES}/{class_folder(plan, label)}/{part}"
            name = f"{folders[label]}/{seed}.{end}"
            with store.create(name, sync=False) as file:
                file.write(made_by.told(data, plan.image_format, seed, label))
            line = {"seed": seed, "label": label, **msgspec.structs.asdict(file.entry(name))}
            entries.append(msgspec.json.encode(line))
    store.sync()
    index = f"{INDEX}/{task.name}.jsonl"
    with store.create(index) as file:
        file.write(b"\n".join([*entries, b""]))
    return [file.entry(index)]


def _listed_in_folder(index: bytes) -> Iterator[StoredFile]:
    for line in index.splitlines():
        entry = msgspec.json.decode(line)
        yield StoredFile(**{key: entry[key] for key in StoredFile.__struct_fields__})


def _write_tar(task: Task, batches: Iterable[Batch]) -> list[StoredFile]:
    """A WebDataset shard: SEED.png and, of conditional models, SEED.cls beside it."""
    encode, width = encoder(task.plan), key_width(task.plan)
    end = suffix(task.plan).encode("ascii")
    name = f"{DATA}/{task.name}.tar"
    with task.store.create(name) as file:
        for batch in batches:
            parts = []
            for seed, label, data in _rows(batch, encode):
                key = b"%0*d" % (width, seed)
                parts.append(tar_file.member(b"%b.%b" % (key, end), data))
                if label is not None:
                    parts.append(tar_file.member(key + b".cls", b"%d" % label))
            file.write(b"".join(parts))
        file.write(tar_file.END)
    return [file.entry(name)]


def _write_npy(task: Task, batches: Iterable[Batch]) -> list[StoredFile]:
    """Arrays: images [N, H, W, C] uint8, seeds [N] uint64 and, if there are any, labels [N]."""
    image = task.plan.image
    shape = (task.num_images, image.height, image.width, image.channels)
    seeds, labels = [], []
    name = f"{DATA}/{task.name}.npy"
    with task.store.create(name) as file:
        file.write(_npy_header(shape))
        for batch in batches:
            file.write(np.ascontiguousarray(batch.images).data.cast("B"))
            seeds.append(batch.seeds)
            if batch.labels is not None:
                labels.append(batch.labels)
    files = [file.entry(name)]
    for kind, parts in (("seeds", seeds), ("labels", labels)):
        if parts:
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate(parts))
            name = f"{DATA}/{task.name}.{kind}.npy"
            with task.store.create(name) as file:
                file.write(buffer.getvalue())
            files.append(file.entry(name))
    return files


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _write_parquet(task: Task, batches: Iterable[Batch]) -> list[StoredFile]:
    """A table: image {bytes, path}, seed, label; `datasets` reads the first as images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plan = task.plan
    schema = _schema(plan)
    encode, end, width = encoder(plan), suffix(plan), key_width(plan)
    name = f"{DATA}/{task.name}.parquet"
    columns: dict[str, list[Any]] = {field: [] for field in schema.names}
    waiting = 0
    with (
        task.store.create(name) as file,
        pa.PythonFile(file, mode="w") as sink,
        # Image files don't shrink any more; dictionaries of them would only take memory.
        pq.ParquetWriter(sink, schema, compression="NONE", use_dictionary=["label"]) as writer,
    ):

        def flush() -> None:
            if columns["seed"]:
                writer.write_table(pa.table(columns, schema=schema))
            for column in columns.values():
                column.clear()

        for batch in batches:
            for seed, label, data in _rows(batch, encode):
                columns["image"].append({"bytes": data, "path": f"{seed:0{width}d}.{end}"})
                columns["seed"].append(seed)
                if label is not None:
                    columns["label"].append(label)
                waiting += len(data)
            if waiting > _ROW_GROUP_BYTES or len(columns["seed"]) >= _ROW_GROUP_IMAGES:
                flush()
                waiting = 0
        flush()
    return [file.entry(name)]


def _schema(plan: Plan) -> Any:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), ("seed", pa.uint64())]
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "seed": {"dtype": "uint64", "_type": "Value"},
    }
    if plan.labels is not None:
        fields.append(("label", pa.int64()))
        features["label"] = {"names": list(plan.class_names), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def _check_parquet() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise PlanError(
            "--format is parquet: that needs pyarrow; install it with "
            "pip install '.[parquet]' in Saddlepoint's source folder"
        ) from error


FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            "folder",
            _write_folder,
            listed=_listed_in_folder,
            overhead_bytes=lambda plan: 512,
            layout=lambda plan: f"`{IMAGES}/CLASS/SHARD/SEED.{suffix(plan)}`",
        ),
        Format(
            "tar",
            _write_tar,
            overhead_bytes=lambda plan: 768 + (1024 if plan.labels else 0),
            layout=lambda plan: (
                f"WebDataset: `SEED.{suffix(plan)}`" + (", `SEED.cls`" if plan.labels else "")
            ),
            hub_suffix="tar",
        ),
        Format(
            "parquet",
            _write_parquet,
            check=_check_parquet,
            overhead_bytes=lambda plan: 32,
            layout=lambda plan: "Parquet: columns image, seed" + (", label" if plan.labels else ""),
            hub_suffix="parquet",
        ),
        Format(
            "npy",
            _write_npy,
            has_images=False,
            overhead_bytes=lambda plan: 8 + (8 if plan.labels else 0),
            layout=lambda plan: "arrays [N, H, W, C] uint8, with seeds and labels beside them",
        ),
    )
}

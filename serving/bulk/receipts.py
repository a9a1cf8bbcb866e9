"""Receipts: what a finished shard consists of, written beside it when all of it is on the disk.

A shard is finished when there is a receipt of this plan and its files are what the receipt says.
So a run that was killed anywhere goes on: at most the shards under way are made again. The manifest
holds all receipts, and takes their place at the end.
"""

import msgspec

from serving.bulk.errors import TargetError
from serving.bulk.formats import FORMATS
from serving.bulk.plan import Plan
from serving.bulk.storage.store import Store, StoredFile, write_file

FOLDER = "receipts"


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished shard."""

    index: int
    num_images: int
    files: tuple[StoredFile, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the files that it lists."""
        return sum(file.size_bytes for file in self.files)


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receipt with the digest of its plan, as it lies beside the shards."""

    plan_digest: str
    receipt: Receipt


def receipt_name(plan: Plan, index: int) -> str:
    """Where a shard's receipt lies."""
    return f"{FOLDER}/{plan.shard_name(index)}.json"


def write_receipt(plan: Plan, receipt: Receipt, store: Store) -> None:
    """Writes a receipt: the last step of a shard."""
    data = msgspec.json.encode(_Signed(plan_digest=plan.digest, receipt=receipt))
    write_file(store, receipt_name(plan, receipt.index), data)


def read_receipt(plan: Plan, index: int, store: Store) -> Receipt | None:
    """A shard's receipt; None where there is none that can be used."""
    data = store.read(receipt_name(plan, index))
    if data is None:
        return None
    try:
        signed = msgspec.json.decode(data, type=_Signed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    mine = signed.plan_digest == plan.digest and signed.receipt.index == index
    return signed.receipt if mine else None


def holds(plan: Plan, receipt: Receipt, store: Store, *, digests: bool) -> bool:
    """True where a shard's files are what its receipt says.

    digests: compare SHA-256, else sizes alone, which reads nothing but the lists of files.
    """
    listed = FORMATS[plan.format].listed
    for file in receipt.files:
        if not _is(file, store, digests=digests or listed is not None):
            return False
        if listed is not None:
            data = store.read(file.name)
            if data is None or not all(_is(each, store, digests=digests) for each in listed(data)):
                return False
    return True


def _is(file: StoredFile, store: Store, *, digests: bool) -> bool:
    try:
        # The size first: of a file that was cut off nothing need be read.
        found = store.entry(file.name, digest=False)
        if found is None or found.size_bytes != file.size_bytes:
            return False
        if not digests:
            return True
        found = store.entry(file.name, digest=True)
    except TargetError:
        return False
    return found is not None and found.sha256 == file.sha256

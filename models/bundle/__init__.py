"""The exported model on disk: its manifest, digests and golden images, and how each is verified.

It needs no torch. `models.bundle.bundle` lists the files of a bundle.
"""

from models.bundle.bundle import (
    ENCODER,
    MANIFEST,
    REQUIRED_FILES,
    Bundle,
    Golden,
    sync_folder,
    write_bundle,
    write_synced,
)

__all__ = [
    "ENCODER",
    "MANIFEST",
    "REQUIRED_FILES",
    "Bundle",
    "Golden",
    "sync_folder",
    "write_bundle",
    "write_synced",
]

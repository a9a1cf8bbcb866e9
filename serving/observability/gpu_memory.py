"""Memory of GPUs, from NVML: of every card for the metrics, and of the one of this process.

One card that doesn't answer hides no other. A card that is split (MIG) counts as its parts. NVML
numbers cards as nvidia-smi does; CUDA doesn't, so that a worker finds its card by UUID.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class GpuMemory:
    """One card, or one part of a card. Sizes in bytes."""

    index: str
    """As nvidia-smi numbers it: "0", or "0:1" for the part 1 of card 0."""
    uuid: str
    total: int
    used: int
    """By any process."""
    free: int


def all_gpus() -> list[GpuMemory]:
    """Every card that answers; none if there is no driver that does."""
    found: list[GpuMemory] = []
    if not _has_nvml():
        return found
    num = 0
    with contextlib.suppress(pynvml.NVMLError):
        num = pynvml.nvmlDeviceGetCount()
    for index in range(num):
        with contextlib.suppress(pynvml.NVMLError):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            parts = list(_parts(card))
            if not parts:
                found.append(_read(str(index), card))
            for number, part in parts:
                with contextlib.suppress(pynvml.NVMLError):
                    found.append(_read(f"{index}:{number}", part))
    return found


def room_of_this_process() -> GpuMemory | None:
    """The card that CUDA_VISIBLE_DEVICES leaves to this process; None where nobody knows."""
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if not name or not _has_nvml():
        return None
    with contextlib.suppress(pynvml.NVMLError):
        if name.isdigit():
            return _read(name, pynvml.nvmlDeviceGetHandleByIndex(int(name)))
        return _read(name, pynvml.nvmlDeviceGetHandleByUUID(name))
    return None


def _parts(card: Any) -> Iterator[tuple[int, Any]]:
    """The parts of a card that is split, with their numbers."""
    try:
        split, _ = pynvml.nvmlDeviceGetMigMode(card)
        num = pynvml.nvmlDeviceGetMaxMigDeviceCount(card) if split else 0
    except pynvml.NVMLError:  # a card that can't be split
        return
    for number in range(num):
        with contextlib.suppress(pynvml.NVMLError):  # not every number is taken
            yield number, pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)


def _read(index: str, handle: Any) -> GpuMemory:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    text = uuid.decode("ascii") if isinstance(uuid, bytes) else str(uuid)
    return GpuMemory(index, text, int(memory.total), int(memory.used), int(memory.free))


@functools.cache
def _has_nvml() -> bool:
    """Loads NVML once, at the first scrape of a process: it can take long."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True

"""How much memory this process may still take: of the machine, or of its control group."""

import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Returns the smaller of what the machine and the control group have left."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = _fields(_MEMINFO, ":")
    if "MemAvailable" in meminfo:
        found = int(meminfo["MemAvailable"].split()[0]) * 1024
    left = _left_of_group()
    return found if left is None else min(found, left)


def _left_of_group() -> int | None:
    """Bytes below the group's limit; None where there is no group or no limit.

    Cached files count as used, but the kernel takes them back before it refuses memory.
    """
    try:
        limit = int((_GROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number: no limit
        return None
    cached = int(_fields(_GROUP / "memory.stat", None).get("inactive_file", 0))
    return max(limit - max(used - cached, 0), 0)


def _fields(path: Path, separator: str | None) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return {}
    pairs = (line.split(separator, 1) for line in lines)
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}

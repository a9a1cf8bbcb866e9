"""Named models in numbered versions: published atomically, listed, pinned, rolled back, pruned.

It needs no torch. `python -m models.repository` is its command line.
"""

from models.repository.store import Current, Repository, check_name

__all__ = ["Current", "Repository", "check_name"]

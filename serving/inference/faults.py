"""What went wrong with a model, in words that a client may read.

A model's errors name files of this machine, and quote what a runtime says, which holds paths of its
own sources. Both are for the log. A client learns which file of which version is at fault, and how.
"""

from pathlib import Path

import msgspec

from models.bundle.archive import ArchiveError
from models.bundle.files import IrregularFileError
from models.errors import ModelError
from serving.errors import ServingError
from serving.inference.accelerator.cuda_errors import causes, is_out_of_memory

LOG = "the server's log says more"


def is_passing(error: BaseException) -> bool:
    """True where the system was at fault, not the model: memory, descriptors, storage."""
    return is_out_of_memory(error) or any(
        isinstance(cause, MemoryError | OSError) and not isinstance(cause, IrregularFileError)
        for cause in causes(error)
    )


def words_for_clients(error: BaseException, root: Path) -> str:
    """An error without paths of this machine and without a foreign library's words.

    root: the repository; paths within it become relative to it.
    """
    public = getattr(error, "public", None)
    if isinstance(public, str):
        return public
    if not isinstance(error, ModelError | ServingError):
        return f"it can't be loaded; {LOG}"
    text = without_paths(str(error), root)
    # Whose words a text holds is told by the chain of causes: ours, the system's, or someone's.
    if all(isinstance(cause, _OURS) for cause in causes(error)):
        return text
    where, colon, _ = text.partition(": ")
    return f"{where}: it can't be used; {LOG}" if colon else f"it can't be loaded; {LOG}"


def without_paths(text: str, root: Path) -> str:
    """A text with the repository's paths made relative."""
    for path in {str(root), str(root.absolute())}:
        text = text.replace(f"{path}/", "").replace(path, "the repository")
    return text


_OURS = (ModelError, ServingError, OSError, MemoryError, msgspec.MsgspecError, ArchiveError)

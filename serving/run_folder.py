"""The server's own folder, in TMPDIR: the sockets between its processes lie in it.

A lock in it says that a server lives: the folder of one that was killed is removed by the next that
starts. A cleaner of temporary files may remove the folder of a living one, in part or whole: it is
made again, and whoever keeps something in it puts that back.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "saddlepoint-"
_LOCK = "lock"


class RunFolder:
    """The folder of this server; made, kept and removed by its first process alone."""

    def __init__(self) -> None:
        """Makes it, after those of servers that are dead were removed.

        Raises:
            OSError: TMPDIR can't be written.
        """
        remove_stale(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = -1
        try:
            self.restore()
        except OSError:
            self.remove()
            raise

    def restore(self) -> bool:
        """Makes again what is missing; true where anything was.

        Raises:
            OSError: that can't be done.
        """
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path / _LOCK), os.fstat(self._lock)):
                return False
        # Not its parents: who made those anew could put into them what they like.
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        if not self.path.is_dir() or self.path.is_symlink():
            raise NotADirectoryError(f"{self.path} is no folder any more")
        self._take_lock()
        return True

    def remove(self) -> None:
        """Removes it, at the end; safe to call from a signal handler."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _take_lock(self) -> None:
        """Under another name until it is held: a lock that is there and free says "stale"."""
        temporary = self.path / f".{_LOCK}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.rename(self.path / _LOCK)
        except OSError:
            os.close(descriptor)
            raise
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = descriptor


def remove_stale(parent: Path) -> None:
    """Removes the folders of dead servers of this user, as far as that can be done.

    What has no lock file of a server is left alone, whatever its name.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_stale(Path(entry.path))


def _remove_if_stale(folder: Path) -> None:
    """Raises OSError where a server lives in it, or it is none's."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if folder.lstat().st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)

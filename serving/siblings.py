"""The HTTP processes of one server, which share its port: have all of them had a model to serve?

The kernel gives a connection to any of them. So none may say that the server is ready before the
last one can make images: the next request could be that one's. A file each, in the server's folder.
"""

import os
from pathlib import Path


class Siblings:
    """What one process says of itself, and sees of the others."""

    def __init__(self, run_folder: Path, num_processes: int) -> None:
        """run_folder: the server's own. num_processes: how many there are, this one included."""
        self._folder = run_folder / "started"
        self._num_processes = num_processes
        self._complete = False

    def join(self) -> bool:
        """This process has a model to serve; true where it was the last, which only one is told."""
        self._folder.mkdir(exist_ok=True)
        self._folder.joinpath(str(os.getpid())).touch()
        if not self.all_started():
            return False
        try:
            self._folder.with_name("all-started").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def all_started(self) -> bool:
        """True from then on when the last one joined: a server whose process dies ends."""
        if not self._complete and self._folder.exists():
            self._complete = len(os.listdir(self._folder)) >= self._num_processes
        return self._complete

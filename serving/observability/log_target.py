"""How a descriptor is written to by whoever must not wait for its reader.

A file takes what it gets. A pipe or a terminal takes what there is room for; of some of them only
the waiting write can be had. A socket says for each call that it doesn't wait.
"""

import contextlib
import os
import select
import socket
import stat


class Target:
    """A descriptor that is written to in the ordinary way: a file, /dev/null."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, *, wait: bool) -> bytes:
        """Writes what can be written; gives what is left.

        wait: for whoever reads it, a second at a time.
        """
        view = memoryview(data)
        with contextlib.suppress(OSError):
            while view:
                try:
                    view = view[self._write(view) :]
                except BlockingIOError:
                    if not (wait and self._wait()):
                        break
        return bytes(view)

    def _write(self, data: memoryview) -> int:
        return os.write(self._descriptor, data)

    def _wait(self) -> bool:
        """True where it can be written to now."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(1000))


class _Waiting(Target):
    """A pipe or terminal of which only the ordinary, waiting write can be had: for a thread."""

    def write(self, data: bytes, *, wait: bool) -> bytes:
        """Nothing where it may not wait: that could take for ever."""
        return super().write(data, wait=True) if wait else data


class _Socket(Target):
    """What systemd gives: each call says for itself that it doesn't wait."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def _write(self, data: memoryview) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT)


def target_of(descriptor: int) -> Target:
    """How a descriptor is written to.

    A pipe or terminal is opened once more, in a way that doesn't wait, and takes the descriptor's
    place in this process: so libraries of C that write to it don't wait either. Whoever shares the
    old one (the shell) isn't concerned.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        return _Socket(descriptor)
    if not (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
        return Target(descriptor)
    try:
        if os.get_blocking(descriptor):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            again = os.open(f"/proc/self/fd/{descriptor}", flags)
            os.dup2(again, descriptor)
            os.close(again)
    except OSError:  # another user's pipe, no /proc, nobody who reads it
        return _Waiting(descriptor)
    return Target(descriptor)

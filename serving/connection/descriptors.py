"""File descriptors: as many as the system allows, and some of them kept for the server itself."""

import logging
import os
import resource

logger = logging.getLogger(__name__)

_MAX_SPARE = 16
_FEW = 256


def raise_limit() -> None:
    """Raises this process's soft limit, which its children inherit, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # macOS allows less than it says
            logger.warning("the limit of open files stays %d: %s", soft, error)
    if 0 <= hard < _FEW:
        logger.warning(
            "at most %d files may be open, and every connection is one; raise it: ulimit -n", hard
        )


class Spares:
    """Descriptors that are held so that some can be had when all others are in use."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.are_spent = False
        """True while not one more descriptor can be had."""

    @staticmethod
    def num_reserved() -> int:
        """How many descriptors connections must leave to the server, for files and workers."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _MAX_SPARE if soft == resource.RLIM_INFINITY else max(2, min(_MAX_SPARE, soft // 8))

    def first_reserved(self) -> int:
        """The lowest number that no connection may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 62 if soft == resource.RLIM_INFINITY else soft - self.num_reserved()

    def is_low(self, descriptor: int) -> bool:
        """True where it is not one of the very last ones."""
        return descriptor < self.first_reserved() + self.num_reserved() // 2

    def renew(self) -> None:
        """Takes what is missing; gives them up where not one more file can be opened.

        Connections are then taken with them, and refused.
        """
        try:
            while len(self._held) < self.num_reserved():
                self._held.append(_opened())
            os.close(_opened())
        except OSError as error:
            self.close()
            if not self.are_spent:
                self.are_spent = True
                logger.error(
                    "no file can be opened (%s): connections are refused, or wait to be taken, "
                    "until others end",
                    error.strerror,
                )
        else:
            self.are_spent = False

    def close(self) -> None:
        """Gives them up."""
        while self._held:
            os.close(self._held.pop())


def _opened() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

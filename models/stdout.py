"""Standard output of the commands: its reader may go away, as in `--help | head`."""

import functools
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec

P = ParamSpec("P")


class ClosedPipeIgnored:
    """Within the block, output that nobody reads any more is dropped without an error.

    The block ends early where a print failed; what follows the block runs as usual.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        is_closed = isinstance(error, BrokenPipeError)
        try:
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()
        except BrokenPipeError:
            is_closed = True
        if is_closed:
            # Python flushes once more when it exits, which would print an error then.
            point_nowhere(sys.stdout.fileno())
        return isinstance(error, BrokenPipeError)


def closed_pipe_ignored(main: Callable[P, int]) -> Callable[P, int]:
    """Decorates a command's main: a reader that goes away ends it, with exit code 0."""

    @functools.wraps(main)
    def ignoring(*given: P.args, **named: P.kwargs) -> int:
        with ClosedPipeIgnored():
            return main(*given, **named)
        return 0

    return ignoring


def point_nowhere(descriptor: int) -> None:
    """Has a file descriptor write to nowhere."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, descriptor)
    os.close(sink)

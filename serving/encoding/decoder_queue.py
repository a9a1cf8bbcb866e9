"""Files that wait to be decoded, in an order that is fair to those who sent them.

A request may bring 64 files of two seconds each. Those of others don't wait for all of them: the
requests take turns, a file each, those of interactive ones first.
"""

from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass

from serving.encoding.pixels import Decoded, Wanted

BULK_SHARE = 4
"""Of so many files one is of bulk, where both wait."""


@dataclass(frozen=True)
class Waiting:
    """A file, and who waits for its pixels."""

    data: bytes
    wanted: Wanted
    decoding: "Future[Decoded]"


class DecoderQueue:
    """The files that wait; whoever shares it locks."""

    def __init__(self) -> None:
        """Nothing waits yet."""
        self._queues: dict[bool, OrderedDict[object, deque[Waiting]]] = {
            bulk: OrderedDict() for bulk in (False, True)
        }
        self._turn = 0

    def add(self, owner: object, waiting: Waiting, *, bulk: bool) -> None:
        """Appends a file to those of its request."""
        self._queues[bulk].setdefault(owner, deque()).append(waiting)

    def next(self) -> Waiting | None:
        """Takes the file whose turn it is; None where none waits that is still wanted."""
        while queues := self._chosen():
            owner, files = next(iter(queues.items()))
            waiting = files.popleft()
            if files:
                queues.move_to_end(owner)
            else:
                del queues[owner]
            if waiting.decoding.set_running_or_notify_cancel():
                return waiting
        return None

    def clear(self) -> list[Waiting]:
        """Takes all of them."""
        left = [
            each for queues in self._queues.values() for files in queues.values() for each in files
        ]
        for queues in self._queues.values():
            queues.clear()
        return left

    def _chosen(self) -> OrderedDict[object, deque[Waiting]]:
        first, bulk = self._queues[False], self._queues[True]
        if not (first and bulk):
            return first or bulk
        self._turn = (self._turn + 1) % BULK_SHARE
        return first if self._turn else bulk

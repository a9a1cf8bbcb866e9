"""What one HTTP process holds in memory for its clients, and may hold at most.

Bodies that come, images that are being made or encoded, answers that clients haven't taken: each
request has a `Hold`, which says how much it has, and gives it back when the client has taken the
answer or has gone. Images are not begun where they would not fit: they wait until others have
given back. What is small and exists already (a page, an error) is counted, never refused.
"""

from collections import deque
from collections.abc import Callable

_SMALL_SHARE = 64


class Memory:
    """The bytes that are held, and who waits for room."""

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: what may be held; one request alone may hold more."""
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._waiting: deque[Hold] = deque()

    @property
    def is_short(self) -> bool:
        """True where somebody waits for room, or too much is held."""
        return bool(self._waiting) or self.held_bytes > self.max_bytes

    def fits(self, num_bytes: int, own_bytes: int) -> bool:
        """True where a request that holds own_bytes may hold so much more."""
        return self.held_bytes + num_bytes <= self.max_bytes or self.held_bytes <= own_bytes

    def must_wait(self, num_bytes: int, own_bytes: int) -> bool:
        """True where there is no room, or others were there first.

        What needs little goes before what needs much: a picture doesn't wait for an album.
        """
        small = num_bytes <= self.max_bytes // _SMALL_SHARE
        return not self.fits(num_bytes, own_bytes) or (bool(self._waiting) and not small)

    def add(self, hold: "Hold") -> None:
        """Lets a request wait for the room that it needs."""
        self._waiting.append(hold)

    def discard(self, hold: "Hold") -> None:
        """Nobody waits for this any more."""
        self._waiting.remove(hold)
        self.grant()

    def grant(self) -> None:
        """Lets those begin for whom there is room now, in their order."""
        for hold in tuple(self._waiting):
            if self.fits(hold.wanted_bytes, hold.num_bytes):
                self._waiting.remove(hold)
                hold.begin()
            elif hold.wanted_bytes > self.max_bytes // _SMALL_SHARE:
                break


class Hold:
    """What one request holds."""

    __slots__ = ("_granted", "_in_use", "_is_over", "_memory", "num_bytes", "wanted_bytes")

    def __init__(self, memory: Memory) -> None:
        """Nothing yet."""
        self._memory = memory
        self.num_bytes = 0
        self.wanted_bytes = 0
        self._granted: Callable[[], None] | None = None
        self._in_use = False
        self._is_over = False

    def try_add(self, num_bytes: int) -> bool:
        """Counts more where there is room for it, else nothing."""
        if not self._memory.fits(num_bytes, self.num_bytes):
            return False
        self._add(num_bytes)
        return True

    def wait_for(self, num_bytes: int, granted: Callable[[], None]) -> bool:
        """Holds so much, instead of what was held, as soon as there is room; True if that is now.

        granted: called where it is later.
        """
        if self._is_over:  # others want what this request no longer does; they count their own
            return True
        if self.num_bytes:
            self.resize(0)
        if not self._memory.must_wait(num_bytes, self.num_bytes):
            self._add(num_bytes)
            return True
        self.wanted_bytes, self._granted = num_bytes, granted
        self._memory.add(self)
        return False

    def begin(self) -> None:
        """Called by `Memory` when there is room."""
        granted, self._granted = self._granted, None
        assert granted is not None
        self._add(self.wanted_bytes)
        granted()

    def resize(self, num_bytes: int) -> None:
        """Holds so much from now on, more or less than before."""
        if not self._in_use:
            self._add(num_bytes - self.num_bytes)
            self._memory.grant()

    def keep(self) -> None:
        """A thread works with it, and can't be stopped: nothing is given back before it ends."""
        self._in_use = True

    def unkeep(self) -> None:
        """That thread has ended."""
        self._in_use = False
        if self._is_over:
            self.release()

    def release(self) -> None:
        """Gives everything back, and waits for nothing more. May be called again."""
        self._is_over = True
        if self._granted is not None:
            self._granted = None
            self._memory.discard(self)
        if self.num_bytes:
            self.resize(0)

    def _add(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        self._memory.held_bytes += num_bytes

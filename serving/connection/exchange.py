"""What answers a request, as its connection sees it."""

from serving.connection.request_head import Head
from serving.errors import Problem
from serving.http.memory import Hold


class Exchange:
    """Base: a request that is being answered, with one call of `Connection.answer`."""

    def __init__(self, head: Head, hold: Hold) -> None:
        """hold: what it has in memory; the connection gives it back when all is over."""
        self.head = head
        self.hold = hold

    def add_body(self, data: bytes) -> None:
        """Some of the body has come."""
        raise NotImplementedError

    def end_body(self) -> None:
        """All of the body has come, or there is none."""
        raise NotImplementedError

    def fail(self, problem: Problem) -> None:
        """The rest of the body won't come, or can't be held: the problem is to be answered."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The client has gone: nothing can be answered any more."""
        raise NotImplementedError

"""Ends futures that may have ended already.

A future ends for reasons that its producer does not see: a deadline, a client that left, or
uvicorn, which cancels what still runs when its shutdown takes too long. Setting a result then
raises InvalidStateError, in the middle of whatever the producer was doing for others. Producers in
this folder end futures by these two functions alone.
"""

import asyncio
from typing import TypeVar

Value = TypeVar("Value")


def set_result(future: "asyncio.Future[Value]", value: Value) -> bool:
    """Sets a result unless the future has ended; returns whether it did."""
    if future.done():
        return False
    future.set_result(value)
    return True


def set_error(future: "asyncio.Future[Value]", error: BaseException) -> bool:
    """Sets an exception, or cancels for CancelledError, unless the future has ended.

    Returns whether it did.
    """
    if future.done():
        return False
    if isinstance(error, asyncio.CancelledError):
        return future.cancel()
    future.set_exception(error)
    return True

"""Carries out what `serving.client.core` wants done: the only place that sends with httpx."""

import asyncio

import httpx

from serving.client.answers import Reply
from serving.client.core import Flow, Outcome, Pause, Result, Step
from serving.client.errors import ForeignAnswerError


class Transport:
    """Connections to one server, kept open between requests."""

    def __init__(self, address: httpx.URL) -> None:
        """Connects nothing yet."""
        # httpx would begin a time-out of its own with each part of an answer: asyncio's ends all.
        self._http = httpx.AsyncClient(base_url=address, timeout=None)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def run(self, flow: Flow[Result]) -> Result:
        """Carries out a flow's steps; gives its result, or raises its error."""
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            outcome = await self._carry_out(step)

    async def _carry_out(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with asyncio.timeout(step.timeout_s):
                reply = await self._http.request(
                    step.method, step.path, content=step.content, headers=dict(step.headers)
                )
        except TimeoutError:
            return TimeoutError(f"no whole answer within {step.timeout_s:.3g} s")
        except httpx.DecodingError as error:
            return ForeignAnswerError(
                f"the answer's Content-Encoding is not what it says: {error}; "
                "is a proxy in between, or another server?"
            )
        except httpx.RequestError as error:
            return error
        return Reply(reply.status_code, reply.headers, reply.content)

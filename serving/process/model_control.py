"""Puts models into service and takes them out of it, in every process, when a client asks.

Which are out is kept in memory that all processes share (`serving.inference.withdrawn`). The
workers follow it, and tell the HTTP processes what is served.
"""

import asyncio
import functools
from collections.abc import Sequence

from serving.dispatch.catalogue import Catalogue
from serving.dispatch.worker_client import WorkerClient
from serving.errors import DeadlineProblem, UnavailableProblem
from serving.inference.withdrawn import Withdrawn
from serving.observability.loops import in_thread


class ModelControl:
    """Which models are served, as far as clients may say."""

    def __init__(
        self, withdrawn: Withdrawn, catalogue: Catalogue, workers: Sequence[WorkerClient]
    ) -> None:
        """Changes nothing yet.

        Args:
            withdrawn: the models that are out of service.
            catalogue: what is served, as the workers told.
            workers: all of them.
        """
        self._withdrawn = withdrawn
        self._catalogue = catalogue
        self._workers = workers

    async def put_into_service(self, name: str, timeout_ms: int) -> None:
        """Serves a model that was taken out, or what became current.

        Raises:
            UnavailableProblem: it can't be served; the problem says why.
            DeadlineProblem: it is still being loaded.
        """
        await in_thread(functools.partial(self._withdrawn.remove, name), "withdrawn")
        fault = await self._refresh(name, timeout_ms, "is not loaded")
        if name in self._catalogue.faults:
            raise UnavailableProblem(f"model {name!r} is refused: {self._catalogue.faults[name]}")
        if fault:
            raise UnavailableProblem(f"model {name!r} was not looked for: {fault}")
        if not self._is_served(name):
            raise UnavailableProblem(
                f"model {name!r} is not loaded: no worker could load it; ask again in a moment"
            )

    async def take_out_of_service(self, name: str, timeout_ms: int) -> None:
        """Serves a model no longer, in any process, until it is put into service again.

        Raises:
            UnavailableProblem: a worker could not do it yet, and will.
            DeadlineProblem: a worker has not done it yet, and will.
        """
        await in_thread(functools.partial(self._withdrawn.add, name), "withdrawn")
        fault = await self._refresh(name, timeout_ms, "is not out of service")
        if fault:
            raise UnavailableProblem(f"model {name!r} is not out of service yet: {fault}")
        if self._is_served(name):
            raise UnavailableProblem(
                f"model {name!r} is not out of service yet: no worker is ready; the next one will "
                "not serve it"
            )

    def why_not(self, name: str) -> str:
        """Returns why a model of the repository isn't served."""
        if name in self._withdrawn:
            return "unloaded"
        return self._catalogue.faults.get(name, "it has no version that can be served")

    def _is_served(self, name: str) -> bool:
        return name in {served.key[0] for served in self._catalogue.current}

    async def _refresh(self, name: str, timeout_ms: int, what: str) -> str:
        """Has every worker look at the repository; returns why one could not, if one could not."""
        try:
            async with asyncio.timeout(timeout_ms / 1e3):
                found = await asyncio.gather(*(worker.refresh() for worker in self._workers))
        except TimeoutError:
            raise DeadlineProblem(
                f"model {name!r} {what} after {timeout_ms} ms; that goes on: ask again, or "
                f"GET /v2/models/{name}/ready"
            ) from None
        return next(filter(None, found), "")

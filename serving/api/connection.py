"""A connection of this server, bound to its service: everything is answered by the router.

`serving.api.fast_path` adds a shortcut for the usual request.
"""

from typing import TYPE_CHECKING, Any

from serving.connection.asgi import ASGIExchange
from serving.connection.connection import Connection
from serving.connection.exchange import Exchange
from serving.connection.request_head import Head
from serving.errors import Problem
from serving.http.messages import Response

if TYPE_CHECKING:
    from serving.api.app import Gateway


class ServerConnection(Connection):
    """The protocol class of every connection; uvicorn makes the instances."""

    def __init__(
        self, config: Any, server_state: Any, app_state: Any = None, _loop: Any = None
    ) -> None:
        """Takes the arguments of uvicorn's protocols."""
        self.gateway: Gateway = config.loaded_app
        super().__init__(self.gateway.service.connections, server_state)

    def begin(self, head: Head) -> Exchange:
        """Gives a request to the application."""
        return ASGIExchange(self, head, self.gateway)

    def refuse(self, problem: Problem) -> None:
        """Answers with a problem, under a context of its own: there is no request."""
        recorder = self.gateway.service.recorder
        context = recorder.begin("other", "other", lambda name: None)
        context.peer = self.peer
        response = Response.problem(problem)
        headers = response.head(recorder.headers(context, response))
        self.send(problem.status, headers, response.body)
        recorder.end(context, response)

    def shutdown(self) -> None:
        """Ends the connection after what is under way; the service drains too."""
        self.gateway.service.drain()
        super().shutdown()

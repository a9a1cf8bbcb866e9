"""The main process: LitServer, supervised and ended in order.

LitServe starts the processes: HTTP processes by fork, inference workers by spawn. This module
changes these things:
- There is no manager process, as no rows travel through LitServe's queues.
- The HTTP processes start at once; /readyz reports when a worker is ready.
- A worker that dies is started again, after growing pauses if it keeps dying. A worker that
  hangs is killed first.
- An HTTP process that dies ends the whole server with an error, which is never half alive. So does
  a folder that is gone, can't be made again, and is needed for the socket of a worker.
- SIGTERM, SIGQUIT and SIGINT drain the server, also as PID 1; a second signal ends it at once.
  After the first two, requests are taken for some time while /readyz answers 503: load balancers
  need it.

LitServe has no public way to change any of this. `LITSERVE_INTERNALS` lists every member that
`serving` overrides or uses beside its documented interface; tests/serving/test_internals.py fails
when a release of LitServe changes one of them.
"""

import asyncio
import functools
import logging
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

import litserve
from litserve.transport.base import MessageTransport

from serving import signals
from serving.inference.frames import socket_path
from serving.observability import exposition, logs
from serving.observability.loops import Loop
from serving.process.drain import DrainingServer
from serving.process.inference_workers import TURN_S, InferenceWorker, end_of
from serving.process.listening import Listeners, bind
from serving.process.mirror import Mirror
from serving.process.shared import Shared
from serving.run_folder import RunFolder
from serving.signals import Orders

logger = logging.getLogger(__name__)

LITSERVE_VERSION = "0.2.19"
"""The release that the list was checked against."""
LITSERVE_INTERNALS: dict[str, str | None] = {
    "litserve.server.LitServer.run": "self, host, port, num_api_servers, log_level, "
    "generate_client_file, api_server_worker_type, pretty_logs, **kwargs",
    "litserve.server.LitServer._init_manager": "self, num_api_servers",
    "litserve.server.LitServer._start_server": "self, port, num_uvicorn_servers, log_level, "
    "sockets, uvicorn_worker_type, **kwargs",
    "litserve.server.LitServer.verify_worker_status": "self",
    "litserve.server.LitServer._start_worker_monitoring": "self, manager, uvicorn_workers",
    "litserve.server.LitServer._perform_graceful_shutdown": "self, manager, uvicorn_workers, "
    "shutdown_reason",
    "litserve.server.LitServer.launch_inference_worker": "self, lit_api",
    "litserve.server.LitServer.launch_single_inference_worker": "self, lit_api, worker_id",
    "litserve.server.LitServer.app": None,
    "litserve.server.LitServer.inference_workers": None,
    "litserve.server.LitServer.litapi_connector": None,
    "litserve.server.LitServer.litapi_request_queues": None,
    "litserve.server.LitServer.uvicorn_graceful_timeout": None,
    "litserve.server.LitServer.workers_setup_status": None,
    "litserve.server.LitServer._shutdown_event": None,
    "litserve.server.LitServer._transport": None,
    "litserve.server._Server.run": "self, worker_id, sockets",
    "litserve.transport.base.MessageTransport.send": "self, item, consumer_id",
    "litserve.transport.base.MessageTransport.areceive": "self, timeout, consumer_id",
    "litserve.transport.base.MessageTransport.close": "self, **kwargs",
    "litserve.loops.base.LitLoop.__call__": "self, lit_api, device, worker_id, request_queue, "
    "transport, workers_setup_status, callback_runner",
    "litserve.api.LitAPI.setup": "self, device",
    "litserve.api.LitAPI.predict": "self, x, **kwargs",
}
"""Members by their path: a method's parameters, or None for an attribute of instances."""

_LAST_WORDS_S = 0.5
_LAST_TURN_S = 2.0  # how long the supervisor may take to end
_LAST_PAUSE_S = 2.0  # the longest between two turns of the supervisor that fail


class StoppedEarly(Exception):  # noqa: N818 - it is no error
    """The server was told to stop before it had started a process."""


class NoTransport(MessageTransport):  # type: ignore[misc]
    """Takes the place of LitServe's response queues: nothing ever comes."""

    def send(self, item: Any, consumer_id: int) -> None:
        """Raises NotImplementedError: workers answer on their sockets."""
        raise NotImplementedError("workers answer on their sockets")

    async def areceive(
        self, consumer_id: int, timeout: float | None = None, block: bool = True
    ) -> Any:
        """Waits until cancelled."""
        await asyncio.get_running_loop().create_future()

    def close(self, send_sentinel: bool = True) -> None:
        """Does nothing."""


class NoManager:
    """Takes the place of LitServe's manager process."""

    def shutdown(self) -> None:
        """Does nothing."""


class Server(litserve.LitServer):  # type: ignore[misc]
    """LitServer with supervision of its processes and an orderly end."""

    def __init__(
        self,
        *args: Any,
        orders: Orders,
        shared: Shared,
        run_folder: RunFolder,
        drain_delay_s: float,
        drain_timeout_s: int,
        worker_timeout_s: float,
        listeners: Listeners,
        metrics_port: int,
        mirror: Mirror | None,
        mirror_interval_s: float,
        **kwargs: Any,
    ) -> None:
        """Takes LitServer's arguments, and ours.

        Args:
            args: LitServer's.
            orders: what signals have told, and will tell.
            shared: what the processes share.
            run_folder: where the workers' sockets lie.
            drain_delay_s: how long to take requests after SIGTERM.
            drain_timeout_s: how long to wait after that for requests that are being answered.
            worker_timeout_s: how long a worker may give no sign of life.
            listeners: the sockets on which it answers requests.
            metrics_port: the port on which this process answers scrapes; 0 for none.
            mirror: of a repository elsewhere.
            mirror_interval_s: how often that is looked at.
            kwargs: LitServer's.
        """
        super().__init__(*args, **kwargs)
        self.uvicorn_graceful_timeout = drain_timeout_s
        self.failed = False
        self._drain_delay_s = drain_delay_s
        self._listeners = listeners
        self._mirror = mirror
        self._mirror_interval_s = mirror_interval_s
        self._metrics_port = metrics_port
        self._run_folder = run_folder
        self._worker_timeout_s = worker_timeout_s
        self._workers: list[InferenceWorker] = []
        self._orders = orders
        self._shared = shared
        self._folder_loop = Loop("run-folder")
        self._api_processes: list[BaseProcess] = []

    def run(self, *, host: str, **kwargs: Any) -> None:
        """Serves until a signal comes or an HTTP process dies (then `failed` is true)."""
        self._host = host
        self.inference_workers: list[BaseProcess] = []
        self._shutdown_event = self._orders.stop
        self._orders.end_at_once = self._end_at_once
        # LitServe allows few hosts and ports: it gets a socket of ours, and these mean nothing.
        given = {"host": "127.0.0.1", "port": 8000, "fd": self._listeners.sockets[0].fileno()}
        try:
            super().run(**given, **kwargs)
        except StoppedEarly:
            logger.info("told to stop while starting")
        finally:
            self._listeners.close()
            self._listeners.remove()

    def _end_at_once(self) -> None:
        self._listeners.remove()
        for process in (*self._api_processes, *self.inference_workers):
            process.kill()
        self._run_folder.remove()
        logs.close(_LAST_WORDS_S)

    # LitServe calls the methods below from `run`, in the order in which they stand here.

    def _init_manager(self, num_api_servers: int) -> NoManager:
        logs.adopt_foreign()  # LitServe has just given its logger a handler
        if self._orders.stop.is_set():
            raise StoppedEarly
        self.workers_setup_status: dict[str, str] = {}
        for lit_api in self.litapi_connector:
            self.litapi_request_queues[lit_api.api_path] = None
        self._transport = NoTransport()
        return NoManager()

    def _start_server(
        self,
        port: int,
        num: int,
        log_level: str,
        sockets: list[socket.socket],
        *args: Any,
        **kw: Any,
    ) -> dict[int, BaseProcess]:
        """Starts the HTTP processes, and closes this process's copies of their listening sockets.

        While this process held a socket too, the kernel would go on to take connections after the
        HTTP processes have closed it, and nobody would accept them.
        """
        for duplicate in sockets:
            duplicate.close()
        litserve.server._Server = DrainingServer  # no parameter says which class to use
        DrainingServer.shared = self._shared
        with signals.held():
            processes: dict[int, BaseProcess] = super()._start_server(
                port, num, log_level, self._listeners.sockets, *args, **kw
            )
        self._listeners.close()
        return processes

    def launch_inference_worker(self, lit_api: litserve.LitAPI) -> list[BaseProcess]:
        """Part of LitServe: starts all workers."""
        with signals.held():
            workers: list[BaseProcess] = super().launch_inference_worker(lit_api)
        return workers

    def verify_worker_status(self) -> None:
        """Does not wait for workers: the HTTP processes answer probes while models load."""

    def _start_worker_monitoring(
        self, manager: NoManager, uvicorn_workers: dict[int, BaseProcess]
    ) -> None:
        self._api_processes = list(uvicorn_workers.values())
        # Nothing is forked after this point, so threads and metrics of this process can begin.
        logs.write_in_thread()
        self._shared.metrics.attach_main()
        exposition.register_process("main")
        if self._metrics_port:
            for listener in bind(self._host, self._metrics_port, "metrics_port"):
                exposition.listen(listener, self._shared.metrics)
        (lit_api,) = self.litapi_connector
        self._workers = [
            InferenceWorker(
                process,
                socket_path(self._run_folder.path, index),
                start=functools.partial(self._start_worker, lit_api, index),
                forget=self._shared.metrics.forget,
                timeout_s=self._worker_timeout_s,
            )
            for index, process in enumerate(self.inference_workers)
        ]
        if self._mirror is not None:
            self._start_mirror(self._mirror)
        loop = Loop("supervisor", last_pause_s=_LAST_PAUSE_S)
        self._supervisor = threading.Thread(
            target=loop.run_in_thread,
            args=(self._supervise, self._sleep),
            name="supervisor",
            daemon=True,
        )
        self._supervisor.start()

    def _start_mirror(self, mirror: Mirror) -> None:
        stop = self._orders.stop

        def turn() -> bool:
            mirror.turn()
            multiprocessing.connection.wait([stop.fileno()], self._mirror_interval_s)
            return not stop.is_set()

        loop = Loop("mirror")
        threading.Thread(
            target=loop.run_in_thread, args=(turn, self._sleep), name="mirror", daemon=True
        ).start()

    def _start_worker(self, lit_api: litserve.LitAPI, index: int) -> BaseProcess:
        with signals.held():
            process: BaseProcess = self.launch_single_inference_worker(lit_api, index)
        self.inference_workers[index] = process
        return process

    def _supervise(self) -> bool:
        """Sleeps until a process ends, or for a turn, then acts; False when the server stops."""
        sentinels = [process.sentinel for process in self._api_processes]
        sentinels += [s for worker in self._workers if (s := worker.sentinel) is not None]
        orders = self._orders
        multiprocessing.connection.wait([orders.stop.fileno(), orders.fileno(), *sentinels], TURN_S)
        if orders.stop.is_set():
            return False
        if orders.take_hangups():
            self._pass_hangup_on()
        for process in self._api_processes:
            if not process.is_alive():
                return self._fail(f"an HTTP process {end_of(process)}")
        fault = self._look_after_folder()
        for worker in self._workers:
            worker.look()
            if fault is not None and worker.sentinel is None:
                return self._fail(f"the server's folder can't be made again: {fault}")
        return True

    def _sleep(self, pause_s: float) -> None:
        multiprocessing.connection.wait([self._orders.stop.fileno()], pause_s)

    def _fail(self, reason: str) -> bool:
        logger.critical("%s; shutting down", reason)
        self.failed = True
        self._orders.stop.set()
        return False

    def _look_after_folder(self) -> OSError | None:
        """Makes it again where it is gone; gives why that can't be done."""
        try:
            if self._run_folder.restore():
                logger.warning("%s was removed: it was made again", self._run_folder.path)
        except OSError as error:
            self._folder_loop.failed(error)
            return error
        self._folder_loop.succeeded()
        return None

    def _pass_hangup_on(self) -> None:
        logger.info("SIGHUP: keys and repository are read again")
        for process in (*self._api_processes, *self.inference_workers):
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    def _perform_graceful_shutdown(
        self, manager: NoManager, uvicorn_workers: dict[int, BaseProcess], *args: Any, **kwargs: Any
    ) -> None:
        """Ends the HTTP processes when they have answered their requests, then the workers."""
        logger.info("shutting down: answering open requests")
        self._shutdown_event.set()
        if self._orders.told_by in (signal.SIGTERM, signal.SIGQUIT) and self._drain_delay_s:
            self._shared.draining.set()
            time.sleep(self._drain_delay_s)
        deadline = time.monotonic() + self.uvicorn_graceful_timeout + 1
        _end(list(uvicorn_workers.values()), deadline)
        self._supervisor.join(_LAST_TURN_S)
        # Two threads must not move what the dead have counted; where its last turn hangs, the
        # gauges of processes that are gone are shown for the moment that is left.
        if not self._supervisor.is_alive():
            for process in uvicorn_workers.values():
                if process.pid is not None:
                    self._shared.metrics.forget(process.pid)
        for worker in self._workers:
            worker.leave()
        _end(self.inference_workers, time.monotonic() + 3)


def _end(processes: list[BaseProcess], deadline: float) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            logger.error("%s (pid %s) did not end in time: killed", process.name, process.pid)
            process.kill()
            process.join()

"""LitServer with the life that a service needs: no idle polling, no orphan, no half-dead state.

LitServe starts the processes: HTTP servers by fork, inference workers by spawn. What is ours:
- no manager process: rows don't travel through LitServe's queues, so nothing needs one;
- the HTTP servers start at once, and /readyz says when a worker is there;
- a worker that dies is started again, with growing pauses where it keeps dying;
- an HTTP server that dies ends the whole server with an error: never half alive;
- SIGTERM and SIGINT drain, also as PID 1; a second one ends it at once. After SIGTERM requests are
  taken for a moment longer, while /readyz says 503: a load balancer needs time to look away.
"""

import asyncio
import logging
import multiprocessing.connection
import os
import select
import signal
import socket
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

import litserve
from litserve.transport.base import MessageTransport

from serving import exposition, logs, metrics
from serving.last_call import LastCallServer
from serving.service import DRAIN_SIGNAL

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 30.0
_STABLE_S = 60.0  # a worker that lived this long starts again without a pause


class ShutdownEvent:
    """Set from a signal handler, waited for by a thread: a pipe, since locks aren't safe there."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._set = False

    def set(self) -> None:
        """Wakes `wait`."""
        if not self._set:
            self._set = True
            os.write(self._writer, b"x")

    def is_set(self) -> bool:
        """True once `set` was called."""
        return self._set

    def wait(self) -> None:
        """Returns when `set` was called."""
        select.select([self._reader], [], [])

    def fileno(self) -> int:
        """Readable once set."""
        return self._reader


class NoTransport(MessageTransport):  # type: ignore[misc]
    """Stands where LitServe's response queues would be: nothing ever comes."""

    def send(self, item: Any, consumer_id: int) -> None:
        """Never called: workers answer on their sockets."""
        raise NotImplementedError("workers answer on their sockets")

    async def areceive(
        self, consumer_id: int, timeout: float | None = None, block: bool = True
    ) -> Any:
        """Waits until cancelled."""
        await asyncio.get_running_loop().create_future()

    def close(self, send_sentinel: bool = True) -> None:
        """Nothing to close."""


class NoManager:
    """Stands where LitServe's manager process would be."""

    def shutdown(self) -> None:
        """Nothing to shut down."""


class Server(litserve.LitServer):  # type: ignore[misc]
    """LitServer, kept alive and taken down in order."""

    def __init__(
        self,
        *args: Any,
        drain_delay_s: float,
        drain_timeout_s: int,
        metrics_port: int,
        **kwargs: Any,
    ) -> None:
        """What LitServer doesn't know.

        Args:
            args: LitServer's.
            drain_delay_s: how long to take requests after SIGTERM.
            drain_timeout_s: how long to wait for open ones then.
            metrics_port: where this process answers scrapes; 0: nowhere.
            kwargs: LitServer's.
        """
        super().__init__(*args, **kwargs)
        self.uvicorn_graceful_timeout = drain_timeout_s
        self.failed = False
        self._drain_delay_s = drain_delay_s
        self._metrics_port = metrics_port
        self._told_by: int | None = None
        self._pid = os.getpid()
        self._api_processes: list[BaseProcess] = []

    def run(self, *, host: str, **kwargs: Any) -> None:
        """Serves until a signal comes or an HTTP process dies (then `failed` is true)."""
        self._host = host
        self._shutdown_event = ShutdownEvent()
        signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)  # inherited, until an HTTP process listens
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        super().run(host=host, **kwargs)

    def _on_signal(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # forked processes inherit the handler until they set theirs
            return
        if not self._shutdown_event.is_set():
            self._told_by = number
            self._shutdown_event.set()
            return
        for process in (*self._api_processes, *self.inference_workers):
            process.kill()
        os._exit(128 + number)

    def _init_manager(self, num_api_servers: int) -> NoManager:
        logs.adopt_foreign()  # LitServe has just given its logger a handler
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
        """Leaves the listening socket to the HTTP processes alone.

        While this process held it too, the kernel would go on to take connections that nobody
        accepts any more.
        """
        litserve.server._Server = LastCallServer  # no parameter says which
        processes: dict[int, BaseProcess] = super()._start_server(
            port, num, log_level, sockets, *args, **kw
        )
        for listener in sockets:
            listener.close()
        return processes

    def verify_worker_status(self) -> None:
        """Doesn't wait: the HTTP servers answer probes while the models load."""

    def _start_worker_monitoring(
        self, manager: NoManager, uvicorn_workers: dict[int, BaseProcess]
    ) -> None:
        self._api_processes = list(uvicorn_workers.values())
        # Here nothing is forked any more: threads, and what is counted, stay in this process.
        exposition.register_process("main")
        if self._metrics_port:
            exposition.listen(self._host, self._metrics_port)
        thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        thread.start()

    def _supervise(self) -> None:
        """Sleeps until a process ends, then acts."""
        started = [time.monotonic()] * len(self.inference_workers)
        pauses = [_FIRST_PAUSE_S] * len(started)
        while True:
            processes = [*self._api_processes, *self.inference_workers]
            multiprocessing.connection.wait(
                [self._shutdown_event.fileno(), *(process.sentinel for process in processes)]
            )
            if self._shutdown_event.is_set():
                return
            for process in self._api_processes:
                if not process.is_alive():
                    logger.critical("an HTTP process %s; shutting down", _end_of(process))
                    self.failed = True
                    self._shutdown_event.set()
                    return
            for index, process in enumerate(self.inference_workers):
                if process.is_alive():
                    continue
                exposition.forget_process(process.pid)
                lived_s = time.monotonic() - started[index]
                pauses[index] = (
                    _FIRST_PAUSE_S if lived_s > _STABLE_S else min(pauses[index] * 2, _LAST_PAUSE_S)
                )
                self._restart(index, process, pauses[index])
                started[index] = time.monotonic()

    def _restart(self, index: int, process: BaseProcess, pause_s: float) -> None:
        logger.error(
            "inference worker %d %s; starting it again in %.1f s", index, _end_of(process), pause_s
        )
        # Waits on the event, so that a shutdown isn't held up.
        if multiprocessing.connection.wait([self._shutdown_event.fileno()], timeout=pause_s):
            return
        metrics.WORKER_RESTARTS.inc()
        (lit_api,) = self.litapi_connector
        self.inference_workers[index] = self.launch_single_inference_worker(lit_api, index)

    def _perform_graceful_shutdown(
        self, manager: NoManager, uvicorn_workers: dict[int, BaseProcess], *args: Any, **kwargs: Any
    ) -> None:
        """HTTP processes answer what they hold; then workers go, whom nobody needs any more."""
        logger.info("shutting down: answering open requests")
        self._shutdown_event.set()
        if self._told_by == signal.SIGTERM and self._drain_delay_s:
            for process in uvicorn_workers.values():
                assert process.pid is not None
                os.kill(process.pid, DRAIN_SIGNAL)
            time.sleep(self._drain_delay_s)
        deadline = time.monotonic() + self.uvicorn_graceful_timeout + 1
        _end(list(uvicorn_workers.values()), deadline)
        for process in uvicorn_workers.values():
            exposition.forget_process(process.pid)
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


def _end_of(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"(pid {process.pid}) was killed by {signal.Signals(-code).name}"
    return f"(pid {process.pid}) ended with exit code {code}"

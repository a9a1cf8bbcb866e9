"""Throws exceptions into a server's loops, from outside: on PYTHONPATH it is imported at start.

A file NAME in the folder $FAULTS_FOLDER holds the name of an exception's kind. While it is there,
the function that `TARGETS` has under NAME raises it, in every process that calls it. "death of X"
ends the process instead, where an argument is the bundle of a model X.

$FAULTS_LAST_PAUSE_S is the longest pause before a worker that died is started again: a server that
lives through one death after the other would spend its time in pauses.
"""

import errno
import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from typing import Any

FOLDER = os.environ.get("FAULTS_FOLDER", "")
LAST_PAUSE_S = os.environ.get("FAULTS_LAST_PAUSE_S", "")
TARGETS = {
    "repository": ("serving.inference.engines", "EngineManager.refresh"),
    "announce": ("serving.inference.engines", "EngineManager.announce"),
    "heartbeat": ("serving.inference.progress", "Progress.check"),
    "socket": ("serving.inference.worker", "Worker._is_there"),
    "compute": ("serving.inference.engine", "Engine.make"),
    "counting": ("serving.inference.engine", "Engine.padded"),
    "loading": ("serving.inference.engine", "Engine.__init__"),
    "look-up": ("serving.inference.engines", "EngineManager.load"),
    "frames": ("serving.inference.frames", "FrameProtocol._take"),
    "connection": ("serving.dispatch.worker_client", "WorkerClient._attend"),
    "dispatch": ("serving.dispatch.worker_client", "WorkerClient.send"),
    "taking up": ("serving.dispatch.catalogue", "Catalogue.announce"),
    "delivery": ("serving.dispatch.batcher", "Batcher._deliver"),
    "connections": ("serving.connection.connections", "Connections.sweep"),
    "metrics": ("serving.observability.buffered", "BufferedCounter.flush"),
    "keys": ("serving.process.key_watch", "KeyWatch._read"),
    "supervisor": ("serving.process.inference_workers", "InferenceWorker._listen"),
    "restart": ("serving.process.supervisor", "Server._start_worker"),
}


class ForeignBaseError(BaseException):
    """As extension modules raise it."""


class ForeignError(Exception):
    """It can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def make(kind: str) -> BaseException:
    if kind == "MemoryError":
        return MemoryError()
    if kind == "foreign":
        return ForeignError()
    if kind == "foreign BaseException":
        return ForeignBaseError("odd")
    return OSError(getattr(errno, kind), "thrown in by a test")


def wrapped(name: str, function: Any) -> Any:
    path = os.path.join(FOLDER, name)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            with open(path) as file:
                kind = file.read()
        except OSError:
            kind = ""
        if kind.startswith("death of "):
            names = [each.manifest.name for each in args if hasattr(each, "manifest")]
            if kind.removeprefix("death of ") in names:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        if kind:
            with open(f"{path}.thrown", "a") as file:
                file.write("x")
            raise make(kind)
        return function(*args, **kwargs)

    return wrapper


class Finder(importlib.abc.MetaPathFinder):
    """Finds as usual, and wraps what a module defines once it was run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in {module for module, _ in TARGETS.values()}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                wrap(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def wrap(module: Any) -> None:
    if LAST_PAUSE_S and module.__name__ == "serving.process.inference_workers":
        assert float(LAST_PAUSE_S) < module._LAST_PAUSE_S
        module._LAST_PAUSE_S = float(LAST_PAUSE_S)
    for name, (where, qualified) in TARGETS.items():
        if where == module.__name__:
            holder, attribute = module, qualified
            if "." in qualified:
                holder_name, attribute = qualified.split(".")
                holder = getattr(module, holder_name)
            setattr(holder, attribute, wrapped(name, getattr(holder, attribute)))


if FOLDER:
    sys.meta_path.insert(0, Finder())

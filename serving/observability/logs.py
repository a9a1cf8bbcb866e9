"""Logs of every process to stderr, as text or as one JSON object a line.

A record may carry `fields`: what a program would search for, apart from the message. Other
libraries' loggers (uvicorn's, LitServe's), warnings, exceptions that nobody caught and what is
printed go the same way, which never waits (`serving.observability.log_output`).
"""

import faulthandler
import json
import logging
import multiprocessing
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

from serving.observability import log_output, metrics
from serving.observability.log_output import CLOSING_S, STDERR, output
from serving.observability.shared_values import lock_if_free
from serving.settings import Settings

logger = logging.getLogger(__name__)

ACCESS = "serving.access"
"""The logger of the access log: a line a request."""

_FOREIGN = ("litserve", "uvicorn", "uvicorn.error")


def configure(settings: Settings, process: str) -> None:
    """Sets up this process's logging; process: its name in the logs."""
    name_process(process)
    handler = LogHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # The access log has a setting of its own, whatever the level of the rest.
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    adopt_foreign()
    log_output.adopt_streams()
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    faulthandler.enable(STDERR)  # a crash of native code
    output.describe_lost = handler.describe_lost
    output.count_lost = _count_lost


def adopt_foreign() -> None:
    """Removes the handlers that libraries gave their loggers, so that they write as all do."""
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True


def write_in_thread() -> None:
    """This process forks no more: a thread of its own may write its log."""
    output.start_thread()


def close(timeout_s: float = CLOSING_S) -> None:
    """Before the process ends: waits for the last lines, but not for ever."""
    output.close(timeout_s)


def name_process(name: str) -> None:
    """Sets this process's name in the logs."""
    multiprocessing.current_process().name = name


def fields(**values: Any) -> dict[str, Any]:
    """Makes the `extra` of a log call; values of None are left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


class LogHandler(logging.Handler):
    """Hands lines on to the thread that writes them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hands a line to the thread that writes; never waits, and never raises."""
        try:
            output.write(STDERR, self._line(record))
        except Exception:
            self.handleError(record)

    def describe_lost(self, num: int) -> bytes:
        """The line that tells of lost ones."""
        lines = "line" if num == 1 else "lines"
        text = f"{num} {lines} of the log were dropped here: nobody read them in time"
        return self._line(
            logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        )

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")


def _count_lost(num: int) -> bool:
    with lock_if_free() as free:
        if free:
            metrics.LOG_DROPPED.inc(num)
    return free


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logger.critical("an exception ends the process", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
        name = "?" if arguments.thread is None else arguments.thread.name
        logger.critical("an exception ends the thread %s", name, exc_info=arguments.exc_value)


class TextFormatter(logging.Formatter):
    """Writes `TIME LEVEL logger: message name=value ...`, the time in UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """The time of a record, in UTC; datefmt is not used."""
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Adds the fields to the message."""
        found: dict[str, Any] = getattr(record, "fields", {})
        text = super().formatMessage(record)
        return " ".join([text, *(f"{name}={_plain(value)}" for name, value in found.items())])


class JsonFormatter(logging.Formatter):
    """Writes an object: time, level, logger, process, pid, message, the fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        try:
            return msgspec.json.encode(entry, enc_hook=str).decode("utf-8")
        except Exception:  # half a surrogate pair, as in file names that are no text
            return json.dumps(entry, default=repr)


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & {" ", '"', "="} else repr(text)

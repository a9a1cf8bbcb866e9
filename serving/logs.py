"""Logs of every process to stderr, as text or as one JSON object a line.

A record may carry `fields`: what a program would search for, apart from the message. Other
libraries' loggers (uvicorn's, LitServe's) write the same way.
"""

import logging
import multiprocessing
from datetime import UTC, datetime
from typing import Any

import msgspec

from serving.settings import Settings

ACCESS = "serving.access"
"""The logger of the access log: a line a request."""

_FOREIGN = ("litserve", "uvicorn", "uvicorn.error")


def configure(settings: Settings, process: str) -> None:
    """Sets this process's logging up; process: what it is, where logs show it."""
    name_process(process)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # Asked for by a setting of its own, whatever the level of the rest.
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    adopt_foreign()


def adopt_foreign() -> None:
    """Takes the handlers that libraries gave themselves: they write as everyone does."""
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def name_process(name: str) -> None:
    """What this process is, where logs show it."""
    multiprocessing.current_process().name = name


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call: what is None is left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


class TextFormatter(logging.Formatter):
    """LEVEL logger: message name=value ..."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Part of logging."""
        found: dict[str, Any] = getattr(record, "fields", {})
        text = super().formatMessage(record)
        return " ".join([text, *(f"{name}={_plain(value)}" for name, value in found.items())])


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, process, pid, message, the fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Part of logging."""
        time = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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
        return msgspec.json.encode(entry, enc_hook=str).decode("utf-8")


def _plain(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & {" ", '"', "="} else repr(text)

"""Log lines on stderr, for people or for programs."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import traceback
from typing import Any

from loaders.errors import redact, without_secrets
from loaders.jobs.event_log import trace_id_from_environment

_THEN = "\n\nwhich led to:\n\n"


class _Formatter(logging.Formatter):
    """Libraries quote addresses, keys and values, in what they log and in what they raise."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))

    def formatException(self, ei: Any) -> str:
        """A traceback in which every message is redacted as an event's is."""
        error: BaseException | None = ei[1]
        if error is None:
            return "no exception"
        chain = [error]
        while (cause := _cause(chain[-1])) is not None and cause not in chain:
            chain.append(cause)
        return _THEN.join(map(_told, reversed(chain)))


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    said = f"{type(error).__qualname__}: {redact(str(error))}"
    return f"Traceback (most recent call last):\n{frames}{said}"


class _JsonFormatter(_Formatter):
    """One JSON object a line, with the caller's trace id and, where several connections log to the
    same place, the one that it is of."""

    def __init__(self, connection: str | None) -> None:
        super().__init__()
        self._of = {"connection": connection} if connection else {}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            "trace_id": trace_id_from_environment(),
            **self._of,
        }
        if event := getattr(record, "event", None):  # one that was spooled
            line["event"] = event
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(log_format: str, debug: bool, connection: str | None = None) -> None:
    """Send log lines to stderr, as `text` or `json`; only the project's own below warnings.

    With `connection`, lines in JSON say whose they are.
    """
    handler = logging.StreamHandler(sys.stderr)
    is_json = log_format == "json"
    handler.setFormatter(_JsonFormatter(connection) if is_json else _Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("landfall", "loaders"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    # It warns of every 403, which is then tried again or raised with what to do.
    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)

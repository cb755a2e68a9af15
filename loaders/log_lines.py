"""Log lines on stderr, for people or for programs."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any

from loaders.errors import without_secrets
from loaders.event_log import trace_id_from_environment


class _Formatter(logging.Formatter):
    """Tracebacks quote what libraries say, and these may quote a key."""

    def formatException(self, ei: Any) -> str:
        return without_secrets(super().formatException(ei))


class _JsonFormatter(_Formatter):
    """One JSON object a line, with the caller's trace id."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "trace_id": trace_id_from_environment(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(log_format: str, debug: bool) -> None:
    """Send log lines to stderr, as `text` or `json`; only the project's own below warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("landfall", "loaders"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    # It warns of every 403, which is then tried again or raised with what to do.
    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)

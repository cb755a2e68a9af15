"""How jobs and runs are called."""

from __future__ import annotations

import datetime as dt
import re
import secrets


def new_correlation_id(job_name: str) -> str:
    """`{job_name}-{UTC yyyymmddhhmmss}-{4 hex}`."""
    return f"{job_name}-{dt.datetime.now(dt.UTC):%Y%m%d%H%M%S}-{secrets.token_hex(2)}"


def job_name_for(source_system: str, connection_name: str, what: str = "ingest") -> str:
    """`{source}_ingest_{connection}`, safe in a correlation_id; or `what` else is done."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", f"{source_system}_{what}_{connection_name}")


def label(text: str) -> str:
    """A BigQuery label's value: at most 63 lower-case characters, the end kept."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[-63:]

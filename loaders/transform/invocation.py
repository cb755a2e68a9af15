"""dbt in this process: a command, what it says, and what it leaves open."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loaders.errors import redact, without_content, without_secrets
from loaders.settings.places import PROJECT_DIR, state_dir
from loaders.settings.target import Target
from loaders.warehouse.opening import open_warehouse

# An ingestion does not need dbt's debug log, which takes time.
_QUIETLY = ("--quiet", "--log-level-file", "info")

# dbt's artifacts quote the warehouse and the arguments: they are for who asks for them.
_WRITE_JSON = {"--write-json", "--no-write-json"}

_DEFINITIONS = ("models/**/*.*", "macros/**/*.sql")

# As Python's OSError and DuckDB's IOException quote a path.
_PATH = re.compile(r"(\[Errno \d+\] [\w ,-]+: |\bIO Error: [\w ,-]+ file )(\"/[^\"]*\"|'/[^']*')")


def views_fingerprint() -> str:
    """Of the files that define the views; what these are marked with (mark_view)."""
    digest = hashlib.sha256((PROJECT_DIR / "dbt_project.yml").read_bytes())
    for pattern in _DEFINITIONS:
        for path in sorted(PROJECT_DIR.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def invoke(
    target: Target, run: Mapping[str, str], command: Sequence[str], *, quiet: bool
) -> tuple[Any, str | None]:
    """dbtRunner's result, and the last error that dbt logged: an operation's result has none."""
    from dbt.cli.main import dbtRunner

    errors: list[str] = []

    def remember(event: Any) -> None:
        if event.info.level == "error":
            errors.append(event.info.msg)

    arguments = [
        *(_QUIETLY if quiet else ()),
        *(() if _WRITE_JSON.intersection(command) else ("--no-write-json",)),
        "--log-path",
        str(log_dir(target)),
        *command,
        "--project-dir",
        str(PROJECT_DIR),
        "--profiles-dir",
        str(target.profiles_dir),
        "--target",
        target.name,
        "--target-path",
        str(_target_path(target)),
    ]
    # Views that variables of a command line have shaped are not the project's.
    is_project_s = not any(each.startswith("--vars") for each in command)
    mark = {"LANDFALL_VIEWS": views_fingerprint()} if is_project_s else {}
    with _environment({**run, **mark}), _redacted_log():
        try:
            result = dbtRunner(callbacks=[remember]).invoke(arguments)
            return result, errors[-1] if errors else None
        finally:
            if target.type == "duckdb":
                release_file()


def release_file() -> None:
    """Close what dbt-duckdb keeps open until the process ends: it would lock others out.

    That it does at the end itself by this name, which it documents nowhere.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]


def _target_path(target: Target) -> Path:
    """Where dbt writes, below DBT_TARGET_PATH or the state directory: for each target apart, as
    dbt parses the project again when it changes."""
    return Path(os.environ.get("DBT_TARGET_PATH") or state_dir() / "target") / target.name


def log_dir(target: Target) -> Path:
    """Where dbt's log of a target is."""
    return state_dir() / "logs" / target.key


def may_pass(target: Target, message: str) -> bool:
    """Whether a node failed of what other jobs did, not of what it does."""
    if target.type != "bigquery":
        return False
    from loaders.warehouse.bigquery import is_transient_message

    return is_transient_message(message)


def said_without_values(target: Target, message: str) -> str:
    """What the warehouse said, without values, and what to do about it where that is known."""
    return open_warehouse(target).with_next_step(_without_values(message))


def _without_values(message: str) -> str:
    """A warehouse quotes the values it chokes on; they stay out of every log. Of a file, whose
    path is quoted, too, it says where it is."""
    text = _PATH.sub(lambda found: f"{found[1]}{found[2][1:-1]}", redact(message))
    return re.sub(r"\"[^\"]*\"|'[^']*'", "'...'", text)


@contextlib.contextmanager
def _redacted_log() -> Iterator[None]:
    """What dbt prints and logs of a warehouse's errors shows neither content nor secrets.

    Each of its lines, for the terminal or a file, is a record of Python's logging, made only
    when it is written.
    """
    make = logging.getLogRecordFactory()

    def redacted(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if isinstance(record.msg, str) and not record.args:
            record.msg = without_secrets(without_content(record.msg))
        return record

    logging.setLogRecordFactory(redacted)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

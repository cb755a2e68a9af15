"""What others on this machine must not read: secrets, and what a warehouse and its runs hold."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from loaders.settings.connection import Connection
from loaders.settings.places import PROJECT_DIR, dlt_dir, shown, state_dir, token_path
from loaders.settings.target import Target

_OTHERS = stat.S_IRGRP | stat.S_IROTH
_PRIVATE = 0o077

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_holders, _umask_before = 0, 0


@contextlib.contextmanager
def made_private() -> Iterator[None]:
    """Whatever this process makes meanwhile is 0600, or 0700 of directories.

    DuckDB's log and spilled blocks, dlt's packages and dbt's logs are made by libraries that take
    no mode, so it is the umask, which is the process's: other threads' files are private, too,
    until its last holder gives it back.
    """
    global _holders, _umask_before
    with _lock:
        if not _holders:
            _umask_before = os.umask(_PRIVATE)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                os.umask(_umask_before)


def warn_of_open_files(connection: Connection, target: Target) -> None:
    """A warning line that names the files with secrets of a connection and a target, and mends
    them; one of what holds objects."""
    if not connection.is_sandbox:
        whose = f"secrets of {connection.source_system} '{connection.name}'"
        _warn(whose, "600", _secret_files(connection, target))
    _warn("what is stored", "go=", _object_files(target))


def warn_of_open_secrets(whose: str) -> None:
    """The same of dlt's file of secrets alone."""
    _warn(f"secrets of {whose}", "600", [_secrets()])


def _warn(what: str, mode: str, paths: Iterable[Path]) -> None:
    if names := [shown(path) for path in paths if _is_open(path)]:
        logger.warning(
            "warning: others on this machine can read %s: chmod %s %s",
            what,
            mode,
            shlex.join(names),
        )


def _secrets() -> Path:
    return dlt_dir() / "secrets.toml"


def _secret_files(connection: Connection, target: Target) -> Iterator[Path]:
    yield _secrets()
    yield token_path(connection.source_system, connection.name)
    if target.has_inline_secrets:
        yield target.profiles_dir / "profiles.yml"
    options = [connection.get(name) for name in ("token_file", "service_account_file")]
    for path in (*options, target.settings.get("keyfile")):
        if path:
            yield PROJECT_DIR / Path(str(path)).expanduser()


def _object_files(target: Target) -> Iterator[Path]:
    """A DuckDB file with its log and spilled blocks, the state directory, a spool elsewhere."""
    if target.type == "duckdb":
        for ending in ("", ".wal", ".tmp"):
            yield target.path.with_name(f"{target.path.name}{ending}")
    yield state_dir()
    if base := os.environ.get("LANDFALL_SPOOL_DIR"):
        yield Path(base)


def _is_open(path: Path) -> bool:
    """Whether more than its owner may read the file; of Windows the mode says nothing."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False

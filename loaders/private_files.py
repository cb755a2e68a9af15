"""Files with secrets that others on this machine can read."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from loaders.config import PROJECT_DIR, Connection, Target, dlt_dir, shown, token_path

_OTHERS = stat.S_IRGRP | stat.S_IROTH

logger = logging.getLogger(__name__)


def warn_of_open_files(connection: Connection, target: Target) -> None:
    """One warning line that names the files of a connection and a target, and mends them."""
    names = [shown(path) for path in _files(connection, target) if _is_open(path)]
    if names:
        logger.warning(
            "warning: others on this machine can read secrets of %s '%s': chmod 600 %s",
            connection.source_system,
            connection.name,
            shlex.join(names),
        )


def _files(connection: Connection, target: Target) -> Iterator[Path]:
    yield dlt_dir() / "secrets.toml"
    yield token_path(connection.source_system, connection.name)
    options = [connection.get(name) for name in ("token_file", "service_account_file")]
    for path in (*options, target.settings.get("keyfile")):
        if path:
            yield PROJECT_DIR / Path(str(path)).expanduser()


def _is_open(path: Path) -> bool:
    """Whether more than its owner may read the file; of Windows the mode says nothing."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False

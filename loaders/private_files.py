"""Files with secrets that others on this machine can read."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from loaders.config import PROJECT_DIR, Connection, Target, dlt_dir, shown, token_path

_OTHERS = stat.S_IRGRP | stat.S_IROTH

logger = logging.getLogger(__name__)


def warn_of_open_files(connection: Connection, target: Target) -> None:
    """One warning line that names the files of a connection and a target, and mends them."""
    _warn(f"{connection.source_system} '{connection.name}'", _files(connection, target))


def warn_of_open_secrets(whose: str) -> None:
    """The same of dlt's file of secrets alone."""
    _warn(whose, [_secrets()])


def _warn(whose: str, paths: Iterable[Path]) -> None:
    names = [shown(path) for path in paths if _is_open(path)]
    if names:
        logger.warning(
            "warning: others on this machine can read secrets of %s: chmod 600 %s",
            whose,
            shlex.join(names),
        )


def _secrets() -> Path:
    return dlt_dir() / "secrets.toml"


def _files(connection: Connection, target: Target) -> Iterator[Path]:
    yield _secrets()
    yield token_path(connection.source_system, connection.name)
    if target.has_inline_secrets:
        yield target.profiles_dir / "profiles.yml"
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

"""DuckDB files that stay open in this process, so that nothing has to open them anew.

A run opens and closes its file seven times, so that others may have it in between, and that takes
longer than what it does there. Most tests are about what a run brings; that files are given back
in time is for concurrency/ to prove. Whoever else is to open or replace a file lets go first.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

_held: dict[Path, duckdb.DuckDBPyConnection] = {}


def hold(path: Path) -> None:
    """Keep a file open that is open now."""
    if path not in _held:
        with contextlib.suppress(duckdb.Error):  # it is open to be read alone
            _held[path] = duckdb.connect(str(path))


def let_go() -> None:
    """Close the files, which writes what their logs hold into them."""
    while _held:
        _held.popitem()[1].close()

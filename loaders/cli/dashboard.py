"""`run.py dashboard`: the monitoring marts as one page."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import stat
from pathlib import Path
from typing import Any

from loaders.cli.arguments import add_command, positive, warehouse_of
from loaders.errors import UsageError

DEFAULT_OUTPUT = "landfall-dashboard.html"


def add(commands: Any) -> None:
    """Add the command."""
    dashboard = add_command(
        commands,
        "dashboard",
        _dashboard,
        "write the monitoring marts as one HTML file",
        "The file needs nothing else: it opens without a network, also from a mail.",
    )
    dashboard.add_argument(
        "--output",
        type=Path,
        default=Path(DEFAULT_OUTPUT),
        metavar="FILE",
        help=f"file to write (default {DEFAULT_OUTPUT})",
    )
    dashboard.add_argument(
        "--days", type=positive, default=30, metavar="N", help="UTC days to show (default 30)"
    )


def _dashboard(options: argparse.Namespace) -> int:
    from loaders.monitoring.dashboard.content import read
    from loaders.monitoring.dashboard.page import render

    output: Path = options.output
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UsageError(
            f"dashboard: --output {output}: expected a file in a directory that is there"
        )
    warehouse = warehouse_of(options)
    warehouse.may_be_read_only = True
    page = render(read(warehouse, options.days, dt.datetime.now(dt.UTC)))
    _write(output, page)
    print(f"written: {output} ({len(page.encode()) / 1e6:.1f} MB)")
    return 0


def _write(output: Path, page: str) -> None:
    """Write the file whole: whoever serves it never serves half of it; who may read the former
    one may read this one. Raises UsageError."""
    partial = output.with_name(f"{output.name}.part")
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        if output.exists():
            partial.chmod(stat.S_IMODE(output.stat().st_mode))
        partial.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a read-only disk
            partial.unlink(missing_ok=True)
        raise UsageError(
            f"dashboard: {output}: cannot be written: {error.strerror}; name another with --output"
        ) from error

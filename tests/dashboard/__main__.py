"""Draw docs/dashboard.png: runs of the sandbox after a month that is made up."""

from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
from pathlib import Path

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import load_target
from loaders.transform import bootstrap
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse
from tests.dashboard.browser import run_browser, wait_for_charts
from tests.dashboard.past_runs import write_month

CONNECTIONS = {"me": "gmail", "orders": "gmail", "shop": "stripe"}
_UNSTORABLE = {
    "match": {"method": "messages.get"},
    "every": 60,
    "times": None,
    "action": {"mutate": {"set": {"sizeEstimate": 10**30}}},
}
_REFUSED = {"times": None, "action": {"status": 401}}


def main() -> None:
    """Write the pictures: docs/dashboard.png, or four of them into a directory that is named."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ.update(
            LANDFALL_DUCKDB_PATH=f"{directory}/landfall.duckdb",
            LANDFALL_STATE_DIR=f"{directory}/state",
            DLT_PROJECT_DIR=directory,
        )
        warehouse = open_warehouse(load_target())
        _run_sandbox(warehouse)
        now = dt.datetime.now(dt.UTC)
        write_month(warehouse, CONNECTIONS, now - dt.timedelta(hours=3))
        write_month(warehouse, {"support": "gmail"}, now - dt.timedelta(hours=8))
        page = Path(directory) / "dashboard.html"
        _write_page(warehouse, page, now)
        if len(sys.argv) > 1:
            _draw_variants(page, Path(sys.argv[1]))
        else:
            _draw(page, PROJECT_DIR / "docs" / "dashboard.png", 1280, "light", height=1480)


def _run_sandbox(warehouse: Warehouse) -> None:
    """A run of each connection; some mails cannot be stored, and Stripe refuses a second run."""
    bootstrap.bootstrap(warehouse)
    with Sandbox(size=120, seed=7) as sandbox:
        _run(warehouse, sandbox, "me")
        sandbox.set_faults([_UNSTORABLE])
        _run(warehouse, sandbox, "orders")
        _run(warehouse, sandbox, "shop")
        sandbox.set_faults([_REFUSED])
        _run(warehouse, sandbox, "shop")


def _run(warehouse: Warehouse, sandbox: Sandbox, name: str) -> None:
    from tests.python.conftest import gmail_source, run_ingestion, stripe_source

    source = CONNECTIONS[name]
    make = gmail_source if source == "gmail" else stripe_source
    run_ingestion(
        Ingestion(
            warehouse,
            lambda: make(sandbox, name),
            source_system=source,
            connection_name=name,
            options=IngestOptions(),
        )
    )


def _write_page(warehouse: Warehouse, path: Path, now: dt.datetime) -> None:
    from loaders.monitoring.dashboard.content import read
    from loaders.monitoring.dashboard.page import render

    path.write_text(render(read(warehouse, 30, now)), encoding="utf-8")


def _draw_variants(page: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "dashboard.html").write_bytes(page.read_bytes())
    for width in (1280, 360):
        for scheme in ("light", "dark"):
            _draw(page, directory / f"{width}-{scheme}.png", width, scheme)


def _draw(page: Path, picture: Path, width: int, scheme: str, height: int | None = None) -> None:
    """A picture of the page, or of its top when a height is given."""
    with run_browser() as browser:
        shown = browser.new_page(
            viewport={"width": width, "height": height or 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        shown.on("console", lambda message: print(message.type, message.text[:300]))
        shown.on("pageerror", lambda error: print("error", str(error)[:300]))
        shown.goto(page.as_uri())
        wait_for_charts(shown)
        shown.screenshot(path=picture, full_page=height is None)


if __name__ == "__main__":
    main()

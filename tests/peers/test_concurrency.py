"""Two jobs at the same time on BigQuery, their first builds included."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.layout import LABEL_NAMES
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse
from loaders.warehouse.bigquery import BigQueryWarehouse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONNECTIONS = ("acct1", "acct2")
SIZE = 40


def start(connection: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "loaders/run.py", "gmail", "--connection", connection]
    return subprocess.Popen(
        [*command, "--target", "emulator"],
        cwd=PROJECT_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_first_jobs_at_once_both_end_well(
    own_datasets: Callable[[str], BigQueryWarehouse],
) -> None:
    warehouse = own_datasets("concurrent")
    environment = {**os.environ}
    with Sandbox(size=SIZE, seed=1) as first, Sandbox(size=SIZE, seed=2) as second:
        for connection, sandbox in zip(CONNECTIONS, (first, second), strict=True):
            prefix = f"SOURCES__GMAIL__{connection.upper()}__"
            environment[f"{prefix}ACCESS_TOKEN"] = "token-of-the-sandbox"
            environment[f"{prefix}UNITS_PER_MINUTE"] = "10000000"
            environment[f"{prefix}API_BASE_URL"] = sandbox.base_url
        expected = {
            "acct1": len(set(first.live_ids())),
            "acct2": len(set(second.live_ids())),
        }
        for _ in range(2):
            processes = [start(connection, environment) for connection in CONNECTIONS]
            outputs = [process.communicate(timeout=300)[0] for process in processes]
            assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
            # A MERGE takes in what all complete loads hold, its own and the other job's.
            brought = inserted(warehouse)
            assert sum(brought) == sum(expected.values()) + len(CONNECTIONS) * len(LABEL_NAMES)
    rows = warehouse.execute(
        "select connection_name, count(*), count(distinct idem_key)"
        f" from {warehouse.table('raw_objects')} where object_type = 'message'"
        " group by connection_name order by connection_name"
    )
    assert rows == [(name, number, number) for name, number in sorted(expected.items())]


def inserted(warehouse: Warehouse) -> list[int]:
    """What each completed run says that it inserted."""
    rows = warehouse.execute(
        f"select {warehouse.json_text('payload', '$.inserted')}"
        f" from {warehouse.table('event_log')} where event_type = 'job.completed'"
    )
    return [int(number) for (number,) in rows]

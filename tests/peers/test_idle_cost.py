"""What a run that finds nothing sends to BigQuery, however much is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.target import load_target
from loaders.warehouse.bigquery import BigQueryWarehouse
from tests.bench.statements import Recorder
from tests.peers.emulator import run_emulator
from tests.python.conftest import Run, run_gmail, run_stripe

MOST_JOBS, MOST_REQUESTS, LONGEST_CHAIN = 8, 40, 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", [run_gmail, run_stripe], ids=["gmail", "stripe"])
def test_an_idle_run_sends_a_handful_of_jobs_and_reads_no_object(
    run: Callable[..., Run], peer_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "emulator"
    data.mkdir()
    with run_emulator(data) as emulator, Sandbox(size=30, seed=7) as sandbox:
        for name, value in (
            ("DBT_PROFILES_DIR", str(peer_project)),
            ("DLT_PROJECT_DIR", str(peer_project)),
            ("LANDFALL_STATE_DIR", str(tmp_path / "state")),
            ("LANDFALL_EMULATOR_URL", emulator.url),
        ):
            monkeypatch.setenv(name, value)
        recorder = Recorder(emulator, data)
        for _ in range(2):  # what is due is read again once
            assert run(new_warehouse(), sandbox).error is None
        recorder.take()
        idle = run(new_warehouse(), sandbox)
        sent = recorder.take()
    assert idle.error is None
    assert idle.telemetry["records_extracted"] == 0
    statements = [job.text for job in sent.jobs]
    print(f"{len(sent.jobs)} jobs, {sent.requests} requests, a chain of {sent.chain}")
    assert 0 < len(sent.jobs) <= MOST_JOBS, statements
    assert sent.requests <= MOST_REQUESTS
    assert sent.chain <= LONGEST_CHAIN + 1
    assert not [text for text in statements if "raw_objects" in text]
    assert not [text for text in statements if "INFORMATION_SCHEMA" in text]


def new_warehouse() -> BigQueryWarehouse:
    return BigQueryWarehouse(load_target("emulator"))

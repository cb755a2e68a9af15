"""Runs of an account: what they print, and their exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.sources.stripe.kinds import OBJECT_TYPES
from loaders.warehouse.base import Warehouse
from tests.python.cli.conftest import one_line, run_main
from tests.python.conftest import Project, count, event_types, events

from .conftest import KEY, connect, set_options

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open", "own_secrets"),
    pytest.mark.timeout(300),
]


def stored_types(warehouse: Warehouse, connection: str = "acct1") -> dict[str, int]:
    rows = warehouse.execute(
        "select object_type, count(*) from events.raw_objects where source_system = 'stripe'"
        " and connection_name = ? group by 1",
        (connection,),
    )
    return dict(rows)


def in_account(sandbox: Sandbox, object_types: Sequence[str] = OBJECT_TYPES) -> dict[str, int]:
    counts = {name: len(sandbox.stripe_objects(name)) for name in object_types}
    return {name: number for name, number in counts.items() if number}


@pytest.mark.slow
def test_the_sandbox_is_read_whole_and_then_what_is_new(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(capsys, "stripe", "--sandbox-size", "30")
    assert code == 0, err
    connection, reason, *rest = out.splitlines()
    assert connection.startswith("connection: sandbox, a local server with generated payments")
    assert "api_key into .dlt/secrets.toml" in reason
    assert rest[0].startswith("warehouse:")
    assert "full" in out
    [landed] = re.findall(r"inserted: +([\d,]+)", out)
    assert int(landed.replace(",", "")) == count(warehouse, "events.raw_objects") > 30
    assert stored_types(warehouse, "sandbox")["charge"] == 30
    code, out, _ = run_main(capsys, "stripe")
    assert code == 0
    assert "incremental" in out
    assert event_types(warehouse) == ["job.started", "ingestion.completed", "job.completed"] * 2
    modes = [
        event["payload"]["mode"]
        for event in events(warehouse)
        if event["event_type"] == "ingestion.completed"
    ]
    assert modes == ["full", "incremental"]


@pytest.mark.slow
def test_the_sandboxes_of_both_sources_do_not_mix(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in ("gmail", "stripe", "gmail", "stripe"):
        assert run_main(capsys, source, "--sandbox-size", "5")[0] == 0
    rows = warehouse.execute(
        "select source_system, object_type, count(*) from events.raw_objects"
        " where object_type in ('message', 'charge') group by 1, 2 order by 1"
    )
    assert rows == [("gmail", "message", 5), ("stripe", "charge", 5)]


@pytest.mark.slow
def test_chosen_objects_are_read_and_no_others(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("charge", "refund", "invoice_line")
    code, out, err = run_main(capsys, "stripe", "--objects", " charge,refund, invoice_line")
    assert code == 0, err
    assert stored_types(warehouse) == in_account(connected, chosen)
    assert "customers.list" not in connected.stats()["requests"]
    assert out.startswith("connection: stripe 'acct1'\n")


@pytest.mark.slow
def test_chosen_objects_win_over_the_connections(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(monkeypatch, connected, objects="customer,price")
    assert run_main(capsys, "stripe")[0] == 0
    assert stored_types(warehouse) == in_account(connected, ("customer", "price"))
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    assert stored_types(warehouse) == in_account(connected, ("customer", "price", "product"))


@pytest.mark.parametrize("objects", ["charge,chrage", "charges", "event", "", ",", "*"])
def test_an_unknown_object_is_one_line_that_names_the_known_ones(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str], objects: str
) -> None:
    code, _, err = run_main(capsys, "stripe", "--objects", objects)
    assert code == 2
    line = one_line(err) if "usage:" not in err else err
    assert "objects" in line
    for name in OBJECT_TYPES:
        assert name in line
    assert "chrage" in line or "chrage" not in objects
    assert connected.stats()["requests"] == {}


def test_objects_are_no_option_of_a_mailbox(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "gmail", "--objects", "charge")
    assert code == 2
    assert "gmail: --objects is not supported" in err


def test_help_mentions_the_options_of_an_account(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_main(capsys, "stripe", "--help")
    assert code == 0
    for option in ("--objects", "--since", "--until-done", "--dry-run", "--all", "charges"):
        assert option in out


@pytest.mark.slow
def test_a_dry_run_writes_nothing(
    project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(capsys, "stripe", "--dry-run")
    assert code == 0, err
    total = sum(in_account(connected).values())
    assert f"{total:,}" in out or str(total) in out
    assert not project.duckdb_path.exists()
    assert [path for path in project.state_dir.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_dry_run_of_a_warehouse_that_is_there_leaves_it_as_it_was(
    warehouse: Warehouse, project: Project, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    before = (
        stored_types(warehouse),
        event_types(warehouse),
        count(warehouse, "events_staging.cursors"),
    )
    assert run_main(capsys, "stripe", "--dry-run", "--full-resync")[0] == 0
    assert before == (
        stored_types(warehouse),
        event_types(warehouse),
        count(warehouse, "events_staging.cursors"),
    )


@pytest.mark.slow
def test_dates_bound_what_is_read(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    times = sorted(value["created"] for value in connected.stripe_objects("charge").values())
    since, until = times[5], times[12]
    code, _, err = run_main(
        capsys, "stripe", "--objects", "charge", "--since", iso(since), "--until", iso(until)
    )
    assert code == 0, err
    rows = warehouse.execute("select external_id from events.raw_objects")
    assert {key for (key,) in rows} == {
        key
        for key, value in connected.stripe_objects("charge").items()
        if since <= value["created"] < until
    }
    streams = warehouse.execute(
        "select distinct stream from events_staging.cursors where stream <> '_package'"
    )
    assert streams == [("created_between",)]  # what a bounded run left; no kind's position
    [telemetry] = [
        event["payload"]
        for event in events(warehouse)
        if event["event_type"] == "ingestion.completed"
    ]
    assert set(telemetry["date_filter"]) == {"since", "until"}


def iso(seconds: int) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.slow
def test_runs_go_on_until_nothing_is_left(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(
        capsys, "stripe", "--objects", "charge", "--max-objects", "8", "--until-done"
    )
    assert code == 0, err
    assert stored_types(warehouse) == in_account(connected, ("charge",))
    completed = event_types(warehouse).count("job.completed")
    assert completed >= 3
    assert out.count("inserted:") == completed


@pytest.mark.slow
def test_retry_runs_both_sources(
    project: Project,
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(
        monkeypatch,
        "me",
        "gmail",
        access_token="any-token",
        api_base_url=connected.base_url,
        backoff_seconds=0.001,
        max_attempts=2,
        unit_costs=json.dumps({"threads.get": 10_000}),
    )
    product = next(iter(connected.stripe_objects("product")))
    message = connected.live_ids()[0]
    page = {"object": "list", "data": [{"id": product, "twice": 1}], "has_more": False}
    text = json.dumps(page).replace('"twice": 1', '"twice": 1, "twice": 2')
    connected.set_faults(
        [
            {
                "match": {"method": "products.list"},
                "times": None,
                "action": {"body": text, "content_type": "application/json"},
            },
            {
                "match": {"method": "messages.get", "id": message},
                "times": None,
                "action": {"json": [1]},
            },
        ]
    )
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 1
    assert run_main(capsys, "gmail")[0] == 1
    letters = json.loads(run_main(capsys, "dead-letters", "--json")[1])
    assert {letter["external_id"] for letter in letters} == {product, message}
    connected.set_faults([])
    done = project.run_cli("retry")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 connections: 2 completed")
    assert run_main(capsys, "dead-letters")[1] == "no dead letters\n"
    rows = warehouse.execute(
        "select distinct correlation_id from events.event_log where event_type = 'job.completed'"
    )
    jobs = {correlation_id.rsplit("-", 2)[0] for (correlation_id,) in rows}
    assert jobs == {"gmail_ingest_me", "stripe_ingest_acct1"}
    assert stored_types(warehouse) == {"product": 1}


@pytest.mark.slow
def test_retry_of_one_source_leaves_the_other_alone(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(
        monkeypatch, "me", "gmail", access_token="any-token", api_base_url=connected.base_url
    )
    for arguments in (["stripe"], ["--connection", "acct1"]):
        code, out, _ = run_main(capsys, "retry", *arguments)
        assert code == 0
        assert out.endswith("no dead letters\n")
        assert "gmail" not in out


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["1", "2"])
def test_one_connection_that_fails_does_not_stop_the_other(
    project: Project,
    warehouse: Warehouse,
    account: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    parallel: str,
) -> None:
    connect(monkeypatch, account, "ann", api_key="rk_test_expiredCanary0123456789")
    connect(monkeypatch, account, "bob")
    done = project.run_cli(
        "stripe", "--all", "--objects", "product", "--parallel", parallel, "--lock-wait", "100s"
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "2 connections: 1 completed, 1 did not: ann"
    [line] = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "sources.stripe.ann.api_key" in line
    assert stored_types(warehouse, "bob") == in_account(account, ("product",))
    assert stored_types(warehouse, "ann") == {}
    assert "expiredCanary" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_kind_that_cannot_be_read_is_exit_1_and_one_line(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    connected.settings(stripe_permissions={KEY: ["product", "event", "account"]})
    code, out, err = run_main(capsys, "stripe", "--objects", "product,price")
    assert code == 1
    line = err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert "price" in line
    assert "rak_price_read" in line
    assert "inserted:" in out
    assert stored_types(warehouse) == in_account(connected, ("product",))

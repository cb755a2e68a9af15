"""The commands on a Stripe account: what they print, their exit codes, and never the key."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.settings.places import PROJECT_DIR
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.warehouse.base import Warehouse

from .conftest import Project, count, event_types, events
from .test_cli import configure, one_line, run_main

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open", "own_secrets"),
    pytest.mark.timeout(300),
]

KEY = "rk_test_canary5e1dDoNotPrint0123456789"
PARTS = ["key", "account", "permissions", "limits", "warehouse", "cursor", "alerts"]
CHARGES = 20


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(size=5, charges=CHARGES, seed=7) as sandbox:
        yield sandbox


@pytest.fixture
def account(server: Sandbox) -> Sandbox:
    """A Stripe account and a mailbox for the tests of this module; leave them as they are."""
    server.set_faults([])
    server.settings(stripe_permissions={}, stripe_clock_offset=0)
    server.reset_stats()
    return server


def set_options(
    monkeypatch: pytest.MonkeyPatch, name: str, source: str = "stripe", **options: Any
) -> None:
    for option, value in options.items():
        variable = f"SOURCES__{source}__{name}__{option}".upper()
        monkeypatch.setenv(variable, str(value))


def connect(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, name: str = "acct1", **options: Any
) -> None:
    """A connection to the account, its waits cut short."""
    own = {"api_key": KEY, "backoff_seconds": 0.001, "max_attempts": 3}
    rates = {"requests_per_second": 100_000, "endpoint_requests_per_second": 100_000}
    own |= {"api_base_url": sandbox.base_url, **rates}
    set_options(monkeypatch, name, **{**own, **options})


@pytest.fixture
def connected(account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    connect(monkeypatch, account)
    return account


def fault(server: Sandbox, method: str, **action: Any) -> None:
    server.set_faults([{"match": {"method": method}, "action": action, "times": None}])


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


# ---- runs


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


# ---- configuration


def test_no_key_is_one_line_with_the_next_step(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_options(monkeypatch, "acct1", workers=3)
    code, _, err = run_main(capsys, "stripe")
    assert code == 2
    line = one_line(err)
    assert "sources.stripe.acct1.api_key" in line
    assert "SOURCES__STRIPE__ACCT1__API_KEY" in line
    assert event_types(warehouse)[-1] == "job.failed"


@pytest.mark.parametrize(
    "key",
    [
        "pk_live_canary5e1dDoNotPrint0123",
        "pk_test_canary5e1dDoNotPrint0123",
        "whsec_canary5e1dDoNotPrint0123",
        "canary5e1dDoNotPrint0123",
        f'"{KEY}"',
        "acct_canary5e1dDoNotPrint0123",
    ],
)
def test_what_is_no_key_is_refused_and_not_printed(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    for command in ("stripe", "check"):
        code, out, err = run_main(capsys, command)
        assert code == (2 if command == "stripe" else 1)
        said = one_line(err) if command == "stripe" else out
        assert "api_key" in said
        assert "sk_" in said
        assert "rk_" in said
        assert "canary5e1d" not in out + err
    assert "canary5e1d" not in json.dumps(events(warehouse), default=str)
    assert connected.stats()["requests"] == {}


@pytest.mark.parametrize(
    "key",
    ["rk_test_canary…5e1d", "rk_test_canary5e1d\u200b", "sk_live_ключ12"],
    ids=["shortened", "copied with an invisible character", "other letters"],
)
def test_a_key_that_no_header_can_carry_is_refused(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    code, out, err = run_main(capsys, "stripe")
    assert code == 2
    assert "sources.stripe.acct1.api_key" in one_line(err)
    assert key not in out + err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", "0"),
        ("workers", "many"),
        ("max_attempts", "0"),
        ("objects", "charge,chrage"),
        ("objects", ""),
        ("requests_per_second", "-1"),
        ("endpoint_requests_per_second", "0"),
        ("event_overlap_seconds", "-5"),
        ("max_deletions_percent", "101"),
        ("timeout_seconds", "soon"),
        ("timeout_seconds", "0"),
        ("backoff_seconds", "-1"),
        ("requests_per_second", "nan"),
        ("api_base_url", "api.stripe.com"),
    ],
)
def test_a_wrong_option_is_named(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
) -> None:
    set_options(monkeypatch, "acct1", **{option: value})
    code, _, err = run_main(capsys, "stripe")
    assert code == 2
    line = one_line(err)
    assert "sources.stripe.acct1" in line
    assert option in line


def test_an_unknown_connection_says_where_to_add_it(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "stripe", "--connection", "nowhere")
    assert code == 2
    line = one_line(err)
    assert "configured: acct1" in line
    assert "[sources.stripe.nowhere]" in line
    assert "auth" not in line


def test_several_connections_ask_for_a_choice(
    warehouse: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, f'[sources.stripe.one]\napi_key = "{KEY}"\n[sources.stripe.two]\n')
    code, out, err = run_main(capsys, "stripe")
    assert code == 2
    assert "one, two" in one_line(err)
    assert KEY not in out + err


# ---- check


class Checked:
    """What the command printed, by part."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code, self.out, self.err = run_main(capsys, "check", *arguments)
        assert KEY not in self.out + self.err
        found = re.findall(r"(?m)^(\w+) +(ok|FAILED|-) +(.+)$", self.out)
        self.parts = [part for part, _, _ in found]
        self.texts = {part: text for part, _, text in found}
        self.failed = [part for part, state, _ in found if state == "FAILED"]


@pytest.mark.slow
def test_an_account_that_works_is_a_line_a_part(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys, "stripe")
    assert (checked.code, checked.failed, checked.err) == (0, [], "")
    assert checked.parts == PARTS
    assert "restricted key of test mode" in checked.texts["key"]
    assert checked.texts["account"].startswith("acct_")
    for kind in (*KINDS, "event"):
        assert kind in checked.texts["permissions"]
    assert "full" in checked.texts["cursor"]
    assert event_types(warehouse) == []
    assert run_main(capsys, "stripe")[0] == 0
    assert "incremental" in Checked(capsys, "stripe").texts["cursor"]
    connected.settings(stripe_clock_offset=40 * 86_400)
    said = Checked(capsys).texts["cursor"]
    assert "lists" in said
    assert "charge" in said
    assert "balance_transaction" not in said


def test_the_sandbox_works_and_is_not_kept(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = Checked(capsys, "stripe")
    assert (checked.code, checked.parts, checked.failed) == (0, PARTS, [])
    assert not project.duckdb_path.exists()
    assert not list(project.state_dir.rglob("*.sqlite"))


def test_a_permission_that_is_lacking_is_named(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = [name for name in (*KINDS, "event", "account") if name not in ("dispute", "event")]
    connected.settings(stripe_permissions={KEY: allowed})
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["permissions"])
    said = checked.texts["permissions"]
    for name in ("dispute", "rak_dispute_read", "event", "rak_event_read"):
        assert name in said
    assert "rak_charge_read" not in said


def test_a_key_that_may_not_say_its_account_works(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    connected.settings(stripe_permissions={KEY: [*KINDS, "event"]})
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (0, [])
    assert "may not say" in checked.texts["account"]


@pytest.mark.parametrize(
    "key", ["rk_test_expired0123456789", "rk_unknown_0123456789"], ids=["expired", "unknown"]
)
def test_a_key_that_is_not_accepted_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    set_options(monkeypatch, "acct1", api_key=key)
    checked = Checked(capsys)
    assert checked.code == 1
    assert checked.failed == ["key"]
    assert "sources.stripe.acct1.api_key" in checked.texts["key"]
    assert checked.texts["permissions"] == checked.texts["cursor"] == "not known, see what failed"
    assert key not in checked.out


def test_a_key_that_is_refused_without_a_reason_is_what_fails(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(connected, "account.get", status=401, body="<html>")
    assert Checked(capsys).failed == ["key"]


def test_an_account_that_is_not_there_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(monkeypatch, "acct1", stripe_account="acct_of_nobody")
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["account"])
    assert "sources.stripe.acct1.stripe_account" in checked.texts["account"]


@pytest.mark.slow
def test_another_account_than_before_is_what_fails(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    set_options(monkeypatch, "acct1", stripe_account="acct_sandbox_connected")
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["cursor"])
    assert "another account" in checked.texts["cursor"]


def test_a_server_that_is_down_is_tried_twice(
    warehouse: Warehouse, connected: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(connected, "*", status=503)
    checked = Checked(capsys)
    assert (checked.code, checked.failed) == (1, ["account"])
    assert connected.stats()["requests"] == {"account.get": 2}


def test_both_sources_are_checked_when_both_are_configured(
    warehouse: Warehouse,
    connected: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_options(
        monkeypatch, "me", "gmail", access_token="any-token", api_base_url=connected.base_url
    )
    code, out, _ = run_main(capsys, "check")
    assert code == 0
    assert "gmail 'me'" in out
    assert "stripe 'acct1'" in out
    fault(connected, "charges.list", status=403)
    assert run_main(capsys, "check")[0] == 1
    assert run_main(capsys, "check", "gmail")[0] == 0


# ---- several


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


# ---- the key is nowhere


ECHO = base64.b64encode(f"{KEY}:".encode()).decode()
ERROR = {"error": {"code": "some_code", "message": f"key {KEY}, Authorization: Basic {ECHO}"}}
PAGE = {"object": "list", "data": [], "has_more": True, "url": KEY}
FAULTS: dict[str, dict[str, Any]] = {
    "400": {"status": 400, "json": ERROR},
    "401": {"status": 401, "json": ERROR},
    "402": {"status": 402, "json": ERROR},
    "403": {"status": 403, "json": ERROR},
    "404": {"status": 404, "json": ERROR},
    "409": {"status": 409, "json": ERROR},
    "429": {"status": 429, "json": ERROR},
    "500": {"status": 500, "json": ERROR},
    "dropped": {"drop": True},
    "cut off": {"truncate": True},
    "HTML": {"body": f"<html>Authorization: Basic {ECHO} {KEY}</html>"},
    "text": {"body": f"Authorization: Basic {ECHO} {KEY}", "status": 502},
    "redirect": {"body": f"{KEY} {ECHO}", "status": 302},
    "no end": {"json": PAGE},
}


def leaks(texts: dict[str, str], *needles: str) -> list[str]:
    return [name for name, text in texts.items() if any(needle in text for needle in needles)]


def files_below(*directories: Path) -> dict[str, str]:
    """What every file holds, and its name."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = f"{path}\n{path.read_bytes().decode(errors='replace')}"
    return found


def text_columns(warehouse: Warehouse) -> dict[str, str]:
    """Every row of every table as one text each."""
    tables = warehouse.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_type = 'BASE TABLE'"
    )
    return {
        f"{schema}.{table}": json.dumps(
            warehouse.execute(f'select * from "{schema}"."{table}"'), default=str
        )
        for schema, table in tables
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["*", "products.list", "events.list"])
def test_the_key_is_nowhere_whatever_goes_wrong(
    project: Project,
    warehouse: Warehouse,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    """Faults that echo it: of all requests, of one kind's, of the feed."""
    target = PROJECT_DIR / "target" / project.target
    assert run_main(capsys, "stripe", "--objects", "product")[0] == 0
    said = {}
    for name, action in FAULTS.items():
        fault(connected, method, **action)
        arguments = ["stripe", "--objects", "product,price", "--debug", "--log-format", "json"]
        arguments += ["--full-resync"] if method == "products.list" else []
        code, out, err = run_main(capsys, *arguments)
        assert code == 1 or (name == "404" and method == "events.list"), (name, code, err)
        said[name] = out + err
        assert "Traceback" in err, name  # as --debug promises
    needles = (KEY, KEY[8:], ECHO, ECHO[12:40], "canary5e1d")
    assert leaks(said, *needles) == []
    assert leaks(text_columns(warehouse), *needles) == []
    state = files_below(project.state_dir, project.dlt_dir, target)
    assert leaks(state, *needles) == []
    # DuckDB's own file, too: rows that were deleted are in it.
    assert leaks(files_below(project.duckdb_path.parent), *needles) == []


@pytest.mark.parametrize("options", [[], ["--debug"], ["--debug", "--log-format", "json"]])
def test_a_key_for_the_name_of_an_error_is_not_shown(
    warehouse: Warehouse,
    connected: Sandbox,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    error = {"error": {"code": KEY, "type": KEY, "param": KEY, "message": KEY}}
    fault(connected, "account.get", status=400, json=error)
    code, out, err = run_main(capsys, "stripe", *options)
    assert code == 1
    assert KEY not in out + err
    assert KEY not in json.dumps(events(warehouse), default=str)


@pytest.mark.slow
def test_the_key_is_nowhere_in_a_process_of_its_own(
    project: Project, warehouse: Warehouse, connected: Sandbox
) -> None:
    """Log handlers, warnings at exit and tracebacks of threads are a process's own."""
    for command in (["stripe", "--objects", "product"], ["check", "stripe"], ["status"]):
        for action in ({"status": 500, "json": ERROR}, {"drop": True}, FAULTS["HTML"]):
            fault(connected, "products.list", **action)
            done = project.run_cli(*command, "--debug", "--log-format", "json")
            assert leaks({"out": done.stdout, "err": done.stderr}, KEY, ECHO) == []

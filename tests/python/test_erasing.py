"""Erasing: what goes, what stays as a block, and that nothing brings an erased object back."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import CheckFailed, ConfigError, UsageError, WarehouseBusy
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.ingestion.landing import Landing
from loaders.jobs.job import Job
from loaders.objects.erasure_blocks import Erased, key_hash
from loaders.objects.idem_keys import idem_key, owner_key
from loaders.objects.items import Deleted, Item, Observed, Unfetched
from loaders.settings.places import PROJECT_DIR
from loaders.transform import dbt_build, merge_counts
from loaders.upkeep import retention
from loaders.upkeep.erasing import Erasure, Selection
from loaders.upkeep.retention import Retention
from loaders.upkeep.where_clause import check_condition
from loaders.upsert import upsert_objects
from loaders.warehouse.base import Warehouse
from tests.peers.gate import Gate

from .cli.conftest import one_line, run_main
from .conftest import (
    EMULATOR,
    Project,
    assert_accounted,
    at,
    count,
    events,
    gmail_source,
    on_both_targets,
    prepared,
    run_scripted,
    stored,
)

pytestmark = pytest.mark.usefixtures("stays_open")

CANARY = "canary-content-7f3a"
ACME = ("acme", "acct1")


def widget(name: str, seconds: float, text: str = CANARY) -> Observed:
    return Observed("widget", json.dumps({"id": name, "text": text}), at(seconds), name)


def ingest(warehouse: Warehouse) -> None:
    items: Sequence[Item] = [
        *(widget(name, 1) for name in ("a", "b", "c")),
        Observed("widget", f'{{"id": "d", "text": "{CANARY}", "n": 1e999}}', at(2), "d"),
        Unfetched("widget", "e", "refused"),
    ]
    run_scripted(warehouse, items)


@pytest.fixture
def filled(core_build: None, project: Project) -> Warehouse:
    """Three objects, two dead letters."""
    return prepared(project, "before_erasure", ingest)


def erase(warehouse: Warehouse, *keys: str, where: str | None = None) -> Erasure:
    erasure = Erasure(warehouse, Selection(*ACME, keys, where), "asked for by their owner")
    erasure.run()
    return erasure


def key(name: str) -> str:
    return f"acme:acct1:widget:{name}"


@pytest.mark.slow
def test_erased_objects_go_from_every_table_and_do_not_come_back(filled: Warehouse) -> None:
    erasure = erase(filled, key("a"), key("d"), key("not-yet"))
    assert erasure.counts == {
        "blocks": 3,
        "landed_objects": 0,
        "raw_objects": 1,
        "dead_letters": 1,
    }
    assert set(stored(filled)) == {"b", "c"}
    rows = filled.execute("select external_id from events_staging.dead_letters")
    assert rows == [("e",)]
    blocks = filled.execute(
        "select key_hash, object_type, reason, correlation_id from events.erasures"
        " order by key_hash"
    )
    assert blocks == sorted(
        (key_hash(key(name)), "widget", "asked for by their owner", erasure.job.correlation_id)
        for name in ("a", "d", "not-yet")
    )
    again: Sequence[Item] = [
        widget("a", 10),
        widget("not-yet", 10),
        widget("b", 10, "new"),
        Deleted("widget", "a", at(11)),
        Observed("widget", '{"id": "d", "n": 1e999}', at(12), "d"),
    ]
    run = run_scripted(filled, again)
    assert run.error is None
    assert run.telemetry["erased"] == 4
    assert run.counts == {"updated": 1}
    assert_accounted(run.telemetry)
    assert set(stored(filled)) == {"b", "c"}
    assert count(filled, "events_staging.dead_letters") == 1


@on_both_targets
@pytest.mark.slow
def test_a_run_accounts_for_what_was_erased_since(filled: Warehouse, project: Project) -> None:
    [(run,)] = filled.execute("select distinct inserted_by from events.raw_objects")
    erase(filled, key("a"), key("not-yet"), where="external_id = 'b'")
    noted = filled.execute("select inserted_by from events.erasures order by 1")
    assert sorted(noted, key=str) == [(run,), (run,), (None,)]
    assert merge_counts.merge_counts(filled, run, ACME)["inserted"] == 3
    # With the check that compares the store with the log.
    assert run_scripted(filled, []).error is None


@on_both_targets
@pytest.mark.slow
def test_what_was_landed_before_is_not_merged_and_leaves_the_queue(filled: Warehouse) -> None:
    """As by another job at the same time: the merge itself leaves it out."""
    landing = Landing(
        filled,
        source_system="acme",
        connection_name="acct1",
        correlation_id="r2",
        idem_key_of=lambda item, payload: key(payload["id"]),
    )
    landing.observe(widget("a", 20, "newer"))
    landing.observe(widget("b", 20, "newer"))
    landing.flush()
    landing.close()
    insert_block(filled, *ACME, "widget", key("a"))
    result = dbt_build.build(filled.target, "r3", ["--exclude", "assert_erasures"])
    assert result.error is None
    assert count(filled, "events_staging.landed_objects") == 0
    assert merge_counts.merge_counts(filled, "r3")["updated"] == 1
    # It is held all the same: the acceptance test says so, and what to do.
    result = dbt_build.build(filled.target, "r4", ["--select", "assert_erasures"])
    assert isinstance(result.error, CheckFailed)
    assert erase(filled).counts == {
        "blocks": 0,
        "landed_objects": 0,
        "raw_objects": 1,
        "dead_letters": 0,
    }
    assert set(stored(filled)) == {"b", "c"}


@on_both_targets
@pytest.mark.slow
def test_a_condition_erases_the_rows_that_it_names_and_no_others(filled: Warehouse) -> None:
    text = filled.json_text("payload", "$.id")
    where = f"object_type = 'widget' and {text} in ('a', 'b')"
    counts = Erasure(filled, Selection(*ACME, condition=where)).preview()
    assert counts == {"raw_objects": 2, "landed_objects": 0, "dead_letters": 0}
    assert len(stored(filled)) == 3
    assert Erasure(filled, Selection("acme", "acct2", condition="true")).preview() == {
        "raw_objects": 0,
        "landed_objects": 0,
        "dead_letters": 0,
    }
    assert erase(filled, where=where).counts["raw_objects"] == 2
    assert set(stored(filled)) == {"c"}


GMAIL = ("gmail", "me")


def land(warehouse: Warehouse, *items: Observed, letters: Sequence[tuple[str, str]] = ()) -> None:
    """Land objects and dead letters of a connection that knows of no block, and merge nothing."""
    landing = Landing(
        warehouse,
        source_system=GMAIL[0],
        connection_name=GMAIL[1],
        correlation_id="r",
        idem_key_of=lambda item, _: idem_key(*GMAIL, item.object_type, item.external_id or ""),
    )
    for item in items:
        landing.observe(item)
    for object_type, external_id in letters:
        landing.set_aside(object_type, external_id, "refused", CANARY)
    landing.flush()
    landing.close()


def of_gmail(object_type: str, external_id: str, seconds: float) -> Observed:
    return Observed(object_type, json.dumps({"id": external_id}), at(seconds), external_id)


@on_both_targets
@pytest.mark.slow
def test_parts_and_letters_that_another_machine_lands_late_go_with_the_build(
    core_build: None, warehouse: Warehouse
) -> None:
    """Its package was pending when the message was erased, and its parts were not stored yet."""
    land(warehouse, of_gmail("attachment", "m1:held", 1))
    assert dbt_build.build(warehouse.target, "r1").error is None
    insert_block(warehouse, *GMAIL, "message", "gmail:me:message:m1")
    land(
        warehouse,
        *(of_gmail("message", name, 10) for name in ("m1", "m2")),
        *(of_gmail("attachment", name, 10) for name in ("m1:0", "m1:", "m2:0")),
        letters=[("message", "m1"), ("attachment", "m1:1"), ("attachment", "m2:1")],
    )
    result = dbt_build.build(warehouse.target, "r2", ["--exclude", "assert_erasures"])
    assert result.error is None
    assert count(warehouse, "events_staging.landed_objects") == 0
    assert set(stored(warehouse)) == {"m1:held", "m2", "m2:0"}
    letters = warehouse.execute("select external_id from events_staging.dead_letters")
    assert letters == [("m2:1",)]
    # What was stored before the block is none of the merge's: the acceptance test finds it.
    result = dbt_build.build(warehouse.target, "r3", ["--select", "assert_erasures"])
    assert isinstance(result.error, CheckFailed)
    Erasure(warehouse, Selection(*GMAIL)).run()
    assert set(stored(warehouse)) == {"m2", "m2:0"}
    result = dbt_build.build(warehouse.target, "r4", ["--select", "assert_erasures"])
    assert result.error is None


OWNERS_IN_SQL = """
{% for key in fromjson(env_var('LANDFALL_TEST_TEXTS')) %}
{{ owner_key(text_literal(key)) }}
{%- endfor %}
"""


@on_both_targets
@pytest.mark.slow
def test_the_merge_knows_the_owners_that_the_loaders_know(
    warehouse: Warehouse,
    project: Project,
    target_type: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """On DuckDB by running it, for BigQuery in GoogleSQL's own evaluator."""
    ids = ("o1:p1", "o1:p:2", "o1:line\nend", "o1:", "o1", ":p1")
    keys = [
        idem_key(source, "a.b-c_1", object_type, external_id)
        for source in ("gmail", "stripe", "acme")
        for object_type in ("attachment", "message", "invoice_line", "invoice")
        for external_id in ids
    ]
    monkeypatch.setenv("LANDFALL_TEST_TEXTS", json.dumps(keys))
    result = project.run_dbt("compile", "--inline", OWNERS_IN_SQL)
    [compiled] = [each.node.compiled_code for each in result.result.results]
    expressions = [line for line in compiled.splitlines() if line.strip()]
    if target_type == EMULATOR:
        gate: Gate = request.getfixturevalue("gate")
        found = [gate.analyzer.evaluate(expression) for expression in expressions]
    else:
        [row] = warehouse.execute(f"select {', '.join(expressions)}")
        found = list(row)
    assert found == [owner_key(*key.split(":", 3)) or key for key in keys]


def insert_block(
    warehouse: Warehouse, source: str, connection: str, object_type: str, key: str
) -> None:
    warehouse.execute(
        "insert into events.erasures (key_hash, source_system, connection_name, object_type,"
        " erased_at, correlation_id) select ?, ?, ?, ?, current_timestamp, 'r'",
        (key_hash(key), source, connection, object_type),
    )


def put_objects(warehouse: Warehouse, *keys: str) -> None:
    for each in keys:
        source, connection, object_type, external_id = each.split(":", 3)
        warehouse.execute(
            "insert into events.raw_objects by name select ? as idem_key, ? as source_system, ? as"
            " connection_name, ? as object_type, ? as external_id, '{}' as payload, 'h' as"
            " payload_hash, now() as first_seen, now() as last_seen, now() as changed_at, 'r' as"
            " changed_by, 'r' as merged_by, 'inserted' as last_action",
            (each, source, connection, object_type, external_id),
        )


def test_parts_go_with_their_objects_and_stay_away(warehouse: Warehouse) -> None:
    parts = ("gmail:me:attachment:m1:0", "gmail:me:attachment:m1:1", "gmail:me:attachment:m2:0")
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:message:m2", *parts)
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)))
    assert erasure.preview()["raw_objects"] == 3
    erasure.run()
    assert erasure.counts["raw_objects"] == 3
    assert set(stored(warehouse)) == {"m2", "m2:0"}
    erased = Erased([key_hash("gmail:me:message:m1")])
    assert erased.covers(*GMAIL, "attachment", "m1:7")
    assert not erased.covers(*GMAIL, "attachment", "m2:0")
    assert not erased.covers(*GMAIL, "label", "m1:7")


def test_blocks_of_others_are_not_counted(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a connection that is erased at the same time."""
    insert_blocks = Erasure._insert_blocks

    def beside_another(erasure: Erasure, *arguments: object) -> None:
        insert_block(warehouse, *ACME, "widget", key(str(count(warehouse, "events.erasures"))))
        insert_blocks(erasure, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Erasure, "_insert_blocks", beside_another)
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)))
    erasure.run()
    assert erasure.counts["blocks"] == 1
    assert count(warehouse, "events.erasures") > 1


def test_a_part_that_a_merge_brings_meanwhile_goes_too(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:message:m2")
    delete, late = Erasure._delete, ["gmail:me:attachment:m1:0"]

    def before_a_merge(erasure: Erasure) -> dict[str, int]:
        counts = delete(erasure)
        put_objects(warehouse, *late)
        late.clear()
        return counts

    monkeypatch.setattr(Erasure, "_delete", before_a_merge)
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)))
    erasure.run()
    assert erasure.counts["raw_objects"] == 2
    assert set(stored(warehouse)) == {"m2"}


def sql_of_duties(after: str) -> str:
    """The first statement that docs/duties.md shows for DuckDB after some words."""
    text = (PROJECT_DIR / "docs" / "duties.md").read_text()
    found = re.search(re.escape(after) + r".*?```sql\n-- DuckDB\n(.*?);\n", text, re.DOTALL)
    assert found, after
    return found.group(1)


def test_blocks_saved_beside_a_backup_erase_again_after_its_restore(
    warehouse: Warehouse, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_objects(warehouse, *(f"gmail:me:message:{name}" for name in ("m0", "m1", "m2")))
    Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m0",))).run()
    project.store.save("backup")
    Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",))).run()
    warehouse.execute(sql_of_duties("Save the blocks"))
    project.store.restore("backup")
    restored = project.open_warehouse()
    assert set(stored(restored)) == {"m1", "m2"}
    for _ in range(2):
        restored.execute(sql_of_duties("Bring them back"))
    assert count(restored, "events.erasures") == 2
    Erasure(restored, Selection(*GMAIL)).run()
    assert set(stored(restored)) == {"m2"}


def test_an_erasure_says_so_in_the_log_without_the_keys_and_takes_the_lease(
    warehouse: Warehouse,
) -> None:
    put_objects(warehouse, "gmail:me:message:m1")
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)), CANARY)
    erasure.run()
    started, completed = events(warehouse)
    assert started["correlation_id"].startswith("gmail_erase_me-")
    assert started["payload"]["parameters"] == {"objects": 1, "where": False}
    assert completed["payload"]["erased"]["raw_objects"] == 1
    assert "m1" not in json.dumps([started["payload"], completed["payload"]])
    assert CANARY not in json.dumps([started["payload"], completed["payload"]])
    job = Job(warehouse, job_name="other", source_system="gmail", connection_name="me")
    job.start()
    with pytest.raises(WarehouseBusy):
        Erasure(warehouse, Selection(*GMAIL)).run()


def test_an_erased_message_is_not_read_again(warehouse: Warehouse, sandbox: Sandbox) -> None:
    first, *others = sandbox.live_ids()
    Erasure(warehouse, Selection("gmail", "acct1", (f"gmail:acct1:message:{first}",))).run()
    for options in (IngestOptions(), IngestOptions(since=at(-1e9))):
        sandbox.reset_stats()
        ingestion = Ingestion(
            warehouse,
            lambda: gmail_source(sandbox),
            source_system="gmail",
            connection_name="acct1",
            options=options,
        )
        telemetry = ingestion.dry_run()
        assert telemetry["objects"]["message"] == len(others)
        assert sandbox.stats()["requests"]["messages.get"] == len(others)
        assert_accounted(telemetry)


def test_a_condition_waits_for_the_queue(warehouse: Warehouse) -> None:
    upsert_objects(
        [{"id": "a"}],
        source_system="acme",
        connection_name="acct1",
        object_type="widget",
        idem_key_fn=lambda payload: key(payload["id"]),
        merge=False,
        warehouse=warehouse,
    )
    with pytest.raises(UsageError, match="not merged yet"):
        erase(warehouse, where="true")
    assert erase(warehouse, key("a")).counts["landed_objects"] == 1


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "true; drop table raw_objects",
        "true -- and the rest",
        "true /* and the rest */",
        "1 = 1) or (1 = 1",
        "idem_key in (select idem_key from other)",
        "true) union select 1 from objects where (true",
        "true) limit (1",
        "no_such_column = 1",
        "other.idem_key = 'a'",
        "idem_key = ?",
        "idem_key = 'a",
    ],
)
@pytest.mark.parametrize("dialect", ["duckdb", "bigquery"])
def test_only_a_condition_is_taken_for_one(condition: str, dialect: str) -> None:
    with pytest.raises(UsageError, match="--where: "):
        check_condition(condition, ["idem_key", "payload"], dialect, "--where")
    check_condition(
        "idem_key like 'a;b--c%' or payload is null", ["idem_key", "payload"], dialect, ""
    )


RETENTION = {"retention_days_deleted_payloads": 30, "retention_days_dead_letters": 90}


@on_both_targets
@pytest.mark.slow
def test_what_is_kept_too_long_goes_when_the_project_says_so(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="keeps everything for ever"):
        Retention(filled)
    days_ago = {
        days: dt.datetime.now(dt.UTC) - dt.timedelta(days=days) for days in (29, 31, 89, 91)
    }
    for name, days in (("a", 29), ("b", 31)):
        filled.execute(
            "update events.raw_objects set deleted_at = ? where external_id = ?",
            (days_ago[days], name),
        )
    for name, days in (("d", 89), ("e", 91)):
        filled.execute(
            "update events_staging.dead_letters set created_at = ? where external_id = ?",
            (days_ago[days], name),
        )
    monkeypatch.setattr(retention, "retention_days", lambda: RETENTION)
    expected = {"retention_days_deleted_payloads": 1, "retention_days_dead_letters": 1}
    work = Retention(filled)
    assert work.preview() == expected
    work.run()
    assert work.counts == expected
    rows = filled.execute(
        "select external_id from events.raw_objects where payload is null order by external_id"
    )
    assert rows == [("b",)]
    assert filled.execute("select external_id from events_staging.dead_letters") == [("d",)]
    *_, completed = events(filled, work.job.correlation_id)
    assert completed["payload"]["expired"] == expected
    assert Retention(filled).preview() == dict.fromkeys(expected, 0)


@pytest.mark.parametrize("value", ["30", 0, True, 1.5])
def test_a_retention_that_is_no_number_of_days_is_an_error(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"vars": {"retention_days_dead_letters": value}}
    monkeypatch.setattr("yaml.safe_load", lambda text: variables)
    with pytest.raises(ConfigError, match="expected a number of days"):
        retention.retention_days()


def test_the_command_counts_before_it_erases(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:message:m2")
    of_connection = ("erase", "--source", "gmail", "--connection", "me")
    code, out, _ = run_main(capsys, *of_connection, "--object", "gmail:me:message:m1", "--dry-run")
    assert code == 0
    assert "raw_objects 1" in out
    assert count(warehouse, "events.event_log") == 0
    for arguments, said in (
        (("--object", "gmail:you:message:m1"), "begins with 'gmail:me:'"),
        (("--where", "true; select 1"), "does not parse"),
        (("--where", "no_such_function(idem_key)"), "erase: --where: "),
    ):
        code, _, err = run_main(capsys, *of_connection, *arguments)
        assert code == 2
        assert said in one_line(err)
    assert run_main(capsys, "erase", "--expired")[0] == 2
    assert run_main(capsys, "erase", "--expired", "--source", "gmail")[0] == 2
    assert run_main(capsys, "erase", "--again")[0] == 2
    code, out, _ = run_main(capsys, *of_connection, "--where", "external_id = 'm2'")
    assert code == 0
    assert "blocks 1" in out
    assert set(stored(warehouse)) == {"m1"}


@pytest.mark.parametrize(
    ("chosen", "is_alone"),
    [
        (("--object", "gmail:me:attachment:m1:0"), True),
        (("--object", "gmail:me:attachment:m9:0"), True),
        (("--where", "external_id = 'm1:0'"), True),
        (("--object", "gmail:me:message:m1"), False),
        (("--object", "gmail:me:attachment:m1:0", "gmail:me:message:m1"), False),
        (("--where", "external_id like 'm1%'"), False),
    ],
)
def test_a_part_that_goes_alone_is_said_to_be_in_its_owner_still(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    chosen: tuple[str, ...],
    is_alone: bool,
) -> None:
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:attachment:m1:0")
    for more in (("--dry-run",), ()):
        code, out, _ = run_main(
            capsys, "erase", "--source", "gmail", "--connection", "me", *chosen, *more
        )
        assert code == 0
        assert ("note: attachment: its message stays" in out) == is_alone

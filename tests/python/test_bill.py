"""The bill of a statement (tests/bench/billing.py), by sums that fit on paper."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import pytest

from tests.bench.bill import Measured, warehouse
from tests.bench.billing import LEAST, MB, Bill, Partition, Reader, Reading, Table, price
from tests.bench.statements import Job, Sent

NOW = dt.datetime(2026, 11, 15, tzinfo=dt.UTC).timestamp()
MONTHS = 12
ROWS = 2_000_000
"""Of the store, in each month."""
WIDTHS = {"key": 50.0, "created": 8.0, "seen": 8.0, "payload": 2_000.0}
VIEWS = {
    "d.mail": "select key as mail_key, created as sent, upper(payload) as body from `p`.`d`.`store`"
}
NOVEMBER = "created >= timestamp '2026-11-01' and created < timestamp '2026-12-01'"


def month(number: int, rows: float = ROWS) -> Partition:
    begins, ends = (
        dt.datetime(2026 + at // 12, at % 12 + 1, 1, tzinfo=dt.UTC).timestamp()
        for at in (number, number + 1)
    )
    return Partition(rows, begins, ends)


TABLES = {
    "d.store": Table(
        WIDTHS,
        [month(number) for number in range(MONTHS)],
        "created",
        ("key",),
        lambda column, value: 0.001,
        lambda column, value: 0.1,
    ),
    "d.queue": Table(dict(WIDTHS), [Partition(1_000)]),
}


def read(sql: str, *parameters: tuple[str, str | None]) -> Reading:
    reader = Reader({name: table.widths for name, table in TABLES.items()}, VIEWS)
    [reading] = reader.read(sql, parameters)
    return reading


def bill(sql: str, *parameters: tuple[str, str | None]) -> Bill:
    """The bill of a statement that is understood."""
    reading = read(sql, *parameters)
    assert not reading.doubt
    return price(reading, TABLES, NOW)


def store(columns: Iterable[str] = WIDTHS, months: float = MONTHS) -> float:
    """Bytes of these columns of the store."""
    return sum(WIDTHS[name] for name in columns) * ROWS * months


def is_about(found: float, expected: float) -> bool:
    """Equal but for the last megabyte of each of a few tables, and a small table's minimum."""
    return expected <= found <= expected + 2 * MB


@pytest.mark.parametrize(
    ("condition", "months"),
    [
        ("created >= timestamp '2026-11-01'", 2),
        ("timestamp '2026-11-01' <= created", 2),
        ("created < timestamp '2026-02-01'", 1),
        ("created <= timestamp '2026-02-01'", 2),
        ("created = timestamp '2026-02-10 10:00:00+00'", 1),
        ("created between timestamp '2026-02-10' and timestamp '2026-04-10'", 3),
        (f"(created is null or ({NOVEMBER}))", 1),
        ("created >= timestamp_sub(current_timestamp(), interval 20 day)", 3),
        ("created > timestamp '2026-06-01' or key = 'a'", 12),
        ("created >= timestamp '2026-11-01' and length(payload) > 3 and seen > created", 2),
    ],
)
def test_a_query_is_billed_its_columns_in_the_months_that_constants_leave(
    condition: str, months: int
) -> None:
    columns = [name for name in WIDTHS if name == "created" or name in condition]
    found = bill(f"select max(created) from d.store where {condition}").promise
    assert is_about(found, store(columns, months))


def test_two_columns_and_a_parameter() -> None:
    sql = "select key from d.store where created >= cast(? as timestamp) and key <> ?"
    found = bill(sql, ("STRING", "2026-12-01 00:00:00+00:00"), ("STRING", "it's ?"))
    assert is_about(found.promise, store(("key", "created"), 1))


@pytest.mark.parametrize(
    "condition",
    [
        "created >= (select max(seen) from d.queue)",
        "created >= seen",
        "timestamp_add(created, interval 1 day) >= timestamp '2026-12-01'",
        "not (created < timestamp '2026-12-01')",
        "created >= timestamp(session_user())",
    ],
)
def test_a_filter_that_is_no_constant_prunes_nothing(condition: str) -> None:
    found = bill(f"select count(created), count(seen) from d.store where {condition}").promise
    assert store(("created", "seen")) <= found <= store(("created", "seen")) + MB + LEAST


def test_a_view_is_billed_what_is_read_through_it() -> None:
    found = bill("select mail_key from d.mail where sent >= timestamp '2026-12-01'").promise
    assert is_about(found, store(("key", "created"), 1))
    assert is_about(bill("select count(body) from d.mail").promise, store(("payload",)))


def test_a_filter_goes_through_a_sub_query_but_not_through_a_limit() -> None:
    inner = "select * from d.store"
    outer = "select key from ({}) where created >= timestamp '2026-12-01'"
    assert is_about(bill(outer.format(inner)).promise, store(("key", "created"), 1))
    assert is_about(bill(outer.format(f"{inner} limit 9")).promise, store(("key", "created")))


def test_the_outer_side_of_a_join_is_not_pruned_by_its_condition() -> None:
    joined = "select q.key, s.seen from d.queue as q left join d.store as s on {}"
    condition = "q.key = s.key and s.created >= timestamp '2026-12-01'"
    found = bill(joined.format(condition)).promise
    assert is_about(found - LEAST, store(("key", "created", "seen"), 1))
    turned = (
        "select s.seen from d.store as s left join d.queue as q"
        " on s.key = q.key and s.created >= timestamp '2026-12-01'"
    )
    assert is_about(bill(turned).promise - LEAST, store(("key", "created", "seen")))
    missing = joined.format("q.key = s.key") + " where s.created is null"
    assert is_about(bill(missing).promise - LEAST, store(("key", "created", "seen")))


def test_each_table_is_billed_for_ten_megabytes_at_least() -> None:
    assert bill("select key from d.queue").promise == LEAST
    assert bill("select count(*) from d.store, d.queue").promise == 2 * LEAST
    assert bill("select 1").promise == LEAST
    assert bill("select a.key, b.seen from d.queue as a, d.queue as b").promise == LEAST
    columns = "select table_name from `p`.`d`.INFORMATION_SCHEMA.COLUMNS"
    assert bill(columns).promise == LEAST


def test_what_is_no_query_is_free() -> None:
    for sql in ("create view d.v as select * from d.store", "drop table d.store", "declare x bool"):
        assert bill(sql) == Bill(0, 0)


def test_a_column_that_is_read_twice_is_billed_once() -> None:
    sql = (
        "select key from d.store where created >= timestamp '2026-12-01'"
        " union all select key from d.store where created >= timestamp '2026-11-01'"
    )
    assert is_about(bill(sql).promise, store(("key", "created"), 2))


MERGE = (
    "merge into `p`.`d`.`store` as stored using (select * from d.queue) as seen"
    " on stored.key = seen.key {months} when matched then update set payload = seen.payload"
    " when not matched then insert (key, created) values (seen.key, seen.created)"
)
IN_NOVEMBER = f"and (stored.created is null or ({NOVEMBER.replace('created', 'stored.created')}))"


def test_a_merge_is_billed_all_columns_of_the_months_that_it_names_and_what_it_reads() -> None:
    everywhere = bill(MERGE.format(months=""))
    assert is_about(everywhere.promise - LEAST, store() + store(("key",)))
    assert is_about(everywhere.hope - LEAST, store())
    in_november = bill(MERGE.format(months=IN_NOVEMBER))
    assert is_about(in_november.promise - LEAST, store(months=1) + store(("key", "created"), 1))
    assert is_about(in_november.hope - LEAST, store(months=1))


def test_a_merge_that_inserts_alone_is_billed_what_it_reads() -> None:
    merge = MERGE.replace("when matched then update set payload = seen.payload", "")
    assert is_about(bill(merge.format(months="")).promise - LEAST, store(("key",)))


def test_updates_and_deletes_are_billed_all_columns_of_what_they_touch_and_what_they_read() -> None:
    where = "where created >= timestamp '2026-12-01'"
    in_december = store(months=1) + store(("created",), 1)
    assert is_about(bill(f"update d.store set seen = created {where}").promise, in_december)
    assert is_about(bill(f"delete from d.store {where}").promise, in_december)
    keyed = bill("delete from d.store where key = 'a'").promise
    assert is_about(keyed, store() + store(("key",)))
    sql = "delete from d.queue where exists (select 1 from d.store where store.key = queue.key)"
    assert is_about(bill(sql).promise - LEAST, store(("key",)))


@pytest.mark.parametrize(
    "sql",
    [
        "call d.procedure('store', d.store)",
        "execute immediate 'select * from d.store'",
        "select frob(((key from d.store",
        "select nothing_of_the_kind from d.store",
        "select x.key from d.store as x join d.elsewhere as y on x.key = y.key",
        "with recursive r as (select key from d.store union all select key from r) select * from r",
    ],
)
def test_a_statement_that_is_not_understood_is_said_and_billed_in_full(sql: str) -> None:
    reading = read(sql)
    assert reading.doubt
    assert price(reading, TABLES, NOW).promise >= store()


def test_a_statement_that_names_nothing_known_is_billed_the_warehouse() -> None:
    reading = read("call elsewhere.procedure()")
    assert reading.doubt
    assert {scan.table for scan in reading.scans} == {"d.store", "d.queue"}


def test_what_is_made_of_constants_is_known_and_what_is_made_of_rows_is_not() -> None:
    reader = Reader({name: table.widths for name, table in TABLES.items()}, VIEWS)
    [made] = reader.read("create table d.small as (select 1 as one)")
    [small] = reader.read("select one from d.small")
    assert (made.doubt, small.doubt) == ("", "")
    assert price(small, TABLES, NOW).promise == LEAST
    reader.read("create table d.large as select key from d.store")
    [large] = reader.read("select key from d.large")
    assert large.doubt


def test_the_hope_is_what_constants_on_the_clustering_leave() -> None:
    found = bill("select payload from d.store where key in ('a', 'b')")
    assert is_about(found.promise, store(("key", "payload")))
    assert is_about(found.hope, 0.002 * store(("key", "payload")))
    ranged = bill("select payload from d.store where key >= 'a:' and key < 'a;'")
    assert is_about(ranged.hope, 0.1 * store(("key", "payload")))
    joined = bill("select payload from d.store where key in (select key from d.queue)")
    assert joined.hope == joined.promise


def measured() -> dict[str, Measured]:
    widths = {"idem_key": 42.0, "payload": 7.0, "object_created_at": 8.0}
    return {
        "events.raw_objects": Measured(50, widths, "object_created_at", ("idem_key",)),
        "events.event_log": Measured(9, {"payload": 500.0, "created_at": 8.0}, "created_at", ()),
        "events.by_key": Measured(40, {"idem_key": 42.0}, "", ()),
        "events.alerts": Measured(2, {"kind": 9.0}, "", ()),
        "events_staging.landed_objects": Measured(0, widths, "observed_at", ("idem_key",)),
        "events_staging._dlt_loads": Measured(9, {"load_id": 20.0}, "", ()),
    }


def test_a_warehouse_holds_what_each_connection_has_stored() -> None:
    tables = warehouse(measured(), payload=1_948, stored=1e9, connections=20, queued=1_000, now=NOW)
    rows = {name: sum(each.rows for each in table.partitions) for name, table in tables.items()}
    assert rows == pytest.approx(
        {
            "events.raw_objects": 10_000_000,
            "events.event_log": 20 * 24 * 3 * 90,
            "events.by_key": 10_000_000,
            "events.alerts": 40,
            "events_staging.landed_objects": 1_000,
            "events_staging._dlt_loads": 20 * 24 * 90,
        }
    )
    newest = tables["events.raw_objects"].partitions[0]
    assert newest.begins is not None
    assert newest.ends is not None
    assert newest.begins < NOW < newest.ends
    assert len(tables["events.raw_objects"].partitions) == 60


def test_the_chain_is_the_longest_sequence_of_jobs() -> None:
    spans = [(0, 10), (1, 3), (3, 5), (4, 12), (6, 8)]
    jobs = tuple(Job("query", "", (), (), began, ended, "") for began, ended in spans)
    assert Sent(jobs, requests=9).chain == 3

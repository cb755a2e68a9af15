"""The statements of a merge alone, against a bare join and count of the same batch and table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.bench.harness import Figures, median, new_workspace, print_table

GOAL = "goal at most 3x"
BATCH = 1_000


def run(quick: bool) -> Figures:
    """A batch of 1,000 (500 new, 500 known) into tables of growing size."""
    rows, figures = [], {}
    with new_workspace() as workspace:
        path = str(workspace.directory / "mail.jsonl")
        workspace.call("mail:write_messages", path=path, count=BATCH, message_format="full")
        statements = workspace.call("merge:render")["statements"]
        for stored in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
            measured = workspace.call(
                "merge:measure", path=path, stored=stored, statements=statements
            )
            figures[str(stored)] = measured
            ratio = measured["merge_seconds"] / measured["join_seconds"]
            names = ("create", "merge_into", "insert", "merge", "join")
            milliseconds = [measured[f"{name}_seconds"] * 1000 for name in names]
            alone = measured["merge_into_seconds"] / measured["join_seconds"]
            rows.append((f"{stored:,}", *milliseconds, alone, ratio))
            parse = measured["parse_seconds"] * 1000
    print_table(
        f"MERGE of {BATCH:,} objects of 4 KB, 500 new and 500 known ({GOAL})",
        (
            "rows stored",
            "decide ms",
            "MERGE ms",
            "INSERT ms",
            "all ms",
            "join and count ms",
            "MERGE to join",
            "all to join",
        ),
        rows,
    )
    print(f"Of the INSERT, parsing the batch's JSON once takes {parse:.1f} ms.")
    return figures


def render() -> dict[str, Any]:
    """The statements that dbt sends for raw_objects, from a real run of nothing."""
    from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper

    from loaders.settings.target import load_target
    from loaders.transform import bootstrap, dbt_build
    from loaders.warehouse.opening import open_warehouse

    sent: list[str] = []
    execute: Any = DuckDBCursorWrapper.execute

    def record(self: Any, sql: str, bindings: Any = None) -> Any:
        sent.append(sql)
        return execute(self, sql, bindings)

    warehouse = open_warehouse(load_target())
    with warehouse.open():
        bootstrap.bootstrap(warehouse)
        setattr(DuckDBCursorWrapper, "execute", record)  # noqa: B010
        result = dbt_build.build(warehouse.target, "bench")
    if result.error:
        raise result.error
    wanted = ("create or replace temporary view", "create or replace temporary table")
    return {"statements": [sql for sql in sent if any(text in sql for text in wanted)]}


def measure(path: str, stored: int, statements: list[str]) -> dict[str, float]:
    """Median seconds of the merge and its statements, of the join, of parsing the JSON.

    Each merge is rolled back. Parsing is what no way of storing JSON can leave out.
    """
    import duckdb

    from loaders.settings.target import load_target

    target = load_target()
    *preparations, merge = statements
    with duckdb.connect(str(target.path)) as connection:
        for name, value in target.settings["settings"].items():
            connection.execute(f"set global {name} = '{value}'")
        _fill(connection, path, stored)
        parts = [
            (str(part.type).rpartition(".")[2].lower(), part.query)
            for part in connection.extract_statements(merge)
        ]
        batch, table = "events_staging.landed_objects", "events.raw_objects"
        join = f"select count(*) from {batch} inner join {table} using (idem_key)"

        def query_once(query: str) -> float:
            return _seconds(lambda: connection.execute(query).fetchall())

        def merge_once() -> dict[str, float]:
            connection.execute("begin")
            for statement in preparations:
                connection.execute(statement)
            seconds = {kind: query_once(sql) for kind, sql in parts}
            connection.execute("rollback")
            return {**seconds, "merge": sum(seconds.values())}

        parse = f"select max(length(cast(payload as json))) from {batch}"
        taken = [
            {**merge_once(), "parse": query_once(parse), "join": query_once(join)}
            for _ in range(10)
        ]
    return {
        # The first of each warms the caches.
        f"{name}_seconds": median([round_[name] for round_ in taken[1:]])
        for name in taken[0]
    }


def _fill(connection: Any, path: str, stored: int) -> None:
    """`stored` rows, half of the batch among them, and the batch in the queue."""
    connection.execute("delete from events.raw_objects")
    connection.execute("delete from events_staging.landed_objects")
    connection.execute("delete from events_staging._dlt_loads")
    connection.execute(
        "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
        " values ('bench', 0, now())"
    )
    connection.execute(
        "insert into events_staging.landed_objects"
        " select 'gmail:bench:message:' || number, 'gmail', 'bench', 'message', number,"
        " text, sha256(text), now(), now(), false, 'bench', 'bench'"
        " from (select row_number() over () as number, line as text"
        " from read_csv(?, columns = {'line': 'varchar'}, delim = chr(1), quote = '',"
        " escape = '', header = false, max_line_size = 1000000))",
        [path],
    )
    connection.execute(
        "insert into events.raw_objects"
        " select 'gmail:bench:message:' || number, 'gmail', 'bench', 'message', number,"
        " json_object('id', sha256(number::varchar)), sha256(number::varchar), now(),"
        " now() - interval 1 day, now() - interval 1 day, now() - interval 1 day, null,"
        " 'before', 'before', 'inserted'"
        " from (select range + ? as number from range(?))",
        [BATCH // 2 + 1, stored],
    )
    connection.execute("checkpoint")


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

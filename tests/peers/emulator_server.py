"""The BigQuery emulator `local-bigquery`, with the shims it needs; runs in its own environment.

    python emulator_server.py --record FILE -- local-bigquery's own arguments

Every job that a client submits is appended to FILE as one JSON line. Each shim is asserted
against what it replaces, so that an upgrade which changes it fails here and not in a test.
"""

import collections
import contextlib
import gzip
import inspect
import json
import pathlib
import sys
import threading

import duckdb

record_path = None
if sys.argv[1] == "--record":
    record_path = pathlib.Path(sys.argv[2])
    sys.argv[1:] = sys.argv[4:]

# DuckDB asks for pandas with every value that it binds; None says at once that there is none.
sys.modules.setdefault("pandas", None)

# DuckDB 1.5 does not know TimeZone as an option of connect: it belongs to the ICU extension. The
# statements are small: several threads only wait for each other, for a quarter of the time.
connect_unpatched = duckdb.connect


def connect(*arguments, config=None, **options):
    config = {"threads": 1, **(config or {})}
    time_zone = config.pop("TimeZone", None)
    connection = connect_unpatched(*arguments, config=config, **options)
    if time_zone:
        connection.execute(f"set global TimeZone = '{time_zone}'")
    return connection


duckdb.connect = connect

import sqlglot  # noqa: E402
from local_bigquery import app, errors  # noqa: E402
from local_bigquery.catalog import tables  # noqa: E402
from local_bigquery.engine import database  # noqa: E402
from local_bigquery.jobs import query, runner  # noqa: E402

# A quarter of the time goes into walks over sqlglot's trees, through three generators a step.
tree_node = sqlglot.exp.Expr
find_all_unpatched = sqlglot.exp.Expression.find_all


def find_all(self, *kinds, bfs=True):
    if not bfs:
        yield from find_all_unpatched(self, *kinds, bfs=False)
        return
    queue = collections.deque([self])
    while queue:
        node = queue.popleft()
        if isinstance(node, kinds):
            yield node
        for value in node.args.values():
            if isinstance(value, list):
                queue.extend(each for each in value if isinstance(each, tree_node))
            elif isinstance(value, tree_node):
                queue.append(value)


sqlglot.exp.Expression.find_all = find_all
sample = sqlglot.parse_one("select a, b + 1 from c join (select 2) as d on a = 3 where f(x, y)")
assert [*map(id, sample.find_all(sqlglot.exp.Expression))] == [
    *map(id, find_all_unpatched(sample, sqlglot.exp.Expression))
], "sqlglot walks its trees in another way now"

# The emulator keeps tables in DuckLake, which reads its whole catalog for each statement and writes
# a Parquet file for each row: half a minute of a build's time. DuckDB's own tables are as exact and
# lack nothing that the project uses (DuckLake's time travel alone).
assert list(inspect.signature(database._attach).parameters) == ["con", "project_id"]


def attach(connection, project_id):
    path = f"{database.settings.data_dir / project_id}.duckdb"
    connection.execute(f"attach if not exists '{path}' as {database.quote(project_id)}")
    database._attached.add(project_id)


def projects():
    return sorted(database._attached)


database._attach = attach
database.projects = projects

# BigQuery names the table of a CREATE TABLE AS as the job's destination; dbt reads it.
execute_unpatched = query.execute


def execute(*arguments, **options):
    statistics, children, destination = execute_unpatched(*arguments, **options)
    creates = statistics.statementType == "CREATE_TABLE_AS_SELECT"
    if creates and destination is None and not children:
        destination = statistics.ddlTargetTable
    return statistics, children, destination


query.execute = execute

# A query for each option of each column of a CREATE TABLE, most of them descriptions.
evaluator_unpatched = query._evaluator
assert list(inspect.signature(evaluator_unpatched).parameters) == ["cur"]


def evaluator(cursor):
    evaluate = evaluator_unpatched(cursor)
    return lambda node: node.name if node.is_string else evaluate(node)


query._evaluator = evaluator

# Two jobs that write one table: BigQuery lets one of them fail with these words (documentation,
# "Data manipulation language: conflicts"), the emulator with its store's own.
from_duckdb_unpatched = errors.from_duckdb
assert query.from_duckdb is from_duckdb_unpatched, "local-bigquery maps errors elsewhere now"


def from_duckdb(error, context=None, tree=None):
    if "Failed to commit" in str(error) or "onflict" in str(error):
        return errors.BigQueryError(
            "invalidQuery", "Could not serialize access to table due to concurrent update"
        )
    return from_duckdb_unpatched(error, context, tree)


errors.from_duckdb = query.from_duckdb = from_duckdb

# BigQuery unpacks gzip in uploads by itself; dlt uploads .jsonl.gz. And: the record.
submit_unpatched = runner.submit
assert list(inspect.signature(submit_unpatched).parameters)[:4] == [
    "project_id",
    "job_id",
    "configuration",
    "upload",
], "local-bigquery's runner.submit has changed; adapt this shim"
record_lock = threading.Lock()
recent_results = collections.deque()
KEPT_RESULTS = 200


def drop_old_results():
    with contextlib.suppress(IndexError):
        while len(recent_results) > KEPT_RESULTS:
            old = database.quote(*tables.physical(*recent_results.popleft()))
            database.execute(f"drop table if exists {old}")


def submit(project_id, job_id, configuration, upload=None, *arguments, **options):
    if record_path:
        line = json.dumps(configuration.model_dump(exclude_none=True, mode="json"))
        with record_lock, record_path.open("a") as record:
            record.write(line + "\n")
    recent_results.append((project_id, tables.RESULTS, job_id))
    drop_old_results()
    if upload:
        path = pathlib.Path(upload)
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            path.write_bytes(gzip.decompress(data))
    return submit_unpatched(project_id, job_id, configuration, upload, *arguments, **options)


runner.submit = submit


# The result of every query is a table, looked up in a list of all tables of all databases, over
# and over. So: a result is asked itself, and those of long ago are dropped.
objects_unpatched = database.objects
assert list(inspect.signature(objects_unpatched).parameters) == [
    "project_id",
    "dataset_id",
    "table_id",
], "local-bigquery's database.objects has changed; adapt this shim"


def objects(project_id, dataset_id, table_id=None):
    if dataset_id != tables.RESULTS or table_id is None:
        return objects_unpatched(project_id, dataset_id, table_id)
    try:
        result = database.quote(project_id, dataset_id, table_id)
        [(rows,)] = database.fetch(f"select count(*) from {result}")
    except duckdb.CatalogException:
        return []
    return [(table_id, "TABLE", rows)]


database.objects = objects


# A token endpoint, for service account keys whose token_uri is this server.
@app.post("/token")
def token():
    return {"access_token": "dummy", "expires_in": 3600, "token_type": "Bearer"}


from local_bigquery.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

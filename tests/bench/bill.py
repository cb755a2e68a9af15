"""What BigQuery would bill for each run: every statement that is sent, by what it reads.

The emulator bills nothing. So each statement that it was sent is priced (tests/bench/billing.py) in
a warehouse that is larger than the emulator's: the widths of columns are measured there, how many
rows there are is what `warehouse` says. With several connections each has stored that much.
"""

from __future__ import annotations

import base64
import calendar
import dataclasses
import datetime as dt
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from landfall_sandbox.controls import Sandbox
from tests.bench.billing import MB, Bill, Partition, Reader, Reading, Table, price
from tests.bench.harness import Figures, Workspace, new_workspace, print_table
from tests.bench.statements import Job, Recorder, Sent

BATCH, QUICK_BATCH = 1_000, 100
"""Objects that are new or changed. The queue is priced with BATCH of them in any case."""
STORED_GB = (10, 100, 1_000)
CONNECTIONS = (1, 20, 200)
SHOWN = (100, 1)
"""Gigabytes and connections of the tables that name statements."""
MONTHS, LOG_DAYS = 60, 90
UPDATED_MONTHS = 3
EVENTS_A_RUN, RUNS_A_DAY, RUNS_A_MONTH = 3, 24, 720
DOLLARS_A_TIB = 6.25
"""On-demand price of queries in the US multi-region (BigQuery pricing, 2026)."""
PAYLOAD_BYTES = {"gmail": 4_400, "stripe": 2_000}
SHOWN_ROWS = 20
_CONNECTION = "acct1"
_FIXED_WIDTHS = {
    **dict.fromkeys(("TIMESTAMP", "INTEGER", "INT64", "FLOAT", "FLOAT64", "DATE", "DATETIME"), 8.0),
    **dict.fromkeys(("BOOLEAN", "BOOL"), 1.0),
    **dict.fromkeys(("NUMERIC", "DECIMAL"), 16.0),
}
"""Bytes of a value (BigQuery documentation, "Data types"); others have 2 and their UTF-8 text."""
_UNMEASURED = 2 + 36.0
"""Bytes of a text in a table without a row: of a UUID's."""
_OBJECTS, _LOG, _QUEUE, _LOADS = (
    "events.raw_objects",
    "events.event_log",
    "events_staging.landed_objects",
    "events_staging._dlt_loads",
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A table of the emulator: its rows, the average bytes of its columns, its layout."""

    rows: int
    widths: Mapping[str, float]
    partitioned_by: str
    clustered_by: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Priced:
    """A statement's short name, what it reads, and when it was sent (seconds since 1970)."""

    name: str
    reading: Reading
    at: float


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What one command sent, and the source whose objects are stored."""

    source: str
    name: str
    sent: Sent
    queued: int
    """Objects in the queue, when BATCH are landed."""

    @property
    def title(self) -> str:
        return f"{self.source}: {self.name}"


def run(quick: bool) -> Figures:
    """Both sources' runs and a build, then what they cost in warehouses of all sizes."""
    scenarios, measured, reader = _collect(QUICK_BATCH if quick else BATCH)
    figures: Figures = {
        "widths": {
            source: {name: dict(each.widths) for name, each in tables.items()}
            for source, tables in measured.items()
        }
    }
    statements = {each.title: list(_priced(each.sent, reader)) for each in scenarios}
    _print_warehouse(_tables(scenarios[0], measured["gmail"], *SHOWN))
    for scenario in scenarios:
        shown = _print_shown(scenario, measured[scenario.source], statements)
        figures[scenario.title] = {"statements": shown}
    _print_jobs(scenarios, statements)
    rows = []
    for scenario in scenarios:
        sizes = _by_size(scenario, measured[scenario.source], statements[scenario.title])
        rows += [(scenario.title, *size, *_monthly(bill)) for size, bill in sizes.items()]
        figures[scenario.title] |= _jobs(scenario.sent) | {
            f"{stored} GB, {connections} connections": dataclasses.asdict(bill)
            for (stored, connections), bill in sizes.items()
        }
    print_table(
        f"{RUNS_A_MONTH} runs a month of one connection at ${DOLLARS_A_TIB} a TiB, free tier not"
        " deducted; stored is what each of the connections has in the one dataset",
        ("run", "stored GB", "connections", "GB a run", "$ a month", "hope: GB", "hope: $"),
        rows,
    )
    return figures


def warehouse(
    measured: Mapping[str, Measured],
    *,
    payload: float,
    stored: float,
    connections: int,
    queued: int,
    now: float,
) -> dict[str, Table]:
    """Tables in which each of the connections has stored so many bytes of objects.

    raw_objects is spread evenly over MONTHS, the log over LOG_DAYS; the queue holds one batch. A
    table that has a row for each object has one here, any other as many rows for each connection as
    were measured.
    """
    widths = {name: dict(each.widths) for name, each in measured.items()}
    widths[_OBJECTS]["payload"] = 2 + payload
    widths[_QUEUE] |= {
        name: width for name, width in widths[_OBJECTS].items() if name in widths[_QUEUE]
    }
    objects = connections * stored / sum(widths[_OBJECTS].values())
    events = connections * RUNS_A_DAY * EVENTS_A_RUN * LOG_DAYS
    counts = {
        _OBJECTS: objects,
        _LOG: events,
        _QUEUE: queued,
        _LOADS: connections * RUNS_A_DAY * LOG_DAYS,
    }
    periods = {_OBJECTS: _months(now, MONTHS), _LOG: _days(now, LOG_DAYS), _QUEUE: _days(now, 1)}
    share_of_value, share_of_range = _shares(objects, connections)
    tables = {}
    for name, table in measured.items():
        of_objects = table.rows * 2 >= measured[_OBJECTS].rows > 0 and name not in (_LOG, _LOADS)
        rows = counts.get(name, objects if of_objects else table.rows * connections)
        spans = periods.get(name) or [(None, None)]
        tables[name] = Table(
            widths[name],
            [Partition(rows / len(spans), *span) for span in spans],
            table.partitioned_by if name in periods else "",
            table.clustered_by,
            share_of_value,
            share_of_range,
        )
    return tables


def _shares(
    objects: float, connections: int
) -> tuple[Callable[[str, str], float], Callable[[str, str], float]]:
    """What clustering may leave: a key is of one row of its connection, which is one of all.

    All rows are taken for one source's and of one type, the log's of as many kinds of events as a
    run has.
    """
    shares = {
        "connection_name": 1 / connections,
        "idem_key": connections / max(objects, 1.0),
        "event_type": 1 / EVENTS_A_RUN,
    }

    def of_value(column: str, value: str) -> float:
        return shares.get(column, 1.0)

    def of_range(column: str, value: str) -> float:
        return 1.0

    return of_value, of_range


def _months(now: float, count: int) -> list[tuple[float | None, float | None]]:
    """The last months, this one included, as the moments between which they lie."""
    last = dt.datetime.fromtimestamp(now, dt.UTC)
    number = last.year * 12 + last.month - 1
    firsts = [_first_of(number + 1 - back) for back in range(count + 1)]
    return [(begins, ends) for ends, begins in itertools.pairwise(firsts)]


def _first_of(month: int) -> float:
    return float(calendar.timegm((month // 12, month % 12 + 1, 1, 0, 0, 0)))


def _days(now: float, count: int) -> list[tuple[float | None, float | None]]:
    today = now // 86_400 * 86_400
    return [(today - back * 86_400, today - (back - 1) * 86_400) for back in range(count)]


class _Bench:
    """One emulator and one sandbox, and the runs between them."""

    def __init__(
        self, workspace: Workspace, sandbox: Sandbox, recorder: Recorder, url: str, batch: int
    ) -> None:
        self._workspace, self._sandbox, self._recorder = workspace, sandbox, recorder
        self._batch = batch
        self._variables = {"LANDFALL_EMULATOR_URL": url}
        for name, value in {
            "GMAIL__{}__ACCESS_TOKEN": "sandbox",
            "GMAIL__{}__UNITS_PER_MINUTE": "10000000",
            "GMAIL__{}__API_BASE_URL": sandbox.base_url,
            "STRIPE__{}__API_KEY": "sk_test_sandbox",
            "STRIPE__{}__API_BASE_URL": sandbox.base_url,
            "STRIPE__{}__REQUESTS_PER_SECOND": "100000",
            "STRIPE__{}__ENDPOINT_REQUESTS_PER_SECOND": "100000",
        }.items():
            self._variables["SOURCES__" + name.format(_CONNECTION.upper())] = value

    def scenarios(self) -> Iterator[Scenario]:
        """Each source's runs, and what a build of both sends, priced with the objects of each."""
        yield from self._of_source("gmail", self._new_mail, self._update_mail)
        yield from self._of_source("stripe", self._new_charges, self._update_charges)
        build = self._send("-m", "dbt.cli.main", "build", "--target", "emulator")
        for source in PAYLOAD_BYTES:
            yield Scenario(source, "dbt build", build, 0)

    def _of_source(
        self, source: str, add: Callable[[], object], update: Callable[[], object]
    ) -> Iterator[Scenario]:
        command = _command(source)
        self._send(*command, "--until-done")
        self._send(*command)  # what is made by the first run that finds all tables
        yield Scenario(source, "nothing new", self._send(*command), 0)
        add()
        yield Scenario(source, f"{BATCH:,} new", self._send(*command), BATCH)
        update()
        yield Scenario(source, f"{BATCH:,} updated", self._send(*command), BATCH)

    def _send(self, *command: str) -> Sent:
        self._recorder.take()
        seconds = self._workspace.run(command, **self._variables)["seconds"]
        return self._recorder.take(seconds)

    def prepare(self) -> None:
        """Mail of the last months, to be updated later; nothing that Stripe has still to settle."""
        first = _first_updated()
        step = (_now() - first) / self._batch
        self._mail = self._sandbox.change(
            insert=[
                {"raw": _mail(number), "internal_date_ms": int(1000 * (first + step * number))}
                for number in range(self._batch)
            ]
        )["affected"]["insert"]
        transactions = self._sandbox.stripe_objects("balance_transaction")
        pending = [name for name, one in transactions.items() if one["status"] == "pending"]
        self._sandbox.change_stripe(settle=pending)

    def _new_mail(self) -> None:
        # of today: the mailbox has a clock of its own, which is months behind
        mails = [
            {"raw": _mail(number), "internal_date_ms": int(1000 * _now())}
            for number in range(self._batch)
        ]
        self._sandbox.change(insert=mails)

    def _update_mail(self) -> None:
        self._sandbox.change(labels={"ids": self._mail, "add": ["STARRED"]})

    def _new_charges(self) -> None:
        # each comes with a payment intent and a balance transaction
        self._sandbox.change_stripe(create={"charge": self._batch // 3})

    def _update_charges(self) -> None:
        charges = self._sandbox.stripe_objects("charge")
        found = sorted(name for name, one in charges.items() if one["created"] >= _first_updated())
        self._sandbox.change_stripe(update={"charge": found[: self._batch]})


def _command(source: str) -> tuple[str, ...]:
    return ("loaders/run.py", source, "--connection", _CONNECTION, "--target", "emulator")


def _now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()


def _first_updated() -> float:
    """The beginning of the first month of those that are updated."""
    began = _months(_now(), UPDATED_MONTHS)[-1][0]
    assert began is not None
    return began


def _mail(number: int) -> str:
    text = f"From: a@example.com\r\nTo: b@example.com\r\nSubject: mail {number}\r\n\r\ntext\r\n"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _collect(batch: int) -> tuple[list[Scenario], dict[str, dict[str, Measured]], Reader]:
    """What the runs sent, and what the tables then look like, by the source whose rows they are."""
    from tests.peers.emulator import run_emulator

    with (
        tempfile.TemporaryDirectory() as name,
        run_emulator(Path(name)) as emulator,
        Sandbox(size=batch, charges=6 * batch) as sandbox,
        new_workspace() as workspace,
    ):
        recorder = Recorder(emulator, Path(name))
        bench = _Bench(workspace, sandbox, recorder, emulator.url, batch)
        bench.prepare()
        scenarios = list(bench.scenarios())
        resources = recorder.tables()
        tables = {_path(each): each for each in resources if each["type"] == "TABLE"}
        measured = {
            source: {name: _measure(recorder, each, source) for name, each in tables.items()}
            for source in PAYLOAD_BYTES
        }
    views = {
        _path(each): str(each["view"]["query"]) for each in resources if each["type"] == "VIEW"
    }
    return (
        scenarios,
        measured,
        Reader({name: each.widths for name, each in measured["gmail"].items()}, views),
    )


def _path(resource: Mapping[str, Any]) -> str:
    reference = resource["tableReference"]
    return f"{reference['datasetId']}.{reference['tableId']}"


def _measure(recorder: Recorder, resource: Mapping[str, Any], source: str) -> Measured:
    kinds = {field["name"]: str(field["type"]) for field in resource["schema"]["fields"]}
    sizes = {}
    for name, kind in kinds.items():
        text = f"to_json_string(`{name}`)" if kind == "JSON" else f"cast(`{name}` as string)"
        size = str(_FIXED_WIDTHS.get(kind, f"2 + byte_length({text})"))
        sizes[name] = f"if(`{name}` is null, 0, {size})"
    of_source = f"source_system = '{source}'" if "source_system" in kinds else "true"
    rows, widths = recorder.averages(_path(resource), sizes, of_source)
    if not rows:
        widths = {name: _FIXED_WIDTHS.get(kind, _UNMEASURED) for name, kind in kinds.items()}
    clustering = resource.get("clustering") or {}
    return Measured(
        rows,
        widths,
        str((resource.get("timePartitioning") or {}).get("field", "")),
        tuple(clustering.get("fields") or ()),
    )


def _priced(sent: Sent, reader: Reader) -> Iterator[Priced]:
    """The statements that were run; what failed and what loads is not billed."""
    for job in sent.jobs:
        if job.kind == "query" and not job.error:
            readings = reader.read(job.text, job.parameters)
            yield from (Priced(_short(job, each), each, job.began / 1000) for each in readings)


def _short(job: Job, reading: Reading) -> str:
    """First word, and dbt's node or the tables: what a person would call the statement."""
    text = re.sub(r"/\*.*?\*/|--[^\n]*", "", job.text, flags=re.DOTALL).strip()
    words = re.findall(r"\w+", text)[:1]
    node = dict(job.labels).get("node", "")
    tables = dict.fromkeys(scan.table.split(".", 1)[1] for scan in reading.scans)
    named = re.search(r"(?i)(?:into|table|view|exists|from|schema)\s+(`[\w.`-]+`)", text)
    target = named[1].replace("`", "").split(".")[-1] if named else ""
    what = node or ", ".join(list(tables)[:3]) or target
    if words[:1] == ["insert"] and target:
        what = f"into {target}"
    return f"{'NOT ANALYSED: ' if reading.doubt else ''}{' '.join(words).lower()} {what}"[:72]


def _tables(
    scenario: Scenario, measured: Mapping[str, Measured], stored: int, connections: int
) -> dict[str, Table]:
    return warehouse(
        measured,
        payload=PAYLOAD_BYTES[scenario.source],
        stored=stored * 1e9,
        connections=connections,
        queued=scenario.queued,
        now=max((job.began / 1000 for job in scenario.sent.jobs), default=_now()),
    )


def _by_size(
    scenario: Scenario, measured: Mapping[str, Measured], statements: Sequence[Priced]
) -> dict[tuple[int, int], Bill]:
    found = {}
    for stored in STORED_GB:
        for connections in CONNECTIONS:
            tables = _tables(scenario, measured, stored, connections)
            bills = [price(each.reading, tables, each.at) for each in statements]
            found[stored, connections] = sum(bills, Bill())
    return found


def _print_shown(
    scenario: Scenario,
    measured: Mapping[str, Measured],
    statements: Mapping[str, Sequence[Priced]],
) -> list[dict[str, Any]]:
    """Print the statements by what they cost at SHOWN, the same ones together; return them."""
    tables = _tables(scenario, measured, *SHOWN)
    grouped: dict[str, list[tuple[Bill, Priced]]] = {}
    for each in statements[scenario.title]:
        grouped.setdefault(each.name, []).append((price(each.reading, tables, each.at), each))
    totals = {
        name: (len(found), sum((bill for bill, _ in found), Bill()))
        for name, found in grouped.items()
    }
    order = sorted(totals, key=lambda name: -totals[name][1].promise)
    rows = [
        (name, totals[name][0], totals[name][1].promise / MB, totals[name][1].hope / MB)
        for name in order
    ]
    print_table(
        f"{scenario.title}, statements at {SHOWN[0]} GB and {SHOWN[1]} connection",
        ("statement", "times", "promise MB", "hope MB"),
        [*rows[:SHOWN_ROWS], _summed("the others", rows[SHOWN_ROWS:]), _summed("in all", rows)],
    )
    for doubt in {one.reading.doubt for one in statements[scenario.title] if one.reading.doubt}:
        print(f"not analysed, billed in full: {doubt}")
    return [
        {
            "name": name,
            "times": totals[name][0],
            **dataclasses.asdict(totals[name][1]),
            "reads": _reads(grouped[name][0][1].reading),
            "doubt": grouped[name][0][1].reading.doubt,
        }
        for name in order
    ]


def _summed(name: str, rows: Sequence[tuple[str, int, float, float]]) -> tuple[Any, ...]:
    return (name, sum(row[1] for row in rows), sum(row[2] for row in rows), sum(r[3] for r in rows))


def _reads(reading: Reading) -> list[dict[str, Any]]:
    return [
        {
            "table": scan.table,
            "columns": sorted(scan.columns),
            "changes_rows": scan.is_whole,
            "conditions": [each.sql("bigquery")[:200] for each in scan.filters],
        }
        for scan in reading.scans
    ]


def _jobs(sent: Sent) -> dict[str, Any]:
    kinds = [job.kind for job in sent.jobs]
    return {
        "query_jobs": kinds.count("query"),
        "load_jobs": kinds.count("load"),
        "requests": sent.requests,
        "chain": sent.chain,
        "seconds": sent.seconds,
    }


def _print_jobs(scenarios: Sequence[Scenario], statements: Mapping[str, Sequence[Priced]]) -> None:
    print_table(
        "What a run sends (chain: the longest sequence of jobs one after the other)",
        ("run", "query jobs", "load jobs", "HTTP requests", "chain", "seconds", "not analysed"),
        [
            (
                each.title,
                *_jobs(each.sent).values(),
                sum(bool(one.reading.doubt) for one in statements[each.title]),
            )
            for each in scenarios
        ],
    )


def _print_warehouse(tables: Mapping[str, Table]) -> None:
    """What is taken to be stored, of the tables that hold anything."""
    rows = []
    for name, table in tables.items():
        count, width = sum(each.rows for each in table.partitions), sum(table.widths.values())
        if count:
            narrow = width - table.widths.get("payload", 0.0)
            gigabytes = count * width / 1e9
            rows.append((name, int(count), width, narrow, len(table.partitions), gigabytes))
    print_table(
        f"The warehouse of mail with {SHOWN[0]} GB and {SHOWN[1]} connection",
        ("table", "rows", "bytes a row", "without payload", "partitions", "GB"),
        rows,
    )


def _monthly(bill: Bill) -> tuple[float, float, float, float]:
    """Gigabytes of a run and dollars of a month of them, by the promise and by the hope."""
    dollars = RUNS_A_MONTH * DOLLARS_A_TIB / 2**40
    return (bill.promise / 1e9, bill.promise * dollars, bill.hope / 1e9, bill.hope * dollars)

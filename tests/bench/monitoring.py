"""What `status` and the dashboard ask of a long job log, against a bare scan of it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from tests.bench.harness import Figures, median, new_workspace, print_table

EVENTS, QUICK_EVENTS = 1_000_000, 100_000
DAYS = 3 * 365
CONNECTIONS = 20
GOAL = 3
_REPEATS = 5


def run(quick: bool) -> Figures:
    """A generated log of three events a run, evenly over three years."""
    events = QUICK_EVENTS if quick else EVENTS
    with new_workspace() as workspace:
        figures = workspace.call("monitoring:measure", events=events)
    scan = figures["seconds"]["bare scan"]
    print_table(
        f"{events:,} events over {DAYS:,} days, {CONNECTIONS} connections, on DuckDB"
        f" (goal: each at most {GOAL} times a scan that reads every column of event_log; the last"
        " is all of the page's content, with what Python makes of the answers)",
        ("what", "seconds", "of the scan"),
        [(name, seconds, seconds / scan) for name, seconds in figures["seconds"].items()],
    )
    return figures


def measure(events: int) -> dict[str, Any]:
    """Generate the log, then time each question, warm."""
    from loaders.monitoring.dashboard import content
    from loaders.settings.target import load_target
    from loaders.transform import bootstrap, views
    from loaders.warehouse.opening import open_warehouse

    warehouse = open_warehouse(load_target())
    now = dt.datetime.now(dt.UTC)
    first_day = now.date() - dt.timedelta(days=29)
    with warehouse.open():
        bootstrap.bootstrap(warehouse)
        _generate(warehouse.execute, events // 3)
        views.ensure_views(warehouse)
        columns = sorted(warehouse.columns()["event_log"])
        read = ", ".join(f"max(cast({column} as varchar))" for column in columns)
        questions: dict[str, Callable[[], object]] = {
            "bare scan": lambda: warehouse.execute(f"select {read} from events.event_log"),
            "status: connections": lambda: views.connections(warehouse),
            "status: last 10 runs": lambda: views.runs(warehouse, 10),
            "dashboard: activity by day": lambda: content.read_activity(warehouse, first_day),
            "dashboard: runs by day": lambda: content.read_days(warehouse, first_day),
            "dashboard: last 2,000 runs": lambda: views.runs(
                warehouse, content.MAX_RUNS, content.RUN
            ),
            "the dashboard's content, 30 days": lambda: content.read(warehouse, 30, now),
        }
        return {"seconds": {name: _time(ask) for name, ask in questions.items()}}


def _time(ask: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _generate(execute: Callable[[str], object], runs: int) -> None:
    """Runs of several connections in turn, one in fifty of them failed."""
    step = DAYS * 86_400 / runs
    execute(
        f"""
        insert into events.event_log by name
        with runs as (
            select
                number,
                number % {CONNECTIONS} as connection,
                number % 50 = 7 as is_failed,
                now() - to_seconds(({runs} - number) * {step} + 60) as started_at
            from range({runs}) as numbers (number)
        ),
        events as (
            select runs.*, place from runs cross join range(3) as places (place)
        )
        select
            uuid() as event_id,
            case
                when place = 0 then 'job.started'
                when place = 1 then if(is_failed, 'ingestion.failed', 'ingestion.completed')
                else if(is_failed, 'job.failed', 'job.completed')
            end as event_type,
            'gmail' as source_system,
            'box' || connection as connection_name,
            if(place <> 1, 'job_run', null) as object_type,
            'gmail_ingest_box' || connection || '-' || number as correlation_id,
            started_at + to_seconds(place) as created_at,
            if(is_failed and place > 0, 'failed', 'ok') as status,
            if(is_failed and place > 0, 'gmail: messages.get failed 6 times', null)
                as error_message,
            case
                when place = 0 then
                    '{{"job_name":"gmail_ingest_box","package_name":"landfall","parameters":{{}},'
                    || '"timeout_seconds":3900,"host":null,"pid":1}}'
                when is_failed then
                    '{{"job_name":"gmail_ingest_box","package_name":"landfall","step":"extract",'
                    || '"duration_seconds":2.5,"error_type":"TransientSourceError",'
                    || '"retryable":true}}'
                when place = 1 then
                    '{{"records_extracted":12,"records_landed":12,"already_held":0,"gone":0,'
                    || '"dead_lettered":0,"new_dead_letters":0,"bytes":50000,"api_calls":14,'
                    || '"api_units":242,"retries":0,"throttled_seconds":0.0,"chunks":1,'
                    || '"mode":"incremental","has_more":false,"date_filter":null,'
                    || '"objects":{{"message":12}},"duration_seconds":1.5}}'
                else
                    '{{"job_name":"gmail_ingest_box","package_name":"landfall",'
                    || '"duration_seconds":2.5,"inserted":12,"updated":0,"unchanged":0,"deleted":0,'
                    || '"undeleted":0,"stale":0,"tests":{{"passed":20,"warned":0,"failed":0}},'
                    || '"merge":{{}}}}'
            end::json as payload
        from events
        """
    )

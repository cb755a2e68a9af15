"""The on-run hooks: a plain dbt command that changes the warehouse is a job with its events."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from loaders.errors import MAX_MESSAGE
from loaders.jobs.event_log import MAX_PAYLOAD_BYTES, log_event, trace_id_from_environment
from loaders.objects.items import Observed
from loaders.transform import bootstrap
from loaders.warehouse.base import Warehouse

from .conftest import (
    DUCKDB,
    HOSTILE_TEXTS,
    Project,
    at,
    duckdb_only,
    event_types,
    events,
    on_both_targets,
    on_emulator,
    prepared,
    run_scripted,
    stored,
)

pytestmark = pytest.mark.slow

CORE = ("--select", "stg_landed_objects", "raw_objects")
NO_TESTS = ("--exclude-resource-type", "test")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CANARY = "canary-content-90c1"


@pytest.fixture
def core(project: Project) -> Warehouse:
    """A warehouse in which the views are built, its event log empty."""

    def build(warehouse: Warehouse) -> None:
        bootstrap.bootstrap(warehouse)
        assert project.run_dbt("run", *CORE).success
        warehouse.execute("delete from events.event_log where true")

    return prepared(project, "core", build)


def land(warehouse: Warehouse, payload: str | None, external_id: str = "a") -> None:
    """A complete load of one object, past the gate that a source would have to pass."""
    warehouse.execute(
        "insert into events_staging.landed_objects (idem_key, source_system, connection_name,"
        " object_type, external_id, payload, payload_hash, observed_at, is_deleted,"
        " correlation_id, _dlt_load_id) values (?, 'acme', 'acct1', 'widget', ?, ?, 'h',"
        " current_timestamp, false, 'r', 'l1')",
        (f"acme:acct1:widget:{external_id}", external_id, payload),
    )
    warehouse.execute(
        "insert into events_staging._dlt_loads (load_id, status, inserted_at)"
        " values ('l1', 0, current_timestamp)"
    )


def test_a_build_of_an_empty_warehouse_is_a_job(empty_project: Project) -> None:
    assert empty_project.run_dbt("build").success
    warehouse = empty_project.open_warehouse()
    started, completed = events(warehouse)
    assert (started["event_type"], completed["event_type"]) == ("job.started", "job.completed")
    assert started["correlation_id"] == completed["correlation_id"]
    assert started["correlation_id"].startswith("dbt_build-")
    assert {started["source_system"], started["object_type"]} == {"dbt", "job_run"}
    for event in (started, completed):
        assert event["payload"]["job_name"] == "dbt_build"
        assert event["status"] == "ok"
    assert {"host", "parameters", "pid", "timeout_seconds"} <= set(started["payload"])
    counts = {name: completed["payload"][name] for name in ("inserted", "updated", "stale")}
    assert counts == {"inserted": 0, "updated": 0, "stale": 0}
    assert completed["payload"]["tests"]["passed"] > 0
    assert completed["payload"]["tests"]["failed"] == 0
    assert 0 < completed["payload"]["duration_seconds"] < 300


@on_both_targets
def test_every_build_logs_its_own_start_and_end(core: Warehouse, project: Project) -> None:
    """The hooks once wrote the start in a transaction that dbt rolled back."""
    for _ in range(2):
        assert project.run_dbt("build", *CORE, *NO_TESTS).success
    assert event_types(core) == ["job.started", "job.completed"] * 2
    assert len({event["correlation_id"] for event in events(core)}) == 2


@on_both_targets
def test_counts_are_those_of_the_merge(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    completed = events(core)[-1]
    assert completed["payload"]["inserted"] == 1
    assert stored(core)["a"]["merged_by"] == completed["correlation_id"]


def test_the_selection_is_recorded(core: Warehouse, project: Project) -> None:
    assert project.run_dbt("run", "--select", "raw_objects", "--full-refresh").success
    parameters = events(core)[0]["payload"]["parameters"]
    assert parameters["select"] == ["raw_objects"]
    assert parameters["full_refresh"] is True


def test_a_long_selection_is_recorded_in_part(core: Warehouse, project: Project) -> None:
    names = [f"{number}+raw_objects" for number in range(1, 1501)]
    others = [f"accepted_violations+{number}" for number in range(1, 1501)]
    selection = ("--select", *names, ",".join(names), "--exclude", *others)
    assert project.run_dbt("run", *selection).success
    started = events(core)[0]
    payload = started["payload"]
    assert len(json.dumps(payload).encode()) <= MAX_PAYLOAD_BYTES
    assert payload["parameters"]["select"][:2] == names[:2]
    shown = len(payload["parameters"]["select"]) - 1
    assert payload["parameters"]["select"][-1] == f"… {len(names) + 1 - shown} more"
    assert shown > 100


def test_a_wrapped_build_records_a_long_selection_in_part(
    core: Warehouse, project: Project
) -> None:
    names = [f"{number}+raw_objects" for number in range(1, 1501)]
    done = project.run_cli("build", "--exclude-resource-type", "test", "--select", *names)
    assert done.returncode == 0, done.stderr
    started = events(core)[0]["payload"]
    assert len(json.dumps(started).encode()) <= MAX_PAYLOAD_BYTES
    arguments = started["parameters"]["dbt_arguments"]
    assert arguments[:4] == ["--exclude-resource-type", "test", "--select", names[0]]
    assert arguments[-1] == f"… {3 + len(names) - (len(arguments) - 1)} more"


@pytest.mark.parametrize("value", [f'"{CANARY}"', "[3600]", "-1", "null"])
def test_a_timeout_that_is_no_number_is_refused(
    core: Warehouse, project: Project, value: str
) -> None:
    """Runs that look for orphans count with it."""
    result = project.run_dbt("run", *CORE, "--vars", '{"timeout_seconds": ' + value + "}")
    assert not result.success
    assert "timeout_seconds: expected a number of seconds" in str(result.exception)
    assert CANARY not in json.dumps(events(core), default=str)


@on_both_targets
def test_a_failing_model_is_a_failed_job_without_the_value(
    core: Warehouse, project: Project
) -> None:
    land(core, '{"id": "' + CANARY + "\", broken it's " + CANARY)
    assert not project.run_dbt("run", *CORE).success
    started, failed = events(core)
    assert failed["event_type"] == "job.failed"
    assert failed["correlation_id"] == started["correlation_id"]
    assert failed["status"] == "failed"
    assert failed["error_message"].startswith("1 dbt node(s) failed: raw_objects (")
    assert " Error); see " in failed["error_message"]
    assert failed["payload"]["error_type"] == "TransformFailed"
    assert failed["payload"]["step"] == "merge"
    assert CANARY not in json.dumps(events(core), default=str)


def rendered(project: Project, expression: str) -> Any:
    """What a Jinja expression is in dbt, where the project's macros are."""
    inline = "{{ (" + expression + ") | tojson }}"
    compiled = project.run_dbt("compile", "--inline", inline)
    assert compiled.success, compiled.exception
    return json.loads(compiled.result.results[0].node.compiled_code)


def messages(project: Project, failures: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """What job.failed says of each of these lists of failed results."""
    literal = repr(json.dumps(failures))
    calls = ", ".join(f"failed_nodes_message(given[{number}])" for number in range(len(failures)))
    found: list[str] = rendered(project, f"[{calls}]".replace("given", f"fromjson({literal})"))
    return found


def failure(message: str | None, name: str = "raw_objects", **node: Any) -> dict[str, Any]:
    config = {"fail_calc": "count(*)"}
    return {"status": "error", "message": message, "node": {"name": name, "config": config} | node}


IN_MODEL = "in model raw_objects (models/core/raw_objects.sql)\n  "
# What dbt hands on of a failed node, and what of it is surely no content.
OF_FAILURES: dict[str, str] = {
    f"Database Error {IN_MODEL}Syntax error; last read: '\"dear it's {CANARY}": "Syntax error",
    f"Database Error {IN_MODEL}Invalid timestamp: {CANARY}": "Database Error",
    f"Database Error {IN_MODEL}int64 overflow: {CANARY}": "Database Error",
    f"Database Error {IN_MODEL}{CANARY} Diary Error: 5": "Database Error",
    f"Database Error {IN_MODEL}Dear Diary Error: {CANARY}": "Database Error",
    f"Database Error {IN_MODEL}Access Denied: {CANARY}": "Access Denied",
    f"Database Error {IN_MODEL}Quota exceeded: {CANARY}": "Quota exceeded",
    f"Runtime Error {IN_MODEL}Conversion Error: Type INT64 with value {CANARY}": "Conversion Error",
    f"Runtime Error {IN_MODEL}Binder Error: no {CANARY}\n\nLINE 1: {CANARY}": "Binder Error",
    f"Runtime Error {IN_MODEL}http://user:{CANARY}@proxy/ Bearer {CANARY}": "Runtime Error",
    f"Compilation Error {IN_MODEL}{CANARY}\n  \n  > in macro x": "Compilation Error",
    f"landfall-on-run-start-0 failed, error:\n Catalog Error: {CANARY}": "Catalog Error",
    f"{CANARY}\n{CANARY}\nConversion Error: {CANARY}": "error",
    f"Got 2 results, configured to fail if != 0\n{CANARY}": "error",
    f"Got {CANARY} results, configured to fail if != 0": "error",
    f"Got 2 results, configured to fail if {CANARY}": "error",
    "Got 1 result, configured to fail if != 0": "Got 1 result, configured to fail if != 0",
    "Got 12 results, configured to fail if >10": "Got 12 results, configured to fail if >10",
    "": "error",
    **dict.fromkeys(HOSTILE_TEXTS.values(), "error"),
}


def test_a_failed_job_s_message_has_names_and_kinds_of_errors_alone(project: Project) -> None:
    said = messages(project, [[failure(message)] for message in OF_FAILURES])
    for message, kind, line in zip(OF_FAILURES, OF_FAILURES.values(), said, strict=True):
        assert line.startswith(f"1 dbt node(s) failed: raw_objects ({kind}); see "), message
        assert CANARY not in line
    assert len({line.partition("; see ")[2] for line in said}) == 1
    assert f"{project.state_dir}/logs/dbt.log" in said[0]


def test_a_number_of_results_that_is_a_value_is_left_out(project: Project) -> None:
    """A test may count otherwise, with fail_calc: max(amount)."""
    failed = failure(
        "Got 7654321 results, configured to fail if != 0", config={"fail_calc": "max(x)"}
    )
    [line] = messages(project, [[failed]])
    assert "raw_objects (error)" in line
    assert "7654321" not in line


def test_a_failed_job_s_message_has_500_characters_at_most(project: Project) -> None:
    got = f"Got {9 * 10**17} results, configured to fail if >= {9 * 10**17}"
    long = [
        [failure(got, name="n" * 300)] * 12_345,
        [failure(got, name="n" * 300)],
        [failure(None, name=f"node_{number}") for number in range(1000)],
        [failure(got, name=f"node_{number}") for number in range(3)],
    ]
    said = messages(project, long)
    assert max(map(len, said)) <= MAX_MESSAGE
    assert "nnn… (Got 9" in said[0]
    assert ", 12344 more; see " in said[0]
    assert "more" not in said[1]
    assert said[2].startswith("1000 dbt node(s) failed: node_0 (error), node_1 (error), ")
    assert len(said[2]) > MAX_MESSAGE - 30
    for line in said:
        assert "/dbt.log, invocation " in line
    for number in range(3):
        assert f"node_{number} ({got})" in said[3]


@pytest.mark.parametrize("directory", ["d" * 200, "a;b", "a\nb"])
def test_a_strange_path_is_not_repeated(project: Project, directory: str) -> None:
    strange = dataclasses.replace(project, directory=project.directory / directory)
    [line] = messages(strange, [[failure("")]])
    assert "; see dbt's log, invocation " in line


def test_without_a_log_file_dbt_s_output_is_where_to_read_on(
    core: Warehouse, project: Project
) -> None:
    land(core, "{broken")
    assert not project.run_dbt("run", "--select", "raw_objects", "--log-level-file", "none").success
    assert "; see dbt's output, invocation " in events(core)[-1]["error_message"]


@on_both_targets
def test_a_failing_test_is_a_failed_check(core: Warehouse, project: Project) -> None:
    assert project.run_dbt("seed").success
    core.execute("delete from events.event_log where true")
    core.execute(
        "insert into events.event_log (event_id, event_type, source_system, idem_key,"
        " correlation_id, created_at, status) values ('e', 'job.surprise', 'acme', ?, 'r',"
        " current_timestamp, 'ok')",
        (CANARY,),
    )
    assert not project.run_dbt("build", "--select", "assert_idem_keys").success
    failed = events(core)[-1]
    assert failed["event_type"] == "job.failed"
    assert failed["payload"]["error_type"] == "CheckFailed"
    assert failed["payload"]["step"] == "check"
    assert failed["payload"]["tests"] == {
        "passed": 0,
        "warned": 0,
        "failed": 1,
        "skipped": 0,
    }
    kind = "(Got 1 result, configured to fail if != 0; of r)"
    shown = "`dbt show --select assert_idem_keys` lists its rows, docs/faults.md says what to do"
    assert f"assert_idem_keys {kind}; {shown}; see " in failed["error_message"]
    assert CANARY not in json.dumps([failed["error_message"], failed["payload"]])


@duckdb_only("what is printed")
def test_a_failing_test_of_no_job_names_the_objects(
    core: Warehouse, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run_dbt("seed").success
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    core.execute("update events.raw_objects set first_seen = last_seen + interval 1 day")
    capsys.readouterr()
    assert not project.run_dbt("test", "--select", "assert_object_timestamps", quiet=False).success
    printed = capsys.readouterr().out
    assert "assert_object_timestamps (Got 1 result, configured to fail if != 0" in printed
    assert "; of acme:acct1:widget:a; of dbt_run-" in printed
    shown = project.run_dbt("show", "--select", "assert_object_timestamps")
    assert "acme:acct1:widget:a" in str(shown.result.results[0].agate_table.columns[0].values())


@on_both_targets
def test_an_empty_build_passes_where_there_are_no_runs(empty_project: Project) -> None:
    result = empty_project.run_dbt("build", "--empty", "--exclude-resource-type", "unit_test")
    assert result.success, result.exception
    assert events(empty_project.open_warehouse()) == []


@on_both_targets
@pytest.mark.parametrize("command", ["build", "run"])
def test_an_empty_build_is_refused_where_there_are_runs(
    core: Warehouse, project: Project, command: str
) -> None:
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    before = stored(core), events(core)
    result = project.run_dbt(command, "--empty")
    assert not result.success
    assert "--empty: " in str(result.exception)
    assert "expected a warehouse without runs" in str(result.exception)
    assert (stored(core), events(core)) == before


@on_both_targets
def test_runs_that_will_write_no_end_get_one(core: Warehouse, project: Project) -> None:
    """Ctrl-C leaves those of dbt without one; nobody looks for one of a month ago."""
    started = [
        ("dbt_build-1", "dbt", dt.timedelta(seconds=71 * 60)),
        ("dbt_build-2", "dbt", dt.timedelta(seconds=69 * 60)),
        ("old", "gmail", dt.timedelta(days=31)),
        ("recent", "gmail", dt.timedelta(days=29)),
    ]
    for run, source_system, age in started:
        log_event(
            core,
            "job.started",
            source_system=source_system,
            connection_name=None if source_system == "dbt" else "acct1",
            object_type="job_run",
            correlation_id=run,
            created_at=dt.datetime.now(dt.UTC) - age,
            payload={"job_name": "it's", "package_name": "landfall", "timeout_seconds": 3600},
        )
    assert project.run_dbt("seed").success
    assert project.run_dbt("seed").success
    ends = {run: events(core, run)[1:] for run, *_ in started}
    assert {run: len(found) for run, found in ends.items()} == {
        "dbt_build-1": 1,
        "dbt_build-2": 0,
        "old": 1,
        "recent": 0,
    }
    for [end] in filter(None, ends.values()):
        assert (end["event_type"], end["status"]) == ("job.failed", "failed")
        assert end["payload"]["error_type"] == "Orphaned"
        assert end["payload"]["job_name"] == "it's"
        assert end["payload"]["inserted"] is None
    tests = ("assert_event_payloads", "assert_job_lifecycle", "warn_older_runs")
    found = project.run_dbt("test", "--select", *tests).result.results
    # The start of a test's making has fewer fields than one of a job.
    assert {each.node.name: str(each.status) for each in found}["assert_job_lifecycle"] == "pass"


@on_both_targets
def test_a_retry_is_a_job_of_its_own(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_WRITE_JSON", "true")  # dbt retry reads run_results.json
    land(core, "{broken")
    assert not project.run_dbt("run", *CORE).success
    core.execute("update events_staging.landed_objects set payload = '{}' where true")
    assert project.run_dbt("retry").success
    assert event_types(core) == ["job.started", "job.failed", "job.started", "job.completed"]
    last = events(core)[-1]
    assert last["correlation_id"] != events(core)[0]["correlation_id"]
    assert last["payload"]["inserted"] == 1


SILENT: dict[str, tuple[str, ...]] = {
    "test": ("test", "--select", "assert_idem_keys"),
    "compile": ("compile", *CORE),
    "parse": ("parse",),
    "list": ("list",),
    "docs": ("docs", "generate", "--select", "raw_objects"),
    "freshness": ("source", "freshness"),
    "show": ("show", "--select", "stg_landed_objects"),
    "run --empty": ("run", *CORE, "--empty"),
    "build --empty": ("build", *CORE, *NO_TESTS, "--empty"),
}


@pytest.mark.parametrize("command", SILENT.values(), ids=SILENT.keys())
def test_what_changes_nothing_writes_no_event(
    core: Warehouse, project: Project, command: tuple[str, ...]
) -> None:
    land(core, '{"id": "a"}')
    project.run_dbt(*command)
    assert events(core) == []


@pytest.mark.parametrize("command", ["compile", "test", "show"])
def test_what_changes_nothing_creates_no_table(project: Project, command: str) -> None:
    project.run_dbt(command, "--select", "stg_landed_objects")
    tables = project.open_warehouse().columns()
    assert "event_log" not in tables
    assert "raw_objects" not in tables


@on_both_targets
def test_hooks_stay_silent_inside_a_wrapped_job(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDFALL_CORRELATION_ID", "wrapper-1")
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    assert events(core) == []
    assert stored(core)["a"]["merged_by"] == "wrapper-1"


def test_the_trace_id_of_the_caller_is_logged(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    assert project.run_dbt("run", *CORE).success
    assert {event["trace_id"] for event in events(core)} == {TRACE_ID}


@pytest.mark.parametrize(
    ("target_type", "value"),
    [
        pytest.param(DUCKDB, "00-{{ 1/0 }}-b-c", id="jinja"),
        pytest.param(DUCKDB, "00-'); drop table events.event_log; ---c-d", id="sql"),
        pytest.param(DUCKDB, '00-"\\-x-y', id="quotes"),
        pytest.param(DUCKDB, "00-é🦆-x-y", id="unicode"),
        pytest.param(DUCKDB, f"00-{CANARY.replace('-', '')}-x-y", id="text"),
        pytest.param(DUCKDB, f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01", id="upper case"),
        pytest.param(DUCKDB, f"00-{TRACE_ID}0-00f067aa0ba902b7-01", id="too long"),
        pytest.param(DUCKDB, f"00-{TRACE_ID}-00f067aa0ba902b7-01\n", id="line break"),
        pytest.param(DUCKDB, f"00-{TRACE_ID}-00f067aa0ba902b7", id="too few parts"),
        pytest.param(DUCKDB, f"00-{'0' * 32}-00f067aa0ba902b7-01", id="zeros, as W3C forbids"),
        # One value for all: a run takes long there.
        on_emulator("00-{{ 1/0 }}'); drop table events.event_log; --\"\\é🦆-c-d", id="all"),
    ],
    indirect=["target_type"],
)
def test_a_hostile_traceparent_is_no_trace_id(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TRACEPARENT", value)
    assert trace_id_from_environment() is None
    assert project.run_dbt("run", *CORE).success
    assert event_types(core) == ["job.started", "job.completed"]
    assert {event["trace_id"] for event in events(core)} == {None}


# The emulator writes a MERGE's expressions out anew; then a raw string's \u escapes are read.
MISREAD_IN_A_MERGE = {"emoji", "control characters"}


@pytest.mark.parametrize(
    ("target_type", "text"),
    [
        *(pytest.param(DUCKDB, text, id=name) for name, text in HOSTILE_TEXTS.items()),
        on_emulator(
            " ".join(
                text for name, text in HOSTILE_TEXTS.items() if name not in MISREAD_IN_A_MERGE
            ),
            id="all that it can read",
        ),
        on_emulator(
            " ".join(HOSTILE_TEXTS[name] for name in sorted(MISREAD_IN_A_MERGE)),
            pytest.mark.xfail(strict=True, reason="the emulator's own defect"),
            id="what it misreads",
        ),
    ],
    indirect=["target_type"],
)
def test_a_hostile_correlation_id_is_stored_literally(
    core: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LANDFALL_CORRELATION_ID", text)
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    assert stored(core)["a"]["merged_by"] == text


@duckdb_only("a payload that is quoted in the message")
@pytest.mark.parametrize(
    "text", ["it''s {{ 1 / 0 }}", "back\\slash \U0001f986 \u2028", "a); drop table x; --"]
)
def test_a_hostile_error_message_is_harmless(core: Warehouse, project: Project, text: str) -> None:
    """The message comes out of the warehouse, with the text in it, and goes back into SQL."""
    land(core, f'{{"id": "a", {text}')
    assert not project.run_dbt("run", "--select", "raw_objects").success
    assert event_types(core) == ["job.started", "job.failed"]
    assert "raw_objects" in events(core)[-1]["error_message"]


@on_both_targets
def test_raw_objects_survives_a_full_refresh(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    assert project.run_dbt("run", *CORE).success
    before = stored(core)
    assert project.run_dbt("build", *CORE, *NO_TESTS, "--full-refresh").success
    assert stored(core) == before
    assert event_types(core)[-2:] == ["job.started", "job.completed"]


@on_both_targets
def test_the_first_plain_build_merges_what_a_wrapper_landed(
    warehouse: Warehouse, project: Project, core_build: None
) -> None:
    run_scripted(warehouse, [Observed("widget", '{"id": "a"}', at(1), "a")])
    first: dict[str, Any] = stored(warehouse)["a"]
    assert project.run_dbt("run", *CORE).success
    assert stored(warehouse)["a"] == first


@on_both_targets
def test_a_start_that_cannot_be_logged_stops_the_models(core: Warehouse, project: Project) -> None:
    land(core, '{"id": "a"}')
    core.execute("drop table events.event_log")
    core.execute("create view events.event_log as select 1 as event_id")
    assert not project.run_dbt("run", *CORE).success
    assert stored(core) == {}

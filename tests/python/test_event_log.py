"""log_event: what it writes, what it refuses, and that no event is ever lost or doubled."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loaders import errors
from loaders.cli.close import _process
from loaders.cli.log_lines import configure_logging
from loaders.errors import MAX_MESSAGE, Interrupted, WarehouseError, register_secret
from loaders.jobs.event_log import MAX_PAYLOAD_BYTES, log_event, replay_spool, spool, spool_dir
from loaders.jobs.job import Job
from loaders.jobs.processes import host_identity
from loaders.jobs.runs import find_open
from loaders.monitoring.health import last_runs
from loaders.settings.places import PROJECT_DIR
from loaders.warehouse.base import Warehouse

from .conftest import Project, event_types, events, hostile

pytestmark = pytest.mark.usefixtures("stays_open")

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def broken(warehouse: Warehouse) -> Warehouse:
    """A warehouse whose event_log takes no rows until `mend` is called."""
    warehouse.execute("alter table events.event_log rename to event_log_away")
    return warehouse


def mend(warehouse: Warehouse) -> None:
    warehouse.execute("alter table events.event_log_away rename to event_log")


def log(warehouse: Warehouse, event_type: str = "job.started", **fields: Any) -> str:
    return log_event(
        warehouse, event_type, **{"source_system": "acme", "correlation_id": "run-1", **fields}
    )


def spooled(warehouse: Warehouse) -> list[Path]:
    return sorted(spool_dir(warehouse).glob("*.json"))


def test_an_event_is_one_row_with_its_fields(warehouse: Warehouse) -> None:
    before = dt.datetime.now(dt.UTC)
    event_id = log(warehouse, connection_name="acct1", object_type="job_run")
    [event] = events(warehouse)
    assert uuid.UUID(event["event_id"]) == uuid.UUID(event_id)
    assert before <= event.pop("created_at") <= dt.datetime.now(dt.UTC)
    assert event == {
        "event_id": event_id,
        "event_type": "job.started",
        "source_system": "acme",
        "connection_name": "acct1",
        "object_type": "job_run",
        "idem_key": None,
        "correlation_id": "run-1",
        "trace_id": None,
        "status": "ok",
        "error_message": None,
        "payload": None,
    }


def test_a_payload_is_stored_as_json(warehouse: Warehouse) -> None:
    payload = {"count": 3, "ratio": 0.5, "none": None, "nested": {"list": [1, "two"]}}
    log(warehouse, payload=payload)
    assert events(warehouse)[0]["payload"] == payload
    [(kind,)] = warehouse.execute("select typeof(payload) from events.event_log")
    assert kind == "JSON"


@pytest.mark.parametrize("event_type", ["job.failed", "ingestion.failed"])
def test_a_failure_has_status_failed_and_its_message(warehouse: Warehouse, event_type: str) -> None:
    log(warehouse, event_type, error_message="acme: the widget is gone")
    [event] = events(warehouse)
    assert (event["status"], event["error_message"]) == ("failed", "acme: the widget is gone")


def test_the_trace_id_comes_from_traceparent(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    log(warehouse)
    assert events(warehouse)[0]["trace_id"] == TRACE_ID


def test_a_given_trace_id_wins_over_traceparent(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'0' * 31}1-00f067aa0ba902b7-01")
    log(warehouse, trace_id=TRACE_ID)
    assert events(warehouse)[0]["trace_id"] == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        f"00-{TRACE_ID}",
        f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01",
        "a-b-c-d",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
    ],
)
def test_a_malformed_traceparent_is_no_trace_id(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TRACEPARENT", value)
    log(warehouse)
    assert events(warehouse)[0]["trace_id"] is None


@pytest.mark.parametrize(
    ("event_type", "fields", "named"),
    [
        pytest.param("", {}, "event_type", id="no event type"),
        pytest.param("object.upserted", {}, "event_type.*job.started", id="unknown event type"),
        pytest.param("job.started", {"source_system": ""}, "source_system", id="no source"),
        pytest.param("job.started", {"source_system": None}, "source_system", id="source None"),
        pytest.param("job.started", {"correlation_id": ""}, "correlation_id", id="no run"),
        pytest.param("job.started", {"correlation_id": None}, "correlation_id", id="run None"),
        pytest.param("job.failed", {}, "error_message", id="failure without a message"),
        pytest.param(
            "job.failed", {"error_message": ""}, "error_message", id="failure, empty message"
        ),
        pytest.param(
            "job.completed", {"error_message": "x"}, "error_message", id="success with a message"
        ),
    ],
)
def test_what_an_event_lacks_is_named_and_nothing_is_written(
    warehouse: Warehouse, event_type: str, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        log(warehouse, event_type, **fields)
    assert events(warehouse) == []
    assert spooled(warehouse) == []


def test_an_event_takes_no_key_of_an_object(warehouse: Warehouse) -> None:
    """assert_idem_keys would find it in every later run."""
    with pytest.raises(TypeError, match="idem_key"):
        log(warehouse, idem_key="acme:acct1:widget:a")
    assert events(warehouse) == []
    assert spooled(warehouse) == []


@pytest.mark.parametrize("filler", ["x", "é"], ids=["ascii", "two bytes"])
def test_a_payload_over_16_kb_is_refused(warehouse: Warehouse, filler: str) -> None:
    overhead = len('{"text":""}')
    fits = (MAX_PAYLOAD_BYTES - overhead) // len(filler.encode())
    log(warehouse, payload={"text": filler * fits})
    with pytest.raises(ValueError, match=f"at most {MAX_PAYLOAD_BYTES}"):
        log(warehouse, payload={"text": filler * (fits + 1)})
    assert len(events(warehouse)) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_event_that_the_warehouse_refuses_is_spooled_and_told(
    broken: Warehouse, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    """To a person in one line with the file; to programs, whose disk may be lost, as a whole."""
    with own_logging():
        configure_logging(log_format, debug=False)
        event_id = log(broken, payload={"n": 1})
    [path] = spooled(broken)
    event = json.loads(path.read_text())
    assert event["event_id"] == event_id
    [line] = capsys.readouterr().err.splitlines()
    if log_format == "text":
        assert line == f"event not written, spooled to {path}"
    else:
        assert json.loads(line)["event"] == event


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def no_events(path: Path) -> dict[str, Callable[[], object]]:
    """What may lie in the spool, or be left there of a file by a disk."""
    event = json.loads(path.read_text())

    def write(**changes: Any) -> Callable[[], object]:
        return lambda: path.write_text(json.dumps({**event, **changes}))

    def be_directory() -> None:
        path.unlink()
        path.mkdir()

    def be_link() -> None:
        path.unlink()
        path.symlink_to(path)

    return {
        "empty": lambda: path.write_text(""),
        "zeros": lambda: path.write_bytes(bytes(80)),
        "cut off": lambda: path.write_text(json.dumps(event)[:60]),
        "not UTF-8": lambda: path.write_bytes(b'{"event_id": "\xff"}'),
        "too deep": lambda: path.write_text("[" * 100_000),
        "a list": lambda: path.write_text("[]"),
        "fields lack": lambda: path.write_text('{"event_id": "1"}'),
        "another field": write(more="x"),
        "a number": write(error_message=7),
        "no id": write(event_id=None),
        "another type": write(event_type="object.upserted"),
        "no time": write(created_at="yesterday"),
        "no payload": write(payload="{"),
        "a directory": be_directory,
        "a link to itself": be_link,
    }


def test_a_file_that_is_no_event_holds_up_no_run(
    broken: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    log(broken)
    [first] = spooled(broken)
    kept = first.read_text()
    mend(broken)
    for name, spoil in no_events(first).items():
        caplog.clear()
        with contextlib.suppress(FileNotFoundError):
            first.unlink()
        first.write_text(kept)
        spoil()
        good = first.with_name(f"{name}.json")
        good.write_text(json.dumps({**json.loads(kept), "event_id": name}))
        assert replay_spool(broken) == 1, name
        [line] = caplog.messages
        assert line.startswith(f"warning: {first} cannot be read as an event")
        [aside] = spool(broken).set_aside
        assert aside.name in line
        assert not spool(broken).waiting
        aside.rmdir() if aside.is_dir() else aside.unlink()


def test_a_file_that_cannot_be_renamed_holds_up_no_run_either(
    broken: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    log(broken)
    [path] = spooled(broken)
    path.write_text("")
    mend(broken)
    monkeypatch.setattr(Path, "rename", refuse)
    assert replay_spool(broken) == 0
    assert spooled(broken) == [path]


def test_a_spooled_event_is_replayed_by_the_next_run_before_its_own(
    broken: Warehouse,
) -> None:
    event_id = log(broken, "job.completed", payload={"n": 1})
    with pytest.raises(WarehouseError):
        replay_spool(broken)
    assert len(spooled(broken)) == 1
    mend(broken)
    Job(broken, job_name="next", source_system="acme", connection_name="acct1").start()
    assert event_types(broken) == ["job.completed", "job.started"]
    first = events(broken)[0]
    assert first["event_id"] == event_id
    assert first["payload"] == {"n": 1}
    assert spooled(broken) == []


def test_a_replay_never_doubles_an_event(broken: Warehouse) -> None:
    log(broken)
    [path] = spooled(broken)
    content = path.read_text()
    mend(broken)
    assert replay_spool(broken) == 1
    # The process died after the insert and before the unlink.
    path.write_text(content)
    assert replay_spool(broken) == 1
    assert replay_spool(broken) == 0
    assert len(events(broken)) == 1


def test_a_spooled_event_keeps_every_field(broken: Warehouse, warehouse: Warehouse) -> None:
    created_at = dt.datetime(2026, 2, 3, 4, 5, 6, 789, dt.UTC)
    fields = {
        "connection_name": "acct1",
        "object_type": "job_run",
        "trace_id": TRACE_ID,
        "error_message": "it's {{ broken }}",
        "payload": {"text": "a\u2028b '); --"},
        "created_at": created_at,
    }
    log(broken, "job.failed", **fields)
    mend(broken)
    replay_spool(broken)
    [event] = events(broken)
    assert {name: event[name] for name in fields} == fields


def test_a_locked_warehouse_file_spools_the_event(
    warehouse: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise duckdb.IOException("IO Error: Could not set lock on file: held elsewhere")

    with monkeypatch.context() as patched:
        patched.setattr(duckdb, "connect", refuse)
        event_id = log(warehouse)
    assert [path.stem.endswith(event_id) for path in spooled(warehouse)] == [True]
    assert replay_spool(warehouse) == 1
    assert [event["event_id"] for event in events(warehouse)] == [event_id]


def test_spooled_events_wait_apart_for_each_warehouse(
    broken: Warehouse, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(broken)
    monkeypatch.setenv("LANDFALL_DUCKDB_PATH", str(project.directory / "other.duckdb"))
    assert spooled(project.open_warehouse()) == []


def test_registered_secrets_never_reach_the_log(
    broken: Warehouse,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "_known_secrets", set())
    canary = "canary-7f3a9b-correct-horse"
    register_secret(canary)
    message = f"refused: token {canary} and again {canary}"
    log(broken, "job.failed", error_message=message)  # spooled
    text = "".join(path.read_text() for path in spooled(broken))
    mend(broken)
    replay_spool(broken)
    log(broken, "job.failed", error_message=message)
    assert [event["error_message"] for event in events(broken)] == [
        "refused: token *** and again ***"
    ] * 2
    assert canary not in text + caplog.text


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abcdef123456",
        "access_token=abcdef123456",
        "https://example.test/?key=abcdef123456&x=1",
        "sk_test_abcdef123456",
        "ya29.a0abcdef123456",
        "-----BEGIN PRIVATE KEY-----\nabcdef123456\n-----END PRIVATE KEY-----",
    ],
    ids=["bearer", "token", "url key", "stripe key", "google token", "private key"],
)
def test_recognisable_credentials_are_blanked(warehouse: Warehouse, secret: str) -> None:
    log(warehouse, "job.failed", error_message=f"refused {secret} at the door")
    message = events(warehouse)[0]["error_message"]
    assert "abcdef123456" not in message
    assert message.startswith("refused ")


def test_values_that_a_warehouse_quotes_stay_out(warehouse: Warehouse) -> None:
    log(warehouse, "job.failed", error_message="Malformed JSON at 7.  Input: {dear diary}\nmore")
    assert events(warehouse)[0]["error_message"] == "Malformed JSON at 7."


def test_a_long_message_is_cut(warehouse: Warehouse) -> None:
    log(warehouse, "job.failed", error_message="x" * 5000)
    message = events(warehouse)[0]["error_message"]
    assert len(message) == MAX_MESSAGE
    assert message.endswith("…")


@hostile
def test_hostile_text_is_stored_literally(warehouse: Warehouse, text: str) -> None:
    log(warehouse, "job.failed", error_message=text, payload={"text": text, text: 1})
    [event] = events(warehouse)
    assert event["payload"] == {"text": text, text: 1}
    # A message is one line: only its whitespace is folded.
    assert event["error_message"] == " ".join(text.split())


@hostile
def test_hostile_text_survives_the_spool(broken: Warehouse, text: str) -> None:
    log(broken, "job.failed", error_message=f"say {text}", payload={"text": text})
    mend(broken)
    replay_spool(broken)
    [event] = events(broken)
    assert event["payload"] == {"text": text}
    assert event["error_message"] == " ".join(f"say {text}".split())


def test_an_unpaired_surrogate_does_not_keep_an_event_out(warehouse: Warehouse) -> None:
    # Python makes them of file names and arguments that are not UTF-8.
    log(warehouse, "job.failed", error_message="no file \udcff.txt", payload={"path": "\udcff"})
    assert spooled(warehouse) == []
    [event] = events(warehouse)
    assert (event["error_message"], event["payload"]) == ("no file ?.txt", {"path": "?"})


def test_an_unpaired_surrogate_in_a_name_does_not_keep_an_event_out(warehouse: Warehouse) -> None:
    names = ("source_system", "connection_name", "object_type", "correlation_id")
    log(warehouse, trace_id="\udcff", **dict.fromkeys(names, "a\udcff"))
    assert spooled(warehouse) == []
    [event] = events(warehouse)
    assert [event[name] for name in (*names, "trace_id")] == ["a?"] * 4 + ["?"]


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**64, [{"deep": 2**70}], {1: "a", "1": "b"}],
    ids=["NaN", "infinity", "65 bits", "70 bits, deep inside", "one name twice"],
)
def test_a_number_that_no_warehouse_keeps_is_refused(
    warehouse: Warehouse, broken: Warehouse, value: Any
) -> None:
    """Spooled, it would be refused by the next run too, and that would get no further."""
    with pytest.raises(ValueError, match="payload: "):
        log(broken, payload={"n": value})
    assert spooled(warehouse) == []


def test_nothing_follows_the_end_of_a_run(warehouse: Warehouse) -> None:
    """A signal ends the run; its work notices, and has a failure of its own to tell."""
    job = Job(warehouse, job_name="next", source_system="acme", connection_name="acct1")
    job.start()
    job.fail(Interrupted(signal.SIGINT))
    job.log("ingestion.failed", {"step": "extract"}, "cancelled")
    job.complete({})
    assert event_types(warehouse) == ["job.started", "job.failed"]


_SIGNALLED = """
import os, signal, sys, threading, time
from loaders.jobs.job import Job
from loaders.jobs.supervision import run_supervised
from loaders.settings.target import load_target
from loaders.warehouse.opening import open_warehouse

def interrupt(frame, event, argument):
    # While the main thread holds a lock of what it is about to wait on.
    if frame.f_code is threading.Event.wait.__code__ and frame.f_back.f_code.co_name == CALLER:
        if event == "line" and frame.f_locals["self"]._cond._lock.locked():
            signal.raise_signal(signal.SIGTERM)
        return interrupt

def work():
    job.start()
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

CALLER = run_supervised.__name__
job = Job(open_warehouse(load_target()), job_name="next", source_system="acme", timeout_seconds=60)
sys.settrace(interrupt)
run_supervised(job, work)
"""


@pytest.mark.slow
def test_a_signal_ends_a_run_whenever_it_comes(warehouse: Warehouse) -> None:
    """Also in the moment in which the main thread begins to wait for it."""
    ended = subprocess.run(
        [sys.executable, "-c", _SIGNALLED], cwd=PROJECT_DIR, timeout=30, check=False
    )
    assert ended.returncode == 143


ANYTHING: list[Any] = [
    None, {}, {"timeout_seconds": "soon"}, {"timeout_seconds": [1]}, {"timeout_seconds": 1e300},
    {"timeout_seconds": -5}, {"host": "here", "pid": 1}, {"host": {"name": "x"}, "pid": "x"},
    {"host": {**host_identity(), "process_start": "1"}, "pid": 1 << 40},
    {"host": {**host_identity(), "process_start": "1"}, "pid": -1}, {"pid": {}, "host": []},
]  # fmt: skip


@pytest.mark.parametrize("payload", ANYTHING)
def test_a_start_that_somebody_wrote_stops_no_run(warehouse: Warehouse, payload: Any) -> None:
    """log_event takes any payload, and every run reads the starts that have no end."""
    log_event(
        warehouse,
        "job.started",
        source_system="acme",
        correlation_id="theirs",
        object_type="job_run",
        payload=payload,
        created_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1),
    )
    job = Job(warehouse, job_name="acme", source_system="acme", connection_name="acct1")
    job.start()
    job.complete({})
    assert {run.correlation_id for run in last_runs(warehouse, 10)} >= {"theirs"}
    found = find_open(warehouse, "theirs")
    assert found.ends_by >= found.started_at
    assert isinstance(_process(found), str)

"""Fixtures: a project of its own for each test, a warehouse, the local stand-in of the APIs."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.layout import LABEL_NAMES
from loaders import errors
from loaders.errors import LandfallError
from loaders.ingestion import ingest
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.objects.items import Cursor, Deleted, Gone, Item, Listed, Observed, Unfetched
from loaders.settings.places import PROJECT_DIR
from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.options import GmailConfig
from loaders.sources.gmail.source import GmailSource
from loaders.sources.gmail.sync import MESSAGES
from loaders.sources.stripe.options import StripeConfig
from loaders.sources.stripe.source import StripeSource
from loaders.transform import bootstrap, dbt_build
from loaders.transform.invocation import release_file
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.duckdb_file import DuckDBWarehouse
from tests.peers.datasets import Datasets
from tests.peers.emulator import Emulator
from tests.peers.gate import Gate

from . import held_file, replay
from .project import TARGET as TARGET
from .project import File as File
from .project import Project as Project
from .project import Store as Store

EMULATOR_TARGET = f"{TARGET}-emulator"
LABELS = len(LABEL_NAMES)
"""Labels of every sandbox mailbox: objects too."""
MAILBOX_SIZE = 30
_OWN_VARIABLES = (
    "LANDFALL_", "SOURCES__", "ALERTS__", "DBT_", "TRACEPARENT", "DLT_", "GOOGLE_APPLICATION_",
)  # fmt: skip


os.umask(0o077)  # as `run.py` has it; what others could read is warned of

DUCKDB, EMULATOR = "duckdb", "emulator"


def on_emulator(*values: Any, id: str | None = None) -> Any:
    """Parameters of a test that runs on the BigQuery emulator; marks may be among them."""
    marks = [value for value in values if isinstance(value, pytest.MarkDecorator)]
    others = [value for value in values if not isinstance(value, pytest.MarkDecorator)]
    # The first one may have to install the emulator.
    marks += [pytest.mark.slow, pytest.mark.extended, pytest.mark.timeout(600)]
    return pytest.param(EMULATOR, *others, marks=marks, id=f"{id}-{EMULATOR}" if id else EMULATOR)


on_both_targets = pytest.mark.parametrize("target_type", [DUCKDB, on_emulator()], indirect=True)
"""Run the test on DuckDB and on the BigQuery emulator; other tests run on DuckDB alone."""


def duckdb_only(reason: str) -> pytest.MarkDecorator:
    """Mark a test that has no counterpart on BigQuery."""
    assert reason
    return pytest.mark.parametrize("target_type", [DUCKDB], indirect=True)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same directory for every test: dbt parses again when the warehouse's path changes."""
    yield tmp_path_factory.mktemp("landfall")
    for target in (TARGET, EMULATOR_TARGET):
        shutil.rmtree(PROJECT_DIR / "target" / target, ignore_errors=True)


@pytest.fixture(scope="session")
def datasets(emulator: Emulator) -> Datasets:
    """The emulator's datasets, and the copies of them that the session keeps."""
    return Datasets(emulator)


@pytest.fixture
def target_type(request: pytest.FixtureRequest) -> str:
    """The warehouse of a test; see on_both_targets."""
    return str(getattr(request, "param", DUCKDB))


@pytest.fixture
def project(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    target_type: str,
    request: pytest.FixtureRequest,
) -> Iterator[Project]:
    """An empty project: a profile, no warehouse, no connection, no state.

    On the emulator tables stay as a test leaves them until the next takes its `warehouse` or
    `empty_project`, and GoogleSQL's analyzer must accept whatever the test sends.
    """
    if target_type == DUCKDB:
        with _project(workspace, monkeypatch) as made:
            yield made
        return
    gate: Gate = request.getfixturevalue("gate")
    emulator: Emulator = request.getfixturevalue("emulator")
    with _project(workspace, monkeypatch, request.getfixturevalue("datasets")) as made:
        monkeypatch.setenv("LANDFALL_EMULATOR_URL", emulator.url)
        yield made
    refused = gate.refused()
    assert not refused


@pytest.fixture
def empty_project(project: Project) -> Project:
    """A project without a table, on any target."""
    project.store.empty()
    return project


@contextlib.contextmanager
def _project(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, datasets: Datasets | None = None
) -> Iterator[Project]:
    directory = workspace / "project"
    file = File(directory / "warehouse" / "landfall.duckdb", workspace / "copies")
    project = Project(
        directory, datasets or file, target=TARGET if datasets is None else EMULATOR_TARGET
    )
    shutil.rmtree(project.directory, ignore_errors=True)
    file.empty()
    for name in [name for name in os.environ if name.startswith(_OWN_VARIABLES)]:
        monkeypatch.delenv(name)
    for name, value in (
        ("DBT_PROFILES_DIR", project.directory),
        ("DLT_PROJECT_DIR", project.directory),
        ("LANDFALL_DUCKDB_PATH", project.duckdb_path),
        ("LANDFALL_STATE_DIR", project.state_dir),
        ("LANDFALL_TARGET", project.target),
        ("DBT_TARGET_PATH", PROJECT_DIR / "target"),  # parsed once for all tests
        ("DBT_WRITE_JSON", "false"),  # half a second a command
    ):
        monkeypatch.setenv(name, str(value))
    profile = yaml.safe_load((PROJECT_DIR / "profiles.example.yml").read_text())
    outputs = profile["landfall"]["outputs"]
    outputs[TARGET] = outputs.pop("dev")
    outputs[EMULATOR_TARGET] = outputs.pop("emulator")
    project.profiles.write_text(yaml.safe_dump(profile))
    yield project
    held_file.let_go()
    release_file()


@pytest.fixture
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets that a test registers are not blanked in the messages of others."""
    monkeypatch.setattr(errors, "_known_secrets", set())


def prepared(project: Project, name: str, prepare: Callable[[Warehouse], object]) -> Warehouse:
    """A warehouse as `prepare` leaves it, which runs once for all tests on a target."""
    if project.store.holds(name):
        project.store.restore(name)
    else:
        project.store.empty()
        prepare(project.open_warehouse())
        project.store.save(name)
        shutil.rmtree(project.state_dir, ignore_errors=True)
    return project.open_warehouse()


@pytest.fixture(scope="session")
def bootstrapped_file(workspace: Path) -> Path:
    """A warehouse file with every table, all empty."""
    with pytest.MonkeyPatch.context() as monkeypatch, _project(workspace, monkeypatch) as project:
        prepared(project, "bootstrapped", bootstrap.bootstrap)
        assert isinstance(project.store, File)
        return project.store.copy("bootstrapped")


@pytest.fixture
def warehouse(project: Project) -> Warehouse:
    """The test's own warehouse, with every table, all empty."""
    return prepared(project, "bootstrapped", bootstrap.bootstrap)


@pytest.fixture(scope="session")
def recorded(workspace: Path, bootstrapped_file: Path) -> replay.Recorded:
    """The statements of a build for a connection's run, and for one of none."""
    with pytest.MonkeyPatch.context() as monkeypatch, _project(workspace, monkeypatch) as project:
        return replay.recorded(project, bootstrapped_file)


@pytest.fixture
def stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse's file, once opened by the loaders, is open until the test's end, or until the
    test begins a process, which may want it."""
    connect, begin = DuckDBWarehouse._connect_unlocked, subprocess.Popen.__init__

    def connect_and_hold(warehouse: DuckDBWarehouse) -> duckdb.DuckDBPyConnection:
        connection = connect(warehouse)
        held_file.hold(warehouse.target.path)
        return connection

    def let_go_and_begin(*arguments: Any, **options: Any) -> None:
        held_file.let_go()
        begin(*arguments, **options)

    monkeypatch.setattr(DuckDBWarehouse, "_connect_unlocked", connect_and_hold)
    monkeypatch.setattr(subprocess.Popen, "__init__", let_go_and_begin)


@pytest.fixture
def merge_only(monkeypatch: pytest.MonkeyPatch, recorded: replay.Recorded) -> None:
    """Runs build raw_objects and test nothing: for what a sync brings."""
    monkeypatch.setattr(
        dbt_build, "build", replay.build(recorded, dbt_build.build, with_tests=False)
    )


@pytest.fixture
def merge_by_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As merge_only, but dbt sends the statements: for what dbt itself leaves behind."""
    monkeypatch.setattr(dbt_build, "build", replay.build({}, dbt_build.build, with_tests=False))


@pytest.fixture
def full_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run tests the whole store, as with full_check_hours: 0."""
    monkeypatch.setattr(ingest, "full_check_hours", lambda: 0.0)


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs land, and neither merge nor check: for what a run does besides."""
    monkeypatch.setattr(dbt_build, "build", lambda *_, **__: dbt_build.BuildResult())


@pytest.fixture
def core_build(monkeypatch: pytest.MonkeyPatch, recorded: replay.Recorded) -> None:
    """Runs build raw_objects and the acceptance tests only: the marts are not their matter."""
    monkeypatch.setattr(
        dbt_build, "build", replay.build(recorded, dbt_build.build, with_tests=True)
    )


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[Sandbox]:
    with Sandbox(size=MAILBOX_SIZE, seed=7) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_server: Sandbox) -> Sandbox:
    """The shared server without faults, its counters at zero; leave its mailbox as it is."""
    sandbox_server.set_faults([])
    sandbox_server.schedule([])
    sandbox_server.settings(
        latency=0,
        quota=None,
        history_expired_before=None,
        token_requests=None,
        tokens_expired=False,
    )
    sandbox_server.reset_stats()
    return sandbox_server


@dataclasses.dataclass
class Run:
    """A finished ingestion: what it raised, what it reported."""

    ingestion: Ingestion
    error: LandfallError | None

    @property
    def correlation_id(self) -> str:
        return self.ingestion.job.correlation_id

    @property
    def telemetry(self) -> Mapping[str, Any]:
        assert self.ingestion.summary is not None, self.error
        return self.ingestion.summary.telemetry

    @property
    def counts(self) -> dict[str, int]:
        """Merge counts without the zeros."""
        assert self.ingestion.summary is not None, self.error
        return {action: count for action, count in self.ingestion.summary.counts.items() if count}


def gmail_source(sandbox: Sandbox, connection_name: str = "acct1", **options: Any) -> GmailSource:
    """The Gmail source against a sandbox, its waits cut short."""
    from google.oauth2.credentials import Credentials

    config = GmailConfig(
        api_base_url=sandbox.base_url,
        **{
            "backoff_seconds": 0.001,
            "max_attempts": 4,
            "timeout_seconds": 10.0,
            "units_per_minute": 10_000_000,
            # Message by message, so that a fault of one can be planned; threads have own tests.
            "unit_costs": {"threads.get": 10_000},
            **options,
        },
    )
    return GmailSource(connection_name, Credentials(token="any-token"), config)


def position(warehouse: Warehouse) -> dict[str, Any] | None:
    """Where the sync of connection acct1 stands."""
    return Stored(warehouse, "gmail", "acct1").cursor(MESSAGES)


def run_gmail(
    warehouse: Warehouse,
    sandbox: Sandbox,
    options: IngestOptions | None = None,
    **config: Any,
) -> Run:
    """One run of connection acct1, the error it ended with kept."""
    ingestion = Ingestion(
        warehouse,
        lambda: gmail_source(sandbox, **config),
        source_system="gmail",
        connection_name="acct1",
        options=options or IngestOptions(),
    )
    return run_ingestion(ingestion)


STRIPE_KEY = "sk_test_landfalltests1234567890"


def stripe_source(sandbox: Sandbox, connection_name: str = "acct1", **options: Any) -> StripeSource:
    """The Stripe source against a sandbox, its waits cut short."""
    config = StripeConfig(
        **{
            "api_key": STRIPE_KEY,
            "api_base_url": sandbox.base_url,
            "backoff_seconds": 0.001,
            "max_attempts": 4,
            "timeout_seconds": 10.0,
            "requests_per_second": 100_000.0,
            "endpoint_requests_per_second": 100_000.0,
            **options,
        },
    )
    return StripeSource(connection_name, config)


def run_stripe(
    warehouse: Warehouse,
    sandbox: Sandbox,
    options: IngestOptions | None = None,
    **config: Any,
) -> Run:
    """One run of connection acct1, the error it ended with kept."""
    ingestion = Ingestion(
        warehouse,
        lambda: stripe_source(sandbox, **config),
        source_system="stripe",
        connection_name="acct1",
        options=options or IngestOptions(),
    )
    return run_ingestion(ingestion)


def run_ingestion(ingestion: Ingestion) -> Run:
    try:
        ingestion.run()
    except LandfallError as error:
        return Run(ingestion, error)
    return Run(ingestion, None)


class ScriptedSource:
    """A source that yields the items it is given."""

    source_system = "acme"
    volatile_keys: Sequence[str] = ()

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        for item in self._items:
            if isinstance(item, Observed | Deleted | Gone | Unfetched):
                yield Listed(1)
            yield item

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        from loaders.objects.idem_keys import idem_key

        return idem_key("acme", "acct1", item.object_type, payload["id"])

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        return None

    def close(self) -> None:
        pass


def run_scripted(warehouse: Warehouse, items: Sequence[Item]) -> Run:
    """One run that lands exactly these items."""
    ingestion = Ingestion(
        warehouse,
        lambda: ScriptedSource(items),
        source_system="acme",
        connection_name="acct1",
        options=IngestOptions(),
    )
    return run_ingestion(ingestion)


def at(seconds: float) -> dt.datetime:
    """A moment of a fixed hour."""
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)


def cursor_item(seconds: float, **value: Any) -> Cursor:
    return Cursor("messages", value, at(seconds))


def events(warehouse: Warehouse, correlation_id: str | None = None) -> list[dict[str, Any]]:
    """The event log's rows, oldest first, their payloads parsed."""
    columns = (
        "event_id",
        "event_type",
        "source_system",
        "connection_name",
        "object_type",
        "idem_key",
        "correlation_id",
        "trace_id",
        "created_at",
        "status",
        "error_message",
        "payload",
    )
    rows = warehouse.execute(
        f"select {', '.join(_with_json_as_text(warehouse, columns))} from events.event_log"
        " where ? is null or correlation_id = ? order by created_at, event_type desc",
        (correlation_id, correlation_id),
    )
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    for event in found:
        event["payload"] = json.loads(event["payload"]) if event["payload"] else None
    return found


def event_types(warehouse: Warehouse, correlation_id: str | None = None) -> list[str]:
    return [event["event_type"] for event in events(warehouse, correlation_id)]


def stored(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """raw_objects by external_id, labels apart."""
    columns = (
        "external_id",
        "idem_key",
        "payload",
        "payload_hash",
        "object_created_at",
        "first_seen",
        "last_seen",
        "changed_at",
        "deleted_at",
        "changed_by",
        "merged_by",
        "last_action",
    )
    selected = ", ".join(_with_json_as_text(warehouse, columns))
    rows = warehouse.execute(
        f"select {selected} from events.raw_objects where object_type <> 'label'"
    )
    return {row[0]: dict(zip(columns, row, strict=True)) for row in rows}


def _with_json_as_text(warehouse: Warehouse, columns: Sequence[str]) -> Iterator[str]:
    for column in columns:
        yield warehouse.json_as_text(column) if column == "payload" else column


def count(warehouse: Warehouse, table: str) -> int:
    return int(warehouse.execute(f"select count(*) from {table}")[0][0])


def assert_accounted(telemetry: Mapping[str, Any]) -> None:
    """Whatever was listed is landed, held already, gone or a dead letter."""
    parts = ("records_landed", "already_held", "gone", "dead_lettered", "erased")
    assert telemetry["records_extracted"] == sum(telemetry[part] for part in parts), telemetry


HOSTILE_TEXTS: Mapping[str, str] = {
    "quotes": "it's a \"quoted\" `value` ''",
    "backslashes": "C:\\new\\table \\' \\\\",
    "line breaks": "one\ntwo\r\nthree",
    "jinja": "{{ 1 / 0 }} {% do x %} {# note #}",
    "sql": "'); drop table events.event_log; --",
    "emoji": "naïve café 🦆 \U0001f1e9\U0001f1ea",
    "line separator": "a\u2028b\u2029c",
    "control characters": "tab\there \x01\x1b[31m\x7f end",
    "percent": "100% %s %(name)s {name} $1 ? :p",
    "json": '{"a": [1, null]}',
}

hostile = pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())

"""BigQuery as a warehouse: statements as query jobs, events idempotent by their job id."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, ClassVar, TypeVar

from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud import bigquery

from loaders.errors import ConfigError, WarehouseError, describe
from loaders.settings.places import DEFAULT_LOCK_WAIT
from loaders.settings.target import Target
from loaders.warehouse.base import View, Warehouse
from loaders.warehouse.tables import Column, Layout

_MAX_ATTEMPTS = 6
_JOB_SECONDS = 120.0
_ASKED_AT_ONCE = 8
_TRANSIENT = (
    google_errors.TooManyRequests,
    google_errors.InternalServerError,
    google_errors.BadGateway,
    google_errors.ServiceUnavailable,
    google_errors.GatewayTimeout,
    google_errors.RetryError,
    ConnectionError,
    TimeoutError,
)
# Reasons that come with a 400 or 403 and yet pass; BigQuery docs, "Error messages".
_TRANSIENT_WORDS = (
    "Could not serialize access",
    "rateLimitExceeded",
    "jobRateLimitExceeded",
    "backendError",
    "Exceeded rate limits",
    # two builds describe the same view at once
    "Precondition check failed",
)
# What to do, by what BigQuery says; BigQuery docs, "Error messages". The first that fits.
_NEXT_STEPS = (
    (r"bytes billed", "raise maximum_bytes_billed in profiles.yml, or see why it reads so much"),
    (
        r"Not found: Dataset .*not found in location",
        "set the dbt target's location to that of the datasets",
    ),
    (r"Not found: Project|project .*(not found|does not exist)", "correct the target's project"),
    (
        r"Access Denied|accessDenied|does not have .*permission|^Forbidden",
        "grant these credentials the roles in docs/bigquery.md, or correct the target's project",
    ),
    (
        r"invalid_grant|Reauthentication|[Ii]nvalid authentication|Invalid Credentials"
        r"|^Unauthorized|^RefreshError",
        "authorise again: gcloud auth application-default login, or a new key file",
    ),
    (r"^NotFound", "check project, dataset and location of the dbt target"),
)
_PERMANENT_WORDS = ("bytes billed",)  # comes with a 500

_RECLUSTERED = "landfall_reclustered"
"""A label of a table that is being reclustered."""

Result = TypeVar("Result")


class BigQueryWarehouse(Warehouse):
    """The project and datasets of a dbt target, with the credentials dbt uses for it."""

    bills_months = True
    json_parameter = "parse_json(?)"
    timestamp_parameter = "cast(? as timestamp)"
    column_types: ClassVar[Mapping[str, str]] = {
        "string": "string",
        "timestamp": "timestamp",
        "integer": "int64",
        "boolean": "bool",
        "json": "json",
    }

    def __init__(self, target: Target, lock_wait: float = DEFAULT_LOCK_WAIT) -> None:
        super().__init__(target, lock_wait)
        self._client: bigquery.Client | None = None

    def table(self, name: str) -> str:
        """Qualified name of a table in the events dataset."""
        return f"`{self._project}`.`{self.target.schema}`.`{name}`"

    def staging_table(self, name: str) -> str:
        """Qualified name of a table in the landing dataset."""
        return f"`{self._project}`.`{self.target.staging_schema}`.`{name}`"

    def qualified_schema(self, name: str) -> str:
        """Qualified name of a dataset."""
        return f"`{self._project}`.`{name}`"

    def has_schema(self, name: str) -> bool:
        """Whether the dataset is there: whether it can be listed. Raises WarehouseError."""
        dataset = bigquery.DatasetReference(self._project, name)
        try:
            _retrying(lambda: [*self.client().list_tables(dataset, max_results=1)])
        except google_errors.NotFound:
            return False
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error
        return True

    def column_options(self, column: Column) -> str:
        """Its description."""
        return f"options (description = {json.dumps(column.description)})"

    def table_layout(self, layout: Layout) -> str:
        """Partitions by time, and clusters."""
        return (
            f"partition by timestamp_trunc({layout.partition_by}, {layout.granularity})\n"
            f"cluster by {', '.join(layout.cluster_by)}"
        )

    def json_text(self, json: str, path: str) -> str:
        """SQL of the scalar at a JSON path, as text."""
        return f"json_value({json}, '{path}')"

    @contextlib.contextmanager
    def open(self) -> Iterator[BigQueryWarehouse]:
        """Nothing to hold: BigQuery has no lock on itself."""
        yield self

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `?` parameters and return its rows.

        Raises WarehouseError; what may pass is tried again, with jitter, first.
        """
        return self._query(sql, parameters, job_id=None)

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one query and yield its rows, a page of the answer held at a time.

        Raises WarehouseError.
        """
        try:
            for row in _retrying(lambda: self._answer(sql, parameters, job_id=None)):
                yield tuple(row.values())
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error

    def json_member(self, json: str, path: str) -> str:
        """SQL of the JSON value at a path, of JSON in a text column its text."""
        return f"json_query({json}, '{path}')"

    def json_as_text(self, json: str) -> str:
        """SQL of a JSON value written as text."""
        return f"to_json_string({json})"

    def json_parsed(self, text: str) -> str:
        """SQL of the JSON value of a text."""
        return f"parse_json({text})"

    def row_as_json(self, table: str) -> str:
        """SQL of a row of a table, or of its alias, as the text of a JSON object."""
        return f"to_json_string({table})"

    def sha256(self, text: str) -> str:
        """SQL of a text's SHA-256, in lower-case hexadecimal."""
        return f"to_hex(sha256({text}))"

    def insert_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of event_log; the job has the id of the last event, so that BigQuery itself
        refuses a second one. Raises WarehouseError."""
        table, job_id = self.table("event_log"), str(events[-1]["event_id"])
        columns = [name for name in events[0] if any(event[name] is not None for event in events)]
        row = ", ".join(f"{self.event_value(name)} as {name}" for name in columns)
        rows = " union all ".join([f"select {row}"] * len(events))
        statement = (
            f"insert into {table} ({', '.join(columns)}) select * from ({rows}) as added"
            f" where not exists (select 1 from {table} as old"
            " where old.event_id = added.event_id and old.created_at between"
            " timestamp_sub(cast(? as timestamp), interval 7 day)"
            " and timestamp_add(cast(? as timestamp), interval 7 day))"
        )
        # Two that close a run at once name one event_id and two times: the times prune alone.
        times = [event["created_at"] for event in events]
        parameters = [event[name] for event in events for name in columns]
        parameters += [min(times), max(times)]
        try:
            self._query(statement, parameters, job_id=job_id)
        except google_errors.Conflict:
            # A job of that id ran before. One that failed inserted nothing and bars its id, and the
            # table may have been put back since: the statement itself inserts no second row.
            self._await(job_id)
            self._query(statement, parameters, job_id=None)

    def columns(self) -> dict[str, set[str]]:
        """Columns of each table in both datasets, from their metadata: no query is billed."""
        names = [
            item.reference
            for schema in (self.target.schema, self.target.staging_schema)
            for item in self._listed(schema)
            if item.table_type == "TABLE"
        ]
        with futures.ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            tables = pool.map(self._metadata, names)
            return {
                table.table_id: {field.name for field in table.schema}
                for table in tables
                if table is not None
            }

    def _listed(self, schema: str) -> list[Any]:
        """The tables and views of a dataset, with their labels; none where there is no dataset."""
        try:
            name = f"{self._project}.{schema}"
            return _retrying(lambda: list(self.client().list_tables(name, page_size=1_000)))
        except google_errors.NotFound:
            return []  # no error yet: the bootstrap makes it
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error

    def marks(self) -> dict[str, str]:
        """What the views of the events dataset are marked with, those edited in place, too."""
        return {
            item.table_id: item.labels.get("landfall", "").rpartition("-")[0]
            for item in self._listed(self.target.schema)
            if item.table_type == "VIEW"
        }

    def views(self, names: Collection[str]) -> dict[str, View]:
        """The views of these names in the events dataset, without a query job."""
        found = {}
        for name in names:
            try:
                view = self._metadata(f"{self._project}.{self.target.schema}.{name}")
            except WarehouseError as error:
                if not isinstance(error.__cause__, google_errors.BadRequest):
                    raise
                continue  # it is of what is not there any more
            if view is not None:
                mark, _, digest = view.labels.get("landfall", "").rpartition("-")
                text = hashlib.md5((view.view_query or "").encode(), usedforsecurity=False)
                is_as_built = digest == text.hexdigest()
                columns = {field.name for field in view.schema}
                found[name] = View(columns, mark if is_as_built else "")
        return found

    def _metadata(self, name: str | bigquery.TableReference) -> bigquery.Table | None:
        """What tables.get tells of a table or view; None where there is none."""
        try:
            return _retrying(lambda: self.client().get_table(name))
        except google_errors.NotFound:
            return None
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error

    def clustering(self, name: str) -> tuple[list[str], str | None, int]:
        """The clustering columns of a table of the events dataset, how far `recluster` has come
        with it (None when it is done), and its bytes. Raises WarehouseError."""
        table = self._metadata(f"{self._project}.{self.target.schema}.{name}")
        assert table is not None
        mark = table.labels.get(_RECLUSTERED)
        return list(table.clustering_fields or ()), mark, int(table.num_bytes or 0)

    def set_clustering(self, name: str, columns: Sequence[str], mark: str | None) -> None:
        """Have what is written from now on clustered so, and note how far `recluster` has come.

        Raises WarehouseError.
        """
        table = self._metadata(f"{self._project}.{self.target.schema}.{name}")
        assert table is not None
        table.clustering_fields = list(columns)
        table.labels = {**table.labels, _RECLUSTERED: mark}
        try:
            _retrying(lambda: self.client().update_table(table, ["clustering_fields", "labels"]))
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error

    def is_bootstrapped(self) -> bool:
        """Whether the tables are there."""
        return "raw_objects" in self.columns()

    def destination(self) -> Any:
        """The dlt destination for this project, with dbt's credentials, labels and limit."""
        from loaders.warehouse.bigquery_destination import destination

        self._use_endpoint()
        return destination(
            self._credentials(), self._project, self._location, self._labels, self._limit
        )

    @property
    def _labels(self) -> dict[str, str]:
        return {"application": "landfall", **self.labels}

    @property
    def _limit(self) -> int | None:
        """Bytes that a statement may be billed for (profiles.yml, maximum_bytes_billed)."""
        limit = self.target.settings.get("maximum_bytes_billed")
        return None if limit is None else int(limit)

    @property
    def _project(self) -> str:
        return str(self.target.settings["project"])

    @property
    def _location(self) -> str:
        return str(self.target.settings.get("location") or "US")

    def _use_endpoint(self) -> None:
        """dlt gives its client no endpoint; Google's library takes one from here."""
        endpoint = self.target.settings.get("api_endpoint")
        if endpoint:
            os.environ["BIGQUERY_EMULATOR_HOST"] = str(endpoint)

    def _credentials(self) -> Any:
        from dbt.adapters.bigquery.credentials import BigQueryCredentials, create_google_credentials

        settings = {key: value for key, value in self.target.settings.items() if key != "type"}
        try:
            translated = BigQueryCredentials.translate_aliases(settings)
            return create_google_credentials(BigQueryCredentials.from_dict(translated))
        except Exception as error:
            raise ConfigError(
                f"profiles.yml: target '{self.target.name}' has no usable credentials:"
                f" {describe(error)}"
            ) from error

    def _query(
        self, sql: str, parameters: Sequence[Any], *, job_id: str | None
    ) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in self._answer(sql, parameters, job_id=job_id)]

        try:
            return _retrying(run)
        except google_errors.Conflict as error:
            if job_id is None:  # of tables that two make at once
                raise self._failure(error) from error
            raise
        except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> WarehouseError:
        said = self.with_next_step(describe(error))
        return WarehouseError(f"bigquery {self._project}: {said}")

    def _answer(self, sql: str, parameters: Sequence[Any], *, job_id: str | None) -> Iterable[Any]:
        """The rows of a query, fetched page by page as they are read."""
        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(value) for value in parameters],
            labels=self._labels,
        )
        if self._limit is not None:
            config.maximum_bytes_billed = self._limit
        if job_id is None:  # one request, where the answer is there at once
            rows: Iterable[Any] = self.client().query_and_wait(
                sql,
                job_config=config,
                job_retry=None,  # type: ignore[arg-type]  # as of query()
            )
            return rows
        job = self.client().query(sql, job_config=config, job_id=job_id, job_retry=None)
        return job.result(job_retry=None)

    def _await(self, job_id: str) -> None:
        """Wait for a job's end, however it ends. Raises WarehouseError."""
        try:
            self.client().get_job(job_id, location=self._location).exception(  # type: ignore[no-untyped-call]
                timeout=_JOB_SECONDS
            )
        except (google_errors.GoogleAPIError, futures.TimeoutError, OSError) as error:
            raise self._failure(error) from error

    def with_next_step(self, message: str) -> str:
        """The step that BigQuery's docs, "Error messages", give for it."""
        step = next((text for words, text in _NEXT_STEPS if re.search(words, message)), None)
        return f"{message}; {step}" if step else message

    def end_statements(self, label: str, value: str, since: dt.datetime) -> None:
        """Cancel the jobs with such a label that still run, and wait for their end.

        Raises WarehouseError.
        """
        try:
            for state in ("pending", "running"):
                for job in _retrying(lambda: self._jobs(state, since)):  # noqa: B023 - called here
                    if (job.labels or {}).get(label) == value:
                        job.cancel(retry=None)
                        job.exception(timeout=_JOB_SECONDS)
        except (google_errors.GoogleAPIError, futures.TimeoutError, OSError) as error:
            raise self._failure(error) from error

    def _jobs(self, state: str, since: dt.datetime) -> list[Any]:
        """This user's jobs."""
        return list(
            self.client().list_jobs(
                min_creation_time=since,
                state_filter=state,
                retry=None,  # type: ignore[arg-type]  # _retrying is shorter
            )
        )

    def client(self) -> bigquery.Client:
        """Google's client for this project, with dbt's credentials, made on first use."""
        if self._client is None:
            # dlt would read faster through it, but what it reads here is a handful of rows.
            warnings.filterwarnings("ignore", message="Cannot create BigQuery Storage client")
            self._use_endpoint()
            endpoint = self.target.settings.get("api_endpoint")
            self._client = bigquery.Client(
                project=str(self.target.settings.get("execution_project") or self._project),
                credentials=self._credentials(),
                location=self._location,
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )
        return self._client


def _parameter(value: Any) -> bigquery.ScalarQueryParameter:
    kinds = ((bool, "BOOL"), (int, "INT64"), (float, "FLOAT64"), (dt.datetime, "TIMESTAMP"))
    kind = next((name for python, name in kinds if isinstance(value, python)), "STRING")
    return bigquery.ScalarQueryParameter(None, kind, value)


def _retrying(run: Callable[[], Result]) -> Result:
    for attempt in range(1, _MAX_ATTEMPTS):
        try:
            return run()
        except Exception as error:
            if not _is_transient(error):
                raise
        ceiling = min(30.0, 0.5 * 2**attempt)
        time.sleep(random.uniform(ceiling / 2, ceiling))
    return run()


def _is_transient(error: Exception) -> bool:
    if any(word in str(error) for word in _PERMANENT_WORDS):
        return False
    return isinstance(error, _TRANSIENT) or is_transient_message(str(error))


def is_transient_message(message: str) -> bool:
    """Whether BigQuery's words say that the same statement may succeed a moment later."""
    return any(word in message for word in _TRANSIENT_WORDS)

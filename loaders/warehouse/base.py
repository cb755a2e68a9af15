"""The warehouse as the loaders see it: statements, table names, a dlt destination."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from loaders.settings.places import DEFAULT_LOCK_WAIT
from loaders.settings.target import Target
from loaders.warehouse.tables import Column, Layout


@dataclasses.dataclass(frozen=True)
class View:
    """A view's columns, and what dbt's build has left on it (macros/adapters/mark_view.sql)."""

    columns: set[str]
    mark: str
    """Of the definition that it has; empty when it is not as dbt has built it."""


class Warehouse(abc.ABC):
    """What a run needs of a warehouse. Statements have `?` parameters on all of them."""

    json_parameter: str
    """A `?` whose text becomes JSON."""
    timestamp_parameter: str
    """A `?` whose ISO 8601 text becomes a timestamp."""
    column_types: ClassVar[Mapping[str, str]]
    """The documented data types in its words, as macros/adapters/column_type.sql has them."""
    bills_months: ClassVar[bool] = False
    """Whether a statement costs what the months of raw_objects hold that it may read."""
    largest_json: int | None = None
    """Bytes of a payload that SQL takes apart in bounded memory; None for any."""

    def __init__(self, target: Target, lock_wait: float = DEFAULT_LOCK_WAIT) -> None:
        self.target = target
        self.lock_wait = lock_wait
        self.labels: dict[str, str] = {}
        """What the warehouse's own records say of each statement, where it has such labels."""
        self.may_be_read_only = False
        """Whether reading will do where another process keeps others from writing."""

    def checkpoint(self) -> None:  # noqa: B027 - most have nothing to do
        """Have written down what has come until now, so that what comes next is not added to it."""

    @abc.abstractmethod
    def table(self, name: str) -> str:
        """Qualified name of a table in the events dataset."""

    @abc.abstractmethod
    def staging_table(self, name: str) -> str:
        """Qualified name of a table in the landing dataset."""

    @abc.abstractmethod
    def qualified_schema(self, name: str) -> str:
        """Qualified name of a dataset."""

    @abc.abstractmethod
    def has_schema(self, name: str) -> bool:
        """Whether the dataset is there; who asks need not be allowed to make it.

        Raises WarehouseError.
        """

    @abc.abstractmethod
    def column_options(self, column: Column) -> str:
        """What a column's DDL says besides name, type and NOT NULL."""

    @abc.abstractmethod
    def table_layout(self, layout: Layout) -> str:
        """Partitions and clusters of a table in its DDL."""

    @abc.abstractmethod
    def json_text(self, json: str, path: str) -> str:
        """SQL of the scalar at a JSON path, as text."""

    @abc.abstractmethod
    def json_member(self, json: str, path: str) -> str:
        """SQL of the JSON value at a path; of JSON in a text column BigQuery gives its text."""

    @abc.abstractmethod
    def json_as_text(self, json: str) -> str:
        """SQL of a JSON value written as text."""

    @abc.abstractmethod
    def json_parsed(self, text: str) -> str:
        """SQL of the JSON value of a text."""

    @abc.abstractmethod
    def row_as_json(self, table: str) -> str:
        """SQL of a row of a table, or of its alias, as the text of a JSON object."""

    @abc.abstractmethod
    def sha256(self, text: str) -> str:
        """SQL of a text's SHA-256, in lower-case hexadecimal."""

    @abc.abstractmethod
    def open(self) -> contextlib.AbstractContextManager[Warehouse]:
        """Hold what has to be held while several statements run."""

    @abc.abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises WarehouseError."""

    @abc.abstractmethod
    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one query and yield its rows, never all of them held. Raises WarehouseError."""

    def insert_event(self, event: Mapping[str, Any]) -> None:
        """Insert a row of event_log unless its event_id is there. Raises WarehouseError."""
        self.insert_events([event])

    @abc.abstractmethod
    def insert_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of event_log, all or none, but those whose event_id is there.

        Raises WarehouseError.
        """

    @abc.abstractmethod
    def columns(self) -> dict[str, set[str]]:
        """Columns of each table in both datasets."""

    @abc.abstractmethod
    def views(self, names: Collection[str]) -> dict[str, View]:
        """The views of these names in the events dataset, as their metadata has them."""

    @abc.abstractmethod
    def marks(self) -> dict[str, str]:
        """What each view of the events dataset is marked with (macros/adapters/mark_view.sql)."""

    @abc.abstractmethod
    def is_bootstrapped(self) -> bool:
        """Whether the tables are there; looking creates nothing."""

    @abc.abstractmethod
    def destination(self) -> Any:
        """The dlt destination of this warehouse."""

    def is_complete(self) -> str:
        """Predicate of the landing rows whose load package is complete."""
        loads = self.staging_table("_dlt_loads")
        return f"_dlt_load_id in (select load_id from {loads} where status = 0)"

    @abc.abstractmethod
    def with_next_step(self, message: str) -> str:
        """What this warehouse said, with what to do about it where that is known."""

    @abc.abstractmethod
    def end_statements(self, label: str, value: str, since: dt.datetime) -> None:
        """See to it that no statement with such a label goes on, sent by a process that is gone.

        Raises WarehouseError.
        """

    def event_value(self, column: str) -> str:
        """The parameter of an event_log column."""
        special = {"payload": self.json_parameter, "created_at": self.timestamp_parameter}
        return special.get(column, "?")

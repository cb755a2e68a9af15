"""Landing: object states and their cursor, in dlt load packages of bounded size.

A package is visible only when it is complete (its row in _dlt_loads), so a cursor is
never visible without the objects it covers, and a killed run leaves nothing half done.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from loaders import crashpoints
from loaders.config import configure_dlt, state_dir
from loaders.errors import LandingError, describe
from loaders.idem_keys import idem_key
from loaders.items import Cursor, Deleted, Observed
from loaders.landing_tables import CURSORS, DEAD_LETTERS, LANDED_OBJECTS, Row, arrow_table
from loaders.payloads import TOMBSTONE_HASH, admit
from loaders.warehouse import Warehouse

DEFAULT_BATCH_SIZE = 5_000
"""Objects in a load package, at most."""
DEFAULT_BATCH_BYTES = 64 * 1024 * 1024
"""Payload bytes in a load package, at most (but always one object)."""

MAX_REFUSED = 20
"""Objects of one package that may become dead letters because the warehouse refuses them."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class LandingCounts:
    """What a landing has put into the warehouse."""

    landed: int = 0
    dead_lettered: int = 0
    bytes: int = 0
    chunks: int = 0
    objects: dict[str, int] = dataclasses.field(default_factory=dict)


class Landing:
    """Collects what one run observed and lands it chunk by chunk.

    `idem_key_of` and `created_at_of` take (object_type, payload). With `dry_run`
    everything is checked and counted and nothing is written.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        source_system: str,
        connection_name: str,
        correlation_id: str,
        idem_key_of: Callable[[str, Mapping[str, Any]], str],
        created_at_of: Callable[[str, Mapping[str, Any]], dt.datetime | None] = lambda *_: None,
        volatile_keys: Iterable[str] = (),
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        dry_run: bool = False,
    ) -> None:
        self.counts = LandingCounts()
        self._warehouse = warehouse
        self._source = (source_system, connection_name)
        self._correlation_id = correlation_id
        self._idem_key_of = idem_key_of
        self._created_at_of = created_at_of
        self._volatile_keys = tuple(volatile_keys)
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._dry_run = dry_run
        self._objects: list[Row] = []
        self._dead_letters: list[Row] = []
        self._bytes = 0
        self._pipeline: Any = None

    def observe(self, item: Observed) -> None:
        """Queue one object; what fails the gate or has no key becomes a dead letter."""
        try:
            text, payload, payload_hash = admit(item.text, self._volatile_keys)
            key = self._idem_key_of(item.object_type, payload)
            created_at = self._created_at_of(item.object_type, payload)
        except ValueError as error:  # PayloadError is one
            self.set_aside(item.object_type, item.external_id, str(error), item.text)
            return
        self._queue(item.object_type, key, text, payload_hash, created_at, item.observed_at, False)

    def delete(self, item: Deleted) -> None:
        """Queue a tombstone."""
        key = idem_key(*self._source, item.object_type, item.external_id)
        self._queue(item.object_type, key, None, TOMBSTONE_HASH, None, item.observed_at, True)

    def set_aside(
        self,
        object_type: str,
        external_id: str | None,
        reason: str,
        text: str | bytes | None = None,
    ) -> None:
        """Queue a dead letter, with its text when there is one."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="backslashreplace")
        if text is not None:
            text = text.encode("utf-8", errors="backslashreplace").decode()
        self._make_room(len(text or ""))
        self._add_dead_letter(object_type, external_id, reason, text, attempts=1)
        self._bytes += len(text or "")

    def flush(self, cursor: Cursor | None = None) -> None:
        """Land what is queued, and the cursor with it, as one load package.

        Raises LandingError; then the package stays on disk and the next run lands it.
        """
        if not (self._objects or self._dead_letters or cursor):
            return
        objects, dead_letters = self._objects, self._dead_letters
        self._objects, self._dead_letters, self._bytes = [], [], 0
        if not self._dry_run:
            cursors = [] if cursor is None else [self._cursor_row(cursor)]
            with self._warehouse.open():
                self._land(objects, dead_letters, cursors)
        self.counts.chunks += 1

    def drain_pending(self) -> None:
        """Load the package that an earlier process left on disk, before anything new.

        One that the warehouse refuses for good is dropped: its cursor goes with it, so
        its objects are fetched again.
        """
        if self._dry_run or not _pipelines_dir(self._warehouse, *self._source).exists():
            return
        pipeline = self._open_pipeline()
        if not pipeline.has_pending_data:
            return
        with self._warehouse.open():
            try:
                pipeline.normalize()
                pipeline.load()
            except Exception as error:
                if not _is_terminal(error):
                    raise LandingError(
                        f"landing: the pending package does not load: {_reason(error)}"
                    ) from error
                logger.warning("pending package dropped, will be fetched again: %s", _reason(error))
                _drop_pending(pipeline)

    def _queue(
        self,
        object_type: str,
        key: str,
        text: str | None,
        payload_hash: str,
        created_at: dt.datetime | None,
        observed_at: dt.datetime,
        is_deleted: bool,
    ) -> None:
        size = 0 if text is None else len(text if text.isascii() else text.encode())
        self._make_room(size)
        prefix = _key_prefix(*self._source, object_type)
        if not key.startswith(prefix) or key == prefix:
            raise ValueError(f"idem_key_fn: expected a key that begins with {prefix!r}")
        self._objects.append(
            (
                key,
                *self._source,
                object_type,
                key[len(prefix) :],
                text,
                payload_hash,
                created_at,
                observed_at,
                is_deleted,
                self._correlation_id,
            )
        )
        self.counts.landed += 1
        self.counts.bytes += size
        self.counts.objects[object_type] = self.counts.objects.get(object_type, 0) + 1
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """Land what is queued when one more object would not fit in the package.

        Not as soon as it is full: the last package then has room for the cursor.
        """
        queued = len(self._objects) + len(self._dead_letters)
        if queued and (queued >= self._batch_size or self._bytes + size > self._batch_bytes):
            self.flush()

    def _cursor_row(self, cursor: Cursor) -> Row:
        text = json.dumps(cursor.value, separators=(",", ":"))
        return (*self._source, cursor.stream, text, cursor.observed_at)

    def _land(
        self, objects: Sequence[Row], dead_letters: Sequence[Row], cursors: Sequence[Row]
    ) -> None:
        """Land one package; by halves when the warehouse refuses its data for good."""
        try:
            self._load_package(objects, dead_letters, cursors)
            return
        except Exception as error:  # noqa: BLE001 - _refusal raises what is no refusal
            reason = self._refusal(error)
        logger.warning("package refused, landing it by halves: %s", reason)
        refused: list[tuple[Row, str]] = []
        self._land_accepted(objects, refused)
        for row, reason in refused:
            self._set_aside_row(row, f"the warehouse refuses it: {reason}")
        dead_letters, self._dead_letters = [*dead_letters, *self._dead_letters], []
        try:
            # The cursor goes last: it covers all of them.
            self._load_package([], dead_letters, cursors)
        except Exception as error:
            raise LandingError(
                f"landing: the warehouse refuses the package: {self._refusal(error)}"
            ) from error

    def _land_accepted(self, objects: Sequence[Row], refused: list[tuple[Row, str]]) -> None:
        """Land what the warehouse takes of these, once more whole, then half by half."""
        try:
            self._load_package(objects, [], [])
            return
        except Exception as error:  # noqa: BLE001 - _refusal raises what is no refusal
            reason = self._refusal(error)
        if len(objects) > 1:
            middle = len(objects) // 2
            self._land_accepted(objects[:middle], refused)
            self._land_accepted(objects[middle:], refused)
            return
        refused.append((objects[0], reason))
        if len(refused) > MAX_REFUSED:
            raise LandingError(
                f"landing: the warehouse refuses more than {MAX_REFUSED} objects of one package,"
                f" so it is hardly them: {reason}; correct that and run again,"
                " nothing was set aside"
            )

    def _refusal(self, error: Exception) -> str:
        """Drop the package that the warehouse refuses, and say why.

        Raises LandingError for any other failure; then the package stays and is retried.
        """
        if not _is_terminal(error):
            raise LandingError(f"landing: the package does not load: {_reason(error)}") from error
        _drop_pending(self._open_pipeline())
        return _reason(error)

    def _set_aside_row(self, row: Row, reason: str) -> None:
        _key, _system, _connection, object_type, external_id, text, *_rest = row
        self.counts.landed -= 1
        self.counts.objects[object_type] -= 1
        self._add_dead_letter(object_type, external_id, reason, text, attempts=2)

    def _add_dead_letter(
        self,
        object_type: str,
        external_id: str | None,
        reason: str,
        text: str | None,
        *,
        attempts: int,
    ) -> None:
        self._dead_letters.append(
            (
                str(uuid.uuid4()),
                *self._source,
                object_type,
                external_id,
                reason,
                text,
                attempts,
                self._correlation_id,
                dt.datetime.now(dt.UTC),
            )
        )
        self.counts.dead_lettered += 1

    def _load_package(
        self, objects: Sequence[Row], dead_letters: Sequence[Row], cursors: Sequence[Row]
    ) -> None:
        import dlt

        resources = [
            dlt.resource(
                _drained([arrow_table(rows, schema)]), name=name, write_disposition="append"
            )
            for name, schema, rows in (
                ("landed_objects", LANDED_OBJECTS, objects),
                ("cursors", CURSORS, cursors),
                ("dead_letters", DEAD_LETTERS, dead_letters),
            )
            if rows
        ]
        pipeline = self._open_pipeline()
        crashpoints.reached("land.before_extract")
        pipeline.extract(resources, loader_file_format="parquet")
        crashpoints.reached("land.extracted")
        pipeline.normalize()
        crashpoints.reached("land.normalized")
        pipeline.load()
        crashpoints.reached("land.loaded")

    def _open_pipeline(self) -> Any:
        if self._pipeline is None:
            configure_dlt()
            import dlt

            # Arrow's own allocator keeps 100 MB of what it once used for packages.
            pa.set_memory_pool(pa.system_memory_pool())
            self._pipeline = dlt.pipeline(
                "landfall",
                destination=self._warehouse.destination(),
                dataset_name=self._warehouse.target.staging_schema,
                pipelines_dir=str(_pipelines_dir(self._warehouse, *self._source)),
            )
            # Cursors are data in the warehouse; dlt's own state is never consulted.
            self._pipeline.config.restore_from_destination = False
        return self._pipeline


def _drained(tables: list[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables and let go of them: dlt's resources outlive their package."""
    while tables:
        yield tables.pop()


@functools.cache
def _key_prefix(source_system: str, connection_name: str, object_type: str) -> str:
    return idem_key(source_system, connection_name, object_type, "-")[:-1]


def _pipelines_dir(warehouse: Warehouse, source_system: str, connection_name: str) -> Path:
    directory = f"{source_system}-{connection_name}"
    return state_dir() / "pipelines" / warehouse.target.key / directory


def _drop_pending(pipeline: Any) -> None:
    """Drop the pending packages, and the payloads that dlt would keep of them."""
    pipeline.drop_pending_packages()
    for package in (Path(pipeline.working_dir) / "load" / "loaded").glob("*"):
        shutil.rmtree(package)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _is_terminal(error: BaseException) -> bool:
    """Whether dlt says that the warehouse refuses the data itself."""
    from dlt.load.exceptions import LoadClientJobFailed, LoadClientJobTerminalRetry

    refusals = (LoadClientJobFailed, LoadClientJobTerminalRetry)
    return any(isinstance(cause, refusals) for cause in _causes(error))


def _reason(error: BaseException) -> str:
    return describe(list(_causes(error))[-1])

"""Load packages: rows of the landing tables that dlt writes whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import filelock

from loaders.errors import LandingError, describe
from loaders.ingestion.arrow_tables import LandedCursor, LandedObject, arrow_table, schema_of
from loaders.jobs import crashpoints
from loaders.settings.places import configure_dlt, state_dir
from loaders.warehouse.base import Warehouse
from loaders.warehouse.chain import LINK, Link, head_id
from loaders.warehouse.dead_letters import DeadLetter

if TYPE_CHECKING:
    import pyarrow as pa

MAX_REFUSED = 20
"""Objects of one package that may become dead letters because the warehouse refuses them."""

Refused = tuple[LandedObject, str]
"""An object, and why the warehouse does not take it."""

logger = logging.getLogger(__name__)

_MAX_LOADS = 3
_AGAIN = "landfall_again"
"""The pipeline that lands a refused pending package; it holds nothing that is not there, too."""
_OF_TABLE = (duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException)


class CursorNotLanded(LandingError):
    """The warehouse is not the one that this run's position was read from."""

    exit_code = 75  # EX_TEMPFAIL


@dataclasses.dataclass(frozen=True)
class Package:
    """Rows of the three landing tables that become visible together."""

    objects: Sequence[LandedObject]
    dead_letters: Sequence[DeadLetter]
    cursors: Sequence[LandedCursor]

    @functools.cached_property
    def link(self) -> Link | None:
        """Its place in the connection's chain; None for one of landing-only objects."""
        texts = [row.cursor for row in self.cursors if row.stream == LINK]
        return Link.read(texts[0]) if texts else None

    def without_cursors(self) -> Package:
        """What it has observed, without what it says of the position."""
        return dataclasses.replace(self, cursors=())


class PackageLoader:
    """Loads the packages of one connection, one after the other.

    `dead_letter_of` makes the dead letter of an object's row and a reason. `check_lease` raises
    when another run has taken over; it is asked while the warehouse is held.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        source_system: str,
        connection_name: str,
        dead_letter_of: Callable[[LandedObject, str], DeadLetter],
        check_lease: Callable[[], None] = lambda: None,
        *,
        pipeline_name: str = "landfall",
    ) -> None:
        self._warehouse = warehouse
        self._connection = (source_system, connection_name)
        self._directory = (
            state_dir() / "pipelines" / warehouse.target.key / f"{source_system}-{connection_name}"
        )
        self._lock = filelock.FileLock(f"{self._directory}.lock")
        self._pipeline_name = pipeline_name
        self._dead_letter_of = dead_letter_of
        self._check_lease = check_lease
        self._pipeline: Any = None

    def load(self, package: Package) -> list[LandedObject]:
        """Load a package; by halves when the warehouse refuses its data for good.

        Returns the objects that it refuses each by itself: they are dead letters now.
        Raises LandingError; then the package stays on disk and the next run lands it. Raises
        CursorNotLanded when it does not follow what the warehouse holds; then all of it is
        landed but the cursors.
        """
        with self._alone():
            # What somebody else who only lands has left since.
            self._load_pending()
            return self._land(package)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold dlt's directory, which is for one at a time: who lands only has no lease."""
        try:
            self._lock.acquire(timeout=self._warehouse.lock_wait)
        except filelock.Timeout as error:
            raise LandingError(
                f"landing: {self._directory}: another process has been loading a package there for"
                " longer than --lock-wait; wait for its end, or raise that, and run again"
            ) from error
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield
        finally:
            self._lock.release()

    def _land(self, package: Package) -> list[LandedObject]:
        with self._warehouse.open():
            self._check_lease()
            link = package.link
            if link is None or link.follows == head_id(self._warehouse, *self._connection):
                return self._load(package)
            self._load(package.without_cursors())
            raise CursorNotLanded(
                f"{self._connection[0]}: the warehouse was put back or changed while this run read"
                " the source (expected the position that the run began with); what was read is"
                " stored, where it stands is not: run it again, it goes on from what the"
                " warehouse holds"
            )

    def _load(self, package: Package) -> list[LandedObject]:
        try:
            self._load_whole(package)
            return []
        except Exception as error:  # noqa: BLE001 - _refusal raises what is no refusal
            reason = self._refusal(error)
        logger.warning("package refused, landing it by halves: %s", reason)
        refused: list[Refused] = []
        self._load_accepted(package.objects, refused)
        more = [
            self._dead_letter_of(row, f"the warehouse refuses it: {reason}")
            for row, reason in refused
        ]
        try:
            # The cursor goes last: it covers all of them.
            self._load_whole(Package([], [*package.dead_letters, *more], package.cursors))
        except Exception as error:
            raise LandingError(
                f"landing: the warehouse refuses the package: {self._refusal(error)}"
            ) from error
        return [row for row, _ in refused]

    def load_pending(self) -> list[LandedObject]:
        """Land what earlier processes left on disk, before anything new, and only then drop it.

        Nothing of what dlt noted there is believed: the warehouse may be another one by now. So a
        package is read, and landed as if it were new; a process that dies before the end leaves
        it, and the next one begins anew: a state that is landed twice is merged once. One that
        does not follow the head lands without its cursors.

        Returns the objects that became dead letters. Raises LandingError; then it stays on disk.
        """
        if not _holds_packages(self._directory):
            return []
        with self._alone():
            return self._load_pending()

    def _load_pending(self) -> list[LandedObject]:
        pipeline = self._open_pipeline()
        shutil.rmtree(self._directory / _AGAIN, ignore_errors=True)
        if not pipeline.has_pending_data:
            return []
        try:
            pipeline.normalize()
        except Exception as error:
            raise LandingError(
                f"landing: the pending package cannot be read: {reason_of(self._warehouse, error)}"
            ) from error
        # dlt loads the oldest package first, so the new ones need a directory of their own.
        again = PackageLoader(
            self._warehouse,
            *self._connection,
            self._dead_letter_of,
            self._check_lease,
            pipeline_name=_AGAIN,
        )
        refused: list[LandedObject] = []
        with self._warehouse.open():
            for directory in _packages(Path(pipeline.working_dir) / "load" / "normalized"):
                refused += again.land_again(_read_package(directory))
                self._delete_incomplete(directory.name)
        drop_pending(pipeline)
        shutil.rmtree(self._directory / _AGAIN, ignore_errors=True)
        return refused

    def land_again(self, package: Package) -> list[LandedObject]:
        """Land the package of an earlier process as the warehouse of today takes it."""
        link, head = package.link, head_id(self._warehouse, *self._connection)
        if link is not None and link.id == head:
            return []  # it is in already
        if link is None or link.follows != head:
            package = package.without_cursors()
        if link is not None and package.link is None:
            logger.warning(
                "%s: a package that an earlier run left does not follow what the warehouse holds:"
                " its objects are landed, its position is not",
                self._connection[0],
            )
        return self._land(package)

    def _delete_incomplete(self, load_id: str) -> None:
        """Delete what dlt had loaded of a package that is never completed any more."""
        for table in ("landed_objects", "dead_letters", "cursors"):
            self._warehouse.execute(
                f"delete from {self._warehouse.staging_table(table)}"
                f" where _dlt_load_id = ? and not {self._warehouse.is_complete()}",
                (load_id,),
            )

    def _load_accepted(self, objects: Sequence[LandedObject], refused: list[Refused]) -> None:
        """Load what the warehouse takes of these, once more whole, then half by half."""
        try:
            self._load_whole(Package(objects, [], []))
            return
        except Exception as error:  # noqa: BLE001 - _refusal raises what is no refusal
            reason = self._refusal(error)
        if len(objects) > 1:
            middle = len(objects) // 2
            self._load_accepted(objects[:middle], refused)
            self._load_accepted(objects[middle:], refused)
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
        reason = reason_of(self._warehouse, error)
        if not _is_terminal(error):
            raise LandingError(f"landing: the package does not load: {reason}") from error
        drop_pending(self._open_pipeline())
        return reason

    def _load_whole(self, package: Package) -> None:
        tables = {
            name: arrow_table(rows, schema_of(type(rows[0])))
            for name, rows in (
                ("landed_objects", package.objects),
                ("cursors", package.cursors),
                ("dead_letters", package.dead_letters),
            )
            if rows
        }
        load_package(self._open_pipeline(), tables)

    def _open_pipeline(self) -> Any:
        if self._pipeline is None:
            name, directory = self._pipeline_name, self._directory
            try:
                self._pipeline = open_pipeline(self._warehouse, name, directory)
            except OSError as error:
                raise self._unusable(error) from error
        return self._pipeline

    def _unusable(self, error: OSError) -> LandingError:
        return LandingError(
            f"landing: {self._directory}: {describe(error)}; load packages lie there, make it"
            " writable and make room, or set LANDFALL_STATE_DIR"
        )


def open_pipeline(warehouse: Warehouse, name: str, directory: Path) -> Any:
    """A dlt pipeline into the landing dataset, its pending packages in a directory."""
    configure_dlt()
    import dlt
    import pyarrow as pa

    # Arrow's own allocator keeps 100 MB of what it once used for packages.
    pa.set_memory_pool(pa.system_memory_pool())
    pipeline = dlt.pipeline(
        name,
        destination=warehouse.destination(),
        dataset_name=warehouse.target.staging_schema,
        pipelines_dir=str(directory),
    )
    # Cursors are data in the warehouse; dlt's own state is never consulted.
    pipeline.config.restore_from_destination = False
    _remove_leftovers(Path(pipeline.working_dir))
    return pipeline


def _remove_leftovers(directory: Path) -> None:
    """Remove what a process left that died inside of one of dlt's own steps, or of a drop.

    Of a package that was not extracted to its end, or is loaded already, dlt knows nothing, and so
    would keep its payloads for ever. A package that is normalized, but whose extracted form was not
    deleted yet, dlt would normalize again and then not find room for. Whoever works here holds the
    directory's lock.
    """
    extracted = directory / "normalize" / "extracted"
    for path in _packages(directory / "normalize"):
        if path != extracted:
            shutil.rmtree(path)
    for path in _packages(directory / "load" / "normalized"):
        shutil.rmtree(extracted / path.name, ignore_errors=True)
    for stage in ("new", "loaded"):
        for path in _packages(directory / "load" / stage):
            shutil.rmtree(path)


def _holds_packages(directory: Path) -> bool:
    """Whether any of dlt's working directories in it has a package, or a part of one: as most runs
    find none, they look before they load dlt."""
    stages = ("normalize/extracted", "normalize", "load/new", "load/normalized", "load/loaded")
    return any(
        path.name != "extracted"
        for stage in stages
        for working in _packages(directory)
        for path in _packages(working / stage)
    )


def _packages(directory: Path) -> list[Path]:
    """Packages of one stage, oldest first; a full disk may leave files of dlt's beside them."""
    return sorted(path for path in directory.glob("*") if path.is_dir())


def _read_package(directory: Path) -> Package:
    """The rows of a normalized package. Raises LandingError when they cannot be read."""
    import pyarrow as pa

    try:
        return Package(
            _read_rows(directory, "landed_objects", LandedObject),
            _read_rows(directory, "dead_letters", DeadLetter),
            _read_rows(directory, "cursors", LandedCursor),
        )
    except (pa.ArrowException, OSError) as error:
        raise LandingError(
            f"landing: {directory}: the pending package cannot be read: {describe(error)}; make it"
            " readable, or remove that directory and hand over or fetch its objects again"
        ) from error


def _read_rows(directory: Path, table_name: str, row: Any) -> list[Any]:
    """A table's rows in a package, whatever became of each of its files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Any] = []
    for path in sorted(directory.glob(f"*_jobs/{table_name}.*.parquet")):
        table = pq.ParquetFile(path).read()
        missing = pa.nulls(len(table))  # a column that an earlier release did not have yet
        columns = (table[name] if name in table.column_names else missing for name in row._fields)
        rows += map(row, *(column.to_pylist() for column in columns))
    return rows


def load_package(pipeline: Any, tables: dict[str, pa.Table]) -> None:
    """Append to tables of the landing dataset, as one load package; `tables` is emptied.

    Raises what dlt raises; then the package is pending.
    """
    import dlt

    resources = [
        dlt.resource(_drained([tables.pop(name)]), name=name, write_disposition="append")
        for name in list(tables)
    ]
    crashpoints.reached("land.before_extract")
    pipeline.extract(resources, loader_file_format="parquet")
    crashpoints.reached("land.extracted")
    pipeline.normalize()
    crashpoints.reached("land.normalized")
    _load(pipeline)
    crashpoints.reached("land.loaded")


def _load(pipeline: Any) -> None:
    """Load what is pending; once more what dlt takes for passing: of two first jobs at once one
    may find the tables half made. dlt repeats the jobs of a package, not what comes before."""
    from dlt.destinations.exceptions import DatabaseTransientException

    for _ in range(_MAX_LOADS - 1):
        try:
            pipeline.load()
            return
        except Exception as error:
            if not any(isinstance(cause, DatabaseTransientException) for cause in _causes(error)):
                raise
            logger.warning("landing: %s; once more", describe(list(_causes(error))[-1]))
            time.sleep(random.uniform(0.5, 1.5))
    pipeline.load()


def _drained(tables: list[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables and let go of them: dlt's resources outlive their package."""
    while tables:
        yield tables.pop()


def drop_pending(pipeline: Any) -> None:
    """Drop the pending packages, each whole or not at all.

    dlt's own way marks the package first: a process that dies then leaves a mark for which dlt
    deletes the package that comes next as well.
    """
    directory = Path(pipeline.working_dir)
    # To where dlt makes packages: what lies there is nothing yet.
    for stage, making in (("normalize/extracted", "normalize"), ("load/normalized", "load/new")):
        for package in _packages(directory / stage):
            dropped = directory / making / package.name
            shutil.rmtree(dropped, ignore_errors=True)
            shutil.rmtree(package.rename(dropped))


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _is_terminal(error: BaseException) -> bool:
    """Whether dlt says that the warehouse refuses the data itself."""
    from dlt.load.exceptions import LoadClientJobFailed, LoadClientJobTerminalRetry

    causes = list(_causes(error))
    refusals = (LoadClientJobFailed, LoadClientJobTerminalRetry)
    # dlt says so of a table that is wrong, too: then every object would be set aside.
    is_of_table = any(isinstance(cause, _OF_TABLE) for cause in causes)
    return not is_of_table and any(isinstance(cause, refusals) for cause in causes)


def reason_of(warehouse: Warehouse, error: BaseException) -> str:
    """The one line of what dlt's error began with."""
    return warehouse.with_next_step(describe(list(_causes(error))[-1]))

"""What befalls a warehouse, or this machine's part of it, while no run is at work, or one is."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(
    r"(?P<kind>removed|machine|(restored|events|staging|state|swapped|replaced):(?P<backup>\d|killed))"
)
KILLED = "killed"
_PARTS = {"events": ("events",), "staging": ("events_staging",)}
_POLL_SECONDS = 0.002


@dataclasses.dataclass(frozen=True)
class Disaster:
    """`backup` is the number of runs after which it was taken, 0 for before the first, or KILLED:
    after the victim, which another run has then followed.

    removed           the warehouse is gone
    machine           this machine's state directory is gone: the next run is another's
    restored:BACKUP   the warehouse is put back, in the place of the file that was there
    events:BACKUP     of the two datasets the one with objects and log is put back alone
    staging:BACKUP    the other one
    state:BACKUP      the state directory is put back
    swapped:BACKUP    the warehouse is put back while the victim fetches, which goes on
    replaced:BACKUP   the same, by a new file
    """

    kind: str
    backup: str = "0"

    @classmethod
    def parse(cls, name: str) -> Disaster:
        """Read one of the above. Raises ValueError."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"disaster {name!r}: expected one of {_NAME.pattern}")
        return cls(match["kind"].partition(":")[0], match["backup"] or "0")

    @property
    def is_during_the_run(self) -> bool:
        """Whether the victim is not killed, and this happens to it instead."""
        return self.kind in ("swapped", "replaced")

    @property
    def datasets(self) -> Sequence[str]:
        """What is put back of the warehouse; nothing for the state directory's disasters."""
        if self.kind in ("machine", "state"):
            return ()
        return _PARTS.get(self.kind, ("events", "events_staging"))


def put_back(backup: Path, warehouse: Path, *, as_new_file: bool = False) -> None:
    """Put a DuckDB file back; a backup that does not exist is the time before there was one."""
    for suffix in ("", ".wal"):
        source, path = (Path(f"{name}{suffix}") for name in (backup, warehouse))
        if as_new_file or not source.exists():
            path.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, path)


def put_part_back(backup: Path, warehouse: Path, schema: str) -> None:
    """Put one schema of a DuckDB file back, as a dataset of BigQuery can be."""
    import duckdb

    if not backup.exists():
        with duckdb.connect(str(warehouse)) as connection:
            connection.execute(f"drop schema if exists {schema} cascade")
        return
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(f"attach '{backup}' as backup (read_only)")
        tables = (
            "select table_name from duckdb_tables() where schema_name = ? and database_name = ?"
        )
        own, old = (
            {name for (name,) in connection.execute(tables, (schema, database)).fetchall()}
            for database in (warehouse.stem, "backup")
        )
        for table in own - old:
            connection.execute(f"drop table {schema}.{table}")
        for table in own & old:
            connection.execute(f"delete from {schema}.{table}")
            connection.execute(f"insert into {schema}.{table} by name from backup.{schema}.{table}")


def wait_until_closed(path: Path) -> None:
    """Wait until no thread of this process has the file open. Linux only, by /proc."""
    while any(
        os.path.realpath(f"/proc/self/fd/{number}") == str(path)
        for number in os.listdir("/proc/self/fd")
    ):
        time.sleep(_POLL_SECONDS)

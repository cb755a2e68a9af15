"""A project directory for one case after the other, and what its warehouse held at a moment."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from loaders.settings.places import PROJECT_DIR
from tests.chaos.disasters import Disaster, put_back, put_part_back
from tests.chaos.forks import fork, parse_project, wait_or_kill
from tests.chaos.scenarios import Scenario
from tests.chaos.snapshots import WAREHOUSE, copy_file, copy_rows, copy_spool
from tests.peers.datasets import copy_tables, delete_datasets

_DROPPED_VARIABLES = ("LANDFALL_", "SOURCES__", "DBT_", "TRACEPARENT", "GOOGLE_APPLICATION_")


@dataclasses.dataclass(frozen=True)
class Slot:
    """One path for all cases of a worker: dbt parses the project again whenever the path of
    the warehouse changes, which takes longer than the run. Its target path is shared by the
    victim and those that come after it, as it is outside a test.

    On DuckDB, or on the BigQuery emulator at `emulator`.
    """

    root: Path
    number: int
    emulator: str | None

    @property
    def directory(self) -> Path:
        return self.root / f"slot-{self.number}"

    @property
    def prepared(self) -> Path:
        """Where copies to start from are kept."""
        return self.root / f"prepared-{self.number}"

    @property
    def target(self) -> str:
        return f"chaos-{self.root.name}-{self.number}"

    @property
    def target_path(self) -> Path:
        return PROJECT_DIR / "target" / self.target

    @property
    def warehouse(self) -> Path:
        return self.directory / "landfall.duckdb"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def dataset(self) -> str:
        """The slot's own on the emulator."""
        return f"slot_{self.number}"

    def empty(self) -> None:
        """Leave nothing but a profile."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        profiles = yaml.safe_load((PROJECT_DIR / "profiles.example.yml").read_text())
        outputs = profiles["landfall"]["outputs"]
        chosen = outputs["emulator" if self.emulator else "dev"]
        profiles["landfall"]["outputs"] = {self.target: chosen}
        (self.directory / "profiles.yml").write_text(yaml.safe_dump(profiles))
        if self.emulator:
            delete_datasets(self.emulator, *self._datasets())

    def save(self, name: str) -> None:
        """Keep a copy of the warehouse and the local state."""
        shutil.copytree(self.directory, self.prepared / name)
        if self.emulator:
            delete_datasets(self.emulator, *self._datasets(f"_{name}"))
            self._copy_datasets("", f"_{name}")

    def restore(self, name: str) -> None:
        """Bring a copy back."""
        shutil.rmtree(self.directory)
        shutil.copytree(self.prepared / name, self.directory)
        if self.emulator:
            delete_datasets(self.emulator, *self._datasets())
            self._copy_datasets(f"_{name}", "")

    def back_up(self, name: str, run: str) -> None:
        """Keep a copy of the warehouse and the state as they are after a run."""
        backup = self._backup(name, run)
        shutil.rmtree(backup, ignore_errors=True)
        backup.mkdir(parents=True)
        if self.state_dir.exists():
            shutil.copytree(self.state_dir, backup / "state")
        if self.emulator:
            delete_datasets(self.emulator, *self._datasets(f"_{name}_{run}"))
            self._copy_datasets("", f"_{name}_{run}")
        else:
            copy_file(self.warehouse, backup)

    def suffer(self, name: str, disaster: Disaster) -> None:
        """Let a disaster happen."""
        backup = self._backup(name, disaster.backup)
        if disaster.kind in ("machine", "state"):
            shutil.rmtree(self.state_dir, ignore_errors=True)
            if disaster.kind == "state" and (backup / "state").exists():
                shutil.copytree(backup / "state", self.state_dir)
        elif self.emulator:
            pairs = zip(self._datasets(f"_{name}_{disaster.backup}"), self._datasets(), strict=True)
            for pair, part in zip(pairs, ("events", "events_staging"), strict=True):
                if part in disaster.datasets:
                    self._put_dataset_back(*pair)
        elif len(disaster.datasets) == 1:
            [schema] = disaster.datasets
            work = functools.partial(put_part_back, backup / WAREHOUSE, self.warehouse, schema)
            _in_fork(lambda: work() or 0, self.root / "put-back.log")
        else:
            put_back(backup / WAREHOUSE, self.warehouse, as_new_file=disaster.kind == "replaced")

    def _backup(self, name: str, run: str) -> Path:
        return self.prepared / f"{name}-backup-{run}"

    def _put_dataset_back(self, backup: str, dataset: str) -> None:
        url = self.emulator or ""
        delete_datasets(url, dataset)

        def copy() -> int:
            copy_tables(url, backup, dataset)
            return 0

        _in_fork(copy, self.prepared / "copied.log")

    def take_snapshot(self, into: Path) -> None:
        """Keep what the warehouse and the spool hold."""
        into.mkdir(parents=True)
        copy_spool(self.state_dir, into)
        if self.emulator:
            _in_fork(lambda: self._copy_rows(into), into / "copied.log")
        else:
            copy_file(self.warehouse, into)

    def parse(self) -> None:
        """Fill dbt's cache."""
        self.empty()
        parse_project(self.environment(), self.target, self.target_path)

    def tear_cache(self, kept: float) -> None:
        """Leave the first part of dbt's cache, which it does not write atomically."""
        cache = self.target_path / "partial_parse.msgpack"
        os.truncate(cache, int(cache.stat().st_size * kept))

    def environment(self, scenario: Scenario | None = None, base_url: str = "") -> dict[str, str]:
        """What a run needs to know, with nothing of the caller's configuration."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_DROPPED_VARIABLES)
        }
        return {
            **inherited,
            "DBT_PROFILES_DIR": str(self.directory),
            "LANDFALL_DUCKDB_PATH": str(self.warehouse),
            "LANDFALL_STATE_DIR": str(self.state_dir),
            "DBT_TARGET_PATH": str(self.target_path.parent),
            "LANDFALL_TARGET": self.target,
            "LANDFALL_EMULATOR_URL": self.emulator or "",
            "LANDFALL_BIGQUERY_DATASET": self.dataset,
            **(scenario.environment(base_url) if scenario else {}),
        }

    def remove(self) -> None:
        """Remove all of it, dbt's target path included."""
        for path in (self.directory, self.prepared, self.target_path):
            shutil.rmtree(path, ignore_errors=True)

    def _datasets(self, suffix: str = "") -> tuple[str, str]:
        suffix = suffix.replace("-", "_")
        return f"{self.dataset}{suffix}", f"{self.dataset}_staging{suffix}"

    def _copy_datasets(self, source: str, destination: str) -> None:
        def copy() -> int:
            for pair in zip(self._datasets(source), self._datasets(destination), strict=True):
                copy_tables(self.emulator or "", *pair)
            return 0

        _in_fork(copy, self.prepared / "copied.log")

    def _copy_rows(self, into: Path) -> int:
        from loaders.settings.target import load_target
        from loaders.warehouse.opening import open_warehouse

        os.environ.update(self.environment())
        copy_rows(open_warehouse(load_target()), into)
        return 0


def _in_fork(work: Callable[[], int], log: Path) -> None:
    """The client's threads would not survive the next fork. Raises RuntimeError."""
    if wait_or_kill(fork(work, log)) != 0:
        raise RuntimeError(f"chaos: {log.read_text()}")

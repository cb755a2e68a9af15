"""Where one test keeps its profile, warehouse and local state."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import load_target
from loaders.transform.invocation import release_file
from loaders.warehouse.base import Warehouse
from loaders.warehouse.opening import open_warehouse

from . import held_file

TARGET = f"pytest-{os.getpid()}"
"""A dbt target of this process: its parse cache is nobody else's."""


class Store(Protocol):
    """What holds a target's tables, and copies of them to start from."""

    def empty(self) -> None:
        """Leave no table."""

    def holds(self, name: str) -> bool:
        """Whether there is a copy of this name."""

    def save(self, name: str) -> None:
        """Keep a copy of all tables."""

    def restore(self, name: str) -> None:
        """Bring a copy back."""


@dataclasses.dataclass(frozen=True)
class File:
    """A DuckDB file, and copies of it in a directory."""

    path: Path
    copies: Path

    def empty(self) -> None:
        held_file.let_go()
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.parent.mkdir(parents=True)

    def holds(self, name: str) -> bool:
        return self.copy(name).exists()

    def save(self, name: str) -> None:
        held_file.let_go()
        release_file()
        self.copies.mkdir(exist_ok=True)
        shutil.copy(self.path, self.copy(name))

    def restore(self, name: str) -> None:
        held_file.let_go()
        shutil.copy(self.copy(name), self.path)

    def copy(self, name: str) -> Path:
        return self.copies / f"{name}.duckdb"


@dataclasses.dataclass(frozen=True)
class Project:
    """Where one test keeps its profile, warehouse and local state."""

    directory: Path
    store: Store
    target: str = TARGET

    @property
    def duckdb_path(self) -> Path:
        return self.directory / "warehouse" / "landfall.duckdb"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def profiles(self) -> Path:
        return self.directory / "profiles.yml"

    @property
    def dlt_dir(self) -> Path:
        return self.directory / ".dlt"

    def open_warehouse(self, lock_wait: float = 0.0) -> Warehouse:
        return open_warehouse(load_target(), lock_wait)

    def run_cli(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own."""
        return subprocess.run(
            [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), *arguments],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run_dbt(self, *arguments: str, quiet: bool = True) -> Any:
        """Run a plain dbt command in this process, as a person would type it."""
        from dbt.cli.main import dbtRunner

        held_file.let_go()
        try:
            return dbtRunner().invoke(
                [
                    *(("--quiet",) if quiet else ()),
                    *("--log-path", str(self.state_dir / "logs")),
                    *arguments,
                    # dbt parses all anew when another target, or none, was said before.
                    *(() if "--target" in arguments else ("--target", self.target)),
                    *("--project-dir", str(PROJECT_DIR)),
                    *("--target-path", str(PROJECT_DIR / "target" / self.target)),
                ]
            )
        finally:
            release_file()

"""What every benchmark needs: a project of its own, children to measure in, tables."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench-results"

_COPIED = ("dbt_project.yml", "loaders", "macros", "models", "seeds", "tests")

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A copy of the project with a warehouse, a state directory and a dbt target of its own."""

    directory: Path

    @property
    def project(self) -> Path:
        """The copied project."""
        return self.directory / "project"

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.directory / "bench.duckdb"

    def forget(self) -> None:
        """Remove the database and what runs keep beside it; dbt's target stays."""
        for path in self.directory.glob(f"{self.database.name}*"):
            path.unlink()
        for name in ("state", "pipelines"):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def environment(self, **variables: str) -> dict[str, str]:
        """Environment of a process in this workspace; bytecode is kept, as in production."""
        left_out = ("PYTHONDONTWRITEBYTECODE", "LANDFALL_", "SOURCES__", "DBT_", "DLT_")
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(left_out)
        }
        return {
            **inherited,
            "LANDFALL_DUCKDB_PATH": str(self.database),
            "LANDFALL_STATE_DIR": str(self.directory / "state"),
            "DBT_PROFILES_DIR": str(self.directory),
            **variables,
        }

    def call(self, function: str, **arguments: Any) -> Figures:
        """Run `module:function` of this package in a child; its figures, with `peak_rss_mb`."""
        output = self.directory / "figures.json"
        output.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.bench.harness", str(output), function]
        subprocess.run(
            [*command, json.dumps(arguments)],
            cwd=self.project,
            env=self.environment(),
            stdout=sys.stderr,
            check=True,
        )
        figures: Figures = json.loads(output.read_text())
        return figures

    def run(self, command: Sequence[str], **variables: str) -> Figures:
        """Run a Python command line as a process of its own: wall seconds, peak RSS, output."""
        return self.pipe([[sys.executable, *command]], **variables)

    def pipe(self, commands: Sequence[Sequence[str]], **variables: str) -> Figures:
        """Run programs at the same time, each reading what the one before it prints.

        Wall seconds; peak RSS, summed over them; what the last one printed and all complained of.
        """
        output = self.directory / "output.txt"
        processes: list[subprocess.Popen[bytes]] = []
        with output.open("wb") as file:
            began = time.perf_counter()
            for command in commands:
                before = processes[-1].stdout if processes else None
                process = subprocess.Popen(
                    command,
                    cwd=self.project,
                    env=self.environment(**variables),
                    stdin=before,
                    stdout=file if command is commands[-1] else subprocess.PIPE,
                    stderr=file,
                )
                if before is not None:
                    before.close()  # or the first would not notice that the second has ended
                processes.append(process)
            peak_rss = 0
            for process in processes:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                peak_rss += usage.ru_maxrss
            seconds = time.perf_counter() - began
        failed = [
            f"{' '.join(command)}: failed ({process.returncode})\n"
            for command, process in zip(commands, processes, strict=True)
            if process.returncode
        ]
        text = output.read_text(errors="replace")
        if failed:
            raise RuntimeError("".join(failed) + text)
        return {"seconds": seconds, "peak_rss_mb": peak_rss / 1024, "output": text}


@contextlib.contextmanager
def new_workspace() -> Iterator[Workspace]:
    """A workspace that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as directory:
        workspace = Workspace(Path(directory))
        workspace.project.mkdir()
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, workspace.project / name, ignore=ignored)
            else:
                shutil.copy(source, workspace.project)
        shutil.copy(ROOT / "profiles.example.yml", workspace.directory / "profiles.yml")
        yield workspace


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time inside to a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Count every call of a function as a step."""
        function = getattr(owner, attribute)
        seconds = self.seconds
        seconds.setdefault(name, 0.0)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] += time.perf_counter() - began

        setattr(owner, attribute, timed)


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in aligned columns: text to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    print(f"\n{title}")
    print(
        "  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip()
    )
    for row, texts in zip(rows, cells, strict=True):
        aligned = [
            text.ljust(width) if isinstance(value, str) else text.rjust(width)
            for value, text, width in zip(row, texts, widths, strict=True)
        ]
        print("  ".join(aligned).rstrip())


def print_steps(title: str, seconds: Mapping[str, float], total: float) -> None:
    """Print where the seconds of a total went; what no step claims is the last row."""
    rows = [(name, value, f"{value / total:.0%}") for name, value in seconds.items()]
    rest = total - sum(seconds.values())
    rows += [("everything else", rest, f"{rest / total:.0%}"), ("total", total, "")]
    print_table(title, ("step", "seconds", "share"), rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _child(output: str, function: str, arguments: str) -> None:
    module, _, name = function.partition(":")
    figures = getattr(importlib.import_module(f"tests.bench.{module}"), name)(
        **json.loads(arguments)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(output).write_text(json.dumps({**figures, "peak_rss_mb": peak}))


if __name__ == "__main__":
    _child(*sys.argv[1:])

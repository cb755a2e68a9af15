"""Runs cases: a victim, a run to the end, one run more, and the check of what they left.

The process that runs cases forks the victims, and never opens a warehouse itself: a file is
copied, an emulator's rows are written down by a fork, and a fork of its own reads the copies.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from loaders import crashpoints
from loaders.config import PROJECT_DIR
from loaders.sandbox import Sandbox
from tests.chaos.cases import Case
from tests.chaos.forks import (
    HUNG,
    end_with_parent,
    fork,
    import_everything,
    parse_project,
    wait,
    wait_or_kill,
)
from tests.chaos.invariants import Evidence, violations
from tests.chaos.mailbox import BATCH_SIZE, CONNECTION, TOKEN, live_messages, open_mailbox
from tests.chaos.snapshots import copy_file, copy_rows, copy_spool, read_snapshot
from tests.peers.datasets import delete_datasets

ARGUMENTS = ("gmail", "--connection", CONNECTION, "--batch-size", str(BATCH_SIZE))
OUTCOME = "outcome.json"
MAILBOX = "mailbox.json"
_STAGES = ("killed", "clean", "repeated")
_FETCHED_BEFORE_COLD_KILL = 10
_COLD_LATENCY_SECONDS = 0.02
_DROPPED_VARIABLES = ("LANDFALL_", "SOURCES__", "DBT_", "TRACEPARENT", "GOOGLE_APPLICATION_")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one case; `exit_code` is the victim's."""

    case: Case
    exit_code: int
    seconds: float
    violations: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        return not self.violations


class Harness:
    """Runs cases in `jobs` processes below `directory`, which keeps the evidence.

    On DuckDB, or on the BigQuery emulator at `emulator`. A context manager: it starts the
    mailbox's server, and removes dbt's target paths.
    """

    def __init__(self, directory: Path, jobs: int = 1, emulator: str | None = None) -> None:
        self._directory = directory.resolve()
        self._jobs = jobs
        self._emulator = emulator
        self._sandbox = open_mailbox()
        self._messages: dict[str, Any] = {}

    def __enter__(self) -> Harness:
        self._directory.mkdir(parents=True, exist_ok=True)
        # dlt looks for configuration there: not in the project, where a developer has some.
        os.environ["DLT_PROJECT_DIR"] = str(self._directory)
        import_everything(with_bigquery=self._emulator is not None)
        self._sandbox.start()
        self._messages = live_messages(self._sandbox)
        (self._directory / MAILBOX).write_text(json.dumps(self._messages))
        # The first once more: what reads the cache is compiled on its first use, too.
        for number in (*range(self._jobs), 0):
            self._slot(number).parse()
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox.stop()
        for number in range(self._jobs):
            shutil.rmtree(self._slot(number).target_path, ignore_errors=True)

    def run(self, cases: Sequence[Case]) -> Iterator[Outcome]:
        """Yield outcomes as they come."""
        for outcome in self._spread(_run_case, cases):
            assert isinstance(outcome, Outcome)
            yield outcome

    def typical_seconds(self) -> float:
        """How long a run that nobody kills takes."""
        (seconds,) = self._spread(_measure, [None])
        assert isinstance(seconds, float)
        return seconds

    def _spread(self, work: Callable[[Any], object], items: Sequence[object]) -> Iterator[object]:
        # Forked, for the imports; each of them is single-threaded, so it can fork in turn.
        context = get_context("fork")
        numbers = context.SimpleQueue()
        for number in range(self._jobs):
            numbers.put(number)
        with context.Pool(self._jobs, self._enter_worker, (numbers,)) as pool:
            yield from pool.imap_unordered(work, items)

    def _enter_worker(self, numbers: Any) -> None:
        global _worker
        end_with_parent()
        _worker = _Worker(self._slot(numbers.get()), self._messages)

    def _slot(self, number: int) -> Slot:
        return Slot(self._directory, number, self._sandbox.base_url, self._emulator)


@dataclasses.dataclass(frozen=True)
class Slot:
    """A project directory, emptied for each case.

    One path for all cases of a worker: dbt parses the project again whenever the path of
    the warehouse changes, which takes longer than the run. Its target path is shared by the
    victim and those that come after it, as it is outside a test.
    """

    evidence: Path
    number: int
    base_url: str
    emulator: str | None

    @property
    def directory(self) -> Path:
        return self.evidence / f"slot-{self.number}"

    @property
    def target(self) -> str:
        return f"chaos-{os.path.basename(self.evidence)}-{self.number}"

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
            delete_datasets(self.emulator, self.dataset, f"{self.dataset}_staging")

    def copy(self, into: Path) -> None:
        """Keep what the warehouse and the spool hold."""
        into.mkdir(parents=True)
        copy_spool(self.state_dir, into)
        if not self.emulator:
            copy_file(self.warehouse, into)
        elif wait_or_kill(fork(lambda: self._copy_rows(into), into / "copied.log")) != 0:
            raise RuntimeError(f"chaos: {(into / 'copied.log').read_text()}")

    def _copy_rows(self, into: Path) -> int:
        from loaders.config import load_target
        from loaders.warehouse import open_warehouse

        os.environ.update(self.environment(self.base_url))
        copy_rows(open_warehouse(load_target()), into)
        return 0

    def parse(self) -> None:
        """Fill dbt's cache."""
        self.empty()
        parse_project(self.environment(self.base_url), self.target, self.target_path)

    def tear_cache(self, kept: float) -> None:
        """Leave the first part of dbt's cache, which it does not write atomically."""
        cache = self.target_path / "partial_parse.msgpack"
        os.truncate(cache, int(cache.stat().st_size * kept))

    def environment(self, base_url: str) -> dict[str, str]:
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
            "LANDFALL_TARGET": self.target,
            "LANDFALL_EMULATOR_URL": self.emulator or "",
            "LANDFALL_BIGQUERY_DATASET": self.dataset,
            f"SOURCES__GMAIL__{CONNECTION.upper()}__ACCESS_TOKEN": TOKEN,
            f"SOURCES__GMAIL__{CONNECTION.upper()}__UNITS_PER_MINUTE": "10000000",
            f"SOURCES__GMAIL__{CONNECTION.upper()}__API_BASE_URL": base_url,
            f"SOURCES__GMAIL__{CONNECTION.upper()}__BACKOFF_SECONDS": "0.01",
        }


class _Worker:
    """Runs one case after the other in one slot."""

    def __init__(self, slot: Slot, messages: dict[str, Any]) -> None:
        self._slot = slot
        self._messages = messages

    def run_case(self, case: Case) -> Outcome:
        began = time.monotonic()
        directory = self._slot.evidence / case.directory
        shutil.rmtree(directory, ignore_errors=True)
        self._slot.empty()
        exit_codes, found = [], []
        for stage in _STAGES:
            log = directory / f"{stage}.log"
            if stage == "killed":
                exit_codes.append(self._kill(case, log))
                if case.delay is None and exit_codes[0] == 0:
                    found.append(f"kill: {case.name} was never reached")
            else:
                exit_codes.append(self._run_to_the_end(log))
            if exit_codes[-1] == HUNG:
                found.append(f"hung: the {stage} run did not end; it was killed")
            if stage == "killed" and case.cache_kept is not None:
                self._slot.tear_cache(case.cache_kept)
            self._slot.copy(directory / stage)
        found += self._examine(case, directory, exit_codes)
        outcome = Outcome(case, exit_codes[0], time.monotonic() - began, tuple(found))
        record = {**dataclasses.asdict(outcome), "exit_codes": exit_codes}
        (directory / OUTCOME).write_text(json.dumps(record))
        return outcome

    def measure(self) -> float:
        """Seconds of a first run."""
        self._slot.empty()
        log = self._slot.directory / "measured.log"
        began = time.monotonic()
        code = self._run_to_the_end(log)
        if code != 0:
            raise RuntimeError(
                f"chaos: a run that nobody killed ended with {code}: {log.read_text()}"
            )
        return time.monotonic() - began

    def _kill(self, case: Case, log: Path) -> int:
        if case.is_cold:
            return self._kill_cold(case, log)
        pid = self._fork_loader(log, case)
        if case.delay is None:
            return wait_or_kill(pid)
        code = wait(pid, case.delay)
        if code is None:
            os.kill(pid, case.signal)
            code = wait_or_kill(pid)
        return code

    def _kill_cold(self, case: Case, log: Path) -> int:
        """Start `loaders/run.py` as a user does, and kill it while it fetches messages."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open_mailbox() as sandbox, log.open("w") as output:
            sandbox.settings(latency=_COLD_LATENCY_SECONDS)
            victim = subprocess.Popen(
                [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), *ARGUMENTS],
                env=self._slot.environment(sandbox.base_url),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                while victim.poll() is None and _fetched(sandbox) <= _FETCHED_BEFORE_COLD_KILL:
                    time.sleep(0.01)
                victim.send_signal(case.signal)
                return victim.wait(timeout=60)
            finally:
                victim.kill()
                victim.wait()

    def _run_to_the_end(self, log: Path) -> int:
        return wait_or_kill(self._fork_loader(log))

    def _fork_loader(self, log: Path, case: Case | None = None) -> int:
        environment = self._slot.environment(self._slot.base_url)

        def run() -> int:
            os.environ.clear()
            os.environ.update(environment)
            if case and case.point:
                crashpoints.install(_killer(case.point, case.nth, case.signal))
            from loaders.cli import main

            return main(ARGUMENTS)

        return fork(run, log)

    def _examine(self, case: Case, directory: Path, exit_codes: Sequence[int]) -> list[str]:
        """Read the three copies in a fork: DuckDB's threads would not survive the next one."""
        answer = directory / "violations.json"

        def examine() -> int:
            evidence = read_evidence(directory, case, exit_codes, self._messages)
            answer.write_text(json.dumps(violations(evidence)))
            return 0

        log = directory / "examined.log"
        if wait_or_kill(fork(examine, log)) != 0:
            return [f"examine: {log.read_text().strip()}"]
        found: list[str] = json.loads(answer.read_text())
        return found


def read_evidence(
    directory: Path, case: Case, exit_codes: Sequence[int], messages: dict[str, Any]
) -> Evidence:
    """Read what a case left in its directory."""
    victim, clean, repeated = exit_codes
    return Evidence(
        case.signal,
        (victim, clean, repeated),
        messages,
        *(read_snapshot(directory / stage) for stage in _STAGES),
    )


_worker: _Worker


def _run_case(case: Case) -> Outcome:
    return _worker.run_case(case)


def _measure(_: None) -> float:
    return _worker.measure()


def _killer(point: str, nth: int, number: signal.Signals) -> Callable[[str], None]:
    """A hook that sends this process a signal when `point` is reached the `nth` time."""
    reached = itertools.count(1)

    def hook(name: str) -> None:
        if name == point and next(reached) == nth:
            os.kill(os.getpid(), number)

    return hook


def _fetched(sandbox: Sandbox) -> int:
    return int(sandbox.stats()["requests"].get("messages.get", 0))

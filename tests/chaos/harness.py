"""Runs cases: a victim, runs to the end, one run more, and the check of what they left.

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

from landfall_sandbox.controls import Sandbox
from loaders.jobs import crashpoints
from loaders.settings.places import PROJECT_DIR
from tests.chaos.cases import Case
from tests.chaos.disasters import KILLED, wait_until_closed
from tests.chaos.forks import (
    HUNG,
    begin_as_a_user_does,
    end_with_parent,
    fork,
    import_everything,
    leave_out_marts,
    wait,
    wait_or_kill,
)
from tests.chaos.invariants import Evidence, violations
from tests.chaos.scenarios import SCENARIOS, Arguments, History, Run, Scenario
from tests.chaos.slot import Slot
from tests.chaos.snapshots import read_snapshot
from tests.chaos.truth import live_objects, read_truth, truth_of

OUTCOME = "outcome.json"
_PREPARED, _TRUTH = "prepared", "truth.json"
_STAGES = ("killed", "clean", "repeated")
_COLD_LATENCY_SECONDS = 0.02
_COLD_TIMEOUT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one case; `exit_code` is the victim's."""

    case: Case
    exit_code: int
    seconds: float
    violations: tuple[str, ...]
    was_killed: bool = True
    """False when the victim had ended before its instant: such a case proves nothing of a kill."""

    @property
    def is_passed(self) -> bool:
        return not self.violations


class Harness:
    """Runs cases in `jobs` processes below `directory`, which keeps the evidence.

    On DuckDB, or on the BigQuery emulator at `emulator`. With `without_marts` runs build
    raw_objects and the acceptance tests only, but for those in a process of their own. A context
    manager: it removes what only the cases needed.
    """

    def __init__(
        self,
        directory: Path,
        jobs: int = 1,
        emulator: str | None = None,
        *,
        without_marts: bool = False,
    ) -> None:
        self._directory = directory.resolve()
        self._jobs = jobs
        self._emulator = emulator
        self._without_marts = without_marts

    def __enter__(self) -> Harness:
        self._directory.mkdir(parents=True, exist_ok=True)
        # dlt looks for configuration there: not in the project, where a developer has some.
        os.environ["DLT_PROJECT_DIR"] = str(self._directory)
        import_everything(with_bigquery=self._emulator is not None)
        if self._without_marts:
            leave_out_marts()  # before the workers are forked: they do as this process does
        # The first once more: what reads the cache is compiled on its first use, too.
        for number in (*range(self._jobs), 0):
            self._slot(number).parse()
        # Forked, for the imports; each of them is single-threaded, so it can fork in turn.
        context = get_context("fork")
        numbers = context.SimpleQueue()
        for number in range(self._jobs):
            numbers.put(number)
        self._pool = context.Pool(self._jobs, self._enter_worker, (numbers,))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()
        self._pool.join()
        for number in range(self._jobs):
            self._slot(number).remove()

    def run(self, cases: Sequence[Case]) -> Iterator[Outcome]:
        """Yield outcomes as they come."""
        yield from self._pool.imap_unordered(_run_case, cases)

    def typical_seconds(self, scenarios: Sequence[str]) -> dict[str, float]:
        """How long the victims of scenarios take when nobody kills them."""
        return dict(self._pool.map(_measure, scenarios, chunksize=1))

    def _enter_worker(self, numbers: Any) -> None:
        global _worker
        # Ctrl-C is for the parent, which ends its workers by SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        _worker = _Worker(self._slot(numbers.get()))

    def _slot(self, number: int) -> Slot:
        return Slot(self._directory, number, self._emulator)


class _Worker:
    """Runs one case after the other in one slot."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._accounts: dict[str, Sandbox] = {}
        shutil.rmtree(slot.prepared, ignore_errors=True)
        slot.prepared.mkdir(parents=True)

    def run_case(self, case: Case) -> Outcome:
        began = time.monotonic()
        scenario = SCENARIOS[case.scenario]
        directory = self._slot.root / case.directory
        self._begin(scenario)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self._kept(scenario), directory)
        exit_codes, found, was_killed = [], [], True
        for stage in _STAGES:
            log = directory / f"{stage}.log"
            if stage == "killed":
                code, was_killed = self._kill(scenario, case, log)
                exit_codes.append(code)
                if case.delay is None and exit_codes[0] == 0 and not _goes_on(case):
                    found.append(f"kill: {case.name} was never reached")
            elif stage == "clean":
                exit_codes.append(self._run_to_the_end(scenario, log, *scenario.clean))
            else:
                exit_codes.append(self._run_to_the_end(scenario, log, scenario.repeated))
            if exit_codes[-1] == HUNG:
                found.append(f"hung: the {stage} run did not end; it was killed")
            if stage == "killed":
                self._let_happen(scenario, case, log)
            self._slot.take_snapshot(directory / stage)
        found += self._examine(case, directory, exit_codes)
        seconds = time.monotonic() - began
        outcome = Outcome(case, exit_codes[0], seconds, tuple(found), was_killed)
        record = {**dataclasses.asdict(outcome), "exit_codes": exit_codes}
        (directory / OUTCOME).write_text(json.dumps(record))
        return outcome

    def _let_happen(self, scenario: Scenario, case: Case, log: Path) -> None:
        """What befalls the victim's leavings before the next run."""
        if case.cache_kept is not None:
            self._slot.tear_cache(case.cache_kept)
        if case.disaster is None or case.disaster.is_during_the_run:
            return
        if case.disaster.backup == KILLED:
            self._slot.back_up(scenario.name, KILLED)
            self._run_to_the_end(scenario, log.with_suffix(".followed.log"), *scenario.clean)
        self._slot.suffer(scenario.name, case.disaster)

    def measure(self, name: str) -> tuple[str, float]:
        """Name of a scenario, and seconds that its victim takes when nobody kills it."""
        scenario = SCENARIOS[name]
        self._begin(scenario)
        began = time.monotonic()
        self._expect(scenario, Run(scenario.victim))
        return name, round(time.monotonic() - began, 2)

    def _begin(self, scenario: Scenario) -> None:
        """Bring the slot to where the victim begins."""
        if scenario.name not in self._accounts:
            self._accounts[scenario.name] = self._prepare(scenario)
        self._slot.restore(scenario.name)

    def _kept(self, scenario: Scenario) -> Path:
        """What is known of a prepared scenario: a snapshot, and the truth."""
        return self._slot.prepared / f"{scenario.name}-kept"

    def _prepare(self, scenario: Scenario) -> Sandbox:
        """Take a scenario's steps, once for all of its cases."""
        account = self._accounts[scenario.name] = scenario.open_account().start()
        before = live_objects(scenario.source, account)
        history: History = {}
        self._slot.empty()
        runs = itertools.count()
        self._slot.back_up(scenario.name, str(next(runs)))
        for step in scenario.steps:
            if isinstance(step, Run):
                self._expect(scenario, step)
                self._slot.back_up(scenario.name, str(next(runs)))
            else:
                step(account, history)
        self._slot.save(scenario.name)
        kept = self._kept(scenario)
        self._slot.take_snapshot(kept / _PREPARED)
        truth = truth_of(scenario.source, account, before, history)
        (kept / _TRUTH).write_text(truth.as_json())
        return account

    def _expect(self, scenario: Scenario, run: Run) -> None:
        log = self._slot.prepared / "run.log"
        code = self._run_to_the_end(scenario, log, run.arguments)
        if code != run.exit_code:
            raise RuntimeError(
                f"chaos: {scenario.name}: a run that nobody killed ended with {code}, expected"
                f" {run.exit_code}: {log.read_text()}"
            )

    def _kill(self, scenario: Scenario, case: Case, log: Path) -> tuple[int, bool]:
        """The victim's exit code, and whether its instant came before its end."""
        if case.is_cold:
            return self._kill_cold(scenario, case, log), True
        pid = self._fork_loader(scenario, log, (scenario.victim,), case)
        if case.delay is None:
            return wait_or_kill(pid), True
        code = wait(pid, case.delay)
        if code is not None:
            return code, False
        os.kill(pid, case.signal)
        return wait_or_kill(pid), True

    def _kill_cold(self, scenario: Scenario, case: Case, log: Path) -> int:
        """Start `loaders/run.py` as a user does, and kill it while it fetches."""
        account = self._accounts[scenario.name]
        account.settings(latency=_COLD_LATENCY_SECONDS)
        account.reset_stats()
        with log.open("w") as output:
            victim = subprocess.Popen(
                [sys.executable, str(PROJECT_DIR / "loaders" / "run.py"), *scenario.victim],
                env=self._slot.environment(scenario, account.base_url),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=begin_as_a_user_does,
            )
            try:
                while victim.poll() is None and _answered(account) < case.requests:
                    time.sleep(0.005)
                victim.send_signal(case.signal)
                return victim.wait(timeout=_COLD_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                return HUNG
            finally:
                victim.kill()
                victim.wait()
                account.settings(latency=0)

    def _run_to_the_end(self, scenario: Scenario, log: Path, *commands: Arguments) -> int:
        return wait_or_kill(self._fork_loader(scenario, log, commands))

    def _fork_loader(
        self,
        scenario: Scenario,
        log: Path,
        commands: Sequence[Arguments],
        case: Case | None = None,
    ) -> int:
        """One process for the commands, up to the first that fails."""
        account = self._accounts[scenario.name]
        environment = self._slot.environment(scenario, account.base_url)

        def run() -> int:
            os.environ.clear()
            os.environ.update(environment)
            if case and case.point:
                crashpoints.install(_at(case.point, case.nth, self._end_of(scenario, case)))
            from loaders.cli.main import main

            codes = (main(arguments) for arguments in commands)
            return next((code for code in codes if code != 0), 0)

        return fork(run, log)

    def _end_of(self, scenario: Scenario, case: Case) -> Callable[[], None]:
        """What happens to the victim: a signal, or a disaster that it does not notice."""
        disaster = case.disaster
        if disaster is None or not disaster.is_during_the_run:
            return lambda: os.kill(os.getpid(), case.signal)

        def suffer() -> None:
            wait_until_closed(self._slot.warehouse)
            self._slot.suffer(scenario.name, disaster)

        return suffer

    def _examine(self, case: Case, directory: Path, exit_codes: Sequence[int]) -> list[str]:
        """Read the copies in a fork: DuckDB's threads would not survive the next one."""
        answer = directory / "violations.json"

        def examine() -> int:
            answer.write_text(json.dumps(violations(read_evidence(directory, case, exit_codes))))
            return 0

        log = directory / "examined.log"
        if wait_or_kill(fork(examine, log)) != 0:
            return [f"examine: {log.read_text().strip()}"]
        found: list[str] = json.loads(answer.read_text())
        return found


def read_evidence(directory: Path, case: Case, exit_codes: Sequence[int]) -> Evidence:
    """Read what a case left in its directory."""
    victim, clean, repeated = exit_codes
    killed_said, clean_said, repeated_said = (
        _last_line(directory / f"{stage}.log") for stage in _STAGES
    )
    # What a disaster took back is not what a kill has to leave.
    before = _PREPARED if case.disaster is None else "killed"
    prepared, killed, cleaned, once_more = (
        read_snapshot(directory / stage) for stage in (before, *_STAGES)
    )
    return Evidence(
        case.signal,
        (victim, clean, repeated),
        (killed_said, clean_said, repeated_said),
        read_truth((directory / _TRUTH).read_text()),
        prepared,
        killed,
        cleaned,
        once_more,
        has_befallen=case.disaster is not None,
    )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it printed nothing"


_worker: _Worker


def _run_case(case: Case) -> Outcome:
    return _worker.run_case(case)


def _measure(scenario: str) -> tuple[str, float]:
    return _worker.measure(scenario)


def _at(point: str, nth: int, happens: Callable[[], None]) -> Callable[[str], None]:
    """A hook that lets something happen when `point` is reached the `nth` time."""
    reached = itertools.count(1)

    def hook(name: str) -> None:
        if name == point and next(reached) == nth:
            happens()

    return hook


def _goes_on(case: Case) -> bool:
    return case.disaster is not None and case.disaster.is_during_the_run


def _answered(account: Sandbox) -> int:
    return sum(account.stats()["requests"].values())

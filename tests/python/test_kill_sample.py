"""Invariant 2: kill the process at any instant, run again, and nothing is lost or doubled.

`python -m tests.chaos` does the killing, in processes of its own: this one has threads, so
it must not fork.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loaders.config import PROJECT_DIR
from loaders.sandbox.layout import LABEL_NAMES
from tests.chaos.cases import EMULATOR_SAMPLE, SAMPLE, Case, parse_case
from tests.chaos.harness import MAILBOX, OUTCOME, read_evidence
from tests.chaos.invariants import Evidence, violations
from tests.chaos.snapshots import WAREHOUSE
from tests.peers.emulator import Emulator
from tests.peers.gate import Gate

from .conftest import DUCKDB, EMULATOR

# The kills take 175 s of CPU time, two at a time, and on the emulator as long again; pytest
# counts them to the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLANTED_IN = parse_case("merge.after")
"""The case whose evidence the planted faults go into: its victim has merged everything."""
SAMPLES = {DUCKDB: SAMPLE, EMULATOR: EMULATOR_SAMPLE}
KILLS = [
    pytest.param(target, case, id=f"{target}-{case.name}")
    for target, cases in SAMPLES.items()
    for case in cases
]


@pytest.fixture(scope="module")
def evidence_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Path]]:
    """What the selected cases left behind on a target; they run once, for all tests together."""
    kept: dict[str, Path] = {}

    def run_once(target: str) -> Path:
        if target not in kept:
            kept[target] = tmp_path_factory.mktemp(f"kills-{target}")
            run_cases(request, target, kept[target])
        return kept[target]

    yield run_once
    for directory in kept.values():
        shutil.rmtree(directory)


def run_cases(request: pytest.FixtureRequest, target: str, directory: Path) -> None:
    """Run the harness; GoogleSQL's analyzer must accept what it sends to the emulator."""
    options = [f"--directory={directory}"]
    if target == EMULATOR:
        emulator: Emulator = request.getfixturevalue("emulator")
        gate: Gate = request.getfixturevalue("gate")
        options.append(f"--emulator={emulator.url}")
    selected = selected_cases(request.session, target)
    harness = subprocess.run(
        [
            *(sys.executable, "-m", "tests.chaos", "--jobs=2", *options),
            *(f"--case={case.name}" for case in SAMPLES[target] if case in selected),
        ],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    print(harness.stdout, harness.stderr)
    assert (directory / MAILBOX).exists(), harness.stderr
    if target == EMULATOR:
        refused = gate.refused()
        assert not refused


def selected_cases(session: pytest.Session, target: str) -> set[object]:
    """The cases of the tests that are selected on a target."""
    return {PLANTED_IN} | {
        item.callspec.params["case"]
        for item in session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test_killed_run_is_made_good_by_the_next.__name__
        and item.callspec.params["target"] == target
    }


@pytest.mark.parametrize(("target", "case"), KILLS)
def test_killed_run_is_made_good_by_the_next(
    target: str, case: Case, evidence_of: Callable[[str], Path]
) -> None:
    outcome = read_outcome(evidence_of(target), case)

    assert outcome["violations"] == []


@pytest.mark.parametrize(
    ("stages", "statement", "expected"),
    [
        pytest.param(
            ("clean", "repeated"),
            "delete from events.raw_objects where external_id = $message",
            "stored: {message} is missing",
            id="lost object",
        ),
        pytest.param(
            ("clean", "repeated"),
            "insert into events.raw_objects from events.raw_objects where external_id = $message",
            "stored: {message} is there 2 times",
            id="doubled object",
        ),
        pytest.param(
            ("clean", "repeated"),
            "update events.raw_objects set payload = '{}' where external_id = $message",
            "stored: {message} differs from what the API serves",
            id="changed payload",
        ),
        pytest.param(
            ("clean", "repeated"),
            """
            insert into events_staging.landed_objects by name
            select
                columns('idem_key|source_system|connection_name|object_type|external_id'),
                payload_hash,
                last_seen as observed_at,
                false as is_deleted,
                changed_by as correlation_id,
                (select max(load_id) from events_staging._dlt_loads) as _dlt_load_id,
            from events.raw_objects where external_id = $message
            """,
            "drained: {message} of a complete load is still queued",
            id="undrained queue",
        ),
        pytest.param(
            ("clean", "repeated"),
            """
            update events.raw_objects set first_seen = first_seen + interval 1 second
            where external_id = $message
            """,
            "first_seen: {message} was seen before its first_seen",
            id="first_seen moved later",
        ),
        pytest.param(
            ("killed",),
            "delete from events.raw_objects where external_id = $message",
            "cursor: a cursor is visible without {message}",
            id="cursor without its data",
        ),
        pytest.param(
            ("repeated",),
            "update events.raw_objects set last_seen = now() where external_id = $message",
            "repeated: the next run changed raw_objects",
            id="row changed by one run more",
        ),
        pytest.param(
            ("clean", "repeated"),
            "delete from events.event_log where event_type = 'job.failed'",
            "lifecycles: {victim} has 0 ends of its own and 0 Orphaned",
            id="missing end",
        ),
        pytest.param(
            ("clean", "repeated"),
            """
            insert into events.event_log from events.event_log
            where correlation_id = $victim and event_type = 'job.started'
            """,
            "lifecycles: {victim} has 2 job.started",
            id="doubled start",
        ),
        pytest.param(
            ("clean", "repeated"),
            """
            update events.event_log set payload = json_merge_patch(payload, '{"gone": 1}')
            where correlation_id = $victim and event_type = 'ingestion.completed'
            """,
            "accounting: {victim} listed {listed} and accounts for {more}",
            id="miscounted objects",
        ),
    ],
)
def test_planted_fault_is_reported_and_nothing_else(
    stages: tuple[str, ...],
    statement: str,
    expected: str,
    evidence_of: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    evidence_dir = evidence_of(DUCKDB)
    evidence = read_case(evidence_dir, evidence_dir)
    listed = len(evidence.mailbox) + len(LABEL_NAMES)
    values = {"message": min(evidence.mailbox), "victim": evidence.killed.events[0].correlation_id}
    shutil.copytree(evidence_dir / PLANTED_IN.directory, tmp_path / PLANTED_IN.directory)

    for stage in stages:
        with duckdb.connect(str(tmp_path / PLANTED_IN.directory / stage / WAREHOUSE)) as connection:
            used = {name: value for name, value in values.items() if f"${name}" in statement}
            connection.execute(statement, used)

    assert violations(read_case(tmp_path, evidence_dir)) == [
        expected.format(**values, listed=listed, more=listed + 1)
    ]


def read_outcome(directory: Path, case: Case) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads((directory / case.directory / OUTCOME).read_text())
    return outcome


def read_case(directory: Path, evidence_dir: Path) -> Evidence:
    return read_evidence(
        directory / PLANTED_IN.directory,
        PLANTED_IN,
        read_outcome(directory, PLANTED_IN)["exit_codes"],
        json.loads((evidence_dir / MAILBOX).read_text()),
    )

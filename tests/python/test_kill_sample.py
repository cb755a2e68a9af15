"""Invariant 2: kill the process at any instant, run again, and nothing is lost or doubled.

And whatever befalls the warehouse or this machine then: what the source holds is stored again.

`python -m tests.chaos` does the killing, in processes of its own: this one has threads, so
it must not fork. `make chaos` kills far more.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loaders.settings.places import PROJECT_DIR
from tests.chaos.cases import DISASTERS, EMULATOR_SAMPLE, SAMPLE, Case, parse_case
from tests.chaos.harness import OUTCOME, read_evidence
from tests.chaos.invariants import Evidence, violations
from tests.chaos.snapshots import WAREHOUSE, Event, read_snapshot
from tests.peers.emulator import Emulator
from tests.peers.gate import Gate

from .conftest import DUCKDB, EMULATOR

# pytest counts all kills to the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

MERGED = parse_case("gmail-incremental/merge.after")
FOLLOWED = parse_case("stripe-incremental/end.before_event")
TERMINATED = parse_case("stripe-incremental/ingestion.after_event:SIGTERM")
PLANTED_IN = {MERGED, FOLLOWED, TERMINATED}
"""The cases whose evidence the planted faults go into: their victims have landed everything."""
SAMPLES = {DUCKDB: (*SAMPLE, *DISASTERS), EMULATOR: EMULATOR_SAMPLE}
KILLS = [
    pytest.param(target, case, id=f"{target}-{case.name}")
    for target, cases in SAMPLES.items()
    for case in cases
]
AFTER_THE_KILL = ("clean", "repeated")
ALWAYS = ("killed", *AFTER_THE_KILL)


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
            *(sys.executable, "-m", "tests.chaos", "--jobs=1", "--keep", "--without-marts"),
            *options,
            *(f"--case={case.name}" for case in SAMPLES[target] if case in selected),
        ],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    print(harness.stdout, harness.stderr)
    assert any(directory.glob(f"*/{OUTCOME}")), harness.stderr
    if target == EMULATOR:
        refused = gate.refused()
        assert not refused


def selected_cases(session: pytest.Session, target: str) -> set[object]:
    """The cases of the tests that are selected on a target."""
    return PLANTED_IN | {
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
    outcome = json.loads((evidence_of(target) / case.directory / OUTCOME).read_text())
    assert outcome["violations"] == []


@dataclasses.dataclass(frozen=True)
class Fault:
    """A statement that spoils copies of a warehouse, and the one violation that tells of it."""

    case: Case
    stages: tuple[str, ...]
    statement: str
    expected: str


FAULTS = {
    "lost object": Fault(
        MERGED,
        ALWAYS,
        "delete from events.raw_objects where external_id = $arrived",
        "stored: message {arrived} is missing",
    ),
    "doubled object": Fault(
        MERGED,
        AFTER_THE_KILL,
        "insert into events.raw_objects from events.raw_objects where external_id = $arrived",
        "stored: message {arrived} is there 2 times",
    ),
    "changed payload": Fault(
        MERGED,
        AFTER_THE_KILL,
        "update events.raw_objects set payload = '{}' where external_id = $arrived",
        "stored: message {arrived} differs from what the API serves",
    ),
    "deletion undone": Fault(
        MERGED,
        ALWAYS,
        "update events.raw_objects set deleted_at = null where external_id = $deleted",
        "stored: message {deleted} is not there any more and not marked as deleted",
    ),
    "object taken for deleted": Fault(
        MERGED,
        ALWAYS,
        "update events.raw_objects set deleted_at = last_seen where external_id = $arrived",
        "stored: message {arrived} is marked as deleted",
    ),
    "tombstone without its row": Fault(
        MERGED,
        ALWAYS,
        "delete from events.raw_objects where external_id = $deleted",
        "tombstones: the row of message {deleted} is gone",
    ),
    "undrained queue": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        insert into events_staging.landed_objects by name
        select
            columns('idem_key|source_system|connection_name|object_type|external_id'),
            payload_hash,
            last_seen as observed_at,
            false as is_deleted,
            changed_by as correlation_id,
            (select max(load_id) from events_staging._dlt_loads) as _dlt_load_id,
        from events.raw_objects where external_id = $arrived
        """,
        "drained: message {arrived} of a complete load is still queued",
    ),
    "dead letter left": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        insert into events_staging.dead_letters by name
        select
            'x' as dead_letter_id, source_system, connection_name, object_type, 'lost' as
            external_id, 'broken' as reason, 1 as attempts, changed_by as correlation_id,
            last_seen as created_at,
            (select max(load_id) from events_staging._dlt_loads) as _dlt_load_id,
        from events.raw_objects where external_id = $arrived
        """,
        "letters: message lost is still a dead letter",
    ),
    "first_seen moved later": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        update events.raw_objects set first_seen = first_seen + interval 1 second
        where external_id = $arrived
        """,
        "first_seen: message {arrived} was seen before its first_seen",
    ),
    "history id without an arrival": Fault(
        MERGED,
        ("killed",),
        "delete from events.raw_objects where external_id = $arrived",
        "cursor: the cursor of messages is visible without message {arrived} as it is now",
    ),
    "history id without a label change": Fault(
        MERGED,
        ("killed",),
        "update events.raw_objects set payload_hash = 'old' where external_id = $relabelled",
        "cursor: the cursor of messages is visible without message {relabelled} as it is now",
    ),
    "history id without a deletion": Fault(
        MERGED,
        ("killed",),
        "update events.raw_objects set deleted_at = null where external_id = $deleted",
        "cursor: the cursor of messages is visible without message {deleted} as it is now",
    ),
    "time of a kind without an event": Fault(
        FOLLOWED,
        ("killed",),
        "update events.raw_objects set payload_hash = 'old' where external_id = $customer",
        "cursor: the cursor of customer is visible without customer {customer} as it is now",
    ),
    "row changed by one run more": Fault(
        MERGED,
        ("repeated",),
        "update events.raw_objects set last_seen = now() where external_id = $arrived",
        "repeated: the next run changed raw_objects",
    ),
    "missing end": Fault(
        MERGED,
        AFTER_THE_KILL,
        "delete from events.event_log where event_type = 'job.failed'",
        "lifecycles: {victim} has 0 ends of its own and 0 Orphaned",
    ),
    "doubled start": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        insert into events.event_log from events.event_log
        where correlation_id = $victim and event_type = 'job.started'
        """,
        "lifecycles: {victim} has 2 job.started",
    ),
    "event after the end": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        update events.event_log set created_at = created_at + interval 1 day
        where correlation_id = $first and event_type = 'ingestion.completed'
        """,
        "lifecycles: {first} has ingestion.completed after its end",
    ),
    "end that names no signal": Fault(
        TERMINATED,
        AFTER_THE_KILL,
        """
        update events.event_log set payload = json_merge_patch(payload, '{"error_type": "Other"}')
        where correlation_id = $victim and event_type = 'job.failed'
        """,
        "interrupted: {victim} has no job.failed with error_type Interrupted",
    ),
    "miscounted objects": Fault(
        MERGED,
        AFTER_THE_KILL,
        """
        update events.event_log set payload = json_merge_patch(payload, '{"gone": 1000}')
        where correlation_id = $victim and event_type = 'ingestion.completed'
        """,
        "accounting: {victim} listed {listed} and accounts for {too_many}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_planted_fault_is_reported_and_nothing_else(
    fault: Fault, evidence_of: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = evidence_of(DUCKDB) / fault.case.directory
    evidence = read_case(directory, fault.case)
    values = values_of(evidence)

    spoiled = plant(evidence, directory, tmp_path, fault.stages, fault.statement, values)

    assert violations(spoiled) == [fault.expected.format(**values)]


def test_a_failed_clean_run_says_why(evidence_of: Callable[[str], Path], tmp_path: Path) -> None:
    directory = evidence_of(DUCKDB) / MERGED.directory
    evidence = dataclasses.replace(read_case(directory, MERGED), exit_codes=(-9, 1, 0))
    statement = """
        update events.event_log set event_type = 'job.failed', error_message = 'what broke'
        where correlation_id = $clean and event_type = 'job.completed'
    """

    logged = plant(evidence, directory, tmp_path, AFTER_THE_KILL, statement, values_of(evidence))
    unlogged = dataclasses.replace(evidence, last_words=("", "error: no such file", ""))

    assert violations(logged) == [
        "exit_codes: the clean run ended with 1: what broke",
        "accepted: the clean run has ['job.failed']",
    ]
    assert violations(unlogged) == ["exit_codes: the clean run ended with 1: error: no such file"]


def plant(
    evidence: Evidence,
    directory: Path,
    copies: Path,
    stages: tuple[str, ...],
    statement: str,
    values: dict[str, Any],
) -> Evidence:
    """The evidence with what a statement leaves of some stages' warehouses."""
    used = {name: value for name, value in values.items() if f"${name}" in statement}
    spoiled: dict[str, Any] = {}
    for stage in stages:
        shutil.copytree(directory / stage, copies / stage)
        with duckdb.connect(str(copies / stage / WAREHOUSE)) as connection:
            connection.execute(statement, used)
        spoiled[stage] = read_snapshot(copies / stage)
    return dataclasses.replace(evidence, **spoiled)


def values_of(evidence: Evidence) -> dict[str, Any]:
    """What statements and violations speak of."""
    truth = evidence.truth
    before = {row["external_id"] for row in evidence.prepared.objects}
    runs = list(dict.fromkeys(event.correlation_id for event in evidence.clean.events))
    values: dict[str, Any] = {"first": runs[0], "victim": runs[-2], "clean": runs[-1]}
    if truth.source == "gmail":
        messages = truth.live["message"]
        values["arrived"] = min(messages.keys() - before)
        values["relabelled"] = min(messages.keys() & truth.history.keys() & before)
        values["deleted"] = min(truth.gone["message"])
        listed = landed_by(evidence.clean.events, values["victim"])
        values["listed"], values["too_many"] = listed, listed + 1000
    else:
        updated = {event.external_id for event in truth.events}
        values["customer"] = min(truth.live["customer"].keys() & updated & before)
    return values


def landed_by(events: list[Event], correlation_id: str) -> int:
    """How many objects a run listed, none of them gone."""
    [payload] = [
        event.payload
        for event in events
        if event.correlation_id == correlation_id and event.event_type == "ingestion.completed"
    ]
    assert payload["gone"] == 0
    return int(payload["records_extracted"])


@functools.cache
def read_case(directory: Path, case: Case) -> Evidence:
    exit_codes = json.loads((directory / OUTCOME).read_text())["exit_codes"]
    return read_evidence(directory, case, exit_codes)

"""Whatever happens to a mailbox and its runs: after a clean run the rows are the mailbox."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox, SandboxError
from loaders.ingestion.ingest import IngestOptions
from loaders.jobs import crashpoints
from loaders.warehouse.base import Warehouse

from .conftest import Project, assert_accounted, event_types, run_gmail
from .gmail_sync.conftest import assert_mirrors

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open"),
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]

EXAMPLES = int(os.environ.get("LANDFALL_PROPERTY_EXAMPLES", "4"))
SIZE = 24
POINTS = (
    "extract.first_object",
    "land.normalized",
    "land.loaded",
    "merge.before",
    "merge.after",
    "end.before_event",
)

labels = st.sampled_from(["STARRED", "UNREAD", "Label_1", "Label_2", "TRASH", "SPAM"])
changes = st.one_of(
    st.builds(lambda n: {"deliver": n}, st.integers(1, 5)),
    st.builds(lambda n: {"delete": n}, st.integers(1, 4)),
    st.builds(lambda n: {"restore": n}, st.integers(1, 3)),
    st.builds(
        lambda n, add, remove: {"labels": {"ids": n, "add": add, "remove": remove}},
        st.integers(1, 6),
        st.lists(labels, max_size=2, unique=True),
        st.lists(labels, max_size=2, unique=True),
    ),
)
faults = st.lists(
    st.builds(
        lambda method, times, skip, action: {
            "match": {"method": method},
            "times": times,
            "skip": skip,
            "action": action,
        },
        st.sampled_from(["messages.get", "messages.list", "history.list", "threads.get", "*"]),
        st.integers(1, 9),
        st.integers(0, 12),
        st.sampled_from(
            [
                {"status": 429},
                {"status": 500},
                {"status": 403, "reason": "userRateLimitExceeded"},
                {"truncate": True},
                {"drop": True},
            ]
        ),
    ),
    max_size=2,
)


@dataclasses.dataclass(frozen=True)
class OneRun:
    """A run: what goes wrong in it, where it dies, how it is bounded."""

    faults: list[dict[str, Any]]
    dies_at: tuple[str, int] | None
    max_objects: int | None
    full_resync: bool
    units: int
    by_thread: bool


runs = st.builds(
    OneRun,
    faults,
    st.none() | st.tuples(st.sampled_from(POINTS), st.integers(1, 15)),
    st.none() | st.integers(1, 12),
    st.booleans(),
    st.sampled_from([0, 40, 2_000]),
    st.booleans(),
)
expiry = st.just("expire")
steps = st.lists(st.one_of(changes, changes, runs, expiry), min_size=3, max_size=9)


class Died(BaseException):
    """The process is gone at this point."""


@pytest.fixture
def fresh(project: Project, warehouse: Warehouse) -> Callable[[], Warehouse]:
    """An empty warehouse for each example."""
    project.store.save("property")

    def again() -> Warehouse:
        import shutil

        project.store.restore("property")
        shutil.rmtree(project.state_dir, ignore_errors=True)
        return project.open_warehouse()

    return again


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LANDFALL_PROPERTY_EXAMPLES" not in os.environ,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(steps=steps)
def test_live_rows_are_the_mailbox_after_a_clean_run(
    fresh: Callable[[], Warehouse], steps: list[Any]
) -> None:
    warehouse = fresh()
    with Sandbox(size=SIZE, seed=3) as mailbox:
        for step in steps:
            match step:
                case OneRun():
                    do_run(warehouse, mailbox, step)
                case "expire":
                    mailbox.settings(history_expired_before=mailbox.change()["history_id"])
                case _:
                    change(mailbox, step)
        mailbox.set_faults([])
        for _ in range(20):
            run = run_gmail(warehouse, mailbox, label_changes="refetch")
            assert run.error is None, run.error
            assert_accounted(run.telemetry)
            if not run.telemetry["has_more"]:
                break
        assert_mirrors(warehouse, mailbox)
        again = run_gmail(warehouse, mailbox)
        assert again.counts == {}
        assert event_types(warehouse, again.correlation_id) == [
            "job.started",
            "ingestion.completed",
            "job.completed",
        ]


def change(mailbox: Sandbox, asked: dict[str, Any]) -> None:
    try:
        mailbox.change(**asked)
    except SandboxError as error:
        note(f"refused: {error}")


def do_run(warehouse: Warehouse, mailbox: Sandbox, run: OneRun) -> None:
    mailbox.set_faults(run.faults)
    left = run.dies_at[1] if run.dies_at else 0

    def reached(name: str) -> None:
        nonlocal left
        if run.dies_at and name == run.dies_at[0]:
            left -= 1
            if left == 0:
                raise Died

    options = IngestOptions(batch_size=5, max_objects=run.max_objects, full_resync=run.full_resync)
    costs = {} if run.by_thread else {"threads.get": 10_000}
    crashpoints.install(reached)
    try:
        done = run_gmail(
            warehouse, mailbox, options, label_change_units=run.units, unit_costs=costs
        )
        note(f"{done.error!r} {json.dumps(done.ingestion.summary and done.telemetry)}")
    except Died:
        note("died")
    finally:
        crashpoints.install(None)

"""Whatever happens to an account and its runs: after clean runs the rows are the account."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox, SandboxError
from loaders.errors import SourceError
from loaders.ingestion.ingest import IngestOptions
from loaders.jobs import crashpoints
from loaders.sources.stripe import events as events_module
from loaders.sources.stripe import sync as sync_module
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.transform.invocation import release_file
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    STRIPE_KEY,
    Project,
    Run,
    assert_accounted,
    event_types,
    events,
    run_stripe,
)
from .stripe_sync.conftest import live, there

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open"),
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]

EXAMPLES = int(os.environ.get("LANDFALL_PROPERTY_EXAMPLES", "3"))
CHARGES = 20
DAY = 86_400
POINTS = (
    "extract.first_object",
    "land.extracted",
    "land.normalized",
    "land.loaded",
    "ingestion.after_event",
    "merge.before",
    "merge.after",
    "end.before_event",
)
CREATED = (
    "charge", "customer", "invoice", "payment_intent", "price", "product", "subscription",
)  # fmt: skip
UPDATED = (*CREATED, "refund", "dispute", "payout")
DELETED = ("customer", "product", "price", "invoice", "subscription")
METHODS = (
    "*", "account.get", "events.list", "invoices.lines", "balance_transactions.list",
    "balance_transactions.get", "charges.list", "charges.get", "customers.list", "customers.get",
    "invoices.list", "invoices.get", "prices.list",
)  # fmt: skip


def some_of(kinds: tuple[str, ...], most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(kinds), st.integers(1, most), min_size=1, max_size=3)


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines come to an invoice, or leave it."""

    invoice: int
    added: int
    removed: int


@dataclasses.dataclass(frozen=True)
class Time:
    """Stripe's clock goes on; what is due by then becomes available, without an event."""

    days: float
    settles: bool


plain_changes = st.one_of(
    st.builds(lambda counts: {"create": counts}, some_of(CREATED, 6)),
    st.builds(lambda counts: {"update": counts}, some_of(UPDATED, 6)),
    st.builds(lambda counts: {"delete": counts}, some_of(DELETED, 4)),
    st.builds(
        lambda name, count: {name: count},
        st.sampled_from(["refund", "dispute", "payout", "finalize", "pay"]),
        st.integers(1, 3),
    ),
)
changes = plain_changes | st.builds(
    Lines, st.integers(0, 50), st.integers(0, 12), st.integers(0, 2)
)
times = st.builds(Time, st.sampled_from([0.001, 4.0, 35.0]), st.booleans())
faults = st.lists(
    st.builds(
        lambda method, times, skip, every, action: {
            "match": {"method": method},
            "times": times,
            "skip": skip,
            "every": every,
            "action": action,
        },
        st.sampled_from(METHODS),
        st.none() | st.integers(1, 9),
        st.integers(0, 12),
        st.integers(1, 3),
        st.sampled_from(
            [
                {"status": 429, "retry_after": 0},
                {"status": 429, "reason": "lock_timeout"},
                {"status": 500},
                {"status": 400},
                {"status": 401},
                {"status": 403},
                {"status": 409},
                {"truncate": True},
                {"drop": True},
                {"body": "<html>"},
            ]
        ),
    ),
    max_size=2,
)
meanwhile = st.lists(
    st.builds(
        lambda method, count, change: {
            "after": {"method": method, "count": count},
            "stripe_changes": change,
        },
        st.sampled_from(METHODS),
        st.integers(1, 4),
        plain_changes,
    ),
    max_size=2,
)
subsets = st.lists(st.sampled_from(OBJECT_TYPES), min_size=1, max_size=4, unique=True)


@dataclasses.dataclass(frozen=True)
class OneRun:
    """A run: what goes wrong in it, where it dies, how it is bounded, what it may read."""

    faults: list[dict[str, Any]]
    meanwhile: list[dict[str, Any]]
    dies_at: tuple[str, int] | None
    max_objects: int | None
    is_out_of_time: bool
    full_resync: bool
    retry: bool
    batch_size: int
    workers: int
    objects: tuple[str, ...]
    forbidden: tuple[str, ...]
    late_events: int


CLEAN = OneRun([], [], None, None, False, False, False, 60, 4, tuple(OBJECT_TYPES), (), 0)


def rarely(value: st.SearchStrategy[Any], otherwise: Any, times: int = 3) -> st.SearchStrategy[Any]:
    """The value once, and otherwise so many times."""
    return st.sampled_from([value, *[st.just(otherwise)] * times]).flatmap(lambda chosen: chosen)


runs = st.builds(
    OneRun,
    faults=rarely(faults, [], 2),
    meanwhile=rarely(meanwhile, [], 2),
    dies_at=rarely(st.tuples(st.sampled_from(POINTS), st.integers(1, 6)), None),
    max_objects=rarely(st.integers(1, 60), None, 1),
    is_out_of_time=rarely(st.just(True), False, 9),
    full_resync=rarely(st.just(True), False, 9),
    retry=rarely(st.just(True), False, 9),
    batch_size=st.integers(1, 60),
    workers=st.integers(1, 4),
    objects=rarely(subsets.map(tuple), tuple(OBJECT_TYPES)),
    forbidden=rarely(
        st.lists(st.sampled_from([*KINDS, "event", "account"]), max_size=2).map(tuple), (), 5
    ),
    late_events=rarely(st.sampled_from([60, 250]), 0),
)
# Most accounts are stored whole before anything goes wrong: a first run mends too much.
steps = st.builds(
    lambda first, others: first + others,
    rarely(st.just([]), [CLEAN]),
    st.lists(st.one_of(changes, changes, changes, times, runs, runs), min_size=4, max_size=12),
)


class Died(BaseException):
    """The process is gone at this point."""


@pytest.fixture
def fresh(project: Project, warehouse: Warehouse) -> Callable[[], Warehouse]:
    """An empty warehouse for each example."""
    project.store.save("property")

    def again() -> Warehouse:
        # A killed run may have left the file open, and a process opens a file once.
        release_file()
        gc.collect()
        project.store.empty()
        project.store.restore("property")
        shutil.rmtree(project.state_dir, ignore_errors=True)
        return project.open_warehouse()

    return again


@dataclasses.dataclass
class World:
    """An account, the warehouse that follows it, and the time that has passed."""

    warehouse: Warehouse
    account: Sandbox
    seconds: float = 0.0

    def do(self, step: Any) -> None:
        match step:
            case OneRun():
                self._run(step)
            case Time(days, settles):
                self.seconds += days * DAY
                self.account.settings(stripe_clock_offset=self.seconds)
                if settles and days > 3:
                    self._change(settle=10_000)
            case Lines(number, added, removed):
                invoices = sorted(self.account.stripe_objects("invoice"))
                if invoices:
                    invoice = invoices[number % len(invoices)]
                    self._change(add_lines={invoice: added}, remove_lines={invoice: removed})
            case _:
                self._change(**step)

    def _change(self, **asked: Any) -> None:
        try:
            self.account.change_stripe(**asked)
        except SandboxError as error:
            note(f"refused: {error}")

    def _run(self, run: OneRun) -> None:
        allowed = [name for name in (*KINDS, "event", "account") if name not in run.forbidden]
        self.account.settings(
            stripe_permissions={STRIPE_KEY: allowed}, stripe_late_events=run.late_events
        )
        self.account.set_faults(run.faults)
        self.account.schedule(run.meanwhile)
        left = run.dies_at[1] if run.dies_at else 0

        def reached(name: str) -> None:
            nonlocal left
            if run.dies_at and name == run.dies_at[0]:
                left -= 1
                if left == 0:
                    raise Died

        options = IngestOptions(
            batch_size=run.batch_size,
            max_objects=run.max_objects,
            max_duration=0.0 if run.is_out_of_time else 3_000.0,
            full_resync=run.full_resync,
            retry=run.retry,
        )
        crashpoints.install(reached)
        try:
            done = run_stripe(
                self.warehouse,
                self.account,
                options,
                objects=run.objects,
                workers=run.workers,
                max_attempts=2,
            )
            note(f"{done.error!r} {json.dumps(done.ingestion.summary and done.telemetry)}")
            if done.ingestion.summary:
                assert_accounted(done.telemetry)
        except Died:
            note("died")
        finally:
            crashpoints.install(None)
            self.account.schedule([])

    def finish(self) -> None:
        """Nothing goes wrong any more: run until nothing is left, dead letters included."""
        self.account.set_faults([])
        self.account.settings(stripe_permissions={}, stripe_late_events=0)
        self._run_until_done()
        if Stored(self.warehouse, "stripe", "acct1").dead_letters():
            self._completed(retry=True)
            assert not Stored(self.warehouse, "stripe", "acct1").dead_letters()
            self._run_until_done()

    def _run_until_done(self) -> None:
        for _ in range(40):
            if not self._completed().telemetry["has_more"]:
                return
        pytest.fail("the runs come to no end")

    def _completed(self, **options: Any) -> Run:
        run = run_stripe(self.warehouse, self.account, IngestOptions(**options))
        assert run.error is None, run.error
        assert_accounted(run.telemetry)
        return run

    def assert_mirrored(self) -> None:
        for object_type in OBJECT_TYPES:
            stored, expected = live(self.warehouse, object_type), there(self.account, object_type)
            assert stored == expected, object_type
        for kind in KINDS:
            assert not set(self.account.stripe_deleted(kind)) & set(live(self.warehouse, kind))

    def assert_logged(self) -> None:
        """At most three events a run, one of them its start, one its end."""
        by_run = collections.defaultdict(list)
        for event in events(self.warehouse):
            by_run[event["correlation_id"]].append(event["event_type"])
        for types in by_run.values():
            assert types[0] == "job.started"
            assert types[-1] in ("job.completed", "job.failed")
            assert len(types) <= 3, types


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LANDFALL_PROPERTY_EXAMPLES" not in os.environ,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(steps=steps)
def test_live_rows_are_the_account_after_clean_runs(
    fresh: Callable[[], Warehouse], steps: list[Any]
) -> None:
    with Sandbox(size=1, charges=CHARGES, seed=3) as account:
        account.change_stripe(payout=1, dispute=1, refund=1)
        world = World(fresh(), account)
        for step in steps:
            world.do(step)
        world.finish()
        world.assert_mirrored()
        again = run_stripe(world.warehouse, account)
        assert again.error is None
        assert not {"inserted", "updated", "deleted"} & again.counts.keys()
        assert event_types(world.warehouse, again.correlation_id) == [
            "job.started",
            "ingestion.completed",
            "job.completed",
        ]
        world.assert_logged()


# ---- what was got wrong once


@pytest.fixture
def account() -> Iterator[Sandbox]:
    with Sandbox(size=1, charges=CHARGES, seed=7) as sandbox:
        yield sandbox


OTHER = {"stripe_account": "acct_sandbox_connected"}


def test_a_retry_with_the_key_of_another_account_is_refused(
    warehouse: Warehouse, account: Sandbox
) -> None:
    World(warehouse, account).finish()
    [customer] = account.change_stripe(update={"customer": 1})["affected"]["update"]
    match = {"method": "customers.get", "id": customer}
    account.set_faults([{"match": match, "times": None, "action": {"status": 500}}])
    for _ in range(2):
        assert run_stripe(warehouse, account).error is not None
    account.set_faults([])
    run = run_stripe(warehouse, account, IngestOptions(retry=True), **OTHER)
    assert isinstance(run.error, SourceError)
    assert "another account" in str(run.error)
    assert customer in live(warehouse, "customer")
    assert Stored(warehouse, "stripe", "acct1").dead_letters()


def test_dates_with_the_key_of_another_account_are_refused(
    warehouse: Warehouse, account: Sandbox
) -> None:
    world = World(warehouse, account)
    world.finish()
    since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    run = run_stripe(warehouse, account, IngestOptions(since=since), **OTHER)
    assert isinstance(run.error, SourceError)
    assert "another account" in str(run.error)
    world.assert_mirrored()


@pytest.mark.parametrize("at_once", [100, 130])
def test_more_events_than_are_read_at_once_are_read_in_parts(
    warehouse: Warehouse, account: Sandbox, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(events_module, "_EVENTS_AT_ONCE", at_once)
    world = World(warehouse, account)
    world.do({"update": {"customer": 1}})  # without an event the feed is known up to yesterday
    world.finish()
    for _ in range(6):
        world.do(Time(0.006, settles=False))
        world.do({"update": {"customer": 40, "charge": 20, "product": 5}})
        world.do({"create": {"customer": 10}})
    account.reset_stats()
    world.finish()
    assert account.stats()["requests"]["events.list"] < 20
    world.assert_mirrored()
    account.reset_stats()
    world.finish()
    assert account.stats()["requests"]["events.list"] == 1


def test_a_dispute_shows_that_its_transactions_are_available(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.change_stripe(dispute=2)
    world = World(warehouse, account)
    world.finish()
    world.do(Time(10.0, settles=True))
    world.finish()
    assert live(warehouse, "dispute") == there(account, "dispute")


def test_a_resync_that_is_interrupted_for_long_misses_nothing(
    warehouse: Warehouse, account: Sandbox
) -> None:
    """What was listed before the gap may have changed in it; those events are gone."""
    world = World(warehouse, account)
    world.finish()
    ids = sorted(account.stripe_objects("charge").values(), key=lambda value: -value["created"])
    options = IngestOptions(full_resync=True, max_objects=10)
    assert run_stripe(warehouse, account, options, workers=1).telemetry["has_more"]
    account.change_stripe(update={"charge": [value["id"] for value in ids[:3]]})
    world.do(Time(35.0, settles=False))
    world.finish()
    world.assert_mirrored()


def test_a_bounded_run_gets_on_through_any_number_of_events_at_once(
    warehouse: Warehouse, account: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_MAX_SEEN", 4)
    World(warehouse, account).finish()
    account.change_stripe(update={"charge": 16})
    for _ in range(12):
        run = run_stripe(warehouse, account, IngestOptions(max_objects=4), objects=("charge",))
        if not run.telemetry["has_more"]:
            return
    pytest.fail("the runs come to no end")


@pytest.mark.parametrize(
    "line",
    [{}, {"id": 7}, None],
    ids=["no id", "a number", "nothing"],
)
def test_a_line_that_is_none_is_set_aside_and_the_run_goes_on(
    warehouse: Warehouse, account: Sandbox, line: Any
) -> None:
    world = World(warehouse, account)
    world.finish()
    changed = account.change_stripe(update={"invoice": 1, "customer": 2})["affected"]["update"]
    lines = {"object": "list", "data": [line], "has_more": False}
    fault = {"match": {"method": "invoices.get"}, "times": None}
    account.set_faults([fault | {"action": {"mutate": {"set": {"lines": lines}}}}])
    for _ in range(2):
        done = run_stripe(warehouse, account)
        assert done.ingestion.summary is not None
        assert_accounted(done.telemetry)
    assert live(warehouse, "customer") == there(account, "customer")
    world.finish()
    account.change_stripe(update={"invoice": changed[:1]})
    world.finish()
    world.assert_mirrored()


@pytest.mark.timeout(60)
def test_lines_that_do_not_advance_are_noticed(warehouse: Warehouse, account: Sandbox) -> None:
    World(warehouse, account).finish()
    account.change_stripe(update={"invoice": 1})
    invoice = next(iter(account.stripe_objects("invoice").values()))
    lines = {"object": "list", "data": invoice["lines"]["data"][:1], "has_more": True}
    account.set_faults(
        [
            {
                "match": {"method": "invoices.get"},
                "times": None,
                "action": {"mutate": {"set": {"lines": lines}}},
            },
            # So that the test ends, whatever the loader does.
            {"match": {"method": "invoices.lines"}, "times": 200, "action": {"json": lines}},
        ]
    )
    account.reset_stats()
    assert run_stripe(warehouse, account).error is not None
    assert account.stats()["requests"]["invoices.lines"] < 10


def test_an_object_that_is_no_text_is_a_dead_letter_and_the_others_are_stored(
    warehouse: Warehouse, account: Sandbox
) -> None:
    page = {
        "object": "list",
        "data": [{"id": "prod_1", "name": "SPLIT"}, {"id": "prod_2"}],
        "has_more": False,
    }
    body = json.dumps(page).replace("SPLIT", "a\\ud800b")
    action = {"body": body, "content_type": "application/json"}
    account.set_faults([{"match": {"method": "products.list"}, "times": None, "action": action}])
    done = run_stripe(warehouse, account, objects=("product",))
    assert done.telemetry["new_dead_letters"] == 1
    assert set(live(warehouse, "product")) == {"prod_2"}

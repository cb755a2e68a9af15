"""Verifying an account of which Stripe does not hand out everything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import LandfallError, TransientSourceError
from loaders.ingestion.ingest import FetchIncomplete
from loaders.upkeep.verifying import Report, Verification, VerificationFailed
from loaders.warehouse.base import Warehouse

from .conftest import Project, events, prepared, run_stripe, stripe_source
from .test_verifying import differences

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("core_build", "stays_open")]

OBJECTS = ("customer", "invoice", "invoice_line")
REFUSED = {"status": 400, "message": "No."}
DOWN = {"status": 500}
NOTHING = {"object": "list", "data": [], "has_more": False}


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a sandbox: every test begins with a copy."""
    state = tmp_path_factory.mktemp("sandbox") / "state.sqlite"
    with Sandbox(state=state, size=1, charges=60, seed=5):
        pass
    return state


@pytest.fixture
def account(at_rest: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(state=shutil.copy(at_rest, tmp_path)) as sandbox:
        yield sandbox


@pytest.fixture
def stored(core_build: None, project: Project, account: Sandbox) -> Warehouse:
    """A warehouse that holds what `account` has."""

    def read(warehouse: Warehouse) -> None:
        assert run_stripe(warehouse, account, objects=OBJECTS).error is None

    return prepared(project, "before_stripe_verification", read)


def verify(
    warehouse: Warehouse, account: Sandbox, *faults: dict[str, Any]
) -> tuple[Report | None, LandfallError | None]:
    account.set_faults([{"times": None, **fault} for fault in faults])
    verification = Verification(
        warehouse,
        lambda: stripe_source(account, objects=OBJECTS, max_attempts=2),
        source_system="stripe",
        connection_name="acct1",
    )
    try:
        verification.run()
    except LandfallError as error:
        return verification.report, error
    return verification.report, None


def long_invoices(warehouse: Warehouse) -> list[str]:
    """Those whose lines do not all come with them."""
    rows = warehouse.execute(
        "select split_part(external_id, ':', 1) as invoice from events.raw_objects"
        " where object_type = 'invoice_line' group by 1 having count(*) > 10 order by 1"
    )
    return [invoice for (invoice,) in rows]


def lines_of(invoice_id: str, action: dict[str, Any]) -> dict[str, Any]:
    return {"match": {"method": "invoices.lines", "id": invoice_id}, "action": action}


@pytest.mark.parametrize("action", [REFUSED, DOWN], ids=["refused", "failing"])
def test_an_invoice_whose_lines_keep_failing_is_told_and_all_else_is_compared(
    stored: Warehouse, account: Sandbox, action: dict[str, Any]
) -> None:
    bad = long_invoices(stored)[0]
    lost = "(select min(external_id) from events.raw_objects where object_type = 'customer')"
    stored.execute(f"delete from events.raw_objects where external_id = {lost}")
    report, error = verify(stored, account, lines_of(bad, action))
    assert isinstance(error, VerificationFailed)
    assert differences(report) == {"missing": 1}
    assert report is not None
    assert report.notes == [f"invoice: 1 object(s) could not be read, though Stripe answers: {bad}"]
    listed = {outcome.object_type: (outcome.listed, outcome.held) for outcome in report.types}
    assert listed["invoice"][0] == listed["invoice"][1]
    assert listed["invoice_line"][0] == listed["invoice_line"][1]


def test_an_invoice_that_is_not_held_and_cannot_be_read_is_missing(
    stored: Warehouse, account: Sandbox
) -> None:
    bad = long_invoices(stored)[0]
    stored.execute(
        "delete from events.raw_objects where split_part(external_id, ':', 1) = ?", (bad,)
    )
    report, error = verify(stored, account, lines_of(bad, REFUSED))
    assert isinstance(error, VerificationFailed)
    assert report is not None
    assert report.ids == {"missing": [("invoice", bad)]}


def test_what_the_last_run_failed_on_too_is_not_read_yet(
    stored: Warehouse, account: Sandbox
) -> None:
    bad = long_invoices(stored)[0]
    account.change_stripe(update={"invoice": [bad]})
    account.set_faults([{**lines_of(bad, DOWN), "times": None}])
    run = run_stripe(stored, account, objects=OBJECTS, max_attempts=2)
    assert isinstance(run.error, FetchIncomplete)
    report, error = verify(stored, account, lines_of(bad, DOWN))
    assert error is None
    assert report is not None
    assert report.ids == {"not_read_yet": [("invoice", bad)]}
    assert report.notes == []


def test_an_object_that_no_list_has_and_that_cannot_be_read_is_told(
    stored: Warehouse, account: Sandbox
) -> None:
    [(chosen,)] = stored.execute(
        "select min(external_id) from events.raw_objects where object_type = 'customer'"
    )
    report, error = verify(
        stored,
        account,
        {"match": {"method": "customers.list"}, "action": {"json": NOTHING}},
        {"match": {"method": "customers.get", "id": chosen}, "action": REFUSED},
    )
    assert error is None
    assert differences(report) == {}
    assert report is not None
    assert report.notes == [
        f"customer: 1 object(s) could not be read, though Stripe answers: {chosen}"
    ]


def test_when_stripe_is_down_no_object_is_to_blame(stored: Warehouse, account: Sandbox) -> None:
    bad = long_invoices(stored)[0]
    account_down = {"match": {"method": "account.get"}, "action": DOWN}
    report, error = verify(stored, account, lines_of(bad, DOWN), account_down)
    assert isinstance(error, TransientSourceError)
    assert report is None
    assert events(stored)[-1]["payload"]["error_type"] == "TransientSourceError"

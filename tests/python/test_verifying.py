"""Verification: planted losses are found, what merely has changed since is no error."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import LandfallError, SourceError
from loaders.ingestion.ingest import IngestOptions
from loaders.settings.places import PROJECT_DIR
from loaders.sources.contract import NotVerifiable, VerifiableSource
from loaders.sources.gmail.position import Position
from loaders.sources.gmail.verification import MailboxVerification
from loaders.sources.inventory import ERRORS, Inventory
from loaders.sources.stripe.verification import AccountVerification
from loaders.upkeep.verifying import Report, Verification, VerificationFailed
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .cli.conftest import run_main
from .conftest import Project, events, gmail_source, prepared, run_gmail, run_stripe, stripe_source
from .test_dead_letters import put_letter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("core_build", "stays_open")]

SIZE = 20
GONE_MESSAGE = "1ec717d8139ff87c"
OBJECTS = ("charge", "customer", "invoice", "invoice_line", "balance_transaction", "dispute")
IS_MESSAGE = "object_type = 'message' and deleted_at is null"
ONE_MESSAGE = f"(select min(external_id) from events.raw_objects where {IS_MESSAGE})"
ONE_CHARGE = "(select min(external_id) from events.raw_objects where object_type = 'charge')"
ONE_LINE = "(select min(external_id) from events.raw_objects where object_type = 'invoice_line')"


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a sandbox: every test begins with a copy."""
    state = tmp_path_factory.mktemp("sandbox") / "state.sqlite"
    with Sandbox(state=state, size=SIZE, charges=SIZE, seed=5) as sandbox:
        sandbox.change(delete=[GONE_MESSAGE])
        sandbox.change_stripe(delete={"customer": 1})
    return state


@contextlib.contextmanager
def started(at_rest: Path) -> Iterator[Sandbox]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        yield stack.enter_context(Sandbox(state=shutil.copy(at_rest, directory)))


@pytest.fixture
def server(at_rest: Path) -> Iterator[Sandbox]:
    """A mailbox without one of its messages, an account without one of its customers."""
    with started(at_rest) as sandbox:
        yield sandbox


@pytest.fixture
def verified(core_build: None, project: Project, at_rest: Path) -> Warehouse:
    """A warehouse that holds what `server` has."""

    def read_both(warehouse: Warehouse) -> None:
        with started(at_rest) as sandbox:
            assert run_gmail(warehouse, sandbox).error is None
            assert run_stripe(warehouse, sandbox, objects=OBJECTS).error is None

    return prepared(project, "before_verification", read_both)


def verify(
    warehouse: Warehouse, sandbox: Sandbox, source: str, **options: Any
) -> tuple[Report | None, LandfallError | None]:
    def open_source() -> VerifiableSource:
        if source == "gmail":
            return gmail_source(sandbox)
        return stripe_source(sandbox, objects=OBJECTS)

    verification = Verification(
        warehouse,
        open_source,
        source_system=source,
        connection_name="acct1",
        **options,
    )
    try:
        verification.run()
    except LandfallError as error:
        return verification.report, error
    return verification.report, None


def differences(report: Report | None) -> dict[str, int]:
    assert report is not None
    return {kind: count for kind, count in report.totals.items() if count}


@pytest.mark.parametrize("source", ["gmail", "stripe"])
def test_a_warehouse_that_holds_everything_is_equal_and_two_events_say_so(
    verified: Warehouse, server: Sandbox, source: str
) -> None:
    before = {event["event_id"] for event in events(verified)}
    report, error = verify(verified, server, source, with_payloads=True)
    assert error is None
    assert differences(report) == {}
    started, completed = [event for event in events(verified) if event["event_id"] not in before]
    assert (started["event_type"], completed["event_type"]) == ("job.started", "job.completed")
    assert started["correlation_id"].startswith(f"{source}_verify_acct1-")
    kind, count = ("message", len(server.live_ids())) if source == "gmail" else ("charge", SIZE)
    assert completed["payload"]["verified"][kind] == {"listed": count, "held": count}


def copied(chosen: str, external_id: str) -> str:
    return (
        f"insert into {{raw}} by name select * replace ('{external_id}' as external_id,"
        f" idem_key || '{external_id}' as idem_key) from {{raw}} where external_id = {chosen}"
    )


PLANTED = {
    "a lost message": (
        "gmail",
        "missing",
        f"delete from {{raw}} where external_id = {ONE_MESSAGE}",
    ),
    "a message come back": ("gmail", "extra", copied(ONE_MESSAGE, GONE_MESSAGE)),
    "labels of yore": (
        "gmail",
        "stale",
        "update {raw} set payload = json_merge_patch(payload,"
        ' \'{{"labelIds": ["STARRED", "SENT", "INBOX"]}}\')'
        f" where external_id = {ONE_MESSAGE}",
    ),
    "no labels": (
        "gmail",
        "stale",
        "update {raw} set payload = json_merge_patch(payload, '{{\"labelIds\": null}}')"
        f" where external_id = {ONE_MESSAGE}",
    ),
    "another text": (
        "gmail",
        "altered",
        'update {raw} set payload = json_merge_patch(payload, \'{{"snippet": "x"}}\')'
        f" where external_id = {ONE_MESSAGE}",
    ),
    "no payload": (
        "stripe",
        "altered",
        f"update {{raw}} set payload = null where external_id = {ONE_CHARGE}",
    ),
    "a lost charge": ("stripe", "missing", f"delete from {{raw}} where external_id = {ONE_CHARGE}"),
    "a lost line": ("stripe", "missing", f"delete from {{raw}} where external_id = {ONE_LINE}"),
    "a line that never was": ("stripe", "extra", copied(ONE_LINE, "in_1:il_1")),
    "a charge that never was": ("stripe", "extra", copied(ONE_CHARGE, "ch_1")),
    "a charge of yore": (
        "stripe",
        "stale",
        f"update {{raw}} set payload_hash = 'older' where external_id = {ONE_CHARGE}",
    ),
}


@pytest.mark.parametrize(("source", "kind", "statement"), PLANTED.values(), ids=PLANTED)
def test_a_planted_loss_is_found(
    verified: Warehouse, server: Sandbox, source: str, kind: str, statement: str
) -> None:
    verified.execute(statement.format(raw="events.raw_objects"))
    with_payloads = kind == "altered"
    report, error = verify(verified, server, source, with_payloads=with_payloads)
    assert isinstance(error, VerificationFailed)
    assert error.exit_code == 1
    assert differences(report) == {kind: 1}
    assert report is not None
    assert len(report.ids[kind]) == 1
    *_, failed = events(verified, report.correlation_id)
    assert failed["event_type"] == "job.failed"
    assert failed["payload"]["error_type"] == "VerificationFailed"
    assert f"1 {kind}" in failed["error_message"]


@pytest.mark.parametrize("planted", ["another text", "no payload"])
def test_what_is_altered_is_mended_as_the_docs_say(
    verified: Warehouse, server: Sandbox, planted: str
) -> None:
    source, _, statement = PLANTED[planted]
    verified.execute(statement.format(raw="events.raw_objects"))
    seen = "select idem_key, first_seen from events.raw_objects order by idem_key"
    first_seen = verified.execute(seen)
    report, error = verify(verified, server, source, with_payloads=True)
    assert report is not None
    assert "docs/duties.md" in str(error)
    [(_, external_id)] = report.ids["altered"]
    duties = (PROJECT_DIR / "docs" / "duties.md").read_text()
    [mend] = re.findall(r"update events\.raw_objects.*?;", duties)
    verified.execute(mend.replace("…", external_id))
    options = IngestOptions(full_resync=True)
    if source == "gmail":
        run = run_gmail(verified, server, options)
    else:
        run = run_stripe(verified, server, options, objects=OBJECTS)
    assert run.error is None
    report, error = verify(verified, server, source, with_payloads=True)
    assert error is None
    assert differences(report) == {}
    assert verified.execute(seen) == first_seen


def test_a_change_that_no_event_tells_of_is_stale(verified: Warehouse, server: Sandbox) -> None:
    changed = server.change_stripe(update_silently={"charge": 2})["affected"]["update_silently"]
    report, error = verify(verified, server, "stripe")
    assert isinstance(error, VerificationFailed)
    assert report is not None
    assert report.ids == {"stale": [("charge", key) for key in sorted(changed)]}


def test_what_has_changed_since_the_last_run_is_no_error(
    verified: Warehouse, server: Sandbox
) -> None:
    ids = server.live_ids()
    server.change(
        deliver=2, delete=[ids[0]], labels={"ids": [ids[1]], "add": ["STARRED"], "remove": []}
    )
    report, error = verify(verified, server, "gmail")
    assert error is None
    assert report is not None
    assert differences(report) == {"changed_since": 4}

    [invoice] = server.change_stripe(create={"invoice": 1})["affected"]["create"]
    server.change_stripe(
        create={"charge": 1}, update={"customer": 1}, delete={"customer": 1}, refund=1, settle=3
    )
    report, error = verify(verified, server, "stripe")
    assert error is None
    assert differences(report)["changed_since"] >= 8
    assert report is not None
    assert ("invoice", invoice) in report.ids["changed_since"]


@pytest.mark.parametrize("source", ["gmail", "stripe"])
def test_a_run_in_between_makes_no_false_alarm_and_hides_no_loss(
    verified: Warehouse, server: Sandbox, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the lease, and what it brings counts as changed."""
    part: Any = MailboxVerification if source == "gmail" else AccountVerification
    method = "_list_mailbox" if source == "gmail" else "_list"
    go_on = getattr(part, method)

    def run_first(self: Any, *arguments: Any) -> None:
        server.change(deliver=2, delete=1)
        server.change_stripe(create={"charge": 1}, update={"customer": 1}, delete={"customer": 1})
        if source == "gmail":
            done = run_gmail(verified, server)
        else:
            done = run_stripe(verified, server, objects=OBJECTS)
        assert done.error is None
        assert done.counts["inserted"]
        go_on(self, *arguments)

    monkeypatch.setattr(part, method, run_first)
    report, error = verify(verified, server, source)
    assert error is None
    assert set(differences(report)) == {"changed_since"}

    monkeypatch.undo()
    lost = ONE_MESSAGE if source == "gmail" else ONE_CHARGE
    verified.execute(f"delete from events.raw_objects where external_id = {lost}")
    report, error = verify(verified, server, source)
    assert isinstance(error, VerificationFailed)
    assert differences(report) == {"missing": 1}


def test_what_lies_among_the_dead_letters_is_known(verified: Warehouse, server: Sandbox) -> None:
    [(external_id,)] = verified.execute(f"select {ONE_MESSAGE}")
    [(load_id,)] = verified.execute("select max(load_id) from events_staging._dlt_loads")
    [(now,)] = verified.execute("select current_timestamp")
    put_letter(verified, external_id, now)
    verified.execute("update events_staging.dead_letters set _dlt_load_id = ?", (load_id,))
    verified.execute("delete from events.raw_objects where external_id = ?", (external_id,))
    report, error = verify(verified, server, "gmail")
    assert error is None
    assert report is not None
    assert differences(report) == {"dead_letter": 1}


def test_what_waits_in_the_queue_is_held(verified: Warehouse, server: Sandbox) -> None:
    verified.execute(
        "insert into events_staging.landed_objects by name select idem_key, source_system,"
        " connection_name, object_type, external_id, cast(payload as varchar) as payload,"
        " payload_hash, last_seen as observed_at, false as is_deleted, 'r' as correlation_id,"
        " (select max(load_id) from events_staging._dlt_loads) as _dlt_load_id"
        f" from events.raw_objects where external_id in ({ONE_MESSAGE}, {ONE_CHARGE})"
    )
    verified.execute(
        f"delete from events.raw_objects where external_id in ({ONE_MESSAGE}, {ONE_CHARGE})"
    )
    for source in ("gmail", "stripe"):
        report, error = verify(verified, server, source)
        assert error is None
        assert differences(report) == {}


def test_a_message_that_one_listing_skips_is_not_extra(
    verified: Warehouse, server: Sandbox
) -> None:
    """As when another one is removed while pages are read."""
    some = server.live_ids()[:-4]
    page = {"messages": [{"id": key, "threadId": key} for key in some]}
    method = {"method": "messages.list"}
    server.set_faults([{"match": method, "times": 1, "action": {"json": page}}])
    report, error = verify(verified, server, "gmail")
    assert error is None
    assert report is not None
    assert differences(report) == {}


def test_what_is_still_being_read_cannot_be_verified(warehouse: Warehouse, server: Sandbox) -> None:
    for source, run in (("gmail", run_gmail), ("stripe", run_stripe)):
        _, error = verify(warehouse, server, source)
        assert isinstance(error, NotVerifiable)
        assert f'run "run.py {source}" first' in str(error)
        run(warehouse, server, IngestOptions(max_objects=5))
        _, error = verify(warehouse, server, source)
        assert isinstance(error, NotVerifiable)
        assert "--until-done" in str(error)


def test_expired_history_and_another_mailbox_cannot_be_verified(
    verified: Warehouse, server: Sandbox
) -> None:
    cursor = Stored(verified, "gmail", "acct1").cursor("messages")
    position = Position.read(cursor)
    assert position is not None
    server.change(deliver=1)
    server.settings(history_expired_before=int(position.history_id) + 1)
    _, error = verify(verified, server, "gmail")
    assert isinstance(error, NotVerifiable)
    assert "expired" in str(error)
    verified.execute(
        "update events_staging.cursors set cursor = replace(cursor, ?, 'other@example.com')",
        (position.mailbox,),
    )
    gone = {"status": 404, "reason": "notFound"}
    server.set_faults([{"match": {"method": "messages.get"}, "times": None, "action": gone}])
    _, error = verify(verified, server, "gmail")
    assert isinstance(error, SourceError)
    assert "another mailbox" in str(error)


def test_a_label_that_cannot_be_listed_is_named_and_not_compared(
    verified: Warehouse, server: Sandbox
) -> None:
    refusal = {"status": 400, "reason": "invalidArgument"}
    match = {"method": "messages.list"}
    server.set_faults([{"match": match, "skip": 3, "action": refusal}])
    report, error = verify(verified, server, "gmail")
    assert error is None
    assert report is not None
    assert report.is_equal
    assert [note.split(":")[0] for note in report.notes if "400" in note] == ["label not compared"]


def test_the_command_prints_json_and_its_exit_code_tells_what_was_found(
    verified: Warehouse,
    server: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("ACCESS_TOKEN", "any-token"), ("API_BASE_URL", server.base_url)):
        monkeypatch.setenv(f"SOURCES__GMAIL__ACCT1__{name}", value)
    code, out, _ = run_main(capsys, "verify", "gmail")
    assert code == 0
    assert "equal" in out
    verified.execute(f"delete from events.raw_objects where {IS_MESSAGE}")
    count = len(server.live_ids())
    code, out, err = run_main(capsys, "verify", "gmail", "--json", "--limit", "3")
    found = json.loads(out)
    assert (code, found["is_equal"]) == (1, False)
    assert found["totals"] == {**dict.fromkeys(ERRORS, 0), "missing": count}
    assert len(found["ids"]["missing"]) == 3
    assert f"{count} missing" in err
    server.set_faults([{"times": None, "action": {"status": 401}}])
    code, out, err = run_main(capsys, "verify", "gmail", "--json")
    assert (code, out) == (2, "")
    assert "refused with 401" in err


def test_excuses_are_of_a_type_and_parts_have_those_of_their_parents() -> None:
    with Inventory() as inventory:
        inventory.hold("line", ["a:1", "b:1"])
        inventory.hold("thing", ["a", "kept"])
        inventory.list_ids("thing", ["kept", "new", "new"])
        inventory.excuse("line", ["a"], "changed_since")
        inventory.excuse("thing", ["a"], "dead_letter")
        inventory.excuse("thing", ["new"], "not_read_yet")
        inventory.excuse("thing", ["new"], "changed_since")
        counts = {outcome.object_type: outcome.differences for outcome in inventory.compare()}
    assert counts == {
        "line": {"changed_since": 1, "extra": 1},
        "thing": {"extra": 1, "changed_since": 1},
    }
